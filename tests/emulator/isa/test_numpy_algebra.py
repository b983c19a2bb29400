"""The NumPy algebra's arithmetic against exact rational arithmetic, in every rounding and denormal mode."""

from __future__ import annotations

import inspect
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa.algebra import Algebra, FloatMode, Rounding
from amdrv.emulator.isa.numpy_algebra import DTYPES, NumpyAlgebra, quiet

# kind: (total bits, mantissa bits, exponent bias)
FORMATS = {"f16": (16, 10, 15), "f32": (32, 23, 127), "f64": (64, 52, 1023)}
KINDS = tuple(FORMATS)
MODES = tuple(Rounding)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def array(kind: str, bits: list[int]) -> np.ndarray:
    """Values of ``kind`` from bit patterns, as one wave."""
    return np.array([bits], f"u{FORMATS[kind][0] // 8}").view(DTYPES[kind])


def patterns(values: np.ndarray) -> list[int]:
    return [int(v) for v in values.view(f"u{values.dtype.itemsize}").ravel()]


def exact(kind: str, bits: int) -> Fraction | None:
    """The number a bit pattern stands for, or None for infinity and NaN."""
    width, mantissa, bias = FORMATS[kind]
    sign = -1 if bits >> (width - 1) else 1
    exponent, fraction = bits >> mantissa & (2 * bias + 1), bits & ((1 << mantissa) - 1)
    if exponent == 2 * bias + 1:
        return None
    significand = fraction if exponent == 0 else fraction | 1 << mantissa
    return sign * significand * Fraction(2) ** (max(exponent, 1) - bias - mantissa)


def rounded(value: Fraction, kind: str, mode: Rounding, zero_sign: int = 0) -> int:
    """The bit pattern of an exact number rounded by IEEE 754 rules; ``zero_sign`` is the sign bit of an exact zero."""
    width, mantissa, bias = FORMATS[kind]
    if value == 0:
        return zero_sign << (width - 1)
    sign, size = int(value < 0), abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent = exponent - 1 if size < Fraction(2) ** exponent else exponent
    unit = Fraction(2) ** (max(exponent, 1 - bias) - mantissa)
    steps, rest = divmod(size, unit)
    away = {
        Rounding.NEAREST_EVEN: rest * 2 > unit or (rest * 2 == unit and steps % 2 == 1),
        Rounding.UP: rest > 0 and not sign,
        Rounding.DOWN: rest > 0 and bool(sign),
        Rounding.ZERO: False,
    }[mode]
    size = (steps + away) * unit
    top = (2 * bias + 1) << mantissa
    if size >= Fraction(2) ** (bias + 1):
        to_infinity = mode is Rounding.NEAREST_EVEN or away or (mode is (Rounding.DOWN if sign else Rounding.UP))
        return sign << (width - 1) | (top if to_infinity else top - 1)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent = exponent - 1 if size < Fraction(2) ** exponent else exponent
    if size == 0 or exponent < 1 - bias:
        field, fraction = 0, size / unit
    else:
        field, fraction = exponent + bias, size * Fraction(2) ** (mantissa - exponent) - (1 << mantissa)
    return sign << (width - 1) | field << mantissa | int(fraction)


def float_mode(mode: Rounding) -> FloatMode:
    return FloatMode(round32=mode, round64=mode)


def special_patterns(kind: str) -> list[int]:
    """Finite edge values: zeroes, denormals, the normal range's ends, ones, neighbours of powers of two."""
    width, mantissa, bias = FORMATS[kind]
    top, one = (2 * bias + 1) << mantissa, bias << mantissa
    positive = [0, 1, 2, (1 << mantissa) - 1, 1 << mantissa, (1 << mantissa) + 1, one - 1, one, one + 1, top - 1]
    return positive + [p | 1 << (width - 1) for p in positive]


def finite_patterns(kind: str) -> st.SearchStrategy[int]:
    width, mantissa, bias = FORMATS[kind]
    top = (2 * bias + 1) << mantissa
    magnitude = st.one_of(st.integers(0, top - 1), st.sampled_from([p for p in special_patterns(kind) if p < top]))
    return st.builds(lambda m, s: m | s << (width - 1), magnitude, st.integers(0, 1))


