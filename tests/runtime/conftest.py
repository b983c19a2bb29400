"""What test files of the runtime share: code objects, and a GPU that exists only as bytes and packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from amdrv.errors import InvalidArgument, OutOfMemory
from amdrv.facts.pm4 import DISPATCH_DIRECT, PACKETS, RELEASE_MEM, SET_WINDOWS, DataSelect, Opcode
from amdrv.faults import FaultRecord
from amdrv.ioctl.pci_function import PciFunction
from amdrv.registers import RegisterMap
from amdrv.runtime.compile import compile_llvm
from amdrv.runtime.device import Device

DATA = Path(__file__).parent / "data"
GC_BASES = (0x1260, 0xA000, 0x1C000, 0x2402C00)  # GC of gfx1100, in dwords
SH_START = SET_WINDOWS[Opcode.SET_SH_REG].start


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with sources and linked code objects."""
    return DATA


@pytest.fixture(scope="session")
def saxpy() -> bytes:
    """saxpy.ll as the relocatable object that compile_llvm makes."""
    return compile_llvm((DATA / "saxpy.ll").read_text())


class FakeAllocation:
    """Bytes with an address."""

    def __init__(self, va: int, size_bytes: int, kind: str) -> None:
        self.va, self.size_bytes, self.kind, self.closed = va, size_bytes, kind, False
        self.view = memoryview(bytearray(b"\xcc" * size_bytes if kind == "vram" else size_bytes))

    def read(self, offset: int, size_bytes: int) -> bytes:
        return bytes(self.copy_out(offset, size_bytes))

    def copy_out(self, offset: int, size_bytes: int) -> bytearray:
        if self.closed:
            raise InvalidArgument("read of freed memory")
        return bytearray(self.view[offset : offset + size_bytes])

    def write(self, offset: int, data: bytes | memoryview) -> None:
        if self.closed:
            raise InvalidArgument("write to freed memory")
        self.view[offset : offset + len(data)] = bytes(data)


class FakeMemory:
    """Allocation from a counter; 64 MiB of device memory."""

    def __init__(self, events: list[str]) -> None:
        self.live: dict[int, FakeAllocation] = {}
        self.vram_free = 64 << 20
        self._events = events
        self._next = 0x2000_0000_0000

    def alloc_vram(self, size_bytes: int) -> FakeAllocation:
        if size_bytes > self.vram_free:
            raise OutOfMemory(f"device memory: {size_bytes} bytes wanted, {self.vram_free} free")
        self.vram_free -= size_bytes
        return self._add(size_bytes, "vram")

    def alloc_host(self, size_bytes: int) -> FakeAllocation:
        return self._add(size_bytes, "host")

    def _add(self, size_bytes: int, kind: str) -> FakeAllocation:
        allocation = FakeAllocation(self._next, size_bytes, kind)
        self.live[self._next] = allocation
        self._next += (size_bytes + 0x1FFF) & ~0xFFF
        return allocation

    def find(self, va: int) -> FakeAllocation | None:
        return next((a for a in self.live.values() if a.va <= va < a.va + a.size_bytes), None)

    def free(self, allocation: FakeAllocation) -> None:
        allocation.closed = True
        self.vram_free += allocation.size_bytes if allocation.kind == "vram" else 0
        del self.live[allocation.va]

    def at(self, va: int, size_bytes: int) -> memoryview:
        """The bytes behind an address."""
        for allocation in self.live.values():
            if allocation.va <= va and va + size_bytes <= allocation.va + allocation.size_bytes:
                return allocation.view[va - allocation.va :][:size_bytes]
        raise AssertionError(f"the queue touched {va:#x}, which is nobody's")

    def flush_hdp(self) -> None:
        self._events.append("flush")

    def publish(self) -> None:
        self._events.append("publish")


class FakeFunction:
    """Time, which passes while the GPU works or by itself."""

    name = "fake"
    wait_until = PciFunction.wait_until

    def __init__(self) -> None:
        self.time_s = 0.0
        self.off_the_bus = False
        self.work: Callable[[], bool] = lambda: False

    def now(self) -> float:
        return self.time_s

    def read32(self, bar: int, offset: int) -> int:
        return 0xFFFFFFFF if self.off_the_bus else 24560

    def relax(self, remaining_s: float) -> None:
        self.time_s += 1e-6 if self.work() else remaining_s


class Dispatch(SimpleNamespace):
    """What one DISPATCH_DIRECT found in the shader registers."""

    def register(self, name: str, count: int = 1) -> tuple[int, ...]:
        """``count`` registers from ``name`` on, None where nothing was written."""
        first = self.map.gc[name].dword
        return tuple(self.sh.get(first + i) for i in range(count))


