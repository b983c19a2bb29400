"""GRBM and its neighbours on gfx11: bank selects, status, soft reset, scratch, geometry, and a look into halted waves.

Sources: Linux 6.12 soc21.c (soc21_grbm_select), gfx_v11_0.c (gfx_v11_0_soft_reset, gfx_v11_0_constants_init,
wave_read_ind), gc_11_0_0_default.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from amdrv.emulator.isa.dispatch import ShaderFault, WaveRegisters
from amdrv.emulator.model import Model

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

ALL_INACTIVE = 0xFFFF
SOFT_RESET_SDMA0 = 23  # bit of GRBM_SOFT_RESET; SDMA1 has the next
# Indirect SQ registers of a wave (gc_11_0_0_offset.h, ixSQ_WAVE_*).
SQ_WAVE_STATUS, SQ_WAVE_TRAPSTS, SQ_WAVE_PC_LO, SQ_WAVE_PC_HI = 0x102, 0x103, 0x108, 0x109
GB_ADDR_CONFIG = 0x545  # a Navi31's, as its driver reports it
# Where its registers begin (soc21_enum.h): scalar ones by operand code, so that M0 is 0x27d and EXEC 0x27e and 0x27f.
SQIND_SGPRS, SQIND_VGPRS = 0x200, 0x400
TRAP_WORKGROUP = (SQIND_SGPRS + 116, SQIND_SGPRS + 117, SQIND_SGPRS + 118)  # TTMP8..10, ROCdbgapi architecture.cpp
STATUS_VALID, STATUS_HALT = 1 << 16, 1 << 13  # SQ_WAVE_STATUS.VALID, .HALT
TRAPSTS_MEM_VIOL, TRAPSTS_ILLEGAL_INST = 1 << 8, 1 << 11  # RDNA3 ISA manual, TRAPSTS; the header names the latter


class WaveState(NamedTuple):
    """What SQ_IND shows of a wave that is halted, or of one that runs."""

    pc: int
    memory_violation: bool
    illegal_instruction: bool
    registers: WaveRegisters | None  # None: they read as zero
    halted: bool = True
    workgroup: tuple[int, int, int] | None = None

    def register(self, index: int, lane: int) -> int:
        """An SGPR, or a lane of a VGPR, by its SQ_IND index."""
        held = self.registers
        if held is None:
            return 0
        if SQIND_SGPRS <= index < SQIND_SGPRS + len(held.scalars):
            return int(held.scalars[index - SQIND_SGPRS])
        number = index - SQIND_VGPRS
        inside = 0 <= number < held.vectors.shape[0] and lane < held.vectors.shape[1]
        return int(held.vectors[number, lane]) if inside else 0


class Grbm(Model):
    """Graphics register bus manager."""

    ip = "GC"
    address_config = GB_ADDR_CONFIG

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._halted: WaveState | None = None
        # Set by the models of the engines: what a soft reset of the command processor does, and who may be at work.
        self.on_cp_reset: list[Callable[[], None]] = []
        self.on_sdma_reset: dict[int, Callable[[], None]] = {}  # by instance
        self.busy_parts: list[Callable[[], bool]] = []
        self.sdma_busy_parts: list[Callable[[], bool]] = []
        self._select = self.claim("GRBM_GFX_CNTL")
        self._instance = self.claim("GRBM_GFX_INDEX", reset=0xE000_0000)
        self.claim("GRBM_CNTL", reset=0x0000_0018)
        self.claim("GRBM_STATUS", writable=0, on_read=self._status)
        self.claim("GRBM_STATUS2", writable=0, on_read=self._status2)
        self.claim("GRBM_SOFT_RESET", on_write=self._soft_reset)
        self.claim("CP_STAT", writable=0, on_read=self._cp_stat)
        self.claim("SH_MEM_CONFIG", reset=0xC000, bank=self.selected_vmid)
        self.claim("SH_MEM_BASES", bank=self.selected_vmid)
        for number in range(8):
            self.claim(f"SCRATCH_REG{number}")
        self.claim("GB_ADDR_CONFIG", reset=self.address_config)
        self.claim("GB_ADDR_CONFIG_READ", reset=self.address_config, writable=0)
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

    def first_wgp_selected(self) -> bool:
        """Whether per-instance registers show the first work group processor now; a broadcast reads that one, too."""
        index = self._instance.register.decode(self._instance.value)
        return not (
            (index.SE_INDEX and not index.SE_BROADCAST_WRITES)
            or (index.SA_INDEX and not index.SA_BROADCAST_WRITES)
            or (index.INSTANCE_INDEX and not index.INSTANCE_BROADCAST_WRITES)
        )

    def selected_vmid(self) -> int:
        """VMID that banked SH_MEM registers show now."""
        return self._select.value >> 4 & 15

    def show_halted(self, fault: ShaderFault | None) -> None:
        """Keep a faulted wave halted for SQ_IND, as wave 0 of every shader array; None when waves were reset."""
        self._halted = None
        if fault is not None:
            violation = fault.kind in ("memory violation", "misaligned access")
            illegal = fault.kind == "illegal instruction"
            self._halted = WaveState(fault.pc, violation, illegal, fault.registers, workgroup=fault.workgroup)

    def _status(self) -> int:
        busy = self._cp_busy()
        return self.register("GRBM_STATUS").encode(GUI_ACTIVE=busy, CP_BUSY=busy)

    def _status2(self) -> int:
        busy = self._cp_busy()
        sdma = any(part() for part in self.sdma_busy_parts)
        return self.register("GRBM_STATUS2").encode(SDMA_BUSY=sdma, CPF_BUSY=busy, CPC_BUSY=busy)

    def _cp_busy(self) -> bool:
        return any(part() for part in self.busy_parts)

    def _cp_stat(self) -> int:
        return self.register("CP_STAT").encode(CP_BUSY=1) if self._cp_busy() else 0

    def _soft_reset(self, value: int) -> None:
        request = self.register("GRBM_SOFT_RESET").decode(value)
        if request.SOFT_RESET_CP or request.SOFT_RESET_CPC:
            for reset in self.on_cp_reset:
                reset()
        for instance, reset in self.on_sdma_reset.items():
            if value >> (SOFT_RESET_SDMA0 + instance) & 1:
                reset()

    def _wave_register(self) -> int:
        index = self._index.register.decode(self._index.value)
        wave = None if index.WAVE_ID else self._halted or self._running()
        if wave is None:
            return 0
        return self.state_registers(wave).get(index.INDEX, wave.register(index.INDEX, index.WORKITEM_ID))

    def _running(self) -> WaveState | None:
        """A wave of the dispatch under way; what it holds while it runs reads as zero."""
        wave = self.card.running_wave()
        return None if wave is None else WaveState(wave.pc, False, False, None, halted=False, workgroup=wave.workgroup)

    def state_registers(self, wave: WaveState) -> dict[int, int]:
        """What SQ_IND shows beside the wave's SGPRs and VGPRs, by index."""
        traps = (TRAPSTS_MEM_VIOL if wave.memory_violation else 0) | (
            TRAPSTS_ILLEGAL_INST if wave.illegal_instruction else 0
        )
        return {
            SQ_WAVE_STATUS: STATUS_VALID | STATUS_HALT * wave.halted,
            SQ_WAVE_TRAPSTS: traps,
            SQ_WAVE_PC_LO: wave.pc & 0xFFFF_FFFF,
            SQ_WAVE_PC_HI: wave.pc >> 32,
            **dict(zip(TRAP_WORKGROUP, wave.workgroup or (), strict=False)),
        }
