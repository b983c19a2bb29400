"""Traces on disk: a magic line, then the compressed entries and what is needed to read them by name.

The compressed part is one MessagePack document: [header, entries]; times are kept as differences.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgpack

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.trace import DEVICE_MEMORY as VRAM
from amdrv.emulator.trace import HOST_SPACES, MAP, PACKET, RESET, UNMAP, Entry
from amdrv.emulator.trace import SYSTEM_MEMORY as SYSTEM
from amdrv.errors import MalformedInput
from amdrv.registers import RegisterMap

MAGIC = b"amdrv trace 1\n"
SPACES = (*HOST_SPACES, PACKET, VRAM, SYSTEM, MAP, UNMAP, RESET)  # a space's number in the file is its place here
UNPACKED_BYTES_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class Recording:
    """A trace that was read."""

    arch: str
    vram_bytes: int
    entries: list[Entry]

    @property
    def registers(self) -> RegisterMap:
        """The registers of the chip that it was recorded from."""
        chip = CHIPS[self.arch]
        return RegisterMap(chip.bases, chip.versions)


def save(path: Path | str, entries: Sequence[Entry], arch: str, vram_bytes: int) -> None:
    """Write a trace."""
    rows = []
    before_ns = 0
    for entry in entries:
        number, elapsed_ns = SPACES.index(entry.space), entry.time_ns - before_ns
        before_ns = entry.time_ns
        row = (elapsed_ns, number, entry.is_write, entry.offset, entry.width, entry.value)
        rows.append((*row, entry.data, entry.source) if entry.data or entry.source else row)
    document = msgpack.packb([{"arch": arch, "vram_bytes": vram_bytes}, rows])
    Path(path).write_bytes(MAGIC + zlib.compress(document))


def load(path: Path | str) -> Recording:
    """Read a trace. Raises MalformedInput for a file that is none, OSError."""
    data = Path(path).read_bytes()
    if not data.startswith(MAGIC):
        raise MalformedInput(f"{path} is no trace: it does not begin with {MAGIC.decode().strip()!r}")
    try:
        unpacker = zlib.decompressobj()
        document = unpacker.decompress(data[len(MAGIC) :], UNPACKED_BYTES_MAX)
        if not unpacker.eof:
            raise MalformedInput(f"{path} is cut short, or unpacks to more than {UNPACKED_BYTES_MAX >> 20} MiB")
        header, rows = msgpack.unpackb(document)
        recording = Recording(str(header["arch"]), int(header["vram_bytes"]), _entries(rows))
    except (zlib.error, msgpack.UnpackException, ValueError, TypeError, KeyError, IndexError) as error:
        if isinstance(error, MalformedInput):
            raise
        raise MalformedInput(f"{path} is damaged: {error or type(error).__name__}") from error
    if recording.arch not in CHIPS:
        raise MalformedInput(f"{path} was recorded from {recording.arch!r}, which is not emulated here")
    return recording


def _entries(rows: Sequence[Sequence[int]]) -> list[Entry]:
    entries = []
    time_ns = 0
    for elapsed_ns, number, is_write, offset, width, value, *rest in rows:
        time_ns += elapsed_ns
        data, source = rest if rest else (b"", "")
        entry = Entry(time_ns, SPACES[number], bool(is_write), offset, width, value, bytes(data), str(source))
        if min(entry.time_ns, entry.offset, entry.width, entry.value) < 0:
            raise ValueError("a number below zero")
        entries.append(entry)
    return entries
