"""MUBUF and MTBUF: memory through a buffer descriptor, with its stride, swizzle and bounds.

Descriptor and addressing: RDNA3 ISA manual, "Buffer resource descriptor" and "Buffer addressing". What the manual
leaves open was checked on gfx1100 and gfx1201 (ROCm rocjitsu, shared/addr_calc_buffer.h): an instruction's index stands
in place of the thread's number, without either there is no swizzle, offsets add up in 32 bits, and an element that is
checked against its structure is never in one without a stride.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.atomics import dtype_of
from amdrv.emulator.isa.buffer_formats import FORMATS, BufferFormat, pack, unpack
from amdrv.emulator.isa.instruction import Instruction, Operand
from amdrv.emulator.isa.memory_ops import (
    LOADS,
    STORES,
    Form,
    atomic_form,
    atomic_in_place,
    extend,
    fetch_element,
    merge_half,
    write_loaded,
)
from amdrv.emulator.isa.operands import Fetch, Op, Place, fetch, find, nothing, vector_keys
from amdrv.emulator.isa.spaces import GLOBAL, Addresses, Bits, Lanes
from amdrv.emulator.isa.wave import U32, Array, Group, view_key

_INDEX_STRIDES = np.array([8, 16, 32, 64], np.uint64)
_ELEMENT_BYTES = np.array([0, 4, 4, 16], np.uint64)  # by SWIZZLE_ENABLE
_COMPONENTS = {"x": 1, "xy": 2, "xyz": 3, "xyzw": 4}
ONE_F32, ONE_F16 = 0x3F800000, 0x3C00
IDENTITY_SELECT = 0xFAC  # X, Y, Z, W in the dst_sel fields


@dataclass(slots=True)
class Descriptor:
    """The fields of the V# in each of some lanes' waves."""

    base: Addresses
    stride: Addresses
    element_bytes: Addresses  # of swizzling; 0 when linear
    records: Addresses
    index_stride: Addresses
    add_thread: NDArray[np.bool_]
    bounds: NDArray[np.uint32]  # OOB_SELECT
    format: NDArray[np.uint32]
    select: NDArray[np.uint32]


