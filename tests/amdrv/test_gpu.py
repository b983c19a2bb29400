"""Contract of a whole card: start, restart, faults, resets and the end, on the emulated one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from amdrv import emulator
from amdrv.boot.planner import PlanKind
from amdrv.boot.record import state_word
from amdrv.errors import (
    DeviceBusy,
    DeviceLost,
    FirmwareRejected,
    InvalidArgument,
    MalformedInput,
    NotFound,
    OutOfMemory,
    Refused,
    Timeout,
)
from amdrv.facts import pm4
from amdrv.facts.pci import Command, Config
from amdrv.firmware import synthetic
from amdrv.gpu import ComputeQueue, Gpu
from amdrv.ioctl import connect
from amdrv.memory.layout import BOOT_RECORD
from amdrv.memory.manager import Allocation
from amdrv.status import probe

MIB = 1 << 20
RING_BYTES = 16384
numbers = itertools.count(900)


@pytest.fixture
def name() -> Iterator[str]:
    """A card of its own, 1 GiB large, that nobody has booted."""
    chosen = f"emu:gfx1100#{next(numbers)}"
    emulator.card(chosen, vram_bytes=1024 * MIB)
    yield chosen
    emulator.unplug(chosen)


class Queue:
    """The least that runs packets: a ring, two pointers, an end-of-pipe list."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.ring = gpu.memory.alloc_host(RING_BYTES)
        self.pointers = gpu.memory.alloc_host(4096)
        self.eop = gpu.memory.alloc_vram(4096)
        self.start()

    def start(self) -> None:
        self.pointers.write(0, bytes(16))
        self.hardware: ComputeQueue = self.gpu.create_compute_queue(
            self.ring, self.pointers.va, self.pointers.va + 8, self.eop
        )
        self.wptr = 0

    def run(self, *packets: tuple[int, ...]) -> None:
        for packet in packets:
            self.ring.write(self.wptr * 4, b"".join(word.to_bytes(4, "little") for word in packet))
            self.wptr += len(packet)
        self.pointers.write(8, self.wptr.to_bytes(8, "little"))
        self.gpu.ring_doorbell(self.hardware.doorbell_offset, self.wptr)


def write_data(va: int, value: int) -> tuple[int, ...]:
    return pm4.WRITE_DATA.build(value, DST_SEL=pm4.MemoryTarget.MEMORY, WR_CONFIRM=1, ADDRESS=va)


def wait_forever(va: int) -> tuple[int, ...]:
    return pm4.WAIT_REG_MEM.build(
        FUNCTION=pm4.CompareFunction.EQUAL, MEM_SPACE=1, ADDRESS=va, REFERENCE=0x12345, MASK=0xFFFFFFFF, POLL_INTERVAL=4
    )


def arrived(gpu: Gpu, memory: Allocation, value: int) -> None:
    gpu.function.wait_until(lambda: int.from_bytes(memory.read(0, 4), "little") == value, 5.0, "the queue to write")


def works(gpu: Gpu, queue: Queue, value: int = 0x600D) -> bool:
    memory = gpu.memory.alloc_host(4096)
    queue.run(write_data(memory.va, value))
    arrived(gpu, memory, value)
    gpu.memory.free(memory)
    return True


def reopen(name: str, **options: bool) -> Gpu:
    return Gpu.open(connect(name), **options)


# -- starting ----------------------------------------------------------------------------------------------------------


def test_first_start_is_cold_and_the_second_warm_and_both_within_their_aims(name: str) -> None:
    with reopen(name) as gpu:
        cold = gpu.boot
    with reopen(name) as gpu:
        warm = gpu.boot
    with reopen(name) as gpu:
        again = gpu.boot
    assert (cold.kind, cold.plan, warm.kind, again.kind) == ("cold", PlanKind.FULL, "warm", "warm")
    assert (cold.reads, cold.writes) <= (149, 395) and cold.writes <= 395
    assert warm.reads <= 45 and warm.writes <= 110  # the runtime's queue comes on top
    assert cold.virtual_s is not None and cold.virtual_s <= 1.2
    assert warm.virtual_s is not None and warm.virtual_s <= 0.010
    assert (again.reads, again.writes) == (warm.reads, warm.writes)


def test_warm_start_runs_packets_and_keeps_no_allocation_of_the_last_owner(name: str) -> None:
    with reopen(name) as gpu:
        assert works(gpu, Queue(gpu))
        assert gpu.memory.vram_free < gpu.memory.vram_total
    with reopen(name) as gpu:
        assert gpu.boot.kind == "warm"
        assert gpu.memory.vram_free == gpu.memory.vram_total
        assert works(gpu, Queue(gpu))


