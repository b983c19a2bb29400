"""``amdrv status`` and ``amdrv doctor``: what is known without opening anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import amdrv
from amdrv import emulator
from amdrv.cli import inventory, main

CARD = "emu:gfx1100"
ADDRESS = "0000:03:00.0"
DEVICE_FIELDS = {
    "name", "product", "emulated", "usable", "why_not", "pci", "kernel_driver", "bars", "arch", "state",
    "state_meaning", "vram_bytes", "visible_vram_bytes", "compute_units", "ip_versions", "firmware", "holder", "power",
    "link", "displays", "boot_display", "iommu_group", "sensors",
}  # fmt: skip


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A machine with one 7900 XTX that shows the boot screen and is bound to amdgpu."""
    folder = tmp_path / "bus" / "pci" / "devices" / ADDRESS
    folder.mkdir(parents=True)
    for name, text in {
        "vendor": "0x1002", "device": "0x744c", "revision": "0xc8", "class": "0x030000", "boot_vga": "1",
        "resource": "0x7800000000 0x780fffffff 0x14220c", "gpu_busy_percent": "7",
    }.items():  # fmt: skip
        (folder / name).write_text(text + "\n")
    driver = tmp_path / "bus" / "pci" / "drivers" / "amdgpu"
    driver.mkdir(parents=True)
    (folder / "driver").symlink_to(driver)
    return tmp_path


