"""Faults on demand: each strikes where it was asked to, and the driver meets it with a clear error in bounded time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import amdrv
from amdrv import emulator
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.faults import KINDS, ClientDied, Fault, parse
from amdrv.emulator.shell import Card
from amdrv.emulator.worker import Progress
from amdrv.errors import AmdrvError, DeviceLost, FirmwareRejected, GpuFault, InvalidArgument, NotFound, Timeout
from amdrv.memory.layout import BOOT_RECORD
from amdrv.runtime.device import Device

SAXPY = (Path(__file__).parents[1] / "runtime" / "data" / "saxpy.ll").read_text()
MIB = 1 << 20
N = 64
numbers = itertools.count(7300)


@pytest.fixture
def name() -> Iterator[str]:
    """A card of its own."""
    chosen = f"emu:gfx1100#{next(numbers)}"
    emulator.card(chosen, vram_bytes=1024 * MIB)
    yield chosen
    emulator.unplug(chosen)


@pytest.fixture(scope="module")
def code() -> bytes:
    return amdrv.compile_llvm(SAXPY)


def computes(dev: Device, code: bytes, timeout_s: float = 10.0) -> bool:
    """Whether a kernel gives the right answer."""
    y, x = dev.array(np.ones(N, np.float32)), dev.array(np.full(N, 2, np.float32))
    dev.load(code)["saxpy"].launch(1, N, (y, x, 3.0, N)).wait(timeout_s)
    return bool((y.numpy(np.float32) == 7).all())


def sound(name: str, code: bytes) -> bool:
    """Whether the card works once its faults are taken back."""
    emulator.card(name).faults.clear()
    with amdrv.open(name) as dev:
        return computes(dev, code)


@pytest.mark.parametrize(("engine", "named"), [("psp", "MP0"), ("smu", "MP1"), ("rlc", "RLC")])
def test_engine_that_never_answers_is_a_named_timeout_of_the_start(
    name: str, code: bytes, engine: str, named: str
) -> None:
    emulator.card(name).faults.inject(f"{engine}:unresponsive")
    with pytest.raises(Timeout, match=named):
        amdrv.open(name)
    assert sound(name, code)


def test_compute_engine_that_never_answers_costs_the_launch_a_named_timeout(name: str, code: bytes) -> None:
    dev = amdrv.open(name)
    emulator.card(name).faults.inject("mec:unresponsive")
    with pytest.raises(Timeout, match="saxpy"):
        computes(dev, code, timeout_s=0.2)
    emulator.card(name).faults.clear()
    assert computes(dev, code)
    dev.close()


def test_hung_wave_costs_the_launch_a_timeout_and_the_queue_goes_on(name: str, code: bytes) -> None:
    with amdrv.open(name) as dev:
        emulator.card(name).faults.inject("hang-wave=2")
        assert computes(dev, code)
        with pytest.raises(Timeout, match="saxpy"):
            computes(dev, code, timeout_s=0.2)
        assert computes(dev, code)


@pytest.mark.parametrize("access", [1, 2, 25, 70, 110, 150, 200, 250, 300])
def test_card_lost_at_any_access_of_the_start_is_an_error_of_the_family(name: str, code: bytes, access: int) -> None:
    faults = emulator.card(name).faults
    faults.inject(f"lost-after={access}")
    with pytest.raises(AmdrvError) as raised:
        amdrv.open(name)
    assert isinstance(raised.value, (DeviceLost, Timeout)) or "all ones" in str(raised.value)
    assert faults.log == [f"lost@{access}"]
    assert sound(name, code)


@pytest.mark.parametrize("access", [310, 330, 350])
def test_card_lost_at_the_end_of_the_start_is_noticed_by_the_first_kernel_at_the_latest(
    name: str, code: bytes, access: int
) -> None:
    emulator.card(name).faults.inject(f"lost@{access}")
    with pytest.raises(DeviceLost), amdrv.open(name) as dev:
        computes(dev, code, timeout_s=0.5)
    assert sound(name, code)


def test_card_lost_while_a_kernel_is_launched_says_so(name: str, code: bytes) -> None:
    dev = amdrv.open(name)
    emulator.card(name).faults.inject("lost@1")
    with pytest.raises(DeviceLost):
        computes(dev, code, timeout_s=0.5)
    with pytest.raises(DeviceLost):
        dev.synchronize()
    dev.close()
    assert sound(name, code)


@pytest.mark.parametrize("write", [1, 3, 60, 120, 180, 225])
def test_client_that_dies_in_its_start_leaves_a_card_that_starts_again(name: str, code: bytes, write: int) -> None:
    card = emulator.card(name)
    card.faults.inject(f"client-dies={write}")
    with pytest.raises(ClientDied):
        amdrv.open(name)
    with amdrv.open(name) as dev:
        assert dev.boot.kind == "cold"
        assert computes(dev, code)
    assert len(card.faults.log) == 1


def test_client_that_dies_at_work_leaves_an_unclean_card(name: str, code: bytes) -> None:
    card = emulator.card(name)
    dev = amdrv.open(name)
    card.faults.inject("client-dies=1")
    with pytest.raises(ClientDied):
        computes(dev, code)
    with pytest.raises(ClientDied):
        dev.close()
    assert card.bus_master  # nobody turned it off
    with amdrv.open(name) as again:
        assert again.boot.kind == "cold"
        assert computes(again, code)


@pytest.mark.parametrize(
    ("piece", "named"), [("KDB", "KDB"), ("SOS", "secure OS"), ("SMU", "SMU"), ("RLC_G", "RLC_G"), ("TOC", "TOC")]
)
def test_rejected_firmware_is_named(name: str, code: bytes, piece: str, named: str) -> None:
    faults = emulator.card(name).faults
    faults.inject(f"reject={piece}")
    with pytest.raises(FirmwareRejected, match=named):
        amdrv.open(name)
    assert faults.log[0].startswith(f"reject={piece}@")
    assert sound(name, code)


@pytest.mark.parametrize("fault", ["drop-interrupt=1", "duplicate-interrupt=1", "overflow-interrupts"])
def test_trouble_with_interrupts_costs_nothing(name: str, code: bytes, fault: str) -> None:
    faults = emulator.card(name).faults
    with amdrv.open(name) as dev:
        faults.inject(fault)
        assert computes(dev, code)
        assert computes(dev, code)
        assert len(faults.log) == 1


def test_fault_of_a_kernel_is_still_reported_after_an_overflow(name: str, code: bytes) -> None:
    with amdrv.open(name) as dev:
        emulator.card(name).faults.inject("overflow-interrupts")
        assert computes(dev, code)
        with pytest.raises(GpuFault):
            dev.load(code)["saxpy"].launch(1, N, (0, 0, 1.0, N)).wait(10)
        assert computes(dev, code)


def test_flipped_bit_of_a_buffer_is_in_the_result(name: str, code: bytes) -> None:
    card = emulator.card(name)
    with amdrv.open(name) as dev:
        buffer = dev.array(np.zeros(1, np.uint32))
        assert computes(dev, code)  # page tables are where the hub reads them
        offset = card.graphics_hub.look(0, buffer.va).delta + buffer.va
        card.faults.inject(f"flip-vram={offset:#x}.3")
        assert buffer.numpy(np.uint32).tolist() == [8]


@pytest.mark.parametrize("fault", [f"flip-vram={BOOT_RECORD.offset + 20:#x}.0", "flip-register=GC.SCRATCH_REG7.9"])
def test_flipped_bit_in_the_boot_record_costs_the_warm_start(name: str, code: bytes, fault: str) -> None:
    amdrv.open(name).close()
    emulator.card(name).faults.inject(fault)
    with amdrv.open(name) as dev:
        assert dev.boot.kind == "cold"
        assert computes(dev, code)


def test_slow_link_costs_virtual_time_and_nothing_else(name: str, code: bytes) -> None:
    amdrv.open(name).close()
    with amdrv.open(name) as dev:
        fast_s = dev.boot.virtual_s
    emulator.card(name).faults.inject("slow-link=50")
    with amdrv.open(name) as dev:
        assert dev.boot.kind == "warm"
        assert fast_s is not None and dev.boot.virtual_s is not None
        assert 20 * fast_s < dev.boot.virtual_s < 50 * fast_s
        assert computes(dev, code)


def test_open_places_are_drawn_from_the_seed_and_the_log_replays_them() -> None:
    def struck(inject: Callable[[Card], None]) -> list[str]:
        card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
        card.vram_view(0, 16 * MIB)[:] = b"\x11" * (16 * MIB)
        inject(card)
        for _ in range(10):
            card.read_register(0x378C)
        return card.faults.log

    def drawn(seed: int) -> Callable[[Card], None]:
        def inject(card: Card) -> None:
            card.faults.seed(seed)
            card.faults.inject("flip-vram@3", "flip-vram@7")

        return inject

    first = struck(drawn(1))
    assert len(first) == 2
    assert struck(drawn(1)) == first
    assert struck(drawn(2)) != first
    assert struck(lambda card: card.faults.inject(*first)) == first


def test_cleared_faults_do_not_strike(name: str, code: bytes) -> None:
    faults = emulator.card(name).faults
    faults.inject("lost@5", "psp:unresponsive", "hang-wave", "client-dies=2", "reject=SMU")
    assert faults.active == ("lost@5", "psp:unresponsive", "hang-wave", "client-dies=2", "reject=SMU")
    faults.clear()
    assert faults.active == ()
    assert sound(name, code)


NO_FAULTS = """
    gpu:unresponsive  lost@  lost@x  lost=3  client-dies  client-dies=0  flip-vram=12  flip-vram=0.8  slow-link=0.5
    reject  reject=NOTHING  flip-register=GC  hang-wave=-1  overflow-interrupts=1  drop-interrupt=²  slow-link=nan
