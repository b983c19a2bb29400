"""What newer Linux drivers ask of the firmware than the source that the other tables are made from knows.

Sources: Linux 6.17 include/mes_v12_api_def.h (MESAPI__INV_TLBS; used by mes_v12_0_inv_tlbs_pasid), amdgpu/psp_gfx_if.h
(psp_gfx_uresp_fw_reserve_info; used by psp_update_fw_reservation on PSP 14.0.2 and 14.0.3).
"""

from __future__ import annotations

import enum

from amdrv.facts.layout import StructLayout, dword_members
from amdrv.registers.fields import BitLayout, Field

MES_INVALIDATE_TLBS = 20  # opcode of a frame

# union MESAPI__INV_TLBS
INVALIDATE_TLBS = BitLayout("INVALIDATE_TLBS", 64, {
    "header_type": Field(0, 4), "header_opcode": Field(4, 8), "header_dwsize": Field(12, 8),
    "api_status_api_completion_fence_addr": Field(64, 64), "api_status_api_completion_fence_value": Field(128, 64),
    "inv_sel": Field(192, 8), "flush_type": Field(200, 8), "inv_sel_id": Field(208, 16), "hub_id": Field(224, 32),
    "inv_range_va_start": Field(256, 64), "inv_range_size": Field(320, 64),
})  # fmt: skip


class InvalidateBy(enum.IntEnum):
    """inv_sel: what inv_sel_id is."""

    PASID = 0
    VMID = 1


class ReservationQuery(enum.IntEnum):
    """cmd_id of a PSP command buffer: where in video memory the firmware keeps what is its own."""

    FW_RESERV_ADDR = 0x50
    FW_RESERV_EXT_ADDR = 0x51


# struct psp_gfx_resp with the answer to a reservation query
RESERVATION = StructLayout("RESERVATION", 96, dword_members({
    "status": 0, "reserve_base_address_hi": 16, "reserve_base_address_lo": 17, "reserve_size": 18,
}))  # fmt: skip
