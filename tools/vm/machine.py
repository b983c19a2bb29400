"""One life of the virtual machine: the card served in a process of its own, QEMU, and what the guest said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import initramfs
from initramfs import EXECUTABLE, PLAIN
from link import link
from parts import Parts

from amdrv.runtime.compile import compile_llvm

GUEST = Path(__file__).resolve().parent / "guest"
MEMORY = "2G"
BAR0_MIB = 256
TIMEOUT_S = 300.0
READY_S = 30.0
RUN = "from amdrv.cli import main; main()"
KERNEL_LINE = "console=ttyS0 panic=-1"


@dataclass(frozen=True, slots=True)
class Life:
    """What was seen of a machine from power-on to power-off."""

    console: str
    server: str
    seconds: float
    ended: bool  # by itself

    def said(self, pattern: str) -> list[str]:
        """Lines of the guest's console in which a pattern occurs."""
        return [line for line in self.console.splitlines() if re.search(pattern, line)]

    @property
    def unmodelled(self) -> set[str]:
        """Registers that were used and that nobody models."""
        return set(re.findall(r"nobody models (\S+): ", self.server))


def archive(parts: Parts, arch: str, programs: Collection[str] = ()) -> bytes:
    """The guest's initial file system, with the programs that try the card (all, or those named) and their kernels."""
    extra = {"usr/lib/vm/dispatch.py": (EXECUTABLE, (GUEST / "dispatch.py").read_bytes())}
    for kernel in (GUEST / "kernels").iterdir():
        extra[f"usr/lib/vm/{kernel.stem}.co"] = (PLAIN, link(compile_llvm(kernel.read_text(), arch)))
    for program in (GUEST / "programs").iterdir():
        if not programs or program.name.partition("-")[2] in programs:
            extra[f"usr/lib/vm/programs/{program.name}"] = (EXECUTABLE, program.read_bytes())
    return initramfs.build(parts, arch, extra)


def live(
    parts: Parts,
    arch: str,
    *,
    programs: Collection[str] = (),
    listener: Callable[[str], None] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Life:
    """Power on with a card of ``arch``, let the guest run its programs, and see it switch off.

    ``listener`` gets each line of its console.
    """
    with tempfile.TemporaryDirectory(prefix="amdrv-vm-") as name:
        folder = Path(name)
        (folder / "initrd").write_bytes(archive(parts, arch, programs))
        started = time.monotonic()
        with (folder / "server").open("w+") as server_log, _served(arch, folder / "card", server_log):
            lines, ended = _boot(parts, folder, listener or (lambda _line: None), timeout_s)
        return Life("\n".join(lines), (folder / "server").read_text(), time.monotonic() - started, ended)


@contextmanager
def _served(arch: str, path: Path, log: TextIO) -> Iterator[None]:
    """The card, until the end of the block."""
    command = [sys.executable, "-c", RUN, "emulate", "--arch", arch, "--socket", str(path), "--bar0", str(BAR0_MIB)]
    server = subprocess.Popen(command, stderr=log, env={**os.environ, "AMDRV_LOG": "emulator=info"})
    try:
        deadline_s = time.monotonic() + READY_S
        while not path.exists():
            if server.poll() is not None or time.monotonic() > deadline_s:
                log.seek(0)
                raise RuntimeError(f"the emulated card is not served: {log.read()}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def _boot(parts: Parts, folder: Path, listener: Callable[[str], None], timeout_s: float) -> tuple[list[str], bool]:
    """Lines of the console, and whether the guest switched the machine off."""
    qemu = subprocess.Popen(_command(parts, folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, errors="replace")  # fmt: skip
    lines: list[str] = []
    watchdog = _Watchdog(qemu, timeout_s)
    try:
        if qemu.stdout is None:
            raise RuntimeError("QEMU has no console")
        for line in qemu.stdout:
            lines.append(line.rstrip())
            listener(lines[-1])
        return lines, qemu.wait() == 0 and not watchdog.struck
    finally:
        watchdog.stop()
        qemu.kill()
        qemu.wait()


class _Watchdog:
    """Ends a process that takes too long."""

    def __init__(self, process: subprocess.Popen[str], timeout_s: float) -> None:
        self.struck = False
        self._process = process
        self._timer = threading.Timer(timeout_s, self._strike)
        self._timer.daemon = True
        self._timer.start()

    def _strike(self) -> None:
        self.struck = True
        self._process.kill()

    def stop(self) -> None:
        """The process has ended."""
        self._timer.cancel()


def _command(parts: Parts, folder: Path) -> list[str]:
    device = f'{{"driver":"vfio-user-pci","bus":"root","socket":{{"type":"unix","path":"{folder / "card"}"}}}}'
    return [
        *parts.qemu_command(),
        *("-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", MEMORY),
        # The card reaches the guest's memory through this descriptor.
        *("-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on", "-numa", "node,memdev=memory"),
        *("-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"),
        *("-device", "pcie-root-port,id=root,chassis=1", "-device", device),
        *("-kernel", str(parts.vmlinuz), "-initrd", str(folder / "initrd"), "-append", KERNEL_LINE),
    ]
