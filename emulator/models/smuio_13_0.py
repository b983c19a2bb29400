"""SMUIO 13.0.6: the golden time stamp counter and identification.

Sources: Linux 6.12 gfx_v11_0.c (gfx_v11_0_get_gpu_clock_counter), smuio_v13_0_6.c, amdgpu_discovery.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

SCRATCH_COUNT = 8


class Smuio(Model):
    """The SMU's input and output block."""

    ip = "SMUIO"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self.claim("GOLDEN_TSC_COUNT_UPPER", writable=0, on_read=lambda: card.realtime() >> 32)
        self.claim("GOLDEN_TSC_COUNT_LOWER", writable=0, on_read=card.realtime)
        self.claim("IP_DISCOVERY_VERSION", writable=0, reset=2)  # Linux 6.12: 4 means the chips with a RAS boot status
        self.claim("SMUIO_MCM_CONFIG", writable=0)
        for n in range(SCRATCH_COUNT):
            self.claim(f"SCRATCH_REGISTER{n}")
