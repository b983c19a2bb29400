"""Instructions that name a lane or a register by number: lane reads and writes, row permutations, relative moves.

Rules: RDNA3 ISA manual, pseudo code of V_READLANE_B32, V_PERMLANE16_B32, V_MOVRELS_B32 and their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from amdrv.emulator.isa.dpp import exchange_of
from amdrv.emulator.isa.instruction import Instruction, Kind
from amdrv.emulator.isa.operands import Fetch, Op, Place, fetch, in_range, nothing, store_scalar
from amdrv.emulator.isa.wave import EXEC_LO, M0_KEY, U32, U64, Array, Group, view_key

Prepare: TypeAlias = Callable[[Instruction, Place], Op]
SGPRS = 106


def _source(instruction: Instruction, position: int, place: Place) -> Fetch:
    return fetch(instruction.src[position], U32, place)


def _selector(instruction: Instruction, position: int, place: Place) -> Fetch:
    """A lane number, which has to be scalar; raises ValueError."""
    if instruction.src[position].kind == Kind.VGPR:
        raise ValueError(f"{instruction.src[position].name} selects lanes and cannot be a vector register")
    return _source(instruction, position, place)


def _every_lane(row: Array, group: Group, lanes: int) -> Array:
    return row if row.shape == (group.count, lanes) else np.broadcast_to(row, (group.count, lanes))


def _readlane(instruction: Instruction, place: Place) -> Op:
    value, lane = _source(instruction, 0, place), _selector(instruction, 1, place)
    store = store_scalar(instruction.dst[0], U32)

    def readlane(group: Group) -> None:
        picked = (lane(group) & np.uint32(place.lanes - 1)).astype(np.int64)
        row = _every_lane(value(group), group, place.lanes)
        store(group, np.take_along_axis(row, np.broadcast_to(picked, (group.count, 1)), 1))

    return readlane


def _readfirstlane(instruction: Instruction, place: Place) -> Op:
    value = _source(instruction, 0, place)
    store = store_scalar(instruction.dst[0], U32)

    def readfirstlane(group: Group) -> None:
        row = value(group)
        active = group.lane_mask()
        if active is None or row.shape[1] == 1:
            store(group, row[:, :1])
        else:
            first = active.argmax(axis=1, keepdims=True)  # lane 0 when none is active
            store(group, np.take_along_axis(row, first, 1))

    return readfirstlane


def _writelane(instruction: Instruction, place: Place) -> Op:
    value, lane = _source(instruction, 0, place), _selector(instruction, 1, place)
    key = view_key(True, instruction.dst[0].index, U32)

    def writelane(group: Group) -> None:
        picked = np.broadcast_to((lane(group) & np.uint32(place.lanes - 1)).astype(np.int64), (group.count, 1))
        np.put_along_axis(group.views[key], picked, np.broadcast_to(value(group)[:, :1], picked.shape), 1)

    return writelane


def _permlane16(instruction: Instruction, place: Place) -> Op:
    """Any permutation of the 16 lanes of a row, of the same row or of its neighbour (permlanex16).

    op_sel[0] fetches from inactive lanes; otherwise op_sel[1] makes such a fetch zero, and without it the lane keeps
    its old value (LLVM AMDGPUUsage: llvm.amdgcn.permlane16).
    """
    value = _source(instruction, 0, place)
    low, high = (_selector(instruction, position, place) for position in (1, 2))
    key = view_key(True, instruction.dst[0].index, U32)
    other_row = 16 if "permlanex16" in instruction.mnemonic else 0
    opsel = instruction.fields.get("opsel", 0)
    fetch_inactive, zero_inactive = bool(opsel & 1), bool(opsel & 2)
    lane = np.arange(place.lanes)
    row_start = ((lane & ~15) ^ other_row)[None, :]
    shift = np.uint64(4) * (lane & 15).astype(np.uint64)[None, :]

    def permute(group: Group) -> None:
        selectors = low(group).astype(U64) | high(group).astype(U64) << np.uint64(32)
        picked = ((selectors >> shift) & np.uint64(15)).astype(np.int64) + row_start
        picked = np.broadcast_to(picked, (group.count, place.lanes))
        row = np.take_along_axis(_every_lane(value(group), group, place.lanes), picked, 1)
        active = group.lane_mask()
        if active is not None and not fetch_inactive:
            present = np.take_along_axis(active, picked, 1)
            row = np.where(present, row, np.uint32(0) if zero_inactive else group.views[key])
        group.write_vector(key, row)

    return permute


def _permlane16_var(instruction: Instruction, place: Place) -> Op:
    """As ``_permlane16``, each lane's selector in its own register; op_sel has the same meaning."""
    value, selector = _source(instruction, 0, place), _source(instruction, 1, place)
    key = view_key(True, instruction.dst[0].index, U32)
    opsel = instruction.fields.get("opsel", 0)
    other_row = 16 if "permlanex16" in instruction.mnemonic else 0
    row_start = ((np.arange(place.lanes) & ~15) ^ other_row)[None, :]

    def permute(group: Group) -> None:
        picked = _every_lane(selector(group), group, place.lanes).astype(np.int64) & 15 | row_start
        row = np.take_along_axis(_every_lane(value(group), group, place.lanes), picked, 1)
        active = group.lane_mask()
        if active is not None and not opsel & 1:
            present = np.take_along_axis(active, picked, 1)
            row = np.where(present, row, np.uint32(0) if opsel & 2 else group.views[key])
        group.write_vector(key, row)

    return permute


