"""What is known about every device without opening it; the data behind ``amdrv status`` and ``amdrv doctor``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from amdrv.asic import ASICS
from amdrv.cli.devices import BEHIND_SOCKET, EMULATED, look
from amdrv.cli.output import Json, version
from amdrv.errors import AmdrvError, DeviceBusy
from amdrv.firmware import needs_for, search_places
from amdrv.firmware.report import image_rows
from amdrv.ioctl import Found, connect, discover
from amdrv.ioctl.pci_function import PciIds
from amdrv.ioctl.survey import SYSFS, PciCard, survey
from amdrv.runtime.selection import DEVICE_VARIABLE, resolve
from amdrv.status import ProbeReport, probe

BAR_NUMBERS = range(6)
NOTHING: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class FirmwareState:
    """Whether a card's firmware set is complete, and where it would come from."""

    complete: bool
    sources: tuple[str, ...]  # folders, or "carried by the card"
    images: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    problem: str  # why nothing could be looked up; "" otherwise


@dataclass(frozen=True, slots=True)
class Entry:
    """One device."""

    found: Found
    card: PciCard | None  # of a real card
    report: ProbeReport | None  # of a card that may be read
    bars: dict[int, int]
    holder: str | None
    firmware: FirmwareState | None

    @property
    def emulated(self) -> bool:
        """Whether it is an emulated card."""
        return self.found.name.startswith(EMULATED)

    @property
    def product(self) -> str:
        """What it is called, as well as it is known."""
        if self.report is not None and self.report.product:
            return self.report.product
        return known_product(self.found.ids) or self.found.description


@dataclass(frozen=True, slots=True)
class Inventory:
    """All devices, and what a person should know or do."""

    entries: tuple[Entry, ...]
    default: str
    hints: tuple[str, ...]


def known_product(ids: PciIds) -> str | None:
    """The product name for PCI ids in the driver's tables."""
    return next((name for asic in ASICS if (name := asic.products.get((ids.device, ids.revision)))), None)


def take(sysfs: Path = SYSFS, device: str | None = None) -> Inventory:
    """Look at everything. Real cards are read about, not read.

    Cards behind sockets are found only when ``device``, or $AMDRV_DEVICE, names one.
    """
    named = device or os.environ.get(DEVICE_VARIABLE)
    cards = {f"pci:{card.address}": card for card in survey(sysfs)}
    entries = tuple(
        _emulated(found) if found.name.startswith(EMULATED) else _real(found, cards.get(found.name))
        for found in discover(sysfs)
    )
    if named and named.startswith(BEHIND_SOCKET):
        entries = (*entries, _behind_socket(named))
    first = next((entry.found.name for entry in entries if entry.found.usable), None)
    return Inventory(entries, resolve(named or first), tuple(_hints(entries)))


def check_name(sysfs: Path, device: str | None) -> None:
    """Raise what ``connect`` raises unless ``device``, or $AMDRV_DEVICE, is the name of a device, or neither is set."""
    named = device or os.environ.get(DEVICE_VARIABLE)
    if named and not named.startswith(BEHIND_SOCKET):  # those are described even when they do not answer
        connect(named, sysfs)


def _real(found: Found, card: PciCard | None) -> Entry:
    return Entry(found, card, None, card.bars if card is not None else {}, None, None)


def _emulated(found: Found) -> Entry:
    from amdrv import emulator

    function = connect(found.name)
    report = look(found.name)
    bars = {bar: size for bar in BAR_NUMBERS if (size := function.bar_size(bar))}
    firmware = firmware_state(report, function.firmware_images())
    return Entry(found, None, report, bars, emulator.card(found.name).holder, firmware)


def _behind_socket(name: str) -> Entry:
    """The card of another process. One that is in use is described as far as its server does."""
    from amdrv.ioctl.vfio_user_link import SocketBusy

    try:
        function = connect(name)
    except AmdrvError as error:
        holder = error.holder if isinstance(error, DeviceBusy) else None
        ids = PciIds(*error.ids) if isinstance(error, SocketBusy) and len(error.ids) == 6 else PciIds(0, 0, 0, 0)
        found = Found(name, ids, "", "a card behind a socket", usable=False, why_not=str(error))
        return Entry(found, None, None, {}, holder, None)
    try:
        found = Found(name, function.ids, "", "a card behind a socket", usable=True)
        report = probe(function)
        bars = {bar: size for bar in BAR_NUMBERS if (size := function.bar_size(bar))}
        return Entry(found, None, report, bars, None, firmware_state(report, function.firmware_images()))
    finally:
        function.release()


