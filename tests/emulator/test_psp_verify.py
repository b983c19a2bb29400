"""The PSP's decision about a piece: every damage is noticed, and nothing else than a refusal happens."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.models.psp_verify import (
    HEADER_BYTES,
    ImageRejected,
    Piece,
    Problem,
    authenticate,
    database_keys,
    parse,
    signature_matches,
)
from amdrv.facts.firmware_auth import ROOT_KEYS, KnownPiece
from amdrv.firmware.synthetic import make_piece

KDB_TYPE, MEC_TYPE = 0x004F, 0x2048
MEC = make_piece("RS64_MEC")
KEYS = database_keys(parse(make_piece("KDB")))
GENUINE_KDB_KEY = next(key for key in ROOT_KEYS if key.modulus is None and "KDB" in key.pieces)


def check(data: bytes) -> Piece:
    return authenticate(data, ("RS64_MEC",), frozenset({MEC_TYPE}), KEYS, ROOT_KEYS, ())


def test_whole_piece_is_accepted_and_taken_apart() -> None:
    piece = check(MEC + bytes(100))
    assert piece.total_bytes == len(MEC)
    assert piece.body == MEC[HEADER_BYTES : HEADER_BYTES + len(piece.body)]
    assert piece.sha256() == hashlib.sha256(MEC).digest()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 8 * len(MEC) - 1))
def test_every_flipped_bit_is_refused(bit: int) -> None:
    damaged = bytearray(MEC)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ImageRejected):
        check(bytes(damaged))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(MEC) - 1))
def test_every_shorter_piece_is_refused(size: int) -> None:
    with pytest.raises(ImageRejected):
        check(MEC[:size])


@given(st.binary(max_size=2048))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ImageRejected):
        check(data)


def test_piece_of_another_type_is_named_as_such() -> None:
    with pytest.raises(ImageRejected, match="0x2044, expected 0x2048") as rejected:
        check(make_piece("RS64_PFP"))
    assert rejected.value.problem is Problem.WRONG_TYPE


def test_key_that_nobody_lists_is_named() -> None:
    with pytest.raises(ImageRejected, match=MEC[0x38:0x48].hex()) as rejected:
        authenticate(MEC, ("RS64_MEC",), frozenset({MEC_TYPE}), {}, ROOT_KEYS, ())
    assert rejected.value.problem is Problem.UNKNOWN_KEY


def test_boot_rom_key_signs_boot_pieces_only() -> None:
    forged = make_piece("KDB", type_id=MEC_TYPE)
    forged = forged[:0x10] + b"$PS1" + forged[0x14:]
    with pytest.raises(ImageRejected, match="only") as rejected:
        check(forged)
    assert rejected.value.problem is Problem.UNKNOWN_KEY


def test_signature_of_another_key_does_not_match() -> None:
    piece = parse(MEC)
    moduli = list(KEYS.values())
    assert sum(signature_matches(piece.signed, piece.signature, modulus) for modulus in set(moduli)) == 1
    assert not signature_matches(piece.signed, piece.signature, moduli[0] - 2)
    assert not signature_matches(piece.signed, piece.signature[:-1], moduli[0])


# -- pieces whose key only the boot ROM has: the substitute -----------------------------------------------------------


def boot_rom_piece(body: bytes) -> bytes:
    """A key database that names a key whose public half is unknown; its signature is noise."""
    piece = bytearray(make_piece("KDB", body=body))
    piece[0x38:0x48] = GENUINE_KDB_KEY.key_id
    return bytes(piece)


def check_boot_rom_piece(data: bytes, *known: KnownPiece) -> Piece:
    return authenticate(data, ("KDB",), frozenset({KDB_TYPE}), {}, ROOT_KEYS, known)


def known_as(data: bytes) -> KnownPiece:
    digest = hashlib.sha256(data).digest()
    return KnownPiece(digest, parse(data).stated_digest, len(data), "KDB", "sos.bin", "package 1")


def test_unknown_version_of_a_boot_rom_piece_is_accepted_by_its_digest() -> None:
    data = boot_rom_piece(b"new" * 100)
    assert check_boot_rom_piece(data, known_as(boot_rom_piece(b"old" * 100))).type_id == KDB_TYPE


def test_damaged_body_of_a_boot_rom_piece_is_refused() -> None:
    data = bytearray(boot_rom_piece(b"new" * 100))
    data[HEADER_BYTES + 5] ^= 1
    with pytest.raises(ImageRejected) as rejected:
        check_boot_rom_piece(bytes(data))
    assert rejected.value.problem is Problem.BAD_DIGEST


@pytest.mark.parametrize("offset", [0x60, -1], ids=["header", "signature"])
def test_known_body_in_another_wrapping_is_refused(offset: int) -> None:
    genuine = boot_rom_piece(b"old" * 100)
    data = bytearray(genuine)
    data[offset] ^= 1
    assert check_boot_rom_piece(genuine, known_as(genuine)).type_id == KDB_TYPE
    with pytest.raises(ImageRejected) as rejected:
        check_boot_rom_piece(bytes(data), known_as(genuine))
    assert rejected.value.problem is Problem.BAD_SIGNATURE


# -- key databases ----------------------------------------------------------------------------------------------------


def test_body_that_is_no_key_database_is_malformed() -> None:
    with pytest.raises(ImageRejected, match="no key database"):
        database_keys(parse(make_piece("KDB", body=bytes(0x200))))


def test_key_entry_that_runs_over_the_end_is_malformed() -> None:
    body = bytearray(parse(make_piece("KDB")).body)
    body[0x50:0x54] = (0x7FFFFFFF).to_bytes(4, "little")
    with pytest.raises(ImageRejected, match="key entry"):
        database_keys(parse(make_piece("KDB", body=bytes(body))))
