"""PM4 packets of the compute queue, as dwords. Pure: nothing here touches memory or a device.

Fences and memory synchronisation are those of Linux 6.12 gfx_v11_0.c; the COMPUTE_* registers before a DISPATCH_DIRECT
are those that user space is known to write on gfx11 (tinygrad 0.14 runtime/ops_amd.py, AMDComputeQueue.exec).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument
from amdrv.facts.pm4 import (
    ACQUIRE_MEM,
    DISPATCH_DIRECT,
    EVENT_WRITE,
    INDIRECT_BUFFER,
    NOP_ONE_DWORD,
    RELEASE_MEM,
    SET_REG,
    SET_WINDOWS,
    WAIT_REG_MEM,
    WRITE_DATA,
    CompareFunction,
    DataSelect,
    Event,
    EventIndex,
    InterruptSelect,
    MemoryTarget,
    Opcode,
    header,
)
from amdrv.registers.map import RegisterBlock
from amdrv.registers.register import Register
from amdrv.runtime.code_object import (
    DISPATCH_ID,
    DISPATCH_PTR,
    FLAT_SCRATCH_INIT,
    KERNARG_SEGMENT_PTR,
    PRIVATE_SEGMENT_BUFFER,
    PRIVATE_SEGMENT_SIZE,
    QUEUE_PTR,
    KernelCode,
)
from amdrv.runtime.kernarg import Dims, LaunchShape

Words = NDArray[np.uint32]

COHER_SIZE_ALL = (1 << 56) - 1  # 256-byte units; what gfx_v11_0_emit_mem_sync writes
POLL_INTERVAL = 10
CACHE_POLICY_BYPASS = 3
SIGNAL_ALIGN = 8
LDS_GRANULE_BYTES = 512
CODE_ALIGN_SHIFT = 8  # program and scratch addresses count 256-byte units
RESTART_DWORDS = 3
AQL_PACKET_BYTES = 64
AQL_KERNEL_DISPATCH = 2  # HSA_PACKET_TYPE_KERNEL_DISPATCH
# header, setup (dimensions), workgroup size x3, reserved, grid size in work-items x3, private and group segment bytes,
# kernel object, kernarg address, reserved, completion signal (HSA Platform System Architecture, kernel dispatch packet)
QUEUE_DESCRIPTION_BYTES = 256
# group_segment_aperture_base_hi and private_segment_aperture_base_hi of amd_queue_t (ROCr amd_hsa_queue.h)
GROUP_WINDOW_OFFSET, GROUP_WINDOW_HI = 0x40, struct.Struct("<II")
AQL_PACKET = struct.Struct("<HH3HH3IIIQQQQ")


def acquire_mem() -> tuple[int, ...]:
    """Invalidate every cache level, instructions too, after writing dirty lines back (gfx_v11_0_emit_mem_sync)."""
    return ACQUIRE_MEM.build(
        COHER_SIZE=COHER_SIZE_ALL,
        POLL_INTERVAL=POLL_INTERVAL,
        GLI_INV=1,
        GLK_INV=1,
        GLV_INV=1,
        GL1_INV=1,
        GLM_WB=1,
        GLM_INV=1,
        GL2_WB=1,
        GL2_INV=1,
    )


def release_mem(signal_va: int, value: int, *, interrupt: bool = True) -> tuple[int, ...]:
    """When everything before has ended and reached memory, write the 64-bit ``value`` (gfx_v11_0_ring_emit_fence)."""
    return RELEASE_MEM.build(
        EVENT_TYPE=Event.CACHE_FLUSH_AND_INV_TS_EVENT,
        EVENT_INDEX=EventIndex.END_OF_PIPE,
        GLM_WB=1,
        GLM_INV=1,
        GL2_WB=1,
        SEQ=1,
        CACHE_POLICY=CACHE_POLICY_BYPASS,
        INT_SEL=InterruptSelect.AFTER_WRITE_CONFIRM if interrupt else InterruptSelect.DATA_AFTER_WRITE_CONFIRM,
        DATA_SEL=DataSelect.ALL_64,
        ADDRESS=_aligned(signal_va, SIGNAL_ALIGN, "signal"),
        DATA=value,
    )


def timestamp(va: int) -> tuple[int, ...]:
    """When everything before has ended, write the 64-bit 100 MHz counter."""
    return RELEASE_MEM.build(
        EVENT_TYPE=Event.CACHE_FLUSH_AND_INV_TS_EVENT,
        EVENT_INDEX=EventIndex.END_OF_PIPE,
        CACHE_POLICY=CACHE_POLICY_BYPASS,
        INT_SEL=InterruptSelect.DATA_AFTER_WRITE_CONFIRM,
        DATA_SEL=DataSelect.GPU_CLOCK,
        ADDRESS=_aligned(va, SIGNAL_ALIGN, "timestamp"),
    )


def wait_at_least(signal_va: int, value: int) -> tuple[int, ...]:
    """Hold the queue until the low 32 bits of a signal are at least ``value``'s: the packet compares 32 bits."""
    return WAIT_REG_MEM.build(
        FUNCTION=CompareFunction.GREATER_EQUAL,
        MEM_SPACE=1,
        ADDRESS=_aligned(signal_va, 4, "signal"),
        REFERENCE=value & 0xFFFF_FFFF,
        MASK=0xFFFF_FFFF,
        POLL_INTERVAL=POLL_INTERVAL,
    )


