"""Steps of optimisers."""

from __future__ import annotations

from collections.abc import Callable

from amdrv.errors import InvalidArgument
from amdrv.tensor.onnx.registry import Call, Host, Operator, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)
DOMAIN = "ai.onnx.preview.training"


def _each(parts: tuple[Tensor, ...], kinds: int, one: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """A step for each of several tensors, whose values, gradients and states come and go kind by kind."""
    count, rest = divmod(len(parts), kinds)
    if rest:
        raise InvalidArgument(f"{len(parts)} tensors are no multiple of {kinds}")
    found = [one(*parts[k::count]) for k in range(count)]
    return tuple(step[kind] for kind in range(kinds - 1) for step in found)


@operator(f"{DOMAIN}.Adagrad")
def adagrad(call: Call, rate: Tensor, t: Host, *parts: Tensor) -> tuple[Tensor, ...]:
    """Steps that shrink with the sum of squared gradients so far."""
    own = rate * (1 / (1 + float(t.item()) * call.get("decay_factor", 0.0)))

    def one(x: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        g = g + x * call.get("norm_coefficient", 0.0)
        h = h + g * g
        return x - own * g / (h.sqrt() + call.get("epsilon", 1e-6)), h

    return _each(parts, 3, one)


@operator(f"{DOMAIN}.Adam")
def adam(call: Call, rate: Tensor, t: Host, *parts: Tensor) -> tuple[Tensor, ...]:
    """Steps in units of the gradient's own size."""
    alpha, beta, count = call.get("alpha", 0.9), call.get("beta", 0.999), float(t.item())
    own = rate * ((1 - beta**count) ** 0.5 / (1 - alpha**count)) if count > 0 else rate

    def one(x: Tensor, g: Tensor, v: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        g = g + x * call.get("norm_coefficient", 0.0)
        v = v * alpha + g * (1 - alpha)
        h = h * beta + g * g * (1 - beta)
        moved = x - own * v / (h.sqrt() + call.get("epsilon", 1e-6))
        return moved * (1 - call.get("norm_coefficient_post", 0.0)), v, h

    return _each(parts, 4, one)


@operator(f"{DOMAIN}.Momentum")
def momentum(call: Call, rate: Tensor, t: Host, *parts: Tensor) -> tuple[Tensor, ...]:
    """Steps that keep some of their speed."""
    alpha = call.get("alpha")
    beta = call.get("beta") if t.item() > 0 else 1.0

    def one(x: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        g = g + x * call.get("norm_coefficient", 0.0)
        v = v * alpha + g * beta
        return x - rate * (g + v * alpha if call.get("mode") == "nesterov" else v), v

    return _each(parts, 3, one)
