"""Compiled memory, lane and atomic instructions of gfx12 do what the interpreter does.

Code is given as the words that llvm-mc 22 (-mcpu=gfx1201) makes of the assembly beside them.
"""

from __future__ import annotations

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

from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.native import atomics, buffers, global_memory, lane_exchange, lds, scalar_memory, tlb
from amdrv.emulator.isa.native.frame import Frame
from amdrv.emulator.isa.native.layout import Detail

VECTOR = """
    ee05007c 00000008 ffffe802  global_load_b32 v8, v[2:3], off offset:-24
    ee05c004 00000008 ffffe802  global_load_b128 v[8:11], v2, s[4:5] offset:-24
    ec05007c 00000008 fffff802  flat_load_b32 v8, v[2:3] offset:-8
    ec06c07c 04000000 fffff802  flat_store_b64 v[2:3], v[8:9] offset:-8
    ee070004 04000000 ffffe802  global_store_b96 v2, v[8:10], s[4:5] offset:-24
    ee150004 04000000 00000002  global_store_block v2, v[8:39], s[4:5]
"""
PRIVATE = """
    ed05007c 00020008 fffffc02  scratch_load_b32 v8, v2, off offset:-4
    ed068004 04020000 fffffc02  scratch_store_b32 v2, v8, s4 offset:-4
    ed15007c 04020000 00000002  scratch_store_block v2, v[8:39], off
"""
TRANSPOSING = "ee15c004 00000008 00000002  global_load_tr_b128 v[8:11], v2, s[4:5]"
SCALAR = """
    f400a202 f8fffff8  s_load_b96 s[8:10], s[4:5], -0x8
    f4012202 f8000005  s_load_u8 s8, s[4:5], 0x5
    f4010202 f8fffff9  s_load_i8 s8, s[4:5], -0x7
    f4016202 f8000006  s_load_u16 s8, s[4:5], 0x6
    f4014202 0c000003  s_load_i16 s8, s[4:5], s6 offset:0x3
    f4015f02 f8000003  s_load_i16 null, s[4:5], 0x3
    f4000202 f8fffffd  s_load_b32 s8, s[4:5], -0x3
    f404c0c2 08010000  s_prefetch_data s[4:5], 0x10000, s4, 3
"""
RECORDS = """
    f402a206 f8000008  s_buffer_load_b96 s[8:10], s[12:15], 0x8
    f4032206 f800001f  s_buffer_load_u8 s8, s[12:15], 0x1f
    f4032206 f8000020  s_buffer_load_u8 s8, s[12:15], 0x20
    f4034206 f800001e  s_buffer_load_i16 s8, s[12:15], 0x1e
    f4034206 f800001f  s_buffer_load_i16 s8, s[12:15], 0x1f
    f4036206 0c000002  s_buffer_load_u16 s8, s[12:15], s6 offset:0x2
"""
LANES = """
    dacc000c 02000103  ds_bpermute_b32 v2, v3, v1 offset:12
    dac80008 02000103  ds_permute_b32 v2, v3, v1 offset:8
    db340000 02000103  ds_bpermute_fi_b32 v2, v3, v1
    d70f0002 00020701  v_permlane16_var_b32 v2, v1, v3
    d70f0802 00020701  v_permlane16_var_b32 v2, v1, v3 op_sel:[1,0]
    d7101002 00020701  v_permlanex16_var_b32 v2, v1, v3 op_sel:[0,1]
    d7100002 00020701  v_permlanex16_var_b32 v2, v1, v3
"""
ATOMICS = """
    ee0dc07c 04100004 00000002  global_atomic_sub_clamp_u32 v4, v[2:3], v8, off th:TH_ATOMIC_RETURN
    ee14007c 04100004 00000002  global_atomic_cond_sub_u32 v4, v[2:3], v8, off th:TH_ATOMIC_RETURN
    ee14407c 04100004 00000002  global_atomic_min_num_f32 v4, v[2:3], v8, off th:TH_ATOMIC_RETURN
    ee14807c 04100004 00000002  global_atomic_max_num_f32 v4, v[2:3], v8, off th:TH_ATOMIC_RETURN
    ee16407c 04100004 00000002  global_atomic_pk_add_f16 v4, v[2:3], v8, off th:TH_ATOMIC_RETURN
    ee16807c 04100004 00000002  global_atomic_pk_add_bf16 v4, v[2:3], v8, off th:TH_ATOMIC_RETURN
    ee0d407c 04000000 fffff802  global_atomic_add_u32 v[2:3], v8, off offset:-8
    ee14407c 04000000 00000002  global_atomic_min_num_f32 v[2:3], v8, off
    ec16807c 04000000 fffff802  flat_atomic_pk_add_bf16 v[2:3], v8 offset:-8
    ec14007c 04100004 00000002  flat_atomic_cond_sub_u32 v4, v[2:3], v8 th:TH_ATOMIC_RETURN
"""
SHARED = """
    daa40000 04000802  ds_sub_clamp_rtn_u32 v4, v2, v8
    daa00008 04000802  ds_cond_sub_rtn_u32 v4, v2, v8 offset:8
    da600000 00000802  ds_cond_sub_u32 v2, v8
    d8c80000 04000802  ds_min_num_rtn_f32 v4, v2, v8
    d8cc0000 04000802  ds_max_num_rtn_f32 v4, v2, v8
    d9480000 00000802  ds_min_num_f64 v2, v[8:9]
    d9cc0000 04000802  ds_max_num_rtn_f64 v[4:5], v2, v[8:9]
    daa80000 04000802  ds_pk_add_rtn_f16 v4, v2, v8
    da6c0000 00000802  ds_pk_add_bf16 v2, v8
    daac0000 04000802  ds_pk_add_rtn_bf16 v4, v2, v8
"""
BUFFERS = """
    c405c00c 40800808 00000402  buffer_load_b128 v[8:11], v2, s[4:7], s12 offen offset:4
    c404007c 80800808 00000102  buffer_load_u8 v8, v2, s[4:7], null idxen offset:1
    c406c00c c0800808 00000002  buffer_store_b64 v[8:9], v[2:3], s[4:7], s12 idxen offen
    c400c07c 80800808 00000002  buffer_load_format_xyzw v[8:11], v2, s[4:7], null idxen
    c420400c 47000808 00000002  tbuffer_load_format_xy v[8:9], v2, s[4:7], s12 format:[BUF_FMT_8_8_UNORM] offen
    c421007c 8b000808 00000802  tbuffer_store_format_x v8, v2, s[4:7], null format:[BUF_FMT_32_FLOAT] idxen offset:8
    c414007c 80900808 00000002  buffer_atomic_cond_sub_u32 v8, v2, s[4:7], null idxen th:TH_ATOMIC_RETURN
    c416800c 40800808 00000002  buffer_atomic_pk_add_bf16 v8, v2, s[4:7], s12 offen
"""
M0 = 125
MISSING = BASE + 4 * PAGE  # the page that is not mapped


