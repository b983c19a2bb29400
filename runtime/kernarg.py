"""Kernel arguments: from Python values to the bytes of the kernarg segment, by the code object's metadata.

Source: LLVM AMDGPUUsage "Kernel Argument Metadata" V3 to V5, for the explicit and the hidden kinds.
"""

from __future__ import annotations

import operator
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from amdrv.errors import InvalidArgument, MalformedInput
from amdrv.runtime.code_object import KernelCode
from amdrv.runtime.metadata import Argument

Dims = tuple[int, int, int]

POINTER_BYTES = 8
LDS_POINTER_BYTES = 4
POINTER_KINDS = frozenset({"global_buffer", "image", "sampler", "pipe", "queue"})
LDS_POINTER_KIND = "dynamic_shared_pointer"
FLOAT_FORMATS = {2: "<e", 4: "<f", 8: "<d"}
INTEGER_BYTES = (1, 2, 4, 8)
# What .type_name (OpenCL, HIP) or .value_type (before version 4) says; anything else leaves the value's type to decide.
FLOAT_TYPE = re.compile(r"(half|float|double|_Float16|f16|f32|f64)")
INTEGER_TYPE = re.compile(r"(un)?signed\b|u?(char|short|int|long)(\d+(_t)?)?\b|[iu]\d+\b|size_t\b|bool\b")


class DevicePointer(ABC):
    """A value that stands for device memory, such as a Buffer."""

    @property
    @abstractmethod
    def va(self) -> int:
        """Device address; raises when the memory is gone."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Device addresses that hidden arguments can tell a kernel; the same for every launch on a device."""

    shared_window: int  # the flat window onto LDS
    private_window: int  # and the one onto scratch
    queue_va: int  # the queue's description: packets.queue_description


NOWHERE = Surroundings(0, 0, 0)


@dataclass(frozen=True, slots=True)
class LaunchShape:
    """What the hidden arguments tell a kernel about its launch."""

    grid: Dims  # workgroups
    block: Dims  # work-items of a workgroup
    dimensions: int  # 1 to 3, as the caller gave them
    dynamic_lds_bytes: int = 0
    surroundings: Surroundings = NOWHERE


# Value of each hidden argument. What is not here (printf and hostcall buffers, heap, multigrid and device-side queues,
# offsets, remainders) is zero: launches have no offset and no partial workgroup, and the services are not there.
HIDDEN_VALUES: dict[str, Callable[[LaunchShape], int]] = {
    "hidden_block_count_x": lambda shape: shape.grid[0],
    "hidden_block_count_y": lambda shape: shape.grid[1],
    "hidden_block_count_z": lambda shape: shape.grid[2],
    "hidden_group_size_x": lambda shape: shape.block[0],
    "hidden_group_size_y": lambda shape: shape.block[1],
    "hidden_group_size_z": lambda shape: shape.block[2],
    "hidden_grid_dims": lambda shape: shape.dimensions,
    "hidden_dynamic_lds_size": lambda shape: shape.dynamic_lds_bytes,
    "hidden_private_base": lambda shape: shape.surroundings.private_window >> 32,
    "hidden_shared_base": lambda shape: shape.surroundings.shared_window >> 32,
    "hidden_queue_ptr": lambda shape: shape.surroundings.queue_va,
}


@dataclass(frozen=True, slots=True)
class Packed:
    """A filled kernarg segment, and the LDS that local-pointer arguments asked for."""

    data: bytes
    dynamic_lds_bytes: int


class Packer:
    """Fills kernarg segments of one kernel; made once, because the layout does not change."""

    def __init__(self, kernel: KernelCode) -> None:
        self._kernel = kernel
        arguments = kernel.arguments or ()
        explicit = [argument for argument in arguments if not argument.hidden]
        self._names = ", ".join(argument.name or argument.kind for argument in explicit) or "none"
        self._explicit = [
            (argument, f"kernel {kernel.name!r}, argument {index}" + (f" ({argument.name})" if argument.name else ""))
            for index, argument in enumerate(explicit)
        ]
        self._hidden = [(a, HIDDEN_VALUES[a.kind]) for a in arguments if a.kind in HIDDEN_VALUES]

    def pack(self, values: Sequence[object], shape: LaunchShape) -> Packed:
        """The kernarg segment of a launch.

        ``values`` are the explicit arguments in order: device memory or None for pointers, integers (for a pointer a
        raw device address), floats, NumPy scalars with the argument's size, bytes taken verbatim. For a local (LDS)
        pointer the integer is how many bytes to allocate. Raises InvalidArgument naming kernel and argument.
        """
        kernel = self._kernel
        if kernel.arguments is None:
            return Packed(_pack_unknown(kernel, values), shape.dynamic_lds_bytes)
        if len(values) != len(self._explicit):
            wanted = f"{len(self._explicit)} arguments ({self._names})"
            raise InvalidArgument(f"kernel {kernel.name!r} takes {wanted}, {len(values)} were given")
        segment = bytearray(kernel.kernarg_bytes)
        lds_end = kernel.descriptor.group_segment_bytes + shape.dynamic_lds_bytes
        for (argument, where), value in zip(self._explicit, values, strict=True):
            if argument.kind == LDS_POINTER_KIND:
                offset = -(-lds_end // max(argument.pointee_align, 1)) * max(argument.pointee_align, 1)
                lds_end = offset + _count_of_bytes(value, where)
                _put(segment, argument, offset)
                continue
            field = _pointer(value, where) if argument.kind in POINTER_KINDS else _by_value(argument, value, where)
            if len(field) != argument.size_bytes:
                raise InvalidArgument(f"{where} has {argument.size_bytes} bytes, {len(field)} were given")
            segment[argument.offset : argument.offset + len(field)] = field
        dynamic = lds_end - kernel.descriptor.group_segment_bytes
        if dynamic != shape.dynamic_lds_bytes:
            shape = replace(shape, dynamic_lds_bytes=dynamic)
        for argument, value_of in self._hidden:
            _put(segment, argument, value_of(shape))
        return Packed(bytes(segment), dynamic)


def _put(segment: bytearray, argument: Argument, value: int) -> None:
    if value >= 1 << 8 * argument.size_bytes:
        raise MalformedInput(f"argument {argument.kind} has {argument.size_bytes} bytes, too few for {value}")
    segment[argument.offset : argument.offset + argument.size_bytes] = value.to_bytes(argument.size_bytes, "little")


def _pointer(value: object, where: str) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if value is None:
        return bytes(POINTER_BYTES)
    if isinstance(value, DevicePointer):
        return value.va.to_bytes(POINTER_BYTES, "little")
    if isinstance(value, np.ndarray):
        raise InvalidArgument(f"{where} is a pointer; copy the array to the device first, with dev.array(...)")
    address = _index(value)
    if address is None:
        raise InvalidArgument(f"{where} is a pointer; {_shown(value)} is neither a buffer nor a device address")
    if not 0 <= address < 1 << 64:
        raise InvalidArgument(f"{where}: {address:#x} is not a device address")
    return address.to_bytes(POINTER_BYTES, "little")


def _by_value(argument: Argument, value: object, where: str) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, DevicePointer):
        if argument.size_bytes != POINTER_BYTES:
            raise InvalidArgument(f"{where} is passed by value in {argument.size_bytes} bytes and cannot be a buffer")
        return value.va.to_bytes(POINTER_BYTES, "little")
    if hasattr(value, "dtype"):
        return _numpy_scalar(argument, value, where)
    if isinstance(value, float):
        return _float(argument, value, where)
    number = _index(value)
    if number is None:
        raise InvalidArgument(f"{where}: {_shown(value)} is neither a number nor bytes")
    if FLOAT_TYPE.fullmatch(argument.type_name):
        return _float(argument, number, where)
    return _integer(number, argument.size_bytes, where)


