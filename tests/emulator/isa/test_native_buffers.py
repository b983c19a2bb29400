"""Compiled buffer instructions do what the interpreter does, for every kind of descriptor.

Code is given as the words that llvm-mc 22.1.8 (-mcpu=gfx1100) makes of the assembly beside them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from native_bench import BASE, PAGE, Bench, Wave, library_of, masks
from numpy.typing import NDArray

from amdrv.emulator.isa.buffer_formats import FORMATS
from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.native import atomics, buffers, global_memory, lds, tlb
from amdrv.emulator.isa.native.builder import Builder
from amdrv.emulator.isa.native.frame import Exits, Frame, Shape
from amdrv.emulator.isa.native.layout import Detail

UNTYPED = """
    e0500000 80410802  buffer_load_b32 v8, v2, s[4:7], 0 offen
    e05c0010 0a410802  buffer_load_b128 v[8:11], v2, s[4:7], s10 offen offset:16
    e0580000 80410802  buffer_load_b96 v[8:10], v2, s[4:7], 0 offen
    e0540008 80010800  buffer_load_b64 v[8:9], off, s[4:7], 0 offset:8
    e0540000 0ac10802  buffer_load_b64 v[8:9], v[2:3], s[4:7], s10 idxen offen
    e0400000 80410802  buffer_load_u8 v8, v2, s[4:7], 0 offen
    e0440fff 80410802  buffer_load_i8 v8, v2, s[4:7], 0 offen offset:4095
    e0480000 80410802  buffer_load_u16 v8, v2, s[4:7], 0 offen
    e04c0000 80810802  buffer_load_i16 v8, v2, s[4:7], 0 idxen
    e0800000 80410802  buffer_load_d16_b16 v8, v2, s[4:7], 0 offen
    e0880000 80410802  buffer_load_d16_hi_i8 v8, v2, s[4:7], 0 offen
    e0500000 80610802  buffer_load_b32 v[8:9], v2, s[4:7], 0 offen tfe
    e0600000 80410802  buffer_store_b8 v8, v2, s[4:7], 0 offen
    e0640000 80410802  buffer_store_b16 v8, v2, s[4:7], 0 offen
    e0940000 80410802  buffer_store_d16_hi_b16 v8, v2, s[4:7], 0 offen
    e0680000 84c10802  buffer_store_b32 v8, v[2:3], s[4:7], 4 idxen offen
    e06c0000 80810802  buffer_store_b64 v[8:9], v2, s[4:7], 0 idxen
    e0700000 0a410802  buffer_store_b96 v[8:10], v2, s[4:7], s10 offen
    e0740000 80410802  buffer_store_b128 v[8:11], v2, s[4:7], 0 offen
    e0d44000 0ac10802  buffer_atomic_add_u32 v8, v[2:3], s[4:7], s10 idxen offen glc
    e0d40000 80410802  buffer_atomic_add_u32 v8, v2, s[4:7], 0 offen
    e1084008 80410802  buffer_atomic_cmpswap_b64 v[8:11], v2, s[4:7], 0 offen offset:8 glc
    e1584000 80810802  buffer_atomic_add_f32 v8, v2, s[4:7], 0 idxen glc
