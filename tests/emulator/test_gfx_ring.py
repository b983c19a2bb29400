"""The graphics ring as far as a driver's tests go: mapped by MES or KIQ, or through the older registers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from amdrv.facts import mes_v11, pm4
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.mes_v11 import QueueType, SchedulerOpcode
from amdrv.facts.mqd_v11 import V11_GFX_MQD

SCRATCH_WINDOW = 0xC000


class Graphics:
    """A graphics ring with its descriptor (gfx_v11_0_gfx_mqd_init)."""

    def __init__(self, rig: Any, ring_type: Any, doorbell: int = 2 * Doorbell.GFX_RING0) -> None:
        self.rig = rig
        self.ring = ring_type(rig, doorbell)
        self.mes = rig.start_scheduler()
        self.place = rig.memory.take()
        self.halt(False)
        rig.enable_interrupts("CP_INT_CNTL_RING0")
        self.mqd = rig.memory.take()
        base, report = rig.mc(self.ring.ring) >> 8, rig.mc(self.ring.rptr)
        packed = V11_GFX_MQD.pack(
            cp_gfx_hqd_base=base & 0xFFFF_FFFF,
            cp_gfx_hqd_base_hi=base >> 32,
            cp_gfx_hqd_rptr_addr=report & 0xFFFF_FFFF,
            cp_gfx_hqd_rptr_addr_hi=report >> 32,
            cp_gfx_hqd_cntl=rig.register("CP_GFX_HQD_CNTL").encode(RB_BUFSZ=self.ring.size_dwords.bit_length() - 2),
            cp_gfx_hqd_active=1,
        )
        rig.card.vram_view(self.mqd, len(packed))[:] = packed

    def halt(self, halted: bool) -> None:
        self.rig.write("CP_ME_CNTL", self.rig.register("CP_ME_CNTL").encode(ME_HALT=halted, PFP_HALT=halted))

    def map(self) -> bool:
        return bool(
            self.mes.send(
                mes_v11.ADD_QUEUE,
                SchedulerOpcode.ADD_QUEUE,
                map_legacy_kq=1,
                queue_type=QueueType.GFX,
                doorbell_offset=self.ring.doorbell_dword,
                mqd_addr=self.rig.mc(self.mqd),
                wptr_addr=self.rig.mc(self.ring.wptr_copy),
            )
        )

    def store(self, value: int, offset: int = 0) -> tuple[int, ...]:
        address = self.rig.mc(self.place) + offset
        return pm4.WRITE_DATA.build(value, DST_SEL=pm4.MemoryTarget.MEMORY, WR_CONFIRM=1, ADDRESS=address)


@pytest.fixture
def graphics(rig: Any, ring_type: Any) -> Graphics:
    graphics = Graphics(rig, ring_type)
    assert graphics.map()
    return graphics


def set_scratch(rig: Any, value: int) -> tuple[int, ...]:
    """The ring test's packet (gfx_v11_0_ring_test_ring)."""
    offset = rig.register("SCRATCH_REG0").dword - SCRATCH_WINDOW
    return (pm4.header(pm4.Opcode.SET_UCONFIG_REG, 2), offset, value)


def test_ring_test_sets_the_scratch_register(graphics: Graphics) -> None:
    graphics.ring.submit(set_scratch(graphics.rig, 0xDEADBEEF))
    assert graphics.rig.wait(lambda: graphics.rig.read("SCRATCH_REG0") == 0xDEADBEEF)


@pytest.mark.parametrize(("doorbell", "heard"), [(0x80A, True), (0x20, False)])
def test_doorbell_range_is_one_of_the_kernels_page(rig: Any, ring_type: Any, doorbell: int, heard: bool) -> None:
    """Linux 6.12 mes_v11_0.c gives the scheduler's self test a graphics queue whose doorbell is in a later page."""
    graphics = Graphics(rig, ring_type, doorbell)
    rig.write("CP_RB_DOORBELL_RANGE_LOWER", 8 * Doorbell.GFX_RING0)
    rig.write("CP_RB_DOORBELL_RANGE_UPPER", 8 * Doorbell.GFX_RING0 + 8)
    assert graphics.map()
    graphics.ring.submit(set_scratch(rig, 0xDEADBEEF))
    assert rig.idle()
    assert (rig.read("SCRATCH_REG0") == 0xDEADBEEF) == heard


