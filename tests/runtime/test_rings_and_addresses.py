"""Space that comes back in order, and telling what lies at an address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument
from amdrv.runtime.address_book import AddressBook
from amdrv.runtime.bump_ring import BumpRing


@given(st.integers(1, 64), st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, 4, 8]), st.booleans())))
def test_live_space_never_overlaps_and_never_wraps(size: int, requests: list[tuple[int, int, bool]]) -> None:
    ring, live, value = BumpRing("ring", size), {}, 0
    for count, align, retire_first in requests:
        if count > size:
            with pytest.raises(InvalidArgument):
                ring.reserve(count, align)
            continue
        if retire_first and live:
            ring.retire(min(live))
            del live[min(live)]
        position = ring.reserve(count, align)
        if position is None:
            assert ring.oldest is not None  # there is something to wait for
            ring.retire(value)
            live.clear()
            position = ring.reserve(count, align)
        assert position is not None  # an empty ring has room for anything it could ever hold
        place = position % size
        assert place + count <= size
        taken = {index for places in live.values() for index in places}
        mine = set(range(place, place + count))
        assert not taken & mine
        value += 1
        ring.commit(value)
        live[value] = mine


@given(st.lists(st.integers(1, 16), min_size=1, max_size=50))
def test_packets_may_run_over_the_end(counts: list[int]) -> None:
    ring, position = BumpRing("ring", 16), 0
    for value, count in enumerate(counts):
        assert ring.reserve(count, contiguous=False) == position
        position += count
        ring.commit(value)
        ring.retire(value)


def test_a_full_ring_says_so_until_its_oldest_work_has_ended() -> None:
    ring = BumpRing("ring", 10)
    for value in (1, 2):
        assert ring.reserve(5) is not None
        ring.commit(value)
    assert ring.reserve(1) is None
    assert ring.oldest == 1
    ring.retire(0)
    assert ring.reserve(1) is None
    ring.retire(1)
    assert ring.reserve(5) == 10
    assert ring.oldest == 2


def book() -> AddressBook:
    """Two ranges with a gap of 0x1000."""
    made = AddressBook()
    made.add(0x5000, 0x800, "a buffer")
    made.add(0x2000, 0x2000, "scratch")
    return made


@pytest.mark.parametrize(
    ("va", "text"),
    [
        (0x2000, "0 bytes into scratch"),
        (0x3FFF, "8191 bytes into scratch"),
        (0x4000, "0 bytes past the end of scratch"),
        (0x4FFF, "1 bytes before a buffer (2048 bytes at 0x5000)"),
        (0x5800, "0 bytes past the end of a buffer"),
        (0x1FF0, "16 bytes before scratch"),
        (0x5000_0000, "near nothing"),
    ],
)
def test_an_address_is_told_by_the_nearest_range(va: int, text: str) -> None:
    assert text in book().describe(va)


def test_a_null_pointer_is_suspected() -> None:
    empty = AddressBook()
    assert "null pointer" in empty.describe(0x10)


def test_a_forgotten_range_is_not_found() -> None:
    made = book()
    made.remove(0x5000)
    made.remove(0x4000)  # nothing starts there
    assert "past the end of scratch" in made.describe(0x5000)
    assert "bytes into scratch" in made.describe(0x2000)
