"""From the tensor graph to a kernel: every array becomes a formula for one of its elements.

``Lowering.value(node, at)`` is the element of a node at a position. Movement only changes the position, so views cost
nothing; elementwise operations apply to the elements; a reduction opens ranges of its own; what has a buffer is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from amdrv.tensor import dtypes, ir, shapes, symbolic
from amdrv.tensor.ir import ELEMENTWISE, MOVEMENT, Axis, Node, Op, Shape
from amdrv.tensor.shapes import Position

VIEWS = MOVEMENT - {Op.PAD}
NAMED = ELEMENTWISE | {Op.REDUCE}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One loop nest. ``body`` is a SINK of STOREs; slot i of it is the buffer of ``buffers[i]``.

    ``results`` are the nodes of the tensor graph that it computes; their buffers come first.
    """

    body: Node
    buffers: tuple[Node, ...]
    results: tuple[Node, ...]

    @property
    def name(self) -> str:
        """A name for its code, of the first operations in it: that is what errors of a device show."""
        values = [node for node in ir.toposort(self.body.src) if node.dtype is not dtypes.index]
        named = (node.arg if node.op is Op.REDUCE else node.op for node in values if node.op in NAMED)
        return "_".join(["tensor", *list(dict.fromkeys(named))[:6]])


def loop_position(shape: Shape, first: int = 0) -> Position:
    """A range for every axis; axes of length one have only position 0."""
    return tuple(
        symbolic.ZERO if n == 1 else Node(Op.RANGE, dtypes.index, (), (first + axis, n, Axis.LOOP))
        for axis, n in enumerate(shape)
    )


