"""SDMA 6.0: a copy engine with eight queues, each a ring with registers, a doorbell and a VMID.

Queue 0 is set up through registers by the kernel; the others come from descriptors that MES maps. Sources: Linux 6.12
sdma_v6_0.c (sdma_v6_0_gfx_resume, sdma_v6_0_enable, sdma_v6_0_soft_reset, sdma_v6_0_mqd_init), amdgpu_amdkfd_gfx_v11.c
(hqd_sdma_load_v11, hqd_sdma_destroy_v11), gc_11_0_0_default.h.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.emulator.models.grbm_11_0 import Grbm
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.models.mec_11_0 import Mec
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.pm4.queue_engine import (
    BadDescriptor,
    Mapping,
    QueueEngine,
    QueueId,
    QueueState,
    RingSetup,
)
from amdrv.emulator.pm4.stream import BadPacket
from amdrv.emulator.sdma.layouts import SDMA_6_0, CopyLayouts
from amdrv.emulator.sdma.ring import SdmaRing
from amdrv.facts.ih_ids import Client, GfxSource
from amdrv.facts.layout import StructLayout
from amdrv.facts.mqd_v11 import V11_SDMA_MQD
from amdrv.facts.pm4 import GCR_CNTL
from amdrv.facts.psp import FwType
from amdrv.registers.fields import decode_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from amdrv.emulator.register_space import Slot
    from amdrv.emulator.shell import Card
    from amdrv.registers import Register, RegisterBlock

log = logging.getLogger(__name__)

QUEUES = 8
SECOND_ENGINE_DWORDS = 0x600
WATCHDOG_UNIT_S = 0.1
EXCEPTION = 1  # of CONTEXT_STATUS: any but zero; which is which is not known
FIRST_CLIENT = 13  # gfxhub_client_ids: SDMA0, then SDMA1
MQD_PREFIX = "sdmax_rlcx_"
OTHER_NAMES = {"SCHED_CNTL": "SCHEDULE_CNTL"}  # of the descriptor → of the registers
PLAIN = (
    "CNTL",
    "CNTL1",
    "CHICKEN_BITS",
    "CHICKEN_BITS_2",
    "CLOCK_GATING_STATUS",
    "POWER_CNTL",
    "RLC_CGCG_CTRL",
    "SEM_WAIT_FAIL_TIMER_CNTL",
    "WATCHDOG_CNTL",
    "UTCL1_CNTL",
    "UTCL1_PAGE",
    "UTCL1_TIMEOUT",
    "UTCL1_RD_STATUS",
    "UTCL1_WR_STATUS",
    "UTCL1_RD_XNACK0",
    "UTCL1_RD_XNACK1",
    "UTCL1_WR_XNACK0",
    "UTCL1_WR_XNACK1",
    "RELAX_ORDERING_LUT",
    "GLOBAL_QUANTUM",
    "STATUS1_REG",
    "STATUS2_REG",
    "STATUS3_REG",
    "STATUS4_REG",
    "STATUS5_REG",
    "STATUS6_REG",
    "RB_RPTR_FETCH",
    "RB_RPTR_FETCH_HI",
    "INT_STATUS",
    "QUEUE_STATUS0",
    "UCODE_CHECKSUM",
    "UCODE_REV",
    "VM_CNTL",
    "FREEZE",
)


class Sdma(QueueEngine):
    """One of the two copy engines."""

    ip = "SDMA0"
    mqd: StructLayout = V11_SDMA_MQD
    trace_language = "sdma"  # of emulator/trace_packets.py
    copies: CopyLayouts = SDMA_6_0
    writes_whole_registers = False  # what SRBM_WRITE does

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self.grbm = card.model(Grbm)
        self.hub = card.model(Gfxhub)
        self.fault_client = FIRST_CLIENT + self.number
        self.grbm.on_sdma_reset[self.number] = self.stop_all
        self.grbm.sdma_busy_parts.append(self.busy)
        self._local_time_offset = 0
        self._mqds: dict[int, int] = {}  # queue → address of its descriptor
        self._queue_slots: dict[tuple[int, str], Slot] = {}
        self._control = self.claim(self._name("F32_CNTL"), reset=self.register(self._name("F32_CNTL")).reset_value)
        self.claim(self._name("STATUS_REG"), writable=0, on_read=self._status)
        self._resets = self.claim(
            self._name("QUEUE_RESET_REQ"), on_read=self._pending_resets, on_write=self._reset_queues
        )
        block = card.registers.block(self.ip, instance)
        for short in PLAIN:
            if self._name(short) in block:
                self.claim(self._name(short), reset=self.register(self._name(short)).reset_value)
        self._engine_control = self.register(self._name("CNTL"))
        self._watchdog = self.register(self._name("WATCHDOG_CNTL"))
        if self.number:
            # Linux adds the distance between the engines to every register of its list, to one of the graphics core
            # as well (sdma_v6_0_dump_ip_state).
            status = card.registers.block("GC")["GRBM_STATUS2"].dword + SECOND_ENGINE_DWORDS
            self.claim_hole("SDMA1_GRBM_STATUS2", status)
        names = list(block)
        for number in range(QUEUES):
            self._claim_queue(number, [name for name in names if name.startswith(self._name(f"QUEUE{number}_"))])

    def power_on(self) -> None:
        super().power_on()
        self._local_time_offset = 0
        self._mqds.clear()

    def may_run(self, queue: QueueId) -> bool:
        """Image accepted, not halted, not frozen."""
        control = self._control.register.decode(self._control.value)
        frozen = self.card.space.read(self.register(self._name("FREEZE")).address) & 1
        return self.card.model(Rlc).runs(FwType.SDMA_UCODE_TH0) and not control.HALT and not frozen

    def starts_waves(self, queue: QueueId) -> bool:
        """No."""
        return False

    # -- doorbells and rings ------------------------------------------------------------------------------------------

    def doorbell(self, offset: int, width: int, value: int) -> None:
        """A doorbell hands a queue its new write pointer, in bytes."""
        found = self.by_doorbell(offset // 4)
        if found is not None:
            queue, state = found
            state.wptr = value
            self._set(queue[2], "RB_WPTR", value & 0xFFFF_FFFF)
            self._set(queue[2], "RB_WPTR_HI", value >> 32)
            self.start(queue, state)

    def doorbell_dword(self, queue: QueueId) -> int | None:
        """From DOORBELL and DOORBELL_OFFSET."""
        if not self._field(queue[2], "DOORBELL", "ENABLE"):
            return None
        return self._field(queue[2], "DOORBELL_OFFSET", "OFFSET")

    def ring_setup(self, queue: QueueId) -> RingSetup:
        """From the queue's RB registers."""
        number = queue[2]
        control = self._register(number, "RB_CNTL").decode(self._get(number, "RB_CNTL"))
        report = self._get(number, "RB_RPTR_ADDR_HI") << 32 | self._get(number, "RB_RPTR_ADDR_LO") & ~3
        return RingSetup(
            base=(self._get(number, "RB_BASE_HI") << 32 | self._get(number, "RB_BASE")) << 8,
            size_dwords=1 << control.RB_SIZE,
            vmid=control.RB_VMID,
            rptr_report=report if control.RPTR_WRITEBACK_ENABLE else 0,
            privileged=bool(control.RB_PRIV),
        )

    def report_rptr(self, queue: QueueId, rptr: int) -> None:
        """RB_RPTR, and 64 bits in memory."""
        self._set(queue[2], "RB_RPTR", rptr & 0xFFFF_FFFF)
        self._set(queue[2], "RB_RPTR_HI", rptr >> 32)
        setup = self.ring_setup(queue)
        if setup.rptr_report:
            self.hub.view(setup.vmid).write(setup.rptr_report, rptr.to_bytes(8, "little"))
            self.card.changed.notify_all()

    def wanted_slot(self, mapping: Mapping) -> int | None:
        """The engine that the descriptor names: the driver has chosen its doorbell accordingly."""
        return self.hub.view(0).read32(mapping.mqd_va + self.mqd.offset("sdma_engine_id"))

    def map_queue(self, queue: QueueId, mapping: Mapping) -> None:
        """Load a queue's registers from its descriptor."""
        with self.card.lock:
            number = queue[2]
            if queue[0] != self.number or number >= QUEUES or not self.may_run(queue):
                raise BadDescriptor(f"copy queue {queue} does not exist, or its engine does not run")
            mqd = self.hub.view(0).read(mapping.mqd_va, self.mqd.size_bytes)
            if queue in self.queues:
                self.queues[queue].cancelled = True
                self.disconnect(queue)
            for name in self.mqd.members:
                short = name.removeprefix(MQD_PREFIX).upper()
                short = OTHER_NAMES.get(short, short)
                if name.startswith(MQD_PREFIX) and self._name(f"QUEUE{number}_{short}") in self._block():
                    self._set(number, short, self.mqd.get(mqd, name))
            control = self._register(number, "RB_CNTL").decode(self._get(number, "RB_CNTL")).replace(RB_ENABLE=1)
            if mapping.vmid is not None:
                control = control.replace(RB_VMID=mapping.vmid)
            self._set(number, "RB_CNTL", int(control))
            self._set(number, "DOORBELL", self._register(number, "DOORBELL").encode(ENABLE=1))
            offset = self._register(number, "DOORBELL_OFFSET").encode(OFFSET=mapping.doorbell)
            self._set(number, "DOORBELL_OFFSET", offset)
            self._set(number, "IB_CNTL", self._get(number, "IB_CNTL") | 1)
            wptr = self._pair(number, "RB_WPTR")
            if mapping.wptr_va:
                wptr = self.hub.view(0).read64(mapping.wptr_va & ~7)
            self._mqds[number] = mapping.mqd_va
            self.connect(queue, SdmaRing(self, queue, self._pair(number, "RB_RPTR")), wptr)

    def save_queue(self, queue: QueueId, state: QueueState) -> None:
        """Pointers go back into the descriptor."""
        mqd_va = self._mqds.get(queue[2])
        if mqd_va is None:
            return
        values = {
            "sdmax_rlcx_rb_rptr": state.processor.rptr & 0xFFFF_FFFF,
            "sdmax_rlcx_rb_rptr_hi": state.processor.rptr >> 32,
            "sdmax_rlcx_rb_wptr": state.wptr & 0xFFFF_FFFF,
            "sdmax_rlcx_rb_wptr_hi": state.wptr >> 32,
        }
        for name, value in values.items():
            self.hub.view(0).write(mqd_va + self.mqd.offset(name), value.to_bytes(4, "little"))

    def disconnect(self, queue: QueueId) -> None:
        """Forget a queue; its read pointer stays in its registers."""
        state = self.queues.get(queue)
        if state is not None:
            self._set(queue[2], "RB_RPTR", state.processor.rptr & 0xFFFF_FFFF)
            self._set(queue[2], "RB_RPTR_HI", state.processor.rptr >> 32)
        super().disconnect(queue)

    def show_disconnected(self, queue: QueueId) -> None:
        """RB_ENABLE."""
        self._set(queue[2], "RB_CNTL", self._get(queue[2], "RB_CNTL") & ~1)

    # -- for the packets ----------------------------------------------------------------------------------------------

    def send_trap(self, queue: QueueId, vmid: int, context: int) -> None:
        """The interrupt of a TRAP: ring id is engine << 4 | queue (sdma_v6_0_process_trap_irq)."""
        with self.card.lock:
            control = self._engine_control.decode(self.card.space.read(self._engine_control.address))
            if control.TRAP_ENABLE:
                self._interrupt(queue, vmid, GfxSource.SDMA_TRAP, context)

    def _interrupt(self, queue: QueueId, vmid: int, source: GfxSource, context: int) -> None:
        self.card.model(IhModel).post(
            client_id=Client.GFX,
            source_id=source,
            ring_id=self.number << 4 | queue[2],
            vmid=vmid,
            pasid=None,
            context=(context, 0, 0, 0),
        )

    def bad_packet(self, queue: QueueId, bad: BadPacket) -> None:
        """The engine stops at what it does not know."""
        log.warning("%s: copy engine %d queue %d: %s", self.card.name, self.number, queue[2], bad)

    def watch(self, queue: QueueId, state: QueueState, vmid: int) -> None:
        """A queue hangs: the watchdog interrupts the host when it still does after QUEUE_HANG_COUNT tenths of a second.

        Its unit: sdma_v6_0_gfx_resume ("100ms per unit"). That it sees these hangs is inferred.
        """

        def bark() -> None:
            if state.hung and self.queues.get(queue) is state:
                self._interrupt(queue, vmid, GfxSource.SDMA_QUEUE_HANG, 0)

        with self.card.lock:
            control = self._watchdog.decode(self.card.space.read(self._watchdog.address))
            if control.QUEUE_HANG_COUNT:
                self.card.clock.after(control.QUEUE_HANG_COUNT * WATCHDOG_UNIT_S, bark)

    def local_time(self) -> int:
        """The engine's own time stamp."""
        return (self.card.realtime() + self._local_time_offset) & (1 << 64) - 1

    def set_local_time(self, value: int) -> None:
        """Let the engine's own time stamp go on from ``value``."""
        self._local_time_offset = value - self.card.realtime()

    def maintain_caches(self, gcr_control: int) -> None:
        """What GCR_REQ asks for, in the bits of GCR_CNTL."""
        control = decode_fields(GCR_CNTL, gcr_control)
        if control["GLI_INV"]:
            self.card.model(Mec).invalidate_code()
        with self.card.lock:
            self.card.caches.maintain(control)

    # -- access to registers ------------------------------------------------------------------------------------------

    def _block(self) -> RegisterBlock:
        return self.card.registers.block(self.ip, self.instance)

    def _name(self, short: str) -> str:
        return f"SDMA{self.number}_{short}"

    def _register(self, number: int, short: str) -> Register:
        return self._queue_slots[number, short].register

    def _get(self, number: int, short: str) -> int:
        return self._queue_slots[number, short].value

    def _set(self, number: int, short: str, value: int) -> None:
        self._queue_slots[number, short].value = value

    def _field(self, number: int, short: str, field: str) -> int:
        slot = self._queue_slots[number, short]
        return slot.register.fields[field].get(slot.value)

    def _pair(self, number: int, short: str) -> int:
        return self._get(number, f"{short}_HI") << 32 | self._get(number, short)

    # -- registers ----------------------------------------------------------------------------------------------------

    def _claim_queue(self, number: int, names: list[str]) -> None:
        queue = self.number, 0, number
        hooks: dict[str, Callable[[int], None]] = {
            "RB_CNTL": partial(self._control_written, queue),
            "RB_WPTR": partial(self._wptr_written, queue),
            "RB_WPTR_HI": partial(self._wptr_written, queue),
            "RB_RPTR": partial(self._rptr_written, queue),
            "RB_RPTR_HI": partial(self._rptr_written, queue),
        }
        reads: dict[str, Callable[[], int]] = {
            "RB_RPTR": partial(self._rptr, queue, 0),
            "RB_RPTR_HI": partial(self._rptr, queue, 32),
            "CONTEXT_STATUS": partial(self._context_status, queue),
        }
        prefix = self._name(f"QUEUE{number}_")
        for name in names:
            short = name.removeprefix(prefix)
            reset = self.register(name).reset_value
            slot = self.claim(name, reset=reset, on_write=hooks.get(short), on_read=reads.get(short))
            self._queue_slots[number, short] = slot

    def _control_written(self, queue: QueueId, value: int) -> None:
        state = self.queues.get(queue)
        if value & 1 and state is None:
            rptr = self._pair(queue[2], "RB_RPTR")
            self.connect(queue, SdmaRing(self, queue, rptr), self._pair(queue[2], "RB_WPTR"))
        elif not value & 1 and state is not None:
            state.cancelled = True
            self.disconnect(queue)

    def _reset_queues(self, value: int) -> None:
        """A bit a queue: what it is at ends at once, and it is off (Linux 6.17 mes_v12_0_reset_queue_mmio)."""
        for queue, state in list(self.queues.items()):
            if value >> queue[2] & 1:
                self.stop(queue, state, reset=True)

    def _pending_resets(self) -> int:
        return self._resets.value & sum(1 << queue[2] for queue in self.queues)

    def _wptr_written(self, queue: QueueId, _value: int) -> None:
        state = self.queues.get(queue)
        if state is not None:
            state.wptr = self._pair(queue[2], "RB_WPTR")
            self.start(queue, state)

    def _rptr_written(self, queue: QueueId, _value: int) -> None:
        """A driver that sets up a queue anew while it is on, but idle, starts from here."""
        state = self.queues.get(queue)
        if state is not None and not self.card.worker.has(state.task):
            state.processor.rptr = self._pair(queue[2], "RB_RPTR")

    def _rptr(self, queue: QueueId, shift: int) -> int:
        state = self.queues.get(queue)
        rptr = self._pair(queue[2], "RB_RPTR") if state is None else state.processor.rptr
        return rptr >> shift & 0xFFFF_FFFF

    def _context_status(self, queue: QueueId) -> int:
        state = self.queues.get(queue)
        busy = state is not None and self.card.worker.has(state.task)
        exception = EXCEPTION if state is not None and state.hung else 0
        return self._register(queue[2], "CONTEXT_STATUS").encode(
            SELECTED=busy, IDLE=not busy, EXCEPTION=exception, RPTR_WB_IDLE=1
        )

    def _status(self) -> int:
        register = self.register(self._name("STATUS_REG"))
        return int(register.decode(register.reset_value).replace(IDLE=not self.busy()))
