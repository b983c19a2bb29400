"""The scheduler: kernel queues mapped for the driver, processes with their address spaces, register accesses."""

from __future__ import annotations

import time
from typing import Any

import pytest

from amdrv.facts import mes_v11, pm4
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.mes_v11 import MiscOpcode, QueueType, SchedulerOpcode, WaitOperation
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD

VMIDS = 0xFF00  # what Linux gives to processes
CONTEXT, GANG = 0x1000, 0x2000
USER_DOORBELL = 0x1000  # dword: the first page that belongs to a process


class Driver:
    """The scheduler with its resources, and processes that are one page table of 512 pages each."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        self.mes = rig.start_scheduler()
        rig.start_mec()
        self.place = rig.memory.take()
        masks = {f"compute_hqd_mask_{pipe}": 0xC for pipe in range(4)}
        opcode = SchedulerOpcode.SET_HW_RSRC
        assert self.mes.send(mes_v11.SET_HW_RESOURCES, opcode, vmid_mask_gfxhub=VMIDS, sdma_hqd_mask_0=0xFC, **masks)

    def ring_type(self) -> Any:
        return type(self.mes.ring)

    def legacy(self, number: int = 0) -> tuple[Any, int]:
        """A kernel's compute ring that the scheduler has mapped."""
        ring = self.ring_type()(self.rig, 2 * (Doorbell.MEC_RING0 + number))
        mqd = self.rig.compute_mqd(ring)
        assert self.add(ring, mqd, map_legacy_kq=1, pipe_id=number, queue_id=0)
        return ring, mqd

    def add(self, ring: Any, mqd: int, **fields: int) -> bool:
        values = {
            "doorbell_offset": ring.doorbell_dword,
            "mqd_addr": self.rig.mc(mqd),
            "wptr_addr": self.rig.mc(ring.wptr_copy),
            "queue_type": QueueType.COMPUTE,
        }
        return bool(self.mes.send(mes_v11.ADD_QUEUE, SchedulerOpcode.ADD_QUEUE, **(values | fields)))

    def remove(self, doorbell: int, **fields: int) -> bool:
        opcode = SchedulerOpcode.REMOVE_QUEUE
        return bool(self.mes.send(mes_v11.REMOVE_QUEUE, opcode, doorbell_offset=doorbell, **fields))

    def misc(self, opcode: int, **fields: int) -> bool:
        return bool(self.mes.send(mes_v11.MISC, SchedulerOpcode.MISC, opcode=opcode, **fields))

    def address_space(self, *pages: int) -> int:
        """A page table whose first pages are these VRAM offsets."""
        table = self.rig.memory.take()
        for number, page in enumerate(pages):
            self.rig.memory.put(table + 8 * number, (page | 0x71, 0))
        return table

    def process_queue(self, number: int = 0, *, context: int = CONTEXT, pasid: int = 0x8001, **fields: int) -> Any:
        """A queue of a process: ring at page 0 and data at page 1 of its own address space."""
        ring = self.ring_type()(self.rig, USER_DOORBELL + 2 * number)
        ring.data = self.rig.memory.take()
        ring.table = self.address_space(ring.ring, ring.data)
        ring.mqd = self.rig.compute_mqd(
            ring,
            base=0,
            cp_hqd_pq_rptr_report_addr_lo=0,
            cp_hqd_pq_rptr_report_addr_hi=0,
            cp_hqd_pq_doorbell_control=ring.doorbell_dword << 2,
            cp_hqd_pq_control=self.rig.register("CP_HQD_PQ_CONTROL").encode(QUEUE_SIZE=7),
        )
        control = self.rig.register("GCVM_CONTEXT8_CNTL").encode(ENABLE_CONTEXT=1)
        ring.added = self.add(
            ring,
            ring.mqd,
            process_id=pasid,
            process_context_addr=context,
            gang_context_addr=GANG + number,
            page_table_base_addr=ring.table,
            process_va_end=0x1FF,
            vm_context_cntl=control,
            is_kfd_process=1,
            **fields,
        )
        return ring

    def store(self, value: int, va: int) -> tuple[int, ...]:
        return pm4.WRITE_DATA.build(value, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=va)