"""
TYPED = """
    e0000000 80810802  buffer_load_format_x v8, v2, s[4:7], 0 idxen
    e0040000 80810802  buffer_load_format_xy v[8:9], v2, s[4:7], 0 idxen
    e00c0000 80810802  buffer_load_format_xyzw v[8:11], v2, s[4:7], 0 idxen
    e00c0000 80a10802  buffer_load_format_xyzw v[8:12], v2, s[4:7], 0 idxen tfe
    e0200000 80810802  buffer_load_d16_format_x v8, v2, s[4:7], 0 idxen
    e0980000 80810802  buffer_load_d16_hi_format_x v8, v2, s[4:7], 0 idxen
    e0280000 80810802  buffer_load_d16_format_xyz v[8:9], v2, s[4:7], 0 idxen
    e02c0000 80810802  buffer_load_d16_format_xyzw v[8:9], v2, s[4:7], 0 idxen
    e0100000 80810802  buffer_store_format_x v8, v2, s[4:7], 0 idxen
    e0180000 80810802  buffer_store_format_xyz v[8:10], v2, s[4:7], 0 idxen
    e01c0000 80810802  buffer_store_format_xyzw v[8:11], v2, s[4:7], 0 idxen
    e0300000 80810802  buffer_store_d16_format_x v8, v2, s[4:7], 0 idxen
    e09c0000 80810802  buffer_store_d16_hi_format_x v8, v2, s[4:7], 0 idxen
    e0380000 80810802  buffer_store_d16_format_xyz v[8:9], v2, s[4:7], 0 idxen
    e03c0000 80810802  buffer_store_d16_format_xyzw v[8:9], v2, s[4:7], 0 idxen
    e8e88000 80410802  tbuffer_load_format_xy v[8:9], v2, s[4:7], 0 format:[BUF_FMT_16_16_FLOAT] offen
    e9518000 80410802  tbuffer_load_format_xyzw v[8:11], v2, s[4:7], 0 format:[BUF_FMT_8_8_8_8_UNORM] offen
    e8040000 80410802  tbuffer_load_d16_format_x v8, v2, s[4:7], 0 format:0 offen
    e90b8000 80410802  tbuffer_store_format_xyzw v[8:11], v2, s[4:7], 0 format:[BUF_FMT_10_10_10_2_SNORM] offen
    e8b20000 80410802  tbuffer_store_format_x v8, v2, s[4:7], 0 format:[BUF_FMT_32_FLOAT] offen
