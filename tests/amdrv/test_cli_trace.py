"""``amdrv trace record``, ``show``, ``diff`` and ``replay``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from amdrv import emulator
from amdrv.cli import main

numbers = itertools.count(7500)


@pytest.fixture
def name() -> Iterator[str]:
    """A card that nobody has booted."""
    chosen = f"emu:gfx1100#{next(numbers)}"
    emulator.card(chosen, vram_bytes=1 << 30)
    yield chosen
    emulator.unplug(chosen)


def record(name: str, path: Path, *options: str) -> str:
    assert main(["trace", "record", str(path), "-d", name, *options]) == 0
    return str(path)


def test_recorded_boot_shows_and_replays(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(name, tmp_path / "boot.trace")
    assert "cold boot" in capsys.readouterr().err
    assert main(["trace", "show", path, "--only", "register"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 320  # 119 reads and 201 writes: docs/boot.md, the driver's part
    assert any("MP0.MP0_SMN_C2PMSG_35" in line for line in lines)
    assert main(["trace", "replay", path]) == 0
    assert "0 reads differ" in capsys.readouterr().err


def test_replay_to_a_card_in_another_state_tells_the_reads_that_differ(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(name, tmp_path / "boot.trace")
    emulator.unplug(name)
    emulator.card(name, vram_bytes=1 << 30).faults.inject("smu:unresponsive")
    assert main(["trace", "replay", path, "-d", name]) == 1
    captured = capsys.readouterr()
    assert "MP1.MP1_SMN_C2PMSG_90 was 0x1, is 0x0" in captured.out


def test_boots_differ_in_nothing_but_the_nonce(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for number in range(2):
        paths.append(record(name, tmp_path / f"{number}.trace"))
        emulator.unplug(name)
        emulator.card(name, vram_bytes=1 << 30)
    capsys.readouterr()
    assert main(["trace", "diff", *paths]) == 1
    lines = capsys.readouterr().out.splitlines()[2:]  # without the names of the files
    changed = [line for line in lines if line[0] in "+-"]
    assert {line[1:].split()[0] for line in changed} == {"GC.SCRATCH_REG6", "GC.SCRATCH_REG7"}
    assert main(["trace", "diff", paths[0], paths[0]]) == 0
    assert capsys.readouterr().out == ""


def test_file_that_is_no_trace_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("hello")
    assert main(["trace", "show", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
