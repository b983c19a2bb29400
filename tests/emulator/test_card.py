"""The shell: time, decode, resets, doorbells, memory as firmware sees it, the trace, the slots."""

from __future__ import annotations

import pytest

import amdrv.emulator
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.model import Model
from amdrv.emulator.models.hdp_6_0 import Hdp
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.register_space import UnmodelledRegister
from amdrv.emulator.shell import ALL_ONES, READ_NS, Card
from amdrv.errors import InvalidArgument, NotFound

CHIP = CHIPS["gfx1100"]
MEMSIZE = 0x378C
TSC_UPPER, TSC_LOWER = "GOLDEN_TSC_COUNT_UPPER", "GOLDEN_TSC_COUNT_LOWER"


@pytest.fixture
def card() -> Card:
    return Card("test", CHIP, vram_bytes=64 << 20)


def test_every_block_of_the_chip_is_built_without_an_overlap(card: Card) -> None:
    assert len({id(model) for model in card.all_models()}) == len(card.all_models())
    assert card.model(Hdp).ip == "HDP"


def test_missing_model_is_named(card: Card) -> None:
    class Absent(Model):
        pass

    with pytest.raises(LookupError, match="gfx1100 has no Absent"):
        card.model(Absent)


def test_two_cards_with_the_same_accesses_have_the_same_time() -> None:
    times = set()
    for _ in range(2):
        card = Card("test", CHIP, vram_bytes=64 << 20)
        for _ in range(10):
            card.read_register(MEMSIZE)
        card.sleep(0.25)
        times.add(card.clock.now_ns)
    assert times == {round(CHIP.timings.boot_rom * 1e9) + 10 * READ_NS + 250_000_000}


def test_function_without_memory_decode_does_not_answer(card: Card) -> None:
    card.write_config(4, 2, 0)
    assert card.read_register(MEMSIZE) == ALL_ONES
    card.write_config(4, 2, 2)
    assert card.read_register(MEMSIZE) == 64


def test_card_off_the_bus_reads_all_ones_everywhere_and_ignores_writes(card: Card) -> None:
    scratch = card.registers.block("NBIO")["BIF_BX0_BIOS_SCRATCH_0"].address
    card.faults.off_the_bus = True
    card.write_register(scratch, 5)
    assert card.read_register(MEMSIZE) == ALL_ONES
    assert card.read_config(0, 2) == 0xFFFF
    assert not card.bus_master
    card.faults.off_the_bus = False
    assert card.read_register(scratch) == 0


def test_platform_reset_loses_everything_but_restores_config_space(card: Card) -> None:
    scratch = card.registers.block("NBIO")["BIF_BX0_BIOS_SCRATCH_0"].address
    card.write_register(scratch, 5)
    card.vram_view(0, 4)[:] = b"lost"
    card.write_config(4, 2, 6)
    before, started_ns = card.config.save(), card.clock.now_ns
    card.bus_reset(function_level=True)
    assert (card.clock.now_ns - started_ns) / 1e9 == CHIP.function_reset_s
    assert card.read_register(scratch) == 0
    assert bytes(card.vram_view(0, 4)) == bytes(4)
    assert card.config.save() == before


def test_function_level_reset_from_config_space_loses_config_space(card: Card) -> None:
    card.write_config(4, 2, 6)
    card.write_config(0x64 + 8, 2, 0x8000)
    assert card.read_config(4, 2) == 0
    assert card.read_register(MEMSIZE) == ALL_ONES


def test_reset_forgets_what_was_due(card: Card) -> None:
    seen: list[str] = []
    card.clock.after(0.001, lambda: seen.append("late"))
    card.reset_chip(0.1)
    card.sleep(1)
    assert seen == []


def test_wait_jumps_to_what_is_due_next(card: Card) -> None:
    now_ns = card.clock.now_ns
    card.clock.after(0.25, lambda: None)
    card.relax(10)
    assert card.clock.now_ns == now_ns + 250_000_000
    card.relax(10)
    assert card.clock.now_ns == now_ns + 10_250_000_000


