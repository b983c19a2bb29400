"""Compiled atomics do what the interpreter does, in every address space, and take turns with other threads.

Code is given as the words that llvm-mc 22.1.8 (-mcpu=gfx1100) makes of the assembly beside them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from native_bench import (
    BASE,
    LDS_BYTES,
    PAGE,
    PRIVATE_BASE,
    SCRATCH_LANE_BYTES,
    SHARED_BASE,
    Bench,
    Wave,
    library_of,
    masks,
)
from numpy.typing import NDArray

from amdrv.emulator.isa.native import atomics, buffers, global_memory, lds, tlb
from amdrv.emulator.isa.native.layout import Detail

MEMORY = """
    dcce4000 047c0802  global_atomic_swap_b32 v4, v[2:3], v8, off glc
    dcd64000 047c0802  global_atomic_add_u32 v4, v[2:3], v8, off glc
    dcda4000 047c0802  global_atomic_sub_u32 v4, v[2:3], v8, off glc
    dcde4000 047c0802  global_atomic_csub_u32 v4, v[2:3], v8, off glc
    dce24000 047c0802  global_atomic_min_i32 v4, v[2:3], v8, off glc
    dce64000 047c0802  global_atomic_min_u32 v4, v[2:3], v8, off glc
    dcea4000 047c0802  global_atomic_max_i32 v4, v[2:3], v8, off glc
    dcee4000 047c0802  global_atomic_max_u32 v4, v[2:3], v8, off glc
    dcf24000 047c0802  global_atomic_and_b32 v4, v[2:3], v8, off glc
    dcf64000 047c0802  global_atomic_or_b32 v4, v[2:3], v8, off glc
    dcfa4000 047c0802  global_atomic_xor_b32 v4, v[2:3], v8, off glc
    dcfe4000 047c0802  global_atomic_inc_u32 v4, v[2:3], v8, off glc
    dd024000 047c0802  global_atomic_dec_u32 v4, v[2:3], v8, off glc
    dd464000 047c0802  global_atomic_min_f32 v4, v[2:3], v8, off glc
    dd4a4000 047c0802  global_atomic_max_f32 v4, v[2:3], v8, off glc
    dd5a4000 047c0802  global_atomic_add_f32 v4, v[2:3], v8, off glc
    dd064000 047c0802  global_atomic_swap_b64 v[4:5], v[2:3], v[8:9], off glc
    dd0e4000 047c0802  global_atomic_add_u64 v[4:5], v[2:3], v[8:9], off glc
    dd124000 047c0802  global_atomic_sub_u64 v[4:5], v[2:3], v[8:9], off glc
    dd164000 047c0802  global_atomic_min_i64 v[4:5], v[2:3], v[8:9], off glc
    dd1a4000 047c0802  global_atomic_min_u64 v[4:5], v[2:3], v[8:9], off glc
    dd1e4000 047c0802  global_atomic_max_i64 v[4:5], v[2:3], v[8:9], off glc
    dd224000 047c0802  global_atomic_max_u64 v[4:5], v[2:3], v[8:9], off glc
    dd264000 047c0802  global_atomic_and_b64 v[4:5], v[2:3], v[8:9], off glc
    dd2a4000 047c0802  global_atomic_or_b64 v[4:5], v[2:3], v[8:9], off glc
    dd2e4000 047c0802  global_atomic_xor_b64 v[4:5], v[2:3], v[8:9], off glc
    dd324000 047c0802  global_atomic_inc_u64 v[4:5], v[2:3], v[8:9], off glc
    dd364000 047c0802  global_atomic_dec_u64 v[4:5], v[2:3], v[8:9], off glc
    dcd24000 047c0802  global_atomic_cmpswap_b32 v4, v[2:3], v[8:9], off glc
    dd424000 047c0802  global_atomic_cmpswap_f32 v4, v[2:3], v[8:9], off glc
    dd0a4000 047c0802  global_atomic_cmpswap_b64 v[4:5], v[2:3], v[8:11], off glc
    dcd60000 007c0802  global_atomic_add_u32 v[2:3], v8, off
    dcda0000 007c0802  global_atomic_sub_u32 v[2:3], v8, off
    dcf20000 007c0802  global_atomic_and_b32 v[2:3], v8, off
    dcf60000 007c0802  global_atomic_or_b32 v[2:3], v8, off
    dcfa0000 007c0802  global_atomic_xor_b32 v[2:3], v8, off
    dce20000 007c0802  global_atomic_min_i32 v[2:3], v8, off
    dcea0000 007c0802  global_atomic_max_i32 v[2:3], v8, off
    dce60000 007c0802  global_atomic_min_u32 v[2:3], v8, off
    dcee0000 007c0802  global_atomic_max_u32 v[2:3], v8, off
    dd5a0000 007c0802  global_atomic_add_f32 v[2:3], v8, off
    dcfe0000 007c0802  global_atomic_inc_u32 v[2:3], v8, off
    dcce0000 007c0802  global_atomic_swap_b32 v[2:3], v8, off
    dd0e0000 007c0802  global_atomic_add_u64 v[2:3], v[8:9], off
    dd1e1ff0 007c0802  global_atomic_max_i64 v[2:3], v[8:9], off offset:-16
    dcd64008 04040802  global_atomic_add_u32 v4, v2, v8, s[4:5] offset:8 glc
    dd1a0000 00040802  global_atomic_min_u64 v2, v[8:9], s[4:5]
    dcd44000 047c0802  flat_atomic_add_u32 v4, v[2:3], v8 glc
    dcd40008 007c0802  flat_atomic_add_u32 v[2:3], v8 offset:8
    dd084000 047c0802  flat_atomic_cmpswap_b64 v[4:5], v[2:3], v[8:11] glc
    dd484000 047c0802  flat_atomic_max_f32 v4, v[2:3], v8 glc
