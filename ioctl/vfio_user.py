"""PciFunction of a card behind a vfio-user socket: an emulated one in another process.

Registers and configuration space are messages; BAR0 and DMA memory are mapped into both processes. Writes are posted,
as they are on a bus: they are carried out in order and before any later read of a register, but a read of memory does
not wait for them.

Time: the server of this project's own card (``amdrv emulate``) shows the card's clock in a region of its own, and then
everything takes the same virtual time as in process. A server without it goes by the wall clock: ``virtual_s`` is None,
and a wait polls with longer and longer pauses, or until the card's interrupt comes.
"""

from __future__ import annotations

import mmap
import os
import select
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amdrv.errors import AmdrvError, DeviceLost, Refused
from amdrv.facts.pci import EXTENDED_CONFIG_BYTES, Command, Config
from amdrv.facts.vfio_user import (
    ACTION_TRIGGER,
    CAPABILITY,
    CAPABILITY_SPARSE,
    CAPABILITY_TYPE,
    CONFIG_REGION,
    DATA_EVENTFD,
    DEVICE_INFO,
    HOLDER_BYTES,
    LONGEST_WAIT_S,
    MACHINE_REGION,
    MACHINE_SUBTYPE,
    MACHINE_TYPE,
    REGION_ACCESS,
    REGION_CAPABILITIES,
    REGION_INFO,
    REGION_MAPPABLE,
    REGION_TYPE,
    SET_IRQS,
    SPARSE,
    SPARSE_AREA,
    Irq,
    Machine,
)
from amdrv.facts.vfio_user import Command as Message
from amdrv.ioctl.pci_function import (
    DOORBELL_BAR,
    REGISTER_BAR,
    VRAM_BAR,
    DmaMemory,
    PciFunction,
    PciIds,
    ResetKind,
    Traffic,
    check_range,
)
from amdrv.ioctl.vfio_user_dma import BusAddresses, SharedMemory
from amdrv.ioctl.vfio_user_link import Link, Rejection

MSI_CONTROL_ENABLE = 0x1
CAP_ID_MSI = 0x05
CHIP_BYTES = 16
NS_PER_S = 1e9
SPIN_S = 100e-6  # of a wait by the wall clock, before it pauses
NAP_MAX_S = 2e-3
SAME_DEADLINE_S = 200e-6


@dataclass(frozen=True, slots=True)
class RegionInfo:
    """What the server says of one region."""

    size_bytes: int
    mapped: tuple[int, int] | None  # (offset, bytes) of the part that can be mapped
    file_offset: int
    kind: tuple[int, int] | None  # type and subtype of a region beyond those of every PCI device


