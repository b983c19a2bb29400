"""How something is measured: warmed up, repeated, the middle taken, the result checked, and held against a goal."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from amdrv.errors import AmdrvError
from amdrv.runtime.device import Device

RUNS = 7
BUDGET_S = 4.0  # of one row; a slow engine is measured fewer times
# Figures of which less is better; of the others more is. The first are times.
DURATIONS = frozenset({"seconds", "seconds_per_100_instructions"})
LESS_IS_BETTER = DURATIONS | {"kernels", "against_triton"}


class WrongResult(AmdrvError):
    """What was measured did not compute what NumPy computes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, or the reason why there is none."""

    name: str
    goal: Mapping[str, float]  # figure → what it must reach (a duration: must not exceed)
    seconds: float | None = None
    runs: int = 0
    wave_instructions: int | None = None  # None where nobody counts them
    figures: Mapping[str, float] = field(default_factory=dict)  # "gflops", "speedup", …
    skipped: str = ""  # why

    def figure(self, name: str) -> float | None:
        """A figure by the name that goals use; None when it was not measured."""
        if name == "seconds":
            return self.seconds
        if name == "wave_instructions_per_s":
            return self.wave_instructions / self.seconds if self.wave_instructions and self.seconds else None
        return self.figures.get(name)

    @property
    def met(self) -> bool | None:
        """Whether every goal is reached; None when there is none or one of its figures was not measured."""
        reached: list[bool | None] = []
        for name, limit in self.goal.items():
            value = self.figure(name)
            enough = None if value is None else value <= limit if name in LESS_IS_BETTER else value >= limit
            reached.append(enough)
        return None if None in reached or not reached else all(reached)


@dataclass(frozen=True, slots=True)
class Timing:
    """What repeated runs of the same work took."""

    seconds: float  # median
    runs: int
    wave_instructions: int | None  # of one run


class Stopwatch:
    """Measures launches on a device."""

    def __init__(
        self,
        device: Device,
        count: Callable[[], int] | None = None,
        settle: Callable[[], None] | None = None,
        runs: int = RUNS,
    ) -> None:
        """``count`` reads a counter of wave-instructions that only goes up, and ``settle`` waits until the device is
        as fast as it becomes, where there are such things."""
        self.device = device
        self._count = count
        self._settle = settle
        self._runs = runs

    def time(self, launch: Callable[[], object]) -> Timing:
        """Launch and wait: once to warm up, then several times."""
        for _ in range(2):  # what was compiled in the background is first used by the next launch
            self._once(launch)
            if self._settle is None:
                break
            self._settle()
        counted = self._count() if self._count is not None else 0
        times: list[float] = []
        while len(times) < self._runs and sum(times) < BUDGET_S:
            times.append(self._once(launch))
        waves = (self._count() - counted) // len(times) if self._count is not None else None
        return Timing(statistics.median(times), len(times), waves)

    def _once(self, launch: Callable[[], object]) -> float:
        started = time.perf_counter()
        launch()
        self.device.synchronize(60.0)
        return time.perf_counter() - started


def check(name: str, deviation: float, tolerance: float) -> None:
    """Raise WrongResult unless the largest deviation from NumPy's result is allowed; what is no number is not."""
    if not deviation <= tolerance:
        raise WrongResult(f"{name}: the result is off by {deviation:.3g}, {tolerance:.3g} is allowed")
