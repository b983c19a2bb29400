"""A correct client with exactly one step left out: the card shows what silicon would, it does not make up for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import amdrv
from amdrv import emulator
from amdrv.blocks.gfx import QueueSpec
from amdrv.boot.executor import Executor
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.shell import ALL_ONES, Card
from amdrv.errors import AmdrvError, GpuFault, Timeout
from amdrv.facts import pm4
from amdrv.facts.psp import FwType
from amdrv.gpu import Gpu
from amdrv.hardware import Caches
from amdrv.ioctl import connect
from amdrv.runtime.device import Device
from amdrv.runtime.queue import LaunchQueue

MIB = 1 << 20
PAGE = 4096
SAXPY = (Path(__file__).parents[1] / "runtime" / "data" / "saxpy.ll").read_text()
N = 64
numbers = itertools.count(7600)


@pytest.fixture
def name() -> Iterator[str]:
    """A card of its own."""
    chosen = f"emu:gfx1100#{next(numbers)}"
    emulator.card(chosen, vram_bytes=1024 * MIB)
    yield chosen
    emulator.unplug(chosen)


@pytest.fixture(scope="module")
def code() -> bytes:
    return amdrv.compile_llvm(SAXPY)


def computes(dev: Device, code: bytes, timeout_s: float = 0.3) -> bool:
    """Whether a kernel gives the right answer."""
    y, x = dev.array(np.ones(N, np.float32)), dev.array(np.full(N, 2, np.float32))
    dev.load(code)["saxpy"].launch(1, N, (y, x, 3.0, N)).wait(timeout_s)
    return bool((y.numpy(np.float32) == 7).all())


# What is not written in a cold start, by register, and what shows then.
LEFT_OUT = {
    "NBIO.BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL": "rejected KDB",  # no flush arrives: the security processor reads zeros
    "NBIO.RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN": "saxpy",  # doorbells go nowhere
    "MMHUB.MMMC_VM_SYSTEM_APERTURE_HIGH_ADDR": "rejected KDB",
    "MMHUB.MMVM_CONTEXT0_CNTL": "does not read back",
    "MP0.MP0_SMN_C2PMSG_36": "rejected KDB",
    "MP0.MP0_SMN_C2PMSG_69": "LOAD_TOC",
    "GC.GCVM_CONTEXT0_CNTL": "does not read back",
    "GC.GCVM_INVALIDATE_ENG17_REQ": "invalidation",
    "GC.CP_MEC_DOORBELL_RANGE_LOWER": "saxpy",
    "GC.CP_MEC_RS64_CNTL": "saxpy",  # the engine stays halted
    "GC.CP_MQD_BASE_ADDR": "saxpy",  # no descriptor where the queue's is said to be
    "GC.CP_HQD_PQ_CONTROL": "saxpy",  # the registers contradict the descriptor
    "GC.CP_HQD_PQ_DOORBELL_CONTROL": "saxpy",
}


@pytest.mark.parametrize(("register", "shows"), LEFT_OUT.items(), ids=LEFT_OUT)
def test_start_without_one_register_write_fails_where_it_matters(
    name: str, code: bytes, register: str, shows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = emulator.card(name)
    left_out = card.registers.named(register).address
    write = card.write_register
    monkeypatch.setattr(
        card, "write_register", lambda offset, value: None if offset == left_out else write(offset, value)
    )
    with pytest.raises(AmdrvError, match=shows):
        computes(amdrv.open(name), code)


def test_without_bus_mastering_the_queue_in_host_memory_is_out_of_reach(
    name: str, code: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Executor, "_master_bus", lambda self, on: None)
    with pytest.raises(AmdrvError):
        computes(amdrv.open(name), code)
    assert not emulator.card(name).bus_master
    assert emulator.card(name).interrupts_delivered == 0


# -- page tables ------------------------------------------------------------------------------------------------------


class Client:
    """The least that runs packets: a ring and its pointers."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.ring = gpu.memory.alloc_host(16384)
        self.pointers = gpu.memory.alloc_host(PAGE)
        self.signal = gpu.memory.alloc_host(PAGE)
        eop = gpu.memory.alloc_vram(PAGE)
        self.hardware = gpu.create_compute_queue(self.ring, self.pointers.va, self.pointers.va + 8, eop)
        self.wptr = self.done = 0

    def put(self, *packets: tuple[int, ...]) -> None:
        """Packets, and a fence behind them."""
        self.done += 1
        for packet in (*packets, store(self.signal.va, self.done)):
            self.ring.write(self.wptr * 4, b"".join(word.to_bytes(4, "little") for word in packet))
            self.wptr += len(packet)

    def publish(self) -> None:
        self.gpu.memory.publish()
        self.pointers.write(8, self.wptr.to_bytes(8, "little"))

    def ring_doorbell(self) -> None:
        self.gpu.ring_doorbell(self.hardware.doorbell_offset, self.wptr)

    def wait(self, timeout_s: float = 5.0) -> None:
        def reached() -> bool:
            return int.from_bytes(self.signal.read(0, 4), "little") == self.done

        self.gpu.function.wait_until(reached, timeout_s, "the queue")

    def run(self, *packets: tuple[int, ...]) -> None:
        self.put(*packets)
        self.publish()
        self.ring_doorbell()
        self.wait()


