"""Packets of a launch, dword by dword, and the order in which a queue publishes them."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from amdrv.errors import InvalidArgument
from amdrv.registers import RegisterMap
from amdrv.runtime import packets
from amdrv.runtime.code_object import (
    DISPATCH_ID,
    DISPATCH_PTR,
    KERNARG_SEGMENT_PTR,
    PRIVATE_SEGMENT_SIZE,
    QUEUE_PTR,
    WAVEFRONT_SIZE32,
    KernelCode,
    KernelDescriptor,
)
from amdrv.runtime.kernarg import LaunchShape

GC = RegisterMap({"GC": {0: (0x1260, 0xA000, 0x1C000, 0x2402C00)}}, {"GC": (11, 0, 0)}).gc


def kernel(properties: int, *, rsrc2: int = 0x1234 << 24 & 0x7F000000, private_bytes: int = 0) -> KernelCode:
    """A kernel whose descriptor asks for ``properties``."""
    descriptor = KernelDescriptor(0, private_bytes, 0, 0, 0x60AF0042, rsrc2, 0x20, properties, 0)
    return KernelCode("k", descriptor, 0, 0, 0, (), 0, 8, 1024, None, False)


def test_acquire_is_what_the_kernel_driver_emits() -> None:
    # Linux 6.12 gfx_v11_0_emit_mem_sync: PACKET3(ACQUIRE_MEM, 6), coher control 0, size all ones in 32 + 24 bits,
    # base 0, poll interval 10, GL2 inv and wb, GLM inv and wb, GL1, GLV, GLK and GLI inv.
    gcr = 1 << 14 | 1 << 15 | 1 << 5 | 1 << 4 | 1 << 9 | 1 << 8 | 1 << 7 | 1 << 0
    assert packets.acquire_mem() == (0xC0065800, 0, 0xFFFFFFFF, 0x00FFFFFF, 0, 0, 0xA, gcr)


def test_release_is_what_the_kernel_driver_emits_for_a_64_bit_fence_with_interrupt() -> None:
    # Linux 6.12 gfx_v11_0_ring_emit_fence: PACKET3(RELEASE_MEM, 6), SEQ, GL2_WB, GLM_INV, GLM_WB, CACHE_POLICY(3),
    # event CACHE_FLUSH_AND_INV_TS (0x14) with index 5; DATA_SEL(2), INT_SEL(2).
    control = 1 << 22 | 1 << 21 | 1 << 13 | 1 << 12 | 3 << 25 | 0x14 | 5 << 8
    expected = (0xC0064900, control, 2 << 29 | 2 << 24, 0x3080, 0x2000, 0x90ABCDEF, 0x12345678, 0)
    assert packets.release_mem(0x2000_0000_3080, 0x1234567890ABCDEF) == expected


def test_a_timestamp_writes_the_clock_counter_and_confirms_it() -> None:
    header, control, select, low, high, *data = packets.timestamp(0x2000_0000_1008)
    assert (header, control & 0xFFF) == (0xC0064900, 0x14 | 5 << 8)
    assert select == 3 << 29 | 3 << 24  # nvd.h: 64-bit GPU counter; kfd_pm4_headers_ai.h: data after write confirm
    assert (low, high, data) == (0x1008, 0x2000, [0, 0, 0])


def test_the_queue_waits_as_the_kernel_driver_does() -> None:
    # gfx_v11_0_wait_reg_mem with memory space 1 and function >= (nvd.h: 5).
    expected = (0xC0053C00, 1 << 4 | 5, 0x3080, 0x2000, 7, 0xFFFFFFFF, 10)
    assert packets.wait_at_least(0x2000_0000_3080, (1 << 32) + 7) == expected


def test_write_data_confirms_its_memory_write() -> None:
    assert packets.write_data(0x1_0000_0004, 0xAA, 0xBB) == (0xC0043700, 5 << 8 | 1 << 20, 4, 1, 0xAA, 0xBB)


def test_an_indirect_buffer_names_place_and_length() -> None:
    assert packets.indirect_buffer(0x2000_0000_0100, 0x321) == (0xC0023F00, 0x100, 0x2000, 0x321 | 1 << 23)


@pytest.mark.parametrize(("dwords", "first"), [(1, 0xFFFF1000), (2, 0xC0001000), (5, 0xC0031000)])
def test_nops_have_the_length_asked_for(dwords: int, first: int) -> None:
    assert packets.nop(dwords)[0] == first
    assert len(packets.nop(dwords)) == dwords


def test_a_partial_flush_is_event_7_with_index_4() -> None:
    assert packets.cs_partial_flush() == (0xC0004600, 7 | 4 << 8)


def test_shader_registers_are_counted_from_their_window() -> None:
    # gc_11_0_0: COMPUTE_PGM_LO is 0x1bac in segment 0, which is at 0x1260; SET_SH_REG starts at 0x2c00.
    assert packets.set_sh(GC.COMPUTE_PGM_LO, 1, 2) == (0xC0027600, 0x20C, 1, 2)
    with pytest.raises(InvalidArgument, match="SET_SH_REG"):
        packets.set_sh(GC.GRBM_GFX_INDEX, 0)


@pytest.mark.parametrize("build", [packets.release_mem, packets.wait_at_least])
def test_misaligned_signals_are_refused(build: object) -> None:
    with pytest.raises(InvalidArgument, match="aligned"):
        build(0x1002, 1)  # type: ignore[operator]


VALUES = packets.LaunchValues(
    grid=(7, 5, 3),
    block=(64, 2, 1),
    kernarg_va=0x2000_0011_0040,
    lds_bytes=1000,
    scratch_va=0x2000_0000_0000,
    tmpring_size=0x1008,
    dispatch_packet_va=0x2000_0011_0140,
    queue_description_va=0x2000_0022_0400,
    dispatch_id=0x1_0000_0009,
    timestamps_va=0x2000_0011_0180,
    timeline_value=0x1_0000_0009,
)
CODE_VA, SIGNAL_VA = 0x2000_0033_0100, 0x2000_0022_0080


def test_a_launch_is_this_sequence_of_packets() -> None:
    code = kernel(KERNARG_SEGMENT_PTR | WAVEFRONT_SIZE32, rsrc2=0x139E)
    words = packets.LaunchTemplate(GC, code, CODE_VA, SIGNAL_VA, timed=False).fill(VALUES)
    expected = (
        *packets.acquire_mem(),
        *(0xC0027600, 0x20C, 0x0000_3301, 0x20),  # COMPUTE_PGM_LO, _HI: the address in 256-byte units
        *(0xC0047600, 0x210, 0, 0x20, 0x60AF0042, 0x139E | 2 << 15),  # scratch base, RSRC1, RSRC2 with 1 KiB LDS
        *(0xC0017600, 0x228, 0x20),  # COMPUTE_PGM_RSRC3
        *(0xC0017600, 0x218, 0x1008),  # COMPUTE_TMPRING_SIZE
        *(0xC0037600, 0x21B, 0, 0, 0),  # COMPUTE_RESTART_X..Z
        *(0xC0017600, 0x215, 0),  # COMPUTE_RESOURCE_LIMITS
        *(0xC0027600, 0x240, 0x0011_0040, 0x2000),  # COMPUTE_USER_DATA_0, _1
        *(0xC0087600, 0x204, 0, 0, 0, 64, 2, 1, 0, 0),  # COMPUTE_START_X.. NUM_THREAD_X.. and two enables
        *(0xC0031500, 7, 5, 3, 1 | 1 << 2 | 1 << 15),  # DISPATCH_DIRECT: shader enabled, start at 0, wave32
        *packets.cs_partial_flush(),
        *packets.release_mem(SIGNAL_VA, 0x1_0000_0009),
    )
    assert tuple(int(word) for word in words) == expected


def test_a_timed_launch_writes_its_start_and_end() -> None:
    code = kernel(WAVEFRONT_SIZE32)
    plain = packets.LaunchTemplate(GC, code, CODE_VA, SIGNAL_VA, timed=False).fill(VALUES)
    timed = packets.LaunchTemplate(GC, code, CODE_VA, SIGNAL_VA, timed=True).fill(VALUES)
    start, end = packets.timestamp(0x2000_0011_0180), packets.timestamp(0x2000_0011_0188)
    head, tail = 8, len(plain) - 8
    assert tuple(timed) == (*plain[:head], *start, *plain[head:tail], *end, *plain[tail:])


def test_wave64_kernels_do_not_ask_for_wave32() -> None:
    words = packets.LaunchTemplate(GC, kernel(0), CODE_VA, SIGNAL_VA, timed=False).fill(VALUES)
    assert (1 | 1 << 2) in words and (1 | 1 << 2 | 1 << 15) not in words


def test_user_registers_come_in_the_order_that_kernels_expect() -> None:
    code = kernel(DISPATCH_PTR | QUEUE_PTR | KERNARG_SEGMENT_PTR | DISPATCH_ID | PRIVATE_SEGMENT_SIZE, private_bytes=13)
    assert packets.user_data(code, VALUES) == [
        *(0x0011_0140, 0x2000),
        *(0x0022_0400, 0x2000),
        *(0x0011_0040, 0x2000),
        *(9, 1),
        16,
    ]
    only = kernel(DISPATCH_ID)
    assert packets.user_data(only, VALUES) == [9, 1]


def test_filling_a_template_leaves_it_as_it_was() -> None:
    template = packets.LaunchTemplate(GC, kernel(KERNARG_SEGMENT_PTR), CODE_VA, SIGNAL_VA, timed=True)
    first = template.fill(VALUES)
    template.fill(replace(VALUES, grid=(1, 1, 1), kernarg_va=0, lds_bytes=0))
    assert (template.fill(VALUES) == first).all()


def test_lds_beyond_the_field_is_refused_not_cut() -> None:
    template = packets.LaunchTemplate(GC, kernel(0), CODE_VA, SIGNAL_VA, timed=False)
    with pytest.raises(InvalidArgument, match="LDS_SIZE"):
        template.fill(replace(VALUES, lds_bytes=512 * 512))


def test_the_dispatch_packet_is_laid_out_as_hsa_says() -> None:
    code = kernel(DISPATCH_PTR, private_bytes=24)
    packet = packets.aql_packet(code, LaunchShape((7, 5, 3), (64, 2, 1), 2), 1000, 0x2000_0011_0040)
    assert len(packet) == 64
    assert struct.unpack_from("<HH3H", packet) == (2, 2, 64, 2, 1)
    assert struct.unpack_from("<3I", packet, 12) == (7 * 64, 5 * 2, 3)
    assert struct.unpack_from("<II", packet, 24) == (24, 1000)
    assert struct.unpack_from("<Q", packet, 40) == (0x2000_0011_0040,)


def test_the_queue_description_tells_where_the_flat_windows_are() -> None:
    block = packets.queue_description(0x1_0000_0000_0000, 0x2_0000_0000_0000)
    assert struct.unpack_from("<II", block, 0x40) == (0x10000, 0x20000)
