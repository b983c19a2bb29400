"""From bytes to a graph of blocks: which code a wave can reach from the entries of a unit.

Places are offsets from the unit's base, modulo 2**64. Control flow that is computed (S_SETPC, S_SWAPPC) is followed
where the address was made from S_GETPC and constants just before; other targets become entries once they are met.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import Access, MemoryViolation, ShaderMemory
from amdrv.emulator.isa.instruction import Instruction, Kind, UnknownInstruction
from amdrv.emulator.isa.native.control import (
    OFFSET_MASK,
    branch_target,
    has_target,
    is_terminator,
    sees_others,
    writes_exec,
)

PAGE_BYTES = 4096
LONGEST_BYTES = 16
# A unit takes in no more than this; what lies beyond is another unit.
MAX_INSTRUCTIONS = 6000
_NEVER_BEHIND = ("s_branch", "s_setpc_b64", "s_endpgm", "s_trap", "s_sendmsghalt")
_POLLING = ("_atomic_", "buffer_gl0_inv", "global_inv", "s_dcache_inv", "s_sleep")
_LOW_SUMS, _HIGH_SUMS = ("s_add_u32", "s_add_co_u32"), ("s_addc_u32", "s_add_co_ci_u32")


class CodeReader:
    """Reads and decodes instructions through a wave's view of memory; remembers the bytes it was shown."""

    def __init__(self, memory: ShaderMemory, decoder: Decoder) -> None:
        self._memory = memory
        self._decoder = decoder
        self._pages: dict[int, bytes | None] = {}
        self.seen: dict[int, bytes] = {}  # va of each instruction to its bytes

    def instruction(self, va: int) -> Instruction | None:
        """The instruction at an address; None where there is none, or nothing can be fetched."""
        inside = va % PAGE_BYTES
        page = self._page(va - inside)
        if page is None:
            return None
        code = page[inside : inside + LONGEST_BYTES]
        if len(code) < LONGEST_BYTES:
            code += (self._page(va - inside + PAGE_BYTES) or b"")[: LONGEST_BYTES - len(code)]
        try:
            found = self._decoder.decode(code)
        except UnknownInstruction:
            self.seen[va] = code
            return None
        self.seen[va] = code[: found.size_bytes]
        return found

    def _page(self, va: int) -> bytes | None:
        if va not in self._pages:
            try:
                index = int(self._memory.translate(np.array([va], np.uint64), Access.EXECUTE)[0])
                self._pages[va] = self._memory.arena[index : index + PAGE_BYTES].tobytes()
            except MemoryViolation:
                self._pages[va] = None
        return self._pages[va]

    def ranges(self) -> list[tuple[int, bytes]]:
        """The bytes read so far as (va, bytes), in order, without gaps or overlaps inside a range."""
        merged: list[tuple[int, bytearray]] = []
        for va in sorted(self.seen):
            code = self.seen[va]
            if merged and merged[-1][0] <= va <= merged[-1][0] + len(merged[-1][1]):
                start, whole = merged[-1]
                whole += code[max(0, start + len(whole) - va) :]
            else:
                merged.append((va, bytearray(code)))
        return [(va, bytes(code)) for va, code in merged]


@dataclass(slots=True)
class Graph:
    """The code of a unit: instructions by place, the places where blocks begin, and where computed jumps may go."""

    base: int
    instructions: dict[int, Instruction | None] = field(default_factory=dict)  # None: cannot be executed
    leaders: set[int] = field(default_factory=set)
    landings: set[int] = field(default_factory=set)  # return addresses and targets of computed jumps
    beyond: set[int] = field(default_factory=set)  # places that did not fit in

    def polls(self, first: int, last: int) -> bool:
        """Whether a loop over these places may wait for another wave."""
        return any(
            instruction is not None and _polls(instruction)
            for place, instruction in self.instructions.items()
            if first <= place <= last
        )


def _polls(instruction: Instruction) -> bool:
    return sees_others(instruction) or any(part in instruction.mnemonic for part in _POLLING)


def explore(code: CodeReader, base: int, entries: list[int]) -> Graph:
    """Follow the code from ``entries`` (places)."""
    graph = Graph(base)
    waiting = list(entries)
    while waiting:
        place = waiting.pop()
        if place in graph.leaders:
            continue
        graph.leaders.add(place)
        waiting += _follow(code, graph, place)
    return graph


def _follow(code: CodeReader, graph: Graph, place: int) -> list[int]:
    """Decode straight on from a leader until control flow ends or known code begins; returns leaders found."""
    found: list[int] = []
    pointers = _Pointers()
    while place not in graph.instructions:
        if len(graph.instructions) >= MAX_INSTRUCTIONS:
            graph.beyond.add(place)
            graph.leaders.add(place)
            return found
        instruction = graph.instructions[place] = code.instruction(graph.base + place & OFFSET_MASK)
        if instruction is None:
            return found
        behind = place + instruction.size_bytes & OFFSET_MASK
        target = pointers.step(instruction, behind)
        if target is not None:
            graph.landings.add(target)
            found.append(target)
        if has_target(instruction):
            found.append(branch_target(instruction, behind))
        if instruction.mnemonic in ("s_swappc_b64", "s_call_b64"):
            graph.landings.add(behind)
        if instruction.mnemonic.startswith(_NEVER_BEHIND):
            return found
        if is_terminator(instruction):
            return [*found, behind]
        place = behind
        if writes_exec(instruction) and not _branches_next(code, graph, place):
            return [*found, place]
    return found


def _branches_next(code: CodeReader, graph: Graph, place: int) -> bool:
    """Whether a terminator stands at a place: no block need begin there."""
    instruction = graph.instructions.get(place) or code.instruction(graph.base + place & OFFSET_MASK)
    return instruction is not None and is_terminator(instruction)


class _Pointers:
    """Scalar register pairs known to hold an address in the code: S_GETPC, then an addition in two halves."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._low_sums: dict[int, int] = {}

    @property
    def _uppers(self) -> set[int]:
        return {low + 1 for low in self._places}

    def step(self, instruction: Instruction, behind: int) -> int | None:
        """Take in an instruction; the place where it jumps to if it is a computed jump of known target."""
        name = instruction.mnemonic
        if name in ("s_setpc_b64", "s_swappc_b64"):
            return self._places.get(instruction.src[0].index)
        if name == "s_getpc_b64":
            self._places[instruction.dst[0].index] = behind
            return None
        if name == "s_sext_i32_i16" and instruction.dst[0].index == instruction.src[0].index in self._uppers:
            return None  # as gfx12 needs it: addresses have 48 bits
        if name in (*_LOW_SUMS, *_HIGH_SUMS) and instruction.src[1].kind == Kind.CONSTANT:
            target, source, value = instruction.dst[0].index, instruction.src[0].index, instruction.src[1].value
            if name in _LOW_SUMS and target == source and target in self._places:
                self._low_sums[target] = value
                return None
            if target == source and target - 1 in self._low_sums:
                pair = target - 1
                whole = value << 32 | self._low_sums.pop(pair)
                self._places[pair] = self._places[pair] + whole & OFFSET_MASK
                return None
        for operand in instruction.dst:
            if operand.kind in (Kind.SGPR, Kind.SPECIAL):
                for index in range(operand.index - 1, operand.index + max(1, operand.bits // 32)):
                    self._places.pop(index, None)
                    self._low_sums.pop(index, None)
        return None
