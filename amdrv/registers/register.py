"""A register with its address, a value of it that knows its fields, and rows of numbered registers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import SupportsIndex

from amdrv.errors import NotFound
from amdrv.registers.fields import WORD_BITS, Field, decode_fields, encode_fields
from amdrv.registers.table import RegisterTable

DWORD_BYTES = 4


class UnknownRegister(NotFound, AttributeError):
    """A register or field name that the tables do not have; also an AttributeError, for ``block.NAME``."""


class Register:
    """One register of one block instance: an address and named fields.

    ``dword`` and ``address`` (bytes) count from the start of the register aperture.
    """

    __slots__ = ("_fields", "_table", "dword", "instance", "ip", "name")

    def __init__(self, ip: str, instance: int, name: str, dword: int, table: RegisterTable) -> None:
        self.ip = ip
        self.instance = instance
        self.name = name
        self.dword = dword
        self._table = table
        self._fields: Mapping[str, Field] | None = None

    @property
    def address(self) -> int:
        """Byte address in the register aperture."""
        return self.dword * DWORD_BYTES

    @property
    def full_name(self) -> str:
        """``GC.SCRATCH_REG0``, or ``GC[1].SCRATCH_REG0`` for a later instance."""
        return f"{self.ip}[{self.instance}].{self.name}" if self.instance else f"{self.ip}.{self.name}"

    @property
    def fields(self) -> Mapping[str, Field]:
        """Fields by header name, lowest bit first; empty when the header names none."""
        if self._fields is None:
            self._fields = self._table.fields(self.name)
        return self._fields

    @property
    def reset_value(self) -> int:
        """Value after reset as AMD's headers give it, zero where they give none."""
        return self._table.reset_value(self.name)

    def encode(self, **values: SupportsIndex) -> int:
        """The register value with the named fields set and every other bit zero.

        Raises NotFound for an unknown field, InvalidArgument for a value that does not fit.
        """
        return encode_fields(self.full_name, self.fields, values)

    def decode(self, value: int) -> RegisterValue:
        """``value`` with its fields as attributes."""
        return RegisterValue(self, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Register) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"<Register {self.full_name} @ {self.address:#x}>"

    def _key(self) -> tuple[str, int, str, int]:
        return self.ip, self.instance, self.name, self.dword


class RegisterValue(int):
    """A value read from a register: an integer whose attributes are the register's fields."""

    register: Register

    def __new__(cls, register: Register, value: int) -> RegisterValue:
        self = super().__new__(cls, value)
        self.register = register
        return self

    def __getattr__(self, name: str) -> int:
        # Private names are Python's own questions (copying, pickling), never fields.
        field = None if name.startswith("_") else self.register.fields.get(name)
        if field is None:
            raise UnknownRegister(f"{self.register.full_name} has no field {name}")
        return field.get(self)

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """A copy or a pickle is the plain number: a value that travels has no map behind it."""
        return int, (int(self),)

    def replace(self, **values: SupportsIndex) -> RegisterValue:
        """The same value with the named fields changed; raises as ``Register.encode`` does."""
        register = self.register
        return RegisterValue(register, encode_fields(register.full_name, register.fields, values, start=int(self)))

    def decoded(self) -> dict[str, int]:
        """Every field's value."""
        return decode_fields(self.register.fields, self)

    def __str__(self) -> str:
        """``GC.NAME=0x00000007 {ENABLE=0x1 DEPTH=0x3}``: the fields that are not zero, and bits outside any field."""
        text = f"{self.register.full_name}={int(self):#010x}"
        fields = self.register.fields
        if len(fields) == 1 and next(iter(fields.values())).width == WORD_BITS:
            return text
        shown = [f"{name}={value:#x}" for name, value in self.decoded().items() if value]
        covered = 0
        for field in fields.values():
            covered |= field.mask
        if self & ~covered:
            shown.append(f"unnamed bits {self & ~covered:#x}")
        return f"{text} {{{' '.join(shown)}}}" if shown else text

    __repr__ = __str__


class RegisterArray(Mapping[int, Register]):
    """Registers that differ in one number of their name: ``block.array("GCVM_CONTEXT{}_CNTL")[8]``.

    Looking an element up costs what a plain lookup costs; iterating finds every number that exists, in order.
    """

    def __init__(self, pattern: str, lookup: Callable[[str], Register], numbers: Callable[[], list[int]]) -> None:
        self.pattern = pattern
        self._lookup = lookup
        self._numbers = numbers

    def __getitem__(self, number: int) -> Register:
        return self._lookup(self.pattern.format(number))

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers())

    def __len__(self) -> int:
        return len(self._numbers())

    @property
    def stride_bytes(self) -> int:
        """Distance between neighbours, when it is the same between all of them; raises NotFound otherwise."""
        elements = list(self.values())
        strides = {after.address - before.address for before, after in itertools.pairwise(elements)}
        if len(strides) != 1:
            raise NotFound(f"{self.pattern} has {len(elements)} registers and no single stride")
        return strides.pop()
