"""Navi48: the Radeon RX 9070 XT.

Blocks, versions, bases and their order are those of a real card's IP discovery table, as AMD's umr carries it for its
tests (test/kat/rs_navi48_test1.txt); a second public dump of the same chip agrees. Synthetic, because that dump does
not show it: the format of the table around the entries (32-bit bases, no second die), the harvest table, which takes
out the video and display blocks that are not emulated, and the cache sizes of the graphics table.
"""

from __future__ import annotations

from amdrv.emulator.chips.chip import BoardRom, Chip, IpInstance, PowerAndClocks, ShaderArray, Timings
from amdrv.emulator.config_space import MsixSpec
from amdrv.facts.hw_ids import HwId
from amdrv.facts.smu_v14_0_2 import Clock, Feature

MIB = 1 << 20
GIB = 1 << 30

GC_BASES = (0x1260, 0xA000, 0x1C000, 0x2402C00)
MP_BASES = (
    0x16000, 0x16200, 0x1CE00, 0xDC0000, 0xE00000, 0xE40000, 0xE80000, 0xEC0000, 0xF00000, 0x2400400, 0x243FC00,
    0x244D400, 0x3200000, 0x3240000, 0x3280000,
)  # fmt: skip
UMC_BASES = {
    7: (0x1D4000, 0x700000, 0x2427400),
    5: (0x154000, 0x680000, 0x2426C00),
    3: (0xD4000, 0x396000, 0x2426400),
    1: (0x54000, 0x316000, 0x2425C00),
    6: (0x194000, 0x6C0000, 0x2427000),
    4: (0x114000, 0x3D6000, 0x2426800),
    2: (0x94000, 0x356000, 0x2426000),
    0: (0x14000, 0x2D6000, 0x2425800),
}
CLKA_BASES = {
    7: (0x1B600, 0x242E400),
    5: (0x1B200, 0x242DC00),
    3: (0x17200, 0x2402400),
    1: (0x16E00, 0x2401C00),
    8: (0x1BC00, 0x2433C00),
    6: (0x1B400, 0x242E000),
    4: (0x1B000, 0x242D800),
    2: (0x17000, 0x2402000),
    0: (0x16C00, 0x2401800),
}

IP_INSTANCES = (
    IpInstance("DF", HwId.DF, 0, (4, 15, 1), (0x7000, 0xC00000, 0x240B800, 0x7C00000, 0x12400000)),
    IpInstance("MP1", HwId.MP1, 0, (14, 0, 3), MP_BASES),
    IpInstance("DFX", HwId.DFX, 0, (5, 0, 0), (0x580, 0x2409400)),
    IpInstance("DAZ", HwId.DAZ, 0, (127, 127, 63), (0x4C0000, 0x2404800)),
    IpInstance("DFX_DAP", HwId.DFX_DAP, 0, (2, 0, 0), (0x5A0, 0xB80000, 0x240C400)),
    IpInstance("LSDMA", HwId.LSDMA, 0, (7, 0, 1), (0x11400, 0x2456800)),
    IpInstance("MMHUB", HwId.MMHUB, 0, (4, 1, 0), (0x1A000, 0x2408800)),
    IpInstance("DBGU_NBIO", HwId.DBGU_NBIO, 0, (3, 0, 0), (0x1C0, 0x2409000)),
    IpInstance("OSSSYS", HwId.OSSSYS, 0, (7, 0, 0), (0x10A0, 0x240A000)),
    # The third base is only in the second dump.
    IpInstance("UVD", HwId.UVD, 0, (5, 0, 0), (0x7800, 0x7E00, 0x2403000), harvested=True),
    IpInstance("HDP", HwId.HDP, 0, (7, 0, 0), (0xF20, 0x240A400)),
    IpInstance("SDMA1", HwId.SDMA1, 0, (7, 0, 1), GC_BASES),
    IpInstance("SYSTEMHUB", HwId.SYSTEMHUB, 0, (2, 3, 0), (0xEA0, 0x500000, 0x2420000)),
    IpInstance("SMUIO", HwId.SMUIO, 0, (14, 0, 2), (0x16800, 0x16A00, 0x2401000, 0x3440000)),
    IpInstance("NBIO", HwId.NBIF, 0, (6, 3, 1), (0x0, 0x14, 0xD20, 0x10400, 0x241B000, 0x4040000)),
    IpInstance("ATHUB", HwId.ATHUB, 0, (4, 1, 0), (0xC00, 0x2408C00)),
    IpInstance("PWR", HwId.PWR, 0, (9, 0, 0), ()),
    IpInstance("DIO", HwId.DIO, 0, (127, 127, 63), (0x2404000,)),
    IpInstance("DMU", HwId.DMU, 0, (4, 1, 0), (0x12, 0xC0, 0x34C0, 0x9000, 0x2403C00), harvested=True),
    IpInstance("THM", HwId.THM, 0, (14, 0, 2), (0x16600, 0x2400C00)),
    IpInstance("MP0", HwId.MP0, 0, (14, 0, 3), MP_BASES),
    *(IpInstance("UMC", HwId.UMC, n, (8, 14, 0), bases) for n, bases in UMC_BASES.items()),
    IpInstance("GC", HwId.GC, 0, (12, 0, 1), GC_BASES),
    IpInstance("PCIE", HwId.PCIE, 0, (6, 1, 0), (0x2411800, 0x68C0000, 0x20000000)),
    *(IpInstance("CLKA", HwId.CLKA, n, (14, 0, 2), bases) for n, bases in CLKA_BASES.items()),
    IpInstance("FUSE", HwId.FUSE, 0, (14, 0, 2), (0x17400, 0x2401400)),
    IpInstance("SDMA0", HwId.SDMA0, 0, (7, 0, 1), GC_BASES),
)

