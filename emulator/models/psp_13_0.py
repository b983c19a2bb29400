"""PSP 13.0.0: boot ROM, bootloader, secure OS. It starts everything else, and nothing runs that it has not accepted.

Source: Linux 6.12 psp_v13_0.c; amdgpu_discovery.c (boot ROM flag); gem5-resources vega_mmio.log (values and times).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.discovery_table import build
from amdrv.emulator.model import Model
from amdrv.emulator.models.nbio_4_3 import Nbio
from amdrv.emulator.models.psp_bootloader import Bootloader
from amdrv.emulator.models.psp_commands import NEEDED_FOR_AUTOLOAD, Commands
from amdrv.emulator.models.psp_images import LoadedImage
from amdrv.emulator.models.psp_ring import Ring, RingRegisters
from amdrv.emulator.models.psp_trust import Trust
from amdrv.facts.discovery import DISCOVERY_OFFSET_FROM_END_BYTES
from amdrv.facts.firmware_auth import NAVI31_ROOT_KEYS, RootKey
from amdrv.facts.mailboxes import PSP_REGISTER, READY, PspMailbox
from amdrv.facts.psp import FwType

if TYPE_CHECKING:
    from collections.abc import Callable

    from amdrv.emulator.models.psp_verify import Piece
    from amdrv.emulator.register_space import Slot
    from amdrv.emulator.shell import Card


class Psp(Model):
    """The platform security processor."""

    ip = "MP0"
    needed_for_autoload: tuple[FwType, ...] = NEEDED_FOR_AUTOLOAD
    roots: tuple[RootKey, ...] = NAVI31_ROOT_KEYS

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._table = build(card.chip)
        self._trust = Trust(card.faults.rejects, self.roots)
        self._boot_firmware = self._mailbox(PspMailbox.BOOT_FIRMWARE, writable=0)
        self._alive = self._mailbox(PspMailbox.SOS_ALIVE, writable=0)
        # Headers of later versions do not say where the secure OS tells its version.
        shown = PSP_REGISTER.format(int(PspMailbox.SOS_VERSION)) in card.registers.block(self.ip, instance)
        self._version = self._mailbox(PspMailbox.SOS_VERSION, writable=0) if shown else None
        address = self._mailbox(PspMailbox.BOOTLOADER_ADDRESS)
        command = self._mailbox(PspMailbox.BOOTLOADER, writable=0, on_write=self._bootloader_command)
        self._bootloader = Bootloader(card, command, address, self._trust, self._start_sos)
        self._commands = Commands(card, self._trust, self.needed_for_autoload)
        registers = RingRegisters(
            control=self._mailbox(PspMailbox.RING_CONTROL, writable=0, on_write=self._ring_control),
            wptr=self._mailbox(PspMailbox.RING_WPTR, on_write=lambda _: self._ring.kick()),
            address_lo=self._mailbox(PspMailbox.RING_ADDRESS_LO),
            address_hi=self._mailbox(PspMailbox.RING_ADDRESS_HI),
            size=self._mailbox(PspMailbox.RING_SIZE),
        )
        self._ring = Ring(card, registers, self._commands, self._mode1_reset)

    def loaded(self, fw_type: int) -> LoadedImage | None:
        """The accepted image of a type (FwType), None when there is none: then its engine must not run."""
        return self._commands.images.get(fw_type)

    def unload(self, fw_type: int) -> None:
        """An engine has stopped for good: its image may be loaded again."""
        self._commands.images.pop(fw_type, None)

    def power_on(self) -> None:
        self._trust.power_on()
        self._bootloader.power_on()
        self._commands.power_on()
        self._ring.power_on()
        delay_s = self.card.ready_in_s(self.card.chip.timings.boot_rom)
        self.card.clock.after(delay_s, self._boot_rom_done)

    def _bootloader_command(self, value: int) -> None:
        self._bootloader.command(value)

    def _ring_control(self, value: int) -> None:
        self._ring.control(value)

    def _boot_rom_done(self) -> None:
        """Memory is trained, the discovery table is in place, the bootloader listens."""
        offset = self.card.vram_bytes - DISCOVERY_OFFSET_FROM_END_BYTES
        self.card.arena.store(offset, self._table)
        self.card.host_path.engine_wrote(offset, len(self._table))
        if self.card.chip.boot_tmr_from_end_bytes:
            self._commands.reserve(self.card.vram_bytes - self.card.chip.boot_tmr_from_end_bytes)
        self.card.model(Nbio).boot_rom_done()
        self._boot_firmware.value = READY
        self._bootloader.start()

    def _start_sos(self, piece: Piece) -> None:
        timings = self.card.chip.timings

        def alive() -> None:
            if self._version is not None:
                self._version.value = piece.version
            self._alive.value = 1

        def ready() -> None:
            self._alive.value = 2
            self._ring.start()

        # Both times count from the command, of which authentication has taken its part.
        self.card.clock.after(timings.sos_alive - timings.bootloader_stage, alive)
        self.card.clock.after(timings.sos_ready - timings.bootloader_stage, ready)

    def _mode1_reset(self) -> None:
        timings = self.card.chip.timings
        self.card.clock.after(timings.smu_reset_delay, lambda: self.card.reset_chip(timings.mode1))

    def _mailbox(
        self, number: PspMailbox, *, writable: int = 0xFFFF_FFFF, on_write: Callable[[int], None] | None = None
    ) -> Slot:
        return self.claim(PSP_REGISTER.format(int(number)), writable=writable, on_write=on_write)
