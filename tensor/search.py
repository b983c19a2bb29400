"""Choosing how a kernel is arranged by running it: the options that a model ranks, timed on the device itself.

What was fastest is kept on disk by the kernel's hash, so a device searches for it once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from amdrv.tensor import ir
from amdrv.tensor.ir import Node, Op, toposort
from amdrv.tensor.lower import Kernel
from amdrv.tensor.storage import Backend, Program

OPTIONS_MAX = 10
RUNS = 3


def fastest(kernels: Sequence[Kernel], backend: Backend) -> Mapping[Node, Program]:
    """The fastest program found for each kernel, by its body."""
    found = {kernel.body: _fastest(kernel, backend) for kernel in kernels}
    backend.programs.update(found)
    return found


def _fastest(kernel: Kernel, backend: Backend) -> Program:
    question = f"fastest\n{ir.text([kernel.body])}"
    rank = int(backend.cache.compiled(question, lambda _: str(_search(kernel, backend)).encode()))
    return backend.compile([kernel], rank)[0]


def _search(kernel: Kernel, backend: Backend) -> int:
    """The rank of the fastest option. All were tried when one gives the same code again."""
    times: dict[str, tuple[float, int]] = {}
    for rank in range(OPTIONS_MAX):
        (program,) = backend.compile([kernel], rank)
        if program.ir in times:
            break
        times[program.ir] = (_seconds(program, kernel, backend), rank)
    return min(times.values())[1] if len(times) > 1 else 0


def _seconds(program: Program, kernel: Kernel, backend: Backend) -> float:
    """The shortest of a few runs on arrays of zeros."""
    params = {node.arg[0]: node for node in toposort([kernel.body]) if node.op is Op.PARAM}
    memories = []
    for _, param in sorted(params.items()):
        size_bytes = max(1, param.arg[1]) * param.dtype.size_bytes
        memories.append(backend.allocate(size_bytes))
        memories[-1].write(np.zeros(size_bytes, np.uint8))
    times = []
    for _ in range(RUNS + 1):  # the first is not counted: it loads code and fills caches
        started = time.perf_counter()
        program.run([memory.address for memory in memories])
        backend.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])
