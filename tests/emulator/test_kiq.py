"""The kernel interface queue: queues mapped and unmapped, registers read and written, fences, as gfx_v11_0.c asks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.facts import pm4
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD

COMPUTE = 0  # ENGINE_SEL


def wreg(register: int, value: int) -> tuple[int, ...]:
    """gfx_v11_0_ring_emit_wreg on the kernel interface queue."""
    return pm4.WRITE_DATA.build(value, NO_ADDR_INCR=1, ADDRESS=register)


def fence(address: int, value: int) -> tuple[int, ...]:
    """gfx_v11_0_ring_emit_fence_kiq."""
    return pm4.WRITE_DATA.build(value, DST_SEL=pm4.MemoryTarget.MEMORY, WR_CONFIRM=1, ADDRESS=address)


class Kernel:
    """What the tests need of a driver: the queue, and compute rings made ready for it."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        self.kiq = rig.start_kiq()
        rig.start_mec()
        self.place = rig.memory.take()

    def compute_ring(self, number: int = 0) -> tuple[Any, int]:
        ring = type(self.kiq)(self.rig, 2 * (Doorbell.MEC_RING0 + number))
        return ring, self.rig.compute_mqd(ring)

    def map(self, ring: Any, mqd: int, *, pipe: int = 0, queue: int = 0) -> None:
        self.kiq.submit(
            pm4.MAP_QUEUES.build(
                ME=1,
                PIPE=pipe,
                QUEUE=queue,
                ENGINE_SEL=COMPUTE,
                NUM_QUEUES=1,
                DOORBELL_OFFSET=ring.doorbell_dword,
                MQD_ADDR=self.rig.mc(mqd),
                WPTR_ADDR=self.rig.mc(ring.wptr_copy),
            )
        )
        assert self.rig.idle()

    def unmap(self, ring: Any, action: int, **fields: int) -> None:
        self.kiq.submit(
            pm4.UNMAP_QUEUES.build(
                ACTION=action, ENGINE_SEL=COMPUTE, NUM_QUEUES=1, DOORBELL_OFFSET0=ring.doorbell_dword, **fields
            )
        )

    def active(self, pipe: int = 0, queue: int = 0) -> int:
        self.rig.select(1, pipe, queue)
        return int(self.rig.read("CP_HQD_ACTIVE"))

    def store(self, value: int, offset: int = 0) -> tuple[int, ...]:
        return fence(self.rig.mc(self.place + offset), value)


@pytest.fixture
def kernel(rig: Any) -> Kernel:
    return Kernel(rig)


def test_ring_test_writes_the_scratch_register(kernel: Kernel) -> None:
    rig = kernel.rig
    rig.write("SCRATCH_REG0", 0xCAFEDEAD)
    kernel.kiq.submit(wreg(rig.register("SCRATCH_REG0").dword, 0xDEADBEEF))
    assert rig.wait(lambda: rig.read("SCRATCH_REG0") == 0xDEADBEEF)


def test_register_is_read_into_memory_before_the_fence(kernel: Kernel) -> None:
    rig = kernel.rig
    rig.write("SCRATCH_REG1", 0x12345678)
    rreg = pm4.COPY_DATA.build(
        DST_SEL=pm4.MemoryTarget.MEMORY,
        WR_CONFIRM=1,
        SRC=rig.register("SCRATCH_REG1").dword,
        DST=rig.mc(kernel.place),
    )
    kernel.kiq.submit(rreg, kernel.store(7, 8))
    assert rig.wait(lambda: rig.memory.word(kernel.place + 8) == 7)
    assert rig.memory.word(kernel.place) == 0x12345678


def test_fence_with_interrupt_asks_for_source_178(kernel: Kernel) -> None:
    rig = kernel.rig
    status = rig.register("CPC_INT_STATUS").dword
    kernel.kiq.submit(kernel.store(1), pm4.WRITE_DATA.build(0x2000_0000, WR_CONFIRM=1, ADDRESS=status))
    assert rig.idle()
    (entry,) = rig.interrupts()
    assert (entry["CLIENT_ID"], entry["SOURCE_ID"], entry["RING_ID"]) == (20, 178, 3 << 2 | 1)


def test_mapped_queue_runs_and_shows_as_active(kernel: Kernel) -> None:
    ring, mqd = kernel.compute_ring()
    kernel.map(ring, mqd, pipe=1, queue=2)
    assert kernel.active(1, 2) == 1
    ring.submit(kernel.store(9))
    assert kernel.rig.wait(lambda: kernel.rig.memory.word(kernel.place) == 9)