"""
LDS = """
    d8800000 04000802  ds_add_rtn_u32 v4, v2, v8
    d9800010 04000802  ds_add_rtn_u64 v[4:5], v2, v[8:9] offset:16
    d8840000 04000802  ds_sub_rtn_u32 v4, v2, v8
    d9840010 04000802  ds_sub_rtn_u64 v[4:5], v2, v[8:9] offset:16
    d8880000 04000802  ds_rsub_rtn_u32 v4, v2, v8
    d9880010 04000802  ds_rsub_rtn_u64 v[4:5], v2, v[8:9] offset:16
    d88c0000 04000802  ds_inc_rtn_u32 v4, v2, v8
    d98c0010 04000802  ds_inc_rtn_u64 v[4:5], v2, v[8:9] offset:16
    d8900000 04000802  ds_dec_rtn_u32 v4, v2, v8
    d9900010 04000802  ds_dec_rtn_u64 v[4:5], v2, v[8:9] offset:16
    d8940000 04000802  ds_min_rtn_i32 v4, v2, v8
    d89c0000 04000802  ds_min_rtn_u32 v4, v2, v8
    d8c80000 04000802  ds_min_rtn_f32 v4, v2, v8
    d9940000 04000802  ds_min_rtn_i64 v[4:5], v2, v[8:9]
    d99c0000 04000802  ds_min_rtn_u64 v[4:5], v2, v[8:9]
    d9c80000 04000802  ds_min_rtn_f64 v[4:5], v2, v[8:9]
    d8980000 04000802  ds_max_rtn_i32 v4, v2, v8
    d8a00000 04000802  ds_max_rtn_u32 v4, v2, v8
    d8cc0000 04000802  ds_max_rtn_f32 v4, v2, v8
    d9980000 04000802  ds_max_rtn_i64 v[4:5], v2, v[8:9]
    d9a00000 04000802  ds_max_rtn_u64 v[4:5], v2, v[8:9]
    d9cc0000 04000802  ds_max_rtn_f64 v[4:5], v2, v[8:9]
    d8a40000 04000802  ds_and_rtn_b32 v4, v2, v8
    d9240000 00000802  ds_and_b64 v2, v[8:9]
    d8a80000 04000802  ds_or_rtn_b32 v4, v2, v8
    d9280000 00000802  ds_or_b64 v2, v[8:9]
    d8ac0000 04000802  ds_xor_rtn_b32 v4, v2, v8
    d92c0000 00000802  ds_xor_b64 v2, v[8:9]
    d8b00000 04090802  ds_mskor_rtn_b32 v4, v2, v8, v9
    d9b00000 040a0802  ds_mskor_rtn_b64 v[4:5], v2, v[8:9], v[10:11]
    d8b40000 04000802  ds_storexchg_rtn_b32 v4, v2, v8
    d9b40000 04000802  ds_storexchg_rtn_b64 v[4:5], v2, v[8:9]
    d8c00000 04090802  ds_cmpstore_rtn_b32 v4, v2, v8, v9
    d9c00000 040a0802  ds_cmpstore_rtn_b64 v[4:5], v2, v[8:9], v[10:11]
    d8c40000 04090802  ds_cmpstore_rtn_f32 v4, v2, v8, v9
    d9440000 000a0802  ds_cmpstore_f64 v2, v[8:9], v[10:11]
    d8d00000 04090802  ds_wrap_rtn_b32 v4, v2, v8, v9
    d9f80000 04000802  ds_condxchg32_rtn_b64 v[4:5], v2, v[8:9]
    d9e40000 04000802  ds_add_rtn_f32 v4, v2, v8
    d8540000 00000802  ds_add_f32 v2, v8
    d8000000 00000802  ds_add_u32 v2, v8
    d8040000 00000802  ds_sub_u32 v2, v8
    d8240000 00000802  ds_and_b32 v2, v8
    d82c0000 00000802  ds_xor_b32 v2, v8
    d8140000 00000802  ds_min_i32 v2, v8
    d8200004 00000802  ds_max_u32 v2, v8 offset:4
    d9180000 00000802  ds_max_i64 v2, v[8:9]
    d80c0000 00000802  ds_inc_u32 v2, v8
