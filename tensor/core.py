"""What a tensor is: a node of the graph, a device, and, for training, a gradient."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument
from amdrv.tensor import devices, dtypes, engine, ir
from amdrv.tensor.devices import group as group_of
from amdrv.tensor.dtypes import DType, Scalar
from amdrv.tensor.ir import Node, Op, Shape
from amdrv.tensor.sharding import home, moved
from amdrv.tensor.storage import Backend, from_numpy, to_numpy

Operand = object  # a tensor, a Python scalar or something NumPy makes an array of


class Misfit(InvalidArgument):
    """What an operation does not take. The message begins with the one that was called, and the shapes it was given."""

    def __init__(self, message: str) -> None:
        frame: FrameType | None = sys._getframe(1)
        called: FrameType | None = None
        while frame is not None and frame.f_globals["__name__"].startswith("amdrv.tensor."):
            if isinstance(frame.f_locals.get("self"), Core) and not frame.f_code.co_name.startswith("_"):
                called = frame
            frame = frame.f_back
        if called is not None:
            name, (names, more, _, given) = called.f_code.co_name, inspect.getargvalues(called)
            operands = (*(given[name] for name in names), *given.get(more or "", ()))
            shapes = [str(operand.shape) for operand in operands if hasattr(operand, "shape")]
            if not message.startswith(name) or shapes[0] not in message:
                message = f"{name} of {', '.join(shapes)}: {message.removeprefix(f'{name}: ')}"
        super().__init__(message)


class BadIndex(Misfit, IndexError):
    """An axis or a position that is not there."""


class BadType(Misfit, TypeError):
    """An element type that an operation does not take."""


def _converter(kind: Callable[[Scalar], Any]) -> Callable[[Core], Any]:
    return lambda tensor: kind(tensor.item())


class Core:
    """The part of a tensor that knows nothing of arithmetic."""

    __slots__ = ("__weakref__", "_leaves", "backend", "grad", "node", "requires_grad")
    __array_priority__ = 100

    def __init__(self, data: object, device: object = None, requires_grad: bool = False, dtype: object = None) -> None:
        """A tensor with a copy of ``data``: an array, nested sequences, a scalar, or another tensor.

        ``device`` is "AMD", "CPU" or an open Device; without one the data's own, else "AMD". Floats of Python are
        float32. Raises InvalidArgument for data that is no array of numbers.
        """
        wanted = None if dtype is None else dtypes.of(dtype)
        self.grad: Self | None = None
        self.requires_grad = requires_grad
        self._leaves: frozenset[tuple[Core, Node]] = frozenset()
        if isinstance(data, Core):
            self.backend: Backend = data.backend if device is None else devices.backend(device)
            self.node: Node = data.to(self.backend).node
            if wanted is not None:
                self.node = self.node.cast(wanted)
        elif isinstance(data, (bool, int, float)) and not isinstance(data, np.generic):
            self.backend = devices.backend(device)
            self.node = ir.const(fitting(data, wanted or dtypes.of_scalar(data)), data)
        else:
            self.backend = devices.backend(device)
            self.node = self._from_array(data, wanted)
        if requires_grad and not self.dtype.is_float:
            raise BadType(f"only floats have gradients, not {self.dtype}")

    def _from_array(self, data: object, wanted: DType | None) -> Node:
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise InvalidArgument(f"a tensor is made from numbers in a regular shape: {error}") from None
        if wanted is None and not hasattr(data, "dtype") and array.dtype == np.float64:
            wanted = dtypes.float32
        own = dtypes.of(array.dtype)
        if wanted is not None and wanted is not own:
            with np.errstate(all="ignore"):
                array = array.astype(wanted.numpy)
        return from_numpy(self.backend, array, wanted or own)

    def _new(self, node: Node, *others: Core) -> Self:
        """A tensor computed from this one and others."""
        made = self._apart(node)
        made._leaves = self._own_leaves().union(*(other._own_leaves() for other in others))
        return made

    def _apart(self, node: Node) -> Self:
        """A tensor on the same device that no gradient goes through."""
        made = object.__new__(type(self))
        made.node, made.backend, made.grad, made.requires_grad = node, self.backend, None, False
        made._leaves = frozenset()
        return made

    def _own_leaves(self) -> frozenset[tuple[Core, Node]]:
        return self._leaves | {(self, self.node)} if self.requires_grad else self._leaves

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def device(self) -> str:
        """ "AMD" or "CPU"."""
        return self.backend.name

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        state = "" if self.node.op is Op.BUFFER else " lazy"
        return f"<Tensor {self.shape} {self.dtype} on {self.device}{state}>"

    def __hash__(self) -> int:
        return id(self)

    def realize(self, *others: Core, search: bool = False) -> Self:
        """Compute the values now, together with those of other tensors of the same device.

        ``search``: run each kernel in several ways first, and keep the fastest, also on disk for other processes.
        """
        tensors: tuple[Core, ...] = (self, *others)
        nodes = engine.realise([t.node for t in tensors], self.backend, search)
        for tensor, node in zip(tensors, nodes, strict=True):
            if tensor.requires_grad or not tensor._leaves:
                tensor.node = node
        return self

    def numpy(self) -> NDArray[Any]:
        """A copy as a NumPy array."""
        engine.looking("numpy()")
        self.realize()
        return to_numpy(engine.realise([self.node], self.backend)[0])

    def item(self) -> Scalar:
        """The value of a tensor with one element."""
        if self.size != 1:
            raise InvalidArgument(f"item() wants one element; the shape is {self.shape}")
        found: Scalar = self.numpy().reshape(()).item()
        return found

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self.numpy().tolist()

    __bool__, __int__, __float__, __complex__ = map(_converter, (bool, int, float, complex))

    def __index__(self) -> int:
        if not self.dtype.is_int:
            raise BadType(f"{self.dtype} is no index")
        return int(self.item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = self.numpy()
        return found if dtype is None else found.astype(dtype)

    def __dlpack__(
        self, /, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """The values for another library, as a copy in host memory. Raises BufferError when that is not wanted."""
        if copy is False or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"the values of {self} are copied to host memory")
        return self.numpy().__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # DLPack: kDLCPU

    def to(self, device: object) -> Self:
        """The same values on another device."""
        backend = devices.backend(device)
        if backend is self.backend:
            return self
        made = self._new(moved(self.node, backend))
        made.backend = backend
        return made

    def shard(self, devices: Sequence[object], axis: int | None = None) -> Self:
        """The same values on several devices: copies, or parts along an axis. Gradients go through.

        Operations on sharded tensors are done on all devices, each on its part. Raises InvalidArgument when the axis
        cannot be divided equally.
        """
        group = group_of(devices)
        at = None if axis is None else check_axes((axis,), self.ndim, "shard")[0]
        if at is not None and (self.shape[at] % len(group.devices) or not self.shape[at]):
            raise InvalidArgument(f"shard: axis {axis} of {self.shape} in {len(group.devices)} equal parts")
        made = self._new(self.node.unary(Op.SHARD, (group, at)))
        made.backend = group
        return made

    def to_device(self, device: object, /, *, stream: object = None) -> Self:
        """The same values on another device, under the array API's name; there are no streams to choose from."""
        return self.to(device)

    def assign(self, other: Core) -> Self:
        """Take over another tensor's values, as an optimiser's step does.

        Raises InvalidArgument for another shape, type or device.
        """
        if other.shape != self.shape or other.dtype is not self.dtype:
            raise InvalidArgument(f"assign {other.dtype}{other.shape} to {self.dtype}{self.shape}")
        if (place := home(other.node)) not in (None, self.backend):
            raise InvalidArgument(f"assign: the values are on {place}, the tensor is on {self.backend}")
        engine.assigning(self)
        self.node = other.node
        return self

    def _become(self, other: Core) -> Self:
        """What assigning to elements and arithmetic in place do. Raises as ``assign`` does."""
        self.assign(other)
        self._leaves = frozenset() if self.requires_grad else other._leaves
        return self

    def detach(self) -> Self:
        """The same values, through which no gradient goes."""
        return self._apart(self.node.unary(Op.DETACH))

    def contiguous(self) -> Self:
        """The same values in a buffer of their own."""
        return self._new(self.node.unary(Op.CONTIGUOUS))

    def _operand(self, value: Operand, dtype: DType | None = None) -> Self:
        """A tensor from what stands beside this one in an operation."""
        if isinstance(value, type(self)):
            return value
        if isinstance(value, (bool, int, float)):
            wanted = dtype or dtypes.promote_scalar(self.dtype, value)
            return self._apart(ir.const(fitting(value, wanted), value))
        return type(self)(value, device=self.backend)


def fitting(value: Scalar, dtype: DType) -> DType:
    """The type. Raises InvalidArgument for an integer that is none of its values."""
    if dtype.is_int and isinstance(value, int) and not dtype.limits[0] <= value <= dtype.limits[1]:
        raise InvalidArgument(f"{value} does not fit into {dtype}")
    return dtype


def check_axes(axes: int | Sequence[int] | None, ndim: int, what: str) -> tuple[int, ...]:
    """Axes counted from the front, all of them for None. Raises InvalidArgument naming the operation."""
    given = range(ndim) if axes is None else axes if isinstance(axes, Sequence) else (axes,)
    found = tuple(axis + ndim if axis < 0 else axis for axis in given)
    if any(not 0 <= axis < ndim or not hasattr(axis, "__index__") for axis in found) or len(set(found)) != len(found):
        raise BadIndex(f"{what}: axes {axes} of a tensor with {ndim} axes")
    return found
