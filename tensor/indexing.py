"""Looking elements up: slices, integers, integer arrays, masks; and putting them somewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from amdrv.tensor import dtypes
from amdrv.tensor.core import BadIndex, BadType, Core, Misfit, Operand, check_axes
from amdrv.tensor.elementwise import broadcast_shape, expanded
from amdrv.tensor.ir import Node, Op, Shape
from amdrv.tensor.movement import positions
from amdrv.tensor.reduce import Reduce

_COMBINED = {"add": Op.ADD, "mul": Op.MUL, "max": Op.MAX, "min": Op.MIN}


def _halving(start: Any, most: Any, steps: int, holds: Callable[[Any], Any]) -> Any:
    """The greatest count up to ``most`` that holds, where all smaller ones do and ``start`` is known to."""
    step = 1 << steps.bit_length() - 1
    while step:
        more = start + step
        start = ((more <= most) & holds(more)).where(more, start)
        start = start.contiguous() if step > 1 and step.bit_length() % 8 == 1 else start  # no formula gets long
        step //= 2
    return start


def _merged(rank: Any, order: Any, own: Any, size: Any) -> Any:
    """Positions in order, from positions that are in order in parts of a size; ``own`` are 0, 1, … along the axis.

    The size, a power of two, is a tensor: so the kernel is the same for all sizes, and compiled once.
    """
    n = rank.shape[-1]
    start = own & -(size + size)
    place, first = own - start, (n - start).minimum(size)
    second = (n - start - first).minimum(size)

    def look(x: Any, at: Any) -> Any:
        return x.gather(-1, at.cast(f"u{at.dtype}"))  # what is not there is not asked for either

    def before(a: Any, b: Any) -> Any:
        """Whether an element of the first part comes before one of the second."""
        return look(rank, look(order, start + a)) <= look(rank, look(order, start + first + b))

    least, most = (place - second).maximum(0).expand(rank.shape), place.minimum(first)
    count = _halving(least, most, n - 1, lambda count: before(count - 1, place - count))
    left = (count < first) & ((place - count >= second) | before(count, place - count))
    return look(order, start + left.where(count, first + place - count))


def _used(item: Any) -> int:
    """How many axes an index is for."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, Core) and item.dtype is dtypes.bool_ else 1


