"""A recorded client, played again to a card: what it reads now is compared with what it read then."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amdrv.emulator.trace import DEVICE_MEMORY, HOST_SPACES, MAP, RESET, SYSTEM_MEMORY, UNMAP, Entry
from amdrv.errors import InvalidArgument, Timeout

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

QUEUES_S = 30.0  # wall seconds in which the queues must have done what a doorbell asked for
SLICE_S = 0.01


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A read that gave something else than in the recording."""

    number: int  # of the entry
    entry: Entry
    value: int  # what was read now


def replay(entries: Iterable[Entry], card: Card) -> list[Mismatch]:
    """Do what a recording's client did, at the recorded virtual times, and return the reads that differ.

    Memory is stored where the recording has it; queues finish before the next access. A recording that begins at
    power-on wants a card that was just plugged in. Raises InvalidArgument when the card's memory cannot be laid out as
    recorded, Timeout when queues do not finish.
    """
    mismatches = []
    start_ns = card.clock.now_ns
    first_ns: int | None = None
    for number, entry in enumerate(entries):
        if first_ns is None:
            first_ns = entry.time_ns
        _wait_for_queues(card)
        behind_ns = start_ns + entry.time_ns - first_ns - card.clock.now_ns
        if entry.space in HOST_SPACES:
            value = _access(entry, card, behind_ns)
            if value is not None and value != entry.value:
                mismatches.append(Mismatch(number, entry, value))
        else:
            _other(entry, card)
    _wait_for_queues(card)
    return mismatches


def _access(entry: Entry, card: Card, behind_ns: int) -> int | None:
    """Make one access so that it ends at the recorded time; what was read, None for a write."""
    with card.lock:
        cost_ns = card.cost_ns(entry.space, is_write=entry.is_write)
        if behind_ns > cost_ns:
            card.clock.charge(behind_ns - cost_ns)
        if entry.space == "config":
            if not entry.is_write:
                return card.read_config(entry.offset, entry.width)
            card.write_config(entry.offset, entry.width, entry.value)
        elif entry.space == "register":
            if not entry.is_write:
                return card.read_register(entry.offset)
            card.write_register(entry.offset, entry.value)
        else:
            card.write_doorbell(entry.offset, entry.width, entry.value)
    return None


def _other(entry: Entry, card: Card) -> None:
    with card.lock:
        if entry.space == MAP:
            address = card.arena.allocate_system(entry.width)
            if address != entry.offset:
                raise InvalidArgument(
                    f"{card.name}: system memory came out at {address:#x}, the recording has it at {entry.offset:#x};"
                    " replay to a card that was just plugged in"
                )
        elif entry.space == UNMAP:
            card.arena.free_system(entry.offset, entry.width)
        elif entry.space == SYSTEM_MEMORY:
            index = card.arena.bus_index(entry.offset, len(entry.data))
            card.arena.view(index, len(entry.data))[:] = entry.data
        elif entry.space == DEVICE_MEMORY:
            if entry.offset + len(entry.data) > card.vram_bytes:
                raise InvalidArgument(f"{card.name} has less memory than the card of the recording")
            card.bar0_view(entry.offset, len(entry.data))[:] = entry.data
            card.host_path.flush()
        elif entry.space == RESET:
            card.bus_reset(function_level=bool(entry.value))


def _wait_for_queues(card: Card) -> None:
    deadline = time.monotonic() + QUEUES_S
    while card.worker.busy:
        if time.monotonic() > deadline:
            raise Timeout(f"{card.name}: the queues to finish what a doorbell asked for", QUEUES_S)
        card.relax(SLICE_S)
