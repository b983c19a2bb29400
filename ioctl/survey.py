"""What this machine's sysfs says about its AMD GPUs. Only files are read; no card is touched or woken up.

A card that the kernel has suspended is left asleep: its link and its sensors are not asked for, because reading them
would resume it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amdrv.facts.pci import AMD_VENDOR_ID
from amdrv.ioctl.pci_function import REGISTER_BAR, PciIds

SYSFS = Path("/sys")
# Base class and subclass: VGA, 3D and other display controllers, processing accelerators.
GPU_CLASSES = frozenset({0x0300, 0x0302, 0x0380, 0x1200})
BAR_COUNT = 6


@dataclass(frozen=True, slots=True)
class Link:
    """The PCI Express link as the kernel reports it."""

    speed: str  # "16.0 GT/s PCIe"
    width: int
    max_speed: str
    max_width: int


@dataclass(frozen=True, slots=True)
class Sensor:
    """One measurement that the bound kernel driver offers."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class PciCard:
    """One AMD GPU on the bus."""

    address: str  # "0000:03:00.0"
    ids: PciIds
    driver: str  # kernel driver bound to it, "" for none
    power: str  # "active", "suspended" or "unsupported"
    bars: dict[int, int]  # BAR → bytes, for those that are there
    link: Link | None
    boot_display: bool  # the firmware's screen is on this card
    displays: tuple[str, ...]  # connectors with a screen attached
    iommu_group: str | None
    vram_bytes: int | None  # as the kernel driver says; None without one
    sensors: tuple[Sensor, ...]
    accessible: bool  # this process may open the register BAR


# Linux Documentation/hwmon/sysfs-interface.rst: file stem → unit, and what the raw number is divided by.
_HWMON: dict[str, tuple[str, float]] = {
    "temp": ("°C", 1e3),
    "power": ("W", 1e6),
    "in": ("V", 1e3),
    "freq": ("MHz", 1e6),
    "fan": ("RPM", 1.0),
}


def survey(sysfs: Path = SYSFS) -> list[PciCard]:
    """Every AMD GPU, in bus order."""
    folder = sysfs / "bus" / "pci" / "devices"
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [_card(entry) for entry in entries if _is_gpu(entry)]


def _is_gpu(entry: Path) -> bool:
    return _hex(entry / "vendor") == AMD_VENDOR_ID and (_hex(entry / "class") or 0) >> 8 in GPU_CLASSES


def _card(entry: Path) -> PciCard:
    power = _text(entry / "power" / "runtime_status") or "unsupported"
    awake = power != "suspended"
    ids = PciIds(*((_hex(entry / name) or 0) for name in (
        "vendor", "device", "revision", "class", "subsystem_vendor", "subsystem_device",
    )))  # fmt: skip
    return PciCard(
        address=entry.name,
        ids=ids,
        driver=_link_name(entry / "driver") or "",
        power=power,
        bars=_bars(_text(entry / "resource") or ""),
        link=_link(entry) if awake else None,
        boot_display=_text(entry / "boot_vga") == "1",
        displays=tuple(_displays(entry)) if awake else (),
        iommu_group=_link_name(entry / "iommu_group"),
        vram_bytes=_int(entry / "mem_info_vram_total"),
        sensors=tuple(_sensors(entry)) if awake else (),
        accessible=os.access(entry / f"resource{REGISTER_BAR}", os.R_OK | os.W_OK),
    )


def _bars(resource: str) -> dict[int, int]:
    """Sizes from the lines "start end flags" of the resource file; a BAR that is not there is all zeroes."""
    sizes: dict[int, int] = {}
    for bar, line in enumerate(resource.splitlines()[:BAR_COUNT]):
        try:
            start, end, _ = (int(word, 16) for word in line.split())
        except ValueError:
            continue
        if end > start:
            sizes[bar] = end - start + 1
    return sizes


def _link(entry: Path) -> Link | None:
    width, max_width = _int(entry / "current_link_width"), _int(entry / "max_link_width")
    speed, max_speed = _text(entry / "current_link_speed"), _text(entry / "max_link_speed")
    if not width or speed is None:
        return None
    return Link(speed, width, max_speed or speed, max_width or width)


def _displays(entry: Path) -> Iterator[str]:
    for status in sorted(entry.glob("drm/card*/card*-*/status")):
        if _text(status) == "connected":
            yield status.parent.name.partition("-")[2]


def _sensors(entry: Path) -> Iterator[Sensor]:
    for path in sorted(entry.glob("hwmon/hwmon*/*")):
        stem, _, suffix = path.name.rpartition("_")
        unit = _HWMON.get(stem.rstrip("0123456789"))
        if unit is None or suffix not in ("input", "average"):
            continue
        raw = _int(path)
        if raw is not None:
            yield Sensor(_text(path.with_name(f"{stem}_label")) or stem, raw / unit[1], unit[0])
    busy = _int(entry / "gpu_busy_percent")
    if busy is not None:
        yield Sensor("busy", float(busy), "%")


def _text(path: Path) -> str | None:
    """The file's text; None when it is not there, not allowed, or the driver behind it refuses."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _int(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None


def _hex(path: Path) -> int | None:
    try:
        return int(_text(path) or "", 16)
    except ValueError:
        return None


def _link_name(path: Path) -> str | None:
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return None
