"""The card's time while a client is there that does not keep it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)


class Pace:
    """Lets the card's time follow the wall clock, for clients that do not ask for anything else.

    The card's own time never goes back: what its accesses and resets cost comes on top.
    """

    PERIOD_S = 0.002  # between looks at what has fallen due while no access comes

    def __init__(self, card: Card, wall_ns: Callable[[], int]) -> None:
        self._card = card
        self._wall_clock_ns = wall_ns
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.following = False

    def start(self) -> None:
        """Follow from now on."""
        self._wall_ns, self._virtual_ns = self._wall_clock_ns(), self._card.clock.now_ns
        self.following = True
        self._thread = threading.Thread(target=self._run, name="pace", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave the card's time alone from now on."""
        self.following = False
        self._stopped.set()

    def catch_up(self) -> None:
        """Let the time pass that has passed on the wall since the last call."""
        if not self.following:
            return
        with self._card.lock:
            wall_ns = self._wall_clock_ns()
            behind_ns = self._virtual_ns + wall_ns - self._wall_ns - self._card.clock.now_ns
            if behind_ns > 0:
                self._card.clock.charge(behind_ns)
            self._wall_ns, self._virtual_ns = wall_ns, self._card.clock.now_ns

    def _run(self) -> None:
        while not self._stopped.wait(self.PERIOD_S):
            with self._card.lock:
                if self._card.clock.next_deadline_ns() is None:
                    continue
                try:
                    self.catch_up()
                except Exception:  # a defect of a model: the client's next access may meet it again
                    log.exception("%s: something that fell due failed", self._card.name)
