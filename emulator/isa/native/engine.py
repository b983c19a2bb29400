"""The translator: a shader engine that compiles GPU code to host code and runs it on several threads."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import Dispatch, DispatchStats, RunningWave, ShaderFault, ShaderMemory
from amdrv.emulator.isa.generation import generation_for
from amdrv.emulator.isa.interpreter import Interpreter
from amdrv.emulator.isa.launch import Launch, decode
from amdrv.emulator.isa.native import jit
from amdrv.emulator.isa.native.cache import ObjectCache, default_folder
from amdrv.emulator.isa.native.faults import Reporter
from amdrv.emulator.isa.native.frame import Shape
from amdrv.emulator.isa.native.functions import library_functions
from amdrv.emulator.isa.native.improver import Improver
from amdrv.emulator.isa.native.library import Library
from amdrv.emulator.isa.native.pipeline import BadModule
from amdrv.emulator.isa.native.plan import Planner
from amdrv.emulator.isa.native.pool import Pool
from amdrv.emulator.isa.native.run import Entries, Run
from amdrv.emulator.isa.native.units import CompileRecord, Unit, Units

EXIT_WAIT_S = 2.0
log = logging.getLogger("amdrv.emulator.translator")
_RUN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)


@functools.cache
def _linker(process_id: int) -> jit.Linker:
    """One for a process: all engines share it."""
    return jit.Linker()


@functools.cache
def library_of(lanes: int) -> Library:
    """Everything that units of one wave size call."""
    return Library(library_functions(lanes))


class Translator:
    """A ShaderEngine. One dispatch at a time; ``run`` may be called from any thread.

    ``arch`` picks the decode tables; ``shader_engines`` is the chip's count, which the placement of scratch depends on;
    ``threads`` is how many host threads a dispatch may use, by default one for each usable core; ``cache`` keeps
    compiled code from one process to the next (None: nothing is kept); ``translating`` is entered while waves wait for
    code to be found or compiled.
    """

    def __init__(
        self,
        arch: str = "gfx1100",
        *,
        shader_engines: int = 6,
        threads: int | None = None,
        cache: ObjectCache | None = None,
        translating: AbstractContextManager[None] | None = None,
    ) -> None:
        self.threads = threads if threads is not None else len(os.sched_getaffinity(0))
        self._arch = arch
        self._decoder = Decoder(arch)
        self._generation = generation_for(arch)
        self._shader_engines = shader_engines
        self._cache = cache
        self._translating = translating or nullcontext()
        self._current: Run | None = None  # the dispatch under way
        self._libraries: dict[int, tuple[Library, jit.LoadedLibrary]] = {}
        self._entries: dict[int, Entries] = {}
        self._planner = Planner()
        self.interpreted = 0  # dispatches whose code LLVM refused
        self._interpreter: Interpreter | None = None  # which runs them
        self._linker = _linker(os.getpid())
        self._start_helpers()
        self._units = Units(self._decoder, self._linker, self._library, cache, self._improve, self._translating)

    def _start_helpers(self) -> None:
        """What belongs to this process alone: threads and a child."""
        self._process_id = os.getpid()
        self._running = threading.Lock()
        self._pool = Pool()
        self._improver = Improver(self._decoder)
        weakref.finalize(self, _stop, self._pool, self._improver, self._running, self._process_id)

    @property
    def compile_log(self) -> Sequence[CompileRecord]:
        """What was compiled or loaded, in order."""
        return self._units.log

    def settle(self, timeout_s: float) -> None:
        """Return when nothing is being compiled in the background. Raises Timeout."""
        self._improver.settle(timeout_s)

    def running_wave(self) -> RunningWave | None:
        """Where a wave of the dispatch under way last gave way; see ShaderEngine.running_wave."""
        run, interpreter = self._current, self._interpreter
        if run is not None:
            return run.running_wave
        return interpreter.running_wave() if interpreter is not None else None

    def invalidate_code(self) -> None:
        """Compare code with memory before it is used again: what ACQUIRE_MEM with an I$ invalidation does."""
        self._units.invalidate()
        if self._interpreter is not None:
            self._interpreter.invalidate_code()

    def run(
        self,
        dispatch: Dispatch,
        memory: ShaderMemory,
        *,
        cancelled: Callable[[], bool],
        realtime: Callable[[], int],
        interrupt: Callable[[int], None],
    ) -> DispatchStats:
        """Run every wave to its end, or until ``cancelled``; see ShaderEngine.run. Raises ShaderFault."""
        launch = decode(dispatch, self._shader_engines, self._generation)
        if not launch.workgroups or 0 in dispatch.threads:
            return DispatchStats()
        if self._process_id != os.getpid():
            self._start_helpers()
        with self._running:
            try:
                with self._translating:
                    run = self._prepare(launch, memory, cancelled, realtime, interrupt)
            except BadModule as error:
                # A mistake of the translator's must not cost the user the work: it takes longer, but it is done.
                log.warning("a kernel at pc %#x is interpreted, because LLVM refuses its code: %s", dispatch.pc, error)
                self.interpreted += 1
                if self._interpreter is None:
                    self._interpreter = Interpreter(self._arch, shader_engines=self._shader_engines)
                return self._interpreter.run(
                    dispatch, memory, cancelled=cancelled, realtime=realtime, interrupt=interrupt
                )
            self._current = run
            try:
                self._pool.work(run, self.threads)
            finally:
                self._current = None
            return run.result()

    def _prepare(
        self,
        launch: Launch,
        memory: ShaderMemory,
        cancelled: Callable[[], bool],
        realtime: Callable[[], int],
        interrupt: Callable[[int], None],
    ) -> Run:
        self._units.trim()
        dispatch = launch.dispatch
        shape = Shape(launch.lanes, launch.vgprs, launch.generation)
        try:
            unit = self._units.find(memory, dispatch.pc, launch.mode, shape)
        except ShaderFault as fault:
            fault.workgroup = dispatch.start
            raise
        prepared = self._planner.prepare(launch, unit.cell.address, dispatch.pc)
        if unit.stored.leaves:
            prepared.plan.clear_bytes = 4 * launch.lanes * (launch.vgprs - 1)
        prepared.plan.own_states = unit.stored.ends_at_once
        return Run(
            launch,
            memory,
            prepared,
            self._units,
            unit,
            self._entries_of(launch.lanes),
            reporter=Reporter(launch, memory, self._decoder),
            cancelled=cancelled,
            realtime=realtime,
            interrupt=interrupt,
        )

    def _library(self, lanes: int) -> tuple[Library, jit.LoadedLibrary]:
        found = self._libraries.get(lanes)
        if found is None:
            library = library_of(lanes)
            loaded = jit.LoadedLibrary(self._linker, library, self._cache)
            found = self._libraries[lanes] = (library, loaded)
        return found

    def _entries_of(self, lanes: int) -> Entries:
        found = self._entries.get(lanes)
        if found is None:
            _, library = self._library(lanes)
            names = [f"{name}.w{lanes}" for name in ("run_groups", "run_own_groups", "resume_group", "tlb_miss")]
            library.require(names)
            *loops, tlb_miss = (library.address(name) for name in names)
            run_groups, run_own_groups, resume_group = (_RUN(loop) for loop in loops)
            found = self._entries[lanes] = Entries(run_groups, run_own_groups, resume_group, tlb_miss)
        return found

    def _improve(self, unit: Unit) -> None:
        self._improver.add(self._units, unit)


def create(arch: str, *, shader_engines: int, translating: AbstractContextManager[None] | None = None) -> Translator:
    """A translator that keeps compiled code on disk."""
    cache = ObjectCache(default_folder())
    return Translator(arch, shader_engines=shader_engines, cache=cache, translating=translating)


def _stop(pool: Pool, improver: Improver, running: threading.Lock, process_id: int) -> None:
    """No thread of ours may be inside compiled code, or LLVM, while the interpreter is taken down."""
    if os.getpid() != process_id:
        return  # a forked process
    pool.close()
    improver.close()
    if running.acquire(timeout=EXIT_WAIT_S):
        running.release()
