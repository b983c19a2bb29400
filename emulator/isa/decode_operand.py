"""Operand codes to Operands: registers, halves of registers, constants widened to the operand's type."""

from __future__ import annotations

from dataclasses import dataclass

from amdrv.emulator.isa.instruction import Dpp, Kind, Operand, SpecialReg
from amdrv.emulator.isa.table import OperandSpec, OpSpec

VGPR_BASE = 256
LITERAL = 255
NULL = 124
MEMORY = frozenset(("FLAT", "GLOBAL", "SCRATCH", "MUBUF", "MTBUF"))
SHORT_VECTOR = frozenset(("VOP1", "VOP2", "VOPC"))
_SOURCE_INDEX = {"src0": 0, "src1": 1, "src2": 2, "vdst": 3}
_SPECIAL = frozenset(int(code) for code in SpecialReg) | frozenset(range(108, 124))

# Inline float constants 240..248 as bit patterns: 0.5 -0.5 1.0 -1.0 2.0 -2.0 4.0 -4.0 1/(2 pi)
FLOAT_CONSTANTS = {
    "f16": (0x3800, 0xB800, 0x3C00, 0xBC00, 0x4000, 0xC000, 0x4400, 0xC400, 0x3118),
    "bf16": (0x3F00, 0xBF00, 0x3F80, 0xBF80, 0x4000, 0xC000, 0x4080, 0xC080, 0x3E22),
    "f32": (
        0x3F000000, 0xBF000000, 0x3F800000, 0xBF800000, 0x40000000, 0xC0000000, 0x40800000, 0xC0800000, 0x3E22F983,
    ),
    "f64": (
        0x3FE0000000000000, 0xBFE0000000000000, 0x3FF0000000000000, 0xBFF0000000000000, 0x4000000000000000,
        0xC000000000000000, 0x4010000000000000, 0xC010000000000000, 0x3FC45F306DC9C882,
    ),
}  # fmt: skip


class ReservedCode(Exception):
    """An operand code that names nothing."""


@dataclass(slots=True)
class Context:
    """What decoding an operand may look at."""

    encoding: str
    op: OpSpec
    fields: dict[str, int]
    literal: int | None
    dpp: Dpp | None


def element_bits(kind: str) -> int:
    """Width of one element of an operand type: 16 for "bf16", 64 for "mask"."""
    digits = kind.lstrip("abcdefghijklmnopqrstuvwxyz")
    return int(digits) if digits else 64


def inline_constant(code: int, kind: str, bits: int) -> int:
    """Bit pattern of inline constant ``code`` (128..208, 240..248) in an operand of ``bits`` bits of ``kind``.

    Integers are sign-extended to the operand. Floats follow the operand: f16 or bf16 in the low half with zero above,
    f32, f64; a 16-bit integer operand, packed or not, reads the f32 pattern (LLVM 22 AMDGPUBaseInfo.cpp:
    getInlineEncodingV216; SIInstrInfo.cpp: isInlineConstant, on what the hardware was seen to do).
    In an operand wider than 64 bits (a matrix) every element is the constant: the pattern is that of one register,
    with a 16-bit element in both halves.
    """
    if bits > 64:
        element = inline_constant(code, kind, element_bits(kind))
        return element | element << 16 if element_bits(kind) == 16 else element
    if code <= 208:
        value = code - 128 if code <= 192 else 192 - code
        return value & ((1 << bits) - 1)
    index = code - 240
    if kind in ("f16", "bf16"):
        return FLOAT_CONSTANTS[kind][index]
    if bits == 64:
        return FLOAT_CONSTANTS["f64"][index]
    return FLOAT_CONSTANTS["f32"][index] & ((1 << bits) - 1)


def literal_constant(literal: int, kind: str, bits: int) -> int:
    """A 32-bit literal as an operand of ``bits`` bits of ``kind`` sees it.

    For f64 it is the high dword; a signed 64-bit integer extends the sign, others zeroes (RDNA3 ISA manual, 4.2).
    """
    if bits == 64:
        if kind == "f64":
            return literal << 32
        if kind in ("i64", "mask") and literal >> 31:
            return literal | 0xFFFF_FFFF_0000_0000
        return literal
    return literal & 0xFFFF if bits == 16 else literal


class OperandDecoder:
    """Decodes operands; equal ones are made once."""

    def __init__(self) -> None:
        # By id of the OperandSpec: tables live as long as the process, and hashing a spec costs more than decoding it.
        self._made: dict[tuple[int, int, int, int | None], Operand] = {}

    def decode(self, specs: tuple[OperandSpec, ...], context: Context) -> tuple[Operand, ...]:
        """The operands of ``specs`` that are there; raises ReservedCode."""
        fields = context.fields
        return tuple(self._one(spec, context) for spec in specs if not spec.flag or fields[spec.flag])

    def _one(self, spec: OperandSpec, context: Context) -> Operand:
        code = context.fields.get(spec.field, 0)
        cls = spec.cls
        if cls == "k" or (code == LITERAL and cls in "acdw"):
            return self._literal(spec, context)
        if context.encoding in MEMORY:
            modifiers, half, bits = 0, None, _width(spec, context)
        else:
            modifiers, half = _modifiers(spec, context)
            bits = spec.bits
        if bits == 16 and context.encoding in SHORT_VECTOR and (cls == "v" or code >= VGPR_BASE):
            code, half = code & ~0x80, code >> 7 & 1  # the top bit of the register number picks the half
        key = (id(spec), code | bits << 16, modifiers, half)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = _make(spec, code, bits, modifiers, half)
        return made

    def _literal(self, spec: OperandSpec, context: Context) -> Operand:
        literal = context.literal or 0
        modifiers, half = _modifiers(spec, context)
        kind, bits, half = _mix(spec, modifiers, half)
        if half and bits == 16:
            literal >>= 16
        value = literal_constant(literal, kind, bits)
        neg, magnitude = bool(modifiers & 1), bool(modifiers & 2)
        return Operand(spec.name, Kind.CONSTANT, 0, bits, kind, value, neg, magnitude, None, literal=True, code=LITERAL)


