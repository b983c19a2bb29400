"""Contract of page table entries, mappings and walks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument, OutOfMemory
from amdrv.facts.pte import GFX11, GFX12, EntryFormat
from amdrv.memory.page_table import (
    PAGE_BYTES,
    PageFlags,
    PageTables,
    coalesce,
    directory_entry,
    fragments,
    leaf_entry,
    leaf_runs,
    page_bytes,
    walk,
)

MIB = 1 << 20
ROOT = 0x1000


class Store:
    """Page tables in a dictionary."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.tables = {ROOT: bytearray(PAGE_BYTES)}
        self.next = 0x10_0000
        self.limit = limit

    def alloc_table(self) -> int:
        if len(self.tables) >= self.limit:
            raise OutOfMemory("no room for a table")
        self.next += PAGE_BYTES
        self.tables[self.next] = bytearray(b"\xff" * PAGE_BYTES)  # a table must be cleared before it is linked
        return self.next

    def free_table(self, address: int) -> None:
        del self.tables[address]

    def table_view(self, address: int) -> memoryview:
        return memoryview(self.tables[address])


def translate(tables: PageTables, va: int) -> int | None:
    return tables.walk(va)[-1].target


# Values: raven-ml/raven rig.amd page table tests, umr test/vm/*.envdef.
@pytest.mark.parametrize(
    ("fmt", "address", "flags", "level", "fragment", "entry"),
    [
        (GFX11, 0x3000, PageFlags(uncached=True), 0, 0, 0x0003_0000_0000_3071),
        (GFX11, 0x4000_0000, PageFlags(), 2, 0, 0x0040_0000_4000_0071),
        (GFX12, 0x1000, PageFlags(), 0, 0, 0x8000_0000_0000_1071),
        (GFX12, 0x1_4900_1000, PageFlags(system=True, snooped=True, uncached=True), 0, 0, 0x80C0_0001_4900_1077),
    ],
)
def test_leaf_entry_has_the_published_value(
    fmt: EntryFormat, address: int, flags: PageFlags, level: int, fragment: int, entry: int
) -> None:
    assert leaf_entry(fmt, address, flags, level, fragment) == entry


def test_directory_entry_is_the_address_and_valid() -> None:
    assert directory_entry(GFX12, 0x5000) == 0x5001


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        (PageFlags(writeable=False), 0x31),
        (PageFlags(executable=False), 0x61),
        (PageFlags(system=True), 0x73),
        (PageFlags(snooped=True), 0x75),
    ],
)
def test_each_permission_is_its_own_bit(flags: PageFlags, bits: int) -> None:
    assert leaf_entry(GFX11, 0, flags) == bits


@pytest.mark.parametrize(("address", "level"), [(0x1001, 0), (0x1000, 1), (1 << 48, 0), (-PAGE_BYTES, 0)])
def test_address_that_no_page_can_have_is_refused(address: int, level: int) -> None:
    with pytest.raises(InvalidArgument):
        leaf_entry(GFX11, address, PageFlags(), level)


pages = st.integers(1, 3 * 512 + 5)
starts = st.integers(0, 4 * 512)


