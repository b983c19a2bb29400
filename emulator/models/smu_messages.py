"""What the SMU's firmware does for each message: features, clocks, limits, tables. It knows nothing of mailboxes.

Sources: Linux 6.12 smu_v13_0_0_ppt.c, smu_v13_0.c, smu_v14_0.c (arguments, what comes back), smu_cmn.c (table
transfers).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.models.smu_gfxoff import GraphicsPower
from amdrv.emulator.models.smu_interface import ClockState, SmuInterface
from amdrv.emulator.models.smu_thermal import Sensors
from amdrv.facts.smu_v13_0_0 import Result

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

ALL_FEATURES = 0xFFFF_FFFF_FFFF_FFFF
LEVEL_COUNT_QUERY = 0xFF  # GetDpmFreqByIndex with this index asks how many levels there are
FINE_GRAINED = 0x8000_0000
# The feature that must run before a domain's frequency can be set.
FEATURE_OF_CLOCK = {
    "GFXCLK": "DPM_GFXCLK",
    "SOCCLK": "DPM_SOCCLK",
    "UCLK": "DPM_UCLK",
    "FCLK": "DPM_FCLK",
    "DCLK_0": "MM_DPM",
    "VCLK_0": "MM_DPM",
    "DCLK_1": "MM_DPM",
    "VCLK_1": "MM_DPM",
}
# Taken and remembered by silicon, without an effect that the emulated card could show.
ACCEPTED = (
    "SetToolsDramAddrHigh",
    "SetToolsDramAddrLow",
    "UseDefaultPPTable",
    "OverridePcieParameters",
    "DramLogSetDramAddrHigh",
    "DramLogSetDramAddrLow",
    "DramLogSetDramSize",
    "SetSystemVirtualDramAddrHigh",
    "SetSystemVirtualDramAddrLow",
    "SetWorkloadMask",
    "PowerUpVcn",
    "PowerDownVcn",
    "PowerUpJpeg",
    "PowerDownJpeg",
    "ReenableAcDcInterrupt",
    "NotifyPowerSource",
    "RunDcBtc",
    "SetTemperatureInputSelect",
    "SetFwDstatesMask",
    "SetThrottlerMask",
    "SetExternalClientDfCstateAllow",
    "SetMGpuFanBoostLimitRpm",
    "SetGpoAllow",
    "SetNumBadMemoryPagesRetired",
    "AllowIHHostInterrupt",
    "DALNotPresent",
    "EnableUCLKShadow",
)

Answer = tuple[Result, int]


class Rejected(Exception):
    """A message that is answered with something else than OK."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.name)
        self.result = result


