"""Which lane of a stopped wave made an access, and where to: from its registers and the instruction it stands at. Pure.

Address rules: RDNA3 ISA manual, "Flat memory instructions", "Scalar memory", "Vector memory buffer instructions" and
"Data share". The instruction has not written its destination yet: a wave stops before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from amdrv.emulator.isa.instruction import Instruction, Operand
    from amdrv.runtime.stopped_code import StoppedCode

PAGE_SHIFT = 12
HUB_PAGE_BITS = 36  # of a page number that a hub can report: the virtual address bits 47:12
NULL_CODE, M0_CODE = 124, 125
LAST_SGPR = 127
SIZE = re.compile(r"_[a-z]+(\d+)(?:x(\d+))?(?:_rtn)?$")
COMPONENTS = re.compile(r"_format_(x|xy|xyz|xyzw)$")
ADDRESS_MASK = (1 << 64) - 1
BUFFER_ADDRESS_MASK = (1 << 48) - 1
STRIDE_MASK = 0x3FFF
OFFSET_MASK = (1 << 32) - 1
LDS, PRIVATE = "LDS", "private memory"
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
    """What one lane asked of memory; a scalar instruction has no lane."""

    lane: int | None
    va: int
    size_bytes: int
    access: str  # "read" or "write"
    atomic: bool
    space: str = ""  # LDS or PRIVATE: ``va`` is an offset there

    @property
    def misaligned(self) -> bool:
        """Whether the access is one that must be aligned and is not."""
        return self.atomic and self.va % self.size_bytes != 0

    def touches(self, page_va: int) -> bool:
        """Whether any byte lies in the page at ``page_va``, as far as a hub can tell pages apart."""
        if self.space == LDS:
            return False
        pages = range(self.va >> PAGE_SHIFT, (self.va + self.size_bytes - 1 >> PAGE_SHIFT) + 1)
        return any((page ^ page_va >> PAGE_SHIFT) & (1 << HUB_PAGE_BITS) - 1 == 0 for page in pages)


def culprit(code: StoppedCode, wave: WaveWindow, lanes: int, page_va: int | None) -> LaneAccess | None:
    """The access of the first lane that touches the page at ``page_va``, or without one the first misaligned access.

    ``lanes`` is the wave's size. None when the instruction's addresses cannot be told from registers.
    """
    if code.instruction is None:
        return None
    for access in _accesses(code.instruction, code.offset_bytes, wave, lanes):
        if access.misaligned if page_va is None else access.touches(page_va):
            return access
    return None


def _accesses(instruction: Instruction, offset: int, wave: WaveWindow, lanes: int) -> Iterator[LaneAccess]:
    mnemonic, encoding = instruction.mnemonic, instruction.encoding
    size_bytes = _size_bytes(mnemonic)
    if not size_bytes:
        return
    atomic = "_atomic_" in mnemonic
    access = "write" if atomic or "_store_" in mnemonic else "read"
    if encoding == "SMEM" and "_buffer_" not in mnemonic:
        yield LaneAccess(None, _scalar_address(instruction, offset, wave), size_bytes, access, atomic)
        return
    if encoding == "DS":
        if any(part in mnemonic for part in PLAIN_LDS):
            return
        access, atomic = "write", True
    address_of = LANE_ADDRESS.get(encoding)
    mask = wave.exec_mask if address_of is not None else 0
    for lane in range(lanes):
        if address_of is not None and mask >> lane & 1:
            va = address_of(instruction, offset, wave, lane)
            yield LaneAccess(lane, va, size_bytes, access, atomic, SPACE.get(encoding, ""))


def _size_bytes(mnemonic: str) -> int:
    """How many bytes a lane reads or writes, at most where a format says it; 0 when the name does not tell."""
    if found := COMPONENTS.search(mnemonic):
        return 4 * len(found[1])
    found = SIZE.search(mnemonic)
    bits = int(found[1]) * int(found[2] or 1) * (2 if "_pk_" in mnemonic else 1) if found is not None else 0
    return -(-bits // 8)


def _scalar_address(instruction: Instruction, offset: int, wave: WaveWindow) -> int:
    base = _operand(instruction, "sbase")
    address = _scalar_pair(wave, base) if base is not None else 0
    address += _scalar(wave, _operand(instruction, "soffset")) + offset
    return address & ADDRESS_MASK & ~3


def _flat_address(instruction: Instruction, offset: int, wave: WaveWindow, lane: int) -> int:
    address, scalar = _operand(instruction, "addr"), _operand(instruction, "saddr")
    value = 4 * lane if "_addtid_" in instruction.mnemonic else _vector(wave, address, lane)
    if address is not None and address.bits == 64:
        value |= wave.vector(address.index + 1, lane) << 32
    if scalar is not None and scalar.code != NULL_CODE:
        value += _scalar_pair(wave, scalar)
    return value + offset & ADDRESS_MASK


def _private_offset(instruction: Instruction, offset: int, wave: WaveWindow, lane: int) -> int:
    address, scalar = _operand(instruction, "addr"), _operand(instruction, "saddr")
    return _vector(wave, address, lane) + _scalar(wave, scalar) + offset & OFFSET_MASK


def _lds_offset(instruction: Instruction, offset: int, wave: WaveWindow, lane: int) -> int:
    return _vector(wave, _operand(instruction, "addr"), lane) + offset & OFFSET_MASK


def _buffer_address(instruction: Instruction, offset: int, wave: WaveWindow, lane: int) -> int:
    """Of a linear buffer, in which the index counts records of the descriptor's stride."""
    address, descriptor, fields = _operand(instruction, "vaddr"), _operand(instruction, "srsrc"), instruction.fields
    if descriptor is None:
        return offset
    base = _scalar_pair(wave, descriptor)
    indexed, offset_register = fields.get("idxen", 0), fields.get("offen", 0)
    offset += _scalar(wave, _operand(instruction, "soffset"))
    if indexed:
        offset += _vector(wave, address, lane) * (base >> 48 & STRIDE_MASK)
    if offset_register and address is not None:
        offset += wave.vector(address.index + indexed, lane)
    return base + offset & BUFFER_ADDRESS_MASK


LANE_ADDRESS = {
    "FLAT": _flat_address,
    "GLOBAL": _flat_address,
    "SCRATCH": _private_offset,
    "MUBUF": _buffer_address,
    "MTBUF": _buffer_address,
    "DS": _lds_offset,
}
SPACE = {"SCRATCH": PRIVATE, "DS": LDS}


def _vector(wave: WaveWindow, operand: Operand | None, lane: int) -> int:
    return wave.vector(operand.index, lane) if operand is not None and operand.bits else 0


def _scalar(wave: WaveWindow, operand: Operand | None) -> int:
    """A scalar offset: a register, or a constant."""
    if operand is None or operand.code == NULL_CODE:
        return 0
    return wave.scalar(operand.code) if operand.code <= LAST_SGPR else operand.value


def _operand(instruction: Instruction, name: str) -> Operand | None:
    return next((operand for operand in instruction.src if operand.name == name), None)


def _scalar_pair(wave: WaveWindow, operand: Operand) -> int:
    index = operand.index & ~1
    return wave.scalar(index + 1) << 32 | wave.scalar(index)
