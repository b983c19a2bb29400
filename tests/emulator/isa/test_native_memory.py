"""Compiled loads and stores do what the interpreter does: every form, at addresses that lie in every way."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from native_bench import (
    BASE,
    FULL,
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

from amdrv.emulator.isa.native import global_memory, lds, scalar_memory

Addresses = NDArray[np.uint64]

VECTOR = """
    dc420000 087c0002  global_load_u8 v8, v[2:3], off
    dc421fe8 08040002  global_load_u8 v8, v2, s[4:5] offset:-24
    dc400008 087c0002  flat_load_u8 v8, v[2:3] offset:8
    dc410004 08fc0002  scratch_load_u8 v8, v2, off offset:4
    dc460000 087c0002  global_load_i8 v8, v[2:3], off
    dc461fe8 08040002  global_load_i8 v8, v2, s[4:5] offset:-24
    dc440008 087c0002  flat_load_i8 v8, v[2:3] offset:8
    dc450004 08fc0002  scratch_load_i8 v8, v2, off offset:4
    dc4a0000 087c0002  global_load_u16 v8, v[2:3], off
    dc4a1fe8 08040002  global_load_u16 v8, v2, s[4:5] offset:-24
    dc480008 087c0002  flat_load_u16 v8, v[2:3] offset:8
    dc490004 08fc0002  scratch_load_u16 v8, v2, off offset:4
    dc4e0000 087c0002  global_load_i16 v8, v[2:3], off
    dc4e1fe8 08040002  global_load_i16 v8, v2, s[4:5] offset:-24
    dc4c0008 087c0002  flat_load_i16 v8, v[2:3] offset:8
    dc4d0004 08fc0002  scratch_load_i16 v8, v2, off offset:4
    dc520000 087c0002  global_load_b32 v8, v[2:3], off
    dc521fe8 08040002  global_load_b32 v8, v2, s[4:5] offset:-24
    dc500008 087c0002  flat_load_b32 v8, v[2:3] offset:8
    dc510004 08fc0002  scratch_load_b32 v8, v2, off offset:4
    dc560000 087c0002  global_load_b64 v[8:9], v[2:3], off
    dc561fe8 08040002  global_load_b64 v[8:9], v2, s[4:5] offset:-24
    dc540008 087c0002  flat_load_b64 v[8:9], v[2:3] offset:8
    dc550004 08fc0002  scratch_load_b64 v[8:9], v2, off offset:4
    dc5a0000 087c0002  global_load_b96 v[8:10], v[2:3], off
    dc5a1fe8 08040002  global_load_b96 v[8:10], v2, s[4:5] offset:-24
    dc580008 087c0002  flat_load_b96 v[8:10], v[2:3] offset:8
    dc590004 08fc0002  scratch_load_b96 v[8:10], v2, off offset:4
    dc5e0000 087c0002  global_load_b128 v[8:11], v[2:3], off
    dc5e1fe8 08040002  global_load_b128 v[8:11], v2, s[4:5] offset:-24
    dc5c0008 087c0002  flat_load_b128 v[8:11], v[2:3] offset:8
    dc5d0004 08fc0002  scratch_load_b128 v[8:11], v2, off offset:4
    dc7a0000 087c0002  global_load_d16_u8 v8, v[2:3], off
    dc7a1fe8 08040002  global_load_d16_u8 v8, v2, s[4:5] offset:-24
    dc780008 087c0002  flat_load_d16_u8 v8, v[2:3] offset:8
    dc790004 08fc0002  scratch_load_d16_u8 v8, v2, off offset:4
    dc7e0000 087c0002  global_load_d16_i8 v8, v[2:3], off
    dc7e1fe8 08040002  global_load_d16_i8 v8, v2, s[4:5] offset:-24
    dc7c0008 087c0002  flat_load_d16_i8 v8, v[2:3] offset:8
    dc7d0004 08fc0002  scratch_load_d16_i8 v8, v2, off offset:4
    dc820000 087c0002  global_load_d16_b16 v8, v[2:3], off
    dc821fe8 08040002  global_load_d16_b16 v8, v2, s[4:5] offset:-24
    dc800008 087c0002  flat_load_d16_b16 v8, v[2:3] offset:8
    dc810004 08fc0002  scratch_load_d16_b16 v8, v2, off offset:4
    dc860000 087c0002  global_load_d16_hi_u8 v8, v[2:3], off
    dc861fe8 08040002  global_load_d16_hi_u8 v8, v2, s[4:5] offset:-24
    dc840008 087c0002  flat_load_d16_hi_u8 v8, v[2:3] offset:8
    dc850004 08fc0002  scratch_load_d16_hi_u8 v8, v2, off offset:4
    dc8a0000 087c0002  global_load_d16_hi_i8 v8, v[2:3], off
    dc8a1fe8 08040002  global_load_d16_hi_i8 v8, v2, s[4:5] offset:-24
    dc880008 087c0002  flat_load_d16_hi_i8 v8, v[2:3] offset:8
    dc890004 08fc0002  scratch_load_d16_hi_i8 v8, v2, off offset:4
    dc8e0000 087c0002  global_load_d16_hi_b16 v8, v[2:3], off
    dc8e1fe8 08040002  global_load_d16_hi_b16 v8, v2, s[4:5] offset:-24
    dc8c0008 087c0002  flat_load_d16_hi_b16 v8, v[2:3] offset:8
    dc8d0004 08fc0002  scratch_load_d16_hi_b16 v8, v2, off offset:4
    dc620000 007c0802  global_store_b8 v[2:3], v8, off
    dc621fe8 00040802  global_store_b8 v2, v8, s[4:5] offset:-24
    dc600008 007c0802  flat_store_b8 v[2:3], v8 offset:8
    dc610004 00fc0802  scratch_store_b8 v2, v8, off offset:4
    dc660000 007c0802  global_store_b16 v[2:3], v8, off
    dc661fe8 00040802  global_store_b16 v2, v8, s[4:5] offset:-24
    dc640008 007c0802  flat_store_b16 v[2:3], v8 offset:8
    dc650004 00fc0802  scratch_store_b16 v2, v8, off offset:4
    dc6a0000 007c0802  global_store_b32 v[2:3], v8, off
    dc6a1fe8 00040802  global_store_b32 v2, v8, s[4:5] offset:-24
    dc680008 007c0802  flat_store_b32 v[2:3], v8 offset:8
    dc690004 00fc0802  scratch_store_b32 v2, v8, off offset:4
    dc6e0000 007c0802  global_store_b64 v[2:3], v[8:9], off
    dc6e1fe8 00040802  global_store_b64 v2, v[8:9], s[4:5] offset:-24
    dc6c0008 007c0802  flat_store_b64 v[2:3], v[8:9] offset:8
    dc6d0004 00fc0802  scratch_store_b64 v2, v[8:9], off offset:4
    dc720000 007c0802  global_store_b96 v[2:3], v[8:10], off
    dc721fe8 00040802  global_store_b96 v2, v[8:10], s[4:5] offset:-24
    dc700008 007c0802  flat_store_b96 v[2:3], v[8:10] offset:8
    dc710004 00fc0802  scratch_store_b96 v2, v[8:10], off offset:4
    dc760000 007c0802  global_store_b128 v[2:3], v[8:11], off
    dc761fe8 00040802  global_store_b128 v2, v[8:11], s[4:5] offset:-24
    dc740008 007c0802  flat_store_b128 v[2:3], v[8:11] offset:8
    dc750004 00fc0802  scratch_store_b128 v2, v[8:11], off offset:4
    dc920000 007c0802  global_store_d16_hi_b8 v[2:3], v8, off
    dc921fe8 00040802  global_store_d16_hi_b8 v2, v8, s[4:5] offset:-24
    dc900008 007c0802  flat_store_d16_hi_b8 v[2:3], v8 offset:8
    dc910004 00fc0802  scratch_store_d16_hi_b8 v2, v8, off offset:4
    dc960000 007c0802  global_store_d16_hi_b16 v[2:3], v8, off
    dc961fe8 00040802  global_store_d16_hi_b16 v2, v8, s[4:5] offset:-24
    dc940008 007c0802  flat_store_d16_hi_b16 v[2:3], v8 offset:8
    dc950004 00fc0802  scratch_store_d16_hi_b16 v2, v8, off offset:4
    dca20004 08040000  global_load_addtid_b32 v8, s[4:5] offset:4
    dca20004 087c0000  global_load_addtid_b32 v8, off offset:4
    dca60004 00040800  global_store_addtid_b32 v8, s[4:5] offset:4
    dc525ffc 087c0002  global_load_b32 v8, v[2:3], off offset:-4 glc
    dc510000 08060000  scratch_load_b32 v8, off, s6
    dc5d0010 08060000  scratch_load_b128 v[8:11], off, s6 offset:16
    dc511ffc 08860002  scratch_load_b32 v8, v2, s6 offset:-4
    dc51000c 087c0000  scratch_load_b32 v8, off, off offset:12
    dc690000 00060800  scratch_store_b32 off, v8, s6
    dc6d0000 00860802  scratch_store_b64 v2, v[8:9], s6
    dc650002 00060800  scratch_store_b16 off, v8, s6 offset:2
    dc4d0000 08060000  scratch_load_i16 v8, off, s6
    dc610000 00060800  scratch_store_b8 off, v8, s6
    dc560000 027c0002  global_load_b64 v[2:3], v[2:3], off
    dc520000 086a0002  global_load_b32 v8, v2, vcc
