"""Conversions between number formats, and packing of converted pairs."""

from __future__ import annotations

from amdrv.emulator.isa.algebra import Ops, Rounding, Value
from amdrv.emulator.isa.semantics.bits import field, halves, is_nan, operand, pair, quiet_nan, saturate, sign
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Ternary, Unary, family
from amdrv.emulator.isa.semantics.modifiers import clamp_packed


def to_bf16(a: Ops, x: Value) -> Value:
    """f32 to bf16, as u16 bits: nearest even; a NaN keeps its upper payload and becomes quiet."""
    bits = a.u32(x)
    rounded = bits + 0x7FFF + (bits >> 16 & 1)
    return a.u16(a.select(a.eq(a.f32(x), a.f32(x)), rounded, bits | 0x400000) >> 16)


def from_bf16(a: Ops, x: Value) -> Value:
    """bf16 bits (u16) to f32."""
    return a.f32(a.u32(a.u16(x)) << 16)


def round_by_mode(a: Ops, x: Value) -> Value:
    """The integral value next to a float in the direction of the single-precision rounding mode."""
    directions = {Rounding.NEAREST_EVEN: a.rndne, Rounding.UP: a.ceil, Rounding.DOWN: a.floor, Rounding.ZERO: a.trunc}
    return directions[a.mode.round32](x)


def normalised(a: Ops, x: Value, limit: int, lowest: int) -> Value:
    """x in [-1, 1] or [0, 1] to a fixed-point integer whose one is ``limit``; NaN gives 0. As i32."""
    scaled = a.mul(a.to_float(x, "f64"), a.constant("f64", limit))
    return saturate(a, a.to_int(a.rndne(scaled), "i32"), lowest, limit)


def snorm(a: Ops, x: Value) -> Value:
    return a.i16(normalised(a, x, 0x7FFF, -0x7FFF))


def unorm(a: Ops, x: Value) -> Value:
    return a.u16(normalised(a, x, 0xFFFF, 0))


def _floor_i32(a: Ops, x: Value) -> Value:
    """A NaN becomes the limit on its sign's side: measured on gfx1201 (rocjitsu, shared/conversion.h)."""
    limit = a.select(sign(a, x, "f32"), a.constant("i32", -0x80000000), a.constant("i32", 0x7FFFFFFF))
    return a.select(is_nan(a, x, "f32"), limit, a.to_int(a.floor(x), "i32"))


def _nearest_i32(a: Ops, x: Value) -> Value:
    """floor(x + 0.5), the sum without a rounding of its own; a NaN as in ``_floor_i32``."""
    shifted = a.floor(a.add(a.to_float(x, "f64"), a.constant("f64", 0.5)))
    return a.select(is_nan(a, x, "f32"), _floor_i32(a, x), a.to_int(shifted, "i32"))


def _offset_i4(a: Ops, x: Value) -> Value:
    """A signed 4-bit integer in sixteenths."""
    four_bits = a.i32(a.u32(x) << 28) >> 28
    return a.mul(a.to_float(four_bits, "f32"), a.constant("f32", 0.0625))


def _unsigned_byte(byte: int) -> Unary:
    return lambda a, x: a.to_float(field(x, 8 * byte + 7, 8 * byte), "f32")


def _pack_byte(a: Ops, x: Value, position: Value, old: Value) -> Value:
    """V_CVT_PK_U8_F32: the number, rounded by the mode, replaces one byte of the third source.

    The manual's f32_to_u8 leaves the rounding open; compositing code for this hardware relies on the mode's.
    """
    byte = a.u32(a.max(a.min(a.to_int(round_by_mode(a, a.f32(x)), "i32"), 255), 0))
    shift = (a.u32(position) & 3) << 3
    return a.u32(old) & ~(a.constant("u32", 0xFF) << shift) | byte << shift


def _pack_rtz(a: Ops, x: Value, y: Value) -> Value:
    return pair(a, a.to_float(x, "f16", Rounding.ZERO), a.to_float(y, "f16", Rounding.ZERO))


def _as_read(a: Ops, x: Value) -> Value:
    """A half that is only moved is a float all the same: measured on gfx1201 (rocjitsu, shared/conversion.h)."""
    return a.select(is_nan(a, x, "f16"), quiet_nan(a, x, "f16"), operand(a, x, "f16"))


