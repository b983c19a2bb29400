"""A launch that is under way or has ended."""

from __future__ import annotations

import math
from numbers import Real
from typing import Protocol

from amdrv.errors import AmdrvError, InvalidArgument

CLOCK_HZ = 100_000_000  # the counter that RELEASE_MEM writes


def check_timeout(timeout_s: object) -> None:
    """Raise InvalidArgument unless ``timeout_s`` is a finite number of seconds, 0 or more."""
    try:
        good = isinstance(timeout_s, Real) and not isinstance(timeout_s, bool) and 0 <= float(timeout_s) < math.inf
    except OverflowError:
        good = False
    if not good:
        raise InvalidArgument(f"a timeout is a finite number of seconds, 0 or more, not {timeout_s!r}")


class LaunchOwner(Protocol):
    """Whoever waits for launches: the device."""

    def wait_for(self, timeline: int, timeout_s: float) -> None:
        """Return once the timeline has reached ``timeline``; raises what ended the wait otherwise."""

    def timeline_reached(self) -> int:
        """The last value that the queue has signalled."""


class Launch:
    """One kernel launch: a value on the device's timeline, and how long it took if it was timed."""

    def __init__(self, owner: LaunchOwner, kernel: str, timeline: int, *, timed: bool) -> None:
        self.kernel = kernel
        self.timeline = timeline  # the queue signals this value when the launch has ended
        self.timed = timed
        self.error: AmdrvError | None = None  # why it did not run to its end
        self._owner = owner
        self._ended = False
        self._ticks = (0, 0)

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._ended or self.error is not None or self._owner.timeline_reached() >= self.timeline

    def wait(self, timeout_s: float = 30.0) -> Launch:
        """Return this launch once it has ended. Raises GpuFault or Timeout for it or for one before it."""
        check_timeout(timeout_s)
        if self.error is None and not self._ended:
            self._owner.wait_for(self.timeline, timeout_s)
        if self.error is not None:
            raise self.error
        return self

    @property
    def seconds(self) -> float:
        """Time on the GPU from start to end, waiting for the end. Raises InvalidArgument unless launched timed."""
        if not self.timed:
            raise InvalidArgument(f"kernel {self.kernel!r} was not timed; launch it with timed=True")
        self.wait()
        start, end = self._ticks
        return (end - start) / CLOCK_HZ

    def finish(self, ticks: tuple[int, int] | None) -> None:
        """The queue has passed this launch. ``ticks`` are its times, whose memory is about to be used again."""
        self._ended = True
        if ticks is not None:
            self._ticks = ticks

    def __repr__(self) -> str:
        state = "failed" if self.error is not None else "done" if self.done else "queued"
        return f"<Launch {self.kernel} at {self.timeline}, {state}>"
