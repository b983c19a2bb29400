"""What networks are made of: matrix products, convolution, pooling, normalisation, attention, losses."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any, Self

from amdrv.tensor import dtypes
from amdrv.tensor.core import Core, Misfit, Operand, check_axes
from amdrv.tensor.indexing import Indexing


def pair(value: int | Sequence[int], count: int, sides: int = 1) -> tuple[int, ...]:
    """One number for each spatial axis, or for each side of it. Raises InvalidArgument for another number of them."""
    found = (value,) * count if isinstance(value, int) else tuple(value)
    if len(found) not in (count, count * sides):
        raise Misfit(f"{found} for {count} spatial axes")
    return found


# A convolution with fewer outputs a group uses each window too seldom to be worth a copy; a larger copy is too much.
COLUMNS_FROM, COLUMNS_MAX = 8, 1 << 26


class Functional(Indexing):
    """Operations on whole arrays. Each is a view, a product and a sum, which the scheduler makes one kernel of."""

    __slots__ = ()

    def matmul(self, other: Any, dtype: object = None) -> Self:
        """The matrix product over the last axis and the other's second to last; further axes go together.

        Raises InvalidArgument naming both shapes when they do not fit.
        """
        b = self._operand(other)
        if not self.ndim or not b.ndim or self.shape[-1] != b.shape[max(-2, -b.ndim)]:
            raise Misfit(f"matmul: shapes {self.shape} and {b.shape} do not fit")
        if self.ndim == 1 or b.ndim == 1:
            left = self.unsqueeze(0) if self.ndim == 1 else self
            found = left.matmul(b.unsqueeze(1) if b.ndim == 1 else b, dtype)
            found = found.squeeze(-1) if b.ndim == 1 else found
            return found.squeeze(-1 if b.ndim == 1 else -2) if self.ndim == 1 else found
        wanted = dtypes.of(dtype) if dtype else dtypes.promote(self.dtype, b.dtype)
        x, y = self.cast(wanted).unsqueeze(-2), b.cast(wanted).transpose().unsqueeze(-3)
        if wanted is dtypes.bool_:
            return (x & y).any(-1)
        return (x * y).sum(-1, dtype=wanted)

    __matmul__ = matmul

    def __rmatmul__(self, other: Any) -> Self:
        return self._operand(other).matmul(self)

    dot = matmul

    def einsum(self, formula: str, *others: Core) -> Self:
        """Einstein's summation; this tensor is the first operand. Raises InvalidArgument for one that does not fit."""
        parts = (self, *(self._operand(other) for other in others))
        left, _, right = _explicit(formula.replace(" ", ""), [part.ndim for part in parts]).partition("->")
        terms = left.split(",")
        letters = sorted(set("".join(terms)))
        named = [set(zip(term, part.shape, strict=False)) for term, part in zip(terms, parts, strict=False)]
        lengths = [{n for pairs in named for name, n in pairs if name == letter and n != 1} for letter in letters]
        wrong = any(len(t) != p.ndim or len(n) != len(set(t)) for t, p, n in zip(terms, parts, named, strict=False))
        if len(terms) != len(parts) or wrong or max(map(len, lengths), default=0) > 1 or "." in left:
            raise Misfit(f"einsum {formula!r}: operands of shapes {', '.join(str(p.shape) for p in parts)}")
        if not set(right) <= set(letters) or len(set(right)) != len(right):
            raise Misfit(f"einsum {formula!r}: the result names what no operand has, or a name twice")
        order = [*right, *(letter for letter in letters if letter not in right)]
        product: Self | None = None
        for term, part in zip(terms, parts, strict=True):
            term, part = _diagonals(term, part)
            present = [letter for letter in order if letter in term]
            moved = part.permute([term.index(letter) for letter in present])
            moved = moved.reshape([moved.shape[present.index(x)] if x in present else 1 for x in order])
            product = moved if product is None else product * moved
        if product is None:
            raise Misfit(f"einsum {formula!r} has no operands")
        summed = tuple(range(len(right), len(order)))
        return product.sum(summed, dtype=product.dtype) if summed else product

    def linear(self, weight: Core, bias: Core | None = None) -> Self:
        """x times the transposed weight (outputs × inputs), plus a bias."""
        found = self.matmul(self._operand(weight).transpose())
        return found if bias is None else found + bias

    def _windows(self, size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Self:
        """Sliding windows over the last axes: (…, out…, kernel…)."""
        found = self
        first = self.ndim - len(size)
        for k, (n, step, apart) in enumerate(zip(size, stride, dilation, strict=True)):
            found = found.window(first + k, n, step, apart)
        return found

    def _padded(self, padding: int | Sequence[int], count: int, value: float = 0) -> Self:
        """Padding of the last axes: one number, one an axis, or (before…, after…)."""
        given = pair(padding, count, 2)
        sides = list(zip(given[:count], given[-count:], strict=True))
        return self.pad([*[(0, 0)] * (self.ndim - count), *sides], value)

    def conv(
        self,
        weight: Core,
        bias: Core | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Self:
        """Convolution (cross-correlation) of (batch, channels, …) with (outputs, channels / groups, …).

        Raises InvalidArgument naming both shapes when they do not fit.
        """
        w = self._operand(weight)
        count = self.ndim - 2
        outputs, channels, *_ = *w.shape, 0, 0
        if w.ndim != self.ndim or count < 0 or channels * groups != self.shape[1] or not groups or outputs % groups:
            raise Misfit(f"conv: input {self.shape}, weight {w.shape}, groups {groups} do not fit")
        size = w.shape[2:]
        found = self._padded(padding, count)._windows(size, pair(stride, count), pair(dilation, count))
        batch, out = self.shape[0], found.shape[2 : 2 + count]
        wanted = dtypes.promote(self.dtype, w.dtype)
        if self.device == "CPU" and outputs >= COLUMNS_FROM * groups and found.size <= COLUMNS_MAX:
            # The host multiplies matrices far faster than it walks windows: those are laid out as columns once.
            order = (0, 1, *range(2 + count, 2 + 2 * count), *range(2, 2 + count))
            laid = found.permute(order) if math.prod(size) == 1 else found.permute(order).contiguous()
            columns = laid.reshape((batch, groups, channels * math.prod(size), math.prod(out)))
            result = w.reshape((groups, outputs // groups, -1)).matmul(columns, wanted)
        else:
            x = found.reshape((batch, groups, 1, channels, *out, *size))
            order = (0, 1, 2, *range(4, 4 + count), 3, *range(4 + count, 4 + 2 * count))
            kernel = w.reshape((1, groups, outputs // groups, *(1,) * count, channels, *size))
            summed = tuple(range(3 + count, 4 + 2 * count))
            result = (x.permute(order) * kernel).sum(summed, dtype=wanted)
        result = result.reshape((batch, outputs, *out))
        return result if bias is None else result + self._operand(bias).reshape((1, outputs, *(1,) * count))

    conv2d = conv

    def _pool_windows(
        self, size: Any, stride: Any, padding: Any, dilation: Any, value: float
    ) -> tuple[Self, tuple[int, ...]]:
        count = len(size) if not isinstance(size, int) else self.ndim - 2
        kernel = pair(size, count)
        steps = kernel if stride is None else pair(stride, count)
        found = self._padded(padding, count, value)._windows(kernel, steps, pair(dilation, count))
        return found, tuple(range(found.ndim - count, found.ndim))

    def max_pool(self, size: Any = 2, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Self:
        """The greatest of each window of the last axes."""
        least = float(self.dtype.limits[0])
        found, axes = self._pool_windows(size, stride, padding, dilation, least)
        return found.max(axes)

    def avg_pool(self, size: Any = 2, stride: Any = None, padding: Any = 0, count_include_pad: bool = True) -> Self:
        """The mean of each window of the last axes."""
        found, axes = self._pool_windows(size, stride, padding, 1, 0)
        if count_include_pad or padding == 0:
            return found.mean(axes)
        ones = self._operand(1.0, self.dtype).expand(self.shape)
        return found.sum(axes) / ones._pool_windows(size, stride, padding, 1, 0)[0].sum(axes)

    def attention(self, key: Core, value: Core, mask: Core | None = None, causal: bool = False) -> Self:
        """Scaled dot-product attention; this tensor is the query, (…, length, width).

        ``mask`` is true where a key may be seen, or is added to the scores.
        """
        k, v = self._operand(key), self._operand(value)
        scores = self.matmul(k.transpose()) * (1 / math.sqrt(self.shape[-1]))
        if causal:
            length, keys = scores.shape[-2:]
            seen = self._position(keys) <= self._position(length).reshape(length, 1) + (keys - length)
            scores = seen.where(scores, self._operand(-math.inf, scores.dtype))
        if mask is not None:
            given = self._operand(mask)
            hidden = self._operand(-math.inf, scores.dtype)
            scores = given.where(scores, hidden) if given.dtype is dtypes.bool_ else scores + given
        return scores.softmax(-1).matmul(v)

    def batchnorm(self, weight: Any, bias: Any, mean: Core, var: Core, eps: float = 1e-5) -> Self:
        """Normalised along axis 1 with given statistics."""
        (at,) = check_axes((1,), self.ndim, "batchnorm")
        shape = (1, -1, *(1,) * (self.ndim - 1 - at))
        m, v = self._operand(mean).reshape(shape), self._operand(var).reshape(shape)
        found = (self - m) * (v + eps).rsqrt()
        found = found if weight is None else found * self._operand(weight).reshape(shape)
        return found if bias is None else found + self._operand(bias).reshape(shape)

    def cross_entropy(self, target: Core, axis: int = 1) -> Self:
        """The mean of -log(softmax) at the target classes. ``target``: integers without the class axis."""
        logs = self.log_softmax(axis).transpose(axis, -1)
        if target.shape != logs.shape[:-1] or not target.dtype.is_int:
            given = f"classes of shape {target.shape} for {self.shape}, axis {axis}"
            raise Misfit(f"cross_entropy: {given}; their type is {target.dtype}")
        classes = self._position(logs.shape[-1])
        wanted = self._operand(target).unsqueeze(-1).cast(classes.dtype) == classes
        picked = wanted.where(logs, self._operand(0.0, logs.dtype)).sum(-1)
        return -picked.mean()

    def mse_loss(self, target: Operand) -> Self:
        """The mean squared difference."""
        return (self - target).square().mean()

    def binary_cross_entropy_with_logits(self, target: Operand) -> Self:
        """The mean of -log(sigmoid) for labels between 0 and 1."""
        return (self.softplus() - self * target).mean()


def _explicit(formula: str, ndims: Sequence[int]) -> str:
    """A formula of einsum with its result, and letters for the axes of "...", the last of which go together."""
    left, arrow, right = formula.partition("->")
    counts = [ndim - len(term) + 3 if "..." in term else 0 for term, ndim in zip(left.split(","), ndims, strict=False)]
    wide = max(0, *counts)
    dots = "".join([letter for letter in string.ascii_letters if letter not in formula][:wide])
    terms = [term.replace("...", dots[wide - n :], 1) for term, n in zip(left.split(","), counts, strict=False)]
    if not arrow:
        right = "..." + "".join(letter for letter in sorted(set(left) - set(".,")) if left.count(letter) == 1)
    return f"{','.join(terms)}->{right.replace('...', dots, 1)}"


def _diagonals(term: str, part: Any) -> tuple[str, Any]:
    """An operand of einsum without repeated names: the diagonal stays."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            a = term.index(letter)
            b = term.index(letter, a + 1)
            n = part.shape[a]
            same = part._position(n).reshape((n, *(1,) * (b - a - 1), 1)) == part._position(n)
            same = same.reshape((n, *(1,) * (b - a - 1), n, *(1,) * (part.ndim - b - 1)))
            part = same.where(part, part._operand(0, part.dtype)).sum(b, dtype=part.dtype)
            term = term[:b] + term[b + 1 :]
    return term, part
