"""What can be made to go wrong with an emulated card, for tests and demonstrations of a driver's error paths."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Faults:
    """Injected defects; they stay until taken back, over resets as well."""

    off_the_bus: bool = False  # reads return all ones, writes and doorbells vanish, no DMA
    unresponsive: set[str] = field(default_factory=set)  # blocks ("MP0", "MP1") that take messages and never answer
