"""Running sums, sorting, scattering and the gradient of looking up: right, and far from quadratic."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from amdrv.errors import InvalidArgument
from amdrv.tensor import Tensor, dtypes, engine
from amdrv.tensor.ir import Op, toposort

RANDOM = np.random.default_rng(3)


def tensor(array: object, device: str = "CPU") -> Tensor:
    return Tensor(array, device=device)


def operations(found: Tensor) -> int:
    """How often the kernels of a tensor evaluate their nodes, positions apart: counted in their loops."""
    plan = engine.in_memory(found.realize().node).arg[0].origin  # type: ignore[union-attr]
    total = 0
    for step in plan.steps:
        for node in toposort([step.kernel.body]):
            if node.dtype is not dtypes.index and node.op not in (Op.CONST, Op.PARAM, Op.SINK):
                loops = node.ranges | (frozenset(node.src[1:]) if node.op is Op.REDUCE else frozenset())
                total += math.prod(loop.arg[1] for loop in loops)
    return total


def looked_up(n: int) -> Tensor:
    x = Tensor(np.zeros((n, 2), np.float32), device="CPU", requires_grad=True)
    x[tensor(np.arange(n)[::-1].copy())].sum().backward()
    assert x.grad is not None
    return x.grad


WORK: dict[str, tuple[Callable[[int], Tensor], float]] = {
    "cumsum": (lambda n: tensor(np.ones(n, np.float32)).cumsum(0), 1.05),
    "cumprod": (lambda n: tensor(np.ones(n, np.float32)).cumprod(0), 1.05),
    "argsort": (lambda n: tensor(np.ones(n, np.float32)).argsort(0), 1.8),  # (log 4n / log n)² is 1.49 here
    "topk": (lambda n: tensor(np.ones(n, np.float32)).topk(3, 0)[1], 1.8),
    "scatter add": (lambda n: tensor(np.zeros(n)).scatter_add(0, tensor(np.arange(n)), tensor(np.ones(n))), 1.01),
    "scatter set": (lambda n: tensor(np.zeros(n)).scatter(0, tensor(np.arange(n)), tensor(np.ones(n))), 1.01),
    "gradient of looking up": (looked_up, 1.01),
    "search": (lambda n: tensor(np.arange(n)).searchsorted(tensor(np.arange(n))), 1.3),
}


@pytest.mark.parametrize("name", WORK)
def test_four_times_as_many_elements_take_about_four_times_the_operations(name: str) -> None:
    make, more = WORK[name]
    few, many = operations(make(512)), operations(make(2048))
    assert many <= 4 * more * few


@pytest.mark.parametrize("n", [0, 1, 2, 16, 33, 257, 1000])
@pytest.mark.parametrize("axis", [0, 1])
def test_running_sums_and_products_of_every_length(n: int, axis: int) -> None:
    x = np.moveaxis(RANDOM.integers(-2, 3, (n, 3)), 0, axis)
    np.testing.assert_array_equal(tensor(x).cumsum(axis).numpy(), x.cumsum(axis))
    np.testing.assert_array_equal(tensor(x).cumprod(axis).numpy(), x.cumprod(axis))


def test_long_running_sums_are_more_exact_than_one_addition_after_the_other() -> None:
    x = RANDOM.random(1 << 16, dtype=np.float32)
    exact = x.astype(np.float64).cumsum()
    ours, theirs = (abs(found - exact).max() for found in (tensor(x).cumsum().numpy(), x.cumsum()))
    assert ours <= theirs
    assert ours <= 1e-6 * exact[-1]


def test_running_sums_pass_on_what_is_not_finite_but_never_back() -> None:
    x = np.ones(100, np.float32)
    x[50], x[70] = np.inf, -np.inf
    np.testing.assert_array_equal(tensor(x).cumsum().numpy(), x.cumsum())


SORTED = [("CPU", dtype) for dtype in (np.float32, np.float16, np.int64, np.uint8, np.bool_)] + [("AMD", np.float32)]


@pytest.mark.parametrize(("device", "dtype"), SORTED)
def test_sorting_is_stable_with_nan_last(device: str, dtype: type) -> None:
    x = RANDOM.integers(0, 4, (3, 37) if device == "CPU" else (1, 9)).astype(dtype)
    if dtype in (np.float32, np.float16):
        x[0, :7] = [np.nan, np.inf, -np.inf, -0.0, 0.0, np.nan, -1]
    np.testing.assert_array_equal(tensor(x, device).argsort(1).numpy(), x.argsort(1, stable=True))
    np.testing.assert_array_equal(tensor(x, device).sort(0).numpy(), np.sort(x, 0))
    backwards = x.shape[1] - 1 - x[:, ::-1].argsort(1, stable=True)[:, ::-1]
    np.testing.assert_array_equal(tensor(x, device).argsort(1, True).numpy(), backwards)


COMBINED = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
SCATTERED = [("CPU", dtype) for dtype in (np.float32, np.int32, np.int8, np.float16, np.float64)]


@pytest.mark.parametrize("reduce", COMBINED)
@pytest.mark.parametrize(("device", "dtype"), [*SCATTERED, ("AMD", np.float32), ("AMD", np.int64)])
def test_scattered_values_are_combined(device: str, dtype: type, reduce: str) -> None:
    base, index = RANDOM.integers(1, 4, (5, 6)).astype(dtype), RANDOM.integers(-5, 5, (4, 6))
    values = RANDOM.integers(1, 3, (4, 6)).astype(dtype)
    wanted = base.copy()
    COMBINED[reduce].at(wanted, (index, np.arange(6)), values)
    found = tensor(base, device).scatter(0, tensor(index, device), tensor(values, device), reduce)
    assert found.numpy().dtype == dtype
    np.testing.assert_array_equal(found.numpy(), wanted)


@pytest.mark.parametrize("device", ["CPU", "AMD"])
def test_of_several_values_for_one_element_the_last_stays(device: str) -> None:
    index, values = RANDOM.integers(0, 5, 400), RANDOM.random(400)
    wanted = np.zeros(5)
    wanted[index] = values
    np.testing.assert_array_equal(
        tensor(np.zeros(5), device).scatter(0, tensor(index, device), tensor(values, device)).numpy(), wanted
    )


def test_scattering_nan_and_nothing() -> None:
    zeros, index = tensor(np.zeros(3)), tensor(np.array([1, 1]))
    found = zeros.scatter(0, index, tensor(np.array([np.nan, 1.0])), "max").numpy()
    np.testing.assert_array_equal(found, [0, np.nan, 0])
    none = tensor(np.zeros(0, np.int64))
    for reduce in ("set", "add"):
        np.testing.assert_array_equal(zeros.scatter(0, none, tensor(np.zeros(0)), reduce).numpy(), [0, 0, 0])


def test_scatter_says_what_does_not_fit() -> None:
    x = tensor(np.zeros((3, 4)))
    with pytest.raises(InvalidArgument, match=r"scatter.*\(2,\).*\(3, 4\)"):
        x.scatter_add(0, tensor(np.array([0, 1])), tensor(np.zeros(2)))
    with pytest.raises(InvalidArgument, match="average"):
        x.scatter(0, tensor(np.zeros((3, 4), int)), x, "average")


def test_embeddings_and_their_gradient_take_one_kernel_for_each_pass() -> None:
    table = Tensor(RANDOM.random((50, 8), np.float32), device="CPU", requires_grad=True)
    index = RANDOM.integers(0, 50, (6, 7))
    (table[tensor(index)] * 2).sum().backward()
    assert table.grad is not None
    wanted = np.zeros((50, 8), np.float32)
    np.add.at(wanted, index, 2)
    np.testing.assert_array_equal(table.grad.numpy(), wanted)
    plan = engine.in_memory(table.grad.node).arg[0].origin  # type: ignore[union-attr]
    assert len(plan.steps) == 2  # zeros, and what is added to them


def test_searching_finds_what_numpy_finds() -> None:
    line, wanted = (
        np.sort(RANDOM.integers(0, 9, 50)).astype(np.float32),
        RANDOM.integers(-1, 10, (4, 5)).astype(np.float32),
    )
    for side in ("left", "right"):
        found = tensor(line).searchsorted(tensor(wanted), side).numpy()
        np.testing.assert_array_equal(found, np.searchsorted(line, wanted, side))
