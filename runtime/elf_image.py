"""AMDGPU ELF files, linked or relocatable, laid out as one image that can be put at any address.

Everything here is pure. pyelftools takes the file apart; what it finds is checked before it is believed, because a code
object comes from outside. Source of formats: ELF gABI, LLVM AMDGPUUsage "ELF Code Object", ELFRelocs/AMDGPU.def.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from amdrv.errors import MalformedInput, Unsupported
from amdrv.runtime import targets
from amdrv.runtime.relocation import ABS64, DYNAMIC_ONLY, GOT_RELATIVE, KINDS, Relocation

ELF_MAGIC = b"\x7fELF"
HEADER_BYTES = 64
CLASS_64, LITTLE_ENDIAN = 2, 1
OS_ABI_HSA = 64
OS_ABI_NAMES = {0: "none", 64: "HSA", 65: "PAL", 66: "Mesa 3D"}
MACHINE_AMDGPU = 224
TYPE_RELOCATABLE, TYPE_EXECUTABLE, TYPE_SHARED = 1, 2, 3
CODE_OBJECT_VERSIONS = {1: 3, 2: 4, 3: 5, 4: 6}  # EI_ABIVERSION → version; 0 is version 2

FLAG_WRITE, FLAG_ALLOC, FLAG_EXECUTE, FLAG_COMPRESSED = 0x1, 0x2, 0x4, 0x800
SECTION_UNDEFINED, SECTION_ABSOLUTE = 0, 0xFFF1
SECTION_RESERVED = 0xFF00  # indices from here mean something else: LDS, common
SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
BIND_WEAK = 2  # in bits 7:4 of info
SEGMENT_EXECUTE = 0x1
ALIGNMENT_MAX = 1 << 16
IMAGE_BYTES_MAX = 1 << 28  # memory is filled when code is loaded: a damaged size must not fill all there is
SPREAD_BYTES_MAX = 16 << 20  # room that page alignment of segments may add to the bytes of the file
GOT_SLOT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Symbol:
    """A defined symbol: an offset in the image, or a plain number."""

    name: str
    value: int
    size_bytes: int
    absolute: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """A code object's memory before it has an address.

    ``contents`` are the bytes that come from the file; memory from there to ``size_bytes`` is zero.
    """

    target: targets.Target
    version: int  # code object version, 3 to 6
    contents: bytes
    size_bytes: int
    executable: tuple[tuple[int, int], ...]  # (start, end) offsets of code
    symbols: dict[str, Symbol]
    relocations: tuple[Relocation, ...]
    notes: tuple[bytes, ...]  # contents of every note section or segment

    def relocate(self, base_va: int) -> bytes:
        """``contents`` as they must be when the image lies at ``base_va``."""
        memory = bytearray(self.contents)
        for relocation in self.relocations:
            relocation.apply(memory, base_va)
        return bytes(memory)


@dataclass(slots=True)
class _Layout:
    """The image while it grows."""

    contents: bytearray = field(default_factory=bytearray)
    size_bytes: int = 0
    executable: list[tuple[int, int]] = field(default_factory=list)
    # Relocatable files only: section index → image offset, symbol index → its global-offset-table slot.
    places: dict[int, int] = field(default_factory=dict)
    got: dict[int, int] = field(default_factory=dict)

    def append(self, data: bytes, size_bytes: int, alignment: int) -> int:
        """Add a section at the end and return its offset."""
        offset = -(-self.size_bytes // alignment) * alignment
        self.size_bytes = offset + size_bytes
        if self.size_bytes > IMAGE_BYTES_MAX:
            raise MalformedInput(f"code object: {self.size_bytes} bytes of memory, more than {IMAGE_BYTES_MAX}")
        if data:
            self.contents.extend(bytes(offset - len(self.contents)))
            self.contents.extend(data)
        return offset


@dataclass(frozen=True, slots=True)
class _Section:
    index: int
    name: str
    type: str
    flags: int
    address: int
    size_bytes: int
    alignment: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _RawSymbol:
    name: str
    section: int
    value: int
    size_bytes: int
    weak: bool


@dataclass(frozen=True, slots=True)
class _RawRelocation:
    section: int  # the section patched, 0 in a linked file
    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(frozen=True, slots=True)
class _File:
    """What pyelftools found, as plain values."""

    relocatable: bool
    sections: tuple[_Section, ...]
    segments: tuple[tuple[str, int, int, int, int, int], ...]  # type, flags, file offset, va, file bytes, memory bytes
    symbols: tuple[_RawSymbol, ...]
    relocations: tuple[_RawRelocation, ...]


def read(data: bytes) -> Image:
    """Parse an AMDGPU ELF file.

    Raises MalformedInput naming what is damaged, Unsupported for well-formed files of another kind.
    """
    version, target = _check_header(data)
    file = _parse(data)
    layout = _lay_out_sections(file) if file.relocatable else _lay_out_segments(file, data)
    symbols = [_place_symbol(symbol, file, layout) for symbol in file.symbols]
    relocations = _resolve(file, layout, symbols)
    notes = [section.data for section in file.sections if section.type == "SHT_NOTE"]
    notes += [data[offset : offset + size] for kind, _, offset, _, size, _ in file.segments if kind == "PT_NOTE"]
    return Image(
        target=target,
        version=version,
        contents=bytes(layout.contents),
        size_bytes=layout.size_bytes,
        executable=tuple(layout.executable),
        symbols={symbol.name: symbol for symbol in symbols if symbol is not None and symbol.name},
        relocations=tuple(relocations),
        notes=tuple(notes),
    )


def _check_header(data: bytes) -> tuple[int, targets.Target]:
    if not data:
        raise MalformedInput("code object: an empty file, not an ELF")
    if not data.startswith(ELF_MAGIC):
        raise MalformedInput(f"code object: starts with {data[:4]!r}, which is neither ELF nor an offload bundle")
    if len(data) < HEADER_BYTES:
        raise MalformedInput(f"code object: {len(data)} bytes, less than an ELF header")
    file_class, endian, _, os_abi, abi_version = data[4:9]
    if (file_class, endian) != (CLASS_64, LITTLE_ENDIAN):
        raise MalformedInput("code object: not a 64-bit little-endian ELF file")
    file_type, machine = struct.unpack_from("<HH", data, 16)
    if machine != MACHINE_AMDGPU:
        raise Unsupported(f"code object: ELF machine {machine}, AMD GPU code has {MACHINE_AMDGPU}")
    if os_abi != OS_ABI_HSA:
        name = OS_ABI_NAMES.get(os_abi, str(os_abi))
        raise Unsupported(f"code object: built for the {name} ABI; compile it for the triple amdgcn-amd-amdhsa")
    version = CODE_OBJECT_VERSIONS.get(abi_version)
    if version is None:
        raise Unsupported(f"code object: ABI version {abi_version}; code object versions 3 to 6 are understood")
    if file_type not in (TYPE_RELOCATABLE, TYPE_EXECUTABLE, TYPE_SHARED):
        raise MalformedInput(f"code object: ELF type {file_type} is neither relocatable nor linked")
    (e_flags,) = struct.unpack_from("<I", data, 48)
    return version, targets.from_flags(e_flags, version)


def _parse(data: bytes) -> _File:
    try:
        return _take_apart(ELFFile(io.BytesIO(data)), len(data))
    except MalformedInput:
        raise
    except Exception as error:  # pyelftools reports damage with whatever exception its parsing code met
        raise MalformedInput(f"code object: damaged ELF structure ({type(error).__name__}: {error})") from None


def _take_apart(elf: ELFFile, file_bytes: int) -> _File:
    """The only code that touches pyelftools objects."""
    parsed = list(elf.iter_sections())  # each round over them parses them anew
    sections = tuple(_section(index, section, file_bytes) for index, section in enumerate(parsed))
    tables = {index: section for index, section in enumerate(parsed) if isinstance(section, SymbolTableSection)}
    relocatable = elf["e_type"] == "ET_REL"
    # One table serves: .symtab in a relocatable file, .dynsym in a linked one, which may be stripped of the other; one
    # that was put together by hand may have .symtab only.
    wanted = ("SHT_SYMTAB",) if relocatable else ("SHT_DYNSYM", "SHT_SYMTAB")
    found = (index for kind in wanted for index, table in tables.items() if table["sh_type"] == kind)
    table_index = next(found, None)
    if table_index is None:
        raise MalformedInput(f"code object: no symbol table ({' or '.join(wanted)})")
    symbols = _symbols(tables[table_index])
    relocations = []
    for section in parsed:
        if not isinstance(section, RelocationSection) or section["sh_link"] != table_index:
            continue
        if not section.is_RELA():
            raise MalformedInput(f"code object: {section.name} has relocations without addends")
        where = section["sh_info"] if relocatable else 0
        for entry in section.iter_relocations():
            relocations.append(
                _RawRelocation(where, entry["r_offset"], entry["r_info_type"], entry["r_info_sym"], entry["r_addend"])
            )
    segments = tuple(
        (s["p_type"], s["p_flags"], s["p_offset"], s["p_vaddr"], s["p_filesz"], s["p_memsz"])
        for s in elf.iter_segments()
    )
    return _File(relocatable, sections, segments, tuple(symbols), tuple(relocations))


def _symbols(table: SymbolTableSection) -> list[_RawSymbol]:
    """A table's symbols; pyelftools takes longer for each of them than for all the rest of a small file."""
    entries, names = table.data(), table.stringtable.data()
    if len(entries) % SYMBOL.size:
        raise MalformedInput(f"code object: {len(entries)} bytes of symbols, of {SYMBOL.size} bytes each")
    symbols = []
    for name, info, _, section, value, size_bytes in SYMBOL.iter_unpack(entries):
        end = names.find(b"\0", name)
        text = names[name : end if end >= 0 else None].decode()
        symbols.append(_RawSymbol(text, section, value, size_bytes, info >> 4 == BIND_WEAK))
    return symbols