def hard_triples(kind: str, count: int, seed: int) -> list[tuple[int, int, int]]:
    """Operands of an fma that cancel, tie, underflow or overflow more often than chance would have it."""
    width, mantissa, bias = FORMATS[kind]
    top, sign = (2 * bias + 1) << mantissa, 1 << (width - 1)
    random = np.random.default_rng(seed)
    triples = []
    for n in range(count):
        x, y = (int(v) for v in random.integers(0, top, 2, dtype=np.uint64))
        if n % 3 == 0:  # few mantissa bits make exact ties
            keep = ~((1 << (mantissa - 3)) - 1)
            x, y = x & keep, y & keep
        if n % 2:  # a product in range
            y = min(
                max(((2 * bias << mantissa) - (x & ~((1 << mantissa) - 1))) + (y & ((1 << mantissa) - 1)), 0), top - 1
            )
        product = exact(kind, x) * exact(kind, y)
        near = rounded(product, kind, Rounding.NEAREST_EVEN)
        choice = n % 5
        if choice == 0 or near >= top:
            z = int(random.integers(0, top, dtype=np.uint64))
        elif choice == 1:
            z = min(max(near + int(random.integers(-2, 3)), 0), top - 1) | sign
        elif choice == 2:  # far below: only a sticky bit
            z = max(near - (int(random.integers(mantissa - 2, 3 * mantissa)) << mantissa), 1)
        elif choice == 3:
            z = min(near + (int(random.integers(mantissa - 2, 2 * mantissa)) << mantissa), top - 1)
        else:
            z = int(random.integers(0, 1 << mantissa, dtype=np.uint64))
        signs = random.integers(0, 2, 3)
        triples.append((x | sign * int(signs[0]), y | sign * int(signs[1]), z ^ sign * int(signs[2])))
    return triples