def test_start_up_state_is_taken(graphics: Graphics) -> None:
    """gfx_v11_0_cp_gfx_start: preamble, context control, context registers, clear state."""
    header = pm4.header
    graphics.ring.submit(
        (header(pm4.Opcode.PREAMBLE_CNTL, 1), 2 << 28),
        (header(pm4.Opcode.CONTEXT_CONTROL, 2), 0x8000_0000, 0x8000_0000),
        (header(pm4.Opcode.SET_CONTEXT_REG, 4), 0x10, 1, 2, 3),
        (header(pm4.Opcode.PREAMBLE_CNTL, 1), 3 << 28),
        (header(pm4.Opcode.CLEAR_STATE, 1), 0),
        (header(pm4.Opcode.PFP_SYNC_ME, 1), 0),
        (header(pm4.Opcode.FRAME_CONTROL, 1), 0),
        graphics.store(1),
    )
    assert graphics.rig.wait(lambda: graphics.rig.memory.word(graphics.place) == 1)
    assert not [name for name, _ in graphics.rig.card.unmodelled() if name.startswith("GC.")]


def test_buffer_test_runs_and_its_fence_interrupts(graphics: Graphics) -> None:
    rig = graphics.rig
    buffer = rig.memory.take()
    body = graphics.store(0xDEADBEEF)
    rig.memory.put(buffer, body)
    graphics.ring.submit(
        pm4.INDIRECT_BUFFER.build(IB_BASE=rig.mc(buffer), IB_SIZE=len(body)),
        pm4.RELEASE_MEM.build(
            EVENT_TYPE=pm4.Event.CACHE_FLUSH_AND_INV_TS_EVENT,
            EVENT_INDEX=pm4.EventIndex.END_OF_PIPE,
            DATA_SEL=pm4.DataSelect.LOW_32,
            INT_SEL=pm4.InterruptSelect.AFTER_WRITE_CONFIRM,
            ADDRESS=rig.mc(graphics.place) + 8,
            DATA=3,
        ),
    )
    assert rig.idle()
    assert (rig.memory.word(graphics.place), rig.memory.word(graphics.place + 8)) == (0xDEADBEEF, 3)
    (entry,) = rig.interrupts()
    assert (entry["SOURCE_ID"], entry["RING_ID"]) == (181, 0)
    assert rig.memory.word(graphics.ring.rptr) == graphics.ring.wptr


def test_fence_does_not_interrupt_while_its_pipe_has_interrupts_off(graphics: Graphics) -> None:
    rig = graphics.rig
    rig.write("CP_INT_CNTL_RING0", 0)
    graphics.ring.submit(
        pm4.RELEASE_MEM.build(
            EVENT_TYPE=pm4.Event.CACHE_FLUSH_AND_INV_TS_EVENT,
            EVENT_INDEX=pm4.EventIndex.END_OF_PIPE,
            DATA_SEL=pm4.DataSelect.LOW_32,
            INT_SEL=pm4.InterruptSelect.AFTER_WRITE_CONFIRM,
            ADDRESS=rig.mc(graphics.place),
            DATA=3,
        ),
    )
    assert rig.idle()
    assert rig.memory.word(graphics.place) == 3
    assert rig.interrupts() == []


def test_drawing_is_refused_by_an_interrupt(graphics: Graphics) -> None:
    rig = graphics.rig
    graphics.ring.submit((pm4.header(pm4.Opcode.DRAW_INDEX_AUTO, 2), 3, 2), graphics.store(1))
    assert rig.idle()
    assert rig.memory.word(graphics.place) == 0
    (entry,) = rig.interrupts()
    assert entry["SOURCE_ID"] == 183


