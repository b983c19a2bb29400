"""Contract of logging set-up, register access traces and configuration space changes."""

from __future__ import annotations

import logging

import pytest

from amdrv import pci_config
from amdrv.errors import InvalidArgument, Timeout
from amdrv.facts.pci import Capability, Command, Config
from amdrv.log import TRACE, parse_levels


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("", {}),
        ("trace", {"amdrv": TRACE}),
        ("info, blocks.psp=trace", {"amdrv": logging.INFO, "amdrv.blocks.psp": TRACE}),
        ("amdrv=DEBUG", {"amdrv": logging.DEBUG}),
    ],
)
def test_log_levels_are_read_for_everything_and_for_parts(text: str, levels: dict[str, int]) -> None:
    assert parse_levels(text) == levels


def test_unknown_log_level_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"'loud'.*trace, debug"):
        parse_levels("loud")


def test_trace_names_registers_and_fields(mmio, registers, caplog) -> None:
    with caplog.at_level(TRACE, logger="amdrv"):
        mmio.write(registers["GC", "SH_MEM_BASES"], SHARED_BASE=1, PRIVATE_BASE=2)
        mmio.read(registers["GC", "SH_MEM_BASES"])
    assert "SH_MEM_BASES" in caplog.text and "SHARED_BASE" in caplog.text
    assert [record.levelno for record in caplog.records] == [TRACE, TRACE]


def test_update_keeps_the_bits_beside_its_fields(function, mmio, registers) -> None:
    register = registers["GC", "SH_MEM_BASES"]
    function.registers[register.address] = 0xAAAA5555
    mmio.update(register, PRIVATE_BASE=1)
    assert function.registers[register.address] == 0xAAAA0001


def test_field_that_is_too_large_is_refused_before_anything_is_written(function, mmio, registers) -> None:
    with pytest.raises(InvalidArgument):
        mmio.write(registers["GC", "SH_MEM_BASES"], SHARED_BASE=1 << 16)
    assert function.log == []


def test_wait_names_register_and_numbers(mmio, registers) -> None:
    with pytest.raises(Timeout) as caught:
        mmio.wait_fields(registers["GC", "SH_MEM_BASES"], 0.25, "something", SHARED_BASE=3)
    error = caught.value
    assert (error.mask, error.expected, error.last, error.timeout_s) == (0xFFFF0000, 0x30000, 0, 0.25)
    assert "GC.SH_MEM_BASES" in str(error)


def capabilities(function, *ids: int) -> None:
    function.write_config(Config.STATUS, 2, 0x10)
    at = 0x40
    function.write_config(Config.CAPABILITY_LIST, 1, at)
    for number, capability in enumerate(ids):
        following = at + 0x14 if number + 1 < len(ids) else 0
        function.write_config(at, 2, capability | following << 8)
        at += 0x14


def test_link_power_states_are_switched_off_and_given_back(function) -> None:
    capabilities(function, Capability.POWER, Capability.MSI, Capability.EXPRESS)
    control = 0x68 + 0x10
    function.write_config(control, 2, 0x0142)
    assert pci_config.set_link_power_states(function, 0) == 2
    assert function.read_config(control, 2) == 0x0140
    pci_config.set_link_power_states(function, 2)
    assert function.read_config(control, 2) == 0x0142


def test_card_without_the_capability_is_left_alone(function) -> None:
    assert pci_config.set_link_power_states(function, 0) is None
    capabilities(function, Capability.POWER)
    assert pci_config.find_capability(function, Capability.EXPRESS) is None


@pytest.mark.parametrize("filler", [0xFF, 0x40])
def test_endless_capability_list_ends(function, filler: int) -> None:
    function.config[:] = bytes([filler]) * len(function.config)
    function.write_config(Config.STATUS, 2, 0x10)
    function.write_config(0x40, 2, 0x40 << 8)
    assert pci_config.find_capability(function, Capability.EXPRESS) is None


def test_command_bits_change_alone(function) -> None:
    function.write_config(Config.COMMAND, 2, 0x402)
    pci_config.set_command(function, Command.MASTER, True)
    assert function.read_config(Config.COMMAND, 2) == 0x406
    pci_config.set_command(function, Command.MASTER, False)
    assert function.read_config(Config.COMMAND, 2) == 0x402


def test_what_a_reset_cleared_is_restored(function) -> None:
    function.write_config(Config.COMMAND, 2, 0x406)
    for at in (Config.BAR0, Config.BAR2, Config.BAR5):
        function.write_config(at, 4, 0xE000_0000 + at)
    state = pci_config.save(function)
    before = bytes(function.config)
    function.config[:] = bytes(len(function.config))
    pci_config.restore(function, state)
    assert bytes(function.config) == before