@pytest.fixture
def driver(rig: Any) -> Driver:
    return Driver(rig)


def test_message_and_query_are_answered_by_their_fences(driver: Driver) -> None:
    assert driver.mes.send(mes_v11.QUERY_MES_STATUS, SchedulerOpcode.QUERY_SCHEDULER_STATUS)


@pytest.mark.parametrize(
    "word", [0x0000_0002, 1 | 250 << 4 | 64 << 12, 1 | 11 << 4 | 63 << 12], ids=["type", "opcode", "size"]
)
def test_frame_that_is_none_hangs_the_scheduler(driver: Driver, word: int) -> None:
    driver.mes.ring.submit((word, *(0,) * 63))
    assert driver.rig.idle()
    assert not driver.mes.send(mes_v11.QUERY_MES_STATUS, SchedulerOpcode.QUERY_SCHEDULER_STATUS)


def test_kernel_queue_is_mapped_where_the_message_says(driver: Driver) -> None:
    rig = driver.rig
    ring, _ = driver.legacy(2)
    rig.select(1, 2)
    assert rig.read("CP_HQD_ACTIVE") == 1
    ring.submit(driver.store(3, rig.mc(driver.place)))
    assert rig.wait(lambda: rig.memory.word(driver.place) == 3)


def test_kernel_queue_is_unmapped_by_its_doorbell(driver: Driver) -> None:
    rig = driver.rig
    ring, _ = driver.legacy()
    assert driver.remove(ring.doorbell_dword, unmap_legacy_queue=1, queue_type=QueueType.COMPUTE)
    rig.select(1, 0)
    assert rig.read("CP_HQD_ACTIVE") == 0
    ring.submit(driver.store(3, rig.mc(driver.place)))
    assert rig.idle()
    assert rig.memory.word(driver.place) == 0


def test_removing_a_queue_that_nobody_added_is_never_answered(driver: Driver) -> None:
    assert not driver.remove(0x50)


def test_registers_are_written_and_read_for_the_driver(driver: Driver) -> None:
    rig = driver.rig
    scratch = rig.register("SCRATCH_REG3").dword
    assert driver.misc(MiscOpcode.WRITE_REG, write_reg_reg_offset=scratch, write_reg_reg_value=0x5678)
    assert rig.read("SCRATCH_REG3") == 0x5678
    assert driver.misc(
        MiscOpcode.READ_REG, read_reg_reg_offset=scratch, read_reg_buffer_addr=rig.mc(driver.place)
    )
    assert rig.memory.word(driver.place) == 0x5678


def test_tlb_flush_by_write_and_wait_is_answered(driver: Driver) -> None:
    """gmc_v11_0_flush_gpu_tlb once the scheduler runs: request to the ring engine, wait for its acknowledge."""
    rig = driver.rig
    for part, value in (("LO32", 0xFFFF_FFFF), ("HI32", 0x1F)):
        rig.write(f"GCVM_INVALIDATE_ENG3_ADDR_RANGE_{part}", value)
    request = rig.register("GCVM_INVALIDATE_ENG3_REQ")
    assert driver.misc(
        MiscOpcode.WAIT_REG_MEM,
        wait_reg_mem_op=WaitOperation.WR_WAIT_WR_REG,
        wait_reg_mem_reference=request.encode(
            PER_VMID_INVALIDATE_REQ=1 << 3, INVALIDATE_L2_PTES=1, INVALIDATE_L1_PTES=1
        ),
        wait_reg_mem_mask=1 << 3,
        wait_reg_mem_reg_offset1=request.dword,
        wait_reg_mem_reg_offset2=rig.register("GCVM_INVALIDATE_ENG3_ACK").dword,
    )


