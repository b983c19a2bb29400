"""GCHUB 3.0: the hub of the shaders, the command processor and SDMA."""

from amdrv.emulator.models.vmhub import VmHub
from amdrv.facts.ih_ids import Client


class Gfxhub(VmHub):
    """GCHUB of gfx11."""

    ip = "GC"
    prefix = "GC"
    interrupt_client = Client.GFX
    l2_control3 = 0x8012_0007
