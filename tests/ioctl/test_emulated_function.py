"""The transport of an emulated card in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import amdrv.emulator
from amdrv.errors import DeviceBusy, DeviceLost, InvalidArgument, Refused, Timeout
from amdrv.ioctl.connect import connect
from amdrv.ioctl.emulated import EmulatedFunction

NAME = "emu:gfx1100#41"
VRAM_BYTES = 64 << 20
MEMSIZE = 0x378C
REGISTERS, DOORBELLS, VRAM = 5, 2, 0


@pytest.fixture
def function() -> Iterator[EmulatedFunction]:
    amdrv.emulator.card(NAME, vram_bytes=VRAM_BYTES)
    function = connect(NAME)
    assert isinstance(function, EmulatedFunction)
    yield function
    function.release()
    amdrv.emulator.unplug(NAME)


def test_owner_is_named_to_a_second_one_and_gone_after_release(function: EmulatedFunction) -> None:
    function.acquire("first")
    second = connect(NAME)
    with pytest.raises(DeviceBusy, match="first"):
        second.acquire("second")
    second.release()  # of what it never owned
    with pytest.raises(DeviceBusy):
        second.acquire("second")
    function.release()
    second.acquire("second")
    second.release()


def test_accesses_are_counted_by_kind(function: EmulatedFunction) -> None:
    before = function.traffic.snapshot()
    function.read32(REGISTERS, MEMSIZE)
    function.write32(REGISTERS, MEMSIZE, 0)
    function.write64(DOORBELLS, 0x18, 1)
    function.read_config(0, 2)
    function.write_config(4, 2, 2)
    function.write_memory(VRAM, 0, b"1234")
    assert function.read_memory(VRAM, 0, 4) == b"1234"
    seen = function.traffic.since(before)
    assert (seen.reads, seen.writes, seen.doorbells, seen.config_reads, seen.config_writes) == (1, 1, 1, 1, 1)
    assert (seen.memory_bytes_read, seen.memory_bytes_written) == (4, 4)


@pytest.mark.parametrize(
    ("bar", "offset", "reason"),
    [
        (REGISTERS, 1 << 20, "outside"),
        (REGISTERS, 2, "aligned"),
        (REGISTERS, -4, "outside"),
        (VRAM, VRAM_BYTES, "outside"),
        (1, 0, "not implemented"),
    ],
)
def test_access_outside_a_bar_is_refused(function: EmulatedFunction, bar: int, offset: int, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        function.read32(bar, offset)
    with pytest.raises(InvalidArgument, match=reason):
        function.write32(bar, offset, 0)


def test_bar0_is_larger_than_the_memory_behind_it_and_says_so() -> None:
    amdrv.emulator.card(NAME, vram_bytes=48 << 20)
    try:
        function = connect(NAME)
        assert function.bar_size(VRAM) == 64 << 20
        with pytest.raises(InvalidArgument, match="outside"):
            function.memory(VRAM, (48 << 20) - 4, 8)
        with pytest.raises(InvalidArgument, match="outside"):
            function.read32(VRAM, 48 << 20)
    finally:
        amdrv.emulator.unplug(NAME)


def test_doorbell_bar_is_written_only(function: EmulatedFunction) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        function.read32(DOORBELLS, 0)
    with pytest.raises(Refused, match="not memory"):
        function.memory(DOORBELLS, 0, 8)


def test_dma_memory_is_whole_pages_that_only_the_device_addresses_reach(function: EmulatedFunction) -> None:
    memory = function.alloc_dma(5000)
    assert memory.size_bytes == len(memory.view) == 8192
    ((address, size_bytes),) = memory.segments
    memory.view[4:8] = b"data"
    arena = function.card.arena
    assert size_bytes == 8192
    assert bytes(arena.view(arena.bus_index(address, 8) + 4, 4)) == b"data"
    memory.close()
    memory.close()
    assert arena.allocate_system(4096) == address


def test_interrupts_are_enabled_in_config_space(function: EmulatedFunction) -> None:
    assert not function.card.config.msi_enabled
    assert function.enable_interrupts()
    assert function.card.config.msi_enabled


def test_wait_that_runs_out_takes_virtual_time_only_and_tells_the_numbers(function: EmulatedFunction) -> None:
    before_s = function.now()
    with pytest.raises(Timeout, match=r"memory size.*0x7.*0x40") as timeout:
        function.wait32(MEMSIZE, 0xFF, 0x7, 30.0, "memory size")
    assert (timeout.value.expected, timeout.value.last) == (0x7, VRAM_BYTES >> 20)
    assert 30.0 <= function.now() - before_s < 30.01


def test_card_off_the_bus_is_lost_to_a_wait(function: EmulatedFunction) -> None:
    function.card.faults.off_the_bus = True
    with pytest.raises(DeviceLost, match="all ones"):
        function.wait32(MEMSIZE, 0xFF, 0x7, 0.1, "memory size")
