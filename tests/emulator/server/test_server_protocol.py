"""The vfio-user server, message by message, as QEMU's client and libvfio-user's tests use it."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import time
from collections.abc import Callable

import pytest

REGISTERS, DOORBELLS, VRAM, ROM, CONFIG, VGA, MACHINE = 5, 2, 0, 6, 7, 8, 9
MEMSIZE = 0x378C  # RCC_CONFIG_MEMSIZE: MiB of VRAM
SCRATCH = 0x4C * 4  # BIOS_SCRATCH_0 on Navi3x: plain storage
VRAM_MIB = 64
GET_INFO, REGION_INFO, IO_FDS, IRQ_INFO, SET_IRQS, RESET, MULTI, FEATURE = 4, 5, 6, 7, 8, 13, 15, 16
EVENTFD_TRIGGER, NONE_TRIGGER = 0x24, 0x21
INTX, MSI, MSIX, ERR, REQ = range(5)
MSI_CONTROL, MSIX_CONTROL = 0xA2, 0xC2
MSIX_TABLE, PENDING = 0x42000, 0x43000


def region_info(client, index: int, argsz: int = 256) -> tuple[tuple[int, ...], bytes, list[int]]:
    client.send(REGION_INFO, struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0))
    _, _, payload, fds = client.receive()
    return struct.unpack_from("<IIIIQQ", payload), payload[32:], fds


def set_irqs(client, flags: int, index: int, start: int, count: int, fds=(), data: bytes = b"") -> bytes:
    return client.ask(SET_IRQS, struct.pack("<IIIII", 20 + len(data), flags, index, start, count) + data, fds)


# -- negotiation ------------------------------------------------------------------------------------------------------


def test_capabilities_are_answered_without_migration(connect) -> None:
    answer = connect().negotiate()
    assert answer["max_data_xfer_size"] == 1 << 20
    assert answer["pgsizes"] == 4096
    assert 1 <= answer["max_msg_fds"] <= 16  # QEMU takes no more
    assert answer["write_multiple"] is True
    assert "migration" not in answer
    assert "twin_socket" not in answer


def test_version_without_capabilities_is_enough(connect) -> None:
    client = connect()
    assert client.ask(1, struct.pack("<HH", 0, 0))[:4] == bytes(4)
    assert client.read(CONFIG, 0, 4) == bytes.fromhex("02104c74")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        struct.pack("<HH", 999, 0) + b"{}\0",
        struct.pack("<HH", 0, 0) + b"{}",
        struct.pack("<HH", 0, 0) + b"{\0",
        struct.pack("<HH", 0, 0) + b'"\0',
        struct.pack("<HH", 0, 0) + b"[]\0",
        struct.pack("<HH", 0, 0) + b"\xff\0",
        struct.pack("<HH", 0, 0) + b"[" * 50000 + b"\0",
        struct.pack("<HH", 0, 0) + b'{"capabilities": "23"}\0',
        struct.pack("<HH", 0, 0) + b'{"capabilities": {"max_msg_fds": "foo"}}\0',
        struct.pack("<HH", 0, 0) + b'{"capabilities": {"max_msg_fds": -1}}\0',
        struct.pack("<HH", 0, 0) + b'{"capabilities": {"pgsizes": 8192}}\0',
    ],
)
def test_bad_version_message_is_refused_and_ends_the_connection(connect, refused, body: bytes) -> None:
    client = connect()
    with refused(errno.EINVAL):
        client.ask(1, body)
    with pytest.raises(EOFError):
        client.receive()
    connect().negotiate()  # the next one gets the card


def test_nothing_is_answered_before_the_version(connect, refused) -> None:
    client = connect()
    with refused(errno.EINVAL):
        client.ask(GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))


def test_second_version_message_is_refused_and_the_first_one_holds(client, refused) -> None:
    with refused(errno.EINVAL):
        client.negotiate()
    assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", VRAM_MIB)


# -- what there is ----------------------------------------------------------------------------------------------------


def test_device_is_a_resettable_pci_device(client) -> None:
    argsz, flags, regions, irqs = struct.unpack("<IIII", client.ask(GET_INFO, struct.pack("<IIII", 16, 0, 0, 0)))
    assert (argsz, flags, irqs) == (16, 3, 5)
    assert regions >= 9


def test_regions_have_the_sizes_of_the_bars(client) -> None:
    sizes = {index: region_info(client, index)[0][4] for index in range(9)}
    assert sizes == {0: 64 << 20, 1: 0, 2: 2 << 20, 3: 0, 4: 0, 5: 1 << 20, ROM: 128 << 10, CONFIG: 4096, VGA: 0}


def test_rom_region_shows_the_video_bios_and_cannot_be_written(client, card, refused) -> None:
    assert region_info(client, ROM)[0][1] & 0x7 == 1
    assert client.read(ROM, 0, len(card.rom) + 16) == card.rom + b"\xff" * 16
    assert client.read(ROM, (128 << 10) - 4) == b"\xff" * 4
    with refused(errno.EINVAL):
        client.write(ROM, 0, b"1234")


def test_only_bar0_can_be_mapped_and_its_descriptor_shows_vram(client, card) -> None:
    for index in (DOORBELLS, REGISTERS, CONFIG):
        (_, flags, *_), _, fds = region_info(client, index)
        assert (flags & 0x7, fds) == (3, [])
    (argsz, flags, index, at, _, offset), capabilities, fds = region_info(client, VRAM)
    assert (flags, index, at, argsz, len(fds)) == (0xF, VRAM, 32, 64, 1)
    kind, version, following, areas, _, first, length = struct.unpack("<HHIIIQQ", capabilities)
    assert (kind, version, following, areas, first, length) == (1, 1, 0, 1, 0, 64 << 20)
    with mmap.mmap(fds[0], length, mmap.MAP_SHARED, offset=offset + first) as seen:
        seen[4096:4100] = b"mine"
        assert bytes(card.vram_view(4096, 4)) == b"mine"
        assert client.read(VRAM, 4096) == b"mine"
        client.write(VRAM, 4096, b"ours")
        assert seen[4096:4100] == b"ours"
        client.ask(RESET)
        assert seen[4096:4100] == bytes(4)  # lost, and still the same memory
        seen[8192:8196] = b"more"
        assert bytes(card.vram_view(8192, 4)) == b"more"
    os.close(fds[0])


def test_client_that_takes_no_descriptors_gets_none(connect) -> None:
    client = connect()
    client.negotiate({"max_msg_fds": 0})
    client.send(5, struct.pack("<IIIIQQ", 256, 0, 0, 0, 0, 0))
    _, _, payload, fds = client.receive()
    assert (struct.unpack_from("<II", payload), fds) == ((32, 3), [])
    client.write(0, 0x1000, b"by message")
    assert client.read(0, 0x1000, 10) == b"by message"


def test_capabilities_that_do_not_fit_leave_their_offset_and_the_size_needed(client) -> None:
    (argsz, flags, _, at, size, _), rest, fds = region_info(client, VRAM, argsz=32)
    assert (argsz, at, size, rest) == (64, 32, 64 << 20, b"")  # QEMU refuses the region with an offset of 0
    assert flags & 0xC == 0xC
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(("argsz", "index"), [(8, 0), (256, 10), (256, 0xFFFF_FFFF)])
def test_region_that_is_not_there_is_refused(client, refused, argsz: int, index: int) -> None:
    with refused(errno.EINVAL):
        region_info(client, index, argsz)


def test_interrupt_counts_follow_the_capabilities(client) -> None:
    counts = {}
    for index in range(5):
        argsz, flags, same, count = struct.unpack("<IIII", client.ask(IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0)))
        assert (argsz, same) == (16, index)
        assert bool(flags & 1) == bool(count)
        counts[index] = count
    control = int.from_bytes(client.read(CONFIG, MSI_CONTROL, 2), "little")
    assert counts[INTX] == 1
    assert counts[MSI] == 1 << (control >> 1 & 7)
    assert counts[ERR] == 1


# -- accesses ---------------------------------------------------------------------------------------------------------


def test_registers_are_read_and_written_in_every_width(client) -> None:
    client.write(REGISTERS, SCRATCH, struct.pack("<I", 0x11223344))
    assert client.read(REGISTERS, SCRATCH) == bytes.fromhex("44332211")
    assert client.read(REGISTERS, SCRATCH + 1, 1) == b"\x33"
    assert client.read(REGISTERS, SCRATCH + 2, 2) == bytes.fromhex("2211")
    client.write(REGISTERS, SCRATCH + 2, b"\xaa")
    assert client.read(REGISTERS, SCRATCH) == bytes.fromhex("4433aa11")
    client.write(REGISTERS, SCRATCH, bytes(range(8)))
    assert client.read(REGISTERS, SCRATCH, 8) == bytes(range(8))


def test_whole_configuration_space_is_read_at_once(client) -> None:
    config = client.read(CONFIG, 0, 4096)
    assert config[:4] == bytes.fromhex("02104c74")
    assert config[0x10:0x14] == client.read(CONFIG, 0x10, 4)


def test_bar_is_sized_through_configuration_space(client) -> None:
    saved = client.read(CONFIG, 0x24, 4)
    client.write(CONFIG, 0x24, b"\xff" * 4)
    assert -int.from_bytes(client.read(CONFIG, 0x24, 4), "little") & 0xFFFF_FFFF == 1 << 20
    client.write(CONFIG, 0x24, saved)
    assert client.read(CONFIG, 0x24, 4) == saved


def test_writes_without_reply_are_done_before_the_next_reply(client) -> None:
    for value in range(100):
        client.send(10, struct.pack("<QIII", SCRATCH, REGISTERS, 4, value), flags=0x10)
    assert client.read(REGISTERS, SCRATCH) == struct.pack("<I", 99)


def test_no_reply_is_silent_about_errors_too(client) -> None:
    client.send(10, struct.pack("<QIII", 1 << 40, REGISTERS, 4, 1), flags=0x10)
    assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", VRAM_MIB)


def test_several_writes_come_in_one_message(client) -> None:
    writes = [struct.pack("<QII8s", SCRATCH + 4 * n, REGISTERS, 4, struct.pack("<I", n + 1)) for n in range(3)]
    assert client.ask(MULTI, struct.pack("<Q", 3) + b"".join(writes)) == struct.pack("<Q", 3)
    assert client.read(REGISTERS, SCRATCH, 12) == struct.pack("<III", 1, 2, 3)


def test_doorbell_reaches_the_card(client, card) -> None:
    card.trace.start()
    client.write(DOORBELLS, 0x18, struct.pack("<Q", 7))
    client.write(DOORBELLS, 0x20, struct.pack("<I", 8))
    seen = [(entry.offset, entry.width, entry.value) for entry in card.trace.stop() if entry.space == "doorbell"]
    assert seen == [(0x18, 8, 7), (0x20, 4, 8)]


@pytest.mark.parametrize(
    ("region", "offset", "size"),
    [(REGISTERS, 1 << 20, 4), (REGISTERS, (1 << 20) - 2, 4), (CONFIG, 4095, 2), (1, 0, 4), (ROM, 128 << 10, 4),
     (99, 0, 4), (VRAM, (1 << 64) - 4, 8), (VRAM, 0, (1 << 20) + 1), (REGISTERS, 0, 0xFFFF_FFFF)],
)  # fmt: skip
def test_access_outside_a_region_is_refused(client, refused, region: int, offset: int, size: int) -> None:
    with refused(errno.EINVAL):
        client.ask(9, struct.pack("<QII", offset, region, size))
    with refused(errno.EINVAL):
        client.ask(10, struct.pack("<QII", offset, region, size) + bytes(min(size, 64)))


@pytest.mark.parametrize("command", [IO_FDS, FEATURE, 17, 18])
def test_optional_commands_are_said_to_be_unsupported(client, refused, command: int) -> None:
    with refused(errno.ENOTSUP):
        client.ask(command, bytes(16))


def test_reset_loses_registers_and_keeps_configuration_space(client) -> None:
    client.write(CONFIG, 0x3C, b"\x0b")
    client.write(REGISTERS, SCRATCH, b"lost")
    assert client.ask(RESET) == b""
    assert client.read(CONFIG, 0x3C, 1) == b"\x0b"
    assert client.read(REGISTERS, SCRATCH) == bytes(4)


# -- interrupts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def event():
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def count_of(fd: int, patience_s: float = 5.0) -> int:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return os.eventfd_read(fd)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return 0
            time.sleep(0.001)


def enable_msi(client) -> None:
    client.write(CONFIG, 4, b"\x06\x00")  # memory, bus mastering
    control = int.from_bytes(client.read(CONFIG, MSI_CONTROL, 2), "little")
    client.write(CONFIG, MSI_CONTROL, (control | 1).to_bytes(2, "little"))


def test_msi_is_written_to_the_event_descriptor(client, card, event: int) -> None:
    set_irqs(client, NONE_TRIGGER, INTX, 0, 0)
    set_irqs(client, EVENTFD_TRIGGER, MSI, 0, 1, (event,))
    enable_msi(client)
    card.raise_interrupt()
    assert count_of(event) == 1


def enable_msix(client) -> None:
    client.write(CONFIG, 4, b"\x06\x00")
    client.write(CONFIG, MSIX_CONTROL, b"\x00\xc0")  # all masked, as Linux begins
    client.write(CONFIG, MSIX_CONTROL, b"\x00\x80")


def test_vector_of_msix_is_written_to_its_own_event_descriptor(client, card, event: int) -> None:
    """As QEMU does it: descriptors for all vectors so far, none where there is none, and the table left alone."""
    enable_msix(client)
    set_irqs(client, EVENTFD_TRIGGER, MSIX, 0, 2)
    set_irqs(client, EVENTFD_TRIGGER, MSIX, 2, 1, (event,))
    card.raise_interrupt(0)
    assert count_of(event, 0.05) == 0
    assert client.read(REGISTERS, PENDING, 8) == struct.pack("<Q", 0b001)
    card.raise_interrupt(2)
    assert count_of(event) == 1


@pytest.mark.parametrize("by_table", [True, False])
def test_masked_vector_of_msix_is_pending_for_the_client_to_see(client, card, event: int, by_table: bool) -> None:
    enable_msix(client)
    set_irqs(client, EVENTFD_TRIGGER, MSIX, 1, 1, (event,))

    def mask(masked: bool) -> None:
        if by_table:
            client.write(REGISTERS, MSIX_TABLE + 16 + 12, struct.pack("<I", masked))
        else:
            set_irqs(client, 0x9 if masked else 0x11, MSIX, 1, 1)

    mask(True)
    card.raise_interrupt(1)
    assert count_of(event, 0.05) == 0
    assert client.read(REGISTERS, PENDING) == struct.pack("<I", 0b010)
    mask(False)
    assert count_of(event) == 1
    assert client.read(REGISTERS, PENDING) == bytes(4)


def test_vectors_of_msix_survive_a_reset_and_end_with_their_client(client, card, event: int, connect) -> None:
    enable_msix(client)
    set_irqs(client, EVENTFD_TRIGGER, MSIX, 0, 1, (event,))
    client.ask(RESET)
    card.raise_interrupt(0)
    assert count_of(event) == 1
    client.close()
    following = connect()
    following.negotiate()
    set_irqs(following, EVENTFD_TRIGGER, MSI, 0, 1, (event,))
    enable_msi(following)
    card.raise_interrupt(0)
    assert count_of(event) == 1


def test_interrupt_line_masks_itself_until_the_client_has_seen_to_it(client, card, event: int) -> None:
    set_irqs(client, EVENTFD_TRIGGER, INTX, 0, 1, (event,))
    for _ in range(2):
        card.raise_interrupt()
    assert count_of(event) == 1
    assert count_of(event, 0.05) == 0
    set_irqs(client, 0x11, INTX, 0, 1)  # unmask
    assert count_of(event) == 1
    set_irqs(client, 0x11, INTX, 0, 1)
    client.write(CONFIG, 4, b"\x02\x04")  # switched off in the command register
    card.raise_interrupt()
    assert count_of(event, 0.05) == 0


def test_masked_vector_waits_for_its_unmasking(client, card, event: int) -> None:
    set_irqs(client, EVENTFD_TRIGGER, MSI, 0, 1, (event,))
    enable_msi(client)
    set_irqs(client, 0x9, MSI, 0, 1)  # mask
    card.raise_interrupt()
    assert count_of(event, 0.05) == 0
    set_irqs(client, 0x11, MSI, 0, 1)  # unmask
    assert count_of(event) == 1


def test_disabled_interrupts_stay_silent(client, card, event: int) -> None:
    set_irqs(client, EVENTFD_TRIGGER, MSI, 0, 1, (event,))
    enable_msi(client)
    set_irqs(client, NONE_TRIGGER, MSI, 0, 0)
    card.raise_interrupt()
    assert count_of(event, 0.05) == 0


def test_client_triggers_its_own_vectors(client, event: int) -> None:
    set_irqs(client, EVENTFD_TRIGGER, MSI, 0, 1, (event,))
    set_irqs(client, NONE_TRIGGER, MSI, 0, 1)
    assert count_of(event) == 1
    set_irqs(client, 0x22, MSI, 0, 1, data=b"\0")
    assert count_of(event, 0.05) == 0
    set_irqs(client, 0x22, MSI, 0, 1, data=b"\1")
    assert count_of(event) == 1


def test_event_descriptor_can_be_taken_back_and_given_again(client, event: int) -> None:
    set_irqs(client, EVENTFD_TRIGGER, INTX, 0, 1, (event,))
    set_irqs(client, EVENTFD_TRIGGER, INTX, 0, 1)  # without a descriptor
    set_irqs(client, NONE_TRIGGER, INTX, 0, 1)
    assert count_of(event, 0.05) == 0
    set_irqs(client, EVENTFD_TRIGGER, INTX, 0, 1, (event,))
    set_irqs(client, NONE_TRIGGER, INTX, 0, 1)
    assert count_of(event) == 1


@pytest.mark.parametrize(
    ("flags", "index", "start", "count", "data"),
    [
        (EVENTFD_TRIGGER, MSI, 1, 1, b""),
        (EVENTFD_TRIGGER, MSI, 0, 0xFFFF_FFFF, b""),
        (EVENTFD_TRIGGER, 5, 0, 1, b""),
        (NONE_TRIGGER, MSI, 1, 0, b""),
        (0x9, MSI, 0, 0, b""),
        (0x18 | 1, MSI, 0, 1, b""),
        (0x23, MSI, 0, 1, b"\1"),
        (0x22, MSI, 0, 1, b""),
        (0x22, MSI, 0, 1, b"\1\1"),
        (0x9, ERR, 0, 1, b""),
        (0x4, MSI, 0, 1, b""),
        (0x1000 | NONE_TRIGGER, MSI, 0, 1, b""),
    ],
)
def test_malformed_interrupt_requests_are_refused(
    client, refused, flags: int, index: int, start: int, count: int, data: bytes
) -> None:
    with refused(errno.EINVAL):
        set_irqs(client, flags, index, start, count, data=data)


def test_descriptors_must_fit_the_vectors_and_be_events(client, refused, event: int) -> None:
    with refused(errno.EINVAL):
        set_irqs(client, EVENTFD_TRIGGER, MSI, 0, 1, (event, event))
    with refused(errno.EINVAL):
        set_irqs(client, NONE_TRIGGER, MSI, 0, 1, (event,))
    reader, writer = os.pipe()
    try:
        with refused(errno.EINVAL):
            set_irqs(client, EVENTFD_TRIGGER, MSI, 0, 1, (writer,))
    finally:
        os.close(reader)
        os.close(writer)


# -- time -------------------------------------------------------------------------------------------------------------


def test_the_card_goes_by_the_wall_clock_for_a_client_that_does_not_keep_its_time(client, card) -> None:
    due: list[int] = []
    card.clock.after(0.05, lambda: due.append(1))
    started = time.monotonic()
    while not due and time.monotonic() < started + 10:
        time.sleep(0.005)
    assert due  # without any access
    assert time.monotonic() - started >= 0.02  # the card's clock may have been behind


def test_the_card_keeps_its_own_time_for_a_client_that_asks_for_it(client, card) -> None:
    before = struct.unpack("<Q", client.read(MACHINE, 0, 8))[0]
    time.sleep(0.05)
    assert struct.unpack("<Q", client.read(MACHINE, 0, 8))[0] == before
    client.write(MACHINE, 8, struct.pack("<Q", 1_000_000))
    assert struct.unpack("<Q", client.read(MACHINE, 0, 8))[0] == before + 1_000_000


# -- a virtual machine -------------------------------------------------------------------------------------------------


def test_start_of_a_virtual_machine_is_answered_as_it_expects(connect, event: int) -> None:
    """The messages of QEMU 11.1.3's vfio-user-pci client, in its order, up to the firmware's first steps."""
    vm = connect()
    vm.negotiate()
    ram = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
    os.ftruncate(ram, 2 << 20)
    vm.send(2, struct.pack("<IIQQQ", 32, 3, 0, 0, 2 << 20), (ram,))
    vm.send(2, struct.pack("<IIQQQ", 32, 1, 0, 0xFFFC_0000, 0x4_0000))
    assert [vm.receive()[1], vm.receive()[1]] == [2, 2]
    assert struct.unpack("<IIII", vm.ask(GET_INFO, struct.pack("<IIII", 16, 0, 0, 0)))[1] == 3
    for index in (0, 1, 2, 3, 4, 5, 7):
        (argsz, flags, _, at, _, _), _, fds = region_info(vm, index, argsz=32)
        assert not flags & 8 or 32 <= at <= argsz
        if argsz > 32:
            (again, *_), capabilities, more = region_info(vm, index, argsz=argsz)
            assert (again, len(capabilities)) == (argsz, argsz - 32)
            fds += more
        for fd in fds:
            os.close(fd)
    assert struct.unpack("<IIII", vm.ask(IRQ_INFO, struct.pack("<IIII", 16, 0, ERR, 0)))[2] == ERR
    assert len(vm.read(CONFIG, 0, 4096)) == 4096
    vm.write(CONFIG, 0x30, struct.pack("<I", 0xFFFF_F800))
    assert vm.read(CONFIG, 0x30, 4) == struct.pack("<I", 0xFFFE_0000)  # an expansion ROM of 128 KiB
    set_irqs(vm, EVENTFD_TRIGGER, INTX, 0, 1, (event,))
    set_irqs(vm, NONE_TRIGGER, INTX, 0, 0)
    assert vm.ask(RESET) == b""
    set_irqs(vm, EVENTFD_TRIGGER, INTX, 0, 1, (event,))
    vm.send(3, struct.pack("<IIQQ", 24, 0, 0, 2 << 20))  # the firmware's shadow of its ROM cuts memory into pieces
    vm.send(2, struct.pack("<IIQQQ", 32, 3, 0, 0, 0xC_0000), (ram,))
    vm.send(2, struct.pack("<IIQQQ", 32, 1, 0, 0xC_0000, 0x2_0000))
    vm.send(2, struct.pack("<IIQQQ", 32, 3, 0x10_0000, 0x10_0000, 0x10_0000), (ram,))
    assert [vm.receive()[1] for _ in range(4)] == [3, 2, 2, 2]
    vm.write(CONFIG, 4, b"\x02\x00")
    vm.map_memory(0xD000_0000, 256 << 20)  # its own BAR0
    assert vm.read(REGISTERS, MEMSIZE) == struct.pack("<I", VRAM_MIB)
    os.close(ram)


# -- clients ----------------------------------------------------------------------------------------------------------


def test_second_client_is_refused_while_the_first_is_there(client, connect, refused) -> None:
    with refused(errno.EBUSY):
        connect().negotiate()
    assert client.read(REGISTERS, MEMSIZE) == struct.pack("<I", VRAM_MIB)


def test_state_survives_its_clients(client, connect: Callable[[], object], card) -> None:
    client.write(REGISTERS, SCRATCH, b"kept")
    client.write(VRAM, 0, b"kept")
    client.write(CONFIG, 4, b"\x06\x00")
    client.close()
    following = connect()
    following.negotiate()
    assert following.read(REGISTERS, SCRATCH) == b"kept"
    assert following.read(VRAM, 0) == b"kept"
    assert following.read(CONFIG, 4, 2) == b"\x06\x00"


def test_many_clients_one_after_another(connect) -> None:
    for number in range(30):
        client = connect()
        client.negotiate()
        client.send(10, struct.pack("<QIII", SCRATCH, REGISTERS, 4, number), flags=0x10)
        client.close()  # at once: the write is still on its way
    client = connect()
    client.negotiate()
    assert client.read(REGISTERS, SCRATCH) == struct.pack("<I", 29)
