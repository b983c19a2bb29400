"""What the kernel interface queue does beside moving data: other queues are mapped, unmapped and asked for.

Sources: Linux 6.12 gfx_v11_0.c (gfx11_kiq_set_resources, gfx11_kiq_map_queues, gfx11_kiq_unmap_queues,
gfx11_kiq_query_status, gfx_v11_0_ring_emit_fence_kiq), amdkfd kfd_pm4_headers_ai.h. Which queue it is, the RLC is told:
gfx_v11_0_kiq_setting.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.pm4.faults import post
from amdrv.emulator.pm4.packets import BASIC_PACKETS, COMPUTE_PACKETS, memory
from amdrv.emulator.pm4.processor import Handler, QueueProcessor
from amdrv.emulator.pm4.queue_engine import BadDescriptor, Mapping, QueueEngine, QueueId, QueueState
from amdrv.emulator.pm4.stream import BadPacket, Packet
from amdrv.facts.ih_ids import Client, GfxSource
from amdrv.facts.pm4 import MAP_QUEUES, QUERY_STATUS, SET_RESOURCES, UNMAP_QUEUES, WRITE_DATA, Opcode, UnmapAction

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

ENGINE_COMPUTE, ENGINE_SDMA0, ENGINE_SDMA1, ENGINE_GFX, ENGINE_MES = 0, 2, 3, 4, 5  # ENGINE_SEL
ME_OF_ENGINE = {ENGINE_COMPUTE: 1, ENGINE_GFX: 0, ENGINE_MES: 3}
BY_PASID, ALL, ALL_BUT_STATIC = 1, 2, 3  # QUEUE_SEL of UNMAP_QUEUES; 0: by doorbell
FENCE_ONLY_INTERRUPT, FENCE_AND_INTERRUPT = 0, 3  # COMMAND of QUERY_STATUS
LATENCY_UNIT_S = 0.1  # UNMAP_LATENCY of SET_RESOURCES: nvd.h says 0xa is about a second
KIQ_INTERRUPT_BIT = 1 << 29  # of CPC_INT_STATUS: gfx_v11_0_ring_emit_fence_kiq, "src_id is 178"
KIQ_INTERRUPT_SOURCE = 178


def engine_of(card: Card, select: int) -> QueueEngine:
    """The block that an ENGINE_SEL names. Raises LookupError."""
    from amdrv.emulator.models.cp_gfx_11_0 import CpGfx  # these models use what is here
    from amdrv.emulator.models.mec_11_0 import Mec
    from amdrv.emulator.models.sdma_6_0 import Sdma

    if select in (ENGINE_COMPUTE, ENGINE_MES):
        return card.model(Mec)
    if select == ENGINE_GFX:
        return card.model(CpGfx)
    if select in (ENGINE_SDMA0, ENGINE_SDMA1):
        return card.models(Sdma)[select - ENGINE_SDMA0]
    raise LookupError(f"engine {select}")


def set_resources(processor: QueueProcessor, packet: Packet, _state: QueueState) -> None:
    """How long an unmapping may take. VMIDs and slots are given out by MES; legacy queues come with theirs."""
    processor.mec.unmap_latency_s = SET_RESOURCES.decode(packet.body)["UNMAP_LATENCY"] * LATENCY_UNIT_S


def map_queues(processor: QueueProcessor, packet: Packet, _state: QueueState) -> None:
    """Connect the queue whose descriptor the packet names."""
    fields = MAP_QUEUES.decode(packet.body)
    if fields["NUM_QUEUES"] != 1 or fields["QUEUE_SEL"]:
        raise BadPacket(packet.header, "MAP_QUEUES maps one queue into the slot that it names")
    mapping = Mapping(fields["MQD_ADDR"], fields["WPTR_ADDR"], fields["DOORBELL_OFFSET"], fields["VMID"] or None)
    select = fields["ENGINE_SEL"]
    try:
        engine = engine_of(processor.card, select)
        me = ME_OF_ENGINE.get(select, engine.number)
        engine.map_queue((me, fields["PIPE"], fields["QUEUE"]), mapping)
    except (LookupError, BadDescriptor) as error:
        raise BadPacket(packet.header, f"MAP_QUEUES: {error}") from error


def unmap_queues(processor: QueueProcessor, packet: Packet, state: QueueState) -> Iterator[None]:
    """Take queues off, wait for them; with PREEMPT_NO_UNMAP write the trailing fence instead."""
    fields = UNMAP_QUEUES.decode(packet.body)
    try:
        engine = engine_of(processor.card, fields["ENGINE_SEL"])
    except LookupError as error:
        raise BadPacket(packet.header, f"UNMAP_QUEUES: {error}") from error
    if fields["ACTION"] == UnmapAction.PREEMPT_NO_UNMAP:
        # Nothing is preempted in the middle of a buffer here: the fence follows what the queue has begun.
        address, data = fields["FENCE_ADDR"] & ~3, fields["FENCE_DATA"]
        for _, target in _selected(engine, fields):
            yield from processor.wait(state, partial(_idle, processor.card, target))
        processor.view.write(address, data.to_bytes(4, "little"))
        processor.card.notify()
        return
    for queue, target in _selected(engine, fields):
        if (engine, queue) != (processor.engine, processor.queue):
            reset = fields["ACTION"] == UnmapAction.RESET
            yield from unmap(processor, state, engine, queue, target, reset=reset)


def unmap(
    processor: QueueProcessor,
    state: QueueState,
    engine: QueueEngine,
    queue: QueueId,
    target: QueueState,
    *,
    reset: bool,
) -> Iterator[None]:
    """Unmap one queue; one that does not go within the unmap latency has its waves reset."""
    deadline_s = time.monotonic() + processor.mec.unmap_latency_s
    for _ in engine.unmap_queue(queue, target, reset=reset):
        if processor.engine.stopped(state):
            return
        if time.monotonic() > deadline_s:
            with processor.card.lock:
                engine.stop(queue, target, reset=True)
        yield None


def query_status(processor: QueueProcessor, packet: Packet, _state: QueueState) -> None:
    """Write a fence once everything before is done, and interrupt when asked."""
    fields = QUERY_STATUS.decode(packet.body)
    if fields["COMMAND"] != FENCE_ONLY_INTERRUPT:
        processor.view.write(fields["ADDRESS"] & ~7, fields["DATA"].to_bytes(8, "little"))
        processor.card.notify()
    if fields["COMMAND"] in (FENCE_ONLY_INTERRUPT, FENCE_AND_INTERRUPT):
        context = (fields["CONTEXT_ID"], 0, 0, 0)
        source = GfxSource.CP_COMPUTE_QUERY_STATUS
        post(processor.engine, processor.queue, processor.vmid, Client.GRBM_CP, source, context)


def write_data(processor: QueueProcessor, packet: Packet, state: QueueState) -> None:
    """As everywhere, and the fence interrupt that the kernel asks for through CPC_INT_STATUS."""
    memory(processor, packet, state)
    fields = WRITE_DATA.decode(packet.body)
    status = processor.mec.register("CPC_INT_STATUS").dword
    if fields["DST_SEL"] == 0 and fields["ADDRESS"] == status and packet.body[3] & KIQ_INTERRUPT_BIT:
        post(processor.engine, processor.queue, processor.vmid, Client.GRBM_CP, KIQ_INTERRUPT_SOURCE, (0, 0, 0, 0))


def _idle(card: Card, target: QueueState) -> bool:
    return not card.worker.has(target.task)


def _selected(engine: QueueEngine, fields: dict[str, int]) -> list[tuple[QueueId, QueueState]]:
    if fields["QUEUE_SEL"] in (ALL, ALL_BUT_STATIC):
        return list(engine.queues.items())
    if fields["QUEUE_SEL"] == BY_PASID:
        vmids = engine.card.model(IhModel).vmids_of(fields["PASID"])
        return [item for item in engine.queues.items() if engine.ring_setup(item[0]).vmid in vmids]
    found = [engine.by_doorbell(fields[f"DOORBELL_OFFSET{n}"]) for n in range(max(1, min(fields["NUM_QUEUES"], 4)))]
    return [item for item in found if item is not None]


_SCHEDULING: dict[int, Handler] = {
    Opcode.SET_RESOURCES: set_resources,
    Opcode.MAP_QUEUES: map_queues,
    Opcode.UNMAP_QUEUES: unmap_queues,
    Opcode.QUERY_STATUS: query_status,
    Opcode.WRITE_DATA: write_data,
}
KIQ_PACKETS: dict[int, Handler] = {**COMPUTE_PACKETS, **_SCHEDULING}
# On the second pipe of the scheduler: "MES KIQ fw hasn't indirect buffer support" (gfx_v11_0_ring_test_ib).
MES_KIQ_PACKETS: dict[int, Handler] = {**BASIC_PACKETS, **_SCHEDULING}
