"""Registers of many waves at once, and the groups of waves that execute together.

Every register is a row over all resident waves, so that one NumPy operation executes an instruction for a whole group.
A group is a *contiguous* range of waves at one program counter: its registers are views, never copies. When a scalar
branch divides a group, the waves that stand on the wrong side change places (``WaveState.rearrange``); the order of
waves inside the arrays therefore means nothing, and everything that identifies a wave travels with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from amdrv.emulator.isa.machine import Machine

Bits = NDArray[np.uint32]
Flags = NDArray[np.bool_]
Array = NDArray[Any]

# Scalar operand codes 0..127 are stored in pairs, so that an aligned 64-bit pair is one uint64 and needs no assembly.
SCALAR_PAIRS = 64
VCC_LO, NULL, M0, EXEC_LO, EXEC_HI = 106, 124, 125, 126, 127

DTYPES: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(name) for name in ("u4", "i4", "f4", "u2", "i2", "f2", "u8", "i8", "f8")
)
_DTYPE_NUMBER = {dtype: number for number, dtype in enumerate(DTYPES)}
_VECTOR = 1 << 9


def view_key(vector: bool, index: int, dtype: np.dtype[Any], half: int = 0) -> int:
    """A small integer that names a typed view of a register row (see ``Views``); cheap to hash.

    ``half`` selects the upper 16 bits for the two-byte types. A scalar of an eight-byte type is the aligned pair.
    """
    return index | (_VECTOR if vector else 0) | half << 10 | _DTYPE_NUMBER[dtype] << 11


U32, I32, F32, U16, I16, F16, U64, I64, F64 = DTYPES
EXEC32 = view_key(False, EXEC_LO, U32)
EXEC64 = view_key(False, EXEC_LO, U64)
VCC32 = view_key(False, VCC_LO, U32)
VCC64 = view_key(False, VCC_LO, U64)
M0_KEY = view_key(False, M0, U32)


class WaveState:
    """Register files of ``waves`` resident waves.

    ``vgpr`` is uint32[registers, waves, lanes]; ``sgpr`` is uint32[64, waves, 2], row and last index being the scalar
    operand code divided by two and its remainder (SGPRs, VCC, trap temporaries, M0, EXEC); ``scc`` is bool[waves, 1].
    The rest identifies a wave: its workgroup's slot and id, its number in the workgroup, its place in LDS and scratch.
    """

    def __init__(self, waves: int, vgprs: int, lanes: int) -> None:
        self.waves = waves
        self.lanes = lanes
        self.vgpr: Bits = np.zeros((vgprs, waves, lanes), np.uint32)
        self.used = 1  # VGPRs that code seen so far can have written
        self.sgpr: Bits = np.zeros((SCALAR_PAIRS, waves, 2), np.uint32)
        self.scc: Flags = np.zeros((waves, 1), np.bool_)
        self.slot: NDArray[np.int64] = np.zeros(waves, np.int64)
        self.workgroup: NDArray[np.int64] = np.zeros((waves, 3), np.int64)
        self.number: NDArray[np.int64] = np.zeros(waves, np.int64)
        self.lds_base: NDArray[np.int64] = np.zeros((waves, 1), np.int64)
        self.scratch_base: NDArray[np.uint64] = np.zeros((waves, 1), np.uint64)
        self.barrier_complete: Flags = np.zeros(waves, np.bool_)  # the next wait at a split barrier goes on

    def rearrange(self, to: NDArray[np.int64], source: NDArray[np.int64]) -> None:
        """Wave ``source[i]`` moves to position ``to[i]``; both hold the same set of positions."""
        # A wave's lanes of a register move as one element.
        rows = self.vgpr[: self.used].view(np.dtype((np.void, 4 * self.lanes)))[:, :, 0]
        rows[:, to] = rows[:, source]
        self.sgpr[:, to] = self.sgpr[:, source]
        identity = (self.slot, self.workgroup, self.number, self.lds_base, self.scratch_base)
        for row in (self.scc, self.barrier_complete, *identity):
            row[to] = row[source]

    def row(self, key: int, start: int, stop: int) -> Array:
        """The typed view that ``key`` names, for waves ``start`` to ``stop``: (waves, lanes) or (waves, 1)."""
        dtype = DTYPES[key >> 11]
        half = key >> 10 & 1
        if not key & _VECTOR:
            index = key & 0x7F
            row = self.sgpr[index >> 1, start:stop]
            if dtype.itemsize == 8:
                return row.view(dtype)
            column = index & 1 if dtype.itemsize == 4 else (index & 1) * 2 + half
            return row.view(dtype)[:, column : column + 1]
        register = self.vgpr[key & 0xFF, start:stop]
        return register.view(dtype) if dtype.itemsize == 4 else register.view(dtype)[:, half::2]


class Views(dict[int, Array]):
    """Typed views of one group's registers, made on first use."""

    __slots__ = ("_start", "_state", "_stop")

    def __init__(self, state: WaveState, start: int, stop: int) -> None:
        super().__init__()
        self._state, self._start, self._stop = state, start, stop

    def __missing__(self, key: int) -> Array:
        view = self[key] = self._state.row(key, self._start, self._stop)
        return view


