"""HDP 6.0.0, the host data path: power and clock control, and the read-only configuration that drivers look at.

Flushes are NBIO's registers; the buffer that they empty is the shell's (host_path.py, shared_host_path.py).
Source: Linux 6.12 hdp_v6_0.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

PLAIN = (
    "HDP_HOST_PATH_CNTL",
    "HDP_MISC_CNTL",
    "HDP_MEM_POWER_CTRL",
    "HDP_MMHUB_CNTL",
    "HDP_CLK_CNTL",
    "HDP_NONSURFACE_BASE",
    "HDP_NONSURFACE_BASE_HI",
    "HDP_NONSURFACE_INFO",
    "HDP_DEBUG0",
)


class Hdp(Model):
    """The host data path of Navi3x."""

    ip = "HDP"
    version = (6, 0)

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        for name in PLAIN:
            self.claim(name)
        self.claim("HDP_OUTSTANDING_REQ", writable=0)
        major, minor = self.version
        self.claim("HDP_VERSION", writable=0, reset=self.register("HDP_VERSION").encode(MAJVER=major, MINVER=minor))
