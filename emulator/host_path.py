"""The host data path: what the host stores through BAR0 stays in a buffer until a flush; the engines see the old bytes.

On silicon the buffer also empties by itself, sooner or later, which is why a forgotten flush goes unnoticed most of the
time. Here it never does while the engines are idle. Once queues are at work (from the doorbell on) stores go through at
once: host and engines may then speak to each other through one page, and a page-wise buffer must not come between. What
was stored before the doorbell stays back all the same.

Sources: Linux 6.12 amdgpu_device.c (amdgpu_device_flush_hdp, amdgpu_device_aper_access), hdp_v6_0.c.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.window import PAGE_BYTES, PAGE_SHIFT, Window, runs

CHUNK_SHIFT = 21  # what the host has seen of BAR0 is remembered in 2 MiB pieces


class HostPath:
    """The write buffer between BAR0 and device memory. The card's lock covers every method."""

    def __init__(
        self,
        window: Window,
        before_change: Callable[[int, int, memoryview], None],
        after_change: Callable[[int, int], None],
        *,
        transparent: bool = False,
    ) -> None:
        """The two are told of pages of memory (first, one past the last) that a flush is about to change or has.

        The first is shown their contents.
        """
        self._window = window
        self._before_change, self._after_change = before_change, after_change
        self._pages = len(window.bytes) >> PAGE_SHIFT
        self._seen = np.zeros((len(window.bytes) >> CHUNK_SHIFT) + 1, np.bool_)
        self._seen_runs: list[tuple[int, int]] = []  # of pages
        # Runs that were waiting when the engines started, and what memory held then.
        self._waiting: list[tuple[int, int, NDArray[np.uint8]]] = []
        self._busy = False
        self._cut_off = False  # the card has left the bus
        self._transparent = False
        self.transparent = transparent

    @property
    def transparent(self) -> bool:
        """Whether stores reach memory at once: the relaxed way."""
        return self._transparent

    @transparent.setter
    def transparent(self, value: bool) -> None:
        if value != self._transparent:
            self.flush()
            self._transparent = value
            self._show()

    @property
    def pending_bytes(self) -> int:
        """Bytes of the pages that hold stores which no flush has pushed on."""
        return PAGE_BYTES * sum(end - first for first, end in self._written())

    def view(self, offset: int, size_bytes: int) -> memoryview:
        """Writable bytes of BAR0: the host may store there from now on."""
        chunks = self._seen[offset >> CHUNK_SHIFT : ((offset + max(size_bytes, 1) - 1) >> CHUNK_SHIFT) + 1]
        if not chunks.all():
            chunks[:] = True
            per_chunk = 1 << (CHUNK_SHIFT - PAGE_SHIFT)
            seen = runs(np.flatnonzero(self._seen))
            self._seen_runs = [(first * per_chunk, min(end * per_chunk, self._pages)) for first, end in seen]
        return self._window.view[offset : offset + size_bytes]

    def flush(self) -> None:
        """Push every store on into memory."""
        if self._transparent or self._cut_off:
            return
        waiting, self._waiting = self._waiting, []
        for first, end, before in waiting:
            self._before_change(first, end, self._old(first, end))
            self._window.merge(first, end, before)
            self._after_change(first, end)
            if self._busy:
                self._window.share(first, end, shared=True)
        if not self._busy:
            for first, end in self._written():
                self._before_change(first, end, self._old(first, end))
                self._window.merge(first, end)
                self._after_change(first, end)

    def engine_wrote(self, index: int, size_bytes: int) -> None:
        """An engine stored to memory from byte ``index`` on: the host sees it, also on a page that waits."""
        if self._transparent or self._cut_off or (self._busy and not self._waiting):
            return
        if not self._seen[min(index >> CHUNK_SHIFT, len(self._seen) - 1)]:
            return
        first, end = index >> PAGE_SHIFT, (index + size_bytes - 1 >> PAGE_SHIFT) + 1
        for page in self._window.written(first, min(end, self._pages)).tolist():
            part = slice(max(index, page << PAGE_SHIFT), min(index + size_bytes, (page + 1) << PAGE_SHIFT))
            self._window.bytes[part] = self._window.memory[part]

    def engines_started(self) -> None:
        """Queues have work: stores go through from now on, and those that wait keep waiting."""
        if self._transparent or self._busy:
            return
        self._busy = True
        if self._cut_off:
            return
        for first, end in self._written():
            part = slice(first << PAGE_SHIFT, end << PAGE_SHIFT)
            self._waiting.append((first, end, self._window.memory[part].copy()))
        self._share_the_rest(shared=True)

    def engines_stopped(self) -> None:
        """Nothing runs: stores wait again."""
        if self._busy:
            self._busy = False
            if not (self._transparent or self._cut_off):
                self._share_the_rest(shared=False)

    def lose(self) -> None:
        """A reset: what waited is gone."""
        self._waiting.clear()
        self._show()

    def cut_off(self) -> None:
        """The card has left the bus: the host reads ones, and what it stores, or what waited, is gone."""
        self._cut_off = True
        self._waiting.clear()
        self._window.blank()

    def connect(self) -> None:
        """The card is on the bus again, with its memory as it was."""
        if self._cut_off:
            self._cut_off = False
            self._show()

    def _show(self) -> None:
        """Let the host see memory, but for what is cut off."""
        if not self._cut_off:
            self._window.share(0, self._pages, shared=self._transparent or self._busy)

    def _old(self, first: int, end: int) -> memoryview:
        return self._window.memory[first << PAGE_SHIFT : end << PAGE_SHIFT].data

    def _written(self) -> list[tuple[int, int]]:
        """Runs of pages that differ from memory, outside those that are known to wait."""
        return [run for first, end in self._seen_runs for run in runs(self._window.written(first, end))]

    def _share_the_rest(self, *, shared: bool) -> None:
        """All but the runs that wait."""
        position = 0
        for first, end, _ in sorted(self._waiting, key=lambda run: run[0]):
            if position < first:
                self._window.share(position, first, shared=shared)
            position = end
        if position < self._pages:
            self._window.share(position, self._pages, shared=shared)
