"""Offload bundles: one file with code for several targets, plain or compressed, as HIP compilers write them.

Source: LLVM ClangOffloadBundler.rst; header layout of compressed bundles from clang/lib/Driver/OffloadBundler.cpp.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import zstandard
from elftools.elf.elffile import ELFFile

from amdrv.errors import MalformedInput, Unsupported
from amdrv.runtime import targets

PLAIN_MAGIC = b"__CLANG_OFFLOAD_BUNDLE__"
COMPRESSED_MAGIC = b"CCOB"
MAGICS = (PLAIN_MAGIC, COMPRESSED_MAGIC)
ELF_MAGIC = b"\x7fELF"
MACHINE_AMDGPU = b"\xe0\x00"  # e_machine of code for a GPU: a code object itself
FAT_BINARY_SECTION = ".hip_fatbin"
DEVICE_KINDS = ("hip", "hipv4", "openmp")
DEVICE_TRIPLE = "amdgcn-amd-amdhsa-"  # followed by an optional environment, "-" and the target id
ENTRIES_MAX = 4096
UNPACKED_BYTES_MAX = 1 << 31

COMPRESSED_HEADER = struct.Struct("<4sHH")  # magic, version, method
# What follows it, by version: (total file size,) uncompressed size, hash
COMPRESSED_SIZES = {1: struct.Struct("<IQ"), 2: struct.Struct("<IIQ"), 3: struct.Struct("<QQQ")}
METHOD_ZLIB, METHOD_ZSTD = 0, 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One code object in a bundle."""

    kind: str  # "host", "hip", "hipv4", "openmp"
    target: targets.Target | None  # None for host code
    data: bytes


def is_bundle(data: bytes) -> bool:
    """Whether ``data`` starts like a bundle."""
    return data.startswith(MAGICS)


def in_library(data: bytes) -> list[bytes]:
    """The bundles in a host program or library (ELF) that a HIP compiler made: what its fat-binary section holds.

    Empty for a file that has no such section. Raises MalformedInput for a damaged ELF file or section.
    """
    if not data.startswith(ELF_MAGIC) or data[18:20] == MACHINE_AMDGPU:
        return []
    try:
        section = ELFFile(io.BytesIO(data)).get_section_by_name(FAT_BINARY_SECTION)
        held: bytes = section.data() if section is not None else b""
    except Exception as error:  # pyelftools reports damage with whatever exception its parsing code met
        raise MalformedInput(f"host library: damaged ELF structure ({type(error).__name__}: {error})") from None
    found = []
    position = 0
    while (starts := [at for magic in MAGICS if (at := held.find(magic, position)) >= 0]) != []:
        start = min(starts)
        bundle = held[start:]
        size_bytes = _size(bundle)
        found.append(bundle[:size_bytes])
        position = start + max(size_bytes, len(COMPRESSED_MAGIC))
    return found


def _size(data: bytes) -> int:
    """Bytes of the bundle at the start of ``data``; all of them when a compressed one does not say."""
    if data.startswith(PLAIN_MAGIC):
        headers = [(offset, size) for offset, size, _ in _headers(data)]
        return max((offset + size for offset, size in headers), default=len(PLAIN_MAGIC) + 8)
    _, version, _ = _unpack(COMPRESSED_HEADER.format, data, 0, "compressed header")
    layout = COMPRESSED_SIZES.get(version)
    if layout is None or version == 1:
        return len(data)
    return int(_unpack(layout.format, data, COMPRESSED_HEADER.size, "compressed header")[0])


def select(data: bytes, arch: str) -> bytes:
    """The code object in a bundle that fits ``arch`` best: its own processor before a generic target.

    Raises MalformedInput for a damaged bundle, Unsupported naming the targets it holds when none fits.
    """
    entries = [entry for entry in read(data) if entry.target is not None]
    fitting = [entry for entry in entries if entry.target is not None and entry.target.runs_on(arch)]
    if not fitting:
        held = ", ".join(sorted({str(entry.target) for entry in entries})) or "no device code"
        raise Unsupported(f"offload bundle holds {held}, the device is {arch}; compile it for {arch}")
    return min(fitting, key=lambda entry: entry.target is not None and entry.target.generic).data


