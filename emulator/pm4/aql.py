"""A queue that holds AQL packets: kernel dispatches, barriers, and AMD's vendor packets.

The doorbell says which packet is the last; a packet is live once its header is valid. What is done is marked invalid
and counted in the queue's read index. Sources: see amdrv/facts/aql.py; that packets past the doorbell run when they are
live and within the write index: ROCr's AqlQueue leaves the doorbell out while it is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.pm4.aql_dispatch import QueueRefusal, build_aql_dispatch
from amdrv.emulator.pm4.faults import send_end_of_pipe
from amdrv.emulator.pm4.look_ahead import nothing_follows
from amdrv.emulator.pm4.packets import COMPUTE_PACKETS
from amdrv.emulator.pm4.processor import QueueProcessor
from amdrv.emulator.pm4.queue_engine import QueueId, QueueState
from amdrv.emulator.pm4.stream import BadPacket, Packet, Ring
from amdrv.emulator.worker import Progress, Task
from amdrv.facts.aql import (
    ACQUIRE_SHIFT,
    BARRIER,
    BARRIER_VALUE,
    HEADER_INVALID,
    KERNEL_DISPATCH,
    PACKET_BYTES,
    QUEUE,
    RELEASE_SHIFT,
    SCOPE_MASK,
    SCOPE_SYSTEM,
    SIGNAL,
    VENDOR_PM4,
    PacketType,
    QueueError,
    SignalCondition,
    VendorFormat,
)
from amdrv.facts.pm4 import HEADER, Opcode

if TYPE_CHECKING:
    from amdrv.emulator.models.mec_11_0 import Mec

CONDITIONS: dict[int, Callable[[int, int], bool]] = {
    SignalCondition.EQUAL: lambda value, reference: value == reference,
    SignalCondition.NOT_EQUAL: lambda value, reference: value != reference,
    SignalCondition.LESS: lambda value, reference: value < reference,
    SignalCondition.GREATER_EQUAL: lambda value, reference: value >= reference,
}
SHADER_CACHES = {"GLI_INV": 1, "GLK_INV": 1, "GLV_INV": 1, "GL1_INV": 1}


class AqlProcessor(QueueProcessor):
    """Executes AQL packets; ``rptr`` and the state's ``wptr`` count packets."""

    def __init__(self, mec: Mec, queue: QueueId, rptr: int) -> None:
        super().__init__(mec, mec, queue, rptr, COMPUTE_PACKETS)
        self._queue_va = 0

    def has_work(self, state: QueueState) -> bool:
        """Whether the doorbell covers more packets."""
        return self.rptr < state.wptr

    def at_end(self, state: QueueState) -> bool:
        """Whether this packet, or one in the buffer that it names, is the last that the doorbell covers."""
        return self.rptr + 1 >= state.wptr and nothing_follows(reversed(self.streams), 0)

    def _drain(self, _ring: Ring, state: QueueState) -> Task:
        report = self.setup.rptr_report
        if not self._queue_va:
            offset = QUEUE.offset("read_dispatch_id_field_base_byte_offset") - QUEUE.offset("read_dispatch_id")
            self._queue_va = report - self.view.read32(report + offset)
            self.rptr = max(self.rptr, self.view.read64(report))
        slots = self.setup.size_dwords * 4 // PACKET_BYTES
        while True:
            with self.card.lock:
                if self.engine.stopped(state):
                    return
                runs = self.engine.may_run(self.queue)
            yield from self.pause(state)
            va = self.setup.base + self.rptr % slots * PACKET_BYTES
            header = int.from_bytes(self.view.read(va, 2), "little")
            live = header & 0xFF != PacketType.INVALID
            if self.rptr >= state.wptr:  # past the doorbell only what is within the write index and live already
                with self.card.lock:
                    written = self.view.read64(self._queue_va + QUEUE.offset("write_dispatch_id"))
                    if self.rptr >= state.wptr and not (live and self.rptr < written):
                        return
            if not (runs and live):
                yield Progress.BLOCKED
                continue
            for _ in self._packet(va, header, state):
                yield Progress.BLOCKED
            if self.engine.stopped(state):
                return
            self._consume(va)
            yield Progress.RAN

    def _consume(self, va: int) -> None:
        self.view.write(va, HEADER_INVALID.to_bytes(2, "little"))
        self.rptr += 1
        with self.card.lock:
            self.engine.report_rptr(self.queue, self.rptr)
            self.card.changed.notify_all()

    # -- packets ------------------------------------------------------------------------------------------------------

    def _packet(self, va: int, header: int, state: QueueState) -> Iterator[None]:
        packet = self.view.read(va, PACKET_BYTES)
        self.card.trace.packet("aql", state.task, self.rptr, packet)
        start = self.card.realtime()
        kind = header & 0xFF
        if kind == PacketType.KERNEL_DISPATCH:
            self._acquire(header >> ACQUIRE_SHIFT & SCOPE_MASK)
            yield from self._kernel(va, packet, header, state)
        elif kind in (PacketType.BARRIER_AND, PacketType.BARRIER_OR):
            signals = [signal for signal in BARRIER.get_array(packet, "dep_signal") if signal]
            together = all if kind == PacketType.BARRIER_AND else any
            if signals:
                yield from self.wait(state, lambda: together(self._signal_value(signal) == 0 for signal in signals))
        elif kind == PacketType.VENDOR_SPECIFIC:
            yield from self._vendor(packet, state)
        else:
            yield from self._refuse(QueueError.PACKET_FORMAT, state)
        if not self.engine.stopped(state):
            self.streams.clear()  # of a buffer that is done
            if self.at_end(state):
                self.card.worker.finishing(state.task)
            self._complete(KERNEL_DISPATCH.get(packet, "completion_signal"), start)

    def _kernel(self, va: int, packet: bytes, header: int, state: QueueState) -> Iterator[None]:
        released = bool(header >> RELEASE_SHIFT & SCOPE_MASK)
        while not self.engine.stopped(state):
            queue = self.view.read(self._queue_va, QUEUE.size_bytes)
            try:
                with self.card.lock:
                    work = build_aql_dispatch(self, packet, va, queue, self._queue_va)
            except QueueRefusal as refusal:
                yield from self._refuse(refusal.code, state)
                continue
            self.mec.run_dispatch(work, self.queue, self.view, state, written_back=released)
            return

    def _vendor(self, packet: bytes, state: QueueState) -> Iterator[None]:
        form = packet[2]
        if form == VendorFormat.PM4_INDIRECT_BUFFER:
            words = VENDOR_PM4.get_array(packet, "jump")
            if HEADER.decode(words[:1])["OPCODE"] != Opcode.INDIRECT_BUFFER:
                raise BadPacket(words[0], "a vendor packet holds no INDIRECT_BUFFER")
            for position in self._indirect_buffer(Packet(words[0], Opcode.INDIRECT_BUFFER, words[1:], 4), state, 0):
                if position is None:
                    yield None
        elif form == VendorFormat.BARRIER_VALUE:
            yield from self.wait(state, partial(self._value_holds, packet))
        else:
            yield from self._refuse(QueueError.PACKET_FORMAT, state)

    def _value_holds(self, packet: bytes) -> bool:
        condition = CONDITIONS.get(BARRIER_VALUE.get(packet, "cond"))
        value = self._signal_value(BARRIER_VALUE.get(packet, "signal"))
        mask = BARRIER_VALUE.get(packet, "mask")
        masked = (value & mask) - (1 << 64 if value & mask >> 63 << 63 else 0)
        return condition is not None and condition(masked, BARRIER_VALUE.get(packet, "value"))

    def _acquire(self, scope: int) -> None:
        if scope:
            self.mec.invalidate_code()
            with self.card.lock:
                self.card.caches.maintain({**SHADER_CACHES, "GL2_INV": int(scope == SCOPE_SYSTEM)})

    # -- signals ------------------------------------------------------------------------------------------------------

    def _signal_value(self, signal: int) -> int:
        return int.from_bytes(self.view.read(signal + SIGNAL.offset("value"), 8), "little", signed=True)

    def _set_signal(self, signal: int, value: int) -> None:
        self.view.write(signal + SIGNAL.offset("value"), value.to_bytes(8, "little", signed=True))
        mailbox = self.view.read64(signal + SIGNAL.offset("event_mailbox_ptr"))
        if mailbox:
            event = self.view.read32(signal + SIGNAL.offset("event_id"))
            self.view.write(mailbox, event.to_bytes(8, "little"))
            send_end_of_pipe(self.engine, self.queue, self.vmid, event)
        self.card.notify()

    def _complete(self, signal: int, start: int) -> None:
        """Time stamps, then the value counts down by one."""
        if signal:
            self.view.write(signal + SIGNAL.offset("start_ts"), start.to_bytes(8, "little"))
            self.view.write(signal + SIGNAL.offset("end_ts"), self.card.realtime().to_bytes(8, "little"))
            self._set_signal(signal, self._signal_value(signal) - 1)

    def _refuse(self, code: QueueError, state: QueueState) -> Iterator[None]:
        """Tell the runtime through the queue's inactive signal, and go on when it has set it back to zero."""
        signal = self.view.read64(self._queue_va + QUEUE.offset("queue_inactive_signal"))
        if not signal:
            raise BadPacket(code, f"{code.name}, and the queue has no signal for it")
        self._set_signal(signal, code)
        yield from self.wait(state, lambda: self._signal_value(signal) == 0)
