"""PM4 packets: words that the Linux driver emits for a gfx11 card, rebuilt from the layouts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument, NotFound
from amdrv.facts import pm4
from amdrv.facts.pm4 import PACKETS, Opcode
from amdrv.registers import RegisterMap

GC = RegisterMap({"GC": {0: (0x1260, 0xA000, 0x1C000, 0x2402C00)}}, {"GC": (11, 0, 0)}).gc

# Linux 6.12 gfx_v11_0.c, each function's macros written out by hand.
KERNEL_PACKETS = {
    "ring_emit_fence with a 64-bit value and an interrupt": (
        pm4.RELEASE_MEM.build(
            EVENT_TYPE=pm4.Event.CACHE_FLUSH_AND_INV_TS_EVENT,
            EVENT_INDEX=pm4.EventIndex.END_OF_PIPE,
            SEQ=1,
            GL2_WB=1,
            GLM_INV=1,
            GLM_WB=1,
            CACHE_POLICY=pm4.CachePolicy.BYPASS,
            DATA_SEL=pm4.DataSelect.ALL_64,
            INT_SEL=pm4.InterruptSelect.AFTER_WRITE_CONFIRM,
            ADDRESS=0x12_3456_7890,
            DATA=0xAABB_CCDD_1122_3344,
        ),
        (
            0xC0064900,
            1 << 22 | 1 << 21 | 1 << 13 | 1 << 12 | 3 << 25 | 0x14 | 5 << 8,
            2 << 29 | 2 << 24,
            0x34567890,
            0x12,
            0x11223344,
            0xAABBCCDD,
            0,
        ),
    ),
    "emit_mem_sync": (
        pm4.ACQUIRE_MEM.build(
            COHER_SIZE=0xFF_FFFF_FFFF_FFFF,
            POLL_INTERVAL=0xA,
            GL2_INV=1,
            GL2_WB=1,
            GLM_INV=1,
            GLM_WB=1,
            GL1_INV=1,
            GLV_INV=1,
            GLK_INV=1,
            GLI_INV=1,
        ),
        (0xC0065800, 0, 0xFFFFFFFF, 0xFFFFFF, 0, 0, 0xA, 0xC3B1),
    ),
    "wait_reg_mem for a memory value": (
        pm4.WAIT_REG_MEM.build(
            FUNCTION=pm4.CompareFunction.EQUAL,
            MEM_SPACE=1,
            ADDRESS=0x5_0000_0040,
            REFERENCE=7,
            MASK=0xFFFFFFFF,
            POLL_INTERVAL=4,
        ),
        (0xC0053C00, 0x13, 0x40, 0x5, 7, 0xFFFFFFFF, 4),
    ),
    "ring_emit_rreg": (
        pm4.COPY_DATA.build(DST_SEL=pm4.MemoryTarget.MEMORY, WR_CONFIRM=1, SRC=0x1234, DST=0x1_0000_0008),
        (0xC0044000, 5 << 8 | 1 << 20, 0x1234, 0, 8, 1),
    ),
    "ring_emit_wreg on a compute ring": (
        pm4.WRITE_DATA.build(0xDEADBEEF, DST_SEL=pm4.MemoryTarget.REGISTER, WR_CONFIRM=1, ADDRESS=0xC040),
        (0xC0033700, 1 << 20, 0xC040, 0, 0xDEADBEEF),
    ),
    "ring_emit_ib_compute": (
        pm4.INDIRECT_BUFFER.build(IB_BASE=0x1_0000_0100, IB_SIZE=16, VALID=1, VMID=3),
        (0xC0023F00, 0x100, 1, 16 | 1 << 23 | 3 << 24),
    ),
    "kiq_map_queues for a compute queue": (
        pm4.MAP_QUEUES.build(
            QUEUE=2,
            PIPE=1,
            ME=1,
            NUM_QUEUES=1,
            DOORBELL_OFFSET=6,
            MQD_ADDR=0x80_0000_1000,
            WPTR_ADDR=0x80_0000_2000,
        ),
        (0xC005A200, 2 << 13 | 1 << 16 | 1 << 18 | 1 << 29, 6 << 2, 0x1000, 0x80, 0x2000, 0x80),
    ),
    "kiq_unmap_queues with a fence": (
        pm4.UNMAP_QUEUES.build(
            ACTION=pm4.UnmapAction.PREEMPT_NO_UNMAP,
            NUM_QUEUES=1,
            DOORBELL_OFFSET0=6,
            FENCE_ADDR=0x1_0000_0040,
            FENCE_DATA=9,
        ),
        (0xC004A300, 3 | 1 << 29, 6 << 2, 0x40, 1, 9),
    ),
    "kiq_set_resources": (
        pm4.SET_RESOURCES.build(UNMAP_LATENCY=0xA, QUEUE_MASK=0x3),
        (0xC006A000, 0xA << 16, 3, 0, 0, 0, 0, 0),
    ),
    "kiq_invalidate_tlbs by PASID on both hubs": (
        pm4.INVALIDATE_TLBS.build(INVALIDATE_SEL=1, MMHUB_INVALIDATE_SEL=2, PASID=0x8001, GFX_FLUSH_TYPE=2),
        (0xC0009800, 1 | 1 << 4 | 0x8001 << 5 | 2 << 29),
    ),
    "init_cond_exec": (
        pm4.COND_EXEC.build(ADDRESS=0x1_0000_0000, EXEC_COUNT=5),
        (0xC0032200, 0, 1, 0, 5),
    ),
}


@pytest.mark.parametrize("name", KERNEL_PACKETS)
def test_packets_have_the_words_that_the_kernel_emits(name: str) -> None:
    built, expected = KERNEL_PACKETS[name]
    assert [f"{word:#010x}" for word in built] == [f"{word:#010x}" for word in expected]


def test_a_top_of_pipe_timestamp_is_the_copy_that_graphics_drivers_use() -> None:
    # Mesa radv_query.c: 64 bits of the GPU clock to memory, confirmed
    built = pm4.COPY_DATA.build(SRC_SEL=pm4.CopySource.GPU_CLOCK, DST_SEL=5, COUNT_SEL=1, WR_CONFIRM=1)
    assert built[1] == 9 | 5 << 8 | 1 << 16 | 1 << 20


def test_the_one_dword_nop_is_a_nop_with_the_largest_count() -> None:
    fields = pm4.HEADER.decode([pm4.NOP_ONE_DWORD])
    assert (fields["TYPE"], fields["OPCODE"], fields["COUNT"]) == (3, Opcode.NOP, 0x3FFF)


def test_a_header_counts_its_body() -> None:
    assert pm4.header(Opcode.NOP, 2) == 0xC0011000
    assert pm4.header(Opcode.DISPATCH_DIRECT, 4, compute=True) == 0xC0031502


@pytest.mark.parametrize("dwords", [0, 0x4000])
def test_a_body_of_impossible_length_is_refused(dwords: int) -> None:
    with pytest.raises(InvalidArgument, match="1 to 16383"):
        pm4.header(Opcode.NOP, dwords)


def test_a_value_that_does_not_fit_its_field_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"INDIRECT_BUFFER\.IB_SIZE"):
        pm4.INDIRECT_BUFFER.build(IB_SIZE=1 << 20)


def test_an_unknown_field_is_not_found() -> None:
    with pytest.raises(NotFound, match=r"DISPATCH_DIRECT has no field DIM_W"):
        pm4.DISPATCH_DIRECT.build(DIM_W=1)


@pytest.mark.parametrize(
    ("opcode", "register"),
    [
        (Opcode.SET_SH_REG, "COMPUTE_DISPATCH_INITIATOR"),
        (Opcode.SET_SH_REG, "COMPUTE_USER_DATA_15"),
        (Opcode.SET_UCONFIG_REG, "SCRATCH_REG0"),
        (Opcode.SET_UCONFIG_REG, "GRBM_GFX_INDEX"),
        (Opcode.SET_CONTEXT_REG, "PA_SC_TILE_STEERING_OVERRIDE"),
    ],
)
def test_each_window_reaches_the_registers_meant_for_it(opcode: Opcode, register: str) -> None:
    window = pm4.SET_WINDOWS[opcode]
    assert window.start <= GC[register].dword < window.end


def test_windows_do_not_overlap() -> None:
    windows = sorted(set(pm4.SET_WINDOWS.values()))
    assert all(before.end <= after.start for before, after in itertools.pairwise(windows))


@given(st.sampled_from(sorted(PACKETS)), st.data())
def test_a_field_reads_back_as_it_was_written(opcode: Opcode, data: st.DataObject) -> None:
    packet = PACKETS[opcode]
    name = data.draw(st.sampled_from(sorted(packet.fields)))
    value = data.draw(st.integers(0, packet.fields[name].max))
    word, *body = packet.build(**{name: value})
    assert pm4.HEADER.decode([word])["OPCODE"] == opcode
    assert pm4.HEADER.decode([word])["COUNT"] == len(body) - 1
    assert packet.decode(body)[name] == value
