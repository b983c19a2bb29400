"""Many steps leave nothing behind, and many threads and processes do not disturb each other."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from amdrv.tensor import Tensor, ir, jit, nn


def _tensor(array: object) -> Tensor:
    return Tensor(array, device="CPU")


def test_threads_compute_different_things_and_the_same_thing_at_once() -> None:
    shared = _tensor(np.arange(12, dtype=np.float32)).exp().sum()
    found: list[object] = []

    def work(seed: int) -> None:
        for n in range(1, 9):
            a = np.random.default_rng(seed).standard_normal((n, seed + 3)).astype(np.float32)
            np.testing.assert_allclose(
                ((_tensor(a) + seed) @ _tensor(a).T).numpy(), (a + seed) @ a.T, rtol=1e-4, atol=1e-4
            )
        found.append(shared.item())

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(6))) == [None] * 6
    assert len(found) == 6 and len(set(found)) == 1


def _training() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    weight = Tensor(np.eye(8, dtype=np.float32), device="CPU", requires_grad=True)
    optimiser = nn.Adam([weight])

    def step(x: Tensor) -> Tensor:
        optimiser.zero_grad()
        loss = (x @ weight - x * 2).square().mean()
        loss.backward()
        optimiser.step(loss)
        return loss

    return step, _tensor(np.ones((8, 8), np.float32))


def _nodes_after(steps: int, step: Callable[[Tensor], Tensor], x: Tensor) -> int:
    for _ in range(steps):
        step(x)
    gc.collect()
    return len(ir._interned)


def test_a_thousand_recorded_steps_leave_nothing_behind() -> None:
    step, x = _training()
    recorded = jit(step)
    before = _nodes_after(5, recorded, x)
    assert _nodes_after(1000, recorded, x) <= before + 8
    before = _nodes_after(5, step, x)
    assert _nodes_after(40, step, x) <= before + 8


def test_nodes_that_nobody_holds_are_gone() -> None:
    step, x = _training()
    before = _nodes_after(1, step, x)
    lazy = x
    for _ in range(1000):
        lazy = lazy.sin()
    assert len(ir._interned) >= before + 1000
    del lazy
    assert _nodes_after(0, step, x) <= before


def test_processes_that_compile_the_same_at_once_share_a_cache(tmp_path: Path) -> None:
    program = """
import numpy as np
from amdrv.tensor import Tensor
for n in range(2, 8):
    x = Tensor(np.ones((n, 3), np.float32), device="CPU")
    assert abs((x * n).exp().softmax().sum().item() - n) < 1e-4
"""
    command, cache = [sys.executable, "-c", program], {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    started = [subprocess.Popen(command, env=cache, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=100)[1] for process in started] == [""] * 3
    kept = list(tmp_path.rglob("*"))
    assert kept and all(path.is_dir() or path.suffix == ".o" for path in kept)  # no half-written ones
