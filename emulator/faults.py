"""What can be made to go wrong with an emulated card, for tests and demonstrations of a driver's error paths.

A fault is a line of text, so that it can be given on a command line, kept beside a trace and given again:

    card.faults.inject("smu:unresponsive")          # from now on
    card.faults.inject("lost@120")                  # at the 120th access from now
    card.faults.inject("flip-vram=0x1000.3@50")     # bit 3 of a byte, at the 50th access from now
    card.faults.inject("reject=SMU", "slow-link=20")
    card.faults.log                                 # what happened when, each line fit for ``inject``
    card.faults.clear()

The general form is ``KIND[=VALUE][@ACCESS]``. Accesses are those of the host to config space, registers and doorbells,
counted from the injection. Faults stay until ``clear``, over resets as well; those that strike once stay in ``log``.
Where a place is left open ("flip-vram") it is drawn from ``seed``; the same seed and the same accesses give the same
faults.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amdrv.emulator.arena import PAGE_BYTES
from amdrv.errors import InvalidArgument
from amdrv.facts.firmware_auth import PIECE_TYPES

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

# Engine → the block it is in the register map. Queue engines are stopped in the card's worker, by their task's name.
ENGINES: Mapping[str, str] = {"psp": "MP0", "smu": "MP1", "rlc": "RLC", "mec": "MEC", "sdma": "SDMA", "mes": "MES"}
UNRESPONSIVE = "unresponsive"
KINDS: Mapping[str, str] = {
    **{f"{engine}:{UNRESPONSIVE}": f"the {engine.upper()} takes requests and never answers" for engine in ENGINES},
    "lost": "the card falls off the bus: reads return all ones, writes vanish",
    "client-dies": "the client ends at its N-th register write (client-dies=N), in the middle of whatever it does",
    "flip-vram": "a bit of device memory flips (flip-vram=OFFSET.BIT, or anywhere that was written)",
    "flip-register": "a bit of a register flips (flip-register=BLOCK.NAME.BIT)",
    "reject": "a firmware piece fails its authentication (reject=PIECE, as in the firmware plan: SMU, RLC_G, SOS, …)",
    "hang-wave": "a wave of the N-th dispatch never ends (hang-wave=N; 1 without a number)",
    "drop-interrupt": "the N-th interrupt is not delivered (drop-interrupt=N)",
    "duplicate-interrupt": "the N-th interrupt is delivered twice (duplicate-interrupt=N)",
    "overflow-interrupts": "a storm of interrupts overruns the ring at the next one",
    "slow-link": "every access takes N times as long (slow-link=N)",
}
LOST_AFTER = "lost-after"  # lost-after=N is another way to write lost@N
NUMBERED = frozenset({"client-dies", "hang-wave", "drop-interrupt", "duplicate-interrupt"})
PIECES = tuple(piece.name for piece in PIECE_TYPES)
STRIKES_AT_ONCE = frozenset({"lost", "flip-vram", "flip-register"})


class ClientDied(BaseException):
    """The client of the card ends here: nothing that it would do afterwards reaches the card.

    It is no Exception, so that no error handling of the client's takes it for an error of the card.
    """


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as data."""

    kind: str  # a key of KINDS
    value: str = ""
    at: int | None = None  # strikes at the access of this number, counted from the injection; None: at once

    def __str__(self) -> str:
        value = f"={self.value}" if self.value else ""
        return f"{self.kind}{value}" + (f"@{self.at}" if self.at is not None else "")


def parse(text: str) -> Fault:
    """A fault from its line of text. Raises InvalidArgument, which lists what there is."""
    body, at_sign, access = text.strip().partition("@")
    kind, _, value = body.partition("=")
    if kind == LOST_AFTER:
        kind, value, at_sign, access = "lost", "", "@", value
    if at_sign and not _is_number(access):
        raise InvalidArgument(f"fault {text!r}: the number of an access stands after @")
    fault = Fault(kind, value, int(access) if at_sign else None)
    _check(fault, text)
    return fault


