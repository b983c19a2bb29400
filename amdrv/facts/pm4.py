"""PM4 type-3 packets of gfx10 and gfx11: headers, bodies, and the numbers that go into their fields.

Layouts: Linux 6.12 amdgpu/nvd.h and what gfx_v11_0.c emits; amdkfd/kfd_pm4_headers_ai.h for queue management; AMD PAL
src/core/hw/gfxip/gfx9/chip (merged MEC packet header, the Navi31 variants) for what the compute engine takes.

A field's place counts bits over the whole body: dword n, bit b is bit 32·n + b; dword 0 is the one after the header.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple, SupportsIndex

from amdrv.errors import InvalidArgument
from amdrv.facts.pm4_opcodes import Opcode as Opcode
from amdrv.registers.fields import BitLayout, Field

PACKET_TYPE3 = 3
# COUNT is body dwords - 1. SHADER_TYPE 1 makes the graphics engine treat the packet as compute.
HEADER = BitLayout(
    "PM4 header",
    1,
    {
        "PREDICATE": Field(0),
        "SHADER_TYPE": Field(1),
        "OPCODE": Field(8, 8),
        "COUNT": Field(16, 14),
        "TYPE": Field(30, 2),
    },
)
MAX_BODY_DWORDS = 0x3FFF  # a COUNT of 0x3fff means something else, see NOP_ONE_DWORD

TYPE2_FILLER = 0x80000000  # a type-2 packet: one dword that does nothing
NOP_ONE_DWORD = 0xFFFF1000  # NOP with COUNT 0x3fff: this header alone (gfx_v11_0.c: ring funcs .nop)


def header(opcode: int, body_dwords: int, *, compute: bool = False) -> int:
    """Type-3 header of a packet with ``body_dwords`` dwords after it; raises InvalidArgument for a bad length."""
    if not 1 <= body_dwords <= MAX_BODY_DWORDS:
        raise InvalidArgument(f"a PM4 packet body has 1 to {MAX_BODY_DWORDS} dwords, not {body_dwords}")
    return PACKET_TYPE3 << 30 | (body_dwords - 1) << 16 | opcode << 8 | compute << 1


class PacketLayout(BitLayout):
    """A packet whose body has fixed fields; a variable tail (data, register values) follows the fixed dwords."""

    __slots__ = ("opcode",)

    def __init__(self, opcode: Opcode, dwords: int, fields: Mapping[str, Field]) -> None:
        super().__init__(opcode.name, dwords, fields)
        self.opcode = opcode

    def build(self, *tail: int, **values: SupportsIndex) -> tuple[int, ...]:
        """Header, fixed dwords with the named fields set, then ``tail``; raises NotFound or InvalidArgument."""
        body = self.encode(**values)
        return (header(self.opcode, len(body) + len(tail)), *body, *tail)


def _at(dword: int, lo: int = 0, width: int = 32) -> Field:
    return Field(32 * dword + lo, width)


class RegisterWindow(NamedTuple):
    """The dword registers that a SET packet reaches, ``start`` up to ``end``; REG_OFFSET counts from start."""

    start: int
    end: int


_SHADER = RegisterWindow(0x2C00, 0x3000)
_CONTEXT = RegisterWindow(0xA000, 0xA400)
# nvd.h ends it at 0xc400, but user configuration registers (trace, performance counters) go on to 0xffff.
_USER_CONFIG = RegisterWindow(0xC000, 0x10000)
SET_WINDOWS: dict[int, RegisterWindow] = {
    Opcode.SET_CONFIG_REG: RegisterWindow(0x2000, 0x2C00),
    Opcode.SET_SH_REG: _SHADER,
    Opcode.SET_SH_REG_INDEX: _SHADER,
    Opcode.SET_CONTEXT_REG: _CONTEXT,
    Opcode.SET_CONTEXT_REG_INDEX: _CONTEXT,
    Opcode.SET_UCONFIG_REG: _USER_CONFIG,
    Opcode.SET_UCONFIG_REG_INDEX: _USER_CONFIG,
}
# One layout for all of them; values follow. INDEX matters to the _INDEX forms only (3: apply the driver's CU mask).
SET_REG = BitLayout("SET_*_REG", 1, {"REG_OFFSET": _at(0, 0, 16), "INDEX": _at(0, 28, 4)})


class Engine(enum.IntEnum):
    """ENGINE_SEL of WRITE_DATA, COPY_DATA and WAIT_REG_MEM; compute queues ignore it."""

    ME = 0
    PFP = 1


class MemoryTarget(enum.IntEnum):
    """DST_SEL of WRITE_DATA and COPY_DATA. Since gfx10 MEMORY goes through GL2 as well."""

    REGISTER = 0
    MEMORY_SYNC = 1  # through GRBM; graphics rings only
    GL2 = 2
    GDS = 3
    PERFCOUNTER = 4
    MEMORY = 5


class CopySource(enum.IntEnum):
    """SRC_SEL of COPY_DATA. Since gfx10 MEMORY goes through GL2 as well."""

    REGISTER = 0
    MEMORY = 1
    GL2 = 2
    GDS = 3
    PERFCOUNTER = 4
    IMMEDIATE = 5
    ATOMIC_RETURN = 6
    GPU_CLOCK = 9
    SYSTEM_CLOCK = 10


class CachePolicy(enum.IntEnum):
    """CACHE_POLICY of every packet that has one: what GL2 does with the line."""

    LRU = 0
    STREAM = 1
    NO_ALLOCATE = 2
    BYPASS = 3


class CompareFunction(enum.IntEnum):
    """FUNCTION of WAIT_REG_MEM: how the masked value must relate to the reference."""

    ALWAYS = 0
    LESS = 1
    LESS_EQUAL = 2
    EQUAL = 3
    NOT_EQUAL = 4
    GREATER_EQUAL = 5
    GREATER = 6


WRITE_DATA = PacketLayout(
    Opcode.WRITE_DATA,
    3,
    {
        "DST_SEL": _at(0, 8, 4),
        "NO_ADDR_INCR": _at(0, 16, 1),
        "RESUME_VF": _at(0, 19, 1),
        "WR_CONFIRM": _at(0, 20, 1),
        "CACHE_POLICY": _at(0, 25, 2),
        "ENGINE_SEL": _at(0, 30, 2),
        "ADDRESS": _at(1, 0, 64),  # bytes; for a register its dword index
    },
)
COPY_DATA = PacketLayout(
    Opcode.COPY_DATA,
    5,
    {
        "SRC_SEL": _at(0, 0, 4),
        "DST_SEL": _at(0, 8, 4),
        "SRC_CACHE_POLICY": _at(0, 13, 2),
        "COUNT_SEL": _at(0, 16, 1),  # 0: 32 bits, 1: 64 bits
        "WR_CONFIRM": _at(0, 20, 1),
        "DST_CACHE_POLICY": _at(0, 25, 2),
        "PQ_EXE_STATUS": _at(0, 29, 1),
        "ENGINE_SEL": _at(0, 30, 2),
        "SRC": _at(1, 0, 64),  # address in bytes, register as dword index, or the immediate
        "DST": _at(3, 0, 64),
    },
)
_WAIT_CONTROL = {
    "FUNCTION": _at(0, 0, 3),
    "MEM_SPACE": _at(0, 4, 2),  # 0: register, 1: memory
    "OPERATION": _at(0, 6, 2),  # 0: wait, 1: write a register, then wait on another, 3: wait, may be preempted
    "ENGINE_SEL": _at(0, 8, 2),
    "CACHE_POLICY": _at(0, 25, 2),
    "ADDRESS": _at(1, 0, 64),  # bytes; for registers dword indexes: the one to write low, the one to poll high
}
WAIT_REG_MEM = PacketLayout(
    Opcode.WAIT_REG_MEM,
    6,
    {**_WAIT_CONTROL, "REFERENCE": _at(3), "MASK": _at(4), "POLL_INTERVAL": _at(5, 0, 16)},
)
WAIT_REG_MEM64 = PacketLayout(
    Opcode.WAIT_REG_MEM64,
    8,
    {**_WAIT_CONTROL, "REFERENCE": _at(3, 0, 64), "MASK": _at(5, 0, 64), "POLL_INTERVAL": _at(7, 0, 16)},
)
ATOMIC_MEM = PacketLayout(
    Opcode.ATOMIC_MEM,
    8,
    {
        "ATOMIC": _at(0, 0, 7),
        "COMMAND": _at(0, 8, 4),  # 0: once, 1: until the comparison holds, 2: and confirm, 3: send and go on
        "CACHE_POLICY": _at(0, 25, 2),
        "ADDRESS": _at(1, 0, 64),
        "SRC_DATA": _at(3, 0, 64),
        "CMP_DATA": _at(5, 0, 64),
        "LOOP_INTERVAL": _at(7, 0, 13),
    },
)
DMA_DATA = PacketLayout(
    Opcode.DMA_DATA,
    6,
    {
        "ENGINE": _at(0, 0, 1),
        "SRC_CACHE_POLICY": _at(0, 13, 2),
        "DST_SEL": _at(0, 20, 2),  # 0: address by DAS, 1: GDS, 2: nowhere, 3: address through L2
        "DST_CACHE_POLICY": _at(0, 25, 2),
        "SRC_SEL": _at(0, 29, 2),  # 0: address by SAS, 1: GDS, 2: the data, 3: address through L2
        "CP_SYNC": _at(0, 31, 1),
        "SRC": _at(1, 0, 64),
        "DST": _at(3, 0, 64),
        "BYTE_COUNT": _at(5, 0, 26),
        "SAS": _at(5, 26, 1),  # 0: memory, 1: register
        "DAS": _at(5, 27, 1),
        "SAIC": _at(5, 28, 1),  # 1: do not advance the source
        "DAIC": _at(5, 29, 1),
        "RAW_WAIT": _at(5, 30, 1),
        "DIS_WC": _at(5, 31, 1),  # do not wait for write confirmation
    },
)


# What ACQUIRE_MEM does to the caches: GLI instruction, GLK scalar, GLV vector L0, GL1, GL2, GLM metadata.
GCR_CNTL: dict[str, Field] = {
    "GLI_INV": Field(0, 2),
    "GL1_RANGE": Field(2, 2),
    "GLM_WB": Field(4),
    "GLM_INV": Field(5),
    "GLK_WB": Field(6),
    "GLK_INV": Field(7),
    "GLV_INV": Field(8),
    "GL1_INV": Field(9),
    "GL2_US": Field(10),
    "GL2_RANGE": Field(11, 2),
    "GL2_DISCARD": Field(13),
    "GL2_INV": Field(14),
    "GL2_WB": Field(15),
    "SEQ": Field(16, 2),  # 0: all levels at once, 1: from the shader outwards, 2: towards the shader
    "RANGE_IS_PA": Field(18),
}
ACQUIRE_MEM = PacketLayout(
    Opcode.ACQUIRE_MEM,
    7,
    {
        "COHER_CNTL": _at(0),
        "COHER_SIZE": _at(1, 0, 57),  # 256-byte units; all ones for everything
        "COHER_BASE": _at(3, 0, 56),  # 256-byte units
        "POLL_INTERVAL": _at(5, 0, 16),
        **{name: Field(32 * 6 + field.lo, field.width) for name, field in GCR_CNTL.items()},
    },
)


class Event(enum.IntEnum):
    """EVENT_TYPE values that compute meets (soc21_enum.h VGT_EVENT_TYPE)."""

    CACHE_FLUSH_TS = 0x04
    CACHE_FLUSH = 0x06
    CS_PARTIAL_FLUSH = 0x07
    CACHE_FLUSH_AND_INV_TS_EVENT = 0x14
    CACHE_FLUSH_AND_INV_EVENT = 0x16
    PERFCOUNTER_START = 0x17
    PERFCOUNTER_STOP = 0x18
    PERFCOUNTER_SAMPLE = 0x1B
    CS_CONTEXT_DONE = 0x23
    BOTTOM_OF_PIPE_TS = 0x28
    CS_DONE = 0x2F
    THREAD_TRACE_START = 0x33
    THREAD_TRACE_STOP = 0x34
    THREAD_TRACE_MARKER = 0x35
    THREAD_TRACE_FINISH = 0x37


class EventIndex(enum.IntEnum):
    """EVENT_INDEX: the kind of event, which the engine needs beside its type."""

    OTHER = 0
    PARTIAL_FLUSH = 4
    END_OF_PIPE = 5
    SHADER_DONE = 6


class DataSelect(enum.IntEnum):
    """DATA_SEL of RELEASE_MEM: what is written when the event is reached."""

    NONE = 0
    LOW_32 = 1
    ALL_64 = 2
    GPU_CLOCK = 3
    SYSTEM_CLOCK = 4


class InterruptSelect(enum.IntEnum):
    """INT_SEL of RELEASE_MEM."""

    NONE = 0
    ONLY = 1  # DATA_SEL must be NONE
    AFTER_WRITE_CONFIRM = 2
    DATA_AFTER_WRITE_CONFIRM = 3  # no interrupt; the write is confirmed before the next packet
    CONTEXT_ID = 4  # interrupt with INT_CTXID, unconditionally
    CONTEXT_ID_IF_32 = 5  # the same if the 32 bits there compare with DATA
    CONTEXT_ID_IF_64 = 6


RELEASE_MEM = PacketLayout(
    Opcode.RELEASE_MEM,
    7,
    {
        "EVENT_TYPE": _at(0, 0, 6),
        "EVENT_INDEX": _at(0, 8, 4),
        "GLM_WB": _at(0, 12, 1),
        "GLM_INV": _at(0, 13, 1),  # needed with GLM_WB
        "GLV_INV": _at(0, 14, 1),
        "GL1_INV": _at(0, 15, 1),
        "GL2_US": _at(0, 16, 1),
        "GL2_RANGE": _at(0, 17, 2),
        "GL2_DISCARD": _at(0, 19, 1),
        "GL2_INV": _at(0, 20, 1),
        "GL2_WB": _at(0, 21, 1),
        "SEQ": _at(0, 22, 2),
        "GLK_WB": _at(0, 24, 1),
        "CACHE_POLICY": _at(0, 25, 2),
        "PQ_EXE_STATUS": _at(0, 28, 1),
        "GLK_INV": _at(0, 30, 1),
        "PWS_ENABLE": _at(0, 31, 1),
        "DST_SEL": _at(1, 16, 2),  # 0: memory, 1: GL2
        "INT_SEL": _at(1, 24, 3),
        "DATA_SEL": _at(1, 29, 3),
        "ADDRESS": _at(2, 0, 64),  # bytes, aligned to what is written
        "DATA": _at(4, 0, 64),
        "INT_CTXID": _at(6),  # lands in the interrupt entry's source data
    },
)
EVENT_WRITE = PacketLayout(
    Opcode.EVENT_WRITE,
    1,
    {"EVENT_TYPE": _at(0, 0, 6), "EVENT_INDEX": _at(0, 8, 4), "OFFLOAD_ENABLE": _at(0, 31, 1)},
)
EVENT_WRITE_ADDRESS = PacketLayout(Opcode.EVENT_WRITE, 3, {**EVENT_WRITE.fields, "ADDRESS": _at(1, 0, 64)})


INDIRECT_BUFFER = PacketLayout(
    Opcode.INDIRECT_BUFFER,
    3,
    {
        "IB_BASE": _at(0, 0, 64),  # bytes, aligned to 4
        "IB_SIZE": _at(2, 0, 20),  # dwords
        "CHAIN": _at(2, 20, 1),  # jump instead of call
        "PRE_ENA": _at(2, 21, 1),  # graphics rings
        "OFFLOAD_POLLING": _at(2, 21, 1),  # compute queues
        "VALID": _at(2, 23, 1),
        "VMID": _at(2, 24, 4),
        "CACHE_POLICY": _at(2, 28, 2),
        "PRE_RESUME": _at(2, 30, 1),  # on queues mapped by MES: take the VMID from the queue descriptor
    },
)
COND_EXEC = PacketLayout(
    Opcode.COND_EXEC,
    4,
    {
        "ADDRESS": _at(0, 0, 64),  # skip when the dword there is zero
        "CACHE_POLICY": _at(2, 25, 2),
        "EXEC_COUNT": _at(3, 0, 14),  # dwords to skip
    },
)


# DISPATCH_INITIATOR of both goes to the register COMPUTE_DISPATCH_INITIATOR.
DISPATCH_DIRECT = PacketLayout(
    Opcode.DISPATCH_DIRECT,
    4,
    {"DIM_X": _at(0), "DIM_Y": _at(1), "DIM_Z": _at(2), "DISPATCH_INITIATOR": _at(3)},
)
# On compute queues the packet holds the address of three dwords; on graphics rings an offset from SET_BASE instead.
DISPATCH_INDIRECT = PacketLayout(Opcode.DISPATCH_INDIRECT, 3, {"ADDRESS": _at(0, 0, 64), "DISPATCH_INITIATOR": _at(2)})


class UnmapAction(enum.IntEnum):
    """ACTION of UNMAP_QUEUES."""

    PREEMPT = 0
    RESET = 1
    DISABLE_PROCESS = 2
    PREEMPT_NO_UNMAP = 3


SET_RESOURCES = PacketLayout(
    Opcode.SET_RESOURCES,
    7,
    {
        "VMID_MASK": _at(0, 0, 16),
        "UNMAP_LATENCY": _at(0, 16, 8),  # about 0.1 s each
        "QUEUE_TYPE": _at(0, 29, 3),  # 0: kernel interface queue
        "QUEUE_MASK": _at(1, 0, 64),
        "GWS_MASK": _at(3, 0, 64),
        "OAC_MASK": _at(5, 0, 16),
        "GDS_HEAP_BASE": _at(6, 0, 6),
        "GDS_HEAP_SIZE": _at(6, 11, 6),
    },
)
MAP_QUEUES = PacketLayout(
    Opcode.MAP_QUEUES,
    6,
    {
        "EXTENDED_ENGINE_SEL": _at(0, 2, 2),
        "QUEUE_SEL": _at(0, 4, 2),  # 0: the slot named here, 1: any
        "VMID": _at(0, 8, 4),
        "QUEUE": _at(0, 13, 3),
        "PIPE": _at(0, 16, 2),
        "ME": _at(0, 18, 2),  # 0: graphics, 1: compute, 2: MES
        "QUEUE_TYPE": _at(0, 21, 3),
        "ALLOC_FORMAT": _at(0, 24, 2),
        "ENGINE_SEL": _at(0, 26, 3),  # 0: compute, 2 and 3: SDMA, 4: graphics, 5: MES
        "NUM_QUEUES": _at(0, 29, 3),
        "CHECK_DISABLE": _at(1, 1, 1),
        "DOORBELL_OFFSET": _at(1, 2, 26),  # dword index in the doorbell BAR
        "MQD_ADDR": _at(2, 0, 64),
        "WPTR_ADDR": _at(4, 0, 64),
    },
)
# With PREEMPT_NO_UNMAP the last three dwords are where to write a fence and its value instead.
UNMAP_QUEUES = PacketLayout(
    Opcode.UNMAP_QUEUES,
    5,
    {
        "ACTION": _at(0, 0, 2),
        "QUEUE_SEL": _at(0, 4, 2),  # 0: by doorbell, 1: by PASID, 2: all, 3: all that are not static
        "ENGINE_SEL": _at(0, 26, 3),
        "NUM_QUEUES": _at(0, 29, 3),
        "PASID": _at(1, 0, 16),
        "DOORBELL_OFFSET0": _at(1, 2, 26),
        "DOORBELL_OFFSET1": _at(2, 2, 26),
        "DOORBELL_OFFSET2": _at(3, 2, 26),
        "DOORBELL_OFFSET3": _at(4, 2, 26),
        "FENCE_ADDR": _at(2, 0, 64),
        "FENCE_DATA": _at(4),
    },
)
QUERY_STATUS = PacketLayout(
    Opcode.QUERY_STATUS,
    6,
    {
        "CONTEXT_ID": _at(0, 0, 28),
        "INTERRUPT_SEL": _at(0, 28, 2),
        "COMMAND": _at(0, 30, 2),  # 0: interrupt only, 1: fence at once, 2: fence after write ack, 3: and interrupt
        "PASID": _at(1, 0, 16),
        "DOORBELL_OFFSET": _at(1, 2, 26),
        "ENGINE_SEL": _at(1, 25, 3),
        "ADDRESS": _at(2, 0, 64),
        "DATA": _at(4, 0, 64),
    },
)
INVALIDATE_TLBS = PacketLayout(
    Opcode.INVALIDATE_TLBS,
    1,
    {
        "INVALIDATE_SEL": _at(0, 0, 3),  # 0: the queue's VMID, 1: by PASID
        "MMHUB_INVALIDATE_SEL": _at(0, 3, 2),  # 0: leave MMHUB alone, 1: by its own flush type, 2: by the graphics one
        "PASID": _at(0, 5, 16),
        "MMHUB_FLUSH_TYPE": _at(0, 25, 3),
        "GFX_FLUSH_TYPE": _at(0, 29, 3),
    },
)

# nvd.h PACKET3_SEM_*: a 64-bit counter in memory.
MEM_SEMAPHORE = PacketLayout(
    Opcode.MEM_SEMAPHORE,
    2,
    {
        "ADDRESS": _at(0, 0, 48),
        "USE_MAILBOX": _at(1, 16, 1),
        "SIGNAL_TYPE": _at(1, 20, 1),  # 0: count up, 1: write 1
        "SELECT": _at(1, 29, 3),  # 6: signal, 7: wait until it is not zero, then count down
    },
)
SEMAPHORE_SIGNAL, SEMAPHORE_WAIT = 6, 7
# PAL: CP_COND_INDIRECT_BUFFER shares the opcode of INDIRECT_BUFFER and is told by its length.
COND_INDIRECT_BUFFER = PacketLayout(
    Opcode.COND_INDIRECT_BUFFER,
    13,
    {
        "MODE": _at(0, 0, 2),  # 1: if then, 2: if then else
        "FUNCTION": _at(0, 8, 3),
        "COMPARE_ADDRESS": _at(1, 0, 64),
        "MASK": _at(3, 0, 64),
        "REFERENCE": _at(5, 0, 64),
        "IB1_BASE": _at(7, 0, 64),
        "IB1_SIZE": _at(9, 0, 20),
        "IB2_BASE": _at(10, 0, 64),
        "IB2_SIZE": _at(12, 0, 20),
    },
)
REWIND = PacketLayout(Opcode.REWIND, 1, {"VALID": _at(0, 31, 1)})  # the engine stops here until VALID is set

# Fixed layouts by opcode, for tracing and decoding.
PACKETS: dict[Opcode, PacketLayout] = {
    layout.opcode: layout
    for layout in (
        WRITE_DATA,
        COPY_DATA,
        WAIT_REG_MEM,
        WAIT_REG_MEM64,
        ATOMIC_MEM,
        DMA_DATA,
        ACQUIRE_MEM,
        RELEASE_MEM,
        EVENT_WRITE,
        INDIRECT_BUFFER,
        COND_EXEC,
        DISPATCH_DIRECT,
        DISPATCH_INDIRECT,
        MEM_SEMAPHORE,
        REWIND,
        SET_RESOURCES,
        MAP_QUEUES,
        UNMAP_QUEUES,
        QUERY_STATUS,
        INVALIDATE_TLBS,
    )
}
