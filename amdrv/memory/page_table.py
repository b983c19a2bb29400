"""GPU page tables: entries as values, mappings as runs of entries, and the one place that writes them.

Four levels resolve 48 address bits, nine a level above 4 KiB pages. A directory entry can itself be a page (2 MiB at
level 1, 1 GiB at level 2). The ``fragment`` of a leaf says that a naturally aligned run of 4 KiB << fragment bytes is
contiguous, so that one cached translation covers it.

Source: Linux 6.12 amdgpu_vm_pt.c (amdgpu_vm_ptes_update, amdgpu_vm_pte_fragment), gmc_v11_0.c (format comment).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from amdrv.errors import InvalidArgument
from amdrv.facts.pte import (
    DIRECTORY_ADDRESS,
    ENTRY_BYTES,
    GFX12,
    LEVEL_BITS,
    PAGE_BYTES,
    PAGE_SHIFT,
    TABLE_ENTRIES,
    EntryFormat,
    Mtype,
)
from amdrv.registers import Field, decode_fields

ROOT_LEVEL = 3
LARGEST_LEAF_LEVEL = 2
MAX_FRAGMENT = 31
LEVEL_NAMES = ("PTB", "PDB0", "PDB1", "PDB2")
ADDRESS_LIMIT = 1 << (PAGE_SHIFT + LEVEL_BITS * (ROOT_LEVEL + 1))

Entries = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class PageFlags:
    """What a mapping allows, and what memory it is."""

    system: bool = False  # host memory behind a bus address, else device memory
    snooped: bool = False  # the access looks into the host's caches
    uncached: bool = False
    writeable: bool = True
    executable: bool = True


def page_bytes(level: int) -> int:
    """Bytes that one leaf at ``level`` maps: 4 KiB, 2 MiB, 1 GiB."""
    return PAGE_BYTES << (LEVEL_BITS * level)


def table_index(va: int, level: int) -> int:
    """Which entry of its table at ``level`` translates ``va``."""
    return va >> (PAGE_SHIFT + LEVEL_BITS * level) & (TABLE_ENTRIES - 1)


def leaf_entry(fmt: EntryFormat, address: int, flags: PageFlags, level: int = 0, fragment: int = 0) -> int:
    """The entry that maps one page. Raises InvalidArgument for an address that is unaligned or too large."""
    if address % page_bytes(level) or address & ~fmt.address.mask:
        raise InvalidArgument(f"{address:#x} is not the address of a {page_bytes(level):#x}-byte page")
    entry = address | fmt.valid.mask | fmt.readable.mask | fragment << fmt.fragment.lo
    entry |= (Mtype.UC if flags.uncached else 0) << fmt.mtype.lo
    for wanted, bit in (
        (flags.system, fmt.system),
        (flags.snooped, fmt.snooped),
        (flags.writeable, fmt.writeable),
        (flags.executable, fmt.executable),
        # gfx12 marks every leaf, earlier generations only those where a directory could be.
        (level > 0 or fmt is GFX12, fmt.is_pte),
    ):
        if wanted:
            entry |= bit.mask
    return entry


def directory_entry(fmt: EntryFormat, table_address: int) -> int:
    """The entry that points to the next table, which lies in device memory."""
    if table_address % PAGE_BYTES or table_address & ~DIRECTORY_ADDRESS.mask:
        raise InvalidArgument(f"{table_address:#x} is not the address of a page table")
    return table_address | fmt.valid.mask


class LeafRun(NamedTuple):
    """``pages`` consecutive leaves in one table."""

    level: int
    va: int
    address: int
    pages: int


def leaf_runs(va: int, address: int, size_bytes: int) -> Iterator[LeafRun]:
    """Cover a contiguous mapping with the largest pages that alignment allows, one run a table."""
    while size_bytes:
        level = next(
            lv
            for lv in range(LARGEST_LEAF_LEVEL, -1, -1)
            if lv == 0 or ((va | address) % page_bytes(lv) == 0 and size_bytes >= page_bytes(lv))
        )
        # A table ends exactly where the next larger page could begin, so the level is asked again there.
        pages = min(TABLE_ENTRIES - table_index(va, level), size_bytes // page_bytes(level))
        yield LeafRun(level, va, address, pages)
        done = pages * page_bytes(level)
        va, address, size_bytes = va + done, address + done, size_bytes - done


def fragments(va: int, address: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Split a contiguous mapping into (start va, order) blocks of 4 KiB << order bytes, aligned in both spaces."""
    end = va + size_bytes
    offset = address - va
    while va < end:
        both = (va | (va + offset)) >> PAGE_SHIFT
        alignment = (both & -both).bit_length() - 1 if both else MAX_FRAGMENT
        fits = ((end - va) >> PAGE_SHIFT).bit_length() - 1
        order = min(alignment, fits, MAX_FRAGMENT)
        yield va, order
        va += PAGE_BYTES << order


