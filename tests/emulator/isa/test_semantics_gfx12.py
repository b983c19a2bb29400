"""What gfx12 adds to the semantics: the two kinds of extrema, eight-bit floats, new names, 64-bit scalars."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra, quiet
from amdrv.emulator.isa.semantics.gfx12 import RENAMED

# The mode of gfx12: no IEEE bit, NaNs clamped to zero, denormals kept.
ALGEBRA = NumpyAlgebra(FloatMode(ieee=False))
EIGHT_BIT = {"fp8": ml_dtypes.float8_e4m3fn, "bf8": ml_dtypes.float8_e5m2}
ALL_BYTES = np.arange(256, dtype=np.uint32)[None]
# Bit patterns of f32: numbers of both signs, zeroes, infinities, quiet and signalling NaNs.
SPECIAL = (0x3F800000, 0xC0000000, 0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFC00002, 0x7F800003)
QUIET = 0x00400000


def evaluate(mnemonic: str, *values: Any, generation: str = "gfx12") -> Any:
    definition = semantics.lookup(mnemonic, generation)
    assert definition is not None
    with quiet():
        return definition.evaluate(ALGEBRA, *values)


def is_nan(bits: int) -> bool:
    return bits & 0x7FFFFFFF > 0x7F800000


def ordered(bits: int) -> float:
    """A key that orders f32 patterns as numbers, -0 before +0."""
    value = float(np.uint32(bits).view(np.float32))
    return value if value else (-1e-300 if bits >> 31 else 0.0)


def number(x: int, y: int, largest: bool) -> int:
    """V_MIN_NUM_F32 and V_MAX_NUM_F32 by the pseudo code."""
    if is_nan(x) and is_nan(y):
        return x | QUIET
    if is_nan(x) or is_nan(y):
        return y if is_nan(x) else x
    return (max if largest else min)(x, y, key=ordered)


def propagating(x: int, y: int, largest: bool) -> int:
    """V_MINIMUM_F32 and V_MAXIMUM_F32 as measured: the first NaN, quieted (rocjitsu, shared/minmax.h)."""
    for operand in (x, y):
        if is_nan(operand):
            return operand | QUIET
    return (max if largest else min)(x, y, key=ordered)


RULES = {
    "min_num": (number, False),
    "max_num": (number, True),
    "minimum": (propagating, False),
    "maximum": (propagating, True),
}


@pytest.mark.parametrize("prefix", ["v", "s"])
@pytest.mark.parametrize("name", RULES)
def test_extrema_of_special_values(name: str, prefix: str) -> None:
    rule, largest = RULES[name]
    pairs = list(itertools.product(SPECIAL, SPECIAL))
    x, y = (np.array([column], np.uint32).view(np.float32) for column in zip(*pairs, strict=True))
    result = evaluate(f"{prefix}_{name}_f32", x, y).view(np.uint32)[0].tolist()
    assert result == [rule(a, b, largest) for a, b in pairs]


THREE = {
    "v_min3_num_f32": ("min_num", "min_num"),
    "v_max3_num_f32": ("max_num", "max_num"),
    "v_minmax_num_f32": ("min_num", "max_num"),
    "v_maxmin_num_f32": ("max_num", "min_num"),
    "v_minimum3_f32": ("minimum", "minimum"),
    "v_maximum3_f32": ("maximum", "maximum"),
    "v_minimummaximum_f32": ("minimum", "maximum"),
    "v_maximumminimum_f32": ("maximum", "minimum"),
}


@pytest.mark.parametrize("mnemonic", THREE)
def test_extrema_of_three_are_made_of_two(mnemonic: str) -> None:
    (inner, inner_largest), (outer, outer_largest) = (RULES[name] for name in THREE[mnemonic])
    triples = list(itertools.product(SPECIAL, repeat=3))
    values = [np.array([column], np.uint32).view(np.float32) for column in zip(*triples, strict=True)]
    result = evaluate(mnemonic, *values).view(np.uint32)[0].tolist()
    assert result == [outer(inner(x, y, inner_largest), z, outer_largest) for x, y, z in triples]


def test_the_median_of_numbers_is_the_middle_and_of_nans_their_minimum() -> None:
    triples = [*itertools.permutations((1.0, -2.0, 7.5)), (np.nan, 3.0, 2.0), (3.0, np.nan, np.nan)]
    values = [np.array([column], np.float32) for column in zip(*triples, strict=True)]
    assert evaluate("v_med3_num_f32", *values)[0].tolist() == [1.0] * 6 + [2.0, 3.0]


@pytest.mark.parametrize(("mnemonic", "generation"), [("v_med3_num_f32", "gfx12"), ("v_med3_f32", "gfx11")])
def test_the_median_tells_zeroes_apart(mnemonic: str, generation: str) -> None:
    triples = [*itertools.product((0.0, -0.0), repeat=3)]
    values = [np.array([column], np.float32) for column in zip(*triples, strict=True)]
    result = evaluate(mnemonic, *values, generation=generation)
    assert np.signbit(result)[0].tolist() == [np.signbit(triple).sum() > 1 for triple in triples]


def test_packed_extrema_work_on_both_halves() -> None:
    one, two = np.array([[0x4000_BC00]], np.uint32), np.array([[0x7E01_3C00]], np.uint32)  # (2, -1) and (NaN, 1)
    assert evaluate("v_pk_min_num_f16", one, two, {}).tolist() == [[0x4000_BC00]]
    assert evaluate("v_pk_maximum_f16", one, two, {}).tolist() == [[0x7E01_3C00]]


@pytest.mark.parametrize("kind", EIGHT_BIT)
def test_every_eight_bit_float_is_read(kind: str) -> None:
    expected = np.arange(256, dtype=np.uint8).view(EIGHT_BIT[kind]).astype(np.float32)
    np.testing.assert_array_equal(evaluate(f"v_cvt_f32_{kind}", ALL_BYTES, {})[0], expected)


def test_op_sel_names_the_byte_that_is_read_with_its_bits_reversed() -> None:
    word = np.array([[0x48_40_38_30]], np.uint32)  # 4, 2, 1 and 0.5
    values = [float(evaluate("v_cvt_f32_fp8", word, {"opsel": selected})[0, 0]) for selected in (0, 2, 1, 3)]
    assert values == [0.5, 1.0, 2.0, 4.0]


def test_a_pair_of_eight_bit_floats_is_read_into_two_registers() -> None:
    pair = evaluate("v_cvt_pk_f32_fp8", np.array([[0x4038]], np.uint16))
    assert pair.view(np.float32).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("kind", EIGHT_BIT)
@settings(max_examples=300, deadline=None)
@given(bits=st.integers(0, 2**32 - 1))
def test_conversion_to_eight_bits_rounds_to_nearest_even(kind: str, bits: int) -> None:
    value = np.array([[bits]], np.uint32).view(np.float32)
    check_conversion(kind, value)


@pytest.mark.parametrize("kind", EIGHT_BIT)
def test_ties_and_neighbours_of_every_eight_bit_float_are_rounded(kind: str) -> None:
    numbers = np.arange(256, dtype=np.uint8).view(EIGHT_BIT[kind]).astype(np.float32)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    ties = (numbers[1:] + numbers[:-1]) / 2
    edges = np.array([460, 464, 468, 57344, 61439, 61440, 65536, np.inf, -np.inf, np.nan, 1e-12, -1e-45], np.float32)
    near = [np.nextafter(ties, np.float32(direction)) for direction in (-np.inf, np.inf)]
    check_conversion(kind, np.concatenate((numbers, ties, *near, edges))[None])


def check_conversion(kind: str, value: np.ndarray[Any, Any]) -> None:
    with np.errstate(all="ignore"):
        expected = value.astype(EIGHT_BIT[kind])
    packed = evaluate(f"v_cvt_pk_{kind}_f32", value, value)
    low, high = (packed & 0xFF).astype(np.uint8), (packed >> 8).astype(np.uint8)
    np.testing.assert_array_equal(low, high)
    unordered = np.isnan(value)
    assert np.isnan(low.view(EIGHT_BIT[kind]).astype(np.float32)[unordered]).all()
    np.testing.assert_array_equal(low[~unordered], expected.view(np.uint8)[~unordered])


def test_a_stochastic_conversion_writes_one_byte_and_keeps_the_others() -> None:
    old = np.array([[0x11223344]], np.uint32)
    x, none = np.array([[1.0]], np.float32), np.array([[0]], np.uint32)
    for selected in range(4):
        result = int(evaluate("v_cvt_sr_fp8_f32", x, none, old, {"opsel": selected << 2})[0, 0])
        assert result == 0x11223344 & ~(0xFF << 8 * selected) | 0x38 << 8 * selected


def test_random_bits_push_a_number_over_the_rounding_edge() -> None:
    x = np.array([[1.03125]], np.float32)  # a quarter of the way from 1 to 1.125
    old = np.zeros((1, 1), np.uint32)
    for random, expected in ((0, 0x38), (0xFFFFFFFF, 0x39)):
        assert evaluate("v_cvt_sr_fp8_f32", x, np.array([[random]], np.uint32), old, {}).tolist() == [[expected]]


@pytest.mark.parametrize(("random", "expected"), [(0, 1), (0x7FFFFFFF, 1), (0x80000000, 2), (0xFFFFFFFF, 2)])
def test_random_bits_are_added_below_the_last_place_of_a_denormal(random: int, expected: int) -> None:
    x, old = np.array([[1.5 * 2.0**-9]], np.float32), np.zeros((1, 1), np.uint32)
    assert evaluate("v_cvt_sr_fp8_f32", x, np.array([[random]], np.uint32), old, {}).item() == expected


@pytest.mark.parametrize(("kind", "nan"), [("fp8", 0xFF), ("bf8", 0xFE)])
def test_nans_lose_their_payload_and_become_negative_on_the_way_to_and_from_eight_bits(kind: str, nan: int) -> None:
    assert evaluate(f"v_cvt_f32_{kind}", np.array([[0x7F]], np.uint32), {}).view(np.uint32).item() == 0xFFC00000
    x, none = np.array([[0x7FC00001]], np.uint32).view(np.float32), np.zeros((1, 1), np.uint32)
    assert evaluate(f"v_cvt_pk_{kind}_f32", x, x).item() == nan | nan << 8
    assert evaluate(f"v_cvt_sr_{kind}_f32", x, none, none, {}).item() == nan


def test_denormals_are_flushed_before_random_bits_are_added() -> None:
    x, random, old = np.array([[2.0**-127]], np.float32), np.full((1, 1), 0xFFFFFFFF, np.uint32), np.zeros((1, 1), "u4")
    definition = semantics.lookup("v_cvt_sr_bf8_f32", "gfx12")
    with quiet():
        for flush in (False, True):
            result = definition.evaluate(NumpyAlgebra(FloatMode(flush_inputs32=flush)), -x, random, old, {})
            assert result.item() == 0x80


def test_dot_product_of_eight_bit_floats() -> None:
    x, y = np.array([[0x48403830]], np.uint32), np.array([[0x40404040]], np.uint32)
    assert evaluate("v_dot4_f32_fp8_fp8", x, y, np.array([[10.0]], np.float32), {}).tolist() == [[25.0]]
    assert evaluate("v_dot4_f32_fp8_bf8", x, y, np.array([[-1.0]], np.float32), {"neg": 4}).tolist() == [[16.0]]


def test_64_bit_scalar_arithmetic_wraps_without_touching_scc() -> None:
    x, y = np.array([[2**64 - 1]], np.uint64), np.array([[3]], np.uint64)
    assert int(evaluate("s_add_nc_u64", x, y)[0, 0]) == 2
    assert int(evaluate("s_sub_nc_u64", y, x)[0, 0]) == 4
    assert int(evaluate("s_mul_u64", x, y)[0, 0]) == 2**64 - 3
    assert all(semantics.lookup(f"s_{name}_u64", "gfx12").writes == ("dst",) for name in ("add_nc", "sub_nc", "mul"))


@pytest.mark.parametrize(("new", "old"), RENAMED.items())
def test_renamed_instructions_mean_what_they_did(new: str, old: str) -> None:
    renamed, original = semantics.lookup(new, "gfx12"), semantics.lookup(old)
    assert renamed.evaluate is original.evaluate
    assert (renamed.reads, renamed.writes) == (original.reads, original.writes)


def test_a_generation_has_its_own_meaning_of_a_name() -> None:
    mnemonic = "v_wmma_f32_16x16x16_f16"
    assert semantics.lookup(mnemonic) is not semantics.lookup(mnemonic, "gfx12")
    assert semantics.lookup("v_min_num_f32") is None
    assert semantics.lookup("v_dual_min_num_f32", "gfx12") is semantics.lookup("v_min_num_f32", "gfx12")


@pytest.mark.parametrize(("kind", "largest"), [("fp8", 448.0), ("bf8", 57344.0)])
def test_eight_bit_floats_saturate_when_finite_numbers_may_not_overflow(kind: str, largest: float) -> None:
    definition = semantics.lookup(f"v_cvt_pk_{kind}_f32", "gfx12")
    assert definition is not None
    large, infinite = (np.array([[value]], np.float32) for value in (-1e9, np.inf))
    with quiet():
        result = definition.evaluate(NumpyAlgebra(FloatMode(ieee=False, saturate16=True)), large, infinite)
    first, second = result.view(np.uint8).view(EIGHT_BIT[kind]).astype(np.float32).ravel()  # type: ignore[attr-defined]
    assert first == -largest
    assert not np.isfinite(second)
