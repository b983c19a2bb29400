"""What a decoded instruction is: the joint between decoder, disassembler, interpreter and translator.

Every field is a fact about the machine code, none is about how it is executed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from amdrv.errors import MalformedInput


class Kind(enum.IntEnum):
    """Where an operand lives."""

    SGPR = 0  # index = register number 0..105
    VGPR = 1  # index = register number 0..255
    SPECIAL = 2  # index = a SpecialReg
    CONSTANT = 3  # value = the bit pattern as the operand's width sees it (inline constant or literal, widened)
    NONE = 4  # "off", or an operand that the encoding leaves out


class SpecialReg(enum.IntEnum):
    """Scalar operand codes that are not SGPRs (numbers are the SSRC codes of RDNA3, ISA manual 3.4 and 5)."""

    VCC_LO = 106
    VCC_HI = 107
    TTMP0 = 108  # .. TTMP15 = 123
    NULL = 124
    M0 = 125
    EXEC_LO = 126
    EXEC_HI = 127
    FLAT_SCRATCH_BASE_LO = 230  # LLVM reads both on all processors, later ones than these have them
    FLAT_SCRATCH_BASE_HI = 231
    SHARED_BASE = 235
    SHARED_LIMIT = 236
    PRIVATE_BASE = 237
    PRIVATE_LIMIT = 238
    POPS_EXITING_WAVE_ID = 239
    VCCZ = 251
    EXECZ = 252
    SCC = 253
    LDS_DIRECT = 254


@dataclass(frozen=True, slots=True)
class Operand:
    """One source or destination.

    ``bits`` is the width of the whole operand (a 128-bit load destination has bits=128 and covers four registers);
    ``type`` is how the instruction reads the bits: b, u, i, f or bf followed by the element width ("f32", "u64",
    "b128", "f16", "pk_f16" is written "f16" with bits=32), "iu8" and "iu4" (signed where the neg field says so), or
    "mask": a lane mask, as wide as the wave (bits is then 64; only a wave64 aligns the register number to a pair).
    A constant wider than 64 bits holds one register's pattern (16-bit elements in both halves).
    ``half`` selects the upper 16 bits of a 32-bit register (true16 ``.h`` or op_sel); None when the question does not
    arise. ``neg``/``abs`` are the VOP3 (and DPP) input modifiers, set only where the opcode has them; packed
    instructions (VOP3P) leave theirs in ``fields``, but for v_fma_mix, whose sources are resolved to f32 or f16.
    """

    name: str  # "vdst", "src0", "sdst", "vaddr", ... as in the manual, but VOP2's vsrc1 is "src1" as in VOP3
    kind: Kind
    index: int
    bits: int
    type: str
    value: int = 0
    neg: bool = False
    abs: bool = False
    half: int | None = None
    literal: bool = False  # the constant came from a literal dword (for the disassembler)
    code: int = 0  # the raw operand code as encoded (for the disassembler)


@dataclass(frozen=True, slots=True)
class Dpp:
    """Data-parallel primitive control of a DPP16 or DPP8 encoded instruction."""

    kind: str  # "dpp16" or "dpp8"
    control: int  # DPP16: dpp_ctrl (9 bits); DPP8: the 24 bits of lane selectors
    row_mask: int = 0xF
    bank_mask: int = 0xF
    bound_ctrl: bool = False
    fetch_inactive: bool = False


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction.

    ``mnemonic`` is the base name without an encoding suffix ("v_add_f32", not "v_add_f32_e64").
    ``fields`` holds every raw bit field of the encoding by its manual name (op, clamp, omod, opsel, opsel_hi, neg,
    neg_hi, offset, offset0, offset1, glc, slc, dlc, simm16, …), for semantics and printing, and the ``literal`` dword.
    Implicit operands are there like explicit ones: the mask of v_cndmask, carries in and out, the VCC or EXEC that a
    compare writes. An operand that is read and written (v_fmac, s_addk) is a destination only.
    A dual instruction (VOPD) has its two halves in ``dual``, named without "dual_", and no operands of its own.
    """

    mnemonic: str
    encoding: str  # "SOP1", "SOP2", "SOPC", "SOPK", "SOPP", "SMEM", "VOP1", "VOP2", "VOP3", "VOP3SD", "VOP3P", …
    opcode: int
    size_bytes: int
    dst: tuple[Operand, ...]  # explicit destinations, in encoding order
    src: tuple[Operand, ...]  # explicit sources, in encoding order
    fields: dict[str, int] = field(default_factory=dict, hash=False)
    dpp: Dpp | None = None
    dual: tuple[Instruction, Instruction] | None = None
    words: tuple[int, ...] = ()


class UnknownInstruction(MalformedInput):
    """Bits that are no instruction of the generation: the words looked at, the encoding and opcode they seem to have.

    ``encoding`` is empty when not even that is known. The unknown word is one dword long.
    """

    def __init__(self, words: tuple[int, ...], encoding: str, opcode: int, reason: str = "") -> None:
        shown = " ".join(f"{word:08x}" for word in words) or "no bytes"
        where = f"{encoding} opcode {opcode}" if encoding else "no known encoding"
        super().__init__(f"not an instruction: {shown} ({where}{': ' + reason if reason else ''})")
        self.words = words
        self.encoding = encoding
        self.opcode = opcode
        self.reason = reason
