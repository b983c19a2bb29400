"""Loads, stores and atomics of FLAT, GLOBAL, SCRATCH and DS instructions: an address, a space and a form.

Forms by the mnemonic's last part; the ISA manual's pseudo code of FLAT_LOAD_*, FLAT_STORE_*, FLAT_ATOMIC_* and DS_*
gives the same rules for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.atomics import ATOMICS, AtomicOp, dtype_of, in_mode
from amdrv.emulator.isa.instruction import Instruction, Kind, Operand
from amdrv.emulator.isa.operands import Op, Place, fetch, find, nothing, vector_keys
from amdrv.emulator.isa.spaces import FLAT, GLOBAL, LDS, SCRATCH, Bits, LaneFault, Lanes, Space
from amdrv.emulator.isa.wave import M0_KEY, U32, U64, Array, Group

Address: TypeAlias = Callable[[Group], Array]  # one uint64 per lane (or per wave)


@dataclass(frozen=True, slots=True)
class Form:
    """How an element lies in memory and in registers.

    ``half`` is the 16-bit half that a d16 load replaces (or a store takes); ``signed`` extends the sign.
    """

    size_bytes: int
    signed: bool = False
    half: int | None = None


LOADS = {
    "u8": Form(1),
    "i8": Form(1, signed=True),
    "u16": Form(2),
    "i16": Form(2, signed=True),
    "b32": Form(4),
    "b64": Form(8),
    "b96": Form(12),
    "b128": Form(16),
    "d16_u8": Form(1, half=0),
    "d16_i8": Form(1, signed=True, half=0),
    "d16_b16": Form(2, half=0),
    "d16_hi_u8": Form(1, half=1),
    "d16_hi_i8": Form(1, signed=True, half=1),
    "d16_hi_b16": Form(2, half=1),
    "u8_d16": Form(1, half=0),
    "i8_d16": Form(1, signed=True, half=0),
    "u16_d16": Form(2, half=0),
    "u8_d16_hi": Form(1, half=1),
    "i8_d16_hi": Form(1, signed=True, half=1),
    "u16_d16_hi": Form(2, half=1),
}
STORES = {
    "b8": Form(1),
    "b16": Form(2),
    "b32": Form(4),
    "b64": Form(8),
    "b96": Form(12),
    "b128": Form(16),
    "d16_hi_b8": Form(1, half=1),
    "d16_hi_b16": Form(2, half=1),
    "b8_d16_hi": Form(1, half=1),
    "b16_d16_hi": Form(2, half=1),
}

_ATOMIC_TYPES = {"b32": 4, "u32": 4, "i32": 4, "f32": 4, "b64": 8, "u64": 8, "i64": 8, "f64": 8}
_PAIRS = {"pk_add_f16": 4, "pk_add_bf16": 4}  # two elements in a dword


def atomic_form(name: str) -> tuple[AtomicOp, int] | None:
    """(operation, bytes) of "add_u32", "cmpswap_b64", "max_f32", …; None for what is no such thing."""
    if name in _PAIRS:
        return ATOMICS[name], _PAIRS[name]
    verb, _, kind = name.rpartition("_")
    size_bytes = _ATOMIC_TYPES.get(kind)
    if size_bytes is None:
        return None
    for key in (verb, f"{verb}_{kind[0]}"):
        op = ATOMICS.get(key)
        if op is not None and (op.kind == "f") == (kind[0] == "f"):
            return op, size_bytes
    return None


def atomic_in_place(form: tuple[AtomicOp, int], place: Place, local: bool = False) -> tuple[AtomicOp, int]:
    """An operation as the mode of its place has it."""
    op, size_bytes = form
    return in_mode(op, size_bytes, local, FloatMode.from_bits(place.mode), place.generation.name), size_bytes


def write_loaded(group: Group, keys: list[int], lanes: Lanes, data: list[Bits]) -> None:
    """Put one value per active lane into each of the register rows."""
    for key, value in zip(keys, data, strict=True):
        row = group.views[key]
        if group.full:
            row[...] = value.reshape(row.shape)
        else:
            row.reshape(-1)[lanes] = value


def extend(value: Bits, form: Form) -> Bits:
    """Sign-extend a loaded part of a dword where the form says so."""
    if not form.signed:
        return value
    shift = np.uint32(32 - 8 * form.size_bytes)
    extended: Bits = ((value << shift).view(np.int32) >> shift.astype(np.int32)).view(np.uint32)
    return extended


def merge_half(group: Group, key: int, lanes: Lanes, value: Bits, half: int) -> Bits:
    """A register's lanes with one half replaced by the low 16 bits of ``value``."""
    old = group.pick(group.views[key], lanes)
    if half:
        return (old & np.uint32(0xFFFF)) | (value << np.uint32(16))
    return (old & np.uint32(0xFFFF0000)) | (value & np.uint32(0xFFFF))


