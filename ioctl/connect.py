"""From a device name to a PciFunction: the only place that knows which kinds there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amdrv.errors import InvalidArgument, Unsupported
from amdrv.ioctl.pci_function import PciFunction, PciIds
from amdrv.ioctl.survey import SYSFS, survey


@dataclass(frozen=True, slots=True)
class Found:
    """A device that could be opened, as far as can be told without touching it."""

    name: str
    ids: PciIds
    driver: str  # kernel driver bound to it, "" for none
    description: str
    usable: bool
    why_not: str = ""


def connect(name: str, sysfs: Path = SYSFS) -> PciFunction:
    """The function behind ``name``; no card is read or written yet, but for the ids of one behind a socket.

    Raises InvalidArgument for a name of no known form, Unsupported for one that asks for the kernel driver, NotFound
    for a device that is not there, Refused for a PCI function that is not an AMD GPU, DeviceBusy for a card behind a
    socket that has a client already.
    """
    kind, _, rest = name.partition(":")
    if kind == "emu" and rest and not rest.startswith("/"):
        from amdrv.emulator import card
        from amdrv.ioctl.emulated import EmulatedFunction

        return EmulatedFunction(name, card(name))
    if kind == "emu" and rest:
        from amdrv.ioctl.vfio_user import VfioUserFunction

        return VfioUserFunction(name)
    if kind == "pci":
        from amdrv.ioctl.sysfs import SysfsFunction

        return SysfsFunction(name, sysfs)
    if kind == "kfd":
        raise Unsupported(f"{name}: a card that stays with the kernel driver cannot be used; unbind it and open pci:…")
    raise InvalidArgument(f"{name!r} is not a device name; try emu:gfx1100, emu:/PATH or pci:0000:03:00.0")


def discover(sysfs: Path = SYSFS) -> list[Found]:
    """Every device that there is, without touching any: real cards first, then the emulated chips."""
    return [*_real(sysfs), *_emulated()]


def _real(sysfs: Path) -> list[Found]:
    from amdrv.ioctl.sysfs import obstacle

    found: list[Found] = []
    for card in survey(sysfs):
        ids = card.ids
        description = f"AMD GPU {ids.vendor:04x}:{ids.device:04x} rev {ids.revision:02x}"
        why_not = obstacle(card, sysfs)
        found.append(Found(f"pci:{card.address}", ids, card.driver, description, usable=not why_not, why_not=why_not))
    return found


def _emulated() -> list[Found]:
    from amdrv.emulator.chips import CHIPS

    return [
        Found(
            f"emu:{arch}",
            PciIds(chip.vendor_id, chip.device_id, chip.revision, chip.class_code, *chip.subsystem),
            "",
            f"{chip.marketing_name} (emulated)",
            usable=True,
        )
        for arch, chip in CHIPS.items()
    ]
