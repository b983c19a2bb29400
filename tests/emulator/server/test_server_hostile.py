"""Clients that break the protocol, on purpose or not, get an error or lose the connection, and the card goes on."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from amdrv.emulator.arena import BusError
from amdrv.emulator.server import client_bus

REGISTERS, CONFIG, VRAM = 5, 7, 0
MEMSIZE = 0x378C
ANSWER = struct.pack("<I", 64)
HEADER = struct.Struct("<HHIII")
COMMANDS = (*range(1, 20), 99, 0xFFFF)


def is_alive(client) -> bool:
    return client.read(REGISTERS, MEMSIZE) == ANSWER


@pytest.mark.parametrize("size", [0, 1, 15])
def test_message_shorter_than_its_header_is_refused(client, refused, size: int) -> None:
    client.send(8, size=size)
    with refused(errno.EINVAL):
        client.receive()
    assert is_alive(client)


@pytest.mark.parametrize("size", [1 << 22, 0xFFFF_FFFF])
def test_message_that_is_too_long_ends_the_connection(client, connect, refused, size: int) -> None:
    client.send(10, size=size)
    with refused(errno.EINVAL):
        client.receive()
    with pytest.raises(EOFError):
        client.receive()
    following = connect()
    following.negotiate()
    assert is_alive(following)


@pytest.mark.parametrize("command", [0, 11, 12, 14, 19, 99, 0xFFFF])
def test_unknown_command_is_refused(client, refused, command: int) -> None:
    with refused(errno.EINVAL):
        client.ask(command, bytes(40))
    assert is_alive(client)


def test_reply_that_nobody_waits_for_is_dropped_without_an_answer(client) -> None:
    for command in (4, 11, 12):
        client.send(command, struct.pack("<IIII", 16, 0, 0, 0), flags=1)
    assert is_alive(client)


def test_message_that_is_neither_command_nor_reply_is_refused(client, refused) -> None:
    with refused(errno.EINVAL):
        client.ask(4, struct.pack("<IIII", 16, 0, 0, 0), flags=2)
    assert is_alive(client)


@pytest.mark.parametrize("command", [2, 3, 4, 5, 7, 8, 9, 10, 15])
@pytest.mark.parametrize("length", [0, 1, 4, 15])
def test_truncated_request_is_refused(client, refused, command: int, length: int) -> None:
    with refused(errno.EINVAL):
        client.ask(command, bytes(length))
    assert is_alive(client)


@pytest.mark.parametrize("body", [
    struct.pack("<QII", 0x40, REGISTERS, 4),  # no data
    struct.pack("<QII", 0x40, REGISTERS, 4) + bytes(3),
    struct.pack("<QII", 0x40, REGISTERS, 4) + bytes(5),
])  # fmt: skip
def test_write_whose_data_do_not_fit_is_refused(client, refused, body: bytes) -> None:
    with refused(errno.EINVAL):
        client.ask(10, body)


@pytest.mark.parametrize("body", [
    struct.pack("<Q", 1 << 60),
    struct.pack("<Q", (1 << 64) - 1) + bytes(24),
    struct.pack("<QQII8s", 1, 0x40, REGISTERS, 9, bytes(8)),
    struct.pack("<QQII8s", 1, 1 << 40, REGISTERS, 4, bytes(8)),
])  # fmt: skip
def test_malformed_batch_of_writes_is_refused(client, refused, body: bytes) -> None:
    with refused(errno.EINVAL):
        client.ask(15, body)


def test_message_may_come_byte_by_byte(client) -> None:
    message = HEADER.pack(7, 9, 32, 0, 0) + struct.pack("<QII", MEMSIZE, REGISTERS, 4)
    for byte in message:
        client.socket.sendall(bytes((byte,)))
        time.sleep(0.001)
    assert client.receive()[2][16:] == ANSWER


def test_descriptors_may_come_with_the_rest_of_a_message(client) -> None:
    event = os.eventfd(0)
    body = struct.pack("<IIIII", 20, 0x24, 1, 0, 1)
    client.socket.sendall(HEADER.pack(7, 8, 36, 0, 0))
    time.sleep(0.01)
    socket.send_fds(client.socket, [body], [event])
    client.receive()
    client.ask(8, struct.pack("<IIIII", 20, 0x21, 1, 0, 1))
    assert os.eventfd_read(event) == 1
    os.close(event)


def test_connection_that_ends_inside_a_message_costs_nothing(connect) -> None:
    for cut in (1, 15, 16, 17, 30):
        client = connect()
        client.negotiate()
        client.socket.sendall((HEADER.pack(7, 10, 36, 0, 0) + bytes(20))[:cut])
        client.close()
    client = connect()
    client.negotiate()
    assert is_alive(client)


def test_too_many_descriptors_end_the_connection_and_are_closed(client, connect) -> None:
    held = len(os.listdir("/proc/self/fd"))
    body = struct.pack("<IIQQQ", 32, 3, 0, 0, 4096)
    null = os.open("/dev/null", os.O_RDONLY)
    client.send(2, body, [null] * 100)
    with pytest.raises(EOFError):
        client.receive()
    os.close(null)
    following = connect()
    following.negotiate()
    client.close()
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > held and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= held
    assert is_alive(following)


def test_silent_connections_keep_nobody_from_the_card(connect) -> None:
    silent = [connect() for _ in range(80)]
    client = connect()
    client.negotiate()
    assert is_alive(client)
    assert silent


def test_client_that_takes_no_answers_blocks_itself_only(client, connect) -> None:
    request = HEADER.pack(7, 9, 32, 0, 0) + struct.pack("<QII", 0, VRAM, 1 << 16)
    client.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        for _ in range(100_000):
            client.socket.sendall(request)
    client.close()
    following = connect()
    following.negotiate()
    assert is_alive(following)


def test_event_descriptor_that_blocks_does_not_stop_the_card(client, card) -> None:
    event = os.eventfd(0)
    os.eventfd_write(event, 0xFFFF_FFFF_FFFF_FFFE)  # the next write to it blocks
    client.ask(8, struct.pack("<IIIII", 20, 0x24, 1, 0, 1), (event,))
    control = int.from_bytes(client.read(CONFIG, 0xA2, 2), "little")
    client.write(CONFIG, 0xA2, (control | 1).to_bytes(2, "little"))
    client.write(CONFIG, 4, b"\x06\x00")
    for _ in range(100):
        card.raise_interrupt()
    assert is_alive(client)
    client.ask(8, struct.pack("<IIIII", 20, 0x21, 1, 0, 0))
    os.eventfd_read(event)
    os.close(event)


def test_client_cannot_send_the_card_into_a_far_future(client, refused) -> None:
    for offset in (0x08, 0x10):  # sleep, relax
        with refused(errno.EINVAL):
            client.write(9, offset, b"\xff" * 8)
    for offset, data in ((0x08, bytes(4)), (0x10, bytes(9)), (0x800, bytes(8)), (0x100, bytes(257))):
        with refused(errno.EINVAL):
            client.write(9, offset, data)
    for offset, size in ((0, 4), (8, 8), (0x20, 8), (0x100, 16)):
        with refused(errno.EINVAL):
            client.read(9, offset, size)
    assert is_alive(client)


def test_client_cannot_shorten_the_cards_memory(client) -> None:
    client.send(5, struct.pack("<IIIIQQ", 256, 0, VRAM, 0, 0, 0))
    (fd,) = client.receive()[3]
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


def test_sealable_memory_is_kept_from_shrinking(client) -> None:
    fd = os.memfd_create("client", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    client.map_memory(0, 4096, fd)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


SHORTENED = """
import os
from amdrv.emulator.arena import Arena
from amdrv.emulator.server.guard import Guard
arena = Arena(1 << 20, 1 << 30)
guard = Guard(arena)
fd = os.memfd_create("client")
os.ftruncate(fd, 1 << 16)
arena.map_file(0, 1 << 16, fd, 0, writable=True)
os.ftruncate(fd, 0)
view = arena.view(arena.bus_index(0x8000, 4), 4)
assert bytes(view) == bytes(4)
view[:] = b"goes"
assert bytes(view) == b"goes"
print("alive", flush=True)
guard.release()
arena.bytes[arena.bus_index(0x2000, 1)]
print("unguarded")
"""


def test_file_that_is_shortened_later_does_not_end_the_process(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORTENED], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "alive\n", done.stderr  # and dies where nothing guards it


def test_noise_neither_ends_the_server_nor_stays_with_it(connect, server, card) -> None:
    noise = random.Random(20)
    for _ in range(150):
        client = connect()
        client.negotiate()
        client.socket.settimeout(2)
        try:
            for _ in range(noise.randrange(1, 6)):
                client.socket.sendall(_message(noise))
            client.socket.shutdown(socket.SHUT_WR)
            while client.socket.recv(1 << 16):
                continue
        except OSError:
            continue  # dropped: as good as an answer
        finally:
            client.close()
    client = connect()
    client.negotiate()
    client.ask(13)
    assert is_alive(client)
    assert card.arena.mapped() == []


def test_nonsense_in_answer_to_the_card_costs_nobody_anything(connect, card, monkeypatch) -> None:
    monkeypatch.setattr(client_bus, "ANSWER_S", 0.05)
    monkeypatch.setattr(client_bus, "DEAF_S", 0.01)
    noise = random.Random(21)
    for _ in range(20):
        client = connect()
        client.negotiate()
        client.map_memory(0, 1 << 20)
        client.socket.settimeout(2)
        reader = threading.Thread(target=_read_memory, args=(card, noise.randrange(1 << 19)))
        reader.start()
        try:
            for number in range(noise.randrange(1, 12)):
                body = noise.choice((b"", noise.randbytes(16), struct.pack("<QQ", 0, 64) + noise.randbytes(64)))
                flags = noise.choice((1, 1, 0x21, 0x31, 0))
                head = HEADER.pack(number, noise.choice((11, 12, 9)), 16 + len(body), flags, noise.randrange(1 << 32))
                client.socket.sendall(head + body)
                if noise.random() < 0.3:
                    client.socket.recv(1 << 16)
        except OSError:
            continue
        finally:
            client.close()
            reader.join(10)
            assert not reader.is_alive()
    client = connect()
    client.negotiate()
    assert is_alive(client)
    assert card.arena.mapped() == []


def _read_memory(card, address: int) -> None:
    for _ in range(4):
        with suppress(BusError), card.lock:
            card.arena.load(card.arena.bus_index(address, 64), 64)


def _message(noise: random.Random) -> bytes:
    """Half of the messages are noise altogether, half of them have a sound header."""
    body = noise.randbytes(noise.choice((0, 4, 16, 20, 24, 32, 100)))
    if noise.random() < 0.5 and len(body) >= 16:  # small numbers get further
        body = b"".join(struct.pack("<I", noise.choice((0, 1, 4, 5, 7, 9, 0x24, 4096))) for _ in range(len(body) // 4))
    if noise.random() < 0.2:
        return noise.randbytes(16) + body
    flags = noise.choice((0, 0, 0, 0x10, 1, 0x20))
    return HEADER.pack(noise.randrange(1 << 16), noise.choice(COMMANDS), 16 + len(body), flags, 0) + body
