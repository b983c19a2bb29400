"""The host data path of a card whose memory another process has mapped: it stores there, and nobody sees it do so.

What engines have been shown is kept beside the memory. A page that differs from it while no engine runs was stored to
by the host. So stores are found by comparing, when engines start and when somebody flushes: until a flush, engines are
shown the old page in its place. When the last engine stops, memory as it is then becomes what engines have been shown;
their own single stores are told of. While queues are at work stores go through at once, as in ``HostPath``.

Comparing costs time by the memory that is in use. Beyond ``limit_bytes`` of it stores are therefore let through, until
a reset empties the memory.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.arena import MAP_NORESERVE, Arena
from amdrv.emulator.window import PAGE_BYTES, PAGE_SHIFT, PRIVATE, SHARED, map_at, runs

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20  # that is compared at once
Bytes = NDArray[np.uint8]


class SharedHostPath:
    """See the module. The card's lock covers every method."""

    def __init__(
        self,
        arena: Arena,
        visible_bytes: int,
        before_change: Callable[[int, int, memoryview], None],
        after_change: Callable[[int, int], None],
        *,
        limit_bytes: int | None,
    ) -> None:
        """The first ``visible_bytes`` of the arena's file are the host's to map. For the two calls see ``HostPath``."""
        self._arena = arena
        self._before_change, self._after_change = before_change, after_change
        self.limit_bytes = limit_bytes
        self._size_bytes = min(visible_bytes, arena.vram_bytes) & -PAGE_BYTES
        self._descriptor = arena.vram_descriptor if arena.vram_descriptor is not None else -1
        host = mmap.mmap(self._descriptor, self._size_bytes, flags=SHARED)
        self._view = memoryview(host)
        self._host: Bytes = np.frombuffer(host, np.uint8)
        self._shown_map = mmap.mmap(-1, self._size_bytes, flags=PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        self._shown: Bytes = np.frombuffer(self._shown_map, np.uint8)
        self._waiting: list[tuple[int, int]] = []  # runs of pages that running engines are shown as they were
        self._busy = False
        self._transparent = self._too_much = False
        self._lost: list[tuple[int, Bytes]] | None = None  # what ones stand for, while the card is off the bus
        self._tell()

    @property
    def transparent(self) -> bool:
        """Whether stores reach memory at once: the relaxed way."""
        return self._transparent

    @transparent.setter
    def transparent(self, value: bool) -> None:
        if value != self._transparent:
            self.flush()
            self._transparent = value
            if not value:
                self._show_all()
            self._tell()

    @property
    def pending_bytes(self) -> int:
        """Bytes of the pages that hold stores which no flush has pushed on."""
        waiting = self._waiting if self._busy else self._changed()
        return PAGE_BYTES * sum(end - first for first, end in waiting)

    def view(self, offset: int, size_bytes: int) -> memoryview:
        """Writable bytes of BAR0, as the host sees them."""
        return self._view[offset : offset + size_bytes]

    def flush(self) -> None:
        """Push every store on into memory."""
        if self._through:
            return
        if not self._busy:
            for first, end in self._changed():
                self._let_through(first, end)
        waiting, self._waiting = self._waiting, []
        for first, end in waiting:
            self._take_stores_of_engines(first, end)
            self._let_through(first, end)
            self._uncover(first, end)

    def engine_wrote(self, index: int, size_bytes: int) -> None:
        """An engine stored to memory from byte ``index`` on: the host sees it, also on a page that waits."""
        if self._through or index >= self._size_bytes:
            return
        part = slice(index, min(index + size_bytes, self._size_bytes))
        self._shown[part] = self._arena.bytes[part]
        if self._waiting:
            self._host[part] = self._arena.bytes[part]

    def engines_started(self) -> None:
        """Queues have work: stores go through from now on, and those that wait keep waiting."""
        if self._busy:
            return
        self._busy = True
        if not self._through:
            self._waiting = self._changed()
            for first, end in self._waiting:
                self._hide(first, end)
        self._tell()

    def engines_stopped(self) -> None:
        """Nothing runs: stores wait again."""
        if not self._busy:
            return
        if not self._through:
            for first, end in self._waiting:
                self._take_stores_of_engines(first, end)
            held = [(first, end, self._shown[_part(first, end)].copy()) for first, end in self._waiting]
            self._show_all()
            for first, end, shown in held:
                self._shown[_part(first, end)] = shown
                self._uncover(first, end)
            self._waiting = []
        self._busy = False
        self._tell()

    def lose(self) -> None:
        """A reset: what waited is gone."""
        for first, end in self._waiting:
            self._uncover(first, end)
        self._waiting = []
        if self._lost is not None:
            self._lost = []  # a reset emptied what ones stand for
        self._shown_map.madvise(mmap.MADV_DONTNEED)
        self._too_much = False
        self._tell()

    def cut_off(self) -> None:
        """The card has left the bus: the host reads ones where memory is in use, and what waited is gone.

        Nobody can take its mapping away from the host, so ones are put into its place until ``connect``.
        """
        if self._lost is None:
            self.lose()
            self._lost = [(start, self._host[start:end].copy()) for start, end in self._used()]
            self._tell()
            for start, saved in self._lost:
                self._host[start : start + len(saved)] = 0xFF

    def connect(self) -> None:
        """The card is on the bus again, with its memory as it was."""
        lost, self._lost = self._lost, None
        for start, saved in lost or ():
            self._host[start : start + len(saved)] = saved
        if lost is not None:
            self._show_all()
            self._tell()

    # -- what engines see ---------------------------------------------------------------------------------------------

    @property
    def _through(self) -> bool:
        """Whether nothing is held back."""
        return self._transparent or self._too_much or self._lost is not None

    def _tell(self) -> None:
        """Let single accesses of engines see what they have been shown, as long as none runs."""
        self._arena.shown = None if self._busy or self._through else memoryview(self._shown_map)

    def _hide(self, first: int, end: int) -> None:
        """Put the old contents of a run of pages into the place of the new, for engines."""
        map_at(self._address(first), (end - first) << PAGE_SHIFT, PRIVATE, self._descriptor, first << PAGE_SHIFT)
        self._arena.bytes[_part(first, end)] = self._shown[_part(first, end)]

    def _uncover(self, first: int, end: int) -> None:
        """Engines see a run of pages as the host does."""
        map_at(self._address(first), (end - first) << PAGE_SHIFT, SHARED, self._descriptor, first << PAGE_SHIFT)

    def _let_through(self, first: int, end: int) -> None:
        """Show engines what the host stored to a run of pages."""
        part = _part(first, end)
        self._before_change(first, end, memoryview(self._shown_map)[part])
        self._shown[part] = self._host[part]
        self._after_change(first, end)

    def _take_stores_of_engines(self, first: int, end: int) -> None:
        """Show the host what engines stored to a run of hidden pages, except where it has stored itself."""
        part = _part(first, end)
        theirs, shown, host = self._arena.bytes[part], self._shown[part], self._host[part]
        stored = theirs != shown
        np.copyto(host, theirs, where=stored & (host == shown))
        np.copyto(shown, theirs, where=stored)

    def _show_all(self) -> None:
        """Engines have been shown all of memory as it is now."""
        for first, end in self._changed():
            self._shown[_part(first, end)] = self._host[_part(first, end)]

    def _address(self, page: int) -> int:
        return self._arena.extent()[0] + (page << PAGE_SHIFT)

    # -- what the host stored -----------------------------------------------------------------------------------------

    def _changed(self) -> list[tuple[int, int]]:
        """Runs of pages that differ from what engines have been shown. None beyond the limit."""
        used = self._used()
        if self.limit_bytes is not None and sum(end - start for start, end in used) > self.limit_bytes:
            self._give_up()
            return []
        found: list[NDArray[np.int64]] = []
        for start, end in used:
            for at in range(start, end, BLOCK_BYTES):
                part = slice(at, min(at + BLOCK_BYTES, end))
                host, shown = self._host[part].view(np.uint64), self._shown[part].view(np.uint64)
                differs = host != shown
                if differs.any():
                    pages = np.flatnonzero(differs.reshape(-1, PAGE_BYTES // 8).any(axis=1))
                    found.append(pages + (at >> PAGE_SHIFT))
        return list(runs(np.concatenate(found))) if found else []

    def _used(self) -> list[tuple[int, int]]:
        """(start, end) of the memory that is in use."""
        return list(self._arena.used_vram(self._size_bytes))

    def _give_up(self) -> None:
        if not self._too_much:
            limit_mib = (self.limit_bytes or 0) >> 20
            log.warning("more than %d MiB of device memory are in use: stores of the host no longer wait", limit_mib)
            for first, end in self._waiting:
                self._take_stores_of_engines(first, end)
                self._uncover(first, end)
            self._waiting = []
            self._too_much = True
            self._tell()


def _part(first_page: int, end_page: int) -> slice:
    return slice(first_page << PAGE_SHIFT, end_page << PAGE_SHIFT)
