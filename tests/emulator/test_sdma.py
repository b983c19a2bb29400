"""The copy engines: rings by register and by descriptor, packets as sdma_v6_0.c and ROCr send them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator import atomics
from amdrv.facts import mes_v11
from amdrv.facts import sdma_v6_0 as sdma
from amdrv.facts.atomics import AtomicOpcode
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.mes_v11 import QueueType, SchedulerOpcode
from amdrv.facts.mqd_v11 import V11_SDMA_MQD
from amdrv.facts.sdma_v6_0 import CopySub, Opcode, PollSub, PtepdeSub, TimestampSub

ENGINES = (Doorbell.SDMA_ENGINE0, Doorbell.SDMA_ENGINE1)
EQUAL = 3


class Engine:
    """One engine with its queue 0 set up as sdma_v6_0_gfx_resume does."""

    def __init__(self, rig: Any, ring_type: Any, instance: int = 0) -> None:
        self.rig, self.instance = rig, instance
        self.ring = ring_type(rig, 2 * ENGINES[instance], unit_bytes=4)
        self.data = rig.memory.take(1 << 16)
        self.at = rig.mc(self.data)
        self.write("QUEUE0_RB_BASE", rig.mc(self.ring.ring) >> 8 & 0xFFFF_FFFF)
        self.write("QUEUE0_RB_BASE_HI", rig.mc(self.ring.ring) >> 40)
        self.write("QUEUE0_RB_RPTR_ADDR_LO", rig.mc(self.ring.rptr) & 0xFFFF_FFFF)
        self.write("QUEUE0_RB_RPTR_ADDR_HI", rig.mc(self.ring.rptr) >> 32)
        self.write("QUEUE0_DOORBELL_OFFSET", rig.sdma(instance, "QUEUE0_DOORBELL_OFFSET").encode(
            OFFSET=self.ring.doorbell_dword
        ))  # fmt: skip
        self.write("QUEUE0_DOORBELL", rig.sdma(instance, "QUEUE0_DOORBELL").encode(ENABLE=1))
        self.write("CNTL", rig.sdma(instance, "CNTL").encode(TRAP_ENABLE=1))
        self.halt(False)
        size = self.ring.size_dwords.bit_length() - 1
        control = rig.sdma(instance, "QUEUE0_RB_CNTL")
        self.write("QUEUE0_RB_CNTL", control.encode(RB_ENABLE=1, RB_SIZE=size, RB_PRIV=1, RPTR_WRITEBACK_ENABLE=1))

    def halt(self, halted: bool) -> None:
        self.write("F32_CNTL", self.rig.sdma(self.instance, "F32_CNTL").encode(HALT=halted))

    def write(self, name: str, value: int) -> None:
        self.rig.card.write_register(self.rig.sdma(self.instance, name).address, value)

    def read(self, name: str) -> int:
        return int(self.rig.card.read_register(self.rig.sdma(self.instance, name).address))

    def run(self, *packets: Sequence[int]) -> None:
        self.ring.submit(*packets)
        assert self.rig.idle()

    def store(self, value: int, offset: int = 0) -> tuple[int, ...]:
        """WRITE linear of one dword (sdma_v6_0_ring_test_ring)."""
        header = sdma.WRITE_UNTILED.encode(op=Opcode.WRITE, dst_addr=self.at + offset, count=0)
        return (*header[:4], value)

    def words(self, count: int, offset: int = 0) -> list[int]:
        return [self.rig.memory.word(self.data + offset + 4 * n) for n in range(count)]

    def put(self, offset: int, *words: int) -> None:
        self.rig.memory.put(self.data + offset, words)


@pytest.fixture
def engine(rig: Any, ring_type: Any) -> Engine:
    return Engine(rig, ring_type)


@pytest.mark.parametrize("instance", [0, 1])
def test_ring_test_writes_memory_and_reports_its_read_pointer_in_bytes(
    rig: Any, ring_type: Any, instance: int
) -> None:
    engine = Engine(rig, ring_type, instance)
    engine.run(engine.store(0xDEADBEEF))
    assert engine.words(1) == [0xDEADBEEF]
    assert rig.memory.word(engine.ring.rptr, 8) == 4 * engine.ring.wptr
    assert engine.read("QUEUE0_RB_RPTR") == 4 * engine.ring.wptr


@pytest.mark.parametrize("sub_op", [0, 1])
def test_cache_request_of_the_kernel_and_of_rocr_ask_the_caches(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, sub_op: int
) -> None:
    asked: list[int] = []
    sdma_models = [model for model in engine.rig.card.all_models() if type(model).__name__ == "Sdma"]
    monkeypatch.setattr(sdma_models[0], "maintain_caches", asked.append)
    request = sdma.GCR_REQ.encode(op=Opcode.GCR_REQ, sub_op=sub_op, gcr_control=0x8100)
    engine.run(tuple(request), engine.store(1))
    assert asked == [0x8100]
    assert engine.words(1) == [1]


def test_ring_wraps(engine: Engine) -> None:
    for number in range(80):
        engine.run(engine.store(number, 4 * number))
    assert engine.ring.wptr > engine.ring.size_dwords
    assert engine.words(80) == list(range(80))


def test_queue_set_up_anew_while_it_is_on_starts_from_the_pointers_written(engine: Engine) -> None:
    engine.run(engine.store(1))
    for name in ("RB_RPTR", "RB_RPTR_HI", "RB_WPTR", "RB_WPTR_HI"):
        engine.write(f"QUEUE0_{name}", 0)
    engine.ring.wptr = 0
    engine.run(engine.store(2))
    assert engine.words(1) == [2]


def test_halted_engine_waits_until_it_is_let_go(engine: Engine) -> None:
    engine.halt(True)
    engine.ring.submit(engine.store(1))
    time.sleep(0.02)
    assert engine.words(1) == [0]
    engine.halt(False)
    assert engine.rig.wait(lambda: engine.words(1) == [1])


def test_doorbell_of_a_queue_that_is_off_is_lost(engine: Engine) -> None:
    engine.write("QUEUE0_RB_CNTL", 0)
    engine.run(engine.store(1))
    assert engine.words(1) == [0]


def test_write_pointer_register_starts_the_queue_too(engine: Engine) -> None:
    engine.ring.write(engine.store(1))
    engine.write("QUEUE0_RB_WPTR", 4 * engine.ring.wptr)
    assert engine.rig.wait(lambda: engine.words(1) == [1])


def test_engine_says_whether_it_is_idle(engine: Engine) -> None:
    idle = engine.rig.sdma(0, "STATUS_REG").fields["IDLE"].mask
    assert engine.read("STATUS_REG") & idle
    engine.ring.submit(sdma.POLL_REGMEM.encode(op=8, func=EQUAL, mem_poll=1, addr=engine.at, value=1, mask=1))
    assert not engine.read("STATUS_REG") & idle
    engine.put(0, 1)
    assert engine.rig.idle()
    assert engine.read("STATUS_REG") & idle


def test_linear_copy_moves_exactly_the_bytes_asked_for(engine: Engine) -> None:
    engine.put(0, 0x03020100, 0x07060504)
    engine.put(0x100, 0xFFFFFFFF, 0xFFFFFFFF)
    packet = sdma.COPY_LINEAR.encode(op=1, count=5 - 1, src_addr=engine.at + 1, dst_addr=engine.at + 0x101)
    engine.run(packet)
    assert engine.words(2, 0x100) == [0x030201FF, 0xFFFF0504]


def test_broadcast_copy_writes_two_places(engine: Engine) -> None:
    engine.put(0, 0x1234)
    engine.run(
        sdma.COPY_BROADCAST_LINEAR.encode(
            op=1, broadcast=1, count=3, src_addr=engine.at, dst1_addr=engine.at + 0x40, dst2_addr=engine.at + 0x80
        ),
        engine.store(1, 0x200),
    )
    assert engine.words(1, 0x40) == engine.words(1, 0x80) == [0x1234]
    assert engine.words(1, 0x200) == [1]


def test_window_copy_moves_a_box_between_pitches(engine: Engine) -> None:
    width = 8
    engine.put(0, *range(64))  # 8 x 8 dwords
    engine.run(
        sdma.COPY_LINEAR_SUBWIN.encode(
            op=1,
            sub_op=CopySub.LINEAR_SUB_WIND,
            elementsize=2,
            src_addr=engine.at,
            src_x=2,
            src_y=1,
            src_pitch=width - 1,
            src_slice_pitch=64 - 1,
            dst_addr=engine.at + 0x1000,
            dst_pitch=4 - 1,
            dst_slice_pitch=16 - 1,
            rect_x=3 - 1,
            rect_y=2 - 1,
        )
    )
    assert engine.words(8, 0x1000) == [10, 11, 12, 0, 18, 19, 20, 0]


def test_tiled_copy_is_refused_and_what_follows_does_not_run(engine: Engine) -> None:
    packet = sdma.COPY_TILED_SUBWIN.encode(op=1, sub_op=CopySub.TILED_SUB_WIND, swizzle_mode=27)
    engine.run(packet[:14], engine.store(1))
    assert engine.words(1) == [0]


@pytest.mark.parametrize(("fillsize", "count"), [(0, 16 - 1), (2, 16 - 4)], ids=["as Linux", "as ROCr"])
def test_fill_repeats_the_dword(engine: Engine, fillsize: int, count: int) -> None:
    engine.run(
        sdma.CONSTANT_FILL.encode(op=11, fillsize=fillsize, dst_addr=engine.at, src_data=0x01020304, count=count)
    )
    assert engine.words(5) == [0x01020304] * 4 + [0]


def test_fence_and_trap_interrupt_with_the_rings_id(rig: Any, ring_type: Any) -> None:
    engine = Engine(rig, ring_type, 1)
    engine.run(
        sdma.FENCE.encode(op=5, mtype=3, addr=engine.at, data=0x55),
        sdma.TRAP.encode(op=6, int_context=0x123),
    )
    assert engine.words(1) == [0x55]
    (entry,) = rig.interrupts()
    assert (entry["CLIENT_ID"], entry["SOURCE_ID"], entry["RING_ID"], entry["DATA0"]) == (10, 49, 1 << 4, 0x123)


def test_trap_that_is_not_enabled_does_not_interrupt(engine: Engine) -> None:
    engine.write("CNTL", 0)
    engine.run(sdma.TRAP.encode(op=6, int_context=1))
    assert engine.rig.interrupts() == []


def test_indirect_buffer_runs_and_returns(engine: Engine) -> None:
    body = engine.store(4, 0x20)
    engine.put(0x400, *body, 0, 0, 0)
    engine.run(sdma.INDIRECT.encode(op=4, ib_base=engine.at + 0x400, ib_size=8), engine.store(5, 0x24))
    assert engine.words(2, 0x20) == [4, 5]


def test_buffer_of_a_client_runs_in_its_vmid(engine: Engine) -> None:
    rig = engine.rig
    table = rig.memory.take()
    rig.memory.put(table, (engine.data | 0x71, 0))
    rig.write("GCVM_CONTEXT9_PAGE_TABLE_BASE_ADDR_LO32", table | 1)
    rig.write("GCVM_CONTEXT9_PAGE_TABLE_END_ADDR_LO32", 0x1FF)
    rig.write("GCVM_CONTEXT9_CNTL", rig.register("GCVM_CONTEXT9_CNTL").encode(ENABLE_CONTEXT=1))
    header = sdma.WRITE_UNTILED.encode(op=Opcode.WRITE, dst_addr=0x20, count=0)
    engine.put(0x400, *header[:4], 7, 0, 0, 0)
    engine.run(sdma.INDIRECT.encode(op=4, vmid=9, ib_base=0x400, ib_size=8))
    assert engine.words(1, 0x20) == [7]


@pytest.mark.parametrize(("flag", "expected"), [(1, 6), (0, 0)])
def test_conditional_execution_skips_what_does_not_match(engine: Engine, flag: int, expected: int) -> None:
    engine.put(0, flag)
    skipped = engine.store(6, 0x40)
    engine.run(
        sdma.COND_EXE.encode(op=9, addr=engine.at, reference=1, exec_count=len(skipped)),
        skipped,
        engine.store(1, 0x44),
    )
    assert engine.words(2, 0x40) == [expected, 1]


@pytest.mark.parametrize(("selected", "expected"), [(0x1, 6), (0x2, 0)])
def test_preamble_for_some_engines_is_skipped_by_the_others(engine: Engine, selected: int, expected: int) -> None:
    skipped = engine.store(6)
    engine.run(sdma.PRE_EXE.encode(op=15, dev_sel=selected, exec_count=len(skipped)), skipped)
    assert engine.words(1) == [expected]


def test_no_operation_takes_its_count_of_dwords(engine: Engine) -> None:
    engine.run((*sdma.NOP.encode(op=0, count=3)[:1], 0xFF, 0xFF, 0xFF), engine.store(1))
    assert engine.words(1) == [1]


def test_poll_of_memory_holds_the_queue(engine: Engine) -> None:
    poll = sdma.POLL_REGMEM.encode(op=8, func=EQUAL, mem_poll=1, addr=engine.at, value=3, mask=0xFF, retry_count=0xFFF)
    engine.ring.submit(poll, engine.store(1, 8))
    time.sleep(0.02)
    assert engine.words(1, 8) == [0]
    engine.put(0, 0x103)
    assert engine.rig.wait(lambda: engine.words(1, 8) == [1])


def test_hdp_flush_writes_the_request_and_finds_it_done(engine: Engine) -> None:
    rig = engine.rig
    done = rig.register("NBIO.BIF_BX_PF0_GPU_HDP_FLUSH_DONE").address
    request = rig.register("NBIO.BIF_BX_PF0_GPU_HDP_FLUSH_REQ").address
    poll = sdma.POLL_REGMEM.encode(
        op=8, hdp_flush=1, func=EQUAL, addr=request << 32 | done, value=0x400, mask=0x400
    )
    engine.run(poll, engine.store(1))
    assert engine.words(1) == [1]
    assert rig.read("NBIO.BIF_BX_PF0_GPU_HDP_FLUSH_DONE") & 0x400


def test_register_write_takes_a_dword_index_and_byte_enables(engine: Engine) -> None:
    rig = engine.rig
    scratch = rig.register("SCRATCH_REG5")
    rig.write("SCRATCH_REG5", 0x11223344)
    engine.run(sdma.SRBM_WRITE.encode(op=14, byte_en=0xF, addr=scratch.dword, data=0xAABBCCDD))
    assert rig.read("SCRATCH_REG5") == 0xAABBCCDD
    engine.run(sdma.SRBM_WRITE.encode(op=14, byte_en=0x1, addr=scratch.dword, data=0x99))
    assert rig.read("SCRATCH_REG5") == 0xAABBCC99


def test_register_is_stored_into_memory(engine: Engine) -> None:
    rig = engine.rig
    scratch = rig.register("SCRATCH_REG6")
    rig.write("SCRATCH_REG6", 0x77)
    engine.run(
        sdma.POLL_REG_WRITE_MEM.encode(
            op=8, sub_op=PollSub.REG_WRITE_MEM, addr_31_2=scratch.dword, addr=engine.at
        )
    )
    assert engine.words(1) == [0x77]


def test_vm_invalidation_is_acknowledged_and_drops_the_translation(engine: Engine) -> None:
    rig = engine.rig
    table, other = rig.memory.take(), rig.memory.take()
    rig.memory.put(table, (engine.data | 0x71, 0))
    rig.write("GCVM_CONTEXT9_PAGE_TABLE_BASE_ADDR_LO32", table | 1)
    rig.write("GCVM_CONTEXT9_PAGE_TABLE_END_ADDR_LO32", 0x1FF)
    rig.write("GCVM_CONTEXT9_CNTL", rig.register("GCVM_CONTEXT9_CNTL").encode(ENABLE_CONTEXT=1))
    header = sdma.WRITE_UNTILED.encode(op=Opcode.WRITE, dst_addr=0x20, count=0)
    engine.put(0x400, *header[:4], 7, 0, 0, 0)
    rig.memory.put(other + 0x400, (*header[:4], 8, 0, 0, 0))
    buffer = sdma.INDIRECT.encode(op=4, vmid=9, ib_base=0x400, ib_size=8)
    engine.run(buffer)
    rig.memory.put(table, (other | 0x71, 0))
    engine.run(buffer)  # still the old page
    assert rig.memory.word(other + 0x20) == 0
    request = rig.register("GCVM_INVALIDATE_ENG5_REQ").encode(
        PER_VMID_INVALIDATE_REQ=1 << 9, INVALIDATE_L2_PTES=1, INVALIDATE_L1_PTES=1
    )
    engine.run(
        sdma.VM_INVALIDATION.encode(
            op=8,
            sub_op=PollSub.VM_INVALIDATION,
            gfx_eng_id=5,
            mm_eng_id=0x1F,
            invalidatereq=request,
            addressrangelo=0xFFFF_FFFF,
            addressrangehi=0x1F,
            invalidateack=1 << 9,
        ),
        buffer,
    )
    assert rig.memory.word(other + 0x20) == 8


def test_page_table_entries_are_generated(engine: Engine) -> None:
    """sdma_v6_0_vm_set_pte_pde: flags, first address, step, entries."""
    engine.run(
        sdma.WRITE_INCR.encode(
            op=12, dst_addr=engine.at, mask_dw0=0x71, mask_dw1=0x1_0000, init_dw0=0xF000, incr_dw0=0x1000, count=2
        )
    )
    assert engine.words(6) == [0xF071, 0x1_0000, 0x1_0071, 0x1_0000, 0x1_1071, 0x1_0000]


def test_page_table_entries_are_copied_and_modified(engine: Engine) -> None:
    engine.put(0, 0x1071, 0, 0x2071, 0)
    engine.run(
        sdma.PTEPDE_COPY.encode(
            op=12,
            sub_op=PtepdeSub.COPY,
            src_addr=engine.at,
            dst_addr=engine.at + 0x100,
            mask_dw0=0xFFFF_FFFE,
            mask_dw1=0xFFFF_FFFF,
            count=1,
        ),
        sdma.PTEPDE_RMW.encode(
            op=12, sub_op=PtepdeSub.RMW, addr=engine.at + 0x100, mask=0xF, value=0x5, num_of_pte=1
        ),
    )
    assert engine.words(4, 0x100) == [0x1075, 0, 0x2075, 0]


def test_semaphore_wait_takes_what_a_signal_gives(engine: Engine) -> None:
    engine.ring.submit(sdma.SEMAPHORE.encode(op=7, addr=engine.at), engine.store(1, 0x40))
    time.sleep(0.02)
    assert engine.words(1, 0x40) == [0]
    engine.put(0, 2)
    assert engine.rig.idle()
    assert engine.words(1, 0x40) == [1]
    assert engine.words(1) == [1]
    engine.run(sdma.SEMAPHORE.encode(op=7, signal=1, addr=engine.at))
    assert engine.words(1) == [2]


def test_timestamps_count_at_100_mhz_and_the_engines_own_can_be_set(engine: Engine) -> None:
    get = {"op": 13, "write_addr_63_3": engine.at >> 3}
    glob = sdma.TIMESTAMP_GET.encode(sub_op=TimestampSub.GET_GLOBAL, **get)
    engine.run(glob)
    before = engine.rig.memory.word(engine.data, 8)
    engine.rig.card.sleep(1e-3)
    engine.run(glob)
    assert engine.rig.memory.word(engine.data, 8) - before >= 100_000
    engine.run(
        sdma.TIMESTAMP_SET.encode(op=13, sub_op=TimestampSub.SET, init_data=1 << 40),
        sdma.TIMESTAMP_GET.encode(sub_op=TimestampSub.GET, **get),
    )
    assert 0 <= engine.rig.memory.word(engine.data, 8) - (1 << 40) < 1 << 32


def test_atomic_loops_until_its_comparison_holds(engine: Engine) -> None:
    packet = sdma.ATOMIC.encode(
        op=10, loop=1, atomic_op=AtomicOpcode.CMPSWAP_RTN_32, addr=engine.at, src_data=9, cmp_data=5
    )
    engine.ring.submit(packet)
    time.sleep(0.02)
    assert engine.words(1) == [0]
    engine.put(0, 5)
    assert engine.rig.idle()
    assert engine.words(1) == [9]


class Bytes:
    """Memory for atomics: eight bytes."""

    def __init__(self, value: int) -> None:
        self.data = bytearray(value.to_bytes(8, "little"))

    def read(self, va: int, size_bytes: int) -> bytes:
        return bytes(self.data[va : va + size_bytes])

    def write(self, va: int, data: bytes) -> None:
        self.data[va : va + len(data)] = data


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from(["32", "64"]))
def test_atomic_operations_agree_with_their_definition(old: int, source: int, width: str) -> None:
    bits = int(width)
    mask = (1 << bits) - 1
    value, operand = old & mask, source & mask
    expected = {
        "ADD": value + operand & mask,
        "SUB": value - operand & mask,
        "UMIN": min(value, operand),
        "UMAX": max(value, operand),
        "AND": value & operand,
        "OR": value | operand,
        "XOR": value ^ operand,
        "SWAP": operand,
        "INC": 0 if value >= operand else value + 1,
        "DEC": operand if value == 0 or value > operand else value - 1,
    }
    for name, result in expected.items():
        memory = Bytes(old)
        assert atomics.update(memory, AtomicOpcode[f"{name}_{width}"], 0, source, 0) == value
        assert int.from_bytes(memory.data, "little") == old & ~mask | result


@pytest.mark.parametrize("header", [0x0000_0003, 0x0000_2001, 0x0000_00FF])
def test_unknown_packet_stops_the_queue(engine: Engine, header: int) -> None:
    engine.run((header, 0, 0, 0), engine.store(1))
    assert engine.words(1) == [0]


def test_invalidation_by_an_engine_that_no_hub_has_stops_the_queue(engine: Engine) -> None:
    packet = sdma.VM_INVALIDATION.encode(op=8, sub_op=PollSub.VM_INVALIDATION, gfx_eng_id=18, mm_eng_id=0x1F)
    engine.run(packet, engine.store(1))
    assert engine.words(1) == [0]


def test_page_that_is_not_mapped_faults_with_the_engines_number(rig: Any, ring_type: Any) -> None:
    engine = Engine(rig, ring_type, 1)
    engine.run(sdma.FENCE.encode(op=5, addr=0x7000, data=1))
    status = rig.register("GCVM_L2_PROTECTION_FAULT_STATUS").decode(rig.read("GCVM_L2_PROTECTION_FAULT_STATUS"))
    assert (status.CID, status.RW) == (14, 1)


def test_soft_reset_switches_the_queue_off(engine: Engine) -> None:
    rig = engine.rig
    engine.ring.submit(sdma.POLL_REGMEM.encode(op=8, func=EQUAL, mem_poll=1, addr=engine.at, value=1, mask=1))
    rig.write("GRBM_SOFT_RESET", rig.register("GRBM_SOFT_RESET").encode(SOFT_RESET_SDMA0=1))
    assert rig.idle()
    assert engine.read("QUEUE0_RB_CNTL") & 1 == 0


def test_queue_of_a_process_is_mapped_by_the_scheduler_from_its_descriptor(rig: Any, ring_type: Any) -> None:
    engine = Engine(rig, ring_type, 1)  # for its doorbell range and the engine's start
    mes = rig.start_scheduler()
    assert mes.send(
        mes_v11.SET_HW_RESOURCES, SchedulerOpcode.SET_HW_RSRC, vmid_mask_gfxhub=0xFF00,
        sdma_hqd_mask_0=0xFC, sdma_hqd_mask_1=0xFC,
    )  # fmt: skip
    doorbell = 0x1000 + 2 * Doorbell.SDMA_ENGINE1  # the process's page, at the place that is SDMA1's
    ring = ring_type(rig, doorbell, unit_bytes=4)
    data, table, mqd = rig.memory.take(), rig.memory.take(), rig.memory.take()
    for number, page in enumerate((ring.ring, data)):
        rig.memory.put(table + 8 * number, (page | 0x71, 0))
    control = rig.sdma(0, "QUEUE0_RB_CNTL").encode(RB_SIZE=ring.size_dwords.bit_length() - 1)
    packed = V11_SDMA_MQD.pack(sdmax_rlcx_rb_cntl=control, sdma_engine_id=1, sdma_queue_id=0)
    rig.card.vram_view(mqd, len(packed))[:] = packed
    assert mes.send(
        mes_v11.ADD_QUEUE,
        SchedulerOpcode.ADD_QUEUE,
        process_id=5,
        process_context_addr=1,
        page_table_base_addr=table,
        process_va_end=0x1FF,
        vm_context_cntl=1,
        doorbell_offset=doorbell,
        mqd_addr=rig.mc(mqd),
        wptr_addr=rig.mc(ring.wptr_copy),
        queue_type=QueueType.SDMA,
    )
    header = sdma.WRITE_UNTILED.encode(op=Opcode.WRITE, dst_addr=0x1000, count=0)
    ring.submit((*header[:4], 0x99))
    assert rig.wait(lambda: rig.memory.word(data) == 0x99)
    engine.run(engine.store(1))
    assert engine.words(1) == [1]
