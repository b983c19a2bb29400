"""MSI-X: the capability, the table and the pending bits in BAR5, masks, and what each reset loses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import amdrv.ioctl
from amdrv import emulator
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.shell import Card

COMMAND, CAPABILITIES = 0x04, 0x34
MASTER_AND_MEMORY = 0x6
MSI_ID, MSIX_ID = 0x05, 0x11
ENABLE, FUNCTION_MASK = 0x8000, 0x4000
TABLE, PENDING = 0x42000, 0x43000  # lspci of AMD's APUs; the registers of nbio_4_3_0_offset.h
CONTROL = 0xC  # in a table entry
ADDRESS, DATA = 0xFEE0_1000, 0x4041


class Host:
    """A card, and what its operating system writes."""

    def __init__(self, arch: str = "gfx1100") -> None:
        self.card = Card("test", CHIPS[arch], vram_bytes=64 << 20)
        self.card.space.strict = True  # whatever is touched here is modelled
        self.received: list[int] = []
        self.card.on_interrupt = self.received.append
        self.card.write_config(COMMAND, 2, MASTER_AND_MEMORY)
        self.capability = capability(self.card, MSIX_ID)

    def control(self, value: int) -> None:
        self.card.write_config(self.capability + 2, 2, value)

    def entry(self, vector: int) -> tuple[int, ...]:
        return tuple(self.card.read_register(TABLE + 16 * vector + at) for at in range(0, 16, 4))

    def program(self, vector: int, *, masked: bool = False) -> None:
        for at, value in enumerate((ADDRESS, 0, DATA + vector, int(masked))):
            self.card.write_register(TABLE + 16 * vector + 4 * at, value)

    def mask(self, vector: int, masked: bool) -> None:
        self.card.write_register(TABLE + 16 * vector + CONTROL, int(masked))

    def pending(self) -> int:
        return self.card.read_register(PENDING)


def capability(card: Card, kind: int) -> int:
    pointer = card.read_config(CAPABILITIES, 1)
    while card.read_config(pointer, 1) != kind:
        pointer = card.read_config(pointer + 1, 1)
        assert pointer
    return pointer


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.mark.parametrize("arch", ["gfx1100", "gfx1201"])
def test_capability_points_at_the_registers_of_the_bus_interface(arch: str) -> None:
    host = Host(arch)
    card = host.card
    assert host.capability == 0xC0
    table, pending = (card.read_config(host.capability + at, 4) for at in (4, 8))
    block = card.registers.block("NBIO")
    assert table == block["RCC_DEV0_EPF0_GFXMSIX_VECT0_ADDR_LO"].address | 5
    assert pending == block["RCC_DEV0_EPF0_GFXMSIX_PBA"].address | 5
    vectors = (card.read_config(host.capability + 2, 2) & 0x7FF) + 1
    assert table - 5 + 16 * (vectors - 1) + CONTROL == block[f"RCC_DEV0_EPF0_GFXMSIX_VECT{vectors - 1}_CONTROL"].address
    assert [host.entry(vector)[3] for vector in range(vectors)] == [1] * vectors  # all masked after power-on


def test_table_keeps_what_is_written_and_pending_bits_are_a_quadword(host: Host) -> None:
    host.program(3)
    host.card.write_register(TABLE + 16 * 3, ADDRESS | 3)  # an address is of whole dwords
    assert host.entry(3) == (ADDRESS, 0, DATA + 3, 0)
    assert (host.pending(), host.card.read_register(PENDING + 4)) == (0, 0)


def test_board_with_msi_alone_has_no_capability_and_its_table_means_nothing() -> None:
    card = Card("test", replace(CHIPS["gfx1100"], msix=None), vram_bytes=64 << 20)
    received: list[int] = []
    card.on_interrupt = received.append
    card.write_config(COMMAND, 2, MASTER_AND_MEMORY)
    at = capability(card, MSI_ID)
    assert card.read_config(at + 1, 1) == 0  # the last of the list
    card.write_config(0xC2, 2, ENABLE)
    card.write_config(at + 2, 2, card.read_config(at + 2, 2) | 1)
    card.raise_interrupt()
    assert received == [0]


def test_interrupt_ring_speaks_by_the_first_vector(host: Host) -> None:
    host.program(0)
    host.control(ENABLE)
    registers = host.card.registers.block("OSSSYS")
    fields = registers["IH_RB_CNTL"].encode(RB_ENABLE=1, ENABLE_INTR=1, RB_SIZE=8, MC_SPACE=4)
    host.card.write_register(registers["IH_RB_BASE"].address, host.card.chip.fb_base + (1 << 20) >> 8 & 0xFFFF_FFFF)
    host.card.write_register(registers["IH_RB_BASE_HI"].address, host.card.chip.fb_base >> 40)
    host.card.write_register(registers["IH_RB_CNTL"].address, fields)
    host.card.model(IhModel).post(20, 181, 4, 0, 0, (0, 0, 0, 0))
    assert (host.received, host.card.interrupts_delivered) == ([0], 1)


def test_masked_vector_is_pending_and_sent_once_when_the_mask_goes(host: Host) -> None:
    host.program(2, masked=True)
    host.control(ENABLE)
    for _ in range(3):
        host.card.raise_interrupt(2)
    assert (host.received, host.pending()) == ([], 1 << 2)
    host.mask(2, False)
    assert (host.received, host.pending()) == ([2], 0)


def test_mask_of_the_function_holds_every_vector_back(host: Host) -> None:
    host.program(0)
    host.program(1)
    host.control(ENABLE | FUNCTION_MASK)
    host.card.raise_interrupt(0)
    host.card.raise_interrupt(1)
    host.mask(1, True)
    assert (host.received, host.pending()) == ([], 0b11)
    host.control(ENABLE)
    assert (host.received, host.pending()) == ([0], 0b10)


def test_pending_bits_cannot_be_written(host: Host) -> None:
    host.card.write_register(PENDING, 0xF)
    assert host.pending() == 0


def test_message_needs_bus_mastering(host: Host) -> None:
    host.program(0)
    host.control(ENABLE)
    host.card.write_config(COMMAND, 2, 0x2)
    host.card.raise_interrupt()
    assert (host.received, host.card.interrupts_delivered) == ([], 0)


def test_without_msix_the_message_is_the_one_of_msi(host: Host) -> None:
    host.program(0, masked=True)
    at = capability(host.card, MSI_ID) + 2
    host.card.write_config(at, 2, host.card.read_config(at, 2) | 1)
    host.card.raise_interrupt()
    assert (host.received, host.pending()) == ([0], 0)


def mode1(card: Card) -> None:
    card.reset_chip(card.chip.timings.mode1)


def by_platform(card: Card) -> None:
    card.bus_reset(function_level=True)


def secondary_bus(card: Card) -> None:
    card.bus_reset(function_level=False)


def by_client(card: Card) -> None:
    """Whoever resets the function through its own configuration space restores nothing."""
    at = capability(card, 0x10) + 8
    card.write_config(at, 2, card.read_config(at, 2) | 1 << 15)
    card.sleep(1.0)
    card.write_config(COMMAND, 2, MASTER_AND_MEMORY)


@pytest.mark.parametrize(
    ("reset", "kept", "pending"),
    [(mode1, True, 0b10), (by_platform, True, 0), (secondary_bus, True, 0), (by_client, False, 0)],
)
def test_reset_loses_the_table_where_it_loses_configuration_space(
    host: Host, reset: Callable[[Card], None], kept: bool, pending: int
) -> None:
    """A reset by the platform loses both and restores both, as Linux's pci_restore_state does, but no pending bit."""
    host.program(0)
    host.program(1, masked=True)
    host.control(ENABLE)
    host.card.raise_interrupt(1)
    reset(host.card)
    host.card.sleep(1.0)
    assert host.entry(0) == ((ADDRESS, 0, DATA, 0) if kept else (0, 0, 0, 1))
    assert host.pending() == pending
    host.card.raise_interrupt(0)
    # Without MSI-X and MSI the card pulls its line, which is vector 0 here.
    assert (host.card.interrupts_delivered, host.card.config.msix_enabled) == (int(kept), kept)


def test_client_in_the_same_process_programs_the_table_through_bar5() -> None:
    name = "emu:gfx1100#4093"
    function = amdrv.ioctl.connect(name)
    card = emulator.card(name)
    function.write_config(COMMAND, 2, MASTER_AND_MEMORY)
    for at, value in enumerate((ADDRESS, 0, DATA, 0)):
        function.write32(5, TABLE + 4 * at, value)
    function.write_config(capability(card, MSIX_ID) + 2, 2, ENABLE)
    card.raise_interrupt()
    assert card.interrupts_delivered == 1
