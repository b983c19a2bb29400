"""The three steps that surround a Newton-Raphson division: scale the operands, unscale the quotient, fix special cases.

The manual's pseudo-code for V_DIV_SCALE and V_DIV_FMAS cannot be taken at its word (it multiplies the quotient by 2**32
where the operands were scaled by 2**64, and scales a denominator near the maximum further up). What is written here
was checked on gfx1100 and gfx1201 (ROCm rocjitsu, shared/division.h): exponents decide, a denormal's being 0. The
division sequence of LLVM's AMDGPU back end (SIISelLowering.cpp: LowerFDIV32, LowerFDIV64) is correctly rounded by it;
the tests divide with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import (
    FLOAT_LAYOUT,
    copy_sign,
    exponent,
    float_bits,
    is_infinite,
    is_nan,
    is_zero,
    operand,
    quiet_nan,
    sign,
)
from amdrv.emulator.isa.semantics.definition import Definition, Evaluate, family


@dataclass(frozen=True, slots=True)
class _Format:
    """Thresholds of one precision, as biased exponents and exponent differences."""

    kind: str
    far: int  # difference of the operands' exponents from which the quotient may overflow or become denormal
    tiny_numerator: int  # exponent of a numerator whose remainder would be denormal
    scale: int  # power of two that operands are scaled by
    underflow: int  # exponent difference below which the quotient is certainly zero
    default_nan: int

    @property
    def bias(self) -> int:
        return FLOAT_LAYOUT[self.kind][0] >> 1


_F32 = _Format("f32", 96, 24, 64, -150, 0xFFC00000)
_F64 = _Format("f64", 768, 53, 128, -1075, 0xFFF8000000000000)


def _div_scale(f: _Format) -> Evaluate:
    kind, unsigned = f.kind, FLOAT_LAYOUT[f.kind][2]

    def evaluate(a: Ops, x: Value, denominator: Value, numerator: Value) -> tuple[Value, Value]:
        """x is the numerator or the denominator, whichever is to be scaled; the truth value asks for V_DIV_FMAS."""
        x, denominator, numerator = (operand(a, value, kind) for value in (x, denominator, numerator))
        exponent_d, exponent_n = exponent(a, denominator, kind), exponent(a, numerator, kind)
        difference = exponent_n - exponent_d
        is_denominator = a.eq(a.cast(x, unsigned), a.cast(denominator, unsigned))
        large, small = a.le(a.constant("i32", f.far), difference), a.le(difference, -f.far)
        huge_denominator = a.le(a.constant("i32", 2 * f.bias - 1), exponent_d)  # its reciprocal would be denormal
        up, down, stay = (a.constant("i32", power) for power in (f.scale, -f.scale, 0))

        # The first case that holds decides; they are applied from the last to the first.
        power = a.select(a.le(exponent_n, f.tiny_numerator), up, stay)
        power = a.select(small, a.select(is_denominator, stay, up), power)
        power = a.select(huge_denominator, a.select(small & ~is_denominator, stay, down), power)
        power = a.select(a.eq(exponent_d, 0), up, power)
        power = a.select(large, a.select(is_denominator, up, stay), power)
        zero = is_zero(a, numerator, kind) | is_zero(a, denominator, kind)
        return a.select(zero, float_bits(a, kind, f.default_nan), a.ldexp(x, power)), large | small

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
        denominator, numerator = operand(a, denominator, kind), operand(a, numerator, kind)
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