TIMINGS = Timings(
    # As on Navi31, whose file says where these come from; nobody has published a trace of this chip's start.
    boot_rom=0.080,
    bootloader_stage=0.0199,
    sos_alive=0.090,
    sos_ready=0.108,
    ring_control=0.001,
    # Kernel logs of Navi44, the same generation: some 300 ms for the firmware, of which the bootloader's stages and the
    # secure OS take their part. How the rest divides is inferred.
    psp_command=0.0003,
    psp_load=0.002,
    psp_load_per_mib=0.010,
    # The same logs: SMU initialisation takes 28 ms. How it divides is inferred.
    smu_start=0.005,
    smu_calibration=0.008,
    smu_features=0.015,
    smu_message=18e-6,
    smu_table=1.02e-3,
    smu_reset_delay=1e-3,
    # Linux 6.12 smu_v14_0_2_mode1_reset waits a second, AM half a second, for this and the boot ROM.
    mode1=0.400,
)

# Everything that the message headers name, without what needs a battery, a display or a second board.
_ABSENT = (
    Feature.SMARTSHIFT,
    Feature.ACDC,
    Feature.DPM_DCN,
    Feature.DS_DCFCLK,
    Feature.LED_DISPLAY,
    Feature.OUT_OF_BAND_MONITOR,
)

POWER = PowerAndClocks(
    # From the public specification (boost 2970 MHz, memory 20 Gbit/s) and pp_dpm_* listings of owners.
    clock_levels_mhz={
        Clock.GFXCLK.name: (500, 2970),
        Clock.SOCCLK.name: (500, 562, 720, 960, 1200),
        Clock.UCLK.name: (96, 456, 772, 1258),
        Clock.FCLK.name: (300, 1200, 1850, 2000),
        Clock.DCLK_0.name: (500, 2000),
        Clock.VCLK_0.name: (500, 2400),
    },
    fine_grained=frozenset(clock.name for clock in (Clock.GFXCLK, Clock.DCLK_0, Clock.VCLK_0)),
    default_features=sum(1 << feature for feature in Feature if feature not in _ABSENT),
    board_power_w=304,
    idle_power_w=15,
    idle_temperature_c=36,
    busy_temperature_c=58,
    fan_max_rpm=3200,
    fan_stop_temperature_c=50,
    pcie_gen=5,
    pcie_lanes=16,
)

# Synthetic, and says so by its names; 256 bits of GDDR6 are 16 channels.
ROM = BoardRom(
    part_number="AMDRV-NAVI48-000",
    asic="NAVI48",
    bus="PCI_EXPRESS",
    memory="GDDR6",
    name="Navi48 emulated by amdrv",
    date="01/01/26 00:00",
    version="023.001.000.000.000000",
    firmware_revision=0x17010000,
    window_bytes=128 * 1024,
    memory_type=0x70,
    memory_channels=16,
    memory_channel_width_log2=4,
    memory_vendor=1,
)

NAVI48 = Chip(
    arch="gfx1201",
    marketing_name="Radeon RX 9070 XT",
    vendor_id=0x1002,
    device_id=0x7550,
    revision=0xC0,
    class_code=0x030000,
    subsystem=(0x1002, 0x0E0E),  # synthetic
    vram_bytes=16320 * MIB,  # a real card's FB_LOCATION_BASE is 0x8000, its FB_LOCATION_TOP 0x83FB
    fb_base=0x80_0000_0000,
    doorbell_bar_bytes=2 * MIB,
    register_bar_bytes=512 * 1024,  # kernel logs of the RX 9070 XT
    system_window_bytes=64 * GIB,
    ip_instances=IP_INSTANCES,
    # Geometry: the same dump's GCACONFIG (engines, arrays, CUs, render backends, L2 channels, registers). Sizes of L2
    # and last-level cache: the public specification. The rest as on Navi31.
    shader_array=ShaderArray(
        shader_engines=4,
        arrays_per_engine=2,
        wgps_per_array=4,
        simds_per_cu=2,
        max_waves_per_simd=16,
        lds_bytes=65536,
        scratch_slots_per_cu=32,
        wave_size=32,
        l2_bytes=8 * MIB,
        mall_bytes=64 * MIB,
        render_backends_per_engine=4,
        tcp_instances_per_array=8,
        vector_registers_per_simd=1536,
        l2_channels=32,
        l1_bytes_per_array=256 * 1024,
        instruction_cache_bytes=32 * 1024,
        scalar_cache_bytes=16 * 1024,
        vector_cache_bytes=32 * 1024,
    ),
    tmr_bytes=0x1300000,  # inferred: as on Navi31
    boot_tmr_from_end_bytes=32 << 20,  # inferred: within what drivers leave alone at the end of VRAM
    timings=TIMINGS,
    power=POWER,
    function_reset_s=0.1,
    bus_reset_s=0.1,
    rom=ROM,
    # The places are those of the registers (RCC_DEV0_EPF0_GFXMSIX_*), which are for four vectors; that boards of this
    # chip offer MSI-X at all, and how many vectors, is inferred.
    msix=MsixSpec(vectors=4, bar=5, table_offset=0x42000, pending_offset=0x43000),
)
