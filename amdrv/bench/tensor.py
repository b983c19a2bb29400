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
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from amdrv.bench import matrix_loop, triton_matmul
from amdrv.bench.measure import RUNS, Row, check
from amdrv.errors import InvalidArgument, Unsupported
from amdrv.tensor import Tensor, devices, engine, jit, nn
from amdrv.tensor.gpu import GpuBackend
from amdrv.tensor.host import HostBackend
from amdrv.tensor.storage import Backend

SPIN_S = 0.1  # longer than OpenBLAS waits for more work
Floats = NDArray[np.float32]

MATMUL, CHAIN = "f32 matmul on the host against NumPy", "fused elementwise chain against a copy"
COLD, CACHED, BLOCK = "one kernel, cold", "one kernel, cached", "transformer block forward and backward, cold"
REPLAY = "replay of a recorded training step, for each kernel"
REPLAY_GPU = "replay of a recorded training step on AMD, host's share for each kernel"
WMMA = "fp16 matmul on gfx1100, modelled cycles"
NODES = "ONNX node tests that pass on the host"
KERNELS = {"softmax kernels": 1.0, "layernorm kernels": 1.0, "attention kernels": 2.0}
GOALS: Mapping[str, Mapping[str, float]] = {
    MATMUL: {"ratio": 0.8},
    CHAIN: {"ratio": 0.8},
    COLD: {"seconds": 0.030},
    CACHED: {"seconds": 0.001},
    BLOCK: {"seconds": 0.7},
    REPLAY: {"seconds": 1e-6},
    REPLAY_GPU: {"seconds": 1e-6},
    **{name: {"kernels": most} for name, most in KERNELS.items()},
    WMMA: {"against_triton": 1.1},
    NODES: {"share": 0.95},
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work the rows do; there are goals for the default only."""

    matmul: int = 1024
    matmul_half: int = 1024
    chain: int = 1 << 24
    width: int = 256
    layers: int = 32
    runs: int = RUNS
    onnx_modules: tuple[str, ...] | None = None  # of node tests; all unless given


QUICK = Sizes(matmul=64, chain=1 << 12, width=32, layers=1, runs=2, onnx_modules=("add", "loop"))


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
        yield _replay_gpu(sizes, goals.get(REPLAY_GPU, {}))
        yield from _kernels(host, goals)
        yield _wmma(host, sizes, goals.get(WMMA, {}))
    yield _onnx_nodes(sizes, goals.get(NODES, {}))


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
    """The best time of each: what else the machine does only ever adds. Taken in turns.

    NumPy's threads keep their processors busy for a while after their work, which ours must not pay for.
    """
    first, second = [], []
    for _ in range(runs):
        first += _times(ours, 5)
        second += _times(theirs, 5)
        time.sleep(SPIN_S)
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


def _recorded_step(device: Backend, sizes: Sizes) -> tuple[Callable[[], Tensor], int]:
    """A step of Adam on layers so small that the kernels take next to nothing, recorded; and how many kernels it is."""
    seeds = nn.Seeds()
    layers = [nn.Linear(4, 4, seeds, device=device) for _ in range(sizes.layers)]
    optimiser = nn.Adam(nn.parameters(layers))

    def step(x: Tensor) -> Tensor:
        optimiser.zero_grad()
        for layer in layers:
            x = layer(x).relu()
        loss = x.square().mean()
        loss.backward()
        optimiser.step(loss)
        return loss

    x = Tensor(_random(4, 4), device=device)
    with engine.recorded() as log:
        step(x)
    replayed = jit(step)
    for _ in range(3):
        replayed(x)
    return lambda: replayed(x), sum(len(made.plan.steps) for made in log.runs)


def _replay(host: HostBackend, sizes: Sizes, goal: Mapping[str, float]) -> Row:
    """Everything from call to return: an upper bound of the host's share, because the kernels run as well."""
    step, kernels = _recorded_step(host, sizes)
    times = _times(step, 20 * sizes.runs)
    return Row(REPLAY, goal, statistics.median(times) / kernels, 20 * sizes.runs, figures={"kernels": float(kernels)})


def _replay_gpu(sizes: Sizes, goal: Mapping[str, float]) -> Row:
    """The calling thread's processor time for a step behind another, as in a loop, less the transport's doorbell.

    A real card's doorbell is one store. An emulated card looks at its queues there, in this thread.
    """
    backend = devices.backend("AMD")
    if not isinstance(backend, GpuBackend):
        raise InvalidArgument("AMD is no GPU")
    function = backend.device.gpu.function
    step, kernels = _recorded_step(backend, sizes)
    write64, inside = function.write64, 0.0

    def timed(bar: int, offset: int, value: int) -> None:
        nonlocal inside
        started = time.thread_time()
        write64(bar, offset, value)
        inside += time.thread_time() - started

    times = []
    with mock.patch.object(function, "write64", timed):
        for _ in range(4 * sizes.runs):
            backend.synchronize()
            step()
            inside, started = 0.0, time.thread_time()
            step()
            times.append(time.thread_time() - started - inside)
    figures = {"kernels": float(kernels)}
    return Row(REPLAY_GPU, goal, statistics.median(times) / kernels, 4 * sizes.runs, figures=figures)


def _kernels(host: HostBackend, goals: Mapping[str, Mapping[str, float]]) -> Iterator[Row]:
    """How many kernels an operation takes."""
    x = Tensor(_random(2, 64, 64), device=host)
    made = {"softmax kernels": x.softmax(), "layernorm kernels": x.layernorm(), "attention kernels": x.attention(x, x)}
    for name, tensor in made.items():
        graph, _ = engine.canonical([tensor.node])
        figures = {"kernels": float(len(engine.plan(graph, host).steps))}
        yield Row(name, goals.get(name, {}), None, 1, figures=figures)


def _wmma(host: HostBackend, sizes: Sizes, goal: Mapping[str, float]) -> Row:
    """Cycles of the inner loop for each thousand floating-point operations of a wave, by LLVM's model; see there."""
    name, arch = f"{WMMA} {sizes.matmul_half}^3", matrix_loop.ARCH
    if reason := matrix_loop.missing():
        return Row(name, goal, skipped=reason)

    def cycles(code: bytes) -> float:
        loop = matrix_loop.loop_of(code, arch)
        return 1000 * loop.cycles(arch) / loop.flops

    same = cycles(matrix_loop.compile_ours(sizes.matmul_half, host, (matrix_loop.SAME_TILE,)))
    figures = {"cycles_per_kflop": cycles(matrix_loop.compile_ours(sizes.matmul_half, host)), "same_tile": same}
    if reason := triton_matmul.missing():
        return Row(name, goal, skipped=reason, figures=figures)
    theirs = cycles(triton_matmul.compile_matmul(arch).code)
    figures |= {"triton": theirs, "against_triton": same / theirs}
    return Row(name, goal, None, 1, figures=figures)


def _onnx_nodes(sizes: Sizes, goal: Mapping[str, float]) -> Row:
    """ONNX's own tests of operators. Those that cannot pass, ``node_exclusions.txt`` says why, count as failed."""
    try:
        from amdrv.tensor.onnx import conformance
    except Unsupported as error:
        return Row(NODES, goal, skipped=str(error))
    cases = conformance.cases(sizes.onnx_modules)
    started = time.perf_counter()
    passing = conformance.passing(cases)
    figures = {"passing": float(passing), "total": float(len(cases)), "share": passing / len(cases)}
    return Row(NODES, goal, time.perf_counter() - started, 1, figures=figures)
