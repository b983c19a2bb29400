"""From a device name to a PciFunction: the only place that knows which kinds there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amdrv.errors import InvalidArgument, Unsupported
from amdrv.ioctl.pci_function import PciFunction, PciIds
from amdrv.ioctl.survey import SYSFS, survey

NO_TRANSPORT = "this version has no way to reach a real card yet"


@dataclass(frozen=True, slots=True)
class Found:
    """A device that could be opened, as far as can be told without touching it."""

    name: str
    ids: PciIds
    driver: str  # kernel driver bound to it, "" for none
    description: str
    usable: bool
    why_not: str = ""


def connect(name: str) -> PciFunction:
    """The function behind ``name``; nothing is read or written yet.

    Raises InvalidArgument for a name of no known form, NotFound for a device that is not there.
    """
    kind, _, rest = name.partition(":")
    if kind == "emu" and rest and not rest.startswith("/"):
        from amdrv.emulator import card
        from amdrv.ioctl.emulated import EmulatedFunction

        return EmulatedFunction(name, card(name))
    if kind == "emu":
        raise Unsupported(f"{name}: cards behind a socket are not supported yet; use emu:gfx1100")
    if kind == "pci":
        raise Unsupported(f"{name}: {NO_TRANSPORT}; use emu:gfx1100")
    raise InvalidArgument(f"{name!r} is not a device name; try emu:gfx1100")


def discover(sysfs: Path = SYSFS) -> list[Found]:
    """Every device that there is, without touching any: real cards first, then the emulated chips."""
    return [*_real(sysfs), *_emulated()]


def _real(sysfs: Path) -> list[Found]:
    return [
        Found(
            f"pci:{card.address}",
            card.ids,
            card.driver,
            f"AMD GPU {card.ids.vendor:04x}:{card.ids.device:04x} rev {card.ids.revision:02x}",
            usable=False,
            why_not=NO_TRANSPORT,
        )
        for card in survey(sysfs)
    ]


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
