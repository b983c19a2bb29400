"""Registers that follow from a fault's lane and address. Words were assembled with llvm-mc 22."""

from __future__ import annotations

import numpy as np
import pytest

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import WaveRegisters
from amdrv.emulator.isa.fault_registers import reconstruct

VA = 0x1234_5678_9ABC_DEF0


def registers(words: str, lane: int | None, va: int | None) -> WaveRegisters:
    code = b"".join(int(word, 16).to_bytes(4, "little") for word in words.split())
    return reconstruct(Decoder("gfx1100").decode(code), lane, va)


def pair(values: np.ndarray) -> int:
    return int(values[1]) << 32 | int(values[0])


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ("dc561ff8 027c0004", VA + 8),  # global_load_b64 v[2:3], v[4:5], off offset:-8
        ("dc480fff 017c0004", VA - 4095),  # flat_load_u16 v1, v[4:5] offset:4095
    ],
)
def test_the_lanes_address_is_in_its_vector_registers(words: str, address: int) -> None:
    found = registers(words, 37, VA)
    assert pair(found.scalars[126:128]) == 1 << 37
    assert pair(found.vectors[4:6, 37]) == address
    assert np.count_nonzero(found.vectors) == 2


def test_with_a_scalar_base_the_address_is_there(words: str = "dc6a0010 00020604") -> None:
    found = registers(words, 3, VA)  # global_store_b32 v4, v6, s[2:3] offset:16
    assert pair(found.scalars[2:4]) == VA - 16
    assert not found.vectors.any()


def test_a_scalar_load_reads_its_base() -> None:
    found = registers("f4080201 0a1ffff0", None, VA)  # s_load_b128 s[8:11], s[2:3], s5 offset:-0x10
    assert pair(found.scalars[2:4]) == VA + 16


def test_what_has_no_address_has_an_active_lane_only() -> None:
    found = registers("bf900002", None, None)  # s_trap 2
    assert np.flatnonzero(found.scalars).tolist() == [126]


def test_private_memory_and_lds_are_reached_by_one_register() -> None:
    found = registers("dc510008 02fc0004", 5, 2 << 48 | 0x108)  # scratch_load_b32 v2, v4, off offset:8
    assert found.vectors[4, 5] == 0x100
    found = registers("dc510008 02040000", 5, 2 << 48 | 0x108)  # scratch_load_b32 v2, off, s4 offset:8
    assert found.scalars[4] == 0x100
    found = registers("d8800010 04000802", 5, 0x13)  # ds_add_rtn_u32 v4, v2, v8 offset:16
    assert found.vectors[2, 5] == 3


def test_a_buffer_is_named_by_its_descriptor() -> None:
    found = registers("e0500010 7d020100", 0, VA & (1 << 48) - 1)  # buffer_load_b32 v1, off, s[8:11], m0 offset:16
    assert pair(found.scalars[8:10]) == (VA & (1 << 48) - 1) - 16