class VfioUserFunction(PciFunction):
    """One user's connection to the card at a socket, "emu:/run/card.sock".

    Connecting makes this process the card's only client, until ``release``; what is used after that connects again.
    Raises NotFound where no server is, DeviceBusy naming the holder, Refused. A server that dies is DeviceLost.
    """

    marketing_suffix = " (emulated)"

    def __init__(self, name: str) -> None:
        self.name = name
        self.traffic = Traffic()
        self._path = Path(name.removeprefix("emu:"))
        self._mutex = threading.RLock()
        self._connection: Link | None = None
        self._regions: dict[int, RegionInfo] = {}
        self._register_bytes = 0
        self._vram: memoryview | None = None
        self._vram_offset = 0
        self._addresses = BusAddresses()
        self._dma: set[SharedMemory] = set()
        self._event = -1
        self._wait_started = 0.0
        self._wait_deadline = 0.0
        self._nap_s = SPIN_S
        try:
            self.ids = self._read_ids()
        except BaseException:
            self.release()
            raise

    def _read_ids(self) -> PciIds:
        class_word = self._read(CONFIG_REGION, Config.REVISION_ID, 4)
        return PciIds(
            self._read(CONFIG_REGION, Config.VENDOR_ID, 2),
            self._read(CONFIG_REGION, Config.DEVICE_ID, 2),
            class_word & 0xFF,
            class_word >> 8,
            self._read(CONFIG_REGION, Config.SUBSYSTEM_VENDOR_ID, 2),
            self._read(CONFIG_REGION, Config.SUBSYSTEM_ID, 2),
        )

    # -- ownership ----------------------------------------------------------------------------------------------------

    def acquire(self, command: str) -> None:
        link = self._link()
        if self._keeps_time:
            note = command.encode("utf-8")[:HOLDER_BYTES]
            link.request(Message.REGION_WRITE, REGION_ACCESS.pack(Machine.HOLDER, MACHINE_REGION, len(note)) + note)

    def release(self) -> None:
        """Bus mastering goes off before memory that the card might still use is given back, then the server is left."""
        with self._mutex:
            link = self._connection
            if link is not None and self._dma:
                with suppress(AmdrvError):
                    command = self._read(CONFIG_REGION, Config.COMMAND, 2)
                    self._write(CONFIG_REGION, Config.COMMAND, 2, command & ~Command.MASTER)
            for memory in list(self._dma):
                memory.close()
            if self._vram is not None:  # the mapping goes with the last part of it that a caller still has
                with suppress(BufferError):
                    self._vram.release()
                self._vram = None
            if self._event >= 0:
                os.close(self._event)
                self._event = -1
            if link is not None:
                link.close()
                self._connection = None

    def _link(self) -> Link:
        link = self._connection
        if link is not None:
            return link
        with self._mutex:
            if self._connection is None:
                link = Link(self.name, self._path)
                try:
                    self._regions = self._survey(link)
                    if self._keeps_time:  # from the first access on
                        link.request(Message.REGION_READ, REGION_ACCESS.pack(Machine.NOW_NS, MACHINE_REGION, 8))
                except BaseException:
                    link.close()
                    raise
                self._connection = link
            return self._connection

    def _survey(self, link: Link) -> dict[int, RegionInfo]:
        """What regions there are; BAR0 is mapped on the way. Its descriptor comes with the answer."""
        payload = link.request(Message.DEVICE_GET_INFO, DEVICE_INFO.pack(DEVICE_INFO.size, 0, 0, 0))
        _check_whole(payload, DEVICE_INFO.size, self.name)
        count = DEVICE_INFO.unpack_from(payload)[2]
        regions: dict[int, RegionInfo] = {}
        for index in range(min(count, MACHINE_REGION + 1)):
            room = REGION_INFO.size + 256
            request = REGION_INFO.pack(room, 0, index, 0, 0, 0)
            payload, descriptors = link.exchange(Message.DEVICE_GET_REGION_INFO, request)
            try:
                info = _region_info(payload, self.name)
                if index == VRAM_BAR and descriptors and info.mapped is not None:
                    self._map_vram(descriptors[0], info)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if info.size_bytes:
                regions[index] = info
        registers = regions.get(REGISTER_BAR)
        self._register_bytes = registers.size_bytes & -4 if registers is not None else 0
        return regions

    def _map_vram(self, descriptor: int, info: RegionInfo) -> None:
        offset, size = info.mapped or (0, 0)
        try:
            self._vram = memoryview(mmap.mmap(descriptor, size, mmap.MAP_SHARED, offset=info.file_offset + offset))
        except (OSError, ValueError) as error:
            raise Refused(f"{self.name}: cannot map {size} bytes of video memory: {error}") from error
        self._vram_offset = offset

    @property
    def _keeps_time(self) -> bool:
        """Whether the server shows the card's own clock."""
        machine = self._regions.get(MACHINE_REGION)
        return machine is not None and machine.kind == (MACHINE_TYPE, MACHINE_SUBTYPE)

    # -- messages -----------------------------------------------------------------------------------------------------

    def _read(self, region: int, offset: int, width: int) -> int:
        return int.from_bytes(self._read_bytes(region, offset, width), "little")

    def _read_bytes(self, region: int, offset: int, size_bytes: int) -> bytes:
        payload = self._link().request(Message.REGION_READ, REGION_ACCESS.pack(offset, region, size_bytes))
        if len(payload) != REGION_ACCESS.size + size_bytes:
            raise DeviceLost(f"{self.name}: its server answered a read of {size_bytes} bytes with {len(payload)}")
        return payload[REGION_ACCESS.size :]

    def _write(self, region: int, offset: int, width: int, value: int) -> None:
        data = value.to_bytes(width, "little")
        self._link().post(Message.REGION_WRITE, REGION_ACCESS.pack(offset, region, width) + data)

    def _tell_machine(self, offset: Machine, value: int) -> None:
        """Write to the machine region and wait until it is done."""
        request = REGION_ACCESS.pack(offset, MACHINE_REGION, 8) + value.to_bytes(8, "little")
        self._link().request(Message.REGION_WRITE, request)

    # -- configuration space ------------------------------------------------------------------------------------------

    def read_config(self, offset: int, width: int) -> int:
        check_range(self.name, -1, EXTENDED_CONFIG_BYTES, offset, width, width)
        self.traffic.config_reads += 1
        return self._read(CONFIG_REGION, offset, width)

    def write_config(self, offset: int, width: int, value: int) -> None:
        check_range(self.name, -1, EXTENDED_CONFIG_BYTES, offset, width, width)
        self.traffic.config_writes += 1
        self._write(CONFIG_REGION, offset, width, value)

    # -- BARs ---------------------------------------------------------------------------------------------------------

    def bar_size(self, bar: int) -> int:
        self._link()
        info = self._regions.get(bar) if bar < CONFIG_REGION - 1 else None
        return 0 if info is None else info.size_bytes

    def read32(self, bar: int, offset: int) -> int:
        link = self._connection
        if link is not None and bar == REGISTER_BAR and 0 <= offset < self._register_bytes and not offset & 3:
            self.traffic.reads += 1
            return link.read_dword(bar, offset)
        check_range(self.name, bar, self.bar_size(bar), offset, 4, 4)
        if bar == REGISTER_BAR:
            self.traffic.reads += 1
            return self._read(bar, offset, 4)
        if bar == VRAM_BAR:
            return int.from_bytes(self.memory(bar, offset, 4), "little")
        raise Refused(f"{self.name}: BAR{bar} cannot be read")

    def write32(self, bar: int, offset: int, value: int) -> None:
        check_range(self.name, bar, self.bar_size(bar), offset, 4, 4)
        if bar == VRAM_BAR:
            self.memory(bar, offset, 4)[:] = (value & 0xFFFF_FFFF).to_bytes(4, "little")
            return
        if bar == REGISTER_BAR:
            self.traffic.writes += 1
        else:
            self.traffic.doorbells += 1
        self._write(bar, offset, 4, value & 0xFFFF_FFFF)

    def write64(self, bar: int, offset: int, value: int) -> None:
        check_range(self.name, bar, self.bar_size(bar), offset, 8, 8)
        if bar != DOORBELL_BAR:
            raise Refused(f"{self.name}: 64-bit writes go to the doorbell BAR only")
        self.traffic.doorbells += 1
        self._write(bar, offset, 8, value & 0xFFFF_FFFF_FFFF_FFFF)

    def memory(self, bar: int, offset: int, size_bytes: int) -> memoryview:
        self._link()
        if bar != VRAM_BAR:
            raise Refused(f"{self.name}: BAR{bar} is not memory")
        if self._vram is None:
            raise Refused(f"{self.name}: its server does not let BAR0 be mapped")
        # BAR0 is a power of two and may reach beyond the memory behind it.
        check_range(self.name, bar, self._vram_offset + len(self._vram), offset, size_bytes)
        check_range(self.name, bar, len(self._vram), offset - self._vram_offset, size_bytes)
        first = offset - self._vram_offset
        return self._vram[first : first + size_bytes]

    # -- DMA and interrupts -------------------------------------------------------------------------------------------

    def alloc_dma(self, size_bytes: int) -> DmaMemory:
        with self._mutex:
            memory = SharedMemory(self._link(), self._addresses, size_bytes, self._dma.discard)
            self._dma.add(memory)
            return memory

    def enable_interrupts(self) -> bool:
        """The first MSI vector, through an event descriptor."""
        pointer = self.read_config(Config.CAPABILITY_LIST, 1)
        while pointer:
            header = self.read_config(pointer, 2)
            if header & 0xFF == CAP_ID_MSI:
                break
            pointer = header >> 8
        else:
            return False
        if self._event < 0:
            self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        request = SET_IRQS.pack(SET_IRQS.size, DATA_EVENTFD | ACTION_TRIGGER, Irq.MSI, 0, 1)
        try:
            self._link().request(Message.DEVICE_SET_IRQS, request, (self._event,))
        except Rejection:
            return False
        self.write_config(pointer + 2, 2, self.read_config(pointer + 2, 2) | MSI_CONTROL_ENABLE)
        return True

    # -- time ---------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        virtual_s = self.virtual_s
        return time.monotonic() if virtual_s is None else virtual_s

    @property
    def virtual_s(self) -> float | None:
        """Seconds on the card's own clock, where the server shows it."""
        self._link()
        return self._read(MACHINE_REGION, Machine.NOW_NS, 8) / NS_PER_S if self._keeps_time else None

    def sleep(self, seconds: float) -> None:
        self._link()
        if not self._keeps_time:
            time.sleep(max(seconds, 0.0))
            return
        while seconds > 0:
            step_s = min(seconds, LONGEST_WAIT_S)
            self._tell_machine(Machine.SLEEP_NS, round(step_s * NS_PER_S))
            seconds -= step_s

    def relax(self, remaining_s: float) -> None:
        """Through the card's clock: to its next event, or until its queues moved something.

        By the wall clock: poll for the first 100 µs of a wait, then pause, longer each time up to 2 ms; the card's
        interrupt ends a pause.
        """
        self._link()
        if self._keeps_time:
            wait_s = min(remaining_s, LONGEST_WAIT_S)
            self._tell_machine(Machine.RELAX_NS, max(1, round(wait_s * NS_PER_S)))
            return
        now = time.monotonic()
        deadline = now + remaining_s
        if abs(deadline - self._wait_deadline) > SAME_DEADLINE_S:  # another wait than last time
            self._wait_started, self._nap_s = now, SPIN_S
        self._wait_deadline = deadline
        if now - self._wait_started < SPIN_S:
            return
        self._pause(max(0.0, min(self._nap_s, remaining_s)))
        self._nap_s = min(2 * self._nap_s, NAP_MAX_S)

    def _pause(self, seconds: float) -> None:
        if self._event < 0:
            time.sleep(seconds)
            return
        poll = select.poll()  # select() itself takes only low descriptors
        poll.register(self._event, select.POLLIN)
        ready = poll.poll(1000 * seconds)
        if ready:
            with suppress(BlockingIOError):
                os.eventfd_read(self._event)

    # -- the rest -----------------------------------------------------------------------------------------------------

    def reset(self, kind: ResetKind) -> None:
        """Through the bus. A server of another project offers the function-level reset only."""
        link = self._link()
        if kind is ResetKind.FUNCTION:
            link.request(Message.DEVICE_RESET, b"")
        elif self._keeps_time:
            self._tell_machine(Machine.BUS_RESET, 1)
        else:
            raise Refused(f"{self.name}: its server offers no reset of the bus")

    def firmware_images(self) -> Mapping[str, bytes]:
        """The synthetic images of this project's own card; none for another server's."""
        self._link()
        if not self._keeps_time:
            return {}
        from amdrv.firmware.synthetic import images_for

        chip = self._read_bytes(MACHINE_REGION, Machine.CHIP, CHIP_BYTES)
        return images_for(chip.rstrip(b"\0").decode("ascii", errors="replace"))


