"""Which waves run next: groups of waves divide at branches, meet again, wait at barriers and end.

The groups partition the range of resident waves into contiguous segments, some of them ended. The group at the lowest
address runs first, so that waves that left a loop early wait for the others behind it; but a group that has used up its
share gives way until everyone else has, so that waves spinning on memory cannot starve those they wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.barriers import Barriers
from amdrv.emulator.isa.control import Fork
from amdrv.emulator.isa.machine import Machine
from amdrv.emulator.isa.wave import Group

SHARE = 8192  # scheduling weight (about an instruction each) before a group gives way


@dataclass(slots=True)
class _Ended:
    """A segment whose waves have run to their end."""

    start: int
    stop: int

    def place(self, start: int, stop: int) -> None:
        """The segment has moved."""
        self.start, self.stop = start, stop


class Schedule:
    """The groups of one batch of workgroups, which all start at ``pc`` with the MODE register ``mode``."""

    def __init__(self, machine: Machine, workgroups: int, pc: int, mode: int) -> None:
        self._machine = machine
        waves = machine.state.waves
        self._segments: list[Group | _Ended] = [Group(machine, 0, waves, pc, mode)] if waves else []
        self._live = np.bincount(machine.state.slot, minlength=workgroups)  # waves that have not ended, by workgroup
        machine.barriers = Barriers(machine.state, self._live)
        self._arrived = np.zeros(workgroups, np.int64)  # waves at the barrier, by workgroup

    @property
    def groups(self) -> list[Group]:
        """All groups, in the order of their waves' places."""
        return [segment for segment in self._segments if isinstance(segment, Group)]

    def next(self) -> Group | None:
        """The group to run, or None when all waves have ended."""
        ready = [group for group in self.groups if not group.blocked]
        if not ready:
            return None
        fresh = [group for group in ready if group.spent < SHARE]
        if not fresh:
            for group in ready:
                group.spent = 0
            fresh = ready
        return min(fresh, key=lambda group: group.pc)

    def stops(self, running: Group) -> frozenset[int]:
        """Addresses at which other groups stand ready: where ``running`` may meet them."""
        return frozenset(group.pc for group in self.groups if group is not running and not group.blocked)

    def fork(self, group: Group, fork: Fork) -> None:
        """Divide a group by where its waves go on; parts join those whom they meet."""
        for part in self._divide(group, fork.way_of, fork.ways):
            if any(part is segment for segment in self._segments):  # else it has joined another already
                self.meet(part)

    def _divide(self, group: Group, way_of: NDArray[np.int64], ways: list[tuple[int, int]]) -> list[Group]:
        """Split a group into one part for each of ``ways`` (pc, mode), all of which some wave takes.

        ``way_of`` is the number of the way that each wave takes; the parts are returned in the order of ``ways``.
        """
        at = self._place(group)
        order = self._order(at, ways)
        rank = np.empty(len(ways), np.int64)
        rank[order] = np.arange(len(ways))
        rank_of = rank.take(way_of)
        counts = np.bincount(rank_of, minlength=len(ways))
        wanted = np.repeat(np.arange(len(ways)), counts)
        wrong = np.flatnonzero(rank_of != wanted)
        if len(wrong):
            # Fill each part's wrong places with waves that belong there, taken from the wrong places of other parts.
            source = wrong[np.argsort(rank_of[wrong], kind="stable")]
            self._machine.state.rearrange(group.start + wrong, group.start + source)
        parts: list[Group] = []
        start = group.start
        for kind, count in zip(order, counts.tolist(), strict=True):
            part = Group(self._machine, start, start + count, *ways[kind])
            part.spent, part.blocked = group.spent, group.blocked
            parts.append(part)
            start += count
        self._segments[at : at + 1] = parts
        return [parts[place] for place in rank.tolist()]

    def _order(self, at: int, ways: list[tuple[int, int]]) -> list[int]:
        """An order of the parts that puts them beside a neighbour whom they will join."""
        order = list(range(len(ways)))
        for neighbour, end in ((at - 1, 0), (at + 1, len(order))):
            if 0 <= neighbour < len(self._segments):
                other = self._segments[neighbour]
                if isinstance(other, Group) and not other.blocked and (other.pc, other.mode) in ways:
                    kind = ways.index((other.pc, other.mode))
                    order.remove(kind)
                    order.insert(end, kind)
        return order

    def meet(self, group: Group) -> Group:
        """Join ``group`` with every other that stands at the same place in the same mode; returns the whole."""
        while (other := self._companion(group)) is not None:
            group = self._join(group, other)
        return group

    def _companion(self, group: Group) -> Group | None:
        at = (group.pc, group.mode, group.blocked)
        for other in self.groups:
            if other is not group and (other.pc, other.mode, other.blocked) == at:
                return other
        return None

    def _join(self, one: Group, other: Group) -> Group:
        first, second = (one, other) if one.start < other.start else (other, one)
        between = self._segments[self._place(first) + 1 : self._place(second)]
        if between:
            self._bring_together(first, second, between)
        at = self._place(first)
        start = first.start
        whole = Group(self._machine, start, start + first.count + second.count, one.pc, one.mode)
        whole.blocked, whole.spent = one.blocked, min(one.spent, other.spent)
        self._segments[at : at + 2] = [whole]
        return whole

    def _bring_together(self, first: Group, second: Group, between: list[Group | _Ended]) -> None:
        """Move ``second`` to directly behind ``first``; those between move up."""
        low, high = first.stop, second.stop
        gap = second.start - low
        places = np.arange(low, high)
        source = np.concatenate((np.arange(second.start, high), np.arange(low, second.start)))
        if len(between) == 1 and second.count < gap:
            # Only as many of those between as are in the way change places: their order does not matter.
            places = np.concatenate((np.arange(low, low + second.count), np.arange(second.start, high)))
            source = np.concatenate((np.arange(second.start, high), np.arange(low, low + second.count)))
        self._machine.state.rearrange(places, source)
        at, behind = self._place(first) + 1, self._place(second)
        segments: list[Group | _Ended] = [second, *between]
        start = low
        for segment in segments:
            stop = start + segment.stop - segment.start
            segment.place(start, stop)
            start = stop
        self._segments[at : behind + 1] = segments

    def _place(self, group: Group) -> int:
        return next(place for place, segment in enumerate(self._segments) if segment is group)

    def arrive(self, group: Group) -> None:
        """A group has reached a barrier; workgroups whose waves are all there go on."""
        slots = self._machine.state.slot[group.start : group.stop]
        if group.count == int(self._live.sum()):
            return
        self._arrived += np.bincount(slots, minlength=len(self._arrived))
        group.blocked = True
        self.meet(group)
        self._release()

    def signalled(self) -> None:
        """Waves have signalled at a split barrier: those that wait there may go on."""
        if self._machine.barriers.complete():
            self._release_waiting()

    def wait(self, group: Group) -> None:
        """A group waits at a split barrier; those of its waves for which it is complete go on."""
        complete = self._machine.state.barrier_complete[group.start : group.stop]
        if not complete.all():
            group.blocked = True
            self.meet(group)
        elif group.count:
            complete[...] = False
            return
        self._release_waiting()

    def _release_waiting(self) -> None:
        flags = self._machine.state.barrier_complete
        free = self._unblock(lambda group: flags[group.start : group.stop])
        for group in free:
            flags[group.start : group.stop] = False
        self._go_on(free)

    def end(self, group: Group) -> None:
        """A group's waves have run to their end."""
        self._live -= np.bincount(self._machine.state.slot[group.start : group.stop], minlength=len(self._live))
        self._segments[self._place(group)] = _Ended(group.start, group.stop)
        self._release()
        self.signalled()

    def _release(self) -> None:
        complete = (self._arrived == self._live) & (self._arrived > 0)
        if not complete.any():
            return
        self._arrived[complete] = 0
        self._go_on(self._unblock(lambda group: complete[self._machine.state.slot[group.start : group.stop]]))

    def _unblock(self, released: Callable[[Group], NDArray[np.bool_]]) -> list[Group]:
        """The blocked groups of which all waves are ``released``, the others divided so that there are such."""
        free: list[Group] = []
        for group in [group for group in self.groups if group.blocked]:
            flags = released(group)
            if flags.all():
                free.append(group)
            elif flags.any():
                same = (group.pc, group.mode)
                free.append(self._divide(group, flags.astype(np.int64), [same, same])[1])
        return free

    def _go_on(self, free: list[Group]) -> None:
        for group in free:
            group.blocked = False
        for group in free:
            if any(group is segment for segment in self._segments):
                self.meet(group)
