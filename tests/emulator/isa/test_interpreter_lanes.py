"""Instructions that move values between lanes and registers, one wave at a time, against the rules written out here.

Code is given as the words that llvm-mc 22.1.8 (-mcpu=gfx1100) makes of the assembly beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

LANE = np.arange(32, dtype=np.uint32)
VALUES = LANE * 3 + 100
OLD = np.full(32, 7, np.uint32)
EVEN = 0x55555555


def one(bench: Any, listing: str, **kwargs: Any) -> np.ndarray[Any, Any]:
    """Run with v1 = VALUES and v2 = OLD; the resulting v2."""
    (result,), _ = bench.run_wave(listing, vgprs={1: VALUES, 2: OLD}, read=[2], **kwargs)
    return result


def row_shift(amount: int, absent: int) -> np.ndarray[Any, Any]:
    """Lane i of a row of 16 gets lane i + amount, or ``absent`` where there is none."""
    place = LANE.astype(int) % 16 + amount
    source = np.clip(LANE.astype(int) + amount, 0, 31)
    return np.where((place >= 0) & (place < 16), VALUES[source], absent)


@pytest.mark.parametrize(
    ("listing", "source"),
    [
        (
            """
    7e0402fa ff008701  v_mov_b32_dpp v2, v1 quad_perm:[3,1,0,2] row_mask:0xf bank_mask:0xf
    """,
            [lane & ~3 | (3, 1, 0, 2)[lane & 3] for lane in range(32)],
        ),
        (
            """
    7e0402fa ff012501  v_mov_b32_dpp v2, v1 row_ror:5 row_mask:0xf bank_mask:0xf
    """,
            [lane & 16 | (lane - 5) & 15 for lane in range(32)],
        ),
        (
            """
    7e0402fa ff014001  v_mov_b32_dpp v2, v1 row_mirror row_mask:0xf bank_mask:0xf
    """,
            [lane ^ 15 for lane in range(32)],
        ),
        (
            """
    7e0402fa ff014101  v_mov_b32_dpp v2, v1 row_half_mirror row_mask:0xf bank_mask:0xf
    """,
            [lane ^ 7 for lane in range(32)],
        ),
        (
            """
    7e0402fa ff015901  v_mov_b32_dpp v2, v1 row_share:9 row_mask:0xf bank_mask:0xf
    """,
            [lane & 16 | 9 for lane in range(32)],
        ),
        (
            """
    7e0402fa ff016601  v_mov_b32_dpp v2, v1 row_xmask:6 row_mask:0xf bank_mask:0xf
    """,
            [lane ^ 6 for lane in range(32)],
        ),
        (
            """
    7e0402e9 71538701  v_mov_b32_dpp v2, v1 dpp8:[7,0,6,1,5,2,4,3]
    """,
            [lane & ~7 | (7, 0, 6, 1, 5, 2, 4, 3)[lane & 7] for lane in range(32)],
        ),
        (
            """
    d65b0002 00140901  v_permlane16_b32 v2, v1, s4, s5
    """,
            [lane & 16 | 15 - (lane & 15) for lane in range(32)],
        ),
        (
            """
    d65c0002 00140901  v_permlanex16_b32 v2, v1, s4, s5
    """,
            [(lane & 16 ^ 16) | 15 - (lane & 15) for lane in range(32)],
        ),
        (
            """
    d8d4804e 02000001  ds_swizzle_b32 v2, v1 offset:swizzle(QUAD_PERM,2,3,0,1)
    bf89fc07           s_waitcnt lgkmcnt(0)
    """,
            [lane ^ 2 for lane in range(32)],
        ),
        (
            """
    d8d4401f 02000001  ds_swizzle_b32 v2, v1 offset:swizzle(SWAP,16)
    bf89fc07           s_waitcnt lgkmcnt(0)
    """,
            [lane ^ 16 for lane in range(32)],
        ),
        (
            """
    d8d40078 02000001  ds_swizzle_b32 v2, v1 offset:swizzle(BROADCAST,8,3)
    bf89fc07           s_waitcnt lgkmcnt(0)
    """,
            [lane & ~7 | 3 for lane in range(32)],
        ),
        (
            """
    d8d4c060 02000001  ds_swizzle_b32 v2, v1 offset:swizzle(ROTATE,0,3)
    bf89fc07           s_waitcnt lgkmcnt(0)
    """,
            [(lane + 3) & 31 for lane in range(32)],
        ),
        (
            """
    d8d4e000 02000001  ds_swizzle_b32 v2, v1 offset:swizzle(FFT,0)
    bf89fc07           s_waitcnt lgkmcnt(0)
    """,
            [int(f"{lane:05b}"[::-1], 2) for lane in range(32)],
        ),
    ],
)
def test_every_lane_reads_the_lane_that_the_control_names(bench: Any, listing: str, source: list[int]) -> None:
    result = one(bench, listing, sgprs={4: 0x89ABCDEF, 5: 0x01234567})
    np.testing.assert_array_equal(result, VALUES[source])


def test_dpp_shift_without_bound_control_leaves_the_row_end_alone(bench: Any) -> None:
    listing = """
    7e0402fa ff010301  v_mov_b32_dpp v2, v1 row_shl:3 row_mask:0xf bank_mask:0xf
    """
    np.testing.assert_array_equal(one(bench, listing), row_shift(3, 7))


def test_dpp_shift_with_bound_control_brings_in_zeroes(bench: Any) -> None:
    listing = """
    7e0402fa ff091201  v_mov_b32_dpp v2, v1 row_shr:2 row_mask:0xf bank_mask:0xf bound_ctrl:1
    """
    np.testing.assert_array_equal(one(bench, listing), row_shift(-2, 0))


def test_dpp_masks_disable_rows_and_banks(bench: Any) -> None:
    listing = """
    7e0402fa 2500e401  v_mov_b32_dpp v2, v1 quad_perm:[0,1,2,3] row_mask:0x2 bank_mask:0x5
    """
    enabled = (LANE >= 16) & (LANE // 4 % 2 == 0)
    np.testing.assert_array_equal(one(bench, listing), np.where(enabled, VALUES, OLD))


def test_dpp_does_not_read_inactive_lanes_unless_told_to(bench: Any) -> None:
    plain = """
    7e0402fa ff016101  v_mov_b32_dpp v2, v1 row_xmask:1 row_mask:0xf bank_mask:0xf
    """
    zero = """
    7e0402fa ff096101  v_mov_b32_dpp v2, v1 row_xmask:1 row_mask:0xf bank_mask:0xf bound_ctrl:1
    """
    fetching = """
    7e0402fa ff056101  v_mov_b32_dpp v2, v1 row_xmask:1 row_mask:0xf bank_mask:0xf fi:1
    """
    even = LANE % 2 == 0
    np.testing.assert_array_equal(one(bench, plain, exec_mask=EVEN), OLD)
    np.testing.assert_array_equal(one(bench, zero, exec_mask=EVEN), np.where(even, 0, OLD))
    np.testing.assert_array_equal(one(bench, fetching, exec_mask=EVEN), np.where(even, VALUES[LANE ^ 1], OLD))


def test_dpp_applies_to_the_first_source_only(bench: Any) -> None:
    listing = """
    4c0404fa ff015001  v_sub_nc_u32_dpp v2, v1, v2 row_share:0 row_mask:0xf bank_mask:0xf
    """
    np.testing.assert_array_equal(one(bench, listing), VALUES[LANE & 16] - 7)


def test_a_compare_with_dpp_gives_zero_for_disabled_lanes(bench: Any) -> None:
    listing = """
    beea00c1           s_mov_b32 vcc_lo, -1
    7c9804fa 1f00e401  v_cmp_gt_u32 vcc_lo, v1, v2 quad_perm:[0,1,2,3] row_mask:0x1 bank_mask:0xf
    be86006a           s_mov_b32 s6, vcc_lo
    """
    _, (mask,) = bench.run_wave(listing, vgprs={1: VALUES, 2: OLD}, read=[], read_sgprs=[6])
    assert mask == 0x0000FFFF


def test_permlane_takes_zero_from_inactive_lanes_with_bound_control(bench: Any) -> None:
    kept = """
    d65b0002 00140901  v_permlane16_b32 v2, v1, s4, s5
    """
    zero = """
    d65b1002 00140901  v_permlane16_b32 v2, v1, s4, s5 op_sel:[0,1]
    """
    fetching = """
    d65b0802 00140901  v_permlane16_b32 v2, v1, s4, s5 op_sel:[1,0]
    """
    odd_neighbour = np.where(LANE % 2 == 0, VALUES[LANE ^ 1], OLD)
    swapped = {4: 0x67452301, 5: 0xEFCDAB89}  # lane i reads lane i ^ 1
    np.testing.assert_array_equal(one(bench, kept, sgprs=swapped, exec_mask=EVEN), OLD)
    zeroed = np.where(LANE % 2 == 0, 0, OLD)
    np.testing.assert_array_equal(one(bench, zero, sgprs=swapped, exec_mask=EVEN), zeroed)
    np.testing.assert_array_equal(one(bench, fetching, sgprs=swapped, exec_mask=EVEN), odd_neighbour)


def test_permlane64_exchanges_the_halves_of_a_wave64(bench: Any) -> None:
    listing = """
    7e04cf01  v_permlane64_b32 v2, v1
    """
    values = np.arange(64, dtype=np.uint32) + 5
    (result,), _ = bench.run_wave(listing, vgprs={1: values, 2: values}, read=[2], lanes=64)
    np.testing.assert_array_equal(result, values[np.arange(64) ^ 32])


def test_permutes_of_a_wave64_stay_within_their_half(bench: Any) -> None:
    listing = """
    dacc0000 02000103  ds_bpermute_b32 v2, v3, v1
    bf89fc07           s_waitcnt lgkmcnt(0)
    """
    lane = np.arange(64, dtype=np.uint32)
    (result,), _ = bench.run_wave(listing, vgprs={1: lane * 7, 3: lane * 8}, read=[2], lanes=64)
    np.testing.assert_array_equal(result, (lane & 32 | lane * 2 & 31) * 7)


def test_bpermute_reads_zero_from_inactive_lanes(bench: Any) -> None:
    listing = """
    dacc0004 02000103  ds_bpermute_b32 v2, v3, v1 offset:4
    bf89fc07           s_waitcnt lgkmcnt(0)
    """
    (result,), _ = bench.run_wave(listing, vgprs={1: VALUES, 2: OLD, 3: LANE * 4}, read=[2], exec_mask=0x0000FFFF)
    source = (LANE + 1) & 31
    expected = np.where(LANE < 16, np.where(source < 16, VALUES[source], 0), OLD)
    np.testing.assert_array_equal(result, expected)


def test_permute_sends_and_the_highest_lane_wins(bench: Any) -> None:
    listing = """
    dac80000 02000103  ds_permute_b32 v2, v3, v1
    bf89fc07           s_waitcnt lgkmcnt(0)
    """
    (result,), _ = bench.run_wave(listing, vgprs={1: VALUES, 2: OLD, 3: LANE // 2 * 4}, read=[2])
    expected = np.where(LANE < 16, VALUES[np.minimum(LANE * 2 + 1, 31)], 0)
    np.testing.assert_array_equal(result, expected)


def test_lane_reads_and_writes_go_by_number_and_ignore_exec(bench: Any) -> None:
    listing = """
    d7600006 00014b01  v_readlane_b32 s6, v1, 37
    d7600007 00000901  v_readlane_b32 s7, v1, s4
    d7610002 00010605  v_writelane_b32 v2, s5, 3
    7e100501           v_readfirstlane_b32 s8, v1
    befe0080           s_mov_b32 exec_lo, 0
    7e120501           v_readfirstlane_b32 s9, v1
    """
    (row,), scalars = bench.run_wave(
        listing,
        vgprs={1: VALUES, 2: OLD},
        read=[2],
        read_sgprs=[6, 7, 8, 9],
        sgprs={4: 30, 5: 99},
        exec_mask=0xFFFFFF00,
    )
    assert scalars == [VALUES[5], VALUES[30], VALUES[8], VALUES[0]]
    np.testing.assert_array_equal(row, np.where(LANE == 3, 99, OLD))


def test_compares_give_zero_for_inactive_lanes_and_cmpx_writes_exec(bench: Any) -> None:
    listing = """
    be8700c1           s_mov_b32 s7, -1
    d44b0006 00020302  v_cmp_le_u32_e64 s6, v2, v1
    d4c9007e 00000901  v_cmpx_lt_u32_e64 v1, s4
    be88007e           s_mov_b32 s8, exec_lo
    7e040281           v_mov_b32_e32 v2, 1
    """
    (row,), scalars = bench.run_wave(
        listing, vgprs={1: VALUES, 2: OLD}, read=[2], read_sgprs=[6, 7, 8], sgprs={4: 112}, exec_mask=EVEN
    )
    assert scalars == [EVEN, 0xFFFFFFFF, 0b0101]
    np.testing.assert_array_equal(row, np.where(np.isin(LANE, (0, 2)), 1, OLD))


def test_a_compare_of_scalars_fills_all_active_lanes(bench: Any) -> None:
    listing = """
    d44a0006 00000804  v_cmp_eq_u32_e64 s6, s4, s4
    """
    _, (mask,) = bench.run_wave(listing, vgprs={}, read=[], read_sgprs=[6], exec_mask=0x8000_0001)
    assert mask == 0x8000_0001


def test_relative_moves_add_m0_to_the_register_number(bench: Any) -> None:
    listing = """
    befd0082           s_mov_b32 m0, 2
    7e088701           v_movrels_b32_e32 v4, v1
    7e0a8501           v_movreld_b32_e32 v5, v1
    befd00ff 00010002  s_mov_b32 m0, 0x10002
    7e0a9101           v_movrelsd_2_b32_e32 v5, v1
    befd0081           s_mov_b32 m0, 1
    be884004           s_movrels_b32 s8, s4
    be884304           s_movreld_b64 s[8:9], s[4:5]
    """
    rows = {register: LANE + 100 * register for register in range(1, 8)}
    (v4, v6, v7), scalars = bench.run_wave(
        listing, vgprs=rows, read=[4, 6, 7], read_sgprs=[8, 9, 10], sgprs={4: 44, 5: 55}
    )
    np.testing.assert_array_equal(v4, rows[3])
    np.testing.assert_array_equal(v6, rows[3])
    np.testing.assert_array_equal(v7, rows[1])
    assert scalars == [55, 44, 55]


def test_relative_moves_exchange_lanes_by_dpp(bench: Any) -> None:
    # The register is picked first, then DPP moves its lanes: RDNA3 ISA manual, tables of opcodes that have DPP.
    listing = """
    befd0082           s_mov_b32 m0, 2
    7e0886fa ff00b101  v_movrels_b32_dpp v4, v1 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
    7e0a84fa ff011101  v_movreld_b32_dpp v5, v1 row_shr:1 row_mask:0xf bank_mask:0xf
    """
    rows = {register: LANE + 100 * register for register in range(1, 8)}
    (v4, v7), _ = bench.run_wave(listing, vgprs=rows, read=[4, 7])
    np.testing.assert_array_equal(v4, rows[3][LANE ^ 1])
    np.testing.assert_array_equal(v7, np.where(LANE % 16 == 0, rows[7], rows[1] - 1))


def test_swaps_exchange_under_exec(bench: Any) -> None:
    listing = """
    7e02cb02  v_swap_b32 v1, v2
    """
    (v1, v2), _ = bench.run_wave(listing, vgprs={1: VALUES, 2: OLD}, read=[1, 2], exec_mask=0xFFFF)
    low = LANE < 16
    np.testing.assert_array_equal(v1, np.where(low, OLD, VALUES))
    np.testing.assert_array_equal(v2, np.where(low, VALUES, OLD))


def test_a_dual_instruction_reads_before_it_writes(bench: Any) -> None:
    listing = """
    ca100102 01020101  v_dual_mov_b32 v1, v2 :: v_dual_mov_b32 v2, v1
    """
    (v1, v2), _ = bench.run_wave(listing, vgprs={1: VALUES, 2: OLD}, read=[1, 2])
    np.testing.assert_array_equal(v1, OLD)
    np.testing.assert_array_equal(v2, VALUES)


def test_sixteen_bit_results_keep_the_other_half(bench: Any) -> None:
    listing = """
    7f043901           v_mov_b16_e32 v2.h, v1.l
    d7030803 00020301  v_add_nc_u16 v3.l, v1.h, v1.l op_sel:[1,0,0]
    """
    packed = VALUES | (LANE << 16)
    (v2, v3), _ = bench.run_wave(listing, vgprs={1: packed, 2: OLD, 3: OLD << 16}, read=[2, 3], exec_mask=0x00FFFFFF)
    active = LANE < 24
    np.testing.assert_array_equal(v2, np.where(active, VALUES << 16 | 7, OLD))
    np.testing.assert_array_equal(v3, np.where(active, OLD << 16 | (VALUES + LANE), OLD << 16))


def test_append_and_consume_count_active_lanes(bench: Any) -> None:
    listing = """
    befd0090           s_mov_b32 m0, 16
    d8f80008 02000000  ds_append v2 offset:8
    d8f80008 03000000  ds_append v3 offset:8
    d8f40008 04000000  ds_consume v4 offset:8
    bf89fc07           s_waitcnt lgkmcnt(0)
    """
    (v2, v3, v4), _ = bench.run_wave(listing, vgprs={}, read=[2, 3, 4], exec_mask=0x1F, lds_bytes=512)
    assert [int(row[0]) for row in (v2, v3, v4)] == [0, 5, 10]


@pytest.mark.parametrize("lanes", [32, 64])
def test_matrix_product_is_that_of_numpy(bench: Any, lanes: int) -> None:
    listing = """
    cc404018 1a021301  v_wmma_f32_16x16x16_f16 v[24:31], v[1:8], v[9:16], 0
    """
    rng = np.random.default_rng(9)
    a, b = (rng.integers(-4, 5, (16, 16)).astype(np.float16) for _ in range(2))
    # Row i of A, and column j of B, stand in lanes i, i + 16, ...: two elements a register.
    rows = {
        base + register: matrix[np.arange(lanes) % 16, 2 * register : 2 * register + 2].copy().view(np.uint32)[:, 0]
        for base, matrix in ((1, a), (9, b.T))
        for register in range(8)
    }
    groups = lanes // 16
    results, _ = bench.run_wave(listing, vgprs=rows, read=range(24, 24 + 16 // groups), lanes=lanes, exec_mask=0xFF)
    product = np.concatenate([row.view(np.float32).reshape(groups, 16) for row in results])
    np.testing.assert_array_equal(product, a.astype(np.float32) @ b.astype(np.float32))
