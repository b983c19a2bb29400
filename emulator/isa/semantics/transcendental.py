"""Approximated functions, and the argument reduction for double-precision trigonometry."""

from __future__ import annotations

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import exponent
from amdrv.emulator.isa.semantics.definition import Definition, Unary, family

ONE_ULP = "approximate: 1 ulp"
COARSE = "approximate: 1 ulp, where hardware has 2**29 ulp"

FUNCTIONS: dict[str, Unary] = {
    "rcp": lambda a, x: a.rcp(x),
    "rsq": lambda a, x: a.rsq(x),
    "sqrt": lambda a, x: a.sqrt(x),
    "exp": lambda a, x: a.exp2(x),
    "log": lambda a, x: a.log2(x),
    "sin": lambda a, x: a.sin_turns(x),
    "cos": lambda a, x: a.cos_turns(x),
}
IN_DOUBLE = ("rcp", "rsq", "sqrt")

# The first 1201 bits of the binary fraction of 2 / pi, most significant first.
TWO_OVER_PI_BITS = 1201
TWO_OVER_PI = int(
    "145f306dc9c882a53f84eafa3ea69bb81b6c52b3278872083fca2c757bd778ac36e48dc74849ba5c00c925dd413a32439"
    "fc3bd63962534e7dd1046bea5d768909d338e04d68befc827323ac7306a673e93908bf177bf250763ff12fffbc0b301f"
    "de5e2316b414da3eda6cfd9e4f96136e9e8c7ecd3cbfd45aea4f758fd7cbe2f67a0e73ef14a525d4d7f6bf623f1aba10"
    "ac06608df8f6",
    16,
)
_WINDOWS = range(0, 82 * 32, 32)  # the largest shift is 31 * 53 + (2047 - 1077) = 2613


def _bits_from(start: int, count: int) -> int:
    """Bits start .. start + count of the fraction, zeroes after its end, as an integer."""
    return (TWO_OVER_PI << 3000 >> TWO_OVER_PI_BITS + 3000 - start - count) & ((1 << count) - 1)


_HEADS = tuple(_bits_from(start, 64) for start in _WINDOWS)
_TAILS = tuple(_bits_from(start + 64, 32) for start in _WINDOWS)


def trig_preop(a: Ops, x: Value, segment: Value) -> Value:
    """V_TRIG_PREOP_F64: 53 bits of 2 / pi, number ``segment`` of those that matter for an argument of x's size."""
    scale = exponent(a, x, "f64")
    shift = (a.i32(segment) & 31) * 53 + (a.max(scale, 1077) - 1077)
    window, offset = shift >> 5, a.u64(shift & 31)
    head, tail = a.table("u64", _HEADS, window), a.table("u64", _TAILS, window)
    fraction = (head << offset | tail >> (32 - offset)) >> 11
    power = a.select(a.lt(scale, 1968), -53 - shift, 75 - shift)
    return a.ldexp(a.to_float(fraction, "f64"), power)


def _functions(kind: str) -> dict[str, Unary]:
    return {f"v_{name}_{kind}": function for name, function in FUNCTIONS.items() if kind != "f64" or name in IN_DOUBLE}


DEFINITIONS: list[Definition] = [
    *family(_functions("f16"), "f16", accuracy=ONE_ULP),
    *family(_functions("f32"), "f32", accuracy=ONE_ULP),
    *family({"v_rcp_iflag_f32": FUNCTIONS["rcp"]}, "f32", accuracy=ONE_ULP),
    *family(_functions("f64"), "f64", accuracy=COARSE),
    *family({"v_trig_preop_f64": trig_preop}, "f64", "u32"),
]
