"""The IP discovery binary: where it is, what marks its tables, and its entries. Layouts are in discovery_tables.

Source: Linux 6.12 include/discovery.h, amdgpu_discovery.h and amdgpu_discovery.c.
"""

from __future__ import annotations

import enum

from amdrv.facts.discovery_tables import (
    BINARY_HEADER,
    DIE_INFO,
    GC_INFO_V1_0,
    GC_INFO_V1_1,
    GC_INFO_V1_2,
    GC_INFO_V1_3,
    GC_INFO_V2_0,
    GC_INFO_V2_1,
    IP_DISCOVERY_HEADER,
)
from amdrv.facts.hw_ids import HwId
from amdrv.facts.layout import Member, StructLayout

# The PSP leaves the binary in VRAM before any driver runs: 10 KiB that start 64 KiB before the end.
DISCOVERY_OFFSET_FROM_END_BYTES = 64 << 10
DISCOVERY_SIZE_BYTES = 10 << 10


class EarlyRegister(enum.IntEnum):
    """Dword indexes of the registers that must be known before the table that says where registers are."""

    MM_INDEX = 0x0
    MM_DATA = 0x1
    MM_INDEX_HI = 0x6
    DRIVER_SCRATCH_0 = 0x94  # newer kernels: where a hypervisor has put the table
    DRIVER_SCRATCH_1 = 0x95
    DRIVER_SCRATCH_2 = 0x96
    RCC_CONFIG_MEMSIZE = 0xDE3  # VRAM size in MiB
    MP0_SMN_C2PMSG_33 = 0x16061  # bit 31: the boot firmware is done
    IP_DISCOVERY_VERSION = 0x16A00


class Table(enum.IntEnum):
    """Position of a table in the binary header's list."""

    IP_DISCOVERY = 0
    GC = 1
    HARVEST_INFO = 2
    VCN_INFO = 3
    MALL_INFO = 4
    NPS_INFO = 5


BINARY_SIGNATURE = 0x28211407
IP_DISCOVERY_SIGNATURE = 0x53445049  # "IPDS"
GC_SIGNATURE = 0x4347  # "GC"
HARVEST_SIGNATURE = 0x56524148  # "HARV"
VCN_SIGNATURE = 0x004E4356  # "VCN"
MALL_SIGNATURE = 0x4C4C414D  # "MALL"

# Checksums are 16-bit sums of bytes: of each table, and of the binary from here up to its binary_size.
CHECKSUM_START = BINARY_HEADER.offset("binary_checksum") + 2
TABLE_LIST_OFFSET = BINARY_HEADER.offset("binary_size") + 2

MAX_DIES = 16
DIE_INFO_OFFSET = IP_DISCOVERY_HEADER.offset("num_dies") + 2
# Version 4 of the table may give 64-bit base addresses: bit 0 of this byte of its header.
WIDE_BASES_OFFSET = DIE_INFO_OFFSET + MAX_DIES * DIE_INFO.size_bytes
WIDE_BASES_BIT = 0x01

# One block. num_base_address 32-bit (or 64-bit) dword addresses follow. In versions 1 and 2 of the table the low four
# bits of the last byte say that the block is harvested; from version 3 on they are its sub-revision, the high four its
# variant.
IP_ENTRY = StructLayout(
    "IP_ENTRY",
    8,
    {
        "hw_id": Member(0, 2),
        "instance_number": Member(2, 1),
        "num_base_address": Member(3, 1),
        "major": Member(4, 1),
        "minor": Member(5, 1),
        "revision": Member(6, 1),
        "sub_revision_variant": Member(7, 1),
    },
)
IP_BASES_OFFSET = IP_ENTRY.size_bytes

HARVEST_ENTRIES = 32  # HARVEST_INFO entries after HARVEST_HEADER; hw_id 0 ends the list

# Graphics table by (major, minor) version.
GC_INFO: dict[tuple[int, int], StructLayout] = {
    (1, 0): GC_INFO_V1_0,
    (1, 1): GC_INFO_V1_1,
    (1, 2): GC_INFO_V1_2,
    (1, 3): GC_INFO_V1_3,
    (2, 0): GC_INFO_V2_0,
    (2, 1): GC_INFO_V2_1,
}

# Names that the register map uses where they differ from the hardware id's.
BLOCK_NAMES: dict[HwId, str] = {HwId.NBIF: "NBIO"}
