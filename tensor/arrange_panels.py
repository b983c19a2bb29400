"""Large matrix products on the host: operands that are not as the innermost loop wants them are copied into panels.

A tile's loop reads columns of the right operand as vectors, one behind the other, and rows of the left one as scalars.
What lies otherwise in memory, or must be computed first, is laid out so in memory of the thread: the right operand for
each tile of columns, the left one for each tile of rows. Copying takes a small part of the time of multiplying.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from amdrv.tensor import symbolic
from amdrv.tensor.ir import Axis, Node, Op, toposort
from amdrv.tensor.optimise import Nest, Numbers, Tile, arrange, cut
from amdrv.tensor.product import Product

PANEL_BYTES_MAX = 1 << 19  # a thread's stack has room for both
WORTH = 32  # rows and columns from which copies pay
PADDING = 16  # elements behind each row of the left panel: rows a power of two apart share lines of the cache


def panels_of(product: Product, totals: tuple[int, int]) -> tuple[bool, bool]:
    """Whether the left and the right operand are copied into panels."""
    if min(product.row.arg[1], product.column.arg[1], product.inner.arg[1]) < WORTH:
        return False, False
    wanted = []
    for value, own, size in ((product.left, None, totals[0]), (product.right, product.column, totals[1])):
        plain = value.op is Op.LOAD and (own is None or symbolic.factor_of(value.src[1], own) == 1)
        fits = size * product.inner.arg[1] * value.dtype.size_bytes <= PANEL_BYTES_MAX
        wanted.append(not plain and fits and all(node.op is not Op.REDUCE for node in toposort([value])))
    return wanted[0], wanted[1]


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
        order = [*outer, *(piece.loop for piece in (across, down) if piece.loop is not None)]
        before: list[tuple[int, Nest]] = []
        right = [symbolic.substitute(product.right, {product.column: at}) for at in across.positions]
        left = [symbolic.substitute(product.left, {product.row: at}) for at in down.positions]
        depths = list(itertools.accumulate([len(outer), across.loop is not None, down.loop is not None]))
        if panels[1]:
            right, fill = _right_panel(product, across.positions, order[: depths[1]], numbers)
            before += [(depths[1], nest) for nest in fill]
        if panels[0]:
            left, fill = _left_panel(product.inner, left, order, numbers)
            before += [(depths[2], nest) for nest in fill]
        body = []
        for (row, a), (column, b) in itertools.product(
            zip(down.positions, left, strict=True), zip(across.positions, right, strict=True)
        ):
            total = Node(Op.REDUCE, product.reduce.dtype, (a * b, product.inner), Op.ADD)
            places = {product.row: row, product.column: column, product.reduce: total}
            body += [symbolic.substitute(store, places) for store in stores]
        nests.append(Nest(tuple(order), tuple(body), tuple(before)))
    return nests


def _right_panel(
    product: Product, positions: Sequence[Node], loops: Sequence[Node], numbers: Numbers
) -> tuple[list[Node], list[Nest]]:
    """(what each vector of columns is now, loops that copy them): one row of the panel for each step."""
    value, column, inner = product.right, product.column, product.inner
    lane = next((part for part in positions[0].ranges if part.arg[2] is Axis.LANE), symbolic.ZERO)
    lanes = lane.arg[1] if lane.op is Op.RANGE else 1
    width = lanes * len(positions)
    panel = Node(Op.SHARED, value.dtype, tuple(loops), (0, inner.arg[1] * width))
    along, beside = numbers.make(inner.arg[1], Axis.LOOP), numbers.make(width, Axis.LOOP)
    base = symbolic.substitute(positions[0], {lane: symbolic.ZERO}) if lanes > 1 else positions[0]
    copied = symbolic.substitute(value, {column: symbolic.add(base, beside), inner: along})
    place = symbolic.add(symbolic.scale(along, width), beside)
    fill = Node(Op.STORE, value.dtype, (panel, place, copied))
    loads = [node for node in toposort([value]) if node.op is Op.LOAD]
    neighbours = all(symbolic.factor_of(node.src[1], column) in (0, 1) for node in loads)
    tiles = {beside: Tile(len(positions), lanes)} if neighbours else {along: Tile(1, lanes)}
    first = symbolic.add(symbolic.scale(inner, width), lane)
    steps = [symbolic.offset(first, step * lanes) for step in range(len(positions))]
    vectors = [Node(Op.LOAD, value.dtype, (panel, step, symbolic.TRUE)) for step in steps]
    return vectors, arrange((fill,), (along, beside), tiles, numbers)


def _left_panel(
    inner: Node, rows: Sequence[Node], loops: Sequence[Node], numbers: Numbers
) -> tuple[list[Node], list[Nest]]:
    """(what each row's scalar is now, loops that copy them)."""
    pitch = inner.arg[1] + PADDING
    panel = Node(Op.SHARED, rows[0].dtype, tuple(loops), (1, len(rows) * pitch))
    along = numbers.make(inner.arg[1], Axis.LOOP)
    fills = tuple(
        Node(
            Op.STORE,
            value.dtype,
            (panel, symbolic.offset(along, pitch * number), symbolic.substitute(value, {inner: along})),
        )
        for number, value in enumerate(rows)
    )
    scalars = [
        Node(Op.LOAD, value.dtype, (panel, symbolic.offset(inner, pitch * number), symbolic.TRUE))
        for number, value in enumerate(rows)
    ]
    return scalars, arrange(fills, (along,), {along: Tile(1, PADDING)}, numbers)
