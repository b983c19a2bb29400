"""Words for bits that the families share: fields, halves, signs, parts of a float."""

from __future__ import annotations

from amdrv.emulator.isa.algebra import Ops, Value

# Biased exponent of infinity, number of mantissa bits, same-sized unsigned kind.
FLOAT_LAYOUT = {"f16": (0x1F, 10, "u16"), "f32": (0xFF, 23, "u32"), "f64": (0x7FF, 52, "u64")}


def field(x: Value, high: int, low: int) -> Value:
    """Bits ``high`` to ``low`` of an unsigned value: S0.u32[high : low]."""
    return x >> low & (1 << (high - low + 1)) - 1


def not_zero(a: Ops, x: Value) -> Value:
    return ~a.eq(x, 0)


def halves(a: Ops, x: Value, kind: str) -> tuple[Value, Value]:
    """The lower and the upper half of a 32-bit value."""
    bits = a.u32(x)
    return a.cast(bits, kind), a.cast(bits >> 16, kind)


def pair(a: Ops, low: Value, high: Value) -> Value:
    """Two 16-bit values as one u32: { high, low }."""
    return a.u32(a.u16(high)) << 16 | a.u32(a.u16(low))


def saturate(a: Ops, x: Value, low: int, high: int) -> Value:
    """An integer held between two constants of its own kind."""
    return a.min(a.max(x, low), high)


def magnitude(a: Ops, x: Value) -> Value:
    """Absolute value of an integer; the most negative one is its own."""
    return a.select(a.lt(x, 0), 0 - x, x)


def sign(a: Ops, x: Value, kind: str) -> Value:
    """Whether a float's sign bit is set."""
    infinite, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    return a.le(a.constant(unsigned, (infinite + 1) << mantissa_bits), a.cast(x, unsigned))


def exponent(a: Ops, x: Value, kind: str) -> Value:
    """A float's biased exponent, as i32."""
    infinite, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    return a.i32(a.cast(x, unsigned) >> mantissa_bits & infinite)


def absolute(a: Ops, x: Value, kind: str) -> Value:
    """A float without its sign, whatever it is."""
    infinite, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    return a.cast(a.cast(x, unsigned) & (((infinite + 1) << mantissa_bits) - 1), kind)


def negate(a: Ops, x: Value, kind: str) -> Value:
    """A float with its sign bit flipped, whatever it is."""
    infinite, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    return a.cast(a.cast(x, unsigned) ^ ((infinite + 1) << mantissa_bits), kind)


def copy_sign(a: Ops, negative: Value, x: Value, kind: str) -> Value:
    """``negative ? -abs(x) : abs(x)``."""
    positive = absolute(a, x, kind)
    return a.select(negative, negate(a, positive, kind), positive)


def is_nan(a: Ops, x: Value, kind: str) -> Value:
    infinite, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    return a.lt(a.constant(unsigned, infinite << mantissa_bits), a.cast(absolute(a, x, kind), unsigned))


def is_signalling(a: Ops, x: Value, kind: str) -> Value:
    _, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    return is_nan(a, x, kind) & a.eq(a.cast(x, unsigned) >> (mantissa_bits - 1) & 1, 0)


def quiet_nan(a: Ops, x: Value, kind: str) -> Value:
    """cvtToQuietNAN: a NaN with its quiet bit set."""
    _, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    return a.cast(a.cast(x, unsigned) | (1 << (mantissa_bits - 1)), kind)


def is_zero(a: Ops, x: Value, kind: str) -> Value:
    """Whether a float is +0 or -0 (a denormal is not, in any mode)."""
    return a.eq(a.cast(absolute(a, x, kind), FLOAT_LAYOUT[kind][2]), 0)


def is_infinite(a: Ops, x: Value, kind: str) -> Value:
    infinite, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    return a.eq(a.cast(absolute(a, x, kind), unsigned), infinite << mantissa_bits)


def flushed(a: Ops, x: Value, kind: str) -> Value:
    """A float with a denormal made a zero of its sign, whatever the mode."""
    infinite, mantissa_bits, unsigned = FLOAT_LAYOUT[kind]
    signed_zero = a.cast(a.cast(x, unsigned) & ((infinite + 1) << mantissa_bits), kind)
    return a.select(a.eq(exponent(a, x, kind), 0), signed_zero, x)


def operand(a: Ops, x: Value, kind: str) -> Value:
    """A float as an instruction that looks at its bits sees it: denormals flushed where the mode says so."""
    flushes = a.mode.flush_inputs32 if kind == "f32" else a.mode.flush_inputs64
    return flushed(a, x, kind) if flushes else x


def float_bits(a: Ops, kind: str, bits: int) -> Value:
    """The float of ``kind`` with this bit pattern."""
    return a.cast(a.constant(FLOAT_LAYOUT[kind][2], bits), kind)
