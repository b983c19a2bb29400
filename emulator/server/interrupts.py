"""Interrupts to a client: its event descriptors, by kind and vector, with masks."""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from amdrv.emulator.config_space import (
    CAP_ID_MSI,
    CAP_ID_MSIX,
    CAPABILITY_POINTER,
    COMMAND,
    COMMAND_INTX_DISABLE,
    ConfigSpace,
)
from amdrv.emulator.server.channel import Message, Rejected
from amdrv.facts.vfio_user import (
    ACTION_MASK,
    ACTION_TRIGGER,
    ACTION_UNMASK,
    ACTIONS,
    DATA_BOOL,
    DATA_EVENTFD,
    DATA_NONE,
    DATA_TYPES,
    IRQ_AUTOMASKED,
    IRQ_EVENTFD,
    IRQ_INFO,
    IRQ_MASKABLE,
    IRQ_NORESIZE,
    SET_IRQS,
    Irq,
)

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

INTERRUPT_PIN = 0x3D  # Linux include/uapi/linux/pci_regs.h
CAPABILITIES_MAX = 48
UNDELIVERED_MAX = 4096  # of a client that blocks its own descriptors
EVENT_FILE = "anon_inode:[eventfd]"
KIND_FLAGS = {
    Irq.INTX: IRQ_EVENTFD | IRQ_MASKABLE | IRQ_AUTOMASKED,
    Irq.MSI: IRQ_EVENTFD | IRQ_MASKABLE | IRQ_NORESIZE,
    Irq.MSIX: IRQ_EVENTFD | IRQ_MASKABLE | IRQ_NORESIZE,
    Irq.ERR: IRQ_EVENTFD | IRQ_NORESIZE,
    Irq.REQ: IRQ_EVENTFD | IRQ_NORESIZE,
}


def vector_counts(config: ConfigSpace) -> dict[Irq, int]:
    """How many vectors of each kind the capabilities in configuration space offer."""
    counts = {Irq.INTX: int(config.read(INTERRUPT_PIN, 1) != 0), Irq.MSI: 0, Irq.MSIX: 0, Irq.ERR: 1, Irq.REQ: 0}
    for at, kind in capabilities(config):
        control = config.read(at + 2, 2)
        if kind == CAP_ID_MSI:
            counts[Irq.MSI] = 1 << (control >> 1 & 7)
        elif kind == CAP_ID_MSIX:
            counts[Irq.MSIX] = (control & 0x7FF) + 1
    return counts


def enabled_kind(config: ConfigSpace) -> Irq:
    """By which kind of interrupt the function speaks at present."""
    if config.msix_enabled:
        return Irq.MSIX
    return Irq.MSI if config.msi_enabled else Irq.INTX


def capabilities(config: ConfigSpace) -> list[tuple[int, int]]:
    """(offset, id) of each capability."""
    found: list[tuple[int, int]] = []
    at = config.read(CAPABILITY_POINTER, 1)
    while at and len(found) < CAPABILITIES_MAX:
        found.append((at, config.read(at, 1)))
        at = config.read(at + 1, 1)
    return found


