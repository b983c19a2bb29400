"""Taking messages from a stream: however it is cut, and with the descriptors where they belong."""

from __future__ import annotations

import array
import os
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv.emulator.config_space import CAP_MSI, BarSpec, ConfigSpace
from amdrv.emulator.server.channel import Channel, Closed
from amdrv.emulator.server.interrupts import capabilities, enabled_kind, vector_counts
from amdrv.emulator.server.regions import pieces
from amdrv.facts.vfio_user import Irq

HEADER = struct.Struct("<HHIII")
SMALLEST_WITH_DESCRIPTORS = 20  # bytes of body: SET_IRQS


def message(number: int, body: bytes) -> bytes:
    return HEADER.pack(number, 9, HEADER.size + len(body), 0, 0) + body


def receive_all(pair: socket.socket, count: int) -> list[tuple[int, bytes, int]]:
    """(id, body, descriptors) of each message; the descriptors are closed."""
    channel = Channel(pair)
    seen = []
    for _ in range(count):
        got = channel.receive()
        seen.append((got.id, bytes(got.body), len(got.descriptors)))
        got.close()
    return seen


@settings(deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=8), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_messages_do_not_depend_on_how_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(message(n, body) for n, body in enumerate(bodies))
    left, right = socket.socketpair()
    with left, right:

        def feed() -> None:
            at, turn = 0, 0
            while at < len(stream):
                step = cuts[turn % len(cuts)]
                left.sendall(stream[at : at + step])
                at, turn = at + step, turn + 1
            left.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=feed)
        thread.start()
        assert receive_all(right, len(bodies)) == [(n, body, 0) for n, body in enumerate(bodies)]
        thread.join()
        with pytest.raises(Closed):
            Channel(right).receive()


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 3)), max_size=12))
def test_descriptors_stay_with_their_message_when_many_wait(messages: list[tuple[bytes, int]]) -> None:
    wanted = [(body, count if len(body) >= SMALLEST_WITH_DESCRIPTORS else 0) for body, count in messages]
    null = os.open("/dev/null", os.O_RDONLY)
    left, right = socket.socketpair()
    with left, right:
        for number, (body, count) in enumerate(wanted):
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * count))] if count else []
            left.sendmsg([message(number, body)], passed)
        seen = receive_all(right, len(wanted))
    os.close(null)
    assert seen == [(number, body, count) for number, (body, count) in enumerate(wanted)]


@given(st.integers(0, 100), st.integers(0, 100), st.sampled_from([1, 2, 4, 8]))
def test_pieces_are_aligned_and_cover_the_range_once(offset: int, size: int, widest: int) -> None:
    parts = list(pieces(offset, size, widest))
    covered = [at + n for at, width in parts for n in range(width)]
    assert covered == list(range(offset, offset + size))
    assert all(at % width == 0 and width in (1, 2, 4, 8) and width <= widest for at, width in parts)


@pytest.fixture
def config() -> ConfigSpace:
    return ConfigSpace(
        vendor=0x1002, device=1, revision=0, class_code=0x030000, subsystem=(0, 0),
        bars={0: BarSpec(1 << 28, is_64_bit=True, prefetchable=True)}, on_function_reset=lambda: None,
    )  # fmt: skip


def test_interrupt_kind_is_the_one_that_is_switched_on(config: ConfigSpace) -> None:
    assert [at for at, kind in capabilities(config) if kind == 5] == [CAP_MSI]
    assert vector_counts(config)[Irq.MSI] == 1 << (config.read(CAP_MSI + 2, 2) >> 1 & 7)
    assert enabled_kind(config) is Irq.INTX
    config.write(CAP_MSI + 2, 2, config.read(CAP_MSI + 2, 2) | 1)
    assert enabled_kind(config) is Irq.MSI
