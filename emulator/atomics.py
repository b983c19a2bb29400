"""Atomic operations of packets on memory: what GL2 does for PM4 ATOMIC_MEM and SDMA ATOMIC.

Opcode numbers: Linux 6.12 soc21_enum.h (TC_OP). INC and DEC wrap at the operand, as the instructions of the same name
do (RDNA3 instruction set manual, GLOBAL_ATOMIC_INC).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from amdrv.facts.atomics import AtomicOpcode

NO_RETURN, WIDE = 0x40, 0x20  # the opcode's bits for "no old value wanted" and "64 bits"


class Memory(Protocol):
    """Where the operand lies."""

    def read(self, va: int, size_bytes: int) -> bytes:
        """Bytes at ``va``."""

    def write(self, va: int, data: bytes) -> None:
        """Store bytes at ``va``."""


Update = Callable[[int, int, int, int], int]  # (old, source, compare, bits) -> new


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _float(value: int, bits: int) -> float:
    code, size = ("<d", 8) if bits == 64 else ("<f", 4)
    return float(struct.unpack(code, value.to_bytes(size, "little"))[0])


def _add_float(old: int, source: int, _compare: int, bits: int) -> int:
    code = "<d" if bits == 64 else "<f"
    return int.from_bytes(struct.pack(code, _float(old, bits) + _float(source, bits)), "little")


UPDATES: dict[int, Update] = {
    AtomicOpcode.SWAP_RTN_32: lambda old, source, compare, bits: source,
    AtomicOpcode.CMPSWAP_RTN_32: lambda old, source, compare, bits: source if old == compare else old,
    AtomicOpcode.ADD_RTN_32: lambda old, source, compare, bits: old + source,
    AtomicOpcode.SUB_RTN_32: lambda old, source, compare, bits: old - source,
    AtomicOpcode.SMIN_RTN_32: lambda old, source, compare, bits: min(old, source, key=lambda v: _signed(v, bits)),
    AtomicOpcode.UMIN_RTN_32: lambda old, source, compare, bits: min(old, source),
    AtomicOpcode.SMAX_RTN_32: lambda old, source, compare, bits: max(old, source, key=lambda v: _signed(v, bits)),
    AtomicOpcode.UMAX_RTN_32: lambda old, source, compare, bits: max(old, source),
    AtomicOpcode.AND_RTN_32: lambda old, source, compare, bits: old & source,
    AtomicOpcode.OR_RTN_32: lambda old, source, compare, bits: old | source,
    AtomicOpcode.XOR_RTN_32: lambda old, source, compare, bits: old ^ source,
    AtomicOpcode.INC_RTN_32: lambda old, source, compare, bits: 0 if old >= source else old + 1,
    AtomicOpcode.DEC_RTN_32: lambda old, source, compare, bits: source if not 0 < old <= source else old - 1,
    AtomicOpcode.FMIN_RTN_32: lambda old, source, compare, bits: min(old, source, key=lambda v: _float(v, bits)),
    AtomicOpcode.FMAX_RTN_32: lambda old, source, compare, bits: max(old, source, key=lambda v: _float(v, bits)),
    AtomicOpcode.FADD_FLUSH_DENORM_RTN_32: _add_float,
}


def known(opcode: int) -> bool:
    """Whether ``update`` can do it."""
    return opcode & ~(NO_RETURN | WIDE) in UPDATES


def update(memory: Memory, opcode: int, address: int, source: int, compare: int) -> int:
    """Do one atomic operation; returns the value that was there. Raises KeyError for an unknown opcode."""
    size = 8 if opcode & WIDE else 4
    mask = (1 << 8 * size) - 1
    operation = UPDATES[opcode & ~(NO_RETURN | WIDE)]
    address &= ~(size - 1)
    old = int.from_bytes(memory.read(address, size), "little")
    new = operation(old, source & mask, compare & mask, 8 * size) & mask
    memory.write(address, new.to_bytes(size, "little"))
    return old


def compares(opcode: int) -> bool:
    """Whether the operation is a compare-and-swap, on which a packet can loop."""
    return opcode & ~(NO_RETURN | WIDE) == AtomicOpcode.CMPSWAP_RTN_32
