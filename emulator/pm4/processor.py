"""One queue's packet processor: fetches packets, executes them in order, reports its read pointer.

It runs in the card's worker as a generator (see worker.py). Register state is touched under the card's lock; memory and
dispatches are not, so that the host goes on. What each packet does: Linux 6.12 gfx_v11_0.c and nvd.h, amdkfd
kfd_pm4_headers_ai.h; Mesa's pkt3 descriptions where the kernel has no name.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.isa.dispatch import MemoryViolation, ShaderFault
from amdrv.emulator.pm4.compare import COMPARE
from amdrv.emulator.pm4.faults import report_bad_packet, report_memory_violation, report_shader_fault
from amdrv.emulator.pm4.look_ahead import Stream, nothing_follows
from amdrv.emulator.pm4.memory_packets import MemoryUnit
from amdrv.emulator.pm4.queue_engine import QueueEngine, QueueId, QueueState, RingProcessor
from amdrv.emulator.pm4.stream import BadPacket, Packet, PrivilegedRegister, Ring, packet_at
from amdrv.emulator.worker import Progress, Task
from amdrv.facts.pm4 import COND_EXEC, COND_INDIRECT_BUFFER, INDIRECT_BUFFER, SET_WINDOWS, Opcode, RegisterWindow

if TYPE_CHECKING:
    from amdrv.emulator.models.mec_11_0 import Mec

PACKETS_A_STEP = 16  # before other queues get their turn
MAX_IB_DEPTH = 2  # an indirect buffer may call one more; chaining does not count
# What a packet of an unprivileged queue may touch: persistent shader state, context registers, and of the window of
# user configuration what AMD's headers put into the address blocks gfxudec, perfddec and perfsdec. The rest of it
# belongs to the engines' control, RLC, IMU, hypervisor and PSP (gc_11_0_0_offset.h, gc_12_0_0_offset.h; inferred).
OPEN_WINDOWS = (
    SET_WINDOWS[Opcode.SET_SH_REG],
    SET_WINDOWS[Opcode.SET_CONTEXT_REG],
    RegisterWindow(0xC000, 0xC800),
    RegisterWindow(0xD000, 0xE000),
)
# Any queue may ask for a flush of the host data path and wait for it: user-space queues do, on amdkfd and without it
# (tinygrad's ops_amd.py, memory_barrier).
FLUSH_REGISTERS = ("BIF_BX_PF0_GPU_HDP_FLUSH_REQ", "BIF_BX_PF0_GPU_HDP_FLUSH_DONE")

# What a packet does: None when it is done at once, else steps that yield while it waits.
Handler = Callable[["QueueProcessor", Packet, QueueState], Iterator[None] | None]


class QueueProcessor(RingProcessor):
    """Executes the ring of one hardware queue from ``rptr`` (dwords) on.

    ``handlers`` are the packets that this kind of queue knows; ``mec`` has the COMPUTE registers.
    """

    def __init__(
        self, engine: QueueEngine, mec: Mec, queue: QueueId, rptr: int, handlers: Mapping[int, Handler]
    ) -> None:
        super().__init__(engine, queue, rptr)
        self.mec = mec
        self.handlers = handlers
        bus = self.card.registers.block("NBIO")
        self._open_registers = {bus[name].address // 4 for name in FLUSH_REGISTERS}
        self.streams: list[Stream] = []  # what follows the packet being executed, outermost stream first

    def work(self, state: QueueState) -> Task:
        """Execute packets; a fault hangs the queue."""
        self.setup = self.engine.ring_setup(self.queue)
        self.use_vmid(self.setup.vmid, privileged=self.setup.privileged)
        ring = Ring(self.view, self.setup.base, self.setup.size_dwords)
        try:
            yield from self._drain(ring, state)
        except MemoryViolation as violation:
            report_memory_violation(self.engine, state, self.vmid, violation)
        except ShaderFault as fault:
            report_shader_fault(self.engine, self.queue, state, self.vmid, fault)
        except BadPacket as bad:
            report_bad_packet(self.engine, self.queue, state, self.vmid, bad)

    def use_vmid(self, vmid: int, *, privileged: bool) -> None:
        """From now on packets see memory as ``vmid``."""
        self.vmid = vmid
        self.privileged = privileged
        self.view = self.engine.hub.view(vmid)
        self.memory = MemoryUnit(self.card, self.view, self.store_register, self.load_register)

    def store_register(self, dword: int, value: int) -> None:
        """Write a register, of this queue where it has banks. Raises PrivilegedRegister."""
        self.store_registers(dword, (value,))

    def store_registers(self, first: int, values: Sequence[int]) -> None:
        """Write registers one behind the other; the last may be refused when those before it are written."""
        store, queue = self.card.space.store_bank, self.queue
        with self.card.lock:
            for dword, value in enumerate(values, first):
                self._check_register(dword)
                store(4 * dword, queue, value)

    def load_register(self, dword: int) -> int:
        """Read a register, of this queue where it has banks. Raises PrivilegedRegister."""
        self._check_register(dword)
        with self.card.lock:
            return self.card.space.load_bank(4 * dword, self.queue)

    def at_end(self, state: QueueState) -> bool:
        """Whether the packet being executed is the last that the queue has."""
        return nothing_follows(reversed(self.streams), state.wptr)

    def _check_register(self, dword: int) -> None:
        if self.privileged or dword in self._open_registers:
            return
        if not any(window.start <= dword < window.end for window in OPEN_WINDOWS):
            name = self.card.space.name_at(4 * dword)
            raise PrivilegedRegister(dword, f"{name} is not for an unprivileged queue")

    def _drain(self, ring: Ring, state: QueueState) -> Task:
        while True:
            with self.card.lock:
                end = state.wptr
                if self.engine.stopped(state) or self.rptr == end:
                    self.engine.report_rptr(self.queue, self.rptr)
                    return
                runs = self.engine.may_run(self.queue)
            yield from self.pause(state)
            if not runs:
                yield Progress.BLOCKED
                continue
            for done, position in enumerate(self._execute(ring, self.rptr, end, state, 0), 1):
                if position is None:
                    yield Progress.BLOCKED
                else:
                    self.rptr = position
                    if done % PACKETS_A_STEP == 0:
                        yield Progress.RAN
                yield from self.pause(state)
            if not self.engine.stopped(state):
                self.rptr = end

    def _execute(
        self, ring: Ring, position: int, end: int, state: QueueState, depth: int
    ) -> Iterator[int | None]:
        """Packets from ``position`` to ``end``; yields the position after each, None while one waits.

        A stopped queue keeps the position of the packet that it was in.
        """
        while position < end and not self.engine.stopped(state):
            packet = packet_at(ring, position, end)
            if packet is None:
                position += 1
                continue
            following = position + packet.dwords
            self.streams[depth:] = [(ring, following, end)]
            self.card.trace.packet("pm4", state.task, position, (packet.header, *packet.body))
            if packet.opcode == Opcode.COND_EXEC:
                fields = COND_EXEC.decode(packet.body)
                if self.view.read32(fields["ADDRESS"] & ~3) == 0:
                    following += fields["EXEC_COUNT"]
            elif packet.opcode == Opcode.REWIND:
                # What follows is fetched anew once the flag in the packet itself is set.
                yield from self.wait(state, partial(_is_valid, ring, position + 1))
            elif packet.opcode == Opcode.INDIRECT_BUFFER:
                jumped = yield from self._indirect_buffer(packet, state, depth)
                following = end if jumped else following
            else:
                steps = self._handler(packet)(self, packet, state)
                if steps is not None:
                    yield from steps
            if self.engine.stopped(state) and packet.opcode in RESUMABLE:
                return
            position = following
            yield position if depth == 0 else self.rptr

    def _handler(self, packet: Packet) -> Handler:
        handler = self.handlers.get(packet.opcode)
        if handler is None:
            known = Opcode(packet.opcode).name if packet.opcode in set(Opcode) else f"opcode {packet.opcode:#x}"
            raise BadPacket(packet.header, f"{known} is not for {self.engine.ip} queue {self.queue}")
        return handler

    def _indirect_buffer(
        self, packet: Packet, state: QueueState, depth: int
    ) -> Generator[int | None, None, bool]:
        """Run a buffer; returns whether it was a jump, after which nothing comes back here."""
        if Opcode.INDIRECT_BUFFER not in self.handlers:
            raise BadPacket(packet.header, "this queue takes no indirect buffers")
        if len(packet.body) >= COND_INDIRECT_BUFFER.dwords:
            base, size, vmid, chain = self._conditional_buffer(packet)
        else:
            fields = INDIRECT_BUFFER.decode(packet.body)
            base, size, vmid, chain = fields["IB_BASE"], fields["IB_SIZE"], fields["VMID"], fields["CHAIN"]
        if depth >= MAX_IB_DEPTH and not chain:
            raise BadPacket(packet.header, f"indirect buffers nest deeper than {MAX_IB_DEPTH}")
        jump = bool(chain) and depth > 0
        if not size:
            return jump
        outer = self.vmid, self.privileged
        if vmid and not outer[0]:  # the kernel's rings run the buffers of its clients
            self.use_vmid(vmid, privileged=False)
        buffer = Ring(self.view, base & ~3, 1 << (size - 1).bit_length())
        yield from self._execute(buffer, 0, size, state, depth if jump else depth + 1)
        self.use_vmid(outer[0], privileged=outer[1])
        return jump

    def _conditional_buffer(self, packet: Packet) -> tuple[int, int, int, int]:
        fields = COND_INDIRECT_BUFFER.decode(packet.body)
        value = self.view.read64(fields["COMPARE_ADDRESS"] & ~7) & fields["MASK"]
        compare = COMPARE.get(fields["FUNCTION"])
        if compare is None or fields["MODE"] not in (1, 2):
            raise BadPacket(packet.header, f"conditional buffer of mode {fields['MODE']}, {fields['FUNCTION']}")
        if compare(value, fields["REFERENCE"]):
            return fields["IB1_BASE"], fields["IB1_SIZE"], 0, 0
        return fields["IB2_BASE"], fields["IB2_SIZE"] if fields["MODE"] == 2 else 0, 0, 0


def _is_valid(ring: Ring, position: int) -> bool:
    return bool(ring.words(position, 1)[0] >> 31)


# Packets that a stopped queue may be in the middle of: they are executed again when it is connected again.
RESUMABLE = frozenset({Opcode.WAIT_REG_MEM, Opcode.WAIT_REG_MEM64, Opcode.INDIRECT_BUFFER, Opcode.REWIND})
