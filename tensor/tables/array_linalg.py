"""The array API's ``linalg``: what its functions return, and those that are one formula."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any

from amdrv.errors import InvalidArgument
from amdrv.tensor.elementwise import broadcast_shape
from amdrv.tensor.tables.array_methods import METHODS

QR = namedtuple("QR", ("Q", "R"))
Eigh = namedtuple("Eigh", ("eigenvalues", "eigenvectors"))
SVD = namedtuple("SVD", ("U", "S", "Vh"))
Slogdet = namedtuple("Slogdet", ("sign", "logabsdet"))


def _diagonal(x: Any, /, *, offset: int = 0) -> Any:
    if x.ndim < 2:
        raise InvalidArgument(f"diagonal of {x.shape}, which is no matrix")
    m, n = x.shape[-2:]
    first = max(offset, -offset * n, 0)
    count = max(0, min(m + min(offset, 0), n - max(offset, 0)))
    return x.flatten(-2)[..., first : first + count * (n + 1) : n + 1]


def _outer(x1: Any, x2: Any, /) -> Any:
    if x1.ndim != 1 or x2.ndim != 1:
        raise InvalidArgument(f"outer of {x1.shape} and {x2.shape}, which are not vectors")
    return x1.unsqueeze(1) * x2


def _cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    shape = broadcast_shape("cross", x1.shape, x2.shape)
    if not x1.shape[axis:][:1] == x2.shape[axis:][:1] == (3,):
        raise InvalidArgument(f"cross along axis {axis}: of {x1.shape} and {x2.shape}")
    a, b = x1.expand(shape), x2.expand(shape)
    return a.roll(-1, axis) * b.roll(-2, axis) - a.roll(-2, axis) * b.roll(-1, axis)


def _vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Any:
    size = x._float().abs()
    if abs(ord) == math.inf:
        return size.max(axis, keepdims) if ord > 0 else size.min(axis, keepdims)
    if ord == 0:
        return size.not_equal(0).sum(axis, keepdims).cast(size.dtype)
    if ord == 2:
        return size.square().sum(axis, keepdims)._root()
    found = (size**ord).sum(axis, keepdims)
    return found if ord == 1 else found ** (1 / ord)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "matmul": METHODS["matmul"],
    "matrix_transpose": METHODS["matrix_transpose"],
    "diagonal": _diagonal,
    "trace": lambda x, /, *, offset=0, dtype=None: _diagonal(x, offset=offset).sum(-1, dtype=dtype),
    "outer": _outer,
    "cross": _cross,
    "vector_norm": _vector_norm,
}
for _name, _function in FUNCTIONS.items():
    _function.__name__, _function.__doc__ = _name, f"``{_name}`` of the array API."
