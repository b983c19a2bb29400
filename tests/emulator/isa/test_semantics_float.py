"""Float instructions beyond plain arithmetic: parts of numbers, extrema of three, special products, conversions."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode, Rounding
from amdrv.emulator.isa.numpy_algebra import DTYPES, NumpyAlgebra, quiet
from amdrv.emulator.isa.semantics.transcendental import TWO_OVER_PI, TWO_OVER_PI_BITS

ALGEBRA = NumpyAlgebra()
INF, NAN = math.inf, math.nan
KINDS = ("f16", "f32", "f64")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def row(kind: str, values: list[float]) -> np.ndarray:
    return np.array([values], DTYPES[kind])


def bits(kind: str, patterns: list[int]) -> np.ndarray:
    return np.array([patterns], f"u{DTYPES[kind].itemsize}").view(DTYPES[kind])


def run(mnemonic: str, *values: object, algebra: NumpyAlgebra = ALGEBRA) -> np.ndarray:
    return semantics.lookup(mnemonic).evaluate(algebra, *values)


def shown(result: np.ndarray) -> list[str]:
    """Values with the signs of zeroes; all NaNs alike."""
    return ["nan" if math.isnan(v) else repr(float(v)) for v in result.ravel().tolist()]


# Rounding to integral values.

INTEGRAL = [-INF, -2.5, -1.5, -1.0, -0.5, -0.25, -0.0, 0.0, 0.25, 0.5, 0.75, 1.5, 2.5, 3.0, 1000.5, INF, NAN]
FUNCTIONS = {"trunc": math.trunc, "floor": math.floor, "ceil": math.ceil, "rndne": round}


@pytest.mark.parametrize(("prefix", "kind"), [*(("v", kind) for kind in KINDS), ("s", "f16"), ("s", "f32")])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_integral_values_keep_the_sign_of_the_operand(name: str, kind: str, prefix: str) -> None:
    want = [v if not math.isfinite(v) else math.copysign(float(FUNCTIONS[name](v)), v) for v in INTEGRAL]
    assert shown(run(f"{prefix}_{name}_{kind}", row(kind, INTEGRAL))) == shown(row(kind, want))


@pytest.mark.parametrize(("kind", "largest"), [("f16", 0x3BFF), ("f32", 0x3F7FFFFF), ("f64", 0x3FEFFFFFFFFFFFFF)])
def test_fract_is_in_the_half_open_unit_interval(kind: str, largest: int) -> None:
    values = [1.25, -1.25, 3.0, -3.0, 0.0, -0.5]
    assert run(f"v_fract_{kind}", row(kind, values)).ravel().tolist() == [0.25, 0.75, 0.0, 0.0, 0.0, 0.5]
    # The difference would round up to one (manual: the result is clamped to the number below).
    tiny = np.negative(np.finfo(DTYPES[kind]).smallest_normal).reshape(1, 1)
    assert run(f"v_fract_{kind}", tiny).view(f"u{DTYPES[kind].itemsize}").item() == largest
    assert shown(run(f"v_fract_{kind}", row(kind, [INF, NAN])))[0] == "nan"


@pytest.mark.parametrize("kind", KINDS)
def test_frexp_splits_numbers_and_passes_special_values(kind: str) -> None:
    values = [1.0, -1.0, 0.75, 3.0, -1024.0, 2.0**-14, 2.0**-24, 3 * 2.0**-24, -(2.0**-20), 0.0, -0.0]
    if kind == "f32":
        values += [2.0**-149, 2.0**-126, 2.0**127, 5 * 2.0**-149]
    if kind == "f64":
        values += [5e-324, 2.2250738585072014e-308, 1.7e308, 7 * 5e-324]
    exponent = "i16" if kind == "f16" else "i32"
    x = row(kind, values)
    mantissas, exponents = zip(*map(math.frexp, x.ravel().tolist()), strict=True)
    assert shown(run(f"v_frexp_mant_{kind}", x)) == shown(row(kind, list(mantissas)))
    result = run(f"v_frexp_exp_{exponent}_{kind}", x)
    assert result.ravel().tolist() == list(exponents)
    assert result.dtype == DTYPES[exponent]
    special = row(kind, [INF, -INF, NAN])
    assert shown(run(f"v_frexp_mant_{kind}", special)) == ["inf", "-inf", "nan"]
    assert run(f"v_frexp_exp_{exponent}_{kind}", special).ravel().tolist() == [0, 0, 0]


# Three operands.

THREE = [-INF, -2.0, -0.0, 0.0, 1.0, 3.0, INF]


SIGNALLING = {"f16": 0x7C01, "f32": 0x7F800001, "f64": 0x7FF0000000000001}
QUIET = {"f16": 0x7E01, "f32": 0x7FC00001, "f64": 0x7FF8000000000001}


@pytest.mark.parametrize("kind", KINDS)
def test_frexp_quiets_a_signalling_nan(kind: str) -> None:
    result = run(f"v_frexp_mant_{kind}", bits(kind, [SIGNALLING[kind]]))
    assert result.view(f"u{result.dtype.itemsize}").item() == QUIET[kind]


@pytest.mark.parametrize(
    ("mnemonic", "source", "pattern", "want"),
    [
        ("v_cvt_f32_f16", "f16", 0xFC01, 0xFFC02000),
        ("v_cvt_f64_f32", "f32", 0x7F800001, 0x7FF8000020000000),
        ("v_cvt_f16_f32", "f32", 0x7F802000, 0x7E01),
        ("v_cvt_f32_f64", "f64", 0x7FF0000020000000, 0x7FC00001),
    ],
)
def test_conversions_quiet_a_signalling_nan(mnemonic: str, source: str, pattern: int, want: int) -> None:
    result = run(mnemonic, bits(source, [pattern]))
    assert result.view(f"u{result.dtype.itemsize}").item() == want


@pytest.mark.parametrize("kind", ["f16", "f32"])
def test_extrema_of_three_agree_with_sorting(kind: str) -> None:
    rows = list(product(THREE, repeat=3))
    columns = [row(kind, list(column)) for column in zip(*rows, strict=True)]

    def order(v: float) -> tuple[float, float]:
        return v, math.copysign(1, v)

    low, middle, high = zip(*(sorted(r, key=order) for r in rows), strict=True)
    assert shown(run(f"v_min3_{kind}", *columns)) == shown(row(kind, list(low)))
    assert shown(run(f"v_max3_{kind}", *columns)) == shown(row(kind, list(high)))
    assert run(f"v_med3_{kind}", *columns).ravel().tolist() == row(kind, list(middle)).ravel().tolist()
    assert shown(run(f"v_maxmin_{kind}", *columns)) == [
        shown(row(kind, [min(max(x, y, key=order), z, key=order)]))[0] for x, y, z in rows
    ]
    assert shown(run(f"v_minmax_{kind}", *columns)) == [
        shown(row(kind, [max(min(x, y, key=order), z, key=order)]))[0] for x, y, z in rows
    ]


@pytest.mark.parametrize("kind", ["f16", "f32"])
def test_median_with_a_nan_is_the_minimum_of_the_others(kind: str) -> None:
    for order in permutations((NAN, 5.0, 2.0)):
        assert run(f"v_med3_{kind}", *(row(kind, [v]) for v in order)).item() == 2.0


# Special products.


def test_dx9_products_make_zero_of_zero_times_anything() -> None:
    x, y = row("f32", [0.0, -0.0, INF, NAN, 2.0, INF]), row("f32", [INF, NAN, -0.0, 0.0, 3.0, 2.0])
    z = row("f32", [7.0, -0.0, 7.0, 7.0, 1.0, 1.0])
    assert shown(run("v_mul_dx9_zero_f32", x, y)) == ["0.0", "0.0", "0.0", "0.0", "6.0", "inf"]
    want = ["7.0", "0.0", "7.0", "7.0", "7.0", "inf"]
    assert shown(run("v_fma_dx9_zero_f32", x, y, z)) == want
    assert shown(run("v_fmac_dx9_zero_f32", x, y, z)) == want


def test_mullit_gives_minus_max_for_a_bad_exponent_or_a_dark_light() -> None:
    least = -float(np.finfo(np.float32).max)
    x = row("f32", [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    y = row("f32", [3.0, least, -INF, NAN, 3.0, 3.0, 3.0])
    z = row("f32", [1.0, 1.0, 1.0, 1.0, 0.0, -1.0, NAN])
    assert run("v_mullit_f32", x, y, z).ravel().tolist() == [6.0] + [least] * 6


@pytest.mark.parametrize("kind", ["f16", "f32"])
def test_literal_and_accumulating_forms_are_one_fused_operation(kind: str) -> None:
    # x * y has a bit beyond the precision that a separate product would lose.
    one_up = 1 + float(np.finfo(DTYPES[kind]).eps)
    x, z = row(kind, [one_up]), row(kind, [-1.0 - 2 * float(np.finfo(DTYPES[kind]).eps)])
    for form in ("v_fma", "v_fmac", "v_fmaak", "v_fmamk"):
        assert run(f"{form}_{kind}", x, x, z).item() == float(np.finfo(DTYPES[kind]).eps) ** 2


# Cube maps.


def cube(x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """Face, s, t, major axis: the table of the OpenGL specification (cube map texture selection), face ids 0 to 5."""
    if abs(z) >= abs(x) and abs(z) >= abs(y):
        return (5, -x, -y, 2 * z) if z < 0 else (4, x, -y, 2 * z)
    if abs(y) >= abs(x):
        return (3, x, -z, 2 * y) if y < 0 else (2, x, z, 2 * y)
    return (1, z, -y, 2 * x) if x < 0 else (0, -z, -y, 2 * x)


def test_cube_coordinates_follow_the_major_axis() -> None:
    directions = list(product((-2.0, -1.0, 0.5, 1.0, 3.0), repeat=3))
    columns = [row("f32", list(column)) for column in zip(*directions, strict=True)]
    want = [cube(*direction) for direction in directions]
    for n, name in enumerate(("id", "sc", "tc", "ma")):
        assert run(f"v_cube{name}_f32", *columns).ravel().tolist() == [w[n] for w in want]


# Conversions.


def test_nearest_rounds_halves_up_and_floor_rounds_down() -> None:
    values = [0.5, -0.5, 1.5, 2.5, -1.5, 0.49999997, 8388609.0, -2.75, 3e9, -3e9, NAN, -NAN]
    want = [1, 0, 2, 3, -1, 0, 8388609, -3, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31)]
    assert run("v_cvt_nearest_i32_f32", row("f32", values)).ravel().tolist() == want
    floors = [0, -1, 1, 2, -2, 0, 8388609, -3, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31)]
    assert run("v_cvt_floor_i32_f32", row("f32", values)).ravel().tolist() == floors


def test_offset_conversion_counts_sixteenths() -> None:
    codes = np.arange(16, dtype=np.uint32)[None] | np.uint32(0xABC0)
    want = [n / 16 for n in range(8)] + [n / 16 for n in range(-8, 0)]
    assert run("v_cvt_off_f32_i4", codes).ravel().tolist() == want


def test_each_byte_of_a_word_converts_to_a_float() -> None:
    for n in range(4):
        assert run(f"v_cvt_f32_ubyte{n}", np.array([[0xFF80017F]], np.uint32)).item() == (0x7F, 1, 0x80, 0xFF)[n]


@pytest.mark.parametrize("kind", ["f16", "f32"])
def test_normalised_integers_saturate_at_plus_and_minus_one(kind: str) -> None:
    values = [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, INF, -INF, NAN]
    signed = [0, 32767, -32767, 32767, -32767, 16384, -16384, 32767, -32767, 0]
    unsigned = [0, 65535, 0, 65535, 0, 32768, 0, 65535, 0, 0]
    x, zero = row(kind, values), row(kind, [0.0])
    packed = run(f"v_cvt_pk_norm_i16_{kind}", x, zero)
    assert packed.ravel().tolist() == [v & 0xFFFF for v in signed]
    assert run(f"v_cvt_pk_norm_i16_{kind}", zero, x).ravel().tolist() == [(v & 0xFFFF) << 16 for v in signed]
    assert run(f"v_cvt_pk_norm_u16_{kind}", x, zero).ravel().tolist() == unsigned
    if kind == "f16":
        assert run("v_cvt_norm_i16_f16", x).ravel().tolist() == signed
        assert run("v_cvt_norm_u16_f16", x).ravel().tolist() == unsigned


def test_packed_integers_truncate_and_saturate() -> None:
    x, y = row("f32", [1.9, -1.9, 70000.0, NAN]), row("f32", [-40000.0, 3.5, -INF, INF])
    signed = run("v_cvt_pk_i16_f32", x, y).ravel().tolist()
    assert signed == [1 | 0x8000 << 16, 0xFFFF | 3 << 16, 0x7FFF | 0x8000 << 16, 0x7FFF << 16]
    unsigned = run("v_cvt_pk_u16_f32", x, y).ravel().tolist()
    assert unsigned == [1, 3 << 16, 0xFFFF, 0xFFFF << 16]


def half_toward_zero(value: float) -> int:
    """f16 bits of a float rounded toward zero, by counting down from the nearest."""
    if math.isinf(value):
        return struct.unpack("<H", struct.pack("<e", value))[0]
    size = min(abs(value), 65504.0)
    pattern = struct.unpack("<H", struct.pack("<e", size))[0]
    if Fraction(struct.unpack("<e", struct.pack("<H", pattern))[0]) > Fraction(size):
        pattern -= 1
    return pattern | (0x8000 if math.copysign(1, value) < 0 else 0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.one_of(st.floats(width=32, allow_nan=False), st.floats(-70000, 70000, width=32))] * 2),
        min_size=1,
    )
)
@pytest.mark.parametrize("mode", [Rounding.NEAREST_EVEN, Rounding.UP])
def test_packing_halves_rounds_toward_zero_in_every_mode(mode: Rounding, pairs: list[tuple[float, float]]) -> None:
    x, y = (row("f32", list(column)) for column in zip(*pairs, strict=True))
    algebra = NumpyAlgebra(FloatMode(round32=mode, round64=mode))
    want = [half_toward_zero(p) | half_toward_zero(q) << 16 for p, q in pairs]
    assert run("v_cvt_pk_rtz_f16_f32", x, y, algebra=algebra).ravel().tolist() == want


@pytest.mark.parametrize(("mode", "want"), [
    (Rounding.NEAREST_EVEN, [2, 2, 0, 255, 0, 1]),
    (Rounding.UP, [2, 3, 0, 255, 0, 1]),
    (Rounding.DOWN, [1, 2, 0, 255, 0, 0]),
    (Rounding.ZERO, [1, 2, 0, 255, 0, 0]),
])  # fmt: skip
def test_packing_a_byte_rounds_by_the_mode_and_replaces_one_byte(mode: Rounding, want: list[int]) -> None:
    values = row("f32", [1.5, 2.5, -3.0, 300.0, NAN, 0.75])
    algebra = NumpyAlgebra(FloatMode(round32=mode))
    old = np.array([[0x11223344]], np.uint32)
    for byte in range(4):
        position = np.array([[byte | 0x40]], np.uint32)
        result = run("v_cvt_pk_u8_f32", values, position, old, algebra=algebra).ravel().tolist()
        assert result == [0x11223344 & ~(0xFF << 8 * byte) | v << 8 * byte for v in want]


def test_packed_halves_are_floats() -> None:
    x, y = bits("f16", [0x3C00, 0x7C01, 0x8001]), bits("f16", [0x0001, 0xFE02, 0x7C00])
    assert run("v_pack_b32_f16", x, y).tolist() == [[0x00013C00, 0xFE027E01, 0x7C008001]]
    flushing = NumpyAlgebra(FloatMode(flush_inputs64=True))
    assert run("v_pack_b32_f16", x, y, algebra=flushing).tolist() == [[0x00003C00, 0xFE027E01, 0x7C008000]]


def test_scalar_conversion_of_the_upper_half() -> None:
    assert run("s_cvt_hi_f32_f16", np.array([[0x3C00FFFF]], np.uint32)).item() == 1.0


# Argument reduction.


def two_over_pi(fraction_bits: int) -> int:
    """2 / pi as an integer multiple of 2**-fraction_bits, from Machin's formula for pi."""
    guard = 64
    one = 1 << fraction_bits + guard

    def arctan_of_inverse(n: int) -> int:
        term, total, k = one // n, 0, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term //= n * n
            k += 2
        return total

    pi = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
    return (2 * one << fraction_bits) // pi


