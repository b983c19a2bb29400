"""From the COMPUTE_* registers of a queue to the dispatch that the shader engines run.

Fields: gc_11_0_0_sh_mask.h; their use: Linux 6.12 gfx_v11_0.c, LLVM's AMDGPU usage guide (kernel descriptor).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.isa.dispatch import Dispatch

if TYPE_CHECKING:
    from amdrv.emulator.models.mec_11_0 import Mec

USER_DATA_REGISTERS = 16


def build_dispatch(
    mec: Mec, queue: tuple[int, int, int], vmid: int, dimensions: tuple[int, int, int], initiator_bits: int
) -> Dispatch | None:
    """The dispatch, or None when it starts nothing: shaders not enabled, no workgroup, or no compute unit allowed."""
    initiator = mec.register("COMPUTE_DISPATCH_INITIATOR").decode(initiator_bits)
    if not initiator.COMPUTE_SHADER_EN or 0 in dimensions:
        return None

    def value(name: str) -> int:
        return mec.hqd(queue, f"COMPUTE_{name}")

    if not any(value(f"STATIC_THREAD_MGMT_SE{engine}") for engine in range(mec.card.chip.shader_array.shader_engines)):
        return None
    full, partial = [], []
    for axis in "XYZ":
        threads = mec.register(f"COMPUTE_NUM_THREAD_{axis}").decode(value(f"NUM_THREAD_{axis}"))
        full.append(threads.NUM_THREAD_FULL)
        partial.append(threads.NUM_THREAD_PARTIAL if initiator.PARTIAL_TG_EN else 0)
    start = (0, 0, 0) if initiator.FORCE_START_AT_000 else (value("START_X"), value("START_Y"), value("START_Z"))
    groups = list(dimensions)
    if initiator.USE_THREAD_DIMENSIONS:  # the packet counts work-items, the last workgroup may be partial
        groups = [-(-items // size) if size else 0 for items, size in zip(dimensions, full, strict=True)]
        partial = [items % size if size else 0 for items, size in zip(dimensions, full, strict=True)]
    else:  # the packet gives the end, from which the start is subtracted
        groups = [end - first for end, first in zip(dimensions, start, strict=True)]
    if 0 in full or min(groups) <= 0:
        return None
    apertures = mec.card.space.load_bank(mec.register("SH_MEM_BASES").address, vmid)
    return Dispatch(
        pc=(value("PGM_HI") << 32 | value("PGM_LO")) << 8,
        rsrc1=value("PGM_RSRC1"),
        rsrc2=value("PGM_RSRC2"),
        rsrc3=value("PGM_RSRC3"),
        user_data=tuple(value(f"USER_DATA_{number}") for number in range(USER_DATA_REGISTERS)),
        initiator=initiator_bits,
        start=start,
        groups=(groups[0], groups[1], groups[2]),
        threads=(full[0], full[1], full[2]),
        partial_threads=(partial[0], partial[1], partial[2]),
        tmpring_size=value("TMPRING_SIZE"),
        scratch_base=(value("DISPATCH_SCRATCH_BASE_HI") << 32 | value("DISPATCH_SCRATCH_BASE_LO")) << 8,
        shared_base=(apertures >> 16) << 48,
        private_base=(apertures & 0xFFFF) << 48,
    )
