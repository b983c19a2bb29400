"""Recorded functions: whatever happens between calls, they do what the function does."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from amdrv.tensor import Tensor, engine, jit
from amdrv.tensor.host import HostBackend

RANDOM = np.random.default_rng(12)
DEVICES = ("CPU", "AMD")


def counter(device: object) -> tuple[Tensor, object]:
    """A tensor that a recorded function adds its input to, and the function, which returns the sum's double."""
    total = Tensor(np.zeros(300, np.float32), device=device)

    def step(x: Tensor) -> Tensor:
        total.assign(total + x)
        return (total * 2).realize(total)

    return total, jit(step)


@pytest.mark.parametrize("device", DEVICES)
def test_state_and_results_are_those_of_the_function(device: str) -> None:
    total, step = counter(device)
    kept = [step(Tensor(np.full(300, k, np.float32), device=device)) for k in range(8)]
    np.testing.assert_array_equal(total.numpy(), 28)
    for k, result in enumerate(kept):  # results of earlier calls keep their values
        np.testing.assert_array_equal(result.numpy(), k * (k + 1))


@pytest.mark.parametrize("device", DEVICES)
def test_what_somebody_holds_of_earlier_state_keeps_its_values(device: str) -> None:
    total, step = counter(device)
    one = Tensor(np.ones(300, np.float32), device=device)
    lazy, views = [], []
    for _ in range(8):
        step(one)
        lazy.append(total + 0.5)
        views.append(total.reshape(3, 100).detach())
    for k, (sums, view) in enumerate(zip(lazy, views, strict=True), 1):
        np.testing.assert_array_equal(sums.numpy(), k + 0.5)
        np.testing.assert_array_equal(view.numpy(), np.full((3, 100), k))


@pytest.mark.parametrize("device", DEVICES)
def test_a_recorded_function_is_part_of_another_recording(device: str) -> None:
    inner = jit(lambda x: x * 3)
    outer = jit(lambda x: inner(x + 1) - 2)
    for k in range(3):
        inner(Tensor(np.full(300, k, np.float32), device=device).realize())
    for k in range(5):
        found = outer(Tensor(np.full(300, k, np.float32), device=device))
        np.testing.assert_array_equal(found.numpy(), (k + 1) * 3 - 2)


@pytest.mark.parametrize("device", DEVICES)
def test_a_recording_keeps_the_code_that_it_runs(device: str) -> None:
    function = jit(lambda x: (x * 5).realize() + 2)
    for k in range(3):
        given = Tensor(np.full(300, k, np.float32), device=device)
        function(given)
    engine.plan.cache_clear()  # plans and programs are forgotten in time
    given.backend.programs.clear()
    gc.collect()
    other = Tensor(np.ones((8, 8), np.float32), device=device)
    (other @ other).realize()  # takes memory that is free
    np.testing.assert_array_equal(function(given).numpy(), 12)


def test_arrays_are_used_again_when_nobody_holds_them() -> None:
    total, step = counter("CPU")
    one = Tensor(np.ones(300, np.float32), device="CPU")
    seen = set()
    for _ in range(20):
        step(one)
        seen.add(total.node.arg[0].address)
    assert len(seen) <= 4


@pytest.mark.parametrize("device", DEVICES)
def test_state_that_is_assigned_between_calls_is_what_the_next_call_finds(device: str) -> None:
    total, step = counter(device)
    one = Tensor(np.ones(300, np.float32), device=device)
    for k in range(7):
        step(one)
        if k == 4:
            total.assign(Tensor(np.full(300, 100, np.float32), device=device) * 2)
    np.testing.assert_array_equal(total.numpy(), 202)


def test_state_that_takes_over_an_array_follows_it() -> None:
    previous, current = (Tensor(np.full(4, k, np.float32), device="CPU") for k in (0, 1))

    def step(x: Tensor) -> Tensor:
        found = (previous + current) * x
        previous.assign(current)
        current.assign(found)
        return (found + 0).realize(previous, current)

    recorded = jit(step)
    results = [recorded(Tensor(np.ones(4, np.float32), device="CPU")).numpy()[0] for _ in range(9)]
    assert results == [1, 2, 3, 5, 8, 13, 21, 34, 55]
    np.testing.assert_array_equal(previous.numpy(), 34)


def test_one_tensor_given_twice_is_not_taken_for_two_that_are_the_same() -> None:
    product = jit(lambda a, b: a * b)
    x, y = Tensor([3.0], device="CPU"), Tensor([5.0], device="CPU")
    assert [product(x, x).item() for _ in range(3)] == [9, 9, 9]
    assert [product(x, y).item() for _ in range(3)] == [15, 15, 15]


def test_a_step_on_several_threads_is_that_on_one() -> None:
    a = RANDOM.standard_normal((300, 200)).astype(np.float32)
    w = RANDOM.standard_normal((200, 200)).astype(np.float32)
    found = []
    for threads in (1, 3):
        device = HostBackend(threads=threads)
        weight = Tensor(w, device=device)

        def step(x: Tensor, weight: Tensor = weight) -> Tensor:
            small = x.sum(0)  # between products that are divided: one that is not
            return ((x @ weight).relu() @ weight + small).contiguous().softmax()

        recorded = jit(step)
        found.append([recorded(Tensor(a + k, device=device)).numpy() for k in range(6)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_copies_between_devices_are_repeated() -> None:
    total = Tensor(np.zeros(3, np.float32), device="AMD")

    def step(x: Tensor) -> Tensor:
        total.assign(total + (x * 2).to("AMD"))
        return (total + 1).to("CPU").realize(total)

    recorded = jit(step)
    found = [recorded(Tensor(np.full(3, k, np.float32), device="CPU")) for k in range(6)]
    assert [float(part.numpy()[0]) for part in found] == [1, 3, 7, 13, 21, 31]


def test_a_replay_plans_nothing() -> None:
    _, step = counter("CPU")
    one = Tensor(np.ones(300, np.float32), device="CPU")
    for _ in range(3):
        step(one)
    with engine.recorded(watch=True) as log:
        step(one)
    assert not log.runs


def test_threads_record_and_repeat_one_function_at_the_same_time() -> None:
    function = jit(lambda x: ((x + 1).realize() * 2).realize() - x)
    wrong: list[float] = []

    def work(first: int) -> None:
        for k in range(first, first + 20):
            found = function(Tensor(np.full(64, k, np.float32), device="CPU")).numpy()
            if not (found == k + 2).all():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