def test_the_stored_bits_are_those_of_two_over_pi() -> None:
    assert two_over_pi(TWO_OVER_PI_BITS) == TWO_OVER_PI


@pytest.mark.parametrize("exponent", [0, 1077, 1078, 1100, 1500, 1967, 1968, 2046])
def test_trig_preop_hands_out_consecutive_pieces_of_two_over_pi(exponent: int) -> None:
    """Piece n has 53 bits, the first of them weighing 2**-1 after the argument's own scale is taken away."""
    x = np.array([[exponent << 52 | 12345]], np.uint64).view(np.float64)
    for segment in (0, 1, 2, 15):
        shift = segment * 53 + max(exponent - 1077, 0)
        fraction = (two_over_pi(3200) >> (3200 - 53 - shift)) & ((1 << 53) - 1)
        if shift + 53 > TWO_OVER_PI_BITS:
            known = max(TWO_OVER_PI_BITS - shift, 0)
            fraction = fraction >> (53 - known) << (53 - known) if known else 0
        scale = -53 - shift + (128 if exponent >= 1968 else 0)
        got = run("v_trig_preop_f64", x, np.array([[segment | 0x60]], np.uint32)).item()
        assert Fraction(got) == Fraction(math.ldexp(fraction, scale))


def test_approximations_are_declared_with_their_bound() -> None:
    assert semantics.lookup("v_exp_f32").accuracy == "approximate: 1 ulp"
    assert semantics.lookup("v_fma_f32").accuracy == "exact"
    assert semantics.lookup("v_rcp_f64").accuracy.startswith("approximate: ")
