"""A unit: the code reachable from some entries as one LLVM function that runs a wave.

    i32 @unit(ptr %ctx, ptr %state, i64 %base, i32 %waves)        returns a layout.Outcome

The function enters by the wave's PC and MODE: at the start, or at a place where waves come back (behind a barrier, at a
loop that yields, at the target of a computed jump). Each block is written for a MODE, and in the second tier twice:
for EXEC known to be all ones, and for any EXEC; a node of the graph that does not know decides by a test. Where the
function is left, the registers that are alive there go to the wave's state.

Where no wave can come back, a call runs several waves, one behind the other, whose states lie side by side.
The first state's count is then that of all, and Context.stopped_state the wave at which the call was left early.
Elsewhere ``waves`` is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.control import FREE
from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.native import (
    alu,
    atomics,
    buffers,
    control,
    global_memory,
    lane_exchange,
    layout,
    lds,
    scalar_memory,
    wide,
)
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Builder
from amdrv.emulator.isa.native.control import OFFSET_MASK, Ending, Way
from amdrv.emulator.isa.native.flow import CodeReader, Graph, explore
from amdrv.emulator.isa.native.frame import (
    ALIGNED,
    EXEC_HI,
    EXEC_LO,
    SCC_BIT,
    SGPR_BIT,
    UNLIKELY,
    Exits,
    Frame,
    Shape,
    slot_name,
)
from amdrv.emulator.isa.native.layout import Detail, FaultKind, Outcome
from amdrv.emulator.isa.native.library import METADATA, Library
from amdrv.emulator.isa.native.operands import in_range
from amdrv.emulator.isa.refusals import refusal

# (place, MODE, whether EXEC is all ones: None where that is to be tested)
Node: TypeAlias = "tuple[int, int, bool | None]"
Place: TypeAlias = "tuple[int, int]"  # (offset from the base, MODE)

ANY_MODE = -1  # the mode is in the wave's state already
PATIENCE = 4096  # turns of a loop that may wait for another wave, before it yields
KEY_BITS = 48  # of an offset in the entry switch; MODE is above
EVERYTHING = (1 << SCC_BIT + 1) - 1


@dataclass(frozen=True, slots=True)
class Unit:
    """Translated code."""

    ir: str  # a module with the function @unit
    base_pc: int
    ranges: list[tuple[int, bytes]]  # the code it was made from: (va, bytes)
    sites: list[tuple[int, str]]  # (offset from the base, mnemonic), in order
    entries: frozenset[tuple[int, int]]  # (offset from the base, MODE) at which waves can be resumed
    leaves: bool  # whether waves can go on at places that are not in it
    ends_at_once: bool  # whether it is left only by a wave's end or fault, and writes nothing but counts to its state
    holes: tuple[int, ...]  # offsets where no code could be fetched
    instructions: int


@dataclass(slots=True)
class _Block:
    """The text of a node, and its part in the liveness analysis."""

    lines: list[str]
    reads: int = 0
    writes: int = 0
    out: int = 0  # alive behind it whatever comes: the function is left and the place of return is not known
    next: set[Node] = field(default_factory=set)


def translate(
    code: CodeReader,
    base_pc: int,
    entries: set[tuple[int, int]],
    shape: Shape,
    library: Library,
    tier: int,
) -> Unit:
    """Translate what is reachable from ``entries``, (virtual address, MODE) pairs; waves start at ``base_pc``.

    Code that cannot be fetched or executed becomes a fault at its place.
    """
    places = {(pc - base_pc & OFFSET_MASK, mode) for pc, mode in entries}
    # The base last, because what comes last is explored first: it is part of a unit even if that gets full.
    graph = explore(code, base_pc, [place for place, _ in sorted(places, reverse=True)])
    writer = _Writer(graph, shape, two_versions=tier >= 2)
    body = writer.write(places)
    prelude = library.prelude(writer.builder.uses, inline=tier >= 2)
    sites = [(place, found.mnemonic if found else "") for place, found in sorted(graph.instructions.items())]
    holes = tuple(place for place, name in sites if not name and base_pc + place & OFFSET_MASK not in code.seen)
    return Unit(
        ir="\n".join([prelude, *writer.builder.functions.values(), body, METADATA]),
        base_pc=base_pc,
        ranges=code.ranges(),
        sites=sites,
        entries=frozenset(entry for entry in writer.resumed if entry[0] not in graph.beyond),
        leaves=bool(writer.outcomes & {Outcome.JUMP, Outcome.REFETCH}),
        ends_at_once=writer.ends_at_once,
        holes=holes,
        instructions=len(sites),
    )


def signed(place: int) -> int:
    """An offset from a base, modulo 2**64, as a signed number."""
    place &= OFFSET_MASK
    return place - (1 << 64) if place >> 63 else place


def _mode_key(mode: int) -> int:
    """MODE's bits that code can set, or that differ between dispatches, close together: 9:0, and 24:23 above them."""
    return mode & 0x3FF | mode >> 13 & 3 << 10


