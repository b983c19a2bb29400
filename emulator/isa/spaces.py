"""Address spaces: where a vector memory instruction's lanes reach, and how.

A space loads, stores and updates the memory of some lanes of a group. ``lanes`` are flat numbers (wave * lanes + lane
within the group) and ``address`` is one address for each of them: virtual in ``GlobalSpace``, a byte offset into the
workgroup's LDS in ``LdsSpace``, into the lane's private memory in ``ScratchSpace``.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.atomics import AtomicOp, dtype_of, perform
from amdrv.emulator.isa.dispatch import Access
from amdrv.emulator.isa.memory_path import AddressFault, octets_of, put_in_order
from amdrv.emulator.isa.wave import Array, Group

Bits = NDArray[np.uint32]
Addresses = NDArray[np.uint64]
Lanes = NDArray[np.int64]
_SHIFT = {1: 0, 2: 1, 4: 2, 8: 3}


class LaneFault(Exception):
    """An access of one lane cannot be done; ``lane`` is its flat number in the group."""

    def __init__(self, kind: str, detail: str, lane: int, va: int | None = None, access: Access | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.lane, self.va, self.access = kind, detail, lane, va, access


def memory_violation(fault: AddressFault, lanes: Lanes) -> LaneFault:
    """The fault of a lane from the fault of an address among those of ``lanes``."""
    return LaneFault("memory violation", str(fault), int(lanes[fault.position]), fault.va, fault.access)


def check_alignment(lanes: Lanes, address: Addresses, size_bytes: int, access: Access) -> None:
    """Atomics must be naturally aligned; raises LaneFault for the first lane that is not."""
    low = np.uint64(size_bytes - 1)
    if int(np.bitwise_or.reduce(address)) & (size_bytes - 1):
        position = int(np.flatnonzero(address & low)[0])
        va = int(address[position])
        detail = f"atomic of {size_bytes} bytes at {va:#x}"
        raise LaneFault("misaligned access", detail, int(lanes[position]), va, access)


def _per_lane(group: Group, per_wave: NDArray[Any], lanes: Lanes, value: NDArray[Any]) -> NDArray[Any]:
    """A value of the wave that each of ``lanes`` belongs to, plus one of the lane."""
    row = per_wave[group.start : group.stop]
    result: NDArray[Any]
    if group.full:
        result = (value.reshape(group.count, -1) + row).reshape(-1)
    else:
        result = value + row[:, 0].take(lanes // group.state.lanes)
    return result


class Space(Protocol):
    """One address space; every method may raise LaneFault."""

    def load(self, group: Group, lanes: Lanes, address: Addresses, size_bytes: int) -> list[Bits]:
        """Dwords of each lane; 1 or 2 bytes are zero-extended."""

    def store(self, group: Group, lanes: Lanes, address: Addresses, data: list[Bits], size_bytes: int) -> None:
        """Write each lane's dwords, or their low 1 or 2 bytes."""

    def atomic(
        self,
        group: Group,
        lanes: Lanes,
        address: Addresses,
        op: AtomicOp,
        operands: tuple[Array, Array],
        want_old: bool,
    ) -> Array | None:
        """Read, modify and write; the operands have the operation's dtype, and so has what is returned."""


class GlobalSpace:
    """Virtual memory."""

    def load(self, group: Group, lanes: Lanes, address: Addresses, size_bytes: int) -> list[Bits]:
        try:
            return group.machine.memory.load(address, size_bytes)
        except AddressFault as fault:
            raise memory_violation(fault, lanes) from fault

    def store(self, group: Group, lanes: Lanes, address: Addresses, data: list[Bits], size_bytes: int) -> None:
        try:
            group.machine.memory.store(address, data, size_bytes)
        except AddressFault as fault:
            raise memory_violation(fault, lanes) from fault

    def atomic(
        self,
        group: Group,
        lanes: Lanes,
        address: Addresses,
        op: AtomicOp,
        operands: tuple[Array, Array],
        want_old: bool,
    ) -> Array | None:
        size_bytes = operands[0].itemsize
        check_alignment(lanes, address, size_bytes, Access.WRITE)
        memory = group.machine.memory
        try:
            index = memory.resolve(address, Access.WRITE) >> _SHIFT[size_bytes]
        except AddressFault as fault:
            raise memory_violation(fault, lanes) from fault
        return perform(op, memory.words[size_bytes].view(dtype_of(op, size_bytes)), index, *operands, want_old)


