"""Damaged images: one thing is wrong at a time, checksums are sealed again where they would hide what is tested."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.errors import MalformedInput, Unsupported
from amdrv.facts.firmware_auth import PIECE_TYPES
from amdrv.firmware import FirmwareImage, parse
from amdrv.firmware.authenticity import authenticate
from amdrv.firmware.container import parse_container, parse_key_database
from amdrv.firmware.headers import LAYOUTS
from amdrv.firmware.synthetic import images_for, make_piece

IMAGES = images_for("gfx1100")
NAMES = sorted(IMAGES)


def seal(data: bytes | bytearray) -> bytes:
    """``data`` with file size and checksum right again."""
    sealed = bytearray(data)
    sealed[0:4] = len(data).to_bytes(4, "little")
    sealed[28:32] = zlib.crc32(sealed[32:]).to_bytes(4, "little")
    return bytes(sealed)


def with_word(name: str, offset: int, value: int) -> bytes:
    """Image ``name`` with one 32-bit field changed."""
    data = bytearray(IMAGES[name])
    data[offset : offset + 4] = value.to_bytes(4, "little")
    return seal(data)


def boundaries(image: FirmwareImage) -> list[int]:
    """Every byte count at which the image could break off: each header word and descriptor, each piece."""
    header_end = image.header["payload_offset_bytes"]
    edges = {section.offset_bytes + extra for section in image.sections for extra in (0, 0x100, len(section.data) - 1)}
    return sorted({*range(0, header_end + 1, 4), *edges})


@pytest.mark.parametrize("name", NAMES)
def test_image_cut_off_anywhere_is_malformed_and_named(name: str) -> None:
    for size in boundaries(parse(name, IMAGES[name])):
        with pytest.raises(MalformedInput, match=name):
            parse(name, IMAGES[name][:size])


@pytest.mark.parametrize("name", NAMES)
def test_image_cut_off_and_sealed_again_is_malformed(name: str) -> None:
    for size in boundaries(parse(name, IMAGES[name])):
        if size >= 32:
            with pytest.raises(MalformedInput, match=name):
                parse(name, seal(IMAGES[name][:size]))


@given(name=st.sampled_from(NAMES), word=st.integers(1, 63), value=st.integers(0, 0xFFFFFFFF))
def test_any_header_word_gives_pieces_inside_the_file_or_a_clear_refusal(name: str, word: int, value: int) -> None:
    data = with_word(name, 4 * word, value)
    try:
        image = parse(name, data)
    except (MalformedInput, Unsupported) as error:
        assert name in str(error)
        return
    for section in image.sections:
        assert 0 < len(section.data) == len(data[section.offset_bytes :][: len(section.data)])


@given(name=st.sampled_from(NAMES), data=st.data())
def test_flipped_bit_is_malformed_or_gives_a_bad_piece_or_leaves_the_pieces_it_keeps_alone(
    name: str, data: st.DataObject
) -> None:
    genuine = IMAGES[name]
    position = data.draw(st.integers(0, 8 * len(genuine) - 1))
    damaged = bytearray(genuine)
    damaged[position // 8] ^= 1 << position % 8
    before = {section.name: bytes(section.data) for section in parse(name, genuine).sections}
    sos = parse("psp_13_0_0_sos.bin", IMAGES["psp_13_0_0_sos.bin"])
    try:
        after = parse(name, bytes(damaged))
    except (MalformedInput, Unsupported):
        return
    if all(before.get(section.name) == bytes(section.data) for section in after.sections):
        return  # an older header version has fewer pieces; the load plan misses them
    images = {"sos": after} if name == "psp_13_0_0_sos.bin" else {"sos": sos, "damaged": after}
    assert "bad" in {row.verdict for row in authenticate(images) if row.image == name}


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith(("gc", "psp", "sdma")) and "rlc" not in name]
)
def test_wrong_checksum_is_malformed(name: str) -> None:
    damaged = bytearray(IMAGES[name])
    damaged[-1] ^= 1
    with pytest.raises(MalformedInput, match=f"{name}: crc32"):
        parse(name, bytes(damaged))


@pytest.mark.parametrize(
    ("name", "offset", "value", "field"),
    [
        ("gc_11_0_0_mec.bin", 4, 59, "header_size_bytes"),
        ("gc_11_0_0_mec.bin", 24, 56, "payload_offset_bytes"),
        ("gc_11_0_0_mec.bin", 20, 0xFFFFFFF0, "payload"),
        ("gc_11_0_0_mec.bin", 36, 0xFFFFFFF0, "RS64_MEC"),
        ("gc_11_0_0_mec.bin", 36, 0, "RS64_MEC has size 0"),
        ("gc_11_0_0_mec.bin", 48, 0xFFFFFFF0, "RS64_MEC_P0_STACK"),
        ("gc_11_0_0_mec.bin", 48, 0x202, "dwords"),
        ("gc_11_0_0_imu.bin", 40, 0xFFFFFFF0, "IMU_D"),
        ("gc_11_0_0_mes1.bin", 52, 0xFFFFFFF0, "MES_KIQ_STACK"),
        ("gc_11_0_0_rlc.bin", 4 * 50, 0xFFFFFFF0, "RLC_V"),
        ("psp_13_0_0_sos.bin", 32, 0, "bin_count"),
        ("psp_13_0_0_sos.bin", 32, 26, "bin_count"),
        ("psp_13_0_0_sos.bin", 32, 20, "descriptors"),
        ("psp_13_0_0_sos.bin", 44, 0xFFFFFFF0, "SYS_DRV"),
        ("psp_13_0_0_sos.bin", 52, 2, "SYS_DRV has size 0 or is listed twice"),
        ("smu_13_0_0.bin", 36, 65, "pptable_count"),
        ("smu_13_0_0.bin", 36, 2, "pptable"),
    ],
)
def test_field_out_of_range_is_malformed_and_named(name: str, offset: int, value: int, field: str) -> None:
    with pytest.raises(MalformedInput, match=f"{name}.*{field}"):
        parse(name, with_word(name, offset, value))


def test_header_version_that_is_unknown_is_unsupported() -> None:
    with pytest.raises(Unsupported, match=r"gc_11_0_0_mec\.bin: mec header of version 9\.0"):
        parse("gc_11_0_0_mec.bin", with_word("gc_11_0_0_mec.bin", 8, 9))


@pytest.mark.parametrize("name", ["readme.bin", "gc_11_0_0_vcn.bin", "psp_13_0_0_sos.bin.xz", "../gc_11_0_0_mec.bin"])
def test_file_of_no_known_kind_is_unsupported(name: str) -> None:
    with pytest.raises(Unsupported, match="not a kind of image"):
        parse(name, IMAGES["gc_11_0_0_mec.bin"])


def test_pieces_of_a_newer_kind_are_kept_but_not_understood() -> None:
    image = parse("psp_13_0_0_sos.bin", with_word("psp_13_0_0_sos.bin", 36, 99))
    assert image.sections[0].name == "UNKNOWN_99"
    assert image.section("SYS_DRV") is None


def test_auxiliary_descriptors_are_left_to_other_boots() -> None:
    # psp_firmware_header_v2_1: the last psp_aux_fw_bin_index descriptors are an alternative set
    original = IMAGES["psp_13_0_0_sos.bin"]
    data = bytearray(original)
    data[10:12] = (1).to_bytes(2, "little")
    data[4:8] = (40).to_bytes(4, "little")
    data[36:40] = (2).to_bytes(4, "little")
    data[40 : 40 + 96] = original[36 : 36 + 96]
    assert len(parse("psp_13_0_0_sos.bin", seal(data)).sections) == 4


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [
        (0x10, b"$PS2", "magic"),
        (0x14, (0x801).to_bytes(4, "little"), "total size"),
        (0x18, b"\x01\0\0\0", "encrypted"),
        (0x30, b"\0\0\0\0", "signed"),
        (0x48, b"\x01\0\0\0", "compressed"),
        (0x6C, (0xA04).to_bytes(4, "little"), "the piece has"),
    ],
)
def test_signed_header_field_that_does_not_hold_is_malformed(offset: int, value: bytes, what: str) -> None:
    piece = bytearray(make_piece("RS64_MEC"))
    piece[offset : offset + 4] = value
    with pytest.raises(MalformedInput, match=f"MEC.*{what}"):
        parse_container("MEC", memoryview(piece))


def test_bytes_behind_the_signature_may_only_be_zeros() -> None:
    piece = make_piece("RS64_MEC")
    assert parse_container("MEC", memoryview(piece + bytes(64))).sha256 == hashlib.sha256(piece).digest()
    with pytest.raises(MalformedInput, match="MEC: bytes that are not zero follow the signature"):
        parse_container("MEC", memoryview(piece + bytes(63) + b"\x01"))


def test_piece_shorter_than_its_signed_header_is_malformed() -> None:
    with pytest.raises(MalformedInput, match="too few"):
        parse_container("MEC", memoryview(make_piece("RS64_MEC")[:0xFF]))


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [
        (0x100, 4, "header"),
        (0x108, 0, "header"),
        (0x150, 0x200, "key entry"),
        (0x170, 4096, "key entry"),
        (0x15C, 0, "key"),
    ],
)
def test_key_database_that_does_not_hold_is_malformed(offset: int, value: int, what: str) -> None:
    piece = bytearray(make_piece("KDB"))
    piece[offset : offset + 4] = value.to_bytes(4, "little")
    with pytest.raises(MalformedInput, match=what):
        parse_key_database("KDB", parse_container("KDB", memoryview(piece)))


@given(position=st.integers(0, 0x100 + 0x40), value=st.binary(min_size=4, max_size=4))
def test_any_change_of_a_piece_gives_a_container_or_malformed(position: int, value: bytes) -> None:
    piece = bytearray(make_piece("KDB"))
    piece[position : position + 4] = value
    try:
        container = parse_container("KDB", memoryview(piece))
        assert len(container.signed) + len(container.signature) <= len(piece)
        parse_key_database("KDB", container)
    except MalformedInput as error:
        assert "KDB" in str(error)


def test_layouts_are_as_long_as_the_structs_of_linux() -> None:
    sizes = {
        (kind, version): layout.size_bytes for kind, versions in LAYOUTS.items() for version, layout in versions.items()
    }
    # sizeof() of the structs in Linux 6.12 amdgpu_ucode.h
    assert sizes["rlc", (2, 3)] == 204
    assert sizes["rlc", (2, 4)] == 244
    assert sizes["mec", (2, 0)] == 60
    assert sizes["mes", (1, 0)] == 72
    assert sizes["sdma", (2, 0)] == 64
    assert sizes["imu", (1, 0)] == 48
    assert sizes["smu", (2, 1)] == 44
    assert sizes["sos", (1, 3)] == 116
    assert sizes["ta", (1, 0)] == 92


def test_exchanged_pieces_are_bad_by_their_type() -> None:
    data = bytearray(IMAGES["gc_11_0_0_imu.bin"])
    size = len(make_piece("IMU_I"))
    data[0x100 : 0x100 + size], data[0x100 + size :] = data[0x100 + size :], data[0x100 : 0x100 + size]
    images = {
        "sos": parse("psp_13_0_0_sos.bin", IMAGES["psp_13_0_0_sos.bin"]),
        "imu": parse("gc_11_0_0_imu.bin", seal(data)),
    }
    rows = {row.piece: row for row in authenticate(images)}
    assert rows["IMU_I"].verdict == "bad"
    assert "0x203c, expected 0x203b" in rows["IMU_I"].detail


def test_piece_types_name_each_piece_once() -> None:
    names = [piece.name for piece in PIECE_TYPES]
    assert len(names) == len(set(names))
