"""Firmware of Navi48: which files, in which order; genuine pieces are what the second container format says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import amdrv
from amdrv import emulator
from amdrv.errors import MalformedInput
from amdrv.firmware import FirmwareSet, needs_for, parse, resolve, search_places
from amdrv.firmware.authenticity import authenticate
from amdrv.firmware.container import parse_container
from amdrv.firmware.headers import kind_of
from amdrv.firmware.synthetic import images_for, make_piece

NAVI48 = {"MP0": (14, 0, 3), "MP1": (14, 0, 3), "SDMA0": (7, 0, 1), "GC": (12, 0, 1)}
# Linux 6.12: amdgpu_psp.c psp_hw_start, psp_load_non_psp_fw with enum AMDGPU_UCODE_ID; gfx_v12_0_init_microcode: one
# pipe's data for PFP and ME, two for MEC; amdgpu_mes.c with enable_uni_mes.
LINUX_ORDER = """
    KDB SPL SYS_DRV SOC_DRV INTF_DRV DBG_DRV RAS_DRV IPKEYMGR_DRV SOS TOC
    SMU SDMA_UCODE_TH0
    RS64_PFP RS64_ME RS64_MEC
    RS64_PFP_P0_STACK RS64_ME_P0_STACK RS64_MEC_P0_STACK RS64_MEC_P1_STACK
    CP_MES MES_STACK CP_MES_KIQ MES_KIQ_STACK
    IMU_I IMU_D
    RLC_RESTORE_LIST_GPM_MEM RLC_RESTORE_LIST_SRM_MEM RLC_IRAM RLC_DRAM_BOOT RLC_G
    ASD REG_LIST
"""


@pytest.fixture(scope="module")
def folder(genuine_folder: Path) -> Path:
    if not (genuine_folder / "gc_12_0_1_uni_mes.bin").is_file():
        pytest.skip("these genuine images are older than Navi48's")
    return genuine_folder


@pytest.fixture(scope="module")
def genuine(folder: Path) -> FirmwareSet:
    return resolve(NAVI48, places=search_places(environment={"AMDRV_FIRMWARE": str(folder)}, folders=()))


def test_files_are_those_that_linux_asks_for() -> None:
    names = {name for need in needs_for(NAVI48) for name in need.names}
    assert names == set(images_for("gfx1201"))
    assert "gc_12_0_1_uni_mes.bin" in names
    assert kind_of("gc_12_0_1_uni_mes.bin") == "mes"


def test_synthetic_pieces_go_to_the_psp_in_linuxs_order() -> None:
    assert [load.name for load in resolve(NAVI48, images_for("gfx1201")).loads] == LINUX_ORDER.split()


def test_both_pipes_of_the_scheduler_get_the_same_pieces() -> None:
    digests = {load.name: load.sha256 for load in resolve(NAVI48, images_for("gfx1201")).loads}
    assert digests["CP_MES"] == digests["CP_MES_KIQ"]
    assert digests["MES_STACK"] == digests["MES_KIQ_STACK"]


def test_genuine_pieces_go_to_the_psp_in_linuxs_order(genuine: FirmwareSet) -> None:
    assert [load.name for load in genuine.loads] == LINUX_ORDER.split()


def test_genuine_pieces_are_signed_by_their_key_database_or_known(genuine: FirmwareSet) -> None:
    verdicts = {row.piece: row.verdict for row in authenticate(genuine.images)}
    assert {piece for piece, verdict in verdicts.items() if verdict != "signed"} == {"KDB", "SPL"}
    assert {verdicts["KDB"], verdicts["SPL"]} <= {"known", "consistent"}


@pytest.mark.parametrize("name", ["KDB", "TOC", "REG_LIST", "RAS_DRV"])
def test_second_format_has_a_sha384_of_the_body_and_no_total_size(folder: Path, name: str) -> None:
    section = parse("psp_14_0_3_sos.bin", (folder / "psp_14_0_3_sos.bin").read_bytes()).section(name)
    assert section is not None
    container = parse_container(name, section.data)
    assert hashlib.sha384(container.body).digest() == container.body_digest
    assert container.body_digest_matches
    assert len(container.signed) + len(container.signature) == len(section.data)


def in_second_format(piece: bytes) -> bytearray:
    """A piece as the second format would describe it; its signature is the old one."""
    changed = bytearray(piece)
    changed[0x5A] = 2
    changed[0x6C:0x70] = bytes(4)
    return changed


def test_size_of_the_second_format_follows_from_the_body() -> None:
    piece = in_second_format(make_piece("RLC_G"))
    container = parse_container("RLC_G", memoryview(piece))
    assert len(container.body) == len(piece) - 0x200
    assert len(container.body_digest) == 48
    with pytest.raises(MalformedInput, match="the piece has"):
        parse_container("RLC_G", memoryview(piece)[:-1])
    with pytest.raises(MalformedInput, match="not zero follow"):
        parse_container("RLC_G", memoryview(piece + b"x"))


def test_genuine_images_boot_the_emulated_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "emu:gfx1201#4890"
    emulator.card(name, vram_bytes=1 << 30)
    monkeypatch.setenv("AMDRV_FIRMWARE", str(folder))
    for kind in ("cold", "warm"):
        with amdrv.open(name) as dev:
            assert dev.boot.kind == kind
    loaded = emulator.card(name).unmodelled()
    emulator.unplug(name)
    assert loaded == []
