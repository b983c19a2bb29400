"""Structure layouts: packing, and the offsets that a C compiler gives for the kernel's structures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amdrv.errors import InvalidArgument, MalformedInput, NotFound
from amdrv.facts import discovery, discovery_tables, psp, smu_v13_0_0
from amdrv.facts.layout import Member, StructLayout, dword_members
from amdrv.facts.mqd_v11 import V11_COMPUTE_MQD, V11_SDMA_MQD

SAMPLE = StructLayout("SAMPLE", 12, {"word": Member(0), "half": Member(4, 2, signed=True), "bytes": Member(6, 1, 4)})


def test_pack_puts_members_little_endian_and_zeroes_the_rest() -> None:
    assert SAMPLE.pack(word=0x01020304, half=-2, bytes=(7, 8)) == bytes.fromhex("04030201 feff 0708 0000 0000")


def test_pack_refuses_values_that_do_not_fit() -> None:
    with pytest.raises(InvalidArgument, match=r"SAMPLE\.word"):
        SAMPLE.pack(word=1 << 32)
    with pytest.raises(InvalidArgument, match=r"SAMPLE\.word"):
        SAMPLE.pack(word=-1)
    with pytest.raises(InvalidArgument, match="holds 4 elements"):
        SAMPLE.pack(bytes=(0,) * 5)


def test_an_unknown_member_is_not_found() -> None:
    with pytest.raises(NotFound, match="SAMPLE has no member missing"):
        SAMPLE.pack(missing=1)


def test_short_data_is_malformed() -> None:
    with pytest.raises(MalformedInput, match="needs 12 bytes"):
        SAMPLE.unpack(bytes(11))
    with pytest.raises(MalformedInput, match=r"SAMPLE\.half"):
        SAMPLE.get(bytes(5), "half")


def test_a_member_inside_a_dword_has_no_dword_index() -> None:
    assert SAMPLE.dword("half") == 1
    with pytest.raises(InvalidArgument, match="does not start a dword"):
        SAMPLE.dword("bytes")


def test_members_can_be_changed_in_place_behind_an_offset() -> None:
    data = bytearray(20)
    SAMPLE.put(data, "half", -1, at=8)
    assert data == bytes(12) + b"\xff\xff" + bytes(6)
    assert SAMPLE.get(data, "half", at=8) == -1


@given(
    st.integers(0, 0xFFFFFFFF),
    st.integers(-0x8000, 0x7FFF),
    st.tuples(*[st.integers(0, 255)] * 4),
    st.integers(0, 16),
)
def test_unpack_gives_back_what_was_packed(word: int, half: int, octets: tuple[int, ...], at: int) -> None:
    data = bytes(at) + SAMPLE.pack(word=word, half=half, bytes=octets)
    assert SAMPLE.unpack(data, at) == {"word": word, "half": half, "bytes": octets}


def test_dword_members_count_dwords() -> None:
    assert dword_members({"a": 0, "b": 130}) == {"a": Member(0), "b": Member(520)}


@pytest.mark.parametrize(
    ("name", "dword"),
    [
        # C offsetof over include/v11_structs.h, in dwords; the last are what a compute queue's set-up writes
        ("header", 0),
        ("compute_dispatch_initiator", 1),
        ("compute_num_thread_x", 8),
        ("compute_misc_reserved", 32),
        ("compute_user_data_0", 65),
        ("cp_mqd_base_addr_lo", 128),
        ("cp_hqd_active", 130),
        ("cp_hqd_pq_base_lo", 136),
        ("cp_hqd_pq_rptr", 138),
        ("cp_hqd_pq_rptr_report_addr_lo", 139),
        ("cp_hqd_pq_wptr_poll_addr_lo", 141),
        ("cp_hqd_pq_doorbell_control", 143),
        ("cp_hqd_pq_control", 145),
        ("cp_hqd_aql_control", 181),
        ("cp_hqd_pq_wptr_lo", 182),
    ],
)
def test_compute_queue_descriptor_members_lie_where_the_processor_reads_them(name: str, dword: int) -> None:
    assert V11_COMPUTE_MQD.dword(name) == dword


def test_queue_descriptors_have_their_sizes() -> None:
    assert V11_COMPUTE_MQD.size_bytes == 512 * 4
    assert V11_SDMA_MQD.size_bytes == 128 * 4
    assert [V11_SDMA_MQD.dword(f"sdmax_rlcx_rb_{name}") for name in ("cntl", "base", "base_hi")] == [0, 1, 2]


def test_psp_structures_lie_as_the_header_comments_say() -> None:
    # psp_gfx_if.h notes these offsets beside the members
    assert psp.RING_FRAME.size_bytes == 64
    assert psp.RING_FRAME.offset("fence_value") == 20
    assert psp.RING_FRAME.member("vmid") == Member(32, 1)
    assert psp.COMMAND_BUFFER.size_bytes == 1024
    assert psp.COMMAND_BUFFER.offset("cmd_id") == 8
    assert psp.COMMAND_BUFFER.offset("cmd") == 28
    assert psp.COMMAND_BUFFER.offset("resp") == 864
    assert psp.RESPONSE.size_bytes == 96
    assert psp.RESPONSE.offset("status") == 0
    assert psp.RESPONSE.offset("tmr_size") == 16
    assert psp.LOAD_IP_FW.offset("fw_type") == 12
    assert psp.SETUP_TMR.offset("system_phy_addr_lo") == 16


def test_every_psp_command_fits_the_command_buffer() -> None:
    room = psp.COMMAND_BUFFER.member("cmd").length
    commands = [psp.LOAD_TA, psp.UNLOAD_TA, psp.SETUP_TMR, psp.LOAD_IP_FW, psp.LOAD_TOC, psp.REG_PROG, psp.BOOT_CFG]
    assert all(command.size_bytes <= room for command in commands)


def test_smu_metrics_lie_where_a_compiler_puts_them() -> None:
    # gcc offsetof and sizeof over smu13_driver_if_v13_0_0.h
    metrics = smu_v13_0_0.METRICS
    assert metrics.size_bytes == 392
    assert metrics.member("CurrClock") == Member(0, 4, smu_v13_0_0.Clock.COUNT)
    assert metrics.member("AvgTemperature") == Member(120, 2, smu_v13_0_0.Temperature.COUNT)
    assert metrics.offset("ThrottlingPercentage") == 154
    assert metrics.offset("PublicSerialNumberUpper") == 240


def test_discovery_structures_have_their_packed_sizes() -> None:
    assert discovery_tables.BINARY_HEADER.size_bytes == 60
    assert discovery.TABLE_LIST_OFFSET + len(discovery.Table) * discovery_tables.TABLE_INFO.size_bytes == 60
    assert discovery_tables.IP_DISCOVERY_HEADER.size_bytes == 80
    assert discovery.WIDE_BASES_OFFSET == 78
    assert discovery.GC_INFO[1, 0].size_bytes == 88
    assert discovery.GC_INFO[1, 3].size_bytes == 164
    harvest = discovery_tables.HARVEST_HEADER.size_bytes
    assert harvest + discovery.HARVEST_ENTRIES * discovery_tables.HARVEST_INFO.size_bytes == 136


@pytest.mark.parametrize("newer", [(1, 1), (1, 2), (1, 3)])
def test_each_graphics_table_version_extends_the_one_before(newer: tuple[int, int]) -> None:
    older = discovery.GC_INFO[newer[0], newer[1] - 1]
    assert older.members.items() <= discovery.GC_INFO[newer].members.items()
