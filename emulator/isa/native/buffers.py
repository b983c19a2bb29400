"""MUBUF and MTBUF loads and stores: the translator's side of ``emulator.isa.buffer_ops``, with the same rules."""

from __future__ import annotations

from amdrv.emulator.isa.instruction import Instruction, Operand
from amdrv.emulator.isa.memory_ops import LOADS, STORES, Form
from amdrv.emulator.isa.native import buffer_access, typed_buffers
from amdrv.emulator.isa.native.buffer_access import place_type
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.frame import Frame
from amdrv.emulator.isa.native.ir_text import constants, result_type, vector
from amdrv.emulator.isa.native.lds import placed
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.operands import read
from amdrv.emulator.isa.native.typed_buffers import IDENTITY, encoded
from amdrv.emulator.isa.operands import find

_COMPONENTS = {"x": 1, "xy": 2, "xyz": 3, "xyzw": 4}
_FORMAT = 10  # place of the format among the arguments of typed accesses


def functions(lanes: int) -> list[Function]:
    """Library functions for one wave size."""
    return buffer_access.functions(lanes) + typed_buffers.functions(lanes)


def translate(frame: Frame, instruction: Instruction) -> bool:
    """Write a buffer load or store; False for atomics and what does not exist."""
    _, verb, name = (*instruction.mnemonic.split("_", 2), "")[:3]
    source, target = find(instruction.src, "vdata"), find(instruction.dst, "vdata")
    if "format" in name:
        return _translate_typed(frame, verb, name, instruction)
    if verb == "load" and name in LOADS and target is not None:
        _load(frame, LOADS[name], instruction, target)
        return True
    if verb == "store" and name in STORES and source is not None:
        _store(frame, STORES[name], instruction, source)
        return True
    return False


