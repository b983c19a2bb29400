"""The loop over workgroups, with wave functions written by hand in the place of translated ones."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest

from amdrv.emulator.isa.dispatch import Dispatch, DispatchStats
from amdrv.emulator.isa.generation import generation_for
from amdrv.emulator.isa.launch import create_waves, decode
from amdrv.emulator.isa.native import jit, layout, units

pytestmark = pytest.mark.skipif(bool(jit.unavailable()), reason=jit.unavailable() or "available")

PC = 0x1000
INITIATOR_W32 = 1 << 15


class FlatMemory:
    """Addresses are arena indices."""

    def __init__(self) -> None:
        self.arena = np.zeros(1 << 16, np.uint8)

    def translate(self, va, access):
        return va.astype(np.int64)

    def extent(self, va, access):
        return 0, self.arena.nbytes, 0


def make_engine(
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    *,
    entries: tuple[int, ...] = (0,),
    threads: int = 1,
    arch: str = "gfx1100",
    leaves: bool = False,
    ends_at_once: bool = False,
):
    """An engine whose every unit has this body, with what helps to write it."""
    from amdrv.emulator.isa.native.engine import Translator

    def translate(code, base_pc, wanted, shape, library, tier):
        name = "wave" if ends_at_once else "unit"
        arguments = "ptr noalias %ctx, ptr noalias %state, i64 %base, i32 %waves"
        ir = f"define i32 @{name}({arguments}) nounwind {{\n{body}\n}}\n"
        if ends_at_once:
            ir += in_turn(layout.state_bytes(shape.vgprs, shape.lanes))
        places = frozenset((place, mode) for place in entries for _, mode in wanted)
        ranges = [(base_pc, b"\x00" * 4)]
        return units_unit(ir, base_pc, ranges, [(0, "s_nop")], places, leaves, ends_at_once, (), 1)

    from amdrv.emulator.isa.native.unit import Unit as units_unit

    monkeypatch.setattr(units, "translate", translate)
    return Translator(arch, threads=threads)


def in_turn(state_bytes: int) -> str:
    """A unit that runs @wave for one state after the other and adds their counts up in the first."""
    return f"""define i32 @unit(ptr noalias %ctx, ptr noalias %states, i64 %base, i32 %waves) nounwind {{
entry:
  br label %again
again:
  %state = phi ptr [%states, %entry], [%state.next, %next]
  %left = phi i32 [%waves, %entry], [%left.less, %next]
  %total = phi i64 [0, %entry], [%total.more, %next]
  %result = call i32 @wave(ptr %ctx, ptr %state, i64 %base, i32 1)
{field("count", "i64", layout.STATE_COUNT)}
  %total.more = add i64 %total, %count
  %left.less = sub i32 %left, 1
  %over = icmp eq i32 %left.less, 0
  br i1 %over, label %done, label %next
next:
  %state.next = getelementptr i8, ptr %state, i64 {state_bytes}
  br label %again
done:
  %first.at = getelementptr i8, ptr %states, i64 {layout.STATE_COUNT}
  store i64 %total.more, ptr %first.at
  ret i32 %result
}}
"""


def field(name: str, kind: str, offset: int) -> str:
    return f"%{name}.at = getelementptr i8, ptr %state, i64 {offset}\n%{name} = load {kind}, ptr %{name}.at"


def make_dispatch(groups, threads, *, partial=(0, 0, 0), lanes=32, start=(0, 0, 0), rsrc2=0, user=()) -> Dispatch:
    return Dispatch(
        pc=PC,
        rsrc1=3 if lanes == 32 else 7,
        rsrc2=rsrc2,
        rsrc3=0,
        user_data=user,
        initiator=INITIATOR_W32 if lanes == 32 else 0,
        start=start,
        groups=groups,
        threads=threads,
        partial_threads=partial,
    )


def run(engine, dispatch: Dispatch, cancelled: Callable[[], bool] = lambda: False) -> DispatchStats:
    return engine.run(dispatch, FlatMemory(), cancelled=cancelled, realtime=lambda: 7, interrupt=lambda data: None)


@pytest.mark.parametrize("lanes", [32, 64])
@pytest.mark.parametrize("partial", [(0, 0, 0), (5, 0, 0), (3, 2, 1)])
@pytest.mark.parametrize("ends_at_once", [False, True])
@pytest.mark.parametrize(
    ("threads", "arch", "enables"), [(1, "gfx1100", 11), (2, "gfx1100", 11), (1, "gfx1201", 7), (2, "gfx1201", 3)]
)
def test_waves_start_with_the_registers_that_the_interpreter_gives_them(
    monkeypatch, lanes, partial, threads, arch, enables, ends_at_once
) -> None:
    rsrc2 = 5 << 1 | enables << 7 | 2 << 11 | 3 << 15
    dispatch = make_dispatch(
        (3, 2, 4), (9, 5, 2), partial=partial, lanes=lanes, start=(4, 0, 7), rsrc2=rsrc2, user=(1, 2, 3, 4, 5, 6)
    )
    launch = decode(dispatch, 6, generation_for(arch))
    expected = create_waves(launch, 0, launch.workgroups)
    size = layout.STATE_VGPR + 4 * lanes
    seen = np.zeros((expected.waves, size // 4), np.uint32)
    counter = ctypes.c_uint64()
    body = f"""
{field("count", "i64", layout.STATE_COUNT)}
  store i64 2, ptr %count.at
  %counter = inttoptr i64 {ctypes.addressof(counter)} to ptr
  %row = atomicrmw add ptr %counter, i64 1 monotonic
  %place = mul i64 %row, {size}
  %table = inttoptr i64 {seen.ctypes.data} to ptr
  %to = getelementptr i8, ptr %table, i64 %place
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %state, i64 {size}, i1 false)
  ret i32 0"""
    engine = make_engine(monkeypatch, body, threads=threads, arch=arch, ends_at_once=ends_at_once)
    stats = run(engine, dispatch)
    assert stats == DispatchStats(expected.waves, 2 * expected.waves)
    rows = {}
    for row in seen:
        group = row[layout.STATE_GROUP // 4 :][:3]
        rows[tuple(group.tolist()), int(row[layout.STATE_NUMBER // 4])] = row
    assert len(rows) == expected.waves
    for wave in range(expected.waves):
        row = rows[tuple(expected.workgroup[wave].tolist()), int(expected.number[wave])]
        sgprs = row[layout.STATE_SGPR // 4 :][: layout.SGPRS].copy()
        sgprs[124] = 0  # NULL takes what is not enabled
        assert sgprs.tolist() == expected.sgpr[:, wave].reshape(-1).tolist()
        assert row[layout.STATE_VGPR // 4 :].tolist() == expected.vgpr[0, wave].tolist()
        assert row[:2].tolist() == [0xFFFF_FFFF, 0xFFFF_FFFF]
        assert row[layout.STATE_MODE // 4] == launch.mode
        assert row[layout.STATE_WAVES // 4] == np.sum((expected.workgroup == expected.workgroup[wave]).all(axis=1))


def logged(numbers: np.ndarray, counter: ctypes.c_uint64, outcome_of: str) -> str:
    """A wave function that writes its number and returns what ``outcome_of`` computes into %result."""
    return f"""
{field("pc", "i64", layout.STATE_PC)}
{field("number", "i32", layout.STATE_NUMBER)}
{field("visits", "i64", layout.STATE_COUNT)}
  %counter = inttoptr i64 {ctypes.addressof(counter)} to ptr
  %row = atomicrmw add ptr %counter, i64 1 monotonic
  %table = inttoptr i64 {numbers.ctypes.data} to ptr
  %to = getelementptr i32, ptr %table, i64 %row
  store i32 %number, ptr %to
  %visits.more = add i64 %visits, 1
  store i64 %visits.more, ptr %visits.at
  store i64 %base, ptr %pc.at
{outcome_of}
  ret i32 %result"""


def test_a_barrier_is_passed_when_all_waves_that_have_not_ended_are_there(monkeypatch) -> None:
    numbers, counter = np.zeros(100, np.uint32), ctypes.c_uint64()
    # Wave 1 ends at once; the others visit twice.
    outcome = """
  %second = icmp ugt i64 %visits, 0
  %short = icmp eq i32 %number, 1
  %ends = or i1 %second, %short
  %result = select i1 %ends, i32 0, i32 1"""
    engine = make_engine(monkeypatch, logged(numbers, counter, outcome))
    stats = run(engine, make_dispatch((1, 1, 1), (128, 1, 1)))
    assert numbers[: counter.value].tolist() == [0, 1, 2, 3, 0, 2, 3]
    assert stats == DispatchStats(4, 7)


def test_waves_that_yield_take_turns(monkeypatch) -> None:
    numbers, counter = np.zeros(100, np.uint32), ctypes.c_uint64()
    outcome = """
  %third = icmp ugt i64 %visits, 1
  %result = select i1 %third, i32 0, i32 2"""
    run(make_engine(monkeypatch, logged(numbers, counter, outcome)), make_dispatch((1, 1, 1), (64, 1, 1)))
    assert numbers[: counter.value].tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_workgroup_that_waits_lets_a_later_one_run(monkeypatch, threads) -> None:
    flag = ctypes.c_uint32()
    body = f"""
{field("group", "i32", layout.STATE_GROUP)}
  %flag = inttoptr i64 {ctypes.addressof(flag)} to ptr
  %last = icmp eq i32 %group, 29
  br i1 %last, label %set, label %look
