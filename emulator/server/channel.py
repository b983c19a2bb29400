"""Messages over a client's socket: taken apart with their file descriptors, and answered.

A stream socket hands out the descriptors of a message with the bytes that they were sent with, and a client may have
sent several messages before the first is read. A read therefore never reaches beyond the shortest message that can
carry any, and what it brings belongs to the last message that begins in it.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from amdrv.facts.vfio_user import (
    DATA_BYTES_MAX,
    DESCRIPTORS_MAX,
    ERROR,
    HEADER,
    NO_REPLY,
    REGION_ACCESS,
    SET_IRQS,
    TYPE_REPLY,
    Command,
)

Access = tuple[int, int, int, int, int | None]  # message id, flags, offset, region, dword of a write

SHORTEST_WITH_DESCRIPTORS = HEADER.size + SET_IRQS.size  # as long as a write of one register, the most frequent message
MESSAGE_BYTES_MAX = HEADER.size + 64 + 2 * DATA_BYTES_MAX
CUT_SHORT = int(socket.MSG_CTRUNC)  # an int: an enumeration's operators cost more than the system call
DWORD_BYTES = 4
READ_BYTES, WRITE_BYTES = HEADER.size + REGION_ACCESS.size, HEADER.size + REGION_ACCESS.size + DWORD_BYTES
ACCESS = struct.Struct("<HHIIIQIII")  # header, offset, region, count, and the dword of a write
READ, WRITE = int(Command.REGION_READ), int(Command.REGION_WRITE)
WRITE_REPLY = struct.Struct("<HHIIIQII")
ANCILLARY_BYTES = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)


class Closed(Exception):
    """The client is gone, or has to go: nothing more can be read or written."""


class Rejected(Exception):
    """A message that cannot be obeyed: it is answered with ``number``, an errno."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


@dataclass(slots=True)
class Message:
    """One message from the client, good until the next is received, but for ``Channel.keep_message``.

    Whoever answers it closes what nobody took.
    """

    id: int
    command: int
    flags: int
    error: int
    body: memoryview
    descriptors: list[int] = field(default_factory=list)

    def take_descriptors(self) -> list[int]:
        """The descriptors, which are the caller's to close from now on."""
        taken, self.descriptors = self.descriptors, []
        return taken

    def close(self) -> None:
        """Close what nobody took."""
        if self.descriptors:
            for descriptor in self.take_descriptors():
                os.close(descriptor)