def test_waiting_for_a_register_holds_the_answer_back_until_it_changes(driver: Driver) -> None:
    rig = driver.rig
    rig.write("SCRATCH_REG4", 0)
    fence = rig.mc(driver.place)
    frame = driver.mes.frame(
        mes_v11.MISC,
        SchedulerOpcode.MISC,
        fence,
        1,
        opcode=MiscOpcode.WAIT_REG_MEM,
        wait_reg_mem_reference=5,
        wait_reg_mem_mask=0xFF,
        wait_reg_mem_reg_offset1=rig.register("SCRATCH_REG4").dword,
    )
    driver.mes.ring.submit(frame)
    time.sleep(0.02)
    assert rig.memory.word(driver.place) == 0
    rig.write("SCRATCH_REG4", 0x105)
    assert rig.wait(lambda: rig.memory.word(driver.place) == 1)


def test_process_queue_runs_in_its_own_address_space(driver: Driver) -> None:
    rig = driver.rig
    ring = driver.process_queue()
    assert ring.added
    ring.submit(driver.store(0xABCD, 0x1000))
    assert rig.wait(lambda: rig.memory.word(ring.data) == 0xABCD)


def test_process_gets_a_vmid_of_the_mask_and_its_pasid_is_in_the_table(driver: Driver) -> None:
    rig = driver.rig
    ring = driver.process_queue(pasid=0x8123)
    vmids = [vmid for vmid in range(16) if rig.read(f"OSSSYS.IH_VMID_{vmid}_LUT") == 0x8123]
    assert len(vmids) == 1
    assert VMIDS >> vmids[0] & 1
    assert rig.read(f"GCVM_CONTEXT{vmids[0]}_PAGE_TABLE_BASE_ADDR_LO32") & ~1 == ring.table


def test_two_processes_have_different_vmids_and_do_not_see_each_other(driver: Driver) -> None:
    rig = driver.rig
    first = driver.process_queue(0, context=1, pasid=0x11)
    second = driver.process_queue(1, context=2, pasid=0x22)
    first.submit(driver.store(1, 0x1000))
    second.submit(driver.store(2, 0x1000))
    assert rig.idle()
    assert (rig.memory.word(first.data), rig.memory.word(second.data)) == (1, 2)


def test_interrupt_of_a_process_queue_carries_its_pasid(driver: Driver) -> None:
    rig = driver.rig
    ring = driver.process_queue(pasid=0x8042)
    ring.submit(
        pm4.RELEASE_MEM.build(
            EVENT_TYPE=pm4.Event.CACHE_FLUSH_AND_INV_TS_EVENT,
            EVENT_INDEX=pm4.EventIndex.END_OF_PIPE,
            DATA_SEL=pm4.DataSelect.LOW_32,
            INT_SEL=pm4.InterruptSelect.AFTER_WRITE_CONFIRM,
            ADDRESS=0x1000,
            DATA=1,
            INT_CTXID=0x77,
        )
    )
    assert rig.idle()
    (entry,) = rig.interrupts()
    assert (entry["PASID"], entry["SOURCE_ID"], entry["DATA0"]) == (0x8042, 181, 0x77)
    assert VMIDS >> entry["VMID"] & 1


def test_interrupts_of_a_pipe_are_switched_by_either_of_its_registers(driver: Driver) -> None:
    """amdgpu writes CP_ME1_PIPEn_INT_CNTL, amdkfd selects the pipe and writes CPC_INT_CNTL."""
    rig = driver.rig
    ring, _ = driver.legacy(1)
    fence = pm4.RELEASE_MEM.build(
        EVENT_TYPE=pm4.Event.CACHE_FLUSH_AND_INV_TS_EVENT,
        EVENT_INDEX=pm4.EventIndex.END_OF_PIPE,
        INT_SEL=pm4.InterruptSelect.ONLY,
    )
    rig.write("CP_ME1_PIPE1_INT_CNTL", 0)
    ring.submit(fence)
    assert rig.idle()
    assert rig.interrupts() == []
    rig.select(1, 1)
    rig.write("CPC_INT_CNTL", rig.register("CPC_INT_CNTL").encode(TIME_STAMP_INT_ENABLE=1))
    ring.submit(fence)
    assert rig.idle()
    assert [entry["SOURCE_ID"] for entry in rig.interrupts()] == [181]


