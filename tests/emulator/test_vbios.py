"""The board's ROM, read as Linux does it: amdgpu_bios.c (check_atom_bios), atom.c (amdgpu_atom_parse)."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from amdrv.emulator import vbios
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.config_space import ConfigSpace
from amdrv.emulator.shell import Card

CHIP = CHIPS["gfx1100"]
WINDOW_BYTES = 128 * 1024
# Places in the list of data tables (atomfirmware.h: atom_master_list_of_data_tables_v2_1).
SMC_DPM_INFO, FIRMWARE_INFO, SMU_INFO, GFX_INFO, INDIRECT_IO, VRAM_INFO = 2, 4, 8, 14, 23, 28


@pytest.fixture(scope="module")
def image() -> bytes:
    return vbios.build(CHIP)


@pytest.fixture
def card() -> Card:
    return Card("test", CHIP, vram_bytes=64 << 20)


def u16(image: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", image, offset)[0])


def u32(image: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", image, offset)[0])


def data_table(image: bytes, index: int) -> tuple[int, tuple[int, int]]:
    """(offset, revision) of a data table."""
    master = u16(image, u16(image, 0x48) + 0x20)
    offset = u16(image, master + 4 + 2 * index)
    return offset, (image[offset + 2], image[offset + 3])


def test_image_has_the_marks_that_a_driver_looks_for(image: bytes) -> None:
    assert image[:2] == b"\x55\xaa"
    assert image[0x30:0x3A] == b" 761295520"
    assert image[u16(image, 0x48) + 4 :][:4] == b"ATOM"
    assert len(image) == 512 * image[2]


def test_bytes_of_the_image_add_up_to_zero(image: bytes) -> None:
    assert sum(image) % 256 == 0


def test_machine_firmware_finds_the_card_and_comes_back_at_once(image: bytes) -> None:
    place = u16(image, 0x18)
    assert image[place : place + 4] == b"PCIR"
    assert (u16(image, place + 4), u16(image, place + 6)) == (CHIP.vendor_id, CHIP.device_id)
    assert 512 * u16(image, place + 0x10) == len(image)
    assert image[place + 0x15] & 0x80  # the last image of the ROM
    assert image[3] == 0xCB  # a far return


def test_firmware_info_leads_to_the_scratch_registers(image: bytes) -> None:
    offset, revision = data_table(image, FIRMWARE_INFO)
    assert revision == (3, 4)
    assert u32(image, offset + 24) == 0x4C  # nbio_4_3_0_offset.h: regBIF_BX0_BIOS_SCRATCH_0 is 0x38 in segment 1 (0x14)
    assert u32(image, offset + 8) == 500 * 100  # 10 kHz


def test_gfx_info_agrees_with_the_discovery_table(image: bytes) -> None:
    offset, revision = data_table(image, GFX_INFO)
    assert revision == (3, 0)
    engines, _, cus_per_array, arrays = image[offset + 6 : offset + 10]
    assert engines * arrays * cus_per_array == CHIP.shader_array.compute_units
    assert u32(image, offset + 40) == 100 * 100  # the time stamp counter's 100 MHz


def test_memory_is_gddr6_of_384_bits(image: bytes) -> None:
    offset, revision = data_table(image, VRAM_INFO)
    assert revision == (3, 0)
    memory_type, channels = image[offset + 24], image[offset + 25]
    assert (memory_type, 16 * channels) == (0x70, 384)  # amdgpu_atomfirmware_get_vram_info


def test_list_of_indirect_accesses_is_empty(image: bytes) -> None:
    offset, _ = data_table(image, INDIRECT_IO)
    assert image[offset + 4] != 1  # ATOM_IIO_START


@pytest.mark.parametrize("index", [SMC_DPM_INFO, FIRMWARE_INFO, SMU_INFO, GFX_INFO, INDIRECT_IO, VRAM_INFO])
def test_tables_lie_within_the_image(image: bytes, index: int) -> None:
    offset, _ = data_table(image, index)
    assert 0 < offset < offset + u16(image, offset) <= len(image)


def test_names_are_where_the_pointer_says(image: bytes) -> None:
    strings = image[u16(image, 0x6E) :].split(b"\0")
    assert image[0x2F] == 4
    assert strings[0] == b"AMDRV-NAVI31-000"
    assert strings[4].startswith(b"\r\n") and b"emulated" in strings[4]


def test_registers_of_the_serial_rom_give_a_dword_a_read(card: Card, image: bytes) -> None:
    smuio = card.registers.block("SMUIO")
    card.write_register(smuio["ROM_INDEX"].address, 0x30)
    read = b"".join(card.read_register(smuio["ROM_DATA"].address).to_bytes(4, "little") for _ in range(8))
    assert read == image[0x30:0x50]


def test_expansion_rom_address_has_the_windows_size(card: Card) -> None:
    card.write_config(0x30, 4, 0xFFFF_F800)
    assert card.read_config(0x30, 4) == 0x1_0000_0000 - WINDOW_BYTES
    card.write_config(0x30, 4, 0xFE00_0001)
    assert card.read_config(0x30, 4) == 0xFE00_0001


def test_input_and_output_can_be_switched_on_as_on_a_vga_device(card: Card) -> None:
    # SeaBIOS runs the ROM of a VGA device only where both kinds of decoding can be on (optionroms.c: is_pci_vga).
    card.write_config(0x04, 2, 0x3)
    assert card.read_config(0x04, 2) & 0x3 == 0x3


def test_board_without_a_rom_has_no_window() -> None:
    bare = Card("bare", dataclasses.replace(CHIP, rom=None), vram_bytes=64 << 20)
    assert bare.rom == b""
    bare.write_config(0x30, 4, 0xFFFF_F801)
    assert bare.read_config(0x30, 4) == 0


def test_configuration_space_without_a_rom_is_the_default() -> None:
    space = ConfigSpace(
        vendor=1, device=2, revision=0, class_code=0, subsystem=(0, 0), bars=CHIP.bars(1 << 28),
        on_function_reset=lambda: None,
    )  # fmt: skip
    space.write(0x30, 4, 0xFFFF_FFFF)
    assert space.read(0x30, 4) == 0
