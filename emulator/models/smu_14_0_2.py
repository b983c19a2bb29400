"""SMU 14.0.2 and 14.0.3: the interface that differs from 13.0.0's, and where its firmware flags are.

The mailboxes are 13.0.0's. There is no mode1 message: only the debug mailbox resets. Layouts: Linux 6.12
smu14_driver_if_v14_0.h, smu_v14_0_2_pptable.h; behaviour: smu_v14_0_2_ppt.c, smu_v14_0.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.chips.chip import PowerAndClocks
from amdrv.emulator.models.smu_13_0_0 import Smu
from amdrv.emulator.models.smu_interface import ClockState, SmuInterface, numbers
from amdrv.emulator.models.smu_tables import CAP_POWERPLAY, SHUTDOWN_C
from amdrv.emulator.models.smu_thermal import Sensors
from amdrv.facts.layout import Member, StructLayout
from amdrv.facts.smu_v14_0_2 import METRICS, Clock, Feature, Message, Plane, Table, Temperature, Version

if TYPE_CHECKING:
    from amdrv.emulator.register_space import Slot

DRIVER_IF_VERSION = 0x2E  # smu_v14_0.h: SMU14_DRIVER_IF_VERSION_SMU_V14_0_2
# PPTable_t: of its 4468 bytes those that a driver shows. The rest of an emulated one is zero.
PPTABLE = StructLayout(
    "PPTABLE",
    4468,
    {
        "PfeVersion": Member(0, 1),
        "FeaturesToRun": Member(4, 4, 2),
        "SkuVersion": Member(28),
        "FreqTableGfx": Member(596, 2, 16),
        "FreqTableSocclk": Member(660, 2, 8),
        "FreqTableUclk": Member(676, 2, 6),
        "FreqTableFclk": Member(780, 2, 8),
        "MsgLimits_Power": Member(2632, 2, 8),  # [PPT limit][power source]: what a message may set
        "OverDriveLimitsBasicMin_Ppt": Member(2780, 2, signed=True),  # percent
        "OverDriveLimitsBasicMax_FeatureCtrlMask": Member(2844),
        "SocketPowerLimitAc": Member(3580, 2, 4),
        "TemperatureLimit": Member(3600, 2, 12),
        "FanMaximumRpm": Member(3702, 2),
        "BoardVersion": Member(3940),
    },
)
SKU_TABLE, SKU_BYTES, CUSTOM_TABLE, CUSTOM_BYTES, BOARD_TABLE, BOARD_BYTES = 28, 3552, 3580, 360, 3940, 528
# smu_14_0_2_powerplay_table: the board's part, with PPTable_t behind.
POWERPLAY = StructLayout(
    "POWERPLAY",
    1344,
    {
        "structuresize": Member(0, 2),
        "format_revision": Member(2, 1),
        "table_revision": Member(4, 1),
        "pmfw_pptable_start_offset": Member(6, 2),
        "pmfw_pptable_size": Member(8, 2),
        "pmfw_sku_table_start_offset": Member(10, 2),
        "pmfw_sku_table_size": Member(12, 2),
        "pmfw_board_table_start_offset": Member(14, 2),
        "pmfw_board_table_size": Member(16, 2),
        "pmfw_custom_sku_table_start_offset": Member(18, 2),
        "pmfw_custom_sku_table_size": Member(20, 2),
        "platform_caps": Member(32),
        "thermal_controller_type": Member(36, 1),
        "software_shutdown_temp": Member(43, 2),
    },
)
OVERDRIVE = StructLayout(
    "OVERDRIVE",
    156,
    {
        "GfxclkFoffset": Member(24, 2, signed=True),
        "UclkFmin": Member(28, 2),
        "UclkFmax": Member(30, 2),
        "FanZeroRpmEnable": Member(60, 1),
        "FanZeroRpmStopTemp": Member(61, 1),
        "MaxOpTemp": Member(63, 1),
    },
)
OVERDRIVE_POWER = 1 << 3  # PP_OD_FEATURE_PPT_BIT: of all that boards let one change, the power limit
LOWEST_POWER_PERCENT = -30  # inferred from what owners of such boards can set
TEMPERATURE_LIMITS_C = {Temperature.EDGE: 100, Temperature.HOTSPOT: 110, Temperature.MEM: 108}
PLANE_MV = {
    Plane.VDD_GFX: (700, 1150),
    Plane.VDD_SOC: (760, 880),
    Plane.VDDCI_MEM: (680, 850),
    Plane.VDDIO_MEM: (1250, 1350),
}
WRITABLE_BYTES = {
    "PPTABLE": PPTABLE.size_bytes,
    "WATERMARKS": 112,
    "DRIVER_SMU_CONFIG": 84,
    "ACTIVITY_MONITOR_COEFF": 140,
    "OVERDRIVE": OVERDRIVE.size_bytes,
}


def default_pptable(power: PowerAndClocks) -> bytes:
    """The table that the board came with."""
    levels = power.clock_levels_mhz
    return bytes(
        PPTABLE.pack(
            PfeVersion=Version.PPTABLE,
            SkuVersion=Version.PPTABLE,
            BoardVersion=Version.PPTABLE,
            FeaturesToRun=(power.default_features & 0xFFFF_FFFF, power.default_features >> 32),
            MsgLimits_Power=(power.board_power_w, power.board_power_w),
            OverDriveLimitsBasicMin_Ppt=LOWEST_POWER_PERCENT,
            OverDriveLimitsBasicMax_FeatureCtrlMask=OVERDRIVE_POWER,
            SocketPowerLimitAc=(power.board_power_w,),
            TemperatureLimit=[TEMPERATURE_LIMITS_C.get(place, 0) for place in _places()],
            FreqTableGfx=levels["GFXCLK"],
            FreqTableSocclk=levels["SOCCLK"],
            FreqTableUclk=levels["UCLK"],
            FreqTableFclk=levels["FCLK"],
            FanMaximumRpm=power.fan_max_rpm,
        )
    )


def combined_pptable(power: PowerAndClocks) -> bytes:
    """The board's part and the table that it came with: what TABLE_COMBO_PPTABLE gives."""
    table = default_pptable(power)
    start = POWERPLAY.size_bytes
    head = POWERPLAY.pack(
        structuresize=start + len(table),
        format_revision=23,
        table_revision=3,
        pmfw_pptable_start_offset=start,
        pmfw_pptable_size=len(table),
        pmfw_sku_table_start_offset=start + SKU_TABLE,
        pmfw_sku_table_size=SKU_BYTES,
        pmfw_board_table_start_offset=start + BOARD_TABLE,
        pmfw_board_table_size=BOARD_BYTES,
        pmfw_custom_sku_table_start_offset=start + CUSTOM_TABLE,
        pmfw_custom_sku_table_size=CUSTOM_BYTES,
        platform_caps=CAP_POWERPLAY,
        software_shutdown_temp=SHUTDOWN_C,
    )
    return bytes(head) + table


def default_overdrive(power: PowerAndClocks) -> bytes:
    """The overdrive settings that the board came with: nothing overdriven."""
    memory = power.clock_levels_mhz["UCLK"]
    return bytes(
        OVERDRIVE.pack(
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
    temperatures = {
        Temperature.EDGE: sensors.edge_c,
        Temperature.HOTSPOT: sensors.hotspot_c,
        Temperature.HOTSPOT_GFX: sensors.hotspot_c,
        Temperature.HOTSPOT_SOC: sensors.edge_c,
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
            AvgVoltage=[round(low + (high - low) * load) for low, high in PLANE_MV.values()],
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
    driver_if_version=DRIVER_IF_VERSION,
    messages=numbers(Message),
    features=numbers(Feature),
    clocks=numbers(Clock),
    tables=numbers(Table),
    board_tables=_board_tables,
    writable_bytes=WRITABLE_BYTES,
    metrics=metrics,
)


class Smu14(Smu):
    """The system management unit of Navi4x."""

    interface = INTERFACE

    def claim_flags(self) -> Slot:
        """One of the block's base addresses reaches the firmware flags here."""
        return self.claim("MP1_CRU1_MP1_FIRMWARE_FLAGS", writable=0)
