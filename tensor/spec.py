"""What well-formed graphs and kernels look like. Every stage's result is checked, and its errors name the stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from amdrv.errors import AmdrvError, Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.ir import BINARY, COMPARE, ELEMENTWISE, MOVEMENT, REDUCTIONS, UNARY, Axis, Node, Op, text, toposort

Wanted = Mapping[Op, tuple[str, Callable[[Node], object]]]  # what an operation wants, and whether a node has it
GRAPH_ONLY = {Op.BUFFER, Op.IOTA, Op.TAKE, Op.SCATTER, Op.CONTIGUOUS, Op.COPY, Op.SHARD, Op.DETACH} | MOVEMENT
KERNEL_ONLY = {Op.RANGE, Op.PARAM, Op.SHARED, Op.LOAD, Op.STORE, Op.MULADD, Op.TRUNCDIV, Op.REM, Op.MATRIX, Op.PART}


def _types(node: Node, *wanted: object) -> bool:
    return len(node.src) == len(wanted) and all(s.dtype is w for s, w in zip(node.src, wanted, strict=True))


def _compared(node: Node) -> bool:
    return node.dtype is dtypes.bool_ and _types(node, node.src[0].dtype, node.src[0].dtype)


def _same_shapes(node: Node) -> bool:
    return len({source.shape for source in node.src if source.op is not Op.CONST}) < 2


def _reduces_axes(node: Node) -> bool:
    op, axes = node.arg
    return op in REDUCTIONS and set(axes) <= set(range(len(node.src[0].shape))) and len(set(axes)) == len(axes)


def _repeats(node: Node) -> bool:
    before, after = node.src[0].shape, node.arg
    same = len(before) == len(after) and all(a in (1, b) for a, b in zip(before, after, strict=True))
    return same or not before


def _scatters(node: Node) -> bool:
    base, values, first = node.src[:3]
    fits = values.shape == first.shape + base.shape[len(node.src) - 2 :]
    return fits and node.dtype.bits >= 32 and node.arg in REDUCTIONS


def _reduces_ranges(node: Node) -> bool:
    value, *ranges = node.src
    reduced = ranges != [] and all(part.op is Op.RANGE and part.arg[2] is not Axis.LOOP for part in ranges)
    return reduced and value.dtype is node.dtype and (node.arg in REDUCTIONS or node.arg is Op.MATRIX)


def _touches(node: Node) -> bool:
    param, position, third = node.src[:3]
    typed = param.dtype is node.dtype and third.dtype is (dtypes.bool_ if node.op is Op.LOAD else node.dtype)
    return typed and param.op in (Op.PARAM, Op.SHARED) and position.dtype is dtypes.index


_ANYWHERE: Wanted = {
    **dict.fromkeys(UNARY, ("one source of the result's type", lambda node: _types(node, node.dtype))),
    **dict.fromkeys(COMPARE, ("two of one type → bool", _compared)),
    **dict.fromkeys(BINARY, ("two sources of the result's type", lambda node: _types(node, node.dtype, node.dtype))),
    Op.WHERE: ("a bool and two of the result's type", lambda node: _types(node, dtypes.bool_, node.dtype, node.dtype)),
    Op.BITCAST: ("a source with as many bits", lambda node: node.src[0].dtype.size_bytes == node.dtype.size_bytes),
    **dict.fromkeys((Op.CAST, *MOVEMENT), ("one source", lambda node: len(node.src) == 1)),
}
_GRAPH: Wanted = {
    **dict.fromkeys(ELEMENTWISE, ("sources of one shape", _same_shapes)),
    **dict.fromkeys(KERNEL_ONLY, ("to be in a kernel", lambda node: False)),
    Op.REDUCE: ("(op, axes of the source)", _reduces_axes),
    Op.EXPAND: ("axes of length one to repeat", _repeats),
    Op.SCATTER: ("values of the indices' shape, 32 or 64 bits wide", _scatters),
}
_KERNEL: Wanted = {
    **dict.fromkeys(GRAPH_ONLY, ("to be in a tensor graph", lambda node: False)),
    Op.REDUCE: ("a value of the result's type and ranges to reduce", _reduces_ranges),
    Op.LOAD: ("(param, position, gate)", _touches),
    Op.STORE: ("(param, position, value of its type)", _touches),
    Op.MULADD: ("three sources of the result's type", lambda node: _types(node, node.dtype, node.dtype, node.dtype)),
}


def _check(what: str, roots: Iterable[Node], own: Wanted) -> None:
    for node in toposort(roots):
        for wants, holds in filter(None, (_ANYWHERE.get(node.op), own.get(node.op))):
            if not holds(node):
                raise Unsupported(f"{what}: {node} wants {wants}; it has {list(node.src)}")


def check_graph(root: Node) -> None:
    """Raise Unsupported naming the first node of a tensor graph that is not well-formed."""
    _check("tensor graph", [root], _GRAPH)


def check_kernel(stores: Iterable[Node]) -> None:
    """Raise Unsupported naming the first node of a kernel, arranged or not, that is not well-formed."""
    _check("kernel", stores, _KERNEL)


@contextmanager
def stage(name: str, stores: Iterable[Node]) -> Iterator[None]:
    """Whatever goes wrong in a stage is an Unsupported that names it, and shows the kernel that it was given."""
    try:
        yield
    except Exception as error:
        what = "" if isinstance(error, AmdrvError) else f"{type(error).__name__}: "
        raise Unsupported(f"a kernel fails (stage: {name}): {what}{error}\n{text(stores)}") from error
