"""Views: another shape, another order, a part. Nothing is copied."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from operator import index
from typing import Any, Self

from amdrv.tensor import dtypes
from amdrv.tensor.core import BadIndex, BadType, Core, Misfit, check_axes
from amdrv.tensor.elementwise import Elementwise, broadcast_shape, expanded
from amdrv.tensor.ir import Node, Op, Shape


def integers(given: tuple[Any, ...]) -> tuple[int, ...]:
    """A shape that was given as one sequence or as several numbers. Raises BadType for what is no integer."""
    found = given[0] if len(given) == 1 and isinstance(given[0], Sequence) else given
    try:
        return tuple(index(n) for n in found)
    except TypeError:
        raise BadType(f"{given} are no integers") from None


def positions(part: slice, n: int) -> range:
    """What a slice selects of an axis. Raises BadIndex for steps of 0 and what is no integer."""
    try:
        return range(*part.indices(n))
    except (TypeError, ValueError) as error:
        raise BadIndex(f"index {part} of an axis of {n}: {error}") from None


class Movement(Elementwise):
    """Tensors that share the elements of others."""

    __slots__ = ()

    def _move(self, op: Op, arg: Any) -> Self:
        return self._new(self.node.unary(op, arg))

    def reshape(self, *shape: Any) -> Self:
        """The elements in another shape; one axis may be -1. Raises InvalidArgument when the counts differ."""
        wanted = integers(shape)
        known = math.prod(n for n in wanted if n != -1)
        if wanted.count(-1) == 1 and known and self.size % known == 0:
            wanted = tuple(self.size // known if n == -1 else n for n in wanted)
        if math.prod(wanted) != self.size or any(n < 0 for n in wanted):
            raise Misfit(f"reshape: {self.shape} has {self.size} elements, which do not fit {integers(shape)}")
        return self if wanted == self.shape else self._move(Op.RESHAPE, wanted)

    view = reshape

    def permute(self, *axes: Any) -> Self:
        """The axes in another order."""
        order = check_axes(integers(axes), self.ndim, "permute")
        if len(order) != self.ndim:
            raise Misfit(f"permute: {integers(axes)} are not all axes of {self.shape}")
        return self._move(Op.PERMUTE, order)

    def transpose(self, a: int = -2, b: int = -1) -> Self:
        """Two axes exchanged."""
        first, second = check_axes((a,), self.ndim, "transpose") + check_axes((b,), self.ndim, "transpose")
        order = list(range(self.ndim))
        order[first], order[second] = order[second], order[first]
        return self.permute(order)

    @property
    def T(self) -> Self:
        return self.permute(tuple(range(self.ndim))[::-1])

    @property
    def mT(self) -> Self:
        return self.transpose()

    def expand(self, *shape: Any) -> Self:
        """Axes of length one repeated; -1 keeps an axis."""
        wanted = integers(shape)
        own = (1,) * (len(wanted) - self.ndim) + self.shape
        target = tuple(o if n == -1 else n for n, o in zip(wanted, own, strict=False))
        if len(target) != len(own) or broadcast_shape("expand", self.shape, target) != target:
            raise Misfit(f"expand: {self.shape} does not repeat to {wanted}")
        node = self.node if self.node.op is not Op.CONST else self.node.unary(Op.EXPAND, target)
        return self._new(expanded(node, target))

    broadcast_to = expand

    def squeeze(self, axis: int | Sequence[int] | None = None) -> Self:
        """Without axes of length one: all of them, or the given ones."""
        chosen = check_axes(axis, self.ndim, "squeeze")
        if axis is not None and any(self.shape[a] != 1 for a in chosen):
            raise Misfit(f"squeeze: axes {axis} of {self.shape} are not all of length one")
        return self.reshape(tuple(n for a, n in enumerate(self.shape) if a not in chosen or n != 1))

    def unsqueeze(self, axis: int) -> Self:
        """A new axis of length one."""
        (at,) = check_axes((axis,), self.ndim + 1, "unsqueeze")
        return self.reshape((*self.shape[:at], 1, *self.shape[at:]))

    expand_dims = unsqueeze

    def flatten(self, start: int = 0, end: int = -1) -> Self:
        """Several neighbouring axes as one."""
        if not self.ndim:
            return self.reshape(1)
        first, last = check_axes((start,), self.ndim, "flatten") + check_axes((end,), self.ndim, "flatten")
        return self.reshape((*self.shape[:first], math.prod(self.shape[first : last + 1]), *self.shape[last + 1 :]))

    def flip(self, axis: int | Sequence[int] | None = None) -> Self:
        """The elements in the opposite order along axes."""
        chosen = check_axes(axis, self.ndim, "flip")
        cut = tuple((n - 1, -1, n) if a in chosen else (0, 1, n) for a, n in enumerate(self.shape))
        return self._move(Op.SLICE, cut)

    def slice(self, *parts: slice) -> Self:
        """A part along the first axes, by Python slices with any step but 0."""
        cut = []
        for n, part in zip(self.shape, parts, strict=False):
            found = positions(part, n)
            cut.append((found.start, found.step, len(found)))
        whole = [(0, 1, n) for n in self.shape]
        cut += whole[len(cut) :]
        return self if cut == whole else self._move(Op.SLICE, tuple(cut))

    def pad(self, widths: Sequence[tuple[int, int]], value: float = 0) -> Self:
        """Elements of one value around it: (before, after) for each axis; negative widths cut off."""
        if len(widths) != self.ndim:
            raise Misfit(f"pad: {len(widths)} widths for the {self.ndim} axes of {self.shape}")
        if any(n + min(0, a) + min(0, b) < 0 for (a, b), n in zip(widths, self.shape, strict=True)):
            raise Misfit(f"pad: widths {tuple(widths)} cut more off {self.shape} than there is")
        part = self.slice(*(slice(max(0, -a), n - max(0, -b)) for (a, b), n in zip(widths, self.shape, strict=True)))
        wide = tuple((max(0, a), max(0, b), 0) for a, b in widths)
        if not any(a or b for a, b, _ in wide):
            return part
        padded = part._move(Op.PAD, wide)
        if value == 0:
            return padded
        inside = part._operand(True, dtypes.bool_).expand(part.shape)._move(Op.PAD, wide)
        return inside.where(padded, part._operand(value, self.dtype))

    def window(self, axis: int, size: int, stride: int = 1, dilation: int = 1) -> Self:
        """Sliding windows along an axis, with the elements of each along a new last axis.

        Raises InvalidArgument when not even one fits.
        """
        (at,) = check_axes((axis,), self.ndim, "window")
        if min(size, stride, dilation) < 1 or dilation * (size - 1) + 1 > self.shape[at]:
            wanted = f"{size} elements {dilation} apart, every {stride}"
            raise Misfit(f"window: {wanted}, along axis {axis} of {self.shape}")
        return self._move(Op.WINDOW, (at, size, stride, dilation))

    def cat(self, *others: Core, axis: int = 0) -> Self:
        """Tensors one after the other along an axis. Raises InvalidArgument when the other axes differ."""
        parts = (self, *(self._operand(other) for other in others))
        (at,) = check_axes((axis,), self.ndim, "cat")
        rests = {(*part.shape[:at], *part.shape[at + 1 :]) for part in parts}
        if len(rests) > 1 or any(part.ndim != self.ndim for part in parts):
            raise Misfit(f"cat along axis {axis}: {', '.join(str(part.shape) for part in parts)}")
        common = self.dtype
        for part in parts:
            common = dtypes.promote(common, part.dtype)
        total = sum(part.shape[at] for part in parts)
        result: Self | None = None
        start = 0
        place = self._position(total).reshape((total, *(1,) * (self.ndim - at - 1)))
        for part in parts:
            widths = [(0, 0)] * self.ndim
            widths[at] = (start, total - start - part.shape[at])
            padded = part.cast(common).pad(widths)
            result = padded if result is None else (place < start).where(result, padded)
            start += part.shape[at]
        return self if result is None else result

    def _position(self, n: int) -> Self:
        """0, 1, 2, …"""
        return self._apart(Node(Op.IOTA, dtypes.int32 if n < 1 << 31 else dtypes.int64, (), ((n,), 0)))

    def stack(self, *others: Core, axis: int = 0) -> Self:
        """Tensors of one shape along a new axis."""
        return self.unsqueeze(axis).cat(*(self._operand(other).unsqueeze(axis) for other in others), axis=axis)

    def split(self, sizes: int | Sequence[int], axis: int = 0) -> list[Self]:
        """Parts along an axis: of one size, or of given sizes."""
        (at,) = check_axes((axis,), self.ndim, "split")
        n = self.shape[at]
        if isinstance(sizes, int) and sizes < 1:
            raise Misfit(f"split: parts of {sizes} along axis {axis} of {self.shape}")
        lengths = [min(sizes, n - k) for k in range(0, n, sizes)] if isinstance(sizes, int) else list(sizes)
        if sum(lengths) != n or min(lengths, default=0) < 0:
            raise Misfit(f"split: sizes {lengths} along axis {axis} of {self.shape}")
        edges = [sum(lengths[:k]) for k in range(len(lengths) + 1)]
        keep = (slice(None),) * at
        return [self.slice(*keep, slice(a, b)) for a, b in itertools.pairwise(edges)]

    def chunk(self, count: int, axis: int = 0) -> list[Self]:
        """About equal parts along an axis."""
        (at,) = check_axes((axis,), self.ndim, "chunk")
        if count < 1:
            raise Misfit(f"chunk: axis {axis} of {self.shape} in {count} parts")
        return self.split(max(1, -(-self.shape[at] // count)), axis)

    def repeat(self, *counts: Any) -> Self:
        """The whole tensor several times along each axis."""
        times = integers(counts)
        shape: Shape = (1,) * (len(times) - self.ndim) + self.shape
        times = (1,) * (len(shape) - len(times)) + times
        between = [m for n in shape for m in (1, n)]
        target = [m for n, t in zip(shape, times, strict=True) for m in (t, n)]
        return self.reshape(between).expand(target).reshape(tuple(n * t for n, t in zip(shape, times, strict=True)))

    def roll(self, shift: int, axis: int) -> Self:
        """Elements moved along an axis; what leaves at one end comes in at the other."""
        (at,) = check_axes((axis,), self.ndim, "roll")
        n = self.shape[at]
        if not n or shift % n == 0:
            return +self
        first, second = self.split([n - shift % n, shift % n], at)
        return second.cat(first, axis=at)

    def tril(self, diagonal: int = 0) -> Self:
        """Zeros above a diagonal of the last two axes."""
        return self._triangle(diagonal + 1).where(self, self._operand(0, self.dtype))

    def triu(self, diagonal: int = 0) -> Self:
        """Zeros below a diagonal of the last two axes."""
        return self._triangle(diagonal).where(self._operand(0, self.dtype), self)

    def _triangle(self, diagonal: int) -> Self:
        if self.ndim < 2:
            raise Misfit(f"a triangle of {self.shape}, which has no two axes")
        rows, columns = self.shape[-2:]
        away = self._position(columns) - self._position(rows).reshape(rows, 1)
        return away < max(-rows, min(diagonal, columns + 1))
