"""What only gfx12 has: split barriers, ids in trap registers, narrow scalar loads, signed offsets, block transfers.

Listings are llvm-mc 22's for gfx1201. Rules: RDNA4 ISA manual, pseudo code of the instruction named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amdrv.emulator.isa.dispatch import Dispatch, ShaderFault
from amdrv.emulator.isa.generation import GFX12, generation_for
from amdrv.emulator.isa.interpreter import Interpreter
from amdrv.emulator.isa.launch import create_waves, decode
from amdrv.errors import Unsupported

LANES = np.arange(32, dtype=np.uint32)

# s[0:1] is the first argument, s[2:3] the second, v200 four times the work-item.
PROLOGUE = """
    f4004000 f8000000  s_load_b128 s[0:3], s[0:1], 0x0
    bfc70000  s_wait_kmcnt 0x0
    31900082  v_lshlrev_b32_e32 v200, 2, v0
"""
LOAD_V1_V2 = """
    ee050000 00000001 000000c8  global_load_b32 v1, v200, s[0:1]
    ee050000 00000002 000080c8  global_load_b32 v2, v200, s[0:1] offset:128
"""
STORE_V1 = "ee068002 00800000 000000c8  global_store_b32 v200, v1, s[2:3]\n"
STORE_V3 = "ee068002 01800000 000000c8  global_store_b32 v200, v3, s[2:3]\n"
END = "bfb00000  s_endpgm\n"
SIGNAL, WAIT = "be804ec1  s_barrier_signal -1\n", "bf94ffff  s_barrier_wait -1\n"
# s4, s5, s6 and s7 to v1, v2, v3 and v4, and these to four rows.
STORE_SCALARS = """
    7e020204  v_mov_b32_e32 v1, s4
    7e040205  v_mov_b32_e32 v2, s5
    7e060206  v_mov_b32_e32 v3, s6
    7e080207  v_mov_b32_e32 v4, s7
    ee068002 00800000 000000c8  global_store_b32 v200, v1, s[2:3]
    ee068002 01000000 000080c8  global_store_b32 v200, v2, s[2:3] offset:128
    ee068002 01800000 000100c8  global_store_b32 v200, v3, s[2:3] offset:256
    ee068002 02000000 000180c8  global_store_b32 v200, v4, s[2:3] offset:384
"""


def run(bench: Any, listing: str, data: np.ndarray[Any, Any], rows: int, threads: int = 32) -> np.ndarray[Any, Any]:
    """Run one workgroup; ``data`` is the first argument, the rows that the second one's memory holds come back."""
    out = bench.array(np.zeros((rows, threads), np.uint32))
    bench.launch(bench.assemble(PROLOGUE + listing + END, vgprs=208), (1,), (threads,), bench.array(data), out)
    result: np.ndarray[Any, Any] = bench.read(out, "u4", rows, threads)
    return result


def scalars(bench: Any, listing: str, data: np.ndarray[Any, Any]) -> list[int]:
    """s4 to s7 after a listing."""
    return [int(row[0]) for row in run(bench, listing + STORE_SCALARS, data, 4)]


EXCHANGE = """
declare i32 @llvm.amdgcn.workitem.id.x()
declare void @llvm.amdgcn.s.barrier.signal(i32 immarg)
declare i1 @llvm.amdgcn.s.barrier.signal.isfirst(i32 immarg)
declare void @llvm.amdgcn.s.barrier.wait(i16 immarg)
@slots = internal addrspace(3) global [128 x i32] poison
define amdgpu_kernel void @k(ptr addrspace(1) %out, ptr addrspace(1) %first) #0 {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %own = getelementptr i32, ptr addrspace(3) @slots, i32 %t
  br label %round
round:
  %n = phi i32 [0, %0], [%n1, %round]
  %sum = phi i32 [0, %0], [%sum1, %round]
  %firsts = phi i32 [0, %0], [%firsts1, %round]
  %value = mul i32 %t, %n
  store i32 %value, ptr addrspace(3) %own
  fence syncscope("workgroup") release
  %f = call i1 @llvm.amdgcn.s.barrier.signal.isfirst(i32 -1)
  %fi = zext i1 %f to i32
  %firsts1 = add i32 %firsts, %fi
  call void @llvm.amdgcn.s.barrier.wait(i16 -1)
  fence syncscope("workgroup") acquire
  %far = add i32 %t, 32
  %there = and i32 %far, 127
  %slot = getelementptr i32, ptr addrspace(3) @slots, i32 %there
  %got = load i32, ptr addrspace(3) %slot
  %sum1 = add i32 %sum, %got
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier.signal(i32 -1)
  call void @llvm.amdgcn.s.barrier.wait(i16 -1)
  fence syncscope("workgroup") acquire
  %n1 = add i32 %n, 1
  %d = icmp eq i32 %n1, 5
  br i1 %d, label %end, label %round
end:
  %po = getelementptr i32, ptr addrspace(1) %out, i32 %t
  store i32 %sum1, ptr addrspace(1) %po
  %pf = getelementptr i32, ptr addrspace(1) %first, i32 %t
  store i32 %firsts1, ptr addrspace(1) %pf
  ret void
}
attributes #0 = { "amdgpu-flat-work-group-size"="128,128" }
"""


