"""Write emulator/isa/tables/<generation>.txt: the opcode table of one GPU generation.

    python tools/generate_isa.py --wheel PATH [--generation gfx11] [--check]

The facts come from AMD's machine-readable ISA description, in the form in which the PyPI wheel ``tinygrad`` carries it
(``runtime/autogen/amd/<name>/{enum,ins,operands}.py``: opcode numbers, bit fields, operand formats and sizes). PATH is
the wheel file or a folder it was unpacked into. What that form loses (which operands are written, implicit operands,
which modifier bits an opcode has) is restored by the rules in isa_rules.py and by asking LLVM's disassembler, which
also settles mnemonics (isa_probe.py). ``--check`` compares with the committed table instead of writing it.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import isa_probe
from isa_generations import GFX11_ENCODINGS, GFX12_ENCODINGS, Generation, Source
from isa_rules import EXCLUDED, Op, Operand, apply_rules, operand_of, refine

TABLES = Path(__file__).resolve().parent.parent / "emulator" / "isa" / "tables"
GENERATIONS = {
    "gfx11": Generation("rdna3", "gfx1100", ("gfx1150",), GFX11_ENCODINGS),
    "gfx12": Generation("rdna4", "gfx1201+real-true16", (), GFX12_ENCODINGS, returns="returns"),
}


def wheel_version(wheel: Path) -> str:
    """Version from the wheel's file name, or from the dist-info folder of an unpacked one."""
    names = [wheel.name] if wheel.is_file() else [found.name for found in wheel.glob("tinygrad-*.dist-info")]
    for name in names:
        if match := re.match(r"tinygrad-([0-9.]+)", name):
            return match.group(1).rstrip(".")
    raise SystemExit(f"{wheel}: neither a tinygrad wheel nor a folder with one unpacked")


def encoding_line(source: Source, cls: Any, kinds: ModuleType) -> str:
    """``encoding NAME dwords= mask= value= field=hi:lo …`` of one encoding class."""
    mask, value = source.mask, source.value
    high = 0
    fields: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        for field, spec in vars(owner).items():
            if not isinstance(spec, kinds.BitField):
                continue
            high = max(high, spec.hi)
            if isinstance(spec, kinds.FixedBitField):
                mask |= spec.mask << spec.lo
                value |= spec.default << spec.lo
            else:
                fields[source.renamed(field)] = f"{spec.hi}:{spec.lo}"
    fields |= source.fields
    parts = " ".join(f"{field}={bits}" for field, bits in fields.items())
    return f"encoding {source.name} dwords={high // 32 + 1} mask={mask:08x} value={value:08x} {parts}"


def read_ops(
    source: Source, generation: Generation, enums: ModuleType, operands: dict[Any, dict[str, Any]]
) -> Iterator[Op]:
    """The opcodes of one encoding, with operands as the wheel gives them and the rules applied."""
    for member in getattr(enums, f"{source.wheel_name}Op"):
        mnemonic = re.sub(r"_e(32|64)$", "", member.name.lower())
        if (source.name, mnemonic) in EXCLUDED or not re.match(source.mnemonics, mnemonic):
            continue
        given: list[Operand] = []
        for field, (fmt, bits, kind) in operands.get(member, {}).items():
            operand = operand_of(source.name, source.renamed(field), fmt.name, bits, kind.name)
            operand.cls = source.classes.get(operand.name, operand.cls)
            given.append(operand)
        yield apply_rules(Op(source.name, member.value, mnemonic, given), generation.returns)


def build(wheel: Path, generation: str) -> str:
    """The whole table as text."""
    facts = GENERATIONS[generation]
    wheel_name, cpu = facts.wheel_name, facts.cpu
    sys.path.insert(0, str(wheel))
    package = "tinygrad.runtime.autogen.amd"
    enums = importlib.import_module(f"{package}.{wheel_name}.enum")
    classes = importlib.import_module(f"{package}.{wheel_name}.ins")
    operands = importlib.import_module(f"{package}.{wheel_name}.operands").OPERANDS
    kinds = importlib.import_module("tinygrad.renderer.amd.dsl")

    encodings = [encoding_line(source, getattr(classes, source.wheel_name), kinds) for source in facts.encodings]
    ops = [op for source in facts.encodings for op in read_ops(source, facts, enums, operands)]
    layouts = isa_probe.parse_layouts(encodings)
    isa_probe.annotate(ops, layouts, cpu, facts.further)
    refine(ops, generation)
    lines = [
        f"# Opcode table of {generation}, written by tools/generate_isa.py; see emulator/isa/table.py for the format.",
        f"# Facts: PyPI wheel tinygrad {wheel_version(wheel)}, tinygrad/runtime/autogen/amd/{wheel_name}/"
        "{enum,ins,operands}.py (from AMD's machine-readable ISA XML).",
        f"# Mnemonics and modifiers: {isa_probe.version()}, -mcpu={cpu}.",
        *encodings,
        *isa_probe.name_lines(ops, layouts, cpu),
        *(op.line() for op in ops),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--generation", choices=sorted(GENERATIONS), default="gfx11")
    parser.add_argument("--check", action="store_true", help="compare with the committed table")
    arguments = parser.parse_args()
    text = build(arguments.wheel, arguments.generation)
    path = TABLES / f"{arguments.generation}.txt"
    if arguments.check:
        same = path.read_text() == text
        print(f"{path}: {'as generated' if same else 'differs from what is generated'}")
        return 0 if same else 1
    path.write_text(text)
    print(f"{path}: {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
