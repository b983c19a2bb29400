"""A client's memory as the card reaches it."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator

import pytest

from amdrv.emulator.arena import BusError
from amdrv.emulator.server.dma import MAPS_MAX

PAGE = 4096
GIB = 1 << 30
DMA_MAP = 2


class File:
    """A memory file of the client's, and what the client sees in it."""

    def __init__(self, pages: int) -> None:
        self.fd = os.memfd_create("client")
        os.ftruncate(self.fd, pages * PAGE)
        self.view = mmap.mmap(self.fd, pages * PAGE)

    def close(self) -> None:
        self.view.close()
        os.close(self.fd)


@pytest.fixture
def make_file() -> Iterator[Callable[[int], File]]:
    files: list[File] = []

    def make(pages: int = 4) -> File:
        files.append(File(pages))
        return files[-1]

    yield make
    for file in files:
        file.close()


def device_read(card, address: int, size: int = 4) -> bytes:
    return bytes(card.arena.view(card.arena.bus_index(address, size), size))


def device_write(card, address: int, data: bytes) -> None:
    card.arena.view(card.arena.bus_index(address, len(data)), len(data))[:] = data


@pytest.mark.parametrize("address", [0, PAGE, 0xFFFF_F000, 4 * GIB, 1 << 47, (1 << 64) - 4 * PAGE])
def test_memory_is_at_the_address_that_the_client_chose(client, card, make_file, address: int) -> None:
    file = make_file()
    client.map_memory(address, 4 * PAGE, file.fd)
    file.view[PAGE : PAGE + 4] = b"host"
    assert device_read(card, address + PAGE) == b"host"
    device_write(card, address + 4 * PAGE - 4, b"card")
    assert file.view[4 * PAGE - 4 :] == b"card"


def test_map_begins_at_an_offset_of_the_file(client, card, make_file) -> None:
    file = make_file()
    file.view[2 * PAGE : 2 * PAGE + 4] = b"here"
    client.map_memory(0x1000, PAGE, file.fd, offset=2 * PAGE)
    assert device_read(card, 0x1000) == b"here"


def test_one_file_is_mapped_in_pieces_as_a_virtual_machine_does(client, card, make_file) -> None:
    file = make_file(8)
    for first, pages in ((0, 2), (2, 1), (3, 5)):
        client.map_memory(first * PAGE, pages * PAGE, file.fd, offset=first * PAGE)
    for page in range(8):
        file.view[page * PAGE] = page + 1
        assert device_read(card, page * PAGE, 1)[0] == page + 1


def test_card_does_not_change_memory_that_it_may_only_read(client, card, make_file) -> None:
    file = make_file()
    file.view[:4] = b"rom!"
    client.map_memory(0, PAGE, file.fd, flags=1)
    assert device_read(card, 0) == b"rom!"
    assert card.arena.rights(0) == (True, False)


def test_memory_is_out_of_reach_after_its_unmapping(client, card, make_file) -> None:
    file = make_file()
    client.map_memory(0, 4 * PAGE, file.fd)
    index = card.arena.bus_index(0, 4)
    client.unmap_memory(0, 4 * PAGE)
    with pytest.raises(BusError):
        device_read(card, 0)
    card.arena.view(index, 4)[:] = b"late"  # a translation that the card still caches
    assert file.view[:4] == bytes(4)


def test_next_map_is_not_where_a_stale_translation_leads(client, card, make_file) -> None:
    client.map_memory(0, PAGE, make_file().fd)
    index = card.arena.bus_index(0, 4)
    client.unmap_memory(0, PAGE)
    other = make_file()
    client.map_memory(0x10000, PAGE, other.fd)
    card.arena.view(index, 4)[:] = b"late"
    assert other.view[:4] == bytes(4)


def test_everything_is_unmapped_at_once(client, card, make_file) -> None:
    for n in range(3):
        client.map_memory(n * 0x10000, PAGE, make_file().fd)
    client.unmap_memory(0, 0, flags=2)
    assert card.arena.mapped() == []


def test_memory_of_a_client_that_is_gone_is_out_of_reach(client, card, connect, make_file) -> None:
    client.map_memory(0, PAGE, make_file().fd)
    client.map_memory(GIB, PAGE)
    client.close()
    connect().negotiate()
    assert card.arena.mapped() == []


