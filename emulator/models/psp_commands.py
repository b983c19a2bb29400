"""What the secure OS does for a ring frame: trusted memory, firmware loads, autoload, trusted applications.

Source: Linux 6.12 psp_gfx_if.h and amdgpu_psp.c (psp_hw_start, psp_load_non_psp_fw, psp_asd_initialize, psp_ta_load).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from amdrv.emulator.models.psp_images import Autoloader, FirmwareUser, LoadedImage
from amdrv.emulator.models.psp_status import RING_STATUS_OF, Status
from amdrv.emulator.models.psp_trust import NAME_OF_FW_TYPE, Trust
from amdrv.emulator.models.psp_verify import ImageRejected, Piece
from amdrv.emulator.models.vmhub import VMIDS, VmHub
from amdrv.facts.later_linux import RESERVATION, ReservationQuery
from amdrv.facts.layout import StructLayout
from amdrv.facts.mailboxes import COMMAND_BUFFER_VERSION, TMR_ALIGNMENT_BYTES, TMR_PHYSICAL_ADDRESS
from amdrv.facts.psp import (
    COMMAND_BUFFER,
    LOAD_IP_FW,
    LOAD_TA,
    LOAD_TOC,
    REG_PROG,
    RESPONSE,
    SETUP_TMR,
    UNLOAD_TA,
    Command,
    FwType,
)

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

MIB = 1 << 20
PAGE_BYTES = 4096
IMAGE_LIMIT_BYTES = 16 * MIB  # no image of a GPU comes near; a size beyond it is a mistake
FIRST_SESSION = 0x8001
TA_NAMES = ("TA_RAS", "TA_HDCP", "TA_DTM")
PROGRAMMABLE = {0: "IH_RB_CNTL", 1: "IH_RB_CNTL_RING1"}  # Linux 6.12 amdgpu_psp.h: psp_reg_prog_id
# Images that go to their engine at once instead of into trusted memory, and so may come before SETUP_TMR. Linux loads
# the SMU's first on this chip (psp_hw_start: pmfw_centralized_cstate_management).
OUTSIDE_TMR = frozenset({FwType.SMU})
# Without these the graphics core of Navi31 cannot boot. A public user-space driver boots gfx1100 boards with exactly
# these and the SDMA images, so silicon asks for no more; engines whose images are missing just do not run.
NEEDED_FOR_AUTOLOAD = (
    FwType.RS64_MEC,
    FwType.RS64_MEC_P0_STACK,
    FwType.IMU_I,
    FwType.IMU_D,
    FwType.RLC_IRAM,
    FwType.RLC_DRAM_BOOT,
    FwType.RLC_P,
    FwType.RLC_V,
    FwType.RLC_G,
)
NOT_SUPPORTED = (
    Command.SAVE_RESTORE,
    Command.SETUP_VMR,
    Command.DESTROY_VMR,
    Command.GET_FW_ATTESTATION,
    Command.BOOT_CFG,
    Command.SRIOV_SPATIAL_PART,
)


class Refusal(Exception):
    """A command that is answered with a status other than success."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Job(NamedTuple):
    """A command that was fetched: how long it takes, and what it does in the end (returning the response)."""

    duration_s: float
    execute: Callable[[], bytes]


