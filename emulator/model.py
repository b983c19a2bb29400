"""What every IP block model is: it claims registers when built and restores itself at power-on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import TYPE_CHECKING

from amdrv.registers import Register, RegisterBlock
from amdrv.registers.table import RegisterTable

if TYPE_CHECKING:
    from amdrv.emulator.models.message_table import MessageTable
    from amdrv.emulator.register_space import Slot
    from amdrv.emulator.shell import Card


class Model:
    """Behaviour of one version of one IP block instance."""

    ip: str = ""  # as in the register map: "GC", "MMHUB", …

    def __init__(self, card: Card, instance: int = 0) -> None:
        self.card = card
        self.instance = instance

    def power_on(self) -> None:
        """Forget everything that a reset loses. Registers are back at their reset values already."""

    @property
    def wave_instructions(self) -> int:
        """Instructions that waves started by this block have executed since the card was plugged in."""
        return 0

    @property
    def doorbell_block(self) -> str:
        """The block's name in the bus interface's doorbell routing: its own, unless it shares another's range."""
        return self.ip

    def doorbell(self, offset: int, width: int, value: int) -> None:
        """A write to BAR2 at byte ``offset`` that was routed to this block; ignored without such a doorbell."""

    @cached_property
    def registers(self) -> RegisterBlock:
        """This block's registers."""
        return self.card.registers.block(self.ip, self.instance)

    def register(self, name: str) -> Register:
        """A register of this block by name."""
        return self.registers[name]

    def claim(
        self,
        name: str,
        *,
        reset: int = 0,
        writable: int = 0xFFFF_FFFF,
        on_read: Callable[[], int] | None = None,
        on_write: Callable[[int], None] | None = None,
        bank: Callable[[], Hashable] | None = None,
        sticky: bool = False,
    ) -> Slot:
        """Claim a register of this block by name; see RegisterSpace.claim."""
        return self.card.space.claim(
            type(self).__name__,
            self.register(name),
            reset=reset,
            writable=writable,
            on_read=on_read,
            on_write=on_write,
            bank=bank,
            sticky=sticky,
        )

    def claim_hole(self, name: str, dword: int) -> None:
        """Claim a place without a name in AMD's headers, as ``name``: it reads zero and keeps nothing (inferred)."""
        register = Register(self.ip, self.instance, name, dword, RegisterTable("holes", f"{name} 0 0"))
        self.card.space.claim(type(self).__name__, register, on_read=lambda: 0)


class PowerManagement(Model):
    """The block that gives power to the others and takes it away."""

    def doorbell_rang(self, block: str) -> None:
        """A doorbell is on its way to a block while some block has no power."""


class BusInterface(Model):
    """The block behind the BARs: it decides which engine a doorbell reaches, and which interrupt leaves as what."""

    messages: MessageTable  # of MSI-X

    def route_doorbell(self, offset: int) -> str | None:
        """Block name (as in the register map) that gets a write at byte ``offset`` of BAR2; None: it is dropped."""
        return None
