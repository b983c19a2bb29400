"""Loads and stores of DS instructions: the translator's side of ``emulator.isa.memory_ops.prepare_ds``, with the same
rules.
"""

from __future__ import annotations

from amdrv.emulator.isa.instruction import Instruction, Kind, Operand
from amdrv.emulator.isa.memory_ops import LOADS, STORES, Form
from amdrv.emulator.isa.native import lds_access, lds_scattered, wide
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.frame import M0, Frame
from amdrv.emulator.isa.native.ir_text import constants, vector
from amdrv.emulator.isa.native.lds_scattered import dwords_of, loaded_type
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.operands import find


def functions(lanes: int) -> list[Function]:
    """Library functions for one wave size."""
    base = lds_access.functions(lanes) + lds_scattered.functions(lanes)
    common = ["ptr", f"i{lanes}", vector(lanes), "i32"]
    many = [(f"lds_load.{8 * size}", common, dwords_of(size)) for size in (12, 16)]
    loads = [*many, ("lds_load_pair.64", [*common, "i32"], 4)]
    stores = [(name.replace("load", "store"), arguments, registers) for name, arguments, registers in many]
    base += [wide.load_to(*load, lanes, faults=False) for load in loads]
    return base + [wide.store_from(*store, lanes, faults=False) for store in stores]


def translate(frame: Frame, instruction: Instruction) -> bool:
    """Write a DS load, store or exchange of two addresses; False for others."""
    name = instruction.mnemonic.removeprefix("ds_")
    if name == "nop":
        return True
    if "2addr" in name:
        _translate_pair(frame, name, instruction)
        return True
    offset = instruction.fields["offset0"] | instruction.fields["offset1"] << 8
    verb, _, kind = name.replace("addtid_", "").partition("_")
    target, data = find(instruction.dst, "vdst"), find(instruction.src, "data0")
    if verb == "load" and kind in LOADS and target is not None:
        _load(frame, LOADS[kind], _address(frame, instruction), offset, target)
        return True
    if verb == "store" and kind in STORES and data is not None:
        _store(frame, STORES[kind], _address(frame, instruction), offset, data)
        return True
    return False


def _address(frame: Frame, instruction: Instruction) -> Val:
    """Byte address of each lane, without the immediate offset."""
    builder = frame.builder
    if "addtid" in instruction.mnemonic:
        lanes = builder.value("u32", constants(range(0, 4 * frame.lanes, 4)), True)
        return builder.spread(frame.sgpr(M0) & 0xFFFF) + lanes
    return lds_address(frame, find(instruction.src, "addr"))


def lds_address(frame: Frame, operand: Operand | None) -> Val:
    """The address operand of a DS instruction, zero where there is none."""
    if operand is None or operand.kind != Kind.VGPR:
        return frame.builder.spread(frame.builder.constant("u32", 0))
    return frame.vgpr(operand.index)


def _call_load(frame: Frame, function: str, size: int, address: Val, offsets: list[int]) -> list[Val]:
    """The dwords of one or two elements of each lane."""
    builder, dwords = frame.builder, dwords_of(size) * len(offsets)
    arguments = ["ptr %ctx", frame.exec_bits().typed, address.typed, *(f"i32 {offset}" for offset in offsets)]
    returned = loaded_type(frame.lanes, dwords)
    result = builder.call(f"{function}.{8 * size}.w{frame.lanes}", returned, arguments)
    texts = [builder.emit(f"extractvalue {returned} {result}, {dword}") for dword in range(dwords)]
    return [builder.value("u32", text, True) for text in texts]


def _call_store(frame: Frame, function: str, size: int, address: Val, offsets: list[int], data: list[Val]) -> None:
    arguments = ["ptr %ctx", frame.exec_bits().typed, address.typed, *(f"i32 {offset}" for offset in offsets)]
    arguments += [value.typed for value in data]
    frame.builder.call(f"{function}.{8 * size}.w{frame.lanes}", "void", arguments)


