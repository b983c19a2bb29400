"""What each packet of a copy engine does.

Layouts and numbers: Linux 6.12 sdma_v6_0_0_pkt_open.h (amdrv/facts/sdma_v6_0.py); use: sdma_v6_0.c, and ROCr's
amd_blit_sdma.cpp. COUNT fields hold one less than they count. A handler returns None when it is done at once, else
steps that yield while it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from amdrv.emulator import atomics
from amdrv.emulator.models.vmhub import INVALIDATION_ENGINES, VmHub
from amdrv.emulator.pm4.compare import COMPARE
from amdrv.emulator.pm4.stream import BadPacket
from amdrv.emulator.sdma.copies import COPIES
from amdrv.facts import sdma_v6_0 as facts
from amdrv.facts.sdma_v6_0 import FillSub, Opcode, PollSub, PtepdeSub, SemaphoreSub, TimestampSub, WriteSub

if TYPE_CHECKING:
    from amdrv.emulator.pm4.queue_engine import QueueState
    from amdrv.emulator.sdma.ring import SdmaRing

Words = Sequence[int]
Handler = Callable[["SdmaRing", Words, "QueueState"], Iterator[None] | None]

SUB_OP_SHIFT, BYTE_MASK = 8, 0xFF
NO_ENGINE = 0x1F  # of VM_INVALIDATION
ALL_BYTES = 0xF


def nothing(_ring: SdmaRing, _words: Words, _state: QueueState) -> None:
    """NOP, DUMMY_TRAP."""


def write(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """WRITE linear: the dwords of the packet."""
    fields = facts.WRITE_UNTILED.decode(list(words[:5]))
    count = fields["count"] + 1
    data = np.array(words[4 : 4 + count], "<u4").tobytes()
    ring.view.write(fields["dst_addr"] & ~3, data)


def fill(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """CONST_FILL: COUNT is in bytes, in whole elements of 1 << FILLSIZE; the pattern is the four bytes of the packet.

    The kernel sends FILLSIZE 0 with a 32-bit value (sdma_v6_0_emit_fill_buffer), ROCr sends 2.
    """
    fields = facts.CONSTANT_FILL.decode(list(words))
    unit = 1 << fields["fillsize"]
    count = -(-(fields["count"] + 1) // unit) * unit
    pattern = fields["src_data"].to_bytes(4, "little")
    ring.view.write(fields["dst_addr"], (pattern * (count // 4 + 1))[:count])


def fill_multi(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """DATA_FILL_MULTI: zeroes, a run every stride."""
    fields = facts.DATA_FILL_MULTI.decode(list(words))
    for number in range(fields["dma_count"]):
        ring.view.write(fields["dst_addr"] + number * fields["byte_stride"], bytes(fields["count"] + 1))


def fence(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """FENCE: 32 bits, after everything before."""
    fields = facts.FENCE.decode(list(words))
    ring.view.write(fields["addr"] & ~3, fields["data"].to_bytes(4, "little"))


def trap(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """TRAP: interrupt the host, when SDMA_CNTL says so."""
    ring.sdma.send_trap(ring.queue, ring.vmid, facts.TRAP.decode(list(words))["int_context"])


def semaphore(ring: SdmaRing, words: Words, state: QueueState) -> Iterator[None] | None:
    """SEM: signal a 64-bit counter, or wait until it is not zero and take one."""
    fields = facts.SEMAPHORE.decode(list(words))
    address = fields["addr"] & ~7
    if fields["signal"]:
        value = 1 if fields["write_one"] else ring.view.read64(address) + 1
        ring.view.write(address, (value & (1 << 64) - 1).to_bytes(8, "little"))
        return None

    def take() -> bool:
        value = ring.view.read64(address)
        if value:
            ring.view.write(address, (value - 1).to_bytes(8, "little"))
        return bool(value)

    return ring.wait(state, take)


def memory_increment(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """MEM_INCR: one more in a 64-bit counter."""
    address = facts.MEM_INCR.decode(list(words))["addr"] & ~7
    value = ring.view.read64(address) + 1
    ring.view.write(address, (value & (1 << 64) - 1).to_bytes(8, "little"))


def poll(ring: SdmaRing, words: Words, state: QueueState) -> Iterator[None]:
    """POLL_REGMEM: wait for memory or a register; with HDP_FLUSH write one register, then wait for the other."""
    fields = facts.POLL_REGMEM.decode(list(words))
    compare = COMPARE.get(fields["func"])
    if compare is None:
        raise BadPacket(words[0], f"compare function {fields['func']} does not exist")
    low, high = fields["addr"] & 0xFFFF_FFFF, fields["addr"] >> 32
    if fields["hdp_flush"]:
        ring.store_register(high, fields["value"])
    if fields["mem_poll"]:
        read = partial(ring.view.read32, fields["addr"] & ~3)
    else:
        read = partial(ring.load_register, low)
    return ring.wait(state, lambda: compare(read() & fields["mask"], fields["value"]))


def register_to_memory(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """POLL_REG_WRITE_MEM: a register's value into memory."""
    fields = facts.POLL_REG_WRITE_MEM.decode(list(words))
    value = ring.load_register(fields["addr_31_2"] << 2)
    ring.view.write(fields["addr"] & ~3, value.to_bytes(4, "little"))


