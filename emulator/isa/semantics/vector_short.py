"""Vector integer instructions of 16 bits; the engine picks the halves of the registers."""

from __future__ import annotations

from amdrv.emulator.isa.semantics.bits import saturate
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Ternary, family
from amdrv.emulator.isa.semantics.vector_integer import clamp_i32, clamp_u32

I16_MIN, I16_MAX, U16_MAX = -(2**15), 2**15 - 1, 2**16 - 1

BITWISE: dict[str, Binary] = {
    "v_and_b16": lambda a, x, y: x & y,
    "v_or_b16": lambda a, x, y: x | y,
    "v_xor_b16": lambda a, x, y: x ^ y,
    "v_lshlrev_b16": lambda a, n, x: x << (n & 15),
    "v_lshrrev_b16": lambda a, n, x: x >> (n & 15),
}

# Operations on two or three values of one 16-bit kind, and what they are with the clamp bit; the packed instructions
# do the same to both halves.
UNSIGNED_2: dict[str, Binary] = {
    "add": lambda a, x, y: x + y,
    "sub": lambda a, x, y: x - y,
    "mul_lo": lambda a, x, y: x * y,
    "min": lambda a, x, y: a.min(x, y),
    "max": lambda a, x, y: a.max(x, y),
}
UNSIGNED_2_SATURATING: dict[str, Binary] = {
    "add": lambda a, x, y: a.u16(a.min(a.u32(x) + a.u32(y), U16_MAX)),
    "sub": lambda a, x, y: a.max(x, y) - y,
    "mul_lo": lambda a, x, y: a.u16(a.min(a.u32(x) * a.u32(y), U16_MAX)),
}
SIGNED_2: dict[str, Binary] = {
    "add": lambda a, x, y: x + y,
    "sub": lambda a, x, y: x - y,
    "min": lambda a, x, y: a.min(x, y),
    "max": lambda a, x, y: a.max(x, y),
}
SIGNED_2_SATURATING: dict[str, Binary] = {
    "add": lambda a, x, y: a.i16(saturate(a, a.i32(x) + a.i32(y), I16_MIN, I16_MAX)),
    "sub": lambda a, x, y: a.i16(saturate(a, a.i32(x) - a.i32(y), I16_MIN, I16_MAX)),
}
UNSIGNED_3: dict[str, Ternary] = {
    "mad": lambda a, x, y, z: x * y + z,
    "min3": lambda a, x, y, z: a.min(a.min(x, y), z),
    "max3": lambda a, x, y, z: a.max(a.max(x, y), z),
    "med3": lambda a, x, y, z: a.max(a.min(x, y), a.min(a.max(x, y), z)),
}
UNSIGNED_3_SATURATING: dict[str, Ternary] = {
    "mad": lambda a, x, y, z: a.u16(a.min(a.u64(x) * a.u64(y) + a.u64(z), U16_MAX)),
}
SIGNED_3: dict[str, Ternary] = UNSIGNED_3
SIGNED_3_SATURATING: dict[str, Ternary] = {
    "mad": lambda a, x, y, z: a.i16(saturate(a, a.i64(x) * a.i64(y) + a.i64(z), I16_MIN, I16_MAX)),
}
MAD_WIDE_UNSIGNED: dict[str, Ternary] = {
    "v_mad_u32_u16": lambda a, x, y, z: a.u32(x) * a.u32(y) + a.u32(z),
}
MAD_WIDE_UNSIGNED_SATURATING: dict[str, Ternary] = {
    "v_mad_u32_u16": lambda a, x, y, z: clamp_u32(a, a.u64(x) * a.u64(y) + a.u64(a.u32(z))),
}
MAD_WIDE_SIGNED: dict[str, Ternary] = {
    "v_mad_i32_i16": lambda a, x, y, z: a.i32(x) * a.i32(y) + a.i32(z),
}
MAD_WIDE_SIGNED_SATURATING: dict[str, Ternary] = {
    "v_mad_i32_i16": lambda a, x, y, z: clamp_i32(a, a.i64(x) * a.i64(y) + a.i64(a.i32(z))),
}
NAMES_2 = {"add": "add_nc", "sub": "sub_nc"}


def _named_2(table: dict[str, Binary], kind: str) -> dict[str, Binary]:
    return {f"v_{NAMES_2.get(name, name)}_{kind}": function for name, function in table.items()}


def _named_3(table: dict[str, Ternary], kind: str) -> dict[str, Ternary]:
    return {f"v_{name}_{kind}": function for name, function in table.items()}


DEFINITIONS: list[Definition] = [
    *family({"v_mov_b16": lambda a, x: x, "v_not_b16": lambda a, x: ~x}, "u16"),
    *family(BITWISE, "u16", "u16"),
    *family({"v_ashrrev_i16": lambda a, n, x: x >> (n & 15)}, "i16", "i16"),
    *family(_named_2(UNSIGNED_2, "u16"), "u16", "u16", saturating=_named_2(UNSIGNED_2_SATURATING, "u16")),
    *family(_named_2(SIGNED_2, "i16"), "i16", "i16", saturating=_named_2(SIGNED_2_SATURATING, "i16")),
    *family(_named_3(UNSIGNED_3, "u16"), "u16", "u16", "u16", saturating=_named_3(UNSIGNED_3_SATURATING, "u16")),
    *family(_named_3(SIGNED_3, "i16"), "i16", "i16", "i16", saturating=_named_3(SIGNED_3_SATURATING, "i16")),
    *family(MAD_WIDE_UNSIGNED, "u16", "u16", "u32", saturating=MAD_WIDE_UNSIGNED_SATURATING),
    *family(MAD_WIDE_SIGNED, "i16", "i16", "i32", saturating=MAD_WIDE_SIGNED_SATURATING),
    *family({"v_cndmask_b16": lambda a, x, y, mask: a.select(mask, a.u16(y), a.u16(x))}),
    *family({"v_swap_b16": lambda a, x, old: (x, old)}, "u16", "u16", writes=("dst", "dst1")),
]
