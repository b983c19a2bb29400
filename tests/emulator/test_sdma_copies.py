"""Copies of windows, surfaces and pages, on both versions of the copy engine, in packets written out as dwords.

Layouts: Linux 6.12 sdma_v6_0_0_pkt_open.h; for SDMA 7, ROCr sdma_registers.h (SDMA_PKT_COPY_LINEAR_RECT_GFX12) and
Mesa ac_cmdbuf_sdma.c.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from amdrv.facts.doorbells import Doorbell
from amdrv.facts.ih_ids import Client, GfxSource

BOTH = ["gfx1100", "gfx1201"]
SIX, SEVEN = BOTH
SOURCE, TARGET, FENCE = 0, 0x4000, 0xF000


class Engine:
    """Queue 0 of the first engine (sdma_v6_0_gfx_resume), and a page of memory to copy in."""

    def __init__(self, rig: Any, ring_type: Any) -> None:
        self.rig = rig
        self.ring = ring_type(rig, 2 * Doorbell.SDMA_ENGINE0, unit_bytes=4)
        self.data = rig.memory.take(1 << 16)
        self.at = rig.mc(self.data)
        self.write("QUEUE0_RB_BASE", rig.mc(self.ring.ring) >> 8 & 0xFFFF_FFFF)
        self.write("QUEUE0_RB_BASE_HI", rig.mc(self.ring.ring) >> 40)
        self.write("QUEUE0_DOORBELL_OFFSET", self.ring.doorbell_dword << 2)
        self.write("QUEUE0_DOORBELL", 1 << 28)
        self.write("F32_CNTL", 0)
        size = self.ring.size_dwords.bit_length() - 1
        self.write("QUEUE0_RB_CNTL", 1 | size << 1 | 1 << 23)  # RB_ENABLE, RB_SIZE, RB_PRIV

    def write(self, name: str, value: int) -> None:
        self.rig.card.write_register(self.rig.sdma(0, name).address, value)

    def read(self, name: str) -> int:
        return int(self.rig.card.read_register(self.rig.sdma(0, name).address))

    def run(self, *packet: int) -> bool:
        """Whether the packet, and a fence behind it, were executed."""
        fence = (5, *self.address(FENCE), 1)
        self.ring.submit(packet, fence)
        assert self.rig.idle()
        return bool(self.rig.memory.word(self.data + FENCE))

    def address(self, offset: int) -> tuple[int, int]:
        return (self.at + offset) & 0xFFFF_FFFF, (self.at + offset) >> 32

    def put(self, offset: int, words: Sequence[int]) -> None:
        self.rig.memory.put(self.data + offset, words)

    def words(self, offset: int, count: int) -> list[int]:
        return [self.rig.memory.word(self.data + offset + 4 * n) for n in range(count)]


@pytest.fixture
def engine(rig: Any, ring_type: Any) -> Engine:
    return Engine(rig, ring_type)


def arch(engine: Engine) -> str:
    return str(engine.rig.card.chip.arch)


@pytest.mark.parametrize("rig", BOTH, indirect=True)
def test_rectangle_as_rocr_sends_it(engine: Engine) -> None:
    """Dwords 1 to 3 of rows 1 and 2 of slices 1 and 2, from an 8 x 4 surface to places of their own in a 5 x 3 one."""
    engine.put(SOURCE, range(8 * 4 * 3))
    shift = 13 if arch(engine) == SIX else 16
    assert engine.run(
        1 | 4 << 8 | 2 << 29,  # COPY, LINEAR_SUB_WIND, elements of 4 bytes
        *engine.address(SOURCE), 1 | 1 << 16, 1 | 7 << shift, 31,
        *engine.address(TARGET), 2 | 0 << 16, 0 | 4 << shift, 14,
        2 | 1 << 16, 1,
    )  # fmt: skip
    rows = {0: [41, 42, 43], 5: [49, 50, 51], 15: [73, 74, 75], 20: [81, 82, 83]}
    expected = [0] * 30
    for row, values in rows.items():
        expected[row + 2 : row + 5] = values
    assert engine.words(TARGET, 30) == expected


@pytest.mark.parametrize("rig", [SEVEN], indirect=True)
def test_seventh_version_has_wider_rectangles(engine: Engine) -> None:
    """Coordinates and pitches of 16 bits, where version 6 has 14 and, behind 13 bits, 19."""
    engine.put(0xE000, (0x55,))
    assert engine.run(
        1 | 4 << 8 | 0 << 29,
        *engine.address(SOURCE), 0x6000 | 1 << 16, 0x7FFF << 16, 0,
        *engine.address(TARGET), 0, 0, 0,
        3, 0,
    )  # fmt: skip
    assert engine.words(TARGET, 1) == [0x55]


@pytest.mark.parametrize("rig", BOTH, indirect=True)
def test_large_rectangle_counts_bytes(engine: Engine) -> None:
    engine.put(SOURCE, range(64))
    assert engine.run(
        1 | 36 << 8,  # LINEAR_SUB_WIND_LARGE
        *engine.address(SOURCE), 4, 1, 0, 31, 127, 0,
        *engine.address(TARGET), 0, 0, 0, 7, 15, 0,
        7, 1, 0,
    )  # fmt: skip
    assert engine.words(TARGET, 4) == [9, 10, 17, 18]


def surface(engine: Engine, offset: int, x: int, y: int, width: int, height: int, *, mode: int = 0) -> tuple[int, ...]:
    """Six dwords of a surface of dwords with a swizzle mode."""
    return (*engine.address(offset), x | y << 16, (width - 1) << 16, height - 1, 2 | mode << 3)


def row_dwords(engine: Engine) -> int:
    return 64 if arch(engine) == SIX else 32


@pytest.mark.parametrize("rig", BOTH, indirect=True)
@pytest.mark.parametrize("detile", [0, 1])
def test_window_between_a_linear_surface_and_one_without_a_swizzle(engine: Engine, detile: int) -> None:
    """Rows of the surface are padded: its packet has no pitch."""
    row = row_dwords(engine)
    tiled, plain = (SOURCE, TARGET) if detile else (TARGET, SOURCE)
    engine.put(SOURCE, range(4 * row if detile else 32))
    assert engine.run(
        1 | 5 << 8 | detile << 31,
        *surface(engine, tiled, 3, 1, 8, 4),
        *engine.address(plain), 1 | 2 << 16, 7 << 16, 31,
        1 | 1 << 16, 0,
    )  # fmt: skip
    if detile:
        assert engine.words(TARGET, 32)[17:19] + engine.words(TARGET, 32)[25:27] == [
            row + 3, row + 4, 2 * row + 3, 2 * row + 4,
        ]  # fmt: skip
    else:
        assert engine.words(TARGET + 4 * (row + 3), 2) + engine.words(TARGET + 4 * (2 * row + 3), 2) == [17, 18, 25, 26]


@pytest.mark.parametrize("rig", BOTH, indirect=True)
def test_window_between_two_surfaces_without_a_swizzle(engine: Engine) -> None:
    row = row_dwords(engine)
    engine.put(SOURCE, range(4 * row))
    assert engine.run(
        1 | 6 << 8,  # T2T_SUB_WIND
        *surface(engine, SOURCE, 1, 2, row, 4),
        *surface(engine, TARGET, 0, 1, row + 1, 4),
        2 | 1 << 16,
        0,
    )
    assert engine.words(TARGET + 4 * 2 * row, 3) == [2 * row + 1, 2 * row + 2, 2 * row + 3]
    assert engine.words(TARGET + 4 * 4 * row, 4) == [3 * row + 1, 3 * row + 2, 3 * row + 3, 0]


@pytest.mark.parametrize("rig", BOTH, indirect=True)
@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (lambda e: (1 | 5 << 8, *surface(e, SOURCE, 0, 0, 8, 4, mode=3), *e.address(TARGET), 0, 0, 0, 0, 0), "mode 3"),
        (lambda e: (1 | 6 << 8, *surface(e, 0, 0, 0, 8, 4), *surface(e, TARGET, 0, 0, 8, 4, mode=4), 0, 0), "mode 4"),
        (lambda e: (1 | 5 << 8 | 1 << 19, *surface(e, 0, 0, 0, 8, 4), *e.address(TARGET), 0, 0, 0, 0, 0), "compress"),
        (lambda e: (1 | 1 << 8, *(0,) * 12), "COPY TILED"),
        (lambda e: (1 | 7 << 8, 3, 0, *e.address(SOURCE), *e.address(TARGET)), "dirty"),
    ],
)
def test_what_is_not_emulated_is_refused_by_name(
    engine: Engine, caplog: pytest.LogCaptureFixture, packet: Any, said: str
) -> None:
    engine.put(SOURCE, (1,))
    with caplog.at_level(logging.WARNING, "amdrv"):
        assert not engine.run(*packet(engine))
    assert said in caplog.text
    assert engine.words(TARGET, 1) == [0]
    assert engine.read("QUEUE0_CONTEXT_STATUS") >> 4 & 7  # EXCEPTION


def test_pages_are_copied_when_all_are_meant(engine: Engine) -> None:
    engine.put(SOURCE, (1, 2, 3))
    assert engine.run(1 | 7 << 8 | 1 << 31, 8 - 1, 0, *engine.address(SOURCE), *engine.address(TARGET))
    assert engine.words(TARGET, 3) == [1, 2, 0]


@pytest.mark.parametrize("tenths", [0, 100])
def test_watchdog_tells_of_a_queue_that_hangs(engine: Engine, tenths: int) -> None:
    """WATCHDOG_CNTL.QUEUE_HANG_COUNT counts tenths of a second; Linux sets it."""
    engine.write("WATCHDOG_CNTL", tenths)
    engine.run(0xEE)
    engine.rig.card.sleep(5)  # time is the host's while the queue works, so no closer than this
    assert not engine.rig.interrupts()
    engine.rig.card.sleep(5.1)
    found = [(entry["CLIENT_ID"], entry["SOURCE_ID"], entry["RING_ID"]) for entry in engine.rig.interrupts()]
    assert found == ([(Client.GFX, GfxSource.SDMA_QUEUE_HANG, 0)] if tenths else [])


def test_watchdog_forgets_a_queue_that_was_reset(engine: Engine) -> None:
    engine.write("WATCHDOG_CNTL", 1)
    engine.run(0xEE)
    engine.write("QUEUE0_RB_CNTL", 0)
    engine.rig.card.sleep(0.2)
    assert not engine.rig.interrupts()
