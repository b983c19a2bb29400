"""AQL: packets of 64 bytes, signals, the queue as the packet processor sees it, kernel descriptors.

Sources: HSA Runtime Programmer's Reference Manual 1.2, sections 2.8 (queues) and 2.9 (packets); ROCR-Runtime
hsa.h, hsa_ven_amd_aqlprofile.h, amd_hsa_queue.h, amd_hsa_signal.h and core/runtime/amd_aql_queue.cpp (vendor packets,
error codes); LLVM AMDGPUUsage "Kernel Descriptor" and "SGPR Register Set Up Order".
"""

from __future__ import annotations

import enum

from amdrv.facts.layout import Member, StructLayout

PACKET_BYTES = 64
HEADER_INVALID = 1  # a header that the packet processor leaves behind


class PacketType(enum.IntEnum):
    """Bits 7:0 of the header."""

    VENDOR_SPECIFIC = 0
    INVALID = 1
    KERNEL_DISPATCH = 2
    BARRIER_AND = 3
    AGENT_DISPATCH = 4
    BARRIER_OR = 5


class VendorFormat(enum.IntEnum):
    """Byte 2 of a vendor-specific packet of AMD's."""

    PM4_INDIRECT_BUFFER = 1  # the four dwords of a PM4 INDIRECT_BUFFER follow the header
    BARRIER_VALUE = 2


class SignalCondition(enum.IntEnum):
    """COND of a barrier-value packet."""

    EQUAL = 0
    NOT_EQUAL = 1
    LESS = 2
    GREATER_EQUAL = 3


class QueueError(enum.IntEnum):
    """What the packet processor stores into the queue's inactive signal before it stops."""

    SCRATCH_WAVE64 = 1
    DIMENSION = 2
    GROUP_MEMORY = 4
    CODE = 8
    PACKET_FORMAT = 32
    SCRATCH_WAVE32 = 0x400


# Header: type 7:0, barrier 8, acquire scope 10:9, release scope 12:11. Setup (dispatch): dimensions 1:0.
ACQUIRE_SHIFT, RELEASE_SHIFT, SCOPE_MASK = 9, 11, 3
SCOPE_NONE, SCOPE_AGENT, SCOPE_SYSTEM = 0, 1, 2

# hsa_kernel_dispatch_packet_t
KERNEL_DISPATCH = StructLayout("KERNEL_DISPATCH", 64, {
    "header": Member(0, 2), "setup": Member(2, 2), "workgroup_size": Member(4, 2, 3), "grid_size": Member(12, 4, 3),
    "private_segment_size": Member(24), "group_segment_size": Member(28), "kernel_object": Member(32, 8),
    "kernarg_address": Member(40, 8), "completion_signal": Member(56, 8),
})  # fmt: skip
# hsa_barrier_and_packet_t, hsa_barrier_or_packet_t
BARRIER = StructLayout("BARRIER", 64, {
    "header": Member(0, 2), "dep_signal": Member(8, 8, 5), "completion_signal": Member(56, 8),
})  # fmt: skip
# hsa_amd_barrier_value_packet_t
BARRIER_VALUE = StructLayout("BARRIER_VALUE", 64, {
    "header": Member(0, 2), "format": Member(2, 1), "signal": Member(8, 8), "value": Member(16, 8, signed=True),
    "mask": Member(24, 8), "cond": Member(32), "completion_signal": Member(56, 8),
})  # fmt: skip
# AqlQueue::ExecutePM4: amd_aql_pm4_ib
VENDOR_PM4 = StructLayout("VENDOR_PM4", 64, {
    "header": Member(0, 2), "format": Member(2, 2), "jump": Member(4, 4, 4), "dwords_remaining": Member(20),
    "completion_signal": Member(56, 8),
})  # fmt: skip
# amd_signal_t
SIGNAL = StructLayout("SIGNAL", 64, {
    "kind": Member(0, 8, signed=True), "value": Member(8, 8, signed=True), "event_mailbox_ptr": Member(16, 8),
    "event_id": Member(24), "start_ts": Member(32, 8), "end_ts": Member(40, 8),
})  # fmt: skip
# amd_queue_t
QUEUE = StructLayout("QUEUE", 256, {
    "write_dispatch_id": Member(56, 8), "group_segment_aperture_base_hi": Member(64),
    "private_segment_aperture_base_hi": Member(68), "read_dispatch_id": Member(128, 8),
    "read_dispatch_id_field_base_byte_offset": Member(136), "compute_tmpring_size": Member(140),
    "scratch_resource_descriptor": Member(144, 4, 4), "scratch_backing_memory_location": Member(160, 8),
    "scratch_backing_memory_byte_size": Member(168, 8), "scratch_wave64_lane_byte_size": Member(176),
    "queue_properties": Member(180), "queue_inactive_signal": Member(192, 8),
})  # fmt: skip
# LLVM AMDGPUUsage: kernel descriptor
KERNEL_DESCRIPTOR = StructLayout("KERNEL_DESCRIPTOR", 64, {
    "group_segment_fixed_size": Member(0), "private_segment_fixed_size": Member(4), "kernarg_size": Member(8),
    "kernel_code_entry_byte_offset": Member(16, 8, signed=True), "compute_pgm_rsrc3": Member(44),
    "compute_pgm_rsrc1": Member(48), "compute_pgm_rsrc2": Member(52), "kernel_code_properties": Member(56, 2),
})  # fmt: skip


class KernelProperty(enum.IntFlag):
    """kernel_code_properties: which user SGPRs a kernel wants, in this order, and its wave size."""

    PRIVATE_SEGMENT_BUFFER = 1 << 0
    DISPATCH_PTR = 1 << 1
    QUEUE_PTR = 1 << 2
    KERNARG_SEGMENT_PTR = 1 << 3
    DISPATCH_ID = 1 << 4
    FLAT_SCRATCH_INIT = 1 << 5
    PRIVATE_SEGMENT_SIZE = 1 << 6
    WAVEFRONT_SIZE32 = 1 << 10
