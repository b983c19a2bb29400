"""Performance counters, and waves killed by command: what profilers and recovery code use."""

from __future__ import annotations

from typing import Any

import pytest

from amdrv.facts import pm4

COUNT, STOP, RESET = 1, 2, 0
CYCLES, BUSY, WAVES, INSTRUCTIONS = 2, 3, 4, 48  # SQ_PERF_SEL


class Shader:
    """A compute ring with a kernel of three instructions."""

    def __init__(self, rig: Any, ring_type: Any) -> None:
        self.rig = rig
        rig.start_mec()
        self.ring = ring_type(rig, 0x20)
        rig.activate((1, 0, 0), rig.compute_mqd(self.ring))
        self.code, self.place = rig.memory.take(), rig.memory.take()
        rig.memory.put(self.code, (0x7E000280, 0x7E020281, 0xBFB00000))  # v_mov_b32 v0, 0; v_mov_b32 v1, 1; s_endpgm
        rig.write("SQ_PERFCOUNTER_CTRL", rig.register("SQ_PERFCOUNTER_CTRL").encode(CS_EN=1))

    def set_sh(self, name: str, *values: int) -> tuple[int, ...]:
        offset = self.rig.register(name).dword - pm4.SET_WINDOWS[pm4.Opcode.SET_SH_REG].start
        return (pm4.header(pm4.Opcode.SET_SH_REG, 1 + len(values)), offset, *values)

    def submit(self, waves: int) -> None:
        """A dispatch, then a store of 1."""
        rig = self.rig
        initiator = rig.register("COMPUTE_DISPATCH_INITIATOR").encode(COMPUTE_SHADER_EN=1, CS_W32_EN=1)
        self.ring.submit(
            self.set_sh("COMPUTE_PGM_LO", rig.mc(self.code) >> 8 & 0xFFFF_FFFF, rig.mc(self.code) >> 40),
            self.set_sh("COMPUTE_NUM_THREAD_X", 32, 1, 1),
            pm4.DISPATCH_DIRECT.build(DIM_X=waves, DIM_Y=1, DIM_Z=1, DISPATCH_INITIATOR=initiator),
            pm4.WRITE_DATA.build(1, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=rig.mc(self.place)),
        )

    def run(self, waves: int) -> None:
        self.submit(waves)
        assert self.rig.idle()

    def perfmon(self, state: int) -> None:
        self.rig.write("CP_PERFMON_CNTL", self.rig.register("CP_PERFMON_CNTL").encode(PERFMON_STATE=state))

    def select(self, number: int, what: int) -> None:
        name = f"SQ_PERFCOUNTER{number}_SELECT"
        self.rig.write(name, self.rig.register(name).encode(PERF_SEL=what))

    def sq(self, number: int) -> int:
        return int(self.rig.read(f"SQ_PERFCOUNTER{number}_LO"))


@pytest.fixture
def shader(rig: Any, ring_type: Any) -> Shader:
    return Shader(rig, ring_type)


def test_waves_and_instructions_count_between_start_and_stop_only(shader: Shader) -> None:
    shader.select(0, WAVES)
    shader.select(1, INSTRUCTIONS)
    shader.run(3)
    shader.perfmon(COUNT)
    shader.run(5)
    shader.perfmon(STOP)
    shader.run(7)
    assert (shader.sq(0), shader.sq(1)) == (5, 5 * 3)
    shader.perfmon(RESET)
    assert (shader.sq(0), shader.sq(1)) == (0, 0)


def test_waves_are_those_of_the_first_work_group_processor(shader: Shader) -> None:
    shader.select(0, WAVES)
    shader.perfmon(COUNT)
    shader.run(2)
    index = shader.rig.register("GRBM_GFX_INDEX")
    shader.rig.write("GRBM_GFX_INDEX", index.encode(SE_INDEX=1, SA_BROADCAST_WRITES=1, INSTANCE_BROADCAST_WRITES=1))
    assert shader.sq(0) == 0
    shader.rig.write("GRBM_GFX_INDEX", index.encode())
    assert shader.sq(0) == 2


def test_counter_of_stages_that_are_not_enabled_counts_nothing(shader: Shader) -> None:
    shader.rig.write("SQ_PERFCOUNTER_CTRL", 0)
    shader.select(0, WAVES)
    shader.perfmon(COUNT)
    shader.run(2)
    assert shader.sq(0) == 0


def test_busy_cycles_move_with_work_and_cycles_with_time(shader: Shader) -> None:
    rig = shader.rig
    for number, what in enumerate((0, 2)):  # GRBM_PERF_SEL: COUNT, GUI_ACTIVE
        name = f"GRBM_PERFCOUNTER{number}_SELECT"
        rig.write(name, rig.register(name).encode(PERF_SEL=what))
    shader.perfmon(COUNT)
    rig.card.sleep(1e-3)
    assert rig.read("GRBM_PERFCOUNTER0_LO") >= 2_500_000  # 2500 MHz
    assert rig.read("GRBM_PERFCOUNTER1_LO") == 0
    shader.run(1)
    assert rig.read("GRBM_PERFCOUNTER1_LO") > 0


def test_wave_killed_by_command_lets_its_queue_go_on(shader: Shader) -> None:
    """gfx_v11_0_ring_soft_recovery."""
    rig = shader.rig
    rig.card.faults.inject("hang-wave")
    shader.submit(1)
    assert rig.wait(lambda: rig.card.faults.log != [])
    command = rig.register("SQ_CMD")
    rig.write("SQ_CMD", command.encode(CMD=3, MODE=1, CHECK_VMID=1, VM_ID=5))
    assert rig.memory.word(shader.place) == 0
    assert rig.wait(lambda: _killed(rig, command.encode(CMD=3, MODE=1, CHECK_VMID=1, VM_ID=0), shader.place))


def _killed(rig: Any, command: int, place: int) -> bool:
    """Whether the store after the dispatch happened; the command reaches only a dispatch that has begun."""
    rig.write("SQ_CMD", command)
    return bool(rig.memory.word(place) == 1)
