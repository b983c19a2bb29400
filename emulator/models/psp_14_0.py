"""PSP 14.0.3: as 13.0.0, but trusted memory is set up by the boot ROM, and other images are needed.

Sources: Linux 6.12 psp_v14_0.c, amdgpu_psp.c (psp_early_init, psp_hw_start: boot_time_tmr); gfx_v12_0.c: the RLC's
image has no RLC_P and RLC_V.
"""

from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.models.psp_commands import NEEDED_FOR_AUTOLOAD
from amdrv.facts.firmware_auth import NAVI48_ROOT_KEYS
from amdrv.facts.psp import FwType


class Psp14(Psp):
    """The platform security processor of Navi4x."""

    needed_for_autoload = tuple(kind for kind in NEEDED_FOR_AUTOLOAD if kind not in (FwType.RLC_P, FwType.RLC_V))
    roots = NAVI48_ROOT_KEYS
