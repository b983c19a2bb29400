"""How fast a device executes code: matrix products, a stream, divergent loops, and what compiling costs.

Goals are for one core (unless the row says otherwise) of a host with AVX-512; throughput is half of it without.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from amdrv.bench import engine as engines
from amdrv.bench import triton_matmul, workload
from amdrv.bench.engine import NOT_A_TRANSLATOR, SETTLE_TIMEOUT_S, Translator
from amdrv.bench.measure import DURATIONS, RUNS, Row, Stopwatch, Timing
from amdrv.bench.workload import Workload
from amdrv.runtime.device import Device

WAVE_ITEMS = 32
THROUGHPUT = frozenset({"seconds", "gflops", "wave_instructions_per_s"})  # figures that the width of vectors decides


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work the rows do; there are goals for the default only."""

    matmul: int = 256
    matmul_threads: int = 512
    matmul_triton: int = 512
    saxpy: int = 1 << 20
    mandelbrot: int = 1024
    mandelbrot_limit: int = 256
    runs: int = RUNS


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured, with what only an emulated card offers.

    ``engine`` is the card's shader engine. ``spare`` opens a second card that nothing has run on, with its engine.
    """

    device: Device
    count: Callable[[], int] | None = None
    engine: object = None
    spare: Callable[[], AbstractContextManager[tuple[Device, object]]] | None = None

    @property
    def translator(self) -> Translator | None:
        """The engine when it compiles."""
        return self.engine if isinstance(self.engine, Translator) else None


def rows(bench: Bench, sizes: Sizes | None = None, *, wide_vectors: bool = True) -> Iterator[Row]:
    """Measure everything, row by row. Raises WrongResult when a result is not NumPy's, and what the driver raises."""
    sizes = sizes or Sizes()
    scaled = _goals(wide_vectors) if sizes == Sizes() else lambda name: {}
    with ExitStack() as stack:
        if bench.translator is not None:
            stack.enter_context(engines.threads(bench.translator, 1))
        for (name, size), make in _throughput(bench, sizes).items():
            yield _measure(f"{name} {size}", bench, sizes, make, scaled(name))
        yield _wmma(bench, sizes, scaled(WMMA))
        yield _threads(bench, sizes, scaled(THREADS))
        yield _first_tier(bench, scaled(FIRST_TIER))
        yield _cached_load(bench, scaled(CACHED_LOAD))


NAIVE, SAXPY, TILED = "naive f32 matmul", "saxpy", "LDS-tiled f32 matmul"
WMMA, MANDELBROT = "Triton fp16 WMMA matmul", "Mandelbrot, divergent"
THREADS, FIRST_TIER, CACHED_LOAD = "two cores against one, matmul", "first-tier compile", "cached load to first wave"

GOALS: Mapping[str, Mapping[str, float]] = {
    NAIVE: {"gflops": 4.0, "wave_instructions_per_s": 400e6},
    SAXPY: {"seconds": 1.0e-3},
    TILED: {"gflops": 4.0},
    WMMA: {"gflops": 30.0},
    MANDELBROT: {"wave_instructions_per_s": 100e6},
    THREADS: {"speedup": 1.8},
    FIRST_TIER: {"seconds_per_100_instructions": 0.020},
    CACHED_LOAD: {"seconds": 5.0e-3},
}


def _goals(wide_vectors: bool) -> Callable[[str], Mapping[str, float]]:
    def scaled(name: str) -> Mapping[str, float]:
        if wide_vectors or name == CACHED_LOAD:
            return GOALS[name]
        return {
            figure: value * (2.0 if figure in DURATIONS else 0.5) if figure in THROUGHPUT else value
            for figure, value in GOALS[name].items()
        }

    return scaled


def _throughput(bench: Bench, sizes: Sizes) -> Mapping[tuple[str, str], Callable[[], Workload]]:
    """What makes the work of the rows that every device can run, by name and size."""
    device = bench.device

    def code(name: str) -> bytes:
        return workload.code(name, device.arch)

    return {
        (NAIVE, f"{sizes.matmul}^3"): lambda: workload.matmul_naive(device, code("matmul_naive"), sizes.matmul),
        (SAXPY, f"{sizes.saxpy} floats"): lambda: workload.saxpy(device, code("saxpy"), sizes.saxpy),
        (TILED, f"{sizes.matmul}^3"): lambda: workload.matmul_tiled(device, code("matmul_tiled"), sizes.matmul),
        (MANDELBROT, f"{sizes.mandelbrot}^2"): lambda: workload.mandelbrot(
            device, code("mandelbrot"), sizes.mandelbrot, sizes.mandelbrot_limit
        ),
    }


def _stopwatch(bench: Bench, sizes: Sizes) -> Stopwatch:
    translator = bench.translator
    settle = (lambda: translator.settle(SETTLE_TIMEOUT_S)) if translator is not None else None
    return Stopwatch(bench.device, bench.count, settle, sizes.runs)