class PowerFirmware:
    """State of the running power management firmware."""

    def __init__(self, card: Card, version: int, sensors: Callable[[], Sensors], interface: SmuInterface) -> None:
        """``version`` is that of the loaded image."""
        self._card = card
        self._interface = interface
        self._clock_names = {number: name for name, number in interface.clocks.items() if name in FEATURE_OF_CLOCK}
        self._table_names = {number: name for name, number in interface.tables.items()}
        self._sensors = sensors
        self._power = card.chip.power
        self._version = version
        self._allowed = ALL_FEATURES
        self.features = 0
        self.power_limit_w = self._power.board_power_w
        self._table_address = 0
        self._readings = 0
        self._tables = interface.board_tables(self._power)
        self._bounds_mhz = {name: (levels[0], levels[-1]) for name, levels in self._power.clock_levels_mhz.items()}
        self.graphics_power = GraphicsPower(card, lambda: self._runs("GFXOFF"))
        self._handlers = self._make_handlers()

    def handle(self, message: int, argument: int) -> Answer:
        """Result and returned value of a message."""
        handler = self._handlers.get(message)
        if handler is None:
            # A number that the interface does not have is unknown; one that is not modelled fails.
            return (Result.Failed if self._interface.has(message) else Result.UnknownCmd), argument
        try:
            return Result.OK, handler(argument)
        except Rejected as rejected:
            return rejected.result, argument

    def clocks(self, sensors: Sensors) -> ClockState:
        """Frequencies now: the highest allowed under load, the lowest without."""
        busy = sensors.activity_percent > 0
        running = {name: (high if busy else low) for name, (low, high) in self._bounds_mhz.items()}
        return ClockState(running)

    def _make_handlers(self) -> dict[int, Callable[[int], int]]:
        named: dict[str, Callable[[int], int]] = {message: lambda argument: argument for message in ACCEPTED}
        named |= {
            "TestMessage": lambda argument: argument + 1 & 0xFFFF_FFFF,
            "GetSmuVersion": lambda _: self._version,
            "GetDriverIfVersion": lambda _: self._interface.driver_if_version,
            "SetAllowedFeaturesMaskLow": partial(self._allow, 0),
            "SetAllowedFeaturesMaskHigh": partial(self._allow, 32),
            "EnableAllSmuFeatures": lambda _: self._run_features(self._power.default_features),
            "DisableAllSmuFeatures": lambda _: self._run_features(0),
            "EnableSmuFeaturesLow": lambda mask: self._run_features(self.features | mask),
            "EnableSmuFeaturesHigh": lambda mask: self._run_features(self.features | mask << 32),
            "DisableSmuFeaturesLow": lambda mask: self._run_features(self.features & ~mask),
            "DisableSmuFeaturesHigh": lambda mask: self._run_features(self.features & ~(mask << 32)),
            "GetRunningSmuFeaturesLow": lambda _: self.features & 0xFFFF_FFFF,
            "GetRunningSmuFeaturesHigh": lambda _: self.features >> 32,
            "SetDriverDramAddrHigh": partial(self._set_table_address, 32),
            "SetDriverDramAddrLow": partial(self._set_table_address, 0),
            "TransferTableSmu2Dram": self._send_table,
            "TransferTableDram2Smu": self._take_table,
            "SetSoftMinByFreq": partial(self._bound, 0),
            "SetSoftMaxByFreq": partial(self._bound, 1),
            "SetHardMinByFreq": partial(self._bound, 0),
            "SetHardMaxByFreq": partial(self._bound, 1),
            "GetMinDpmFreq": lambda argument: self._levels(argument)[0],
            "GetMaxDpmFreq": lambda argument: self._levels(argument)[-1],
            "GetDcModeMaxDpmFreq": lambda argument: self._levels(argument)[-1],
            "GetDpmFreqByIndex": self._level,
            "AllowGfxOff": self.graphics_power.allow,
            "DisallowGfxOff": self.graphics_power.disallow,
            "GetPptLimit": lambda _: self.power_limit_w,
            "SetPptLimit": self._set_power_limit,
        }
        numbers = self._interface.messages
        return {numbers[name]: handler for name, handler in named.items() if name in numbers}

    # -- features -----------------------------------------------------------------------------------------------------

    def _allow(self, shift: int, mask: int) -> int:
        self._allowed = self._allowed & ~(0xFFFF_FFFF << shift) | mask << shift
        return mask

    def _runs(self, feature: str) -> bool:
        return bool(self.features >> self._interface.features[feature] & 1)

    def _run_features(self, wanted: int) -> int:
        self.features = wanted & self._allowed & self._power.default_features
        return 0

    # -- clocks and limits --------------------------------------------------------------------------------------------

    def _levels(self, argument: int) -> tuple[int, ...]:
        return self._power.clock_levels_mhz[self._clock(argument)]

    def _clock(self, argument: int) -> str:
        clock = self._clock_names.get(argument >> 16)
        if clock is None:
            raise Rejected(Result.Failed)
        return clock

    def _level(self, argument: int) -> int:
        levels, index = self._levels(argument), argument & 0xFFFF
        if index == LEVEL_COUNT_QUERY:
            fine_grained = self._clock(argument) in self._power.fine_grained
            return len(levels) | (FINE_GRAINED if fine_grained else 0)
        if index >= len(levels):
            raise Rejected(Result.Failed)
        return levels[index]

    def _bound(self, which: int, argument: int) -> int:
        levels, frequency_mhz = self._levels(argument), argument & 0xFFFF
        clock = self._clock(argument)
        if not self._runs(FEATURE_OF_CLOCK[clock]):
            raise Rejected(Result.CmdRejectedPrereq)
        bounds = list(self._bounds_mhz[clock])
        bounds[which] = min(max(frequency_mhz, levels[0]), levels[-1])
        self._bounds_mhz[clock] = (min(bounds[0], bounds[1]), bounds[1])
        return argument

    def _set_power_limit(self, argument: int) -> int:
        watts = argument & 0xFFFF
        if not self._power.idle_power_w < watts <= self._power.board_power_w:
            raise Rejected(Result.Failed)
        self.power_limit_w = watts
        return argument

    # -- tables -------------------------------------------------------------------------------------------------------

    def _set_table_address(self, shift: int, value: int) -> int:
        self._table_address = self._table_address & ~(0xFFFF_FFFF << shift) | value << shift
        return value

    def _send_table(self, argument: int) -> int:
        table = self._table(argument)
        if table == "SMU_METRICS":
            self._readings += 1
            sensors = self._sensors()
            data = self._interface.metrics(self._readings, self._power, self.clocks(sensors), sensors)
        elif table in self._tables:
            data = self._tables[table]
        else:
            raise Rejected(Result.Failed)
        if not self._card.write_mc(self._table_address, data):
            raise Rejected(Result.Failed)
        return argument

    def _take_table(self, argument: int) -> int:
        table = self._table(argument)
        size_bytes = self._interface.writable_bytes.get(table)
        data = None if size_bytes is None else self._card.read_mc(self._table_address, size_bytes)
        if data is None:
            raise Rejected(Result.Failed)
        self._tables[table] = data
        return argument

    def _table(self, argument: int) -> str:
        if not self._table_address:
            raise Rejected(Result.CmdRejectedPrereq)
        table = self._table_names.get(argument & 0xFFFF)
        if table is None:
            raise Rejected(Result.Failed)
        return table