def _where(frame: Frame, instruction: Instruction) -> list[str]:
    """The arguments that say where the elements are, as ``buffer_access`` wants them."""
    builder, fields = frame.builder, instruction.fields
    resource, scalar = find(instruction.src, "srsrc"), find(instruction.src, "soffset")
    first = resource.index if resource is not None else 0
    words = [frame.sgpr(first + word & 0x7F) for word in range(4)]
    zero = builder.constant("u32", 0)
    vaddr = find(instruction.src, "vaddr")
    registers = [] if vaddr is None else [vaddr.index + dword for dword in range(vaddr.bits // 32)]
    if fields["idxen"] and registers:
        index = frame.vgpr(registers.pop(0))
    else:
        adds_thread = builder.value("bool", builder.emit(f"trunc i32 {(words[3] >> 23).text} to i1"), False)
        lane = builder.value("u32", constants(range(frame.lanes)), True)
        index = frame.select(adds_thread, lane, builder.spread(zero))
        words[1] = frame.select(adds_thread, words[1], words[1] & 0x3FFF_FFFF)
    offset = frame.vgpr(registers[0]) if fields["offen"] and registers else builder.spread(zero)
    base = read(frame, scalar, "u32") if scalar is not None else zero
    return [*(word.typed for word in words), index.typed, offset.typed, base.typed, f"i32 {fields['offset']}"]


def locate(frame: Frame, instruction: Instruction, size_bytes: int) -> tuple[Val, Val]:
    """(virtual address of each lane's element as u64, the lanes of EXEC whose element is in bounds)."""
    builder, lanes = frame.builder, frame.lanes
    kind = place_type(lanes)
    arguments = [*_where(frame, instruction), f"i32 {size_bytes}", f"i32 {size_bytes}"]
    place = builder.call(f"buffer_where.w{lanes}", kind, arguments)
    parts = [builder.emit(f"extractvalue {kind} {place}, {number}") for number in (0, 1, 2, 4)]
    base, fits = builder.value("u64", parts[0], False), builder.value(frame.mask_kind(), parts[3], False)
    low, high = (builder.value("u32", part, True) for part in parts[1:3])
    return frame.join(low, high) + base, frame.exec_bits() & fits


def _load(frame: Frame, form: Form, instruction: Instruction, target: Operand) -> None:
    builder, lanes = frame.builder, frame.lanes
    dwords = -(-form.size_bytes // 4)
    name = f"b{8 * form.size_bytes}" if form.size_bytes >= 4 else f"{'i' if form.signed else 'u'}{8 * form.size_bytes}"
    arguments = ["ptr %ctx", frame.exec_bits().typed, *_where(frame, instruction), frame.site()]
    kind = result_type(lanes, dwords)
    result = builder.call(f"buffer_load.{name}.w{lanes}", kind, arguments)
    values = [builder.value("u32", builder.emit(f"extractvalue {kind} {result}, {n}"), True) for n in range(dwords)]
    frame.fault_if(builder.emit(f"extractvalue {kind} {result}, {dwords}"))
    if form.half is not None:
        values = [placed(frame, values[0], form, target.index)]
    for dword, value in enumerate(values):
        frame.set_vgpr(target.index + dword, value)
    _set_status(frame, instruction, target)


def _set_status(frame: Frame, instruction: Instruction, target: Operand) -> None:
    """Texture-fail status behind the data: every page was resident, or there would have been a fault."""
    if instruction.fields["tfe"]:
        frame.set_vgpr(target.index + target.bits // 32 - 1, frame.builder.constant("u32", 0))


def _store(frame: Frame, form: Form, instruction: Instruction, source: Operand) -> None:
    dwords = -(-form.size_bytes // 4)
    data = [frame.vgpr(source.index + dword) for dword in range(dwords)]
    if form.half:
        data = [data[0] >> 16]
    where = [*_where(frame, instruction), frame.site()]
    arguments = ["ptr %ctx", frame.exec_bits().typed, *where, *(value.typed for value in data)]
    frame.fault_if(frame.builder.call(f"buffer_store.b{8 * form.size_bytes}.w{frame.lanes}", "i1", arguments))


# With a format.


def _translate_typed(frame: Frame, verb: str, name: str, instruction: Instruction) -> bool:
    count = _COMPONENTS.get(name.rpartition("_")[2])
    operand = find(instruction.dst if verb == "load" else instruction.src, "vdata")
    if count is None or "lds" in name or operand is None:
        return False
    arguments = ["ptr %ctx", frame.exec_bits().typed, *_where(frame, instruction), *_format(frame, instruction)]
    shape = (count, "d16" in name, "d16_hi" in name)
    if verb == "load":
        _load_typed(frame, arguments, operand, shape)
        _set_status(frame, instruction, operand)
    else:
        _store_typed(frame, arguments, operand, shape)
    return True


def _format(frame: Frame, instruction: Instruction) -> list[str]:
    """(format, selection of components): the instruction's, or the descriptor's."""
    if instruction.encoding == "MTBUF":
        return [f"i64 {encoded(instruction.fields['format'])}", f"i32 {IDENTITY}"]
    resource = find(instruction.src, "srsrc")
    word = frame.sgpr((resource.index if resource is not None else 0) + 3 & 0x7F)
    number = word >> 12 & 0x3F
    layout = frame.builder.call(f"buffer_format.w{frame.lanes}", "i64", [number.typed])
    return [f"i64 {layout}", (word & 0xFFF).typed]


def _load_typed(frame: Frame, arguments: list[str], target: Operand, shape: tuple[int, bool, bool]) -> None:
    builder, (count, short, high), kind = frame.builder, shape, result_type(frame.lanes, 4)
    result = builder.call(f"typed_load.w{frame.lanes}", kind, [*arguments, f"i1 {str(short).lower()}"])
    values = [builder.value("u32", builder.emit(f"extractvalue {kind} {result}, {n}"), True) for n in range(count)]
    frame.fault_if(builder.emit(f"extractvalue {kind} {result}, 4"))
    if short:
        values = _packed(frame, values, target.index, arguments[_FORMAT], high)
    for dword, value in enumerate(values):
        frame.set_vgpr(target.index + dword, value)


def _packed(frame: Frame, values: list[Val], target: int, layout: str, high: bool) -> list[Val]:
    """Components of 16 bits as registers: a single one keeps the other half, unless the format is invalid."""
    builder = frame.builder
    zero = builder.spread(builder.constant("u32", 0))
    if len(values) > 1:
        values = [*values, zero]
        return [values[pair] | values[pair + 1] << 16 for pair in range(0, len(values) - 1, 2)]
    old = frame.vgpr(target)
    merged = (old & 0xFFFF) | values[0] << 16 if high else (old & 0xFFFF_0000) | values[0]
    invalid = builder.value("bool", builder.emit(f"icmp eq {layout}, 0"), False)
    return [frame.select(invalid, zero, merged)]


def _store_typed(frame: Frame, arguments: list[str], source: Operand, shape: tuple[int, bool, bool]) -> None:
    count, short, high = shape
    registers = [frame.vgpr(source.index + dword) for dword in range(-(-count // 2) if short else count)]
    values = registers
    if short:
        halves = [half for register in registers for half in (register & 0xFFFF, register >> 16)]
        values = halves[1:2] if high else halves[:count]
    data = [value.typed for value in values] + [f"{vector(frame.lanes)} zeroinitializer"] * (4 - len(values))
    extra = [f"i1 {str(short).lower()}", f"i32 {count}"]
    frame.fault_if(frame.builder.call(f"typed_store.w{frame.lanes}", "i1", [*arguments, *extra, *data]))