@pytest.fixture(autouse=True)
def fresh_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that nobody has booted, and a machine without settings."""
    for name in ("AMDRV_DEVICE", "AMDRV_FIRMWARE"):
        monkeypatch.delenv(name, raising=False)
    emulator.unplug(CARD)


def status(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The JSON document of the command."""
    assert main(["status", "--json", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    document: dict[str, Any] = json.loads(captured.out)
    return document


def test_a_machine_without_a_card_has_the_emulated_one_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = status(capsys, "--sysfs-root", str(tmp_path))
    device, other = document["devices"]
    assert set(device) == set(other) == DEVICE_FIELDS
    assert other["name"] == "emu:gfx1201"
    assert document["default_device"] == device["name"] == CARD
    assert device["state"] == "cold"
    assert device["product"] == "Radeon RX 7900 XTX (emulated)"
    assert device["pci"]["device"] == "744c"
    assert device["vram_bytes"] == 24560 << 20
    assert device["ip_versions"]["GC"] == "11.0.0"
    assert device["firmware"]["complete"]
    assert any("no AMD card was found" in hint for hint in document["hints"])
    assert any("amdrv demo" in hint for hint in document["hints"])


def test_looking_does_not_start_or_change_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    card = emulator.card(CARD)
    card.trace.start()
    status(capsys)
    assert card.trace.entries, "nothing was looked at"
    assert not [entry for entry in card.trace.stop() if entry.is_write]
    with amdrv.open(CARD) as device:
        assert device.boot.kind == "cold"


def test_the_state_follows_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> tuple[str, str | None]:
        device = next(device for device in status(capsys)["devices"] if device["name"] == CARD)
        return device["state"], device["holder"]

    with amdrv.open(CARD):
        now, holder = state()
        assert now == "unclean"
        assert holder is not None
        assert "pid" in holder
    assert state() == ("warm", None)
    emulator.card(CARD).faults.off_the_bus = True
    assert state()[0] == "unreachable"


def test_a_real_card_is_described_and_not_offered(sysfs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = status(capsys, "--sysfs-root", str(sysfs))
    real = document["devices"][0]
    assert set(real) == DEVICE_FIELDS
    assert real["name"] == f"pci:{ADDRESS}"
    assert real["product"] == "Radeon RX 7900 XTX"
    assert real["kernel_driver"] == "amdgpu"
    assert real["bars"] == {"0": 256 << 20}
    assert real["state"] is None
    assert real["sensors"] == [{"name": "busy", "value": 7.0, "unit": "%"}]
    assert not real["usable"]
    assert real["why_not"]
    assert document["default_device"] == CARD
    assert any("amdgpu" in hint for hint in document["hints"])
    assert any("screen" in hint for hint in document["hints"])


def test_a_card_that_can_be_opened_is_the_default_and_comes_with_a_warning(
    sysfs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sysfs / "bus" / "pci" / "devices" / ADDRESS
    (folder / "driver").unlink()
    (folder / "resource5").write_bytes(bytes(16))
    document = status(capsys, "--sysfs-root", str(sysfs))
    assert document["devices"][0]["usable"]
    assert document["devices"][0]["state"] is None
    assert document["default_device"] == f"pci:{ADDRESS}"
    assert any("not been tried on a real card" in hint for hint in document["hints"])


def test_the_text_shows_what_the_document_has(sysfs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--sysfs-root", str(sysfs)]) == 0
    shown = capsys.readouterr().out
    for expected in (f"pci:{ADDRESS}", "amdgpu", "BAR0 256 MiB", "busy 7 %", CARD, "cold", "24560 MiB", "GC 11.0.0"):
        assert expected in shown
    assert not [line for line in shown.splitlines() if line != line.rstrip()], "blanks at the end of a line"
    assert "\x1b" not in shown


def test_missing_firmware_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    report = next(entry.report for entry in inventory.take().entries if entry.emulated)
    assert report is not None
    monkeypatch.setattr("amdrv.cli.inventory.search_places", lambda _: ())
    state = inventory.firmware_state(report)
    assert state is not None
    assert not state.complete
    assert "psp_13_0_0_sos.bin" in state.missing


def test_a_damaged_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gc_11_0_0_mec.bin").write_bytes(b"not firmware")
    monkeypatch.setenv("AMDRV_FIRMWARE", str(tmp_path))
    entry = next(entry for entry in inventory.take().entries if entry.found.name == CARD)
    assert entry.firmware is not None
    assert entry.firmware.damaged == ("gc_11_0_0_mec.bin",)
    assert not entry.firmware.complete


def doctor(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> dict[str, str]:
    """Subject → level of what the doctor finds; the worst level where a subject comes twice."""
    assert main(["doctor", "--json", *words]) == status
    levels: dict[str, str] = {}
    for finding in json.loads(capsys.readouterr().out)["findings"]:
        if levels.get(finding["subject"]) != "bad":
            levels[finding["subject"]] = finding["level"]
    return levels


def test_the_doctor_finds_a_healthy_machine_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = doctor(capsys, 0, "--sysfs-root", str(tmp_path))
    assert levels["packages"] == "ok"
    assert levels[CARD] == "ok"
    assert levels["real cards"] == "note"


def test_the_doctor_looks_at_real_cards(sysfs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lockdown = sysfs / "kernel" / "security" / "lockdown"
    lockdown.parent.mkdir(parents=True)
    lockdown.write_text("none [integrity] confidentiality\n")
    assert main(["doctor", "--sysfs-root", str(sysfs)]) == 0
    shown = capsys.readouterr().out
    for expected in (f"pci:{ADDRESS}", "kernel driver: amdgpu", "lockdown is on (integrity)", "no IOMMU group"):
        assert expected in shown


def test_the_doctor_finds_bad_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AMDRV_DEVICE", "nonsense")
    monkeypatch.setenv("AMDRV_FIRMWARE", "/nowhere")
    levels = doctor(capsys, 1)
    assert levels["AMDRV_DEVICE"] == levels["AMDRV_FIRMWARE"] == levels[CARD] == "bad"


def test_the_doctor_finds_a_card_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    emulator.card(CARD).faults.off_the_bus = True
    assert doctor(capsys, 1)[CARD] == "bad"


def test_a_device_name_that_means_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMDRV_DEVICE", "bogus")
    assert main(["status", "--sysfs-root", str(tmp_path)]) == 1
    assert "'bogus' is not a device name" in capsys.readouterr().err
    monkeypatch.setenv("AMDRV_DEVICE", "emu:gfx9999")
    assert main(["status", "--json", "--sysfs-root", str(tmp_path)]) == 1
    assert capsys.readouterr().out == ""
