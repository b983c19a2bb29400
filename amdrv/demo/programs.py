"""The demo's programs: each computes on the device, computes again with NumPy, and compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdrv.demo.workbench import Measurement, Workbench

GROUP = 256  # work-items of a workgroup, in every kernel here
REDUCE_PER_GROUP = 1024  # reduce.ll: elements that one workgroup adds up
HISTOGRAM_PER_GROUP = 4096  # histogram.ll: bytes
BINS = 256
TILE = 32  # matmul.ll: rows and columns of one workgroup's part
MANDELBROT_BLOCK = (32, 8)
EPSILON = 2.0**-24  # half the distance of neighbouring float32 numbers, relative: the error of one operation
# The picture's left and upper edge and its width, in the complex plane.
LEFT, TOP, WIDTH = -2.25, -1.125, 3.0

Image = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each program does."""

    saxpy: int
    matmul: int
    reduce: int
    histogram: int
    mandelbrot: tuple[int, int]
    mandelbrot_limit: int


SIZES: Mapping[str, Sizes] = {
    "small": Sizes(1 << 14, 64, 1 << 14, 1 << 14, (96, 72), 32),
    "normal": Sizes(1 << 22, 256, 1 << 22, 1 << 23, (960, 720), 200),
    "large": Sizes(1 << 25, 512, 1 << 24, 1 << 26, (1600, 1200), 400),
}


@dataclass(frozen=True)
class Result:
    """What a program did, and whether it was right."""

    name: str
    what: str
    size: str
    measurement: Measurement
    deviation: float  # the largest difference from NumPy's result
    tolerance: float  # what is allowed
    tolerance_reason: str

    @property
    def ok(self) -> bool:
        """Whether the deviation is allowed; a result that is not a number is not."""
        return bool(self.deviation <= self.tolerance)


