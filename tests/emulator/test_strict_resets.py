"""Each kind of reset loses exactly what it loses, and keeps the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.shell import ALL_ONES, Card

MIB = 1 << 20
COMMAND, CAPABILITIES = 0x04, 0x34
MEMORY_AND_MASTER = 0x6
PCIE_DEVICE_CONTROL, FUNCTION_LEVEL_RESET = 0x08, 1 << 15
MEMSIZE = 0x378C


def mode1(card: Card) -> None:
    """As the SMU and the PSP ask for it."""
    card.reset_chip(card.chip.timings.mode1)


def function_by_platform(card: Card) -> None:
    """sysfs, VFIO."""
    card.bus_reset(function_level=True)


def secondary_bus(card: Card) -> None:
    """The bridge above."""
    card.bus_reset(function_level=False)


def function_by_client(card: Card) -> None:
    """INITIATE_FUNCTION_LEVEL_RESET in the PCI Express capability, by a client that restores nothing."""
    pointer = card.read_config(CAPABILITIES, 1)
    while card.read_config(pointer, 1) != 0x10:
        pointer = card.read_config(pointer + 1, 1)
    control = card.read_config(pointer + PCIE_DEVICE_CONTROL, 2)
    card.write_config(pointer + PCIE_DEVICE_CONTROL, 2, control | FUNCTION_LEVEL_RESET)


# What is kept: sticky scratch (BIOS_SCRATCH), config space.
RESETS: list[tuple[Callable[[Card], None], bool, bool]] = [
    (mode1, True, True),
    (function_by_platform, False, True),
    (secondary_bus, False, True),
    (function_by_client, False, False),
]


@pytest.mark.parametrize(("reset", "keeps_sticky", "keeps_config"), RESETS, ids=[row[0].__name__ for row in RESETS])
def test_reset_loses_its_share(reset: Callable[[Card], None], keeps_sticky: bool, keeps_config: bool) -> None:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    scratch = card.registers.gc.SCRATCH_REG0.address
    sticky = card.registers.named("NBIO.BIF_BX0_BIOS_SCRATCH_3").address
    boot_rom = card.registers.named("MP0.MP0_SMN_C2PMSG_33").address
    card.write_config(COMMAND, 2, MEMORY_AND_MASTER)
    card.write_register(scratch, 5)
    card.write_register(sticky, 7)
    card.vram_view(0, 4)[:] = b"gone"
    card.bar0_view(4096, 4)[:] = b"late"
    before_ns = card.clock.now_ns
    reset(card)
    assert card.clock.now_ns >= before_ns
    card.sleep(1.0)
    assert (card.read_config(COMMAND, 2) == MEMORY_AND_MASTER) == keeps_config
    if not keeps_config:
        assert card.read_register(MEMSIZE) == ALL_ONES  # memory decode is off
        card.write_config(COMMAND, 2, MEMORY_AND_MASTER)
    assert card.read_register(MEMSIZE) == 64
    assert card.read_register(scratch) == 0
    assert card.read_register(sticky) == (7 if keeps_sticky else 0)
    assert bytes(card.vram_view(0, 4)) == bytes(4)
    with card.lock:
        card.host_path.flush()
    assert bytes(card.vram_view(4096, 4)) == bytes(4)
    assert card.read_register(boot_rom) >> 31 == 1  # the boot ROM has run again


def test_card_is_silent_during_a_mode1_reset_and_then_boots_its_rom() -> None:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    boot_rom = card.registers.named("MP0.MP0_SMN_C2PMSG_33").address
    mode1(card)
    assert card.read_register(boot_rom) == ALL_ONES
    card.sleep(card.chip.timings.mode1)
    assert card.read_register(boot_rom) >> 31 == 0
    card.sleep(card.chip.timings.boot_rom)
    assert card.read_register(boot_rom) >> 31 == 1
