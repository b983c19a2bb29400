"""Genuine images of linux-firmware: they parse, they are authentic, and the plan is the one that Linux follows."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from amdrv.facts.firmware_auth import PIECE_TYPES, known_pieces
from amdrv.firmware import FirmwareSet, needs_for, parse, resolve, search_places
from amdrv.firmware.authenticity import authenticate
from amdrv.firmware.container import parse_container, parse_key_database
from amdrv.firmware.needs import Need
from amdrv.firmware.synthetic import images_for

NAVI31 = {"MP0": (13, 0, 0), "MP1": (13, 0, 0), "SDMA0": (6, 0, 0), "GC": (11, 0, 0)}
NEEDS = {need.role: need for need in needs_for(NAVI31)}

# Linux 6.12: amdgpu_psp.c psp_hw_start, psp_load_non_psp_fw, with enum AMDGPU_UCODE_ID; Navi31's sOS image has no
# SOC_DRV, INTF_DRV, DBG_DRV and RAS_DRV. After the autoload: psp_load_fw.
LINUX_ORDER = """
    KDB SPL SYS_DRV SOS TOC SMU
    SDMA_UCODE_TH0 SDMA_UCODE_TH1
    RS64_PFP RS64_ME RS64_MEC
    RS64_PFP_P0_STACK RS64_PFP_P1_STACK RS64_ME_P0_STACK RS64_ME_P1_STACK
    RS64_MEC_P0_STACK RS64_MEC_P1_STACK RS64_MEC_P2_STACK RS64_MEC_P3_STACK
    CP_MES MES_STACK CP_MES_KIQ MES_KIQ_STACK
    IMU_I IMU_D
    RLC_RESTORE_LIST_GPM_MEM RLC_RESTORE_LIST_SRM_MEM RLC_IRAM RLC_DRAM_BOOT RLC_P RLC_V RLC_G
    ASD REG_LIST
"""
# tinygrad 0.14.0 runtime/support/am: what its driver loads on GC 11.0.0 (its order of the SDMA threads differs).
COMPUTE_ORDER = """
    KDB SPL SYS_DRV SOS TOC SMU
    SDMA_UCODE_TH0 SDMA_UCODE_TH1
    RS64_MEC RS64_MEC_P0_STACK
    IMU_I IMU_D
    RLC_IRAM RLC_DRAM_BOOT RLC_P RLC_V RLC_G