def test_work_that_waits_in_the_ring_runs_when_the_queue_is_mapped(kernel: Kernel) -> None:
    ring, mqd = kernel.compute_ring()
    ring.write(kernel.store(5))
    kernel.map(ring, mqd)
    assert kernel.rig.memory.word(kernel.place) == 5


def test_descriptor_without_its_header_hangs_the_queue_that_maps_it(kernel: Kernel) -> None:
    ring, mqd = kernel.compute_ring()
    kernel.rig.memory.put(mqd, (0,))
    kernel.map(ring, mqd)
    assert kernel.active() == 0
    (entry,) = kernel.rig.interrupts()
    assert entry["SOURCE_ID"] == 183  # CP_BAD_OPCODE_ERROR
    kernel.kiq.submit(kernel.store(1))
    assert kernel.rig.idle()
    assert kernel.rig.memory.word(kernel.place) == 0


def test_unmapped_queue_is_gone_and_its_pointers_are_in_its_descriptor(kernel: Kernel) -> None:
    rig = kernel.rig
    ring, mqd = kernel.compute_ring()
    kernel.map(ring, mqd)
    ring.submit(kernel.store(1))
    assert rig.idle()
    kernel.unmap(ring, pm4.UnmapAction.PREEMPT)
    assert rig.idle()
    assert kernel.active() == 0
    data = bytes(rig.card.vram_view(mqd, V11_COMPUTE_MQD.size_bytes))
    assert V11_COMPUTE_MQD.get(data, "cp_hqd_pq_rptr") == ring.wptr
    assert V11_COMPUTE_MQD.get(data, "cp_hqd_active") == 0
    ring.submit(kernel.store(2))
    assert rig.idle()
    assert rig.memory.word(kernel.place) == 1
    kernel.map(ring, mqd)
    assert rig.wait(lambda: rig.memory.word(kernel.place) == 2)


def test_reset_frees_a_queue_that_waits_for_ever(kernel: Kernel) -> None:
    rig = kernel.rig
    ring, mqd = kernel.compute_ring()
    kernel.map(ring, mqd)
    ring.submit(
        pm4.WAIT_REG_MEM.build(
            FUNCTION=pm4.CompareFunction.EQUAL, MEM_SPACE=1, ADDRESS=rig.mc(kernel.place), REFERENCE=1, MASK=1
        )
    )
    kernel.unmap(ring, pm4.UnmapAction.RESET)
    assert rig.idle()
    assert kernel.active() == 0


def test_preemption_without_unmapping_leaves_the_queue_and_writes_the_trailing_fence(kernel: Kernel) -> None:
    rig = kernel.rig
    ring, mqd = kernel.compute_ring()
    kernel.map(ring, mqd)
    kernel.unmap(ring, pm4.UnmapAction.PREEMPT_NO_UNMAP, FENCE_ADDR=rig.mc(kernel.place), FENCE_DATA=0x77)
    assert rig.idle()
    assert rig.memory.word(kernel.place) == 0x77
    assert kernel.active() == 1


def test_query_status_writes_a_64_bit_fence(kernel: Kernel) -> None:
    rig = kernel.rig
    kernel.kiq.submit(
        pm4.QUERY_STATUS.build(COMMAND=2, DOORBELL_OFFSET=6, ADDRESS=rig.mc(kernel.place), DATA=0x1_0000_0002)
    )
    assert rig.idle()
    assert rig.memory.word(kernel.place, 8) == 0x1_0000_0002


def test_set_resources_is_taken(kernel: Kernel) -> None:
    kernel.kiq.submit(pm4.SET_RESOURCES.build(UNMAP_LATENCY=0xA, QUEUE_MASK=0xFF), kernel.store(1))
    assert kernel.rig.wait(lambda: kernel.rig.memory.word(kernel.place) == 1)


def test_indirect_buffer_is_refused_by_the_schedulers_pipe(kernel: Kernel) -> None:
    kernel.kiq.submit(pm4.INDIRECT_BUFFER.build(IB_BASE=kernel.rig.mc(kernel.place), IB_SIZE=4), kernel.store(1, 64))
    assert kernel.rig.idle()
    assert kernel.rig.memory.word(kernel.place + 64) == 0


