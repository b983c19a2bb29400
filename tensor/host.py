"""The host as a device: kernels in vector instructions, outer loops spread over threads by ``runtime/host_code``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from amdrv.runtime.host_code import HostFunction, HostProcessor, has_feature
from amdrv.runtime.host_memory import ALIGN_BYTES, HostMemory, Pool
from amdrv.tensor import spec
from amdrv.tensor.arrange_host import Machine, for_host
from amdrv.tensor.decompose import decompose
from amdrv.tensor.emit import Dialect, Emitter, write_nest
from amdrv.tensor.ir import Node, Op, toposort
from amdrv.tensor.lower import Kernel
from amdrv.tensor.optimise import Nest, size_of
from amdrv.tensor.storage import Program, Tape

MODULE_CHARS = 1 << 16  # of IR: setting LLVM up takes less than compiling it
DIALECT = Dialect(pointer="ptr", index_bits=64, stream_bytes=1 << 24)


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
    with spec.stage("decompose", kernel.body.src):
        stores = decompose(kernel.body).src
    with spec.stage("arrange", stores):
        nests = tuple(for_host(stores, machine, rank))
        stores = tuple(store for nest in nests for store in nest.all_stores)
        spec.check_kernel(stores)
    names = tuple(f"{prefix}_nest{number}" for number in range(len(nests)))
    with spec.stage("emit", stores):
        written = [_function(name, nest, len(kernel.buffers)) for name, nest in zip(names, nests, strict=True)]
    declared = dict.fromkeys(line for _, needs in written for line in needs)
    return Written(nests, names, tuple(function for function, _ in written), declared)


def module_text(kernels: Sequence[Written]) -> str:
    """Several kernels as one module: setting LLVM up takes longer than compiling a small kernel."""
    declared = dict.fromkeys(line for kernel in kernels for line in kernel.declared)
    functions = (function for kernel in kernels for function in kernel.functions)
    return "\n".join([*declared, *functions, "!0 = !{i32 1}", ""])


def _function(name: str, nest: Nest, buffers: int) -> tuple[str, dict[str, None]]:
    stores = nest.all_stores
    emitter = Emitter(Node(Op.SINK, stores[0].dtype, stores), DIALECT)
    for node in emitter.name_sources(stores):
        emitter.params[node] = f"%panel{node.arg[0]}"
        kind = emitter.memory_type(node.dtype)
        emitter.line(f"%panel{node.arg[0]} = alloca [{node.arg[1]} x {kind}], align {ALIGN_BYTES}")
    write_nest(emitter, nest, "%begin", "%end")
    arguments = "".join(f"ptr noalias %p{slot}, " for slot in range(buffers))
    head = f"define void @{name}({arguments}{emitter.index_type} %begin, {emitter.index_type} %end) nounwind {{"
    return f"{head}\nentry:\n{emitter.text}\n  ret void\n}}", emitter.declared


def machine() -> Machine:
    """The registers of this processor."""
    if has_feature("avx512f"):
        return Machine(vector_bits=512, registers=32)
    return Machine(vector_bits=256 if has_feature("avx2") else 128, registers=16)


class HostProgram:
    """A kernel in this process."""

    def __init__(self, written: Written, parts: Sequence[HostFunction], processor: HostProcessor) -> None:
        self._written, self.parts, self._processor = written, parts, processor

    @property
    def ir(self) -> str:
        return self._written.ir

    @property
    def arranged(self) -> list[Node]:
        """Its stores, as its loops were arranged."""
        return [store for nest in self._written.nests for store in nest.stores]

    def run(self, addresses: Sequence[int]) -> None:
        self._processor.run(self.parts, addresses)


class HostBackend:
    """The processor that Python runs on."""

    name = "CPU"

    def __init__(self, threads: int | None = None, cache: Path | None = None) -> None:
        self._processor = HostProcessor(threads, cache)
        self.machine = machine()
        self.threads, self.cache = self._processor.threads, self._processor.cache
        self._memory = Pool()
        self.programs: dict[Node, Program] = {}

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
                objects.append(self._processor.compile(module_text(written[waiting:])))
                waiting, size_chars = number, 0
        names = [name for part in written for name in part.names]
        code = self._processor.link([item.result() for item in objects], names)
        return [self._program(len(kernel.buffers), own, code) for kernel, own in zip(kernels, written, strict=True)]

    def _program(self, buffers: int, written: Written, code: Mapping[str, int]) -> HostProgram:
        parts = [
            HostFunction.of(code, name, buffers, nest.loops[0].arg[1] if nest.loops else 1, _work(nest))
            for name, nest in zip(written.names, written.nests, strict=True)
        ]
        return HostProgram(written, parts, self._processor)

    def tape(self, calls: Sequence[tuple[Program, Sequence[int]]]) -> Tape:
        """Programs to repeat, in one native call."""
        return self._processor.graph([(part, slots) for program, slots in calls for part in program.parts])  # type: ignore[attr-defined]

    def synchronize(self) -> None:
        """Programs have run when ``run`` returns."""


def _work(nest: Nest) -> int:
    """About how many operations one trip of the outermost loop takes."""
    reduced = (node.src[1:] for node in toposort(nest.stores) if node.op is Op.REDUCE)
    return 4 * (len(nest.stores) + sum(map(size_of, reduced))) * size_of(nest.loops[1:])
