"""How a kernel's loops are arranged: merged, tiled, unrolled, turned into vectors, spread over work-items.

All of it is substitution. A range becomes ``loop * tile + step``, where the step is a constant for unrolled copies or a
LANE range for a vector, and the body is written once for each constant. Equal subexpressions of the copies are the
same node, so a tile loads each of its operands once: that is what register tiling is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from amdrv.tensor import dtypes, symbolic
from amdrv.tensor.ir import Axis, Node, Op, toposort

NEW_RANGES = 1 << 12  # numbers of ranges made here begin here
PARTIAL_SUMS = 4  # independent totals of a vectorised reduction, which hide the latency of adding
EPILOGUE_NODES_MAX = 800
COSTLY_NODES = 16
LARGE_WORK = 1 << 26  # multiplications from which the best code is worth its compilation
UNROLL_COST_MAX = 40  # nodes of an elementwise body that is worth unrolling


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides how loops are arranged."""

    vector_bits: int
    registers: int  # vector registers


@dataclass(frozen=True, slots=True)
class Nest:
    """Loops from the outermost in, and the stores inside all of them. The first may be divided among threads."""

    loops: tuple[Node, ...]
    stores: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a tiled range: its loop (None for a single trip), and the positions of one trip."""

    loop: Node | None
    positions: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """How a range is cut: ``unroll`` copies of ``lanes`` neighbours."""

    unroll: int = 1
    lanes: int = 1


class Numbers:
    """Gives out new ranges."""

    def __init__(self) -> None:
        self._next = itertools.count(NEW_RANGES)

    def make(self, size: int, axis: Axis) -> Node:
        return Node(Op.RANGE, dtypes.index, (), (next(self._next), size, axis))


# -- what a kernel looks like ------------------------------------------------------------------------------------------


def loops_of(stores: Iterable[Node]) -> list[Node]:
    """The ranges of a kernel that are not reduced, outermost first."""
    found = {part for store in stores for part in store.ranges if part.arg[2] is Axis.LOOP}
    return sorted(found, key=lambda part: part.arg[0])


def reduces_of(stores: Iterable[Node]) -> list[Node]:
    """The reductions in a kernel."""
    return [node for node in toposort(stores) if node.op is Op.REDUCE]


def accesses(stores: Iterable[Node]) -> list[Node]:
    """The loads and stores of a kernel."""
    return [node for node in toposort(stores) if node.op in (Op.LOAD, Op.STORE)]


def merge_loops(stores: tuple[Node, ...]) -> tuple[Node, ...]:
    """The same kernel with neighbouring loops joined wherever positions get no harder to compute."""
    loops = loops_of(stores)
    for outer, inner in zip(loops[-2::-1], loops[:0:-1], strict=True):
        inner = next((part for part in loops_of(stores) if part.arg[0] == inner.arg[0]), inner)
        joined = Node(Op.RANGE, dtypes.index, (), (outer.arg[0], outer.arg[1] * inner.arg[1], Axis.LOOP))
        n = inner.arg[1]
        if not all(_joinable(node, outer, inner, n) for node in toposort(stores)):
            continue
        memo: dict[Node, Node] = {}
        replacements = {outer: symbolic.divide(joined, n), inner: symbolic.modulo(joined, n)}
        stores = tuple(symbolic.substitute(store, replacements, memo) for store in stores)
    return stores


def _joinable(node: Node, outer: Node, inner: Node, n: int) -> bool:
    """Whether a node uses two loops only in the form outer * n + inner."""
    if node.dtype is dtypes.index and node.op in (Op.ADD, Op.MUL):
        return True  # part of a sum, which is judged where it is used
    for position in node.src:
        if position.dtype is dtypes.index:
            terms = dict(symbolic.affine(position)[0])
            if terms.get(outer, 0) != n * terms.get(inner, 0):
                return False
    return True


# -- cutting ranges ----------------------------------------------------------------------------------------------------


def cut(loop: Node, tile: Tile, numbers: Numbers) -> list[Piece]:
    """The parts of a range: full tiles first, then what is left over in smaller ones."""
    pieces = []
    start, size = 0, loop.arg[1]
    lanes = tile.lanes
    unroll = tile.unroll
    while start < size:
        left = size - start
        if left < lanes:
            # Halves of vectors while they are worth it, then one by one.
            lanes, unroll = (lanes // 2, 1) if lanes > 4 else (1, 1)
            continue
        unroll = min(unroll, left // lanes)
        count = left // (unroll * lanes)
        again = numbers.make(count, Axis.LOOP) if count > 1 else None
        base = symbolic.offset(symbolic.scale(again, unroll * lanes) if again is not None else symbolic.ZERO, start)
        lane = numbers.make(lanes, Axis.LANE) if lanes > 1 else symbolic.ZERO
        positions = tuple(symbolic.add(symbolic.offset(base, step * lanes), lane) for step in range(unroll))
        pieces.append(Piece(again, positions))
        start += count * unroll * lanes
    return pieces


def arrange(stores: tuple[Node, ...], order: Sequence[Node], tiles: dict[Node, Tile], numbers: Numbers) -> list[Nest]:
    """Cut ranges into tiles; one nest for each combination of their parts."""
    tiled = [loop for loop in order if loop in tiles]
    nests = []
    for pieces in itertools.product(*(cut(loop, tiles[loop], numbers) for loop in tiled)):
        by_loop = dict(zip(tiled, pieces, strict=True))
        loops = tuple(found for loop in order if (found := by_loop[loop].loop if loop in by_loop else loop) is not None)
        body = []
        # Copies that differ in the vector only stand together: a scalar operand then needs one register at a time.
        unrolled = sorted(tiled, key=lambda loop: tiles[loop].lanes)
        for positions in itertools.product(*(by_loop[loop].positions for loop in unrolled)):
            memo: dict[Node, Node] = {}
            replacements = dict(zip(unrolled, positions, strict=True))
            body += [symbolic.substitute(store, replacements, memo) for store in stores]
        nests.append(Nest(loops, tuple(body)))
    return nests


def vectorise_reduce(node: Node, lanes: int, sums: int, numbers: Numbers) -> Node:
    """A reduction over vectors along its last range, in several totals, and what is left over one by one."""
    value, *ranges = node.src
    last = ranges[-1]
    size = last.arg[1]
    sums = max(1, min(sums, size // lanes))
    count = size // (sums * lanes)
    parts = []
    again = numbers.make(count, Axis.REDUCE)
    lane = numbers.make(lanes, Axis.LANE)
    base = symbolic.scale(again, sums * lanes) if count > 1 else symbolic.ZERO
    loop = (again,) if count > 1 else ()
    for step in range(sums):
        place = symbolic.add(symbolic.offset(base, step * lanes), lane)
        inner = symbolic.substitute(value, {last: place})
        parts.append(Node(Op.REDUCE, node.dtype, (inner, *ranges[:-1], *loop, lane), node.arg))
    done = count * sums * lanes
    if done < size:
        rest = numbers.make(size - done, Axis.REDUCE)
        place = symbolic.offset(rest if size - done > 1 else symbolic.ZERO, done)
        left = (rest,) if size - done > 1 else ()
        inner = symbolic.substitute(value, {last: place})
        loops = (*ranges[:-1], *left)
        parts.append(Node(Op.REDUCE, node.dtype, (inner, *loops), node.arg) if loops else inner)
    return tree(node.arg, parts)


def tree(op: Op, parts: Sequence[Node]) -> Node:
    """Values combined in pairs."""
    while len(parts) > 1:
        pairs = [parts[k : k + 2] for k in range(0, len(parts), 2)]
        parts = [Node(op, pair[0].dtype, tuple(pair)) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


# -- the host ----------------------------------------------------------------------------------------------------------


def lanes_for(stores: Iterable[Node], machine: Machine) -> int:
    """How many elements fill a vector of the widest type in a kernel."""
    widest = max(
        (node.dtype.compute.bits for node in toposort(stores) if node.dtype.is_float or node.dtype.is_int), default=8
    )
    return max(1, machine.vector_bits // max(widest, 32))


def lane_score(loop: Node, touched: Iterable[Node]) -> int:
    """How well a range serves as vector: neighbours in memory are good, scattered elements are bad."""
    score = 0
    for node in touched:
        step = symbolic.factor_of(node.src[1], loop)
        if step == 1:
            score += 4
        elif step != 0:
            score -= 6 if node.op is Op.LOAD else 8
    return score


def for_host(stores: tuple[Node, ...], machine: Machine) -> list[Nest]:
    """The loops of a kernel on a processor with vectors and threads."""
    numbers = Numbers()
    stores = merge_loops(stores)
    loops = loops_of(stores)
    full = frozenset(loops)
    found = reduces_of(stores)
    hoisted = [node for node in found if node.ranges != full]
    inner = [node for node in found if node.ranges == full]
    lanes = lanes_for(stores, machine)
    touched = accesses(inner) or accesses(stores)
    order = sorted(loops, key=lambda loop: (-sum(loop in node.ranges for node in hoisted), loop.arg[0]))
    candidates = [loop for loop in loops if loop.arg[1] >= 4 and lane_score(loop, accesses(stores)) > 0]
    best = max(candidates, key=lambda loop: (lane_score(loop, touched), loop.arg[0]), default=None)
    along = _reduce_score(inner, touched)
    if inner and (best is None or along > lane_score(best, touched)):
        tiles = _dot_tiles(order, inner, touched) if along > 0 and not hoisted else {}
        return _finish(arrange(stores, _tiled_last(order, tiles), tiles, numbers), lanes, numbers)
    if best is None:
        return _finish([Nest(tuple(order), stores)], lanes, numbers)
    width = min(lanes, 1 << best.arg[1].bit_length() - 1)
    if hoisted and not inner:
        tiles = {best: Tile(1, width)}
    elif inner:
        totals = _totals(stores, loops, inner, machine)
        tiles = _outer_tiles(best, width, order, inner, touched, totals)
    else:
        small = sum(1 for _ in toposort(stores)) <= UNROLL_COST_MAX
        tiles = {best: Tile(4 if small and best.arg[1] >= 8 * width else 1, width)}
        order = [*(loop for loop in order if loop is not best), best]
    if not hoisted:
        order = _tiled_last(order, tiles)
    return _finish(arrange(stores, order, tiles, numbers), lanes, numbers)


def _tiled_last(order: Sequence[Node], tiles: dict[Node, Tile]) -> list[Node]:
    """Tiled loops innermost; the one in vectors outside the others, whose panel then stays in the cache."""
    return sorted(order, key=lambda loop: (loop in tiles, loop in tiles and tiles[loop].lanes == 1))


def _reduce_score(inner: Sequence[Node], touched: Sequence[Node]) -> int:
    return min((lane_score(node.src[-1], touched) for node in inner if node.src[-1].arg[1] >= 4), default=0)


def _reused(loop: Node, touched: Iterable[Node]) -> bool:
    """Whether some operand is the same for neighbours along a range."""
    return any(node.op is Op.LOAD and loop not in node.ranges for node in touched)


def _dot_tiles(order: Sequence[Node], inner: Sequence[Node], touched: Sequence[Node]) -> dict[Node, Tile]:
    """Vectors along the reduced range: small square tiles of the others."""
    wanted = [loop for loop in order if loop.arg[1] > 1 and _reused(loop, touched)][-2:]
    return {loop: Tile(4) for loop in wanted}


def _totals(stores: Sequence[Node], loops: Sequence[Node], inner: Sequence[Node], machine: Machine) -> int:
    """How many totals a tile has at most: fewer where little is to be done, and where much follows each of them.

    Compiling a tile takes time in proportion to it, and half of one already reaches most of the processor's speed.
    """
    work = math.prod(part.arg[1] for part in (*loops, *inner[0].src[1:]))
    after = toposort(stores, lambda node: node.op is Op.REDUCE)
    room = machine.registers * 3 // (4 if work >= LARGE_WORK else 8)
    return min(room, max(8, EPILOGUE_NODES_MAX // sum(node.dtype is not dtypes.index for node in after)))


def _outer_tiles(
    best: Node, width: int, order: Sequence[Node], inner: Sequence[Node], touched: Sequence[Node], totals: int
) -> dict[Node, Tile]:
    """Vectors along a range that is kept: as large a tile of totals as fits in registers."""
    loads = [node for node in touched if node.op is Op.LOAD and best in node.ranges]
    rows = [loop for loop in order if loop is not best and any(loop not in node.ranges for node in loads)]
    costly = any(_is_costly(source) for node in inner for source in node.src[0].src)
    columns = max(1, min(4 if costly or not rows else 2, best.arg[1] // width))
    tiles = {best: Tile(columns, width)}
    if rows:
        row = max(rows, key=lambda loop: loop.arg[1])
        # A costly operand is written out for every step of a vector: few rows are code enough.
        budget = (min(totals, 2 * columns) if costly else totals) // columns // max(1, len(inner))
        if budget > 1:
            tiles[row] = Tile(budget)
    return tiles


def _finish(nests: list[Nest], lanes: int, numbers: Numbers) -> list[Nest]:
    """Turn what is still reduced one by one into vectors, where no vector is in the way."""
    done = []
    for nest in nests:
        memo: dict[Node, Node] = {}
        blocks: dict[Node, tuple[Node, Node]] = {}
        for node in toposort(nest.stores):
            rebuilt = symbolic.rebuild(node, tuple(memo[source] for source in node.src))
            if rebuilt.op is Op.REDUCE and _worth_vector(rebuilt, lanes):
                rebuilt = vectorise_reduce(rebuilt, lanes, PARTIAL_SUMS if len(nest.stores) < 4 else 1, numbers)
            elif rebuilt.op is Op.REDUCE and (factors := _costly_factor(rebuilt, lanes)) is not None:
                rebuilt = _in_blocks(rebuilt, *factors, lanes, blocks, numbers)
            memo[node] = rebuilt
        done.append(Nest(nest.loops, tuple(memo[store] for store in nest.stores)))
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
    *others, last = node.src[1:]
    if last not in blocks:
        blocks[last] = (numbers.make(last.arg[1] // lanes, Axis.REDUCE), numbers.make(lanes, Axis.LANE))
    again, lane = blocks[last]
    base = symbolic.scale(again, lanes) if again.arg[1] > 1 else symbolic.ZERO
    together = symbolic.substitute(scalar, {last: symbolic.add(base, lane)})
    total: Node | None = None
    for step in range(lanes):
        one = Node(Op.PART, scalar.dtype, (together,), step)
        other = symbolic.substitute(vector, {last: symbolic.offset(base, step)})
        total = one * other if total is None else Node(Op.MULADD, node.dtype, (one, other, total))
    ranges = (*others, again) if again.arg[1] > 1 else tuple(others)
    if total is None or not ranges:
        return node if total is None else total
    return Node(Op.REDUCE, node.dtype, (total, *ranges), node.arg)


def _worth_vector(node: Node, lanes: int) -> bool:
    value, last = node.src[0], node.src[-1]
    if any(part.arg[2] is Axis.LANE for part in value.ranges) or last.arg[1] < lanes:
        return False
    return lane_score(last, accesses([value])) >= 0