def read(data: bytes) -> list[Entry]:
    """Every entry of a bundle. Raises MalformedInput naming what is wrong."""
    if data.startswith(COMPRESSED_MAGIC):
        data = decompress(data)
    if not data.startswith(PLAIN_MAGIC):
        raise MalformedInput("offload bundle: the magic is missing")
    headers = enumerate(_headers(data))
    return [_entry(index, name, data[offset : offset + size]) for index, (offset, size, name) in headers]


def _headers(data: bytes) -> list[tuple[int, int, bytes]]:
    """(offset, size, id) of every entry of a plain bundle."""
    position = len(PLAIN_MAGIC)
    (count,) = _unpack("<Q", data, position, "entry count")
    if count > ENTRIES_MAX:
        raise MalformedInput(f"offload bundle: {count} entries, more than {ENTRIES_MAX}")
    position += 8
    headers = []
    for index in range(count):
        offset, size, id_bytes = _unpack("<QQQ", data, position, f"entry {index}")
        position += 24
        name = data[position : position + id_bytes]
        if len(name) != id_bytes or offset + size > len(data):
            raise MalformedInput(f"offload bundle: entry {index} reaches past the end of the {len(data)}-byte bundle")
        position += id_bytes
        headers.append((offset, size, name))
    return headers


def _entry(index: int, name: bytes, data: bytes) -> Entry:
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedInput(f"offload bundle: the id of entry {index} is not text") from None
    kind, _, triple_and_target = text.partition("-")
    if kind not in DEVICE_KINDS or not triple_and_target.startswith(DEVICE_TRIPLE):
        return Entry(kind, None, data)
    _environment, _, target = triple_and_target.removeprefix(DEVICE_TRIPLE).partition("-")
    return Entry(kind, targets.from_text(target), data)


def decompress(data: bytes) -> bytes:
    """The plain bundle inside a compressed one. Raises MalformedInput, or Unsupported for an unknown version."""
    _magic, version, method = _unpack(COMPRESSED_HEADER.format, data, 0, "compressed header")
    layout = COMPRESSED_SIZES.get(version)
    if layout is None:
        raise Unsupported(f"compressed offload bundle: version {version}; versions 1 to 3 are understood")
    *file_size, unpacked_size, written_hash = _unpack(layout.format, data, COMPRESSED_HEADER.size, "compressed header")
    end = file_size[0] if file_size else len(data)
    start = COMPRESSED_HEADER.size + layout.size
    if not start <= end <= len(data):
        raise MalformedInput(f"compressed offload bundle: header says {end} bytes, there are {len(data)}")
    if unpacked_size > UNPACKED_BYTES_MAX:
        raise MalformedInput(f"compressed offload bundle: {unpacked_size} bytes unpacked, more than 2 GiB")
    unpack = _METHODS.get(method)
    if unpack is None:
        raise Unsupported(f"compressed offload bundle: method {method}; zlib (0) and zstd (1) are understood")
    try:
        plain = unpack(data[start:end], unpacked_size)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise MalformedInput(f"compressed offload bundle: {error}") from None
    if len(plain) != unpacked_size:
        raise MalformedInput(f"compressed offload bundle: {len(plain)} bytes unpacked, header says {unpacked_size}")
    found_hash = int.from_bytes(hashlib.md5(plain, usedforsecurity=False).digest()[:8], "little")
    if written_hash not in (0, found_hash):  # LLVM's zstd frames have no checksum of their own
        raise MalformedInput(f"compressed offload bundle: damaged, its hash is {found_hash:#x}, not {written_hash:#x}")
    return plain


def _unpack_zlib(data: bytes, size: int) -> bytes:
    return zlib.decompressobj().decompress(data, size + 1)


def _unpack_zstd(data: bytes, size: int) -> bytes:
    # A stream, because its frame need not carry the unpacked size.
    with zstandard.ZstdDecompressor().stream_reader(data) as reader:
        return reader.read(size + 1)


_METHODS: dict[int, Callable[[bytes, int], bytes]] = {METHOD_ZLIB: _unpack_zlib, METHOD_ZSTD: _unpack_zstd}


def _unpack(layout: str | bytes, data: bytes, offset: int, what: str) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, data, offset)
    except struct.error:
        raise MalformedInput(f"offload bundle: truncated in its {what}") from None
