"""The hubs: translation through registers and memory, a cache that only an invalidation clears, the fault latch."""

from __future__ import annotations

import numpy as np
import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.isa.dispatch import Access, MemoryViolation
from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.emulator.shell import Card
from amdrv.emulator.vm.walk import FaultReason

MIB = 1 << 20
ROOT, LEAF_TABLE = 0x10_0000, 0x10_3000
VA = 0x4000_0000
READABLE, WRITEABLE, VALID, IS_PTE = 0x20, 0x40, 1, 1 << 54
WHOLE = {"LO32": 0xFFFF_FFFF, "HI32": 0x1F}


@pytest.fixture
def card() -> Card:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    write(card, "GCVM_CONTEXT0_CNTL", card.registers.gc.GCVM_CONTEXT0_CNTL.encode(ENABLE_CONTEXT=1, PAGE_TABLE_DEPTH=3))
    write(card, "GCVM_CONTEXT0_PAGE_TABLE_BASE_ADDR_LO32", ROOT | VALID)
    write(card, "GCVM_CONTEXT0_PAGE_TABLE_END_ADDR_LO32", 0xFFFF_FFFF)
    for part, value in WHOLE.items():
        write(card, f"GCVM_INVALIDATE_ENG17_ADDR_RANGE_{part}", value)
    for level, table in ((3, ROOT), (2, ROOT + 0x1000), (1, ROOT + 0x2000)):
        entry(card, table + 8 * (VA >> (12 + 9 * level) & 511), table + 0x1000 | VALID)
    return card


def write(card: Card, name: str, value: int) -> None:
    card.write_register(card.registers["GC", name].address, value)


def read(card: Card, name: str) -> int:
    return card.read_register(card.registers["GC", name].address)


def entry(card: Card, address: int, value: int) -> None:
    card.vram_view(address, 8)[:] = value.to_bytes(8, "little")


def map_page(card: Card, number: int, frame: int, flags: int = READABLE | WRITEABLE) -> None:
    entry(card, LEAF_TABLE + 8 * number, frame | flags | VALID)


def invalidate(card: Card, engine: int = 17, vmid: int = 0) -> int:
    request = card.registers["GC", f"GCVM_INVALIDATE_ENG{engine}_REQ"]
    value = request.encode(
        PER_VMID_INVALIDATE_REQ=1 << vmid, INVALIDATE_L2_PTES=1, INVALIDATE_L2_PDE0=1, INVALIDATE_L1_PTES=1
    )
    card.write_register(request.address, value)
    card.sleep(1e-3)
    return read(card, f"GCVM_INVALIDATE_ENG{engine}_ACK")


def test_lanes_in_different_pages_each_get_their_own_translation(card: Card) -> None:
    map_page(card, 0, 0x20_0000)
    map_page(card, 1, 0x30_0000)
    map_page(card, 2, 0x28_0000)
    view = card.model(Gfxhub).view(0)
    va = np.array([VA + 0x2004, VA + 4, VA + 0x1008, VA + 0xFFC], np.uint64)
    assert view.translate(va, Access.READ).tolist() == [0x28_0004, 0x20_0004, 0x30_0008, 0x20_0FFC]


def test_bytes_across_a_page_border_come_from_both_pages(card: Card) -> None:
    map_page(card, 0, 0x20_0000)
    map_page(card, 1, 0x30_0000)
    view = card.model(Gfxhub).view(0)
    view.write(VA + 0xFFE, b"abcd")
    assert bytes(card.vram_view(0x20_0FFE, 2)) == b"ab"
    assert bytes(card.vram_view(0x30_0000, 2)) == b"cd"
    assert view.read(VA + 0xFFE, 4) == b"abcd"


def test_an_extent_says_of_all_its_addresses_what_a_translation_says_of_one(card: Card) -> None:
    map_page(card, 0, 0x20_0000, READABLE)
    view = card.model(Gfxhub).view(0)
    first, end, delta = view.extent(VA + 0x123, Access.READ)
    assert first <= VA < VA + 0x1000 <= end
    va = np.array([VA, VA + 0xFFF], np.uint64)
    assert (va.astype(np.int64) + delta).tolist() == view.translate(va, Access.READ).tolist()
    with pytest.raises(MemoryViolation):
        view.extent(VA, Access.WRITE)