"""
ADDRESS, DATA = 2, 8
READ_ONLY, MISSING = BASE + 2 * PAGE, BASE + 4 * PAGE


@pytest.fixture(scope="module", params=[32, 64])
def bench(request: pytest.FixtureRequest) -> Bench:
    lanes = request.param
    library = library_of(tlb, global_memory, lds, buffers, atomics, lanes=lanes)
    return Bench(lanes, atomics.translate, library, MEMORY + LDS, level=int(lanes == 32))


def names(listing: str) -> list[str]:
    return [line.strip().partition("  ")[2] for line in listing.strip().splitlines()]


def set_numbers(rng: np.random.Generator, wave: Wave) -> None:
    """Data near what memory holds, so that comparisons go either way; no NaNs, whose payload is nobody's promise."""
    small = rng.integers(0, 4, wave.vgpr.shape, np.uint32)
    floats = rng.standard_normal(wave.vgpr.shape).astype(np.float32).view(np.uint32)
    wave.vgpr[DATA:] = np.where(rng.integers(0, 2, wave.vgpr.shape), small, floats)[DATA:]
    for memory in (wave.lds.view(np.uint32), wave.arena.view(np.uint32)):
        old = rng.integers(0, 4, memory.shape, np.uint32)
        other = rng.standard_normal(memory.shape).astype(np.float32).view(np.uint32)
        memory[:] = np.where(rng.integers(0, 2, memory.shape), old, other)


def spread(wave: Wave, address: NDArray[np.uint64]) -> None:
    """Put 64-bit addresses in v2 and v3."""
    wave.vgpr[ADDRESS] = address.astype(np.uint32)
    wave.vgpr[ADDRESS + 1] = (address >> np.uint64(32)).astype(np.uint32)


