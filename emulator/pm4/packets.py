"""What the packets do that every ring of the command processor knows, and which packets each kind of ring takes.

Sources: Linux 6.12 gfx_v11_0.c (what the kernel emits), nvd.h; AMD PAL's MEC packet descriptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from amdrv.emulator import atomics
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.models.vmhub import VmHub
from amdrv.emulator.pm4.compare import COMPARE
from amdrv.emulator.pm4.dispatch import build_dispatch
from amdrv.emulator.pm4.faults import send_end_of_pipe
from amdrv.emulator.pm4.look_ahead import write_back_follows
from amdrv.emulator.pm4.memory_packets import MEMORY_PACKETS
from amdrv.emulator.pm4.processor import Handler, QueueProcessor
from amdrv.emulator.pm4.queue_engine import QueueState
from amdrv.emulator.pm4.stream import BadPacket, Packet
from amdrv.emulator.vm.walk import WalkFault
from amdrv.emulator.window import PAGE_BYTES, PAGE_SHIFT
from amdrv.facts.pm4 import (
    ACQUIRE_MEM,
    ATOMIC_MEM,
    DISPATCH_DIRECT,
    DISPATCH_INDIRECT,
    INVALIDATE_TLBS,
    MEM_SEMAPHORE,
    RELEASE_MEM,
    SEMAPHORE_SIGNAL,
    SEMAPHORE_WAIT,
    SET_REG,
    SET_WINDOWS,
    WAIT_REG_MEM,
    WAIT_REG_MEM64,
    Opcode,
)

COHER_SHIFT = 8  # a range counts 256 bytes
LONGEST_RANGE_BYTES = 1 << 30  # more than caches hold many times over: everything
ATOMIC_LOOP = 1  # ATOMIC_MEM.COMMAND: again until the comparison holds


def ordering(_processor: QueueProcessor, _packet: Packet, _state: QueueState) -> None:
    """Packets that order or annotate: a dispatch ends before the next packet begins."""


def set_registers(processor: QueueProcessor, packet: Packet, _state: QueueState) -> None:
    """SET_SH_REG and its like: consecutive registers of one window."""
    window = SET_WINDOWS[packet.opcode]
    first = window.start + SET_REG.decode(packet.body)["REG_OFFSET"]
    values = packet.body[1:]
    if first + len(values) > window.end:
        raise BadPacket(packet.header, "it writes past the end of its register window")
    processor.store_registers(first, values)


def dispatch(processor: QueueProcessor, packet: Packet, state: QueueState) -> None:
    """Start workgroups and wait for their end."""
    if packet.opcode == Opcode.DISPATCH_DIRECT:
        fields = DISPATCH_DIRECT.decode(packet.body)
        dimensions = (fields["DIM_X"], fields["DIM_Y"], fields["DIM_Z"])
    else:
        fields = DISPATCH_INDIRECT.decode(packet.body)
        address = fields["ADDRESS"] & ~3
        view = processor.view
        dimensions = (view.read32(address), view.read32(address + 4), view.read32(address + 8))
    mec = processor.mec
    with processor.card.lock:
        work = build_dispatch(mec, processor.queue, processor.vmid, dimensions, fields["DISPATCH_INITIATOR"])
    if work is not None:
        written_back = write_back_follows(reversed(processor.streams))
        mec.run_dispatch(work, processor.queue, processor.view, state, written_back=written_back)


def acquire_mem(processor: QueueProcessor, packet: Packet, _state: QueueState) -> None:
    """Cache invalidation before reading."""
    control = ACQUIRE_MEM.decode(packet.body)
    if control["GLI_INV"]:
        processor.mec.invalidate_code()
    with processor.card.lock:
        processor.card.caches.maintain(control, _pages_of_range(processor, control))


def memory(processor: QueueProcessor, packet: Packet, state: QueueState) -> None:
    """WRITE_DATA, COPY_DATA, DMA_DATA, RELEASE_MEM."""
    if processor.at_end(state):
        processor.card.worker.finishing(state.task)
    if packet.opcode == Opcode.RELEASE_MEM:
        with processor.card.lock:
            processor.card.caches.maintain(RELEASE_MEM.decode(packet.body))
        processor.engine.end_of_pipe(processor.queue, processor.view, (packet.header, *packet.body))
    interrupt = MEMORY_PACKETS[packet.opcode](processor.memory, packet)
    if interrupt is not None:
        send_end_of_pipe(processor.engine, processor.queue, processor.vmid, interrupt)
    processor.card.notify()


def wait_reg_mem(processor: QueueProcessor, packet: Packet, state: QueueState) -> Iterator[None]:
    """Poll a register or memory; OPERATION 1 writes a register first, once."""
    layout = WAIT_REG_MEM if packet.opcode == Opcode.WAIT_REG_MEM else WAIT_REG_MEM64
    fields = layout.decode(packet.body)
    compare = COMPARE.get(fields["FUNCTION"])
    if compare is None:
        raise BadPacket(packet.header, f"compare function {fields['FUNCTION']} does not exist")
    address, mask, reference = fields["ADDRESS"], fields["MASK"], fields["REFERENCE"]
    if fields["OPERATION"] == 1:
        processor.store_register(address & 0xFFFF_FFFF, reference & 0xFFFF_FFFF)
        address >>= 32
        # What was written is more than what is waited for: the kernel sends a whole invalidation request, and one
        # VMID's bit as the mask (gmc_v11_0_emit_flush_gpu_tlb, gfx_v11_0_ring_emit_reg_write_reg_wait).
        reference &= mask
    if fields["OPERATION"] == 1 or fields["MEM_SPACE"] == 0:
        read = partial(processor.load_register, address & 0xFFFF_FFFF)
    elif layout is WAIT_REG_MEM:
        read = partial(processor.view.read32, address & ~3)
    else:
        read = partial(processor.view.read64, address & ~7)
    return processor.wait(state, lambda: compare(read() & mask, reference))


def atomic_mem(processor: QueueProcessor, packet: Packet, state: QueueState) -> Iterator[None] | None:
    """An atomic operation of GL2, once or until its comparison holds."""
    fields = ATOMIC_MEM.decode(packet.body)
    opcode, compare = fields["ATOMIC"], fields["CMP_DATA"]
    if not atomics.known(opcode):
        raise BadPacket(packet.header, f"atomic operation {opcode:#x}")
    mask = (1 << 64) - 1 if opcode & atomics.WIDE else 0xFFFF_FFFF

    def once() -> bool:
        old = atomics.update(processor.view, opcode, fields["ADDRESS"], fields["SRC_DATA"], compare)
        processor.card.notify()
        return not atomics.compares(opcode) or old == compare & mask

    if fields["COMMAND"] == ATOMIC_LOOP:
        return processor.wait(state, once)
    once()
    return None


def mem_semaphore(processor: QueueProcessor, packet: Packet, state: QueueState) -> Iterator[None] | None:
    """Signal a 64-bit counter, or wait until it is not zero and take one."""
    fields = MEM_SEMAPHORE.decode(packet.body)
    address = fields["ADDRESS"] & ~7
    if fields["SELECT"] == SEMAPHORE_SIGNAL:
        value = 1 if fields["SIGNAL_TYPE"] else processor.view.read64(address) + 1
        processor.view.write(address, (value & (1 << 64) - 1).to_bytes(8, "little"))
        processor.card.notify()
        return None
    if fields["SELECT"] != SEMAPHORE_WAIT:
        raise BadPacket(packet.header, f"semaphore operation {fields['SELECT']}")

    def take() -> bool:
        value = processor.view.read64(address)
        if value:
            processor.view.write(address, (value - 1).to_bytes(8, "little"))
        return bool(value)

    return processor.wait(state, take)


def invalidate_tlbs(processor: QueueProcessor, packet: Packet, _state: QueueState) -> None:
    """Drop translations of the queue's VMID or of a PASID's, in GCHUB and when asked in MMHUB."""
    fields = INVALIDATE_TLBS.decode(packet.body)
    card = processor.card
    with card.lock:
        if fields["INVALIDATE_SEL"] == 0:
            vmids = [processor.vmid]
        else:
            vmids = card.model(IhModel).vmids_of(fields["PASID"])
        for hub in card.models(VmHub):
            if hub.ip == "GC" or fields["MMHUB_INVALIDATE_SEL"]:
                hub.invalidate(vmids)


def _pages_of_range(processor: QueueProcessor, control: dict[str, int]) -> frozenset[int] | None:
    """Pages of the arena behind an ACQUIRE_MEM's range; None when the range is everything, or does not count."""
    first, size = control["COHER_BASE"] << COHER_SHIFT, control["COHER_SIZE"] << COHER_SHIFT
    if not (control["GL1_RANGE"] or control["GL2_RANGE"]) or size > LONGEST_RANGE_BYTES:
        return None
    pages = set()
    for va in range(first & -PAGE_BYTES if size else first, first + size, PAGE_BYTES):
        with suppress(WalkFault):
            pages.add(va + processor.view.look(va).delta >> PAGE_SHIFT)
    return frozenset(pages)


