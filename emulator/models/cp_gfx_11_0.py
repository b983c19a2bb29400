"""The graphics pipes of the command processor of gfx11: rings, doorbells, packets that do not draw.

A ring comes as a hardware queue with a descriptor (mapped by KIQ or MES), or through the older CP_RB registers.
Sources: Linux 6.12 gfx_v11_0.c (gfx_v11_0_gfx_mqd_init, gfx_v11_0_cp_gfx_resume, gfx_v11_0_cp_gfx_enable,
gfx_v11_0_cp_set_doorbell_range), gc_11_0_0_default.h.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.emulator.models.grbm_11_0 import Grbm
from amdrv.emulator.models.mec_11_0 import Mec
from amdrv.emulator.models.rlc_11_0 import Rlc
from amdrv.emulator.pm4.graphics_packets import GRAPHICS_PACKETS
from amdrv.emulator.pm4.processor import QueueProcessor
from amdrv.emulator.pm4.queue_engine import (
    DEQUEUE_S,
    DOORBELL_PAGE_BYTES,
    BadDescriptor,
    Mapping,
    QueueEngine,
    QueueId,
    QueueState,
    RingSetup,
)
from amdrv.facts.layout import StructLayout
from amdrv.facts.mqd_v11 import V11_GFX_MQD
from amdrv.facts.psp import FwType

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

PIPES, QUEUES_PER_PIPE = 2, 8
BANKED_PREFIXES = ("CP_GFX_HQD_", "CP_GFX_MQD_")
BANKED = ("CP_RB_DOORBELL_CONTROL", "CP_RB_WPTR_POLL_ADDR_LO", "CP_RB_WPTR_POLL_ADDR_HI")
PLAIN = (
    "CP_RB_WPTR_DELAY",
    "CP_RB_WPTR_POLL_CNTL",
    "CP_RB_VMID",
    "CP_MAX_CONTEXT",
    "CP_DEVICE_ID",
    "CP_RB_STATUS",
)
OLD_RING = ("BASE", "BASE_HI", "CNTL", "RPTR_ADDR", "RPTR_ADDR_HI", "WPTR", "WPTR_HI", "ACTIVE")


class CpGfx(QueueEngine):
    """ME0: two pipes, PFP and ME taken together."""

    ip = "GC"
    fault_client = 6  # CPG of gfxhub_client_ids
    pipes = PIPES
    mqd: StructLayout = V11_GFX_MQD

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self.grbm = card.model(Grbm)
        self.hub = card.model(Gfxhub)
        self.mec = card.model(Mec)
        self.grbm.on_cp_reset.append(self.stop_all)
        self.grbm.busy_parts.append(self.busy)
        self._control = self.claim("CP_ME_CNTL", reset=0x1500_0000, on_write=self._control_written)
        self._range_lower = self.claim("CP_RB_DOORBELL_RANGE_LOWER")
        self._range_upper = self.claim("CP_RB_DOORBELL_RANGE_UPPER", reset=0x108)
        hooks = {
            "CP_GFX_HQD_ACTIVE": self._active_written,
            "CP_GFX_HQD_DEQUEUE_REQUEST": self._dequeue_written,
        }
        names = [name for name in card.registers.block("GC", instance) if name.startswith(BANKED_PREFIXES)]
        for name in (*names, *BANKED):
            register = self.register(name)
            self.claim(name, reset=register.reset_value, bank=self.grbm.selected_queue, on_write=hooks.get(name))
        self.claim("CP_VMID_RESET", on_write=self._queue_reset_written)
        for pipe in range(self.pipes):
            for part in OLD_RING:
                hook = partial(self._old_ring_written, pipe) if part in ("ACTIVE", "WPTR") else None
                self.claim(f"CP_RB{pipe}_{part}", on_write=hook)
            self.claim(f"CP_RB{pipe}_RPTR", writable=0)
        for name in PLAIN:
            self.claim(name)
        self._interrupts = [self.claim(f"CP_INT_CNTL_RING{pipe}") for pipe in range(self.pipes)]
        self._doorbell_control = self.register("CP_RB_DOORBELL_CONTROL")
        block = card.registers.block("GC", instance)
        banked = (*BANKED_PREFIXES, *BANKED)  # what a descriptor says goes into the register of the same name
        self._loaded = [n for n in self.mqd.members if n.upper().startswith(banked) and n.upper() in block]
        self._old_rings: set[QueueId] = set()  # those without a descriptor

    def power_on(self) -> None:
        super().power_on()
        self._old_rings.clear()

    def may_run(self, queue: QueueId) -> bool:
        """Images accepted, neither PFP nor ME halted."""
        rlc = self.card.model(Rlc)
        control = self._control.register.decode(self._control.value)
        images = rlc.runs(FwType.RS64_PFP) and rlc.runs(FwType.RS64_ME)
        return images and not control.PFP_HALT and not control.ME_HALT

    def hqd(self, queue: QueueId, name: str) -> int:
        """A register of a queue, whichever is selected."""
        return self.card.space.load_bank(self.register(name).address, queue)

    # -- doorbells and rings ------------------------------------------------------------------------------------------

    def doorbell(self, offset: int, width: int, value: int) -> None:
        """A doorbell in the engine's range hands a ring its new write pointer.

        The range counts in the kernel's page only: kernel logs of Navi31 have "ring gfx_32768.1.1 ib test pass", for a
        queue that MES maps to a doorbell outside the range in a later page (Linux 6.12 amdgpu_mes_self_test).
        """
        in_range = self._range_lower.value <= offset <= self._range_upper.value + 7
        if offset < DOORBELL_PAGE_BYTES and not in_range:
            return
        found = self.by_doorbell(offset // 4)
        if found is not None:
            queue, state = found
            state.wptr = value
            self._set(queue, "CP_GFX_HQD_WPTR", value & 0xFFFF_FFFF)
            self._set(queue, "CP_GFX_HQD_WPTR_HI", value >> 32)
            self.start(queue, state)

    def doorbell_dword(self, queue: QueueId) -> int | None:
        """From CP_RB_DOORBELL_CONTROL."""
        control = self._doorbell_control.decode(self.card.space.load_bank(self._doorbell_control.address, queue))
        return control.DOORBELL_OFFSET if control.DOORBELL_EN else None

    def interrupts(self, queue: QueueId, enable: str) -> bool:
        """By CP_INT_CNTL_RINGn."""
        slot = self._interrupts[queue[1]]
        return bool(slot.register.fields[enable].get(slot.value))

    def ring_setup(self, queue: QueueId) -> RingSetup:
        """From CP_GFX_HQD, or from CP_RB for a ring without a descriptor."""
        old = queue in self._old_rings
        prefix = f"CP_RB{queue[1]}" if old else "CP_GFX_HQD"
        control = self.register(f"{prefix}_CNTL").decode(self.hqd(queue, f"{prefix}_CNTL"))
        report = self.hqd(queue, f"{prefix}_RPTR_ADDR_HI") << 32 | self.hqd(queue, f"{prefix}_RPTR_ADDR")
        return RingSetup(
            base=(self.hqd(queue, f"{prefix}_BASE_HI") << 32 | self.hqd(queue, f"{prefix}_BASE")) << 8,
            size_dwords=2 << control.RB_BUFSZ,
            vmid=0 if old else self.hqd(queue, "CP_GFX_HQD_VMID") & 15,
            rptr_report=report & ~3,
            privileged=not control.RB_NON_PRIV,
        )

    def report_rptr(self, queue: QueueId, rptr: int) -> None:
        """CP_GFX_HQD_RPTR, and memory."""
        self._set(queue, "CP_GFX_HQD_RPTR", rptr & 0xF_FFFF)
        setup = self.ring_setup(queue)
        if setup.rptr_report:
            self.hub.view(setup.vmid).write(setup.rptr_report, (rptr & 0xFFFF_FFFF).to_bytes(4, "little"))
            self.card.changed.notify_all()

    def map_queue(self, queue: QueueId, mapping: Mapping) -> None:
        """What firmware does with a graphics descriptor."""
        with self.card.lock:
            me, pipe, number = queue
            if me or pipe >= self.pipes or number >= QUEUES_PER_PIPE or not self.may_run(queue):
                raise BadDescriptor(f"graphics queue {queue} does not exist, or its engine does not run")
            mqd = self.hub.view(0).read(mapping.mqd_va, self.mqd.size_bytes)
            if queue in self.queues:
                self.queues[queue].cancelled = True
                self.disconnect(queue)
            self._old_rings.discard(queue)
            for name in self._loaded:
                self._set(queue, name.upper(), self.mqd.get(mqd, name))
            self._set(queue, "CP_GFX_MQD_BASE_ADDR", mapping.mqd_va & 0xFFFF_FFFF)
            self._set(queue, "CP_GFX_MQD_BASE_ADDR_HI", mapping.mqd_va >> 32)
            control = self._doorbell_control.encode(DOORBELL_OFFSET=mapping.doorbell, DOORBELL_EN=1)
            self._set(queue, "CP_RB_DOORBELL_CONTROL", control)
            if mapping.vmid is not None:
                self._set(queue, "CP_GFX_HQD_VMID", mapping.vmid)
            wptr = self.hqd(queue, "CP_GFX_HQD_WPTR_HI") << 32 | self.hqd(queue, "CP_GFX_HQD_WPTR")
            if mapping.wptr_va:
                wptr = self.hub.view(0).read64(mapping.wptr_va & ~7)
            self._set(queue, "CP_GFX_HQD_ACTIVE", 1)
            self._connect(queue, self.hqd(queue, "CP_GFX_HQD_RPTR"), wptr)

    def save_queue(self, queue: QueueId, state: QueueState) -> None:
        """Pointers and the inactive flag go back into the descriptor."""
        address = self.hqd(queue, "CP_GFX_MQD_BASE_ADDR_HI") << 32 | self.hqd(queue, "CP_GFX_MQD_BASE_ADDR")
        values = {
            "cp_gfx_hqd_active": 0,
            "cp_gfx_hqd_rptr": state.processor.rptr & 0xFFFF_FFFF,
            "cp_gfx_hqd_wptr": state.wptr & 0xFFFF_FFFF,
            "cp_gfx_hqd_wptr_hi": state.wptr >> 32,
        }
        for name, value in values.items():
            self.hub.view(0).write((address & ~3) + self.mqd.offset(name), value.to_bytes(4, "little"))

    def show_disconnected(self, queue: QueueId) -> None:
        """CP_GFX_HQD_ACTIVE."""
        self._old_rings.discard(queue)
        self._set(queue, "CP_GFX_HQD_ACTIVE", 0)

    def _connect(self, queue: QueueId, rptr: int, wptr: int) -> None:
        self.connect(queue, QueueProcessor(self, self.mec, queue, rptr, GRAPHICS_PACKETS), wptr)

    def _set(self, queue: QueueId, name: str, value: int) -> None:
        self.card.space.store_bank(self.register(name).address, queue, value)

    # -- registers ----------------------------------------------------------------------------------------------------

    def _active_written(self, value: int) -> None:
        queue = self.grbm.selected_queue()
        if not value & 1:
            state = self.queues.pop(queue, None)
            if state is not None:
                state.cancelled = True
        elif queue[0] or not self.may_run(queue):
            self._set(queue, "CP_GFX_HQD_ACTIVE", 0)
        else:
            wptr = self.hqd(queue, "CP_GFX_HQD_WPTR_HI") << 32 | self.hqd(queue, "CP_GFX_HQD_WPTR")
            self._connect(queue, self.hqd(queue, "CP_GFX_HQD_RPTR"), wptr)

    def _dequeue_written(self, value: int) -> None:
        queue = self.grbm.selected_queue()
        state = self.queues.get(queue)
        if value & 1 and state is not None:
            self.stop(queue, state, reset=False, after_s=DEQUEUE_S)

    def _queue_reset_written(self, value: int) -> None:
        """mes_v11_0_reset_queue_mmio: the queues that PIPE0_QUEUES and PIPE1_QUEUES name."""
        request = self.register("CP_VMID_RESET").decode(value)
        for pipe, mask in enumerate((request.PIPE0_QUEUES, request.PIPE1_QUEUES)):
            for number in range(QUEUES_PER_PIPE):
                state = self.queues.get((0, pipe, number))
                if mask >> number & 1 and state is not None:
                    self.stop((0, pipe, number), state, reset=True, after_s=DEQUEUE_S)

    def _old_ring_written(self, pipe: int, _value: int) -> None:
        """A ring without a descriptor is there once CP_RB_ACTIVE is set; its write pointer is a register."""
        queue = (0, pipe, 0)
        active = self.hqd(queue, f"CP_RB{pipe}_ACTIVE") & 1
        wptr = self.hqd(queue, f"CP_RB{pipe}_WPTR_HI") << 32 | self.hqd(queue, f"CP_RB{pipe}_WPTR")
        state = self.queues.get(queue)
        if active and state is None:
            self._old_rings.add(queue)
            self._connect(queue, 0, wptr)
        elif state is not None and queue in self._old_rings:
            if active:
                state.wptr = wptr
                self.start(queue, state)
            else:
                state.cancelled = True
                self.disconnect(queue)

    def _control_written(self, value: int) -> None:
        control = self._control.register.decode(value)
        for pipe, in_reset in enumerate((control.ME_PIPE0_RESET, control.ME_PIPE1_RESET)):
            if in_reset:
                for queue, state in list(self.queues.items()):
                    if queue[1] == pipe:
                        state.cancelled = True
                        self.disconnect(queue)
