"""Verdicts on pieces, for each way in which a piece can be wrong."""

from __future__ import annotations

import zlib

import pytest

from amdrv.firmware import FirmwareImage, parse
from amdrv.firmware.authenticity import PieceVerdict, authenticate
from amdrv.firmware.container import BODY_DIGEST_OFFSET, KEY_ID_OFFSET
from amdrv.firmware.synthetic import images_for, key_id

SOS = "psp_13_0_0_sos.bin"
IMAGES = images_for("gfx1100")
AMD_KDB_KEY = bytes.fromhex("579a9cb60f674203b2bd47c5b41f9bf7")
AMD_SOS_KEY = bytes.fromhex("fc0fe9a89ccd40589008ffafa2f5178e")


def changed(name: str, piece: str, changes: dict[int, bytes]) -> FirmwareImage:
    """Image ``name`` with bytes of ``piece`` changed, by offset in the piece, and the file's checksum right again."""
    data = bytearray(IMAGES[name])
    section = parse(name, bytes(data)).section(piece)
    assert section is not None
    for offset, value in changes.items():
        position = section.offset_bytes + offset
        data[position : position + len(value)] = value
    data[28:32] = zlib.crc32(data[32:]).to_bytes(4, "little")
    return parse(name, bytes(data))


def verdict(piece: str, images: dict[str, FirmwareImage]) -> PieceVerdict:
    return next(row for row in authenticate(images) if row.piece == piece)


def test_piece_signed_by_a_listed_key_is_signed() -> None:
    row = verdict(
        "RLC_G", {"sos": parse(SOS, IMAGES[SOS]), "rlc": parse("gc_11_0_0_rlc.bin", IMAGES["gc_11_0_0_rlc.bin"])}
    )
    assert (row.verdict, row.version) == ("signed", 0x80)
    assert key_id(0x0A).hex()[:8] in row.detail


def test_boot_rom_key_without_a_public_half_leaves_a_piece_consistent_at_best() -> None:
    row = verdict("SYS_DRV", {"sos": changed(SOS, "SYS_DRV", {KEY_ID_OFFSET: AMD_SOS_KEY})})
    assert row.verdict == "consistent"


def test_body_that_does_not_match_its_digest_is_bad_where_nothing_else_can_be_checked() -> None:
    changes = {KEY_ID_OFFSET: AMD_SOS_KEY, BODY_DIGEST_OFFSET: bytes(32)}
    row = verdict("SYS_DRV", {"sos": changed(SOS, "SYS_DRV", changes)})
    assert row.verdict == "bad"
    assert "does not have the digest" in row.detail


def test_boot_rom_key_of_another_piece_is_bad() -> None:
    row = verdict("SOS", {"sos": changed(SOS, "SOS", {KEY_ID_OFFSET: AMD_KDB_KEY})})
    assert row.verdict == "bad"
    assert "does not list" in row.detail


def test_unlisted_key_is_bad() -> None:
    row = verdict("TOC", {"sos": changed(SOS, "TOC", {KEY_ID_OFFSET: b"somebody else's "})})
    assert row.verdict == "bad"
    assert "does not list" in row.detail


def test_keys_of_a_bad_key_database_count_for_nothing() -> None:
    images = {"sos": changed(SOS, "KDB", {0x110: b"\x01"})}
    assert verdict("KDB", images).verdict == "bad"
    assert verdict("TOC", images).verdict == "bad"
    assert "does not list" in verdict("TOC", images).detail


def test_set_without_a_key_database_has_no_signed_component() -> None:
    rows = authenticate({"imu": parse("gc_11_0_0_imu.bin", IMAGES["gc_11_0_0_imu.bin"])})
    assert [row.verdict for row in rows] == ["bad", "bad"]


@pytest.mark.parametrize("offset", [0x00, 0x60, 0xD0, 0x180, 0x900])
def test_changed_byte_of_header_body_or_signature_is_bad(offset: int) -> None:
    section = parse(SOS, IMAGES[SOS]).section("TOC")
    assert section is not None
    flipped = bytes([section.data[offset] ^ 0x20])
    row = verdict("TOC", {"sos": changed(SOS, "TOC", {offset: flipped})})
    assert row.verdict == "bad"
    assert "signature" in row.detail