def expected_fma(kind: str, x: int, y: int, z: int, mode: Rounding) -> int:
    width = FORMATS[kind][0]
    product_sign = (x ^ y) >> (width - 1)
    zero_sign = product_sign if product_sign == z >> (width - 1) else int(mode is Rounding.DOWN)
    total = exact(kind, x) * exact(kind, y) + exact(kind, z)
    return rounded(total, kind, mode, zero_sign)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_fma_rounds_once(kind: str, mode: Rounding) -> None:
    triples = hard_triples(kind, 600, seed=mode)
    triples += [
        (x, y, z)
        for x in special_patterns(kind)[::3]
        for y in special_patterns(kind)[::2]
        for z in special_patterns(kind)
    ]
    x, y, z = (array(kind, list(column)) for column in zip(*triples, strict=True))
    got = patterns(NumpyAlgebra(float_mode(mode)).fma(x, y, z))
    want = [expected_fma(kind, *triple, mode) for triple in triples]
    wrong = [(list(map(hex, t)), hex(g), hex(w)) for t, g, w in zip(triples, got, want, strict=True) if g != w]
    assert not wrong, (len(wrong), wrong[:5])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_scaled_fma_rounds_after_scaling(kind: str, mode: Rounding) -> None:
    triples = hard_triples(kind, 600, seed=50 + mode)
    x, y, z = (array(kind, list(column)) for column in zip(*triples, strict=True))
    power = 64 if kind == "f32" else 128
    powers = [power * (n % 3 - 1) for n in range(len(triples))]
    got = patterns(NumpyAlgebra(float_mode(mode)).scaled_fma(x, y, z, np.array([powers], np.int32)))
    width = FORMATS[kind][0]
    want = []
    for (p, q, r), n in zip(triples, powers, strict=True):
        product_sign = (p ^ q) >> (width - 1)
        zero_sign = product_sign if product_sign == r >> (width - 1) else int(mode is Rounding.DOWN)
        total = exact(kind, p) * exact(kind, q) + exact(kind, r)
        want.append(rounded(total * Fraction(2) ** n, kind, mode, zero_sign))
    assert got == want


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), mode=st.sampled_from(MODES))
def test_fma_of_any_finite_numbers_is_the_rounded_exact_result(kind: str, data: st.DataObject, mode: Rounding) -> None:
    finite = finite_patterns(kind)
    triples = data.draw(st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=8))
    x, y, z = (array(kind, list(column)) for column in zip(*triples, strict=True))
    got = patterns(NumpyAlgebra(float_mode(mode)).fma(x, y, z))
    assert got == [expected_fma(kind, *triple, mode) for triple in triples]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_products_are_the_rounded_exact_result(kind: str, mode: Rounding) -> None:
    width = FORMATS[kind][0]
    pairs = [(x, z) for x, _, z in hard_triples(kind, 500, seed=10 + mode)]
    pairs += [(x, y) for x in special_patterns(kind) for y in special_patterns(kind)]
    x, y = (array(kind, list(column)) for column in zip(*pairs, strict=True))
    algebra = NumpyAlgebra(float_mode(mode))
    sums, differences, products = [], [], []
    for p, q in pairs:
        s, t = p >> (width - 1), q >> (width - 1)
        down = int(mode is Rounding.DOWN)
        sums.append(rounded(exact(kind, p) + exact(kind, q), kind, mode, s if s == t else down))
        differences.append(rounded(exact(kind, p) - exact(kind, q), kind, mode, s if s != t else down))
        products.append(rounded(exact(kind, p) * exact(kind, q), kind, mode, s ^ t))
    assert patterns(algebra.add(x, y)) == sums
    assert patterns(algebra.sub(x, y)) == differences
    assert patterns(algebra.mul(x, y)) == products


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("source", "target"), [("f64", "f32"), ("f32", "f16"), ("f32", "f64"), ("f16", "f32")])
def test_float_conversions_round_by_the_mode(source: str, target: str, mode: Rounding) -> None:
    bits = [t[n] for t in hard_triples(source, 600, seed=20) for n in range(3)] + special_patterns(source)
    # Numbers in and around the target's range, ties included.
    _, mantissa, bias = FORMATS[source]
    target_mantissa, target_bias = FORMATS[target][1:]
    if mantissa > target_mantissa:
        random = np.random.default_rng(3)
        for _ in range(600):
            exponent = int(random.integers(bias - target_bias - target_mantissa - 3, bias + target_bias + 2))
            fraction = int(random.integers(0, 1 << target_mantissa + 1)) << (mantissa - target_mantissa - 1)
            bits.append(exponent << mantissa | fraction + int(random.integers(-1, 2)) & (1 << mantissa) - 1)
    converted = NumpyAlgebra(float_mode(mode)).to_float(array(source, bits), target)
    width = FORMATS[source][0]
    assert patterns(converted) == [rounded(exact(source, b), target, mode, b >> (width - 1)) for b in bits]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kind", "target"), [("u32", "f32"), ("i32", "f32"), ("i32", "f64"), ("u16", "f16"), ("i16", "f16")]
)
def test_integers_convert_to_the_rounded_exact_number(kind: str, target: str, mode: Rounding) -> None:
    limits = np.iinfo(DTYPES[kind])
    random = np.random.default_rng(5)
    values = [limits.min, limits.max, limits.max - 1, 0, 1, 16777217, 33554431, 65519, 65520, 2047, 2049]
    values = [v for v in values if limits.min <= v <= limits.max]
    values += [int(v) for v in random.integers(limits.min, limits.max, 500, endpoint=True)]
    got = patterns(NumpyAlgebra(float_mode(mode)).to_float(np.array([values], DTYPES[kind]), target))
    assert got == [rounded(Fraction(v), target, mode) for v in values]


