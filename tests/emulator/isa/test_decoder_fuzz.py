"""Any bytes at all: the decoder knows them or says that it does not, and the disassembler accounts for every byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.disassembler import disassemble
from amdrv.emulator.isa.instruction import Instruction, UnknownInstruction
from amdrv.emulator.isa.table import load_table

PROCESSORS = ("gfx1100", "gfx1201")
DECODERS = {arch: Decoder(arch) for arch in PROCESSORS}
HEADS = [
    encoding.value | opcode << low
    for generation in ("gfx11", "gfx12")
    for encoding in load_table(generation).encodings.values()
    for name, low, _ in encoding.fields
    if name == "op"
    for opcode in load_table(generation).ops[encoding.name]
]
noise = st.binary(max_size=64)
# A word that names an opcode, with noise in the bits that the opcode leaves, and more noise behind it.
likely = st.builds(
    lambda head, fields, rest: (head | fields & 0x7FFF).to_bytes(8, "little") + rest,
    st.sampled_from(HEADS),
    st.integers(0, 0xFFFF),
    noise,
)


@settings(max_examples=1500, deadline=None)
@given(st.one_of(noise, likely), st.sampled_from(PROCESSORS))
def test_bytes_are_an_instruction_that_fits_in_them_or_are_refused(data: bytes, arch: str) -> None:
    try:
        instruction = DECODERS[arch].decode(data)
    except UnknownInstruction as error:
        assert str(error)
        return
    assert 0 < instruction.size_bytes <= len(data)
    assert b"".join(word.to_bytes(4, "little") for word in instruction.words) == data[: instruction.size_bytes]


@settings(max_examples=500, deadline=None)
@given(st.one_of(noise, likely), st.sampled_from(PROCESSORS))
def test_a_listing_covers_every_whole_word_once_and_in_order(data: bytes, arch: str) -> None:
    expected = 0x1000
    for address, instruction, text in disassemble(data, 0x1000, arch):
        assert address == expected
        assert text.strip()
        expected += instruction.size_bytes if isinstance(instruction, Instruction) else 4
    assert expected - 0x1000 >= len(data) & ~3
    assert expected - 0x1000 < len(data) + 4
