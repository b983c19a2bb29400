"""The driver on a Navi48, through the code path that it takes on a Navi31: only tables differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import amdrv
from amdrv import asic, discovery, emulator
from amdrv.blocks import gfx, gmc, waves
from amdrv.blocks.smu import decode_metrics
from amdrv.emulator import discovery_table
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.shell import Card
from amdrv.errors import FirmwareRejected, GpuFault, InvalidArgument, Timeout, Unsupported
from amdrv.facts import mqd_v12, smu
from amdrv.facts.smu_v13_0_0 import Clock
from amdrv.facts.vm import HUB_CLIENTS
from amdrv.firmware import needs_for, resolve, synthetic
from amdrv.gpu import Gpu
from amdrv.ioctl import connect
from amdrv.ioctl.emulated import EmulatedFunction
from amdrv.registers import RegisterMap
from amdrv.status import probe

MIB = 1 << 20
CHIP = CHIPS["gfx1201"]
SAXPY = (Path(__file__).parents[1] / "runtime" / "data" / "saxpy.ll").read_text()
N = 200
numbers = itertools.count(4800)


@pytest.fixture
def name() -> Iterator[str]:
    """A card of its own, 1 GiB large, that nobody has booted."""
    chosen = f"emu:gfx1201#{next(numbers)}"
    emulator.card(chosen, vram_bytes=1024 * MIB)
    yield chosen
    emulator.unplug(chosen)


@pytest.fixture(scope="module")
def code() -> bytes:
    return amdrv.compile_llvm(SAXPY, arch="gfx1201")


def saxpy(dev: amdrv.Device, code: bytes, x_va: int | None = None) -> bool:
    """Whether a kernel gives the right answer."""
    random = np.random.default_rng(48)
    y, x = random.random(N, np.float32), random.random(N, np.float32)
    on_y, on_x = dev.array(y), dev.array(x)
    argument = on_x if x_va is None else x_va
    dev.load(code)["saxpy"].launch(grid=4, block=64, args=(on_y, argument, 2.5, N)).wait()
    return np.array_equal(on_y.numpy(np.float32), y + np.float32(2.5) * x)


# -- what it is -------------------------------------------------------------------------------------------------------


# Absolute byte addresses that AMD's umr (test/vm) writes on this chip, and those of the SMU's mailboxes, which have
# been at the same place since Vega 10 (gem5-resources vega_mmio.log).
@pytest.mark.parametrize(
    ("block", "register", "address"),
    [
        ("GC", "GCMC_VM_FB_LOCATION_BASE", 0xA1D0),
        ("GC", "GCVM_CONTEXT2_CNTL", 0xA218),
        ("GC", "GCVM_CONTEXT2_PAGE_TABLE_BASE_ADDR_LO32", 0xA3CC),
        ("MP1", "MP1_SMN_C2PMSG_66", 0x58A08),
        ("MP1", "MP1_SMN_C2PMSG_90", 0x58A68),
        ("MP0", "MPASP_SMN_C2PMSG_33", 4 * 0x16061),
        ("MP1", "MP1_CRU1_MP1_FIRMWARE_FLAGS", 0x3B10024),
        ("OSSSYS", "IH_RB_CNTL", 4 * (0x10A0 + 0x80)),
        ("NBIO", "RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE", 4 * 0xDE3),
    ],
)
def test_registers_are_where_the_chip_has_them(block: str, register: str, address: int) -> None:
    assert RegisterMap(CHIP.bases, CHIP.versions)[block, register].address == address


@pytest.mark.parametrize(
    ("block", "elsewhere", "here"),
    [
        ("MP0", "MP0_SMN_C2PMSG_81", "MPASP_SMN_C2PMSG_81"),
        ("NBIO", "S2A_DOORBELL_ENTRY_3_CTRL", "GDC_S2A0_S2A_DOORBELL_ENTRY_3_CTRL"),
        ("GC", "GCVM_L2_PROTECTION_FAULT_STATUS", "GCVM_L2_PROTECTION_FAULT_STATUS_LO32"),
        ("MMHUB", "MMVM_L2_PROTECTION_FAULT_STATUS", "MMVM_L2_PROTECTION_FAULT_STATUS_LO32"),
        ("GC", "CC_GC_SA_UNIT_DISABLE", "GRBM_CC_GC_SA_UNIT_DISABLE"),
        ("SDMA1", "SDMA1_F32_CNTL", "SDMA1_MCU_CNTL"),
    ],
)
def test_register_that_other_versions_know_by_another_name_is_found_under_its_own(
    block: str, elsewhere: str, here: str
) -> None:
    registers = RegisterMap(CHIP.bases, CHIP.versions).block(block)
    assert elsewhere in registers
    assert registers[elsewhere].name == here
    assert registers[elsewhere].address == registers[here].address
    assert elsewhere not in list(registers)


def test_discovery_names_both_copy_engines_and_takes_out_what_is_harvested() -> None:
    table = discovery.parse(discovery_table.build(CHIP))
    assert asic.identify(table).arch == "gfx1201"
    assert table.versions()["SDMA1"] == (7, 0, 1)
    assert {block.name for block in table.blocks if block.harvested} == {"UVD", "DMU"}
    assert (table.gc.shader_engines, table.gc.arrays_per_engine, table.gc.cus_per_array) == (4, 2, 8)


def test_wide_base_addresses_go_through_the_table() -> None:
    wide = replace(CHIP.ip_instances[0], bases=(0x12_3456_7890, 0x7000))
    table = discovery.parse(discovery_table.build(replace(CHIP, ip_instances=(wide, *CHIP.ip_instances[1:]))))
    assert table.blocks[0].bases == wide.bases
    assert table.bases()["GC"][0] == CHIP.bases["GC"][0]


@pytest.mark.parametrize(
    ("block", "version"), [("GC", (12, 0, 2)), ("MP0", (14, 0, 2)), ("MMHUB", (4, 2, 0)), ("SDMA0", (7, 0, 2))]
)
def test_neighbouring_version_is_refused_before_anything_is_written(
    block: str, version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tuple(replace(e, version=version) if e.ip == block else e for e in CHIP.ip_instances)
    build = discovery_table.build
    monkeypatch.setattr(
        "amdrv.emulator.models.psp_13_0.build", lambda chip: build(replace(chip, ip_instances=changed))
    )
    function = EmulatedFunction("emu:other", Card("emu:other", CHIP, vram_bytes=1024 * MIB))
    with pytest.raises(Unsupported, match=rf"{block} {version[0]}\.{version[1]}\.{version[2]}"):
        Gpu.open(function)
    assert function.traffic.writes == 0
    assert function.traffic.doorbells == 0


def test_every_table_of_the_driver_has_a_row_for_every_chip_it_knows() -> None:
    for chip in asic.ASICS:
        versions = chip.versions
        assert {("GC", versions["GC"]), ("MMHUB", versions["MMHUB"])} <= gmc.DESIGNS.keys() & HUB_CLIENTS.keys()
        assert versions["GC"] in gfx.DESIGNS
        assert versions["GC"] in waves.DESIGNS
        assert versions["MP1"] in smu.INTERFACES
        assert needs_for(versions, scope="compute")
        assert resolve(versions, synthetic.images_for(chip.arch)).loads


def test_descriptor_of_a_queue_is_that_of_its_generation() -> None:
    # Linux 6.12 gfx_v12_0_compute_mqd_init
    gc = RegisterMap(CHIP.bases, CHIP.versions).block("GC")
    spec = gfx.QueueSpec(0x10000, 4096, 0x20000, 0x20008, 0x30000, 4096, 0x80_0000_1000, 8)
    mqd = gfx.compute_mqd(gc, spec, gfx.DESIGNS[12, 0, 1])
    get = mqd_v12.V12_COMPUTE_MQD.get
    assert get(mqd, "compute_misc_reserved") == 7
    assert get(mqd, "compute_static_thread_mgmt_se3") == 0xFFFFFFFF
    assert get(mqd, "compute_static_thread_mgmt_se4") == 0
    assert get(mqd, "cp_hqd_pq_control") == 0x308509 & ~0x3F3F | 1 << 28 | 3 << 30 | 9 | 5 << 8
    assert get(mqd, "cp_hqd_persistent_state") == 0x0BE05501 & ~(0x3FF << 8) | 0x55 << 8
    assert mqd_v12.V12_COMPUTE_MQD.size_bytes == 2048


# -- start and restart ------------------------------------------------------------------------------------------------


def test_card_starts_cold_computes_and_starts_warm(name: str, code: bytes) -> None:
    with amdrv.open(name) as dev:
        assert (dev.arch, dev.name) == ("gfx1201", "Radeon RX 9070 XT (emulated)")
        assert dev.boot.kind == "cold"
        assert saxpy(dev, code)
    with amdrv.open(name) as dev:
        assert dev.boot.kind == "warm"
        assert dev.boot.virtual_s is not None
        assert dev.boot.virtual_s < 0.020
        assert saxpy(dev, code)
    assert emulator.card(name).unmodelled() == []


def test_starts_of_two_cards_are_the_same_to_the_access(name: str) -> None:
    other = f"emu:gfx1201#{next(numbers)}"
    emulator.card(other, vram_bytes=1024 * MIB)
    reports = []
    for which in (name, other):
        with amdrv.open(which) as dev:
            reports.append((dev.boot.reads, dev.boot.writes, dev.boot.virtual_s))
    emulator.unplug(other)
    assert reports[0] == pytest.approx(reports[1])


def test_state_is_seen_without_a_write(name: str) -> None:
    function = connect(name)
    report = probe(function)
    assert (report.state, report.arch, report.product) == ("cold", "gfx1201", "Radeon RX 9070 XT (emulated)")
    with amdrv.open(name):
        pass
    report = probe(function)
    assert (report.state, report.compute_units) == ("warm", 64)
    assert function.traffic.writes == 0


def test_mode1_reset_goes_through_the_debug_mailbox_and_the_next_start_is_cold(name: str) -> None:
    # Linux 6.12 smu_v14_0_2_ppt.c: the message map has no Mode1Reset, mode1_reset sends a debug message.
    dev = amdrv.open(name)
    before_s = emulator.card(name).clock.now_s
    dev.reset("mode1")
    assert emulator.card(name).clock.now_s - before_s >= 1.0  # smu_v14_0_2_mode1_reset: msleep(1000)
    dev.close()
    with amdrv.open(name) as dev:
        assert dev.boot.kind == "cold"


def test_firmware_that_is_not_the_same_is_loaded_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with amdrv.open(name):
        pass
    for file, data in synthetic.images_for("gfx1201", "another").items():
        (tmp_path / file).write_bytes(data)
    monkeypatch.setenv("AMDRV_FIRMWARE", str(tmp_path))
    with amdrv.open(name) as dev:
        assert dev.boot.kind == "cold"


def test_image_that_the_card_refuses_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = dict(synthetic.images_for("gfx1201"))
    image = bytearray(images["gc_12_0_1_rlc.bin"])  # of a kind whose own checksum nobody looks at
    image[0x400] ^= 0x10
    images["gc_12_0_1_rlc.bin"] = bytes(image)
    for file, data in images.items():
        (tmp_path / file).write_bytes(data)
    monkeypatch.setenv("AMDRV_FIRMWARE", str(tmp_path))
    with pytest.raises(FirmwareRejected, match=r"RLC_G of gc_12_0_1_rlc\.bin"):
        amdrv.open(name)


def test_start_works_through_a_bar_of_256_mib(code: bytes) -> None:
    chosen = f"emu:gfx1201#{next(numbers)}"
    emulator.card(chosen, vram_bytes=1024 * MIB, bar0_bytes=256 * MIB)
    with amdrv.open(chosen) as dev:
        assert saxpy(dev, code)
    emulator.unplug(chosen)


# -- work -------------------------------------------------------------------------------------------------------------


def test_page_fault_names_client_instruction_and_address_and_costs_the_queue_only(name: str, code: bytes) -> None:
    with amdrv.open(name) as dev:
        with pytest.raises(GpuFault, match=r"read of 0xdead00[08]0 by TCP.*saxpy.*global_load_b32"):
            saxpy(dev, code, x_va=0xDEAD0000)
        assert saxpy(dev, code)


ENDLESS = """
define amdgpu_kernel void @spin(ptr addrspace(1) %flag) {
  br label %loop
loop:
  %value = load volatile i32, ptr addrspace(1) %flag
  %go_on = icmp eq i32 %value, 0
  br i1 %go_on, label %loop, label %end
end:
  ret void
}
"""


@pytest.mark.parametrize("level", ["queue", "engine"])
def test_kernel_that_never_ends_is_ended_by_a_reset_of(level: str, name: str, code: bytes) -> None:
    with amdrv.open(name) as dev:
        flag = dev.array(np.zeros(1, np.int32))
        kernel = dev.load(amdrv.compile_llvm(ENDLESS, arch="gfx1201"))["spin"]
        kernel.launch(1, 1, (flag,))
        dev.reset(level)
        assert saxpy(dev, code)
        kernel.launch(1, 1, (flag,))
        with pytest.raises(Timeout, match="spin"):
            dev.synchronize(0.3)
        assert saxpy(dev, code)


def test_engine_is_reset_by_its_pipe_alone(name: str, code: bytes) -> None:
    # Linux 6.12 gfx_v12_0.c never writes GRBM_SOFT_RESET for the command processor.
    card = emulator.card(name)
    reset = card.registers["GC", "GRBM_SOFT_RESET"].address
    with amdrv.open(name) as dev:
        card.trace.start()
        dev.reset("engine")
        written = {entry.offset for entry in card.trace.entries if entry.is_write and entry.space == "register"}
        card.trace.stop()
        assert card.registers["GC", "CP_MEC_RS64_CNTL"].address in written
        assert reset not in written
        assert saxpy(dev, code)


def test_code_of_another_generation_is_refused(name: str) -> None:
    with amdrv.open(name) as dev, pytest.raises(Unsupported, match=r"gfx1100.*gfx1201"):
        dev.load(amdrv.compile_llvm(SAXPY, arch="gfx1100"))


def test_power_firmware_measures_and_holds_clocks(name: str) -> None:
    gpu = Gpu.open(connect(name))
    try:
        metrics = gpu.telemetry()
        assert metrics.temperatures_c["edge"] >= 36
        assert metrics.pcie_generation == 5
        gpu.set_performance("high")
        assert gpu.telemetry().clocks_mhz["soc"] == 1200
        with pytest.raises(InvalidArgument):
            gpu.set_performance("highest")
        assert gpu._hardware.smu.frequency_levels(Clock.UCLK) == [96, 456, 772, 1258]
    finally:
        gpu.close()


def test_metrics_are_read_from_where_this_version_has_them() -> None:
    interface = smu.SMU_14_0_2
    table = interface.metrics.pack(
        AvgTemperature=[40, 55, 0, 0, 62], CurrClock=[1, 2, 3, 4], AvgVoltage=[900, 800, 700, 1350], AvgFanRpm=1234
    )
    metrics = decode_metrics(bytes(table), interface)
    assert metrics.temperatures_c == {"edge": 40, "hotspot": 55, "memory": 62}
    assert (metrics.clocks_mhz["soc"], metrics.clocks_mhz["fabric"]) == (2, 4)
    assert metrics.voltages_mv == {"graphics": 900, "soc": 800, "memory": 1350}
    assert metrics.fan_rpm == 1234
