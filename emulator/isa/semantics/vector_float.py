"""Vector float arithmetic of f16, f32 and f64: sums, products, fused operations, extrema, rounding to integers."""

from __future__ import annotations

from collections.abc import Mapping

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import FLOAT_LAYOUT, exponent, float_bits, flushed, is_nan, is_zero, operand
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Evaluate, Ternary, Unary, family

LARGEST_BELOW_ONE = {"f16": 0x3BFF, "f32": 0x3F7FFFFF, "f64": 0x3FEFFFFFFFFFFFFF}
MINUS_MAX_F32 = 0xFF7FFFFF


def fract(kind: str) -> Unary:
    """x - floor(x), held below one: a tiny negative number would otherwise round up to one. A whole number gives +0.

    The limit is in the CDNA3 ISA manual (V_FRACT_F32); RDNA3's pseudo code has only the difference. That the zero has
    no sign when rounding down either was measured on gfx1201 (rocjitsu, shared/fract.h).
    """

    def evaluate(a: Ops, x: Value) -> Value:
        difference, largest = a.sub(x, a.floor(x)), float_bits(a, kind, LARGEST_BELOW_ONE[kind])
        difference = a.select(is_zero(a, difference, kind), a.constant(kind, 0), difference)
        return a.select(a.lt(largest, difference), largest, difference)

    return evaluate


def frexp_exponent(kind: str, result: str) -> Unary:
    """The exponent that brings the mantissa into [0.5, 1); 0 for zero, infinity and NaN."""
    infinite, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    width = {"u16": 16, "u32": 32, "u64": 64}[unsigned]

    def evaluate(a: Ops, x: Value) -> Value:
        x = operand(a, x, kind)
        biased = exponent(a, x, kind)
        mantissa = a.cast(x, unsigned) & ((1 << mantissa_bits) - 1)
        # A denormal's leading bit stands (clz - exponent field - sign) places below a normal's hidden one.
        shift = a.clz(mantissa) - (width - 1 - mantissa_bits)
        scale = a.select(a.eq(biased, 0), 1 - shift, biased) - (infinite >> 1) + 1
        special = a.eq(biased, infinite) | is_zero(a, x, kind)
        return a.cast(a.select(special, 0, scale), result)

    return evaluate


def frexp_mantissa(kind: str) -> Unary:
    """The mantissa in [0.5, 1); zero and infinity stay, a NaN becomes quiet."""
    scale = frexp_exponent(kind, "i32")
    return lambda a, x: a.ldexp(x, 0 - scale(a, x))


def med3(kind: str) -> Ternary:
    """The middle of three; with a NaN among them, their minimum.

    -0 is below +0 here too, where the pseudo code takes them for equal: measured on gfx1201 (rocjitsu,
    shared/minmax.h).
    """

    def evaluate(a: Ops, x: Value, y: Value, z: Value) -> Value:
        lower = a.min_num(x, y)
        middle = a.max_num(lower, a.min_num(a.max_num(x, y), z))
        unordered = is_nan(a, x, kind) | is_nan(a, y, kind) | is_nan(a, z, kind)
        return a.select(unordered, a.min_num(lower, z), middle)

    return evaluate


# DirectX 9 rules: zero times anything, infinity and NaN included, is +0.


def fma_dx9_zero(a: Ops, x: Value, y: Value, z: Value) -> Value:
    """Without denormals, whatever the mode; the product's +0 is added like another (rocjitsu, shared/fp_mode.h)."""
    x, y, z = (flushed(a, value, "f32") for value in (x, y, z))
    zero = is_zero(a, x, "f32") | is_zero(a, y, "f32")
    nothing, one = a.constant("f32", 0), a.constant("f32", 1)
    return flushed(a, a.fma(a.select(zero, nothing, x), a.select(zero, one, y), z), "f32")


def mul_dx9_zero(a: Ops, x: Value, y: Value) -> Value:
    zero = a.constant("f32", 0)
    return a.select(a.eq(x, zero) | a.eq(y, zero), zero, a.mul(x, y))


