"""The metadata note of a code object: what each kernel is called, needs and takes.

Source: LLVM AMDGPUUsage "Note Records" (NT_AMDGPU_METADATA) and "Code Object V3..V6 Metadata".
"""

from __future__ import annotations

import reprlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgpack

from amdrv.errors import MalformedInput

NOTE_OWNER = b"AMDGPU\0"
NOTE_TYPE_METADATA = 32
NOTE_HEADER = struct.Struct("<III")

T = TypeVar("T")
Map = dict[object, object]


@dataclass(frozen=True, slots=True)
class Argument:
    """One kernel argument as the compiler laid it out in the kernarg segment."""

    name: str  # "" when the compiler did not record one
    offset: int
    size_bytes: int
    kind: str  # .value_kind: "by_value", "global_buffer", "hidden_block_count_x", …
    type_name: str = ""  # .type_name, or the deprecated .value_type; "" in what LLVM emits today
    pointee_align: int = 1

    @property
    def hidden(self) -> bool:
        """Whether the runtime fills this argument, not the caller."""
        return self.kind.startswith("hidden_")


@dataclass(frozen=True, slots=True)
class KernelMetadata:
    """One entry of ``amdhsa.kernels``."""

    name: str
    symbol: str  # of the kernel descriptor
    arguments: tuple[Argument, ...]
    kernarg_bytes: int
    kernarg_align: int
    group_segment_bytes: int
    private_segment_bytes: int
    wavefront_size: int
    max_flat_workgroup_size: int
    reqd_workgroup_size: tuple[int, int, int] | None
    uses_dynamic_stack: bool


def find_notes(section: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """(owner, type, description) of each record of a note section. Raises MalformedInput when one is cut short."""
    position = 0
    while position < len(section):
        if position + NOTE_HEADER.size > len(section):
            raise MalformedInput("code object: note section ends inside a record header")
        owner_bytes, description_bytes, kind = NOTE_HEADER.unpack_from(section, position)
        owner_at = position + NOTE_HEADER.size
        description_at = owner_at + _align4(owner_bytes)
        position = description_at + _align4(description_bytes)
        if description_at + description_bytes > len(section):
            raise MalformedInput("code object: note section ends inside a record")
        owner = section[owner_at : owner_at + owner_bytes]
        yield owner, kind, section[description_at : description_at + description_bytes]


def read(notes: tuple[bytes, ...]) -> tuple[KernelMetadata, ...] | None:
    """Kernels described by the first metadata record in ``notes``, None when there is no such record."""
    for section in notes:
        for owner, kind, description in find_notes(section):
            if owner == NOTE_OWNER and kind == NOTE_TYPE_METADATA:
                return _kernels(description)
    return None


def _kernels(description: bytes) -> tuple[KernelMetadata, ...]:
    try:
        root = msgpack.unpackb(description, raw=False, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise MalformedInput(f"code object metadata: not MessagePack ({type(error).__name__}: {error})") from None
    where = "code object metadata"
    kernels = _list(_map(root, where), "amdhsa.kernels", where)
    return tuple(_kernel(_map(kernel, f"{where}: kernel {index}")) for index, kernel in enumerate(kernels))


def _kernel(entry: Map) -> KernelMetadata:
    name = _required(entry, ".name", str, "code object metadata: a kernel")
    where = f"code object metadata: kernel {name!r}"
    required_size = _list(entry, ".reqd_workgroup_size", where)
    arguments = tuple(_argument(_map(item, where), where) for item in _list(entry, ".args", where))
    kernarg_bytes = _count(entry, ".kernarg_segment_size", where, 0)
    for argument in arguments:
        if argument.offset + argument.size_bytes > kernarg_bytes:
            raise MalformedInput(
                f"{where}: argument {argument.name or argument.kind!r} at {argument.offset}+{argument.size_bytes} "
                f"is outside the {kernarg_bytes}-byte kernarg segment"
            )
    return KernelMetadata(
        name=name,
        symbol=_optional(entry, ".symbol", str, f"{name}.kd", where),
        arguments=arguments,
        kernarg_bytes=kernarg_bytes,
        kernarg_align=_count(entry, ".kernarg_segment_align", where, 8),
        group_segment_bytes=_count(entry, ".group_segment_fixed_size", where, 0),
        private_segment_bytes=_count(entry, ".private_segment_fixed_size", where, 0),
        wavefront_size=_count(entry, ".wavefront_size", where, 0),
        max_flat_workgroup_size=_count(entry, ".max_flat_workgroup_size", where, 1024),
        reqd_workgroup_size=_workgroup_size(required_size, where),
        uses_dynamic_stack=_optional(entry, ".uses_dynamic_stack", bool, False, where),
    )


def _argument(entry: Map, kernel: str) -> Argument:
    name = _optional(entry, ".name", str, "", kernel)
    where = f"{kernel}: argument {name!r}"
    type_name = _optional(entry, ".type_name", str, "", where) or _optional(entry, ".value_type", str, "", where)
    return Argument(
        name=name,
        offset=_count(entry, ".offset", where),
        size_bytes=_count(entry, ".size", where),
        kind=_required(entry, ".value_kind", str, where),
        type_name=type_name,
        pointee_align=_count(entry, ".pointee_align", where, 1),
    )


def _workgroup_size(sizes: list[object], where: str) -> tuple[int, int, int] | None:
    if not sizes:
        return None
    if len(sizes) != 3 or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise MalformedInput(f"{where}: .reqd_workgroup_size is {sizes!r}, not three counts")
    x, y, z = (size for size in sizes if isinstance(size, int))
    return (x, y, z) if any((x, y, z)) else None


def _align4(size: int) -> int:
    return (size + 3) & ~3


def _map(value: object, where: str) -> Map:
    if not isinstance(value, dict):
        raise MalformedInput(f"{where}: a {type(value).__name__} stands where a map should")
    return value


def _list(entry: Map, key: str, where: str) -> list[object]:
    return _optional(entry, key, list, [], where)


def _optional(entry: Map, key: str, kind: type[T], default: T, where: str) -> T:
    value = entry.get(key, default)
    # bool is an int to Python, but not to a metadata map
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise MalformedInput(f"{where}: {key} is {reprlib.repr(value)}, not {kind.__name__}")
    return value


def _required(entry: Map, key: str, kind: type[T], where: str) -> T:
    if key not in entry:
        raise MalformedInput(f"{where}: {key} is missing")
    value = entry[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise MalformedInput(f"{where}: {key} is {reprlib.repr(value)}, not {kind.__name__}")
    return value


def _count(entry: Map, key: str, where: str, default: int | None = None) -> int:
    value = _required(entry, key, int, where) if default is None else _optional(entry, key, int, default, where)
    if not 0 <= value < 1 << 32:
        raise MalformedInput(f"{where}: {key} is {value}, not a 32-bit count")
    return value
