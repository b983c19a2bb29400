"""Questions to LLVM's disassembler about opcodes: its mnemonic for each, and which modifier bits each one has."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from isa_rules import Op

MC = "llvm-mc-22"
SHORT = ("VOP1", "VOP2", "VOPC")
VECTOR = ("VOP1", "VOP2", "VOPC", "VOP3", "VOP3SD", "VOP3P", "VINTERP")
Base: TypeAlias = "dict[int, tuple[dict[str, int], str]]"  # id of an Op -> field values of a plain use, LLVM's text
DPP16_WORD = 0x55 | 0xE4 << 8 | 0xFF << 24  # v85, quad_perm:[0,1,2,3], all rows and banks
DPP8_WORD = 0x55 | 0xFAC688 << 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Bit layout of one encoding, as parsed back from its table line."""

    dwords: int
    value: int
    fields: dict[str, tuple[int, int]]  # name -> (low bit, width)

    def encode(self, fields: dict[str, int]) -> list[int]:
        word = self.value
        for name, value in fields.items():
            low, width = self.fields[name]
            word |= (value & ((1 << width) - 1)) << low
        return [word >> shift & 0xFFFF_FFFF for shift in range(0, 32 * self.dwords, 32)]


def parse_layouts(lines: Sequence[str]) -> dict[str, Layout]:
    """Layouts by encoding name from the ``encoding`` lines of a table."""
    layouts = {}
    for line in lines:
        _, name, dwords, _, value, *fields = line.split()
        spans = {}
        for item in fields:
            field, span = item.split("=")
            high, low = (int(part) for part in span.split(":"))
            spans[field] = (low, high - low + 1)
        layouts[name] = Layout(int(dwords.split("=")[1]), int(value.split("=")[1], 16), spans)
    return layouts


