"""Chips as data: PCI identity, IP versions and bases, counts, memory."""

from __future__ import annotations

from amdrv.emulator.chips.chip import Chip
from amdrv.emulator.chips.navi31 import NAVI31
from amdrv.emulator.chips.navi48 import NAVI48

CHIPS: dict[str, Chip] = {chip.arch: chip for chip in (NAVI31, NAVI48)}

__all__ = ["CHIPS", "Chip"]
