"""One client's messages to the card, from the negotiated version to the end of the connection."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from amdrv.emulator.config_space import COMMAND, COMMAND_MASTER
from amdrv.emulator.faults import ClientDied
from amdrv.emulator.server.channel import Channel, Closed, Message, Rejected
from amdrv.emulator.server.dma import ClientMemory
from amdrv.emulator.server.interrupts import Interrupts
from amdrv.emulator.server.nearness import Nearness
from amdrv.emulator.server.negotiation import Proposal
from amdrv.emulator.server.pace import Pace
from amdrv.emulator.server.regions import REGISTER_BAR, MachineRegion, Region, regions_of
from amdrv.facts.vfio_user import (
    CONFIG_REGION,
    DATA_BYTES_MAX,
    DEVICE_INFO,
    DEVICE_PCI,
    DEVICE_RESETTABLE,
    NO_REPLY,
    REGION_ACCESS,
    REGION_INFO,
    TYPE_COMMAND,
    TYPE_MASK,
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


class Session:
    """One client that has the card."""

    def __init__(self, card: Card, channel: Channel, proposal: Proposal, owner: Client) -> None:
        self._card = card
        self._owner = owner
        self._channel = channel
        self._data_bytes_max = min(DATA_BYTES_MAX, proposal.data_bytes_max)
        self._memory = ClientMemory(card)
        self._nearness = Nearness(owner.pid)
        self._pace = Pace(card, time.monotonic_ns)
        self._interrupts = Interrupts(card.config)
        self._regions = regions_of(card, MachineRegion(card, self._pace.stop, owner.rename))
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
        try:
            while True:
                self._handle(self._channel.receive())
        except Closed as end:
            log.debug("connection ends: %s", end)
        except ClientDied as end:
            log.info("%s", end)
        finally:
            self._pace.stop()
            self._detach()

    def _detach(self) -> None:
        """Bus mastering goes off, as VFIO has it; the card's memory and registers stay."""
        with self._card.lock:
            self._card.on_interrupt = self._card.faults.end_client = None
            command = self._card.config.read(COMMAND, 2)
            self._card.config.write(COMMAND, 2, command & ~COMMAND_MASTER)
            self._memory.close()
        self._interrupts.close()

    def _handle(self, message: Message) -> None:
        number = 0
        reply = EMPTY
        try:
            reply = self._answer(message)
        except Rejected as error:
            log.info("command %d refused: %s", message.command, error)
            number = error.number
        except Closed:
            raise
        except Exception:  # a defect of a model must not cost the other clients their card
            log.exception("command %d failed", message.command)
            number = errno.EIO
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
            raise Rejected(errno.EINVAL, "a reply that nobody waits for")
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
        return self._region(index, offset, count), index, offset, count

    def _region(self, index: int, offset: int, count: int) -> Region:
        region = self._regions.get(index)
        if region is None or count > self._data_bytes_max or offset + count > region.size_bytes:
            raise Rejected(errno.EINVAL, f"access to region {index} at {offset:#x}+{count:#x}")
        if index not in STEP_BY_STEP:
            self._nearness.leave()
        self._pace.catch_up()
        return region

    def _region_read(self, message: Message) -> Reply:
        region, index, offset, count = self._access(message)
        return REGION_ACCESS.pack(offset, index, count) + region.read(offset, count), ()

    def _region_write(self, message: Message) -> Reply:
        region, index, offset, count = self._access(message)
        data = message.body[REGION_ACCESS.size :]
        if len(data) != count:
            raise Rejected(errno.EINVAL, f"{len(data)} bytes for a write of {count}")
        region.write(offset, data)
        return REGION_ACCESS.pack(offset, index, count), ()

    def _region_write_multi(self, message: Message) -> Reply:
        if len(message.body) < WRITE_MULTI.size:
            raise Rejected(errno.EINVAL, "short request")
        (writes,) = WRITE_MULTI.unpack_from(message.body)
        entries = message.body[WRITE_MULTI.size :]
        if writes * WRITE_MULTI_ENTRY.size != len(entries):
            raise Rejected(errno.EINVAL, f"{len(entries)} bytes for {writes} writes")
        for offset, index, count, data in WRITE_MULTI_ENTRY.iter_unpack(entries):
            if count > MULTI_WRITE_BYTES_MAX:
                raise Rejected(errno.EINVAL, f"a write of {count} bytes among several")
            self._region(index, offset, count).write(offset, memoryview(data)[:count])
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
        self._pace.catch_up()
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
