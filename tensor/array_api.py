"""The array API's functions on tensors, under the standard's names: what ``tensor.__array_namespace__()`` returns.

Most are methods under another name; the table says which.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.core import Core
from amdrv.tensor.dtypes import DType
from amdrv.tensor.tensor import Tensor

__array_api_version__ = "2024.12"
e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None
bool = dtypes.bool_
int8, int16, int32, int64 = dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64
uint8, uint16, uint32, uint64 = dtypes.uint8, dtypes.uint16, dtypes.uint32, dtypes.uint64
float16, bfloat16, float32, float64 = dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64

# Names of functions that are methods with the same arguments, and those whose methods have other names.
SAME = (
    *("exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh"),
    *("asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "logaddexp", "floor", "ceil", "round", "trunc"),
    *("sign", "square", "isnan", "isinf", "isfinite", "reciprocal", "logical_not", "logical_and", "logical_or"),
    *("maximum", "minimum", "clip", "where", "reshape", "squeeze", "expand_dims", "flip", "take", "argmax"),
    *("argmin", "matmul", "nonzero", "sort", "argsort", "tril", "triu", "broadcast_to", "full_like", "zeros_like"),
    *("ones_like"),
)  # fmt: skip
METHODS = {
    **{name: name for name in SAME},
    "abs": "__abs__", "negative": "__neg__", "positive": "__pos__", "bitwise_invert": "__invert__",
    "add": "__add__", "subtract": "__sub__", "multiply": "__mul__", "divide": "__truediv__", "pow": "__pow__",
    "floor_divide": "__floordiv__", "remainder": "__mod__", "less": "__lt__", "less_equal": "__le__",
    "greater": "__gt__", "greater_equal": "__ge__", "equal": "__eq__", "not_equal": "__ne__",
    "bitwise_and": "__and__", "bitwise_or": "__or__", "bitwise_xor": "__xor__", "permute_dims": "permute",
    "bitwise_left_shift": "__lshift__", "bitwise_right_shift": "__rshift__", "empty_like": "zeros_like",
}  # fmt: skip
REDUCTIONS = ("sum", "prod", "max", "min", "mean", "any", "all", "std", "var")
CREATION = ("zeros", "ones", "full", "arange", "linspace", "eye")


def _method(name: str) -> Callable[..., Any]:
    def call(x: Tensor, /, *arguments: Any, **options: Any) -> Any:
        return getattr(x, name)(*arguments, **options)

    call.__doc__ = f"``x.{name}``."
    return call


def _reduction(name: str) -> Callable[..., Tensor]:
    def call(x: Tensor, /, *, axis: Any = None, keepdims: Any = False, **options: Any) -> Tensor:
        found: Tensor = getattr(x, name)(axis, keepdim=keepdims, **options)
        return found

    call.__doc__ = f"``x.{name}`` along axes."
    return call


globals().update({name: _method(method) for name, method in METHODS.items()})
globals().update({name: _reduction(name) for name in REDUCTIONS})
globals().update({name: getattr(Tensor, name) for name in CREATION})


def asarray(obj: Any, /, *, dtype: DType | None = None, device: Any = None, copy: Any = None) -> Tensor:
    """A tensor with the values of anything that has some."""
    return Tensor(obj, device=device, dtype=dtype)


def from_dlpack(x: Any, /, *, device: Any = None, copy: Any = None) -> Tensor:
    """A tensor with the values of another library's array."""
    import numpy as np

    return Tensor(np.from_dlpack(x), device=device)


def astype(x: Tensor, dtype: DType, /, *, copy: Any = True, device: Any = None) -> Tensor:
    """The values in another type, on another device if one is given."""
    return (x if device is None else x.to(device)).cast(dtype)


def empty(shape: Any, *, dtype: Any = float32, device: Any = None) -> Tensor:
    """A tensor whose values do not matter."""
    return Tensor.zeros(shape, dtype=dtype, device=device)