def _check(fault: Fault, text: str) -> None:
    kind, value = fault.kind, fault.value
    if kind not in KINDS:
        known = "; ".join(f"{name}: {what}" for name, what in KINDS.items())
        raise InvalidArgument(f"no fault {text!r}; there are {known}")
    if fault.at is not None and fault.at < 0:
        raise InvalidArgument(f"fault {text!r}: accesses are counted from 0 on")
    if kind in NUMBERED:
        wrong = not (_is_number(value) and int(value) > 0) and not (kind == "hang-wave" and not value)
        what = "a number from 1 on"
    elif kind == "slow-link":
        wrong, what = not (_is_number(value.replace(".", "", 1)) and float(value) >= 1), "a factor from 1 on"
    elif kind == "flip-vram":
        wrong, what = bool(value) and _place(value) is None, "OFFSET.BIT, or nothing"
    elif kind == "flip-register":
        wrong, what = value.count(".") != 2 or not _is_number(value.rpartition(".")[2]), "BLOCK.NAME.BIT"
    elif kind == "reject":
        wrong, what = value not in PIECES, f"the name of a firmware piece: {', '.join(PIECES)}"
    else:
        wrong, what = bool(value), "nothing"
    if wrong:
        raise InvalidArgument(f"fault {text!r}: the value is {what}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _place(value: str) -> tuple[int, int] | None:
    """(byte offset, bit) of "OFFSET.BIT"."""
    offset, _, bit = value.partition(".")
    try:
        place = int(offset, 0), int(bit)
    except ValueError:
        return None
    return place if place[0] >= 0 and 0 <= place[1] < 8 else None


class Faults:
    """The defects of one card. The card's lock covers every method but ``stalls``."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self.off_the_bus = False  # reads return all ones, writes and doorbells vanish, no DMA
        self.unresponsive: set[str] = set()  # blocks ("MP0", "MP1", "MEC", …) that take messages and never answer
        self.link_factor = 1.0  # by which every access takes longer
        self.log: list[str] = []  # what struck, oldest first
        # What ends a client that is another process (the server knows how); in this process an exception does.
        self.end_client: Callable[[], None] | None = None
        self._active: list[Fault] = []
        self._due: list[tuple[int, Fault]] = []  # access number → fault, soonest first
        self._accesses = 0
        self._countdown: dict[str, list[int]] = {}  # kind → how many more until it strikes
        self._storm = False
        self._client_dead = False
        self._random = random.Random(0)

    # -- what users call ----------------------------------------------------------------------------------------------

    @property
    def active(self) -> tuple[str, ...]:
        """Faults that were injected and not cleared."""
        return tuple(map(str, self._active))

    def seed(self, number: int) -> None:
        """Where open places are drawn from; 0 at first."""
        self._random = random.Random(number)

    def inject(self, *texts: str | Fault) -> None:
        """Make things go wrong: lines of text as in KINDS, or faults as data. Raises InvalidArgument, NotFound."""
        faults = [parse(text) if isinstance(text, str) else text for text in texts]
        with self._card.lock:
            for fault in faults:
                _check(fault, str(fault))
                if fault.kind == "flip-register":
                    self._register_of(fault)
                elif fault.kind == "flip-vram" and fault.value:
                    self._place_of(fault.value)
            for fault in faults:
                self._active.append(fault)
                if fault.at is None:
                    self._strike(fault)
                else:
                    self._due.append((self._accesses + fault.at, fault))
                    self._due.sort(key=lambda due: due[0])

    def clear(self) -> None:
        """The card is sound again from now on. What flipped stays flipped."""
        with self._card.lock:
            self.off_the_bus = self._storm = self._client_dead = False
            self._card.host_path.connect()
            self.unresponsive.clear()
            self.link_factor = 1.0
            self._active.clear()
            self._due.clear()
            self._countdown.clear()
            self._card.arena.bus_changed()

    # -- what the card asks -------------------------------------------------------------------------------------------

    def access(self, *, register_write: bool = False) -> None:
        """The host is about to make an access. Raises ClientDied when there is no client any more."""
        self._accesses += 1
        while self._due and self._due[0][0] <= self._accesses:
            self._strike(self._due.pop(0)[1])
        if register_write and self._counts_down("client-dies"):
            self._client_dead = True
            self._card.holder = None  # the system gives back what a dead process held
            if self.end_client is not None:
                self.end_client()
        if self._client_dead:
            raise ClientDied(f"{self._card.name}: the client ended here, as a fault asked for")

    def new_client(self) -> None:
        """Somebody opens the card: the one that died is not it."""
        self._client_dead = False

    def silent(self, block: str) -> bool:
        """Whether a block ("MP0", "MP1", "RLC", "MEC", "SDMA", "MES") takes requests and never answers."""
        return block in self.unresponsive

    def stalls(self, task: str) -> bool:
        """Whether a task of the worker belongs to an engine that does not go on; its name begins with the engine's."""
        return bool(self.unresponsive) and any(task.upper().startswith(block) for block in self.unresponsive)

    def rejects(self, piece: str) -> bool:
        """Whether a firmware piece must fail its authentication."""
        rejected = any(fault.kind == "reject" and fault.value == piece for fault in self._active)
        if rejected:
            self._note(f"reject={piece}")
        return rejected

    def hangs_wave(self) -> bool:
        """A dispatch begins: whether a wave of it never ends."""
        return self._counts_down("hang-wave")

    def interrupt_copies(self) -> int:
        """An interrupt is about to be delivered: how many times."""
        if self._counts_down("drop-interrupt"):
            return 0
        return 2 if self._counts_down("duplicate-interrupt") else 1

    def interrupt_storm(self) -> bool:
        """An interrupt is about to be delivered: whether a storm that overruns the ring comes first."""
        storm, self._storm = self._storm, False
        if storm:
            self._note("overflow-interrupts")
        return storm

    # -- striking -----------------------------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        """A fault begins."""
        kind, value = fault.kind, fault.value
        engine, _, what = kind.partition(":")
        if what == UNRESPONSIVE:
            self.unresponsive.add(ENGINES[engine])
        elif kind == "lost":
            self.off_the_bus = True
            self._card.arena.bus_changed()
            self._card.host_path.cut_off()
        elif kind == "flip-vram":
            self._flip_vram(value)
            return
        elif kind == "flip-register":
            self._flip_register(fault)
        elif kind in NUMBERED:
            self._countdown.setdefault(kind, []).append(int(value or 1))
            return
        elif kind == "overflow-interrupts":
            self._storm = True
            return
        elif kind == "slow-link":
            self.link_factor = float(value)
        elif kind == "reject":
            return
        self._note(str(Fault(kind, value)))

    def _counts_down(self, kind: str) -> bool:
        """One more of what a numbered kind counts: whether it strikes now."""
        counts = self._countdown.get(kind)
        if not counts:
            return False
        counts[:] = [count - 1 for count in counts]
        struck = 0 in counts
        if struck:
            counts.remove(0)
            self._note(f"{kind}=1")
        return struck

    def _flip_vram(self, value: str) -> None:
        card = self._card
        offset, bit = self._place_of(value) if value else self._somewhere()
        card.vram_view(offset, 1)[0] ^= 1 << bit
        card.host_path.engine_wrote(offset, 1)
        self._note(f"flip-vram={offset:#x}.{bit}")

    def _place_of(self, value: str) -> tuple[int, int]:
        """(byte offset, bit) of a flip-vram fault. Raises InvalidArgument."""
        place, card = _place(value), self._card
        if place is None or place[0] >= card.vram_bytes:
            raise InvalidArgument(f"{card.name} has {card.vram_bytes:#x} bytes of memory; {value} is not in it")
        return place

    def _somewhere(self) -> tuple[int, int]:
        """A bit of device memory that is in use, as far as its contents tell."""
        arena, pages = self._card.arena, []
        for start, end in arena.used_vram(self._card.vram_bytes):
            words = arena.bytes[start:end].view(np.uint64).reshape(-1, PAGE_BYTES // 8)
            pages.append(np.flatnonzero(words.any(axis=1)) + start // PAGE_BYTES)
        used = np.concatenate(pages) if pages else np.empty(0, np.int64)
        if not len(used):
            return self._random.randrange(self._card.vram_bytes), self._random.randrange(8)
        first = int(used[self._random.randrange(len(used))]) * PAGE_BYTES
        places = np.flatnonzero(arena.bytes[first : first + PAGE_BYTES])
        return first + int(places[self._random.randrange(len(places))]), self._random.randrange(8)

    def _flip_register(self, fault: Fault) -> None:
        address, bit = self._register_of(fault)
        self._card.space.flip(address, bit)

    def _register_of(self, fault: Fault) -> tuple[int, int]:
        """(byte address, bit) of a flip-register fault. Raises NotFound, InvalidArgument."""
        name, _, bit = fault.value.rpartition(".")
        if int(bit) > 31:
            raise InvalidArgument(f"fault {fault}: a register has bits 0 to 31")
        return self._card.registers.named(name).address, int(bit)

    def _note(self, text: str) -> None:
        self.log.append(f"{text}@{self._accesses}")