class Lowering:
    """Makes one kernel. ``realised`` has a buffer of its own in the finished schedule."""

    def __init__(self, results: tuple[Node, ...], realised: Collection[Node]) -> None:
        self._results = results
        self._realised = realised
        self._buffers: dict[Node, Node] = {}
        self._memo: dict[tuple[Node, Position, Node], Node] = {}
        self._next_range = len(results[0].shape)
        self._at = loop_position(results[0].shape)

    def kernel(self) -> Kernel:
        """The kernel that computes the results."""
        for result in self._results:
            self._param(result)
        stores = []
        for result in self._results:
            value = self._compute(result, self._at, symbolic.TRUE)
            where = shapes.flat(self._at, result.shape)
            stores.append(Node(Op.STORE, result.dtype, (self._param(result), where, value.cast(result.dtype))))
        return Kernel(Node(Op.SINK, dtypes.bool_, tuple(stores)), tuple(self._buffers), self._results)

    def updates(self) -> Kernel:
        """The kernel that puts the values of a SCATTER where ``kernel`` wrote its base."""
        (node,) = self._results
        _, values, *indices = node.src
        param, at = self._param(node), loop_position(values.shape)
        self._next_range = len(at)
        place = (*self._looked_up(indices, at, node.shape, symbolic.TRUE), *at[len(indices[0].shape) :])
        value = self.value(values, at, symbolic.TRUE)
        store = Node(Op.STORE, node.dtype, (param, shapes.flat(place, node.shape), value), node.arg)
        return Kernel(Node(Op.SINK, dtypes.bool_, (store,)), tuple(self._buffers), self._results)

    def _param(self, node: Node) -> Node:
        found = self._buffers.get(node)
        if found is None:
            about = (len(self._buffers), math.prod(node.shape))
            found = self._buffers[node] = Node(Op.PARAM, node.dtype, (), about)
        return found

    def value(self, node: Node, at: Position, gate: Node) -> Node:
        """The element at a position; where the gate is false it may be anything, but memory is not touched."""
        key = (node, at, gate)
        found = self._memo.get(key)
        if found is None:
            if self._stored(node) and not (node in self._results and at == self._at):
                found = self._load(node, shapes.flat(at, node.shape), gate)
            else:
                found = self._compute(node, at, gate)
            self._memo[key] = found
        return found

    def _stored(self, node: Node) -> bool:
        return node.op is Op.BUFFER or (node in self._realised and node.op not in (Op.CONST, Op.IOTA))

    def _load(self, node: Node, place: Node, gate: Node) -> Node:
        """An element of a buffer at a flat position."""
        return Node(Op.LOAD, node.dtype, (self._param(node), place, gate)).cast(node.dtype.compute)

    def _compute(self, node: Node, at: Position, gate: Node) -> Node:
        if node.op in ELEMENTWISE:
            return self._elementwise(node, [self.value(source, at, gate) for source in node.src])
        if node.op is Op.PAD:
            return self._pad(node, at, gate)
        if node.op in VIEWS:
            while node.op in VIEWS:  # chains of views may be long
                source = node.src[0]
                if node.op is Op.RESHAPE and self._stored(source) and source not in self._results:
                    # In memory both shapes are the same: nothing is divided only to be put together again.
                    return self._load(source, shapes.flat(at, node.shape), gate)
                at, _ = shapes.move(node, at)
                node = source
                if node in self._realised:
                    break
            return self.value(node, at, gate)
        return _OTHERS[node.op](self, node, at, gate)

    def _pad(self, node: Node, at: Position, gate: Node) -> Node:
        moved, inside = shapes.move(node, at)
        zero = ir.const(node.dtype.compute, 0)
        if inside is symbolic.FALSE or 0 in node.src[0].shape:
            return zero
        value = self.value(node.src[0], moved, symbolic.both(gate, inside))
        return value if inside is symbolic.TRUE else ir.where(inside, value, zero)

    def _elementwise(self, node: Node, src: list[Node]) -> Node:
        if node.op is Op.BITCAST:
            return src[0].cast(node.src[0].dtype).bitcast(node.dtype).cast(node.dtype.compute)
        if node.op is Op.CAST:
            return src[0].cast(node.dtype).cast(node.dtype.compute)
        return Node(node.op, node.dtype.compute, tuple(src), node.arg)

    def _reduce(self, node: Node, at: Position, gate: Node) -> Node:
        op, axes = node.arg
        source = node.src[0]
        position = list(at)
        ranges = []
        for axis in axes:
            if source.shape[axis] > 1:
                position[axis] = Node(Op.RANGE, dtypes.index, (), (self._next_range, source.shape[axis], Axis.REDUCE))
                self._next_range += 1
                ranges.append(position[axis])
        if any(source.shape[axis] == 0 for axis in axes):
            return ir.const(node.dtype.compute, ir.identity(op, node.dtype))
        value = self.value(source, tuple(position), gate)
        return ir.reduced(op, value, *ranges)

    def _take(self, node: Node, at: Position, gate: Node) -> Node:
        source, *indices = node.src
        chosen = self._looked_up(indices, at, source.shape, gate)
        return self.value(source, (*chosen, *at[len(indices[0].shape) :]), gate)

    def _looked_up(self, indices: list[Node], at: Position, shape: Shape, gate: Node) -> Position:
        """The position along the leading axes of a shape that indices name, limited to it."""
        chosen = []
        for index, n in zip(indices, shape, strict=False):
            found = self.value(index, at[: len(index.shape)], gate)
            if found.op is Op.CAST and found.src[0].dtype is dtypes.index:  # an IOTA: still a known position
                chosen.append(symbolic.clamp(found.src[0], 0, n - 1))
                continue
            if found.dtype.kind == "int":
                found = ir.binary(Op.MAX, found, 0)
            if n - 1 < found.dtype.limits[1]:  # in its own type, which may be wider than positions are
                found = ir.binary(Op.MIN, found, n - 1)
            chosen.append(Node(Op.CAST, dtypes.index, (found,)))
        return tuple(chosen)


def _through(lowering: Lowering, node: Node, at: Position, gate: Node) -> Node:
    return lowering.value(node.src[0], at, gate)


_OTHERS: Mapping[Op, Callable[[Lowering, Node, Position, Node], Node]] = {
    Op.CONST: lambda _, node, at, gate: ir.const(node.dtype.compute, node.arg),
    Op.IOTA: lambda _, node, at, gate: Node(Op.CAST, node.dtype, (at[node.arg[1]],)),
    Op.REDUCE: Lowering._reduce,
    Op.TAKE: Lowering._take,
    **dict.fromkeys((Op.SCATTER, Op.CONTIGUOUS, Op.DETACH), _through),  # of a SCATTER: its base; see ``updates``
}
