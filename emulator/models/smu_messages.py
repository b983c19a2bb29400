"""What the SMU's firmware does for each message: features, clocks, limits, tables. It knows nothing of mailboxes.

Sources: Linux 6.12 smu_v13_0_0_ppt.c, smu_v13_0.c (arguments, what comes back), smu_cmn.c (table transfers).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from amdrv.emulator.models.smu_gfxoff import GraphicsPower
from amdrv.emulator.models.smu_tables import (
    WRITABLE_BYTES,
    ClockState,
    combined_pptable,
    default_overdrive,
    default_pptable,
    metrics,
)
from amdrv.emulator.models.smu_thermal import Sensors
from amdrv.facts.smu_v13_0_0 import Clock, Feature, Message, Result, Table

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

DRIVER_IF_VERSION = 0x3D
ALL_FEATURES = 0xFFFF_FFFF_FFFF_FFFF
LEVEL_COUNT_QUERY = 0xFF  # GetDpmFreqByIndex with this index asks how many levels there are
FINE_GRAINED = 0x8000_0000
# The feature that must run before a domain's frequency can be set.
FEATURE_OF_CLOCK = {
    Clock.GFXCLK: Feature.DPM_GFXCLK,
    Clock.SOCCLK: Feature.DPM_SOCCLK,
    Clock.UCLK: Feature.DPM_UCLK,
    Clock.FCLK: Feature.DPM_FCLK,
    Clock.DCLK_0: Feature.MM_DPM,
    Clock.VCLK_0: Feature.MM_DPM,
    Clock.DCLK_1: Feature.MM_DPM,
    Clock.VCLK_1: Feature.MM_DPM,
}
# Taken and remembered by silicon, without an effect that the emulated card could show.
ACCEPTED = (
    Message.SetToolsDramAddrHigh,
    Message.SetToolsDramAddrLow,
    Message.UseDefaultPPTable,
    Message.OverridePcieParameters,
    Message.DramLogSetDramAddrHigh,
    Message.DramLogSetDramAddrLow,
    Message.DramLogSetDramSize,
    Message.SetSystemVirtualDramAddrHigh,
    Message.SetSystemVirtualDramAddrLow,
    Message.SetWorkloadMask,
    Message.PowerUpVcn,
    Message.PowerDownVcn,
    Message.PowerUpJpeg,
    Message.PowerDownJpeg,
    Message.ReenableAcDcInterrupt,
    Message.NotifyPowerSource,
    Message.RunDcBtc,
    Message.SetTemperatureInputSelect,
    Message.SetFwDstatesMask,
    Message.SetThrottlerMask,
    Message.SetExternalClientDfCstateAllow,
    Message.SetMGpuFanBoostLimitRpm,
    Message.SetGpoAllow,
    Message.SetNumBadMemoryPagesRetired,
    Message.AllowIHHostInterrupt,
    Message.DALNotPresent,
    Message.EnableUCLKShadow,
)

MESSAGE_NUMBERS = frozenset(map(int, Message))
TABLES = {int(table): table for table in Table}
CLOCKS = {int(clock): clock for clock in FEATURE_OF_CLOCK}

Answer = tuple[Result, int]


class Rejected(Exception):
    """A message that is answered with something else than OK."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.name)
        self.result = result


