"""Vector integer and bit instructions of 32 and 64 bits (VOP1, VOP2, VOP3, VOP3SD)."""

from __future__ import annotations

from typing import cast

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import pair, saturate
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Evaluate, Ternary, Unary, family
from amdrv.emulator.isa.semantics.scalar import add_carry, add_u32, bit_field_mask, find, sign_run, sub_borrow, sub_u32

I32_MIN, I32_MAX, U32_MAX = -(2**31), 2**31 - 1, 2**32 - 1
I64_MIN, I64_MAX, U64_MAX = -(2**63), 2**63 - 1, 2**64 - 1


def clamp_i32(a: Ops, wide: Value) -> Value:
    """An i64 held in the range of i32, as i32."""
    return a.i32(saturate(a, wide, I32_MIN, I32_MAX))


def clamp_u32(a: Ops, wide: Value) -> Value:
    """A u64 held in the range of u32, as u32."""
    return a.u32(a.min(wide, U32_MAX))


def _signed24(a: Ops, x: Value) -> Value:
    return a.i32(a.u32(x) << 8) >> 8


def _unsigned24(a: Ops, x: Value) -> Value:
    return a.u32(x) & 0xFFFFFF


def _multiply_i24(a: Ops, x: Value, y: Value) -> Value:
    return a.i64(_signed24(a, x)) * a.i64(_signed24(a, y))


def _multiply_u24(a: Ops, x: Value, y: Value) -> Value:
    return a.u64(_unsigned24(a, x)) * a.u64(_unsigned24(a, y))


def _bfe_unsigned(a: Ops, x: Value, offset: Value, width: Value) -> Value:
    one = a.constant("u32", 1)
    return x >> (offset & 31) & (one << (width & 31)) - 1


def _bfe_signed(a: Ops, x: Value, offset: Value, width: Value) -> Value:
    count = width & 31
    up = 32 - a.max(count, 1)
    return a.select(a.eq(count, 0), 0, (x >> (offset & 31)) << up >> up)


def _align_bit(a: Ops, high: Value, low: Value, shift: Value) -> Value:
    """The low word of { high, low } >> shift[4:0]; high moves in two steps, since 32 is no shift count."""
    count = shift & 31
    return high << 1 << (31 - count) | low >> count


def _permute_bytes(a: Ops, high: Value, low: Value, selectors: Value) -> Value:
    """V_PERM_B32: each selector byte picks a byte of { high, low }, a sign, 0x00 or 0xff."""
    data = a.u64(high) << 32 | a.u64(low)
    result = a.constant("u32", 0)
    for position in range(0, 32, 8):
        selector = selectors >> position & 0xFF
        byte = a.u32(data >> a.u64((selector & 7) << 3)) & 0xFF
        # 8..11 replicate the sign bit of bytes 1, 3, 5, 7.
        sign = a.u32(data >> a.u64(((selector & 3) << 4) + 15)) & 1
        special = a.select(a.lt(selector, 12), sign * 0xFF, a.select(a.eq(selector, 12), 0, a.constant("u32", 0xFF)))
        result = result | a.select(a.lt(selector, 8), byte, special) << position
    return result


def _mad_u64_u32(a: Ops, x: Value, y: Value, addend: Value) -> tuple[Value, Value]:
    product = a.u64(a.u32(x)) * a.u64(a.u32(y))
    total = product + a.u64(addend)
    return total, a.lt(total, product)


def _mad_i64_i32(a: Ops, x: Value, y: Value, addend: Value) -> tuple[Value, Value]:
    """The 65-bit signed sum; its top bit goes to the carry: the sign of the exact result."""
    product, addend = a.i64(a.i32(x)) * a.i64(a.i32(y)), a.i64(addend)
    total = product + addend
    overflown = a.lt((product ^ total) & (addend ^ total), 0)
    return total, a.lt(total, 0) ^ overflown


def _limited(function: Evaluate, limit: int) -> Evaluate:
    """An unsigned operation with a carry or borrow, which with the clamp bit puts ``limit`` in place of the result."""

    def evaluate(a: Ops, *values: Value) -> tuple[Value, Value]:
        total, carry = cast("tuple[Value, Value]", function(a, *values))
        return a.select(carry, limit, total), carry

    return evaluate


def _mad_i64_i32_saturating(a: Ops, x: Value, y: Value, addend: Value) -> tuple[Value, Value]:
    total, negative = _mad_i64_i32(a, x, y, addend)
    limit = a.select(negative, a.constant("i64", I64_MIN), a.constant("i64", I64_MAX))
    return a.select(a.lt(total, 0) ^ negative, limit, total), negative


def _lanes_below(a: Ops, lane: Value, first: int) -> Value:
    """The thread mask of V_MBCNT: one bit for every lane from ``first`` on that is below this lane."""
    count = a.max(a.min(lane, first + 32), first) - first
    return a.u32((a.constant("u64", 1) << a.u64(count)) - 1)


def _mbcnt(first: int) -> Ternary:
    return lambda a, x, y, lane: a.popcount(x & _lanes_below(a, lane, first)) + y


