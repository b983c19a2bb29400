"""``amdrv emulate``: an emulated card in a process of its own, behind a socket."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from amdrv import log
from amdrv.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

MIB = 1 << 20
# A client that waits for an answer must not wait for the interpreter's turn of a running kernel as well.
SWITCH_INTERVAL_S = 0.0005


class Stop(BaseException):
    """SIGTERM came."""


@click.command()
@click.option("--arch", default="gfx1100", show_default=True, metavar="CHIP", help="Chip to emulate.")
@click.option("--socket", "path", required=True, type=click.Path(path_type=Path), help="Where to listen.")
@click.option("--vram", "vram_mib", type=click.IntRange(min=32), metavar="MIB",
              help="Video memory; the chip's own unless given.")  # fmt: skip
@click.option("--bar0", "bar0_mib", type=click.IntRange(min=32), metavar="MIB",
              help="How much of it BAR0 shows: all unless given. A power of two.")  # fmt: skip
@click.option("--relaxed/--strict", "relaxed", default=None,
              help="Coherent caches, faster and forgiving of missing flushes; or forgiving of nothing, however much "
              "memory is in use.  [default: strict, for stores through BAR0 up to 32 MiB in use]")  # fmt: skip
@click.option("--fault", "faults", multiple=True, metavar="FAULT",
              help="What goes wrong: smu:unresponsive, lost@120; a wrong name lists all there are.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the places that faults leave open.")
def command(
    arch: str,
    path: Path,
    vram_mib: int | None,
    bar0_mib: int | None,
    relaxed: bool | None,
    faults: tuple[str, ...],
    seed: int,
) -> None:
    """Serve an emulated card until SIGTERM, over the vfio-user protocol.

    The socket is there as soon as connections are taken. The card is the device emu:/PATH to other programs of this
    project, and QEMU attaches it with -device vfio-user-pci. It has one client at a time and keeps its state between
    them. What happens is logged to standard error.
    """
    signal.signal(signal.SIGTERM, _stop)
    log.configure(os.environ if os.environ.get("AMDRV_LOG") else {"AMDRV_LOG": "emulator.server=info"})
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        card = _card(arch, path, vram_mib, bar0_mib, strict=relaxed is False)
        if relaxed:
            card.relaxed = True
        card.faults.seed(seed)
        card.faults.inject(*faults)
        _serve(card, path)
    except Stop:
        click.echo("ended by SIGTERM", err=True)


def _card(arch: str, path: Path, vram_mib: int | None, bar0_mib: int | None, *, strict: bool) -> Card:
    from amdrv.emulator.chips import CHIPS
    from amdrv.emulator.shell import COMPARED_BYTES, Card

    if arch not in CHIPS:
        raise NotFound(f"{arch} is not emulated; there are {', '.join(sorted(CHIPS))}")
    if bar0_mib is not None and bar0_mib & (bar0_mib - 1):
        raise InvalidArgument(f"--bar0 {bar0_mib} is not a power of two")
    return Card(
        f"emu:{path}",
        CHIPS[arch],
        vram_bytes=None if vram_mib is None else vram_mib * MIB,
        bar0_bytes=None if bar0_mib is None else bar0_mib * MIB,
        shared_vram=True,
        compared_bytes=None if strict else COMPARED_BYTES,
    )


def _serve(card: Card, path: Path) -> None:
    from amdrv.emulator.server import Server

    server_log = logging.getLogger("amdrv.emulator.server")
    server = Server(card, path)
    try:
        server.listen()
        server.serve_forever()
    finally:
        server.close()
        for struck in card.faults.log:
            server_log.info("fault %s struck", struck)
        for name, accesses in card.unmodelled():
            server_log.info("nobody models %s: %d accesses", name, accesses)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stop
