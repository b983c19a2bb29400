"""ALU instructions: fetch the sources, evaluate the definition, store what comes back under EXEC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from amdrv.emulator.isa.dpp import LaneExchange, exchange_of
from amdrv.emulator.isa.generation import Generation
from amdrv.emulator.isa.instruction import Instruction, Kind, Operand
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra
from amdrv.emulator.isa.operands import (
    Fetch,
    Op,
    Place,
    Store,
    fetch,
    fetch_mask,
    in_range,
    is_packed,
    nothing,
    store_scalar,
    vector_keys,
)
from amdrv.emulator.isa.semantics.definition import Definition
from amdrv.emulator.isa.semantics.modifiers import bind, own_mode
from amdrv.emulator.isa.wave import (
    EXEC32,
    EXEC64,
    EXEC_LO,
    F16,
    F32,
    F64,
    I16,
    I32,
    I64,
    U16,
    U32,
    U64,
    VCC32,
    VCC64,
    VCC_LO,
    Array,
    Flags,
    Group,
    pack_lanes,
    unpack_lanes,
    view_key,
)

Evaluate: TypeAlias = Callable[..., Any]
# A vector store takes the lanes that may be written, or None for those of EXEC.
MaskedStore: TypeAlias = Callable[[Group, Array, "Flags | None"], None]

_FLOATS = {16: F16, 32: F32, 64: F64}
_SIGNED = {16: I16, 32: I32, 64: I64}
_UNSIGNED = {16: U16, 32: U32, 64: U64}


def operand_dtype(operand: Operand) -> np.dtype[Any]:
    """The type in which a definition wants an operand of at most 64 bits."""
    bits = 16 if operand.bits <= 16 else 32 if operand.bits <= 32 else 64
    if is_packed(operand):
        return _UNSIGNED[bits]
    letter = operand.type.rstrip("0123456789")
    return {"f": _FLOATS, "i": _SIGNED}.get(letter, _UNSIGNED)[bits]


def _is_matrix(operand: Operand, instruction: Instruction) -> bool:
    """Whether a definition wants the operand as a stack of registers: wide ones, and all of a matrix instruction."""
    return operand.bits > 64 or _ignores_exec(instruction)


def in_wave_shape(instruction: Instruction, lanes: int, generation: Generation) -> Instruction:
    """Matrices take fewer registers in wave64 than the opcode table says (wave32), but never less than one."""
    halved = () if lanes == 32 else generation.halved_in_wave64(instruction.mnemonic)

    def fitted(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
        return tuple(
            replace(operand, bits=max(operand.bits // 2, 32)) if operand.name in halved else operand
            for operand in operands
        )

    return replace(instruction, dst=fitted(instruction.dst), src=fitted(instruction.src)) if halved else instruction


def _ignores_exec(instruction: Instruction) -> bool:
    return instruction.mnemonic.startswith(("v_wmma", "v_swmmac"))


def _fetch_stacked(operand: Operand, place: Place) -> Fetch:
    """A wide operand as uint32 (registers, waves, lanes); a constant is the same in all registers."""
    count = operand.bits // 32
    if operand.kind == Kind.VGPR:
        keys = vector_keys(operand, place)

        def rows(group: Group) -> Array:
            return np.stack([group.views[key] for key in keys])

        return rows
    source = fetch(operand, U32, place)

    def spread(group: Group) -> Array:
        return np.broadcast_to(source(group), (count, group.count, place.lanes))

    return spread


def _modifier(operand: Operand, dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    """Apply neg and abs to the sign bit."""
    word = np.dtype(f"u{dtype.itemsize}")
    sign = word.type(1 << 8 * dtype.itemsize - 1)
    keep, flip = ~sign if operand.abs else ~word.type(0), sign if operand.neg else word.type(0)
    return lambda value: ((value.view(word) & keep) ^ flip).view(dtype)


def _modified(source: Fetch, operand: Operand, dtype: np.dtype[Any]) -> Fetch:
    if not (operand.neg or operand.abs):
        return source
    modify = _modifier(operand, dtype)
    return lambda group: modify(source(group))


def build_source(operand: Operand, instruction: Instruction, place: Place) -> Fetch:
    """One explicit source as its definition wants it."""
    if operand.type == "mask":
        if operand.kind == Kind.VGPR:
            raise ValueError(f"{operand.name} is a lane mask and cannot be a vector register")
        return fetch_mask(operand, place)
    if _is_matrix(operand, instruction):
        return _fetch_stacked(operand, place)
    dtype = operand_dtype(operand)
    source = fetch(operand, dtype, place)
    return source if is_packed(operand) else _modified(source, operand, dtype)


def build_read(name: str, instruction: Instruction, place: Place) -> Fetch:
    """One of the implicit inputs that a definition names."""
    scalar = instruction.encoding.startswith("SOP")
    wide = place.lanes == 64
    if name in ("vcc", "exec"):
        if scalar:
            index = VCC_LO if name == "vcc" else EXEC_LO
            key = view_key(False, index, U64 if instruction.dst[0].bits == 64 else U32)
            return lambda group: group.views[key]
        key = {"vcc": (VCC32, VCC64), "exec": (EXEC32, EXEC64)}[name][wide]
        return lambda group: unpack_lanes(group.views[key])
    if name == "old":
        operand = instruction.dst[0]
        if _is_matrix(operand, instruction):
            return _fetch_stacked(operand, place)
        return fetch(operand, operand_dtype(operand), place)
    if name == "lane":
        lane = np.arange(place.lanes, dtype=np.uint32)[None, :]
        return lambda group: lane
    if name == "fields":
        fields: Any = instruction.fields
        return lambda group: fields
    return lambda group: group.scc


def _masked_row(group: Group, key: int, value: Array, bits: Array) -> None:
    """Replace the bits of a uint32 row that ``bits`` selects."""
    row = group.views[key]
    change = np.bitwise_xor(row, value)
    np.bitwise_and(change, bits, out=change)
    np.bitwise_xor(row, change, out=row)


def _lane_bits(mask: Flags) -> Array:
    return np.negative(mask.view(np.uint8).astype(np.uint32))


def _store_32(key: int) -> MaskedStore:
    def store(group: Group, value: Array, mask: Flags | None) -> None:
        if mask is None:
            group.write_vector(key, value.view(U32))
        else:
            _masked_row(group, key, value.view(U32), _lane_bits(mask))

    return store


def _store_64(low: int, high: int) -> MaskedStore:
    def store(group: Group, value: Array, mask: Flags | None) -> None:
        halves = np.ascontiguousarray(value).view(U32)
        for key, half in ((low, halves[:, 0::2]), (high, halves[:, 1::2])):
            if mask is None:
                group.write_vector(key, half)
            else:
                _masked_row(group, key, half, _lane_bits(mask))

    return store


def _store_16(index: int, half: int) -> MaskedStore:
    """The other half of the register keeps its value."""
    short_key, key = view_key(True, index, U16, half), view_key(True, index, U32)
    shift, half_mask = np.uint32(16 * half), np.uint32(0xFFFF << 16 * half)

    def store(group: Group, value: Array, mask: Flags | None) -> None:
        short = value.view(U16)
        if group.stale:
            group.refresh()
        if mask is None and group.full:
            group.views[short_key][...] = short
            return
        bits = group.lane_bits() if mask is None else _lane_bits(mask)
        _masked_row(group, key, short.astype(U32) << shift, bits & half_mask)

    return store


def _store_stacked(keys: list[int], ignore_exec: bool) -> MaskedStore:
    def store(group: Group, value: Array, mask: Flags | None) -> None:
        for key, row in zip(keys, value, strict=True):
            if ignore_exec:
                group.views[key][...] = row.view(U32)
            else:
                group.write_vector(key, row.view(U32))

    return store


def _store_mask(operand: Operand, place: Place) -> MaskedStore:
    """Truth values per lane to a mask register, with zeroes for lanes that do not take part."""
    store = store_scalar(operand, U32 if place.lanes == 32 else U64)

    def store_flags(group: Group, value: Array, mask: Flags | None) -> None:
        if mask is None:
            mask = group.lane_mask()
        if mask is not None:
            value = value & mask
        if value.shape != (group.count, place.lanes):
            value = np.broadcast_to(value, (group.count, place.lanes))
        store(group, pack_lanes(value))

    return store_flags


class _ScalarByWidth:
    """A scalar destination whose width is that of the result."""

    def __init__(self, operand: Operand) -> None:
        self._operand = operand
        self._stores: dict[np.dtype[Any], Store] = {}

    def __call__(self, group: Group, value: Array, mask: Flags | None) -> None:
        store = self._stores.get(value.dtype)
        if store is None:
            store = self._stores[value.dtype] = store_scalar(self._operand, value.dtype)
        store(group, value)


def _vector_by_width(operand: Operand, instruction: Instruction, place: Place) -> MaskedStore:
    """A VGPR destination whose width is that of the result."""
    if _is_matrix(operand, instruction):
        return _store_stacked(vector_keys(operand, place), _ignores_exec(instruction))
    by_size: dict[int, MaskedStore] = {
        2: _store_16(operand.index, operand.half or 0),
        4: _store_32(view_key(True, operand.index, U32)),
    }
    if operand.bits == 64:
        low, high = vector_keys(operand, place)
        by_size[8] = _store_64(low, high)
    if operand.bits == 32:
        only = by_size[4]

        def store_usual(group: Group, value: Array, mask: Flags | None) -> None:
            if value.dtype.itemsize == 4:
                only(group, value, mask)
            else:
                by_size[value.dtype.itemsize](group, value, mask)

        return store_usual
    return lambda group, value, mask: by_size[value.dtype.itemsize](group, value, mask)


def build_store(name: str, instruction: Instruction, place: Place) -> MaskedStore:
    """One of the outputs that a definition names."""
    if name == "scc":

        def store_scc(group: Group, value: Array, mask: Flags | None) -> None:
            group.scc[...] = value

        return store_scc
    if name == "exec":
        operand = Operand(name, Kind.SPECIAL, EXEC_LO, 64, "mask")
        if instruction.encoding.startswith("SOP"):
            return _ScalarByWidth(operand)
        return _store_mask(operand, place)
    operand = instruction.dst[1 if name == "dst1" else 0]
    if operand.type == "mask":
        return _store_mask(operand, place)
    if operand.kind == Kind.VGPR:
        return _vector_by_width(operand, instruction, place)
    if not instruction.encoding.startswith("SOP") and not instruction.mnemonic.startswith("v_s_"):
        raise ValueError(f"{operand.name} must be a vector register")
    return _ScalarByWidth(operand)


def _bound(definition: Definition, instruction: Instruction) -> Evaluate:
    return bind(definition, instruction.fields, instruction.dst[0].type if instruction.dst else "")


def build_compute(
    definition: Definition, instruction: Instruction, place: Place, algebra: NumpyAlgebra
) -> Callable[[Group], Any]:
    """The instruction's result as a function of the group, DPP left aside."""
    evaluate = _bound(definition, instruction)
    sources = [build_source(operand, instruction, place) for operand in instruction.src]
    sources += [build_read(name, instruction, place) for name in definition.reads]
    return _call(evaluate, _in_own_mode(definition, algebra), sources)


