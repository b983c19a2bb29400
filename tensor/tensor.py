"""``Tensor``: arrays that are computed when their values are wanted.

Operations are in layers, each a class on top of the one before: ``core`` (values and devices), ``elementwise``,
``movement`` (views), ``reduce``, ``indexing``, ``functional``. Here are creation, random numbers, and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from amdrv.errors import InvalidArgument
from amdrv.tensor import devices, dtypes, ir
from amdrv.tensor.core import Core, fitting
from amdrv.tensor.dtypes import Scalar
from amdrv.tensor.functional import Functional
from amdrv.tensor.gradient import gradients
from amdrv.tensor.ir import Node, Op, Shape
from amdrv.tensor.movement import integers
from amdrv.tensor.sharding import like


def _lengths(shape: tuple[Any, ...]) -> Shape:
    """The shape of a new tensor. Raises InvalidArgument for negative lengths."""
    found = integers(shape)
    if any(n < 0 for n in found):
        raise InvalidArgument(f"a tensor of shape {found}")
    return found


class Tensor(Functional):
    """An array on a device. Nothing is computed before its values are wanted."""

    __slots__ = ()

    @classmethod
    def _of(cls, node: Node, device: object, requires_grad: bool = False) -> Self:
        made = object.__new__(cls)
        made.node, made.backend = node, devices.backend(device)
        made.grad, made.requires_grad, made._leaves = None, requires_grad, frozenset()
        return made

    @classmethod
    def full(cls, shape: int | Sequence[int], value: Scalar, dtype: object = None, device: object = None) -> Self:
        """One value everywhere. Raises InvalidArgument for negative lengths."""
        wanted = dtypes.of(dtype) if dtype is not None else dtypes.of_scalar(value)
        return cls._of(Node(Op.EXPAND, wanted, (ir.const(fitting(value, wanted), value),), _lengths((shape,))), device)

    @classmethod
    def _places(cls, *shape: int, device: object, axis: int = 0) -> Self:
        """Each element's position along an axis."""
        return cls._of(Node(Op.IOTA, dtypes.int64, (), (_lengths(shape), axis)), device)

    @classmethod
    def zeros(cls, *shape: Any, dtype: object = dtypes.float32, device: object = None) -> Self:
        return cls.full(integers(shape), 0, dtype, device)

    @classmethod
    def ones(cls, *shape: Any, dtype: object = dtypes.float32, device: object = None) -> Self:
        return cls.full(integers(shape), 1, dtype, device)

    @classmethod
    def arange(
        cls, start: float, stop: float | None = None, step: float = 1, dtype: object = None, device: object = None
    ) -> Self:
        """start, start + step, … below stop; from 0 when only one limit is given."""
        begin, end = (0, start) if stop is None else (start, stop)
        if not step or not math.isfinite((end - begin) / step):
            raise InvalidArgument(f"arange from {begin} to {end} in steps of {step}")
        count = max(0, math.ceil((end - begin) / step))
        whole = all(isinstance(value, int) for value in (begin, end, step))
        wanted = dtypes.of(dtype) if dtype is not None else dtypes.int64 if whole else dtypes.float32
        place = cls._places(count, device=device)
        return ((place if whole else place.cast(dtypes.float64)) * step + begin).cast(wanted)

    @classmethod
    def linspace(
        cls, start: float, stop: float, count: int, dtype: object = None, device: object = None, endpoint: bool = True
    ) -> Self:
        """Evenly spaced values from start to stop, which is the last one if ``endpoint`` is true, else follows it."""
        place = cls._places(count, device=device)
        last = count - 1 if endpoint else count
        found = place.cast(dtypes.float64) * ((stop - start) / max(1, last)) + start
        return (place.equal(last) & (last > 0)).where(float(stop), found).cast(dtype or dtypes.float32)

    @classmethod
    def eye(
        cls, rows: int, columns: int | None = None, dtype: object = None, device: object = None, diagonal: int = 0
    ) -> Self:
        """Ones on a diagonal."""
        wide = rows if columns is None else columns
        away = cls._places(rows, wide, device=device, axis=1) - cls._places(rows, wide, device=device)
        return away.equal(max(-rows, min(diagonal, wide))).cast(dtype or dtypes.float32)

    def full_like(self, value: Scalar, dtype: object = None, device: object = None) -> Self:
        made = self.full(self.shape, value, dtype or self.dtype, device or self.backend)
        made.node = made.node if device is not None else like(made.node, self.node)
        return made

    def zeros_like(self, dtype: object = None) -> Self:
        return self.full_like(0, dtype)

    def ones_like(self, dtype: object = None) -> Self:
        return self.full_like(1, dtype)

    @classmethod
    def random_bits(cls, *shape: Any, seed: int, device: object = None) -> Self:
        """uint32 with random bits: Philox 4x32-10, whose counter is the element's place. Same seed, same bits.

        Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
        """
        dims = _lengths(shape)
        u32, u64 = dtypes.uint32, dtypes.uint64
        place = cls._places(math.prod(dims), device=device).cast(u64)
        words = [(place & 0xFFFFFFFF), place >> 32, place._operand(0, u64), place._operand(0, u64)]
        keys = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
        for _ in range(10):
            first, second = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
            words = [
                (second >> 32) ^ words[1] ^ keys[0],
                second & 0xFFFFFFFF,
                (first >> 32) ^ words[3] ^ keys[1],
                first & 0xFFFFFFFF,
            ]
            keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
        return words[0].cast(u32).reshape(dims)

    @classmethod
    def rand(cls, *shape: Any, seed: int, dtype: object = dtypes.float32, device: object = None) -> Self:
        """Evenly distributed in [0, 1)."""
        bits = cls.random_bits(*shape, seed=seed, device=device)
        return ((bits >> 8).cast(dtypes.float32) * 2.0**-24).cast(dtype)

    @classmethod
    def uniform(cls, *shape: Any, low: float = 0.0, high: float = 1.0, seed: int, device: object = None) -> Self:
        """Evenly distributed in [low, high)."""
        return cls.rand(*shape, seed=seed, device=device) * (high - low) + low

    @classmethod
    def randn(cls, *shape: Any, seed: int, dtype: object = dtypes.float32, device: object = None) -> Self:
        """Normally distributed (Box and Muller)."""
        dims = integers(shape)
        angle = cls.rand(*dims, seed=seed, device=device) * (2 * math.pi)
        distance = ((1.0 - cls.rand(*dims, seed=seed ^ 0x5DEECE66D, device=device)).log() * -2.0).sqrt()
        return (distance * angle.cos()).cast(dtype)

    @classmethod
    def randint(cls, *shape: Any, low: int, high: int, seed: int, device: object = None) -> Self:
        """int64 from low up to, but not including, high."""
        if not 0 < high - low < 1 << 32:
            raise InvalidArgument(f"randint from {low} to {high}: there are to be 1 to 2**32 - 1 values")
        bits = cls.random_bits(*shape, seed=seed, device=device).cast(dtypes.uint64)
        return ((bits * (high - low)) >> 32).cast(dtypes.int64) + low

    def dropout(self, chance: float, seed: int) -> Self:
        """Zero with some chance, scaled up else, so that the mean stays."""
        if not 0 <= chance < 1:
            raise InvalidArgument(f"dropout with a chance of {chance}")
        keep = self.rand(*self.shape, seed=seed, device=self.backend) >= chance
        return keep.where(self * (1 / (1 - chance)), self._operand(0.0, self.dtype))

    def backward(self, gradient: Core | None = None) -> Self:
        """Add the gradient of this tensor to ``grad`` of every tensor with ``requires_grad`` that it comes from.

        Raises InvalidArgument unless there is one element or ``gradient`` has this shape.
        """
        if gradient is None and self.size != 1:
            raise InvalidArgument(f"backward of shape {self.shape} needs a gradient of that shape")
        if gradient is not None and gradient.shape != self.shape:
            raise InvalidArgument(f"backward of shape {self.shape} with a gradient of shape {gradient.shape}")
        first = self.ones_like() if gradient is None else self._operand(gradient).cast(self.dtype)
        leaves = [(leaf, node) for leaf, node in self._own_leaves() if isinstance(leaf, Tensor)]
        found = gradients(self.node, first.node, {node for _, node in leaves})
        for leaf, node in leaves:
            if node in found:
                part = leaf._apart(like(found[node], node))
                leaf.grad = part if leaf.grad is None else leaf.grad + part
        return self

    def explain(self, code: bool = True) -> str:
        """How this tensor is computed: graph, rules, kernels, loops, code and times, as text."""
        from amdrv.tensor.viz.explain import explain

        return explain(self.node, self.backend, code)

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        """The functions of the array API on tensors. Raises InvalidArgument for a version after theirs."""
        from amdrv.tensor import array_api

        if api_version is not None and api_version not in array_api.VERSIONS:
            raise InvalidArgument(f"array API {api_version}: tensors have {', '.join(array_api.VERSIONS)}")
        return array_api
