"""The register map of one card: tables of its block versions at the base addresses of its discovery table.

One map serves the driver, the emulated card, traces and the command line.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping

from amdrv.errors import InvalidArgument, NotFound
from amdrv.registers.register import DWORD_BYTES, Register, RegisterArray, UnknownRegister
from amdrv.registers.sources import KNOWN_BLOCKS, TableSource, Version, source_of
from amdrv.registers.table import RegisterTable


class RegisterBlock:
    """Registers of one block instance: ``block.NAME`` or ``block["NAME"]``, names as in AMD's headers."""

    def __init__(self, ip: str, instance: int, bases: tuple[int, ...], source: TableSource) -> None:
        """``bases`` are the instance's base addresses in dwords, in discovery order."""
        self.ip = ip
        self.instance = instance
        self.bases = bases
        self._source = source
        self._prefix = source.only.format(instance=instance)
        self._found: dict[str, Register] = {}

    def __getitem__(self, name: str) -> Register:
        """The register ``name``, or that which other versions of the block know as ``name``.

        Raises UnknownRegister, also when the card has no base address for it.
        """
        register = self._found.get(name)
        if register is None:
            register = self._found[name] = self._make(name)
        return register

    def __getattr__(self, name: str) -> Register:
        # Private names are Python's own questions (copying, pickling), never registers.
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __contains__(self, name: str) -> bool:
        name, table = self._find(name)
        return table is not None and table.place(name)[0] < len(self.bases)

    def __iter__(self) -> Iterator[str]:
        """Names of every register that has an address on this card, in table order."""
        return iter(self.places())

    def places(self) -> dict[str, int]:
        """Dword index of every register that has an address on this card, in table order."""
        places: dict[str, int] = {}
        for table in self._tables():
            for name in table:
                if name not in places and self._owns(name):
                    segment, offset = table.place(name)
                    if segment < len(self.bases):
                        places[name] = self.bases[segment] + offset
        return places

    def registers(self) -> Iterator[Register]:
        """Every register that has an address on this card, in table order."""
        return (self[name] for name in self)

    def array(self, pattern: str) -> RegisterArray:
        """Registers whose names are ``pattern`` with a number for ``{}``."""
        before, _, after = pattern.partition("{}")
        shape = re.compile(f"{re.escape(before)}(\\d+){re.escape(after)}")

        def numbers() -> list[int]:
            return sorted(int(found[1]) for name in self if (found := shape.fullmatch(name)))

        return RegisterArray(pattern, self.__getitem__, numbers)

    def __repr__(self) -> str:
        return f"<RegisterBlock {self.ip}[{self.instance}] from {', '.join(self._source.tables)}>"

    def _tables(self) -> Iterable[RegisterTable]:
        return (RegisterTable.load(name) for name in self._source.tables)

    def _owns(self, name: str) -> bool:
        return name.startswith(self._prefix) and not name.startswith(self._source.without)

    def _table_of(self, name: str) -> RegisterTable | None:
        return next((table for table in self._tables() if name in table), None) if self._owns(name) else None

    def _find(self, name: str) -> tuple[str, RegisterTable | None]:
        """What a register is called in this version, and the table that has it."""
        table = self._table_of(name)
        for elsewhere, here in () if table is not None else self._source.renamed:
            other = here + name.removeprefix(elsewhere)
            if name.startswith(elsewhere) and (found := self._table_of(other)) is not None:
                return other, found
        return name, table

    def _make(self, asked: str) -> Register:
        name, table = self._find(asked)
        if table is None:
            raise UnknownRegister(f"{self.ip} has no register {name}{self._similar(name)}")
        segment, offset = table.place(name)
        if segment >= len(self.bases):
            raise UnknownRegister(f"{self.ip} has no base address {segment}, which {name} needs")
        return Register(self.ip, self.instance, name, self.bases[segment] + offset, table)

    def _similar(self, name: str) -> str:
        import difflib  # only a mistake needs it

        close = difflib.get_close_matches(name, list(self), n=3, cutoff=0.8)
        return f"; close names: {', '.join(close)}" if close else ""


class RegisterMap:
    """All blocks of one card that have register tables: ``map.gc.SCRATCH_REG0``, ``map["GC", "SCRATCH_REG0"]``."""

    def __init__(self, bases: Mapping[str, Mapping[int, tuple[int, ...]]], versions: Mapping[str, Version]) -> None:
        """Place the tables of ``versions`` at ``bases`` (block → instance → base addresses in dwords).

        Blocks that no table covers in any version (display, memory controllers) are left out. Raises Unsupported when
        a block has tables but not for its version, InvalidArgument when ``versions`` leaves such a block out.
        """
        self._blocks: dict[tuple[str, int], RegisterBlock] = {}
        for ip, instances in bases.items():
            if ip in KNOWN_BLOCKS:
                if ip not in versions:
                    raise InvalidArgument(f"{ip} has base addresses but no version")
                source = source_of(ip, versions[ip])
                for instance, base in instances.items():
                    self._blocks[ip, instance] = RegisterBlock(ip, instance, tuple(base), source)
        self._by_dword: dict[int, tuple[RegisterBlock, str]] | None = None

    def block(self, ip: str, instance: int = 0) -> RegisterBlock:
        """One block instance; raises NotFound."""
        block = self._blocks.get((ip, instance))
        if block is None:
            raise UnknownRegister(f"this card has no registers of {ip} instance {instance}; it has {self._names()}")
        return block

    def __getattr__(self, name: str) -> RegisterBlock:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.block(name.upper())

    def __getitem__(self, key: tuple[str, str]) -> Register:
        """Register (block, name) of instance 0; raises NotFound."""
        ip, name = key
        return self.block(ip)[name]

    def blocks(self) -> Iterator[RegisterBlock]:
        """Every block instance, in discovery order."""
        return iter(self._blocks.values())

    def at(self, address: int) -> Register | None:
        """The register that holds byte ``address``, or None; of aliases the first in the table."""
        if self._by_dword is None:
            self._by_dword = {}
            for block in self.blocks():
                for name, dword in block.places().items():
                    self._by_dword.setdefault(dword, (block, name))
        found = self._by_dword.get(address // DWORD_BYTES)
        return found[0][found[1]] if found else None

    def find(self, pattern: str) -> list[Register]:
        """Registers whose name, or block and name, match a glob: ``GCVM_*_CNTL``, ``MMHUB.*FAULT*``."""
        ip_pattern, dot, name_pattern = pattern.rpartition(".")
        name_matches = re.compile(fnmatch.translate(name_pattern)).match
        return [
            block[name]
            for block in self.blocks()
            if not dot or fnmatch.fnmatchcase(block.ip, ip_pattern)
            for name in block
            if name_matches(name)
        ]

    def named(self, full_name: str) -> Register:
        """The register called ``BLOCK.NAME`` or ``BLOCK[instance].NAME``; raises NotFound."""
        found = re.fullmatch(r"(\w+?)(?:\[(\d+)\])?\.(\w+)", full_name)
        if found is None:
            raise NotFound(f"{full_name!r} is not of the form BLOCK.NAME")
        return self.block(found[1], int(found[2] or 0))[found[3]]

    def _names(self) -> str:
        return ", ".join(ip if not instance else f"{ip}[{instance}]" for ip, instance in self._blocks) or "none"
