"""Looking elements up: slices, integers, integer arrays, masks; and putting them somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes, engine
from amdrv.tensor.core import Core, check_axes
from amdrv.tensor.elementwise import broadcast_shape, expanded
from amdrv.tensor.ir import Node, Op
from amdrv.tensor.reduce import Reduce


class Indexing(Reduce):
    """NumPy's indexing. What a mask selects is computed at once, because its length is a shape."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Self:
        """Elements by slices, integers, None, Ellipsis, integer tensors and bool masks, with NumPy's meaning.

        Raises InvalidArgument (an IndexError has no place in a lazy result) for too many indices or ones out of range
        that are known; positions in integer tensors are limited to the axis when they are looked up.
        """
        items = self._split_masks(key if isinstance(key, tuple) else (key,))
        used = sum(item is not None and item is not Ellipsis for item in items)
        if used > self.ndim or sum(item is Ellipsis for item in items) > 1:
            raise InvalidArgument(f"index {key!r}: {used} indices for the {self.ndim} axes of {self.shape}")
        if Ellipsis not in [item for item in items if not isinstance(item, Core)]:
            items.append(Ellipsis)
        at = next(k for k, item in enumerate(items) if item is Ellipsis)
        items[at : at + 1] = [slice(None)] * (self.ndim - used)
        slices: list[slice] = []
        shape: list[int] = []
        arrays: dict[int, Core] = {}  # position in the result before arrays are looked up
        for item in items:
            if item is None:
                shape.append(1)
                continue
            n = self.shape[len(slices)]
            if isinstance(item, slice):
                slices.append(item)
                shape.append(len(range(*item.indices(n))))
            elif isinstance(item, Core):
                slices.append(slice(None))
                arrays[len(shape)] = item
                shape.append(n)
            else:
                slices.append(self._one(item, n))
        part = self.slice(*slices).reshape(tuple(shape))
        return part._look_up(arrays) if arrays else part

    def _one(self, item: Any, n: int) -> slice:
        try:
            index = item.__index__()
        except AttributeError:
            raise InvalidArgument(f"{item!r} is no index of a tensor") from None
        if not -n <= index < n:
            raise InvalidArgument(f"index {index} is out of range for an axis of {n} in {self.shape}")
        return slice(index % n, index % n + 1)

    def _split_masks(self, key: tuple[Any, ...]) -> list[Any]:
        items: list[Any] = []
        for item in key:
            if isinstance(item, (list, np.ndarray)):
                item = type(self)(item if len(item) else np.zeros(0, np.int64), device=self.backend)
            if isinstance(item, Core) and item.dtype is dtypes.bool_:
                found = np.nonzero(item.numpy())
                items += [type(self)(part.astype(np.int64), device=self.backend) for part in found]
            elif isinstance(item, Core) and not item.dtype.is_int:
                raise InvalidArgument(f"an index of type {item.dtype}; it must be integer or bool")
            else:
                items.append(item)
        return items

    def _look_up(self, arrays: dict[int, Core]) -> Self:
        axes = list(arrays)
        rest = [axis for axis in range(self.ndim) if axis not in arrays]
        shape = broadcast_shape("index", *(array.shape for array in arrays.values()))
        indices = []
        for axis, array in arrays.items():
            found = self._operand(array)
            if found.dtype.kind == "int":
                found = (found < 0).where(found + self.shape[axis], found)
            indices.append(expanded(found.node, shape))
        moved = self.permute((*axes, *rest))
        if 0 in shape or 0 not in (self.shape[axis] for axis in axes):
            taken = self._new(Node(Op.TAKE, self.dtype, (moved.node, *indices)))
        else:
            raise InvalidArgument(f"index: an axis of {self.shape} has no elements to look up")
        first = axes[0]
        if axes != list(range(first, first + len(axes))):
            return taken  # NumPy puts the looked-up axes first when slices stand between them
        rank = len(shape)
        order = [*range(rank, rank + first), *range(rank), *range(rank + first, taken.ndim)]
        return taken.permute(order)

    def take(self, indices: Core, axis: int = 0) -> Self:
        """The elements at positions along an axis."""
        (at,) = check_axes((axis,), self.ndim, "take")
        return self[(*[slice(None)] * at, indices)]

    def gather(self, axis: int, index: Core) -> Self:
        """For each element of ``index``: the element there along an axis, and at the same position along the others."""
        (at,) = check_axes((axis,), self.ndim, "gather")
        if index.ndim != self.ndim:
            raise InvalidArgument(f"gather: an index of shape {index.shape} for {self.shape}")
        keys: list[Any] = []
        for other, n in enumerate(index.shape):
            place = self._position(n).reshape((n, *(1,) * (self.ndim - other - 1)))
            keys.append(index if other == at else place)
        return self[tuple(keys)]

    def one_hot(self, classes: int) -> Self:
        """1 at the position along a new last axis that each integer names, else 0."""
        return (self.unsqueeze(-1) == self._position(classes).cast(self.dtype)).cast(dtypes.int64)

    def scatter_add(self, axis: int, index: Core, values: Core) -> Self:
        """The tensor with values added at positions along an axis; the other axes have the same position in all."""
        (at,) = check_axes((axis,), self.ndim, "scatter_add")
        n = self.shape[at]
        # Every element asks which of the values are meant for it.
        place = self._position(n).reshape((n, *(1,) * (self.ndim - at)))
        order = [*(other for other in range(self.ndim) if other != at), at]
        wanted, given = (self._operand(part).permute(order).unsqueeze(at) for part in (index, values))
        hit = wanted.cast(place.dtype) == place
        return self + hit.where(given.cast(self.dtype), self._operand(0, self.dtype)).sum(-1, dtype=self.dtype)

    def argsort(self, axis: int = -1, descending: bool = False) -> Self:
        """The positions of the elements in order along an axis; equal ones stay as they are, NaN comes last."""
        rank = self._rank(axis, descending)
        (at,) = check_axes((axis,), self.ndim, "argsort")
        n = self.shape[at]
        back = rank.transpose(at, -1).unsqueeze(-1) == self._position(n)  # (…, element, place)
        found = back.where(self._position(n).reshape(n, 1), 0).sum(-2, dtype=dtypes.int64)
        return found.transpose(at, -1)

    def _rank(self, axis: int, descending: bool) -> Self:
        """How many elements along an axis come before each."""
        (at,) = check_axes((axis,), self.ndim, "sort")
        n = self.shape[at]
        moved = self.transpose(at, -1).contiguous()
        one, other = moved.unsqueeze(-1), moved.unsqueeze(-2)
        before = other > one if descending else other < one
        same = other.equal(one)
        if self.dtype.is_float:
            before = before | (one.isnan() & ~other.isnan())
            same = same | (one.isnan() & other.isnan())
        earlier = self._position(n) < self._position(n).reshape(n, 1)
        return (before | (same & earlier)).sum(-1, dtype=dtypes.int64).transpose(at, -1)

    def sort(self, axis: int = -1, descending: bool = False) -> Self:
        """The elements in order along an axis."""
        return self.gather(axis, self.argsort(axis, descending))

    def topk(self, count: int, axis: int = -1, largest: bool = True) -> tuple[Self, Self]:
        """The first few elements in order along an axis, and their positions."""
        (at,) = check_axes((axis,), self.ndim, "topk")
        places = self.argsort(at, largest).slice(*[slice(None)] * at, slice(0, count))
        return self.gather(at, places), places

    def masked_fill(self, mask: Core, value: float) -> Self:
        """One value where the mask is true."""
        return self._operand(mask).where(self._operand(value, self.dtype), self)

    def nonzero(self) -> tuple[Self, ...]:
        """The positions of elements that are not zero, one tensor for each axis; computed at once."""
        return tuple(type(self)(part, device=self.backend) for part in np.nonzero(self.numpy()))

    def __setitem__(self, key: Any, value: Any) -> None:
        """Put values in a part that slices and integers select, or where a mask of this shape is true."""
        if isinstance(key, Core) and key.dtype is dtypes.bool_ and key.shape == self.shape:
            self._become(self._operand(key).where(self._operand(value).cast(self.dtype), self))
            return
        cuts = self._cuts(key if isinstance(key, tuple) else (key,))
        part = tuple(len(range(*cut.indices(n))) for cut, n in zip(cuts, self.shape, strict=True))
        shown = self[key].shape
        source = self._operand(value).cast(self.dtype).expand(shown).reshape(part)
        inside = self._operand(True, dtypes.bool_).expand(part)
        self._become(self._placed(inside, cuts).where(self._placed(source, cuts), self))

    def _become(self, other: Core) -> None:
        engine.assigning(self)
        self.node, self._leaves = other.node, other._leaves

    def _cuts(self, key: Sequence[Any]) -> list[slice]:
        items = [item for item in key if item is not None]
        if any(isinstance(item, (Core, list, np.ndarray)) for item in items):
            raise InvalidArgument("assigning by integer arrays: use scatter_add, or where with a mask")
        if Ellipsis in items:
            at = items.index(Ellipsis)
            items[at : at + 1] = [slice(None)] * (self.ndim - len(items) + 1)
        items += [slice(None)] * (self.ndim - len(items))
        return [
            item if isinstance(item, slice) else self._one(item, n) for item, n in zip(items, self.shape, strict=True)
        ]

    def _placed(self, source: Self, cuts: Sequence[slice]) -> Self:
        """A part where it belongs, zeros around it and between its elements."""
        widths, backwards = [], []
        for axis, (cut, n) in enumerate(zip(cuts, self.shape, strict=True)):
            places = range(*cut.indices(n))
            if places.step < 0:
                backwards.append(axis)
                places = places[::-1]
            last = places[-1] + 1 if places else places.start
            widths.append((places.start, n - last, places.step - 1))
        turned = source.flip(backwards) if backwards else source
        return turned._move(Op.PAD, tuple(widths))
