"""From a kernel's nodes to LLVM IR text. One table of instructions; what differs between targets is in ``Dialect``.

Loops are written as they are opened. An instruction goes to the outermost open loop whose ranges it depends on, in
front of the loop inside it, so that nothing is computed more often than it changes. A range that is a LANE makes what
depends on it a vector.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from amdrv.errors import Unsupported
from amdrv.tensor import dtypes, ir, symbolic
from amdrv.tensor.dtypes import DType, Scalar
from amdrv.tensor.instructions import HANDLERS, kind, many
from amdrv.tensor.ir import REDUCTIONS, Axis, Node, Op, toposort
from amdrv.tensor.optimise import Nest
from amdrv.tensor.tables.llvm import HORIZONTAL, INSTRUCTIONS, INTRINSICS, TYPES


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an LLVM target wants to see."""

    pointer: str = "ptr"  # to buffers
    index_bits: int = 32  # at least; 64 where a buffer needs it
    masks: bool = True  # loads for some lanes of a vector are worth having
    stream_bytes: int = 1 << 62  # results larger than this are not worth keeping in a cache; needs !0 = !{i32 1}


@dataclass(slots=True)
class Scope:
    """An open loop: its range, the text of its body so far, and values that were computed in it."""

    ranges: frozenset[Node]
    name: str = "entry"
    counter: str = ""
    begin: str = ""
    end: str = ""
    before: str = ""  # the block it is entered from
    lines: list[str] = field(default_factory=list)
    values: dict[Node, str] = field(default_factory=dict)
    splats: dict[tuple[str, int], str] = field(default_factory=dict)


Carried = tuple[str, str, str, str]  # of a value that goes from one trip to the next: register, type, first value, next