class _Writer:
    """Writes the function of one unit."""

    def __init__(self, graph: Graph, shape: Shape, *, two_versions: bool) -> None:
        self.builder = Builder(shape.lanes)
        self.resumed: set[Place] = set()
        self._graph, self._shape, self._two_versions = graph, shape, two_versions
        self._algebras: dict[int, LlvmAlgebra] = {}
        self._blocks: dict[Node, _Block] = {}
        self._waiting: list[Node] = []
        self._exits: dict[tuple[int, int, Outcome], str] = {}
        self._jumps: dict[int, list[tuple[str, str]]] = {}  # by MODE: (target, block it comes from)
        self._checks: list[str] = []  # blocks in front of the heads of loops
        self._shared = Exits()
        self._touched = 0
        self._live: dict[Node, int] = {}
        self._kept = 0

    def write(self, entries: set[Place]) -> str:
        """The function's text."""
        for place, mode in sorted(entries):
            self._resume(place, mode)
        while self._waiting or self._add_landings():
            node = self._waiting.pop()
            if node not in self._blocks:
                self._blocks[node] = self._write_node(node)
        self._solve()
        blocks = [line for block in self._blocks.values() for line in block.lines]
        tail = self._write_tail()
        return "\n".join([*self._write_head(sorted(entries)), *blocks, *tail, "}"])

    @property
    def outcomes(self) -> set[Outcome]:
        """Ways in which the function may be left, but for faults."""
        return {outcome for _, _, outcome in self._exits} | ({Outcome.JUMP} if self._jumps else set())

    @property
    def ends_at_once(self) -> bool:
        """Whether waves never come back, and leave their states as they were but for the count."""
        return self.outcomes <= {Outcome.END} and not self._in_state & self._touched

    # Nodes.

    def _node(self, place: int, mode: int, full: bool | None) -> str:
        """The label of a node, which will be written."""
        node = (place, mode, full if self._two_versions else False)
        if node not in self._blocks:
            self._waiting.append(node)
        return _label(node)

    def _resume(self, place: int, mode: int) -> None:
        """Waves may enter here."""
        if (place, mode) not in self.resumed:
            self.resumed.add((place, mode))
            self._node(place, mode, None)

    def _add_landings(self) -> bool:
        """Computed jumps may go to any landing, in the mode of the jump; True when there is more to write."""
        for mode in self._jumps:
            for place in self._graph.landings:
                self._resume(place, mode)
        return bool(self._waiting)

    def _write_node(self, node: Node) -> _Block:
        place, mode, full = node
        self.builder.lines = []
        self.builder.label(f"%{_label(node)}")
        if place in self._graph.beyond or place not in self._graph.instructions:
            return self._write_beyond(place, mode)
        if full is None:
            return self._write_test(place, mode)
        frame = Frame(self.builder, self._shape, self._shared, full=full)
        frame.mode = mode
        block = _Block(self.builder.lines)
        ending, count = self._write_instructions(frame, place)
        if count:
            builder = self.builder
            total = builder.emit("load i64, ptr %count")
            builder.do(f"store i64 {builder.emit(f'add i64 {total}, {count}')}, ptr %count")
        frame.flush()
        self._write_ending(frame, ending, place, block)
        block.reads, block.writes = frame.reads, frame.writes
        self._touched |= frame.touched
        return block

    def _write_beyond(self, place: int, mode: int) -> _Block:
        """Code that is not in this unit: leave with everything."""
        block = _Block(self.builder.lines, out=EVERYTHING)
        self.builder.do(f"br label %{self._exit(place, mode, Outcome.JUMP)}")
        return block

    def _write_test(self, place: int, mode: int) -> _Block:
        """Which version is right is seen from EXEC."""
        builder = self.builder
        block = _Block(builder.lines)
        texts = [builder.emit(f"load i32, ptr %s{code}") for code in self._exec_codes]
        whole = texts[0] if len(texts) == 1 else builder.emit(f"and i32 {texts[0]}, {texts[1]}")
        condition = builder.emit(f"icmp eq i32 {whole}, -1")
        labels = [self._node(place, mode, full) for full in (True, False)]
        builder.do(f"br i1 {condition}, label %{labels[0]}, label %{labels[1]}")
        for code in self._exec_codes:
            block.reads |= 1 << SGPR_BIT + code
        self._touched |= block.reads
        block.next = {(place, mode, True), (place, mode, False)}
        return block

    # Instructions.

    def _write_instructions(self, frame: Frame, place: int) -> tuple[Ending, int]:
        """Write from a leader to the end of its block; returns how it ends and what it adds to the count."""
        count, first = 0, place
        while place == first or place not in self._graph.leaders:
            instruction = self._graph.instructions[place]
            frame.pc = frame.next_pc = place
            if instruction is None:
                frame.fault(FaultKind.ILLEGAL, Detail.UNDECODABLE)
                return Ending(Way.FAULT), count
            frame.next_pc = place + instruction.size_bytes & OFFSET_MASK
            count += instruction.mnemonic not in FREE
            if control.is_terminator(instruction):
                return control.describe(frame, instruction), count
            if not self._write_instruction(frame, instruction):
                frame.fault(FaultKind.ILLEGAL, Detail.NOT_IMPLEMENTED)
                return Ending(Way.FAULT), count
            place = frame.next_pc
        return Ending(Way.NEXT), count

    def _write_instruction(self, frame: Frame, instruction: Instruction) -> bool:
        algebra = self._algebras.get(frame.mode)
        if algebra is None:
            algebra = self._algebras[frame.mode] = LlvmAlgebra(self.builder, FloatMode.from_bits(frame.mode))
        try:
            if control.translate(frame, instruction):
                return True
            if alu.translate(frame, instruction, algebra):
                return True
            if not in_range(instruction, frame.vgprs):
                return not refusal(instruction.encoding, instruction.mnemonic)
            return _write_by_family(frame, instruction)
        except (alu.IllegalOperand, ValueError):
            return False

    # Ways on.

    def _write_ending(self, frame: Frame, ending: Ending, first: int, block: _Block) -> None:
        builder = self.builder
        behind, mode = frame.next_pc, frame.mode
        match ending.way:
            case Way.NEXT:
                builder.do(f"br label %{self._goto(frame, behind, block)}")
            case Way.BRANCH:
                builder.do(f"br label %{self._goto(frame, ending.target, block)}")
            case Way.CONDITION if ending.condition is not None:
                labels = [self._goto(frame, place, block) for place in (ending.target, behind)]
                builder.do(f"br i1 {ending.condition.text}, label %{labels[0]}, label %{labels[1]}")
            case Way.JUMP if ending.value is not None:
                self._jumps.setdefault(mode, []).append((ending.value.text, builder.block))
                block.out = EVERYTHING
                builder.do(f"br label %jump.{mode}")
            case Way.MODE if ending.value is not None:
                builder.do(f"store i32 {ending.value.text}, ptr {builder.emit(_field(layout.STATE_MODE))}")
                block.out = EVERYTHING
                builder.do(f"br label %{self._exit(behind, ANY_MODE, Outcome.JUMP)}")
            case Way.WAIT if ending.condition is not None:
                there, out = self._goto(frame, behind, block), self._exit(behind, mode, ending.outcome)
                builder.do(f"br i1 {ending.condition.text}, label %{there}, label %{out}")
                self._resume(behind, mode)
                block.next.add(self._version(behind, mode, None))
            case Way.EXIT:
                builder.do(f"br label %{self._exit(behind, mode, ending.outcome)}")
                if ending.outcome is not Outcome.END:
                    self._resume(behind, mode)
                    block.next.add(self._version(behind, mode, None))
            case _:
                builder.do("unreachable")

    def _version(self, place: int, mode: int, full: bool | None) -> Node:
        return (place, mode, full if self._two_versions else False)

    def _goto(self, frame: Frame, target: int, block: _Block) -> str:
        """The label by which a block goes on at ``target``; a backward branch may yield."""
        full: bool | None = frame.full
        if any(frame.writes >> SGPR_BIT + code & 1 for code in self._exec_codes):
            full = None
        node = self._version(target, frame.mode, full)
        label = self._node(target, frame.mode, full)
        block.next.add(node)
        if signed(target) > signed(frame.pc) or target not in self._graph.instructions:
            return label
        self._resume(target, frame.mode)
        block.next.add(self._version(target, frame.mode, None))
        return self._write_check(target, frame, label)

    def _write_check(self, target: int, frame: Frame, label: str) -> str:
        """A block in front of a loop's head in which a wave that has run for long enough leaves."""
        builder = self.builder
        block, lines = builder.block, builder.lines
        builder.lines = self._checks
        check = builder.name("turn")
        builder.label(check)
        if self._graph.polls(target, frame.pc):
            builder.do(control.FENCE)
            left = builder.emit(f"sub i32 {builder.emit('load i32, ptr %patience')}, 1")
            builder.do(f"store i32 {left}, ptr %patience")
            over, outcome = builder.emit(f"icmp slt i32 {left}, 0"), Outcome.POLL
        else:
            total, limit = builder.emit("load i64, ptr %count"), builder.emit("load i64, ptr %limit")
            over, outcome = builder.emit(f"icmp ugt i64 {total}, {limit}"), Outcome.YIELD
        exit_label = self._exit(target, frame.mode, outcome)
        builder.do(f"br i1 {over}, label %{exit_label}, label %{label}, {UNLIKELY}")
        builder.block, builder.lines = block, lines
        return check[1:]

    def _exit(self, place: int, mode: int, outcome: Outcome) -> str:
        return self._exits.setdefault((place, mode, outcome), f"x.{len(self._exits)}")

    # Liveness.

    def _solve(self) -> None:
        """Which registers are alive at each node."""
        live = dict.fromkeys(self._blocks, 0)
        before: dict[Node, list[Node]] = {node: [] for node in self._blocks}
        for node, block in self._blocks.items():
            for successor in block.next:
                before[successor].append(node)
        waiting = list(self._blocks)
        while waiting:
            node = waiting.pop()
            block = self._blocks[node]
            out = block.out
            for successor in block.next:
                out |= live[successor]
            alive = block.reads | out & ~block.writes
            if alive != live[node]:
                live[node] = alive
                waiting += before[node]
        self._live = live
        # Without optimisation every register is in memory anyway: then the fewest instructions are the best.
        self._kept = self._unchanged_behind_barriers() if self._two_versions else EVERYTHING & ~(1 << SCC_BIT)

    def _unchanged_behind_barriers(self) -> int:
        """VGPRs that are alive at barriers and not written after any: they stay in the wave's state.

        Otherwise each barrier would cost a store and a load of every one; so it costs a load where one is used.
        """
        waiting = [
            self._version(place, mode, None)
            for place, mode, outcome in self._exits
            if outcome in (Outcome.BARRIER, Outcome.WAIT)
        ]
        alive = written = 0
        for node in waiting:
            alive |= self._live[node]
        behind: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node not in behind:
                behind.add(node)
                written |= self._blocks[node].writes
                waiting += self._blocks[node].next
        return alive & ~written & (1 << SGPR_BIT) - 1

    # The function's own parts.

    @property
    def _exec_codes(self) -> tuple[int, ...]:
        return (EXEC_LO, EXEC_HI) if self._shape.lanes == 64 else (EXEC_LO,)

    def _to_move(self, live: int) -> list[int]:
        """Registers to load or save where a wave comes or goes with these alive."""
        return self._bits(live & ~self._in_state)

    def _bits(self, live: int) -> list[int]:
        live &= self._touched
        bits = []
        while live:
            bits.append((live & -live).bit_length() - 1)
            live &= live - 1
        return bits

    def _type(self, bit: int) -> str:
        if bit < SGPR_BIT:
            return f"<{self._shape.lanes} x i32>"
        return "i1" if bit == SCC_BIT else "i32"

    def _load_state(self, bits: list[int]) -> None:
        """Registers from the wave's state to their slots."""
        builder = self.builder
        for bit in bits:
            pointer = builder.emit(_field(_state_offset(bit, self._shape.lanes)))
            if bit == SCC_BIT:
                word = builder.emit(f"load i32, ptr {pointer}")
                builder.do(f"store i1 {builder.emit(f'trunc i32 {word} to i1')}, ptr %scc")
            else:
                text = self._type(bit)
                align = ALIGNED if bit < SGPR_BIT else ""
                value = builder.emit(f"load {text}, ptr {pointer}{align}")
                builder.do(f"store {text} {value}, ptr {slot_name(bit)}{align}")

    def _save_state(self, bits: list[int]) -> None:
        """Registers from their slots to the wave's state."""
        builder = self.builder
        for bit in bits:
            text = self._type(bit)
            align = ALIGNED if bit < SGPR_BIT else ""
            value = builder.emit(f"load {text}, ptr {slot_name(bit)}{align}")
            if bit == SCC_BIT:
                text, value = "i32", builder.emit(f"zext i1 {value} to i32")
            pointer = builder.emit(_field(_state_offset(bit, self._shape.lanes)))
            builder.do(f"store {text} {value}, ptr {pointer}{align}")

    def _store_field(self, place: int, text: str) -> None:
        pointer = self.builder.emit(_field(place))
        self.builder.do(f"store {text}, ptr {pointer}")

    def _leave(self, outcome: Outcome) -> None:
        builder = self.builder
        first = "%states" if self.ends_at_once else "%state"
        total = builder.emit("load i64, ptr %count")
        builder.do(f"store i64 {total}, ptr {builder.emit(_field(layout.STATE_COUNT, first))}")
        if self.ends_at_once and outcome is not Outcome.END:
            self._note_stopped()
        builder.do(f"ret i32 {int(outcome)}")

    def _note_stopped(self) -> None:
        """Which of several waves could not go on."""
        place = self.builder.emit(f"getelementptr i8, ptr %ctx, i64 {layout.offset('stopped_state')}")
        self.builder.do(f"store ptr %state, ptr {place}")

    def _write_tail(self) -> list[str]:
        """Blocks by which the function is left, resumed, and goes on at computed places."""
        builder = self.builder
        builder.lines = list(self._checks)
        for mode, sources in self._jumps.items():
            self._write_jump(mode, sources)
        for (place, mode, outcome), label in self._exits.items():
            builder.label(f"%{label}")
            if outcome is not Outcome.END:
                whole = outcome in (Outcome.JUMP, Outcome.REFETCH)
                self._save_state(self._to_move(EVERYTHING if whole else self._live[self._version(place, mode, None)]))
                self._store_field(layout.STATE_PC, f"i64 {builder.emit(f'add i64 %base, {signed(place)}')}")
                if mode != ANY_MODE:
                    self._store_field(layout.STATE_MODE, f"i32 {mode}")
            if outcome is Outcome.END and self.ends_at_once:
                builder.do("br label %ended")
            else:
                self._leave(outcome)
        if self.ends_at_once:
            self._write_next_wave()
        for number, (place, mode) in enumerate(sorted(self.resumed)):
            builder.label(f"%r.{number}")
            self._load_state(self._to_move(self._live[self._version(place, mode, None)]))
            builder.do(f"br label %{_label(self._version(place, mode, None))}")
        builder.label("%fault")
        if self._shared.faults:
            origins = ", ".join(f"[ {signed(place)}, {block} ]" for block, place in self._shared.faults)
            pc = builder.emit(f"add i64 {builder.emit(f'phi i64 {origins}')}, %base")
            pointer = builder.emit(f"getelementptr i8, ptr %ctx, i64 {layout.offset('fault_pc')}")
            builder.do(f"store i64 {pc}, ptr {pointer}")
        self._leave(Outcome.FAULT)
        builder.label("%lost")
        if self.ends_at_once:
            self._note_stopped()
        builder.do(f"ret i32 {int(Outcome.JUMP)}")
        return builder.lines

    def _write_next_wave(self) -> None:
        """Behind a wave that has ended: go on with the next, or leave."""
        builder = self.builder
        builder.label("%ended")
        builder.do("%left.less = sub i32 %left, 1")
        builder.do("br i1 " + builder.emit("icmp eq i32 %left.less, 0") + ", label %over, label %next")
        builder.label("%next")
        size_bytes = layout.state_bytes(self._shape.vgprs, self._shape.lanes)
        builder.do(f"%state.next = {_field(size_bytes)}")
        builder.do("br label %wave")
        builder.label("%over")
        self._leave(Outcome.END)

    def _write_jump(self, mode: int, sources: list[tuple[str, str]]) -> None:
        """Go on at a computed address in a mode: at a landing, or leave with everything."""
        builder = self.builder
        builder.label(f"%jump.{mode}")
        target = builder.emit("phi i64 " + ", ".join(f"[ {text}, {block} ]" for text, block in sources))
        place = builder.emit(f"sub i64 {target}, %base")
        cases = " ".join(
            f"i64 {signed(landing)}, label %{_label(self._version(landing, mode, None))}"
            for landing, landing_mode in sorted(self.resumed)
            if landing_mode == mode
        )
        # It may go back: a wave that has run for long enough leaves, and comes in again where it wanted to go.
        total, limit = builder.emit("load i64, ptr %count"), builder.emit("load i64, ptr %limit")
        over = builder.emit(f"icmp ugt i64 {total}, {limit}")
        builder.do(f"br i1 {over}, label %far.{mode}, label %near.{mode}, {UNLIKELY}")
        builder.label(f"%near.{mode}")
        builder.do(f"switch i64 {place}, label %far.{mode} [ {cases} ]")
        builder.label(f"%far.{mode}")
        self._save_state(self._to_move(EVERYTHING))
        self._store_field(layout.STATE_PC, f"i64 {target}")
        self._store_field(layout.STATE_MODE, f"i32 {mode}")
        self._leave(Outcome.JUMP)

    def _write_head(self, entries: list[Place]) -> list[str]:
        """Slots, counters, and the switch over the places where waves come in."""
        builder = self.builder
        first = "%states" if self.ends_at_once else "%state"
        builder.lines = [f"define i32 @unit(ptr noalias %ctx, ptr noalias {first}, i64 %base, i32 %waves) nounwind {{"]
        builder.label("%entry")
        self._write_slots()
        for name, text in (("count", "i64"), ("limit", "i64"), ("patience", "i32")):
            builder.do(f"%{name} = alloca {text}")
        count = builder.emit(f"load i64, ptr {builder.emit(_field(layout.STATE_COUNT, first))}")
        pointer = builder.emit(f"getelementptr i8, ptr %ctx, i64 {layout.offset('budget')}")
        budget = builder.emit(f"load i32, ptr {pointer}")
        limit = builder.emit(f"add i64 {count}, {builder.emit(f'sext i32 {budget} to i64')}")
        for text in (f"i64 {count}, ptr %count", f"i64 {limit}, ptr %limit", f"i32 {PATIENCE}, ptr %patience"):
            builder.do(f"store {text}")
        key = self._write_key(first)
        pc = builder.emit(f"load i64, ptr {builder.emit(_field(layout.STATE_PC, first))}")
        fresh = builder.emit(f"icmp eq i64 {pc}, -1")
        if self.ends_at_once:
            builder.do("br label %wave")
            builder.label("%wave")
            builder.do("%state = phi ptr [ %states, %entry ], [ %state.next, %next ]")
            builder.do("%left = phi i32 [ %waves, %entry ], [ %left.less, %next ]")
        builder.do(f"br i1 {fresh}, label %start, label %resume")
        builder.label("%resume")
        place = builder.emit(f"and i64 {builder.emit(f'sub i64 {pc}, %base')}, {(1 << KEY_BITS) - 1}")
        cases = " ".join(
            f"i64 {place & (1 << KEY_BITS) - 1 | _mode_key(mode) << KEY_BITS}, label %r.{number}"
            for number, (place, mode) in enumerate(sorted(self.resumed))
        )
        builder.do(f"switch i64 {builder.emit(f'or i64 {place}, {key}')}, label %lost [ {cases} ]")
        self._write_start(entries, key)
        return builder.lines

    def _write_slots(self) -> None:
        """A stack slot for each register. Those that have to lie together stay in the wave's state."""
        builder, in_state = self.builder, self._in_state
        for bit in self._bits(EVERYTHING):
            if in_state >> bit & 1:
                builder.do(f"{slot_name(bit)} = {_field(_state_offset(bit, self._shape.lanes))}")
            else:
                builder.do(f"{slot_name(bit)} = alloca {self._type(bit)}{ALIGNED if bit < SGPR_BIT else ''}")

    @property
    def _in_state(self) -> int:
        """Registers that need not be loaded or saved, because they never leave the wave's state."""
        return self._kept | _bits_of(self._shared.runs)

    def _write_key(self, state: str) -> str:
        """MODE of the wave, where the entry switch wants it."""
        builder = self.builder
        mode = builder.emit(f"load i32, ptr {builder.emit(_field(layout.STATE_MODE, state))}")
        overflow = builder.emit(f"and i32 {builder.emit(f'lshr i32 {mode}, 13')}, {3 << 10}")
        close = builder.emit(f"or i32 {builder.emit(f'and i32 {mode}, {0x3FF}')}, {overflow}")
        return builder.emit(f"shl i64 {builder.emit(f'zext i32 {close} to i64')}, {KEY_BITS}")

    def _write_start(self, entries: list[Place], key: str) -> None:
        """A wave's first instruction: VGPR 0 and the scalar registers are set up, the rest is zero."""
        builder = self.builder
        builder.label("%start")
        vectors = (1 << SGPR_BIT) - 2  # but for VGPR 0
        together = self._touched & (_bits_of(self._shared.runs) if self._two_versions else vectors)
        for first, count in _runs_of(together & vectors):
            builder.call(f"{wide.CLEAR}.w{self._shape.lanes}", "void", [f"ptr {slot_name(first)}", f"i64 {count}"])
        for bit in self._bits(vectors & ~together):
            builder.do(f"store {self._type(bit)} zeroinitializer, ptr {slot_name(bit)}{ALIGNED}")
        self._load_state([bit for bit in self._to_move(EVERYTHING) if bit == 0 or bit >= SGPR_BIT])
        cases = " ".join(
            f"i64 {_mode_key(mode) << KEY_BITS}, label %{_label(self._version(0, mode, None))}"
            for place, mode in entries
            if place == 0
        )
        builder.do(f"switch i64 {key}, label %lost [ {cases} ]")


