"""What the generations of tools/generate_isa.py are made from: the wheel's encodings, under the names of gfx11.

gfx12 has other bit layouts for the same jobs (VFLAT, VBUFFER, ...). Where the job is the same the table uses the name
that the first generation had, of encodings and of fields alike, so that everything behind the decoder needs no second
copy; where it is not (images), the encoding keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# The wheel's field names -> the ISA manual's.
FIELD_NAMES = {"clmp": "clamp"}


@dataclass(frozen=True, slots=True)
class Source:
    """One encoding of a table.

    ``wheel_name`` is the class of the wheel it is made from, of whose opcodes it has those that ``mnemonics`` matches;
    ``mask`` and ``value`` are what tells these apart; ``names`` renames fields; ``fields`` adds or replaces bit fields;
    ``classes`` are operand classes that differ from the usual ones of isa_rules.
    """

    name: str
    wheel_name: str
    mnemonics: str = ""
    mask: int = 0
    value: int = 0
    names: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, wheel_field: str) -> str:
        """The table's name of one of the wheel's fields."""
        return self.names.get(wheel_field, FIELD_NAMES.get(wheel_field, wheel_field))


@dataclass(frozen=True, slots=True)
class Generation:
    """Names of a generation in the wheel and in LLVM, and its encodings.

    ``cpu`` may have a feature behind it that LLVM leaves off: gfx12 has halves of registers as gfx11 has.
    ``further`` are processors with opcodes of their own; ``returns`` is the field that makes an atomic return a value.
    """

    wheel_name: str
    cpu: str
    further: tuple[str, ...]
    encodings: tuple[Source, ...]
    returns: str = "glc"


def _unchanged(names: str) -> tuple[Source, ...]:
    return tuple(Source(name, name) for name in names.split())


_ALU = "SOP1 SOP2 SOPC SOPK SOPP SMEM VOP1 VOP2 VOPC VOP3 VOP3SD VOP3P VOPD DS"

GFX11_ENCODINGS = _unchanged(f"{_ALU} FLAT GLOBAL SCRATCH MUBUF MTBUF VINTERP LDSDIR MIMG EXP")

_OFFSET = {"ioffset": "offset"}
_FLAT_NAMES = {"vaddr": "addr", "vsrc": "data"} | _OFFSET
_BUFFER_NAMES = {"rsrc": "srsrc"} | _OFFSET
_IMAGE_NAMES = {"rsrc": "srsrc", "samp": "ssamp"}
# Bit 0 of an atomic's temporal hint: TH_ATOMIC_RETURN (LLVM SIDefines.h, CPol).
_RETURNS = {"returns": "52:52"}
_BUFFER_CLASSES = {"srsrc": "s", "soffset": "s"}  # nine and seven bits that number a register
_TYPED = 1 << 21  # the top bit of VBUFFER's opcode

GFX12_ENCODINGS = (
    *_unchanged("SOP1 SOP2 SOPC SOPK SOPP"),
    Source("SMEM", "SMEM", names=_OFFSET),
    Source("VOP1", "VOP1", fields={"op": "16:9"}),
    *_unchanged("VOP2 VOPC VOP3 VOP3SD VOP3P VOPD DS"),
    Source("FLAT", "VFLAT", names=_FLAT_NAMES, fields=_RETURNS),
    Source("GLOBAL", "VGLOBAL", names=_FLAT_NAMES, fields=_RETURNS),
    Source("SCRATCH", "VSCRATCH", names=_FLAT_NAMES),
    Source("MUBUF", "VBUFFER", "buffer_", _TYPED, 0, _BUFFER_NAMES, _RETURNS, _BUFFER_CLASSES),
    Source("MTBUF", "VBUFFER", "tbuffer_", _TYPED, _TYPED, _BUFFER_NAMES, {}, _BUFFER_CLASSES),
    Source("VINTERP", "VINTERP", fields={"op": "22:16"}),
    Source("LDSDIR", "VDSDIR"),
    Source("VIMAGE", "VIMAGE", names=_IMAGE_NAMES),
    Source("VSAMPLE", "VSAMPLE", names=_IMAGE_NAMES),
    Source("EXP", "VEXPORT"),
)