def _saturate_bytes(a: Ops, x: Value) -> Value:
    """Two i16 to two u8, in the lower half of the register."""
    low, high = halves(a, x, "i16")
    return a.u16(saturate(a, high, 0, 255)) << 8 | a.u16(saturate(a, low, 0, 255))


FROM_F32: dict[str, Unary] = {
    "v_cvt_i32_f32": lambda a, x: a.to_int(x, "i32"),
    "v_cvt_u32_f32": lambda a, x: a.to_int(x, "u32"),
    "v_cvt_f16_f32": lambda a, x: a.to_float(x, "f16"),
    "v_cvt_f64_f32": lambda a, x: a.to_float(x, "f64"),
    "v_cvt_nearest_i32_f32": _nearest_i32,
    "v_cvt_floor_i32_f32": _floor_i32,
}
FROM_F64: dict[str, Unary] = {
    "v_cvt_i32_f64": lambda a, x: a.to_int(x, "i32"),
    "v_cvt_u32_f64": lambda a, x: a.to_int(x, "u32"),
    "v_cvt_f32_f64": lambda a, x: a.to_float(x, "f32"),
}
FROM_F16: dict[str, Unary] = {
    "v_cvt_f32_f16": lambda a, x: a.to_float(x, "f32"),
    "v_cvt_u16_f16": lambda a, x: a.to_int(x, "u16"),
    "v_cvt_i16_f16": lambda a, x: a.to_int(x, "i16"),
    "v_cvt_norm_i16_f16": snorm,
    "v_cvt_norm_u16_f16": unorm,
}
FROM_I32: dict[str, Unary] = {
    "v_cvt_f32_i32": lambda a, x: a.to_float(x, "f32"),
    "v_cvt_f64_i32": lambda a, x: a.to_float(x, "f64"),
}
FROM_U32: dict[str, Unary] = {
    "v_cvt_f32_u32": lambda a, x: a.to_float(x, "f32"),
    "v_cvt_f64_u32": lambda a, x: a.to_float(x, "f64"),
    "v_cvt_off_f32_i4": _offset_i4,
    "v_sat_pk_u8_i16": _saturate_bytes,
    **{f"v_cvt_f32_ubyte{byte}": _unsigned_byte(byte) for byte in range(4)},
}
FROM_16: dict[str, dict[str, Unary]] = {
    "u16": {
        "v_cvt_f16_u16": lambda a, x: a.to_float(x, "f16"),
        "v_cvt_u32_u16": lambda a, x: a.u32(x),
    },
    "i16": {
        "v_cvt_f16_i16": lambda a, x: a.to_float(x, "f16"),
        "v_cvt_i32_i16": lambda a, x: a.i32(x),
    },
}
PACKED_FROM_F32: dict[str, Binary] = {
    "v_cvt_pk_rtz_f16_f32": _pack_rtz,
    "v_cvt_pk_i16_f32": lambda a, x, y: pair(a, a.to_int(x, "i16"), a.to_int(y, "i16")),
    "v_cvt_pk_u16_f32": lambda a, x, y: pair(a, a.to_int(x, "u16"), a.to_int(y, "u16")),
    "v_cvt_pk_norm_i16_f32": lambda a, x, y: pair(a, snorm(a, x), snorm(a, y)),
    "v_cvt_pk_norm_u16_f32": lambda a, x, y: pair(a, unorm(a, x), unorm(a, y)),
}
PACKED_FROM_F16: dict[str, Binary] = {
    "v_pack_b32_f16": lambda a, x, y: pair(a, _as_read(a, x), _as_read(a, y)),
    "v_cvt_pk_norm_i16_f16": lambda a, x, y: pair(a, snorm(a, x), snorm(a, y)),
    "v_cvt_pk_norm_u16_f16": lambda a, x, y: pair(a, unorm(a, x), unorm(a, y)),
}
PACK_BYTE: dict[str, Ternary] = {"v_cvt_pk_u8_f32": _pack_byte}

DEFINITIONS: list[Definition] = [
    *family(FROM_F32, "f32"),
    *family(FROM_F64, "f64"),
    *family(FROM_F16, "f16"),
    *family(FROM_I32, "i32"),
    *family(FROM_U32, "u32"),
    *(definition for kind, table in FROM_16.items() for definition in family(table, kind)),
    *family(PACKED_FROM_F32, "f32", "f32", saturating={"v_cvt_pk_rtz_f16_f32": clamp_packed(_pack_rtz)}),
    *family(PACKED_FROM_F16, "f16", "f16"),
    *family(PACK_BYTE),
]
