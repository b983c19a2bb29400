"""NBIO: index windows, straps, doorbell routes and the movable HDP flush, by register access."""

from __future__ import annotations

import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.models.nbio_4_3 import Nbio
from amdrv.emulator.shell import Card

VRAM_BYTES = 64 << 20
# Values of Linux 6.12 nbio_v4_3.c: gc_doorbell_init, ih_doorbell_range and sdma_doorbell_range with Navi's indices.
GRAPHICS_0, GRAPHICS_3 = 0x30000007, 0x3000000D
IH_INDEX, SDMA_INDEX = 0x178 << 1, 0x100 << 1


@pytest.fixture
def card() -> Card:
    return Card("test", CHIPS["gfx1100"], vram_bytes=VRAM_BYTES)


def address(card: Card, name: str) -> int:
    return card.registers.block("NBIO")[name].address


def write_far(card: Card, name: str, value: int) -> None:
    """Through the index window: these registers lie beyond BAR5."""
    card.write_register(address(card, "BIF_BX_PF0_RSMU_INDEX"), address(card, name))
    card.write_register(address(card, "BIF_BX_PF0_RSMU_DATA"), value)


def open_doorbells(card: Card) -> None:
    card.write_register(address(card, "RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN"), 1)
    write_far(card, "S2A_DOORBELL_ENTRY_0_CTRL", GRAPHICS_0)
    write_far(card, "S2A_DOORBELL_ENTRY_3_CTRL", GRAPHICS_3)


def test_early_registers_are_where_drivers_expect_them_before_discovery(card: Card) -> None:
    assert card.read_register(0xDE3 * 4) == VRAM_BYTES >> 20
    assert card.read_register(0xDE5 * 4) == 0  # not a virtual function


def test_memory_window_reads_and_writes_vram(card: Card) -> None:
    card.vram_view(0x1234, 4)[:] = b"abcd"
    card.write_register(0x18, 0)
    card.write_register(0x0, 0x8000_1234)
    assert card.read_register(0x4) == int.from_bytes(b"abcd", "little")
    card.write_register(0x4, 0x0403_0201)
    assert bytes(card.vram_view(0x1234, 4)) == b"\1\2\3\4"


def test_memory_window_reaches_beyond_two_gib() -> None:
    """The high index holds address bits 31 and up."""
    card = Card("test", CHIPS["gfx1100"], vram_bytes=5 << 30)
    card.vram_view(0x1_0000_0010, 4)[:] = b"high"
    card.write_register(0x18, 0x1_0000_0010 >> 31)
    card.write_register(0x0, 0x8000_0010)
    assert card.read_register(0x4) == int.from_bytes(b"high", "little")


def test_memory_window_beyond_vram_reads_all_ones_and_drops_writes(card: Card) -> None:
    card.write_register(0x18, 0x1000)
    card.write_register(0x0, 0x8000_0000)
    card.write_register(0x4, 1)
    assert card.read_register(0x4) == 0xFFFF_FFFF


def test_memory_window_without_its_top_bit_shows_registers(card: Card) -> None:
    card.write_register(0x0, 0x378C)
    assert card.read_register(0x4) == VRAM_BYTES >> 20


@pytest.mark.parametrize(
    ("index", "data"),
    [
        ("BIF_BX_PF0_RSMU_INDEX", "BIF_BX_PF0_RSMU_DATA"),
        ("BIF_BX0_PCIE_INDEX2", "BIF_BX0_PCIE_DATA2"),
    ],
)
def test_index_windows_reach_registers_beyond_the_bar(card: Card, index: str, data: str) -> None:
    far = address(card, "S2A_DOORBELL_ENTRY_1_CTRL")
    assert far > card.bars[5].size_bytes
    card.write_register(address(card, index), far)
    card.write_register(address(card, data), 0x1234_5678)
    assert card.read_register(address(card, data)) == 0x1234_5678
    assert not card.unmodelled()


@pytest.mark.parametrize(
    "through",
    [
        {"MM": "MM"},
        {"RSMU": "RSMU"},
        {"MM": "RSMU", "RSMU": "PCIE", "PCIE": "MM"},
    ],
    ids=len,
)
def test_index_window_that_leads_to_itself_reads_all_ones_and_drops_writes(card: Card, through: dict[str, str]) -> None:
    windows = {
        "MM": (0x0, 0x4),
        "RSMU": (address(card, "BIF_BX_PF0_RSMU_INDEX"), address(card, "BIF_BX_PF0_RSMU_DATA")),
        "PCIE": (address(card, "BIF_BX0_PCIE_INDEX2"), address(card, "BIF_BX0_PCIE_DATA2")),
    }
    for window, target in through.items():
        card.write_register(windows[window][0], windows[target][1])
    _, data = windows[next(iter(through))]
    card.write_register(data, 0x1234)
    assert card.read_register(data) == 0xFFFF_FFFF
    card.write_register(0x0, 0x378C)
    assert card.read_register(0x4) == VRAM_BYTES >> 20


