"""The card's thread: tasks side by side, no missed wake-up, virtual time that follows wall time while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.shell import Card
from amdrv.emulator.worker import Progress


@pytest.fixture
def card() -> Card:
    return Card("test", CHIPS["gfx1100"], vram_bytes=64 << 20)


def wait(card: Card, check: Callable[[], bool], wall_s: float = 5.0) -> bool:
    deadline = time.monotonic() + wall_s
    while not check():
        if time.monotonic() > deadline:
            return False
        card.relax(1.0)
    return True


def add(card: Card, name: str, task: Iterator[Progress]) -> None:
    with card.lock:
        card.worker.add(name, task)


def test_task_runs_to_its_end_and_the_card_is_idle_again(card: Card) -> None:
    steps: list[int] = []

    def task() -> Iterator[Progress]:
        for step in range(3):
            steps.append(step)
            yield Progress.RAN

    add(card, "queue", task())
    assert wait(card, lambda: not card.worker.busy)
    assert steps == [0, 1, 2]


def test_blocked_task_does_not_stop_another(card: Card) -> None:
    open_gate = threading.Event()

    def blocked() -> Iterator[Progress]:
        while not open_gate.is_set():
            yield Progress.BLOCKED

    def opener() -> Iterator[Progress]:
        yield Progress.RAN
        open_gate.set()

    add(card, "blocked", blocked())
    add(card, "opener", opener())
    assert wait(card, lambda: not card.worker.busy)


def test_change_before_the_wait_is_not_missed(card: Card) -> None:
    """The host looks, the device writes and notifies, the host waits: it must not sleep through that."""
    done = threading.Event()

    def task() -> Iterator[Progress]:
        card.notify()
        done.set()
        while True:
            yield Progress.BLOCKED

    card.relax(0)
    add(card, "queue", task())
    assert done.wait(5)
    started = time.monotonic()
    card.relax(10)
    assert time.monotonic() - started < 0.05
    with card.lock:
        card.worker.stop_all()


def test_virtual_time_follows_wall_time_while_a_task_runs(card: Card) -> None:
    before_ns = card.clock.now_ns

    def task() -> Iterator[Progress]:
        time.sleep(0.05)
        yield Progress.RAN

    add(card, "queue", task())
    assert wait(card, lambda: not card.worker.busy)
    passed_ns = card.clock.now_ns - before_ns
    assert passed_ns >= 50_000_000
    assert card.worker.busy_ns() == pytest.approx(passed_ns, rel=0.5)
    card.sleep(1.0)
    assert card.worker.busy_ns() <= passed_ns


def test_device_timestamps_move_without_the_host(card: Card) -> None:
    stamps: list[int] = []

    def task() -> Iterator[Progress]:
        stamps.append(card.realtime())
        time.sleep(0.01)
        stamps.append(card.realtime())
        yield Progress.RAN

    add(card, "queue", task())
    deadline = time.monotonic() + 5
    while card.worker.busy and time.monotonic() < deadline:
        time.sleep(0.005)
    assert stamps[1] - stamps[0] >= 1_000_000


def test_defect_of_a_model_reaches_the_host(card: Card) -> None:
    def task() -> Iterator[Progress]:
        yield Progress.RAN
        raise ZeroDivisionError("model")

    add(card, "queue", task())
    with pytest.raises(RuntimeError, match="model of the emulated card failed"):
        wait(card, lambda: False)


def test_reset_drops_tasks(card: Card) -> None:
    def task() -> Iterator[Progress]:
        while True:
            yield Progress.BLOCKED

    add(card, "queue", task())
    assert card.worker.has("queue")
    card.reset_chip(0)
    assert not card.worker.busy


def test_no_time_passes_for_the_card_while_code_is_translated(card: Card) -> None:
    release = threading.Event()

    def task() -> Iterator[Progress]:
        with card.worker.translating:
            release.wait(5.0)
        yield Progress.RAN
        time.sleep(0.01)
        yield Progress.RAN

    add(card, "queue", task())
    card.relax(0.15)
    with card.lock:
        card.worker.pass_wall_time()
        before_s = card.clock.now_s
    card.relax(0.05)
    assert card.clock.now_s - before_s < 0.005
    release.set()
    assert wait(card, lambda: not card.worker.busy)
    assert 0.01 <= card.clock.now_s - before_s < 2.0
