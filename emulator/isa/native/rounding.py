"""Rounding and flushing in IR: what ``emulator.isa.numpy_rounding`` does, with its method and its sources.

The host always rounds to nearest even and keeps denormals; the other modes are made from error-free transformations.
All functions take and return values of one shape.
"""

from __future__ import annotations

from amdrv.emulator.isa.algebra import Rounding
from amdrv.emulator.isa.native.builder import WIDTHS, Val
from amdrv.emulator.isa.native.primitives import (
    FORMATS,
    SIGNED,
    UNSIGNED,
    arithmetic,
    cast,
    choose,
    compare,
    constant,
    convert,
    float_bits,
    fused,
    magnitude,
    negated,
    number,
)

_FAR = 220  # as in numpy_rounding: beyond this distance of exponents one addend is only a sticky bit
_UNDERFLOWN = -1300
_ODD_HALF = (1 << 29) - 1  # bits of a double below those of a float


def flush(x: Val) -> Val:
    """Denormals to zeros of the same sign."""
    sign, exponent, _ = float_bits(x.kind)
    bits = cast(x, UNSIGNED[WIDTHS[x.kind]])
    denormal = compare("icmp eq", bits & exponent, constant(x, bits.kind, 0))
    return cast(choose(denormal, bits & sign, bits), x.kind)


def widen(x: Val, kind: str) -> Val:
    """A float in a wider kind, or the same."""
    return x if x.kind == kind else convert("fpext", x, kind)


def nearest(x: Val, kind: str) -> Val:
    """A float in a narrower kind, rounded to nearest even.

    From double to half it goes by a float whose last bit is sticky: the direct instruction would call a library.
    """
    if x.kind == kind:
        return x
    if x.kind == "f64" and kind == "f16":
        bits = cast(x, "u64")
        sticky = (bits | (bits & _ODD_HALF) + _ODD_HALF) & ~_ODD_HALF
        x = convert("fptrunc", cast(sticky, "f64"), "f32")
    return convert("fptrunc", x, kind)


def stepped(x: Val, up: Val | None, condition: Val) -> Val:
    """The neighbour of x where ``condition`` holds: away from zero where ``up`` (i…: 1 or -1) says so, or toward zero.

    ``up`` None always means toward zero.
    """
    kind = "i" + x.kind[1:]
    bits = cast(x, kind)
    if up is None:
        return cast(bits + _as_minus_one(condition, kind), x.kind)
    return cast(choose(condition, bits + up, bits), x.kind)


def _as_minus_one(condition: Val, kind: str) -> Val:
    text = condition.builder.emit(f"sext {condition.typed} to {condition.builder.type(kind, condition.vector)}")
    return condition.builder.value(kind, text, condition.vector)


def _sign_step(x: Val) -> Val:
    """1 for a float without sign, -1 for one with it, as the signed kind of its width."""
    kind = "i" + x.kind[1:]
    return cast(x, kind) >> (WIDTHS[kind] - 1) | 1


def direct(result: Val, error: Val, rounding: Rounding) -> Val:
    """Correct ``result``, rounded to nearest, whose exact value is ``result + error`` (or just the error's sign)."""
    if rounding is Rounding.NEAREST_EVEN:
        return result
    zero = constant(error, error.kind, 0)
    above, below = compare("fcmp ogt", error, zero), compare("fcmp olt", error, zero)
    if rounding is Rounding.UP:
        return stepped(result, _sign_step(result), above)
    if rounding is Rounding.DOWN:
        return stepped(result, 0 - _sign_step(result), below)
    nothing = constant(result, result.kind, 0)
    inward = above & compare("fcmp olt", result, nothing) | below & compare("fcmp ogt", result, nothing)
    return stepped(result, None, inward)


def narrow(x: Val, kind: str, rounding: Rounding) -> Val:
    """A float (exact, or rounded to odd) rounded once to a narrower kind."""
    result = nearest(x, kind)
    if rounding is Rounding.NEAREST_EVEN:
        return result
    back = widen(result, x.kind)
    if rounding is Rounding.ZERO:
        return stepped(result, None, compare("fcmp ogt", magnitude(back), magnitude(x)))
    if rounding is Rounding.UP:
        return stepped(result, _sign_step(result), compare("fcmp olt", back, x))
    return stepped(result, 0 - _sign_step(result), compare("fcmp ogt", back, x))