"""


@pytest.mark.parametrize("text", ["", *NO_FAULTS.split()])
def test_text_that_is_no_fault_is_refused_and_injects_nothing(text: str) -> None:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    with pytest.raises(InvalidArgument, match="fault"):
        card.faults.inject("lost", text)
    assert card.faults.active == ()
    assert not card.faults.off_the_bus


@pytest.mark.parametrize(
    ("fault", "error"),
    [("flip-register=GC.NOTHING.1", NotFound), ("flip-register=GC.SCRATCH_REG0.32", InvalidArgument)],
)
def test_register_that_is_not_there_is_refused(fault: str, error: type[Exception]) -> None:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    with pytest.raises(error):
        card.faults.inject(fault)


@pytest.mark.parametrize(
    "fault",
    [f"flip-vram={64 * MIB:#x}.0@50", Fault("hang-wave", "0"), Fault("lost", at=-1), Fault("nothing")],
    ids=str,
)
def test_fault_that_could_not_strike_is_refused_before_any_strikes(fault: str | Fault) -> None:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    with pytest.raises(InvalidArgument):
        card.faults.inject("smu:unresponsive", fault)
    assert card.faults.active == ()
    assert card.faults.log == []


VALUES = {"client-dies": "3", "drop-interrupt": "2", "duplicate-interrupt": "9", "slow-link": "2.5", "reject": "SMU"}
VALUES |= {"flip-register": "GC.SCRATCH_REG0.4"}


@given(st.sampled_from(sorted(KINDS)), st.none() | st.integers(0, 10**6))
def test_every_kind_reads_back_from_its_text(kind: str, at: int | None) -> None:
    fault = Fault(kind, VALUES.get(kind, ""), at)
    assert parse(str(fault)) == fault


@pytest.mark.parametrize(
    ("engine", "task"),
    [("mec", "Mec (1, 0, 0) connection 1"), ("sdma", "Sdma (0, 0, 0) connection 2"), ("mes", "Mes (3, 0, 0) one")],
)
def test_queues_of_an_engine_that_never_answers_stand_still_and_those_of_others_go_on(engine: str, task: str) -> None:
    card = Card("test", CHIPS["gfx1100"], vram_bytes=64 * MIB)
    ran: list[str] = []

    def work(name: str) -> Iterator[Progress]:
        ran.append(name)
        yield Progress.RAN

    card.faults.inject(f"{engine}:unresponsive")
    with card.lock:
        card.worker.add(task, work("stopped"))
        card.worker.add("Other queue", work("other"))
    deadline = time.monotonic() + 5
    while "other" not in ran and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.01)
    assert ran == ["other"]
    card.faults.clear()
    while card.worker.busy and time.monotonic() < deadline:
        time.sleep(0.001)
    assert ran == ["other", "stopped"]
