"""The compute micro engine of gfx11: hardware queue descriptors, doorbells, activation and dequeue.

The same descriptors, selected as ME3, belong to the two pipes of the scheduler (mes_11_0.py): its ring on pipe 0 and
the kernel interface queue on pipe 1.

Sources: Linux 6.12 gfx_v11_0.c (gfx_v11_0_kiq_init_register, gfx_v11_0_compute_mqd_init, gfx_v11_0_cp_compute_enable),
amdgpu_amdkfd_gfx_v11.c (hqd_load_v11, hqd_destroy_v11), mes_v11_0.c (mes_v11_0_queue_init_register),
gc_11_0_0_default.h.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.isa.dispatch import Dispatch, DispatchStats, MemoryViolation
from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.emulator.models.grbm_11_0 import Grbm
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.models.vmhub import HubView
from amdrv.emulator.pm4.aql import AqlProcessor
from amdrv.emulator.pm4.faults import report_memory_violation, send_wave_message
from amdrv.emulator.pm4.packets import COMPUTE_PACKETS
from amdrv.emulator.pm4.processor import QueueProcessor
from amdrv.emulator.pm4.queue_engine import (
    DEQUEUE_S,
    DOORBELL_PAGE_BYTES,
    BadDescriptor,
    Mapping,
    Processor,
    QueueEngine,
    QueueId,
    QueueState,
    RingSetup,
)
from amdrv.emulator.pm4.scheduler_packets import KIQ_PACKETS, MES_KIQ_PACKETS
from amdrv.emulator.register_space import Slot
from amdrv.facts.layout import StructLayout
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD

if TYPE_CHECKING:
    from amdrv.emulator.models.mes_11_0 import Mes
    from amdrv.emulator.shell import Card

COMPUTE_ME, SCHEDULER_ME = 1, 3
PIPES, QUEUES_PER_PIPE = 4, 8
SCHEDULER_PIPES = 2
MQD_HEADER = 0xC031_0800
DEQUEUE_DRAIN, DEQUEUE_RESET_WAVES = 1, 2
MQD_FIRST_HQD, MQD_LAST_HQD = V11_COMPUTE_MQD.dword("cp_mqd_base_addr_lo"), V11_COMPUTE_MQD.dword("cp_hqd_pq_wptr_hi")
EOP_ENTRY_DWORDS = 8
UNMAP_LATENCY_S = 1.0  # until SET_RESOURCES says otherwise
HQD_RESET = {
    "CP_HQD_PERSISTENT_STATE": 0x0BE0_5501,
    "CP_HQD_PQ_CONTROL": 0x0030_8509,
    "CP_HQD_IB_CONTROL": 0x0030_0000,
    "CP_HQD_EOP_CONTROL": 0x0000_0006,
    "CP_HQD_EOP_RPTR": 0x4000_0000,
    "CP_HQD_EOP_WPTR": 0x0000_8000,
}
PLAIN = (
    "CP_PQ_STATUS",
    "CP_PQ_WPTR_POLL_CNTL",
    "CP_DEBUG",
    "CP_CPC_DEBUG",
    "CPC_INT_STATUS",
    "CP_INT_CNTL",
    "TCP_CNTL",
)


class Mec(QueueEngine):
    """ME1 with four pipes of eight queues; ME2 of the register interface does not exist on gfx11."""

    ip = "GC"
    fault_client = 5  # CPC of gfxhub_client_ids
    pipes = PIPES
    mqd: StructLayout = V11_COMPUTE_MQD

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self.grbm = card.model(Grbm)
        self.hub = card.model(Gfxhub)
        self.stats = DispatchStats()  # of everything since power-on
        self._code_is_old = False
        self.unmap_latency_s = UNMAP_LATENCY_S
        self.grbm.on_cp_reset.append(self.stop_all)
        self.grbm.busy_parts.append(self.busy)
        self._control = self.claim("CP_MEC_RS64_CNTL", reset=0x4000_0000, on_write=self._control_written)
        for name in ("CP_MEC_RS64_PRGRM_CNTR_START", "CP_MEC_RS64_PRGRM_CNTR_START_HI"):
            self.claim(name, bank=lambda: self.grbm.selected_queue()[:2])
        self._range_lower = self.claim("CP_MEC_DOORBELL_RANGE_LOWER", reset=0x110)
        self._range_upper = self.claim("CP_MEC_DOORBELL_RANGE_UPPER", reset=0xFFC)
        hooks = {"CP_HQD_ACTIVE": self._active_written, "CP_HQD_DEQUEUE_REQUEST": self._dequeue_written}
        addresses: set[int] = set()  # a few registers have two names
        self._queue_slots: dict[str, Slot] = {}
        for name, dword in card.registers.block("GC", instance).places().items():
            if name.startswith(("CP_HQD_", "CP_MQD_", "COMPUTE_")) and dword not in addresses:
                addresses.add(dword)
                self._queue_slots[name] = self.claim(
                    name,
                    reset=HQD_RESET.get(name, 0),
                    bank=self.grbm.selected_queue,
                    on_write=hooks.get(name),
                )
        # Drivers copy a descriptor to the registers dword by dword, those without a register too: Linux hqd_load_v11.
        first = self.register("CP_MQD_BASE_ADDR").dword - MQD_FIRST_HQD
        for number in range(MQD_FIRST_HQD, MQD_LAST_HQD + 1):
            if first + number not in addresses:
                self.claim_hole(f"CP_HQD_RESERVED_{number}", first + number)
        self.claim("SPI_COMPUTE_QUEUE_RESET", on_write=self._queue_reset_written)
        # CPC_INT_CNTL shows that of the selected pipe: amdkfd sets it so, amdgpu by each pipe's own name.
        self.claim("CPC_INT_CNTL", on_read=self._selected_interrupts, on_write=self._select_interrupts)
        self._interrupts = {
            (COMPUTE_ME, pipe): self.claim(f"CP_ME1_PIPE{pipe}_INT_CNTL") for pipe in range(self.pipes)
        }
        for name in PLAIN:
            self.claim(name)
        self._doorbell_control = self.register("CP_HQD_PQ_DOORBELL_CONTROL")
        self._pq_control = self.register("CP_HQD_PQ_CONTROL")

    @property
    def running(self) -> bool:
        """Whether the engine executes: firmware loaded and started, pipe 0 active, not halted, not in reset."""
        control = self._control.register.decode(self._control.value)
        return bool(
            self.card.model(Rlc).booted
            and not control.MEC_HALT
            and control.MEC_PIPE0_ACTIVE
            and not control.MEC_PIPE0_RESET
            and self.hqd((1, 0, 0), "CP_MEC_RS64_PRGRM_CNTR_START", bank=(1, 0))
        )

    @property
    def wave_instructions(self) -> int:
        return self.stats.wave_instructions

    def may_run(self, queue: QueueId) -> bool:
        """ME1's queues with the engine, ME3's with their pipe of the scheduler."""
        return self._scheduler().running(queue[1]) if queue[0] == SCHEDULER_ME else self.running

    def task_prefix(self, queue: QueueId) -> str:
        """ME3's queues are the scheduler's."""
        return "Mes" if queue[0] == SCHEDULER_ME else "Mec"

    def starts_waves(self, queue: QueueId) -> bool:
        """ME1's queues do."""
        return queue[0] != SCHEDULER_ME

    def invalidate_code(self) -> None:
        """Shaders are fetched anew from the next dispatch on: an engine in the middle of one is not disturbed."""
        self._code_is_old = True

    def hqd(self, queue: QueueId, name: str, bank: tuple[int, ...] | None = None) -> int:
        """A register of a queue, whichever is selected."""
        slot = self._queue_slots.get(name)
        if slot is not None:
            return slot.banks.get(queue, slot.reset_value)
        return self.card.space.load_bank(self.registers[name].address, queue if bank is None else bank)

    def set_hqd(self, queue: QueueId, name: str, value: int) -> None:
        """Change a register of a queue, whichever is selected, without its hooks."""
        self.card.space.store_bank(self.register(name).address, queue, value)

    def hqd_pair(self, queue: QueueId, low: str, high: str) -> int:
        """Two registers of a queue as one value."""
        return self.hqd(queue, high) << 32 | self.hqd(queue, low)

    # -- doorbells and work -------------------------------------------------------------------------------------------

    def doorbell(self, offset: int, width: int, value: int) -> None:
        """A doorbell in the engine's range hands a queue its new write pointer."""
        if not self._range_lower.value <= offset % DOORBELL_PAGE_BYTES <= self._range_upper.value + 7:
            return
        found = self.by_doorbell(offset // 4)
        if found is None:
            return
        queue, state = found
        # A packet queue's doorbell says where the next packet will go, an AQL queue's which packet is the last.
        if isinstance(state.processor, AqlProcessor):
            state.wptr = value + 1
        else:
            state.wptr = value = self._published(queue, state, value)
        self.set_hqd(queue, "CP_HQD_PQ_WPTR_LO", value & 0xFFFF_FFFF)
        self.set_hqd(queue, "CP_HQD_PQ_WPTR_HI", value >> 32)
        self.start(queue, state)

    def _published(self, queue: QueueId, state: QueueState, value: int) -> int:
        """How far a packet queue may run: to the doorbell's value, but not beyond the write pointer in memory.

        Which of the two the firmware takes differs between its versions and situations (a queue that is mapped later
        has only the one in memory), so a client publishes it before it rings; inferred. An address that nothing is
        mapped at is a page fault, and the queue stays where it is.
        """
        address = self.hqd_pair(queue, "CP_HQD_PQ_WPTR_POLL_ADDR", "CP_HQD_PQ_WPTR_POLL_ADDR_HI") & ~7
        if not address or self.card.relaxed:
            return value
        vmid = self.hqd(queue, "CP_HQD_VMID") & 15
        try:
            return min(value, self.hub.view(vmid).read64(address))
        except MemoryViolation as violation:
            report_memory_violation(self, state, vmid, violation)
            return state.wptr

    def doorbell_dword(self, queue: QueueId) -> int | None:
        """From CP_HQD_PQ_DOORBELL_CONTROL."""
        control = self._doorbell_control.decode(self.card.space.load_bank(self._doorbell_control.address, queue))
        return control.DOORBELL_OFFSET if control.DOORBELL_EN else None

    def ring_setup(self, queue: QueueId) -> RingSetup:
        """From the CP_HQD registers."""
        control = self._pq_control.decode(self.hqd(queue, "CP_HQD_PQ_CONTROL"))
        report = self.hqd_pair(queue, "CP_HQD_PQ_RPTR_REPORT_ADDR", "CP_HQD_PQ_RPTR_REPORT_ADDR_HI") & ~3
        return RingSetup(
            base=self.hqd_pair(queue, "CP_HQD_PQ_BASE", "CP_HQD_PQ_BASE_HI") << 8,
            size_dwords=2 << control.QUEUE_SIZE,
            vmid=self.hqd(queue, "CP_HQD_VMID") & 15,
            rptr_report=0 if control.NO_UPDATE_RPTR and not self._is_aql(queue) else report,
            privileged=bool(control.PRIV_STATE),
        )

    def report_rptr(self, queue: QueueId, rptr: int) -> None:
        """CP_HQD_PQ_RPTR, and memory."""
        self.set_hqd(queue, "CP_HQD_PQ_RPTR", rptr & 0xFFFF_FFFF)
        setup = self.ring_setup(queue)
        if setup.rptr_report:
            size = 8 if self._is_aql(queue) else 4
            data = (rptr & ((1 << 8 * size) - 1)).to_bytes(size, "little")
            self.hub.view(setup.vmid).write(setup.rptr_report, data)
            self.card.changed.notify_all()

    def run_dispatch(
        self, work: Dispatch, queue: QueueId, memory: HubView, state: QueueState, *, written_back: bool
    ) -> None:
        """Run a dispatch of a queue to its end, or until the queue is cancelled.

        ``written_back`` says that the L2 is written back before anybody is told that the dispatch is done.
        """
        if self._code_is_old:
            self._code_is_old = False
            self.card.shader_engine.invalidate_code()
        state.killed, state.wave_vmid = False, memory.vmid
        stats = self.card.caches.run(
            work,
            memory,
            written_back=written_back,
            cancelled=lambda: state.cancelled or state.killed,
            realtime=self.card.realtime,
            interrupt=partial(send_wave_message, self, queue, memory.vmid),
        )
        self.stats.waves += stats.waves
        self.stats.wave_instructions += stats.wave_instructions

    def kill_waves(self, vmid: int | None) -> None:
        """End the waves of one VMID, or all, that are running; their queues go on."""
        for state in self.queues.values():
            state.killed |= vmid in (None, state.wave_vmid)

    # -- end of pipe --------------------------------------------------------------------------------------------------

    def end_of_pipe(self, queue: QueueId, view: HubView, words: tuple[int, ...]) -> None:
        """An entry of the queue's EOP buffer, eight dwords (kfd_mqd_manager_v11.c), consumed at once.

        What is in an entry is not documented: here it is the packet. A buffer that is not mapped faults.
        """
        base = self.hqd_pair(queue, "CP_HQD_EOP_BASE_ADDR", "CP_HQD_EOP_BASE_ADDR_HI") << 8
        if not base:
            return
        size = 2 << (self.hqd(queue, "CP_HQD_EOP_CONTROL") & 0x3F)
        pointer = self.register("CP_HQD_EOP_WPTR").decode(self.hqd(queue, "CP_HQD_EOP_WPTR"))
        entry = b"".join(word.to_bytes(4, "little") for word in words[:EOP_ENTRY_DWORDS])
        view.write(base + 4 * (pointer.WPTR % size), entry)
        following = (pointer.WPTR + EOP_ENTRY_DWORDS) % size
        with self.card.lock:
            self.set_hqd(queue, "CP_HQD_EOP_WPTR", int(pointer.replace(WPTR=following, EOP_EMPTY=1)))
            read = self.register("CP_HQD_EOP_RPTR").decode(self.hqd(queue, "CP_HQD_EOP_RPTR"))
            self.set_hqd(queue, "CP_HQD_EOP_RPTR", int(read.replace(RPTR=following)))
            self.set_hqd(queue, "CP_HQD_EOP_EVENTS", (self.hqd(queue, "CP_HQD_EOP_EVENTS") + 1) & 0xFFF)

    # -- interrupts ---------------------------------------------------------------------------------------------------

    def interrupts(self, queue: QueueId, enable: str) -> bool:
        """By CP_ME1_PIPEn_INT_CNTL; the scheduler's pipes have no such register that a driver sets."""
        slot = self._interrupts.get(queue[:2])
        return slot is None or bool(slot.register.fields[enable].get(slot.value))

    def _selected_interrupts(self) -> int:
        slot = self._interrupts.get(self.grbm.selected_queue()[:2])
        return 0 if slot is None else slot.value

    def _select_interrupts(self, value: int) -> None:
        slot = self._interrupts.get(self.grbm.selected_queue()[:2])
        if slot is not None:
            slot.value = value

    # -- activation ---------------------------------------------------------------------------------------------------

    def _active_written(self, value: int) -> None:
        queue = self.grbm.selected_queue()
        if not value & 1:
            state = self.queues.pop(queue, None)
            if state is not None:
                state.cancelled = True
            return
        error = self._activation_error(queue)
        if error:
            self.set_hqd(queue, "CP_HQD_ACTIVE", 0)
            self.set_hqd(queue, "CP_HQD_ERROR", error)
            return
        self._connect(queue, self.hqd_pair(queue, "CP_HQD_PQ_WPTR_LO", "CP_HQD_PQ_WPTR_HI"))

    def map_queue(self, queue: QueueId, mapping: Mapping) -> None:
        """What firmware does with a descriptor: its dwords from CP_MQD_BASE_ADDR on are the registers' values."""
        with self.card.lock:
            if not self._exists(queue):
                raise BadDescriptor(f"queue {queue} does not exist, or its engine does not run")
            mqd = self.hub.view(0).read(mapping.mqd_va, self.mqd.size_bytes)
            if self.mqd.get(mqd, "header") != MQD_HEADER:
                raise BadDescriptor(f"no descriptor at {mapping.mqd_va:#x}")
            if queue in self.queues:
                self.queues[queue].cancelled = True
                self.disconnect(queue)
            first = self.register("CP_MQD_BASE_ADDR").address
            for index in range(MQD_FIRST_HQD, MQD_LAST_HQD + 1):
                value = int.from_bytes(mqd[4 * index : 4 * index + 4], "little")
                self.card.space.store_bank(first + 4 * (index - MQD_FIRST_HQD), queue, value)
            self.set_hqd(queue, "CP_MQD_BASE_ADDR", mapping.mqd_va & 0xFFFF_FFFF)
            self.set_hqd(queue, "CP_MQD_BASE_ADDR_HI", mapping.mqd_va >> 32)
            control = self._doorbell_control.encode(DOORBELL_OFFSET=mapping.doorbell, DOORBELL_EN=1)
            self.set_hqd(queue, "CP_HQD_PQ_DOORBELL_CONTROL", control)
            if mapping.vmid is not None:
                self.set_hqd(queue, "CP_HQD_VMID", mapping.vmid)
            self._load_compute_state(queue, mqd)
            wptr = self.hqd_pair(queue, "CP_HQD_PQ_WPTR_LO", "CP_HQD_PQ_WPTR_HI")
            if mapping.wptr_va:
                wptr = self.hub.view(0).read64(mapping.wptr_va & ~7)
            self.set_hqd(queue, "CP_HQD_ACTIVE", 1)
            self._connect(queue, wptr)

    def save_queue(self, queue: QueueId, state: QueueState) -> None:
        """Pointers and the inactive flag go back into the descriptor."""
        address = self.hqd_pair(queue, "CP_MQD_BASE_ADDR", "CP_MQD_BASE_ADDR_HI") & ~3
        values = {
            "cp_hqd_active": 0,
            "cp_hqd_pq_rptr": state.processor.rptr & 0xFFFF_FFFF,
            "cp_hqd_pq_wptr_lo": state.wptr & 0xFFFF_FFFF,
            "cp_hqd_pq_wptr_hi": state.wptr >> 32,
        }
        view = self.hub.view(0)
        for name, value in values.items():
            view.write(address + self.mqd.offset(name), value.to_bytes(4, "little"))

    def _connect(self, queue: QueueId, wptr: int) -> None:
        self.connect(queue, self._processor(queue, self.hqd(queue, "CP_HQD_PQ_RPTR")), wptr)

    def _processor(self, queue: QueueId, rptr: int) -> Processor:
        if queue[0] == SCHEDULER_ME and self._scheduler().schedules(queue[1]):
            return self._scheduler().ring_processor(queue, rptr)
        if self._is_aql(queue):
            return AqlProcessor(self, queue, rptr)
        if self.card.model(Rlc).kernel_interface_queue == queue:
            packets = MES_KIQ_PACKETS if queue[0] == SCHEDULER_ME else KIQ_PACKETS
        else:
            packets = COMPUTE_PACKETS
        return QueueProcessor(self, self, queue, rptr, packets)

    def _is_aql(self, queue: QueueId) -> bool:
        """kfd_mqd_manager_v11.c: CONTROL0 of the AQL register is 1 for queues that hold AQL packets."""
        return bool(self.hqd(queue, "CP_HQD_AQL_CONTROL") & 1)

    def _scheduler(self) -> Mes:
        from amdrv.emulator.models.mes_11_0 import Mes  # it is built after this one

        return self.card.model(Mes)

    def _exists(self, queue: QueueId) -> bool:
        me, pipe, number = queue
        if me == SCHEDULER_ME:
            return pipe < SCHEDULER_PIPES and number == 0 and self.may_run(queue)
        return me == COMPUTE_ME and pipe < self.pipes and number < QUEUES_PER_PIPE and self.running

    def _activation_error(self, queue: QueueId) -> int:
        """CP_HQD_ERROR bits when the descriptor cannot be connected, 0 when it can. Loads the MQD's compute state."""
        error = self.register("CP_HQD_ERROR").encode
        if not self._exists(queue):
            return error(QU_UTCL1_ERROR=1)
        mqd_va = self.hqd_pair(queue, "CP_MQD_BASE_ADDR", "CP_MQD_BASE_ADDR_HI")
        # The registers are what counts here; the descriptor is looked at later. AM flushes it after this write only.
        self.card.host_path.flush()
        try:
            mqd = self.hub.view(0).read(mqd_va, self.mqd.size_bytes)
        except MemoryViolation:
            return error(QU_UTCL1_ERROR=1)
        if self.mqd.get(mqd, "header") != MQD_HEADER or not self._matches(queue, mqd):
            return error(QU_UTCL1_ERROR=1)
        setup = self.ring_setup(queue)
        try:
            self.hub.view(setup.vmid).read(setup.base, 4)
        except MemoryViolation:
            return error(PQ_UTCL1_ERROR=1)
        self._load_compute_state(queue, mqd)
        return 0

    def _load_compute_state(self, queue: QueueId, mqd: bytes) -> None:
        block = self.card.registers.block("GC")
        for name, member in self.mqd.members.items():
            if name.startswith("compute_") and name.upper() in block:
                self.set_hqd(queue, name.upper(), self.mqd.get(mqd, name, 0) if member.size == 4 else 0)

    def _matches(self, queue: QueueId, mqd: bytes) -> bool:
        """Whether the registers hold what the MQD in memory says: firmware reads it again at the next connect."""
        pairs = (
            ("CP_HQD_PQ_BASE", "cp_hqd_pq_base_lo"),
            ("CP_HQD_PQ_BASE_HI", "cp_hqd_pq_base_hi"),
            ("CP_HQD_PQ_CONTROL", "cp_hqd_pq_control"),
            ("CP_HQD_VMID", "cp_hqd_vmid"),
            ("CP_HQD_PQ_DOORBELL_CONTROL", "cp_hqd_pq_doorbell_control"),
        )
        return all(self.hqd(queue, register) == self.mqd.get(mqd, member) for register, member in pairs)

    # -- dequeue ------------------------------------------------------------------------------------------------------

    def _dequeue_written(self, value: int) -> None:
        queue = self.grbm.selected_queue()
        state = self.queues.get(queue)
        request = value & 0xF
        if state is None or not request:
            self.set_hqd(queue, "CP_HQD_ACTIVE", int(state is not None))
            return
        self.stop(queue, state, reset=request == DEQUEUE_RESET_WAVES, after_s=DEQUEUE_S)

    def _queue_reset_written(self, value: int) -> None:
        queue = self.grbm.selected_queue()
        state = self.queues.get(queue)
        if value & 1 and state is not None:
            self.stop(queue, state, reset=True, after_s=DEQUEUE_S)

    def show_disconnected(self, queue: QueueId) -> None:
        """CP_HQD_ACTIVE."""
        self.set_hqd(queue, "CP_HQD_ACTIVE", 0)

    def _control_written(self, value: int) -> None:
        control = self._control.register.decode(value)
        if control.MEC_PIPE0_RESET:
            for queue, state in list(self.queues.items()):
                if queue[0] == COMPUTE_ME:
                    state.cancelled = True
                    self.disconnect(queue)
