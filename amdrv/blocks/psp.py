"""PSP 13 and 14: the security processor, which checks and loads every firmware of the card.

First its bootloader takes a few images through a mailbox, the last of them the secure OS (sOS). Then commands go
through a ring in device memory. Every buffer is in device memory, at addresses of the device memory aperture.

Source: Linux 6.12 psp_v13_0.c, psp_v14_0.c (the same sequences, one more bootloader stage), amdgpu_psp.c (psp_hw_start,
psp_load_non_psp_fw, psp_cmd_submit_buf).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from amdrv.errors import FirmwareRejected, InvalidArgument, Timeout, Unsupported
from amdrv.facts.layout import StructLayout
from amdrv.facts.mailboxes import (
    BOOTLOADER_ADDRESS_SHIFT,
    PSP_REGISTER,
    PSP_STATUS,
    READY,
    RING_FRAME_DWORDS,
    RING_STATUS_MASK,
    SETTLE_AFTER_COMMAND_S,
    TMR_ALIGNMENT_BYTES,
    TMR_PHYSICAL_ADDRESS,
    PspMailbox,
)
from amdrv.facts.psp import (
    COMMAND_BUFFER,
    LOAD_IP_FW,
    LOAD_TOC,
    RESPONSE,
    RING_FRAME,
    SETUP_TMR,
    BootloaderCommand,
    Command,
    RingType,
)
from amdrv.memory.layout import PSP_COMMAND, PSP_FENCE, PSP_MESSAGE, PSP_RING, TMR
from amdrv.mmio import Mmio
from amdrv.registers import Register
from amdrv.vram import Vram

log = logging.getLogger(__name__)

DWORD_BYTES = 4
# amdgpu_psp.c: psp_early_init: versions whose trusted memory region is set up before any driver runs (boot_time_tmr).
BOOT_TIME_TMR = frozenset({(14, 0, 3)})
BOOTLOADER_TIMEOUT_S = 1.0  # ten times adev->usec_timeout
SOS_START_TIMEOUT_S = 2.0
RING_TIMEOUT_S = 1.0
COMMAND_TIMEOUT_S = 2.0  # psp_timeout: 20000 polls of 60 to 100 us

# psp_hw_start: which mailbox command takes which piece.
BOOTLOADER_COMMANDS = {
    "KDB": BootloaderCommand.LOAD_KEY_DATABASE,
    "SPL": BootloaderCommand.LOAD_TOS_SPL_TABLE,
    "SYS_DRV": BootloaderCommand.LOAD_SYSDRV,
    "SOC_DRV": BootloaderCommand.LOAD_SOCDRV,
    "INTF_DRV": BootloaderCommand.LOAD_INTFDRV,
    "DBG_DRV": BootloaderCommand.LOAD_DBGDRV,
    "RAS_DRV": BootloaderCommand.LOAD_RASDRV,
    "IPKEYMGR_DRV": BootloaderCommand.LOAD_IPKEYMGRDRV,
    "SOS": BootloaderCommand.LOAD_SOSDRV,
}


class Load(Protocol):
    """A piece to load; ``amdrv.firmware.PspLoad`` is one."""

    @property
    def stage(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def fw_type(self) -> int | None: ...

    @property
    def image(self) -> str: ...

    @property
    def data(self) -> memoryview: ...


class FlushControl(Protocol):
    """What makes CPU writes to device memory visible."""

    def flush_hdp(self) -> None: ...


class Psp:
    """The security processor of one card."""

    def __init__(
        self,
        mmio: Mmio,
        vram: Vram,
        caches: FlushControl,
        device_address: int,
        physical_base: int,
        boot_time_tmr: bool = False,
    ) -> None:
        """``device_address`` is that of device memory's first byte; ``physical_base`` what entries add to an offset.

        ``boot_time_tmr`` says that the card's start-up firmware has set the trusted memory region up.
        """
        self._boot_time_tmr = boot_time_tmr
        self._mmio = mmio
        self._vram = vram
        self._caches = caches
        self._device_address = device_address
        self._physical_base = physical_base
        self._wptr = 0  # dwords
        self._fence = 0
        self.tmr_bytes = 0

    # psp_v13_0_is_sos_alive
    def is_alive(self) -> bool:
        """Whether the secure OS runs; one read."""
        return self._mmio.read(self._reg(PspMailbox.SOS_ALIVE)) != 0

    def load(self, plan: Iterable[Load]) -> None:
        """Take a card without firmware to one with all of ``plan`` running.

        Raises FirmwareRejected naming the image and the status, Timeout, Unsupported when the trusted region that the
        firmware wants is larger than what is set aside for it.
        """
        loads = list(plan)

        def of(stage: str) -> list[Load]:
            return [load for load in loads if load.stage == stage]

        self.start_sos(of("bootloader"))
        self.create_ring()
        for toc in of("toc"):
            self.tmr_bytes = self.load_toc(toc)
        # With C-states under the SMU's control its firmware has to be there before the trusted region is.
        self.load_firmware(of("before_tmr"))
        if not self._boot_time_tmr:
            self.setup_tmr()
        self.load_firmware(of("after_tmr"))
        self.autoload_rlc()
        self.load_firmware(of("after_autoload"))

    # psp_v13_0_bootloader_load_component, psp_v13_0_bootloader_load_sos
    def start_sos(self, stages: Iterable[Load]) -> None:
        """Hand the bootloader its images, the secure OS last, and wait until that shows a sign of life."""
        for stage in stages:
            self._wait_bootloader(f"the PSP bootloader to be ready for {stage.name}")
            self._put_message(stage)
            self._mmio.write(
                self._reg(PspMailbox.BOOTLOADER_ADDRESS),
                (self._device_address + PSP_MESSAGE.offset) >> BOOTLOADER_ADDRESS_SHIFT,
            )
            self._mmio.write(self._reg(PspMailbox.BOOTLOADER), BOOTLOADER_COMMANDS[stage.name])
            log.debug("bootloader takes %s of %s, %d bytes", stage.name, stage.image, len(stage.data))
            if stage.name != "SOS":
                self._wait_bootloader(f"the PSP bootloader to take {stage.name} of {stage.image}", stage)
        # The kernel knows of a handshake problem without this delay.
        self._mmio.function.sleep(SETTLE_AFTER_COMMAND_S)
        try:
            self._mmio.function.wait_until(
                self.is_alive, SOS_START_TIMEOUT_S, "the secure OS to start (MP0 C2PMSG_81)"
            )
        except Timeout as error:
            answer = int(self._mmio.read(self._reg(PspMailbox.BOOTLOADER)))
            if answer & READY and answer != READY:
                raise FirmwareRejected("the secure OS", answer & ~READY, "from the bootloader") from error
            raise

    # psp_v13_0_ring_create
    def create_ring(self) -> None:
        """Open the command ring."""
        control = self._reg(PspMailbox.RING_CONTROL)
        self._mmio.wait(control, READY, READY, RING_TIMEOUT_S, "the secure OS to be ready for a ring")
        self._vram.fill(PSP_FENCE.offset, PSP_FENCE.size_bytes)
        self._mmio.write_pair(
            self._reg(PspMailbox.RING_ADDRESS_LO),
            self._reg(PspMailbox.RING_ADDRESS_HI),
            self._device_address + PSP_RING.offset,
        )
        self._mmio.write(self._reg(PspMailbox.RING_SIZE), PSP_RING.size_bytes)
        self._mmio.write(control, RingType.KM << 16)
        # The kernel knows of a handshake problem without this delay.
        self._mmio.function.sleep(SETTLE_AFTER_COMMAND_S)
        self._mmio.wait(control, READY | RING_STATUS_MASK, READY, RING_TIMEOUT_S, "the secure OS to open its ring")
        self._wptr = int(self._mmio.read(self._reg(PspMailbox.RING_WPTR)))
        self._fence = 0

    # psp_load_toc
    def load_toc(self, toc: Load) -> int:
        """Load the table of contents; the size in bytes of the trusted region that the firmware needs."""
        self._put_message(toc)
        low, high = self._message_address()
        response = self._submit(
            Command.LOAD_TOC,
            LOAD_TOC,
            f"{toc.name} of {toc.image}",
            toc_phy_addr_lo=low,
            toc_phy_addr_hi=high,
            toc_size=len(toc.data),
        )
        return RESPONSE.get(response, "tmr_size")

    # psp_tmr_init, psp_tmr_load, psp_prep_tmr_cmd_buf
    def setup_tmr(self) -> None:
        """Hand the trusted memory region to the PSP; from here on nobody else can read it."""
        size_bytes = -(-self.tmr_bytes // TMR_ALIGNMENT_BYTES) * TMR_ALIGNMENT_BYTES
        if not 0 < size_bytes <= TMR.size_bytes:
            raise Unsupported(
                f"{self._mmio.function.name}: the firmware wants a trusted region of {self.tmr_bytes:#x} bytes;"
                f" {TMR.size_bytes:#x} are set aside"
            )
        device, physical = self._device_address + TMR.offset, self._physical_base + TMR.offset
        self._submit(
            Command.SETUP_TMR,
            SETUP_TMR,
            "trusted memory region",
            buf_phy_addr_lo=device & 0xFFFFFFFF,
            buf_phy_addr_hi=device >> 32,
            buf_size=size_bytes,
            tmr_flags=TMR_PHYSICAL_ADDRESS,
            system_phy_addr_lo=physical & 0xFFFFFFFF,
            system_phy_addr_hi=physical >> 32,
        )
        self.tmr_bytes = size_bytes

    # psp_prep_load_ip_fw_cmd_buf, psp_execute_ip_fw_load
    def load_firmware(self, loads: Iterable[Load]) -> None:
        """Load pieces for the card's other processors. Data that several commands share is copied once."""
        previous: memoryview | None = None
        for load in loads:
            if load.fw_type is None:
                raise InvalidArgument(f"{load.name} of {load.image} has no firmware type")
            if previous is None or load.data != previous:
                self._put_message(load)
                previous = load.data
            low, high = self._message_address()
            self._submit(
                Command.LOAD_IP_FW,
                LOAD_IP_FW,
                f"{load.name} of {load.image}",
                fw_phy_addr_lo=low,
                fw_phy_addr_hi=high,
                fw_size=len(load.data),
                fw_type=load.fw_type,
            )

    # psp_rlc_autoload_start
    def autoload_rlc(self) -> None:
        """All graphics firmware is there: let the RLC distribute it."""
        self._submit(Command.AUTOLOAD_RLC, None, "start of RLC autoload")

    def _submit(self, command: Command, layout: StructLayout | None, what: str, **values: int) -> bytes:
        """Run one command through the ring; its response. Raises FirmwareRejected or Timeout."""
        buffer = COMMAND_BUFFER.pack(cmd_id=command)
        if layout is not None:
            body = layout.pack(**values)
            start = COMMAND_BUFFER.offset("cmd")
            buffer[start : start + len(body)] = body
        self._fence += 1
        self._vram.write(PSP_COMMAND.offset, buffer)
        self._vram.write(PSP_RING.offset + self._wptr * DWORD_BYTES, self._frame(self._fence))
        self._caches.flush_hdp()
        self._wptr = (self._wptr + RING_FRAME_DWORDS) % (PSP_RING.size_bytes // DWORD_BYTES)
        self._mmio.write(self._reg(PspMailbox.RING_WPTR), self._wptr)
        self._mmio.function.wait_until(
            lambda: int.from_bytes(self._vram.read(PSP_FENCE.offset, DWORD_BYTES), "little") == self._fence,
            COMMAND_TIMEOUT_S,
            f"the secure OS to answer {command.name} ({what})",
        )
        response = self._vram.read(PSP_COMMAND.offset + COMMAND_BUFFER.offset("resp"), RESPONSE.size_bytes)
        status = RESPONSE.get(response, "status")
        log.debug("%s (%s): status %#x", command.name, what, status)
        if status:
            raise FirmwareRejected(what, status, PSP_STATUS.get(status, ""))
        return response

    # psp_ring_cmd_submit
    def _frame(self, fence: int) -> bytearray:
        command_address = self._device_address + PSP_COMMAND.offset
        fence_address = self._device_address + PSP_FENCE.offset
        return RING_FRAME.pack(
            cmd_buf_addr_lo=command_address & 0xFFFFFFFF,
            cmd_buf_addr_hi=command_address >> 32,
            fence_addr_lo=fence_address & 0xFFFFFFFF,
            fence_addr_hi=fence_address >> 32,
            fence_value=fence,
        )

    def _put_message(self, load: Load) -> None:
        """Copy a piece to where the PSP reads it, zeros behind it."""
        if len(load.data) > PSP_MESSAGE.size_bytes:
            raise Unsupported(
                f"{load.name} of {load.image} has {len(load.data):#x} bytes; the PSP takes {PSP_MESSAGE.size_bytes:#x}"
            )
        padding = -len(load.data) % 0x1000
        self._vram.write(PSP_MESSAGE.offset, bytes(load.data) + bytes(padding))
        self._caches.flush_hdp()

    def _message_address(self) -> tuple[int, int]:
        address = self._device_address + PSP_MESSAGE.offset
        return address & 0xFFFFFFFF, address >> 32

    # psp_v13_0_wait_for_bootloader
    def _wait_bootloader(self, what: str, stage: Load | None = None) -> None:
        """Ready is exactly bit 31; bits 7:0 beside it are the error code of the image just given."""
        value = self._mmio.wait(self._reg(PspMailbox.BOOTLOADER), READY, READY, BOOTLOADER_TIMEOUT_S, what)
        if stage is not None and value != READY:
            raise FirmwareRejected(f"{stage.name} of {stage.image}", int(value) & ~READY, "from the bootloader")

    def _reg(self, mailbox: PspMailbox) -> Register:
        return self._mmio.registers["MP0", PSP_REGISTER.format(int(mailbox))]
