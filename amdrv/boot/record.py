"""The boot record: what an earlier start left on the card, in a page of device memory.

Memory alone cannot be believed: after a reset it may hold an old record, or garbage that looks like one. So the record
carries a random nonce that is also in a scratch register of the graphics core, which a reset clears. A second scratch
register says whether the last owner closed the card; it is a register so that a crash cannot leave it half written.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from amdrv.errors import InvalidArgument, MalformedInput
from amdrv.memory.layout import LAYOUT_VERSION

MAGIC = b"amdrvrec"
FORMAT_VERSION = 1
DIGEST_BYTES = 32

# SCRATCH_REG7 holds the nonce, SCRATCH_REG6 the state. Both keep their values until the graphics core loses power or is
# reset by mode1; the command processor's reset and the end of a process leave them alone.
NONCE_REGISTER = "SCRATCH_REG7"
STATE_REGISTER = "SCRATCH_REG6"
CLEAN_MARK = 0x636C6E21
IN_USE_MARK = 0x75736564

_BODY = struct.Struct("<8sIIIIQ32s32sQIII")
_CHECKSUM = struct.Struct("<I")
RECORD_BYTES = _BODY.size + _CHECKSUM.size


@dataclass(frozen=True, slots=True)
class BootRecord:
    """What is on the card and how it is laid out."""

    nonce: int
    firmware_digest: bytes  # of every image in load order
    map_digest: bytes  # of the discovery table
    vram_bytes: int
    tmr_bytes: int
    compute_units: int
    smu_version: int
    layout_version: int = LAYOUT_VERSION

    def __post_init__(self) -> None:
        if not 0 < self.nonce <= 0xFFFFFFFF:
            raise InvalidArgument(f"boot record: nonce {self.nonce:#x} is not a 32-bit number above 0")
        if len(self.firmware_digest) != DIGEST_BYTES or len(self.map_digest) != DIGEST_BYTES:
            raise InvalidArgument(f"boot record: a digest has not {DIGEST_BYTES} bytes")


def state_word(nonce: int, clean: bool) -> int:
    """What the state register holds; tied to the nonce, so that it belongs to one record."""
    return nonce ^ (CLEAN_MARK if clean else IN_USE_MARK)


def pack(record: BootRecord) -> bytes:
    """The record's bytes, checksum at the end."""
    body = _BODY.pack(
        MAGIC,
        FORMAT_VERSION,
        record.layout_version,
        record.nonce,
        record.compute_units,
        record.vram_bytes,
        record.firmware_digest,
        record.map_digest,
        record.tmr_bytes,
        record.smu_version,
        0,
        0,
    )
    return body + _CHECKSUM.pack(zlib.crc32(body))


def unpack(data: bytes) -> BootRecord | None:
    """The record in ``data``; None when there is none. Raises MalformedInput for one that is damaged or from another
    version of the format."""
    if len(data) < RECORD_BYTES:
        raise MalformedInput(f"boot record: {len(data)} bytes, expected {RECORD_BYTES}")
    body, checksum = data[: _BODY.size], _CHECKSUM.unpack_from(data, _BODY.size)[0]
    magic, version, layout, nonce, units, vram_bytes, firmware, registers, tmr_bytes, smu, *_ = _BODY.unpack(body)
    if magic != MAGIC:
        return None
    if version != FORMAT_VERSION:
        raise MalformedInput(f"boot record: format version {version}, expected {FORMAT_VERSION}")
    if zlib.crc32(body) != checksum:
        raise MalformedInput(f"boot record: checksum {checksum:#x}, expected {zlib.crc32(body):#x}")
    try:
        return BootRecord(nonce, firmware, registers, vram_bytes, tmr_bytes, units, smu, layout)
    except InvalidArgument as error:
        raise MalformedInput(str(error)) from error
