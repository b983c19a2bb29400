"""Gradients of random graphs of every operation agree with finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amdrv.tensor import Tensor, array_api

Unary = Callable[[Tensor], Tensor]
ROWS, COLUMNS = 3, 4


def whole(values: Any) -> Tensor:
    return Tensor(np.array(values), device="CPU")


ORDER = whole([[2, 0, 2, 1], [0, 0, 1, 2], [1, 2, 0, 0]])
PLACES = whole([2, 0, 2, 2, 1])
MASK = np.array([[True, False, True, True], [False, False, True, False], [True, True, False, True]])


def assigned(x: Tensor, key: Any, value: Any) -> Tensor:
    found = x * 1.0
    found[key] = value
    return found


def positive(x: Tensor) -> Tensor:
    return x.abs() + 0.5


def within(x: Tensor) -> Tensor:
    """Between -0.9 and 0.9."""
    return x.tanh() * 0.9


# What keeps a matrix's shape, of one matrix.
ONE: dict[str, Unary] = {
    **{
        name: (lambda x, name=name: getattr(x, name)())
        for name in (
            *("sin", "cos", "tanh", "atan", "asinh", "erf", "sigmoid", "relu", "leaky_relu", "elu", "silu", "gelu"),
            *("softplus", "square", "abs", "layernorm", "softmax", "log_softmax", "contiguous", "expm1"),
        )
    },
    **{
        name: (lambda x, name=name: getattr(within(x), name)())
        for name in ("exp", "exp2", "tan", "asin", "acos", "atanh", "sinh", "cosh")
    },
    **{
        name: (lambda x, name=name: getattr(positive(x), name)())
        for name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal")
    },
    "acosh": lambda x: (positive(x) + 1).acosh(),
    "negate": lambda x: -x,
    "powers": lambda x: within(x) ** 3 + positive(x) ** -2 + positive(x) ** 0.3 + 1.7 ** within(x),
    "gelu of GPT-2": lambda x: x.gelu("tanh"),
    "clip": lambda x: x.clip(-0.7, 0.8),
    "remainder": lambda x: x % 0.7 + x // 0.9,
    "rounded": lambda x: x.floor() + x.round() * x,
    "sum": lambda x: x + x.sum(0, keepdim=True),
    "prod": lambda x: x + within(x).prod(1, keepdim=True),
    "prod with a zero": lambda x: x + (x * whole(MASK.astype(float))).prod(0),
    "max": lambda x: x - x.max(1, keepdim=True) * x.min(),
    "mean var std": lambda x: x * x.mean() + x.var(0) * x.std(1, keepdim=True),
    "logsumexp": lambda x: x - x.logsumexp(0, keepdim=True),
    "cumsum": lambda x: x.cumsum(0) * 0.3 + x.cumsum(1) * 0.3,
    "cumprod": lambda x: within(x).cumprod(1),
    "long cumsum": lambda x: x.repeat(1, 12).cumsum(1)[:, 40:44] * 0.1,
    "permute": lambda x: x.T.reshape(x.shape),
    "flip roll": lambda x: x.flip(0).roll(1, 1),
    "pad slice": lambda x: x.pad([(1, 2), (0, 1)], 2.0)[1:4, 1:],
    "slices": lambda x: x + x[::-2, :1].sum() * x[1, ::2].mean(),
    "window": lambda x: x.pad([(0, 0), (1, 1)]).window(1, 3).mean(-1),
    "cat stack": lambda x: x.cat(x * 2, axis=0).stack(x.cat(x, axis=0), axis=0).sum(0)[1:4],
    "repeat": lambda x: x.repeat(2, 1)[2:5],
    "triangles": lambda x: x.tril() + x.triu(1) * 2,
    "take": lambda x: x[PLACES][:3] * x[PLACES, 1].mean(),
    "gather": lambda x: x.gather(0, ORDER),
    "mask": lambda x: x + x[whole(MASK)].mean() + x.masked_fill(whole(MASK), 0.5),
    "sort": lambda x: x.sort(0) + x.sort(1, descending=True),
    "topk": lambda x: x + x.topk(2, 1)[0].sum(1, keepdim=True),
    "assign a part": lambda x: assigned(x, (slice(1, None), slice(None, None, 2)), x.sin()[:2, :2]),
    "assign by integers": lambda x: assigned(x, (PLACES, whole([0, 1, 0, 3, 2])), x.sin()[0, 0]),
    "assign by a mask": lambda x: assigned(x, whole(MASK), 0.5),
    "matrix product": lambda x: (x @ x.T) @ x * 0.2,
    "einsum": lambda x: x.einsum("ij,kj,kl->il", x, x) * 0.2,
    "convolution": lambda x: x.reshape(1, 1, ROWS, COLUMNS).conv(x[:, :3].reshape(1, 1, 3, 3), None, 1, 1)[0, 0] * 0.3,
    "pooling": lambda x: x.reshape(1, 1, 3, 4).pad([(0, 0)] * 2 + [(0, 1), (1, 0)]).max_pool(2, 1).reshape(3, 4),
    "means of windows": lambda x: x.reshape(1, 1, 3, 4).avg_pool(3, 1, 1, False).reshape(3, 4),
    "attention": lambda x: x.attention(x.flip(0), x.sin(), causal=True),
    "batchnorm": lambda x: x.batchnorm(x[0], x[1], x.mean(0), x.var(0)),
    "losses": lambda x: x * x.cross_entropy(whole([1, 0, 3])) + x.mse_loss(0.3),
    "labels": lambda x: x + x.binary_cross_entropy_with_logits(whole(MASK.astype(float))),
    "differences": lambda x: array_api.diff(x.pad([(0, 0), (1, 0)])),
    "to another device and back": lambda x: x.to("CPU"),
}
# What keeps it, of two.
TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y[:1],
    "subtract": lambda x, y: x[:, :1] - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / positive(y),
    "power": lambda x, y: positive(x) ** within(y),
    "extremes": lambda x, y: x.maximum(y) - x.minimum(y * 2),
    "where": lambda x, y: (x > y).where(x * y, y),
    "atan2": lambda x, y: x.atan2(positive(y)) + x.atan2(-positive(y)),
    "hypot": lambda x, y: x.hypot(y),
    "logaddexp": lambda x, y: x.logaddexp(y),
    "copysign": lambda x, y: x.copysign(y),
    "remainder": lambda x, y: x % positive(y),
    "scatter": lambda x, y: x.scatter(0, ORDER, y),
    "scatter add": lambda x, y: x.scatter(0, ORDER, y, "add") + x.scatter_add(1, ORDER, y),
    "scatter mul": lambda x, y: positive(x).scatter(0, ORDER, positive(y), "mul"),
    "scatter max": lambda x, y: x.scatter(0, ORDER, y, "max") + x.scatter(1, ORDER, y, "min"),
    "product": lambda x, y: x @ y.T @ x * 0.2,
    "linear": lambda x, y: x.linear(y, y[:, 0]).pad([(0, 0), (0, 1)]),
    "batched": lambda x, y: (x.unsqueeze(0).expand(2, 3, 4) @ y.T.unsqueeze(0)).mean(0).pad([(0, 0), (0, 1)]),
    "cat": lambda x, y: x.cat(y, axis=1)[:, 2:6],
}


def check(function: Callable[..., Tensor], *arrays: np.ndarray) -> None:
    """Compare with central differences along random directions; where those do not settle there is an edge."""
    random = np.random.default_rng(7)
    tensors = [Tensor(a, device="CPU", requires_grad=True) for a in arrays]
    result = function(*tensors)
    weights = random.standard_normal(result.shape)
    (result * Tensor(weights, device="CPU")).sum().backward()
    gradients = [np.zeros(a.shape) if t.grad is None else t.grad.numpy() for a, t in zip(arrays, tensors, strict=True)]
    for _ in range(2):
        ways = [random.standard_normal(a.shape) for a in arrays]

        def at(step: float, ways: list[np.ndarray] = ways) -> float:
            moved = [Tensor(a + step * way, device="CPU") for a, way in zip(arrays, ways, strict=True)]
            return float((function(*moved).numpy() * weights).sum())

        coarse, fine = ((at(h) - at(-h)) / (2 * h) for h in (2e-5, 1e-5))
        if abs(coarse - fine) > 1e-5 * (1 + abs(fine)):
            continue
        found = sum(float((gradient * way).sum()) for gradient, way in zip(gradients, ways, strict=True))
        scale = sum(float(abs(gradient * way).sum()) for gradient, way in zip(gradients, ways, strict=True))
        np.testing.assert_allclose(found, fine, rtol=1e-5, atol=1e-6 * (1 + scale))


X, Y = np.random.default_rng(5).standard_normal((2, ROWS, COLUMNS))


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_the_gradient_of_each_operation_agrees_with_finite_differences(name: str) -> None:
    if name in ONE:
        check(ONE[name], X)
    else:
        check(TWO[name], X, Y)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([*ONE, *TWO]), min_size=2, max_size=4), st.integers(0, 99))
def test_gradients_of_random_graphs_agree_with_finite_differences(names: list[str], seed: int) -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        for name in names:
            x, y = (ONE[name](x) if name in ONE else TWO[name](x, y)), x.tanh()  # numbers stay small
        return x + y

    check(function, *np.random.default_rng(seed).standard_normal((2, ROWS, COLUMNS)))
