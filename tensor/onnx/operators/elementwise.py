"""Operators on each element by itself: arithmetic, logic, comparisons, activations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np

from amdrv.tensor import dtypes
from amdrv.tensor.onnx.registry import Call, Operator, Value, host, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)

# -- tables: operators that are one formula ----------------------------------------------------------------------------

UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    **{name: getattr(Tensor, name.lower()) for name in (
        *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Tanh", "Asinh", "Acosh", "Atanh", "Exp", "Log"),
        *("Sqrt", "Erf", "Floor", "Ceil", "Round", "Sign", "Sigmoid", "Relu", "Softplus", "Reciprocal", "IsNaN"),
    )},
    "Abs": lambda x: x.abs(),
    "Neg": lambda x: -x,
    "Not": lambda x: x.logical_not(),
    "BitwiseNot": lambda x: ~x,
    "Softsign": lambda x: x / (1.0 + x.abs()),
    "HardSwish": lambda x: x * (x * (1 / 6) + 0.5).clip(0.0, 1.0),
    "Mish": lambda x: x * x.softplus().tanh(),
}  # fmt: skip

# Activations with parameters: the formula, and the defaults of its attributes.
ACTIVATIONS: Mapping[str, tuple[Callable[..., Tensor], Mapping[str, float]]] = {
    "LeakyRelu": (lambda x, alpha: (x < 0).where(x * alpha, x), {"alpha": 0.01}),
    "Elu": (lambda x, alpha: (x < 0).where(x.minimum(0).expm1() * alpha, x), {"alpha": 1.0}),
    "Celu": (lambda x, alpha: x.maximum(0) + (x.minimum(0) / alpha).expm1() * alpha, {"alpha": 1.0}),
    "Selu": (
        lambda x, alpha, gamma: (x > 0).where(x, x.minimum(0).expm1() * alpha) * gamma,
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    ),
    "ThresholdedRelu": (lambda x, alpha: (x > alpha).where(x, x.zeros_like()), {"alpha": 1.0}),
    "HardSigmoid": (lambda x, alpha, beta: (x * alpha + beta).clip(0.0, 1.0), {"alpha": 0.2, "beta": 0.5}),
    "Swish": (lambda x, alpha: x * (x * alpha).sigmoid(), {"alpha": 1.0}),
    "Shrink": (
        lambda x, bias, lambd: (x < -lambd).where(x + bias, (x > lambd).where(x - bias, x.zeros_like())),
        {"bias": 0.0, "lambd": 0.5},
    ),
}


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Integers are divided towards zero."""
    if not a.dtype.is_int:
        return a / b
    down = a // b
    return down if a.dtype.kind == "uint" else ((down < 0) & ~(down * b).equal(a)).where(down + 1, down)


BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b, "Div": _divide,
    "Less": lambda a, b: a < b, "Greater": lambda a, b: a > b,
    "LessOrEqual": lambda a, b: a <= b, "GreaterOrEqual": lambda a, b: a >= b,
    "And": lambda a, b: a & b, "Or": lambda a, b: a | b, "Xor": lambda a, b: a ^ b,
    "BitwiseAnd": lambda a, b: a & b, "BitwiseOr": lambda a, b: a | b, "BitwiseXor": lambda a, b: a ^ b,
}  # fmt: skip
VARIADIC: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Max": lambda a, b: a.maximum(b), "Min": lambda a, b: a.minimum(b), "Sum": lambda a, b: a + b,
}  # fmt: skip


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def apply(call: Call, x: Tensor) -> Tensor:
        return function(x)

    return apply


def _activation(function: Callable[..., Tensor], defaults: Mapping[str, float]) -> Callable[..., Tensor]:
    def apply(call: Call, x: Tensor) -> Tensor:
        return function(x, **{name: call.number(name, value) for name, value in defaults.items()})

    return apply


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def apply(call: Call, a: Tensor, b: Tensor) -> Tensor:
        return function(a, aligned(call, a, b))

    return apply


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def apply(call: Call, *parts: Tensor) -> Tensor:
        return functools.reduce(function, parts)

    return apply