class Interrupts:
    """What one client wants to be told, and through which descriptors.

    Vectors of MSI-X are masked in the card's own table. A client leaves that table to whom it gives its descriptors, as
    it does with VFIO in a kernel: a vector with a descriptor has its mask taken away, one without is masked.

    A client can make a write to its descriptor block, so that is done by a thread of
    its own, and never with the card's lock held.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self._config = card.config
        self._counts = vector_counts(card.config)
        self._events: dict[tuple[Irq, int], int] = {}
        self._masked: set[tuple[Irq, int]] = set()
        self._pending: set[tuple[Irq, int]] = set()
        self._lock = threading.Lock()
        self._outbox: queue.SimpleQueue[tuple[Irq, int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def deliver(self, vector: int) -> None:
        """The card interrupts: pass it on by the kind that is switched on in configuration space."""
        kind = enabled_kind(self._config)
        if kind is not Irq.INTX or not self._config.read(COMMAND, 2) & COMMAND_INTX_DISABLE:
            self.signal(kind, vector)

    def signal(self, kind: Irq, vector: int = 0) -> None:
        """Tell the client, now or when it takes the mask away. Never blocks."""
        with self._lock:
            key = (kind, vector)
            if key in self._masked:
                self._pending.add(key)
            elif key in self._events:
                if KIND_FLAGS[kind] & IRQ_AUTOMASKED:
                    self._masked.add(key)
                if self._outbox.qsize() < UNDELIVERED_MAX:
                    self._outbox.put(key)

    def info(self, message: Message) -> bytes:
        """Answer to DEVICE_GET_IRQ_INFO. Raises Rejected."""
        if len(message.body) < IRQ_INFO.size:
            raise Rejected(errno.EINVAL, "short request")
        argsz, _, index, _ = IRQ_INFO.unpack_from(message.body)
        if argsz < IRQ_INFO.size or index not in self._counts:
            raise Rejected(errno.EINVAL, f"no interrupt type {index}")
        kind = Irq(index)
        count = self._counts[kind]
        return IRQ_INFO.pack(IRQ_INFO.size, KIND_FLAGS[kind] if count else 0, index, count)

    def set(self, message: Message) -> None:
        """Obey DEVICE_SET_IRQS. Raises Rejected."""
        if len(message.body) < SET_IRQS.size:
            raise Rejected(errno.EINVAL, "short request")
        argsz, flags, index, start, count = SET_IRQS.unpack_from(message.body)
        action, data = flags & ACTIONS, flags & DATA_TYPES
        self._check(argsz, flags, index, start, count)
        kind, flagged = Irq(index), bytes(message.body[SET_IRQS.size :])
        if data == DATA_BOOL and len(flagged) != count:
            raise Rejected(errno.EINVAL, f"{len(flagged)} bytes for {count} vectors")
        if message.descriptors and (data != DATA_EVENTFD or len(message.descriptors) != count):
            raise Rejected(errno.EINVAL, f"{len(message.descriptors)} descriptors for {count} vectors")
        if count == 0:
            self._forget(kind, range(self._counts[kind]))
            return
        if data == DATA_EVENTFD:
            if action != ACTION_TRIGGER:
                raise Rejected(errno.EINVAL, "descriptors for masks are not taken")
            self._assign(kind, start, count, message)
            return
        chosen = [start + n for n in range(count) if data == DATA_NONE or flagged[n]]
        self._act(kind, action, chosen)

    def close(self) -> None:
        """Drop all descriptors. A write that the client blocks goes on blocking its thread, and nobody else."""
        for kind in self._counts:
            self._forget(kind, range(self._counts[kind]))
        self._outbox.put(None)

    def _check(self, argsz: int, flags: int, index: int, start: int, count: int) -> None:
        action, data = flags & ACTIONS, flags & DATA_TYPES
        known = self._counts.get(Irq(index), 0) if index in self._counts else 0
        if argsz < SET_IRQS.size or flags & ~(ACTIONS | DATA_TYPES):
            raise Rejected(errno.EINVAL, f"argsz {argsz}, flags {flags:#x}")
        if action not in (ACTION_MASK, ACTION_UNMASK, ACTION_TRIGGER):
            raise Rejected(errno.EINVAL, f"actions {action:#x}")
        if data not in (DATA_NONE, DATA_BOOL, DATA_EVENTFD):
            raise Rejected(errno.EINVAL, f"data types {data:#x}")
        if index not in self._counts or start + count > known or (known and start >= known):
            raise Rejected(errno.EINVAL, f"vectors {start} to {start + count} of interrupt type {index}")
        if count == 0 and (start or action != ACTION_TRIGGER or data != DATA_NONE):
            raise Rejected(errno.EINVAL, "nothing to act on")
        if index in (Irq.ERR, Irq.REQ) and action != ACTION_TRIGGER:
            raise Rejected(errno.EINVAL, f"interrupt type {index} has no mask")

    def _assign(self, kind: Irq, start: int, count: int, message: Message) -> None:
        if not message.descriptors:
            self._forget(kind, range(start, start + count))
            return
        for descriptor in message.descriptors:
            if os.readlink(f"/proc/self/fd/{descriptor}") != EVENT_FILE:
                raise Rejected(errno.EINVAL, "not an eventfd")
        self._forget(kind, range(start, start + count))
        with self._lock:
            for vector, descriptor in zip(range(start, start + count), message.take_descriptors(), strict=True):
                self._events[kind, vector] = descriptor
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_events, name="interrupts", daemon=True)
                self._thread.start()
        if kind is Irq.MSIX:
            self._mask_messages(range(start, start + count), masked=False)

    def _act(self, kind: Irq, action: int, vectors: list[int]) -> None:
        if kind is Irq.MSIX and action != ACTION_TRIGGER:
            self._mask_messages(vectors, masked=action == ACTION_MASK)
            return
        for vector in vectors:
            key = (kind, vector)
            with self._lock:
                if action == ACTION_MASK:
                    self._masked.add(key)
                    continue
                if action == ACTION_UNMASK:
                    self._masked.discard(key)
                    if key not in self._pending:
                        continue
                    self._pending.discard(key)
            self.signal(kind, vector)

    def _mask_messages(self, vectors: Iterable[int], *, masked: bool) -> None:
        with self._card.lock:
            for vector in vectors:
                self._card.messages.mask(vector, masked=masked)

    def _forget(self, kind: Irq, vectors: range) -> None:
        if kind is Irq.MSIX:
            self._mask_messages(vectors, masked=True)
        with self._lock:
            for vector in vectors:
                key = (kind, vector)
                self._masked.discard(key)
                self._pending.discard(key)
                descriptor = self._events.pop(key, None)
                if descriptor is not None:
                    os.close(descriptor)

    def _write_events(self) -> None:
        while (key := self._outbox.get()) is not None:
            with self._lock:
                descriptor = self._events.get(key)
                own = -1 if descriptor is None else os.dup(descriptor)
            if own < 0:
                continue
            try:
                os.eventfd_write(own, 1)
            except OSError as error:
                log.warning("interrupt %s %d was not delivered: %s", key[0].name, key[1], error.strerror)
            finally:
                os.close(own)
