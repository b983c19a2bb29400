"""One queue's packet processor: fetches packets, executes them in order, reports its read pointer.

It runs in the card's worker as a generator (see worker.py). Register state is touched under the card's lock; memory and
dispatches are not, so that the host goes on. What each packet does: Linux 6.12 gfx_v11_0.c and nvd.h, amdkfd
kfd_pm4_headers_ai.h; Mesa's pkt3 descriptions where the kernel has no name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from amdrv.emulator.isa.dispatch import MemoryViolation, ShaderFault
from amdrv.emulator.pm4.dispatch import build_dispatch
from amdrv.emulator.pm4.faults import report_bad_packet, report_memory_violation, report_shader_fault, send_end_of_pipe
from amdrv.emulator.pm4.memory_packets import MEMORY_PACKETS, MemoryUnit
from amdrv.emulator.pm4.stream import BadPacket, Packet, Ring, packet_at
from amdrv.emulator.worker import Progress, Task
from amdrv.facts.pm4 import (
    ACQUIRE_MEM,
    COND_EXEC,
    DISPATCH_DIRECT,
    DISPATCH_INDIRECT,
    INDIRECT_BUFFER,
    SET_REG,
    SET_WINDOWS,
    WAIT_REG_MEM,
    WAIT_REG_MEM64,
    CompareFunction,
    Opcode,
)

if TYPE_CHECKING:
    from amdrv.emulator.models.mec_11_0 import Mec, QueueState

MAX_IB_DEPTH = 2  # an indirect buffer may call one more; chaining does not count
COMPARE: dict[int, Callable[[int, int], bool]] = {
    CompareFunction.ALWAYS: lambda value, reference: True,
    CompareFunction.LESS: lambda value, reference: value < reference,
    CompareFunction.LESS_EQUAL: lambda value, reference: value <= reference,
    CompareFunction.EQUAL: lambda value, reference: value == reference,
    CompareFunction.NOT_EQUAL: lambda value, reference: value != reference,
    CompareFunction.GREATER_EQUAL: lambda value, reference: value >= reference,
    CompareFunction.GREATER: lambda value, reference: value > reference,
}
# Packets that order or annotate: caches are coherent here, and a dispatch ends before the next packet begins.
ORDERING_ONLY = frozenset(
    {
        Opcode.NOP,
        Opcode.CLEAR_STATE,
        Opcode.CONTEXT_CONTROL,
        Opcode.PFP_SYNC_ME,
        Opcode.EVENT_WRITE,
        Opcode.FRAME_CONTROL,
    }
)


class QueueProcessor:
    """Executes the ring of one hardware queue from ``rptr`` (dwords) on."""

    def __init__(self, mec: Mec, queue: tuple[int, int, int], rptr: int) -> None:
        self.mec = mec
        self.card = mec.card
        self.queue = queue
        self.rptr = rptr

    def run(self, state: QueueState) -> Task:
        """Work until the write pointer is reached, the queue is stopped, or a fault hangs it."""
        vmid = self.mec.hqd(self.queue, "CP_HQD_VMID") & 15
        self.view = self.mec.hub.view(vmid)
        self.vmid = vmid
        self.memory = MemoryUnit(self.card, self.view, self._store_register, self._load_register)
        size = 2 << (self.mec.hqd(self.queue, "CP_HQD_PQ_CONTROL") & 0x3F)
        base = self.mec.hqd_pair(self.queue, "CP_HQD_PQ_BASE", "CP_HQD_PQ_BASE_HI") << 8
        ring = Ring(self.view, base, size)
        try:
            yield from self._drain(ring, state)
        except MemoryViolation as violation:
            report_memory_violation(self.mec, state, self.vmid, violation)
        except ShaderFault as fault:
            report_shader_fault(self.mec, self.queue, state, self.vmid, fault)
        except BadPacket as bad:
            report_bad_packet(self.mec, self.queue, state, self.vmid, bad)
        with self.card.lock:
            self.mec.finished(self.queue, state)

    def _drain(self, ring: Ring, state: QueueState) -> Task:
        while True:
            with self.card.lock:
                end = state.wptr
                if self.mec.stopped(state) or self.rptr == end:
                    self._report_rptr()
                    return
                running = self.mec.running
            if not running:
                yield Progress.BLOCKED
                continue
            for position in self._execute(ring, self.rptr, end, state, 0):
                if position is None:
                    yield Progress.BLOCKED
                else:
                    self.rptr = position
                    yield Progress.RAN
            if self.mec.stopped(state):
                continue
            self.rptr = end

    def _execute(
        self, ring: Ring, position: int, end: int, state: QueueState, depth: int
    ) -> Iterator[int | None]:
        """Packets from ``position`` to ``end``; yields the position after each, None while one waits."""
        while position < end and not self.mec.stopped(state):
            packet = packet_at(ring, position, end)
            if packet is None:
                position += 1
                continue
            position += packet.dwords
            if packet.opcode in (Opcode.WAIT_REG_MEM, Opcode.WAIT_REG_MEM64):
                while not self._holds(packet):
                    if self.mec.stopped(state):
                        return
                    yield None
            elif packet.opcode == Opcode.INDIRECT_BUFFER:
                yield from self._indirect_buffer(packet, state, depth)
            elif packet.opcode == Opcode.COND_EXEC:
                fields = COND_EXEC.decode(packet.body)
                if self.view.read32(fields["ADDRESS"] & ~3) == 0:
                    position += fields["EXEC_COUNT"]
            else:
                self._one(packet, state)
            yield position if depth == 0 else self.rptr

    def _indirect_buffer(self, packet: Packet, state: QueueState, depth: int) -> Iterator[int | None]:
        fields = INDIRECT_BUFFER.decode(packet.body)
        if depth >= MAX_IB_DEPTH and not fields["CHAIN"]:
            raise BadPacket(packet.header, f"indirect buffers nest deeper than {MAX_IB_DEPTH}")
        size = fields["IB_SIZE"]
        if size:
            buffer = Ring(self.view, fields["IB_BASE"] & ~3, 1 << (size - 1).bit_length())
            yield from self._execute(buffer, 0, size, state, depth + 1)

    def _one(self, packet: Packet, state: QueueState) -> None:
        opcode = packet.opcode
        if opcode in SET_WINDOWS:
            self._set_registers(packet)
        elif opcode in (Opcode.DISPATCH_DIRECT, Opcode.DISPATCH_INDIRECT):
            self._dispatch(packet, state)
        elif opcode == Opcode.ACQUIRE_MEM:
            if ACQUIRE_MEM.decode(packet.body)["GLI_INV"]:
                self.card.shader_engine.invalidate_code()
        elif opcode in MEMORY_PACKETS:
            interrupt = MEMORY_PACKETS[opcode](self.memory, packet)
            if interrupt is not None:
                send_end_of_pipe(self.mec, self.queue, self.vmid, interrupt)
            self.card.notify()
        elif opcode not in ORDERING_ONLY:
            known = Opcode(opcode).name if opcode in set(Opcode) else f"opcode {opcode:#x}"
            raise BadPacket(packet.header, f"{known} is not for a compute queue")

    def _set_registers(self, packet: Packet) -> None:
        window = SET_WINDOWS[Opcode(packet.opcode)]
        first = window.start + SET_REG.decode(packet.body)["REG_OFFSET"]
        values = packet.body[1:]
        if first + len(values) > window.end:
            raise BadPacket(packet.header, "it writes past the end of its register window")
        with self.card.lock:
            for index, value in enumerate(values):
                self._store_register(first + index, value)

    def _dispatch(self, packet: Packet, state: QueueState) -> None:
        if packet.opcode == Opcode.DISPATCH_DIRECT:
            fields = DISPATCH_DIRECT.decode(packet.body)
            dimensions = (fields["DIM_X"], fields["DIM_Y"], fields["DIM_Z"])
        else:
            fields = DISPATCH_INDIRECT.decode(packet.body)
            address = fields["ADDRESS"] & ~3
            dimensions = (self.view.read32(address), self.view.read32(address + 4), self.view.read32(address + 8))
        with self.card.lock:
            dispatch = build_dispatch(self.mec, self.queue, self.vmid, dimensions, fields["DISPATCH_INITIATOR"])
        if dispatch is not None:
            stats = self.card.shader_engine.run(
                dispatch,
                self.view,
                cancelled=lambda: state.cancelled,
                realtime=self.card.realtime,
                interrupt=lambda data: None,
            )
            self.mec.count(stats)

    def _holds(self, packet: Packet) -> bool:
        layout = WAIT_REG_MEM if packet.opcode == Opcode.WAIT_REG_MEM else WAIT_REG_MEM64
        fields = layout.decode(packet.body)
        address = fields["ADDRESS"]
        if fields["OPERATION"] == 1:  # write a register once, then poll another for the value's bits
            with self.card.lock:
                self._store_register(address & 0xFFFF_FFFF, fields["REFERENCE"])
            address >>= 32
        if fields["OPERATION"] == 1 or fields["MEM_SPACE"] == 0:
            value = self._load_register(address & 0xFFFF_FFFF)
        elif layout is WAIT_REG_MEM:
            value = self.view.read32(address & ~3)
        else:
            value = self.view.read64(address & ~7)
        compare = COMPARE.get(fields["FUNCTION"])
        if compare is None:
            raise BadPacket(packet.header, f"compare function {fields['FUNCTION']} does not exist")
        return compare(value & fields["MASK"], fields["REFERENCE"])

    def _store_register(self, dword: int, value: int) -> None:
        with self.card.lock:
            self.card.space.store_bank(4 * dword, self.queue, value)

    def _load_register(self, dword: int) -> int:
        with self.card.lock:
            return self.card.space.load_bank(4 * dword, self.queue)

    def _report_rptr(self) -> None:
        self.mec.set_hqd(self.queue, "CP_HQD_PQ_RPTR", self.rptr & 0xFFFF_FFFF)
        address = self.mec.hqd_pair(self.queue, "CP_HQD_PQ_RPTR_REPORT_ADDR", "CP_HQD_PQ_RPTR_REPORT_ADDR_HI") & ~3
        if address:
            self.view.write(address, (self.rptr & 0xFFFF_FFFF).to_bytes(4, "little"))
            self.card.changed.notify_all()

