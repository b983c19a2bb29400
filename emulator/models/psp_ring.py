"""The secure OS's ring: created and destroyed through a mailbox, fed with 64-byte frames, answered in memory.

Source: Linux 6.12 psp_v13_0.c (psp_v13_0_ring_create, psp_v13_0_ring_stop), amdgpu_psp.c (psp_ring_cmd_submit,
psp_cmd_submit_buf), psp_v11_0.c (psp_v11_0_mode1_reset). Answers keep the command in bits 30:16: gem5-resources
vega_mmio.log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from amdrv.emulator.models.psp_status import Status
from amdrv.facts.mailboxes import READY, RING_FRAME_DWORDS
from amdrv.facts.psp import COMMAND_BUFFER, RESPONSE, RING_FRAME, ControlCommand

if TYPE_CHECKING:
    from amdrv.emulator.models.psp_commands import Commands
    from amdrv.emulator.register_space import Slot
    from amdrv.emulator.shell import Card

log = logging.getLogger(__name__)

DWORD_BYTES = 4
CONTROL_MASK = 0x000F_0000
RING_ALIGNMENT_BYTES = 0x1000
# Taken without an effect that shows. GBR_IH_SET succeeds in the Vega 10 load (0x80000 is answered with 0x80080000).
HARMLESS = frozenset(
    {
        ControlCommand.CAN_INIT_RINGS,
        ControlCommand.ENABLE_INT,
        ControlCommand.DISABLE_INT,
        ControlCommand.GBR_IH_SET,
    }
)


class RingRegisters(NamedTuple):
    """The mailboxes of the ring interface."""

    control: Slot
    wptr: Slot
    address_lo: Slot
    address_hi: Slot
    size: Slot


class Ring:
    """The GPCOM ring: at most one, frames in order."""

    def __init__(
        self, card: Card, registers: RingRegisters, commands: Commands, mode1_reset: Callable[[], None]
    ) -> None:
        """``commands`` executes what frames ask for; ``mode1_reset`` is what the control command of that name does."""
        self._card = card
        self._registers = registers
        self._commands = commands
        self._mode1_reset = mode1_reset
        self.power_on()

    def power_on(self) -> None:
        """The secure OS does not run: nothing is served."""
        self._running = False
        self._address = 0
        self._size_dwords = 0  # 0: no ring
        self._rptr = 0
        self._executing = False

    def start(self) -> None:
        """The secure OS serves control commands."""
        self._running = True
        self._registers.control.value = READY

    # -- control ------------------------------------------------------------------------------------------------------

    def control(self, value: int) -> None:
        """A write to the control mailbox."""
        if not self._running or self._silent():
            return
        self._registers.control.value = value & ~READY
        self._card.clock.after(self._card.chip.timings.ring_control, lambda: self._finish_control(value & CONTROL_MASK))

    def _finish_control(self, command: int) -> None:
        status = Status.SUCCESS
        if command == ControlCommand.INIT_GPCOM_RING:
            status = self._create()
        elif command in (ControlCommand.DESTROY_RINGS, ControlCommand.DESTROY_GPCOM_RING):
            self._size_dwords = 0
        elif command == ControlCommand.MODE1_RST:
            self._mode1_reset()
        elif command not in HARMLESS:
            status = Status.NOT_SUPPORTED
        self._registers.control.value = READY | command | status & 0xFFFF

    def _create(self) -> Status:
        registers = self._registers
        address = registers.address_hi.value << 32 | registers.address_lo.value
        size_bytes = registers.size.value
        frame_bytes = RING_FRAME_DWORDS * DWORD_BYTES
        if self._size_dwords:
            return Status.ACCESS_CONFLICT
        if not size_bytes or size_bytes % frame_bytes or address % RING_ALIGNMENT_BYTES:
            return Status.BAD_PARAMETERS
        self._address, self._size_dwords = address, size_bytes // DWORD_BYTES
        self._rptr = registers.wptr.value = 0
        return Status.SUCCESS

    # -- frames -------------------------------------------------------------------------------------------------------

    def kick(self) -> None:
        """The write pointer (dwords) moved."""
        if not self._executing and self._size_dwords and self._running and not self._silent():
            self._begin()

    def _begin(self) -> None:
        """Fetch the next frame, if there is one, and have its command done after the time it takes."""
        wptr = self._registers.wptr.value % self._size_dwords if self._size_dwords else self._rptr
        self._executing = wptr != self._rptr
        if not self._executing:
            return
        # By the time the firmware fetches a frame, what the host stored before the write pointer has long drained: AM
        # asks for no flush in between, and boots real cards.
        self._card.host_path.flush()
        frame = self._card.read_mc(self._address + self._rptr * DWORD_BYTES, RING_FRAME.size_bytes)
        address = 0 if frame is None else _pair(frame, "cmd_buf_addr")
        buffer = None if frame is None else self._card.read_mc(address, COMMAND_BUFFER.size_bytes)
        if frame is None or buffer is None:
            # Nowhere to answer: the ring stands still, as a driver's time-out will tell.
            log.info("%s: ring frame at dword %#x or its command buffer cannot be read", self._card.name, self._rptr)
            return
        job = self._commands.prepare(buffer)
        fence = (_pair(frame, "fence_addr"), RING_FRAME.get(frame, "fence_value"))
        self._card.clock.after(job.duration_s, lambda: self._finish(address, job.execute(), fence))

    def _finish(self, buffer_address: int, response: bytes, fence: tuple[int, int]) -> None:
        self._rptr = (self._rptr + RING_FRAME_DWORDS) % self._size_dwords if self._size_dwords else 0
        response_address = buffer_address + COMMAND_BUFFER.offset("resp")
        answered = self._card.write_mc(response_address, response[: RESPONSE.size_bytes])
        fence_address, fence_value = fence
        if not answered or not self._card.write_mc(fence_address, fence_value.to_bytes(DWORD_BYTES, "little")):
            log.info("%s: response or fence at %#x cannot be written", self._card.name, fence_address)
        self._begin()

    def _silent(self) -> bool:
        return self._card.faults.silent("MP0")


def _pair(frame: bytes, name: str) -> int:
    return RING_FRAME.get(frame, f"{name}_hi") << 32 | RING_FRAME.get(frame, f"{name}_lo")