def test_memory_without_a_descriptor_for_which_there_is_no_room_is_accepted_and_cannot_be_reached(client, card) -> None:
    client.map_memory(1 << 62, 1 << 62)
    with pytest.raises(BusError, match="descriptor"):
        device_read(card, 1 << 62)
    client.unmap_memory(1 << 62, 1 << 62)


def test_pipelined_maps_keep_their_own_descriptors(client, card, make_file) -> None:
    files = [make_file(1) for _ in range(6)]
    for n, file in enumerate(files):
        file.view[:1] = bytes((n + 1,))
        client.send(DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, n * PAGE, PAGE), (file.fd,))
        client.send(DMA_MAP, struct.pack("<IIQQQ", 32, 1, 0, GIB + n * PAGE, PAGE))  # between them one without
        client.send(13) if n == 3 else None  # and the shortest message that there is
    for _ in range(2 * len(files) + 1):
        client.receive()
    assert [device_read(card, n * PAGE, 1)[0] for n in range(6)] == [1, 2, 3, 4, 5, 6]


def test_one_packet_with_several_messages_gives_the_descriptor_to_the_first(client, card, make_file) -> None:
    file = make_file(1)
    file.view[:4] = b"mine"
    first = struct.pack("<HHIII", 50, DMA_MAP, 48, 0, 0) + struct.pack("<IIQQQ", 32, 3, 0, 0, PAGE)
    second = struct.pack("<HHIII", 51, 4, 32, 0, 0) + struct.pack("<IIII", 16, 0, 0, 0)
    import array
    import socket

    client.socket.sendmsg([first + second], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fd]))])
    assert [client.receive()[0], client.receive()[0]] == [50, 51]
    assert device_read(card, 0) == b"mine"


@pytest.mark.parametrize(
    ("address", "size", "offset", "number"),
    [
        (0, 0, 0, errno.EINVAL),
        (1, PAGE, 0, errno.EINVAL),
        (0, 100, 0, errno.EINVAL),
        (0, PAGE, 1, errno.EINVAL),
        ((1 << 64) - PAGE, 2 * PAGE, 0, errno.EINVAL),
        (0, 5 * PAGE, 0, errno.EINVAL),  # beyond the end of the file
        (0, PAGE, 1 << 62, errno.EINVAL),
        (0, 1 << 60, 0, errno.EINVAL),
    ],
)
def test_map_that_cannot_be_is_refused(client, card, refused, make_file, address, size, offset, number) -> None:
    with refused(number):
        client.map_memory(address, size, make_file().fd, offset)
    assert card.arena.mapped() == []


def test_file_larger_than_the_window_is_refused(client, card, refused) -> None:
    fd = os.memfd_create("huge")
    os.ftruncate(fd, 1 << 44)
    try:
        with refused(errno.ENOSPC):
            client.map_memory(0, 1 << 44, fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("overlap", [(0x2000, PAGE), (0x1000, 4 * PAGE), (0, 1 << 40), (0x3000, 8 * PAGE)])
def test_map_over_another_is_refused_and_the_first_one_holds(client, card, refused, make_file, overlap) -> None:
    file = make_file()
    file.view[:4] = b"kept"
    client.map_memory(0x1000, 4 * PAGE, file.fd)
    with refused(errno.EEXIST):
        client.map_memory(*overlap)
    assert device_read(card, 0x1000) == b"kept"


@pytest.mark.parametrize(("address", "size", "flags", "number"), [
    (0, PAGE, 0, errno.ENOENT), (0x1000, PAGE, 0, errno.ENOENT), (0x2000, 4 * PAGE, 0, errno.ENOENT),
    (0x1000, 4 * PAGE, 1, errno.EINVAL), (0x1000, 4 * PAGE, 2, errno.EINVAL),
])  # fmt: skip
def test_unmapping_something_else_is_refused(client, card, refused, make_file, address, size, flags, number) -> None:
    client.map_memory(0x1000, 4 * PAGE, make_file().fd)
    with refused(number):
        client.unmap_memory(address, size, flags)
    assert card.arena.mapped() == [(0x1000, 4 * PAGE)]


def test_files_that_cannot_be_mapped_are_refused(client, refused, make_file) -> None:
    reader, writer = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    event = os.eventfd(0)
    unreadable = os.open(f"/proc/self/fd/{make_file().fd}", os.O_WRONLY)
    try:
        for fd in (reader, null, event):
            with refused(errno.EINVAL):
                client.map_memory(0, PAGE, fd)
        with refused(errno.EACCES):
            client.map_memory(0, PAGE, unreadable)
        with refused(errno.EINVAL):
            body = struct.pack("<IIQQQ", 32, 3, 0, 0, PAGE)
            client.ask(DMA_MAP, body, (make_file().fd, make_file().fd))
    finally:
        for fd in (reader, writer, null, event, unreadable):
            os.close(fd)
    client.map_memory(0, PAGE, make_file().fd)


def test_number_of_maps_is_limited(client, refused) -> None:
    for n in range(MAPS_MAX):
        client.send(DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, n * PAGE, PAGE), flags=0x10)
    with refused(errno.ENOSPC):
        client.map_memory(GIB, PAGE)