UNARY_U32: dict[str, Unary] = {
    "v_mov_b32": lambda a, x: x,
    "v_not_b32": lambda a, x: ~x,
    "v_bfrev_b32": lambda a, x: a.bitreverse(x),
    "v_clz_i32_u32": lambda a, x: find(a, x, a.clz(x)),
    "v_ctz_i32_b32": lambda a, x: find(a, x, a.ctz(x)),
}
BINARY_U32: dict[str, Binary] = {
    "v_and_b32": lambda a, x, y: x & y,
    "v_or_b32": lambda a, x, y: x | y,
    "v_xor_b32": lambda a, x, y: x ^ y,
    "v_xnor_b32": lambda a, x, y: ~(x ^ y),
    "v_lshlrev_b32": lambda a, n, x: x << (n & 31),
    "v_lshrrev_b32": lambda a, n, x: x >> (n & 31),
    "v_add_nc_u32": lambda a, x, y: x + y,
    "v_sub_nc_u32": lambda a, x, y: x - y,
    "v_subrev_nc_u32": lambda a, x, y: y - x,
    "v_min_u32": lambda a, x, y: a.min(x, y),
    "v_max_u32": lambda a, x, y: a.max(x, y),
    "v_mul_lo_u32": lambda a, x, y: x * y,
    "v_mul_hi_u32": lambda a, x, y: a.u32(a.u64(x) * a.u64(y) >> 32),
    "v_mul_u32_u24": lambda a, x, y: a.u32(_multiply_u24(a, x, y)),
    "v_mul_hi_u32_u24": lambda a, x, y: a.u32(_multiply_u24(a, x, y) >> 32),
    "v_bfm_b32": lambda a, x, y: bit_field_mask(a, x, y, "u32", 31),
    "v_bcnt_u32_b32": lambda a, x, y: a.popcount(x) + y,
    "v_cvt_pk_u16_u32": lambda a, x, y: pair(a, a.min(x, 0xFFFF), a.min(y, 0xFFFF)),
}
BINARY_U32_SATURATING: dict[str, Binary] = {
    "v_add_nc_u32": lambda a, x, y: clamp_u32(a, a.u64(x) + a.u64(y)),
    "v_sub_nc_u32": lambda a, x, y: a.max(x, y) - y,
    "v_subrev_nc_u32": lambda a, x, y: a.max(x, y) - x,
    "v_mul_u32_u24": lambda a, x, y: clamp_u32(a, _multiply_u24(a, x, y)),
}
BINARY_I32: dict[str, Binary] = {
    "v_ashrrev_i32": lambda a, n, x: x >> (n & 31),
    "v_add_nc_i32": lambda a, x, y: x + y,
    "v_sub_nc_i32": lambda a, x, y: x - y,
    "v_min_i32": lambda a, x, y: a.min(x, y),
    "v_max_i32": lambda a, x, y: a.max(x, y),
    "v_mul_hi_i32": lambda a, x, y: a.i32(a.i64(x) * a.i64(y) >> 32),
    "v_mul_i32_i24": lambda a, x, y: a.i32(_multiply_i24(a, x, y)),
    "v_mul_hi_i32_i24": lambda a, x, y: a.i32(_multiply_i24(a, x, y) >> 32),
    "v_cvt_pk_i16_i32": lambda a, x, y: pair(a, saturate(a, x, -0x8000, 0x7FFF), saturate(a, y, -0x8000, 0x7FFF)),
}
BINARY_I32_SATURATING: dict[str, Binary] = {
    "v_add_nc_i32": lambda a, x, y: clamp_i32(a, a.i64(x) + a.i64(y)),
    "v_sub_nc_i32": lambda a, x, y: clamp_i32(a, a.i64(x) - a.i64(y)),
    "v_mul_i32_i24": lambda a, x, y: clamp_i32(a, _multiply_i24(a, x, y)),
}
TERNARY_U32: dict[str, Ternary] = {
    "v_add3_u32": lambda a, x, y, z: x + y + z,
    "v_lshl_add_u32": lambda a, x, n, z: (x << (n & 31)) + z,
    "v_add_lshl_u32": lambda a, x, y, n: (x + y) << (n & 31),
    "v_xad_u32": lambda a, x, y, z: (x ^ y) + z,
    "v_lshl_or_b32": lambda a, x, n, z: x << (n & 31) | z,
    "v_and_or_b32": lambda a, x, y, z: x & y | z,
    "v_or3_b32": lambda a, x, y, z: x | y | z,
    "v_xor3_b32": lambda a, x, y, z: x ^ y ^ z,
    "v_bfi_b32": lambda a, mask, x, y: mask & x | ~mask & y,
    "v_bfe_u32": _bfe_unsigned,
    "v_alignbit_b32": _align_bit,
    "v_alignbyte_b32": lambda a, x, y, n: _align_bit(a, x, y, (n & 3) << 3),
    "v_perm_b32": _permute_bytes,
    "v_mad_u32_u24": lambda a, x, y, z: a.u32(_multiply_u24(a, x, y)) + z,
    "v_min3_u32": lambda a, x, y, z: a.min(a.min(x, y), z),
    "v_max3_u32": lambda a, x, y, z: a.max(a.max(x, y), z),
    "v_med3_u32": lambda a, x, y, z: a.max(a.min(x, y), a.min(a.max(x, y), z)),
    "v_maxmin_u32": lambda a, x, y, z: a.min(a.max(x, y), z),
    "v_minmax_u32": lambda a, x, y, z: a.max(a.min(x, y), z),
}
TERNARY_U32_SATURATING: dict[str, Ternary] = {
    "v_mad_u32_u24": lambda a, x, y, z: clamp_u32(a, _multiply_u24(a, x, y) + a.u64(z)),
}
TERNARY_I32: dict[str, Ternary] = {
    "v_bfe_i32": _bfe_signed,
    "v_mad_i32_i24": lambda a, x, y, z: a.i32(_multiply_i24(a, x, y)) + z,
    "v_min3_i32": lambda a, x, y, z: a.min(a.min(x, y), z),
    "v_max3_i32": lambda a, x, y, z: a.max(a.max(x, y), z),
    "v_med3_i32": lambda a, x, y, z: a.max(a.min(x, y), a.min(a.max(x, y), z)),
    "v_maxmin_i32": lambda a, x, y, z: a.min(a.max(x, y), z),
    "v_minmax_i32": lambda a, x, y, z: a.max(a.min(x, y), z),
}
TERNARY_I32_SATURATING: dict[str, Ternary] = {
    "v_mad_i32_i24": lambda a, x, y, z: clamp_i32(a, _multiply_i24(a, x, y) + a.i64(z)),
}
SHIFT_U64: dict[str, Binary] = {
    "v_lshlrev_b64": lambda a, n, x: x << (n & 63),
    "v_lshrrev_b64": lambda a, n, x: x >> (n & 63),
}
CARRY_OUT: dict[str, Evaluate] = {
    "v_add_co_u32": add_u32,
    "v_sub_co_u32": sub_u32,
    "v_subrev_co_u32": lambda a, x, y: sub_u32(a, y, x),
}
CARRY_IN: dict[str, Evaluate] = {
    "v_add_co_ci_u32": add_carry,
    "v_sub_co_ci_u32": sub_borrow,
    "v_subrev_co_ci_u32": lambda a, x, y, borrow: sub_borrow(a, y, x, borrow),
}
MULTIPLY_ADD_64: dict[str, Evaluate] = {"v_mad_u64_u32": _mad_u64_u32, "v_mad_i64_i32": _mad_i64_i32}
# With the clamp bit a sum stops at the greatest number and a difference at zero; the carry is the same. (LLVM makes
# saturating additions of gfx8 with V_ADD_U32, which has a carry: test/CodeGen/AMDGPU/uaddsat.ll.)
CARRY_OUT_SATURATING = {name: _limited(f, U32_MAX if "_add_" in name else 0) for name, f in CARRY_OUT.items()}
CARRY_IN_SATURATING = {name: _limited(f, U32_MAX if "_add_" in name else 0) for name, f in CARRY_IN.items()}
MULTIPLY_ADD_64_SATURATING: dict[str, Evaluate] = {
    "v_mad_u64_u32": _limited(_mad_u64_u32, U64_MAX),
    "v_mad_i64_i32": _mad_i64_i32_saturating,
}