def places(rng: np.random.Generator, lanes: int, size: int, room: int) -> Iterator[NDArray[np.uint64]]:
    """Aligned offsets: all different, all the same, a few in common, two in common, and one behind the other."""
    yield (rng.permutation(room // size)[:lanes] * size).astype(np.uint64)
    yield np.full(lanes, 8 * int(rng.integers(room // 8)), np.uint64)
    yield (rng.integers(0, 5, lanes) * 8).astype(np.uint64)
    yield (np.arange(lanes) % 2 * 16).astype(np.uint64)
    yield (np.arange(lanes) * size).astype(np.uint64)


def size_of(name: str) -> int:
    return 8 if name.split()[0][-2:] == "64" else 4


@pytest.mark.parametrize("name", names(MEMORY))
def test_atomic_in_memory_agrees_with_the_interpreter(bench: Bench, name: str) -> None:
    rng = np.random.default_rng(len(name))
    for offsets in places(rng, bench.lanes, size_of(name), 2 * PAGE - 64):
        for mask in masks(rng, bench.lanes)[:3]:
            wave = Wave.random(rng, bench.lanes).set_exec(mask)
            set_numbers(rng, wave)
            spread(wave, np.uint64(BASE + 32) + offsets)
            if "s[4:5]" in name:
                wave.vgpr[ADDRESS] = offsets
                wave.sgpr[4], wave.sgpr[5] = (BASE + 32) & 0xFFFF_FFFF, BASE >> 32
            assert bench.check(name, wave, hex(mask)) is None


@pytest.mark.parametrize("name", names(LDS))
def test_atomic_in_lds_agrees_with_the_interpreter(bench: Bench, name: str) -> None:
    rng = np.random.default_rng(len(name))
    for offsets in places(rng, bench.lanes, size_of(name), LDS_BYTES + 64):
        for mask in masks(rng, bench.lanes)[:3]:
            wave = Wave.random(rng, bench.lanes).set_exec(mask)
            set_numbers(rng, wave)
            wave.vgpr[ADDRESS] = offsets
            assert bench.check(name, wave, hex(mask)) is None


@pytest.mark.parametrize("name", [name for name in names(MEMORY) if name.startswith("flat")])
def test_flat_atomic_respects_the_apertures(bench: Bench, name: str) -> None:
    rng = np.random.default_rng(len(name))
    private = "b64" not in name
    for mask in masks(rng, bench.lanes):
        wave = Wave.random(rng, bench.lanes).set_exec(mask)
        set_numbers(rng, wave)
        shared = SHARED_BASE + rng.integers(0, LDS_BYTES // 8 + 4, bench.lanes) * 8
        own = PRIVATE_BASE + rng.integers(0, SCRATCH_LANE_BYTES // 4 - 2, bench.lanes) * 4
        memory = BASE + rng.integers(0, 64, bench.lanes) * 8
        where = rng.integers(0, 3 if private else 2, bench.lanes)
        spread(wave, np.choose(where, [memory, shared, own]).astype(np.uint64))
        assert bench.check(name, wave, hex(mask)) is None


def fault_of(bench: Bench, name: str, addresses: list[tuple[int, int]], mask: int = -1) -> tuple[Detail, int, int]:
    """(detail, lane, va) of the fault when some lanes have addresses out of the ordinary."""
    wave = Wave.random(np.random.default_rng(5), bench.lanes).set_exec(mask & (1 << 64) - 1)
    address = np.full(bench.lanes, BASE + 64, np.uint64)
    for lane, va in addresses:
        address[lane] = va
    spread(wave, address)
    fault = bench.check(name, wave, addresses)
    assert fault is not None
    return fault.detail, fault.lane, fault.va or 0


ADD, FLAT_ADD, FLAT_WIDE = names(MEMORY)[1], "flat_atomic_add_u32 v4, v[2:3], v8 glc", names(MEMORY)[-2]


@pytest.mark.parametrize(
    ("name", "addresses", "expected"),
    [
        (ADD, [(9, BASE + 66), (20, BASE + 65)], (Detail.MISALIGNED_ATOMIC, 9, BASE + 66)),
        (ADD, [(3, MISSING), (9, BASE + 66)], (Detail.MISALIGNED_ATOMIC, 9, BASE + 66)),
        (ADD, [(7, MISSING + 8), (9, READ_ONLY)], (Detail.TRANSLATION, 7, MISSING + 8)),
        (ADD, [(0, READ_ONLY + 4)], (Detail.TRANSLATION, 0, READ_ONLY + 4)),
        (FLAT_ADD, [(4, SHARED_BASE + 2)], (Detail.MISALIGNED_ATOMIC, 4, 2)),
        (FLAT_ADD, [(6, PRIVATE_BASE + 3)], (Detail.MISALIGNED_ATOMIC, 6, 3)),
        (
            FLAT_ADD,
            [(6, PRIVATE_BASE + SCRATCH_LANE_BYTES), (8, PRIVATE_BASE)],
            (Detail.PRIVATE_BOUNDS, 6, PRIVATE_BASE + SCRATCH_LANE_BYTES),
        ),
        (FLAT_WIDE, [(8, PRIVATE_BASE), (9, PRIVATE_BASE)], (Detail.PRIVATE_WIDE_ATOMIC, 8, 0)),
    ],
)
def test_fault_is_that_of_the_interpreter(
    bench: Bench, name: str, addresses: list[tuple[int, int]], expected: tuple[Detail, int, int]
) -> None:
    assert fault_of(bench, name, addresses) == expected


def test_misaligned_atomic_in_lds_faults(bench: Bench) -> None:
    wave = Wave.random(np.random.default_rng(6), bench.lanes)
    wave.vgpr[ADDRESS] = 8
    wave.vgpr[ADDRESS, 5] = 12
    fault = bench.check("ds_max_i64 v2, v[8:9]", wave)
    assert fault is not None
    assert (fault.detail, fault.lane, fault.va) == (Detail.MISALIGNED_ATOMIC, 5, 12)


def test_inactive_lanes_never_fault(bench: Bench) -> None:
    wave = Wave.random(np.random.default_rng(7), bench.lanes).set_exec(2)
    address = np.full(bench.lanes, MISSING + 1, np.uint64)
    address[1] = BASE + 64
    spread(wave, address)
    assert bench.check(ADD, wave) is None


@pytest.mark.parametrize(
    "name", ["global_atomic_add_u32 v4, v[2:3], v8, off glc", "global_atomic_add_f32 v[2:3], v8, off"]
)
def test_threads_lose_no_update(bench: Bench, name: str) -> None:
    """Two threads add ones to the same counters; every addition must be there in the end."""
    rounds, is_float = 300, "f32" in name
    wave = Wave.random(np.random.default_rng(8), bench.lanes)
    wave.arena[:] = 0
    wave.vgpr[DATA] = np.float32(1).view(np.uint32) if is_float else 1
    spread(wave, BASE + 4 * (np.arange(bench.lanes, dtype=np.uint64) % 4))
    runs = [bench.runner(name, wave) for _ in range(2)]
    threads = [threading.Thread(target=lambda run=run: [run() for _ in range(rounds)]) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frame = wave.arena[3 * PAGE :][:16]  # the first virtual page
    counters = frame.view(np.float32 if is_float else np.uint32)
    assert counters.tolist() == [2 * rounds * bench.lanes // 4] * 4
