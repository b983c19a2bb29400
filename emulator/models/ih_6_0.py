"""IH 6.0 (OSSSYS): the interrupt ring. Other models post to it; it writes entries and pointer, and sends the MSI.

Sources: Linux 6.12 ih_v6_0.c (ih_v6_0_enable_ring, ih_v6_0_get_wptr, ih_v6_0_irq_rearm), amdkfd/soc15_int.h.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from amdrv.emulator.arena import BusError
from amdrv.emulator.model import Model
from amdrv.facts.ih import ENTRY, ENTRY_BYTES

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card
    from amdrv.registers import RegisterValue

log = logging.getLogger(__name__)

DWORD_BYTES = 4
VMIDS = 16
SPACE_BUS_ADDRESS, SPACE_GPU_ADDRESS = 2, 4  # MC_SPACE
OFFSET_MASK = 0x3_FFFC  # OFFSET of the read and write pointers: bytes
WPTR_OVERFLOW = 1
PLAIN = (
    "IH_CNTL",
    "IH_CNTL2",
    "IH_INT_FLOOD_CNTL",
    "IH_STORM_CLIENT_LIST_CNTL",
    "IH_MSI_STORM_CTRL",
    "IH_CLK_CTRL",
    "IH_MEM_POWER_CTRL",
    "IH_RETRY_INT_CAM_CNTL",
    # The second ring is set up by drivers and never used: nothing here is redirected to it.
    "IH_RB_CNTL_RING1",
    "IH_RB_BASE_RING1",
    "IH_RB_BASE_HI_RING1",
    "IH_RB_RPTR_RING1",
    "IH_RB_WPTR_RING1",
    "IH_DOORBELL_RPTR_RING1",
    "IH_RING1_CLIENT_CFG_INDEX",
    "IH_RING1_CLIENT_CFG_DATA",
)


class IhModel(Model):
    """The interrupt handler of Navi3x."""

    ip = "OSSSYS"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        for name in PLAIN:
            self.claim(name)
        self._control = self.claim("IH_RB_CNTL", on_write=self._control_written)
        self._base = self.claim("IH_RB_BASE")
        self._base_hi = self.claim("IH_RB_BASE_HI", writable=0xFF)
        self._rptr = self.claim("IH_RB_RPTR", writable=OFFSET_MASK, on_write=lambda _: self._rearm())
        self._wptr = self.claim("IH_RB_WPTR", writable=OFFSET_MASK)
        self._wptr_address_lo = self.claim("IH_RB_WPTR_ADDR_LO", writable=0xFFFF_FFFC)
        self._wptr_address_hi = self.claim("IH_RB_WPTR_ADDR_HI", writable=0xFFFF)
        self._doorbell = self.claim("IH_DOORBELL_RPTR")
        self._chicken = self.claim("IH_CHICKEN")
        idle = self.register("IH_STATUS").encode(IDLE=1, INPUT_IDLE=1, BUFFER_IDLE=1)
        self.claim("IH_STATUS", writable=0, reset=idle)
        self._pasids = {
            hub: [self.claim(f"IH_VMID_{vmid}_LUT{hub}", writable=0xFFFF) for vmid in range(VMIDS)]
            for hub in ("", "_MM")
        }
        self._clear_was_set = False
        self.dropped = 0  # entries that found no ring to go to

    def power_on(self) -> None:
        self._clear_was_set = False

    def post(
        self,
        client_id: int,
        source_id: int,
        ring_id: int,
        vmid: int,
        pasid: int | None,
        context: tuple[int, int, int, int],
        *,
        from_mmhub: bool = False,
    ) -> None:
        """Put one entry into the ring and interrupt the host; safe from any thread.

        ``context`` are the four dwords whose meaning the source defines. ``pasid`` None looks the VMID up, as silicon
        does. Without an enabled ring the entry is dropped.
        """
        with self.card.lock:
            control = self._decoded_control()
            if not control.RB_ENABLE:
                self.dropped += 1
                return
            if pasid is None:
                pasid = self._pasids["_MM" if from_mmhub else ""][vmid].value
            entry = ENTRY.encode(
                CLIENT_ID=client_id,
                SOURCE_ID=source_id,
                RING_ID=ring_id,
                VMID=vmid,
                VMID_SOURCE=int(from_mmhub),
                TIMESTAMP=self.card.realtime(),
                PASID=pasid,
                **{f"DATA{n}": dword & 0xFFFF_FFFF for n, dword in enumerate(context)},
            )
            self._append(control, b"".join(dword.to_bytes(DWORD_BYTES, "little") for dword in entry))

    def doorbell(self, offset: int, width: int, value: int) -> None:
        doorbell = self._doorbell.register.decode(self._doorbell.value)
        if doorbell.ENABLE and offset // DWORD_BYTES == doorbell.OFFSET:
            self._rptr.value = value & OFFSET_MASK
            self._rearm()

    # -- the ring -----------------------------------------------------------------------------------------------------

    def _append(self, control: RegisterValue, entry: bytes) -> None:
        ring_bytes = DWORD_BYTES << control.RB_SIZE
        wptr = self._wptr.value & OFFSET_MASK
        following = (wptr + ENTRY_BYTES) % ring_bytes
        overflow = self._wptr.value & WPTR_OVERFLOW
        if following == self._rptr.value % ring_bytes:
            if not control.WPTR_OVERFLOW_ENABLE:
                self.dropped += 1
                return
            overflow = WPTR_OVERFLOW  # the oldest entry is lost from here on
        base = self._base_hi.value << 40 | self._base.value << 8
        if not self._store(control, base + wptr, entry):
            log.info("%s: interrupt ring at %#x cannot be written", self.card.name, base)
            self.dropped += 1
            return
        self._wptr.value = following | overflow
        if control.WPTR_WRITEBACK_ENABLE:
            address = self._wptr_address_hi.value << 32 | self._wptr_address_lo.value
            self._store(control, address, self._wptr.value.to_bytes(DWORD_BYTES, "little"))
        self._interrupt(control)

    def _store(self, control: RegisterValue, address: int, data: bytes) -> bool:
        if control.MC_SPACE == SPACE_GPU_ADDRESS and control.MC_VMID == 0:
            return self.card.write_mc(address, data)
        chicken = self._chicken.register.decode(self._chicken.value)
        if control.MC_SPACE != SPACE_BUS_ADDRESS or not chicken.MC_SPACE_GPA_ENABLE or not self.card.bus_master:
            return False
        try:
            index = self.card.arena.bus_index(address, len(data))
        except BusError:
            return False
        self.card.arena.view(index, len(data))[:] = data
        return True

    def _control_written(self, value: int) -> None:
        clear = bool(self._control.register.decode(value).WPTR_OVERFLOW_CLEAR)
        if clear and not self._clear_was_set:
            self._wptr.value &= ~WPTR_OVERFLOW
        self._clear_was_set = clear

    def _rearm(self) -> None:
        """The host has read up to the read pointer; with RPTR_REARM what is left interrupts again."""
        control = self._decoded_control()
        if control.RPTR_REARM and control.RB_ENABLE and self._rptr.value != self._wptr.value & OFFSET_MASK:
            self._interrupt(control)

    def _interrupt(self, control: RegisterValue) -> None:
        if control.ENABLE_INTR:
            self.card.raise_interrupt()
        else:
            self.card.notify()

    def _decoded_control(self) -> RegisterValue:
        return self._control.register.decode(self._control.value)
