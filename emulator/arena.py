"""Every byte that the card can reach, in one sparse reservation: VRAM first, then system memory.

One flat array lets a translated address be an index, so that a wave's gather is a single NumPy operation whichever
memory its lanes hit. Pages cost nothing until they are touched.
"""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import OutOfMemory

PAGE_BYTES = 4096
MAP_NORESERVE = 0x4000  # Linux uapi asm-generic/mman-common.h; the mmap module names it from Python 3.13 on
# Bus addresses of emulated system memory start above 4 GiB, where a 32-bit truncation shows as a fault.
SYSTEM_BUS_BASE = 0x1_0000_0000


class BusError(Exception):
    """A DMA access to a bus address that no memory answers (an IOMMU fault on a real machine)."""

    def __init__(self, address: int, size_bytes: int, reason: str) -> None:
        super().__init__(f"bus access at {address:#x}+{size_bytes:#x}: {reason}")
        self.address = address


class Arena:
    """VRAM of ``vram_bytes`` followed by a window of ``system_bytes`` from which DMA memory is carved."""

    def __init__(self, vram_bytes: int, system_bytes: int) -> None:
        self.vram_bytes = vram_bytes
        self.system_bytes = system_bytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        try:
            self._map = mmap.mmap(-1, vram_bytes + system_bytes, flags=flags)
        except OSError as error:
            raise OutOfMemory(
                f"cannot reserve {(vram_bytes + system_bytes) >> 20} MiB of address space for the emulated card: "
                f"{error}; ask for a card with less VRAM"
            ) from error
        self.bytes: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        self._view = memoryview(self._map)
        self._mapped = np.zeros(system_bytes // PAGE_BYTES, dtype=np.bool_)
        self._free: list[tuple[int, int]] = [(0, system_bytes // PAGE_BYTES)]  # (first page, pages), sorted

    def view(self, index: int, size_bytes: int) -> memoryview:
        """Writable bytes from arena index ``index``."""
        return self._view[index : index + size_bytes]

    def lose_vram(self) -> None:
        """What a reset does to memory contents: they are gone (pages read as zero again)."""
        self._map.madvise(mmap.MADV_DONTNEED, 0, self.vram_bytes)

    # -- system memory ------------------------------------------------------------------------------------------------

    def allocate_system(self, size_bytes: int) -> int:
        """Carve zeroed system memory out of the window; returns its bus address. Raises OutOfMemory."""
        pages = -(-size_bytes // PAGE_BYTES)
        for position, (first, count) in enumerate(self._free):
            if count >= pages:
                rest = [(first + pages, count - pages)] if count > pages else []
                self._free[position : position + 1] = rest
                self._mapped[first : first + pages] = True
                return SYSTEM_BUS_BASE + first * PAGE_BYTES
        raise OutOfMemory(f"no {size_bytes} contiguous bytes left in the {self.system_bytes} bytes of DMA window")

    def free_system(self, bus_address: int, size_bytes: int) -> None:
        """Return system memory; the device faults on it from now on."""
        first, pages = (bus_address - SYSTEM_BUS_BASE) // PAGE_BYTES, -(-size_bytes // PAGE_BYTES)
        self._mapped[first : first + pages] = False
        self._map.madvise(mmap.MADV_DONTNEED, self.vram_bytes + first * PAGE_BYTES, pages * PAGE_BYTES)
        merged: list[tuple[int, int]] = []
        for start, count in sorted([*self._free, (first, pages)]):
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + count)
            else:
                merged.append((start, count))
        self._free = merged

    def bus_index(self, bus_address: int, size_bytes: int) -> int:
        """Arena index of a bus address; raises BusError where no system memory is mapped."""
        offset = bus_address - SYSTEM_BUS_BASE
        if offset < 0 or offset + size_bytes > self.system_bytes:
            raise BusError(bus_address, size_bytes, "outside system memory")
        first, last = offset // PAGE_BYTES, (offset + max(size_bytes, 1) - 1) // PAGE_BYTES
        if not self._mapped[first : last + 1].all():
            raise BusError(bus_address, size_bytes, "not mapped for the device")
        return self.vram_bytes + offset
