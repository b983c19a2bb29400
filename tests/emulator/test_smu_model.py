"""The SMU model, driven through its mailboxes as a driver does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.emulator.chips import CHIPS
from amdrv.emulator.models.psp_images import LoadedImage
from amdrv.emulator.models.smu_13_0_0 import Smu
from amdrv.emulator.models.smu_thermal import ThermalState, advance, read
from amdrv.emulator.shell import Card
from amdrv.facts.psp import FwType
from amdrv.facts.smu_v13_0_0 import METRICS, Clock, Feature, Message, Result, Table, Temperature

VERSION = 0x004E8700
POWER = CHIPS["gfx1100"].power
TABLE_OFFSET = 1 << 20
FLAGS_SMN = 0x3B10024


@dataclass
class Host:
    """The least that a driver does to talk to an SMU."""

    card: Card

    def read(self, number: int) -> int:
        return self.card.read_register(self.card.registers.block("MP1")[f"MP1_SMN_C2PMSG_{number}"].address)

    def write(self, number: int, value: int) -> None:
        self.card.write_register(self.card.registers.block("MP1")[f"MP1_SMN_C2PMSG_{number}"].address, value)

    def wait(self, check: Callable[[], bool], timeout_s: float = 1.0) -> bool:
        deadline_ns = self.card.clock.now_ns + round(timeout_s * 1e9)
        while not check():
            remaining_ns = deadline_ns - self.card.clock.now_ns
            if remaining_ns <= 0:
                return False
            self.card.relax(remaining_ns / 1e9)
        return True

    def send(self, message: int, argument: int = 0) -> tuple[int, int]:
        """(response, argument register) of a message; response 0 when none came within a second."""
        self.write(90, 0)
        self.write(82, argument)
        self.write(66, message)
        self.wait(lambda: self.read(90) != 0)
        return self.read(90), self.read(82)

    def send_debug(self, message: int) -> int:
        self.write(54, 0)
        self.write(53, 0)
        self.write(75, message)
        self.wait(lambda: self.read(54) != 0)
        return self.read(54)

    def smn(self, address: int) -> int:
        nbio = self.card.registers.block("NBIO")
        self.card.write_register(nbio["BIF_BX_PF0_RSMU_INDEX"].address, address)
        return self.card.read_register(nbio["BIF_BX_PF0_RSMU_DATA"].address)

    def set_table_address(self) -> None:
        address = CHIPS["gfx1100"].fb_base + TABLE_OFFSET
        self.send(Message.SetDriverDramAddrHigh, address >> 32)
        self.send(Message.SetDriverDramAddrLow, address & 0xFFFF_FFFF)

    def metrics(self) -> dict[str, int | tuple[int, ...]]:
        assert self.send(Message.TransferTableSmu2Dram, Table.SMU_METRICS)[0] == Result.OK
        return METRICS.unpack(bytes(self.card.vram_view(TABLE_OFFSET, METRICS.size_bytes)))


@pytest.fixture
def cold() -> Host:
    return Host(Card("test", CHIPS["gfx1100"], vram_bytes=64 << 20))


@pytest.fixture
def host(cold: Host) -> Host:
    """With firmware running."""
    cold.card.model(Smu).firmware_loaded(LoadedImage(FwType.SMU, "SMU", VERSION, 0x1000, bytes(32), 0))
    assert cold.wait(lambda: cold.smn(FLAGS_SMN) == 1)
    return cold


def test_nothing_answers_before_firmware_is_loaded(cold: Host) -> None:
    assert cold.smn(FLAGS_SMN) == 0
    assert cold.send(Message.TestMessage, 41) == (0, 41)
    assert cold.send_debug(1) == 0


def test_images_of_other_engines_do_not_start_the_smu(cold: Host) -> None:
    cold.card.model(Smu).firmware_loaded(LoadedImage(FwType.RLC_G, "RLC_G", 1, 0x1000, bytes(32), 0))
    cold.card.sleep(0.1)
    assert cold.smn(FLAGS_SMN) == 0


def test_test_message_answers_its_argument_plus_one(host: Host) -> None:
    assert host.send(Message.TestMessage, 41) == (Result.OK, 42)
    assert host.send(Message.TestMessage, 0xFFFF_FFFF) == (Result.OK, 0)


def test_versions_are_those_of_the_image_and_of_the_interface(host: Host) -> None:
    assert host.send(Message.GetSmuVersion) == (Result.OK, VERSION)
    assert host.send(Message.GetDriverIfVersion) == (Result.OK, 0x3D)


def test_message_takes_18_microseconds_and_the_response_is_zero_until_then(host: Host) -> None:
    host.write(90, 0)
    started_ns = host.card.clock.now_ns
    host.write(66, Message.TestMessage)
    assert host.read(90) == 0
    assert host.wait(lambda: host.read(90) != 0)
    assert 18_000 <= host.card.clock.now_ns - started_ns < 21_000


def test_message_during_another_is_rejected_as_busy(host: Host) -> None:
    host.write(90, 0)
    host.write(66, Message.TestMessage)
    host.write(66, Message.GetSmuVersion)
    assert host.read(90) == Result.CmdRejectedBusy


def test_number_without_a_message_is_unknown_and_an_unmodelled_message_fails(host: Host) -> None:
    assert host.send(0x7777)[0] == Result.UnknownCmd
    assert host.send(Message.EnterBaco)[0] == Result.Failed


def test_features_run_as_far_as_allowed(host: Host) -> None:
    host.send(Message.SetAllowedFeaturesMaskHigh, 0)
    host.send(Message.SetAllowedFeaturesMaskLow, 1 << Feature.DPM_GFXCLK | 1 << Feature.FAN_CONTROL)
    assert host.send(Message.EnableAllSmuFeatures)[0] == Result.OK
    assert host.send(Message.GetRunningSmuFeaturesHigh) == (Result.OK, 0)
    assert host.send(Message.GetRunningSmuFeaturesLow) == (
        Result.OK,
        1 << Feature.DPM_GFXCLK | 1 << Feature.FAN_CONTROL,
    )
    host.send(Message.DisableSmuFeaturesLow, 1 << Feature.FAN_CONTROL)
    assert host.send(Message.GetRunningSmuFeaturesLow)[1] == 1 << Feature.DPM_GFXCLK


def test_clock_levels_are_counted_and_listed(host: Host) -> None:
    levels = POWER.clock_levels_mhz[Clock.UCLK.name]
    assert host.send(Message.GetDpmFreqByIndex, Clock.UCLK << 16 | 0xFF) == (Result.OK, len(levels))
    listed = [host.send(Message.GetDpmFreqByIndex, Clock.UCLK << 16 | n)[1] for n in range(len(levels))]
    assert tuple(listed) == levels
    assert host.send(Message.GetDpmFreqByIndex, Clock.UCLK << 16 | len(levels))[0] == Result.Failed
    assert host.send(Message.GetDpmFreqByIndex, Clock.GFXCLK << 16 | 0xFF)[1] == 0x8000_0002
    assert host.send(Message.GetDpmFreqByIndex, 0x55 << 16)[0] == Result.Failed


def test_frequency_bounds_need_their_feature_and_are_clamped(host: Host) -> None:
    assert host.send(Message.SetSoftMaxByFreq, Clock.GFXCLK << 16 | 900)[0] == Result.CmdRejectedPrereq
    host.send(Message.EnableAllSmuFeatures)
    host.set_table_address()
    assert host.send(Message.SetSoftMinByFreq, Clock.GFXCLK << 16 | 900)[0] == Result.OK
    assert host.metrics()["AverageGfxclkFrequencyTarget"] == 900
    assert host.send(Message.SetSoftMinByFreq, Clock.GFXCLK << 16 | 0xFFFF)[0] == Result.OK
    assert host.metrics()["AverageGfxclkFrequencyTarget"] == POWER.clock_levels_mhz[Clock.GFXCLK.name][-1]


def test_power_limit_is_bounded_by_the_board(host: Host) -> None:
    assert host.send(Message.GetPptLimit) == (Result.OK, POWER.board_power_w)
    assert host.send(Message.SetPptLimit, 250)[0] == Result.OK
    assert host.send(Message.GetPptLimit)[1] == 250
    assert host.send(Message.SetPptLimit, POWER.board_power_w + 1)[0] == Result.Failed
    assert host.send(Message.SetPptLimit, 0)[0] == Result.Failed


def test_tables_need_an_address_that_is_memory(host: Host) -> None:
    assert host.send(Message.TransferTableSmu2Dram, Table.SMU_METRICS)[0] == Result.CmdRejectedPrereq
    host.send(Message.SetDriverDramAddrHigh, 0x1234)
    assert host.send(Message.TransferTableSmu2Dram, Table.SMU_METRICS)[0] == Result.Failed
    host.set_table_address()
    assert host.send(Message.TransferTableSmu2Dram, Table.SMU_METRICS)[0] == Result.OK
    assert host.send(Message.TransferTableSmu2Dram, 0x99)[0] == Result.Failed


def test_idle_metrics_are_plausible(host: Host) -> None:
    host.set_table_address()
    metrics = host.metrics()
    temperatures = metrics["AvgTemperature"]
    clocks = metrics["CurrClock"]
    assert isinstance(temperatures, tuple) and isinstance(clocks, tuple)
    assert metrics["AverageSocketPower"] == POWER.idle_power_w
    assert metrics["AverageGfxActivity"] == 0
    assert metrics["AvgFanRpm"] == 0
    assert temperatures[Temperature.EDGE] == POWER.idle_temperature_c
    assert temperatures[Temperature.EDGE] <= temperatures[Temperature.HOTSPOT] < 110
    assert clocks[Clock.GFXCLK] == POWER.clock_levels_mhz[Clock.GFXCLK.name][0]
    assert host.metrics()["MetricsCounter"] == 2


def test_combined_power_play_table_has_the_firmwares_table_behind_the_boards(host: Host) -> None:
    # Linux 6.12 smu_v13_0_0_ppt.c: smu_v13_0_0_setup_pptable; smu_v13_0_0_pptable.h: smu_13_0_0_powerplay_table.
    host.set_table_address()
    assert host.send(Message.TransferTableSmu2Dram, Table.PPTABLE)[0] == Result.OK
    firmware_table = bytes(host.card.vram_view(TABLE_OFFSET, 3972))
    assert host.send(Message.TransferTableSmu2Dram, Table.COMBO_PPTABLE)[0] == Result.OK
    combined = bytes(host.card.vram_view(TABLE_OFFSET, 832 + 3972))
    assert (combined[2], combined[4], int.from_bytes(combined[6:8], "little")) == (15, 2, 832)
    assert combined[832:] == firmware_table
    assert int.from_bytes(combined[832 + 2808 :][:2], "little") == POWER.board_power_w  # MsgLimits.Power[PPT0][AC]
    assert not combined[18] & 0x8  # no BACO: the driver would switch the card off through it


def test_overdrive_begins_with_the_boards_own_clocks(host: Host) -> None:
    host.set_table_address()
    assert host.send(Message.TransferTableSmu2Dram, Table.OVERDRIVE)[0] == Result.OK
    table = bytes(host.card.vram_view(TABLE_OFFSET, 140))
    assert int.from_bytes(table[22:24], "little") == POWER.clock_levels_mhz[Clock.GFXCLK.name][-1]
    assert int.from_bytes(table[26:28], "little") == POWER.clock_levels_mhz[Clock.UCLK.name][-1]


def test_table_that_was_handed_over_reads_back(host: Host) -> None:
    host.set_table_address()
    host.card.vram_view(TABLE_OFFSET, 16)[:] = bytes(range(16))
    assert host.send(Message.TransferTableDram2Smu, Table.WATERMARKS)[0] == Result.OK
    host.card.vram_view(TABLE_OFFSET, 16)[:] = bytes(16)
    assert host.send(Message.TransferTableSmu2Dram, Table.WATERMARKS)[0] == Result.OK
    assert bytes(host.card.vram_view(TABLE_OFFSET, 16)) == bytes(range(16))
    assert host.send(Message.TransferTableDram2Smu, Table.SMU_METRICS)[0] == Result.Failed


@pytest.mark.parametrize("way", ["message", "debug mailbox"])
def test_mode1_reset_is_answered_then_loses_vram_and_registers_and_comes_back(host: Host, way: str) -> None:
    card = host.card
    card.vram_view(0, 4)[:] = b"gone"
    nbio = card.registers.block("NBIO")
    aperture = nbio["RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN"].address
    card.write_register(aperture, 1)
    card.write_register(nbio["BIF_BX0_BIOS_SCRATCH_3"].address, 0x1234)
    answer = host.send(Message.Mode1Reset)[0] if way == "message" else host.send_debug(2)
    assert answer == Result.OK
    started_ns = card.clock.now_ns
    card.sleep(0.002)
    assert card.read_register(aperture) == 0xFFFF_FFFF
    ready = card.registers.block("MP0")["MP0_SMN_C2PMSG_33"].address
    assert host.wait(lambda: card.read_register(ready) == 0x8000_0000)
    assert 0.4 < (card.clock.now_ns - started_ns) / 1e9 < 0.5
    assert bytes(card.vram_view(0, 4)) == bytes(4)
    assert card.read_register(aperture) == 0
    assert card.read_register(nbio["BIF_BX0_BIOS_SCRATCH_3"].address) == 0x1234
    assert card.config.memory_decode
    assert host.send(Message.TestMessage)[0] == 0


def test_unloading_ends_the_firmware_and_lets_it_be_loaded_again(host: Host) -> None:
    assert host.send(Message.PrepareMp1ForUnload, 0x11)[0] == Result.Failed
    assert host.send(Message.PrepareMp1ForUnload, 0x55)[0] == Result.OK
    assert host.smn(FLAGS_SMN) == 0
    assert host.send(Message.TestMessage)[0] == 0


def test_unresponsive_smu_times_out(host: Host) -> None:
    host.card.faults.unresponsive.add("MP1")
    assert host.send(Message.TestMessage)[0] == 0
    host.card.faults.unresponsive.clear()
    assert host.send(Message.TestMessage)[0] == Result.OK


def test_thermal_registers_agree_with_the_metrics(host: Host) -> None:
    host.set_table_address()
    temperatures = host.metrics()["AvgTemperature"]
    thm = host.card.registers.block("THM")
    current, status = thm["THM_TCON_CUR_TMP"], thm["CG_MULT_THERMAL_STATUS"]
    assert isinstance(temperatures, tuple)
    eighths = current.decode(host.card.read_register(current.address)).CUR_TEMP
    assert eighths == 8 * temperatures[Temperature.EDGE]
    hotspot = status.decode(host.card.read_register(status.address)).ASIC_MAX_TEMP
    assert hotspot == temperatures[Temperature.HOTSPOT]


# -- thermal state ----------------------------------------------------------------------------------------------------


def test_a_minute_of_work_heats_the_board_and_starts_the_fan() -> None:
    state = advance(ThermalState(), 60_000_000_000, 60_000_000_000, POWER, POWER.board_power_w)
    busy = read(state, POWER, POWER.board_power_w)
    assert busy.activity_percent == 100
    assert busy.power_w == POWER.board_power_w
    assert busy.edge_c >= POWER.busy_temperature_c - 3
    assert busy.fan_rpm > 0
    assert busy.energy_j == pytest.approx(60 * POWER.board_power_w)


def test_power_stays_under_the_limit() -> None:
    state = advance(ThermalState(), 10_000_000_000, 10_000_000_000, POWER, 200)
    assert read(state, POWER, 200).power_w == 200


@given(st.lists(st.tuples(st.integers(0, 10**10), st.floats(0, 1)), max_size=8))
def test_thermal_state_stays_in_range_whatever_the_load(steps: list[tuple[int, float]]) -> None:
    state, now_ns, busy_ns = ThermalState(), 0, 0
    for elapsed_ns, load in steps:
        now_ns, busy_ns = now_ns + elapsed_ns, busy_ns + round(elapsed_ns * load)
        before = state.energy_j
        state = advance(state, now_ns, busy_ns, POWER, POWER.board_power_w)
        sensors = read(state, POWER, POWER.board_power_w)
        assert 0 <= sensors.activity_percent <= 100
        assert POWER.idle_power_w <= sensors.power_w <= POWER.board_power_w
        assert POWER.idle_temperature_c <= sensors.edge_c <= POWER.busy_temperature_c
        assert state.energy_j >= before
