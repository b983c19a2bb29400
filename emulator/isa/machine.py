"""What the waves of one batch share: their registers, memory, LDS and the card's services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.barriers import Barriers
from amdrv.emulator.isa.launch import Launch
from amdrv.emulator.isa.memory_path import MemoryPath
from amdrv.emulator.isa.wave import WaveState

STRAY_BYTES = 32


class Lds:
    """The LDS of all resident workgroups in one array; ``words[n]`` shows it as unsigned integers of n bytes.

    Behind it lies a place of zeroes (``stray``) where accesses out of range are sent.
    """

    def __init__(self, workgroups: int, size_bytes: int) -> None:
        self.stray = workgroups * size_bytes
        whole = np.zeros(self.stray + STRAY_BYTES, np.uint8)
        self.words: dict[int, NDArray[Any]] = {size: whole.view(f"u{size}") for size in (1, 2, 4, 8)}

    def clear_stray(self) -> None:
        """Forget what writes out of range left."""
        self.words[1][self.stray :] = 0


@dataclass(slots=True)
class Machine:
    """The environment of a batch of workgroups."""

    launch: Launch
    state: WaveState
    memory: MemoryPath
    lds: Lds
    realtime: Callable[[], int]
    interrupt: Callable[[int], None]
    barriers: Barriers = field(init=False)  # set by the schedule, which counts the waves
    cycles: int = 0  # wave-instructions so far: what SHADER_CYCLES counts here
