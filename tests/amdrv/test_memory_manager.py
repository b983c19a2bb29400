"""Contract of memory allocation and mapping."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amdrv.errors import DeviceLost, InvalidArgument, OutOfMemory, Unsupported
from amdrv.facts.pte import GFX11
from amdrv.memory.layout import FIRMWARE_TAIL_BYTES, TMR, VramLayout
from amdrv.memory.manager import MemoryManager
from amdrv.vram import Vram

MIB = 1 << 20


class Caches:
    """Remembers what was asked of it, and what one address translated to at that moment."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.watch: Callable[[], object] = lambda: None
        self.seen: list[object] = []

    def flush_hdp(self) -> None:
        self.calls.append("flush")
        self.seen.append(self.watch())

    def invalidate_tlbs(self) -> None:
        self.calls.append("invalidate")


@pytest.fixture
def caches() -> Caches:
    return Caches()


def manager(function, caches: Caches) -> MemoryManager:
    vram = Vram(function, function.vram_bytes)
    return MemoryManager(function, vram, VramLayout.of(vram.size_bytes, vram.visible_bytes), caches, GFX11)


@pytest.fixture
def memory(function, caches) -> MemoryManager:
    return manager(function, caches)


def target(memory: MemoryManager, va: int) -> tuple[int | None, int]:
    step = memory.walk(va)[-1]
    return step.target, step.fields["system"]


def test_device_memory_is_mapped_where_its_bytes_are(memory: MemoryManager) -> None:
    allocation = memory.alloc_vram(3 * MIB)
    allocation.write(2 * MIB + 5, b"hello")
    address, system = target(memory, allocation.va + 2 * MIB + 5)
    assert address is not None and not system
    assert memory.vram.read(address, 5) == b"hello"


def test_host_memory_is_mapped_piece_by_piece_snooped_and_uncached(function, caches) -> None:
    function.dma_piece_bytes = 4096
    memory = manager(function, caches)
    allocation = memory.alloc_host(3 * 4096 - 1)
    dma = function.dma[-1]
    for page, (address, _) in enumerate(dma.segments):
        step = memory.walk(allocation.va + page * 4096)[-1]
        assert step.target == address
        assert (step.fields["system"], step.fields["snooped"], step.fields["mtype"]) == (1, 1, 3)
    allocation.write(4096, b"x")
    assert dma.view[4096] == ord("x")
    memory.free(allocation)
    assert dma.closed


def test_allocations_never_touch_what_the_driver_and_the_firmware_own(function, memory: MemoryManager) -> None:
    taken: list[range] = []
    while True:
        try:
            allocation = memory.alloc_vram(4 * MIB)
        except OutOfMemory:
            break
        assert allocation.vram_offset is not None
        taken.append(range(allocation.vram_offset, allocation.vram_offset + 4 * MIB))
    assert taken
    for place in taken:
        assert place.start >= 18 * MIB
        assert place.stop <= TMR.offset or place.start >= TMR.end
        assert place.stop <= function.vram_bytes - FIRMWARE_TAIL_BYTES


def test_the_page_behind_an_allocation_is_never_mapped(memory: MemoryManager) -> None:
    allocations = [memory.alloc_vram(size) for size in (4096, 4096, 2 * MIB, 64 << 10)]
    assert all(target(memory, a.va + a.size_bytes)[0] is None for a in allocations)


def test_freeing_clears_flushes_and_invalidates_before_memory_is_reused(
    memory: MemoryManager, caches: Caches
) -> None:
    before = memory.vram_free
    allocation = memory.alloc_vram(64 << 10)
    va = allocation.va
    caches.calls.clear()
    caches.watch = lambda: (target(memory, va)[0], memory.vram_free)
    tables_and_data = before - memory.vram_free
    memory.free(allocation)
    assert caches.calls == ["flush", "invalidate"]
    assert caches.seen[-1] == (None, before - tables_and_data)
    assert memory.vram_free == before


def test_mapping_needs_one_flush_however_much_was_mapped(memory: MemoryManager, caches: Caches) -> None:
    memory.publish()
    caches.calls.clear()
    for _ in range(5):
        memory.alloc_vram(4096)
    assert caches.calls == []
    memory.publish()
    memory.publish()
    assert caches.calls == ["flush"]


def test_invisible_device_memory_is_reached_through_the_window(make_function, caches) -> None:
    function = make_function(vram_bytes=512 * MIB, bar0_bytes=64 * MIB)
    memory = manager(function, caches)
    words = {}

    def store(value: int) -> None:
        high, low = function.registers.get(0x18, 0), function.registers[0x0]
        words[(high << 31) | (low & 0x7FFFFFFF)] = value

    def load() -> int:
        high, low = function.registers.get(0x18, 0), function.registers[0x0]
        return words.get((high << 31) | (low & 0x7FFFFFFF), 0)

    function.on_write[0x4] = store
    function.on_read[0x4] = load
    big = memory.alloc_vram(64 * MIB)  # does not fit the visible rest
    assert big.view is None and big.vram_offset is not None and big.vram_offset >= 64 * MIB
    big.write(3, b"abcdefg")
    assert big.read(0, 12) == b"\0\0\0abcdefg\0\0"
    assert function.registers[0x0] & 1 << 31  # the index names device memory
    with pytest.raises(OutOfMemory):
        memory.alloc_vram(64 * MIB, visible=True)


def test_accesses_outside_an_allocation_are_refused(memory: MemoryManager) -> None:
    allocation = memory.alloc_vram(100)
    for offset, size in ((0, 101), (100, 1), (-1, 1), (50, -1)):
        with pytest.raises(InvalidArgument):
            allocation.read(offset, size)
    with pytest.raises(InvalidArgument):
        allocation.write(99, b"ab")


def test_freed_allocation_says_so_and_frees_only_once(memory: MemoryManager) -> None:
    allocation = memory.alloc_vram(4096)
    memory.free(allocation)
    free = memory.vram_free
    memory.free(allocation)
    assert memory.vram_free == free
    with pytest.raises(InvalidArgument, match="freed"):
        allocation.read(0, 1)


def test_after_a_reset_every_use_says_that_the_device_is_lost(memory: MemoryManager) -> None:
    allocation = memory.alloc_vram(4096)
    memory.lose()
    for use in (
        lambda: allocation.read(0, 1),
        lambda: memory.alloc_vram(4096),
        lambda: memory.alloc_host(4096),
        memory.flush_hdp,
        lambda: memory.walk(allocation.va),
    ):
        with pytest.raises(DeviceLost):
            use()
    memory.free(allocation)


def test_out_of_memory_leaves_everything_as_it_was(memory: MemoryManager) -> None:
    before = memory.vram_free
    with pytest.raises(OutOfMemory):
        memory.alloc_vram(memory.vram_total + 1)
    assert memory.vram_free == before == memory.vram_total


def test_find_names_the_allocation_around_an_address(memory: MemoryManager) -> None:
    allocation = memory.alloc_vram(4096)
    assert memory.find(allocation.va + 4095) is allocation
    assert memory.find(allocation.va + 4096) is None


def test_closing_gives_host_memory_back(function, memory: MemoryManager) -> None:
    memory.alloc_host(4096)
    memory.close()
    assert function.dma[-1].closed


@pytest.mark.parametrize(("vram", "visible"), [(128 * MIB, 128 * MIB), (512 * MIB, 32 * MIB)])
def test_card_with_too_little_memory_is_not_supported(vram: int, visible: int) -> None:
    with pytest.raises(Unsupported):
        VramLayout.of(vram, visible)