def test_waves_exchange_values_through_a_split_barrier(gfx1201_bench: Any) -> None:
    bench = gfx1201_bench
    out, first = bench.array(np.zeros(128, "u4")), bench.array(np.zeros(128, "u4"))
    bench.launch(bench.load(EXCHANGE), (1,), (128,), out, first)
    np.testing.assert_array_equal(bench.read(out, "u4", 128), (np.arange(128) + 32) % 128 * 10)
    # In each of the five rounds one wave of the four was the first.
    assert bench.read(first, "u4", 4, 32)[:, 0].sum() == 5


def test_a_wave_that_has_ended_is_not_waited_for(gfx1201_bench: Any) -> None:
    listing = f"""
        85059974  s_lshr_b32 s5, ttmp8, 25
        8b059f05  s_and_b32 s5, s5, 31
        bf068005  s_cmp_eq_u32 s5, 0
        bfa10001  s_cbranch_scc0 1
        {END}
        {SIGNAL}
        {WAIT}
        7e0202ff 00000077  v_mov_b32_e32 v1, 0x77
        {STORE_V1}
    """
    (row,) = run(gfx1201_bench, listing, LANES, 1, threads=96)
    assert row.reshape(3, 32)[:, 0].tolist() == [0, 0x77, 0x77]


def test_a_wave_that_never_gets_a_signal_waits_until_the_dispatch_is_cancelled(gfx1201_bench: Any) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    out = gfx1201_bench.array(np.zeros(32, "u4"))
    kernel = gfx1201_bench.assemble(PROLOGUE + WAIT + STORE_V1 + END, vgprs=208)
    gfx1201_bench.launch(kernel, (1,), (32,), out, out, cancelled=cancelled)
    assert asked == 6


def test_waves_that_go_from_barrier_to_barrier_for_ever_can_be_cancelled(gfx1201_bench: Any) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    out = gfx1201_bench.array(np.zeros(96, "u4"))
    kernel = gfx1201_bench.assemble(f"{PROLOGUE}{SIGNAL}{WAIT}bfa0fffd  s_branch -3\n", vgprs=208)
    gfx1201_bench.launch(kernel, (1,), (96,), out, out, cancelled=cancelled)
    assert asked == 4


def test_two_openings_let_a_wave_through_only_once(gfx1201_bench: Any) -> None:
    """A wave alone opens its barrier with every signal; the second wait at it has nothing to consume."""
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    out = gfx1201_bench.array(np.zeros(32, "u4"))
    listing = f"{SIGNAL}{SIGNAL}{WAIT}7e020281  v_mov_b32_e32 v1, 1\n{STORE_V1}{WAIT}7e020282  v_mov_b32_e32 v1, 2\n"
    kernel = gfx1201_bench.assemble(PROLOGUE + listing + STORE_V1 + END, vgprs=208)
    gfx1201_bench.launch(kernel, (1,), (32,), out, out, cancelled=cancelled)
    assert gfx1201_bench.read(out, "u4", 32).tolist() == [1] * 32