class LdsSpace:
    """The workgroup's LDS: beyond its end loads give zero and stores do nothing (ISA manual, "LDS out of range")."""

    def _index(self, group: Group, lanes: Lanes, address: Addresses, size_bytes: int) -> tuple[Lanes, bool]:
        """Byte index into all workgroups' LDS, and whether some lanes are out of range and were led astray."""
        machine = group.machine
        index = (_per_lane(group, group.state.lds_base, lanes, address.view(np.int64))).reshape(-1)
        limit = machine.launch.lds_bytes - size_bytes
        if int(address.max()) <= limit:
            return index, False
        return np.where(address.view(np.int64) <= limit, index, machine.lds.stray), True

    def load(self, group: Group, lanes: Lanes, address: Addresses, size_bytes: int) -> list[Bits]:
        index, _ = self._index(group, lanes, address, size_bytes)
        words = group.machine.lds.words
        misaligned = int(np.bitwise_or.reduce(index))
        if size_bytes < 4 and not misaligned & (size_bytes - 1):
            return [words[size_bytes].take(index >> _SHIFT[size_bytes]).astype(np.uint32)]
        if size_bytes >= 4 and not misaligned & 3:
            first = index >> 2
            return [words[4].take(first + dword) for dword in range(size_bytes // 4)]
        octets = np.zeros((len(index), -(-size_bytes // 4) * 4), np.uint8)
        for byte in range(size_bytes):
            octets[:, byte] = words[1].take(index + byte)
        return list(octets.view(np.uint32).T)

    def store(self, group: Group, lanes: Lanes, address: Addresses, data: list[Bits], size_bytes: int) -> None:
        index, astray = self._index(group, lanes, address, size_bytes)
        lds = group.machine.lds
        misaligned = int(np.bitwise_or.reduce(index))
        if size_bytes < 4 and not misaligned & (size_bytes - 1):
            word = np.uint8 if size_bytes == 1 else np.uint16
            lds.words[size_bytes][index >> _SHIFT[size_bytes]] = data[0].astype(word)
        elif size_bytes >= 4 and not misaligned & 3:
            first = index >> 2
            put_in_order(lds.words[4], [first + dword for dword in range(len(data))], data)
        else:
            put_in_order(lds.words[1], [index + byte for byte in range(size_bytes)], octets_of(data)[:size_bytes])
        if astray:
            lds.clear_stray()

    def atomic(
        self,
        group: Group,
        lanes: Lanes,
        address: Addresses,
        op: AtomicOp,
        operands: tuple[Array, Array],
        want_old: bool,
    ) -> Array | None:
        size_bytes = operands[0].itemsize
        check_alignment(lanes, address, size_bytes, Access.WRITE)
        index, astray = self._index(group, lanes, address, size_bytes)
        lds = group.machine.lds
        memory = lds.words[size_bytes].view(dtype_of(op, size_bytes))
        old = perform(op, memory, index >> _SHIFT[size_bytes], *operands, want_old)
        if astray:
            lds.clear_stray()
            if old is not None:
                old[index == lds.stray] = 0
        return old


class ScratchSpace:
    """A lane's private memory: the dwords of a wave's lanes alternate (ISA manual, "Scratch address swizzle")."""

    def __init__(self, memory: Space) -> None:
        self._memory = memory

    def _swizzle(
        self, group: Group, lanes: Lanes, address: Addresses, size_bytes: int, access: Access
    ) -> tuple[Addresses, Addresses]:
        """(base of the lane's dwords, offset) with bounds checked."""
        machine = group.machine
        limit = machine.launch.scratch_wave_bytes // group.state.lanes - size_bytes
        if limit < 0 or int(address.max()) > limit:
            position = int(np.flatnonzero(address.view(np.int64) > limit)[0])
            offset = int(address[position])
            lane = int(lanes[position])
            bounds = f"of which there are {limit + size_bytes} bytes"
            detail = f"{access.name.lower()} of private memory at {offset:#x}, {bounds}"
            raise LaneFault("memory violation", detail, lane, machine.launch.dispatch.private_base | offset, access)
        own = (lanes % group.state.lanes).view(np.uint64) << np.uint64(2)
        return _per_lane(group, group.state.scratch_base, lanes, own), address

    def _pieces(self, group: Group, base: Addresses, offset: Addresses, size_bytes: int) -> list[tuple[Addresses, int]]:
        """Virtual addresses and sizes of the pieces of an access that stay within a dword."""
        stride = np.uint64(group.state.lanes.bit_length() - 1)
        misaligned = int(np.bitwise_or.reduce(offset)) & (min(size_bytes, 4) - 1)
        step = 1 if misaligned else min(size_bytes, 4)
        pieces = []
        for byte in range(0, size_bytes, step):
            at = offset + np.uint64(byte)
            low = at & np.uint64(3)
            pieces.append((base + ((at - low) << stride) + low, step))
        return pieces

    def load(self, group: Group, lanes: Lanes, address: Addresses, size_bytes: int) -> list[Bits]:
        base, offset = self._swizzle(group, lanes, address, size_bytes, Access.READ)
        pieces = self._pieces(group, base, offset, size_bytes)
        loaded = [self._memory.load(group, lanes, va, step)[0] for va, step in pieces]
        if pieces[0][1] != 1 or size_bytes == 1:
            return loaded
        result = [np.zeros(len(lanes), np.uint32) for _ in range(-(-size_bytes // 4))]
        for byte, value in enumerate(loaded):
            result[byte >> 2] |= value << np.uint32(8 * (byte & 3))
        return result

    def store(self, group: Group, lanes: Lanes, address: Addresses, data: list[Bits], size_bytes: int) -> None:
        base, offset = self._swizzle(group, lanes, address, size_bytes, Access.WRITE)
        at = 0
        for va, step in self._pieces(group, base, offset, size_bytes):
            value = data[at >> 2] >> np.uint32(8 * (at & 3)) if at & 3 else data[at >> 2]
            self._memory.store(group, lanes, va, [value], step)
            at += step

    def atomic(
        self,
        group: Group,
        lanes: Lanes,
        address: Addresses,
        op: AtomicOp,
        operands: tuple[Array, Array],
        want_old: bool,
    ) -> Array | None:
        size_bytes = operands[0].itemsize
        if size_bytes > 4:
            detail = "64-bit atomic on private memory, whose dwords are not adjacent"
            raise LaneFault("memory violation", detail, int(lanes[0]), access=Access.WRITE)
        base, offset = self._swizzle(group, lanes, address, size_bytes, Access.WRITE)
        check_alignment(lanes, offset, size_bytes, Access.WRITE)
        va = base + (offset << np.uint64(group.state.lanes.bit_length() - 1))
        return self._memory.atomic(group, lanes, va, op, operands, want_old)


class FlatSpace:
    """Virtual memory with windows onto LDS and private memory (SH_MEM_BASES)."""

    def __init__(self, memory: Space, lds: Space, scratch: Space) -> None:
        self._memory, self._lds, self._scratch = memory, lds, scratch

    def _parts(self, group: Group, address: Addresses) -> list[tuple[Space, NDArray[np.bool_] | None, bool]]:
        """(space, which lanes, whether the address is an offset); None for all lanes."""
        dispatch = group.machine.launch.dispatch
        high = address >> np.uint64(32)
        parts: list[tuple[Space, NDArray[np.bool_] | None, bool]] = []
        rest: NDArray[np.bool_] | None = None
        for base, space in ((dispatch.shared_base, self._lds), (dispatch.private_base, self._scratch)):
            if not base:
                continue
            inside = high == np.uint64(base >> 32)
            if inside.any():
                parts.append((space, inside, True))
                rest = ~inside if rest is None else rest & ~inside
        if rest is None:
            return [(self._memory, None, False)]
        if rest.any():
            parts.append((self._memory, rest, False))
        return parts

    def load(self, group: Group, lanes: Lanes, address: Addresses, size_bytes: int) -> list[Bits]:
        parts = self._parts(group, address)
        if parts[0][1] is None:
            return self._memory.load(group, lanes, address, size_bytes)
        result = [np.zeros(len(lanes), np.uint32) for _ in range(-(-size_bytes // 4))]
        for space, inside, is_offset in parts:
            at = address[inside]
            part = space.load(group, lanes[inside], at & np.uint64(0xFFFF_FFFF) if is_offset else at, size_bytes)
            for row, value in zip(result, part, strict=True):
                row[inside] = value
        return result

    def store(self, group: Group, lanes: Lanes, address: Addresses, data: list[Bits], size_bytes: int) -> None:
        for space, inside, is_offset in self._parts(group, address):
            if inside is None:
                space.store(group, lanes, address, data, size_bytes)
                continue
            at = address[inside]
            at = at & np.uint64(0xFFFF_FFFF) if is_offset else at
            space.store(group, lanes[inside], at, [value[inside] for value in data], size_bytes)

    def atomic(
        self,
        group: Group,
        lanes: Lanes,
        address: Addresses,
        op: AtomicOp,
        operands: tuple[Array, Array],
        want_old: bool,
    ) -> Array | None:
        old = np.zeros_like(operands[0])
        for space, inside, is_offset in self._parts(group, address):
            if inside is None:
                return space.atomic(group, lanes, address, op, operands, want_old)
            at = address[inside]
            at = at & np.uint64(0xFFFF_FFFF) if is_offset else at
            found = space.atomic(group, lanes[inside], at, op, (operands[0][inside], operands[1][inside]), want_old)
            if found is not None:
                old[inside] = found
        return old


GLOBAL: Space = GlobalSpace()
LDS: Space = LdsSpace()
SCRATCH: Space = ScratchSpace(GLOBAL)
FLAT: Space = FlatSpace(GLOBAL, LDS, SCRATCH)
