"""Threads that read one client's messages: one at a time, and another takes over when that one waits for the client.

The card may need the client's memory in the middle of a message, and the client may have to be answered before it can
give that. So the reader steps aside: its message is finished when the memory has come, and others are read meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

FAREWELL_S = 5.0  # for threads that are in the middle of a message when the client goes


class Readers:
    """``serve`` reads one message and sees to it; what it raises is the end of the client.

    ``on_end`` is called then: it wakes those who wait for the client.
    """

    def __init__(self, serve: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._serve = serve
        self._on_end = on_end
        self._turn = threading.Condition()
        self._reader: int | None = None  # whose turn it is
        self._idle = 0
        self._end: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        """Serve until the end, then raise it."""
        self._loop()
        for thread in self._threads:
            thread.join(FAREWELL_S)
        if self._end is not None:
            raise self._end

    def step_aside(self, before: Callable[[], None]) -> None:
        """Called by a thread that is about to wait for the client: if it is the reader, another is from now on.

        ``before`` is called in between.
        """
        with self._turn:
            if self._reader != threading.get_ident():
                return
            before()
            self._reader = None
            if self._idle:
                self._turn.notify()
            else:
                thread = threading.Thread(target=self._loop, name="client", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _loop(self) -> None:
        me = threading.get_ident()
        while True:
            with self._turn:
                self._idle += 1
                self._turn.wait_for(lambda: self._reader is None or self._end is not None)
                self._idle -= 1
                if self._end is not None:
                    return
                self._reader = me
            try:
                while self._reader == me:
                    self._serve()
            except BaseException as end:
                with self._turn:
                    self._end = self._end or end
                    self._turn.notify_all()
                self._on_end()
                return
