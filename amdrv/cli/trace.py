"""``amdrv trace``: what a boot does to the card, access by access."""

from __future__ import annotations

import click

from amdrv.cli.devices import EMULATED, chosen, device_option
from amdrv.errors import Unsupported
from amdrv.gpu import Gpu
from amdrv.ioctl import connect
from amdrv.runtime.selection import command_line


@click.command()
@device_option
@click.option("--warm", is_flag=True, help="Trace the second boot, which finds the firmware of the first.")
def command(device: str | None, warm: bool) -> None:
    """Show every access of a boot: virtual time, register name, value.

    Only an emulated card sees what is done to it; for a real one set AMDRV_LOG=trace.
    """
    name = chosen(device)
    if not name.startswith(EMULATED):
        raise Unsupported(f"{name}: only an emulated card records accesses; AMDRV_LOG=trace shows the driver's side")
    from amdrv import emulator

    if warm:
        Gpu.open(connect(name), command=command_line()).close()
    card = emulator.card(name)
    card.trace.start()
    gpu = Gpu.open(connect(name), command=command_line())
    card.trace.stop()
    with gpu:
        click.echo(card.trace.text())
        click.echo(f"{gpu.boot}\n{gpu.boot.reads} register reads, {gpu.boot.writes} writes", err=True)
