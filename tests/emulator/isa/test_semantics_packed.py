"""Packed, mixed-precision, dot-product and matrix instructions against element-by-element arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra, quiet

ALGEBRA = NumpyAlgebra()
M32 = 2**32 - 1
STRAIGHT = {"opsel": 0, "opsel_hi": 7}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def run(mnemonic: str, *values: object, saturating: bool = False) -> np.ndarray:
    definition = semantics.lookup(mnemonic)
    return (definition.saturating if saturating else definition.evaluate)(ALGEBRA, *values)


def word(*values: int) -> np.ndarray:
    return np.array([values], np.uint32)


def s16(x: int) -> int:
    return (x & 0xFFFF ^ 0x8000) - 0x8000


def halves_of(x: int) -> tuple[int, int]:
    return x & 0xFFFF, x >> 16


INTEGER: dict[str, Callable[..., int]] = {
    "v_pk_add_u16": lambda x, y: x + y,
    "v_pk_sub_u16": lambda x, y: x - y,
    "v_pk_mul_lo_u16": lambda x, y: x * y,
    "v_pk_min_u16": min,
    "v_pk_max_u16": max,
    "v_pk_mad_u16": lambda x, y, z: x * y + z,
    "v_pk_add_i16": lambda x, y: s16(x) + s16(y),
    "v_pk_sub_i16": lambda x, y: s16(x) - s16(y),
    "v_pk_min_i16": lambda x, y: min(s16(x), s16(y)),
    "v_pk_max_i16": lambda x, y: max(s16(x), s16(y)),
    "v_pk_mad_i16": lambda x, y, z: s16(x) * s16(y) + s16(z),
    "v_pk_lshlrev_b16": lambda n, x: x << (n & 15),
    "v_pk_lshrrev_b16": lambda n, x: x >> (n & 15),
    "v_pk_ashrrev_i16": lambda n, x: s16(x) >> (n & 15),
}
SATURATE = {"u16": (0, 0xFFFF), "i16": (-0x8000, 0x7FFF)}
WORDS = st.one_of(st.integers(0, M32), st.sampled_from([0, M32, 0x80008000, 0x7FFF8000, 0x00017FFF, 0xFFFF0001]))


@pytest.mark.parametrize("mnemonic", INTEGER)
@settings(max_examples=40, deadline=None)
@given(sources=st.tuples(WORDS, WORDS, WORDS), opsel=st.integers(0, 7), opsel_hi=st.integers(0, 7), clamp=st.booleans())
def test_packed_integers_compute_the_selected_halves(
    mnemonic: str, sources: tuple[int, int, int], opsel: int, opsel_hi: int, clamp: bool
) -> None:
    function = INTEGER[mnemonic]
    count = 3 if "mad" in mnemonic else 2
    clamp = clamp and semantics.lookup(mnemonic).saturating is not None
    # The negation bits mean nothing to integers.
    fields = {"opsel": opsel, "opsel_hi": opsel_hi, "neg": 7, "neg_hi": 7}
    result = run(mnemonic, *(word(s) for s in sources[:count]), fields, saturating=clamp).item()
    want = 0
    for shift, select in ((0, opsel), (16, opsel_hi)):
        value = function(*(halves_of(s)[select >> n & 1] for n, s in enumerate(sources[:count])))
        if clamp:
            low, high = SATURATE[mnemonic[-3:]]
            value = min(max(value, low), high)
        want |= (value & 0xFFFF) << shift
    assert result == want


def test_packed_add_sub_mad_and_mul_saturate_and_extrema_do_not() -> None:
    have = {m for m in INTEGER if semantics.lookup(m).saturating is not None}
    assert have == {m for m in INTEGER if any(part in m for part in ("add", "sub", "mul", "mad"))}


FLOAT: dict[str, tuple[int, Callable[..., np.ndarray]]] = {
    "v_pk_add_f16": (2, lambda x, y: x + y),
    "v_pk_mul_f16": (2, lambda x, y: x * y),
    "v_pk_min_f16": (2, np.fmin),
    "v_pk_max_f16": (2, np.fmax),
    "v_pk_fma_f16": (3, lambda x, y, z: x * y + z),
}


@pytest.mark.parametrize("mnemonic", FLOAT)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_packed_floats_select_and_negate_each_half(mnemonic: str, data: st.DataObject) -> None:
    count, function = FLOAT[mnemonic]
    numbers = st.sampled_from([0.5, -1.0, 2.0, 3.0, -0.25, 1.5, 100.0])  # exact in every operation here
    halves = data.draw(st.lists(st.tuples(numbers, numbers), min_size=count, max_size=count))
    fields = {name: data.draw(st.integers(0, 7), label=name) for name in ("opsel", "opsel_hi", "neg", "neg_hi")}
    sources = [np.array([pair], np.float16).view(np.uint32) for pair in halves]
    result = run(mnemonic, *sources, fields).view(np.float16).ravel()
    for position, select, negate in ((0, "opsel", "neg"), (1, "opsel_hi", "neg_hi")):
        operands = [
            np.float64(pair[fields[select] >> n & 1] * (-1 if fields[negate] >> n & 1 else 1))
            for n, pair in enumerate(halves)
        ]
        assert result[position] == np.float16(function(*operands))


def test_packed_fmac_has_no_selection_bits_and_adds_to_the_destination() -> None:
    x, y, old = (np.array([pair], np.float16).view(np.uint32) for pair in ((2.0, 3.0), (5.0, 7.0), (1.0, -1.0)))
    assert run("v_pk_fmac_f16", x, y, old, {}).view(np.float16).ravel().tolist() == [11.0, 20.0]


def test_clamp_holds_both_halves_in_the_unit_interval() -> None:
    x = np.array([[-2.0, 3.0]], np.float16).view(np.uint32)
    zero = np.zeros((1, 1), np.uint32)
    result = run("v_pk_add_f16", x, zero, STRAIGHT, saturating=True)
    assert result.view(np.float16).ravel().tolist() == [0.0, 1.0]
    packed = run("v_cvt_pk_rtz_f16_f32", np.float32([[0.25]]), np.float32([[9.0]]), saturating=True)
    assert packed.view(np.float16).ravel().tolist() == [0.25, 1.0]


# Mixed precision.


def test_mixed_multiply_add_takes_f32_and_f16_sources_and_rounds_once_to_f32() -> None:
    single, half = np.float32([[1 + 2.0**-23]]), np.float16([[1 + 2.0**-10]])
    assert run("v_fma_mix_f32", single, half, np.float32([[-1.0]])).item() == np.float32(
        np.float64(single.item()) * half.item() - 1.0
    )
    for name in ("v_fma_mixlo_f16", "v_fma_mixhi_f16"):
        result = run(name, half, half, half)
        assert result.dtype == np.float16
        assert result.item() == np.float16(np.float32((1 + 2.0**-10) ** 2 + (1 + 2.0**-10)))


# Dot products.


def test_a_mix_with_a_short_result_is_rounded_once() -> None:
    """The sum is just above the middle between two halves; in f32 it would be that middle."""
    x, one, tiny = (np.array([[value]], np.float32) for value in (1 + 2.0**-11, 1, 2.0**-40))
    assert run("v_fma_mixlo_f16", x, one, tiny).item() == 1 + 2.0**-10


def signed_field(x: int, bits: int, n: int, signed: bool) -> int:
    value = x >> bits * n & ((1 << bits) - 1)
    return value - (1 << bits) if signed and value >> (bits - 1) else value


@pytest.mark.parametrize(("mnemonic", "bits"), [("v_dot4_i32_iu8", 8), ("v_dot8_i32_iu4", 4)])
@settings(max_examples=60, deadline=None)
@given(x=WORDS, y=WORDS, z=WORDS, neg=st.integers(0, 3), clamp=st.booleans())
def test_mixed_sign_dot_products_read_signedness_from_neg(
    mnemonic: str, bits: int, x: int, y: int, z: int, neg: int, clamp: bool
) -> None:
    total = (z ^ 2**31) - 2**31
    for n in range(32 // bits):
        total += signed_field(x, bits, n, bool(neg & 1)) * signed_field(y, bits, n, bool(neg & 2))
    want = min(max(total, -(2**31)), 2**31 - 1) if clamp else total
    assert run(mnemonic, word(x), word(y), word(z), {"neg": neg}, saturating=clamp).item() & M32 == want & M32


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_float_dot_products_add_both_products_to_a_single(kind: str) -> None:
    def encoded(pair: tuple[float, float]) -> np.ndarray:
        if kind == "f16":
            return np.array([pair], np.float16).view(np.uint32)
        return (np.array([pair], np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint32)

    x, y, z = encoded((1.5, -2.0)), encoded((4.0, 0.25)), np.float32([[100.0]])
    assert run(f"v_dot2_f32_{kind}", x, y, z, STRAIGHT).item() == 105.5
    assert run(f"v_dot2acc_f32_{kind}", x, y, z).item() == 105.5
    crossed = {"opsel": 1, "opsel_hi": 2}  # the first source's halves exchanged
    assert run(f"v_dot2_f32_{kind}", x, y, z, crossed).item() == 100.0 - 2.0 * 4.0 + 1.5 * 0.25
    assert run(f"v_dot2_f32_{kind}", x, y, z, {**STRAIGHT, "neg": 1, "neg_hi": 4}).item() == 100.0 - 6.0 - 0.5


@pytest.mark.parametrize(
    ("opsel", "opsel_hi", "first"),
    [(0, 7, (1, 2, 3, 4)), (0, 6, (1, 2, 1, 2)), (1, 7, (3, 4, 3, 4)), (1, 6, (3, 4, 1, 2))],
)
@pytest.mark.parametrize("mnemonic", ["v_dot4_i32_iu8", "v_dot4_u32_u8"])
def test_integer_dot_products_take_the_halves_that_op_sel_picks(
    mnemonic: str, opsel: int, opsel_hi: int, first: tuple[int, ...]
) -> None:
    want = sum(p * q for p, q in zip(first, (1, 10, 20, 30), strict=True))
    result = run(mnemonic, word(0x04030201), word(0x1E140A01), word(0), {"opsel": opsel, "opsel_hi": opsel_hi})
    assert result.item() == want


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_float_dot_products_know_no_f32_denormals(kind: str) -> None:
    one, zero = word(0x3C003C00 if kind == "f16" else 0x3F803F80), word(0)
    denormal = word(0x00000001).view(np.float32)
    assert run(f"v_dot2_f32_{kind}", zero, one, denormal, STRAIGHT).item() == 0
    assert run(f"v_dot2acc_f32_{kind}", zero, one, denormal).item() == 0
    # A result below the smallest normal number: 2**-126 - 2**-126 * 1.5.
    if kind == "bf16":
        least = word(0x00800000).view(np.float32)
        difference = run("v_dot2_f32_bf16", word(0x80C0), word(0x3F80), least, STRAIGHT)
        assert difference.view(np.uint32).item() == 0


def test_an_f16_denormal_counts_in_a_dot_product() -> None:
    assert run("v_dot2_f32_f16", word(0x0001), word(0x3C00), np.float32([[0]]), STRAIGHT).item() == 2.0**-24


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_short_dot_products_round_the_whole_sum_once(kind: str) -> None:
    if kind == "f16":
        encode, decode = lambda *v: np.array([v], np.float16).view(f"u{2 * len(v)}"), lambda r: r.item()
    else:
        encode = lambda *v: (np.array([v], np.float32).view(np.uint32) >> 16).astype(np.uint16).view(f"u{2 * len(v)}")  # noqa: E731
        decode = lambda r: (r.astype(np.uint32) << 16).view(np.float32).item()  # noqa: E731
    x, y = encode(2.0, 3.0), encode(0.5, -1.0)
    z = encode(10.0).view(np.float16) if kind == "f16" else encode(10.0)
    result = run(f"v_dot2_{kind}_{kind}", x, y, z, {})
    assert result.dtype == (np.float16 if kind == "f16" else np.uint16)
    assert decode(result) == 8.0
    assert decode(run(f"v_dot2_{kind}_{kind}", x, y, z, {"neg": 1, "abs": 2})) == 6.0  # -2*0.5 - 3*1 + 10


def test_short_bf16_dot_product_knows_no_denormals() -> None:
    denormal, one = np.array([[0x0040_0040]], np.uint32), np.array([[0x3F80_3F80]], np.uint32)
    assert run("v_dot2_bf16_bf16", denormal, one, np.array([[0x8040]], np.uint16), {}).item() == 0
    smallest = np.array([[0x0080]], np.uint16)  # the smallest normal number, halved
    assert run("v_dot2_bf16_bf16", word(0x0080), word(0xBF00), smallest, {}).item() == 0


# Matrices.


def spread(matrix: np.ndarray, lanes: int, dtype: str) -> np.ndarray:
    """Rows of a matrix over the lanes, repeated every sixteen, packed into registers: (registers, 1, lanes)."""
    rows = np.ascontiguousarray(matrix.astype(dtype)).view(np.uint32)  # (16, registers)
    return np.tile(rows, (lanes // 16, 1)).T[:, None, :].copy()


def result_matrix(registers: np.ndarray, lanes: int) -> np.ndarray:
    """Element (i, j) lies in register i // groups, lane 16 * (i % groups) + j."""
    groups = lanes // 16
    return np.stack([registers[i // groups, 0, 16 * (i % groups) : 16 * (i % groups) + 16] for i in range(16)])


def accumulators(matrix: np.ndarray, lanes: int) -> np.ndarray:
    groups = lanes // 16
    return np.stack([matrix[r * groups : (r + 1) * groups].ravel() for r in range(16 // groups)])[:, None, :]


def integers(low: int, high: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (16, 16))


@pytest.mark.parametrize("lanes", [32, 64])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_float_matrix_product_with_single_accumulators(kind: str, lanes: int) -> None:
    a, b, c = integers(-8, 9, 1), integers(-8, 9, 2), integers(-100, 100, 3).astype(np.float32)

    def packed(matrix: np.ndarray) -> np.ndarray:
        if kind == "f16":
            return spread(matrix, lanes, "f2")
        return spread(matrix.astype(np.float32).view(np.uint32) >> 16, lanes, "u2")

    operands = packed(a), packed(b.T), accumulators(c, lanes).view(np.uint32)
    result = run(f"v_wmma_f32_16x16x16_{kind}", *operands, {}).view(np.float32)
    assert np.array_equal(result_matrix(result, lanes), a @ b + c)
    # neg negates the even elements along k, neg_hi the odd ones; of C they mean neg and abs.
    result = run(f"v_wmma_f32_16x16x16_{kind}", *operands, {"neg": 1, "neg_hi": 1 | 4}).view(np.float32)
    assert np.array_equal(result_matrix(result, lanes), -(a @ b) + np.abs(c))
    result = run(f"v_wmma_f32_16x16x16_{kind}", *operands, {"neg": 2 | 4}).view(np.float32)
    signs = np.where(np.arange(16) % 2 == 0, -1, 1)
    assert np.array_equal(result_matrix(result, lanes), a @ (b * signs[:, None]) - c)


@pytest.mark.parametrize("lanes", [32, 64])
@pytest.mark.parametrize("opsel", [0, 4])
def test_short_matrix_accumulators_lie_in_the_selected_halves(opsel: int, lanes: int) -> None:
    a, b, c = integers(-4, 5, 1), integers(-4, 5, 2), integers(-100, 100, 3).astype(np.float16)
    shift = 16 if opsel else 0
    registers = accumulators(c.view(np.uint16), lanes).astype(np.uint32) << shift | np.uint32(0x5A5A << (16 - shift))
    old = np.full_like(registers, 0x12345678)
    result = run(
        "v_wmma_f16_16x16x16_f16", spread(a, lanes, "f2"), spread(b.T, lanes, "f2"), registers, old, {"opsel": opsel}
    )
    kept = 0x5678 if opsel else 0x1234
    assert np.all(result >> (16 - shift) & 0xFFFF == kept)
    values = (result >> shift & 0xFFFF).astype(np.uint16).view(np.float16)
    assert np.array_equal(result_matrix(values, lanes), a @ b + c)


@pytest.mark.parametrize("neg", [0, 1, 2, 3])
@pytest.mark.parametrize("bits", [8, 4])
def test_integer_matrix_product_reads_signedness_from_neg(bits: int, neg: int) -> None:
    lanes = 32
    ranges = [(-(1 << bits - 1), 1 << bits - 1) if neg >> n & 1 else (0, 1 << bits) for n in (0, 1)]
    a, b = integers(*ranges[0], 5), integers(*ranges[1], 6)
    c = integers(-(2**31), 2**31, 7)

    def packed(matrix: np.ndarray) -> np.ndarray:
        if bits == 8:
            return spread(matrix & 0xFF, lanes, "u1")
        nibbles = (matrix & 15).astype(np.uint64) << (4 * np.arange(16, dtype=np.uint64))
        return spread(np.bitwise_or.reduce(nibbles, axis=1)[:, None], lanes, "u8")

    operands = packed(a), packed(b.T), accumulators(c.astype(np.int32), lanes).view(np.uint32)
    exact = a @ b + c
    name = f"v_wmma_i32_16x16x16_iu{bits}"
    wrapped = run(name, *operands, {"neg": neg}).view(np.int32)
    assert np.array_equal(result_matrix(wrapped, lanes), exact.astype(np.int32))
    clamped = run(name, *operands, {"neg": neg}, saturating=True).view(np.int32)
    assert np.array_equal(result_matrix(clamped, lanes), np.clip(exact, -(2**31), 2**31 - 1))


def test_matrix_result_does_not_depend_on_what_the_other_waves_hold() -> None:
    a, b = integers(-4, 5, 1), integers(-4, 5, 2)
    left = np.concatenate([spread(a, 32, "f2"), spread(-a, 32, "f2")], axis=1)
    right = np.concatenate([spread(b.T, 32, "f2")] * 2, axis=1)
    result = run("v_wmma_f32_16x16x16_f16", left, right, np.zeros((8, 2, 32), np.uint32), {}).view(np.float32)
    assert np.array_equal(result_matrix(result[:, :1], 32), a @ b)
    assert np.array_equal(result_matrix(result[:, 1:], 32), -(a @ b))


def test_bf16_conversion_rounds_to_nearest_even_and_keeps_nans() -> None:
    patterns = [0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7F800001, 0xFF800000, 0x00008000]
    want = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7FC0, 0xFF80, 0x0000]
    x = np.array([patterns], np.uint32).view(np.float32)
    assert semantics.convert.to_bf16(ALGEBRA, x).ravel().tolist() == want


def test_denormal_f16_sources_of_mixed_operations_follow_the_mode() -> None:
    flushing = NumpyAlgebra(FloatMode(flush_inputs64=True))
    denormal, one, zero = np.array([[1]], np.uint16).view(np.float16), np.float16([[1.0]]), np.float16([[0.0]])
    evaluate = semantics.lookup("v_fma_mix_f32").evaluate
    assert evaluate(ALGEBRA, denormal, one, zero).item() == 2.0**-24
    assert evaluate(flushing, denormal, one, zero).item() == 0.0
