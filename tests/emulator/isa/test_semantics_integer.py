"""Integer instructions against Python integers, on edge values and values drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra, quiet

ALGEBRA = NumpyAlgebra()
M16, M32, M64 = 2**16 - 1, 2**32 - 1, 2**64 - 1


def s8(x: int) -> int:
    return (x & 0xFF ^ 0x80) - 0x80


def s16(x: int) -> int:
    return (x & M16 ^ 2**15) - 2**15


def s24(x: int) -> int:
    return (x & 0xFFFFFF ^ 2**23) - 2**23


def s32(x: int) -> int:
    return (x & M32 ^ 2**31) - 2**31


def s64(x: int) -> int:
    return (x & M64 ^ 2**63) - 2**63


def clamp(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


def median(*values: int) -> int:
    return sorted(values)[1]


def octets(x: int) -> list[int]:
    return [x >> n & 0xFF for n in (0, 8, 16, 24)]


def sad(x: int, y: int) -> int:
    return sum(abs(p - q) for p, q in zip(octets(x), octets(y), strict=True))


def msad(x: int, y: int) -> int:
    return sum(abs(p - q) for p, q in zip(octets(x), octets(y), strict=True) if q)


def perm(high: int, low: int, selectors: int) -> int:
    data = high << 32 | low
    byte = [data >> 8 * n & 0xFF for n in range(8)]

    def pick(s: int) -> int:
        if s >= 13:
            return 0xFF
        if s == 12:
            return 0
        return byte[s] if s < 8 else 0xFF * (byte[2 * (s - 8) + 1] >> 7)

    return sum(pick(s) << 8 * n for n, s in enumerate(octets(selectors)))


def first_one_from_top(x: int, width: int) -> int:
    return width - x.bit_length() if x else -1


def first_one_from_bottom(x: int) -> int:
    return (x & -x).bit_length() - 1


def sign_run(x: int, width: int) -> int:
    inverted = x ^ ((1 << width) - 1) if x >> (width - 1) else x
    return first_one_from_top(inverted, width)


def bfe(x: int, offset: int, width: int) -> int:
    return x >> offset & ((1 << width) - 1)


def bfe_signed(x: int, offset: int, width: int) -> int:
    field = x >> offset & ((1 << width) - 1)  # x as a signed Python integer
    return field - (1 << width) if width and field >> (width - 1) else field


# mnemonic: (widths of the sources, the result as a Python integer, taken modulo the destination's width)
Case = tuple[str, Callable[..., int]]
WIDTH = {"h": 16, "w": 32, "d": 64}

UNARY: dict[str, Case] = {
    "v_mov_b32": ("w", lambda x: x),
    "v_not_b32": ("w", lambda x: ~x),
    "v_bfrev_b32": ("w", lambda x: int(f"{x:032b}"[::-1], 2)),
    "v_clz_i32_u32": ("w", lambda x: first_one_from_top(x, 32)),
    "v_ctz_i32_b32": ("w", first_one_from_bottom),
    "v_cls_i32": ("w", lambda x: sign_run(x, 32)),
    "v_mov_b16": ("h", lambda x: x),
    "v_not_b16": ("h", lambda x: ~x),
    "v_cvt_i32_i16": ("h", s16),
    "v_cvt_u32_u16": ("h", lambda x: x),
    "v_sat_pk_u8_i16": ("w", lambda x: clamp(s16(x), 0, 255) | clamp(s16(x >> 16), 0, 255) << 8),
    "s_mov_b32": ("w", lambda x: x),
    "s_mov_b64": ("d", lambda x: x),
    "s_brev_b32": ("w", lambda x: int(f"{x:032b}"[::-1], 2)),
    "s_brev_b64": ("d", lambda x: int(f"{x:064b}"[::-1], 2)),
    "s_ctz_i32_b32": ("w", first_one_from_bottom),
    "s_ctz_i32_b64": ("d", first_one_from_bottom),
    "s_clz_i32_u32": ("w", lambda x: first_one_from_top(x, 32)),
    "s_clz_i32_u64": ("d", lambda x: first_one_from_top(x, 64)),
    "s_cls_i32": ("w", lambda x: sign_run(x, 32)),
    "s_cls_i32_i64": ("d", lambda x: sign_run(x, 64)),
    "s_sext_i32_i8": ("w", s8),
    "s_sext_i32_i16": ("w", s16),
    "s_bitreplicate_b64_b32": ("w", lambda x: sum((x >> n & 1) * 3 << 2 * n for n in range(32))),
    "s_movk_i32": ("w", s16),
}
BINARY: dict[str, Case] = {
    "v_and_b32": ("ww", lambda x, y: x & y),
    "v_or_b32": ("ww", lambda x, y: x | y),
    "v_xor_b32": ("ww", lambda x, y: x ^ y),
    "v_xnor_b32": ("ww", lambda x, y: ~(x ^ y)),
    "v_lshlrev_b32": ("ww", lambda n, x: x << (n & 31)),
    "v_lshrrev_b32": ("ww", lambda n, x: x >> (n & 31)),
    "v_ashrrev_i32": ("ww", lambda n, x: s32(x) >> (n & 31)),
    "v_lshlrev_b64": ("wd", lambda n, x: x << (n & 63)),
    "v_lshrrev_b64": ("wd", lambda n, x: x >> (n & 63)),
    "v_ashrrev_i64": ("wd", lambda n, x: s64(x) >> (n & 63)),
    "v_add_nc_u32": ("ww", lambda x, y: x + y),
    "v_sub_nc_u32": ("ww", lambda x, y: x - y),
    "v_subrev_nc_u32": ("ww", lambda x, y: y - x),
    "v_add_nc_i32": ("ww", lambda x, y: x + y),
    "v_sub_nc_i32": ("ww", lambda x, y: x - y),
    "v_min_u32": ("ww", min),
    "v_max_u32": ("ww", max),
    "v_min_i32": ("ww", lambda x, y: min(s32(x), s32(y))),
    "v_max_i32": ("ww", lambda x, y: max(s32(x), s32(y))),
    "v_mul_lo_u32": ("ww", lambda x, y: x * y),
    "v_mul_hi_u32": ("ww", lambda x, y: x * y >> 32),
    "v_mul_hi_i32": ("ww", lambda x, y: s32(x) * s32(y) >> 32),
    "v_mul_u32_u24": ("ww", lambda x, y: (x & 0xFFFFFF) * (y & 0xFFFFFF)),
    "v_mul_hi_u32_u24": ("ww", lambda x, y: (x & 0xFFFFFF) * (y & 0xFFFFFF) >> 32),
    "v_mul_i32_i24": ("ww", lambda x, y: s24(x) * s24(y)),
    "v_mul_hi_i32_i24": ("ww", lambda x, y: s24(x) * s24(y) >> 32),
    "v_bfm_b32": ("ww", lambda x, y: ((1 << (x & 31)) - 1) << (y & 31)),
    "v_bcnt_u32_b32": ("ww", lambda x, y: x.bit_count() + y),
    "v_cvt_pk_u16_u32": ("ww", lambda x, y: min(x, M16) | min(y, M16) << 16),
    "v_cvt_pk_i16_i32": (
        "ww",
        lambda x, y: clamp(s32(x), -(2**15), 2**15 - 1) & M16 | (clamp(s32(y), -(2**15), 2**15 - 1) & M16) << 16,
    ),
    "v_and_b16": ("hh", lambda x, y: x & y),
    "v_or_b16": ("hh", lambda x, y: x | y),
    "v_xor_b16": ("hh", lambda x, y: x ^ y),
    "v_lshlrev_b16": ("hh", lambda n, x: x << (n & 15)),
    "v_lshrrev_b16": ("hh", lambda n, x: x >> (n & 15)),
    "v_ashrrev_i16": ("hh", lambda n, x: s16(x) >> (n & 15)),
    "v_add_nc_u16": ("hh", lambda x, y: x + y),
    "v_sub_nc_u16": ("hh", lambda x, y: x - y),
    "v_add_nc_i16": ("hh", lambda x, y: x + y),
    "v_sub_nc_i16": ("hh", lambda x, y: x - y),
    "v_mul_lo_u16": ("hh", lambda x, y: x * y),
    "v_min_u16": ("hh", min),
    "v_max_u16": ("hh", max),
    "v_min_i16": ("hh", lambda x, y: min(s16(x), s16(y))),
    "v_max_i16": ("hh", lambda x, y: max(s16(x), s16(y))),
    "s_mul_i32": ("ww", lambda x, y: x * y),
    "s_mul_hi_u32": ("ww", lambda x, y: x * y >> 32),
    "s_mul_hi_i32": ("ww", lambda x, y: s32(x) * s32(y) >> 32),
    "s_bfm_b32": ("ww", lambda x, y: ((1 << (x & 31)) - 1) << (y & 31)),
    "s_bfm_b64": ("ww", lambda x, y: ((1 << (x & 63)) - 1) << (y & 63)),
    "s_pack_ll_b32_b16": ("ww", lambda x, y: x & M16 | (y & M16) << 16),
    "s_pack_lh_b32_b16": ("ww", lambda x, y: x & M16 | y >> 16 << 16),
    "s_pack_hh_b32_b16": ("ww", lambda x, y: x >> 16 | y >> 16 << 16),
    "s_pack_hl_b32_b16": ("ww", lambda x, y: x >> 16 | (y & M16) << 16),
    # "old" comes after the source.
    "s_bitset0_b32": ("ww", lambda n, old: old & ~(1 << (n & 31))),
    "s_bitset1_b32": ("ww", lambda n, old: old | 1 << (n & 31)),
    "s_bitset0_b64": ("wd", lambda n, old: old & ~(1 << (n & 63))),
    "s_bitset1_b64": ("wd", lambda n, old: old | 1 << (n & 63)),
    "s_mulk_i32": ("ww", lambda k, old: s32(old) * s16(k)),
}
TERNARY: dict[str, Case] = {
    "v_add3_u32": ("www", lambda x, y, z: x + y + z),
    "v_lshl_add_u32": ("www", lambda x, n, z: (x << (n & 31)) + z),
    "v_add_lshl_u32": ("www", lambda x, y, n: (x + y) << (n & 31)),
    "v_xad_u32": ("www", lambda x, y, z: (x ^ y) + z),
    "v_lshl_or_b32": ("www", lambda x, n, z: x << (n & 31) | z),
    "v_and_or_b32": ("www", lambda x, y, z: x & y | z),
    "v_or3_b32": ("www", lambda x, y, z: x | y | z),
    "v_xor3_b32": ("www", lambda x, y, z: x ^ y ^ z),
    "v_bfi_b32": ("www", lambda m, x, y: m & x | ~m & y),
    "v_bfe_u32": ("www", lambda x, o, w: bfe(x, o & 31, w & 31)),
    "v_bfe_i32": ("www", lambda x, o, w: bfe_signed(s32(x), o & 31, w & 31)),
    "v_alignbit_b32": ("www", lambda x, y, n: (x << 32 | y) >> (n & 31)),
    "v_alignbyte_b32": ("www", lambda x, y, n: (x << 32 | y) >> 8 * (n & 3)),
    "v_perm_b32": ("www", perm),
    "v_mad_u32_u24": ("www", lambda x, y, z: (x & 0xFFFFFF) * (y & 0xFFFFFF) + z),
    "v_mad_i32_i24": ("www", lambda x, y, z: s24(x) * s24(y) + z),
    "v_min3_u32": ("www", min),
    "v_max3_u32": ("www", max),
    "v_med3_u32": ("www", median),
    "v_maxmin_u32": ("www", lambda x, y, z: min(max(x, y), z)),
    "v_minmax_u32": ("www", lambda x, y, z: max(min(x, y), z)),
    "v_min3_i32": ("www", lambda x, y, z: min(s32(x), s32(y), s32(z))),
    "v_max3_i32": ("www", lambda x, y, z: max(s32(x), s32(y), s32(z))),
    "v_med3_i32": ("www", lambda x, y, z: median(s32(x), s32(y), s32(z))),
    "v_maxmin_i32": ("www", lambda x, y, z: min(max(s32(x), s32(y)), s32(z))),
    "v_minmax_i32": ("www", lambda x, y, z: max(min(s32(x), s32(y)), s32(z))),
    "v_mad_u16": ("hhh", lambda x, y, z: x * y + z),
    "v_mad_i16": ("hhh", lambda x, y, z: x * y + z),
    "v_min3_u16": ("hhh", min),
    "v_max3_u16": ("hhh", max),
    "v_med3_u16": ("hhh", median),
    "v_min3_i16": ("hhh", lambda x, y, z: min(s16(x), s16(y), s16(z))),
    "v_max3_i16": ("hhh", lambda x, y, z: max(s16(x), s16(y), s16(z))),
    "v_med3_i16": ("hhh", lambda x, y, z: median(s16(x), s16(y), s16(z))),
    "v_mad_u32_u16": ("hhw", lambda x, y, z: x * y + z),
    "v_mad_i32_i16": ("hhw", lambda x, y, z: s16(x) * s16(y) + z),
    "v_sad_u8": ("www", lambda x, y, z: sad(x, y) + z),
    "v_sad_hi_u8": ("www", lambda x, y, z: (sad(x, y) << 16) + z),
    "v_sad_u16": ("www", lambda x, y, z: abs((x & M16) - (y & M16)) + abs((x >> 16) - (y >> 16)) + z),
    "v_sad_u32": ("www", lambda x, y, z: abs(x - y) + z),
    "v_msad_u8": ("www", lambda x, y, z: msad(x, y) + z),
    "v_lerp_u8": (
        "www",
        lambda x, y, z: sum(
            (p + q + (r & 1) >> 1) << 8 * n
            for n, (p, q, r) in enumerate(zip(octets(x), octets(y), octets(z), strict=True))
        ),
    ),
    "v_qsad_pk_u16_u8": (
        "dwd",
        lambda x, y, z: sum((sad(x >> 8 * n & M32, y) + (z >> 16 * n & M16) & M16) << 16 * n for n in range(4)),
    ),
    "v_mqsad_pk_u16_u8": (
        "dwd",
        lambda x, y, z: sum((msad(x >> 8 * n & M32, y) + (z >> 16 * n & M16) & M16) << 16 * n for n in range(4)),
    ),
    "v_dot4_u32_u8": ("www", lambda x, y, z: sum(p * q for p, q in zip(octets(x), octets(y), strict=True)) + z),
    "v_dot8_u32_u4": ("www", lambda x, y, z: sum((x >> n & 15) * (y >> n & 15) for n in range(0, 32, 4)) + z),
}

# The clamp bit: the exact result, and the range that it is held in.
SATURATING: dict[str, tuple[str, Callable[..., int], int, int]] = {
    "v_add_nc_u32": ("ww", lambda x, y: x + y, 0, M32),
    "v_sub_nc_u32": ("ww", lambda x, y: x - y, 0, M32),
    "v_subrev_nc_u32": ("ww", lambda x, y: y - x, 0, M32),
    "v_mul_u32_u24": ("ww", lambda x, y: (x & 0xFFFFFF) * (y & 0xFFFFFF), 0, M32),
    "v_add_nc_i32": ("ww", lambda x, y: s32(x) + s32(y), -(2**31), 2**31 - 1),
    "v_sub_nc_i32": ("ww", lambda x, y: s32(x) - s32(y), -(2**31), 2**31 - 1),
    "v_mul_i32_i24": ("ww", lambda x, y: s24(x) * s24(y), -(2**31), 2**31 - 1),
    "v_mad_u32_u24": ("www", lambda x, y, z: (x & 0xFFFFFF) * (y & 0xFFFFFF) + z, 0, M32),
    "v_mad_i32_i24": ("www", lambda x, y, z: s24(x) * s24(y) + s32(z), -(2**31), 2**31 - 1),
    "v_add_nc_u16": ("hh", lambda x, y: x + y, 0, M16),
    "v_sub_nc_u16": ("hh", lambda x, y: x - y, 0, M16),
    "v_mul_lo_u16": ("hh", lambda x, y: x * y, 0, M16),
    "v_add_nc_i16": ("hh", lambda x, y: s16(x) + s16(y), -(2**15), 2**15 - 1),
    "v_sub_nc_i16": ("hh", lambda x, y: s16(x) - s16(y), -(2**15), 2**15 - 1),
    "v_mad_u16": ("hhh", lambda x, y, z: x * y + z, 0, M16),
    "v_mad_i16": ("hhh", lambda x, y, z: s16(x) * s16(y) + s16(z), -(2**15), 2**15 - 1),
    "v_mad_u32_u16": ("hhw", lambda x, y, z: x * y + z, 0, M32),
    "v_mad_i32_i16": ("hhw", lambda x, y, z: s16(x) * s16(y) + s32(z), -(2**31), 2**31 - 1),
    "v_sad_u8": ("www", lambda x, y, z: sad(x, y) + z, 0, M32),
    "v_sad_hi_u8": ("www", lambda x, y, z: (sad(x, y) << 16) + z, 0, M32),
    "v_sad_u32": ("www", lambda x, y, z: abs(x - y) + z, 0, M32),
    "v_msad_u8": ("www", lambda x, y, z: msad(x, y) + z, 0, M32),
    "v_dot4_u32_u8": ("www", TERNARY["v_dot4_u32_u8"][1], 0, M32),
}

# Instructions with an SCC or a carry result: (sources, result, flag).
FLAGGED: dict[str, tuple[str, Callable[..., int], Callable[..., bool]]] = {
    "s_add_u32": ("ww", lambda x, y: x + y, lambda x, y: x + y > M32),
    "s_sub_u32": ("ww", lambda x, y: x - y, lambda x, y: y > x),
    "s_add_i32": ("ww", lambda x, y: x + y, lambda x, y: s32(x) + s32(y) != s32(x + y)),
    "s_sub_i32": ("ww", lambda x, y: x - y, lambda x, y: s32(x) - s32(y) != s32(x - y)),
    "s_lshl1_add_u32": ("ww", lambda x, y: 2 * x + y, lambda x, y: 2 * x + y > M32),
    "s_lshl4_add_u32": ("ww", lambda x, y: 16 * x + y, lambda x, y: 16 * x + y > M32),
    "s_min_i32": ("ww", lambda x, y: min(s32(x), s32(y)), lambda x, y: s32(x) < s32(y)),
    "s_max_i32": ("ww", lambda x, y: max(s32(x), s32(y)), lambda x, y: s32(x) >= s32(y)),
    "s_min_u32": ("ww", min, lambda x, y: x < y),
    "s_max_u32": ("ww", max, lambda x, y: x >= y),
    "s_addk_i32": ("ww", lambda k, old: old + s16(k), lambda k, old: s32(old) + s16(k) != s32(old + s16(k))),
    "v_add_co_u32": ("ww", lambda x, y: x + y, lambda x, y: x + y > M32),
    "v_sub_co_u32": ("ww", lambda x, y: x - y, lambda x, y: y > x),
    "v_subrev_co_u32": ("ww", lambda x, y: y - x, lambda x, y: x > y),
    "v_mad_u64_u32": ("wwd", lambda x, y, z: x * y + z, lambda x, y, z: x * y + z > M64),
    "v_mad_i64_i32": (
        "wwd",
        lambda x, y, z: s32(x) * s32(y) + s64(z),
        lambda x, y, z: (s32(x) * s32(y) + s64(z)) >> 64 & 1 == 1,
    ),
}
# The same where SCC says that the result is not zero.
NOT_ZERO: dict[str, Case] = {
    "s_abs_i32": ("w", lambda x: abs(s32(x))),
    "s_absdiff_i32": ("ww", lambda x, y: abs(s32(s32(x) - s32(y)))),
    "s_not_b32": ("w", lambda x: ~x & M32),
    "s_not_b64": ("d", lambda x: ~x & M64),
    "s_bcnt0_i32_b32": ("w", lambda x: 32 - x.bit_count()),
    "s_bcnt1_i32_b32": ("w", lambda x: x.bit_count()),
    "s_bcnt0_i32_b64": ("d", lambda x: 64 - x.bit_count()),
    "s_bcnt1_i32_b64": ("d", lambda x: x.bit_count()),
    "s_quadmask_b32": ("w", lambda x: sum(1 << n for n in range(8) if x >> 4 * n & 15)),
    "s_quadmask_b64": ("d", lambda x: sum(1 << n for n in range(16) if x >> 4 * n & 15)),
    "s_wqm_b32": ("w", lambda x: sum(15 << 4 * n for n in range(8) if x >> 4 * n & 15)),
    "s_wqm_b64": ("d", lambda x: sum(15 << 4 * n for n in range(16) if x >> 4 * n & 15)),
    "s_lshl_b32": ("ww", lambda x, n: x << (n & 31) & M32),
    "s_lshl_b64": ("dw", lambda x, n: x << (n & 63) & M64),
    "s_lshr_b32": ("ww", lambda x, n: x >> (n & 31)),
    "s_lshr_b64": ("dw", lambda x, n: x >> (n & 63)),
    "s_ashr_i32": ("ww", lambda x, n: s32(x) >> (n & 31)),
    "s_ashr_i64": ("dw", lambda x, n: s64(x) >> (n & 63)),
    "s_bfe_u32": ("ww", lambda x, y: bfe(x, y & 31, y >> 16 & 127)),
    "s_bfe_i32": ("ww", lambda x, y: bfe_signed(s32(x), y & 31, min(y >> 16 & 127, 32))),
    "s_bfe_u64": ("dw", lambda x, y: bfe(x, y & 63, y >> 16 & 127)),
    "s_bfe_i64": ("dw", lambda x, y: bfe_signed(s64(x), y & 63, min(y >> 16 & 127, 64))),
    **{
        f"s_{name}_b{width}": (letter * 2, lambda x, y, f=function, m=mask: f(x, y) & m)
        for width, letter, mask in ((32, "w", M32), (64, "d", M64))
        for name, function in {
            "and": lambda x, y: x & y,
            "or": lambda x, y: x | y,
            "xor": lambda x, y: x ^ y,
            "nand": lambda x, y: ~(x & y),
            "nor": lambda x, y: ~(x | y),
            "xnor": lambda x, y: ~(x ^ y),
            "and_not1": lambda x, y: x & ~y,
            "or_not1": lambda x, y: x | ~y,
        }.items()
    },
}


def word(letter: str) -> st.SearchStrategy[int]:
    width = WIDTH[letter]
    top = 1 << width
    edges = [0, 1, 2, top - 1, top - 2, top >> 1, (top >> 1) - 1, (top >> 1) + 1, 0x7F, 0x80, 0xFF, 0x100 % top]
    small = st.integers(0, 70)  # shift counts and small fields
    field = st.builds(lambda o, w: (o | w << 16) % top, st.integers(0, 63), st.integers(0, 66))
    return st.one_of(st.integers(0, top - 1), st.sampled_from(edges), small, field)


def draw_rows(data: st.DataObject, letters: str) -> list[tuple[int, ...]]:
    return data.draw(st.lists(st.tuples(*map(word, letters)), min_size=1, max_size=24))


def values(rows: list[tuple[int, ...]], letters: str) -> list[np.ndarray]:
    columns = zip(*rows, strict=True)
    return [np.array([column], f"u{WIDTH[letter] // 8}") for column, letter in zip(columns, letters, strict=True)]


def as_unsigned(result: np.ndarray) -> list[int]:
    return [int(v) for v in result.view(f"u{result.dtype.itemsize}").ravel()]


def modulo(result: np.ndarray, number: int) -> int:
    return number & ((1 << 8 * result.dtype.itemsize) - 1)


def evaluate(mnemonic: str, sources: list[np.ndarray], *, saturating: bool = False) -> object:
    definition = semantics.lookup(mnemonic)
    assert definition is not None
    function = definition.saturating if saturating else definition.evaluate
    extra = [{}] if "fields" in definition.reads else []
    with quiet():
        return function(ALGEBRA, *sources, *extra)


ALL = {**UNARY, **BINARY, **TERNARY}


@pytest.mark.parametrize("mnemonic", ALL)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_result_is_that_of_python_integers(mnemonic: str, data: st.DataObject) -> None:
    letters, reference = ALL[mnemonic]
    rows = draw_rows(data, letters)
    result = evaluate(mnemonic, values(rows, letters))
    assert as_unsigned(result) == [modulo(result, reference(*row)) for row in rows]


@pytest.mark.parametrize("mnemonic", SATURATING)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_clamp_bit_saturates_the_exact_result(mnemonic: str, data: st.DataObject) -> None:
    letters, reference, low, high = SATURATING[mnemonic]
    rows = draw_rows(data, letters)
    result = evaluate(mnemonic, values(rows, letters), saturating=True)
    assert as_unsigned(result) == [modulo(result, clamp(reference(*row), low, high)) for row in rows]


@pytest.mark.parametrize("mnemonic", {**FLAGGED, **NOT_ZERO})
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_result_and_flag_are_those_of_python_integers(mnemonic: str, data: st.DataObject) -> None:
    if mnemonic in FLAGGED:
        letters, reference, flag = FLAGGED[mnemonic]
    else:
        letters, reference = NOT_ZERO[mnemonic]

        def flag(*row: int) -> bool:
            return reference(*row) != 0

    rows = draw_rows(data, letters)
    result, truth = evaluate(mnemonic, values(rows, letters))
    assert as_unsigned(result) == [modulo(result, reference(*row)) for row in rows]
    assert truth.ravel().tolist() == [flag(*row) for row in rows]


@pytest.mark.parametrize("prefix", ["v_add_co_ci", "v_sub_co_ci", "v_subrev_co_ci", "s_addc", "s_subb"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_carry_chains_agree_with_wide_sums(prefix: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(word("w"), word("w"), st.booleans()), min_size=1, max_size=24))
    x, y = values([row[:2] for row in rows], "ww")
    carry = np.array([[row[2] for row in rows]])
    total, out = evaluate(f"{prefix}_u32", [x, y, carry])
    exact = []
    for p, q, c in rows:
        p, q = (q, p) if "rev" in prefix else (p, q)
        exact.append(p + q + c if "add" in prefix else p - q - c)
    assert as_unsigned(total) == [e & M32 for e in exact]
    assert out.ravel().tolist() == [not 0 <= e <= M32 for e in exact]


EXEC_RESULT = {
    "and": lambda x, e: x & e,
    "or": lambda x, e: x | e,
    "xor": lambda x, e: x ^ e,
    "nand": lambda x, e: ~(x & e),
    "nor": lambda x, e: ~(x | e),
    "xnor": lambda x, e: ~(x ^ e),
    "and_not0": lambda x, e: ~x & e,
    "or_not0": lambda x, e: ~x | e,
    "and_not1": lambda x, e: x & ~e,
    "or_not1": lambda x, e: x | ~e,
}


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("name", EXEC_RESULT)
def test_saveexec_returns_the_old_mask_and_wrexec_the_new_one(name: str, width: int) -> None:
    mask = (1 << width) - 1
    source, old = 0x0123456789ABCDEF & mask, 0xFF00FF0000FF00FF & mask
    operands = [np.array([[v]], f"u{width // 8}") for v in (source, old)]
    new = EXEC_RESULT[name](source, old) & mask
    saved, written, scc = evaluate(f"s_{name}_saveexec_b{width}", operands)
    assert (saved.item(), written.item(), scc.item()) == (old, new, new != 0)
    if name in ("and_not0", "and_not1"):
        result, written, scc = evaluate(f"s_{name}_wrexec_b{width}", operands)
        assert (result.item(), written.item(), scc.item()) == (new, new, new != 0)


def test_scc_is_false_when_exec_becomes_empty() -> None:
    _, written, scc = evaluate("s_and_saveexec_b32", [np.array([[1]], np.uint32), np.array([[2]], np.uint32)])
    assert (written.item(), scc.item()) == (0, False)


@pytest.mark.parametrize("scc", [False, True])
def test_conditional_moves_and_selects_look_at_scc(scc: bool) -> None:
    one, two, flag = np.array([[1]], np.uint32), np.array([[2]], np.uint32), np.array([[scc]])
    assert evaluate("s_cselect_b32", [one, two, flag]).item() == (1 if scc else 2)
    assert evaluate("s_cmov_b32", [one, two, flag]).item() == (1 if scc else 2)
    assert evaluate("s_cmovk_i32", [np.array([[0xFFFF]], np.int32), two, flag]).item() == (-1 if scc else 2)
    wide = [v.astype(np.uint64) << np.uint64(40) for v in (one, two)]
    assert evaluate("s_cselect_b64", [*wide, flag]).item() == (1 if scc else 2) << 40


def test_vector_select_takes_the_second_source_where_the_mask_is_set() -> None:
    mask = np.array([[True, False]])
    x, y = np.array([[1, 2]], np.uint32), np.array([[3, 4]], np.uint32)
    assert evaluate("v_cndmask_b32", [x, y, mask]).tolist() == [[3, 2]]
    assert evaluate("v_cndmask_b16", [x.astype(np.uint16), y.astype(np.uint16), mask]).tolist() == [[3, 2]]


@pytest.mark.parametrize("mnemonic", ["v_swap_b32", "v_swap_b16"])
def test_swap_returns_each_source_for_the_other_register(mnemonic: str) -> None:
    dtype = np.uint32 if mnemonic.endswith("32") else np.uint16
    first, second = evaluate(mnemonic, [np.array([[7]], dtype), np.array([[9]], dtype)])
    assert (first.item(), second.item()) == (7, 9)
    assert semantics.lookup(mnemonic).writes == ("dst", "dst1")


@pytest.mark.parametrize("lanes", [32, 64])
def test_mbcnt_counts_the_mask_bits_of_lower_lanes(lanes: int) -> None:
    lane = np.arange(lanes, dtype=np.uint32)[None]
    mask = 0x8421_F00D_DEAD_BEEF
    low, high = np.array([[mask & M32]], np.uint32), np.array([[mask >> 32]], np.uint32)
    base = np.array([[100]], np.uint32)
    below = evaluate("v_mbcnt_lo_u32_b32", [low, base, lane])
    total = evaluate("v_mbcnt_hi_u32_b32", [high, below, lane])
    assert total.ravel().tolist() == [100 + (mask & ((1 << n) - 1)).bit_count() for n in range(lanes)]


@settings(max_examples=10, deadline=None)
@given(x=word("d"), y=word("w"), z=st.tuples(*[word("w")] * 4), saturating=st.booleans())
def test_mqsad_adds_four_masked_sums_to_four_registers(x: int, y: int, z: tuple[int, ...], saturating: bool) -> None:
    accumulators = np.array(z, np.uint32).reshape(4, 1, 1)
    operands = [np.array([[x]], np.uint64), np.array([[y]], np.uint32), accumulators]
    result = evaluate("v_mqsad_u32_u8", operands, saturating=saturating)
    exact = [msad(x >> 8 * n & M32, y) + z[n] for n in range(4)]
    assert as_unsigned(result) == [min(e, M32) if saturating else e & M32 for e in exact]
    assert result.shape == (4, 1, 1)
