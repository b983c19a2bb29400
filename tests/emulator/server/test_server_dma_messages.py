"""Memory that a client maps without a descriptor: the card asks for it by DMA_READ and DMA_WRITE."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from dma_client import (
    DMA_READ,
    DMA_WRITE,
    ERROR,
    REPLY,
    Between,
    MemoryOwner,
    receive_message,
    send_message,
)

import amdrv
from amdrv.emulator.arena import BusError
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.server import Server, client_bus
from amdrv.emulator.shell import Card

PAGE = 4096
ADDRESS = 0x7_0000_0000
REGISTERS, MEMSIZE = 5, 0x378C
SAXPY = Path(__file__).parents[2] / "runtime" / "data" / "saxpy.ll"


class Asker:
    """The card's accesses, each in a thread: they wait for the client."""

    def __init__(self, card) -> None:
        self.card = card
        self._threads = ThreadPoolExecutor(8)

    def read(self, address: int, size: int) -> Future[bytes]:
        return self._threads.submit(lambda: self.card.arena.load(self.card.arena.bus_index(address, size), size))

    def read_locked(self, address: int, size: int) -> Future[bytes]:
        """As a model does it: with the card's lock, more than once."""

        def ask() -> bytes:
            with self.card.lock, self.card.lock:
                return self.card.arena.load(self.card.arena.bus_index(address, size), size)

        return self._threads.submit(ask)

    def write(self, address: int, data: bytes) -> Future[None]:
        return self._threads.submit(
            lambda: self.card.arena.store(self.card.arena.bus_index(address, len(data)), data)
        )

    def close(self) -> None:
        self._threads.shutdown()


@pytest.fixture
def ask(card) -> Iterator[Asker]:
    asker = Asker(card)
    yield asker
    asker.close()


@pytest.fixture
def owner(client) -> MemoryOwner:
    owner = MemoryOwner()
    owner.memory[ADDRESS] = bytearray(8 * PAGE)
    client.map_memory(ADDRESS, 8 * PAGE)
    return owner


def serve(client, owner: MemoryOwner, count: int = 1) -> None:
    """Answer so many messages of the server."""
    for _ in range(count):
        number, command, flags, _, body, fds = receive_message(client.socket)
        assert (flags & 0xF, fds) == (0, [])
        owner.answer(client.socket, number, command, body)


def serve_until(client, owner: MemoryOwner, numbers: set[int], count: int) -> None:
    """Answer ``count`` messages of the server, and take the answers to the client's own, in any order."""
    while numbers or count:
        number, command, flags, error, body, _ = receive_message(client.socket)
        if flags & 0xF == REPLY:
            assert not error
            numbers.remove(number)
        else:
            owner.answer(client.socket, number, command, body)
            count -= 1


def test_access_of_the_card_is_a_message_of_exactly_its_bytes(client, owner, ask) -> None:
    owner.memory[ADDRESS][100:104] = b"mine"
    reading = ask.read(ADDRESS + 100, 4)
    serve(client, owner)
    assert reading.result(10) == b"mine"
    writing = ask.write(ADDRESS + PAGE - 3, b"across")
    serve(client, owner)
    writing.result(10)
    assert owner.memory[ADDRESS][PAGE - 3 : PAGE + 3] == b"across"
    assert owner.asked == [(DMA_READ, ADDRESS + 100, 4), (DMA_WRITE, ADDRESS + PAGE - 3, 6)]


def test_answer_to_a_write_may_be_a_header_alone(client, owner, ask) -> None:
    owner.header_only = True
    writing = ask.write(ADDRESS, b"data")
    serve(client, owner)
    writing.result(10)


def test_long_access_is_cut_to_what_the_client_takes_at_once(connect, card, ask) -> None:
    client = connect()
    client.negotiate({"max_data_xfer_size": 1000})
    owner = MemoryOwner()
    owner.memory[ADDRESS] = bytearray(range(250)) * 20
    client.map_memory(ADDRESS, PAGE)
    reading = ask.read(ADDRESS, 2500)
    serve(client, owner, 3)
    assert reading.result(10) == (bytes(range(250)) * 10)
    writing = ask.write(ADDRESS + 1, b"x" * 1001)
    serve(client, owner, 2)
    writing.result(10)
    assert [count for _, _, count in owner.asked] == [1000, 1000, 500, 1000, 1]


def test_refusal_of_the_client_is_a_bus_error_with_its_reason(client, owner, ask) -> None:
    owner.failing = errno.EFAULT
    reading = ask.read(ADDRESS, 4)
    serve(client, owner)
    with pytest.raises(BusError, match="Bad address"):
        reading.result(10)


