"""From the COMPUTE_* registers of a dispatch to waves with their initial register values.

Register fields: Linux 6.12 gc_11_0_0_sh_mask.h. Which SGPRs and VGPRs are set up, and the units of the fields: LLVM
AMDGPUUsage "Kernel Descriptor" and "Initial Kernel Execution State" for GFX11 and GFX12 (architected flat scratch: no
SGPR has the scratch offset; packed work-item ids in VGPR0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.dispatch import Dispatch, ShaderFault
from amdrv.emulator.isa.generation import GFX11, Generation
from amdrv.emulator.isa.wave import EXEC_LO, WaveState

MAX_WORKGROUP_THREADS = 1024
MAX_WORKGROUP_LDS = 65536
MAX_VGPRS = 256
LDS_UNIT_BYTES = 512  # RSRC2.LDS_SIZE: 128 dwords
SCRATCH_UNIT_BYTES = 256  # TMPRING_SIZE.WAVESIZE: 64 dwords
INITIATOR_CS_W32_EN = 1 << 15
# Workgroup ids X, and Y and Z, and the wave's number in 29:25 (LLVM 22 AMDGPUUsage, "Initial Kernel Execution State").
TTMP9, TTMP7, TTMP8 = 117, 115, 116


def _field(value: int, low: int, high: int) -> int:
    return value >> low & (1 << high - low + 1) - 1


@dataclass(frozen=True, slots=True)
class Launch:
    """A dispatch decoded: what every wave of it has in common."""

    dispatch: Dispatch
    lanes: int
    vgprs: int
    mode: int  # initial MODE register
    lds_bytes: int  # of one workgroup
    user_sgprs: int
    workgroup_id_enable: tuple[bool, bool, bool]
    workgroup_info_enable: bool
    work_item_id_dimensions: int
    scratch_wave_bytes: int  # 0: the dispatch has no scratch
    scratch_slots: int
    generation: Generation = GFX11

    def group_sizes(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Work-items in each dimension of the workgroups with these ids, int64[groups, 3]; the last may be partial."""
        dispatch = self.dispatch
        full = np.array(dispatch.threads, np.int64)
        partial = np.array(dispatch.partial_threads, np.int64)
        last = np.array(dispatch.start, np.int64) + np.array(dispatch.groups, np.int64) - 1
        return np.where((ids == last) & (partial > 0), partial, full)

    @property
    def workgroups(self) -> int:
        x, y, z = self.dispatch.groups
        return x * y * z

    def workgroup_ids(self, first: int, count: int) -> NDArray[np.int64]:
        """Ids int64[count, 3] of workgroups in launch order (X fastest), from number ``first`` on."""
        groups_x, groups_y, _ = self.dispatch.groups
        linear = np.arange(first, first + count, dtype=np.int64)
        ids = np.stack((linear % groups_x, linear // groups_x % groups_y, linear // (groups_x * groups_y)), axis=1)
        return ids + np.array(self.dispatch.start, np.int64)

    def batches(self, resident_lanes: int) -> Iterator[tuple[int, int]]:
        """(first workgroup, workgroups) of the sets that are resident together, at least one workgroup each."""
        x, y, z = self.dispatch.threads
        waves = max(1, -(-x * y * z // self.lanes))
        limit = max(1, resident_lanes // self.lanes // waves)
        if self.scratch_wave_bytes:
            limit = min(limit, self.scratch_slots // waves)
        for first in range(0, self.workgroups, limit):
            yield first, min(limit, self.workgroups - first)


def decode(dispatch: Dispatch, shader_engines: int, generation: Generation = GFX11) -> Launch:
    """Read the fields of a dispatch's registers.

    ``shader_engines`` multiplies TMPRING_SIZE.WAVES, which counts the waves of one shader engine (as Mesa and ROCr set
    it). Raises ShaderFault("illegal dispatch") for what the
    hardware could never place.
    """
    lanes = 32 if dispatch.initiator & INITIATOR_CS_W32_EN else 64
    rsrc1, rsrc2 = dispatch.rsrc1, dispatch.rsrc2
    # VGPRS counts 8 registers in wave32 and 4 in wave64; a SIMD with 1536 rows allocates 24 (12) at a time.
    unit, granule = (8, 24) if lanes == 32 else (4, 12)
    encoded_vgprs = (_field(rsrc1, 0, 5) + 1) * unit
    scratch = _field(rsrc2, 0, 0) != 0
    wave_units = _field(dispatch.tmpring_size, 12, 11 + generation.tmpring_wavesize_bits)
    launch = Launch(
        dispatch=dispatch,
        lanes=lanes,
        vgprs=min(MAX_VGPRS, -(-encoded_vgprs // granule) * granule),
        mode=_mode(rsrc1, generation),
        lds_bytes=_field(rsrc2, 15, 23) * LDS_UNIT_BYTES,
        user_sgprs=_field(rsrc2, 1, 5),
        workgroup_id_enable=(bool(rsrc2 & 1 << 7), bool(rsrc2 & 1 << 8), bool(rsrc2 & 1 << 9)),
        workgroup_info_enable=bool(rsrc2 & 1 << 10),
        work_item_id_dimensions=_field(rsrc2, 11, 12) + 1,
        scratch_wave_bytes=wave_units * SCRATCH_UNIT_BYTES if scratch else 0,
        scratch_slots=_field(dispatch.tmpring_size, 0, 11) * shader_engines,
        generation=generation,
    )
    _check(launch, encoded_vgprs)
    return launch


def _mode(rsrc1: int, generation: Generation) -> int:
    """Initial MODE register: FLOAT_MODE is MODE[7:0], other bits of it have bits of their own."""
    mode = _field(rsrc1, 12, 19) | generation.mode_always
    for source, target in generation.mode_from_rsrc1:
        mode |= target if rsrc1 >> source & 1 else 0
    return mode


def _check(launch: Launch, encoded_vgprs: int) -> None:
    threads = launch.dispatch.threads[0] * launch.dispatch.threads[1] * launch.dispatch.threads[2]
    waves = -(-threads // launch.lanes)
    reasons = (
        (threads > MAX_WORKGROUP_THREADS, f"{threads} work-items in a workgroup, the limit is {MAX_WORKGROUP_THREADS}"),
        (encoded_vgprs > MAX_VGPRS, f"{encoded_vgprs} VGPRs a wave, the limit is {MAX_VGPRS}"),
        (
            launch.lds_bytes > MAX_WORKGROUP_LDS,
            f"{launch.lds_bytes} bytes of LDS a workgroup, the limit is {MAX_WORKGROUP_LDS}",
        ),
        (
            launch.scratch_wave_bytes > 0 and launch.scratch_slots < waves,
            f"a workgroup has {waves} waves but the scratch ring has room for {launch.scratch_slots}",
        ),
    )
    for broken, reason in reasons:
        if broken:
            raise ShaderFault("illegal dispatch", reason, pc=launch.dispatch.pc)


def create_waves(launch: Launch, first: int, count: int) -> WaveState:
    """The waves of workgroups number ``first`` .. ``first + count - 1`` with their initial registers."""
    ids = launch.workgroup_ids(first, count)
    sizes = launch.group_sizes(ids)
    totals = sizes.prod(axis=1)
    waves_of = -(-totals // launch.lanes)
    slot = np.repeat(np.arange(count), waves_of)
    number = np.arange(len(slot)) - np.repeat(np.cumsum(waves_of) - waves_of, waves_of)
    state = WaveState(len(slot), launch.vgprs, launch.lanes)
    state.slot[:] = slot
    state.number[:] = number
    state.workgroup[:] = ids[slot]
    state.lds_base[:, 0] = slot * launch.lds_bytes
    if launch.scratch_wave_bytes:
        offsets = np.arange(len(slot), dtype=np.uint64) * np.uint64(launch.scratch_wave_bytes)
        state.scratch_base[:, 0] = np.uint64(launch.dispatch.scratch_base) + offsets
    _set_vector_registers(launch, state, sizes[slot], totals[slot])
    _set_scalar_registers(launch, state, waves_of[slot])
    return state


def _set_vector_registers(
    launch: Launch, state: WaveState, sizes: NDArray[np.int64], totals: NDArray[np.int64]
) -> None:
    """VGPR 0 (work-item ids) and EXEC; waves with the same number in workgroups of the same size are alike."""
    # Sizes are at most 1024 and wave numbers less than 32, so one integer tells the kinds apart.
    code = ((sizes[:, 0] << 11 | sizes[:, 1]) << 11 | sizes[:, 2]) << 5 | state.number
    _, example, kind_of = np.unique(code, return_index=True, return_inverse=True)
    size_x, size_y, total = sizes[example, :1], sizes[example, 1:2], totals[example, None]
    number = state.number[example, None]
    linear = number * launch.lanes + np.arange(launch.lanes)
    packed = linear % size_x
    if launch.work_item_id_dimensions > 1:
        packed |= linear // size_x % size_y << 10
    if launch.work_item_id_dimensions > 2:
        packed |= linear // (size_x * size_y) << 20
    valid = linear < total
    state.vgpr[0] = np.where(valid, packed, 0).astype(np.uint32)[kind_of]
    masks = np.packbits(valid, axis=1, bitorder="little").view(np.uint32)[kind_of]
    state.sgpr[EXEC_LO >> 1, :, : masks.shape[1]] = masks


def _set_scalar_registers(launch: Launch, state: WaveState, waves_of: NDArray[np.int64]) -> None:
    def write(index: int, value: NDArray[np.int64] | int) -> None:
        state.sgpr[index >> 1, :, index & 1] = value

    for index, value in enumerate(launch.dispatch.user_data[: launch.user_sgprs]):
        write(index, value)
    index = launch.user_sgprs
    if launch.generation.workgroup_ids_in_ttmps:
        x, y, z = (state.workgroup[:, axis] * launch.workgroup_id_enable[axis] for axis in range(3))
        write(TTMP9, x)
        write(TTMP7, y & 0xFFFF | z << 16)
        write(TTMP8, state.number << 25)
        return
    for dimension, enabled in enumerate(launch.workgroup_id_enable):
        if enabled:
            write(index, state.workgroup[:, dimension])
            index += 1
    if launch.workgroup_info_enable:
        write(index, np.where(state.number == 0, 1 << 31, 0) | waves_of)
