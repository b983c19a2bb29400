"""MMHUB 3.0: the hub of PSP, SMU, IH and the multimedia engines."""

from amdrv.emulator.models.vmhub import VmHub
from amdrv.facts.ih_ids import Client


class Mmhub(VmHub):
    """MMHUB of Navi31."""

    ip = "MMHUB"
    prefix = "MM"
    interrupt_client = Client.VMC
    l2_control3 = 0x8010_0007
