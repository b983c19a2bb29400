"""Host memory for a card behind a socket: pages of a memory file, mapped here and in the server."""

from __future__ import annotations

import fcntl
import mmap
import os
from bisect import insort
from collections.abc import Callable
from contextlib import suppress

from amdrv.errors import AmdrvError, DeviceLost, OutOfMemory
from amdrv.facts.vfio_user import DMA_MAP, DMA_READABLE, DMA_UNMAP, DMA_WRITABLE, PAGE_BYTES, Command
from amdrv.ioctl.pci_function import DmaMemory
from amdrv.ioctl.vfio_user_link import Link, Rejection

# Bus addresses of this client's memory: above 4 GiB, where a 32-bit truncation shows as a fault, and 64 GiB of them,
# below where machines put the BARs of large cards.
FIRST_ADDRESS = 0x1_0000_0000
END_ADDRESS = FIRST_ADDRESS + (64 << 30)


class BusAddresses:
    """Which bus addresses are taken: first fit, so that the same requests get the same addresses."""

    def __init__(self, first: int = FIRST_ADDRESS, end: int = END_ADDRESS) -> None:
        self._first = first
        self._end = end
        self._taken: list[tuple[int, int]] = []  # (address, bytes), sorted

    def take(self, size_bytes: int) -> int:
        """A free run of ``size_bytes`` (whole pages). Raises OutOfMemory."""
        address = self._first
        for start, length in self._taken:
            if start - address >= size_bytes:
                break
            address = start + length
        if address + size_bytes > self._end:
            raise OutOfMemory(f"no {size_bytes} bytes of bus addresses left for DMA memory")
        insort(self._taken, (address, size_bytes))
        return address

    def give_back(self, address: int, size_bytes: int) -> None:
        """Free what ``take`` returned."""
        self._taken.remove((address, size_bytes))


class SharedMemory(DmaMemory):
    """Zeroed pages that the card reaches at an address that this client chose. Raises OutOfMemory, DeviceLost."""

    def __init__(
        self, link: Link, addresses: BusAddresses, size_bytes: int, on_close: Callable[[SharedMemory], None]
    ) -> None:
        self.size_bytes = (max(size_bytes, 1) + PAGE_BYTES - 1) & -PAGE_BYTES
        self._link = link
        self._addresses = addresses
        self._on_close = on_close
        self._open = False
        address = addresses.take(self.size_bytes)
        self.segments = ((address, self.size_bytes),)
        descriptor = -1
        try:
            descriptor = _memory_file(self.size_bytes)
            self._map = mmap.mmap(descriptor, self.size_bytes, mmap.MAP_SHARED)
            request = DMA_MAP.pack(DMA_MAP.size, DMA_READABLE | DMA_WRITABLE, 0, address, self.size_bytes)
            link.request(Command.DMA_MAP, request, (descriptor,))
        except (OSError, Rejection) as error:
            addresses.give_back(address, self.size_bytes)
            raise OutOfMemory(f"no {self.size_bytes} bytes of memory to share with the card: {error}") from error
        except BaseException:
            addresses.give_back(address, self.size_bytes)
            raise
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        self.view = memoryview(self._map)
        self._open = True

    def close(self) -> None:
        """Take it back from the card first. A server that is gone has no part in it any more."""
        if not self._open:
            return
        self._open = False
        ((address, size),) = self.segments
        with suppress(DeviceLost, AmdrvError):
            if not self._link.closed:
                self._link.request(Command.DMA_UNMAP, DMA_UNMAP.pack(DMA_UNMAP.size, 0, address, size))
        self._addresses.give_back(address, size)
        self._on_close(self)
        # A caller may still hold a part of the view; then the pages stay until the last one goes.
        with suppress(BufferError):
            self.view.release()
            self._map.close()


def _memory_file(size_bytes: int) -> int:
    """A file in memory that keeps its size: the server can trust that its pages stay."""
    descriptor = os.memfd_create("amdrv-dma", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
