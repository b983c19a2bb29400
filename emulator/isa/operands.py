"""Fetching sources and storing results: from an Operand to a function over a group of waves.

Registers out of the wave's allocation behave as the ISA manuals say of out-of-range VGPRs (GCN3 manual 12 "LDS and GPR
out of range", kept in RDNA): a source reads VGPR 0, an instruction with such a destination does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.generation import GFX11, Generation
from amdrv.emulator.isa.instruction import Instruction, Kind, Operand, SpecialReg
from amdrv.emulator.isa.wave import EXEC_LO, NULL, U16, U32, U64, Array, Group, unpack_lanes, view_key

Op: TypeAlias = Callable[[Group], None]
Fetch: TypeAlias = Callable[[Group], Array]
Store: TypeAlias = Callable[[Group, Array], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instruction stands and what its preparation may depend on.

    ``lanes`` and ``vgprs`` are those of the wave; ``mode`` is the MODE register, the same for a whole group.
    """

    pc: int
    next_pc: int
    lanes: int
    vgprs: int
    mode: int
    generation: Generation = GFX11


def nothing(group: Group) -> None:
    """An instruction without an effect that can be seen here."""


def vector_keys(operand: Operand, place: Place) -> list[int]:
    """Keys of the uint32 rows of a VGPR source; rows out of range are VGPR 0."""
    count = -(-operand.bits // 32)
    return [
        view_key(True, operand.index + dword if operand.index + dword < place.vgprs else 0, U32)
        for dword in range(count)
    ]


def in_range(instruction: Instruction, place: Place) -> bool:
    """Whether every VGPR destination is allocated."""
    return all(
        operand.kind != Kind.VGPR or operand.index + -(-operand.bits // 32) <= place.vgprs
        for operand in instruction.dst
    )


def is_packed(operand: Operand) -> bool:
    """Whether the operand holds several elements, which its definition takes apart, modifiers included."""
    digits = operand.type.lstrip("abcdefghijklmnopqrstuvwxyz")
    return bool(digits) and int(digits) != operand.bits


def find(operands: tuple[Operand, ...], name: str) -> Operand | None:
    """The operand called ``name``, unless the encoding leaves it out."""
    for operand in operands:
        if operand.name == name and operand.kind != Kind.NONE:
            return operand
    return None


def constant(value: int, dtype: np.dtype[Any]) -> Array:
    """A constant of shape (1, 1) from its bit pattern."""
    bits = np.array([[value & (1 << 8 * dtype.itemsize) - 1]], dtype=f"u{dtype.itemsize}")
    return bits.view(dtype)


def join_pair(low: Array, high: Array) -> NDArray[np.uint64]:
    """Two uint32 rows as one uint64 row."""
    joined = np.empty(low.shape, np.uint64)
    halves = joined.view(np.uint32)
    halves[:, 0::2] = low
    halves[:, 1::2] = high
    return joined


def fetch(operand: Operand, dtype: np.dtype[Any], place: Place) -> Fetch:
    """A source of up to 64 bits read as ``dtype``: (waves, lanes) from VGPRs, else (waves, 1) or (1, 1)."""
    if operand.kind == Kind.CONSTANT:
        value = constant(operand.value, dtype)
        return lambda group: value
    if operand.kind == Kind.VGPR:
        return _fetch_vector(operand, dtype, place)
    if operand.kind == Kind.SGPR or operand.index <= SpecialReg.EXEC_HI:
        return _fetch_scalar(operand, dtype)
    if operand.kind == Kind.SPECIAL:
        return _fetch_special(operand, dtype)
    zero = constant(0, dtype)
    return lambda group: zero


def _fetch_vector(operand: Operand, dtype: np.dtype[Any], place: Place) -> Fetch:
    index = operand.index if operand.index < place.vgprs else 0
    if dtype.itemsize == 8:
        low, high = vector_keys(operand, place) if operand.bits >= 64 else (view_key(True, index, U32),) * 2

        def pair(group: Group) -> Array:
            views = group.views
            return join_pair(views[low], views[high]).view(dtype)

        return pair
    key = view_key(True, index, dtype, operand.half or 0)
    return lambda group: group.views[key]


def _fetch_scalar(operand: Operand, dtype: np.dtype[Any]) -> Fetch:
    index = operand.index
    if index == NULL:
        zero = constant(0, dtype)
        return lambda group: zero
    if dtype.itemsize == 8 and index & 1:  # not aligned, which only a bad program asks for: the pair above it
        index -= 1
    key = view_key(False, index, dtype, operand.half or 0 if dtype.itemsize == 2 else 0)
    return lambda group: group.views[key]


def _fetch_special(operand: Operand, dtype: np.dtype[Any]) -> Fetch:
    index = operand.index
    word = np.dtype(f"u{dtype.itemsize}")

    def aperture(group: Group) -> Array:
        dispatch = group.machine.launch.dispatch
        base = dispatch.shared_base if index <= SpecialReg.SHARED_LIMIT else dispatch.private_base
        limit = 0xFFFF_FFFF if index in (SpecialReg.SHARED_LIMIT, SpecialReg.PRIVATE_LIMIT) else 0
        return constant(base | limit, dtype)

    if SpecialReg.SHARED_BASE <= index <= SpecialReg.PRIVATE_LIMIT:
        return aperture
    if index == SpecialReg.SCC:
        return lambda group: group.scc.astype(word).view(dtype)
    if index in (SpecialReg.VCCZ, SpecialReg.EXECZ):
        register = SpecialReg.VCC_LO if index == SpecialReg.VCCZ else EXEC_LO

        def is_zero(group: Group) -> Array:
            key = view_key(False, register, U32 if group.state.lanes == 32 else U64)
            flags: Array = (group.views[key] == 0).astype(word)
            return flags.view(dtype)

        return is_zero
    zero = constant(0, dtype)
    return lambda group: zero


def fetch_mask(operand: Operand, place: Place) -> Fetch:
    """A lane mask operand as truth values (waves, lanes)."""
    source = fetch(operand, U32 if place.lanes == 32 else U64, place)
    return lambda group: unpack_lanes(source(group))


def store_scalar(operand: Operand, dtype: np.dtype[Any]) -> Store:
    """A scalar destination for values of ``dtype`` (4 or 8 bytes; 2 bytes are zero-extended)."""
    index = operand.index
    if index == NULL:
        return lambda group, value: None
    if dtype.itemsize == 8:
        key = view_key(False, index & ~1, dtype)
    else:
        key = view_key(False, index, U32 if dtype.itemsize == 2 else dtype)
    short = dtype.itemsize == 2
    touches_exec = index >= EXEC_LO

    def store(group: Group, value: Array) -> None:
        group.views[key][...] = value.view(U16) if short else value
        if touches_exec:
            group.stale = True

    return store
