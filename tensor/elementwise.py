"""Operations on each element by itself."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes, ir
from amdrv.tensor.core import Core, Operand
from amdrv.tensor.dtypes import DType
from amdrv.tensor.ir import Node, Op, Shape


def broadcast_shape(what: str, *shapes: Shape) -> Shape:
    """The shape of an operation on several. Raises InvalidArgument naming it and them."""
    try:
        return tuple(int(n) for n in np.broadcast_shapes(*shapes))
    except ValueError:
        raise InvalidArgument(f"{what}: shapes {', '.join(map(str, shapes))} do not go together") from None


def expanded(node: Node, shape: Shape) -> Node:
    """A node repeated to a shape it goes with."""
    before = node.shape
    if before == shape or node.op is Op.CONST:
        return node
    if not before:
        return Node(Op.EXPAND, node.dtype, (node,), shape)
    if len(before) < len(shape):
        node = Node(Op.RESHAPE, node.dtype, (node,), (1,) * (len(shape) - len(before)) + before)
    return node if node.shape == shape else Node(Op.EXPAND, node.dtype, (node,), shape)


class Elementwise(Core):
    """Arithmetic, comparisons, functions of one number."""

    __slots__ = ()

    def _apply(self, what: str, op: Op, other: Operand, reverse: bool = False, dtype: DType | None = None) -> Self:
        """An operation on two tensors of any shapes that go together, in the type both are promoted to."""
        b = self._operand(other)
        common = self._common(b, other)
        if dtype is not None and not common.is_float:
            common = dtypes.float64 if common.bits > 32 and common.is_int else dtype
        x, y = (b, self) if reverse else (self, b)
        shape = broadcast_shape(what, x.shape, y.shape)
        nodes = [expanded(part.node.cast(common), shape) for part in (x, y)]
        if all(node.op is Op.CONST for node in nodes) and shape:
            nodes[0] = Node(Op.EXPAND, common, (nodes[0],), shape)
        result = dtypes.bool_ if op in ir.COMPARE else common
        return self._new(Node(op, result, tuple(nodes)), b)

    def _common(self, b: Core, given: Operand) -> DType:
        if isinstance(given, (bool, int, float)):
            return b.dtype
        return dtypes.promote(self.dtype, b.dtype)

    def _unary(self, op: Op) -> Self:
        return self._new(self.node.unary(op))

    def _float(self) -> Self:
        """The same values as floats."""
        if self.dtype.is_float:
            return self
        return self.cast(dtypes.float64 if self.dtype.is_int and self.dtype.bits > 32 else dtypes.float32)

    def cast(self, dtype: object) -> Self:
        """The values in another type."""
        return self._new(self.node.cast(dtypes.of(dtype)))

    astype = cast

    def bitcast(self, dtype: object) -> Self:
        """The same bytes as another type of that size. Raises InvalidArgument for another size."""
        wanted = dtypes.of(dtype)
        if wanted.size_bytes != self.dtype.size_bytes or dtypes.bool_ in (wanted, self.dtype):
            raise InvalidArgument(f"bitcast: {self.dtype} and {wanted} have different sizes or a bool among them")
        return self._new(self.node.bitcast(wanted))

    def __add__(self, other: Operand) -> Self:
        return self._apply("add", Op.ADD, other)

    def __radd__(self, other: Operand) -> Self:
        return self._apply("add", Op.ADD, other, reverse=True)

    def __sub__(self, other: Operand) -> Self:
        return self._apply("subtract", Op.SUB, other)

    def __rsub__(self, other: Operand) -> Self:
        return self._apply("subtract", Op.SUB, other, reverse=True)

    def __mul__(self, other: Operand) -> Self:
        return self._apply("multiply", Op.MUL, other)

    def __rmul__(self, other: Operand) -> Self:
        return self._apply("multiply", Op.MUL, other, reverse=True)

    def __truediv__(self, other: Operand) -> Self:
        return self._apply("divide", Op.DIV, other, dtype=dtypes.float32)

    def __rtruediv__(self, other: Operand) -> Self:
        return self._apply("divide", Op.DIV, other, reverse=True, dtype=dtypes.float32)

    def __floordiv__(self, other: Operand) -> Self:
        b = self._operand(other)
        if self._common(b, other).is_float:
            return (self / other).floor()
        return self._apply("floor_divide", Op.IDIV, other)

    def __rfloordiv__(self, other: Operand) -> Self:
        return self._operand(other) // self

    def __mod__(self, other: Operand) -> Self:
        b = self._operand(other)
        if self._common(b, other).is_float:
            return self - (self / other).floor() * other
        return self._apply("remainder", Op.MOD, other)

    def __rmod__(self, other: Operand) -> Self:
        return self._operand(other) % self

    def __pow__(self, other: Operand) -> Self:
        if isinstance(other, (int, float)) and not isinstance(other, bool) and self.dtype.is_float:
            if other == 2:
                return self * self
            if other == 0.5:
                return self.sqrt()
            if float(other).is_integer() and 0 < abs(other) <= 8:
                result = self
                for _ in range(abs(int(other)) - 1):
                    result = result * self
                return result if other > 0 else 1.0 / result
        return self._apply("pow", Op.POW, other)

    def __rpow__(self, other: Operand) -> Self:
        return self._apply("pow", Op.POW, other, reverse=True)

    def __and__(self, other: Operand) -> Self:
        return self._bits("bitwise_and", Op.AND, other)

    def __or__(self, other: Operand) -> Self:
        return self._bits("bitwise_or", Op.OR, other)

    def __xor__(self, other: Operand) -> Self:
        return self._bits("bitwise_xor", Op.XOR, other)

    def __lshift__(self, other: Operand) -> Self:
        return self._bits("bitwise_left_shift", Op.SHL, other)

    def __rshift__(self, other: Operand) -> Self:
        return self._bits("bitwise_right_shift", Op.SHR, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def _bits(self, what: str, op: Op, other: Operand) -> Self:
        b = self._operand(other)
        if self.dtype.is_float or b.dtype.is_float:
            raise InvalidArgument(f"{what}: {self.dtype} and {b.dtype} are not all integers")
        return self._apply(what, op, other)

    def __invert__(self) -> Self:
        if self.dtype.is_float:
            raise InvalidArgument(f"bitwise_invert: {self.dtype} is no integer")
        return self ^ (True if self.dtype is dtypes.bool_ else -1)

    def __neg__(self) -> Self:
        return self._unary(Op.NEG)

    def __pos__(self) -> Self:
        return self

    def abs(self) -> Self:
        return (self < 0).where(-self, self) if self.dtype.kind in ("int", "float") else self

    __abs__ = abs

    def __lt__(self, other: Operand) -> Self:
        return self._apply("less", Op.LT, other)

    def __gt__(self, other: Operand) -> Self:
        return self._apply("greater", Op.LT, other, reverse=True)

    def __le__(self, other: Operand) -> Self:
        return (self < other) | self.equal(other)

    def __ge__(self, other: Operand) -> Self:
        return (self > other) | self.equal(other)

    def equal(self, other: Operand) -> Self:
        """Where both are equal."""
        return self._apply("equal", Op.EQ, other)

    def __eq__(self, other: object) -> Self:  # type: ignore[override]
        return self.equal(other)

    def __ne__(self, other: object) -> Self:  # type: ignore[override]
        return ~self.equal(other)

    __hash__ = Core.__hash__

    def maximum(self, other: Operand) -> Self:
        """The greater of both; NaN where one is."""
        return self._apply("maximum", Op.MAX, other)

    def minimum(self, other: Operand) -> Self:
        """The lesser of both; NaN where one is."""
        return self._apply("minimum", Op.MIN, other)

    def clip(self, low: Operand = None, high: Operand = None) -> Self:
        """The nearest value between two limits."""
        found = self if low is None else self.maximum(low)
        return found if high is None else found.minimum(high)

    def where(self, a: Operand, b: Operand) -> Self:
        """``a`` where this bool tensor is true, else ``b``."""
        first = next((part for part in (a, b) if isinstance(part, type(self))), None)
        x, y = (self._operand(part, _scalar_type(part)) if first is None else first._operand(part) for part in (a, b))
        common = dtypes.promote(x.dtype, y.dtype)
        shape = broadcast_shape("where", self.shape, x.shape, y.shape)
        nodes = [
            expanded(part.cast(kind).node, shape) for part, kind in ((self, dtypes.bool_), (x, common), (y, common))
        ]
        if all(node.op is Op.CONST for node in nodes) and shape:
            nodes[1] = Node(Op.EXPAND, common, (nodes[1],), shape)
        return self._new(Node(Op.WHERE, common, tuple(nodes)), x, y)

    def exp(self) -> Self:
        return self._float()._unary(Op.EXP)

    def exp2(self) -> Self:
        return self._float()._unary(Op.EXP2)

    def log(self) -> Self:
        return self._float()._unary(Op.LOG)

    def log2(self) -> Self:
        return self._float()._unary(Op.LOG2)

    def log10(self) -> Self:
        return self.log() * (1 / math.log(10))

    def log1p(self) -> Self:
        """log(1 + x), accurate for small x."""
        x = self._float()
        u = x + 1.0
        # The rounding of 1 + x is made good by the quotient (Kahan).
        return u.equal(1.0).where(x, u.equal(math.inf).where(u, u.log() * (x / (u - 1.0))))

    def expm1(self) -> Self:
        """exp(x) - 1, accurate for small x."""
        x = self._float()
        half = (x * 0.5).tanh()
        return (x.abs() < 1.0).where(half * 2.0 / (1.0 - half), x.exp() - 1.0)

    def sqrt(self) -> Self:
        return self._float()._unary(Op.SQRT)

    def rsqrt(self) -> Self:
        return 1.0 / self.sqrt()

    def reciprocal(self) -> Self:
        return 1.0 / self

    def square(self) -> Self:
        return self * self

    def sin(self) -> Self:
        return self._float()._unary(Op.SIN)

    def cos(self) -> Self:
        return self._float()._unary(Op.COS)

    def tan(self) -> Self:
        return self.sin() / self.cos()

    def atan(self) -> Self:
        x = self._float()
        size = x.abs()
        # Half a right angle off for what is nearer to it; the reciprocal beyond one.
        inner = (size > 1.0).where(1.0 / size, size)
        turned = inner > math.tan(math.pi / 8)
        t = turned.where((inner - 1.0) / (inner + 1.0), inner)
        squared = t * t
        terms = 10 if x.dtype.bits <= 32 else 21
        series = x._operand((-1) ** (terms - 1) / (2 * terms - 1), x.dtype)
        for k in reversed(range(terms - 1)):
            series = series * squared + (-1) ** k / (2 * k + 1)
        angle = t * series + turned.where(x._operand(math.pi / 4, x.dtype), 0.0)
        angle = (size > 1.0).where(math.pi / 2 - angle, angle)
        return (x < 0).where(-angle, angle)

    def asin(self) -> Self:
        x = self._float()
        return (x / ((1.0 - x) * (1.0 + x)).sqrt()).atan()

    def acos(self) -> Self:
        x = self._float()
        return ((1.0 - x) / (1.0 + x)).sqrt().atan() * 2.0

    def atan2(self, other: Operand) -> Self:
        """The angle of the point (other, self) from the first axis."""
        y, x = self._float(), self._operand(other)._float()
        angle = (y / x).atan()
        half = (y < 0).where(y._operand(-math.pi, y.dtype), math.pi)
        angle = (x < 0).where(angle + half, angle)
        return (y.equal(0) & x.equal(0)).where(y, angle)

    def asinh(self) -> Self:
        x = self._float()
        size = x.abs()
        found = (size + size * size / (1.0 + (size * size + 1.0).sqrt())).log1p()
        return (x < 0).where(-found, found)

    def acosh(self) -> Self:
        x = self._float()
        return (x - 1.0 + ((x - 1.0) * (x + 1.0)).sqrt()).log1p()

    def atanh(self) -> Self:
        x = self._float()
        return (x * 2.0 / (1.0 - x)).log1p() * 0.5

    def logaddexp(self, other: Operand) -> Self:
        """log(exp(x) + exp(y)) without overflow."""
        x, y = self._float(), self._operand(other)._float()
        most = x.maximum(y)
        return most.isfinite().where(most + (-(x - y).abs()).exp().log1p(), x + y)

    def erf(self) -> Self:
        return self._float()._unary(Op.ERF)

    def tanh(self) -> Self:
        x = self._float()
        size = x.abs()
        # Near zero the quotient loses digits: the continued fraction does not.
        s = x * x
        near = x / (1.0 + s / (3.0 + s / (5.0 + s / (7.0 + s / (9.0 + s / (11.0 + s / 13.0))))))
        e = (size * -2.0).exp()
        far = (1.0 - e) / (1.0 + e)
        return (size < 0.55).where(near, (x < 0).where(-far, far))

    def sinh(self) -> Self:
        x = self._float()
        return (x.exp() - (-x).exp()) * 0.5

    def cosh(self) -> Self:
        x = self._float()
        return (x.exp() + (-x).exp()) * 0.5

    def sigmoid(self) -> Self:
        return 1.0 / (1.0 + (-self).exp())

    def relu(self) -> Self:
        return self.maximum(0)

    def leaky_relu(self, slope: float = 0.01) -> Self:
        return (self > 0).where(self, self * slope)

    def elu(self, alpha: float = 1.0) -> Self:
        return (self > 0).where(self, (self.minimum(0).exp() - 1.0) * alpha)

    def silu(self) -> Self:
        return self * self.sigmoid()

    def gelu(self, approximate: str = "none") -> Self:
        """x times the chance that a normal variate is less than x; ``approximate`` "tanh" as in GPT-2."""
        if approximate == "tanh":
            return self * 0.5 * (1.0 + ((self + self * self * self * 0.044715) * math.sqrt(2 / math.pi)).tanh())
        return self * 0.5 * (1.0 + (self * math.sqrt(0.5)).erf())

    def softplus(self) -> Self:
        return self.maximum(0) + (-self.abs()).exp().log1p()

    def floor(self) -> Self:
        return self._unary(Op.FLOOR) if self.dtype.is_float else self

    def ceil(self) -> Self:
        return -((-self).floor()) if self.dtype.is_float else self

    def round(self) -> Self:
        """To the nearest integer, ties to even."""
        return self._unary(Op.RINT) if self.dtype.is_float else self

    def trunc(self) -> Self:
        return (self < 0).where(self.ceil(), self.floor()) if self.dtype.is_float else self

    def sign(self) -> Self:
        one = self._operand(1, self.dtype)
        zero = self._operand(0, self.dtype)
        found = (self > 0).where(one, (self < 0).where(-one, zero) if self.dtype.kind != "uint" else zero)
        return (self == self).where(found, self) if self.dtype.is_float else found

    def isnan(self) -> Self:
        return ~(self == self)

    def isfinite(self) -> Self:
        return (self - self).equal(0) if self.dtype.is_float else self == self

    def isinf(self) -> Self:
        return self.abs().equal(math.inf) if self.dtype.is_float else ~(self == self)

    def logical_not(self) -> Self:
        return ~self.cast(dtypes.bool_)

    def logical_and(self, other: Any) -> Self:
        return self.cast(dtypes.bool_) & self._operand(other).cast(dtypes.bool_)

    def logical_or(self, other: Any) -> Self:
        return self.cast(dtypes.bool_) | self._operand(other).cast(dtypes.bool_)


def _scalar_type(value: Operand) -> DType | None:
    return dtypes.of_scalar(value) if isinstance(value, (bool, int, float)) else None
