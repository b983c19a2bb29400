"""Arrays without elements, lazy arrays beyond 2³¹ elements, and what is not finite, through every kind of operation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from amdrv.errors import InvalidArgument
from amdrv.tensor import Tensor, engine
from amdrv.tensor.emit import Emitter
from amdrv.tensor.gpu import DIALECT as GPU
from amdrv.tensor.host import DIALECT as HOST

EMPTY = np.zeros((0, 4), np.float32)
THIN = np.zeros((3, 0, 2), np.float32)
INDEX = np.zeros((0,), np.int64)


def tensor(array: object) -> Tensor:
    return Tensor(array, device="CPU")


# What each does to (0, 4), for tensors; the shape of the result, and its values if there are any.
NOTHING: dict[str, tuple[Callable[[Tensor], Tensor], object]] = {
    "arithmetic": (lambda x: (x + 1) * x.exp() - x.sin() / 2, EMPTY),
    "powers": (lambda x: x**2 + x**0.5 + x % 3 + x // 2, EMPTY),
    "where": (lambda x: (x > 0).where(x, 1.0), EMPTY),
    "with another": (lambda x: x + tensor(np.ones((1, 4), np.float32)), EMPTY),
    "cast": (lambda x: x.cast("int8"), EMPTY.astype(np.int8)),
    "sum": (lambda x: x.sum(0), np.zeros(4)),
    "sum of all": (lambda x: x.sum(), np.zeros(())),
    "sum along four": (lambda x: x.sum(1), np.zeros(0)),
    "prod any all": (lambda x: x.prod(0) + x.any(0) + x.all(0), np.full(4, 2.0)),
    "mean": (lambda x: x.mean(), np.array(np.nan)),
    "softmax": (lambda x: x.softmax(1), EMPTY),
    "layernorm": (lambda x: x.layernorm(), EMPTY),
    "cumsum": (lambda x: x.cumsum(0) + x.cumsum(1) + x.cumprod(0), EMPTY),
    "sort": (lambda x: x.sort(0) + x.sort(1), EMPTY),
    "argsort": (lambda x: x.argsort(0), EMPTY.astype(np.int64)),
    "reshape": (lambda x: x.reshape(2, 0, 3), np.zeros((2, 0, 3))),
    "views": (lambda x: x.T.flip(0).expand(2, 4, 0), np.zeros((2, 4, 0))),
    "slices": (lambda x: x[:, 1:3][::-1], np.zeros((0, 2))),
    "pad": (lambda x: x.pad([(1, 1), (0, 0)], 3.0), np.full((2, 4), 3.0)),
    "cat": (lambda x: x.cat(x, axis=0), EMPTY),
    "stack": (lambda x: x.stack(x), np.zeros((2, 0, 4))),
    "roll repeat": (lambda x: x.roll(1, 0).repeat(2, 3), np.zeros((0, 12))),
    "triangle": (lambda x: x.tril(), EMPTY),
    "take": (lambda x: x[:, tensor(np.array([1, 0]))], np.zeros((0, 2))),
    "take nothing": (lambda x: tensor(np.ones((3, 4), np.float32))[tensor(INDEX)], EMPTY),
    "mask": (lambda x: x[x > 0], np.zeros(0)),
    "scatter": (lambda x: x.scatter_add(0, tensor(np.zeros((0, 4), int)), x), EMPTY),
    "matrix product": (lambda x: x @ x.T, np.zeros((0, 0))),
    "product over nothing": (lambda x: x.T @ x, np.zeros((4, 4))),
    "einsum": (lambda x: x.einsum("ij,ik->jk", x), np.zeros((4, 4))),
    "attention": (lambda x: x.attention(x, x), EMPTY),
    "convolution": (lambda x: x.reshape(0, 1, 4).conv(tensor(np.ones((2, 1, 3), np.float32))), np.zeros((0, 2, 2))),
    "pooling": (lambda x: x.reshape(0, 1, 2, 2).max_pool(2), np.zeros((0, 1, 1, 1))),
    "contiguous": (lambda x: x.contiguous().to("CPU"), EMPTY),
    "thin": (lambda x: tensor(THIN).sum((1, 2)) + tensor(THIN).max(0).sum(), np.zeros(3)),
}


@pytest.mark.parametrize("name", NOTHING)
def test_arrays_without_elements_go_through(name: str) -> None:
    call, wanted = NOTHING[name]
    found = call(tensor(EMPTY)).numpy()
    assert found.shape == np.shape(wanted)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "name", ["arithmetic", "sum of all", "cumsum", "take", "matrix product", "cat", "pad", "softmax"]
)
def test_arrays_without_elements_have_gradients_without_elements(name: str) -> None:
    x = Tensor(EMPTY, device="CPU", requires_grad=True)
    NOTHING[name][0](x).sum().backward()
    assert x.grad is not None and x.grad.numpy().shape == (0, 4)


@pytest.mark.parametrize("device", ["CPU", "AMD"])
def test_a_part_of_a_huge_lazy_array_is_computed_without_the_rest(device: str) -> None:
    line = Tensor(np.arange(8, dtype=np.float32), device=device)
    huge = (line.reshape(1, 8, 1).expand(1 << 16, 8, 1 << 16) * 2 + 1).reshape(-1)  # 2³⁵ elements
    assert huge.size == 1 << 35
    assert huge[-3:].tolist() == [15.0, 15.0, 15.0]
    assert huge[(1 << 35) - (1 << 16) - 2 : (1 << 35) - (1 << 16) + 2].tolist() == [13.0, 13.0, 15.0, 15.0]
    at = Tensor(np.array([0, (1 << 33) + (3 << 16), (1 << 35) - 1, 1 << 40]), device=device)
    assert huge[at].tolist() == [1.0, 7.0, 15.0, 15.0]  # the last is limited to the axis


def test_a_huge_array_is_reduced_in_parts_that_are_asked_for() -> None:
    places = Tensor.arange(1 << 34, device="CPU").reshape(1 << 12, 1 << 22)
    assert places[-1, -4:].sum().item() == sum(range((1 << 34) - 4, 1 << 34))
    assert places[:, 5][-2:].tolist() == [(4094 << 22) + 5, (4095 << 22) + 5]


def test_positions_are_as_wide_as_they_need() -> None:
    """32 bits on the GPU while all are below 2³¹, also those of what is looked up in tensors of wider types."""
    index = Tensor(np.array([1, 5]), device="CPU")
    narrow = Tensor(np.arange(8.0), device="CPU")[index] + 1
    wide = Tensor(np.arange(8.0), device="CPU").reshape(8, 1).expand(8, 1 << 30).reshape(-1)[index * (1 << 30)] + 1
    for found, bits in ((narrow, 32), (wide, 64)):
        plan = engine.in_memory(found.realize().node).arg[0].origin  # type: ignore[union-attr]
        assert Emitter(plan.steps[-1].kernel.body, GPU).index_type == f"i{bits}"
        assert Emitter(plan.steps[-1].kernel.body, HOST).index_type == "i64"
    assert wide.tolist() == [2.0, 6.0]


def test_constants_are_results_too() -> None:
    x = Tensor(-3.5, device="CPU")
    y = x * 2
    x.realize(y)
    assert (x.item(), y.item(), Tensor(True, device="CPU").item()) == (-3.5, -7.0, True)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_extremes_of_nothing_are_errors_that_say_so(name: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"{name.replace('min', '(min|max)')} of no elements.*\(0, 4\)"):
        getattr(tensor(EMPTY), name)(0)


FINITE = ["sin", "cos", "tanh", "atan", "asinh", "erf", "sigmoid", "relu", "silu", "gelu", "softplus", "abs", "expm1"]


@pytest.mark.parametrize("name", [*FINITE, "log1p", "elu", "leaky_relu"])
def test_gradients_stay_finite_at_zero_and_far_from_it(name: str) -> None:
    values = [0.0, 1.0, 1e-8, 60.0, 1e4] + ([-0.0, -1.5, -60.0, -1e4] if name != "log1p" else [])
    x = Tensor(np.array(values, np.float32), device="CPU", requires_grad=True)
    y = getattr(x, name)() if name != "expm1" else getattr(x.minimum(50), name)()
    y.sum().backward()
    assert x.grad is not None and np.isfinite(x.grad.numpy()).all()


def test_gradients_of_zeros_in_products_and_angles() -> None:
    x = Tensor(np.array([0.0, 2.0, 3.0]), device="CPU", requires_grad=True)
    x.prod().backward()
    assert x.grad is not None and x.grad.tolist() == [6.0, 0.0, 0.0]
    y, z = (Tensor(np.array(v), device="CPU", requires_grad=True) for v in ([0.0, 1.0], [2.0, 0.0]))
    y.atan2(z).sum().backward()
    assert y.grad is not None and z.grad is not None
    np.testing.assert_allclose([y.grad.numpy(), z.grad.numpy()], [[0.5, 0.0], [0.0, -1.0]], atol=1e-12)


def test_arithmetic_in_place_leaves_what_it_came_from_as_it_is() -> None:
    x = tensor(np.array([1, 2]))
    for call in (
        abs,
        lambda x: +x,
        lambda x: x.floor(),
        lambda x: x.roll(2, 0),
        lambda x: x.clip(),
        lambda x: x.cast("int64"),
    ):
        y = call(x)
        y += 1
        assert (y.tolist(), x.tolist()) == ([2, 3], [1, 2])


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sine_and_cosine_of_any_float64(name: str) -> None:
    random = np.random.default_rng(0)
    hardest = 6381956970095103 * 2.0**797  # the float64 that is nearest to a multiple of a quarter turn
    x = np.array([*random.standard_normal(4000) * 10.0 ** random.integers(-5, 308, 4000), hardest, 2.0**40, 1e30])
    exact = [getattr(math, name)(value) for value in x]  # the C library's, within one unit in the last place
    found = getattr(tensor(x), name)().numpy()
    np.testing.assert_allclose(found, exact, rtol=0, atol=2.3e-16)
    np.testing.assert_allclose(found[-3:], exact[-3:], rtol=2e-15)
