"""``amdrv run`` and ``amdrv reset``: work on a device from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amdrv
from amdrv import emulator
from amdrv.cli import main
from amdrv.demo.workbench import KERNELS

CARD = "emu:gfx1100#62"  # a card of this file's own
SAXPY = str(KERNELS / "saxpy.ll")
ENDLESS = """
define amdgpu_kernel void @endless() {
  br label %again
again:
  br label %again
}
"""


@pytest.fixture(autouse=True)
def on_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands work on this file's card unless told."""
    monkeypatch.setenv("AMDRV_DEVICE", CARD)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on standard error, which has to be one line."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    return text.strip()


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Standard output as JSON."""
    parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return parsed


def test_a_kernel_runs_and_its_result_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", SAXPY, "saxpy", "-a", "out:f32:4=ones", "-a", "buf:f32:4=iota", "-a", "f32:2", "-a", "i32:4"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("saxpy: 1 workgroups of 256 on Radeon RX 7900 XTX (emulated) in ")
    assert "[1. 3. 5. 7.]" in shown


def test_the_document_has_the_results_and_the_times(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", SAXPY, "saxpy", "--json", "--grid", "8", "--block", "256"]
    for argument in ("out:f32:2000=1", "buf:f32:2000=inf", "f32:1", "i32:2"):
        words += ["--arg", argument]
    assert main(words) == 0
    found = document(capsys)
    assert (found["device"], found["arch"], found["kernel"], found["grid"], found["block"]) == (
        CARD, "gfx1100", "saxpy", [8], [256],
    )  # fmt: skip
    assert 0 < found["gpu_seconds"] <= found["seconds"]
    (result,) = found["results"]
    assert result["values"][:3] == ["inf", "inf", 1.0]
    assert result["shape"] == [2000]
    assert len(result["values"]) == 1024
    assert result["truncated"]


def test_files_go_in_and_results_come_out(tmp_path: Path) -> None:
    x = np.random.default_rng(1).random(300, np.float32)
    np.save(tmp_path / "x.npy", x)
    words = ["run", SAXPY, "saxpy", "--grid", "2", "-a", "buf:f32:300", "-a", f"file:{tmp_path / 'x.npy'}"]
    words += ["-a", "f32:3", "-a", "u32:300", "--save", f"0={tmp_path / 'y.npy'}", "--save", f"0={tmp_path / 'y.bin'}"]
    assert main(words) == 0
    assert np.array_equal(np.load(tmp_path / "y.npy"), x * np.float32(3))
    assert (tmp_path / "y.bin").read_bytes() == (x * np.float32(3)).tobytes()


def test_a_code_object_runs_like_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "saxpy.hsaco").write_bytes(amdrv.compile_llvm(Path(SAXPY).read_text()))
    words = ["-a", "out:f32:4=ones", "-a", "buf:f32:4=iota", "-a", "f32:2", "-a", "i32:4"]
    assert main(["run", str(tmp_path / "saxpy.hsaco"), "saxpy", *words]) == 0
    assert "[1. 3. 5. 7.]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["nope"], 1, "it holds saxpy"),
        (["saxpy"], 1, "takes 4 arguments (y, x, a, n), 0 were given"),
        (["saxpy", "-a", "i32"], 2, "'i32'"),
        (["saxpy", "--grid", "0"], 2, "--grid '0'"),
        (["saxpy", "--block", "2048"], 1, "2048"),
        (["saxpy", "--save", "0=x"], 2, "--save"),
        (["saxpy", "-a", "f32:1", "-a", "ptr:null", "-a", "f32:1", "-a", "i32:1"], 1, "argument 0 (y)"),
        (["saxpy", "--timeout", "0"], 2, "--timeout"),
    ],
)
def test_a_bad_request_is_one_line(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", SAXPY, *words]) == status
    assert said in complaint(capsys)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("broken.ll", b"define void @", "LLVM IR"),
        ("binary.ll", b"\xff\xfe\x00", "not text"),
        ("text.hsaco", b"hello", "neither ELF"),
        ("empty.co", b"", "code object"),
    ],
)
def test_a_file_without_code_is_one_line(
    name: str, content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["run", str(tmp_path / name), "kernel"]) == 1
    assert said in complaint(capsys)


def test_a_page_fault_is_one_line_with_its_diagnosis(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", SAXPY, "saxpy", "-a", "ptr:0x1000", "-a", "ptr:null", "-a", "f32:1", "-a", "i32:1"]
    assert main(words) == 1
    line = complaint(capsys)
    assert "page fault in kernel 'saxpy'" in line
    assert "read of 0x0" in line


def test_a_kernel_that_never_ends_is_given_up_and_the_card_stays_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "endless.ll").write_text(ENDLESS)
    assert main(["run", str(tmp_path / "endless.ll"), "endless", "--block", "32", "--timeout", "0.3"]) == 1
    assert "timed out after 0.3 s" in complaint(capsys)
    test_a_kernel_runs_and_its_result_is_printed(capsys)


@pytest.mark.parametrize(
    ("level", "before", "after"),
    [
        ("queue", "cold", "warm"),
        ("engine", "warm", "warm"),
        ("mode1", "warm", "cold"),
        ("function", "warm", "cold"),
        ("function", "cold", "cold"),
    ],
)
def test_a_reset_reports_what_it_did(level: str, before: str, after: str, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.unplug(CARD)
    if before == "warm":
        amdrv.open(CARD).close()
    assert main(["reset", CARD, "--level", level, "--json"]) == 0
    found = document(capsys)
    assert (found["level"], found["state_before"], found["state_after"]) == (level, before, after)
    assert found["boot"] == (None if level == "function" else before)
    with amdrv.open(CARD) as device:
        assert device.boot.kind == after


def test_a_reset_says_what_was_lost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reset"]) == 0
    assert "mode1 reset done" in (shown := capsys.readouterr().out)
    assert "memory and firmware are gone" in shown


@pytest.mark.parametrize("level", ["queue", "function"])
def test_a_card_in_use_is_not_reset(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    with amdrv.open(CARD):
        assert main(["reset", "--level", level]) == 1
        assert "in use by" in complaint(capsys)


def test_two_devices_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reset", CARD, "--device", "emu:gfx1100"]) == 2
    assert "two devices" in complaint(capsys)
