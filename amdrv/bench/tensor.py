"""How fast the tensor compiler is and how fast its code: beside NumPy and a plain copy, in one run.

Rows about the host need no device. What is not built yet is listed as skipped, so that the list is always whole.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amdrv.bench.measure import RUNS, Row, check
from amdrv.tensor import Tensor, engine, jit, nn
from amdrv.tensor.host import HostBackend

Floats = NDArray[np.float32]

MATMUL, CHAIN = "f32 matmul on the host against NumPy", "fused elementwise chain against a copy"
COLD, CACHED, BLOCK = "one kernel, cold", "one kernel, cached", "transformer block forward and backward, cold"
REPLAY = "replay of a recorded training step, for each kernel"
KERNELS = {"softmax kernels": 1.0, "layernorm kernels": 1.0, "attention kernels": 2.0}
GOALS: Mapping[str, Mapping[str, float]] = {
    MATMUL: {"ratio": 0.8},
    CHAIN: {"ratio": 0.8},
    COLD: {"seconds": 0.030},
    CACHED: {"seconds": 0.001},
    BLOCK: {"seconds": 0.7},
    REPLAY: {"seconds": 1e-6},
    **{name: {"kernels": most} for name, most in KERNELS.items()},
}
NOT_YET = {
    "fp16 matmul on gfx1100, modelled cycles per FLOP": "cycles of matrix code are not modelled yet",
    "ONNX node tests": "the ONNX importer is not built yet",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work the rows do; there are goals for the default only."""

    matmul: int = 1024
    chain: int = 1 << 24
    width: int = 256
    runs: int = RUNS


QUICK = Sizes(matmul=64, chain=1 << 12, width=32, runs=2)


def rows(sizes: Sizes | None = None) -> Iterator[Row]:
    """Measure everything, row by row. Raises WrongResult when a result is not NumPy's."""
    sizes = sizes or Sizes()
    goals: Mapping[str, Mapping[str, float]] = GOALS if sizes == Sizes() else {}
    with tempfile.TemporaryDirectory() as folder:
        host = HostBackend(cache=Path(folder))  # a cache of its own: nothing was compiled before
        yield _matmul(host, sizes, goals.get(MATMUL, {}))
        yield _chain(host, sizes, goals.get(CHAIN, {}))
        yield from _one_kernel(host, sizes, goals)
        yield _block(host, sizes, goals.get(BLOCK, {}))
        yield _replay(host, sizes, goals.get(REPLAY, {}))
        yield from _kernels(host, goals)
    for name, reason in NOT_YET.items():
        yield Row(name, {}, skipped=reason)


def _random(*shape: int) -> Floats:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _times(work: Callable[[], object], runs: int) -> list[float]:
    work()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times


def _side_by_side(ours: Callable[[], object], theirs: Callable[[], object], runs: int) -> tuple[float, float]:
    """The best time of each: what else the machine does only ever adds. Taken in turns."""
    first, second = [], []
    for _ in range(runs):
        first += _times(ours, 1)
        second += _times(theirs, 1)
    return min(first), min(second)


def _matmul(host: HostBackend, sizes: Sizes, goal: Mapping[str, float]) -> Row:
    n = sizes.matmul
    a, b = _random(n, n), _random(n, n)
    x, y = Tensor(a, device=host), Tensor(b, device=host)
    ours, theirs = _side_by_side(lambda: (x @ y).realize(), lambda: a @ b, sizes.runs)
    check(MATMUL, float(abs((x @ y).numpy() - a @ b).max()), 1e-4 * n)
    flops = 2 * n**3
    figures = {"gflops": flops / ours / 1e9, "reference_gflops": flops / theirs / 1e9, "ratio": theirs / ours}
    return Row(f"{MATMUL} {n}^3", goal, ours, sizes.runs, figures=figures)


