"""An open device: memory, code and launches on one GPU."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import AmdrvError, DeviceLost, InvalidArgument, OutOfMemory, Timeout
from amdrv.faults import MEMORY_VIOLATION, PAGE_FAULT
from amdrv.runtime import code_object, diagnosis, kernarg, packets, scratch, shape, stopped_wave
from amdrv.runtime.address_book import AddressBook
from amdrv.runtime.buffer import Buffer
from amdrv.runtime.code_object import DISPATCH_PTR, KernelCode
from amdrv.runtime.graph import Graph, LaunchRequest, Prepared
from amdrv.runtime.launch import Launch, check_timeout
from amdrv.runtime.module import Kernel, Module
from amdrv.runtime.packets import AQL_PACKET_BYTES, LaunchTemplate, LaunchValues, Words
from amdrv.runtime.queue import ArgumentBlock, LaunchQueue
from amdrv.runtime.stopped_code import code_at
from amdrv.vram import read_size_bytes

if TYPE_CHECKING:
    from amdrv.boot.report import BootReport
    from amdrv.gpu import Gpu
    from amdrv.memory.manager import Allocation

SYNCHRONIZE_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 10.0
TIMESTAMP_BYTES = 16
WAVE32_LANES = 32
PACKET_ALIGN = 64

log = logging.getLogger(__name__)


class Device:
    """What ``amdrv.open`` returns. Use it as a context manager, or ``close`` it.

    Work is queued in order and runs while Python goes on; reading a buffer, ``synchronize`` and ``Launch.wait`` wait
    for it. Trouble in a kernel costs the queued work and is raised by the next of these. Safe to use from several
    threads, which take turns.
    """

    def __init__(self, gpu: Gpu) -> None:
        """Take over an opened GPU and start its compute queue. Raises OutOfMemory, Timeout."""
        self._gpu = gpu
        self._lock = threading.RLock()
        self._closed = False
        self._closing = False
        self._lost_because = ""
        self._book = AddressBook()
        self._modules: weakref.WeakSet[Module] = weakref.WeakSet()
        self._unburied: deque[tuple[int, Allocation]] = deque()  # (timeline value after which it is unused, memory)
        self._scratch: Allocation | None = None
        with gpu.boot_step("compute queue"):
            self._queue = LaunchQueue(gpu, self.wait_for)
        windows = (gpu.properties.shared_window, gpu.properties.private_window)
        self._surroundings = kernarg.Surroundings(*windows, queue_va=self._queue.description_va)
        # A device that is forgotten, or still open when the interpreter ends, must not be left running.
        self._abandon = weakref.finalize(self, gpu.close)

    @property
    def name(self) -> str:
        """Product name, such as "Radeon RX 7900 XTX (emulated)"."""
        return self._gpu.name

    @property
    def arch(self) -> str:
        """Architecture that code must be compiled for, such as "gfx1100"."""
        return self._gpu.arch

    @property
    def boot(self) -> BootReport:
        """How the device was started: kind, reason, steps, register accesses, durations."""
        return self._gpu.boot

    @property
    def gpu(self) -> Gpu:
        """The driver underneath."""
        return self._gpu

    @property
    def usable(self) -> bool:
        """Whether it is open and has its memory."""
        return not (self._closed or self._lost_because or self._gpu.lost)

    # -- memory -------------------------------------------------------------------------------------------------------

    def alloc(self, nbytes: int) -> Buffer:
        """``nbytes`` of device memory with undefined contents. Raises InvalidArgument, OutOfMemory."""
        if isinstance(nbytes, bool) or not isinstance(nbytes, (int, np.integer)) or nbytes <= 0:
            raise InvalidArgument(f"a buffer has a positive number of bytes, not {nbytes!r}")
        return Buffer(self, int(nbytes))

    def array(self, values: NDArray[np.generic] | Sequence[object]) -> Buffer:
        """A buffer with a copy of an array. Raises InvalidArgument for an empty one or one of objects or text."""
        try:
            array = np.asarray(values)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidArgument(f"{type(values).__name__} is no array: {error}") from None
        if array.dtype.hasobject or array.dtype.kind in "US":
            raise InvalidArgument(f"an array of {array.dtype} has no numbers to put on the device")
        if not array.nbytes:
            raise InvalidArgument(f"an array of shape {array.shape} has no bytes to put on the device")
        buffer = self.alloc(array.nbytes)
        buffer.write(array)
        return buffer

    def allocate(
        self, size_bytes: int, label: str, owner: object, *, host: bool = False
    ) -> tuple[Allocation, Callable[[], object]]:
        """Memory that goes with ``owner``, and the function that gives it back before ``owner`` is forgotten.

        It is the device's, or with ``host`` the machine's, which the device reads.
        """
        with self._lock:
            self.check_usable()
            allocation = self._gpu.memory.alloc_host(size_bytes) if host else self._alloc_vram(size_bytes, label)
            if host:
                self._book.add(allocation.va, size_bytes, label)
            # Weak, because finalizers are global: a strong one would keep a forgotten device open for ever.
            give_back = weakref.finalize(owner, _give_back, weakref.WeakMethod(self._retire_memory), allocation)
            give_back.atexit = False
            return allocation, give_back

    def _alloc_vram(self, size_bytes: int, label: str) -> Allocation:
        self.check_usable()
        self._bury()
        try:
            allocation = self._gpu.memory.alloc_vram(size_bytes)
        except OutOfMemory:
            # Memory may be waiting for queued work to end, or for unreachable cycles to be noticed.
            gc.collect()
            self.synchronize()
            allocation = self._gpu.memory.alloc_vram(size_bytes)
        self._book.add(allocation.va, size_bytes, label)
        return allocation

    def memory_written(self, allocation: Allocation) -> None:
        """The CPU wrote to ``allocation``: the next launch must see it."""
        if allocation.kind == "vram":
            self._queue.memory_written()

    def _retire_memory(self, allocation: Allocation) -> None:
        # May run inside the garbage collector, at any moment and in any thread: it only takes a note.
        self._unburied.append((self._queue.submitted, allocation))

    def _bury(self) -> None:
        """Free memory that was given back and that no queued work can use any more."""
        while self._unburied and self._unburied[0][0] <= self._queue.reached:
            _, allocation = self._unburied.popleft()
            self._book.remove(allocation.va)
            self._gpu.memory.free(allocation)

    # -- code ---------------------------------------------------------------------------------------------------------

    def load(self, code: bytes) -> Module:
        """Load a code object: a linked or relocatable ELF file or an offload bundle, for this device's architecture.

        Raises MalformedInput naming what is damaged, Unsupported naming both architectures when they differ,
        OutOfMemory.
        """
        if not isinstance(code, (bytes, bytearray, memoryview)):
            raise InvalidArgument(f"a code object is bytes, not {type(code).__name__}")
        module = Module(self, code_object.parse(bytes(code), self.arch))
        self._modules.add(module)
        return module

    def launch_template(self, kernel: KernelCode, entry_va: int, timed: bool) -> LaunchTemplate:
        """The packets of a launch of ``kernel``, whose first instruction is at ``entry_va``."""
        return LaunchTemplate(self._gpu.registers.gc, kernel, entry_va, self._queue.signal_va, timed=timed)

    def launch(
        self,
        kernel: Kernel,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[object],
        shared_bytes: int,
        timed: bool,
    ) -> Launch:
        """Queue a launch; see ``Kernel.launch``."""
        prepared = self.prepare(kernel, grid, block, args, shared_bytes)
        with self._lock:
            kernel.module.check_usable()
            self._bury()
            launch = Launch(self, kernel.name, self._queue.submitted + 1, timed=timed)
            words, ticks = self.write_launch(prepared, self._queue.reserve, launch.timeline, timed)
            self._queue.submit(words, launch, ticks if timed else None, kernel.module)
            return launch

    def graph(self, launches: Sequence[LaunchRequest]) -> Graph:
        """Launches that are queued together, again and again; see ``Graph``. Raises what ``Kernel.launch`` raises."""
        with self._lock:
            return Graph(
                self, [self.prepare(wanted.kernel, wanted.grid, wanted.block, wanted.args) for wanted in launches]
            )

    def prepare(
        self,
        kernel: Kernel,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[object],
        shared_bytes: int = 0,
    ) -> Prepared:
        """A launch that was checked, with its arguments packed. Raises what ``Kernel.launch`` raises."""
        code = kernel.code
        lds_bytes_max = self._gpu.properties.lds_bytes
        launch_shape = shape.check(code, grid, block, shared_bytes, lds_bytes_max, self._surroundings)
        self._check_owners(kernel, args)
        packed = kernel.module.packer(code).pack(args, launch_shape)
        shape.check_lds(code, packed.dynamic_lds_bytes, lds_bytes_max)
        return Prepared(
            kernel, launch_shape, packed.data, code.descriptor.group_segment_bytes + packed.dynamic_lds_bytes
        )

    def write_launch(
        self, prepared: Prepared, reserve: Callable[[int], ArgumentBlock], timeline: int, timed: bool = False
    ) -> tuple[Words, memoryview]:
        """The packets of a launch, and room for two times; arguments go to memory that ``reserve`` gives."""
        kernel, arguments, code = prepared.kernel, prepared.arguments, prepared.kernel.code
        template = kernel.module.template(code, timed)
        scratch_va, tmpring_size = self._scratch_for(code)
        # Arguments, the dispatch packet for kernels that read it, two times.
        packet_at = -(-len(arguments) // PACKET_ALIGN) * PACKET_ALIGN
        ticks_at = packet_at + AQL_PACKET_BYTES
        memory = reserve(ticks_at + TIMESTAMP_BYTES)
        memory.view[: len(arguments)] = arguments
        if code.descriptor.properties & DISPATCH_PTR:
            packet = packets.aql_packet(code, prepared.shape, prepared.lds_bytes, memory.va)
            memory.view[packet_at:ticks_at] = packet
        values = LaunchValues(
            grid=prepared.shape.grid,
            block=prepared.shape.block,
            kernarg_va=memory.va,
            lds_bytes=prepared.lds_bytes,
            scratch_va=scratch_va,
            tmpring_size=tmpring_size,
            dispatch_packet_va=memory.va + packet_at,
            queue_description_va=self._queue.description_va,
            dispatch_id=timeline,
            timestamps_va=memory.va + ticks_at,
            timeline_value=timeline,
        )
        return template.fill(values), memory.view[ticks_at:]

    def submit_graph(self, graph: Graph, write: Callable[[int], Words]) -> Launch:
        """Queue packets that ``write`` makes for a timeline value, and which belong to a graph."""
        with self._lock:
            self.check_usable()
            self._bury()
            launch = Launch(self, graph.name, self._queue.submitted + 1, timed=False)
            self._queue.submit(write(launch.timeline), launch, None, graph)
            return launch

    @property
    def lock(self) -> threading.RLock:
        """Held while work is queued."""
        return self._lock

    @property
    def signal_va(self) -> int:
        """Device address of the timeline."""
        return self._queue.signal_va

    @property
    def scratch_va(self) -> int:
        """Device address of the scratch memory that launches use now, 0 while there is none."""
        return self._scratch.va if self._scratch is not None else 0

    def _check_owners(self, kernel: Kernel, args: Sequence[object]) -> None:
        kernel.module.check_usable()
        try:
            values = tuple(args)
        except TypeError:
            given = type(args).__name__
            raise InvalidArgument(f"kernel {kernel.name!r}: arguments are a sequence, not {given}") from None
        for index, value in enumerate(values):
            if isinstance(value, Buffer) and value.device is not self:
                raise InvalidArgument(f"kernel {kernel.name!r}, argument {index}: the buffer is on {value.device.name}")

    def _scratch_for(self, kernel: KernelCode) -> tuple[int, int]:
        """(address, COMPUTE_TMPRING_SIZE) of scratch for a kernel; the memory grows when it must."""
        item_bytes = kernel.descriptor.private_segment_bytes
        if kernel.uses_dynamic_stack:
            item_bytes += scratch.DYNAMIC_STACK_BYTES
        if not item_bytes:
            return 0, 0
        properties = self._gpu.properties
        register = self._gpu.registers.gc.COMPUTE_TMPRING_SIZE
        plan = scratch.plan(
            kernel.name,
            item_bytes,
            kernel.descriptor.wavefront_size,
            engines=properties.shader_engines,
            slots_per_engine=properties.scratch_slots_per_cu * properties.compute_units // properties.shader_engines,
            wave_units_max=register.fields["WAVESIZE"].max,
        )
        while self._scratch is None or self._scratch.size_bytes < plan.size_bytes:
            if self._scratch is not None:
                self._retire_memory(self._scratch)
                self._scratch = None
            try:
                self._scratch = self._alloc_vram(plan.size_bytes, "scratch")
            except OutOfMemory as error:
                plan = scratch.smaller(plan, error)
        return self._scratch.va, register.encode(WAVES=plan.waves_per_engine, WAVESIZE=plan.wave_units)

    # -- waiting and trouble ------------------------------------------------------------------------------------------

    def synchronize(self, timeout_s: float = SYNCHRONIZE_TIMEOUT_S) -> None:
        """Return when all queued work has ended.

        Raises GpuFault with a diagnosis when work failed, Timeout when it has not ended after ``timeout_s``. Both cost
        the queued work; the queue is rebuilt, and device, modules and buffer contents stay valid.
        """
        with self._lock:
            self.check_usable()
            self.wait_for(self._queue.submitted, timeout_s)
            self._bury()

    def timeline_reached(self) -> int:
        """The last value that the queue has signalled."""
        return self._queue.reached

    def wait_for(self, timeline: int, timeout_s: float = SYNCHRONIZE_TIMEOUT_S) -> None:
        """Return when the timeline has reached a value; raises as ``synchronize`` does."""
        check_timeout(timeout_s)
        with self._lock:
            self.check_usable()
            queue = self._queue
            try:
                self._gpu.function.wait_until(
                    lambda: queue.reached >= timeline or queue.poll_faults(), timeout_s, self._description(timeline)
                )
            except Timeout as timeout:
                raise self._timed_out(timeout) from None
            except DeviceLost as lost:
                self.note_lost(lost)
                raise
            if queue.faults or (queue.unchecked and queue.poll_faults()):
                raise self._faulted()
            queue.retire()

    def _description(self, timeline: int) -> str:
        waiting = [launch.kernel for launch in self._queue.unfinished if launch.timeline <= timeline]
        before = f", behind {len(waiting) - 1} more" if len(waiting) > 1 else ""
        return f"kernel {waiting[-1]!r} to end{before}" if waiting else "the compute queue"

    def _faulted(self) -> AmdrvError:
        self._check_answers()
        faults = self._queue.faults
        kernels = [launch.kernel for launch in self._queue.unfinished]
        stop = self._find_stop(diagnosis.main_fault(faults))
        return self._rebuild(
            diagnosis.explain(self.name, faults, kernels, self._book, stop, self._locate, self._aftermath)
        )

    def _find_stop(self, fault: diagnosis.Fault) -> diagnosis.Stop | None:
        """Where a wave stands halted because of ``fault``, and which of its lanes is to blame."""
        wave = self._gpu.halted_wave()
        if wave is None:
            return None
        code = code_at(self._gpu.memory, self.arch, wave.pc)
        if code.instruction is None or fault.kind not in (PAGE_FAULT, MEMORY_VIOLATION):
            return diagnosis.Stop(wave.pc, code, wave.workgroup)
        kernel = next((kernel for module in self._modules if (kernel := module.kernel_at(wave.pc)) is not None), None)
        lanes = kernel.descriptor.wavefront_size if kernel is not None else WAVE32_LANES
        access = stopped_wave.culprit(code, wave, lanes, fault.address)
        return diagnosis.Stop(wave.pc, code, wave.workgroup, access)

    @property
    def _aftermath(self) -> str:
        return diagnosis.CLOSED if self._closing else diagnosis.SURVIVES

    def _timed_out(self, timeout: Timeout) -> AmdrvError:
        self._check_answers()
        if self._queue.poll_faults(thorough=True):
            return self._faulted()
        running = [launch.kernel for launch in self._queue.unfinished]
        wave = self._gpu.halted_wave(or_running=True) if running else None
        stop, hint = None, ""
        if wave is not None:
            stop = diagnosis.Stop(wave.pc, code_at(self._gpu.memory, self.arch, wave.pc), wave.workgroup)
        if running:
            at = f", a wave of it {diagnosis.describe(stop, self._locate(stop.pc))}" if stop is not None else ""
            hint = f"{running[0]!r} was running{at}; "
        if len(running) > 1:
            hint += f"dropped behind it: {diagnosis.names(running[1:])}; "
        error = Timeout(
            timeout.what,
            timeout.timeout_s,
            hint=hint + self._aftermath,
            pc=stop.pc if stop is not None else None,
            mnemonic=stop.code.mnemonic if stop is not None else "",
            workgroup=stop.workgroup if stop is not None else None,
        )
        return self._rebuild(error)

    def _rebuild(self, error: AmdrvError) -> AmdrvError:
        """Restart the queue after ``error``, which is the first unfinished launch's; those behind it were dropped.

        Returns what to raise: ``error``, or a DeviceLost when the queue cannot be restarted.
        """
        log.warning("%s", error)
        dropped = self._queue.drop()
        try:
            self._gpu.recover()
            self._queue.restart()
        except AmdrvError as worse:
            self._lost_because = f"it did not recover ({worse}) from this: {_first_clause(error)}"
            error = DeviceLost(f"{self.name}: {self._lost_because}; close it, the next open resets it")
        if dropped:
            dropped[0].error = error
            self._mark_dropped(dropped[1:], _first_clause(error))
        return error

    def _check_answers(self) -> None:
        """Raise DeviceLost when the device is not on the bus any more: what its registers say means nothing then."""
        try:
            read_size_bytes(self._gpu.function)
        except DeviceLost as lost:
            self.note_lost(lost)
            raise

    def note_lost(self, lost: DeviceLost) -> None:
        """The card turned out not to be there any more."""
        if not self._lost_because:
            self._lost_because = "it does not answer any more"
            self._mark_dropped(self._queue.drop(), _first_clause(lost))

    @staticmethod
    def _mark_dropped(launches: Iterable[Launch], because: str) -> None:
        for launch in launches:
            launch.error = diagnosis.dropped(launch.kernel, because)

    def _locate(self, pc: int) -> str | None:
        return next((place for module in self._modules if (place := module.locate(pc)) is not None), None)

    # -- life ---------------------------------------------------------------------------------------------------------

    def check_usable(self) -> None:
        """Raise DeviceLost after a reset that took the memory, InvalidArgument after ``close``."""
        if self._lost_because or self._gpu.lost:
            because = self._lost_because or "it does not answer any more"
            raise DeviceLost(f"{self.name}: {because}; buffers and modules are gone, open the device again")
        if self._closed:
            raise InvalidArgument(f"{self.name} was closed")

    def reset(self, level: str = "mode1") -> None:
        """Reset the device: "queue", "engine", "mode1" or "function".

        The first two drop queued work and keep memory. The others lose memory: buffers and modules are gone, the
        device must be opened again and then boots cold. Raises InvalidArgument for another level, Refused when the
        platform does not offer it, Timeout.
        """
        with self._lock:
            self.check_usable()
            self._gpu.reset(level)
            self._mark_dropped(self._queue.drop(), f"the device was reset (level {level})")
            if self._gpu.lost:
                self._lost_because = f"a reset (level {level}) took its memory"
            else:
                self._queue.restart()

    def close(self) -> None:
        """Wait 10 s for queued work, stop the device, give it back. Closing again does nothing.

        Raises GpuFault or Timeout for work that failed or did not end; it is ended and the device closed all the same.
        """
        with self._lock:
            if self._closed:
                return
            try:
                self._closing = True
                if self.usable:
                    self.synchronize(CLOSE_TIMEOUT_S)
            finally:
                self._closed = True
                self._mark_dropped(self._queue.drop(), "the device was closed")
                self._queue.detach()
                self._stop()

    def _stop(self) -> None:
        try:
            self._abandon()
        except DeviceLost as lost:
            if not self._lost_because:
                raise
            log.info("%s: while closing: %s", self.name, lost)

    def __enter__(self) -> Self:
        if self._closed:
            raise InvalidArgument(f"{self.name} was closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception as also:  # the error that is on its way already comes first
            log.warning("%s: while closing: %s", self.name, also)

    def __repr__(self) -> str:
        state = " closed" if self._closed else " lost" if self._gpu.lost else ""
        return f"<Device {self.name} {self.arch}{state}>"


def _give_back(retire: weakref.WeakMethod[Callable[[Allocation], None]], allocation: Allocation) -> None:
    """Retire memory whose owner is gone; a device that is gone as well has given back all of it."""
    if (method := retire()) is not None:
        method(allocation)


def _first_clause(error: AmdrvError) -> str:
    """What an error says first, for quoting it in another."""
    return str(error).partition("; ")[0]
