"""The transport of a card behind a socket, with its server in this process."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import amdrv
from amdrv.blocks.nbio import Nbio
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.server import Server
from amdrv.emulator.shell import Card
from amdrv.errors import DeviceBusy, DeviceLost, InvalidArgument, NotFound, OutOfMemory, Refused, Timeout
from amdrv.gpu import Gpu
from amdrv.ioctl import PciFunction, ResetKind, connect
from amdrv.ioctl.vfio_user import VfioUserFunction
from amdrv.ioctl.vfio_user_dma import BusAddresses

SAXPY = Path(__file__).parents[1] / "runtime" / "data" / "saxpy.ll"
VRAM_BYTES = 1 << 30
REGISTERS, DOORBELLS, VRAM = 5, 2, 0
MEMSIZE = 0x378C
SCRATCH = 0x4C * 4


@pytest.fixture
def card() -> Card:
    return Card("emu:served", CHIPS["gfx1100"], vram_bytes=VRAM_BYTES, shared_vram=True)


@pytest.fixture
def server(card: Card, tmp_path: Path) -> Iterator[Server]:
    server = Server(card, tmp_path / "card")
    server.listen()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.close()
    thread.join(10)


@pytest.fixture
def function(server: Server) -> Iterator[PciFunction]:
    function = connect(f"emu:{server.path}")
    yield function
    function.release()


# -- reaching it ------------------------------------------------------------------------------------------------------


def test_path_without_a_server_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="amdrv emulate --socket"):
        connect(f"emu:{tmp_path}/nothing")


def test_file_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="not a socket"):
        connect(f"emu:{tmp_path}/file")


def test_socket_of_a_dead_server_is_not_found_and_the_next_server_takes_its_place(
    card: Card, server: Server, tmp_path: Path
) -> None:
    dead = tmp_path / "dead"
    import socket

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    with pytest.raises(NotFound, match="nobody listens"):
        connect(f"emu:{dead}")
    second = Server(card, dead)
    second.listen()
    second.close()
    assert not dead.exists()


def test_two_servers_at_one_path_are_refused(card: Card, server: Server) -> None:
    with pytest.raises(DeviceBusy):
        Server(card, server.path).listen()
    assert server.path.is_socket()


def test_server_leaves_other_files_alone(card: Card, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(Refused, match="not a socket"):
        Server(card, tmp_path / "file").listen()
    with pytest.raises(Refused, match="cannot make"):
        Server(card, tmp_path / "nowhere" / "card").listen()
    with pytest.raises(InvalidArgument, match="at most"):
        Server(card, tmp_path / ("long" * 40)).listen()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_holder_is_named_to_the_second_client_and_gone_after_release(function: PciFunction, server: Server) -> None:
    function.acquire("the first program")
    with pytest.raises(DeviceBusy, match=rf"pid {os.getpid()} \(the first program, since") as busy:
        connect(function.name)
    assert busy.value.holder.startswith("pid")
    function.release()
    second = connect(function.name)
    second.release()
    function.acquire("again")  # connects anew


# -- what a function does ---------------------------------------------------------------------------------------------


def test_identity_and_bars_are_those_of_the_card(function: PciFunction) -> None:
    assert isinstance(function, VfioUserFunction)
    assert (function.ids.vendor, function.ids.device, function.ids.revision) == (0x1002, 0x744C, 0xC8)
    assert (function.ids.class_code, function.ids.subsystem_device) == (0x030000, 0x0E3B)
    assert [function.bar_size(bar) for bar in range(6)] == [VRAM_BYTES, 0, 2 << 20, 0, 0, 1 << 20]


def test_accesses_reach_the_card_and_are_counted_by_kind(function: PciFunction, card: Card) -> None:
    before = function.traffic.snapshot()
    card.trace.start()
    assert function.read32(REGISTERS, MEMSIZE) == VRAM_BYTES >> 20
    function.write32(REGISTERS, SCRATCH, 0x1_2345_6789)
    function.write64(DOORBELLS, 0x18, 1 << 40)
    function.write32(DOORBELLS, 0x20, 3)
    assert function.read_config(0, 2) == 0x1002
    function.write_config(4, 2, 2)
    function.write_memory(VRAM, 0, b"1234")
    assert function.read_memory(VRAM, 0, 4) == b"1234"
    assert function.read32(VRAM, 0) == int.from_bytes(b"1234", "little")
    assert function.read32(REGISTERS, SCRATCH) == 0x2345_6789
    seen = function.traffic.since(before)
    assert (seen.reads, seen.writes, seen.doorbells, seen.config_reads, seen.config_writes) == (2, 1, 2, 1, 1)
    assert (seen.memory_bytes_read, seen.memory_bytes_written) == (4, 4)
    doorbells = [(entry.offset, entry.value) for entry in card.trace.stop() if entry.space == "doorbell"]
    assert doorbells == [(0x18, 1 << 40), (0x20, 3)]


def test_bar0_is_the_cards_memory_itself(function: PciFunction, card: Card) -> None:
    view = function.memory(VRAM, VRAM_BYTES - 4096, 4096)
    view[:4] = b"host"
    assert bytes(card.vram_view(VRAM_BYTES - 4096, 4)) == b"host"
    card.vram_view(VRAM_BYTES - 4, 4)[:] = b"card"
    assert bytes(view[-4:]) == b"card"


@pytest.mark.parametrize(
    ("bar", "offset", "reason"),
    [(REGISTERS, 1 << 20, "outside"), (REGISTERS, 2, "aligned"), (REGISTERS, -4, "outside"),
     (VRAM, VRAM_BYTES, "outside"), (1, 0, "not implemented")],
)  # fmt: skip
def test_access_outside_a_bar_is_refused(function: PciFunction, bar: int, offset: int, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        function.read32(bar, offset)
    with pytest.raises(InvalidArgument, match=reason):
        function.write32(bar, offset, 0)


def test_dma_memory_is_zeroed_shared_and_above_4_gib(function: PciFunction, card: Card) -> None:
    memory = function.alloc_dma(5000)
    ((address, size),) = memory.segments
    assert (size, address >> 32 > 0, bytes(memory.view)) == (8192, True, bytes(8192))
    memory.view[4:8] = b"data"
    index = card.arena.bus_index(address, 8)
    assert bytes(card.arena.view(index + 4, 4)) == b"data"
    card.arena.view(index, 4)[:] = b"card"
    assert bytes(memory.view[:4]) == b"card"
    memory.close()
    memory.close()
    assert card.arena.mapped() == []
    assert function.alloc_dma(1).segments[0][0] == address  # the same requests get the same addresses


def test_release_takes_dma_memory_back_and_bus_mastering_off(function: PciFunction, card: Card) -> None:
    function.alloc_dma(4096)
    function.write_config(4, 2, 6)
    assert function.read_config(4, 2) == 6
    function.release()
    connect(function.name).release()  # the server is done with the first one then
    assert card.arena.mapped() == []
    assert not card.bus_master


def test_dma_memory_that_cannot_be_had_is_out_of_memory(function: PciFunction) -> None:
    with pytest.raises(OutOfMemory):
        function.alloc_dma(1 << 40)
    function.alloc_dma(4096)


def test_interrupt_arrives_by_event_descriptor(function: PciFunction, card: Card) -> None:
    assert isinstance(function, VfioUserFunction)
    assert function.enable_interrupts()
    function.write_config(4, 2, 6)
    function.read_config(4, 2)
    card.raise_interrupt()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            assert os.eventfd_read(function._event) == 1
            break
        except BlockingIOError:
            time.sleep(0.001)
    else:
        pytest.fail("no interrupt")


@pytest.mark.parametrize("kind", ResetKind)
def test_reset_by_the_bus_loses_registers_and_memory(function: PciFunction, kind: ResetKind) -> None:
    function.write32(REGISTERS, SCRATCH, 1)
    function.write_memory(VRAM, 0, b"lost")
    before = function.virtual_s
    function.reset(kind)
    assert function.read32(REGISTERS, SCRATCH) == 0
    assert function.read_memory(VRAM, 0, 4) == bytes(4)
    assert before is not None
    assert function.now() > before


# -- time -------------------------------------------------------------------------------------------------------------


def test_virtual_time_is_the_cards_own(function: PciFunction, card: Card) -> None:
    first = function.virtual_s
    assert first == card.clock.now_s
    time.sleep(0.02)
    assert function.virtual_s == first
    function.sleep(2.5)
    assert function.virtual_s == pytest.approx(first + 2.5)
    function.sleep(10_000)  # more than the server takes at once
    assert function.virtual_s == pytest.approx(first + 10_002.5)


def test_wait_jumps_to_the_cards_next_event_and_ends_by_its_own_clock(function: PciFunction, card: Card) -> None:
    due: list[int] = []
    assert function.virtual_s is not None
    card.clock.after(3.0, lambda: due.append(1))
    started = time.monotonic()
    function.wait_until(lambda: bool(due), 10.0, "the event")
    with pytest.raises(Timeout, match="what never comes"):
        function.wait_until(lambda: False, 50.0, "what never comes")
    assert time.monotonic() - started < 5


def test_boot_takes_the_same_accesses_and_time_as_in_process(function: PciFunction) -> None:
    from amdrv import emulator

    name = "emu:gfx1100#77"
    emulator.card(name, vram_bytes=VRAM_BYTES)
    try:
        reports = []
        for way in (connect(name), function):
            for _ in range(2):
                with Gpu.open(way, command="test") as gpu:
                    reports.append((gpu.boot.kind, gpu.boot.reads, gpu.boot.writes, gpu.boot.virtual_s))
    finally:
        emulator.unplug(name)
    assert [report[0] for report in reports] == ["cold", "warm"] * 2
    for inside, outside in zip(reports[:2], reports[2:], strict=True):
        assert inside[:3] == outside[:3]
        assert inside[3] == pytest.approx(outside[3], abs=1e-9)


# -- servers of others ------------------------------------------------------------------------------------------------


@pytest.fixture
def foreign(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[VfioUserFunction]:
    """The same card, by a client that does not know the machine region."""
    monkeypatch.setattr("amdrv.ioctl.vfio_user.MACHINE_SUBTYPE", 0)
    function = VfioUserFunction(f"emu:{server.path}")
    yield function
    function.release()


def test_without_a_clock_of_the_card_time_is_the_walls(foreign: VfioUserFunction, card: Card) -> None:
    assert foreign.virtual_s is None
    due: list[int] = []
    started = time.monotonic()
    card.clock.after(0.05, lambda: due.append(1))
    foreign.wait_until(lambda: bool(due), 10.0, "the event")
    assert 0.02 <= time.monotonic() - started < 5
    with pytest.raises(Timeout):
        foreign.wait_until(lambda: False, 0.02, "what never comes")
    assert foreign.firmware_images() == {}
    with pytest.raises(Refused, match="no reset of the bus"):
        foreign.reset(ResetKind.BUS)


def test_interrupt_ends_a_pause(foreign: VfioUserFunction, card: Card) -> None:
    foreign.enable_interrupts()
    foreign.write_config(4, 2, 6)
    foreign.read_config(4, 2)
    card.raise_interrupt()
    started = time.monotonic()
    foreign._pause(10.0)
    assert time.monotonic() - started < 5


# -- a server that goes away or talks nonsense ------------------------------------------------------------------------


def test_dead_server_is_a_lost_device(function: PciFunction, server: Server) -> None:
    memory = function.alloc_dma(4096)
    server.close()
    with pytest.raises(DeviceLost):
        for _ in range(3):  # a posted write may go out before the end is known
            function.write32(REGISTERS, SCRATCH, 1)
            function.read32(REGISTERS, SCRATCH)
    for attempt in (
        lambda: function.read_config(0, 2),
        lambda: function.sleep(1),
        lambda: function.alloc_dma(4096),
        lambda: function.wait32(SCRATCH, 1, 1, 1.0, "nothing"),
    ):
        with pytest.raises(DeviceLost):
            attempt()
    memory.close()
    function.release()


def test_interrupted_wait_leaves_a_device_that_works(function: PciFunction, card: Card) -> None:
    class Interrupted(BaseException):
        pass

    def stop(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with card.lock:  # the server cannot answer
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted):
                function.read32(REGISTERS, MEMSIZE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    function.write32(REGISTERS, SCRATCH, 5)
    assert function.read32(REGISTERS, SCRATCH) == 5
    assert function.read32(REGISTERS, MEMSIZE) == VRAM_BYTES >> 20


def test_failure_of_the_card_itself_is_told_apart_from_a_refusal(function: PciFunction, card: Card) -> None:
    card.worker.failure = ValueError("a defect of a model")
    with pytest.raises(DeviceLost, match="log"):
        function.relax(1e-6)
    function.relax(1e-6)  # it was reported once


@pytest.mark.parametrize(
    "answer",
    [b"", struct.pack("<HHIII", 1, 1, 8, 1, 0), struct.pack("<HHIII", 9, 9, 16, 1, 0),
     struct.pack("<HHIII", 1, 1, 1 << 30, 1, 0), struct.pack("<HHIII", 1, 1, 16, 0x21, 22),
     struct.pack("<HHIII", 1, 1, 20, 1, 0) + b"\x09\0\0\0"],
)  # fmt: skip
def test_nonsense_from_a_server_is_an_error_of_the_family(tmp_path: Path, answer: bytes) -> None:
    import socket

    from amdrv.errors import AmdrvError

    path = tmp_path / "odd"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(AmdrvError):
            connect(f"emu:{path}")
        thread.join(5)


# -- bus addresses ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 8)), max_size=60))
def test_bus_addresses_never_overlap(steps: list[tuple[bool, int]]) -> None:
    addresses = BusAddresses(0x1000, 0x11000)
    taken: list[tuple[int, int]] = []
    for give_back, pages in steps:
        if give_back and taken:
            addresses.give_back(*taken.pop(pages % len(taken)))
            continue
        try:
            address = addresses.take(pages * 4096)
        except OutOfMemory:
            ends = [0x1000, *(first + size for first, size in sorted(taken))]
            firsts = [*(first for first, _ in sorted(taken)), 0x11000]
            assert all(first - end < pages * 4096 for first, end in zip(firsts, ends, strict=True))
            continue
        assert 0x1000 <= address <= address + pages * 4096 <= 0x11000
        assert all(address + pages * 4096 <= first or first + size <= address for first, size in taken)
        taken.append((address, pages * 4096))


# -- what a forgotten flush costs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("omit", [False, True], ids=["with the flush", "without the flush"])
def test_kernel_reads_what_the_last_flush_covered(server: Server, monkeypatch: pytest.MonkeyPatch, omit: bool) -> None:
    with amdrv.open(f"emu:{server.path}") as dev:
        y, x = dev.array(np.zeros(64, np.float32)), dev.array(np.ones(64, np.float32))
        saxpy = dev.load(amdrv.compile_llvm(SAXPY.read_text()))["saxpy"]
        saxpy.launch(1, 64, (y, x, 1.0, 64)).wait()
        assert (y.numpy(np.float32) == 1).all()
        if omit:
            monkeypatch.setattr(Nbio, "flush_hdp", lambda self: None)
        x.write(np.full(64, 5, np.float32))
        saxpy.launch(1, 64, (y, x, 1.0, 64)).wait()
        assert (y.numpy(np.float32) == (2 if omit else 6)).all()
        monkeypatch.undo()
