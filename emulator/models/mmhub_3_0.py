"""MMHUB 3.0: the hub of PSP, SMU, IH and the multimedia engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.models.vmhub import VmHub
from amdrv.facts.ih_ids import Client

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

CLOCK_GATING = ("MM_ATC_L2_MISC_CG", "DAGB0_CNTL_MISC2", "DAGB1_CNTL_MISC2")  # Linux 6.12 mmhub_v3_0.c


class Mmhub(VmHub):
    """MMHUB of Navi31."""

    ip = "MMHUB"
    prefix = "MM"
    interrupt_client = Client.VMC
    l2_control3 = 0x8010_0007
    clock_gating: tuple[str, ...] = CLOCK_GATING

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        for name in self.clock_gating:
            self.claim(name)
