"""``amdrv firmware``, ``reg``, ``vm``, ``trace`` and ``disasm``: looking at things."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest

import amdrv
from amdrv import emulator, firmware
from amdrv.cli import main
from amdrv.demo.workbench import KERNELS
from amdrv.firmware.synthetic import images_for

CARD = "emu:gfx1100#63"  # a card of this file's own
LLVM_OBJDUMP = which("llvm-objdump-22") or which("llvm-objdump")


@pytest.fixture(autouse=True)
def on_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands work on this file's card, which starts cold, with the firmware that it brings."""
    monkeypatch.setenv("AMDRV_DEVICE", CARD)
    monkeypatch.delenv("AMDRV_FIRMWARE", raising=False)
    emulator.unplug(CARD)


def document(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> dict[str, Any]:
    """The JSON document of a command."""
    assert main([*words, "--json"]) == status
    parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return parsed


# -- firmware ---------------------------------------------------------------------------------------------------------


def test_every_needed_image_is_listed_with_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    images = document(capsys, "firmware", "list")["images"]
    assert {image["role"] for image in images} == {"sos", "smu", "sdma", "mec", "rlc", "imu"}
    assert all(image["origin"].startswith("carried by the card") and not image["problem"] for image in images)
    everything = document(capsys, "firmware", "list", "--all")["images"]
    assert len(everything) > len(images)


def test_the_chosen_folder_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "gc_11_0_0_mec.bin"
    (tmp_path / name).write_bytes(images_for("gfx1100")[name])
    monkeypatch.setenv("AMDRV_FIRMWARE", str(tmp_path))
    images = document(capsys, "firmware", "list")["images"]
    assert next(image["origin"] for image in images if image["role"] == "mec") == str(tmp_path / name)
    places = document(capsys, "firmware", "path")
    assert places["places"][0] == {
        "label": "$AMDRV_FIRMWARE", "location": str(tmp_path), "present": True, "needed_images": 1,
    }  # fmt: skip
    assert places["needed"] == len(images)


def test_good_images_verify_and_an_altered_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = document(capsys, "firmware", "verify")
    assert good["ok"]
    assert {piece["verdict"] for piece in good["pieces"]} == {"signed"}
    name = "sdma_6_0_0.bin"
    image = bytearray(images_for("gfx1100")[name])
    image[firmware.parse(name, bytes(image)).sections[0].offset_bytes + 600] ^= 1
    (tmp_path / name).write_bytes(image)
    monkeypatch.setenv("AMDRV_FIRMWARE", str(tmp_path))
    bad = document(capsys, "firmware", "verify", status=1)
    assert not bad["ok"]
    assert bad["problems"] or [piece["image"] for piece in bad["pieces"] if piece["verdict"] == "bad"] == [name]


def test_missing_images_are_a_failed_verification(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("amdrv.cli.firmware.search_places", lambda _: ())
    assert main(["firmware", "verify"]) == 1
    assert "psp_13_0_0_sos.bin: not found" in capsys.readouterr().err


def test_the_tables_of_firmware_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["list"], "gc_11_0_0_mec.bin"),
        (["path"], "6 of 6"),
        (["verify"], "RSA-2048"),
    ):
        assert main(["firmware", *words]) == 0
        assert expected in capsys.readouterr().out


# -- registers --------------------------------------------------------------------------------------------------------


def test_registers_are_listed_by_glob_and_by_address(capsys: pytest.CaptureFixture[str]) -> None:
    by_name = document(capsys, "reg", "list", "MMHUB.*CONTEXT0_CNTL")["registers"]
    assert [register["name"] for register in by_name] == ["MMHUB.MMVM_CONTEXT0_CNTL"]
    # MP1 C2PMSG_66 by byte address, as a Vega 10 trace and Navi48 dumps have it (hardware notes)
    by_address = document(capsys, "reg", "list", "0x58a08")["registers"]
    assert [register["name"] for register in by_address] == ["MP1.MP1_SMN_C2PMSG_66"]


def test_a_value_is_decoded_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    # CONTEXT0_CNTL of a live gfx12 card in umr's VM tests: enabled, depth 3, block size 9 in other bits
    (register,) = document(capsys, "reg", "list", "GC.GCVM_CONTEXT0_CNTL", "--value", "0x3fffc07")["registers"]
    assert register["decoded"]["ENABLE_CONTEXT"] == 1
    assert register["decoded"]["PAGE_TABLE_DEPTH"] == 3
    assert main(["reg", "list", "GC.GCVM_CONTEXT0_CNTL", "--value", "7", "--fields"]) == 0
    shown = capsys.readouterr().out
    assert "PAGE_TABLE_DEPTH=0x3" in shown
    assert "PAGE_TABLE_DEPTH 2:1" in shown


