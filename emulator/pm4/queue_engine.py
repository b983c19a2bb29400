"""What every block that runs rings has in common: which queues are connected, what each is doing, how they stop.

A queue moves on in the card's worker (see worker.py) and stops between two packets; a dispatch notices that its queue
was cancelled by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from amdrv.emulator.model import Model
from amdrv.emulator.worker import Progress, Task

if TYPE_CHECKING:
    from amdrv.emulator.models.grbm_11_0 import Grbm
    from amdrv.emulator.models.vmhub import HubView, VmHub
    from amdrv.emulator.shell import Card

QueueId = tuple[int, int, int]  # (ME, pipe, queue); (instance, 0, queue) of a copy engine

DEQUEUE_S = 20e-6  # inferred: the kernel's first poll usually finds it done
# Doorbells of the same place in every 4 KiB page are routed alike: amdkfd gives each process two such pages, and the
# second repeats the first (Linux 6.12 kfd_priv.h, KFD_QUEUE_DOORBELL_MIRROR_OFFSET; kgd_kfd_interface.h).
DOORBELL_PAGE_BYTES = 4096


class RingSetup(NamedTuple):
    """Where a queue's ring is and under which rules it runs."""

    base: int  # virtual address
    size_dwords: int
    vmid: int
    rptr_report: int  # virtual address that follows the read pointer; 0: none
    privileged: bool  # whether packets may touch every register


class BadDescriptor(Exception):
    """A queue descriptor in memory that the firmware does not take."""


class Mapping(NamedTuple):
    """What a scheduler knows of a queue that it maps."""

    mqd_va: int  # under VMID 0, as is wptr_va
    wptr_va: int  # where the write pointer lies; 0: in the descriptor
    doorbell: int  # dword in BAR2
    vmid: int | None = None  # None: as the descriptor says


class Processor(Protocol):
    """What executes a ring."""

    rptr: int

    def run(self, state: QueueState) -> Task:
        """Work until the write pointer is reached, the queue is stopped, or a fault hangs it."""


@dataclass(slots=True)
class QueueState:
    """What an engine keeps of a connected queue beside its registers."""

    processor: Processor
    task: str  # its name in the worker: a queue's successor in the same slot has another
    wptr: int = 0  # not wrapped; dwords, for AQL packets, for a copy engine bytes
    cancelled: bool = False  # waves are to be killed
    killed: bool = False  # waves of the dispatch at work are to be killed, and the queue goes on
    wave_vmid: int | None = None  # of the last dispatch
    draining: bool = False  # stop before the next packet
    hung: bool = False  # a fault stopped it for good: only a wave reset frees it
    suspended: bool = False  # by the scheduler: keeps its place, does not go on
    resting: bool = False  # it has noticed that, and is between two packets or waits in one
    on_gone: Callable[[], None] | None = None  # called when it is disconnected


