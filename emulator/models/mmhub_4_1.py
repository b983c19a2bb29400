"""MMHUB 4.1: the hub of PSP, SMU, IH and the multimedia engines.

Source: Linux 6.12 mmhub_v4_1_0.c, gmc_v12_0.c.
"""

from amdrv.emulator.models.gfxhub_12_0 import CONTEXT_RESET
from amdrv.emulator.models.mmhub_3_0 import Mmhub
from amdrv.facts.pte import GFX12


class Mmhub41(Mmhub):
    """MMHUB of Navi4x."""

    entries = GFX12
    context_reset = CONTEXT_RESET
    has_long_status = True
    clock_gating = ("DAGB0_CNTL_MISC2", "DAGB1_CNTL_MISC2")
