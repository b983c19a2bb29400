"""Library functions of the approximated instructions: "exp2_f32.w32", "rsq_f16.w64", …

As in ``numpy_algebra``, a result is computed in double precision and rounded once. The polynomials have the least
maximum relative error on their interval (Remez exchange in 60 digits); the bound stands beside each. In f32, exp2,
log2, rcp, rsq and sqrt flush denormals in and out, whatever the mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amdrv.emulator.isa.algebra import Rounding
from amdrv.emulator.isa.native.algebra import scaled_sum
from amdrv.emulator.isa.native.builder import WIDTHS, Val
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.primitives import (
    UNSIGNED,
    arithmetic,
    cast,
    choose,
    compare,
    constant,
    convert,
    float_bits,
    fused,
    library_function,
    number,
)
from amdrv.emulator.isa.native.rounding import default_nan, flush, nearest, sum_to_odd, widen

# 2**f = 1 + f * polynomial(f) for |f| <= 1/2, within 2**-50.6.
_EXP2 = (
    0.6931471805599484,
    0.24022650695910197,
    0.05550410866452648,
    0.009618129107548043,
    0.0013333558219240898,
    0.00015403530534077153,
    1.5252662923616511e-05,
    1.3215389474184714e-06,
    1.0207704771705875e-07,
    7.082688483906871e-09,
)
# log2(m) = s * polynomial(s**2), s = (m - 1) / (m + 1), for m in [sqrt(1/2), sqrt(2)], within 2**-52.4.
_LOG2 = (
    2.885390081777927,
    0.9617966939243245,
    0.5770780172503304,
    0.4121984014650709,
    0.3206164264698366,
    0.26144308881696565,
    0.2429292543488261,
)
# sin(2 pi r) = r * polynomial(r**2) for |r| <= 1/8, within 2**-58.1.
_SIN = (
    6.283185307179586,
    -41.341702240399634,
    81.60524927594452,
    -76.70585970331575,
    42.05868490209463,
    -15.093797505418122,
    3.780726131043218,
)
# cos(2 pi r) = polynomial(r**2) for |r| <= 1/8, within 2**-54.
_COS = (
    0.9999999999999999,
    -19.739208802178382,
    64.9393940223368,
    -85.45681708260918,
    60.2446191381842,
    -26.424203417311656,
    7.809152310412036,
)
_SQRT_HALF = 0x3F3504F3  # bits of the f32 next to sqrt(1/2)
_ROUNDING_32, _ROUNDING_64 = 1.5 * 2.0**23, 1.5 * 2.0**52  # added, they leave the nearest integer in the lowest bits
_SMALLEST_NORMAL = 2.0**-126


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    small: dict[str, Callable[[Val], Val]] = {"rcp": _rcp, "rsq": _rsq, "sqrt": _sqrt}
    large: dict[str, Callable[[Val], Val]] = {
        "exp2": _exp2,
        "log2": _log2,
        "sin": lambda x: _circular(x, 0),
        "cos": lambda x: _circular(x, 1),
    }
    result = [
        library_function(f"{name}_{kind}", lanes, (kind,), body, inline=True)
        for name, body in small.items()
        for kind in ("f16", "f32", "f64")
    ]
    result += [
        library_function(f"{name}_{kind}", lanes, (kind,), body)
        for name, body in large.items()
        for kind in ("f16", "f32")
    ]
    result += [
        library_function(f"scaled_fma_{kind}", lanes, (kind, kind, kind, "i32"), _scaled_fma)
        for kind in ("f16", "f32", "f64")
    ]
    result.append(library_function("fma_f16", lanes, ("f16",) * 3, _fma_half, inline=True))
    return result


def _fma_half(x: Val, y: Val, z: Val) -> Val:
    """A product of halves is exact in f32; its sum with the addend is rounded to odd there, and then once more."""
    product = arithmetic("fmul", widen(x, "f32"), widen(y, "f32"))
    return nearest(sum_to_odd(product, widen(z, "f32")), "f16")


def _scaled_fma(x: Val, y: Val, z: Val, exponent: Val) -> Val:
    return scaled_sum(Rounding.NEAREST_EVEN, x, y, z, exponent)


def _flushed(x: Val) -> Val:
    return flush(x) if x.kind == "f32" else x


def _one(x: Val) -> Val:
    return number(x.builder, x.kind, 1.0)


def _rcp(x: Val) -> Val:
    """A quotient rounded in f32 and again in f16 is the one that is rounded once: 24 bits are more than 2 * 11."""
    wide = widen(_flushed(x), "f64" if x.kind == "f64" else "f32")
    return _flushed(nearest(arithmetic("fdiv", _one(wide), wide), x.kind))


def _sqrt(x: Val) -> Val:
    wide = widen(_flushed(x), "f64" if x.kind == "f64" else "f32")
    return nearest(wide.builder.intrinsic("sqrt", wide.kind, wide), x.kind)


def _rsq(x: Val) -> Val:
    wide = widen(_flushed(x), "f64")
    return nearest(arithmetic("fdiv", _one(wide), wide.builder.intrinsic("sqrt", "f64", wide)), x.kind)


def _polynomial(x: Val, coefficients: Sequence[float]) -> Val:
    terms = [number(x.builder, "f64", coefficient) for coefficient in coefficients]
    result = x.builder.spread(terms[-1])
    for term in reversed(terms[:-1]):
        result = fused(result, x, term)
    return result


def _exp2(x: Val) -> Val:
    """An argument is held where the result is certainly zero or infinite; a NaN goes through all steps."""
    builder = x.builder
    single = widen(x, "f32")
    for relation, limit in (("fcmp ogt", -300.0), ("fcmp olt", 300.0)):
        edge = number(builder, "f32", limit)
        single = choose(compare(relation, edge, single), edge, single)
    wide = widen(single, "f64")
    shifted = arithmetic("fadd", wide, number(builder, "f64", _ROUNDING_64))
    whole = arithmetic("fsub", shifted, number(builder, "f64", _ROUNDING_64))
    rest = arithmetic("fsub", wide, whole)
    power = fused(rest, _polynomial(rest, _EXP2), _one(rest))
    result = nearest(cast(cast(power, "u64") + (cast(shifted, "u64") << 52), "f64"), x.kind)
    if x.kind == "f16":
        return result
    denormal = compare("fcmp olt", result, number(builder, "f32", _SMALLEST_NORMAL))
    return choose(denormal, constant(result, "f32", 0), result)


def _log2(x: Val) -> Val:
    """log2 of the mantissa, taken in [sqrt(1/2), sqrt(2)], and the exponent added."""
    builder = x.builder
    single = widen(x, "f32")
    bits = cast(single, "i32")
    exponent = bits - _SQRT_HALF >> 23
    mantissa = widen(cast(bits - (exponent << 23), "f32"), "f64")
    one = _one(mantissa)
    s = arithmetic("fdiv", arithmetic("fsub", mantissa, one), arithmetic("fadd", mantissa, one))
    series = _polynomial(arithmetic("fmul", s, s), _LOG2)
    result = nearest(fused(s, series, convert("sitofp", exponent, "f64")), x.kind)
    result = choose(compare("fcmp oeq", single, constant(single, "f32", float_bits("f32")[1])), x, result)
    # A denormal half is a normal float here; a denormal float counts as zero.
    least = number(builder, "f32", _SMALLEST_NORMAL)
    zero = compare("fcmp olt", single, least)
    sign, infinite, _ = float_bits(x.kind)
    result = choose(zero, constant(x, x.kind, sign | infinite), result)
    invalid = compare("fcmp ole", single, number(builder, "f32", -_SMALLEST_NORMAL))
    return _unless_nan(x, choose(invalid, default_nan(result), result))


def _circular(x: Val, quadrants: int) -> Val:
    """sin(2 pi (x + quadrants / 4)): x reduced to an eighth of a turn around a quarter; that is exact.

    Whole and half turns give +0, except that sin(-0) is -0 (RDNA3 ISA manual, examples of V_SIN_F32).
    """
    builder = x.builder
    single = widen(x, "f32")
    turn = arithmetic("fsub", single, builder.intrinsic("roundeven", "f32", single))
    magic = number(builder, "f32", _ROUNDING_32)
    shifted = arithmetic("fadd", arithmetic("fmul", turn, number(builder, "f32", 4.0)), magic)
    quarter = arithmetic("fsub", shifted, magic)
    rest = widen(arithmetic("fsub", turn, arithmetic("fmul", quarter, number(builder, "f32", 0.25))), "f64")
    square = arithmetic("fmul", rest, rest)
    sine, cosine = arithmetic("fmul", rest, _polynomial(square, _SIN)), _polynomial(square, _COS)
    phase = cast(shifted, "u32") + quadrants
    odd = compare("icmp ne", phase & 1, constant(phase, "u32", 0))
    bits = cast(nearest(choose(odd, cosine, sine), x.kind), UNSIGNED[WIDTHS[x.kind]])
    sign = cast(phase & 2, bits.kind) << (WIDTHS[x.kind] - 2)
    result = arithmetic("fadd", cast(bits ^ sign, x.kind), constant(x, x.kind, 0))
    if quadrants:
        return _unless_nan(x, result)
    return _unless_nan(x, choose(compare("fcmp oeq", single, constant(single, "f32", 0)), x, result))


def _unless_nan(x: Val, result: Val) -> Val:
    """``result``, but a NaN stays what it is, made quiet."""
    return choose(compare("fcmp uno", x, x), arithmetic("fadd", x, x), result)
