"""The one interface through which a driver reaches a PCI function.

A real card and an emulated one differ only in what stands behind these methods. Register accesses are counted, because
counts are the measure of a boot that means the same on every machine.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from amdrv.errors import DeviceLost, InvalidArgument, Timeout

VRAM_BAR = 0
DOORBELL_BAR = 2
REGISTER_BAR = 5
ALL_ONES = 0xFFFFFFFF  # what a read returns when no device answers


class ResetKind(enum.Enum):
    """Resets that the bus offers; engine and mode1 resets are the driver's business."""

    FUNCTION = "function"  # PCIe function-level reset
    BUS = "bus"  # secondary bus reset of the upstream bridge


@dataclass(frozen=True, slots=True)
class PciIds:
    """Identification from the configuration header."""

    vendor: int
    device: int
    revision: int
    class_code: int  # 24 bits: base class, subclass, programming interface
    subsystem_vendor: int = 0
    subsystem_device: int = 0


@dataclass(slots=True)
class Traffic:
    """Accesses since the function was connected. Bulk views of BAR0 are not seen; explicit copies are."""

    reads: int = 0  # 32-bit register reads, BAR5
    writes: int = 0  # 32-bit register writes, BAR5
    config_reads: int = 0
    config_writes: int = 0
    doorbells: int = 0
    memory_bytes_read: int = 0  # BAR0, by read_memory
    memory_bytes_written: int = 0  # BAR0, by write_memory

    def snapshot(self) -> Traffic:
        """A copy, to subtract from later."""
        return replace(self)

    def since(self, earlier: Traffic) -> Traffic:
        """The accesses between ``earlier`` and now."""
        return Traffic(
            self.reads - earlier.reads,
            self.writes - earlier.writes,
            self.config_reads - earlier.config_reads,
            self.config_writes - earlier.config_writes,
            self.doorbells - earlier.doorbells,
            self.memory_bytes_read - earlier.memory_bytes_read,
            self.memory_bytes_written - earlier.memory_bytes_written,
        )


class DmaMemory(ABC):
    """Host memory that the device can reach while bus mastering is on."""

    size_bytes: int
    view: memoryview  # writable bytes, coherent with the device
    segments: tuple[tuple[int, int], ...]  # (device address, bytes) in order; each a multiple of 4 KiB

    @abstractmethod
    def close(self) -> None:
        """Give the memory back. The device must not use it any more."""


