"""RLC of gfx11: the autoload that follows the PSP's AUTOLOAD_RLC, and the safe-mode handshake.

Sources: Linux 6.12 gfx_v11_0.c (gfx_v11_0_wait_for_rlc_autoload_complete, gfx_v11_0_set_safe_mode,
gfx_v11_0_rlc_start).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model
from amdrv.emulator.models.psp_13_0 import Psp

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

AUTOLOAD_S = 4e-3  # inferred: the kernel polls for at most 100 ms and finds it done after a few
SAFE_MODE_S = 5e-6
SCHEDULER_VALID = 0x80  # of RLC_CP_SCHEDULERS
PLAIN = (
    "RLC_SRM_CNTL",
    "RLC_SPM_MC_CNTL",
    "RLC_CGTT_MGCG_OVERRIDE",
    "RLC_CGCG_CGLS_CTRL",
)


class Rlc(Model):
    """Run list controller: boots the other engines of the graphics core from what the PSP has put into TMR."""

    ip = "GC"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._bootload = self.claim("RLC_RLCS_BOOTLOAD_STATUS", writable=0)
        self.claim("RLC_CNTL", reset=1)
        self._safe_mode = self.claim("RLC_SAFE_MODE", on_write=self._request_safe_mode)
        self.claim("RLC_GPM_STAT", writable=0, on_read=lambda: 0x6)  # power and clocks on
        self._schedulers = self.claim("RLC_CP_SCHEDULERS")
        for name in PLAIN:
            self.claim(name)

    @property
    def kernel_interface_queue(self) -> tuple[int, int, int] | None:
        """(ME, pipe, queue) that the driver has named as the kernel interface queue (gfx_v11_0_kiq_setting)."""
        scheduler = self._schedulers.value
        return (scheduler >> 5 & 3, scheduler >> 3 & 3, scheduler & 7) if scheduler & SCHEDULER_VALID else None

    def runs(self, fw_type: int) -> bool:
        """Whether an engine that the autoload starts has been given its image and is up."""
        return self.booted and self.card.model(Psp).loaded(fw_type) is not None

    @property
    def booted(self) -> bool:
        """Whether autoload has finished: before that no engine of the graphics core runs."""
        return bool(self._bootload.value >> 31)

    def autoload(self) -> None:
        """Start the engines whose images the PSP has accepted; BOOTLOAD_COMPLETE is set when they are up."""
        status = self._bootload.register.encode(BOOTLOAD_COMPLETE=1, GFX_INIT_DONE=1)

        def finish() -> None:
            self._bootload.value = status

        if not self.card.faults.silent("RLC"):
            self.card.clock.after(AUTOLOAD_S, finish)

    def _request_safe_mode(self, value: int) -> None:
        if value & 1 and not self.card.faults.silent("RLC"):  # CMD: the RLC clears it when it has switched
            self.card.clock.after(SAFE_MODE_S, lambda: self._safe_mode.store(self._safe_mode.value & ~1))