class QueueEngine(Model):
    """A block with queues. Subclasses say where doorbells and registers of a queue are."""

    hub: VmHub
    grbm: Grbm
    fault_client: int  # CID in the hub's fault status

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self.queues: dict[QueueId, QueueState] = {}
        self._connections = 0

    @property
    def number(self) -> int:
        """Which of the card's engines of its kind it is: its instance, where all are instances of one block."""
        return self.instance

    def power_on(self) -> None:
        for state in self.queues.values():
            state.cancelled = True
        self.queues.clear()

    def may_run(self, queue: QueueId) -> bool:
        """Whether the engine behind a queue executes now."""
        raise LookupError(f"{type(self).__name__} has no queue {queue}")

    def busy(self) -> bool:
        """Whether any queue is at work."""
        return any(self.card.worker.has(state.task) for state in self.queues.values())

    def connect(self, queue: QueueId, processor: Processor, wptr: int) -> QueueState:
        """Make a queue live; work that is there already begins."""
        self._connections += 1
        task = f"{self.task_prefix(queue)} {queue} connection {self._connections}"
        state = self.queues[queue] = QueueState(processor, task, wptr)
        if wptr != processor.rptr:
            self.start(queue, state)
        return state

    def task_prefix(self, queue: QueueId) -> str:
        """Engine that the worker's task of a queue is named after."""
        return type(self).__name__

    def start(self, queue: QueueId, state: QueueState) -> None:
        """Set a queue to work, when it may and does not already."""
        if state.hung or self.stopped(state):
            return
        if self.card.worker.has(state.task):
            self.card.worker.goes_on(state.task)
        else:
            self.card.worker.add(state.task, state.processor.run(state), beside=not self.starts_waves(queue))

    def starts_waves(self, queue: QueueId) -> bool:
        """Whether packets of a queue can be dispatches, which keep a thread of the worker for long."""
        return True

    def stopped(self, state: QueueState) -> bool:
        """Whether a queue must not begin another packet."""
        return state.cancelled or state.draining

    def finished(self, queue: QueueId, state: QueueState) -> None:
        """A queue's processor has stopped; a pending dequeue completes."""
        if state.cancelled or (state.draining and not state.hung):
            self._disconnect_if(queue, state)

    def stop(self, queue: QueueId, state: QueueState, *, reset: bool, after_s: float = 0.0) -> None:
        """Take a queue off: when its packet is done, or with ``reset`` at once, waves killed.

        ``after_s`` is how long a queue that has nothing to do takes to go. A hung queue goes only by a reset.
        """
        if reset:
            state.cancelled = True
            state.hung = False
            self.grbm.show_halted(None)
        else:
            state.draining = True
        if self.card.worker.has(state.task) or state.hung:
            return
        if after_s:
            self.card.clock.after(after_s, lambda: self._disconnect_if(queue, state))
        else:
            self._disconnect_if(queue, state)

    def stop_all(self) -> None:
        """A reset of the engine: waves die, every queue is disconnected."""
        for queue, state in list(self.queues.items()):
            state.cancelled = True
            self.disconnect(queue)

    def disconnect(self, queue: QueueId) -> None:
        """Forget a queue; its registers say so."""
        state = self.queues.pop(queue, None)
        self.show_disconnected(queue)
        if state is not None and state.on_gone is not None:
            state.on_gone()
        self.card.changed.notify_all()

    def show_disconnected(self, queue: QueueId) -> None:
        """Clear what registers say of a queue that is gone."""

    def interrupts(self, queue: QueueId, enable: str) -> bool:
        """Whether an enable bit of a queue's pipe lets the interrupt out."""
        return True

    def end_of_pipe(self, queue: QueueId, view: HubView, words: tuple[int, ...]) -> None:
        """An event has reached the end of the pipe: what the engine notes of it before the fence is written."""

    def ring_setup(self, queue: QueueId) -> RingSetup:
        """Where the ring is, from the queue's registers now."""
        raise LookupError(f"{type(self).__name__} has no queue {queue}")

    def report_rptr(self, queue: QueueId, rptr: int) -> None:
        """Show the read pointer in the queue's registers and in memory."""
        raise LookupError(f"{type(self).__name__} has no queue {queue}")

    def doorbell_dword(self, queue: QueueId) -> int | None:
        """Dword in BAR2 that belongs to a queue, None when its doorbell is off."""
        raise LookupError(f"{type(self).__name__} has no queue {queue}")

    def by_doorbell(self, dword: int) -> tuple[QueueId, QueueState] | None:
        """The connected queue behind a dword of BAR2."""
        return next((item for item in self.queues.items() if self.doorbell_dword(item[0]) == dword), None)

    def map_queue(self, queue: QueueId, mapping: Mapping) -> None:
        """Load a queue's registers from its descriptor in memory and connect it.

        Raises BadDescriptor, and MemoryViolation where the descriptor or the write pointer is not mapped.
        """
        raise LookupError(f"{type(self).__name__} has no queue {queue}")

    def wanted_slot(self, mapping: Mapping) -> int | None:
        """First number of the slot that a descriptor asks for, None when any will do."""
        return None

    def save_queue(self, queue: QueueId, state: QueueState) -> None:
        """Put a disconnected queue's pointers back into its descriptor, from where it is mapped again."""
        raise LookupError(f"{type(self).__name__} has no queue {queue}")

    def unmap_queue(self, queue: QueueId, state: QueueState, *, reset: bool) -> Iterator[None]:
        """Take a queue off and save it; yields until it is gone."""
        with self.card.lock:
            self.stop(queue, state, reset=reset)
        while self.queues.get(queue) is state:
            yield None
        self.save_queue(queue, state)

    def _disconnect_if(self, queue: QueueId, state: QueueState) -> None:
        if self.queues.get(queue) is state:
            self.disconnect(queue)


class RingProcessor:
    """What executes one ring: a task of the worker that ends when there is nothing to do.

    Subclasses do the work in ``work`` and say in ``has_work`` whether there is any.
    """

    def __init__(self, engine: QueueEngine, queue: QueueId, rptr: int) -> None:
        self.engine = engine
        self.card = engine.card
        self.queue = queue
        self.rptr = rptr

    def run(self, state: QueueState) -> Task:
        """Work until the write pointer is reached, the queue is stopped, or a fault hangs it."""
        while True:
            yield from self.work(state)
            with self.card.lock:
                if not (state.hung or self.engine.stopped(state)) and self.has_work(state):
                    continue  # the doorbell rang between the last look and now
                self.card.worker.remove(state.task)  # from here on a doorbell starts it anew
                self.engine.finished(self.queue, state)
                return

    def work(self, state: QueueState) -> Task:
        """Do what is there."""
        raise LookupError(f"{type(self).__name__} does nothing")

    def has_work(self, state: QueueState) -> bool:
        """Whether anything is left."""
        return self.rptr != state.wptr

    def pause(self, state: QueueState) -> Task:
        """Stand still while the queue is suspended."""
        while state.suspended and not self.engine.stopped(state):
            state.resting = True
            yield Progress.BLOCKED
        state.resting = False

    def wait(self, state: QueueState, holds: Callable[[], bool]) -> Iterator[None]:
        """Yield until ``holds`` says so or the queue is stopped. Virtual time follows the wall clock meanwhile."""
        while state.suspended or not holds():
            if self.engine.stopped(state):
                return
            state.resting = state.suspended
            with self.card.lock:
                self.card.worker.pass_wall_time()
            yield None
