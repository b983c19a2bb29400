"""Reductions: sums, extremes, statistics, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from amdrv.tensor import dtypes, ir
from amdrv.tensor.core import Misfit, check_axes
from amdrv.tensor.dtypes import DType
from amdrv.tensor.ir import Op
from amdrv.tensor.movement import Movement

Axes = int | Sequence[int] | None
SCAN_BLOCK = 16


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
        found = source._new(source.node.unary(Op.REDUCE, (op, axes)))
        return found if keepdim else found.squeeze(axes)

    def _sum_type(self, wanted: object) -> DType | None:
        """The type that was asked for; sums of small integers are 64 bits wide, as NumPy's are."""
        if wanted:
            return dtypes.of(wanted)
        if self.dtype.kind in ("bool", "int"):
            return dtypes.int64
        return dtypes.uint64 if self.dtype.kind == "uint" else None

    def sum(self, axis: Axes = None, keepdim: bool = False, dtype: object = None) -> Self:
        return self._reduce(Op.ADD, axis, keepdim, self._sum_type(dtype), "sum")

    def prod(self, axis: Axes = None, keepdim: bool = False, dtype: object = None) -> Self:
        return self._reduce(Op.MUL, axis, keepdim, self._sum_type(dtype), "prod")

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
            raise Misfit(f"{what} of no elements: axes {axis} of {self.shape}")

    def any(self, axis: Axes = None, keepdim: bool = False) -> Self:
        return self.cast(dtypes.bool_)._reduce(Op.MAX, axis, keepdim, what="any")

    def all(self, axis: Axes = None, keepdim: bool = False) -> Self:
        return self.cast(dtypes.bool_)._reduce(Op.MIN, axis, keepdim, what="all")

    def _count(self, axis: Axes) -> int:
        return math.prod(self.shape[a] for a in check_axes(axis, self.ndim, "count"))

    def mean(self, axis: Axes = None, keepdim: bool = False) -> Self:
        return self._float().sum(axis, keepdim) / float(self._count(axis))

    def var(self, axis: Axes = None, keepdim: bool = False, correction: float = 0) -> Self:
        """The mean squared distance from the mean; ``correction`` is taken off the count."""
        x = self._float()
        away = x - x.mean(axis, keepdim=True)
        return (away * away).sum(axis, keepdim) / max(self._count(axis) - correction, 0.0)

    def std(self, axis: Axes = None, keepdim: bool = False, correction: float = 0) -> Self:
        return self.var(axis, keepdim, correction)._root()

    def _root(self) -> Self:
        """The square root of a sum of squares: its gradient is zero where it is steep without end."""
        none = self.equal(0)
        return none.where(self, none.where(1.0, self).sqrt())

    def argmax(self, axis: int | None = None, keepdim: bool = False) -> Self:
        """The position of the greatest element, the first of equal ones; NaN counts as greatest."""
        if axis is None:
            return self.flatten().argmax(0).reshape((1,) * self.ndim * keepdim)
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

    def cumsum(self, axis: int = 0, dtype: object = None) -> Self:
        """Sums of the elements so far along an axis."""
        return self.cast(self._sum_type(dtype) or self.dtype)._scan(Op.ADD, axis, "cumsum")

    def cumprod(self, axis: int = 0, dtype: object = None) -> Self:
        """Products of the elements so far along an axis."""
        return self.cast(self._sum_type(dtype) or self.dtype)._scan(Op.MUL, axis, "cumprod")

    def _scan(self, op: Op, axis: int, what: str) -> Self:
        """Combinations of the elements so far: within blocks, then with all the blocks before, found in the same way.

        An element takes a number of steps that does not depend on how many there are; rounding grows as slowly as the
        number of levels does.
        """
        (at,) = check_axes((axis,), self.ndim, what)
        n, neutral = self.shape[at], ir.identity(op, self.dtype)
        if n > 2 * SCAN_BLOCK:
            blocks = -(-n // SCAN_BLOCK)
            parts = self._padded_along(at, 0, blocks * SCAN_BLOCK - n, neutral).reshape(
                (*self.shape[:at], blocks, SCAN_BLOCK, *self.shape[at + 1 :])
            )
            totals = parts._reduce(op, at + 1, True)._scan(op, at, what)
            before = totals._padded_along(at, 1, -1, neutral)
            inner = parts._scan(op, at + 1, what)
            found = inner + before if op is Op.ADD else inner * before
            return found.flatten(at, at + 1).slice(*[slice(None)] * at, slice(0, n))
        if n < 2:
            return +self
        return self._padded_along(at, n - 1, 0, neutral).window(at, n)._reduce(op, -1, False)

    def _padded_along(self, axis: int, before: int, after: int, value: float) -> Self:
        """Padding of one axis."""
        return self.pad([(before, after) if a == axis else (0, 0) for a in range(self.ndim)], value)

    def logsumexp(self, axis: Axes = None, keepdim: bool = False) -> Self:
        """log(sum(exp(x))) without overflow."""
        most = self._reduce(Op.MAX, axis, True).detach()
        most = most.isfinite().where(most, 0)
        found = (self - most).exp().sum(axis, keepdim=True).log() + most
        return found if keepdim else found.squeeze(axis)

    def softmax(self, axis: int = -1) -> Self:
        """exp(x) in proportion to its sum along an axis."""
        e = (self._float() - self._reduce(Op.MAX, axis, True).detach()).exp()
        return e / e.sum(axis, keepdim=True)

    def log_softmax(self, axis: int = -1) -> Self:
        """The logarithm of ``softmax``."""
        away = self._float() - self._reduce(Op.MAX, axis, True).detach()
        return away - away.exp().sum(axis, keepdim=True).log()

    def layernorm(self, axis: Axes = -1, eps: float = 1e-5) -> Self:
        """Mean 0 and variance 1 along axes."""
        away = self - self.mean(axis, keepdim=True)
        return away * ((away * away).mean(axis, keepdim=True) + eps).rsqrt()
