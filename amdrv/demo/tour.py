"""The demo from beginning to end, as a stream of what happened; how it looks is the command line's business."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amdrv.boot.report import BootReport
from amdrv.demo import picture, programs
from amdrv.demo.programs import Result, Sizes
from amdrv.demo.workbench import Workbench
from amdrv.errors import GpuFault
from amdrv.gpu import GpuProperties
from amdrv.runtime.device import Device
from amdrv.runtime.selection import open_device

FAULT_ELEMENTS = 1 << 14


@dataclass(frozen=True)
class Opened:
    """A device was opened."""

    name: str
    arch: str
    properties: GpuProperties
    boot: BootReport


@dataclass(frozen=True)
class Compiled:
    """All kernels went through the compiler."""

    seconds: float


@dataclass(frozen=True)
class Ran:
    """A program ran."""

    result: Result


@dataclass(frozen=True)
class Painted:
    """The picture was written."""

    path: Path


@dataclass(frozen=True)
class Faulted:
    """A kernel was made to fault."""

    provoked: str
    error: GpuFault | None  # None: it went through, which is wrong
    survived: bool  # a buffer from before still holds what was in it
    seconds: float  # from the launch to a device that works again

    @property
    def ok(self) -> bool:
        """Whether the fault was noticed and cost nothing but the queue."""
        return self.error is not None and self.error.kind == "page fault" and self.survived


Event = Opened | Compiled | Ran | Painted | Faulted


def tour(
    device_name: str, sizes: Sizes, picture_path: Path, count_instructions: Callable[[], int] | None = None
) -> Iterator[Event]:
    """Boot, compute, close, boot again, fault, recover. Raises what the driver raises; wrong results are events."""
    with open_device(device_name) as device:
        yield _opened(device)
        yield from _compute(Workbench(device, count_instructions), sizes, picture_path)
    with open_device(device_name) as device:
        yield _opened(device)
        bench = Workbench(device, count_instructions)
        yield _fault(bench)
        yield Ran(programs.saxpy(bench, FAULT_ELEMENTS))


def _opened(device: Device) -> Opened:
    return Opened(device.name, device.arch, device.gpu.properties, device.boot)


def _compute(bench: Workbench, sizes: Sizes, picture_path: Path) -> Iterator[Event]:
    for name in ("saxpy", "matmul", "reduce", "histogram", "mandelbrot"):
        bench.kernel(name)
    yield Compiled(bench.compile_seconds)
    for program in programs.simple_programs(sizes):
        yield Ran(program(bench))
    result, steps = programs.mandelbrot(bench, sizes.mandelbrot, sizes.mandelbrot_limit)
    yield Ran(result)
    picture.save(picture_path, steps, sizes.mandelbrot_limit)
    yield Painted(picture_path)


def _fault(bench: Workbench) -> Faulted:
    """saxpy with an x of half the length: the second half of the work-items reads past its end."""
    values = np.arange(FAULT_ELEMENTS, dtype=np.float32)
    witness = bench.device.array(values)
    y, x = bench.device.array(values), bench.device.array(values[: FAULT_ELEMENTS // 2])
    groups = FAULT_ELEMENTS // programs.GROUP
    kernel = bench.kernel("saxpy")
    error: GpuFault | None = None
    started = time.perf_counter()
    try:
        kernel.launch(groups, programs.GROUP, (y, x, np.float32(1), FAULT_ELEMENTS)).wait()
    except GpuFault as fault:
        error = fault
    seconds = time.perf_counter() - started
    survived = bool(np.array_equal(witness.numpy(np.float32), values))
    return Faulted(f"saxpy over {FAULT_ELEMENTS:,} elements with an x of half that", error, survived, seconds)
