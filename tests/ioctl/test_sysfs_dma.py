"""Host memory at physical addresses."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.errors import Refused
from amdrv.ioctl.sysfs_dma import PAGE, PAGEMAP_FRAME, LockedMemory, frames_of, merge

FRAMES = st.lists(st.integers(1, 40), max_size=60)


@given(FRAMES)
def test_segments_cover_the_pages_in_order_and_no_two_could_be_one(frames: list[int]) -> None:
    segments = merge(frames)
    pages = [address + at for address, size_bytes in segments for at in range(0, size_bytes, PAGE)]
    assert pages == [frame * PAGE for frame in frames]
    assert all(first + size_bytes != second for (first, size_bytes), (second, _) in pairwise(segments))


def test_neighbours_in_descending_order_stay_apart() -> None:
    assert merge([5, 6, 7, 9, 8]) == ((5 * PAGE, 3 * PAGE), (9 * PAGE, PAGE), (8 * PAGE, PAGE))


@given(st.lists(st.tuples(st.integers(1, PAGEMAP_FRAME), st.integers(0, 127)), max_size=20))
def test_frame_is_taken_from_a_present_entry_whatever_its_flags(pages: list[tuple[int, int]]) -> None:
    # Bits 55 to 61: soft-dirty, exclusively mapped, write-protected, file page; bit 63: present.
    entries = b"".join(struct.pack("<Q", 1 << 63 | flags << 55 | frame) for frame, flags in pages)
    assert frames_of(entries) == [frame for frame, _ in pages]


def test_a_page_that_is_not_present_is_refused() -> None:
    with pytest.raises(Refused, match="not in memory"):
        frames_of(struct.pack("<Q", 1 << 62 | 0x1234))


def test_hidden_frame_numbers_are_refused_with_a_hint() -> None:
    with pytest.raises(Refused, match="CAP_SYS_ADMIN"):
        frames_of(struct.pack("<Q", 1 << 63 | 1 << 61))


def test_ordinary_pages_that_may_be_moved_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amdrv.ioctl.sysfs_dma._map_huge", lambda _: None)
    with pytest.raises(Refused, match=r"nr_hugepages.*compact_unevictable_allowed"):
        LockedMemory(PAGE, lambda _: None, pages_stay=False)


def test_memory_is_zeroed_whole_pages_with_an_address_each_and_closes_once() -> None:
    closed: list[LockedMemory] = []
    try:
        memory = LockedMemory(5000, closed.append, pages_stay=True)
    except Refused as error:
        pytest.skip(f"no physical addresses here: {error}")
    assert memory.size_bytes == len(memory.view) == sum(size_bytes for _, size_bytes in memory.segments) == 2 * PAGE
    assert bytes(memory.view) == bytes(2 * PAGE)
    assert all(address % PAGE == 0 and address > 0 for address, _ in memory.segments)
    part = memory.view[4090:4100]
    memory.close()
    memory.close()
    assert closed == [memory]
    part[:] = b"still mine"
    assert bytes(part) == b"still mine"
