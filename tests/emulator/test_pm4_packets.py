"""Packets of a compute queue beyond the everyday ones: atomics, semaphores, chains, conditions, client buffers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from amdrv.facts import pm4
from amdrv.facts.atomics import AtomicOpcode

EQUAL = pm4.CompareFunction.EQUAL


class Queue:
    """A kernel's compute queue and a page of data."""

    def __init__(self, rig: Any, ring_type: Any) -> None:
        self.rig = rig
        rig.start_mec()
        self.ring = ring_type(rig, 0x20)
        rig.activate((1, 0, 0), rig.compute_mqd(self.ring))
        self.data = rig.memory.take()
        self.at = rig.mc(self.data)

    def run(self, *packets: tuple[int, ...]) -> None:
        self.ring.submit(*packets)
        assert self.rig.idle()

    def store(self, value: int, offset: int = 0) -> tuple[int, ...]:
        return pm4.WRITE_DATA.build(value, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=self.at + offset)

    def word(self, offset: int = 0, size_bytes: int = 4) -> int:
        return int(self.rig.memory.word(self.data + offset, size_bytes))

    def put(self, offset: int, *words: int) -> None:
        self.rig.memory.put(self.data + offset, words)

    def buffer(self, *packets: tuple[int, ...]) -> tuple[int, int]:
        """(VRAM offset, dwords) of a new buffer."""
        words = [word for packet in packets for word in packet]
        offset = self.rig.memory.take()
        self.rig.memory.put(offset, words)
        return offset, len(words)

    def call(self, buffer: tuple[int, int], **fields: int) -> tuple[int, ...]:
        offset, size = buffer
        return pm4.INDIRECT_BUFFER.build(**{"IB_BASE": self.rig.mc(offset), "IB_SIZE": size, "VALID": 1, **fields})


@pytest.fixture
def queue(rig: Any, ring_type: Any) -> Queue:
    return Queue(rig, ring_type)


def test_atomic_adds_once(queue: Queue) -> None:
    queue.put(0, 0xFFFF_FFFF, 1)
    queue.run(pm4.ATOMIC_MEM.build(ATOMIC=AtomicOpcode.ADD_RTN_64, ADDRESS=queue.at, SRC_DATA=2))
    assert queue.word(0, 8) == 0x2_0000_0001


def test_atomic_compare_and_swap_loops_until_it_succeeds(queue: Queue) -> None:
    packet = pm4.ATOMIC_MEM.build(
        ATOMIC=AtomicOpcode.CMPSWAP_RTN_32, COMMAND=1, ADDRESS=queue.at, SRC_DATA=9, CMP_DATA=5
    )
    queue.ring.submit(packet, queue.store(1, 8))
    time.sleep(0.02)
    assert (queue.word(), queue.word(8)) == (0, 0)
    queue.put(0, 5)
    assert queue.rig.idle()
    assert (queue.word(), queue.word(8)) == (9, 1)


def test_semaphore_is_taken_after_it_was_signalled(queue: Queue) -> None:
    queue.ring.submit(
        pm4.MEM_SEMAPHORE.build(ADDRESS=queue.at, SELECT=pm4.SEMAPHORE_WAIT), queue.store(1, 0x40)
    )
    time.sleep(0.02)
    assert queue.word(0x40) == 0
    queue.put(0, 1)
    assert queue.rig.idle()
    assert (queue.word(), queue.word(0x40)) == (0, 1)
    queue.run(pm4.MEM_SEMAPHORE.build(ADDRESS=queue.at, SELECT=pm4.SEMAPHORE_SIGNAL))
    assert queue.word() == 1


def test_chain_is_a_jump_and_nothing_behind_it_runs(queue: Queue) -> None:
    last = queue.buffer(queue.store(2, 4))
    first = queue.buffer(queue.store(1), queue.call(last, CHAIN=1), queue.store(9, 8))
    queue.run(queue.call(first), queue.store(3, 12))
    assert [queue.word(offset) for offset in (0, 4, 8, 12)] == [1, 2, 0, 3]


