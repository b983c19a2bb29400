"""Compiled loads and stores of LDS do what the interpreter does, whatever the addresses and EXEC.

Code is given as the words that llvm-mc 22.1.8 (-mcpu=gfx1100) makes of the assembly beside them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from native_bench import LDS_BYTES, Bench, Wave, library_of, masks
from numpy.typing import NDArray

from amdrv.emulator.isa.native import lds, tlb

LISTING = """
    d8d80000 01000002  ds_load_b32 v1, v2
    d8d80014 01000002  ds_load_b32 v1, v2 offset:20
    d9d80008 04000002  ds_load_b64 v[4:5], v2 offset:8
    dbf80000 04000002  ds_load_b96 v[4:6], v2
    dbfc0010 04000002  ds_load_b128 v[4:7], v2 offset:16
    dbfc0000 01000002  ds_load_b128 v[1:4], v2
    d8e80000 01000002  ds_load_u8 v1, v2
    d8e40003 01000002  ds_load_i8 v1, v2 offset:3
    d8f00000 01000002  ds_load_u16 v1, v2
    d8ec0002 01000002  ds_load_i16 v1, v2 offset:2
    da880000 01000002  ds_load_u8_d16 v1, v2
    da940000 01000002  ds_load_i8_d16_hi v1, v2
    da9c0000 01000002  ds_load_u16_d16_hi v1, v2
    d8dc0701 04000002  ds_load_2addr_b32 v[4:5], v2 offset0:1 offset1:7
    d9dc0102 04000002  ds_load_2addr_b64 v[4:7], v2 offset0:2 offset1:1
    d8e00100 04000002  ds_load_2addr_stride64_b32 v[4:5], v2 offset0:0 offset1:1
    d9e00100 04000002  ds_load_2addr_stride64_b64 v[4:7], v2 offset1:1
    dac40010 01000000  ds_load_addtid_b32 v1 offset:16
    d8780000 00000802  ds_store_b8 v2, v8
    d87c0004 00000802  ds_store_b16 v2, v8 offset:4
    d834000c 00000802  ds_store_b32 v2, v8 offset:12
    d9340000 00000802  ds_store_b64 v2, v[8:9]
    db780000 00000802  ds_store_b96 v2, v[8:10]
    db7c0000 00000802  ds_store_b128 v2, v[8:11]
    da800000 00000802  ds_store_b8_d16_hi v2, v8
    da840000 00000802  ds_store_b16_d16_hi v2, v8
    d8380103 00090802  ds_store_2addr_b32 v2, v8, v9 offset0:3 offset1:1
    d9382800 000a0802  ds_store_2addr_b64 v2, v[8:9], v[10:11] offset1:40
    d83c0100 00090802  ds_store_2addr_stride64_b32 v2, v8, v9 offset1:1
    dac00008 00000800  ds_store_addtid_b32 v8 offset:8
    d8b80300 04090802  ds_storexchg_2addr_rtn_b32 v[4:5], v2, v8, v9 offset1:3
    d9bc0100 040a0802  ds_storexchg_2addr_stride64_rtn_b64 v[4:7], v2, v[8:9], v[10:11] offset1:1
"""
ADDRESS = 2


@pytest.fixture(scope="module", params=[32, 64])
def bench(request: pytest.FixtureRequest) -> Bench:
    lanes = request.param
    return Bench(lanes, lds.translate, library_of(tlb, lds, lanes=lanes), LISTING, level=int(lanes == 32))


def size_of(name: str) -> int:
    """Bytes of one element."""
    kind = name.split()[0].removesuffix("_d16").removesuffix("_hi").removesuffix("_d16")
    return int(kind.rpartition("_")[2].lstrip("bui")) // 8


def address_patterns(rng: np.random.Generator, lanes: int, size: int) -> Iterator[tuple[str, NDArray[np.uint32]]]:
    """Ways in which lanes address LDS; partly overlapping elements of different lanes are left out, their order is
    nobody's promise.
    """
    lane = np.arange(lanes)
    groups = lane // 16
    somewhere = int(rng.integers(0, LDS_BYTES // 2))
    bases = rng.integers(0, 24, lanes // 16) * size * 2

    def u32(address: NDArray[np.int64]) -> NDArray[np.uint32]:
        return (address & 0xFFFF_FFFF).astype(np.uint32)

    yield "contiguous", u32(somewhere // 16 * 16 + lane * size)
    yield "unaligned contiguous", u32(somewhere + lane * size)
    yield "contiguous groups", u32(bases[groups] + lane % 16 * size)
    yield "the same group twice", u32(somewhere // 16 * 16 + lane % 16 * size)
    yield "uniform", u32(np.full(lanes, somewhere))
    yield "uniform groups", u32(bases[groups] + 3)
    yield "over the end", u32(LDS_BYTES - lanes * size // 2 + lane * size)
    yield "uniform at the end", u32(np.full(lanes, LDS_BYTES - size))
    yield "uniform over the end", u32(np.full(lanes, LDS_BYTES - size + 1))
    yield "up from zero", u32(lane * size - 4 * size)
    yield "far away", u32(0xFFFF_FFE0 + lane % 2 * 16)
    yield "scattered", u32(rng.integers(0, LDS_BYTES // size - 1, lanes) * size)
    yield "scattered, odd", u32(rng.integers(0, LDS_BYTES // 16, lanes) * 16 + 1)
    yield "partly beyond", u32(rng.integers(0, 2 * LDS_BYTES // size, lanes) * size)


@pytest.mark.parametrize("name", [line.strip().partition("  ")[2] for line in LISTING.strip().splitlines()])
def test_instruction_agrees_with_the_interpreter(bench: Bench, name: str) -> None:
    rng = np.random.default_rng(len(name))
    for pattern, address in address_patterns(rng, bench.lanes, size_of(name)):
        for mask in masks(rng, bench.lanes)[:5]:
            wave = Wave.random(rng, bench.lanes).set_exec(mask)
            wave.vgpr[ADDRESS] = address
            if "addtid" in name:
                wave.sgpr[125] = address[0]
            assert bench.check(name, wave, (pattern, f"{mask:#x}")) is None


def test_of_equal_addresses_the_highest_lane_is_stored(bench: Bench) -> None:
    wave = Wave.random(np.random.default_rng(1), bench.lanes)
    wave.vgpr[ADDRESS] = 64
    after, _ = bench.compiled("ds_store_b128 v2, v[8:11]", wave)
    assert after.lds[64:80].view(np.uint32).tolist() == wave.vgpr[8:12, -1].tolist()


def test_inactive_lanes_hide_an_address_that_breaks_the_pattern(bench: Bench) -> None:
    wave = Wave.random(np.random.default_rng(2), bench.lanes).set_exec(0xFFFF_FFFF_FFFF_FFEF)
    wave.vgpr[ADDRESS] = 4 * np.arange(bench.lanes)
    wave.vgpr[ADDRESS, 4] = 0xDEAD_BEEF
    bench.check("ds_load_b32 v1, v2", wave)
    bench.check("ds_store_b32 v2, v8 offset:12", wave)