def _in_own_mode(definition: Definition, algebra: NumpyAlgebra) -> NumpyAlgebra:
    mode = own_mode(definition, algebra.mode)
    return algebra if mode is algebra.mode else NumpyAlgebra(mode)


def _call(evaluate: Evaluate, algebra: NumpyAlgebra, sources: list[Fetch]) -> Callable[[Group], Any]:
    if len(sources) == 1:
        (only,) = sources
        return lambda group: evaluate(algebra, only(group))
    if len(sources) == 2:
        first, second = sources
        return lambda group: evaluate(algebra, first(group), second(group))
    if len(sources) == 3:
        first, second, third = sources
        return lambda group: evaluate(algebra, first(group), second(group), third(group))
    return lambda group: evaluate(algebra, *[source(group) for source in sources])


def _detached(value: Array) -> Array:
    """A result that does not change when a register does: a definition may hand a source back."""
    return value if value.base is None else value.copy()


def prepare_alu(definition: Definition, instruction: Instruction, place: Place, algebra: NumpyAlgebra) -> Op:
    """An instruction that a definition describes; raises ValueError for a reserved DPP control."""
    instruction = in_wave_shape(instruction, place.lanes, place.generation)
    if not in_range(instruction, place):
        return nothing
    stores = [build_store(name, instruction, place) for name in definition.writes]
    if instruction.dpp is not None:
        return _prepare_dpp(definition, instruction, place, algebra, stores)
    compute = build_compute(definition, instruction, place, algebra)
    if len(stores) == 1:
        (store,) = stores

        def single(group: Group) -> None:
            store(group, compute(group), None)

        return single

    def several(group: Group) -> None:
        values = [_detached(value) for value in compute(group)]
        for store, value in zip(stores, values, strict=True):
            store(group, value, None)

    return several