def test_call_inside_a_buffer_returns(queue: Queue) -> None:
    inner = queue.buffer(queue.store(2, 4))
    outer = queue.buffer(queue.store(1), queue.call(inner), queue.store(9, 8))
    queue.run(queue.call(outer))
    assert [queue.word(offset) for offset in (0, 4, 8)] == [1, 2, 9]


def test_third_level_of_calls_is_refused(queue: Queue) -> None:
    third = queue.buffer(queue.store(3))
    second = queue.buffer(queue.call(third))
    first = queue.buffer(queue.call(second))
    queue.run(queue.call(first))
    assert queue.word() == 0
    assert [entry["SOURCE_ID"] for entry in queue.rig.interrupts()] == [183]


@pytest.mark.parametrize(("value", "mode", "expected"), [(5, 1, 1), (6, 1, 0), (5, 2, 1), (6, 2, 2)])
def test_conditional_buffer_runs_what_the_comparison_selects(
    queue: Queue, value: int, mode: int, expected: int
) -> None:
    yes, no = queue.buffer(queue.store(1, 8)), queue.buffer(queue.store(2, 8))
    queue.put(0, value)
    queue.run(
        pm4.COND_INDIRECT_BUFFER.build(
            MODE=mode,
            FUNCTION=EQUAL,
            COMPARE_ADDRESS=queue.at,
            MASK=0xFF,
            REFERENCE=5,
            IB1_BASE=queue.rig.mc(yes[0]),
            IB1_SIZE=yes[1],
            IB2_BASE=queue.rig.mc(no[0]),
            IB2_SIZE=no[1],
        )
    )
    assert queue.word(8) == expected


def test_rewind_stops_until_its_flag_is_set(queue: Queue) -> None:
    at = queue.ring.wptr
    queue.ring.submit(pm4.REWIND.build(), queue.store(1))
    time.sleep(0.02)
    assert queue.word() == 0
    queue.rig.memory.put(queue.ring.ring + 4 * (at + 1), (1 << 31,))
    assert queue.rig.wait(lambda: queue.word() == 1)


def test_write_then_wait_writes_its_register_once(queue: Queue) -> None:
    """The TLB flush of a ring (gmc_v11_0_emit_flush_gpu_tlb): a second request would clear the acknowledge again."""
    rig = queue.rig
    for part, value in (("LO32", 0xFFFF_FFFF), ("HI32", 0x1F)):
        rig.write(f"GCVM_INVALIDATE_ENG6_ADDR_RANGE_{part}", value)
    request, acknowledge = rig.register("GCVM_INVALIDATE_ENG6_REQ"), rig.register("GCVM_INVALIDATE_ENG6_ACK")
    value = request.encode(PER_VMID_INVALIDATE_REQ=2, INVALIDATE_L2_PTES=1, INVALIDATE_L1_PTES=1)
    queue.run(
        pm4.WAIT_REG_MEM.build(
            FUNCTION=EQUAL,
            OPERATION=1,
            ADDRESS=acknowledge.dword << 32 | request.dword,
            REFERENCE=value,
            MASK=2,
        ),
        queue.store(1),
    )
    assert queue.word() == 1


def test_buffer_of_a_client_sees_its_address_space_and_no_privileged_register(queue: Queue) -> None:
    rig = queue.rig
    table = rig.memory.take()
    body = queue.buffer(
        pm4.WRITE_DATA.build(7, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=0x1010),
        pm4.WRITE_DATA.build(1, ADDRESS=rig.register("GCVM_CONTEXT0_CNTL").dword),
    )
    for number, page in enumerate((body[0], queue.data)):
        rig.memory.put(table + 8 * number, (page | 0x71, 0))
    rig.write("GCVM_CONTEXT3_PAGE_TABLE_BASE_ADDR_LO32", table | 1)
    rig.write("GCVM_CONTEXT3_PAGE_TABLE_END_ADDR_LO32", 0x1FF)
    rig.write("GCVM_CONTEXT3_CNTL", rig.register("GCVM_CONTEXT3_CNTL").encode(ENABLE_CONTEXT=1))
    before = rig.read("GCVM_CONTEXT0_CNTL")
    queue.run(pm4.INDIRECT_BUFFER.build(IB_BASE=0, IB_SIZE=body[1], VALID=1, VMID=3))
    assert queue.word(0x10) == 7
    assert rig.read("GCVM_CONTEXT0_CNTL") == before
    (entry,) = rig.interrupts()
    assert (entry["SOURCE_ID"], entry["VMID"]) == (184, 3)


