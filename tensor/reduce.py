"""Reductions: sums, extremes, statistics, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.core import check_axes
from amdrv.tensor.dtypes import DType
from amdrv.tensor.ir import Node, Op
from amdrv.tensor.movement import Movement

Axes = int | Sequence[int] | None


class Reduce(Movement):
    """Tensors with fewer elements than they were made from."""

    __slots__ = ()

    def _reduce(self, op: Op, axis: Axes, keepdim: bool, dtype: DType | None = None, what: str = "") -> Self:
        axes = tuple(sorted(check_axes(axis, self.ndim, what or str(op))))
        source = self if dtype is None else self.cast(dtype)
        if not axes:
            return source
        if self.node.op is Op.CONST:
            source = source.expand(self.shape)
        found = source._new(Node(Op.REDUCE, source.dtype, (source.node,), (op, axes)))
        return found if keepdim else found.reshape(tuple(n for a, n in enumerate(self.shape) if a not in axes))

    def _sum_type(self) -> DType | None:
        """Sums of small integers are 64 bits wide, as NumPy's are."""
        if self.dtype.kind in ("bool", "int"):
            return dtypes.int64
        return dtypes.uint64 if self.dtype.kind == "uint" else None

    def sum(self, axis: Axes = None, keepdim: bool = False, dtype: object = None) -> Self:
        return self._reduce(Op.ADD, axis, keepdim, dtypes.of(dtype) if dtype else self._sum_type(), "sum")

    def prod(self, axis: Axes = None, keepdim: bool = False) -> Self:
        return self._reduce(Op.MUL, axis, keepdim, self._sum_type(), "prod")

    def max(self, axis: Axes = None, keepdim: bool = False) -> Self:
        """The greatest element; NaN where there is one. Raises InvalidArgument when there are no elements."""
        self._check_any("max", axis)
        return self._reduce(Op.MAX, axis, keepdim)

    def min(self, axis: Axes = None, keepdim: bool = False) -> Self:
        """The least element; see ``max``."""
        self._check_any("min", axis)
        return self._reduce(Op.MIN, axis, keepdim)

    def _check_any(self, what: str, axis: Axes) -> None:
        if 0 in (self.shape[a] for a in check_axes(axis, self.ndim, what)):
            raise InvalidArgument(f"{what} of no elements: axes {axis} of {self.shape}")

    def any(self, axis: Axes = None, keepdim: bool = False) -> Self:
        return self.cast(dtypes.bool_)._reduce(Op.MAX, axis, keepdim, what="any")

    def all(self, axis: Axes = None, keepdim: bool = False) -> Self:
        return self.cast(dtypes.bool_)._reduce(Op.MIN, axis, keepdim, what="all")

    def _count(self, axis: Axes) -> int:
        return math.prod(self.shape[a] for a in check_axes(axis, self.ndim, "count"))

    def mean(self, axis: Axes = None, keepdim: bool = False) -> Self:
        x = self._float()
        count = self._count(axis)
        return x.sum(axis, keepdim) * (1 / count if count else math.nan)

    def var(self, axis: Axes = None, keepdim: bool = False, correction: float = 0) -> Self:
        """The mean squared distance from the mean; ``correction`` is taken off the count."""
        x = self._float()
        away = x - x.mean(axis, keepdim=True)
        return (away * away).sum(axis, keepdim) * (1 / max(self._count(axis) - correction, 1e-300))

    def std(self, axis: Axes = None, keepdim: bool = False, correction: float = 0) -> Self:
        return self.var(axis, keepdim, correction).sqrt()

    def argmax(self, axis: int | None = None, keepdim: bool = False) -> Self:
        """The position of the greatest element, the first of equal ones; NaN counts as greatest."""
        if axis is None:
            return self.flatten().argmax(0)
        self._check_any("argmax", axis)
        (at,) = check_axes((axis,), self.ndim, "argmax")
        n = self.shape[at]
        best = self.max(at, keepdim=True)
        hit = (self == best) | self.isnan()
        back = n - self._position(n).reshape((n, *(1,) * (self.ndim - at - 1)))
        return (n - hit.where(back, self._operand(0, back.dtype)).max(at, keepdim)).cast(dtypes.int64)

    def argmin(self, axis: int | None = None, keepdim: bool = False) -> Self:
        """The position of the least element, the first of equal ones."""
        if self.dtype is dtypes.bool_ or self.dtype.kind == "uint":
            return (~self).argmax(axis, keepdim)
        return (-self if self.dtype.is_float else ~self).argmax(axis, keepdim)

    def cumsum(self, axis: int = 0) -> Self:
        """Sums of the elements so far along an axis."""
        (at,) = check_axes((axis,), self.ndim, "cumsum")
        n = self.shape[at]
        if n < 1:
            return self
        wide = self._sum_type()
        source = self if wide is None else self.cast(wide)
        widths = [(0, 0)] * self.ndim
        widths[at] = (n - 1, 0)
        return source.pad(widths).window(at, n).sum(-1, dtype=source.dtype)

    def logsumexp(self, axis: Axes = None, keepdim: bool = False) -> Self:
        """log(sum(exp(x))) without overflow."""
        most = self.max(axis, keepdim=True).detach()
        found = (self - most).exp().sum(axis, keepdim=True).log() + most
        axes = check_axes(axis, self.ndim, "logsumexp")
        return found if keepdim else found.reshape(tuple(n for a, n in enumerate(self.shape) if a not in axes))

    def softmax(self, axis: int = -1) -> Self:
        """exp(x) in proportion to its sum along an axis."""
        e = (self._float() - self.max(axis, keepdim=True).detach()).exp()
        return e / e.sum(axis, keepdim=True)

    def log_softmax(self, axis: int = -1) -> Self:
        """The logarithm of ``softmax``."""
        away = self._float() - self.max(axis, keepdim=True).detach()
        return away - away.exp().sum(axis, keepdim=True).log()

    def layernorm(self, axis: Axes = -1, eps: float = 1e-5) -> Self:
        """Mean 0 and variance 1 along axes."""
        away = self - self.mean(axis, keepdim=True)
        return away * ((away * away).mean(axis, keepdim=True) + eps).rsqrt()
