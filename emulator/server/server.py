"""The listening socket, and who has the card: one client at a time, any number one after another."""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from amdrv.emulator.server import negotiation
from amdrv.emulator.server.channel import Channel, Closed, Message, Rejected
from amdrv.emulator.server.guard import Guard
from amdrv.emulator.server.session import Session
from amdrv.errors import DeviceBusy, InvalidArgument, Refused

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

PATH_BYTES_MAX = 107  # Linux unix(7): sun_path, without its NUL
STRANGERS_MAX = 32  # connections that have not said what they are
HANDSHAKE_S = 5.0  # without a byte of the first message
DEPARTURE_S = 5.0  # for what a client that hung up has left to be done
SEND_S = 30  # for a client to take an answer
CREDENTIALS = struct.Struct("iII")  # Linux struct ucred: pid, uid, gid


class Server:
    """Serves ``card`` at a path. The card must have shared VRAM for clients to map it."""

    def __init__(self, card: Card, path: Path) -> None:
        self._card = card
        self.path = path
        self._listener: socket.socket | None = None
        self._guard: Guard | None = None
        self._inode = 0
        self._stopping = False
        self._ownership = threading.Lock()
        self._owner: Owner | None = None
        self._strangers: list[socket.socket] = []  # longest first

    def listen(self) -> None:
        """Make the path: it is there when connections are taken, not before.

        Raises InvalidArgument for a path that no socket can have, DeviceBusy where another server answers, Refused.
        """
        name = os.fsencode(self.path)
        temporary = self.path.with_name(f".{os.getpid():x}")
        if len(name) > PATH_BYTES_MAX or len(os.fsencode(temporary)) > PATH_BYTES_MAX:
            raise InvalidArgument(f"{self.path}: the path of a socket has at most {PATH_BYTES_MAX} bytes")
        self._check_free()
        self._guard = Guard(self._card.arena)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(temporary))
            self._inode = temporary.stat().st_ino
            listener.listen()
            temporary.replace(self.path)
        except OSError as error:
            listener.close()
            with suppress(OSError):
                temporary.unlink()
            raise Refused(f"cannot make the socket {self.path}: {error.strerror}") from error
        self._listener = listener
        log.info("%s listens at %s", self._card.name, self.path)

    def serve_forever(self) -> None:
        """Take connections until ``close``."""
        if self._listener is None:
            self.listen()
        while not self._stopping and self._listener is not None:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._stopping or error.errno in (errno.EBADF, errno.EINVAL):
                    return
                log.warning("no connection could be taken: %s", error.strerror)
                time.sleep(0.1)  # out of descriptors, most likely
                continue
            self._admit(connection)
            threading.Thread(target=self._meet, args=(connection,), name="client", daemon=True).start()

    def close(self) -> None:
        """Stop taking connections and remove the path, if it is still this server's."""
        self._stopping = True
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes up accept()
            self._listener.close()
            with suppress(OSError):
                if self.path.lstat().st_ino == self._inode:
                    self.path.unlink()
        with self._ownership:
            owner = self._owner
        if owner is not None:
            owner.hang_up()
            owner.gone.wait(DEPARTURE_S)
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def _admit(self, stranger: socket.socket) -> None:
        """Let a connection introduce itself; where too many do, the one that has taken longest has to go."""
        with self._ownership:
            if len(self._strangers) >= STRANGERS_MAX:
                with suppress(OSError):
                    self._strangers[0].shutdown(socket.SHUT_RDWR)
            self._strangers.append(stranger)

    # -- one connection -----------------------------------------------------------------------------------------------

    def _meet(self, connection: socket.socket) -> None:
        channel = Channel(connection)
        owner: Owner | None = None
        try:
            try:
                owner, proposal = self._introduce(connection, channel)
            finally:
                with self._ownership:
                    self._strangers.remove(connection)
            if owner is not None:
                log.info("%s has the card", owner.holder)
                Session(self._card, channel, proposal, owner, owner.twin).run()
                log.info("%s is gone", owner.holder)
        except Closed as end:
            log.info("a connection was dropped: %s", end)
        except Exception:  # nothing that one connection does ends the server
            log.exception("a connection failed")
        finally:
            channel.close()
            if owner is not None:
                if owner.twin is not None:
                    owner.twin.close()
                self._yield(owner)
                owner.gone.set()

    def _introduce(self, connection: socket.socket, channel: Channel) -> tuple[Owner | None, negotiation.Proposal]:
        """Agree on a version; the new owner, or None for a client that was told that the card is in use."""
        _limit(connection, socket.SO_RCVTIMEO, HANDSHAKE_S)
        _limit(connection, socket.SO_SNDTIMEO, SEND_S)
        message = channel.receive()
        try:
            proposal = negotiation.parse(message)
        except Rejected as error:
            channel.refuse(message, error.number)
            raise Closed(str(error)) from error
        finally:
            message.close()
        owner = Owner(connection)
        holder = self._claim(owner)
        if holder is None:
            _limit(connection, socket.SO_RCVTIMEO, 0)
            try:
                owner.twin = _welcome(channel, message, proposal)
            except (Closed, OSError):
                self._yield(owner)
                raise
            return owner, proposal
        log.info("%s was told that %s has the card", owner.holder, holder)
        if proposal.asks_for_holder:
            channel.reply(message, negotiation.busy_answer(proposal, holder, self._ids()))
        else:
            channel.refuse(message, errno.EBUSY)
        return None, proposal

    def _claim(self, owner: Owner) -> str | None:
        """Become the owner; who is it already, None on success. A client that has hung up is waited for."""
        deadline = time.monotonic() + DEPARTURE_S
        while True:
            with self._ownership:
                present = self._owner
                if present is None:
                    self._owner = owner
                    return None
            if not present.left or not present.gone.wait(max(0.0, deadline - time.monotonic())):
                return present.holder

    def _yield(self, owner: Owner) -> None:
        with self._ownership:
            if self._owner is owner:
                self._owner = None

    def _ids(self) -> tuple[int, ...]:
        chip = self._card.chip
        return chip.vendor_id, chip.device_id, chip.revision, chip.class_code, *chip.subsystem

    def _check_free(self) -> None:
        """See to it that nobody else serves at the path. What a dead server left there is replaced."""
        if not self.path.is_socket():
            if self.path.exists() or self.path.is_symlink():
                raise Refused(f"{self.path} exists and is not a socket")
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(os.fspath(self.path))
            except OSError:
                return
        raise DeviceBusy(os.fspath(self.path), "another server")


