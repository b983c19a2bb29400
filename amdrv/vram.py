"""Device memory as the CPU reaches it: the part that BAR0 shows, and the rest through an index and data pair.

Works before the register map exists, because the discovery table itself lies in device memory.
"""

from __future__ import annotations

import array

from amdrv.errors import DeviceLost, InvalidArgument, Unsupported
from amdrv.facts.discovery import EarlyRegister
from amdrv.ioctl.pci_function import ALL_ONES, REGISTER_BAR, VRAM_BAR, PciFunction

MIB = 1 << 20
DWORD_BYTES = 4

# Linux 6.12 amdgpu_device.c: amdgpu_device_mm_access
MEMORY_SIZE_MIB = EarlyRegister.RCC_CONFIG_MEMSIZE * DWORD_BYTES
MM_INDEX = EarlyRegister.MM_INDEX * DWORD_BYTES
MM_DATA = EarlyRegister.MM_DATA * DWORD_BYTES
MM_INDEX_HI = EarlyRegister.MM_INDEX_HI * DWORD_BYTES
MM_INDEX_IS_VRAM = 1 << 31


def read_size_bytes(function: PciFunction) -> int:
    """Size of device memory; one register read. Raises DeviceLost when nothing answers, Unsupported without memory."""
    size_mib = function.read32(REGISTER_BAR, MEMORY_SIZE_MIB)
    if size_mib == ALL_ONES:
        raise DeviceLost(
            f"{function.name}: register reads return all ones; it has left the bus, or memory decoding is off"
        )
    if size_mib == 0:
        raise Unsupported(f"{function.name}: reports no memory of its own; parts without it are not handled")
    return size_mib * MIB


class Vram:
    """Byte access to device memory by offset from its start."""

    def __init__(self, function: PciFunction, size_bytes: int) -> None:
        self._function = function
        self.size_bytes = size_bytes
        self.visible_bytes = min(size_bytes, function.bar_size(VRAM_BAR))
        self._index_hi: int | None = None

    def view(self, offset: int, size_bytes: int) -> memoryview | None:
        """A writable view, or None when the range is not wholly visible through BAR0."""
        self._check(offset, size_bytes)
        if offset + size_bytes > self.visible_bytes:
            return None
        return self._function.memory(VRAM_BAR, offset, size_bytes)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Copy bytes out; slow (two registers a dword) beyond the visible part."""
        self._check(offset, size_bytes)
        if offset + size_bytes <= self.visible_bytes:
            return self._function.read_memory(VRAM_BAR, offset, size_bytes)
        start = offset & ~3
        end = (offset + size_bytes + 3) & ~3
        words = array.array("I", (self._read_word(at) for at in range(start, end, DWORD_BYTES)))
        return words.tobytes()[offset - start : offset - start + size_bytes]

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Copy bytes in; slow beyond the visible part."""
        data = bytes(data)
        self._check(offset, len(data))
        if offset + len(data) <= self.visible_bytes:
            self._function.write_memory(VRAM_BAR, offset, data)
            return
        start = offset & ~3
        end = (offset + len(data) + 3) & ~3
        padded = bytearray(self.read(start, offset - start)) + data
        padded += self.read(offset + len(data), end - offset - len(data))
        for i, word in enumerate(memoryview(padded).cast("I")):
            self._select(start + DWORD_BYTES * i)
            self._function.write32(REGISTER_BAR, MM_DATA, word)

    def fill(self, offset: int, size_bytes: int, byte: int = 0) -> None:
        """Set every byte of a range."""
        view = self.view(offset, size_bytes)
        if view is not None:
            view[:] = bytes([byte]) * size_bytes
        else:
            self.write(offset, bytes([byte]) * size_bytes)

    def _read_word(self, offset: int) -> int:
        self._select(offset)
        return self._function.read32(REGISTER_BAR, MM_DATA)

    def _select(self, offset: int) -> None:
        high = offset >> 31
        if high != self._index_hi:
            self._function.write32(REGISTER_BAR, MM_INDEX_HI, high)
            self._index_hi = high
        self._function.write32(REGISTER_BAR, MM_INDEX, (offset & (MM_INDEX_IS_VRAM - 1)) | MM_INDEX_IS_VRAM)

    def _check(self, offset: int, size_bytes: int) -> None:
        if offset < 0 or size_bytes < 0 or offset + size_bytes > self.size_bytes:
            raise InvalidArgument(
                f"{self._function.name}: device memory has {self.size_bytes:#x} bytes;"
                f" {offset:#x}+{size_bytes:#x} is outside"
            )
