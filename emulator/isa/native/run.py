"""One dispatch under way: what its threads share, how they are told to stop, and what it has come to."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.dispatch import Access, DispatchStats, RunningWave, ShaderFault, ShaderMemory
from amdrv.emulator.isa.launch import Launch
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.faults import Reporter, group_of
from amdrv.emulator.isa.native.layout import Context, Outcome
from amdrv.emulator.isa.native.plan import Prepared
from amdrv.emulator.isa.native.units import Unit, Units
from amdrv.emulator.isa.native.workgroups import Job

ASK_S = 0.002  # between two questions whether the dispatch is cancelled
RESIDENT_BYTES = 512 << 20  # of workgroups that wait for each other, on all threads together

State = NDArray[np.uint32]
Function = Callable[[int, int], int]


class Stopped(Exception):
    """The dispatch is over for a thread."""


@dataclass(frozen=True, slots=True)
class Entries:
    """The library's functions that run workgroups, for one wave size: (context, job) to outcome."""

    run_groups: Function
    run_own_groups: Function
    resume_group: Function
    tlb_miss: int  # host address


class Run:
    """A dispatch that host threads work on. The thread that made it is the one that asks whether it is cancelled."""

    def __init__(
        self,
        launch: Launch,
        memory: ShaderMemory,
        prepared: Prepared,
        units: Units,
        unit: Unit,
        entries: Entries,
        *,
        reporter: Reporter,
        cancelled: Callable[[], bool],
        realtime: Callable[[], int],
        interrupt: Callable[[int], None],
    ) -> None:
        self.launch, self.memory, self.entries = launch, memory, entries
        self.stats = DispatchStats()
        self.state_bytes = int(prepared.plan.state_bytes)
        x, y, z = launch.dispatch.threads
        self.own_states = bool(prepared.plan.own_states)
        self._group_waves = max(1, -(-x * y * z // launch.lanes))
        self.states_bytes = self.state_bytes * self._group_waves
        self.lds_bytes = launch.lds_bytes
        self._prepared, self._plan = prepared, prepared.plan
        self._units, self._unit, self._reporter = units, unit, reporter
        self._cancelled, self._realtime, self._interrupt = cancelled, realtime, interrupt
        self._lock = threading.Lock()
        self._services = threading.Lock()
        self._translating = threading.Lock()
        self._owner = threading.get_ident()
        self._asked = time.perf_counter()
        self._slots = 0
        self._failures: list[tuple[int, BaseException]] = []
        self.gave_way: tuple[State, Job] | None = None  # states and place of the workgroup that last did
        self.on_long: Callable[[], None] | None = None  # called once if workgroups are left after the first turn

    # State.

    @property
    def stopped(self) -> bool:
        """Whether no more is to be done."""
        return bool(self._plan.stop)

    @property
    def exhausted(self) -> bool:
        """Whether every workgroup has been taken."""
        return bool(self._plan.next >= self._plan.total)

    @property
    def running_wave(self) -> RunningWave | None:
        """Where a wave stood that gave way not long ago; None when none has yet."""
        if self.gave_way is None:
            return None
        words, job = self.gave_way
        each = self.state_bytes // 4
        states = words[: each * min(max(1, job.states_used), self._group_waves)].reshape(-1, each)
        going_on = (state for state in states if state[layout.STATE_OUTCOME // 4] != Outcome.END)
        waves = (RunningWave(int(state.view(np.uint64)[layout.STATE_PC // 8]), group_of(state)) for state in going_on)
        return next((wave for wave in waves if wave.pc != layout.START), None)

    def stop(self) -> None:
        """Let all threads come back."""
        self._plan.stop = 1

    def ask(self) -> None:
        """Ask whether the dispatch is cancelled, if that was not just done."""
        now = time.perf_counter()
        if self.stopped or now - self._asked < ASK_S or threading.get_ident() != self._owner:
            return
        self._asked = now
        if self._cancelled():
            self.stop()

    def turn(self, seconds: float) -> None:
        """A thread has run compiled code for so long."""
        self._units.note_time(self._unit, seconds)
        if self.on_long is not None and threading.get_ident() == self._owner and not self.exhausted:
            call_helpers, self.on_long = self.on_long, None
            call_helpers()
        self.ask()

    def count(self, waves: int, instructions: int) -> None:
        """Add to the statistics."""
        with self._lock:
            self.stats.waves += waves
            self.stats.wave_instructions += instructions

    # Places.

    def reserve(self) -> int | None:
        """The number of one more place; None when no more workgroups can be resident."""
        launch = self.launch
        limit = max(1, RESIDENT_BYTES // (self.states_bytes + self.lds_bytes))
        if launch.scratch_wave_bytes:
            limit = min(limit, launch.scratch_slots // self._group_waves)
        with self._lock:
            if self._slots >= limit:
                return None
            self._slots += 1
            return self._slots - 1

    def assign(self, job: Job, slot: int) -> None:
        """Make a place part of this dispatch."""
        job.slot = slot
        job.plan = ctypes.addressof(self._plan)
        job.scratch = self.launch.dispatch.scratch_base + slot * self._group_waves * self.launch.scratch_wave_bytes
        job.waves_ended = job.instructions = job.alive = 0
        job.held = job.held_waves = 0

    # What waves want.

    def redirect(self, state: State, outcome: int, number: int) -> None:
        """A wave goes on where its unit has no entry, or with code fetched anew."""
        if outcome == Outcome.REFETCH:
            self._units.invalidate()
        elif outcome != Outcome.JUMP:
            raise RuntimeError(f"a wave function returned {outcome}")
        numbers = state.view(np.uint64)
        base, pc = (int(numbers[place // 8]) for place in (layout.STATE_BASE, layout.STATE_PC))
        mode = int(state[layout.STATE_MODE // 4])
        pc = base if pc == layout.START else pc
        try:
            unit, base = self._units.find_entry(self.memory, base, pc, mode, self._unit.shape)
        except ShaderFault as fault:
            fault.workgroup = group_of(state)
            self.fail(fault, number)
            raise Stopped from fault
        numbers[layout.STATE_CELL // 8] = unit.cell.address
        numbers[layout.STATE_BASE // 8] = base

    def realtime(self) -> int:
        """The 100 MHz counter."""
        with self._services:
            return self._realtime()

    def interrupt(self, data: int) -> None:
        """s_sendmsg(INTERRUPT)."""
        with self._services:
            self._interrupt(data)

    def extent(self, va: int, access: Access) -> tuple[int, int, int]:
        """See ShaderMemory.extent; one thread at a time."""
        with self._translating:
            return self.memory.extent(va, access)

    # The end.

    def fault(self, context: Context, state: State, number: int) -> None:
        """A wave has stopped with a fault."""
        unit = self._units.of_cell(int(state.view(np.uint64)[layout.STATE_CELL // 8]))
        self.fail(self._reporter.fault(context, state, unit), number)

    def fail(self, error: BaseException, number: int = -1) -> None:
        """Stop everything for an error; of several faults the one of the lowest workgroup is reported."""
        with self._lock:
            self._failures.append((number, error))
        self.stop()

    def result(self) -> DispatchStats:
        """What was done. Raises what went wrong."""
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[0])[1]
        return self.stats
