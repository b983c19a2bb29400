"""Every ALU opcode, randomly encoded, does to registers what the interpreter makes of it: operands, modifiers, EXEC."""

from __future__ import annotations

import ctypes
import random
import zlib
from collections.abc import Container
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from native_harness import Code, compile_ir

from amdrv.emulator.isa import semantics
from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.code import CodeCache
from amdrv.emulator.isa.decoder import DPP_ENCODINGS, Decoder
from amdrv.emulator.isa.dispatch import Dispatch
from amdrv.emulator.isa.generation import GFX11, Generation, generation_for
from amdrv.emulator.isa.instruction import Instruction, UnknownInstruction
from amdrv.emulator.isa.launch import Launch
from amdrv.emulator.isa.machine import Lds, Machine
from amdrv.emulator.isa.memory_path import MemoryPath
from amdrv.emulator.isa.native import alu, layout, matrix_gfx12
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Builder
from amdrv.emulator.isa.native.frame import SCC_BIT, SGPR_BIT, Exits, Frame, Shape, slot_name
from amdrv.emulator.isa.native.functions import library_functions
from amdrv.emulator.isa.native.layout import Context
from amdrv.emulator.isa.native.library import METADATA, Function
from amdrv.emulator.isa.numpy_algebra import NumpyAlgebra, quiet
from amdrv.emulator.isa.operands import Place
from amdrv.emulator.isa.semantics.ownership import ENGINE
from amdrv.emulator.isa.table import OpSpec, generation_of, load_table
from amdrv.emulator.isa.wave import EXEC_HI, EXEC_LO, NULL, Group, WaveState

ENCODINGS = ("SOP1", "SOP2", "SOPC", "SOPK", "VOP1", "VOP2", "VOP3", "VOP3SD", "VOP3P", "VOPC", "VOPD")
WAVES, VGPRS = 2, 40
SHARED_BASE, PRIVATE_BASE = 1 << 48, 2 << 48
USUAL, FLUSHING = 0x3F0, 0x000  # MODE: keep denormals, DX10_CLAMP and IEEE; or none of it
GFX12_MODE = 0x1F0  # keep denormals; DX10_CLAMP always
LITERAL, DPP16, DPP8 = 255, 250, 233
# Bit patterns that floats and integers of some width have their corners at.
CORNERS = (0, 1, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF)
CORNERS += (0x3C003C00, 0x7C00FC00, 0x7E017C01, 0x00018001, 0x00400000, 0x4F000000, 0xFF7FFFFF, 0x40490FDB)


class _Any:
    """Contains everything."""

    def __contains__(self, item: object) -> bool:
        return True


ANY = _Any()


def encode(op: OpSpec, rng: random.Random, generation: str = "gfx11") -> list[int]:
    """An instruction of an opcode with random fields and operands, most of them ones that exist."""
    encoding = load_table(generation).encodings[op.encoding]
    raw, literal, extra = encoding.value, False, None
    for name, low, mask in encoding.fields:
        value = rng.randint(0, mask)
        if name == "op":
            value = op.opcode
        elif name in ("opx", "opy"):
            value = op.opcode if name == "opy" else rng.choice([0, 3, 4, 5, 8, 9, 10])
        elif "src" in name:
            scalars = (rng.randint(0, 105), 106, 107, 124, 125, 126, rng.randint(128, 248), 253, LITERAL)
            vectors = (256 + rng.randint(0, VGPRS + 2),) * (20 if mask > 255 else 0)
            value = rng.choice((*scalars, *vectors)) if mask >= 255 and name != "vsrc1" else value % (VGPRS + 2)
            value = rng.randint(0, VGPRS - 1) if name.startswith("vsrc") else value
            if name == "src0" and op.encoding in DPP_ENCODINGS and "dpp" in op.flags and rng.random() < 0.3:
                value = rng.choice((DPP16, DPP8))
                lane_control = rng.choice((rng.randint(0, 0xFF), 0x101 + rng.randint(0, 0x5F)))
                extra = rng.randint(0, VGPRS - 1) | (lane_control << 8 | rng.randint(0, 15) << 20 | 0xFF000000)
            literal |= value == LITERAL
        elif name.startswith("vdst") or (name == "sdst" and op.encoding.startswith("SOP")):
            scalar = rng.choice((*(rng.randint(0, 105) for _ in range(4)), 106, 124, 125, 126))
            value = rng.randint(0, VGPRS + 1) if name.startswith("vdst") else scalar
        elif name == "sdst":
            value = rng.choice((rng.randint(0, 104), 106, 124))
        elif name in ("clamp", "omod", "neg", "abs", "neg_hi"):
            value = value if rng.random() < 0.5 else 0
        raw |= (value & mask) << low
    words = [raw >> 32 * word & 0xFFFFFFFF for word in range(encoding.dwords)]
    corner = rng.choice((*CORNERS, rng.randint(0, 0xFFFFFFFF)))
    return [*words, *([extra] if extra is not None else []), corner, corner]


