"""The board's video BIOS: the image in its serial ROM, in which drivers look for clocks, memory and scratch registers.

Format: Linux 6.12 include/atomfirmware.h (tables), amdgpu/atom.c (what a driver follows: amdgpu_atom_parse), PCI
Firmware Specification 3.0 §5.1 (option ROM header and PCI data structure). Synthetic: there are tables, but no byte
code that does anything, no code for the host (its entry point returns at once), and no display.
"""

from __future__ import annotations

from amdrv.emulator.chips.chip import BoardRom, Chip
from amdrv.facts.atom_tables import (
    FIRMWARE_INFO_V3_4,
    GFX_INFO_V3_0,
    MASTER_COMMAND_TABLE,
    MASTER_DATA_TABLE,
    ROM_HEADER,
    SMU_INFO_V3_6,
    TABLE_HEADER,
    UMC_INFO_V3_3,
    VRAM_INFO_V3_0,
    VRAM_MODULE_V3_0,
)
from amdrv.facts.layout import StructLayout
from amdrv.registers import RegisterMap

# Fixed places: atomfirmware.h (enum atombios_image_offset), amdgpu_bios.c (AMD_VBIOS_*), the option ROM header.
SIZE_AT, ENTRY_AT, PCI_POINTER_AT, CHECKSUM_AT = 0x02, 0x03, 0x18, 0x21
STRING_COUNT_AT, SIGNATURE_AT, HEADER_POINTER_AT = 0x2F, 0x30, 0x48
DATE_AT, STRINGS_POINTER_AT, FIRST_FREE = 0x50, 0x6E, 0xA0
BLOCK_BYTES = 512  # the header counts the image in these
OPTION_ROM = b"\x55\xaa"
FAR_RETURN = 0xCB  # what a machine's firmware calls returns at once
SIGNATURE = b" 761295520"
PCI_DATA_BYTES, LAST_IMAGE = 0x18, 0x80
# The command that posts the card, which its boot ROM has done by the time that anybody runs this: header, no work
# space, no parameters, and the byte code's end (Linux 6.12 atom.h: ATOM_OP_EOT). A driver runs it after each reset.
ASIC_INIT = bytes((7, 0, 2, 1, 0, 0, 91))
BOARD_TABLE_BYTES = 488  # sizeof(BoardTable_t) in smu13_driver_if_v13_0_0.h: what smc_dpm_info holds
MHZ_IN_10KHZ = 100
REFERENCE_MHZ = 100


def build(chip: Chip) -> bytes:
    """The image for a chip's board, padded to whole blocks, its bytes adding up to zero; empty for a board without."""
    if chip.rom is None:
        return b""
    image = bytearray(FIRST_FREE)
    image[:2] = OPTION_ROM
    image[ENTRY_AT] = FAR_RETURN
    image[SIGNATURE_AT : SIGNATURE_AT + len(SIGNATURE)] = SIGNATURE
    date = chip.rom.date.encode("ascii")
    image[DATE_AT : DATE_AT + len(date)] = date
    _add_strings(image, chip.rom)
    pci_data = _append(image, bytes(PCI_DATA_BYTES))
    _put(image, PCI_POINTER_AT, pci_data)
    header = _append(image, bytes(ROM_HEADER.size_bytes))
    _put(image, HEADER_POINTER_AT, header)
    places = {name: _append(image, table) for name, table in _data_tables(chip).items()}
    data_tables = _append(image, _table(MASTER_DATA_TABLE, 2, 1, **places))
    commands = _append(image, _table(MASTER_COMMAND_TABLE, 2, 1, asic_init=_append(image, ASIC_INIT)))
    image[header : header + ROM_HEADER.size_bytes] = _table(
        ROM_HEADER,
        2,
        2,
        atom_bios_string=b"ATOM",
        subsystem_vendor_id=chip.subsystem[0],
        subsystem_id=chip.subsystem[1],
        pci_info_offset=pci_data,
        masterhwfunction_offset=commands,
        masterdatatable_offset=data_tables,
    )
    image += bytes(-len(image) % BLOCK_BYTES)
    image[SIZE_AT] = len(image) // BLOCK_BYTES
    image[pci_data : pci_data + PCI_DATA_BYTES] = _pci_data(chip, len(image))
    image[CHECKSUM_AT] = -sum(image) & 0xFF
    return bytes(image)


def _append(image: bytearray, data: bytes | bytearray) -> int:
    """Put ``data`` at the end, aligned to a dword; where it begins."""
    image += bytes(-len(image) % 4)
    place = len(image)
    image += data
    return place


def _put(image: bytearray, place: int, value: int) -> None:
    image[place : place + 2] = value.to_bytes(2, "little")


def _add_strings(image: bytearray, rom: BoardRom) -> None:
    """Part number and its companions, then the name behind CR LF, then the version behind its anchor."""
    strings = (rom.part_number, rom.asic, rom.bus, rom.memory)
    text = b"".join(string.encode("ascii") + b"\0" for string in strings) + b"\r\n" + rom.name.encode("ascii") + b"\0"
    image[STRING_COUNT_AT] = len(strings)
    _put(image, STRINGS_POINTER_AT, _append(image, text))
    _append(image, b"ATOMBIOSBK-AMD VER" + rom.version.encode("ascii") + b"\0")


