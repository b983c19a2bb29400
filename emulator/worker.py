"""The card's own thread: runs whatever queues have work, side by side with the host.

A queue's packet processor is a generator that yields whenever it has to wait (a WAIT_REG_MEM that does not hold yet)
or has done a bounded piece of work; the worker goes round the runnable ones, so that one waiting queue never stops
another. A second thread runs what starts no waves: scheduler, copy engines. A thread exists only after the first
doorbell for it and sleeps while nothing is runnable.
"""

from __future__ import annotations

import enum
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from amdrv.emulator.clock import HostTime

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

POLL_S = 0.0005  # how often a blocked queue looks again when nothing else runs


class ChangeSignal(threading.Condition):
    """A condition that remembers how often it was notified, so that no waiter misses one."""

    count = 0

    def notify_all(self) -> None:
        self.count += 1
        super().notify_all()


class Progress(enum.Enum):
    """What a task did in one step."""

    RAN = 1
    BLOCKED = 2  # waiting for memory or a register: look again later


Task = Iterator[Progress]


class Worker:
    """Runs tasks until each ends. ``busy`` is true from the moment a task is added: the doorbell sets it."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._tasks: dict[str, Task] = {}
        self._beside: set[str] = set()  # names of the tasks in the second thread
        self._told: set[str] = set()  # names of the tasks of which only bookkeeping is left
        self.failure: BaseException | None = None
        self._threads: dict[bool, threading.Thread] = {}  # for the tasks beside: True
        self._wake = threading.Condition(card.lock)
        self.translating = HostTime()  # GPU code into host code, and what that needs: no time for the card
        self._busy_since: tuple[int, int] | None = None  # (wall, virtual) nanoseconds when the first task came
        self._busy_ns = 0
        self._seen = 0  # changes that the host has been told about

    @property
    def busy(self) -> bool:
        """Whether any task has not ended."""
        return bool(self._tasks)

    def add(self, name: str, task: Task, *, beside: bool = False) -> None:
        """Add a task under a name that is not running now; called with the card's lock held.

        Tasks that start no waves run ``beside`` the others, in a thread of their own: a long dispatch must not keep the
        scheduler from answering, nor a hung one keep it from being reset.
        """
        self._tasks[name] = task
        (self._beside.add if beside else self._beside.discard)(name)
        self._told.discard(name)
        self._card.host_path.engines_started()
        if self._busy_since is None:
            self._busy_since = (self._wall_ns(), self._card.clock.now_ns)
        if beside not in self._threads:
            name = f"{self._card.name} worker{' beside' if beside else ''}"
            thread = self._threads[beside] = threading.Thread(target=self._run, args=(beside,), name=name, daemon=True)
            thread.start()
        self._wake.notify_all()

    def finishing(self, name: str) -> None:
        """A task is about to tell the host that its work is done: what follows is its own bookkeeping."""
        with self._card.lock:
            self._told.add(name)
            self._note_idle()

    def goes_on(self, name: str) -> None:
        """There is more for a task that has not ended yet."""
        self._told.discard(name)
        self._card.host_path.engines_started()

    def has(self, name: str) -> bool:
        """Whether a task of that name has not ended."""
        return name in self._tasks

    def remove(self, name: str) -> None:
        """Drop a task. One that is inside a dispatch notices by its cancel flag, not by this."""
        self._drop(name)
        self._card.changed.notify_all()

    def stop_all(self) -> None:
        """Drop every task: the chip was reset."""
        self._tasks.clear()
        self._beside.clear()
        self._told.clear()
        self._note_idle()
        self._card.changed.notify_all()

    def wait_for_change(self, wall_s: float) -> None:
        """Block the caller, who holds the card's lock, until something moved or ``wall_s`` passed.

        What moved since the last call counts: the caller looked at memory without the lock in between.
        """
        changed = self._card.changed
        if changed.count == self._seen:
            changed.wait(wall_s)
        self._seen = changed.count
        self.pass_wall_time()
        self._card.clock.charge(1)

    def pass_wall_time(self) -> None:
        """While queues are at work, virtual time is wall time but for ``translating``: let the clock catch up.

        The card's lock is held.
        """
        if self._busy_since is not None:
            wall_ns, virtual_ns = self._busy_since
            behind_ns = virtual_ns + self._wall_ns() - wall_ns - self._card.clock.now_ns
            if behind_ns > 0:
                self._card.clock.charge(behind_ns)

    def _wall_ns(self) -> int:
        return time.monotonic_ns() - self.translating.spent_ns

    def busy_ns(self) -> int:
        """Virtual nanoseconds, since the card was made, in which queues had work."""
        self.pass_wall_time()
        running = self._card.clock.now_ns - self._busy_since[1] if self._busy_since is not None else 0
        return self._busy_ns + running

    def _drop(self, name: str) -> None:
        self._tasks.pop(name, None)
        self._beside.discard(name)
        self._told.discard(name)
        self._note_idle()

    def _note_idle(self) -> None:
        if self._told.issuperset(self._tasks):
            self._card.host_path.engines_stopped()
        if not self._tasks and self._busy_since is not None:
            busy_ns = self.busy_ns()
            if not self._tasks:  # passing time may have started another
                self._busy_ns, self._busy_since = busy_ns, None

    def _mine(self, beside: bool) -> list[tuple[str, Task]]:
        """The tasks of one thread."""
        return [(name, task) for name, task in self._tasks.items() if (name in self._beside) == beside]

    def _run(self, beside: bool) -> None:
        with suppress(OSError):
            os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()))  # whatever the thread that rang is bound to
        while True:
            with self._card.lock:
                while not (round_of_tasks := self._mine(beside)):
                    self._wake.wait()
            ran = False
            for name, task in round_of_tasks:
                ran |= self._step(name, task)
            if not ran:
                time.sleep(POLL_S)

    def _step(self, name: str, task: Task) -> bool:
        with self._card.lock:
            if self._tasks.get(name) is not task:
                return True
            if self._card.faults.stalls(name):
                return False
        try:
            progress = next(task)
        except StopIteration:
            self._end(name, task)
            return True
        except BaseException as error:  # a defect of a model, not of the guest: the host's next wait reports it
            self.failure = error
            # A client behind a socket may keep its own time and never wait here.
            log.error("%s: a model failed at %s", self._card.name, name, exc_info=error)
            self._end(name, task)
            return True
        return progress is Progress.RAN

    def _end(self, name: str, task: Task) -> None:
        with self._card.lock:
            if self._tasks.get(name) is task:
                self._drop(name)
            self._card.changed.notify_all()