def firmware_state(report: ProbeReport, carried: Mapping[str, bytes] = NOTHING) -> FirmwareState | None:
    """The firmware that an open of the card would use; None when its blocks are not known."""
    if report.versions is None:
        return None
    try:
        needs = needs_for(report.versions, device_id=report.ids.device, revision=report.ids.revision, scope="compute")
        rows = image_rows(needs, search_places(carried))
    except AmdrvError as error:
        return FirmwareState(False, (), 0, (), (), str(error))
    optional = {need.role for need in needs if need.optional}
    bad = [row for row in rows if row.problem and row.role not in optional]
    sources = dict.fromkeys(_source(row.origin, row.name) for row in rows if row.origin)
    return FirmwareState(
        complete=not bad,
        sources=tuple(sources),
        images=sum(not row.problem for row in rows),
        missing=tuple(row.name for row in bad if not row.origin),
        damaged=tuple(row.name for row in bad if row.origin),
        problem="",
    )


def _source(origin: str, name: str) -> str:
    """A folder from a path, or the words before an image's name."""
    return origin.removesuffix(f": {name}") if origin.endswith(f": {name}") else str(Path(origin).parent)


def _hints(entries: Sequence[Entry]) -> list[str]:
    real = [entry for entry in entries if not entry.emulated]
    emulated = next((entry.found.name for entry in entries if entry.emulated), None)
    hints: list[str] = []
    if not real:
        hints.append("no AMD card was found on this machine's PCI bus")
    for entry in real:
        hints += _hints_of_real(entry)
    hints += [entry.found.why_not for entry in entries if entry.emulated and entry.found.why_not]
    if emulated and not any(entry.found.usable for entry in real):
        hints.append(f"programs use the emulated card {emulated}; try: amdrv demo")
    return hints


def _hints_of_real(entry: Entry) -> list[str]:
    name, card = entry.found.name, entry.card
    hints = [f"{name}: {entry.found.why_not}"] if entry.found.why_not else []
    if entry.found.driver:
        hints.append(f"{name}: amdrv has not been tried on a real card; read the README's caution before you unbind it")
    if entry.found.usable:
        hints.append(f"{name}: can be opened, but amdrv has not been tried on a real card; read the README's caution")
    if card is not None and (card.displays or card.boot_display):
        shown = ", ".join(card.displays) or "the boot screen"
        hints.append(f"{name}: a screen hangs on it ({shown}); a driver from user space turns it dark")
    return hints


# -- as JSON ---------------------------------------------------------------------------------------------------------


def document(inventory: Inventory) -> dict[str, Json]:
    """The stable fields of ``amdrv status --json``; what is not known is null."""
    return {
        "amdrv": version(),
        "default_device": inventory.default,
        "devices": [_device(entry) for entry in inventory.entries],
        "hints": list(inventory.hints),
    }


def _device(entry: Entry) -> dict[str, Json]:
    found, card, report, ids = entry.found, entry.card, entry.report, entry.found.ids
    return {
        "name": found.name,
        "product": entry.product,
        "emulated": entry.emulated,
        "usable": found.usable,
        "why_not": found.why_not or None,
        "pci": {
            "vendor": f"{ids.vendor:04x}",
            "device": f"{ids.device:04x}",
            "revision": f"{ids.revision:02x}",
            "class": f"{ids.class_code:06x}",
            "subsystem_vendor": f"{ids.subsystem_vendor:04x}",
            "subsystem_device": f"{ids.subsystem_device:04x}",
        },
        "kernel_driver": found.driver or None,
        "bars": {str(bar): size for bar, size in entry.bars.items()},
        "arch": report.arch if report is not None else None,
        "state": report.state if report is not None else None,
        "state_meaning": report.detail if report is not None else None,
        "vram_bytes": report.vram_bytes if report is not None else card.vram_bytes if card is not None else None,
        "visible_vram_bytes": report.visible_vram_bytes if report is not None else None,
        "compute_units": report.compute_units if report is not None else None,
        "ip_versions": _versions(report),
        "firmware": _plain(asdict(entry.firmware)) if entry.firmware is not None else None,
        "holder": entry.holder,
        "power": card.power if card is not None else None,
        "link": _plain(asdict(card.link)) if card is not None and card.link is not None else None,
        "displays": list(card.displays) if card is not None else [],
        "boot_display": card.boot_display if card is not None else False,
        "iommu_group": card.iommu_group if card is not None else None,
        "sensors": [_plain(asdict(sensor)) for sensor in card.sensors] if card is not None else [],
    }


def _versions(report: ProbeReport | None) -> dict[str, Json] | None:
    if report is None or report.versions is None:
        return None
    return {block: ".".join(map(str, version)) for block, version in report.versions.items()}


def _plain(fields: dict[str, object]) -> dict[str, Json]:
    plain: dict[str, Json] = {}
    for name, value in fields.items():
        if isinstance(value, tuple):
            plain[name] = [str(item) for item in value]
        elif value is None or isinstance(value, (bool, int, float, str)):
            plain[name] = value
        else:
            plain[name] = str(value)
    return plain
