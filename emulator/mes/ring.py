"""The scheduler's own ring: frames of 64 dwords, executed in order, each answered by its status fence.

Source: Linux 6.12 mes_v11_0.c (mes_v11_0_submit_pkt_and_poll_completion), mes_v11_api_def.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.isa.dispatch import MemoryViolation
from amdrv.emulator.mes.messages import Refused
from amdrv.emulator.pm4.faults import report_bad_packet, report_memory_violation
from amdrv.emulator.pm4.queue_engine import BadDescriptor, QueueId, QueueState, RingProcessor
from amdrv.emulator.pm4.stream import BadPacket, Ring
from amdrv.emulator.worker import Progress, Task
from amdrv.facts import mes_v11

if TYPE_CHECKING:
    from amdrv.emulator.models.mec_11_0 import Mec
    from amdrv.emulator.models.mes_11_0 import Mes

FRAME_DWORDS = mes_v11.MISC.dwords
TYPE_SCHEDULER = 1
STATUS_ADDRESS, STATUS_VALUE = "api_status_api_completion_fence_addr", "api_status_api_completion_fence_value"


class SchedulerRing(RingProcessor):
    """Executes the frames of ME3 pipe 0; on gfx12 those of both pipes."""

    def __init__(self, mec: Mec, mes: Mes, queue: QueueId, rptr: int) -> None:
        super().__init__(mec, queue, rptr)
        self.mes = mes

    def work(self, state: QueueState) -> Task:
        """Take frames until the write pointer. One that is none, or names what is not there, hangs the scheduler."""
        setup = self.engine.ring_setup(self.queue)
        ring = Ring(self.engine.hub.view(setup.vmid), setup.base, setup.size_dwords)
        try:
            while True:
                with self.card.lock:
                    if self.engine.stopped(state) or self.rptr == state.wptr:
                        self.engine.report_rptr(self.queue, self.rptr)
                        return
                    runs = self.engine.may_run(self.queue)
                if not runs:
                    yield Progress.BLOCKED
                    continue
                yield from self._frame(ring, state)
        except MemoryViolation as violation:
            report_memory_violation(self.engine, state, setup.vmid, violation)
        except (BadDescriptor, LookupError, Refused) as error:
            bad = BadPacket(ring.words(self.rptr, 1)[0], str(error))
            report_bad_packet(self.engine, self.queue, state, setup.vmid, bad)
        except BadPacket as bad:
            report_bad_packet(self.engine, self.queue, state, setup.vmid, bad)

    def _frame(self, ring: Ring, state: QueueState) -> Task:
        (word,) = ring.words(self.rptr, 1)
        if word == 0:  # the ring is padded with nothing (mes_v11_0_ring_funcs: nop 0)
            self.rptr += 1
            yield Progress.RAN
            return
        header = mes_v11.HEADER.decode((word,))
        message = self.mes.messages.get(header["opcode"])
        if header["type"] != TYPE_SCHEDULER or header["dwsize"] != FRAME_DWORDS or message is None:
            raise BadPacket(word, "no frame of the scheduler")
        layout, handler = message
        words = ring.words(self.rptr, FRAME_DWORDS)
        self.card.trace.packet(self.mes.trace_language, state.task, self.rptr, words)
        fields = layout.decode(words)
        steps = handler(self.mes, fields)
        if steps is not None:
            for _ in steps:
                if self.engine.stopped(state):
                    return
                with self.card.lock:
                    self.card.worker.pass_wall_time()
                yield Progress.BLOCKED
        self.rptr += FRAME_DWORDS
        if fields[STATUS_ADDRESS]:
            if self.rptr == state.wptr:
                self.card.worker.finishing(state.task)
            fence = fields[STATUS_VALUE].to_bytes(8, "little")
            self.engine.hub.view(0).write(fields[STATUS_ADDRESS] & ~7, fence)
            self.card.notify()
        yield Progress.RAN
