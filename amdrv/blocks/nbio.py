"""NBIO 4.3: the bus interface. Doorbells, host data path flushes, interrupt control.

Source: Linux 6.12 nbio_v4_3.c, soc21.c (soc21_common_hw_init), hdp_v6_0.c.
"""

from __future__ import annotations

from amdrv.facts.pci import REMAP_HDP_MEM_FLUSH, REMAP_HDP_REG_FLUSH
from amdrv.ioctl.pci_function import REGISTER_BAR
from amdrv.mmio import Mmio

# Doorbell routing entries of the graphics core, as the kernel writes them: enable, the port's AWID (3 and 6), address
# bits 31:28 (3), and no range, so that they match every doorbell that no other entry claims.
GC_DOORBELL_PORTS = {"S2A_DOORBELL_ENTRY_0_CTRL": 0x30000007, "S2A_DOORBELL_ENTRY_3_CTRL": 0x3000000D}


class Nbio:
    """The bus interface of one card."""

    def __init__(self, mmio: Mmio) -> None:
        self._mmio = mmio
        self._regs = mmio.registers.block("NBIO")

    # nbio_v4_3_remap_hdp_registers, nbio_v4_3_enable_doorbell_aperture
    def open_apertures(self) -> None:
        """Put the flush registers where a write reaches them cheaply, and let doorbells through."""
        regs = self._regs
        self._mmio.write(regs.BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL, REMAP_HDP_MEM_FLUSH)
        # The register has no other field.
        self._mmio.write(regs.RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN, BIF_DOORBELL_APER_EN=1)

    # nbio_v4_3_init_registers, nbio_v4_3_ih_control, nbio_v4_3_gc_doorbell_init
    def configure(self) -> None:
        """What holds until the next reset of the card.

        Read-modify-write where straps or unknown bits share the register. INTERRUPT_CNTL2 (the page of dummy reads) is
        left alone: those reads exist for line interrupts only, which are not used.
        """
        regs = self._regs
        self._mmio.write(regs.BIF_BX0_REMAP_HDP_REG_FLUSH_CNTL, REMAP_HDP_REG_FLUSH)
        self._mmio.update(regs.RCC_DEV0_EPF2_STRAP2, STRAP_NO_SOFT_RESET_DEV0_F2=0)
        self._mmio.update(regs.BIF_BX0_INTERRUPT_CNTL, IH_DUMMY_RD_OVERRIDE=0, IH_REQ_NONSNOOP_EN=0)
        for name, value in GC_DOORBELL_PORTS.items():
            self._mmio.write(regs[name], value)

    def close_doorbells(self) -> None:
        """Drop every further doorbell."""
        self._mmio.write(self._regs.RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN, BIF_DOORBELL_APER_EN=0)

    # hdp_v6_0_flush_hdp
    def flush_hdp(self) -> None:
        """Push CPU writes to device memory out of the host data path, and wait until that has happened.

        The read back posts the write. It is of another register, because reading the remapped one back is known to
        make trouble on some hosts.
        """
        self._mmio.function.write32(REGISTER_BAR, REMAP_HDP_MEM_FLUSH, 0)
        self._mmio.read(self._regs.RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE)

    def is_virtual_function(self) -> bool:
        """Whether this is an SR-IOV guest function, which another driver has to start."""
        return bool(self._mmio.read(self._regs.RCC_DEV0_EPF0_RCC_IOV_FUNC_IDENTIFIER))
