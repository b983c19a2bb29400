"""One client's messages to the card, from the negotiated version to the end of the connection."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from amdrv.emulator.faults import ClientDied
from amdrv.emulator.server.channel import Access, Channel, Closed, Message, Rejected
from amdrv.emulator.server.client_bus import ClientBus
from amdrv.emulator.server.dma import ClientMemory
from amdrv.emulator.server.interrupts import Interrupts
from amdrv.emulator.server.nearness import Nearness
from amdrv.emulator.server.negotiation import Proposal
from amdrv.emulator.server.pace import Pace
from amdrv.emulator.server.readers import Readers
from amdrv.emulator.server.regions import DWORD_BYTES, REGISTER_BAR, RESET_S, MachineRegion, Region, regions_of
from amdrv.facts.vfio_user import (
    CONFIG_REGION,
    DATA_BYTES_MAX,
    DEVICE_INFO,
    DEVICE_PCI,
    DEVICE_RESETTABLE,
    ERROR,
    NO_REPLY,
    REGION_ACCESS,
    REGION_INFO,
    TYPE_COMMAND,
    TYPE_MASK,
    TYPE_REPLY,
    WRITE_MULTI,
    WRITE_MULTI_ENTRY,
    Command,
    Irq,
)

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

Reply = tuple[bytes, tuple[int, ...]]  # payload, descriptors that go with it
STEP_BY_STEP = (REGISTER_BAR, CONFIG_REGION)
EMPTY: Reply = (b"", ())
MULTI_WRITE_BYTES_MAX = 8


class Client(Protocol):
    """Who is at the other end."""

    pid: int

    def rename(self, command: str) -> None:
        """What it calls itself."""

    def kill(self) -> None:
        """End it, without a chance to do anything more."""


class Adopted(Exception):
    """Another thread finishes the message: the client has to be answered before it gives what this one waits for."""


class Session:
    """One client that has the card.

    An access has two parts: what has fallen due on the card happens, then the access itself. Where the card needs
    memory of the client by messages in the first, the access is made by the next reader; where it does in the second, a
    read is made again by that reader and a write is answered by it. So the card never holds an answer back until the
    client has given it memory, as a processor's access to a real card does not wait for the card's DMA either.
    """

    def __init__(
        self, card: Card, channel: Channel, proposal: Proposal, owner: Client, twin: Channel | None = None
    ) -> None:
        """``twin`` is the channel for messages to the client and their answers, if there is one of their own."""
        self._card = card
        self._owner = owner
        self._channel = channel
        self._data_bytes_max = min(DATA_BYTES_MAX, proposal.data_bytes_max)
        self._readers = Readers(self._serve, lambda: self._bus.close("the client is gone"))
        self._twin = twin
        self._bus = ClientBus(card.lock, (twin or channel).send, self._step_aside, self._data_bytes_max)
        self._memory = ClientMemory(card, self._bus)
        self._nearness = Nearness(owner.pid)
        self._pace = Pace(card, time.monotonic_ns)
        self._interrupts = Interrupts(card)
        machine = MachineRegion(card, self._pace.stop, owner.rename, self._bus)
        self._regions = regions_of(card, machine, mappable=proposal.takes_descriptors)
        # The access that the reader makes, whether it is at its second part, and which of the message's writes it is.
        self._current: Access | Message | None = None
        self._performing = False
        self._position = 0
        self._left: tuple[Access | Message | None, bool, int] = (None, False, 0)  # by a reader that stepped aside
        self._register_bytes = self._regions[REGISTER_BAR].size_bytes & -DWORD_BYTES
        self._answers: dict[int, Callable[[Message], Reply]] = {
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.REGION_WRITE_MULTI: self._region_write_multi,
            Command.DMA_MAP: self._dma_map,
            Command.DMA_UNMAP: self._dma_unmap,
            Command.DEVICE_GET_INFO: self._device_info,
            Command.DEVICE_GET_REGION_INFO: self._region_info,
            Command.DEVICE_GET_IRQ_INFO: self._irq_info,
            Command.DEVICE_SET_IRQS: self._set_irqs,
            Command.DEVICE_RESET: self._reset,
            Command.DEVICE_GET_REGION_IO_FDS: self._unsupported,
            Command.DEVICE_FEATURE: self._unsupported,
            Command.MIG_DATA_READ: self._unsupported,
            Command.MIG_DATA_WRITE: self._unsupported,
        }

    def run(self) -> None:
        """Answer messages until the client is gone, then take back what it lent the card."""
        with self._card.lock:
            self._card.faults.new_client()
            self._card.faults.end_client = self._owner.kill
            self._card.on_interrupt = self._interrupts.deliver
        self._pace.start()
        if self._twin is not None:
            threading.Thread(target=self._read_twin, args=(self._twin,), name="twin", daemon=True).start()
        try:
            self._readers.run()
        except Closed as end:
            log.debug("connection ends: %s", end)
        except ClientDied as end:
            log.info("%s", end)
        finally:
            self._bus.close("the client is gone")
            self._pace.stop()
            self._detach()

    def _serve(self) -> None:
        left, self._left = self._left, (None, False, 0)
        work, performing, position = left
        if work is not None:
            self._adopt(work, performing, position)
            return
        access = self._channel.receive_access()
        if access is None:
            self._handle(self._channel.receive())
        else:
            self._handle_access(access)

    def _handle_access(self, access: Access) -> None:
        """A dword of a region: nearly all messages, so without any detour."""
        _, flags, offset, index, written = access
        number = value = 0
        self._current, self._performing = access, False
        try:
            with self._card.lock:
                if index == REGISTER_BAR and not offset & 3 and offset < self._register_bytes:
                    self._let_time_pass(access)
                    if written is None:
                        value = self._card.read_register(offset)
                    else:
                        self._card.write_register(offset, written)
                elif written is None:
                    region = self._region(access, index, offset, DWORD_BYTES)
                    value = int.from_bytes(region.read(offset, DWORD_BYTES), "little")
                else:
                    data = memoryview(written.to_bytes(DWORD_BYTES, "little"))
                    self._region(access, index, offset, DWORD_BYTES).write(offset, data)
        except Adopted:
            return
        except Exception as error:
            number = _error_number(error, f"access to region {index} at {offset:#x}")
        if flags & NO_REPLY or self._current is not access:
            return
        self._nearness.access()
        if number:
            self._channel.refuse_access(access, number)
        else:
            self._channel.reply_access(access, value)

    def _let_time_pass(self, work: Access | Message) -> None:
        """The first part of an access. Raises Adopted when another thread has taken it over meanwhile."""
        self._pace.catch_up()
        if self._memory.by_message:
            # What falls due in the time that the access itself takes must not hold its answer back either.
            card = self._card
            horizon_ns = card.clock.now_ns + card.cost_ns("config", is_write=False)  # the slowest access
            while (due_ns := card.clock.next_deadline_ns()) is not None and due_ns <= horizon_ns:
                card.clock.charge(max(1, due_ns - card.clock.now_ns))
            if self._current is not work:
                raise Adopted
        self._performing = True

    def _step_aside(self) -> None:
        """A thread is about to wait for the client."""
        self._readers.step_aside(self._leave)

    def _leave(self) -> None:
        self._channel.keep_message()
        self._left, self._current = (self._current, self._performing, self._position), None

    def _adopt(self, work: Access | Message, performing: bool, position: int) -> None:
        """Go on with the access of a reader that stepped aside."""
        if isinstance(work, Message):
            again = replace(work, descriptors=[])
            if performing and work.command == Command.REGION_WRITE:
                if not work.flags & NO_REPLY:
                    self._channel.reply(again, bytes(work.body[: REGION_ACCESS.size]))
            else:
                self._handle(again, position + performing)
        elif performing and work[4] is not None:
            if not work[1] & NO_REPLY:
                self._channel.reply_access(work, 0)
        else:
            number, flags, offset, index, written = work
            # A new object: the other thread sees that its own is not the current one any more.
            self._handle_access((number, flags, offset, index, written))

    def _read_twin(self, twin: Channel) -> None:
        """Answers of a client that has a channel of their own for them."""
        try:
            while True:
                message = twin.receive()
                message.close()
                if message.flags & TYPE_MASK == TYPE_REPLY:
                    self._take_answer(message)
        except Closed as end:
            self._bus.close(f"the client's second socket is closed: {end}")

    def _take_answer(self, message: Message) -> None:
        error = message.error if message.flags & ERROR else None
        if not self._bus.answer(message.id, message.command, error, message.body):
            log.info("an answer to message %d (%d), for which nobody waits", message.id, message.command)

    def _detach(self) -> None:
        """The client's memory and interrupts go. The card stays as it is, config space too, as when sysfs is closed."""
        with self._card.lock:
            self._card.on_interrupt = self._card.faults.end_client = None
            self._memory.close()
            self._card.config.disable_msix()  # its vectors have lost their descriptors; MSI has no more than its switch
        self._interrupts.close()

    def _handle(self, message: Message, position: int = 0) -> None:
        """See to a message; ``position`` is the first write to make of one that brings several."""
        if message.flags & TYPE_MASK == TYPE_REPLY:
            message.close()
            self._take_answer(message)
            return
        number = 0
        reply = EMPTY
        self._current, self._performing, self._position = None, False, position
        try:
            reply = self._answer(message)
        except Adopted:
            return
        except Exception as error:
            number = _error_number(error, f"command {message.command}")
        finally:
            message.close()
        if message.flags & NO_REPLY:
            return
        self._nearness.access()
        if number:
            self._channel.refuse(message, number)
        else:
            self._channel.reply(message, *reply)

    def _answer(self, message: Message) -> Reply:
        if message.flags & TYPE_MASK != TYPE_COMMAND:
            raise Rejected(errno.EINVAL, "neither a command nor a reply")
        answer = self._answers.get(message.command)
        if answer is None:
            raise Rejected(errno.EINVAL, "no such command")
        return answer(message)

    # -- regions ------------------------------------------------------------------------------------------------------

    def _access(self, message: Message) -> tuple[Region, int, int, int]:
        """Region, its index, offset and bytes of an access, checked."""
        if len(message.body) < REGION_ACCESS.size:
            raise Rejected(errno.EINVAL, "short request")
        offset, index, count = REGION_ACCESS.unpack_from(message.body)
        self._current = message
        return self._region(message, index, offset, count), index, offset, count

    def _region(self, work: Access | Message, index: int, offset: int, count: int) -> Region:
        """The region of an access, checked; its first part is done then."""
        region = self._regions.get(index)
        if region is None or count > self._data_bytes_max or offset + count > region.size_bytes:
            raise Rejected(errno.EINVAL, f"access to region {index} at {offset:#x}+{count:#x}")
        if index not in STEP_BY_STEP:
            self._nearness.leave()
        self._let_time_pass(work)
        return region

    def _check(self, message: Message) -> None:
        if self._current is not message:
            raise Adopted

    def _region_read(self, message: Message) -> Reply:
        with self._card.lock:
            region, index, offset, count = self._access(message)
            data = region.read(offset, count)
        self._check(message)
        return REGION_ACCESS.pack(offset, index, count) + data, ()

    def _region_write(self, message: Message) -> Reply:
        data = message.body[REGION_ACCESS.size :]
        with self._card.lock:
            region, index, offset, count = self._access(message)
            if len(data) != count:
                raise Rejected(errno.EINVAL, f"{len(data)} bytes for a write of {count}")
            region.write(offset, data)
        self._check(message)
        return REGION_ACCESS.pack(offset, index, count), ()

    def _region_write_multi(self, message: Message) -> Reply:
        if len(message.body) < WRITE_MULTI.size:
            raise Rejected(errno.EINVAL, "short request")
        (writes,) = WRITE_MULTI.unpack_from(message.body)
        entries = message.body[WRITE_MULTI.size :]
        if writes * WRITE_MULTI_ENTRY.size != len(entries):
            raise Rejected(errno.EINVAL, f"{len(entries)} bytes for {writes} writes")
        self._current = message
        for position in range(self._position, writes):
            self._position, self._performing = position, False
            offset, index, count, data = WRITE_MULTI_ENTRY.unpack_from(entries, position * WRITE_MULTI_ENTRY.size)
            if count > MULTI_WRITE_BYTES_MAX:
                raise Rejected(errno.EINVAL, f"a write of {count} bytes among several")
            with self._card.lock:
                self._region(message, index, offset, count).write(offset, memoryview(data)[:count])
            self._check(message)
        return WRITE_MULTI.pack(writes), ()

    def _region_info(self, message: Message) -> Reply:
        if len(message.body) < REGION_INFO.size:
            raise Rejected(errno.EINVAL, "short request")
        argsz, _, index, *_ = REGION_INFO.unpack_from(message.body)
        region = self._regions.get(index)
        if argsz < REGION_INFO.size or region is None:
            raise Rejected(errno.EINVAL, f"no region {index}, or no room for an answer in {argsz} bytes")
        descriptors = () if region.descriptor is None else (region.descriptor,)
        return region.info(index, argsz), descriptors

    # -- the device ---------------------------------------------------------------------------------------------------

    def _device_info(self, message: Message) -> Reply:
        if len(message.body) < DEVICE_INFO.size or DEVICE_INFO.unpack_from(message.body)[0] < DEVICE_INFO.size:
            raise Rejected(errno.EINVAL, "short request")
        flags = DEVICE_PCI | DEVICE_RESETTABLE
        return DEVICE_INFO.pack(DEVICE_INFO.size, flags, len(self._regions), len(Irq)), ()

    def _reset(self, message: Message) -> Reply:
        if message.body or message.descriptors:
            raise Rejected(errno.EINVAL, "a reset takes nothing with it")
        self._bus.interrupt("the card was reset", RESET_S)
        self._card.bus_reset(function_level=True)
        return EMPTY

    def _dma_map(self, message: Message) -> Reply:
        self._memory.map(message)
        return EMPTY

    def _dma_unmap(self, message: Message) -> Reply:
        return self._memory.unmap(message), ()

    def _irq_info(self, message: Message) -> Reply:
        return self._interrupts.info(message), ()

    def _set_irqs(self, message: Message) -> Reply:
        self._interrupts.set(message)
        return EMPTY

    def _unsupported(self, message: Message) -> Reply:
        raise Rejected(errno.ENOTSUP, f"{Command(message.command).name} is not supported")


def _error_number(error: Exception, what: str) -> int:
    """The errno that tells a client of an error: EIO for a defect of a model, which must not cost others their card."""
    if isinstance(error, Closed):
        raise error
    if isinstance(error, Rejected):
        log.info("%s refused: %s", what, error)
        return error.number
    log.error("%s failed", what, exc_info=error)
    return errno.EIO