def test_properties_tell_what_the_chip_has(name: str) -> None:
    for _ in ("cold", "warm"):
        with reopen(name) as gpu:
            properties = gpu.properties
            assert (gpu.arch, gpu.name) == ("gfx1100", "Radeon RX 7900 XTX (emulated)")
            assert (properties.compute_units, properties.shader_engines) == (96, 6)
            assert (properties.lds_bytes, properties.wave_sizes) == (64 << 10, (32, 64))
            assert properties.vram_bytes == 1024 * MIB


def test_card_with_a_small_window_onto_its_memory_starts_and_restarts() -> None:
    chosen = f"emu:gfx1100#{next(numbers)}"
    emulator.card(chosen, vram_bytes=1024 * MIB, bar0_bytes=256 * MIB)
    try:
        for kind in ("cold", "warm"):
            with reopen(chosen) as gpu:
                assert gpu.boot.kind == kind
                assert gpu.properties.visible_vram_bytes == 256 * MIB
                assert works(gpu, Queue(gpu))
                hidden = gpu.memory.alloc_vram(512 * MIB)
                assert hidden.view is None
                hidden.write(511 * MIB, b"far away")
                assert hidden.read(511 * MIB, 8) == b"far away"
    finally:
        emulator.unplug(chosen)


def test_card_masters_the_bus_only_while_it_is_open(name: str) -> None:
    function = connect(name)
    mastering = lambda: bool(function.read_config(Config.COMMAND, 2) & Command.MASTER)  # noqa: E731
    assert not mastering()
    with Gpu.open(function):
        assert mastering()
    assert not mastering()


def test_second_owner_is_told_who_the_first_is(name: str) -> None:
    with reopen(name), pytest.raises(DeviceBusy, match="in use by"):
        reopen(name)
    reopen(name).close()


# -- when a warm start would be wrong ----------------------------------------------------------------------------------


def crash(gpu: Gpu) -> None:
    """The end of a process that did not close the card."""
    gpu.function.release()


def test_card_whose_owner_crashed_is_reset_first(name: str) -> None:
    crash(reopen(name))
    with reopen(name) as gpu:
        assert gpu.boot.plan is PlanKind.RESET_THEN_FULL
        assert "did not close" in gpu.boot.reason
        assert works(gpu, Queue(gpu))


def test_reset_can_be_forbidden(name: str) -> None:
    crash(reopen(name))
    function = connect(name)
    before = function.traffic.writes
    with pytest.raises(Refused, match=r"did not close.*not allowed"):
        Gpu.open(function, allow_reset=False)
    assert function.traffic.writes == before
    reopen(name).close()


@pytest.fixture
def other_firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file, data in synthetic.images_for("gfx1100", seed="update").items():
        (tmp_path / file).write_bytes(data)
    monkeypatch.setenv("AMDRV_FIRMWARE", str(tmp_path))
    return tmp_path


