"""From an operand to a value and back: the translator's side of ``emulator.isa.operands``, with the same rules."""

from __future__ import annotations

from amdrv.emulator.isa.instruction import Instruction, Kind, Operand, SpecialReg
from amdrv.emulator.isa.native.builder import WIDTHS, Val
from amdrv.emulator.isa.native.frame import VCC, Frame
from amdrv.emulator.isa.operands import is_packed

_FLOATS = {16: "f16", 32: "f32", 64: "f64"}
_SIGNED = {16: "i16", 32: "i32", 64: "i64"}
_UNSIGNED = {16: "u16", 32: "u32", 64: "u64"}


def operand_kind(operand: Operand) -> str:
    """The kind in which a definition wants an operand of at most 64 bits."""
    bits = 16 if operand.bits <= 16 else 32 if operand.bits <= 32 else 64
    if is_packed(operand):
        return _UNSIGNED[bits]
    letter = operand.type.rstrip("0123456789")
    return {"f": _FLOATS, "i": _SIGNED}.get(letter, _UNSIGNED)[bits]


def in_range(instruction: Instruction, vgprs: int) -> bool:
    """Whether every VGPR destination is allocated: an instruction with one that is not does nothing."""
    return all(
        operand.kind != Kind.VGPR or operand.index + -(-operand.bits // 32) <= vgprs for operand in instruction.dst
    )


def retype(value: Val, kind: str) -> Val:
    """The same bits as another kind of the same width."""
    if value.kind == kind:
        return value
    builder = value.builder
    if value.bits is not None:
        constant = builder.constant(kind, value.bits)
        return builder.spread(constant) if value.vector else constant
    if value.kind[0] != "f" and kind[0] != "f":
        return builder.value(kind, value.text, value.vector)
    text = builder.emit(f"bitcast {value.typed} to {builder.type(kind, value.vector)}")
    return builder.value(kind, text, value.vector)


def resize(value: Val, kind: str) -> Val:
    """An unsigned value cut or zero-extended to another unsigned kind."""
    builder, width, wanted = value.builder, WIDTHS[value.kind], WIDTHS[kind]
    if width == wanted:
        return retype(value, kind)
    if value.bits is not None:
        constant = builder.constant(kind, value.bits)
        return builder.spread(constant) if value.vector else constant
    verb = "trunc" if wanted < width else "zext"
    text = builder.emit(f"{verb} {value.typed} to {builder.type(kind, value.vector)}")
    return builder.value(kind, text, value.vector)


def read(frame: Frame, operand: Operand, kind: str) -> Val:
    """A source of up to 64 bits as ``kind``, without its modifiers: per lane from VGPRs, else a scalar."""
    width = WIDTHS[kind]
    if operand.kind == Kind.CONSTANT:
        return frame.builder.constant(kind, operand.value)
    if operand.kind == Kind.VGPR:
        if width == 64:
            if operand.bits >= 64:
                return retype(frame.vgpr64(operand.index), kind)
            single = frame.vgpr(operand.index)
            return retype(frame.join(single, single), kind)
        return _part(frame.vgpr(operand.index), kind, operand)
    if operand.kind == Kind.SGPR or operand.index <= SpecialReg.EXEC_HI:
        if width == 64:
            return retype(frame.sgpr64(operand.index), kind)
        return _part(frame.sgpr(operand.index), kind, operand)
    if operand.kind == Kind.SPECIAL:
        return _special(frame, operand, kind)
    return frame.builder.constant(kind, 0)


def read_registers(frame: Frame, operand: Operand, count: int) -> list[Val]:
    """The registers of a wide operand as u32; what is no vector register is the same in all of them."""
    if operand.kind == Kind.VGPR:
        return [frame.vgpr(operand.index + number) for number in range(count)]
    return [read(frame, operand, "u32")] * count


def _part(word: Val, kind: str, operand: Operand) -> Val:
    """A 32-bit register, or the half of it that the operand names."""
    if WIDTHS[kind] == 32:
        return retype(word, kind)
    return retype(resize(word >> 16 if operand.half else word, "u16"), kind)


def _special(frame: Frame, operand: Operand, kind: str) -> Val:
    index, word = operand.index, _UNSIGNED[WIDTHS[kind]]
    if SpecialReg.SHARED_BASE <= index <= SpecialReg.PRIVATE_LIMIT:
        shared = index <= SpecialReg.SHARED_LIMIT
        base = frame.context("shared_base" if shared else "private_base", "u64")
        limit = 0xFFFF_FFFF if index in (SpecialReg.SHARED_LIMIT, SpecialReg.PRIVATE_LIMIT) else 0
        return retype(resize(base | limit, word), kind)
    if index == SpecialReg.SCC:
        return retype(resize(frame.scc(), word), kind)
    if index in (SpecialReg.VCCZ, SpecialReg.EXECZ):
        mask = frame.mask(VCC) if index == SpecialReg.VCCZ else frame.exec_bits()
        return retype(resize(is_zero(mask), word), kind)
    return frame.builder.constant(kind, 0)


def is_zero(value: Val) -> Val:
    """Whether a scalar integer is zero."""
    builder = value.builder
    if value.bits is not None:
        return builder.constant("bool", int(value.bits == 0))
    return builder.value("bool", builder.emit(f"icmp eq {value.typed}, 0"), False)


def modified(value: Val, operand: Operand) -> Val:
    """The operand's abs and neg modifiers, applied to the sign bit."""
    if not (operand.neg or operand.abs):
        return value
    width = WIDTHS[value.kind]
    bits, sign = retype(value, _UNSIGNED[width]), 1 << (width - 1)
    if operand.abs:
        bits = bits & (sign - 1)
    if operand.neg:
        bits = bits ^ sign
    return retype(bits, value.kind)


def write_scalar(frame: Frame, code: int, value: Val) -> None:
    """A scalar destination whose width is that of the result; 16 bits are zero-extended."""
    width = WIDTHS[value.kind]
    if width == 64:
        frame.set_sgpr64(code, value)
    elif width == 32:
        frame.set_sgpr(code, value)
    else:
        frame.set_sgpr(code, resize(retype(value, _UNSIGNED[width]), "u32"))


def write_vector(frame: Frame, operand: Operand, value: Val, mask: Val | None) -> None:
    """A VGPR destination whose width is that of the result; 16 bits leave the other half alone."""
    width = WIDTHS[value.kind]
    if width == 64:
        frame.set_vgpr64(operand.index, value, mask)
    elif width == 32:
        frame.set_vgpr(operand.index, value, mask)
    else:
        short, old = resize(retype(value, "u16"), "u32"), frame.vgpr(operand.index)
        if operand.half:
            merged = (old & 0xFFFF) | short << 16
        else:
            merged = (old & 0xFFFF_0000) | short
        frame.set_vgpr(operand.index, merged, mask)


def write_mask(frame: Frame, code: int, value: Val, mask: Val | None) -> None:
    """Truth values per lane to a mask register, with zeroes for lanes that do not take part."""
    bits = frame.mask_of(value)
    taking_part = frame.exec_bits() if mask is None else frame.mask_of(mask)
    frame.set_mask(code, bits & taking_part)