def test_the_barrier_state_shows_members_and_signals(gfx1201_bench: Any) -> None:
    listing = f"""
        be8450c1  s_get_barrier_state s4, -1
        be8550c2  s_get_barrier_state s5, -2
        {SIGNAL}
        be8650c1  s_get_barrier_state s6, -1
        b887f804  s_getreg_b32 s7, hwreg(HW_REG_WAVE_STATE_PRIV)
    """
    # One wave: its own signal completes the barrier, which counts from zero again and sets the complete bit.
    assert scalars(gfx1201_bench, listing, LANES) == [1 | 1 << 4, 0, 1 | 1 << 4, 1 << 2]


@pytest.mark.parametrize(
    ("listing", "reason"),
    [
        ("be804e83  s_barrier_signal 3", "named barrier 3"),
        ("be804e7d  s_barrier_signal m0", "named barrier"),
        ("bf940001  s_barrier_wait 1", "named barrier 1"),
        ("be805181  s_barrier_init 1", "named barriers"),
        ("be805388  s_alloc_vgpr 8", "dynamic VGPRs"),
        ("ee160000 00000002 000000c8  global_load_tr_b64 v[2:3], v200, s[0:1]", "not implemented"),
        ("d3c00001 00001000 00000504  image_load v[0:3], [v4, v5], s[8:15] dmask:0xf", "texture unit"),
    ],
)
def test_what_a_compute_wave_cannot_do_is_refused_by_name(gfx1201_bench: Any, listing: str, reason: str) -> None:
    with pytest.raises(ShaderFault, match=reason) as caught:
        run(gfx1201_bench, listing + "\n", LANES, 1)
    assert caught.value.kind == "illegal instruction"
    assert caught.value.mnemonic == listing.split("  ")[1].split()[0]


def test_signals_at_barrier_zero_do_nothing(gfx1201_bench: Any) -> None:
    listing = "be804e80  s_barrier_signal 0\nbe8450c1  s_get_barrier_state s4, -1\n"
    assert scalars(gfx1201_bench, listing, LANES)[0] == 1 | 1 << 4


def test_scalar_loads_of_parts_of_a_dword(gfx1201_bench: Any) -> None:
    data = np.array([0, 0x9ABC_80F1], np.uint32)
    listing = """
        f4012100 f8000005  s_load_u8 s4, s[0:1], 0x5
        f4010140 f8000007  s_load_i8 s5, s[0:1], 0x7
        f4016180 f8000006  s_load_u16 s6, s[0:1], 0x6
        f40141c0 f8000006  s_load_i16 s7, s[0:1], 0x6
        bfc70000  s_wait_kmcnt 0x0
    """
    assert scalars(gfx1201_bench, listing, data) == [0x80, 0xFFFFFF9A, 0x9ABC, 0xFFFF9ABC]


def test_scalar_loads_of_three_dwords_and_before_the_base(gfx1201_bench: Any) -> None:
    data = np.array([10, 11, 12, 13], np.uint32)
    listing = """
        a98c8800  s_add_nc_u64 s[12:13], s[0:1], 8
        f400a100 f8000004  s_load_b96 s[4:6], s[0:1], 0x4
        f40001c6 f8fffffc  s_load_b32 s7, s[12:13], -0x4
        f404c0c0 08010000  s_prefetch_data s[0:1], 0x10000, s4, 3
        bfc70000  s_wait_kmcnt 0x0
    """
    assert scalars(gfx1201_bench, listing, data) == [11, 12, 13, 11]


def test_vector_offsets_are_signed(gfx1201_bench: Any) -> None:
    listing = f"""
        4b919084  v_add_nc_u32_e32 v200, 4, v200
        ee050000 00000003 fffffcc8  global_load_b32 v3, v200, s[0:1] offset:-4
        31900082  v_lshlrev_b32_e32 v200, 2, v0
        {STORE_V3}
    """
    (row,) = run(gfx1201_bench, listing, LANES + 5, 1)
    np.testing.assert_array_equal(row, LANES + 5)