class Commands:
    """State of the secure OS."""

    def __init__(self, card: Card, trust: Trust, needed: tuple[FwType, ...] = NEEDED_FOR_AUTOLOAD) -> None:
        """``needed`` are the images without which the graphics core cannot boot."""
        self._card = card
        self._trust = trust
        self._needed = needed
        self._handlers: dict[int, Callable[[bytes, bytes | None], bytes]] = {
            Command.LOAD_TOC: self._load_toc,
            Command.SETUP_TMR: self._setup_tmr,
            Command.DESTROY_TMR: self._destroy_tmr,
            Command.LOAD_IP_FW: self._load_ip_fw,
            Command.AUTOLOAD_RLC: self._autoload,
            Command.LOAD_ASD: self._load_asd,
            Command.LOAD_TA: self._load_ta,
            Command.UNLOAD_TA: self._unload_ta,
            Command.INVOKE_CMD: self._invoke,
            Command.PROG_REG: self._program_register,
        }
        if card.chip.boot_tmr_from_end_bytes:
            self._handlers[ReservationQuery.FW_RESERV_ADDR] = self._reservation
            self._handlers[ReservationQuery.FW_RESERV_EXT_ADDR] = self._extended_reservation
        self.power_on()

    def power_on(self) -> None:
        """Nothing is loaded."""
        self.images: dict[int, LoadedImage] = {}
        self._toc_loaded = False
        self._tmr: range | None = None  # MC addresses
        self._tmr_next = 0
        self._autoloaded = False
        self._sessions: set[int] = set()
        self._next_session = FIRST_SESSION

    def reserve(self, vram_offset: int) -> None:
        """Trusted memory that the boot ROM has set up already; no command does it then."""
        address, size_bytes = self._card.chip.fb_base + vram_offset, self._card.chip.tmr_bytes
        self._tmr, self._tmr_next = range(address, address + size_bytes), address
        self._card.trusted_memory = range(vram_offset, vram_offset + size_bytes)

    def prepare(self, buffer: bytes) -> Job:
        """Look at a command buffer and fetch the image it names."""
        command = COMMAND_BUFFER.get(buffer, "cmd_id")
        arguments = buffer[COMMAND_BUFFER.offset("cmd") : COMMAND_BUFFER.offset("resp")]
        timings = self._card.chip.timings
        duration_s = timings.psp_command
        image = None
        source = _image_source(command, arguments)
        if source is not None:
            address, size_bytes = source
            if 0 < size_bytes <= IMAGE_LIMIT_BYTES:
                image = self._card.read_mc(address, size_bytes)
            duration_s += timings.psp_load + timings.psp_load_per_mib * min(size_bytes, IMAGE_LIMIT_BYTES) / MIB
        return Job(duration_s, lambda: self._execute(buffer, command, arguments, image))

    def _execute(self, buffer: bytes, command: int, arguments: bytes, image: bytes | None) -> bytes:
        try:
            # Version 0 is what a public user-space driver sends, and silicon takes it.
            if COMMAND_BUFFER.get(buffer, "buf_version") not in (0, COMMAND_BUFFER_VERSION):
                raise Refusal(Status.BAD_FORMAT, "unknown version of the command buffer")
            handler = self._handlers.get(command)
            if handler is None and command in NOT_SUPPORTED:
                raise Refusal(Status.NOT_SUPPORTED, "not modelled")
            if handler is None:
                raise Refusal(Status.UNKNOWN_COMMAND, "no such command")
            return handler(arguments, image)
        except Refusal as refusal:
            log.info("%s: PSP command %#x refused with %#x: %s", self._card.name, command, refusal.status, refusal)
            return bytes(RESPONSE.pack(status=refusal.status))

    # -- trusted memory -----------------------------------------------------------------------------------------------

    def _load_toc(self, _arguments: bytes, image: bytes | None) -> bytes:
        self._authenticate(image, ("TOC",))
        self._toc_loaded = True
        return bytes(RESPONSE.pack(tmr_size=self._card.chip.tmr_bytes))

    def _setup_tmr(self, arguments: bytes, _image: bytes | None) -> bytes:
        address = _address(SETUP_TMR, arguments, "buf_phy_addr")
        size_bytes = SETUP_TMR.get(arguments, "buf_size")
        fb_base, vram_bytes = self._card.chip.fb_base, self._card.vram_bytes
        if not self._toc_loaded or self._tmr is not None:
            raise Refusal(Status.BAD_STATE, "the TOC comes first, and trusted memory is set up once")
        if address % TMR_ALIGNMENT_BYTES or not fb_base <= address <= fb_base + vram_bytes - size_bytes:
            raise Refusal(Status.BAD_PARAMETERS, f"trusted memory at {address:#x}+{size_bytes:#x} is not aligned VRAM")
        if size_bytes < self._card.chip.tmr_bytes:
            raise Refusal(Status.SHORT_BUFFER, f"{size_bytes:#x} bytes, {self._card.chip.tmr_bytes:#x} are needed")
        if SETUP_TMR.get(arguments, "tmr_flags") & TMR_PHYSICAL_ADDRESS:
            physical = _address(SETUP_TMR, arguments, "system_phy_addr")
            if physical != address - fb_base:
                raise Refusal(Status.BAD_PARAMETERS, f"physical address {physical:#x} does not belong to {address:#x}")
        self._tmr, self._tmr_next = range(address, address + size_bytes), address
        self._card.trusted_memory = range(address - fb_base, address - fb_base + size_bytes)
        for hub in self._card.models(VmHub):  # what clients have cached of it
            hub.invalidate(range(VMIDS))
        return bytes(RESPONSE.pack())

    def _destroy_tmr(self, _arguments: bytes, _image: bytes | None) -> bytes:
        if self._tmr is None:
            raise Refusal(Status.BAD_STATE, "no trusted memory is set up")
        self.images = {kind: image for kind, image in self.images.items() if kind in OUTSIDE_TMR}
        self._tmr, self._autoloaded = None, False
        self._card.trusted_memory = None
        return bytes(RESPONSE.pack())

    def _reservation(self, _arguments: bytes, _image: bytes | None) -> bytes:
        """What the firmware keeps at the end of video memory."""
        return self._reserved(self._card.chip.boot_tmr_from_end_bytes)

    def _extended_reservation(self, _arguments: bytes, _image: bytes | None) -> bytes:
        """What it keeps beyond that: nothing (inferred)."""
        return self._reserved(0)

    def _reserved(self, size_bytes: int) -> bytes:
        address = self._card.vram_bytes - self._card.chip.boot_tmr_from_end_bytes
        return bytes(
            RESERVATION.pack(
                reserve_base_address_hi=address >> 32,
                reserve_base_address_lo=address & 0xFFFF_FFFF,
                reserve_size=size_bytes,
            )
        )

    # -- firmware -----------------------------------------------------------------------------------------------------

    def _load_ip_fw(self, arguments: bytes, data: bytes | None) -> bytes:
        fw_type = LOAD_IP_FW.get(arguments, "fw_type")
        name = NAME_OF_FW_TYPE.get(fw_type)
        if name is None or fw_type == FwType.TOC:
            raise Refusal(Status.ITEM_NOT_FOUND, f"no firmware type {fw_type}")
        if fw_type not in OUTSIDE_TMR and (self._tmr is None or not self._toc_loaded):
            raise Refusal(Status.BAD_STATE, f"{name} before trusted memory is set up")
        if fw_type in self.images:
            status = Status.CANCEL if fw_type == FwType.REG_LIST else Status.ACCESS_CONFLICT
            raise Refusal(status, f"{name} is loaded already")
        piece = self._authenticate(data, (name,))
        size_bytes = piece.total_bytes
        address = 0 if fw_type in OUTSIDE_TMR else self._copy_to_tmr(name, piece)
        image = LoadedImage(fw_type, name, piece.version, size_bytes, piece.sha256(), address)
        self.images[fw_type] = image
        for user in self._card.models(FirmwareUser):
            user.firmware_loaded(image)
        return bytes(RESPONSE.pack(fw_addr_lo=address & 0xFFFF_FFFF, fw_addr_hi=address >> 32))

    def _copy_to_tmr(self, name: str, piece: Piece) -> int:
        address = self._tmr_next
        end = address + (piece.total_bytes + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
        if self._tmr is None or end > self._tmr.stop:
            raise Refusal(Status.OUT_OF_MEMORY, f"{name} does not fit into trusted memory any more")
        self._tmr_next = end
        return address

    def _autoload(self, _arguments: bytes, _image: bytes | None) -> bytes:
        missing = [kind.name for kind in self._needed if kind not in self.images]
        if missing:
            raise Refusal(Status.ITEM_NOT_FOUND, f"missing images: {', '.join(missing)}")
        if self._autoloaded:
            raise Refusal(Status.BAD_STATE, "autoload has been started")
        self._autoloaded = True
        for model in self._card.all_models():
            if isinstance(model, Autoloader):
                model.autoload()
        return bytes(RESPONSE.pack())

    def _authenticate(self, data: bytes | None, names: tuple[str, ...]) -> Piece:
        if data is None:
            raise Refusal(Status.ACCESS_DENIED, f"{names[0]} cannot be read")
        try:
            return self._trust.authenticate(data, names)
        except ImageRejected as rejected:
            raise Refusal(RING_STATUS_OF[rejected.problem], f"{names[0]}: {rejected}") from rejected

    # -- trusted applications -----------------------------------------------------------------------------------------

    def _load_asd(self, _arguments: bytes, image: bytes | None) -> bytes:
        return self._open_session(self._authenticate(image, ("ASD",)))

    def _load_ta(self, _arguments: bytes, image: bytes | None) -> bytes:
        return self._open_session(self._authenticate(image, TA_NAMES))

    def _open_session(self, _piece: Piece) -> bytes:
        session = self._next_session
        self._next_session += 1
        self._sessions.add(session)
        return bytes(RESPONSE.pack(session_id=session))

    def _unload_ta(self, arguments: bytes, _image: bytes | None) -> bytes:
        session = self._session(arguments)
        self._sessions.discard(session)
        return bytes(RESPONSE.pack())

    def _invoke(self, arguments: bytes, _image: bytes | None) -> bytes:
        self._session(arguments)
        raise Refusal(Status.NOT_IMPLEMENTED, "what trusted applications do is not modelled")

    def _session(self, arguments: bytes) -> int:
        session = UNLOAD_TA.get(arguments, "session_id")  # the first member of both commands
        if session not in self._sessions:
            raise Refusal(Status.ITEM_NOT_FOUND, f"no session {session:#x}")
        return session

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _program_register(self, arguments: bytes, _image: bytes | None) -> bytes:
        name = PROGRAMMABLE.get(REG_PROG.get(arguments, "reg_id"))
        if name is None:
            raise Refusal(Status.ITEM_NOT_FOUND, "no such register")
        address = self._card.registers.block("OSSSYS")[name].address
        self._card.space.write(address, REG_PROG.get(arguments, "reg_value"))
        return bytes(RESPONSE.pack())


def _address(layout: StructLayout, arguments: bytes, name: str) -> int:
    return layout.get(arguments, f"{name}_hi") << 32 | layout.get(arguments, f"{name}_lo")


def _image_source(command: int, arguments: bytes) -> tuple[int, int] | None:
    """(MC address, bytes) of the image that a command names, None when it names none."""
    if command == Command.LOAD_IP_FW:
        return _address(LOAD_IP_FW, arguments, "fw_phy_addr"), LOAD_IP_FW.get(arguments, "fw_size")
    if command == Command.LOAD_TOC:
        return _address(LOAD_TOC, arguments, "toc_phy_addr"), LOAD_TOC.get(arguments, "toc_size")
    if command in (Command.LOAD_ASD, Command.LOAD_TA):
        return _address(LOAD_TA, arguments, "app_phy_addr"), LOAD_TA.get(arguments, "app_len")
    return None
