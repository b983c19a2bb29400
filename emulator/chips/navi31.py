"""Navi31: the Radeon RX 7900 XTX.

No public dump of this chip's discovery table is known. IP versions are those for which Linux 6.12 amdgpu_discovery.c
drives a gfx1100; base addresses marked "inferred" are those of its neighbours (Navi21: sienna_cichlid_ip_offset.h;
Navi48: a real table), which agree in every segment that the driver uses.
"""

from __future__ import annotations

from amdrv.emulator.chips.chip import BoardRom, Chip, IpInstance, PowerAndClocks, ShaderArray, Timings
from amdrv.emulator.config_space import MsixSpec
from amdrv.facts.hw_ids import HwId
from amdrv.facts.smu_v13_0_0 import Clock, Feature

MIB = 1 << 20
GIB = 1 << 30

GC_BASES = (0x1260, 0xA000, 0x1C000, 0x2402C00)  # inferred; SDMA 6 shares them
MP_BASES = (0x16000, 0xDC0000, 0xE00000, 0xE40000, 0x243FC00)  # inferred
# Inferred: Navi48's, one row a memory controller. Drivers use the third (umc_8_10_0_offset.h), so there must be one.
UMC_BASES = (
    (0x14000, 0x2D6000, 0x2425800),
    (0x54000, 0x316000, 0x2425C00),
    (0x94000, 0x356000, 0x2426000),
    (0xD4000, 0x396000, 0x2426400),
    (0x114000, 0x3D6000, 0x2426800),
    (0x154000, 0x680000, 0x2426C00),
)

IP_INSTANCES = (
    IpInstance("GC", HwId.GC, 0, (11, 0, 0), GC_BASES),
    IpInstance("SDMA0", HwId.SDMA0, 0, (6, 0, 0), GC_BASES),
    IpInstance("SDMA0", HwId.SDMA0, 1, (6, 0, 0), GC_BASES),
    IpInstance("MMHUB", HwId.MMHUB, 0, (3, 0, 0), (0x1A000, 0x2408800)),  # inferred
    IpInstance("ATHUB", HwId.ATHUB, 0, (3, 0, 0), (0xC00, 0x2408C00)),  # inferred
    IpInstance("NBIO", HwId.NBIF, 0, (4, 3, 0), (0x0, 0x14, 0xD20, 0x10400, 0x241B000, 0x4040000)),  # inferred
    IpInstance("HDP", HwId.HDP, 0, (6, 0, 0), (0xF20, 0x240A400)),  # inferred
    IpInstance("OSSSYS", HwId.OSSSYS, 0, (6, 0, 0), (0x10A0, 0x240A000)),  # inferred
    IpInstance("MP0", HwId.MP0, 0, (13, 0, 0), MP_BASES),
    IpInstance("MP1", HwId.MP1, 0, (13, 0, 0), MP_BASES),
    IpInstance("SMUIO", HwId.SMUIO, 0, (13, 0, 6), (0x16800, 0x16A00, 0x440000, 0x2401000)),  # inferred
    IpInstance("THM", HwId.THM, 0, (13, 0, 0), (0x16600, 0x2400C00)),  # inferred
    IpInstance("LSDMA", HwId.LSDMA, 0, (6, 0, 0), (0x11400, 0x2456800)),  # inferred
    IpInstance("DF", HwId.DF, 0, (4, 15, 0), (0x7000, 0x240B800)),  # inferred
    *(IpInstance("UMC", HwId.UMC, n, (8, 10, 0), bases) for n, bases in enumerate(UMC_BASES)),
    # Video is not emulated: present in the table, as Linux insists, and removed by the harvest table.
    IpInstance("UVD", HwId.UVD, 0, (4, 0, 0), (0x7800, 0x7E00, 0x2403000), harvested=True),  # inferred
    IpInstance("UVD", HwId.UVD, 1, (4, 0, 0), (0x7B00, 0x12000, 0x2445000), harvested=True),  # inferred
)