def _section(index: int, section: Section, file_bytes: int) -> _Section:
    header = section.header
    name, kind, flags = section.name, header["sh_type"], header["sh_flags"]
    offset, size, alignment = header["sh_offset"], header["sh_size"], max(header["sh_addralign"], 1)
    in_file = kind not in ("SHT_NOBITS", "SHT_NULL")
    if in_file and offset + size > file_bytes:
        raise MalformedInput(f"code object: section {name!r} ends at {offset + size}, the file at {file_bytes}")
    if flags & FLAG_ALLOC:
        if flags & FLAG_COMPRESSED:
            raise MalformedInput(f"code object: section {name!r} is loaded and compressed")
        if alignment & (alignment - 1) or alignment > ALIGNMENT_MAX:
            raise MalformedInput(f"code object: section {name!r} asks for an alignment of {alignment}")
    needed = in_file and (flags & FLAG_ALLOC or kind == "SHT_NOTE")
    data = section.data() if needed else b""
    return _Section(index, name, kind, flags, header["sh_addr"], size, alignment, data)


def _lay_out_sections(file: _File) -> _Layout:
    """Relocatable file: code, constants, data, a global offset table, then memory without contents."""

    def rank(section: _Section) -> tuple[bool, bool]:
        return bool(section.flags & FLAG_WRITE), not section.flags & FLAG_EXECUTE

    layout = _Layout()
    loaded = sorted((s for s in file.sections if s.flags & FLAG_ALLOC), key=rank)
    for section in (s for s in loaded if s.type == "SHT_PROGBITS"):
        _place_section(section, layout)
    for symbol in sorted({raw.symbol for raw in file.relocations if raw.kind in GOT_RELATIVE}):
        layout.got[symbol] = layout.append(bytes(GOT_SLOT_BYTES), GOT_SLOT_BYTES, GOT_SLOT_BYTES)
    for section in (s for s in loaded if s.type == "SHT_NOBITS"):
        _place_section(section, layout)
    return layout


