"""A bench that runs single instructions twice, interpreted and compiled, on the same wave, LDS and memory.

    bench = Bench(lanes=32, translate=lds.translate, library=lds.functions, listing=LISTING)
    bench.check("ds_load_b32 v1, v2", wave)

A listing has a line for each instruction: its dwords as llvm-mc 22 (-mcpu=gfx1100, or ``arch``) encodes them, two
spaces, the assembly. Each instruction is compiled for any EXEC and for EXEC all ones.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from native_harness import Code, compile_ir
from numpy.typing import NDArray

from amdrv.emulator.isa.buffer_ops import prepare_buffer
from amdrv.emulator.isa.crosslane import prepare_crosslane
from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import Access, Dispatch, MemoryViolation
from amdrv.emulator.isa.generation import generation_for
from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.launch import Launch
from amdrv.emulator.isa.lds_ops import prepare_append, prepare_crossbar
from amdrv.emulator.isa.machine import Lds, Machine
from amdrv.emulator.isa.memory_ops import prepare_ds, prepare_flat
from amdrv.emulator.isa.memory_path import MemoryPath
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.builder import Builder
from amdrv.emulator.isa.native.frame import EXEC_HI, EXEC_LO, SCC_BIT, SGPR_BIT, Exits, Frame, Shape, slot_name
from amdrv.emulator.isa.native.layout import Context, Detail, FaultKind, TlbEntry
from amdrv.emulator.isa.native.library import METADATA, Function, Library
from amdrv.emulator.isa.numpy_algebra import quiet
from amdrv.emulator.isa.operands import Op, Place
from amdrv.emulator.isa.scalar_memory import prepare_smem
from amdrv.emulator.isa.spaces import LaneFault
from amdrv.emulator.isa.wave import Group, WaveState

PAGE = 4096
VGPRS = 24
LDS_BYTES = 1024
LDS_RESERVE = 64
BASE = 0x7F00_0000_0000  # virtual address of the memory's first page
MODE = 0xF0  # denormals are kept
SHARED_BASE, PRIVATE_BASE = 1 << 48, 2 << 48
SCRATCH_LANE_BYTES = 64
FULL = (1 << 64) - 1
_FAULTS = {
    FaultKind.MEMORY: "memory violation",
    FaultKind.MISALIGNED: "misaligned access",
    FaultKind.ILLEGAL: "illegal instruction",
}
_MISS = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32)


class Memory:
    """Six pages, shuffled in the arena: the third is read-only, the fifth is missing."""

    PAGES = (3, 0, 4, 1, None, 2)
    READ_ONLY = 2

    def __init__(self) -> None:
        self.arena = np.zeros(6 * PAGE, np.uint8)

    def place(self, va: int, access: Access) -> int:
        page = (va - BASE) // PAGE
        frame = self.PAGES[page] if 0 <= page < len(self.PAGES) else None
        if frame is None or (access is Access.WRITE and page == self.READ_ONLY):
            raise MemoryViolation(va, access)
        return frame * PAGE + va % PAGE

    def translate(self, va: NDArray[np.uint64], access: Access) -> NDArray[np.int64]:
        return np.array([self.place(int(address), access) for address in va.reshape(-1)], np.int64).reshape(va.shape)

    def extent(self, va: int, access: Access) -> tuple[int, int, int]:
        first = va & -PAGE
        return first, first + PAGE, (self.place(first, access) - first) & FULL


@dataclass
class Wave:
    """What an instruction finds: registers, LDS and memory."""

    vgpr: NDArray[np.uint32]  # [VGPRS, lanes]
    sgpr: NDArray[np.uint32]  # by operand code
    lds: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(LDS_BYTES, np.uint8))
    arena: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(6 * PAGE, np.uint8))
    scratch: int = BASE + PAGE  # where the wave's private memory is

    @classmethod
    def random(cls, rng: np.random.Generator, lanes: int) -> Wave:
        """Random registers and memory; EXEC is all ones."""
        wave = cls(
            vgpr=rng.integers(0, 1 << 32, (VGPRS, lanes), np.uint32),
            sgpr=rng.integers(0, 1 << 32, 128, np.uint32),
            lds=rng.integers(0, 256, LDS_BYTES, np.uint8),
            arena=rng.integers(0, 256, 6 * PAGE, np.uint8),
        )
        wave.set_exec(FULL)
        return wave

    def set_exec(self, mask: int) -> Wave:
        self.sgpr[EXEC_LO], self.sgpr[EXEC_HI] = mask & 0xFFFF_FFFF, mask >> 32
        return self

    def copy(self) -> Wave:
        return Wave(self.vgpr.copy(), self.sgpr.copy(), self.lds.copy(), self.arena.copy(), self.scratch)

    @property
    def is_full(self) -> bool:
        words = self.sgpr[[EXEC_LO, EXEC_HI]] if self.vgpr.shape[1] == 64 else self.sgpr[[EXEC_LO]]
        return bool((words == 0xFFFF_FFFF).all())


@dataclass(frozen=True)
class Fault:
    """What a fault says, in the words of both engines."""

    kind: str
    lane: int
    va: int | None
    access: int | None
    detail: Detail


def masks(rng: np.random.Generator, lanes: int) -> list[int]:
    """EXEC masks worth trying, the most important first: all lanes, none, any, one, halves, all but three, any."""
    whole = (1 << lanes) - 1
    random = [int(rng.integers(0, 1 << 64, dtype=np.uint64)) & whole for _ in range(2)]
    return [whole, 0, random[0], 1 << int(rng.integers(lanes)), 0xFFFF, whole & ~0xFFFF, whole >> 3, random[1]]


def _prepare(instruction: Instruction, place: Place) -> Op:
    families: dict[str, tuple[Callable[[Instruction, Place], Op | None], ...]] = {
        "DS": (prepare_ds, prepare_crossbar, prepare_append),
        "MUBUF": (prepare_buffer,),
        "MTBUF": (prepare_buffer,),
        "FLAT": (prepare_flat,),
        "GLOBAL": (prepare_flat,),
        "SCRATCH": (prepare_flat,),
        "SMEM": (prepare_smem,),
    }
    for prepare in families.get(instruction.encoding, (prepare_crosslane,)):
        op = prepare(instruction, place)
        if op is not None:
            return op
    raise AssertionError(f"the interpreter does not know {instruction.mnemonic}")


class Bench:
    """The instructions of a listing for one wave size."""

    def __init__(
        self,
        lanes: int,
        translate: Callable[[Frame, Instruction], bool],
        library: Iterable[Function],
        listing: str,
        *,
        level: int = 1,
        arch: str = "gfx1100",
    ) -> None:
        self.lanes = lanes
        self._generation = generation_for(arch)
        self._numbers: dict[str, int] = {}
        self._instructions: dict[str, Instruction] = {}
        self._library = {function.name: function for function in library}
        texts: list[str] = []
        uses: set[str] = set()
        shared: dict[str, str] = {}
        decoder = Decoder(arch)
        for number, line in enumerate(line.strip() for line in listing.splitlines() if line.strip()):
            words, _, assembly = line.partition("  ")
            instruction = decoder.decode([int(word, 16) for word in words.split()])
            self._numbers[assembly.strip()], self._instructions[assembly.strip()] = number, instruction
            for full in (False, True):
                builder, text = self._function(f"f{number}.{int(full)}", instruction, translate, full)
                texts.append(text)
                uses |= builder.uses
                shared |= builder.functions
        for text in shared.values():
            uses |= Function(text[text.index("define ") :].replace("define internal ", "define ", 1)).calls
        prelude = self._prelude(uses)
        self.text = "\n".join([*prelude, *shared.values(), *texts, METADATA])
        names = [f"f{number}.{full}" for number in self._numbers.values() for full in (0, 1)]
        self._code: Code = compile_ir(self.text, *names, level=level)
        self._miss = _MISS(self._fill)
        self.warm = False  # whether the TLB knows every page beforehand, so that inline paths hit
        self._memory = Memory()

    @property
    def names(self) -> list[str]:
        """The listing's assembly lines."""
        return list(self._numbers)

    def _prelude(self, uses: set[str]) -> list[str]:
        wanted, seen = list(uses), {}
        while wanted:
            function = self._library.get(wanted.pop())
            if function is not None and function.name not in seen:
                seen[function.name] = function.definition("internal ", "alwaysinline " if function.inline else "")
                wanted += function.calls
        return list(seen.values())

    def _function(
        self, name: str, instruction: Instruction, translate: Callable[[Frame, Instruction], bool], full: bool
    ) -> tuple[Builder, str]:
        builder = Builder(self.lanes)
        exits = Exits()
        frame = Frame(builder, Shape(self.lanes, VGPRS, self._generation), exits, full=full)
        frame.mode = MODE
        builder.label("%entry")
        if not translate(frame, instruction):
            raise AssertionError(f"{instruction.mnemonic} is not translated")
        frame.flush()
        # Vector registers are neighbours, as instructions with many of them want it.
        head, tail = [f"%file = alloca [{VGPRS} x <{self.lanes} x i32>]"], []
        for bit in range(SCC_BIT + 1):
            if frame.touched >> bit & 1:
                kind = f"<{self.lanes} x i32>" if bit < SGPR_BIT else "i32"
                place = 4 * self.lanes * bit + layout.STATE_VGPR
                place = layout.STATE_SGPR + 4 * (bit - SGPR_BIT) if bit >= SGPR_BIT else place
                slot = slot_name(bit)
                memory = f"getelementptr {kind}, ptr %file, i64 {bit}" if bit < SGPR_BIT else f"alloca {kind}"
                head += [
                    f"{slot} = {memory}",
                    f"{slot}.at = getelementptr i8, ptr %state, i64 {place}",
                    f"{slot}.in = load {kind}, ptr {slot}.at",
                    f"store {kind} {slot}.in, ptr {slot}",
                ]
                if frame.writes >> bit & 1:
                    tail += [f"{slot}.out = load {kind}, ptr {slot}", f"store {kind} {slot}.out, ptr {slot}.at"]
        lines = [builder.lines[0], *head, *builder.lines[1:], *tail, "ret i32 0", "fault:", "ret i32 4", "}"]
        signature = f"define i32 @{name}(ptr noalias %ctx, ptr noalias %state, i64 %base) nounwind {{"
        return builder, "\n".join([signature, *lines])

    # Running.

    def _fill(self, context: int, va: int, access: int) -> int:
        """Context.miss: one page at a time."""
        structure = Context.from_address(context)
        try:
            first, end, delta = self._memory.extent(va, Access(access))
        except MemoryViolation:
            for name, value in (("kind", FaultKind.MEMORY), ("va", va), ("access", access), ("detail", 0)):
                setattr(structure, f"fault_{name}", int(value))
            return 0
        table = structure.tlb_write if access == Access.WRITE else structure.tlb_read
        size = ctypes.sizeof(TlbEntry)
        slot = TlbEntry.from_address(table + size * layout.tlb_slot(va >> layout.TLB_PAGE_SHIFT))
        slot.tag, slot.first, slot.end, slot.delta = va >> layout.TLB_PAGE_SHIFT, first, end, delta
        return 1

    def _context(self, arena: NDArray[np.uint8], lds: NDArray[np.uint8], alive: list[object]) -> Context:
        tables = [np.zeros((layout.TLB_ENTRIES + layout.SITES, 4), np.uint64) for _ in range(2)]
        for table in tables:
            table[: layout.TLB_ENTRIES, 0] = layout.TLB_EMPTY
        alive += tables
        return Context(
            arena=arena.ctypes.data,
            lds=lds.ctypes.data,
            lds_bytes=LDS_BYTES,
            lds_limit=LDS_BYTES + LDS_RESERVE,
            tlb_read=tables[0].ctypes.data,
            tlb_write=tables[1].ctypes.data,
            miss=ctypes.cast(self._miss, ctypes.c_void_p).value or 0,
            shared_base=SHARED_BASE,
            private_base=PRIVATE_BASE,
            scratch_lane_bytes=SCRATCH_LANE_BYTES,
            lanes=self.lanes,
            vgprs=VGPRS,
        )

    def _state(self, wave: Wave) -> NDArray[np.uint8]:
        size = layout.state_bytes(VGPRS, self.lanes)
        state = np.zeros(size + 64, np.uint8)
        state = state[-state.ctypes.data % 64 :][:size]
        state[layout.STATE_VGPR :].view(np.uint32)[:] = wave.vgpr.reshape(-1)
        state[layout.STATE_SGPR : layout.STATE_VGPR].view(np.uint32)[:] = wave.sgpr
        state[layout.STATE_SCRATCH :][:8].view(np.uint64)[0] = wave.scratch
        return state

    def runner(self, name: str, wave: Wave) -> Callable[[], int]:
        """Runs the compiled instruction on the wave's registers and its very memory, again and again."""
        version = f"f{self._numbers[name]}.{int(wave.is_full)}"
        run = self._code.function(version, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        state, lds, alive = self._state(wave), np.zeros(LDS_BYTES + LDS_RESERVE, np.uint8), []
        context = self._context(wave.arena, lds, alive)
        alive += [lds, state, context]
        return lambda: int(run(ctypes.addressof(alive[-1]), alive[-2].ctypes.data, 0))

    def compiled(self, name: str, wave: Wave) -> tuple[Wave, Fault | None]:
        """What the compiled instruction makes of a wave; the version for full EXEC runs where it may."""
        wave = wave.copy()
        state = self._state(wave)
        lds = np.full(LDS_BYTES + LDS_RESERVE, 0xAA, np.uint8)
        lds[:LDS_BYTES] = wave.lds
        alive: list[object] = []
        context = self._context(wave.arena, lds, alive)
        version = f"f{self._numbers[name]}.{int(wave.is_full)}"
        run = self._code.function(version, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        outcome = run(ctypes.addressof(context), state.ctypes.data, 0)
        wave.vgpr = state[layout.STATE_VGPR :].view(np.uint32).reshape(VGPRS, self.lanes).copy()
        wave.sgpr = state[layout.STATE_SGPR : layout.STATE_VGPR].view(np.uint32).copy()
        wave.lds = lds[:LDS_BYTES].copy()
        if not outcome:
            return wave, None
        detail, va = Detail(context.fault_detail), context.fault_va
        kind = FaultKind(context.fault_kind)
        access = None if kind is FaultKind.ILLEGAL else context.fault_access
        return wave, Fault(_FAULTS[kind], context.fault_lane, va, access, detail)

    def interpreted(self, name: str, wave: Wave) -> tuple[Wave, Fault | None]:
        """What the interpreter makes of a wave."""
        wave = wave.copy()
        state = WaveState(1, VGPRS, self.lanes)
        state.vgpr[:, 0] = wave.vgpr
        state.sgpr[:, 0] = wave.sgpr.reshape(64, 2)
        state.scratch_base[:, 0] = wave.scratch
        lds = Lds(1, LDS_BYTES)
        lds.words[1][:LDS_BYTES] = wave.lds
        memory = Memory()
        memory.arena = wave.arena
        dispatch = Dispatch(
            0, 0, 0, 0, (), 0, (0, 0, 0), (1, 1, 1), (1, 1, 1), shared_base=SHARED_BASE, private_base=PRIVATE_BASE
        )
        launch = Launch(
            dispatch, self.lanes, VGPRS, 0xF0, LDS_BYTES, 0, (False,) * 3, False, 1, SCRATCH_LANE_BYTES * self.lanes, 1
        )
        machine = Machine(launch, state, MemoryPath(memory), lds, lambda: 0, lambda value: None)
        op = _prepare(self._instructions[name], Place(0, 8, self.lanes, VGPRS, MODE, self._generation))
        fault = None
        with quiet():
            try:
                op(Group(machine, 0, 1, 0, 0xF0))
            except LaneFault as error:
                fault = _fault_of(error)
        wave.vgpr, wave.sgpr = state.vgpr[:, 0].copy(), state.sgpr[:, 0].reshape(128).copy()
        wave.lds = lds.words[1][:LDS_BYTES].copy()
        return wave, fault

    def check(self, name: str, wave: Wave, where: object = "", *, any_fault: bool = False) -> Fault | None:
        """Both must agree; returns the fault. With ``any_fault`` several lanes may fault, and which is told is open:
        the interpreter looks at more than 48 addresses page by page."""
        expected, wanted = self.interpreted(name, wave)
        found, fault = self.compiled(name, wave)
        if not (any_fault and fault and wanted):
            assert fault == wanted, (name, where, fault, wanted)
        for part in ("vgpr", "sgpr", "lds", "arena"):
            left, right = getattr(found, part), getattr(expected, part)
            if wanted is None or part in ("vgpr", "sgpr"):
                np.testing.assert_array_equal(left, right, err_msg=f"{part} of {name} {where}")
        return fault


def _fault_of(error: LaneFault) -> Fault:
    details: dict[str, Any] = {
        "of which there are": Detail.PRIVATE_BOUNDS,
        "64-bit atomic": Detail.PRIVATE_WIDE_ATOMIC,
        "atomic of": Detail.MISALIGNED_ATOMIC,
        "inactive lanes": Detail.INACTIVE_LANES,
    }
    text = str(error)
    detail = next((value for part, value in details.items() if part in text), Detail.TRANSLATION)
    access = None if error.access is None else int(error.access)
    return Fault(error.kind, error.lane, error.va or 0, access, detail)


def library_of(*modules: Any, lanes: int) -> list[Function]:
    """The functions of some modules, as ``Library`` takes them."""
    functions = [function for module in modules for function in module.functions(lanes)]
    Library(functions)
    return functions
