"""The array API's names for methods of tensors: under which name, with which arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.core import BadType, Core
from amdrv.tensor.tensor import Tensor

float32 = dtypes.float32
UNARY = {
    "abs": "__abs__", "negative": "__neg__", "positive": "__pos__", "bitwise_invert": "__invert__",
} | dict.fromkeys(
    ("exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "asin",
     "acos", "atan", "asinh", "acosh", "atanh", "floor", "ceil", "round", "trunc", "sign", "square", "isnan", "isinf",
     "isfinite", "signbit", "reciprocal", "logical_not", "nonzero"), "")  # fmt: skip
BINARY = {
    "add": "__add__", "subtract": "__sub__", "multiply": "__mul__", "divide": "__truediv__", "pow": "__pow__",
    "floor_divide": "__floordiv__", "remainder": "__mod__", "less": "__lt__", "less_equal": "__le__",
    "greater": "__gt__", "greater_equal": "__ge__", "bitwise_and": "__and__", "bitwise_or": "__or__",
    "bitwise_xor": "__xor__", "bitwise_left_shift": "__lshift__", "bitwise_right_shift": "__rshift__",
} | dict.fromkeys(
    ("atan2", "logaddexp", "hypot", "copysign", "nextafter", "maximum", "minimum", "equal", "not_equal", "logical_and",
     "logical_or", "logical_xor", "matmul"), "")  # fmt: skip
REDUCTIONS = dict.fromkeys(("max", "min", "mean", "any", "all", "argmax", "argmin"), "")


def _unary(name: str) -> Callable[..., Any]:
    return lambda x, /: getattr(x, name)()


def _binary(name: str) -> Callable[..., Any]:
    def call(x1: Any, x2: Any, /) -> Any:
        if not isinstance(x1, Core) and not isinstance(x2, Core):
            raise BadType(f"{name.strip('_')} of {x1!r} and {x2!r}, neither of which is an array")
        return getattr(x1 if isinstance(x1, Core) else x2._operand(x1), name)(x2)

    return call


def _reduction(name: str) -> Callable[..., Any]:
    return lambda x, /, *, axis=None, keepdims=False: getattr(x, name)(axis, keepdim=keepdims)


def _stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    if not arrays:
        raise InvalidArgument("stack of no arrays")
    return arrays[0].stack(*arrays[1:], axis=axis)


METHODS: Mapping[str, Callable[..., Any]] = {
    **{name: _unary(method or name) for name, method in UNARY.items()},
    **{name: _binary(method or name) for name, method in BINARY.items()},
    **{name: _reduction(name) for name in REDUCTIONS},
    "arange": lambda start, /, stop=None, step=1, *, dtype=None, device=None: Tensor.arange(
        start, stop, step, dtype, device
    ),
    "linspace": lambda start, stop, /, num, *, dtype=None, device=None, endpoint=True: Tensor.linspace(
        start, stop, num, dtype or float32, device, endpoint
    ),
    "eye": lambda n_rows, n_cols=None, /, *, k=0, dtype=None, device=None: Tensor.eye(
        n_rows, n_cols, dtype or float32, device, k
    ),
    "full": lambda shape, fill_value, *, dtype=None, device=None: Tensor.full(shape, fill_value, dtype, device),
    "zeros": lambda shape, *, dtype=None, device=None: Tensor.full(shape, 0, dtype or float32, device),
    "empty": lambda shape, *, dtype=None, device=None: Tensor.full(shape, 0, dtype or float32, device),
    "ones": lambda shape, *, dtype=None, device=None: Tensor.full(shape, 1, dtype or float32, device),
    "full_like": lambda x, /, fill_value, *, dtype=None, device=None: x.full_like(fill_value, dtype, device),
    "zeros_like": lambda x, /, *, dtype=None, device=None: x.full_like(0, dtype, device),
    "empty_like": lambda x, /, *, dtype=None, device=None: x.full_like(0, dtype, device),
    "ones_like": lambda x, /, *, dtype=None, device=None: x.full_like(1, dtype, device),
    "tril": lambda x, /, *, k=0: x.tril(k),
    "triu": lambda x, /, *, k=0: x.triu(k),
    "clip": lambda x, /, min=None, max=None: x.clip(min, max).cast(x.dtype),
    "where": lambda condition, x1, x2, /: condition.where(x1, x2),
    "broadcast_to": lambda x, /, shape: x.expand(tuple(shape)),
    "stack": _stack,
    "unstack": lambda x, /, *, axis=0: tuple(part.squeeze(axis) for part in x.split(1, axis)),
    "expand_dims": lambda x, /, axis: x.unsqueeze(axis),
    "flip": lambda x, /, *, axis=None: x.flip(axis),
    "permute_dims": lambda x, /, axes: x.permute(tuple(axes)),
    "reshape": lambda x, /, shape, *, copy=None: x.reshape(tuple(shape)),
    "squeeze": lambda x, /, axis: x.squeeze(axis),
    "tile": lambda x, repetitions, /: x.repeat(tuple(repetitions)),
    "matrix_transpose": lambda x, /: x.mT,
    "argsort": lambda x, /, *, axis=-1, descending=False, stable=True: x.argsort(axis, descending),
    "sort": lambda x, /, *, axis=-1, descending=False, stable=True: x.sort(axis, descending),
    "searchsorted": lambda x1, x2, /, *, side="left", sorter=None: x1.searchsorted(x2, side, sorter),
    "sum": lambda x, /, *, axis=None, dtype=None, keepdims=False: x.sum(axis, keepdims, dtype),
    "prod": lambda x, /, *, axis=None, dtype=None, keepdims=False: x.prod(axis, keepdims, dtype),
    "var": lambda x, /, *, axis=None, correction=0.0, keepdims=False: x.var(axis, keepdims, correction),
    "std": lambda x, /, *, axis=None, correction=0.0, keepdims=False: x.std(axis, keepdims, correction),
    "real": lambda x, /: +x,
    "conj": lambda x, /: +x,
}
