"""The caches of the graphics core, where they and memory differ: lines that are old, and lines not written back.

Nothing is cached as long as a client does what it must: memory itself is read and written, at full speed. What is
remembered is only what a client's omission would bring to light.

* Old lines of the L2 and the vector caches: when the host changes memory that shaders have reached, the bytes before
  are kept until an invalidation, at most as much as the L2 holds. A dispatch without one computes with them.
* Old lines of the scalar cache: the line that each scalar pointer of a dispatch leads to (its user SGPRs, and the
  pointers in the first line of kernel arguments) is remembered until an invalidation.
* Lines not written back: when no write-back follows a dispatch in the packets at hand, its stores to cacheable device
  memory stay in the cache until one comes.

A dispatch that sees an old scalar line sees it with vector loads too.

Differences are kept page by page in a pool of the arena, and a dispatch that has to see them gets a view of memory that
leads there. Packets of the command processor itself read and write memory; so do uncached pages and system memory, but
for the scalar cache. Sources: LLVM AMDGPUUsage, "Memory Model gfx10-gfx11"; Linux 6.12 gfx_v11_0.c
(gfx_v11_0_emit_mem_sync, gfx_v11_0_ring_emit_fence).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.arena import BusError
from amdrv.emulator.isa.dispatch import Access, Dispatch, DispatchStats
from amdrv.emulator.models.vmhub import HubView
from amdrv.emulator.vm.walk import WalkFault

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
SCALAR_LINE_BYTES = 64
HUNG_S = 0.001  # how often a hung wave looks whether it is to be killed
LOWEST_POINTER, HIGHEST_POINTER = 1 << 32, 1 << 48  # values outside are no pointers
# Vector loads go through all three: a line is new only when each of them has been emptied. With each stands the field
# that says of how much (PAL gfx9Barrier.cpp, gfx12Barrier.h: GL1_RANGE is for the caches before the L2).
VECTOR_LEVELS = {"GLV_INV": "GL1_RANGE", "GL1_INV": "GL1_RANGE", "GL2_INV": "GL2_RANGE"}
RANGE_ALL, RANGE_OF_PACKET = 0, 2


@dataclass(slots=True)
class OldPage:
    """What the caches have of a page that has changed in memory."""

    content: bytes
    levels: set[str] = field(default_factory=lambda: set(VECTOR_LEVELS))  # that still hold it


@dataclass(slots=True)
class Line:
    """A page of the pool that stands for a page of memory."""

    slot: int
    before: bytes  # what the pool page held when it was made: what differs now was stored there


class GraphicsCaches:
    """See the module. ``relaxed`` caches hold nothing. The card's lock covers every method but ``run``."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self.relaxed = False
        self._pages = len(card.arena.bytes) >> PAGE_SHIFT
        self._old: dict[int, OldPage] = {}  # by page of the arena
        self._scalar: dict[int, bytes] = {}  # arena index of a 64-byte line → what the scalar cache has of it
        self._held: dict[int, Line] = {}  # page of the arena → stores that have not been written back
        self._pool: int | None = None  # arena index of the pool's first byte
        self._free: list[int] = []
        self._slot_of = np.zeros(0, np.int32)  # page of the arena → slot + 1

    # -- what happens to memory and caches ----------------------------------------------------------------------------

    def power_on(self) -> None:
        """Nothing is in any cache."""
        self._old.clear()
        self._scalar.clear()
        for page in list(self._held):
            self._release(page)

    def before_host_changes(self, first_page: int, end_page: int, old: memoryview) -> None:
        """The host changes pages of device memory, ``old`` now: what shaders have reached stays in their caches."""
        if self.relaxed:
            return
        limit = self._card.chip.shader_array.l2_bytes >> PAGE_SHIFT
        reached = self._card.graphics_hub.reached_pages(first_page, min(end_page, first_page + limit))
        for page in sorted(reached)[: limit - len(self._old)]:
            at = (page - first_page) << PAGE_SHIFT
            if page in self._old:
                self._old[page].levels = set(VECTOR_LEVELS)
            else:
                self._old[page] = OldPage(bytes(old[at : at + PAGE_BYTES]))

    def maintain(self, control: Mapping[str, int], pages: frozenset[int] | None = None) -> None:
        """What ACQUIRE_MEM or RELEASE_MEM asks for, by field name of GCR_CNTL.

        ``pages`` of the arena are those of the packet's range, which counts only where GL1_RANGE or GL2_RANGE says so;
        None for a packet that has no range.
        """

        def concerns(selector: str, page: int) -> bool:
            selected = control.get(selector, RANGE_ALL)
            return pages is None or selected == RANGE_ALL or (selected == RANGE_OF_PACKET and page in pages)

        if control.get("GL2_WB"):
            self._write_back([page for page in self._held if concerns("GL2_RANGE", page)])
        if control.get("GLK_INV"):
            for index in [index for index in self._scalar if concerns("GL1_RANGE", index >> PAGE_SHIFT)]:
                del self._scalar[index]
        asked = {level: selector for level, selector in VECTOR_LEVELS.items() if control.get(level)}
        if self._old and asked:
            for page, old in list(self._old.items()):
                old.levels -= {level for level, selector in asked.items() if concerns(selector, page)}
                if not old.levels:
                    del self._old[page]

    # -- dispatches ---------------------------------------------------------------------------------------------------

    def run(
        self,
        dispatch: Dispatch,
        view: HubView,
        *,
        written_back: bool,
        cancelled: Callable[[], bool],
        realtime: Callable[[], int],
        interrupt: Callable[[int], None],
    ) -> DispatchStats:
        """Run a dispatch as the caches let it see memory; see ShaderEngine.run.

        ``written_back`` says whether a write-back follows before anybody can be told that the dispatch is done.
        """
        card = self._card
        with card.lock:
            hangs = card.faults.hangs_wave()
            old_scalars = {} if self.relaxed else self._old_scalar_lines()
            plain = self.relaxed or not (self._old or old_scalars or self._held or not written_back)
            if not self.relaxed:
                self._read_scalars(dispatch, view)
            seen: HubView = view if plain else self._view(view, old_scalars, hold=not written_back)
        while hangs and not cancelled():
            time.sleep(HUNG_S)
        engine = card.shader_engine if plain else card.oracle
        if not plain:  # what it has decoded may be of another view of memory
            engine.invalidate_code()
        try:
            return engine.run(dispatch, seen, cancelled=cancelled, realtime=realtime, interrupt=interrupt)
        finally:
            self._settle()
            if isinstance(seen, CachedView):
                with card.lock:
                    self._finish(seen, written_back)

    def _settle(self) -> None:
        """Stores of a dispatch to memory that only messages reach go there."""
        try:
            self._card.arena.remote.settle()
        except BusError as error:  # nobody to tell: the machine drops such a write
            log.warning("%s: stores of a dispatch were lost: %s", self._card.name, error)

    def _view(self, view: HubView, old_scalars: dict[int, bytes], *, hold: bool) -> CachedView:
        """The view of a dispatch that sees what caches hold."""
        self._make_pool()
        shown: set[int] = set()
        for page, old in self._old.items():
            if page not in self._held and self._show(page, old.content):
                shown.add(page)
        for index, line in old_scalars.items():
            page, at = index >> PAGE_SHIFT, index & (PAGE_BYTES - 1)
            if page not in self._held:
                if not self._show(page, bytes(self._card.arena.view(page << PAGE_SHIFT, PAGE_BYTES))):
                    continue
                shown.add(page)
            place = self._pool_page(self._held[page].slot)
            place[at : at + len(line)] = line
            self._held[page].before = bytes(place)
        return CachedView(view, self, shown, hold=hold)

    def _finish(self, view: CachedView, written_back: bool) -> None:
        """After a dispatch: stores go to memory, unless nothing writes them back."""
        for page in list(self._held):
            if written_back or page in view.shown:
                self._store(page, keep_in_old=page in self._old)
                self._release(page)

    # -- pages of the pool --------------------------------------------------------------------------------------------

    def place(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Arena indices as a view of the caches has them: in the pool where a page is there."""
        slots = self._slot_of.take(index >> PAGE_SHIFT, mode="clip")
        if not slots.any():
            return index
        pool = 0 if self._pool is None else self._pool
        in_pool = pool + (slots.astype(np.int64) - 1) * PAGE_BYTES + (index & (PAGE_BYTES - 1))
        moved: NDArray[np.int64] = np.where(slots > 0, in_pool, index)
        return moved

    def hold(self, page: int) -> None:
        """A shader is about to store to a page of device memory that nothing will write back."""
        if page not in self._held and page << PAGE_SHIFT < self._card.vram_bytes:
            self._show(page, bytes(self._card.arena.view(page << PAGE_SHIFT, PAGE_BYTES)))

    def _show(self, page: int, content: bytes) -> bool:
        """Let a page of the pool stand for one of memory. False when the pool is full: the line is evicted at once."""
        if not self._free:
            return False
        line = self._held[page] = Line(self._free.pop(), content)
        self._slot_of[page] = line.slot + 1
        self._pool_page(line.slot)[:] = content
        return True

    def _pool_page(self, slot: int) -> memoryview:
        pool = 0 if self._pool is None else self._pool
        return self._card.arena.view(pool + slot * PAGE_BYTES, PAGE_BYTES)

    def _make_pool(self) -> None:
        """Room for as much as the L2 holds, twice: old lines and stores."""
        if self._pool is None:
            size_bytes = 2 * self._card.chip.shader_array.l2_bytes
            self._pool = self._card.arena.reserve(size_bytes)
            self._free = list(range(size_bytes >> PAGE_SHIFT))
            self._slot_of = np.zeros(self._pages, np.int32)

    def _store(self, page: int, *, keep_in_old: bool) -> None:
        """Write what was stored in a page of the pool to memory; an old line stays as the cache has it now."""
        line = self._held[page]
        now = np.frombuffer(self._pool_page(line.slot), np.uint8)
        changed = now != np.frombuffer(line.before, np.uint8)
        if changed.any():
            start = page << PAGE_SHIFT
            np.copyto(self._card.arena.bytes[start : start + PAGE_BYTES], now, where=changed)
            if start < self._card.vram_bytes:
                self._card.host_path.engine_wrote(start, PAGE_BYTES)
        if keep_in_old:
            self._old[page].content = now.tobytes()

    def _release(self, page: int) -> None:
        line = self._held.pop(page)
        self._slot_of[page] = 0
        self._free.append(line.slot)

    def _write_back(self, pages: list[int]) -> None:
        for page in pages:
            self._store(page, keep_in_old=page in self._old)
            self._release(page)

    # -- the scalar cache ---------------------------------------------------------------------------------------------

    def _old_scalar_lines(self) -> dict[int, bytes]:
        """Lines of the scalar cache that differ from memory."""
        view = self._card.arena.view
        return {index: line for index, line in self._scalar.items() if view(index, len(line)) != line}

    def _read_scalars(self, dispatch: Dispatch, view: HubView) -> None:
        """Remember what the scalar loads of a dispatch bring into the cache."""
        for low, high in zip(dispatch.user_data[::2], dispatch.user_data[1::2], strict=False):
            arguments = self._read_line(view, high << 32 | low)
            for pointer in np.frombuffer(arguments, "<u8", len(arguments) >> 3).tolist():
                self._read_line(view, pointer)

    def _read_line(self, view: HubView, pointer: int) -> bytes:
        """Bring the line behind a pointer into the cache; its bytes from there on, none where it leads nowhere."""
        if not LOWEST_POINTER <= pointer < HIGHEST_POINTER or pointer & 3:
            return b""
        first = pointer & ~(SCALAR_LINE_BYTES - 1)
        try:
            extent = view.look(first)
        except WalkFault:
            return b""
        if not extent.allows(Access.READ):
            return b""
        index = first + extent.delta
        if index >= self._card.arena.remote.lowest:
            return b""  # what a client has, only messages tell
        data = bytes(self._card.arena.view(index, SCALAR_LINE_BYTES))
        self._scalar.setdefault(index, data)
        return data[pointer - first :]


class CachedView(HubView):
    """Memory as a dispatch sees it through caches that differ from it."""

    def __init__(self, view: HubView, caches: GraphicsCaches, shown: set[int], *, hold: bool) -> None:
        super().__init__(view.hub, view.vmid)
        self._caches = caches
        self._hold = hold
        self.shown = shown  # pages that stand in the pool for this dispatch only

    def translate(self, va: NDArray[np.uint64], access: Access) -> NDArray[np.int64]:
        """As HubView.translate, into the pool where the caches differ."""
        index = super().translate(va, access)
        with self.hub.card.lock:
            if self._hold and access is Access.WRITE:
                for page, address in zip((index >> PAGE_SHIFT).ravel().tolist(), va.ravel().tolist(), strict=True):
                    if self.look(address).cached:
                        self._caches.hold(page)
            return self._caches.place(index)
