"""What a chip is: pure data, from which the shell and the models take everything that differs between chips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amdrv.emulator.config_space import BarSpec, MsixSpec


@dataclass(frozen=True, slots=True)
class IpInstance:
    """One entry of the IP discovery table."""

    ip: str  # name in the register map, or the hardware id's name for blocks without registers here
    hw_id: int  # Linux soc15_hw_ip.h
    instance: int
    version: tuple[int, int, int]
    bases: tuple[int, ...]  # segment bases in dwords
    harvested: bool = False


@dataclass(frozen=True, slots=True)
class ShaderArray:
    """Compute geometry."""

    shader_engines: int
    arrays_per_engine: int
    wgps_per_array: int
    simds_per_cu: int
    max_waves_per_simd: int
    lds_bytes: int
    scratch_slots_per_cu: int
    wave_size: int
    l2_bytes: int
    mall_bytes: int
    render_backends_per_engine: int
    tcp_instances_per_array: int
    vector_registers_per_simd: int  # of one lane
    l2_channels: int
    l1_bytes_per_array: int
    instruction_cache_bytes: int  # per workgroup processor
    scalar_cache_bytes: int  # per workgroup processor
    vector_cache_bytes: int  # per compute unit

    @property
    def compute_units(self) -> int:
        """Two compute units a workgroup processor."""
        return 2 * self.wgps_per_array * self.arrays_per_engine * self.shader_engines


@dataclass(frozen=True, slots=True)
class Timings:
    """Virtual durations in seconds. Where each number comes from stands beside it in the chip's file."""

    boot_rom: float  # power or reset to the boot ROM's ready flag, discovery table in place
    bootloader_stage: float  # one bootloader command, SOS apart
    sos_alive: float  # SOS command to a sign of life
    sos_ready: float  # SOS command to a usable ring interface
    ring_control: float  # ring create or destroy
    psp_command: float  # any ring command
    psp_load: float  # a load command, on top
    psp_load_per_mib: float  # a load command, per MiB of image
    smu_start: float  # SMU image accepted to messages answered
    smu_message: float  # an SMU message that only computes
    smu_table: float  # an SMU message that moves a table
    smu_calibration: float  # RunDcBtc
    smu_features: float  # EnableAllSmuFeatures, DisableAllSmuFeatures
    smu_reset_delay: float  # mode1 message answered to the reset itself
    mode1: float  # reset to registers answering again


@dataclass(frozen=True, slots=True)
class PowerAndClocks:
    """What the SMU reports and accepts."""

    clock_levels_mhz: Mapping[str, tuple[int, ...]]  # clock domain → levels, lowest first
    fine_grained: frozenset[str]  # domains whose levels are a range, not steps
    default_features: int  # feature mask when the driver allows all
    board_power_w: int
    idle_power_w: int
    idle_temperature_c: int
    busy_temperature_c: int  # edge, after a minute at full load
    fan_max_rpm: int
    fan_stop_temperature_c: int
    pcie_gen: int
    pcie_lanes: int


@dataclass(frozen=True, slots=True)
class BoardRom:
    """What the board's video BIOS says beyond what the chip's data says already."""

    part_number: str
    asic: str
    bus: str
    memory: str
    name: str
    date: str  # "MM/DD/YY HH:MM"
    version: str
    firmware_revision: int
    window_bytes: int  # expansion ROM BAR
    memory_type: int  # Linux 6.12 atomfirmware.h: enum atom_dgpu_vram_type
    memory_channels: int
    memory_channel_width_log2: int  # bits
    memory_vendor: int  # JEDEC's GDDR number of the maker


@dataclass(frozen=True, slots=True)
class Chip:
    """One GPU model."""

    arch: str
    marketing_name: str
    vendor_id: int
    device_id: int
    revision: int
    class_code: int
    subsystem: tuple[int, int]
    vram_bytes: int
    fb_base: int  # MC address of VRAM offset 0
    doorbell_bar_bytes: int
    register_bar_bytes: int
    system_window_bytes: int
    ip_instances: tuple[IpInstance, ...]
    shader_array: ShaderArray
    tmr_bytes: int  # trusted memory that LOAD_TOC asks for
    timings: Timings
    power: PowerAndClocks
    function_reset_s: float
    bus_reset_s: float
    boot_tmr_from_end_bytes: int = 0  # where in VRAM the boot ROM sets trusted memory up; 0: a driver does
    rom: BoardRom | None = None  # None: a board without a video BIOS
    msix: MsixSpec | None = None  # None: a board with MSI only

    @property
    def bases(self) -> dict[str, dict[int, tuple[int, ...]]]:
        """IP name → instance → segment bases, as the register map wants them."""
        result: dict[str, dict[int, tuple[int, ...]]] = {}
        for entry in self.ip_instances:
            result.setdefault(entry.ip, {})[entry.instance] = entry.bases
        return result

    @property
    def versions(self) -> dict[str, tuple[int, int, int]]:
        """IP name → version."""
        return {entry.ip: entry.version for entry in self.ip_instances}

    def bars(self, bar0_bytes: int) -> dict[int, BarSpec]:
        """The function's BARs; BAR0 is a power of two that holds ``bar0_bytes``."""
        size = 1 << (bar0_bytes - 1).bit_length()
        return {
            0: BarSpec(size, is_64_bit=True, prefetchable=True),
            2: BarSpec(self.doorbell_bar_bytes, is_64_bit=True, prefetchable=True),
            5: BarSpec(self.register_bar_bytes, is_64_bit=False, prefetchable=False),
        }
