"""LLVM instructions for operations: those of ``tables/llvm``, and a function for each that takes more than one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amdrv.tensor import dtypes, symbolic
from amdrv.tensor.dtypes import DType
from amdrv.tensor.ir import COMPARE, Node, Op
from amdrv.tensor.tables.llvm import INSTRUCTIONS, INTRINSICS

if TYPE_CHECKING:
    from amdrv.tensor.emit import Emitter, Scope


def kind(dtype: DType) -> int:
    """The column of the tables of instructions."""
    return 0 if dtype.is_float else 1 if dtype.kind in ("int", "index") else 2


def many(llvm_type: str, lanes: int) -> str:
    """The type of a value in each lane."""
    return llvm_type if lanes == 1 else f"<{lanes} x {llvm_type}>"


def _emit_alu(self: Emitter, node: Node, scope: Scope) -> str:
    lanes = self.lanes(node)
    operands = [self.operand(source, lanes, scope) for source in node.src]
    return self.into(scope, self.alu(node.op, node.src[0].dtype, lanes, operands))


def _emit_where(self: Emitter, node: Node, scope: Scope) -> str:
    lanes = self.lanes(node)
    condition, a, b = node.src
    vector = self.vector(node.dtype, lanes)
    chosen = f"{many('i1', self.lanes(condition))} {self.value(condition)}"  # a scalar where all lanes share it
    values = [self.operand(source, lanes, scope) for source in (a, b)]
    return self.into(scope, f"select {chosen}, {vector} {values[0]}, {vector} {values[1]}")


def _emit_position(self: Emitter, node: Node, scope: Scope) -> str:
    """A position's quotient rounded down, or the remainder that goes with it; divisors are positive."""
    lanes, vector, quotient = self.lanes(node), self.vector(node.dtype, self.lanes(node)), node.op is Op.IDIV
    a, b = (self.operand(source, lanes, scope) for source in node.src)
    if symbolic.bounds(node.src[0])[0] >= 0:
        return self.into(scope, f"{'udiv' if quotient else 'urem'} {vector} {a}, {b}")
    rest = self.into(scope, f"srem {vector} {a}, {b}")
    below = self.into(scope, f"icmp slt {vector} {rest}, zeroinitializer")
    more = self.into(scope, f"select {many('i1', lanes)} {below}, {vector} {b}, {vector} zeroinitializer")
    rest = self.into(scope, f"add {vector} {rest}, {more}")
    if not quotient:
        return rest
    return self.into(scope, f"sdiv {vector} {self.into(scope, f'sub {vector} {a}, {rest}')}, {b}")


def _emit_cast(self: Emitter, node: Node, scope: Scope) -> str:
    lanes, (source,) = self.lanes(node), node.src[:1]
    value = self.operand(source, lanes, scope)
    before, after = self.vector(source.dtype, lanes), self.vector(node.dtype, lanes)
    if before == after and source.dtype is not dtypes.bool_ and source.dtype.is_float == node.dtype.is_float:
        return value
    if node.dtype is dtypes.bool_:
        test = "fcmp une" if source.dtype.is_float else "icmp ne"
        return self.into(scope, f"{test} {before} {value}, zeroinitializer")
    from_float, to_float = source.dtype.is_float, node.dtype.is_float
    signed = kind(source.dtype) == 1
    if from_float and to_float:
        wider = node.dtype.bits > source.dtype.bits
        return self.into(scope, f"{'fpext' if wider else 'fptrunc'} {before} {value} to {after}")
    if to_float:
        return self.into(scope, f"{'sitofp' if signed else 'uitofp'} {before} {value} to {after}")
    if from_float:
        name = f"llvm.fpto{'si' if kind(node.dtype) == 1 else 'ui'}.sat"
        mangled = f"{self.mangled(node.dtype, lanes)}.{self.mangled(source.dtype, lanes)}"
        return self.into(scope, self.call(f"{name}.{mangled}", after, [(before, value)]))
    narrower = self.bits_of(node.dtype) < self.bits_of(source.dtype)
    return self.into(scope, f"{'trunc' if narrower else 'sext' if signed else 'zext'} {before} {value} to {after}")


def _emit_bitcast(self: Emitter, node: Node, scope: Scope) -> str:
    lanes = self.lanes(node)
    value = self.operand(node.src[0], lanes, scope)
    before, after = self.vector(node.src[0].dtype, lanes), self.vector(node.dtype, lanes)
    return value if before == after else self.into(scope, f"bitcast {before} {value} to {after}")


def _emit_part(self: Emitter, node: Node, scope: Scope) -> str:
    (source,) = node.src
    kind_name = "<8 x float>" if source.op is Op.REDUCE else self.vector(source.dtype, self.lanes(source))
    return self.into(scope, f"extractelement {kind_name} {self.value(source)}, i64 {node.arg}")


_Handler = Callable[["Emitter", Node, "Scope"], str]
HANDLERS: dict[Op, _Handler] = {
    **dict.fromkeys({*INSTRUCTIONS, *INTRINSICS, *COMPARE}, _emit_alu),
    Op.WHERE: _emit_where,
    Op.IDIV: _emit_position,
    Op.MOD: _emit_position,
    Op.CAST: _emit_cast,
    Op.BITCAST: _emit_bitcast,
    Op.LOAD: lambda emitter, node, scope: emitter.load(node, scope),
    Op.PART: _emit_part,
}
