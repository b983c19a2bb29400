"""PciFunction of an emulated card in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from amdrv.errors import DeviceBusy, Refused
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

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

MSI_CONTROL_ENABLE = 0x1


class EmulatedDmaMemory(DmaMemory):
    """System memory of the emulated machine."""

    def __init__(self, card: Card, size_bytes: int) -> None:
        self.size_bytes = (size_bytes + 4095) & ~4095
        self._card = card
        self._bus_address = card.arena.allocate_system(self.size_bytes)
        self.view = card.arena.view(card.arena.bus_index(self._bus_address, self.size_bytes), self.size_bytes)
        self.segments = ((self._bus_address, self.size_bytes),)
        self._open = True

    def close(self) -> None:
        if self._open:
            self._open = False
            self._card.arena.free_system(self._bus_address, self.size_bytes)


class EmulatedFunction(PciFunction):
    """One user's connection to a card that lives as long as the process."""

    marketing_suffix = " (emulated)"

    def __init__(self, name: str, card: Card) -> None:
        self.name = name
        self.card = card
        self.traffic = Traffic()
        chip = card.chip
        self.ids = PciIds(chip.vendor_id, chip.device_id, chip.revision, chip.class_code, *chip.subsystem)
        self._dma: list[EmulatedDmaMemory] = []

    def acquire(self, command: str) -> None:
        with self.card.lock:
            holder = self.card.holder
            if holder is not None:
                raise DeviceBusy(self.name, holder)
            self.card.faults.new_client()
            since = time.strftime("%H:%M:%S")
            self._holder = self.card.holder = f"this process (pid {os.getpid()}, {command}, since {since})"
            self._owner = True

    def release(self) -> None:
        with self.card.lock:
            for memory in self._dma:
                memory.close()
            self._dma.clear()
            if self._owner:
                if self.card.holder == self._holder:  # not so after the client's death was faked
                    self.card.holder = None
                self._owner = False

    _owner = False
    _holder = ""

    def read_config(self, offset: int, width: int) -> int:
        check_range(self.name, -1, 4096, offset, width, width)
        self.traffic.config_reads += 1
        return self.card.read_config(offset, width)

    def write_config(self, offset: int, width: int, value: int) -> None:
        check_range(self.name, -1, 4096, offset, width, width)
        self.traffic.config_writes += 1
        self.card.write_config(offset, width, value)

    def bar_size(self, bar: int) -> int:
        spec = self.card.bars.get(bar)
        return 0 if spec is None else spec.size_bytes

    def read32(self, bar: int, offset: int) -> int:
        check_range(self.name, bar, self.bar_size(bar), offset, 4, 4)
        if bar == REGISTER_BAR:
            self.traffic.reads += 1
            return self.card.read_register(offset)
        if bar == VRAM_BAR:
            return int.from_bytes(self.memory(bar, offset, 4), "little")
        raise Refused(f"{self.name}: BAR{bar} cannot be read")

    def write32(self, bar: int, offset: int, value: int) -> None:
        check_range(self.name, bar, self.bar_size(bar), offset, 4, 4)
        if bar == REGISTER_BAR:
            self.traffic.writes += 1
            self.card.write_register(offset, value & 0xFFFF_FFFF)
        elif bar == DOORBELL_BAR:
            self.traffic.doorbells += 1
            self.card.write_doorbell(offset, 4, value & 0xFFFF_FFFF)
        else:
            self.memory(bar, offset, 4)[:] = (value & 0xFFFF_FFFF).to_bytes(4, "little")

    def write64(self, bar: int, offset: int, value: int) -> None:
        check_range(self.name, bar, self.bar_size(bar), offset, 8, 8)
        if bar != DOORBELL_BAR:
            raise Refused(f"{self.name}: 64-bit writes go to the doorbell BAR only")
        self.traffic.doorbells += 1
        self.card.write_doorbell(offset, 8, value & 0xFFFF_FFFF_FFFF_FFFF)

    def memory(self, bar: int, offset: int, size_bytes: int) -> memoryview:
        if bar != VRAM_BAR:
            raise Refused(f"{self.name}: BAR{bar} is not memory")
        # BAR0 is a power of two and may reach beyond the memory behind it.
        check_range(self.name, bar, min(self.bar_size(bar), self.card.vram_bytes), offset, size_bytes)
        return self.card.bar0_view(offset, size_bytes)

    def alloc_dma(self, size_bytes: int) -> DmaMemory:
        with self.card.lock:
            memory = EmulatedDmaMemory(self.card, size_bytes)
            self._dma.append(memory)
            return memory

    def enable_interrupts(self) -> bool:
        pointer = self.read_config(0x34, 1)
        while pointer:
            header = self.read_config(pointer, 2)
            if header & 0xFF == 0x05:
                control = self.read_config(pointer + 2, 2)
                self.write_config(pointer + 2, 2, control | MSI_CONTROL_ENABLE)
                return True
            pointer = header >> 8
        return False

    def now(self) -> float:
        return self.card.clock.now_s

    @property
    def virtual_s(self) -> float | None:
        return self.card.clock.now_s

    def sleep(self, seconds: float) -> None:
        self.card.sleep(seconds)

    def relax(self, remaining_s: float) -> None:
        self.card.relax(remaining_s)

    def reset(self, kind: ResetKind) -> None:
        self.card.bus_reset(function_level=kind is ResetKind.FUNCTION)

    def firmware_images(self) -> Mapping[str, bytes]:
        from amdrv.firmware.synthetic import images_for

        return images_for(self.card.chip.arch)
