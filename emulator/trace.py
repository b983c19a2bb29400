"""What a client did to the card, access by access."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One access from the host side."""

    time_ns: int  # virtual
    space: str  # "config", "register", "doorbell", "vram"
    is_write: bool
    offset: int  # byte offset in its space
    width: int  # bytes
    value: int


class Trace:
    """A recording that is off until started; entries are kept in order."""

    def __init__(self, name_of: Callable[[int], str]) -> None:
        self._name_of = name_of
        self.entries: list[Entry] = []
        self.enabled = False

    def start(self) -> None:
        """Record from now on, into an empty list."""
        self.entries = []
        self.enabled = True

    def stop(self) -> list[Entry]:
        """Stop recording and return what was seen."""
        self.enabled = False
        return self.entries

    def add(self, entry: Entry) -> None:
        """Record one access; the caller has looked at ``enabled``."""
        self.entries.append(entry)

    def text(self) -> str:
        """One line an access: virtual microseconds, direction, register name or offset, value."""
        lines = []
        for entry in self.entries:
            where = self._name_of(entry.offset) if entry.space == "register" else f"{entry.space}+{entry.offset:#x}"
            arrow = "<-" if entry.is_write else "->"
            lines.append(f"{entry.time_ns / 1000:12.3f} us  {where:48} {arrow} {entry.value:#x}")
        return "\n".join(lines)
