"""Dot products of small floats: what the generations have in common.

The products are exact. They and the accumulator are cut to integers on one grid, whose place the largest of them
decides, and the integer sum is rounded once. How terms are cut is a generation's own (dot_gfx11, dot_gfx12). Measured
on gfx1100 and gfx1201: ROCm rocjitsu, shared/gfx11_dot2.h, gfx12_dot.h and dot_packed16.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import halves, is_nan, quiet_nan
from amdrv.emulator.isa.semantics.convert import from_bf16
from amdrv.emulator.isa.semantics.definition import Definition, Evaluate, family
from amdrv.emulator.isa.semantics.packed import accumulator, packed_sources

Fields: TypeAlias = Mapping[str, int]

EMPTY = -1024  # exponent of what is zero: below all others
FACTOR_NAN, INVALID, INFINITY = 0xFFC00A3D, 0xFFC00000, 0x7F800000  # f32 patterns


@dataclass(frozen=True, slots=True)
class Format:
    """Of a factor: widths of its mantissa and exponent; fp8 spends its highest pattern on NaN and has no infinity."""

    mantissa_bits: int
    exponent_bits: int
    has_infinity: bool = True


FORMATS = {"f16": Format(10, 5), "bf16": Format(7, 8), "fp8": Format(3, 4, False), "bf8": Format(2, 5)}


@dataclass(frozen=True, slots=True)
class Term:
    """``significand * 2**exponent`` (u32, i32) and whether it is negative, a zero included."""

    significand: Value
    exponent: Value
    negative: Value

    def leading(self, a: Ops) -> Value:
        """Exponent of the highest bit."""
        return a.select(a.eq(self.significand, 0), EMPTY, self.exponent + 31 - a.clz(self.significand))


@dataclass(frozen=True, slots=True)
class Product:
    """A term, the grid that its factors' exponents ask for, and what is special about it (truth values)."""

    term: Term
    grid: Value
    nan: Value  # a factor is one
    invalid: Value
    infinite: Value


