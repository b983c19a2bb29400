"""Text of operands as LLVM's AMDGPU disassembler writes it: registers, constants, literals, input modifiers."""

from __future__ import annotations

from amdrv.emulator.isa.decode_operand import FLOAT_CONSTANTS
from amdrv.emulator.isa.instruction import Kind, Operand, SpecialReg

_FLOATS = ("0.5", "-0.5", "1.0", "-1.0", "2.0", "-2.0", "4.0", "-4.0", "0.15915494")
_INVERSE_2PI = 248
_NAMES = {
    SpecialReg.VCC_LO: "vcc_lo",
    SpecialReg.VCC_HI: "vcc_hi",
    SpecialReg.NULL: "null",
    SpecialReg.M0: "m0",
    SpecialReg.EXEC_LO: "exec_lo",
    SpecialReg.EXEC_HI: "exec_hi",
    SpecialReg.FLAT_SCRATCH_BASE_LO: "src_flat_scratch_base_lo",
    SpecialReg.FLAT_SCRATCH_BASE_HI: "src_flat_scratch_base_hi",
    SpecialReg.SHARED_BASE: "src_shared_base",
    SpecialReg.SHARED_LIMIT: "src_shared_limit",
    SpecialReg.PRIVATE_BASE: "src_private_base",
    SpecialReg.PRIVATE_LIMIT: "src_private_limit",
    SpecialReg.POPS_EXITING_WAVE_ID: "src_pops_exiting_wave_id",
    SpecialReg.VCCZ: "src_vccz",
    SpecialReg.EXECZ: "src_execz",
    SpecialReg.SCC: "src_scc",
    SpecialReg.LDS_DIRECT: "src_lds_direct",
}
_PAIRS = {SpecialReg.VCC_LO: "vcc", SpecialReg.EXEC_LO: "exec"}


def register_range(prefix: str, index: int, bits: int) -> str:
    """``v5`` or ``v[5:6]``."""
    count = (bits + 31) // 32
    return f"{prefix}{index}" if count <= 1 else f"{prefix}[{index}:{index + count - 1}]"


def scalar_register(code: int, bits: int) -> str:
    """An SGPR, a trap register or a special register, by its operand code."""
    if code < SpecialReg.VCC_LO:
        return register_range("s", code, bits)
    if SpecialReg.TTMP0 <= code < SpecialReg.NULL:
        return register_range("ttmp", code - SpecialReg.TTMP0, bits)
    if bits > 32 and code in _PAIRS:
        return _PAIRS[SpecialReg(code)]
    return _NAMES[SpecialReg(code)]


def operand_text(operand: Operand, wave_bits: int, literal: int = 0, halves: bool = True, splat: bool = False) -> str:
    """An operand without modifiers.

    Lane masks are ``wave_bits`` wide; ``literal`` is the instruction's literal dword; ``halves`` writes ``.l`` and
    ``.h`` behind registers of which half is used.
    """
    bits = wave_bits if operand.type == "mask" else operand.bits
    if operand.kind is Kind.VGPR:
        text = register_range("v", operand.index, bits)
        return text + (".h" if operand.half else ".l") if halves and operand.half is not None else text
    if operand.kind is Kind.CONSTANT:
        return literal_text(operand, literal, splat) if operand.literal else inline_text(operand)
    if operand.kind is Kind.NONE:
        return "off"
    index = operand.index & ~1 if operand.type == "mask" and bits == 64 else operand.index
    return scalar_register(index, bits)


def with_modifiers(operand: Operand, text: str) -> str:
    """The text in ``|…|`` and after ``-``; a bare negated constant is ``neg(…)``, because -1 is another constant."""
    if operand.abs:
        text = f"|{text}|"
    elif operand.neg and operand.kind is Kind.CONSTANT and not text.startswith("lit("):
        return f"neg({text})"
    return f"-{text}" if operand.neg else text


def inline_text(operand: Operand) -> str:
    """An inline constant: decimal, or one of nine floats. A 16-bit integer operand shows the bits of the half float."""
    code = operand.code
    if code < 240:
        return str(code - 128 if code <= 192 else 192 - code)
    if operand.bits == 16 and operand.type[0] != "f" and operand.type != "bf16":
        return hex(FLOAT_CONSTANTS["f16"][code - 240])
    if code == _INVERSE_2PI and operand.bits == 64:
        return "0.15915494309189532"
    return _FLOATS[code - 240]


def literal_text(operand: Operand, literal: int, splat: bool = False) -> str:
    """A literal in hexadecimal; ``lit(…)`` marks one that an inline constant could have said."""
    kind, bits = operand.type, operand.bits
    if operand.name == "literal":  # its own field, where nothing else can stand
        return hex(literal)
    if kind == "f64":
        pattern = literal << 32
        return _FLOATS[FLOAT_CONSTANTS[kind].index(pattern)] if pattern in FLOAT_CONSTANTS[kind] else _hex(literal)
    if could_be_inline(literal, kind, bits, splat):
        return f"lit({literal:#x})"
    return hex(literal & 0xFFFF if bits == 16 else literal)


def constant_text(value: int) -> str:
    """A 32-bit value that is its own field: as the inline constant that it equals, else in hexadecimal."""
    if _is_small(value, 32):
        return str(value - (1 << 32) if value >> 31 else value)
    table = FLOAT_CONSTANTS["f32"]
    return _FLOATS[table.index(value)] if value in table else hex(value)


def _hex(value: int) -> str:
    return hex(value) if value else "0"


def could_be_inline(literal: int, kind: str, bits: int, splat: bool = False) -> bool:
    """Whether a literal dword equals an inline constant of that operand; ``splat``: of one that fills both halves."""
    if splat and not _is_small(literal, 32):
        return literal >> 16 == literal & 0xFFFF and literal >> 16 in FLOAT_CONSTANTS[kind]
    if bits == 64:
        return literal <= 64
    if kind in ("f16", "bf16"):
        narrow = bits == 16  # a packed operand is compared whole
        value = literal & 0xFFFF if narrow else literal
        width = 16 if narrow else 32
        return _is_small(value, width) or value in FLOAT_CONSTANTS[kind]
    return _is_small(literal, 32) or literal in FLOAT_CONSTANTS["f32"]


def _is_small(value: int, width: int) -> bool:
    signed = value - (1 << width) if value >> (width - 1) & 1 else value
    return -16 <= signed <= 64