"""
VADDR, SCALAR = 2, 10
RAW = 3 << 28  # OOB_SELECT


def translate(frame: Frame, instruction: Instruction) -> bool:
    return buffers.translate(frame, instruction) or atomics.translate(frame, instruction)


@pytest.fixture(scope="module", params=[32, 64])
def bench(request: pytest.FixtureRequest) -> Bench:
    lanes = request.param
    library = library_of(tlb, global_memory, lds, buffers, atomics, lanes=lanes)
    return Bench(lanes, translate, library, UNTYPED + TYPED, level=int(lanes == 32))


def names(listing: str) -> list[str]:
    return [line.strip().partition("  ")[2] for line in listing.strip().splitlines()]


def describe(
    wave: Wave, *, records: int, stride: int = 0, swizzle: int = 0, index_stride: int = 0, word3: int = RAW
) -> None:
    """A descriptor of the first two pages in s[4:7]."""
    wave.sgpr[4] = BASE & 0xFFFF_FFFF
    wave.sgpr[5] = BASE >> 32 | stride << 16 | swizzle << 30
    wave.sgpr[6], wave.sgpr[7] = records, word3 | index_stride << 21
    wave.sgpr[SCALAR] = 32


def spread(wave: Wave, name: str, offset: NDArray[np.int64], index: NDArray[np.int64]) -> None:
    """The index and the offset in the registers where an instruction wants them."""
    operands = ([index] if "idxen" in name else []) + ([offset] if "offen" in name else [])
    for register, operand in enumerate(operands, start=VADDR):
        wave.vgpr[register] = operand.astype(np.uint32)


def element_bytes(name: str) -> int:
    digits = "".join(c for c in name.split()[0].rpartition("_")[2] if c.isdigit())
    return max(int(digits) // 8, 1) if digits else 4


Offsets = Callable[[np.random.Generator, int, int], NDArray[np.int64]]
PATTERNS: dict[str, Offsets] = {
    "contiguous": lambda rng, lanes, size: 64 + np.arange(lanes) * size,
    "uniform": lambda rng, lanes, size: np.full(lanes, 128),
    "over the end": lambda rng, lanes, size: PAGE - lanes * size // 2 + np.arange(lanes) * size,
    "masked as Triton does": lambda rng, lanes, size: np.where(np.arange(lanes) % 3, np.arange(lanes) * size, 1 << 31),
    "scattered": lambda rng, lanes, size: rng.permutation(PAGE // 16)[:lanes] * 16,
    "half out": lambda rng, lanes, size: PAGE - 8 + np.zeros(lanes, np.int64),
}


@pytest.mark.parametrize("name", names(UNTYPED))
def test_raw_buffer_agrees_with_the_interpreter(bench: Bench, name: str) -> None:
    rng = np.random.default_rng(len(name))
    for pattern, offsets in PATTERNS.items():
        for mask in masks(rng, bench.lanes)[:5]:
            wave = Wave.random(rng, bench.lanes).set_exec(mask)
            wave.vgpr[8:] &= 0x7F7F_FFFF  # no NaNs
            describe(wave, records=PAGE)
            spread(wave, name, offsets(rng, bench.lanes, element_bytes(name)), np.arange(bench.lanes))
            assert bench.check(name, wave, (pattern, hex(mask))) is None


@pytest.mark.parametrize("name", names(UNTYPED))
def test_structured_buffer_agrees_with_the_interpreter(bench: Bench, name: str) -> None:
    rng = np.random.default_rng(len(name))
    wide = "store" in name and element_bytes(name) > 4
    for case in range(24):
        wave = Wave.random(rng, bench.lanes).set_exec(masks(rng, bench.lanes)[case % 8])
        wave.vgpr[8:] &= 0x7F7F_FFFF
        stride = int(rng.choice([0, 16, 32, 48]))
        describe(
            wave,
            records=int(rng.integers(0, 96)),
            stride=stride,
            swizzle=int(rng.integers(3 if wide else 0, 4)) if case & 1 else 0,
            index_stride=int(rng.integers(0, 4)),
            word3=(case >> 1 & 3) << 28 | int(rng.integers(0, 2)) << 23,
        )
        # Lanes far enough apart that no element overlaps another in part.
        index, offset = rng.permutation(bench.lanes), np.full(bench.lanes, 16 * int(rng.integers(0, 3)))
        if not stride or "atomic" in name:
            offset = rng.permutation(bench.lanes) * 16
        spread(wave, name, offset, index)
        if "store" in name and not stride and "idxen" in name and "offen" not in name:
            continue  # every lane stores to the same place
        bench.check(name, wave, case, any_fault=True)  # some reach beyond what is mapped


@pytest.mark.parametrize("name", names(TYPED))
def test_every_format_agrees_with_the_interpreter(bench: Bench, name: str) -> None:
    rng = np.random.default_rng(len(name))
    for number in (0, *FORMATS) if name.startswith("buffer") else range(6):
        wave = Wave.random(rng, bench.lanes).set_exec(masks(rng, bench.lanes)[number % 8])
        if number % 2:
            wave.vgpr[8:] = (rng.standard_normal(wave.vgpr[8:].shape) * 300).astype(np.float32).view(np.uint32)
        if number % 3 == 1:
            wave.vgpr[8:] = rng.uniform(-1.2, 1.2, wave.vgpr[8:].shape).astype(np.float32).view(np.uint32)
        wave.vgpr[8, :4] = (0x7F80_0000, 0xFF80_0000, 0x7F80_0001, 0xFFC1_2345)
        select = int(rng.integers(0, 1 << 12)) if number % 4 == 3 else 0xFAC
        describe(wave, records=bench.lanes - 3, stride=16, word3=1 << 28 | number << 12 | select)
        index = rng.permutation(bench.lanes)
        spread(wave, name, index * 16, index)
        assert bench.check(name, wave, f"format {number} {FORMATS.get(number)}") is None


@pytest.mark.parametrize(
    ("name", "lane", "page"),
    [
        ("buffer_load_b32 v8, v2, s[4:7], 0 offen", 9, 4),
        ("buffer_store_b32 v8, v[2:3], s[4:7], 4 idxen offen", 17, 2),
        ("buffer_store_format_x v8, v2, s[4:7], 0 idxen", 3, 4),
        ("buffer_atomic_add_u32 v8, v2, s[4:7], 0 offen", 30, 2),
    ],
)
def test_faults_as_the_interpreter_does(bench: Bench, name: str, lane: int, page: int) -> None:
    wave = Wave.random(np.random.default_rng(1), bench.lanes)
    describe(wave, records=1 << 20, stride=16, word3=2 << 28 | 22 << 12 | 0xFAC)
    offset = np.arange(bench.lanes) * 16
    offset[lane] = page * PAGE
    spread(wave, name, offset, offset // 16 if "idxen offen" not in name else np.zeros(bench.lanes))
    fault = bench.check(name, wave)
    assert fault is not None
    assert (fault.detail, fault.lane, (fault.va or 0) // PAGE) == (Detail.TRANSLATION, lane, BASE // PAGE + page)


def test_loads_into_lds_are_refused() -> None:
    instruction = Decoder("gfx1100").decode([0xE000_0000 | 49 << 18, 0x8001_0000])
    assert instruction.mnemonic == "buffer_load_lds_b32"
    frame = Frame(Builder(32), Shape(32, 8), Exits(), full=True)
    assert not translate(frame, instruction)
