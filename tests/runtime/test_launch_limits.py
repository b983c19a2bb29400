"""Shapes of launches and amounts of scratch: what the hardware takes, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument, OutOfMemory
from amdrv.runtime import scratch, shape
from amdrv.runtime.code_object import KernelCode, KernelDescriptor

LDS = 65536
KERNEL = KernelCode("k", KernelDescriptor(0, 0, 0, 0, 0, 0, 0, 0, 0), 0, 0, 0, (), 0, 8, 1024, None, False)


def checked(grid: object, block: object, code: KernelCode = KERNEL, lds: int = 0) -> shape.LaunchShape:
    """``shape.check`` with the limits of gfx1100."""
    return shape.check(code, grid, block, lds, LDS)  # type: ignore[arg-type]


def test_missing_dimensions_are_one() -> None:
    full = checked((7, 5), 64)
    assert (full.grid, full.block, full.dimensions) == ((7, 5, 1), (64, 1, 1), 2)
    assert checked([1, 2, 3], (1,)).dimensions == 3


@pytest.mark.parametrize("grid", [0, -1, (1, 0), (), (1, 1, 1, 1), 1.5, "1", None, (1, 2.0)])
def test_a_grid_that_is_not_one_to_three_positive_integers_is_refused(grid: object) -> None:
    with pytest.raises(InvalidArgument, match="kernel 'k': grid"):
        checked(grid, 64)


@pytest.mark.parametrize("block", [0, (64, 0), (1, 1, 1, 1), 64.0])
def test_a_block_that_is_not_one_to_three_positive_integers_is_refused(block: object) -> None:
    with pytest.raises(InvalidArgument, match="kernel 'k': block"):
        checked(1, block)


def test_a_block_is_at_most_what_kernel_and_hardware_take() -> None:
    assert checked(1, (32, 32)).block == (32, 32, 1)
    with pytest.raises(InvalidArgument, match="33x32x1 has 1056 work-items, more than 1024"):
        checked(1, (33, 32))
    with pytest.raises(InvalidArgument, match="more than 256"):
        checked(1, 257, replace(KERNEL, max_flat_workgroup_size=256))
    with pytest.raises(InvalidArgument, match="more than 1024"):
        checked(1, 2048, replace(KERNEL, max_flat_workgroup_size=4096))


def test_a_required_block_is_required() -> None:
    code = replace(KERNEL, reqd_workgroup_size=(8, 4, 2))
    assert checked(1, (8, 4, 2), code).block == (8, 4, 2)
    with pytest.raises(InvalidArgument, match="compiled for a block of 8x4x2, not 64x1x1"):
        checked(1, 64, code)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_grid_is_at_most_what_32_bits_count_in_work_items(axis: int) -> None:
    grid, block = [1, 1, 1], [1, 1, 1]
    block[axis] = 64
    grid[axis] = (1 << 32) // 64 - 1
    assert checked(grid, block).grid == tuple(grid)
    grid[axis] += 1
    with pytest.raises(InvalidArgument, match=f"in {'xyz'[axis]} are 4294967296 work-items"):
        checked(grid, block)


def test_lds_counts_fixed_and_dynamic_together() -> None:
    code = replace(KERNEL, descriptor=replace(KERNEL.descriptor, group_segment_bytes=60000))
    assert checked(1, 1, code, lds=5536).dynamic_lds_bytes == 5536
    with pytest.raises(InvalidArgument, match="60000 bytes of LDS and 5537 dynamic ones; a workgroup can have 65536"):
        checked(1, 1, code, lds=5537)
    with pytest.raises(InvalidArgument, match="-1 bytes"):
        checked(1, 1, lds=-1)


def planned(item_bytes: int, lanes: int = 32, **limits: int) -> scratch.ScratchPlan:
    """``scratch.plan`` for a full gfx1100."""
    return scratch.plan("k", item_bytes, lanes, engines=6, slots_per_engine=512, **limits)


@given(st.integers(1, 200_000), st.sampled_from([32, 64]))
def test_every_wave_gets_what_its_kernel_needs(item_bytes: int, lanes: int) -> None:
    if item_bytes * lanes > scratch.WAVE_SIZE_UNITS_MAX * 256:
        with pytest.raises(InvalidArgument, match="kernel 'k' needs"):
            planned(item_bytes, lanes)
        return
    plan = planned(item_bytes, lanes)
    assert plan.wave_bytes >= item_bytes * lanes
    assert plan.wave_bytes % 256 == 0 and plan.wave_units < 1 << 15
    assert 1024 // lanes <= plan.waves_per_engine < 1 << 12  # one workgroup always fits
    assert plan.size_bytes == plan.wave_bytes * plan.waves_per_engine * 6


def test_small_scratch_is_there_for_every_wave() -> None:
    assert planned(64).waves_per_engine == 512


def test_large_scratch_stays_within_the_budget() -> None:
    plan = planned(16384, budget_bytes=256 << 20)
    assert plan.waves_per_engine == (256 << 20) // (16384 * 32 * 6)


def test_less_memory_means_fewer_waves_down_to_one_workgroup() -> None:
    plan, gone = planned(64), OutOfMemory("none left")
    seen = []
    with pytest.raises(OutOfMemory, match="none left"):
        while True:
            plan = scratch.smaller(plan, gone)
            seen.append(plan.waves_per_engine)
    assert seen == [128, 32]
