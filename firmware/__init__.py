"""Firmware images: what a card needs, where to find it, what is in it, and in which order the PSP gets it.

`resolve` does all of it; `amdrv.firmware.synthetic` makes images for the emulated card. Nothing here touches a device.
"""

from amdrv.firmware.image import FirmwareImage, Section, parse
from amdrv.firmware.needs import Need, needs_for
from amdrv.firmware.plan import PspLoad, load_plan
from amdrv.firmware.store import FirmwareSet, Found, Place, find, resolve, search_places

__all__ = [
    "FirmwareImage",
    "FirmwareSet",
    "Found",
    "Need",
    "Place",
    "PspLoad",
    "Section",
    "find",
    "load_plan",
    "needs_for",
    "parse",
    "resolve",
    "search_places",
]
