"""The relocations of AMDGPU code objects.

Source: LLVM 22 BinaryFormat/ELFRelocs/AMDGPU.def (numbers), AMDGPUUsage "Relocation Records" (calculations). S is the
symbol's address, A the addend, P the address patched, B the base of the image, G a global-offset-table slot.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from amdrv.errors import MalformedInput

MASK_32 = (1 << 32) - 1
MASK_64 = (1 << 64) - 1


class Fit(enum.Enum):
    """Whether a value may be cut to its field."""

    ANY = 0
    SIGNED = 1
    UNSIGNED = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """One relocation type: its field, and the value from (S + A, P)."""

    name: str
    size_bytes: int
    value: Callable[[int, int], int]
    fit: Fit = Fit.ANY


# R_AMDGPU_* by number. GOTPCREL kinds are REL32 kinds whose S is the slot's address: G + GOT + A - P.
KINDS: dict[int, Kind] = {
    1: Kind("ABS32_LO", 4, lambda sa, p: sa & MASK_32),
    2: Kind("ABS32_HI", 4, lambda sa, p: sa >> 32 & MASK_32),
    3: Kind("ABS64", 8, lambda sa, p: sa & MASK_64),
    4: Kind("REL32", 4, lambda sa, p: sa - p, fit=Fit.SIGNED),
    5: Kind("REL64", 8, lambda sa, p: (sa - p) & MASK_64),
    6: Kind("ABS32", 4, lambda sa, p: sa, fit=Fit.UNSIGNED),
    7: Kind("GOTPCREL", 4, lambda sa, p: sa - p, fit=Fit.SIGNED),
    8: Kind("GOTPCREL32_LO", 4, lambda sa, p: (sa - p) & MASK_32),
    9: Kind("GOTPCREL32_HI", 4, lambda sa, p: (sa - p) >> 32 & MASK_32),
    10: Kind("REL32_LO", 4, lambda sa, p: (sa - p) & MASK_32),
    11: Kind("REL32_HI", 4, lambda sa, p: (sa - p) >> 32 & MASK_32),
    13: Kind("RELATIVE64", 8, lambda sa, p: sa & MASK_64),
    14: Kind("REL16", 2, lambda sa, p: (sa - p - 4) // 4, fit=Fit.SIGNED),  # a branch, counted in dwords
}
ABS64 = 3
GOT_RELATIVE = frozenset({7, 8, 9})
DYNAMIC_ONLY = frozenset({13})


@dataclass(frozen=True, slots=True)
class Relocation:
    """One patch of an image."""

    offset: int  # of the field, in the image
    kind: Kind
    target: int  # image offset of the symbol, or its value when absolute
    absolute: bool
    addend: int

    def apply(self, memory: bytearray, base_va: int) -> None:
        """Patch ``memory``, an image that will lie at ``base_va``. Raises MalformedInput when a value does not fit."""
        symbol_va = self.target if self.absolute else base_va + self.target
        value = self.kind.value(symbol_va + self.addend, base_va + self.offset)
        bits = self.kind.size_bytes * 8
        limits = {Fit.ANY: None, Fit.SIGNED: range(-(1 << bits - 1), 1 << bits - 1), Fit.UNSIGNED: range(1 << bits)}
        allowed = limits[self.kind.fit]
        if allowed is not None and value not in allowed:
            raise MalformedInput(f"code object: {self.kind.name} at {self.offset:#x}: {value:#x} overflows {bits} bits")
        field = (value & ((1 << bits) - 1)).to_bytes(self.kind.size_bytes, "little")
        memory[self.offset : self.offset + self.kind.size_bytes] = field
