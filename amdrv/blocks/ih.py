"""IH 6: the interrupt handler. One ring in device memory, whose entries say who interrupted and why.

Ring 1 of the block is not used: it exists to take page-fault storms of retrying processes off ring 0.

Source: Linux 6.12 ih_v6_0.c, amdgpu_ih.c (entry layout).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from amdrv.facts.ih import ENTRY, ENTRY_BYTES
from amdrv.memory.layout import IH_RING, IH_WPTR, Region
from amdrv.mmio import Mmio
from amdrv.vram import Vram

log = logging.getLogger(__name__)

DWORD_BYTES = 4
MC_SPACE_DEVICE = 4  # GPU addresses, not bus addresses
STORM_DELAY = 3
OVERFLOW = 1  # bit of a write pointer, in the register and in its copy in memory


@dataclass(frozen=True, slots=True)
class Interrupt:
    """One entry of the ring, decoded."""

    client: int
    source: int
    ring: int  # for a command processor: pipe, micro engine << 2, queue << 4
    vmid: int
    pasid: int
    timestamp: int
    data: tuple[int, int, int, int]
    raw: bytes


def decode(raw: bytes) -> Interrupt:
    """One 32-byte entry."""
    dwords = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, ENTRY_BYTES, 4)]
    fields = ENTRY.decode(dwords)
    return Interrupt(
        client=fields["CLIENT_ID"],
        source=fields["SOURCE_ID"],
        ring=fields["RING_ID"],
        vmid=fields["VMID"],
        pasid=fields["PASID"],
        timestamp=fields["TIMESTAMP"],
        data=(dwords[4], dwords[5], dwords[6], dwords[7]),
        raw=raw,
    )


class Ih:
    """The interrupt ring of one card."""

    def __init__(self, mmio: Mmio, vram: Vram, ring: Region = IH_RING, wptr: Region = IH_WPTR) -> None:
        self._mmio = mmio
        self._vram = vram
        self._regs = mmio.registers.block("OSSSYS")
        self._ring = ring
        self._wptr = wptr
        self._rptr = 0  # bytes
        self._control = 0

    # ih_v6_0_irq_init, ih_v6_0_enable_ring, ih_v6_0_rb_cntl, ih_v6_0_toggle_ring_interrupts
    def start(self, device_address: int, messages: bool) -> None:
        """Empty the ring and let the block write to it.

        ``device_address`` is that of device memory's first byte; ``messages`` says that the card may send its
        interrupt, after which it waits until the read pointer moves. The whole control register is ours, so it is
        written without being read. Doorbells for the read pointer are not used: interrupts are rare here.
        """
        regs = self._regs
        ring_address = device_address + self._ring.offset
        self._vram.fill(self._wptr.offset, DWORD_BYTES)
        self._control = regs.IH_RB_CNTL.encode(
            MC_SPACE=MC_SPACE_DEVICE,
            WPTR_OVERFLOW_ENABLE=1,
            RB_SIZE=(self._ring.size_bytes // DWORD_BYTES).bit_length() - 1,
            WPTR_WRITEBACK_ENABLE=1,
            MC_SNOOP=1,
            RPTR_REARM=int(messages),
        )
        self._mmio.write(regs.IH_RB_CNTL, self._control)  # off while it is set up
        self._mmio.write(regs.IH_RB_BASE, ring_address >> 8 & 0xFFFFFFFF)
        self._mmio.write(regs.IH_RB_BASE_HI, ring_address >> 40 & 0xFF)
        self._mmio.write_pair(
            regs.IH_RB_WPTR_ADDR_LO, regs.IH_RB_WPTR_ADDR_HI, device_address + self._wptr.offset
        )
        self._mmio.write(regs.IH_RB_WPTR, 0)
        self._mmio.write(regs.IH_RB_RPTR, 0)
        self._rptr = 0
        self._mmio.write(regs.IH_DOORBELL_RPTR, ENABLE=0)
        self._control |= regs.IH_RB_CNTL.encode(RB_ENABLE=1, ENABLE_INTR=1)
        # An overflow flag from before goes with the edge from 0 to 1, and a later one shows only after it is 0 again.
        self._mmio.write(regs.IH_RB_CNTL, self._control, WPTR_OVERFLOW_CLEAR=1)
        self._mmio.write(regs.IH_RB_CNTL, self._control)

    # ih_v6_0_irq_init: flood and storm control
    def configure(self) -> None:
        """What holds until the next reset: page faults of many neighbouring pages must not become a message each."""
        regs = self._regs
        self._mmio.update(regs.IH_STORM_CLIENT_LIST_CNTL, CLIENT18_IS_STORM_CLIENT=1)
        self._mmio.update(regs.IH_INT_FLOOD_CNTL, FLOOD_CNTL_ENABLE=1)
        self._mmio.update(regs.IH_MSI_STORM_CTRL, DELAY=STORM_DELAY)

    # ih_v6_0_irq_disable
    def stop(self) -> None:
        """No more entries, no more messages."""
        self._mmio.write(self._regs.IH_RB_CNTL, 0)
        self._mmio.write(self._regs.IH_RB_RPTR, 0)
        self._mmio.write(self._regs.IH_RB_WPTR, 0)

    # ih_v6_0_get_wptr, ih_v6_0_set_rptr
    def drain(self) -> list[Interrupt]:
        """Entries that arrived since the last call, oldest first.

        Costs no register access while there are none: the block keeps a copy of its write pointer in memory.
        """
        wptr = int.from_bytes(self._vram.read(self._wptr.offset, DWORD_BYTES), "little")
        if wptr & OVERFLOW:
            wptr = self._recover_overflow()
        wptr &= self._ring.size_bytes - 1 & -DWORD_BYTES
        entries: list[Interrupt] = []
        while self._rptr != wptr:
            entries.append(decode(self._vram.read(self._ring.offset + self._rptr, ENTRY_BYTES)))
            self._rptr = (self._rptr + ENTRY_BYTES) % self._ring.size_bytes
        if entries:
            self._mmio.write(self._regs.IH_RB_RPTR, self._rptr)
        return entries

    def _recover_overflow(self) -> int:
        """Entries were overwritten: go on with the oldest that was not."""
        wptr = int(self._mmio.read(self._regs.IH_RB_WPTR)) & ~OVERFLOW
        log.warning("interrupt ring overflow at %#x: interrupts were lost", wptr)
        self._rptr = (wptr + ENTRY_BYTES) & (self._ring.size_bytes - 1)
        self._mmio.write(self._regs.IH_RB_CNTL, self._control, WPTR_OVERFLOW_CLEAR=1)
        self._mmio.write(self._regs.IH_RB_CNTL, self._control)
        return wptr
