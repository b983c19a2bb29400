"""Where arrays live: storages, and what the compiler needs from a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from amdrv.runtime.object_cache import ObjectCache
from amdrv.tensor import dtypes
from amdrv.tensor.ir import Node, Op, Shape
from amdrv.tensor.lower import Kernel


class Program(Protocol):
    """A kernel in a device's machine code."""

    @property
    def ir(self) -> str:
        """The LLVM IR it was compiled from."""

    def run(self, addresses: Sequence[int]) -> None:
        """Queue it on buffers at these addresses, in the order of the kernel's slots."""


class Tape(Protocol):
    """Programs that are repeated in order, on buffers that change."""

    def run(self, addresses: NDArray[np.uint64]) -> None:
        """Queue them. ``addresses``, one for each slot, may be changed afterwards."""


class Memory(Protocol):
    """A block of a device's memory, given back when forgotten."""

    @property
    def address(self) -> int:
        """Where it begins."""

    @property
    def size_bytes(self) -> int:
        """How large it is."""

    def write(self, data: NDArray[np.uint8], offset: int = 0) -> None:
        """Fill bytes of it."""

    def read(self, size_bytes: int, offset: int = 0) -> NDArray[np.uint8]:
        """A copy of bytes of it; waits for queued programs."""


class Backend(Protocol):
    """A device as the compiler sees it."""

    def __hash__(self) -> int:
        """Of the device itself: plans are kept by it."""

    @property
    def name(self) -> str:
        """ "CPU" or "AMD"."""

    def allocate(self, size_bytes: int) -> Memory:
        """Memory with undefined contents."""

    @property
    def programs(self) -> dict[Node, Program]:
        """What was compiled, by the kernel's body; the engine fills it."""

    @property
    def cache(self) -> ObjectCache:
        """What is kept on disk for this kind of device."""

    def compile(self, kernels: Sequence[Kernel], rank: int = 0) -> Sequence[Program]:
        """Machine code for kernels, as a model ranks the ways to arrange them: 0 is what it takes for the fastest."""

    def tape(self, calls: Sequence[tuple[Program, Sequence[int]]]) -> Tape:
        """Programs to repeat, with the slot of each of their buffers."""

    def synchronize(self) -> None:
        """Return when what was queued has run."""


@dataclass(eq=False, slots=True)
class Storage:
    """Memory with the elements of one array, in order."""

    backend: Backend
    memory: Memory | None  # None for an array without elements
    origin: object = None  # the plan that computed it, for people who look inside

    @property
    def address(self) -> int:
        return self.memory.address if self.memory is not None else 0

    def __repr__(self) -> str:
        return f"{self.backend.name}@{self.address:#x}"


@dataclass(frozen=True, slots=True)
class Group:
    """Several devices as one, where sharded tensors are. What can only be on one device is on the first."""

    devices: tuple[Backend, ...]

    @property
    def name(self) -> str:
        return ", ".join(device.name for device in self.devices)

    @property
    def programs(self) -> dict[Node, Program]:
        return self.devices[0].programs

    def allocate(self, size_bytes: int) -> Parts:
        """Memory for copies on all devices."""
        return Parts(tuple(Storage(device, device.allocate(size_bytes)) for device in self.devices), None, 1)

    @property
    def cache(self) -> ObjectCache:
        return self.devices[0].cache

    def compile(self, kernels: Sequence[Kernel], rank: int = 0) -> Sequence[Program]:
        return self.devices[0].compile(kernels, rank)

    def tape(self, calls: Sequence[tuple[Program, Sequence[int]]]) -> Tape:
        return self.devices[0].tape(calls)

    def synchronize(self) -> None:
        for device in self.devices:
            device.synchronize()


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The memory of an array in parts along an axis, or of copies for axis None."""

    storages: tuple[Storage, ...]
    axis: int | None
    outer: int  # the product of the axes before

    @property
    def address(self) -> int:
        return self.storages[0].address

    @property
    def size_bytes(self) -> int:
        sizes = [storage.memory.size_bytes for storage in self.storages if storage.memory is not None]
        return sizes[0] if self.axis is None else sum(sizes)

    def write(self, data: NDArray[np.uint8], offset: int = 0) -> None:
        """Fill bytes of all copies."""
        for storage in self.storages:
            if storage.memory is not None and self.axis is None:
                storage.memory.write(data, offset)

    def read(self, size_bytes: int, offset: int = 0) -> NDArray[np.uint8]:
        """Bytes of the whole array."""
        memories = [storage.memory for storage in self.storages if storage.memory is not None]
        if self.axis is None:
            return memories[0].read(size_bytes, offset)
        parts = [memory.read(size_bytes // len(memories)).reshape(self.outer, -1) for memory in memories]
        return np.concatenate(parts, axis=1).reshape(-1)[offset : offset + size_bytes]


def parts_of(storage: Storage) -> tuple[Storage, ...]:
    """The storages on single devices that a storage consists of."""
    return storage.memory.storages if isinstance(storage.memory, Parts) else (storage,)


def renewed(storage: Storage) -> Storage:
    """Another storage like one, with undefined contents."""
    if isinstance(whole := storage.memory, Parts):
        parts = tuple(map(renewed, whole.storages))
        return Storage(storage.backend, Parts(parts, whole.axis, whole.outer), storage.origin)
    size_bytes = storage.memory.size_bytes if storage.memory is not None else 0
    return Storage(storage.backend, storage.backend.allocate(size_bytes) if size_bytes else None, storage.origin)


def buffer_node(storage: Storage, dtype: dtypes.DType, shape: Shape) -> Node:
    """The tensor graph's node for an array in memory."""
    return Node(Op.BUFFER, dtype, (), (storage, shape))


def from_numpy(backend: Backend, array: NDArray[np.generic], dtype: dtypes.DType) -> Node:
    """Copy an array to a device."""
    if not array.size:
        return buffer_node(Storage(backend, None), dtype, array.shape)
    memory = backend.allocate(array.nbytes)
    memory.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return buffer_node(Storage(backend, memory), dtype, array.shape)


def to_numpy(node: Node) -> NDArray[np.generic]:
    """A copy of an array in memory."""
    storage, shape = node.arg
    if storage.memory is None:
        return np.zeros(shape, node.dtype.numpy)
    size_bytes = int(np.prod(shape, dtype=np.int64)) * node.dtype.size_bytes
    found: NDArray[np.generic] = storage.memory.read(size_bytes).view(node.dtype.numpy).reshape(shape)
    return found
