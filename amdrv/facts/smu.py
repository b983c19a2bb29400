"""What the driver has to know about the interface of each version of the power management firmware.

Source: Linux 6.12 smu_v13_0_0_ppt.c, smu_v14_0_2_ppt.c (message and clock maps, get_gpu_metrics, mode1_reset) over the
firmware's own headers, from which ``smu_v13_0_0`` and ``smu_v14_0_2`` are generated.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from amdrv.facts import smu_v13_0_0, smu_v14_0_2
from amdrv.facts.layout import StructLayout


@dataclass(frozen=True, slots=True)
class SmuInterface:
    """Names to numbers, and the layout of the metrics table."""

    messages: Mapping[str, int]
    clocks: Mapping[str, int]  # index of CurrClock; bits 31:16 of frequency messages
    temperatures: Mapping[str, int]  # index of AvgTemperature
    planes: Mapping[str, int]  # index of AvgVoltage: "graphics", "soc", "memory"
    metrics_table: int
    metrics: StructLayout
    reset_message: str | None  # None: only the debug mailbox resets
    reset_wait_s: float  # from the answer of the reset message until the card may be touched


def _numbers(names: type[enum.IntEnum]) -> dict[str, int]:
    return {name: int(member) for name, member in names.__members__.items()}


SMU_13_0_0 = SmuInterface(
    messages=_numbers(smu_v13_0_0.Message),
    clocks=_numbers(smu_v13_0_0.Clock),
    temperatures=_numbers(smu_v13_0_0.Temperature),
    planes={
        "graphics": smu_v13_0_0.Plane.GFX,
        "soc": smu_v13_0_0.Plane.SOC,
        "memory": smu_v13_0_0.Plane.VMEMP,
    },
    metrics_table=smu_v13_0_0.Table.SMU_METRICS,
    metrics=smu_v13_0_0.METRICS,
    reset_message="Mode1Reset",
    reset_wait_s=0.5,  # smu_v13_0.h: SMU13_MODE1_RESET_WAIT_TIME_IN_MS
)
SMU_14_0_2 = SmuInterface(
    messages=_numbers(smu_v14_0_2.Message),
    clocks=_numbers(smu_v14_0_2.Clock),
    temperatures=_numbers(smu_v14_0_2.Temperature),
    planes={
        "graphics": smu_v14_0_2.Plane.VDD_GFX,
        "soc": smu_v14_0_2.Plane.VDD_SOC,
        "memory": smu_v14_0_2.Plane.VDDIO_MEM,
    },
    metrics_table=smu_v14_0_2.Table.SMU_METRICS,
    metrics=smu_v14_0_2.METRICS,
    reset_message=None,
    reset_wait_s=1.0,  # smu_v14_0_2_mode1_reset
)

# By the version of MP1.
INTERFACES: dict[tuple[int, int, int], SmuInterface] = {(13, 0, 0): SMU_13_0_0, (14, 0, 3): SMU_14_0_2}
