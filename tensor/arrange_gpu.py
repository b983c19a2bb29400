"""How a kernel's loops are spread over a GPU.

*Items*: every work-item computes a tile of results by itself. *Rows*: a workgroup computes one row of results; the
reductions that the whole row shares (the maximum and the sum of softmax) are computed by its work-items together.
Products of float16 matrices have a layout of their own, in ``arrange_matrix``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from amdrv.tensor import ir, symbolic
from amdrv.tensor.arrange_matrix import MatrixCores, MatrixTile, arrange_product, narrow_product
from amdrv.tensor.ir import Axis, Node, Op, ranges_in
from amdrv.tensor.optimise import (
    Layout,
    Nest,
    Numbers,
    Tile,
    accesses,
    along,
    cut,
    gate_loads,
    gated_store,
    lane_score,
    loops_of,
    merge_loops,
    ranked,
    reduces_of,
    size_of,
)

ITEMS = 256  # of a workgroup
ROW_MIN = 256  # elements of a reduction that a workgroup shares
ROWS_MAX = 4096  # results above which there are enough work-items without sharing
VECTOR = 4
SIDES = (1, 2, 4, 8)  # of squares of totals


def for_gpu(stores: tuple[Node, ...], cores: MatrixCores | None, rank: int, tiles: Sequence[MatrixTile]) -> Layout:
    """The layout of a kernel. ``cores``: None where there are no matrix cores; ``rank`` among tiles: see ``ranked``."""
    stores = merge_loops(stores)
    loops = loops_of(stores)
    found = reduces_of(stores)
    results = size_of(loops)
    product = narrow_product(loops, found) if cores is not None and stores[0].arg is None else None
    if product is not None and cores is not None:
        others = results // (product.row.arg[1] * product.column.arg[1])
        tile = ranked(tiles, lambda tile: tile.cost(product, others, cores), rank)
        return arrange_product(stores, loops, product, cores.lanes, tile)
    shared = [node for node in found if node.ranges < frozenset(loops)]
    if shared:
        row = max((node.ranges for node in shared), key=len)
        return _rows(stores, [loop for loop in loops if loop in row], [loop for loop in loops if loop not in row])
    longest = max((size_of(node.src[1:]) for node in found), default=1)
    if longest >= ROW_MIN and results <= ROWS_MAX and longest >= results // 4:
        return _rows(stores, loops, [])
    return _items(stores, loops, found, rank)


def _items(stores: tuple[Node, ...], loops: Sequence[Node], found: Sequence[Node], rank: int) -> Layout:
    numbers = Numbers()
    tiles = _tiles(stores, loops, found, rank)
    pieces = {loop: cut(loop, tile, numbers)[0] for loop, tile in tiles.items()}
    kept = ranges_in(pieces[loop].loop if loop in pieces else loop for loop in loops)
    total = size_of(kept)
    items = min(ITEMS, max(32, 1 << (total - 1).bit_length()))
    group = numbers.make(-(-total // items), Axis.GROUP)
    item = numbers.make(items, Axis.ITEM)
    place = group * items + item
    where, inside = along(kept, place), symbolic.less(place, total)
    if kept and (len(kept) == 1 or inside is not symbolic.TRUE):
        # The first axis has no remainder to take: past its end nothing runs.
        where[kept[0]] = place // size_of(kept[1:])
    body: list[Node] = []
    for positions in itertools.product(*(pieces[loop].positions for loop in tiles)):
        tiled = zip(tiles, symbolic.substituted(positions, where), strict=True)
        body += symbolic.substituted(stores, where | dict(tiled))
    return Layout(group, item, Nest((), tuple(body)), inside)


def _tiles(stores: tuple[Node, ...], loops: Sequence[Node], found: Sequence[Node], rank: int) -> dict[Node, Tile]:
    """Tiles that divide their ranges: four neighbours at a time, or squares of totals that share operands."""
    if not loops or stores[0].arg is not None:
        return {}
    last = loops[-1]
    touched = accesses(stores)
    if not found:
        steps = {symbolic.factor_of(node.src[1], last) for node in touched}
        plain = all(len(node.src) < 3 or node.op is Op.STORE or node.src[2] is symbolic.TRUE for node in touched)
        neighbours = steps <= {0, 1} and plain and lane_score(last, touched) > 0
        return {last: Tile(1, VECTOR)} if neighbours and last.arg[1] % VECTOR == 0 else {}
    inner = accesses(found)
    reused = [loop for loop in loops if any(node.op is Op.LOAD and loop not in node.ranges for node in inner)][-2:]
    results = size_of(loops)
    dividing = [side for side in SIDES if all(loop.arg[1] % side == 0 for loop in reused)]
    # Sharing operands is worth most, until there are too few work-items, or registers.
    side = ranked(dividing, lambda side: abs(side - (VECTOR if results >= 64 * VECTOR**2 else 1)), rank)
    return {loop: Tile(side) for loop in reused} if side > 1 else {}


def _rows(stores: tuple[Node, ...], row: Sequence[Node], across: Sequence[Node]) -> Layout:
    numbers = Numbers()
    group, item = numbers.make(size_of(row), Axis.GROUP), numbers.make(ITEMS, Axis.ITEM)

    def shared(node: Node) -> Node:
        return _share(node, item, numbers) if node.op is Op.REDUCE and node.ranges <= frozenset(row) else node

    stores = symbolic.changed(stores, shared)
    width = size_of(across)
    trips = numbers.trips(-(-width // ITEMS), Axis.LOOP)
    place = trips * ITEMS + item
    gate = symbolic.less(place, width) if across else symbolic.less(item, 1)
    stores = symbolic.substituted(stores, along(row, group) | along(across, place))
    nest = Nest(ranges_in([trips]), tuple(gated_store(store, gate) for store in stores))
    return Layout(group, item, nest, symbolic.TRUE)


def _share(node: Node, item: Node, numbers: Numbers) -> Node:
    """A reduction whose longest range is dealt out to the work-items."""
    value, *ranges = node.src
    longest = max(ranges, key=lambda part: part.arg[1])
    n = longest.arg[1]
    trips = numbers.trips(-(-n // ITEMS), Axis.REDUCE)
    place = trips * ITEMS + item
    value = symbolic.substitute(value, {longest: place})
    inside = symbolic.less(place, n)
    if inside is not symbolic.TRUE:
        value = ir.where(inside, gate_loads(value, inside), ir.const(node.dtype, ir.identity(node.arg, node.dtype)))
    return ir.reduced(node.arg, value, *(part for part in ranges if part is not longest), trips, item)
