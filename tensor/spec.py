"""What well-formed graphs and kernels look like. Every stage's result can be checked; tests always do."""

from __future__ import annotations

from amdrv.errors import Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.ir import BINARY, COMPARE, ELEMENTWISE, MOVEMENT, REDUCTIONS, UNARY, Axis, Node, Op, toposort

GRAPH_ONLY = {Op.BUFFER, Op.IOTA, Op.TAKE, Op.SCATTER, Op.CONTIGUOUS, Op.COPY, Op.SHARD, Op.DETACH} | MOVEMENT
KERNEL_ONLY = {Op.RANGE, Op.PARAM, Op.LOAD, Op.STORE, Op.MULADD}


def problem(node: Node) -> str:
    """What is wrong with a node whatever stage it is in; "" when nothing is."""
    types = [source.dtype for source in node.src]
    if node.op in UNARY:
        return "" if types == [node.dtype] else "one source of the result's type"
    if node.op in COMPARE:
        same = len(types) == 2 and types[0] is types[1] and node.dtype is dtypes.bool_
        return "" if same else "two of one type → bool"
    if node.op in BINARY:
        return "" if types == [node.dtype] * 2 else "two sources of the result's type"
    if node.op is Op.WHERE:
        return "" if types == [dtypes.bool_, node.dtype, node.dtype] else "a bool and two of the result's type"
    if node.op is Op.BITCAST:
        same = len(types) == 1 and types[0].size_bytes == node.dtype.size_bytes
        return "" if same else "a source with as many bits"
    if node.op in (Op.CAST, *MOVEMENT):
        return "" if len(types) == 1 else "one source"
    return ""


def _reduce_problem(node: Node, kernel: bool) -> str:
    if not kernel:
        op, axes = node.arg
        fits = all(0 <= axis < len(node.src[0].shape) for axis in axes) and len(set(axes)) == len(axes)
        return "" if op in REDUCTIONS and fits else "(op, axes of the source)"
    if node.arg not in REDUCTIONS or node.src[0].dtype is not node.dtype or len(node.src) < 2:
        return "a value of the result's type and ranges"
    axes = {part.arg[2] for part in node.src[1:] if part.op is Op.RANGE}
    return "" if Axis.LOOP not in axes and all(part.op is Op.RANGE for part in node.src[1:]) else "ranges to reduce"


def check_graph(root: Node) -> None:
    """Raise Unsupported naming the first node of a tensor graph that is not well-formed."""
    for node in toposort([root]):
        wrong = problem(node)
        if node.op in KERNEL_ONLY:
            wrong = "to be in a kernel"
        elif node.op is Op.REDUCE:
            wrong = _reduce_problem(node, kernel=False)
        elif node.op in ELEMENTWISE:
            shapes = {source.shape for source in node.src if source.op is not Op.CONST}
            wrong = wrong or ("sources of one shape" if len(shapes) > 1 else "")
        elif node.op is Op.EXPAND:
            before = node.src[0].shape
            fits = not before or (
                len(before) == len(node.arg) and all(a in (1, b) for a, b in zip(before, node.arg, strict=True))
            )
            wrong = "" if fits else "axes of length one to repeat"
        elif node.op is Op.SCATTER:
            base, values, first = node.src[:3]
            fits = values.shape == first.shape + base.shape[len(node.src) - 2 :] and node.dtype.bits >= 32
            wrong = "" if fits and node.arg in REDUCTIONS else "values of the indices' shape, 32 or 64 bits wide"
        if wrong:
            raise Unsupported(f"tensor graph: {node} wants {wrong}; it has {list(node.src)}")


def check_kernel(root: Node) -> None:
    """Raise Unsupported naming the first node of a kernel that is not well-formed."""
    for node in toposort([root]):
        wrong = problem(node)
        if node.op in GRAPH_ONLY:
            wrong = "to be in a tensor graph"
        elif node.op is Op.REDUCE:
            wrong = _reduce_problem(node, kernel=True)
        elif node.op is Op.LOAD:
            param, position, gate = node.src
            fits = param.op is Op.PARAM and position.dtype is dtypes.index and gate.dtype is dtypes.bool_
            wrong = "" if fits and param.dtype is node.dtype else "(param, position, gate)"
        elif node.op is Op.STORE:
            param, position, value = node.src[:3]
            fits = param.op is Op.PARAM and position.dtype is dtypes.index and value.dtype is param.dtype
            wrong = "" if fits else "(param, position, value of its type)"
        if wrong:
            raise Unsupported(f"kernel: {node} wants {wrong}; it has {list(node.src)}")