def test_time_stamp_counter_runs_at_100_mhz_of_virtual_time(card: Card) -> None:
    smuio = card.registers.block("SMUIO")
    start = card.realtime()
    card.sleep(1.0)
    assert card.realtime() - start == 100_000_000
    assert card.read_register(smuio[TSC_UPPER].address) == card.realtime() >> 32
    low = card.read_register(smuio[TSC_LOWER].address)
    assert 0 <= (card.realtime() & 0xFFFF_FFFF) - low < 1000


def test_firmware_memory_is_vram_at_its_mc_address(card: Card) -> None:
    assert card.write_mc(CHIP.fb_base + 0x1000, b"firmware")
    assert bytes(card.vram_view(0x1000, 8)) == b"firmware"
    assert card.read_mc(CHIP.fb_base + 0x1000, 8) == b"firmware"


@pytest.mark.parametrize("address", [0, CHIP.fb_base + (64 << 20) - 4, 0x1_0000_0000])
def test_firmware_memory_that_does_not_translate_is_none(card: Card, address: int) -> None:
    assert card.read_mc(address, 8) is None
    assert not card.write_mc(address, b"12345678")


def test_doorbell_reaches_models_of_the_routed_block_only(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []
    for model in card.all_models():
        monkeypatch.setattr(model, "doorbell", lambda *_, model=model: reached.append(model.ip))
    card.write_doorbell(0x10, 8, 1)
    assert reached == []
    monkeypatch.setattr(card._bus_interface, "route_doorbell", lambda offset: card.model(IhModel).ip)
    card.write_doorbell(0x10, 8, 1)
    assert reached == ["OSSSYS"]


def test_trace_names_registers_and_values(card: Card) -> None:
    card.read_register(MEMSIZE)
    card.trace.start()
    card.write_register(0x0, 0x12)
    card.read_register(MEMSIZE)
    card.write_config(4, 2, 2)
    card.write_doorbell(0x18, 8, 3)
    entries = card.trace.stop()
    assert [entry.space for entry in entries] == ["register", "register", "config", "doorbell"]
    assert [entry.is_write for entry in entries] == [True, False, True, True]
    text = card.trace.text()
    assert "CONFIG_MEMSIZE" in text and "-> 0x40" in text and "doorbell+0x18" in text


def test_unmodelled_registers_are_listed_and_a_strict_card_refuses_them(card: Card) -> None:
    fuse = 0x5_D004
    card.read_register(fuse)
    assert card.unmodelled() == [(card.space.name_at(fuse), 1)]
    assert card.strict  # omissions show, but nothing raises until somebody asks for it
    card.strict = True
    with pytest.raises(UnmodelledRegister):
        card.read_register(fuse)
    card.relaxed = True
    assert not card.strict


def test_slot_keeps_its_card_until_unplugged() -> None:
    name = "emu:gfx1100#7"
    first = amdrv.emulator.card(name, vram_bytes=64 << 20)
    try:
        assert amdrv.emulator.card(name) is first
        with pytest.raises(InvalidArgument, match="plugged in already"):
            amdrv.emulator.card(name, vram_bytes=128 << 20)
    finally:
        amdrv.emulator.unplug(name)
    second = amdrv.emulator.card(name, vram_bytes=64 << 20)
    amdrv.emulator.unplug(name)
    assert second is not first


def test_slot_with_a_translator_is_no_interpreter() -> None:
    name = "emu:gfx1100#98"
    try:
        amdrv.emulator.card(name, vram_bytes=64 << 20)
        with pytest.raises(InvalidArgument, match="with a translator"):
            amdrv.emulator.card(name, interpreted=True)
        amdrv.emulator.unplug(name)
        slow = amdrv.emulator.card(name, vram_bytes=64 << 20, interpreted=True)
        assert amdrv.emulator.card(name) is slow
        assert amdrv.emulator.card(name, interpreted=True) is slow
    finally:
        amdrv.emulator.unplug(name)


@pytest.mark.parametrize(("name", "error"), [("emu:gfx9999", NotFound), ("emu:gfx1100#x", InvalidArgument)])
def test_name_without_a_card_is_refused(name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="gfx"):
        amdrv.emulator.card(name)
