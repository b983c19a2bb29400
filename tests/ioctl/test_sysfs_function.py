"""The transport to a real card, against made-up sysfs trees of regular files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from amdrv.errors import DeviceBusy, InvalidArgument, NotFound, Refused, Timeout
from amdrv.ioctl import ResetKind, connect, discover
from amdrv.ioctl.sysfs import SysfsFunction

ADDRESS = "0000:03:00.0"
NAME = f"pci:{ADDRESS}"
VRAM, DOORBELLS, REGISTERS = 0, 2, 5
SIZES = {VRAM: 1 << 20, DOORBELLS: 8192, REGISTERS: 65536}
RESOURCE = """\
0x0000007800000000 0x00000078000fffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000008000000000 0x0000008000001fff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000000000e000 0x000000000000e0ff 0x0000000000040101
0x00000000fca00000 0x00000000fca0ffff 0x0000000000040200
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """One unbound 7900 XTX behind a bridge, as sysfs shows it."""
    sysfs = tmp_path / "sys"
    folder = sysfs / "devices" / "pci0000:00" / "0000:02:00.0" / ADDRESS
    texts = {
        "vendor": "0x1002\n", "device": "0x744c\n", "revision": "0xc8\n", "class": "0x030000\n",
        "subsystem_vendor": "0x1002\n", "subsystem_device": "0x0e3b\n", "resource": RESOURCE, "enable": "0\n",
        "reset": "", "reset_method": "flr bus\n",
    }  # fmt: skip
    for name, text in texts.items():
        write(folder / name, text)
    (folder / "config").write_bytes(bytes([0x02, 0x10, 0x4C, 0x74, 0x07, 0x01]) + bytes(4090))
    for bar, size_bytes in SIZES.items():
        with (folder / f"resource{bar}").open("wb") as file:
            file.truncate(size_bytes)
    devices = sysfs / "bus" / "pci" / "devices"
    devices.mkdir(parents=True)
    (devices / ADDRESS).symlink_to(folder)
    return sysfs


@pytest.fixture
def folder(sysfs: Path) -> Path:
    return sysfs / "bus" / "pci" / "devices" / ADDRESS


@pytest.fixture
def function(sysfs: Path, tmp_path: Path) -> Iterator[SysfsFunction]:
    function = SysfsFunction(NAME, sysfs, tmp_path)
    yield function
    function.release()


def bind(sysfs: Path, folder: Path, driver: str) -> None:
    target = sysfs / "bus" / "pci" / "drivers" / driver
    target.mkdir(parents=True, exist_ok=True)
    (folder / "driver").symlink_to(target)


def put_behind_iommu(sysfs: Path, folder: Path, kind: str) -> None:
    group = sysfs / "kernel" / "iommu_groups" / "17"
    write(group / "type", kind + "\n")
    (folder / "iommu_group").symlink_to(group)


def test_connecting_touches_nothing_and_knows_the_card(sysfs: Path, folder: Path) -> None:
    function = connect(NAME, sysfs)
    assert isinstance(function, SysfsFunction)
    assert (function.ids.vendor, function.ids.device, function.ids.revision) == (0x1002, 0x744C, 0xC8)
    assert [function.bar_size(bar) for bar in range(6)] == [1 << 20, 0, 8192, 0, 256, 65536]
    assert (folder / "enable").read_text() == "0\n"
    assert function.virtual_s is None
    assert not function.enable_interrupts()


def test_config_space_is_read_and_written_by_width(function: SysfsFunction, folder: Path) -> None:
    assert function.read_config(0, 4) == 0x744C1002
    assert function.read_config(2, 2) == 0x744C
    assert function.read_config(3, 1) == 0x74
    function.write_config(4, 2, 0xF_0403)
    assert (folder / "config").read_bytes()[:8] == bytes([0x02, 0x10, 0x4C, 0x74, 0x03, 0x04, 0, 0])
    assert (function.traffic.config_reads, function.traffic.config_writes) == (3, 1)


@pytest.mark.parametrize(("offset", "width"), [(1, 2), (2, 4), (-4, 4), (4096, 1), (0, 3), (0, 8)])
def test_config_access_of_a_wrong_shape_is_refused(function: SysfsFunction, offset: int, width: int) -> None:
    with pytest.raises(InvalidArgument):
        function.read_config(offset, width)
    with pytest.raises(InvalidArgument):
        function.write_config(offset, width, 0)


def test_config_space_cut_short_by_the_kernel_is_no_zero(function: SysfsFunction, folder: Path) -> None:
    os.truncate(folder / "config", 64)
    with pytest.raises(Refused, match="run as root"):
        function.read_config(0x100, 4)