class Channel:
    """One connected socket. One thread at a time reads; any thread sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()
        self._head = memoryview(bytearray(SHORTEST_WITH_DESCRIPTORS))
        self._kept = 0  # bytes of the next message that came with the one before
        self._kept_descriptors: list[int] = []

    def receive_access(self) -> Access | None:
        """The next message, if it is the access to one dword of a region, and came in one piece as nearly all do.

        None for any other, which ``receive`` returns then. Raises Closed.
        """
        if self._kept:
            return None
        descriptors: list[int] = []
        self._kept_descriptors = descriptors  # closed with the channel, should this fail
        have = self._read_head(0, descriptors)
        number, command, size, flags, _, offset, region, count, value = ACCESS.unpack_from(self._head)
        if size == have and count == DWORD_BYTES and not flags & ~NO_REPLY and not descriptors:
            if have == READ_BYTES and command == READ:
                return number, flags, offset, region, None
            if have == WRITE_BYTES and command == WRITE:
                return number, flags, offset, region, value
        self._kept = have
        return None

    def reply_access(self, access: Access, value: int) -> None:
        """Answer an access: ``value`` is what a read gave. Raises Closed."""
        number, _, offset, region, written = access
        if written is None:
            self.send(ACCESS.pack(number, READ, WRITE_BYTES, TYPE_REPLY, 0, offset, region, DWORD_BYTES, value))
        else:
            self.send(WRITE_REPLY.pack(number, WRITE, READ_BYTES, TYPE_REPLY, 0, offset, region, DWORD_BYTES))

    def refuse_access(self, access: Access, number: int) -> None:
        """Answer an access with an errno. Raises Closed."""
        command = READ if access[4] is None else WRITE
        self.send(HEADER.pack(access[0], command, HEADER.size, TYPE_REPLY | ERROR, number))

    def receive(self) -> Message:
        """The next message. Raises Closed at the end of the stream and for a size that no message can have."""
        while (message := self._receive()) is None:
            continue
        return message

    def _receive(self) -> Message | None:
        """The next message, or None for one that was too short to be one and has been refused."""
        have, self._kept = self._kept, 0
        descriptors, self._kept_descriptors = self._kept_descriptors, []
        message = Message(0, 0, 0, 0, memoryview(b""), descriptors)
        try:
            while have < HEADER.size:
                have += self._read_head(have, message.descriptors)
            message.id, message.command, size, message.flags, message.error = HEADER.unpack_from(self._head)
            if size > MESSAGE_BYTES_MAX:
                self.refuse(message, errno.EINVAL)  # where the next one begins cannot be known then
                raise Closed(f"message of {size} bytes")
            if have > max(size, HEADER.size):
                message.body = memoryview(bytes(self._head[HEADER.size : size]))
                self._keep(max(size, HEADER.size), have, message)
            elif size > HEADER.size:
                message.body = self._body(size, have, message.descriptors)
            if size < HEADER.size:
                message.close()
                self.refuse(message, errno.EINVAL)
                return None
        except BaseException:
            message.close()
            raise
        return message

    def keep_message(self) -> None:
        """The message received last stays good, although another thread receives the next one."""
        head = memoryview(bytearray(SHORTEST_WITH_DESCRIPTORS))
        head[: self._kept] = self._head[: self._kept]
        self._head = head

    def send(self, data: bytes) -> None:
        """Send a whole message. Raises Closed."""
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from error

    def reply(self, message: Message, payload: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Answer a message with a payload. Raises Closed."""
        data = HEADER.pack(message.id, message.command, HEADER.size + len(payload), TYPE_REPLY, 0) + payload
        if not descriptors:
            self.send(data)
            return
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            with self._sending:
                sent = self._socket.sendmsg([data], passed)
                if sent < len(data):
                    self._socket.sendall(data[sent:])
        except OSError as error:
            raise Closed(str(error)) from error

    def refuse(self, message: Message, number: int) -> None:
        """Answer a message with an errno: a header alone. Raises Closed."""
        self.send(HEADER.pack(message.id, message.command, HEADER.size, TYPE_REPLY | ERROR, number))

    def close(self) -> None:
        """End the connection, and close what came for a message that was never read."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes up a thread that reads
        self._socket.close()
        kept, self._kept_descriptors = self._kept_descriptors, []
        for descriptor in kept:
            os.close(descriptor)

    def _read_head(self, have: int, descriptors: list[int]) -> int:
        """Read on into the first bytes of a message; returns how many came."""
        try:
            count, ancillary, flags, _ = self._socket.recvmsg_into(
                [self._head[have:]], ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise Closed(str(error)) from error
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                got = array.array("i")
                got.frombytes(data[: len(data) - len(data) % got.itemsize])
                descriptors.extend(got)
        if not count:
            raise Closed("the client hung up")
        if flags & CUT_SHORT:
            raise Closed("more file descriptors than a message may carry")
        return count

    def _keep(self, size: int, have: int, message: Message) -> None:
        """Put away what belongs to the message behind this one."""
        self._kept = have - size
        self._kept_descriptors = message.take_descriptors()
        self._head[: self._kept] = bytes(self._head[size:have])

    def _body(self, size: int, have: int, descriptors: list[int]) -> memoryview:
        if have >= size:
            return self._head[HEADER.size : size]  # good until the next message is received
        length = size - HEADER.size
        body = memoryview(bytearray(length))
        got = min(have - HEADER.size, length)
        body[:got] = self._head[HEADER.size : HEADER.size + got]
        while got < length:
            if got < SHORTEST_WITH_DESCRIPTORS - HEADER.size:  # a client may send header and body apart
                step = min(length, SHORTEST_WITH_DESCRIPTORS - HEADER.size) - got
                count = self._read_more(step, HEADER.size + got, descriptors)
                body[got : got + count] = self._head[HEADER.size + got : HEADER.size + got + count]
            else:
                try:
                    count = self._socket.recv_into(body[got:])
                except OSError as error:
                    raise Closed(str(error)) from error
                if not count:
                    raise Closed("the client hung up in the middle of a message")
            got += count
        return body

    def _read_more(self, step: int, at: int, descriptors: list[int]) -> int:
        head, self._head = self._head, self._head[: at + step]
        try:
            return self._read_head(at, descriptors)
        finally:
            self._head = head
