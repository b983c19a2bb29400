"""Virtual time passes only when charged, and what is due happens in order at its own time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.emulator import clock as clock_module
from amdrv.emulator.clock import HostTime, VirtualClock


def test_event_runs_at_its_deadline_and_not_before() -> None:
    clock = VirtualClock()
    seen: list[int] = []
    clock.after(1e-6, lambda: seen.append(clock.now_ns))
    clock.charge(999)
    assert seen == []
    clock.charge(5000)
    assert seen == [1000]
    assert clock.now_ns == 5999


@given(st.lists(st.integers(0, 1000), max_size=20))
def test_events_run_in_order_of_deadline_then_of_request(delays_ns: list[int]) -> None:
    clock = VirtualClock()
    seen: list[tuple[int, int]] = []
    for number, delay_ns in enumerate(delays_ns):
        clock.after(delay_ns / 1e9, lambda number=number, delay_ns=delay_ns: seen.append((delay_ns, number)))
    clock.charge(1000)
    assert seen == sorted(seen)
    assert len(seen) == len(delays_ns)


def test_event_may_ask_for_another_that_is_due_in_the_same_charge() -> None:
    clock = VirtualClock()
    seen: list[int] = []
    clock.after(1e-6, lambda: clock.after(1e-6, lambda: seen.append(clock.now_ns)) and None)
    clock.charge(10_000)
    assert seen == [2000]


def test_jump_goes_to_the_next_event_or_as_far_as_allowed() -> None:
    clock = VirtualClock()
    clock.after(1e-3, lambda: None)
    clock.jump(10_000)
    assert clock.now_ns == 10_000
    clock.jump(10_000_000_000)
    assert clock.now_ns == 1_000_000
    clock.jump(5)
    assert clock.now_ns == 1_000_005


def test_time_always_passes_in_a_jump() -> None:
    clock = VirtualClock()
    clock.after(0, lambda: None)
    before_ns = clock.now_ns
    clock.jump(1000)
    assert clock.now_ns > before_ns


def test_cancelled_and_dropped_events_never_run() -> None:
    clock = VirtualClock()
    seen: list[str] = []
    clock.after(1e-6, lambda: seen.append("cancelled")).cancelled = True
    assert clock.next_deadline_ns() is None
    clock.after(1e-6, lambda: seen.append("dropped"))
    clock.drop_events()
    clock.charge(1_000_000)
    assert seen == []


def test_host_time_is_that_of_its_blocks_and_of_each_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0
    monkeypatch.setattr(clock_module.time, "monotonic_ns", lambda: now_ns)
    spent = HostTime()
    now_ns = 100
    with spent:
        now_ns += 30
        assert spent.spent_ns == 30
    now_ns += 1000
    assert spent.spent_ns == 30
    with spent:
        now_ns += clock_module.LIMIT_NS + 5
        assert spent.spent_ns == 30 + clock_module.LIMIT_NS
    assert spent.spent_ns == 30 + clock_module.LIMIT_NS
