"""The array API's functions on tensors, under the standard's names: what ``tensor.__array_namespace__()`` returns.

Most are methods under another name; the table says which.
"""

from __future__ import annotations

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

# Function → method with the same arguments.
METHODS = {
    **{
        name: name
        for name in (*("exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "tanh"),)
    },
    **{name: name for name in ("sinh", "cosh", "floor", "ceil", "round", "trunc", "sign", "square", "isnan", "isinf")},
    **{name: name for name in ("isfinite", "logical_not", "logical_and", "logical_or", "maximum", "minimum", "clip")},
    **{name: name for name in ("where", "reshape", "squeeze", "expand_dims", "flip", "take", "argmax", "argmin")},
    **{name: name for name in ("matmul", "nonzero", "tril", "triu", "broadcast_to", "astype", "reciprocal")},
    "abs": "__abs__",
    "negative": "__neg__",
    "positive": "__pos__",
    "bitwise_invert": "__invert__",
    "add": "__add__",
    "subtract": "__sub__",
    "multiply": "__mul__",
    "divide": "__truediv__",
    "pow": "__pow__",
    "floor_divide": "__floordiv__",
    "remainder": "__mod__",
    "less": "__lt__",
    "less_equal": "__le__",
    "greater": "__gt__",
    "greater_equal": "__ge__",
    "equal": "__eq__",
    "not_equal": "__ne__",
    "bitwise_and": "__and__",
    "bitwise_or": "__or__",
    "bitwise_xor": "__xor__",
    "permute_dims": "permute",
    "bitwise_left_shift": "__lshift__",
    "bitwise_right_shift": "__rshift__",
    "cumulative_sum": "cumsum",
    "full_like": "full_like",
    "zeros_like": "zeros_like",
    "ones_like": "ones_like",
}
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
