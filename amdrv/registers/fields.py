"""Bit fields: the one encoder and decoder behind registers, packets and table entries."""

from __future__ import annotations

import operator
import struct
from collections.abc import Mapping
from typing import NamedTuple, SupportsIndex

from amdrv.errors import InvalidArgument, NotFound

WORD_BITS = 32
WORD_MASK = (1 << WORD_BITS) - 1


class Field(NamedTuple):
    """A run of ``width`` bits whose lowest is bit ``lo``. In a packet, bit 32·n + b is bit b of dword n."""

    lo: int
    width: int = 1

    @property
    def max(self) -> int:
        """Largest value that fits."""
        return (1 << self.width) - 1

    @property
    def mask(self) -> int:
        """The field's bits, in place."""
        return self.max << self.lo

    def get(self, word: int) -> int:
        """This field's value in ``word``."""
        return word >> self.lo & (1 << self.width) - 1


def encode_fields(owner: str, fields: Mapping[str, Field], values: Mapping[str, SupportsIndex], start: int = 0) -> int:
    """Put named values into the word ``start`` and return it.

    ``owner`` names the register or packet in errors. Raises NotFound for a field that does not exist, InvalidArgument
    for a value that is not an integer or does not fit.
    """
    word = start
    for name, given in values.items():
        field = fields.get(name)
        if field is None:
            raise NotFound(f"{owner} has no field {name}; it has {', '.join(fields) or 'no named fields'}")
        try:
            value = operator.index(given)
        except TypeError:
            raise InvalidArgument(f"{owner}.{name} takes an integer, not {given!r}") from None
        if not 0 <= value <= field.max:
            raise InvalidArgument(f"{owner}.{name} is {field.width} bits wide; {value:#x} does not fit")
        word = word & ~field.mask | value << field.lo
    return word


def decode_fields(fields: Mapping[str, Field], word: int) -> dict[str, int]:
    """Every field's value in ``word``, in the order of ``fields``."""
    return {name: word >> lo & (1 << width) - 1 for name, (lo, width) in fields.items()}


class BitLayout:
    """Named fields over a fixed number of dwords: a packet body, a table entry, a ring frame.

    ``fields`` maps names to bit positions counted over the whole layout. Fields may overlap (views of one dword that
    depend on another field); ``encode`` takes them in the order given.
    """

    __slots__ = ("dwords", "fields", "name")

    def __init__(self, name: str, dwords: int, fields: Mapping[str, Field]) -> None:
        for field_name, field in fields.items():
            if field.lo + field.width > dwords * WORD_BITS:
                raise InvalidArgument(f"{name}.{field_name} ends beyond {dwords} dwords")
        self.name = name
        self.dwords = dwords
        self.fields = fields

    def encode(self, **values: SupportsIndex) -> tuple[int, ...]:
        """Dwords with the named fields set and every other bit zero; raises NotFound or InvalidArgument."""
        word = encode_fields(self.name, self.fields, values)
        return tuple(word >> WORD_BITS * i & WORD_MASK for i in range(self.dwords))

    def decode(self, dwords: tuple[int, ...] | list[int]) -> dict[str, int]:
        """Every field of ``dwords``; missing trailing dwords read as zero."""
        given = dwords[: self.dwords]
        return decode_fields(self.fields, int.from_bytes(struct.pack(f"<{len(given)}I", *given), "little"))

    def __repr__(self) -> str:
        return f"<BitLayout {self.name}: {self.dwords} dwords, {len(self.fields)} fields>"
