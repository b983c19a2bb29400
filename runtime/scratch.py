"""Scratch: the memory behind private arrays and spilled registers of waves.

Each wave that runs needs its own piece. The hardware hands pieces out per shader engine and holds back waves when none
is left, so fewer pieces than waves cost speed, never correctness, as long as one workgroup fits.

Source: gc_11_0_0 and gc_12_0_0 COMPUTE_TMPRING_SIZE (WAVES 12 bits, counted per shader engine; WAVESIZE 15 bits of 256
bytes on gfx11, 18 on gfx12; tinygrad 0.14 runtime/ops_amd.py divides the waves by the shader engines in the same way).
"""

from __future__ import annotations

from dataclasses import dataclass

from amdrv.errors import InvalidArgument, OutOfMemory

WAVE_SIZE_UNIT = 256
WAVE_SIZE_UNITS_MAX = (1 << 15) - 1  # on gfx11
WAVES_MAX = (1 << 12) - 1
BUDGET_BYTES = 256 << 20  # enough pieces for every wave are only provided within this
WORKGROUP_ITEMS_MAX = 1024
# Added per work-item for kernels whose stack the compiler could not size: what LLVM itself assumes in code objects
# before version 5 (AMDGPUResourceUsageAnalysis.cpp: AssumedStackSizeForExternalCall).
DYNAMIC_STACK_BYTES = 16384


@dataclass(frozen=True, slots=True)
class ScratchPlan:
    """How much scratch, and how it is divided."""

    wave_bytes: int
    waves_per_engine: int
    engines: int

    @property
    def size_bytes(self) -> int:
        """All pieces together."""
        return self.wave_bytes * self.waves_per_engine * self.engines

    @property
    def wave_units(self) -> int:
        """WAVESIZE of COMPUTE_TMPRING_SIZE."""
        return self.wave_bytes // WAVE_SIZE_UNIT


def plan(
    kernel: str,
    item_bytes: int,
    lanes: int,
    *,
    engines: int,
    slots_per_engine: int,
    budget_bytes: int = BUDGET_BYTES,
    wave_units_max: int = WAVE_SIZE_UNITS_MAX,
) -> ScratchPlan:
    """Scratch for waves of ``lanes`` work-items with ``item_bytes`` each.

    ``slots_per_engine`` is how many waves with scratch the engine can have at once, ``wave_units_max`` the most that
    WAVESIZE can say. Raises InvalidArgument when the hardware cannot give a wave that much.
    """
    units = -(-item_bytes * lanes // WAVE_SIZE_UNIT)
    if units > wave_units_max:
        limit = wave_units_max * WAVE_SIZE_UNIT // lanes
        raise InvalidArgument(
            f"kernel {kernel!r} needs {item_bytes} bytes of scratch for each work-item; the hardware gives {limit}"
        )
    wave_bytes = units * WAVE_SIZE_UNIT
    least = WORKGROUP_ITEMS_MAX // lanes
    affordable = budget_bytes // (wave_bytes * engines)
    waves = max(least, min(slots_per_engine, affordable, WAVES_MAX))
    return ScratchPlan(wave_bytes, waves, engines)


def smaller(current: ScratchPlan, error: OutOfMemory) -> ScratchPlan:
    """The plan to try when memory for ``current`` was not there; raises ``error`` when no smaller one works."""
    least = WORKGROUP_ITEMS_MAX // 32
    if current.waves_per_engine <= least:
        raise error
    return ScratchPlan(current.wave_bytes, max(least, current.waves_per_engine // 4), current.engines)