class FakeGpu:
    """Takes packets from a ring one submission at a time and does what the memory packets say.

    ``on_dispatch`` decides what a dispatch does: None runs it, "hang" stops the queue, a FaultRecord stops and reports.
    """

    arch, name = "gfx1100", "Radeon Imaginary"

    def __init__(self) -> None:
        self.events: list[str] = []
        self.function = FakeFunction()
        self.function.work = self.work
        self.memory = FakeMemory(self.events)
        self.registers = RegisterMap({"GC": {0: GC_BASES}}, {"GC": (11, 0, 0)})
        self.properties = SimpleNamespace(
            compute_units=96, shader_engines=6, scratch_slots_per_cu=32, lds_bytes=65536,
            shared_window=1 << 48, private_window=2 << 48,
        )  # fmt: skip
        self.boot = "boot report"
        self.lost = self.closed = False
        self.on_dispatch: Callable[[Dispatch], object] = lambda dispatch: None
        self.dispatches: list[Dispatch] = []
        self.packets: list[tuple[Opcode, dict[str, int]]] = []
        self.clock = 1000
        self.queues = 0
        self.pc: int | None = None  # of a halted wave
        self._faults: list[FaultRecord] = []

    @contextmanager
    def boot_step(self, name: str) -> Iterator[None]:
        self.events.append(f"step {name}")
        yield

    def create_compute_queue(self, ring: FakeAllocation, rptr: int, wptr: int, eop: FakeAllocation) -> SimpleNamespace:
        self._ring, self._wptr_va = ring.view.cast("I"), wptr
        assert not any(self.memory.at(rptr, 8)) and not any(self.memory.at(wptr, 8))
        self._read = self._written = 0
        self._stopped = False
        self.queues += 1
        return SimpleNamespace(doorbell_offset=0x18)

    def ring_doorbell(self, doorbell_offset: int, value: int) -> None:
        assert doorbell_offset == 0x18
        assert int.from_bytes(self.memory.at(self._wptr_va, 8), "little") == value
        self.events.append("doorbell")
        self._written = value

    def take_faults(self, thorough: bool = True) -> list[FaultRecord]:
        taken, self._faults = self._faults, []
        return taken

    def halted_wave(self, *, or_running: bool = False) -> SimpleNamespace | None:
        if self.pc is None:
            return None
        registers = {"scalar": lambda code: 0, "vector": lambda register, lane: 0}
        return SimpleNamespace(pc=self.pc, exec_mask=0, workgroup=(0, 0, 0), **registers)

    def recover(self) -> None:
        self.events.append("recover")
        self._stopped = True

    def reset(self, level: str) -> None:
        self.events.append(f"reset {level}")
        self.lost = level in ("mode1", "function")

    def close(self) -> None:
        self.closed = True

    def work(self) -> bool:
        """Packets up to and including the next signal; whether anything was done."""
        sh: dict[int, int] = getattr(self, "_sh", {})
        self._sh = sh
        did = False
        while self._read < self._written and not self._stopped:
            did = True
            opcode, body = self._next_packet()
            if opcode is Opcode.SET_SH_REG:
                sh.update((SH_START + (body[0] & 0xFFFF) + i, value) for i, value in enumerate(body[1:]))
                continue
            fields = PACKETS[opcode].decode(body)
            self.packets.append((opcode, fields))
            if opcode is DISPATCH_DIRECT.opcode:
                self._dispatch(fields)
            elif opcode is RELEASE_MEM.opcode:
                self.clock += 50
                value = self.clock if fields["DATA_SEL"] == DataSelect.GPU_CLOCK else fields["DATA"]
                self.memory.at(fields["ADDRESS"], 8)[:] = value.to_bytes(8, "little")
                if fields["DATA_SEL"] == DataSelect.ALL_64:
                    break
        return did

    def _next_packet(self) -> tuple[Opcode, list[int]]:
        size = len(self._ring)
        head = self._ring[self._read % size]
        count = (head >> 16 & 0x3FFF) + 1
        body = [self._ring[(self._read + 1 + i) % size] for i in range(count)]
        self._read += 1 + count
        return Opcode(head >> 8 & 0xFF), body

    def _dispatch(self, fields: dict[str, int]) -> None:
        grid = (fields["DIM_X"], fields["DIM_Y"], fields["DIM_Z"])
        dispatch = Dispatch(map=self.registers, sh=dict(self._sh), grid=grid, initiator=fields["DISPATCH_INITIATOR"])
        self.dispatches.append(dispatch)
        outcome = self.on_dispatch(dispatch)
        if isinstance(outcome, FaultRecord):
            self._faults.append(outcome)
        self._stopped = outcome is not None


@pytest.fixture
def gpu() -> FakeGpu:
    """A GPU of bytes and packets."""
    return FakeGpu()


@pytest.fixture
def device(gpu: FakeGpu) -> Iterator[Device]:
    """A device on that GPU."""
    with Device(gpu) as device:  # type: ignore[arg-type]
        yield device
