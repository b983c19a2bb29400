"""SMU 13.0.0: two mailboxes in front of the power management firmware, its start by the PSP, and mode1 reset.

Sources: Linux 6.12 smu_cmn.c (__smu_cmn_send_msg, __smu_cmn_poll_stat), smu_v13_0_0_ppt.c
(smu_v13_0_0_set_smu_mailbox_registers, smu_v13_0_0_mode1_reset), smu_v13_0.c (smu_v13_0_check_fw_status).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from amdrv.emulator.model import PowerManagement
from amdrv.emulator.models.psp_13_0 import Psp
from amdrv.emulator.models.psp_images import FirmwareUser, LoadedImage
from amdrv.emulator.models.smu_gfxoff import BLOCK as GRAPHICS_BLOCK
from amdrv.emulator.models.smu_gfxoff import DOMAIN as GRAPHICS_DOMAIN
from amdrv.emulator.models.smu_interface import SmuInterface
from amdrv.emulator.models.smu_messages import Answer, PowerFirmware
from amdrv.emulator.models.smu_tables import INTERFACE
from amdrv.emulator.models.smu_thermal import Sensors, ThermalState, advance, read
from amdrv.facts.mailboxes import SMU_FIRMWARE_FLAGS_READY, SMU_FIRMWARE_FLAGS_SMN, SMU_REGISTER, SmuMailbox
from amdrv.facts.psp import FwType
from amdrv.facts.smu_v13_0_0 import DebugMessage, Result
from amdrv.registers import Register, RegisterTable

if TYPE_CHECKING:
    from amdrv.emulator.register_space import Slot
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

DWORD_BYTES = 4
# Linux 6.12 smu_v13_0_0_ppt.c calls debug message 2 Mode1Reset; the message header's name for it is another.
DEBUG_MODE1_RESET = 2
# PrepareMp1ForUnload: Linux 6.12 sends the first to 13.0.0 and unloads the firmware. 7.3 sends the second, as both do
# to 14.0.2 (smu_cmn_set_mp1_state), and needs the firmware for the reset when it comes back.
UNLOAD_ARGUMENT, PREPARE_ARGUMENT = 0x55, 0


class Mailbox(NamedTuple):
    """Message, argument and response register of one way in."""

    message: Slot
    argument: Slot
    response: Slot


class Smu(FirmwareUser, PowerManagement):
    """The system management unit."""

    ip = "MP1"
    interface: SmuInterface = INTERFACE

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._names = {number: name for name, number in self.interface.messages.items()}
        self._main = self._claim_mailbox(SmuMailbox.MESSAGE, SmuMailbox.ARGUMENT, SmuMailbox.RESPONSE, self._message)
        self._debug = self._claim_mailbox(
            SmuMailbox.DEBUG_MESSAGE, SmuMailbox.DEBUG_ARGUMENT, SmuMailbox.DEBUG_RESPONSE, self._debug_message
        )
        self._flags = self.claim_flags()
        self.claim("MP1_SMN_IH_SW_INT")
        self.claim("MP1_SMN_IH_SW_INT_CTRL")
        self._thermal = ThermalState()
        self._firmware: PowerFirmware | None = None
        self._busy = False

    @property
    def firmware(self) -> PowerFirmware | None:
        """The running firmware, None before the PSP has loaded it."""
        return self._firmware

    def power_on(self) -> None:
        self._firmware = None
        self._busy = False  # heat stays: a reset does not cool the board

    def firmware_loaded(self, image: LoadedImage) -> None:
        if image.fw_type == FwType.SMU:
            self.card.clock.after(self.card.chip.timings.smu_start, lambda: self._start(image))

    def doorbell_rang(self, block: str) -> None:
        """A doorbell is on its way to a block: the graphics core gets its power, for copy engines too."""
        if block in GRAPHICS_DOMAIN and self._firmware is not None:
            self._firmware.graphics_power.wake()

    def sensors(self) -> Sensors:
        """Temperatures, power, activity and fan now."""
        power = self.card.chip.power
        limit_w = self._firmware.power_limit_w if self._firmware is not None else power.board_power_w
        busy_ns = self.card.worker.busy_ns()
        self._thermal = advance(self._thermal, self.card.clock.now_ns, busy_ns, power, limit_w)
        return read(self._thermal, power, limit_w)

    def _start(self, image: LoadedImage) -> None:
        self._firmware = PowerFirmware(self.card, image.version, self.sensors, self.interface)
        self._flags.value = SMU_FIRMWARE_FLAGS_READY
        # Linux 6.1 waits for an answer before its first message, later ones do not: it is there from the beginning.
        self._main.response.value = Result.OK

    # -- mailboxes ----------------------------------------------------------------------------------------------------

    def _message(self, message: int) -> None:
        firmware = self._serving()
        if firmware is None:
            return
        if self._busy:
            self._main.response.value = Result.CmdRejectedBusy
            return
        self._busy = True
        argument = self._main.argument.value
        self.card.clock.after(self._duration_s(message), lambda: self._finish(firmware, message, argument))

    def _finish(self, firmware: PowerFirmware, message: int, argument: int) -> None:
        self._busy = False
        result, value = self._special(message, argument) or firmware.handle(message, argument)
        if result != Result.OK:
            log.info("%s: SMU message %#x(%#x) answered with %s", self.card.name, message, argument, result.name)
        self._main.argument.value = value
        self._main.response.value = result

    def _special(self, message: int, argument: int) -> Answer | None:
        """Messages that end the firmware's life."""
        name = self._names.get(message)
        if name == "Mode1Reset":
            self._reset_soon()
            return Result.OK, argument
        if name == "PrepareMp1ForUnload":
            if argument == PREPARE_ARGUMENT:
                return Result.OK, argument
            if argument != UNLOAD_ARGUMENT:
                return Result.Failed, argument
            self._firmware = None
            self._flags.value = 0
            self.card.space.ungate(GRAPHICS_BLOCK)
            self.card.model(Psp).unload(FwType.SMU)
            return Result.OK, argument
        return None

    def _debug_message(self, message: int) -> None:
        if self._serving() is not None:
            self.card.clock.after(self.card.chip.timings.smu_message, lambda: self._finish_debug(message))

    def _finish_debug(self, message: int) -> None:
        result = Result.OK
        if message == DEBUG_MODE1_RESET:
            self._reset_soon()
        elif message != DebugMessage.TestMessage:
            result = Result.UnknownCmd
        self._debug.response.value = result

    def _serving(self) -> PowerFirmware | None:
        return None if self.card.faults.silent(self.ip) else self._firmware

    def _duration_s(self, message: int) -> float:
        timings = self.card.chip.timings
        return {
            "TransferTableSmu2Dram": timings.smu_table,
            "TransferTableDram2Smu": timings.smu_table,
            "RunDcBtc": timings.smu_calibration,
            "EnableAllSmuFeatures": timings.smu_features,
            "DisableAllSmuFeatures": timings.smu_features,
        }.get(self._names.get(message, ""), timings.smu_message)

    def _reset_soon(self) -> None:
        timings = self.card.chip.timings
        self.card.clock.after(timings.smu_reset_delay, lambda: self.card.reset_chip(timings.mode1))

    # -- registers ----------------------------------------------------------------------------------------------------

    def _claim_mailbox(
        self, message: SmuMailbox, argument: SmuMailbox, response: SmuMailbox, on_message: Callable[[int], None]
    ) -> Mailbox:
        return Mailbox(
            self.claim(SMU_REGISTER.format(int(message)), on_write=on_message),
            self.claim(SMU_REGISTER.format(int(argument))),
            self.claim(SMU_REGISTER.format(int(response))),
        )

    def claim_flags(self) -> Slot:
        """The firmware flags lie in the SMN address space, where no base address of the block points."""
        table = RegisterTable.load("mp_13_0_0")
        dword = SMU_FIRMWARE_FLAGS_SMN // DWORD_BYTES
        flags = Register(self.ip, self.instance, "MP1_FIRMWARE_FLAGS", dword, table)
        return self.card.space.claim(type(self).__name__, flags, writable=0)
