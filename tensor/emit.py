"""From a kernel's nodes to LLVM IR text. One table of instructions; what differs between targets is in ``Dialect``.

Loops are written as they are opened. An instruction goes to the outermost open loop whose ranges it depends on, in
front of the loop inside it, so that nothing is computed more often than it changes. A range that is a LANE makes what
depends on it a vector.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from amdrv.errors import Unsupported
from amdrv.tensor import dtypes, ir, symbolic
from amdrv.tensor.dtypes import DType
from amdrv.tensor.ir import COMPARE, Axis, Node, Op, toposort


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an LLVM target wants to see."""

    pointer: str = "ptr"  # to buffers
    index_bits: int = 32  # at least; 64 where a buffer needs it


# LLVM's names of types in registers; what is narrower than it computes in is bytes until it is decoded.
TYPES = {
    **{dtypes.bool_: "i1", dtypes.float16: "half", dtypes.float32: "float", dtypes.float64: "double"},
    **{dtypes.bfloat16: "i16", dtypes.float8_e4m3fn: "i8", dtypes.float8_e5m2: "i8"},
    **{dtype: f"i{dtype.bits}" for dtype in dtypes.ALL if dtype.is_int},
}
# Operation → instruction for (floats, signed, unsigned and bool).
INSTRUCTIONS: Mapping[Op, tuple[str | None, str | None, str | None]] = {
    Op.ADD: ("fadd", "add", "add"),
    Op.SUB: ("fsub", "sub", "sub"),
    Op.MUL: ("fmul", "mul", "mul"),
    Op.DIV: ("fdiv", None, None),
    Op.AND: (None, "and", "and"),
    Op.OR: (None, "or", "or"),
    Op.XOR: (None, "xor", "xor"),
    Op.SHL: (None, "shl", "shl"),
    Op.SHR: (None, "ashr", "lshr"),
    Op.LT: ("fcmp olt", "icmp slt", "icmp ult"),
    Op.EQ: ("fcmp oeq", "icmp eq", "icmp eq"),
}
INTRINSICS: Mapping[Op, tuple[str | None, str | None, str | None]] = {
    Op.MAX: ("maximum", "smax", "umax"),
    Op.MIN: ("minimum", "smin", "umin"),
    Op.SQRT: ("sqrt", None, None),
    Op.FLOOR: ("floor", None, None),
    Op.RINT: ("rint", None, None),
    Op.MULADD: ("fma", None, None),
}
HORIZONTAL = {Op.ADD: ("fadd", "add"), Op.MUL: ("fmul", "mul"), Op.MAX: ("fmaximum", "max"), Op.MIN: ("fminimum", "min")}


def kind(dtype: DType) -> int:
    """The column of the tables above."""
    return 0 if dtype.is_float else 1 if dtype.kind in ("int", "index") else 2


@dataclass(slots=True)
class Scope:
    """An open loop: its ranges, the text of its body so far, and values that were computed in it."""

    ranges: frozenset[Node]
    lines: list[str] = field(default_factory=list)
    values: dict[Node, str] = field(default_factory=dict)


