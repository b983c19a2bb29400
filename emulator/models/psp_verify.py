"""How the emulated PSP decides about a firmware piece: container, type, key, signature. Pure functions.

The container and the signature scheme were established on genuine images: every piece the PSP is handed is a signed
container, and the public keys of all but the bootloader's own pieces are in the key database that is loaded first. For
those few, whose keys sit in the boot ROM and are not public, the check is a substitute: the chip's key id, a consistent
header, the body's digest, and for known images the digest of the whole. Facts: amdrv/facts/firmware_auth.py.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amdrv.facts.firmware_auth import KnownPiece, RootKey

HEADER_BYTES = 0x100
MAGIC = b"$PS1"
KEY_DATABASE_TYPE = 0x004F
KEY_DATABASE_MAGIC = b"$KDB"
KEY_ENTRY_BYTES = 0x50  # without the modulus
FIRST_KEY_ENTRY = 0x50
EXPONENT = 65537
SIGNATURE_BYTES = (0x100, 0x200)  # RSA-2048, RSA-4096
# The second format, from PSP 14 on: no total size (its field has another meaning or none), and a longer digest.
FORMAT_OFFSET, SECOND_FORMAT = 0x5A, 2
DIGEST_BYTES = 32
TRAILER = 0xBC


class Problem(enum.Enum):
    """Why a piece is not accepted."""

    MALFORMED = "its signed header is not one"
    TRUNCATED = "it is shorter than its header says"
    WRONG_TYPE = "it is a piece of another kind"
    UNKNOWN_KEY = "it is signed with a key that this chip does not know"
    BAD_SIGNATURE = "its signature does not match"
    BAD_DIGEST = "its body does not have the digest that its header states"


class ImageRejected(Exception):
    """A piece failed a check."""

    def __init__(self, problem: Problem, detail: str = "") -> None:
        super().__init__(f"{problem.value}{': ' if detail else ''}{detail}")
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Piece:
    """A container, taken apart."""

    type_id: int
    version: int
    key_id: bytes
    signed: bytes  # header and body
    signature: bytes
    stated_digest: bytes

    @property
    def body(self) -> bytes:
        """What the engine runs."""
        return self.signed[HEADER_BYTES:]

    @property
    def total_bytes(self) -> int:
        """Header, body and signature."""
        return len(self.signed) + len(self.signature)

    def sha256(self) -> bytes:
        """Digest of header, body and signature."""
        return hashlib.sha256(self.signed + self.signature).digest()


def total_size(header: bytes) -> int:
    """Bytes of the piece that starts with this header; raises ImageRejected when it is no header."""
    if len(header) < HEADER_BYTES:
        raise ImageRejected(Problem.TRUNCATED, f"{len(header)} bytes")
    type_id = struct.unpack_from("<H", header, 0x58)[0]
    magic = header[0x10:0x14]
    # Genuine key databases leave the magic out.
    if magic != MAGIC and not (type_id == KEY_DATABASE_TYPE and magic == bytes(4)):
        raise ImageRejected(Problem.MALFORMED, f"magic {magic!r}")
    body_bytes, encrypted = struct.unpack_from("<II", header, 0x14)
    signed, compressed = struct.unpack_from("<I", header, 0x30)[0], struct.unpack_from("<I", header, 0x48)[0]
    if encrypted or compressed or signed != 1:
        raise ImageRejected(Problem.MALFORMED, f"encrypted {encrypted}, compressed {compressed}, signed {signed}")
    if header[FORMAT_OFFSET] == SECOND_FORMAT:
        return int(HEADER_BYTES + body_bytes + SIGNATURE_BYTES[0])
    total: int = struct.unpack_from("<I", header, 0x6C)[0]
    if total - HEADER_BYTES - body_bytes not in SIGNATURE_BYTES:
        raise ImageRejected(Problem.MALFORMED, f"{total:#x} bytes for a body of {body_bytes:#x} and a signature")
    return total


def parse(data: bytes) -> Piece:
    """Take a container apart; bytes behind it are not looked at. Raises ImageRejected."""
    total = total_size(data)
    if total > len(data):
        raise ImageRejected(Problem.TRUNCATED, f"{total:#x} bytes stated, {len(data):#x} handed over")
    signed_bytes = HEADER_BYTES + struct.unpack_from("<I", data, 0x14)[0]
    return Piece(
        type_id=struct.unpack_from("<H", data, 0x58)[0],
        version=struct.unpack_from("<I", data, 0x60)[0],
        key_id=data[0x38:0x48],
        signed=data[:signed_bytes],
        signature=data[signed_bytes:total],
        stated_digest=data[0xD0:0x100] if data[FORMAT_OFFSET] == SECOND_FORMAT else data[0xD0:0xF0],
    )


def authenticate(
    data: bytes,
    names: Sequence[str],
    type_ids: frozenset[int],
    keys: Mapping[bytes, int],
    roots: Sequence[RootKey],
    known: Sequence[KnownPiece],
) -> Piece:
    """The piece in ``data``, or ImageRejected.

    ``names`` and ``type_ids`` say what the command accepts; ``keys`` are moduli by key id from the key database.
    """
    piece = parse(data)
    if piece.type_id not in type_ids:
        wanted = ", ".join(f"{type_id:#06x}" for type_id in sorted(type_ids))
        raise ImageRejected(Problem.WRONG_TYPE, f"type {piece.type_id:#06x}, expected {wanted}")
    root = next((key for key in roots if key.key_id == piece.key_id), None)
    if root is not None and not set(names) & set(root.pieces):
        raise ImageRejected(Problem.UNKNOWN_KEY, f"{piece.key_id.hex()} signs {', '.join(root.pieces)} only")
    modulus = root.modulus if root is not None else keys.get(piece.key_id)
    if modulus is not None:
        if not signature_matches(piece.signed, piece.signature, modulus):
            raise ImageRejected(Problem.BAD_SIGNATURE)
    elif root is not None:
        _check_by_digest(piece, known)
    else:
        raise ImageRejected(Problem.UNKNOWN_KEY, piece.key_id.hex())
    return piece


def database_keys(piece: Piece) -> dict[bytes, int]:
    """Key id → modulus, from the body of an accepted key database. Raises ImageRejected."""
    body = piece.body
    if body[8:12] != KEY_DATABASE_MAGIC:
        raise ImageRejected(Problem.MALFORMED, "no key database in it")
    keys: dict[bytes, int] = {}
    at = FIRST_KEY_ENTRY
    while at + KEY_ENTRY_BYTES <= len(body):
        entry_bytes = struct.unpack_from("<I", body, at)[0]
        if entry_bytes == 0:
            break
        if entry_bytes <= KEY_ENTRY_BYTES or at + entry_bytes > len(body):
            raise ImageRejected(Problem.MALFORMED, f"key entry of {entry_bytes:#x} bytes at {at:#x}")
        keys[body[at + 16 : at + 32]] = int.from_bytes(body[at + KEY_ENTRY_BYTES : at + entry_bytes], "little")
        at += entry_bytes
    return keys


def signature_matches(message: bytes, signature: bytes, modulus: int) -> bool:
    """RSASSA-PSS verification (RFC 8017 §8.1.2): SHA-256, MGF1 with SHA-256, 32-byte salt, exponent 65537."""
    size = (modulus.bit_length() + 7) // 8
    number = int.from_bytes(signature, "big")
    if len(signature) != size or number >= modulus:
        return False
    encoded = pow(number, EXPONENT, modulus).to_bytes(size, "big")
    masked, digest = encoded[: size - DIGEST_BYTES - 1], encoded[size - DIGEST_BYTES - 1 : -1]
    if encoded[-1] != TRAILER or masked[0] & 0x80:
        return False
    block = bytearray(a ^ b for a, b in zip(masked, _mask(digest, len(masked)), strict=True))
    block[0] &= 0x7F
    padding, salt = block[: -DIGEST_BYTES - 1], block[-DIGEST_BYTES:]
    if any(padding) or block[-DIGEST_BYTES - 1] != 1:
        return False
    inner = bytes(8) + hashlib.sha256(message).digest() + salt
    return hashlib.sha256(inner).digest() == digest


def _mask(seed: bytes, size_bytes: int) -> bytes:
    blocks = (size_bytes + DIGEST_BYTES - 1) // DIGEST_BYTES
    return b"".join(hashlib.sha256(seed + n.to_bytes(4, "big")).digest() for n in range(blocks))[:size_bytes]


def _check_by_digest(piece: Piece, known: Sequence[KnownPiece]) -> None:
    """The substitute for a signature whose key is not public."""
    digest = hashlib.sha256 if len(piece.stated_digest) == DIGEST_BYTES else hashlib.sha384
    if digest(piece.body).digest() != piece.stated_digest:
        raise ImageRejected(Problem.BAD_DIGEST)
    genuine = {image.sha256 for image in known if image.body_sha256 == piece.stated_digest}
    if genuine and piece.sha256() not in genuine:
        raise ImageRejected(Problem.BAD_SIGNATURE, "a known body with another header or signature")