"""

SCALAR = """
    f4000402 f8000008  s_load_b32 s16, s[4:5], null offset:0x8
    f4000402 0c1ffffa  s_load_b32 s16, s[4:5], s6 offset:-0x6
    f4200404 f8000008  s_buffer_load_b32 s16, s[8:11], null offset:0x8
    f4200404 0c000000  s_buffer_load_b32 s16, s[8:11], s6
    f4040402 f8000008  s_load_b64 s[16:17], s[4:5], null offset:0x8
    f4040402 0c1ffffa  s_load_b64 s[16:17], s[4:5], s6 offset:-0x6
    f4240404 f8000008  s_buffer_load_b64 s[16:17], s[8:11], null offset:0x8
    f4240404 0c000000  s_buffer_load_b64 s[16:17], s[8:11], s6
    f4080402 f8000008  s_load_b128 s[16:19], s[4:5], null offset:0x8
    f4080402 0c1ffffa  s_load_b128 s[16:19], s[4:5], s6 offset:-0x6
    f4280404 f8000008  s_buffer_load_b128 s[16:19], s[8:11], null offset:0x8
    f4280404 0c000000  s_buffer_load_b128 s[16:19], s[8:11], s6
    f40c0402 f8000008  s_load_b256 s[16:23], s[4:5], null offset:0x8
    f40c0402 0c1ffffa  s_load_b256 s[16:23], s[4:5], s6 offset:-0x6
    f42c0404 f8000008  s_buffer_load_b256 s[16:23], s[8:11], null offset:0x8
    f42c0404 0c000000  s_buffer_load_b256 s[16:23], s[8:11], s6
    f4100402 f8000008  s_load_b512 s[16:31], s[4:5], null offset:0x8
    f4100402 0c1ffffa  s_load_b512 s[16:31], s[4:5], s6 offset:-0x6
    f4300404 f8000008  s_buffer_load_b512 s[16:31], s[8:11], null offset:0x8
    f4300404 0c000000  s_buffer_load_b512 s[16:31], s[8:11], s6
    f4001a82 f8000000  s_load_b32 vcc_lo, s[4:5], null
    f4044402 fa000000  s_load_b64 s[16:17], s[4:5], m0 glc
    f4081e02 f8000000  s_load_b128 ttmp[12:15], s[4:5], null
    f4001f02 f8000000  s_load_b32 null, s[4:5], null
    f4840000 00000000  s_dcache_inv
    f4800000 00000000  s_gl1_inv
