"""The registers of a wave while a block of its code is written.

Each register is a stack slot of the compiled function (which LLVM turns into SSA values). Within a block the last value
of a register is remembered: a register is loaded at most once and stored only where the block ends. What was loaded
before it was written, and what was written, is the block's part in the liveness analysis.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from amdrv.emulator.isa.generation import GFX11, Generation
from amdrv.emulator.isa.instruction import SpecialReg
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.native.layout import Detail, FaultKind

VCC, NULL, M0, EXEC_LO, EXEC_HI = (
    int(code) for code in (SpecialReg.VCC_LO, SpecialReg.NULL, SpecialReg.M0, SpecialReg.EXEC_LO, SpecialReg.EXEC_HI)
)
# Bits of the liveness sets: VGPRs, then scalar operand codes, then SCC.
SGPR_BIT, SCC_BIT = 256, 256 + layout.SGPRS
ALIGNED = ", align 64"  # of every VGPR in memory
UNLIKELY = "!prof !0"  # the module defines !0: the first way is hardly ever taken


@dataclass(slots=True)
class Shape:
    """What a unit of code is compiled for, beside its bytes."""

    lanes: int
    vgprs: int  # allocated to a wave
    generation: Generation = GFX11


@dataclass(slots=True)
class Exits:
    """Ways out of the function that every block shares."""

    faults: list[tuple[str, int]] = field(default_factory=list)  # (block, pc offset) from which %fault is entered
    sites: int = 0  # instructions that remember where their data were
    runs: set[tuple[int, int]] = field(default_factory=set)  # (first VGPR, count) that have to lie together in memory


class Frame:
    """One block being written: ``full`` says that EXEC is known to be all ones.

    ``pc`` and ``next_pc`` are offsets from the unit's base of the instruction being written and of the one behind it;
    ``%base`` is the base's virtual address, ``%ctx`` and ``%state`` point to the Context and the wave's state. Nothing
    here may be called between the branches of an instruction's own control flow: fetch before, write behind.
    """

    def __init__(self, builder: Builder, shape: Shape, exits: Exits, *, full: bool) -> None:
        self.builder = builder
        self.lanes, self.vgprs, self.generation = shape.lanes, shape.vgprs, shape.generation
        self.full = full
        self.exits = exits
        self.pc = self.next_pc = 0
        self.mode = 0
        self.reads = 0
        self.writes = 0
        self.touched = 0
        self._values: dict[int, Val] = {}
        self._dirty: dict[int, Val] = {}
        self._derived: dict[str, Val] = {}

    # Slots.

    def _load(self, bit: int, slot: str, kind: str, vector: bool) -> Val:
        value = self._values.get(bit)
        if value is None:
            self.touched |= 1 << bit
            if not self.writes >> bit & 1:
                self.reads |= 1 << bit
            text = self.builder.emit(f"load {self.builder.type(kind, vector)}, ptr {slot}{ALIGNED if vector else ''}")
            value = self._values[bit] = self.builder.value(kind, text, vector)
        return value

    def _store(self, bit: int, value: Val) -> None:
        self.touched |= 1 << bit
        self.writes |= 1 << bit
        self._values[bit] = self._dirty[bit] = value

    def flush(self) -> None:
        """Store what the block has written: every block ends with this."""
        for bit, value in self._dirty.items():
            self._store_slot(bit, value)
        self._dirty.clear()

    def _store_slot(self, bit: int, value: Val) -> None:
        self.builder.do(f"store {value.typed}, ptr {slot_name(bit)}{ALIGNED if value.vector else ''}")

    # Vector registers.

    def vgpr(self, index: int) -> Val:
        """A VGPR as u32 of every lane, EXEC or not; one that is not allocated reads as VGPR 0."""
        index = index if index < self.vgprs else 0
        return self._load(index, slot_name(index), "u32", True)

    def vgpr64(self, index: int) -> Val:
        """Two consecutive VGPRs as u64."""
        return self.join(self.vgpr(index), self.vgpr(index + 1))

    def set_vgpr(self, index: int, value: Val, mask: Val | None = None) -> None:
        """Write 32 bits (of any kind) in the lanes of EXEC, or in those of ``mask`` (bool vector) alone when given.

        A register that is not allocated drops the write.
        """
        if index >= self.vgprs:
            return
        value = self.builder.spread(self.bits(value))
        mask = self.exec_lanes() if mask is None else mask
        if not (mask.bits and mask.vector):
            value = self.select(mask, value, self.vgpr(index))
        self._store(index, value)

    def set_vgpr_all(self, index: int, value: Val) -> None:
        """Write 32 bits in every lane, EXEC or not."""
        if index < self.vgprs:
            self._store(index, self.builder.spread(self.bits(value)))

    def set_vgpr64(self, index: int, value: Val, mask: Val | None = None) -> None:
        """Write two consecutive VGPRs from a 64-bit value."""
        low, high = self.split(value)
        self.set_vgpr(index, low, mask)
        self.set_vgpr(index + 1, high, mask)

    def vgprs_in_memory(self, first: int, count: int, *, reads: bool = True) -> str:
        """A pointer to consecutive allocated VGPRs, with what they hold now unless ``reads`` is false.

        For instructions with so many registers that passing them by value costs more than it gives.
        """
        for index in range(first, first + count):
            self.touched |= 1 << index
            if reads and not self.writes >> index & 1:
                self.reads |= 1 << index
            value = self._dirty.pop(index, None)
            if value is not None:
                self._store_slot(index, value)
        self.exits.runs.add((first, count))
        return slot_name(first)

    def wrote_memory(self, first: int, count: int) -> None:
        """Consecutive VGPRs have been written where ``vgprs_in_memory`` said that they are."""
        for index in range(first, first + count):
            self.touched |= 1 << index
            self.writes |= 1 << index
            self._values.pop(index, None)

    # Scalar registers, by operand code.

    def sgpr(self, code: int) -> Val:
        """A scalar register as u32: SGPRs, VCC, trap temporaries, NULL (0), M0, EXEC."""
        if code == NULL:
            return self.builder.constant("u32", 0)
        if self.full and (code == EXEC_LO or (code == EXEC_HI and self.lanes == 64)):
            return self.builder.constant("u32", 0xFFFF_FFFF)
        bit = SGPR_BIT + code
        return self._load(bit, slot_name(bit), "u32", False)

    def sgpr64(self, code: int) -> Val:
        """A pair of scalar registers as u64; an odd code means the pair that it lies in."""
        if code == NULL:
            return self.builder.constant("u64", 0)
        code &= ~1
        return self.join(self.sgpr(code), self.sgpr(code + 1))

    def set_sgpr(self, code: int, value: Val) -> None:
        """Write 32 bits (of any kind) to a scalar register; a write to NULL is dropped."""
        if code == NULL:
            return
        if code in (EXEC_LO, EXEC_HI):
            if self.full:
                self._leave_full()
            self._derived.pop("exec", None)
            self._derived.pop("exec lanes", None)
        self._store(SGPR_BIT + code, self.bits(value))

    def _leave_full(self) -> None:
        """EXEC is written: from here on it is what its registers say."""
        self.full = False
        ones = self.builder.constant("u32", 0xFFFF_FFFF)
        for code in (EXEC_LO, EXEC_HI) if self.lanes == 64 else (EXEC_LO,):
            self._store(SGPR_BIT + code, ones)

    def set_sgpr64(self, code: int, value: Val) -> None:
        """Write a pair of scalar registers."""
        if code == NULL:
            return
        code &= ~1
        low, high = self.split(value)
        self.set_sgpr(code, low)
        self.set_sgpr(code + 1, high)

    def scc(self) -> Val:
        """SCC as a scalar truth value."""
        return self._load(SCC_BIT, slot_name(SCC_BIT), "bool", False)

    def set_scc(self, value: Val) -> None:
        """Write SCC from a scalar truth value."""
        self._store(SCC_BIT, value)

    # Lane masks.

    def mask_kind(self) -> str:
        """Kind of a lane mask as an integer: u32 or u64."""
        return "u32" if self.lanes == 32 else "u64"

    def mask(self, code: int) -> Val:
        """A lane mask held in scalar registers, as u32 or u64."""
        return self.sgpr(code) if self.lanes == 32 else self.sgpr64(code)

    def set_mask(self, code: int, value: Val) -> None:
        """Write a lane mask (u32 or u64) to scalar registers."""
        if self.lanes == 32:
            self.set_sgpr(code, value)
        else:
            self.set_sgpr64(code, value)

    def exec_bits(self) -> Val:
        """EXEC as u32 or u64: a constant where it is known."""
        found = self._derived.get("exec")
        if found is None:
            found = self._derived["exec"] = self.mask(EXEC_LO)
        return found

    def exec_lanes(self) -> Val:
        """EXEC as a truth value for each lane."""
        found = self._derived.get("exec lanes")
        if found is None:
            found = self._derived["exec lanes"] = self.lanes_of(self.exec_bits())
        return found

    def lanes_of(self, mask: Val) -> Val:
        """A lane mask (u32 or u64) as truth values."""
        builder = self.builder
        if mask.bits == (1 << self.lanes) - 1:
            return builder.spread(builder.constant("bool", 1))
        return builder.value("bool", builder.emit(f"bitcast {mask.typed} to <{self.lanes} x i1>"), True)

    def mask_of(self, lanes: Val) -> Val:
        """Truth values of all lanes as a mask (u32 or u64)."""
        builder, kind = self.builder, self.mask_kind()
        lanes = builder.spread(lanes)
        if lanes.bits is not None:
            return builder.constant(kind, -lanes.bits)
        return builder.value(kind, builder.emit(f"bitcast {lanes.typed} to i{self.lanes}"), False)

    # Shapes.

    def bits(self, value: Val) -> Val:
        """A 32-bit value of any kind as u32."""
        builder = self.builder
        if value.kind == "u32":
            return value
        if value.bits is not None:
            constant = builder.constant("u32", value.bits)
            return builder.spread(constant) if value.vector else constant
        if value.kind == "i32":
            return builder.value("u32", value.text, value.vector)
        text = builder.emit(f"bitcast {value.typed} to {builder.type('u32', value.vector)}")
        return builder.value("u32", text, value.vector)

    def join(self, low: Val, high: Val) -> Val:
        """Two u32 as one u64."""
        return self.builder.join(low, high)

    def split(self, value: Val) -> tuple[Val, Val]:
        """A 64-bit value of any kind as its low and high u32."""
        builder = self.builder
        if value.halves is not None:
            return value.halves
        if value.kind == "f64" and value.bits is None:
            text = builder.emit(f"bitcast {value.typed} to {builder.type('u64', value.vector)}")
            value = builder.value("u64", text, value.vector)
        elif value.kind != "u64":
            value = Val(builder, "u64", value.text if value.bits is None else str(value.bits), value.vector, value.bits)
        return self._low(value), self._low(value >> 32)

    def _low(self, value: Val) -> Val:
        builder = self.builder
        if value.bits is not None:
            constant = builder.constant("u32", value.bits)
            return builder.spread(constant) if value.vector else constant
        text = builder.emit(f"trunc {value.typed} to {builder.type('u32', value.vector)}")
        return builder.value("u32", text, value.vector)

    def select(self, condition: Val, x: Val, y: Val) -> Val:
        """``condition ? x : y`` of two values of one kind."""
        builder = self.builder
        if condition.bits is not None:
            return x if condition.bits else y
        if condition.vector or x.vector or y.vector:
            x, y = builder.spread(x), builder.spread(y)
        text = builder.emit(f"select {condition.typed}, {x.typed}, {y.typed}")
        return builder.value(x.kind, text, x.vector)

    # The context.

    def context(self, name: str, kind: str) -> Val:
        """A field of the Context that does not change while a wave runs."""
        found = self._derived.get(name)
        if found is None:
            pointer = self.builder.emit(f"getelementptr i8, ptr %ctx, i64 {layout.offset(name)}")
            text = self.builder.emit(f"load {self.builder.type(kind, False)}, ptr {pointer}")
            found = self._derived[name] = self.builder.value(kind, text, False)
        return found

    def state(self, place: int, kind: str) -> Val:
        """A field of the wave's state that is not a register."""
        builder = self.builder
        pointer = builder.emit(f"getelementptr i8, ptr %state, i64 {place}")
        return builder.value(kind, builder.emit(f"load {builder.type(kind, False)}, ptr {pointer}"), False)

    def site(self) -> str:
        """A new site, as the argument that memory functions take (see ``tlb``)."""
        self.exits.sites += 1
        return f"i64 {layout.site_offset(self.exits.sites)}"

    def address(self, offset: int) -> Val:
        """The virtual address at an offset from the unit's base, as u64."""
        return self.builder.value("u64", "%base", False) + offset

    # Faults.

    def fault_if(self, condition: str) -> None:
        """Leave with Outcome.FAULT at this instruction where ``condition`` (an i1) holds; the Context describes it."""
        builder = self.builder
        self.exits.faults.append((builder.block, self.pc))
        go_on = builder.name("go")
        builder.do(f"br i1 {condition}, label %fault, label {go_on}, {UNLIKELY}")
        builder.label(go_on)

    def fault(self, kind: FaultKind, detail: Detail, argument: int = 0) -> None:
        """Leave with a fault of lane 0; what is written behind it is never reached."""
        self.describe_fault(kind, detail, argument)
        self.exits.faults.append((self.builder.block, self.pc))
        self.builder.do("br label %fault")
        self.builder.label(self.builder.name("unreached"))

    def describe_fault(self, kind: FaultKind, detail: Detail, argument: int = 0) -> None:
        """Write to the Context what a fault of lane 0 is, if one follows."""
        builder = self.builder
        fields = (("kind", "i32", kind), ("lane", "i32", 0), ("detail", "i32", detail), ("argument", "i64", argument))
        for name, kind_text, value in fields:
            pointer = builder.emit(f"getelementptr i8, ptr %ctx, i64 {layout.offset(f'fault_{name}')}")
            builder.do(f"store {kind_text} {int(value)}, ptr {pointer}")


def slot_name(bit: int) -> str:
    """The stack slot of a register, by its liveness bit."""
    if bit < SGPR_BIT:
        return f"%v{bit}"
    return "%scc" if bit == SCC_BIT else f"%s{bit - SGPR_BIT}"
