"""MES of gfx11: the micro engine with two pipes, the scheduler and the kernel interface queue.

Its rings are ME3's hardware queues, whose registers mec_11_0.py has. Sources: Linux 6.12 mes_v11_0.c
(mes_v11_0_enable, mes_v11_0_get_fw_version, mes_v11_0_kiq_hw_init), gc_11_0_0_default.h.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from amdrv.emulator.mes.messages import MESSAGES, Handler
from amdrv.emulator.mes.processes import Process, Processes, ScheduledQueue
from amdrv.emulator.mes.ring import SchedulerRing
from amdrv.emulator.model import Model
from amdrv.emulator.models.cp_gfx_11_0 import CpGfx
from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.emulator.models.grbm_11_0 import Grbm
from amdrv.emulator.models.mec_11_0 import SCHEDULER_ME, Mec
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.pm4.queue_engine import Processor, QueueEngine, QueueId, QueueState
from amdrv.facts.mes_v11 import MiscOpcode, QueueType
from amdrv.facts.psp import FwType
from amdrv.registers.fields import BitLayout

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

PIPES = 2
IMAGES = (FwType.CP_MES, FwType.CP_MES_KIQ)  # of each pipe
# CP_MES_GP3_LO: firmware version 11:0, interface version 23:12, features 31:24 (amdgpu_mes.h, AMDGPU_MES_*_MASK).
VERSION_MASK, API_VERSION, FEATURES = 0xFFF, 2 << 12, 1 << 24
PREEMPT_S = 1.0  # inferred: how long a queue may take to leave its slot before its waves are killed
BANKED = (
    "CP_MES_PRGRM_CNTR_START",
    "CP_MES_PRGRM_CNTR_START_HI",
    "CP_MES_IC_BASE_LO",
    "CP_MES_IC_BASE_HI",
    "CP_MES_IC_BASE_CNTL",
    "CP_MES_IC_OP_CNTL",
    "CP_MES_MIBOUND_LO",
    "CP_MES_MDBASE_LO",
    "CP_MES_MDBASE_HI",
    "CP_MES_MDBOUND_LO",
)

# Which doorbells wake the scheduler that belong to no mapped queue. It has no effect here: a place is given away when
# a message leaves one free.
PLAIN = (
    "CP_UNMAPPED_DOORBELL",  # gfx12's
    "CP_MES_DOORBELL_CONTROL1",
    "CP_MES_DOORBELL_CONTROL2",
    "CP_MES_DOORBELL_CONTROL3",
    "CP_MES_DOORBELL_CONTROL4",
    "CP_MES_DOORBELL_CONTROL5",
)


class Mes(Model):
    """The scheduler: which process has which VMID, which queue which slot."""

    ip = "GC"
    messages: Mapping[int, tuple[BitLayout, Handler]] = MESSAGES
    misc_opcodes: frozenset[int] = frozenset(MiscOpcode)
    trace_language = "mes"  # of emulator/trace_packets.py

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._grbm = card.model(Grbm)
        self.hub = card.model(Gfxhub)
        self.processes = Processes(card, self.hub)
        self.slots: dict[int, list[QueueId]] = {}
        self.suspended_gangs: set[int] = set()
        self._control = self.claim("CP_MES_CNTL", reset=0x4000_0000, on_write=self._control_written)
        for name in BANKED:
            self.claim(name, reset=self.register(name).reset_value, bank=self._pipe)
        for name in PLAIN:
            if name in self.registers:
                self.claim(name, reset=self.register(name).reset_value)
        self.claim("CP_MES_GP3_LO", writable=0, on_read=self._version)

    def power_on(self) -> None:
        self.processes.clear()
        self.slots = {}
        self.suspended_gangs = set()

    def running(self, pipe: int) -> bool:
        """Whether a pipe executes: image accepted, active, neither halted nor in reset."""
        control = self._control.register.decode(self._control.value).decoded()
        return bool(
            pipe < PIPES
            and self.card.model(Rlc).runs(IMAGES[pipe])
            and control[f"MES_PIPE{pipe}_ACTIVE"]
            and not control[f"MES_PIPE{pipe}_RESET"]
            and not control["MES_HALT"]
        )

    def schedules(self, pipe: int) -> bool:
        """Whether a pipe's ring holds messages for the scheduler; the other pipe is the kernel interface queue."""
        return pipe == 0

    def ring_processor(self, queue: QueueId, rptr: int) -> Processor:
        """What executes the scheduler's ring."""
        return SchedulerRing(self.card.model(Mec), self, queue, rptr)

    # -- for the messages ---------------------------------------------------------------------------------------------

    def engine(self, kind: int, pipe: int) -> QueueEngine:
        """The block that runs queues of a type. Raises LookupError."""
        from amdrv.emulator.models.sdma_6_0 import Sdma  # another block, built after this one

        if kind == QueueType.COMPUTE:
            return self.card.model(Mec)
        if kind == QueueType.GFX:
            return self.card.model(CpGfx)
        if kind == QueueType.SDMA:
            return self.card.models(Sdma)[pipe]
        raise LookupError(f"queue type {kind}")

    def legacy_slot(self, kind: int, pipe: int, number: int) -> QueueId:
        """Slot of a kernel queue that comes with its place."""
        if kind == QueueType.SDMA:
            return pipe, 0, number
        return (1 if kind == QueueType.COMPUTE else 0), pipe, number

    def connected(self, doorbell: int) -> tuple[QueueEngine, QueueId, QueueState] | None:
        """The mapped queue behind a doorbell."""
        with self.card.lock:
            for engine in self.card.models(QueueEngine):
                found = engine.by_doorbell(doorbell)
                if found is not None:
                    return engine, *found
        return None

    def unmap(
        self, engine: QueueEngine, queue: QueueId, state: QueueState, *, reset: bool = False
    ) -> Iterator[None]:
        """Take a queue off its slot and save it. One that does not go has its waves killed, one that hangs at once:

        there is nothing to wait for, and Linux 6.1 waits for a tenth of a second only.
        """
        deadline_s = time.monotonic() + PREEMPT_S
        with self.card.lock:
            state.suspended = False
            for process in self.processes.by_context.values():
                for scheduled in process.queues.values():
                    if (scheduled.engine, scheduled.slot) == (engine, queue):
                        scheduled.slot = None
        for _ in engine.unmap_queue(queue, state, reset=reset or state.hung):
            if time.monotonic() > deadline_s:
                with self.card.lock:
                    engine.stop(queue, state, reset=True)
            yield

    def place(self, process: Process, queue: ScheduledQueue) -> bool:
        """Map a process's queue, when a VMID and a slot are free."""
        taken = {engine_queue for engine in self.card.models(QueueEngine) for engine_queue in self._slots_of(engine)}
        for slot in self.slots.get(queue.kind, []):
            engine = self.engine(queue.kind, slot[0] if queue.kind == QueueType.SDMA else 0)
            wanted = engine.wanted_slot(queue.mapping)
            if (id(engine), slot) in taken or (wanted is not None and wanted != slot[0]):
                continue
            if not self.processes.give_vmid(process):
                return False
            queue.engine, queue.slot = engine, slot
            engine.map_queue(slot, queue.mapping._replace(vmid=process.vmid))
            if queue.gang in self.suspended_gangs:
                engine.queues[slot].suspended = True
            return True
        return False

    def place_waiting(self) -> None:
        """Map what has been waiting for room."""
        for process in self.processes.by_context.values():
            for queue in process.queues.values():
                if queue.slot is None:
                    self.place(process, queue)

    def gang_states(self, gang: int | None) -> Iterator[tuple[int, QueueState]]:
        """(gang, state) of the mapped queues of one gang, or of all."""
        for process in self.processes.by_context.values():
            for queue in process.queues.values():
                if queue.slot is not None and gang in (None, queue.gang) and queue.slot in queue.engine.queues:
                    yield queue.gang, queue.engine.queues[queue.slot]

    def gang_queues(self, gang: int) -> list[tuple[QueueEngine, QueueId, QueueState]]:
        """Mapped queues of one gang."""
        return [
            (queue.engine, queue.slot, queue.engine.queues[queue.slot])
            for process in self.processes.by_context.values()
            for queue in process.queues.values()
            if queue.gang == gang and queue.slot is not None and queue.slot in queue.engine.queues
        ]

    def load_register(self, dword: int) -> int:
        """Read a register by its dword index."""
        with self.card.lock:
            return self.card.space.read(4 * dword)

    def store_register(self, dword: int, value: int) -> None:
        """Write a register by its dword index."""
        with self.card.lock:
            self.card.space.write(4 * dword, value)

    @staticmethod
    def _slots_of(engine: QueueEngine) -> Iterator[tuple[int, QueueId]]:
        return ((id(engine), queue) for queue in engine.queues)

    # -- registers ----------------------------------------------------------------------------------------------------

    def _pipe(self) -> int:
        return self._grbm.selected_queue()[1]

    def _version(self) -> int:
        """What a running pipe says about its firmware; zero before."""
        me, pipe, _ = self._grbm.selected_queue()
        image = self.card.model(Psp).loaded(IMAGES[pipe]) if pipe < PIPES else None
        if me != SCHEDULER_ME or image is None or not self.running(pipe):
            return 0
        return image.version & VERSION_MASK | API_VERSION | FEATURES

    def _control_written(self, value: int) -> None:
        control = self._control.register.decode(value).decoded()
        mec = self.card.model(Mec)
        for pipe in range(PIPES):
            state = mec.queues.get((SCHEDULER_ME, pipe, 0))
            if control[f"MES_PIPE{pipe}_RESET"] and state is not None:
                state.cancelled = True
                mec.disconnect((SCHEDULER_ME, pipe, 0))