def test_a_block_load_fills_the_registers_that_m0_selects(gfx1201_bench: Any) -> None:
    data = np.arange(64, dtype=np.uint32) * 3
    listing = """
        befd0085  s_mov_b32 m0, 5
        7e040281  v_mov_b32_e32 v2, 1
        ee14c000 00000001 000000c8  global_load_block v[1:32], v200, s[0:1]
        ee068002 00800000 000000c8  global_store_b32 v200, v1, s[2:3]
        ee068002 01000000 000080c8  global_store_b32 v200, v2, s[2:3] offset:128
        ee068002 01800000 000100c8  global_store_b32 v200, v3, s[2:3] offset:256
    """
    first, second, third = run(gfx1201_bench, listing, data, 3)
    np.testing.assert_array_equal(first, data[:32])
    assert second.tolist() == [1] * 32
    np.testing.assert_array_equal(third, data[2:34])


def test_a_block_load_leaves_inactive_lanes_alone(gfx1201_bench: Any) -> None:
    data = np.arange(64, dtype=np.uint32) * 3
    listing = """
        befd0082  s_mov_b32 m0, 2
        7e040281  v_mov_b32_e32 v2, 1
        befe00ff 0000ff00  s_mov_b32 exec_lo, 0xff00
        ee14c000 00000001 000000c8  global_load_block v[1:32], v200, s[0:1]
        befe00c1  s_mov_b32 exec_lo, -1
        ee068002 01000000 000000c8  global_store_b32 v200, v2, s[2:3]
    """
    (row,) = run(gfx1201_bench, listing, data, 1)
    np.testing.assert_array_equal(row, np.where((LANES >= 8) & (LANES < 16), data[1:33], 1))


def test_a_transposing_load_with_inactive_lanes_is_refused(gfx1201_bench: Any) -> None:
    listing = """
        befe00ff 0000ffff  s_mov_b32 exec_lo, 0xffff
        ee15c000 00000004 000000c8  global_load_tr_b128 v[4:7], v200, s[0:1]
    """
    with pytest.raises(ShaderFault, match="global_load_tr_b128: a transposing load with inactive lanes") as caught:
        run(gfx1201_bench, listing, LANES, 1)
    assert (caught.value.kind, caught.value.lane, caught.value.va) == ("illegal instruction", 0, None)


@pytest.mark.parametrize(
    ("word", "row"), [("d70f0003 00020501  v_permlane16_var_b32 v3, v1, v2", 0),
                      ("d7100003 00020501  v_permlanex16_var_b32 v3, v1, v2", 16)],
)  # fmt: skip
def test_each_lane_chooses_one_of_its_row_or_of_the_other(gfx1201_bench: Any, word: str, row: int) -> None:
    rng = np.random.default_rng(1)
    data = np.stack((LANES * 7, rng.integers(0, 2**32, 32).astype(np.uint32)))
    (result,) = run(gfx1201_bench, LOAD_V1_V2 + word + "\n" + STORE_V3, data, 1)
    np.testing.assert_array_equal(result, 7 * ((LANES & 16 ^ row) | data[1] & 15))


@pytest.mark.parametrize(
    ("word", "inactive"), [("dacc0000 03000102  ds_bpermute_b32 v3, v2, v1", 0),
                           ("db340000 03000102  ds_bpermute_fi_b32 v3, v2, v1", 1)],
)  # fmt: skip
def test_fetching_inactive_lanes_is_a_choice_of_the_opcode(gfx1201_bench: Any, word: str, inactive: int) -> None:
    data = np.stack((LANES + 100, (31 - LANES) * 4))
    listing = f"""
        {LOAD_V1_V2}
        7e060280  v_mov_b32_e32 v3, 0
        befe00ff 0000ffff  s_mov_b32 exec_lo, 0xffff
        {word}
        befe00c1  s_mov_b32 exec_lo, -1
        {STORE_V3}
    """
    (row,) = run(gfx1201_bench, listing, data, 1)
    np.testing.assert_array_equal(row, np.where(LANES < 16, (131 - LANES) * inactive, 0))


def test_transcendentals_of_scalar_registers(gfx1201_bench: Any) -> None:
    data = np.array([0x40400000, 0xABCD4C00], np.uint32)  # 3.0, and a half 16.0 below something else
    listing = """
        f4002300 f8000000  s_load_b64 s[12:13], s[0:1], 0x0
        bfc70000  s_wait_kmcnt 0x0
        d6800004 0000000c  v_s_exp_f32 s4, s12
        d6890005 0000000d  v_s_sqrt_f16 s5, s13
    """
    assert scalars(gfx1201_bench, listing, data)[:2] == [0x41000000, 0x4400]