def store(va: int, value: int) -> tuple[int, ...]:
    return pm4.WRITE_DATA.build(value, DST_SEL=pm4.MemoryTarget.MEMORY, WR_CONFIRM=1, ADDRESS=va)


@pytest.mark.parametrize("omit", [False, True], ids=["invalidated", "not invalidated"])
def test_page_that_moved_is_written_at_its_old_place_until_translations_are_invalidated(
    name: str, omit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gpu.open(connect(name)) as gpu:
        client = Client(gpu)
        first = gpu.memory.alloc_vram(PAGE)
        va, old_place = first.va, first.vram_offset
        client.run(store(va, 1))
        if omit:
            monkeypatch.setattr(Caches, "invalidate_tlbs", lambda self: None)
        gpu.memory.free(first)
        second = gpu.memory.alloc_host(PAGE)
        assert second.va == va
        client.run(store(va, 2))
        assert old_place is not None
        at_old_place = bytes(emulator.card(name).vram_view(old_place, 4))
        if omit:
            assert (second.read(0, 4), at_old_place) == (bytes(4), (2).to_bytes(4, "little"))
        else:
            assert (second.read(0, 4), at_old_place) == ((2).to_bytes(4, "little"), (1).to_bytes(4, "little"))
        monkeypatch.undo()


def test_write_to_a_read_only_page_is_a_fault_with_its_address(name: str) -> None:
    with Gpu.open(connect(name)) as gpu:
        client = Client(gpu)
        page = gpu.memory.alloc_vram(PAGE, writeable=False)
        client.put(store(page.va, 1))
        client.publish()
        client.ring_doorbell()
        seen: list[object] = []
        gpu.function.wait_until(lambda: bool(seen.extend(gpu.take_faults(thorough=False)) or seen), 5.0, "the fault")
        fault = seen[0]
        assert (fault.kind, fault.address, fault.access) == ("page fault", page.va, "write")  # type: ignore[attr-defined]
        gpu.recover()


# -- doorbells --------------------------------------------------------------------------------------------------------


def test_doorbell_before_the_write_pointer_is_in_memory_starts_nothing(name: str) -> None:
    with Gpu.open(connect(name)) as gpu:
        client = Client(gpu)
        client.run()
        client.put()
        client.ring_doorbell()
        client.publish()
        with pytest.raises(Timeout):
            client.wait(0.1)
        client.ring_doorbell()
        client.wait()


def test_write_pointer_in_memory_at_an_address_without_a_mapping_is_a_fault(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = emulator.card(name)
    left_out, write = card.registers.named("GC.CP_HQD_PQ_WPTR_POLL_ADDR_HI").address, card.write_register
    monkeypatch.setattr(card, "write_register", lambda at, value: None if at == left_out else write(at, value))
    with Gpu.open(connect(name)) as gpu:
        client = Client(gpu)
        client.put()
        client.publish()
        client.ring_doorbell()
        with pytest.raises(Timeout):
            client.wait(0.1)
        assert gpu._hardware.gmc.take_faults()
        gpu.recover()


def test_doorbell_before_the_packets_runs_what_was_there(name: str) -> None:
    with Gpu.open(connect(name)) as gpu:
        client = Client(gpu)
        client.run()
        words = store(client.signal.va, 77)
        client.pointers.write(8, (client.wptr + len(words)).to_bytes(8, "little"))
        client.gpu.ring_doorbell(client.hardware.doorbell_offset, client.wptr + len(words))
        card = emulator.card(name)
        gpu.function.wait_until(lambda: not card.worker.busy, 5.0, "the queue to stop")
        client.ring.write(client.wptr * 4, b"".join(word.to_bytes(4, "little") for word in words))
        with pytest.raises(Timeout):
            client.gpu.function.wait_until(lambda: client.signal.read(0, 1) == bytes([77]), 0.05, "the late packet")
        gpu.recover()


def test_ring_that_is_not_aligned_is_read_from_where_its_base_points(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base register counts 256 bytes: the packets lie 128 bytes behind what the engine reads."""
    with Gpu.open(connect(name)) as gpu:
        memory = gpu.memory
        allocate = memory.alloc_host

        def shifted(size_bytes: int, **options: bool) -> object:
            allocation = allocate(size_bytes, **options)
            if size_bytes == 16384:
                allocation.va += 128
                assert allocation.view is not None
                allocation.view = allocation.view[128:]
            return allocation

        monkeypatch.setattr(memory, "alloc_host", shifted)
        monkeypatch.setattr(QueueSpec, "__post_init__", lambda self: None)  # which refuses such a ring
        client = Client(gpu)
        client.put()
        client.publish()
        client.ring_doorbell()
        with pytest.raises(Timeout):
            client.wait(0.1)
        client.ring.va -= 128
        gpu.recover()


def test_launch_whose_packets_are_published_by_the_doorbell_alone_does_not_run(
    name: str, code: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with amdrv.open(name) as dev:
        assert computes(dev, code, 5.0)

        def doorbell_first(queue: LaunchQueue) -> None:
            queue._gpu.memory.flush_hdp()
            queue._gpu.ring_doorbell(queue._hardware.doorbell_offset, queue._packets.head)
            queue._wptr[0] = queue._packets.head

        with monkeypatch.context() as patched:
            patched.setattr(LaunchQueue, "_publish", doorbell_first)
            with pytest.raises(Timeout, match="saxpy"):
                computes(dev, code, 0.1)
        assert computes(dev, code, 5.0)


# -- trusted memory ---------------------------------------------------------------------------------------------------


def test_trusted_memory_is_out_of_the_reach_of_queues(name: str, code: bytes) -> None:
    with amdrv.open(name) as dev:
        card = emulator.card(name)
        trusted = card.trusted_memory
        assert trusted is not None
        address = card.chip.fb_base + trusted.start + 0x1000
        with pytest.raises(GpuFault, match="read not allowed") as raised:
            dev.load(code)["saxpy"].launch(1, N, (address, address, 1.0, N)).wait(5)
        assert raised.value.kind == "page fault"
        assert computes(dev, code, 5.0)


def test_what_the_host_stores_over_trusted_memory_changes_no_image(name: str, code: bytes) -> None:
    amdrv.open(name).close()
    card = emulator.card(name)
    before = card.model(Psp).loaded(FwType.RS64_MEC)
    trusted = card.trusted_memory
    assert before is not None and trusted is not None
    card.bar0_view(trusted.start, 1 * MIB)[:] = b"\xff" * MIB
    with card.lock:
        card.host_path.flush()
    with amdrv.open(name) as dev:
        assert dev.boot.kind == "warm"
        assert computes(dev, code, 5.0)
    assert card.model(Psp).loaded(FwType.RS64_MEC) == before


# -- blocks without power ---------------------------------------------------------------------------------------------


@pytest.fixture
def powered_down() -> Card:
    """A card whose graphics core has lost its power to GFXOFF, with 5 in a scratch register."""
    from amdrv.emulator.models.psp_images import LoadedImage
    from amdrv.emulator.models.smu_13_0_0 import Smu
    from amdrv.facts.smu_v13_0_0 import Message

    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    card.model(Smu).firmware_loaded(LoadedImage(FwType.SMU, "SMU", 0x4E8700, 0x1000, bytes(32), 0))
    card.sleep(0.1)
    card.write_register(card.registers.gc.SCRATCH_REG0.address, 5)
    send(card, Message.EnableAllSmuFeatures)
    send(card, Message.AllowGfxOff)
    card.sleep(1.0)
    return card


def send(card: Card, message: int) -> None:
    block = card.registers.block("MP1")
    for number, value in ((90, 0), (82, 0), (66, message)):
        card.write_register(block[f"MP1_SMN_C2PMSG_{number}"].address, value)
    card.sleep(0.2)
    assert card.read_register(block["MP1_SMN_C2PMSG_90"].address) == 1


def test_register_of_a_core_without_power_reads_all_ones_and_takes_no_write(powered_down: Card) -> None:
    from amdrv.facts.smu_v13_0_0 import Message

    scratch = powered_down.registers.gc.SCRATCH_REG0.address
    assert powered_down.read_register(scratch) == ALL_ONES
    powered_down.write_register(scratch, 6)
    assert powered_down.read_register(0x378C) == 64  # other blocks are there
    assert powered_down.space.without_power[scratch] == 2
    send(powered_down, Message.DisallowGfxOff)
    assert powered_down.read_register(scratch) == 5


def test_relaxed_card_never_takes_the_power_away(powered_down: Card) -> None:
    powered_down.relaxed = True
    powered_down.space.ungate("GC")
    powered_down.sleep(1.0)
    assert powered_down.read_register(powered_down.registers.gc.SCRATCH_REG0.address) == 5


@pytest.mark.parametrize("block", ["GC", "SDMA0"])
def test_doorbell_of_the_core_brings_its_power_back(
    powered_down: Card, monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    monkeypatch.setattr(powered_down._bus_interface, "route_doorbell", lambda offset: block)
    powered_down.write_doorbell(0x18, 8, 1)
    scratch = powered_down.registers.gc.SCRATCH_REG0.address
    assert powered_down.read_register(scratch) == 5
    powered_down.sleep(1.0)
    assert powered_down.read_register(scratch) == ALL_ONES


def test_reset_brings_power_back(powered_down: Card) -> None:
    powered_down.reset_chip(0.0)
    powered_down.sleep(1.0)
    assert powered_down.read_register(powered_down.registers.gc.SCRATCH_REG0.address) == 0
