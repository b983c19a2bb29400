"""The vector memory path: many addresses to bytes of the arena, in one translation and one gather an instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.dispatch import Access, MemoryViolation, ShaderMemory

Addresses = NDArray[np.uint64]
Indices = NDArray[np.int64]
Bits = NDArray[np.uint32]

PAGE_SHIFT = 12  # the smallest page of the VM; larger ones only make more pages contiguous
PAGE_MASK = (1 << PAGE_SHIFT) - 1
DIRECT = 48  # so few addresses are translated as they are


class AddressFault(Exception):
    """One of the addresses of an access cannot be reached; ``position`` is its place in the flattened access."""

    def __init__(self, position: int, va: int, access: Access, reason: str) -> None:
        super().__init__(f"{access.name.lower()} of {va:#x}: {reason}")
        self.position, self.va, self.access, self.reason = position, va, access, reason


def octets_of(data: list[Bits]) -> list[NDArray[np.uint8]]:
    """The bytes of each element's dwords, lowest first: an array for each byte of the element."""
    return [(value >> np.uint32(shift)).astype(np.uint8) for value in data for shift in (0, 8, 16, 24)]


def put_in_order(memory: NDArray[Any], indices: list[Indices], parts: Sequence[NDArray[Any]]) -> None:
    """Store elements whose parts go to ``indices`` of their own, one whole element after the other."""
    if len(indices) == 1:
        memory[indices[0]] = parts[0]
    else:
        memory[np.stack(indices, axis=1).reshape(-1)] = np.stack(parts, axis=1).reshape(-1)