def test_changed_entry_is_stale_until_invalidated(card: Card) -> None:
    map_page(card, 0, 0x20_0000)
    view = card.model(Gfxhub).view(0)
    va = np.array([VA], np.uint64)
    assert view.translate(va, Access.READ)[0] == 0x20_0000
    map_page(card, 0, 0x30_0000)
    assert view.translate(va, Access.READ)[0] == 0x20_0000
    assert invalidate(card) == 1
    assert view.translate(va, Access.READ)[0] == 0x30_0000


@pytest.mark.parametrize(
    ("request_", "acknowledged"),
    [({"engine": 3}, 1), ({"vmid": 5}, 1 << 5)],
    ids=["an engine without a range", "another VMID"],
)
def test_what_does_not_cover_a_translation_is_acknowledged_and_clears_nothing(
    card: Card, request_: dict[str, int], acknowledged: int
) -> None:
    map_page(card, 0, 0x20_0000)
    view = card.model(Gfxhub).view(0)
    va = np.array([VA], np.uint64)
    view.translate(va, Access.READ)
    map_page(card, 0, 0x30_0000)
    assert invalidate(card, **request_) == acknowledged
    assert view.translate(va, Access.READ)[0] == 0x20_0000


def test_read_only_page_refuses_a_write_and_serves_a_read(card: Card) -> None:
    map_page(card, 0, 0x20_0000, READABLE)
    view = card.model(Gfxhub).view(0)
    assert view.read(VA, 4) == bytes(4)
    with pytest.raises(MemoryViolation, match="does not allow"):
        view.write(VA, b"abcd")


def test_system_page_needs_bus_mastering(card: Card) -> None:
    bus_address = card.arena.allocate_system(4096)
    map_page(card, 0, bus_address, READABLE | WRITEABLE | 2)
    view = card.model(Gfxhub).view(0)
    card.write_config(4, 2, 2)
    with pytest.raises(MemoryViolation):
        view.read(VA, 4)
    card.write_config(4, 2, 6)
    view.write(VA, b"host")
    index = card.arena.bus_index(bus_address, 4)
    assert bytes(card.arena.view(index, 4)) == b"host"


def test_first_fault_is_latched_until_cleared_and_later_ones_set_more_faults(card: Card) -> None:
    hub = card.model(Gfxhub)
    status = card.registers.gc.GCVM_L2_PROTECTION_FAULT_STATUS
    hub.report_fault(0, 0x1234_5678_9000, Access.WRITE, FaultReason.PAGE, 8)
    hub.report_fault(0, 0x9000, Access.READ, FaultReason.PERMISSION, 5)
    value = status.decode(card.read_register(status.address))
    assert (value.CID, value.RW, value.VMID, value.MORE_FAULTS, value.PERMISSION_FAULTS) == (8, 1, 0, 1, 0)
    assert read(card, "GCVM_L2_PROTECTION_FAULT_ADDR_LO32") == 0x2345_6789
    assert read(card, "GCVM_L2_PROTECTION_FAULT_ADDR_HI32") == 0x1
    write(card, "GCVM_L2_PROTECTION_FAULT_CNTL", 0x3FFF_FFFD)
    assert card.read_register(status.address) == 0


def test_semaphore_is_given_to_one_until_released(card: Card) -> None:
    assert read(card, "GCVM_INVALIDATE_ENG17_SEM") == 1
    assert read(card, "GCVM_INVALIDATE_ENG17_SEM") == 0
    write(card, "GCVM_INVALIDATE_ENG17_SEM", 0)
    assert read(card, "GCVM_INVALIDATE_ENG17_SEM") == 1


def test_vmid_0_reaches_vram_by_its_mc_address_and_others_do_not(card: Card) -> None:
    hub = card.model(Gfxhub)
    address = card.chip.fb_base + 0x1000
    hub.view(0).write(address, b"vram")
    assert bytes(card.vram_view(0x1000, 4)) == b"vram"
    with pytest.raises(MemoryViolation):
        hub.view(1).read(address, 4)
