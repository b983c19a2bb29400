"""Launches that are queued together, again and again, with one submission.

The packets of all launches are written once, in an indirect buffer that the queue runs. Only the pointers among the
kernels' arguments change from one time to the next. There are two copies of everything, so that one can be prepared
while the queue still runs the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument
from amdrv.runtime import packets
from amdrv.runtime.kernarg import POINTER_BYTES, POINTER_KINDS, LaunchShape
from amdrv.runtime.launch import Launch
from amdrv.runtime.packets import Words
from amdrv.runtime.queue import ARGUMENT_ALIGN, ArgumentBlock, host_view

if TYPE_CHECKING:
    from amdrv.memory.manager import Allocation
    from amdrv.runtime.device import Device
    from amdrv.runtime.module import Kernel

COPIES = 2
SIGNAL = packets.release_mem(0, 0)
BLOCK_EXTRA_BYTES = 256  # dispatch packet, times, alignment: what a launch has beside its arguments, at most


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What ``Kernel.launch`` takes."""

    kernel: Kernel
    grid: int | Sequence[int]
    block: int | Sequence[int]
    args: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A launch that was checked, with its arguments packed."""

    kernel: Kernel
    shape: LaunchShape
    arguments: bytes
    lds_bytes: int  # of a workgroup, fixed and dynamic together


@dataclass(slots=True)
class _Copy:
    """Arguments and packets in memory that the device reads."""

    pointers: NDArray[np.uint64]  # the whole memory
    places: NDArray[np.intp]  # of each pointer argument in it
    packets: Words  # for the ring: run the buffer, signal
    last: Launch | None = None  # what used it


class Graph:
    """Launches in order. Made by ``Device.graph``; keeps its modules and memory."""

    def __init__(self, device: Device, launches: Sequence[Prepared]) -> None:
        """Write the packets. Raises InvalidArgument for no launches or too many, OutOfMemory."""
        if not launches:
            raise InvalidArgument("a graph has at least one launch")
        self.name = f"graph of {len(launches)} launches"
        self._device, self._launches = device, launches
        self._uses_scratch = any(launch.kernel.code.descriptor.private_segment_bytes for launch in launches)
        self._scratch_va = 0  # that the packets name
        self._turn = itertools.cycle(range(COPIES))
        self._given_back_by: list[Callable[[], object]] = []
        self._write()

    @property
    def pointer_count(self) -> int:
        """How many pointer arguments all launches have together."""
        return len(self._copies[0].places)

    def replay(self, pointers: NDArray[np.uint64] | None = None) -> Launch:
        """Queue all launches behind the work queued so far and return without waiting for them.

        ``pointers`` are new device addresses for the pointer arguments of all launches, in their order; what kernels
        find there is not checked. Raises InvalidArgument for another number of them, and what ``Kernel.launch`` raises.
        """
        if pointers is not None and len(pointers) != self.pointer_count:
            raise InvalidArgument(f"{self.name} has {self.pointer_count} pointers, {len(pointers)} were given")
        with self._device.lock:
            self._device.check_usable()
            if self._uses_scratch and self._device.scratch_va != self._scratch_va:
                self._device.synchronize()
                self._write()
            copy = self._copies[next(self._turn)]
            if copy.last is not None and not copy.last.done:
                copy.last.wait()
            if pointers is not None:
                self._given = pointers.copy()
            copy.pointers[copy.places] = self._given
            copy.last = self._device.submit_graph(self, lambda timeline: _signalling(copy.packets, timeline))
            return copy.last

    def _write(self) -> None:
        """Both copies, in new memory."""
        for give_back in self._given_back_by:
            give_back()
        self._given_back_by.clear()
        self._copies = [self._copy() for _ in range(COPIES)]
        self._given = self._copies[0].pointers[self._copies[0].places]
        self._scratch_va = self._device.scratch_va

    def _copy(self) -> _Copy:
        arguments = self._allocate(sum(len(launch.arguments) + BLOCK_EXTRA_BYTES for launch in self._launches))
        used = 0

        def reserve(size_bytes: int) -> ArgumentBlock:
            nonlocal used
            at, used = used, -(-(used + size_bytes) // ARGUMENT_ALIGN) * ARGUMENT_ALIGN
            return ArgumentBlock(arguments.va + at, host_view(arguments)[at : at + size_bytes])

        words: list[Words] = []
        places: list[int] = []
        for launch in self._launches:
            kinds = launch.kernel.code.arguments or ()
            places += [(used + kind.offset) // POINTER_BYTES for kind in kinds if kind.kind in POINTER_KINDS]
            written, _ = self._device.write_launch(launch, reserve, 0)
            words.append(written[: -len(SIGNAL)])  # one signal for all of them
        code = np.concatenate(words)
        buffer = self._allocate(code.nbytes)
        host_view(buffer)[: code.nbytes] = code.tobytes()
        ring = [*packets.indirect_buffer(buffer.va, len(code)), *packets.release_mem(self._device.signal_va, 0)]
        return _Copy(
            np.frombuffer(host_view(arguments), np.uint64), np.array(places, np.intp), np.array(ring, np.uint32)
        )

    def _allocate(self, size_bytes: int) -> Allocation:
        allocation, give_back = self._device.allocate(size_bytes, self.name, self, host=True)
        self._given_back_by.append(give_back)
        return allocation


def _signalling(words: Words, timeline: int) -> Words:
    """Packets that end with a signal, with the value to signal."""
    found = words.copy()
    found[-3:-1] = timeline & 0xFFFF_FFFF, timeline >> 32  # DATA of RELEASE_MEM, which has one dword behind it
    return found
