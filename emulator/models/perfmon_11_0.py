"""Performance counters of gfx11: cycles, busy cycles, waves, instructions.

Waves have no place on the chip here: counters that exist per work group processor count all of them in the first one.
Cycles run at the highest graphics clock. Sources: Linux 6.12 soc21_enum.h (CP_PERFMON_STATE, GRBM_PERF_SEL,
SQ_PERF_SEL, CPC_PERFCOUNT_SEL), gc_11_0_0_sh_mask.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.model import Model
from amdrv.emulator.models.grbm_11_0 import Grbm
from amdrv.emulator.models.mec_11_0 import Mec

if TYPE_CHECKING:
    from amdrv.emulator.register_space import Slot
    from amdrv.emulator.shell import Card

STATE_RESET, STATE_COUNT, STATE_STOP = 0, 1, 2
CYCLES, BUSY, WAVES, INSTRUCTIONS = "cycles", "busy cycles", "waves", "instructions"
# What PERF_SEL means in each block; any other selection counts nothing.
SELECTIONS: Mapping[str, Mapping[int, str]] = {
    "GRBM": {0: CYCLES, 2: BUSY, 3: BUSY},
    "CPC": {0: CYCLES, 25: BUSY},
    "SQ": {2: CYCLES, 3: BUSY, 4: WAVES, 48: INSTRUCTIONS},
}
COUNTERS = {"GRBM": 2, "CPC": 2, "SQ": 8}


class Perfmon(Model):
    """The counters that are modelled, and their common start and stop."""

    ip = "GC"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._grbm = card.model(Grbm)
        self._mec = card.model(Mec)
        self._sources: dict[str, Callable[[], int]] = {
            CYCLES: lambda: self._cycles(card.clock.now_ns),
            BUSY: lambda: self._cycles(card.worker.busy_ns()),
            WAVES: lambda: self._mec.stats.waves,
            INSTRUCTIONS: lambda: self._mec.stats.wave_instructions,
        }
        self._counted = dict.fromkeys(self._sources, 0)
        self._since: dict[str, int] | None = None  # where each source stood when counting began
        self.claim("CP_PERFMON_CNTL", on_write=self._control_written)
        self._shader_control = self.claim("SQ_PERFCOUNTER_CTRL")
        for block, count in COUNTERS.items():
            for number in range(count):
                name = f"{block}_PERFCOUNTER{number}"
                select = self.claim(f"{name}_SELECT", reset=self.register(f"{name}_SELECT").reset_value)
                for part, shift in (("LO", 0), ("HI", 32)):
                    if f"{name}_{part}" in card.registers.block("GC", instance):
                        self.claim(f"{name}_{part}", writable=0, on_read=partial(self._value, block, select, shift))

    def power_on(self) -> None:
        self._counted = dict.fromkeys(self._sources, 0)
        self._since = None

    def _cycles(self, ns: int) -> int:
        self.card.worker.pass_wall_time()
        mhz = max(self.card.chip.power.clock_levels_mhz["GFXCLK"])
        return ns * mhz // 1000

    def _now(self) -> dict[str, int]:
        return {name: source() for name, source in self._sources.items()}

    def _total(self, name: str) -> int:
        running = self._sources[name]() - self._since[name] if self._since is not None else 0
        return self._counted[name] + running

    def _control_written(self, value: int) -> None:
        state = self.register("CP_PERFMON_CNTL").decode(value).PERFMON_STATE
        if state == STATE_COUNT:
            if self._since is None:
                self._since = self._now()
        else:
            if self._since is not None:
                self._counted = {name: self._total(name) for name in self._sources}
                self._since = None
            if state != STATE_STOP:
                self._counted = dict.fromkeys(self._sources, 0)

    def _value(self, block: str, select: Slot, shift: int) -> int:
        source = SELECTIONS[block].get(select.register.decode(select.value).PERF_SEL)
        if source is None:
            return 0
        if block == "SQ":
            control = self._shader_control.register.decode(self._shader_control.value)
            if not control.CS_EN or not self._grbm.first_wgp_selected():
                return 0
        return self._total(source) >> shift & 0xFFFF_FFFF