class Emitter:
    """Writes the body of one function."""

    def __init__(self, body: Node, dialect: Dialect) -> None:
        self._dialect = dialect
        self.index_type = f"i{64 if _needs_wide_index(body) else dialect.index_bits}"
        self._scopes = [Scope(frozenset())]
        self._number = 0
        self.label = "entry"  # of the block that is being written
        self._accesses: dict[Node, Access] = {}
        self._pending: dict[Node, frozenset[Node]] = {}
        self.declared: dict[str, None] = {}
        self.params: dict[Node, str] = {}

    @property
    def text(self) -> str:
        """What was written, when all loops are closed."""
        return "\n".join(self._scopes[0].lines)

    def fresh(self, stem: str) -> str:
        """A name that nothing has yet."""
        self._number += 1
        return f"{stem}{self._number}"

    def line(self, text: str) -> None:
        """Add to the innermost loop's body."""
        self.scope.lines.append("  " + text)

    def block(self, label: str) -> None:
        """Begin a block."""
        self.scope.lines.append(f"{label}:")
        self.label = label

    def name_sources(self, roots: Sequence[Node]) -> list[Node]:
        """Name the buffers and number the lanes that nodes use. Returns SHARED memory, which the target has to make."""
        shared = []
        for node in toposort(roots):
            if node.op is Op.PARAM:
                self.params[node] = f"%p{node.arg[0]}"
            elif node.op is Op.SHARED:
                shared.append(node)
            elif node.op is Op.RANGE and node.arg[2] is Axis.LANE:
                self.bind(node, f"<{', '.join(f'{self.index_type} {k}' for k in range(node.arg[1]))}>")
        return shared

    def bind(self, node: Node, value: str) -> None:
        """Say where the value of a node is that no loop opens."""
        self._scopes[0].values[node] = value

    @property
    def scope(self) -> Scope:
        """The innermost open loop."""
        return self._scopes[-1]

    def _scope_of(self, ranges: frozenset[Node]) -> Scope:
        if ranges:
            for scope in reversed(self._scopes):
                if not scope.ranges.isdisjoint(ranges):
                    return scope
        return self._scopes[0]

    def into(self, scope: Scope, right: str) -> str:
        """Write an instruction to a loop's body; returns its register."""
        name = self.fresh("%v")
        scope.lines.append(f"  {name} = {right}")
        return name

    def call(self, name: str, result: str, arguments: Sequence[tuple[str, str]]) -> str:
        """The text of a call, whose declaration is noted."""
        self.declared[f"declare {result} @{name}({', '.join(kind for kind, _ in arguments)})"] = None
        return f"call {result} @{name}({', '.join(f'{kind} {value}' for kind, value in arguments)})"

    def type_of(self, dtype: DType) -> str:
        return self.index_type if dtype is dtypes.index else TYPES[dtype]

    def lanes(self, node: Node) -> int:
        """How many elements the value of a node has at once."""
        lane = next((found for found in node.ranges if found.arg[2] is Axis.LANE), None)
        return lane.arg[1] if lane is not None else 1

    def vector(self, dtype: DType, lanes: int) -> str:
        return many(self.type_of(dtype), lanes)

    def mangled(self, dtype: DType, lanes: int) -> str:
        base = _short(self.type_of(dtype))
        return base if lanes == 1 else f"v{lanes}{base}"

    def bits_of(self, dtype: DType) -> int:
        """Bits of a value in a register."""
        return int(self.index_type[1:]) if dtype is dtypes.index else 1 if dtype is dtypes.bool_ else dtype.bits

    def literal(self, dtype: DType, value: Scalar) -> str:
        if dtype.is_float:
            if dtype is dtypes.float16:
                return f"0xH{struct.pack('>e', value).hex().upper()}"
            number = ctypes.c_float(value).value if dtype is dtypes.float32 else value  # rounded, without an error
            return f"0x{struct.pack('>d', number).hex().upper()}"
        return str(value).lower()  # of a bool: true, false

    def value(self, root: Node) -> str:
        """The register or literal with a node's value; writes what is not there yet."""
        stack = [root]
        while (found := self._find(stack[-1])) is None or len(stack) > 1:
            node = stack[-1]
            if found is not None:
                stack.pop()
            elif node.op in (Op.REDUCE, Op.RANGE):
                raise Unsupported(f"{node} has no value where the kernel uses it")
            elif missing := [source for source in self._sources(node) if self._find(source) is None]:
                stack.extend(missing)
            elif node.op not in HANDLERS:
                raise Unsupported(f"no instruction for {node.op} of {node.dtype}")
            else:
                scope = self._scope_of(node.ranges)
                scope.values[node] = HANDLERS[node.op](self, node, scope)
        return found

    def _find(self, node: Node) -> str | None:
        if node.op is Op.CONST:
            return self.literal(node.dtype, node.arg)
        return self._scope_of(node.ranges).values.get(node)

    def _sources(self, node: Node) -> tuple[Node, ...]:
        if node.op is not Op.LOAD:
            return node.src
        access = self.access(node)
        return (access.position, access.gate)

    def access(self, node: Node) -> Access:
        """How a LOAD or STORE touches memory."""
        found = self._accesses.get(node)
        if found is None:
            gate = node.src[2] if node.op is Op.LOAD else symbolic.TRUE
            found = self._accesses[node] = Access.of(node.src[1], gate, self.lanes(node), self._dialect.masks)
        return found

    def operand(self, node: Node, lanes: int, scope: Scope) -> str:
        """A node's value with as many lanes as its user has."""
        value = self.value(node)
        return value if self.lanes(node) == lanes else self.splat(value, node.dtype, lanes, scope)

    def splat(self, value: str, dtype: DType, lanes: int, scope: Scope) -> str:
        """A scalar in all lanes."""
        base, vector = self.type_of(dtype), self.vector(dtype, lanes)
        if not value.startswith("%"):
            return f"<{', '.join([f'{base} {value}'] * lanes)}>"
        if (known := scope.splats.get((value, lanes))) is not None:
            return known
        first = self.into(scope, f"insertelement {vector} poison, {base} {value}, i64 0")
        mask = f"<{lanes} x i32> zeroinitializer"
        found = self.into(scope, f"shufflevector {vector} {first}, {vector} poison, {mask}")
        scope.splats[value, lanes] = found
        return found

    def address(self, node: Node, position: str, scope: Scope, step: int = 0) -> str:
        """The address of an element of the buffer that a LOAD or STORE is about."""
        base, element = self.params[node.src[0]], self.memory_type(node.src[0].dtype)
        step_by = f"getelementptr inbounds {element}, {self.pointer(node)}"
        at = self.into(scope, f"{step_by} {base}, {self.index_type} {position}")
        if step:
            at = self.into(scope, f"{step_by} {at}, i64 {step}")
        return at

    def pointer(self, node: Node) -> str:
        """The type of addresses of what a LOAD or STORE is about."""
        return self._dialect.pointer

    def memory_type(self, dtype: DType) -> str:
        """The type of an element in memory."""
        return "i8" if dtype is dtypes.bool_ else TYPES[dtype]

    def open(self, loop: Node, begin: str = "0", end: str = "") -> None:
        """Begin a loop over a range, which makes at least one trip."""
        name, counter = self.fresh("loop"), f"%{self.fresh('i')}"
        where = (name, counter, begin, end or str(loop.arg[1]), self.label)
        self._scopes.append(Scope(frozenset({loop}), *where, values={loop: counter}))
        self.label = name

    def close(self, carried: Sequence[Carried] = ()) -> None:
        """End the innermost loop; ``carried`` goes from one trip to the next."""
        loop = self._scopes.pop()
        name, counter, index = loop.name, loop.counter, self.index_type
        self.line(f"br label %{name}")
        self.scope.lines.append(f"{name}:")
        for register, what, first, after in ((counter, index, loop.begin, f"{counter}.next"), *carried):
            self.line(f"{register} = phi {what} [{first}, %{loop.before}], [{after}, %{self.label}]")
        self.scope.lines += loop.lines
        self.line(f"{counter}.next = add nuw nsw {index} {counter}, 1")
        self.line(f"{counter}.more = icmp slt {index} {counter}.next, {loop.end}")
        self.line(f"br i1 {counter}.more, label %{name}, label %{name}.end")
        self.block(f"{name}.end")

    @property
    def _open_ranges(self) -> frozenset[Node]:
        return frozenset[Node]().union(*(scope.ranges for scope in self._scopes))

    def expect(self, stores: Sequence[Node]) -> None:
        """Say what will be written, so that reductions can be computed where they belong."""
        needs: dict[Node, frozenset[Node]] = {}  # the reductions that a value is made of
        for node in toposort(stores):
            parts = [needs[source] for source in node.src if needs[source]]
            found = parts[0].union(*parts[1:]) if parts else frozenset[Node]()
            if node.op is Op.REDUCE:
                self._pending[node] = found
                found |= {node}
            needs[node] = found

    def reduces(self) -> None:
        """Compute the expected reductions that depend on open loops only; those of a kind together."""
        opened = self._open_ranges
        while True:
            groups: dict[tuple[Node, ...], list[Node]] = {}
            for node, inner in self._pending.items():
                loops = {found for found in node.ranges if found.arg[2] in (Axis.LOOP, Axis.REDUCE)}
                if loops <= opened and inner.isdisjoint(self._pending):
                    groups.setdefault(node.src[1:], []).append(node)
            if not groups:
                return
            for group in groups.values():
                self._reduce_group(group)
                for node in group:
                    del self._pending[node]

    def _reduce_group(self, group: list[Node]) -> None:
        """One loop nest for reductions over the same ranges."""
        loops = [found for found in group[0].src[1:] if found.arg[2] is Axis.REDUCE]
        totals = [self._identity(node) for node in group]
        types = [self.vector(node.dtype, self._width(node)) for node in group]
        before: list[tuple[list[str], list[str]]] = []
        for loop in loops:
            names = [f"%{self.fresh('sum')}" for _ in group]
            before.append((names, totals))
            self.open(loop)
            totals = names
        totals = self.trip(group, totals, self.scope)
        for names, first in reversed(before):
            self.close(list(zip(names, types, first, totals, strict=True)))
        scope = self.scope
        for node, total in zip(group, totals, strict=True):
            kinds = {found.arg[2] for found in node.src[1:]}
            if Axis.LANE in kinds and node.arg is not Op.MATRIX:
                total = self._horizontal(node, total, scope)
            if Axis.ITEM in kinds:
                total = self.across_items(node, total)
            self._scope_of(node.ranges).values[node] = total

    def trip(self, group: Sequence[Node], totals: Sequence[str], scope: Scope) -> list[str]:
        """What one trip of their loops makes of the totals of reductions."""
        return [self._combine(node, total, scope) for node, total in zip(group, totals, strict=True)]

    def _width(self, node: Node) -> int:
        """Lanes of a reduction's running total: those of its value, or those it will combine in the end."""
        lane = next((found for found in node.src[1:] if found.arg[2] is Axis.LANE), None)
        return lane.arg[1] if lane is not None else self.lanes(node.src[0])

    def _identity(self, node: Node) -> str:
        value, lanes = self.literal(node.dtype, ir.identity(node.arg, node.dtype)), self._width(node)
        return value if lanes == 1 else self.splat(value, node.dtype, lanes, self.scope)

    def _combine(self, node: Node, total: str, scope: Scope) -> str:
        value, lanes = node.src[0], self._width(node)
        if node.arg is Op.ADD and value.op is Op.MUL and node.dtype.is_float:
            # The product goes into the sum with one rounding where the processor can.
            vector = self.vector(node.dtype, lanes)
            arguments = [(vector, part) for part in (*(self.operand(s, lanes, scope) for s in value.src), total)]
            return self.into(scope, self.call(f"llvm.fmuladd.{self.mangled(node.dtype, lanes)}", vector, arguments))
        return self.into(scope, self.alu(node.arg, node.dtype, lanes, [total, self.operand(value, lanes, scope)]))

    def _horizontal(self, node: Node, total: str, scope: Scope) -> str:
        lanes, name = self._width(node), HORIZONTAL[node.arg][kind(node.dtype)]
        vector, base = self.vector(node.dtype, lanes), self.type_of(node.dtype)
        arguments = [(vector, total)]
        if name in ("fadd", "fmul"):
            arguments.insert(0, (base, self.literal(node.dtype, ir.identity(node.arg, node.dtype))))
        text = self.call(f"llvm.vector.reduce.{name}.{self.mangled(node.dtype, lanes)}", base, arguments)
        return self.into(scope, text.replace("call ", "call reassoc ", 1) if name in ("fadd", "fmul") else text)

    def across_items(self, node: Node, total: str) -> str:
        """Combine what the work-items of a workgroup have. Only GPUs have them."""
        raise Unsupported(f"{node} is combined across work-items, which this target does not have")

    def alu(self, op: Op, dtype: DType, lanes: int, operands: Sequence[str]) -> str:
        """The text of an instruction of the tables. ``dtype`` is the operands'."""
        column, vector = kind(dtype), self.vector(dtype, lanes)
        if op in REDUCTIONS and dtype is dtypes.bool_:
            return f"{'or' if op in (Op.MAX, Op.ADD) else 'and'} {vector} {', '.join(operands)}"
        if op in INTRINSICS:
            name = INTRINSICS[op][column]
            if name is not None:
                full = f"llvm.{name}.{self.mangled(dtype, lanes)}"
                return self.call(full, vector, [(vector, operand) for operand in operands])
        name = INSTRUCTIONS[op][column] if op in INSTRUCTIONS else None
        if name is None:
            raise Unsupported(f"no instruction for {op} of {dtype}")
        flags = " nsw" if dtype is dtypes.index and name in ("add", "mul") else ""
        return f"{name}{flags} {vector} {', '.join(operands)}"

    def store_all(self, stores: Sequence[Node]) -> None:
        """Write to memory, now: when all values are there."""
        for store in stores:
            self.value(store.src[2])
        for store in stores:
            self.store(store)

    def store(self, node: Node) -> None:
        """Write to memory, now."""
        scope, access, lanes, param = self.scope, self.access(node), self.lanes(node), node.src[0]
        value = self.operand(node.src[2], lanes, scope)
        memory = self.memory_type(param.dtype)
        if param.dtype is dtypes.bool_:
            value = self.into(scope, f"zext {many('i1', lanes)} {value} to {many(memory, lanes)}")
        at = self.value(access.position)
        if len(node.src) > 3 and node.src[3] is not symbolic.TRUE:
            self._store_gated(node, value, at)
        elif lanes == 1 or access.step == 1:
            align, hint = access.align(node, lanes), ""
            large = param.arg[1] * param.dtype.size_bytes >= self._dialect.stream_bytes
            if large and lanes > 1 and node.arg is None and access.shared_factor(lanes) == lanes:
                align, hint = lanes * param.dtype.size_bytes, ", !nontemporal !0"
            self.put(node, value, self.address(node, at, scope), lanes, f"align {align}{hint}")
        else:
            for lane in range(lanes):
                part = self.into(scope, f"extractelement {many(memory, lanes)} {value}, i64 {lane}")
                self.put(node, part, self._lane_address(node, access, at, lane, lanes, scope))

    def put(self, node: Node, value: str, place: str, lanes: int = 1, how: str = "") -> None:
        """Write a value to an address, or what it is with the one there when the store combines."""
        vector, pointer = many(self.memory_type(node.src[0].dtype), lanes), self.pointer(node)
        how = how or f"align {node.src[0].dtype.size_bytes}"
        if node.arg is not None:
            before = self.into(self.scope, f"load {vector}, {pointer} {place}, {how}")
            value = self.into(self.scope, self.alu(node.arg, node.dtype, lanes, [before, value]))
        self.line(f"store {vector} {value}, {pointer} {place}, {how}")

    def _store_gated(self, node: Node, value: str, at: str) -> None:
        """Write where the gate is true; scalars only."""
        name = self.fresh("gate")
        self.line(f"br i1 {self.value(node.src[3])}, label %{name}, label %{name}.end")
        self.block(name)
        self.put(node, value, self.address(node, at, self.scope))
        self.line(f"br label %{name}.end")
        self.block(f"{name}.end")

    def _lane_address(self, node: Node, access: Access, at: str, lane: int, lanes: int, scope: Scope) -> str:
        if access.step is not None:
            return self.address(node, at, scope, access.step * lane)
        place = self.into(scope, f"extractelement <{lanes} x {self.index_type}> {at}, i64 {lane}")
        return self.address(node, place, scope)

    def load(self, node: Node, scope: Scope) -> str:
        """Read from memory; zero where the gate is false."""
        access, lanes = self.access(node), self.lanes(node)
        if access.step == 1 and access.masked:
            found = self._load_masked(node, access, lanes, scope)
        else:
            found = self._load_gated(node, access, lanes, scope)
        if node.dtype is dtypes.bool_:
            found = self.into(scope, f"icmp ne {many('i8', lanes)} {found}, zeroinitializer")
        return found

    def _load_masked(self, node: Node, access: Access, lanes: int, scope: Scope) -> str:
        """Neighbours in memory, of which the gate wants some."""
        memory, pointer = self.memory_type(node.dtype), self.pointer(node)
        at, mask, vector = self.value(access.position), self.operand(access.gate, lanes, scope), many(memory, lanes)
        # The address may lie outside where no lane is wanted.
        step_by = f"getelementptr {memory}, {pointer} {self.params[node.src[0]]}"
        place = self.into(scope, f"{step_by}, {self.index_type} {at}")
        align = ("i32", str(node.dtype.size_bytes))
        arguments = [(pointer, place), align, (many("i1", lanes), mask), (vector, "zeroinitializer")]
        return self.into(scope, self.call(f"llvm.masked.load.v{lanes}{_short(memory)}.p0", vector, arguments))

    def _load_gated(self, node: Node, access: Access, lanes: int, scope: Scope) -> str:
        """One element or neighbours, or elements anywhere one by one; element 0 where the gate is false."""
        memory, pointer = self.memory_type(node.dtype), self.pointer(node)
        at, vector, gate = self.value(access.position), many(memory, lanes), ""
        each = lanes if access.step is None else 1  # whether lanes have a position and a gate of their own
        if access.gate is not symbolic.TRUE:
            gate = f"{many('i1', each)} {self.operand(access.gate, each, scope)}"
            at, index = self.operand(access.position, each, scope), many(self.index_type, each)
            at = self.into(scope, f"select {gate}, {index} {at}, {index} zeroinitializer")
        if lanes == 1 or access.step == 1:
            how = f"align {access.align(node, lanes)}"
            found = self.into(scope, f"load {vector}, {pointer} {self.address(node, at, scope)}, {how}")
        else:
            found = "poison"
            for lane in range(lanes):
                place = self._lane_address(node, access, at, lane, lanes, scope)
                part = self.into(scope, f"load {memory}, {pointer} {place}, align {node.dtype.size_bytes}")
                found = self.into(scope, f"insertelement {vector} {found}, {memory} {part}, i64 {lane}")
        return self.into(scope, f"select {gate}, {vector} {found}, {vector} zeroinitializer") if gate else found


