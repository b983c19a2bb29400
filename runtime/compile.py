"""``compile_llvm``: from LLVM IR text to a code object, in a child process that LLVM may kill.

LLVM answers some errors by ending the process (an instruction it cannot select, a missing library call). The child is
started on first use, serves until this process ends, and is replaced after such an error.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from amdrv.errors import InvalidArgument, Timeout, Unsupported
from amdrv.runtime import targets
from amdrv.runtime.launch import check_timeout

CHILD_SCRIPT = Path(__file__).with_name("compile_child.py")
TIMEOUT_S = 120.0
MESSAGE_CHARS_MAX = 4000
READ_BYTES = 1 << 20

# The frames of compile_child.py, which is not imported here because it imports LLVM.
REQUEST = struct.Struct("<IIB")
REPLY = struct.Struct("<BI")
DONE = 0

log = logging.getLogger("amdrv.runtime.compile")


def compile_llvm(ir: str, arch: str = "gfx1100", *, opt: int = 3, timeout_s: float = TIMEOUT_S) -> bytes:
    """Compile LLVM IR text for ``arch`` and return a relocatable ELF that ``Device.load`` takes.

    A missing target triple and data layout are filled in. ``opt`` is 0 to 3. Kernels are functions with the
    ``amdgpu_kernel`` calling convention. Raises InvalidArgument with LLVM's message for IR that does not parse or
    verify, Unsupported for IR that LLVM cannot compile for this processor, Timeout after ``timeout_s``.
    """
    if arch not in targets.MACH_NAMES.values():
        raise InvalidArgument(f"{arch!r} is not an AMD processor that LLVM knows, such as gfx1100")
    if opt not in (0, 1, 2, 3):
        raise InvalidArgument(f"optimisation level {opt!r}; levels are 0 to 3")
    if not isinstance(ir, str):
        raise InvalidArgument(f"LLVM IR is text, not {type(ir).__name__}")
    check_timeout(timeout_s)
    return _compiler_of(os.getpid()).compile(ir, arch, opt, timeout_s)


@functools.cache
def _compiler_of(process_id: int) -> Compiler:
    """One child for a process; a forked process must not share its parent's."""
    return Compiler()


class Compiler:
    """A child process and the pipe to it. Safe to use from several threads; requests take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child that writes to it
        self._end_child: Callable[[], object] | None = None

    def compile(self, ir: str, arch: str, opt: int, timeout_s: float) -> bytes:
        """One request; see ``compile_llvm``."""
        with self._lock:
            child = self._running_child()
            deadline = time.monotonic() + timeout_s
            try:
                reply = self._exchange(child, _request(ir, arch, opt), deadline)
            except TimeoutError:
                self.close()
                raise Timeout(f"LLVM to compile for {arch}", timeout_s, hint="its process was ended") from None
            except EOFError:
                raise Unsupported(f"LLVM cannot compile this for {arch}: {self._last_words(child)}") from None
            status, payload = reply
            if status != DONE:
                said = payload.decode(errors="replace").removeprefix("LLVM IR parsing error\n").strip()
                raise InvalidArgument(f"LLVM IR: {said}")
            self._log_warnings()
            return payload

    def close(self) -> None:
        """End the child. The next request starts another."""
        if self._end_child is not None:
            self._end_child()
        self._child = self._end_child = None

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._messages.seek(0)
            self._messages.truncate()
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(CHILD_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": _llvmlite_folder()},
            )
            os.set_blocking(self._pipe(self._child, "stdin"), False)
            self._end_child = weakref.finalize(self, _end, self._child)
        return self._child

    def _exchange(self, child: subprocess.Popen[bytes], request: bytes, deadline: float) -> tuple[int, bytes]:
        """Send and receive together: neither side may block on a full pipe. Raises TimeoutError, EOFError."""
        to_child, from_child = self._pipe(child, "stdin"), self._pipe(child, "stdout")
        unsent, received = memoryview(request), bytearray()
        while True:
            if len(received) >= REPLY.size:
                status, size = REPLY.unpack_from(received)
                if len(received) >= REPLY.size + size:
                    return status, bytes(received[REPLY.size : REPLY.size + size])
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise TimeoutError
            poll = select.poll()  # select() itself takes only low descriptors
            poll.register(from_child, select.POLLIN)
            if unsent:
                poll.register(to_child, select.POLLOUT)
            ready = {descriptor for descriptor, _ in poll.poll(1000 * remaining_s)}
            if from_child in ready:
                data = os.read(from_child, READ_BYTES)
                if not data:
                    raise EOFError
                received += data
            elif ready:
                try:
                    unsent = unsent[os.write(to_child, unsent) :]
                except BrokenPipeError:
                    raise EOFError from None

    @staticmethod
    def _pipe(child: subprocess.Popen[bytes], name: str) -> int:
        stream = child.stdin if name == "stdin" else child.stdout
        if stream is None:
            raise EOFError
        return stream.fileno()

    def _last_words(self, child: subprocess.Popen[bytes]) -> str:
        """What LLVM printed before it ended its process, without its stack dump."""
        status = child.wait()
        text = self._take_messages()
        said = [line for line in text.splitlines() if "LLVM ERROR" in line or "error:" in line]
        self.close()
        return "\n".join(said)[:MESSAGE_CHARS_MAX] or f"its process ended with status {status}: {text[-500:].strip()}"

    def _log_warnings(self) -> None:
        text = self._take_messages()
        if text:
            log.warning("LLVM: %s", text[:MESSAGE_CHARS_MAX].strip())

    def _take_messages(self) -> str:
        # Parent and child share one file position, so this also makes the child write from the start again.
        self._messages.seek(0)
        text = self._messages.read().decode(errors="replace")
        self._messages.seek(0)
        self._messages.truncate()
        return text


def _llvmlite_folder() -> str:
    """Where this process finds llvmlite: the child needs no more of its path.

    The whole path begins with the user's script's folder, where a file may be called like a module of Python's own.
    """
    spec = importlib.util.find_spec("llvmlite")
    if spec is None or spec.origin is None:
        raise Unsupported("compiling needs llvmlite, which is not installed")
    return str(Path(spec.origin).parent.parent)


def _request(ir: str, arch: str, opt: int) -> bytes:
    try:
        name, text = arch.encode(), ir.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"LLVM IR: {error}") from None
    return REQUEST.pack(len(name), len(text), opt) + name + text


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child and wait for it, so that none outlives its parent or stays a zombie."""
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()
