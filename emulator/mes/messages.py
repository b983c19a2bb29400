"""What each message to the scheduler does.

Layouts: Linux 6.12 mes_v11_api_def.h (amdrv/facts/mes_v11.py); use: mes_v11_0.c, amdgpu_mes.c. A handler returns None
when it is done at once, else steps that yield while it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from amdrv.emulator.mes.processes import Process, ScheduledQueue
from amdrv.emulator.pm4.queue_engine import Mapping, QueueEngine, QueueId, QueueState
from amdrv.facts import mes_v11
from amdrv.facts.mes_v11 import MiscOpcode, QueueType, SchedulerOpcode, WaitOperation
from amdrv.registers.fields import BitLayout

if TYPE_CHECKING:
    from amdrv.emulator.models.mes_11_0 import Mes

Fields = dict[str, int]
Steps = Iterator[None]
Handler = Callable[["Mes", Fields], Steps | None]


class Refused(Exception):
    """A message that the scheduler cannot carry out: it stops, and its fence is never written."""


def nothing(_mes: Mes, _fields: Fields) -> None:
    """Messages whose effect does not show here: priorities, quanta, logs, debugging, GDS."""


def set_hw_resources(mes: Mes, fields: Fields) -> None:
    """What the scheduler may give to processes: VMIDs and hardware queues."""
    with mes.card.lock:
        mes.processes.vmid_mask = fields["vmid_mask_gfxhub"] & 0xFFFF
        mes.slots = {
            QueueType.COMPUTE: _slots(fields, "compute_hqd_mask", 4, lambda pipe, n: (1, pipe, n)),
            QueueType.GFX: _slots(fields, "gfx_hqd_mask", 2, lambda pipe, n: (0, pipe, n)),
            QueueType.SDMA: _slots(fields, "sdma_hqd_mask", 2, lambda engine, n: (engine, 0, n)),
        }


def add_queue(mes: Mes, fields: Fields) -> None:
    """Map a kernel queue where the message says, or take a process's queue and map it where there is room."""
    doorbell = fields["doorbell_offset"]
    with mes.card.lock:
        if fields["map_legacy_kq"]:
            engine = mes.engine(fields["queue_type"], fields["pipe_id"])
            slot = mes.legacy_slot(fields["queue_type"], fields["pipe_id"], fields["queue_id"])
            mapping = Mapping(fields["mqd_addr"], fields["wptr_addr"], doorbell, 0)
            engine.map_queue(slot, mapping)
            return
        process = mes.processes.by_context.get(fields["process_context_addr"])
        if process is None:
            process = Process(
                context_address=fields["process_context_addr"],
                pasid=fields["process_id"],
                page_table=fields["page_table_base_addr"],
                first_page=fields["process_va_start"],
                last_page=fields["process_va_end"],
                control=fields["vm_context_cntl"],
            )
            mes.processes.by_context[process.context_address] = process
        kind = fields["queue_type"]
        mapping = Mapping(fields["mqd_addr"], fields["wptr_addr"], doorbell, None)
        queue = ScheduledQueue(mes.engine(kind, 0), None, mapping, fields["gang_context_addr"], kind)
        process.queues[doorbell] = queue
        if fields["is_gang_suspended"]:
            mes.suspended_gangs.add(queue.gang)
        mes.place(process, queue)


def remove_queue(mes: Mes, fields: Fields) -> Steps:
    """Take a queue off its hardware slot, and forget a process's."""
    doorbell = fields["doorbell_offset"]
    if fields["preempt_legacy_gfx_queue"]:
        found = mes.connected(doorbell)
        if found is not None:
            while mes.card.worker.has(found[2].task):
                yield
        mes.hub.view(0).write(fields["tf_addr"] & ~3, fields["tf_data"].to_bytes(4, "little"))
        mes.card.notify()
        return
    with mes.card.lock:
        scheduled = mes.processes.find_queue(doorbell)
    found = mes.connected(doorbell)
    if scheduled is None and found is None:
        raise Refused(f"no queue with doorbell {doorbell:#x}")
    if found is not None:
        yield from mes.unmap(*found)
    if scheduled is not None:
        process, _ = scheduled
        with mes.card.lock:
            del process.queues[doorbell]
            mes.processes.drop_if_empty(process)
            mes.place_waiting()


def suspend(mes: Mes, fields: Fields) -> Steps:
    """Let the queues of one gang, or all, stand still between two packets."""
    with mes.card.lock:
        states = list(mes.gang_states(None if fields["suspend_all_gangs"] else fields["gang_context_addr"]))
        mes.suspended_gangs |= {gang for gang, _ in states}
        for _, state in states:
            state.suspended = True
    while any(mes.card.worker.has(state.task) and not state.resting for _, state in states):
        yield
    if fields["suspend_fence_addr"]:
        fence = fields["suspend_fence_value"].to_bytes(4, "little")
        mes.hub.view(0).write(fields["suspend_fence_addr"] & ~3, fence)
        mes.card.notify()


def resume(mes: Mes, fields: Fields) -> None:
    """Let suspended gangs go on."""
    with mes.card.lock:
        gang = None if fields["resume_all_gangs"] else fields["gang_context_addr"]
        mes.suspended_gangs = set() if gang is None else mes.suspended_gangs - {gang}
        for _, state in mes.gang_states(gang):
            state.suspended = False