def _prepare_dpp(
    definition: Definition,
    instruction: Instruction,
    place: Place,
    algebra: NumpyAlgebra,
    stores: list[MaskedStore],
) -> Op:
    exchange: LaneExchange = exchange_of(instruction.dpp, place.lanes)  # type: ignore[arg-type]
    evaluate, algebra = _bound(definition, instruction), _in_own_mode(definition, algebra)
    first, *rest = instruction.src
    # What a lane reads, a zero of bound_ctrl included, goes through the modifiers.
    moved = build_source(replace(first, neg=False, abs=False), instruction, place)
    modifies = (first.neg or first.abs) and not is_packed(first)
    modify = _modifier(first, operand_dtype(first)) if modifies else None
    others = [build_source(operand, instruction, place) for operand in rest]
    others += [build_read(name, instruction, place) for name in definition.reads]

    def exchanged(group: Group) -> None:
        value, mask = exchange.apply(group, moved(group))
        if modify is not None:
            value = modify(value)
        result = evaluate(algebra, value, *[source(group) for source in others])
        if len(stores) == 1:
            result = (result,)
        for store, value in zip(stores, [_detached(value) for value in result], strict=True):
            store(group, value, mask)

    return exchanged


def prepare_dual(
    definitions: tuple[Definition, Definition], instruction: Instruction, place: Place, algebra: NumpyAlgebra
) -> Op:
    """A VOPD instruction: both halves read before either writes."""
    halves = instruction.dual
    if halves is None or not all(in_range(half, place) for half in halves):
        return nothing
    computes = [
        build_compute(definition, half, place, algebra) for definition, half in zip(definitions, halves, strict=True)
    ]
    first, second = computes
    store_first, store_second = (build_store("dst", half, place) for half in halves)

    def dual(group: Group) -> None:
        value, other = first(group), _detached(second(group))
        store_first(group, value, None)
        store_second(group, other, None)

    return dual
