"""Operations on each element by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self, TypeVar

import numpy as np

from amdrv.tensor import dtypes, ir
from amdrv.tensor.core import BadType, Core, Misfit, Operand
from amdrv.tensor.dtypes import DType
from amdrv.tensor.ir import Node, Op, Shape

S = TypeVar("S", bound="Elementwise")
BITWISE = frozenset({Op.AND, Op.OR, Op.XOR, Op.SHL, Op.SHR})
HUGE = 1e9  # where adding one to a square changes nothing


def broadcast_shape(what: str, *shapes: Shape) -> Shape:
    """The shape of an operation on several. Raises InvalidArgument naming it and them."""
    try:
        return tuple(int(n) for n in np.broadcast_shapes(*shapes))
    except ValueError:
        raise Misfit(f"{what}: shapes {', '.join(map(str, shapes))} do not go together") from None


def expanded(node: Node, shape: Shape) -> Node:
    """A node repeated to a shape it goes with."""
    before = node.shape
    if before == shape or node.op is Op.CONST:
        return node
    if not before:
        return node.unary(Op.EXPAND, shape)
    if len(before) < len(shape):
        node = node.unary(Op.RESHAPE, (1,) * (len(shape) - len(before)) + before)
    return node if node.shape == shape else node.unary(Op.EXPAND, shape)


def _operator(what: str, op: Op, reverse: bool = False) -> Callable[[S, Operand], S]:
    """The method for an operator; see ``Elementwise._apply``."""
    return lambda tensor, other: tensor._apply(what, op, other, reverse)


def _reversed(name: str) -> Callable[[S, Operand], S]:
    return lambda tensor, other: getattr(tensor._operand(other), name)(tensor)


def _logical(name: str) -> Callable[[S, Operand], S]:
    return lambda tensor, other: getattr(tensor.cast(dtypes.bool_), name)(tensor._operand(other).cast(dtypes.bool_))


def _of_floats(op: Op) -> Callable[[S], S]:
    return lambda tensor: tensor._float()._unary(op)


class Elementwise(Core):
    """Arithmetic, comparisons, functions of one number."""

    __slots__ = ()

    def _apply(self, what: str, op: Op, other: Operand, reverse: bool = False) -> Self:
        """An operation on two tensors of any shapes that go together, in the type both are promoted to."""
        b = self._operand(other)
        if op in BITWISE and (self.dtype.is_float or b.dtype.is_float):
            raise BadType(f"{what}: {self.dtype} and {b.dtype} are not all integers")
        common = self._common(b, other)
        common = dtypes.floating(common) if op is Op.DIV else common
        x, y = (b, self) if reverse else (self, b)
        shape = broadcast_shape(what, x.shape, y.shape)
        nodes = tuple(expanded(part.node.cast(common), shape) for part in (x, y))
        return self._new(Node(op, dtypes.bool_ if op in ir.COMPARE else common, nodes), b)

    def _common(self, b: Core, given: Operand) -> DType:
        if isinstance(given, (bool, int, float)):
            return b.dtype
        return dtypes.promote(self.dtype, b.dtype)

    def _unary(self, op: Op) -> Self:
        return self._new(self.node.unary(op))

    def _float(self) -> Self:
        """The same values as floats."""
        return self if self.dtype.is_float else self.cast(dtypes.floating(self.dtype))

    def cast(self, dtype: object) -> Self:
        """The values in another type."""
        return self._new(self.node.cast(dtypes.of(dtype)))

    astype = cast

    def bitcast(self, dtype: object) -> Self:
        """The same bytes as another type of that size. Raises InvalidArgument for another size."""
        wanted = dtypes.of(dtype)
        if wanted.size_bytes != self.dtype.size_bytes or dtypes.bool_ in (wanted, self.dtype):
            raise Misfit(f"bitcast: {self.dtype} and {wanted} have different sizes or a bool among them")
        return self._new(self.node.bitcast(wanted))

    __add__ = _operator("add", Op.ADD)
    __radd__ = _operator("add", Op.ADD, reverse=True)
    __sub__ = _operator("subtract", Op.SUB)
    __rsub__ = _operator("subtract", Op.SUB, reverse=True)
    __mul__ = _operator("multiply", Op.MUL)
    __rmul__ = _operator("multiply", Op.MUL, reverse=True)
    __truediv__ = _operator("divide", Op.DIV)
    __rtruediv__ = _operator("divide", Op.DIV, reverse=True)
    __rpow__ = _operator("pow", Op.POW, reverse=True)
    __rfloordiv__ = _reversed("__floordiv__")
    __rmod__ = _reversed("__mod__")
    __rlshift__ = _reversed("__lshift__")
    __rrshift__ = _reversed("__rshift__")
    __and__ = __rand__ = _operator("bitwise_and", Op.AND)
    __or__ = __ror__ = _operator("bitwise_or", Op.OR)
    __xor__ = __rxor__ = _operator("bitwise_xor", Op.XOR)
    __lt__ = _operator("less", Op.LT)
    __gt__ = _operator("greater", Op.LT, reverse=True)

    def __floordiv__(self, other: Operand) -> Self:
        if self._common(self._operand(other), other).is_float:
            return self._divided(other)[0]
        return self._apply("floor_divide", Op.IDIV, other)

    def __mod__(self, other: Operand) -> Self:
        if self._common(self._operand(other), other).is_float:
            return self._divided(other)[1]
        return self._apply("remainder", Op.MOD, other)

    def _divided(self, other: Operand) -> tuple[Self, Self]:
        """The quotient of floats rounded down, and the remainder, which has the divisor's sign.

        The remainder is exact while the quotient has no more digits than the type (for float32: 29 bits).
        """
        x, y, dtype = self._floats(other)
        x, y = x.cast(dtypes.float64), y.cast(dtypes.float64)
        quotient = (x / y).floor()
        rest = x - quotient * y
        if dtype is dtypes.float64:  # the product's rounding, found with halves of its factors (Dekker)
            (a, b), (c, d) = _halves(quotient), _halves(y)
            error = (((a * c - quotient * y) + a * d + b * c) + b * d).detach()
            rest = rest - error.isfinite().where(error, 0.0)
        opposed = rest.not_equal(0) & ((rest < 0) ^ (y < 0))
        quotient, rest = opposed.where(quotient - 1.0, quotient), opposed.where(rest + y, rest)
        beyond = y.isinf() & x.isfinite()
        same = x.equal(0) | ~((x < 0) ^ (y < 0))
        quotient = beyond.where(same.where(0.0, -1.0).copysign(x / y), quotient)
        rest = beyond.where(same.where(x, y), rest)
        return quotient.cast(dtype), rest.equal(0).where(y.signbit().where(-(0.0 - rest), rest + 0.0), rest).cast(dtype)

    def __pow__(self, other: Operand) -> Self:
        if isinstance(other, (int, float)) and self._common(self._operand(other), other) is self.dtype:
            if other == 0.5:  # but a power of -0.0 or of minus infinity has no sign
                return self.equal(-math.inf).where(math.inf, (self + 0.0).sqrt())
            if float(other).is_integer() and (0 < other <= 8 or (self.dtype.is_float and -8 <= other < 0)):
                result = self
                for _ in range(abs(int(other)) - 1):
                    result = result * self
                return result if other > 0 else 1.0 / result
        return self._apply("pow", Op.POW, other)

    def __lshift__(self, other: Operand) -> Self:
        return self._shift("bitwise_left_shift", Op.SHL, other)

    def __rshift__(self, other: Operand) -> Self:
        return self._shift("bitwise_right_shift", Op.SHR, other)

    def _shift(self, what: str, op: Op, other: Operand) -> Self:
        """Bits moved; by more than there are, as often as there are."""
        found = self._apply(what, op, other)
        if isinstance(other, int) and 0 <= other < found.dtype.bits:
            return found
        by, last = self._operand(other).cast(found.dtype), found.dtype.bits - 1
        within = (by >= 0) & (by <= last)
        most = (self.cast(found.dtype) >> last) * (op is Op.SHR and found.dtype.kind == "int")
        return within.where(self._apply(what, op, within.where(by, 0)), most)

    def __invert__(self) -> Self:
        if self.dtype.is_float:
            raise BadType(f"bitwise_invert: {self.dtype} is no integer")
        return self ^ (-1 if self.dtype.kind == "int" else self.dtype.limits[1])

    def __neg__(self) -> Self:
        return self._unary(Op.NEG)

    def __pos__(self) -> Self:
        return self._new(self.node)  # another tensor, which arithmetic in place changes alone

    def abs(self) -> Self:
        """The size without the sign; its gradient is zero at zero."""
        return self.equal(0).where(0, self._size()) if self.dtype.is_float else self._size()

    __abs__ = abs

    def _size(self) -> Self:
        return self.signbit().where(-self, self) if self.dtype.kind in ("int", "float") else +self

    def signbit(self) -> Self:
        """Where the sign is minus; that of zero counts."""
        x = self.cast(self.dtype.compute)
        return (x.bitcast(f"int{x.dtype.bits}") if x.dtype.is_float else x) < 0

    def copysign(self, other: Operand) -> Self:
        """The size of this with the other's sign."""
        x, y, _ = self._floats(other)
        return (x.signbit() ^ y.signbit()).where(-x, x)

    def nextafter(self, other: Operand) -> Self:
        """The next number in the direction of the other."""
        x, y, dtype = self._floats(other)
        bits = x.bitcast(f"int{dtype.bits}")
        moved = ((x < y) ^ x.signbit()).where(bits + 1, bits - 1)
        moved = x.equal(0).where(1, moved).bitcast(dtype)
        moved = x.equal(0).where(moved.copysign(y), moved)
        return x.equal(y).where(y, (x.isnan() | y.isnan()).where(x + y, moved))

    def _floats(self, other: Operand) -> tuple[Self, Self, DType]:
        """Both as floats of one type, and the type."""
        b = self._operand(other)
        dtype = dtypes.floating(self._common(b, other))
        return self.cast(dtype), b.cast(dtype), dtype

    def __le__(self, other: Operand) -> Self:
        return (self < other) | self.equal(other)

    def __ge__(self, other: Operand) -> Self:
        return (self > other) | self.equal(other)

    def equal(self, other: Operand) -> Self:
        """Where both are equal."""
        return self._apply("equal", Op.EQ, other)

    def __eq__(self, other: object) -> Self:  # type: ignore[override]
        return self.equal(other)

    def not_equal(self, other: Operand) -> Self:
        """Where they differ."""
        return ~self.equal(other)

    def __ne__(self, other: object) -> Self:  # type: ignore[override]
        return self.not_equal(other)

    __hash__ = Core.__hash__

    def maximum(self, other: Operand) -> Self:
        """The greater of both; NaN where one is."""
        return self._apply("maximum", Op.MAX, other)

    def minimum(self, other: Operand) -> Self:
        """The lesser of both; NaN where one is."""
        return self._apply("minimum", Op.MIN, other)

    def clip(self, low: Operand = None, high: Operand = None) -> Self:
        """The nearest value between two limits."""
        found = +self if low is None else self.maximum(low)
        return found if high is None else found.minimum(high)

    def where(self, a: Operand, b: Operand) -> Self:
        """``a`` where this bool tensor is true, else ``b``."""
        first = next((part for part in (a, b) if isinstance(part, type(self))), None)
        x, y = (self._operand(part, _scalar_type(part)) if first is None else first._operand(part) for part in (a, b))
        common = dtypes.promote(x.dtype, y.dtype)
        shape = broadcast_shape("where", self.shape, x.shape, y.shape)
        parts = (self.cast(dtypes.bool_), x.cast(common), y.cast(common))
        return self._new(Node(Op.WHERE, common, tuple(expanded(part.node, shape) for part in parts)), x, y)

    exp = _of_floats(Op.EXP)
    exp2 = _of_floats(Op.EXP2)
    log = _of_floats(Op.LOG)
    log2 = _of_floats(Op.LOG2)
    sqrt = _of_floats(Op.SQRT)
    sin = _of_floats(Op.SIN)
    cos = _of_floats(Op.COS)
    erf = _of_floats(Op.ERF)

    def log10(self) -> Self:
        return self.log() * (1 / math.log(10))

    def log1p(self) -> Self:
        """log(1 + x), accurate for small x."""
        x = self._float()
        u = x + 1.0
        # The rounding of 1 + x is made good by the quotient (Kahan). Here and below, what ``where`` does not choose is
        # kept finite, because its gradient is multiplied with zero.
        quotient = (x / u.equal(1.0).where(1.0, u - 1.0)).detach()
        return u.equal(1.0).where(x, u.equal(math.inf).where(u, u.log() * quotient))

    def expm1(self) -> Self:
        """exp(x) - 1, accurate for small x."""
        x = self._float()
        half = (x.minimum(1.0) * 0.5).tanh()
        return (x._size() < 1.0).where(half * 2.0 / (1.0 - half), x.exp() - 1.0)

    def rsqrt(self) -> Self:
        return 1.0 / self.sqrt()

    def reciprocal(self) -> Self:
        return 1.0 / self

    def square(self) -> Self:
        return self * self

    def tan(self) -> Self:
        return self.sin() / self.cos()

    def atan(self) -> Self:
        x = self._float()
        size = x._size()
        # Half a right angle off for what is nearer to it; the reciprocal beyond one.
        inner = (size > 1.0).where(1.0 / size.maximum(1.0), size)
        turned = inner > math.tan(math.pi / 8)
        t = turned.where((inner - 1.0) / (inner + 1.0), inner)
        squared = t * t
        terms = 10 if x.dtype.bits <= 32 else 21
        series = x._operand((-1) ** (terms - 1) / (2 * terms - 1), x.dtype)
        for k in reversed(range(terms - 1)):
            series = series * squared + (-1) ** k / (2 * k + 1)
        angle = t * series + turned.where(x._operand(math.pi / 4, x.dtype), 0.0)
        return (size > 1.0).where(math.pi / 2 - angle, angle).copysign(x)

    def asin(self) -> Self:
        x = self._float()
        return (x / ((1.0 - x) * (1.0 + x)).sqrt()).atan()

    def acos(self) -> Self:
        x = self._float()
        return ((1.0 - x) / (1.0 + x)).sqrt().atan() * 2.0

    def atan2(self, other: Operand) -> Self:
        """The angle of the point (other, self) from the first axis."""
        y, x, _ = self._floats(other)
        a, b = y._size(), x._size()
        steep = a > b
        most = steep.where(a, b)
        least = steep.where(b, a) / most.equal(0).where(1.0, most)
        angle = (a.isinf() & b.isinf()).where(1.0, least).atan()
        angle = steep.where(math.pi / 2 - angle, angle)
        return x.signbit().where(math.pi - angle, angle).copysign(y)

    def asinh(self) -> Self:
        x = self._float()
        size = x._size()
        near = size.minimum(HUGE)
        found = (near + near * near / (1.0 + (near * near + 1.0).sqrt())).log1p()
        return (size < HUGE).where(found, size.maximum(HUGE).log() + math.log(2)).copysign(x)

    def acosh(self) -> Self:
        x = self._float()
        near = x.minimum(HUGE) - 1.0
        return (x > HUGE).where(x.maximum(HUGE).log() + math.log(2), (near + near.sqrt() * (near + 2.0).sqrt()).log1p())

    def atanh(self) -> Self:
        x = self._float()
        size = x._size()
        return ((size * 2.0 / (1.0 - size)).log1p() * 0.5).copysign(x)

    def hypot(self, other: Operand) -> Self:
        """sqrt(x² + y²) without overflow."""
        x, y, _ = self._floats(other)
        a, b = x._size(), y._size()
        most = a.maximum(b)
        ratio = a.minimum(b) / most.equal(0).where(1.0, most)
        found = most * (ratio * ratio + 1.0).sqrt()
        return (a.equal(math.inf) | b.equal(math.inf)).where(math.inf, found)

    def logaddexp(self, other: Operand) -> Self:
        """log(exp(x) + exp(y)) without overflow."""
        x, y, _ = self._floats(other)
        most = x.maximum(y)
        return most.isfinite().where(most + (x - y).minimum(y - x).exp().log1p(), most)

    def tanh(self) -> Self:
        x = self._float()
        size = x._size()
        # Near zero the quotient loses digits: the continued fraction does not.
        s = x * x
        near = x / (1.0 + s / (3.0 + s / (5.0 + s / (7.0 + s / (9.0 + s / (11.0 + s / 13.0))))))
        e = (size * -2.0).exp()
        far = (1.0 - e) / (1.0 + e)
        return (size < 0.55).where(near, (x < 0).where(-far, far))

    def sinh(self) -> Self:
        x = self._float()
        size = x._size()
        half, e = (size * 0.5).exp(), size.minimum(1.0).expm1()
        return (size < 1.0).where((e + e / (e + 1.0)) * 0.5, half * 0.5 * half - 0.5 / half / half).copysign(x)

    def cosh(self) -> Self:
        half = (self._float()._size() * 0.5).exp()
        return half * 0.5 * half + 0.5 / half / half

    def sigmoid(self) -> Self:
        e = (-self._float()._size()).exp()
        found = 1.0 / (1.0 + e)
        return self.signbit().where(e * found, found)

    def relu(self) -> Self:
        return (self > 0).where(self, self.maximum(0).detach())  # the maximum's own gradient at zero is a half

    def leaky_relu(self, slope: float = 0.01) -> Self:
        return (self > 0).where(self, self * slope)

    def elu(self, alpha: float = 1.0) -> Self:
        above = self > 0
        return above.where(self, (above.where(0, self).exp() - 1.0) * alpha)

    def silu(self) -> Self:
        return self * self.sigmoid()

    def gelu(self, approximate: str = "none") -> Self:
        """x times the chance that a normal variate is less than x; ``approximate`` "tanh" as in GPT-2."""
        if approximate == "tanh":
            return self * 0.5 * (1.0 + ((self + self * self * self * 0.044715) * math.sqrt(2 / math.pi)).tanh())
        return self * 0.5 * (1.0 + (self * math.sqrt(0.5)).erf())

    def softplus(self) -> Self:
        return self.maximum(0) + self.minimum(-self).exp().log1p()

    def floor(self) -> Self:
        return self._unary(Op.FLOOR) if self.dtype.is_float else +self

    def ceil(self) -> Self:
        return -((-self).floor()) if self.dtype.is_float else +self

    def round(self) -> Self:
        """To the nearest integer, ties to even."""
        return self._unary(Op.RINT) if self.dtype.is_float else +self

    def trunc(self) -> Self:
        return (self < 0).where(self.ceil(), self.floor()) if self.dtype.is_float else +self

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
        return self._size().equal(math.inf) if self.dtype.is_float else ~(self == self)

    def logical_not(self) -> Self:
        return ~self.cast(dtypes.bool_)

    logical_and = _logical("__and__")
    logical_or = _logical("__or__")
    logical_xor = _logical("__xor__")


def _in_place(name: str) -> Callable[[Any, Operand], Any]:
    def method(self: Any, other: Operand) -> Any:
        return self._become(getattr(self, name)(other))

    method.__doc__ = f"x becomes ``x.{name}(other)``. Raises InvalidArgument when that has another shape or type."
    return method


_WORDS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
for _name in _WORDS:
    setattr(Elementwise, f"__i{_name}__", _in_place(f"__{_name}__"))


# The names that tracebacks and the page of ``viz`` show are those of the code.
for _name, _method in vars(Elementwise).items():
    if getattr(_method, "__name__", "") == "<lambda>":
        _method.__name__, _method.__code__ = _name, _method.__code__.replace(co_name=_name)


def _halves(x: Any) -> tuple[Any, Any]:
    """A float64 as a sum of two with half as many digits, whose products are exact."""
    high = x * 134217729.0
    high = high - (high - x)
    return high, x - high


def _scalar_type(value: Operand) -> DType | None:
    return dtypes.of_scalar(value) if isinstance(value, (bool, int, float)) else None
