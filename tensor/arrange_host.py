"""How a kernel's loops are arranged on a processor with vectors and threads.

Vectors lie along the range with neighbours in memory, and as many totals of a reduction as there are registers are kept
at once. Tiles of totals are chosen by a model of what running and compiling them takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from amdrv.tensor import dtypes, ir, symbolic
from amdrv.tensor.arrange_panels import arrange_panels, narrowed, panels_of
from amdrv.tensor.decompose import fused
from amdrv.tensor.ir import Axis, Node, Op, toposort
from amdrv.tensor.optimise import (
    Nest,
    Numbers,
    Tile,
    accesses,
    arrange,
    lane_score,
    loops_of,
    merge_loops,
    ranked,
    reduces_of,
    size_of,
)
from amdrv.tensor.product import Product, find_product

PARTIAL_SUMS = 4  # independent totals of a vectorised reduction, which hide the latency of adding
COSTLY_NODES = 16
SUM_CYCLES = 4  # from one sum to the next
VECTOR_BYTES = 64
NEAR_BYTES, FAR_CYCLES = 1 << 14, 2.7  # of the nearest cache; what a vector from the next one takes
COMPILE_CYCLES = 3e5  # for each node of a kernel
UNROLL_COST_MAX = 40  # nodes of an elementwise body that is worth unrolling


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides how loops are arranged."""

    vector_bits: int
    registers: int  # vector registers


@dataclass(frozen=True, slots=True)
class Totals:
    """Running totals of a reduction that a loop of the host keeps in registers: vectors beside each other, and rows."""

    columns: int
    rows: int

    def cost(self, sizes: tuple[int, int, int], others: int, after: int) -> float:
        """Cycles of a processor with two multipliers for compiling a kernel and for a hundred runs of it.

        ``sizes``: rows, vectors in each, depth. ``others``: how often all that is done. ``after``: what is done with
        each total. A step multiplies, loads, waits for the sums before it, or for vectors that are not in the nearest
        cache, whichever takes longest.
        """
        rows, columns, depth = sizes
        far = FAR_CYCLES * self.columns if depth * self.columns * VECTOR_BYTES > NEAR_BYTES else 0.0
        step = max(self.columns * self.rows / 2, (self.columns + self.rows) / 2, SUM_CYCLES, far)
        tiles = -(-rows // self.rows) * -(-columns // self.columns) * others
        nests = (1 + (rows % self.rows > 0)) * (1 + (columns % self.columns > 0))
        each = self.columns * self.rows * after
        return 100 * tiles * (depth * step + each) + COMPILE_CYCLES * nests * (each + 3 * self.columns * self.rows)


TOTALS = tuple(Totals(c, r) for c in (1, 2, 3, 4) for r in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24))