def _load_to(frame: Frame, function: str, size: int, address: Val, offsets: list[int], target: Operand) -> bool:
    """Load into registers in memory; False where there are too few registers for that to pay."""
    dwords = dwords_of(size) * len(offsets)
    if dwords < wide.MANY:
        return False
    place = frame.vgprs_in_memory(target.index, dwords, reads=not frame.full)
    arguments = ["ptr %ctx", frame.exec_bits().typed, address.typed, *(f"i32 {offset}" for offset in offsets)]
    frame.builder.call(f"{function}.{8 * size}.to.w{frame.lanes}", "void", [*arguments, f"ptr {place}"])
    frame.wrote_memory(target.index, dwords)
    return True


def _store_from(frame: Frame, function: str, size: int, address: Val, offsets: list[int], data: list[Operand]) -> bool:
    """Store from registers in memory; False where there are too few for that to pay, or they are apart."""
    dwords = dwords_of(size)
    first = data[0].index
    if dwords < wide.MANY or len(data) > 1 or first + dwords > frame.vgprs:
        return False
    place = frame.vgprs_in_memory(first, dwords)
    arguments = ["ptr %ctx", frame.exec_bits().typed, address.typed, *(f"i32 {offset}" for offset in offsets)]
    frame.builder.call(f"{function}.{8 * size}.from.w{frame.lanes}", "void", [*arguments, f"ptr {place}"])
    return True


def _load(frame: Frame, form: Form, address: Val, offset: int, target: Operand) -> None:
    if _load_to(frame, "lds_load", form.size_bytes, address, [offset], target):
        return
    values = _call_load(frame, "lds_load", form.size_bytes, address, [offset])
    if form.size_bytes < 4:
        values = [placed(frame, extended(values[0], form), form, target.index)]
    for dword, value in enumerate(values):
        frame.set_vgpr(target.index + dword, value)


def extended(value: Val, form: Form) -> Val:
    """A loaded part of a dword, with its sign where the form says so."""
    if not form.signed:
        return value
    builder, shift = value.builder, 32 - 8 * form.size_bytes
    up = builder.value("i32", (value << shift).text, value.vector)
    return builder.value("u32", (up >> shift).text, value.vector)


def placed(frame: Frame, value: Val, form: Form, target: int) -> Val:
    """A loaded part of a dword in the half of the register that it replaces."""
    if form.half is None:
        return value
    old = frame.vgpr(target)
    if form.half:
        return (old & 0xFFFF) | value << 16
    return (old & 0xFFFF_0000) | (value & 0xFFFF)


def _store(frame: Frame, form: Form, address: Val, offset: int, source: Operand) -> None:
    if _store_from(frame, "lds_store", form.size_bytes, address, [offset], [source]):
        return
    data = [frame.vgpr(source.index + dword) for dword in range(dwords_of(form.size_bytes))]
    if form.half:
        data = [data[0] >> 16]
    _call_store(frame, "lds_store", form.size_bytes, address, [offset], data)


def _translate_pair(frame: Frame, name: str, instruction: Instruction) -> None:
    """Two elements at offsets counted in elements, or 64 of them; an exchange loads both before it stores."""
    size = 8 if name.endswith("b64") else 4
    unit = size * (64 if "stride64" in name else 1)
    offsets = [instruction.fields[field] * unit for field in ("offset0", "offset1")]
    address, target = lds_address(frame, find(instruction.src, "addr")), find(instruction.dst, "vdst")
    sources = [source for field in ("data0", "data1") if (source := find(instruction.src, field)) is not None]
    if target is not None and not sources and _load_to(frame, "lds_load_pair", size, address, offsets, target):
        return
    data = [frame.vgpr(source.index + dword) for source in sources for dword in range(dwords_of(size))]
    loaded = _call_load(frame, "lds_load_pair", size, address, offsets) if target is not None else []
    if data:
        _call_store(frame, "lds_store_pair", size, address, offsets, data)
    if target is not None:
        for dword, value in enumerate(loaded):
            frame.set_vgpr(target.index + dword, value)
