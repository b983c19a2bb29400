"""Every fault that ``amdrv emulate --fault`` knows, as a client behind the socket meets it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import amdrv
from amdrv.emulator.chips import CHIPS
from amdrv.emulator.faults import KINDS, parse
from amdrv.emulator.server import Server
from amdrv.emulator.shell import Card
from amdrv.errors import AmdrvError, DeviceLost, FirmwareRejected, Timeout
from amdrv.runtime.device import Device

SAXPY = Path(__file__).parents[1] / "runtime" / "data" / "saxpy.ll"
N = 64
# Fault → the error that the client gets and what it says, or None where the client's work goes well all the same.
MET: dict[str, tuple[type[AmdrvError], str] | None] = {
    "psp:unresponsive": (Timeout, "MP0"),
    "smu:unresponsive": (Timeout, "MP1"),
    "rlc:unresponsive": (Timeout, "RLC"),
    "mec:unresponsive": (Timeout, "saxpy"),
    "sdma:unresponsive": None,  # nothing in a launch needs it
    "mes:unresponsive": None,
    "lost": (DeviceLost, "all ones"),
    "lost@50": (DeviceLost, "all ones"),
    "lost-after=300": (DeviceLost, "all ones"),
    "flip-vram=0x3fff0038.0@50": None,  # in the discovery table, which has been read by then
    "flip-register=NBIO.BIF_BX0_BIOS_SCRATCH_4.3@10": None,
    "reject=SMU": (FirmwareRejected, "SMU"),
    "hang-wave": (Timeout, "saxpy"),
    "drop-interrupt=1": None,
    "duplicate-interrupt=1": None,
    "overflow-interrupts": None,
    "slow-link=20": None,
}


@pytest.fixture
def card() -> Card:
    return Card("emu:served", CHIPS["gfx1100"], vram_bytes=1 << 30, shared_vram=True)


@pytest.fixture
def name(card: Card, tmp_path: Path) -> Iterator[str]:
    server = Server(card, tmp_path / "card")
    server.listen()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"emu:{server.path}"
    server.close()
    thread.join(10)


@pytest.fixture(scope="module")
def code() -> bytes:
    return amdrv.compile_llvm(SAXPY.read_text())


def computes(dev: Device, code: bytes, timeout_s: float) -> bool:
    y, x = dev.array(np.ones(N, np.float32)), dev.array(np.full(N, 2, np.float32))
    dev.load(code)["saxpy"].launch(1, N, (y, x, 3.0, N)).wait(timeout_s)
    return bool((y.numpy(np.float32) == 7).all())


def works(name: str, code: bytes, timeout_s: float = 20.0) -> bool:
    with amdrv.open(name) as dev:
        return computes(dev, code, timeout_s)


def test_every_kind_of_fault_is_tried() -> None:
    tried = {parse(text).kind for text in MET}
    assert tried == set(KINDS) - {"client-dies"}  # that one needs a process of its own


@pytest.mark.parametrize("fault", MET)
def test_client_meets_the_fault_by_name_and_the_card_is_sound_without_it(
    card: Card, name: str, code: bytes, fault: str
) -> None:
    card.faults.inject(fault)
    expected = MET[fault]
    if expected is None:
        assert works(name, code)
    else:
        with pytest.raises(expected[0], match=expected[1]):
            works(name, code, timeout_s=0.3)
    card.faults.clear()
    card.bus_reset(function_level=False)
    assert works(name, code)


@pytest.mark.parametrize("fault", ["lost@137", "reject=RLC_G", "drop-interrupt=1"])
def test_the_same_fault_strikes_at_the_same_access_again(tmp_path: Path, code: bytes, fault: str) -> None:
    logs = []
    for life in range(2):
        card = Card("emu:served", CHIPS["gfx1100"], vram_bytes=1 << 30, shared_vram=True)
        card.faults.inject(fault)
        server = Server(card, tmp_path / f"card{life}")
        server.listen()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            works(f"emu:{server.path}", code)
        except AmdrvError:
            pass
        finally:
            server.close()
        logs.append(card.faults.log)
    assert logs[0]
    assert logs[0] == logs[1]
