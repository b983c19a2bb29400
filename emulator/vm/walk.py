"""The page-table walk of one translation, as a pure function over a way to read entries.

Entry layout: Linux 6.12 amdgpu_vm.h; walk order and the meaning of depth and block size: gmc_v11_0.c,
gfxhub_v3_0.c, and the page walks that AMD's umr prints.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from amdrv.facts.pte import DIRECTORY_ADDRESS, EntryFormat

PAGE_SHIFT = 12
LEVEL_BITS = 9


class FaultReason(enum.Enum):
    """Why a translation failed; the status register has a bit or code for each."""

    CONTEXT_OFF = "the VMID's context is off"
    RANGE = "outside the page table's range"
    DIRECTORY = "a directory entry is not valid"
    PAGE = "no page is mapped"
    WALKER = "an entry points where there is no memory"
    PERMISSION = "the page does not allow it"


class WalkFault(Exception):
    """A walk that ended without a page."""

    def __init__(self, reason: FaultReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Context:
    """One VMID's page table, from its context registers."""

    enabled: bool
    depth: int  # directory levels above the page table block: 3 is the full four-level walk
    block_bits: int  # address bits that a page table block resolves: 9 + PAGE_TABLE_BLOCK_SIZE
    base: int  # address of the top table
    base_in_system: bool
    start: int  # first virtual address covered; table indices count from here
    end: int  # last virtual address covered


@dataclass(frozen=True, slots=True)
class Page:
    """What a walk found: ``size_bytes`` bytes from ``va`` lie at ``address``."""

    va: int
    size_bytes: int
    address: int
    in_system: bool
    readable: bool
    writeable: bool
    executable: bool
    mtype: int


ReadEntry = Callable[[bool, int], int]  # (in system memory, address) -> 64-bit entry; raises WalkFault(WALKER)


def walk(context: Context, entries: EntryFormat, read_entry: ReadEntry, va: int) -> Page:
    """Translate ``va``. Raises WalkFault."""
    if not context.enabled:
        raise WalkFault(FaultReason.CONTEXT_OFF)
    if not context.start <= va <= context.end:
        raise WalkFault(FaultReason.RANGE)
    offset = va - context.start
    table, in_system = context.base, context.base_in_system
    shift = PAGE_SHIFT + context.block_bits + context.depth * LEVEL_BITS
    page_shift = PAGE_SHIFT
    for level in range(context.depth, -1, -1):
        above, shift = shift, PAGE_SHIFT + context.block_bits + (level - 1) * LEVEL_BITS if level else page_shift
        index = offset >> shift
        if level < context.depth:
            index &= (1 << (above - shift)) - 1
        entry = read_entry(in_system, table + 8 * index)
        if not entries.valid.get(entry):
            raise WalkFault(FaultReason.DIRECTORY if level else FaultReason.PAGE)
        in_system = bool(entries.system.get(entry))
        if level == 0 or entries.is_pte.get(entry):
            return _page(entries, entry, va, 1 << shift)
        table = DIRECTORY_ADDRESS.get(entry) << DIRECTORY_ADDRESS.lo
        if level == 1:  # the last directory tells the size of the pages in the block below
            page_shift = PAGE_SHIFT + entries.block_fragment_size.get(entry)
    raise WalkFault(FaultReason.WALKER)


def _page(entries: EntryFormat, entry: int, va: int, size_bytes: int) -> Page:
    address = entries.address.get(entry) << entries.address.lo
    first = va & ~(size_bytes - 1)
    # The fragment field promises that a larger aligned run is contiguous; the translation caches take its word.
    run = max(size_bytes, 1 << (PAGE_SHIFT + entries.fragment.get(entry)))
    return Page(
        va=va & ~(run - 1),
        size_bytes=run,
        address=address - (first & (run - 1)),
        in_system=bool(entries.system.get(entry)),
        readable=bool(entries.readable.get(entry)),
        writeable=bool(entries.writeable.get(entry)),
        executable=bool(entries.executable.get(entry)),
        mtype=entries.mtype.get(entry),
    )