class Emitter:
    """Writes the body of one function."""

    def __init__(self, body: Node, dialect: Dialect) -> None:
        self._dialect = dialect
        self._wide = _needs_wide_index(body)
        self.index_type = f"i{64 if self._wide else dialect.index_bits}"
        self._scopes = [Scope(frozenset())]
        self._number = 0
        self._label = "entry"
        self._lane: Node | None = None
        self.declared: dict[str, None] = {}
        self.params: dict[Node, str] = {}

    # -- text ----------------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """What was written, when all loops are closed."""
        return "\n".join(self._scopes[0].lines)

    @property
    def label(self) -> str:
        """The block that is being written."""
        return self._label

    def fresh(self, stem: str = "") -> str:
        self._number += 1
        return f"{stem or 'v'}{self._number}"

    def line(self, text: str) -> None:
        """Add to the innermost loop's body."""
        self._scopes[-1].lines.append("  " + text)

    def block(self, label: str) -> None:
        """Begin a block."""
        self._scopes[-1].lines.append(f"{label}:")
        self._label = label

    def bind(self, node: Node, value: str) -> None:
        """Say where the value of a node is, from here on."""
        self._scopes[-1].values[node] = value

    def _scope_of(self, ranges: frozenset[Node]) -> Scope:
        for scope in reversed(self._scopes):
            if not scope.ranges.isdisjoint(ranges):
                return scope
        return self._scopes[0]

    def _into(self, scope: Scope, dtype: str, right: str) -> str:
        name = f"%{self.fresh()}"
        scope.lines.append(f"  {name} = {right}")
        return name

    def call(self, name: str, result: str, arguments: Sequence[tuple[str, str]]) -> str:
        """The text of a call, whose declaration is noted."""
        self.declared[f"declare {result} @{name}({', '.join(kind for kind, _ in arguments)})"] = None
        return f"call {result} @{name}({', '.join(f'{kind} {value}' for kind, value in arguments)})"

    # -- types ---------------------------------------------------------------------------------------------------------

    def type_of(self, dtype: DType) -> str:
        return self.index_type if dtype is dtypes.index else TYPES[dtype]

    def lanes(self, node: Node) -> int:
        """How many elements the value of a node has at once."""
        lane = next((found for found in node.ranges if found.arg[2] is Axis.LANE), None)
        return lane.arg[1] if lane is not None else 1

    def _vector(self, dtype: DType, lanes: int) -> str:
        base = self.type_of(dtype)
        return base if lanes == 1 else f"<{lanes} x {base}>"

    def _mangled(self, dtype: DType, lanes: int) -> str:
        base = {"half": "f16", "float": "f32", "double": "f64"}.get(self.type_of(dtype), self.type_of(dtype))
        return base if lanes == 1 else f"v{lanes}{base}"

    def literal(self, dtype: DType, value: object) -> str:
        if dtype.is_float:
            if dtype is dtypes.float16:
                return f"0xH{struct.pack('>e', value).hex().upper()}"
            number = float(value)  # type: ignore[arg-type]
            if dtype is dtypes.float32 and math.isfinite(number):
                try:
                    number = struct.unpack("f", struct.pack("f", number))[0]
                except OverflowError:
                    number = math.copysign(math.inf, number)
            return f"0x{struct.pack('>d', number).hex().upper()}"
        if dtype is dtypes.bool_:
            return "true" if value else "false"
        return str(value)

    # -- values --------------------------------------------------------------------------------------------------------

    def value(self, root: Node) -> str:
        """The register or literal with a node's value; writes what is not there yet."""
        known = self._find(root)
        if known is not None:
            return known
        for node in toposort([root], lambda node: self._find(node) is not None):
            if node.op in (Op.PARAM, Op.REDUCE, Op.RANGE):
                raise Unsupported(f"{node} has no value where the kernel uses it")
            # Positions of vector loads are written for their first lane, by the load.
            if node.op is Op.CONST or (node.op is Op.LOAD and self.lanes(node) > 1):
                self._keep(node, _EMIT[node.op](self, node, self._scope_of(node.ranges)))
            elif self._needed(node, root):
                self._keep(node, self._emit(node))
        found = self._find(root)
        return found if found is not None else self._emit(root)

    def _needed(self, node: Node, root: Node) -> bool:
        return node.op is Op.LOAD or node.dtype is not dtypes.index or self.lanes(node) == 1 or node is root

    def _find(self, node: Node) -> str | None:
        if node.op is Op.CONST:
            return self.literal(node.dtype, node.arg)
        return self._scope_of(node.ranges).values.get(node) if node.op is not Op.RANGE else self._range(node)

    def _range(self, node: Node) -> str | None:
        for scope in reversed(self._scopes):
            if node in scope.values:
                return scope.values[node]
        return None

    def _keep(self, node: Node, value: str) -> None:
        self._scope_of(node.ranges).values[node] = value

    def _emit(self, node: Node) -> str:
        handler = _EMIT.get(node.op)
        if handler is None:
            raise Unsupported(f"no instruction for {node.op} of {node.dtype}")
        value = handler(self, node, self._scope_of(node.ranges))
        self._keep(node, value)
        return value

    def operand(self, node: Node, lanes: int, scope: Scope) -> str:
        """A node's value with as many lanes as its user has."""
        value = self.value(node)
        return value if self.lanes(node) == lanes else self.splat(value, node.dtype, lanes, scope)

    def splat(self, value: str, dtype: DType, lanes: int, scope: Scope) -> str:
        """A scalar in all lanes."""
        base, vector = self.type_of(dtype), self._vector(dtype, lanes)
        if not value.startswith("%"):
            return f"<{', '.join([f'{base} {value}'] * lanes)}>"
        first = self._into(scope, vector, f"insertelement {vector} poison, {base} {value}, i64 0")
        return self._into(scope, vector, f"shufflevector {vector} {first}, {vector} poison, <{lanes} x i32> zeroinitializer")
