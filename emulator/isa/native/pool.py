"""The threads that run waves. They are made when a dispatch first needs them, and sleep in between."""

from __future__ import annotations

import queue
import threading

from amdrv.emulator.isa.native.host_thread import HostThread
from amdrv.emulator.isa.native.run import ASK_S, Run


class _Helper:
    """A thread that works on what it is given; daemonic, so that nothing waits for it at the end."""

    def __init__(self, number: int) -> None:
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        thread = threading.Thread(target=_serve, args=(self._tasks,), name=f"amdrv waves {number}", daemon=True)
        thread.start()

    def give(self, task: Task | None) -> None:
        """Work on a dispatch; None: end."""
        self._tasks.put(task)


class Task:
    """A dispatch given to helpers, and how many are still at it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._busy = 0
        self._changed = threading.Condition()

    def begin(self) -> None:
        """One more helper will work on it."""
        with self._changed:
            self._busy += 1

    def end(self) -> None:
        """A helper has done what it can."""
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Whether all helpers are done, after waiting for them for a while."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout_s)


def _serve(tasks: queue.SimpleQueue[Task | None]) -> None:
    host = HostThread()
    while (task := tasks.get()) is not None:
        try:
            host.work(task.run)
        finally:
            task.end()
            del task


class Pool:
    """The calling thread's own part of the work, and helpers for dispatches that last."""

    def __init__(self) -> None:
        self._caller = HostThread()
        self._helpers: list[_Helper] = []
        self._current: Run | None = None
        self._closed = False

    def work(self, run: Run, threads: int) -> None:
        """Run a dispatch to its end on up to ``threads`` threads; what went wrong is in the run."""
        task = Task(run)
        wanted = max(0, threads - 1)

        def call_helpers() -> None:
            nonlocal wanted
            for number in range(wanted):
                if number >= len(self._helpers):
                    self._helpers.append(_Helper(number + 1))
                task.begin()
                self._helpers[number].give(task)
            wanted = 0

        self._current = run
        if self._closed:
            run.stop()
        run.on_long = call_helpers
        try:
            self._caller.work(run)
            while not task.wait(ASK_S):
                run.ask()
        except BaseException:
            run.stop()
            task.wait(10 * ASK_S)
            raise
        finally:
            self._current = None

    def close(self) -> None:
        """End what runs, and the threads."""
        self._closed = True
        run = self._current
        if run is not None:
            run.stop()
        for helper in self._helpers:
            helper.give(None)