def two_sum(x: Val, y: Val) -> tuple[Val, Val]:
    """The rounded sum and its exact error (Knuth)."""
    total = arithmetic("fadd", x, y)
    part = arithmetic("fsub", total, x)
    rest = arithmetic("fsub", x, arithmetic("fsub", total, part))
    return total, arithmetic("fadd", rest, arithmetic("fsub", y, part))


def to_odd(total: Val, error: Val) -> Val:
    """``total + error`` rounded to odd: an inexact result is the one of two neighbours whose last bit is set."""
    kind = SIGNED[WIDTHS[total.kind]]
    bits = cast(total, kind)
    inward = (cast(error, kind) ^ bits) >> (WIDTHS[kind] - 1)  # -1 when the exact value is nearer to zero
    inexact = compare("fcmp one", error, constant(error, error.kind, 0))
    return cast(choose(inexact, bits + inward | 1, bits), total.kind)


def sum_to_odd(x: Val, y: Val) -> Val:
    """``x + y`` in their own precision, rounded to odd."""
    return to_odd(*two_sum(x, y))


def _differ(x: Val, y: Val) -> Val:
    """Whether the signs of two floats of one kind differ."""
    kind = "i" + x.kind[1:]
    mixed = cast(x, kind) ^ cast(y, kind)
    return compare("icmp slt", mixed, constant(mixed, kind, 0))


def signed_zero_sum(result: Val, total: Val, x: Val, y: Val, rounding: Rounding) -> Val:
    """An exact zero from opposite signs is -0 when rounding down (IEEE 754-2008, 6.3)."""
    if rounding is not Rounding.DOWN:
        return result
    zero = compare("fcmp oeq", total, constant(total, total.kind, 0)) & _differ(x, y)
    return choose(zero, constant(result, result.kind, float_bits(result.kind)[0]), result)


def is_finite(x: Val) -> Val:
    """Whether a float is neither infinite nor a NaN."""
    return compare("fcmp olt", magnitude(x), constant(x, x.kind, float_bits(x.kind)[1]))


def power_of_two(exponent: Val) -> Val:
    """2**exponent as a double; the exponent (i32) must be that of a normal number."""
    return cast(cast(exponent + 1023, "i64") << 52, "f64")


def clipped(x: Val, low: int, high: int) -> Val:
    """A signed integer held between two constants."""
    if x.bits is not None:
        width = WIDTHS[x.kind]
        value = x.bits - (1 << width) if x.bits >> (width - 1) else x.bits
        return constant(x, x.kind, min(max(value, low), high))
    builder = x.builder
    above = builder.intrinsic("smax", x.kind, x, builder.constant(x.kind, low))
    return builder.intrinsic("smin", x.kind, above, builder.constant(x.kind, high))


def scale64(x: Val, exponent: Val) -> Val:
    """``x * 2**exponent`` (i32) of a double, rounded once to nearest.

    Two steps of 2**1023 or 2**-969 come before the last one, so that only that one can round: a product that is to be
    denormal is still normal before it.
    """
    if exponent.bits is not None and -1022 <= _constant_exponent(exponent) <= 1023:
        return arithmetic("fmul", x, power_of_two(exponent))
    exponent = clipped(exponent, -2200, 2200)
    for _ in range(2):
        high = compare("icmp sgt", exponent, constant(exponent, "i32", 1023))
        low = compare("icmp slt", exponent, constant(exponent, "i32", -1022))
        factor = choose(low, number(x.builder, "f64", 2.0**-969), number(x.builder, "f64", 1.0))
        factor = choose(high, number(x.builder, "f64", 2.0**1023), factor)
        done = choose(low, constant(exponent, "i32", -969), constant(exponent, "i32", 0))
        exponent = exponent - choose(high, constant(exponent, "i32", 1023), done)
        x = arithmetic("fmul", x, factor)
    return arithmetic("fmul", x, power_of_two(clipped(exponent, -1022, 1023)))


def _constant_exponent(exponent: Val) -> int:
    bits = exponent.bits or 0
    return bits - (1 << 32) if bits >> 31 else bits


def parts(x: Val) -> tuple[Val, Val]:
    """Mantissa in [0.5, 1) and exponent (i32) of a finite double; zero has exponent 0."""
    tiny = compare("fcmp olt", magnitude(x), constant(x, "f64", 1 << 52))
    scaled = arithmetic("fmul", x, choose(tiny, number(x.builder, "f64", 2.0**54), number(x.builder, "f64", 1.0)))
    bits = cast(scaled, "u64")
    zero = compare("fcmp oeq", x, constant(x, "f64", 0))
    exponent = cast(bits >> 52 & 0x7FF, "i32") - 1022
    exponent = exponent - choose(tiny, constant(exponent, "i32", 54), constant(exponent, "i32", 0))
    mantissa = cast(bits & ~(0x7FF << 52) | 1022 << 52, "f64")
    return choose(zero, x, mantissa), choose(zero, constant(exponent, "i32", 0), exponent)