"""


def load(folder: Path, need: Need) -> tuple[str, bytes]:
    """The file that satisfies ``need``; a version of before mes_2 has its older name."""
    for name in need.names:
        if (folder / name).is_file():
            return name, (folder / name).read_bytes()
    pytest.fail(f"{folder} holds none of {need.names}")


@pytest.fixture(scope="module")
def genuine_set(genuine_folder: Path) -> FirmwareSet:
    return resolve(NAVI31, places=search_places(environment={"AMDRV_FIRMWARE": str(genuine_folder)}, folders=()))


@pytest.mark.parametrize("role", NEEDS)
def test_genuine_pieces_are_of_the_types_they_are_loaded_as(genuine_folder: Path, role: str) -> None:
    types = {piece.name: piece.container_type for piece in PIECE_TYPES}
    name, data = load(genuine_folder, NEEDS[role])
    image = parse(name, data)
    assert image.sections
    for section in image.sections:
        container = parse_container(section.name, section.data)
        assert container.type_id == types[section.name]


def test_every_genuine_piece_is_signed_by_its_key_database_or_known(genuine_set: FirmwareSet) -> None:
    verdicts = {row.piece: row.verdict for row in authenticate(genuine_set.images)}
    roots = {piece for piece, verdict in verdicts.items() if verdict != "signed"}
    assert roots == {"KDB", "SPL", "SYS_DRV", "SOS"}
    assert {verdicts[piece] for piece in roots} <= {"known", "consistent"}
    assert verdicts["KDB"] == "known"  # unchanged from 2023 to 2026


@pytest.mark.parametrize("offset", [0x61, 0x120, -1])
@pytest.mark.parametrize("piece", ["KDB", "SYS_DRV", "SOS"])
def test_genuine_boot_loader_piece_with_a_flipped_bit_is_bad(genuine_folder: Path, piece: str, offset: int) -> None:
    # In turn a bit of the header's version, of the body, and of the signature.
    data = bytearray((genuine_folder / "psp_13_0_0_sos.bin").read_bytes())
    image = parse("psp_13_0_0_sos.bin", bytes(data))
    section = image.section(piece)
    assert section is not None
    if {row.piece: row.verdict for row in authenticate({"sos": image})}[piece] != "known":
        pytest.skip("a version that is not in the table of digests")
    position = section.offset_bytes + (offset if offset >= 0 else len(section.data) + offset)
    data[position] ^= 0x10
    data[28:32] = zlib.crc32(data[32:]).to_bytes(4, "little")
    rows = {row.piece: row for row in authenticate({"sos": parse("psp_13_0_0_sos.bin", bytes(data))})}
    assert rows[piece].verdict == "bad"


def test_package_whose_digests_are_listed_has_only_known_boot_loader_pieces(genuine_folder: Path) -> None:
    stamp = genuine_folder.parent / "PACKAGE"
    package = stamp.read_text(encoding="ascii").strip() if stamp.is_file() else "no stamp"
    if package not in {piece.package for piece in known_pieces()}:
        pytest.skip(f"{package} is no package whose digests are listed")
    image = parse("psp_13_0_0_sos.bin", (genuine_folder / "psp_13_0_0_sos.bin").read_bytes())
    verdicts = {row.piece: row.verdict for row in authenticate({"sos": image})}
    assert [verdicts[piece] for piece in ("KDB", "SPL", "SYS_DRV", "SOS")] == ["known"] * 4


def test_genuine_key_database_lists_the_graphics_key(genuine_set: FirmwareSet) -> None:
    section = genuine_set.images["sos"].section("KDB")
    assert section is not None
    keys = parse_key_database("KDB", parse_container("KDB", section.data))
    graphics = keys[bytes.fromhex("298b268839744d15afef32e02e254322")]
    assert (graphics.usage, graphics.exponent, graphics.modulus.bit_length()) == (0x0A, 0x10001, 2048)


def test_sections_lie_where_the_header_struct_says(genuine_folder: Path) -> None:
    # gfx_firmware_header_v2_0 by hand: feature version, code size and offset, data size and offset, start address
    data = (genuine_folder / "gc_11_0_0_mec.bin").read_bytes()
    feature, code_size, code_offset, data_size, data_offset, *_ = struct.unpack_from("<7I", data, 32)
    image = parse("gc_11_0_0_mec.bin", data)
    code, stack = image.section("RS64_MEC"), image.section("RS64_MEC_P3_STACK")
    assert code is not None
    assert stack is not None
    assert bytes(code.data) == data[code_offset : code_offset + code_size]
    assert bytes(stack.data) == data[data_offset : data_offset + data_size]
    assert code.feature_version == feature
    assert code.version == struct.unpack_from("<I", data, 16)[0]


def test_plan_for_genuine_images_is_the_order_of_linux(genuine_set: FirmwareSet) -> None:
    assert [load.name for load in genuine_set.loads] == LINUX_ORDER.split()


def test_smu_image_carries_soft_power_tables_inside_the_file(genuine_set: FirmwareSet) -> None:
    tables = genuine_set.images["smu"].soft_pptables
    assert tables
    assert all(len(table) > 0x1000 for table in tables.values())


@pytest.mark.parametrize("role", NEEDS)
def test_synthetic_image_has_the_shape_of_the_genuine_one(genuine_folder: Path, role: str) -> None:
    name, data = load(genuine_folder, NEEDS[role])
    genuine, synthetic = parse(name, data), parse(NEEDS[role].names[0], images_for("gfx1100")[NEEDS[role].names[0]])
    assert synthetic.header_version == genuine.header_version
    assert synthetic.header["header_size_bytes"] == genuine.header["header_size_bytes"]
    assert synthetic.header["payload_offset_bytes"] == genuine.header["payload_offset_bytes"]
    assert synthetic.header["ip_version_major"] == genuine.header["ip_version_major"]
    assert [section.name for section in synthetic.sections] == [section.name for section in genuine.sections]


def test_plan_for_synthetic_images_is_the_order_of_linux() -> None:
    places = search_places(images_for("gfx1100"), environment={}, folders=())
    assert [load.name for load in resolve(NAVI31, places=places).loads] == LINUX_ORDER.split()


def test_compute_plan_has_what_a_driver_without_graphics_loads() -> None:
    places = search_places(images_for("gfx1100"), environment={}, folders=())
    firmware = resolve(NAVI31, places=places, scope="compute")
    assert [load.name for load in firmware.loads] == COMPUTE_ORDER.split()
    assert set(firmware.images) == {"sos", "smu", "sdma", "mec", "imu", "rlc"}


def test_plan_stages_follow_one_another_and_the_spl_command_gets_the_key_database() -> None:
    places = search_places(images_for("gfx1100"), environment={}, folders=())
    loads = resolve(NAVI31, places=places).loads
    stages = list(dict.fromkeys(load.stage for load in loads))
    assert stages == ["bootloader", "toc", "before_tmr", "after_tmr", "asd", "after_autoload"]
    by_name = {load.name: load for load in loads}
    assert by_name["SPL"].data == by_name["KDB"].data  # Linux 6.12 psp_v13_0_bootloader_load_spl
    assert by_name["SPL"].fw_type is None
    assert by_name["RLC_G"].fw_type == 8
