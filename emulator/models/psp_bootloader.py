"""The PSP's bootloader: takes its pieces one by one through two mailboxes, the secure OS last.

Source: Linux 6.12 psp_v13_0.c (psp_v13_0_bootloader_load_component, psp_v13_0_bootloader_load_sos,
psp_v13_0_wait_for_bootloader); order: amdgpu_psp.c (psp_hw_start).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from amdrv.emulator.models.psp_status import BOOTLOADER_ERROR_OF, BootloaderError
from amdrv.emulator.models.psp_verify import HEADER_BYTES, ImageRejected, Piece, database_keys, total_size
from amdrv.facts.mailboxes import BOOTLOADER_ADDRESS_SHIFT, BOOTLOADER_BUFFER_BYTES, READY
from amdrv.facts.psp import BootloaderCommand

if TYPE_CHECKING:
    from amdrv.emulator.models.psp_trust import Trust
    from amdrv.emulator.register_space import Slot
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)


class Stage(NamedTuple):
    """What a command loads, and which commands must have succeeded before."""

    pieces: tuple[str, ...]
    after: tuple[BootloaderCommand, ...]


_KDB, _SPL = BootloaderCommand.LOAD_KEY_DATABASE, BootloaderCommand.LOAD_TOS_SPL_TABLE
_SYSTEM = BootloaderCommand.LOAD_SYSDRV
STAGES: dict[int, Stage] = {
    _KDB: Stage(("KDB",), ()),
    # Linux hands the key database to the SPL command too, and silicon takes it.
    _SPL: Stage(("SPL", "KDB"), (_KDB,)),
    _SYSTEM: Stage(("SYS_DRV",), (_KDB, _SPL)),
    BootloaderCommand.LOAD_SOCDRV: Stage(("SOC_DRV",), (_SYSTEM,)),
    BootloaderCommand.LOAD_INTFDRV: Stage(("INTF_DRV",), (_SYSTEM,)),
    BootloaderCommand.LOAD_DBGDRV: Stage(("DBG_DRV",), (_SYSTEM,)),
    BootloaderCommand.LOAD_RASDRV: Stage(("RAS_DRV",), (_SYSTEM,)),
    BootloaderCommand.LOAD_IPKEYMGRDRV: Stage(("IPKEYMGR_DRV",), (_SYSTEM,)),
    BootloaderCommand.LOAD_SOSDRV: Stage(("SOS",), (_SYSTEM,)),
}


class Bootloader:
    """State of the bootloader from the boot ROM's end to the start of the secure OS."""

    def __init__(
        self, card: Card, mailbox: Slot, address: Slot, trust: Trust, start_sos: Callable[[Piece], None]
    ) -> None:
        """``start_sos`` is called with an accepted secure OS; it runs on from there."""
        self._card = card
        self._mailbox = mailbox
        self._address = address
        self._trust = trust
        self._start_sos = start_sos
        self._done: set[int] = set()
        self._running = False  # from the boot ROM's end until the secure OS takes over

    def power_on(self) -> None:
        """Nothing is loaded, and nothing answers before the boot ROM is done."""
        self._done.clear()
        self._running = False

    def start(self) -> None:
        """The boot ROM is done: commands are taken."""
        self._running = True
        self._mailbox.value = READY

    def command(self, value: int) -> None:
        """A write to the command mailbox."""
        if not self._running or self._card.faults.silent("MP0"):
            return
        self._mailbox.value = value  # not ready until done
        address = self._address.value << BOOTLOADER_ADDRESS_SHIFT
        self._card.clock.after(self._card.chip.timings.bootloader_stage, lambda: self._finish(value, address))

    def _finish(self, command: int, address: int) -> None:
        stage = STAGES.get(command)
        if stage is None:
            self._fail(command, BootloaderError.UNKNOWN_COMMAND, "no such command")
        elif not self._done.issuperset(stage.after):
            self._fail(command, BootloaderError.OUT_OF_ORDER, "an earlier stage is missing")
        elif (image := self._read(address)) is None:
            self._fail(command, BootloaderError.UNREADABLE, f"nothing at {address:#x}")
        else:
            try:
                piece = self._trust.authenticate(image, stage.pieces)
                if command == _KDB:
                    self._trust.add_keys(database_keys(piece))
            except ImageRejected as rejected:
                self._fail(command, BOOTLOADER_ERROR_OF[rejected.problem], str(rejected))
            else:
                self._accept(command, piece)

    def _accept(self, command: int, piece: Piece) -> None:
        self._done.add(command)
        if command == BootloaderCommand.LOAD_SOSDRV:
            self._running = False
            self._start_sos(piece)
        else:
            self._mailbox.value = READY

    def _fail(self, command: int, error: BootloaderError, detail: str) -> None:
        log.info("%s: bootloader command %#x refused with %#x: %s", self._card.name, command, error, detail)
        self._mailbox.value = READY | error

    def _read(self, address: int) -> bytes | None:
        """As much of the one MiB at ``address`` as the image's header asks for; None where no memory is."""
        header = self._card.read_mc(address, HEADER_BYTES)
        if header is None:
            return None
        try:
            size = total_size(header)
        except ImageRejected:
            return header
        return self._card.read_mc(address, min(size, BOOTLOADER_BUFFER_BYTES))
