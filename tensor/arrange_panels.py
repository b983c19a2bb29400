"""Large matrix products on the host: operands that are not as the innermost loop wants them are copied into panels.

A tile's loop reads columns of the right operand as vectors, one behind the other, and rows of the left one as scalars.
What lies otherwise in memory, or must be computed first, is laid out so in memory of the thread: the right operand for
each tile of columns, the left one for each tile of rows. Copying takes a small part of the time of multiplying.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from amdrv.tensor import symbolic
from amdrv.tensor.ir import Axis, Node, Op, ranges_in, toposort
from amdrv.tensor.optimise import Nest, Numbers, Tile, arrange, cut
from amdrv.tensor.product import Product

PANEL_BYTES_MAX = 1 << 19  # a thread's stack has room for both
WORTH = 32  # rows and columns from which copies pay
REUSED = 256  # rows from which columns are worth being beside each other, whatever they are otherwise
VECTOR = 16
PADDING = 16  # elements behind each row of the left panel: rows a power of two apart share lines of the cache


def panels_of(product: Product, totals: tuple[int, int]) -> tuple[bool, bool]:
    """Whether the left and the right operand are copied into panels."""
    if min(product.row.arg[1], product.column.arg[1], product.inner.arg[1]) < WORTH:
        return False, False
    left, right = product.left, product.right
    wanted = (left.op is not Op.LOAD, not _in_rows(product) or product.row.arg[1] >= REUSED)
    copied = []
    for value, size, want in zip((left, right), totals, wanted, strict=True):
        fits = size * product.inner.arg[1] * value.dtype.size_bytes <= PANEL_BYTES_MAX
        copied.append(want and fits and all(node.op is not Op.REDUCE for node in toposort([value])))
    return copied[0], copied[1]


def _in_rows(product: Product) -> bool:
    """Whether columns of the right operand that are neighbours are so in memory."""
    return product.right.op is Op.LOAD and symbolic.factor_of(product.right.src[1], product.column) == 1


def narrowed(product: Product, lanes: int) -> tuple[int, int]:
    """Lanes of a vector of columns and how many vectors: few where a panel of columns has room for few."""
    if _in_rows(product):
        return lanes, product.column.arg[1]
    columns = PANEL_BYTES_MAX // (product.inner.arg[1] * product.right.dtype.size_bytes)
    lanes = min(lanes, 1 << max(1, columns).bit_length() - 1)
    return lanes, max(1, columns // lanes)


def arrange_panels(
    stores: tuple[Node, ...],
    loops: Sequence[Node],
    product: Product,
    tiles: dict[Node, Tile],
    panels: tuple[bool, bool],
    numbers: Numbers,
) -> list[Nest]:
    """The loops of a kernel with a product: columns outside of rows, so that a panel of columns stays in the cache."""
    outer = [loop for loop in loops if loop not in (product.row, product.column)]
    ways = (product.column, product.row)
    nests = []
    for across, down in itertools.product(*(cut(loop, tiles.get(loop, Tile()), numbers) for loop in ways)):
        order = ranges_in((*outer, across.loop, down.loop))
        before: list[tuple[int, Nest]] = []
        right = [symbolic.substitute(product.right, {product.column: at}) for at in across.positions]
        left = [symbolic.substitute(product.left, {product.row: at}) for at in down.positions]
        if panels[1]:
            around = ranges_in((*outer, across.loop))
            right, fill = _right_panel(product, across.positions, around, numbers)
            before += [(len(around), nest) for nest in fill]
        if panels[0]:
            left, fill = _left_panel(product, down.positions, order, VECTOR, numbers)
            before += [(len(order), nest) for nest in fill]
        body: list[Node] = []
        for (row, a), (column, b) in itertools.product(
            zip(down.positions, left, strict=True), zip(across.positions, right, strict=True)
        ):
            total = Node(Op.REDUCE, product.reduce.dtype, (a * b, product.inner), Op.ADD)
            places = {product.row: row, product.column: column, product.reduce: total}
            body += symbolic.substituted(stores, places)
        nests.append(Nest(order, tuple(body), tuple(before)))
    return nests


def _right_panel(
    product: Product, positions: Sequence[Node], loops: Sequence[Node], numbers: Numbers
) -> tuple[list[Node], list[Nest]]:
    """(what each vector of columns is now, loops that copy them): a row of the panel for each step."""
    lane = next((part for part in positions[0].ranges if part.arg[2] is Axis.LANE), symbolic.ZERO)
    lanes = lane.arg[1] if lane.op is Op.RANGE else 1
    first = symbolic.substitute(positions[0], {lane: symbolic.ZERO}) if lanes > 1 else positions[0]
    width = lanes * len(positions)
    panel = Node(Op.SHARED, product.right.dtype, tuple(loops), (0, product.inner.arg[1] * width))
    fill = _fill(panel, (width, 1), (product.right, product.inner, product.column), first, width, lanes, numbers)
    base = product.inner * width + lane
    return [_load(panel, base + step * lanes) for step in range(len(positions))], fill


def _left_panel(
    product: Product, positions: Sequence[Node], loops: Sequence[Node], lanes: int, numbers: Numbers
) -> tuple[list[Node], list[Nest]]:
    """(what each row's scalar is now, loops that copy them): as they lie in memory, along rows or along steps."""
    width, depth = len(positions), product.inner.arg[1]
    steps = (width, 1) if _neighbours(product.left, product.row) else (1, depth + PADDING)
    panel = Node(Op.SHARED, product.left.dtype, tuple(loops), (1, width * (depth + PADDING)))
    fill = _fill(panel, steps, (product.left, product.inner, product.row), positions[0], width, lanes, numbers)
    base = product.inner * steps[0]
    return [_load(panel, base + step * steps[1]) for step in range(width)], fill


def _fill(
    panel: Node,
    steps: tuple[int, int],
    operand: tuple[Node, Node, Node],
    first: Node,
    width: int,
    lanes: int,
    numbers: Numbers,
) -> list[Nest]:
    """Loops that copy an operand, (value, reduced range, own range), of which ``width`` elements begin at ``first``.

    ``steps``: how far a step of the reduced range and of the own one is in the panel.
    """
    value, inner, own = operand
    along, beside = numbers.make(inner.arg[1], Axis.LOOP), numbers.make(width, Axis.LOOP)
    copied = symbolic.substitute(value, {own: first + beside, inner: along})
    place = along * steps[0] + beside * steps[1]
    store = Node(Op.STORE, value.dtype, (panel, place, copied))
    tiles = {beside: Tile(-(-width // lanes), lanes)} if _neighbours(value, own) else {along: Tile(1, lanes)}
    return arrange((store,), (along, beside), tiles, numbers)


def _neighbours(value: Node, own: Node) -> bool:
    """Whether elements along a range lie beside each other in memory."""
    loads = [node for node in toposort([value]) if node.op is Op.LOAD]
    return all(symbolic.factor_of(node.src[1], own) in (0, 1) for node in loads)


def _load(panel: Node, position: Node) -> Node:
    return Node(Op.LOAD, panel.dtype, (panel, position, symbolic.TRUE))