def saxpy(bench: Workbench, count: int) -> Result:
    """y = a * x + y."""
    x, y = _random(count), _random(count, seed=1)
    on_x, on_y = bench.device.array(x), bench.device.array(y)
    kernel = bench.kernel("saxpy")
    a = np.float32(2.5)
    with bench.measured() as measured:
        measured.launches.append(kernel.launch(-(-count // GROUP), GROUP, (on_y, on_x, a, count), timed=True))
    deviation = _deviation(on_y.numpy(np.float32), x * a + y)
    return Result("saxpy", "y = a*x + y", f"{count:,} elements", measured, deviation, 0.0, "the same roundings")


def matmul(bench: Workbench, size: int) -> Result:
    """A matrix product through tiles in LDS, with barriers between loading and using them."""
    a, b = (_random(size * size, seed).reshape(size, size) - np.float32(0.5) for seed in (2, 3))
    on_a, on_b, on_c = bench.device.array(a), bench.device.array(b), bench.device.alloc(a.nbytes)
    kernel = bench.kernel("matmul")
    with bench.measured() as measured:
        measured.launches.append(
            kernel.launch((size // TILE, size // TILE), (TILE, GROUP // TILE), (on_c, on_a, on_b, size), timed=True)
        )
    exact = a.astype(np.float64) @ b.astype(np.float64)
    # Higham, Accuracy and Stability of Numerical Algorithms, 3.1: a sum of n products in any order.
    tolerance = size * EPSILON * float((np.abs(a).astype(np.float64) @ np.abs(b)).max())
    deviation = _deviation(on_c.numpy(np.float32, (size, size)), exact)
    return Result(
        "matmul", "c = a*b through LDS tiles", f"{size} x {size}", measured, deviation, tolerance, "n roundings"
    )


def reduce(bench: Workbench, count: int) -> Result:
    """A sum as a tree in LDS, level by level, until one number is left."""
    x = _random(count, seed=4)
    source, left, levels = bench.device.array(x), count, 0
    kernel = bench.kernel("reduce")
    with bench.measured() as measured:
        while left > 1:
            groups = -(-left // REDUCE_PER_GROUP)
            partial = bench.device.alloc(4 * groups)
            measured.launches.append(kernel.launch(groups, GROUP, (partial, source, left), timed=True))
            source, left, levels = partial, groups, levels + 1
    total = float(source.numpy(np.float32)[0])
    exact = float(x.astype(np.float64).sum())
    # Every element passes four additions one after another and a tree of eight levels in each launch.
    tolerance = 12 * levels * EPSILON * exact
    return Result(
        "reduce", "sum as a tree in LDS", f"{count:,} elements", measured, abs(total - exact), tolerance,
        f"{12 * levels} roundings",
    )  # fmt: skip


def histogram(bench: Workbench, count: int) -> Result:
    """How often each byte occurs: atomic additions, first in LDS, then in memory."""
    data = np.random.default_rng(5).normal(128, 40, count).clip(0, 255).astype(np.uint8)
    on_data, on_bins = bench.device.array(data), bench.device.array(np.zeros(BINS, np.uint32))
    kernel = bench.kernel("histogram")
    with bench.measured() as measured:
        measured.launches.append(kernel.launch(count // HISTOGRAM_PER_GROUP, GROUP, (on_bins, on_data), timed=True))
    deviation = _deviation(on_bins.numpy(np.uint32), np.bincount(data, minlength=BINS))
    return Result(
        "histogram", "byte counts by atomic adds", f"{count:,} bytes", measured, deviation, 0.0, "whole numbers"
    )


def mandelbrot(bench: Workbench, size: tuple[int, int], limit: int) -> tuple[Result, Image]:
    """The escape time of every pixel: neighbouring lanes leave the loop at different times."""
    width, height = size
    on_steps = bench.device.alloc(4 * width * height)
    kernel = bench.kernel("mandelbrot")
    left, top, pixel = np.float32(LEFT), np.float32(TOP), np.float32(WIDTH / width)
    grid = (-(-width // MANDELBROT_BLOCK[0]), -(-height // MANDELBROT_BLOCK[1]))
    with bench.measured() as measured:
        arguments = (on_steps, width, height, left, top, pixel, limit)
        measured.launches.append(kernel.launch(grid, MANDELBROT_BLOCK, arguments, timed=True))
    steps = on_steps.numpy(np.uint32, (height, width)).astype(np.uint32)
    deviation = _deviation(steps, escape_times(width, height, left, top, pixel, limit))
    result = Result(
        "mandelbrot", "divergent loops", f"{width} x {height}, {limit} steps", measured, deviation, 0.0,
        "the same roundings",
    )  # fmt: skip
    return result, steps


def simple_programs(sizes: Sizes) -> list[Callable[[Workbench], Result]]:
    """The programs whose result is only a verdict, in the order of the demo."""
    return [
        lambda bench: saxpy(bench, sizes.saxpy),
        lambda bench: matmul(bench, sizes.matmul),
        lambda bench: reduce(bench, sizes.reduce),
        lambda bench: histogram(bench, sizes.histogram),
    ]


def escape_times(width: int, height: int, left: np.float32, top: np.float32, pixel: np.float32, limit: int) -> Image:
    """What mandelbrot.ll computes, operation for operation."""
    c_re = (left + np.arange(width, dtype=np.float32) * pixel)[None, :]
    c_im = (top + np.arange(height, dtype=np.float32) * pixel)[:, None]
    re, im = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    steps, inside = np.zeros((height, width), np.uint32), np.ones((height, width), bool)
    with np.errstate(all="ignore"):  # what has escaped goes on to infinity
        for _ in range(limit):
            re_squared, im_squared = re * re, im * im
            inside &= ~(re_squared + im_squared > np.float32(4))
            steps += inside
            re, im = re_squared - im_squared + c_re, (re + re) * im + c_im
    return steps


def _random(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(count, np.float32)


def _deviation(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(got.astype(np.float64) - expected.astype(np.float64)).max())
