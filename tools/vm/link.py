"""Makes the relocatable ELF that LLVM writes for a kernel into the shared object that ROCr's loader takes.

As much of a linker as one self-contained kernel needs: one text, one read-only data and one note section, symbols, and
the distance from a kernel descriptor to its code. Layout: System V ABI (gABI 4.1); relocations: LLVM's User Guide for
the AMDGPU Backend, "Relocation Records".
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
PAGE_BYTES = 0x1000
ET_DYN, EM_AMDGPU, PT_LOAD, PT_NOTE = 3, 224, 1, 4
PROGBITS, STRTAB, NOTE, SYMTAB = 1, 3, 7, 2
ALLOC, EXECUTE, READ = 2, 4, 4
R_AMDGPU_REL64 = 5
SEGMENTS = 3


@dataclass(slots=True)
class Part:
    """One section of the result."""

    name: str
    kind: int
    flags: int
    data: bytearray
    align: int
    link: int = 0
    info: int = 0
    entry: int = 0
    offset: int = 0
    address: int = 0


def link(relocatable: bytes) -> bytes:
    """The shared object. Raises ValueError for what this linker does not do."""
    elf = ELFFile(io.BytesIO(relocatable))
    parts = {name: _copied(elf, name, flags) for name, flags in ((".note", ALLOC), (".rodata", ALLOC), (".text", 6))}
    names = [".note", ".symtab", ".strtab", ".rodata", ".text", ".shstrtab"]
    symbols, strings = _symbols(elf, names)
    parts[".symtab"] = Part(".symtab", SYMTAB, ALLOC, bytearray(len(symbols) * SYMBOL.size), 8, 3, 1, SYMBOL.size)
    parts[".strtab"] = Part(".strtab", STRTAB, ALLOC, bytearray(strings), 1)
    titles = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    parts[".shstrtab"] = Part(".shstrtab", STRTAB, 0, bytearray(titles), 1)
    ordered = [parts[name] for name in names]
    _place(ordered)
    _fill_symbols(parts[".symtab"], symbols, parts)
    _relocate(elf, parts, symbols)
    return _written(elf, ordered, titles)


def _copied(elf: ELFFile, name: str, flags: int) -> Part:
    section = elf.get_section_by_name(name)
    if section is None:
        raise ValueError(f"the object has no {name}")
    kind = NOTE if name == ".note" else PROGBITS
    return Part(name, kind, flags, bytearray(section.data()), max(section["sh_addralign"], 4))


Symbols = dict[str, tuple[int, int, int, str, int, int]]  # name → string, info, other, section, value, size


def _symbols(elf: ELFFile, names: list[str]) -> tuple[Symbols, bytes]:
    """Global symbols by name, the empty one first, and their strings."""
    strings = b"\0"
    found: Symbols = {"": (0, 0, 0, "", 0, 0)}
    for symbol in _symbol_table(elf).iter_symbols():
        if symbol["st_info"]["bind"] != "STB_GLOBAL":
            continue
        if symbol["st_shndx"] == "SHN_UNDEF":
            raise ValueError(f"{symbol.name} is not defined")
        section = elf.get_section(symbol["st_shndx"]).name
        kind = {"STT_FUNC": 2, "STT_OBJECT": 1}[symbol["st_info"]["type"]]
        other = 3 if kind == 2 else 0  # code is protected, as the compiler says
        found[symbol.name] = (len(strings), 1 << 4 | kind, other, section, symbol["st_value"], symbol["st_size"])
        strings += symbol.name.encode() + b"\0"
        if section not in names:
            raise ValueError(f"{symbol.name} lies in {section}")
    return found, strings


def _symbol_table(elf: ELFFile) -> SymbolTableSection:
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        raise ValueError("the object has no symbols")
    return table


def _place(parts: list[Part]) -> None:
    """Offsets in file order; code gets pages of its own."""
    offset = HEADER.size + SEGMENTS * SEGMENT.size
    for part in parts:
        offset += -offset % part.align
        part.offset = offset
        part.address = offset + (PAGE_BYTES if part.name == ".text" else 0)
        offset += len(part.data)


def _fill_symbols(table: Part, symbols: Symbols, parts: dict[str, Part]) -> None:
    order = [part.name for part in sorted(parts.values(), key=lambda part: part.offset)]
    for number, (string, info, other, section, value, size) in enumerate(symbols.values()):
        place = (order.index(section) + 1, parts[section].address + value) if section else (0, 0)
        SYMBOL.pack_into(table.data, number * SYMBOL.size, string, info, other, place[0], place[1], size)


def _relocate(elf: ELFFile, parts: dict[str, Part], symbols: Symbols) -> None:
    for name, part in parts.items():
        section = elf.get_section_by_name(f".rela{name}")
        for entry in section.iter_relocations() if isinstance(section, RelocationSection) else ():
            symbol = _symbol_table(elf).get_symbol(entry["r_info_sym"])
            if entry["r_info_type"] != R_AMDGPU_REL64 or symbol.name not in symbols:
                raise ValueError(f"relocation {entry['r_info_type']} to {symbol.name or 'a section'} in {name}")
            target = parts[symbols[symbol.name][3]].address + symbol["st_value"] + entry["r_addend"]
            struct.pack_into("<q", part.data, entry["r_offset"], target - part.address - entry["r_offset"])


def _written(elf: ELFFile, parts: list[Part], titles: bytes) -> bytes:
    text = next(part for part in parts if part.name == ".text")
    note = next(part for part in parts if part.name == ".note")
    end = parts[-1].offset + len(parts[-1].data)
    sections_at = end + -end % 8
    out = bytearray(sections_at)
    identity = bytes(elf.e_ident_raw)
    HEADER.pack_into(
        out, 0, identity, ET_DYN, EM_AMDGPU, 1, 0, HEADER.size,
        sections_at, elf["e_flags"], HEADER.size, SEGMENT.size, SEGMENTS, SECTION.size, len(parts) + 1, len(parts),
    )  # fmt: skip
    code_bytes, data_end = len(text.data), text.offset
    for number, segment in enumerate((
        (PT_LOAD, READ, 0, 0, 0, data_end, data_end, PAGE_BYTES),
        (PT_LOAD, READ | 1, text.offset, text.address, text.address, code_bytes, code_bytes, PAGE_BYTES),
        (PT_NOTE, READ, note.offset, note.address, note.address, len(note.data), len(note.data), note.align),
    )):  # fmt: skip
        SEGMENT.pack_into(out, HEADER.size + number * SEGMENT.size, *segment)
    for part in parts:
        out[part.offset : part.offset + len(part.data)] = part.data
    out += bytes(SECTION.size)
    for part in parts:
        name = titles.index(b"\0" + part.name.encode() + b"\0") + 1
        address = part.address if part.flags & ALLOC else 0
        out += SECTION.pack(
            name, part.kind, part.flags, address, part.offset, len(part.data), part.link, part.info, part.align,
            part.entry,
        )  # fmt: skip
    return bytes(out)
