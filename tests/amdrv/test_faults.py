"""Contract of fault decoding."""

from __future__ import annotations

import pytest

from amdrv.blocks.gmc import HubFault
from amdrv.blocks.ih import Interrupt, decode
from amdrv.facts.ih import ENTRY, Client, GfxSource, SqEncoding, SqError
from amdrv.faults import PAGE_FAULT, from_hub, from_interrupt, merge


def interrupt(client: int, source: int, data0: int = 0, data1: int = 0, ring: int = 0) -> Interrupt:
    dwords = ENTRY.encode(CLIENT_ID=client, SOURCE_ID=source, RING_ID=ring, VMID=0, DATA0=data0, DATA1=data1)
    return decode(b"".join(dword.to_bytes(4, "little") for dword in dwords))


def wave(encoding: int, kind: int, privileged: bool = False) -> Interrupt:
    data = kind << 21 | privileged << 26 | encoding << 38 | 3 << 27 | 1 << 34
    return interrupt(Client.GRBM_CP, GfxSource.SQ_INTERRUPT_ID, data & 0xFFFFFFFF, data >> 32)


# Linux 6.12 gmc_v11_0.c: gmc_v11_0_process_interrupt
@pytest.mark.parametrize(("data1", "access"), [(0x2, "read"), (0x22, "write")])
def test_page_fault_tells_address_and_access(data1: int, access: str) -> None:
    record = from_interrupt(interrupt(Client.GFX, GfxSource.UTCL2_FAULT, 0x00100005, data1))
    assert record is not None
    assert (record.kind, record.address, record.access) == (PAGE_FAULT, 0x2001_0000_5000, access)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (SqError.ILLEGAL_INSTRUCTION, "illegal instruction"),
        (SqError.MEMORY_VIOLATION, "memory violation"),
        (SqError.EDC_FUE, "memory error"),
        (9, "shader error"),
    ],
)
def test_wave_error_is_named(kind: int, name: str) -> None:
    record = from_interrupt(wave(SqEncoding.ERROR, kind))
    assert record is not None
    assert record.kind == name
    assert "wave 3" in record.detail and "WGP 1" in record.detail


def test_message_of_a_trap_handler_is_a_trap_and_a_programs_own_and_automatic_ones_are_no_fault() -> None:
    record = from_interrupt(wave(SqEncoding.WAVE, 0, privileged=True))
    assert record is not None and record.kind == "trap"
    assert from_interrupt(wave(SqEncoding.WAVE, 0)) is None
    assert from_interrupt(wave(SqEncoding.AUTO, 0)) is None


def test_command_processor_fault_names_its_queue() -> None:
    record = from_interrupt(interrupt(Client.GRBM_CP, GfxSource.CP_BAD_OPCODE_ERROR, ring=1 << 2 | 2 << 4))
    assert record is not None
    assert (record.kind, record.detail) == ("bad packet", "micro engine 1, pipe 0, queue 2")


@pytest.mark.parametrize("client", [Client.GRBM_CP, Client.GFX, Client.MP1, Client.VMC])
def test_end_of_pipe_and_foreign_interrupts_are_no_faults(client: int) -> None:
    assert from_interrupt(interrupt(client, GfxSource.CP_EOP_INTERRUPT)) is None


def hub_fault(address: int, **change: object) -> HubFault:
    values = {"vmid": 0, "client": "TCP", "write": True, "status": 1, "walker_error": 0, "permission_faults": 0}
    return HubFault("graphics hub", address, mapping_error=False, **{**values, **change})  # type: ignore[arg-type]


def test_hub_status_is_told_in_words() -> None:
    record = from_hub(hub_fault(0x5000, permission_faults=0b101, walker_error=3))
    assert record.detail == "no valid entry, write not allowed, the walk ended at PDE1, graphics hub"
    assert str(record).startswith("page fault at 0x5000 by TCP (write): no valid entry")


def test_interrupt_and_hub_status_of_one_fault_are_one_record() -> None:
    entries = [interrupt(Client.GFX, 0, page) for page in (5, 6)]
    records = merge(entries, [hub_fault(0x5000)])
    assert [(r.address, r.client) for r in records] == [(0x5000, "TCP"), (0x6000, "")]
    assert records[0].raw == entries[0].raw


def test_hub_status_without_an_interrupt_is_not_lost() -> None:
    assert [r.address for r in merge([], [hub_fault(0x9000)])] == [0x9000]


def test_whoever_reads_only_to_execute_did_so() -> None:
    assert from_hub(hub_fault(0x5000, client="SQC (inst)", write=False)).access == "execute"
    assert from_hub(hub_fault(0x5000, client="SQC (data)", write=False)).access == "read"


def test_a_hub_that_knows_more_of_the_address_than_the_interrupt_tells_of_the_same_fault() -> None:
    records = merge([interrupt(Client.GFX, 0, 5)], [hub_fault(0x1234_0000_0000_5000)])
    assert [(r.address, r.client) for r in records] == [(0x1234_0000_0000_5000, "TCP")]