class Indexing(Reduce):
    """NumPy's indexing. What a mask selects is computed at once, because its length is a shape."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Self:
        """Elements by slices, integers, None, Ellipsis, integer tensors and bool masks, with NumPy's meaning.

        Raises InvalidArgument (an IndexError has no place in a lazy result) for too many indices or ones out of range
        that are known; positions in integer tensors are limited to the axis when they are looked up.
        """
        if isinstance(key, bool) or (isinstance(key, Core) and key.dtype is dtypes.bool_ and not key.shape):
            return self.unsqueeze(0)[: int(bool(key))]
        items = self._split_masks(key if isinstance(key, tuple) else (key,))
        used = sum(item is not None and item is not Ellipsis for item in items)
        if used > self.ndim or sum(item is Ellipsis for item in items) > 1:
            raise BadIndex(f"index {key!r}: {used} indices for the {self.ndim} axes of {self.shape}")
        if Ellipsis not in [item for item in items if not isinstance(item, Core)]:
            items.append(Ellipsis)
        at = next(k for k, item in enumerate(items) if item is Ellipsis)
        items[at : at + 1] = [slice(None)] * (self.ndim - used)
        # NumPy: integers are arrays where arrays stand beside them with something between.
        picks = [k for k, item in enumerate(items) if item is not None and not isinstance(item, slice)]
        apart = any(isinstance(items[k], Core) for k in picks) and picks[-1] - picks[0] >= len(picks)
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
                shape.append(len(positions(item, n)))
            elif isinstance(item, Core) or apart:
                slices.append(slice(None))
                known = item if isinstance(item, Core) else self._operand(self._one(item, n).start, dtypes.int64)
                arrays[len(shape)] = known
                shape.append(n)
            else:
                slices.append(self._one(item, n))
        part = self.slice(*slices).reshape(tuple(shape))
        return part._look_up(arrays) if arrays else part

    def __iter__(self) -> Iterator[Self]:
        return (self[k] for k in range(len(self)))

    def _one(self, item: Any, n: int) -> slice:
        try:
            index = item.__index__()
        except AttributeError:
            raise Misfit(f"{item!r} is no index of a tensor") from None
        if not -n <= index < n:
            raise BadIndex(f"index {index} is out of range for an axis of {n} in {self.shape}")
        return slice(index % n, index % n + 1)

    def _array(self, item: Any) -> Self:
        return type(self)(item if np.size(item) else np.zeros(np.shape(item), np.int64), device=self.backend)

    def _split_masks(self, key: tuple[Any, ...]) -> list[Any]:
        items: list[Any] = []
        known = [self._array(item) if isinstance(item, (list, np.ndarray)) else item for item in key]
        axis, used = 0, sum(_used(item) for item in known)
        for item in known:
            if isinstance(item, Core) and item.dtype is dtypes.bool_:
                if item.shape != self.shape[axis : axis + item.ndim]:
                    raise BadIndex(f"index: a mask of shape {item.shape} for {self.shape}, axis {axis}")
                found = np.nonzero(item.numpy())
                items += [type(self)(part.astype(np.int64), device=self.backend) for part in found]
            else:
                items.append(item)
            axis += self.ndim - used if item is Ellipsis else _used(item)
        return items

    def _look_up(self, arrays: dict[int, Core]) -> Self:
        axes = list(arrays)
        rest = [axis for axis in range(self.ndim) if axis not in arrays]
        shape = broadcast_shape("index", *(array.shape for array in arrays.values()))
        indices = self._positions(arrays, shape)
        moved = self.permute((*axes, *rest))
        if 0 in shape or 0 not in (self.shape[axis] for axis in axes):
            taken = self._new(Node(Op.TAKE, self.dtype, (moved.node, *indices)))
        else:
            raise Misfit(f"index: an axis of {self.shape} has no elements to look up")
        first = axes[0]
        if axes != list(range(first, first + len(axes))):
            return taken  # NumPy puts the looked-up axes first when slices stand between them
        rank = len(shape)
        order = [*range(rank, rank + first), *range(rank), *range(rank + first, taken.ndim)]
        return taken.permute(order)

    def _positions(self, arrays: Mapping[int, Core], shape: Shape) -> list[Node]:
        """Indices of axes in one shape; negative ones count from the end."""
        indices = []
        for axis, array in arrays.items():
            found = self._operand(array)
            if not found.dtype.is_int:
                raise BadType(f"an index of type {found.dtype}; it must be integer or bool")
            if found.dtype.kind == "int" and found.node.op is not Op.IOTA:
                found = (found < 0).where(found + self.shape[axis], found)
            indices.append(expanded(found.node, shape))
        return indices

    def take(self, indices: Core, axis: int = 0) -> Self:
        """The elements at positions along an axis."""
        (at,) = check_axes((axis,), self.ndim, "take")
        return self[(*[slice(None)] * at, indices)]

    def gather(self, axis: int, index: Core) -> Self:
        """For each element of ``index``: the element there along an axis, and at the same position along the others."""
        return self[self._along("gather", axis, index)]

    def _along(self, what: str, axis: int, index: Core) -> tuple[Any, ...]:
        """Indices of all axes: the given ones along one axis, each element's own position along the others."""
        (at,) = check_axes((axis,), self.ndim, what)
        if index.ndim != self.ndim:
            raise Misfit(f"{what}: an index of shape {index.shape} for {self.shape}")
        places = [self._position(n).reshape((n, *(1,) * (self.ndim - a - 1))) for a, n in enumerate(index.shape)]
        return (*places[:at], index, *places[at + 1 :])

    def one_hot(self, classes: int) -> Self:
        """1 at the position along a new last axis that each integer names, else 0."""
        return (self.unsqueeze(-1) == self._position(classes).cast(self.dtype)).cast(dtypes.int64)

    def scatter(self, axis: int, index: Core, values: Operand, reduce: str = "set") -> Self:
        """The tensor with values put at positions along an axis; the other axes have the same position in all.

        ``reduce``: what becomes of several values for one element, and of the one that was there. "set": the last
        value stays; "add", "mul", "max", "min": all are combined.
        """
        return self._put(self._along("scatter", axis, index), values, reduce)

    def scatter_add(self, axis: int, index: Core, values: Operand) -> Self:
        """The tensor with values added at positions along an axis; see ``scatter``."""
        return self.scatter(axis, index, values, "add")

    def _put(self, keys: Sequence[Any], values: Operand, reduce: str) -> Self:
        """Values put where indices of the first axes say; they are repeated to the shape that looking up there has."""
        if reduce not in (*_COMBINED, "set"):
            raise Misfit(f"scatter: {reduce!r} is none of set, {', '.join(_COMBINED)}")
        shape = broadcast_shape("scatter", *(key.shape for key in keys))
        wide = self.dtype if self.dtype.bits >= 32 else self.dtype.compute if self.dtype.is_float else dtypes.int32
        indices = self._positions(dict(enumerate(keys)), shape)
        given = self._operand(values, self.dtype).cast(self.dtype).expand((*shape, *self.shape[len(keys) :]))
        if reduce != "set":
            nodes = (self.node.cast(wide), given.node.cast(wide), *indices)
            return self._new(Node(Op.SCATTER, wide, nodes, _COMBINED[reduce]), given).cast(self.dtype)
        if 0 in given.shape:
            return self
        # The last value for an element is the one with the greatest number.
        count = math.prod(shape)
        nobody = self._operand(-1, dtypes.int32).expand(self.shape[: len(keys)])
        last = nobody._put(keys, self._position(count).cast(dtypes.int32).reshape(shape), "max")
        picked = given.reshape((count, *self.shape[len(keys) :]))[last]
        return (last >= 0).reshape((*last.shape, *(1,) * (self.ndim - last.ndim))).where(picked, self)

    def argsort(self, axis: int = -1, descending: bool = False) -> Self:
        """The positions of the elements in order along an axis; equal ones stay as they are, NaN counts as greatest.

        Sorted parts are merged in pairs. Every place of the result finds out by halving how many elements in front of
        it come from the first part of its pair: about log²(n) steps an element.
        """
        (at,) = check_axes((axis,), self.ndim, "sort")
        n, rank = self.shape[at], self._in_order(descending).transpose(at, -1).contiguous()
        own = self._position(n)
        order, size = own.expand(rank.shape).contiguous(), self._operand(1, own.dtype).contiguous()
        for _ in range(max(n - 1, 0).bit_length()):
            order, size = _merged(rank, order, own, size).contiguous(), (size + size).contiguous()
        return order.cast(dtypes.int64).transpose(at, -1)

    def _in_order(self, descending: bool = False) -> Self:
        """Integers in the order that sorting wants; NaN is greatest."""
        if not self.dtype.is_float:
            plain = self.cast(dtypes.uint8) if self.dtype is dtypes.bool_ else self
            return ~plain if descending else plain
        x = self.cast(self.dtype.compute) + 0.0  # -0.0 is 0.0
        bits = x.bitcast(f"int{x.dtype.bits}")
        greatest = bits.dtype.limits[1]
        found = x.isnan().where(self._operand(greatest, bits.dtype), (bits < 0).where(bits ^ greatest, bits))
        return ~found if descending else found

    def searchsorted(self, values: Core, side: str = "left", sorter: Core | None = None) -> Self:
        """Where values belong in this sorted tensor of one axis: before equal elements, or behind them ("right")."""
        if self.ndim != 1 or side not in ("left", "right"):
            raise Misfit(f"searchsorted: side {side!r}, in a tensor of shape {self.shape}")
        given = self._operand(values)
        common = dtypes.promote(self.dtype, given.dtype)
        line = (self if sorter is None else self[sorter]).cast(common)._in_order().contiguous()
        wanted, n = given.cast(common)._in_order(), self.shape[0]
        none = self._operand(0, dtypes.int64).expand(wanted.shape)

        def before(count: Self) -> Self:
            found = line[(count - 1).cast(dtypes.uint64)]
            return found < wanted if side == "left" else found <= wanted

        return _halving(none, none + n, n, before) if n else none

    def sort(self, axis: int = -1, descending: bool = False) -> Self:
        """The elements in order along an axis."""
        return self.gather(axis, self.argsort(axis, descending))

    def topk(self, count: int, axis: int = -1, largest: bool = True) -> tuple[Self, Self]:
        """The first few elements in order along an axis, and their positions."""
        (at,) = check_axes((axis,), self.ndim, "topk")
        if not 0 <= count <= self.shape[at]:
            raise Misfit(f"topk: {count} elements along axis {axis} of {self.shape}")
        places = self.argsort(at, largest).slice(*[slice(None)] * at, slice(0, count))
        return self.gather(at, places), places

    def masked_fill(self, mask: Core, value: float) -> Self:
        """One value where the mask is true."""
        return self._operand(mask).where(self._operand(value, self.dtype), self)

    def nonzero(self) -> tuple[Self, ...]:
        """The positions of elements that are not zero, one tensor for each axis; computed at once."""
        if not self.ndim:
            raise Misfit("nonzero of a tensor without axes")
        return tuple(type(self)(part, device=self.backend) for part in np.nonzero(self.numpy()))

    def __setitem__(self, key: Any, value: Any) -> None:
        """Put values where slices, integers, integer tensors or masks select; the last one for an element stays."""
        source = self._operand(value, self.dtype).cast(self.dtype)
        if isinstance(key, Core) and key.dtype is dtypes.bool_ and key.shape == self.shape and not source.shape:
            self._become(self._operand(key).where(source, self))
            return
        items = key if isinstance(key, tuple) else (key,)
        if any(isinstance(item, (bool, Core, list, np.ndarray)) for item in items):
            place = self._position(self.size).reshape(self.shape)[key]
            self._become(self.flatten()._put([place], source.expand(place.shape), "set").reshape(self.shape))
            return
        cuts = self._cuts(items)
        part = tuple(len(positions(cut, n)) for cut, n in zip(cuts, self.shape, strict=True))
        source = source.expand(self[key].shape).reshape(part)
        inside = self._operand(True, dtypes.bool_).expand(part)
        self._become(self._placed(inside, cuts).where(self._placed(source, cuts), self))

    def _cuts(self, key: Sequence[Any]) -> list[slice]:
        items = [item for item in key if item is not None]
        if Ellipsis in items:
            at = items.index(Ellipsis)
            items[at : at + 1] = [slice(None)] * (self.ndim - len(items) + 1)
        items += [slice(None)] * (self.ndim - len(items))
        if len(items) > self.ndim:
            raise BadIndex(f"index {key!r}: {len(items)} indices for the {self.ndim} axes of {self.shape}")
        return [
            item if isinstance(item, slice) else self._one(item, n) for item, n in zip(items, self.shape, strict=True)
        ]

    def _placed(self, source: Self, cuts: Sequence[slice]) -> Self:
        """A part where it belongs, zeros around it and between its elements."""
        widths, backwards = [], []
        for axis, (cut, n) in enumerate(zip(cuts, self.shape, strict=True)):
            places = positions(cut, n)
            if places.step < 0:
                backwards.append(axis)
                places = places[::-1]
            last = places[-1] + 1 if places else places.start
            widths.append((places.start, n - last, places.step - 1))
        turned = source.flip(backwards) if backwards else source
        return turned._move(Op.PAD, tuple(widths))
