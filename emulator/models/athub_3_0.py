"""ATHUB 3.0.0: clock and power gating controls; address translation services are not emulated.

Source: Linux 6.12 athub_v3_0.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card


class Athub(Model):
    """The address translation hub of Navi3x."""

    ip = "ATHUB"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self.claim("ATHUB_MISC_CNTL", reset=self.register("ATHUB_MISC_CNTL").encode(CG_OFFDLY=0x20))
