"""Matrix products in kernels: sums of products of which each side has a range of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amdrv.tensor.ir import Node, Op

WORTH = 8  # rows, columns and depth from which it is worth while to treat a product as one


@dataclass(frozen=True, slots=True)
class Product:
    """Rows are the left operand's own range, columns the right one's."""

    reduce: Node
    left: Node
    right: Node
    row: Node
    column: Node

    @property
    def inner(self) -> Node:
        """The range that is reduced."""
        return self.reduce.src[1]

    def turned(self) -> Product:
        """The same product with its sides exchanged."""
        return Product(self.reduce, self.right, self.left, self.column, self.row)


def find_product(loops: Sequence[Node], found: Sequence[Node]) -> Product | None:
    """The product that a kernel computes, if its only reduction is one."""
    if len(found) != 1 or found[0].arg is not Op.ADD or len(found[0].src) != 2 or found[0].ranges != frozenset(loops):
        return None
    (reduce,) = found
    value, inner = reduce.src
    if value.op is not Op.MUL or inner.arg[1] < WORTH or not all(inner in side.ranges for side in value.src):
        return None
    wide = [loop for loop in loops if loop.arg[1] >= WORTH]
    own = [[loop for loop in wide if loop in one.ranges - other.ranges] for one, other in (value.src, value.src[::-1])]
    if not all(own):
        return None
    return Product(reduce, *value.src, *(max(part, key=lambda loop: (loop.arg[1], loop.arg[0])) for part in own))
