"""Address translation hubs of gfx11 and gfx12: sizes, units, reset values and client names.

Source: Linux 6.12 gfxhub_v3_0.c, gfxhub_v12_0.c (GC), mmhub_v3_0.c, mmhub_v4_1_0.c (MMHUB), gmc_v11_0.c, gmc_v12_0.c,
gc_11_0_0_default.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

VMIDS = 16
INVALIDATE_ENGINES = 18
HOST_INVALIDATE_ENGINE = 17  # the one the host uses; the others belong to rings (gmc_v11_0_flush_gpu_tlb)

FB_LOCATION_SHIFT = 24  # FB_LOCATION_BASE, _TOP and FB_OFFSET count 16 MiB
AGP_SHIFT = 24
SYSTEM_APERTURE_SHIFT = 18  # SYSTEM_APERTURE_LOW_ADDR and _HIGH_ADDR count 256 KiB
PAGE_TABLE_ADDRESS_SHIFT = 12  # PAGE_TABLE_START_ADDR and _END_ADDR count pages

# L2 control values that the kernel starts from before it sets fields.
GC_L2_CNTL3_START = 0x80120007
MM_L2_CNTL3_START = 0x80100007
L2_CNTL4_START = 0x000000C1
L2_CNTL5_START = 0x00003FE0



@dataclass(frozen=True, slots=True)
class HubClients:
    """Who asks a hub for translations, by client id (CID of its fault status): for reads and for writes."""

    read: Mapping[int, str]
    write: Mapping[int, str]

    def name(self, client: int, *, write: bool) -> str:
        """Name of a client; ``client N`` when it has none."""
        return (self.write if write else self.read).get(client) or f"client {client}"


def _same(names: tuple[str, ...]) -> HubClients:
    numbered = dict(enumerate(names))
    return HubClients(numbered, numbered)


# gfxhub_v3_0.c: gfxhub_client_ids
GC_3_0_CLIENTS = _same((
    "CB/DB", "reserved", "GE1", "GE2", "CPF", "CPC", "CPG", "RLC", "TCP", "SQC (inst)", "SQC (data)", "SQG",
    "reserved", "SDMA0", "SDMA1", "GCR", "SDMA2", "SDMA3",
))  # fmt: skip
# gfxhub_v12_0.c: gfxhub_client_ids
GC_12_0_CLIENTS = _same((
    "CB", "DB", "GE1", "GE2", "CPF", "CPC", "CPG", "RLC", "TCP", "SQC (inst)", "SQC (data)", "SQG/PC/SC",
    "reserved", "SDMA0", "SDMA1", "GCR", "reserved", "reserved", "WGS", "DSM", "PA",
))  # fmt: skip

# mmhub_v3_0.c: mmhub_client_ids_v3_0_0
MM_3_0_CLIENTS = HubClients({
    0: "VMC", 4: "DCEDMC", 5: "DCEVGA", 6: "MP0", 7: "MP1", 8: "MPIO", 16: "HDP", 17: "LSDMA", 18: "JPEG",
    19: "VCNU0", 21: "VSCH", 22: "VCNU1", 23: "VCN1", 52: "VCN0",
}, {
    2: "DBGUNBIO", 3: "DCEDWB", 4: "DCEDMC", 5: "DCEVGA", 6: "MP0", 7: "MP1", 8: "MPIO", 10: "DBGU0", 11: "DBGU1",
    12: "DBGU2", 13: "DBGU3", 14: "XDP", 15: "OSSSYS", 16: "HDP", 17: "LSDMA", 18: "JPEG", 19: "VCNU0", 20: "VCN0",
    21: "VSCH", 22: "VCNU1", 23: "VCN1",
})  # fmt: skip
# mmhub_v4_1_0.c: mmhub_client_ids_v4_1_0
MM_4_1_CLIENTS = HubClients({
    0: "VMC", 4: "DCEDMC", 6: "MP0", 7: "MP1", 8: "MPIO", 16: "LSDMA", 17: "JPEG", 19: "VCNU", 22: "VSCH", 23: "HDP",
    55: "VCNRD",
}, {
    3: "DCEDWB", 4: "DCEDMC", 6: "MP0", 7: "MP1", 8: "MPIO", 10: "DBGU0", 11: "DBGU1", 12: "DBGUNBIO", 14: "XDP",
    15: "OSSSYS", 16: "LSDMA", 17: "JPEG", 18: "VCNWR", 19: "VCNU", 22: "VSCH", 23: "HDP",
})  # fmt: skip

# By block and version.
HUB_CLIENTS: dict[tuple[str, tuple[int, int, int]], HubClients] = {
    ("GC", (11, 0, 0)): GC_3_0_CLIENTS,
    ("MMHUB", (3, 0, 0)): MM_3_0_CLIENTS,
    ("GC", (12, 0, 1)): GC_12_0_CLIENTS,
    ("MMHUB", (4, 1, 0)): MM_4_1_CLIENTS,
}