def test_process_queue_must_not_touch_registers_outside_its_windows(driver: Driver) -> None:
    rig = driver.rig
    ring = driver.process_queue()
    before = rig.read("GCVM_CONTEXT0_CNTL")
    ring.submit(pm4.WRITE_DATA.build(before ^ 1, ADDRESS=rig.register("GCVM_CONTEXT0_CNTL").dword))
    assert rig.idle()
    assert rig.read("GCVM_CONTEXT0_CNTL") == before
    (entry,) = rig.interrupts()
    assert entry["SOURCE_ID"] == 184  # CP_PRIV_REG_FAULT


def test_page_that_a_process_has_not_mapped_faults_with_its_vmid(driver: Driver) -> None:
    rig = driver.rig
    ring = driver.process_queue()
    ring.submit(driver.store(1, 0x5000))
    assert rig.idle()
    status = rig.register("GCVM_L2_PROTECTION_FAULT_STATUS").decode(rig.read("GCVM_L2_PROTECTION_FAULT_STATUS"))
    assert VMIDS >> status.VMID & 1
    assert rig.read("GCVM_L2_PROTECTION_FAULT_ADDR_LO32") == 5


def test_removed_process_queue_goes_on_where_it_was_when_added_again(driver: Driver) -> None:
    rig = driver.rig
    ring = driver.process_queue()
    ring.submit(driver.store(1, 0x1000))
    assert rig.idle()
    assert driver.remove(ring.doorbell_dword, gang_context_addr=GANG)
    data = bytes(rig.card.vram_view(ring.mqd, V11_COMPUTE_MQD.size_bytes))
    assert V11_COMPUTE_MQD.get(data, "cp_hqd_pq_rptr") == ring.wptr
    ring.submit(driver.store(2, 0x1000))  # the doorbell of an unmapped queue is lost
    assert rig.idle()
    assert rig.memory.word(ring.data) == 1
    again = {"page_table_base_addr": ring.table, "process_va_end": 0x1FF, "process_context_addr": CONTEXT}
    assert driver.add(ring, ring.mqd, gang_context_addr=GANG, process_id=1, vm_context_cntl=1, **again)
    assert rig.wait(lambda: rig.memory.word(ring.data) == 2)


def test_queue_without_a_free_slot_runs_once_another_is_removed(driver: Driver) -> None:
    rig = driver.rig
    slots = 8  # two of each pipe
    rings = [driver.process_queue(number) for number in range(slots + 1)]
    assert all(ring.added for ring in rings)
    last = rings[-1]
    # Every queue of one process sees the page table of the first.
    rig.memory.put(rings[0].table, (last.ring | 0x71, 0))
    rig.memory.put(rings[0].table + 8, (last.data | 0x71, 0))
    last.submit(driver.store(9, 0x1000))
    assert rig.idle()
    assert rig.memory.word(last.data) == 0
    assert driver.remove(rings[0].doorbell_dword, gang_context_addr=GANG)
    assert rig.wait(lambda: rig.memory.word(last.data) == 9)


def test_suspended_gang_stands_still_until_it_is_resumed(driver: Driver) -> None:
    rig = driver.rig
    ring = driver.process_queue()
    fence = rig.memory.take()
    assert driver.mes.send(
        mes_v11.SUSPEND,
        SchedulerOpcode.SUSPEND,
        gang_context_addr=GANG,
        suspend_fence_addr=rig.mc(fence),
        suspend_fence_value=0x55,
    )
    assert rig.memory.word(fence) == 0x55
    ring.submit(driver.store(1, 0x1000))
    time.sleep(0.02)
    assert rig.memory.word(ring.data) == 0
    resume = driver.mes.frame(mes_v11.RESUME, SchedulerOpcode.RESUME, rig.mc(fence), 1, gang_context_addr=GANG)
    driver.mes.ring.submit(resume)
    assert rig.wait(lambda: rig.memory.word(ring.data) == 1)


