"""Stores through BAR0 wait for an HDP flush; a driver that leaves one out computes with old bytes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amdrv
from amdrv import emulator
from amdrv.blocks.nbio import Nbio
from amdrv.emulator import window
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.shell import Card
from amdrv.errors import DeviceLost

MIB = 1 << 20
PAGE = 4096
SAXPY = (Path(__file__).parents[1] / "runtime" / "data" / "saxpy.ll").read_text()
numbers = itertools.count(7100)


@pytest.fixture
def card() -> Card:
    return Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)


@pytest.fixture
def name() -> Iterator[str]:
    """A card of its own."""
    chosen = f"emu:gfx1100#{next(numbers)}"
    emulator.card(chosen, vram_bytes=1024 * MIB)
    yield chosen
    emulator.unplug(chosen)


def flush(card: Card) -> None:
    card.write_register(card.registers.block("NBIO")["BIF_BX_PF0_HDP_MEM_COHERENCY_FLUSH_CNTL"].address, 0)


def inside(card: Card, offset: int, size_bytes: int) -> bytes:
    return bytes(card.vram_view(offset, size_bytes))


def test_store_reaches_memory_at_the_flush_and_not_before(card: Card) -> None:
    view = card.bar0_view(0x5000, 8)
    view[:] = b"new data"
    assert inside(card, 0x5000, 8) == bytes(8)
    assert bytes(view) == b"new data"
    flush(card)
    assert inside(card, 0x5000, 8) == b"new data"


def test_store_through_a_view_from_before_a_flush_waits_again(card: Card) -> None:
    view = card.bar0_view(0, 4)
    view[:] = b"1234"
    flush(card)
    view[:] = b"5678"
    assert inside(card, 0, 4) == b"1234"
    flush(card)
    assert inside(card, 0, 4) == b"5678"


def test_engines_as_firmware_see_old_bytes_until_the_flush(card: Card) -> None:
    card.bar0_view(0x1000, 4)[:] = b"host"
    assert card.read_mc(card.chip.fb_base + 0x1000, 4) == bytes(4)
    flush(card)
    assert card.read_mc(card.chip.fb_base + 0x1000, 4) == b"host"


def test_host_sees_what_an_engine_wrote_beside_its_own_waiting_store(card: Card) -> None:
    view = card.bar0_view(0x2000, 16)
    view[:4] = b"host"
    assert card.write_mc(card.chip.fb_base + 0x2008, b"card")
    assert bytes(view) == b"host\0\0\0\0card\0\0\0\0"
    flush(card)
    assert inside(card, 0x2000, 16) == b"host\0\0\0\0card\0\0\0\0"


def test_what_waited_when_engines_started_keeps_waiting_and_later_stores_go_through(card: Card) -> None:
    early, late = card.bar0_view(0, PAGE), card.bar0_view(16 * PAGE, PAGE)
    early[:5] = b"early"
    with card.lock:
        card.host_path.engines_started()
    late[:4] = b"late"
    assert (inside(card, 0, 5), inside(card, 16 * PAGE, 4)) == (bytes(5), b"late")
    card.vram_view(100, 6)[:] = b"engine"  # as a kernel would, beside what waits
    with card.lock:
        card.host_path.engines_stopped()
    flush(card)
    assert (inside(card, 0, 5), inside(card, 100, 6)) == (b"early", b"engine")
    assert bytes(early[100:106]) == b"engine"
    late[:4] = b"last"
    assert inside(card, 16 * PAGE, 4) == b"late"


def test_reset_loses_what_waited(card: Card) -> None:
    view = card.bar0_view(0, 4)
    view[:] = b"gone"
    card.reset_chip(0.0)
    flush(card)
    assert bytes(view) == inside(card, 0, 4) == bytes(4)


def test_relaxed_card_needs_no_flush_and_becomes_strict_again(card: Card) -> None:
    view = card.bar0_view(0, 4)
    card.relaxed = True
    view[:] = b"fast"
    assert inside(card, 0, 4) == b"fast"
    card.relaxed = False
    view[:] = b"slow"
    assert inside(card, 0, 4) == b"fast"


def test_without_a_page_map_the_same_holds(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "PAGEMAP", "/nowhere")
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    view = card.bar0_view(3 * PAGE - 4, 8)
    view[:] = b"two page"
    assert inside(card, 3 * PAGE - 4, 8) == bytes(8)
    flush(card)
    assert inside(card, 3 * PAGE - 4, 8) == b"two page"


def test_kernel_without_two_step_exchange_of_pages_merges_all_the_same(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "MREMAP_DONTUNMAP", 1 << 20)  # refused with EINVAL, as by Linux before 5.13
    view = card.bar0_view(0, 4)
    view[:] = b"1234"
    flush(card)
    assert inside(card, 0, 4) == bytes(view) == b"1234"


STORE = st.tuples(st.sampled_from(["host", "engine", "flush"]), st.integers(0, 3 * PAGE - 1), st.integers(1, 255))


@settings(max_examples=60, deadline=None)
@given(st.lists(STORE, max_size=24))
def test_after_a_flush_memory_has_the_last_store_of_each_byte(steps: list[tuple[str, int, int]]) -> None:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    view = card.bar0_view(0, 3 * PAGE)
    expected = bytearray(3 * PAGE)
    for who, at, value in steps:
        if who == "flush":
            flush(card)
            continue
        expected[at] = value
        if who == "host":
            view[at] = value
        else:
            card.write_mc(card.chip.fb_base + at, bytes([value]))
        assert view[at] == value
    flush(card)
    assert inside(card, 0, 3 * PAGE) == bytes(view) == bytes(expected)


def test_no_store_of_another_thread_is_lost_in_a_flush(card: Card) -> None:
    view = np.frombuffer(card.bar0_view(0, 64 * PAGE), np.uint8)
    rounds = 200

    def store() -> None:
        for value in range(1, rounds + 1):
            view[:] = value

    thread = threading.Thread(target=store)
    thread.start()
    while thread.is_alive():
        with card.lock:
            card.host_path.flush()
    thread.join()
    flush(card)
    assert set(inside(card, 0, 64 * PAGE)) == {rounds % 256}


@pytest.mark.parametrize("omit", [False, True], ids=["with the flush", "without the flush"])
def test_kernel_reads_what_the_last_flush_covered(name: str, omit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with amdrv.open(name) as dev:
        y, x = dev.array(np.zeros(64, np.float32)), dev.array(np.ones(64, np.float32))
        saxpy = dev.load(amdrv.compile_llvm(SAXPY))["saxpy"]
        saxpy.launch(1, 64, (y, x, 1.0, 64)).wait()
        assert (y.numpy(np.float32) == 1).all()
        if omit:
            monkeypatch.setattr(Nbio, "flush_hdp", lambda self: None)
        x.write(np.full(64, 5, np.float32))
        saxpy.launch(1, 64, (y, x, 1.0, 64)).wait()
        assert (y.numpy(np.float32) == (2 if omit else 6)).all()
        monkeypatch.undo()


def test_card_off_the_bus_shows_ones_and_takes_no_store(card: Card) -> None:
    view = card.bar0_view(0x1000, 8)
    view[:] = b"flushed "
    flush(card)
    view[:] = b"waiting "
    card.faults.inject("lost")
    assert bytes(view) == bytes(card.bar0_view(0x7000, 8)) == b"\xff" * 8
    view[:] = b"nowhere "
    with card.lock:
        card.host_path.engines_started()
        card.host_path.engines_stopped()
    assert bytes(card.bar0_view(0x1008, 8)) == b"\xff" * 8
    card.faults.clear()
    flush(card)
    assert bytes(view) == inside(card, 0x1000, 8) == b"flushed "


def test_buffer_of_a_card_off_the_bus_cannot_be_read(name: str) -> None:
    dev = amdrv.open(name)
    buffer = dev.array(np.full(4, -1, np.int32))
    assert (buffer.numpy(np.int32) == -1).all()  # ones by right
    emulator.card(name).faults.inject("lost")
    with pytest.raises(DeviceLost, match="all ones"):
        buffer.read()
    dev.close()
