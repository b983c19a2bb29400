"""The signed container that wraps every piece handed to the PSP, and the key database among them.

No public header describes it. Established by reading all images of Debian's firmware-amd-graphics (20230210-5,
20250410-2, 20260916-1~bpo13+1) for Navi31: magic "$PS1", sizes that add up to the piece, a SHA-256 of the body, and an
RSA signature that really verifies with the key whose id the header names. Most pieces for Navi48 (20260916-1~bpo13+1)
have a second format: a SHA-384 of the body, no total size, and the same kind of signature, which verifies as well.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import NamedTuple

from amdrv.errors import MalformedInput
from amdrv.firmware.signature import PublicKey

HEADER_SIZE_BYTES = 0x100
MAGIC = b"$PS1"
KEY_DATABASE_TYPE = 0x004F
KEY_DATABASE_MAGIC = b"$KDB"

# Offsets in the container's header; integers are little endian.
MAGIC_OFFSET = 0x10
BODY_SIZE_OFFSET = 0x14
ENCRYPTED_OFFSET = 0x18
SIGNED_OFFSET = 0x30
KEY_ID_OFFSET = 0x38
COMPRESSED_OFFSET = 0x48
TYPE_OFFSET = 0x58
FORMAT_OFFSET = 0x5A
VERSION_OFFSET = 0x60
TOTAL_SIZE_OFFSET = 0x6C
BODY_DIGEST_OFFSET = 0xD0
KEY_ID_SIZE_BYTES = 16
SIGNATURE_SIZES_BYTES = (0x100, 0x200)  # RSA-2048 and RSA-4096
SECOND_FORMAT = 2  # at FORMAT_OFFSET
SECOND_FORMAT_SIGNATURE_BYTES = 0x100
SHA256_BYTES, SHA384_BYTES = 32, 48

_KEY_DATABASE_HEADER = struct.Struct("<II4s")
_KEY_DATABASE_FIRST_ENTRY = 0x50
_KEY_ENTRY = struct.Struct("<4I16sI")  # entry size, version, usage, exponent, key id, modulus bits
_KEY_MODULUS_OFFSET = 0x50


class Container(NamedTuple):
    """A piece as the PSP sees it, without the zeros that data images have behind the signature."""

    type_id: int
    version: int
    key_id: bytes
    signed: memoryview  # header and body: what the signature covers
    body: memoryview
    body_digest: bytes  # as the header states it
    signature: memoryview

    @property
    def sha256(self) -> bytes:
        """SHA-256 of header, body and signature."""
        digest = hashlib.sha256(self.signed)
        digest.update(self.signature)
        return digest.digest()

    @property
    def body_digest_matches(self) -> bool:
        """Whether the body has the SHA-256 (in the second format SHA-384) that the header states.

        The signature decides, not this: the register list for RLC (SRM_MEM, version 5) of firmware-amd-graphics
        20230210-5 states another digest than its body has, and is genuine by its signature.
        """
        digest = hashlib.sha256 if len(self.body_digest) == SHA256_BYTES else hashlib.sha384
        return digest(self.body).digest() == self.body_digest


def _word(data: memoryview, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def parse_container(what: str, data: memoryview) -> Container:
    """Split a piece into header, body and signature; ``what`` names it in errors.

    Raises:
        MalformedInput: too short, no magic, sizes that do not add up, encrypted, compressed, unsigned bytes at the end.
    """
    if len(data) < HEADER_SIZE_BYTES:
        raise MalformedInput(f"{what}: {len(data)} bytes are too few for the {HEADER_SIZE_BYTES}-byte signed header")
    type_id = int.from_bytes(data[TYPE_OFFSET : TYPE_OFFSET + 2], "little")
    magic = bytes(data[MAGIC_OFFSET : MAGIC_OFFSET + 4])
    # Genuine key databases have no magic here; their body begins with one of its own.
    if magic != MAGIC and not (magic == bytes(4) and type_id == KEY_DATABASE_TYPE):
        raise MalformedInput(f"{what}: magic of the signed header is {magic!r}, expected {MAGIC!r}")
    for field, offset, expected in (
        ("encrypted", ENCRYPTED_OFFSET, 0),
        ("signed", SIGNED_OFFSET, 1),
        ("compressed", COMPRESSED_OFFSET, 0),
    ):
        found = _word(data, offset)
        if found != expected:
            raise MalformedInput(f"{what}: field '{field}' of the signed header is {found:#x}, expected {expected}")
    body_size, total_size = _word(data, BODY_SIZE_OFFSET), _word(data, TOTAL_SIZE_OFFSET)
    digest_size = SHA256_BYTES
    if data[FORMAT_OFFSET] == SECOND_FORMAT:
        total_size = HEADER_SIZE_BYTES + body_size + SECOND_FORMAT_SIGNATURE_BYTES
        digest_size = SHA384_BYTES
    if total_size > len(data):
        raise MalformedInput(f"{what}: signed header states {total_size:#x} bytes, the piece has {len(data):#x}")
    signed_size = HEADER_SIZE_BYTES + body_size
    if total_size - signed_size not in SIGNATURE_SIZES_BYTES:
        raise MalformedInput(
            f"{what}: total size {total_size:#x} of the signed header leaves {total_size - signed_size:#x} bytes for"
            f" the signature behind a body of {body_size:#x}"
        )
    if data[total_size:] != bytes(len(data) - total_size):
        raise MalformedInput(f"{what}: bytes that are not zero follow the signature, which ends at {total_size:#x}")
    return Container(
        type_id=type_id,
        version=_word(data, VERSION_OFFSET),
        key_id=bytes(data[KEY_ID_OFFSET : KEY_ID_OFFSET + KEY_ID_SIZE_BYTES]),
        signed=data[:signed_size],
        body=data[HEADER_SIZE_BYTES:signed_size],
        body_digest=bytes(data[BODY_DIGEST_OFFSET : BODY_DIGEST_OFFSET + digest_size]),
        signature=data[signed_size:total_size],
    )


def parse_key_database(what: str, container: Container) -> Mapping[bytes, PublicKey]:
    """Public keys of a key database by key id.

    Raises:
        MalformedInput: not a key database, or an entry that does not fit.
    """
    body = container.body
    if len(body) < _KEY_DATABASE_FIRST_ENTRY:
        raise MalformedInput(f"{what}: key database of {len(body)} bytes has no room for its header")
    size, _, magic = _KEY_DATABASE_HEADER.unpack_from(body)
    if magic != KEY_DATABASE_MAGIC or size != len(body):
        raise MalformedInput(f"{what}: key database header is {magic!r}, {size:#x} bytes; the body has {len(body):#x}")
    keys: dict[bytes, PublicKey] = {}
    offset = _KEY_DATABASE_FIRST_ENTRY
    while offset + _KEY_MODULUS_OFFSET <= len(body):
        entry_size, _, usage, exponent, key_id, bits = _KEY_ENTRY.unpack_from(body, offset)
        if entry_size == 0:
            break
        end = offset + entry_size
        if bits % 8 or entry_size != _KEY_MODULUS_OFFSET + bits // 8 or end > len(body):
            raise MalformedInput(
                f"{what}: key entry at {offset:#x} of {entry_size:#x} bytes cannot hold {bits} bits of key"
            )
        modulus = int.from_bytes(body[offset + _KEY_MODULUS_OFFSET : end], "little")
        if modulus.bit_length() != bits or exponent < 3:
            raise MalformedInput(f"{what}: key entry at {offset:#x} holds no usable {bits}-bit public key")
        keys[key_id] = PublicKey(modulus, exponent, usage)
        offset = end
    return keys
