"""The interpreter: a shader engine that executes one instruction for many waves at a time with NumPy.

It is the oracle of the emulated card: every instruction is executed as its definition says, every access is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from amdrv.emulator.isa.code import Block, CodeCache, Key
from amdrv.emulator.isa.control import Event, Fork
from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import (
    Dispatch,
    DispatchStats,
    RunningWave,
    ShaderFault,
    ShaderMemory,
    WaveRegisters,
)
from amdrv.emulator.isa.generation import generation_for
from amdrv.emulator.isa.launch import create_waves, decode
from amdrv.emulator.isa.machine import Lds, Machine
from amdrv.emulator.isa.memory_path import MemoryPath
from amdrv.emulator.isa.numpy_algebra import quiet
from amdrv.emulator.isa.schedule import SHARE, Schedule
from amdrv.emulator.isa.spaces import LaneFault
from amdrv.emulator.isa.wave import Group

# Lanes that execute in lock step: enough to hide the overhead, few enough for register rows to stay in the cache.
RESIDENT_LANES = 16384
IDLE_S = 0.001  # between two looks at ``cancelled`` when nothing can run
# Scheduling weight between two looks at ``cancelled``: a few milliseconds.
SLICE = 512


class Interpreter:
    """A ShaderEngine. Not thread-safe: one dispatch at a time.

    ``arch`` picks the decode tables; ``shader_engines`` is the chip's count, which the placement of scratch depends on;
    ``resident_lanes`` is how many lanes run together (always whole workgroups, at least one).
    """

    def __init__(self, arch: str = "gfx1100", *, shader_engines: int = 6, resident_lanes: int = RESIDENT_LANES) -> None:
        self._decoder = Decoder(arch)
        self._generation = generation_for(arch)
        self._shader_engines = shader_engines
        self._resident_lanes = resident_lanes
        self._blocks: dict[Key, Block] = {}
        self._schedule: Schedule | None = None  # of the batch under way

    def running_wave(self) -> RunningWave | None:
        """Where a wave of the dispatch under way is; see ShaderEngine.running_wave."""
        schedule = self._schedule
        group = min(schedule.groups, key=lambda group: group.pc, default=None) if schedule is not None else None
        return None if group is None else RunningWave(group.pc, _workgroup(group.machine, group.start))

    def invalidate_code(self) -> None:
        """Forget prepared instructions: what ACQUIRE_MEM with an I$ invalidation does."""
        self._blocks.clear()

    def run(
        self,
        dispatch: Dispatch,
        memory: ShaderMemory,
        *,
        cancelled: Callable[[], bool],
        realtime: Callable[[], int],
        interrupt: Callable[[int], None],
    ) -> DispatchStats:
        """Run every wave to its end, or until ``cancelled``; see ShaderEngine.run. Raises ShaderFault."""
        launch = decode(dispatch, self._shader_engines, self._generation)
        stats = DispatchStats()
        path = MemoryPath(memory)
        code = CodeCache(self._blocks, memory, launch.lanes, launch.vgprs, self._decoder)
        try:
            with quiet():
                for first, count in launch.batches(self._resident_lanes):
                    state = create_waves(launch, first, count)
                    machine = Machine(launch, state, path, Lds(count, launch.lds_bytes), realtime, interrupt)
                    machine.cycles = stats.wave_instructions
                    self._schedule = Schedule(machine, count, dispatch.pc, launch.mode)
                    finished = _run_batch(machine, code, self._schedule, cancelled)
                    stats.waves += state.waves
                    stats.wave_instructions = machine.cycles
                    if not finished:
                        break
        finally:
            self._schedule = None
        return stats


def _run_batch(machine: Machine, code: CodeCache, schedule: Schedule, cancelled: Callable[[], bool]) -> bool:
    """Run a batch of workgroups to its end; False when cancelled."""
    while (group := schedule.next()) is not None:
        if cancelled():
            return False
        event = _run_group(machine, code, schedule, group)
        if event is None:
            continue
        if isinstance(event, Fork):
            schedule.fork(group, event)
        elif event is Event.END:
            schedule.end(group)
        elif event is Event.BARRIER:
            schedule.arrive(group)
        elif event is Event.SIGNAL:
            schedule.signalled()
        elif event is Event.WAIT:
            schedule.wait(group)
        elif event is Event.YIELD:
            group.spent = SHARE
        else:
            code.forget()
    if schedule.groups:  # waves wait at a barrier at which nobody will signal: as on silicon, that has no end
        while not cancelled():
            time.sleep(IDLE_S)
        return False
    return True


def _run_group(machine: Machine, code: CodeCache, schedule: Schedule, group: Group) -> Event | Fork | None:
    """Run a group until something happens to it, it reaches others, others are behind it, or its slice is over."""
    stops = schedule.stops(group)
    for pc in stops:
        code.add_leader(pc)
    lowest = min(stops, default=0)
    rest = SLICE
    while True:
        block = _fetch(machine, code, group)
        if block.vgprs > machine.state.used:
            machine.state.used = block.vgprs
        op = None
        try:
            for op in block.ops:
                op(group)
            op = None
            event = block.terminator(group)
        except LaneFault as fault:
            raise _shader_fault(machine, group, block, op, fault) from fault
        except Exception as error:
            pc, mnemonic = _site(block, op)
            error.add_note(f"in {mnemonic} at pc {pc:#x}")
            raise
        machine.cycles += block.counted * group.count
        group.spent += block.weight
        rest -= block.weight
        if event is not None:
            return event
        if stops:
            if group.pc in stops:
                schedule.meet(group)
                return None
            if group.pc > lowest or group.spent >= SHARE:
                return None
        if rest <= 0:
            return None


def _fetch(machine: Machine, code: CodeCache, group: Group) -> Block:
    try:
        return code.block(group.pc, group.mode)
    except ShaderFault as fault:
        fault.workgroup = _workgroup(machine, group.start)
        raise


def _site(block: Block, op: object) -> tuple[int, str]:
    """(pc, mnemonic) of one of a block's operations, or of its terminator when ``op`` is None."""
    number = next((number for number, other in enumerate(block.ops) if other is op), len(block.sites) - 1)
    pc, instruction = block.sites[number]
    return pc, instruction.mnemonic


def _workgroup(machine: Machine, wave: int) -> tuple[int, int, int]:
    x, y, z = machine.state.workgroup[wave].tolist()
    return x, y, z


def _shader_fault(machine: Machine, group: Group, block: Block, op: object, fault: LaneFault) -> ShaderFault:
    pc, mnemonic = _site(block, op)
    wave, lane = divmod(fault.lane, machine.launch.lanes)
    return ShaderFault(
        fault.kind,
        f"{mnemonic}: {fault.detail}",
        pc=pc,
        mnemonic=mnemonic,
        lane=lane,
        va=fault.va,
        access=fault.access,
        workgroup=_workgroup(machine, group.start + wave),
        registers=_registers(machine, group.start + wave),
    )


def _registers(machine: Machine, wave: int) -> WaveRegisters:
    state = machine.state
    return WaveRegisters(state.sgpr[:, wave].reshape(-1).copy(), state.vgpr[:, wave].copy())