def test_posted_card_says_so_in_the_scratch_register(card: Card) -> None:
    assert card.read_register(address(card, "BIF_BX0_BIOS_SCRATCH_7")) & 0x200


def test_writes_to_read_only_straps_change_nothing(card: Card) -> None:
    card.write_register(0x378C, 0)
    assert card.read_register(0x378C) == VRAM_BYTES >> 20


# -- doorbells --------------------------------------------------------------------------------------------------------


def test_doorbells_go_nowhere_while_the_aperture_is_off(card: Card) -> None:
    open_doorbells(card)
    card.write_register(address(card, "RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN"), 0)
    assert card.model(Nbio).route_doorbell(0x18) is None


@pytest.mark.parametrize("missing", ["S2A_DOORBELL_ENTRY_0_CTRL", "S2A_DOORBELL_ENTRY_3_CTRL"])
def test_graphics_doorbells_need_both_of_their_entries(card: Card, missing: str) -> None:
    open_doorbells(card)
    assert card.model(Nbio).route_doorbell(0x18) == "GC"
    write_far(card, missing, 0)
    assert card.model(Nbio).route_doorbell(0x18) is None


def test_entry_ranges_take_doorbells_from_the_graphics_core(card: Card) -> None:
    open_doorbells(card)
    nbio = card.model(Nbio)
    entry = nbio.register("S2A_DOORBELL_ENTRY_1_CTRL")
    value = entry.encode(
        S2A_DOORBELL_PORT1_ENABLE=1, S2A_DOORBELL_PORT1_RANGE_OFFSET=IH_INDEX, S2A_DOORBELL_PORT1_RANGE_SIZE=2
    )
    write_far(card, "S2A_DOORBELL_ENTRY_1_CTRL", value)
    entry = nbio.register("S2A_DOORBELL_ENTRY_2_CTRL")
    value = entry.encode(
        S2A_DOORBELL_PORT2_ENABLE=1,
        S2A_DOORBELL_PORT2_AWID=0xE,
        S2A_DOORBELL_PORT2_RANGE_OFFSET=SDMA_INDEX,
        S2A_DOORBELL_PORT2_RANGE_SIZE=20,
    )
    write_far(card, "S2A_DOORBELL_ENTRY_2_CTRL", value)
    routes = {dword: nbio.route_doorbell(4 * dword) for dword in (IH_INDEX - 1, IH_INDEX, IH_INDEX + 1, IH_INDEX + 2)}
    assert list(routes.values()) == ["GC", "OSSSYS", "OSSSYS", "GC"]
    assert nbio.route_doorbell(4 * SDMA_INDEX) == "SDMA0"
    assert nbio.route_doorbell(4 * (SDMA_INDEX + 20)) == "GC"


def test_reset_forgets_routes(card: Card) -> None:
    open_doorbells(card)
    assert card.model(Nbio).route_doorbell(0x18) == "GC"
    card.reset_chip(0)
    assert card.model(Nbio).route_doorbell(0x18) is None


# -- HDP flush --------------------------------------------------------------------------------------------------------


def test_flush_register_answers_at_its_own_address_after_reset(card: Card) -> None:
    place = card.read_register(address(card, "BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL"))
    assert place == 0x385C
    card.write_register(place, 0)
    assert card.model(Nbio).hdp_flushes == 1
    assert not card.unmodelled()


def test_flush_register_moves(card: Card) -> None:
    card.write_register(address(card, "BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL"), 0x7F000)
    card.write_register(address(card, "BIF_BX0_REMAP_HDP_REG_FLUSH_CNTL"), 0x7F004)
    card.write_register(0x7F000, 0)
    card.write_register(0x7F004, 0)
    assert card.model(Nbio).hdp_flushes == 1
    assert not card.unmodelled()
    card.write_register(address(card, "BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL"), 0x7F008)
    card.write_register(0x7F000, 0)
    assert card.model(Nbio).hdp_flushes == 1
    assert card.unmodelled() == [("0x7f000", 1)]


def test_flush_that_engines_ask_for_is_done_at_once(card: Card) -> None:
    card.write_register(address(card, "BIF_BX_PF0_GPU_HDP_FLUSH_REQ"), 0x5)
    assert card.read_register(address(card, "BIF_BX_PF0_GPU_HDP_FLUSH_DONE")) == 0x5
