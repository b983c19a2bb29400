"""Packets out of memory: where the next header is, and what it says.

Header layout: Linux 6.12 amdgpu/nvd.h (PACKET3, CP_PACKET_GET_*).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from amdrv.facts.pm4 import HEADER, NOP_ONE_DWORD, TYPE2_FILLER

TYPE, OPCODE, COUNT = (HEADER.fields[name] for name in ("TYPE", "OPCODE", "COUNT"))
FETCH_BYTES = 4096  # no further than to the end of this page: the next may not be mapped


class BadPacket(Exception):
    """The stream holds something that is no packet, or a packet that this engine does not know."""

    def __init__(self, word: int, reason: str) -> None:
        super().__init__(f"PM4 header {word:#010x}: {reason}")
        self.word = word


class PrivilegedRegister(BadPacket):
    """A packet of an unprivileged queue names a register that is not for it."""


class Reader(Protocol):
    """Where bytes come from: a hub's view under the queue's VMID."""

    def read(self, va: int, size_bytes: int) -> bytes:
        """Bytes at ``va``."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One type-3 packet."""

    header: int
    opcode: int
    body: tuple[int, ...]
    dwords: int  # header and body


class Ring:
    """A ring of ``size_dwords`` (a power of two) at ``va``; positions count on without wrapping."""

    def __init__(self, reader: Reader, va: int, size_dwords: int) -> None:
        self._reader = reader
        self._va = va
        self._size = size_dwords
        self._first, self._fetched = 0, tuple[int, ...]()  # position, and dwords that are in hand from there on

    def words(self, position: int, count: int) -> tuple[int, ...]:
        """``count`` dwords from ``position``, around the end, as memory has them now; so has what is fetched next."""
        self._fetched = ()
        return self._read(position, count)

    def published(self, position: int, count: int, end: int) -> tuple[int, ...]:
        """As ``words``, out of what was fetched ahead, but never from ``end`` on, where nothing is to be seen yet."""
        start = position - self._first
        if start < 0 or start + count > len(self._fetched):
            page_rest = -(self._va + 4 * (position % self._size)) % FETCH_BYTES // 4 or FETCH_BYTES // 4
            self._first, start = position, 0
            self._fetched = self._read(position, max(count, min(end - position, page_rest)))
        return self._fetched[start : start + count]

    def _read(self, position: int, count: int) -> tuple[int, ...]:
        start = position % self._size
        first = min(count, self._size - start)
        data = self._reader.read(self._va + 4 * start, 4 * first)
        if first < count:
            data += self._reader.read(self._va, 4 * (count - first))
        return struct.unpack(f"<{count}I", data)


def packet_at(ring: Ring, position: int, end: int) -> Packet | None:
    """The packet at ``position``; None for a one-dword filler. Raises BadPacket, also when it runs past ``end``."""
    (header,) = ring.published(position, 1, end)
    if header in (TYPE2_FILLER, NOP_ONE_DWORD):
        return None
    if TYPE.get(header) != 3:
        raise BadPacket(header, f"type {TYPE.get(header)} packets do not exist on this engine")
    count = COUNT.get(header) + 1
    if position + 1 + count > end:
        raise BadPacket(header, f"its body of {count} dwords runs past the end of the stream")
    return Packet(header, OPCODE.get(header), ring.published(position + 1, count, end), count + 1)


def linear(words: tuple[int, ...]) -> Iterator[Packet]:
    """Packets of a buffer that is in hand already (for traces and tests). Raises BadPacket."""
    position = 0
    while position < len(words):
        header = words[position]
        if header in (TYPE2_FILLER, NOP_ONE_DWORD):
            position += 1
            continue
        count = COUNT.get(header) + 1
        if TYPE.get(header) != 3 or position + 1 + count > len(words):
            raise BadPacket(header, "not a packet")
        yield Packet(header, OPCODE.get(header), words[position + 1 : position + 1 + count], count + 1)
        position += count + 1
