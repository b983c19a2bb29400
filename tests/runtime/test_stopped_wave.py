"""From a halted wave's registers to the lane and the address that went wrong. Words were assembled with llvm-mc 22."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.generation import generation_for
from amdrv.runtime.stopped_code import StoppedCode
from amdrv.runtime.stopped_wave import LDS, PRIVATE, LaneAccess, culprit

PAGE = 0x7000


@dataclass
class Wave:
    """Registers as a test wants them: v4 and v5 hold ``base`` and ``step`` for each lane, s2 and s3 ``scalar_base``."""

    base: int = 0
    step: int = 0
    scalar_base: int = 0
    exec_mask: int = 0xFFFFFFFF
    scalars: dict[int, int] = field(default_factory=dict)

    def scalar(self, code: int) -> int:
        if code in (2, 3):
            return self.scalar_base >> 32 * (code - 2) & 0xFFFFFFFF
        return self.scalars.get(code, 0)

    def vector(self, register: int, lane: int) -> int:
        assert self.exec_mask >> lane & 1
        return (self.base + self.step * lane) >> 32 * (register - 4) & 0xFFFFFFFF


def found(words: str, wave: Wave, page: int | None, lanes: int = 32, arch: str = "gfx1100") -> LaneAccess | None:
    code = b"".join(int(word, 16).to_bytes(4, "little") for word in words.split())
    instruction = Decoder(arch).decode(code)
    return culprit(StoppedCode("", instruction, generation_for(arch).address_offset(instruction)), wave, lanes, page)


LOAD_B64 = "dc561ff8 027c0004"  # global_load_b64 v[2:3], v[4:5], off offset:-8
STORE_SADDR = "dc6a0010 00020604"  # global_store_b32 v4, v6, s[2:3] offset:16
FLAT_U16 = "dc480fff 017c0004"  # flat_load_u16 v1, v[4:5] offset:4095
CMPSWAP_B64 = "dd0a0000 007c0604"  # global_atomic_cmpswap_b64 v[4:5], v[6:9], off
DS_ADD_B64 = "d9800008 00000604"  # ds_add_rtn_u64 v[0:1], v4, v[6:7] offset:8
S_LOAD_B128 = "f4080201 0a1ffff0"  # s_load_b128 s[8:11], s[2:3], s5 offset:-0x10


def test_the_first_lane_that_reaches_the_page_is_to_blame() -> None:
    wave = Wave(base=PAGE - 64 + 8, step=16)
    assert found(LOAD_B64, wave, PAGE) == LaneAccess(4, PAGE, 8, "read", False)
    wave.exec_mask = 0xFFFFFFE0
    assert found(LOAD_B64, wave, PAGE) == LaneAccess(5, PAGE + 16, 8, "read", False)
    wave.exec_mask = 0xF
    assert found(LOAD_B64, wave, PAGE) is None


def test_an_access_that_ends_in_the_page_reaches_it() -> None:
    assert found(LOAD_B64, Wave(base=PAGE + 4, step=1 << 20), PAGE) == LaneAccess(0, PAGE - 4, 8, "read", False)


def test_a_scalar_base_is_added_to_a_32_bit_offset() -> None:
    wave = Wave(base=0xFFFF_FF00, step=0x10, scalar_base=0x7F_0000_0000)
    page = 0x7F_FFFF_F000
    assert found(STORE_SADDR, wave, page) == LaneAccess(0, 0x7F_FFFF_FF10, 4, "write", False)


def test_an_atomic_of_lds_counts_from_the_start_of_lds() -> None:
    wave = Wave(base=0x100, step=4)
    assert found(DS_ADD_B64, wave, None) == LaneAccess(1, 0x10C, 8, "write", True, LDS)
    assert found(DS_ADD_B64, wave, 0) is None


def test_a_flat_offset_is_not_signed() -> None:
    assert found(FLAT_U16, Wave(base=PAGE), PAGE) == LaneAccess(0, PAGE + 4095, 2, "read", False)


def test_lanes_of_the_upper_half_count_in_wave64_only() -> None:
    wave = Wave(base=PAGE - 40 * 4096 + 8, step=4096, exec_mask=(1 << 64) - 1)
    assert found(LOAD_B64, wave, PAGE) is None
    blamed = found(LOAD_B64, wave, PAGE, lanes=64)
    assert blamed is not None and blamed.lane == 40


def test_a_scalar_load_has_an_address_and_no_lane() -> None:
    wave = Wave(scalar_base=0xFFF0_0000_0000_7000, scalars={5: 0x20})
    assert found(S_LOAD_B128, wave, PAGE) == LaneAccess(None, 0xFFF0_0000_0000_7010, 16, "read", False)


def test_a_hub_that_reports_48_bits_still_means_the_lane() -> None:
    wave = Wave(base=0x1234_0000_0000_7008)
    assert found(LOAD_B64, wave, PAGE) == LaneAccess(0, 0x1234_0000_0000_7000, 8, "read", False)


def test_without_a_page_the_first_misaligned_atomic_is_meant() -> None:
    blamed = found(CMPSWAP_B64, Wave(base=PAGE, step=12), None)
    assert blamed == LaneAccess(1, PAGE + 12, 8, "write", True)
    assert blamed.misaligned
    assert found(CMPSWAP_B64, Wave(base=PAGE, step=8), None) is None
    assert found(LOAD_B64, Wave(base=PAGE, step=12), None) is None  # loads need no alignment


def test_private_memory_is_blamed_by_its_offset() -> None:
    wave = Wave(base=0x10, step=0x400, scalars={33: 0x8000})
    blamed = found("dc511ff8 02fc0004", wave, 2 << 48 | 0x1000)  # scratch_load_b32 v2, v4, off offset:-8
    assert blamed == LaneAccess(4, 0x1008, 4, "read", False, PRIVATE)
    blamed = found("dc69010c 00212800", wave, 2 << 48 | 0x8000)  # scratch_store_b32 off, v40, s33 offset:268
    assert blamed == LaneAccess(0, 0x810C, 4, "write", False, PRIVATE)


def test_a_buffer_adds_its_base_index_and_offsets() -> None:
    # buffer_load_b64 v[0:1], v[4:5], s[8:11], 16 idxen offen offset:4
    wave = Wave(base=0x100 << 32, step=1, scalars={8: 0x7000_0000, 9: 0x10 << 16 | 0x12})
    at = 0x12_7000_0000 + 0x100 + 16 + 4
    blamed = found("e0540004 90c20004", wave, at + 16 * 31 & -4096)
    assert blamed == LaneAccess(0, at, 8, "read", False)
    wave.exec_mask = 1 << 9
    assert found("e0540004 90c20004", wave, at & -4096) == LaneAccess(9, at + 9 * 16, 8, "read", False)


def test_offsets_of_gfx12_have_24_bits() -> None:
    wave = Wave(base=PAGE + 0x2010)
    # global_load_b32 v1, v[4:5], off offset:-8192
    blamed = found("ee05007c 00000001 ffe00004", wave, PAGE, arch="gfx1201")
    assert blamed == LaneAccess(0, PAGE + 0x10, 4, "read", False)


def test_lanes_count_themselves_in_addtid() -> None:
    wave = Wave(scalar_base=PAGE - 40)
    blamed = found("dca20000 01020000", wave, PAGE)  # global_load_addtid_b32 v1, s[2:3]
    assert blamed == LaneAccess(10, PAGE, 4, "read", False)


def test_a_format_has_as_many_dwords_as_components() -> None:
    wave = Wave(base=0, step=16, scalars={8: PAGE - 28})
    blamed = found("e0080000 80420004", wave, PAGE)  # buffer_load_format_xyz v[0:2], v4, s[8:11], 0 offen
    assert blamed == LaneAccess(2, PAGE + 4, 12, "read", False)


@pytest.mark.parametrize("words", ["d8d80000 00000001", "bf810000"])
def test_what_cannot_be_told_from_registers_is_nobodys(words: str) -> None:
    assert found(words, Wave(), 0) is None
