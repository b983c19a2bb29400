"""HDP 7.0.0, the host data path: as 6.0.0 in what drivers look at.

Source: Linux 6.12 hdp_v7_0.c.
"""

from amdrv.emulator.models.hdp_6_0 import Hdp


class Hdp7(Hdp):
    """The host data path of Navi4x."""

    version = (7, 0)