@pytest.mark.parametrize("answer", [
    struct.pack("<QQ", ADDRESS, 4) + b"abc",
    struct.pack("<QQ", ADDRESS, 4) + b"abcde",
    struct.pack("<QQ", ADDRESS + 4, 4) + b"abcd",
    struct.pack("<QQ", ADDRESS, 8) + b"abcd",
    b"",
])  # fmt: skip
def test_answer_that_does_not_fit_is_a_bus_error(client, owner, ask, answer: bytes) -> None:
    reading = ask.read(ADDRESS, 4)
    number, command, *_ = receive_message(client.socket)
    send_message(client.socket, number, command, REPLY, answer, [])
    with pytest.raises(BusError, match="answered"):
        reading.result(10)
    assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", 64)


def test_client_that_does_not_answer_costs_a_bounded_time_once_and_its_late_answer_is_dropped(
    client, owner, ask, monkeypatch
) -> None:
    monkeypatch.setattr(client_bus, "ANSWER_S", 0.3)
    monkeypatch.setattr(client_bus, "DEAF_S", 0.01)
    started = time.monotonic()
    with pytest.raises(BusError, match=r"did not answer within 0\.3 s"):
        ask.read(ADDRESS, 4).result(10)
    with pytest.raises(BusError, match=r"0\.01 s"):
        ask.read(ADDRESS, 8).result(10)
    assert time.monotonic() - started < 5
    late = [receive_message(client.socket)[:5] for _ in range(2)]
    for number, command, _, _, body in late:
        owner.answer(client.socket, number, command, body)
    assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", 64)
    reading = ask.read(ADDRESS, 4)
    serve(client, owner)
    assert reading.result(10) == bytes(4)


def test_registers_are_answered_while_the_card_waits_for_memory(client, owner, ask) -> None:
    reading = ask.read_locked(ADDRESS, 4)
    request = receive_message(client.socket)
    for _ in range(3):
        assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", 64)
    owner.answer(client.socket, request[0], request[1], request[4])
    assert reading.result(10) == bytes(4)


@pytest.fixture
def greedy(card, monkeypatch) -> list[object]:
    """A card whose doorbells read and write the client's memory before the message is done with."""
    seen: list[object] = []

    def ring(offset: int, width: int, value: int) -> None:
        with card.lock:
            index = card.arena.bus_index(ADDRESS + 8 * value, 8)
            try:
                data = card.arena.load(index, 8)
                card.arena.store(index, data[::-1])
                seen.append((offset, value, data))
            except BusError as error:
                seen.append(str(error))

    monkeypatch.setattr(card, "write_doorbell", ring)
    return seen


def settled(seen: list[object], count: int) -> list[object]:
    """What doorbells have seen, once they have."""
    deadline = time.monotonic() + 10
    while len(seen) < count and time.monotonic() < deadline:
        time.sleep(0.001)
    return seen


def test_message_that_needs_the_clients_memory_is_finished_when_it_has_come(client, owner, greedy) -> None:
    owner.memory[ADDRESS][8:16] = b"01234567"
    asked = client.send(10, struct.pack("<QIII", 0x40, 2, 4, 1))
    serve_until(client, owner, {asked}, 2)
    assert settled(greedy, 1) == [(0x40, 1, b"01234567")]
    assert owner.memory[ADDRESS][8:16] == b"76543210"


def test_messages_are_answered_although_the_card_waits_for_the_client_in_each(client, owner, greedy) -> None:
    asked = [client.send(10, struct.pack("<QIII", 0x40 + 8 * n, 2, 4, n)) for n in range(3)]
    asked.append(client.send(9, struct.pack("<QII", MEMSIZE, REGISTERS, 4)))
    requests, answered = [], []
    while len(requests) < 3 or len(answered) < 4:
        message = receive_message(client.socket)
        (answered if message[2] & 0xF == REPLY else requests).append(message)
    assert [message[0] for message in answered] == asked
    assert answered[3][4][16:] == struct.pack("<I", 64)
    for request in reversed(requests):
        owner.answer(client.socket, request[0], request[1], request[4])
    serve_until(client, owner, set(), 3)
    assert sorted(value for _, value, _ in settled(greedy, 3)) == [0, 1, 2]