@dataclass(frozen=True, slots=True)
class Total:
    """``units * 2**grid`` (u32, i32) and its sign."""

    units: Value
    grid: Value
    negative: Value


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A generation's: ``add(a, accumulator, products, floor)``, ``floor`` being the least exponent of the accumulator
    where a format has one; ``keeps`` says which formats have denormals ("f32": accumulator and result)."""

    add: Callable[[Ops, Term, Sequence[Product], int | None], Total]
    keeps: frozenset[str]


def shifted(a: Ops, x: Value, places: Value) -> Value:
    """A u32 below 2**29 shifted left by ``places`` (i32), or right where they are negative."""
    left, right = (a.u32(a.min(a.max(count, 0), 31)) for count in (places, 0 - places))
    return x << left >> right


def _round_off(a: Ops, x: Value, places: Value) -> Value:
    """``x >> places`` to nearest even, or ``x << -places``."""
    kept = shifted(a, x, 0 - places)
    right = a.u32(a.min(a.max(places, 0), 31))
    tail, half = x - (kept << right), a.constant("u32", 1) << right >> 1
    up = a.lt(half, tail) | a.eq(half, tail) & a.eq(kept & 1, 1)
    return kept + a.u32(up & a.lt(a.constant("i32", 0), places))


def largest(a: Ops, values: Sequence[Value]) -> Value:
    return reduce(a.max, values)


def _multiply(a: Ops, arithmetic: Arithmetic, codes: tuple[Value, Value], kinds: tuple[str, str]) -> Product:
    """The product of two floats in the low bits of u32 values."""
    significands, exponents, negatives, nans, infinities = [], [], [], [], []
    places = 0
    for code, kind in zip(codes, kinds, strict=True):
        layout = FORMATS[kind]
        top, bits = (1 << layout.exponent_bits) - 1, layout.mantissa_bits
        field, fraction = code >> bits & top, code & (1 << bits) - 1
        small = fraction if kind in arithmetic.keeps else a.constant("u32", 0)
        significands.append(a.select(a.eq(field, 0), small, fraction | 1 << bits))
        exponents.append(a.i32(a.max(field, 1)) - (top >> 1))
        negatives.append(a.eq(code >> bits + layout.exponent_bits & 1, 1))
        highest = a.eq(field, top)
        infinities.append(highest & (a.eq(fraction, 0) if layout.has_infinity else a.lt(fraction, 0)))
        nans.append(highest & (~a.eq(fraction, 0) if layout.has_infinity else a.eq(fraction, (1 << bits) - 1)))
        places += bits
    significand, scale = significands[0] * significands[1], exponents[0] + exponents[1]
    zeroes = [a.eq(value, 0) for value in significands]
    return Product(
        Term(significand, scale - places, negatives[0] ^ negatives[1]),
        a.select(a.eq(significand, 0), EMPTY, scale - 24),
        nans[0] | nans[1],
        infinities[0] & zeroes[1] | infinities[1] & zeroes[0],
        infinities[0] | infinities[1],
    )


def _split(a: Ops, bits: Value, keeps: bool) -> Term:
    """An f32 accumulator as a term."""
    field, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    significand = a.select(a.eq(field, 0), fraction if keeps else a.constant("u32", 0), fraction | 0x800000)
    return Term(significand, a.i32(a.max(field, 1)) - 150, a.eq(bits >> 31, 1))


def _pack(a: Ops, total: Total, mantissa_bits: int, bias: int, keeps: bool, highest: int) -> Value:
    """The sum as float bits without a sign, u32; a number that is too large gives ``highest``."""
    top = 31 - a.clz(total.units)
    scale = top + total.grid
    significand = _round_off(a, total.units, top - mantissa_bits)
    carried = scale + a.i32(significand >> mantissa_bits + 1)
    fraction = significand & (1 << mantissa_bits) - 1
    number = a.u32(carried + bias) << mantissa_bits | fraction
    number = a.select(a.lt(a.constant("i32", bias), carried), highest, number)
    if keeps:
        denormal = _round_off(a, total.units, 1 - bias - mantissa_bits - total.grid)
        return a.select(a.lt(scale, 1 - bias), denormal, number)
    return a.select(a.lt(carried, 1 - bias), 0, number)


def _finished(a: Ops, total: Total, number: Value, sign: int) -> Value:
    """The number with its sign; a zero has none, nor has what vanished."""
    number = a.select(a.eq(total.units, 0), 0, number)
    return a.select(a.eq(number, 0) | ~total.negative, number, number | sign)


def _special(a: Ops, products: Sequence[Product], addend: Value, invalid: int) -> tuple[Value, Value]:
    """(whether a NaN or an infinity decides, its f32 bits)."""
    added = a.f32(addend)
    infinite = a.eq(addend & 0x7FFFFFFF, INFINITY)
    plus, minus = ([p.infinite & (p.term.negative if down else ~p.term.negative) for p in products] for down in (0, 1))
    plus_product, minus_product = (reduce(lambda x, y: x | y, signs) for signs in (plus, minus))
    negative = a.eq(addend >> 31, 1)
    up, down = plus_product | infinite & ~negative, minus_product | infinite & negative
    bits = a.select(down, a.constant("u32", INFINITY | 1 << 31), a.constant("u32", INFINITY))
    bits = a.select(up & down, invalid, bits)
    missing = is_nan(a, added, "f32")
    bits = a.select(missing, a.u32(quiet_nan(a, added, "f32")), bits)
    wrong = reduce(lambda x, y: x | y, [p.invalid for p in products]) | plus_product & minus_product
    bits = a.select(wrong, invalid, bits)
    nan = reduce(lambda x, y: x | y, [p.nan for p in products])
    return nan | wrong | missing | up | down, a.select(nan, FACTOR_NAN, bits)


def dot(
    a: Ops,
    arithmetic: Arithmetic,
    pairs: Sequence[tuple[Value, Value]],
    kinds: tuple[str, str],
    addend: Value,
    result: str = "f32",
    invalid: int = INVALID,
) -> Value:
    """The products of ``pairs`` (codes of ``kinds``, u32) and an f32 ``addend``, added; a float of kind ``result``."""
    products = [_multiply(a, arithmetic, pair, kinds) for pair in pairs]
    bits = a.u32(addend)
    keeps = "f32" in arithmetic.keeps
    total = arithmetic.add(a, _split(a, bits, keeps), products, -14 if result == "f16" else None)
    decided, special = _special(a, products, bits, invalid)
    if result == "f16":
        short = _finished(a, total, _pack(a, total, 10, 15, True, 0x7BFF if a.mode.saturate16 else 0x7C00), 1 << 15)
        narrow = special >> 16 & 0x8000 | 0x7C00 | special >> 13 & 0x3FF
        narrow = a.select(a.eq(special, FACTOR_NAN), 0xFE3D, narrow)
        return a.f16(a.u16(a.select(decided, narrow, short)))
    single = _finished(a, total, _pack(a, total, 23, 127, keeps, INFINITY), 1 << 31)
    if result == "f32":
        return a.f32(a.select(decided, special, single))
    special = a.select(a.eq(special, FACTOR_NAN), 0xFFFD0000, special)
    return a.u16(a.select(decided, special, single) >> 16)  # bf16: cut, not rounded


def _dot2(arithmetic: Arithmetic, kind: str) -> Evaluate:
    def evaluate(a: Ops, x: Value, y: Value, addend: Value, fields: Fields) -> Value:
        lows, highs = packed_sources(a, "f16", fields, x, y)
        pairs = [(a.u32(left), a.u32(right)) for left, right in (lows, highs)]
        return dot(a, arithmetic, pairs, (kind, kind), accumulator(a, a.f32(addend), fields))

    return evaluate


def _accumulating(evaluate: Evaluate) -> Evaluate:
    return lambda a, x, y, old: evaluate(a, x, y, old, {})


def _dot2_short(arithmetic: Arithmetic, kind: str) -> Evaluate:
    """V_DOT2_F16_F16 and V_DOT2_BF16_BF16 (VOP3): neg and abs change both halves of a source."""

    def evaluate(a: Ops, x: Value, y: Value, addend: Value, fields: Fields) -> Value:
        sources = []
        for index, source in enumerate((x, y)):
            bits = a.u32(source)
            bits = bits & 0x7FFF7FFF if fields.get("abs", 0) >> index & 1 else bits
            bits = bits ^ 0x80008000 if fields.get("neg", 0) >> index & 1 else bits
            sources.append([a.u32(half) for half in halves(a, bits, "u16")])
        pairs = list(zip(*sources, strict=True))
        wide = from_bf16(a, addend) if kind == "bf16" else a.to_float(a.f16(addend), "f32")
        return dot(a, arithmetic, pairs, (kind, kind), wide, kind)

    return evaluate


def definitions(arithmetic: Arithmetic) -> list[Definition]:
    """The dot products of pairs in a generation's arithmetic."""
    singles = {f"v_dot2_f32_{kind}": _dot2(arithmetic, kind) for kind in ("f16", "bf16")}
    shorts = {f"v_dot2_{kind}_{kind}": _dot2_short(arithmetic, kind) for kind in ("f16", "bf16")}
    accumulating = {name.replace("dot2", "dot2acc"): _accumulating(evaluate) for name, evaluate in singles.items()}
    return [*family(singles | shorts, reads=("fields",)), *family(accumulating, reads=("old",))]
