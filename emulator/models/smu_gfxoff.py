"""GFXOFF: the SMU takes the graphics core's power away while it idles, and gives it back when it is wanted.

A register of the core is out of reach meanwhile: a read brings all ones, a write goes nowhere. A client forbids GFXOFF
before it touches one; a doorbell of the core brings the power back by itself. Sources: Linux 6.12 amdgpu_gfx.c
(amdgpu_gfx_off_ctrl), smu_v13_0.c (smu_v13_0_gfx_off_control). On silicon such an access can also hang the bus; that
it reads as all ones is inferred.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amdrv.emulator.pm4.queue_engine import QueueEngine

if TYPE_CHECKING:
    from amdrv.emulator.clock import Event
    from amdrv.emulator.shell import Card

ENTRY_S = 0.1  # inferred: how long the core must have idled
BLOCK = "GC"
# Linux 6.12 sdma_v5_2_ring_begin_use: the copy engines hold GFXOFF off while they work.
DOMAIN = frozenset((BLOCK, "SDMA0", "SDMA1"))


class GraphicsPower:
    """Whether the graphics core has power. The card's lock covers every method."""

    def __init__(self, card: Card, feature_runs: Callable[[], bool]) -> None:
        """``feature_runs`` says whether the SMU's GFXOFF feature is on."""
        self._card = card
        self._feature_runs = feature_runs
        self._allowed = False
        self._due: Event | None = None

    def allow(self, argument: int) -> int:
        """AllowGfxOff."""
        self._allowed = True
        self._wait()
        return argument

    def disallow(self, argument: int) -> int:
        """DisallowGfxOff: power is there when the message is answered."""
        self._allowed = False
        self.wake()
        return argument

    def wake(self) -> None:
        """The core is wanted."""
        self._card.space.ungate(BLOCK)
        if self._allowed:
            self._wait()

    def _hung(self) -> bool:
        """Whether a queue stopped in the middle of something: the core is not idle then."""
        engines = self._card.models(QueueEngine)
        return any(state.hung for engine in engines for state in engine.queues.values())

    def _wait(self) -> None:
        if self._due is not None:
            self._due.cancelled = True
        self._due = self._card.clock.after(ENTRY_S, self._enter)

    def _enter(self) -> None:
        self._due = None
        if not self._allowed or not self._feature_runs():
            return
        if self._card.worker.busy or self._hung():
            self._wait()
        elif not self._card.relaxed:
            self._card.space.gate(BLOCK)
