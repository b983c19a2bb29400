"""One queue of a copy engine: fetches packets, executes them in order, runs indirect buffers.

Sources: Linux 6.12 sdma_v6_0.c (sdma_v6_0_ring_emit_ib, sdma_v6_0_ring_init_cond_exec), sdma_v6_0_0_pkt_open.h. Read
and write pointers count bytes; ring positions here count dwords.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING

from amdrv.emulator.isa.dispatch import MemoryViolation
from amdrv.emulator.pm4.faults import report_memory_violation
from amdrv.emulator.pm4.queue_engine import QueueId, QueueState, RingProcessor
from amdrv.emulator.pm4.stream import BadPacket, Ring
from amdrv.emulator.sdma.packets import PACKETS
from amdrv.emulator.worker import Progress, Task
from amdrv.facts import sdma_v6_0 as facts
from amdrv.facts.sdma_v6_0 import CopySub, Opcode

if TYPE_CHECKING:
    from amdrv.emulator.models.sdma_6_0 import Sdma

DWORD_BYTES = 4
IB_ALIGNMENT = 32
FLOW_DWORDS: dict[int, int] = {Opcode.INDIRECT: 6, Opcode.COND_EXE: 5, Opcode.PRE_EXE: 2}
# Packets with a tail: the dword whose low bits hold its length, less one.
COUNTED: dict[tuple[int, int], int] = {(Opcode.WRITE, 0): 3}
COUNT_MASK = 0xF_FFFF
TELLING = frozenset({Opcode.FENCE, Opcode.TRAP, Opcode.NOP})
BROADCAST_BIT, BROADCAST_DWORDS = 27, 9  # a linear copy to two places is two dwords longer
DEVICE_ALL = 0xFF  # PRE_EXE.DEV_SEL


class SdmaRing(RingProcessor):
    """Executes the ring of one queue from byte ``rptr`` on."""

    def __init__(self, sdma: Sdma, queue: QueueId, rptr: int) -> None:
        super().__init__(sdma, queue, rptr)
        self.sdma = sdma

    def work(self, state: QueueState) -> Task:
        """Execute packets; a fault hangs the queue."""
        self.setup = self.engine.ring_setup(self.queue)
        self._use_vmid(self.setup.vmid)
        ring = Ring(self.view, self.setup.base, self.setup.size_dwords)
        try:
            yield from self._drain(ring, state)
        except MemoryViolation as violation:
            report_memory_violation(self.engine, state, self.vmid, violation)
            self.sdma.watch(self.queue, state, self.vmid)
        except BadPacket as bad:
            with self.card.lock:
                state.hung = True
                self.sdma.bad_packet(self.queue, bad)
            self.sdma.watch(self.queue, state, self.vmid)

    def load_register(self, address: int) -> int:
        """Read a register by its byte address."""
        with self.card.lock:
            return self.card.space.read(address)

    def store_register(self, address: int, value: int) -> None:
        """Write a register by its byte address."""
        with self.card.lock:
            self.card.space.write(address, value)

    def _use_vmid(self, vmid: int) -> None:
        self.vmid = vmid
        self.view = self.engine.hub.view(vmid)

    def _drain(self, ring: Ring, state: QueueState) -> Task:
        while True:
            with self.card.lock:
                end = state.wptr // DWORD_BYTES
                if self.engine.stopped(state) or self.rptr // DWORD_BYTES >= end:
                    self.engine.report_rptr(self.queue, self.rptr)
                    return
                runs = self.engine.may_run(self.queue)
            yield from self.pause(state)
            if not runs:
                yield Progress.BLOCKED
                continue
            for position in self._execute(ring, self.rptr // DWORD_BYTES, end, state, in_buffer=False):
                if position is None:
                    yield Progress.BLOCKED
                else:
                    self.rptr = position * DWORD_BYTES
                    yield Progress.RAN
                yield from self.pause(state)

    def has_work(self, state: QueueState) -> bool:
        """Whether a whole dword is left."""
        return self.rptr < state.wptr

    def _execute(
        self, ring: Ring, position: int, end: int, state: QueueState, *, in_buffer: bool
    ) -> Generator[int | None, None, None]:
        """Packets up to ``end``; yields the position after each (None while one waits, or inside a buffer)."""
        while position < end and not self.engine.stopped(state):
            (header,) = ring.words(position, 1)
            operation = header & 0xFF, header >> 8 & 0xFF
            size = self._size(ring, position, header, operation)
            if position + size > end:
                raise BadPacket(header, f"its {size} dwords run past the end of the stream")
            words = ring.words(position, size)
            following = position + size
            self.card.trace.packet(self.sdma.trace_language, state.task, position, words)
            if operation[0] == Opcode.INDIRECT:
                if in_buffer:
                    raise BadPacket(header, "indirect buffers do not nest")
                yield from self._indirect(words, state)
            elif operation[0] == Opcode.COND_EXE:
                fields = facts.COND_EXE.decode(words)
                if self.view.read32(fields["addr"] & ~3) != fields["reference"]:
                    following += fields["exec_count"]
            elif operation[0] == Opcode.PRE_EXE:
                fields = facts.PRE_EXE.decode(words)
                if not fields["dev_sel"] >> self.queue[0] & 1 and fields["dev_sel"] != DEVICE_ALL:
                    following += fields["exec_count"]
            elif operation[0] != Opcode.NOP:
                if operation[0] == Opcode.FENCE and not in_buffer and self._only_tells(ring, following, state):
                    self.card.worker.finishing(state.task)
                steps = PACKETS[operation][1](self, words, state)
                if steps is not None:
                    for _ in steps:
                        yield None
                self.card.notify()
            if self.engine.stopped(state):
                return
            position = following
            yield None if in_buffer else position

    def _only_tells(self, ring: Ring, position: int, state: QueueState) -> bool:
        """Whether nothing is left from ``position`` on but what tells of work that is done."""
        with suppress(BadPacket, MemoryViolation):
            while position < state.wptr // DWORD_BYTES:
                (header,) = ring.words(position, 1)
                if header & 0xFF not in TELLING:
                    return False
                position += self._size(ring, position, header, (header & 0xFF, header >> 8 & 0xFF))
            return True
        return False

    def _indirect(self, words: tuple[int, ...], state: QueueState) -> Generator[int | None, None, None]:
        fields = facts.INDIRECT.decode(words)
        size = fields["ib_size"]
        if not size:
            return
        outer = self.vmid
        if fields["vmid"] and not outer:  # the kernel's rings run the buffers of its clients
            self._use_vmid(fields["vmid"])
        buffer = Ring(self.view, fields["ib_base"] & ~(IB_ALIGNMENT - 1), 1 << (size - 1).bit_length())
        yield from self._execute(buffer, 0, size, state, in_buffer=True)
        self._use_vmid(outer)

    def _size(self, ring: Ring, position: int, header: int, operation: tuple[int, int]) -> int:
        opcode = operation[0]
        if opcode == Opcode.NOP:
            return 1 + facts.NOP.decode((header,))["count"]
        if opcode in FLOW_DWORDS:
            return FLOW_DWORDS[opcode]
        if operation not in PACKETS:
            raise BadPacket(header, f"the copy engine does not know {_name(operation)}")
        size = PACKETS[operation][0]
        if operation == (Opcode.COPY, CopySub.LINEAR) and header >> BROADCAST_BIT & 1:
            return BROADCAST_DWORDS
        counter = COUNTED.get(operation)
        if counter is not None:
            size += (ring.words(position + counter, 1)[0] & COUNT_MASK) + 1
        return size


def _name(operation: tuple[int, int]) -> str:
    opcode, variant = operation
    if opcode == Opcode.COPY and variant in frozenset(CopySub):
        return f"COPY {CopySub(variant).name}"
    return f"{Opcode(opcode).name if opcode in frozenset(Opcode) else f'opcode {opcode}'} {variant}"