def run_entries(fmt: EntryFormat, run: LeafRun, blocks: Sequence[tuple[int, int]], flags: PageFlags) -> Entries:
    """The entries of one run; ``blocks`` are the fragments of the mapping that the run belongs to."""
    page = page_bytes(run.level)
    first = np.uint64(leaf_entry(fmt, run.address, flags, run.level))
    entries = first + np.arange(run.pages, dtype=np.uint64) * np.uint64(page)
    for block_va, order in blocks:
        low = max(0, (block_va - run.va) // page)
        high = min(run.pages, (block_va + (PAGE_BYTES << order) - run.va) // page)
        if low < high and order:
            entries[low:high] |= np.uint64(order << fmt.fragment.lo)
    return entries


def coalesce(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join (address, bytes) pieces that continue each other."""
    joined: list[tuple[int, int]] = []
    for address, size_bytes in pieces:
        if joined and sum(joined[-1]) == address:
            joined[-1] = (joined[-1][0], joined[-1][1] + size_bytes)
        else:
            joined.append((address, size_bytes))
    return joined


class TableStore(Protocol):
    """Where page tables live. Addresses are those that entries hold."""

    def alloc_table(self) -> int:
        """The address of 4 KiB that the CPU can write; raises OutOfMemory."""

    def free_table(self, address: int) -> None:
        """Give a table back; the GPU must not be able to reach it any more."""

    def table_view(self, address: int) -> memoryview:
        """The table's bytes, as the GPU sees them."""


@dataclass(slots=True)
class _Table:
    """A table in device memory and its copy here: reading device memory over the bus is slow."""

    address: int
    level: int
    live: Entries
    shadow: Entries
    children: dict[int, _Table] = field(default_factory=dict)

    def store(self, index: int, entries: Entries | int) -> None:
        count = 1 if isinstance(entries, int) else len(entries)
        self.shadow[index : index + count] = entries
        self.live[index : index + count] = self.shadow[index : index + count]


class PageTables:
    """One address space. Writes entries; flushing and invalidating caches is the caller's business."""

    def __init__(self, fmt: EntryFormat, store: TableStore, root_address: int) -> None:
        """Start with an empty root table at ``root_address``."""
        self.format = fmt
        self.root_address = root_address
        self._store = store
        self._root = self._new_table(root_address, ROOT_LEVEL)

    def map(self, va: int, pieces: Iterable[tuple[int, int]], flags: PageFlags) -> None:
        """Map consecutive (address, bytes) pieces from ``va`` on.

        Raises InvalidArgument, before anything is written, when something is unaligned, outside the address space or
        already mapped; OutOfMemory when there is no room for tables (what was mapped so far is taken back).
        """
        pieces = coalesce(pieces)
        size_bytes = sum(size for _, size in pieces)
        self._check(va, size_bytes, pieces)
        at = va
        try:
            for address, piece_bytes in pieces:
                blocks = list(fragments(at, address, piece_bytes))
                for run in leaf_runs(at, address, piece_bytes):
                    table = self._table_for(run.va, run.level)
                    table.store(table_index(run.va, run.level), run_entries(self.format, run, blocks, flags))
                at += piece_bytes
        except Exception:
            self._forget(va, size_bytes)
            raise

    def unmap(self, va: int, size_bytes: int) -> list[int]:
        """Clear the entries of a mapped range and unlink the tables that became empty.

        Returns the addresses of those tables: they must be given back only after the caches are invalidated. Raises
        InvalidArgument when the range is not mapped or ends inside a large page.
        """
        self._check(va, size_bytes, [])
        for at, level, table, count in self._leaves(va, size_bytes):
            if table is None or at < va or at + count * page_bytes(level) > va + size_bytes:
                raise InvalidArgument(f"{va:#x}+{size_bytes:#x} is not a range of whole mapped pages")
        return self._clear(va, size_bytes)

    def walk(self, va: int) -> list[WalkStep]:
        """The translation of ``va`` as the GPU would find it in memory, one step a level."""

        def read_entry(address: int) -> int:
            table, offset = address & -PAGE_BYTES, address % PAGE_BYTES
            return int.from_bytes(self._store.table_view(table)[offset : offset + ENTRY_BYTES], "little")

        return walk(self.format, self.root_address, read_entry, va)

    def table_count(self) -> int:
        """Tables in use, the root included."""

        def count(table: _Table) -> int:
            return 1 + sum(map(count, table.children.values()))

        return count(self._root)

    def _check(self, va: int, size_bytes: int, pieces: Sequence[tuple[int, int]]) -> None:
        for value in (va, size_bytes, *(number for piece in pieces for number in piece)):
            if value % PAGE_BYTES:
                raise InvalidArgument(f"{value:#x} is not a multiple of {PAGE_BYTES}")
        if va < 0 or size_bytes <= 0 or va + size_bytes > ADDRESS_LIMIT:
            raise InvalidArgument(f"{va:#x}+{size_bytes:#x} is outside the {ADDRESS_LIMIT:#x}-byte address space")
        if pieces and any(table is not None for _, _, table, _ in self._leaves(va, size_bytes)):
            raise InvalidArgument(f"part of {va:#x}+{size_bytes:#x} is already mapped")

    def _new_table(self, address: int, level: int) -> _Table:
        live = np.frombuffer(self._store.table_view(address), dtype=np.uint64)
        shadow = np.zeros(TABLE_ENTRIES, dtype=np.uint64)
        live[:] = shadow
        return _Table(address, level, live, shadow)

    def _table_for(self, va: int, level: int) -> _Table:
        """The table at ``level`` on the path to ``va``, created with its parents as needed."""
        table = self._root
        while table.level > level:
            index = table_index(va, table.level)
            child = table.children.get(index)
            if child is None:
                child = self._new_table(self._store.alloc_table(), table.level - 1)
                table.children[index] = child
                table.store(index, directory_entry(self.format, child.address))
            table = child
        return table

    def _leaves(self, va: int, size_bytes: int) -> Iterator[tuple[int, int, _Table | None, int]]:
        """(va, level, table, count) of every run of mapped pages touching a range; table is None over a hole."""
        end = va + size_bytes
        at = va
        while at < end:
            table = self._root
            index = table_index(at, table.level)
            while (child := table.children.get(index)) is not None:
                table = child
                index = table_index(at, table.level)
            page = page_bytes(table.level)
            base = at & -page
            last = min(TABLE_ENTRIES, index + -(-(end - base) // page))
            mapped = bool(table.shadow[index])
            same = (table.shadow[index:last] != 0) == mapped
            for child_index in table.children:
                if index <= child_index < last:
                    same[child_index - index] = False
            count = len(same) if same.all() else int(np.argmin(same))
            yield base, table.level, table if mapped else None, count
            at = base + count * page

    def _forget(self, va: int, size_bytes: int) -> None:
        """Undo a half-made mapping. Nothing was published, so its tables can go back at once."""
        for address in self._clear(va, size_bytes):
            self._store.free_table(address)

    def _clear(self, va: int, size_bytes: int) -> list[int]:
        for at, level, table, count in list(self._leaves(va, size_bytes)):
            if table is not None:
                table.store(table_index(at, level), np.zeros(count, dtype=np.uint64))
        emptied: list[int] = []
        self._prune(self._root, 0, va, va + size_bytes, emptied)
        return emptied

    def _prune(self, table: _Table, base: int, va: int, end: int, emptied: list[int]) -> None:
        """Unlink empty tables below ``table``, which translates from ``base`` on, within [va, end)."""
        span = page_bytes(table.level)
        for index, child in list(table.children.items()):
            start = base + index * span
            if start < end and start + span > va:
                self._prune(child, start, va, end, emptied)
                if not child.shadow.any():
                    del table.children[index]
                    table.store(index, 0)
                    emptied.append(child.address)


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One level of a translation."""

    level: int
    index: int
    entry_address: int
    entry: int
    fields: dict[str, int]
    kind: str  # "table", "page" or "invalid"
    target: int | None  # the next table, or the byte that the address translates to

    def __str__(self) -> str:
        shown = f"{LEVEL_NAMES[self.level]}[{self.index:#x}] @{self.entry_address:#x} = {self.entry:#018x} {self.kind}"
        return shown if self.target is None else f"{shown} -> {self.target:#x}"


def walk(fmt: EntryFormat, root_address: int, read_entry: Callable[[int], int], va: int) -> list[WalkStep]:
    """Follow ``va`` through tables read by ``read_entry`` (entry address → 64-bit entry), from the root down."""
    names = {name: bits for name, bits in fmt._asdict().items() if isinstance(bits, Field)}
    steps: list[WalkStep] = []
    table = root_address
    for level in range(ROOT_LEVEL, -1, -1):
        index = table_index(va, level)
        entry_address = table + ENTRY_BYTES * index
        entry = read_entry(entry_address)
        target: int | None
        if not fmt.valid.get(entry):
            kind, target = "invalid", None
        elif level == 0 or fmt.is_pte.get(entry):
            # The page address is added to the offset, not masked: umr's walk of a misaligned page does the same.
            kind, target = "page", (entry & fmt.address.mask) + va % page_bytes(level)
        else:
            kind, target = "table", entry & DIRECTORY_ADDRESS.mask
        steps.append(WalkStep(level, index, entry_address, entry, decode_fields(names, entry), kind, target))
        if kind != "table" or target is None:
            break
        table = target
    return steps
