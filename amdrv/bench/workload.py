"""The programs that are measured: what is launched, how much it does, and whether the result is right."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdrv.bench.measure import check
from amdrv.demo import programs
from amdrv.demo import workbench as demo
from amdrv.runtime.compile import compile_llvm
from amdrv.runtime.device import Device

OWN_KERNELS = Path(__file__).with_name("kernels")
EPSILON = programs.EPSILON
GROUP = 256
MANDELBROT_LIMIT = 256
START = "[ 0.0, %entry ]"  # in the IR of a matrix product: where a sum begins


@dataclass(frozen=True, slots=True)
class Workload:
    """Work that can be repeated: every run leaves the same result."""

    launch: Callable[[], object]
    verify: Callable[[], None]  # raises WrongResult; to be called after a run has ended
    flops: int = 0  # of one run


def source(name: str) -> str:
    """LLVM IR of a kernel: of this package, or else of the demo."""
    own = OWN_KERNELS / f"{name}.ll"
    return (own if own.exists() else demo.KERNELS / f"{name}.ll").read_text()


def code(name: str, arch: str, *, start: float = 0.0) -> bytes:
    """The code object of a kernel. ``start`` is where a matrix product's sums begin: another value, other code."""
    text = source(name)
    return compile_llvm(text.replace(START, f"[ 0x{_double_bits(start):016X}, %entry ]") if start else text, arch)


def saxpy(device: Device, program: bytes, count: int = 1 << 20) -> Workload:
    """y = a * x + y."""
    x, y = _random(count, 0), _random(count, 1)
    on_x, on_y = device.array(x), device.array(y)
    kernel = device.load(program)["saxpy"]
    scale = np.float32(2.5)
    launches = 0

    def launch() -> None:
        nonlocal launches
        kernel.launch(-(-count // GROUP), GROUP, (on_y, on_x, scale, count))
        launches += 1

    def verify() -> None:
        expected = y.copy()
        for _ in range(launches):
            expected = x * scale + expected
        check("saxpy", _deviation(on_y.numpy(np.float32), expected), 0.0)

    return Workload(launch, verify, 2 * count)


def matmul_naive(device: Device, program: bytes, size: int = 256, start: float = 0.0) -> Workload:
    """A matrix product, every operand from memory."""
    return _matmul(device, program, "matmul_naive", size, (32, 8), start)


def matmul_tiled(device: Device, program: bytes, size: int = 256, start: float = 0.0) -> Workload:
    """A matrix product through 16 x 16 tiles in LDS."""
    return _matmul(device, program, "matmul_tiled", size, (16, 16), start)


def _matmul(device: Device, program: bytes, name: str, size: int, block: tuple[int, int], start: float) -> Workload:
    a, b = (_random(size * size, seed).reshape(size, size) - np.float32(0.5) for seed in (2, 3))
    on_a, on_b, on_c = device.array(a), device.array(b), device.alloc(a.nbytes)
    kernel = device.load(program)[name]
    grid = (size // block[0], size // block[1])

    def launch() -> None:
        kernel.launch(grid, block, (on_c, on_a, on_b, size))

    def verify() -> None:
        exact = a.astype(np.float64) @ b.astype(np.float64) + start
        # Higham, Accuracy and Stability of Numerical Algorithms, 3.1: a sum of n products in any order.
        bound = size * EPSILON * (abs(start) + float((np.abs(a).astype(np.float64) @ np.abs(b)).max()))
        check(f"{name} {size}", _deviation(on_c.numpy(np.float32, (size, size)), exact), bound)

    return Workload(launch, verify, 2 * size**3)


def mandelbrot(device: Device, program: bytes, size: int = 1024, limit: int = MANDELBROT_LIMIT) -> Workload:
    """Escape times of a picture of ``size`` x ``size``: neighbouring lanes leave the loop at different times."""
    on_steps = device.alloc(4 * size * size)
    kernel = device.load(program)["mandelbrot"]
    left, top = np.float32(programs.LEFT), np.float32(-programs.WIDTH / 2)
    pixel = np.float32(programs.WIDTH / size)
    columns, rows = programs.MANDELBROT_BLOCK
    grid = (-(-size // columns), -(-size // rows))

    def launch() -> None:
        kernel.launch(grid, (columns, rows), (on_steps, size, size, left, top, pixel, limit))

    def verify() -> None:
        expected = programs.escape_times(size, size, left, top, pixel, limit)
        check("mandelbrot", _deviation(on_steps.numpy(np.uint32, (size, size)), expected), 0.0)

    return Workload(launch, verify)


def _double_bits(value: float) -> int:
    # LLVM writes a float constant as the double of the same value.
    return int.from_bytes(struct.pack("<d", np.float32(value)), "little")


def _random(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(count, np.float32)


def _deviation(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(got.astype(np.float64) - expected.astype(np.float64)).max())
