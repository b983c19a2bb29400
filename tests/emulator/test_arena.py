"""VRAM and DMA memory in one sparse reservation."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.emulator.arena import PAGE_BYTES, SYSTEM_BUS_BASE, Arena, BusError
from amdrv.errors import OutOfMemory

VRAM_BYTES, SYSTEM_BYTES = 1 << 20, 64 * PAGE_BYTES


@pytest.fixture
def arena() -> Arena:
    return Arena(VRAM_BYTES, SYSTEM_BYTES)


def test_views_and_array_are_the_same_memory(arena: Arena) -> None:
    arena.view(100, 4)[:] = b"same"
    assert bytes(arena.bytes[100:104]) == b"same"


def test_vram_as_large_as_a_board_costs_nothing() -> None:
    arena = Arena(24560 << 20, 64 << 30)
    arena.view((24560 << 20) - 4, 4)[:] = b"last"
    assert bytes(arena.bytes[(24560 << 20) - 4 : 24560 << 20]) == b"last"


def test_losing_vram_zeroes_it_and_keeps_system_memory(arena: Arena) -> None:
    index = arena.bus_index(arena.allocate_system(4), 4)
    arena.view(index, 4)[:] = b"kept"
    arena.view(0, 4)[:] = b"lost"
    arena.lose_vram()
    assert bytes(arena.view(0, 4)) == bytes(4)
    assert bytes(arena.view(index, 4)) == b"kept"


def test_system_memory_is_reachable_only_while_allocated(arena: Arena) -> None:
    address = arena.allocate_system(5000)
    assert arena.bus_index(address, 2 * PAGE_BYTES) == VRAM_BYTES + address - SYSTEM_BUS_BASE
    with pytest.raises(BusError, match="not mapped"):
        arena.bus_index(address, 2 * PAGE_BYTES + 1)
    arena.free_system(address, 5000)
    with pytest.raises(BusError, match="not mapped"):
        arena.bus_index(address, 1)


@pytest.mark.parametrize("address", [0, SYSTEM_BUS_BASE - 1, SYSTEM_BUS_BASE + SYSTEM_BYTES])
def test_bus_address_outside_system_memory_faults(arena: Arena, address: int) -> None:
    with pytest.raises(BusError, match="not mapped"):
        arena.bus_index(address, 1)


def test_freed_memory_comes_back_zeroed(arena: Arena) -> None:
    address = arena.allocate_system(PAGE_BYTES)
    arena.view(arena.bus_index(address, 4), 4)[:] = b"used"
    arena.free_system(address, PAGE_BYTES)
    again = arena.allocate_system(PAGE_BYTES)
    assert bytes(arena.view(arena.bus_index(again, 4), 4)) == bytes(4)


def test_reserved_memory_has_no_bus_address_and_moves_none(arena: Arena) -> None:
    index = arena.reserve(PAGE_BYTES + 1)
    arena.view(index, PAGE_BYTES + 1)[-1:] = b"!"
    assert arena.allocate_system(PAGE_BYTES) == SYSTEM_BUS_BASE
    with pytest.raises(BusError):
        arena.bus_index(SYSTEM_BUS_BASE + index - VRAM_BYTES, 1)
    with pytest.raises(OutOfMemory):
        arena.allocate_system(SYSTEM_BYTES - 2 * PAGE_BYTES)
    with pytest.raises(OutOfMemory):
        arena.reserve(SYSTEM_BYTES)
    assert arena.allocate_system(SYSTEM_BYTES - 3 * PAGE_BYTES) == SYSTEM_BUS_BASE + PAGE_BYTES


def test_exhausted_window_is_out_of_memory(arena: Arena) -> None:
    arena.allocate_system(SYSTEM_BYTES)
    with pytest.raises(OutOfMemory, match="contiguous"):
        arena.allocate_system(1)


@given(st.lists(st.integers(1, 8 * PAGE_BYTES), max_size=12))
def test_allocations_do_not_overlap_and_all_can_be_given_back(sizes: list[int]) -> None:
    arena = Arena(PAGE_BYTES, SYSTEM_BYTES)
    taken: list[tuple[int, int]] = []
    for size in sizes:
        try:
            taken.append((arena.allocate_system(size), size))
        except OutOfMemory:
            break
    ranges = sorted((address, address + (size + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES) for address, size in taken)
    assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
    for address, size in taken[::2] + taken[1::2]:
        arena.free_system(address, size)
    assert arena.allocate_system(SYSTEM_BYTES) == SYSTEM_BUS_BASE
