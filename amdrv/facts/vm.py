"""Address translation hubs of gfx11: sizes, units, reset values and client names.

Source: Linux 6.12 gfxhub_v3_0.c (GC) and mmhub_v3_0.c (MMHUB), gmc_v11_0.c, gc_11_0_0_default.h.
"""

from __future__ import annotations

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

# CID of GCVM_L2_PROTECTION_FAULT_STATUS.
GC_CLIENTS: tuple[str, ...] = (
    "CB/DB", "reserved", "GE1", "GE2", "CPF", "CPC", "CPG", "RLC", "TCP", "SQC (inst)", "SQC (data)", "SQG",
    "reserved", "SDMA0", "SDMA1", "GCR", "SDMA2", "SDMA3",
)  # fmt: skip

# CID of MMVM_L2_PROTECTION_FAULT_STATUS; some numbers mean another client for writes (RW = 1) than for reads.
MM_READ_CLIENTS: dict[int, str] = {
    0: "VMC", 4: "DCEDMC", 5: "DCEVGA", 6: "MP0", 7: "MP1", 8: "MPIO", 16: "HDP", 17: "LSDMA", 18: "JPEG",
    19: "VCNU0", 21: "VSCH", 22: "VCNU1", 23: "VCN1", 52: "VCN0",
}  # fmt: skip
MM_WRITE_CLIENTS: dict[int, str] = {
    2: "DBGUNBIO", 3: "DCEDWB", 4: "DCEDMC", 5: "DCEVGA", 6: "MP0", 7: "MP1", 8: "MPIO", 10: "DBGU0", 11: "DBGU1",
    12: "DBGU2", 13: "DBGU3", 14: "XDP", 15: "OSSSYS", 16: "HDP", 17: "LSDMA", 18: "JPEG", 19: "VCNU0", 20: "VCN0",
    21: "VSCH", 22: "VCNU1", 23: "VCN1",
}  # fmt: skip


def fault_client(ip: str, client: int, *, write: bool) -> str:
    """Name of the hub client ``client`` (CID) of hub "GC" or "MMHUB"; ``client N`` when it has none."""
    if ip == "GC":
        name = GC_CLIENTS[client] if client < len(GC_CLIENTS) else None
    else:
        name = (MM_WRITE_CLIENTS if write else MM_READ_CLIENTS).get(client)
    return name or f"client {client}"
