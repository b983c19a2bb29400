"""Stores of another process to device memory that it has mapped wait for an HDP flush, as those of this process do."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.shell import Card

MIB = 1 << 20
PAGE = 4096


class Rig:
    """A card, and its memory as another process maps it."""

    def __init__(self, **options: int | None) -> None:
        self.card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB, shared_vram=True, **options)
        self.host = mmap.mmap(self.card.arena.vram_descriptor, 64 * MIB)
        # The boot ROM has left its table in memory; what is left to see is the tests'.
        flush(self.card)

    def engine(self, offset: int, size_bytes: int) -> bytes:
        """What an engine reads, be it a single access or a wave that addresses the arena."""
        arena = self.card.arena
        return arena.load(offset, size_bytes) if arena.shown else bytes(self.card.vram_view(offset, size_bytes))

    def store(self, offset: int, data: bytes) -> None:
        """An engine stores."""
        assert self.card.write_mc(self.card.chip.fb_base + offset, data)

    def start(self) -> None:
        with self.card.lock:
            self.card.host_path.engines_started()

    def stop(self) -> None:
        with self.card.lock:
            self.card.host_path.engines_stopped()


def flush(card: Card) -> None:
    card.write_register(card.registers.block("NBIO")["BIF_BX_PF0_HDP_MEM_COHERENCY_FLUSH_CNTL"].address, 0)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.host.close()


def test_store_reaches_engines_at_the_flush_and_not_before(rig: Rig) -> None:
    rig.host[0x5000:0x5008] = b"new data"
    assert rig.engine(0x5000, 8) == bytes(8)
    assert rig.card.read_mc(rig.card.chip.fb_base + 0x5000, 8) == bytes(8)
    flush(rig.card)
    assert rig.engine(0x5000, 8) == rig.host[0x5000:0x5008] == b"new data"
    rig.host[0x5000:0x5003] = b"old"
    assert rig.engine(0x5000, 8) == b"new data"


def test_store_that_waits_when_engines_start_stays_hidden_from_them_until_a_flush(rig: Rig) -> None:
    rig.host[:5] = b"early"
    rig.start()
    assert rig.engine(0, 5) == bytes(5)
    assert rig.host[:5] == b"early"
    rig.host[16 * PAGE : 16 * PAGE + 4] = b"late"
    assert rig.engine(16 * PAGE, 4) == b"late"  # while queues are at work
    flush(rig.card)
    assert rig.engine(0, 5) == b"early"
    rig.stop()
    assert rig.engine(0, 5) == b"early"


def test_stores_of_waves_beside_a_hidden_store_reach_the_host_and_the_next_start_hides_it_again(rig: Rig) -> None:
    rig.host[:5] = b"early"
    rig.start()
    rig.card.vram_view(100, 6)[:] = b"engine"
    rig.card.vram_view(9 * PAGE, 4)[:] = b"wave"
    rig.stop()
    assert (rig.host[100:106], rig.host[9 * PAGE : 9 * PAGE + 4]) == (b"engine", b"wave")
    assert (rig.engine(0, 5), rig.engine(100, 6)) == (bytes(5), b"engine")
    rig.start()
    assert (rig.engine(0, 5), rig.engine(100, 6), rig.engine(9 * PAGE, 4)) == (bytes(5), b"engine", b"wave")
    flush(rig.card)
    rig.stop()
    assert (rig.engine(0, 5), rig.engine(100, 6)) == (b"early", b"engine")


def test_host_sees_what_an_engine_wrote_beside_its_own_waiting_store(rig: Rig) -> None:
    rig.host[0x2000:0x2004] = b"host"
    rig.store(0x2008, b"card")
    assert rig.host[0x2000:0x2010] == b"host\0\0\0\0card\0\0\0\0"
    assert rig.engine(0x2000, 16) == b"\0\0\0\0\0\0\0\0card\0\0\0\0"


def test_what_engines_stored_is_no_store_of_the_host(rig: Rig) -> None:
    rig.start()
    rig.card.vram_view(0, 4)[:] = b"wave"
    rig.stop()
    assert rig.card.host_path.pending_bytes == 0
    rig.store(PAGE, b"firmware")
    assert rig.card.host_path.pending_bytes == 0
    rig.host[2 * PAGE] = 1
    assert rig.card.host_path.pending_bytes == PAGE


def test_reset_loses_what_waited(rig: Rig) -> None:
    rig.host[:4] = b"gone"
    rig.start()
    rig.card.reset_chip(0.0)
    rig.stop()
    flush(rig.card)
    assert rig.host[:4] == rig.engine(0, 4) == bytes(4)


def test_relaxed_card_needs_no_flush_and_becomes_strict_again(rig: Rig) -> None:
    rig.card.relaxed = True
    rig.host[:4] = b"fast"
    assert rig.engine(0, 4) == b"fast"
    rig.card.relaxed = False
    rig.host[:4] = b"slow"
    assert rig.engine(0, 4) == b"fast"


def test_more_memory_in_use_than_is_compared_lets_stores_through_until_a_reset() -> None:
    rig = Rig(compared_bytes=2 * MIB)
    for used in range(0, 3 * MIB, PAGE):
        rig.host[used] = 1
    rig.start()
    assert rig.engine(0, 1) == b"\1"
    rig.stop()
    rig.host[5] = 7
    assert rig.engine(5, 1) == b"\7"
    rig.card.reset_chip(0.0)
    rig.host[5] = 8
    assert rig.engine(5, 1) == b"\0"
    rig.host.close()


def test_without_a_limit_stores_wait_however_much_is_in_use() -> None:
    rig = Rig(compared_bytes=None)
    rig.host[: 48 * MIB] = b"\1" * (48 * MIB)
    rig.start()
    assert rig.engine(MIB, 1) == b"\0"
    rig.stop()
    rig.host.close()


KINDS = st.sampled_from(["host", "engine", "wave", "flush", "start", "stop"])
STEP = st.tuples(KINDS, st.integers(0, 3 * PAGE - 1), st.integers(1, 255))


@pytest.fixture(scope="module")
def lasting() -> Rig:
    return Rig()


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=30))
def test_after_a_flush_memory_has_the_last_store_of_each_byte(lasting: Rig, steps: list[tuple[str, int, int]]) -> None:
    rig = lasting
    rig.card.reset_chip(0.0)
    expected = bytearray(3 * PAGE)
    busy = False
    owner: dict[int, str] = {}
    for who, at, value in steps:
        if who in ("flush", "start", "stop"):
            {"flush": lambda: flush(rig.card), "start": rig.start, "stop": rig.stop}[who]()
            busy = who == "start" or (busy and who == "flush")
            owner.clear()
        elif who == "host" and owner.get(at, who) == who:
            rig.host[at] = expected[at] = value
        elif who == "engine" and owner.get(at, who) == who:
            rig.store(at, bytes((value,)))
            expected[at] = value
        elif who == "wave" and busy and owner.get(at, who) == who and rig.host[at] == rig.engine(at, 1)[0]:
            rig.card.vram_view(at, 1)[0] = expected[at] = value
        else:
            continue
        if who in ("host", "engine", "wave"):
            owner[at] = who
    rig.stop()
    flush(rig.card)
    assert rig.engine(0, 3 * PAGE) == rig.host[: 3 * PAGE] == bytes(expected)


def test_no_store_of_another_thread_is_lost_in_a_flush(rig: Rig) -> None:
    rounds = 200

    def store() -> None:
        for value in range(1, rounds + 1):
            rig.host[: 64 * PAGE] = bytes((value,)) * (64 * PAGE)

    thread = threading.Thread(target=store)
    thread.start()
    while thread.is_alive():
        flush(rig.card)
    thread.join()
    flush(rig.card)
    assert set(rig.engine(0, 64 * PAGE)) == {rounds % 256}
