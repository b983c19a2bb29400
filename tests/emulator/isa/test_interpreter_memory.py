"""Memory instructions: widths, apertures, buffers, bounds and faults.

Code is given as the words that llvm-mc 22.1.8 (-mcpu=gfx1100) makes of the assembly beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amdrv.emulator.isa.dispatch import Access, ShaderFault

LANE = np.arange(32, dtype=np.uint32)
WIDE = LANE.astype(np.int64)
PAGE = 4096


def pointers(va: int) -> dict[int, int]:
    """An address in s[4:5]."""
    return {4: va & 0xFFFFFFFF, 5: va >> 32}


def lane_pointers(va: np.ndarray[Any, Any]) -> dict[int, Any]:
    """An address for each lane in v[1:2]."""
    wide = va.astype(np.uint64)
    return {1: (wide & np.uint64(0xFFFFFFFF)).astype(np.uint32), 2: (wide >> np.uint64(32)).astype(np.uint32)}


def test_loads_extend_and_d16_loads_keep_the_other_half(bench: Any) -> None:
    listing = """
    dc420000 04040001  global_load_u8 v4, v1, s[4:5]
    dc460000 05040001  global_load_i8 v5, v1, s[4:5]
    dc4a0000 06040001  global_load_u16 v6, v1, s[4:5]
    dc4e0000 07040001  global_load_i16 v7, v1, s[4:5]
    dc7e0000 08040001  global_load_d16_i8 v8, v1, s[4:5]
    dc8e0000 09040001  global_load_d16_hi_b16 v9, v1, s[4:5]
    bf8903f7           s_waitcnt vmcnt(0)
    """
    data = np.arange(0x80, 0xC0, dtype=np.uint8)
    va = bench.array(data)
    old = np.full(32, 0x12345678, np.uint32)
    results, _ = bench.run_wave(listing, vgprs={1: LANE * 2, 8: old, 9: old}, read=range(4, 10), sgprs=pointers(va))
    octets = data[LANE * 2].astype(np.uint32)
    shorts = data.view(np.uint16)[LANE].astype(np.uint32)
    expected = [
        octets,
        octets | 0xFFFFFF00,
        shorts,
        shorts | 0xFFFF0000,
        0x12340000 | 0xFF00 | octets,
        shorts << 16 | 0x5678,
    ]
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("misalignment", [0, 1, 2, 4])
def test_wide_accesses_cross_pages_at_any_alignment(bench: Any, misalignment: int) -> None:
    listing = """
    dc5e0000 04040001  global_load_b128 v[4:7], v1, s[4:5]
    dc5a0010 08040001  global_load_b96 v[8:10], v1, s[4:5] offset:16
    bf8903f7           s_waitcnt vmcnt(0)
    dc760000 00060401  global_store_b128 v1, v[4:7], s[6:7]
    dc720010 00060801  global_store_b96 v1, v[8:10], s[6:7] offset:16
    """
    data = np.random.default_rng(1).integers(0, 256, 3 * PAGE, dtype=np.uint8)
    source, target = bench.array(data), bench.array(np.zeros_like(data))
    start = PAGE - 14 * 28 + misalignment
    sgprs = pointers(source) | {6: target & 0xFFFFFFFF, 7: target >> 32}
    bench.run_wave(listing, vgprs={1: LANE * 28 + start}, read=[], sgprs=sgprs)
    expected = np.zeros_like(data)
    expected[start : start + 32 * 28] = data[start : start + 32 * 28]
    np.testing.assert_array_equal(bench.read(target, "u1", len(data)), expected)


def test_only_active_lanes_reach_memory(bench: Any) -> None:
    listing = """
    dc520000 047c0001  global_load_b32 v4, v[1:2], off
    bf8903f7           s_waitcnt vmcnt(0)
    dc6a0000 007c0301  global_store_b32 v[1:2], v3, off
    """
    data = bench.array(LANE)
    addresses = np.where(LANE % 2 == 0, data + WIDE * 4, 0xDEAD_0000_0000)
    rows = lane_pointers(addresses) | {3: LANE + 1000, 4: np.full(32, 9, np.uint32)}
    (loaded,), _ = bench.run_wave(listing, vgprs=rows, read=[4], exec_mask=0x55555555)
    np.testing.assert_array_equal(loaded, np.where(LANE % 2 == 0, LANE, 9))
    np.testing.assert_array_equal(bench.read(data, "u4", 32), np.where(LANE % 2 == 0, LANE + 1000, LANE))


@pytest.mark.parametrize(("access", "name"), [(Access.READ, "global_load_b32"), (Access.WRITE, "global_store_b32")])
def test_a_memory_violation_names_lane_address_and_instruction(bench: Any, access: Access, name: str) -> None:
    load = """
    dc520000 047c0001  global_load_b32 v4, v[1:2], off
    """
    store = """
    dc6a0000 007c0301  global_store_b32 v[1:2], v3, off
    """
    data = bench.array(LANE)
    bad = 0xDEAD_0000_0008
    addresses = np.where(LANE == 13, bad, data + WIDE * 4)
    listing = load if access is Access.READ else store
    with pytest.raises(ShaderFault, match=name) as caught:
        bench.run_wave(listing, vgprs=lane_pointers(addresses), read=[])
    fault = caught.value
    assert (fault.kind, fault.lane, fault.va, fault.access) == ("memory violation", 13, bad, access)
    assert (fault.mnemonic, fault.workgroup) == (name, (0, 0, 0))
    assert fault.pc > 0


def test_a_store_to_read_only_memory_faults_and_changes_nothing(bench: Any) -> None:
    listing = """
    dc6a0000 007c0301  global_store_b32 v[1:2], v3, off
    """
    first = bench.array(LANE)
    second = bench.array(LANE, writable=False)
    addresses = np.where(LANE < 16, first + WIDE * 4, second + WIDE * 4)
    with pytest.raises(ShaderFault, match="read-only") as caught:
        bench.run_wave(listing, vgprs=lane_pointers(addresses) | {3: LANE + 1}, read=[])
    assert caught.value.lane == 16
    np.testing.assert_array_equal(bench.read(first, "u4", 32), LANE)


def test_flat_addresses_reach_lds_and_memory_in_one_instruction(bench: Any) -> None:
    listing = """
    d8340000 00000403  ds_store_b32 v3, v4
    dc500000 057c0001  flat_load_b32 v5, v[1:2]
    bf890007           s_waitcnt vmcnt(0) lgkmcnt(0)
    dc680000 007c0301  flat_store_b32 v[1:2], v3
    dcd44000 067c0401  flat_atomic_add_u32 v6, v[1:2], v4 glc
    bf890007           s_waitcnt vmcnt(0) lgkmcnt(0)
    d8d80000 07000003  ds_load_b32 v7, v3
    bf89fc07           s_waitcnt lgkmcnt(0)
    """
    data = bench.array(LANE + 500)
    addresses = np.where(LANE % 2 == 0, data + WIDE * 4, (1 << 48) + WIDE * 4)
    rows = lane_pointers(addresses) | {3: LANE * 4, 4: LANE + 70}
    (v5, v6, v7), _ = bench.run_wave(listing, vgprs=rows, read=[5, 6, 7], lds_bytes=512)
    even = LANE % 2 == 0
    np.testing.assert_array_equal(v5, np.where(even, LANE + 500, LANE + 70))
    np.testing.assert_array_equal(v6, LANE * 4)
    np.testing.assert_array_equal(v7, np.where(even, LANE + 70, LANE * 5 + 70))
    np.testing.assert_array_equal(bench.read(data, "u4", 32)[even], (LANE * 5 + 70)[even])


def test_lds_out_of_range_reads_zero_and_drops_writes(bench: Any) -> None:
    listing = """
    d8340000 00000201  ds_store_b32 v1, v2
    d8d80000 04000001  ds_load_b32 v4, v1
    d9d80000 06000003  ds_load_b64 v[6:7], v3
    d8800000 05000201  ds_add_rtn_u32 v5, v1, v2
    bf89fc07           s_waitcnt lgkmcnt(0)
    """
    address = np.where(LANE < 30, LANE * 4, 512 + LANE * 4)
    (v4, v5, v6), _ = bench.run_wave(
        listing, vgprs={1: address, 2: LANE + 1, 3: np.full(32, 508, np.uint32)}, read=[4, 5, 6], lds_bytes=512
    )
    inside = LANE < 30
    np.testing.assert_array_equal(v4, np.where(inside, LANE + 1, 0))
    np.testing.assert_array_equal(v5, np.where(inside, LANE + 1, 0))
    assert not v6.any()


def test_lds_pairs_strides_and_widths(bench: Any) -> None:
    listing = """
    d8382801 00030201  ds_store_2addr_b32 v1, v2, v3 offset0:1 offset1:40
    d8dc0128 04000001  ds_load_2addr_b32 v[4:5], v1 offset0:40 offset1:1
    d93c0201 00040206  ds_store_2addr_stride64_b64 v6, v[2:3], v[4:5] offset0:1 offset1:2
    dbfc0200 08000006  ds_load_b128 v[8:11], v6 offset:512
    da8c0004 0c000001  ds_load_u8_d16_hi v12, v1 offset:4
    d8d80005 0d000001  ds_load_b32 v13, v1 offset:5
    bf89fc07           s_waitcnt lgkmcnt(0)
    """
    rows = {1: LANE * 4, 2: LANE + 0x10203040, 3: LANE + 0x50607080, 6: LANE * 16 + 2048}
    rows[12] = np.full(32, 0xABCD, np.uint32)
    results, _ = bench.run_wave(listing, vgprs=rows, read=[4, 5, 8, 9, 12, 13], lds_bytes=8192)
    v4, v5, v8, v9, v12, v13 = results
    np.testing.assert_array_equal(v4, rows[3])
    np.testing.assert_array_equal(v5, rows[2])
    np.testing.assert_array_equal(v8, rows[2])
    np.testing.assert_array_equal(v9, rows[3])
    np.testing.assert_array_equal(v12, (rows[2] & 0xFF) << 16 | 0xABCD)
    following = np.append(rows[2][1:], np.uint32(0))
    np.testing.assert_array_equal(v13[:31], (rows[2] >> 8 | following << 24)[:31])


@pytest.mark.parametrize("space", ["lds", "memory"])
def test_a_misaligned_atomic_faults(bench: Any, space: str) -> None:
    lds = """
    d8000000 00000201  ds_add_u32 v1, v2
    """
    memory = """
    dcd60000 00040201  global_atomic_add_u32 v1, v2, s[4:5]
    """
    va = bench.array(LANE)
    address = np.where(LANE == 5, 22, LANE * 4)
    with pytest.raises(ShaderFault) as caught:
        bench.run_wave(
            lds if space == "lds" else memory, vgprs={1: address, 2: LANE}, read=[], sgprs=pointers(va), lds_bytes=512
        )
    assert (caught.value.kind, caught.value.lane) == ("misaligned access", 5)


def test_addtid_forms_use_the_lane_number(bench: Any) -> None:
    listing = """
    befd00c0           s_mov_b32 m0, 64
    dac00010 00000100  ds_store_addtid_b32 v1 offset:16
    dac40010 02000000  ds_load_addtid_b32 v2 offset:16
    d8d80050 03000004  ds_load_b32 v3, v4 offset:80
    dca20004 05040000  global_load_addtid_b32 v5, s[4:5] offset:4
    bf890007           s_waitcnt vmcnt(0) lgkmcnt(0)
    """
    va = bench.array(np.arange(40, dtype=np.uint32))
    (v2, v3, v5), _ = bench.run_wave(
        listing, vgprs={1: LANE + 9, 4: LANE * 4}, read=[2, 3, 5], sgprs=pointers(va), lds_bytes=512
    )
    np.testing.assert_array_equal(v2, LANE + 9)
    np.testing.assert_array_equal(v3, LANE + 9)
    np.testing.assert_array_equal(v5, LANE + 1)


RAW_F32 = 3 << 28 | 22 << 12 | 0xFAC  # OOB_SELECT raw, format 32_FLOAT, DST_SEL XYZW


def descriptor(va: int, *, stride: int = 0, records: int = 0, word3: int = RAW_F32) -> dict[int, int]:
    """A buffer descriptor in s[4:7]."""
    return {4: va & 0xFFFFFFFF, 5: va >> 32 | stride << 16, 6: records, 7: word3}


def test_raw_buffer_bounds_hold_for_every_dword(bench: Any) -> None:
    listing = """
    e0540004 08410401  buffer_load_b64 v[4:5], v1, s[4:7], s8 offen offset:4
    bf8903f7           s_waitcnt vmcnt(0)
    e0680000 80410201  buffer_store_b32 v2, v1, s[4:7], 0 offen
    e0d44000 80410301  buffer_atomic_add_u32 v3, v1, s[4:7], 0 offen glc
    bf8903f7           s_waitcnt vmcnt(0)
    """
    data = bench.array(np.arange(64, dtype=np.uint32))
    rows = {1: LANE * 4, 2: LANE + 100, 3: np.ones(32, np.uint32)}
    sgprs = descriptor(data, records=84) | {8: 8}
    (v3, v4, v5), _ = bench.run_wave(listing, vgprs=rows, read=[3, 4, 5], sgprs=sgprs)
    dword = LANE + 3  # 4 of the instruction and 8 of the scalar offset
    np.testing.assert_array_equal(v4, np.where(dword < 21, dword, 0))
    np.testing.assert_array_equal(v5, np.where(dword + 1 < 21, dword + 1, 0))
    np.testing.assert_array_equal(v3, np.where(LANE < 21, LANE + 100, 0))
    after = np.where(np.arange(64) < 21, np.arange(64) + 101, np.arange(64))
    np.testing.assert_array_equal(bench.read(data, "u4", 64), after)


def test_structured_buffers_are_indexed_and_bounded_by_their_records(bench: Any) -> None:
    listing = """
    e0500000 80c10401  buffer_load_b32 v4, v[1:2], s[4:7], 0 idxen offen
    bf8903f7           s_waitcnt vmcnt(0)
    """
    data = bench.array(np.arange(256, dtype=np.uint32))
    rows = {1: LANE, 2: np.where(LANE == 3, 12, 4)}
    sgprs = descriptor(data, stride=12, records=20, word3=22 << 12 | 0xFAC)
    (v4,), _ = bench.run_wave(listing, vgprs=rows, read=[4], sgprs=sgprs)
    np.testing.assert_array_equal(v4, np.where((LANE < 20) & (LANE != 3), LANE * 3 + 1, 0))


def test_swizzled_buffers_interleave_their_elements(bench: Any) -> None:
    listing = """
    e0500000 80c10401  buffer_load_b32 v4, v[1:2], s[4:7], 0 idxen offen
    bf8903f7           s_waitcnt vmcnt(0)
    """
    data = bench.array(np.arange(256, dtype=np.uint32))
    # Swizzle of 4-byte elements over index strides of 8.
    sgprs = descriptor(data, stride=16, records=32, word3=22 << 12 | 0xFAC)
    sgprs[5] |= 1 << 30
    (v4,), _ = bench.run_wave(listing, vgprs={1: LANE, 2: np.full(32, 8, np.uint32)}, read=[4], sgprs=sgprs)
    np.testing.assert_array_equal(v4, (LANE // 8 * 4 + 2) * 8 + LANE % 8)


def test_typed_buffers_convert_their_elements(bench: Any) -> None:
    listing = """
    e00c0000 80810401  buffer_load_format_xyzw v[4:7], v1, s[4:7], 0 idxen
    e8e08000 80810801  tbuffer_load_format_xy v[8:9], v1, s[4:7], 0 format:[BUF_FMT_16_16_SINT] idxen
    bf8903f7           s_waitcnt vmcnt(0)
    e9538000 80820401  tbuffer_store_format_xyzw v[4:7], v1, s[8:11], 0 format:[BUF_FMT_8_8_8_8_UNORM] idxen
    e0240000 80810a01  buffer_load_d16_format_xy v10, v1, s[4:7], 0 idxen
    bf8903f7           s_waitcnt vmcnt(0)
    """
    octets = np.random.default_rng(4).integers(0, 256, (32, 4), dtype=np.uint8)
    data, copy = bench.array(octets), bench.array(np.zeros((32, 4), np.uint8))
    # Format 42 is 8_8_8_8_UNORM; Z and X are exchanged by DST_SEL.
    word3 = 42 << 12 | 6 | 5 << 3 | 4 << 6 | 7 << 9
    sgprs = descriptor(data, stride=4, records=32, word3=word3)
    sgprs |= {register + 4: value for register, value in descriptor(copy, stride=4, records=32, word3=word3).items()}
    results, _ = bench.run_wave(listing, vgprs={1: LANE}, read=range(4, 11), sgprs=sgprs)
    floats = octets.astype(np.float32) / np.float32(255)
    for result, column in zip(results, (2, 1, 0, 3), strict=False):
        np.testing.assert_allclose(result.view(np.float32), floats[:, column], rtol=1e-7)
    np.testing.assert_array_equal(results[4].view(np.int32), octets.view(np.int16)[:, 0])
    np.testing.assert_array_equal(results[5].view(np.int32), octets.view(np.int16)[:, 1])
    np.testing.assert_array_equal(bench.read(copy, "u1", 32, 4), octets[:, [2, 1, 0, 3]])
    halves = results[6].view(np.float16).reshape(32, 2)
    np.testing.assert_array_equal(halves, floats[:, [2, 1]].astype(np.float16))


def test_scalar_loads_differ_between_waves(bench: Any) -> None:
    listing = """
    f4040100 f8000000  s_load_b64 s[4:5], s[0:1], null
    bf89fc07           s_waitcnt lgkmcnt(0)
    84068308           s_lshl_b32 s6, s8, 3
    f4040282 0c000004  s_load_b64 s[10:11], s[4:5], s6 offset:0x4
    bf89fc07           s_waitcnt lgkmcnt(0)
    30020082           v_lshlrev_b32_e32 v1, 2, v0
    84068708           s_lshl_b32 s6, s8, 7
    4a020206           v_add_nc_u32_e32 v1, s6, v1
    7e04020b           v_mov_b32_e32 v2, s11
    dc6a0800 00040201  global_store_b32 v1, v2, s[4:5] offset:2048
    bfb00000           s_endpgm
    """
    data = bench.array(np.concatenate((np.arange(512), np.zeros(512))).astype(np.uint32))
    bench.launch(bench.assemble(listing), (4,), (32,), data)
    stored = bench.read(data, "u4", 1024)[512:640].reshape(4, 32)
    np.testing.assert_array_equal(stored, np.repeat(np.arange(4)[:, None] * 2 + 2, 32, axis=1))


def test_private_memory_beyond_its_size_faults(bench: Any) -> None:
    source = """