def _check_whole(payload: bytes, size: int, name: str) -> None:
    if len(payload) < size:
        raise DeviceLost(f"{name}: its server sent {len(payload)} bytes where {size} were due")


def _region_info(payload: bytes, name: str) -> RegionInfo:
    """A region from the server's description of it. Raises DeviceLost for one that makes no sense."""
    _check_whole(payload, REGION_INFO.size, name)
    _, flags, _, at, size, file_offset = REGION_INFO.unpack_from(payload)
    mapped = (0, size) if flags & REGION_MAPPABLE else None
    kind = None
    seen = 0
    while flags & REGION_CAPABILITIES and at and seen < len(payload):
        seen += CAPABILITY.size
        if at + CAPABILITY.size > len(payload):
            raise DeviceLost(f"{name}: its server described a region beyond the end of its message")
        identity, _, following = CAPABILITY.unpack_from(payload, at)
        contents = payload[at + CAPABILITY.size :]
        if identity == CAPABILITY_SPARSE and len(contents) >= SPARSE.size + SPARSE_AREA.size:
            mapped = SPARSE_AREA.unpack_from(contents, SPARSE.size) if SPARSE.unpack_from(contents)[0] else None
        elif identity == CAPABILITY_TYPE and len(contents) >= REGION_TYPE.size:
            kind = REGION_TYPE.unpack_from(contents)
        at = following
    return RegionInfo(size, mapped, file_offset, kind)