BASIC_PACKETS: dict[int, Handler] = {
    Opcode.NOP: ordering,
    Opcode.ACQUIRE_MEM: acquire_mem,
    Opcode.WAIT_REG_MEM: wait_reg_mem,
    Opcode.WAIT_REG_MEM64: wait_reg_mem,
    Opcode.ATOMIC_MEM: atomic_mem,
    Opcode.INVALIDATE_TLBS: invalidate_tlbs,
    **dict.fromkeys(MEMORY_PACKETS, memory),
}
# They order or annotate. INDIRECT_BUFFER the processor runs itself; here it says that the queue takes it.
ORDERING = (
    Opcode.INDIRECT_BUFFER,
    Opcode.CLEAR_STATE,
    Opcode.CONTEXT_CONTROL,
    Opcode.EVENT_WRITE,
    Opcode.FRAME_CONTROL,
    Opcode.PFP_SYNC_ME,
    Opcode.PRIME_UTCL2,
    Opcode.SET_Q_PREEMPTION_MODE,
)
COMPUTE_PACKETS: dict[int, Handler] = {
    **BASIC_PACKETS,
    **dict.fromkeys(SET_WINDOWS, set_registers),
    **dict.fromkeys(ORDERING, ordering),
    Opcode.DISPATCH_DIRECT: dispatch,
    Opcode.DISPATCH_INDIRECT: dispatch,
    Opcode.MEM_SEMAPHORE: mem_semaphore,
}
