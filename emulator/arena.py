"""Every byte that the card can reach, in one sparse reservation: VRAM first, then system memory.

One flat array lets a translated address be an index, so that a wave's gather is a single NumPy operation whichever
memory its lanes hit. Pages cost nothing until they are touched. What lies in the system window is either memory of this
process, or a client's memory mapped over a part of the window; a table of regions says which bus address lies where.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.remote_memory import Port, RemoteMemory
from amdrv.errors import OutOfMemory

PAGE_BYTES = 4096
# Linux uapi asm-generic/mman-common.h
MAP_FIXED = 0x10
MAP_NORESERVE = 0x4000  # the mmap module names it from Python 3.13 on
MAP_FAILED = ctypes.c_void_p(-1).value
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
# Bus addresses of emulated system memory start above 4 GiB, where a 32-bit truncation shows as a fault.
SYSTEM_BUS_BASE = 0x1_0000_0000


class BusError(Exception):
    """A DMA access to a bus address that no memory answers (an IOMMU fault on a real machine)."""

    def __init__(self, address: int, size_bytes: int, reason: str) -> None:
        super().__init__(f"bus access at {address:#x}+{size_bytes:#x}: {reason}")
        self.address = address


@dataclass(frozen=True, slots=True)
class Region:
    """A run of bus addresses that memory answers."""

    first: int
    end: int  # exclusive
    index: int | None  # arena index of the first byte; None: known, but out of the card's reach
    pages: int  # of the window that it takes up
    readable: bool = True  # what its owner lets the card do
    writable: bool = True
    remote: bool = False  # reached by messages: see RemoteMemory


class Arena:
    """VRAM of ``vram_bytes`` followed by a window of ``system_bytes`` for system memory.

    With ``shared`` VRAM is a memory file, ``vram_descriptor``, that another process can map.
    """

    def __init__(self, vram_bytes: int, system_bytes: int, *, shared: bool = False) -> None:
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
        self._start = int(self.bytes.ctypes.data)
        self._free: list[tuple[int, int]] = [(0, system_bytes // PAGE_BYTES)]  # (first page, pages), sorted
        self._next_page = 0  # where the search for a place for a client's memory goes on
        self._firsts: list[int] = []  # first bus address of each region, sorted
        self._regions: list[Region] = []  # in the same order
        # Counts the changes of what answers on the bus: a translation that was made before must be looked at again.
        self.generation = 0
        # What single accesses of engines see of VRAM's beginning, where that is not what the host sees of it.
        self.shown: memoryview | None = None
        self.remote = RemoteMemory(self.bytes)
        self.vram_descriptor: int | None = None
        if shared:
            self.vram_descriptor = _memory_file(vram_bytes)
            weakref.finalize(self, os.close, self.vram_descriptor)
            self._place(0, vram_bytes, mmap.MAP_SHARED, self.vram_descriptor, 0)

    def view(self, index: int, size_bytes: int) -> memoryview:
        """Writable bytes from arena index ``index``."""
        return self._view[index : index + size_bytes]

    def load(self, index: int, size_bytes: int) -> bytes:
        """What an engine reads at an arena index. Raises BusError."""
        if index >= self.remote.lowest and (place := self.remote.find(index)) is not None:
            return self.remote.read(place, index, size_bytes)
        shown = self.shown
        if shown is not None and index < len(shown):
            return bytes(shown[index : index + size_bytes]) + bytes(
                self._view[max(index, len(shown)) : max(index + size_bytes, len(shown))]
            )
        return bytes(self._view[index : index + size_bytes])

    def store(self, index: int, data: bytes) -> None:
        """What an engine writes at an arena index. Raises BusError."""
        if index >= self.remote.lowest and (place := self.remote.find(index)) is not None:
            self.remote.write(place, index, data)
        else:
            self._view[index : index + len(data)] = data

    def extent(self) -> tuple[int, int]:
        """Address in this process, and bytes, of everything."""
        return self._start, self.vram_bytes + self.system_bytes

    def used_vram(self, size_bytes: int) -> Iterator[tuple[int, int]]:
        """(first byte, end) of the parts of VRAM's first ``size_bytes`` that may hold anything; the others are zero."""
        if self.vram_descriptor is None:
            yield 0, size_bytes
            return
        end = 0
        while end < size_bytes:
            try:
                start = os.lseek(self.vram_descriptor, end, os.SEEK_DATA)
            except OSError:  # nothing behind
                return
            if start >= size_bytes:
                return
            end = min(os.lseek(self.vram_descriptor, start, os.SEEK_HOLE), size_bytes)
            yield start, end

    def lose_vram(self) -> None:
        """What a reset does to memory contents: they are gone (pages read as zero again)."""
        advice = mmap.MADV_DONTNEED if self.vram_descriptor is None else mmap.MADV_REMOVE
        self._map.madvise(advice, 0, self.vram_bytes)

    # -- system memory of this process --------------------------------------------------------------------------------

    def allocate_system(self, size_bytes: int) -> int:
        """Carve zeroed system memory out of the window; returns its bus address. Raises OutOfMemory."""
        pages = -(-size_bytes // PAGE_BYTES)
        first = self._take(pages, 0)
        if first is None:
            raise OutOfMemory(f"no {size_bytes} contiguous bytes left in the {self.system_bytes} bytes of DMA window")
        bus_address = SYSTEM_BUS_BASE + first * PAGE_BYTES
        end, index = bus_address + pages * PAGE_BYTES, self.vram_bytes + first * PAGE_BYTES
        self._insert(Region(bus_address, end, index, pages))
        return bus_address

    def free_system(self, bus_address: int, size_bytes: int) -> None:
        """Return system memory, as much as was allocated at ``bus_address``; the device faults on it from now on."""
        region = self._remove(bus_address, bus_address + -(-size_bytes // PAGE_BYTES) * PAGE_BYTES)
        if region is not None and region.index is not None:
            self._map.madvise(mmap.MADV_DONTNEED, region.index, region.pages * PAGE_BYTES)
            self._give_back(region)

    def reserve(self, size_bytes: int) -> int:
        """Arena index of zeroed memory that no bus address leads to, for the card's own use. Raises OutOfMemory."""
        pages = -(-size_bytes // PAGE_BYTES)
        first, count = self._free[-1] if self._free else (0, 0)
        if count < pages:
            raise OutOfMemory(f"no {size_bytes} bytes left at the end of the {self.system_bytes} bytes of DMA window")
        self._free[-1:] = [(first, count - pages)] if count > pages else []
        return self.vram_bytes + (first + count - pages) * PAGE_BYTES

    # -- memory of another process ------------------------------------------------------------------------------------

    def overlaps(self, bus_address: int, size_bytes: int) -> bool:
        """Whether any memory answers in a range of bus addresses already."""
        position = bisect_left(self._firsts, bus_address + size_bytes)
        return position > 0 and self._regions[position - 1].end > bus_address

    def map_file(
        self, bus_address: int, size_bytes: int, descriptor: int, offset: int, *, writable: bool, readable: bool = True
    ) -> None:
        """Let the pages of a file at ``offset`` answer at ``bus_address``; all three are multiples of the page size.

        The caller has seen to it that the file is long enough and that nothing answers there yet. A file that is not
        ``writable`` is out of the reach of the card's writes. Raises OutOfMemory without room in the window, OSError.
        """
        region = self._place_for(bus_address, size_bytes, readable=readable, writable=writable)
        index = region.index or 0
        try:
            self._place(index, size_bytes, mmap.MAP_SHARED if writable else mmap.MAP_PRIVATE, descriptor, offset)
        except OSError:
            self._clear(region)
            raise
        self._insert(region)

    def map_remote(
        self, bus_address: int, size_bytes: int, port: Port, *, readable: bool = True, writable: bool = True
    ) -> None:
        """Let memory answer at ``bus_address`` that is reached through ``port``. Raises OutOfMemory."""
        region = self._place_for(bus_address, size_bytes, readable=readable, writable=writable, remote=True)
        self.remote.add(region.index or 0, size_bytes, bus_address, port)
        self._insert(region)

    def note_out_of_reach(self, bus_address: int, size_bytes: int) -> None:
        """Remember memory that was announced without a way to get at it: the card's accesses to it fail."""
        self._insert(Region(bus_address, bus_address + size_bytes, None, 0))

    def unmap(self, bus_address: int, size_bytes: int) -> bool:
        """Take back what was mapped as exactly this range. False when nothing was."""
        region = self._remove(bus_address, bus_address + size_bytes)
        if region is None:
            return False
        self._clear(region)
        return True

    def mapped(self) -> list[tuple[int, int]]:
        """(bus address, bytes) of everything that answers, lowest first."""
        return [(region.first, region.end - region.first) for region in self._regions]

    def mapped_here(self) -> list[tuple[int, int]]:
        """As ``mapped``, without what only messages reach, or nothing."""
        here = [region for region in self._regions if region.index is not None and not region.remote]
        return [(region.first, region.end - region.first) for region in here]

    def bus_changed(self) -> None:
        """What the card reaches over the bus is another than before: bus mastering, for one."""
        self.generation += 1

    # -- the device's side --------------------------------------------------------------------------------------------

    def bus_index(self, bus_address: int, size_bytes: int) -> int:
        """Arena index of a bus address; raises BusError where no system memory is mapped."""
        position = bisect_right(self._firsts, bus_address) - 1
        region = self._regions[position] if position >= 0 else None
        if region is None or bus_address >= region.end:
            raise BusError(bus_address, size_bytes, "not mapped for the device")
        if region.index is None:
            raise BusError(bus_address, size_bytes, "in memory that came without a file descriptor")
        last = bus_address + size_bytes
        index = region.index + bus_address - region.first
        while last > region.end:  # neighbours on the bus that are neighbours here too
            position += 1
            following = self._regions[position] if position < len(self._regions) else None
            if following is None or following.first != region.end or following.index is None:
                raise BusError(bus_address, size_bytes, "not mapped for the device")
            alike = (following.readable, following.writable) == (region.readable, region.writable)
            if region.index is None or not alike or following.index != region.index + region.end - region.first:
                raise BusError(bus_address, size_bytes, "not in one piece")
            region = following
        return index

    def rights(self, bus_address: int) -> tuple[bool, bool]:
        """Whether the owner of the memory at a bus address lets the card read and write it."""
        position = bisect_right(self._firsts, bus_address) - 1
        region = self._regions[position] if position >= 0 else None
        if region is None or bus_address >= region.end:
            return False, False
        return region.readable, region.writable

    # -- book-keeping -------------------------------------------------------------------------------------------------

    def _place_for(
        self, bus_address: int, size_bytes: int, *, readable: bool, writable: bool, remote: bool = False
    ) -> Region:
        """Room in the window for a client's memory. Raises OutOfMemory."""
        pages = size_bytes // PAGE_BYTES
        first = self._take(pages, self._next_page)
        if first is None:
            raise OutOfMemory(f"no {size_bytes} contiguous bytes left in the {self.system_bytes} bytes of DMA window")
        # The next one goes elsewhere: a translation that the card still caches must not find another's memory.
        self._next_page = first + pages
        index = self.vram_bytes + first * PAGE_BYTES
        return Region(bus_address, bus_address + size_bytes, index, pages, readable, writable, remote)

    def _insert(self, region: Region) -> None:
        self.generation += 1
        position = bisect_left(self._firsts, region.first)
        self._firsts.insert(position, region.first)
        self._regions.insert(position, region)

    def _remove(self, first: int, end: int) -> Region | None:
        position = bisect_left(self._firsts, first)
        if position == len(self._firsts) or self._firsts[position] != first or self._regions[position].end != end:
            return None
        self.generation += 1
        del self._firsts[position]
        return self._regions.pop(position)

    def _take(self, pages: int, from_page: int) -> int | None:
        """The first free run of ``pages`` from page ``from_page`` on, else from the start; None when there is none."""
        for lowest in dict.fromkeys((from_page, 0)):
            for position, (start, count) in enumerate(self._free):
                first = max(start, lowest)
                if start + count - first >= pages:
                    rest = [(start, first - start), (first + pages, start + count - first - pages)]
                    self._free[position : position + 1] = [run for run in rest if run[1]]
                    return first
        return None

    def _give_back(self, region: Region) -> None:
        if region.index is None:
            return
        merged: list[tuple[int, int]] = []
        for start, count in sorted([*self._free, ((region.index - self.vram_bytes) // PAGE_BYTES, region.pages)]):
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + count)
            else:
                merged.append((start, count))
        self._free = merged

    def _clear(self, region: Region) -> None:
        """Make a part of the window empty and free again: an access that is under way falls on nobody's memory."""
        if region.index is not None:
            if region.remote:
                self.remote.remove(region.index)
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
            self._place(region.index, region.pages * PAGE_BYTES, flags, -1, 0)
            self._give_back(region)

    def _place(self, index: int, size_bytes: int, flags: int, descriptor: int, offset: int) -> None:
        """Put another mapping over a part of the reservation; an access in flight sees the old one or the new one."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64)
        place = libc.mmap(self._start + index, size_bytes, READ_WRITE, flags | MAP_FIXED, descriptor, offset)
        if place == MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _memory_file(size_bytes: int) -> int:
    """A file in memory that keeps its size, so that nobody who holds it can take pages away from under the card."""
    descriptor = os.memfd_create("amdrv-vram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size_bytes)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
