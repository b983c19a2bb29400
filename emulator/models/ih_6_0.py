"""IH 6.0 (OSSSYS): the interrupt rings. Other models post to it; it writes entries and pointer, and sends the MSI.

Ring 0 interrupts the host. Ring 1 takes the sources that IH_RING1_CLIENT_CFG redirects to it and has no interrupt of
its own: whenever its write pointer moves, ring 0 gets an entry that says so (the "self interrupt").

Sources: Linux 6.12 ih_v6_0.c (ih_v6_0_enable_ring, ih_v6_0_get_wptr, ih_v6_0_irq_rearm, ih_v6_0_irq_init,
ih_v6_0_self_irq), amdkfd/soc15_int.h.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING

from amdrv.emulator.arena import BusError
from amdrv.emulator.model import Model
from amdrv.facts.ih import ENTRY, ENTRY_BYTES
from amdrv.facts.ih_ids import Client

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card
    from amdrv.registers import RegisterValue

log = logging.getLogger(__name__)

DWORD_BYTES = 4
VMIDS = 16
SPACE_BUS_ADDRESS, SPACE_GPU_ADDRESS = 2, 4  # MC_SPACE
OFFSET_MASK = 0x3_FFFC  # OFFSET of the read and write pointers: bytes
WPTR_OVERFLOW = 1
REDIRECTIONS = 8  # entries behind IH_RING1_CLIENT_CFG_INDEX
SELF_INTERRUPT_SOURCE = 0  # of client IH: ih_v6_0_sw_init
PLAIN = (
    "IH_CNTL",
    "IH_CNTL2",
    "IH_INT_FLOOD_CNTL",
    "IH_STORM_CLIENT_LIST_CNTL",
    "IH_MSI_STORM_CTRL",
    "IH_CLK_CTRL",
    "IH_MEM_POWER_CTRL",
    "IH_RETRY_INT_CAM_CNTL",
    "IH_RETRY_CAM_ACK",  # faults are not retried here, so the CAM that would hold them stays empty
    "IH_DOORBELL_RETRY_CAM",
    "IH_INT_DROP_CNTL",
)


class InterruptRing:
    """One ring: registers with a suffix, pointers, entries."""

    def __init__(self, ih: IhModel, suffix: str) -> None:
        self._ih = ih
        self._card = ih.card
        claim = ih.claim
        self.number = int(bool(suffix))
        self.control = claim(f"IH_RB_CNTL{suffix}", on_write=self._control_written)
        self._base = claim(f"IH_RB_BASE{suffix}")
        self._base_hi = claim(f"IH_RB_BASE_HI{suffix}", writable=0xFF)
        self.rptr = claim(f"IH_RB_RPTR{suffix}", writable=OFFSET_MASK, on_write=self._rptr_written)
        self.wptr = claim(f"IH_RB_WPTR{suffix}", writable=OFFSET_MASK)
        self._doorbell = claim(f"IH_DOORBELL_RPTR{suffix}")
        self._clear_was_set = False
        self._decoded = self.control.register.decode(self.control.value)

    def power_on(self) -> None:
        """Forget what is not in a register."""
        self._clear_was_set = False

    def decoded_control(self) -> RegisterValue:
        """IH_RB_CNTL now."""
        if self._decoded != self.control.value:
            self._decoded = self.control.register.decode(self.control.value)
        return self._decoded

    @property
    def overflowed(self) -> bool:
        """Whether entries were lost since the host last cleared the flag."""
        return bool(self.wptr.value & WPTR_OVERFLOW)

    def full(self, control: RegisterValue) -> bool:
        """Whether the next entry would make the ring look empty."""
        ring_bytes = DWORD_BYTES << control.RB_SIZE
        return ((self.wptr.value & OFFSET_MASK) + ENTRY_BYTES) % ring_bytes == self.rptr.value % ring_bytes

    def append(self, control: RegisterValue, entry: bytes) -> bool:
        """Store one entry and move the write pointer. False when the entry is lost."""
        ring_bytes = DWORD_BYTES << control.RB_SIZE
        wptr = self.wptr.value & OFFSET_MASK
        overflow = self.wptr.value & WPTR_OVERFLOW
        if self.full(control):
            if not control.WPTR_OVERFLOW_ENABLE:
                return False
            overflow = WPTR_OVERFLOW  # the oldest entry is lost from here on
        base = self._base_hi.value << 40 | self._base.value << 8
        if not self._ih.store(control, base + wptr, entry):
            log.info("%s: interrupt ring %d at %#x cannot be written", self._card.name, self.number, base)
            return False
        self.wptr.value = (wptr + ENTRY_BYTES) % ring_bytes | overflow
        return True

    def doorbell(self, offset: int, value: int) -> None:
        """A read pointer by doorbell."""
        doorbell = self._doorbell.register.decode(self._doorbell.value)
        if doorbell.ENABLE and offset // DWORD_BYTES == doorbell.OFFSET:
            self.rptr.value = value & OFFSET_MASK
            self._ih.host_has_read(self)

    def _rptr_written(self, _value: int) -> None:
        self._ih.host_has_read(self)

    def _control_written(self, value: int) -> None:
        clear = bool(self.control.register.decode(value).WPTR_OVERFLOW_CLEAR)
        if clear and not self._clear_was_set:
            self.wptr.value &= ~WPTR_OVERFLOW
        self._clear_was_set = clear


class IhModel(Model):
    """The interrupt handler of Navi3x."""

    ip = "OSSSYS"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        for name in PLAIN:
            self.claim(name)
        self.rings = (InterruptRing(self, ""), InterruptRing(self, "_RING1"))
        self._wptr_address_lo = self.claim("IH_RB_WPTR_ADDR_LO", writable=0xFFFF_FFFC)
        self._wptr_address_hi = self.claim("IH_RB_WPTR_ADDR_HI", writable=0xFFFF)
        self._redirection = self.claim("IH_RING1_CLIENT_CFG_INDEX")
        self._redirections = self.claim("IH_RING1_CLIENT_CFG_DATA", bank=lambda: self._redirection.value & 7)
        self._chicken = self.claim("IH_CHICKEN")
        self.claim("IH_STATUS", writable=0, on_read=self._status)
        self._pasids = {
            hub: [self.claim(f"IH_VMID_{vmid}_LUT{hub}", writable=0xFFFF) for vmid in range(VMIDS)]
            for hub in ("", "_MM")
        }
        self.dropped = 0  # entries that found no ring to go to

    def power_on(self) -> None:
        for ring in self.rings:
            ring.power_on()

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
        """Put one entry into its ring and interrupt the host; safe from any thread.

        ``context`` are the four dwords whose meaning the source defines. ``pasid`` None looks the VMID up, as silicon
        does. Without an enabled ring the entry is dropped.
        """
        with self.card.lock:
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
            control = self.rings[0].decoded_control()
            if control.RB_ENABLE and self.card.faults.interrupt_storm():
                for _ in range((DWORD_BYTES << control.RB_SIZE) // ENTRY_BYTES):
                    self._deliver((0,) * ENTRY.dwords)
            if not self._redirected(client_id, source_id):
                for _ in range(self.card.faults.interrupt_copies() if control.RB_ENABLE else 1):
                    self._deliver(entry)
            elif self._append(self.rings[1], entry):
                wptr = self.rings[1].wptr.value
                self_entry = ENTRY.encode(
                    CLIENT_ID=Client.IH, SOURCE_ID=SELF_INTERRUPT_SOURCE, TIMESTAMP=self.card.realtime(), DATA0=wptr,
                    RING_ID=1,
                )  # fmt: skip
                self._deliver(self_entry)

    def vmids_of(self, pasid: int, *, of_mmhub: bool = False) -> list[int]:
        """VMIDs of GCHUB, or of MMHUB, that its table gives to a process."""
        return [vmid for vmid, slot in enumerate(self._pasids["_MM" if of_mmhub else ""]) if slot.value == pasid]

    def doorbell(self, offset: int, width: int, value: int) -> None:
        for ring in self.rings:
            ring.doorbell(offset, value)

    def host_has_read(self, ring: InterruptRing) -> None:
        """The host has read up to the read pointer; with RPTR_REARM what is left interrupts again."""
        if ring is self.rings[0]:
            control = ring.decoded_control()
            if control.RPTR_REARM and control.RB_ENABLE and ring.rptr.value != ring.wptr.value & OFFSET_MASK:
                self._interrupt(control)

    def store(self, control: RegisterValue, address: int, data: bytes) -> bool:
        """Write to where a ring's MC_SPACE says that addresses are. False where there is no memory."""
        if control.MC_SPACE == SPACE_GPU_ADDRESS and control.MC_VMID == 0:
            return self.card.write_mc(address, data)
        chicken = self._chicken.register.decode(self._chicken.value)
        if control.MC_SPACE != SPACE_BUS_ADDRESS or not chicken.MC_SPACE_GPA_ENABLE or not self.card.bus_master:
            return False
        try:
            index = self.card.arena.bus_index(address, len(data))
            if not self.card.arena.rights(address)[1]:
                return False
            self.card.arena.store(index, data)
        except BusError:
            return False
        return True

    # -- the rings ----------------------------------------------------------------------------------------------------

    def _redirected(self, client_id: int, source_id: int) -> bool:
        if not self.rings[1].decoded_control().RB_ENABLE:
            return False
        slot = self._redirections
        for index in range(REDIRECTIONS):
            entry = slot.register.decode(slot.banks.get(index, 0))
            if int(entry) and client_id == entry.CLIENT_ID:
                return not entry.SOURCE_ID_MATCH_ENABLE or bool(source_id == entry.SOURCE_ID)
        return False

    def _append(self, ring: InterruptRing, entry: tuple[int, ...]) -> bool:
        control = ring.decoded_control()
        data = struct.pack(f"<{ENTRY.dwords}I", *entry)
        if control.RB_ENABLE and ring.append(control, data):
            return True
        self.dropped += 1
        return False

    def _deliver(self, entry: tuple[int, ...]) -> None:
        ring = self.rings[0]
        if not self._append(ring, entry):
            return
        control = ring.decoded_control()
        if control.WPTR_WRITEBACK_ENABLE:
            address = self._wptr_address_hi.value << 32 | self._wptr_address_lo.value
            self.store(control, address, ring.wptr.value.to_bytes(DWORD_BYTES, "little"))
        self._interrupt(control)

    def _interrupt(self, control: RegisterValue) -> None:
        if control.ENABLE_INTR:
            self.card.raise_interrupt()
        else:
            self.card.notify()

    def _status(self) -> int:
        first, second = self.rings
        return self.register("IH_STATUS").encode(
            IDLE=1,
            INPUT_IDLE=1,
            BUFFER_IDLE=1,
            MC_WR_IDLE=1,
            SELF_INT_GEN_IDLE=1,
            RETRY_INT_CAM_IDLE=1,
            RB_FULL=first.full(first.decoded_control()),
            RB_OVERFLOW=first.overflowed,
            RB1_FULL=second.full(second.decoded_control()),
        )