def test_the_mode_has_no_ieee_and_no_clamp_bit(gfx1201_bench: Any) -> None:
    listing = """
        b980f801 ffffffff  s_setreg_imm32_b32 hwreg(HW_REG_WAVE_MODE), 0xffffffff
        b884f801  s_getreg_b32 s4, hwreg(HW_REG_WAVE_MODE)
    """
    assert scalars(gfx1201_bench, listing, LANES)[0] == 0x0180_00FF


def test_a_signalling_nan_counts_as_missing_and_clamps_to_zero(gfx1201_bench: Any) -> None:
    data = np.stack((np.full(32, 0x7FA00000, np.uint32), np.full(32, 5.0, np.float32).view(np.uint32)))
    number = "d5160003 00020501  v_max_num_f32_e64 v3, v1, v2\n"
    clamped = "d5038003 00020501  v_add_f32_e64 v3, v1, v2 clamp\n"
    assert run(gfx1201_bench, LOAD_V1_V2 + number + STORE_V3, data, 1)[0, 0] == 0x40A00000
    assert run(gfx1201_bench, LOAD_V1_V2 + clamped + STORE_V3, data, 1)[0, 0] == 0


def test_an_atomic_returns_when_its_hint_says_so(gfx1201_bench: Any) -> None:
    listing = f"""
        {LOAD_V1_V2}
        7e060287  v_mov_b32_e32 v3, 7
        ee0d4000 01800000 00000002  global_atomic_add_u32 v2, v3, s[0:1]
        ee0d4000 01900001 00000002  global_atomic_add_u32 v1, v2, v3, s[0:1] th:TH_ATOMIC_RETURN
        {STORE_V1}
    """
    data = np.stack((LANES, np.full(32, 128, np.uint32), LANES * 0))
    (row,) = run(gfx1201_bench, listing, data, 1)  # byte 128 holds 128: everyone adds 7 there, twice
    np.testing.assert_array_equal(np.sort(row), 128 + 7 * 32 + 7 * LANES)


def test_workgroup_ids_come_in_trap_registers_as_far_as_enabled() -> None:
    dispatch = Dispatch(
        pc=0, rsrc1=0, rsrc2=2 << 1 | 1 << 7 | 1 << 8, rsrc3=0, user_data=(11, 12, 13), initiator=1 << 15,
        start=(0, 0, 0), groups=(2, 3, 4), threads=(64, 1, 1),
    )  # fmt: skip
    state = create_waves(decode(dispatch, 1, GFX12), 0, 24)
    flat = state.sgpr.transpose(1, 0, 2).reshape(48, 128)
    assert flat[0, :4].tolist() == [11, 12, 0, 0]
    last = flat[47]  # the second wave of workgroup (1, 2, 3)
    assert last[[117, 115, 116]].tolist() == [1, 2, 1 << 25]
    with_z = create_waves(decode(Dispatch(**{**_fields(dispatch), "rsrc2": 7 << 7}), 1, GFX12), 23, 1)
    assert with_z.sgpr.transpose(1, 0, 2).reshape(2, 128)[0, 115] == 2 | 3 << 16


def _fields(dispatch: Dispatch) -> dict[str, Any]:
    return {name: getattr(dispatch, name) for name in dispatch.__dataclass_fields__}


def test_scratch_sizes_have_three_more_bits() -> None:
    dispatch = Dispatch(
        pc=0, rsrc1=0, rsrc2=1, rsrc3=0, user_data=(), initiator=1 << 15, start=(0, 0, 0), groups=(1, 1, 1),
        threads=(32, 1, 1), tmpring_size=1 | 0x20001 << 12,
    )  # fmt: skip
    assert decode(dispatch, 1, GFX12).scratch_wave_bytes == 0x20001 * 256
    assert decode(dispatch, 1).scratch_wave_bytes == 256


def test_an_unknown_processor_is_refused() -> None:
    with pytest.raises(Unsupported, match="gfx1201"):
        generation_for("gfx1301")
    with pytest.raises(Unsupported):
        Interpreter("gfx942")
