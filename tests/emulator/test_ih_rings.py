"""Two interrupt rings: redirection, self interrupt, overflow, read pointers by doorbell; ring 0 alone interrupts."""

from __future__ import annotations

from typing import Any

import pytest

from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.facts.doorbells import Doorbell
from amdrv.facts.ih import ENTRY, ENTRY_BYTES
from amdrv.facts.ih_ids import Client, GfxSource

RING1_BYTES = 256
FAULT = (Client.GFX, GfxSource.UTCL2_FAULT)  # what Linux redirects: client 0xa, source 0 (ih_v6_0_irq_init)


class Rings:
    """Ring 0 as the rig has it, and ring 1 beside it."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        self.ih = rig.card.model(IhModel)
        self.second = rig.memory.take()
        rig.write("OSSSYS.IH_RB_BASE_RING1", rig.mc(self.second) >> 8 & 0xFFFF_FFFF)
        rig.write("OSSSYS.IH_RB_BASE_HI_RING1", rig.mc(self.second) >> 40)
        size = (RING1_BYTES // 4).bit_length() - 1
        self.enable(RB_SIZE=size)
        rig.write("OSSSYS.IH_RING1_CLIENT_CFG_INDEX", 0)
        redirect = rig.register("OSSSYS.IH_RING1_CLIENT_CFG_DATA")
        rig.write(
            "OSSSYS.IH_RING1_CLIENT_CFG_DATA",
            redirect.encode(CLIENT_ID=FAULT[0], SOURCE_ID=FAULT[1], SOURCE_ID_MATCH_ENABLE=1),
        )

    def enable(self, **fields: int) -> None:
        values = {"RB_ENABLE": 1, "MC_SPACE": 4, "RB_FULL_DRAIN_ENABLE": 1, **fields}
        self.rig.write("OSSSYS.IH_RB_CNTL_RING1", self.rig.register("OSSSYS.IH_RB_CNTL_RING1").encode(**values))

    def post(self, client: int, source: int, data: int = 0) -> None:
        self.ih.post(client, source, 0, 0, 0, (data, 0, 0, 0))

    def entry(self, number: int) -> dict[str, int]:
        raw = bytes(self.rig.card.vram_view(self.second + number * ENTRY_BYTES, ENTRY_BYTES))
        return ENTRY.decode([int.from_bytes(raw[at : at + 4], "little") for at in range(0, ENTRY_BYTES, 4)])

    def wptr(self) -> int:
        return int(self.rig.read("OSSSYS.IH_RB_WPTR_RING1"))


@pytest.fixture
def rings(rig: Any) -> Rings:
    return Rings(rig)


def test_redirected_source_lands_in_ring_1_and_ring_0_says_so(rings: Rings) -> None:
    rings.post(*FAULT, 0x42)
    assert rings.wptr() == ENTRY_BYTES
    assert rings.entry(0)["DATA0"] == 0x42
    (self_interrupt,) = rings.rig.interrupts()
    assert (self_interrupt["CLIENT_ID"], self_interrupt["SOURCE_ID"], self_interrupt["RING_ID"]) == (Client.IH, 0, 1)
    assert self_interrupt["DATA0"] == ENTRY_BYTES  # where ring 1's write pointer is


def test_other_sources_of_the_client_stay_in_ring_0(rings: Rings) -> None:
    rings.post(Client.GFX, GfxSource.SDMA_TRAP, 7)
    assert rings.wptr() == 0
    (entry,) = rings.rig.interrupts()
    assert entry["SOURCE_ID"] == GfxSource.SDMA_TRAP


def test_redirection_without_source_match_takes_the_whole_client(rings: Rings) -> None:
    redirect = rings.rig.register("OSSSYS.IH_RING1_CLIENT_CFG_DATA")
    rings.rig.write("OSSSYS.IH_RING1_CLIENT_CFG_DATA", redirect.encode(CLIENT_ID=Client.GFX))
    rings.post(Client.GFX, GfxSource.SDMA_TRAP)
    assert rings.wptr() == ENTRY_BYTES


def test_ring_1_that_is_off_leaves_everything_to_ring_0(rings: Rings) -> None:
    rings.enable(RB_ENABLE=0)
    rings.post(*FAULT, 3)
    (entry,) = rings.rig.interrupts()
    assert (entry["CLIENT_ID"], entry["DATA0"]) == (Client.GFX, 3)


def test_full_ring_1_loses_the_new_entry_and_keeps_the_old_ones(rings: Rings) -> None:
    room = RING1_BYTES // ENTRY_BYTES - 1
    for number in range(room + 2):
        rings.post(*FAULT, number)
    assert rings.wptr() == room * ENTRY_BYTES
    assert [rings.entry(number)["DATA0"] for number in range(room)] == list(range(room))
    assert rings.ih.dropped == 2
    assert rings.rig.register("OSSSYS.IH_STATUS").decode(rings.rig.read("OSSSYS.IH_STATUS")).RB1_FULL


def test_ring_1_with_overflow_enabled_flags_it_until_it_is_cleared(rings: Rings) -> None:
    size = (RING1_BYTES // 4).bit_length() - 1
    rings.enable(RB_SIZE=size, WPTR_OVERFLOW_ENABLE=1)
    for number in range(RING1_BYTES // ENTRY_BYTES):
        rings.post(*FAULT, number)
    assert rings.wptr() & 1
    rings.enable(RB_SIZE=size, WPTR_OVERFLOW_ENABLE=1, WPTR_OVERFLOW_CLEAR=1)
    assert not rings.wptr() & 1


def test_each_ring_has_its_own_doorbell_for_the_read_pointer(rings: Rings) -> None:
    rig = rings.rig
    for number, suffix in enumerate(("", "_RING1")):
        name = f"OSSSYS.IH_DOORBELL_RPTR{suffix}"
        rig.write(name, rig.register(name).encode(OFFSET=2 * (Doorbell.IH + number), ENABLE=1))
    rig.card.write_doorbell(8 * (Doorbell.IH + 1), 4, 2 * ENTRY_BYTES)
    assert rig.read("OSSSYS.IH_RB_RPTR_RING1") == 2 * ENTRY_BYTES
    assert rig.read("OSSSYS.IH_RB_RPTR") == 0
    rig.card.write_doorbell(8 * Doorbell.IH, 4, ENTRY_BYTES)
    assert rig.read("OSSSYS.IH_RB_RPTR") == ENTRY_BYTES


def test_entries_left_behind_interrupt_again_when_the_read_pointer_moves(rings: Rings) -> None:
    rig = rings.rig
    for number in range(3):
        rings.post(Client.GFX, GfxSource.SDMA_TRAP, number)
    assert rig.card.interrupts_delivered == 3
    rig.write("OSSSYS.IH_RB_RPTR", ENTRY_BYTES)
    assert rig.card.interrupts_delivered == 4
    rig.write("OSSSYS.IH_RB_RPTR", 3 * ENTRY_BYTES)
    assert rig.card.interrupts_delivered == 4


def test_reset_forgets_both_rings(rings: Rings) -> None:
    rings.post(*FAULT)
    rings.rig.card.reset_chip(0.0)
    assert rings.wptr() == 0
    assert rings.rig.read("OSSSYS.IH_RB_CNTL_RING1") == 0
    rings.rig.write("OSSSYS.IH_RING1_CLIENT_CFG_INDEX", 0)
    assert rings.rig.read("OSSSYS.IH_RING1_CLIENT_CFG_DATA") == 0
