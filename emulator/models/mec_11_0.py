"""The compute micro engine of gfx11: hardware queue descriptors, doorbells, activation and dequeue.

Sources: Linux 6.12 gfx_v11_0.c (gfx_v11_0_kiq_init_register, gfx_v11_0_compute_mqd_init, gfx_v11_0_cp_compute_enable),
amdgpu_amdkfd_gfx_v11.c (hqd_load_v11, hqd_destroy_v11), gc_11_0_0_default.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from amdrv.emulator.isa.dispatch import DispatchStats, MemoryViolation
from amdrv.emulator.model import Model
from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.emulator.models.grbm_11_0 import Grbm
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.pm4.processor import QueueProcessor
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

QueueId = tuple[int, int, int]  # (ME, pipe, queue)

PIPES, QUEUES_PER_PIPE = 4, 8
MQD_HEADER = 0xC031_0800
DEQUEUE_DRAIN, DEQUEUE_RESET_WAVES = 1, 2
DEQUEUE_S = 20e-6  # inferred: the kernel's first poll usually finds it done
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
    "CPC_INT_CNTL",
    "CP_INT_CNTL",
    "CP_ME1_PIPE0_INT_CNTL",
    "CP_ME1_PIPE1_INT_CNTL",
    "CP_ME1_PIPE2_INT_CNTL",
    "CP_ME1_PIPE3_INT_CNTL",
    "TCP_CNTL",
)


@dataclass(slots=True)
class QueueState:
    """What the engine keeps of a queue beside its registers."""

    processor: QueueProcessor
    task: str  # its name in the worker: a queue's successor in the same slot has another
    wptr: int = 0  # dwords, not wrapped
    cancelled: bool = False  # waves are to be killed
    draining: bool = False  # stop before the next packet
    hung: bool = False  # a fault stopped it for good: only a wave reset frees it


class Mec(Model):
    """ME1 with four pipes of eight queues; ME2 of the register interface does not exist on gfx11."""

    ip = "GC"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._queues: dict[QueueId, QueueState] = {}
        self._activations = 0
        self.grbm = card.model(Grbm)
        self.hub = card.model(Gfxhub)
        self.stats = DispatchStats()  # of everything since power-on
        self.grbm.on_cp_reset = self.soft_reset
        self._control = self.claim("CP_MEC_RS64_CNTL", reset=0x4000_0000, on_write=self._control_written)
        for name in ("CP_MEC_RS64_PRGRM_CNTR_START", "CP_MEC_RS64_PRGRM_CNTR_START_HI"):
            self.claim(name, bank=lambda: self.grbm.selected_queue()[:2])
        self._range_lower = self.claim("CP_MEC_DOORBELL_RANGE_LOWER", reset=0x110)
        self._range_upper = self.claim("CP_MEC_DOORBELL_RANGE_UPPER", reset=0xFFC)
        hooks = {"CP_HQD_ACTIVE": self._active_written, "CP_HQD_DEQUEUE_REQUEST": self._dequeue_written}
        block = card.registers.block("GC", instance)
        addresses: set[int] = set()  # a few registers have two names
        for name in block:
            address = block[name].address
            if name.startswith(("CP_HQD_", "CP_MQD_", "COMPUTE_")) and address not in addresses:
                addresses.add(address)
                self.claim(
                    name,
                    reset=HQD_RESET.get(name, 0),
                    bank=self.grbm.selected_queue,
                    on_write=hooks.get(name),
                )
        self.claim("SPI_COMPUTE_QUEUE_RESET", on_write=self._queue_reset_written)
        for name in PLAIN:
            self.claim(name)

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

    def power_on(self) -> None:
        for state in self._queues.values():
            state.cancelled = True
        self._queues.clear()

    def hqd(self, queue: QueueId, name: str, bank: tuple[int, ...] | None = None) -> int:
        """A register of a queue, whichever is selected."""
        return self.card.space.load_bank(self.register(name).address, queue if bank is None else bank)

    def set_hqd(self, queue: QueueId, name: str, value: int) -> None:
        """Change a register of a queue, whichever is selected, without its hooks."""
        self.card.space.store_bank(self.register(name).address, queue, value)

    def hqd_pair(self, queue: QueueId, low: str, high: str) -> int:
        """Two registers of a queue as one value."""
        return self.hqd(queue, high) << 32 | self.hqd(queue, low)

    # -- doorbells and work -------------------------------------------------------------------------------------------

    def doorbell(self, offset: int, width: int, value: int) -> None:
        """A doorbell in the engine's range hands a queue its new write pointer."""
        if not self._range_lower.value <= offset <= self._range_upper.value + 7:
            return
        for queue, state in self._queues.items():
            control = self.register("CP_HQD_PQ_DOORBELL_CONTROL").decode(self.hqd(queue, "CP_HQD_PQ_DOORBELL_CONTROL"))
            if control.DOORBELL_EN and offset // 4 == control.DOORBELL_OFFSET:
                state.wptr = value
                self.set_hqd(queue, "CP_HQD_PQ_WPTR_LO", value & 0xFFFF_FFFF)
                self.set_hqd(queue, "CP_HQD_PQ_WPTR_HI", value >> 32)
                self._start(queue, state)

    def write_pointer(self, queue: QueueId) -> int:
        """Where a queue's work ends now, in dwords."""
        state = self._queues.get(queue)
        return 0 if state is None else state.wptr

    def stopped(self, state: QueueState) -> bool:
        """Whether a queue must not begin another packet."""
        return state.cancelled or state.draining

    def finished(self, queue: QueueId, state: QueueState) -> None:
        """A queue's processor has stopped; a pending dequeue completes."""
        if state.cancelled or (state.draining and not state.hung):
            self._deactivate_if(queue, state)

    def count(self, stats: DispatchStats) -> None:
        """Add a dispatch to the totals."""
        self.stats.waves += stats.waves
        self.stats.wave_instructions += stats.wave_instructions

    def soft_reset(self) -> None:
        """GRBM soft reset of the command processor: waves die, every queue is disconnected."""
        for queue, state in list(self._queues.items()):
            state.cancelled = True
            self._deactivate(queue)

    def _start(self, queue: QueueId, state: QueueState) -> None:
        if not (state.hung or self.stopped(state) or self.card.worker.has(state.task)):
            self.card.worker.add(state.task, state.processor.run(state))

    # -- activation and dequeue ---------------------------------------------------------------------------------------

    def _active_written(self, value: int) -> None:
        queue = self.grbm.selected_queue()
        if not value & 1:
            state = self._queues.pop(queue, None)
            if state is not None:
                state.cancelled = True
            return
        error = self._activation_error(queue)
        if error:
            self.set_hqd(queue, "CP_HQD_ACTIVE", 0)
            self.set_hqd(queue, "CP_HQD_ERROR", error)
            return
        rptr = self.hqd(queue, "CP_HQD_PQ_RPTR")
        wptr = self.hqd_pair(queue, "CP_HQD_PQ_WPTR_LO", "CP_HQD_PQ_WPTR_HI")
        self._activations += 1
        me, pipe, number = queue
        task = f"me{me} pipe{pipe} queue{number} activation {self._activations}"
        state = QueueState(QueueProcessor(self, queue, rptr), task, wptr)
        self._queues[queue] = state
        if wptr != rptr:
            self._start(queue, state)

    def _activation_error(self, queue: QueueId) -> int:
        """CP_HQD_ERROR bits when the descriptor cannot be connected, 0 when it can. Loads the MQD's compute state."""
        error = self.register("CP_HQD_ERROR").encode
        me, pipe, number = queue
        if me != 1 or pipe >= PIPES or number >= QUEUES_PER_PIPE or not self.running:
            return error(QU_UTCL1_ERROR=1)
        mqd_va = self.hqd_pair(queue, "CP_MQD_BASE_ADDR", "CP_MQD_BASE_ADDR_HI")
        try:
            mqd = self.hub.view(0).read(mqd_va, V11_COMPUTE_MQD.size_bytes)
        except MemoryViolation:
            return error(QU_UTCL1_ERROR=1)
        if V11_COMPUTE_MQD.get(mqd, "header") != MQD_HEADER or not self._matches(queue, mqd):
            return error(QU_UTCL1_ERROR=1)
        ring_va = self.hqd_pair(queue, "CP_HQD_PQ_BASE", "CP_HQD_PQ_BASE_HI") << 8
        try:
            self.hub.view(self.hqd(queue, "CP_HQD_VMID") & 15).read(ring_va, 4)
        except MemoryViolation:
            return error(PQ_UTCL1_ERROR=1)
        for name, member in V11_COMPUTE_MQD.members.items():
            if name.startswith("compute_") and name.upper() in self.card.registers.block("GC"):
                self.set_hqd(queue, name.upper(), V11_COMPUTE_MQD.get(mqd, name, 0) if member.size == 4 else 0)
        return 0

    def _matches(self, queue: QueueId, mqd: bytes) -> bool:
        """Whether the registers hold what the MQD in memory says: firmware reads it again at the next connect."""
        pairs = (
            ("CP_HQD_PQ_BASE", "cp_hqd_pq_base_lo"),
            ("CP_HQD_PQ_BASE_HI", "cp_hqd_pq_base_hi"),
            ("CP_HQD_PQ_CONTROL", "cp_hqd_pq_control"),
            ("CP_HQD_VMID", "cp_hqd_vmid"),
            ("CP_HQD_PQ_DOORBELL_CONTROL", "cp_hqd_pq_doorbell_control"),
        )
        return all(self.hqd(queue, register) == V11_COMPUTE_MQD.get(mqd, member) for register, member in pairs)

    def _dequeue_written(self, value: int) -> None:
        queue = self.grbm.selected_queue()
        state = self._queues.get(queue)
        request = value & 0xF
        if state is None or not request:
            self.set_hqd(queue, "CP_HQD_ACTIVE", 0)
            return
        if request == DEQUEUE_RESET_WAVES:
            self._reset_waves(queue, state)
        else:
            state.draining = True
            self._settle(queue, state)

    def _queue_reset_written(self, value: int) -> None:
        queue = self.grbm.selected_queue()
        state = self._queues.get(queue)
        if value & 1 and state is not None:
            self._reset_waves(queue, state)

    def _reset_waves(self, queue: QueueId, state: QueueState) -> None:
        state.cancelled = True
        state.hung = False
        self.grbm.show_halted(None)
        self._settle(queue, state)

    def _settle(self, queue: QueueId, state: QueueState) -> None:
        if not self.card.worker.has(state.task) and not state.hung:
            self.card.clock.after(DEQUEUE_S, lambda: self._deactivate_if(queue, state))

    def _deactivate_if(self, queue: QueueId, state: QueueState) -> None:
        if self._queues.get(queue) is state:
            self._deactivate(queue)

    def _deactivate(self, queue: QueueId) -> None:
        self._queues.pop(queue, None)
        self.set_hqd(queue, "CP_HQD_ACTIVE", 0)
        self.card.changed.notify_all()

    def _control_written(self, value: int) -> None:
        control = self._control.register.decode(value)
        if control.MEC_PIPE0_RESET:
            self.soft_reset()
