"""The schedule keeps every wave with its registers while groups divide, meet, wait and end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.isa.control import Fork
from amdrv.emulator.isa.dispatch import Dispatch
from amdrv.emulator.isa.launch import create_waves, decode
from amdrv.emulator.isa.machine import Lds, Machine
from amdrv.emulator.isa.schedule import SHARE, Schedule

WAVES_OF_A_GROUP = 3


@dataclass
class Model:
    """Where every wave is, by its tag; waves of workgroup g have the tags 3 g .. 3 g + 2."""

    waves: int
    pc: list[int] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)

    def workgroup(self, tag: int) -> set[int]:
        first = tag // WAVES_OF_A_GROUP * WAVES_OF_A_GROUP
        return set(range(first, first + WAVES_OF_A_GROUP)) - self.ended

    def release(self) -> None:
        for first in range(0, self.waves, WAVES_OF_A_GROUP):
            if self.workgroup(first) <= self.waiting:
                self.waiting -= self.workgroup(first)


def fork_to(pcs: list[int]) -> Fork:
    targets, way_of = np.unique(pcs, return_inverse=True)
    return Fork([(pc, 0) for pc in targets.tolist()], way_of)


def make(workgroups: int) -> tuple[Schedule, Machine]:
    dispatch = Dispatch(
        pc=0, rsrc1=0, rsrc2=0, rsrc3=0, user_data=(), initiator=1 << 15, start=(0, 0, 0), groups=(workgroups, 1, 1),
        threads=(32 * WAVES_OF_A_GROUP, 1, 1),
    )  # fmt: skip
    launch = decode(dispatch, 1)
    state = create_waves(launch, 0, workgroups)
    state.vgpr[5] = np.arange(state.waves)[:, None]
    state.used = 6
    state.sgpr[4, :, 0] = np.arange(state.waves)
    machine = Machine(launch, state, None, Lds(workgroups, 0), lambda: 0, lambda value: None)  # type: ignore[arg-type]
    return Schedule(machine, workgroups, 0, 0), machine


def check(schedule: Schedule, machine: Machine, model: Model) -> None:
    covered: list[int] = []
    places = []
    for group in schedule.groups:
        covered += range(group.start, group.stop)
        tags = machine.state.vgpr[5, group.start : group.stop, 0].tolist()
        assert tags == machine.state.sgpr[4, group.start : group.stop, 0].tolist()
        slots = [tag // WAVES_OF_A_GROUP for tag in tags]
        assert slots == machine.state.slot[group.start : group.stop].tolist()
        for tag in tags:
            assert tag not in model.ended
            assert model.pc[tag] == group.pc
            assert (tag in model.waiting) == group.blocked
        places.append((group.pc, group.blocked))
    assert len(set(covered)) == len(covered) == model.waves - len(model.ended)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), workgroups=st.integers(1, 5))
def test_waves_stay_whole_through_forks_barriers_and_ends(data: st.DataObject, workgroups: int) -> None:
    schedule, machine = make(workgroups)
    waves = machine.state.waves
    model = Model(waves, [0] * waves)
    for _ in range(data.draw(st.integers(1, 25))):
        group = schedule.next()
        if group is None:
            break
        tags = machine.state.vgpr[5, group.start : group.stop, 0].tolist()
        action = data.draw(st.sampled_from(("fork", "fork", "fork", "barrier", "end", "go")))
        if action == "fork":
            ways = data.draw(st.lists(st.integers(0, 3), min_size=len(tags), max_size=len(tags)))
            for tag, way in zip(tags, ways, strict=True):
                model.pc[tag] = 4 * way
            schedule.fork(group, fork_to([4 * way for way in ways]))
        elif action == "barrier":
            model.waiting |= set(tags)
            model.release()
            schedule.arrive(group)
        elif action == "end":
            model.ended |= set(tags)
            model.release()
            schedule.end(group)
        else:
            group.pc = 8
            for tag in tags:
                model.pc[tag] = 8
            schedule.meet(group)
        check(schedule, machine, model)
    assert (schedule.next() is None) == (len(model.ended) == waves)


def test_the_lowest_address_runs_first() -> None:
    schedule, _ = make(2)
    group = schedule.next()
    assert group is not None
    schedule.fork(group, fork_to([8, 4, 8, 12, 4, 8]))
    first = schedule.next()
    assert first is not None
    assert (first.pc, first.count) == (4, 2)


def test_a_group_that_used_its_share_gives_way_until_all_have() -> None:
    schedule, _ = make(2)
    group = schedule.next()
    assert group is not None
    schedule.fork(group, fork_to([4, 4, 4, 8, 8, 8]))
    order = []
    for _ in range(4):
        group = schedule.next()
        assert group is not None
        order.append(group.pc)
        group.spent = SHARE
    assert order == [4, 8, 4, 8]


def test_waves_that_reach_a_waiting_group_join_it() -> None:
    schedule, machine = make(4)
    group = schedule.next()
    assert group is not None
    schedule.fork(group, fork_to([4, 8] * 6))
    low = schedule.next()
    assert low is not None
    assert schedule.stops(low) == {8}
    low.pc = 8
    whole = schedule.meet(low)
    assert (whole.count, len(schedule.groups)) == (12, 1)
    assert sorted(machine.state.vgpr[5, :, 0].tolist()) == list(range(12))
