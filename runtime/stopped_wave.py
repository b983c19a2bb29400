"""Which lane of a stopped wave made an access, and where to: from its registers and the instruction it stands at. Pure.

Address rules: RDNA3 ISA manual, "Flat memory instructions", "Scalar memory" and "Data share". The instruction has not
written its destination yet: a wave stops before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from amdrv.emulator.isa.instruction import Instruction, Operand

PAGE_SHIFT = 12
HUB_PAGE_BITS = 36  # of a page number that a hub can report: the virtual address bits 47:12
NULL_CODE, M0_CODE = 124, 125
LAST_SGPR = 127
SIZE = re.compile(r"_[a-z]+(\d+)(?:x(\d+))?(?:_rtn)?$")
ADDRESS_MASK = (1 << 64) - 1
LDS_ADDRESS_MASK = (1 << 32) - 1
# Parts of the names of LDS instructions that are no atomics.
PLAIN_LDS = ("_load", "_store", "permute", "swizzle", "append", "consume", "_nop")


class WaveWindow(Protocol):
    """The registers of a wave that stands still."""

    @property
    def exec_mask(self) -> int:
        """The lanes that take part."""

    def scalar(self, code: int) -> int:
        """A scalar register by operand code."""

    def vector(self, register: int, lane: int) -> int:
        """One lane of a VGPR."""


@dataclass(frozen=True, slots=True)
class LaneAccess:
    """What one lane asked of memory, or of its workgroup's LDS; a scalar instruction has no lane."""

    lane: int | None
    va: int
    size_bytes: int
    access: str  # "read" or "write"
    atomic: bool
    in_lds: bool = False  # ``va`` is an offset there

    @property
    def misaligned(self) -> bool:
        """Whether the access is one that must be aligned and is not."""
        return self.atomic and self.va % self.size_bytes != 0

    def touches(self, page_va: int) -> bool:
        """Whether any byte lies in the page at ``page_va``, as far as a hub can tell pages apart."""
        if self.in_lds:
            return False
        pages = range(self.va >> PAGE_SHIFT, (self.va + self.size_bytes - 1 >> PAGE_SHIFT) + 1)
        return any((page ^ page_va >> PAGE_SHIFT) & (1 << HUB_PAGE_BITS) - 1 == 0 for page in pages)


def culprit(instruction: Instruction, wave: WaveWindow, lanes: int, page_va: int | None) -> LaneAccess | None:
    """The access of the first lane that touches the page at ``page_va``, or without one the first misaligned access.

    ``lanes`` is the wave's size. None when the instruction's addresses cannot be told from registers.
    """
    for access in _accesses(instruction, wave, lanes):
        if access.misaligned if page_va is None else access.touches(page_va):
            return access
    return None


def _accesses(instruction: Instruction, wave: WaveWindow, lanes: int) -> Iterator[LaneAccess]:
    mnemonic, encoding = instruction.mnemonic, instruction.encoding
    found = SIZE.search(mnemonic)
    if found is None:
        return
    size_bytes = max(1, int(found[1]) * int(found[2] or 1) // 8)
    atomic = "_atomic_" in mnemonic
    access = "write" if atomic or "_store_" in mnemonic else "read"
    if encoding == "SMEM" and "_buffer_" not in mnemonic:
        yield LaneAccess(None, _scalar_address(instruction, wave), size_bytes, access, atomic)
    elif encoding in ("FLAT", "GLOBAL"):
        mask = wave.exec_mask
        for lane in range(lanes):
            if mask >> lane & 1:
                yield LaneAccess(lane, _lane_address(instruction, wave, lane), size_bytes, access, atomic)
    elif encoding == "DS" and not any(part in mnemonic for part in PLAIN_LDS):
        address, fields = _operand(instruction, "addr"), instruction.fields
        offset = fields.get("offset1", 0) << 8 | fields.get("offset0", 0)
        size_bytes *= 2 if "_pk_" in mnemonic else 1
        for lane in range(lanes if address is not None else 0):
            if address is not None and wave.exec_mask >> lane & 1:
                at = wave.vector(address.index, lane) + offset & LDS_ADDRESS_MASK
                yield LaneAccess(lane, at, size_bytes, "write", True, in_lds=True)


def _scalar_address(instruction: Instruction, wave: WaveWindow) -> int:
    base, offset = _operand(instruction, "sbase"), _operand(instruction, "soffset")
    address = _scalar_pair(wave, base) if base is not None else 0
    if offset is not None and offset.code != NULL_CODE and offset.code <= LAST_SGPR:
        address += wave.scalar(offset.code)
    address += _signed(instruction.fields.get("offset", 0), 21)
    return address & ADDRESS_MASK & ~3


def _lane_address(instruction: Instruction, wave: WaveWindow, lane: int) -> int:
    address, scalar = _operand(instruction, "addr"), _operand(instruction, "saddr")
    value = wave.vector(address.index, lane) if address is not None and address.bits else 0
    if address is not None and address.bits == 64:
        value |= wave.vector(address.index + 1, lane) << 32
    if scalar is not None and scalar.code != NULL_CODE:
        value += _scalar_pair(wave, scalar)
    offset = instruction.fields.get("offset", 0)
    value += offset & 0xFFF if instruction.encoding == "FLAT" else _signed(offset, 13)
    return value & ADDRESS_MASK


def _operand(instruction: Instruction, name: str) -> Operand | None:
    return next((operand for operand in instruction.src if operand.name == name), None)


def _scalar_pair(wave: WaveWindow, operand: Operand) -> int:
    index = operand.index & ~1
    return wave.scalar(index + 1) << 32 | wave.scalar(index)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 & 1 else value
