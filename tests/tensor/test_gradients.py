"""Gradients agree with finite differences, on single operations and on random graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument
from amdrv.tensor import Tensor

RANDOM = np.random.default_rng(1)
STEP = 1e-5


def check(function: Callable[..., Tensor], *arrays: np.ndarray, rtol: float = 1e-4) -> None:
    """Compare with central differences of the sum of the result times fixed weights, in float64."""
    tensors = [Tensor(a.astype(np.float64), device="CPU", requires_grad=True) for a in arrays]
    result = function(*tensors)
    weights = np.random.default_rng(2).standard_normal(result.shape)
    (result * Tensor(weights, device="CPU")).sum().backward()
    for place, (array, found) in enumerate(zip(arrays, tensors, strict=True)):
        assert found.grad is not None
        gradient = found.grad.numpy()
        for position in list(np.ndindex(*array.shape))[:: max(1, array.size // 6)]:
            ends = []
            for step in (STEP, -STEP):
                moved = [a.astype(np.float64) for a in arrays]
                moved[place][position] += step
                ends.append(float((function(*(Tensor(m, device="CPU") for m in moved)).numpy() * weights).sum()))
            wanted = (ends[0] - ends[1]) / (2 * STEP)
            np.testing.assert_allclose(gradient[position], wanted, rtol=rtol, atol=1e-5)


A = RANDOM.standard_normal((3, 4))
B = RANDOM.standard_normal((4, 5))
P = abs(A) + 0.5
C = RANDOM.standard_normal((2, 2, 6, 5))
W = RANDOM.standard_normal((3, 2, 3, 3))
INDEX = np.array([[0, 2, 2], [1, 0, 2]])

CASES = {
    "add mul": (lambda a, b: (a + b) * a - b * 2, A, A[::-1].copy()),
    "divide": (lambda a, b: a / b, A, P),
    "broadcast": (lambda a, b: a * b, A, A[:1]),
    "power": (lambda a, b: a**b, P, A),
    "cube": (lambda a: a**3, A),
    "functions": (lambda a: a.exp() + a.sin() * a.cos() + a.tanh() + a.sigmoid() + a.erf(), A),
    "logarithms": (lambda a: a.log() + a.log2() + a.sqrt() + a.log1p() + a.rsqrt(), P),
    "extremes": (lambda a, b: a.maximum(b) + a.minimum(0.3) + a.relu() + abs(a), A, A.T.reshape(3, 4).copy()),
    "activations": (lambda a: a.gelu() + a.gelu("tanh") + a.silu() + a.softplus() + a.elu(), A),
    "where": (lambda a, b: (a > b).where(a * b, b), A, A[::-1] * 0.7 + 0.05),
    "matmul": (lambda a, b: a @ b, A, B),
    "sum max mean": (lambda a: a.sum(0) + a.max(0) * a.mean(1).sum(), A),
    "prod": (lambda a: a.prod(1), P),
    "var": (lambda a: a.var(1) + a.std(0).sum(), A),
    "softmax": (lambda a: a.softmax(-1) + a.log_softmax(0), A),
    "layernorm": (lambda a: a.layernorm(), A),
    "movement": (lambda a: a.T.reshape(2, 6).flip(1).pad([(1, 0), (0, 2)])[:, 1::2], A),
    "backwards steps": (lambda a: a[::-2, ::-1], A),
    "cat": (lambda a, b: a.cat(b * 2, axis=0).roll(1, 0), A, A[:2]),
    "window": (lambda a: a.window(1, 2, 2) * 3, A),
    "convolution": (lambda x, w: x.conv(w, None, 2, 1), C, W),
    "grouped convolution": (lambda x, w: x.conv(w, None, 1, 0, 1, 2), C, W[:2, :1]),
    "pooling": (lambda x: x.max_pool(2) + x.avg_pool(2), C),
    "take": (lambda a: a[Tensor(INDEX, device="CPU")] * 2, A),
    "take two": (lambda a: a[Tensor(INDEX, device="CPU"), Tensor(INDEX, device="CPU")], A),
    "gather": (lambda a: a.gather(1, Tensor(INDEX, device="CPU")), A[:2]),
    "attention": (lambda q, k, v: q.attention(k, v, causal=True), *RANDOM.standard_normal((3, 4, 3))),
    "cross entropy": (lambda a: a.cross_entropy(Tensor(np.array([1, 0, 3]), device="CPU")), A),
    "einsum": (lambda a, b: a.einsum("ij,jk->k", b), A, B),
    "cumsum": (lambda a: a.cumsum(1), A),
    "expand of a scalar": (lambda a: a.sum().expand(2, 3), A),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    function, *arrays = CASES[name]
    check(function, *arrays)


STEPS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda x, y: x + y.sin(),
    lambda x, y: x * y.sigmoid(),
    lambda x, y: x - y.mean(0),
    lambda x, y: x.T.reshape(x.shape) + y,
    lambda x, y: x.flip(0) * y,
    lambda x, y: x / (y * y + 1.5),
    lambda x, y: (x @ y.T).softmax() @ y,
    lambda x, y: x.tanh() + x.sum(1, keepdim=True) * 0.1,
]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, len(STEPS) - 1), min_size=1, max_size=5))
def test_gradients_of_random_graphs(order: list[int]) -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        for step in order:
            x, y = STEPS[step](x, y), x
        return x + y * 0.5

    first = np.random.default_rng(3).standard_normal((2, 4, 4)) * 0.5
    check(lambda x, y: function(x, y) + y, *first, rtol=2e-4)


def test_gradients_add_up_and_stop_at_detach() -> None:
    x = Tensor([2.0, 3.0], device="CPU", requires_grad=True)
    (x * x.detach()).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 3.0]
    (x * 2).sum().backward()
    assert x.grad.tolist() == [4.0, 5.0]


def test_backward_wants_one_element_or_a_gradient() -> None:
    x = Tensor([2.0, 3.0], device="CPU", requires_grad=True)
    with pytest.raises(InvalidArgument, match=r"\(2,\)"):
        (x * 2).backward()
    (x * 2).backward(Tensor([1.0, 10.0], device="CPU"))
    assert x.grad is not None and x.grad.tolist() == [2.0, 20.0]