def lanes_for(stores: Iterable[Node], machine: Machine) -> int:
    """How many elements fill a vector of the widest type in a kernel."""
    widest = max(
        (node.dtype.compute.bits for node in toposort(stores) if node.dtype.is_float or node.dtype.is_int), default=8
    )
    return max(1, machine.vector_bits // max(widest, 32))


def for_host(stores: tuple[Node, ...], machine: Machine, rank: int = 0) -> list[Nest]:
    """The loops of a kernel on a processor with vectors and threads; ``rank``: see ``ranked``."""
    numbers = Numbers()
    stores = merge_loops(stores)
    loops = loops_of(stores)
    full = frozenset(loops)
    found = reduces_of(stores)
    hoisted = [node for node in found if node.ranges != full]
    inner = [node for node in found if node.ranges == full]
    lanes = lanes_for(stores, machine)
    if stores[0].arg is not None:
        return _finish(_in_turn(stores, loops, lanes, numbers), lanes, numbers)
    touched = accesses(inner) or accesses(stores)
    order = sorted(loops, key=lambda loop: (-sum(loop in node.ranges for node in hoisted), loop.arg[0]))
    candidates = [loop for loop in loops if loop.arg[1] >= 4 and lane_score(loop, accesses(stores)) > 0]
    best = max(candidates, key=lambda loop: (lane_score(loop, touched), loop.arg[0]), default=None)
    along = _reduce_score(inner, touched)
    if (product := _beside(stores, find_product(loops, found))) is not None:
        width, most = narrowed(product, min(lanes, 1 << product.column.arg[1].bit_length() - 1))
        chosen = _totals(stores, product.column, product.row, width, inner, machine, rank)
        chosen = replace(chosen, columns=min(chosen.columns, most))
        panels = panels_of(product, (chosen.rows, chosen.columns * width))
        if any(panels):
            tiles = {product.column: Tile(chosen.columns, width), product.row: Tile(chosen.rows)}
            return arrange_panels(stores, loops, product, tiles, panels, numbers)
    if inner and (best is None or along > lane_score(best, touched)):
        tiles = _dot_tiles(order, inner, touched) if along > 0 and not hoisted else {}
        return _finish(arrange(stores, _tiled_last(order, tiles), tiles, numbers), lanes, numbers)
    if best is None:
        return _finish([Nest(tuple(order), stores)], lanes, numbers)
    width = min(lanes, 1 << best.arg[1].bit_length() - 1)
    if hoisted and not inner:
        tiles = {best: Tile(1, width)}
    elif inner:
        row = _row(best, order, touched)
        chosen = _totals(stores, best, row, width, inner, machine, rank)
        tiles = {best: Tile(chosen.columns, width)} | ({row: Tile(chosen.rows)} if row is not None else {})
    else:
        small = sum(1 for _ in toposort(stores)) <= UNROLL_COST_MAX
        tiles = {best: Tile(4 if small and best.arg[1] >= 8 * width else 1, width)}
        order = [*(loop for loop in order if loop is not best), best]
    if not hoisted:
        order = _tiled_last(order, tiles)
    return _finish(arrange(stores, order, tiles, numbers), lanes, numbers)


def _in_turn(stores: tuple[Node, ...], loops: Sequence[Node], lanes: int, numbers: Numbers) -> list[Nest]:
    """Updates of elements, several of which may be of the same one: in order, and all in one thread."""
    beside = [loop for loop in loops[-1:] if symbolic.factor_of(stores[0].src[1], loop) == 1]
    tiles = {loop: Tile(1, lanes) for loop in beside}
    once = numbers.make(1, Axis.LOOP)
    return [Nest((once, *nest.loops), nest.stores) for nest in arrange(stores, loops, tiles, numbers)]


def _tiled_last(order: Sequence[Node], tiles: dict[Node, Tile]) -> list[Node]:
    """Tiled loops innermost; the one in vectors outside the others, whose panel then stays in the cache."""
    return sorted(order, key=lambda loop: (loop in tiles, loop in tiles and tiles[loop].lanes == 1))


def _reduce_score(inner: Sequence[Node], touched: Sequence[Node]) -> int:
    return min((lane_score(node.src[-1], touched) for node in inner if node.src[-1].arg[1] >= 4), default=0)


def _dot_tiles(order: Sequence[Node], inner: Sequence[Node], touched: Sequence[Node]) -> dict[Node, Tile]:
    """Vectors along the reduced range: small square tiles of others, for whose neighbours some operand is the same."""
    loads = [node for node in touched if node.op is Op.LOAD]
    wanted = [loop for loop in order if loop.arg[1] > 1 and any(loop not in node.ranges for node in loads)]
    return {loop: Tile(4) for loop in wanted[-2:]}


def _beside(stores: Sequence[Node], product: Product | None) -> Product | None:
    """The product with neighbours of the result in its columns."""
    turns = () if product is None else (product, product.turned())
    return next((turn for turn in turns if symbolic.factor_of(stores[0].src[1], turn.column) == 1), None)


def _row(best: Node, order: Sequence[Node], touched: Sequence[Node]) -> Node | None:
    """The range along which what is loaded as vectors along ``best`` is used again."""
    loads = [node for node in touched if node.op is Op.LOAD and best in node.ranges]
    rows = [loop for loop in order if loop is not best and any(loop not in node.ranges for node in loads)]
    return max(rows, key=lambda loop: loop.arg[1], default=None)


def _totals(
    stores: Sequence[Node], best: Node, row: Node | None, width: int, inner: Sequence[Node], machine: Machine, rank: int
) -> Totals:
    """A tile of vectors along ``best`` and rows that fits in registers."""
    # A costly operand is written out for every step of a vector: few rows are code enough.
    costly = any(_is_costly(source) for node in inner for source in node.src[0].src)
    most = max(1, min(4 if costly or row is None else 2, best.arg[1] // width))
    fitting = [
        totals
        for totals in TOTALS
        if totals.columns <= most
        and totals.rows <= (1 if row is None else 2 if costly else row.arg[1])
        and (totals.columns * totals.rows * len(inner)) + totals.columns < machine.registers
    ]
    after = sum(node.dtype is not dtypes.index for node in toposort(stores, lambda node: node.op is Op.REDUCE))
    depth, others = size_of(inner[0].src[1:]), size_of(loop for loop in loops_of(stores) if loop not in (best, row))
    sizes = (row.arg[1] if row is not None else 1, -(-best.arg[1] // width), depth)
    return ranked(fitting, lambda totals: totals.cost(sizes, others, after), rank)


def _finish(nests: list[Nest], lanes: int, numbers: Numbers) -> list[Nest]:
    """Turn what is still reduced one by one into vectors, where no vector is in the way."""

    def vectorised(node: Node, sums: int, blocks: dict[Node, tuple[Node, Node]]) -> Node:
        if node.op is Op.REDUCE and _worth_vector(node, lanes):
            return vectorise_reduce(node, lanes, sums, numbers)
        if node.op is Op.REDUCE and (factors := _costly_factor(node, lanes)) is not None:
            return _in_blocks(node, *factors, lanes, blocks, numbers)
        return node

    done = []
    for nest in nests:
        change = partial(vectorised, sums=PARTIAL_SUMS if len(nest.stores) < 4 else 1, blocks={})
        done.append(replace(nest, stores=symbolic.changed(nest.stores, change)))
    return done


def _is_costly(value: Node) -> bool:
    """Whether computing a value takes much more than loading it."""
    return sum(1 for node in toposort([value], lambda node: node.op in (Op.REDUCE, Op.LOAD))) >= COSTLY_NODES


def _costly_factor(node: Node, lanes: int) -> tuple[Node, Node] | None:
    """(scalar, vector) of a sum of products whose scalar is costly: the weights in attention are such."""
    value, last = node.src[0], node.src[-1]
    if node.arg is not Op.ADD or value.op is not Op.MUL or last.arg[1] % lanes or last.arg[2] is not Axis.REDUCE:
        return None
    for scalar, vector in (value.src, value.src[::-1]):
        in_vector = [any(part.arg[2] is Axis.LANE for part in source.ranges) for source in (scalar, vector)]
        if in_vector == [False, True] and last in scalar.ranges and _is_costly(scalar):
            return scalar, vector
    return None


def _in_blocks(
    node: Node, scalar: Node, vector: Node, lanes: int, blocks: dict[Node, tuple[Node, Node]], numbers: Numbers
) -> Node:
    """The scalar factor of a block of the reduced range computed at once, in a vector, and taken from it one by one."""
    *outer, last = node.src[1:]
    if last not in blocks:
        blocks[last] = (numbers.trips(last.arg[1] // lanes, Axis.REDUCE), numbers.make(lanes, Axis.LANE))
    again, lane = blocks[last]
    base = again * lanes
    together = symbolic.substitute(scalar, {last: base + lane})
    ones = (together.unary(Op.PART, step) for step in range(lanes))
    others = (symbolic.substitute(vector, {last: base + step}) for step in range(lanes))
    total = next(ones) * next(others)
    for one, other in zip(ones, others, strict=True):  # with one rounding; integers have none
        total = fused(one, other, total) if node.dtype.is_float else total + one * other
    return ir.reduced(node.arg, total, *outer, again)


def _worth_vector(node: Node, lanes: int) -> bool:
    value, last = node.src[0], node.src[-1]
    if any(part.arg[2] is Axis.LANE for part in value.ranges) or last.arg[1] < lanes:
        return False
    return lane_score(last, accesses([value])) >= 0


def vectorise_reduce(node: Node, lanes: int, sums: int, numbers: Numbers) -> Node:
    """A reduction over vectors along its last range, in several totals, and what is left over one by one."""
    value, *outer, last = node.src
    size = last.arg[1]
    sums = max(1, min(sums, size // lanes))
    count = size // (sums * lanes)
    done = count * sums * lanes
    again, lane = numbers.trips(count, Axis.REDUCE), numbers.make(lanes, Axis.LANE)
    base = again * (sums * lanes) + lane
    places = [(base + step * lanes, [again, lane]) for step in range(sums)]
    if done < size:
        rest = numbers.trips(size - done, Axis.REDUCE)
        places.append((rest + done, [rest]))
    parts = ((symbolic.substitute(value, {last: place}), inner) for place, inner in places)
    return tree(node.arg, [ir.reduced(node.arg, part, *outer, *inner) for part, inner in parts])


def tree(op: Op, parts: Sequence[Node]) -> Node:
    """Values combined in pairs."""
    while len(parts) > 1:
        pairs = [parts[k : k + 2] for k in range(0, len(parts), 2)]
        parts = [Node(op, pair[0].dtype, tuple(pair)) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]