def _scale(high: Val, low: Val, exponent: Val, rounding: Rounding) -> Val:
    """``(high + low) * 2**exponent`` rounded once; ``low`` is at most half an ulp of ``high``, rounded to odd."""
    rounded, error = two_sum(high, low)
    result = scale64(direct(rounded, error, rounding), exponent)
    if rounding is not Rounding.NEAREST_EVEN:
        overflown = ~is_finite(result) & is_finite(high)
        result = choose(overflown, direct(result, negated(result), rounding), result)
    smallest = scale64(constant(high, "f64", 1023 << 52), -1022 - exponent)
    size, zero = magnitude(rounded), constant(high, "f64", 0)
    inward = ~(compare("fcmp olt", error, zero) ^ compare("fcmp ogt", rounded, zero))
    on_edge = compare("fcmp oeq", size, smallest) & compare("fcmp une", error, zero) & inward
    tiny = compare("fcmp olt", size, smallest) & compare("fcmp ogt", size, zero) | on_edge
    anchor = x_with_sign(smallest, rounded)
    total, rest = two_sum(anchor, high)
    total, error = two_sum(total, sum_to_odd(rest, low))
    denormal = scale64(arithmetic("fsub", direct(total, error, rounding), anchor), exponent)
    return choose(tiny, x_with_sign(denormal, rounded), result)


def x_with_sign(x: Val, y: Val) -> Val:
    """x with the sign of y."""
    return x.builder.intrinsic("copysign", x.kind, x, y)


def fma64(x: Val, y: Val, z: Val, power: Val, rounding: Rounding) -> Val:
    """``(x * y + z) * 2**power`` of doubles with one rounding, in every mode and range; ``power`` is at most 512."""
    (x_part, x_exponent), (y_part, y_exponent), (z_part, z_exponent) = parts(x), parts(y), parts(z)
    zero = constant(x, "f64", 0)
    product = arithmetic("fmul", x_part, y_part)
    product_error = fused(x_part, y_part, negated(product))
    no_product, no_addend = compare("fcmp oeq", product, zero), compare("fcmp oeq", z, zero)
    product_exponent = choose(no_product, z_exponent, x_exponent + y_exponent)
    addend = scale64(z_part, clipped(z_exponent - product_exponent, -_FAR, _FAR))
    builder = x.builder
    exponent = builder.intrinsic("smax", "i32", product_exponent, z_exponent - _FAR)
    exponent = choose(no_addend, product_exponent, exponent) + power
    middle, middle_error = two_sum(addend, product_error)
    high, high_error = two_sum(product, middle)
    low = sum_to_odd(middle_error, high_error)
    exponent = builder.intrinsic("smax", "i32", exponent, constant(exponent, "i32", _UNDERFLOWN))
    scaled = _scale(high, low, exponent, rounding)
    # Right where nothing is rounded: infinities, NaNs, a product and an addend of zero. A finite product may overflow.
    finite_product, finite_addend = is_finite(x) & is_finite(y), is_finite(z)
    simple = choose(finite_product & ~finite_addend, zero, arithmetic("fmul", x, y))
    simple = arithmetic("fadd", simple, z)
    exact = ~(finite_product & finite_addend) | no_product & no_addend
    result = choose(exact, simple, scaled)
    opposite = _differ(x, y) ^ compare("icmp slt", cast(z, "i64"), constant(z, "i64", 0))
    cancelled = compare("fcmp oeq", high, zero) & compare("fcmp oeq", low, zero) & ~exact & opposite
    result = choose(cancelled, zero, result)
    if rounding is Rounding.DOWN:
        none = exact & compare("fcmp oeq", result, zero) & opposite
        result = choose(cancelled | none, constant(x, "f64", 1 << 63), result)
    return result


def is_nan(x: Val) -> Val:
    """Whether a float is a NaN."""
    return compare("fcmp uno", x, x)


def default_nan(x: Val) -> Val:
    """The NaN of an invalid operation: quiet, with the sign set (RDNA3 ISA manual, examples of V_LOG_F32)."""
    mantissa, infinite = FORMATS[x.kind]
    return constant(x, x.kind, ((infinite | infinite + 1) << mantissa) | 1 << mantissa - 1)
