"""LSDMA 6.0.0, the light copy engine: its power control. What it would copy, nobody asks for; the rest is not modelled.

Source: Linux 6.12 lsdma_v6_0.c (lsdma_v6_0_update_memory_power_gating).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card


class Lsdma(Model):
    """The light copy engine of Navi3x."""

    ip = "LSDMA"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self.claim("LSDMA_MEM_POWER_CTRL")
