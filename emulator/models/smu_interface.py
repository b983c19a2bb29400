"""What differs between versions of the power management firmware's interface: numbers, and how tables are made.

Messages, features, clocks and tables are known by their names; those that versions share have the same ones.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amdrv.emulator.chips.chip import PowerAndClocks
from amdrv.emulator.models.smu_thermal import Sensors


@dataclass(frozen=True, slots=True)
class ClockState:
    """Present frequencies in MHz by domain name."""

    current: Mapping[str, int]

    def of(self, clock: str) -> int:
        """Frequency of a domain, 0 when the chip does not use it."""
        return self.current.get(clock, 0)


@dataclass(frozen=True, slots=True)
class SmuInterface:
    """One version: name → number of everything that is numbered, and its tables."""

    driver_if_version: int
    messages: Mapping[str, int]
    features: Mapping[str, int]
    clocks: Mapping[str, int]
    tables: Mapping[str, int]
    board_tables: Callable[[PowerAndClocks], dict[str, bytes]]  # what the board came with, by table name
    writable_bytes: Mapping[str, int]  # what a driver may hand over: kept, so that reading back shows it, nothing else
    metrics: Callable[[int, PowerAndClocks, ClockState, Sensors], bytes]  # the number of the reading comes first

    def has(self, message: int) -> bool:
        """Whether a message number means something."""
        return message in self.messages.values()


def numbers(names: type[enum.IntEnum]) -> dict[str, int]:
    """Name → number, aliases included."""
    return {name: int(member) for name, member in names.__members__.items()}