def test_bars_are_the_files_behind_them_and_accesses_are_counted(function: SysfsFunction, folder: Path) -> None:
    function.write32(REGISTERS, 0x378C, 0x1_8765_4321)
    assert function.read32(REGISTERS, 0x378C) == 0x8765_4321
    function.write64(DOORBELLS, 0x18, 0x0102_0304_0506_0708)
    function.write32(DOORBELLS, 0x20, 9)
    function.write_memory(VRAM, (1 << 20) - 4, b"last")
    assert function.read_memory(VRAM, (1 << 20) - 4, 4) == b"last"
    assert function.read32(VRAM, (1 << 20) - 4) == int.from_bytes(b"last", "little")
    assert (folder / "resource5").read_bytes()[0x3788:0x3794] == bytes.fromhex("00000000 21436587 00000000")
    assert (folder / "resource2").read_bytes()[0x18:0x24] == bytes.fromhex("0807060504030201 09000000")
    seen = function.traffic
    assert (seen.reads, seen.writes, seen.doorbells) == (1, 1, 2)
    assert (seen.memory_bytes_read, seen.memory_bytes_written) == (4, 4)


def test_memory_is_mapped_write_combining_where_the_kernel_offers_it(function: SysfsFunction, folder: Path) -> None:
    (folder / "resource0_wc").write_bytes(b"combined" + bytes((1 << 20) - 8))
    assert function.read_memory(VRAM, 0, 8) == b"combined"


def test_first_access_to_a_bar_enables_the_function(function: SysfsFunction, folder: Path) -> None:
    function.read32(REGISTERS, 0)
    assert (folder / "enable").read_text() == "1"