def isdtype(dtype: DType, kind: Any) -> builtins.bool:
    """Whether a type is of a kind, or one of several."""
    if isinstance(kind, tuple):
        return builtins.any(isdtype(dtype, part) for part in kind)
    if isinstance(kind, DType):
        return dtype is kind
    kinds = {"bool": "bool", "signed integer": "int", "unsigned integer": "uint", "real floating": "float"}
    several = {"integral": ("int", "uint"), "numeric": ("int", "uint", "float"), "complex floating": ()}
    if kind not in kinds and kind not in several:
        raise InvalidArgument(f"isdtype: {kind!r} is no kind of type")
    return dtype.kind in several.get(kind, (kinds.get(kind),))


def can_cast(from_: Any, to: DType, /) -> builtins.bool:
    """Whether promotion leads from one type to the other."""
    return result_type(from_, to) is to


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts along an axis, without it."""
    return tuple(part.squeeze(axis) for part in x.split(1, axis))


def moveaxis(x: Tensor, source: int, destination: int, /) -> Tensor:
    """One axis at another place."""
    order = [axis for axis in range(x.ndim) if axis != source % x.ndim]
    order.insert(destination % x.ndim, source % x.ndim)
    return x.permute(order)


def cumulative_sum(x: Tensor, /, *, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Sums of the elements so far."""
    return (x if dtype is None else x.cast(dtype)).cumsum(0 if axis is None else axis)


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """For each index the element there along an axis."""
    return x.gather(axis, indices)


def count_nonzero(x: Tensor, /, *, axis: Any = None, keepdims: Any = False) -> Tensor:
    """How many elements are not zero."""
    return x.cast(bool).sum(axis, keepdim=keepdims)


def vecdot(x: Tensor, y: Tensor, /, *, axis: int = -1) -> Tensor:
    """The sum of products along an axis."""
    return (x * y).sum(axis)


def tensordot(x: Tensor, y: Tensor, /, *, axes: Any = 2) -> Tensor:
    """Products summed over pairs of axes: the last and first few, or given ones."""
    left, right = (range(x.ndim - axes, x.ndim), range(axes)) if isinstance(axes, int) else axes
    left, right = ([axis % part.ndim for axis in own] for part, own in ((x, left), (y, right)))
    a = x.permute([*(axis for axis in range(x.ndim) if axis not in left), *left])
    b = y.permute([*right, *(axis for axis in range(y.ndim) if axis not in right)])
    count = math.prod(x.shape[axis] for axis in left)
    kept = (*a.shape[: x.ndim - len(left)], *b.shape[len(right) :])
    return a.reshape(-1, count).matmul(b.reshape(count, -1)).reshape(kept)


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """Arrays that together give the coordinates of a grid."""
    own = list(range(len(arrays)))  # the axis along which each varies
    if indexing == "xy" and len(arrays) > 1:
        own[:2] = 1, 0
    shape = [arrays[own.index(axis)].size for axis in range(len(arrays))]
    thin = ([-1 if axis == mine else 1 for axis in range(len(arrays))] for mine in own)
    return [part.reshape(form).expand(shape) for part, form in zip(arrays, thin, strict=True)]


def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """Arrays one after the other."""
    first, *rest = [part.flatten() for part in arrays] if axis is None else arrays
    return first.cat(*rest, axis=axis or 0)


def stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    """Arrays along a new axis."""
    first, *rest = arrays
    return first.stack(*rest, axis=axis)


def matrix_transpose(x: Tensor, /) -> Tensor:
    """The last two axes exchanged."""
    return x.mT


def roll(x: Tensor, /, shift: int, *, axis: int | None = None) -> Tensor:
    """Elements moved along an axis; along the flat array without one."""
    return x.flatten().roll(shift, 0).reshape(x.shape) if axis is None else x.roll(shift, axis)


def result_type(*values: Any) -> DType:
    """What the types of several arrays are promoted to."""
    found = [value.dtype if isinstance(value, Core) else dtypes.of(value) for value in values]
    if not found:
        raise InvalidArgument("result_type of nothing")
    result = found[0]
    for dtype in found[1:]:
        result = dtypes.promote(result, dtype)
    return result
