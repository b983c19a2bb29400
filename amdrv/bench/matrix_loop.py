"""How many cycles a matrix product's inner loop takes, as LLVM models the processor, against Triton's loop.

Both kernels are compiled for the same processor and the same tile, disassembled, and the innermost loop with WMMA
instructions is given to llvm-mca. Its model knows latencies and issue, and neither caches nor other waves: the figure
says how well a single wave hides its memory accesses and how much it does besides multiplying.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amdrv.bench import triton_matmul
from amdrv.errors import Unsupported
from amdrv.runtime.compile import compile_llvm
from amdrv.tensor import Tensor, engine, simplify
from amdrv.tensor.arrange_matrix import TILES, MatrixTile
from amdrv.tensor.gpu import write_ir
from amdrv.tensor.lower import Kernel
from amdrv.tensor.schedule import kernels
from amdrv.tensor.storage import Backend

ARCH = "gfx1100"
FLOPS = 2 * 16**3  # of a WMMA instruction
TRIPS = 100
TIMEOUT_S = 60.0
SAME_TILE = MatrixTile((2, 2), (2, 2), triton_matmul.BLOCK_K)
LINE = re.compile(r"\s+(?P<text>\S.*?)\s*//\s*(?P<at>[0-9A-F]+):.*?(?:<\S+?\+0x(?P<target>[0-9a-f]+)>)?$")
FUNCTION = re.compile(r"(?P<at>[0-9a-f]+) <\S+>:")


def missing() -> str:
    """Why nothing can be modelled here, "" when it can."""
    absent = [name for name in ("llvm-mca", "llvm-objdump") if _tool(name) is None]
    return f"LLVM 22's {' and '.join(absent)} not found" if absent else ""


def _tool(name: str) -> str | None:
    return shutil.which(f"{name}-22")


def _output(name: str, *arguments: str, given: str = "") -> str:
    tool = _tool(name)
    if tool is None:
        raise Unsupported(f"modelling a loop: {missing()}")
    done = subprocess.run([tool, *arguments], input=given, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise Unsupported(f"{name}: {done.stderr.strip()[:500]}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Loop:
    """Instructions of a loop, without the branch at its end."""

    instructions: tuple[str, ...]

    @property
    def flops(self) -> int:
        """Of one wave in one trip."""
        return FLOPS * sum("_wmma_" in line for line in self.instructions)

    def cycles(self, arch: str) -> float:
        """Of one trip, when many follow each other."""
        counts = []
        for trips in (TRIPS, 2 * TRIPS):  # the difference has neither beginning nor end in it
            options = ("-mtriple=amdgcn", f"-mcpu={arch}", f"-iterations={trips}", "--json")
            shown = json.loads(_output("llvm-mca", *options, given="\n".join(self.instructions)))
            counts.append(shown["CodeRegions"][0]["SummaryView"]["TotalCycles"])
        return float(counts[1] - counts[0]) / TRIPS


def inner_loop(listing: str) -> Loop:
    """The shortest loop with WMMA instructions in a disassembly. Raises Unsupported when there is none."""
    lines: list[tuple[int, str, int | None]] = []
    base = 0
    for line in listing.splitlines():
        if found := FUNCTION.match(line):
            base = int(found["at"], 16)
        elif found := LINE.match(line):
            target = base + int(found["target"], 16) if found["target"] else None
            lines.append((int(found["at"], 16), found["text"], target))
    loops = []
    for at, text, target in lines:
        if text.startswith("s_cbranch") and target is not None and target <= at:
            body = tuple(inner for where, inner, _ in lines if target <= where < at)
            if any("_wmma_" in inner for inner in body):
                loops.append(body)
    if not loops:
        raise Unsupported("no loop with matrix instructions in this code")
    return Loop(min(loops, key=len))


def loop_of(code: bytes, arch: str) -> Loop:
    """The innermost loop with WMMA instructions of a code object."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "code"
        path.write_bytes(code)
        return inner_loop(_output("llvm-objdump", "-d", f"--mcpu={arch}", str(path)))


def compile_ours(size: int, device: Backend, tiles: Sequence[MatrixTile] = TILES, arch: str = ARCH) -> bytes:
    """A code object for the product of two fp16 matrices, with the tile that is best by the compiler's model."""
    a, b = (Tensor(np.zeros((size, size), np.float16), device=device) for _ in range(2))
    graph, _ = engine.canonical([(a @ b).node])
    (kernel,) = (step for step in kernels(simplify.simplify(graph).src) if isinstance(step, Kernel))
    return compile_llvm(write_ir(kernel, arch, tiles=tiles)[0], arch)
