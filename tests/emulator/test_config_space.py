"""Configuration space: identity, BAR sizing, capabilities, resets."""

from __future__ import annotations

from itertools import pairwise

import pytest

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.config_space import CAP_EXPRESS, CAP_MSI, BarSpec, ConfigSpace

BARS = CHIPS["gfx1100"].bars(24560 << 20)


class Function:
    """A configuration space that notes its function-level resets."""

    def __init__(self, bars: dict[int, BarSpec] = BARS) -> None:
        self.resets = 0
        self.space = ConfigSpace(
            vendor=0x1002,
            device=0x744C,
            revision=0xC8,
            class_code=0x030000,
            subsystem=(0x1002, 0x0E3B),
            bars=bars,
            on_function_reset=self._count,
        )

    def _count(self) -> None:
        self.resets += 1


@pytest.fixture
def function() -> Function:
    return Function()


def size_of(space: ConfigSpace, bar: int) -> int:
    """BAR size, found as any operating system does (PCI Local Bus Specification 3.0 §6.2.5.1)."""
    offset = 0x10 + 4 * bar
    space.write(offset, 4, 0xFFFF_FFFF)
    low = space.read(offset, 4)
    mask = low & ~0xF
    if low & 0x4:
        space.write(offset + 4, 4, 0xFFFF_FFFF)
        mask |= space.read(offset + 4, 4) << 32
    else:
        mask |= 0xFFFF_FFFF_0000_0000
    return -mask & 0xFFFF_FFFF_FFFF_FFFF


def test_identity_is_the_boards_and_read_only(function: Function) -> None:
    space = function.space
    space.write(0, 4, 0)
    assert (space.read(0, 2), space.read(2, 2), space.read(8, 1)) == (0x1002, 0x744C, 0xC8)
    assert space.read(9, 1) | space.read(10, 2) << 8 == 0x030000
    assert (space.read(0x2C, 2), space.read(0x2E, 2)) == (0x1002, 0x0E3B)


@pytest.mark.parametrize(("bar", "size_bytes", "flags"), [(0, 32 << 30, 0xC), (2, 2 << 20, 0xC), (5, 1 << 20, 0)])
def test_bars_size_as_the_boards_do(function: Function, bar: int, size_bytes: int, flags: int) -> None:
    assert function.space.read(0x10 + 4 * bar, 4) & 0xF == flags
    assert size_of(function.space, bar) == size_bytes


def test_bar0_of_256_mib_is_possible() -> None:
    function = Function(CHIPS["gfx1100"].bars(256 << 20))
    assert size_of(function.space, 0) == 256 << 20


def test_capability_list_ends_and_holds_power_express_and_msi(function: Function) -> None:
    pointer, seen = function.space.read(0x34, 1), []
    while pointer and len(seen) < 16:
        seen.append(function.space.read(pointer, 1))
        pointer = function.space.read(pointer + 1, 1)
    assert seen == [0x01, 0x10, 0x05]


def test_extended_list_tells_the_resizable_bar(function: Function) -> None:
    at, found = 0x100, {}
    while at:
        header = function.space.read(at, 4)
        found[header & 0xFFFF] = at
        at = header >> 20
    control = function.space.read(found[0x15] + 8, 4)
    assert 1 << (control >> 8 & 0x3F) == (32 << 30) >> 20


def test_enumeration_gives_every_bar_its_own_aligned_place_and_turns_memory_on(function: Function) -> None:
    space = function.space
    assert not space.memory_decode
    space.enumerate_bus()
    places = []
    for bar, spec in BARS.items():
        address = space.read(0x10 + 4 * bar, 4) & ~0xF
        if spec.is_64_bit:
            address |= space.read(0x14 + 4 * bar, 4) << 32
        assert address and address % spec.size_bytes == 0
        places.append((address, address + spec.size_bytes))
    places.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(places))
    assert space.memory_decode and not space.bus_master


def test_command_bits_show_in_the_properties(function: Function) -> None:
    function.space.write(4, 2, 0xFFFF)
    assert function.space.memory_decode and function.space.bus_master
    function.space.write(4, 2, 0)
    assert not function.space.memory_decode and not function.space.bus_master
    function.space.write(CAP_MSI + 2, 2, 0x81)
    assert function.space.msi_enabled


@pytest.mark.parametrize(("offset", "width", "value"), [(8, 2, 0x8000), (8, 4, 0x8000), (9, 1, 0x80)])
def test_function_level_reset_bit_resets_however_it_is_written(
    function: Function, offset: int, width: int, value: int
) -> None:
    function.space.write(CAP_EXPRESS + offset, width, value)
    assert function.resets == 1
    function.space.write(CAP_EXPRESS + 0x10, 2, 0)
    assert function.resets == 1


def test_saved_space_is_restored_after_a_reset(function: Function) -> None:
    function.space.enumerate_bus()
    saved = function.space.save()
    function.space.reset()
    assert not function.space.memory_decode
    function.space.restore(saved)
    assert function.space.memory_decode
    assert function.space.save() == saved
