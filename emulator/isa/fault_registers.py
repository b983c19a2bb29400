"""Registers of a faulted wave where the shader engine kept none: those that its instruction must have read.

Compiled code keeps registers where nobody can look. What it does know of a fault is the lane and the address, and from
them and the instruction follow the registers that made the address. Lanes that did nothing wrong, and all other
registers, read as zero, as if they were not part of the wave.
"""

from __future__ import annotations

import numpy as np

from amdrv.emulator.isa.dispatch import WaveRegisters
from amdrv.emulator.isa.instruction import Instruction, Kind, Operand

SCALARS, VGPRS, LANES = 128, 256, 64
EXEC_LO, EXEC_HI = 126, 127
WORD = 0xFFFF_FFFF


def reconstruct(instruction: Instruction, lane: int | None, va: int | None) -> WaveRegisters:
    """The registers with which ``lane`` (None: none in particular) reached the address ``va`` (None: not known)."""
    registers = WaveRegisters(np.zeros(SCALARS, np.uint32), np.zeros((VGPRS, LANES), np.uint32))
    lane = lane or 0
    registers.scalars[EXEC_HI if lane >= 32 else EXEC_LO] = 1 << lane % 32
    if va is None:
        return registers
    offset = instruction.fields.get("offset", 0)
    if instruction.encoding == "SMEM":
        _put_scalar(registers, _operand(instruction, "sbase"), va - _signed(offset, 21))
    elif instruction.encoding in ("FLAT", "GLOBAL"):
        base = va - (offset & 0xFFF if instruction.encoding == "FLAT" else _signed(offset, 13))
        address, scalar = _operand(instruction, "addr"), _operand(instruction, "saddr")
        if scalar is not None and scalar.kind != Kind.NONE:
            _put_scalar(registers, scalar, base)
        elif address is not None:
            registers.vectors[address.index, lane] = base & WORD
            registers.vectors[(address.index + 1) % VGPRS, lane] = base >> 32 & WORD
    return registers


def _put_scalar(registers: WaveRegisters, operand: Operand | None, value: int) -> None:
    if operand is not None and operand.index < EXEC_LO:
        pair = operand.index & ~1
        registers.scalars[pair], registers.scalars[pair + 1] = value & WORD, value >> 32 & WORD


def _operand(instruction: Instruction, name: str) -> Operand | None:
    return next((operand for operand in instruction.src if operand.name == name), None)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 & 1 else value