def _pci_data(chip: Chip, image_bytes: int) -> bytes:
    data = bytearray(b"PCIR".ljust(PCI_DATA_BYTES, b"\0"))
    _put(data, 0x04, chip.vendor_id)
    _put(data, 0x06, chip.device_id)
    _put(data, 0x0A, PCI_DATA_BYTES)
    data[0x0D:0x10] = chip.class_code.to_bytes(3, "little")
    _put(data, 0x10, image_bytes // BLOCK_BYTES)
    data[0x15] = LAST_IMAGE  # code type 0: for a PC's firmware
    return bytes(data)


def _table(layout: StructLayout, major: int, minor: int, **values: int | bytes) -> bytearray:
    return layout.pack(
        structuresize=layout.size_bytes,
        format_revision=major,
        content_revision=minor,
        **{name: list(value) if isinstance(value, bytes) else value for name, value in values.items()},
    )


def _data_tables(chip: Chip) -> dict[str, bytes | bytearray]:
    """Name in the master data table → the table."""
    return {
        "smc_dpm_info": TABLE_HEADER.pack(
            structuresize=TABLE_HEADER.size_bytes + BOARD_TABLE_BYTES, format_revision=4, content_revision=10
        )
        + bytes(BOARD_TABLE_BYTES),
        "firmwareinfo": _firmware_info(chip),
        "smu_info": _smu_info(chip),
        "gfx_info": _gfx_info(chip),
        # No indirect access is described: the list ends where it begins.
        "indirectioaccess": TABLE_HEADER.pack(structuresize=8, format_revision=1, content_revision=1) + bytes(4),
        "umc_info": _table(
            UMC_INFO_V3_3, 3, 3, vram_type=_memory(chip).memory_type, mem_refclk_10khz=REFERENCE_MHZ * MHZ_IN_10KHZ
        ),
        "vram_info": _vram_info(chip),
    }


def _boot_clock(chip: Chip, clock: str) -> int:
    """The clock that the boot ROM leaves behind, in 10 kHz: the lowest level."""
    return chip.power.clock_levels_mhz[clock][0] * MHZ_IN_10KHZ


def _firmware_info(chip: Chip) -> bytearray:
    registers = RegisterMap(chip.bases, chip.versions)
    scratch = registers.block("NBIO", 0)["BIF_BX0_BIOS_SCRATCH_0"].address // 4
    return _table(
        FIRMWARE_INFO_V3_4,
        3,
        4,
        firmware_revision=_memory(chip).firmware_revision,
        bootup_sclk_in10khz=_boot_clock(chip, "GFXCLK"),
        bootup_mclk_in10khz=_boot_clock(chip, "UCLK"),
        bios_scratch_reg_startaddr=scratch,
        fw_reserved_size_in_kb=chip.boot_tmr_from_end_bytes >> 10,  # from the end of VRAM
    )


def _smu_info(chip: Chip) -> bytearray:
    return _table(
        SMU_INFO_V3_6,
        3,
        6,
        core_refclk_10khz=REFERENCE_MHZ * MHZ_IN_10KHZ,
        bootup_socclk_10khz=_boot_clock(chip, "SOCCLK"),
        bootup_fclk_10khz=_boot_clock(chip, "FCLK"),
        bootup_vclk_10khz=_boot_clock(chip, "VCLK_0"),
        bootup_dclk_10khz=_boot_clock(chip, "DCLK_0"),
    )


def _gfx_info(chip: Chip) -> bytearray:
    array = chip.shader_array
    return _table(
        GFX_INFO_V3_0,
        3,
        0,
        max_shader_engines=array.shader_engines,
        max_cu_per_sh=2 * array.wgps_per_array,
        max_sh_per_se=array.arrays_per_engine,
        max_backends_per_se=array.render_backends_per_engine,
        max_texture_channel_caches=array.l2_channels,
        golden_tsc_count_lower_refclk=REFERENCE_MHZ * MHZ_IN_10KHZ,
        active_wgp_per_se=array.wgps_per_array * array.arrays_per_engine,
        active_rb_per_se=array.render_backends_per_engine,
        active_se=array.shader_engines,
    )


def _vram_info(chip: Chip) -> bytearray:
    memory = _memory(chip)
    module = VRAM_MODULE_V3_0.pack(
        dram_vendor_id=memory.memory_vendor, dram_size_per_ch=(chip.vram_bytes >> 20) // memory.memory_channels
    )
    return _table(
        VRAM_INFO_V3_0,
        3,
        0,
        vram_module_num=1,
        memory_type=memory.memory_type,
        channel_num=memory.memory_channels,
        channel_width=memory.memory_channel_width_log2,
        channel_enable=(1 << memory.memory_channels) - 1,
        vram_module=bytes(module),
    )


def _memory(chip: Chip) -> BoardRom:
    if chip.rom is None:
        raise LookupError(f"{chip.arch}: the board has no ROM")
    return chip.rom
