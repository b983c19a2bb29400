"""Scalar float instructions whose operands are not as wide as their type: a pair of halves, and an upper half."""

from __future__ import annotations

from amdrv.emulator.isa.decoder import Decoder

# Assembled with llvm-mc 22, -mcpu=gfx1150.
CVT_PK = 0xA4030201  # s_cvt_pk_rtz_f16_f32 s3, s1, s2
CVT_HI = 0xBE836A01  # s_cvt_hi_f32_f16 s3, s1


def operands(word: int) -> tuple[tuple[str, int], tuple[str, int]]:
    """(type, width) of the destination and of the first source."""
    instruction = Decoder("gfx1150").decode(word.to_bytes(4, "little"))
    (dst,), src = instruction.dst, instruction.src[0]
    return (dst.type, dst.bits), (src.type, src.bits)


def test_the_packed_result_fills_its_register() -> None:
    assert operands(CVT_PK) == (("f16", 32), ("f32", 32))


def test_the_upper_half_is_taken_from_a_whole_register() -> None:
    assert operands(CVT_HI) == (("f32", 32), ("b32", 32))
