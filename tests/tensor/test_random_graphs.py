"""Random graphs of views, arithmetic and reductions give what NumPy gives, on the host and on the GPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amdrv.tensor import Tensor, engine, spec

Step = tuple[Callable[[Tensor], Tensor], Callable[[np.ndarray], np.ndarray]]


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _pieces(draw: st.DrawFn, n: int) -> slice:
    step = draw(st.sampled_from([1, 1, 2, -1, -2]))
    return slice(draw(st.integers(0, n - 1)), None, step)


@st.composite
def steps(draw: st.DrawFn, shape: tuple[int, ...]) -> Step:
    """One operation on an array of a shape, for tensors and for NumPy."""
    axis = draw(st.integers(0, len(shape) - 1))
    size = int(np.prod(shape))
    order = draw(st.permutations(range(len(shape))))
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    widths = [(before, after) if a == axis else (0, 0) for a in range(len(shape))]
    cut = (*[slice(None)] * axis, _pieces(draw, shape[axis]))
    factor = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    window = draw(st.integers(1, shape[axis]))
    every_second = (*[slice(None)] * axis, slice(None, None, 2))
    choices: dict[str, Step] = {
        "permute": (lambda x: x.permute(order), lambda x: x.transpose(order)),
        "reshape": (lambda x: x.reshape(factor, -1), lambda x: x.reshape(factor, -1)),
        "pad": (lambda x: x.pad(widths), lambda x: np.pad(x, widths)),
        "pad with a value": (lambda x: x.pad(widths, 2.0), lambda x: np.pad(x, widths, constant_values=2.0)),
        "slice": (lambda x: x[cut], lambda x: x[cut]),
        "flip": (lambda x: x.flip(axis), lambda x: np.flip(x, axis)),
        "sum": (lambda x: x.sum(axis, keepdim=True) * 0.1, lambda x: x.sum(axis, keepdims=True) * np.float32(0.1)),
        "less the maximum": (lambda x: x - x.max(axis, keepdim=True), lambda x: x - x.max(axis, keepdims=True)),
        "window": (
            lambda x: x.window(axis, window, 2).mean(-1),
            lambda x: np.lib.stride_tricks.sliding_window_view(x, window, axis)[every_second].mean(-1),
        ),
        "function": (lambda x: (x * 0.5).tanh() + 1, lambda x: np.tanh(x * np.float32(0.5)) + 1),
        "with its mirror": (lambda x: x + x.flip(axis) * 2, lambda x: x + np.flip(x, axis) * 2),
        "softmax": (lambda x: x.softmax(axis), lambda x: _softmax(x, axis)),
        "with itself": (lambda x: x.cat(x * 2, axis=axis), lambda x: np.concatenate([x, x * 2], axis)),
        "own buffer": (lambda x: x.contiguous(), lambda x: x),
        "compare": (lambda x: (x > 0.2).where(x, -x), lambda x: np.where(x > np.float32(0.2), x, -x)),
    }  # fmt: skip
    return choices[draw(st.sampled_from(sorted(choices)))]


@st.composite
def programs(draw: st.DrawFn) -> tuple[np.ndarray, list[Step], np.ndarray]:
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    array = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape).astype(np.float32)
    value, chosen = array, []
    for _ in range(draw(st.integers(1, 6))):
        step = draw(steps(value.shape))
        value = np.asarray(step[1](value))
        chosen.append(step)
        if not 0 < value.size < 3000 or value.ndim > 4:
            break
    return array, chosen, value


@pytest.mark.parametrize("device", ["CPU", "AMD"])
def test_random_programs_agree_with_numpy(device: str) -> None:
    examples = 120 if device == "CPU" else 25
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=checks)
    @given(programs())
    def run(program: tuple[np.ndarray, list[Step], np.ndarray]) -> None:
        array, chosen, wanted = program
        x = Tensor(array, device=device)
        for ours, _ in chosen:
            x = ours(x)
        spec.check_graph(engine.canonical([x.node])[0])
        assert x.shape == wanted.shape
        np.testing.assert_allclose(x.numpy(), wanted, rtol=1e-4, atol=1e-5)

    run()


def test_long_chains_of_operations_and_of_views() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = Tensor(array, device="CPU")
    for _ in range(1500):
        x = x + 1
    np.testing.assert_array_equal(x.numpy(), array + 1500)
    for k in range(1501):
        x = x.T.flip(k % 2)
    wanted = array + 1500
    for k in range(1501):
        wanted = np.flip(wanted.T, k % 2)
    np.testing.assert_array_equal(x.numpy(), wanted)