def vm_invalidation(ring: SdmaRing, words: Words, state: QueueState) -> Iterator[None]:
    """VM_INVALIDATION: request and acknowledge of one invalidation engine of each hub named."""
    fields = facts.VM_INVALIDATION.decode(list(words))
    hubs = {hub.ip: hub for hub in ring.card.models(VmHub)}
    for block, engine in (("GC", fields["gfx_eng_id"]), ("MMHUB", fields["mm_eng_id"])):
        if engine == NO_ENGINE:
            continue
        if engine >= INVALIDATION_ENGINES:
            raise BadPacket(words[0], f"no hub has an invalidation engine {engine}")
        prefix = f"{hubs[block].prefix}VM_INVALIDATE_ENG{engine}"
        bank = ring.card.registers.block(block)
        ring.store_register(bank[f"{prefix}_ADDR_RANGE_LO32"].address, fields["addressrangelo"])
        ring.store_register(bank[f"{prefix}_ADDR_RANGE_HI32"].address, fields["addressrangehi"])
        ring.store_register(bank[f"{prefix}_REQ"].address, fields["invalidatereq"])
        wanted, address = fields["invalidateack"], bank[f"{prefix}_ACK"].address
        yield from ring.wait(state, partial(_acknowledged, ring, address, wanted))


def _acknowledged(ring: SdmaRing, address: int, wanted: int) -> bool:
    return ring.load_register(address) & wanted == wanted


