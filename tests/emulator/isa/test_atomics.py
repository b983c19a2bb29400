"""Atomics of many lanes against one lane after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa.atomics import ATOMICS, dtype_of, perform
from amdrv.emulator.isa.memory_ops import atomic_form

CELLS = 6


def one_after_the_other(name: str, memory: np.ndarray, index: list[int], data: np.ndarray, other: np.ndarray) -> list:
    """The values found by lanes that run strictly in order."""
    found = []
    for place, cell in enumerate(index):
        old = memory[cell : cell + 1].copy()
        found.append(old[0])
        memory[cell : cell + 1] = ATOMICS[name].apply(old, data[place : place + 1], other[place : place + 1])
    return found


@pytest.mark.parametrize("size_bytes", [4, 8])
@pytest.mark.parametrize("name", sorted(ATOMICS))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_lanes_that_meet_act_in_order(name: str, size_bytes: int, data: st.DataObject) -> None:
    op = ATOMICS[name]
    dtype = dtype_of(op, size_bytes)
    lanes = data.draw(st.integers(1, 80))
    index = data.draw(st.lists(st.integers(0, CELLS - 1), min_size=lanes, max_size=lanes))
    if data.draw(st.booleans()):
        index = [index[0]] * lanes  # everyone at one address
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))

    def values(count: int) -> np.ndarray:
        small = rng.integers(0, 5, count)
        wide = rng.integers(0, 2**64, count, dtype=np.uint64).astype(f"u{size_bytes}")
        if dtype.kind == "f":
            return (rng.standard_normal(count) * 10).astype(dtype)
        return np.where(rng.random(count) < 0.5, small, wide).astype(f"u{size_bytes}").view(dtype)

    memory, first, second = values(CELLS), values(lanes), values(lanes)
    second = np.where(rng.random(lanes) < 0.5, memory[index], second)
    expected_memory = memory.copy()
    with np.errstate(all="ignore"):
        expected = one_after_the_other(name, expected_memory, index, first, second)
        silent = memory.copy()
        found = perform(op, memory, np.array(index), first, second, True)
        perform(op, silent, np.array(index), first, second, False)
    assert found is not None
    np.testing.assert_array_equal(found, np.array(expected, dtype))
    np.testing.assert_array_equal(memory, expected_memory)
    np.testing.assert_array_equal(silent, expected_memory)


@pytest.mark.parametrize(
    ("name", "memory", "data", "other", "expected"),
    [
        ("inc", 5, 5, 0, 0),
        ("inc", 4, 5, 0, 5),
        ("dec", 0, 9, 0, 9),
        ("dec", 10, 9, 0, 9),
        ("dec", 9, 9, 0, 8),
        ("csub", 3, 4, 0, 0),
        ("csub", 4, 3, 0, 1),
        ("wrap", 7, 5, 100, 2),
        ("wrap", 4, 5, 100, 104),
        ("mskor", 0xFF, 0x0F, 0x100, 0x1F0),
        ("cmpswap", 3, 8, 3, 8),
        ("cmpswap", 4, 8, 3, 4),
        ("rsub", 3, 10, 0, 7),
        ("condxchg32", 0x1111_2222, 0x8000_0005, 0, 5),
        ("condxchg32", 0x1111_2222, 0x0000_0005, 0, 0x1111_2222),
    ],
)
def test_one_lane_follows_the_manual(name: str, memory: int, data: int, other: int, expected: int) -> None:
    cell = np.array([memory], np.uint32)
    perform(ATOMICS[name], cell, np.array([0]), np.array([data], np.uint32), np.array([other], np.uint32), False)
    assert cell[0] == expected


@pytest.mark.parametrize(
    ("suffix", "name", "size_bytes"),
    [
        ("add_u32", "add", 4),
        ("add_f32", "add_f", 4),
        ("min_i64", "min_i", 8),
        ("min_f32", "min_f", 4),
        ("cmpswap_b64", "cmpswap", 8),
        ("cmpswap_f32", "cmpswap_f", 4),
    ],
)
def test_mnemonics_name_operation_and_width(suffix: str, name: str, size_bytes: int) -> None:
    assert atomic_form(suffix) == (ATOMICS[name], size_bytes)


def test_what_is_no_atomic_has_no_form() -> None:
    assert atomic_form("load_b32") is None
    assert atomic_form("add_u16") is None