class PowerFirmware:
    """State of the running power management firmware."""

    def __init__(self, card: Card, version: int, sensors: Callable[[], Sensors]) -> None:
        """``version`` is that of the loaded image."""
        self._card = card
        self._sensors = sensors
        self._power = card.chip.power
        self._version = version
        self._allowed = ALL_FEATURES
        self.features = 0
        self.power_limit_w = self._power.board_power_w
        self._table_address = 0
        self._readings = 0
        self._tables: dict[Table, bytes] = {
            Table.PPTABLE: default_pptable(self._power),
            Table.COMBO_PPTABLE: combined_pptable(self._power),
            Table.OVERDRIVE: default_overdrive(self._power),
        }
        self._bounds_mhz = {name: (levels[0], levels[-1]) for name, levels in self._power.clock_levels_mhz.items()}
        self.graphics_power = GraphicsPower(card, lambda: bool(self.features >> Feature.GFXOFF & 1))
        self._handlers = self._make_handlers()

    def handle(self, message: int, argument: int) -> Answer:
        """Result and returned value of a message."""
        handler = self._handlers.get(message)
        if handler is None:
            # A number that the interface does not have is unknown; one that is not modelled fails.
            return (Result.Failed if message in MESSAGE_NUMBERS else Result.UnknownCmd), argument
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
        taken: dict[int, Callable[[int], int]] = {message: lambda argument: argument for message in ACCEPTED}
        return taken | {
            Message.TestMessage: lambda argument: argument + 1 & 0xFFFF_FFFF,
            Message.GetSmuVersion: lambda _: self._version,
            Message.GetDriverIfVersion: lambda _: DRIVER_IF_VERSION,
            Message.SetAllowedFeaturesMaskLow: partial(self._allow, 0),
            Message.SetAllowedFeaturesMaskHigh: partial(self._allow, 32),
            Message.EnableAllSmuFeatures: lambda _: self._run_features(self._power.default_features),
            Message.DisableAllSmuFeatures: lambda _: self._run_features(0),
            Message.EnableSmuFeaturesLow: lambda mask: self._run_features(self.features | mask),
            Message.EnableSmuFeaturesHigh: lambda mask: self._run_features(self.features | mask << 32),
            Message.DisableSmuFeaturesLow: lambda mask: self._run_features(self.features & ~mask),
            Message.DisableSmuFeaturesHigh: lambda mask: self._run_features(self.features & ~(mask << 32)),
            Message.GetRunningSmuFeaturesLow: lambda _: self.features & 0xFFFF_FFFF,
            Message.GetRunningSmuFeaturesHigh: lambda _: self.features >> 32,
            Message.SetDriverDramAddrHigh: partial(self._set_table_address, 32),
            Message.SetDriverDramAddrLow: partial(self._set_table_address, 0),
            Message.TransferTableSmu2Dram: self._send_table,
            Message.TransferTableDram2Smu: self._take_table,
            Message.SetSoftMinByFreq: partial(self._bound, 0),
            Message.SetSoftMaxByFreq: partial(self._bound, 1),
            Message.SetHardMinByFreq: partial(self._bound, 0),
            Message.SetHardMaxByFreq: partial(self._bound, 1),
            Message.GetMinDpmFreq: lambda argument: self._levels(argument)[0],
            Message.GetMaxDpmFreq: lambda argument: self._levels(argument)[-1],
            Message.GetDcModeMaxDpmFreq: lambda argument: self._levels(argument)[-1],
            Message.GetDpmFreqByIndex: self._level,
            Message.AllowGfxOff: self.graphics_power.allow,
            Message.DisallowGfxOff: self.graphics_power.disallow,
            Message.GetPptLimit: lambda _: self.power_limit_w,
            Message.SetPptLimit: self._set_power_limit,
        }

    # -- features -----------------------------------------------------------------------------------------------------

    def _allow(self, shift: int, mask: int) -> int:
        self._allowed = self._allowed & ~(0xFFFF_FFFF << shift) | mask << shift
        return mask

    def _run_features(self, wanted: int) -> int:
        self.features = wanted & self._allowed & self._power.default_features
        return 0

    # -- clocks and limits --------------------------------------------------------------------------------------------

    def _levels(self, argument: int) -> tuple[int, ...]:
        clock = CLOCKS.get(argument >> 16)
        if clock is None:
            raise Rejected(Result.Failed)
        return self._power.clock_levels_mhz[clock.name]

    def _level(self, argument: int) -> int:
        levels, index = self._levels(argument), argument & 0xFFFF
        if index == LEVEL_COUNT_QUERY:
            fine_grained = CLOCKS[argument >> 16].name in self._power.fine_grained
            return len(levels) | (FINE_GRAINED if fine_grained else 0)
        if index >= len(levels):
            raise Rejected(Result.Failed)
        return levels[index]

    def _bound(self, which: int, argument: int) -> int:
        levels, frequency_mhz = self._levels(argument), argument & 0xFFFF
        clock = CLOCKS[argument >> 16]
        if not self.features >> FEATURE_OF_CLOCK[clock] & 1:
            raise Rejected(Result.CmdRejectedPrereq)
        bounds = list(self._bounds_mhz[clock.name])
        bounds[which] = min(max(frequency_mhz, levels[0]), levels[-1])
        self._bounds_mhz[clock.name] = (min(bounds[0], bounds[1]), bounds[1])
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
        if table == Table.SMU_METRICS:
            self._readings += 1
            sensors = self._sensors()
            data = metrics(self._readings, self._power, self.clocks(sensors), sensors)
        elif table in self._tables:
            data = self._tables[table]
        else:
            raise Rejected(Result.Failed)
        if not self._card.write_mc(self._table_address, data):
            raise Rejected(Result.Failed)
        return argument

    def _take_table(self, argument: int) -> int:
        table = self._table(argument)
        size_bytes = WRITABLE_BYTES.get(table)
        data = None if size_bytes is None else self._card.read_mc(self._table_address, size_bytes)
        if data is None:
            raise Rejected(Result.Failed)
        self._tables[table] = data
        return argument

    def _table(self, argument: int) -> Table:
        if not self._table_address:
            raise Rejected(Result.CmdRejectedPrereq)
        table = TABLES.get(argument & 0xFFFF)
        if table is None:
            raise Rejected(Result.Failed)
        return table