def gpuvm_invalidate(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """GPUVM_INV: drop translations of the VMIDs of a mask."""
    fields = facts.GPUVM_INV.decode(list(words))
    with ring.card.lock:
        if fields["l2_ptes"] and fields["l1_ptes"] and not fields["four_kilobytes"]:
            mask = fields["per_vmid_inv_req"]
            ring.sdma.hub.invalidate([vmid for vmid in range(16) if mask >> vmid & 1])


def atomic(ring: SdmaRing, words: Words, state: QueueState) -> Iterator[None] | None:
    """ATOMIC: once, or with LOOP until its comparison holds."""
    fields = facts.ATOMIC.decode(list(words))
    opcode, compare = fields["atomic_op"], fields["cmp_data"]
    if not atomics.known(opcode):
        raise BadPacket(words[0], f"atomic operation {opcode:#x}")
    mask = (1 << 64) - 1 if opcode & atomics.WIDE else 0xFFFF_FFFF

    def once() -> bool:
        old = atomics.update(ring.view, opcode, fields["addr"], fields["src_data"], compare)
        ring.card.notify()
        return not atomics.compares(opcode) or old == compare & mask

    if fields["loop"]:
        return ring.wait(state, once)
    once()
    return None


def ptepde_generate(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """PTEPDE: consecutive page table entries, each MASK | INIT + n · INCREMENT (sdma_v6_0_vm_set_pte_pde)."""
    fields = facts.WRITE_INCR.decode(list(words))
    flags = fields["mask_dw1"] << 32 | fields["mask_dw0"]
    first = fields["init_dw1"] << 32 | fields["init_dw0"]
    step = fields["incr_dw1"] << 32 | fields["incr_dw0"]
    count = fields["count"] + 1
    entries = np.uint64(first) + np.arange(count, dtype=np.uint64) * np.uint64(step)
    ring.view.write(fields["dst_addr"] & ~7, (entries | np.uint64(flags)).astype("<u8").tobytes())


def ptepde_copy(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """PTEPDE copy: entries from elsewhere, with the bits of MASK."""
    fields = facts.PTEPDE_COPY.decode(list(words))
    mask = fields["mask_dw1"] << 32 | fields["mask_dw0"]
    entries = np.frombuffer(ring.view.read(fields["src_addr"] & ~7, 8 * (fields["count"] + 1)), "<u8")
    ring.view.write(fields["dst_addr"] & ~7, (entries & np.uint64(mask)).astype("<u8").tobytes())


def ptepde_modify(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """PTEPDE read-modify-write: the bits of MASK become those of VALUE."""
    fields = facts.PTEPDE_RMW.decode(list(words))
    mask, value = np.uint64(fields["mask"]), np.uint64(fields["value"])
    address = fields["addr"] & ~7
    entries = np.frombuffer(ring.view.read(address, 8 * (fields["num_of_pte"] + 1)), "<u8")
    ring.view.write(address, (entries & ~mask | value & mask).astype("<u8").tobytes())


def timestamp_set(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """TIMESTAMP set: the engine's own counter goes on from here."""
    ring.sdma.set_local_time(facts.TIMESTAMP_SET.decode(list(words))["init_data"])


def timestamp_get(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """TIMESTAMP get: the engine's own counter, or the card's 100 MHz counter."""
    address = facts.TIMESTAMP_GET.decode(list(words))["write_addr_63_3"] << 3
    local = words[0] >> SUB_OP_SHIFT & BYTE_MASK == TimestampSub.GET
    value = ring.sdma.local_time() if local else ring.card.realtime()
    ring.view.write(address, value.to_bytes(8, "little"))


def register_write(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """SRBM_WRITE: a register by its dword index, or the bytes of it that BYTE_EN names.

    From SDMA 7.0 on the same opcode writes a whole register, at a byte address (Linux 6.12 sdma_v7_0_ring_emit_wreg).
    """
    if ring.sdma.writes_whole_registers:
        ring.store_register(words[1] & ~3, words[2])
        return
    fields = facts.SRBM_WRITE.decode(list(words))
    address = 4 * fields["addr"]
    mask = sum(0xFF << 8 * byte for byte in range(4) if fields["byte_en"] >> byte & 1)
    old = 0 if fields["byte_en"] == ALL_BYTES else ring.load_register(address)
    ring.store_register(address, old & ~mask | fields["data"] & mask)


def cache_request(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """GCR_REQ: cache maintenance, as ACQUIRE_MEM does it."""
    ring.sdma.maintain_caches(facts.GCR_REQ.decode(list(words))["gcr_control"])


# Linux has no name for it. ROCr's queues send it in the same layout (sdma_registers.h: SDMA_SUBOP_USER_GCR).
USER_GCR = 1

# (OP, SUB_OP) → dwords of the packet and what it does; copies and the packets that change the flow are elsewhere.
PACKETS: dict[tuple[int, int], tuple[int, Handler]] = {
    (Opcode.WRITE, WriteSub.LINEAR): (4, write),
    (Opcode.FENCE, 0): (4, fence),
    (Opcode.TRAP, 0): (2, trap),
    (Opcode.DUMMY_TRAP, 0): (2, nothing),
    (Opcode.SEM, 0): (3, semaphore),
    (Opcode.SEM, SemaphoreSub.MEM_INCR): (3, memory_increment),
    (Opcode.POLL_REGMEM, 0): (6, poll),
    (Opcode.POLL_REGMEM, PollSub.REG_WRITE_MEM): (4, register_to_memory),
    (Opcode.POLL_REGMEM, PollSub.VM_INVALIDATION): (4, vm_invalidation),
    (Opcode.ATOMIC, 0): (8, atomic),
    (Opcode.CONST_FILL, 0): (5, fill),
    (Opcode.CONST_FILL, FillSub.DATA_FILL_MULTI): (6, fill_multi),
    (Opcode.PTEPDE, PtepdeSub.GEN): (10, ptepde_generate),
    (Opcode.PTEPDE, PtepdeSub.COPY): (8, ptepde_copy),
    (Opcode.PTEPDE, PtepdeSub.RMW): (8, ptepde_modify),
    (Opcode.TIMESTAMP, TimestampSub.SET): (3, timestamp_set),
    (Opcode.TIMESTAMP, TimestampSub.GET): (3, timestamp_get),
    (Opcode.TIMESTAMP, TimestampSub.GET_GLOBAL): (3, timestamp_get),
    (Opcode.SRBM_WRITE, 0): (3, register_write),
    (Opcode.GPUVM_INV, 0): (4, gpuvm_invalidate),
    (Opcode.GCR_REQ, 0): (5, cache_request),
    (Opcode.GCR_REQ, USER_GCR): (5, cache_request),
    **{(Opcode.COPY, sub): entry for sub, entry in COPIES.items()},
}