def aligned(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """The second operand where version 1 to 6 wanted it: its axes begin at ``axis`` of the first."""
    if call.opset >= 7 or call.domain or "axis" not in call.attributes or not b.ndim:
        return b
    return b.reshape((*b.shape, *(1,) * (a.ndim - call.integer("axis", 0) % a.ndim - b.ndim)))


for _name, _one in UNARY.items():
    operator(_name)(_unary(_one))
for _name, _two in BINARY.items():
    operator(_name)(_binary(_two))
for _name, _two in VARIADIC.items():
    operator(_name)(_variadic(_two))
for _name, (_formula, _defaults) in ACTIVATIONS.items():
    operator(_name)(_activation(_formula, _defaults))

# -- the rest ----------------------------------------------------------------------------------------------------------


@operator("Pow")
def power(call: Call, x: Tensor, exponent: Tensor) -> Tensor:
    if x.dtype.is_int and exponent.dtype.is_float:
        return x.cast(dtypes.float64).__pow__(exponent).cast(x.dtype)
    return x.__pow__(aligned(call, x, exponent)).cast(x.dtype)


@operator("Mod")
def modulo(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """The sign of the divisor, or with ``fmod`` that of the dividend."""
    if not call.get("fmod", 0):
        return a % b
    if a.dtype.is_float:
        wide = dtypes.float64 if a.dtype.bits > 32 else dtypes.float32
        x, y = a.cast(wide), b.cast(wide)
        return (x - (x / y).trunc() * y).cast(a.dtype)
    return a - _divide(a, b) * b


@operator("Mean")
def mean(call: Call, *parts: Tensor) -> Tensor:
    return functools.reduce(lambda a, b: a + b, parts) * (1 / len(parts))


@operator("BitShift")
def bit_shift(call: Call, x: Tensor, by: Tensor) -> Tensor:
    """Shifting out all bits leaves none, or the sign."""
    left, inside = call.get("direction") == "LEFT", (by < x.dtype.bits) & (by >= 0)
    if x.dtype.kind == "int" and not left:
        return x >> inside.where(by, x.dtype.bits - 1)
    return inside.where(x << by if left else x >> by, x.zeros_like())


@operator("Clip")
def clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    least, most = call.get("min", low), call.get("max", high)
    return x.clip(least, most).cast(x.dtype)


@operator("Equal")
def equal(call: Call, a: Value, b: Value) -> Value:
    if any(isinstance(part, np.ndarray) and part.dtype.kind == "O" for part in (a, b)):
        return np.asarray(np.equal(host(a), host(b)), bool)
    x = call.tensor(a)
    return x.equal(aligned(call, x, call.tensor(b)))


@operator("Where")
def where(call: Call, condition: Tensor, a: Value, b: Value) -> Value:
    if any(isinstance(part, np.ndarray) and part.dtype.kind == "O" for part in (a, b)):
        return np.where(condition.numpy(), host(a), host(b))
    return condition.where(call.tensor(a), call.tensor(b))


@operator("PRelu")
def leaky(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """Before version 7 a vector of slopes was one for each channel."""
    if call.opset < 7 and slope.ndim == 1 and x.ndim > 1:
        slope = slope.reshape((-1, *(1,) * (x.ndim - 2)))
    return (x < 0).where(x * slope, x)


@operator("IsInf")
def is_inf(call: Call, x: Tensor) -> Tensor:
    signs = [sign for sign in ("positive", "negative") if call.get(f"detect_{sign}", 1)]
    if len(signs) != 1:
        return x.isinf() if signs else x.isinf() & False
    return x.equal(math.inf if signs == ["positive"] else -math.inf)


@operator("Gelu")
def gelu(call: Call, x: Tensor) -> Tensor:
    return x.gelu(call.get("approximate", "none"))


@operator("SwiGLU")
def swiglu(call: Call, gate: Tensor, x: Tensor) -> Tensor:
    return gate * (gate * call.number("alpha", 1.0)).sigmoid() * x
