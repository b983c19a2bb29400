"""Initial registers of waves from the COMPUTE_* registers (LLVM AMDGPUUsage, "Initial Kernel Execution State")."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from amdrv.emulator.isa.dispatch import Dispatch, ShaderFault
from amdrv.emulator.isa.launch import create_waves, decode

PLAIN = Dispatch(
    pc=0x1000,
    rsrc1=0,
    rsrc2=0,
    rsrc3=0,
    user_data=tuple(range(100, 116)),
    initiator=1 | 1 << 15,
    start=(0, 0, 0),
    groups=(3, 2, 1),
    threads=(8, 4, 2),
)


def test_user_data_then_workgroup_id_then_info() -> None:
    # USER_SGPR = 5, TGID_X and TGID_Z, TG_SIZE.
    launch = decode(replace(PLAIN, rsrc2=5 << 1 | 1 << 7 | 1 << 9 | 1 << 10), 1)
    state = create_waves(launch, 0, 6)
    flat = state.sgpr.transpose(1, 0, 2).reshape(12, 128)
    assert flat[3, :5].tolist() == [100, 101, 102, 103, 104]
    # Workgroup 1 is the second in X; two waves each; the first wave of a workgroup has bit 31.
    assert flat[2, 5:9].tolist() == [1, 0, 1 << 31 | 2, 0]
    assert flat[3, 5:9].tolist() == [1, 0, 2, 0]


def test_work_item_ids_are_packed_as_far_as_enabled() -> None:
    for dimensions in (1, 2, 3):
        launch = decode(replace(PLAIN, rsrc2=(dimensions - 1) << 11), 1)
        state = create_waves(launch, 0, 1)
        item = np.arange(64)
        expected = item % 8
        if dimensions > 1:
            expected = expected | item // 8 % 4 << 10
        if dimensions > 2:
            expected = expected | item // 32 << 20
        np.testing.assert_array_equal(state.vgpr[0].reshape(-1), expected)


def test_the_last_wave_has_lanes_only_for_its_work_items() -> None:
    state = create_waves(decode(replace(PLAIN, threads=(40, 1, 1)), 1), 0, 1)
    assert state.sgpr[63, :, 0].tolist() == [0xFFFFFFFF, 0xFF]
    wave64 = create_waves(decode(replace(PLAIN, threads=(40, 1, 1), initiator=1), 1), 0, 1)
    assert wave64.sgpr[63].tolist() == [[0xFFFFFFFF, 0xFF]]


def test_partial_workgroups_stand_at_the_end_of_each_dimension() -> None:
    launch = decode(replace(PLAIN, partial_threads=(3, 1, 0), start=(10, 20, 30)), 1)
    ids = launch.workgroup_ids(0, 6)
    assert ids.tolist() == [[10, 20, 30], [11, 20, 30], [12, 20, 30], [10, 21, 30], [11, 21, 30], [12, 21, 30]]
    sizes = launch.group_sizes(ids).tolist()
    assert sizes == [[8, 4, 2], [8, 4, 2], [3, 4, 2], [8, 1, 2], [8, 1, 2], [3, 1, 2]]
    assert decode(PLAIN, 1).group_sizes(launch.workgroup_ids(0, 2)).tolist() == [[8, 4, 2]] * 2


@pytest.mark.parametrize(
    ("initiator", "field", "vgprs"), [(1 << 15, 0, 24), (1 << 15, 3, 48), (1 << 15, 31, 256), (0, 0, 12), (0, 63, 256)]
)
def test_vgprs_come_in_granules_of_the_wave_size(initiator: int, field: int, vgprs: int) -> None:
    assert decode(replace(PLAIN, initiator=1 | initiator, rsrc1=field), 1).vgprs == vgprs


def test_float_mode_and_its_neighbours_become_the_mode_register() -> None:
    rsrc1 = 0xA5 << 12 | 1 << 21 | 1 << 23 | 1 << 26
    assert decode(replace(PLAIN, rsrc1=rsrc1), 1).mode == 0xA5 | 1 << 8 | 1 << 9 | 1 << 23
    assert decode(PLAIN, 1).mode == 0


def test_lds_size_counts_512_bytes() -> None:
    assert decode(replace(PLAIN, rsrc2=3 << 15), 1).lds_bytes == 1536


def test_scratch_follows_the_ring_of_every_shader_engine() -> None:
    # WAVES = 4 for each of two engines, WAVESIZE = 3 * 256 bytes.
    dispatch = replace(PLAIN, rsrc2=1, tmpring_size=4 | 3 << 12, scratch_base=0x10_0000)
    launch = decode(dispatch, 2)
    assert (launch.scratch_wave_bytes, launch.scratch_slots) == (768, 8)
    # Two waves a workgroup: no more than four workgroups share the ring at a time.
    assert list(launch.batches(1 << 20)) == [(0, 4), (4, 2)]
    bases = create_waves(launch, 4, 2).scratch_base[:, 0].tolist()
    assert bases == [0x10_0000 + 768 * slot for slot in range(4)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threads": (1024, 2, 1)}, "2048 work-items"),
        ({"rsrc1": 0x3F}, "512 VGPRs"),
        ({"rsrc2": 0x1FF << 15}, "bytes of LDS"),
        ({"rsrc2": 1, "tmpring_size": 1 | 1 << 12}, "scratch ring"),
    ],
)
def test_what_hardware_cannot_place_is_refused(changes: dict, reason: str) -> None:
    with pytest.raises(ShaderFault, match=reason) as caught:
        decode(replace(PLAIN, **changes), 1)
    assert caught.value.kind == "illegal dispatch"


def test_batches_hold_whole_workgroups() -> None:
    launch = decode(replace(PLAIN, groups=(10, 1, 1)), 1)
    assert list(launch.batches(256)) == [(0, 4), (4, 4), (8, 2)]
    assert list(launch.batches(1)) == [(group, 1) for group in range(10)]
    assert list(decode(replace(PLAIN, groups=(0, 1, 1)), 1).batches(256)) == []
