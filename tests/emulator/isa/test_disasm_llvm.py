"""The disassembler against LLVM itself, where LLVM 22 is installed: every opcode with randomly chosen fields."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from amdrv.emulator.isa.disassembler import disassemble
from amdrv.emulator.isa.table import EncodingSpec, OpSpec, load_table

TOOLS = ("llvm-mc-22", "llvm-objdump-22")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"LLVM 22 is not installed: no {' and no '.join(MISSING)}")

SLOT_DWORDS = 6  # one sample, padded with s_nop so that LLVM is in step again at the next
S_NOP = 0xBF80_0000
SAMPLES = 16
LITERALS = (0, 1, 0x3F800000, 0x3C00, 0x12345678, 0xFFFFFFF0)
SELECTORS = ("neg", "abs", "neg_hi", "opsel")
# LLVM knows the halves of registers of gfx12, but does not read them unless told to.
PROCESSORS = {"gfx11": ("gfx1100", ""), "gfx12": ("gfx1201", "+real-true16")}
IMAGES = ("MIMG", "VIMAGE", "VSAMPLE")


def any_source(rng: random.Random) -> int:
    """A 9-bit source: mostly vector registers, else scalars, specials, constants and the literal."""
    pool = (rng.randrange(106), 106, 107, 124, 125, 126, rng.randrange(128, 209), rng.randrange(240, 249), 253, 255)
    return rng.randrange(256, 512) if rng.random() < 0.6 else rng.choice(pool)


def field_value(name: str, op: OpSpec, rng: random.Random) -> int:
    """A value that the opcode gives a meaning to, and 0 for a field that it does not use."""
    operand = next((item for item in (*op.dst, *op.src) if item.field == name), None)
    if operand is not None:
        if operand.cls in "adw":
            return any_source(rng)
        if operand.cls == "c" and "barrier" in op.mnemonic:
            return rng.choice((125, 129, 193, 194))  # M0 or a number: LLVM's listing dies of anything else
        if operand.cls == "c":
            return rng.choice((rng.randrange(106), 106, 124, 128, 255)) if op.encoding.startswith("SOP") else 128
        if operand.name == "srsrc" and operand.cls == "s":
            return 4 * rng.randrange(20)
        if name in ("saddr", "soffset"):
            return rng.choice((124, 2 * rng.randrange(50)))
        vector = rng.randrange(240) + (256 if op.encoding == "VINTERP" and name != "vdst" else 0)
        return {"v": vector, "s": 8 * rng.randrange(10), "p": 2 * rng.randrange(50)}.get(operand.cls, rng.randrange(16))
    if name in SELECTORS:
        return rng.getrandbits(4) & op.flags.get(name, 0) if rng.random() < 0.5 else 0
    if name in ("clamp", "omod"):
        return rng.getrandbits(1) if name in op.flags else 0
    fixed = {"opsel_hi": 3, "opsel_hi2": 1, "saddr": 124, "simm16": rng.choice((0, rng.getrandbits(16)))}
    if name == "gds":
        return int(re.search(r"_gws_|_ordered_|_gs_reg_", op.mnemonic) is not None)
    return fixed.get(name, 0)


def sample(encoding: EncodingSpec, op: OpSpec, rng: random.Random) -> list[int]:
    """One slot of dwords that starts with the opcode."""
    raw = encoding.value
    for name, low, mask in encoding.fields:
        if name == "op":
            value = op.opcode
        elif name in ("opx", "opy"):
            value = op.opcode if name == "opy" else 8
        elif encoding.name == "VOPD":
            value = rng.randrange(8) * 2 + (name == "vdstx") if "dst" in name else 0
            value = 256 + 4 * rng.randrange(8) + (name == "srcy0") if "src" in name and "v" not in name else value
            value = 2 if name == "vsrcy1" and any(item.name == "src1" for item in op.src) else value
        elif name in ("offset", "offset0") and op.src:
            value = rng.getrandbits(mask.bit_length())
        else:
            value = int(field_value(name, op, rng))
        raw |= (value & mask) << low
    words = [raw >> 32 * index & 0xFFFF_FFFF for index in range(encoding.dwords)]
    words.append(rng.choice(LITERALS) if encoding.name != "SOPP" else S_NOP)
    return words + [S_NOP] * (SLOT_DWORDS - len(words))


def reference(words: list[int], folder: Path, processor: str, features: str) -> dict[int, str]:
    """LLVM's listing of the words: offset in bytes -> text."""
    source, binary = folder / "code.s", folder / "code.o"
    source.write_text("\n".join(f".long {word:#x}" for word in words) + "\n")
    subprocess.run(
        ["llvm-mc-22", "-triple=amdgcn-amd-amdhsa", f"-mcpu={processor}", "-filetype=obj", "-o", binary, source],
        check=True,
    )
    command = ["llvm-objdump-22", "-d", f"--mcpu={processor}", f"--mattr={features}", binary]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = re.finditer(r"^\t(.*?)\s*// ([0-9A-F]+):", listing, re.MULTILINE)
    return {int(line.group(2), 16): re.sub(r"\s+", " ", line.group(1)) for line in lines}


@pytest.mark.parametrize("generation", PROCESSORS)
def test_every_opcode_with_random_fields_reads_as_llvm_reads_it(generation: str, tmp_path: Path) -> None:
    table = load_table(generation)
    processor, features = PROCESSORS[generation]
    rng = random.Random(20260917)
    words: list[int] = []
    meant: list[OpSpec] = []
    for encoding in table.encodings.values():
        for op in table.ops[encoding.name].values():
            if encoding.name in IMAGES or "unlisted" in op.flags or "gfx1150" in op.flags:
                continue
            for _ in range(SAMPLES):
                words += sample(encoding, op, rng)
                meant.append(op)
    theirs = reference(words, tmp_path, processor, features)
    code = b"".join(word.to_bytes(4, "little") for word in words)
    compared: Counter[tuple[str, str]] = Counter()
    wrong = []
    for slot, op in enumerate(meant):
        start = slot * SLOT_DWORDS * 4
        text = theirs[start]
        if text.startswith(".long") or "/*" in text:  # a combination of fields that LLVM does not accept
            continue
        compared[op.encoding, op.mnemonic] += 1
        _, _, ours = next(iter(disassemble(code[start : start + SLOT_DWORDS * 4], arch=processor, halves=True)))
        if op.mnemonic == "v_mov_b16":  # whose modifiers LLVM does not show
            ours, text = (re.sub(r"[-|]", "", listed) for listed in (ours, text))
        if ours != text:
            wrong.append((code[start : start + 12].hex(), text, ours))
    assert wrong == []
    never = {(op.encoding, op.mnemonic) for op in meant} - set(compared)
    assert never == set()
