"""Rules on the tensor graph that hold for every input, applied before scheduling."""

from __future__ import annotations

import math

import numpy as np

from amdrv.tensor import ir
from amdrv.tensor.ir import Node, Op
from amdrv.tensor.patterns import Rule, RuleSet, const, node, var
from amdrv.tensor.rewrite import Step, rewrite

SPLIT_MIN = 1 << 15  # elements of a reduction that is worth doing in two steps
SPLIT_PARTS = 256
SPLIT_RESULTS_MAX = 64  # with more results than this there is enough to do at once

x, c, d = var("x"), const("c"), const("d")
_whole = var("x", lambda found: found.dtype.is_int)
_NUMPY = {
    Op.ADD: np.add,
    Op.SUB: np.subtract,
    Op.MUL: np.multiply,
    Op.DIV: np.divide,
    Op.MAX: np.maximum,
    Op.MIN: np.minimum,
    Op.LT: np.less,
    Op.EQ: np.equal,
}


def _fold(found: Node, c: Node, d: Node) -> Node | None:
    """What an operation on constants gives, where NumPy has the type."""
    if found.op not in _NUMPY or (c.dtype.bits < 32 and c.dtype.is_float):
        return None
    with np.errstate(all="ignore"):
        value = _NUMPY[found.op](c.dtype.numpy.type(c.arg), d.dtype.numpy.type(d.arg))
    return ir.const(found.dtype, value.item())


def _fold_cast(found: Node, c: Node) -> Node | None:
    return None if found.dtype.is_float and found.dtype.bits < 32 else ir.const(found.dtype, c.arg)


def _same_shape(found: Node, x: Node) -> Node | None:
    return x if x.shape == found.arg else None


def _permute_nothing(found: Node, x: Node) -> Node | None:
    return x if found.arg == tuple(range(len(found.arg))) else None


def _split(found: Node, x: Node) -> Node | None:
    """A long reduction to few results: first to parts that can be computed at the same time, then to the result."""
    op, axes = found.arg
    kept = [n for axis, n in enumerate(x.shape) if axis not in axes]
    size = math.prod(x.shape[axis] for axis in axes)
    if size < SPLIT_MIN or math.prod(kept) > SPLIT_RESULTS_MAX:
        return None
    if len(axes) == len(x.shape) > 1:
        return x.unary(Op.RESHAPE, (size,)).unary(Op.REDUCE, (op, (0,))).unary(Op.RESHAPE, found.shape)
    axis = max(axes, key=lambda axis: x.shape[axis])
    n = x.shape[axis]
    parts = next((parts for parts in range(min(SPLIT_PARTS, n // 64), 7, -1) if n % parts == 0), None)
    if parts is None:
        return None
    cut = (*x.shape[:axis], parts, n // parts, *x.shape[axis + 1 :])
    inner_axes = tuple(a if a < axis else a + 1 for a in axes)
    partial = x.unary(Op.RESHAPE, cut).unary(Op.REDUCE, (op, inner_axes)).unary(Op.CONTIGUOUS)
    return partial.unary(Op.REDUCE, (op, (axis,))).unary(Op.RESHAPE, found.shape)


RULES = RuleSet(
    [
        Rule("detach is for gradients", node(Op.DETACH, x), x),
        *(Rule(f"fold {op}", node(op, c, d), _fold) for op in _NUMPY),
        Rule("fold cast", node(Op.CAST, c), _fold_cast),
        Rule("add zero", _whole + 0, _whole),
        Rule("subtract zero", x - 0, x),
        Rule("times one", x * 1, x),
        Rule("times zero", _whole * 0, lambda x: Node(Op.EXPAND, x.dtype, (ir.const(x.dtype, 0),), x.shape)),
        Rule("divide by one", x / 1, x),
        Rule("negate twice", node(Op.NEG, node(Op.NEG, x)), x),
        Rule("reshape twice", node(Op.RESHAPE, node(Op.RESHAPE, x)), lambda found, x: found.replace((x,))),
        Rule("reshape to the same", node(Op.RESHAPE, x), _same_shape),
        Rule(
            "permute twice",
            node(Op.PERMUTE, node(Op.PERMUTE, x).named("inner")),
            lambda found, inner, x: x.unary(Op.PERMUTE, tuple(inner.arg[axis] for axis in found.arg)),
        ),
        Rule("permute nothing", node(Op.PERMUTE, x), _permute_nothing),
        Rule("expand to the same", node(Op.EXPAND, x), _same_shape),
        Rule("contiguous twice", node(Op.CONTIGUOUS, node(Op.CONTIGUOUS, x)), node(Op.CONTIGUOUS, x)),
        Rule("split long reduction", node(Op.REDUCE, x), _split),
    ]
)


def simplify(root: Node, trace: list[Step] | None = None) -> Node:
    """The graph with the rules applied."""
    return rewrite(root, RULES, trace)
