"""A host that stores through BAR0 the moment it can see that work is done: the store waits for a flush already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amdrv.emulator.worker import Progress
from amdrv.facts import mes_v11, pm4
from amdrv.facts import sdma_v6_0 as sdma
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.mes_v11 import SchedulerOpcode
from amdrv.facts.pm4 import DataSelect, MemoryTarget
from amdrv.facts.sdma_v6_0 import Opcode

QUEUE = (1, 0, 0)
NOP = (0xC000_1000, 0)  # PACKET3(NOP, 0) and its dword
Tells = Callable[[Any], tuple[int, ...]]


def release(host: Any) -> tuple[int, ...]:
    address = host.rig.mc(host.watched)
    return tuple(
        pm4.RELEASE_MEM.build(EVENT_TYPE=0x14, EVENT_INDEX=5, ADDRESS=address, DATA=1, DATA_SEL=DataSelect.LOW_32)
    )


def write(host: Any) -> tuple[int, ...]:
    return tuple(pm4.WRITE_DATA.build(1, DST_SEL=MemoryTarget.MEMORY, ADDRESS=host.rig.mc(host.watched)))


def buffer(host: Any) -> tuple[int, ...]:
    words, place = release(host), host.rig.memory.take()
    host.rig.memory.put(place, words)
    return tuple(pm4.INDIRECT_BUFFER.build(IB_BASE=host.rig.mc(place), IB_SIZE=len(words)))


def compute_ring(rig: Any, ring_type: Any) -> Any:
    rig.start_mec()
    ring = ring_type(rig, 2 * Doorbell.MEC_RING0)
    rig.activate(QUEUE, rig.compute_mqd(ring))
    return ring


@pytest.mark.parametrize("tells", [release, write, buffer])
@pytest.mark.parametrize("padding", [0, 3])
def test_store_after_the_last_packet_of_a_compute_queue_is_held_back(
    eager_host: Any, ring_type: Any, tells: Tells, padding: int
) -> None:
    ring = compute_ring(eager_host.rig, ring_type)
    ring.submit(tells(eager_host), *[NOP] * padding)
    assert eager_host.held_back()


@pytest.mark.parametrize("tells", [release, buffer])
def test_store_after_a_packet_that_others_follow_goes_through(eager_host: Any, ring_type: Any, tells: Tells) -> None:
    ring, rig = compute_ring(eager_host.rig, ring_type), eager_host.rig
    more = pm4.WRITE_DATA.build(1, DST_SEL=MemoryTarget.MEMORY, ADDRESS=rig.mc(rig.memory.take()))
    ring.submit(tells(eager_host), more)
    assert not eager_host.held_back()


def test_store_after_the_fence_of_a_copy_queue_is_held_back_although_its_trap_is_to_come(
    eager_host: Any, ring_type: Any
) -> None:
    rig = eager_host.rig
    ring = ring_type(rig, 2 * Doorbell.SDMA_ENGINE0, unit_bytes=4)

    def write_register(name: str, value: int) -> None:
        rig.card.write_register(rig.sdma(0, f"QUEUE0_{name}").address, value)

    write_register("RB_BASE", rig.mc(ring.ring) >> 8 & 0xFFFF_FFFF)
    write_register("RB_BASE_HI", rig.mc(ring.ring) >> 40)
    write_register("DOORBELL_OFFSET", rig.sdma(0, "QUEUE0_DOORBELL_OFFSET").encode(OFFSET=ring.doorbell_dword))
    write_register("DOORBELL", rig.sdma(0, "QUEUE0_DOORBELL").encode(ENABLE=1))
    rig.card.write_register(rig.sdma(0, "F32_CNTL").address, 0)
    write_register("RB_CNTL", rig.sdma(0, "QUEUE0_RB_CNTL").encode(RB_ENABLE=1, RB_SIZE=8))
    ring.submit(
        sdma.FENCE.encode(op=Opcode.FENCE, addr=rig.mc(eager_host.watched), data=1),
        sdma.TRAP.encode(op=Opcode.TRAP),
        (Opcode.NOP,),
    )
    assert eager_host.held_back()


def test_store_after_the_answer_of_the_scheduler_is_held_back(eager_host: Any, ring_type: Any) -> None:
    rig = eager_host.rig
    rig.start_mes()
    ring = ring_type(rig, 2 * Doorbell.MES_RING0, 1024)
    rig.activate((3, 0, 0), rig.compute_mqd(ring))
    scheduler = rig.scheduler(ring)
    eager_host.watched = scheduler._fences + 8  # the query's, which comes last
    assert scheduler.send(mes_v11.QUERY_MES_STATUS, SchedulerOpcode.QUERY_SCHEDULER_STATUS)
    assert eager_host.held_back()


def test_work_that_comes_while_the_last_is_put_away_lets_stores_through_again(eager_host: Any) -> None:
    card, held = eager_host.rig.card, []

    def store() -> None:
        eager_host.probe = eager_host.rig.memory.take()  # a page where nothing waits yet
        eager_host.store()
        held.append(eager_host.rig.memory.word(eager_host.probe) & 0xFF != eager_host.stored)

    def put_away() -> Iterator[Progress]:
        card.worker.finishing("put away")
        while len(held) < 2:
            yield Progress.BLOCKED

    def goes_on() -> Iterator[Progress]:
        card.worker.finishing("goes on")
        store()
        yield Progress.RAN
        with card.lock:
            card.worker.goes_on("goes on")
        store()

    with card.lock:
        card.worker.add("put away", put_away())
    assert eager_host.rig.wait(lambda: not card.host_path._busy)
    with card.lock:
        card.worker.add("goes on", goes_on())
    assert eager_host.rig.idle()
    assert held == [True, False]
