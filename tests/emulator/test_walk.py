"""The page walk against walks of real cards, and against its own inverse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.emulator.vm.walk import Context, FaultReason, WalkFault, walk
from amdrv.facts.pte import GFX11, GFX12

VALID, RWX = 1, 0x70
WHOLE = (1 << 48) - 1


def memory(entries: dict[int, int]):
    return lambda in_system, address: entries.get(address, 0)


def four_levels(base: int) -> Context:
    return Context(enabled=True, depth=3, block_bits=9, base=base, base_in_system=False, start=0, end=WHOLE)


# Cases 19, 20, 21 and 23 of AMD umr's test/vm/direct_vm_test*.envdef: registers and entries of a Radeon RX 9070 XT.


def test_flat_table_of_a_gfx12_card_reaches_system_memory() -> None:
    context = Context(True, 0, 9, 0x3_DAB0_0000, False, 0, (0x1FFFF << 12) | 0xFFF)
    page = walk(context, GFX12, memory({0x3_DAB0_7948: 0x80C0_0001_4900_1073}), 0xF29200)
    assert page.in_system
    assert page.address + 0xF29200 - page.va == 0x1_4900_1200


def test_directory_entry_as_page_of_a_gfx12_card() -> None:
    entries = {
        0x3_DAAB_5000 + 8 * 0x100: 0x3_DAAB_8001,
        0x3_DAAB_8000: 0x3_DAAB_7001,
        0x3_DAAB_7000 + 8 * 8: 0x8000_0003_C980_04F1,
    }
    page = walk(four_levels(0x3_DAAB_5000), GFX12, memory(entries), 0x8000_0100_0900)
    assert not page.in_system
    assert page.address + 0x8000_0100_0900 - page.va == 0x3_C980_0900


def test_address_of_a_huge_page_is_added_not_masked() -> None:
    entries = {0x3_DAAB_5000 + 8 * 0x1FF: 0x8000_0003_DAAB_8D81}
    page = walk(four_levels(0x3_DAAB_5000), GFX12, memory(entries), 0xFFFF_FFFF_FFF0)
    assert page.address + 0xFFFF_FFFF_FFF0 - page.va == 0x83_DAAB_7FF0


def test_block_fragment_size_makes_the_pages_of_a_block_larger() -> None:
    directory = VALID | 0x9000 | 4 << GFX12.block_fragment_size.lo
    entries = {0x5000: 0x7001, 0x7000: 0x8001, 0x8000: directory, 0x9000: 0x8000_0004_C980_3071}
    page = walk(four_levels(0x5000), GFX12, memory(entries), 0xCFF8)
    assert page.address + 0xCFF8 - page.va == 0x4_C980_FFF8


def tables(va: int, address: int, leaf_level: int, flags: int) -> dict[int, int]:
    """Entries of a four-level walk that ends at ``leaf_level`` (0: 4 KiB, 1: 2 MiB, 2: 1 GiB)."""
    entries, table = {}, 0x1000
    for level in range(3, -1, -1):
        slot = table + 8 * (va >> (12 + 9 * level) & 0x1FF)
        if level == leaf_level:
            leaf = address | flags | (GFX11.is_pte.mask if level else 0)
            return {**entries, slot: leaf}
        table += 0x1000
        entries[slot] = table | VALID
    return entries


@given(
    va=st.integers(0, WHOLE),
    leaf_level=st.integers(0, 2),
    frame=st.integers(0, (1 << 18) - 1),
    flags=st.sampled_from([0x31, 0x51, 0x71, 0x73]),
)
def test_walk_inverts_the_table_for_every_page_size(va: int, leaf_level: int, frame: int, flags: int) -> None:
    size = 1 << (12 + 9 * leaf_level)
    address = frame * size & GFX11.address.mask
    page = walk(four_levels(0x1000), GFX11, memory(tables(va, address, leaf_level, flags)), va)
    assert page.size_bytes == size
    assert page.va == va & -size
    assert page.address == address
    assert page.in_system == bool(flags & 2)
    assert (page.readable, page.writeable) == (bool(flags & 0x20), bool(flags & 0x40))


def test_fragment_widens_the_translation_to_its_aligned_run() -> None:
    va, address = 0x1234_5000, 0x10_5000
    entries = tables(va, address, 0, 0x71 | 4 << GFX11.fragment.lo)
    page = walk(four_levels(0x1000), GFX11, memory(entries), va)
    assert (page.va, page.size_bytes, page.address) == (0x1234_0000, 0x10000, 0x10_0000)


@pytest.mark.parametrize(
    ("context", "entries", "reason"),
    [
        (Context(False, 3, 9, 0x1000, False, 0, WHOLE), {}, FaultReason.CONTEXT_OFF),
        (Context(True, 3, 9, 0x1000, False, 0x10_0000, 0x1F_FFFF), {}, FaultReason.RANGE),
        (four_levels(0x1000), {}, FaultReason.DIRECTORY),
        (four_levels(0x1000), {0x1000: 0x2001, 0x2000: 0x3001, 0x3000: 0x4001}, FaultReason.PAGE),
    ],
)
def test_each_way_to_have_no_page_has_its_own_reason(
    context: Context, entries: dict[int, int], reason: FaultReason
) -> None:
    with pytest.raises(WalkFault) as caught:
        walk(context, GFX11, memory(entries), 0x5000)
    assert caught.value.reason is reason


def test_indices_count_from_the_start_of_the_range() -> None:
    start = 0x7FFF_0000_0000
    context = Context(True, 0, 9, 0x1000, False, start, start + 0xFFFF)
    page = walk(context, GFX11, memory({0x1000 + 8 * 3: 0x9000 | 0x71}), start + 0x3010)
    assert page.address == 0x9000
