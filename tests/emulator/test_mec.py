"""The compute engine without a driver: activation, doorbells, packets, dequeue, and what stops a queue."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.models.mec_11_0 import DEQUEUE_DRAIN, DEQUEUE_RESET_WAVES, MQD_HEADER, Mec
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.shell import Card
from amdrv.facts import pm4
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD

MIB = 1 << 20
RING, MQD, DATA, BUFFER, RPTR = 0x10_0000, 0x20_0000, 0x30_0000, 0x40_0000, 0x50_0000
RING_DWORDS = 64
DOORBELL_DWORD = 0x50
WAIT_S = 5.0


class Bench:
    """A card whose compute engine runs, with one queue whose ring and data lie in VRAM."""

    def __init__(self) -> None:
        self.card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
        self.gc = self.card.registers.gc
        self.mec = self.card.model(Mec)
        self.card.model(Rlc).autoload()
        self.card.sleep(0.1)
        self.fb = self.card.chip.fb_base
        self.write("GRBM_GFX_CNTL", self.gc.GRBM_GFX_CNTL.encode(MEID=1))
        self.write("CP_MEC_RS64_PRGRM_CNTR_START", 0x1000)
        self.write("CP_MEC_RS64_CNTL", self.gc.CP_MEC_RS64_CNTL.encode(MEC_PIPE0_ACTIVE=1))
        self.write("CP_MEC_DOORBELL_RANGE_LOWER", 0)
        self.wptr = 0

    def write(self, name: str, value: int) -> None:
        self.card.write_register(self.gc[name].address, value)

    def read(self, name: str) -> int:
        return self.card.read_register(self.gc[name].address)

    def activate(self, **changed: int) -> None:
        base = self.fb + RING >> 8
        registers = {
            "cp_hqd_pq_base_lo": base & 0xFFFF_FFFF,
            "cp_hqd_pq_base_hi": base >> 32,
            "cp_hqd_pq_control": self.gc.CP_HQD_PQ_CONTROL.encode(QUEUE_SIZE=RING_DWORDS.bit_length() - 2),
            "cp_hqd_pq_doorbell_control": self.gc.CP_HQD_PQ_DOORBELL_CONTROL.encode(
                DOORBELL_OFFSET=DOORBELL_DWORD, DOORBELL_EN=1
            ),
        }
        mqd = V11_COMPUTE_MQD.pack(**{"header": MQD_HEADER, **registers, **changed})
        self.card.vram_view(MQD, len(mqd))[:] = mqd
        report = self.fb + RPTR
        for name, value in {
            "CP_MQD_BASE_ADDR": self.fb + MQD & 0xFFFF_FFFF,
            "CP_MQD_BASE_ADDR_HI": self.fb + MQD >> 32,
            "CP_HQD_PQ_BASE": registers["cp_hqd_pq_base_lo"],
            "CP_HQD_PQ_BASE_HI": registers["cp_hqd_pq_base_hi"],
            "CP_HQD_PQ_CONTROL": registers["cp_hqd_pq_control"],
            "CP_HQD_PQ_DOORBELL_CONTROL": registers["cp_hqd_pq_doorbell_control"],
            "CP_HQD_PQ_RPTR_REPORT_ADDR": report & 0xFFFF_FFFF,
            "CP_HQD_PQ_RPTR_REPORT_ADDR_HI": report >> 32,
            "CP_HQD_PQ_RPTR": 0,
            "CP_HQD_PQ_WPTR_LO": 0,
            "CP_HQD_DEQUEUE_REQUEST": 0,
            "CP_HQD_ACTIVE": 1,
        }.items():
            self.write(name, value)
        self.wptr = 0

    def put(self, offset: int, words: tuple[int, ...]) -> None:
        for index, word in enumerate(words):
            self.card.vram_view(offset + 4 * index, 4)[:] = word.to_bytes(4, "little")

    def submit(self, *packets: tuple[int, ...], offset: int = 4 * DOORBELL_DWORD) -> None:
        for packet in packets:
            for word in packet:
                self.put(RING + 4 * (self.wptr % RING_DWORDS), (word,))
                self.wptr += 1
        with self.card.lock:
            self.mec.doorbell(offset, 8, self.wptr)

    def data(self, index: int = 0) -> int:
        return int.from_bytes(self.card.vram_view(DATA + 4 * index, 4), "little")

    def wait(self, check: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + WAIT_S
        while not check():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def idle(self) -> bool:
        return self.wait(lambda: not self.card.worker.busy)

    def write_data(self, index: int, *values: int) -> tuple[int, ...]:
        return pm4.WRITE_DATA.build(*values, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=self.fb + DATA + 4 * index)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.activate()
    return bench


def test_queue_runs_what_the_doorbell_covers_and_reports_its_read_pointer(bench: Bench) -> None:
    bench.submit(bench.write_data(0, 7, 8))
    assert bench.idle()
    assert (bench.data(0), bench.data(1)) == (7, 8)
    assert int.from_bytes(bench.card.vram_view(RPTR, 4), "little") == bench.wptr


def test_ring_wraps(bench: Bench) -> None:
    for value in range(40):
        bench.submit(bench.write_data(value, value + 1))
        assert bench.idle()
    assert bench.wptr > 2 * RING_DWORDS
    assert [bench.data(index) for index in range(40)] == list(range(1, 41))


def test_doorbell_outside_the_range_or_of_another_queue_starts_nothing(bench: Bench) -> None:
    bench.submit(bench.write_data(0, 7), offset=4 * DOORBELL_DWORD + 8)
    bench.write("CP_MEC_DOORBELL_RANGE_UPPER", 0x40)
    bench.submit(offset=4 * DOORBELL_DWORD)
    assert not bench.card.worker.busy
    assert bench.data() == 0


@pytest.mark.parametrize(
    "changed",
    [{"header": 0}, {"cp_hqd_pq_base_lo": 1}, {"cp_hqd_pq_control": 0x3F}, {"cp_hqd_vmid": 3}],
    ids=lambda changed: next(iter(changed)),
)
def test_descriptor_that_memory_contradicts_is_not_connected(changed: dict[str, int]) -> None:
    bench = Bench()
    bench.activate(**changed)
    assert bench.read("CP_HQD_ACTIVE") == 0
    assert bench.read("CP_HQD_ERROR") != 0


def test_halted_engine_connects_nothing() -> None:
    bench = Bench()
    bench.write("CP_MEC_RS64_CNTL", bench.gc.CP_MEC_RS64_CNTL.encode(MEC_HALT=1, MEC_PIPE0_ACTIVE=1))
    bench.activate()
    assert bench.read("CP_HQD_ACTIVE") == 0


def test_wait_reg_mem_holds_the_queue_until_memory_changes(bench: Bench) -> None:
    bench.submit(
        pm4.WAIT_REG_MEM.build(
            FUNCTION=pm4.CompareFunction.EQUAL,
            MEM_SPACE=1,
            ADDRESS=bench.fb + BUFFER,
            REFERENCE=5,
            MASK=0xFF,
        ),
        bench.write_data(0, 1),
    )
    time.sleep(0.02)
    assert bench.card.worker.busy
    assert bench.data() == 0
    bench.put(BUFFER, (0x105,))
    assert bench.idle()
    assert bench.data() == 1


def test_one_waiting_queue_does_not_stop_another(bench: Bench) -> None:
    wait = pm4.WAIT_REG_MEM.build(
        FUNCTION=pm4.CompareFunction.EQUAL, MEM_SPACE=1, ADDRESS=bench.fb + BUFFER, REFERENCE=1, MASK=1
    )
    bench.submit(wait)
    bench.write("GRBM_GFX_CNTL", bench.gc.GRBM_GFX_CNTL.encode(MEID=1, QUEUEID=1))
    bench.activate()
    # The two share a ring; the second begins where the first has nothing, so that neither changes the other's packets.
    bench.put(RING + 4 * 20, bench.write_data(0, 9))
    with bench.card.lock:
        state = bench.mec.queues[(1, 0, 1)]
        state.processor.rptr, state.wptr = 20, 25
        bench.mec.start((1, 0, 1), state)
    assert bench.wait(lambda: bench.data() == 9)
    assert bench.card.worker.busy


def test_release_mem_writes_the_fence_after_everything_before_it(bench: Bench) -> None:
    bench.submit(
        bench.write_data(0, 3),
        pm4.RELEASE_MEM.build(
            EVENT_TYPE=pm4.Event.CACHE_FLUSH_AND_INV_TS_EVENT,
            EVENT_INDEX=pm4.EventIndex.END_OF_PIPE,
            DATA_SEL=pm4.DataSelect.ALL_64,
            ADDRESS=bench.fb + DATA + 8,
            DATA=0x1_0000_0002,
        ),
    )
    assert bench.idle()
    assert (bench.data(0), bench.data(2), bench.data(3)) == (3, 2, 1)


def test_clock_copied_by_the_engine_moves_on(bench: Bench) -> None:
    copy = [
        pm4.COPY_DATA.build(
            SRC_SEL=pm4.CopySource.GPU_CLOCK,
            DST_SEL=pm4.MemoryTarget.MEMORY,
            COUNT_SEL=1,
            DST=bench.fb + DATA + 8 * number,
        )
        for number in range(2)
    ]
    bench.submit(copy[0])
    assert bench.idle()
    bench.card.sleep(1e-3)
    bench.submit(copy[1])
    assert bench.idle()
    assert bench.data(2) - bench.data(0) >= 100_000  # 100 MHz


def test_indirect_buffer_runs_and_returns(bench: Bench) -> None:
    body = bench.write_data(0, 4)
    bench.put(BUFFER, body)
    bench.submit(pm4.INDIRECT_BUFFER.build(IB_BASE=bench.fb + BUFFER, IB_SIZE=len(body)), bench.write_data(1, 5))
    assert bench.idle()
    assert (bench.data(0), bench.data(1)) == (4, 5)


@pytest.mark.parametrize(("flag", "expected"), [(0, 0), (1, 6)])
def test_cond_exec_skips_when_the_dword_is_zero(bench: Bench, flag: int, expected: int) -> None:
    bench.put(BUFFER, (flag,))
    skipped = bench.write_data(0, 6)
    bench.submit(
        pm4.COND_EXEC.build(ADDRESS=bench.fb + BUFFER, EXEC_COUNT=len(skipped)), skipped, bench.write_data(1, 1)
    )
    assert bench.idle()
    assert (bench.data(0), bench.data(1)) == (expected, 1)


@pytest.mark.parametrize(
    "packet",
    [(pm4.header(pm4.Opcode.MAP_QUEUES, 6), 0, 0, 0, 0, 0, 0), (pm4.header(0xFE, 1), 0), (0x4000_0000,)],
    ids=["not for compute", "unknown opcode", "type 1"],
)
def test_bad_packet_hangs_its_queue_until_waves_are_reset(bench: Bench, packet: tuple[int, ...]) -> None:
    bench.submit(packet, bench.write_data(0, 1))
    assert bench.idle()
    assert bench.data() == 0
    bench.write("CP_HQD_DEQUEUE_REQUEST", DEQUEUE_DRAIN)
    bench.card.sleep(1e-3)
    assert bench.read("CP_HQD_ACTIVE") == 1
    bench.write("CP_HQD_DEQUEUE_REQUEST", DEQUEUE_RESET_WAVES)
    bench.card.sleep(1e-3)
    assert bench.read("CP_HQD_ACTIVE") == 0
    bench.activate()
    bench.submit(bench.write_data(0, 2))
    assert bench.idle()
    assert bench.data() == 2


def test_ring_without_memory_latches_a_fault_of_the_packet_processor(bench: Bench) -> None:
    bench.submit(pm4.WRITE_DATA.build(1, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=0x7000))
    assert bench.idle()
    status = bench.gc.GCVM_L2_PROTECTION_FAULT_STATUS.decode(bench.read("GCVM_L2_PROTECTION_FAULT_STATUS"))
    assert (status.CID, status.RW) == (5, 1)
    assert bench.read("GCVM_L2_PROTECTION_FAULT_ADDR_LO32") == 7


def test_queue_activated_after_a_soft_reset_does_not_inherit_the_old_one(bench: Bench) -> None:
    bench.submit(
        pm4.WAIT_REG_MEM.build(
            FUNCTION=pm4.CompareFunction.EQUAL, MEM_SPACE=1, ADDRESS=bench.fb + BUFFER, REFERENCE=1, MASK=1
        )
    )
    bench.write("GRBM_SOFT_RESET", bench.gc.GRBM_SOFT_RESET.encode(SOFT_RESET_CP=1))
    bench.activate()
    bench.submit(bench.write_data(0, 3))
    assert bench.wait(lambda: bench.data() == 3)


def test_reading_a_queue_by_bank_select_shows_only_that_queue(bench: Bench) -> None:
    assert bench.read("CP_HQD_ACTIVE") == 1
    bench.write("GRBM_GFX_CNTL", bench.gc.GRBM_GFX_CNTL.encode(MEID=1, QUEUEID=3))
    assert bench.read("CP_HQD_ACTIVE") == 0


def test_dispatch_with_every_compute_unit_masked_off_starts_no_wave(bench: Bench) -> None:
    bench.submit(
        pm4.DISPATCH_DIRECT.build(
            DIM_X=1,
            DIM_Y=1,
            DIM_Z=1,
            DISPATCH_INITIATOR=bench.gc.COMPUTE_DISPATCH_INITIATOR.encode(COMPUTE_SHADER_EN=1),
        ),
        bench.write_data(0, 1),
    )
    assert bench.idle()
    assert bench.data() == 1
    assert bench.mec.stats.waves == 0