@pytest.mark.parametrize("flags", [0, 0x10], ids=["answered", "not answered"])
@pytest.mark.parametrize("message", [
    (9, struct.pack("<QII", 0x130, REGISTERS, 4)),
    (9, struct.pack("<QII", 0x130, REGISTERS, 8)),
    (9, struct.pack("<QII", 0, 7, 4)),
    (9, struct.pack("<QII", 0, 7, 64)),
    (10, struct.pack("<QIII", 0x130, REGISTERS, 4, 7)),
    (10, struct.pack("<QIIQ", 0x130, REGISTERS, 8, 7)),
    (15, struct.pack("<QQII8s", 1, 0x130, REGISTERS, 4, struct.pack("<II", 7, 0))),
], ids=["read", "long read", "config", "long config", "write", "long write", "batch"])  # fmt: skip
def test_answer_does_not_wait_for_memory_that_something_else_needs_which_has_fallen_due(
    client, owner, card, message: tuple[int, bytes], flags: int
) -> None:
    done: list[bytes] = []
    before = client.read(REGISTERS, 0x130)
    with card.lock:
        card.clock.after(0, lambda: done.append(card.arena.load(card.arena.bus_index(ADDRESS, 8), 8)))
        asked = client.send(*message, flags=flags)
    after = client.send(9, struct.pack("<QII", 0x130, REGISTERS, 4))
    requests, answered = [], {}
    while after not in answered:
        received = receive_message(client.socket)
        if received[2] & 0xF == REPLY:
            answered[received[0]] = received
        else:
            requests.append(received)
    assert set(answered) == {after} | (set() if flags else {asked})
    assert answered[after][4][16:] == (before if message[0] == 9 else struct.pack("<I", 7))
    assert not done
    while not requests:
        requests.append(receive_message(client.socket))
    (request,) = requests
    owner.answer(client.socket, request[0], request[1], request[4])
    assert settled(done, 1) == [bytes(8)]
    assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", 64)


def test_writes_of_one_message_are_all_made_around_their_waits(client, owner, greedy) -> None:
    writes = [(0x40, 2, 4, struct.pack("<II", n, 0)) for n in range(3)]
    body = struct.pack("<Q", 3) + b"".join(struct.pack("<QII8s", *write) for write in writes)
    for n in range(3):
        owner.memory[ADDRESS][8 * n] = n + 1
    asked = client.send(15, body)
    requests = []
    while len(requests) < 3:  # each write waits for the client, and the next is made all the same
        message = receive_message(client.socket)
        if message[2] & 0xF == REPLY:
            assert message[0] == asked
            asked = 0
        else:
            requests.append(message)
    assert {struct.unpack_from("<Q", request[4])[0] for request in requests} == {ADDRESS + 8 * n for n in range(3)}
    for request in requests:
        owner.answer(client.socket, request[0], request[1], request[4])
    serve_until(client, owner, {asked} - {0}, 3)
    assert sorted(value for _, value, _ in settled(greedy, 3)) == [0, 1, 2]


def test_memory_taken_back_ends_the_access_that_waits_for_it(client, owner, card, ask) -> None:
    waiting = ask.read_locked(ADDRESS + PAGE, 8)
    request = receive_message(client.socket)
    client.unmap_memory(ADDRESS, 8 * PAGE)
    with pytest.raises(BusError, match="taken the memory back"):
        waiting.result(10)
    owner.answer(client.socket, request[0], request[1], request[4])  # too late
    with pytest.raises(BusError):
        ask.read(ADDRESS, 4).result(10)
    assert card.arena.mapped() == []
    assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", 64)


def test_reset_ends_accesses_that_wait(client, owner, ask) -> None:
    waiting = [ask.read_locked(ADDRESS + 8 * n, 8) for n in range(3)]
    for _ in range(3):
        receive_message(client.socket)
    client.ask(13)
    for each in waiting:
        with pytest.raises(BusError, match="reset"):
            each.result(10)
    reading = ask.read(ADDRESS, 4)
    serve(client, owner)
    assert reading.result(10) == bytes(4)


def test_client_that_goes_ends_accesses_that_wait_for_it(client, owner, connect, card, greedy) -> None:
    client.send(10, struct.pack("<QIII", 0x40, 2, 4, 1), flags=0x10)
    receive_message(client.socket)
    client.close()
    following = connect()
    following.negotiate()
    assert following.read(REGISTERS, MEMSIZE) == struct.pack("<I", 64)
    assert len(greedy) == 1
    assert "gone" in str(greedy[0])
    assert card.arena.mapped() == []


