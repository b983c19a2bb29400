"""DMA_READ and DMA_WRITE: the card reaches a client's memory that came without a file descriptor.

Whoever needs the bytes waits for the answer, with the card's lock free meanwhile: a client may have to read or write a
register before it can answer (a virtual machine whose processor waits for the register holds the lock that the answer
needs), and other engines go on, as they do on silicon while a transfer is on the bus.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from amdrv.emulator.arena import BusError
from amdrv.emulator.server.channel import Closed
from amdrv.facts.vfio_user import DMA_ACCESS, DMA_WRITTEN, HEADER, TYPE_COMMAND, Command, reason

log = logging.getLogger(__name__)

ANSWER_S = 5.0  # for a client to answer; as long as QEMU gives a server
DEAF_S = 0.1  # for one that has let a request pass, until it answers again
UNANSWERED_MAX = 256  # requests that wait at the same time; each has a thread that waits


@dataclass(slots=True)
class Request:
    """One message to the client, and its answer."""

    command: Command
    address: int
    size_bytes: int
    data: bytes = b""  # of a read
    failure: str = ""
    done: bool = False

    def __str__(self) -> str:
        return f"{self.command.name} of {self.address:#x}+{self.size_bytes:#x}"


class ClientBus:
    """A client's memory by messages; the Port of everything that it mapped without a descriptor.

    ``send`` puts a message on the socket, may block, and raises Closed; ``before_wait`` is told, in the thread that is
    about to wait, that somebody else has to read the client's messages meanwhile.
    """

    def __init__(
        self,
        lock: threading.RLock,
        send: Callable[[bytes], None],
        before_wait: Callable[[], None],
        data_bytes_max: int,
    ) -> None:
        self._changed = threading.Condition(lock)
        self._send = send
        self._before_wait = before_wait
        self._data_bytes_max = max(1, data_bytes_max)
        self._waiting: dict[int, Request] = {}  # message id → request
        self._number = 0
        self._inside = 0  # threads that wait, or have been told and have not gone on yet
        self._closed = ""
        self._deaf = False
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sender: threading.Thread | None = None

    # -- the card's side ----------------------------------------------------------------------------------------------

    def read(self, address: int, size_bytes: int) -> bytes:
        """Bytes of the client's memory. Raises BusError."""
        parts = [
            self._exchange(Request(Command.DMA_READ, at, count)).data for at, count in self._steps(address, size_bytes)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        """Store bytes in the client's memory. Raises BusError."""
        for at, count in self._steps(address, len(data)):
            self._exchange(Request(Command.DMA_WRITE, at, count), data[at - address : at - address + count])

    def _steps(self, address: int, size_bytes: int) -> list[tuple[int, int]]:
        most = self._data_bytes_max
        return [(address + at, min(most, size_bytes - at)) for at in range(0, size_bytes, most)]

    def _exchange(self, request: Request, data: bytes = b"") -> Request:
        with self._changed:
            number = self._announce(request)
            body = DMA_ACCESS.pack(request.address, request.size_bytes) + data
            self._post(HEADER.pack(number, request.command, HEADER.size + len(body), TYPE_COMMAND, 0) + body)
        self._before_wait()
        with self._changed:
            patience_s = DEAF_S if self._deaf else ANSWER_S
            self._inside += 1
            if not self._changed.wait_for(lambda: request.done, patience_s):
                del self._waiting[number]
                self._deaf = True
                request.failure = f"the client did not answer within {patience_s:g} s"
            self._inside -= 1
            self._changed.notify_all()
        if request.failure:
            log.warning("%s: %s", request, request.failure)
            raise BusError(request.address, request.size_bytes, request.failure)
        return request

    def _announce(self, request: Request) -> int:
        """A message id for a request that is about to go out."""
        if self._closed or len(self._waiting) >= UNANSWERED_MAX:
            why = self._closed or "too many requests wait for the client"
            raise BusError(request.address, request.size_bytes, why)
        while (number := self._number) in self._waiting:
            self._number = (self._number + 1) & 0xFFFF
        self._number = (self._number + 1) & 0xFFFF
        self._waiting[number] = request
        return number

    def _post(self, message: bytes) -> None:
        if self._sender is None:
            self._sender = threading.Thread(target=self._deliver_outbox, name="dma", daemon=True)
            self._sender.start()
        self._outbox.put(message)

    def _deliver_outbox(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._send(message)
            except Closed as error:
                self.close(f"the client is gone: {error}")
                return

    # -- the client's side --------------------------------------------------------------------------------------------

    def answer(self, number: int, command: int, error: int | None, body: memoryview) -> bool:
        """A reply came; False when nobody waits for it. ``error`` is an errno, 0 for one without a reason."""
        with self._changed:
            request = self._waiting.get(number)
            if request is None or request.command != command:
                return False
            del self._waiting[number]
            self._deaf = False
            if error is not None:
                request.failure = f"the client refused: {reason(error)}"
            else:
                _take(request, body)
            request.done = True
            self._changed.notify_all()
            return True

    def cancel(self, address: int, size_bytes: int) -> None:
        """Memory is taken back: who waits for it fails."""
        with self._changed:
            for number, request in list(self._waiting.items()):
                if request.address < address + size_bytes and address < request.address + request.size_bytes:
                    self._fail(number, "the client has taken the memory back")

    def wait_idle(self, limit_s: float) -> bool:
        """Wait until nobody waits for the client, or for ``limit_s``; whether anybody did."""
        with self._changed:
            if not self._inside:
                return False
            self._changed.wait_for(lambda: not self._inside, limit_s)
            return True

    def interrupt(self, why: str, limit_s: float) -> None:
        """Everybody who waits fails; returns when they have gone on, or after ``limit_s``."""
        with self._changed:
            closed, self._closed = self._closed, self._closed or why
            deadline = time.monotonic() + limit_s
            while (self._inside or self._waiting) and time.monotonic() < deadline:
                self._fail_all(why)
                self._changed.wait(deadline - time.monotonic())
            self._closed = closed

    def close(self, why: str) -> None:
        """The end: whoever waits, or asks from now on, fails."""
        with self._changed:
            self._closed = self._closed or why
            self._fail_all(self._closed)
        self._outbox.put(None)

    def _fail_all(self, why: str) -> None:
        for number in list(self._waiting):
            self._fail(number, why)

    def _fail(self, number: int, why: str) -> None:
        request = self._waiting.pop(number)
        request.failure, request.done = why, True
        self._changed.notify_all()


def _take(request: Request, body: memoryview) -> None:
    """What a reply without an error says."""
    if request.command == Command.DMA_WRITE:
        # QEMU answers with the header alone.
        said = DMA_WRITTEN.unpack_from(body) if len(body) >= DMA_WRITTEN.size else (request.address, request.size_bytes)
        if said != (request.address, request.size_bytes):
            request.failure = f"the client answered for {said[0]:#x}+{said[1]:#x}"
        return
    if len(body) != DMA_ACCESS.size + request.size_bytes:
        request.failure = f"the client answered with {len(body)} bytes"
    elif DMA_ACCESS.unpack_from(body) != (request.address, request.size_bytes):
        request.failure = "the client answered another request"
    else:
        request.data = bytes(body[DMA_ACCESS.size :])