def test_a_register_is_read_from_the_device_even_while_it_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with amdrv.open(CARD):
        assert main(["reg", "read", "NBIO.RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE"]) == 0
    assert "=0x00005ff0" in capsys.readouterr().out  # 24560 MiB


def test_a_register_is_written_and_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reg", "write", "GC.SCRATCH_REG0", "0x55"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "before: GC.SCRATCH_REG0=0x00000000", "after:  GC.SCRATCH_REG0=0x00000055",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["SCRATCH_REG*", "GC.NO_SUCH_REGISTER"])
def test_a_write_that_does_not_name_one_register_writes_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = emulator.card(CARD)
    card.trace.start()
    assert main(["reg", "write", name, "1"]) == 1
    assert not [entry for entry in card.trace.stop() if entry.is_write and entry.space == "register"]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_write_to_a_device_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with amdrv.open(CARD):
        assert main(["reg", "write", "GC.SCRATCH_REG0", "1"]) == 1
    assert "in use by" in capsys.readouterr().err


# -- page tables and traces -------------------------------------------------------------------------------------------


def test_a_walk_shows_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    levels = document(capsys, "vm", "0x200000000000")["levels"]
    assert [level["kind"] for level in levels] == ["table", "table", "table", "page"]
    assert levels[-1]["fields"]["valid"] == 1
    assert main(["vm", "0x200000000123"]) == 0
    assert f"-> {levels[-1]['target'] + 0x123:#x}" in capsys.readouterr().out


def test_a_walk_ends_where_nothing_is_mapped(capsys: pytest.CaptureFixture[str]) -> None:
    assert [level["kind"] for level in document(capsys, "vm", "0")["levels"]] == ["invalid"]


@pytest.mark.parametrize("warm", [False, True])
def test_a_trace_has_the_accesses_that_the_boot_counted(warm: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", *(["--warm"] if warm else [])]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if "config+" not in line and "doorbell+" not in line]
    reads, writes = (sum(arrow in line for line in lines) for arrow in (" -> ", " <- "))
    assert f"{reads} register reads, {writes} writes" in captured.err
    assert ("warm boot" if warm else "cold boot") in captured.err
    assert any("GC.SCRATCH_REG7" in line for line in lines)


# -- machine code -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(LLVM_OBJDUMP is None, reason="llvm-objdump is not installed")
@pytest.mark.parametrize("name", ["saxpy", "matmul", "reduce", "histogram", "mandelbrot"])
def test_a_listing_says_what_llvm_says(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert LLVM_OBJDUMP is not None
    code = tmp_path / f"{name}.o"
    code.write_bytes(amdrv.compile_llvm((KERNELS / f"{name}.ll").read_text()))
    assert main(["disasm", str(code)]) == 0
    ours = [line.split("  ")[-1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  0x")]
    dump = subprocess.run([LLVM_OBJDUMP, "-d", str(code)], capture_output=True, text=True, check=True, timeout=60)
    theirs = [line.partition("//")[0].strip() for line in dump.stdout.splitlines() if line.startswith("\t")]
    theirs = [text for text in theirs if text != "s_code_end"]
    assert [text.partition("<")[0].strip() for text in theirs] == ours


def test_offsets_and_words_are_those_of_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    linked = Path(__file__).parents[1] / "runtime" / "data" / "globals.hsaco"
    assert main(["disasm", str(linked), "--kernel", "helper"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = int(lines[0].split()[0], 16)
    assert lines[0].endswith("<helper>:")
    assert lines[1].split()[:2] == [f"{start:#06x}", "bf890000"]
    assert lines[1].endswith("s_waitcnt vmcnt(0) expcnt(0) lgkmcnt(0)")


def test_a_code_object_says_itself_which_processor_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    code = Path(__file__).parents[1] / "runtime" / "data" / "saxpy_gfx1201.hsaco"
    assert main(["disasm", str(code)]) == 0
    assert "s_wait_kmcnt 0x0" in capsys.readouterr().out


def test_an_unknown_function_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disasm", str(KERNELS / "saxpy.ll"), "--kernel", "nope"]) == 1
    assert "there are saxpy" in capsys.readouterr().err


def test_a_bundle_is_opened_for_the_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (Path(__file__).parents[1] / "runtime" / "data" / "saxpy_v6.hsaco").read_bytes()
    name = b"hipv4-amdgcn-amd-amdhsa--gfx1100"
    bundle = tmp_path / "saxpy.hipfb"
    bundle.write_bytes(
        struct.pack("<24sQQQQ", b"__CLANG_OFFLOAD_BUNDLE__", 1, 56 + len(name), len(code), len(name)) + name + code
    )
    assert main(["disasm", str(bundle)]) == 0
    assert "<saxpy>:" in capsys.readouterr().out
    assert main(["disasm", str(bundle), "--arch", "gfx1201"]) == 1
    assert "offload bundle holds gfx1100" in capsys.readouterr().err