DEFINITIONS: list[Definition] = [
    *family(UNARY_U32, "u32"),
    *family({"v_cls_i32": sign_run}, "i32"),
    *family(BINARY_U32, "u32", "u32", saturating=BINARY_U32_SATURATING),
    *family(BINARY_I32, "i32", "i32", saturating=BINARY_I32_SATURATING),
    *family(TERNARY_U32, "u32", "u32", "u32", saturating=TERNARY_U32_SATURATING),
    *family(TERNARY_I32, "i32", "i32", "i32", saturating=TERNARY_I32_SATURATING),
    *family(SHIFT_U64, "u64", "u64"),
    *family({"v_ashrrev_i64": lambda a, n, x: x >> (n & 63)}, "i64", "i64"),
    *family(CARRY_OUT, "u32", "u32", writes=("dst", "dst1"), saturating=CARRY_OUT_SATURATING),
    *family(CARRY_IN, "u32", "u32", writes=("dst", "dst1"), saturating=CARRY_IN_SATURATING),
    *family(MULTIPLY_ADD_64, writes=("dst", "dst1"), saturating=MULTIPLY_ADD_64_SATURATING),
    *family({"v_mbcnt_lo_u32_b32": _mbcnt(0), "v_mbcnt_hi_u32_b32": _mbcnt(32)}, "u32", "u32", "u32", reads=("lane",)),
    *family({"v_cndmask_b32": lambda a, x, y, mask: a.select(mask, a.u32(y), a.u32(x))}),
    *family({"v_swap_b32": lambda a, x, old: (x, old)}, "u32", "u32", writes=("dst", "dst1")),
]
