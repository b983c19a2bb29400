"""Machine code to Instruction: one decoder for every generation, driven by that generation's table.

Unused fields are ignored, as hardware ignores them. What does not decode raises UnknownInstruction with the bits named.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import TypeAlias

from amdrv.emulator.isa.decode_operand import Context, OperandDecoder, ReservedCode
from amdrv.emulator.isa.instruction import Dpp, Instruction, UnknownInstruction
from amdrv.emulator.isa.table import EncodingSpec, OpSpec, generation_of, load_table

Code: TypeAlias = "Sequence[int] | bytes | bytearray | memoryview"

LITERAL = 255
DPP16 = 250
DPP8 = 233
DPP8_FETCH_INACTIVE = 234
DPP_ENCODINGS = frozenset(("VOP1", "VOP2", "VOPC", "VOP3", "VOP3SD", "VOP3P"))
_LATE = ("gfx1150", "gfx1151", "gfx1152", "gfx1153")
_LITERAL_CLASSES = ("a", "c", "d", "w")


class Decoder:
    """Decodes one generation ("gfx11") or one processor of it ("gfx1100"); raises Unsupported for others.

    A decoder has no state but caches; decoding is safe from several threads.
    """

    def __init__(self, arch: str = "gfx11") -> None:
        self.arch = arch
        self._table = load_table(generation_of(arch))
        self._further = frozenset(() if arch in _LATE else ("gfx1150",))  # flags of opcodes that this part lacks
        self._operands = OperandDecoder()
        self._candidates = _candidates(generation_of(arch))

    def decode(self, words: Code, offset_bytes: int = 0) -> Instruction:
        """The instruction at ``offset_bytes`` (a multiple of 4) of ``words``: bytes, or a sequence of dwords.

        Raises UnknownInstruction when the bits are no instruction of this generation, or end in its middle.
        """
        fetched = _fetch(words, offset_bytes)
        if not fetched:
            raise UnknownInstruction((), "", 0, "code ends here")
        word0 = fetched[0]
        nearest: tuple[str, int] = ("", 0)
        for encoding in self._candidates[word0 >> 23]:
            if (word0 & encoding.mask) != encoding.value:
                continue
            if encoding.name == "VOPD":
                return self._dual(encoding, fetched)
            opcode = _field(encoding, "op", word0)
            op = self._table.ops[encoding.name].get(opcode)
            if op is not None:
                return self._single(encoding, op, fetched)
            nearest = nearest if nearest[0] else (encoding.name, opcode)
        raise UnknownInstruction(fetched[:1], *nearest)

    def _single(self, encoding: EncodingSpec, op: OpSpec, fetched: tuple[int, ...]) -> Instruction:
        need = encoding.dwords
        if len(fetched) < need:
            raise UnknownInstruction(fetched, op.encoding, op.opcode, "code ends in the middle of it")
        raw = fetched[0] if need == 1 else fetched[0] | fetched[1] << 32
        if need == 3:
            raw |= fetched[2] << 64
        if not self._further.isdisjoint(op.flags):
            raise UnknownInstruction(fetched[:1], op.encoding, op.opcode, f"{op.mnemonic} is not on {self.arch}")
        fields = {name: (raw >> low) & mask for name, low, mask in encoding.fields}
        if "opsel_hi2" in fields:
            fields["opsel_hi"] |= fields.pop("opsel_hi2") << 2
        if fields.get("nsa"):  # an image instruction with a list of address registers in one more dword
            need += 1
            if len(fetched) < need:
                raise UnknownInstruction(fetched, op.encoding, op.opcode, "code ends before its address list")
        dpp = None
        literal = None
        if encoding.name in DPP_ENCODINGS and fields["src0"] in (DPP16, DPP8, DPP8_FETCH_INACTIVE):
            if "dpp" not in op.flags:
                raise UnknownInstruction(fetched[:need], op.encoding, op.opcode, f"{op.mnemonic} has no DPP form")
            if len(fetched) <= need:
                raise UnknownInstruction(fetched, op.encoding, op.opcode, "code ends before its DPP control")
            dpp = _dpp(fields, fetched[need], encoding.dwords == 1)
            need += 1
        elif _wants_literal(op, fields):
            if len(fetched) <= need:
                raise UnknownInstruction(fetched, op.encoding, op.opcode, "code ends before its literal")
            literal = fetched[need]
            fields["literal"] = literal
            need += 1
        context = Context(encoding.name, op, fields, literal, dpp)
        try:
            dst = self._operands.decode(op.dst, context)
            src = self._operands.decode(op.src, context)
        except ReservedCode as error:
            raise UnknownInstruction(fetched[:need], op.encoding, op.opcode, str(error)) from None
        return Instruction(op.mnemonic, op.encoding, op.opcode, need * 4, dst, src, fields, dpp, None, fetched[:need])

    def _dual(self, encoding: EncodingSpec, fetched: tuple[int, ...]) -> Instruction:
        """VOPD: two halves that share the literal. vdsty's lowest bit is the opposite of vdstx's."""
        if len(fetched) < 2:
            raise UnknownInstruction(fetched, "VOPD", 0, "code ends in the middle of it")
        raw = fetched[0] | fetched[1] << 32
        fields = {name: (raw >> low) & mask for name, low, mask in encoding.fields}
        opcodes = fields["opx"], fields["opy"]
        opcode = opcodes[0] << 5 | opcodes[1]
        vdsts = fields["vdstx"], fields["vdsty"] << 1 | (~fields["vdstx"] & 1)
        halves: list[tuple[OpSpec, dict[str, int]]] = []
        literal = None
        need = 2
        for half, half_opcode, vdst in zip("xy", opcodes, vdsts, strict=True):
            op = self._table.ops["VOPD"].get(half_opcode)
            if op is None:
                raise UnknownInstruction(fetched[:2], "VOPD", opcode, f"no op{half} {half_opcode}")
            view = {"vdsty": vdst, "srcy0": fields[f"src{half}0"], "vsrcy1": fields[f"vsrc{half}1"]}
            halves.append((op, view))
            if _wants_literal(op, view) and literal is None:
                if len(fetched) < 3:
                    raise UnknownInstruction(fetched, "VOPD", opcode, "code ends before its literal")
                literal, need = fetched[2], 3
                fields["literal"] = literal
        dual = []
        for half, (op, view) in zip("XY", halves, strict=True):
            if literal is not None:
                view["literal"] = literal
            context = Context("VOPD", op, view, literal, None)
            try:
                dst = self._operands.decode(op.dst, context)
                src = self._operands.decode(op.src, context)
            except ReservedCode as error:
                raise UnknownInstruction(fetched[:need], "VOPD", opcode, str(error)) from None
            dual.append(Instruction(op.mnemonic, f"VOPD{half}", op.opcode, need * 4, dst, src, view))
        first, second = dual
        name = f"{first.mnemonic.replace('v_', 'v_dual_', 1)} :: {second.mnemonic.replace('v_', 'v_dual_', 1)}"
        return Instruction(name, "VOPD", opcode, need * 4, (), (), fields, None, (first, second), fetched[:need])


@functools.cache
def _candidates(generation: str) -> tuple[tuple[EncodingSpec, ...], ...]:
    """Encodings that a word may belong to, by its top nine bits, the most specific match first."""
    encodings = sorted(load_table(generation).encodings.values(), key=lambda spec: -spec.mask.bit_count())
    index = []
    for top in range(512):
        word = top << 23
        fits = (spec for spec in encodings if (word ^ spec.value) & spec.mask & 0xFF80_0000 == 0)
        index.append(tuple(fits))
    return tuple(index)


def _fetch(words: Code, offset_bytes: int) -> tuple[int, ...]:
    """Up to four dwords from the offset on."""
    if isinstance(words, (bytes, bytearray, memoryview)):
        count = min(4, (len(words) - offset_bytes) // 4)
        return struct.unpack_from(f"<{count}I", words, offset_bytes) if count > 0 else ()
    start = offset_bytes >> 2
    return tuple(word & 0xFFFF_FFFF for word in words[start : start + 4])


def _field(encoding: EncodingSpec, name: str, word: int) -> int:
    for field, low, mask in encoding.fields:
        if field == name:
            return (word >> low) & mask
    return 0


def _wants_literal(op: OpSpec, fields: dict[str, int]) -> bool:
    return any(
        spec.cls == "k" or (spec.cls in _LITERAL_CLASSES and fields.get(spec.field) == LITERAL) for spec in op.src
    )


def _dpp(fields: dict[str, int], word: int, short: bool) -> Dpp:
    """Replace the DPP marker in src0 by the VGPR it stands for and return the control.

    In the short encodings (VOP1, VOP2, VOPC) a DPP16 dword also carries neg and abs of both sources.
    """
    marker = fields["src0"]
    fields["src0"] = 256 + (word & 0xFF)
    if marker == DPP16:
        if short:
            fields["neg"] = word >> 20 & 1 | word >> 21 & 2
            fields["abs"] = word >> 21 & 1 | word >> 22 & 2
        return Dpp(
            "dpp16",
            control=word >> 8 & 0x1FF,
            row_mask=word >> 28,
            bank_mask=word >> 24 & 0xF,
            bound_ctrl=bool(word >> 19 & 1),
            fetch_inactive=bool(word >> 18 & 1),
        )
    return Dpp("dpp8", control=word >> 8, fetch_inactive=marker == DPP8_FETCH_INACTIVE)
