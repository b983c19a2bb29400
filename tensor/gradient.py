"""Gradients: one rule for each operation, as a transformation of the graph.

A rule is matched like any other. It gives one gradient for each source of the node, or None where there is none; ``g``
is the gradient of the node itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from amdrv.errors import Unsupported
from amdrv.tensor.ir import Node, Op, const, toposort, where
from amdrv.tensor.patterns import Rule, RuleSet, node, var
from amdrv.tensor.shapes import inverse
from amdrv.tensor.sharding import home, moved
from amdrv.tensor.storage import Group

Gradients = tuple[Node | None, ...]


def _zero(like: Node) -> Node:
    return const(like.dtype, 0.0)


def _pow(g: Node, found: Node, x: Node, y: Node) -> Gradients:
    # An operation on constants alone would have no shape.
    below = Node(Op.POW, x.dtype, (x, const(y.dtype, y.arg - 1.0) if y.op is Op.CONST else y - 1.0))
    if x.op is Op.CONST:
        return None, g * found * math.log(x.arg if x.arg > 0 else 1.0)
    logs = where(x > 0.0, x, const(x.dtype, 1.0)).unary(Op.LOG)
    slope = where(y.eq(0.0), _zero(y), y * below) if y.op is not Op.CONST else y * below if y.arg else _zero(x)
    return g * slope, None if y.op is Op.CONST else g * found * logs


def _extreme(g: Node, found: Node, x: Node, y: Node) -> Gradients:
    """To the source that was taken; half to each of equal ones."""
    half = where(x.eq(y), g * 0.5, _zero(g))
    return where(x.eq(found), g, _zero(g)) - half, where(y.eq(found), g, _zero(g)) - half


def _expand(g: Node, found: Node, x: Node) -> Gradients:
    if not x.shape:
        return (_sum(g, tuple(range(len(g.shape)))).unary(Op.RESHAPE, ()),)
    return (_sum(g, tuple(axis for axis, (a, b) in enumerate(zip(x.shape, g.shape, strict=True)) if a != b)),)


def _sum(g: Node, axes: tuple[int, ...]) -> Node:
    return g.unary(Op.REDUCE, (Op.ADD, axes)) if axes else g


def _pad(g: Node, found: Node, x: Node) -> Gradients:
    cut = tuple((before, between + 1, n) for (before, _, between), n in zip(found.arg, x.shape, strict=True))
    return (g.unary(Op.SLICE, cut),)


def _slice(g: Node, found: Node, x: Node) -> Gradients:
    """Elements that were left out have gradient zero."""
    if any(step < 0 for _, step, _ in found.arg):
        turns = ((length - 1, -1, length) if step < 0 else (0, 1, length) for _, step, length in found.arg)
        g = g.unary(Op.SLICE, tuple(turns))
    widths = []
    for (start, step, length), n in zip(found.arg, x.shape, strict=True):
        first = start if step > 0 else start + step * (length - 1)
        covered = (length - 1) * abs(step) + 1 if length else 0
        widths.append((first, n - first - covered, abs(step) - 1))
    return (g.unary(Op.PAD, tuple(widths)),)


def _window(g: Node, found: Node, x: Node) -> Gradients:
    """Each element is in several windows, once at each place of a window: the sum over the places."""
    axis, size, stride, dilation = found.arg
    n, count = x.shape[axis], g.shape[axis]
    total: Node | None = None
    for place in range(size):
        cut = (*((0, 1, m) for m in g.shape[:-1]), (place, 1, 1))
        before = place * dilation
        after = n - before - ((count - 1) * stride + 1)
        widths = tuple((before, after, stride - 1) if a == axis else (0, 0, 0) for a in range(len(x.shape)))
        part = g.unary(Op.SLICE, cut).unary(Op.RESHAPE, g.shape[:-1]).unary(Op.PAD, widths)
        total = part if total is None else total + part
    return (total,)


def _take(g: Node, found: Node) -> Gradients:
    """Every element of the source collects what was taken of it."""
    source, *indices = found.src
    return _collected(g, source, indices), *(None for _ in indices)


def _collected(values: Node, like: Node, indices: Iterable[Node]) -> Node:
    """Sums of the values that belong to each element of an array."""
    wide = values.dtype.compute
    base = Node(Op.EXPAND, wide, (const(wide, 0.0),), like.shape)
    return Node(Op.SCATTER, wide, (base, values.cast(wide), *indices), Op.ADD).cast(values.dtype)


def _scatter(g: Node, found: Node) -> Gradients:
    base, values, *indices = found.src
    none = (None for _ in indices)

    def look(node: Node) -> Node:
        return Node(Op.TAKE, node.dtype, (node, *indices))

    if found.arg is Op.ADD:
        return g, look(g), *none
    if found.arg is Op.MUL:
        return g * found / base, look(g * found) / values, *none
    hit, hits = base.eq(found).cast(g.dtype), values.eq(look(found)).cast(g.dtype)
    share = g / (hit + _collected(hits, base, indices))
    return hit * share, hits * look(share), *none


def _reduce(g: Node, found: Node, x: Node) -> Gradients:
    op, axes = found.arg
    wide = g.unary(Op.EXPAND, x.shape)
    if op is Op.ADD:
        return (wide,)
    if op is Op.MUL:
        # The product of the others, also where some are zero.
        zero = x.eq(0.0)
        rest = where(zero, const(x.dtype, 1.0), x)
        product = rest.unary(Op.REDUCE, found.arg).unary(Op.EXPAND, x.shape)
        zeros = _sum(zero.cast(x.dtype), axes).unary(Op.EXPAND, x.shape)
        return (where(zeros.eq(zero.cast(x.dtype)), wide * product / rest, _zero(x)),)
    hit = x.eq(found.unary(Op.EXPAND, x.shape)).cast(x.dtype)
    return (hit * wide / _sum(hit, axes).unary(Op.EXPAND, x.shape),)


x, y, c = var("x"), var("y"), var("c")
RULES = RuleSet(
    [
        Rule("add", x + y, lambda g: (g, g)),
        Rule("subtract", x - y, lambda g: (g, -g)),
        Rule("multiply", node(Op.MUL, x, y), lambda g, found: (g * found.src[1], g * found.src[0])),
        Rule("divide", x / y, lambda g, x, y: (g / y, -(g * x) / (y * y))),
        Rule("negate", -x, lambda g: (-g,)),
        Rule("power", x**y, _pow),
        Rule("maximum", node(Op.MAX, x, y), lambda g, found: _extreme(g, found, *found.src)),
        Rule("minimum", node(Op.MIN, x, y), lambda g, found: _extreme(g, found, *found.src)),
        Rule("where", node(Op.WHERE, c, x, y), lambda g, c: (None, where(c, g, _zero(g)), where(c, _zero(g), g))),
        Rule("square root", node(Op.SQRT, x), lambda g, found: (g * 0.5 / found,)),
        Rule("exp", node(Op.EXP, x), lambda g, found: (g * found,)),
        Rule("exp2", node(Op.EXP2, x), lambda g, found: (g * found * math.log(2),)),
        Rule("log", node(Op.LOG, x), lambda g, x: (g / x,)),
        Rule("log2", node(Op.LOG2, x), lambda g, x: (g / (x * math.log(2)),)),
        Rule("sine", node(Op.SIN, x), lambda g, x: (g * x.unary(Op.COS),)),
        Rule("cosine", node(Op.COS, x), lambda g, x: (-(g * x.unary(Op.SIN)),)),
        Rule("erf", node(Op.ERF, x), lambda g, x: (g * (-(x * x)).unary(Op.EXP) * (2 / math.sqrt(math.pi)),)),
        Rule("floor", node(Op.FLOOR, x), lambda: (None,)),
        Rule("round", node(Op.RINT, x), lambda: (None,)),
        Rule("cast", node(Op.CAST, x), lambda g, x: (g.cast(x.dtype) if x.dtype.is_float else None,)),
        Rule("reshape", node(Op.RESHAPE, x), lambda g, x: (g.unary(Op.RESHAPE, x.shape),)),
        Rule("permute", node(Op.PERMUTE), lambda g, found: (g.unary(Op.PERMUTE, inverse(found.arg)),)),
        Rule("expand", node(Op.EXPAND, x), _expand),
        Rule("pad", node(Op.PAD, x), _pad),
        Rule("slice", node(Op.SLICE, x), _slice),
        Rule("window", node(Op.WINDOW, x), _window),
        Rule("take", node(Op.TAKE), _take),
        Rule("scatter", node(Op.SCATTER), _scatter),
        Rule("reduce", node(Op.REDUCE, x), _reduce),
        Rule("contiguous", node(Op.CONTIGUOUS, x), lambda g: (g,)),
        Rule("copy", node(Op.COPY, x), lambda g, x: (moved(g, home(x)),)),
        Rule("shard", node(Op.SHARD, x), lambda g, x: (g if isinstance(to := home(x), Group) else moved(g, to),)),
    ]
)
NO_GRADIENT = frozenset(
    {Op.DETACH, Op.LT, Op.EQ, Op.IOTA, Op.BITCAST, Op.AND, Op.OR, Op.XOR, Op.SHL, Op.SHR, Op.IDIV, Op.MOD}
)


def gradients(result: Node, first: Node, targets: Iterable[Node]) -> dict[Node, Node]:
    """The gradient of ``result`` for each target that it depends on; ``first`` is its own.

    Raises Unsupported naming an operation that has no rule.
    """
    wanted = set(targets)
    order = list(toposort([result]))
    leads: set[Node] = set(wanted)
    for found in order:
        if found.op not in NO_GRADIENT and any(source in leads for source in found.src):
            leads.add(found)
    known: dict[Node, Node] = {result: _shaped(first, result)}
    for found in reversed(order):
        g = known.get(found)
        if g is None or found not in leads or not found.src or found.op in NO_GRADIENT:
            continue
        rule = next(iter(RULES.about(found.op)), None)
        parts = rule.apply(found, {"g": g}) if rule is not None else None
        if parts is None:
            raise Unsupported(f"no gradient of {found.op}")
        for source, part in zip(found.src, parts, strict=True):
            if part is not None and source in leads:
                known[source] = known[source] + part if source in known else part
    return {node: known[node] for node in wanted if node in known}


def _shaped(gradient: Node, like: Node) -> Node:
    """A gradient with the shape of what it belongs to, which a constant has not."""
    if gradient.op is Op.CONST and like.shape:
        return gradient.unary(Op.EXPAND, like.shape)
    return gradient
