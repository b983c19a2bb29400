"""Dot products of gfx11: terms that oppose the accumulator's sign are cut to their ones' complement.

So a term of the other sign takes one unit more than what was cut off, even a zero. f32 and bf16 have no denormals.
"""

from __future__ import annotations

from collections.abc import Sequence

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import magnitude
from amdrv.emulator.isa.semantics.definition import Definition
from amdrv.emulator.isa.semantics.dot import Arithmetic, Product, Term, Total, definitions, largest, shifted


def _add(a: Ops, addend: Term, products: Sequence[Product], floor: int | None) -> Total:
    terms = [addend, *(product.term for product in products)]
    leading = [term.leading(a) for term in terms]
    if floor is not None:
        leading[0] = a.max(leading[0], floor)
    grid = largest(a, [*(product.grid for product in products), largest(a, leading) - 26])
    total: Value = a.constant("i32", 0)
    nothing = a.constant("u32", 0)
    for term in terms:
        units = a.i32(shifted(a, term.significand, term.exponent - grid))
        total = total + a.select(term.negative ^ addend.negative, ~units, units)
        nothing = nothing | term.significand
    total = a.select(a.eq(nothing, 0), 0, total)
    return Total(a.u32(magnitude(a, total)), grid, a.lt(total, 0) ^ addend.negative)


DEFINITIONS: list[Definition] = definitions(Arithmetic(_add, frozenset(("f16",))))
