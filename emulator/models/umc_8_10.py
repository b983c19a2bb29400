"""UMC 8.10: error counters of the memory channels, as far as a driver sets them up. Nothing ever counts.

Source: Linux 6.12 umc_v8_10.c (umc_v8_10_err_cnt_init_per_channel, get_umc_v8_10_reg_offset), umc_8_10_0_offset.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model
from amdrv.registers import Register
from amdrv.registers.table import RegisterTable

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

SEGMENT = 2
COUNTERS = {"GeccErrCntSel": 0x328, "GeccErrCnt": 0x329}  # dwords from the segment's base
NODE_DWORDS, CONTROLLER_DWORDS, CHANNEL_DWORDS = 0x80_0000, 0x4000, 0x400
CONTROLLERS, CHANNELS = 2, 2  # of a node


class Umc(Model):
    """One node of memory controllers; Linux counts all nodes from the base address of the first."""

    ip = "UMC"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        base = card.chip.bases["UMC"][0][SEGMENT]
        for controller in range(CONTROLLERS):
            for channel in range(CHANNELS):
                first = base + instance * NODE_DWORDS + controller * CONTROLLER_DWORDS + channel * CHANNEL_DWORDS
                for name, offset in COUNTERS.items():
                    full = f"UMCCH{controller}_{channel}_{name}"
                    table = RegisterTable("umc", f"{full} {SEGMENT} {offset:x}")
                    card.space.claim("Umc", Register("UMC", instance, full, first + offset, table))