def instructions(lanes: int, per_opcode: int, arch: str = "gfx1150", only: Container[str] = ANY) -> list[Instruction]:
    """Random instructions of all opcodes that have a definition, or of those whose mnemonic is among some."""
    decoder, generation, found = Decoder(arch), generation_of(arch), []
    for encoding in ENCODINGS:
        if encoding == "VOPD" and lanes == 64:
            continue
        for op in load_table(generation).ops[encoding].values():
            rng = random.Random(zlib.crc32(f"{encoding} {op.mnemonic} {lanes}".encode()))
            if op.mnemonic in ENGINE or semantics.lookup(op.mnemonic, generation) is None or op.mnemonic not in only:
                continue
            for _ in range(per_opcode):
                try:
                    found.append(decoder.decode(encode(op, rng, generation)))
                except UnknownInstruction:
                    continue
    return found


@dataclass
class Registers:
    """Of some waves: vector registers, scalar registers by operand code, SCC."""

    vgpr: np.ndarray
    sgpr: np.ndarray
    scc: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, lanes: int) -> Registers:
        """A third corners, a third floats of moderate size, a third anything; EXEC is full in one wave of two."""
        vgpr, sgpr = (_values(rng, shape) for shape in ((VGPRS, WAVES, lanes), (WAVES, 128)))
        sgpr[::2, [EXEC_LO, EXEC_HI]] = 0xFFFFFFFF
        sgpr[:, NULL] = 0
        return cls(vgpr, sgpr, rng.integers(0, 2, (WAVES, 1)).astype(np.bool_))


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    corners, moderate = rng.choice(np.array(CORNERS, np.uint32), shape), rng.normal(0, 8, shape).astype("f4").view("u4")
    halves = rng.normal(0, 8, (*shape, 2)).astype("f2").view("u4")[..., 0]
    choice = rng.integers(0, 4, shape)
    conditions = [choice == 0, choice == 1, choice == 2]
    return np.select(conditions, [corners, moderate, halves], rng.integers(0, 1 << 32, shape, np.uint32))


