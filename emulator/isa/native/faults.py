"""From what compiled code says of a fault to the ShaderFault that the interpreter would raise."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.code import CodeCache
from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import Access, MemoryViolation, ShaderFault, ShaderMemory
from amdrv.emulator.isa.launch import Launch
from amdrv.emulator.isa.native import layout
from amdrv.emulator.isa.native.layout import Context, Detail, FaultKind
from amdrv.emulator.isa.native.units import Unit

NAMES = {
    FaultKind.MEMORY: "memory violation",
    FaultKind.ILLEGAL: "illegal instruction",
    FaultKind.MISALIGNED: "misaligned access",
    FaultKind.TRAP: "trap",
}
MASK = (1 << 64) - 1


class Reporter:
    """Describes the faults of one dispatch."""

    def __init__(self, launch: Launch, memory: ShaderMemory, decoder: Decoder) -> None:
        self._launch, self._memory, self._decoder = launch, memory, decoder

    def fault(self, context: Context, state: NDArray[np.uint32], unit: Unit) -> ShaderFault:
        """The fault that a wave with this state has stopped with."""
        pc = int(context.fault_pc)
        base = int(state.view(np.uint64)[layout.STATE_BASE // 8])
        mnemonic = _mnemonic(unit, pc - base & MASK)
        if context.fault_kind == FaultKind.ILLEGAL and context.fault_detail != Detail.INACTIVE_LANES:
            fault = self._illegal(pc, mnemonic, int(state[layout.STATE_MODE // 4]))
        else:
            fault = self._lane_fault(context, pc, mnemonic)
        fault.workgroup = group_of(state)
        return fault

    def _illegal(self, pc: int, mnemonic: str, mode: int) -> ShaderFault:
        """Nothing that can be executed: the interpreter's words for it."""
        try:
            CodeCache({}, self._memory, self._launch.lanes, self._launch.vgprs, self._decoder).block(pc, mode)
        except ShaderFault as fault:
            return fault
        detail = f"{mnemonic or 'it'}: not implemented by the translator"
        return ShaderFault("illegal instruction", detail, pc=pc, mnemonic=mnemonic)

    def _lane_fault(self, context: Context, pc: int, mnemonic: str) -> ShaderFault:
        kind = FaultKind(context.fault_kind)
        detail, va, access = self._detail(context, mnemonic)
        return ShaderFault(
            NAMES[kind],
            f"{mnemonic}: {detail}",
            pc=pc,
            mnemonic=mnemonic,
            lane=int(context.fault_lane),
            va=va,
            access=access,
        )

    def _detail(self, context: Context, mnemonic: str) -> tuple[str, int | None, Access | None]:
        """(text, va, access) of a fault of a lane."""
        va, argument = int(context.fault_va), int(context.fault_argument)
        detail = Detail(context.fault_detail)
        if detail is Detail.TRAP:
            return f"s_trap {argument}", None, None
        if detail is Detail.INACTIVE_LANES:
            return "a transposing load with inactive lanes", None, None
        if detail is Detail.HALT:
            return f"{mnemonic} halted the wave, and nobody is there to resume it", None, None
        access = Access(context.fault_access)
        if detail is Detail.MISALIGNED_ATOMIC:
            return f"atomic of {argument} bytes at {va:#x}", va, access
        if detail is Detail.PRIVATE_WIDE_ATOMIC:
            return "64-bit atomic on private memory, whose dwords are not adjacent", None, access
        if detail is Detail.PRIVATE_BOUNDS:
            base = self._launch.dispatch.private_base
            offset = va & ~base & MASK
            text = f"{access.name.lower()} of private memory at {offset:#x}, of which there are {argument} bytes"
            return text, base | offset, access
        return f"{access.name.lower()} of {va:#x}: {self._reason(va, access)}", va, access

    def _reason(self, va: int, access: Access) -> str:
        """Why an address cannot be reached; it may have become reachable since."""
        try:
            self._memory.extent(va, access)
        except MemoryViolation as violation:
            return violation.reason
        return "no translation at the time"


def group_of(state: NDArray[np.uint32]) -> tuple[int, int, int]:
    """Id of the workgroup that a wave belongs to."""
    place = layout.STATE_GROUP // 4
    x, y, z = (int(word) for word in state[place : place + 3])
    return x, y, z


def _mnemonic(unit: Unit, place: int) -> str:
    """Name of the instruction at an offset from a unit's base."""
    sites = unit.stored.sites
    number = bisect_right(sites, (place, "\x7f")) - 1
    return sites[number][1] if number >= 0 and sites[number][0] == place else ""