"""

BYTES = {"8": 1, "16": 2, "32": 4, "64": 8, "96": 12, "128": 16}
MISSING = BASE + 4 * PAGE  # the page that is not mapped
READ_ONLY = BASE + 2 * PAGE


@cache
def bench(lanes: int, listing: str) -> Bench:
    """The instructions of a listing, with inline paths inlined."""
    module = scalar_memory if listing == SCALAR else global_memory
    return Bench(lanes, module.translate, library_of(global_memory, scalar_memory, lds, lanes=lanes), listing)


def named(listing: str, *parts: str) -> list[str]:
    """The assembly lines that contain all parts."""
    lines = [line.strip().partition("  ")[2].strip() for line in listing.strip().splitlines()]
    return [line for line in lines if all(part in line for part in parts)]


def size_of(line: str) -> int:
    """Bytes of an instruction's element."""
    return BYTES[re.findall(r"_[a-z](\d+)", line.split()[0])[-1]]


def immediate(line: str) -> int:
    found = re.search(r"offset:(-?\d+)", line)
    return int(found.group(1)) if found else 0


def pick(rng: np.random.Generator, values: list[int]) -> int:
    return values[int(rng.integers(len(values)))]


def ways(rng: np.random.Generator, lanes: int, size_bytes: int) -> dict[str, Addresses]:
    """Addresses of a wave's lanes that do not overlap in part; those of "missing …" fault in some lane."""
    step = np.arange(lanes) * size_bytes
    unit = min(size_bytes, 4)
    slots = rng.permutation(3 * PAGE // 32 - 4)[:lanes] * 32 + 32  # of pages 0, 1 and 3
    slots = np.where(slots >= PAGE - 32, slots + 64, slots)  # but for the end of page 0
    slots = np.where(slots >= 2 * PAGE, slots + PAGE, slots)
    near = rng.permutation(PAGE // 32)[:lanes] * 32
    odd = int(rng.integers(1, 16))
    lost = np.where(rng.random(lanes) < 0.1, MISSING - BASE + near + 8, slots)
    places = {
        "contiguous": step + 256,
        "contiguous, not aligned": step + 256 + odd,
        "contiguous, across pages": step + PAGE - unit * int(rng.integers(1, lanes)),
        "contiguous, across pages, not aligned": step + PAGE - 7 * size_bytes - odd,
        "contiguous, from where the upper half changes": step,
        "contiguous, backwards": step[::-1] + 512,
        "contiguous but for one lane": step + 512 + np.where(np.arange(lanes) == odd, 1024, 0),
        "uniform": step * 0 + 1024,
        "uniform, across pages": step * 0 + PAGE - unit,
        "strided": step * 2 + 64,
        "near": near + odd // unit * unit,
        "scattered": slots,
        "scattered, not aligned": slots + odd,
        "scattered, one across pages": np.where(np.arange(lanes) == odd, PAGE - unit, slots),
        "missing from some lane on": step + MISSING - BASE - size_bytes * (lanes // 2),
        "missing in an element's middle": step * 0 + MISSING - BASE - max(size_bytes // 2 // unit * unit, 1),
        "missing in some lanes": lost,
        "missing for all": near + 8 + MISSING - BASE,
    }
    return {name: (BASE + place).astype(np.uint64) for name, place in places.items()}


def place(wave: Wave, line: str, address: Addresses, rng: np.random.Generator) -> None:
    """Set the registers of an instruction so that its lanes reach ``address``."""
    offset = immediate(line)
    if "s[4:5]" in line or "vcc" in line:
        code = 106 if "vcc" in line else 4
        index = pick(rng, [0, 0xFFFF_0000, 0x8000_0000])  # what the scalar address is lower by
        base = (BASE - index - offset) & FULL
        if "addtid" in line:
            base = (int(address[0]) - offset) & FULL
        wave.sgpr[code], wave.sgpr[code + 1] = base & 0xFFFF_FFFF, base >> 32
        wave.vgpr[2] = (address - np.uint64(base) - np.uint64(offset & FULL)).astype(np.uint32)
    else:
        target = address - np.uint64(offset & FULL)
        wave.vgpr[2], wave.vgpr[3] = target.astype(np.uint32), (target >> np.uint64(32)).astype(np.uint32)


def check(engine: Bench, line: str, wave: Wave, where: object) -> None:
    """Both with a cold and a warm TLB; a store that faults changes nothing."""
    for warm in (False, True):
        engine.warm = warm
        fault = engine.check(line, wave, (where, "warm" if warm else "cold"))
        if fault is not None and "global" in line:
            found, _ = engine.compiled(line, wave)
            np.testing.assert_array_equal(found.arena, wave.arena, err_msg=f"{line} {where}")


@pytest.mark.parametrize("lanes", [32, 64])
@pytest.mark.parametrize("space", ["global_", "flat_"])
def test_memory_is_reached_at_addresses_that_lie_in_any_way(space: str, lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    engine = bench(lanes, VECTOR)
    for line in named(VECTOR, space):
        for how, address in ways(rng, lanes, size_of(line)).items():
            for mask in (FULL, pick(rng, masks(rng, lanes)[2:])):
                wave = Wave.random(rng, lanes).set_exec(mask)
                place(wave, line, address, rng)
                check(engine, line, wave, (how, hex(mask)))


@pytest.mark.parametrize("lanes", [32, 64])
def test_stores_to_read_only_pages_fault_and_change_nothing(lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    engine = bench(lanes, VECTOR)
    for line in named(VECTOR, "global_store"):
        size_bytes = size_of(line)
        for first in (READ_ONLY, READ_ONLY - 5 * size_bytes, READ_ONLY - 2 * size_bytes - 1):
            wave = Wave.random(rng, lanes).set_exec(pick(rng, masks(rng, lanes)[:3]))
            place(wave, line, (first + np.arange(lanes) * size_bytes).astype(np.uint64), rng)
            check(engine, line, wave, hex(first))


def offsets(rng: np.random.Generator, lanes: int, size_bytes: int) -> dict[str, NDArray[np.int64]]:
    """Offsets into private memory."""
    last = SCRATCH_LANE_BYTES - size_bytes
    unit = min(size_bytes, 4)
    aligned = rng.integers(0, last // unit + 1, lanes) * unit
    return {
        "uniform": np.full(lanes, int(aligned[0])),
        "uniform, the last": np.full(lanes, last),
        "uniform, not aligned": np.full(lanes, int(aligned[0] | 3)).clip(0, last),
        "aligned": aligned,
        "any": rng.integers(0, last + 1, lanes),
        "beyond in some lanes": np.where(rng.random(lanes) < 0.1, last + 1, aligned),
        "far beyond": np.full(lanes, -4),
    }


@pytest.mark.parametrize("lanes", [32, 64])
def test_private_memory_is_swizzled_and_bounded(lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    engine = bench(lanes, VECTOR)
    for line in named(VECTOR, "scratch_"):
        for how, offset in offsets(rng, lanes, size_of(line)).items():
            for mask in masks(rng, lanes)[:4]:
                wave = Wave.random(rng, lanes).set_exec(mask)
                scalar = int(rng.integers(0, 16)) if "v2" in line else int(offset[0]) - immediate(line)
                wave.sgpr[6] = scalar & 0xFFFF_FFFF
                inner = offset - immediate(line) - (scalar if "s6" in line else 0)
                wave.vgpr[2] = (inner & 0xFFFF_FFFF).astype(np.uint32)
                check(engine, line, wave, (how, hex(mask)))


@pytest.mark.parametrize("lanes", [32, 64])
def test_private_memory_that_is_not_mapped_faults(lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    engine = bench(lanes, VECTOR)
    for line in named(VECTOR, "scratch_", "v2, off") + named(VECTOR, "scratch_store", "v2"):
        wave = Wave.random(rng, lanes)
        wave.scratch, wave.vgpr[2], wave.sgpr[6] = MISSING, 8, 0
        check(engine, line, wave, "missing")


@pytest.mark.parametrize("lanes", [32, 64])
def test_flat_addresses_reach_every_space(lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    engine = bench(lanes, VECTOR)
    for line in named(VECTOR, "flat_"):
        size_bytes = size_of(line)
        memory = ways(rng, lanes, size_bytes)
        private = offsets(rng, lanes, size_bytes)
        shared = rng.permutation(LDS_BYTES // 32 + 32)[:lanes] * 32 + int(rng.integers(0, 2)) * 7
        spaces = rng.integers(0, 3, lanes)
        for how, own in private.items():
            own = (own & 0xFFFF_FFFF).astype(np.uint64)
            parts = [memory["scattered, not aligned"], own | np.uint64(PRIVATE_BASE), shared + np.uint64(SHARED_BASE)]
            for name, space in (("mixed", spaces), ("private", spaces * 0 + 1), ("LDS", spaces * 0 + 2)):
                wave = Wave.random(rng, lanes).set_exec(pick(rng, masks(rng, lanes)[1:]))
                place(wave, line, np.choose(space, parts).astype(np.uint64), rng)
                check(engine, line, wave, (how, name))


@pytest.mark.parametrize("lanes", [32, 64])
def test_scalar_loads_reach_memory(lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    engine = bench(lanes, SCALAR)
    for line in named(SCALAR, "s_load"):
        for at in (256, 259, PAGE - 8, PAGE - 32, 4 * PAGE - 64, 4 * PAGE - 4, 4 * PAGE):
            wave = Wave.random(rng, lanes)
            scalar = int(rng.integers(0, 64))
            base = BASE + at - scalar
            wave.sgpr[4:7] = base & 0xFFFF_FFFF, base >> 32, scalar
            wave.sgpr[125] = scalar
            check(engine, line, wave, at)


@pytest.mark.parametrize("lanes", [32, 64])
@pytest.mark.parametrize("stride", [0, 4])
def test_scalar_buffer_loads_give_zero_beyond_the_records(stride: int, lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    engine = bench(lanes, SCALAR)
    for line in named(SCALAR, "s_buffer"):
        for records in (0, 3, 8, 20, 21, 400):
            for at in (0, 5, PAGE - 20, 3 * PAGE - 16, 4 * PAGE - 12):
                wave = Wave.random(rng, lanes)
                wave.sgpr[8:11] = at, BASE >> 32 | stride << 16, records
                wave.sgpr[6] = pick(rng, [0, 4, 18, -4 & 0xFFFF_FFFF])
                check(engine, line, wave, (records, at))


@pytest.mark.parametrize("lanes", [32, 64])
def test_cache_invalidations_change_nothing(lanes: int) -> None:
    engine = bench(lanes, SCALAR)
    for line in named(SCALAR, "_inv"):
        check(engine, line, Wave.random(np.random.default_rng(1), lanes), "")
