"""Controls of the graphics core that a driver sets or reads on its way and that change nothing which shows here.

Power and clock gating, chicken bits, GDS (which gfx11 does not have: sizes of zero), debug and watch registers, status
words that say "nothing is stalled", what a driver writes down of a core that hangs. Each is named, so that what is not
in the list shows as unmodelled. SQ_CMD, which kills waves, and the scheduler's time counter do something.
Sources: Linux 6.12 gfx_v11_0.c (gfx_v11_0_constants_init, gfx_v11_0_init_csb, gfx_v11_0_init_gds_vmid,
gfx_v11_0_config_gfx_rs64, gfx_v11_0_ring_soft_recovery, gfx_v11_0_ip_dump), soc21.c (soc21_read_register),
amdgpu_amdkfd_gfx_v11.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model
from amdrv.emulator.models.mec_11_0 import Mec

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

VMIDS = 16
SQ_CMD_KILL = 3
PLAIN = (
    "CGTT_GS_NGG_CLK_CTRL",
    "CP_GFX_CNTL",
    "CP_GFX_INDEX_MUTEX",
    "CP_MEC_CNTL",
    "CP_MEC_ISA_CNTL",
    "CP_ME_PRGRM_CNTR_START",
    "CP_ME_PRGRM_CNTR_START_HI",
    "CP_PFP_PRGRM_CNTR_START",
    "CP_PFP_PRGRM_CNTR_START_HI",
    "CP_PQ_WPTR_POLL_CNTL1",
    "CP_SOFT_RESET_CNTL",
    "CPC_PSP_DEBUG",
    "CPG_PSP_DEBUG",
    "CPF_GCR_CNTL",
    "DB_RING_CONTROL",
    "GC_USER_RB_BACKEND_DISABLE",
    "CGTS_USER_TCC_DISABLE",
    "GDS_COMPUTE_MAX_WAVE_ID",
    "GFX_IMU_SCRATCH_0",
    "GL1C_UTCL0_CNTL1",
    "GL2C_CTRL3",
    "PA_CL_ENHANCE",
    "PA_SC_ENHANCE_3",
    "RLC_CGCG_CGLS_CTRL_3D",
    "RLC_CSIB_ADDR_HI",
    "RLC_CSIB_ADDR_LO",
    "RLC_CSIB_LENGTH",
    "RLC_PG_CNTL",
    "RLC_PG_DELAY_3",
    "RLC_SPARE_INT_0",
    "SPI_CONFIG_CNTL",
    "SQG_CONFIG",
    "TA_CNTL2",
    "TA_CNTL_AUX",
    "TCP_CNTL2",
    *(f"TCP_WATCH{number}_{part}" for number in range(4) for part in ("ADDR_H", "ADDR_L", "CNTL")),
)
PER_VMID = ("SPI_GDBG_PER_VMID_CNTL", "SQ_SHADER_TBA_LO", "SQ_SHADER_TBA_HI", "SQ_SHADER_TMA_LO", "SQ_SHADER_TMA_HI")
# The kernel reads them when a job has timed out (gfx_v11_0_ip_dump): no more is said than that nothing is there.
DUMPED = (
    "CPC_UTCL1_STATUS",
    "CPF_UTCL1_STATUS",
    "CPG_UTCL1_STATUS",
    "CP_BUSY_STAT",
    "CP_CPC_BUSY_STAT2",
    "CP_CPF_BUSY_STAT2",
    "CP_GFX_ERROR",
    "CP_GFX_HPD_STATUS0",
    *(f"CP_IB{level}_{part}" for level in (1, 2) for part in ("BASE_HI", "BASE_LO", "BUFSZ", "CMD_BUFSZ")),
    "CP_MEC1_INSTR_PNTR",
    "CP_MEC_ME1_HEADER_DUMP",
    "CP_MES_DEBUG_INTERRUPT_INSTR_PNTR",
    "CP_MES_HEADER_DUMP",
    "CP_MES_INSTR_PNTR",
    "CP_ME_HEADER_DUMP",
    "CP_ME_INSTR_PNTR",
    "CP_PFP_HEADER_DUMP",
    "CP_PFP_INSTR_PNTR",
    "GDS_PROTECTION_FAULT",
    "GDS_VM_PROTECTION_FAULT",
    "GRBM_STATUS3",
    "IA_UTCL1_STATUS",
    "IA_UTCL1_STATUS_2",
    "PA_CL_CNTL_STATUS",
    "RLC_UTCL1_STATUS",
    "RMI_UTCL1_STATUS",
    "SQC_CACHES",
    "SQG_STATUS",
    "WD_UTCL1_STATUS",
)
QUIET = (
    "CC_RB_BACKEND_DISABLE",
    "CGTS_TCC_DISABLE",
    "CP_CPC_BUSY_STAT",
    "CP_CPC_STALLED_STAT1",
    "CP_CPF_BUSY_STAT",
    "CP_CPF_STALLED_STAT1",
    "CP_STALLED_STAT1",
    "CP_STALLED_STAT2",
    "CP_STALLED_STAT3",
    *(f"GRBM_STATUS_SE{engine}" for engine in range(6)),
    *DUMPED,
)


class GfxControls(Model):
    """See the module."""

    ip = "GC"
    plain: tuple[str, ...] = PLAIN
    quiet: tuple[str, ...] = QUIET
    has_gds = True  # its registers, that is

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._mec = card.model(Mec)
        block = card.registers.block("GC", instance)
        for name in self.plain:
            self.claim(name, reset=block[name].reset_value)
        for name in self.quiet:
            self.claim(name, writable=0)
        for name in PER_VMID:
            self.claim(name, bank=self._mec.grbm.selected_vmid)
        for vmid in range(VMIDS if self.has_gds else 0):
            for name in (f"GDS_VMID{vmid}_BASE", f"GDS_VMID{vmid}_SIZE", f"GDS_GWS_VMID{vmid}", f"GDS_OA_VMID{vmid}"):
                self.claim(name)
        self.claim("CP_CPC_STATUS", writable=0, on_read=self._cpc_status)
        self.claim("CP_CPF_STATUS", writable=0, on_read=self._cpf_status)
        self.claim("SQ_CMD", on_write=self._command)
        self.claim("SQ_THREAD_TRACE_CTRL", on_write=self._trace_control)
        self.claim("CP_MES_MTIME_LO", writable=0, on_read=lambda: card.realtime() & 0xFFFF_FFFF)
        self.claim("CP_MES_MTIME_HI", writable=0, on_read=lambda: card.realtime() >> 32)

    def _cpc_status(self) -> int:
        busy = self._mec.busy()
        return self.register("CP_CPC_STATUS").encode(MEC1_BUSY=busy, CPC_BUSY=busy)

    def _cpf_status(self) -> int:
        return self.register("CP_CPF_STATUS").encode(CPF_BUSY=self._mec.busy())

    def _trace_control(self, value: int) -> None:
        """Thread traces are not made; that none is running may be made sure of (raven's rig: Gfx.untrace)."""
        trace = self.register("SQ_THREAD_TRACE_CTRL")
        if trace.decode(value).MODE:
            self.card.space.count_unmodelled(trace.address)

    def _command(self, value: int) -> None:
        """Waves of a VMID are killed; their queues go on with the next packet."""
        command = self.register("SQ_CMD").decode(value)
        if command.CMD == SQ_CMD_KILL:
            self._mec.kill_waves(command.VM_ID if command.CHECK_VMID else None)
