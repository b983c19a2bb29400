"""The host as a device: kernels in vector instructions, outer loops spread over threads.

Objects are kept on disk under the hash of their IR and of what made them, so a kernel is compiled once per machine.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
import numpy as np
from llvmlite import binding
from llvmlite.binding import orcjit
from numpy.typing import NDArray

from amdrv.errors import OutOfMemory, Unsupported
from amdrv.runtime.host_graph import HostCall, HostGraph, Team
from amdrv.tensor.arrange_host import Machine, for_host
from amdrv.tensor.decompose import decompose
from amdrv.tensor.emit import Dialect, Emitter, write_nest
from amdrv.tensor.ir import Axis, Node, Op, toposort
from amdrv.tensor.lower import Kernel
from amdrv.tensor.object_cache import ObjectCache
from amdrv.tensor.optimise import Nest
from amdrv.tensor.storage import Program, Tape

ALIGN_BYTES = 128
PHYSICAL_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
POOL_BYTES_MAX = 1 << 29
MODULE_CHARS = 1 << 16  # of IR: setting LLVM up takes less than compiling it
THREAD_WORK_MIN = 1 << 16  # operations below which starting threads costs more than it saves
DIALECT = Dialect(pointer="ptr", index_bits=64, stream_bytes=1 << 24)


# -- memory ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of this process, aligned for vectors."""

    view: NDArray[np.uint8]
    address: int


class Pool:
    """Blocks of memory that were given back, by size. Fresh pages of the system cost more than most kernels."""

    def __init__(self) -> None:
        self._free: dict[int, list[Block]] = {}
        self._kept_bytes = 0
        self._most_bytes = POOL_BYTES_MAX  # kept here: at exit, modules are emptied before the last blocks come back

    # Lists and numbers are changed in steps that the interpreter does not divide; a block is never in two hands, and
    # the count of bytes only decides how many are kept.

    def take(self, size_bytes: int) -> Block:
        """A block with undefined contents."""
        try:
            found = self._free[size_bytes].pop()
        except (KeyError, IndexError):
            try:
                if size_bytes > PHYSICAL_BYTES:  # the system may promise it, and end the process when it is touched
                    raise MemoryError
                raw = np.empty(size_bytes + ALIGN_BYTES, np.uint8)
            except (MemoryError, ValueError):
                raise OutOfMemory(f"{size_bytes} bytes for a tensor; this machine has {PHYSICAL_BYTES}") from None
            start = -raw.ctypes.data % ALIGN_BYTES
            return Block(raw[start : start + size_bytes], raw.ctypes.data + start)
        self._kept_bytes -= size_bytes
        return found

    def give(self, block: Block) -> None:
        """Keep a block for later, or leave it to the system when there are many."""
        size_bytes = block.view.size
        if self._kept_bytes + size_bytes <= self._most_bytes:
            self._kept_bytes += size_bytes
            self._free.setdefault(size_bytes, []).append(block)


class HostMemory:
    """A block, given back to the pool when forgotten."""

    __slots__ = ("__weakref__", "_block", "_pool", "address", "size_bytes", "view")

    def __init__(self, pool: Pool, size_bytes: int) -> None:
        self._pool = pool
        self._block = pool.take(size_bytes)
        self.view = self._block.view
        self.address = self._block.address
        self.size_bytes = size_bytes

    def __del__(self) -> None:
        if hasattr(self, "_block"):  # else there was no memory
            self._pool.give(self._block)

    def write(self, data: NDArray[np.uint8], offset: int = 0) -> None:
        self.view[offset : offset + data.size] = data

    def read(self, size_bytes: int, offset: int = 0) -> NDArray[np.uint8]:
        return self.view[offset : offset + size_bytes].copy()


# -- code --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Written:
    """A kernel as LLVM IR: a function for each nest of loops, and what they call."""

    nests: tuple[Nest, ...]
    names: tuple[str, ...]
    functions: tuple[str, ...]
    declared: dict[str, None]

    @property
    def ir(self) -> str:
        """The kernel as a module of its own."""
        return module_text([self])


def write_ir(kernel: Kernel, machine: Machine, prefix: str = "kernel", rank: int = 0) -> Written:
    """LLVM IR of a kernel; the functions' names begin with ``prefix``. ``rank``: see ``optimise.ranked``."""
    nests = tuple(for_host(decompose(kernel.body).src, machine, rank))
    names = tuple(f"{prefix}_nest{number}" for number in range(len(nests)))
    declared = dict[str, None]()
    functions = []
    for name, nest in zip(names, nests, strict=True):
        function, needs = _function(name, nest, len(kernel.buffers))
        functions.append(function)
        declared.update(needs)
    return Written(nests, names, tuple(functions), declared)


