"""Layers and optimisers. A layer has tensors as attributes; ``parameters`` and ``state_dict`` find them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor.core import Core
from amdrv.tensor.tensor import Tensor

Layer = Callable[[Tensor], Tensor]


class Seeds:
    """Gives out seeds, so that every layer of a model begins with other numbers, the same on every run."""

    def __init__(self, first: int = 0) -> None:
        self._next = first

    def take(self) -> int:
        self._next += 1
        return self._next


def _uniform(shape: tuple[int, ...], limit: float, seeds: Seeds, device: object) -> Tensor:
    made = Tensor.uniform(*shape, low=-limit, high=limit, seed=seeds.take(), device=device).realize()
    made.requires_grad = True
    return made


def _constant(shape: tuple[int, ...], value: float, device: object) -> Tensor:
    return Tensor(np.full(shape, value, np.float32), device=device, requires_grad=True)


class Linear:
    """x @ weight.T + bias; begins as evenly distributed numbers within 1 / sqrt(inputs)."""

    def __init__(self, inputs: int, outputs: int, seeds: Seeds, bias: bool = True, device: object = None) -> None:
        limit = 1 / math.sqrt(inputs)
        self.weight = _uniform((outputs, inputs), limit, seeds, device)
        self.bias = _uniform((outputs,), limit, seeds, device) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        return x.linear(self.weight, self.bias)


class Conv2d:
    """Convolution of (batch, channels, height, width)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        seeds: Seeds,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        device: object = None,
    ) -> None:
        limit = 1 / math.sqrt(inputs // groups * size * size)
        self.weight = _uniform((outputs, inputs // groups, size, size), limit, seeds, device)
        self.bias = _uniform((outputs,), limit, seeds, device) if bias else None
        self._options = {"stride": stride, "padding": padding, "groups": groups}

    def __call__(self, x: Tensor) -> Tensor:
        return x.conv(self.weight, self.bias, **self._options)


class Embedding:
    """A row of a table for each integer."""

    def __init__(self, count: int, width: int, seeds: Seeds, device: object = None) -> None:
        self.weight = (Tensor.randn(count, width, seed=seeds.take(), device=device) * 0.02).realize()
        self.weight.requires_grad = True

    def __call__(self, x: Tensor) -> Tensor:
        return self.weight[x]


class LayerNorm:
    """Mean 0 and variance 1 along the last axis, then scaled and moved."""

    def __init__(self, width: int, eps: float = 1e-5, device: object = None) -> None:
        self.weight, self.bias = _constant((width,), 1.0, device), _constant((width,), 0.0, device)
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return x.layernorm(-1, self._eps) * self.weight + self.bias


class Sequential:
    """Layers and functions one after the other."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = list(layers)

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def state_dict(model: object, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a model by the path of attributes and positions that leads to them."""
    return dict(_tensors(model, prefix))


def _tensors(part: object, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield path, part
        return
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(part, (list, tuple)):
        inner = enumerate(part)
    elif isinstance(part, dict):
        inner = part.items()
    elif hasattr(part, "__dict__"):
        inner = vars(part).items()
    for name, value in inner:
        yield from _tensors(value, f"{path}.{name}" if path else str(name))


def parameters(model: object) -> list[Tensor]:
    """The tensors of a model that have gradients, each once."""
    return [found for found in dict.fromkeys(state_dict(model).values()) if found.requires_grad]


def load_state_dict(model: object, values: Mapping[str, Tensor]) -> None:
    """Give a model's tensors other values. Raises InvalidArgument listing names that are missing on either side."""
    own = state_dict(model)
    if own.keys() != values.keys():
        missing, extra = sorted(own.keys() - values.keys()), sorted(values.keys() - own.keys())
        raise InvalidArgument(f"state: missing {missing}, not in the model {extra}")
    for name, tensor in own.items():
        tensor.assign(values[name].to(tensor.backend).cast(tensor.dtype))


def distribute(model: object, devices: Sequence[object], axis: int | None = None) -> None:
    """Move a model to several devices: a copy of each tensor for every one, or, along an axis that divides, parts.

    Parts are gathered where they are used, and gradients and what optimisers keep are in parts like them, so that no
    device needs to have all of the model. Make the optimiser afterwards.
    """
    for tensor in dict.fromkeys(state_dict(model).values()):
        fits = axis is not None and tensor.ndim > axis and tensor.shape[axis] % len(devices) == 0
        there = tensor.detach().shard(devices, axis if fits else None).realize()
        tensor.node, tensor.backend = there.node, there.backend


class Optimiser:
    """Changes parameters by their gradients."""

    def __init__(self, tensors: Sequence[Tensor], rate: float) -> None:
        if not tensors or not all(tensor.requires_grad for tensor in tensors):
            raise InvalidArgument("an optimiser wants tensors with requires_grad")
        self.tensors = list(tensors)
        self.rate = rate

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for tensor in self.tensors:
            tensor.grad = None

    def step(self, *also: Core) -> None:
        """Take one step, computed at once, together with other tensors such as the loss."""
        changed: list[Core] = []
        for place, tensor in enumerate(self.tensors):
            if tensor.grad is not None:
                update, state = self._update(place, tensor, tensor.grad)
                tensor.assign(update.cast(tensor.dtype))
                changed += [tensor, *state]
        if changed:
            changed[0].realize(*changed[1:], *also)

    def _update(self, place: int, tensor: Tensor, gradient: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        raise InvalidArgument(f"{type(self).__name__} has no rule to update with")


class SGD(Optimiser):
    """Steps against the gradient, with momentum."""

    def __init__(
        self, tensors: Sequence[Tensor], rate: float = 0.01, momentum: float = 0.0, decay: float = 0.0
    ) -> None:
        super().__init__(tensors, rate)
        self._momentum, self._decay = momentum, decay
        self._speed: dict[int, Tensor] = {}

    def _update(self, place: int, tensor: Tensor, gradient: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        now = tensor.detach()
        if self._decay:
            gradient = gradient + now * self._decay
        if not self._momentum:
            return now - gradient * self.rate, ()
        if place in self._speed:
            gradient = self._speed[place] * self._momentum + gradient
            self._speed[place].assign(gradient)
        else:
            self._speed[place] = gradient
        return now - gradient * self.rate, (self._speed[place],)


class Adam(Optimiser):
    """Steps in units of the gradient's own size; with ``decay`` as in AdamW (Loshchilov and Hutter 2019)."""

    def __init__(
        self,
        tensors: Sequence[Tensor],
        rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        decay: float = 0.0,
    ) -> None:
        super().__init__(tensors, rate)
        self._betas, self._eps, self._decay = betas, eps, decay
        self._mean = [tensor.zeros_like().realize() for tensor in tensors]
        self._square = [tensor.zeros_like().realize() for tensor in tensors]
        # Powers of the betas are tensors, so that every step is the same graph and is planned once.
        self._left = Tensor(np.ones(2, np.float32), device=tensors[0].backend)
        self._factors = Tensor(np.array(betas, np.float32), device=tensors[0].backend)

    def step(self, *also: Core) -> None:
        powers = self._left
        powers.assign(powers * self._factors)
        super().step(powers, *also)

    def _update(self, place: int, tensor: Tensor, gradient: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        now = tensor.detach()
        (first, second), left = self._betas, self._left
        mean = self._mean[place] * first + gradient * (1 - first)
        square = self._square[place] * second + gradient * gradient * (1 - second)
        self._mean[place].assign(mean)
        self._square[place].assign(square)
        step = mean / (1.0 - left[0]) / ((square / (1.0 - left[1])).sqrt() + self._eps)
        if self._decay:
            step = step + now * self._decay
        return now - step * self.rate, (self._mean[place], self._square[place])
