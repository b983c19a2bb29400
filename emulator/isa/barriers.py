"""Split barriers: a wave signals that it has arrived, goes on working, and waits later.

Rules: RDNA4 pseudo code of S_BARRIER_SIGNAL, S_BARRIER_WAIT and S_GET_BARRIER_STATE. A workgroup's barrier counts
signals; when as many have come as the workgroup has waves, the count starts anew and every wave has a *complete* bit
set, which its next wait consumes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.wave import WaveState

# Barrier numbers: the workgroup's own one, the trap handler's, and the one that does nothing. Positive numbers are
# named barriers, which workgroups of gfx12 have none of.
WORKGROUP, TRAP, NONE = -1, -2, 0


class Barriers:
    """The barriers of a batch of workgroups; ``members`` are the waves of each that have not ended."""

    def __init__(self, state: WaveState, members: NDArray[np.int64]) -> None:
        self._state = state
        self.members = members
        self.signals = np.zeros(len(members), np.int64)

    def signal(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Count the waves ``start`` to ``stop``; says of each wave whether its signal was the barrier's first."""
        slots = self._state.slot[start:stop]
        _, first = np.unique(slots, return_index=True)
        is_first = np.zeros(stop - start, np.bool_)
        is_first[first] = True
        is_first &= self.signals[slots] == 0
        self.signals += np.bincount(slots, minlength=len(self.signals))
        return is_first

    def complete(self) -> bool:
        """Open the barriers at which everyone has signalled; False when there is none."""
        open_now = (self.signals >= self.members) & (self.signals > 0)
        if not open_now.any():
            return False
        self.signals[open_now] = 0
        self._state.barrier_complete |= open_now[self._state.slot]
        return True

    def report(self, start: int, stop: int) -> NDArray[np.uint32]:
        """S_GET_BARRIER_STATE of the workgroup's barrier: valid, members in 10:4, signals in 22:16."""
        slots = self._state.slot[start:stop, None]
        return (1 | self.members[slots] << 4 | self.signals[slots] << 16).astype(np.uint32)