def test_reset_of_a_queue_that_waits_for_ever_frees_its_slot(driver: Driver) -> None:
    rig = driver.rig
    ring, _ = driver.legacy()
    ring.submit(
        pm4.WAIT_REG_MEM.build(FUNCTION=3, MEM_SPACE=1, ADDRESS=rig.mc(driver.place), REFERENCE=1, MASK=1)
    )
    assert driver.mes.send(
        mes_v11.RESET, SchedulerOpcode.RESET, reset_queue_only=1, doorbell_offset=ring.doorbell_dword
    )
    rig.select(1, 0)
    assert rig.read("CP_HQD_ACTIVE") == 0


def test_hung_wave_leaves_the_scheduler_answering_and_a_reset_frees_its_queue(driver: Driver) -> None:
    rig = driver.rig
    ring, _ = driver.legacy()
    code = rig.memory.take()
    rig.memory.put(code, (0xBFB00000,))  # s_endpgm
    window = pm4.SET_WINDOWS[pm4.Opcode.SET_SH_REG].start

    def set_sh(name: str, *values: int) -> tuple[int, ...]:
        offset = rig.register(name).dword - window
        return (pm4.header(pm4.Opcode.SET_SH_REG, 1 + len(values)), offset, *values)

    rig.card.faults.inject("hang-wave")
    initiator = rig.register("COMPUTE_DISPATCH_INITIATOR").encode(COMPUTE_SHADER_EN=1, CS_W32_EN=1)
    ring.submit(
        set_sh("COMPUTE_PGM_LO", rig.mc(code) >> 8 & 0xFFFF_FFFF, rig.mc(code) >> 40),
        set_sh("COMPUTE_NUM_THREAD_X", 32, 1, 1),
        pm4.DISPATCH_DIRECT.build(DIM_X=1, DIM_Y=1, DIM_Z=1, DISPATCH_INITIATOR=initiator),
        driver.store(1, rig.mc(driver.place)),
    )
    assert driver.mes.send(mes_v11.QUERY_MES_STATUS, SchedulerOpcode.QUERY_SCHEDULER_STATUS)
    assert rig.memory.word(driver.place) == 0
    assert rig.card.worker.busy
    assert driver.mes.send(
        mes_v11.RESET, SchedulerOpcode.RESET, reset_queue_only=1, doorbell_offset=ring.doorbell_dword
    )
    rig.select(1, 0)
    assert rig.read("CP_HQD_ACTIVE") == 0
    assert rig.idle()
    assert rig.memory.word(driver.place) == 0


def test_shader_debugger_message_is_answered(driver: Driver) -> None:
    assert driver.misc(MiscOpcode.SET_SHADER_DEBUGGER, set_shader_debugger_process_context_addr=CONTEXT)


def test_moved_root_page_table_is_used_from_then_on(driver: Driver) -> None:
    rig = driver.rig
    ring = driver.process_queue()
    ring.submit(driver.store(1, 0x1000))
    assert rig.idle()
    other = rig.memory.take()
    table = driver.address_space(ring.ring, other)
    opcode = SchedulerOpcode.UPDATE_ROOT_PAGE_TABLE
    fields = {"page_table_base_addr": table, "process_context_addr": CONTEXT}
    assert driver.mes.send(mes_v11.UPDATE_ROOT_PAGE_TABLE, opcode, **fields)
    ring.submit(driver.store(2, 0x1000))
    assert rig.wait(lambda: rig.memory.word(other) == 2)
    assert rig.memory.word(ring.data) == 1


def test_soft_reset_of_the_command_processor_disconnects_every_queue(driver: Driver) -> None:
    rig = driver.rig
    driver.legacy()
    rig.write("GRBM_SOFT_RESET", rig.register("GRBM_SOFT_RESET").encode(SOFT_RESET_CP=1))
    for queue in ((1, 0), (3, 0), (3, 1)):
        rig.select(*queue)
        assert rig.read("CP_HQD_ACTIVE") == 0