@pytest.mark.parametrize(
    ("bar", "offset", "reason"),
    [(REGISTERS, 65536, "outside"), (REGISTERS, 2, "aligned"), (REGISTERS, -4, "outside"), (1, 0, "not implemented")],
)
def test_access_outside_a_bar_is_refused(function: SysfsFunction, bar: int, offset: int, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        function.read32(bar, offset)
    with pytest.raises(InvalidArgument, match=reason):
        function.write32(bar, offset, 0)


def test_each_bar_is_used_for_what_it_is(function: SysfsFunction) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        function.read32(DOORBELLS, 0)
    with pytest.raises(Refused, match="not memory"):
        function.memory(REGISTERS, 0, 4)
    with pytest.raises(Refused, match="doorbell"):
        function.write64(REGISTERS, 0, 0)
    with pytest.raises(Refused, match="mapped"):
        function.write32(4, 0, 0)
    with pytest.raises(InvalidArgument, match="outside"):
        function.memory(VRAM, (1 << 20) - 4, 8)


def test_a_bar_file_shorter_than_its_bar_is_refused(function: SysfsFunction, folder: Path) -> None:
    os.truncate(folder / "resource5", 4096)
    with pytest.raises(Refused, match="shorter"):
        function.read32(REGISTERS, 0)


def test_a_card_with_a_kernel_driver_is_left_alone(function: SysfsFunction, sysfs: Path, folder: Path) -> None:
    bind(sysfs, folder, "amdgpu")
    with pytest.raises(Refused, match=r"amdgpu.*drivers/amdgpu/unbind"):
        function.acquire("test")
    with pytest.raises(Refused, match="amdgpu"):
        function.read32(REGISTERS, 0)
    with pytest.raises(Refused, match="amdgpu"):
        function.read_config(0, 4)
    assert (folder / "enable").read_text() == "0\n"


def test_permission_denied_by_the_system_is_explained(
    function: SysfsFunction, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("amdrv.ioctl.sysfs.os.open", deny)
    with pytest.raises(Refused, match="mapping BAR5 is not permitted; run as root"):
        function.read32(REGISTERS, 0)
    with pytest.raises(Refused, match="run as root"):
        function.read_config(0, 4)


def test_a_user_without_access_is_refused_before_anything_happens(
    function: SysfsFunction, sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amdrv.ioctl.survey.os.access", lambda *_: False)
    with pytest.raises(Refused, match="run as root"):
        function.acquire("test")
    assert "run as root" in discover(sysfs)[0].why_not


@pytest.mark.parametrize("name", ["pci:03:00.0", "pci:", "pci:0000:03:00.8", "pci:../../etc", "pci:0000:03:00.0/x"])
def test_a_malformed_address_is_refused(sysfs: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="looks like pci:0000"):
        connect(name, sysfs)


def test_a_missing_card_is_not_found(sysfs: Path) -> None:
    with pytest.raises(NotFound, match="no real card"):
        connect("pci:0000:04:00.0", sysfs)


def test_another_vendors_function_is_refused(sysfs: Path, folder: Path) -> None:
    (folder / "vendor").write_text("0x10de\n")
    with pytest.raises(Refused, match="not an AMD GPU"):
        connect(NAME, sysfs)


@pytest.mark.parametrize(("kind", "usable"), [("identity", True), ("DMA", False), ("DMA-FQ", False), ("", False)])
def test_only_an_iommu_that_passes_through_is_accepted(sysfs: Path, folder: Path, kind: str, usable: bool) -> None:
    put_behind_iommu(sysfs, folder, kind)
    found = discover(sysfs)[0]
    assert (found.name, found.usable) == (NAME, usable)
    assert usable or "VFIO" in found.why_not


def test_dma_memory_is_refused_when_an_iommu_came_between(
    function: SysfsFunction, sysfs: Path, folder: Path, tmp_path: Path
) -> None:
    put_behind_iommu(sysfs, folder, "identity")
    second = SysfsFunction(NAME, sysfs, tmp_path)
    second.acquire("test")
    write(sysfs / "kernel" / "iommu_groups" / "17" / "type", "DMA\n")
    with pytest.raises(Refused, match="IOMMU"):
        second.alloc_dma(4096)
    second.release()


def test_discovery_tells_why_a_bound_card_is_not_usable(sysfs: Path, folder: Path) -> None:
    assert discover(sysfs)[0].usable
    bind(sysfs, folder, "amdgpu")
    found = discover(sysfs)[0]
    assert (found.driver, found.usable) == ("amdgpu", False)
    assert "unbind" in found.why_not


def test_owner_is_named_to_a_second_one_and_gone_after_release(
    function: SysfsFunction, sysfs: Path, tmp_path: Path
) -> None:
    function.acquire("first one")
    second = SysfsFunction(NAME, sysfs, tmp_path)
    with pytest.raises(DeviceBusy, match=rf"pid {os.getpid()} \(first one, since "):
        second.acquire("second")
    second.release()  # of what it never owned
    function.release()
    function.release()
    second.acquire("second")
    second.release()


def test_what_needs_the_owner_is_refused_to_others(function: SysfsFunction, folder: Path) -> None:
    with pytest.raises(Refused, match="acquire"):
        function.alloc_dma(4096)
    with pytest.raises(Refused, match="acquire"):
        function.reset(ResetKind.FUNCTION)
    assert (folder / "reset").read_text() == ""


def test_function_reset_uses_flr_and_leaves_the_choice_of_methods(function: SysfsFunction, folder: Path) -> None:
    function.acquire("test")
    function.reset(ResetKind.FUNCTION)
    assert (folder / "reset").read_text() == "1"
    assert (folder / "reset_method").read_text() == "flr bus"


def test_function_reset_without_flr_is_refused(function: SysfsFunction, folder: Path) -> None:
    (folder / "reset_method").write_text("pm bus\n")
    function.acquire("test")
    with pytest.raises(Refused, match="pm bus"):
        function.reset(ResetKind.FUNCTION)
    assert (folder / "reset").read_text() == ""


def test_bus_reset_is_the_bridges_and_spares_a_bound_neighbour(
    function: SysfsFunction, sysfs: Path, folder: Path
) -> None:
    function.acquire("test")
    with pytest.raises(Refused, match="no reset of the bus"):
        function.reset(ResetKind.BUS)
    bridge = folder.resolve().parent
    write(bridge / "reset_subordinate", "")
    audio = bridge / "0000:03:00.1"
    write(audio / "config", "")
    function.reset(ResetKind.BUS)
    assert (bridge / "reset_subordinate").read_text() == "1"
    write(bridge / "reset_subordinate", "")
    bind(sysfs, audio, "snd_hda_intel")
    with pytest.raises(Refused, match=r"0000:03:00\.1 .*snd_hda_intel"):
        function.reset(ResetKind.BUS)
    assert (bridge / "reset_subordinate").read_text() == ""


def test_wait_polls_quickly_then_sleeps_and_runs_out_in_time(function: SysfsFunction) -> None:
    polls = 0

    def check() -> bool:
        nonlocal polls
        polls += 1
        return False

    started, spent = time.monotonic(), time.process_time()
    with pytest.raises(Timeout):
        function.wait_until(check, 0.1, "nothing")
    assert 0.1 <= time.monotonic() - started < 1.0
    assert time.process_time() - spent < 0.08  # it slept
    assert 20 < polls < 400