def build_load(form: Form, space: Space, address: Address, target: Operand, place: Place) -> Op:
    """A load into ``target``, a VGPR operand in range."""
    keys = vector_keys(target, place)[: -(-form.size_bytes // 4)]

    def load(group: Group) -> None:
        lanes = group.active_lanes()
        if not len(lanes):
            return
        data = space.load(group, lanes, group.pick(address(group), lanes), form.size_bytes)
        if form.size_bytes < 4:
            data = [extend(data[0], form)]
            if form.half is not None:
                data = [merge_half(group, keys[0], lanes, data[0], form.half)]
        write_loaded(group, keys, lanes, data)

    return load


def build_store(form: Form, space: Space, address: Address, source: Operand, place: Place) -> Op:
    """A store from ``source``, a VGPR operand."""
    keys = vector_keys(source, place)[: -(-form.size_bytes // 4)]

    def store(group: Group) -> None:
        lanes = group.active_lanes()
        if not len(lanes):
            return
        data = [group.pick(group.views[key], lanes) for key in keys]
        if form.half:
            data = [data[0] >> np.uint32(16)]
        space.store(group, lanes, group.pick(address(group), lanes), data, form.size_bytes)

    return store


def fetch_element(keys: list[int], group: Group, lanes: Lanes, dtype: np.dtype[Any]) -> Array:
    """One or two register rows as 32- or 64-bit elements of the active lanes."""
    low = group.pick(group.views[keys[0]], lanes)
    if dtype.itemsize == 4:
        return low.view(dtype)
    joined = np.empty(len(low), np.uint64)
    halves = joined.view(np.uint32)
    halves[0::2] = low
    halves[1::2] = group.pick(group.views[keys[1]], lanes)
    return joined.view(dtype)


def build_atomic(
    op: AtomicOp,
    size_bytes: int,
    space: Space,
    address: Address,
    data: tuple[list[int], list[int]],
    target: list[int] | None,
) -> Op:
    """An atomic on the operand rows ``data`` (data, comparand or second operand); the old value goes to ``target``."""
    dtype = dtype_of(op, size_bytes)

    def atomic(group: Group) -> None:
        lanes = group.active_lanes()
        if not len(lanes):
            return
        first = fetch_element(data[0], group, lanes, dtype)
        second = fetch_element(data[1], group, lanes, dtype) if op.sources > 1 else first
        old = space.atomic(group, lanes, group.pick(address(group), lanes), op, (first, second), target is not None)
        if target is None or old is None:
            return
        halves = np.ascontiguousarray(old).view(np.uint32)
        write_loaded(group, target, lanes, [halves] if size_bytes == 4 else [halves[0::2], halves[1::2]])

    return atomic


def _flat_address(instruction: Instruction, place: Place) -> Address:
    vector, scalar = find(instruction.src, "addr"), find(instruction.src, "saddr")
    offset = place.generation.address_offset(instruction)
    if instruction.encoding == "SCRATCH":
        return _scratch_address(vector, scalar, offset, place)
    bias = np.uint64(offset & 0xFFFF_FFFF_FFFF_FFFF)
    if "addtid" in instruction.mnemonic:
        lane = np.arange(place.lanes, dtype=np.uint64)[None, :] * np.uint64(4)
        if scalar is None:
            return lambda group: lane + bias
        base64 = fetch(scalar, U64, place)
        return lambda group: base64(group) + lane + bias
    if vector is None:
        return lambda group: np.full((1, 1), bias, np.uint64)
    if scalar is None:
        flat = fetch(vector, U64, place)
        return (lambda group: flat(group) + bias) if offset else flat
    base = fetch(scalar, U64, place)
    index = fetch(vector, U32, place)
    return lambda group: index(group) + (base(group) + bias)


def _scratch_address(vector: Operand | None, scalar: Operand | None, offset: int, place: Place) -> Address:
    bias = np.uint32(offset & 0xFFFF_FFFF)
    parts = [fetch(operand, U32, place) for operand in (vector, scalar) if operand is not None]

    def address(group: Group) -> Array:
        total = np.full((1, 1), bias, np.uint32)
        for part in parts:
            total = total + part(group)
        return total.astype(np.uint64)

    return address


_FLAT_SPACES = {"FLAT": FLAT, "GLOBAL": GLOBAL, "SCRATCH": SCRATCH}


def prepare_flat(instruction: Instruction, place: Place) -> Op | None:
    """The operation of a FLAT, GLOBAL or SCRATCH instruction; None when it is none of these."""
    space = _FLAT_SPACES[instruction.encoding]
    _, verb, name = instruction.mnemonic.split("_", 2)
    address = _flat_address(instruction, place)
    data = find(instruction.src, "data")
    target = find(instruction.dst, "vdst")
    name = name.removeprefix("addtid_")
    if verb == "load" and name in LOADS and target is not None:
        return build_load(LOADS[name], space, address, target, place)
    if verb == "store" and name in STORES and data is not None:
        return build_store(STORES[name], space, address, data, place)
    if name == "tr_b128" and target is not None and place.lanes == 32:
        return build_transposing_load(space, address, target, place)
    if name == "block":
        return build_block(space, address, (data, target), place)
    form = atomic_form(name) if verb == "atomic" else None
    if form is None or data is None:
        return None
    return build_flat_atomic(atomic_in_place(form, place), space, address, (data, target), place)


def build_transposing_load(space: Space, address: Address, target: Operand, place: Place) -> Op:
    """GLOBAL_LOAD_TR_B128: eight 16-bit elements a lane, transposed within every eight lanes.

    Lane l gets element l % 8 of each of the eight runs that its eight lanes name: measured on a gfx1201 (notes on the
    WMMA fragment contract of the Tessera compiler) and, for its successor's instruction, on a gfx1250. All lanes must
    be active. How TR_B64, and a wave64, permute elements is not published.
    """
    keys = vector_keys(target, place)

    def load(group: Group) -> None:
        lanes = group.active_lanes()
        if len(lanes) != group.count * place.lanes:
            raise LaneFault("illegal instruction", "a transposing load with inactive lanes", 0)
        dwords = space.load(group, lanes, group.pick(address(group), lanes), 16)
        runs = np.stack(dwords, axis=1).view(np.uint16).reshape(-1, 8, 8)  # groups of lanes, lanes, elements
        columns = np.ascontiguousarray(runs.swapaxes(1, 2)).reshape(-1, 8).view(np.uint32)
        write_loaded(group, keys, lanes, list(columns.T))

    return load


def build_block(
    space: Space, address: Address, registers: tuple[Operand | None, Operand | None], place: Place
) -> Op | None:
    """GLOBAL_LOAD_BLOCK and GLOBAL_STORE_BLOCK: up to 32 registers, those that M0 selects; holes keep their place."""
    data, target = registers
    operand = data if data is not None else target
    if operand is None:
        return None
    rows = vector_keys(operand, place)
    form = Form(4)

    def move(group: Group) -> None:
        lanes = group.active_lanes()
        selections = group.views[M0_KEY][:, 0]
        for number, key in enumerate(rows):
            chosen = lanes[(selections >> np.uint32(number) & np.uint32(1))[lanes // place.lanes] != 0]
            if not len(chosen):
                continue
            row = group.views[key].reshape(-1)
            at = np.broadcast_to(address(group), (group.count, place.lanes)).reshape(-1)[chosen] + np.uint64(4 * number)
            if data is not None:
                space.store(group, chosen, at, [row[chosen]], form.size_bytes)
            else:
                row[chosen] = space.load(group, chosen, at, form.size_bytes)[0]

    return move


def build_flat_atomic(
    form: tuple[AtomicOp, int], space: Space, address: Address, registers: tuple[Operand, Operand | None], place: Place
) -> Op:
    """FLAT and buffer atomics: the comparand follows the data in consecutive registers."""
    op, size_bytes = form
    data, target = registers
    keys = vector_keys(data, place)
    count = size_bytes // 4
    old = vector_keys(target, place)[:count] if target is not None else None
    return build_atomic(op, size_bytes, space, address, (keys[:count], keys[count:] or keys[:count]), old)


# RDNA3 names of what the other encodings call swap and cmpswap.
_DS_VERBS = {"storexchg": "swap", "cmpstore": "cmpswap"}


def ds_address(operand: Operand | None, offset: int, place: Place) -> Address:
    """Byte offset in LDS: a VGPR plus an immediate, in 32 bits."""
    if operand is None or operand.kind != Kind.VGPR:
        return lambda group: np.full((1, 1), offset, np.uint64)
    source = fetch(operand, U32, place)
    bias = np.uint32(offset)
    return lambda group: (source(group) + bias).astype(np.uint64)


def prepare_ds(instruction: Instruction, place: Place) -> Op | None:
    """The operation of a DS load, store or atomic; None when it is none of these."""
    fields = instruction.fields
    name = instruction.mnemonic.removeprefix("ds_")
    addr = find(instruction.src, "addr")
    if name == "nop":
        return nothing
    if "2addr" in name:
        return _prepare_pair(name, instruction, place)
    offset = fields["offset0"] | fields["offset1"] << 8
    address = ds_address(addr, offset, place)
    if name.endswith("addtid_b32"):
        address = _addtid_address(offset, place)
        name = name.replace("addtid_", "")
    verb, _, kind = name.partition("_")
    target, data = find(instruction.dst, "vdst"), find(instruction.src, "data0")
    if verb == "load" and kind in LOADS and target is not None:
        return build_load(LOADS[kind], LDS, address, target, place)
    if verb == "store" and kind in STORES and data is not None:
        return build_store(STORES[kind], LDS, address, data, place)
    if verb in _DS_VERBS:
        name = name.replace(verb, _DS_VERBS[verb], 1)
    form = atomic_form(name.replace("_rtn", ""))
    if form is None or data is None:
        return None
    op, size_bytes = atomic_in_place(form, place, local=True)
    second = find(instruction.src, "data1")
    rows = (vector_keys(data, place), vector_keys(second if second is not None else data, place))
    return build_atomic(op, size_bytes, LDS, address, rows, vector_keys(target, place) if target is not None else None)


def _addtid_address(offset: int, place: Place) -> Address:
    lane = np.arange(place.lanes, dtype=np.uint64)[None, :] * np.uint64(4)

    def address(group: Group) -> Array:
        base = (group.views[M0_KEY] & np.uint32(0xFFFF)).astype(np.uint64)
        return base + lane + np.uint64(offset)

    return address


def _prepare_pair(name: str, instruction: Instruction, place: Place) -> Op | None:
    """ds_{load,store,storexchg}_2addr[_stride64]: two elements at offsets counted in elements (or 64 of them)."""
    size_bytes = 8 if name.endswith("b64") else 4
    unit = size_bytes * (64 if "stride64" in name else 1)
    addr, target = find(instruction.src, "addr"), find(instruction.dst, "vdst")
    addresses = [ds_address(addr, instruction.fields[field] * unit, place) for field in ("offset0", "offset1")]
    sources = [find(instruction.src, field) for field in ("data0", "data1")]
    data = [vector_keys(source, place) for source in sources if source is not None]
    keys = vector_keys(target, place) if target is not None else []
    count = size_bytes // 4
    parts = [keys[:count], keys[count:]]

    def exchange(group: Group) -> None:
        lanes = group.active_lanes()
        if not len(lanes):
            return
        where = [group.pick(address(group), lanes) for address in addresses]
        loaded = [LDS.load(group, lanes, at, size_bytes) for at in where] if keys else []
        values = [[group.pick(group.views[key], lanes) for key in rows] for rows in data]
        for at, value in zip(where, values, strict=False):
            LDS.store(group, lanes, at, value, size_bytes)
        for rows, dwords in zip(parts, loaded, strict=False):
            write_loaded(group, rows, lanes, dwords)

    return exchange