def _measure(name: str, bench: Bench, sizes: Sizes, make: Callable[[], Workload], goal: Mapping[str, float]) -> Row:
    work = make()
    timing = _stopwatch(bench, sizes).time(work.launch)
    work.verify()
    return _row(name, goal, work, timing)


def _row(name: str, goal: Mapping[str, float], work: Workload, timing: Timing) -> Row:
    figures = {"gflops": work.flops / timing.seconds / 1e9} if work.flops else {}
    return Row(name, goal, timing.seconds, timing.runs, timing.wave_instructions, figures)


def _wmma(bench: Bench, sizes: Sizes, goal: Mapping[str, float]) -> Row:
    name = f"{WMMA} {sizes.matmul_triton}^3"
    if reason := triton_matmul.missing():
        return Row(name, goal, skipped=reason)
    device = bench.device

    def make() -> Workload:
        return triton_matmul.matmul(device, triton_matmul.compile_matmul(device.arch), sizes.matmul_triton)

    return _measure(name, bench, sizes, make, goal)


def _threads(bench: Bench, sizes: Sizes, goal: Mapping[str, float]) -> Row:
    """The same work on one thread and on two."""
    name = f"{THREADS} {sizes.matmul_threads}^3"
    translator = bench.translator
    if translator is None:
        return Row(name, goal, skipped=NOT_A_TRANSLATOR)
    if len(os.sched_getaffinity(0)) < 2:
        return Row(name, goal, skipped="this process may use one core only")
    stopwatch = _stopwatch(bench, sizes)
    work = workload.matmul_naive(bench.device, workload.code("matmul_naive", bench.device.arch), sizes.matmul_threads)
    alone = stopwatch.time(work.launch)
    with engines.threads(translator, 2):
        both = stopwatch.time(work.launch)
    work.verify()
    row = _row(name, goal, work, both)
    figures = {**row.figures, "seconds_one_core": alone.seconds, "speedup": alone.seconds / both.seconds}
    return Row(name, goal, both.seconds, both.runs, both.wave_instructions, figures)


def _first_tier(bench: Bench, goal: Mapping[str, float]) -> Row:
    """Code that no cache has seen, until the engine has quick code for it."""
    translator = bench.translator
    if translator is None:
        return Row(FIRST_TIER, goal, skipped=NOT_A_TRANSLATOR)
    device = bench.device
    done = len(translator.compile_log)
    for name, make in (("matmul_naive", workload.matmul_naive), ("matmul_tiled", workload.matmul_tiled)):
        start = random.SystemRandom().randrange(1 << 20) / (1 << 20) + 1  # a float32
        work = make(device, workload.code(name, device.arch, start=start), 32, start=start)
        work.launch()
        device.synchronize()
        work.verify()
    translator.settle(SETTLE_TIMEOUT_S)
    quick = [record for record in translator.compile_log[done:] if record.tier == 1 and not record.cached]
    instructions = sum(record.instructions for record in quick)
    if not instructions:
        return Row(FIRST_TIER, goal, skipped="the engine reported no first-tier compilation")
    seconds = sum(record.seconds for record in quick)
    figures = {"instructions": instructions, "seconds_per_100_instructions": 100 * seconds / instructions}
    return Row(FIRST_TIER, goal, seconds, len(quick), figures=figures)


def _cached_load(bench: Bench, goal: Mapping[str, float]) -> Row:
    """Loading a kernel whose host code is on disk and running one wave of it, on a card that has not run it yet."""
    if bench.translator is None or bench.spare is None:
        return Row(CACHED_LOAD, goal, skipped=NOT_A_TRANSLATOR)
    arch = bench.device.arch
    bench.translator.settle(SETTLE_TIMEOUT_S)
    times: list[float] = []
    with bench.spare() as (device, engine):
        if not isinstance(engine, Translator):
            return Row(CACHED_LOAD, goal, skipped=NOT_A_TRANSLATOR)
        memory = device.alloc(1 << 16)
        saxpy = workload.code("saxpy", arch)
        _first_wave(device, saxpy, "saxpy", (memory, memory, 2.5, WAVE_ITEMS))  # loads what all kernels share
        done = len(engine.compile_log)
        for name, arguments in (
            ("matmul_naive", (memory, memory, memory, 32)),
            ("matmul_tiled", (memory, memory, memory, 16)),
            ("mandelbrot", (memory, 1, 1, 0.0, 0.0, 0.0, 1)),
        ):
            times.append(_first_wave(device, workload.code(name, arch), name, arguments))
        if fresh := sum(not record.cached for record in engine.compile_log[done:]):
            return Row(CACHED_LOAD, goal, skipped=f"{fresh} kernels were compiled anew: nothing was kept on disk")
    return Row(CACHED_LOAD, goal, statistics.median(times), len(times))


def _first_wave(device: Device, code: bytes, name: str, arguments: tuple[object, ...]) -> float:
    block = (32, 8) if name in ("matmul_naive", "mandelbrot") else (16, 16) if name == "matmul_tiled" else 256
    started = time.perf_counter()
    device.load(code)[name].launch(1, block, arguments)
    device.synchronize()
    return time.perf_counter() - started