class BufferAddress:
    """Descriptor, offsets and index of one instruction."""

    def __init__(self, instruction: Instruction, place: Place) -> None:
        resource = find(instruction.src, "srsrc")
        self._words = [view_key(False, (resource.index if resource else 0) + word & 0x7F, U32) for word in range(4)]
        fields = instruction.fields
        soffset = find(instruction.src, "soffset")
        self._soffset: Fetch | None = fetch(soffset, U32, place) if soffset is not None else None
        self._offset = fields["offset"]
        vaddr = find(instruction.src, "vaddr")
        rows = vector_keys(vaddr, place) if vaddr is not None else []
        self._index_key = rows.pop(0) if fields["idxen"] and rows else None
        self._offset_key = rows[0] if fields["offen"] and rows else None

    def descriptor(self, group: Group, lanes: Lanes) -> Descriptor:
        """The descriptor as every lane sees it (it may differ between waves)."""
        wave = lanes // group.state.lanes
        words = [group.views[key][:, 0].take(wave) for key in self._words]
        wide = [word.astype(np.uint64) for word in words]
        swizzle = words[1] >> np.uint32(30)
        add_thread = (words[3] >> np.uint32(23) & np.uint32(1)) != 0
        return Descriptor(
            base=wide[0] | (wide[1] & np.uint64(0xFFFF)) << np.uint64(32),
            stride=wide[1] >> np.uint64(16) & np.uint64(0x3FFF),
            element_bytes=_ELEMENT_BYTES.take(np.where(add_thread | (self._index_key is not None), swizzle, 0)),
            records=wide[2],
            index_stride=_INDEX_STRIDES.take(words[3] >> np.uint32(21) & np.uint32(3)),
            add_thread=add_thread,
            bounds=words[3] >> np.uint32(28) & np.uint32(3),
            format=words[3] >> np.uint32(12) & np.uint32(0x3F),
            select=words[3] & np.uint32(0xFFF),
        )

    def locate(
        self, group: Group, lanes: Lanes, descriptor: Descriptor, size_bytes: int
    ) -> tuple[Addresses, list[NDArray[np.bool_]]]:
        """Address of each lane's element, and which of its dwords (or parts of one) are in bounds."""

        def flat(row: Array) -> Addresses:
            picked: Addresses = group.pick(row, lanes).astype(np.uint64)
            return picked

        zero = np.zeros(len(lanes), np.uint64)
        thread = (lanes % group.state.lanes).astype(np.uint64)
        if self._index_key is not None:
            index = flat(group.views[self._index_key])
        else:
            index = np.where(descriptor.add_thread, thread, zero)
        offset = flat(group.views[self._offset_key]) if self._offset_key is not None else zero
        offset = offset + np.uint64(self._offset) & np.uint64(0xFFFF_FFFF)
        scalar = flat(self._soffset(group)) if self._soffset is not None else zero
        within = self._within(descriptor, index, offset)
        steps = range(-(-size_bytes // 4))
        fits = [_in_bounds(descriptor, index, offset, scalar, 4 * step, min(size_bytes, 4)) for step in steps]
        return descriptor.base + scalar + within, fits

    @staticmethod
    def _within(descriptor: Descriptor, index: Addresses, offset: Addresses) -> Addresses:
        """Offset of the element in the buffer, linear or swizzled."""
        linear = offset + descriptor.stride * index
        if not descriptor.element_bytes.any():
            return linear
        element = np.maximum(descriptor.element_bytes, np.uint64(1))
        index_high, index_low = np.divmod(index, descriptor.index_stride)
        offset_high, offset_low = np.divmod(offset, element)
        swizzled = (index_high * descriptor.stride + offset_high * element) * descriptor.index_stride
        swizzled = swizzled + index_low * element + offset_low
        return np.where(descriptor.element_bytes != 0, swizzled, linear)


def _in_bounds(
    descriptor: Descriptor, index: Addresses, offset: Addresses, scalar: Addresses, at: int, size_bytes: int
) -> NDArray[np.bool_]:
    """Whether ``size_bytes`` at ``at`` bytes into the element are in bounds.

    OOB_SELECT 0: index and offset in the structure; 1: index; 2: anything but an empty buffer; 3: raw, or structured
    when swizzled.
    """
    end = offset + np.uint64(at + size_bytes)
    in_index = index < descriptor.records
    structured = in_index & (end <= descriptor.stride)
    raw = end + scalar <= descriptor.records
    swizzled = (descriptor.element_bytes != 0) & (descriptor.stride != 0)
    result: NDArray[np.bool_] = np.choose(
        descriptor.bounds, [structured, in_index, descriptor.records != 0, np.where(swizzled, structured, raw)]
    )
    return result


def _gather(
    group: Group, lanes: Lanes, address: Addresses, fits: list[NDArray[np.bool_]], size_bytes: int
) -> list[Bits]:
    """Load what is in bounds, zero elsewhere."""
    if all(fit.all() for fit in fits):
        return GLOBAL.load(group, lanes, address, size_bytes)
    result = []
    for step, fit in enumerate(fits):
        row = np.zeros(len(lanes), np.uint32)
        inside = np.flatnonzero(fit)
        if len(inside):
            at = address[inside] + np.uint64(4 * step)
            row[inside] = GLOBAL.load(group, lanes[inside], at, min(size_bytes, 4))[0]
        result.append(row)
    return result


def _scatter(
    group: Group,
    lanes: Lanes,
    address: Addresses,
    fits: list[NDArray[np.bool_]],
    data: list[Bits],
    size_bytes: int,
) -> None:
    """Store what is in bounds, one lane after the other."""
    if all(fit.all() for fit in fits):
        GLOBAL.store(group, lanes, address, data, size_bytes)
        return
    inside = np.stack(fits, axis=1)
    if inside.any():
        steps = np.arange(0, 4 * len(fits), 4, dtype=np.uint64)
        owners = np.broadcast_to(lanes[:, None], inside.shape)[inside]
        at = (address[:, None] + steps)[inside]
        GLOBAL.store(group, owners, at, [np.stack(data, axis=1)[inside]], min(size_bytes, 4))


def prepare_buffer(instruction: Instruction, place: Place) -> Op | None:
    """The operation of a MUBUF or MTBUF instruction; None when it is none of these."""
    _, verb, name = (*instruction.mnemonic.split("_", 2), "")[:3]
    where = BufferAddress(instruction, place)
    source, target = find(instruction.src, "vdata"), find(instruction.dst, "vdata")
    if verb == "atomic" and source is not None:
        return _prepare_atomic(name, where, source, target, place)
    if "format" in name:
        return _prepare_typed(verb, name, where, instruction, place)
    if verb == "load" and name in LOADS and target is not None:
        return _build_load(LOADS[name], where, target, bool(instruction.fields["tfe"]), place)
    if verb == "store" and name in STORES and source is not None:
        return _build_store(STORES[name], where, source, place)
    return None


def _build_load(form: Form, where: BufferAddress, target: Operand, status: bool, place: Place) -> Op:
    rows = vector_keys(target, place)
    keys = rows[: -(-form.size_bytes // 4)]
    status_key = rows[-1] if status else None

    def load(group: Group) -> None:
        lanes = group.active_lanes()
        if not len(lanes):
            return
        address, fits = where.locate(group, lanes, where.descriptor(group, lanes), form.size_bytes)
        data = _gather(group, lanes, address, fits, form.size_bytes)
        if form.size_bytes < 4:
            data = [extend(data[0], form)]
            if form.half is not None:
                data = [merge_half(group, keys[0], lanes, data[0], form.half)]
        write_loaded(group, keys, lanes, data)
        if status_key is not None:  # every page was resident, or there would have been a fault
            group.write_vector(status_key, np.zeros((1, 1), np.uint32))

    return load


def _build_store(form: Form, where: BufferAddress, source: Operand, place: Place) -> Op:
    keys = vector_keys(source, place)[: -(-form.size_bytes // 4)]

    def store(group: Group) -> None:
        lanes = group.active_lanes()
        if not len(lanes):
            return
        data = [group.pick(group.views[key], lanes) for key in keys]
        if form.half:
            data = [data[0] >> np.uint32(16)]
        address, fits = where.locate(group, lanes, where.descriptor(group, lanes), form.size_bytes)
        _scatter(group, lanes, address, fits, data, form.size_bytes)

    return store


def _prepare_atomic(
    name: str, where: BufferAddress, source: Operand, target: Operand | None, place: Place
) -> Op | None:
    found = atomic_form(name)
    if found is None:
        return None
    op, size_bytes = atomic_in_place(found, place)
    dtype = dtype_of(op, size_bytes)
    count = size_bytes // 4
    rows = vector_keys(source, place)
    keys = vector_keys(target, place)[:count] if target is not None else []

    def atomic(group: Group) -> None:
        lanes = group.active_lanes()
        if not len(lanes):
            return
        address, fits = where.locate(group, lanes, where.descriptor(group, lanes), size_bytes)
        inside = np.flatnonzero(np.logical_and.reduce(fits))
        first = fetch_element(rows, group, lanes, dtype)
        second = fetch_element(rows[count:], group, lanes, dtype) if op.sources > 1 else first
        old = np.zeros(len(lanes), dtype)
        if len(inside):
            operands = (first[inside], second[inside])
            value = GLOBAL.atomic(group, lanes[inside], address[inside], op, operands, bool(keys))
            if value is not None:
                old[inside] = value
        if keys:
            halves = old.view(np.uint32)
            write_loaded(group, keys, lanes, [halves] if count == 1 else [halves[0::2], halves[1::2]])

    return atomic


def _prepare_typed(verb: str, name: str, where: BufferAddress, instruction: Instruction, place: Place) -> Op | None:
    """Loads and stores with a format, which is the instruction's (MTBUF) or the descriptor's."""
    count = _COMPONENTS.get(name.rpartition("_")[2])
    if count is None or "lds" in name:
        return None
    high = "d16_hi" in name
    short = "d16" in name
    fixed = instruction.fields["format"] if instruction.encoding == "MTBUF" else None
    operand = find(instruction.dst if verb == "load" else instruction.src, "vdata")
    if operand is None:
        return None
    rows = vector_keys(operand, place)
    status_key = rows[-1] if verb == "load" and instruction.fields["tfe"] else None
    keys = rows[: -(-count // 2) if short else count]
    run = _typed_load if verb == "load" else _typed_store

    def typed(group: Group) -> None:
        lanes = group.active_lanes()
        if not len(lanes):
            return
        descriptor = where.descriptor(group, lanes)
        for layout, members in _by_format(descriptor, fixed):
            part = lanes[members]
            if layout is None:
                if verb == "load":
                    _put(group, keys, part, [np.zeros(len(part), np.uint32)] * len(keys))
                continue
            address, fits = where.locate(group, lanes, descriptor, layout.size_bytes)
            inside = np.logical_and.reduce(fits)[members]
            selects = descriptor.select[members] if fixed is None else np.full(len(part), IDENTITY_SELECT, np.uint32)
            run(group, _Elements(part, address[members], inside, layout, selects), keys, (short, high, count))
        if status_key is not None:
            group.write_vector(status_key, np.zeros((1, 1), np.uint32))

    return typed if keys or status_key is not None else nothing


def _by_format(descriptor: Descriptor, fixed: int | None) -> list[tuple[BufferFormat | None, NDArray[np.int64]]]:
    """(layout, which lanes) of the formats in use; None for an invalid one."""
    if fixed is not None:
        return [(FORMATS.get(fixed), np.arange(len(descriptor.format)))]
    numbers = np.unique(descriptor.format)
    return [(FORMATS.get(int(number)), np.flatnonzero(descriptor.format == number)) for number in numbers]


def _put(group: Group, keys: list[int], lanes: Lanes, data: list[Bits]) -> None:
    for key, value in zip(keys, data, strict=True):
        group.views[key].reshape(-1)[lanes] = value


@dataclass(frozen=True, slots=True)
class _Elements:
    """Typed elements of one format: their lanes, where they are, whether in bounds, and DST_SEL."""

    lanes: Lanes
    address: Addresses
    inside: NDArray[np.bool_]
    layout: BufferFormat
    selects: NDArray[np.uint32]


_Shape = tuple[bool, bool, int]  # d16, d16_hi, components


def _typed_load(group: Group, elements: _Elements, keys: list[int], shape: _Shape) -> None:
    lanes, layout, inside = elements.lanes, elements.layout, elements.inside
    short, high, count = shape
    fits = [inside] * -(-layout.size_bytes // 4)
    dwords = _gather(group, lanes, elements.address, fits, layout.size_bytes)
    components = unpack(dwords, layout)
    one = np.uint32(1 if layout.is_integer else ONE_F32)
    zero = np.zeros(len(lanes), np.uint32)
    missing = [zero, zero, zero, np.where(inside, one, np.uint32(0))]
    values = []
    for number in range(count):
        choice = elements.selects >> np.uint32(3 * number) & np.uint32(7)
        sources = [zero, np.full(len(lanes), one), zero, zero]  # SEL_1 is one beyond the bounds too (manual, 9.4.1)
        sources += [components[c] if c < len(components) else missing[c] for c in range(4)]
        values.append(np.choose(choice, sources).astype(np.uint32))
    if short:
        values = _to_halves(values, layout)
        if high:
            kept = group.views[keys[0]].reshape(-1)[lanes] & np.uint32(0xFFFF)
            values = [kept | values[0] << np.uint32(16)]
        elif count == 1:
            kept = group.views[keys[0]].reshape(-1)[lanes] & np.uint32(0xFFFF0000)
            values = [kept | values[0]]
        else:
            values.append(zero)
            values = [values[2 * pair] | values[2 * pair + 1] << np.uint32(16) for pair in range(len(keys))]
    _put(group, keys, lanes, values)


def _to_halves(values: list[Bits], layout: BufferFormat) -> list[Bits]:
    """Registers as 16 bits: f16, or the low half of an integer."""
    if layout.is_integer:
        return [value & np.uint32(0xFFFF) for value in values]
    return [value.view(np.float32).astype(np.float16).view(np.uint16).astype(np.uint32) for value in values]


def _typed_store(group: Group, elements: _Elements, keys: list[int], shape: _Shape) -> None:
    lanes, layout = elements.lanes, elements.layout
    short, high, count = shape
    values = [group.views[key].reshape(-1)[lanes] for key in keys]
    if short:
        halves = [half for value in values for half in (value & np.uint32(0xFFFF), value >> np.uint32(16))]
        values = [_from_half(half, layout) for half in (halves[1:2] if high else halves[:count])]
    size_bytes = layout.size_bytes
    fits = [elements.inside] * -(-size_bytes // 4)
    _scatter(group, lanes, elements.address, fits, pack(values, layout), size_bytes)


def _from_half(half: Bits, layout: BufferFormat) -> Bits:
    if layout.kind == "sint":
        return half.astype(np.uint16).view(np.int16).astype(np.int32).view(np.uint32)
    if layout.kind == "uint":
        return half
    return half.astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
