"""What arranging a kernel's loops is made of: merging, cutting into tiles, unrolling, turning into vectors.

All of it is substitution. A range becomes ``loop * tile + step``, where the step is a constant for unrolled copies or a
LANE range for a vector, and the body is written once for each constant. Equal subexpressions of the copies are the
same node, so a tile loads each of its operands once: that is what register tiling is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from amdrv.tensor import dtypes, symbolic
from amdrv.tensor.ir import Axis, Node, Op, ranges_in, toposort
from amdrv.tensor.shapes import unflat

T = TypeVar("T")
NEW_RANGES = 1 << 12  # numbers of ranges made here begin here


@dataclass(frozen=True, slots=True)
class Nest:
    """Loops from the outermost in, and the stores inside all of them. The first may be divided among threads.

    ``before``: nests that run once inside of so many loops, before what is in there.
    """

    loops: tuple[Node, ...]
    stores: tuple[Node, ...]
    before: tuple[tuple[int, Nest], ...] = ()

    @property
    def all_stores(self) -> tuple[Node, ...]:
        """Its own and those of the nests before."""
        return (*self.stores, *(store for _, first in self.before for store in first.stores))


@dataclass(frozen=True, slots=True)
class Layout:
    """A kernel on the GPU. Work-items for which ``inside`` is false do nothing.

    ``first`` and ``next`` are stores into memory of the workgroup: what the first trip of a product's loop multiplies,
    and what each trip brings for the one after it.
    """

    group: Node
    item: Node
    nest: Nest
    inside: Node
    first: tuple[Node, ...] = ()
    next: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a tiled range: its loop (position 0 for a single trip), and the positions of one trip."""

    loop: Node
    positions: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """How a range is cut: ``unroll`` copies of ``lanes`` neighbours."""

    unroll: int = 1
    lanes: int = 1


def ranked(options: Iterable[T], cost: Callable[[T], float], rank: int) -> T:
    """The option that a model takes in place ``rank``, counted from 0; the last one when there are not so many."""
    return sorted(options, key=cost)[: rank + 1][-1]


class Numbers:
    """Gives out new ranges."""

    def __init__(self) -> None:
        self._next = itertools.count(NEW_RANGES)

    def make(self, size: int, axis: Axis) -> Node:
        return Node(Op.RANGE, dtypes.index, (), (next(self._next), size, axis))

    def trips(self, size: int, axis: Axis) -> Node:
        """A new range, or position 0 where there is no other."""
        return self.make(size, axis) if size > 1 else symbolic.ZERO


def size_of(ranges: Iterable[Node]) -> int:
    """How many positions ranges have together."""
    return math.prod(part.arg[1] for part in ranges)


def along(ranges: Sequence[Node], place: Node) -> dict[Node, Node]:
    """The position along each range at a place in all of them, counted with the last one fastest."""
    return dict(zip(ranges, unflat(place, tuple(part.arg[1] for part in ranges)), strict=True))


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
        stores = symbolic.substituted(stores, {outer: joined // n, inner: joined % n})
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


def gate_loads(root: Node, gate: Node) -> Node:
    """The same value, touching memory only where a condition holds. Finished reductions in it stay as they are."""
    memo: dict[Node, Node] = {}
    for node in toposort([root], lambda node: node.arg is Op.MATRIX or gate.ranges.isdisjoint(node.ranges)):
        src = tuple(memo.get(source, source) for source in node.src)
        if node.op is Op.LOAD:
            src = (src[0], src[1], symbolic.both(src[2], gate))
        memo[node] = symbolic.rebuild(node, src)
    return memo.get(root, root)


def gated_store(store: Node, gate: Node) -> Node:
    """The same store, only where a condition holds."""
    if gate is symbolic.TRUE:
        return store
    param, position, value = store.src
    return Node(Op.STORE, store.dtype, (param, position, gate_loads(value, gate), gate), store.arg)


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


def cut(loop: Node, tile: Tile, numbers: Numbers) -> list[Piece]:
    """The parts of a range: full tiles first, then what is left over in smaller ones."""
    pieces = []
    start, size = 0, loop.arg[1]
    lanes, unroll = tile.lanes, tile.unroll
    while start < size:
        left = size - start
        if left < lanes:
            # Halves of vectors while they are worth it, then one by one.
            lanes, unroll = (lanes // 2, 1) if lanes > 4 else (1, 1)
            continue
        unroll = min(unroll, left // lanes)
        count = left // (unroll * lanes)
        again, lane = numbers.trips(count, Axis.LOOP), numbers.trips(lanes, Axis.LANE)
        base = again * (unroll * lanes) + start
        positions = tuple(base + step * lanes + lane for step in range(unroll))
        pieces.append(Piece(again, positions))
        start += count * unroll * lanes
    return pieces


def arrange(stores: tuple[Node, ...], order: Sequence[Node], tiles: dict[Node, Tile], numbers: Numbers) -> list[Nest]:
    """Cut ranges into tiles; one nest for each combination of their parts."""
    tiled = [loop for loop in order if loop in tiles]
    nests = []
    for pieces in itertools.product(*(cut(loop, tiles[loop], numbers) for loop in tiled)):
        by_loop = dict(zip(tiled, pieces, strict=True))
        loops = ranges_in(by_loop[loop].loop if loop in by_loop else loop for loop in order)
        body: list[Node] = []
        # Copies that differ in the vector only stand together: a scalar operand then needs one register at a time.
        unrolled = sorted(tiled, key=lambda loop: tiles[loop].lanes)
        for positions in itertools.product(*(by_loop[loop].positions for loop in unrolled)):
            body += symbolic.substituted(stores, dict(zip(unrolled, positions, strict=True)))
        nests.append(Nest(loops, tuple(body)))
    return nests
