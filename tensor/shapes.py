"""Shapes of the tensor graph, and where movement takes its elements from.

A movement never copies: it says which element of its source an element of its result is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from amdrv.tensor import symbolic
from amdrv.tensor.ir import ELEMENTWISE, Node, Op, Shape

Position = tuple[Node, ...]


def _pad_shape(node: Node) -> Shape:
    lengths = zip(node.src[0].shape, node.arg, strict=True)
    return tuple(before + after + (n + (n - 1) * between if n else 0) for n, (before, after, between) in lengths)


def _window_shape(node: Node) -> Shape:
    axis, size, stride, dilation = node.arg
    shape = node.src[0].shape
    count = (shape[axis] - dilation * (size - 1) - 1) // stride + 1
    return (*shape[:axis], count, *shape[axis + 1 :], size)


def _reduce_shape(node: Node) -> Shape:
    _, axes = node.arg
    return tuple(1 if axis in axes else n for axis, n in enumerate(node.src[0].shape))


def _copy_shape(node: Node) -> Shape:
    first = node.src[0].shape
    return first if len(node.src) == 1 else (sum(source.shape[0] for source in node.src), *first[1:])


_SHAPES: Mapping[Op, Callable[[Node], Shape]] = {
    Op.CONST: lambda node: (),
    Op.BUFFER: lambda node: node.arg[1],
    Op.IOTA: lambda node: node.arg[0],
    Op.RESHAPE: lambda node: node.arg,
    Op.EXPAND: lambda node: node.arg,
    Op.PERMUTE: lambda node: tuple(node.src[0].shape[axis] for axis in node.arg),
    Op.PAD: _pad_shape,
    Op.SLICE: lambda node: tuple(length for _, _, length in node.arg),
    Op.WINDOW: _window_shape,
    Op.TAKE: lambda node: node.src[1].shape + node.src[0].shape[len(node.src) - 1 :],
    Op.REDUCE: _reduce_shape,
    **dict.fromkeys((Op.SCATTER, Op.DETACH, Op.CONTIGUOUS, Op.SHARD), lambda node: node.src[0].shape),
    Op.COPY: _copy_shape,
    Op.SINK: lambda node: (),
}


def infer(node: Node) -> Shape:
    """The shape of a node of the tensor graph."""
    if node.op in ELEMENTWISE:
        return next((source.shape for source in node.src if source.op is not Op.CONST), ())
    return _SHAPES[node.op](node)


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes one."""
    return tuple(map(order.index, range(len(order))))


def strides(shape: Shape) -> tuple[int, ...]:
    """How far apart in a buffer neighbours along each axis are, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def flat(position: Position, shape: Shape) -> Node:
    """The place in a buffer of the element at a position."""
    terms = []
    constant = 0
    for at, step in zip(position, strides(shape), strict=True):
        inner, more = symbolic.affine(at)
        terms += [(node, factor * step) for node, factor in inner]
        constant += more * step
    return symbolic.linear(terms, constant)


def unflat(place: Node, shape: Shape) -> Position:
    """The position of the element at a place in a buffer; where there are no elements nothing looks at it."""
    if 0 in shape:
        return (symbolic.ZERO,) * len(shape)
    return tuple(symbolic.ZERO if n == 1 else place // step % n for n, step in zip(shape, strides(shape), strict=True))


Moved = tuple[Position, Node]  # where in the source, and whether there is an element


def _alike(a: Shape, b: Shape) -> int:
    """How many axes two shapes begin with in common."""
    return next((k for k, (n, m) in enumerate(zip(a, b, strict=False)) if n != m), min(len(a), len(b)))


def _reshape(node: Node, at: Position) -> Moved:
    source = node.src[0].shape
    # Axes that both shapes begin or end with stay what they are: only what is between them is taken apart.
    head = _alike(source, node.arg)
    tail = _alike(source[head:][::-1], node.arg[head:][::-1])
    stop_from, stop_to = len(at) - tail, len(source) - tail
    place = flat(at[head:stop_from], node.arg[head:stop_from])
    return (*at[:head], *unflat(place, source[head:stop_to]), *at[stop_from:]), symbolic.TRUE


def _expand(node: Node, at: Position) -> Moved:
    source = node.src[0].shape
    if not source:
        return (), symbolic.TRUE
    return tuple(symbolic.ZERO if n == 1 else i for n, i in zip(source, at, strict=True)), symbolic.TRUE


def _pad(node: Node, at: Position) -> Moved:
    moved, gate = [], symbolic.TRUE
    for n, i, (before, _, between) in zip(node.src[0].shape, at, node.arg, strict=True):
        inside = i + (-before)
        step = between + 1
        gate = symbolic.both(gate, symbolic.at_least(inside, 0))
        gate = symbolic.both(gate, symbolic.less(inside, (n - 1) * step + 1))
        if between:
            gate = symbolic.both(gate, symbolic.equal(inside % step, 0))
        moved.append(inside // step)
    return tuple(moved), gate


def _window(node: Node, at: Position) -> Moved:
    axis, _, stride, dilation = node.arg
    start = at[axis] * stride + at[-1] * dilation
    return (*at[:axis], start, *at[axis + 1 : -1]), symbolic.TRUE


_MOVES: Mapping[Op, Callable[[Node, Position], Moved]] = {
    Op.RESHAPE: _reshape,
    Op.EXPAND: _expand,
    Op.PERMUTE: lambda node, at: (tuple(at[place] for place in inverse(node.arg)), symbolic.TRUE),
    Op.PAD: _pad,
    Op.SLICE: lambda node, at: (
        tuple(i * s + b for i, (b, s, _) in zip(at, node.arg, strict=True)),
        symbolic.TRUE,
    ),
    Op.WINDOW: _window,
}


def move(node: Node, at: Position) -> Moved:
    """Where in its source a movement finds the element at a position, and whether there is one there."""
    return _MOVES[node.op](node, at)