def test_memory_may_be_a_file_that_is_read_and_written(client, card, refused) -> None:
    fd = os.memfd_create("file")
    os.ftruncate(fd, 4 * PAGE)
    client.map_memory(ADDRESS, 2 * PAGE, fd, offset=PAGE, flags=0xB)
    os.pwrite(fd, b"host", PAGE + 8)
    index = card.arena.bus_index(ADDRESS, 2 * PAGE)
    assert card.arena.load(index + 8, 4) == b"host"
    card.arena.store(index + PAGE, b"card")
    assert os.pread(fd, 4, 2 * PAGE) == b"card"
    os.ftruncate(fd, PAGE)
    with pytest.raises(BusError, match="ends there"):
        card.arena.load(index, 4)
    os.close(fd)
    for flags in (7, 0xB):  # neither works without a descriptor
        with refused(errno.EINVAL):
            client.map_memory(0, PAGE, flags=flags)


def test_rights_of_a_map_hold(client, card) -> None:
    client.map_memory(0x1000, PAGE, flags=1)
    client.map_memory(0x9000, PAGE, flags=2)
    assert (card.arena.rights(0x1000), card.arena.rights(0x9000)) == ((True, False), (False, True))


@pytest.fixture
def twin(connect: Callable[[], object]) -> Iterator[tuple[object, socket.socket]]:
    """A client with a second socket for the server's messages."""
    client = connect()
    text = json.dumps({"capabilities": {"twin_socket": {"supported": True}, "max_msg_fds": 8}}).encode()
    client.send(1, struct.pack("<HH", 0, 0) + text + b"\0")
    _, _, payload, fds = client.receive()
    capability = json.loads(payload[4:-1])["capabilities"]["twin_socket"]
    assert capability == {"supported": True, "fd_index": 0}
    second = socket.socket(fileno=fds[0])
    second.settimeout(20)
    yield client, second
    second.close()


def test_twin_socket_carries_the_servers_messages_and_nothing_else_does(twin, ask) -> None:
    client, second = twin
    owner = MemoryOwner()
    owner.memory[ADDRESS] = bytearray(PAGE)
    client.map_memory(ADDRESS, PAGE)
    waiting = ask.write(ADDRESS, b"by the other way")
    number, command, flags, _, body, _ = receive_message(second)
    assert (command, flags) == (DMA_WRITE, 0)
    assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", 64)
    owner.answer(second, number, command, body)
    waiting.result(10)
    assert owner.memory[ADDRESS][:16] == b"by the other way"


def test_message_waits_for_memory_through_the_twin_socket(twin, greedy) -> None:
    client, second = twin
    owner = MemoryOwner()
    owner.memory[ADDRESS] = bytearray(range(256))
    client.map_memory(ADDRESS, PAGE)
    asked = client.send(10, struct.pack("<QIII", 0x40, 2, 4, 1))
    for _ in range(2):
        number, command, _, _, body, _ = receive_message(second)
        owner.answer(second, number, command, body)
    assert client.receive()[0] == asked
    assert settled(greedy, 1)
    assert owner.memory[ADDRESS][8:16] == bytes(range(15, 7, -1))


def test_twin_socket_that_the_client_closes_ends_what_waits_and_the_card_goes_on(twin, ask) -> None:
    client, second = twin
    client.map_memory(ADDRESS, PAGE)
    waiting = ask.read(ADDRESS, 4)
    receive_message(second)
    second.shutdown(socket.SHUT_RDWR)
    with pytest.raises(BusError, match="closed"):
        waiting.result(10)
    assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", 64)


def test_error_answer_may_give_no_reason(client, owner, ask) -> None:
    waiting = ask.read(ADDRESS, 4)
    request = receive_message(client.socket)
    send_message(client.socket, request[0], request[1], REPLY | ERROR, b"", [])
    with pytest.raises(BusError, match="no reason"):
        waiting.result(10)


@pytest.mark.parametrize("one_at_a_time", [False, True])
@pytest.mark.parametrize("interpreted", [False, True])
def test_kernel_runs_from_queues_and_arguments_that_only_messages_reach(
    tmp_path: Path, one_at_a_time: bool, interpreted: bool
) -> None:
    card = Card("emu:served", CHIPS["gfx1100"], vram_bytes=256 << 20, shared_vram=True, interpreted=interpreted)
    server = Server(card, tmp_path / "card")
    server.listen()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    between = Between(server.path, tmp_path / "between", one_at_a_time=one_at_a_time)
    try:
        code = amdrv.compile_llvm(SAXPY.read_text())
        with amdrv.open(f"emu:{between.path}") as dev:
            y, x = dev.array(np.ones(64, np.float32)), dev.array(np.full(64, 2, np.float32))
            dev.load(code)["saxpy"].launch(1, 64, (y, x, 3.0, 64)).wait(10)
            assert (y.numpy(np.float32) == 7).all()
    finally:
        between.close()
        server.close()
    assert {command for command, _, _ in between.owner.asked} == {DMA_READ, DMA_WRITE}
    assert not one_at_a_time or between.held_back
