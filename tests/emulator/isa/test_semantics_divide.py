"""Division by the sequences of LLVM's AMDGPU back end: every quotient must be the correctly rounded one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode, Rounding
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra, quiet

ALGEBRA = NumpyAlgebra()
WORD = {"f32": np.uint32, "f64": np.uint64}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def run(mnemonic: str, *values: np.ndarray) -> object:
    return semantics.lookup(mnemonic).evaluate(ALGEBRA, *values)


def divide_f32(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """LLVM 22 SIISelLowering.cpp, LowerFDIV32."""
    one = np.float32(1).reshape(1, 1)
    scaled_denominator, _ = run("v_div_scale_f32", denominator, denominator, numerator)
    scaled_numerator, flag = run("v_div_scale_f32", numerator, denominator, numerator)
    reciprocal = run("v_rcp_f32", scaled_denominator)
    negative = -scaled_denominator
    error = run("v_fma_f32", negative, reciprocal, one)
    reciprocal = run("v_fma_f32", error, reciprocal, reciprocal)
    quotient = run("v_mul_f32", scaled_numerator, reciprocal)
    rest = run("v_fma_f32", negative, quotient, scaled_numerator)
    quotient = run("v_fma_f32", rest, reciprocal, quotient)
    rest = run("v_fma_f32", negative, quotient, scaled_numerator)
    quotient = run("v_div_fmas_f32", rest, reciprocal, quotient, flag)
    return run("v_div_fixup_f32", quotient, denominator, numerator)


def divide_f64(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """LLVM 22 SIISelLowering.cpp, LowerFDIV64."""
    one = np.float64(1).reshape(1, 1)
    scaled_denominator, _ = run("v_div_scale_f64", denominator, denominator, numerator)
    negative = -scaled_denominator
    reciprocal = run("v_rcp_f64", scaled_denominator)
    for _ in range(2):
        error = run("v_fma_f64", negative, reciprocal, one)
        reciprocal = run("v_fma_f64", reciprocal, error, reciprocal)
    scaled_numerator, flag = run("v_div_scale_f64", numerator, denominator, numerator)
    quotient = run("v_mul_f64", scaled_numerator, reciprocal)
    rest = run("v_fma_f64", negative, quotient, scaled_numerator)
    quotient = run("v_div_fmas_f64", rest, reciprocal, quotient, flag)
    return run("v_div_fixup_f64", quotient, denominator, numerator)


DIVIDE = {"f32": divide_f32, "f64": divide_f64}


def operands(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all sizes, with every pair of edge values: ends of the ranges, denormals, infinities, NaN."""
    bits, mantissa, bias = (32, 23, 127) if kind == "f32" else (64, 52, 1023)
    top, sign = (2 * bias + 1) << mantissa, 1 << (bits - 1)
    edges = [0, 1, 3, (1 << mantissa) - 1, 1 << mantissa, (1 << mantissa) + 1, bias << mantissa, (bias << mantissa) + 1]
    edges += [top - 1, top - 2, (2 * bias) << mantissa, (2 * bias - 1) << mantissa, top, top | 1 << (mantissa - 1)]
    edges += [23 << mantissa, 24 << mantissa | 1, (bias - 1) << mantissa | 5, (bias + 96) << mantissa]
    pairs = list(product([*edges, *[e | sign for e in edges]], edges))
    random = np.random.default_rng(1)
    spread = random.integers(0, top, (20000, 2), dtype=np.uint64)
    near = random.integers(0, 1 << mantissa, (10000, 2), dtype=np.uint64)
    exponents = random.integers(0, 2 * bias + 1, (10000, 1), dtype=np.uint64)
    offsets = random.integers(0, 3, (10000, 1), dtype=np.uint64)
    # Quotients near one, near the largest number and near the smallest normal one.
    shifts = np.array([0, bias, 2**64 - bias], np.uint64)[offsets]
    close = (
        np.concatenate([exponents, (exponents + shifts) % np.uint64(2 * bias + 1)], axis=1) << np.uint64(mantissa)
        | near
    )
    both = np.concatenate([np.array(pairs, np.uint64), spread, close]).astype(WORD[kind])
    return both[None, :, 0].copy().view(f"f{bits // 8}"), both[None, :, 1].copy().view(f"f{bits // 8}")


@pytest.mark.parametrize("kind", DIVIDE)
def test_division_sequence_gives_the_correctly_rounded_quotient(kind: str) -> None:
    numerator, denominator = operands(kind)
    got = DIVIDE[kind](numerator, denominator)
    want = numerator / denominator
    same = (got.view(WORD[kind]) == want.view(WORD[kind])) | (np.isnan(got) & np.isnan(want))
    wrong = np.flatnonzero(~same.ravel())
    samples = [
        (float(numerator[0, n]).hex(), float(denominator[0, n]).hex(), float(got[0, n]).hex()) for n in wrong[:5]
    ]
    assert not len(wrong), (len(wrong), samples)


