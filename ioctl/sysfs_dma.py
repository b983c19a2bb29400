"""Host memory at known physical addresses, for a card that no IOMMU stands before.

Huge pages are preferred, because they are contiguous and compaction leaves them alone. Ordinary pages are locked, which
keeps them in memory but not in place: the kernel may still move them to make room for larger ones (compaction), and the
card would go on using the former place. They are therefore given only while vm.compact_unevictable_allowed is 0. Other
causes of moves (memory offlining, CMA, NUMA balancing) remain; only VFIO pins pages for good.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from amdrv.errors import OutOfMemory, Refused
from amdrv.ioctl.pci_function import DmaMemory

PAGE = 4096
HUGE_PAGE = 2 << 20
MAP_HUGETLB = 0x40000  # Linux include/uapi/asm-generic/mman-common.h
MADV_NOHUGEPAGE = 15
# Linux Documentation/admin-guide/mm/pagemap.rst
PAGEMAP = Path("/proc/self/pagemap")
PAGEMAP_ENTRY_BYTES = 8
PAGEMAP_PRESENT = 1 << 63
PAGEMAP_FRAME = (1 << 55) - 1
COMPACTION = Path("/proc/sys/vm/compact_unevictable_allowed")
PAGES_HINT = "reserve huge pages: echo 512 > /proc/sys/vm/nr_hugepages"


def frames_of(entries: bytes) -> list[int]:
    """Page frame numbers from 64-bit pagemap entries. Raises Refused for a page that is absent or kept secret."""
    frames: list[int] = []
    for (entry,) in struct.iter_unpack("<Q", entries):
        if not entry & PAGEMAP_PRESENT:
            raise Refused("a page of DMA memory is not in memory although it is locked")
        if not entry & PAGEMAP_FRAME:
            raise Refused(f"{PAGEMAP} hides physical addresses; run as root (it takes CAP_SYS_ADMIN)")
        frames.append(entry & PAGEMAP_FRAME)
    return frames


def merge(frames: Iterable[int], page_bytes: int = PAGE) -> tuple[tuple[int, int], ...]:
    """(physical address, bytes) in the order of ``frames``, neighbours that follow each other joined."""
    segments: list[tuple[int, int]] = []
    for frame in frames:
        address = frame * page_bytes
        if segments and sum(segments[-1]) == address:
            segments[-1] = (segments[-1][0], segments[-1][1] + page_bytes)
        else:
            segments.append((address, page_bytes))
    return tuple(segments)


class LockedMemory(DmaMemory):
    """Zeroed memory of this process that the card reaches by its physical addresses.

    ``size_bytes`` is rounded up to 4 KiB pages. ``pages_stay`` says whether ordinary pages are kept in place. Raises
    OutOfMemory, and Refused when physical addresses are not to be had or would not last. Coherent on x86, whose bus
    snoops the processor's caches. Not tried on silicon.
    """

    def __init__(
        self, size_bytes: int, on_close: Callable[[LockedMemory], None], *, pages_stay: bool | None = None
    ) -> None:
        self.size_bytes = (max(size_bytes, 1) + PAGE - 1) & -PAGE
        self._on_close = on_close
        self._map = _map_huge(self.size_bytes)
        self.huge = self._map is not None
        if self._map is None:
            if not (_pages_stay() if pages_stay is None else pages_stay):
                raise Refused(
                    f"no free huge pages for {self.size_bytes} bytes, and ordinary pages may be moved while the card "
                    f"uses them; {PAGES_HINT}, or forbid moves: echo 0 > {COMPACTION}"
                )
            self._map = _map_small(self.size_bytes)
        self.view = memoryview(self._map)[: self.size_bytes]
        try:
            start = _address(self._map)
            _lock(start, len(self._map))
            self.segments = merge(frames_of(_pagemap(start, self.size_bytes)))
        except BaseException:
            self._unmap()
            raise
        self._open = True

    def close(self) -> None:
        if self._open:
            self._open = False
            self._unmap()
            self._on_close(self)

    def _unmap(self) -> None:
        memory, self._map = self._map, None
        # A caller may still hold a part of the view; then the pages stay until the last one goes.
        with suppress(BufferError):
            self.view.release()
            if memory is not None:
                memory.close()


def _map_huge(size_bytes: int) -> mmap.mmap | None:
    """Whole huge pages, there from the start; None when there are not enough. Shared, so that a fork copies none."""
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE | MAP_HUGETLB
    try:
        return mmap.mmap(-1, (size_bytes + HUGE_PAGE - 1) & -HUGE_PAGE, flags=flags)
    except OSError:
        return None


def _map_small(size_bytes: int) -> mmap.mmap:
    try:
        memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    except OSError as error:
        raise OutOfMemory(f"no {size_bytes} bytes of host memory for DMA: {error.strerror}") from error
    with suppress(OSError):  # a kernel without transparent huge pages has none to merge these into
        memory.madvise(MADV_NOHUGEPAGE)
    return memory


def _pages_stay() -> bool:
    try:
        return COMPACTION.read_text(encoding="ascii").strip() == "0"
    except OSError:
        return not COMPACTION.exists()  # a kernel without compaction has no such file


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _lock(start: int, size_bytes: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.mlock(ctypes.c_void_p(start), ctypes.c_size_t(size_bytes)) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.ENOMEM, errno.EAGAIN, errno.EPERM):
        raise OutOfMemory(f"cannot lock {size_bytes} bytes of host memory; raise the limit: ulimit -l unlimited")
    raise Refused(f"cannot lock host memory for DMA: {os.strerror(number)}")


def _pagemap(start: int, size_bytes: int) -> bytes:
    """The pagemap entries of a range of this process."""
    if mmap.PAGESIZE != PAGE:
        raise Refused(f"this machine has pages of {mmap.PAGESIZE} bytes; DMA memory needs pages of {PAGE}")
    wanted = size_bytes // PAGE * PAGEMAP_ENTRY_BYTES
    try:
        with PAGEMAP.open("rb", buffering=0) as file:
            file.seek(start // PAGE * PAGEMAP_ENTRY_BYTES)
            entries = b""
            while len(entries) < wanted and (part := file.read(wanted - len(entries))):
                entries += part
    except OSError as error:
        raise Refused(f"cannot read {PAGEMAP}: {error.strerror}; run as root (it takes CAP_SYS_ADMIN)") from error
    if len(entries) != wanted:
        raise Refused(f"{PAGEMAP} gave {len(entries)} of {wanted} bytes")
    return entries
