"""Library functions for the smaller and the greater of two floats: "max_ieee_f32.w32", "min_plain_f64.w64", …

-0 is below +0 and a NaN loses to a number; of two NaNs the first stays. In IEEE mode a signalling NaN wins, quieted.
The range instructions of AVX-512 DQ do just that (Intel SDM, VRANGEPS, table of NaN cases); elsewhere the usual case
is made of two comparisons, and lanes with NaNs are corrected behind a branch.
"""

from __future__ import annotations

from amdrv.emulator.isa.native.builder import FLOAT_TYPES, WIDTHS, Val
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.pipeline import target
from amdrv.emulator.isa.native.primitives import (
    UNSIGNED,
    call,
    cast,
    choose,
    compare,
    constant,
    float_bits,
    library_function,
)
from amdrv.emulator.isa.native.rounding import is_nan

RANGE_FEATURE = "+avx512dq"
_RANGE_MODE = {"min": 4, "max": 5}  # which one, and the sign that the result has
_RANGE_LANES = {"f32": 16, "f64": 8}


def functions(lanes: int, features: str | None = None) -> list[Function]:
    """The functions for one wave size; ``features`` of the processor as LLVM lists them, this host's when None."""
    has_range = RANGE_FEATURE in (target()[1] if features is None else features).split(",")
    result = []
    for name in ("min", "max"):
        for kind in FLOAT_TYPES:
            for rule in ("ieee", "plain"):
                if kind == "f16":
                    result.append(_half(name, rule, lanes))
                elif has_range and rule == "ieee":
                    result.append(_by_range(name, kind, lanes))
                else:
                    result += _by_comparison(name, rule, kind, lanes)
    return result


def _by_range(name: str, kind: str, lanes: int) -> Function:
    """The processor's instruction on each part of the wave that fits a register."""
    width, letter = _RANGE_LANES[kind], "s" if kind == "f32" else "d"
    part = f"<{width} x {FLOAT_TYPES[kind]}>"

    def body(x: Val, y: Val) -> Val:
        builder, pieces = x.builder, []
        for first in range(0, lanes, width):
            picked = ", ".join(f"i32 {lane}" for lane in range(first, first + width))
            left, right = (
                builder.emit(f"shufflevector {v.typed}, {v.typed}, <{width} x i32> <{picked}>") for v in (x, y)
            )
            operands = f"{part} {left}, {part} {right}, i32 {_RANGE_MODE[name]}, {part} zeroinitializer"
            function = f"llvm.x86.avx512.mask.range.p{letter}.512"
            pieces.append(builder.emit(f"call {part} @{function}({operands}, i{width} -1, i32 4)"))
        while len(pieces) > 1:
            width_now = lanes // len(pieces)
            shape = f"<{width_now} x {FLOAT_TYPES[kind]}>"
            order = ", ".join(f"i32 {lane}" for lane in range(2 * width_now))
            pieces = [
                builder.emit(f"shufflevector {shape} {low}, {shape} {high}, <{2 * width_now} x i32> <{order}>")
                for low, high in zip(pieces[::2], pieces[1::2], strict=True)
            ]
        return builder.value(kind, pieces[0], True)

    return library_function(f"{name}_ieee_{kind}", lanes, (kind, kind), body, inline=True)


def _by_comparison(name: str, rule: str, kind: str, lanes: int) -> list[Function]:
    """A fast path that is right without NaNs, and the function that it calls when there is one."""
    slow = f"{name}_{rule}_{kind}_nan"
    relation = "fcmp ogt" if name == "max" else "fcmp olt"

    def fast(x: Val, y: Val) -> Val:
        builder = x.builder
        # The two choices differ in zeros of unlike sign only, where the sign is what min or max makes of the bits.
        unsigned = UNSIGNED[WIDTHS[kind]]
        first = cast(choose(compare(relation, x, y), x, y), unsigned)
        second = cast(choose(compare(relation, y, x), y, x), unsigned)
        result = cast(first & second if name == "max" else first | second, kind)
        unordered = compare("fcmp uno", x, y)
        mask = builder.emit(f"bitcast {unordered.typed} to i{lanes}")
        some = builder.emit(f"icmp ne i{lanes} {mask}, 0")
        begin, correct, end = builder.block, builder.name("nan"), builder.name("end")
        builder.do(f"br i1 {some}, label {correct}, label {end}, !prof !0")
        builder.label(correct)
        corrected = call(slow, kind, x, y, result)
        builder.do(f"br label {end}")
        builder.label(end)
        shape = builder.type(kind, True)
        text = builder.emit(f"phi {shape} [ {result.text}, {begin} ], [ {corrected.text}, {correct} ]")
        return builder.value(kind, text, True)

    return [
        library_function(f"{name}_{rule}_{kind}", lanes, (kind, kind), fast, inline=True),
        library_function(slow, lanes, (kind,) * 3, lambda x, y, result: _with_nans(rule, x, y, result)),
    ]


def _with_nans(rule: str, x: Val, y: Val, result: Val) -> Val:
    """``result``, corrected in lanes where x or y is a NaN."""
    nan_x, nan_y = is_nan(x), is_nan(y)
    result = choose(nan_y, x, choose(nan_x, y, result))
    if rule == "ieee":
        for value, unordered in ((y, nan_y), (x, nan_x)):
            quiet = float_bits(value.kind)[2]
            bits = cast(value, UNSIGNED[WIDTHS[value.kind]])
            signalling = unordered & compare("icmp eq", bits & quiet, constant(bits, bits.kind, 0))
            result = choose(signalling, cast(bits | quiet, value.kind), result)
    return result


def _half(name: str, rule: str, lanes: int) -> Function:
    """In integers, ordered by sign and magnitude: a conversion to f32 would quieten signalling NaNs."""

    def ordered(bits: Val) -> Val:
        return bits ^ (bits >> 15 & 0x7FFF)

    def unordered(bits: Val) -> Val:
        return compare("icmp ugt", bits & 0x7FFF, constant(bits, "i16", 0x7C00))

    def body(x: Val, y: Val) -> Val:
        left, right = cast(x, "i16"), cast(y, "i16")
        result = ordered(x.builder.intrinsic(f"s{name}", "i16", ordered(left), ordered(right)))
        nan_x, nan_y = unordered(left), unordered(right)
        result = choose(nan_y, left, choose(nan_x, right, result))
        if rule == "ieee":
            for bits, nan in ((right, nan_y), (left, nan_x)):
                signalling = nan & compare("icmp eq", bits & 0x200, constant(bits, "i16", 0))
                result = choose(signalling, bits | 0x200, result)
        return cast(result, "f16")

    return library_function(f"{name}_{rule}_f16", lanes, ("f16", "f16"), body, inline=True)
