"""A served card, and a client that says exactly what a test wants it to say."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.server import Server
from amdrv.emulator.shell import Card

VRAM_BYTES = 64 << 20
HEADER = struct.Struct("<HHIII")
QEMU_CAPABILITIES = {  # what QEMU 11.1.3 sends
    "pgsizes": 4096,
    "max_msg_fds": 16,
    "max_dma_maps": 65535,
    "max_data_xfer_size": 1048576,
    "migration": {"max_bitmap_size": 268435456, "pgsize": 4096},
    "write_multiple": True,
}


class Refusal(Exception):
    """The server answered with an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class RawClient:
    """Messages of the vfio-user protocol, well-formed or not."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        self.number = 0

    def close(self) -> None:
        self.socket.close()

    def send(
        self, command: int, body: bytes = b"", fds: Sequence[int] = (), *, flags: int = 0, size: int | None = None
    ) -> int:
        self.number += 1
        whole = HEADER.size + len(body) if size is None else size
        data = HEADER.pack(self.number, command, whole, flags, 0) + body
        if fds:
            self.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        else:
            self.socket.sendall(data)
        return self.number

    def receive(self) -> tuple[int, int, bytes, list[int]]:
        """Message id, command, payload and descriptors of a reply. Raises Refusal, EOFError."""
        try:
            data, ancillary, _, _ = self.socket.recvmsg(HEADER.size, 1024)
        except ConnectionResetError as error:  # dropped with something unread
            raise EOFError from error
        while 0 < len(data) < HEADER.size:
            data += self.socket.recv(HEADER.size - len(data))
        if not data:
            raise EOFError
        fds = array.array("i")
        for _, _, raw in ancillary:
            fds.frombytes(raw)
        number, command, size, flags, error = HEADER.unpack(data)
        payload = b""
        while len(payload) < size - HEADER.size:
            payload += self.socket.recv(size - HEADER.size - len(payload))
        assert flags & 0xF == 1, "not a reply"
        if flags & 0x20:
            assert size == HEADER.size, "an error reply is a header alone"
            raise Refusal(error)
        return number, command, payload, list(fds)

    def ask(self, command: int, body: bytes = b"", fds: Sequence[int] = (), *, flags: int = 0) -> bytes:
        number = self.send(command, body, fds, flags=flags)
        answered, kind, payload, _ = self.receive()
        assert (answered, kind) == (number, command)
        return payload

    def negotiate(self, capabilities: dict[str, object] | None = None) -> dict[str, object]:
        text = json.dumps({"capabilities": QEMU_CAPABILITIES if capabilities is None else capabilities}).encode()
        payload = self.ask(1, struct.pack("<HH", 0, 0) + text + b"\0")
        assert payload[:4] == bytes(4)
        assert payload.endswith(b"\0")
        answer: dict[str, object] = json.loads(payload[4:-1])["capabilities"]
        return answer

    def read(self, region: int, offset: int, size: int = 4) -> bytes:
        request = struct.pack("<QII", offset, region, size)
        payload = self.ask(9, request)
        assert payload[:16] == request
        assert len(payload) == 16 + size
        return payload[16:]

    def write(self, region: int, offset: int, data: bytes) -> None:
        request = struct.pack("<QII", offset, region, len(data))
        assert self.ask(10, request + data) == request

    def map_memory(self, address: int, size: int, fd: int | None = None, offset: int = 0, flags: int = 3) -> None:
        body = struct.pack("<IIQQQ", 32, flags, offset, address, size)
        assert self.ask(2, body, () if fd is None else (fd,)) == b""

    def unmap_memory(self, address: int, size: int, flags: int = 0) -> None:
        self.ask(3, struct.pack("<IIQQ", 24, flags, address, size))


@pytest.fixture
def card() -> Card:
    return Card("emu:served", CHIPS["gfx1100"], vram_bytes=VRAM_BYTES, shared_vram=True)


@pytest.fixture
def server(card: Card, tmp_path: Path) -> Iterator[Server]:
    server = Server(card, tmp_path / "card")
    server.listen()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[], RawClient]]:
    """A new connection that has said nothing yet."""
    clients: list[RawClient] = []

    def make() -> RawClient:
        clients.append(RawClient(server.path))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[[], RawClient]) -> RawClient:
    """The client that has the card."""
    client = connect()
    client.negotiate()
    return client


@pytest.fixture
def refused() -> Callable[[int], object]:
    """A context in which the server answers with this errno."""
    return lambda number: pytest.raises(Refusal, check=lambda error: error.number == number)
