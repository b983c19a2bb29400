"""Conversions of eight-bit floats: fp8 (1-4-3, no infinity) and bf8 (1-5-2), as the OCP formats that gfx12 has.

Byte positions: RDNA4 ISA manual, pseudo code of V_CVT_F32_FP8, V_CVT_PK_FP8_F32, V_CVT_SR_FP8_F32. What is too large
becomes an infinity, or a NaN where there is none; with FP16_OVFL a finite number becomes the largest one. That NaNs are
negative and lose their payload, and how random bits round, was measured on gfx1201 (rocjitsu, shared/conversion.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import is_nan, operand
from amdrv.emulator.isa.semantics.definition import Definition, Evaluate, family

Fields: TypeAlias = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Of an eight-bit float: bits of the mantissa, bias, code of the first value beyond the largest number, NaN."""

    mantissa_bits: int
    bias: int
    overflow: int
    nan: int


LAYOUTS = {"fp8": Layout(3, 7, 0x7F, 0x7F), "bf8": Layout(2, 15, 0x7C, 0x7E)}
_NAN = 0xFFC00000


def _as_f32(code: int, layout: Layout) -> int:
    """The f32 pattern of one eight-bit float."""
    sign, magnitude = code >> 7 << 31, code & 0x7F
    exponent, mantissa = magnitude >> layout.mantissa_bits, magnitude & (1 << layout.mantissa_bits) - 1
    if magnitude >= layout.overflow:
        infinite = magnitude == layout.overflow and layout.overflow != layout.nan
        return sign | 0x7F800000 if infinite else _NAN
    if not exponent:
        if not mantissa:
            return sign
        leading = mantissa.bit_length() - 1  # a denormal: its leading one becomes the hidden one
        mantissa = (mantissa << layout.mantissa_bits - leading) & (1 << layout.mantissa_bits) - 1
        exponent = 1 - (layout.mantissa_bits - leading)
    return sign | exponent - layout.bias + 127 << 23 | mantissa << 23 - layout.mantissa_bits


TABLES = {kind: tuple(_as_f32(code, layout) for code in range(256)) for kind, layout in LAYOUTS.items()}


def to_f32(a: Ops, byte: Value, kind: str) -> Value:
    """The float in the low eight bits of a u32, as f32: every one is representable."""
    return a.f32(a.table("u32", TABLES[kind], byte & 0xFF))


def from_f32(a: Ops, x: Value, kind: str, random: Value | None = None) -> Value:
    """f32 to eight bits in a u32, to nearest even, or up by the top bits of a ``random`` u32.

    A denormal is cut to as many bits as a normal number has before random bits are added below them.
    """
    layout = LAYOUTS[kind]
    bits = a.u32(operand(a, x, "f32"))
    magnitude, mantissa = bits & 0x7FFFFFFF, bits & 0x7FFFFF | 0x800000
    dropped = 23 - layout.mantissa_bits
    scale = a.i32(magnitude >> 23) - (127 - layout.bias)  # biased, of a normal number
    lost = a.u32(a.min(a.max(1 - scale, 0), 25))
    if random is None:
        units = _round_off(a, mantissa, a.min(lost + dropped, 26))
    else:
        units = (mantissa >> lost) + (random >> 32 - dropped) >> dropped
    code = (a.u32(a.max(scale, 1) - 1) << layout.mantissa_bits) + units
    largest = layout.overflow - 1 if a.mode.saturate16 else layout.overflow
    code = a.select(a.lt(code, layout.overflow), code, largest)
    code = a.select(a.eq(magnitude, 0x7F800000), layout.overflow, code) | bits >> 24 & 0x80
    return a.select(is_nan(a, a.f32(bits), "f32"), layout.nan | 0x80, code)


def _round_off(a: Ops, x: Value, shift: Value) -> Value:
    """x >> shift, to nearest even."""
    half = (a.constant("u32", 1) << (shift - 1)) - 1
    return (x + half + (x >> shift & 1)) >> shift


def _unpack(kind: str) -> Evaluate:
    """V_CVT_F32_FP8: op_sel names the byte, its two bits the other way round."""

    def evaluate(a: Ops, x: Value, fields: Fields) -> Value:
        selected = fields.get("opsel", 0)
        byte = selected >> 1 & 1 | (selected & 1) << 1
        return to_f32(a, a.u32(x) >> 8 * byte, kind)

    return evaluate


def _unpack_pair(kind: str) -> Evaluate:
    def evaluate(a: Ops, x: Value) -> Value:
        bits = a.u32(x)
        low, high = (a.u64(a.u32(to_f32(a, bits >> shift, kind))) for shift in (0, 8))
        return high << 32 | low

    return evaluate


def _pack_pair(kind: str) -> Evaluate:
    def evaluate(a: Ops, x: Value, y: Value) -> Value:
        return a.u16(from_f32(a, x, kind) | from_f32(a, y, kind) << 8)

    return evaluate


def _stochastic(kind: str) -> Evaluate:
    """V_CVT_SR_FP8_F32: op_sel[3:2] names the byte that is written."""

    def evaluate(a: Ops, x: Value, random: Value, old: Value, fields: Fields) -> Value:
        shift = 8 * (fields.get("opsel", 0) >> 2 & 3)
        return a.u32(old) & (0xFFFFFFFF ^ 0xFF << shift) | from_f32(a, x, kind, a.u32(random)) << shift

    return evaluate


def _table(form: str, make: Mapping[str, Evaluate]) -> dict[str, Evaluate]:
    return {form.format(kind): evaluate for kind, evaluate in make.items()}


DEFINITIONS: list[Definition] = [
    *family(_table("v_cvt_f32_{}", {kind: _unpack(kind) for kind in LAYOUTS}), reads=("fields",)),
    *family(_table("v_cvt_pk_f32_{}", {kind: _unpack_pair(kind) for kind in LAYOUTS})),
    *family(_table("v_cvt_pk_{}_f32", {kind: _pack_pair(kind) for kind in LAYOUTS}), "f32", "f32"),
    *family(
        _table("v_cvt_sr_{}_f32", {kind: _stochastic(kind) for kind in LAYOUTS}), "f32", "u32", reads=("old", "fields")
    ),
]
