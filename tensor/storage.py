"""Where arrays live: storages, and what the compiler needs from a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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

    def compile(self, kernels: Sequence[Kernel]) -> Sequence[Program]:
        """Machine code for kernels."""

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
