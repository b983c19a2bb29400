"""Device memory as a program holds it."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike, NDArray

from amdrv.errors import DeviceLost, InvalidArgument
from amdrv.runtime.kernarg import DevicePointer

if TYPE_CHECKING:
    from amdrv.runtime.device import Device


class Buffer(DevicePointer):
    """Bytes in device memory. Made by ``Device.alloc`` and ``Device.array``; given back by ``free`` or when forgotten.

    Reads and writes are ordered with launches: both wait until the work queued so far has ended.
    """

    def __init__(self, device: Device, size: int) -> None:
        """Take ``size`` bytes of device memory. Raises OutOfMemory."""
        self.size = size
        self.device = device
        self._allocation, self._give_back = device.allocate(size, "a buffer", owner=self)
        self._freed = False

    @property
    def va(self) -> int:
        """Device address. Raises InvalidArgument after ``free``, DeviceLost when a reset took the memory."""
        self.check_usable()
        return self._allocation.va

    def check_usable(self) -> None:
        """Raise unless the memory is there: InvalidArgument after ``free``, DeviceLost after a reset or close."""
        if self._freed:
            raise InvalidArgument(f"the buffer at {self._allocation.va:#x} was freed and cannot be used any more")
        self.device.check_usable()

    def write(self, data: bytes | bytearray | memoryview | NDArray[np.generic], offset: int = 0) -> None:
        """Copy ``data`` (bytes or an array of any type) to byte ``offset``.

        Raises InvalidArgument when it does not fit, GpuFault for trouble in work queued before.
        """
        raw = _bytes_of(data)
        self._check_range(offset, len(raw))
        self.device.synchronize()
        self._allocation.write(offset, raw)
        self.device.memory_written(self._allocation)

    def read(self, size: int | None = None, offset: int = 0) -> bytes:
        """``size`` bytes (to the end unless told) from byte ``offset``; raises as ``write`` does."""
        if size is None:
            size = self.size - offset
        self._check_range(offset, size)
        return bytes(self._copy_out(offset, size))

    def numpy(
        self, dtype: DTypeLike = np.uint8, shape: int | Sequence[int] | None = None, offset: int = 0
    ) -> NDArray[np.generic]:
        """A copy as an array of ``dtype``; as many elements as there are unless ``shape`` says.

        Raises InvalidArgument when the shape needs more bytes than there are, or the bytes are no whole elements.
        """
        try:
            kind = np.dtype(dtype)
        except (TypeError, ValueError, SyntaxError):
            raise InvalidArgument(f"{dtype!r} is no element type") from None
        if kind.hasobject or not kind.itemsize:
            raise InvalidArgument(f"a buffer holds no elements of type {kind}")
        if shape is None:
            if (self.size - offset) % kind.itemsize:
                raise InvalidArgument(f"{self.size - offset} bytes are no whole number of {kind} elements")
            dims: tuple[int, ...] = ((self.size - offset) // kind.itemsize,)
        else:
            try:
                given = tuple(shape) if isinstance(shape, Iterable) else (shape,)
                dims = tuple(operator.index(dim) for dim in given)
            except TypeError:
                raise InvalidArgument(f"shape {shape!r} is not made of integers") from None
            if any(dim < 0 for dim in dims):
                raise InvalidArgument(f"shape {dims} has a negative dimension")
        size = math.prod(dims) * kind.itemsize
        self._check_range(offset, size)
        return np.frombuffer(self._copy_out(offset, size), dtype=kind).reshape(dims)

    def free(self) -> None:
        """Give the memory back, once the work queued so far has ended. Freeing twice is an InvalidArgument."""
        if self._freed:
            raise InvalidArgument(f"the buffer at {self._allocation.va:#x} was freed already")
        self._freed = True
        self._give_back()

    def _copy_out(self, offset: int, size: int) -> bytearray:
        self.device.synchronize()
        try:
            return self._allocation.copy_out(offset, size)
        except DeviceLost as lost:
            self.device.note_lost(lost)
            raise

    def _check_range(self, offset: int, size: int) -> None:
        self.check_usable()
        if offset < 0 or size < 0 or offset + size > self.size:
            raise InvalidArgument(f"{size} bytes at offset {offset} do not fit in a buffer of {self.size}")

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        state = " freed" if self._freed else ""
        return f"<Buffer {self.size} bytes at {self._allocation.va:#x}{state} on {self.device.name}>"


def _bytes_of(data: object) -> memoryview:
    if isinstance(data, (bytes, bytearray, memoryview)):
        view = memoryview(data)
        return view.cast("B") if view.nbytes and view.c_contiguous else memoryview(view.tobytes())
    if isinstance(data, (np.ndarray, np.generic)):
        if data.dtype.hasobject:
            raise InvalidArgument("an array of Python objects cannot be copied to the device")
        # A flat view as bytes, because memoryview does not know every element type (bfloat16, for one).
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    raise InvalidArgument(f"a buffer takes bytes or a NumPy array, not {type(data).__name__}")
