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
        self.claim("CGTT_ROM_CLK_CTRL0")  # clock gating of the ROM controller: smuio_v13_0_update_rom_clock_gating
        for n in range(SCRATCH_COUNT):
            self.claim(f"SCRATCH_REGISTER{n}")
        # The board's serial ROM, a dword a read: Linux 6.12 soc15.c: soc15_read_bios_from_rom.
        self._rom_index = self.claim("ROM_INDEX", writable=0x1FF_FFFC)
        self.claim("ROM_DATA", writable=0, on_read=self._read_rom)

    def _read_rom(self) -> int:
        place = self._rom_index.value
        self._rom_index.value = place + 4 & self._rom_index.writable
        return int.from_bytes(self.card.rom[place : place + 4].ljust(4, b"\xff"), "little")
