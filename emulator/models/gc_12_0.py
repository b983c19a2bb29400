"""The graphics core of gfx12: where its engines differ from gfx11's.

One compute engine with two pipes, one graphics pipe, other descriptors, no GDS, HALT and the trap causes of a wave in
other registers. The scheduler is in mes_12_0.py.
Sources: Linux 6.12 gfx_v12_0.c, gc_12_0_0_sh_mask.h (SQ_WAVE_*).
"""

from __future__ import annotations

from amdrv.emulator.isa.launch import TTMP7, TTMP9
from amdrv.emulator.models.cp_gfx_11_0 import CpGfx
from amdrv.emulator.models.gfx_controls_11_0 import PLAIN, QUIET, GfxControls
from amdrv.emulator.models.grbm_11_0 import SQIND_SGPRS, STATUS_VALID, Grbm, WaveState
from amdrv.emulator.models.mec_11_0 import Mec
from amdrv.facts.mqd_v12 import V12_COMPUTE_MQD, V12_GFX_MQD

SQ_WAVE_STATUS, SQ_WAVE_STATE_PRIV, SQ_WAVE_EXCP_FLAG_PRIV = 0x102, 0x104, 0x111
SQ_WAVE_PC_LO, SQ_WAVE_PC_HI = 0x140, 0x141
STATE_PRIV_HALT = 1 << 14
EXCP_MEMVIOL, EXCP_ILLEGAL_INST = 1 << 4, 1 << 6
ABSENT = frozenset(
    {
        "CP_GFX_CNTL",
        "CP_MEC_ISA_CNTL",
        "CGTS_USER_TCC_DISABLE",
        "CGTS_TCC_DISABLE",
        "CP_MEC1_INSTR_PNTR",
        "CP_MES_DEBUG_INTERRUPT_INSTR_PNTR",
        "GDS_PROTECTION_FAULT",
        "GDS_VM_PROTECTION_FAULT",
        "RLC_UTCL1_STATUS",
        "GFX_IMU_SCRATCH_0",
        "GRBM_STATUS_SE4",
        "GRBM_STATUS_SE5",
    }
)
DUMPED = ("CP_GFX_RS64_INSTR_PNTR0", "CP_GFX_RS64_INSTR_PNTR1", "CP_MEC_RS64_INSTR_PNTR")  # gfx_v12_0_ip_dump
ADDED = ("CB_HW_CONTROL_1", "DB_MEM_CONFIG", "GL2C_CTRL5")  # gfx_v12_0.c: golden settings


class Grbm12(Grbm):
    """Graphics register bus manager."""

    address_config = 0x0820_0545  # a Navi48's: GCACONFIG of umr's test/kat/rs_navi48_test1.txt

    def state_registers(self, wave: WaveState) -> dict[int, int]:
        causes = EXCP_MEMVIOL * wave.memory_violation | EXCP_ILLEGAL_INST * wave.illegal_instruction
        x, y, z = wave.workgroup or (0, 0, 0)
        trap_registers = {SQIND_SGPRS + TTMP9: x, SQIND_SGPRS + TTMP7: y & 0xFFFF | z << 16} if wave.workgroup else {}
        return {
            SQ_WAVE_STATUS: STATUS_VALID,
            SQ_WAVE_STATE_PRIV: STATE_PRIV_HALT * wave.halted,
            SQ_WAVE_EXCP_FLAG_PRIV: causes,
            SQ_WAVE_PC_LO: wave.pc & 0xFFFF_FFFF,
            SQ_WAVE_PC_HI: wave.pc >> 32,
            **trap_registers,
        }


class Mec12(Mec):
    """ME1 with two pipes."""

    pipes = 2
    mqd = V12_COMPUTE_MQD


class CpGfx12(CpGfx):
    """ME0 with one pipe."""

    pipes = 1
    mqd = V12_GFX_MQD


class GfxControls12(GfxControls):
    """Controls without an effect that shows."""

    plain = (*(name for name in PLAIN if name not in ABSENT), *ADDED)
    quiet = (*(name for name in QUIET if name not in ABSENT), *DUMPED)
    has_gds = False
