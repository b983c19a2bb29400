"""What is known without a device: arithmetic on small host values, because shapes are made from it.

A step whose inputs are all host values is computed with NumPy if it is in the table here, and its result is one again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor.onnx.registry import Call, Host, Value, element_type, host

ELEMENTS_MAX = 1 << 14  # of a result; larger ones are made lazily, by the operator itself


def array(name: str, value: Any) -> Host:
    """The value of a Constant node, by the name of its attribute."""
    if isinstance(value, np.ndarray):
        return value
    kinds = {"value_float": "float32", "value_int": "int64", "value_string": "object"}
    kind = kinds.get(name.removesuffix("s"))
    if kind is None:
        raise InvalidArgument(f"{name!r} is no value of a Constant")
    return np.array(value, kind)


def _divide(call: Call, a: Host, b: Host) -> Host:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    safe = np.where(b == 0, 1, b)
    return np.where(b == 0, 0, np.sign(a) * np.sign(safe) * (abs(a) // abs(safe))).astype(a.dtype)


def cuts(call: Call, shape: Sequence[int], limits: Sequence[Host | None]) -> list[slice]:
    """What Slice cuts out along each axis. ``limits``: starts, ends, axes, steps; in version 1 they are attributes."""
    given = [
        call.axes(limit, name) for limit, name in itertools.zip_longest(limits, ("starts", "ends", "axes", "steps"))
    ]
    starts, ends = (part or () for part in given[:2])
    axes, steps = given[2] or range(len(starts)), given[3] or (1,) * len(starts)
    found = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # Backwards, an end before the first element has no number in Python.
        found[axis] = slice(start, None if step < 0 and end < -shape[axis] else end, step)
    return found


def _slice(call: Call, x: Host, *limits: Host | None) -> Host:
    return x[tuple(cuts(call, x.shape, limits))]


def _unsqueeze(call: Call, x: Host, axes: Host | None = None) -> Host:
    return np.expand_dims(x, call.axes(axes) or ())


def _squeeze(call: Call, x: Host, axes: Host | None = None) -> Host:
    return np.squeeze(x, call.axes(axes))


def _reduction(function: Callable[..., Any]) -> Callable[..., Host]:
    def reduce(call: Call, x: Host, axes: Host | None = None) -> Host | None:
        chosen = call.axes(axes)
        if not chosen and (call.get("noop_with_empty_axes", 0) or chosen == ()):
            return None
        return np.asarray(function(x, axis=chosen, keepdims=bool(call.get("keepdims", 1)))).astype(x.dtype)

    return reduce  # type: ignore[return-value]


def _reshape(call: Call, x: Host, shape: Host | None = None) -> Host:
    wanted = list(call.axes(shape, "shape") or ())
    if not call.get("allowzero", 0):
        wanted = [x.shape[at] if n == 0 else n for at, n in enumerate(wanted)]
    return x.reshape(wanted)


def _cast(call: Call, x: Host) -> Host | None:
    wanted = element_type(call.get("to"))
    return x.astype(wanted) if wanted.kind in "biuf" else None


def _range(call: Call, start: Host, limit: Host, step: Host) -> Host | None:
    if not step.item() or (limit.item() - start.item()) / step.item() > ELEMENTS_MAX:
        return None
    found: Host = np.arange(start.item(), limit.item(), step.item()).astype(start.dtype)
    return found


def _expand(call: Call, x: Host, shape: Host) -> Host | None:
    wanted = np.broadcast_shapes(x.shape, tuple(shape.tolist()))
    return np.broadcast_to(x, wanted).copy() if math.prod(wanted) <= ELEMENTS_MAX else None


def _fill(call: Call, shape: Host) -> Host | None:
    value = call.get("value", np.zeros(1, np.float32))
    if value.dtype.kind not in "biu" or (shape.size and math.prod(shape.tolist()) > ELEMENTS_MAX):
        return None
    return np.full(tuple(shape.tolist()), value.item(), value.dtype)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda call, *arrays: np.asarray(function(*arrays))


_SAME: Mapping[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Neg": np.negative, "Abs": np.abs, "Equal": np.equal,
    "Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and, "Or": np.logical_or, "Not": np.logical_not, "Where": np.where, "Floor": np.floor,
    "Ceil": np.ceil, "Sqrt": np.sqrt, "Identity": np.asarray,
}  # fmt: skip
FOLDS: Mapping[str, Callable[..., Host | None]] = {
    **{name: _plain(function) for name, function in _SAME.items()},
    "Div": _divide, "Slice": _slice, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Reshape": _reshape, "Cast": _cast,
    "Range": _range, "Expand": _expand, "ConstantOfShape": _fill,
    "ReduceProd": _reduction(np.prod), "ReduceSum": _reduction(np.sum), "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "Mod": lambda call, a, b: np.asarray((np.fmod if call.get("fmod", 0) else np.mod)(a, b)),
    "Min": lambda call, *parts: np.asarray(np.minimum.reduce(np.broadcast_arrays(*parts))),
    "Max": lambda call, *parts: np.asarray(np.maximum.reduce(np.broadcast_arrays(*parts))),
    "Concat": lambda call, *parts: np.concatenate(parts, call.get("axis")),
    "Gather": lambda call, x, at: np.take(x, at, call.get("axis", 0)),
    "Transpose": lambda call, x: x.transpose(call.get("perm")),
    "Flatten": lambda call, x: x.reshape(math.prod(x.shape[: call.get("axis", 1)]), -1) if x.size else None,
}  # fmt: skip


# What moves elements of any type, also of those that tensors lack.
MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Concat", "Gather", "Identity", "Expand", "Flatten"}


def folded(call: Call, given: Sequence[Value]) -> Value:
    """The result of a step on host values, or None when it is not for NumPy."""
    function = None if call.domain else FOLDS.get(call.op_type)
    if function is None or call.output_count != 1 or not given:
        return None
    first, arrays = given[0], [value for value in given if isinstance(value, np.ndarray)]
    plain = all(array.dtype.kind in "biuf" for array in arrays)
    if call.op_type in MOVES and isinstance(first, np.ndarray) and first.dtype.kind not in "biuf":
        given = [None if value is None else host(value) for value in given]
    else:
        every = plain and len(arrays) == sum(value is not None for value in given)
        if not every or sum(array.size for array in arrays) > ELEMENTS_MAX:
            return None
    with np.errstate(all="ignore"):
        found = function(call, *given)
    return None if found is None else np.asarray(found)
