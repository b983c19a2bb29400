"""What the gfx11 decoder promises about operands, constants and forms. Words were assembled with llvm-mc 22."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa.decode_operand import inline_constant, literal_constant
from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.instruction import Instruction, Kind, Operand, SpecialReg, UnknownInstruction
from amdrv.emulator.isa.table import load_table
from amdrv.errors import Unsupported

DECODER = Decoder("gfx11")


def decode(*words: int) -> Instruction:
    return DECODER.decode(words)


def source(instruction: Instruction, name: str) -> Operand:
    return next(item for item in instruction.src if item.name == name)


def test_an_architecture_without_a_table_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="gfx906"):
        Decoder("gfx906")


def test_bytes_and_dwords_decode_alike_at_a_byte_offset() -> None:
    code = bytes.fromhex("000080bfff020106cdcccc3d")  # s_nop 0; v_add_f32 v0, 0x3dcccccd, v1
    words = [int.from_bytes(code[at : at + 4], "little") for at in range(0, len(code), 4)]
    assert DECODER.decode(code, 4) == DECODER.decode(memoryview(code), 4) == DECODER.decode(words, 4)
    assert DECODER.decode(code, 4).size_bytes == 8


def test_short_and_long_forms_of_a_conditional_move_have_the_same_operands() -> None:
    short = decode(0x02020702)  # v_cndmask_b32_e32 v1, v2, v3, vcc_lo
    long = decode(0xD5010001, 0x01AA0702)  # the same as e64
    assert short.mnemonic == long.mnemonic == "v_cndmask_b32"
    for one, other in zip((*short.dst, *short.src), (*long.dst, *long.src), strict=True):
        assert (one.name, one.kind, one.index, one.bits, one.type) == (
            other.name, other.kind, other.index, other.bits, other.type,
        )  # fmt: skip
    assert source(short, "src2").type == "mask"


def test_carry_in_and_out_of_the_short_form_are_vcc() -> None:
    instruction = decode(0x40020702)  # v_add_co_ci_u32_e32 v1, vcc_lo, v2, v3, vcc_lo
    assert [(item.name, item.kind, item.index) for item in instruction.dst] == [
        ("vdst", Kind.VGPR, 1),
        ("sdst", Kind.SPECIAL, SpecialReg.VCC_LO),
    ]
    assert (source(instruction, "src2").index, source(instruction, "src2").type) == (SpecialReg.VCC_LO, "mask")


@pytest.mark.parametrize(
    ("words", "kind", "index"),
    [
        ((0x7C220501,), Kind.SPECIAL, SpecialReg.VCC_LO),  # v_cmp_lt_f32_e32 vcc_lo, v1, v2
        ((0xD4110003, 0x00020501), Kind.SGPR, 3),  # v_cmp_lt_f32_e64 s3, v1, v2
        ((0x7D9A0501,), Kind.SPECIAL, SpecialReg.EXEC_LO),  # v_cmpx_ne_u32_e32 v1, v2
        ((0xD4CD007E, 0x00020501), Kind.SPECIAL, SpecialReg.EXEC_LO),  # v_cmpx_ne_u32_e64 v1, v2
    ],
)
def test_compares_write_a_lane_mask(words: tuple[int, ...], kind: Kind, index: int) -> None:
    (target,) = decode(*words).dst
    assert (target.kind, target.index, target.type) == (kind, index, "mask")


def test_the_literal_of_fmaak_and_fmamk_stands_where_the_arithmetic_has_it() -> None:
    added = decode(0x5A020602, 0x41200000)  # v_fmaak_f32 v1, s2, v3, 10.0
    multiplied = decode(0x58020702, 0x41200000)  # v_fmamk_f32 v1, v2, 10.0, v3
    assert [item.name for item in added.src] == ["src0", "src1", "literal"]
    assert [item.name for item in multiplied.src] == ["src0", "literal", "src1"]
    assert added.src[2].value == multiplied.src[1].value == 0x41200000
    assert added.size_bytes == multiplied.size_bytes == 8


@pytest.mark.parametrize(
    ("literal", "kind", "bits", "value"),
    [
        (0x40240000, "f64", 64, 0x4024000000000000),
        (0x80000000, "i64", 64, 0xFFFFFFFF80000000),
        (0x80000000, "u64", 64, 0x80000000),
        (0x80000000, "b64", 64, 0x80000000),
        (0x12345678, "f32", 32, 0x12345678),
        (0x12344900, "f16", 16, 0x4900),
        (0x00070007, "u16", 32, 0x00070007),
    ],
)
def test_a_literal_is_widened_to_its_operand(literal: int, kind: str, bits: int, value: int) -> None:
    assert literal_constant(literal, kind, bits) == value


@pytest.mark.parametrize(
    ("code", "kind", "bits", "value"),
    [
        (128, "u32", 32, 0),
        (192, "u32", 32, 64),
        (193, "i32", 32, 0xFFFFFFFF),
        (208, "i64", 64, 0xFFFFFFFFFFFFFFF0),
        (193, "i16", 16, 0xFFFF),
        (193, "i16", 32, 0xFFFFFFFF),
        (240, "f16", 16, 0x3800),
        (240, "f32", 32, 0x3F000000),
        (240, "b32", 32, 0x3F000000),
        (240, "f64", 64, 0x3FE0000000000000),
        (242, "f16", 32, 0x00003C00),
        (242, "bf16", 32, 0x00003F80),
        (242, "u16", 32, 0x3F800000),
        (242, "u16", 16, 0x0000),  # a 16-bit integer sees the low half of the f32
        (248, "i16", 16, 0xF983),
        (248, "b16", 16, 0xF983),
        (248, "f64", 64, 0x3FC45F306DC9C882),
        (242, "f32", 256, 0x3F800000),
        (242, "f16", 256, 0x3C003C00),
        (241, "bf16", 256, 0xBF00BF00),
        (193, "i32", 256, 0xFFFFFFFF),
    ],
)
def test_an_inline_constant_has_the_bits_of_its_operand(code: int, kind: str, bits: int, value: int) -> None:
    assert inline_constant(code, kind, bits) == value


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ((0xD7030800, 0x000202F2), 0x3F80),  # v_add_nc_u16 v0, 1.0, v1 op_sel:[1,0,0]
        ((0xD7030800, 0x000202C1), 0xFFFF),  # v_add_nc_u16 v0, -1, v1 op_sel:[1,0,0]
        ((0xD7030800, 0x00020281), 0x0000),  # v_add_nc_u16 v0, 1, v1 op_sel:[1,0,0]
        ((0xD5320800, 0x000202F2), 0x0000),  # v_add_f16 v0, 1.0, v1 op_sel:[1,0,0]
        ((0xD5320800, 0x000202C1), 0xFFFF),  # v_add_f16 v0, -1, v1 op_sel:[1,0,0]
    ],
)
def test_op_sel_picks_the_upper_half_of_a_constant_of_32_bits(words: tuple[int, ...], value: int) -> None:
    assert source(decode(*words), "src0").value == value


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [  # RDNA3 ISA manual, 7.2.1 and 7.5.1
        ((0xD6660000, 0x040E04F2), "src0", 0x3C003C00),  # v_dot2_f16_f16 v0, 1.0, v2, v3
        ((0xD6660000, 0x040DE501), "src1", 0x3C003C00),  # v_dot2_f16_f16 v0, v1, 1.0, v3
        ((0xD6670000, 0x040E04F2), "src0", 0x3F803F80),  # v_dot2_bf16_bf16 v0, 1.0, v2, v3
        ((0xCC1A4000, 0x1C0E04F2), "src0", 0x3F803F80),  # v_dot2_f32_bf16 v0, 1.0, v2, v3
        ((0xCC134000, 0x1C0E04F2), "src0", 0x3F800000),  # v_dot2_f32_f16 v0, 1.0, v2, v3
        ((0x040004F2,), "src0", 0x3C003C00),  # v_dot2acc_f32_f16 v0, 1.0, v2
    ],
)
def test_dot_products_have_their_own_inline_floats(words: tuple[int, ...], name: str, value: int) -> None:
    assert source(decode(*words), name).value == value


@pytest.mark.parametrize(
    ("words", "neg", "magnitude"),
    [  # RDNA3 ISA manual, 7.2.2.1; LLVM does not know of these modifiers
        ((0xD5810000, 0x20000101), True, False),  # v_mov_b32 v0, -v1
        ((0xD5810100, 0x00000101), False, True),  # v_mov_b32 v0, |v1|
        ((0xD59C0100, 0x20000101), True, True),  # v_mov_b16 v0, -|v1|
    ],
)
def test_moves_have_input_modifiers(words: tuple[int, ...], neg: bool, magnitude: bool) -> None:
    operand = source(decode(*words), "src0")
    assert (operand.neg, operand.abs) == (neg, magnitude)


def test_the_inline_float_of_a_packed_fmac_fills_both_halves() -> None:
    assert source(decode(0x780206F2), "src0").value == 0x3C003C00  # v_pk_fmac_f16 v1, 1.0, v3


def test_short_forms_name_halves_by_the_top_bit_of_the_register_number() -> None:
    instruction = decode(0x65030702 | 1 << 7)  # v_add_f16_e32 v1.h, v2.h, v3.h with every half bit set
    assert [(item.index, item.half) for item in (*instruction.dst, *instruction.src)] == [(1, 1), (2, 1), (3, 1)]


def test_long_forms_name_halves_by_op_sel() -> None:
    instruction = decode(0xD5325001, 0x00020702)  # v_add_f16_e64 v1.h, v2.l, v3.h
    assert [(item.index, item.half) for item in (*instruction.dst, *instruction.src)] == [(1, 1), (2, 0), (3, 1)]


def test_a_whole_register_has_no_half() -> None:
    assert all(item.half is None for item in decode(0x06020702).src)  # v_add_f32_e32


def test_long_forms_carry_neg_abs_and_output_modifiers() -> None:
    instruction = decode(0xD6138201, 0x3C120702)  # v_fma_f32 v1, -v2, |v3|, v4 clamp div:2
    assert [(item.neg, item.abs) for item in instruction.src] == [(True, False), (False, True), (False, False)]
    assert (instruction.fields["clamp"], instruction.fields["omod"]) == (1, 3)


def test_modifier_bits_that_an_opcode_lacks_are_ignored() -> None:
    instruction = decode(0xD6100701, 0xE4120702)  # v_bfe_u32 with every neg and abs bit set
    assert not any(item.neg or item.abs for item in instruction.src)


def test_unused_source_fields_are_ignored() -> None:
    # LLVM 24 leaves 0x80 in the third source of v_lshlrev_b64.
    assert decode(0xD73C0000, 0x02020482).src == decode(0xD73C0000, 0x00020482).src


def test_mixed_precision_sources_are_resolved_to_f32_or_half_of_a_register() -> None:
    instruction = decode(0xCC205201, 0x2C120702)  # v_fma_mix_f32 v1, -v2, |v3|, v4 op_sel:[0,1,0] op_sel_hi:[1,0,1]
    kinds = [(item.type, item.bits, item.half, item.neg, item.abs) for item in instruction.src]
    assert kinds == [
        ("f16", 16, 0, True, False),
        ("f32", 32, None, False, True),
        ("f16", 16, 0, False, False),
    ]


def test_dpp16_gives_source_and_control() -> None:
    instruction = decode(0x7E0202FA, 0xA50D0102)  # v_mov_b32_dpp v1, v2 row_shl:1 row_mask:0xa … bound_ctrl:1 fi:1
    assert instruction.size_bytes == 8
    assert instruction.dpp is not None
    assert instruction.dpp.kind == "dpp16"
    assert instruction.dpp.control == 0x101
    assert (instruction.dpp.row_mask, instruction.dpp.bank_mask) == (0xA, 0x5)
    assert instruction.dpp.bound_ctrl
    assert instruction.dpp.fetch_inactive
    assert (instruction.src[0].kind, instruction.src[0].index) == (Kind.VGPR, 2)


def test_short_dpp16_carries_input_modifiers_in_its_own_dword() -> None:
    instruction = decode(0x060206FA, 0xFF910102)  # v_add_f32_dpp v1, -v2, |v3| row_shl:1 row_mask:0xf bank_mask:0xf
    assert [(item.neg, item.abs) for item in instruction.src] == [(True, False), (False, True)]


def test_dpp8_gives_lane_selectors() -> None:
    instruction = decode(0x7E0202EA, 0x05397702)  # v_mov_b32_dpp v1, v2 dpp8:[7,6,5,4,3,2,1,0] fi:1
    assert instruction.dpp is not None
    lanes = [instruction.dpp.control >> 3 * lane & 7 for lane in range(8)]
    assert lanes == [7, 6, 5, 4, 3, 2, 1, 0]
    assert instruction.dpp.fetch_inactive


def test_an_opcode_without_a_dpp_form_is_unknown_with_the_marker() -> None:
    with pytest.raises(UnknownInstruction, match="v_fma_f64 has no DPP form"):
        decode(0xD6140000, 0x041204FA, 0xFF000000)


def test_dual_halves_have_plain_names_and_share_the_literal() -> None:
    # v_dual_fmaak_f32 v1, v2, v3, 10.0 :: v_dual_add_f32 v2, 10.0, v5
    instruction = decode(0xC8480702, 0x01020AFF, 0x41200000)
    assert instruction.size_bytes == 12
    assert instruction.dual is not None
    first, second = instruction.dual
    assert (first.mnemonic, second.mnemonic) == ("v_fmaak_f32", "v_add_f32")
    assert first.src[2].value == second.src[0].value == 0x41200000
    assert [half.dst[0].index for half in instruction.dual] == [1, 2]


@pytest.mark.parametrize(("vdstx", "vdsty"), [(4, 3), (5, 2)])
def test_the_destinations_of_a_dual_differ_in_parity(vdstx: int, vdsty: int) -> None:
    word1 = 0x00000503 | vdstx << 24 | (vdsty >> 1) << 17
    instruction = decode(0xC9100501, word1)  # v_dual_add_f32 … :: v_dual_mov_b32 …
    assert instruction.dual is not None
    assert [half.dst[0].index for half in instruction.dual] == [vdstx, vdsty]


@pytest.mark.parametrize(
    ("words", "address_bits", "scalar"),
    [
        ((0xDC520000, 0x017C0002), 64, Kind.NONE),  # global_load_b32 v1, v[2:3], off
        ((0xDC520000, 0x01040002), 32, Kind.SGPR),  # global_load_b32 v1, v2, s[4:5]
        ((0xDC510000, 0x017C0000), 0, Kind.NONE),  # scratch_load_b32 v1, off, off
        ((0xDC510000, 0x01FC0002), 32, Kind.NONE),  # scratch_load_b32 v1, v2, off
        ((0xDC510000, 0x01020000), 0, Kind.SGPR),  # scratch_load_b32 v1, off, s2
    ],
)
def test_address_operands_follow_the_addressing_mode(words: tuple[int, ...], address_bits: int, scalar: Kind) -> None:
    instruction = decode(*words)
    assert source(instruction, "addr").bits == address_bits
    assert source(instruction, "addr").kind is (Kind.VGPR if address_bits else Kind.NONE)
    assert source(instruction, "saddr").kind is scalar


@pytest.mark.parametrize(("offen", "idxen"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_buffer_address_has_a_register_for_index_and_offset_each(offen: int, idxen: int) -> None:
    instruction = decode(0xE0500000, 0x80010102 | offen << 22 | idxen << 23)  # buffer_load_b32
    assert source(instruction, "vaddr").bits == 32 * (offen + idxen)


def test_a_buffer_load_with_tfe_writes_one_more_register() -> None:
    assert decode(0xE0500000, 0x80210100).dst[0].bits == 64


def test_an_atomic_has_a_destination_only_when_it_returns_the_old_value() -> None:
    quiet = decode(0xDCD20000, 0x007C0402)  # global_atomic_cmpswap_b32 v[2:3], v[4:5], off
    returning = decode(0xDCD24000, 0x017C0402)  # … v1, v[2:3], v[4:5], off glc
    assert quiet.dst == ()
    assert [(item.index, item.bits) for item in returning.dst] == [(1, 32)]
    assert source(returning, "data").bits == 64


def test_wide_scalar_operands_are_aligned_and_masks_are_not() -> None:
    assert decode(0xBE800103).src[0].index == 2  # s_mov_b64 s[0:1] from an odd register
    assert source(decode(0xD5010001, 0x000E0702), "src2").index == 3  # v_cndmask_b32_e64 v1, v2, v3, s3


def test_a_swap_reads_and_writes_both_registers_crosswise() -> None:
    instruction = decode(0x7E02CB02)  # v_swap_b32 v1, v2
    assert [item.index for item in instruction.dst] == [1, 2]
    assert [item.index for item in instruction.src] == [2, 1]


def test_scalar_immediates_are_sign_extended_by_type() -> None:
    assert source(decode(0xB780FFFF), "simm16").value == 0xFFFFFFFF  # s_addk_i32 s0, -1
    assert source(decode(0xB500FFFF), "simm16").value == 0xFFFF  # s_cmpk_lg_u32 s0, 0xffff


def test_scalar_floats_exist_on_gfx1150_only() -> None:
    word = 0xA0000201  # s_add_f32 s0, s1, s2
    assert Decoder("gfx1150").decode([word]).mnemonic == "s_add_f32"
    with pytest.raises(UnknownInstruction, match="s_add_f32 is not on gfx1100"):
        Decoder("gfx1100").decode([word])


@pytest.mark.parametrize("encoding", ["MIMG", "EXP", "LDSDIR", "VINTERP"])
def test_graphics_instructions_are_decoded_by_name(encoding: str) -> None:
    spec = load_table("gfx11").encodings[encoding]
    instruction = decode(spec.value, 0, 0)
    assert instruction.encoding == encoding
    assert instruction.mnemonic == load_table("gfx11").ops[encoding][0].mnemonic


def test_an_image_address_list_makes_the_instruction_longer() -> None:
    assert decode(0xF06C0704, 0x10020005).size_bytes == 8
    assert decode(0xF06C0705, 0x10020005, 7).size_bytes == 12


@pytest.mark.parametrize(
    ("words", "encoding", "opcode"),
    [
        ((0xBE80FF00,), "SOP1", 255),
        ((0xD7FF0000, 0), "VOP3", 0x3FF),
        ((0xDBFF0000, 0), "DS", 255),
    ],
)
def test_an_unknown_opcode_names_its_bits(words: tuple[int, ...], encoding: str, opcode: int) -> None:
    table = load_table("gfx11").ops[encoding]
    if opcode in table:
        opcode = next(number for number in range(256) if number not in table)
        words = (words[0] & ~(0xFF << 18) | opcode << 18, *words[1:])
    with pytest.raises(UnknownInstruction) as caught:
        decode(*words)
    assert (caught.value.encoding, caught.value.opcode) == (encoding, opcode)
    assert caught.value.words[0] == words[0]


@pytest.mark.parametrize(
    "words",
    [(), (0xD6130001,), (0x060202FF,), (0x7E0202FA,), (0xC8480702, 0x01020AFF), (0xF06C0705, 0x10020005)],
)
def test_code_that_ends_inside_an_instruction_is_unknown(words: tuple[int, ...]) -> None:
    with pytest.raises(UnknownInstruction, match="code ends"):
        decode(*words)


def test_a_reserved_operand_code_is_unknown() -> None:
    with pytest.raises(UnknownInstruction, match="reserved operand code 209"):
        decode(0xBE8000D1)


def test_every_opcode_of_the_table_decodes_to_its_own_name() -> None:
    table = load_table("gfx11")
    decoder = Decoder("gfx1150")
    for name, spec in table.encodings.items():
        opcode_at = {field: low for field, low, _ in spec.fields}
        for opcode, op in table.ops[name].items():
            raw = spec.value
            if name == "VOPD":
                raw |= 8 << opcode_at["opx"] | opcode << opcode_at["opy"]
            elif "op" in opcode_at:
                raw |= opcode << opcode_at["op"]
            instruction = decoder.decode([raw >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)])
            decoded = instruction.dual[1] if instruction.dual else instruction
            assert (decoded.mnemonic, decoded.opcode) == (op.mnemonic, opcode)
            assert len(decoded.src) + len(decoded.dst) <= len(op.src) + len(op.dst)


@settings(max_examples=400, deadline=None)
@given(st.binary(min_size=0, max_size=20))
def test_any_bytes_decode_or_are_named_unknown(code: bytes) -> None:
    try:
        instruction = DECODER.decode(code)
    except UnknownInstruction as unknown:
        assert len(unknown.words) <= 4
        return
    assert instruction.size_bytes in (4, 8, 12)
    assert instruction.size_bytes <= len(code)
    assert len(instruction.words) * 4 == instruction.size_bytes


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(load_table("gfx11").encodings.values(), key=lambda spec: spec.name)),
    st.integers(0, 2**128 - 1),
)
def test_any_fields_in_a_known_encoding_decode_or_are_named_unknown(spec, noise: int) -> None:  # type: ignore[no-untyped-def]
    noise = noise & ~spec.mask | spec.value
    words = [noise >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)]
    try:
        assert DECODER.decode(words).size_bytes in (4, 8, 12)
    except UnknownInstruction as unknown:
        assert f"{words[0]:08x}" in str(unknown)