def _place_section(section: _Section, layout: _Layout) -> None:
    offset = layout.append(section.data, section.size_bytes, section.alignment)
    layout.places[section.index] = offset
    if section.flags & FLAG_EXECUTE:
        layout.executable.append((offset, offset + section.size_bytes))


def _lay_out_segments(file: _File, data: bytes) -> _Layout:
    """Linked file: PT_LOAD segments where their addresses say, relative to address zero."""
    layout = _Layout()
    loads = [segment[1:] for segment in file.segments if segment[0] == "PT_LOAD"]
    if not loads:
        raise MalformedInput("code object: a linked file without a PT_LOAD segment")
    for flags, offset, va, file_bytes, memory_bytes in loads:
        if offset + file_bytes > len(data):
            raise MalformedInput(f"code object: segment at {va:#x} reaches past the end of the {len(data)}-byte file")
        if memory_bytes < file_bytes:
            raise MalformedInput(f"code object: segment at {va:#x} has more bytes in the file than in memory")
        if va + file_bytes > len(data) + SPREAD_BYTES_MAX or va + memory_bytes > IMAGE_BYTES_MAX:
            raise MalformedInput(f"code object: segment at {va:#x}+{memory_bytes:#x} is out of proportion to the file")
        if va + file_bytes > len(layout.contents):
            layout.contents.extend(bytes(va + file_bytes - len(layout.contents)))
        layout.contents[va : va + file_bytes] = data[offset : offset + file_bytes]
        layout.size_bytes = max(layout.size_bytes, va + memory_bytes)
        if flags & SEGMENT_EXECUTE:
            layout.executable.append((va, va + memory_bytes))
    return layout


