"""Rules of the RDNA3 ISA manual's text that its pseudo code leaves out, on both engines.

Code is given as the words that llvm-mc 22.1.8 (-mcpu=gfx1100) makes of the assembly beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

LANE = np.arange(32, dtype=np.uint32)
SIGNALLING, QUIETED, QUIET = 0x7F800001, 0x7FC00001, 0x7FC00007
MINUS_ZERO, ONE, TWO = 0x80000000, 0x3F800000, 0x40000000


@pytest.mark.parametrize("flag", [0, 1])
def test_a_scalar_instruction_with_a_null_destination_sets_scc(bench: Any, flag: int) -> None:
    """3.4.4 (RDNA4: 3.4.5): the instruction executes, only its destination is not written; 6.2 says otherwise."""
    compare = "bf068080  s_cmp_eq_u32 0, 0" if flag else "bf078080  s_cmp_lg_u32 0, 0"
    listing = f"""
    {compare}
    807c0504  s_add_u32 null, s4, s5
    980e8081  s_cselect_b32 s14, 1, 0
    bf068080  s_cmp_eq_u32 0, 0
    807c7c7c  s_add_u32 null, null, null
    820f8080  s_addc_u32 s15, 0, 0
    """
    for second, carry in ((1, 0), (0xFFFFFFFF, 1)):
        _, scalars = bench.run_wave(listing, vgprs={}, read=[], read_sgprs=[14, 15], sgprs={4: 1, 5: second})
        assert scalars == [carry, 0]


def test_every_field_of_mode_can_be_written(bench: Any) -> None:
    """3.4 and 3.4.2: read and write, the masks of exceptions that nobody takes here included."""
    listing = """
    b980f801 ffffffff  s_setreg_imm32_b32 hwreg(HW_REG_MODE), -1
    b884f801           s_getreg_b32 s4, hwreg(HW_REG_MODE)
    """
    _, (mode,) = bench.run_wave(listing, vgprs={}, read=[], read_sgprs=[4])
    assert mode == 0x08BF_FFFF


def test_the_zero_of_bound_ctrl_goes_through_the_modifiers(bench: Any) -> None:
    """7.7.1; LLVM folds the negation of a moved value into the DPP form."""
    listing = "200604fa ff191101  v_max_f32_dpp v3, -v1, v2 row_shr:1 row_mask:0xf bank_mask:0xf bound_ctrl:1"
    rows = {1: np.full(32, ONE, np.uint32), 2: np.full(32, 0xFF800000, np.uint32)}
    (v3,), _ = bench.run_wave(listing, vgprs=rows, read=[3])
    np.testing.assert_array_equal(v3, np.where(LANE % 16 == 0, MINUS_ZERO, ONE | MINUS_ZERO))


@pytest.mark.parametrize(
    ("memory", "data", "least", "greatest"),
    [
        (ONE, TWO, ONE, TWO),
        (MINUS_ZERO, 0, MINUS_ZERO, 0),
        (0, MINUS_ZERO, MINUS_ZERO, 0),
        (QUIET, ONE, ONE, ONE),
        (ONE, QUIET, ONE, ONE),
        (SIGNALLING, ONE, QUIETED, QUIETED),
        (ONE, SIGNALLING, QUIETED, QUIETED),
        (SIGNALLING, QUIET, QUIETED, QUIETED),
    ],
)
def test_atomic_extrema_prefer_numbers_and_quiet_signalling_nans(
    bench: Any, memory: int, data: int, least: int, greatest: int
) -> None:
    """13.3, "NaN Handling"."""
    for words, want in (("d8c80000 04000201", least), ("d8cc0000 04000201", greatest)):
        listing = f"""
        d8340000 00000301  ds_store_b32 v1, v3
        {words}  ds_min_rtn_f32 or ds_max_rtn_f32 v4, v1, v2
        d8d80000 05000001  ds_load_b32 v5, v1
        bf89fc07           s_waitcnt lgkmcnt(0)
        """
        rows = {1: LANE * 4, 2: np.full(32, data, np.uint32), 3: np.full(32, memory, np.uint32)}
        (v4, v5), _ = bench.run_wave(listing, vgprs=rows, read=[4, 5], lds_bytes=512)
        np.testing.assert_array_equal(v4, memory)
        np.testing.assert_array_equal(v5, want)


TINY, HALF_LEAST, LEAST = 0x00000001, 0x00400000, 0x00800000  # two denormals and the smallest normal number
ADD, MINIMUM, EXCHANGE = "d9e40000 04000201", "d8c80000 04000201", "d8c40000 04060201"


@pytest.mark.parametrize(
    ("kept", "words", "memory", "data", "want"),
    [
        (True, ADD, HALF_LEAST, HALF_LEAST, LEAST),
        (False, ADD, HALF_LEAST, HALF_LEAST, 0),
        (False, ADD, LEAST, LEAST | HALF_LEAST | 1 << 31, 1 << 31),
        (True, MINIMUM, HALF_LEAST, TINY, TINY),
        (False, MINIMUM, HALF_LEAST, TINY, HALF_LEAST),  # equal: the old one stays, bit for bit
        (False, MINIMUM, TINY, 0xBF800000, 0xBF800000),
        (True, EXCHANGE, HALF_LEAST, ONE, HALF_LEAST),  # the comparand is a zero
        (False, EXCHANGE, HALF_LEAST, ONE, ONE),
        (False, EXCHANGE, TWO, ONE, TWO),
    ],
)
def test_float_atomics_of_lds_follow_the_denormal_mode(
    bench: Any, kept: bool, words: str, memory: int, data: int, want: int
) -> None:
    """ROCm rocjitsu, amdisa profile (scalar_atomic_denorm_modes)."""
    listing = f"""
    bf92000{"f" if kept else "0"}           s_denorm_mode
    d8340000 00000301  ds_store_b32 v1, v3
    {words}  ds_add_rtn_f32 v4, v1, v2 or ds_min_rtn_f32 v4, v1, v2 or ds_cmpstore_rtn_f32 v4, v1, v2, v6
    d8d80000 05000001  ds_load_b32 v5, v1
    bf890007           s_waitcnt vmcnt(0) lgkmcnt(0)
    """
    rows = {1: LANE * 4, 2: np.full(32, data, np.uint32), 3: np.full(32, memory, np.uint32), 6: np.zeros(32, np.uint32)}
    (v4, v5), _ = bench.run_wave(listing, vgprs=rows, read=[4, 5], lds_bytes=512)
    np.testing.assert_array_equal(v4, memory)
    np.testing.assert_array_equal(v5, want)


@pytest.mark.parametrize("denormals", ["0", "f"])
def test_a_float_sum_in_memory_flushes_what_goes_in_and_keeps_what_comes_out(bench: Any, denormals: str) -> None:
    listing = f"""
    bf92000{denormals}           s_denorm_mode
    dd5a4000 04040201  global_atomic_add_f32 v4, v1, v2, s[4:5] glc
    bc7c0000           s_waitcnt_vscnt null, 0x0
    dc520000 05040001  global_load_b32 v5, v1, s[4:5]
    bf890007           s_waitcnt vmcnt(0) lgkmcnt(0)
    """
    before = np.array([HALF_LEAST, LEAST, ONE] + [TWO] * 29, np.uint32)
    data = np.array([HALF_LEAST, LEAST | HALF_LEAST | 1 << 31, TINY] + [ONE] * 29, np.uint32)
    va = bench.array(before)
    sgprs = {4: va & 0xFFFFFFFF, 5: va >> 32}
    (v4, v5), _ = bench.run_wave(listing, vgprs={1: LANE * 4, 2: data}, read=[4, 5], sgprs=sgprs)
    np.testing.assert_array_equal(v4, before)
    assert v5[:4].tolist() == [0, HALF_LEAST | 1 << 31, ONE, 0x40400000]


def test_a_component_that_selects_one_is_one_beyond_the_bounds(bench: Any) -> None:
    """9.4.1, note 1 of "Range checking"."""
    listing = """
    e0040000 80410201  buffer_load_format_xy v[2:3], v1, s[4:7], 0 offen
    bf8903f7           s_waitcnt vmcnt(0)
    """
    va = bench.array(np.full(32, TWO, np.uint32))
    x_and_one = 3 << 28 | 22 << 12 | 4 | 1 << 3  # OOB_SELECT raw, 32_FLOAT, DST_SEL X and 1
    sgprs = {4: va & 0xFFFFFFFF, 5: va >> 32, 6: 16 * 4, 7: x_and_one}
    (v2, v3), _ = bench.run_wave(listing, vgprs={1: LANE * 4}, read=[2, 3], sgprs=sgprs)
    np.testing.assert_array_equal(v2, np.where(LANE < 16, TWO, 0))
    np.testing.assert_array_equal(v3, ONE)


def test_sums_of_products_round_to_nearest_in_every_mode(bench: Any) -> None:
    """ROCm rocjitsu, shared/gfx11_dot2.h: the sum is 2 + 2**-25."""
    listing = """
    bf910005           s_round_mode 0x5
    cc134003 1c120501  v_dot2_f32_f16 v3, v1, v2, v4
    060a0d04           v_add_f32_e32 v5, v4, v6
    bf910000           s_round_mode 0x0
    """
    rows = {1: 0x10003C00, 2: 0x04003C00, 4: ONE, 6: 0x33000000}
    wanted = {3: TWO, 5: ONE + 1}  # an ordinary sum is rounded up
    found, _ = bench.run_wave(listing, vgprs={n: np.full(32, v, np.uint32) for n, v in rows.items()}, read=[3, 5])
    assert [int(row[0]) for row in found] == list(wanted.values())


# What is handed on of a NaN is its sign and payload (ROCm rocjitsu, shared/fp_mode.h and transcendental.h).
NANS = np.array([0x7F800001, 0xFF812345, 0x7FC00007, 0xFFC12345] * 8, np.uint32)


def test_a_nan_keeps_its_sign_and_payload_and_becomes_quiet(bench: Any) -> None:
    listing = """
    7e044f01           v_log_f32_e32 v2, v1
    7e064b01           v_exp_f32_e32 v3, v1
    7e086b01           v_sin_f32_e32 v4, v1
    7e0a6d01           v_cos_f32_e32 v5, v1
    7e0c5501           v_rcp_f32_e32 v6, v1
    7e0e5d01           v_rsq_f32_e32 v7, v1
    7e106701           v_sqrt_f32_e32 v8, v1
    081202f2           v_sub_f32_e32 v9, 1.0, v1
    bf910005           s_round_mode 0x5
    081402f2           v_sub_f32_e32 v10, 1.0, v1
    """
    found, _ = bench.run_wave(listing, vgprs={1: NANS}, read=list(range(2, 11)))
    for row in found:
        np.testing.assert_array_equal(row, NANS | 0x400000)


def test_a_half_nan_keeps_its_sign_and_payload_and_becomes_quiet(bench: Any) -> None:
    listing = """
    7e04af01           v_log_f16_e32 v2, v1
    7e06c101           v_sin_f16_e32 v3, v1
    7e08c301           v_cos_f16_e32 v4, v1
    660a02f2           v_sub_f16_e32 v5, 1.0, v1
    """
    nans = np.array([0x7C01, 0xFD23, 0x7E07, 0xFF45] * 8, np.uint32)
    found, _ = bench.run_wave(listing, vgprs={1: nans}, read=[2, 3, 4, 5])
    for row in found:
        np.testing.assert_array_equal(row & 0xFFFF, nans | 0x200)


PLAIN, BY_INDEX, BY_OFFSET = "e0500004 80010200", "e0500004 80810201", "e0500004 80410201"
ADD_THREAD, STRUCTURED, UNCHECKED, RAW = 1 << 23, 0 << 28, 2 << 28, 3 << 28


@pytest.mark.parametrize(
    ("words", "word1", "word3", "records", "want"),
    [
        # The thread's number stands in for an index that the instruction does not give, and is not added to one.
        (PLAIN, 8 << 16, ADD_THREAD | UNCHECKED, 1, 2 * LANE + 1),
        (BY_INDEX, 8 << 16, ADD_THREAD | UNCHECKED, 1, 2 * (31 - LANE) + 1),
        # Four-byte elements of eight neighbours lie together, but only if there is an index.
        (PLAIN, 8 << 16 | 1 << 30, ADD_THREAD | UNCHECKED, 1, LANE // 8 * 16 + 8 + LANE % 8),
        (PLAIN, 8 << 16 | 2 << 30, ADD_THREAD | UNCHECKED, 1, LANE // 8 * 16 + 8 + LANE % 8),
        (PLAIN, 8 << 16 | 1 << 30, UNCHECKED, 1, LANE * 0 + 1),
        # Offsets add up in 32 bits.
        (BY_OFFSET, 0, UNCHECKED, 1, np.maximum(LANE, 1) - 1),
        # Without a stride nothing is in a structure.
        (BY_OFFSET, 0, STRUCTURED, 1 << 20, LANE * 0),
        (BY_OFFSET, 0, RAW, 64, np.where(LANE < 17, np.maximum(LANE, 1) - 1, 0)),
    ],
)
def test_buffer_addresses_are_those_of_silicon(
    bench: Any, words: str, word1: int, word3: int, records: int, want: np.ndarray
) -> None:
    """ROCm rocjitsu, shared/addr_calc_buffer.h: what it says of gfx11."""
    va = bench.array(np.arange(1024, dtype=np.uint32))
    listing = f"{words}  buffer_load_b32 v2, off or v1, s[4:7], 0 offset:4\nbf8903f7  s_waitcnt vmcnt(0)"
    operand = 31 - LANE if words == BY_INDEX else np.where(LANE, 4 * LANE - 8, 0xFFFFFFFC).astype(np.uint32)
    sgprs = {4: va & 0xFFFFFFFF, 5: va >> 32 | word1, 6: records, 7: word3}
    (v2,), _ = bench.run_wave(listing, vgprs={1: operand}, read=[2], sgprs=sgprs)
    np.testing.assert_array_equal(v2, want)


def test_moves_take_absolute_value_and_sign(bench: Any) -> None:
    """7.2.2.1: input modifiers are supported for V_MOV_B32 and V_MOV_B16."""
    listing = """
    d5810002 20000101  v_mov_b32 v2, -v1
    d5810103 00000101  v_mov_b32 v3, |v1|
    d59c4104 20000101  v_mov_b16 v4.h, -|v1.l|
    """
    rows = {1: np.full(32, 0xBF80BC00, np.uint32), 4: np.full(32, 0x12345678, np.uint32)}
    (v2, v3, v4), _ = bench.run_wave(listing, vgprs=rows, read=[2, 3, 4])
    np.testing.assert_array_equal(v2, 0x3F80BC00)
    np.testing.assert_array_equal(v3, 0x3F80BC00)
    np.testing.assert_array_equal(v4, 0xBC005678)
