"""System memory that the card reaches by messages only: a client's that came without a file descriptor.

It has a place in the arena all the same, so that translations lead somewhere. Engines that read and write through a
view of memory (rings, packets, copies, page tables, interrupt entries) exchange exactly the bytes of each access.
Shaders address the arena itself: the pages that a dispatch reaches are fetched when they are translated, and what
shaders have stored there is sent when the page is translated again, a millisecond later at the soonest, and when the
dispatch ends.

What this cannot do: an atomic operation is a read and a write, between which the client may store; the stores of a
running dispatch arrive page by page, not in their order; where a shader and the client store to the same byte within a
millisecond, the shader's store stays.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
FRESH_S = 0.001  # how long a page of a running dispatch is taken for what the client has


class Port(Protocol):
    """Who carries the messages. Both raise BusError; the caller may hold the card's lock, which is free meanwhile."""

    def read(self, address: int, size_bytes: int) -> bytes:
        """Bytes at a bus address."""

    def write(self, address: int, data: bytes) -> None:
        """Store bytes at a bus address."""


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the arena that stands for remote memory."""

    first: int  # arena index
    end: int
    bus_address: int
    port: Port


@dataclass(slots=True)
class Page:
    """A page in the arena that a running dispatch reaches."""

    known: NDArray[np.uint8]  # what the client has, as far as is known
    fetched_s: float


class RemoteMemory:
    """The remote parts of one arena. ``lowest`` is the first arena index that may be remote."""

    NOTHING = 1 << 63

    def __init__(self, arena: NDArray[np.uint8]) -> None:
        self._arena = arena
        self._places: list[Place] = []  # by arena index
        self._pages: dict[int, Page] = {}  # by page number in the arena
        self._lock = threading.Lock()  # never held over a message
        self.lowest = self.NOTHING

    def add(self, index: int, size_bytes: int, bus_address: int, port: Port) -> None:
        """Let a part of the arena stand for memory at ``bus_address``."""
        with self._lock:
            places = [*self._places, Place(index, index + size_bytes, bus_address, port)]
            self._places = sorted(places, key=lambda place: place.first)
            self.lowest = self._places[0].first

    def remove(self, index: int) -> None:
        """It is gone: so is what shaders stored there and was not sent."""
        with self._lock:
            gone = [place for place in self._places if place.first == index]
            self._places = [place for place in self._places if place.first != index]
            self.lowest = self._places[0].first if self._places else self.NOTHING
            for page in [page for page in self._pages for place in gone if place.first <= page << 12 < place.end]:
                del self._pages[page]

    def find(self, index: int) -> Place | None:
        """The remote part that an arena index is in."""
        places = self._places
        position = bisect_right(places, index, key=lambda place: place.first) - 1
        return places[position] if position >= 0 and index < places[position].end else None

    # -- single accesses ----------------------------------------------------------------------------------------------

    def read(self, place: Place, index: int, size_bytes: int) -> bytes:
        """The client's bytes behind an arena index. Raises BusError."""
        for page in self._reached(index, size_bytes):
            self._send(page)
        return place.port.read(place.bus_address + index - place.first, size_bytes)

    def write(self, place: Place, index: int, data: bytes) -> None:
        """Store bytes at the client. Raises BusError."""
        for page in self._reached(index, len(data)):
            self._send(page)
        place.port.write(place.bus_address + index - place.first, data)
        for page in self._reached(index, len(data)):
            self._fetch(page)

    # -- shaders ------------------------------------------------------------------------------------------------------

    def translated(self, index: NDArray[np.int64]) -> None:
        """A dispatch is about to use these arena indices. Raises BusError."""
        for page in np.unique(index[index >= self.lowest] >> PAGE_SHIFT).tolist():
            if self.find(page << PAGE_SHIFT) is not None:
                self.bring(page)

    def bring(self, page: int) -> None:
        """Make a page of the arena what the client has, and the other way round. Raises BusError."""
        known = self._pages.get(page)
        if known is None or time.monotonic() - known.fetched_s > FRESH_S:
            self._send(page)
            self._fetch(page)

    def settle(self) -> None:
        """A dispatch has ended: what it stored goes to the client, and the next one looks anew. Raises BusError."""
        for page in list(self._pages):
            try:
                self._send(page)
            finally:
                self._pages.pop(page, None)

    # -- pages --------------------------------------------------------------------------------------------------------

    def _reached(self, index: int, size_bytes: int) -> list[int]:
        """Pages of a range that a running dispatch reaches, too."""
        if not self._pages:
            return []
        last = index + size_bytes - 1 >> PAGE_SHIFT
        return [page for page in range(index >> PAGE_SHIFT, last + 1) if page in self._pages]

    def _here(self, page: int) -> NDArray[np.uint8]:
        return self._arena[page << PAGE_SHIFT : (page + 1) << PAGE_SHIFT]

    def _send(self, page: int) -> None:
        """Send the bytes of a page that shaders have changed, run by run."""
        state, place = self._pages.get(page), self.find(page << PAGE_SHIFT)
        if state is None or place is None:
            return
        now = self._here(page).copy()
        changed = np.flatnonzero(now != state.known)
        if not len(changed):
            return
        for run in np.split(changed, np.flatnonzero(np.diff(changed) != 1) + 1):
            first, end = int(run[0]), int(run[-1]) + 1
            place.port.write(place.bus_address + (page << PAGE_SHIFT) - place.first + first, now[first:end].tobytes())
        state.known = now

    def _fetch(self, page: int) -> None:
        """Bring what the client has changed into the arena; what shaders have stored since the last look stays."""
        place = self.find(page << PAGE_SHIFT)
        if place is None:
            return
        raw = place.port.read(place.bus_address + (page << PAGE_SHIFT) - place.first, PAGE_BYTES)
        theirs = np.frombuffer(raw, np.uint8)
        with self._lock:
            here, state = self._here(page), self._pages.get(page)
            if state is None:
                here[:] = theirs
                self._pages[page] = Page(theirs, time.monotonic())
            else:
                np.copyto(here, theirs, where=(theirs != state.known) & (here == state.known))
                state.known, state.fetched_s = theirs, time.monotonic()
