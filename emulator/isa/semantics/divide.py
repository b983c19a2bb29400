"""The three steps that surround a Newton-Raphson division: scale the operands, unscale the quotient, fix special cases.

The manual's pseudo-code for V_DIV_SCALE and V_DIV_FMAS cannot be taken at its word (it multiplies the quotient by 2**32
where the operands were scaled by 2**64, and scales a denominator near the maximum further up). What is written here is
what makes the division sequence of LLVM's AMDGPU back end (SIISelLowering.cpp: LowerFDIV32, LowerFDIV64) correctly
rounded; the tests divide with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import (
    FLOAT_LAYOUT,
    absolute,
    copy_sign,
    exponent,
    float_bits,
    is_infinite,
    is_nan,
    is_zero,
    quiet_nan,
    sign,
)
from amdrv.emulator.isa.semantics.definition import Definition, Evaluate, family


@dataclass(frozen=True, slots=True)
class _Format:
    """Thresholds of one precision, as biased exponents and exponent differences (manual, V_DIV_SCALE_F32/F64)."""

    kind: str
    near_maximum: int  # exponent(numerator) - exponent(denominator) from which the quotient may overflow
    tiny_numerator: int  # exponent of a numerator whose remainder would be denormal
    scale: int  # power of two that operands are scaled by
    underflow: int  # exponent difference below which the quotient is certainly zero
    default_nan: int

    @property
    def bias(self) -> int:
        return FLOAT_LAYOUT[self.kind][0] >> 1


_F32 = _Format("f32", 96, 23, 64, -150, 0xFFC00000)
_F64 = _Format("f64", 768, 53, 128, -1075, 0xFFF8000000000000)


def _quotient_is_denormal(a: Ops, numerator: Value, denominator: Value, f: _Format) -> Value:
    """Whether |numerator / denominator| < 2**(1 - bias), the smallest normal number; scaling up is exact.

    A quotient by infinity is zero, and no denormal.
    """
    raised = a.ldexp(absolute(a, numerator, f.kind), a.constant("i32", f.bias - 1))
    return a.lt(raised, absolute(a, denominator, f.kind)) & ~is_infinite(a, denominator, f.kind)


def _reciprocal_is_denormal(a: Ops, x: Value, f: _Format) -> Value:
    """Whether |1 / x| is below the smallest normal number, which is 2**(1 - bias), and not zero (or NaN)."""
    infinite, mantissa_bits, unsigned = FLOAT_LAYOUT[f.kind]
    limit = float_bits(a, f.kind, (2 * f.bias - 1) << mantissa_bits)
    finite = a.lt(exponent(a, x, f.kind), infinite)
    return finite & a.lt(a.cast(limit, unsigned), a.cast(absolute(a, x, f.kind), unsigned))


def _div_scale(f: _Format) -> Evaluate:
    kind = f.kind

    def evaluate(a: Ops, x: Value, denominator: Value, numerator: Value) -> tuple[Value, Value]:
        """x is the numerator or the denominator, whichever is to be scaled; the truth value asks for V_DIV_FMAS."""
        up = a.ldexp(x, a.constant("i32", f.scale))
        down = a.ldexp(x, a.constant("i32", -f.scale))
        is_denominator, is_numerator = a.eq(x, denominator), a.eq(x, numerator)
        huge_quotient = a.le(
            a.constant("i32", f.near_maximum), exponent(a, numerator, kind) - exponent(a, denominator, kind)
        )
        denormal_denominator = a.eq(exponent(a, denominator, kind), 0)
        huge_denominator = _reciprocal_is_denormal(a, denominator, f)
        tiny_quotient = _quotient_is_denormal(a, numerator, denominator, f)
        tiny_numerator = a.le(exponent(a, numerator, kind), f.tiny_numerator)

        # The first case that holds decides; they are applied from the last to the first.
        result = a.select(tiny_numerator, up, x)
        result = a.select(tiny_quotient, a.select(is_numerator, up, x), result)
        result = a.select(huge_denominator, down, result)
        result = a.select(huge_denominator & tiny_quotient, a.select(is_denominator, down, x), result)
        result = a.select(denormal_denominator, up, result)
        result = a.select(huge_quotient, a.select(is_denominator, up, x), result)
        zero = is_zero(a, numerator, kind) | is_zero(a, denominator, kind)
        flag = ~zero & (huge_quotient | ~denormal_denominator & tiny_quotient)
        return a.select(zero, float_bits(a, kind, f.default_nan), result), flag

    return evaluate


def _div_fmas(f: _Format) -> Evaluate:
    def evaluate(a: Ops, x: Value, y: Value, z: Value, scaled: Value) -> Value:
        """A quotient (z is its last approximation) that is still above one was scaled down, else up; undo it."""
        above_one = a.lt(a.constant("i32", f.bias), exponent(a, z, f.kind))
        power = a.select(above_one, a.constant("i32", f.scale), a.constant("i32", -f.scale))
        return a.scaled_fma(x, y, z, a.select(scaled, power, 0))

    return evaluate


def _div_fixup(f: _Format) -> Evaluate:
    kind = f.kind
    infinite, mantissa_bits, _ = FLOAT_LAYOUT[kind]
    smallest_normal = 1 << mantissa_bits

    def evaluate(a: Ops, quotient: Value, denominator: Value, numerator: Value) -> Value:
        negative = sign(a, denominator, kind) ^ sign(a, numerator, kind)
        zero_d, zero_n = is_zero(a, denominator, kind), is_zero(a, numerator, kind)
        infinite_d, infinite_n = is_infinite(a, denominator, kind), is_infinite(a, numerator, kind)

        def signed(bits: int) -> Value:
            return copy_sign(a, negative, float_bits(a, kind, bits), kind)

        result = copy_sign(a, negative, quotient, kind)
        if f.underflow:
            # The last steps of an approximation that overflows give infinity or NaN.
            overflowing = a.mul(
                signed((infinite << mantissa_bits) - 1), float_bits(a, kind, (infinite - 1) << mantissa_bits)
            )
            result = a.select(a.eq(exponent(a, quotient, kind), infinite), overflowing, result)
            # What the rounding mode makes of a result far below the smallest denormal.
            vanishing = a.mul(signed(smallest_normal), float_bits(a, kind, smallest_normal))
            difference = exponent(a, numerator, kind) - exponent(a, denominator, kind)
            result = a.select(a.lt(difference, f.underflow), vanishing, result)
        result = a.select(infinite_d | zero_n, signed(0), result)
        result = a.select(zero_d | infinite_n, signed(infinite << mantissa_bits), result)
        invalid = (zero_d & zero_n) | (infinite_d & infinite_n)
        result = a.select(invalid, float_bits(a, kind, f.default_nan), result)
        result = a.select(is_nan(a, denominator, kind), quiet_nan(a, denominator, kind), result)
        return a.select(is_nan(a, numerator, kind), quiet_nan(a, numerator, kind), result)

    return evaluate


_F16 = _Format("f16", 0, 0, 0, 0, 0xFE00)

DEFINITIONS: list[Definition] = [
    *family({"v_div_scale_f32": _div_scale(_F32)}, "f32", "f32", "f32", writes=("dst", "dst1")),
    *family({"v_div_scale_f64": _div_scale(_F64)}, "f64", "f64", "f64", writes=("dst", "dst1")),
    *family({"v_div_fmas_f32": _div_fmas(_F32)}, "f32", "f32", "f32", reads=("vcc",)),
    *family({"v_div_fmas_f64": _div_fmas(_F64)}, "f64", "f64", "f64", reads=("vcc",)),
    *family({"v_div_fixup_f16": _div_fixup(_F16)}, "f16", "f16", "f16"),
    *family({"v_div_fixup_f32": _div_fixup(_F32)}, "f32", "f32", "f32"),
    *family({"v_div_fixup_f64": _div_fixup(_F64)}, "f64", "f64", "f64"),
]
