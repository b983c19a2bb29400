"""Memory that compiled code shares with Python: the state of a wave, a thread's context, and what a call returns.

Offsets are in bytes. A wave's registers are in its state only while it does not run: compiled code loads what it needs
where it enters and stores what is alive where it leaves.
"""

from __future__ import annotations

import ctypes
import enum

# Wave state. PC is a virtual address, or START for a wave that has not run yet.
STATE_PC = 0  # i64
STATE_COUNT = 8  # i64: wave-instructions executed so far
STATE_SCC = 16  # i32: 0 or 1
STATE_MODE = 20  # i32: MODE register
STATE_NUMBER = 24  # i32: number of the wave in its workgroup
STATE_WAVES = 28  # i32: waves of the workgroup
STATE_GROUP = 32  # 3 x i32: workgroup id
STATE_SLOT = 44  # i32: where the workgroup is resident (for HW_ID)
STATE_SCRATCH = 48  # i64: virtual address of the wave's private memory
STATE_OUTCOME = 56  # i32: what the last call returned
STATE_PHASE = 60  # i32: of the workgroup's split barrier when the wave last waited there
STATE_CELL = 64  # i64: host address of where the address of the wave's unit function is
STATE_BASE = 72  # i64: virtual address of its unit's base
STATE_SGPR = 128  # 128 x u32 by scalar operand code: SGPRs, VCC 106, TTMP 108, NULL 124, M0 125, EXEC 126
STATE_VGPR = 640  # u32[vgprs][lanes]

START = (1 << 64) - 1
SGPRS = 128


def state_bytes(vgprs: int, lanes: int) -> int:
    """Size of a wave's state, a multiple of 64."""
    return STATE_VGPR + 4 * vgprs * lanes


class Outcome(enum.IntEnum):
    """Why a wave function returned."""

    END = 0
    BARRIER = 1
    YIELD = 2  # its budget of instructions is used up
    POLL = 3  # it seems to wait for another wave, or sleeps
    FAULT = 4  # described in the context
    JUMP = 5  # it goes on at a PC, or in a mode, that this unit has no entry for
    REFETCH = 6  # s_icache_inv: the same, with code fetched anew
    WAIT = 7  # at a split barrier


class FaultKind(enum.IntEnum):
    """Reasons of Outcome.FAULT, with the names they have in a ShaderFault."""

    MEMORY = 1
    ILLEGAL = 2
    MISALIGNED = 3
    TRAP = 4


class Context(ctypes.Structure):
    """What compiled code finds in memory about its host thread and dispatch; one for each thread."""

    _fields_ = (
        ("arena", ctypes.c_uint64),  # host address of the arena's first byte
        ("lds", ctypes.c_uint64),  # host address of the running workgroup's LDS
        ("lds_bytes", ctypes.c_uint32),  # its size
        ("scratch_lane_bytes", ctypes.c_uint32),  # private memory of a lane
        ("tlb_read", ctypes.c_uint64),  # host address of TLB_ENTRIES TlbEntry and SITES SiteEntry
        ("tlb_write", ctypes.c_uint64),
        ("miss", ctypes.c_uint64),  # host function i32 (ptr context, i64 va, i32 access): 1 and the TLB is filled, or 0
        ("service", ctypes.c_uint64),  # host function i64 (ptr context, i32 Service, i64 argument)
        ("shared_base", ctypes.c_uint64),  # flat aperture of LDS
        ("private_base", ctypes.c_uint64),  # flat aperture of private memory
        ("budget", ctypes.c_int32),  # instructions until a wave yields at a backward branch
        ("lanes", ctypes.c_uint32),
        ("vgprs", ctypes.c_uint32),
        ("lds_limit", ctypes.c_uint32),  # reserved size of the LDS buffer, at least lds_bytes + 64
        # The fault, when a wave function returned FAULT. Slow paths fill in all but ``pc``.
        ("fault_kind", ctypes.c_uint32),  # FaultKind
        ("fault_lane", ctypes.c_uint32),
        ("fault_va", ctypes.c_uint64),
        ("fault_access", ctypes.c_uint32),  # dispatch.Access
        ("fault_detail", ctypes.c_uint32),  # Detail
        ("fault_argument", ctypes.c_uint64),  # what the detail's text needs
        ("fault_pc", ctypes.c_uint64),
        # What a TLB miss looks at: EXTENTS Extent each, so many of them filled, and whom it asks at last.
        ("extents_read", ctypes.c_uint64),
        ("extents_write", ctypes.c_uint64),
        ("extents_read_count", ctypes.c_uint32),
        ("extents_write_count", ctypes.c_uint32),
        ("find_extent", ctypes.c_uint64),  # host function like ``miss``: 1 and the TLB is filled, or 0
        ("barrier", ctypes.c_uint64),  # host address of the running workgroup's Barrier
        ("stopped_state", ctypes.c_uint64),  # of the wave at which a call that runs several was left early
    )