def module_text(kernels: Sequence[Written]) -> str:
    """Several kernels as one module: setting LLVM up takes longer than compiling a small kernel."""
    declared = dict.fromkeys(line for kernel in kernels for line in kernel.declared)
    functions = (function for kernel in kernels for function in kernel.functions)
    return "\n".join([*declared, *functions, "!0 = !{i32 1}", ""])


def _function(name: str, nest: Nest, buffers: int) -> tuple[str, dict[str, None]]:
    stores = (*nest.stores, *(store for _, first in nest.before for store in first.stores))
    emitter = Emitter(Node(Op.SINK, stores[0].dtype, stores), DIALECT)
    for node in toposort(stores):
        if node.op is Op.PARAM:
            emitter.params[node] = f"%p{node.arg[0]}"
        elif node.op is Op.SHARED:
            emitter.params[node] = f"%panel{node.arg[0]}"
            kind = emitter.memory_type(node.dtype)
            emitter.line(f"%panel{node.arg[0]} = alloca [{node.arg[1]} x {kind}], align {ALIGN_BYTES}")
        elif node.op is Op.RANGE and node.arg[2] is Axis.LANE:
            lanes = node.arg[1]
            emitter.bind(node, f"<{', '.join(f'{emitter.index_type} {k}' for k in range(lanes))}>")
    write_nest(emitter, nest, "%begin", "%end")
    arguments = "".join(f"ptr noalias %p{slot}, " for slot in range(buffers))
    head = f"define void @{name}({arguments}{emitter.index_type} %begin, {emitter.index_type} %end) nounwind {{"
    return f"{head}\nentry:\n{emitter.text}\n  ret void\n}}", emitter.declared


@functools.cache
def target_machine() -> Any:
    """LLVM for this processor."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    cpu, features = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    target = binding.Target.from_triple(binding.get_process_triple())
    options = {"opt": 2, "reloc": "pic", "codemodel": "jitdefault", "jit": True}
    return target.create_target_machine(cpu=cpu, features=features + ",-prefer-256-bit", **options)


@functools.cache
def machine() -> Machine:
    """The registers of this processor."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return Machine(vector_bits=512, registers=32)
    return Machine(vector_bits=256 if features.get("avx2") else 128, registers=16)


def compile_object(ir: str) -> bytes:
    """Machine code from IR. Raises Unsupported with LLVM's message and the IR."""
    target = target_machine()
    context = binding.create_context()
    module = None
    # A module must be gone before its context is: it is not left to the garbage collector.
    try:
        module = binding.parse_assembly(ir, context)
        module.triple = binding.get_process_triple()
        module.data_layout = str(target.target_data)
        module.verify()
        return bytes(target.emit_object(module))
    except RuntimeError as error:
        raise Unsupported(f"LLVM refuses a kernel (stage: host code): {error}\n{ir}") from error
    finally:
        if module is not None:
            module.close()
        context.close()


