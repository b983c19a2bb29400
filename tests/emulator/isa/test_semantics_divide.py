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


def test_scale_of_a_division_by_or_of_zero_is_nan_without_a_flag() -> None:
    zero, one = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    for denominator, numerator in ((zero, one), (one, zero)):
        result, flag = run("v_div_scale_f32", denominator, denominator, numerator)
        assert np.isnan(result.item())
        assert not flag.item()


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
def test_scale_leaves_a_division_by_infinity_or_nan_alone(special: float) -> None:
    numerator, denominator = np.ones((1, 1), np.float32), np.full((1, 1), special, np.float32)
    for operand in (numerator, denominator):
        result, flag = run("v_div_scale_f32", operand, denominator, numerator)
        assert np.array_equal(result, operand, equal_nan=True)
        assert not flag.item()
