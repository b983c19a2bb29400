"""One host thread's part in a dispatch: it takes workgroups, runs them, and lets others run while some wait.

A workgroup has a place: memory for its waves and its LDS. A thread keeps one workgroup going until it ends. When all
waves of a workgroup wait for something, it stays at its place and the thread takes another one, and goes round those
that wait in between: workgroups that wait for each other through memory come to their ends.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.dispatch import Access, MemoryViolation
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.layout import EXTENTS, Context, Detail, Extent, FaultKind, Outcome, Service, TlbEntry
from amdrv.emulator.isa.native.plan import aligned
from amdrv.emulator.isa.native.run import Function, Run, Stopped
from amdrv.emulator.isa.native.workgroups import Job

# How long compiled code runs before Python looks at what else there is to do.
TURN_S = 0.002
FIRST_BUDGET = 30_000  # instructions
BUDGET_MAX = 1 << 28
TURNS_MAX = 100  # after which a workgroup that just runs on gives way, too
NAP_S = (0.0, 0.0, 0.00005, 0.0002, 0.001)
LDS_MARGIN_BYTES = 64
KEPT_PLACES = 4  # from one dispatch to the next

_FIND = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32)
_SERVICE = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64)
Numbers = NDArray[np.uint64]


@dataclass(slots=True, eq=False)
class Place:
    """Memory for a workgroup, with its number among those that are in use (``slot``)."""

    states: NDArray[np.uint32]
    lds: NDArray[np.uint32]
    job: Job = field(default_factory=Job)
    turns: int = 0

    def fits(self, run: Run) -> bool:
        """Whether a workgroup of the dispatch finds room."""
        return self.states.nbytes >= run.states_bytes and self.lds.nbytes >= run.lds_bytes + LDS_MARGIN_BYTES


class _Addresses:
    """Translations of one kind of access: the compiled code's cache, and the extents that it is filled from."""

    def __init__(self) -> None:
        self._tlb = aligned((layout.TLB_ENTRIES + layout.SITES, ctypes.sizeof(TlbEntry) // 4))
        self._entries: Numbers = self._tlb.view(np.uint64)
        self.extents = (Extent * EXTENTS)()
        self.count = 0
        self._next = 0

    @property
    def tlb(self) -> int:
        """Host address of the cache."""
        return int(self._tlb.ctypes.data)

    def clear(self) -> None:
        """Forget all translations."""
        self._entries[: layout.TLB_ENTRIES, 0] = layout.TLB_EMPTY
        self._entries[layout.TLB_ENTRIES :] = 0
        self.count = self._next = 0

    def add(self, va: int, first: int, end: int, delta: int) -> None:
        """Remember an extent, for the page of ``va`` in the cache, too."""
        extent = self.extents[self._next]
        extent.first, extent.end, extent.delta = first, end, delta & layout.START
        self._next = (self._next + 1) % EXTENTS
        self.count = max(self.count, self._next or EXTENTS)
        page = va >> layout.TLB_PAGE_SHIFT
        self._entries[layout.tlb_slot(page)] = (page, first, end, delta & layout.START)


class HostThread:
    """What one thread keeps from dispatch to dispatch. Used by one thread at a time."""

    def __init__(self) -> None:
        self.context = Context()
        self._address = ctypes.addressof(self.context)
        self._read, self._write = _Addresses(), _Addresses()
        self._free: list[Place] = []
        self._waiting: list[Place] = []
        self._run: Run | None = None
        self._budget = FIRST_BUDGET
        self._find = _FIND(self._find_extent)
        self._service = _SERVICE(self._serve)
        context = self.context
        context.find_extent = ctypes.cast(self._find, ctypes.c_void_p).value
        context.service = ctypes.cast(self._service, ctypes.c_void_p).value
        context.tlb_read, context.tlb_write = self._read.tlb, self._write.tlb
        context.extents_read = ctypes.addressof(self._read.extents)
        context.extents_write = ctypes.addressof(self._write.extents)

    # What a dispatch has of this thread.

    def work(self, run: Run) -> None:
        """Run workgroups until none is left; the run keeps what went wrong."""
        self._begin(run)
        try:
            self._work(run)
        except Stopped:
            pass
        except BaseException as error:
            run.fail(error)
        finally:
            self._end(run)

    def _begin(self, run: Run) -> None:
        self._run = run
        self._budget = FIRST_BUDGET
        self._free = [place for place in self._free if place.fits(run)]
        context, launch = self.context, run.launch
        context.arena = int(run.memory.arena.ctypes.data)
        context.miss = run.entries.tlb_miss
        context.lds_bytes = launch.lds_bytes
        context.lds_limit = launch.lds_bytes + LDS_MARGIN_BYTES
        context.scratch_lane_bytes = launch.scratch_wave_bytes // launch.lanes
        context.shared_base, context.private_base = launch.dispatch.shared_base, launch.dispatch.private_base
        context.lanes, context.vgprs = launch.lanes, launch.vgprs
        self._forget_translations()

    def _end(self, run: Run) -> None:
        """Count what was done, and give places back."""
        for place in [*self._waiting, *self._free]:
            job = place.job
            run.count(job.waves_ended, job.instructions)
            states = [job.cursor] if run.own_states else range(job.states_used)
            for number in states if job.alive else ():
                state = self._state(run, place, number)
                if state[layout.STATE_OUTCOME // 4] != Outcome.END:
                    run.count(1, int(state.view(np.uint64)[layout.STATE_COUNT // 8]))
            job.waves_ended = job.instructions = job.alive = job.plan = 0
        self._free = [*self._free, *self._waiting][:KEPT_PLACES]
        self._waiting = []
        self._run = None

    # Scheduling.

    def _work(self, run: Run) -> None:
        naps = 0
        while not run.stopped:
            progress = False
            if not run.exhausted and (place := self._take_place(run)) is not None:
                progress = self._start_groups(run, place)
            elif not self._waiting:
                return
            for place in list(self._waiting):
                if self._go_on(run, place):
                    self._waiting.remove(place)
                    self._free.append(place)
                    progress = True
            if not self._waiting and run.exhausted:
                return
            naps = 0 if progress else min(naps + 1, len(NAP_S) - 1)
            if naps:
                time.sleep(NAP_S[naps])
                run.ask()

    def _take_place(self, run: Run) -> Place | None:
        """Room for another workgroup; None when there is none."""
        for place in self._free:
            if place.job.plan:
                self._free.remove(place)
                return place
        slot = run.reserve()
        if slot is None:
            return None
        place = self._free.pop() if self._free else _new_place(run)
        run.assign(place.job, slot)
        return place

    def _start_groups(self, run: Run, place: Place) -> bool:
        """Run new workgroups at a place until one has to wait; True when any came to its end."""
        before = place.job.waves_ended
        self._waiting.append(place)
        while not run.stopped and not run.exhausted:
            place.turns = 0
            outcome = self._call(run, place, run.entries.run_own_groups if run.own_states else run.entries.run_groups)
            if not self._handle(run, place, outcome):
                return bool(place.job.waves_ended > before)
            if len(self._waiting) > 1:
                break  # the others' turn
        if not place.job.alive:
            self._waiting.remove(place)
            self._free.append(place)
        return True

    def _go_on(self, run: Run, place: Place) -> bool:
        """Go on with a workgroup that waited; True when it has ended."""
        return self._handle(run, place, self._call(run, place, run.entries.resume_group))

    def _handle(self, run: Run, place: Place, outcome: int) -> bool:
        """Keep a workgroup going; True when it has ended, False when it waits for others."""
        while outcome != Outcome.END:
            run.gave_way = place.states, place.job
            if outcome == Outcome.POLL:
                return False
            if outcome == Outcome.YIELD:
                place.turns += 1
                if place.turns >= TURNS_MAX:
                    place.turns = 0
                    return False
            elif outcome == Outcome.FAULT:
                run.fault(self.context, self._current(run, place), place.job.number)
                raise Stopped
            else:
                run.redirect(self._current(run, place), outcome, place.job.number)
            if run.stopped:
                raise Stopped
            outcome = self._call(run, place, run.entries.resume_group)
        return True

    def _call(self, run: Run, place: Place, function: Function) -> int:
        """Run compiled code for a turn."""
        context = self.context
        context.budget = min(self._budget, (1 << 31) - 1)
        place.job.left = self._budget
        started = time.perf_counter()
        outcome = function(self._address, ctypes.addressof(place.job))
        seconds = time.perf_counter() - started
        if seconds >= TURN_S / 2:
            self._forget_translations()
        wanted = self._budget * TURN_S / max(seconds, TURN_S / 8)
        # A call that ended early says nothing about how much can be done in a turn.
        if outcome == Outcome.YIELD or place.job.left < 0:
            self._budget = int(min(max(wanted, FIRST_BUDGET // 4), BUDGET_MAX))
        run.turn(seconds)
        return outcome

    @staticmethod
    def _state(run: Run, place: Place, wave: int) -> NDArray[np.uint32]:
        words = run.state_bytes // 4
        return place.states[wave * words : (wave + 1) * words]

    def _current(self, run: Run, place: Place) -> NDArray[np.uint32]:
        """State of the wave that was run last."""
        return self._state(run, place, place.job.cursor)

    # What compiled code asks for.

    def _forget_translations(self) -> None:
        """Invalidations reach running waves after a turn at the latest."""
        self._read.clear()
        self._write.clear()
        self.context.extents_read_count = self.context.extents_write_count = 0

    def _find_extent(self, _context: int, va: int, access: int) -> int:
        run, context = self._run, self.context
        try:
            if run is None:
                return 0
            addresses = self._write if access == Access.WRITE else self._read
            first, end, delta = run.extent(va, Access(access))
            addresses.add(va, first, end, delta)
            context.extents_read_count, context.extents_write_count = self._read.count, self._write.count
            return 1
        except MemoryViolation:
            pass
        except BaseException as error:
            if run is not None:
                run.fail(error)
        context.fault_kind, context.fault_detail = int(FaultKind.MEMORY), int(Detail.TRANSLATION)
        context.fault_va, context.fault_access = va, access
        return 0

    def _serve(self, _context: int, what: int, argument: int) -> int:
        run = self._run
        try:
            if run is None:
                return 0
            if what == Service.REALTIME:
                return run.realtime() & layout.START
            run.interrupt(argument & 0xFFFF_FFFF)
        except BaseException as error:
            if run is not None:
                run.fail(error)
        return 0


def _new_place(run: Run) -> Place:
    states = aligned((run.states_bytes // 4,))
    lds = aligned(((run.lds_bytes + LDS_MARGIN_BYTES) // 4,))
    place = Place(states, lds)
    place.job.states, place.job.lds = int(states.ctypes.data), int(lds.ctypes.data)
    return place
