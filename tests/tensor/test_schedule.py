"""What becomes one kernel, and how much memory a plan needs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from amdrv.tensor import Tensor, engine, nn
from amdrv.tensor.engine import Plan

A = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)


WEIGHT = A[:4, :18].reshape(4, 2, 3, 3)


def plan(*tensors: Tensor) -> Plan:
    graph, _ = engine.canonical([tensor.node for tensor in tensors])
    return engine.plan(graph, tensors[0].backend)


def tensor(array: np.ndarray = A, **options: bool) -> Tensor:
    return Tensor(array, device="CPU", **options)


@pytest.mark.parametrize(
    ("name", "make", "kernels"),
    [
        ("a chain", lambda x: ((x * 2 + 1).relu().exp() - x).tanh(), 1),
        ("views", lambda x: x.T.reshape(32, 256)[::2, 1:].flip(0) + 1, 1),
        ("a sum with what comes before and after", lambda x: (x * 2).exp().sum(1) * 3 + 1, 1),
        ("softmax", lambda x: x.softmax(), 1),
        ("log softmax", lambda x: x.log_softmax(), 1),
        ("softmax along the first axis", lambda x: x.softmax(0), 1),
        ("layernorm with weights", lambda x: nn.LayerNorm(128, device="CPU")(x), 1),
        ("a product with bias and activation", lambda x: (x @ tensor(A.T) + tensor(A[0, :64])).gelu(), 1),
        ("two products", lambda x: (x @ tensor(A.T)).relu() @ x, 2),
        ("convolution", lambda x: x.reshape(1, 2, 64, 64).conv(tensor(WEIGHT), None, 1, 1).relu(), 1),
        ("a long sum", lambda x: x.expand(64, 64, 128).contiguous().sum(), 3),
        ("sums along two axes, neither inside the other", lambda x: (x.sum(0) - x) * x.sum(1, keepdim=True), 2),
        ("a costly row that all rows use", lambda x: x[:1].exp().sin() + x, 2),
        ("a costly column, once for each row", lambda x: x[:, :1].exp().sin() + x, 1),
        ("random numbers", lambda x: x + x.dropout(0.5, seed=1), 1),
    ],
)  # fmt: skip
def test_what_is_one_kernel(name: str, make: object, kernels: int) -> None:
    assert len(plan(make(tensor())).steps) == kernels  # type: ignore[operator]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_two_kernels(causal: bool) -> None:
    q, k, v = (tensor(A.reshape(2, 64, 64)) for _ in range(3))
    assert len(plan(q.attention(k, v, causal=causal)).steps) == 2


def test_results_that_share_their_loops_come_from_one_kernel() -> None:
    x = tensor()
    y = x.exp() + 1
    assert len(plan(y, y * 2, (y * 2).sin()).steps) == 1


def test_a_kernel_of_several_results_comes_after_all_that_they_need() -> None:
    x = tensor()
    first = x.exp() + 1
    second = first + (x @ x.T).sum(1, keepdim=True)
    assert len(plan(first, second).steps) == 2
    first.realize(second)
    np.testing.assert_allclose(second.numpy(), np.exp(A) + 1 + (A @ A.T).sum(1, keepdims=True), rtol=2e-4, atol=1e-3)


def test_an_optimiser_step_is_one_kernel_for_each_parameter() -> None:
    w = tensor(requires_grad=True)
    (w * w).sum().backward()
    optimiser = nn.Adam([w])
    assert w.grad is not None
    found = optimiser._update(0, w, w.grad)
    assert len(plan(found[0], *found[1]).steps) == 1


def test_values_in_memory_are_not_computed_again() -> None:
    x = tensor()
    y = x.exp()
    z = y * 2
    y.realize()
    steps = plan(z).steps
    assert len(steps) == 1 and steps[0].kernel is not None
    assert "exp" not in {str(node.op) for node in engine.toposort([steps[0].kernel.body])}


def test_graphs_that_differ_in_their_buffers_share_a_plan() -> None:
    assert plan(tensor().softmax()) is plan(tensor(A + 1).softmax())


def test_a_long_formula_is_never_cut_where_a_product_repeats_its_factors() -> None:
    sizes = []
    for length in range(156, 164):  # the formula becomes too long somewhere between its start and the product
        x = tensor()
        for _ in range(length):
            x = x + 0.5
        steps = plan(x @ tensor(A.T)).steps
        sizes.append([math.prod(node.shape) for step in steps if step.kernel for node in step.kernel.results])
    assert all(max(found) <= A.size for found in sizes)
    assert {len(found) for found in sizes} == {1, 2}  # some are cut, some are not


def test_temporary_memory_does_not_grow_with_depth() -> None:
    def depth(layers: int) -> int:
        x = tensor(A[:, :64])
        for _ in range(layers):
            x = (x @ tensor(A[:, :64])).relu()
        return sum(plan(x).temporary_bytes.values())

    assert depth(9) == depth(3) == 2 * 64 * 64 * 4


def test_a_transformer_block_s_step_needs_bounded_memory() -> None:
    seeds = nn.Seeds()
    width, length = 32, 16
    x = tensor(np.random.default_rng(1).standard_normal((2, length, width)).astype(np.float32))
    q, k, v, out, up = (nn.Linear(width, width, seeds, device="CPU") for _ in range(5))
    norm = nn.LayerNorm(width, device="CPU")
    h = norm(x)
    y = x + out(q(h).attention(k(h), v(h), causal=True))
    loss = (y + up(norm(y)).gelu()).square().mean()
    loss.backward()
    grads = [p.grad for p in nn.parameters([q, k, v, out, up, norm]) if p.grad is not None]
    found = plan(loss, *grads)
    activations = 2 * length * width * 4
    assert len(found.steps) <= 70
    assert sum(found.temporary_bytes.values()) <= 24 * activations
