"""One register table: the text that tools/generate_registers.py wrote for one version of one block.

Opening a table splits it into lines and no more; a register's fields are parsed when somebody asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache

from amdrv.errors import MalformedInput, NotFound
from amdrv.registers.fields import Field

TABLE_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "facts", "registers")


class RegisterTable:
    """Names, places and fields of the registers of one block version, independent of any base address."""

    def __init__(self, name: str, text: str) -> None:
        """Take the table's text; raises MalformedInput for a line without a name, a segment and an offset."""
        self.name = name
        self._rows: dict[str, str] = {}
        for line in text.splitlines():
            if line and line[0] != "#":
                register, _, rest = line.partition(" ")
                self._rows[register] = rest

    @staticmethod
    def load(name: str) -> RegisterTable:
        """The packaged table ``name``, for example ``gc_11_0_0``; read once a process. Raises NotFound."""
        return _load(name)

    def __contains__(self, register: str) -> bool:
        return register in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, register: str) -> tuple[int, int]:
        """(base address index, dword offset) of a register; raises NotFound, MalformedInput."""
        segment, offset, _ = self._row(register)
        try:
            return int(segment), int(offset.partition("!")[0], 16)
        except ValueError:
            raise MalformedInput(f"register table {self.name}: bad place of {register}") from None

    def reset_value(self, register: str) -> int:
        """Value after reset, zero where the headers give none; raises NotFound, MalformedInput."""
        text = self._row(register)[1].partition("!")[2]
        try:
            return int(text or "0", 16)
        except ValueError:
            raise MalformedInput(f"register table {self.name}: bad reset value of {register}: {text}") from None

    def fields(self, register: str) -> Mapping[str, Field]:
        """Fields of a register, lowest bit first; raises NotFound, MalformedInput."""
        text = self._row(register)[2]
        if text.startswith("="):
            return self.fields(text[1:])
        try:
            return dict(_parse_field(token) for token in text.split())
        except ValueError:
            raise MalformedInput(f"register table {self.name}: bad fields of {register}: {text}") from None

    def _row(self, register: str) -> tuple[str, str, str]:
        row = self._rows.get(register)
        if row is None:
            raise NotFound(f"register table {self.name} has no {register}")
        segment, _, rest = row.partition(" ")
        offset, _, fields = rest.partition(" ")
        return segment, offset, fields


def _parse_field(token: str) -> tuple[str, Field]:
    name, lo, *width = token.split(":")
    return name, Field(int(lo), int(width[0]) if width else 1)


@cache
def _load(name: str) -> RegisterTable:
    try:
        with open(os.path.join(TABLE_FOLDER, f"{name}.txt"), encoding="ascii") as file:
            return RegisterTable(name, file.read())
    except FileNotFoundError:
        raise NotFound(f"there is no register table {name}") from None
