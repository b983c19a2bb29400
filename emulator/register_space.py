"""The card's registers: who owns each one, what it holds, and what nobody models.

A model claims its registers when it is built; two claims of one register are a construction error. A register that
nobody claims behaves as plain storage and is counted by name, so that a missing model shows as a list, never as a
silent zero.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from amdrv.registers import Register, RegisterMap

log = logging.getLogger(__name__)

ALL_ONES = 0xFFFF_FFFF


class ClaimConflict(Exception):
    """Two models claim one register."""


class UnmodelledRegister(Exception):
    """An access to a register that no model claims, on a card that is strict about it."""


@dataclass(slots=True)
class Slot:
    """One register. With ``bank`` it holds a value per bank (CP_HQD_* by GRBM_GFX_CNTL, for instance)."""

    register: Register
    owner: str
    reset_value: int
    writable: int
    on_read: Callable[[], int] | None
    on_write: Callable[[int], None] | None
    bank: Callable[[], Hashable] | None
    sticky: bool = False  # keeps its value over a chip reset; only loss of power or a bus reset clears it
    value: int = 0
    banks: dict[Hashable, int] = field(default_factory=dict)

    def load(self) -> int:
        """The stored value, of the selected bank."""
        return self.value if self.bank is None else self.banks.get(self.bank(), self.reset_value)

    def store(self, value: int) -> None:
        """Replace the stored value, of the selected bank."""
        if self.bank is None:
            self.value = value
        else:
            self.banks[self.bank()] = value


class RegisterSpace:
    """All registers of one card by byte address. The card's lock covers every method."""

    def __init__(self, registers: RegisterMap) -> None:
        self._registers = registers
        self._slots: dict[int, Slot] = {}
        self._unclaimed: dict[int, int] = {}
        self._moved: dict[int, int] = {}  # address → address of the register that answers there
        self.strict = False  # an access to an unclaimed register raises UnmodelledRegister
        self.unmodelled: Counter[int] = Counter()  # accesses by byte address
        self.without_power: Counter[int] = Counter()  # accesses to blocks without power, by byte address
        self._gated: frozenset[str] = frozenset()  # blocks without power

    def claim(
        self,
        owner: str,
        register: Register,
        *,
        reset: int = 0,
        writable: int = 0xFFFF_FFFF,
        on_read: Callable[[], int] | None = None,
        on_write: Callable[[int], None] | None = None,
        bank: Callable[[], Hashable] | None = None,
        sticky: bool = False,
    ) -> Slot:
        """Make ``owner`` the model of ``register``.

        ``on_read`` replaces the stored value; ``on_write`` runs after the value was stored (under ``writable``) and
        gets the value as written; a ``sticky`` register keeps its value over a chip reset. Raises ClaimConflict.
        """
        existing = self._slots.get(register.address)
        if existing is not None:
            raise ClaimConflict(f"{register.name} is claimed by {existing.owner} and by {owner}")
        slot = Slot(register, owner, reset, writable, on_read, on_write, bank, sticky, reset)
        self._slots[register.address] = slot
        return slot

    def move(self, target: int, address: int) -> None:
        """Let the register at byte ``target`` answer at ``address`` too, where no other register is.

        It has one such place at a time.
        """
        self._moved = {place: moved for place, moved in self._moved.items() if moved != target}
        self._moved[address] = target

    @property
    def gated(self) -> frozenset[str]:
        """Blocks without power: reads of their registers return all ones, writes vanish."""
        return self._gated

    def gate(self, ip: str) -> None:
        """Take a block's power away; it keeps its values."""
        self._gated |= {ip}

    def ungate(self, ip: str) -> None:
        """Give a block its power back."""
        self._gated -= {ip}

    def read(self, address: int) -> int:
        """What a 32-bit read at byte ``address`` returns."""
        if self._gated and self._lacks_power(address):
            return ALL_ONES
        slot = self._slots.get(address) or self._slots.get(self._moved.get(address, -1))
        if slot is None:
            self.count_unmodelled(address)
            return self._unclaimed.get(address, 0)
        return slot.load() if slot.on_read is None else slot.on_read() & 0xFFFF_FFFF

    def write(self, address: int, value: int) -> None:
        """A 32-bit write at byte ``address``."""
        if self._gated and self._lacks_power(address):
            return
        slot = self._slots.get(address) or self._slots.get(self._moved.get(address, -1))
        if slot is None:
            self.count_unmodelled(address)
            self._unclaimed[address] = value
            return
        slot.store((slot.load() & ~slot.writable) | (value & slot.writable))
        if slot.on_write is not None:
            slot.on_write(value)

    def load_bank(self, address: int, bank: Hashable) -> int:
        """A register's stored value in ``bank``, whichever is selected; a register without banks gives its only one."""
        slot = self._slots.get(address)
        if slot is None or slot.bank is None:
            return self.read(address)
        return slot.banks.get(bank, slot.reset_value)

    def store_bank(self, address: int, bank: Hashable, value: int) -> None:
        """A write by an engine that acts for ``bank``; a register without banks is written as from the host."""
        slot = self._slots.get(address)
        if slot is None or slot.bank is None:
            self.write(address, value)
        else:
            slot.banks[bank] = value

    def flip(self, address: int, bit: int) -> None:
        """Turn one bit of what a register holds around, in every bank; without the effects of a write."""
        slot = self._slots.get(address)
        if slot is None:
            self._unclaimed[address] = self._unclaimed.get(address, 0) ^ 1 << bit
            return
        slot.value ^= 1 << bit
        for bank in slot.banks:
            slot.banks[bank] ^= 1 << bit

    def name_at(self, address: int) -> str:
        """Name of the register at a byte address, or the address itself."""
        slot = self._slots.get(address)
        register = self._registers.at(address) if slot is None else slot.register
        return register.full_name if register is not None else f"{address:#x}"

    def unmodelled_by_name(self) -> list[tuple[str, int]]:
        """(register name, accesses) of everything touched that no model claims, most used first."""
        return [(self.name_at(address), count) for address, count in self.unmodelled.most_common()]

    def reset(self, *, keep_sticky: bool) -> None:
        """All registers to their reset values; sticky ones only when ``keep_sticky`` is false."""
        self._unclaimed.clear()
        self._moved.clear()
        self._gated = frozenset()
        for slot in self._slots.values():
            if not (slot.sticky and keep_sticky):
                slot.value = slot.reset_value
                slot.banks.clear()

    def _lacks_power(self, address: int) -> bool:
        register = self._registers.at(address)
        lacks = register is not None and register.ip in self._gated
        if lacks:
            self.without_power[address] += 1
            if self.without_power[address] == 1:
                log.warning("%s is accessed while its block has no power", self.name_at(address))
        return lacks

    def count_unmodelled(self, address: int) -> None:
        """Something was asked of a register that nobody does. Raises UnmodelledRegister on a strict card."""
        self.unmodelled[address] += 1
        if self.strict:
            raise UnmodelledRegister(f"no model claims {self.name_at(address)}")