set:
  store atomic i32 1, ptr %flag monotonic, align 4
  ret i32 0
look:
  %seen = load atomic i32, ptr %flag monotonic, align 4
  %waits = icmp eq i32 %seen, 0
  %result = select i1 %waits, i32 3, i32 0
  ret i32 %result"""
    stats = run(make_engine(monkeypatch, body, threads=threads), make_dispatch((30, 1, 1), (64, 1, 1)))
    assert stats.waves == 60


@pytest.mark.parametrize("outcome", [2, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_waves_that_never_end_are_cancelled_and_counted(monkeypatch, outcome, threads) -> None:
    body = f"""
{field("count", "i64", layout.STATE_COUNT)}
  store i64 5, ptr %count.at
  ret i32 {outcome}"""
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    stats = run(make_engine(monkeypatch, body, threads=threads), make_dispatch((4, 1, 1), (32, 1, 1)), cancelled)
    assert stats.waves >= 1
    assert stats.wave_instructions == 5 * stats.waves


def test_an_exception_of_a_service_ends_the_dispatch(monkeypatch) -> None:
    body = f"""
  %service.at = getelementptr i8, ptr %ctx, i64 {layout.offset("service")}
  %service = load ptr, ptr %service.at
  %ignored = call i64 %service(ptr %ctx, i32 0, i64 0)
  ret i32 2"""
    engine = make_engine(monkeypatch, body)

    def realtime() -> int:
        raise LookupError("no clock")

    with pytest.raises(LookupError, match="no clock"):
        engine.run(
            make_dispatch((1, 1, 1), (32, 1, 1)),
            FlatMemory(),
            cancelled=lambda: False,
            realtime=realtime,
            interrupt=lambda data: None,
        )


def test_lds_is_zero_when_a_workgroup_starts(monkeypatch) -> None:
    dirty = ctypes.c_uint32()
    body = f"""
  %lds.at = getelementptr i8, ptr %ctx, i64 {layout.offset("lds")}
  %lds = load ptr, ptr %lds.at
  %end = getelementptr i8, ptr %lds, i64 1020
  %first = load i32, ptr %lds
  %last = load i32, ptr %end
  %both = or i32 %first, %last
  %dirty = inttoptr i64 {ctypes.addressof(dirty)} to ptr
  %before = atomicrmw or ptr %dirty, i32 %both monotonic
  store i32 1, ptr %lds
  store i32 2, ptr %end
  ret i32 0"""
    run(make_engine(monkeypatch, body), make_dispatch((10, 1, 1), (32, 1, 1), rsrc2=2 << 15))
    assert dirty.value == 0


def test_an_empty_grid_runs_nothing(monkeypatch) -> None:
    assert run(make_engine(monkeypatch, "ret i32 4"), make_dispatch((0, 1, 1), (32, 1, 1))) == DispatchStats()
