"""Control flow, scheduling and wave state of the interpreter.

Code is given as the words that llvm-mc 22.1.8 (-mcpu=gfx1100) makes of the assembly beside them.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from amdrv.emulator.isa.dispatch import Access, ShaderFault
from amdrv.emulator.isa.interpreter import Interpreter

LANE = np.arange(32, dtype=np.uint32)


def test_calls_return_behind_the_call(bench: Any) -> None:
    listing = """
    be844700  s_getpc_b64 s[4:5]
    8004a004  s_add_u32 s4, s4, 32
    82058005  s_addc_u32 s5, s5, 0
    be860081  s_mov_b32 s6, 1
    be8a4904  s_swappc_b64 s[10:11], s[4:5]
    80068206  s_add_u32 s6, s6, 2
    ba0a0002  s_call_b64 s[10:11], 2
    80068406  s_add_u32 s6, s6, 4
    bfa00002  s_branch 2
    96068a06  s_mul_i32 s6, s6, 10
    be80480a  s_setpc_b64 s[10:11]
    """
    _, (value,) = bench.run_wave(listing, vgprs={}, read=[], read_sgprs=[6])
    assert value == ((1 * 10) + 2) * 10 + 4


def test_a_scalar_branch_divides_the_waves_and_they_meet_again(bench: Any) -> None:
    # Each wave loops as often as its workgroup's number says, then all count themselves.
    listing = """
    f4040100 f8000000  s_load_b64 s[4:5], s[0:1], null
    be860080           s_mov_b32 s6, 0
    be870008           s_mov_b32 s7, s8
    bf068007           s_cmp_eq_u32 s7, 0
    bfa20005           s_cbranch_scc1 5
    80060706           s_add_u32 s6, s6, s7
    80878107           s_sub_u32 s7, s7, 1
    bf078007           s_cmp_lg_u32 s7, 0
    bfa2fffc           s_cbranch_scc1 65532
    bf800000           s_nop 0
    84098208           s_lshl_b32 s9, s8, 2
    7e020206           v_mov_b32_e32 v1, s6
    7e040209           v_mov_b32_e32 v2, s9
    bf89fc07           s_waitcnt lgkmcnt(0)
    dc6a0000 00040102  global_store_b32 v2, v1, s[4:5]
    bfb00000           s_endpgm
    """
    out = bench.array(np.zeros(50, np.uint32))
    stats = bench.launch(bench.assemble(listing), (50,), (32,), out)
    number = np.arange(50)
    np.testing.assert_array_equal(bench.read(out, "u4", 50), number * (number + 1) // 2)
    # s_nop and s_waitcnt are not counted.
    assert stats.waves == 50
    assert stats.wave_instructions == 50 * 5 + int((4 * number).sum()) + 50 * 5


@pytest.mark.parametrize("resident", [32, 256, 16384])
def test_results_do_not_depend_on_how_many_waves_run_together(bench: Any, resident: int) -> None:
    bench.engine = Interpreter(resident_lanes=resident)
    out = bench.array(np.zeros(2048, np.uint32))
    bench.launch(bench.load(COLLATZ), (32,), (64,), out)
    expected = [collatz(i) for i in range(2048)]
    np.testing.assert_array_equal(bench.read(out, "u4", 2048), expected)


def collatz(value: int) -> int:
    steps = 0
    while value > 1:
        value = 3 * value + 1 if value & 1 else value >> 1
        steps += 1
    return steps


# The branch on the parity of the workgroup's share is scalar in part, the loops are divergent.
COLLATZ = """
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workgroup.id.x()
define amdgpu_kernel void @k(ptr addrspace(1) %out) {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  %b = mul i32 %g, 64
  %i = add i32 %b, %t
  br label %loop
loop:
  %v = phi i32 [%i, %0], [%v1, %odd], [%v2, %even]
  %n = phi i32 [0, %0], [%m, %odd], [%m, %even]
  %m = add i32 %n, 1
  %more = icmp ugt i32 %v, 1
  br i1 %more, label %step, label %end
step:
  %low = and i32 %v, 1
  %isodd = icmp eq i32 %low, 1
  br i1 %isodd, label %odd, label %even
odd:
  %v3 = mul i32 %v, 3
  %v1 = add i32 %v3, 1
  br label %loop
even:
  %v2 = lshr i32 %v, 1
  br label %loop
end:
  %p = getelementptr i32, ptr addrspace(1) %out, i32 %i
  store i32 %n, ptr addrspace(1) %p
  ret void
}
"""

# A ticket lock taken by one lane of every workgroup; the counter behind it is not updated atomically.
LOCK = """
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @k(ptr addrspace(1) %lock, ptr addrspace(1) %count) {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %first = icmp eq i32 %t, 0
  br i1 %first, label %spin, label %out
spin:
  %pair = cmpxchg ptr addrspace(1) %lock, i32 0, i32 1 syncscope("agent") acquire monotonic
  %ok = extractvalue { i32, i1 } %pair, 1
  br i1 %ok, label %locked, label %spin
locked:
  %v = load volatile i32, ptr addrspace(1) %count
  %w = add i32 %v, 1
  store volatile i32 %w, ptr addrspace(1) %count
  store atomic i32 0, ptr addrspace(1) %lock syncscope("agent") release, align 4
  br label %out
out:
  ret void
}
"""

# Workgroup 0 waits for a flag that workgroup 7 sets after its own work.
HANDSHAKE = """
declare i32 @llvm.amdgcn.workgroup.id.x()
declare void @llvm.amdgcn.s.sleep(i32)
define amdgpu_kernel void @k(ptr addrspace(1) %flag, ptr addrspace(1) %out) {
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  switch i32 %g, label %end [ i32 0, label %wait i32 7, label %set ]
wait:
  call void @llvm.amdgcn.s.sleep(i32 1)
  %v = load atomic i32, ptr addrspace(1) %flag syncscope("agent") acquire, align 4
  %c = icmp eq i32 %v, 0
  br i1 %c, label %wait, label %done
done:
  %w = mul i32 %v, 3
  store i32 %w, ptr addrspace(1) %out
  br label %end
set:
  store atomic i32 14, ptr addrspace(1) %flag syncscope("agent") release, align 4
  br label %end
end:
  ret void
}
"""


def test_workgroups_that_contend_for_a_lock_all_get_it(bench: Any) -> None:
    lock, count = bench.array(np.zeros(1, np.uint32)), bench.array(np.zeros(1, np.uint32))
    bench.launch(bench.load(LOCK), (24,), (64,), lock, count)
    assert bench.read(count, "u4", 1)[0] == 24
    assert bench.read(lock, "u4", 1)[0] == 0


def test_a_workgroup_may_wait_for_a_later_one(bench: Any) -> None:
    flag, out = bench.array(np.zeros(1, np.uint32)), bench.array(np.zeros(1, np.uint32))
    bench.launch(bench.load(HANDSHAKE), (8,), (32,), flag, out)
    assert bench.read(out, "u4", 1)[0] == 42


def test_waves_that_end_do_not_hold_up_a_barrier(bench: Any) -> None:
    # Waves 2 and 3 of the workgroup end at once; 0 and 1 exchange a value through LDS across the barrier.
    listing = """
    f4040100 f8000000  s_load_b64 s[4:5], s[0:1], null
    7c9800c0           v_cmp_gt_u32_e32 vcc_lo, 64, v0
    bfa3000e           s_cbranch_vccz 14
    30020082           v_lshlrev_b32_e32 v1, 2, v0
    4a0400ff 00000064  v_add_nc_u32_e32 v2, 0x64, v0
    d8340000 00000201  ds_store_b32 v1, v2
    bf89fc07           s_waitcnt lgkmcnt(0)
    bfbd0000           s_barrier
    3a0602ff 00000080  v_xor_b32_e32 v3, 0x80, v1
    d8d80000 04000003  ds_load_b32 v4, v3
    bf89fc07           s_waitcnt lgkmcnt(0)
    dc6a0000 00040401  global_store_b32 v1, v4, s[4:5]
    bfb00000           s_endpgm
    """
    out = bench.array(np.zeros(128, np.uint32))
    bench.launch(bench.assemble(listing), (1,), (128,), out, lds_bytes=1024)
    item = np.arange(128)
    np.testing.assert_array_equal(bench.read(out, "u4", 128), np.where(item < 64, (item ^ 32) + 100, 0))


def test_a_trap_names_its_number_and_workgroup(bench: Any) -> None:
    listing = """
    bf068308  s_cmp_eq_u32 s8, 3
    bfa10001  s_cbranch_scc0 1
    bf900002  s_trap 2
    bfb00000  s_endpgm
    """
    with pytest.raises(ShaderFault, match="s_trap 2") as caught:
        bench.launch(bench.assemble(listing), (5,), (32,))
    assert (caught.value.kind, caught.value.workgroup) == ("trap", (3, 0, 0))


def test_unknown_bits_are_an_illegal_instruction_only_when_reached(bench: Any) -> None:
    garbage = [0xBF800000, 0xBF7FFFFF]  # s_nop, then a SOPC opcode that does not exist
    with pytest.raises(ShaderFault, match="bf7fffff") as caught:
        bench.launch(bench.assemble(garbage), (1,), (32,))
    assert caught.value.kind == "illegal instruction"
    bench.launch(bench.assemble([0xBFB00000, *garbage]), (1,), (32,))


def test_graphics_instructions_are_refused_by_name(bench: Any) -> None:
    listing = """
    f0000f04 00000004  image_load v[0:3], v[4:5], s[0:7] dmask:0xf dim:SQ_RSRC_IMG_2D
    """
    with pytest.raises(ShaderFault, match="image_load") as caught:
        bench.launch(bench.assemble(listing), (1,), (32,))
    assert (caught.value.kind, caught.value.mnemonic) == ("illegal instruction", "image_load")


def test_running_past_the_end_of_the_code_faults(bench: Any) -> None:
    with pytest.raises(ShaderFault, match="s_code_end") as caught:
        bench.launch(bench.assemble([0xBF800000]), (1,), (32,))
    assert caught.value.kind == "illegal instruction"


def test_a_jump_out_of_the_code_is_a_fetch_violation(bench: Any) -> None:
    listing = """
    be8400ff 00001000  s_mov_b32 s4, 0x1000
    be8500ff 00001234  s_mov_b32 s5, 0x1234
    be804804           s_setpc_b64 s[4:5]
    """
    with pytest.raises(ShaderFault, match="instruction fetch") as caught:
        bench.launch(bench.assemble(listing), (1,), (32,))
    assert (caught.value.kind, caught.value.access, caught.value.va) == (
        "memory violation",
        Access.EXECUTE,
        0x1234_0000_1000,
    )


def test_an_endless_loop_ends_when_cancelled(bench: Any) -> None:
    listing = """
    bfa0ffff  s_branch 65535
    """
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    stats = bench.launch(bench.assemble(listing), (4,), (32,), cancelled=cancelled)
    assert asked == 4
    assert 1 <= stats.waves <= 4  # an engine need not have begun with all


def test_changed_code_is_seen_after_invalidation_only(bench: Any) -> None:
    program = """
    f4040100 f8000000  s_load_b64 s[4:5], s[0:1], null
    7e020281           v_mov_b32_e32 v1, 1
    7e040280           v_mov_b32_e32 v2, 0
    bf89fc07           s_waitcnt lgkmcnt(0)
    dc6a0000 00040102  global_store_b32 v2, v1, s[4:5]
    bfb00000           s_endpgm
    """
    kernel, out = bench.assemble(program), bench.array(np.zeros(1, np.uint32))
    bench.launch(kernel, (1,), (32,), out)
    bench.memory.write(kernel.pc + 8, struct.pack("<I", 0x7E020282))  # v_mov_b32 v1, 2
    bench.launch(kernel, (1,), (32,), out)
    assert bench.read(out, "u4", 1)[0] == 1
    bench.engine.invalidate_code()
    bench.launch(kernel, (1,), (32,), out)
    assert bench.read(out, "u4", 1)[0] == 2


def test_a_shader_can_invalidate_its_own_instruction_cache(bench: Any) -> None:
    # The loop's second turn runs an instruction that the first one has overwritten.
    listing = """
    be860080           s_mov_b32 s6, 0
    be844700           s_getpc_b64 s[4:5]
    7e02028c           v_mov_b32_e32 v1, 12
    7e0402ff 7e060285  v_mov_b32_e32 v2, 0x7e060285
    7e060283           v_mov_b32_e32 v3, 3
    dc6a0000 00040201  global_store_b32 v1, v2, s[4:5]
    bc7c0000           s_waitcnt_vscnt null, 0x0
    bfbc0000           s_icache_inv
    80068106           s_add_u32 s6, s6, 1
    bf0a8206           s_cmp_lt_u32 s6, 2
    bfa2fff5           s_cbranch_scc1 65525
    """
    (v3,), _ = bench.run_wave(listing, vgprs={}, read=[3])
    assert v3[0] == 5


def test_rounding_and_denormal_modes_can_be_set_in_the_shader(bench: Any) -> None:
    listing = """
    06060501           v_add_f32_e32 v3, v1, v2
    bf910001           s_round_mode 0x1
    06080501           v_add_f32_e32 v4, v1, v2
    b9801801 00000000  s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 0
    100a0cf0           v_mul_f32_e32 v5, 0.5, v6
    bf92000c           s_denorm_mode 12
    100e0cf0           v_mul_f32_e32 v7, 0.5, v6
    b8863801           s_getreg_b32 s6, hwreg(HW_REG_MODE, 0, 8)
    """
    one, tiny, smallest = (np.full(32, value, np.float32) for value in (1.0, 1e-10, 1.17549435e-38))
    rows = {1: one, 2: tiny, 6: smallest}
    results, (mode,) = bench.run_wave(listing, vgprs=rows, read=[3, 4, 5, 7], read_sgprs=[6])
    nearest, up, half, flushed = (row.view(np.float32)[0] for row in results)
    assert nearest == 1.0
    assert up == np.nextafter(np.float32(1), np.float32(2))
    assert half == smallest[0] / 2 != 0
    assert flushed == 0
    assert mode == 0xC0


def test_modes_that_differ_between_waves_are_kept_apart(bench: Any) -> None:
    listing = """
    f4040100 f8000000  s_load_b64 s[4:5], s[0:1], null
    b9080801           s_setreg_b32 hwreg(HW_REG_MODE, 0, 2), s8
    7e0202f2           v_mov_b32_e32 v1, 1.0
    060202ff 2edbe6ff  v_add_f32_e32 v1, 0x2edbe6ff, v1
    84098208           s_lshl_b32 s9, s8, 2
    7e040209           v_mov_b32_e32 v2, s9
    bf89fc07           s_waitcnt lgkmcnt(0)
    dc6a0000 00040102  global_store_b32 v2, v1, s[4:5]
    bfb00000           s_endpgm
    """
    out = bench.array(np.zeros(4, np.uint32))
    bench.launch(bench.assemble(listing), (4,), (32,), out)
    assert bench.read(out, "u4", 4).tolist() == [0x3F800000, 0x3F800001, 0x3F800000, 0x3F800000]


def test_messages_reach_the_card_and_the_counter_comes_back(bench: Any) -> None:
    listing = """
    befd00ff 00000123  s_mov_b32 m0, 0x123
    bfb60001           s_sendmsg sendmsg(MSG_INTERRUPT)
    be864d83           s_sendmsg_rtn_b64 s[6:7], sendmsg(MSG_RTN_GET_REALTIME)
    bf89fc07           s_waitcnt lgkmcnt(0)
    be884c83           s_sendmsg_rtn_b32 s8, sendmsg(MSG_RTN_GET_REALTIME)
    """
    _, scalars = bench.run_wave(listing, vgprs={}, read=[], read_sgprs=[6, 7, 8])
    assert bench.interrupts == [0x123]
    assert scalars == [1100, 0, 1200]


def test_scalar_state_reads_back(bench: Any) -> None:
    listing = """
    bf060404  s_cmp_eq_u32 s4, s4
    b8860002  s_getreg_b32 s6, hwreg(HW_REG_STATUS, 0, 1)
    be8801eb  s_mov_b64 s[8:9], src_shared_base
    be8a01ee  s_mov_b64 s[10:11], src_private_limit
    be8c00fd  s_mov_b32 s12, src_scc
    befc0085  s_mov_b32 null, 5
    be8d007c  s_mov_b32 s13, null
    """
    _, scalars = bench.run_wave(listing, vgprs={}, read=[], read_sgprs=[6, 8, 9, 10, 11, 12, 13])
    assert scalars == [1, 0, 1 << 16, 0xFFFFFFFF, 2 << 16, 1, 0]


def test_registers_beyond_the_allocation_read_v0_and_drop_writes(bench: Any) -> None:
    # 24 VGPRs are the least that a wave32 gets.
    listing = """
    f4040100 f8000000  s_load_b64 s[4:5], s[0:1], null
    7e500287           v_mov_b32_e32 v40, 7
    4a025081           v_add_nc_u32_e32 v1, 1, v40
    30040082           v_lshlrev_b32_e32 v2, 2, v0
    bf89fc07           s_waitcnt lgkmcnt(0)
    dc6a0000 00040102  global_store_b32 v2, v1, s[4:5]
    bfb00000           s_endpgm
    """
    out = bench.array(np.zeros(32, np.uint32))
    bench.launch(bench.assemble(listing, vgprs=8), (1,), (32,), out)
    np.testing.assert_array_equal(bench.read(out, "u4", 32), LANE + 1)


def test_a_subvector_loop_runs_each_half_of_a_wave64(bench: Any) -> None:
    listing = """
    bb060004  s_subvector_loop_begin s6, 4
    4a020281  v_add_nc_u32_e32 v1, 1, v1
    80078107  s_add_u32 s7, s7, 1
    be88007e  s_mov_b32 s8, exec_lo
    bb86fffc  s_subvector_loop_end s6, 65532
    be8a017e  s_mov_b64 s[10:11], exec
    """
    mask = 0xF0F0F0F0_0FFF0FFF
    (v1,), scalars = bench.run_wave(
        listing, vgprs={1: np.zeros(64, np.uint32)}, read=[1], read_sgprs=[7, 10, 11], exec_mask=mask, lanes=64
    )
    active = np.array([mask >> lane & 1 for lane in range(64)])
    np.testing.assert_array_equal(v1, active)
    assert scalars == [2, mask & 0xFFFFFFFF, mask >> 32]