def mullit(a: Ops, x: Value, y: Value, z: Value) -> Value:
    """V_MULLIT_F32: the product by DirectX 9 rules, or -MAX for a bad specular term (manual, V_MULLIT_F32)."""
    least = float_bits(a, "f32", MINUS_MAX_F32)
    bad = ~a.lt(least, y) | ~a.lt(a.constant("f32", 0), z)
    return a.select(bad, least, mul_dx9_zero(a, x, y))


def _unary(kind: str) -> dict[str, Unary]:
    return {
        f"v_trunc_{kind}": lambda a, x: a.trunc(x),
        f"v_ceil_{kind}": lambda a, x: a.ceil(x),
        f"v_floor_{kind}": lambda a, x: a.floor(x),
        f"v_rndne_{kind}": lambda a, x: a.rndne(x),
        f"v_fract_{kind}": fract(kind),
        f"v_frexp_mant_{kind}": frexp_mantissa(kind),
    }


def _binary(kind: str) -> dict[str, Binary]:
    return {
        f"v_add_{kind}": lambda a, x, y: a.add(x, y),
        f"v_sub_{kind}": lambda a, x, y: a.sub(x, y),
        f"v_subrev_{kind}": lambda a, x, y: a.sub(y, x),
        f"v_mul_{kind}": lambda a, x, y: a.mul(x, y),
        f"v_min_{kind}": lambda a, x, y: a.min_num(x, y),
        f"v_max_{kind}": lambda a, x, y: a.max_num(x, y),
    }


def _ternary(kind: str) -> dict[str, Ternary]:
    return {
        f"v_fma_{kind}": lambda a, x, y, z: a.fma(x, y, z),
        f"v_fmaak_{kind}": lambda a, x, y, z: a.fma(x, y, z),
        f"v_fmamk_{kind}": lambda a, x, y, z: a.fma(x, y, z),
        f"v_min3_{kind}": lambda a, x, y, z: a.min_num(a.min_num(x, y), z),
        f"v_max3_{kind}": lambda a, x, y, z: a.max_num(a.max_num(x, y), z),
        f"v_med3_{kind}": med3(kind),
        f"v_maxmin_{kind}": lambda a, x, y, z: a.min_num(a.max_num(x, y), z),
        f"v_minmax_{kind}": lambda a, x, y, z: a.max_num(a.min_num(x, y), z),
    }


NOT_IN_F64 = {
    f"v_{name}_f64" for name in ("sub", "subrev", "fmaak", "fmamk", "min3", "max3", "med3", "maxmin", "minmax")
}


def _kind_families(kind: str) -> list[Definition]:
    families: list[tuple[Mapping[str, Evaluate], int]] = [(_unary(kind), 1), (_binary(kind), 2), (_ternary(kind), 3)]
    return [
        definition
        for table, sources in families
        for definition in family({m: f for m, f in table.items() if m not in NOT_IN_F64}, *[kind] * sources)
    ]


DEFINITIONS: list[Definition] = [
    *(definition for kind in FLOAT_LAYOUT for definition in _kind_families(kind)),
    *family({"v_fmac_f32": lambda a, x, y, old: a.fma(x, y, old)}, "f32", "f32", "f32", reads=("old",)),
    *family({"v_fmac_f16": lambda a, x, y, old: a.fma(x, y, old)}, "f16", "f16", "f16", reads=("old",)),
    *family({"v_fmac_dx9_zero_f32": fma_dx9_zero}, "f32", "f32", "f32", reads=("old",)),
    *family({"v_fma_dx9_zero_f32": fma_dx9_zero, "v_mullit_f32": mullit}, "f32", "f32", "f32"),
    *family({"v_mul_dx9_zero_f32": mul_dx9_zero}, "f32", "f32"),
    *family({"v_frexp_exp_i32_f32": frexp_exponent("f32", "i32")}, "f32"),
    *family({"v_frexp_exp_i32_f64": frexp_exponent("f64", "i32")}, "f64"),
    *family({"v_frexp_exp_i16_f16": frexp_exponent("f16", "i16")}, "f16"),
    *family({"v_ldexp_f32": lambda a, x, n: a.ldexp(x, n)}, "f32", "i32"),
    *family({"v_ldexp_f64": lambda a, x, n: a.ldexp(x, n)}, "f64", "i32"),
    *family({"v_ldexp_f16": lambda a, x, n: a.ldexp(x, a.i32(n))}, "f16", "i16"),
]