define amdgpu_kernel void @k(ptr addrspace(1) %out, i32 %at) {
  %a = alloca [16 x i32], addrspace(5)
  %p = getelementptr i32, ptr addrspace(5) %a, i32 %at
  store volatile i32 5, ptr addrspace(5) %p
  %v = load volatile i32, ptr addrspace(5) %p
  store i32 %v, ptr addrspace(1) %out
  ret void
}
"""
    kernel, out = bench.load(source), bench.array(np.zeros(1, np.uint32))
    bench.launch(kernel, (1,), (64,), out, np.int32(15))
    assert bench.read(out, "u4", 1)[0] == 5
    with pytest.raises(ShaderFault, match="private memory"):
        bench.launch(kernel, (1,), (64,), out, np.int32(4096))


@pytest.mark.parametrize("features", ["", "-wavefrontsize32,+wavefrontsize64"])
def test_private_memory_is_the_same_through_flat_pointers(bench: Any, features: str) -> None:
    source = """
declare i32 @llvm.amdgcn.workitem.id.x()
define internal void @fill(ptr %p, i32 %n) noinline {
  br label %l
l:
  %j = phi i32 [0,%0],[%j1,%l]
  %q = getelementptr i8, ptr %p, i32 %j
  %v = mul i32 %j, %n
  %b = trunc i32 %v to i8
  store i8 %b, ptr %q
  %j1 = add i32 %j, 1
  %d = icmp eq i32 %j1, 40
  br i1 %d, label %e, label %l
e:
  ret void
}
define amdgpu_kernel void @k(ptr addrspace(1) %out) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %a = alloca [40 x i8], addrspace(5)
  %f = addrspacecast ptr addrspace(5) %a to ptr
  call void @fill(ptr %f, i32 %i)
  %at = and i32 %i, 31
  %p = getelementptr i8, ptr addrspace(5) %a, i32 %at
  %v = load i64, ptr addrspace(5) %p, align 1
  %o = getelementptr i64, ptr addrspace(1) %out, i32 %i
  store i64 %v, ptr addrspace(1) %o
  ret void
}
"""
    out = bench.array(np.zeros(128, np.uint64))
    bench.launch(bench.load(source, features=features), (1,), (128,), out)
    item = np.arange(128)
    octets = (np.arange(40)[None, :] * item[:, None]).astype(np.uint8)
    expected = [octets[i, (i & 31) : (i & 31) + 8].copy().view(np.uint64)[0] for i in item]
    np.testing.assert_array_equal(bench.read(out, "u8", 128), expected)
