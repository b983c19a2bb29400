"""Functions without a library: error bounds. Types: promotion, narrow floats, conversions, random numbers."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument
from amdrv.tensor import Tensor, dtypes

RANDOM = np.random.default_rng(3)


def ulps(found: np.ndarray, exact: np.ndarray, kind: type) -> float:
    rounded = exact.astype(kind)
    finite = np.isfinite(rounded) & np.isfinite(found)
    assert (np.isfinite(rounded) == np.isfinite(found)).all()
    spacing = np.maximum(np.spacing(abs(rounded[finite])), np.finfo(kind).tiny).astype(np.float64)
    return float((abs(found[finite].astype(np.float64) - exact[finite].astype(np.float64)) / spacing).max(initial=0))


def spread(low: float, high: float, kind: type) -> np.ndarray:
    return np.concatenate([RANDOM.uniform(low, high, 4000), np.linspace(low, high, 1000)]).astype(kind)


# Function, interval, bound in units in the last place: float32 against float64.
BOUNDS32 = [
    ("exp", np.exp, -87, 88, 1.0), ("exp2", np.exp2, -126, 127, 1.0), ("log", np.log, 1e-30, 1e30, 1.0),
    ("log", np.log, 0.5, 2.0, 1.0), ("log2", np.log2, 1e-30, 1e30, 1.5), ("log2", np.log2, 0.7, 1.5, 2.5),
    ("sqrt", np.sqrt, 0, 1e30, 0.51), ("tanh", np.tanh, -9, 9, 3.0), ("log1p", np.log1p, -0.5, 5, 2.5),
    ("expm1", np.expm1, -3, 3, 5.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "exact", "low", "high", "bound"), BOUNDS32)
def test_float32_functions_are_within_bounds(name: str, exact: object, low: float, high: float, bound: float) -> None:
    x = spread(low, high, np.float32)
    found = getattr(Tensor(x, device="CPU"), name)().numpy()
    assert ulps(found, exact(x.astype(np.float64)), np.float32) <= bound  # type: ignore[operator]


@pytest.mark.parametrize("size", [1.0, 100.0, 1e4, 1e6, 1e20, 3e38])
@pytest.mark.parametrize(("name", "exact"), [("sin", np.sin), ("cos", np.cos)])
def test_sine_and_cosine_of_any_float32(name: str, exact: object, size: float) -> None:
    x = spread(-size, size, np.float32)
    found = getattr(Tensor(x, device="CPU"), name)().numpy()
    np.testing.assert_allclose(found, exact(x.astype(np.float64)), rtol=0, atol=1.2e-7)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "exact", "low", "high"),
    [("exp", np.exp, -700, 700), ("log", np.log, 1e-300, 1e300), ("log", np.log, 0.5, 2), ("log2", np.log2, 1e-9, 1e9),
     ("exp2", np.exp2, -1000, 1000), ("tanh", np.tanh, -1, 1)],
)  # fmt: skip
def test_float64_functions_agree_with_numpy(name: str, exact: object, low: float, high: float) -> None:
    x = spread(low, high, np.float64)
    found = getattr(Tensor(x, device="CPU"), name)().numpy()
    np.testing.assert_allclose(found, exact(x), rtol=1e-15, atol=1e-17)  # type: ignore[operator]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_error_function(kind: type) -> None:
    x = spread(-6, 6, kind)
    exact = np.array([math.erf(float(v)) for v in x])
    np.testing.assert_allclose(Tensor(x, device="CPU").erf().numpy(), exact, rtol=4 * np.finfo(kind).eps)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_powers_including_the_special_ones(kind: type) -> None:
    x = np.array([0, -0.0, 1, -1, 2, -2, 0.5, -0.5, np.inf, -np.inf, np.nan, 3.7], kind)
    a, b = (part.ravel() for part in np.meshgrid(x, x))
    with np.errstate(all="ignore"):
        wanted = np.power(a, b)
    found = (Tensor(a, device="CPU") ** Tensor(b, device="CPU")).numpy()
    ordinary = ~((abs(a) == 1) & np.isinf(b))  # what libraries differ in
    np.testing.assert_allclose(abs(found[ordinary]), abs(wanted[ordinary]), rtol=1e-6)


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-45, 3e38], np.float32)


@pytest.mark.parametrize("name", ["exp", "log", "sin", "cos", "sqrt", "tanh", "exp2", "log2"])
def test_infinities_and_nan_follow_ieee(name: str) -> None:
    with np.errstate(all="ignore"):
        wanted = getattr(np, name)(SPECIAL.astype(np.float64)).astype(np.float32)
    found = getattr(Tensor(SPECIAL, device="CPU"), name)().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_comparisons_and_extremes_with_nan() -> None:
    a, b = np.float32([np.nan, 1, np.nan]), np.float32([1, np.nan, np.nan])
    x, y = Tensor(a, device="CPU"), Tensor(b, device="CPU")
    for name in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"):
        assert getattr(x, name)(y).tolist() == getattr(a, name)(b).tolist()
    assert np.isnan(x.maximum(y).numpy()).all() and np.isnan(x.max().numpy())


# -- types -------------------------------------------------------------------------------------------------------------

STANDARD = [d for d in dtypes.ALL if d.name not in ("float8_e4m3fn", "float8_e5m2", "bfloat16")]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(STANDARD), st.sampled_from(STANDARD))
def test_promotion_is_numpy_s(a: dtypes.DType, b: dtypes.DType) -> None:
    assert dtypes.promote(a, b).numpy == np.promote_types(a.numpy, b.numpy)


def test_scalars_only_decide_the_kind() -> None:
    x = Tensor(np.zeros(3, np.float16), device="CPU")
    assert (x + 1).dtype is dtypes.float16 and (x * 2.5).dtype is dtypes.float16
    i = Tensor(np.zeros(3, np.int8), device="CPU")
    assert (i + 1).dtype is dtypes.int8 and (i * 1.5).dtype is dtypes.float32 and (i / 2).dtype is dtypes.float32


@pytest.mark.parametrize("dtype", STANDARD)
def test_every_type_is_stored_and_computed_with(dtype: dtypes.DType) -> None:
    array = np.arange(40).astype(dtype.numpy)
    x = Tensor(array, device="CPU")
    assert x.dtype is dtype
    np.testing.assert_array_equal(x.flip(0).numpy(), array[::-1])
    np.testing.assert_array_equal((x + x).numpy(), array + array)
    assert (x + x).numpy().dtype == array.dtype


NARROW = [
    (dtypes.bfloat16, ml_dtypes.bfloat16),
    (dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fn),
    (dtypes.float8_e5m2, ml_dtypes.float8_e5m2),
    (dtypes.float16, np.float16),
]


@pytest.mark.parametrize(("dtype", "kind"), NARROW)
def test_narrow_floats_round_as_their_definition_says(dtype: dtypes.DType, kind: type) -> None:
    limit = 400.0 if dtype.bits == 8 else 3e4
    x = np.concatenate([spread(-limit, limit, np.float32), spread(-0.02, 0.02, np.float32), SPECIAL[:7]])
    wanted = x.astype(kind)
    found = Tensor(x, device="CPU").cast(dtype).numpy()
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found.astype(np.float32), wanted.astype(np.float32))
    np.testing.assert_array_equal(Tensor(wanted, device="CPU").cast("float32").numpy(), wanted.astype(np.float32))


@pytest.mark.parametrize(("dtype", "kind"), NARROW)
def test_every_code_of_a_narrow_float_is_decoded(dtype: dtypes.DType, kind: type) -> None:
    codes = np.arange(1 << dtype.bits).astype(f"u{dtype.size_bytes}").view(kind)
    np.testing.assert_array_equal(Tensor(codes, device="CPU").cast("float32").numpy(), codes.astype(np.float32))


def test_a_cast_to_a_narrow_type_rounds_in_the_middle_of_a_kernel() -> None:
    x = spread(-3, 3, np.float32)
    found = (Tensor(x, device="CPU").cast("bfloat16").cast("float32") * 3).numpy()
    np.testing.assert_array_equal(found, x.astype(ml_dtypes.bfloat16).astype(np.float32) * 3)


def test_a_float64_is_rounded_once_to_a_narrow_float() -> None:
    ties = (1 + (RANDOM.integers(0, 1024, 500) * 2 + 1) * 2.0**-11) * 2.0 ** RANDOM.integers(-20, 15, 500)
    beside = np.concatenate(
        [ties, ties * (1 + 2.0**-40), ties * (1 - 2.0**-40), [0.0, 1e300, -1e-300, 65519.999, 65520]]
    )
    x = np.concatenate([beside, -beside, [np.inf, -np.inf, np.nan]])
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16)
    np.testing.assert_array_equal(Tensor(x, device="CPU").cast("float16").numpy(), wanted)
    near = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8, 1 + 2.0**-8 - 2.0**-40])
    assert Tensor(near, device="CPU").cast("bfloat16").cast("float32").tolist() == [1 + 2.0**-7, 1, 1]


@pytest.mark.parametrize("to", ["int8", "int32", "uint8", "int64", "bool", "float64"])
def test_conversions(to: str) -> None:
    x = np.float32([0, 0.7, -0.7, 3.9, 100, -100])
    x = abs(x) if to.startswith("u") else x
    np.testing.assert_array_equal(Tensor(x, device="CPU").cast(to).numpy(), x.astype(to))
    assert Tensor(np.float32([1.0]), device="CPU").bitcast("int32").item() == 0x3F800000


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(InvalidArgument, match="complex64"):
        Tensor(np.zeros(2, np.complex64), device="CPU")


# -- random numbers ----------------------------------------------------------------------------------------------------


def test_random_bits_are_philox() -> None:
    """Random123's known answer for philox4x32-10 with counter and key zero begins with 6627e8d5."""
    assert Tensor.random_bits(1, seed=0, device="CPU").item() == 0x6627E8D5


def test_random_numbers_have_their_distribution_and_repeat_with_their_seed() -> None:
    x = Tensor.rand(20000, seed=7, device="CPU").numpy()
    assert x.min() >= 0 and x.max() < 1 and abs(x.mean() - 0.5) < 0.01 and abs(x.var() - 1 / 12) < 0.003
    n = Tensor.randn(20000, seed=7, device="CPU").numpy()
    assert abs(n.mean()) < 0.03 and abs(n.std() - 1) < 0.02
    i = Tensor.randint(20000, low=-3, high=4, seed=7, device="CPU").numpy()
    assert set(i.tolist()) == set(range(-3, 4))
    np.testing.assert_array_equal(x, Tensor.rand(20000, seed=7, device="CPU").numpy())
    assert (Tensor.rand(100, seed=8, device="CPU").numpy() != x[:100]).any()
