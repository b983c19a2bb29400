"""Loads and stores of FLAT, GLOBAL and SCRATCH instructions: the translator's side of ``emulator.isa.memory_ops``."""

from __future__ import annotations

from dataclasses import dataclass

from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.memory_ops import LOADS, STORES, Form
from amdrv.emulator.isa.native import (
    flat_memory,
    lane_transfer,
    layout,
    scratch_memory,
    tlb,
    vector_load,
    vector_store,
    wide,
)
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.control import FENCE, sees_others
from amdrv.emulator.isa.native.frame import M0, Frame
from amdrv.emulator.isa.native.ir_text import constants, result_type, vector
from amdrv.emulator.isa.native.layout import Detail, FaultKind
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.operands import read
from amdrv.emulator.isa.operands import find

_PARTS = (tlb, lane_transfer, vector_load, vector_store, scratch_memory, flat_memory)
_MASK64 = (1 << 64) - 1
# Names of the library's forms by size and sign.
_LOAD_NAMES = {(form.size_bytes, form.signed): name for name, form in vector_load.FORMS.items()}
_STORE_NAMES = {size_bytes: name for name, size_bytes in vector_store.SIZES.items()}


def functions(lanes: int) -> list[Function]:
    """The library functions of loads and stores."""
    result = [function for part in _PARTS for function in part.functions(lanes)]
    for space in ("global", "flat", "scratch"):
        for name, registers in (("b96", 3), ("b128", 4)):
            arguments = _argument_types(space, lanes)
            result.append(wide.load_to(f"{space}_load.{name}", arguments, registers, lanes, faults=True))
            result.append(wide.store_from(f"{space}_store.{name}", arguments, registers, lanes, faults=True))
    return result


def _argument_types(space: str, lanes: int) -> list[str]:
    """What the functions of a space take before data."""
    mask, kind = f"i{lanes}", vector(lanes)
    if space == "scratch":
        return ["ptr", mask, "i64", kind]
    return ["ptr", mask, "i64", kind, kind, "i64", *(["i64"] if space == "flat" else [])]


@dataclass(frozen=True, slots=True)
class _Place:
    """Which library functions serve an encoding, and how they find the lanes' addresses."""

    space: str  # "global", "flat" or "scratch"
    arguments: list[str]


def translate(frame: Frame, instruction: Instruction) -> bool:
    """Write a load or store; False for anything else, atomics among it."""
    if instruction.encoding not in ("FLAT", "GLOBAL", "SCRATCH"):
        return False
    _, verb, name = instruction.mnemonic.split("_", 2)
    name = name.removeprefix("addtid_")
    target, data = find(instruction.dst, "vdst"), find(instruction.src, "data")
    if verb == "load" and name in LOADS and target is not None:
        if sees_others(instruction):
            frame.builder.do(FENCE)
        _load(frame, LOADS[name], _place(frame, instruction), target.index)
        return True
    if verb == "store" and name in STORES and data is not None:
        _store(frame, STORES[name], _place(frame, instruction), data.index)
        return True
    if name == "block":
        _block(frame, instruction)
        return True
    if name == "tr_b128" and target is not None and frame.lanes == 32:
        _load_transposed(frame, _place(frame, instruction), target.index)
        return True
    return False


