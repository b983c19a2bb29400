"""The disassembler against golden text, and its behaviour on bytes that are no instructions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa.disassembler import disassemble
from amdrv.emulator.isa.instruction import Instruction, UnknownInstruction
from amdrv.emulator.isa.table import load_table


def golden(generation: str) -> list[tuple[bool, bytes, str]]:
    """(wave32, bytes, text) of each line of a generation's golden table."""
    lines = []
    wave32 = True
    for line in (Path(__file__).parent / f"{generation}_golden.txt").read_text().splitlines():
        if line.startswith("#"):
            wave32 = "wave64" not in line
        else:
            code, text = line.split(" ", 1)
            lines.append((wave32, bytes.fromhex(code), text))
    return lines


GENERATIONS = ("gfx11", "gfx12")
GOLDEN = golden("gfx11")


@pytest.mark.parametrize("wave32", [True, False])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_text_is_what_llvm_prints(generation: str, wave32: bool) -> None:
    wrong = []
    for _, code, text in (line for line in golden(generation) if line[0] is wave32):
        ((_, _, printed),) = disassemble(code, arch=generation, wave32=wave32, halves=True)
        if printed != text:
            wrong.append((code.hex(), text, printed))
    assert wrong == []


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_golden_table_covers_every_encoding(generation: str) -> None:
    seen = set()
    for _, code, _ in golden(generation):
        for _, instruction, _ in disassemble(code, arch=generation):
            assert isinstance(instruction, Instruction)
            seen.add(instruction.encoding)
    assert seen == set(load_table(generation).encodings)


@pytest.mark.parametrize(
    ("code", "named", "plain"),
    [
        ("0207 0a64", "v_add_f16_e32 v5.l, v2.l, v3.l", "v_add_f16_e32 v5, v2, v3"),
        ("8207 0b65", "v_add_f16_e32 v5.h, v2.h, v3.h", "v_add_f16_e32 v5.h, v2.h, v3.h"),
        ("0500 32d5 0105 0200", "v_add_f16_e64 v5.l, v1.l, v2.l", "v_add_f16_e64 v5, v1, v2"),
        (
            "0508 03d7 0105 0200",
            "v_add_nc_u16 v5.l, v1.h, v2.l op_sel:[1,0,0]",
            "v_add_nc_u16 v5, v1, v2 op_sel:[1,0,0]",
        ),
    ],
)
def test_halves_of_gfx12_have_names_when_asked_or_when_nothing_else_tells(code: str, named: str, plain: str) -> None:
    """LLVM 22, with and without -mattr=+real-true16; without it the second one is no instruction to LLVM."""
    for halves, text in ((True, named), (False, plain), (None, plain)):
        ((_, _, printed),) = disassemble(bytes.fromhex(code), arch="gfx1201", halves=halves)
        assert printed == text


def test_instructions_follow_each_other_without_gaps() -> None:
    lines = [line for line in GOLDEN if line[0]]
    stream = b"".join(code for _, code, _ in lines)
    listing = list(disassemble(stream))
    assert [text for _, _, text in listing] == [text for _, _, text in lines]
    expected = 0
    for (offset, _, _), (_, code, _) in zip(listing, lines, strict=True):
        assert offset == expected
        expected += len(code)


def test_a_listing_starts_at_the_address_of_the_code() -> None:
    assert [at for at, _, _ in disassemble(bytes(8), address=0x1000)] == [0x1000, 0x1004]


def test_unknown_bits_are_data_and_decoding_goes_on_behind_them() -> None:
    listing = list(disassemble(bytes.fromhex("00ff80be000080bf00000000aabb")))
    assert [text for _, _, text in listing] == [".long 0xbe80ff00", "s_nop 0", "v_illegal", ".byte 0xaa, 0xbb"]
    assert isinstance(listing[0][1], UnknownInstruction)


def test_dual_instructions_do_not_exist_in_wave64() -> None:
    code = bytes.fromhex("020510c903050204")  # v_dual_add_f32 … :: v_dual_mov_b32 …
    assert " :: " in next(text for _, _, text in disassemble(code, wave32=True))
    assert next(text for _, _, text in disassemble(code, wave32=False)).startswith(".long")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.booleans(), st.sampled_from(GENERATIONS))
def test_any_bytes_are_listed_to_their_end(code: bytes, wave32: bool, generation: str) -> None:
    end = 0
    for offset, instruction, text in disassemble(code, arch=generation, wave32=wave32):
        assert offset == end
        assert text
        end = offset + (instruction.size_bytes if isinstance(instruction, Instruction) else 4)
    assert len(code) <= end < len(code) + 4
