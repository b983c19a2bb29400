"""Data-parallel primitives: which lane each lane reads, and which lanes then take part.

Rules: RDNA3 ISA manual, "DPP". Lanes stand in rows of 16 and banks of 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.instruction import Dpp
from amdrv.emulator.isa.wave import Array, Flags, Group

ROW = 16


def dpp16_source(control: int, lane: int) -> int | None:
    """The lane that ``lane`` reads under a 9-bit DPP16 control; None when it lies outside the row.

    Raises ValueError for a control that RDNA does not have.
    """
    row, place = lane & ~15, lane & 15
    amount = control & 15
    if control < 0x100:  # quad_perm
        return lane & ~3 | control >> 2 * (lane & 3) & 3
    if 0x101 <= control <= 0x10F:  # row_shl
        return row | place + amount if place + amount < ROW else None
    if 0x111 <= control <= 0x11F:  # row_shr
        return row | place - amount if place >= amount else None
    if 0x121 <= control <= 0x12F:  # row_ror
        return row | place - amount & 15
    if control == 0x140:  # row_mirror
        return row | 15 - place
    if control == 0x141:  # row_half_mirror
        return row | place & 8 | 7 - (place & 7)
    if 0x150 <= control <= 0x15F:  # row_share
        return row | amount
    if 0x160 <= control <= 0x16F:  # row_xmask
        return row | place ^ amount
    raise ValueError(f"reserved DPP control {control:#x}")


@dataclass(frozen=True, slots=True)
class LaneExchange:
    """A DPP control worked out: ``source`` lane of each lane, whether it exists, whether the masks keep the lane."""

    source: NDArray[np.int64]
    exists: Flags
    enabled: Flags
    zero_when_absent: bool
    fetch_inactive: bool

    def apply(self, group: Group, row: Array) -> tuple[Array, Flags]:
        """(source 0 as every lane sees it, lanes that write)."""
        if row.shape[1] == 1:
            row = np.broadcast_to(row, (group.count, len(self.source)))
        moved = row[:, self.source]
        active = group.lane_mask()
        present = self.exists
        if active is not None and not self.fetch_inactive:
            present = present & active[:, self.source]
        writes = self.enabled if active is None else self.enabled & active
        if self.zero_when_absent:
            return np.where(present, moved, moved.dtype.type(0)), writes
        return moved, writes & present


def exchange_of(dpp: Dpp, lanes: int) -> LaneExchange:
    """Work out a DPP control for a wave size; raises ValueError for a reserved one."""
    if dpp.kind == "dpp8":
        picked: list[int | None] = [lane & ~7 | dpp.control >> 3 * (lane & 7) & 7 for lane in range(lanes)]
        row_mask = bank_mask = 0xF
        zero_when_absent = True
    else:
        picked = [dpp16_source(dpp.control, lane) for lane in range(lanes)]
        row_mask, bank_mask, zero_when_absent = dpp.row_mask, dpp.bank_mask, dpp.bound_ctrl
    enabled = [bool(row_mask >> (lane >> 4) & 1 and bank_mask >> (lane >> 2 & 3) & 1) for lane in range(lanes)]
    return LaneExchange(
        source=np.array([0 if lane is None else lane for lane in picked], np.int64),
        exists=np.array([[lane is not None for lane in picked]], np.bool_),
        enabled=np.array([enabled], np.bool_),
        zero_when_absent=zero_when_absent,
        fetch_inactive=dpp.fetch_inactive,
    )