class MemoryPath:
    """Reads and writes virtual memory at arrays of addresses.

    ``words[n]`` is the arena as unsigned integers of n bytes (1, 2, 4, 8), for naturally aligned indices.
    """

    def __init__(self, memory: ShaderMemory) -> None:
        self._memory = memory
        arena = memory.arena
        whole = arena[: len(arena) & ~7]
        self.words: dict[int, NDArray[Any]] = {
            1: arena,
            2: whole.view(np.uint16),
            4: whole.view(np.uint32),
            8: whole.view(np.uint64),
        }

    def resolve(self, va: Addresses, access: Access) -> Indices:
        """Arena index of each address of a one-dimensional array; raises AddressFault.

        Only pages that an address touches are translated, each once.
        """
        if len(va) <= DIRECT:
            return self._translate(va, va, access)
        page = va >> np.uint64(PAGE_SHIFT)
        starts = np.flatnonzero(page[1:] != page[:-1]) + 1
        if not len(starts):
            return self._shifted(va, self._deltas(va[:1], va, access)[0])
        if len(starts) * 8 > len(va):
            return self._resolve_scattered(va, page, access)
        starts = np.concatenate((np.zeros(1, np.int64), starts))
        deltas = self._deltas(va[starts], va, access)
        if (deltas == deltas[0]).all():
            return self._shifted(va, deltas[0])
        return self._shifted(va, np.repeat(deltas, np.diff(starts, append=len(va))))

    def _resolve_scattered(self, va: Addresses, page: Addresses, access: Access) -> Indices:
        """For addresses that hop between pages: a table of the pages in their range, if it is not too sparse."""
        first = page.min()
        slots = (page - first).view(np.int64)
        span = int(slots.max()) + 1
        if span > 4 * len(va):
            return self._translate(va, va, access)
        touched = np.zeros(span, np.bool_)
        touched[slots] = True
        pages = np.flatnonzero(touched)
        table = np.zeros(span, np.uint64)
        table[pages] = self._deltas((pages.view(np.uint64) + first) << np.uint64(PAGE_SHIFT), va, access)
        return self._shifted(va, table.take(slots))

    def _deltas(self, asked: Addresses, va: Addresses, access: Access) -> Addresses:
        """What to add to an address to get its arena index, modulo 2**64."""
        deltas: Addresses = self._translate(asked, va, access).view(np.uint64) - asked
        return deltas

    @staticmethod
    def _shifted(va: Addresses, delta: Addresses | np.uint64) -> Indices:
        indices: Indices = (va + delta).view(np.int64)
        return indices

    def _translate(self, asked: Addresses, va: Addresses, access: Access) -> Indices:
        try:
            return self._memory.translate(asked, access)
        except MemoryViolation as violation:
            page = violation.va >> PAGE_SHIFT
            exact = np.flatnonzero(va == np.uint64(violation.va))
            hits = exact if len(exact) else np.flatnonzero(va >> np.uint64(PAGE_SHIFT) == np.uint64(page))
            position = int(hits[0]) if len(hits) else 0
            address = int(va[position]) if len(hits) else violation.va
            raise AddressFault(position, address, access, violation.reason) from violation

    def load(self, va: Addresses, size_bytes: int) -> list[Bits]:
        """The ``size_bytes`` (1, 2, or a multiple of 4) at each address as dwords; parts of one are zero-extended."""
        if size_bytes < 4:
            return [self._load_part(va, size_bytes)]
        indices = self._dword_indices(va, size_bytes, Access.READ)
        if indices is None:
            return [self._load_unaligned(va + np.uint64(4 * dword)) for dword in range(size_bytes // 4)]
        dwords = self.words[4]
        return [dwords.take(index) for index in indices]

    def store(self, va: Addresses, data: list[Bits], size_bytes: int) -> None:
        """Write ``size_bytes`` (1, 2, or a multiple of 4) from dwords, one address after the other.

        Where elements overlap, be it in part, the later one stays. Every address is translated before the first byte
        changes.
        """
        if size_bytes < 4:
            self._store_part(va, data[0], size_bytes)
            return
        indices = self._dword_indices(va, size_bytes, Access.WRITE)
        if indices is None:
            self._store_unaligned(va, data)
            return
        put_in_order(self.words[4], indices, data)

    def _dword_indices(self, va: Addresses, size_bytes: int, access: Access) -> list[Indices] | None:
        """Indices into the dword arena of each dword of the access, or None when an address is not dword aligned."""
        misaligned = int(np.bitwise_or.reduce(va))
        if misaligned & 3:
            return None
        count = size_bytes // 4
        natural = size_bytes - 1 if count != 3 else 15
        crossing = misaligned & natural and bool(((va & np.uint64(PAGE_MASK)) > PAGE_MASK + 1 - size_bytes).any())
        if crossing:
            return [self.resolve(va + np.uint64(4 * dword), access) >> 2 for dword in range(count)]
        first = self.resolve(va, access) >> 2
        return [first, *(first + dword for dword in range(1, count))]

    def _byte_indices(self, va: Addresses, size_bytes: int, access: Access) -> list[Indices]:
        if bool(((va & np.uint64(PAGE_MASK)) > PAGE_MASK + 1 - size_bytes).any()):
            return [self.resolve(va + np.uint64(byte), access) for byte in range(size_bytes)]
        first = self.resolve(va, access)
        return [first + byte for byte in range(size_bytes)]

    def _load_part(self, va: Addresses, size_bytes: int) -> Bits:
        if size_bytes == 2 and int(np.bitwise_or.reduce(va)) & 1:
            low, high = (self.words[1].take(index) for index in self._byte_indices(va, 2, Access.READ))
            return low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(8)
        index = self.resolve(va, Access.READ) >> (size_bytes - 1)
        return self.words[size_bytes].take(index).astype(np.uint32)

    def _load_unaligned(self, va: Addresses) -> Bits:
        octets = np.empty((len(va), 4), np.uint8)
        for byte, index in enumerate(self._byte_indices(va, 4, Access.READ)):
            octets[:, byte] = self.words[1].take(index)
        return octets.view(np.uint32)[:, 0]

    def _store_part(self, va: Addresses, value: Bits, size_bytes: int) -> None:
        if size_bytes == 2 and int(np.bitwise_or.reduce(va)) & 1:
            put_in_order(self.words[1], self._byte_indices(va, 2, Access.WRITE), octets_of([value])[:2])
            return
        index = self.resolve(va, Access.WRITE) >> (size_bytes - 1)
        self.words[size_bytes][index] = value.astype(np.uint8 if size_bytes == 1 else np.uint16)

    def _store_unaligned(self, va: Addresses, data: list[Bits]) -> None:
        targets = [self._byte_indices(va + np.uint64(4 * dword), 4, Access.WRITE) for dword in range(len(data))]
        put_in_order(self.words[1], [index for indices in targets for index in indices], octets_of(data))
