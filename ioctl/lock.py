"""Exclusive ownership of a real card between processes.

The lock is a flock() on the card's own sysfs file. The kernel drops it with the owner's last descriptor, however the
owner dies, and nobody can take a lock at the wrong path. Who holds it is a note elsewhere, for people only: a note that
outlives its lock means nothing.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from amdrv.errors import DeviceBusy, Refused

LOCK_FOLDER = Path("/run/lock")
NOTE_BYTES_MAX = 512
SOMEBODY = "another process"


def note_folder() -> Path:
    """Where holders write their names: /run/lock, or the folder for temporary files where there is none."""
    return LOCK_FOLDER if os.access(LOCK_FOLDER, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class DeviceLock:
    """One process's hold on one card.

    ``device`` is the name in messages, ``target`` the file that is locked, ``note`` the file that names the holder.
    The descriptor is not inherited by programs that this one starts. A fork shares the hold until both have let go: the
    child has the card's mappings too, so the card is not free before it ends.
    """

    def __init__(self, device: str, target: Path, note: Path) -> None:
        self._device = device
        self._target = target
        self._note = note
        self._descriptor = -1
        self._pid = 0

    @property
    def held(self) -> bool:
        """Whether this process holds the lock; False in a forked child of the holder."""
        return self._descriptor >= 0 and self._pid == os.getpid()

    def acquire(self, command: str) -> None:
        """Take the lock without waiting, and say for whom. Raises DeviceBusy naming the holder, Refused."""
        try:
            descriptor = os.open(self._target, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(f"{self._device}: cannot open {self._target} to lock it: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise DeviceBusy(self._device, self._holder()) from error
        except OSError as error:
            os.close(descriptor)
            raise Refused(f"{self._device}: cannot lock {self._target}: {error.strerror}") from error
        self._descriptor, self._pid = descriptor, os.getpid()
        self._write_note(command)

    def release(self) -> None:
        """Let go. A forked child drops its share only, and the parent keeps the card. Safe to call twice."""
        if self._descriptor < 0:
            return
        if self.held:
            with suppress(OSError):
                self._note.unlink()  # before the unlock: afterwards it may be the next holder's
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = -1

    def _write_note(self, command: str) -> None:
        """Replace the note as a whole: whoever left an old one, or a link in its place, has no say in this one."""
        text = "\t".join((str(os.getpid()), " ".join(command.split()), time.strftime("%Y-%m-%d %H:%M:%S")))
        with suppress(OSError):  # the hold is good without a name
            descriptor, temporary = tempfile.mkstemp(prefix=f"{self._note.name}.", dir=self._note.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o644)
            os.replace(temporary, self._note)

    def _holder(self) -> str:
        """The holder in words, as far as the note can be believed."""
        try:
            with self._note.open("rb") as file:
                text = file.read(NOTE_BYTES_MAX).decode("utf-8", errors="replace")
        except OSError:
            return SOMEBODY
        return describe_holder(text) or SOMEBODY


def describe_holder(note: str) -> str | None:
    """A note in words; None when it is not a note, or its writer is gone and so cannot be the holder."""
    fields = note.split("\t")
    if len(fields) != 3 or not (fields[0].isascii() and fields[0].isdecimal()) or not Path("/proc", fields[0]).exists():
        return None
    pid, command, since = ("".join(letter for letter in field if letter.isprintable()) for field in fields)
    return f"pid {pid} ({command}, since {since})"
