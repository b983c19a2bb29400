"""Waves that stand still on the shader engines, looked at one register at a time.

Source: Linux 6.12 gfx_v11_0.c (wave_read_ind, gfx_v11_0_read_wave_data, gfx_v11_0_select_se_sh; from gfx11 on the SIMD
is part of the instance that GRBM_GFX_INDEX selects), gfx_v12_0.c; gc_11_0_0 and gc_12_0_0 SQ_WAVE_* (register indices
and status bits). Workgroup ids in trap registers: ROCdbgapi architecture.cpp (group_ids of gfx9 to gfx11 and of gfx12),
LLVM AMDGPUUsage ("Architected SGPRs" of gfx12).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from amdrv.discovery import GcInfo
from amdrv.mmio import Mmio


@dataclass(frozen=True, slots=True)
class WaveRegisters:
    """Where a generation shows what, as indirect registers of a wave."""

    pc_lo: int
    pc_hi: int
    halted: tuple[tuple[int, int], ...]  # (register, bits): any of them set in a wave that stands still
    workgroup: tuple[tuple[int, int, int], ...]  # (scalar register, shift, mask) of a workgroup's id in x, y and z
    status: int = 0x102  # SQ_WAVE_STATUS
    valid: int = 1 << 16  # of it


STATUS_FATAL_HALT = 1 << 23
TTMP0 = 108  # operand code
# By the version of GC. gfx12 has HALT in SQ_WAVE_STATE_PRIV.
DESIGNS: dict[tuple[int, int, int], WaveRegisters] = {
    (11, 0, 0): WaveRegisters(
        0x108,
        0x109,
        ((0x102, 1 << 13 | STATUS_FATAL_HALT),),
        tuple((TTMP0 + number, 0, 0xFFFF_FFFF) for number in (8, 9, 10)),
    ),
    (12, 0, 1): WaveRegisters(
        0x140,
        0x141,
        ((0x102, STATUS_FATAL_HALT), (0x104, 1 << 14)),
        ((TTMP0 + 9, 0, 0xFFFF_FFFF), (TTMP0 + 7, 0, 0xFFFF), (TTMP0 + 7, 16, 0xFFFF)),
    ),
}
GFX11 = DESIGNS[11, 0, 0]
# soc21_enum.h SQIND_WAVE_*_OFFSET: scalar registers by operand code (ixSQ_WAVE_M0 and EXEC_LO are such), vector ones.
WAVE_SGPRS, WAVE_VGPRS = 0x200, 0x400
EXEC_LO, EXEC_HI = 126, 127
CUS_PER_WGP = 2
SIMDS_PER_WGP = 4
WGP_SHIFT = 2  # instance index: WGP, then two bits of SIMD


@dataclass(frozen=True, slots=True)
class HaltedWave:
    """Where a wave stands, on the chip and in its program, and what it holds there until waves are reset."""

    engine: int
    array: int
    wgp: int
    simd: int
    wave: int
    pc: int
    window: Waves = field(repr=False, compare=False)

    def scalar(self, code: int) -> int:
        """A scalar register by its operand code: an SGPR, VCC (106), M0 (125), EXEC (126)."""
        return self.window.read(self, WAVE_SGPRS + code)

    def vector(self, register: int, lane: int) -> int:
        """One lane of a VGPR."""
        return self.window.read(self, WAVE_VGPRS + register, lane)

    @property
    def workgroup(self) -> tuple[int, int, int]:
        """The id of its workgroup; on gfx11 only if waves are started with their trap registers filled in."""
        x, y, z = (self.scalar(code) >> shift & mask for code, shift, mask in self.window.workgroup_registers)
        return x, y, z

    @property
    def exec_mask(self) -> int:
        """The lanes that take part, as 64 bits; of a wave32 only the low half means something."""
        return self.scalar(EXEC_HI) << 32 | self.scalar(EXEC_LO)

    def __str__(self) -> str:
        place = f"shader engine {self.engine}, array {self.array}, WGP {self.wgp}, SIMD {self.simd}"
        return f"wave {self.wave} of {place} is at {self.pc:#x}"


class Waves:
    """The window of one card onto its waves."""

    def __init__(self, mmio: Mmio, design: WaveRegisters = GFX11) -> None:
        self._mmio = mmio
        self._regs = mmio.registers.block("GC")
        self._design = design

    @property
    def workgroup_registers(self) -> tuple[tuple[int, int, int], ...]:
        """Where a wave has the id of its workgroup; see WaveRegisters."""
        return self._design.workgroup

    def find_halted(self, gc: GcInfo, *, or_running: bool = False) -> HaltedWave | None:
        """The first wave that an error halted; None when none is. Leaves register writes broadcast to every engine.

        Two accesses for each wave slot that is looked at: some thousand when no wave is halted. With ``or_running`` a
        wave that runs counts, too: its PC is where it was a moment ago.
        """
        wgps = gc.cus_per_array // CUS_PER_WGP
        design = self._design
        with self._broadcast_again():
            for engine, array, wgp, simd in itertools.product(
                range(gc.shader_engines), range(gc.arrays_per_engine), range(wgps), range(SIMDS_PER_WGP)
            ):
                self._select(engine, array, wgp, simd)
                for wave in range(gc.max_waves_per_simd):
                    status = self._read(wave, design.status)
                    if status & design.valid and (or_running or self._is_halted(wave, status)):
                        pc = self._read(wave, design.pc_hi) << 32 | self._read(wave, design.pc_lo)
                        return HaltedWave(engine, array, wgp, simd, wave, pc, self)
            return None

    def _is_halted(self, wave: int, status: int) -> bool:
        known = {self._design.status: status}
        return any((known.get(index) or self._read(wave, index)) & bits for index, bits in self._design.halted)

    def read(self, wave: HaltedWave, index: int, lane: int = 0) -> int:
        """One indirect register of a wave. Leaves register writes broadcast to every engine."""
        with self._broadcast_again():
            self._select(wave.engine, wave.array, wave.wgp, wave.simd)
            return self._read(wave.wave, index, lane)

    def _select(self, engine: int, array: int, wgp: int, simd: int) -> None:
        instance = wgp << WGP_SHIFT | simd
        self._mmio.write(self._regs.GRBM_GFX_INDEX, INSTANCE_INDEX=instance, SA_INDEX=array, SE_INDEX=engine)

    @contextmanager
    def _broadcast_again(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._mmio.write(
                self._regs.GRBM_GFX_INDEX, SE_BROADCAST_WRITES=1, SA_BROADCAST_WRITES=1, INSTANCE_BROADCAST_WRITES=1
            )

    def _read(self, wave: int, index: int, lane: int = 0) -> int:
        self._mmio.write(self._regs.SQ_IND_INDEX, WAVE_ID=wave, WORKITEM_ID=lane, INDEX=index)
        return int(self._mmio.read(self._regs.SQ_IND_DATA))