@pytest.mark.parametrize(("kind", "nan"), [("f16", 0xFE00), ("f32", 0xFFC00000), ("f64", 0xFFF8000000000000)])
def test_fixup_of_invalid_divisions_gives_the_default_nan(kind: str, nan: int) -> None:
    size = int(kind[1:]) // 8
    zero, infinity = np.zeros((1, 1), f"f{size}"), np.full((1, 1), np.inf, f"f{size}")
    for special in (zero, infinity):
        result = run(f"v_div_fixup_{kind}", np.ones((1, 1), f"f{size}"), special, special)
        assert result.view(f"u{size}").item() == nan


def test_fixup_quiets_the_numerator_s_nan_before_the_denominator_s() -> None:
    one, signalling, other = (
        np.array([[bits]], np.uint32).view(np.float32) for bits in (0x3F800000, 0x7F800005, 0xFFC00007)
    )
    assert run("v_div_fixup_f32", one, other, signalling).view(np.uint32).item() == 0x7FC00005
    assert run("v_div_fixup_f32", one, signalling, one).view(np.uint32).item() == 0x7FC00005


def test_fixup_of_a_vanishing_quotient_is_rounded_by_the_mode() -> None:
    tiny, huge = np.array([[2.0**-149]], np.float32), np.array([[2.0**127]], np.float32)
    evaluate = semantics.lookup("v_div_fixup_f32").evaluate
    up = NumpyAlgebra(FloatMode(round32=Rounding.UP))
    assert evaluate(ALGEBRA, tiny, huge, tiny).view(np.uint32).item() == 0
    assert evaluate(up, tiny, huge, tiny).view(np.uint32).item() == 1
    assert evaluate(up, tiny, huge, -tiny).view(np.uint32).item() == 0x80000000


def test_scale_leaves_ordinary_operands_alone_and_reports_nothing() -> None:
    x, y = np.array([[1.5]], np.float32), np.array([[3.0]], np.float32)
    for operand in (x, y):
        result, flag = run("v_div_scale_f32", operand, y, x)
        assert result.item() == operand.item()
        assert not flag.item()


@pytest.mark.parametrize(
    ("denominator", "numerator", "flagged"), [(0.0, 1.0, True), (1.0, 0.0, True), (0.0, 0.0, False)]
)
def test_scale_of_a_division_by_or_of_zero_is_nan_with_the_flag_of_the_exponents(
    denominator: float, numerator: float, flagged: bool
) -> None:
    below, above = (np.array([[value]], np.float32) for value in (denominator, numerator))
    for operand in (below, above):
        result, flag = run("v_div_scale_f32", operand, below, above)
        assert result.view(np.uint32).item() == 0xFFC00000
        assert bool(flag.item()) is flagged


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
def test_scale_leaves_the_operands_of_a_division_by_infinity_or_nan_alone(special: float) -> None:
    numerator, denominator = np.ones((1, 1), np.float32), np.full((1, 1), special, np.float32)
    for operand in (numerator, denominator):
        result, _ = run("v_div_scale_f32", operand, denominator, numerator)
        assert np.array_equal(result, operand, equal_nan=True)


# (numerator, denominator, power of two for the numerator and for the denominator, flag): the cases in their order, with
# exponents on both sides of each threshold (rocjitsu, shared/division.h: checked on gfx1100).
SCALES = [
    (2.0**96, 1.0, 0, 64, True),
    (2.0**95, 1.0, 0, 0, False),
    (2.0**-30, 2.0**-127, 0, 64, True),
    (2.0**-60, 2.0**-127, 64, 64, False),
    (2.0**100, 2.0**126, -64, -64, False),
    (2.0**30, 2.0**126, 0, -64, True),
    (2.0**30, 2.0**125, 0, 0, False),
    (2.0**-96, 1.0, 64, 0, True),
    (2.0**-95, 1.0, 0, 0, False),
    (2.0**-103, 2.0**-20, 64, 64, False),
    (2.0**-102, 2.0**-20, 0, 0, False),
]


@pytest.mark.parametrize(("numerator", "denominator", "above", "below", "flagged"), SCALES)
def test_scale_decides_by_exponents(
    numerator: float, denominator: float, above: int, below: int, flagged: bool
) -> None:
    x, y = np.array([[numerator]], np.float32), np.array([[denominator]], np.float32)
    for operand, power in ((x, above), (y, below)):
        result, flag = run("v_div_scale_f32", operand, y, x)
        assert result.item() == operand.item() * 2.0**power
        assert bool(flag.item()) is flagged


def test_division_by_a_flushed_denormal_is_one_by_zero() -> None:
    algebra = NumpyAlgebra(FloatMode(flush_inputs32=True, flush_outputs32=True))
    one, tiny = np.ones((1, 1), np.float32), np.full((1, 1), -(2.0**-130), np.float32)
    scaled, flag = semantics.lookup("v_div_scale_f32").evaluate(algebra, tiny, tiny, one)
    assert np.isnan(scaled.item())
    assert flag.item()
    assert semantics.lookup("v_div_fixup_f32").evaluate(algebra, one, tiny, one).item() == -np.inf
