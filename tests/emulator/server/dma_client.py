"""Memory that the card reaches by messages, on the client's side: for a test that steers it, and between two others."""

from __future__ import annotations

import array
import errno
import mmap
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

HEADER = struct.Struct("<HHIII")
DMA_MAP, DMA_UNMAP, DMA_READ, DMA_WRITE = 2, 3, 11, 12
REPLY, ERROR, NO_REPLY = 1, 0x20, 0x10


def receive_message(connection: socket.socket) -> tuple[int, int, int, int, bytes, list[int]]:
    """(id, command, flags, error, body, descriptors). Raises EOFError."""
    fds = array.array("i")
    data = b""
    while len(data) < HEADER.size:
        part, ancillary, _, _ = connection.recvmsg(HEADER.size - len(data), 1024)
        if not part:
            raise EOFError
        for _, _, raw in ancillary:
            fds.frombytes(raw)
        data += part
    number, command, size, flags, error = HEADER.unpack(data)
    body = b""
    while len(body) < size - HEADER.size:
        part = connection.recv(size - HEADER.size - len(body))
        if not part:
            raise EOFError
        body += part
    return number, command, flags, error, body, list(fds)


def send_message(
    connection: socket.socket, number: int, command: int, flags: int, body: bytes, fds: list[int], error: int = 0
) -> None:
    data = HEADER.pack(number, command, HEADER.size + len(body), flags, error) + body
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = connection.sendmsg([data], passed)
    connection.sendall(data[sent:])


class MemoryOwner:
    """Answers DMA_READ and DMA_WRITE on a socket from ``memory``: bus address → bytes."""

    def __init__(self) -> None:
        self.memory: dict[int, bytearray | mmap.mmap] = {}
        self.asked: list[tuple[int, int, int]] = []  # command, address, count
        self.header_only = False  # as QEMU answers writes
        self.failing: int | None = None  # errno
        self.silent = False

    def place(self, address: int, size: int) -> tuple[bytearray | mmap.mmap, int] | None:
        for first, contents in self.memory.items():
            if first <= address and address + size <= first + len(contents):
                return contents, address - first
        return None

    def answer(self, connection: socket.socket, number: int, command: int, body: bytes) -> None:
        address, count = struct.unpack_from("<QQ", body)
        self.asked.append((command, address, count))
        found = self.place(address, count)
        if self.silent:
            return
        if self.failing is not None or found is None:
            send_message(connection, number, command, REPLY | ERROR, b"", [], self.failing or errno.EFAULT)
            return
        contents, at = found
        if command == DMA_READ:
            data = bytes(contents[at : at + count])
            send_message(connection, number, command, REPLY, body[:16] + data, [])
        else:
            assert len(body) == 16 + count
            contents[at : at + count] = body[16:]
            reply = b"" if self.header_only else struct.pack("<QI", address, count)
            send_message(connection, number, command, REPLY, reply, [])


class Between:
    """Stands at a path of its own between a client and its server, and keeps the descriptors of DMA_MAP.

    With ``one_at_a_time`` it answers no message of the server while a request of the client waits for its reply, as a
    virtual machine does whose processor waits for a register.
    """

    def __init__(self, server: Path, path: Path, *, one_at_a_time: bool = False) -> None:
        self.path = path
        self.owner = MemoryOwner()
        self._one_at_a_time = one_at_a_time
        self._server = server
        self._held: list[tuple[int, int, bytes]] = []
        self._outstanding = 0
        self._lock = threading.Lock()
        self.held_back = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(str(self._server))
                self._sockets += [client, upstream]
                for target in (self._upwards, self._downwards):
                    threading.Thread(target=self._carry, args=(target, client, upstream), daemon=True).start()

    def _carry(
        self, step: Callable[[socket.socket, socket.socket], None], client: socket.socket, upstream: socket.socket
    ) -> None:
        with suppress(OSError, EOFError):
            while True:
                step(client, upstream)
        for each in (client, upstream):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _upwards(self, client: socket.socket, upstream: socket.socket) -> None:
        number, command, flags, error, body, fds = receive_message(client)
        if command == DMA_MAP and fds:
            _, _, offset, address, size = struct.unpack("<IIQQQ", body)
            self.owner.memory[address] = mmap.mmap(fds[0], size, offset=offset)
            os.close(fds.pop())
            body = body[:8] + bytes(8) + body[16:]
        elif command == DMA_UNMAP:
            self.owner.memory.pop(struct.unpack("<IIQQ", body)[2], None)
        with self._lock:
            self._outstanding += not flags & NO_REPLY
            send_message(upstream, number, command, flags, body, fds, error)
        for fd in fds:
            os.close(fd)

    def _downwards(self, client: socket.socket, upstream: socket.socket) -> None:
        number, command, flags, error, body, fds = receive_message(upstream)
        with self._lock:
            if flags & 0xF == 0:
                if self._one_at_a_time and self._outstanding:
                    self.held_back += 1
                    self._held.append((number, command, body))
                else:
                    self.owner.answer(upstream, number, command, body)
                return
            send_message(client, number, command, flags, body, fds, error)
            self._outstanding -= 1
            while self._held and not self._outstanding:
                self.owner.answer(upstream, *self._held.pop(0))
        for fd in fds:
            os.close(fd)
