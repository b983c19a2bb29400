"""The tables that the SMU 13.0.0 moves to and from driver memory. Pure functions.

Layouts: Linux 6.12 smu13_driver_if_v13_0_0.h; sizes: the size of the structure that each table id stands for there.
"""

from __future__ import annotations

from amdrv.emulator.chips.chip import PowerAndClocks
from amdrv.emulator.models.smu_interface import ClockState, SmuInterface, numbers
from amdrv.emulator.models.smu_thermal import Sensors
from amdrv.facts.layout import Member, StructLayout
from amdrv.facts.smu_v13_0_0 import METRICS, Clock, Feature, Message, Plane, Table, Temperature, Version

PPTABLE_VERSION = 0x2B
# PPTable_t: of its 3972 bytes those that a driver shows. The rest of an emulated one is zero.
PPTABLE = StructLayout(
    "PPTABLE",
    3972,
    {
        "Version": Member(0),
        "FeaturesToRun": Member(4, 4, 2),
        "SocketPowerLimitAc": Member(16, 2, 4),
        "TemperatureLimit": Member(50, 2, 13),
        "FreqTableGfx": Member(684, 2, 16),
        "FreqTableSocclk": Member(748, 2, 8),
        "FreqTableUclk": Member(764, 2, 4),
        "FreqTableFclk": Member(852, 2, 8),
        "FanMaximumRpm": Member(1330, 2),
        "MsgLimits_Power": Member(2808, 2, 8),  # [PPT limit][power source]: what a message may set
        "OverDriveLimitsBasicMax_FeatureCtrlMask": Member(3016),
    },
)
# smu_13_0_0_powerplay_table (smu_v13_0_0_pptable.h): the board's part of it, with PPTable_t behind.
POWERPLAY = StructLayout(
    "POWERPLAY",
    832,
    {
        "structuresize": Member(0, 2),
        "format_revision": Member(2, 1),
        "table_revision": Member(4, 1),
        "table_size": Member(6, 2),
        "format_id": Member(16, 2),
        "platform_caps": Member(18),
        "thermal_controller_type": Member(22, 1),
        "software_shutdown_temp": Member(29, 2),
        "overdrive_min_power": Member(527),  # percent less than the default: min[SMU_13_0_0_ODSETTING_POWERPERCENTAGE]
    },
)
# OverDriveTable_t: what a user may change, with the board's values.
OVERDRIVE = StructLayout(
    "OVERDRIVE",
    140,
    {
        "GfxclkFmin": Member(20, 2, signed=True),
        "GfxclkFmax": Member(22, 2, signed=True),
        "UclkFmin": Member(24, 2),
        "UclkFmax": Member(26, 2),
        "FanZeroRpmEnable": Member(52, 1),
        "FanZeroRpmStopTemp": Member(53, 1),
        "MaxOpTemp": Member(55, 1),
    },
)
CAP_POWERPLAY = 0x1  # and not BACO: the card has no power state below D0
THERMAL_CONTROLLER_NAVI21 = 28
OVERDRIVE_POWER = 1 << 2  # PP_OD_FEATURE_PPT_BIT: of all that boards let one change, the power limit
LOWEST_POWER_PERCENT = 10  # inferred from what owners of such boards can set
SHUTDOWN_C = 115  # inferred: above every limit
TEMPERATURE_LIMITS_C = {Temperature.EDGE: 100, Temperature.HOTSPOT: 110, Temperature.MEM: 108}
WRITABLE_BYTES = {
    "PPTABLE": PPTABLE.size_bytes,
    "WATERMARKS": 16,
    "DRIVER_SMU_CONFIG": 80,
    "ACTIVITY_MONITOR_COEFF": 124,
    "OVERDRIVE": OVERDRIVE.size_bytes,
}
PLANE_MV = {Plane.GFX: (720, 1100), Plane.SOC: (780, 900), Plane.VMEMP: (680, 850), Plane.VDDIO_MEM: (1250, 1350)}


def default_pptable(power: PowerAndClocks) -> bytes:
    """The table that the board came with."""
    levels = power.clock_levels_mhz
    return bytes(
        PPTABLE.pack(
            Version=PPTABLE_VERSION,
            FeaturesToRun=(power.default_features & 0xFFFF_FFFF, power.default_features >> 32),
            SocketPowerLimitAc=(power.board_power_w,),
            TemperatureLimit=[TEMPERATURE_LIMITS_C.get(place, 0) for place in _places()],
            FreqTableGfx=levels[Clock.GFXCLK.name],
            FreqTableSocclk=levels[Clock.SOCCLK.name],
            FreqTableUclk=levels[Clock.UCLK.name],
            FreqTableFclk=levels[Clock.FCLK.name],
            FanMaximumRpm=power.fan_max_rpm,
            MsgLimits_Power=(power.board_power_w, power.board_power_w),
            OverDriveLimitsBasicMax_FeatureCtrlMask=OVERDRIVE_POWER,
        )
    )