def test_tlbs_of_a_pasid_are_invalidated_through_the_table_of_vmids(kernel: Kernel) -> None:
    rig = kernel.rig
    table = rig.memory.take(1 << 16)
    pages = [rig.memory.take(), rig.memory.take()]
    rig.write("OSSSYS.IH_VMID_9_LUT", 0x8002)
    rig.write("GCVM_CONTEXT9_PAGE_TABLE_BASE_ADDR_LO32", table | 1)
    rig.write("GCVM_CONTEXT9_PAGE_TABLE_END_ADDR_LO32", 0x1FF)
    rig.write("GCVM_CONTEXT9_CNTL", rig.register("GCVM_CONTEXT9_CNTL").encode(ENABLE_CONTEXT=1))
    hub = rig.card.model(Gfxhub)
    for number, page in enumerate(pages):
        rig.memory.put(page, (number + 1,))
    rig.memory.put(table, (pages[0] | 0x71, 0))
    assert hub.view(9).read32(0) == 1
    rig.memory.put(table, (pages[1] | 0x71, 0))
    assert hub.view(9).read32(0) == 1  # cached
    kernel.kiq.submit(pm4.INVALIDATE_TLBS.build(INVALIDATE_SEL=1, PASID=0x8001))
    assert rig.idle()
    assert hub.view(9).read32(0) == 1  # another process
    kernel.kiq.submit(pm4.INVALIDATE_TLBS.build(INVALIDATE_SEL=1, PASID=0x8002))
    assert rig.idle()
    assert hub.view(9).read32(0) == 2


def test_stopped_pipe_executes_nothing(rig: Any) -> None:
    kiq = rig.start_kiq()
    rig.write("CP_MES_CNTL", rig.register("CP_MES_CNTL").encode(MES_PIPE0_ACTIVE=1, MES_HALT=1))
    kiq.submit(wreg(rig.register("SCRATCH_REG0").dword, 1))
    time.sleep(0.02)
    assert rig.read("SCRATCH_REG0") == 0


def test_firmware_version_is_read_per_pipe_and_only_when_it_runs(rig: Any) -> None:
    rig.select(3, 0)
    assert rig.read("CP_MES_GP3_LO") == 0
    rig.start_mes()
    for pipe in range(2):
        rig.select(3, pipe)
        version = rig.read("CP_MES_GP3_LO")
        assert version & 0xFFF >= 0x47
        assert version >> 12 & 0xFFF == 2


def test_queue_of_the_compute_engine_maps_others_once_it_is_named_as_the_kernels(rig: Any, ring_type: Any) -> None:
    """gfx_v11_0_kiq_resume without the scheduler: which queue it is, RLC_CP_SCHEDULERS says."""
    rig.start_mec()
    place = rig.memory.take()
    rig.write("RLC_CP_SCHEDULERS", 0x80 | 1 << 5 | 3 << 3 | 0)
    kiq, ring = ring_type(rig, 2 * Doorbell.KIQ), ring_type(rig, 2 * Doorbell.MEC_RING0)
    rig.activate((1, 3, 0), rig.compute_mqd(kiq))
    kiq.submit(
        pm4.SET_RESOURCES.build(UNMAP_LATENCY=0xA, QUEUE_MASK=1),
        pm4.MAP_QUEUES.build(
            ME=1,
            NUM_QUEUES=1,
            DOORBELL_OFFSET=ring.doorbell_dword,
            MQD_ADDR=rig.mc(rig.compute_mqd(ring)),
            WPTR_ADDR=rig.mc(ring.wptr_copy),
        ),
    )
    assert rig.idle()
    ring.submit(fence(rig.mc(place), 4))
    assert rig.wait(lambda: rig.memory.word(place) == 4)


def test_queue_that_is_not_named_so_maps_nothing(rig: Any, ring_type: Any) -> None:
    rig.start_mec()
    ring, other = ring_type(rig, 2 * Doorbell.KIQ), ring_type(rig, 2 * Doorbell.MEC_RING0)
    rig.activate((1, 3, 0), rig.compute_mqd(ring))
    mqd = rig.compute_mqd(other)
    ring.submit(pm4.MAP_QUEUES.build(ME=1, NUM_QUEUES=1, DOORBELL_OFFSET=6, MQD_ADDR=rig.mc(mqd)))
    assert rig.idle()
    rig.select(1, 0)
    assert rig.read("CP_HQD_ACTIVE") == 0
    assert [entry["SOURCE_ID"] for entry in rig.interrupts()] == [183]