class Barrier(ctypes.Structure):
    """A workgroup's split barrier: when as many waves have signalled as there are, ``phase`` moves on.

    A wave for which it has moved since its last wait (STATE_PHASE) has its complete bit set.
    """

    _fields_ = (
        ("alive", ctypes.c_uint32),  # waves of the workgroup that have not ended
        ("signals", ctypes.c_uint32),
        ("phase", ctypes.c_uint32),
    )


class Detail(enum.IntEnum):
    """Which text a fault's detail has."""

    TRANSLATION = 0  # the reason is asked of ShaderMemory again
    PRIVATE_BOUNDS = 1  # private memory; argument: its size in bytes
    PRIVATE_WIDE_ATOMIC = 2
    MISALIGNED_ATOMIC = 3  # argument: bytes of the element
    TRAP = 4  # argument: the number of s_trap
    HALT = 5
    NOT_IMPLEMENTED = 6
    UNDECODABLE = 7  # argument: nothing; the bytes at the PC are no instruction
    INACTIVE_LANES = 8  # a transposing load


class Service(enum.IntEnum):
    """What a wave asks of the card."""

    REALTIME = 0
    INTERRUPT = 1  # argument: M0


class TlbEntry(ctypes.Structure):
    """One entry of a direct-mapped translation cache, found by ``tlb_slot``.

    It holds a whole extent, not a page: ``tag`` is va >> 12 of the page that was looked up (all ones: empty), and every
    address in [first, end) is at arena index va + delta (modulo 2**64).
    """

    _fields_ = (
        ("tag", ctypes.c_uint64),
        ("first", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("delta", ctypes.c_uint64),
    )


class SiteEntry(ctypes.Structure):
    """The extent in which an instruction found its data last; these lie behind the TlbEntry of a cache.

    ``start - first < near_limit`` says that NEAR_BYTES from ``start`` on are in it (``far_limit``: FAR_BYTES), at host
    address start + delta. All zeros: none yet.
    """

    _fields_ = (
        ("first", ctypes.c_uint64),
        ("near_limit", ctypes.c_uint64),
        ("far_limit", ctypes.c_uint64),
        ("delta", ctypes.c_uint64),
    )


class Extent(ctypes.Structure):
    """A run of virtual addresses with one translation: arena index = address + ``delta`` (modulo 2**64)."""

    _fields_ = (("first", ctypes.c_uint64), ("end", ctypes.c_uint64), ("delta", ctypes.c_uint64))


EXTENTS = 32
TLB_ENTRIES = 1024
SITES = 256
NEAR_BYTES, FAR_BYTES = 256, 1024
TLB_PAGE_SHIFT = 12
TLB_EMPTY = (1 << 64) - 1
# Arrays that are read side by side must not share their entries, however far apart they lie: the golden ratio hardly
# ever brings two together, folding the page number would whenever their distance is a little more than a power of two.
TLB_HASH = 0x9E37_79B9_7F4A_7C15
TLB_HASH_SHIFT = 54


def tlb_slot(page: int) -> int:
    """Number of the entry for a page (va >> 12)."""
    return (page * TLB_HASH & TLB_EMPTY) >> TLB_HASH_SHIFT


def site_offset(number: int) -> int:
    """Where a cache has the entry of an instruction's site; the first is for all that have none of their own."""
    own = 1 + (number - 1) % (SITES - 1) if number else 0
    return TLB_ENTRIES * ctypes.sizeof(TlbEntry) + own * ctypes.sizeof(SiteEntry)


def offset(name: str) -> int:
    """Byte offset of a field of ``Context``."""
    descriptor: int = getattr(Context, name).offset
    return descriptor
