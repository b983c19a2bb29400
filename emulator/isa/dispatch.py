"""What the command processor hands to the shader engines, and what comes back.

Register values travel undecoded: the shader side reads the fields it needs from the register tables.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Access(enum.IntEnum):
    """Why memory is touched; numbers are the RW/permission order of the page-table entry bits."""

    READ = 0
    WRITE = 1
    EXECUTE = 2


class MemoryViolation(Exception):
    """A translation failed or a permission was missing; raised by ShaderMemory, carried on in a ShaderFault."""

    def __init__(self, va: int, access: Access, reason: str = "unmapped") -> None:
        super().__init__(f"{access.name.lower()} of {va:#x}: {reason}")
        self.va = va
        self.access = access
        self.reason = reason


class ShaderMemory(Protocol):
    """One VMID's view of memory, as the shader's vector memory path sees it.

    ``arena`` is every byte the card can reach (VRAM and system memory) as one flat array; ``translate`` turns virtual
    addresses into indices into it. One element of at most 8 bytes that is naturally aligned never crosses a page;
    larger or unaligned accesses are split by the caller.
    """

    arena: NDArray[np.uint8]

    def translate(self, va: NDArray[np.uint64], access: Access) -> NDArray[np.int64]:
        """Arena index of each virtual address (any shape); raises MemoryViolation for the first that fails."""

    def extent(self, va: int, access: Access) -> tuple[int, int, int]:
        """(first, end, delta) of the largest known run of whole 4 KiB pages around ``va`` with one translation.

        An address of [first, end) has the arena index address + delta. Raises MemoryViolation.
        """


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One compute dispatch: the COMPUTE_* registers at the moment of DISPATCH_DIRECT, and its dimensions."""

    pc: int  # byte address of the first instruction: COMPUTE_PGM_HI:LO << 8
    rsrc1: int  # COMPUTE_PGM_RSRC1
    rsrc2: int  # COMPUTE_PGM_RSRC2
    rsrc3: int  # COMPUTE_PGM_RSRC3
    user_data: tuple[int, ...]  # COMPUTE_USER_DATA_0..15
    initiator: int  # COMPUTE_DISPATCH_INITIATOR (CS_W32_EN selects wave32)
    start: tuple[int, int, int]  # first workgroup id in each dimension
    groups: tuple[int, int, int]  # workgroups in each dimension (end, exclusive, is start + groups)
    threads: tuple[int, int, int]  # work-items of a full workgroup in each dimension
    partial_threads: tuple[int, int, int] = (0, 0, 0)  # work-items of the last workgroup of each dimension; 0: full
    tmpring_size: int = 0  # COMPUTE_TMPRING_SIZE
    scratch_base: int = 0  # byte address: COMPUTE_DISPATCH_SCRATCH_BASE_HI:LO << 8
    shared_base: int = 0  # flat aperture of LDS: SH_MEM_BASES.SHARED_BASE << 48
    private_base: int = 0  # flat aperture of scratch: SH_MEM_BASES.PRIVATE_BASE << 48


@dataclass(frozen=True, slots=True)
class WaveRegisters:
    """What a wave held when it stopped, as SQ_IND shows it.

    ``scalars`` is uint32[128] by scalar operand code (SGPRs, VCC, M0, EXEC), ``vectors`` uint32[registers, lanes].
    """

    scalars: NDArray[np.uint32]
    vectors: NDArray[np.uint32]


class RunningWave(NamedTuple):
    """A wave that has not ended."""

    pc: int
    workgroup: tuple[int, int, int]


class ShaderFault(Exception):
    """A wave stopped the dispatch: memory violation, illegal instruction, misalignment, trap."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        pc: int,
        mnemonic: str = "",
        lane: int | None = None,
        va: int | None = None,
        access: Access | None = None,
        workgroup: tuple[int, int, int] | None = None,
        registers: WaveRegisters | None = None,
    ) -> None:
        super().__init__(f"{kind} at pc {pc:#x}: {detail}")
        self.kind = kind  # "memory violation", "illegal instruction", "misaligned access", "trap", "illegal dispatch"
        self.detail = detail
        self.pc = pc
        self.mnemonic = mnemonic
        self.lane = lane
        self.va = va
        self.access = access
        self.workgroup = workgroup
        self.registers = registers  # None where the engine cannot say


@dataclass(slots=True)
class DispatchStats:
    """Counts of one dispatch; wave_instructions leaves out s_waitcnt*, s_delay_alu, s_nop and s_clause."""

    waves: int = 0
    wave_instructions: int = 0


class ShaderEngine(Protocol):
    """Runs dispatches. The interpreter is one; a translator to host code is another."""

    def run(
        self,
        dispatch: Dispatch,
        memory: ShaderMemory,
        *,
        cancelled: Callable[[], bool],
        realtime: Callable[[], int],
        interrupt: Callable[[int], None],
    ) -> DispatchStats:
        """Run every wave to its end.

        ``cancelled`` is asked every few milliseconds and ends the dispatch when true (queue reset, watchdog), so that
        ``run`` returns what was done; ``realtime`` is the 100 MHz counter that s_sendmsg_rtn(REALTIME) reads;
        ``interrupt`` gets M0 of s_sendmsg(INTERRUPT). Raises ShaderFault.
        """

    def running_wave(self) -> RunningWave | None:
        """Where a wave of the dispatch under way was not long ago; None when that is not known. From any thread."""

    def invalidate_code(self) -> None:
        """Forget decoded instructions: what ACQUIRE_MEM with an I$ invalidation does."""