@dataclass(frozen=True, slots=True)
class Access:
    """How memory is touched. ``step``: elements between lanes, None when they are anywhere.

    ``position`` is the first lane's, or all lanes' when they are anywhere.
    """

    position: Node
    gate: Node
    step: int | None
    masked: bool  # whether lanes differ in their gate

    @staticmethod
    def of(position: Node, gate: Node, lanes: int, masks: bool) -> Access:
        lane = next((found for found in position.ranges | gate.ranges if found.arg[2] is Axis.LANE), None)
        if lane is None or lanes == 1:
            return Access(position, gate, 0, False)
        step, masked = symbolic.factor_of(position, lane), lane in gate.ranges
        # Where a gate is false element 0 is read instead, and those after it.
        if step is None or (masked and (step != 1 or not masks)) or (gate is not symbolic.TRUE and step < 0):
            return Access(position, gate, None, masked)
        return Access(symbolic.substitute(position, {lane: symbolic.ZERO}), gate, step, masked)

    def align(self, node: Node, lanes: int) -> int:
        """Bytes that divide the address. Only of a workgroup's memory is more known than the element."""
        known = self.shared_factor(lanes) if node.src[0].op is Op.SHARED else 1
        return known * node.src[0].dtype.size_bytes

    def shared_factor(self, lanes: int) -> int:
        """The greatest number that divides the lanes and the position."""
        terms, constant = symbolic.affine(self.position)
        return math.gcd(lanes, constant, *(factor for _, factor in terms))


