"""Where the demo's programs run: kernels by name, and a stopwatch around launches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from amdrv.runtime.compile import compile_llvm
from amdrv.runtime.device import Device
from amdrv.runtime.launch import Launch
from amdrv.runtime.module import Kernel

KERNELS = Path(__file__).with_name("kernels")


@dataclass
class Measurement:
    """What a stretch of launches took."""

    launches: list[Launch] = field(default_factory=list)
    seconds: float = 0.0  # wall time, from the first launch to the end of the last
    wave_instructions: int | None = None  # None where nobody counts them

    @property
    def gpu_seconds(self) -> float:
        """Time between the kernels' own time stamps, added up."""
        return sum(launch.seconds for launch in self.launches)


class Workbench:
    """A device with the demo's kernels on it."""

    def __init__(self, device: Device, count_instructions: Callable[[], int] | None = None) -> None:
        """``count_instructions`` reads a counter of wave-instructions that only goes up, where there is one."""
        self.device = device
        self.compile_seconds = 0.0
        self._count = count_instructions
        self._kernels: dict[str, Kernel] = {}

    def kernel(self, name: str) -> Kernel:
        """The kernel ``name`` of kernels/NAME.ll, compiled and loaded on first use."""
        kernel = self._kernels.get(name)
        if kernel is None:
            started = time.perf_counter()
            code = compile_llvm((KERNELS / f"{name}.ll").read_text(), self.device.arch)
            self.compile_seconds += time.perf_counter() - started
            kernel = self._kernels[name] = self.device.load(code)[name]
        return kernel

    @contextmanager
    def measured(self) -> Iterator[Measurement]:
        """Measure the launches that the body puts into the measurement; waits for them at its end."""
        measurement = Measurement()
        counted = self._count() if self._count is not None else 0
        started = time.perf_counter()
        yield measurement
        self.device.synchronize()
        measurement.seconds = time.perf_counter() - started
        if self._count is not None:
            measurement.wave_instructions = self._count() - counted