def test_changed_firmware_is_not_warm(name: str, other_firmware: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as original:
        original.delenv("AMDRV_FIRMWARE")
        reopen(name).close()
    with reopen(name) as gpu:
        assert gpu.boot.plan is PlanKind.RESET_THEN_FULL
        assert "firmware images" in gpu.boot.reason
    with reopen(name) as gpu:
        assert gpu.boot.kind == "warm"


def test_damaged_boot_record_is_not_warm(name: str) -> None:
    reopen(name).close()
    view = connect(name).memory(0, BOOT_RECORD.offset, 64)
    view[30] ^= 1
    with reopen(name) as gpu:
        assert gpu.boot.plan is PlanKind.RESET_THEN_FULL
        assert "checksum" in gpu.boot.reason


def test_pending_page_fault_is_not_warm(name: str) -> None:
    gpu = reopen(name)
    queue = Queue(gpu)
    queue.run(write_data(0x3000_0000_0000, 1))
    gpu.function.wait_until(lambda: gpu._hardware.gmc.gc.fault_pending(), 5.0, "the fault")
    state = state_word(gpu._record.nonce, clean=True)
    gpu._hardware.mmio.write(gpu.registers["GC", "SCRATCH_REG6"], state)  # as if it had been closed all the same
    crash(gpu)
    with reopen(name) as again:
        assert "page fault" in again.boot.reason


# -- bad firmware, dead cards ------------------------------------------------------------------------------------------


def test_missing_firmware_is_named_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMDRV_FIRMWARE", str(tmp_path / "nowhere"))
    function = connect(name)
    with pytest.raises(InvalidArgument, match="nowhere"):
        Gpu.open(function)
    assert function.traffic.writes == 0


def test_damaged_image_is_refused_before_anything_is_written(name: str, other_firmware: Path) -> None:
    image = other_firmware / "gc_11_0_0_mec.bin"
    image.write_bytes(image.read_bytes()[:-100])
    function = connect(name)
    with pytest.raises(MalformedInput, match="gc_11_0_0_mec"):
        Gpu.open(function)
    assert function.traffic.writes == 0


def test_damaged_discovery_table_is_refused_before_anything_is_written(name: str) -> None:
    function = connect(name)
    table = function.memory(0, 1024 * MIB - (64 << 10), 256)
    table[100] ^= 1
    with pytest.raises(MalformedInput, match=r"discovery table: .* reset --level function"):
        Gpu.open(function)
    assert function.traffic.writes == 0
    assert probe(connect(name)).state == "unknown"
    table[100] ^= 1
    reopen(name).close()


def test_image_that_the_card_refuses_is_named_and_the_card_stays_usable(
    name: str, other_firmware: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body of one piece is changed and the file's checksum made right: only the security processor can tell."""
    import zlib

    image = other_firmware / "gc_11_0_0_imu.bin"
    data = bytearray(image.read_bytes())
    data[0x100 + 0x200] ^= 0xFF
    data[28:32] = zlib.crc32(data[32:]).to_bytes(4, "little")
    image.write_bytes(data)
    with pytest.raises(FirmwareRejected, match=r"IMU_I of gc_11_0_0_imu\.bin"):
        reopen(name)
    monkeypatch.delenv("AMDRV_FIRMWARE")
    with reopen(name) as gpu:
        assert gpu.boot.plan is PlanKind.RESET_THEN_FULL
        assert works(gpu, Queue(gpu))


def test_silent_security_processor_is_a_named_timeout_and_gives_the_card_back(name: str) -> None:
    card = emulator.card(name)
    card.faults.unresponsive.add("MP0")
    with pytest.raises(Timeout, match="MP0"):
        reopen(name)
    card.faults.unresponsive.clear()
    reopen(name).close()


def test_card_off_the_bus_is_lost_and_not_a_timeout(name: str) -> None:
    card = emulator.card(name)
    card.faults.off_the_bus = True
    with pytest.raises(DeviceLost):
        reopen(name)
    card.faults.off_the_bus = False
    reopen(name).close()


# -- faults and resets -------------------------------------------------------------------------------------------------


def test_page_fault_is_told_with_address_and_the_card_recovers(name: str) -> None:
    with reopen(name) as gpu:
        queue = Queue(gpu)
        lost = 0x3000_0000_5000
        queue.run(write_data(lost, 1))
        seen: list[object] = []
        gpu.function.wait_until(lambda: bool(seen.extend(gpu.take_faults(thorough=False)) or seen), 5.0, "the fault")
        fault = seen[0]
        assert (fault.kind, fault.address, fault.access) == ("page fault", lost, "write")  # type: ignore[attr-defined]
        gpu.recover()
        assert not queue.hardware.live
        assert gpu.take_faults() == []
        queue.start()
        assert works(gpu, queue)
    with reopen(name) as gpu:
        assert gpu.boot.kind == "warm"


@pytest.mark.parametrize("level", ["queue", "engine"])
def test_queue_that_never_ends_is_taken_off_and_memory_stays(name: str, level: str) -> None:
    with reopen(name) as gpu:
        queue = Queue(gpu)
        memory = gpu.memory.alloc_vram(4096)
        memory.write(0, b"kept")
        queue.run(wait_forever(queue.pointers.va + 256))
        gpu.reset(level)
        assert not queue.hardware.live
        assert memory.read(0, 4) == b"kept"
        queue.start()
        assert works(gpu, queue)
    with reopen(name) as gpu:
        assert gpu.boot.kind == "warm"


def test_card_that_is_closed_with_a_hanging_queue_is_left_clean(name: str) -> None:
    gpu = reopen(name)
    queue = Queue(gpu)
    queue.run(wait_forever(queue.pointers.va + 256))
    gpu.close()
    with reopen(name) as again:
        assert again.boot.kind == "warm"
        assert works(again, Queue(again))


def test_queue_reset_starts_the_same_queue_anew(name: str) -> None:
    with reopen(name) as gpu:
        queue = Queue(gpu)
        queue.run(wait_forever(queue.pointers.va + 256))
        queue.pointers.write(0, bytes(16))
        queue.hardware.reset()
        queue.wptr = 0
        assert works(gpu, queue)


def test_queue_whose_waves_do_not_end_costs_a_reset_of_the_engine(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reopen(name) as gpu:
        queue = Queue(gpu)
        asked: list[str] = []
        engine = gpu._hardware.gfx
        restart = engine.reset_mec

        def stuck(index: int) -> None:
            raise Timeout("compute queue 0 to leave the hardware", 0.5)

        with monkeypatch.context() as patch:
            patch.setattr(engine, "reset_queue", stuck)
            patch.setattr(engine, "reset_mec", lambda address: (asked.append("engine"), restart(address)))
            gpu.recover()
        assert asked == ["engine"]
        queue.start()
        assert works(gpu, queue)


def test_card_that_cannot_be_brought_to_rest_is_reset_by_the_next_open(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = reopen(name)
    Queue(gpu)

    def stuck(*_: object) -> None:
        raise Timeout("the compute queue", 0.5)

    for method in ("unload_queue", "reset_queue", "reset_mec"):
        monkeypatch.setattr(gpu._hardware.gfx, method, stuck)
    gpu.close()
    with reopen(name) as again:
        assert again.boot.plan is PlanKind.RESET_THEN_FULL


def test_card_that_leaves_the_bus_can_still_be_closed(name: str) -> None:
    gpu = reopen(name)
    Queue(gpu)
    emulator.card(name).faults.off_the_bus = True
    gpu.close()
    assert gpu.lost
    emulator.card(name).faults.off_the_bus = False
    with reopen(name) as again:
        assert again.boot.kind == "cold"


@pytest.mark.parametrize("level", ["mode1", "function"])
def test_reset_of_the_card_loses_its_memory_and_the_next_start_is_cold(name: str, level: str) -> None:
    gpu = reopen(name)
    queue = Queue(gpu)
    memory = gpu.memory.alloc_vram(4096)
    gpu.reset(level)
    assert gpu.lost and not queue.hardware.live
    for use in (lambda: memory.read(0, 4), gpu.take_faults, gpu.telemetry, lambda: gpu.reset("queue")):
        with pytest.raises(DeviceLost):
            use()
    gpu.close()
    with reopen(name) as again:
        assert again.boot.kind == "cold"
        assert works(again, Queue(again))


def test_unknown_reset_level_is_refused_with_the_known_ones(name: str) -> None:
    with reopen(name) as gpu, pytest.raises(InvalidArgument, match="queue, engine, mode1, function"):
        gpu.reset("everything")


def test_hardware_queues_run_out_with_a_clear_error_and_come_back(name: str) -> None:
    with reopen(name) as gpu:
        queues = [Queue(gpu) for _ in range(4)]
        assert len({queue.hardware.doorbell_offset for queue in queues}) == 4
        with pytest.raises(OutOfMemory, match="all 4 hardware queues"):
            Queue(gpu)
        assert all(works(gpu, queue, 0x100 + i) for i, queue in enumerate(queues))
        queues[1].hardware.destroy()
        assert Queue(gpu).hardware.index == 1


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_telemetry_is_plausible_after_a_cold_and_after_a_warm_start(name: str) -> None:
    for _ in ("cold", "warm"):
        with reopen(name) as gpu:
            metrics = gpu.telemetry()
        assert 10 <= metrics.temperatures_c["edge"] <= 110
        assert metrics.socket_power_w > 0
        assert metrics.clocks_mhz["memory"] > 0


def test_clocks_can_be_held_and_are_let_go_at_close(name: str) -> None:
    with reopen(name) as gpu:
        gpu.set_performance("high")
        with pytest.raises(InvalidArgument, match="auto, high"):
            gpu.set_performance("ludicrous")
    with reopen(name) as gpu:
        assert gpu.boot.kind == "warm"


def test_clock_counter_runs(name: str) -> None:
    with reopen(name) as gpu:
        before = gpu.read_clock_counter()
        gpu.function.sleep(0.001)
        assert gpu.read_clock_counter() - before >= 0.001 * gpu.properties.clock_counter_hz


def test_closing_twice_is_harmless_and_use_after_it_says_so(name: str) -> None:
    gpu = reopen(name)
    gpu.close()
    gpu.close()
    with pytest.raises(InvalidArgument, match="closed"):
        gpu.telemetry()


def test_probe_tells_the_state_and_writes_nothing(name: str) -> None:
    def look() -> str:
        function = connect(name)
        report = probe(function)
        assert (function.traffic.writes, function.traffic.config_writes) == (0, 0)
        assert report.product == "Radeon RX 7900 XTX (emulated)"
        assert report.vram_bytes == 1024 * MIB
        return report.state

    assert look() == "cold"
    gpu = reopen(name)
    assert look() == "unclean"
    gpu.close()
    assert look() == "warm"
    emulator.card(name).faults.off_the_bus = True
    assert probe(connect(name)).state == "unreachable"


def test_unknown_device_is_not_found() -> None:
    with pytest.raises(NotFound):
        connect("emu:gfx9999")
