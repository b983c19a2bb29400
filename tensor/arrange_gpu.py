"""How a kernel's loops are spread over a GPU.

*Items*: every work-item computes a tile of results by itself. *Rows*: a workgroup computes one row of results; the
reductions that the whole row shares (the maximum and the sum of softmax) are computed by its work-items together.
Products of float16 matrices have a layout of their own, in ``arrange_matrix``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from amdrv.tensor import ir, symbolic
from amdrv.tensor.arrange_matrix import MatrixCores, MatrixTile, arrange_product, narrow_product
from amdrv.tensor.ir import Axis, Node, Op, ranges_in, toposort
from amdrv.tensor.optimise import (
    Layout,
    Nest,
    Numbers,
    Tile,
    accesses,
    cut,
    gate_loads,
    gated_store,
    lane_score,
    loops_of,
    merge_loops,
    ranked,
    reduces_of,
)
from amdrv.tensor.shapes import unflat

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
    results = math.prod(loop.arg[1] for loop in loops)
    product = narrow_product(loops, found) if cores is not None and stores[0].arg is None else None
    if product is not None and cores is not None:
        others = results // (product.row.arg[1] * product.column.arg[1])
        tile = ranked(tiles, lambda tile: tile.cost(product, others, cores), rank)
        return arrange_product(stores, loops, product, cores.lanes, tile)
    shared = [node for node in found if node.ranges < frozenset(loops)]
    if shared:
        row = max((node.ranges for node in shared), key=len)
        return _rows(stores, [loop for loop in loops if loop in row], [loop for loop in loops if loop not in row])
    longest = max((math.prod(part.arg[1] for part in node.src[1:]) for node in found), default=1)
    if longest >= ROW_MIN and results <= ROWS_MAX and longest >= results // 4:
        return _rows(stores, loops, [])
    return _items(stores, loops, found, rank)


def _items(stores: tuple[Node, ...], loops: Sequence[Node], found: Sequence[Node], rank: int) -> Layout:
    numbers = Numbers()
    tiles = _tiles(stores, loops, found, rank)
    pieces = {loop: cut(loop, tile, numbers)[0] for loop, tile in tiles.items()}
    kept = ranges_in(pieces[loop].loop if loop in pieces else loop for loop in loops)
    total = math.prod(loop.arg[1] for loop in kept)
    items = min(ITEMS, max(32, 1 << (total - 1).bit_length()))
    group = numbers.make(-(-total // items), Axis.GROUP)
    item = numbers.make(items, Axis.ITEM)
    place = group * items + item
    where = dict(zip(kept, unflat(place, tuple(loop.arg[1] for loop in kept)), strict=True))
    inside = symbolic.less(place, total)
    if len(kept) == 1 or inside is not symbolic.TRUE:
        # The first axis has no remainder to take: past its end nothing runs.
        rest = math.prod(loop.arg[1] for loop in kept[1:])
        if kept:
            where[kept[0]] = place // rest
    body = []
    for positions in itertools.product(*(pieces[loop].positions for loop in tiles)):
        memo: dict[Node, Node] = {}
        tiled = {loop: symbolic.substitute(at, where) for loop, at in zip(tiles, positions, strict=True)}
        body += [symbolic.substitute(store, where | tiled, memo) for store in stores]
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
    results = math.prod(loop.arg[1] for loop in loops)
    dividing = [side for side in SIDES if all(loop.arg[1] % side == 0 for loop in reused)]
    # Sharing operands is worth most, until there are too few work-items, or registers.
    side = ranked(dividing, lambda side: abs(side - (VECTOR if results >= 64 * VECTOR**2 else 1)), rank)
    return {loop: Tile(side) for loop in reused} if side > 1 else {}


def _rows(stores: tuple[Node, ...], row: Sequence[Node], across: Sequence[Node]) -> Layout:
    numbers = Numbers()
    group = numbers.make(math.prod(loop.arg[1] for loop in row), Axis.GROUP)
    item = numbers.make(ITEMS, Axis.ITEM)
    where = dict(zip(row, unflat(group, tuple(loop.arg[1] for loop in row)), strict=True))
    shared_ranges = frozenset(row)
    memo: dict[Node, Node] = {}
    for node in toposort(stores):
        rebuilt = symbolic.rebuild(node, tuple(memo[source] for source in node.src))
        if node.op is Op.REDUCE and node.ranges <= shared_ranges and rebuilt.op is Op.REDUCE:
            rebuilt = _share(rebuilt, item, numbers)
        memo[node] = rebuilt
    stores = tuple(memo[store] for store in stores)
    width = math.prod(loop.arg[1] for loop in across)
    trips = numbers.trips(-(-width // ITEMS), Axis.LOOP)
    place = trips * ITEMS + item
    gate = symbolic.less(place, width) if across else symbolic.less(item, 1)
    where |= dict(zip(across, unflat(place, tuple(loop.arg[1] for loop in across)), strict=True))
    placed: dict[Node, Node] = {}
    stores = tuple(symbolic.substitute(store, where, placed) for store in stores)
    stores = tuple(gated_store(store, gate) for store in stores)
    return Layout(group, item, Nest(ranges_in([trips]), stores), symbolic.TRUE)


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
