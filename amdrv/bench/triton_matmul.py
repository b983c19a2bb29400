"""A matrix product that Triton compiled: fp16 operands, float32 sums, WMMA instructions. Needs the package triton.

Compiled ahead of time for the device's architecture, which needs neither ROCm nor PyTorch, in a process of its own:
Triton brings another LLVM than the one that this process may hold. A Triton kernel takes its run-time arguments in
order and two pointers to scratch memory behind them, which are null where it has no use for any.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amdrv.bench.measure import check
from amdrv.bench.workload import EPSILON, Workload
from amdrv.errors import Timeout, Unsupported
from amdrv.runtime.device import Device

BLOCK_M, BLOCK_N, BLOCK_K = 64, 64, 32
LANES = 32
COMPILE_TIMEOUT_S = 120.0
# For fp16 operands whose addresses and sizes are multiples of 16. Triton reads a kernel's source from its file.
SCRIPT = """\
import json
import pathlib
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        left = tl.load(a + rows[:, None] * K + (k + depth)[None, :])
        right = tl.load(b + (k + depth)[:, None] * N + columns[None, :])
        total = tl.dot(left, right, total)
    tl.store(c + rows[:, None] * N + columns[None, :], total)


arch, lanes, bm, bn, bk = sys.argv[1], *map(int, sys.argv[2:])
signature = {"a": "*fp16", "b": "*fp16", "c": "*fp32", "M": "i32", "N": "i32", "K": "i32"}
tiles = dict.fromkeys(("BM", "BN", "BK"), "constexpr")
aligned = {(index,): [["tt.divisibility", 16]] for index in range(6)}
source = ASTSource(matmul, {**signature, **tiles}, {(6,): bm, (7,): bn, (8,): bk}, aligned)
made = triton.compile(source, target=GPUTarget("hip", arch, lanes), options={"enable_fp_fusion": True})
folder = pathlib.Path(__file__).parent
(folder / "code").write_bytes(made.asm["hsaco"])
about = {"kernel": made.metadata.name, "warps": made.metadata.num_warps, "lds_bytes": made.metadata.shared}
(folder / "about").write_text(json.dumps(about))
"""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A code object and what its metadata says about a launch."""

    code: bytes
    kernel: str
    items: int  # work-items of a workgroup
    lds_bytes: int


def missing() -> str:
    """Why Triton cannot be used, "" when it can."""
    return "" if importlib.util.find_spec("triton") is not None else "the package triton is not installed"


def compile_matmul(arch: str) -> Compiled:
    """Compile the kernel for ``arch``. Raises Unsupported with what Triton says when it cannot, Timeout."""
    if missing():
        raise Unsupported(f"Triton's matrix product: {missing()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "matmul.py"
        script.write_text(SCRIPT)
        command = [sys.executable, str(script), arch, *map(str, (LANES, BLOCK_M, BLOCK_N, BLOCK_K))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Timeout(f"Triton to compile for {arch}", COMPILE_TIMEOUT_S) from None
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or [f"its process ended with status {done.returncode}"]
            raise Unsupported(f"Triton cannot compile for {arch}: {said[0]}")
        about = json.loads((folder / "about").read_text())
        return Compiled((folder / "code").read_bytes(), about["kernel"], about["warps"] * LANES, about["lds_bytes"])


def matmul(device: Device, compiled: Compiled, size: int = 512) -> Workload:
    """The product of two fp16 matrices of ``size`` x ``size``."""
    random = np.random.default_rng(6)
    a, b = ((random.random((size, size)) - 0.5).astype(np.float16) for _ in range(2))
    on_a, on_b, on_c = device.array(a), device.array(b), device.alloc(4 * size * size)
    kernel = device.load(compiled.code)[compiled.kernel]
    grid = (size // BLOCK_M, size // BLOCK_N)
    arguments = (on_a, on_b, on_c, size, size, size, None, None)

    def launch() -> None:
        kernel.launch(grid, compiled.items, arguments, shared_bytes=compiled.lds_bytes)

    def verify() -> None:
        exact = a.astype(np.float64) @ b.astype(np.float64)
        # Products of fp16 are exact in float32; how WMMA rounds its sums is not documented: two roundings a product.
        bound = 2 * size * EPSILON * float((np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)).max())
        result = on_c.numpy(np.float32, (size, size)).astype(np.float64)
        check("Triton matmul", float(np.abs(result - exact).max()), bound)

    return Workload(launch, verify, 2 * size**3)
