"""Packets and messages of copy engines and scheduler, against words and offsets that the kernel's code gives."""

from __future__ import annotations

from types import ModuleType

import pytest

from amdrv.facts import aql, mes_v11, mes_v12
from amdrv.facts import sdma_v6_0 as sdma
from amdrv.facts.atomics import AtomicOpcode
from amdrv.facts.layout import StructLayout
from amdrv.facts.mqd_v11 import V11_GFX_MQD
from amdrv.registers.fields import BitLayout

# Byte offsets of members of union MESAPI__ADD_QUEUE under #pragma pack(4), as read out of frames that Linux 6.12 sent.
ADD_QUEUE_BYTES = {
    "process_id": 4,
    "page_table_base_addr": 8,
    "doorbell_offset": 72,
    "mqd_addr": 76,
    "wptr_addr": 84,
    "queue_type": 108,
    "api_status_api_completion_fence_addr": 148,
}
ADD_QUEUE_FLAGS = {"is_kfd_process": 0x200, "is_aql_queue": 0x800, "map_legacy_kq": 0x2000}  # of the dword at 144


@pytest.mark.parametrize(("name", "byte"), ADD_QUEUE_BYTES.items())
def test_members_of_add_queue_are_where_the_kernel_puts_them(name: str, byte: int) -> None:
    assert mes_v11.ADD_QUEUE.fields[name].lo == 8 * byte


@pytest.mark.parametrize(("name", "mask"), ADD_QUEUE_FLAGS.items())
def test_flags_of_add_queue_have_the_kernels_bits(name: str, mask: int) -> None:
    assert mes_v11.ADD_QUEUE.fields[name].mask == mask << 8 * 144


@pytest.mark.parametrize(
    ("name", "byte"),
    # As gcc places them under the #pragma pack(8) of mes_v12_api_def.h.
    [("page_table_base_addr", 8), ("mqd_addr", 80), ("queue_type", 112), ("paging", 148),
     ("api_status_api_completion_fence_addr", 152), ("pipe_id", 200)],
)  # fmt: skip
def test_version_12_aligns_members_to_their_size(name: str, byte: int) -> None:
    assert mes_v12.ADD_QUEUE.fields[name].lo == 8 * byte


@pytest.mark.parametrize(("facts", "count"), [(mes_v11, 16), (mes_v12, 15)])
def test_every_message_is_a_frame_of_64_dwords(facts: ModuleType, count: int) -> None:
    frames = [item for item in vars(facts).values() if isinstance(item, BitLayout) and item.name != "HEADER"]
    assert len(frames) == count
    assert {frame.dwords for frame in frames} == {64}
    for frame in frames:
        assert frame.fields["header_opcode"] == facts.HEADER.fields["opcode"]
        assert frame.fields["api_status_api_completion_fence_addr"].width == 64


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        # sdma_v6_0_ring_emit_fence: OP 5, MTYPE UC
        (sdma.FENCE.encode(op=5, mtype=3, addr=0x12_3456_7890, data=7), (0x0003_0005, 0x3456_7890, 0x12, 7)),
        # sdma_v6_0_ring_emit_ib: OP 4, VMID in bits 19:16
        (
            sdma.INDIRECT.encode(op=4, vmid=9, ib_base=0x80_0000_0020, ib_size=64, csa_addr=0),
            (0x0009_0004, 0x20, 0x80, 64, 0, 0),
        ),
        # sdma_v6_0_ring_emit_hdp_flush: HDP_FLUSH 1, FUNC 3, retry 0xfff, interval 10
        (
            sdma.POLL_REGMEM.encode(
                op=8, hdp_flush=1, func=3, addr=0x200 << 32 | 0x100, value=4, mask=4, retry_count=0xFFF, interval=10
            ),
            (0x3400_0008, 0x100, 0x200, 4, 4, 0x0FFF_000A),
        ),
        # sdma_v6_0_ring_emit_pipeline_sync: MEM_POLL in bit 31
        (
            sdma.POLL_REGMEM.encode(op=8, func=3, mem_poll=1, addr=0x1_0000_0004, value=1, mask=2),
            (0xB000_0008, 4, 1, 1, 2, 0),
        ),
        # sdma_v6_0_ring_emit_wreg
        (sdma.SRBM_WRITE.encode(op=14, byte_en=0xF, addr=0x2345, data=6), (0xF000_000E, 0x2345, 6)),
        # sdma_v6_0_emit_fill_buffer, sdma_v6_0_vm_set_pte_pde, sdma_v6_0_emit_copy_buffer
        (sdma.CONSTANT_FILL.encode(op=11, dst_addr=0x1000, src_data=5, count=0xFF), (11, 0x1000, 0, 5, 0xFF)),
        (
            sdma.WRITE_INCR.encode(op=12, dst_addr=8, mask_dw0=0x71, init_dw0=0x1000, incr_dw0=0x1000, count=1),
            (12, 8, 0, 0x71, 0, 0x1000, 0, 0x1000, 0, 1),
        ),
        (sdma.COPY_LINEAR.encode(op=1, count=63, src_addr=1, dst_addr=2 << 32), (1, 63, 0, 1, 0, 0, 2)),
        # sdma_v6_0_ring_emit_vm_flush: SUB_OP 4, engines in bits 20:16 and 28:24, acknowledge below the range's top
        (
            sdma.VM_INVALIDATION.encode(
                op=8, sub_op=4, gfx_eng_id=5, mm_eng_id=0x1F, invalidatereq=0xF80001, addressrangelo=0xFFFF_FFFF,
                invalidateack=2, addressrangehi=0x1F,
            ),
            (0x1F05_0408, 0xF8_0001, 0xFFFF_FFFF, 0x001F_0002),
        ),
    ],
    ids=["fence", "buffer", "hdp flush", "pipeline sync", "register", "fill", "entries", "copy", "vm flush"],
)  # fmt: skip
def test_packet_has_the_words_that_the_kernel_emits(packet: tuple[int, ...], words: tuple[int, ...]) -> None:
    assert packet == words


def test_atomic_opcodes_differ_by_width_and_return_in_one_bit_each() -> None:
    for name in ("ADD", "SUB", "CMPSWAP", "UMAX", "DEC"):
        with_return = AtomicOpcode[f"{name}_RTN_32"]
        assert AtomicOpcode[f"{name}_RTN_64"] == with_return | 0x20
        assert AtomicOpcode[f"{name}_32"] == with_return | 0x40


@pytest.mark.parametrize(
    ("name", "dword"),
    [("cp_mqd_base_addr", 128), ("cp_gfx_hqd_active", 130), ("cp_gfx_hqd_cntl", 145), ("cp_gfx_hqd_wptr", 149)],
)
def test_members_of_the_graphics_descriptor(name: str, dword: int) -> None:
    """v11_structs.h, offsets in its comments. From the control word on registers lie elsewhere than members."""
    assert V11_GFX_MQD.dword(name) == dword


@pytest.mark.parametrize(
    ("layout", "name", "byte"),
    [
        (aql.KERNEL_DISPATCH, "completion_signal", 56),
        (aql.BARRIER, "dep_signal", 8),
        (aql.SIGNAL, "value", 8),
        (aql.QUEUE, "write_dispatch_id", 56),
        (aql.QUEUE, "read_dispatch_id", 128),
        (aql.QUEUE, "queue_inactive_signal", 192),
        (aql.KERNEL_DESCRIPTOR, "kernel_code_properties", 56),
    ],
)
def test_members_of_the_runtimes_structures(layout: StructLayout, name: str, byte: int) -> None:
    assert layout.offset(name) == byte
