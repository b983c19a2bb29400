"""Better code in the background: a thread that translates again, and a child process that runs LLVM.

llvmlite lets one thread at a time into LLVM, so a long compilation in this process would hold up every short one. A
child can also be ended at any time, which a thread inside LLVM cannot when the interpreter exits.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.native import pipeline
from amdrv.emulator.isa.native.flow import CodeReader
from amdrv.emulator.isa.native.pipeline import DONE, REPLY, REQUEST, Effort
from amdrv.emulator.isa.native.units import GOOD, FrozenMemory, Unit, Units
from amdrv.errors import Timeout

BASE_VA = 1 << 40  # where code is placed to be translated again: it does not depend on it
JOIN_S = 2.0

log = logging.getLogger("amdrv.emulator.translator")


class CompilerChild:
    """The child process; started on first use, for one user at a time."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self.closed = False

    def compile(self, ir: str, effort: Effort) -> bytes:
        """The object of a module. Raises RuntimeError when LLVM does not make one, or the child has ended."""
        child = self._running()
        text = ir.encode()
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("the compiler has no pipes")
        try:
            child.stdin.write(REQUEST.pack(effort, len(text)) + text)
            child.stdin.flush()
            head = child.stdout.read(REPLY.size)
            status, size_bytes = REPLY.unpack(head) if len(head) == REPLY.size else (None, 0)
            payload = child.stdout.read(size_bytes)
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the compiler's process has ended: {error}") from error
        if status is None:
            raise RuntimeError("the compiler's process has ended")
        if status != DONE:
            raise RuntimeError(payload.decode(errors="replace"))
        return payload

    def _running(self) -> subprocess.Popen[bytes]:
        if self.closed:
            raise RuntimeError("the compiler is closed")
        if self._child is None or self._child.poll() is not None:
            self._end()
            found = find_spec("llvmlite")
            folder = str(Path(found.origin).parent.parent) if found is not None and found.origin else ""
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(Path(pipeline.__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": folder},
            )
        return self._child

    def close(self) -> None:
        """End the child, whatever it does; nothing is compiled any more."""
        self.closed = True
        self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()


class Improver:
    """Compiles units better, one after the other, in a thread of its own that exists once there is something to do."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._queue: queue.SimpleQueue[tuple[Units, Unit] | None] = queue.SimpleQueue()
        self._pending = 0
        self._settled = threading.Condition()
        self._threads: list[threading.Thread] = []  # one at most
        self._child = CompilerChild()
        self._finalizer = weakref.finalize(self, _close, self._queue, self._child, self._threads, os.getpid())

    def add(self, units: Units, unit: Unit) -> None:
        """Ask for better code."""
        with self._settled:
            self._pending += 1
            if not self._threads:
                loop = _Loop(self._queue, self._decoder, self._child, self._done)
                self._threads.append(threading.Thread(target=loop.run, name="amdrv translator", daemon=True))
                self._threads[0].start()
        self._queue.put((units, unit))

    def _done(self) -> None:
        with self._settled:
            self._pending -= 1
            self._settled.notify_all()

    def settle(self, timeout_s: float) -> None:
        """Return when all that was asked for is done. Raises Timeout."""
        with self._settled:
            if not self._settled.wait_for(lambda: not self._pending, timeout_s):
                raise Timeout("compilation in the background to end", timeout_s)

    def close(self) -> None:
        """Give up what is under way."""
        self._finalizer()


class _Loop:
    """The thread's own part, which does not keep the Improver alive."""

    def __init__(
        self,
        requests: queue.SimpleQueue[tuple[Units, Unit] | None],
        decoder: Decoder,
        child: CompilerChild,
        done: Callable[[], None],
    ) -> None:
        self._requests, self._decoder, self._child = requests, decoder, child
        self._done = weakref.WeakMethod(done)

    def run(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                self._improve(*request)
            except Exception as error:
                if not self._child.closed:
                    log.warning("a unit keeps its quick code: %s", error, exc_info=not isinstance(error, RuntimeError))
            done = self._done()
            if done is None:
                return
            done()
            del request, done

    def _improve(self, units: Units, unit: Unit) -> None:
        started = time.perf_counter()
        before = unit.stored
        memory = FrozenMemory((BASE_VA + place, code) for place, code in before.ranges)
        starts = frozenset(entry for entry in before.entries if entry[0] == 0)
        reader = CodeReader(memory, self._decoder)
        ir, stored = units.translate(reader, BASE_VA, starts | before.added, before.added, unit.shape, GOOD)
        stored = replace(stored, ranges=before.ranges, code=self._child.compile(ir, Effort.GOOD))
        units.improved(unit, before, stored, time.perf_counter() - started)


def _close(
    requests: queue.SimpleQueue[tuple[Units, Unit] | None],
    child: CompilerChild,
    threads: list[threading.Thread],
    process_id: int,
) -> None:
    if os.getpid() != process_id:
        return  # a forked process: thread and child are its parent's
    requests.put(None)
    child.close()
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(JOIN_S)
