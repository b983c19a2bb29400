"""Dot products of small floats against their arithmetic in exact numbers (ROCm rocjitsu, gfx11_dot2.h, gfx12_dot.h)."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra, quiet

EMPTY = -1024
ONE = {"f16": 0x3C00, "bf16": 0x3F80}
BIAS = {"f16": (15, 10), "bf16": (127, 7)}
FACTOR_NAN = {"f32": 0xFFC00A3D, "f16": 0xFE3D, "bf16": 0xFFFD}


def run(
    mnemonic: str, x: int, y: int, addend: int, generation: str, fields: dict[str, int] | None = None, **mode: Any
) -> int:
    """The bits of a result; ``addend`` are bits of the kind that the instruction adds to."""
    kind = mnemonic.split("_")[2]
    third = {"f32": ("u4", "f4"), "f16": ("u2", "f2"), "bf16": ("u2", "u2")}[kind]
    values = [np.array([[x]], "u4"), np.array([[y]], "u4"), np.array([[addend]], third[0]).view(third[1])]
    with quiet():
        algebra = NumpyAlgebra(FloatMode(**mode))
        result: Any = semantics.lookup(mnemonic, generation).evaluate(algebra, *values, fields or {})
    return int(result.view(third[0]).item())


def number(code: int, kind: str) -> Fraction:
    wide = np.array([code], "u2").view("f2") if kind == "f16" else np.array([code << 16], "u4").view("f4")
    return Fraction(float(wide[0]))


def scale(code: int, kind: str) -> int:
    """The exponent that a factor has for the grid."""
    bias, bits = BIAS[kind]
    return max(code >> bits & 2 * bias + 1, 1) - bias


def leading(x: Fraction) -> int:
    return math.frexp(float(x))[1] - 1 if x else EMPTY


def total_of(pairs: list[tuple[int, int]], kind: str, addend: Fraction, sign: bool, result: str, gen: str) -> float:
    """The sum before it is rounded, as a double, which holds it."""
    products = [number(p, kind) * number(q, kind) for p, q in pairs]
    negative = [bool((p ^ q) >> 15) for p, q in pairs]
    wanted = [scale(p, kind) + scale(q, kind) - 24 if x else EMPTY for (p, q), x in zip(pairs, products, strict=True)]
    if gen == "gfx11":
        first = max(leading(addend), -14) if result == "f16" else leading(addend)
        grid = max(*wanted, max(first, *map(leading, products)) - 26)
        if not any(products) and not addend:
            return 0.0
        total = 0
        for value, below in ((addend, sign), *zip(products, negative, strict=True)):
            units = int(abs(value) / Fraction(2) ** grid)
            total += units if below == sign else ~units
        return math.ldexp(-total if sign else total, grid)
    own, least = max(wanted), -14 if result == "f16" else -126
    grid = max(own, max(leading(addend), least) - 26)
    group = sum(math.floor(value / Fraction(2) ** own) for value in products)
    first = math.floor(addend / Fraction(2) ** grid)
    if first == -1 and -addend < Fraction(2) ** grid and grid > least:
        first = 0
    return math.ldexp(first + math.floor(Fraction(2) ** (own - grid) * group), grid)


CODES = {
    "f16": st.integers(0, 0x7BFF) | st.sampled_from((0, 1, 0x3C00, 0x3FF, 0x400)),
    "bf16": st.integers(0x3E00, 0x4200) | st.sampled_from((0, 0x3F80)),
}


@pytest.mark.parametrize("generation", ["gfx11", "gfx12"])
@pytest.mark.parametrize("result", ["f32", "same"])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_terms_are_cut_to_one_grid_and_their_sum_is_rounded_once(
    generation: str, result: str, kind: str, data: st.DataObject
) -> None:
    result = kind if result == "same" else result
    signs = st.sampled_from((0, 0x8000))
    codes = [data.draw(CODES[kind]) | data.draw(signs) for _ in range(4)]
    if result == "f32":
        addend = data.draw(st.integers(0x30000000, 0x4F000000) | st.just(0)) | data.draw(signs) << 16
        exact = Fraction(float(np.array([addend], "u4").view("f4")[0]))
    else:
        addend = data.draw(CODES[kind]) | data.draw(signs)
        exact = number(addend, kind)
    pairs, sign = [(codes[0], codes[2]), (codes[1], codes[3])], bool(addend >> (31 if result == "f32" else 15))
    total = total_of(pairs, kind, exact, sign, result, generation)
    with quiet():
        want = int(np.float16(total).view("u2")) if result == "f16" else int(np.float32(total).view("u4"))
    want = 0 if want in (1 << 15, 1 << 31) else want
    if result == "bf16":
        want >>= 16
    mnemonic = f"v_dot2_{result}_{kind}"
    assert run(mnemonic, codes[1] << 16 | codes[0], codes[3] << 16 | codes[2], addend, generation) == want


def test_what_cancels_leaves_a_unit_of_the_grid_on_gfx11() -> None:
    x, y = 0xBC003C00, 0x3C003C00  # 1 * 1 - 1 * 1
    assert run("v_dot2_f32_f16", x, y, 0, "gfx11") == 0xB3800000  # -2**-24
    assert run("v_dot2_f32_f16", x, y, 0, "gfx12") == 0


@pytest.mark.parametrize("generation", ["gfx11", "gfx12"])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_special_values_of_dot_products(generation: str, kind: str) -> None:
    infinite, one = (0x7C00 if kind == "f16" else 0x7F80), ONE[kind]
    single, short = f"v_dot2_f32_{kind}", f"v_dot2_{kind}_{kind}"
    assert run(single, infinite | 1, one, 0x7FC00001, generation) == FACTOR_NAN["f32"]  # before the addend's
    assert run(short, infinite | 1, one, 0, generation) == FACTOR_NAN[kind]
    assert run(single, infinite, 0, 0x7FC00001, generation) == 0xFFC00000
    assert run(single, infinite | (infinite | 0x8000) << 16, one | one << 16, 0, generation) == 0xFFC00000
    assert run(single, one, one, 0x7F800001, generation) == 0x7FC00001
    assert run(single, infinite, one | 0x8000, 0x3F800000, generation) == 0xFF800000
    assert run(single, infinite, one, 0xFF800000, generation) == 0xFFC00000


@pytest.mark.parametrize(("generation", "keeps"), [("gfx11", False), ("gfx12", True)])
def test_only_gfx12_has_denormals_beside_those_of_f16(generation: str, keeps: bool) -> None:
    assert run("v_dot2_f32_f16", 0, 0, 5, generation) == (5 if keeps else 0)
    assert run("v_dot2_f32_bf16", 0x0001, ONE["bf16"], 0, generation) == (0x00010000 if keeps else 0)
    assert run("v_dot2_f32_f16", 1, ONE["f16"], 0, generation) == 0x33800000


@pytest.mark.parametrize("generation", ["gfx11", "gfx12"])
def test_a_half_sum_that_is_too_large_saturates_where_the_mode_says_so(generation: str) -> None:
    assert run("v_dot2_f16_f16", 0x7BFF, 0x4000, 0, generation) == 0x7C00
    assert run("v_dot2_f16_f16", 0x7BFF, 0x4000, 0, generation, saturate16=True) == 0x7BFF


def test_a_product_of_eight_bit_floats_that_is_invalid_is_a_factor_nan() -> None:
    assert run("v_dot4_f32_bf8_bf8", 0x7C, 0x00, 0, "gfx12") == FACTOR_NAN["f32"]
    assert run("v_dot4_f32_fp8_bf8", 0x7F, 0x3C, 0, "gfx12") == FACTOR_NAN["f32"]
