"""The interrupt ring: set up as a driver does, posted to as other models do."""

from __future__ import annotations

import threading

import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.config_space import CAP_MSI
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.shell import Card
from amdrv.facts.ih import ENTRY, ENTRY_BYTES
from amdrv.registers import Register

FB_BASE = CHIPS["gfx1100"].fb_base
RING, WPTR_COPY = 1 << 20, 2 << 20
RING_BYTES = 1024
CONTEXT = (0x11111111, 0x22222222, 0x33333333, 0x44444444)
OVERFLOW = 1


class Host:
    """The least that a driver does with an interrupt ring."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.ih = card.model(IhModel)

    def register(self, name: str) -> Register:
        return self.card.registers.block("OSSSYS")[name]

    def read(self, name: str) -> int:
        return self.card.read_register(self.register(name).address)

    def write(self, name: str, value: int) -> None:
        self.card.write_register(self.register(name).address, value)

    def control(self, **fields: int) -> None:
        values = {
            "RB_ENABLE": 1,
            "ENABLE_INTR": 1,
            "RB_SIZE": (RING_BYTES // 4).bit_length() - 1,
            "WPTR_WRITEBACK_ENABLE": 1,
            "WPTR_OVERFLOW_ENABLE": 1,
            "RPTR_REARM": 1,
            "MC_SPACE": 4,
        }
        self.write("IH_RB_CNTL", self.register("IH_RB_CNTL").encode(**(values | fields)))

    def set_up(self, base: int = FB_BASE + RING, wptr_address: int = FB_BASE + WPTR_COPY) -> None:
        self.write("IH_RB_BASE", base >> 8 & 0xFFFF_FFFF)
        self.write("IH_RB_BASE_HI", base >> 40)
        self.write("IH_RB_WPTR_ADDR_LO", wptr_address & 0xFFFF_FFFF)
        self.write("IH_RB_WPTR_ADDR_HI", wptr_address >> 32)
        self.control()
        self.card.write_config(4, 2, 0x6)
        self.card.write_config(CAP_MSI + 2, 2, 0x81)

    def post(self, source_id: int = 181, **keywords: bool) -> None:
        self.ih.post(20, source_id, 4, 0, 0, CONTEXT, **keywords)

    def entry(self, index: int) -> dict[str, int]:
        data = bytes(self.card.vram_view(RING + index * ENTRY_BYTES, ENTRY_BYTES))
        return ENTRY.decode([int.from_bytes(data[at : at + 4], "little") for at in range(0, ENTRY_BYTES, 4)])

    def wptr_in_memory(self) -> int:
        return int.from_bytes(self.card.vram_view(WPTR_COPY, 4), "little")


@pytest.fixture
def host() -> Host:
    host = Host(Card("test", CHIPS["gfx1100"], vram_bytes=64 << 20))
    host.set_up()
    return host


def test_entry_carries_what_was_posted(host: Host) -> None:
    host.card.sleep(0.5)
    host.ih.post(20, 181, 0x14, 3, 0x8001, CONTEXT)
    entry = host.entry(0)
    assert (entry["CLIENT_ID"], entry["SOURCE_ID"], entry["RING_ID"], entry["VMID"]) == (20, 181, 0x14, 3)
    assert (entry["PASID"], entry["VMID_SOURCE"]) == (0x8001, 0)
    assert tuple(entry[f"DATA{n}"] for n in range(4)) == CONTEXT
    assert entry["TIMESTAMP"] == host.card.realtime()


def test_write_pointer_moves_by_entries_in_register_and_memory_and_interrupts(host: Host) -> None:
    host.post()
    host.post()
    assert host.read("IH_RB_WPTR") == 2 * ENTRY_BYTES
    assert host.wptr_in_memory() == 2 * ENTRY_BYTES
    assert host.card.interrupts_delivered == 2


def test_write_pointer_stays_out_of_memory_without_writeback(host: Host) -> None:
    host.control(WPTR_WRITEBACK_ENABLE=0)
    host.post()
    assert host.read("IH_RB_WPTR") == ENTRY_BYTES
    assert host.wptr_in_memory() == 0


def test_disabled_ring_drops(host: Host) -> None:
    host.control(RB_ENABLE=0)
    host.post()
    assert (host.read("IH_RB_WPTR"), host.ih.dropped, host.card.interrupts_delivered) == (0, 1, 0)


def test_ring_without_interrupts_still_records(host: Host) -> None:
    host.control(ENABLE_INTR=0)
    host.post()
    assert (host.read("IH_RB_WPTR"), host.card.interrupts_delivered) == (ENTRY_BYTES, 0)


def test_no_interrupt_leaves_the_card_without_bus_mastering(host: Host) -> None:
    host.card.write_config(4, 2, 0x2)
    host.post()
    assert (host.read("IH_RB_WPTR"), host.card.interrupts_delivered) == (ENTRY_BYTES, 0)


def test_ring_wraps(host: Host) -> None:
    for number in range(RING_BYTES // ENTRY_BYTES + 2):
        host.post(source_id=number)
        host.write("IH_RB_RPTR", host.read("IH_RB_WPTR"))
    assert host.read("IH_RB_WPTR") == 2 * ENTRY_BYTES
    assert host.entry(1)["SOURCE_ID"] == RING_BYTES // ENTRY_BYTES + 1


def test_overflow_is_marked_until_cleared_by_an_edge(host: Host) -> None:
    for _ in range(RING_BYTES // ENTRY_BYTES):
        host.post()
    assert host.read("IH_RB_WPTR") == OVERFLOW  # wrapped to 0, with the mark
    assert host.wptr_in_memory() & OVERFLOW
    host.write("IH_RB_RPTR", ENTRY_BYTES)
    host.control(WPTR_OVERFLOW_CLEAR=1)
    assert host.read("IH_RB_WPTR") & OVERFLOW == 0
    host.control(WPTR_OVERFLOW_CLEAR=0)


def test_full_ring_drops_when_overflow_is_not_enabled(host: Host) -> None:
    host.control(WPTR_OVERFLOW_ENABLE=0)
    for _ in range(RING_BYTES // ENTRY_BYTES + 4):
        host.post()
    assert host.read("IH_RB_WPTR") == RING_BYTES - ENTRY_BYTES
    assert host.ih.dropped == 5


def test_read_pointer_behind_interrupts_again(host: Host) -> None:
    for _ in range(3):
        host.post()
    delivered = host.card.interrupts_delivered
    host.write("IH_RB_RPTR", ENTRY_BYTES)
    assert host.card.interrupts_delivered == delivered + 1
    host.write("IH_RB_RPTR", 3 * ENTRY_BYTES)
    assert host.card.interrupts_delivered == delivered + 1


def test_read_pointer_comes_by_doorbell_too(host: Host) -> None:
    index = 0x178 << 1
    nbio = host.card.registers.block("NBIO")
    host.card.write_register(nbio["RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN"].address, 1)
    entry = nbio["S2A_DOORBELL_ENTRY_1_CTRL"]
    value = entry.encode(
        S2A_DOORBELL_PORT1_ENABLE=1, S2A_DOORBELL_PORT1_RANGE_OFFSET=index, S2A_DOORBELL_PORT1_RANGE_SIZE=2
    )
    host.card.write_register(nbio["BIF_BX_PF0_RSMU_INDEX"].address, entry.address)
    host.card.write_register(nbio["BIF_BX_PF0_RSMU_DATA"].address, value)
    host.write("IH_DOORBELL_RPTR", host.register("IH_DOORBELL_RPTR").encode(OFFSET=index, ENABLE=1))
    host.post()
    host.card.write_doorbell(index * 4, 4, ENTRY_BYTES)
    assert host.read("IH_RB_RPTR") == ENTRY_BYTES
    host.write("IH_DOORBELL_RPTR", 0)
    host.card.write_doorbell(index * 4, 4, 0)
    assert host.read("IH_RB_RPTR") == ENTRY_BYTES


def test_missing_pasid_is_looked_up_by_vmid_and_hub(host: Host) -> None:
    host.write("IH_VMID_8_LUT", 0x111)
    host.write("IH_VMID_8_LUT_MM", 0x222)
    host.ih.post(10, 0, 0, 8, None, CONTEXT)
    host.ih.post(18, 0, 0, 8, None, CONTEXT, from_mmhub=True)
    assert (host.entry(0)["PASID"], host.entry(0)["VMID_SOURCE"]) == (0x111, 0)
    assert (host.entry(1)["PASID"], host.entry(1)["VMID_SOURCE"]) == (0x222, 1)


def test_ring_at_a_bus_address_needs_the_chicken_bit_and_bus_mastering(host: Host) -> None:
    card = host.card
    bus_address = card.arena.allocate_system(4096)
    host.set_up(base=bus_address, wptr_address=bus_address + 2048)
    host.control(MC_SPACE=2)
    host.post()
    assert host.ih.dropped == 1
    host.write("IH_CHICKEN", host.register("IH_CHICKEN").encode(MC_SPACE_GPA_ENABLE=1))
    host.post()
    assert host.read("IH_RB_WPTR") == ENTRY_BYTES
    memory = card.arena.view(card.arena.bus_index(bus_address, 4096), 4096)
    assert memory[0] == 20
    assert int.from_bytes(memory[2048:2052], "little") == ENTRY_BYTES
    card.write_config(4, 2, 0x2)
    host.post()
    assert host.ih.dropped == 2


def test_ring_that_does_not_translate_drops(host: Host) -> None:
    host.set_up(base=0x12_0000_0000)
    host.post()
    assert (host.read("IH_RB_WPTR"), host.ih.dropped) == (0, 1)


def test_posts_from_several_threads_are_all_there(host: Host) -> None:
    threads = [threading.Thread(target=lambda: [host.post() for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.read("IH_RB_WPTR") == 20 * ENTRY_BYTES
    assert all(host.entry(index)["CLIENT_ID"] == 20 for index in range(20))
