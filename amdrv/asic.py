"""The GPUs this driver knows, as data: which block versions make a chip, and what follows from them.

Another chip is another row here, register tables, a firmware plan, and where a block behaves differently another row in
that block's own table of designs. A card whose versions are in no row is refused before anything is written to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amdrv.discovery import DiscoveryTable, Version
from amdrv.errors import Unsupported
from amdrv.facts.pte import GFX11, GFX12, EntryFormat
from amdrv.ioctl.pci_function import PciIds
from amdrv.registers import SOURCES, RegisterMap


@dataclass(frozen=True, slots=True)
class Asic:
    """One kind of GPU."""

    arch: str  # what a compiler calls it
    versions: Mapping[str, Version]  # blocks that must have exactly this version
    entry_format: EntryFormat
    simds_per_cu: int
    wave_sizes: tuple[int, ...]
    compute_pipes: int  # of the first compute micro engine
    queues_per_pipe: int
    clock_counter_hz: int
    products: Mapping[tuple[int, int], str]  # (PCI device, revision) → product name


# Block versions: Linux 6.12 amdgpu_discovery.c (amdgpu_discovery_set_*_ip_blocks) and the kernel log of a 7900 XTX.
# Pipes and queues: gfx_v11_0.c: gfx_v11_0_sw_init. SIMDs: NUM_SIMD_PER_CU of gfx_v11_0.c. Counter: 100 MHz,
# soc21.c: soc21_get_xclk gives the reference clock that GOLDEN_TSC_COUNT runs on. Names: libdrm data/amdgpu.ids.
NAVI31 = Asic(
    arch="gfx1100",
    versions={
        "GC": (11, 0, 0),
        "MMHUB": (3, 0, 0),
        "NBIO": (4, 3, 0),
        "HDP": (6, 0, 0),
        "OSSSYS": (6, 0, 0),
        "MP0": (13, 0, 0),
        "MP1": (13, 0, 0),
        "SDMA0": (6, 0, 0),
    },
    entry_format=GFX11,
    simds_per_cu=2,
    wave_sizes=(32, 64),
    compute_pipes=4,
    queues_per_pipe=4,
    clock_counter_hz=100_000_000,
    products={
        (0x744C, 0xC8): "Radeon RX 7900 XTX",
        (0x744C, 0xCC): "Radeon RX 7900 XT",
        (0x744C, 0xCE): "Radeon RX 7900 GRE",
        (0x744C, 0xCF): "Radeon RX 7900M",
        (0x7448, 0x00): "Radeon PRO W7900",
        (0x7449, 0x00): "Radeon PRO W7800 48GB",
        (0x745E, 0xCC): "Radeon PRO W7800",
    },
)

# Block versions: the discovery table of a Radeon RX 9070 XT, as AMD's umr carries it (test/kat/rs_navi48_test1.txt).
# Pipes and queues: Linux 6.12 gfx_v12_0.c: gfx_v12_0_sw_init. SIMDs: two of a compute unit, as NUM_SIMD_PER_CU in
# gfx_v11_0.c; soc24.c: soc24_get_xclk gives the reference clock. Names: libdrm data/amdgpu.ids.
NAVI48 = Asic(
    arch="gfx1201",
    versions={
        "GC": (12, 0, 1),
        "MMHUB": (4, 1, 0),
        "NBIO": (6, 3, 1),
        "HDP": (7, 0, 0),
        "OSSSYS": (7, 0, 0),
        "MP0": (14, 0, 3),
        "MP1": (14, 0, 3),
        "SDMA0": (7, 0, 1),
    },
    entry_format=GFX12,
    simds_per_cu=2,
    wave_sizes=(32, 64),
    compute_pipes=2,
    queues_per_pipe=4,
    clock_counter_hz=100_000_000,
    products={
        (0x7550, 0xC0): "Radeon RX 9070 XT",
        (0x7550, 0xC3): "Radeon RX 9070",
        (0x7550, 0xC2): "Radeon RX 9070 GRE",
        (0x7551, 0xC0): "Radeon AI PRO R9700",
    },
)

ASICS: tuple[Asic, ...] = (NAVI31, NAVI48)


def identify(table: DiscoveryTable) -> Asic:
    """The kind of GPU a discovery table describes; raises Unsupported naming the versions that do not fit."""
    seen = table.versions()
    closest: list[str] | None = None
    for asic in ASICS:
        wrong = [
            f"{block} {_dotted(seen.get(block))} (known: {_dotted(version)})"
            for block, version in asic.versions.items()
            if seen.get(block) != version
        ]
        if not wrong:
            return asic
        if closest is None or len(wrong) < len(closest):
            closest = wrong
    raise Unsupported(f"this GPU is not one of {', '.join(a.arch for a in ASICS)}: it has {'; '.join(closest or [])}")


def product_name(asic: Asic, ids: PciIds) -> str:
    """What the card is sold as, or the architecture and the PCI id when that is not known."""
    return asic.products.get((ids.device, ids.revision)) or f"AMD {asic.arch} [{ids.device:04x}:{ids.revision:02x}]"


def register_map(table: DiscoveryTable) -> RegisterMap:
    """Named registers at this card's addresses, of every block for whose version there is a table."""
    versions = {name: version for name, version in table.versions().items() if (name, version) in SOURCES}
    bases = {name: instances for name, instances in table.bases().items() if name in versions}
    return RegisterMap(bases, versions)


def _dotted(version: Version | None) -> str:
    return "absent" if version is None else ".".join(map(str, version))
