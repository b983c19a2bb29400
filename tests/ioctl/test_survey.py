"""What sysfs says about real cards, from made-up trees of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from amdrv.errors import Refused
from amdrv.ioctl import connect, discover
from amdrv.ioctl.survey import Link, Sensor, survey

ADDRESS = "0000:03:00.0"
# The resource file of a 7900 XTX with resizable BAR, as `cat` shows it: six BARs, then the ROM and bridge windows.
RESOURCE = """\
0x0000007800000000 0x0000007fffffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000008000000000 0x00000080001fffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000000000e000 0x000000000000e0ff 0x0000000000040101
0x00000000fca00000 0x00000000fcafffff 0x0000000000040200
0x00000000fcb00000 0x00000000fcb1ffff 0x0000000000046200
"""


def make_function(sysfs: Path, address: str = ADDRESS, **files: str) -> Path:
    """A PCI function of a 7900 XTX; ``files`` replace or add files, "/" written as "__"."""
    folder = sysfs / "bus" / "pci" / "devices" / address
    contents = {
        "vendor": "0x1002",
        "device": "0x744c",
        "revision": "0xc8",
        "class": "0x030000",
        "subsystem_vendor": "0x1002",
        "subsystem_device": "0x0e3b",
        "resource": RESOURCE,
        **files,
    }
    for name, text in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


def add_driver(folder: Path, name: str) -> None:
    """Bind a kernel driver, as sysfs shows it."""
    target = folder.parents[3] / "bus" / "pci" / "drivers" / name
    target.mkdir(parents=True, exist_ok=True)
    (folder / "driver").symlink_to(target)


def test_a_card_is_described_from_its_files(tmp_path: Path) -> None:
    folder = make_function(
        tmp_path,
        boot_vga="1",
        current_link_speed="16.0 GT/s PCIe",
        current_link_width="16",
        max_link_speed="16.0 GT/s PCIe",
        max_link_width="16",
        power__runtime_status="active",
        mem_info_vram_total="25753026560",
        gpu_busy_percent="3",
        hwmon__hwmon4__name="amdgpu",
        hwmon__hwmon4__temp1_input="45000",
        hwmon__hwmon4__temp1_label="edge",
        hwmon__hwmon4__temp1_crit="100000",
        hwmon__hwmon4__power1_average="19500000",
        hwmon__hwmon4__fan1_input="0",
        **{"drm__card1__card1-DP-1__status": "connected", "drm__card1__card1-HDMI-A-1__status": "disconnected"},
    )
    add_driver(folder, "amdgpu")
    (card,) = survey(tmp_path)
    assert card.address == ADDRESS
    assert (card.ids.vendor, card.ids.device, card.ids.revision, card.ids.class_code) == (0x1002, 0x744C, 0xC8, 0x30000)
    assert card.driver == "amdgpu"
    assert card.bars == {0: 32 << 30, 2: 2 << 20, 4: 256, 5: 1 << 20}
    assert card.link == Link("16.0 GT/s PCIe", 16, "16.0 GT/s PCIe", 16)
    assert card.vram_bytes == 24560 << 20
    assert card.boot_display
    assert card.displays == ("DP-1",)
    assert set(card.sensors) == {
        Sensor("edge", 45.0, "°C"),
        Sensor("power1", 19.5, "W"),
        Sensor("fan1", 0.0, "RPM"),
        Sensor("busy", 3.0, "%"),
    }


def test_a_suspended_card_is_left_asleep(tmp_path: Path) -> None:
    make_function(
        tmp_path,
        power__runtime_status="suspended",
        current_link_width="16",
        current_link_speed="2.5 GT/s PCIe",
        hwmon__hwmon0__temp1_input="45000",
        gpu_busy_percent="0",
    )
    (card,) = survey(tmp_path)
    assert card.power == "suspended"
    assert card.link is None
    assert card.sensors == ()


@pytest.mark.parametrize(
    "files",
    [{"vendor": "0x10de"}, {"class": "0x040300"}, {"vendor": "garbage"}, {"class": ""}],
    ids=["another vendor", "its audio function", "an unreadable vendor", "an empty class"],
)
def test_other_functions_are_not_cards(tmp_path: Path, files: dict[str, str]) -> None:
    make_function(tmp_path, **files)
    assert survey(tmp_path) == []


def test_an_accelerator_without_display_is_a_card(tmp_path: Path) -> None:
    make_function(tmp_path, **{"class": "0x120000", "device": "0x74a1"})
    assert len(survey(tmp_path)) == 1


def test_a_tree_with_next_to_nothing_in_it_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "bus" / "pci" / "devices" / ADDRESS
    folder.mkdir(parents=True)
    (folder / "vendor").write_text("0x1002\n")
    (folder / "class").write_text("0x030000\n")
    (folder / "resource").write_text("nonsense\n\n0x1 0x2\n")
    (card,) = survey(tmp_path)
    assert card.bars == {}
    assert card.driver == ""
    assert not card.accessible


def test_a_machine_without_sysfs_has_no_cards(tmp_path: Path) -> None:
    assert survey(tmp_path / "nowhere") == []


def test_cards_are_listed_in_bus_order_before_the_emulated_ones(tmp_path: Path) -> None:
    for address in ("0000:43:00.0", "0000:03:00.0"):
        make_function(tmp_path, address)
    names = [found.name for found in discover(tmp_path)]
    assert names == ["pci:0000:03:00.0", "pci:0000:43:00.0", "emu:gfx1100", "emu:gfx1201"]


def test_a_card_without_registers_to_open_is_listed_and_says_why(tmp_path: Path) -> None:
    make_function(tmp_path)
    found = discover(tmp_path)[0]
    assert not found.usable
    assert "register BAR cannot be opened" in found.why_not
    with pytest.raises(Refused, match="register BAR cannot be opened"):
        connect(found.name, tmp_path).acquire("test")
