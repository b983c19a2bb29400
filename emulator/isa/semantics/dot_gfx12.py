"""Dot products of gfx12: pairs of products are added on a grid of their own, then to the accumulator; cutting floors.

Denormals count everywhere. The four products of eight-bit floats share one grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import magnitude
from amdrv.emulator.isa.semantics.definition import Definition, Evaluate, family
from amdrv.emulator.isa.semantics.dot import (
    FACTOR_NAN,
    Arithmetic,
    Product,
    Term,
    Total,
    definitions,
    dot,
    largest,
    shifted,
)
from amdrv.emulator.isa.semantics.packed import accumulator

Fields: TypeAlias = Mapping[str, int]

LEAST = -126  # exponent of the smallest normal f32


def _cut(a: Ops, term: Term, grid: Value, drops: Value | None = None) -> Value:
    """A term in units of the grid, i32, rounded down; where ``drops`` holds, what is below one unit counts as zero."""
    places = term.exponent - grid
    units = shifted(a, term.significand, places)
    below = ~a.eq(shifted(a, units, 0 - places), term.significand)
    if drops is not None:
        below = below & ~(drops & a.eq(units, 0))
    return a.select(term.negative, 0 - a.i32(units) - a.i32(below), a.i32(units))


def _add(a: Ops, addend: Term, products: Sequence[Product], floor: int | None) -> Total:
    floor = LEAST if floor is None else floor
    own = largest(a, [product.grid for product in products])
    grid = a.max(own, a.max(addend.leading(a), floor) - 26)
    group: Value = a.constant("i32", 0)
    for product in products:
        group = group + _cut(a, product.term, own)
    total = _cut(a, addend, grid, a.lt(a.constant("i32", floor), grid))
    total = total + _cut(a, Term(a.u32(magnitude(a, group)), own, a.lt(group, 0)), grid)
    return Total(a.u32(magnitude(a, total)), grid, a.lt(total, 0))


ARITHMETIC = Arithmetic(_add, frozenset(("f16", "bf16", "fp8", "bf8", "f32")))


def _dot4(left: str, right: str) -> Evaluate:
    def evaluate(a: Ops, x: Value, y: Value, addend: Value, fields: Fields) -> Value:
        pairs = [(a.u32(x) >> shift & 0xFF, a.u32(y) >> shift & 0xFF) for shift in range(0, 32, 8)]
        return dot(a, ARITHMETIC, pairs, (left, right), accumulator(a, a.f32(addend), fields), invalid=FACTOR_NAN)

    return evaluate


DOT4 = {f"v_dot4_f32_{left}_{right}": _dot4(left, right) for left in ("fp8", "bf8") for right in ("fp8", "bf8")}

DEFINITIONS: list[Definition] = [*definitions(ARITHMETIC), *family(DOT4, reads=("fields",))]
