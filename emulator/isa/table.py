"""Opcode tables as data: what ``tables/<generation>.txt`` says, parsed once on first use.

Format, one fact a line (``#`` starts a comment):

``encoding NAME dwords=N mask=HEX value=HEX field=hi:lo …``
    An encoding: an instruction belongs to it when ``word0 & mask == value``; bit fields over the N dwords. Encodings
    and fields that do in a later generation what they did in gfx11 have the names that they had there (VFLAT is FLAT,
    ``ioffset`` is ``offset``). Fields may overlap: ``returns`` is the bit of gfx12's ``th`` that gfx11 calls ``glc``
    in an atomic.
``name KIND NUMBER TEXT``
    Names for printing: hwreg, msg, format.
``ENCODING OPCODE MNEMONIC OPERAND … +FLAG …``
    An opcode. OPERAND is ``[>]name[=field][?flag]:class:type[/bits]``: ``>`` marks a destination; ``field`` is the bit
    field, where it is not called like the operand, or an implicit register; ``?flag`` means that the operand is there
    only when that bit field is set. Width is that of the type unless ``/bits`` follows (packed and wider operands).

    Classes: v vector register · s scalar register or special · c scalar source with constants · a any source
    (9 bits) · d any source, inline half floats in both halves · w any source, inline floats of single precision
    · p scalar pair (field * 2) · q scalar quad (field * 4) · k literal dword · i an immediate field as a value
    · m message id · x implicit register (``vcc`` or ``exec``).

    Types: b, u, i, f, bf with the element's width; iu8 and iu4 (signed or not by the neg field); ``mix`` (f32 or f16
    by op_sel_hi); ``mask`` (a lane mask, 32 or 64 bits by wave size).

    Flags: ``neg=`` ``abs=`` ``neg_hi=`` ``opsel=`` masks of the operands (bit n is src<n>, bit 3 the destination) that
    such a modifier bit acts on; ``opseln=`` how many op_sel bits a listing shows, ``opselplain`` when it
    shows them without naming halves of registers; ``clamp`` and ``omod`` when the opcode has them; ``dpp`` and ``dpp8``
    when it has those forms; ``gfx1150`` when only that processor and later ones of the generation have it; ``unlisted``
    when LLVM does not know the opcode.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from dataclasses import dataclass, field

from amdrv.errors import Unsupported

GENERATION_OF = {
    "gfx11": "gfx11",
    "gfx11-generic": "gfx11",
    "gfx1100": "gfx11",
    "gfx1101": "gfx11",
    "gfx1102": "gfx11",
    "gfx1103": "gfx11",
    "gfx1150": "gfx11",
    "gfx1151": "gfx11",
    "gfx1152": "gfx11",
    "gfx1153": "gfx11",
    "gfx12": "gfx12",
    "gfx12-generic": "gfx12",
    "gfx1200": "gfx12",
    "gfx1201": "gfx12",
}


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """One operand of an opcode; ``cls``, ``type`` and ``flag`` as in the module's description."""

    name: str
    cls: str
    type: str
    bits: int
    field: str
    flag: str = ""


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One opcode of one encoding."""

    encoding: str
    opcode: int
    mnemonic: str
    dst: tuple[OperandSpec, ...]
    src: tuple[OperandSpec, ...]
    flags: dict[str, int]


@dataclass(frozen=True, slots=True)
class EncodingSpec:
    """One encoding: its size, its match, and its bit fields as (name, low bit, mask of the shifted value)."""

    name: str
    dwords: int
    mask: int
    value: int
    fields: tuple[tuple[str, int, int], ...]


@dataclass(slots=True)
class IsaTable:
    """A generation's encodings and opcodes."""

    generation: str
    encodings: dict[str, EncodingSpec] = field(default_factory=dict)
    ops: dict[str, dict[int, OpSpec]] = field(default_factory=dict)
    names: dict[str, dict[int, str]] = field(default_factory=dict)


def generation_of(arch: str) -> str:
    """The table's name for an LLVM processor name ("gfx1100") or a generation ("gfx11"); Unsupported otherwise."""
    try:
        return GENERATION_OF[arch]
    except KeyError:
        known = ", ".join(sorted(GENERATION_OF))
        raise Unsupported(f"no opcode table for {arch}; there are tables for {known}") from None


@functools.cache
def load_table(generation: str) -> IsaTable:
    """Parse ``tables/<generation>.txt``. The result is shared: treat it as read-only."""
    text = importlib.resources.files("amdrv.emulator.isa.tables").joinpath(f"{generation}.txt").read_text("utf-8")
    table = IsaTable(generation)
    for line in text.splitlines():
        if line.startswith("encoding "):
            spec = _parse_encoding(line.split())
            table.encodings[spec.name] = spec
            table.ops[spec.name] = {}
        elif line.startswith("name "):
            _, kind, number, name = line.split(maxsplit=3)
            table.names.setdefault(kind, {})[int(number)] = name
        elif line and not line.startswith("#"):
            op = _parse_op(line.split())
            table.ops[op.encoding][op.opcode] = op
    return table


def _parse_encoding(words: list[str]) -> EncodingSpec:
    settings = dict(word.split("=") for word in words[2:])
    fields = []
    for name, span in settings.items():
        if ":" in span:
            high, low = (int(part) for part in span.split(":"))
            fields.append((name, low, (1 << (high - low + 1)) - 1))
    return EncodingSpec(
        words[1], int(settings["dwords"]), int(settings["mask"], 16), int(settings["value"], 16), tuple(fields)
    )


_OPERAND = re.compile(r"(>?)(\w+)(?:=(\w+))?(?:\?(\w+))?:(\w):([a-z]+(\d*))(?:/(\d+))?$")


def _parse_op(words: list[str]) -> OpSpec:
    dst: list[OperandSpec] = []
    src: list[OperandSpec] = []
    for word in words[3:]:
        if word.startswith("+"):
            continue
        match = _OPERAND.match(word)
        if match is None:
            raise Unsupported(f"opcode table: cannot read operand {word!r} of {words[2]}")
        target, name, source, flag, cls, kind, width, bits = match.groups()
        spec = OperandSpec(name, cls, kind, int(bits or width or 64), source or name, flag or "")
        (dst if target else src).append(spec)
    flags: dict[str, int] = {}
    for word in words[3:]:
        if word.startswith("+"):
            flag, _, mask = word[1:].partition("=")
            flags[flag] = int(mask or 1)
    return OpSpec(words[0], int(words[1]), words[2], tuple(dst), tuple(src), flags)