def _bits_of(runs: Iterable[tuple[int, int]]) -> int:
    """The bits of all registers of runs (first, count)."""
    result = 0
    for first, count in runs:
        result |= (1 << count) - 1 << first
    return result


def _runs_of(bits: int) -> Iterator[tuple[int, int]]:
    """Runs (first, count) of bits that are set side by side."""
    first = 0
    while rest := bits >> first:
        first += (rest & -rest).bit_length() - 1
        count = (~(bits >> first) & (bits >> first) + 1).bit_length() - 1
        yield first, count
        first += count


def _label(node: Node) -> str:
    place, mode, full = node
    version = {None: "any", True: "full", False: "some"}[full]
    return f"b.{place:x}.{mode:x}.{version}"


def _field(place: int, state: str = "%state") -> str:
    return f"getelementptr i8, ptr {state}, i64 {place}"


def _state_offset(bit: int, lanes: int) -> int:
    if bit < SGPR_BIT:
        return layout.STATE_VGPR + 4 * lanes * bit
    return layout.STATE_SCC if bit == SCC_BIT else layout.STATE_SGPR + 4 * (bit - SGPR_BIT)


_FAMILIES = {
    "FLAT": (global_memory.translate, atomics.translate),
    "GLOBAL": (global_memory.translate, atomics.translate),
    "SCRATCH": (global_memory.translate, atomics.translate),
    "DS": (lds.translate, lane_exchange.translate, atomics.translate),
    "MUBUF": (buffers.translate, atomics.translate),
    "MTBUF": (buffers.translate,),
    "SMEM": (scalar_memory.translate,),
}


def _write_by_family(frame: Frame, instruction: Instruction) -> bool:
    """Memory, LDS and lane instructions."""
    families = _FAMILIES.get(instruction.encoding, (lane_exchange.translate,))
    return any(translate(frame, instruction) for translate in families)
