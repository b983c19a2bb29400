"""GCHUB 12.0: the hub of the shaders, the command processor and SDMA.

Source: Linux 6.12 gfxhub_v12_0.c, gmc_v12_0.c.
"""

from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.facts.pte import GFX12

# As 3.0's, whose fields above PAGE_TABLE_DEPTH all moved up by one: the depth has three bits.
CONTEXT_RESET = 0x03FF_FC00


class Gfxhub12(Gfxhub):
    """GCHUB of gfx12."""

    entries = GFX12
    context_reset = CONTEXT_RESET
    has_long_status = True