def test_descriptors_do_not_pile_up(client, make_file, refused) -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    file = make_file()
    event = os.eventfd(0)
    before = held()
    for _ in range(20):
        client.map_memory(0, PAGE, file.fd)
        client.unmap_memory(0, PAGE)
        with refused(errno.EINVAL):
            client.ask(DMA_MAP, b"short", (file.fd, event))
        client.ask(8, struct.pack("<IIIII", 20, 0x24, 1, 0, 1), (event,))
        client.ask(8, struct.pack("<IIIII", 20, 0x24, 1, 0, 1))
        client.ask(4, struct.pack("<IIII", 16, 0, 0, 0), (event,))  # where none belongs
    assert held() == before
    os.close(event)


# -- the host data path -----------------------------------------------------------------------------------------------

VRAM, REGISTERS = 0, 5


def flush(client, card) -> None:
    address = card.registers.block("NBIO")["BIF_BX_PF0_HDP_MEM_COHERENCY_FLUSH_CNTL"].address
    client.write(REGISTERS, address, bytes(4))


def seen_by_firmware(card, offset: int, size: int) -> bytes | None:
    return card.read_mc(card.chip.fb_base + offset, size)


@pytest.fixture
def mapped(client) -> Iterator[mmap.mmap]:
    """BAR0 as a client maps it."""
    client.send(5, struct.pack("<IIIIQQ", 256, 0, VRAM, 0, 0, 0))
    (fd,) = client.receive()[3]
    view = mmap.mmap(fd, 1 << 20)
    os.close(fd)
    yield view
    view.close()


def test_store_through_the_mapping_waits_for_a_flush(client, card, mapped: mmap.mmap) -> None:
    mapped[0x3000:0x3004] = b"host"
    assert seen_by_firmware(card, 0x3000, 4) == bytes(4)
    assert client.read(VRAM, 0x3000, 4) == b"host"
    flush(client, card)
    assert seen_by_firmware(card, 0x3000, 4) == b"host"


def test_store_by_message_waits_for_a_flush(client, card, mapped: mmap.mmap) -> None:
    client.write(VRAM, 0x3000, b"host")
    assert mapped[0x3000:0x3004] == b"host"
    assert seen_by_firmware(card, 0x3000, 4) == bytes(4)
    flush(client, card)
    assert seen_by_firmware(card, 0x3000, 4) == b"host"


def test_card_off_the_bus_reads_as_ones_through_messages_and_through_the_mapping(client, card, mapped) -> None:
    client.write(VRAM, 0x3000, b"flushed!")
    flush(client, card)
    card.faults.inject("lost")
    assert client.read(VRAM, 0x3000, 8) == client.read(VRAM, 0x9000, 8) == mapped[0x3000:0x3008] == b"\xff" * 8
    client.write(VRAM, 0x3000, b"nowhere ")
    card.faults.clear()
    assert client.read(VRAM, 0x3000, 8) == mapped[0x3000:0x3008] == b"flushed!"
    flush(client, card)
    assert seen_by_firmware(card, 0x3000, 8) == b"flushed!"


def test_memory_read_by_message_is_ones_while_memory_decode_is_off(client, card) -> None:
    client.write(VRAM, 0x3000, b"here")
    command = client.read(7, 4, 2)
    client.write(7, 4, bytes(2))
    client.write(VRAM, 0x3000, b"lost")
    assert client.read(VRAM, 0x3000, 4) == b"\xff" * 4
    client.write(7, 4, command)
    assert client.read(VRAM, 0x3000, 4) == b"here"
