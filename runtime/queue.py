"""One compute queue: a packet ring, space for kernel arguments, and a timeline that says how far the GPU has come.

A submission is published in this order: arguments and packets, host data path flush if device memory changed, write
pointer, doorbell. Every submission ends by writing the next timeline value; nothing is reused before its value has
been reached. Waiting is the transport's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amdrv.errors import OutOfMemory
from amdrv.runtime import packets
from amdrv.runtime.bump_ring import BumpRing
from amdrv.runtime.launch import Launch
from amdrv.runtime.packets import Words

if TYPE_CHECKING:
    from amdrv.faults import FaultRecord
    from amdrv.gpu import Gpu
    from amdrv.memory.manager import Allocation

RING_BYTES = 256 << 10
DWORD_BYTES = 4
ARGUMENT_BYTES = 1 << 20
ARGUMENT_ALIGN = 64  # a cache line; AMDGPUUsage asks for 16
EOP_BYTES = 4096  # Linux 6.12 gfx_v11_0.c: GFX11_MEC_HPD_SIZE is 2048
# The control page: each field has a cache line of its own.
RPTR_OFFSET, WPTR_OFFSET, SIGNAL_OFFSET, DESCRIPTION_OFFSET, CONTROL_BYTES = 0, 64, 128, 1024, 4096
# Every submission ends with an interrupt. A program that launches and never waits must not let them pile up until the
# driver's interrupt ring (8192 entries) overflows and a fault is lost.
INTERRUPTS_MAX = 2048


@dataclass(frozen=True, slots=True)
class ArgumentBlock:
    """Host memory of one launch that the GPU reads: arguments, dispatch packet, times."""

    va: int
    view: memoryview


@dataclass(frozen=True, slots=True)
class _InFlight:
    launch: Launch
    ticks: memoryview | None  # two 64-bit counters
    module: object  # stays loaded, and nameable in a diagnosis, until the launch has ended


class LaunchQueue:
    """The device's compute queue. Not thread-safe: the device serialises its users."""

    def __init__(self, gpu: Gpu, wait_for: Callable[[int], None]) -> None:
        """Allocate its memory and start it.

        ``wait_for`` returns when the timeline has reached a value; the queue calls it when it is full. Raises
        OutOfMemory, Timeout.
        """
        self._gpu = gpu
        self._wait_for = wait_for
        memory = gpu.memory
        self._ring_memory = memory.alloc_host(RING_BYTES)
        self._control = memory.alloc_host(CONTROL_BYTES)
        self._arguments = memory.alloc_host(ARGUMENT_BYTES)
        self._eop = memory.alloc_vram(EOP_BYTES)
        self._ring_words = np.frombuffer(host_view(self._ring_memory), dtype=np.uint32)
        self._argument_view = host_view(self._arguments)
        control = np.frombuffer(host_view(self._control), dtype=np.uint64)
        self._pointers = control[: SIGNAL_OFFSET // 8]  # read and write pointer
        self._wptr, self._signal = control[WPTR_OFFSET // 8 :][:1], control[SIGNAL_OFFSET // 8 :][:1]
        self.faults: list[FaultRecord] = []  # seen and not yet reported
        self.submitted = 0  # last timeline value handed to the GPU
        self.unchecked = False  # whether work has been submitted that may still report faults
        self._flush_needed = False
        self._in_flight: deque[_InFlight] = deque()
        properties = gpu.properties
        description = packets.queue_description(properties.shared_window, properties.private_window)
        self._control.write(DESCRIPTION_OFFSET, description)
        self._start()

    # -- state --------------------------------------------------------------------------------------------------------

    @property
    def signal_va(self) -> int:
        """Device address of the timeline."""
        return self._control.va + SIGNAL_OFFSET

    @property
    def description_va(self) -> int:
        """Device address of the queue's description, for kernels that want a queue pointer."""
        return self._control.va + DESCRIPTION_OFFSET

    @property
    def reached(self) -> int:
        """Last timeline value that the GPU has signalled."""
        return int(self._signal[0])

    @property
    def idle(self) -> bool:
        """Whether everything submitted has ended."""
        return self.reached >= self.submitted

    @property
    def unfinished(self) -> list[Launch]:
        """Launches that have not ended, oldest first."""
        self.retire()
        return [entry.launch for entry in self._in_flight]

    def poll_faults(self, *, thorough: bool = False) -> bool:
        """Collect what the device reports; whether there is anything unreported.

        It also lets the device send its next interrupt, which waiting needs. Only a ``thorough`` call that finds
        nothing costs register accesses.
        """
        ended = self.idle
        self.faults.extend(self._gpu.take_faults(thorough))
        self.unchecked = self.unchecked and not ended
        return bool(self.faults)

    def retire(self) -> None:
        """Give back the space of what has ended and keep its times."""
        reached = self.reached
        self._packets.retire(reached)
        self._blocks.retire(reached)
        while self._in_flight and self._in_flight[0].launch.timeline <= reached:
            entry = self._in_flight.popleft()
            if entry.ticks is None:
                entry.launch.finish(None)
            else:
                start, end = entry.ticks.cast("Q")
                entry.launch.finish((start, end))

    # -- submission ---------------------------------------------------------------------------------------------------

    def memory_written(self) -> None:
        """The CPU wrote device memory that the next submission must see."""
        self._flush_needed = True

    def reserve(self, size_bytes: int) -> ArgumentBlock:
        """Memory that lasts until the next submission has ended. Raises what ``wait_for`` raises when all is in use."""
        at = self._reserve(self._blocks, size_bytes, ARGUMENT_ALIGN, contiguous=True) % ARGUMENT_BYTES
        return ArgumentBlock(self._arguments.va + at, self._argument_view[at : at + size_bytes])

    def submit(self, words: Words, launch: Launch, ticks: memoryview | None, module: object) -> None:
        """Queue the packets of ``launch``, which end by writing ``launch.timeline``, and ring the doorbell.

        ``ticks`` are the 16 bytes that timed packets write; ``module`` is kept until the launch has ended. Raises what
        ``wait_for`` raises when the ring is full.
        """
        start = self._reserve(self._packets, len(words), 1, contiguous=False) % self._packets.size
        first = min(len(words), self._packets.size - start)
        self._ring_words[start : start + first] = words[:first]
        self._ring_words[: len(words) - first] = words[first:]
        self.submitted = launch.timeline
        self.unchecked = True
        self._in_flight.append(_InFlight(launch, ticks, module))
        self._packets.commit(launch.timeline)
        self._blocks.commit(launch.timeline)
        self._publish()
        if launch.timeline % INTERRUPTS_MAX == 0:
            self.poll_faults()

    def _reserve(self, ring: BumpRing, count: int, align: int, *, contiguous: bool) -> int:
        while True:
            self.retire()
            position = ring.reserve(count, align, contiguous=contiguous)
            if position is not None:
                return position
            if ring.oldest is None:
                raise OutOfMemory(f"{ring.name}: {count} units wanted, {ring.size} are there and none will come free")
            self._wait_for(ring.oldest)

    def _publish(self) -> None:
        if self._flush_needed:
            self._gpu.memory.flush_hdp()
            self._flush_needed = False
        else:
            self._gpu.memory.publish()
        # The doorbell is an uncached store: the stores before it, program order on x86, are visible when it arrives.
        self._wptr[0] = self._packets.head
        self._gpu.ring_doorbell(self._hardware.doorbell_offset, self._packets.head)

    # -- life ---------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Point the hardware at empty rings. The timeline goes on where it was."""
        self._packets = BumpRing("compute ring", RING_BYTES // DWORD_BYTES)
        self._blocks = BumpRing("kernel argument memory", ARGUMENT_BYTES)
        self._pointers[:] = 0
        self._signal[0] = self.submitted
        self._hardware = self._gpu.create_compute_queue(
            self._ring_memory, self._control.va + RPTR_OFFSET, self._control.va + WPTR_OFFSET, self._eop
        )

    def drop(self) -> list[Launch]:
        """Forget what has not ended, and faults. Returns the launches, oldest first."""
        dropped = self.unfinished
        self._in_flight.clear()
        self.faults.clear()
        self.unchecked = False
        return dropped

    def restart(self) -> None:
        """Start afresh after the hardware queue was taken off. Every timeline value handed out counts as reached."""
        self._in_flight.clear()
        self._start()

    def detach(self) -> None:
        """Let go of memory that is about to be unmapped. The timeline stays readable."""
        self._signal = np.array([self.submitted], dtype=np.uint64)
        self._ring_words = np.empty(0, dtype=np.uint32)
        self._pointers = self._wptr = np.empty(0, dtype=np.uint64)
        self._argument_view = memoryview(b"")


def host_view(allocation: Allocation) -> memoryview:
    """The CPU's view of host memory."""
    if allocation.view is None:
        raise OutOfMemory(f"the memory at {allocation.va:#x} has no CPU view")
    return allocation.view
