"""The scheduler of gfx12: one image for both pipes, messages to both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.facts import mes_v12, pm4
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.mes_v12 import MiscOpcode, QueueType, SchedulerOpcode
from amdrv.facts.psp import FwType

KIQ, SCHEDULER = (3, 1, 0), (3, 0, 0)
USER_DOORBELL = 0x1000  # dword: the first page that belongs to a process
IS_PTE = 1 << 63

pytestmark = pytest.mark.parametrize("rig", ["gfx1201"], indirect=True)


def second_pipe(rig: Any, ring_type: Any) -> Any:
    """mes_v12_0_queue_init for the second pipe: connected through registers."""
    rig.start_mes()
    ring = ring_type(rig, 2 * Doorbell.MES_RING1, 1024)
    rig.activate(KIQ, rig.compute_mqd(ring))
    return rig.scheduler(ring)


def map_kernel_queue(rig: Any, pipe: Any, ring: Any, kind: QueueType) -> bool:
    """mes_v12_0_map_legacy_queue, for the first queue of the first pipe."""
    return bool(
        pipe.send(
            mes_v12.ADD_QUEUE,
            SchedulerOpcode.ADD_QUEUE,
            map_legacy_kq=1,
            queue_type=kind,
            doorbell_offset=ring.doorbell_dword,
            mqd_addr=rig.mc(rig.compute_mqd(ring)),
            wptr_addr=rig.mc(ring.wptr_copy),
        )
    )


def both_pipes(rig: Any, ring_type: Any) -> tuple[Any, Any]:
    """The second pipe's ring, and the scheduler's that it has mapped."""
    second = second_pipe(rig, ring_type)
    ring = ring_type(rig, 2 * Doorbell.MES_RING0, 1024)
    assert map_kernel_queue(rig, second, ring, QueueType.SCHQ)
    return second, rig.scheduler(ring)


def test_second_pipe_maps_the_ring_of_the_first(rig: Any, ring_type: Any) -> None:
    _, first = both_pipes(rig, ring_type)
    assert first.send(mes_v12.QUERY_MES_STATUS, SchedulerOpcode.QUERY_SCHEDULER_STATUS)


def test_first_pipe_does_nothing_after_its_ring_is_unmapped(rig: Any, ring_type: Any) -> None:
    second, first = both_pipes(rig, ring_type)
    fields = {"doorbell_offset": first.ring.doorbell_dword, "unmap_legacy_queue": 1, "queue_type": QueueType.SCHQ}
    assert second.send(mes_v12.REMOVE_QUEUE, SchedulerOpcode.REMOVE_QUEUE, **fields)
    assert not first.send(mes_v12.QUERY_MES_STATUS, SchedulerOpcode.QUERY_SCHEDULER_STATUS)


def test_second_pipe_maps_a_kernels_compute_queue(rig: Any, ring_type: Any) -> None:
    second = second_pipe(rig, ring_type)
    rig.start_mec()
    ring, target = ring_type(rig, 2 * Doorbell.MEC_RING0), rig.memory.take()
    assert map_kernel_queue(rig, second, ring, QueueType.COMPUTE)
    ring.submit(pm4.WRITE_DATA.build(0xCAFE, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=rig.mc(target)))
    assert rig.idle()
    assert rig.memory.word(target) == 0xCAFE


def test_second_pipe_reads_registers(rig: Any, ring_type: Any) -> None:
    second, target = second_pipe(rig, ring_type), rig.memory.take()
    dword = rig.register("GB_ADDR_CONFIG").address // 4
    fields = {"read_reg_reg_offset": dword, "read_reg_buffer_addr": rig.mc(target)}
    assert second.send(mes_v12.MISC, SchedulerOpcode.MISC, opcode=MiscOpcode.READ_REG, **fields)
    assert rig.memory.word(target) == rig.read("GB_ADDR_CONFIG") != 0


def test_second_pipes_resources_take_nothing_from_processes(rig: Any, ring_type: Any) -> None:
    """mes_v12_0_set_hw_resources sends empty masks to the second pipe."""
    second, first = both_pipes(rig, ring_type)
    rig.start_mec()
    masks = {"compute_hqd_mask_0": 0xC, "compute_hqd_mask_1": 0xC, "vmid_mask_gfxhub": 0xFF00}
    assert first.send(mes_v12.SET_HW_RESOURCES, SchedulerOpcode.SET_HW_RSRC, **masks)
    assert second.send(mes_v12.SET_HW_RESOURCES, SchedulerOpcode.SET_HW_RSRC)
    ring, data, table = ring_type(rig, USER_DOORBELL), rig.memory.take(), rig.memory.take()
    for number, page in enumerate((ring.ring, data)):
        entry = IS_PTE | page | 0x71
        rig.memory.put(table + 8 * number, (entry & 0xFFFF_FFFF, entry >> 32))
    mqd = rig.compute_mqd(
        ring,
        base=0,
        cp_hqd_pq_rptr_report_addr_lo=0,
        cp_hqd_pq_rptr_report_addr_hi=0,
        cp_hqd_pq_control=rig.register("CP_HQD_PQ_CONTROL").encode(QUEUE_SIZE=7),
    )
    assert first.send(
        mes_v12.ADD_QUEUE,
        SchedulerOpcode.ADD_QUEUE,
        queue_type=QueueType.COMPUTE,
        doorbell_offset=ring.doorbell_dword,
        mqd_addr=rig.mc(mqd),
        wptr_addr=rig.mc(ring.wptr_copy),
        process_context_addr=0x1000,
        gang_context_addr=0x2000,
        page_table_base_addr=table,
        process_va_end=0x1FF,
        vm_context_cntl=rig.register("GCVM_CONTEXT8_CNTL").encode(ENABLE_CONTEXT=1),
    )
    ring.submit(pm4.WRITE_DATA.build(0xBEEF, DST_SEL=pm4.MemoryTarget.MEMORY, ADDRESS=0x1000))
    assert rig.idle()
    assert rig.memory.word(data) == 0xBEEF


def test_separate_image_on_the_second_pipe_takes_packets(rig: Any) -> None:
    """What mes_v12_0_kiq_enable_queue relies on: the kernel interface queue maps the scheduler's ring by MAP_QUEUES."""
    images = rig.card.model(Psp)._commands.images
    images[FwType.CP_MES_KIQ] = replace(images[FwType.CP_MES_KIQ], sha256=b"another")
    assert rig.start_scheduler().send(mes_v12.QUERY_MES_STATUS, SchedulerOpcode.QUERY_SCHEDULER_STATUS)