def write_data(va: int, *dwords: int) -> tuple[int, ...]:
    """Write dwords to memory and wait for the write to be confirmed."""
    return WRITE_DATA.build(*dwords, DST_SEL=MemoryTarget.MEMORY, WR_CONFIRM=1, ADDRESS=_aligned(va, 4, "target"))


def indirect_buffer(va: int, size_dwords: int) -> tuple[int, ...]:
    """Run ``size_dwords`` of packets elsewhere in memory."""
    return INDIRECT_BUFFER.build(IB_BASE=_aligned(va, 4, "indirect buffer"), IB_SIZE=size_dwords, VALID=1)


def nop(dwords: int) -> tuple[int, ...]:
    """``dwords`` of nothing."""
    if dwords == 1:
        return (NOP_ONE_DWORD,)
    return (header(Opcode.NOP, dwords - 1), *(0,) * (dwords - 1))


def cs_partial_flush() -> tuple[int, ...]:
    """Hold the queue until the waves of earlier dispatches have ended."""
    return EVENT_WRITE.build(EVENT_TYPE=Event.CS_PARTIAL_FLUSH, EVENT_INDEX=EventIndex.PARTIAL_FLUSH)


def set_sh(first: Register, *values: int) -> tuple[int, ...]:
    """Write consecutive shader registers, ``first`` with the first value."""
    window = SET_WINDOWS[Opcode.SET_SH_REG]
    if not window.start <= first.dword <= window.end - len(values):
        raise InvalidArgument(f"{first.full_name} is not in the range of SET_SH_REG")
    body = (*SET_REG.encode(REG_OFFSET=first.dword - window.start), *values)
    return (header(Opcode.SET_SH_REG, len(body)), *body)


def aql_packet(kernel: KernelCode, shape: LaunchShape, lds_bytes: int, kernarg_va: int) -> bytes:
    """The 64-byte dispatch packet that a kernel with a dispatch pointer reads its launch's shape from.

    ``lds_bytes`` is the workgroup's whole LDS. No packet processor sees this packet: it is for the kernel only.
    """
    items = [count * size for count, size in zip(shape.grid, shape.block, strict=True)]
    private_bytes = kernel.descriptor.private_segment_bytes
    return AQL_PACKET.pack(
        AQL_KERNEL_DISPATCH, shape.dimensions, *shape.block, 0, *items, private_bytes, lds_bytes, 0, kernarg_va, 0, 0
    )


def queue_description(shared_window: int, private_window: int) -> bytes:
    """The part of a queue's ``amd_queue_t`` that kernels read through a queue pointer: where the flat windows are."""
    block = bytearray(QUEUE_DESCRIPTION_BYTES)
    GROUP_WINDOW_HI.pack_into(block, GROUP_WINDOW_OFFSET, shared_window >> 32, private_window >> 32)
    return bytes(block)


@dataclass(frozen=True, slots=True)
class LaunchValues:
    """What differs from one launch of a kernel to the next."""

    grid: Dims  # workgroups
    block: Dims  # work-items
    kernarg_va: int
    lds_bytes: int  # of a workgroup, fixed and dynamic together
    scratch_va: int = 0
    tmpring_size: int = 0  # COMPUTE_TMPRING_SIZE
    dispatch_packet_va: int = 0
    queue_description_va: int = 0
    dispatch_id: int = 0
    timestamps_va: int = 0  # two 64-bit counters: start, end
    timeline_value: int = 0