def _permlane64(instruction: Instruction, place: Place) -> Op:
    if place.lanes == 32:
        return nothing
    value = _source(instruction, 0, place)
    key = view_key(True, instruction.dst[0].index, U32)
    picked = np.arange(64) ^ 32

    def swap_halves(group: Group) -> None:
        group.write_vector(key, _every_lane(value(group), group, 64)[:, picked])

    return swap_halves


def _by_m0(group: Group) -> Iterator[tuple[int, Array]]:
    """(M0, which waves have it)."""
    values = group.views[M0_KEY][:, 0]
    for value in np.unique(values):
        yield int(value), np.flatnonzero(values == value)


def _relative_vector(source_moves: bool, target_moves: bool, split: bool, swap: bool = False) -> Prepare:
    """V_MOVREL*: the source's and/or the destination's number is moved by M0, or by its two halves."""

    def prepare(instruction: Instruction, place: Place) -> Op:
        base = instruction.src[0].index
        target = instruction.dst[0].index
        plain = _source(instruction, 0, place)
        exchange = None if instruction.dpp is None else exchange_of(instruction.dpp, place.lanes)

        def numbers(m0: int) -> tuple[int, int]:
            by_source, by_target = (m0 & 0x3FF, m0 >> 16 & 0x3FF) if split else (m0, m0)
            return base + by_source if source_moves else base, target + by_target if target_moves else target

        def move(group: Group) -> None:
            lanes = group.lane_mask()
            registers = group.state.vgpr[:, group.start : group.stop]
            moves = [(waves, *numbers(m0)) for m0, waves in _by_m0(group)]
            rows = _every_lane(plain(group), group, place.lanes).copy()
            if source_moves:
                for waves, source, _ in moves:
                    rows[waves] = registers[source if source < place.vgprs else 0, waves]
            if exchange is not None:
                rows, lanes = exchange.apply(group, rows)
            written = np.ones_like(rows, np.bool_) if lanes is None else np.broadcast_to(lanes, rows.shape)
            for waves, source, destination in moves:
                if destination >= place.vgprs or (swap and source >= place.vgprs):
                    continue
                old = registers[destination, waves]
                registers[destination, waves] = np.where(written[waves], rows[waves], old)
                if swap:
                    registers[source, waves] = np.where(written[waves], old, registers[source, waves])

        return move

    return prepare


def _relative_scalar(source_moves: bool, target_moves: bool, split: bool, size: int) -> Prepare:
    """S_MOVREL*: as the vector moves, on SGPRs; numbers beyond the SGPRs move nothing."""

    def prepare(instruction: Instruction, place: Place) -> Op:
        base, target = instruction.src[0].index, instruction.dst[0].index
        plain = fetch(instruction.src[0], U64 if size == 2 else U32, place)

        def move(group: Group) -> None:
            file = group.state.sgpr[:, group.start : group.stop]
            for m0, waves in _by_m0(group):
                by_source, by_target = (m0 & 0x3FF, m0 >> 16 & 0x3FF) if split else (m0, m0)
                source = base + by_source if source_moves else base
                destination = target + by_target if target_moves else target
                if max(destination if target_moves else 0, source if source_moves else 0) + size > SGPRS:
                    continue
                if source_moves:
                    words = [file[source + word >> 1, waves, source + word & 1] for word in range(size)]
                else:
                    row = np.broadcast_to(plain(group), (group.count, 1))[waves].view(U32)
                    words = [row[:, word] for word in range(size)]
                for word, value in enumerate(words):
                    file[destination + word >> 1, waves, destination + word & 1] = value
            if target >= EXEC_LO:
                group.stale = True

        return move

    return prepare


PREPARE: dict[str, Prepare] = {
    "v_readlane_b32": _readlane,
    "v_readfirstlane_b32": _readfirstlane,
    "v_writelane_b32": _writelane,
    "v_permlane16_b32": _permlane16,
    "v_permlanex16_b32": _permlane16,
    "v_permlane16_var_b32": _permlane16_var,
    "v_permlanex16_var_b32": _permlane16_var,
    "v_permlane64_b32": _permlane64,
    "v_movrels_b32": _relative_vector(True, False, False),
    "v_movreld_b32": _relative_vector(False, True, False),
    "v_movrelsd_b32": _relative_vector(True, True, False),
    "v_movrelsd_2_b32": _relative_vector(True, True, True),
    "v_swaprel_b32": _relative_vector(True, True, True, swap=True),
    "s_movrels_b32": _relative_scalar(True, False, False, 1),
    "s_movrels_b64": _relative_scalar(True, False, False, 2),
    "s_movreld_b32": _relative_scalar(False, True, False, 1),
    "s_movreld_b64": _relative_scalar(False, True, False, 2),
    "s_movrelsd_2_b32": _relative_scalar(True, True, True, 1),
}


def prepare_crosslane(instruction: Instruction, place: Place) -> Op | None:
    """The operation of an instruction of this module; None for others. Raises ValueError for a bad operand."""
    prepare = PREPARE.get(instruction.mnemonic)
    if prepare is None:
        return None
    return prepare(instruction, place) if in_range(instruction, place) else nothing
