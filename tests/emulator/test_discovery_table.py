"""The discovery binary, read by a parser of its own: the checks and steps of Linux 6.12 amdgpu_discovery.c."""

from __future__ import annotations

import struct

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.discovery_table import build
from amdrv.emulator.shell import Card

CHIP = CHIPS["gfx1100"]
GC, NBIF, UVD, SDMA0 = 11, 108, 12, 42  # Linux 6.12 soc15_hw_ip.h


def byte_sum(data: bytes) -> int:
    return sum(data) % 65536


def table(binary: bytes, index: int) -> tuple[int, bytes]:
    """(offset, contents) of an entry of the table list; its checksum holds."""
    offset, checksum, size, _ = struct.unpack_from("<4H", binary, 12 + 8 * index)
    contents = binary[offset : offset + size]
    assert byte_sum(contents) == checksum
    return offset, contents


def blocks(binary: bytes) -> list[tuple[int, int, tuple[int, ...], tuple[int, ...]]]:
    """(hardware id, instance, version, bases) of every entry."""
    _, contents = table(binary, 0)
    signature, _, size, _, dies = struct.unpack_from("<IHHIH", contents)
    assert (signature, size, dies) == (0x53445049, len(contents), 1)
    die_id, at = struct.unpack_from("<2H", contents, 14)
    number, count = struct.unpack_from("<2H", binary, at)
    assert number == die_id
    at += 4
    found = []
    for _ in range(count):
        hw_id, instance, bases, *version = struct.unpack_from("<H5B", binary, at)
        found.append((hw_id, instance, tuple(version), struct.unpack_from(f"<{bases}I", binary, at + 8)))
        at += 8 + 4 * bases
    return found


def test_header_is_signed_sized_and_summed() -> None:
    binary = build(CHIP)
    signature, major, minor, checksum, size = struct.unpack_from("<IHHHH", binary)
    assert (signature, major, minor, size) == (0x28211407, 1, 0, len(binary))
    assert byte_sum(binary[10:]) == checksum
    assert len(binary) <= 10 << 10


def test_every_block_of_the_chip_is_listed_with_version_and_bases() -> None:
    expected = [(entry.hw_id, entry.instance, entry.version, entry.bases) for entry in CHIP.ip_instances]
    assert blocks(build(CHIP)) == expected


def test_navi31_has_the_blocks_that_its_drivers_need() -> None:
    found = {(hw_id, instance): (version, bases) for hw_id, instance, version, bases in blocks(build(CHIP))}
    assert found[GC, 0] == ((11, 0, 0), (0x1260, 0xA000, 0x1C000, 0x2402C00))
    assert found[NBIF, 0][0] == (4, 3, 0)
    assert found[NBIF, 0][1][:3] == (0, 0x14, 0xD20)
    assert (SDMA0, 1) in found


def test_graphics_table_describes_96_compute_units() -> None:
    _, contents = table(build(CHIP), 1)
    table_id, major, minor, size = struct.unpack_from("<IHHI", contents)
    assert (table_id, major, minor, size) == (0x4347, 1, 2, len(contents))
    words = struct.unpack_from("<30I", contents, 12)
    engines, wgps0, wgps1, arrays = words[0], words[1], words[2], words[16]
    assert (engines, arrays) == (6, 2)
    assert 2 * (wgps0 + wgps1) * engines * arrays == 96
    assert (words[11], words[14]) == (32, 64)  # wave size, LDS in KiB


def test_both_video_engines_are_harvested() -> None:
    _, contents = table(build(CHIP), 2)
    assert struct.unpack_from("<I", contents) == (0x56524148,)
    listed = [struct.unpack_from("<HBB", contents, 8 + 4 * n)[:2] for n in range(32)]
    assert listed[:3] == [(UVD, 0), (UVD, 1), (0, 0)]


def test_boot_rom_puts_the_binary_64_kib_before_the_end_of_vram_after_every_reset() -> None:
    card = Card("test", CHIP, vram_bytes=64 << 20)
    binary = build(CHIP)
    offset = card.vram_bytes - (64 << 10)
    assert bytes(card.vram_view(offset, len(binary))) == binary
    card.vram_view(offset, 4)[:] = bytes(4)
    card.reset_chip(0.1)
    assert card.vram_view(offset, 1)[0] == 0
    card.sleep(0.5)
    assert bytes(card.vram_view(offset, len(binary))) == binary