def reset(mes: Mes, fields: Fields) -> Steps:
    """Kill the waves of a queue; a graphics queue is mapped anew from its descriptor."""
    if fields["reset_legacy_gfx"]:
        found = mes.connected(fields["doorbell_offset_lp"])
        if found is not None:
            yield from mes.unmap(*found, reset=True)
        engine = mes.engine(QueueType.GFX, 0)
        mapping = Mapping(fields["mqd_mc_addr_lp"], fields["wptr_addr_lp"], fields["doorbell_offset_lp"], 0)
        engine.map_queue((0, fields["pipe_id_lp"], fields["queue_id_lp"]), mapping)
    elif not fields["hang_detect_only"] and not fields["hang_detect_then_reset"]:
        targets: list[tuple[QueueEngine, QueueId, QueueState]] = []
        found = mes.connected(fields["doorbell_offset"]) if fields["reset_queue_only"] else None
        if found is not None:
            targets.append(found)
        elif not fields["reset_queue_only"]:
            targets = mes.gang_queues(fields["gang_context_addr"])
        for target in targets:
            yield from mes.unmap(*target, reset=True)


def update_root_page_table(mes: Mes, fields: Fields) -> None:
    """A process has moved its top page table."""
    with mes.card.lock:
        process = mes.processes.by_context.get(fields["process_context_addr"])
        if process is not None:
            mes.processes.move(process, fields["page_table_base_addr"])


def misc(mes: Mes, fields: Fields) -> Steps | None:
    """Register accesses on behalf of the driver."""
    opcode = fields["opcode"]
    if opcode == MiscOpcode.WRITE_REG:
        mes.store_register(fields["write_reg_reg_offset"], fields["write_reg_reg_value"])
    elif opcode == MiscOpcode.READ_REG:
        value = mes.load_register(fields["read_reg_reg_offset"])
        mes.hub.view(0).write(fields["read_reg_buffer_addr"] & ~3, value.to_bytes(4, "little"))
        mes.card.notify()
    elif opcode == MiscOpcode.WAIT_REG_MEM:
        return _wait_register(mes, fields)
    elif opcode == MiscOpcode.INV_GART:
        with mes.card.lock:
            mes.hub.invalidate([0])
    elif opcode not in mes.misc_opcodes:
        raise Refused(f"miscellaneous operation {opcode}")
    return None


def _wait_register(mes: Mes, fields: Fields) -> Steps:
    """Wait for reg1; or write reg1, then wait for reg2 (mes_v11_0_misc_op: WRM_OPERATION__WR_WAIT_WR_REG)."""
    reference, mask = fields["wait_reg_mem_reference"], fields["wait_reg_mem_mask"]
    register = fields["wait_reg_mem_reg_offset1"]
    if fields["wait_reg_mem_op"] == WaitOperation.WR_WAIT_WR_REG:
        mes.store_register(register, reference)
        register = fields["wait_reg_mem_reg_offset2"]
    # The driver gives one number as what to write and what to wait for; of the answer only the masked bits count.
    while mes.load_register(register) & mask != reference & mask:
        yield


def _slots(
    fields: Fields, name: str, pipes: int, place: Callable[[int, int], QueueId]
) -> list[QueueId]:
    """Slots of a mask by pipe, the first of every pipe first."""
    numbered = [(n, pipe) for pipe in range(pipes) for n in range(8) if fields[f"{name}_{pipe}"] >> n & 1]
    return [place(pipe, n) for n, pipe in sorted(numbered)]


MESSAGES: dict[int, tuple[BitLayout, Handler]] = {
    SchedulerOpcode.SET_HW_RSRC: (mes_v11.SET_HW_RESOURCES, set_hw_resources),
    SchedulerOpcode.SET_HW_RSRC_1: (mes_v11.SET_HW_RESOURCES_1, nothing),
    SchedulerOpcode.SET_SCHEDULING_CONFIG: (mes_v11.SET_SCHEDULING_CONFIG, nothing),
    SchedulerOpcode.ADD_QUEUE: (mes_v11.ADD_QUEUE, add_queue),
    SchedulerOpcode.REMOVE_QUEUE: (mes_v11.REMOVE_QUEUE, remove_queue),
    SchedulerOpcode.PERFORM_YIELD: (mes_v11.PERFORM_YIELD, nothing),
    SchedulerOpcode.SET_GANG_PRIORITY_LEVEL: (mes_v11.CHANGE_GANG_PRIORITY, nothing),
    SchedulerOpcode.CHANGE_GANG_PRORITY: (mes_v11.CHANGE_GANG_PRIORITY, nothing),
    SchedulerOpcode.SUSPEND: (mes_v11.SUSPEND, suspend),
    SchedulerOpcode.RESUME: (mes_v11.RESUME, resume),
    SchedulerOpcode.RESET: (mes_v11.RESET, reset),
    SchedulerOpcode.SET_LOG_BUFFER: (mes_v11.SET_LOGGING_BUFFER, nothing),
    SchedulerOpcode.QUERY_SCHEDULER_STATUS: (mes_v11.QUERY_MES_STATUS, nothing),
    SchedulerOpcode.PROGRAM_GDS: (mes_v11.PROGRAM_GDS, nothing),
    SchedulerOpcode.SET_DEBUG_VMID: (mes_v11.SET_DEBUG_VMID, nothing),
    SchedulerOpcode.MISC: (mes_v11.MISC, misc),
    SchedulerOpcode.UPDATE_ROOT_PAGE_TABLE: (mes_v11.UPDATE_ROOT_PAGE_TABLE, update_root_page_table),
}
