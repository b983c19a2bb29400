"""Operators that combine elements: sums and extremes, running ones, orders, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from amdrv.tensor import dtypes
from amdrv.tensor.ir import Op
from amdrv.tensor.onnx.registry import Call, Host, Operator, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)
Axes = tuple[int, ...] | None


def _extreme(op: Op) -> Callable[[Tensor, Axes], Tensor]:
    """The least or greatest; of no elements, what every element is beyond."""
    return lambda x, axes: x._reduce(op, axes, True)


def _log_sum_exp(x: Tensor, axes: Axes) -> Tensor:
    if 0 in x.shape:
        return x.exp().sum(axes, True).log()
    most = x.max(axes, True)
    shift = most.isfinite().where(most, 0.0)
    return (x - shift).exp().sum(axes, True).log() + shift


def _mean(x: Tensor, axes: Axes) -> Tensor:
    return x.mean(axes, True).trunc() if x.dtype.is_int else x.mean(axes, True)


REDUCTIONS: Mapping[str, Callable[[Tensor, Axes], Tensor]] = {
    "ReduceSum": lambda x, axes: x.sum(axes, True), "ReduceProd": lambda x, axes: x.prod(axes, True),
    "ReduceMean": _mean, "ReduceMax": _extreme(Op.MAX), "ReduceMin": _extreme(Op.MIN),
    "ReduceL1": lambda x, axes: x.abs().sum(axes, True), "ReduceL2": lambda x, axes: (x * x).sum(axes, True).sqrt(),
    "ReduceSumSquare": lambda x, axes: (x * x).sum(axes, True), "ReduceLogSumExp": _log_sum_exp,
    "ReduceLogSum": lambda x, axes: x.sum(axes, True).log(),
}  # fmt: skip


def _reduction(function: Callable[[Tensor, Axes], Tensor]) -> Callable[..., Tensor]:
    def reduce(call: Call, x: Tensor, axes: Host | None = None) -> Tensor:
        chosen = call.axes(axes) or None
        if chosen is None and call.get("noop_with_empty_axes", 0):
            chosen = ()
        wide = x.cast(dtypes.float32) if x.dtype in (dtypes.float16, dtypes.bfloat16) else x
        found = function(wide, chosen).cast(x.dtype)
        if call.get("keepdims", 1):
            return found
        return found.squeeze(tuple(range(x.ndim)) if chosen is None else chosen)

    return reduce


for _name, _function in REDUCTIONS.items():
    operator(_name)(_reduction(_function))


def _argument(call: Call, x: Tensor, find: Callable[[Tensor, int, bool], Tensor]) -> Tensor:
    axis, keep = call.integer("axis", 0), bool(call.get("keepdims", 1))
    if call.get("select_last_index", 0):
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keep)
    return find(x, axis, keep)


@operator("ArgMax")
def arg_max(call: Call, x: Tensor) -> Tensor:
    return _argument(call, x, Tensor.argmax)


@operator("ArgMin")
def arg_min(call: Call, x: Tensor) -> Tensor:
    return _argument(call, x, Tensor.argmin)


@operator("TopK")
def top_k(call: Call, x: Tensor, k: Host | None = None) -> tuple[Tensor, Tensor]:
    count = call.integer("k", 1) if k is None else int(k.reshape(-1)[0])
    values, places = x.topk(count, call.integer("axis", -1), bool(call.get("largest", 1)))
    return values, places


def _running(call: Call, x: Tensor, axis: int, first: int, scan: Callable[[Tensor, int], Tensor]) -> Tensor:
    at = axis % x.ndim
    turned = x.flip(at) if call.get("reverse", 0) else x
    if call.get("exclusive", 0):
        widths = [(0, 0)] * x.ndim
        widths[at] = (1, -1)
        turned = turned.pad(widths, first)
    found = scan(turned, at).cast(x.dtype)
    return found.flip(at) if call.get("reverse", 0) else found


@operator("CumSum")
def cumulative_sum(call: Call, x: Tensor, axis: Host) -> Tensor:
    return _running(call, x, int(axis.item()), 0, Tensor.cumsum)


@operator("CumProd")
def cumulative_product(call: Call, x: Tensor, axis: Host) -> Tensor:
    return _running(call, x, int(axis.item()), 1, Tensor.cumprod)


def _along(call: Call, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Before version 13 all axes from the given one on were one."""
    if call.opset >= 13:
        return function(x, call.integer("axis", -1))
    at = call.integer("axis", 1) % (x.ndim or 1)
    flat = x.reshape((math.prod(x.shape[:at]), math.prod(x.shape[at:])))
    return function(flat, -1).reshape(x.shape)


@operator("Softmax")
def softmax(call: Call, x: Tensor) -> Tensor:
    return _along(call, x, Tensor.softmax)


@operator("LogSoftmax")
def log_softmax(call: Call, x: Tensor) -> Tensor:
    return _along(call, x, Tensor.log_softmax)


@operator("Hardmax")
def hardmax(call: Call, x: Tensor) -> Tensor:
    def hard(flat: Tensor, axis: int) -> Tensor:
        n = flat.shape[axis]
        places = Tensor.arange(n, device=call.device).reshape((n, *(1,) * (flat.ndim - axis % flat.ndim - 1)))
        return flat.argmax(axis, True).equal(places).cast(flat.dtype)

    return _along(call, x, hard)
