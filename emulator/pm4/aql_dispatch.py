"""From an AQL kernel dispatch packet to the dispatch that the shader engines run.

Sources: LLVM AMDGPUUsage ("Kernel Descriptor", "SGPR Register Set Up Order"), gc_11_0_0_sh_mask.h (COMPUTE_PGM_RSRC2,
COMPUTE_TMPRING_SIZE), ROCr AqlQueue (what it does when scratch is too small).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.isa.dispatch import Dispatch
from amdrv.facts.aql import KERNEL_DESCRIPTOR, KERNEL_DISPATCH, QUEUE, KernelProperty, QueueError
from amdrv.registers import Field

if TYPE_CHECKING:
    from amdrv.emulator.pm4.processor import QueueProcessor

MAX_WORKGROUP_ITEMS = 1024
MAX_LDS_BYTES = 65536
LDS_UNIT_BYTES, LDS_SHIFT, LDS_MASK = 512, 15, 0x1FF  # COMPUTE_PGM_RSRC2.LDS_SIZE
SCRATCH_UNIT_BYTES = 256  # of COMPUTE_TMPRING_SIZE.WAVESIZE
INITIATOR_SHADER, INITIATOR_START_000, INITIATOR_WAVE32 = 1 << 0, 1 << 2, 1 << 15
USER_SGPRS = 16


class QueueRefusal(Exception):
    """The packet cannot be started; the runtime is told ``code``."""

    def __init__(self, code: QueueError) -> None:
        super().__init__(code.name)
        self.code = code


def build_aql_dispatch(
    processor: QueueProcessor, packet: bytes, packet_va: int, queue: bytes, queue_va: int
) -> Dispatch:
    """The dispatch of a packet; ``queue`` is the amd_queue_t at ``queue_va``. Raises QueueRefusal."""
    field = KERNEL_DISPATCH.get
    grid = KERNEL_DISPATCH.get_array(packet, "grid_size")
    threads = KERNEL_DISPATCH.get_array(packet, "workgroup_size")
    items = threads[0] * threads[1] * threads[2]
    if not 0 < items <= MAX_WORKGROUP_ITEMS or 0 in grid:
        raise QueueRefusal(QueueError.DIMENSION)
    group_bytes = field(packet, "group_segment_size")
    if group_bytes > MAX_LDS_BYTES:
        raise QueueRefusal(QueueError.GROUP_MEMORY)
    kernel = field(packet, "kernel_object")
    if not kernel:
        raise QueueRefusal(QueueError.CODE)
    descriptor = processor.view.read(kernel, KERNEL_DESCRIPTOR.size_bytes)
    properties = KernelProperty(KERNEL_DESCRIPTOR.get(descriptor, "kernel_code_properties") & 0x47F)
    wave32 = KernelProperty.WAVEFRONT_SIZE32 in properties
    wave_size = processor.mec.register("COMPUTE_TMPRING_SIZE").fields["WAVESIZE"]
    tmpring = _scratch(queue, wave_size, field(packet, "private_segment_size"), wave32)
    lds = -(-group_bytes // LDS_UNIT_BYTES) << LDS_SHIFT
    apertures = _apertures(processor)
    return Dispatch(
        pc=kernel + KERNEL_DESCRIPTOR.get(descriptor, "kernel_code_entry_byte_offset"),
        rsrc1=KERNEL_DESCRIPTOR.get(descriptor, "compute_pgm_rsrc1"),
        rsrc2=KERNEL_DESCRIPTOR.get(descriptor, "compute_pgm_rsrc2") & ~(LDS_MASK << LDS_SHIFT) | lds,
        rsrc3=KERNEL_DESCRIPTOR.get(descriptor, "compute_pgm_rsrc3"),
        user_data=_user_data(properties, packet, packet_va, queue, queue_va),
        initiator=INITIATOR_SHADER | INITIATOR_START_000 | (INITIATOR_WAVE32 if wave32 else 0),
        start=(0, 0, 0),
        groups=(-(-grid[0] // threads[0]), -(-grid[1] // threads[1]), -(-grid[2] // threads[2])),
        threads=(threads[0], threads[1], threads[2]),
        partial_threads=(grid[0] % threads[0], grid[1] % threads[1], grid[2] % threads[2]),
        tmpring_size=tmpring,
        scratch_base=QUEUE.get(queue, "scratch_backing_memory_location"),
        shared_base=(apertures >> 16) << 48,
        private_base=(apertures & 0xFFFF) << 48,
    )


def _scratch(queue: bytes, wave_size: Field, private_bytes: int, wave32: bool) -> int:
    """COMPUTE_TMPRING_SIZE for a kernel that wants so much scratch a work-item."""
    tmpring = QUEUE.get(queue, "compute_tmpring_size")
    wave_bytes = wave_size.get(tmpring) * SCRATCH_UNIT_BYTES
    if private_bytes * (32 if wave32 else 64) > wave_bytes:
        raise QueueRefusal(QueueError.SCRATCH_WAVE32 if wave32 else QueueError.SCRATCH_WAVE64)
    return tmpring


def _apertures(processor: QueueProcessor) -> int:
    mec = processor.mec
    return mec.card.space.load_bank(mec.register("SH_MEM_BASES").address, processor.vmid)


def _user_data(
    properties: KernelProperty, packet: bytes, packet_va: int, queue: bytes, queue_va: int
) -> tuple[int, ...]:
    scratch = QUEUE.get(queue, "scratch_backing_memory_location")
    private_bytes = KERNEL_DISPATCH.get(packet, "private_segment_size")
    values: tuple[tuple[KernelProperty, tuple[int, ...]], ...] = (
        (KernelProperty.PRIVATE_SEGMENT_BUFFER, QUEUE.get_array(queue, "scratch_resource_descriptor")),
        (KernelProperty.DISPATCH_PTR, _pair(packet_va)),
        (KernelProperty.QUEUE_PTR, _pair(queue_va)),
        (KernelProperty.KERNARG_SEGMENT_PTR, _pair(KERNEL_DISPATCH.get(packet, "kernarg_address"))),
        (KernelProperty.DISPATCH_ID, _pair(QUEUE.get(queue, "read_dispatch_id"))),
        (KernelProperty.FLAT_SCRATCH_INIT, _pair(scratch)),
        (KernelProperty.PRIVATE_SEGMENT_SIZE, (private_bytes,)),
    )
    words = [word for wanted, data in values if wanted in properties for word in data]
    return tuple((words + [0] * USER_SGPRS)[:USER_SGPRS])


def _pair(value: int) -> tuple[int, int]:
    return value & 0xFFFF_FFFF, value >> 32
