"""The regions of the card that a client reads and writes by messages: configuration space, BARs, and the machine.

An access takes the widths that the bus offers, naturally aligned; a longer one is taken apart into such accesses.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from amdrv.emulator.config_space import CONFIG_BYTES
from amdrv.emulator.server.channel import Rejected
from amdrv.facts.vfio_user import (
    CAPABILITY,
    CAPABILITY_SPARSE,
    CAPABILITY_TYPE,
    CONFIG_REGION,
    HOLDER_BYTES,
    LONGEST_WAIT_S,
    MACHINE_BYTES,
    MACHINE_REGION,
    MACHINE_SUBTYPE,
    MACHINE_TYPE,
    PAGE_BYTES,
    REGION_CAPABILITIES,
    REGION_INFO,
    REGION_MAPPABLE,
    REGION_READABLE,
    REGION_TYPE,
    REGION_WRITABLE,
    SPARSE,
    SPARSE_AREA,
    Machine,
)

if TYPE_CHECKING:
    from amdrv.emulator.server.client_bus import ClientBus
    from amdrv.emulator.shell import Card

VRAM_BAR, DOORBELL_BAR, REGISTER_BAR = 0, 2, 5
ROM_REGION = 6
DWORD_BYTES = 4
CHIP_BYTES = 16
RESET_S = 5.0  # for accesses to the client's memory to end before a reset
BUSY_WAIT_S = 0.005  # of one request to let time pass while queues are at work: the client may have more to say


def pieces(offset: int, size_bytes: int, widest: int) -> Iterator[tuple[int, int]]:
    """(offset, width) of the naturally aligned accesses, at most ``widest`` bytes each, that make up a range."""
    end = offset + size_bytes
    while offset < end:
        width = widest
        while offset % width or offset + width > end:
            width //= 2
        yield offset, width
        offset += width


class Region:
    """One region. ``size_bytes`` 0: there is none at this index."""

    size_bytes = 0
    flags = 0
    descriptor: int | None = None  # what a client can map

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes at ``offset``; the caller has checked the bounds. Raises Rejected."""
        raise Rejected(errno.EINVAL, "this region cannot be read")

    def write(self, offset: int, data: memoryview) -> None:
        """Store bytes at ``offset``; the caller has checked the bounds. Raises Rejected."""
        raise Rejected(errno.EINVAL, "this region cannot be written")

    def capabilities(self) -> list[tuple[int, bytes]]:
        """(id, contents) of what is to be said beyond size and flags."""
        return []

    def info(self, index: int, argsz: int) -> bytes:
        """Answer to DEVICE_GET_REGION_INFO: capabilities only where ``argsz`` leaves room, but always where they are.

        QEMU gives up on a region whose reply announces capabilities without an offset, even one that it will ask again.
        """
        chain = b""
        entries = self.capabilities()
        for number, (kind, contents) in enumerate(entries):
            padded = contents + bytes(-len(contents) % 8)
            at_next = REGION_INFO.size + len(chain) + CAPABILITY.size + len(padded)
            chain += CAPABILITY.pack(kind, 1, at_next if number + 1 < len(entries) else 0) + padded
        first = REGION_INFO.size if chain else 0
        flags = self.flags | (REGION_CAPABILITIES if chain else 0)
        needed = REGION_INFO.size + len(chain)
        fixed = REGION_INFO.pack(needed, flags, index, first, self.size_bytes, 0)
        return fixed + chain if argsz >= needed else fixed


class ConfigRegion(Region):
    """Configuration space."""

    size_bytes = CONFIG_BYTES
    flags = REGION_READABLE | REGION_WRITABLE

    def __init__(self, card: Card) -> None:
        self._card = card

    def read(self, offset: int, size_bytes: int) -> bytes:
        return b"".join(
            self._card.read_config(at, width).to_bytes(width, "little")
            for at, width in pieces(offset, size_bytes, DWORD_BYTES)
        )

    def write(self, offset: int, data: memoryview) -> None:
        for at, width in pieces(offset, len(data), DWORD_BYTES):
            value = int.from_bytes(data[at - offset : at - offset + width], "little")
            self._card.write_config(at, width, value)


class VramRegion(Region):
    """BAR0. A client maps it as far as there is memory behind it; what lies beyond reads as ones."""

    flags = REGION_READABLE | REGION_WRITABLE

    def __init__(self, card: Card, size_bytes: int) -> None:
        self._card = card
        self.size_bytes = size_bytes
        self._memory_bytes = min(size_bytes, card.vram_bytes) & -PAGE_BYTES

    def offer(self) -> None:
        """Let the client map it."""
        self.flags |= REGION_MAPPABLE
        self.descriptor = self._card.arena.vram_descriptor

    def read(self, offset: int, size_bytes: int) -> bytes:
        inside = max(0, min(size_bytes, self._memory_bytes - offset)) if self._card.answers() else 0
        return bytes(self._card.bar0_view(offset, inside)) + b"\xff" * (size_bytes - inside)

    def write(self, offset: int, data: memoryview) -> None:
        inside = max(0, min(len(data), self._memory_bytes - offset)) if self._card.answers() else 0
        self._card.bar0_view(offset, inside)[:] = data[:inside]

    def capabilities(self) -> list[tuple[int, bytes]]:
        if self.descriptor is None:
            return []
        area = SPARSE_AREA.pack(0, self._memory_bytes)
        return [(CAPABILITY_SPARSE, SPARSE.pack(1, 0) + area)]