@dataclass(frozen=True, slots=True)
class Part:
    """One nest of a program."""

    function: Any
    trips: int  # of the outermost loop
    work: int  # operations of one trip, about

    @property
    def address(self) -> int:
        return ctypes.cast(self.function, ctypes.c_void_p).value or 0

    def share(self, threads: int) -> int:
        """Among how many threads dividing its trips pays."""
        return min(threads, self.trips, self.trips * self.work // THREAD_WORK_MIN)


class HostProgram:
    """A kernel in this process."""

    def __init__(
        self, written: Written, parts: Sequence[Part], tracker: object, pool: ThreadPoolExecutor, threads: int
    ) -> None:
        self._written = written
        self.parts, self._tracker = parts, tracker  # the code goes when the tracker is forgotten
        self._pool, self._threads = pool, threads

    @property
    def ir(self) -> str:
        return self._written.ir

    @property
    def arranged(self) -> list[Node]:
        """Its stores, as its loops were arranged."""
        return [store for nest in self._written.nests for store in nest.stores]

    def run(self, addresses: Sequence[int]) -> None:
        for part in self.parts:
            share = part.share(self._threads)
            if share < 2:
                part.function(*addresses, 0, part.trips)
                continue
            edges = [part.trips * k // share for k in range(share + 1)]
            spans = [(*addresses, edges[k], edges[k + 1]) for k in range(share)]
            waiting = [self._pool.submit(_call, part.function, span) for span in spans[1:]]
            part.function(*spans[0])
            for item in waiting:
                item.result()


def _call(function: Callable[..., None], arguments: Sequence[int]) -> None:
    function(*arguments)


class HostBackend:
    """The processor that Python runs on."""

    name = "CPU"

    def __init__(self, threads: int | None = None, cache: Path | None = None) -> None:
        self.machine = self._started()
        self.threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(max(1, self.threads), "amdrv-tensor")
        self._team = Team(self._pool, threading.Lock())
        versions = (llvmlite.__version__, binding.llvm_version_info, binding.get_host_cpu_name())
        self.cache = ObjectCache((*versions, binding.get_host_cpu_features().flatten()), cache)
        self._jit = orcjit.create_lljit_compiler(target_machine(), suppress_errors=True)
        self._lock = threading.Lock()
        self._memory = Pool()
        self.programs: dict[Node, Program] = {}
        self._loaded = 0

    @staticmethod
    def _started() -> Machine:
        target_machine()
        return machine()

    def __repr__(self) -> str:
        return self.name

    def allocate(self, size_bytes: int) -> HostMemory:
        """Memory with undefined contents."""
        return HostMemory(self._memory, size_bytes)

    def compile(self, kernels: Sequence[Kernel], rank: int = 0) -> list[Program]:
        """Machine code for kernels, in few objects: LLVM compiles one while the next is written."""
        written: list[Written] = []
        objects: list[Future[bytes]] = []
        waiting, size_chars = 0, 0
        for number, kernel in enumerate(kernels, 1):
            written.append(write_ir(kernel, self.machine, f"kernel{number}", rank))
            size_chars += sum(map(len, written[-1].functions))
            if size_chars >= MODULE_CHARS or number == len(kernels):
                text = module_text(written[waiting:])
                objects.append(self._pool.submit(self.cache.compiled, text, compile_object))
                waiting, size_chars = number, 0
        tracker = self._linked([item.result() for item in objects], [name for part in written for name in part.names])
        return [self._program(kernel, found, tracker) for kernel, found in zip(kernels, written, strict=True)]

    def link(self, ir: str, names: Sequence[str]) -> Any:
        """The addresses of functions by their names, as long as the result is kept."""
        return self._linked([self.cache.compiled(ir, compile_object)], names)

    def _linked(self, objects: Sequence[bytes], names: Sequence[str]) -> Any:
        builder = orcjit.JITLibraryBuilder()
        for item in objects:
            builder.add_object_img(item)
        for name in names:
            builder.export_symbol(name)
        with self._lock:
            self._loaded += 1
            return builder.link(self._jit, f"kernels{self._loaded}")

    def tape(self, calls: Sequence[tuple[Program, Sequence[int]]]) -> Tape:
        """Programs to repeat, in one native call."""
        parts = ((part, slots) for program, slots in calls for part in program.parts)  # type: ignore[attr-defined]
        listed = [
            HostCall(part.address, tuple(slots), part.trips, max(1, part.share(self.threads))) for part, slots in parts
        ]
        return HostGraph(listed, self.link, self._team)

    def _program(self, kernel: Kernel, written: Written, tracker: Any) -> HostProgram:
        arguments = [ctypes.c_void_p] * len(kernel.buffers) + [ctypes.c_int64] * 2
        kind = ctypes.CFUNCTYPE(None, *arguments)
        parts = [
            Part(kind(tracker[name]), nest.loops[0].arg[1] if nest.loops else 1, _work(nest))
            for name, nest in zip(written.names, written.nests, strict=True)
        ]
        return HostProgram(written, parts, tracker, self._pool, self.threads)

    def synchronize(self) -> None:
        """Programs have run when ``run`` returns."""


def _work(nest: Nest) -> int:
    """About how many operations one trip of the outermost loop takes."""
    total = len(nest.stores) * 4
    for node in toposort(nest.stores):
        if node.op is Op.REDUCE:
            loops = 1
            for part in node.src[1:]:
                loops *= part.arg[1]
            total += loops * 4
    for loop in nest.loops[1:]:
        total *= loop.arg[1]
    return total