def _place_symbol(symbol: _RawSymbol, file: _File, layout: _Layout) -> Symbol | None:
    """Where a symbol is; None for one that is undefined or lies in a section that is not loaded."""
    if symbol.section == SECTION_ABSOLUTE:
        return Symbol(symbol.name, symbol.value, symbol.size_bytes, absolute=True)
    if symbol.section == SECTION_UNDEFINED or symbol.section >= SECTION_RESERVED:
        return None
    if not file.relocatable:
        return Symbol(symbol.name, symbol.value, symbol.size_bytes)
    place = layout.places.get(symbol.section)
    return None if place is None else Symbol(symbol.name, place + symbol.value, symbol.size_bytes)


def _resolve(file: _File, layout: _Layout, symbols: list[Symbol | None]) -> list[Relocation]:
    """Relocations of loaded memory against placed symbols, and those that fill the global offset table."""
    resolved = []
    filled: set[int] = set()
    for raw in file.relocations:
        place = layout.places.get(raw.section) if file.relocatable else 0
        if place is None or raw.kind == 0:
            continue  # debug information and the like; R_AMDGPU_NONE
        kind = KINDS.get(raw.kind)
        if kind is None or raw.kind in (DYNAMIC_ONLY if file.relocatable else GOT_RELATIVE):
            raise Unsupported(f"code object: relocation type {raw.kind} at {raw.offset:#x}")
        target = _target(raw, file, symbols)
        if raw.kind in GOT_RELATIVE:
            slot = layout.got[raw.symbol]
            if slot not in filled:
                filled.add(slot)
                resolved.append(Relocation(slot, KINDS[ABS64], target.value, target.absolute, 0))
            target = Symbol("", slot, GOT_SLOT_BYTES)
        resolved.append(Relocation(place + raw.offset, kind, target.value, target.absolute, raw.addend))
    limit = len(layout.contents)
    for relocation in resolved:
        if relocation.offset + relocation.kind.size_bytes > limit:
            raise MalformedInput(f"code object: {relocation.kind.name} at {relocation.offset:#x} is outside the image")
    return resolved


def _target(raw: _RawRelocation, file: _File, symbols: list[Symbol | None]) -> Symbol:
    if raw.symbol == 0:
        # Without a symbol the addend alone says where: an offset of the image in a linked file (RELATIVE64).
        return Symbol("", 0, 0, absolute=raw.kind not in DYNAMIC_ONLY)
    if raw.symbol >= len(symbols):
        raise MalformedInput(f"code object: relocation at {raw.offset:#x} names symbol {raw.symbol} of {len(symbols)}")
    symbol = symbols[raw.symbol]
    if symbol is not None:
        return symbol
    name, weak = file.symbols[raw.symbol].name, file.symbols[raw.symbol].weak
    if weak:
        return Symbol(name, 0, 0, absolute=True)
    raise Unsupported(f"code object: nothing defines the symbol {name!r} that it needs; link it with what does")
