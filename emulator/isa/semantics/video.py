"""Byte and word arithmetic for video: sums of absolute differences and averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import field
from amdrv.emulator.isa.semantics.definition import Definition, Evaluate, Ternary, family
from amdrv.emulator.isa.semantics.vector_integer import clamp_u32

Sum: TypeAlias = Callable[[Ops, Value, Value], Value]


def absolute_difference(a: Ops, x: Value, y: Value) -> Value:
    """|x - y| of unsigned values."""
    return a.max(x, y) - a.min(x, y)


def _sum_bytes(a: Ops, x: Value, y: Value) -> Value:
    differences = [absolute_difference(a, field(x, n + 7, n), field(y, n + 7, n)) for n in (0, 8, 16, 24)]
    return differences[0] + differences[1] + differences[2] + differences[3]


def _masked_sum_bytes(a: Ops, x: Value, y: Value) -> Value:
    """As ``_sum_bytes``, leaving out the bytes where the reference y is zero."""
    total = a.constant("u32", 0)
    for low in (0, 8, 16, 24):
        reference = field(y, low + 7, low)
        difference = absolute_difference(a, field(x, low + 7, low), reference)
        total = total + a.select(a.eq(reference, 0), 0, difference)
    return total


def _sum_words(a: Ops, x: Value, y: Value) -> Value:
    low = absolute_difference(a, field(x, 15, 0), field(y, 15, 0))
    return low + absolute_difference(a, field(x, 31, 16), field(y, 31, 16))


def _accumulate(difference: Sum, shift: int = 0) -> Ternary:
    return lambda a, x, y, z: (difference(a, x, y) << shift) + z


def _accumulate_saturating(difference: Sum, shift: int = 0) -> Ternary:
    return lambda a, x, y, z: clamp_u32(a, (a.u64(difference(a, x, y)) << shift) + a.u64(z))


SUMS: dict[str, tuple[Sum, int]] = {
    "v_sad_u8": (_sum_bytes, 0),
    "v_sad_hi_u8": (_sum_bytes, 16),
    "v_sad_u16": (_sum_words, 0),
    "v_sad_u32": (absolute_difference, 0),
    "v_msad_u8": (_masked_sum_bytes, 0),
}


def _windows(a: Ops, x: Value) -> list[Value]:
    """The four overlapping 32-bit windows of a 64-bit value, one byte apart."""
    return [a.u32(a.u64(x) >> 8 * n) for n in range(4)]


def _quad_sums(difference: Sum, limit: bool) -> Ternary:
    """Four sums added to four u16 accumulators; with ``limit`` they saturate, else they wrap."""

    def evaluate(a: Ops, x: Value, y: Value, z: Value) -> Value:
        result = a.constant("u64", 0)
        for n, window in enumerate(_windows(a, x)):
            total = difference(a, window, a.u32(y)) + a.u32(field(a.u64(z), 16 * n + 15, 16 * n))
            total = a.min(total, 0xFFFF) if limit else total & 0xFFFF
            result = result | a.u64(total) << 16 * n
        return result

    return evaluate


def _quad_sums_u32(limit: bool) -> Ternary:
    """V_MQSAD_U32_U8: the four sums added to the four registers of the third source."""

    def evaluate(a: Ops, x: Value, y: Value, z: Value) -> Value:
        results = []
        for window, accumulator in zip(_windows(a, x), a.registers(z), strict=True):
            total = _masked_sum_bytes(a, window, a.u32(y))
            wide = a.u64(total) + a.u64(accumulator)
            results.append(clamp_u32(a, wide) if limit else a.u32(wide))
        return a.stack(results)

    return evaluate


def _average_bytes(a: Ops, x: Value, y: Value, rounding: Value) -> Value:
    """V_LERP_U8: per byte (x + y + lowest bit of the third source) >> 1."""
    result = a.constant("u32", 0)
    for low in (0, 8, 16, 24):
        total = field(x, low + 7, low) + field(y, low + 7, low) + field(rounding, low, low)
        result = result | (total >> 1) << low
    return result


SAD: dict[str, Evaluate] = {mnemonic: _accumulate(*how) for mnemonic, how in SUMS.items()}
SAD_SATURATING: dict[str, Evaluate] = {mnemonic: _accumulate_saturating(*how) for mnemonic, how in SUMS.items()}
QUADS: dict[str, Evaluate] = {
    "v_qsad_pk_u16_u8": _quad_sums(_sum_bytes, False),
    "v_mqsad_pk_u16_u8": _quad_sums(_masked_sum_bytes, False),
    "v_mqsad_u32_u8": _quad_sums_u32(False),
}
QUADS_SATURATING: dict[str, Evaluate] = {
    "v_qsad_pk_u16_u8": _quad_sums(_sum_bytes, True),
    "v_mqsad_pk_u16_u8": _quad_sums(_masked_sum_bytes, True),
    "v_mqsad_u32_u8": _quad_sums_u32(True),
}

DEFINITIONS: list[Definition] = [
    *family(SAD, "u32", "u32", "u32", saturating=SAD_SATURATING),
    *family(QUADS, saturating=QUADS_SATURATING),
    *family({"v_lerp_u8": _average_bytes}, "u32", "u32", "u32"),
]