def _chain(host: HostBackend, sizes: Sizes, goal: Mapping[str, float]) -> Row:
    a = _random(sizes.chain)
    x, target = Tensor(a, device=host), np.empty_like(a)
    threads = host.threads
    parts = [slice(sizes.chain * k // threads, sizes.chain * (k + 1) // threads) for k in range(threads)]

    def chain() -> Tensor:
        return ((x * 2 + 1).relu() * x - 0.5).realize()

    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            list(pool.map(lambda part: np.copyto(target[part], a[part]), parts))

        ours, theirs = _side_by_side(chain, copy, sizes.runs)
    check(CHAIN, float(abs(chain().numpy() - (np.maximum(a * 2 + 1, 0) * a - 0.5)).max()), 1e-4)
    figures = {
        "bytes_per_s": 2 * a.nbytes / ours,
        "reference_bytes_per_s": 2 * a.nbytes / theirs,
        "ratio": theirs / ours,
    }
    return Row(f"{CHAIN}, {sizes.chain} elements", goal, ours, sizes.runs, figures=figures)


def _one_kernel(host: HostBackend, sizes: Sizes, goals: Mapping[str, Mapping[str, float]]) -> Iterator[Row]:
    """Building the graph, scheduling, compiling and running a small kernel."""
    x = Tensor(_random(1000), device=host)
    cold = []
    for k in range(sizes.runs):
        started = time.perf_counter()
        ((x * (k + 2.5) + 1).relu().exp() - x).realize()
        cold.append(time.perf_counter() - started)
    yield Row(COLD, goals.get(COLD, {}), statistics.median(cold), sizes.runs)
    cached = _times(lambda: ((x * 2.5 + 1).relu().exp() - x).realize(), 20 * sizes.runs)
    yield Row(CACHED, goals.get(CACHED, {}), statistics.median(cached), 20 * sizes.runs)


class Block:
    """A transformer's block."""

    def __init__(self, width: int, device: object) -> None:
        seeds = nn.Seeds()
        self._width = width
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, seeds, device=device) for _ in range(4))
        self.up, self.down = (
            nn.Linear(width, 4 * width, seeds, device=device),
            nn.Linear(4 * width, width, seeds, device=device),
        )
        self.first, self.second = nn.LayerNorm(width, device=device), nn.LayerNorm(width, device=device)

    def __call__(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape

        def heads(t: Tensor) -> Tensor:
            return t.reshape(batch, length, 8, width // 8).permute(0, 2, 1, 3)

        h = self.first(x)
        seen = heads(self.query(h)).attention(heads(self.key(h)), heads(self.value(h)), causal=True)
        x = x + self.out(seen.permute(0, 2, 1, 3).reshape(batch, length, width))
        return x + self.down(self.up(self.second(x)).gelu())


def _block(host: HostBackend, sizes: Sizes, goal: Mapping[str, float]) -> Row:
    """From Python to machine code, nothing of it seen before."""
    block = Block(sizes.width, host)
    x = Tensor(_random(2, 64, sizes.width), device=host)
    started = time.perf_counter()
    loss = block(x).square().mean()
    loss.backward()
    gradients = [tensor.grad.node for tensor in nn.parameters(block) if tensor.grad is not None]
    graph, _ = engine.canonical([loss.node, *gradients])
    plan = engine.plan(graph, host)
    seconds = time.perf_counter() - started
    figures = {f"{stage}_s": taken for stage, taken in plan.seconds.items()}
    figures |= {"kernels": float(len(plan.steps)), "temporary_bytes": float(sum(plan.temporary_bytes.values()))}
    return Row(f"{BLOCK}, width {sizes.width}", goal, seconds, 1, figures=figures)


def _replay(host: HostBackend, sizes: Sizes, goal: Mapping[str, float]) -> Row:
    """A step so small that what is measured is the host's part: an upper bound, because the kernels run as well."""
    seeds = nn.Seeds()
    first, second = nn.Linear(4, 4, seeds, device=host), nn.Linear(4, 4, seeds, device=host)
    optimiser = nn.SGD(nn.parameters([first, second]))

    def step(x: Tensor) -> Tensor:
        optimiser.zero_grad()
        loss = second(first(x).relu()).square().mean()
        loss.backward()
        optimiser.step(loss)
        return loss

    x = Tensor(_random(4, 4), device=host)
    with engine.recorded() as log:
        step(x)
    kernels = sum(len(made.plan.steps) for made in log.runs)
    replayed = jit(step)
    for _ in range(2):
        replayed(x)
    times = _times(lambda: replayed(x), 20 * sizes.runs)
    return Row(REPLAY, goal, statistics.median(times) / kernels, 20 * sizes.runs, figures={"kernels": float(kernels)})


def _kernels(host: HostBackend, goals: Mapping[str, Mapping[str, float]]) -> Iterator[Row]:
    """How many kernels an operation takes."""
    x = Tensor(_random(2, 64, 64), device=host)
    made = {"softmax kernels": x.softmax(), "layernorm kernels": x.layernorm(), "attention kernels": x.attention(x, x)}
    for name, tensor in made.items():
        graph, _ = engine.canonical([tensor.node])
        figures = {"kernels": float(len(engine.plan(graph, host).steps))}
        yield Row(name, goals.get(name, {}), None, 1, figures=figures)
