"""Machine code made ready to run: blocks of prepared instructions, kept until the instruction cache is invalidated.

A block is found by the *arena index* of its first byte and its virtual address: like the instruction cache, it does not
see that memory has changed, but it is never taken for code of another address space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.alu import prepare_alu, prepare_dual
from amdrv.emulator.isa.buffer_ops import prepare_buffer
from amdrv.emulator.isa.control import FREE, Terminator, fall_through, prepare_simple, prepare_terminator
from amdrv.emulator.isa.crosslane import prepare_crosslane
from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import Access, MemoryViolation, ShaderFault, ShaderMemory
from amdrv.emulator.isa.generation import generation_for
from amdrv.emulator.isa.instruction import Instruction, Kind, UnknownInstruction
from amdrv.emulator.isa.lds_ops import prepare_append, prepare_crossbar
from amdrv.emulator.isa.memory_ops import prepare_ds, prepare_flat
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra
from amdrv.emulator.isa.operands import Op, Place, in_range, nothing
from amdrv.emulator.isa.refusals import refusal
from amdrv.emulator.isa.scalar_memory import prepare_smem
from amdrv.emulator.isa.semantics import lookup

PAGE_BYTES = 4096
LONGEST_BYTES = 16
MAX_INSTRUCTIONS = 64
# Instructions by which a wave may be waiting for another: a loop with one of these gives way sooner.
POLLING_WEIGHT = 64
SCOPE_DEVICE = 2
_POLLING = ("_atomic_", "buffer_gl0_inv", "global_inv", "s_dcache_inv", "s_sleep")


@dataclass(slots=True)
class Block:
    """A run of instructions without a branch into or out of it.

    ``sites[i]`` is where ``ops[i]`` came from; the last site is the terminator's. ``counted`` is
    what the block adds to a wave's instruction count and ``weight`` to its scheduling account. No VGPR from number
    ``vgprs`` on is touched.
    """

    pc: int
    end_pc: int
    ops: list[Op]
    sites: list[tuple[int, Instruction]]
    terminator: Terminator
    counted: int
    weight: int
    vgprs: int


Key: TypeAlias = tuple[int, int, int, int, int]
_Prepare: TypeAlias = Callable[[Instruction, Place], "Op | None"]


def _prepare_by_family(instruction: Instruction, place: Place) -> Op | None:
    """Memory, LDS and lane instructions; None when nobody knows it."""
    encoding = instruction.encoding
    if encoding in ("FLAT", "GLOBAL", "SCRATCH"):
        families: tuple[_Prepare, ...] = (prepare_flat,)
    elif encoding == "DS":
        families = (prepare_ds, prepare_crossbar, prepare_append)
    elif encoding in ("MUBUF", "MTBUF"):
        families = (prepare_buffer,)
    elif encoding == "SMEM":
        families = (prepare_smem,)
    else:
        families = (prepare_crosslane,)
    for prepare in families:
        op = prepare(instruction, place)
        if op is not None:
            return op if in_range(instruction, place) else nothing
    return None


class CodeCache:
    """Decoded code for one wave shape and memory; blocks live in the store that all dispatches share."""

    def __init__(self, store: dict[Key, Block], memory: ShaderMemory, lanes: int, vgprs: int, decoder: Decoder) -> None:
        self._store = store
        self._memory = memory
        self._lanes, self._vgprs = lanes, vgprs
        self._decoder = decoder
        self._generation = generation_for(decoder.arch)
        self._leaders: set[int] = set()
        self._found: dict[tuple[int, int], Block] = {}  # by (pc, mode): what this dispatch has fetched already
        self._algebras: dict[int, NumpyAlgebra] = {}

    def block(self, pc: int, mode: int) -> Block:
        """The block that starts at ``pc``; raises ShaderFault for what cannot be fetched or run."""
        found = self._found.get((pc, mode))
        if found is not None:
            return found
        key = (self._fetch_index(pc), pc, mode, self._lanes, self._vgprs)
        block = self._store.get(key)
        if block is None or any(block.pc < leader < block.end_pc for leader in self._leaders):
            block = self._store[key] = self._prepare(pc, mode)
        self._found[pc, mode] = block
        return block

    def add_leader(self, pc: int) -> None:
        """Waves stand at ``pc``: no block may run over it, so that others can join them there."""
        if pc not in self._leaders:
            self._leaders.add(pc)
            for key in [key for key, block in self._found.items() if block.pc < pc < block.end_pc]:
                del self._found[key]

    def forget(self) -> None:
        """Fetch everything anew."""
        self._store.clear()
        self._found.clear()

    def _fetch_index(self, pc: int) -> int:
        try:
            return int(self._memory.translate(np.array([pc], np.uint64), Access.EXECUTE)[0])
        except MemoryViolation as violation:
            detail = f"instruction fetch: {violation}"
            raise ShaderFault("memory violation", detail, pc=pc, va=violation.va, access=Access.EXECUTE) from violation

    def _fetch(self, pc: int) -> bytes:
        """The bytes from ``pc`` to the end of its page, and of the next page as much as an instruction may need."""
        index = self._fetch_index(pc)
        inside = PAGE_BYTES - pc % PAGE_BYTES
        code = self._memory.arena[index : index + inside].tobytes()
        if inside >= LONGEST_BYTES:
            return code
        try:
            index = self._fetch_index(pc + inside)
        except ShaderFault:
            return code  # the code may well end with the page
        return code + self._memory.arena[index : index + LONGEST_BYTES].tobytes()

    def _prepare(self, pc: int, mode: int) -> Block:
        ops: list[Op] = []
        sites: list[tuple[int, Instruction]] = []
        count = counted = weight = vgprs = 0
        code = self._fetch(pc)
        at = pc
        terminator: Terminator | None = None
        while terminator is None:
            try:
                instruction = self._decode(code, at, at - pc)
                place = Place(at, at + instruction.size_bytes, self._lanes, self._vgprs, mode, self._generation)
                terminator = self._prepare_terminator(instruction, place)
                op = nothing if terminator is not None else self._prepare_op(instruction, place)
            except ShaderFault:
                # A fault happens when execution arrives at it, not when the instructions before it are prepared.
                if at == pc:
                    raise
                break
            if op is not nothing:
                ops.append(op)
            if op is not nothing or terminator is not None:
                sites.append((at, instruction))
            count += 1
            counted += instruction.mnemonic not in FREE
            vgprs = max(vgprs, _vgprs_of(instruction, place))
            weight += POLLING_WEIGHT if _polls(instruction) else 1
            at = place.next_pc
            if at in self._leaders or count >= MAX_INSTRUCTIONS or at // PAGE_BYTES != pc // PAGE_BYTES:
                break
        return Block(pc, at, ops, sites, terminator or fall_through(at), counted, weight, vgprs)

    def _decode(self, code: bytes, pc: int, offset: int) -> Instruction:
        try:
            return self._decoder.decode(code[offset : offset + LONGEST_BYTES])
        except UnknownInstruction as error:
            raise ShaderFault("illegal instruction", str(error), pc=pc) from error

    @staticmethod
    def _prepare_terminator(instruction: Instruction, place: Place) -> Terminator | None:
        try:
            return prepare_terminator(instruction, place)
        except ValueError as error:
            raise _illegal(instruction, place.pc, str(error)) from error

    def _prepare_op(self, instruction: Instruction, place: Place) -> Op:
        """The operation of an instruction that goes on; raises ShaderFault when there is none."""
        simple = prepare_simple(instruction, place)
        if simple is not None:
            return simple
        algebra = self._algebras.get(place.mode)
        if algebra is None:
            algebra = self._algebras[place.mode] = NumpyAlgebra(FloatMode.from_bits(place.mode))
        try:
            op = self._prepare_value(instruction, place, algebra) or _prepare_by_family(instruction, place)
        except ValueError as error:
            raise _illegal(instruction, place.pc, str(error)) from error
        if op is None:
            reason = refusal(instruction.encoding, instruction.mnemonic) or "not implemented by the shader engine"
            raise _illegal(instruction, place.pc, reason)
        return op

    @staticmethod
    def _prepare_value(instruction: Instruction, place: Place, algebra: NumpyAlgebra) -> Op | None:
        """An instruction that has a definition; None for others, ValueError for a bad operand."""
        if instruction.dual is not None:
            first, second = (lookup(half.mnemonic, place.generation.name) for half in instruction.dual)
            if place.lanes != 32:
                raise ValueError("dual instructions exist for wave32 only")  # RDNA3 ISA manual, "Dual issue VALU"
            return prepare_dual((first, second), instruction, place, algebra) if first and second else None
        definition = lookup(instruction.mnemonic, place.generation.name)
        return prepare_alu(definition, instruction, place, algebra) if definition is not None else None


def _vgprs_of(instruction: Instruction, place: Place) -> int:
    """One more than the highest VGPR that an instruction may touch."""
    if "rel" in instruction.mnemonic:  # relative moves: the register's number is in M0
        return place.vgprs
    parts = instruction.dual or (instruction,)
    operands = [operand for part in parts for operand in (*part.dst, *part.src) if operand.kind == Kind.VGPR]
    highest = max((operand.index + -(-operand.bits // 32) for operand in operands), default=0)
    return min(highest, place.vgprs)


def _polls(instruction: Instruction) -> bool:
    if "_load_" in instruction.mnemonic:  # of what other workgroups can see
        fields = instruction.fields
        if fields.get("glc") or fields.get("scope", 0) >= SCOPE_DEVICE:
            return True
    return any(part in instruction.mnemonic for part in _POLLING)


def _illegal(instruction: Instruction, pc: int, reason: str) -> ShaderFault:
    words = " ".join(f"{word:08x}" for word in instruction.words)
    detail = f"{instruction.mnemonic} ({words}): {reason}"
    return ShaderFault("illegal instruction", detail, pc=pc, mnemonic=instruction.mnemonic)