def version() -> str:
    """``llvm-mc`` and its version, for the table's provenance line."""
    text = subprocess.run([MC, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"LLVM version ([0-9.]+)", text)
    return f"llvm-mc {match.group(1) if match else 'of unknown version'}"


def disassemble(samples: Sequence[Sequence[int]], cpu: str) -> list[str]:
    """LLVM's text of the first instruction of each sample of dwords; empty where it does not decode.

    ``cpu`` is a processor, or a processor and a feature that it does not have by default ("gfx1201+real-true16").
    Every sample is one atomic block, followed by an s_nop that carries the low half of its number and a
    s_sleep that carries the high half, so that texts can be told apart whatever LLVM made of the sample.
    """
    lines = []
    for number, sample in enumerate(samples):
        words = b"".join(word.to_bytes(4, "little") for word in sample)
        low, high = 0xBF80_0000 | number & 0xFFFF, 0xBF83_0000 | number >> 16
        mark = low.to_bytes(4, "little") + high.to_bytes(4, "little")
        lines.append("[" + ",".join(f"0x{byte:02x}" for byte in words) + "]")
        lines.append("[" + ",".join(f"0x{byte:02x}" for byte in mark) + "]")
    processor, plus, feature = cpu.partition("+")
    run = subprocess.run(
        [MC, "-triple=amdgcn", f"-mcpu={processor}", f"-mattr={plus}{feature}", "--disassemble"],
        input="\n".join(lines), capture_output=True, text=True, check=False,
    )  # fmt: skip
    texts: list[str] = []
    pending: list[str] = []
    previous = ""
    for line in run.stdout.splitlines():
        text = re.sub(r"\s+", " ", line.split("//")[0].split(";")[0]).strip()
        if text.startswith("s_sleep") and previous.startswith("s_nop"):
            pending.pop()
            low, high = (int(part.split()[1], 0) for part in (previous, text))
            if (high << 16 | low) == len(texts):
                texts.append(pending[0] if pending else "")
                pending, previous = [], ""
                continue
        if text and not text.startswith("."):
            pending.append(text)
            previous = text
    if len(texts) != len(samples):
        raise SystemExit(f"{MC} answered {len(texts)} of {len(samples)} samples: {run.stderr[-400:]}")
    return texts


def _fill(op: Op, layout: Layout, choice: tuple[int, ...]) -> dict[str, int]:
    """Field values for a plain use of ``op``; ``choice`` says for src0..src2 whether they are scalar registers."""
    values = {"op": op.opcode} if "op" in layout.fields else {}
    for operand in op.operands:
        name = operand.field or operand.name
        if name not in layout.fields:
            continue
        index = {"src0": 0, "src1": 1, "src2": 2}.get(name, 0)
        plain = {"v": 0x10, "s": 0x10, "c": 0x10, "p": 0x8, "q": 0x4, "m": 0x80, "i": 0x10}.get(operand.cls, 0)
        if operand.cls == "a":
            plain = 0x10 + 0x10 * index if choice[index] else 0x110 + 0x10 * index
        values[name] = plain | 0x100 if op.encoding == "VINTERP" and operand.cls == "v" else plain
    for name in ("saddr", "soffset"):
        if name in layout.fields:
            wide = layout.fields[name][1] > 7  # a field of seven bits has no constants, but "null"
            values[name] = 0x80 if wide and op.encoding != "SMEM" and name != "saddr" else 0x7C
    if "opsel_hi" in layout.fields:
        values["opsel_hi"], values["opsel_hi2"] = 3, 1
    if "sve" in layout.fields and op.encoding == "SCRATCH":
        values["sve"] = 1
    if op.encoding == "VOPD":
        values |= {"opx": 8, "opy": op.opcode, "vdstx": 1, "srcx0": 0x101, "vdsty": 2}
    if "gds" in layout.fields and re.search(r"_gws_|_ordered_|_gs_reg_", op.mnemonic):
        values["gds"] = 1  # these work on the global data share only
    if "dim" in layout.fields:
        values["dmask"] = 1
        if "_bvh" in op.mnemonic:  # fixed bits of the ray instructions
            values |= {"dmask": 15} | {name: 1 for name in ("unrm", "r128") if name in layout.fields}
    return values


def _words(op: Op, layout: Layout, values: dict[str, int]) -> list[int]:
    return [*layout.encode(values), 0x4444_4444, 0x3333_3333]


def annotate(ops: list[Op], layouts: dict[str, Layout], cpu: str, further: Sequence[str]) -> None:
    """Set each opcode's mnemonic to LLVM's and its flags to what LLVM makes of the modifier bits.

    Flags: ``neg=``, ``abs=``, ``opsel=`` masks of the sources (destination: bit 3) whose bit changes the text;
    ``clamp``, ``omod``; ``dpp`` when a DPP form exists; ``opselplain``; the name of a further processor when only that
    one has the opcode; ``unlisted`` when LLVM has it nowhere.
    """
    choices = list(itertools.product((0, 1), repeat=3))
    base: Base = {}
    for processor in (cpu, *further):
        missing = [op for op in ops if id(op) not in base]
        samples = [(op, _fill(op, layouts[op.encoding], choice)) for op in missing for choice in choices]
        texts = disassemble([_words(op, layouts[op.encoding], values) for op, values in samples], processor)
        for (op, values), text in zip(samples, texts, strict=True):
            if text and id(op) not in base:
                base[id(op)] = values, text
                op.mnemonic = _base_name(op, text)
                if processor != cpu:
                    op.flags.append(processor)
    for op in ops:
        if id(op) not in base:
            op.flags.append("unlisted")
    for processor in (cpu, *further):
        chosen = [op for op in ops if id(op) in base and (processor in op.flags or processor == cpu)]
        chosen = [op for op in chosen if processor != cpu or not set(further) & set(op.flags)]
        _modifiers(chosen, base, layouts, processor)
    without_feature, feature, _ = cpu.partition("+")
    if feature:
        _selectors_without_halves([op for op in ops if id(op) in base], base, layouts, without_feature)


def _selectors_without_halves(ops: list[Op], base: Base, layouts: dict[str, Layout], cpu: str) -> None:
    """Flag ``opselplain``: LLVM shows op_sel where it names no halves of registers; of others it drops the bits."""
    masks = [(op, flag.partition("=")[2]) for op in ops for flag in op.flags if flag.startswith("opsel=")]
    chosen = [(op, int(mask)) for op, mask in masks if op.encoding == "VOP3"]
    samples = [_words(op, layouts["VOP3"], base[id(op)][0] | {"opsel": mask}) for op, mask in chosen]
    for (op, _), text in zip(chosen, disassemble(samples, cpu), strict=True):
        if "op_sel:" in text:
            op.flags.append("opselplain")


def _base_name(op: Op, text: str) -> str:
    name = text.split(" :: ")[1].split()[0].replace("v_dual_", "v_") if op.encoding == "VOPD" else text.split()[0]
    return re.sub(r"(_e32|_e64)$", "", name)


def _questions(op: Op, layout: Layout, values: dict[str, int]) -> Iterator[tuple[Op, str, int, list[int]]]:
    """The opcode with one modifier bit set at a time: (opcode, flag, bit of the flag's mask, dwords)."""
    if op.encoding not in VECTOR:
        return
    for name, bits in (("neg", 3), ("abs", 3), ("neg_hi", 3), ("opsel", 4), ("clamp", 1), ("omod", 1)):
        for bit in range(min(bits, layout.fields[name][1]) if name in layout.fields else 0):
            yield op, name, 1 << bit, _words(op, layout, values | {name: 1 << bit})
    if op.encoding == "VINTERP":
        return
    for name, code, word in (("dpp", 250, DPP16_WORD), ("dpp8", 233, DPP8_WORD)):
        yield op, name, 1, [*layout.encode(values | {"src0": code}), word, 0]
    if op.encoding in SHORT:  # their modifiers are in the DPP dword
        for name, bit, source in (("neg", 20, 1), ("abs", 21, 1), ("neg", 22, 2), ("abs", 23, 2)):
            yield op, name, source, [*layout.encode(values | {"src0": 250}), DPP16_WORD | 1 << bit, 0]


def _modifiers(ops: list[Op], base: Base, layouts: dict[str, Layout], cpu: str) -> None:
    """Flip one modifier bit at a time and see whether the text changes."""
    questions = [item for op in ops for item in _questions(op, layouts[op.encoding], base[id(op)][0])]
    texts = disassemble([words for *_, words in questions], cpu)
    found: dict[int, dict[str, int]] = {}
    plain = {key: text for key, (_, text) in base.items()}
    for (op, name, bit, _), text in zip(questions, texts, strict=True):
        if text and text != plain[id(op)] and _base_name(op, text.replace("_dpp", "")) == op.mnemonic:
            masks = found.setdefault(id(op), {})
            listed = re.search(r"op_sel:\[([01,]+)\]", text)
            if name == "opsel" and op.encoding in ("VOP3", "VINTERP"):
                if not listed and ".h" not in text:
                    continue  # the bit only made LLVM fall back to its form without halves
                masks["opseln"] = listed.group(1).count(",") + 1 if listed else 0
            masks[name] = masks.get(name, 0) | bit
            if name == "dpp" and op.encoding in SHORT:
                plain[id(op)] = text  # what follows is asked of the DPP form
    for op in ops:
        for name, mask in found.get(id(op), {}).items():
            op.flags.append(name if name in ("clamp", "omod", "dpp", "dpp8") else f"{name}={mask}")


def name_lines(ops: Sequence[Op], layouts: dict[str, Layout], cpu: str) -> Iterator[str]:
    """``name KIND NUMBER TEXT`` lines: hardware registers, messages, buffer formats; as LLVM writes them."""
    named = {(op.encoding, op.mnemonic): op for op in ops}
    getreg, send = named["SOPK", "s_getreg_b32"].opcode, named["SOPP", "s_sendmsg"].opcode
    load = named["MTBUF", "tbuffer_load_format_x"]
    buffer = _fill(load, layouts["MTBUF"], (0, 0, 0)) | {"srsrc": 8}
    questions = (
        ("hwreg", [layouts["SOPK"].encode({"op": getreg, "simm16": 31 << 11 | number}) for number in range(64)]),
        ("msg", [layouts["SOPP"].encode({"op": send, "simm16": number}) for number in range(256)]),
        ("format", [layouts["MTBUF"].encode(buffer | {"format": number}) for number in range(128)]),
    )
    for kind, samples in questions:
        for number, text in enumerate(disassemble(samples, cpu)):
            if match := re.search(r"(?:hwreg|sendmsg)\(([A-Z]\w+)|format:\[(\w+)\]", text):
                yield f"name {kind} {number} {match.group(1) or match.group(2)}"
