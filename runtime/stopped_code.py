"""What a stopped wave was at: the instruction in device memory, as a person reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amdrv.emulator.isa.instruction import Instruction
    from amdrv.memory.manager import MemoryManager

LONGEST_INSTRUCTION_BYTES = 12


@dataclass(frozen=True, slots=True)
class StoppedCode:
    """The instruction at a program counter."""

    text: str  # with its bits; the bits alone where they are no instruction; "" outside memory
    instruction: Instruction | None = None
    offset_bytes: int = 0  # the immediate offset of a memory instruction

    @property
    def mnemonic(self) -> str:
        """The instruction's name; "" when there is none."""
        return self.instruction.mnemonic if self.instruction is not None else ""


def code_at(memory: MemoryManager, arch: str, pc: int) -> StoppedCode:
    """What stands at ``pc``."""
    # Tables of machine code are facts, but they take a while to load: only a fault pays for it.
    from amdrv.emulator.isa.disassembler import disassemble
    from amdrv.emulator.isa.generation import generation_for
    from amdrv.emulator.isa.instruction import Instruction

    allocation = memory.find(pc)
    if allocation is None:
        return StoppedCode("")
    offset = pc - allocation.va
    code = allocation.read(offset, min(LONGEST_INSTRUCTION_BYTES, allocation.size_bytes - offset))
    for _, instruction, text in disassemble(code, pc, arch):
        bits = " ".join(f"{word:08x}" for word in instruction.words)
        if isinstance(instruction, Instruction):
            return StoppedCode(f"{text} ({bits})", instruction, generation_for(arch).address_offset(instruction))
        return StoppedCode(f"no instruction ({bits})")
    return StoppedCode("")
