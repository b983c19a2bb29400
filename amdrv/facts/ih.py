"""Interrupt ring entries: what the interrupt handler (OSSSYS) writes for each interrupt. Ids are in ih_ids.

Source: Linux 6.12 amdgpu_ih.c (amdgpu_ih_decode_iv_helper), amdkfd/soc15_int.h, kfd_int_process_v11.c, gmc_v11_0.c
(gmc_v11_0_process_interrupt).
"""

from __future__ import annotations

import enum

from amdrv.facts.ih_ids import Client as Client
from amdrv.facts.ih_ids import GfxSource as GfxSource
from amdrv.facts.ih_ids import VmcSource as VmcSource
from amdrv.registers.fields import BitLayout, Field

ENTRY_BYTES = 32
ENTRY = BitLayout(
    "interrupt entry",
    8,
    {
        "CLIENT_ID": Field(0, 8),
        "SOURCE_ID": Field(8, 8),
        "RING_ID": Field(16, 8),  # for a CP client: pipe, ME << 2, queue << 4
        "VMID": Field(24, 4),
        "VMID_SOURCE": Field(31),  # 0: graphics hub, 1: MMHUB
        "TIMESTAMP": Field(32, 48),
        "TIMESTAMP_SOURCE": Field(95),
        "PASID": Field(96, 16),
        "NODE_ID": Field(112, 8),
        "DATA0": Field(128, 32),
        "DATA1": Field(160, 32),
        "DATA2": Field(192, 32),
        "DATA3": Field(224, 32),
        "DATA01": Field(128, 64),
    },
)

# DATA01 of a page fault (source 0 of GFX or VMC): the page of the address, then how it was touched.
PAGE_FAULT_DATA: dict[str, Field] = {
    "PAGE": Field(0, 36),  # virtual address bits 47:12
    "WRITE": Field(37),
    "RETRY": Field(39),
}


class SqEncoding(enum.IntEnum):
    """ENCODING of DATA01 when the source is SQ_INTERRUPT_ID: who sent it."""

    AUTO = 0
    WAVE = 1  # s_sendmsg
    ERROR = 2


class SqError(enum.IntEnum):
    """TYPE of SQ_ERROR_DATA."""

    EDC_FUE = 0
    ILLEGAL_INSTRUCTION = 1
    MEMORY_VIOLATION = 2
    EDC_FED = 3


_SQ_PLACE = {
    "SH_ID": Field(25),
    "PRIV": Field(26),  # sent from within the trap handler
    "WAVE_ID": Field(27, 5),
    "SIMD_ID": Field(32, 2),
    "WGP_ID": Field(34, 4),
    "ENCODING": Field(38, 2),
}
SQ_WAVE_DATA: dict[str, Field] = {"DATA": Field(0, 24), **_SQ_PLACE}  # M0 of s_sendmsg
SQ_ERROR_DATA: dict[str, Field] = {"DETAIL": Field(0, 21), "TYPE": Field(21, 4), **_SQ_PLACE}
SQ_AUTO_DATA: dict[str, Field] = {
    "THREAD_TRACE": Field(0),
    "WLT": Field(1),
    "THREAD_TRACE_BUF_FULL": Field(2),
    "REG_TIMESTAMP": Field(3),
    "CMD_TIMESTAMP": Field(4),
    "HOST_CMD_OVERFLOW": Field(5),
    "HOST_REG_OVERFLOW": Field(6),
    "IMMED_OVERFLOW": Field(7),
    "THREAD_TRACE_UTC_ERROR": Field(8),
    "ENCODING": Field(38, 2),
}