def _numpy_scalar(argument: Argument, value: object, where: str) -> bytes:
    array = np.asarray(value)
    if array.ndim:
        raise InvalidArgument(f"{where} is passed by value; an array of shape {array.shape} is not a scalar")
    if array.dtype.hasobject:
        raise InvalidArgument(f"{where}: a NumPy object is not a number")
    if array.dtype.itemsize != argument.size_bytes:
        raise InvalidArgument(f"{where} has {argument.size_bytes} bytes, {array.dtype} has {array.dtype.itemsize}")
    wrong = INTEGER_TYPE.match if array.dtype.kind == "f" else FLOAT_TYPE.fullmatch
    if array.dtype.kind in "fiub" and wrong(argument.type_name):
        raise InvalidArgument(f"{where} is of type {argument.type_name}; {array.dtype} is not")
    return array.tobytes()


def _float(argument: Argument, value: float, where: str) -> bytes:
    if INTEGER_TYPE.match(argument.type_name):
        raise InvalidArgument(f"{where} is of type {argument.type_name}; {value!r} is a float")
    layout = FLOAT_FORMATS.get(argument.size_bytes)
    if layout is None:
        raise InvalidArgument(f"{where} has {argument.size_bytes} bytes; floats have 2, 4 or 8")
    try:
        return struct.pack(layout, value)
    except OverflowError:
        raise InvalidArgument(f"{where}: {value!r} is too large for a {argument.size_bytes * 8}-bit float") from None


def _integer(value: int, size_bytes: int, where: str) -> bytes:
    if size_bytes not in INTEGER_BYTES:
        raise InvalidArgument(f"{where} has {size_bytes} bytes; pass it as bytes")
    bits = 8 * size_bytes
    if not -(1 << bits - 1) <= value < 1 << bits:
        raise InvalidArgument(f"{where}: {value} fits neither a signed nor an unsigned {bits}-bit integer")
    return (value & (1 << bits) - 1).to_bytes(size_bytes, "little")


def _pack_unknown(kernel: KernelCode, values: Sequence[object]) -> bytes:
    """Arguments of a kernel without metadata: C layout, so each value must know its own size."""
    segment = bytearray()
    for index, value in enumerate(values):
        where = f"kernel {kernel.name!r} (no argument metadata), argument {index}"
        if isinstance(value, (bytes, bytearray, memoryview)):
            field, alignment = bytes(value), 1
        elif isinstance(value, DevicePointer):
            field, alignment = value.va.to_bytes(POINTER_BYTES, "little"), POINTER_BYTES
        elif isinstance(value, np.generic):
            field, alignment = value.tobytes(), value.dtype.alignment
        else:
            raise InvalidArgument(f"{where}: {_shown(value)} has no size; pass a NumPy scalar, a buffer or bytes")
        segment.extend(bytes(-len(segment) % alignment))
        segment.extend(field)
    if kernel.kernarg_bytes and len(segment) > kernel.kernarg_bytes:
        raise InvalidArgument(
            f"kernel {kernel.name!r} has {kernel.kernarg_bytes} bytes of arguments, {len(segment)} were given"
        )
    segment.extend(bytes(max(0, kernel.kernarg_bytes - len(segment))))
    return bytes(segment)


def _count_of_bytes(value: object, where: str) -> int:
    count = _index(value)
    if count is None or count < 0:
        raise InvalidArgument(f"{where} is a pointer into LDS; give how many bytes to allocate, not {_shown(value)}")
    return count


def _index(value: object) -> int | None:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text[:60]}… ({type(value).__name__})" if len(text) > 60 else f"{text} ({type(value).__name__})"
