"""The card's virtual clock: durations of silicon without waiting for them.

Time passes only when something charges it, so a boot takes the same virtual seconds on every machine. Integer
nanoseconds, because sums of floats depend on their order.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

NS_PER_S = 1_000_000_000
LIMIT_NS = 60 * NS_PER_S


@dataclass(order=True, slots=True)
class Event:
    """Something that becomes visible at a virtual deadline."""

    deadline_ns: int
    sequence: int
    action: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class VirtualClock:
    """Now, and what is due later. Not locked: the card's lock covers it."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._events: list[Event] = []
        self._sequence = 0

    @property
    def now_s(self) -> float:
        """Virtual seconds since the card was made."""
        return self.now_ns / NS_PER_S

    def after(self, seconds: float, action: Callable[[], None]) -> Event:
        """Run ``action`` when ``seconds`` of virtual time have passed."""
        self._sequence += 1
        event = Event(self.now_ns + round(seconds * NS_PER_S), self._sequence, action)
        heapq.heappush(self._events, event)
        return event

    def charge(self, ns: int) -> None:
        """Let ``ns`` nanoseconds pass; events that fall due run in order, each at its own time."""
        target_ns = self.now_ns + ns
        while self._events and self._events[0].deadline_ns <= target_ns:
            event = heapq.heappop(self._events)
            self.now_ns = max(self.now_ns, event.deadline_ns)
            if not event.cancelled:
                event.action()
        self.now_ns = max(self.now_ns, target_ns)

    def next_deadline_ns(self) -> int | None:
        """When the next event is due, None when nothing is."""
        while self._events and self._events[0].cancelled:
            heapq.heappop(self._events)
        return self._events[0].deadline_ns if self._events else None

    def jump(self, limit_ns: int) -> None:
        """Go to the next event, at most ``limit_ns`` ahead, and run it."""
        deadline_ns = self.next_deadline_ns()
        step_ns = limit_ns if deadline_ns is None else min(limit_ns, deadline_ns - self.now_ns)
        self.charge(max(step_ns, 1))

    def drop_events(self) -> None:
        """Forget what is due: the state behind it was lost in a reset."""
        self._events.clear()


class HostTime:
    """Host time that a card would not spend: what is done in ``with`` blocks, one at a time. Read by any thread.

    Of each block ``LIMIT_NS`` count at most, so that whoever waits for the card with a time-out comes back in the end.
    """

    def __init__(self) -> None:
        self._state: tuple[int, int | None] = (0, None)  # nanoseconds of blocks that have ended, begin of the open one

    def __enter__(self) -> None:
        self._state = (self._state[0], time.monotonic_ns())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._state = (self.spent_ns, None)

    @property
    def spent_ns(self) -> int:
        """Nanoseconds so far."""
        ended_ns, since_ns = self._state
        return ended_ns + (min(time.monotonic_ns() - since_ns, LIMIT_NS) if since_ns is not None else 0)