def test_halted_pipe_waits(graphics: Graphics) -> None:
    graphics.halt(True)
    graphics.ring.submit(graphics.store(1))
    time.sleep(0.02)
    assert graphics.rig.memory.word(graphics.place) == 0
    graphics.halt(False)
    assert graphics.rig.wait(lambda: graphics.rig.memory.word(graphics.place) == 1)


def test_queue_of_a_halted_pipe_is_not_mapped(rig: Any, ring_type: Any) -> None:
    graphics = Graphics(rig, ring_type)
    graphics.halt(True)
    assert not graphics.map()


def test_unmapped_queue_goes_on_where_it_was_when_mapped_again(graphics: Graphics) -> None:
    rig = graphics.rig
    graphics.ring.submit(graphics.store(1))
    assert rig.idle()
    opcode = SchedulerOpcode.REMOVE_QUEUE
    fields = {"unmap_legacy_queue": 1, "queue_type": QueueType.GFX}
    assert graphics.mes.send(
        mes_v11.REMOVE_QUEUE, opcode, doorbell_offset=graphics.ring.doorbell_dword, **fields
    )
    rig.select(0, 0)
    assert rig.read("CP_GFX_HQD_ACTIVE") == 0
    rig.memory.put(graphics.place, (0,))
    graphics.ring.submit(graphics.store(2, 8))  # the doorbell of an unmapped queue is lost
    assert rig.idle()
    assert rig.memory.word(graphics.place + 8) == 0
    assert graphics.map()
    assert rig.wait(lambda: rig.memory.word(graphics.place + 8) == 2)
    assert rig.memory.word(graphics.place) == 0  # the first packet does not run again


def test_hung_queue_is_reset_through_its_register_and_mapped_again(graphics: Graphics) -> None:
    """mes_v11_0_reset_queue_mmio, then map again."""
    rig = graphics.rig
    graphics.ring.submit((pm4.header(pm4.Opcode.DRAW_INDEX_AUTO, 2), 3, 2))
    assert rig.idle()
    rig.write("CP_VMID_RESET", rig.register("CP_VMID_RESET").encode(RESET_REQUEST=1, PIPE0_QUEUES=1))
    rig.card.sleep(1e-3)
    rig.select(0, 0)
    assert rig.read("CP_GFX_HQD_ACTIVE") == 0
    graphics.ring.wptr = 0
    graphics.ring.write()
    assert graphics.map()
    graphics.ring.submit(graphics.store(5))
    assert rig.wait(lambda: rig.memory.word(graphics.place) == 5)


def test_ring_without_a_descriptor_runs_by_doorbell_and_by_register(rig: Any, ring_type: Any) -> None:
    """gfx_v11_0_cp_gfx_resume."""
    graphics = Graphics(rig, ring_type)
    ring = graphics.ring
    rig.select(0, 0)
    rig.write("CP_RB0_CNTL", rig.register("CP_RB0_CNTL").encode(RB_BUFSZ=ring.size_dwords.bit_length() - 2))
    rig.write("CP_RB0_WPTR", 0)
    rig.write("CP_RB0_BASE", rig.mc(ring.ring) >> 8 & 0xFFFF_FFFF)
    rig.write("CP_RB0_BASE_HI", rig.mc(ring.ring) >> 40)
    doorbell = rig.register("CP_RB_DOORBELL_CONTROL").encode(DOORBELL_OFFSET=ring.doorbell_dword, DOORBELL_EN=1)
    rig.write("CP_RB_DOORBELL_CONTROL", doorbell)
    rig.write("CP_RB0_ACTIVE", 1)
    ring.submit(graphics.store(1))
    assert rig.wait(lambda: rig.memory.word(graphics.place) == 1)
    ring.write(graphics.store(2))
    rig.write("CP_RB0_WPTR", ring.wptr)
    assert rig.wait(lambda: rig.memory.word(graphics.place) == 2)
