"""A client's memory, as the card reaches it: DMA_MAP and DMA_UNMAP.

Memory that comes with a file descriptor is mapped into the card's arena. Memory without one is reached by messages: a
virtual machine announces its boot ROM and the card's own BARs that way, and all of its memory when that is not shared.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from amdrv.emulator.arena import BusError
from amdrv.emulator.server.channel import Message, Rejected
from amdrv.errors import OutOfMemory
from amdrv.facts.vfio_user import (
    DMA_FILE,
    DMA_MAP,
    DMA_MAPPED,
    DMA_READABLE,
    DMA_UNMAP,
    DMA_WRITABLE,
    PAGE_BYTES,
    UNMAP_ALL,
)

if TYPE_CHECKING:
    from amdrv.emulator.server.client_bus import ClientBus
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

MAPS_MAX = 4096
ADDRESS_END = 1 << 64


class ClientMemory:
    """What one client has mapped."""

    def __init__(self, card: Card, bus: ClientBus) -> None:
        self._card = card
        self._bus = bus
        self._maps: dict[int, int] = {}  # bus address → bytes
        self.by_message = False  # whether any of it came without a descriptor

    def map(self, message: Message) -> None:
        """Obey DMA_MAP. Raises Rejected: EEXIST over something mapped, ENOSPC for too much, EINVAL."""
        if len(message.body) < DMA_MAP.size:
            raise Rejected(errno.EINVAL, "short request")
        argsz, flags, offset, address, size = DMA_MAP.unpack_from(message.body)
        if argsz < DMA_MAP.size or flags & ~(DMA_READABLE | DMA_WRITABLE | DMA_MAPPED | DMA_FILE):
            raise Rejected(errno.EINVAL, f"argsz {argsz}, flags {flags:#x}")
        if flags & (DMA_MAPPED | DMA_FILE) and not message.descriptors:
            raise Rejected(errno.EINVAL, f"flags {flags:#x} without a descriptor")
        if not size or (address | size | offset) % PAGE_BYTES or address + size > ADDRESS_END:
            raise Rejected(errno.EINVAL, f"{address:#x}+{size:#x} at offset {offset:#x}: not whole pages")
        if len(message.descriptors) > 1:
            raise Rejected(errno.EINVAL, f"{len(message.descriptors)} descriptors for one map")
        if len(self._maps) >= MAPS_MAX:
            raise Rejected(errno.ENOSPC, f"more than {MAPS_MAX} maps")
        if message.descriptors:
            check_file(message.descriptors[0], offset, size)
        with self._card.lock:
            arena = self._card.arena
            if arena.overlaps(address, size):
                raise Rejected(errno.EEXIST, f"{address:#x}+{size:#x} is mapped already")
            readable, writable = bool(flags & DMA_READABLE), bool(flags & DMA_WRITABLE)
            if not message.descriptors or flags & DMA_FILE:
                self.by_message |= not message.descriptors
                port = FilePort(os.dup(message.descriptors[0]), offset - address) if flags & DMA_FILE else self._bus
                try:
                    arena.map_remote(address, size, port, readable=readable, writable=writable)
                except OutOfMemory:  # more than the card has addresses for; nothing says that it will be used
                    arena.note_out_of_reach(address, size)
                    log.warning("%#x+%#x is out of the card's reach", address, size)
            else:
                try:
                    file = message.descriptors[0]
                    arena.map_file(address, size, file, offset, readable=readable, writable=writable)
                except OutOfMemory as error:
                    raise Rejected(errno.ENOSPC, str(error)) from error
                except OSError as error:
                    raise Rejected(error.errno or errno.EINVAL, f"cannot map: {error.strerror}") from error
            self._maps[address] = size
        log.debug("mapped %#x+%#x%s", address, size, "" if message.descriptors else " (no descriptor)")

    def unmap(self, message: Message) -> bytes:
        """Obey DMA_UNMAP. Raises Rejected: ENOENT for a range that was not mapped as such, EINVAL."""
        if len(message.body) < DMA_UNMAP.size:
            raise Rejected(errno.EINVAL, "short request")
        argsz, flags, address, size = DMA_UNMAP.unpack_from(message.body)
        if argsz < DMA_UNMAP.size or flags & ~UNMAP_ALL:
            raise Rejected(errno.EINVAL, f"argsz {argsz}, flags {flags:#x}")
        if flags & UNMAP_ALL:
            if address or size:
                raise Rejected(errno.EINVAL, "an address for everything")
            self.close()
        elif self._maps.get(address) != size:
            raise Rejected(errno.ENOENT, f"{address:#x}+{size:#x} is not what was mapped")
        else:
            with self._card.lock:
                self._bus.cancel(address, size)
                self._card.arena.unmap(address, size)
                del self._maps[address]
            log.debug("unmapped %#x+%#x", address, size)
        return DMA_UNMAP.pack(DMA_UNMAP.size, flags, address, size)

    def close(self) -> None:
        """Take everything back."""
        with self._card.lock:
            for address, size in self._maps.items():
                self._bus.cancel(address, size)
                self._card.arena.unmap(address, size)
            self._maps.clear()
            self._card.arena.bus_changed()


class FilePort:
    """Memory that is read and written through a file descriptor, which this closes in the end."""

    def __init__(self, descriptor: int, shift: int) -> None:
        """A bus address is ``shift`` below its place in the file."""
        self._descriptor, self._shift = descriptor, shift
        weakref.finalize(self, os.close, descriptor)

    def read(self, address: int, size_bytes: int) -> bytes:
        """See Port."""
        try:
            data = os.pread(self._descriptor, size_bytes, address + self._shift)
        except OSError as error:
            raise BusError(address, size_bytes, f"the client's file: {error.strerror}") from error
        if len(data) != size_bytes:
            raise BusError(address, size_bytes, "the client's file ends there")
        return data

    def write(self, address: int, data: bytes) -> None:
        """See Port."""
        try:
            written = os.pwrite(self._descriptor, data, address + self._shift)
        except OSError as error:
            raise BusError(address, len(data), f"the client's file: {error.strerror}") from error
        if written != len(data):
            raise BusError(address, len(data), "the client's file takes no more")


def check_file(descriptor: int, offset: int, size: int) -> None:
    """Whether a client's file can be mapped. Raises Rejected.

    Pages that a file does not have end the process that touches them, so it must be long enough, and should stay so: it
    is sealed against shrinking where it lets us.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Rejected(errno.EINVAL, "not a file")
    if offset + size > status.st_size:
        raise Rejected(errno.EINVAL, f"{offset:#x}+{size:#x} reaches beyond the file's {status.st_size:#x} bytes")
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
