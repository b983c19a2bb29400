"""Compiled code on disk: what is kept comes back whole, and what is damaged does not come back at all."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa.native.cache import ObjectCache, StoredUnit

UNIT = StoredUnit(
    tier=1,
    ranges=((-16, b"before"), (0, b"code of the unit")),
    sites=((-16, "s_nop"), (0, "v_dual_mov_b32 :: v_dual_add_f32"), (4, ""), (8, "s_endpgm")),
    entries=frozenset({(0, 0xF0), (8, 0x2F0)}),
    added=frozenset({(8, 0x2F0)}),
    calls=("tlb_miss.w32", "record_fault.w32"),
    leaves=True,
    ends_at_once=True,
    holes=(4,),
    code=b"\x7fELF object",
)


def only_file(folder: Path) -> Path:
    (found,) = (path for path in folder.rglob("*") if path.is_file())
    return found


def test_a_unit_comes_back_as_it_was(tmp_path: Path) -> None:
    ObjectCache(tmp_path / "c").store_unit("key", UNIT)
    assert list(ObjectCache(tmp_path / "c").load_units("key")) == [UNIT]
    assert list(ObjectCache(tmp_path / "c").load_units("other")) == []


def test_a_better_unit_takes_the_place_of_the_quick_one(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "c")
    better = replace(UNIT, tier=2, code=b"better")
    cache.store_unit("key", UNIT)
    cache.store_unit("key", better)
    assert list(cache.load_units("key")) == [better]


def test_the_unit_with_the_most_entries_comes_first(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "c")
    small = replace(UNIT, entries=frozenset({(0, 0xF0)}), added=frozenset())
    cache.store_unit("key", UNIT)
    cache.store_unit("key", small)
    assert list(cache.load_units("key")) == [UNIT, small]


def test_a_function_comes_back_as_it_was(tmp_path: Path) -> None:
    ObjectCache(tmp_path / "c").store_function("f" * 64, b"object")
    assert ObjectCache(tmp_path / "c").load_function("f" * 64) == b"object"
    assert ObjectCache(tmp_path / "c").load_function("e" * 64) is None


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_file_with_a_flipped_bit_is_as_good_as_none(tmp_path_factory, place: float, bit: int) -> None:
    folder = tmp_path_factory.mktemp("cache") / "c"
    cache = ObjectCache(folder)
    cache.store_unit("key", UNIT)
    path = only_file(folder)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    assert list(cache.load_units("key")) == []


@pytest.mark.parametrize("kept", [0, 10, 40, 100, -1])
def test_a_truncated_file_is_as_good_as_none(tmp_path: Path, kept: int) -> None:
    cache = ObjectCache(tmp_path / "c")
    cache.store_unit("key", UNIT)
    path = only_file(tmp_path / "c")
    path.write_bytes(path.read_bytes()[:kept])
    assert list(cache.load_units("key")) == []


def test_a_file_under_the_name_of_another_is_as_good_as_none(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "c")
    cache.store_function("f" * 64, b"object")
    only_file(tmp_path / "c").rename(tmp_path / "c" / "functions" / ("e" * 64))
    assert cache.load_function("e" * 64) is None


def test_a_folder_that_others_may_write_to_is_not_believed(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "c")
    cache.store_function("f", b"object")
    os.chmod(tmp_path / "c", 0o777)
    assert cache.load_function("f") is None


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = ObjectCache(tmp_path / "file" / "c")
    cache.store_unit("key", UNIT)
    assert list(cache.load_units("key")) == []


def test_files_are_dropped_oldest_first_beyond_the_limit(tmp_path: Path) -> None:
    big = b"x" * 1000
    cache = ObjectCache(tmp_path / "c", limit_bytes=3200)
    for number in range(6):
        cache.store_function(str(number), big)
        os.utime(tmp_path / "c" / "functions" / str(number), (number, number))
    # A folder is looked through by the first file that an ObjectCache stores.
    ObjectCache(tmp_path / "c", limit_bytes=3200).store_function("new", big)
    assert {path.name for path in (tmp_path / "c" / "functions").iterdir()} == {"4", "5", "new"}


def test_what_is_used_is_not_the_oldest_any_more(tmp_path: Path) -> None:
    big = b"x" * 1000
    cache = ObjectCache(tmp_path / "c", limit_bytes=2200)
    for number in range(3):
        cache.store_function(str(number), big)
        os.utime(tmp_path / "c" / "functions" / str(number), (number, number))
    assert cache.load_function("0") == big
    ObjectCache(tmp_path / "c", limit_bytes=2200).store_function("new", big)
    assert {path.name for path in (tmp_path / "c" / "functions").iterdir()} == {"0", "new"}
