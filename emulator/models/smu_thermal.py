"""Heat, power and fan of an emulated board, from how long its queues had work. Pure functions over a small state.

The shape is physics' (first-order lags), the end points are the chip's data; nothing here is measured on silicon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from amdrv.emulator.chips.chip import PowerAndClocks

NS_PER_S = 1e9
WARM_UP_S = 20.0  # time constant of the heat sink
ACTIVITY_S = 0.1  # time constant of the reported activity
HOTSPOT_EXTRA_C = 18  # hottest spot over edge at full load
FAN_SPAN_C = 45  # from the temperature where the fan starts to full speed


@dataclass(frozen=True, slots=True)
class ThermalState:
    """When the board was last looked at, and what had built up by then."""

    now_ns: int = 0
    busy_ns: int = 0  # total time with work, up to now_ns
    activity: float = 0.0  # 0 to 1, smoothed
    warmth: float = 0.0  # 0 (idle temperature) to 1 (busy temperature)
    energy_j: float = 0.0


@dataclass(frozen=True, slots=True)
class Sensors:
    """What the board's sensors show."""

    activity_percent: int
    power_w: int
    energy_j: float
    edge_c: int
    hotspot_c: int
    memory_c: int
    fan_rpm: int
    fan_percent: int


def advance(state: ThermalState, now_ns: int, busy_ns: int, power: PowerAndClocks, limit_w: int) -> ThermalState:
    """The state at ``now_ns``, when queues had work for ``busy_ns`` in total."""
    elapsed_ns = now_ns - state.now_ns
    if elapsed_ns <= 0:
        return state
    elapsed_s = elapsed_ns / NS_PER_S
    load = min(1.0, (busy_ns - state.busy_ns) / elapsed_ns)
    watts = _power_w(load, power, limit_w)
    return ThermalState(
        now_ns,
        busy_ns,
        _approach(state.activity, load, elapsed_s / ACTIVITY_S),
        _approach(state.warmth, load, elapsed_s / WARM_UP_S),
        state.energy_j + watts * elapsed_s,
    )


def read(state: ThermalState, power: PowerAndClocks, limit_w: int) -> Sensors:
    """Sensor values of a state."""
    edge = power.idle_temperature_c + (power.busy_temperature_c - power.idle_temperature_c) * state.warmth
    over = edge - power.fan_stop_temperature_c
    fan = min(1.0, max(0.0, over / FAN_SPAN_C))  # below the stop temperature the fans stand still
    return Sensors(
        activity_percent=round(100 * state.activity),
        power_w=round(_power_w(state.activity, power, limit_w)),
        energy_j=state.energy_j,
        edge_c=round(edge),
        hotspot_c=round(edge + 2 + HOTSPOT_EXTRA_C * state.activity),
        memory_c=round(edge + 8),
        fan_rpm=round(power.fan_max_rpm * fan),
        fan_percent=round(100 * fan),
    )


def _power_w(load: float, power: PowerAndClocks, limit_w: int) -> float:
    return min(float(limit_w), power.idle_power_w + (power.board_power_w - power.idle_power_w) * load)


def _approach(value: float, target: float, time_constants: float) -> float:
    return target + (value - target) * math.exp(-time_constants)
