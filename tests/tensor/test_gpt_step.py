"""A GPT's training steps against the same steps written out in NumPy, as llm.c writes them: loss, gradients, AdamW."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from amdrv.bench.tensor import Block
from amdrv.tensor import Tensor, jit, nn

Floats = NDArray[np.float64]
Weights = dict[str, Floats]
VOCABULARY, LENGTH, WIDTH, HEADS, BATCH, LAYERS = 19, 12, 16, 8, 3, 2
# What is added to a step's divisor hides what rounding leaves of the keys' biases' gradients, which are zero.
RATE, DECAY, FIRST, SECOND, ADDED = 1e-2, 0.1, 0.9, 0.999, 1e-5


class Gpt:
    """Embeddings, blocks, a norm, logits by the embedding table."""

    def __init__(self) -> None:
        seeds = nn.Seeds(4)
        self.tokens, self.places = (nn.Embedding(n, WIDTH, seeds, device="CPU") for n in (VOCABULARY, LENGTH))
        self.blocks = [Block(WIDTH, "CPU") for _ in range(LAYERS)]
        self.norm = nn.LayerNorm(WIDTH, device="CPU")

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.tokens(x) + self.places.weight
        for block in self.blocks:
            h = block(h)
        logits = self.norm(h) @ self.tokens.weight.T
        return logits.reshape(-1, VOCABULARY).cross_entropy(y.flatten())


class Reference:
    """Forward and backward passes by hand; gradients are added to ``grads``. Each step returns its way back."""

    def __init__(self, weights: Weights) -> None:
        self.w = weights
        self.grads = {name: np.zeros_like(value) for name, value in weights.items()}

    def linear(self, name: str, x: Floats) -> tuple[Floats, object]:
        w = self.w[f"{name}.weight"]

        def back(dy: Floats) -> Floats:
            rows, flat = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
            self.grads[f"{name}.weight"] += rows.T @ flat
            self.grads[f"{name}.bias"] += rows.sum(0)
            return dy @ w

        return x @ w.T + self.w[f"{name}.bias"], back

    def norm(self, name: str, x: Floats) -> tuple[Floats, object]:
        scale = 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        hat = (x - x.mean(-1, keepdims=True)) * scale

        def back(dy: Floats) -> Floats:
            self.grads[f"{name}.weight"] += (dy * hat).reshape(-1, WIDTH).sum(0)
            self.grads[f"{name}.bias"] += dy.reshape(-1, WIDTH).sum(0)
            d = dy * self.w[f"{name}.weight"]
            return scale * (d - d.mean(-1, keepdims=True) - hat * (d * hat).mean(-1, keepdims=True))

        return hat * self.w[f"{name}.weight"] + self.w[f"{name}.bias"], back

    def attention(self, q: Floats, k: Floats, v: Floats) -> tuple[Floats, object]:
        def split(t: Floats) -> Floats:
            return t.reshape(BATCH, LENGTH, HEADS, -1).transpose(0, 2, 1, 3)

        def join(t: Floats) -> Floats:
            return t.transpose(0, 2, 1, 3).reshape(BATCH, LENGTH, WIDTH)

        q, k, v = split(q), split(k), split(v)
        factor = 1 / math.sqrt(q.shape[-1])
        scores = np.where(np.tri(LENGTH, dtype=bool), q @ k.swapaxes(-1, -2) * factor, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)

        def back(dy: Floats) -> tuple[Floats, Floats, Floats]:
            d = split(dy)
            dp = d @ v.swapaxes(-1, -2)
            ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * factor
            return join(ds @ k), join(ds.swapaxes(-1, -2) @ q), join(p.swapaxes(-1, -2) @ d)

        return join(p @ v), back

    def block(self, name: str, x: Floats) -> tuple[Floats, object]:
        h, back_first = self.norm(f"{name}.first", x)
        parts = [self.linear(f"{name}.{part}", h) for part in ("query", "key", "value")]
        seen, back_seen = self.attention(*(value for value, _ in parts))
        out, back_out = self.linear(f"{name}.out", seen)
        middle = x + out
        h2, back_second = self.norm(f"{name}.second", middle)
        up, back_up = self.linear(f"{name}.up", h2)
        phi = 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
        down, back_down = self.linear(f"{name}.down", up * phi)

        def back(dy: Floats) -> Floats:
            slope = phi + up * np.exp(-up * up / 2) / math.sqrt(2 * math.pi)
            d = dy + back_second(back_up(back_down(dy) * slope))
            inner = back_seen(back_out(d))
            return d + back_first(sum(way(part) for (_, way), part in zip(parts, inner, strict=True)))

        return middle + down, back

    def step(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> float:
        """The loss; its gradients are in ``grads`` afterwards."""
        table = self.w["tokens.weight"]
        h = table[x] + self.w["places.weight"]
        ways = []
        for number in range(LAYERS):
            h, way = self.block(f"blocks.{number}", h)
            ways.append(way)
        h, back_norm = self.norm("norm", h)
        logits = h @ table.T
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        chosen = np.take_along_axis(p, y[..., None], -1)
        d = (p - np.eye(VOCABULARY)[y]) / y.size
        self.grads["tokens.weight"] += d.reshape(-1, VOCABULARY).T @ h.reshape(-1, WIDTH)
        d = back_norm(d @ table)
        for way in reversed(ways):
            d = way(d)
        self.grads["places.weight"] += d.sum(0)
        np.add.at(self.grads["tokens.weight"], x, d)
        return float(-np.log(chosen).mean())


def adamw(w: Weights, grads: Weights, state: dict[str, tuple[Floats, Floats]], t: int) -> None:
    for name, g in grads.items():
        m, s = state.get(name, (np.zeros_like(g), np.zeros_like(g)))
        m, s = FIRST * m + (1 - FIRST) * g, SECOND * s + (1 - SECOND) * g * g
        state[name] = m, s
        step = m / (1 - FIRST**t) / (np.sqrt(s / (1 - SECOND**t)) + ADDED)
        w[name] = w[name] - RATE * (step + DECAY * w[name])


def test_training_steps_are_those_of_the_reference() -> None:
    model = Gpt()
    named = nn.state_dict(model)
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in named.items()}
    optimiser = nn.Adam(nn.parameters(model), RATE, (FIRST, SECOND), ADDED, DECAY)
    state: dict[str, tuple[Floats, Floats]] = {}

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        optimiser.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        gradients = [tensor.grad for tensor in named.values() if tensor.grad is not None]
        optimiser.step(loss, *gradients)
        return (loss, *gradients)

    recorded = jit(step)
    random = np.random.default_rng(11)
    for t in range(1, 6):
        x, y = (random.integers(0, VOCABULARY, (BATCH, LENGTH)) for _ in range(2))
        reference = Reference(weights)
        wanted = reference.step(x, y)
        loss, *gradients = recorded(Tensor(x, device="CPU"), Tensor(y, device="CPU"))
        np.testing.assert_allclose(float(loss), wanted, rtol=1e-5)
        for (name, expected), found in zip(((name, reference.grads[name]) for name in named), gradients, strict=True):
            np.testing.assert_allclose(
                found.numpy(), expected, rtol=2e-3, atol=2e-4 * abs(expected).max() + 1e-7, err_msg=f"{name} {t}"
            )
        adamw(weights, reference.grads, state, t)
        for name, tensor in named.items():
            np.testing.assert_allclose(tensor.numpy(), weights[name], atol=2e-4, err_msg=f"{name} after step {t}")
