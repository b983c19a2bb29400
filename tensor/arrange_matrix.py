"""Products of half-precision matrices on the matrix cores of gfx11 and gfx12.

One wave computes squares of 16 x 16 results. Lane l holds row l % 16 of the left matrix, and column l % 16 of the right
one and of the result. Source: AMD, "RDNA3" and "RDNA4 Instruction Set Architecture", sections on WMMA. On gfx11 both
halves of the wave hold all 16 elements of their row, and of the result rows 2 r + l // 16; on gfx12 each half holds 8
of the elements, and rows r + 8 (l // 16), for r = 0 … 7.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from amdrv.tensor import dtypes, symbolic
from amdrv.tensor.ir import Axis, Node, Op
from amdrv.tensor.optimise import Nest, Numbers
from amdrv.tensor.shapes import unflat

SIDE = 16
PARTS = 8  # results that a lane holds of a square
SQUARES = 2  # along each side, of one wave: each operand is then used twice


@dataclass(frozen=True, slots=True)
class Product:
    """A reduction that is a matrix product: rows are the left operand's own range, columns the right one's."""

    reduce: Node
    left: Node
    right: Node
    row: Node
    column: Node


def find_product(loops: Sequence[Node], found: Sequence[Node]) -> Product | None:
    """The product that a kernel computes, if it is of a kind that matrix cores compute."""
    if len(found) != 1 or found[0].arg is not Op.ADD or len(found[0].src) != 2 or found[0].ranges != frozenset(loops):
        return None
    (reduce,) = found
    value, inner = reduce.src
    if value.op is not Op.MUL or inner.arg[1] % SIDE:
        return None
    left, right = (_half(source) for source in value.src)
    if left is None or right is None or inner not in left.ranges or inner not in right.ranges:
        return None
    rows = [loop for loop in loops if loop in left.ranges and loop not in right.ranges and loop.arg[1] % SIDE == 0]
    columns = [loop for loop in loops if loop in right.ranges and loop not in left.ranges and loop.arg[1] % SIDE == 0]
    return Product(reduce, left, right, rows[-1], columns[-1]) if rows and columns else None


def _half(value: Node) -> Node | None:
    """The load of a float16 that is widened here."""
    if value.op is not Op.CAST or value.src[0].op is not Op.LOAD or value.src[0].dtype is not dtypes.float16:
        return None
    return value.src[0] if value.src[0].src[2] is symbolic.TRUE else None


def arrange_product(
    stores: tuple[Node, ...], loops: Sequence[Node], product: Product, lanes: int
) -> tuple[Node, Node, Nest]:
    """(group, item, nest) of a kernel with a product: a wave for each few squares.

    ``lanes`` is how many elements of its row a lane holds: 16 on gfx11, 8 on gfx12.
    """
    numbers = Numbers()
    item = numbers.make(32, Axis.ITEM)
    low, high = symbolic.modulo(item, SIDE), symbolic.divide(item, SIDE)
    inner = product.reduce.src[1]
    trips = numbers.make(inner.arg[1] // SIDE, Axis.REDUCE)
    lane = numbers.make(lanes, Axis.LANE)
    start = symbolic.scale(trips, SIDE) if trips.arg[1] > 1 else symbolic.ZERO
    whole = lanes == SIDE
    along = symbolic.add(start, lane if whole else symbolic.add(symbolic.scale(high, lanes), lane))
    squares = {loop: SQUARES if loop.arg[1] % (SIDE * SQUARES) == 0 else 1 for loop in (product.row, product.column)}
    counts = tuple(loop.arg[1] // (SIDE * squares[loop]) if loop in squares else loop.arg[1] for loop in loops)
    group = numbers.make(math.prod(counts), Axis.GROUP)
    where = dict(zip(loops, unflat(group, counts), strict=True))
    body = []
    for down, across in itertools.product(range(squares[product.row]), range(squares[product.column])):
        top = symbolic.offset(symbolic.scale(where[product.row], SIDE * squares[product.row]), down * SIDE)
        side = symbolic.offset(symbolic.scale(where[product.column], SIDE * squares[product.column]), across * SIDE)
        mine = {product.row: symbolic.add(top, low), product.column: symbolic.add(side, low), inner: along}
        operands = tuple(symbolic.substitute(part, {**where, **mine}) for part in (product.left, product.right))
        step = Node(Op.MATRIX, dtypes.float32, operands)
        ranges = (trips, lane) if trips.arg[1] > 1 else (lane,)
        square = Node(Op.REDUCE, dtypes.float32, (step, *ranges), Op.MATRIX)
        for part in range(PARTS):
            result = Node(Op.PART, dtypes.float32, (square,), part)
            row = symbolic.add(
                symbolic.offset(top, 2 * part if whole else part), symbolic.scale(high, 1 if whole else PARTS)
            )
            at = {**where, product.row: row, product.column: symbolic.add(side, low), product.reduce: result}
            body += [symbolic.substitute(store, at) for store in stores]
    return group, item, Nest((), tuple(body))