def combined_pptable(power: PowerAndClocks) -> bytes:
    """The board's part and the table that it came with: what TABLE_COMBO_PPTABLE gives."""
    table = default_pptable(power)
    head = POWERPLAY.pack(
        structuresize=POWERPLAY.size_bytes + len(table),
        format_revision=15,
        table_revision=2,
        table_size=POWERPLAY.size_bytes,
        format_id=0x80,
        platform_caps=CAP_POWERPLAY,
        thermal_controller_type=THERMAL_CONTROLLER_NAVI21,
        software_shutdown_temp=SHUTDOWN_C,
        overdrive_min_power=LOWEST_POWER_PERCENT,
    )
    return bytes(head) + table


def default_overdrive(power: PowerAndClocks) -> bytes:
    """The overdrive settings that the board came with: nothing overdriven."""
    graphics, memory = power.clock_levels_mhz[Clock.GFXCLK.name], power.clock_levels_mhz[Clock.UCLK.name]
    return bytes(
        OVERDRIVE.pack(
            GfxclkFmin=graphics[0],
            GfxclkFmax=graphics[-1],
            UclkFmin=memory[0],
            UclkFmax=memory[-1],
            FanZeroRpmEnable=1,
            FanZeroRpmStopTemp=power.fan_stop_temperature_c,
            MaxOpTemp=TEMPERATURE_LIMITS_C[Temperature.HOTSPOT],
        )
    )


def metrics(counter: int, power: PowerAndClocks, clocks: ClockState, sensors: Sensors) -> bytes:
    """SmuMetricsExternal_t as of now; ``counter`` counts the readings."""
    gfx, uclk, fclk = clocks.of("GFXCLK"), clocks.of("UCLK"), clocks.of("FCLK")
    load = sensors.activity_percent / 100
    millivolts = [round(low + (high - low) * load) for low, high in PLANE_MV.values()]
    temperatures = {
        Temperature.EDGE: sensors.edge_c,
        Temperature.HOTSPOT: sensors.hotspot_c,
        Temperature.HOTSPOT_G: sensors.hotspot_c,
        Temperature.HOTSPOT_M: sensors.memory_c,
        Temperature.MEM: sensors.memory_c,
        Temperature.VR_GFX: sensors.edge_c + 4,
        Temperature.VR_SOC: sensors.edge_c + 2,
    }
    return bytes(
        METRICS.pack(
            CurrClock=[clocks.of(clock.name) for clock in Clock if clock != Clock.COUNT],
            AverageGfxclkFrequencyTarget=gfx,
            AverageGfxclkFrequencyPreDs=gfx,
            AverageGfxclkFrequencyPostDs=round(gfx * load),  # deep sleep included
            AverageFclkFrequencyPreDs=fclk,
            AverageFclkFrequencyPostDs=fclk,
            AverageMemclkFrequencyPreDs=uclk,
            AverageMemclkFrequencyPostDs=uclk,
            dGPU_W_MAX=power.board_power_w,
            MetricsCounter=counter & 0xFFFF_FFFF,
            AvgVoltage=millivolts,
            AverageGfxActivity=sensors.activity_percent,
            AverageUclkActivity=sensors.activity_percent // 2,
            EnergyAccumulator=round(sensors.energy_j) & 0xFFFF_FFFF,
            AverageSocketPower=sensors.power_w,
            AverageTotalBoardPower=sensors.power_w,
            AvgTemperature=[temperatures.get(place, 0) for place in _places()],
            PcieRate=power.pcie_gen,
            PcieWidth=power.pcie_lanes,
            AvgFanPwm=sensors.fan_percent,
            AvgFanRpm=sensors.fan_rpm,
        )
    )


def _places() -> list[Temperature]:
    return [place for place in Temperature if place != Temperature.COUNT]


def _board_tables(power: PowerAndClocks) -> dict[str, bytes]:
    return {
        "PPTABLE": default_pptable(power),
        "COMBO_PPTABLE": combined_pptable(power),
        "OVERDRIVE": default_overdrive(power),
        "ACTIVITY_MONITOR_COEFF": bytes(WRITABLE_BYTES["ACTIVITY_MONITOR_COEFF"]),  # what boards have is not known
    }


INTERFACE = SmuInterface(
    driver_if_version=Version.SMU13_0_0_DRIVER_IF,
    messages=numbers(Message),
    features=numbers(Feature),
    clocks=numbers(Clock),
    tables=numbers(Table),
    board_tables=_board_tables,
    writable_bytes=WRITABLE_BYTES,
    metrics=metrics,
)