class DoorbellRegion(Region):
    """BAR2. Reads give zeros."""

    flags = REGION_READABLE | REGION_WRITABLE

    def __init__(self, card: Card, size_bytes: int) -> None:
        self._card = card
        self.size_bytes = size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        return bytes(size_bytes)

    def write(self, offset: int, data: memoryview) -> None:
        if offset % DWORD_BYTES or len(data) % DWORD_BYTES:
            raise Rejected(errno.EINVAL, "doorbells take aligned dwords")
        for at, width in pieces(offset, len(data), 2 * DWORD_BYTES):
            value = int.from_bytes(data[at - offset : at - offset + width], "little")
            self._card.write_doorbell(at, width, value)


class RegisterRegion(Region):
    """BAR5: dwords. A narrower read gives a part of one; a narrower write changes a part of one."""

    flags = REGION_READABLE | REGION_WRITABLE

    def __init__(self, card: Card, size_bytes: int) -> None:
        self._card = card
        self.size_bytes = size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        if size_bytes == DWORD_BYTES and not offset % DWORD_BYTES:
            return self._card.read_register(offset).to_bytes(DWORD_BYTES, "little")
        start = offset & -DWORD_BYTES
        dwords = range(start, offset + size_bytes, DWORD_BYTES)
        data = b"".join(self._card.read_register(at).to_bytes(DWORD_BYTES, "little") for at in dwords)
        return data[offset - start : offset - start + size_bytes]

    def write(self, offset: int, data: memoryview) -> None:
        for at, width in pieces(offset, len(data), DWORD_BYTES):
            value = int.from_bytes(data[at - offset : at - offset + width], "little")
            if width < DWORD_BYTES:
                dword, shift = at & -DWORD_BYTES, 8 * (at % DWORD_BYTES)
                mask = ((1 << 8 * width) - 1) << shift
                value = self._card.read_register(dword) & ~mask | value << shift
                at = dword
            self._card.write_register(at, value)


class RomRegion(Region):
    """The expansion ROM: the board's video BIOS, and ones where there is nothing behind it."""

    flags = REGION_READABLE

    def __init__(self, card: Card, size_bytes: int) -> None:
        self._card = card
        self.size_bytes = size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        return self._card.rom[offset : offset + size_bytes].ljust(size_bytes, b"\xff")


class MachineRegion(Region):
    """The machine around the card: its time, and who has it.

    ``own_time`` is called when a client begins to keep the card's own time. ``bus`` leads to the client's memory.
    """

    size_bytes = MACHINE_BYTES
    flags = REGION_READABLE | REGION_WRITABLE

    def __init__(
        self,
        card: Card,
        own_time: Callable[[], None],
        name_holder: Callable[[str], None],
        bus: ClientBus,
    ) -> None:
        self._card = card
        self._own_time = own_time
        self._name_holder = name_holder
        self._bus = bus

    def capabilities(self) -> list[tuple[int, bytes]]:
        return [(CAPABILITY_TYPE, REGION_TYPE.pack(MACHINE_TYPE, MACHINE_SUBTYPE))]

    def read(self, offset: int, size_bytes: int) -> bytes:
        if (offset, size_bytes) == (Machine.CHIP, CHIP_BYTES):
            return self._card.chip.arch.encode("ascii")[: CHIP_BYTES - 1].ljust(CHIP_BYTES, b"\0")
        if (offset, size_bytes) == (Machine.NOW_NS, 8):
            self._own_time()
            return self._card.clock.now_ns.to_bytes(8, "little")
        raise Rejected(errno.EINVAL, f"nothing to read at {offset:#x}+{size_bytes:#x}")

    def write(self, offset: int, data: memoryview) -> None:
        if offset == Machine.HOLDER and len(data) <= HOLDER_BYTES:
            self._name_holder(bytes(data).decode("utf-8", errors="replace"))
            return
        if len(data) != 8 or offset not in (Machine.SLEEP_NS, Machine.RELAX_NS, Machine.BUS_RESET):
            raise Rejected(errno.EINVAL, f"nothing to write at {offset:#x}+{len(data):#x}")
        self._own_time()
        seconds = int.from_bytes(data, "little") / 1e9
        if offset != Machine.BUS_RESET and seconds > LONGEST_WAIT_S:
            raise Rejected(errno.EINVAL, f"{seconds:g} s at once; what falls due on the way takes time")
        if offset == Machine.SLEEP_NS:
            self._card.sleep(seconds)
        elif offset == Machine.RELAX_NS:
            if not self._bus.wait_idle(BUSY_WAIT_S):  # else what the client waits for may be under way
                self._card.relax(min(seconds, BUSY_WAIT_S) if self._card.worker.busy else seconds)
        else:
            self._bus.interrupt("the card was reset", RESET_S)
            self._card.bus_reset(function_level=False)


def regions_of(card: Card, machine: MachineRegion, *, mappable: bool) -> dict[int, Region]:
    """All regions of a card by index."""
    regions: dict[int, Region] = {index: Region() for index in range(MACHINE_REGION)}
    regions[CONFIG_REGION] = ConfigRegion(card)
    regions[MACHINE_REGION] = machine
    if card.chip.rom is not None:
        regions[ROM_REGION] = RomRegion(card, card.chip.rom.window_bytes)
    vram = regions[VRAM_BAR] = VramRegion(card, card.bars[VRAM_BAR].size_bytes)
    if mappable:
        vram.offer()
    regions[DOORBELL_BAR] = DoorbellRegion(card, card.bars[DOORBELL_BAR].size_bytes)
    regions[REGISTER_BAR] = RegisterRegion(card, card.bars[REGISTER_BAR].size_bytes)
    return regions
