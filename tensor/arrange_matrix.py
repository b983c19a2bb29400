"""Products of half-precision matrices on the matrix cores of gfx11 and gfx12.

A workgroup computes a tile of results, slice by slice of the reduced range. Its work-items bring both operands' slices
into LDS, the next slice while they multiply this one, so there are two buffers for each. Tiles that reach past the edge
read the last row again, and elements past the reduced range are zero.

A wave multiplies squares of 16 x 16: lane l holds row l % 16 of the left operand, and column l % 16 of the right one
and of the result. On gfx11 both halves of the wave hold all 16 elements of their row, and of the result rows
2 r + l // 16; on gfx12 each half holds 8 of the elements, and rows r + 8 (l // 16), for r = 0 … 7. Source: AMD,
"RDNA3" and "RDNA4 Instruction Set Architecture", sections on WMMA.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from amdrv.tensor import dtypes, ir, symbolic
from amdrv.tensor.decompose import decompose
from amdrv.tensor.ir import Axis, Node, Op, toposort
from amdrv.tensor.optimise import Layout, Nest, Numbers, gate_loads, gated_store
from amdrv.tensor.product import Product, find_product
from amdrv.tensor.shapes import unflat

SIDE = 16
PARTS = 8  # results that a lane holds of a square
WAVE = 32
CHUNK = 8  # elements that a work-item brings at once: 16 bytes
LATENCY = 600  # cycles until what a slice waits for is there
PADDING = 8  # elements behind each row in LDS, so that neighbouring rows begin in different banks


@dataclass(frozen=True, slots=True)
class MatrixCores:
    """What differs between processors: elements of its row that a lane holds, and pairs of compute units at most."""

    lanes: int
    processors: int


CORES = {"gfx110": MatrixCores(16, 48), "gfx115": MatrixCores(16, 20), "gfx120": MatrixCores(8, 32)}


@dataclass(frozen=True, slots=True)
class MatrixTile:
    """What a workgroup computes at once: waves beside each other, squares of each, and the depth of a slice."""

    waves: tuple[int, int]  # down, across
    squares: tuple[int, int]
    depth: int

    @property
    def items(self) -> int:
        return WAVE * self.waves[0] * self.waves[1]

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of results."""
        return SIDE * self.waves[0] * self.squares[0], SIDE * self.waves[1] * self.squares[1]

    def cost(self, product: Product, others: int, cores: MatrixCores) -> float:
        """Modelled cycles of a product that is done ``others`` times.

        A slice takes what is slowest: multiplying (32 cycles for a square on each of four units), LDS (256 bytes a
        cycle) or the cache behind it (64); and memory's latency where few workgroups share a processor.
        """
        waves, steps, registers = self.items // WAVE, self.depth // SIDE, 40
        squares, sides = self.squares[0] * self.squares[1], sum(self.squares)
        fragments = waves * sides * steps * WAVE * 2 * cores.lanes
        brought = sum(self.sides) * self.depth * 2
        slice_cycles = max(waves * squares * steps * 32 / 4, (fragments + brought) / 256, brought / 64)
        registers += 8 * squares + sides * steps * cores.lanes // 2
        counts = [-(-loop.arg[1] // side) for loop, side in zip((product.row, product.column), self.sides, strict=True)]
        groups: float = counts[0] * counts[1] * others / cores.processors
        resident = max(1.0, min(groups, 4 * (1536 // registers) / waves))
        trips: int = -(-product.inner.arg[1] // self.depth)
        return max(1.0, groups) * trips * max(slice_cycles, (slice_cycles + LATENCY) / resident)


TILES = (
    MatrixTile((2, 2), (4, 4), 16),
    MatrixTile((2, 4), (4, 2), 32),
    MatrixTile((2, 2), (4, 2), 32),
    MatrixTile((2, 2), (2, 2), 32),
    MatrixTile((2, 2), (1, 1), 32),
    MatrixTile((1, 1), (2, 2), 16),
    MatrixTile((1, 1), (1, 1), 16),
)


def narrow_product(loops: Sequence[Node], found: Sequence[Node]) -> Product | None:
    """The product that a kernel computes, if it is of a kind that matrix cores compute; its operands are narrow."""
    product = find_product(loops, found)
    if product is None:
        return None
    left, right = _narrow(product.left), _narrow(product.right)
    if left is None or right is None or left.dtype is not right.dtype:
        return None
    return replace(product, left=left, right=right)


def _narrow(value: Node) -> Node | None:
    """The float16 or bfloat16 that is widened here."""
    if value.op is Op.CAST and value.src[0].dtype is dtypes.float16:
        return value.src[0]
    loads = [node for node in toposort([value]) if node.op is Op.LOAD and node.dtype is dtypes.bfloat16]
    return loads[0] if len(loads) == 1 and value is decompose(loads[0].cast(dtypes.float32)) else None


class Operand:
    """One side of a product: how its slices come into LDS, and from there to the lanes of a wave."""

    def __init__(self, value: Node, along: Node, inner: Node, number: int, side: int, tile: MatrixTile) -> None:
        self._value, self._along, self._inner = value, along, inner
        self._side, self._tile = side, tile
        self._pitch = tile.depth + PADDING
        self._shared = Node(Op.SHARED, value.dtype, (), (number, 2 * side * self._pitch))

    def _place(self, half: Node, row: Node, at: Node) -> Node:
        """Where an element is in LDS."""
        return half * (self._side * self._pitch) + (row * self._pitch + at)

    def bring(
        self, half: Node, start: Node, first: Node, item: Node, where: Mapping[Node, Node], lane: Node
    ) -> list[Node]:
        """Stores of the slice from ``start`` of the rows from ``first`` into one half of the buffer."""
        chunks, items = self._tile.depth // CHUNK, self._tile.items
        each = self._side * chunks // items
        stores = []
        for step in range(each):
            if self._row_is_contiguous():  # neighbouring rows are neighbours in memory
                row = item % (items // chunks) * each + step
                chunk = item // (items // chunks)
            else:
                unit = item + step * items
                row, chunk = unit // chunks, unit % chunks
            begin = chunk * CHUNK
            at = begin + lane
            n, size = self._along.arg[1], self._inner.arg[1]
            along = symbolic.clamp(first + row, 0, n - 1)
            inner = start + at
            whole = start + begin if size % CHUNK == 0 else inner
            value = symbolic.substitute(self._value, {**where, self._along: along, self._inner: inner})
            inside = symbolic.less(whole, size)
            if inside is not symbolic.TRUE:
                value = gate_loads(value, inside)
                if value.op is not Op.LOAD:
                    value = ir.where(inside, value, ir.const(value.dtype, 0.0))
            stores.append(Node(Op.STORE, value.dtype, (self._shared, self._place(half, row, at), value)))
        return stores

    def _row_is_contiguous(self) -> bool:
        loads = [node for node in toposort([self._value]) if node.op is Op.LOAD]
        return any(symbolic.factor_of(node.src[1], self._along) == 1 for node in loads)

    def fragment(self, half: Node, row: Node, at: Node) -> Node:
        """A lane's elements of a row."""
        return Node(Op.LOAD, self._value.dtype, (self._shared, self._place(half, row, at), symbolic.TRUE))


def arrange_product(
    stores: tuple[Node, ...], loops: Sequence[Node], product: Product, lanes: int, tile: MatrixTile
) -> Layout:
    """The layout of a kernel with a product; ``lanes`` as in MatrixCores."""
    numbers = Numbers()
    item = numbers.make(tile.items, Axis.ITEM)
    low, high = item % SIDE, item // SIDE % 2
    wave = item // WAVE
    ways = (product.row, product.column)
    sides = dict(zip(ways, tile.sides, strict=True))
    counts = tuple(-(-loop.arg[1] // sides.get(loop, 1)) for loop in loops)
    group = numbers.make(math.prod(counts), Axis.GROUP)
    where = dict(zip(loops, unflat(group, counts), strict=True))
    corner = {loop: where.pop(loop) * side for loop, side in sides.items()}
    inner = product.inner
    trips = numbers.trips(-(-inner.arg[1] // tile.depth), Axis.REDUCE)
    several = trips is not symbolic.ZERO
    chunk, lane = numbers.make(CHUNK, Axis.LANE), numbers.make(lanes, Axis.LANE)
    operands = [
        Operand(value, loop, inner, number, side, tile)
        for number, (value, (loop, side)) in enumerate(zip((product.left, product.right), sides.items(), strict=True))
    ]

    def brought(trip: Node, half: Node) -> tuple[Node, ...]:
        start = trip * tile.depth
        both = zip(operands, ways, strict=True)
        return tuple(itertools.chain(*(side.bring(half, start, corner[way], item, where, chunk) for side, way in both)))

    now = trips % 2
    # The last trip brings its own slice again, into the buffer that nobody reads.
    after = trips + 1
    next_stores = brought(symbolic.clamp(after, 0, trips.arg[1] - 1), after % 2) if several else ()
    within = lane if lanes == SIDE else high * lanes + lane
    own = (wave // tile.waves[1], wave % tile.waves[1])
    starts = [place * (SIDE * count) for place, count in zip(own, tile.squares, strict=True)]
    body: list[Node] = []
    for square in itertools.product(*map(range, tile.squares)):
        at = [start + SIDE * step for start, step in zip(starts, square, strict=True)]
        pairs = [
            side.fragment(now, first + low, within + depth)
            for depth in range(0, tile.depth, SIDE)
            for side, first in zip(operands, at, strict=True)
        ]
        step = Node(Op.MATRIX, dtypes.float32, tuple(pairs))
        total = ir.reduced(Op.MATRIX, step, trips, lane)
        top, left = (corner[loop] + first for loop, first in zip(ways, at, strict=True))
        for part in range(PARTS):
            result = Node(Op.PART, dtypes.float32, (total,), part)
            step_down, half_down = (2, 1) if lanes == SIDE else (1, PARTS)
            row = top + part * step_down + high * half_down
            column = left + low
            places = {**where, product.row: row, product.column: column, product.reduce: result}
            inside = symbolic.both(symbolic.less(row, product.row.arg[1]), symbolic.less(column, product.column.arg[1]))
            body += (gated_store(store, inside) for store in symbolic.substituted(stores, places))
    return Layout(group, item, Nest((), tuple(body)), symbolic.TRUE, brought(symbolic.ZERO, symbolic.ZERO), next_stores)
