"""LLVM IR for the processor that Python runs on: compiled, kept on disk, linked, and run on threads.

Objects are kept under the hash of their IR and of what made them, so a function is compiled once per machine.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding
from llvmlite.binding import orcjit

from amdrv.errors import Unsupported
from amdrv.runtime.host_graph import HostCall, HostGraph, Team
from amdrv.runtime.object_cache import ObjectCache

THREAD_WORK_MIN = 1 << 16  # operations below which starting threads costs more than it saves


@functools.cache
def target_machine() -> Any:
    """LLVM for this processor."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    cpu, features = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    target = binding.Target.from_triple(binding.get_process_triple())
    options = {"opt": 2, "reloc": "pic", "codemodel": "jitdefault", "jit": True}
    return target.create_target_machine(cpu=cpu, features=features + ",-prefer-256-bit", **options)


def has_feature(name: str) -> bool:
    """Whether this processor has what LLVM knows by a name, such as "avx2"."""
    return bool(binding.get_host_cpu_features().get(name))


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
class HostFunction:
    """A function of some pointers and two numbers: from which trip of its outermost loop, up to which."""

    function: Any
    trips: int
    work: int  # operations of one trip, about
    code: object  # the code goes when this is forgotten

    @classmethod
    def of(cls, code: Mapping[str, int], name: str, pointers: int, trips: int, work: int) -> HostFunction:
        """A function of linked code, by its name and the number of its pointers."""
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * pointers, *[ctypes.c_int64] * 2)
        return cls(kind(code[name]), trips, work, code)

    @property
    def address(self) -> int:
        return ctypes.cast(self.function, ctypes.c_void_p).value or 0

    def share(self, threads: int) -> int:
        """Among how many threads dividing its trips pays."""
        return min(threads, self.trips, self.trips * self.work // THREAD_WORK_MIN)


class HostProcessor:
    """Compiles, links and runs functions, with threads that share their loops."""

    def __init__(self, threads: int | None = None, cache: Path | None = None) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))
        self._team = Team(self._new_pool(), threading.Lock())
        self._jit = orcjit.create_lljit_compiler(target_machine(), suppress_errors=True)
        versions = (llvmlite.__version__, binding.llvm_version_info, binding.get_host_cpu_name())
        self.cache = ObjectCache((*versions, binding.get_host_cpu_features().flatten()), cache)
        self._lock = threading.Lock()
        self._loaded = 0
        forked = weakref.WeakMethod(self._forked)
        os.register_at_fork(after_in_child=lambda: (restart := forked()) and restart())

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max(1, self.threads), "amdrv-tensor")

    def _forked(self) -> None:
        """In the child of a fork: it has none of the threads, and locks as they happened to be."""
        self._team.pool, self._team.turn, self._lock = self._new_pool(), threading.Lock(), threading.Lock()

    def compile(self, ir: str) -> Future[bytes]:
        """The object of a module, made by another thread."""
        return self._team.pool.submit(self.cache.compiled, ir, compile_object)

    def link(self, objects: Sequence[bytes], names: Sequence[str]) -> Mapping[str, int]:
        """The addresses of functions by their names, as long as the result is kept."""
        builder = orcjit.JITLibraryBuilder()
        for item in objects:
            builder.add_object_img(item)
        for name in names:
            builder.export_symbol(name)
        with self._lock:
            self._loaded += 1
            found: Mapping[str, int] = builder.link(self._jit, f"kernels{self._loaded}")
            return found

    def run(self, parts: Sequence[HostFunction], addresses: Sequence[int]) -> None:
        """Call functions one after the other, each in as many threads as pay."""
        for part in parts:
            share = part.share(self.threads)
            if share < 2:
                part.function(*addresses, 0, part.trips)
                continue
            edges = [part.trips * k // share for k in range(share + 1)]
            spans = [(*addresses, edges[k], edges[k + 1]) for k in range(share)]
            waiting = [self._team.pool.submit(_call, part.function, span) for span in spans[1:]]
            part.function(*spans[0])
            for item in waiting:
                item.result()

    def graph(self, calls: Sequence[tuple[HostFunction, Sequence[int]]]) -> HostGraph:
        """Functions to repeat in one native call, with the slot of each of their pointers."""
        listed = [
            HostCall(part.address, tuple(slots), part.trips, max(1, part.share(self.threads)), part.code)
            for part, slots in calls
        ]
        return HostGraph(listed, self._link_ir, self._team)

    def _link_ir(self, ir: str, names: Sequence[str]) -> Mapping[str, int]:
        return self.link([self.cache.compiled(ir, compile_object)], names)


def _call(function: Callable[..., None], arguments: Sequence[int]) -> None:
    function(*arguments)
