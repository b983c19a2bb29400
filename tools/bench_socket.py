#!/usr/bin/env python3
"""How fast a card behind a socket is reached: starts one, and prints accesses and bytes a second as JSON.

    tools/bench_socket.py [--socket PATH]     (a running server's, instead of one of its own)

The goal is 30,000 register accesses a second and BAR0 at memory speed, on a machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from amdrv.ioctl import PciFunction, connect

REGISTER_BAR, VRAM_BAR = 5, 0
SCRATCH = 0x130  # BIOS_SCRATCH_0: plain storage
ACCESSES = 20_000
RUNS = 3
BULK_BYTES = 64 << 20
START_S = 30
SERVER = "import sys; from amdrv.cli import main; sys.exit(main())"


@contextmanager
def served() -> Iterator[Path]:
    """The socket of a server that lives as long as this."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card"
        command = [sys.executable, "-c", SERVER, "emulate", "--socket", str(path), "--vram", "1024"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + START_S
                while not path.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit("the server did not start")
                    time.sleep(0.01)
                yield path
            finally:
                process.terminate()


def best(action: Callable[[], object]) -> float:
    """Seconds of the quickest of some runs."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def reads(function: PciFunction) -> None:
    """Register reads, each of which waits for its answer."""
    for _ in range(ACCESSES):
        function.read32(REGISTER_BAR, SCRATCH)


def writes(function: PciFunction) -> None:
    """Register writes, which are posted, and one read that waits for all of them."""
    for value in range(ACCESSES):
        function.write32(REGISTER_BAR, SCRATCH, value)
    function.read32(REGISTER_BAR, SCRATCH)


def mixture(function: PciFunction) -> None:
    """As many reads as writes."""
    for value in range(ACCESSES // 2):
        function.write32(REGISTER_BAR, SCRATCH, value)
        function.read32(REGISTER_BAR, SCRATCH)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", type=Path)
    path = parser.parse_args().socket
    if path is not None:
        report(path)
        return
    with served() as own:
        report(own)


def report(path: Path) -> None:
    """The figures of the server at ``path``."""
    function = connect(f"emu:{path}")
    function.acquire("bench_socket")
    data = bytes(BULK_BYTES)
    rows = []
    for kind in (reads, writes, mixture):
        seconds = best(lambda kind=kind: kind(function))  # type: ignore[misc]
        rows.append({"name": kind.__name__, "seconds": seconds, "accesses_per_s": ACCESSES / seconds})
    for name, action in (
        ("bar0 write", lambda: function.write_memory(VRAM_BAR, 0, data)),
        ("bar0 read", lambda: function.read_memory(VRAM_BAR, 0, BULK_BYTES)),
        ("memory copy", lambda: bytearray(data)),
    ):
        seconds = best(action)
        rows.append({"name": name, "seconds": seconds, "bytes_per_s": BULK_BYTES / seconds})
    function.release()
    print(json.dumps({"results": rows}, indent=2))


if __name__ == "__main__":
    main()