@pytest.mark.parametrize("target", ["u16", "i16", "u32", "i32"])
@pytest.mark.parametrize("kind", KINDS)
def test_conversion_to_integers_truncates_and_saturates(kind: str, target: str) -> None:
    limits = np.iinfo(DTYPES[target])
    width, mantissa, bias = FORMATS[kind]
    bits = [t[n] for t in hard_triples(kind, 200, seed=30) for n in range(3)] + special_patterns(kind)
    for number in (0.5, 0.999, 1.5, 65535.5, 32767.9, 2147483647.0, 2147483648.0, 4294967295.0, 4294967296.0):
        for signed in (number, -number):
            bits += patterns(np.array([signed]).astype(DTYPES[kind]))
    bits = [b for b in bits if exact(kind, b) is not None]
    got = NumpyAlgebra().to_int(array(kind, bits), target).ravel().tolist()
    want = [min(max(math.trunc(exact(kind, b)), limits.min), limits.max) for b in bits]
    assert got == want
    top = (2 * bias + 1) << mantissa
    specials = array(kind, [top, top | 1 << (width - 1), top | 1 << (mantissa - 1), top | 1])
    assert NumpyAlgebra().to_int(specials, target).ravel().tolist() == [limits.max, limits.min, 0, 0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_ldexp_rounds_once_into_the_denormal_range(kind: str, mode: Rounding) -> None:
    width = FORMATS[kind][0]
    random = np.random.default_rng(7)
    bits = [t[0] for t in hard_triples(kind, 500, seed=40)] + special_patterns(kind)
    span = 2 * FORMATS[kind][2] + 2 * FORMATS[kind][1]
    powers = [int(p) for p in random.integers(-span, span, len(bits))]
    powers[:4] = [2**31 - 1, -(2**31), 0, -1]
    got = patterns(NumpyAlgebra(float_mode(mode)).ldexp(array(kind, bits), np.array([powers], np.int32)))
    clipped = [min(max(p, -5000), 5000) for p in powers]
    want = [
        rounded(exact(kind, b) * Fraction(2) ** p, kind, mode, b >> (width - 1))
        for b, p in zip(bits, clipped, strict=True)
    ]
    assert got == want


def test_mode_register_bits_are_read_as_the_manual_lays_them_out() -> None:
    assert FloatMode.from_bits(0x3F0) == FloatMode()
    assert FloatMode.from_bits(0) == FloatMode(
        flush_inputs32=True,
        flush_outputs32=True,
        flush_inputs64=True,
        flush_outputs64=True,
        dx10_clamp=False,
        ieee=False,
    )
    assert FloatMode.from_bits(0x8003F0) == FloatMode(saturate16=True)
    mode = FloatMode.from_bits(0b01_10_01_11_01)
    assert (mode.round32, mode.round64) == (Rounding.UP, Rounding.ZERO)
    assert (mode.flush_inputs32, mode.flush_outputs32) == (False, True)  # 1: inputs allowed, outputs flushed
    assert (mode.flush_inputs64, mode.flush_outputs64) == (True, False)  # 2: the reverse
    assert (mode.dx10_clamp, mode.ieee) == (True, False)


@pytest.mark.parametrize("kind", KINDS)
def test_denormals_are_flushed_to_zeroes_of_their_sign(kind: str) -> None:
    width, mantissa, _ = FORMATS[kind]
    sign = 1 << (width - 1)
    smallest_normal, denormal = 1 << mantissa, (1 << mantissa) - 1
    one = array(kind, special_patterns(kind)[7:8])
    inputs = replace(FloatMode(), flush_inputs32=True, flush_inputs64=True)
    outputs = replace(FloatMode(), flush_outputs32=True, flush_outputs64=True)
    x = array(kind, [denormal, denormal | sign, smallest_normal, smallest_normal | sign])
    zero = array(kind, [0])
    half = NumpyAlgebra().constant(kind, 0.5)
    assert patterns(NumpyAlgebra(inputs).mul(x, one)) == [0, sign, smallest_normal, smallest_normal | sign]
    assert patterns(NumpyAlgebra(inputs).mul(x, half))[2:] == [smallest_normal >> 1, smallest_normal >> 1 | sign]
    assert patterns(NumpyAlgebra(outputs).mul(x, half)) == [0, sign, 0, sign]
    assert patterns(NumpyAlgebra(outputs).max_num(x, x)) == patterns(x)  # picks a source as it is
    assert patterns(NumpyAlgebra(inputs).max_num(x, x)) == [0, sign, smallest_normal, smallest_normal | sign]
    assert NumpyAlgebra(inputs).eq(x, zero).ravel().tolist() == [True, True, False, False]
    assert NumpyAlgebra().eq(x, zero).ravel().tolist() == [False] * 4


@pytest.mark.parametrize("rounding", Rounding)
def test_finite_halves_do_not_overflow_when_they_saturate(rounding: Rounding) -> None:
    algebra = NumpyAlgebra(FloatMode(round64=rounding, saturate16=True))
    large, two = array("f16", [0x7BFF, 0xFBFF]), array("f16", [0x4000])
    greatest = [0x7BFF, 0xFBFF]
    assert patterns(algebra.mul(large, two)) == greatest
    assert patterns(algebra.add(large, large)) == greatest
    assert patterns(algebra.fma(large, two, large)) == greatest
    assert patterns(algebra.ldexp(large, np.array([[20]], np.int32))) == greatest
    assert patterns(algebra.to_float(array("f32", [0x7F000000, 0xFF000000]), "f16")) == greatest
    assert patterns(algebra.rcp(array("f16", [0, 0x8000]))) == greatest
    infinite = array("f16", [0x7C00, 0xFC00])
    assert patterns(algebra.mul(infinite, two)) == [0x7C00, 0xFC00]
    assert patterns(algebra.exp2(infinite[:, :1])) == [0x7C00]
    assert patterns(algebra.to_float(array("f32", [0x7F800000]), "f16")) == [0x7C00]
    assert patterns(algebra.mul(array("f32", [0x7F000000]), array("f32", [0x7F000000]))) == [0x7F800000]


def test_single_and_double_precision_modes_are_separate() -> None:
    flush32 = NumpyAlgebra(FloatMode(flush_inputs32=True, flush_outputs32=True))
    assert patterns(flush32.add(array("f16", [1]), array("f16", [0]))) == [1]
    assert patterns(flush32.add(array("f32", [1]), array("f32", [0]))) == [0]
    assert patterns(flush32.add(array("f64", [1]), array("f64", [0]))) == [1]
    # The target's mode rounds a conversion; the source's mode flushes its operand.
    assert patterns(flush32.to_float(array("f16", [1]), "f32")) == [0x33800000]
    assert patterns(flush32.to_float(array("f32", [0x33800000]), "f16")) == [1]
    assert patterns(flush32.to_float(array("f32", [1]), "f64")) == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_min_and_max_follow_the_manual_for_zeroes_and_nans(kind: str) -> None:
    width, mantissa, bias = FORMATS[kind]
    sign, infinity = 1 << (width - 1), (2 * bias + 1) << mantissa
    quiet_nan, signalling = infinity | 1 << (mantissa - 1), infinity | 1
    one = bias << mantissa
    ieee, plain = NumpyAlgebra(), NumpyAlgebra(FloatMode(ieee=False))
    rows = [  # x, y, min and max in IEEE mode, min and max without
        (0, sign, sign, 0, sign, 0),
        (sign, 0, sign, 0, sign, 0),
        (one, quiet_nan, one, one, one, one),
        (quiet_nan, one, one, one, one, one),
        (signalling, one, signalling | quiet_nan, signalling | quiet_nan, one, one),
        (one, signalling, signalling | quiet_nan, signalling | quiet_nan, one, one),
        (
            quiet_nan | sign,
            signalling,
            signalling | quiet_nan,
            signalling | quiet_nan,
            quiet_nan | sign,
            quiet_nan | sign,
        ),
        (infinity, infinity | sign, infinity | sign, infinity, infinity | sign, infinity),
    ]
    x, y, *want = zip(*rows, strict=True)
    left, right = array(kind, list(x)), array(kind, list(y))
    got = [
        a.min_num(left, right) if n % 2 == 0 else a.max_num(left, right)
        for n, a in enumerate((ieee, ieee, plain, plain))
    ]
    for result, expected in zip(got, want, strict=True):
        assert patterns(result) == list(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_arithmetic_quiets_signalling_nans(kind: str) -> None:
    _, mantissa, bias = FORMATS[kind]
    signalling = (2 * bias + 1) << mantissa | 5
    x, one = array(kind, [signalling]), array(kind, [bias << mantissa])
    algebra = NumpyAlgebra()
    for result in (
        algebra.add(x, one),
        algebra.mul(one, x),
        algebra.fma(one, one, x),
        algebra.rndne(x),
        algebra.sqrt(x),
    ):
        assert patterns(result) == [signalling | 1 << (mantissa - 1)]


INTEGERS = {"u16": 16, "u32": 32, "u64": 64}


@pytest.mark.parametrize("kind", ["u32", "u64"])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_bit_counts_agree_with_python_integers(kind: str, data: st.DataObject) -> None:
    width = INTEGERS[kind]
    value = st.one_of(st.integers(0, 2**width - 1), st.integers(0, width - 1).map(lambda n: 1 << n), st.just(0))
    values = data.draw(st.lists(value, min_size=1, max_size=16))
    x, algebra = np.array([values], DTYPES[kind]), NumpyAlgebra()
    assert algebra.popcount(x).ravel().tolist() == [v.bit_count() for v in values]
    assert algebra.clz(x).ravel().tolist() == [width - v.bit_length() for v in values]
    assert algebra.ctz(x).ravel().tolist() == [(v & -v).bit_length() - 1 if v else width for v in values]
    assert algebra.bitreverse(x).ravel().tolist() == [int(f"{v:0{width}b}"[::-1], 2) for v in values]
    assert algebra.popcount(x).dtype == np.uint32
    assert algebra.clz(x).dtype == algebra.ctz(x).dtype == np.int32


def test_cast_reinterprets_truncates_and_extends_by_the_source_kind() -> None:
    a = NumpyAlgebra()
    minus_two = np.array([[-2]], np.int16)
    assert a.u16(minus_two).item() == 0xFFFE
    assert a.u32(minus_two).item() == 0xFFFFFFFE
    assert a.i64(minus_two).item() == -2
    assert a.u32(a.u16(minus_two)).item() == 0xFFFE
    assert a.u16(np.array([[0x12345678]], np.uint32)).item() == 0x5678
    assert a.f32(np.array([[0x3F800000]], np.uint32)).item() == 1.0
    assert a.u32(np.array([[-1.0]], np.float16)).item() == 0xBC00  # float bits extend with zeroes
    assert a.f16(np.array([[0xDEAD3C00]], np.uint32)).item() == 1.0
    assert a.u32(np.array([[True, False]])).ravel().tolist() == [1, 0]


# Approximated functions: within 1 ulp of the true value, computed here with a different method in double precision.


def ulps_apart(kind: str, got: int, want: float) -> float:
    """Distance of a result from a true value, in units of the last place of the format at that value."""
    _, mantissa, bias = FORMATS[kind]
    exponent = max(math.frexp(want)[1] - 1, 1 - bias)
    return float(abs(exact(kind, got) - Fraction(want)) / Fraction(2) ** (exponent - mantissa))


FUNCTIONS = {
    "exp2": (lambda x: math.exp(x * math.log(2)), -120.0, 120.0),
    "log2": (lambda x: math.log(x) / math.log(2), 1e-30, 1e30),
    "rcp": (lambda x: 1 / x, 1e-30, 1e30),
    "rsq": (lambda x: x**-0.5, 1e-30, 1e30),
    "sqrt": (lambda x: x**0.5, 1e-30, 1e30),
    "sin_turns": (lambda x: math.sin(2 * math.pi * math.remainder(x, 1)), -300.0, 300.0),
    "cos_turns": (lambda x: math.cos(2 * math.pi * math.remainder(x, 1)), -300.0, 300.0),
}


@pytest.mark.parametrize("kind", ["f16", "f32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_approximated_functions_are_within_one_ulp(name: str, kind: str) -> None:
    function, low, high = FUNCTIONS[name]
    if kind == "f16":
        low, high = max(low, -14.0) if low < 0 else 1e-4, min(high, 15.0)
    random = np.random.default_rng(11)
    points = random.uniform(low, high, 400)
    if low > 0:
        points = np.exp(random.uniform(math.log(low), math.log(high), 400))
    x = points.astype(DTYPES[kind])[None]
    got = patterns(getattr(NumpyAlgebra(), name)(x))
    for value, bits in zip(x.ravel().tolist(), got, strict=True):
        want = function(value)
        # The reference loses relative accuracy near the zeroes of the circular functions.
        if abs(want) > 1e-6:
            assert ulps_apart(kind, bits, want) <= 1.0, (value, bits, want)


# (function, operand bits, result bits): examples in the CDNA3 ISA manual, notes of V_EXP_F32, V_LOG_F32, V_RCP_F32,
# V_RSQ_F32, V_SQRT_F32, V_SIN_F32 and V_COS_F32.
EXAMPLES = [
    ("exp2", 0xFF800000, 0x00000000),
    ("exp2", 0x80000000, 0x3F800000),
    ("exp2", 0x7F800000, 0x7F800000),
    ("log2", 0xFF800000, 0xFFC00000),
    ("log2", 0xBF800000, 0xFFC00000),
    ("log2", 0x80000000, 0xFF800000),
    ("log2", 0x00000000, 0xFF800000),
    ("log2", 0x3F800000, 0x00000000),
    ("log2", 0x7F800000, 0x7F800000),
    ("rcp", 0xFF800000, 0x80000000),
    ("rcp", 0xC0000000, 0xBF000000),
    ("rcp", 0x80000000, 0xFF800000),
    ("rcp", 0x00000000, 0x7F800000),
    ("rcp", 0x7F800000, 0x00000000),
    ("rsq", 0xFF800000, 0xFFC00000),
    ("rsq", 0x80000000, 0xFF800000),
    ("rsq", 0x00000000, 0x7F800000),
    ("rsq", 0x40800000, 0x3F000000),
    ("rsq", 0x7F800000, 0x00000000),
    ("sqrt", 0xFF800000, 0xFFC00000),
    ("sqrt", 0x80000000, 0x80000000),
    ("sqrt", 0x00000000, 0x00000000),
    ("sqrt", 0x40800000, 0x40000000),
    ("sqrt", 0x7F800000, 0x7F800000),
    ("sin_turns", 0xFF800000, 0xFFC00000),
    ("sin_turns", 0xFF7FFFFF, 0x00000000),
    ("sin_turns", 0x80000000, 0x80000000),
    ("sin_turns", 0x3E800000, 0x3F800000),
    ("sin_turns", 0x7F800000, 0xFFC00000),
    ("cos_turns", 0xFF800000, 0xFFC00000),
    ("cos_turns", 0xFF7FFFFF, 0x3F800000),
    ("cos_turns", 0x80000000, 0x3F800000),
    ("cos_turns", 0x3E800000, 0x00000000),
    ("cos_turns", 0x7F800000, 0xFFC00000),
]


@pytest.mark.parametrize(("name", "operand", "result"), EXAMPLES)
def test_special_operands_give_what_the_manual_shows(name: str, operand: int, result: int) -> None:
    assert patterns(getattr(NumpyAlgebra(), name)(array("f32", [operand]))) == [result]


def test_single_precision_approximations_flush_denormals_but_the_circular_ones_do_not() -> None:
    a = NumpyAlgebra()
    denormal, huge = array("f32", [0x00400000]), array("f32", [0x7F000001])
    assert patterns(a.rcp(denormal)) == [0x7F800000]
    assert patterns(a.rcp(huge)) == [0]  # the reciprocal would be a denormal
    assert patterns(a.log2(denormal)) == [0xFF800000]
    assert patterns(a.sqrt(denormal)) == [0]
    assert patterns(a.exp2(array("f32", [struct.unpack("<I", struct.pack("<f", -127.0))[0]]))) == [0]
    assert a.sin_turns(denormal).item() == pytest.approx(2 * math.pi * 2.0**-127, rel=1e-6)
    assert patterns(a.rcp(array("f16", [0x0200]))) == [0x7800]  # 2**-15 -> 2**15: f16 keeps to the mode


def test_every_operation_of_the_algebra_is_implemented_with_its_parameters() -> None:
    for name, member in vars(Algebra).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            implemented = getattr(NumpyAlgebra, name)
            assert list(inspect.signature(implemented).parameters) == list(inspect.signature(member).parameters), name
    assert not NumpyAlgebra.__abstractmethods__
