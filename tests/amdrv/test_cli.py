"""The command line as a whole: exit statuses, error lines, what is loaded when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from amdrv.cli import INTERRUPTED, main
from amdrv.cli.app import COMMANDS

DEVICE = "emu:gfx1100#61"  # a card of this file's own


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    command = [sys.executable, "-c", "import sys; from amdrv.cli import main; sys.exit(main())", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on standard error, which has to be one line."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    return text.strip()


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: amdrv {name}" in capsys.readouterr().out


def test_help_loads_none_of_the_heavy_packages() -> None:
    script = (
        "import sys; from amdrv.cli import main; main(['--help']);"
        "print([m for m in ('numpy', 'rich', 'llvmlite', 'amdrv.gpu', 'amdrv.emulator.isa') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_command_shows_the_help_as_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("amdrv ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stats"], "did you mean 'status'?"),
        (["xyzzy"], "there are demo, status"),
        (["status", "--nope"], "amdrv status: no such option '--nope' (see amdrv status --help)"),
        (["status", "--watch", "--json"], "exclude each other"),
        (["status", "--watch", "--period", "0"], "--period"),
        (["run"], "missing argument 'FILE'"),
        (["run", "/nowhere.ll", "k"], "/nowhere.ll"),
        (["reset", "--level", "all"], "'all' is not one of"),
        (["demo", "--output", "/nowhere/m.png"], "/nowhere"),
        (["vm", "soup"], "not an address"),
        (["reg", "write", "X", "0x100000000"], "does not fit"),
    ],
)
def test_a_command_line_without_sense_is_one_line_and_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in complaint(capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-d", "emu:gfx9999", "vm", "0"], "emu:gfx1100"),
        (["-d", "nonsense", "demo"], "not a device name"),
        (["reset", "pci:0000:03:00.0"], "real card"),
        (["reg", "list", "NO_SUCH_REGISTER"], "NO_SUCH_REGISTER"),
        (["reg", "list", "SCRATCH_REG0", "--arch", "gfx9999"], "gfx9999"),
        (["disasm", "/dev/null"], "ELF"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_line_and_status_1(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    assert said in complaint(capsys)


def test_an_unreadable_log_level_is_said_before_anything_is_done() -> None:
    done = run("status", AMDRV_LOG="shout")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "shout" in done.stderr


def test_a_log_goes_to_standard_error_and_leaves_the_document_alone() -> None:
    done = run("status", "--json", AMDRV_LOG="debug")
    assert done.returncode == 0
    json.loads(done.stdout)


def test_an_interrupt_ends_with_the_status_of_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(click.Group, "invoke", interrupted)
    assert main(["status"]) == INTERRUPTED == 130
    assert complaint(capsys) == "amdrv: interrupted"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = "import sys; from amdrv.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", script, "disasm", str(kernels() / "matmul.ll")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_a_terminal_without_the_characters_is_no_error() -> None:
    done = run("-d", DEVICE, "demo", "--size", "small", "--output", os.devnull, PYTHONIOENCODING="ascii")
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_failure_nobody_foresaw_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(click.Group, "invoke", broken)
    with pytest.raises(ZeroDivisionError):
        main(["status"])


def test_the_device_may_be_named_before_or_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["-d", "nonsense", "vm", "0"], ["vm", "0", "-d", "nonsense"]):
        assert main(words) == 1
        assert "'nonsense' is not a device name" in complaint(capsys)


def test_the_environment_names_the_device_where_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMDRV_DEVICE", "nonsense")
    assert main(["vm", "0"]) == 1
    assert "'nonsense'" in complaint(capsys)


def test_whoever_did_not_choose_a_device_is_told_which_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AMDRV_DEVICE", raising=False)
    assert main(["reg", "read", "GC.SCRATCH_REG0"]) == 0
    assert "emulated one (emu:gfx1100)" in complaint(capsys)


@pytest.mark.parametrize("words", [["reset"], ["reg", "write", "GC.SCRATCH_REG0", "1"]])
def test_a_real_card_that_nobody_named_is_not_harmed(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AMDRV_DEVICE", raising=False)
    monkeypatch.setattr("amdrv.cli.devices.resolve", lambda name: name or "pci:0000:03:00.0")
    assert main(words) == 1
    assert "name it if you mean it" in complaint(capsys)


def test_whoever_gets_a_real_card_unasked_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AMDRV_DEVICE", raising=False)
    monkeypatch.setattr("amdrv.cli.devices.resolve", lambda name: name or "pci:ffff:ff:1f.7")
    assert main(["vm", "0"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "working on the real card pci:ffff:ff:1f.7" in first
    assert "pci:ffff:ff:1f.7" in second


def kernels() -> Path:
    """The demo's kernels."""
    from amdrv.demo.workbench import KERNELS

    return KERNELS
