"""``amdrv emulate``: what its options make of the card that it serves."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from amdrv import log
from amdrv.cli import emulate
from amdrv.emulator.faults import KINDS
from amdrv.emulator.shell import COMPARED_BYTES, Card

# A value for each kind of fault that needs one.
VALUES = {
    "lost": "@7",
    "client-dies": "=5",
    "flip-vram": "=0x1000.3@2",
    "flip-register": "=NBIO.BIF_BX0_BIOS_SCRATCH_4.3@9",
    "reject": "=SMU",
    "hang-wave": "=2",
    "drop-interrupt": "=1",
    "duplicate-interrupt": "=1",
    "slow-link": "=20",
}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., tuple[Result, list[Card]]]]:
    """Run the command with options; its result, and the card that it would have served."""
    seen: list[Card] = []
    monkeypatch.setattr(emulate, "_serve", lambda card, path: seen.append(card))
    monkeypatch.setattr(log, "configure", lambda environment: None)
    interval, handler = sys.getswitchinterval(), signal.getsignal(signal.SIGTERM)

    def run(*options: str) -> tuple[Result, list[Card]]:
        result = CliRunner().invoke(emulate.command, ["--socket", str(tmp_path / "card"), "--vram", "64", *options])
        return result, seen

    yield run
    sys.setswitchinterval(interval)
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("options", "relaxed", "limit"),
    [((), False, COMPARED_BYTES), (("--strict",), False, None), (("--relaxed",), True, COMPARED_BYTES)],
)
def test_strictness_is_chosen_by_option(serve, options: tuple[str, ...], relaxed: bool, limit: int | None) -> None:
    result, (card,) = serve(*options)
    assert result.exit_code == 0
    assert (card.relaxed, card.host_path.transparent, card.host_path.limit_bytes) == (relaxed, relaxed, limit)


def test_every_fault_is_an_option(serve) -> None:
    faults = [kind + VALUES.get(kind, "") for kind in KINDS]
    result, (card,) = serve(*(part for fault in faults for part in ("--fault", fault)), "--seed", "3")
    assert result.exit_code == 0, result.output
    assert list(card.faults.active) == faults