@given(starts, starts, pages)
def test_runs_cover_a_mapping_once_and_in_order(va_page: int, address_page: int, count: int) -> None:
    va, address = va_page * PAGE_BYTES, address_page * PAGE_BYTES
    at = 0
    for run in leaf_runs(va, address, count * PAGE_BYTES):
        page = page_bytes(run.level)
        assert (run.va, run.address) == (va + at, address + at)
        assert run.va % page == 0 and run.address % page == 0
        assert (run.va // page) % 512 + run.pages <= 512
        at += run.pages * page
    assert at == count * PAGE_BYTES


@given(starts, starts, pages)
def test_fragments_are_aligned_in_both_spaces_and_cover_everything(va_page: int, address_page: int, count: int) -> None:
    va, address = va_page * PAGE_BYTES, address_page * PAGE_BYTES
    at = va
    for start, order in fragments(va, address, count * PAGE_BYTES):
        size = PAGE_BYTES << order
        assert start == at
        assert start % size == 0 and (start - va + address) % size == 0
        at += size
    assert at == va + count * PAGE_BYTES


def test_aligned_large_mapping_uses_large_pages_with_fragments() -> None:
    tables = PageTables(GFX11, Store(), ROOT)
    tables.map(0x2000_0000_0000, [(0x4000_0000, 1 << 30), (0x8000_0000, 4 * MIB), (0x9000_0000, 64 << 10)], PageFlags())
    giant, huge, small = (tables.walk(0x2000_0000_0000 + at)[-1] for at in (5, (1 << 30) + 5, (1 << 30) + 4 * MIB + 5))
    assert (giant.level, huge.level, small.level) == (2, 1, 0)
    assert (giant.fields["fragment"], huge.fields["fragment"], small.fields["fragment"]) == (18, 10, 4)
    assert (giant.target, huge.target, small.target) == (0x4000_0005, 0x8000_0005, 0x9000_0005)


mappings = st.lists(
    st.tuples(st.integers(0, 2048), st.integers(0, 1 << 20), st.integers(1, 700)), min_size=1, max_size=6
)


@given(mappings)
@settings(max_examples=40, deadline=None)
def test_every_mapped_page_translates_and_unmapping_leaves_no_table(maps: list[tuple[int, int, int]]) -> None:
    store = Store()
    tables = PageTables(GFX11, store, ROOT)
    done: list[tuple[int, int, int]] = []
    for va_page, address_page, count in maps:
        va, address, size = va_page * PAGE_BYTES, address_page * PAGE_BYTES, count * PAGE_BYTES
        if any(va < other + length and other < va + size for other, _, length in done):
            before = {at: bytes(table) for at, table in store.tables.items()}
            with pytest.raises(InvalidArgument, match="already mapped"):
                tables.map(va, [(address, size)], PageFlags())
            assert {at: bytes(table) for at, table in store.tables.items()} == before
        else:
            tables.map(va, [(address, size)], PageFlags())
            done.append((va, address, size))
    for va, address, size in done:
        for at in {0, size // 2 & -PAGE_BYTES, size - PAGE_BYTES}:
            assert translate(tables, va + at + 7) == address + at + 7
        inside = any(other <= va + size < other + length for other, _, length in done)
        assert inside or translate(tables, va + size) is None
    for va, _, size in done:
        for table in tables.unmap(va, size):
            store.free_table(table)
        assert translate(tables, va) is None
    assert list(store.tables) == [ROOT]
    assert not any(store.tables[ROOT])
    assert tables.table_count() == 1


def test_scattered_pages_keep_their_order_and_get_no_fragment() -> None:
    tables = PageTables(GFX11, Store(), ROOT)
    pieces = [(0x5000, PAGE_BYTES), (0x1000, PAGE_BYTES), (0x9000, PAGE_BYTES)]
    tables.map(0, pieces, PageFlags(system=True, snooped=True))
    assert [translate(tables, i * PAGE_BYTES) for i in range(3)] == [0x5000, 0x1000, 0x9000]
    assert all(tables.walk(i * PAGE_BYTES)[-1].fields["fragment"] == 0 for i in range(3))


def test_pieces_that_continue_each_other_are_joined() -> None:
    assert coalesce([(0x1000, 0x1000), (0x2000, 0x3000), (0x9000, 0x1000)]) == [(0x1000, 0x4000), (0x9000, 0x1000)]


def test_part_of_a_large_page_cannot_be_unmapped() -> None:
    tables = PageTables(GFX11, Store(), ROOT)
    tables.map(0, [(0, 2 * MIB)], PageFlags())
    with pytest.raises(InvalidArgument):
        tables.unmap(0, PAGE_BYTES)
    assert translate(tables, 0) == 0


def test_unmapping_a_hole_is_refused() -> None:
    tables = PageTables(GFX11, Store(), ROOT)
    tables.map(0, [(0x1000, PAGE_BYTES)], PageFlags())
    with pytest.raises(InvalidArgument):
        tables.unmap(0, 2 * PAGE_BYTES)


def test_mapping_that_runs_out_of_tables_is_taken_back() -> None:
    store = Store(limit=4)
    tables = PageTables(GFX11, store, ROOT)
    with pytest.raises(OutOfMemory):
        tables.map(0, [(0x1000, 4 * MIB)], PageFlags())
    assert list(store.tables) == [ROOT]
    assert not any(store.tables[ROOT])


@pytest.mark.parametrize(
    ("va", "piece"),
    [
        (1, (0, PAGE_BYTES)),
        (0, (0, 100)),
        (0, (12, PAGE_BYTES)),
        ((1 << 48) - PAGE_BYTES, (0, 2 * PAGE_BYTES)),
    ],
)
def test_unaligned_or_outside_mapping_is_refused(va: int, piece: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgument):
        PageTables(GFX11, Store(), ROOT).map(va, [piece], PageFlags())


# umr test/vm/direct_vm_test21.envdef: a 512 GiB page whose address is not a multiple of its size.
def test_page_address_is_added_to_the_offset_and_not_masked() -> None:
    entry = 0x8000_0003_DAAB_8D81

    def read_entry(_: int) -> int:
        return entry

    step = walk(GFX12, 0x3_DAAB_5000, read_entry, 0xFFFF_FFFF_FFF0)[-1]
    assert (step.level, step.kind, step.target) == (3, "page", 0x83_DAAB_7FF0)


def test_walk_stops_at_the_first_invalid_entry_and_says_so() -> None:
    tables = PageTables(GFX11, Store(), ROOT)
    tables.map(0, [(0x1000, PAGE_BYTES)], PageFlags())
    steps = tables.walk(PAGE_BYTES)
    assert [step.kind for step in steps] == ["table", "table", "table", "invalid"]
    assert "PTB[0x1]" in str(steps[-1])
    assert [step.kind for step in tables.walk(1 << 40)] == ["invalid"]