def translate(frame: Frame, instruction: Instruction) -> bool:
    families = {
        "DS": (lds, lane_exchange, atomics),
        "SMEM": (scalar_memory,),
        "VOP3": (lane_exchange,),
        "MUBUF": (buffers, atomics),
        "MTBUF": (buffers,),
    }
    found = families.get(instruction.encoding, (global_memory, atomics))
    return any(family.translate(frame, instruction) for family in found)


@cache
def bench(lanes: int) -> Bench:
    modules = (tlb, global_memory, scalar_memory, lds, buffers, atomics, lane_exchange)
    listing = VECTOR + PRIVATE + SCALAR + RECORDS + LANES + ATOMICS + SHARED + BUFFERS
    listing += TRANSPOSING if lanes == 32 else ""
    return Bench(lanes, translate, library_of(*modules, lanes=lanes), listing, level=int(lanes == 32), arch="gfx1201")


def cases(*listings: str) -> pytest.MarkDecorator:
    """Each instruction of some listings, in both wave sizes."""
    lines = [line.strip().partition("  ")[2] for listing in listings for line in listing.strip().splitlines()]
    return pytest.mark.parametrize(("lanes", "line"), [(lanes, line) for line in lines for lanes in (32, 64)])


def set_address(wave: Wave, line: str, address: NDArray[np.uint64]) -> None:
    """64-bit addresses in v[2:3], or from s[4:5] on in v2."""
    offset = int(line.partition("offset:")[2] or 0)
    address = address - np.uint64(offset & FULL)
    if "s[4:5]" in line:
        wave.sgpr[4:6] = BASE & 0xFFFF_FFFF, BASE >> 32
        address = address - np.uint64(BASE)
    wave.vgpr[2], wave.vgpr[3] = address.astype(np.uint32), (address >> np.uint64(32)).astype(np.uint32)


