"""A client's memory, as the card reaches it: DMA_MAP and DMA_UNMAP.

Memory that comes with a file descriptor is mapped into the card's arena. Memory without one is only noted: a virtual
machine announces its boot ROM and the card's own BARs that way, and no access of the card to it succeeds.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from amdrv.emulator.server.channel import Message, Rejected
from amdrv.errors import OutOfMemory
from amdrv.facts.vfio_user import DMA_MAP, DMA_READABLE, DMA_UNMAP, DMA_WRITABLE, PAGE_BYTES, UNMAP_ALL

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

MAPS_MAX = 4096
ADDRESS_END = 1 << 64


class ClientMemory:
    """What one client has mapped."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._maps: dict[int, int] = {}  # bus address → bytes

    def map(self, message: Message) -> None:
        """Obey DMA_MAP. Raises Rejected: EEXIST over something mapped, ENOSPC for too much, EINVAL."""
        if len(message.body) < DMA_MAP.size:
            raise Rejected(errno.EINVAL, "short request")
        argsz, flags, offset, address, size = DMA_MAP.unpack_from(message.body)
        if argsz < DMA_MAP.size or flags & ~(DMA_READABLE | DMA_WRITABLE):
            raise Rejected(errno.EINVAL, f"argsz {argsz}, flags {flags:#x}")
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
            if not message.descriptors:
                arena.note_out_of_reach(address, size)
            else:
                try:
                    writable = bool(flags & DMA_WRITABLE)
                    arena.map_file(address, size, message.descriptors[0], offset, writable=writable)
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
                self._card.arena.unmap(address, size)
                del self._maps[address]
            log.debug("unmapped %#x+%#x", address, size)
        return DMA_UNMAP.pack(DMA_UNMAP.size, flags, address, size)

    def close(self) -> None:
        """Take everything back."""
        with self._card.lock:
            for address, size in self._maps.items():
                self._card.arena.unmap(address, size)
            self._maps.clear()


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
