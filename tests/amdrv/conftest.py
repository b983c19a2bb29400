"""A scripted PCI function: registers in a dictionary, hooks where a test wants the device to answer."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator

import pytest

from amdrv.blocks.gmc import AddressMap
from amdrv.errors import InvalidArgument
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
from amdrv.memory.layout import DEFAULT_PAGE, ROOT_TABLE
from amdrv.mmio import Mmio
from amdrv.registers import Register, RegisterMap
from amdrv.vram import Vram

MIB = 1 << 20

# Base addresses of Navi31 in dwords, and the versions that the driver asks for.
BASES: dict[str, tuple[int, ...]] = {
    "GC": (0x1260, 0xA000, 0x1C000, 0x2402C00),
    "SDMA0": (0x1260, 0xA000, 0x1C000, 0x2402C00),
    "MMHUB": (0x1A000, 0x2408800),
    "NBIO": (0x0, 0x14, 0xD20, 0x10400, 0x241B000, 0x4040000),
    "HDP": (0xF20, 0x240A400),
    "OSSSYS": (0x10A0, 0x240A000),
    "MP0": (0x16000, 0xDC0000, 0xE00000, 0xE40000, 0x243FC00),
    "MP1": (0x16000, 0xDC0000, 0xE00000, 0xE40000, 0x243FC00),
    "SMUIO": (0x16800, 0x16A00, 0x440000, 0x2401000),
}
VERSIONS = {
    "GC": (11, 0, 0),
    "SDMA0": (6, 0, 0),
    "MMHUB": (3, 0, 0),
    "NBIO": (4, 3, 0),
    "HDP": (6, 0, 0),
    "OSSSYS": (6, 0, 0),
    "MP0": (13, 0, 0),
    "MP1": (13, 0, 0),
    "SMUIO": (13, 0, 6),
}
FB_START = 0x80_0000_0000


class FakeDma(DmaMemory):
    """Host memory at made-up bus addresses, one 4 KiB piece after the other with a hole between them."""

    def __init__(self, size_bytes: int, address: int, piece_bytes: int) -> None:
        self.size_bytes = -(-size_bytes // 4096) * 4096
        self.view = memoryview(bytearray(self.size_bytes))
        self.segments = tuple(
            (address + 2 * at, min(piece_bytes, self.size_bytes - at)) for at in range(0, self.size_bytes, piece_bytes)
        )
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeFunction(PciFunction):
    """A card whose every answer the test decides."""

    def __init__(self, vram_bytes: int = 256 * MIB, bar0_bytes: int | None = None) -> None:
        self.name = "fake"
        self.ids = PciIds(0x1002, 0x744C, 0xC8, 0x030000)
        self.traffic = Traffic()
        self.vram_bytes = vram_bytes
        self.bars = {VRAM_BAR: bar0_bytes or vram_bytes, DOORBELL_BAR: 2 * MIB, REGISTER_BAR: MIB}
        self.vram = mmap.mmap(-1, vram_bytes)
        self.registers: dict[int, int] = {}
        self.on_read: dict[int, Callable[[], int]] = {}
        self.on_write: dict[int, Callable[[int], None]] = {}
        self.log: list[tuple[str, int, int]] = []  # ("r" or "w", byte address, value)
        self.doorbells: list[tuple[int, int]] = []
        self.config = bytearray(4096)
        self.clock_s = 0.0
        self.sleeps: list[float] = []
        self.dma: list[FakeDma] = []
        self.dma_piece_bytes = 1 << 30
        self.resets: list[ResetKind] = []

    def acquire(self, command: str) -> None:
        self.log.append(("acquire", 0, 0))

    def release(self) -> None:
        self.log.append(("release", 0, 0))

    def read_config(self, offset: int, width: int) -> int:
        return int.from_bytes(self.config[offset : offset + width], "little")

    def write_config(self, offset: int, width: int, value: int) -> None:
        self.config[offset : offset + width] = value.to_bytes(width, "little")

    def bar_size(self, bar: int) -> int:
        return self.bars.get(bar, 0)

    def read32(self, bar: int, offset: int) -> int:
        check_range(self.name, bar, self.bar_size(bar), offset, 4, 4)
        self.traffic.reads += 1
        hook = self.on_read.get(offset)
        value = hook() if hook else self.registers.get(offset, 0)
        self.log.append(("r", offset, value))
        return value

    def write32(self, bar: int, offset: int, value: int) -> None:
        check_range(self.name, bar, self.bar_size(bar), offset, 4, 4)
        if not 0 <= value <= 0xFFFFFFFF:
            raise InvalidArgument(f"{value:#x} does not fit a register")
        self.traffic.writes += 1
        self.log.append(("w", offset, value))
        self.registers[offset] = value
        hook = self.on_write.get(offset)
        if hook:
            hook(value)

    def write64(self, bar: int, offset: int, value: int) -> None:
        self.log.append(("doorbell", offset, value))
        self.doorbells.append((offset, value))

    def memory(self, bar: int, offset: int, size_bytes: int) -> memoryview:
        check_range(self.name, bar, min(self.bar_size(bar), self.vram_bytes), offset, size_bytes)
        return memoryview(self.vram)[offset : offset + size_bytes]

    def alloc_dma(self, size_bytes: int) -> DmaMemory:
        memory = FakeDma(size_bytes, 0x10_0000_0000 + len(self.dma) * 0x1000_0000, self.dma_piece_bytes)
        self.dma.append(memory)
        return memory

    def enable_interrupts(self) -> bool:
        return True

    def now(self) -> float:
        return self.clock_s

    @property
    def virtual_s(self) -> float | None:
        return self.clock_s

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.clock_s += seconds

    def relax(self, remaining_s: float) -> None:
        self.clock_s += min(remaining_s, 1e-3)

    def reset(self, kind: ResetKind) -> None:
        self.resets.append(kind)

    # -- what tests ask ------------------------------------------------------------------------------------------------

    def writes(self, register: Register | None = None) -> list[int]:
        """Values written, to one register or to all."""
        return [v for kind, at, v in self.log if kind == "w" and (register is None or at == register.address)]

    def order(self, *registers: Register) -> list[str]:
        """Names of these registers in the order in which they were written."""
        names = {register.address: register.name for register in registers}
        return [names[at] for kind, at, _ in self.log if kind == "w" and at in names]

    def answer(self, register: Register, *values: int) -> None:
        """Let a register read as these values in turn, the last for ever."""
        queue = list(values)
        self.on_read[register.address] = lambda: queue.pop(0) if len(queue) > 1 else queue[0]


@pytest.fixture(scope="session")
def registers() -> RegisterMap:
    return RegisterMap({ip: {0: bases} for ip, bases in BASES.items()}, VERSIONS)


@pytest.fixture
def make_function() -> Iterator[type[FakeFunction]]:
    yield FakeFunction


@pytest.fixture
def function() -> FakeFunction:
    return FakeFunction()


@pytest.fixture
def mmio(function: FakeFunction, registers: RegisterMap) -> Mmio:
    return Mmio(function, registers)


@pytest.fixture
def vram(function: FakeFunction) -> Vram:
    return Vram(function, function.vram_bytes)


@pytest.fixture
def addresses(function: FakeFunction) -> AddressMap:
    return AddressMap(
        fb_start=FB_START,
        fb_end=FB_START + function.vram_bytes - 1,
        physical_base=0,
        default_page=DEFAULT_PAGE.offset,
        fault_page=0x1_2345_6000,
        root_table=ROOT_TABLE.offset,
    )
