"""Write docs/opcodes.md and docs/opcodes-gfx12.md: for every opcode, how exactly it is executed, or why it is not.

    python tools/generate_opcode_table.py [--check]

Nothing is listed by hand: every opcode of the decode table is encoded, decoded and prepared by the interpreter, as a
program's would be, and its definition says how exact it is. ``--check`` compares with the files instead of writing.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.code import CodeCache
from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import Access, ShaderFault
from amdrv.emulator.isa.refusals import refusal
from amdrv.emulator.isa.semantics import lookup
from amdrv.emulator.isa.table import EncodingSpec, OpSpec, load_table

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"gfx11": DOCS / "opcodes.md", "gfx12": DOCS / "opcodes-gfx12.md"}
PROCESSORS = {"gfx11": "gfx1100", "gfx12": "gfx1201"}
S_ENDPGM = 0xBFB0_0000
DEFAULT_MODE = 0xF0  # round to nearest, denormals kept
VGPRS = 24
MASK_REGISTER, OFF, FIRST_VGPR = 106, 124, 256  # operand codes
LATER = "gfx1150"  # the table's flag of opcodes that gfx1100 does not have
V_DUAL_MOV = 8  # the half that stands beside the one in question
BARRIER = {"ssrc0": 193, "simm16": 0xFFFF}  # -1: the workgroup's own

HEADER = """\
# Opcodes of {generation}

Written by `tools/generate_opcode_table.py`: every opcode was encoded, decoded and prepared for execution, and its
definition says how exact it is.

- **exact**: every bit of the result is what the ISA says, in every rounding and denormal mode.
- **approximate**: within the bound that is given.
- **refused**: not an instruction of compute work; executing it is an illegal-instruction fault that names it.
- **unsupported**: an instruction of compute work that is not executed. {missing}
"""
LATER_NOTE = """
An opcode with a * is one of gfx1150 and later processors of the generation: gfx1100 does not have it.
"""


class Entry(NamedTuple):
    """What the table says of one opcode."""

    encoding: str
    opcode: int
    mnemonic: str
    later: bool  # not on gfx1100
    status: str  # "exact", "approximate", "refused" or "unsupported"
    note: str  # the bound or the reason


class Program:
    """Memory with one instruction in it, followed by s_endpgm."""

    def __init__(self, words: Iterable[int]) -> None:
        self.arena: NDArray[np.uint8] = np.zeros(8192, np.uint8)
        code = np.array([*words, *[S_ENDPGM] * 4], np.uint32).view(np.uint8)
        self.arena[: code.size] = code

    def translate(self, va: NDArray[np.uint64], access: Access) -> NDArray[np.int64]:
        """Addresses are offsets."""
        return va.astype(np.int64)


def encode(encoding: EncodingSpec, op: OpSpec, source: int) -> list[int]:
    """One instruction whose sources are the operand code ``source`` where that is possible."""
    masks = {operand.field for operand in (*op.dst, *op.src) if operand.type == "mask"}
    raw = encoding.value
    for name, low, mask in encoding.fields:
        if name in ("op", "opy"):
            value = op.opcode
        elif name in masks:
            value = MASK_REGISTER
        elif name in ("saddr", "soffset"):
            value = OFF
        elif name in BARRIER and "barrier" in op.mnemonic:
            value = BARRIER[name]
        else:
            value = V_DUAL_MOV if name == "opx" else source if name.startswith("src") and mask >= 511 else 0
        raw |= (value & mask) << low
    return [raw >> 32 * word & 0xFFFF_FFFF for word in range(encoding.dwords)]


def complaint(encoding: EncodingSpec, op: OpSpec, processor: str) -> str:
    """Why the interpreter does not execute an opcode; "" when it does."""
    said = ""
    for source in (FIRST_VGPR, 0):  # some want vector sources, some scalar ones
        program = Program(encode(encoding, op, source))
        arch = LATER if LATER in op.flags else processor
        try:
            block = CodeCache({}, program, 32, VGPRS, Decoder(arch)).block(0, DEFAULT_MODE)
        except ShaderFault as fault:
            said = fault.detail
            continue
        decoded = block.sites[0][1] if block.sites else None
        names = [decoded.mnemonic, *(half.mnemonic for half in decoded.dual or ())] if decoded is not None else []
        # Instructions without an effect (waits, hints) leave nothing but the s_endpgm.
        if not block.ops or op.mnemonic in names or op.mnemonic.replace("v_dual_", "v_") in names:
            return ""
        raise SystemExit(f"{op.encoding} {op.mnemonic} was encoded, {names} was decoded")
    return said


def entry(encoding: EncodingSpec, op: OpSpec, generation: str) -> Entry:
    """The entry of one opcode."""
    said = complaint(encoding, op, PROCESSORS[generation])
    if said:
        reason = refusal(op.encoding, op.mnemonic)
        status, note = ("refused", reason) if reason else ("unsupported", said)
    else:
        definition = lookup(op.mnemonic, generation)
        accuracy = definition.accuracy if definition is not None else "exact"
        status, _, note = accuracy.partition(": ")
    return Entry(op.encoding, op.opcode, op.mnemonic, LATER in op.flags, status, note)


def entries(generation: str) -> Iterator[Entry]:
    """Every opcode of a generation, encoding by encoding."""
    table = load_table(generation)
    for encoding in table.encodings.values():
        for _, op in sorted(table.ops[encoding.name].items()):
            yield entry(encoding, op, generation)


def page(found: Iterable[Entry], generation: str) -> str:
    """The page of a generation."""
    listed = list(found)
    missing = [f"`{item.mnemonic}`" for item in listed if item.status == "unsupported"]
    header = HEADER.format(generation=generation, missing=f"{', '.join(missing) or 'There are none'}.")
    lines = [
        header + LATER_NOTE if any(item.later for item in listed) else header,
        "| encoding | opcodes | exact | approximate | refused | unsupported |",
        "|---|---|---|---|---|---|",
    ]
    encodings = dict.fromkeys(item.encoding for item in listed)
    for name in encodings:
        count = Counter(item.status for item in listed if item.encoding == name)
        cells = (count.total(), *(count[status] for status in ("exact", "approximate", "refused", "unsupported")))
        lines.append(f"| [{name}](#{name.lower()}) | {' | '.join(map(str, cells))} |")
    for name in encodings:
        lines += ["", f"## {name}", "", "| opcode | instruction | | bound or reason |", "|---|---|---|---|"]
        lines += [
            f"| {item.opcode} | `{item.mnemonic}`{' *' if item.later else ''} | {item.status} | {item.note} |"
            for item in listed
            if item.encoding == name
        ]
    return "\n".join([*lines, ""])


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the file is what would be written")
    arguments = parser.parse_args()
    outdated = 0
    for generation, path in PAGES.items():
        text = page(entries(generation), generation)
        if not arguments.check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path} is out of date: run tools/generate_opcode_table.py", file=sys.stderr)
            outdated = 1
    return outdated


if __name__ == "__main__":
    sys.exit(main())
