"""The emulated GPU. ``card(name)`` is the card behind a device name; it lives as long as the process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from amdrv.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

_cards: dict[str, Card] = {}  # the machine's slots: the one thing here that outlives every open
_slots = threading.Lock()


def card(
    name: str = "emu:gfx1100",
    *,
    vram_bytes: int | None = None,
    bar0_bytes: int | None = None,
    interpreted: bool = False,
) -> Card:
    """The emulated card behind ``name`` ("emu:gfx1100", "emu:gfx1100#1"), plugged in on first use.

    ``vram_bytes`` and ``bar0_bytes`` (bytes) shape a card that does not exist yet; BAR0 holds all of VRAM unless told.
    The shaders of a new card that is ``interpreted`` run in NumPy instead of compiled code: slow, but easy to follow.
    Raises NotFound for a chip that is not emulated, InvalidArgument for a size or an interpreter asked of a card that
    exists without.
    """
    from amdrv.emulator.chips import CHIPS
    from amdrv.emulator.shell import Card

    if name.startswith("emu:/"):
        raise NotFound(f"{name}: that card lives in its server's process; amdrv emulate has options for faults")
    arch, _, number = name.removeprefix("emu:").partition("#")
    if number and not number.isdigit():
        raise InvalidArgument(f"{name}: the part after # is a number")
    if arch not in CHIPS:
        known = ", ".join(f"emu:{chip}" for chip in sorted(CHIPS))
        raise NotFound(f"{name}: no such emulated chip; there are {known}")
    key = f"emu:{arch}" + (f"#{int(number)}" if number and int(number) else "")
    with _slots:
        existing = _cards.get(key)
        if existing is None:
            existing = _cards[key] = Card(
                key, CHIPS[arch], vram_bytes=vram_bytes, bar0_bytes=bar0_bytes, interpreted=interpreted
            )
        elif vram_bytes is not None and vram_bytes != existing.vram_bytes:
            raise InvalidArgument(f"{key} is plugged in already, with {existing.vram_bytes} bytes of VRAM")
        elif interpreted and not existing.interpreted:
            raise InvalidArgument(f"{key} is plugged in already, with a translator: unplug it, or take another number")
        return existing


def unplug(name: str) -> None:
    """Take an emulated card out: the next ``card(name)`` is a new one, cold."""
    with _slots:
        _cards.pop(name, None)