class PciFunction(ABC):
    """Config space, BARs, DMA memory, interrupts, resets and time of one PCI function."""

    name: str  # as given to amdrv.open: "emu:gfx1100", "pci:0000:03:00.0"
    ids: PciIds
    traffic: Traffic
    marketing_suffix: str = ""  # appended to the product name, so that a person always knows what runs: " (emulated)"

    # -- ownership ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def acquire(self, command: str) -> None:
        """Become the owner. Raises DeviceBusy naming the holder (pid, command, since)."""

    @abstractmethod
    def release(self) -> None:
        """Stop being the owner and drop what was mapped. Safe to call twice."""

    # -- configuration space ------------------------------------------------------------------------------------------

    @abstractmethod
    def read_config(self, offset: int, width: int) -> int:
        """``width`` (1, 2 or 4) bytes at ``offset`` (0..4095), naturally aligned."""

    @abstractmethod
    def write_config(self, offset: int, width: int, value: int) -> None:
        """Write ``width`` bytes at ``offset``."""

    # -- BARs ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def bar_size(self, bar: int) -> int:
        """Size in bytes of a BAR, 0 when it is not implemented."""

    @abstractmethod
    def read32(self, bar: int, offset: int) -> int:
        """One 32-bit read at byte ``offset``; raises InvalidArgument when unaligned or out of the BAR."""

    @abstractmethod
    def write32(self, bar: int, offset: int, value: int) -> None:
        """One 32-bit write at byte ``offset``."""

    @abstractmethod
    def write64(self, bar: int, offset: int, value: int) -> None:
        """One 64-bit write at byte ``offset`` (doorbells)."""

    @abstractmethod
    def memory(self, bar: int, offset: int, size_bytes: int) -> memoryview:
        """A writable view of a range of a prefetchable BAR, for bulk data; raises InvalidArgument out of bounds."""

    def read_memory(self, bar: int, offset: int, size_bytes: int) -> bytes:
        """Copy out of a prefetchable BAR, counted. Raises DeviceLost when the card is not there any more."""
        self.traffic.memory_bytes_read += size_bytes
        data = bytes(self.memory(bar, offset, size_bytes))
        self.check_present(data)
        return data

    def check_present(self, data: bytes | bytearray) -> None:
        """Raise DeviceLost when bytes that a BAR gave are those of a card that is not there any more."""
        # They may be all ones by right; the ids of a function never are.
        if data[:1] == b"\xff" and not data.strip(b"\xff") and self.read_config(0, 4) == ALL_ONES:
            raise DeviceLost(f"{self.name}: reads of its memory return all ones, and so does configuration space")

    def write_memory(self, bar: int, offset: int, data: bytes | memoryview) -> None:
        """Copy into a prefetchable BAR, counted."""
        self.traffic.memory_bytes_written += len(data)
        self.memory(bar, offset, len(data))[:] = data

    # -- DMA and interrupts -------------------------------------------------------------------------------------------

    @abstractmethod
    def alloc_dma(self, size_bytes: int) -> DmaMemory:
        """Zeroed host memory, rounded up to pages, that the device reaches at ``segments``. Raises OutOfMemory."""

    @abstractmethod
    def enable_interrupts(self) -> bool:
        """Route the function's first message-signalled interrupt to ``relax``. False when only polling is possible."""

    # -- time ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def now(self) -> float:
        """Seconds on the device's clock: wall time for a real card, virtual time for an emulated one."""

    @property
    @abstractmethod
    def virtual_s(self) -> float | None:
        """Virtual seconds since power-on; None for a real card."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Let at least ``seconds`` pass on the device's clock."""

    @abstractmethod
    def relax(self, remaining_s: float) -> None:
        """Let time pass until something may have changed, at most ``remaining_s``.

        A real card polls briefly, then blocks on its interrupt. An emulated one jumps to its next event, or blocks on
        the card's condition while queues are at work. It never returns without time having passed.
        """

    def wait_until(self, check: Callable[[], bool], timeout_s: float, what: str, hint: str = "") -> None:
        """Wait for ``check`` to hold. Raises Timeout naming ``what``."""
        deadline = self.now() + timeout_s
        while not check():
            remaining_s = deadline - self.now()
            if remaining_s <= 0:
                raise Timeout(what, timeout_s, hint=hint)
            self.relax(remaining_s)

    def wait32(self, offset: int, mask: int, expected: int, timeout_s: float, what: str, hint: str = "") -> int:
        """Read a BAR5 register until ``value & mask == expected`` and return the value.

        Raises Timeout with the numbers compared, DeviceLost when the last value read is all ones.
        """
        deadline = self.now() + timeout_s
        while True:
            value = self.read32(REGISTER_BAR, offset)
            if value & mask == expected and (value != ALL_ONES or expected == ALL_ONES):
                return value
            remaining_s = deadline - self.now()
            if remaining_s <= 0:
                if value == ALL_ONES:
                    raise DeviceLost(f"{self.name}: reads return all ones while waiting for {what}")
                raise Timeout(what, timeout_s, mask=mask, expected=expected, last=value, hint=hint)
            self.relax(remaining_s)

    # -- the rest -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def reset(self, kind: ResetKind) -> None:
        """Reset the function through the bus. Raises Refused when the platform does not offer ``kind``."""

    def firmware_images(self) -> Mapping[str, bytes]:
        """Firmware files that came with the card itself, by file name; none for a real one."""
        return {}


def check_range(name: str, bar: int, bar_size: int, offset: int, size_bytes: int, align: int = 1) -> None:
    """Bounds and alignment of a BAR access, loudly."""
    if bar_size == 0:
        raise InvalidArgument(f"{name}: BAR{bar} is not implemented")
    if offset < 0 or size_bytes < 0 or offset + size_bytes > bar_size:
        where = f"BAR{bar} access at {offset:#x}+{size_bytes:#x}"
        raise InvalidArgument(f"{name}: {where} is outside its {bar_size:#x} bytes")
    if offset % align:
        raise InvalidArgument(f"{name}: BAR{bar} access at {offset:#x} is not {align}-byte aligned")
