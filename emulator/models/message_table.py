"""MSI-X of the bus interface: the table of vectors, the pending bits, and which messages leave when.

Places and fields: Linux 6.12 nbio_4_3_0_offset.h and nbif_6_3_1_offset.h (RCC_DEV0_EPF0_GFXMSIX_*), which agree; lspci
of AMD's APUs shows the same ones (BAR 5, 0x42000 and 0x43000). Behaviour: PCI Express Base Specification 4.0 §6.1.4.
The bus interface takes no part in a reset of the chip, so all of this goes on over one, as configuration space does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amdrv.emulator.model import Model

PREFIX = "RCC_DEV0_EPF0_GFXMSIX"
ENTRIES = 4
MASK_BIT = 1
# Register of an entry → writable bits, value after a reset: every vector begins masked.
FIELDS = {"ADDR_LO": (0xFFFF_FFFC, 0), "ADDR_HI": (0xFFFF_FFFF, 0), "MSG_DATA": (0xFFFF_FFFF, 0), "CONTROL": (1, 1)}

State = tuple[tuple[int, ...], ...]


class MessageTable:
    """The vectors of one function. The card's lock covers every method."""

    def __init__(self, bus_interface: Model) -> None:
        self._card = bus_interface.card
        claim = bus_interface.claim
        self._entries = [
            {
                field: claim(
                    f"{PREFIX}_VECT{number}_{field}",
                    writable=writable,
                    reset=reset,
                    sticky=True,
                    on_write=self._control_written if field == "CONTROL" else None,
                )
                for field, (writable, reset) in FIELDS.items()
            }
            for number in range(ENTRIES)
        ]
        self._pending = claim(f"{PREFIX}_PBA", writable=0, sticky=True)
        # Pending bits come in quadwords; the headers name the lower half.
        bus_interface.claim_hole(f"{PREFIX}_PBA_HI", self._pending.register.dword + 1)

    def send(self, vector: int) -> None:
        """Send a vector's message, or keep it in mind while the vector or all of them are masked."""
        if self._masked(vector):
            self._pending.value |= 1 << vector
        else:
            self._card.send_message(vector)

    def send_pending(self) -> None:
        """A mask may have gone: what waited for that is sent, once a vector."""
        if not self._pending.value or not self._card.config.msix_enabled or not self._card.bus_master:
            return
        for vector in range(ENTRIES):
            if self._pending.value >> vector & 1 and not self._masked(vector):
                self._pending.value &= ~(1 << vector)
                self._card.send_message(vector)
        self._card.notify()

    def mask(self, vector: int, *, masked: bool) -> None:
        """Write a vector's mask bit."""
        self._entries[vector]["CONTROL"].value = MASK_BIT if masked else 0
        self.send_pending()

    def save(self) -> State:
        """The table, as an operating system keeps it over a reset that it does itself."""
        return tuple(tuple(slot.value for slot in entry.values()) for entry in self._entries)

    def restore(self, saved: State) -> None:
        """Put back what ``save`` returned."""
        for entry, values in zip(self._entries, saved, strict=True):
            for slot, value in zip(entry.values(), values, strict=True):
                slot.value = value

    def _masked(self, vector: int) -> bool:
        return self._card.config.msix_masked or bool(self._entries[vector]["CONTROL"].value & MASK_BIT)

    def _control_written(self, _value: int) -> None:
        self.send_pending()
