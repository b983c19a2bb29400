"""What no processor has an instruction for, in terms of what every one has. No library is called on any target.

Everything here is a rule on kernel nodes, so the same formulas run in vectors on the host and on the GPU. Polynomials
are Taylor series on intervals where they are as good as the type; ``docs/tensor.md`` lists the error bounds.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable
from fractions import Fraction

from amdrv.tensor import dtypes
from amdrv.tensor.dtypes import DType
from amdrv.tensor.ir import Node, Op, const, where
from amdrv.tensor.patterns import Rule, RuleSet, node, var
from amdrv.tensor.rewrite import Step, rewrite
from amdrv.tensor.tables.numbers import (
    ERF_TERMS,
    ERFC,
    HALF_PI,
    LN2_HI,
    LN2_LO,
    TERMS,
    TURN_BITS,
    two_over_pi,
)

LEADING_ZEROS = 16  # in front of the bits of 2/pi, so that no number is shifted the other way


def _integer(dtype: DType) -> DType:
    return dtypes.BY_NAME[f"int{dtype.bits}"]


def fused(a: Node, b: Node | float, c: Node | float) -> Node:
    """a * b + c with one rounding."""
    b, c = (part if isinstance(part, Node) else const(a.dtype, part) for part in (b, c))
    return Node(Op.MULADD, a.dtype, (a, b, c))


def polynomial(x: Node, factors: Iterable[float | Fraction]) -> Node:
    """factors[0] + factors[1] * x + …"""
    first, *rest = reversed([float(factor) for factor in factors])
    result = const(x.dtype, first)
    for factor in rest:
        result = fused(result, x, factor)
    return result


def _power_of_two(exponent: Node, dtype: DType) -> Node:
    """2 ** exponent for an integer that a normal number can have."""
    return ((exponent + ((1 << dtype.exponent_bits - 1) - 1)) << dtype.mantissa_bits).bitcast(dtype)


def _scaled(x: Node, exponent: Node) -> Node:
    """x * 2 ** exponent in two steps, so that results may be subnormal."""
    half = exponent >> 1
    return x * _power_of_two(half, x.dtype) * _power_of_two(exponent - half, x.dtype)


def _clamped(x: Node, low: float, high: float) -> Node:
    return where(x < low, const(x.dtype, low), where(x > high, const(x.dtype, high), x))


def _exponential(x: Node, base2: bool) -> Node:
    dtype = x.dtype
    limit = (1 << dtype.exponent_bits - 1) * 1.0 + dtype.mantissa_bits + 4
    x = _clamped(x, -limit, limit) if base2 else _clamped(x, -limit * math.log(2), limit * math.log(2))
    if base2:
        whole = x.unary(Op.RINT)
        rest = (x - whole) * math.log(2)
    else:
        whole = (x * (1 / math.log(2))).unary(Op.RINT)
        rest = fused(whole, -LN2_LO[dtype], fused(whole, -LN2_HI[dtype], x))
    series = polynomial(rest, [Fraction(1, math.factorial(k)) for k in range(TERMS[dtype]["exp"])])
    # A NaN takes no branch above and reaches the sum, but not the exponent.
    number = where(x.eq(x), whole, const(dtype, 0.0)).cast(_integer(dtype))
    return _scaled(series, number)


def _log_parts(x: Node) -> tuple[Node, Node]:
    """(exponent, log of the mantissa), where the mantissa is between sqrt(1/2) and sqrt(2)."""
    dtype, integer = x.dtype, _integer(x.dtype)
    bits, bias = dtype.mantissa_bits, (1 << dtype.exponent_bits - 1) - 1
    tiny = x < 2.0 ** (1 - bias)
    grown = where(tiny, x * 2.0**bits, x).bitcast(integer)
    # Subtracting the bits of sqrt(1/2) makes the exponent step where the mantissa passes it.
    root = int.from_bytes(struct.pack("<f" if dtype.bits == 32 else "<d", math.sqrt(0.5)), "little")
    exponent = (grown - root) >> bits
    mantissa = (grown - (exponent << bits)).bitcast(dtype)
    exponent = (exponent - where(tiny, const(integer, bits), const(integer, 0))).cast(dtype)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    squared = ratio * ratio
    series = polynomial(squared, [Fraction(2, 2 * k + 3) for k in range(TERMS[dtype]["log"])])
    # log(m) = 2r + 2r^3/3 + … and 2r = (m-1) - r(m-1): keeping m-1, which is exact, keeps results near zero accurate.
    less_one = mantissa - 1.0
    return exponent, less_one - ratio * (less_one - squared * series)


def _logarithm(x: Node, base2: bool) -> Node:
    exponent, rest = _log_parts(x)
    dtype = x.dtype
    if base2:
        result = fused(rest, 1 / math.log(2), exponent)
    else:
        result = fused(exponent, LN2_HI[dtype], fused(exponent, LN2_LO[dtype], rest))
    infinity = const(dtype, math.inf)
    result = where(x.eq(infinity), infinity, result)
    result = where(x.eq(0.0), const(dtype, -math.inf), result)
    return where(x < 0.0, const(dtype, math.nan), where(x.eq(x), result, x))


def _quadrant(x: Node) -> tuple[Node, Node]:
    """(number of the quadrant, angle from its middle axis) for angles that are not huge."""
    dtype = x.dtype
    number = (x * (2 / math.pi)).unary(Op.RINT)
    angle, rest = x, const(dtype, 0.0)
    for part in HALF_PI[dtype]:
        if dtype is dtypes.float64:  # with what rounding takes from each product
            product = number * part
            angle, rest = angle - product, rest + fused(number, part, -product)
        else:
            angle = fused(number, -part, angle)
    angle = angle - rest
    angle = where(number.eq(0.0), x, angle)  # that of -0.0 is -0.0
    return where(number.eq(number), number, const(dtype, 0.0)).cast(_integer(dtype)), angle


def _quadrant_huge(x: Node) -> tuple[Node, Node]:
    """The same for numbers of any size: the product with the bits of 2/pi that matter (Payne and Hanek)."""
    dtype, u64, mask, bits = x.dtype, dtypes.uint64, (1 << 32) - 1, x.dtype.mantissa_bits
    code = x.bitcast(dtypes.BY_NAME[f"uint{dtype.bits}"]).cast(u64)
    exponent, mantissa = (code >> bits) & ((1 << dtype.exponent_bits) - 1), (code & ((1 << bits) - 1)) | (1 << bits)
    # x is mantissa * 2**(exponent - bias - bits); bits of 2/pi that only add multiples of four quarter turns drop out.
    first = (1 << dtype.exponent_bits - 1) + 1 + bits - LEADING_ZEROS
    shift = where(exponent < first, const(u64, 0), exponent - first)
    digits, size = two_over_pi(TURN_BITS[dtype]) >> LEADING_ZEROS, TURN_BITS[dtype]
    words = [const(u64, digits >> (size - 32 * (k + 1)) & mask) for k in range(size // 32)]
    wanted = dtype.bits // 16 + 3
    for k in reversed(range((len(words) - wanted).bit_length())):
        skip = ((shift >> 5) & (1 << k)).eq(0)
        words = [where(skip, a, b) for a, b in zip(words[: wanted - 1 + (1 << k)], words[1 << k :], strict=False)]
    by = shift & 31
    words = [((a << by) | (b >> (const(u64, 32) - by))) & mask for a, b in itertools.pairwise(words)]
    low, high = mantissa & mask, mantissa >> 32
    carry, found = const(u64, 0), list[Node]()
    for k in range(len(words) - 2, 0, -1):
        carry = carry + (low * words[k - 1] & mask) + (low * words[k] >> 32)
        if bits > 32:
            carry = carry + (high * words[k] & mask) + (high * words[k + 1] >> 32)
        found.insert(0, carry & mask)
        carry = carry >> 32
    turn = (found[0] << 32) | found[1]  # modulo 4 with 62 bits behind the point, and more of them in what follows
    number = (turn + (1 << 61)) >> 62
    rest = (turn - (number << 62)).cast(dtypes.int64).cast(dtypes.float64)
    if found[2:]:
        rest = rest + ((found[2] << 32) | found[3]).cast(dtypes.float64) * 2.0**-64
    angle, quarter = (rest * (math.pi / 2 * 2.0**-62)).cast(dtype), number.cast(_integer(dtype))
    negative = x < 0.0
    return where(negative, -quarter, quarter), where(negative, -angle, angle)


def _circular(x: Node, ahead: int) -> Node:
    """The sine of x moved ahead by quarter product."""
    dtype = x.dtype
    number, angle = _quadrant(x)
    huge = where(x < 0.0, -x, x) > (16384.0 if dtype is dtypes.float32 else 2.0**40)
    far_number, far_angle = _quadrant_huge(x)
    number, angle = where(huge, far_number, number) + ahead, where(huge, far_angle, angle)
    squared = angle * angle
    odd = [Fraction((-1) ** k, math.factorial(2 * k + 1)) for k in range(1, TERMS[dtype]["sin"])]
    even = [Fraction((-1) ** k, math.factorial(2 * k)) for k in range(1, TERMS[dtype]["cos"] + 1)]
    sine = where(angle.eq(0.0), angle, fused(angle * squared, polynomial(squared, odd), angle))
    cosine = fused(squared, polynomial(squared, even), 1.0)
    result = where((number & 1).eq(0), sine, cosine)
    result = where((number & 2).eq(0), result, -result)
    finite = (x - x).eq(0.0)
    return where(finite, result, const(dtype, math.nan))


def _error_function(x: Node) -> Node:
    dtype = x.dtype
    size = where(x < 0.0, -x, x)
    squared = x * x
    terms = range(ERF_TERMS[dtype])
    near = [2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in terms]
    inner = x * polynomial(squared, near)
    t = 1.0 / (1.0 + size * 0.5)
    tail = t * polynomial(t, ERFC[dtype]) * _exponential(-squared, base2=False)
    outer = where(x < 0.0, tail - 1.0, 1.0 - tail)
    return where(size < 1.0, inner, where(x.eq(x), outer, x)).cast(dtype)


def _power(x: Node, y: Node) -> Node:
    """x ** y as C's pow has it; float32 through float64, so that the logarithm's error does not grow."""
    wide = dtypes.float64
    a, b = x.cast(wide), y.cast(wide)
    size = where(a < 0.0, -a, a)
    one = const(wide, 1.0)
    result = where(size.eq(1.0), one, _exponential(b * _logarithm(size, base2=False), base2=False))
    whole = b.unary(Op.FLOOR).eq(b)
    half = b * 0.5
    odd = where(whole, const(dtypes.bool_, True), const(dtypes.bool_, False)) & (half.unary(Op.FLOOR) < half)
    signed = where(odd, -result, result)
    below = where(whole, signed, where(a.eq(-math.inf) | a.eq(0.0), result, const(wide, math.nan)))
    result = where(a.bitcast(dtypes.int64) < 0, below, result)
    result = where(b.eq(0.0), one, where(a.eq(1.0), one, result))
    unordered = where(a.eq(a), b.eq(b), const(dtypes.bool_, False))
    keep = where(b.eq(0.0), one, where(a.eq(1.0), one, a + b))
    return where(unordered, result, keep).cast(x.dtype)


def _divided(found: Node, x: Node, y: Node) -> Node:
    """The quotient of integers rounded down, or the remainder that goes with it; 0 when dividing by 0."""
    zero, one, quotient = const(x.dtype, 0), const(x.dtype, 1), found.op is Op.IDIV
    none, toward_zero = y.eq(zero), Op.TRUNCDIV if quotient else Op.REM
    if x.dtype.kind != "int":
        return where(none, zero, Node(toward_zero, x.dtype, (x, where(none, one, y))))
    minus = y.eq(-1)  # the least integer divided by -1 does not fit: dividing by 1 and negating wraps
    safe = where(none | minus, one, y)
    rest = Node(Op.REM, x.dtype, (x, safe))
    down = where(rest.eq(zero), const(dtypes.bool_, False), (rest ^ safe) < zero)
    if not quotient:
        return where(none, zero, where(down, rest + safe, rest))
    result = Node(Op.TRUNCDIV, x.dtype, (x, safe))
    result = where(down, result - one, result)
    return where(none, zero, where(minus, zero - result, result))


def _integer_power(x: Node, y: Node) -> Node:
    """x ** y by squaring for integers; a negative exponent gives 0, or 1 and -1 for bases of size 1."""
    result, base, rest = const(x.dtype, 1), x, y
    for _ in range(x.dtype.bits):
        result = where((rest & 1).eq(0), result, result * base)
        base, rest = base * base, rest >> 1
    return result


def _decode(x: Node, narrow: DType) -> Node:
    """float32 with the value of a narrow float."""
    u32, f32 = dtypes.uint32, dtypes.float32
    code = x.bitcast(dtypes.BY_NAME[f"uint{narrow.bits}"]).cast(u32)
    if narrow is dtypes.bfloat16:
        return (code << 16).bitcast(f32)
    mantissa, bias = narrow.mantissa_bits, (1 << narrow.exponent_bits - 1) - 1
    size = code & ((1 << narrow.bits - 1) - 1)
    normal = ((size << (23 - mantissa)) + ((127 - bias) << 23)).bitcast(f32)
    value = where(size < (1 << mantissa), size.cast(f32) * 2.0 ** (1 - bias - mantissa), normal)
    infinity = ((1 << narrow.exponent_bits) - 1) << mantissa
    if narrow is dtypes.float8_e4m3fn:
        value = where(size.eq(0x7F), const(f32, math.nan), value)
    else:
        value = where(size < infinity, value, where(size.eq(infinity), const(f32, math.inf), const(f32, math.nan)))
    return where((code >> (narrow.bits - 1)).eq(0), value, -value)


def _encode(x: Node, narrow: DType) -> Node:
    """A narrow float, rounded to nearest with ties to even. Out of range is infinity, and NaN where there is none."""
    u32 = dtypes.uint32
    mantissa, bias = narrow.mantissa_bits, (1 << narrow.exponent_bits - 1) - 1
    bits = x.bitcast(u32)
    size = bits & 0x7FFFFFFF
    drop = 23 - mantissa
    rounded = (size + ((1 << drop - 1) - 1) + ((size >> drop) & 1)) >> drop
    infinity = ((1 << narrow.exponent_bits) - 1) << mantissa
    code = rounded - ((127 - bias) << mantissa)
    if bias < 127:
        absolute = size.bitcast(dtypes.float32)
        limit = 2.0 ** (1 - bias)
        below = where(absolute < limit, absolute, const(dtypes.float32, 0.0))
        small = (below * 2.0 ** (bias - 1 + mantissa)).unary(Op.RINT).cast(u32)
        code = where(absolute < limit, small, code)
    top = 0x7E if narrow is dtypes.float8_e4m3fn else infinity
    past = const(u32, 0x7F if narrow is dtypes.float8_e4m3fn else infinity)
    code = where(code > top, past, code)
    code = where(size > 0x7F800000, const(u32, infinity | (1 << mantissa - 1) | (0x7F if top == 0x7E else 0)), code)
    sign = (bits >> (32 - narrow.bits)) & (1 << narrow.bits - 1)
    return (code | sign).cast(dtypes.BY_NAME[f"uint{narrow.bits}"]).bitcast(narrow)


def _odd(x: Node) -> Node:
    """A float64 as float32 whose last digit is odd where it is not exact, so that rounding it again rounds once."""
    near = x.cast(dtypes.float32)
    bits, back = near.bitcast(dtypes.uint32), near.cast(dtypes.float64)
    beyond = where(x < 0.0, back < x, x < back).cast(dtypes.uint32)
    return where(x.eq(back), bits, (bits - beyond) | 1).bitcast(dtypes.float32)


def _cast(found: Node, x: Node) -> Node | None:
    source, wanted = x.dtype, found.dtype
    if source is wanted:
        return x
    emulated = (dtypes.bfloat16, dtypes.float8_e4m3fn, dtypes.float8_e5m2)
    if source in emulated:
        return _decode(x, source).cast(wanted)
    if source is dtypes.float64 and wanted.is_float and wanted.bits < 32:
        return _odd(x).cast(wanted)
    if wanted in emulated:
        return _encode(x.cast(dtypes.float32), wanted)
    return None


def _cast_of_cast(found: Node, x: Node) -> Node | None:
    """Widening a narrow float and narrowing it again changes nothing."""
    source = x.src[0]
    return source if source.dtype is found.dtype and x.dtype is source.dtype.compute else None


x, y = var("x"), var("y")
_float = var("x", lambda found: found.dtype.is_float)
_whole = var("x", lambda found: not found.dtype.is_float)
_counted = var("x", lambda found: found.dtype is not dtypes.index)  # positions are simplified as they are
RULES = RuleSet(
    [
        Rule("cast there and back", node(Op.CAST, node(Op.CAST).named("x")), _cast_of_cast),
        Rule("narrow float", node(Op.CAST, x), _cast),
        Rule("exp", node(Op.EXP, x), lambda x: _exponential(x, base2=False)),
        Rule("exp2", node(Op.EXP2, x), lambda x: _exponential(x, base2=True)),
        Rule("log", node(Op.LOG, x), lambda x: _logarithm(x, base2=False)),
        Rule("log2", node(Op.LOG2, x), lambda x: _logarithm(x, base2=True)),
        Rule("sin", node(Op.SIN, x), lambda x: _circular(x, 0)),
        Rule("cos", node(Op.COS, x), lambda x: _circular(x, 1)),
        Rule("erf", node(Op.ERF, x), _error_function),
        Rule("negate integers", node(Op.NEG, _whole), lambda x: const(x.dtype, 0) - x),
        Rule("divide integers", node(Op.IDIV, _counted, y), _divided),
        Rule("remainder of integers", node(Op.MOD, _counted, y), _divided),
        Rule("power", node(Op.POW, _float, y), _power),
        Rule("power of integers", node(Op.POW, _whole, y), _integer_power),
    ]
)


def decompose(root: Node, trace: list[Step] | None = None) -> Node:
    """The kernel with nothing in it but what ``emit`` has an instruction for."""
    return rewrite(root, RULES, trace)