@cases(VECTOR)
def test_offsets_of_vector_memory_are_signed(lanes: int, line: str) -> None:
    rng = np.random.default_rng(lanes)
    step = np.arange(lanes) * 16
    for start in (64, PAGE - 128, MISSING - BASE - 256):
        for mask in masks(rng, lanes)[:5]:
            wave = Wave.random(rng, lanes).set_exec(mask)
            wave.sgpr[M0] = int(rng.integers(0, 1 << 32))
            set_address(wave, line, (BASE + start + step).astype(np.uint64))
            bench(lanes).check(line, wave, (start, hex(mask)))


@cases(PRIVATE)
def test_offsets_of_private_memory_are_signed(lanes: int, line: str) -> None:
    rng = np.random.default_rng(lanes)
    for mask in masks(rng, lanes)[:4]:
        for largest in (SCRATCH_LANE_BYTES - 32, SCRATCH_LANE_BYTES + 8):
            wave = Wave.random(rng, lanes).set_exec(mask)
            wave.sgpr[4], wave.sgpr[M0] = 8, int(rng.integers(0, 256))
            wave.vgpr[2] = rng.integers(1, largest // 4, lanes) * 4
            bench(lanes).check(line, wave, hex(mask))


@pytest.mark.parametrize("mask", [FULL, 0, 0xFFFF_FFFE])
def test_a_transposing_load_wants_all_lanes(mask: int) -> None:
    rng = np.random.default_rng(3)
    line = TRANSPOSING.partition("  ")[2]
    wave = Wave.random(rng, 32).set_exec(mask)
    set_address(wave, line, (BASE + rng.permutation(64)[:32] * 16).astype(np.uint64))
    fault = bench(32).check(line, wave)
    assert (fault is None) == (mask == FULL)
    assert fault is None or fault.detail is Detail.INACTIVE_LANES


@cases(SCALAR)
def test_scalar_loads_of_every_size(lanes: int, line: str) -> None:
    rng = np.random.default_rng(lanes)
    for at in (256, 259, PAGE - 8, 4 * PAGE - 8, 4 * PAGE - 7, 4 * PAGE - 1, 4 * PAGE):
        wave = Wave.random(rng, lanes)
        base = BASE + at
        wave.sgpr[4:7] = base & 0xFFFF_FFFF, base >> 32, int(rng.integers(0, 64))
        bench(lanes).check(line, wave, at)


@cases(RECORDS)
def test_scalar_loads_give_zero_beyond_the_records(lanes: int, line: str) -> None:
    rng = np.random.default_rng(lanes)
    for records, stride in ((0, 0), (32, 0), (8, 4), (33, 0), (20, 0), (400, 0)):
        for at in (0, 5, 4 * PAGE - 31):
            wave = Wave.random(rng, lanes)
            wave.sgpr[12:15] = at, BASE >> 32 | stride << 16, records
            wave.sgpr[6] = int(rng.choice(np.array([0, 17, 30, 0xFFFF_FFFE], np.uint32)))
            bench(lanes).check(line, wave, (records, at))


@cases(LANES)
def test_lanes_reach_as_far_as_the_crossbar_does(lanes: int, line: str) -> None:
    rng = np.random.default_rng(lanes)
    for mask in masks(rng, lanes):
        assert bench(lanes).check(line, Wave.random(rng, lanes).set_exec(mask), hex(mask)) is None


def set_numbers(rng: np.random.Generator, wave: Wave, line: str) -> None:
    """Data near what memory holds; only extrema get NaNs, because the payload of a sum's is nobody's promise."""
    corners = [0, 0x8000_0000, 1, 2, 3, 0x3F80_BF80, 0x7F80_0000]
    if "num" in line:
        corners += [0x7FC0_0001, 0xFFC1_0002, 0x7FA0_0003, 0x7FF8_0000, 0xFFF0_0001]
    for rows in (wave.vgpr[8:], wave.lds.view(np.uint32), wave.arena.view(np.uint32)):
        floats = (rng.standard_normal(rows.shape) * 4).astype(np.float32).view(np.uint32) & np.uint32(0xFFFF_BFFF)
        rows[...] = np.where(
            rng.integers(0, 2, rows.shape), rng.choice(np.array(corners, np.uint32), rows.shape), floats
        )


@cases(ATOMICS, SHARED)
def test_new_atomics(lanes: int, line: str) -> None:
    rng = np.random.default_rng(len(line))
    for offsets in (rng.permutation(2 * lanes)[:lanes] * 8, rng.integers(0, 4, lanes) * 8, np.full(lanes, 16)):
        for mask in masks(rng, lanes)[:4]:
            wave = Wave.random(rng, lanes).set_exec(mask)
            set_numbers(rng, wave, line)
            if line.startswith("ds"):
                wave.vgpr[2] = offsets
            else:
                set_address(wave, line.partition(" th:")[0], (BASE + 64 + offsets).astype(np.uint64))
            assert bench(lanes).check(line, wave, hex(mask)) is None


@cases(ATOMICS[ATOMICS.index("ec") :])
def test_new_flat_atomics_in_every_space(lanes: int, line: str) -> None:
    rng = np.random.default_rng(len(line))
    for mask in masks(rng, lanes)[:4]:
        wave = Wave.random(rng, lanes).set_exec(mask)
        set_numbers(rng, wave, line)
        shared = SHARED_BASE + rng.integers(0, LDS_BYTES // 8, lanes) * 8
        own = PRIVATE_BASE + rng.integers(0, SCRATCH_LANE_BYTES // 4 - 2, lanes) * 4
        memory = BASE + 8 + rng.integers(0, 64, lanes) * 8
        where = np.choose(rng.integers(0, 3, lanes), [memory, shared, own]).astype(np.uint64)
        set_address(wave, line.partition(" th:")[0], where)
        assert bench(lanes).check(line, wave, hex(mask)) is None


@cases(BUFFERS)
def test_buffers_with_a_descriptor_in_any_register(lanes: int, line: str) -> None:
    rng = np.random.default_rng(len(line))
    for mask in masks(rng, lanes)[:4]:
        for stride, records in ((16, lanes - 3), (0, PAGE // 2)):
            wave = Wave.random(rng, lanes).set_exec(mask)
            set_numbers(rng, wave, line)
            format_number = 22 << 12 | 0xFAC  # BUF_FMT_32_FLOAT, components in their order
            bounds = (1 if stride else 3) << 28
            wave.sgpr[4:8] = BASE & 0xFFFF_FFFF, BASE >> 32 | stride << 16, records, bounds | format_number
            wave.sgpr[12] = 32
            index, offset = rng.permutation(lanes), rng.permutation(lanes) * 16
            if "idxen" in line and "offen" in line:
                wave.vgpr[2], wave.vgpr[3] = index, offset * 0 + (0 if stride else offset)
            else:
                wave.vgpr[2] = index if "idxen" in line else offset
            if "store" in line and "offen" not in line and not stride:
                continue  # every lane stores to the same place
            assert bench(lanes).check(line, wave, (hex(mask), stride)) is None
