"""RSASSA-PSS against signatures that another implementation made."""

from __future__ import annotations

import hashlib
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.facts.firmware_auth import ROOT_KEYS, SYNTHETIC_ROOT_KEY_ID
from amdrv.firmware.signature import PublicKey, encode, verify
from amdrv.firmware.synthetic_keys import COMPONENT_KEY, ROOT_KEY

# OpenSSL 3.0.19: dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32, and the same with 20.
MESSAGE = b"a message signed by OpenSSL"
MODULUS = (
    "af6cb7455bf90e698c3ef9c12cd8c9eeec43c86706e2d93c55025cc06f7114257cdf171fa386c7ea6a25b8e03b4bc992"
    "9945d2417ffd19484ce8de1d65fb12d2c5744f01675fa9e7c37057b360229b7bd334eea80911e1c91e654bd78853eb57"
    "1e1c52669564c0d6ab20ea84b6d8dd2efd3ab92b70c134bf88cf22f885c5e305fb8bf92e89eb24175b07c1774555e24a"
    "ffa71c8cc33ce6c7a481a4134a858a9ea356a910b8ff58d4fc3860b657166d3cf8dc48b88275cb37416ea9ac5e8cc1be"
    "b55944505e4a3b19802a401516b6f5ddaa2cc9e6bfdd5b712c6d13e5d08560c983c0a15bc88c76c16eae11a3232b9bd5"
    "7c650f151013da428cf8d6e2debb515f"
)
SIGNATURE = (
    "38db59f49e171ec18f760b33e6d7b10e2714798a57897ee5e36f5d7f2cb75d88f2fd04c3a5c544d9d6ecd59f978fad87"
    "0ca328aeb5cc86cd40ff4911ca872e1fb29e0985a133c60c3495b038382c1107243a86024998f28806c82939d91480f6"
    "c9abd43113cd2ad6b3547b31805dd9693bfcc75351d4ff9c198f8dfc26f3ff7abad9664700dac332a3f1a0f0c5bd6347"
    "e6f1c3f469c22606ba1dd63a47705fb7f1c42eeab0507f2c693996b6ac9ba012aa5ae004a0ee1d5d7b40f3aa00f64997"
    "b2ce6b9c9c7d7a673e7737d3bdcf3635c779a196b3d9e7e2aae25d19ee2dc854d8beb71bead93437b0e1b41b5cbeaf34"
    "4d4302903517aee48c9e5c74fcddbf26"
)
SIGNATURE_WITH_SALT_OF_20 = (
    "1e23c5e40a53dedecb5694f4f91ff1cee3d49c9d87f60b7b3560288dc16c3d48dfe4c97771508b5e4f1a201ae6a06405"
    "2b5742b23a912375da7d5aa82006fdeb1f21aa845c7ad58890180310073b02f45de34ee1ccb628149f379929d8006e37"
    "8a1f767bd25b0aceac7b56d28f38bf8ed0aff80c579119580fbcabf642a71af3a9b6798e64e5b1b4b299c7959acd62b6"
    "a87f618808bc61bd2ad8c7ab54a53ff577058a57093367c4fa4b826228221336529f6da7976aacf798ce31a61d19f507"
    "2c235e1a1de8d007546c6aecf8ecb9c958df19cfc9135021319d1c4a87c1db93dcfe63c9d90635bfa8d566c95919b578"
    "a0ce61696bfa799d01ee8233a16f8055"
)
KEY = PublicKey(int(MODULUS, 16), 0x10001, 0)


def test_accepts_a_signature_made_by_openssl() -> None:
    assert verify(MESSAGE, bytes.fromhex(SIGNATURE), KEY)


def test_refuses_a_salt_of_another_length() -> None:
    assert not verify(MESSAGE, bytes.fromhex(SIGNATURE_WITH_SALT_OF_20), KEY)


def test_refuses_another_message() -> None:
    assert not verify(MESSAGE + b".", bytes.fromhex(SIGNATURE), KEY)


def test_refuses_a_signature_of_another_length() -> None:
    assert not verify(MESSAGE, b"\0" + bytes.fromhex(SIGNATURE), KEY)


def test_refuses_a_number_beyond_the_modulus() -> None:
    # The same residue: only a range check tells it from the signature.
    beyond = int(SIGNATURE, 16) + KEY.modulus
    if beyond.bit_length() <= 2048:
        assert not verify(MESSAGE, beyond.to_bytes(256, "big"), KEY)
    assert not verify(MESSAGE, b"\xff" * 256, KEY)


@given(bit=st.integers(0, 2047))
def test_refuses_a_signature_with_any_bit_flipped(bit: int) -> None:
    damaged = (int(SIGNATURE, 16) ^ (1 << bit)).to_bytes(256, "big")
    assert not verify(MESSAGE, damaged, KEY)


def signed_with_block_byte(position: int, value: int, first_bit: int = 0) -> bytes:
    """A signature of MESSAGE by the component key whose padding block has one byte changed (RFC 8017, 9.1.1 step 8)."""
    key = COMPONENT_KEY
    # With a small first byte the number stays below the modulus even with its first bit set.
    encodings = (encode(MESSAGE, bytes([salt] * 32), 256).to_bytes(256, "big") for salt in range(256))
    encoded = next(encoding for encoding in encodings if encoding[0] < 0x40)
    masked, digest = encoded[:223], encoded[223:255]
    mask = b"".join(hashlib.sha256(digest + block.to_bytes(4, "big")).digest() for block in range(7))[:223]
    block = bytearray(byte ^ other for byte, other in zip(masked, mask, strict=True))
    block[position] = value
    masked = bytes(byte ^ other for byte, other in zip(block, mask, strict=True))
    number = int.from_bytes(bytes([masked[0] & 0x7F | first_bit << 7]) + masked[1:] + digest + b"\xbc", "big")
    assert number < prod(key.primes)
    private_exponent = pow(0x10001, -1, prod(prime - 1 for prime in key.primes))
    return pow(number, private_exponent, prod(key.primes)).to_bytes(256, "big")


@pytest.mark.parametrize(("position", "value", "right"), [(1, 0, True), (1, 1, False), (190, 1, True), (190, 2, False)])
def test_padding_of_the_signed_block_must_be_right(position: int, value: int, right: bool) -> None:
    assert verify(MESSAGE, signed_with_block_byte(position, value), COMPONENT_KEY.public()) is right


def test_first_bit_of_the_signed_block_must_be_clear() -> None:
    assert not verify(MESSAGE, signed_with_block_byte(1, 0, first_bit=1), COMPONENT_KEY.public())


@given(message=st.binary(max_size=200), salt=st.binary(min_size=32, max_size=32))
def test_signatures_of_the_synthetic_keys_verify_with_their_own_key_only(message: bytes, salt: bytes) -> None:
    signature = COMPONENT_KEY.sign(message, salt)
    assert verify(message, signature, COMPONENT_KEY.public())
    assert not verify(message, signature, ROOT_KEY.public())


def test_the_published_root_modulus_is_that_of_the_signing_key() -> None:
    root = next(root for root in ROOT_KEYS if root.key_id == SYNTHETIC_ROOT_KEY_ID)
    assert root.modulus == ROOT_KEY.public().modulus
