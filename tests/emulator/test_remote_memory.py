"""System memory behind messages, and what the card does when the bus answers differently from before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from amdrv.emulator import atomics, remote_memory
from amdrv.emulator.arena import BusError
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.isa.dispatch import Access, MemoryViolation
from amdrv.emulator.models.gfxhub_3_0 import Gfxhub
from amdrv.emulator.models.vmhub import HubView
from amdrv.emulator.shell import Card
from amdrv.facts.atomics import AtomicOpcode

MIB = 1 << 20
PAGE = 4096
ROOT, LEAF_TABLE = 0x10_0000, 0x10_3000
VA, BUS = 0x4000_0000, 0x7_0000_0000
SYSTEM_PAGE = 0x20 | 0x40 | 0x10 | 2 | 1  # readable, writeable, executable, system, valid
COMMAND, DECODE, MASTER = 4, 2, 4


class Client:
    """Memory of somebody else, and what was asked of it."""

    def __init__(self, pages: int = 4) -> None:
        self.memory = bytearray(pages * PAGE)
        self.asked: list[tuple[str, int, int]] = []
        self.fails = False

    def read(self, address: int, size_bytes: int) -> bytes:
        self._note("read", address, size_bytes)
        return bytes(self.memory[address - BUS : address - BUS + size_bytes])

    def write(self, address: int, data: bytes) -> None:
        self._note("write", address, len(data))
        self.memory[address - BUS : address - BUS + len(data)] = data

    def _note(self, what: str, address: int, size_bytes: int) -> None:
        self.asked.append((what, address - BUS, size_bytes))
        if self.fails:
            raise BusError(address, size_bytes, "refused")


def write_gc(card: Card, name: str, value: int) -> None:
    card.write_register(card.registers["GC", name].address, value)


@pytest.fixture
def card() -> Card:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    card.write_config(COMMAND, 2, DECODE | MASTER)
    control = card.registers.gc.GCVM_CONTEXT0_CNTL.encode(ENABLE_CONTEXT=1, PAGE_TABLE_DEPTH=3)
    write_gc(card, "GCVM_CONTEXT0_CNTL", control)
    write_gc(card, "GCVM_CONTEXT0_PAGE_TABLE_BASE_ADDR_LO32", ROOT | 1)
    write_gc(card, "GCVM_CONTEXT0_PAGE_TABLE_END_ADDR_LO32", 0xFFFF_FFFF)
    tables = {ROOT + 8 * (VA >> 39 & 511): ROOT + 0x1000, ROOT + 0x1000 + 8 * (VA >> 30 & 511): ROOT + 0x2000}
    tables[ROOT + 0x2000 + 8 * (VA >> 21 & 511)] = LEAF_TABLE
    for place, table in tables.items():
        card.vram_view(place, 8)[:] = (table | 1).to_bytes(8, "little")
    for page in range(4):
        card.vram_view(LEAF_TABLE + 8 * page, 8)[:] = (BUS + page * PAGE | SYSTEM_PAGE).to_bytes(8, "little")
    return card


@pytest.fixture
def client(card: Card) -> Client:
    client = Client()
    card.arena.map_remote(BUS, 4 * PAGE, client)
    return client


@pytest.fixture
def view(card: Card) -> HubView:
    return card.model(Gfxhub).view(0)


def lanes(*offsets: int) -> np.ndarray:
    return np.array([VA + offset for offset in offsets], np.uint64)


# -- engines ----------------------------------------------------------------------------------------------------------


def test_engine_exchanges_the_bytes_of_its_access_and_no_others(client: Client, view: HubView) -> None:
    client.memory[PAGE - 2 : PAGE + 2] = b"abcd"
    assert view.read(VA + PAGE - 2, 4) == b"abcd"
    view.write(VA + 8, b"12345678")
    assert client.memory[8:16] == b"12345678"
    assert client.asked[-1] == ("write", 8, 8)
    assert sum(size for what, _, size in client.asked if what == "read") == 4


def test_engine_sees_what_the_client_changed_since(client: Client, view: HubView) -> None:
    for value in (b"old!", b"new!"):
        client.memory[:4] = value
        assert view.read(VA, 4) == value


def test_atomic_is_a_read_and_a_write(client: Client, view: HubView) -> None:
    client.memory[16:24] = (41).to_bytes(8, "little")
    assert atomics.update(view, AtomicOpcode.ADD_RTN_32 | atomics.WIDE, VA + 16, 1, 0) == 41
    assert client.memory[16:24] == (42).to_bytes(8, "little")
    assert client.asked[-2:] == [("read", 16, 8), ("write", 16, 8)]


def test_page_table_in_the_clients_memory_is_walked(card: Card, client: Client, view: HubView) -> None:
    client.memory[PAGE : PAGE + 8] = (0x20_0000 | 0x61).to_bytes(8, "little")
    card.vram_view(ROOT + 0x2000 + 8 * (VA >> 21 & 511), 8)[:] = (BUS + PAGE | 3).to_bytes(8, "little")
    card.vram_view(0x20_0000, 4)[:] = b"leaf"
    assert view.read(VA, 4) == b"leaf"
    assert client.asked == [("read", PAGE, 8)]


@pytest.mark.parametrize("access", [
    lambda view: view.read(VA, 4),
    lambda view: view.write(VA, b"1234"),
    lambda view: view.translate(lanes(0), Access.READ),
    lambda view: view.extent(VA, Access.READ),
], ids=["read", "write", "lanes", "extent"])  # fmt: skip
def test_refusal_by_the_client_is_a_violation(
    client: Client, view: HubView, access: Callable[[HubView], object]
) -> None:
    client.fails = True
    with pytest.raises(MemoryViolation, match="refused"):
        access(view)


# -- shaders ----------------------------------------------------------------------------------------------------------


def test_shader_finds_the_page_in_the_arena_and_its_stores_go_out_at_the_end(
    card: Card, client: Client, view: HubView
) -> None:
    client.memory[100] = 7
    index = view.translate(lanes(100, PAGE + 5), Access.WRITE)
    assert card.arena.bytes[index].tolist() == [7, 0]
    card.arena.bytes[index] = [8, 9]
    assert client.memory[100] == 7
    card.arena.remote.settle()
    assert (client.memory[100], client.memory[PAGE + 5]) == (8, 9)
    assert [entry for entry in client.asked if entry[0] == "write"] == [("write", 100, 1), ("write", PAGE + 5, 1)]


def test_next_dispatch_looks_anew(card: Card, client: Client, view: HubView) -> None:
    for value in (1, 2):
        client.memory[0] = value
        index = view.translate(lanes(0), Access.READ)
        assert card.arena.bytes[index[0]] == value
        card.arena.remote.settle()


def test_long_dispatch_and_client_see_each_other(
    card: Card, client: Client, view: HubView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_memory, "FRESH_S", 0.0)
    index = int(view.translate(lanes(0), Access.WRITE)[0])
    card.arena.bytes[index] = 5
    client.memory[1] = 6
    view.translate(lanes(0), Access.READ)
    assert (client.memory[0], card.arena.bytes[index + 1]) == (5, 6)
    view.write(VA + 2, b"\7")  # another engine, beside the dispatch
    assert card.arena.bytes[index + 2] == 7
    card.arena.bytes[index + 3] = 8
    assert view.read(VA, 4) == b"\5\6\7\x08"


def test_extent_ends_with_the_page_that_was_brought(client: Client, view: HubView) -> None:
    first, end, _ = view.extent(VA + PAGE + 5, Access.READ)
    assert (first, end) == (VA + PAGE, VA + 2 * PAGE)


# -- what answers on the bus ------------------------------------------------------------------------------------------


def test_page_taken_off_the_bus_is_a_fault_although_its_translation_is_cached(
    card: Card, client: Client, view: HubView
) -> None:
    assert view.read(VA, 4) == bytes(4)
    card.arena.unmap(BUS, 4 * PAGE)
    accesses: list[Callable[[], object]] = [
        lambda: view.read(VA, 4),
        lambda: view.write(VA, b"late"),
        lambda: view.translate(lanes(0), Access.READ),
    ]
    for access in accesses:
        with pytest.raises(MemoryViolation):
            access()
    assert client.memory[:4] == bytes(4)


def test_cached_translation_leads_to_what_is_at_the_bus_address_now(card: Card, client: Client, view: HubView) -> None:
    view.read(VA, 4)
    card.arena.unmap(BUS, 4 * PAGE)
    other = Client(2)
    other.memory[:4] = b"here"
    card.arena.map_remote(BUS, 2 * PAGE, other)
    assert view.read(VA, 4) == b"here"
    with pytest.raises(MemoryViolation):
        view.read(VA + 2 * PAGE, 4)


def test_bus_mastering_that_goes_off_ends_accesses_through_cached_translations(
    card: Card, client: Client, view: HubView
) -> None:
    assert view.read(VA, 4) == bytes(4)
    card.write_config(COMMAND, 2, DECODE)
    with pytest.raises(MemoryViolation):
        view.read(VA, 4)
    card.write_config(COMMAND, 2, DECODE | MASTER)
    assert view.read(VA, 4) == bytes(4)


@pytest.mark.parametrize(("readable", "writable"), [(True, False), (False, True), (False, False)])
def test_rights_on_the_bus_hold_as_those_of_the_page_do(
    card: Card, view: HubView, readable: bool, writable: bool
) -> None:
    client = Client(4)
    card.arena.map_remote(BUS, 4 * PAGE, client, readable=readable, writable=writable)
    accesses = ((readable, lambda: view.read(VA, 4)), (writable, lambda: view.write(VA, b"data")))
    for allowed, access in accesses:
        if allowed:
            access()
        else:
            with pytest.raises(MemoryViolation):
                access()


def test_host_memory_that_was_freed_is_out_of_reach_through_a_cached_translation(card: Card, view: HubView) -> None:
    address = card.arena.allocate_system(PAGE)
    card.vram_view(LEAF_TABLE, 8)[:] = (address | SYSTEM_PAGE).to_bytes(8, "little")
    view.write(VA, b"mine")
    card.arena.free_system(address, PAGE)
    with pytest.raises(MemoryViolation):
        view.read(VA, 4)
