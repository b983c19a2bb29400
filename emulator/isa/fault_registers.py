"""Registers of a faulted wave where the shader engine kept none: those that its instruction must have read.

Compiled code keeps registers where nobody can look. What it does know of a fault is the lane and the address, and from
them and the instruction follow the registers that made the address. Lanes that did nothing wrong, and all other
registers, read as zero, as if they were not part of the wave.
"""

from __future__ import annotations

import numpy as np

from amdrv.emulator.isa.dispatch import WaveRegisters
from amdrv.emulator.isa.generation import GFX11, Generation
from amdrv.emulator.isa.instruction import Instruction, Kind, Operand

SCALARS, VGPRS, LANES = 128, 256, 64
EXEC_LO, EXEC_HI = 126, 127
WORD = 0xFFFF_FFFF


def reconstruct(
    instruction: Instruction, lane: int | None, va: int | None, generation: Generation = GFX11
) -> WaveRegisters:
    """The registers with which ``lane`` (None: none in particular) reached the address ``va`` (None: not known).

    Of an access to LDS or private memory ``va`` is the offset in it, whatever stands above its 32 bits.
    """
    registers = WaveRegisters(np.zeros(SCALARS, np.uint32), np.zeros((VGPRS, LANES), np.uint32))
    lane = lane or 0
    registers.scalars[EXEC_HI if lane >= 32 else EXEC_LO] = 1 << lane % 32
    if va is None:
        return registers
    encoding = instruction.encoding
    base = va - generation.address_offset(instruction) - (4 * lane if "_addtid_" in instruction.mnemonic else 0)
    vector, scalar = _operand(instruction, "addr"), _operand(instruction, "saddr")
    if encoding == "SMEM":
        _put_scalar(registers, _operand(instruction, "sbase"), base)
    elif encoding in ("MUBUF", "MTBUF"):
        offset = _operand(instruction, "soffset")
        constant = offset.value if offset is not None and offset.kind == Kind.CONSTANT else 0
        _put_scalar(registers, _operand(instruction, "srsrc"), base - constant)
    elif encoding in ("DS", "SCRATCH") and vector is not None:
        registers.vectors[vector.index, lane] = base & WORD
    elif scalar is not None and encoding == "SCRATCH":
        registers.scalars[scalar.index] = base & WORD
    elif scalar is not None:
        _put_scalar(registers, scalar, base)
    elif vector is not None:
        registers.vectors[vector.index, lane] = base & WORD
        registers.vectors[(vector.index + 1) % VGPRS, lane] = base >> 32 & WORD
    return registers


def _put_scalar(registers: WaveRegisters, operand: Operand | None, value: int) -> None:
    if operand is not None and operand.index < EXEC_LO:
        pair = operand.index & ~1
        registers.scalars[pair], registers.scalars[pair + 1] = value & WORD, value >> 32 & WORD


def _operand(instruction: Instruction, name: str) -> Operand | None:
    return next((item for item in instruction.src if item.name == name and item.kind != Kind.NONE), None)
