"""One card's blocks, put together from what its discovery table says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from amdrv import asic as asics
from amdrv.asic import Asic
from amdrv.blocks import gfx, gmc, psp, waves
from amdrv.blocks.gfx import Gfx
from amdrv.blocks.gmc import AddressMap, Gmc
from amdrv.blocks.ih import Ih
from amdrv.blocks.nbio import Nbio
from amdrv.blocks.psp import Psp
from amdrv.blocks.smu import Smu
from amdrv.blocks.waves import Waves
from amdrv.discovery import DiscoveryTable
from amdrv.facts import smu
from amdrv.ioctl.pci_function import PciFunction
from amdrv.memory.layout import DEFAULT_PAGE, ROOT_TABLE, VramLayout
from amdrv.mmio import Mmio
from amdrv.vram import Vram


class Caches:
    """What lies between a change of memory or page tables and the GPU's use of it."""

    def __init__(self, nbio: Nbio, gmc: Gmc) -> None:
        self._nbio = nbio
        self._gmc = gmc

    def flush_hdp(self) -> None:
        """Push CPU writes into device memory."""
        self._nbio.flush_hdp()

    def invalidate_tlbs(self) -> None:
        """Forget every cached translation, in both hubs."""
        self._gmc.invalidate()


@dataclass(frozen=True)
class Hardware:
    """The parts of one card that the driver works with."""

    function: PciFunction
    table: DiscoveryTable
    asic: Asic
    vram: Vram
    layout: VramLayout
    mmio: Mmio
    addresses: AddressMap
    caches: Caches
    nbio: Nbio
    gmc: Gmc
    ih: Ih
    psp: Psp
    smu: Smu
    gfx: Gfx
    waves: Waves

    @classmethod
    def assemble(cls, function: PciFunction, table: DiscoveryTable, vram: Vram, fault_page: int) -> Hardware:
        """Build the blocks; two register reads, no writes.

        ``fault_page`` is the bus address of a page of host memory for accesses without a translation. Raises
        Unsupported for a card that is not known or too small.
        """
        asic = asics.identify(table)
        layout = VramLayout.of(vram.size_bytes, vram.visible_bytes)
        mmio = Mmio(function, asics.register_map(table))
        known = asic.versions
        nbio = Nbio(mmio)
        hubs = Gmc(mmio, *(gmc.DESIGNS[block, known[block]] for block in ("GC", "MMHUB")))
        caches = Caches(nbio, hubs)
        fb_start, physical_base = hubs.read_device_memory()
        addresses = AddressMap(
            fb_start=fb_start,
            fb_end=fb_start + vram.size_bytes - 1,
            physical_base=physical_base,
            default_page=physical_base + DEFAULT_PAGE.offset,
            fault_page=fault_page,
            root_table=physical_base + ROOT_TABLE.offset,
        )
        return cls(
            function=function,
            table=table,
            asic=asic,
            vram=vram,
            layout=layout,
            mmio=mmio,
            addresses=addresses,
            caches=caches,
            nbio=nbio,
            gmc=hubs,
            ih=Ih(mmio, vram),
            psp=Psp(mmio, vram, caches, fb_start, physical_base, boot_time_tmr=known["MP0"] in psp.BOOT_TIME_TMR),
            smu=Smu(mmio, vram, fb_start, smu.INTERFACES[known["MP1"]]),
            gfx=Gfx(mmio, gfx.DESIGNS[known["GC"]]),
            waves=Waves(mmio, waves.DESIGNS[known["GC"]]),
        )

    def map_digest(self) -> bytes:
        """What the register map was made from: changes when the card is another one or its table reads differently."""
        text = repr(sorted((b.name, b.instance, b.version, b.bases, b.harvested) for b in self.table.blocks))
        return hashlib.sha256(text.encode()).digest()
