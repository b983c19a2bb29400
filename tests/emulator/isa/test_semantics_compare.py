"""Comparisons and class tests against Python's own, on every pair of edge values."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.numpy_algebra import DTYPES, NumpyAlgebra, quiet

FLOAT_EDGES = {
    "f16": [0x0000, 0x8000, 0x0001, 0x8001, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFE00],
    "f32": [
        0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x3F800000, 0xBF800000, 0x7F7FFFFF, 0x7F800000, 0xFF800000,
        0x7FC00000, 0x7F800001, 0xFFC00000,
    ],
    "f64": [
        0, 1 << 63, 1, 1 << 63 | 1, 0x3FF0000000000000, 0xBFF0000000000000, 0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000,
        0xFFF0000000000000, 0x7FF8000000000000, 0x7FF0000000000001,
    ],
}  # fmt: skip
STRUCT = {"f16": ("<H", "<e"), "f32": ("<I", "<f"), "f64": ("<Q", "<d")}


def integer_edges(kind: str) -> list[int]:
    limits = np.iinfo(DTYPES[kind])
    return sorted({limits.min, limits.min + 1, 0, 1, 2, limits.max - 1, limits.max, limits.max // 2})


def number(kind: str, bits: int) -> float:
    pattern, value = STRUCT[kind]
    return struct.unpack(value, struct.pack(pattern, bits))[0]


def unordered(x: float, y: float) -> bool:
    return math.isnan(x) or math.isnan(y)


RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "f": lambda x, y: False,
    "lt": operator.lt,
    "eq": operator.eq,
    "le": operator.le,
    "gt": operator.gt,
    "lg": lambda x, y: x < y or x > y,
    "ge": operator.ge,
    "o": lambda x, y: not unordered(x, y),
    "u": unordered,
    "nge": lambda x, y: not x >= y,
    "nlg": lambda x, y: not (x < y or x > y),
    "ngt": lambda x, y: not x > y,
    "nle": lambda x, y: not x <= y,
    "neq": operator.ne,
    "nlt": lambda x, y: not x < y,
    "t": lambda x, y: True,
    "ne": operator.ne,
}
FLOAT_NAMES = ("f", "lt", "eq", "le", "gt", "lg", "ge", "o", "u", "nge", "nlg", "ngt", "nle", "neq", "nlt", "t")
INTEGER_NAMES = ("f", "lt", "eq", "le", "gt", "ne", "ge", "t")
ALGEBRA = NumpyAlgebra()


def compared(mnemonic: str, x: np.ndarray, y: np.ndarray, algebra: NumpyAlgebra = ALGEBRA) -> list[bool]:
    with quiet():
        return semantics.lookup(mnemonic).evaluate(algebra, x, y).ravel().tolist()


def columns(kind: str) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray]:
    """All pairs of edge values, and as arrays."""
    edges = FLOAT_EDGES[kind] if kind in FLOAT_EDGES else integer_edges(kind)
    pairs = list(product(edges, edges))
    dtype = f"u{DTYPES[kind].itemsize}" if kind in FLOAT_EDGES else DTYPES[kind]
    x, y = (np.array([column], dtype).view(DTYPES[kind]) for column in zip(*pairs, strict=True))
    return pairs, x, y


@pytest.mark.parametrize("name", FLOAT_NAMES)
@pytest.mark.parametrize("kind", FLOAT_EDGES)
def test_float_comparison_orders_numbers_and_knows_unordered(kind: str, name: str) -> None:
    pairs, x, y = columns(kind)
    want = [RELATIONS[name](number(kind, p), number(kind, q)) for p, q in pairs]
    assert compared(f"v_cmp_{name}_{kind}", x, y) == want
    assert compared(f"v_cmpx_{name}_{kind}", x, y) == want
    if kind != "f64" and name not in ("f", "t"):
        assert compared(f"s_cmp_{name}_{kind}", x, y) == want


@pytest.mark.parametrize("kind", ["i16", "u16", "i32", "u32", "i64", "u64"])
@pytest.mark.parametrize("name", INTEGER_NAMES)
def test_integer_comparison_goes_by_signedness(kind: str, name: str) -> None:
    if kind.endswith("16") and name in ("f", "t"):
        assert semantics.lookup(f"v_cmp_{name}_{kind}") is None
        return
    pairs, x, y = columns(kind)
    want = [RELATIONS[name](p, q) for p, q in pairs]
    # However the operand arrives, the instruction reads its own kind.
    unsigned = f"u{DTYPES[kind].itemsize}"
    assert compared(f"v_cmp_{name}_{kind}", x.view(unsigned), y.view(unsigned)) == want
    scalar_name = {"ne": "lg"}.get(name, name)
    if semantics.lookup(f"s_cmp_{scalar_name}_{kind}"):
        assert compared(f"s_cmp_{scalar_name}_{kind}", x, y) == want


@pytest.mark.parametrize("name", ["eq", "lg", "gt", "ge", "lt", "le"])
def test_compare_with_constant_extends_it_by_the_comparison_s_signedness(name: str) -> None:
    relation = RELATIONS["ne" if name == "lg" else name]
    for constant in (0, 1, 0x7FFF, 0x8000, 0xFFFF):
        signed = constant - 0x10000 if constant & 0x8000 else constant
        for x in (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0xFFFF8000, 0xFFFFFFFF):
            signed_x = x - 2**32 if x >> 31 else x
            # The immediate arrives as the raw 16 bits or already extended.
            for immediate in (constant, signed & 0xFFFFFFFF):
                operands = np.array([[x]], np.uint32), np.array([[immediate]], np.uint32)
                assert compared(f"s_cmpk_{name}_u32", *operands) == [relation(x, constant)]
                assert compared(f"s_cmpk_{name}_i32", *operands) == [relation(signed_x, signed)]


def test_comparison_flushes_denormals_when_the_mode_does() -> None:
    flushing = NumpyAlgebra(FloatMode(flush_inputs32=True))
    denormal, zero = np.array([[1]], np.uint32).view(np.float32), np.zeros((1, 1), np.float32)
    assert compared("v_cmp_eq_f32", denormal, zero) == [False]
    assert compared("v_cmp_eq_f32", denormal, zero, flushing) == [True]


# Classes in the order of the mask's bits (RDNA3 ISA manual, V_CMP_CLASS_F32).
CLASSES = {
    "f16": [0x7C01, 0x7E00, 0xFC00, 0xBC00, 0x8001, 0x8000, 0x0000, 0x03FF, 0x0400, 0x7C00],
    "f32": [
        0x7F800001, 0xFFC00000, 0xFF800000, 0xBF800000, 0x807FFFFF, 0x80000000, 0x00000000, 0x00000001, 0x00800000,
        0x7F800000,
    ],
    "f64": [
        0xFFF0000000000001, 0x7FF8000000000000, 0xFFF0000000000000, 0x8010000000000000, 0x800FFFFFFFFFFFFF, 1 << 63, 0,
        1, 0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000,
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES)
def test_class_test_finds_each_class_by_its_bit_alone(kind: str) -> None:
    samples = np.array([CLASSES[kind]], f"u{DTYPES[kind].itemsize}").view(DTYPES[kind])
    for bit in range(10):
        mask = np.array([[1 << bit]], np.uint32)
        want = [number_of_class == bit for number_of_class in range(10)]
        assert compared(f"v_cmp_class_{kind}", samples, mask) == want
        assert compared(f"v_cmpx_class_{kind}", samples, mask) == want
    assert compared(f"v_cmp_class_{kind}", samples, np.array([[0x3FF]], np.uint32)) == [True] * 10
    assert compared(f"v_cmp_class_{kind}", samples, np.array([[0xFC00]], np.uint32)) == [False] * 10


def test_class_test_does_not_flush_denormals() -> None:
    flushing = NumpyAlgebra(FloatMode(flush_inputs32=True, flush_outputs32=True))
    denormal, mask = np.array([[1]], np.uint32).view(np.float32), np.array([[1 << 7]], np.uint32)
    assert compared("v_cmp_class_f32", denormal, mask, flushing) == [True]


@pytest.mark.parametrize(("mnemonic", "width", "wanted"), [
    ("s_bitcmp0_b32", 32, 0), ("s_bitcmp1_b32", 32, 1), ("s_bitcmp0_b64", 64, 0), ("s_bitcmp1_b64", 64, 1),
])  # fmt: skip
def test_bit_tests_take_the_bit_number_modulo_the_width(mnemonic: str, width: int, wanted: int) -> None:
    x = 0xA5A5_0FF0_1234_8001 & ((1 << width) - 1)
    for bit in (0, 1, 15, 31, 32, 33, 63, 64, 95, 255):
        operands = np.array([[x]], f"u{width // 8}"), np.array([[bit]], np.uint32)
        assert compared(mnemonic, *operands) == [x >> bit % width & 1 == wanted]


def test_vector_compares_write_a_mask_and_cmpx_writes_exec() -> None:
    assert semantics.lookup("v_cmp_lt_f32").writes == ("dst",)
    assert semantics.lookup("v_cmpx_lt_f32").writes == ("exec",)
    assert semantics.lookup("s_cmp_lt_i32").writes == ("scc",)
