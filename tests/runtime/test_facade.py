"""``import amdrv``: cheap, complete, and the right device behind a name."""

from __future__ import annotations

import subprocess
import sys

import pytest

import amdrv
from amdrv import errors, ioctl
from amdrv.ioctl import Found, PciIds
from amdrv.runtime import selection

IDS = PciIds(0x1002, 0x744C, 0xC8, 0x030000)


def test_every_exported_name_is_there() -> None:
    for name in amdrv.__all__:
        assert getattr(amdrv, name) is not None
    assert set(amdrv.__all__) <= set(dir(amdrv))
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.AmdrvError):
            assert getattr(amdrv, name) is value


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        _ = amdrv.opne


def test_importing_brings_no_heavy_package() -> None:
    code = "import sys, amdrv; print(*{name.partition('.')[0] for name in sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(shown.split())
    assert "amdrv" in loaded
    assert not loaded & {"numpy", "llvmlite", "elftools", "click", "rich", "msgpack", "zstandard", "cffi", "PIL"}


def found(name: str, *, usable: bool = True) -> Found:
    """A device as discovery reports it."""
    return Found(name, IDS, "", "a card", usable)


def test_a_given_name_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMDRV_DEVICE", "pci:0000:03:00.0")
    assert selection.resolve("emu:gfx1100#1") == "emu:gfx1100#1"


def test_then_the_environment_then_the_first_usable_device(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [found("pci:0000:03:00.0", usable=False), found("pci:0000:43:00.0"), found("emu:gfx1100")]
    monkeypatch.setattr(ioctl, "discover", lambda: there)
    monkeypatch.setenv("AMDRV_DEVICE", "pci:0000:99:00.0")
    assert selection.resolve(None) == "pci:0000:99:00.0"
    monkeypatch.setenv("AMDRV_DEVICE", "")
    assert selection.resolve(None) == "pci:0000:43:00.0"
    del there[1]
    assert selection.resolve(None) == "emu:gfx1100"
    there.clear()
    assert selection.resolve(None) == "emu:gfx1100"
    assert amdrv.devices() == []


def test_a_name_of_no_known_form_is_refused() -> None:
    with pytest.raises(amdrv.InvalidArgument, match="nonsense"):
        amdrv.open("nonsense")
    with pytest.raises(amdrv.Unsupported, match=r"kfd:0: a card that stays with the kernel driver cannot be used"):
        amdrv.open("kfd:0")


def test_the_holder_is_named_by_a_short_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/lib/python3/train.py", "--data", "a b", "x" * 200])
    shown = selection.command_line()
    assert shown.startswith("train.py --data 'a b' xxx") and len(shown) == 60
    monkeypatch.setattr(sys, "argv", [])
    assert selection.command_line() == "python"
