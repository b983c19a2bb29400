"""Page table entries: 64-bit words that name a page or the next table.

Source: Linux 6.12 amdgpu_vm.h (AMDGPU_PTE_*, AMDGPU_PDE_*) and gmc_v11_0.c / gmc_v12_0.c (get_vm_pte, get_vm_pde).
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from amdrv.registers.fields import Field

ENTRY_BYTES = 8
TABLE_ENTRIES = 512
PAGE_BYTES = 4096
# A directory above level 0 holds 512 entries, so each level resolves nine address bits above the 12 of a 4 KiB page.
LEVEL_BITS = 9
PAGE_SHIFT = 12
ADDRESS_BITS = 48


class EntryFormat(NamedTuple):
    """Where the bits of an entry are in one generation.

    ``is_pte`` set in a directory entry makes it a leaf; from gfx12 on it is set in every leaf. ``block_fragment_size``
    of a directory entry at level 0 gives the size of the pages below: 4 KiB << value.
    """

    name: str
    valid: Field
    system: Field  # the address is a system (bus) address, not VRAM
    snooped: Field
    tmz: Field  # encrypted memory
    executable: Field
    readable: Field
    writeable: Field
    fragment: Field  # the translation covers 4 KiB << fragment
    address: Field  # bits of the physical address, kept in place (not shifted down)
    mtype: Field
    prt: Field  # partially resident: reads give zero, writes are dropped
    is_pte: Field
    noalloc: Field | None  # do not allocate in the last-level cache (MALL)
    translate_further: Field | None
    block_fragment_size: Field


GFX11 = EntryFormat(
    name="gfx11",
    valid=Field(0),
    system=Field(1),
    snooped=Field(2),
    tmz=Field(3),
    executable=Field(4),
    readable=Field(5),
    writeable=Field(6),
    fragment=Field(7, 5),
    address=Field(12, 36),
    mtype=Field(48, 3),
    prt=Field(51),
    is_pte=Field(54),
    noalloc=Field(58),
    translate_further=Field(56),
    block_fragment_size=Field(59, 5),
)

# gfx12 moved the memory type, widened no address, and marks every leaf.
GFX12 = EntryFormat(
    name="gfx12",
    valid=Field(0),
    system=Field(1),
    snooped=Field(2),
    tmz=Field(3),
    executable=Field(4),
    readable=Field(5),
    writeable=Field(6),
    fragment=Field(7, 5),
    address=Field(12, 36),
    mtype=Field(54, 2),
    prt=Field(56),
    is_pte=Field(63),
    noalloc=None,
    translate_further=None,
    block_fragment_size=Field(58, 5),
)

# A directory entry's address field starts lower: tables are aligned to 64 bytes (bits 47:6 in every generation).
DIRECTORY_ADDRESS = Field(6, 42)


class Mtype(enum.IntEnum):
    """Cacheability of a page on gfx10 and gfx11 (Linux 6.12 soc15_common / gmc_v11_0_map_mtype, navi10_enum.h)."""

    NC = 0  # non-coherent: cached, written back by an explicit release
    CC = 2  # cached, coherent
    UC = 3  # uncached


class MtypeGfx12(enum.IntEnum):
    """Cacheability of a page on gfx12 (Linux 6.12 gmc_v12_0.c)."""

    RW = 0
    NC = 1
    CC = 2
    UC = 3