def _short(llvm_type: str) -> str:
    return {"half": "f16", "float": "f32", "double": "f64"}.get(llvm_type, llvm_type)


def _needs_wide_index(body: Node) -> bool:
    order, limit = list(toposort([body])), (1 << 31) - 1
    positions = (symbolic.bounds(node) for node in order if node.dtype is dtypes.index)
    sizes = ((0, node.arg[1]) for node in order if node.op is Op.PARAM)
    return any(low < -limit or high > limit for low, high in (*positions, *sizes))


def write_nest(emitter: Emitter, nest: Nest, begin: str = "0", end: str = "") -> None:
    """Write loops and stores; ``begin`` and ``end`` are of the outermost loop."""
    emitter.expect(nest.stores)
    for depth, loop in enumerate((*nest.loops, None)):
        for first in (inner for at, inner in nest.before if at == depth):
            for part in first.loops:
                emitter.open(part)
            _write_body(emitter, first)
        emitter.reduces()
        if loop is not None:
            emitter.open(loop, begin, end) if not depth else emitter.open(loop)
    _write_body(emitter, nest)


def _write_body(emitter: Emitter, nest: Nest) -> None:
    """The stores of a nest, whose loops are open, and the loops' ends."""
    emitter.store_all(nest.stores)
    for _ in nest.loops:
        emitter.close()
