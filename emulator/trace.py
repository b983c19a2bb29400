"""What a client did to the card, access by access, and what the card's queues executed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amdrv.errors import InvalidArgument

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card
    from amdrv.emulator.trace_memory import MemoryRecorder

log = logging.getLogger(__name__)

HOST_SPACES = ("config", "register", "doorbell")  # what a client does, access by access
# What else a recording may hold: packets that queues executed, and the memory that a replay needs.
PACKET, DEVICE_MEMORY, SYSTEM_MEMORY, MAP, UNMAP, RESET = "packet", "vram", "system", "map", "unmap", "reset"
SPIN_READS = 200  # so many reads of one register in a row, with one value, are a wait without a pause


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    time_ns: int  # virtual
    space: str  # of HOST_SPACES, or one of the others
    is_write: bool
    offset: int  # byte offset in its space; of memory the bus address; of a packet its place in the stream
    width: int  # bytes
    value: int  # of a packet its header
    data: bytes = b""  # of a packet its dwords, of memory its bytes
    source: str = ""  # of a packet its language and the queue


class Trace:
    """A recording that is off until started; entries are kept in order."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self.entries: list[Entry] = []
        self.enabled = False
        self.memory: MemoryRecorder | None = None  # set while memory is recorded too

    def start(self, *, memory: bool = False) -> None:
        """Record from now on, into an empty list.

        With ``memory`` also what the client stores in memory, as far as a replay needs it. Raises InvalidArgument for
        that on a relaxed card, where stores are not seen.
        """
        with self._card.lock:
            self.entries = []
            self.enabled = True
            self.memory = None
            if memory:
                from amdrv.emulator.trace_memory import MemoryRecorder

                if self._card.relaxed:
                    raise InvalidArgument(f"{self._card.name}: a relaxed card does not see stores to its memory")
                self.memory = MemoryRecorder(self._card)

    def stop(self) -> list[Entry]:
        """Stop recording and return what was seen."""
        with self._card.lock:
            self.enabled = False
            self.memory = None
            return self.entries

    def add(self, entry: Entry) -> None:
        """Record one access; the caller has looked at ``enabled``."""
        self.entries.append(entry)

    def note(self, space: str, is_write: bool, offset: int, width: int, value: int, data: bytes = b"") -> None:
        """Record something that happens now; the caller has looked at ``enabled``."""
        if self.memory is not None and is_write and space in HOST_SPACES:
            self.memory.catch_up()
        self.entries.append(Entry(self._card.clock.now_ns, space, is_write, offset, width, value, data))

    def packet(self, language: str, queue: str, position: int, packet: tuple[int, ...] | bytes) -> None:
        """Record a packet that a queue is about to execute; safe from any thread, nothing when off.

        ``language`` is one of trace_packets.LANGUAGES; ``position`` its place in the stream, in the queue's own units.
        """
        if self.enabled:
            data = packet if isinstance(packet, bytes) else b"".join(dword.to_bytes(4, "little") for dword in packet)
            header = int.from_bytes(data[:4], "little")
            with self._card.lock:
                now_ns = self._card.clock.now_ns
                entry = Entry(now_ns, PACKET, False, position, len(data), header, data, f"{language} {queue}")
                self.entries.append(entry)

    def text(self, *, fields: bool = True) -> str:
        """One line an entry: virtual microseconds, register name or offset, direction, value, fields."""
        from amdrv.emulator.trace_text import lines

        return "\n".join(lines(self.entries, self._card.registers, fields=fields))

    def save(self, path: Path | str) -> None:
        """Write what was recorded to a file that ``amdrv trace`` reads."""
        from amdrv.emulator.trace_file import save

        save(path, self.entries, self._card.chip.arch, self._card.vram_bytes)


class SpinWatch:
    """Notices a client that reads one register again and again without letting time pass."""

    def __init__(self, name_of: Callable[[int], str], card: str) -> None:
        self._name_of = name_of
        self._card = card
        self._last: tuple[int, int] | None = None
        self._times = 0
        self._warn_at = SPIN_READS
        self.spins: Counter[str] = Counter()  # register name → reads in such rows

    def read(self, address: int, value: int) -> None:
        """A register was read."""
        if (address, value) != self._last:
            self._last, self._times, self._warn_at = (address, value), 1, SPIN_READS
            return
        self._times += 1
        if self._times < SPIN_READS:
            return
        name = self._name_of(address)
        self.spins[name] += 1 if self._times > SPIN_READS else SPIN_READS
        if self._times == self._warn_at:
            self._warn_at *= 10
            log.warning(
                "%s: %s was read %d times in a row and is still %#x; the reader spins, and nothing that it waits for"
                " may ever happen",
                self._card, name, self._times, value,
            )  # fmt: skip

    def other(self) -> None:
        """Anything else happened: no row goes on."""
        self._last = None