def _modifiers(spec: OperandSpec, context: Context) -> tuple[int, int | None]:
    """(neg | abs << 1 | mix-is-f16 << 2, half) of an operand."""
    index = _SOURCE_INDEX.get(spec.name)
    if index is None:
        return 0, None
    fields = context.fields
    half: int | None = None
    if spec.type == "mix":
        picked = fields["opsel_hi"] >> index & 1
        modifiers = fields["neg"] >> index & 1 | (fields["neg_hi"] >> index & 1) << 1 | picked << 2
        return modifiers, fields["opsel"] >> index & 1 if picked else None
    if spec.bits == 16:
        half = fields["opsel"] >> index & 1 if context.encoding in ("VOP3", "VINTERP") else 0
        if context.op.mnemonic == "v_fma_mixhi_f16":
            half = 1
    if index == 3 or context.encoding == "VOP3P" or spec.type == "mask":
        return 0, half
    flags = context.op.flags
    neg = fields.get("neg", 0) & flags.get("neg", 0)
    magnitude = fields.get("abs", 0) & flags.get("abs", 0)
    return neg >> index & 1 | (magnitude >> index & 1) << 1, half


def _mix(spec: OperandSpec, modifiers: int, half: int | None) -> tuple[str, int, int | None]:
    """Type, width and half of an operand once op_sel_hi has said what a mixed-precision source is."""
    if spec.type != "mix":
        return spec.type, spec.bits, half
    return ("f16", 16, half) if modifiers & 4 else ("f32", 32, None)


def _width(spec: OperandSpec, context: Context) -> int:
    """Width in bits where other fields decide it."""
    fields = context.fields
    encoding = context.encoding
    if spec.name == "addr" and encoding == "GLOBAL" and fields["saddr"] != NULL:
        return 32  # an offset beside a 64-bit scalar base
    if spec.name == "addr" and encoding == "SCRATCH" and not fields["sve"]:
        return 0
    if encoding in ("MUBUF", "MTBUF"):
        if spec.name == "vaddr":
            return 32 * (fields["offen"] + fields["idxen"])
        if spec.name == "vdata" and fields["tfe"]:
            return spec.bits + 32  # the texture-fail status follows the data
    return spec.bits


def _make(spec: OperandSpec, code: int, bits: int, modifiers: int, half: int | None) -> Operand:
    cls = spec.cls
    if cls == "v":
        code &= 0xFF
        if not bits:
            return Operand(spec.name, Kind.NONE, 0, 0, spec.type, code=code)
        type_ = spec.type if bits == spec.bits else f"b{bits}"
        neg, magnitude = bool(modifiers & 1), bool(modifiers & 2)
        return Operand(spec.name, Kind.VGPR, code, bits, type_, 0, neg, magnitude, half, code=code)
    if cls == "x":
        register = SpecialReg.VCC_LO if spec.field == "vcc" else SpecialReg.EXEC_LO
        return Operand(spec.name, Kind.SPECIAL, register, bits, spec.type, code=register)
    if cls in ("i", "m"):
        value = code
        if cls == "i" and spec.type[0] == "i" and code >> 15:
            value |= 0xFFFF_0000
        return Operand(spec.name, Kind.CONSTANT, 0, bits, spec.type, value, code=code)
    if spec.name == "saddr" and code == NULL:
        return Operand(spec.name, Kind.NONE, 0, bits, spec.type, code=code)
    if cls == "p":
        code *= 2
    elif cls == "q":
        code *= 4
    return _register_or_constant(spec, code, bits, modifiers, half)


def _register_or_constant(spec: OperandSpec, code: int, bits: int, modifiers: int, half: int | None) -> Operand:
    neg, magnitude = bool(modifiers & 1), bool(modifiers & 2)
    kind, mix_bits, half = _mix(spec, modifiers, half)
    if spec.type == "mix":
        bits = mix_bits
    if code >= VGPR_BASE:
        if spec.cls in "cspq":
            raise ReservedCode(f"{spec.name} is a vector register, which cannot be addressed there")
        return Operand(spec.name, Kind.VGPR, code - VGPR_BASE, bits, kind, 0, neg, magnitude, half, code=code)
    if bits > 32 and code < NULL and kind != "mask":
        code &= ~1 if bits == 64 else ~3  # hardware ignores the low bits of a wide scalar operand's number
    if code < 106:
        return Operand(spec.name, Kind.SGPR, code, bits, kind, 0, neg, magnitude, half, code=code)
    if code in _SPECIAL:
        if code >= 128 and spec.cls in "spq":
            raise ReservedCode(f"{spec.name} is operand code {code}, which cannot be addressed there")
        return Operand(spec.name, Kind.SPECIAL, code, bits, kind, 0, neg, magnitude, half, code=code)
    if spec.cls in "acdw" and (128 <= code <= 208 or 240 <= code <= 248):
        value = inline_constant(code, "b32" if spec.cls == "w" else kind, bits)
        if spec.cls == "d" and code >= 240:
            value |= value << 16
        if half and bits == 16:  # the upper half of a 32-bit constant; above an f16 it is zero
            value = inline_constant(code, kind, 32) >> 16
        return Operand(spec.name, Kind.CONSTANT, 0, bits, kind, value, neg, magnitude, code=code)
    raise ReservedCode(f"{spec.name} is reserved operand code {code}")
