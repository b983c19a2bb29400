"""SMU 13.0.0 and 14.0.3: power management firmware. Messages through mailboxes, tables through device memory.

Messages are named as in version 13.0.0, whose names the others keep; their numbers are the interface's.

Source: Linux 6.12 smu_cmn.c (mailbox protocol), smu_v13_0.c, smu_v14_0.c, smu_v13_0_0_ppt.c, smu_v14_0_2_ppt.c.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from amdrv.errors import AmdrvError, DeviceLost, Timeout, Unsupported
from amdrv.facts.mailboxes import (
    SMU_FIRMWARE_FLAGS_READY,
    SMU_FIRMWARE_FLAGS_SMN,
    SMU_REGISTER,
    SmuMailbox,
)
from amdrv.facts.smu import SMU_13_0_0, SmuInterface
from amdrv.facts.smu_v13_0_0 import Clock, Message, Result, Temperature
from amdrv.ioctl.pci_function import ALL_ONES
from amdrv.memory.layout import SMU_TABLE
from amdrv.mmio import Mmio
from amdrv.registers import Register
from amdrv.vram import Vram

log = logging.getLogger(__name__)

MESSAGE_TIMEOUT_S = 2.0  # smu_cmn.c: twenty times adev->usec_timeout
READY_TIMEOUT_S = 1.0
# Message 2 of the debug mailbox resets too (smu_v13_0_0_ppt.c: DEBUGSMC_MSG_Mode1Reset); it is served even when the
# normal mailbox hangs.
DEBUG_MODE1_RESET = 2
BUSY_ACTIVITY_PERCENT = 15  # SMU_13_0_0_BUSY_THRESHOLD: below it the average after deep sleep is the honest one
ALL_LEVELS = 0xFF
ANY_FREQUENCY = 0xFFFF  # as an upper limit
FREQUENCY_MASK = 0x7FFFFFFF  # bit 31 of a frequency says that the clock has fine-grained levels

MEANINGS = {
    Result.Failed: "it was carried out and failed",
    Result.UnknownCmd: "this firmware does not know it",
    Result.CmdRejectedPrereq: "something has to happen before it",
    Result.CmdRejectedBusy: "the firmware is busy",
}


class SmuRejected(AmdrvError):
    """The power management firmware answered a message with something other than OK."""

    def __init__(self, message: str, argument: int, answer: int, meaning: str) -> None:
        super().__init__(f"SMU answered {message}({argument:#x}) with {answer:#x}: {meaning}")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Metrics:
    """What the power management firmware measures."""

    temperatures_c: dict[str, int]
    socket_power_w: int
    board_power_w: int
    clocks_mhz: dict[str, int]
    voltages_mv: dict[str, int]
    graphics_activity_percent: int
    memory_activity_percent: int
    fan_rpm: int
    fan_percent: int
    pcie_generation: int
    pcie_width: int
    energy: int  # in units of the firmware
    counter: int  # grows with every measurement


class Smu:
    """The power management firmware of one card."""

    def __init__(
        self, mmio: Mmio, vram: Vram, device_address: int, interface: SmuInterface = SMU_13_0_0
    ) -> None:
        self._interface = interface
        self._mmio = mmio
        self._vram = vram
        self._device_address = device_address

    # smu_cmn_send_smc_msg_with_param, __smu_cmn_send_msg
    def send(self, message: Message, argument: int = 0, timeout_s: float = MESSAGE_TIMEOUT_S) -> None:
        """Send a message and wait for its answer.

        Raises SmuRejected, Timeout, DeviceLost, Unsupported for a message that this firmware does not have.
        """
        number = self._interface.messages.get(message.name)
        if number is None:
            raise Unsupported(f"{self._mmio.function.name}: its SMU has no message {message.name}")
        answer = self._exchange(
            (SmuMailbox.RESPONSE, SmuMailbox.ARGUMENT, SmuMailbox.MESSAGE), number, argument, timeout_s, message.name
        )
        if answer == ALL_ONES:
            raise DeviceLost(f"{self._mmio.function.name}: reads return all ones while the SMU does {message.name}")
        if answer != Result.OK:
            meaning = next((text for code, text in MEANINGS.items() if code == answer), "not a known answer")
            raise SmuRejected(message.name, argument, answer, meaning)

    def ask(self, message: Message, argument: int = 0) -> int:
        """Send a message and return the value it answers with; raises as ``send`` does."""
        self.send(message, argument)
        return int(self._mmio.read(self._reg(SmuMailbox.ARGUMENT)))

    # smu_v13_0_check_fw_status, smu_v13_0_set_driver_table_location, smu_v13_0_system_features_control
    def start(self) -> int:
        """Make the firmware manage clocks and power; its version.

        Raises Timeout when the firmware does not come up.
        """
        self._mmio.function.wait_until(
            lambda: bool(self._mmio.read_smn(SMU_FIRMWARE_FLAGS_SMN) & SMU_FIRMWARE_FLAGS_READY),
            READY_TIMEOUT_S,
            "the SMU firmware to take messages (SMN 0x3b10024 bit 0)",
        )
        version = self.ask(Message.GetSmuVersion)
        table = self._device_address + SMU_TABLE.offset
        self.send(Message.SetDriverDramAddrHigh, table >> 32)
        self.send(Message.SetDriverDramAddrLow, table & 0xFFFFFFFF)
        self.send(Message.EnableAllSmuFeatures)
        log.info("SMU firmware %d.%d.%d", version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF)
        return version

    # smu_cmn_get_metrics_table, smu_v13_0_0_get_gpu_metrics
    def read_metrics(self) -> Metrics:
        """A measurement; one message."""
        self.send(Message.TransferTableSmu2Dram, self._interface.metrics_table)
        layout = self._interface.metrics
        return decode_metrics(self._vram.read(SMU_TABLE.offset, layout.size_bytes), self._interface)

    # smu_v13_0_get_dpm_level_count, smu_v13_0_get_dpm_freq_by_index
    def frequency_levels(self, clock: Clock) -> list[int]:
        """Frequencies in MHz that a clock can be held at, ascending."""
        domain = self._interface.clocks[clock.name] << 16
        count = self.ask(Message.GetDpmFreqByIndex, domain | ALL_LEVELS) & FREQUENCY_MASK
        return [self.ask(Message.GetDpmFreqByIndex, domain | i) & FREQUENCY_MASK for i in range(count)]

    # smu_v13_0_set_soft_freq_limited_range
    def limit_clock(self, clock: Clock, low_mhz: int, high_mhz: int) -> None:
        """Keep a clock between two frequencies; 0 and ANY_FREQUENCY lift the limits."""
        domain = self._interface.clocks[clock.name] << 16
        self.send(Message.SetSoftMaxByFreq, domain | high_mhz)
        self.send(Message.SetSoftMinByFreq, domain | low_mhz)

    # smu_v13_0_0_mode1_reset, smu_v14_0_2_mode1_reset
    def mode1_reset(self) -> None:
        """Reset everything but the bus interface; device memory and registers are lost. Takes up to a second.

        Raises Timeout when no mailbox that can do it is served.
        """
        if self._interface.reset_message is None:
            self._debug_reset()
        else:
            try:
                self.send(Message[self._interface.reset_message])
            except DeviceLost:
                log.debug("the reset took the registers away before its answer could be read")
            except (Timeout, SmuRejected) as error:
                log.warning("%s; trying the debug mailbox", error)
                self._debug_reset()
        # The card must not be touched while it resets.
        self._mmio.function.sleep(self._interface.reset_wait_s)

    def _debug_reset(self) -> None:
        mailboxes = (SmuMailbox.DEBUG_RESPONSE, SmuMailbox.DEBUG_ARGUMENT, SmuMailbox.DEBUG_MESSAGE)
        self._exchange(mailboxes, DEBUG_MODE1_RESET, 0, MESSAGE_TIMEOUT_S, "mode1 reset (debug mailbox)")

    def _exchange(
        self,
        mailboxes: tuple[SmuMailbox, SmuMailbox, SmuMailbox],
        message: int,
        argument: int,
        timeout_s: float,
        what: str,
    ) -> int:
        response, parameter, request = (self._reg(mailbox) for mailbox in mailboxes)
        self._mmio.write(response, 0)
        self._mmio.write(parameter, argument)
        self._mmio.write(request, message)
        answer = 0

        def answered() -> bool:
            nonlocal answer
            answer = int(self._mmio.read(response))
            return answer != 0

        self._mmio.function.wait_until(
            answered,
            timeout_s,
            f"the SMU to answer {what} ({response.full_name})",
            hint="its firmware hangs: only a power cycle or a bus reset helps",
        )
        log.debug("SMU %s(%#x): %#x", what, argument, answer)
        return answer

    def _reg(self, mailbox: SmuMailbox) -> Register:
        return self._mmio.registers["MP1", SMU_REGISTER.format(int(mailbox))]


# smu_v13_0_0_get_gpu_metrics
def decode_metrics(table: bytes, interface: SmuInterface = SMU_13_0_0) -> Metrics:
    """The SMU's metrics table, in words a person reads."""
    layout = interface.metrics

    def number(name: str) -> int:
        return layout.get(table, name)

    temperatures = layout.get_array(table, "AvgTemperature")
    clocks = layout.get_array(table, "CurrClock")
    voltages = layout.get_array(table, "AvgVoltage")
    busy = number("AverageGfxActivity") > BUSY_ACTIVITY_PERCENT
    memory_busy = number("AverageUclkActivity") > BUSY_ACTIVITY_PERCENT
    return Metrics(
        temperatures_c={
            name: temperatures[interface.temperatures[place.name]]
            for name, place in (
                ("edge", Temperature.EDGE),
                ("hotspot", Temperature.HOTSPOT),
                ("memory", Temperature.MEM),
            )
        },
        socket_power_w=number("AverageSocketPower"),
        board_power_w=number("AverageTotalBoardPower"),
        clocks_mhz={
            "graphics": number(f"AverageGfxclkFrequency{'PreDs' if busy else 'PostDs'}"),
            "memory": number(f"AverageMemclkFrequency{'PreDs' if memory_busy else 'PostDs'}"),
            "fabric": clocks[interface.clocks[Clock.FCLK.name]],
            "soc": clocks[interface.clocks[Clock.SOCCLK.name]],
        },
        voltages_mv={name: voltages[index] for name, index in interface.planes.items()},
        graphics_activity_percent=number("AverageGfxActivity"),
        memory_activity_percent=number("AverageUclkActivity"),
        fan_rpm=number("AvgFanRpm"),
        fan_percent=number("AvgFanPwm"),
        pcie_generation=number("PcieRate"),
        pcie_width=number("PcieWidth"),
        energy=number("EnergyAccumulator"),
        counter=number("MetricsCounter"),
    )
