"""THM 13.0: die temperature, thermal interrupt limits, fan control.

The numbers come from the SMU model's thermal state. Sources: Linux 6.12 smu_v13_0.c (smu_v13_0_set_fan_speed_rpm,
smu_v13_0_register_irq_handler); field layouts: thm_13_0_2_sh_mask.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.model import Model
from amdrv.emulator.models.smu_13_0_0 import Smu
from amdrv.emulator.models.smu_thermal import Sensors

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

CURRENT_TEMPERATURE_STEPS = 8  # CUR_TEMP counts eighths of a degree
TACH_TICKS = 60 * 2500 * 10_000 // 8  # Linux 6.12 smu_v13_0_set_fan_speed_rpm: times 1/rpm is the period
PLAIN = ("THM_THERMAL_INT_ENA", "THM_THERMAL_INT_CTRL", "CG_FDO_CTRL0", "CG_FDO_CTRL2", "CG_TACH_CTRL")


class Thm(Model):
    """The thermal monitor of Navi3x."""

    ip = "THM"

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        for name in PLAIN:
            self.claim(name)
        self.claim("CG_FDO_CTRL1", reset=self.register("CG_FDO_CTRL1").encode(FMAX_DUTY100=255))
        self.claim("THM_THERMAL_INT_STATUS", writable=0)
        self.claim("THM_TCON_CUR_TMP", writable=0, on_read=self._current)
        self.claim("CG_MULT_THERMAL_STATUS", writable=0, on_read=self._maximum)
        self.claim("CG_THERMAL_STATUS", writable=0, on_read=self._fan_duty)
        self.claim("CG_TACH_STATUS", writable=0, on_read=self._tach_period)

    def _sensors(self) -> Sensors:
        return self.card.model(Smu).sensors()

    def _current(self) -> int:
        steps = self._sensors().edge_c * CURRENT_TEMPERATURE_STEPS
        return self.register("THM_TCON_CUR_TMP").encode(CUR_TEMP=steps)

    def _maximum(self) -> int:
        return self.register("CG_MULT_THERMAL_STATUS").encode(ASIC_MAX_TEMP=self._sensors().hotspot_c)

    def _fan_duty(self) -> int:
        duty = self._sensors().fan_percent * 255 // 100
        return self.register("CG_THERMAL_STATUS").encode(FDO_PWM_DUTY=duty)

    def _tach_period(self) -> int:
        rpm = self._sensors().fan_rpm
        return self.register("CG_TACH_STATUS").encode(TACH_PERIOD=TACH_TICKS // rpm if rpm else 0)
