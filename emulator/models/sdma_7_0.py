"""SDMA 7.0: as 6.0, but for the engines being blocks of their own, the descriptor, copies of windows, and how a packet
writes a register.

The other packets are those of 6.0: Linux 6.12 sdma_v7_0.c includes sdma_v6_0_0_pkt_open.h.
"""

from __future__ import annotations

from amdrv.emulator.models.sdma_6_0 import Sdma
from amdrv.emulator.sdma.layouts import SDMA_7_0
from amdrv.facts.mqd_v12 import V12_SDMA_MQD


class Sdma7(Sdma):
    """The first copy engine."""

    mqd = V12_SDMA_MQD
    trace_language = "sdma7"
    copies = SDMA_7_0
    writes_whole_registers = True

    @property
    def doorbell_block(self) -> str:
        return "SDMA0"


class Sdma7Second(Sdma7):
    """The second copy engine; one range of doorbells leads to both."""

    ip = "SDMA1"

    @property
    def number(self) -> int:
        return 1
