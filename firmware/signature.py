"""RSASSA-PSS with SHA-256, the signature scheme of firmware pieces (RFC 8017, sections 8.1 and 9.1).

That pieces use it with a salt as long as the hash was established by verifying genuine ones: all pieces for Navi31
whose key the key database lists.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

_HASH_SIZE_BYTES = 32
_SALT_SIZE_BYTES = 32
_TRAILER = 0xBC


class PublicKey(NamedTuple):
    """An RSA public key and what a key database lists it for."""

    modulus: int
    exponent: int
    usage: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the modulus and of every signature made with it."""
        return (self.modulus.bit_length() + 7) // 8


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def _mask(seed: bytes, size_bytes: int) -> bytes:
    """MGF1 with SHA-256."""
    blocks = range((size_bytes + _HASH_SIZE_BYTES - 1) // _HASH_SIZE_BYTES)
    return b"".join(_sha256(seed + block.to_bytes(4, "big")) for block in blocks)[:size_bytes]


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")


def _digest_with_salt(message: bytes | memoryview, salt: bytes) -> bytes:
    return _sha256(bytes(8) + _sha256(message) + salt)


def encode(message: bytes | memoryview, salt: bytes, size_bytes: int) -> int:
    """The number that the private key is applied to, for a modulus of ``size_bytes`` whole bytes."""
    digest = _digest_with_salt(message, salt)
    padding = bytes(size_bytes - _HASH_SIZE_BYTES - len(salt) - 2)
    masked = bytearray(_xor(padding + b"\x01" + salt, _mask(digest, size_bytes - _HASH_SIZE_BYTES - 1)))
    masked[0] &= 0x7F  # the number must stay below the modulus
    return int.from_bytes(bytes(masked) + digest + bytes([_TRAILER]), "big")


def verify(message: bytes | memoryview, signature: bytes | memoryview, key: PublicKey) -> bool:
    """Whether ``signature`` (big endian) is one of ``message`` by the owner of ``key``."""
    size = key.size_bytes
    number = int.from_bytes(signature, "big")
    if len(signature) != size or number >= key.modulus:
        return False
    encoded = pow(number, key.exponent, key.modulus).to_bytes(size, "big")
    masked, digest, trailer = encoded[: -_HASH_SIZE_BYTES - 1], encoded[-_HASH_SIZE_BYTES - 1 : -1], encoded[-1]
    if trailer != _TRAILER or masked[0] & 0x80:
        return False
    block = bytearray(_xor(masked, _mask(digest, len(masked))))
    block[0] &= 0x7F
    salt = bytes(block[-_SALT_SIZE_BYTES:])
    separator = len(block) - _SALT_SIZE_BYTES - 1
    return not any(block[:separator]) and block[separator] == 1 and _digest_with_salt(message, salt) == digest
