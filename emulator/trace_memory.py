"""What a client stores in memory, caught when it lets the card know: the part of a recording that a replay needs.

Device memory is caught when a flush pushes stores out of the host data path; system memory by comparing it with what it
held at the access before. Stores to device memory while queues are at work go through at once and are not caught.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.trace import DEVICE_MEMORY, MAP, SYSTEM_MEMORY, UNMAP

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

PAGE_BYTES = 4096


class MemoryRecorder:
    """Compares system memory with a copy of it. The card's lock covers every method."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._copies: dict[tuple[int, int], bytearray] = {}  # (bus address, bytes) → contents

    def catch_up(self) -> None:
        """Record how system memory has changed since the last time."""
        card = self._card
        present = card.arena.mapped_here()
        for region in [region for region in self._copies if region not in present]:
            del self._copies[region]
            card.trace.note(UNMAP, False, *region, 0)
        for region in present:
            address, size_bytes = region
            copy = self._copies.get(region)
            if copy is None:
                copy = self._copies[region] = bytearray(size_bytes)
                card.trace.note(MAP, False, address, size_bytes, 0)
            now = card.arena.view(card.arena.bus_index(address, size_bytes), size_bytes)
            if now != copy:
                self._record_pages(address, now, copy)

    def flushed(self, offset: int, size_bytes: int) -> None:
        """Stores have reached a range of device memory."""
        data = bytes(self._card.vram_view(offset, size_bytes))
        self._card.trace.note(DEVICE_MEMORY, False, offset, size_bytes, 0, data)

    def _record_pages(self, address: int, now: memoryview, copy: bytearray) -> None:
        for at in range(0, len(now), PAGE_BYTES):
            page = bytes(now[at : at + PAGE_BYTES])
            if page != copy[at : at + PAGE_BYTES]:
                copy[at : at + PAGE_BYTES] = page
                self._card.trace.note(SYSTEM_MEMORY, False, address + at, len(page), 0, page)
