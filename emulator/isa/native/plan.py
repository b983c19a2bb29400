"""From a decoded dispatch to what compiled code needs to start its waves.

Waves of workgroups of one kind start alike but for the workgroup's id: their states are templates, made by the same
function that makes the interpreter's waves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.dispatch import Dispatch
from amdrv.emulator.isa.launch import TTMP7, TTMP9, Launch, create_waves
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.frame import NULL
from amdrv.emulator.isa.native.layout import Outcome
from amdrv.emulator.isa.native.workgroups import Plan

ALL_ONES = (1 << 64) - 1
REMEMBERED = 64

Words = NDArray[np.uint32]
Kinds: TypeAlias = "list[tuple[int, int, int]]"  # (kind, first row of its templates, waves) of workgroups
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan, and the memory that it points to: the states with which waves start."""

    plan: Plan
    templates: Words


class Planner:
    """Makes plans; keeps those of the last dispatches, because the next differ in little but their arguments.

    A plan is one dispatch's until the next is prepared.
    """

    def __init__(self) -> None:
        self._templates: OrderedDict[tuple[object, ...], tuple[Words, Kinds]] = OrderedDict()
        self._prepared: OrderedDict[tuple[object, ...], Prepared] = OrderedDict()

    def prepare(self, launch: Launch, cell: int, base: int) -> Prepared:
        """The plan of a dispatch whose waves start at ``base``, in the unit that ``cell`` leads to (a host address)."""
        dispatch = launch.dispatch
        # All that a launch is made from, but what is set below and what only the run looks at.
        alike = (
            *(dispatch.rsrc1, dispatch.rsrc2, dispatch.rsrc3, dispatch.initiator, dispatch.tmpring_size),
            *(dispatch.threads, dispatch.partial_threads, dispatch.shared_base, dispatch.private_base),
        )
        key = (*alike, dispatch.groups, dispatch.start)
        prepared = self._prepared.get(key)
        if prepared is None:
            pattern, kinds = _recall(self._templates, (*alike, _lasts(dispatch)), lambda: _templates(launch))
            prepared = _recall(self._prepared, key, lambda: _prepared(launch, pattern, kinds))
        plan, templates = prepared.plan, prepared.templates
        plan.next = plan.stop = plan.clear_bytes = plan.own_states = 0
        place = layout.STATE_SGPR // 4
        values = dispatch.user_data[: launch.user_sgprs]
        templates[:, place : place + len(values)] = np.array(values, np.uint32)
        numbers = templates.view(np.uint64)
        numbers[:, layout.STATE_CELL // 8] = cell
        numbers[:, layout.STATE_BASE // 8] = base
        return prepared


def _recall(kept: OrderedDict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    """What is kept under a key, or made anew."""
    found = kept.get(key)
    if found is None:
        found = kept[key] = make()
        while len(kept) > REMEMBERED:
            kept.popitem(last=False)
    return found


def aligned(shape: tuple[int, ...]) -> Words:
    """Words that begin at a multiple of 64 bytes."""
    count = int(np.prod(shape))
    memory = np.zeros(count + 16, np.uint32)
    skip = -memory.ctypes.data % 64 // 4
    return memory[skip : skip + count].reshape(shape)


def _lasts(dispatch: Dispatch) -> tuple[int, int, int]:
    """Number of workgroups in each dimension as far as templates depend on it: 1, or more."""
    x, y, z = (min(groups, 2) for groups in dispatch.groups)
    return x, y, z


def _templates(launch: Launch) -> tuple[Words, Kinds]:
    """Rows of a state up to VGPR 0, and each kind of workgroup."""
    dispatch = launch.dispatch
    few = replace(launch, dispatch=replace(dispatch, groups=_lasts(dispatch), start=(0, 0, 0), user_data=()))
    kinds: Kinds = []
    rows: list[Words] = []
    for number in range(few.workgroups):
        kind = _kind(few, number)
        if all(kind != known for known, _, _ in kinds):
            made = _wave_rows(few, number)
            kinds.append((kind, sum(len(some) for some in rows), len(made)))
            rows.append(made)
    return np.concatenate(rows), kinds


def _kind(launch: Launch, number: int) -> int:
    x, y, z = launch.workgroup_ids(number, 1)[0].tolist()
    dispatch = launch.dispatch
    marks = zip((x, y, z), dispatch.groups, dispatch.partial_threads, (1, 2, 4), strict=True)
    return sum(bit for at, groups, partial, bit in marks if partial and at == groups - 1)


def _wave_rows(launch: Launch, number: int) -> Words:
    waves = create_waves(launch, number, 1)
    rows = np.zeros((waves.waves, (layout.STATE_VGPR + 4 * launch.lanes) // 4), np.uint32)
    rows[:, layout.STATE_PC // 4 : layout.STATE_PC // 4 + 2] = layout.START >> 32
    rows[:, layout.STATE_MODE // 4] = launch.mode
    rows[:, layout.STATE_NUMBER // 4] = waves.number
    rows[:, layout.STATE_WAVES // 4] = waves.waves
    rows[:, layout.STATE_OUTCOME // 4] = int(Outcome.YIELD)  # ready to run
    first = layout.STATE_SGPR // 4
    rows[:, first : first + layout.SGPRS] = waves.sgpr.transpose(1, 0, 2).reshape(waves.waves, layout.SGPRS)
    rows[:, layout.STATE_VGPR // 4 :] = waves.vgpr[0]
    for code, _, _ in _id_places(launch):
        rows[:, first + code] = 0  # the ids are added when a wave starts
    return rows


def _prepared(launch: Launch, pattern: Words, kinds: Kinds) -> Prepared:
    templates = aligned(pattern.shape)
    templates[...] = pattern
    plan = _plan(launch)
    for kind, first, waves in kinds:
        plan.kinds[kind].waves = waves
        plan.kinds[kind].templates = templates.ctypes.data + first * templates.strides[0]
    return Prepared(plan, templates)


def _plan(launch: Launch) -> Plan:
    dispatch = launch.dispatch
    plan = Plan()
    plan.total = launch.workgroups
    plan.groups_x, plan.groups_y = dispatch.groups[0], dispatch.groups[1]
    for dimension, (code, mask, shift) in enumerate(_id_places(launch)):
        plan.start[dimension] = dispatch.start[dimension] & 0xFFFF_FFFF
        partial = dispatch.partial_threads[dimension]
        plan.last[dimension] = dispatch.groups[dimension] - 1 if partial else ALL_ONES
        place = layout.STATE_GROUP + 4 * dimension if code == NULL else layout.STATE_SGPR + 4 * code
        plan.id_places[dimension] = place
        plan.id_masks[dimension], plan.id_shifts[dimension] = mask, shift
        plan.id_keeps[dimension] = (1 << shift) - 1
    plan.state_bytes = layout.state_bytes(launch.vgprs, launch.lanes)
    plan.lds_bytes = launch.lds_bytes
    plan.scratch_wave_bytes = launch.scratch_wave_bytes
    return plan


def _id_places(launch: Launch) -> list[tuple[int, int, int]]:
    """(scalar operand code, mask, shift) of each workgroup id: those of y and z may share a register.

    As ``launch.create_waves`` has it; an id that is not enabled goes to NULL.
    """
    whole, sgpr, places = 0xFFFF_FFFF, launch.user_sgprs, []
    in_ttmps = ((TTMP9, whole, 0), (TTMP7, 0xFFFF, 0), (TTMP7, 0xFFFF, 16))
    for dimension, enabled in enumerate(launch.workgroup_id_enable):
        place = in_ttmps[dimension] if launch.generation.workgroup_ids_in_ttmps else (sgpr, whole, 0)
        places.append(place if enabled else (NULL, whole, 0))
        sgpr += enabled
    return places