@pytest.mark.parametrize(("data", "interrupts"), [(4, 1), (5, 0)])
def test_fence_interrupts_only_when_what_is_there_compares(queue: Queue, data: int, interrupts: int) -> None:
    queue.put(0, 4)
    queue.run(
        pm4.RELEASE_MEM.build(
            EVENT_TYPE=pm4.Event.BOTTOM_OF_PIPE_TS,
            EVENT_INDEX=pm4.EventIndex.END_OF_PIPE,
            INT_SEL=pm4.InterruptSelect.CONTEXT_ID_IF_32,
            ADDRESS=queue.at,
            DATA=data,
            INT_CTXID=3,
        )
    )
    assert len(queue.rig.interrupts()) == interrupts


def test_fence_leaves_an_entry_in_the_eop_buffer_before_it_is_written(queue: Queue) -> None:
    rig = queue.rig
    buffer = rig.memory.take()
    rig.select(1, 0)
    rig.write("CP_HQD_EOP_BASE_ADDR", rig.mc(buffer) >> 8 & 0xFFFF_FFFF)
    rig.write("CP_HQD_EOP_BASE_ADDR_HI", rig.mc(buffer) >> 40)
    rig.write("CP_HQD_EOP_CONTROL", 3)  # 16 dwords
    for number in range(3):
        queue.run(_fence(queue.at, number + 1))
    assert queue.word() == 3
    assert rig.register("CP_HQD_EOP_WPTR").decode(rig.read("CP_HQD_EOP_WPTR")).WPTR == 8  # around once
    assert rig.memory.word(buffer + 20) == 3  # the third entry has taken the first one's place


def test_eop_buffer_that_is_not_mapped_faults_and_no_fence_is_written(queue: Queue) -> None:
    rig = queue.rig
    rig.select(1, 0)
    rig.write("CP_HQD_EOP_BASE_ADDR", 0x70)
    queue.run(_fence(queue.at, 1))
    assert queue.word() == 0
    assert rig.read("GCVM_L2_PROTECTION_FAULT_ADDR_LO32") == 7


@pytest.mark.parametrize(("index", "written"), [(5, 1), (6, 1), (0, 0), (4, 0)])
def test_fence_of_no_kind_is_a_bad_packet(queue: Queue, index: int, written: int) -> None:
    """The headers know 5, the end of the pipe, and 6, the end of a shader."""
    queue.run(_fence(queue.at, 1, index))
    assert queue.word() == written
    assert [entry["SOURCE_ID"] for entry in queue.rig.interrupts()] == ([] if written else [183])  # CP_BAD_OPCODE_ERROR


def _fence(address: int, value: int, index: int = pm4.EventIndex.END_OF_PIPE) -> tuple[int, ...]:
    return pm4.RELEASE_MEM.build(
        EVENT_TYPE=pm4.Event.CACHE_FLUSH_AND_INV_TS_EVENT,
        EVENT_INDEX=index,
        DATA_SEL=pm4.DataSelect.LOW_32,
        ADDRESS=address,
        DATA=value,
    )


def test_clock_of_a_fence_is_the_cards(queue: Queue) -> None:
    queue.run(
        pm4.RELEASE_MEM.build(
            EVENT_TYPE=pm4.Event.BOTTOM_OF_PIPE_TS,
            EVENT_INDEX=pm4.EventIndex.END_OF_PIPE,
            DATA_SEL=pm4.DataSelect.GPU_CLOCK,
            ADDRESS=queue.at,
        )
    )
    assert 0 < queue.word(0, 8) <= queue.rig.card.realtime()