def pack_lanes(flags: Array) -> Array:
    """Truth values per lane (waves, 32 or 64) to one mask per wave: uint32 or uint64 of shape (waves, 1)."""
    packed = np.packbits(flags, axis=1, bitorder="little")
    return packed.view(np.uint32 if packed.shape[1] == 4 else np.uint64)


def unpack_lanes(masks: Array) -> Flags:
    """One mask per wave, shape (waves, 1), to truth values per lane."""
    octets = np.ascontiguousarray(masks).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little").view(np.bool_)


class Group:
    """Waves ``start`` to ``stop`` of the state, all at ``pc`` with the same MODE register.

    ``full`` says that EXEC is all ones in every wave; otherwise ``active`` holds it per lane. Whoever writes EXEC sets
    ``stale``; whoever needs the mask calls ``refresh`` when it is set.
    """

    __slots__ = (
        "_bits",
        "_positions",
        "_whole",
        "active",
        "blocked",
        "count",
        "full",
        "machine",
        "mode",
        "pc",
        "scc",
        "spent",
        "stale",
        "start",
        "state",
        "stop",
        "views",
    )

    def __init__(self, machine: Machine, start: int, stop: int, pc: int, mode: int) -> None:
        self.machine = machine
        self.state = machine.state
        self.pc, self.mode = pc, mode
        self.blocked = False  # at a barrier
        self.spent = 0  # scheduling weight used since the last rotation
        self.place(start, stop)

    def place(self, start: int, stop: int) -> None:
        """Stand for the waves ``start`` to ``stop`` from now on."""
        self.start, self.stop, self.count = start, stop, stop - start
        self.views = Views(self.state, start, stop)
        self.scc: Flags = self.state.scc[start:stop]
        self.stale = True
        self.full = False
        self.active: Flags = np.empty((0, 0), np.bool_)
        self._bits: Bits | None = None
        self._positions: NDArray[np.int64] | None = None
        self._whole: NDArray[np.int64] | None = None

    def refresh(self) -> None:
        """Bring ``full`` and ``active`` up to date with EXEC."""
        masks = self.views[EXEC32 if self.state.lanes == 32 else EXEC64]
        self.stale = False
        self._bits = self._positions = None
        self.full = bool((masks == np.iinfo(masks.dtype).max).all())
        if not self.full:
            self.active = unpack_lanes(masks)

    def lane_mask(self) -> Flags | None:
        """EXEC as truth values (waves, lanes), or None when every lane is active."""
        if self.stale:
            self.refresh()
        return None if self.full else self.active

    def lane_bits(self) -> Bits:
        """EXEC of a group that is not full as 0 or 0xFFFFFFFF per lane."""
        if self._bits is None:
            self._bits = np.negative(self.active.view(np.uint8).astype(np.uint32))
        return self._bits

    def active_lanes(self) -> NDArray[np.int64]:
        """Flat numbers (wave * lanes + lane) of the active lanes, in order."""
        if self.stale:
            self.refresh()
        if self.full:
            if self._whole is None:
                self._whole = np.arange(self.count * self.state.lanes)
            return self._whole
        if self._positions is None:
            self._positions = np.flatnonzero(self.active)
        return self._positions

    def pick(self, row: Array, lanes: NDArray[np.int64]) -> Array:
        """A flat array of a row's values (waves or 1, lanes or 1) in the ``active_lanes``."""
        shape = (self.count, self.state.lanes)
        if row.shape != shape:
            row = np.broadcast_to(row, shape)
        flat = row.reshape(-1)
        return flat if self.full else flat.take(lanes)

    def write_vector(self, key: int, value: Array) -> None:
        """Store 32-bit lanes into the row ``key`` (of type uint32) under EXEC; ``value`` broadcasts."""
        if self.stale:
            self.refresh()
        row = self.views[key]
        if self.full:
            row[...] = value
        else:
            change = np.bitwise_xor(row, value)
            np.bitwise_and(change, self.lane_bits(), out=change)
            np.bitwise_xor(row, change, out=row)

    def write_scalar(self, index: int, value: Array) -> None:
        """Store 32 bits per wave into scalar register ``index``; a write to NULL is dropped."""
        if index == NULL:
            return
        self.views[view_key(False, index, U32)][...] = value
        if index >= EXEC_LO:
            self.stale = True