class Owner:
    """The client that has the card, as others see it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        self.pid = CREDENTIALS.unpack(credentials)[0]
        self._since = time.strftime("%H:%M:%S")
        self._command = _command_of(self.pid)
        self.gone = threading.Event()  # everything of it has been taken back
        self.twin: Channel | None = None  # its second socket, for messages to it

    @property
    def holder(self) -> str:
        """Who it is: process, command, since when."""
        return f"pid {self.pid} ({self._command}, since {self._since})"

    @property
    def left(self) -> bool:
        """Whether it has hung up, even if some of its messages are still to be read."""
        poller = select.poll()
        try:
            poller.register(self._connection, 0)
            return bool(poller.poll(0))
        except (OSError, ValueError):  # closed at this side
            return True

    def rename(self, command: str) -> None:
        """What it calls itself."""
        self._command = "".join(letter for letter in command if letter.isprintable()) or self._command

    def kill(self) -> None:
        """End its process, unless that is the server's own."""
        if self.pid and self.pid != os.getpid():
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """End the connection from this side."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


def _welcome(channel: Channel, message: Message, proposal: negotiation.Proposal) -> Channel | None:
    """Give a client the card; this side of the second socket that it asked for. Raises Closed, OSError."""
    if not proposal.twin_socket:
        channel.reply(message, negotiation.answer(proposal))
        return None
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _limit(mine, socket.SO_SNDTIMEO, SEND_S)
        channel.reply(message, negotiation.answer(proposal), (its.fileno(),))
    except BaseException:
        mine.close()
        raise
    finally:
        its.close()
    return Channel(mine)


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "unknown"


def _limit(connection: socket.socket, option: int, seconds: float) -> None:
    """Bound a blocking operation of a socket; 0 for no bound."""
    whole = int(seconds)
    connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, round((seconds - whole) * 1e6)))
