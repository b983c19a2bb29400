"""What lies at which device address, so that a fault can be told in the words of the program."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass

NULL_BYTES = 1 << 12  # addresses below are an offset from a null pointer
NEAR_BYTES = 1 << 20  # an address further away than this from everything is "near" nothing


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One range of device addresses with a name."""

    va: int
    size_bytes: int
    label: str

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.va + self.size_bytes

    def __str__(self) -> str:
        return f"{self.label} ({self.size_bytes} bytes at {self.va:#x})"


class AddressBook:
    """Ranges by address. Ranges do not overlap."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def add(self, va: int, size_bytes: int, label: str) -> None:
        """Note a range."""
        insort(self._entries, Entry(va, size_bytes, label))

    def remove(self, va: int) -> None:
        """Forget the range that starts at ``va``."""
        index = bisect_right(self._entries, va, key=lambda entry: entry.va) - 1
        if index >= 0 and self._entries[index].va == va:
            del self._entries[index]

    def describe(self, va: int) -> str:
        """A sentence about ``va``: in which range, or how far from the nearest one."""
        index = bisect_right(self._entries, va, key=lambda entry: entry.va)
        before = self._entries[index - 1] if index else None
        after = self._entries[index] if index < len(self._entries) else None
        if before is not None and va < before.end:
            return f"{va:#x} is {va - before.va} bytes into {before}"
        gaps = []
        if before is not None:
            gaps.append((va - before.end, f"{va:#x} is {va - before.end} bytes past the end of {before}"))
        if after is not None:
            gaps.append((after.va - va, f"{va:#x} is {after.va - va} bytes before {after}"))
        if not gaps or min(gaps)[0] > NEAR_BYTES:
            guess = " (a null pointer?)" if va < NULL_BYTES else ""
            return f"{va:#x} is near nothing that this device has allocated{guess}"
        return min(gaps)[1]
