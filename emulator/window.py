"""A second view of the card's memory, in which writes stay until they are merged: how a buffer or cache is modelled.

The pages of the view are those of the memory itself until somebody writes one through the view; the kernel then gives
the view a page of its own (a private mapping of a shared file). Which pages those are, it tells in /proc/self/pagemap
(Linux Documentation/admin-guide/mm/pagemap.rst: bit 61 "file-page or shared-anon", bit 63 "present", 62 "swapped").
So a page costs something only between a write and the next merge, and reading costs nothing at all.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000  # Linux uapi mman-common.h
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4  # Linux uapi mman.h
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
SHARED, PRIVATE = mmap.MAP_SHARED, mmap.MAP_PRIVATE
IN_MEMORY_OR_SWAP, BELONGS_TO_FILE = 0xC0, 0x20  # in the last byte of a pagemap entry
# That byte of every page to whether the page is the view's own.
OWN = bytes(bool(byte & IN_MEMORY_OR_SWAP and not byte & BELONGS_TO_FILE) for byte in range(256))
PAGEMAP = "/proc/self/pagemap"
SCAN_PAGES = 1 << 18  # pages of one pagemap read: 1 GiB of view
BLANK_BYTES = 16 << 20  # of ones, that a blank view shows over and over

# PyDLL keeps the interpreter's lock: no other Python thread stores through the view in the middle of a change to it.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
_MAP_FAILED = ctypes.c_void_p(-1).value

Pages = NDArray[np.int64]


def map_at(address: int, size_bytes: int, flags: int, descriptor: int, offset: int) -> None:
    """Map a file over addresses that are reserved already. Raises OSError."""
    done = _libc.mmap(address, size_bytes, READ_WRITE, flags | MAP_FIXED | MAP_NORESERVE, descriptor, offset)
    if done == _MAP_FAILED:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def runs(numbers: Pages) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of every run of consecutive numbers in a sorted array."""
    if len(numbers):
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        for part in np.split(numbers, breaks):
            yield int(part[0]), int(part[-1]) + 1


class Window:
    """A second view of ``memory``, which is a file in memory from its start on.

    ``view`` is what is seen. The caller serialises every method; stores through the view may come from any thread at
    any time.
    """

    def __init__(self, memory: NDArray[np.uint8], descriptor: int | None) -> None:
        if descriptor is None:
            raise InvalidArgument("the memory is no file: it cannot be seen a second time")
        self.memory = memory
        self._descriptor = descriptor
        flags = PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self._map = mmap.mmap(-1, len(memory), flags=flags)  # a reservation, of which every byte is mapped over
        self.view = memoryview(self._map)
        self.bytes: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self._address = int(self.bytes.ctypes.data)
        self.share(0, len(memory) >> PAGE_SHIFT, shared=False)
        try:
            self._pagemap: int | None = os.open(PAGEMAP, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._pagemap = None  # then every page that is asked about counts as written
        else:
            weakref.finalize(self, os.close, self._pagemap)

    def written(self, first_page: int, end_page: int) -> Pages:
        """Numbers of the pages in a range that differ, or may differ, from the memory."""
        if self._pagemap is None:
            return np.arange(first_page, end_page, dtype=np.int64)
        found = []
        for start in range(first_page, end_page, SCAN_PAGES):
            count = min(SCAN_PAGES, end_page - start)
            entries = os.pread(self._pagemap, 8 * count, 8 * ((self._address >> PAGE_SHIFT) + start))
            own = entries[7::8].translate(OWN)
            if 1 in own:
                found.append(np.flatnonzero(np.frombuffer(own, np.bool_)) + start)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def share(self, first_page: int, end_page: int, *, shared: bool) -> None:
        """Make a range one with the memory, or a view of its own again. What was written there and not merged goes."""
        size_bytes = (end_page - first_page) << PAGE_SHIFT
        offset = first_page << PAGE_SHIFT
        map_at(self._address + offset, size_bytes, SHARED if shared else PRIVATE, self._descriptor, offset)

    def blank(self) -> None:
        """Show ones everywhere, until ``share``: nobody drives the lines. What was written and not merged goes."""
        ones = os.memfd_create("amdrv-ones", os.MFD_CLOEXEC)
        try:
            os.ftruncate(ones, BLANK_BYTES)
            with mmap.mmap(ones, BLANK_BYTES) as tile:
                tile[:] = b"\xff" * BLANK_BYTES
            for offset in range(0, len(self.memory), BLANK_BYTES):
                map_at(self._address + offset, min(BLANK_BYTES, len(self.memory) - offset), PRIVATE, ones, 0)
        finally:
            os.close(ones)

    def drop(self, first_page: int, end_page: int) -> None:
        """Forget what was written to a range: it shows the memory again."""
        self.share(first_page, end_page, shared=False)

    def merge(self, first_page: int, end_page: int, before: NDArray[np.uint8] | None = None) -> None:
        """Bring what was written to a range into the memory, byte by byte; the range shows the memory again.

        ``before`` is what the memory held when the writing began, if that is known: then bytes that others have
        changed in memory since stay as they are now.
        """
        part = slice(first_page << PAGE_SHIFT, end_page << PAGE_SHIFT)
        memory = self.memory[part]
        copy = self.bytes[part].copy()
        np.copyto(memory, copy, where=copy != (memory if before is None else before))
        # A store that came after the copy is in the pages that are taken away now.
        taken = self.take(first_page, end_page)
        late = taken != copy
        if late.any():
            old = memory[late]
            memory[late] = taken[late]
            # A still later store to one of these pages has brought the old bytes around it into the view again.
            view = self.bytes[part]
            view[late] = np.where(view[late] == old, taken[late], view[late])

    def take(self, first_page: int, end_page: int) -> NDArray[np.uint8]:
        """Take the pages of a range out of the view, with what was written to them: it shows the memory again.

        The exchange is one step, so that no store of another thread falls between.
        """
        size_bytes = (end_page - first_page) << PAGE_SHIFT
        place = mmap.mmap(-1, size_bytes, flags=PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        taken: NDArray[np.uint8] = np.frombuffer(place, np.uint8)
        source = self._address + (first_page << PAGE_SHIFT)
        how = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP
        if _libc.mremap(source, size_bytes, size_bytes, how, taken.ctypes.data) == _MAP_FAILED:
            # Linux before 5.13 does this for anonymous memory only: two steps, then.
            taken[:] = self.bytes[first_page << PAGE_SHIFT : end_page << PAGE_SHIFT]
            self.share(first_page, end_page, shared=False)
        return taken