TIMINGS = Timings(
    # Linux 6.12 amdgpu_discovery_read_binary_from_mem: "generally it should be in the 60-100ms range".
    boot_rom=0.080,
    # A Vega 10 load traced by gem5 (gem5-resources vega_mmio.log): SYSDRV hides behind a 20 ms delay.
    bootloader_stage=0.0199,
    # The same trace: the sign of life changes 108 ms after the SOS command. That it shows a first value a little
    # earlier, and that the ring interface opens with the last change, is inferred.
    sos_alive=0.090,
    sos_ready=0.108,
    ring_control=0.001,  # inferred: hidden by the driver's fixed 20 ms in every trace
    # Kernel logs of Navi31 boards show 145 ms from "reserve ... for PSP TMR" to the SMU's first line, with some 30 load
    # commands of 2.7 MiB in between. How it divides is inferred.
    psp_command=0.0003,
    psp_load=0.003,
    psp_load_per_mib=0.016,
    # The same logs: SMU initialisation takes 165 to 170 ms. How it divides is inferred.
    smu_start=0.010,
    smu_calibration=0.045,
    smu_features=0.100,
    smu_message=18e-6,  # median of 47 messages in the Vega 10 trace
    smu_table=1.02e-3,  # the slowest of them
    smu_reset_delay=1e-3,  # inferred: drivers read the answer of the reset message
    # Linux waits SMU13_MODE1_RESET_WAIT_TIME_IN_MS = 500 ms and then expects the boot ROM to be done as well.
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
_VIDEO_CLOCKS = (Clock.DCLK_0, Clock.VCLK_0, Clock.DCLK_1, Clock.VCLK_1)

POWER = PowerAndClocks(
    # From the public specification (boost 2500 MHz, memory 20 Gbit/s = 1249 MHz) and pp_dpm_* listings of owners.
    clock_levels_mhz={
        Clock.GFXCLK.name: (500, 2500),
        Clock.SOCCLK.name: (500, 560, 720, 960, 1200),
        Clock.UCLK.name: (96, 456, 772, 1249),
        Clock.FCLK.name: (300, 1100, 1850, 2275),
        Clock.DCLK_0.name: (500, 2000),
        Clock.VCLK_0.name: (500, 2400),
        Clock.DCLK_1.name: (500, 2000),
        Clock.VCLK_1.name: (500, 2400),
    },
    fine_grained=frozenset(clock.name for clock in (Clock.GFXCLK, *_VIDEO_CLOCKS)),
    default_features=sum(1 << feature for feature in Feature if feature not in _ABSENT),
    board_power_w=355,
    idle_power_w=19,
    idle_temperature_c=38,
    busy_temperature_c=66,
    fan_max_rpm=3300,
    fan_stop_temperature_c=50,
    pcie_gen=4,
    pcie_lanes=16,
)

# Synthetic, and says so by its names. The window is what lspci shows of Navi31 boards; 384 bits of GDDR6 are 24
# channels.
ROM = BoardRom(
    part_number="AMDRV-NAVI31-000",
    asic="NAVI31",
    bus="PCI_EXPRESS",
    memory="GDDR6",
    name="Navi31 emulated by amdrv",
    date="01/01/26 00:00",
    version="022.001.000.000.000000",
    firmware_revision=0x16010000,
    window_bytes=128 * 1024,
    memory_type=0x70,
    memory_channels=24,
    memory_channel_width_log2=4,
    memory_vendor=1,
)

NAVI31 = Chip(
    arch="gfx1100",
    marketing_name="Radeon RX 7900 XTX",
    vendor_id=0x1002,
    device_id=0x744C,
    revision=0xC8,
    class_code=0x030000,
    subsystem=(0x1002, 0x0E3B),
    vram_bytes=24560 * MIB,  # kernel logs: FB 0x8000000000-0x85FEFFFFFF
    fb_base=0x80_0000_0000,
    doorbell_bar_bytes=2 * MIB,
    register_bar_bytes=1 * MIB,
    system_window_bytes=64 * GIB,
    ip_instances=IP_INSTANCES,
    shader_array=ShaderArray(
        shader_engines=6,
        arrays_per_engine=2,
        wgps_per_array=4,
        simds_per_cu=2,
        max_waves_per_simd=16,
        lds_bytes=65536,
        scratch_slots_per_cu=32,
        wave_size=32,
        l2_bytes=6 * MIB,
        mall_bytes=96 * MIB,
        render_backends_per_engine=4,
        tcp_instances_per_array=8,
        vector_registers_per_simd=1536,
        l2_channels=24,
        l1_bytes_per_array=256 * 1024,
        instruction_cache_bytes=32 * 1024,
        scalar_cache_bytes=16 * 1024,
        vector_cache_bytes=32 * 1024,
    ),
    tmr_bytes=0x1300000,  # kernel logs of Navi31: "reserve 0x1300000 from ... for PSP TMR"
    timings=TIMINGS,
    power=POWER,
    function_reset_s=0.1,
    bus_reset_s=0.1,
    rom=ROM,
    # The places are those of the registers (RCC_DEV0_EPF0_GFXMSIX_*), which are for four vectors; that boards of this
    # chip offer MSI-X at all, and how many vectors, is inferred.
    msix=MsixSpec(vectors=4, bar=5, table_offset=0x42000, pending_offset=0x43000),
)