def _load(frame: Frame, form: Form, place: _Place, target: int) -> None:
    builder = frame.builder
    dwords = -(-form.size_bytes // 4)
    returned = result_type(frame.lanes, dwords)
    name = f"{place.space}_load.{_LOAD_NAMES[form.size_bytes, form.signed]}.w{frame.lanes}"
    if dwords >= wide.MANY:
        registers = frame.vgprs_in_memory(target, dwords, reads=not frame.full)
        name = name.replace(".w", ".to.w")
        fault = builder.call(name, "i1", [*place.arguments, f"ptr {registers}"])
        frame.wrote_memory(target, dwords)
        frame.fault_if(fault)
        return
    found = builder.call(name, returned, place.arguments)
    frame.fault_if(builder.emit(f"extractvalue {returned} {found}, {dwords}"))
    for dword in range(dwords):
        text = builder.emit(f"extractvalue {returned} {found}, {dword}")
        value = builder.value("u32", text, True)
        if form.half is not None:
            value = _merge_half(frame.vgpr(target), value, form.half)
        frame.set_vgpr(target + dword, value)


def _merge_half(old: Val, value: Val, half: int) -> Val:
    """A register with one half replaced by the low 16 bits of ``value``."""
    if half:
        return (old & 0xFFFF) | value << 16
    return (old & 0xFFFF_0000) | (value & 0xFFFF)


def _store(frame: Frame, form: Form, place: _Place, source: int) -> None:
    builder, dwords = frame.builder, -(-form.size_bytes // 4)
    name = f"{place.space}_store.{_STORE_NAMES[form.size_bytes]}.w{frame.lanes}"
    if dwords >= wide.MANY and source + dwords <= frame.vgprs:
        registers = frame.vgprs_in_memory(source, dwords)
        frame.fault_if(builder.call(name.replace(".w", ".from.w"), "i1", [*place.arguments, f"ptr {registers}"]))
        return
    data = [frame.vgpr(source + dword) for dword in range(dwords)]
    if form.half:
        data = [data[0] >> 16]
    frame.fault_if(builder.call(name, "i1", [*place.arguments, *(builder.spread(value).typed for value in data)]))


def _block(frame: Frame, instruction: Instruction) -> None:
    """GLOBAL_LOAD_BLOCK and GLOBAL_STORE_BLOCK: the registers that M0 selects; holes keep their place in memory."""
    builder, selected, none = frame.builder, frame.sgpr(M0), frame.builder.constant(frame.mask_kind(), 0)
    target, data = find(instruction.dst, "vdst"), find(instruction.src, "data")
    operand = target if target is not None else data
    if operand is None:
        return
    for number in range(operand.bits // 32):
        wanted = builder.value("bool", builder.emit(f"trunc {(selected >> number).typed} to i1"), False)
        mask = frame.select(wanted, frame.exec_bits(), none)
        place = _place(frame, instruction, mask, 4 * number)
        if target is None:
            _store(frame, STORES["b32"], place, operand.index + number)
            continue
        returned = result_type(frame.lanes, 1)
        found = builder.call(f"{place.space}_load.b32.w{frame.lanes}", returned, place.arguments)
        frame.fault_if(builder.emit(f"extractvalue {returned} {found}, 1"))
        value = builder.value("u32", builder.emit(f"extractvalue {returned} {found}, 0"), True)
        frame.set_vgpr(operand.index + number, value, frame.lanes_of(mask))


def _load_transposed(frame: Frame, place: _Place, target: int) -> None:
    """GLOBAL_LOAD_TR_B128, as ``memory_ops.build_transposing_load`` has it: 16-bit elements of every eight lanes."""
    builder, lanes = frame.builder, frame.lanes
    if not frame.full:
        frame.describe_fault(FaultKind.ILLEGAL, Detail.INACTIVE_LANES)
        frame.fault_if(builder.emit(f"icmp ne {frame.exec_bits().typed}, -1"))
    returned = result_type(lanes, 4)
    found = builder.call(f"{place.space}_load.b128.w{lanes}", returned, place.arguments)
    frame.fault_if(builder.emit(f"extractvalue {returned} {found}, 4"))
    short = f"<{2 * lanes} x i16>"
    dwords = [builder.emit(f"extractvalue {returned} {found}, {dword}") for dword in range(4)]
    parts = [builder.emit(f"bitcast {vector(lanes)} {dword} to {short}") for dword in dwords]
    pairs = [
        builder.emit(f"shufflevector {short} {low}, {short} {high}, {vector(4 * lanes)} {constants(range(4 * lanes))}")
        for low, high in (parts[:2], parts[2:])
    ]
    for dword in range(4):
        # Lane l, element e (of 8) stands at 2 * lanes * (e // 2) + 2 * l + e % 2.
        sources = [
            2 * lanes * (lane % 8 // 2) + 2 * (lane & ~7 | 2 * dword + half) + lane % 2
            for lane in range(lanes)
            for half in range(2)
        ]
        wide = f"<{4 * lanes} x i16>"
        order = f"{vector(2 * lanes)} {constants(sources)}"
        picked = builder.emit(f"shufflevector {wide} {pairs[0]}, {wide} {pairs[1]}, {order}")
        text = builder.emit(f"bitcast {short} {picked} to {vector(lanes)}")
        frame.set_vgpr(target + dword, builder.value("u32", text, True))


def _place(frame: Frame, instruction: Instruction, lanes: Val | None = None, further: int = 0) -> _Place:
    """For the lanes of EXEC, or of another mask; ``further`` bytes beyond the addresses."""
    mask = f"i{frame.lanes} {(frame.exec_bits() if lanes is None else lanes).text}"
    if instruction.encoding == "SCRATCH":
        offset = scratch_offset(frame, instruction) + further
        base = frame.state(layout.STATE_SCRATCH, "u64")
        return _Place("scratch", ["ptr %ctx", mask, base.typed, offset.typed])
    arguments = ["ptr %ctx", mask, *flat_address(frame, instruction, further), frame.site()]
    if instruction.encoding == "GLOBAL":
        return _Place("global", arguments)
    return _Place("flat", [*arguments, frame.state(layout.STATE_SCRATCH, "u64").typed])


def flat_offset(frame: Frame, instruction: Instruction) -> int:
    """The immediate offset of a FLAT or GLOBAL instruction; FLAT of gfx11 has 12 bits (ISA manual, "Flat")."""
    offset = frame.generation.offset(instruction)
    return offset if instruction.encoding in frame.generation.signed_offset_bits else offset & 0xFFF


def flat_address(frame: Frame, instruction: Instruction, further: int = 0) -> tuple[str, str, str]:
    """(base, lo, hi) of a FLAT or GLOBAL instruction, typed: the address of a lane is base + (hi:lo)."""
    builder, kind = frame.builder, vector(frame.lanes)
    base = builder.constant("u64", flat_offset(frame, instruction) + further & _MASK64)
    addr, saddr = find(instruction.src, "addr"), find(instruction.src, "saddr")
    if "addtid" in instruction.mnemonic:
        lo, hi = f"{kind} {constants(range(0, 4 * frame.lanes, 4))}", f"{kind} zeroinitializer"
    elif addr is None:
        return base.typed, f"{kind} zeroinitializer", f"{kind} zeroinitializer"
    else:
        lo, hi = frame.vgpr(addr.index).typed, f"{kind} zeroinitializer"
        if saddr is None:
            hi = (frame.vgpr(addr.index + 1) if addr.bits >= 64 else frame.vgpr(addr.index)).typed
    if saddr is not None:
        base = read(frame, saddr, "u64") + base
    return base.typed, lo, hi


def scratch_offset(frame: Frame, instruction: Instruction) -> Val:
    """The byte offset into each lane's private memory of a SCRATCH instruction, in 32 bits that wrap."""
    builder = frame.builder
    total = builder.constant("u32", frame.generation.offset(instruction))
    for name in ("addr", "saddr"):
        operand = find(instruction.src, name)
        if operand is not None:
            total = read(frame, operand, "u32") + total
    return builder.spread(total)