@dataclass
class Sweep:
    """Instructions written as functions of one module, for any EXEC and for EXEC all ones, in one MODE."""

    lanes: int
    mode: int
    generation: Generation = GFX11
    texts: list[str] = field(default_factory=list)
    uses: set[str] = field(default_factory=set)
    shared: dict[str, str] = field(default_factory=dict)
    code: Code | None = None

    def add(self, name: str, instruction: Instruction, full: bool) -> bool:
        """Whether the translator takes the instruction."""
        builder, exits = Builder(self.lanes), Exits()
        builder.label("%entry")
        frame = Frame(builder, Shape(self.lanes, VGPRS, self.generation), exits, full=full)
        try:
            if not alu.translate(frame, instruction, LlvmAlgebra(builder, FloatMode.from_bits(self.mode))):
                return False
        except (alu.IllegalOperand, ValueError):
            return False
        frame.flush()
        head, tail = [builder.lines[0], f"%all = alloca [{VGPRS} x <{self.lanes} x i32>]"], []
        for bit in (bit for bit in range(SCC_BIT + 1) if frame.touched >> bit & 1):
            head += _load(bit, self.lanes)
            tail += _store(bit, self.lanes) if frame.writes >> bit & 1 else []
        signature = f"define void @{name}(ptr noalias %ctx, ptr noalias %state, i64 %base) nounwind {{"
        self.texts.append("\n".join([signature, *head, *builder.lines[1:], *tail, "ret void", "}"]))
        self.uses |= builder.uses
        self.shared |= builder.functions
        return True

    def compile(self) -> None:
        library = {function.name: function for function in library_functions(self.lanes)}
        wanted, seen = list(self.uses), {}
        for text in self.shared.values():
            wanted += Function(text[text.index("define ") :].replace("define internal ", "define ", 1)).calls
        while wanted:
            function = library.get(wanted.pop())
            if function is not None and function.name not in seen:
                seen[function.name] = function.definition("internal ")
                wanted += function.calls
        text = "\n".join([*seen.values(), *self.shared.values(), *self.texts, METADATA])
        self.code = compile_ir(text, level=0)

    def run(self, name: str, registers: Registers, wave: int) -> None:
        """Run a function on one wave's registers."""
        assert self.code is not None
        size = layout.state_bytes(VGPRS, self.lanes)
        state = np.zeros(size, np.uint8)
        state[layout.STATE_VGPR :].view(np.uint32)[:] = registers.vgpr[:, wave].reshape(-1)
        state[layout.STATE_SGPR : layout.STATE_VGPR].view(np.uint32)[:] = registers.sgpr[wave]
        state[layout.STATE_SCC :][:4].view(np.uint32)[0] = registers.scc[wave, 0]
        context = Context(shared_base=SHARED_BASE, private_base=PRIVATE_BASE, lanes=self.lanes, vgprs=VGPRS)
        function = self.code.function(name, None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        function(ctypes.addressof(context), state.ctypes.data, 0)
        registers.vgpr[:, wave] = state[layout.STATE_VGPR :].view(np.uint32).reshape(VGPRS, self.lanes)
        registers.sgpr[wave] = state[layout.STATE_SGPR : layout.STATE_VGPR].view(np.uint32)
        registers.scc[wave, 0] = bool(state[layout.STATE_SCC])


def _place(bit: int, lanes: int) -> tuple[str, int]:
    """Type of a register in the state, and where it is."""
    if bit < SGPR_BIT:
        return f"<{lanes} x i32>", layout.STATE_VGPR + 4 * lanes * bit
    return "i32", layout.STATE_SCC if bit == SCC_BIT else layout.STATE_SGPR + 4 * (bit - SGPR_BIT)


def _load(bit: int, lanes: int) -> list[str]:
    (kind, place), slot = _place(bit, lanes), slot_name(bit)
    own = f"alloca {'i1' if bit == SCC_BIT else kind}"
    lines = [
        f"{slot} = {f'getelementptr {kind}, ptr %all, i64 {bit}' if bit < SGPR_BIT else own}",
        f"{slot}.at = getelementptr i8, ptr %state, i64 {place}",
        f"{slot}.in = load {kind}, ptr {slot}.at, align 4",
    ]
    if bit == SCC_BIT:
        return [*lines, f"{slot}.bit = trunc i32 {slot}.in to i1", f"store i1 {slot}.bit, ptr {slot}"]
    return [*lines, f"store {kind} {slot}.in, ptr {slot}"]


def _store(bit: int, lanes: int) -> list[str]:
    kind, slot = _place(bit, lanes)[0], slot_name(bit)
    if bit == SCC_BIT:
        load = [f"{slot}.last = load i1, ptr {slot}", f"{slot}.out = zext i1 {slot}.last to i32"]
    else:
        load = [f"{slot}.out = load {kind}, ptr {slot}"]
    return [*load, f"store {kind} {slot}.out, ptr {slot}.at, align 4"]


def interpret(
    instruction: Instruction, registers: Registers, lanes: int, mode: int, generation: Generation = GFX11
) -> bool:
    """Run the interpreter's operation on all waves; False when it refuses the instruction."""
    place = Place(0, instruction.size_bytes, lanes, VGPRS, mode, generation)
    try:
        op = CodeCache._prepare_value(instruction, place, NumpyAlgebra(FloatMode.from_bits(mode)))
    except ValueError:
        return False
    assert op is not None
    state = WaveState(WAVES, VGPRS, lanes)
    state.vgpr[...] = registers.vgpr
    state.sgpr[...] = registers.sgpr.reshape(WAVES, 64, 2).transpose(1, 0, 2)
    state.scc[...] = registers.scc
    dispatch = Dispatch(
        *(0, 0, 0, 0, (), 0, (0, 0, 0), (1, 1, 1), (1, 1, 1)), shared_base=SHARED_BASE, private_base=PRIVATE_BASE
    )
    launch = Launch(dispatch, lanes, VGPRS, mode, 0, 0, (False,) * 3, False, 1, 0, 1)
    memory = MemoryPath(SimpleNamespace(arena=np.zeros(4096, np.uint8)))  # type: ignore[arg-type]
    machine = Machine(launch, state, memory, Lds(1, 0), lambda: 0, lambda value: None)
    with quiet():
        op(Group(machine, 0, WAVES, 0, mode))
    registers.vgpr[...] = state.vgpr
    registers.sgpr[...] = state.sgpr.transpose(1, 0, 2).reshape(WAVES, 128)
    registers.sgpr[:, NULL] = 0  # where the interpreter lets half of a pair with M0 go
    registers.scc[...] = state.scc
    return True


def same_words(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether words are equal, or NaNs as a float, as two halves, or as the upper word of a double."""
    equal = got == wanted
    with np.errstate(all="ignore"):
        nan = np.isnan(got.view("f4")) & np.isnan(wanted.view("f4"))
        pairs = [np.ascontiguousarray(a).view("f2").reshape(*a.shape, 2) for a in (got, wanted)]
        halves = ((pairs[0].view("u2") == pairs[1].view("u2")) | (np.isnan(pairs[0]) & np.isnan(pairs[1]))).all(axis=-1)
    double = (got & 0x7FF80000 == 0x7FF80000) & (wanted & 0x7FF80000 == 0x7FF80000)
    return equal | nan | halves | double


def disagreements(
    lanes: int, mode: int, per_opcode: int, arch: str = "gfx1150", only: Container[str] = ANY
) -> list[str]:
    sweep = Sweep(lanes, mode, generation_for(arch))
    tried = instructions(lanes, per_opcode, arch, only)
    taken = [(sweep.add(f"f{n}.0", one, False), sweep.add(f"f{n}.1", one, True)) for n, one in enumerate(tried)]
    sweep.compile()
    problems = []
    for number, instruction in enumerate(tried):
        start = Registers.random(np.random.default_rng(number), lanes)
        wanted, got = (Registers(start.vgpr.copy(), start.sgpr.copy(), start.scc.copy()) for _ in range(2))
        legal = interpret(instruction, wanted, lanes, mode, sweep.generation)
        words = " ".join(f"{word:08x}" for word in instruction.words)
        if taken[number] != (legal, legal):
            problems.append(f"{instruction.mnemonic} {words}: legal {legal}, taken {taken[number]}")
        if not legal or not all(taken[number]):
            continue
        for wave in range(WAVES):
            execs = start.sgpr[wave, [EXEC_LO, EXEC_HI] if lanes == 64 else [EXEC_LO]]
            sweep.run(f"f{number}.{int((execs == 0xFFFFFFFF).all())}", got, wave)
        problems += [f"{instruction.mnemonic} {words}: {line}" for line in _differences(got, wanted)]
    return problems


def _differences(got: Registers, wanted: Registers) -> list[str]:
    lines = []
    bad = np.argwhere(~same_words(got.vgpr, wanted.vgpr))
    lines += [f"v{r}[{w}, {n}] {got.vgpr[r, w, n]:#x} is not {wanted.vgpr[r, w, n]:#x}" for r, w, n in bad[:1]]
    bad = np.argwhere(~same_words(got.sgpr, wanted.sgpr))
    lines += [f"s{r} of {w} {got.sgpr[w, r]:#x} is not {wanted.sgpr[w, r]:#x}" for w, r in bad[:1]]
    return lines + (["scc"] if (got.scc != wanted.scc).any() else [])


@pytest.mark.parametrize(("lanes", "mode", "per_opcode"), [(32, USUAL, 2), (64, USUAL, 1), (32, FLUSHING, 1)])
def test_every_opcode_does_what_the_interpreter_does(lanes: int, mode: int, per_opcode: int) -> None:
    problems = disagreements(lanes, mode, per_opcode)
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:40])


def of_gfx12() -> set[str]:
    """What gfx12 has under a name of its own, and what means something else there: matrices."""
    before, now = (
        {op.mnemonic for encoding in ENCODINGS for op in load_table(generation).ops[encoding].values()}
        for generation in ("gfx11", "gfx12")
    )
    return now - before | {mnemonic for mnemonic in now if mnemonic.startswith(("v_wmma", "v_swmmac"))}


@pytest.mark.parametrize(("lanes", "mode"), [(32, GFX12_MODE), (64, GFX12_MODE), (32, 0x105)])
def test_new_opcodes_of_gfx12_do_what_the_interpreter_does(lanes: int, mode: int) -> None:
    problems = disagreements(lanes, mode, 2, "gfx1201", of_gfx12())
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:40])


@pytest.mark.parametrize("lanes", [32, 64])
def test_products_of_gfx12_with_a_body_of_their_own_are_the_definitions(lanes: int) -> None:
    problems = disagreements(lanes, GFX12_MODE, 12, "gfx1201", matrix_gfx12.SPLITS)
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:40])
