"""Contract of the range allocator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument, OutOfMemory
from amdrv.memory.allocator import HUGE_PAGE, PAGE, RangeAllocator, preferred_alignment

PAGES = 64


def allocator() -> RangeAllocator:
    return RangeAllocator("test memory", PAGE * 16, PAGE * PAGES)


requests = st.lists(
    st.one_of(
        st.tuples(st.just("alloc"), st.integers(1, PAGE * 12), st.integers(0, 6)),
        st.tuples(st.just("free"), st.integers(0, 100), st.just(0)),
    ),
    max_size=60,
)


@given(requests)
def test_live_ranges_are_aligned_inside_and_disjoint_and_accounted(steps: list[tuple[str, int, int]]) -> None:
    memory = allocator()
    live: dict[int, int] = {}
    for kind, value, order in steps:
        if kind == "alloc":
            align = PAGE << order
            try:
                start = memory.alloc(value, align)
            except OutOfMemory:
                continue
            rounded = -(-value // PAGE) * PAGE
            assert start % align == 0
            assert memory.start <= start and start + rounded <= memory.end
            assert all(start + rounded <= other or other + size <= start for other, size in live.items())
            live[start] = rounded
        elif live:
            start = sorted(live)[value % len(live)]
            memory.free(start)
            del live[start]
        assert memory.free_bytes == PAGE * PAGES - sum(live.values())
    for start in live:
        memory.free(start)
    assert memory.free_ranges() == [(memory.start, memory.end)]


@given(st.integers(1, 1 << 40))
def test_preferred_alignment_is_a_power_of_two_not_above_size_or_limit(size_bytes: int) -> None:
    align = preferred_alignment(size_bytes)
    assert align & (align - 1) == 0
    assert PAGE <= align <= HUGE_PAGE
    assert align == PAGE or align <= size_bytes


def test_lowest_address_that_fits_is_taken() -> None:
    memory = allocator()
    first = memory.alloc(PAGE)
    memory.alloc(PAGE)
    memory.free(first)
    assert memory.alloc(PAGE) == first


def test_limit_is_respected_even_when_room_is_above_it() -> None:
    memory = allocator()
    memory.alloc(4 * PAGE)
    with pytest.raises(OutOfMemory):
        memory.alloc(2 * PAGE, below=memory.start + 5 * PAGE)
    assert memory.alloc(PAGE, below=memory.start + 5 * PAGE) == memory.start + 4 * PAGE


def test_error_tells_wanted_free_and_largest_run() -> None:
    memory = allocator()
    memory.reserve(memory.start + 10 * PAGE, PAGE)
    with pytest.raises(OutOfMemory, match=r"0x40000 bytes.*0x3f000 bytes are free, the largest run has 0x35000"):
        memory.alloc(PAGES * PAGE)


@pytest.mark.parametrize("size_bytes", [0, -1])
def test_size_that_is_not_positive_is_refused(size_bytes: int) -> None:
    with pytest.raises(InvalidArgument):
        allocator().alloc(size_bytes)


def test_alignment_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        allocator().alloc(PAGE, align=3 * PAGE)


def test_freeing_what_was_not_allocated_is_refused() -> None:
    memory = allocator()
    start = memory.alloc(2 * PAGE)
    with pytest.raises(InvalidArgument):
        memory.free(start + PAGE)
    memory.free(start)
    with pytest.raises(InvalidArgument):
        memory.free(start)


def test_reserving_what_is_taken_is_refused() -> None:
    memory = allocator()
    memory.reserve(memory.start + PAGE, PAGE)
    with pytest.raises(InvalidArgument):
        memory.reserve(memory.start, 2 * PAGE)
    assert memory.alloc(PAGE) == memory.start
    assert memory.alloc(PAGE) == memory.start + 2 * PAGE
