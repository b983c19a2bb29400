"""What a stopped wave was at: the instruction in device memory, as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amdrv.memory.manager import MemoryManager

LONGEST_INSTRUCTION_BYTES = 12


def instruction_at(memory: MemoryManager, arch: str, pc: int) -> str:
    """The text of the instruction at ``pc`` with its bits, the bits alone where they are none, "" outside memory."""
    # Tables of machine code are facts, but they take a while to load: only a fault pays for it.
    from amdrv.emulator.isa.disassembler import disassemble
    from amdrv.emulator.isa.instruction import Instruction

    allocation = memory.find(pc)
    if allocation is None:
        return ""
    offset = pc - allocation.va
    code = allocation.read(offset, min(LONGEST_INSTRUCTION_BYTES, allocation.size_bytes - offset))
    for _, instruction, text in disassemble(code, pc, arch):
        bits = " ".join(f"{word:08x}" for word in instruction.words)
        return f"{text} ({bits})" if isinstance(instruction, Instruction) else f"no instruction ({bits})"
    return ""
