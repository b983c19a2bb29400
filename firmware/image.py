"""Reading a firmware file: one image, its header fields and its pieces."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from amdrv.errors import MalformedInput
from amdrv.firmware.headers import (
    COMMON_FIELDS,
    COMMON_HEADER,
    MAX_DESCRIPTORS,
    DescriptorRule,
    Layout,
    Sum,
    kind_of,
    layout_of,
)

_DESCRIPTOR = struct.Struct("<4I")
_PPTABLE_ENTRY = struct.Struct("<3I")
_MAX_PPTABLES = 64  # genuine images have up to 6


class Section(NamedTuple):
    """One piece of an image: what a load command hands to the PSP."""

    name: str  # as in psp_gfx_if.h without the prefix: "RS64_MEC"; boot-loader pieces: "KDB", "SOS", ...
    offset_bytes: int
    data: memoryview
    version: int
    feature_version: int


@dataclass(frozen=True)
class FirmwareImage:
    """A parsed firmware file."""

    name: str
    kind: str
    data: memoryview
    header: Mapping[str, int] = field(repr=False)
    sections: tuple[Section, ...] = field(repr=False)
    soft_pptables: Mapping[int, memoryview] = field(repr=False)

    @property
    def header_version(self) -> tuple[int, int]:
        """(major, minor) of the file header."""
        return self.header["header_version_major"], self.header["header_version_minor"]

    @property
    def ucode_version(self) -> int:
        """Version of the image as the common header states it; 0 where only the pieces have versions."""
        return self.header["ucode_version"]

    @cached_property
    def sha256(self) -> bytes:
        """SHA-256 of the whole file, uncompressed."""
        return hashlib.sha256(self.data).digest()

    def section(self, name: str) -> Section | None:
        """The piece called ``name``, or None where this image carries none."""
        return next((section for section in self.sections if section.name == name), None)


def parse(name: str, data: bytes | memoryview) -> FirmwareImage:
    """Read the file ``name`` (as linux-firmware calls it, without folders) from its bytes.

    Raises:
        MalformedInput: a size, offset or checksum does not hold; the message names image and field.
        Unsupported: the name or the header version is of no known kind.
    """
    kind = kind_of(name)
    view = memoryview(data).toreadonly().cast("B")
    header = _common_header(name, view)
    layout = layout_of(name, kind, (header["header_version_major"], header["header_version_minor"]))
    _check_header(name, header, layout, view)
    for index, field_name in enumerate(layout.fields):
        header[field_name] = int.from_bytes(view[COMMON_HEADER.size + 4 * index :][:4], "little")
    if layout.crc_valid:
        found = zlib.crc32(view[COMMON_HEADER.size :])
        if found != header["crc32"]:
            raise MalformedInput(f"firmware image {name}: crc32 is {header['crc32']:#x}, the content gives {found:#x}")
    sections = (*_ruled_sections(name, view, header, layout), *_described_sections(name, view, header, layout))
    return FirmwareImage(name, kind, view, header, sections, _soft_pptables(name, view, header))


def _common_header(name: str, view: memoryview) -> dict[str, int]:
    if len(view) < COMMON_HEADER.size:
        raise MalformedInput(
            f"firmware image {name}: header needs {COMMON_HEADER.size} bytes, the file has {len(view)}"
        )
    header = dict(zip(COMMON_FIELDS, COMMON_HEADER.unpack_from(view), strict=True))
    if header["size_bytes"] != len(view):
        raise MalformedInput(
            f"firmware image {name}: size_bytes is {header['size_bytes']}, but the file has {len(view)}: cut off?"
        )
    return header


def _check_header(name: str, header: Mapping[str, int], layout: Layout, view: memoryview) -> None:
    """Fixed header, then payload, both inside the file and apart from each other."""
    header_size, payload_offset = header["header_size_bytes"], header["payload_offset_bytes"]
    if header_size < layout.size_bytes:
        raise MalformedInput(f"firmware image {name}: header_size_bytes is {header_size}, needed {layout.size_bytes}")
    if payload_offset < header_size:
        raise MalformedInput(
            f"firmware image {name}: payload_offset_bytes {payload_offset:#x} is inside the header of {header_size:#x}"
        )
    _slice(name, "payload", view, payload_offset, header["payload_size_bytes"])


def _slice(name: str, what: str, view: memoryview, offset: int, size: int) -> memoryview:
    if offset < 0 or size < 0 or offset + size > len(view):
        raise MalformedInput(
            f"firmware image {name}: {what} at {offset:#x} of {size:#x} bytes reaches beyond the file of {len(view):#x}"
        )
    return view[offset : offset + size]


def _piece(name: str, piece: str, view: memoryview, offset: int, size: int) -> memoryview:
    # The PSP copies dwords; every genuine piece begins and ends on one.
    if offset % 4 or size % 4:
        raise MalformedInput(f"firmware image {name}: {piece} at {offset:#x} of {size:#x} bytes is no row of dwords")
    return _slice(name, piece, view, offset, size)


def _ruled_sections(name: str, view: memoryview, header: Mapping[str, int], layout: Layout) -> Iterator[Section]:
    for rule in layout.sections:
        size, offset = _evaluate(rule.size, header), _evaluate(rule.offset, header)
        if size == 0:
            if rule.optional:
                continue
            raise MalformedInput(f"firmware image {name}: {rule.names[0]} has size 0")
        data = _piece(name, rule.names[0], view, offset, size)
        feature = header[rule.feature] if rule.feature else 0
        for piece in rule.names:
            yield Section(piece, offset, data, header[rule.version], feature)


def _evaluate(terms: Sum, header: Mapping[str, int]) -> int:
    return sum(header[field_name] * factor for field_name, factor in terms)


def _described_sections(name: str, view: memoryview, header: Mapping[str, int], layout: Layout) -> Iterator[Section]:
    rule = layout.descriptors
    if rule is None:
        return
    seen: set[str] = set()
    for index in range(_descriptor_count(name, header, layout, rule)):
        kind, version, offset, size = _DESCRIPTOR.unpack_from(view, layout.size_bytes + index * _DESCRIPTOR.size)
        piece = rule.names.get(kind, f"UNKNOWN_{kind}")  # newer images list pieces that older drivers skip
        if size == 0 or piece in seen:
            raise MalformedInput(f"firmware image {name}: {piece} has size 0 or is listed twice")
        seen.add(piece)
        offset += header["payload_offset_bytes"]
        yield Section(piece, offset, _piece(name, piece, view, offset, size), version, version)


def _descriptor_count(name: str, header: Mapping[str, int], layout: Layout, rule: DescriptorRule) -> int:
    """How many descriptors count for the normal boot, after checking that all of them lie before the payload."""
    count = header[rule.count_field]
    if not 0 < count < MAX_DESCRIPTORS:
        raise MalformedInput(f"firmware image {name}: {rule.count_field} is {count}, not 1 to {MAX_DESCRIPTORS - 1}")
    end = layout.size_bytes + count * _DESCRIPTOR.size
    if end > header["payload_offset_bytes"]:
        raise MalformedInput(f"firmware image {name}: {count} descriptors end at {end:#x}, inside the payload")
    if not rule.auxiliary_field:
        return count
    auxiliary = header[rule.auxiliary_field]
    if auxiliary >= count:
        raise MalformedInput(f"firmware image {name}: {rule.auxiliary_field} is {auxiliary} of {count} descriptors")
    return count - auxiliary


def _soft_pptables(name: str, view: memoryview, header: Mapping[str, int]) -> dict[int, memoryview]:
    """Power tables that an SMC image carries, by id (Linux 6.12 smu_v13_0.c: smu_v13_0_set_pptable_v2_0, _v2_1)."""
    if "pptable_offset_bytes" in header:
        return {0: _slice(name, "pptable", view, header["pptable_offset_bytes"], header["pptable_size_bytes"])}
    count = header.get("pptable_count", 0)
    if count > _MAX_PPTABLES:
        raise MalformedInput(f"firmware image {name}: pptable_count is {count}")
    start = header.get("pptable_entry_offset_bytes", 0)
    entries = _slice(name, "pptable entries", view, start, count * _PPTABLE_ENTRY.size)
    return {
        number: _slice(name, f"pptable {number:#x}", view, offset, size)
        for number, offset, size in _PPTABLE_ENTRY.iter_unpack(entries)
    }