class LaunchTemplate:
    """The packets of one kernel's launch, built once; ``fill`` patches in what differs.

    Order: make memory current, (start time,) registers, dispatch, wait for its waves, (end time,) signal.
    """

    def __init__(self, gc: RegisterBlock, kernel: KernelCode, code_va: int, signal_va: int, *, timed: bool) -> None:
        """``code_va`` is the device address of the first instruction, ``signal_va`` the queue's timeline signal."""
        self._kernel = kernel
        self._timed = timed
        self._words: list[int] = []
        self._slots: list[int] = []  # places of what ``_values`` returns, in its order
        descriptor = kernel.descriptor
        self._append(acquire_mem())
        if timed:
            self._append(timestamp(0), 3, 4)
        entry = code_va >> CODE_ALIGN_SHIFT
        self._append(set_sh(gc.COMPUTE_PGM_LO, entry & 0xFFFF_FFFF, entry >> 32))
        # DISPATCH_SCRATCH_BASE_LO, _HI, PGM_RSRC1 and _RSRC2 are neighbours.
        self._append(set_sh(gc.COMPUTE_DISPATCH_SCRATCH_BASE_LO, 0, 0, descriptor.rsrc1, 0), 2, 3, 5)
        self._append(set_sh(gc.COMPUTE_PGM_RSRC3, descriptor.rsrc3))
        self._append(set_sh(gc.COMPUTE_TMPRING_SIZE, 0), 2)
        self._append(set_sh(gc.COMPUTE_RESTART_X, *(0,) * RESTART_DWORDS))
        self._append(set_sh(gc.COMPUTE_RESOURCE_LIMITS, 0))
        if descriptor.user_sgprs:
            count = descriptor.user_sgprs
            self._append(set_sh(gc.COMPUTE_USER_DATA_0, *(0,) * count), *range(2, 2 + count))
        # START_X..Z, NUM_THREAD_X..Z, PIPELINESTAT_ENABLE, PERFCOUNT_ENABLE
        self._append(set_sh(gc.COMPUTE_START_X, 0, 0, 0, 0, 0, 0, 0, 0), 5, 6, 7)
        initiator = gc.COMPUTE_DISPATCH_INITIATOR.encode(
            COMPUTE_SHADER_EN=1, FORCE_START_AT_000=1, CS_W32_EN=descriptor.wavefront_size == 32
        )
        self._append(DISPATCH_DIRECT.build(DISPATCH_INITIATOR=initiator), 1, 2, 3)
        self._append(cs_partial_flush())
        if timed:
            self._append(timestamp(0), 3, 4)
        self._append(release_mem(signal_va, 0), 5, 6)
        self._rsrc2 = gc.COMPUTE_PGM_RSRC2
        self._template: Words = np.array(self._words, dtype=np.uint32)
        self._places = np.array(self._slots, dtype=np.intp)

    def fill(self, values: LaunchValues) -> Words:
        """The dwords of one launch."""
        words = self._template.copy()
        words[self._places] = self._values(values)
        return words

    def _append(self, packet: tuple[int, ...], *slots: int) -> None:
        self._slots.extend(len(self._words) + slot for slot in slots)
        self._words.extend(packet)

    def _values(self, values: LaunchValues) -> list[int]:
        scratch = values.scratch_va >> CODE_ALIGN_SHIFT
        rsrc2 = self._rsrc2.decode(self._kernel.descriptor.rsrc2)
        granules = -(-values.lds_bytes // LDS_GRANULE_BYTES)
        dynamic = [*_split(scratch), int(rsrc2.replace(LDS_SIZE=granules)), values.tmpring_size]
        dynamic += user_data(self._kernel, values)
        dynamic += values.block
        dynamic += values.grid
        if self._timed:
            dynamic = [*_split(values.timestamps_va), *dynamic, *_split(values.timestamps_va + 8)]
        return [*dynamic, *_split(values.timeline_value)]


def user_data(kernel: KernelCode, values: LaunchValues) -> list[int]:
    """User SGPRs in the order of AMDGPUUsage "SGPR Register Set Up Order".

    The private segment buffer and flat scratch init have no meaning on gfx11, whose flat scratch is architected;
    modules with kernels that ask for them are refused at load.
    """
    private_bytes = -(-kernel.descriptor.private_segment_bytes // 4) * 4
    sources: tuple[tuple[int, list[int]], ...] = (
        (DISPATCH_PTR, _split(values.dispatch_packet_va)),
        (QUEUE_PTR, _split(values.queue_description_va)),
        (KERNARG_SEGMENT_PTR, _split(values.kernarg_va)),
        (DISPATCH_ID, _split(values.dispatch_id)),
        (PRIVATE_SEGMENT_SIZE, [private_bytes]),
    )
    return [word for bit, words in sources if kernel.descriptor.properties & bit for word in words]


UNSUPPORTED_PROPERTIES = {
    PRIVATE_SEGMENT_BUFFER: "a private segment buffer",
    FLAT_SCRATCH_INIT: "an initial flat scratch address",
}


def _split(value: int) -> list[int]:
    return [value & 0xFFFF_FFFF, value >> 32 & 0xFFFF_FFFF]


def _aligned(va: int, alignment: int, what: str) -> int:
    if va % alignment:
        raise InvalidArgument(f"{what} address {va:#x} is not {alignment}-byte aligned")
    return va
