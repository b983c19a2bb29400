"""The keys that sign synthetic firmware. They are published on purpose and protect nothing.

They exist so that the emulated PSP can check a synthetic piece exactly as it checks a genuine one: by an RSA signature
whose public key is in the boot ROM (the root key) or in the key database. Eight small primes a key (multi-prime RSA,
RFC 8017 section 3.2) make a signature cost 1 ms of plain Python, where two large ones cost 7; the public side does not
notice.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from amdrv.firmware.signature import PublicKey, encode

_EXPONENT = 0x10001


class SigningKey(NamedTuple):
    """An RSA key with its private primes."""

    primes: tuple[int, ...]

    def public(self, usage: int = 0) -> PublicKey:
        """The public half."""
        return PublicKey(prod(self.primes), _EXPONENT, usage)

    def sign(self, message: bytes, salt: bytes) -> bytes:
        """RSASSA-PSS signature of ``message``, big endian; a given salt makes it repeatable."""
        modulus = prod(self.primes)
        size_bytes = (modulus.bit_length() + 7) // 8
        number = encode(message, salt, size_bytes)
        signature = 0
        for prime in self.primes:  # Chinese remainder theorem over the primes
            others = modulus // prime
            residue = pow(number % prime, pow(_EXPONENT, -1, prime - 1), prime)
            signature += residue * others * pow(others, -1, prime)
        return (signature % modulus).to_bytes(size_bytes, "big")


ROOT_KEY = SigningKey(
    (
        0xF1A3459C46E57FD8AD33F41D2064C1EE481B9D4C92274205A11776C64C2A1987,
        0xF584EC728ACA8FCA4A0B29DB23EFD8CE38A01EC11F9AAFC98E3FC5E655F483BF,
        0xF6187527F0BD2A148C01E71699B6D7D63DADD11F00A90C40DB0B5EC65CE2791D,
        0xF11FBAD9A999F5636E4F04CF9F3444FA9A2F04AAD8F41347E3EDB5070F6985E7,
        0xFEB6A1DA901E82496FA1B240F57B4166B64194911333A207D181075CC5A1B2EB,
        0xFDF5C67D47A4C7980C27FFF6D41F06520CE00DBD20F6FB9A2B8DA24B992BF1C5,
        0xF2A703C4C8984580B2BB474E79BD331BCBBDA7DAF9B1DF8BE8AA50B27DEA776D,
        0xF257BB521D19AD14A09BE528D7CACE7F51D1A38CD2C44B3F09006FE34797EA43,
    )
)

COMPONENT_KEY = SigningKey(
    (
        0xF15038715DFE76796FAB1B1CDD480D3A69E92BC882FAF263E515353526E83217,
        0xFA2CA01B9CBA1AE0F10A37ACD01042FD5B86EABB3AF76BB27318ACA24A7C6F27,
        0xF1190C1AB98EC2223BF0720EADDE1ABA6AFD7872523DF4B3387B6B6F1D8AE7E1,
        0xF2F90FBCA308051A28B95C344DAC4DE1B9BADEBCDC94E965119137398A9DD25D,
        0xF244C82672C8CB98531F71EFA168FEC0FB71820F1DCBCAC5F3AD5AD84BD74855,
        0xFAC016D35C2D440090F580114F9ACEEA2AFC08207FDEF0A407507F583AF5B261,
        0xFD64C26DE968E2261509C99EBAD79BD74BA019FBC6BDA87990D319E018DF18AF,
        0xFF85F5549551F8D279423B5D92B38CBFC7ECB0E83D847C0083E7D8CD8EF65C17,
    )
)
