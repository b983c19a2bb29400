"""GRBM and its neighbours on gfx11: bank selects, status, soft reset, scratch, geometry, and a look into halted waves.

Sources: Linux 6.12 soc21.c (soc21_grbm_select), gfx_v11_0.c (gfx_v11_0_soft_reset, gfx_v11_0_constants_init,
wave_read_ind), gc_11_0_0_default.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from amdrv.emulator.isa.dispatch import ShaderFault
from amdrv.emulator.model import Model

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

ALL_INACTIVE = 0xFFFF
# Indirect SQ registers of a wave (gc_11_0_0_offset.h, ixSQ_WAVE_*).
SQ_WAVE_STATUS, SQ_WAVE_TRAPSTS, SQ_WAVE_PC_LO, SQ_WAVE_PC_HI = 0x102, 0x103, 0x108, 0x109
STATUS_VALID, STATUS_HALT = 1 << 16, 1 << 13  # SQ_WAVE_STATUS.VALID, .HALT
TRAPSTS_MEM_VIOL, TRAPSTS_ILLEGAL_INST = 1 << 8, 1 << 11  # RDNA3 ISA manual, TRAPSTS; the header names the latter


class WaveState(NamedTuple):
    """What SQ_IND shows of a halted wave."""

    pc: int
    memory_violation: bool
    illegal_instruction: bool


class Grbm(Model):
    """Graphics register bus manager."""

    ip = "GC"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._halted: WaveState | None = None
        self.on_cp_reset: Callable[[], None] = lambda: None  # set by the command processor's model
        self._select = self.claim("GRBM_GFX_CNTL")
        self.claim("GRBM_GFX_INDEX", reset=0xE000_0000)
        self.claim("GRBM_CNTL", reset=0x0000_0018)
        self.claim("GRBM_STATUS", writable=0, on_read=self._status)
        self.claim("GRBM_STATUS2", writable=0, on_read=lambda: 0)
        self.claim("GRBM_SOFT_RESET", on_write=self._soft_reset)
        self.claim("CP_STAT", writable=0, on_read=self._cp_stat)
        self.claim("SH_MEM_CONFIG", reset=0xC000, bank=self.selected_vmid)
        self.claim("SH_MEM_BASES", bank=self.selected_vmid)
        for number in range(8):
            self.claim(f"SCRATCH_REG{number}")
        self.claim("GB_ADDR_CONFIG", reset=0x545)
        self.claim("GB_ADDR_CONFIG_READ", reset=0x545, writable=0)
        geometry = card.chip.shader_array
        absent = ALL_INACTIVE & ~((1 << geometry.wgps_per_array) - 1)
        self.claim("CC_GC_SHADER_ARRAY_CONFIG", reset=absent << 16, writable=0)
        self.claim("GC_USER_SHADER_ARRAY_CONFIG")
        arrays = geometry.shader_engines * geometry.arrays_per_engine
        no_array = self.register("CC_GC_SA_UNIT_DISABLE").encode(SA_DISABLE=ALL_INACTIVE & ~((1 << arrays) - 1))
        self.claim("CC_GC_SA_UNIT_DISABLE", reset=no_array, writable=0)
        self.claim("GC_USER_SA_UNIT_DISABLE", reset=no_array)
        self._index = self.claim("SQ_IND_INDEX")
        self.claim("SQ_IND_DATA", writable=0, on_read=self._wave_register)

    def power_on(self) -> None:
        self._halted = None

    def selected_queue(self) -> tuple[int, int, int]:
        """(ME, pipe, queue) that banked CP registers show now."""
        value = self._select.value
        return value >> 2 & 3, value & 3, value >> 8 & 7

    def selected_vmid(self) -> int:
        """VMID that banked SH_MEM registers show now."""
        return self._select.value >> 4 & 15

    def show_halted(self, fault: ShaderFault | None) -> None:
        """Keep a faulted wave halted for SQ_IND, as wave 0 of every shader array; None when waves were reset."""
        self._halted = None
        if fault is not None:
            violation, illegal = fault.kind == "memory violation", fault.kind == "illegal instruction"
            self._halted = WaveState(fault.pc, violation, illegal)

    def _status(self) -> int:
        return self.register("GRBM_STATUS").encode(GUI_ACTIVE=int(self.card.worker.busy), CP_BUSY=self.card.worker.busy)

    def _cp_stat(self) -> int:
        return self.register("CP_STAT").encode(CP_BUSY=1) if self.card.worker.busy else 0

    def _soft_reset(self, value: int) -> None:
        request = self.register("GRBM_SOFT_RESET").decode(value)
        if request.SOFT_RESET_CP or request.SOFT_RESET_CPC:
            self.on_cp_reset()

    def _wave_register(self) -> int:
        index = self._index.register.decode(self._index.value)
        wave = self._halted
        if wave is None or index.WAVE_ID != 0:
            return 0
        traps = (TRAPSTS_MEM_VIOL if wave.memory_violation else 0) | (
            TRAPSTS_ILLEGAL_INST if wave.illegal_instruction else 0
        )
        return {
            SQ_WAVE_STATUS: STATUS_VALID | STATUS_HALT,
            SQ_WAVE_TRAPSTS: traps,
            SQ_WAVE_PC_LO: wave.pc & 0xFFFF_FFFF,
            SQ_WAVE_PC_HI: wave.pc >> 32,
        }.get(index.INDEX, 0)
