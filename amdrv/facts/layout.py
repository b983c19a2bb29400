"""Byte layouts of structures shared with firmware: names, offsets and sizes, and the packing that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, SupportsIndex

from amdrv.errors import InvalidArgument, MalformedInput, NotFound

DWORD_BYTES = 4


class Member(NamedTuple):
    """One member: byte offset, bytes of one element, number of elements, two's complement or not. Little-endian."""

    offset: int
    size: int = DWORD_BYTES
    length: int = 1
    signed: bool = False


class StructLayout:
    """A structure of fixed size. Members may overlap, as those of a C union do."""

    __slots__ = ("members", "name", "size_bytes")

    def __init__(self, name: str, size_bytes: int, members: Mapping[str, Member]) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.members = members

    def member(self, name: str) -> Member:
        """The member ``name``; raises NotFound."""
        member = self.members.get(name)
        if member is None:
            raise NotFound(f"{self.name} has no member {name}")
        return member

    def offset(self, name: str) -> int:
        """Byte offset of a member; raises NotFound."""
        return self.member(name).offset

    def dword(self, name: str) -> int:
        """Dword index of a member; raises NotFound, InvalidArgument when it does not start at a dword."""
        offset = self.offset(name)
        if offset % DWORD_BYTES:
            raise InvalidArgument(f"{self.name}.{name} at byte {offset} does not start a dword")
        return offset // DWORD_BYTES

    def pack(self, **values: SupportsIndex | Sequence[int]) -> bytearray:
        """The structure with the named members set and every other byte zero.

        An array member takes a sequence no longer than its count. Raises NotFound for an unknown member,
        InvalidArgument for a value that does not fit.
        """
        data = bytearray(self.size_bytes)
        for name, value in values.items():
            self.put(data, name, value)
        return data

    def put(self, data: bytearray | memoryview, name: str, value: SupportsIndex | Sequence[int], at: int = 0) -> None:
        """Store one member into ``data``, where the structure starts at byte ``at``; raises as ``pack`` does."""
        member = self.member(name)
        elements = value if isinstance(value, Sequence) else (value,)
        if len(elements) > member.length:
            raise InvalidArgument(f"{self.name}.{name} holds {member.length} elements, not {len(elements)}")
        for i, element in enumerate(elements):
            start = at + member.offset + i * member.size
            try:
                raw = int(element).to_bytes(member.size, "little", signed=member.signed)
            except OverflowError:
                raise InvalidArgument(f"{self.name}.{name}: {element} does not fit {member.size} bytes") from None
            data[start : start + member.size] = raw

    def get(self, data: bytes | bytearray | memoryview, name: str, at: int = 0) -> int:
        """One scalar member (or the first element of an array); raises NotFound, MalformedInput when data ends."""
        return self._element(data, name, self.member(name), 0, at)

    def get_array(self, data: bytes | bytearray | memoryview, name: str, at: int = 0) -> tuple[int, ...]:
        """Every element of a member; raises NotFound, MalformedInput when data ends."""
        member = self.member(name)
        return tuple(self._element(data, name, member, i, at) for i in range(member.length))

    def unpack(self, data: bytes | bytearray | memoryview, at: int = 0) -> dict[str, int | tuple[int, ...]]:
        """Every member, arrays as tuples; raises MalformedInput when the data is shorter than the structure."""
        if len(data) < at + self.size_bytes:
            raise MalformedInput(f"{self.name} needs {self.size_bytes} bytes at {at}, the data ends at {len(data)}")
        return {
            name: self.get(data, name, at) if member.length == 1 else self.get_array(data, name, at)
            for name, member in self.members.items()
        }

    def _element(self, data: bytes | bytearray | memoryview, name: str, member: Member, i: int, at: int) -> int:
        start = at + member.offset + i * member.size
        raw = data[start : start + member.size]
        if len(raw) != member.size:
            raise MalformedInput(f"{self.name}.{name} lies at byte {start}, the data ends at {len(data)}")
        return int.from_bytes(raw, "little", signed=member.signed)

    def __repr__(self) -> str:
        return f"<StructLayout {self.name}: {self.size_bytes} bytes, {len(self.members)} members>"


def dword_members(places: Mapping[str, int]) -> dict[str, Member]:
    """Members of one dword each, from their dword indexes."""
    return {name: Member(index * DWORD_BYTES) for name, index in places.items()}
