"""The client's end of a vfio-user socket: requests, replies, and what passes beside them.

One request at a time waits for its reply. Requests that no reply is wanted for go out at once and are carried out in
order, before any later request.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from amdrv.errors import DeviceBusy, DeviceLost, NotFound, Refused, Timeout, Unsupported
from amdrv.facts.vfio_user import (
    DATA_BYTES_MAX,
    DESCRIPTORS_MAX,
    ERROR,
    HEADER,
    HOLDER_KEY,
    MAJOR,
    MINOR,
    NO_REPLY,
    PAGE_BYTES,
    REGION_ACCESS,
    TYPE_COMMAND,
    TYPE_MASK,
    TYPE_REPLY,
    VERSION,
    Command,
    reason,
)

ANSWER_S = 30  # for a server to answer; its longest work is a reset
CHUNK_BYTES = 1 << 16
ANCILLARY_BYTES = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
SOMEBODY = "another client"
DWORD_BYTES = 4
REGION_READ = int(Command.REGION_READ)  # an int: packing an enumeration's member costs more
READ_DWORD = struct.Struct("<HHIIIQII")  # header, offset, region, count
DWORD_READ = struct.Struct("<HHIIIQIII")  # the same and the dword


class Link:
    """A connection to the server of ``device`` at ``path``, with the version agreed upon.

    Raises NotFound where no server is, DeviceBusy naming the holder, Unsupported for a server of another protocol,
    Refused. Every later call raises DeviceLost once the server is gone.
    """

    def __init__(self, device: str, path: Path) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._sequence = 0
        self._received = bytearray()
        self._inbox = memoryview(bytearray(CHUNK_BYTES))
        self._broken = ""
        self._socket = _connect(device, path)
        try:
            self.data_bytes_max = self._negotiate()
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether this end has been closed."""
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Hang up: the server takes back what this client had. Safe to call twice."""
        self._socket.close()

    def request(self, command: Command, body: bytes, descriptors: Sequence[int] = ()) -> bytes:
        """Send a request and return the payload of its reply, which brings no descriptors with it.

        Raises Rejection with the server's errno, DeviceLost, Timeout.
        """
        return self._exchange(command, body, descriptors, self._quick_reply)[0]

    def read_dword(self, region: int, offset: int) -> int:
        """A dword of a region: what most requests are, without any detour. Raises as ``request``."""
        with self._lock:
            number = self._sequence = (self._sequence + 1) & 0xFFFF
            request = READ_DWORD.pack(number, REGION_READ, READ_DWORD.size, 0, 0, offset, region, DWORD_BYTES)
            try:
                if not self._received and not self._broken:
                    self._socket.sendall(request)
                    count = self._socket.recv_into(self._inbox)
                    answer = DWORD_READ.unpack_from(self._inbox)
                    whole = (number, REGION_READ, DWORD_READ.size, TYPE_REPLY, 0, offset, region, DWORD_BYTES)
                    if count == DWORD_READ.size and answer[:-1] == whole:
                        return int(answer[-1])
                    if not count:
                        raise self._lost("its server hung up")
                    self._received += self._inbox[:count]
                else:
                    self._send(request, ())
                payload, descriptors = self._reply(number, Command.REGION_READ)
            except (TimeoutError, BlockingIOError) as error:
                raise self._silent(Command.REGION_READ) from error
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error
        for descriptor in descriptors:
            os.close(descriptor)
        if len(payload) != REGION_ACCESS.size + DWORD_BYTES:
            raise DeviceLost(f"{self._device}: its server answered a read of {DWORD_BYTES} bytes with {len(payload)}")
        return int.from_bytes(payload[REGION_ACCESS.size :], "little")

    def exchange(self, command: Command, body: bytes, descriptors: Sequence[int] = ()) -> tuple[bytes, list[int]]:
        """As ``request``; the second part are the descriptors that came with the reply, the caller's to close."""
        return self._exchange(command, body, descriptors, self._reply)

    def _exchange(
        self,
        command: Command,
        body: bytes,
        descriptors: Sequence[int],
        reply: Callable[[int, Command], tuple[bytes, list[int]]],
    ) -> tuple[bytes, list[int]]:
        with self._lock:
            number = self._sequence = (self._sequence + 1) & 0xFFFF
            try:
                self._send(HEADER.pack(number, command, HEADER.size + len(body), 0, 0) + body, descriptors)
                return reply(number, command)
            except TimeoutError as error:
                raise self._silent(command) from error
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error

    def post(self, command: Command, body: bytes) -> None:
        """Send a request that no reply is wanted for. Raises DeviceLost."""
        with self._lock:
            self._sequence = (self._sequence + 1) & 0xFFFF
            try:
                self._send(HEADER.pack(self._sequence, command, HEADER.size + len(body), NO_REPLY, 0) + body, ())
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error

    # -- both directions ----------------------------------------------------------------------------------------------

    def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        if self._broken:
            raise OSError(errno.EPIPE, self._broken)
        try:
            if descriptors:
                passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                sent = self._socket.sendmsg([data], passed)
                data = data[sent:]
            if data:
                self._socket.sendall(data)
        except BlockingIOError as error:  # SO_SNDTIMEO ran out
            raise TimeoutError from error

    def _quick_reply(self, number: int, command: Command) -> tuple[bytes, list[int]]:
        """A reply that comes alone and in one piece, as nearly all do."""
        if not self._received:
            try:
                count = self._socket.recv_into(self._inbox)
            except BlockingIOError as error:  # SO_RCVTIMEO ran out
                raise TimeoutError from error
            if not count:
                raise self._lost("its server hung up")
            if count >= HEADER.size and HEADER.unpack_from(self._inbox) == (number, command, count, TYPE_REPLY, 0):
                return bytes(self._inbox[HEADER.size : count]), []
            self._received += self._inbox[:count]
        return self._reply(number, command)

    def _reply(self, number: int, command: Command) -> tuple[bytes, list[int]]:
        descriptors: list[int] = []
        try:
            while True:
                header, payload = self._message(descriptors)
                identity, kind, _, flags, problem = header
                if flags & TYPE_MASK == TYPE_COMMAND:  # a server that wants memory; all of ours came with descriptors
                    refusal = HEADER.pack(identity, kind, HEADER.size, TYPE_REPLY | ERROR, errno.ENOTSUP)
                    self._send(refusal, ())
                    continue
                if identity != number:  # to a request that was given up, as by Ctrl-C
                    for descriptor in descriptors:
                        os.close(descriptor)
                    descriptors.clear()
                    continue
                if kind != command:
                    raise self._lost(f"its server answered {kind} to {command}")
                if flags & ERROR and problem == errno.EIO:
                    raise DeviceLost(f"{self._device}: the card failed at {command.name}; see its server's log")
                if flags & ERROR:
                    text = f"{self._device}: its server refused {command.name}: {reason(problem)}"
                    raise Rejection(text, problem)
                taken, descriptors = descriptors, []
                return payload, taken
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _message(self, descriptors: list[int]) -> tuple[tuple[int, int, int, int, int], bytes]:
        """The next whole message: its header's fields and its payload."""
        self._await(HEADER.size, descriptors)
        header = HEADER.unpack_from(self._received)
        size = header[2]
        if not HEADER.size <= size <= HEADER.size + 64 + 2 * DATA_BYTES_MAX:
            raise self._lost(f"its server sent a message of {size} bytes")
        self._await(size, descriptors)
        payload = bytes(self._received[HEADER.size : size])
        del self._received[:size]
        return header, payload

    def _await(self, size: int, descriptors: list[int]) -> None:
        while len(self._received) < size:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(CHUNK_BYTES, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError as error:  # SO_RCVTIMEO ran out
                raise TimeoutError from error
            for level, kind, raw in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    got = array.array("i")
                    got.frombytes(raw[: len(raw) - len(raw) % got.itemsize])
                    descriptors.extend(got)
            if not data:
                raise self._lost("its server hung up")
            self._received += data

    def _silent(self, command: Command) -> Timeout:
        self._broken = "its server did not answer in time"
        return Timeout(f"the answer to {command.name}", ANSWER_S, hint=f"{self._device} may hang")

    def _lost(self, why: str) -> DeviceLost:
        self._broken = self._broken or why
        return DeviceLost(f"{self._device}: {why}")

    # -- the first message --------------------------------------------------------------------------------------------

    def _negotiate(self) -> int:
        """Agree on a version; the most bytes of one access."""
        wanted = {
            "max_msg_fds": DESCRIPTORS_MAX,
            "max_data_xfer_size": DATA_BYTES_MAX,
            "pgsizes": PAGE_BYTES,
            HOLDER_KEY: {},
        }
        text = json.dumps({"capabilities": wanted}).encode("ascii")
        try:
            payload = self.request(Command.VERSION, VERSION.pack(MAJOR, MINOR) + text + b"\0")
        except Rejection as error:
            if error.number == errno.EBUSY:
                raise DeviceBusy(self._device, SOMEBODY) from error
            raise
        if len(payload) < VERSION.size or VERSION.unpack_from(payload)[0] != MAJOR:
            raise Unsupported(f"{self._device}: its server speaks another version of the vfio-user protocol")
        answer = _capabilities(payload[VERSION.size :])
        told = answer.get(HOLDER_KEY)
        if isinstance(told, dict):
            raise _busy(self._device, told)
        most = answer.get("max_data_xfer_size", DATA_BYTES_MAX)
        return most if isinstance(most, int) and 0 < most <= DATA_BYTES_MAX else DATA_BYTES_MAX


class Rejection(Refused):
    """The server answered a request with an errno."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class SocketBusy(DeviceBusy):
    """The card behind a socket is in use; ``ids`` are its PCI ids as its server gives them, () when it does not."""

    def __init__(self, device: str, holder: str, ids: tuple[int, ...]) -> None:
        super().__init__(device, holder)
        self.ids = ids


def _busy(device: str, told: dict[str, object]) -> SocketBusy:
    holder, ids = told.get("holder"), told.get("ids")
    numbers = tuple(part for part in ids if isinstance(part, int)) if isinstance(ids, list) else ()
    return SocketBusy(device, holder if isinstance(holder, str) else SOMEBODY, numbers)


def _capabilities(data: bytes) -> dict[str, object]:
    try:
        document: object = json.loads(data.rstrip(b"\0").decode("utf-8")) if data.rstrip(b"\0") else {}
    except (ValueError, RecursionError):
        return {}
    found = document.get("capabilities") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _connect(device: str, path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # unlike settimeout(), without a system call each
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", ANSWER_S, 0))
    try:
        connection.connect(os.fspath(path))
    except OSError as error:
        connection.close()
        hint = f"start one: amdrv emulate --socket {path}"
        try:
            is_socket = stat.S_ISSOCK(path.stat().st_mode)
        except OSError:
            raise NotFound(f"{device}: there is no {path}; {hint}") from error
        if not is_socket:
            raise Refused(f"{device}: {path} is not a socket") from error
        if isinstance(error, ConnectionRefusedError):
            raise NotFound(f"{device}: nobody listens at {path}; {hint}") from error
        raise Refused(f"{device}: cannot connect to {path}: {error.strerror or error}") from error
    return connection
