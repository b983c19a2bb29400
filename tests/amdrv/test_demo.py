"""The demo: what it promises, at a size that takes a moment."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import amdrv
from amdrv import emulator
from amdrv.cli import main
from amdrv.demo import picture, programs, tour
from amdrv.demo.programs import SIZES, Result, Sizes
from amdrv.demo.tour import Compiled, Faulted, Opened, Painted, Ran
from amdrv.demo.workbench import KERNELS, Measurement, Workbench

CARD = "emu:gfx1100#64"  # a card of this file's own
SMALL = SIZES["small"]
PROGRAMS = ["saxpy", "matmul", "reduce", "histogram", "mandelbrot"]


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo meets a card that nobody has booted."""
    monkeypatch.setenv("AMDRV_DEVICE", CARD)
    emulator.unplug(CARD)


def demo(capsys: pytest.CaptureFixture[str], tmp_path: Path, status: int = 0) -> dict[str, Any]:
    """The document of a small demo."""
    assert main(["demo", "--size", "small", "--json", "--output", str(tmp_path / "m.png")]) == status
    parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return parsed


def test_the_document_tells_the_whole_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = demo(capsys, tmp_path)
    assert found["ok"]
    assert found["device_name"] == "Radeon RX 7900 XTX (emulated)"
    cold, warm = found["boots"]
    assert (cold["kind"], warm["kind"]) == ("cold", "warm")
    assert warm["reads"] < cold["reads"]
    assert warm["writes"] < cold["writes"]
    assert warm["virtual_s"] < cold["virtual_s"]
    assert sum(step["reads"] for step in cold["steps"]) == cold["reads"]
    assert [program["name"] for program in found["programs"]] == [*PROGRAMS, "saxpy"]
    for program in found["programs"]:
        assert program["ok"]
        assert program["deviation"] <= program["tolerance"]
        assert program["wave_instructions"] > 0
        assert 0 < program["gpu_seconds"] <= program["seconds"]
    fault = found["fault"]
    assert fault["kind"] == "page fault"
    assert fault["access"] == "read"
    assert fault["buffers_survived"]
    assert "bytes past the end of a buffer" in fault["message"]


def test_the_text_has_every_part_and_no_escape_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--size", "small", "--output", str(tmp_path / "m.png")]) == 0
    shown = capsys.readouterr().out
    for expected in (
        "Cold boot", "because no firmware runs on the card", "compute queue", "total", *PROGRAMS, "m.png",
        "Closed and opened again", "because the same firmware runs", "register reads after", "A fault on purpose",
        "page fault in kernel 'saxpy'", "the device computes again", "everything as NumPy says",
    ):  # fmt: skip
        assert expected in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 140


def test_a_card_that_is_warm_already_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    amdrv.open(CARD).close()
    assert main(["demo", "--size", "small", "--output", str(tmp_path / "m.png")]) == 0
    assert "Warm boot (the card was left warm by an earlier program)" in capsys.readouterr().out


def test_the_picture_is_a_png_of_the_computed_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(demo(capsys, tmp_path)["picture"])
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == SMALL.mandelbrot
        pixels = np.asarray(image)
    middle, corner = pixels[pixels.shape[0] // 2, round(pixels.shape[1] * 0.75)], pixels[0, 0]
    assert not middle.any(), "the origin belongs to the set and is black"
    assert corner.any(), "the corner does not"


def test_a_wrong_result_fails_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = programs.histogram
    monkeypatch.setattr(programs, "histogram", lambda *words: replace(right(*words), deviation=1.0))
    found = demo(capsys, tmp_path, status=1)
    assert not found["ok"]
    assert [program["name"] for program in found["programs"] if not program["ok"]] == ["histogram"]
    assert main(["demo", "--size", "small", "--output", str(tmp_path / "m.png")]) == 1
    shown = capsys.readouterr().out
    assert "WRONG" in shown
    assert "something was wrong" in shown


def test_a_result_that_is_no_number_is_wrong() -> None:
    assert not Result("n", "", "", Measurement(), float("nan"), 1.0, "").ok


@pytest.mark.parametrize("survived", [True, False])
def test_a_fault_that_nobody_noticed_fails(survived: bool) -> None:
    assert not Faulted("", None, survived, 0.0).ok


def test_a_fault_of_another_kind_fails() -> None:
    assert not Faulted("", amdrv.GpuFault("x", kind="illegal instruction"), True, 0.0).ok


def test_what_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--size", "small", "--output", str(tmp_path / "file" / "m.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_events_come_as_they_happen(tmp_path: Path) -> None:
    kinds = [type(event) for event in tour.tour(CARD, SMALL, tmp_path / "m.png")]
    assert kinds == [Opened, Compiled, *[Ran] * len(PROGRAMS), Painted, Opened, Faulted, Ran]


@pytest.mark.parametrize("count", [1, 2, 255, 1024, 1025, 5000])
def test_sizes_that_fill_no_workgroup_are_computed_right(count: int) -> None:
    with amdrv.open(CARD) as device:
        bench = Workbench(device)
        assert programs.saxpy(bench, count).ok
        assert programs.reduce(bench, count).ok
        sizes: tuple[int, int] = (count % 100 + 1, 9)
        assert programs.mandelbrot(bench, sizes, 16)[0].ok


def test_without_a_counter_instructions_are_unknown() -> None:
    with amdrv.open(CARD) as device:
        assert programs.saxpy(Workbench(device), 100).measurement.wave_instructions is None


@pytest.mark.parametrize("size", SIZES)
def test_sizes_fit_what_the_kernels_assume(size: str) -> None:
    sizes: Sizes = SIZES[size]
    assert sizes.matmul % programs.TILE == 0
    assert sizes.histogram % programs.HISTOGRAM_PER_GROUP == 0


def test_a_wrong_computation_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check compares with something computed independently: a kernel with one operation changed fails."""
    changes = {
        "saxpy": ("fadd float %scaled", "fsub float %scaled"),
        "matmul": ("i32 %line, %row.in.tile", "i32 %line, 0"),
        "reduce": ("fadd float %low, %high", "fsub float %low, %high"),
        "histogram": ("and i32 %rest, 255", "and i32 %rest, 127"),
        "mandelbrot": ("float %size, 4.0", "float %size, 2.0"),
    }
    for name, (old, new) in changes.items():
        text = (KERNELS / f"{name}.ll").read_text()
        assert old in text
        (tmp_path / f"{name}.ll").write_text(text.replace(old, new))
    monkeypatch.setattr("amdrv.demo.workbench.KERNELS", tmp_path)
    with amdrv.open(CARD) as device:
        bench = Workbench(device)
        results = [program(bench) for program in programs.simple_programs(SMALL)]
        results.append(programs.mandelbrot(bench, SMALL.mandelbrot, SMALL.mandelbrot_limit)[0])
    assert {result.name: result.ok for result in results} == dict.fromkeys(PROGRAMS, False)


def test_the_palette_is_black_inside_and_coloured_outside() -> None:
    steps = np.array([[0, 5, 20]], np.uint32)
    colours = picture.colours(steps, 20)
    assert colours.shape == (1, 3, 3)
    assert not colours[0, 2].any()
    assert colours[0, 0].any()
    assert (colours[0, 0] != colours[0, 1]).any()


def test_the_command_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    script = "import sys; from amdrv.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "demo", "--size", "small"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mandelbrot.png").exists()
