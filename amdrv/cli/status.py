"""``amdrv status``: what cards there are and in which state, without starting or changing any."""

from __future__ import annotations

import time
from pathlib import Path

import click

from amdrv.cli import inventory
from amdrv.cli.output import console, print_json, show

SMALLEST_PERIOD_S = 0.1


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--watch", is_flag=True, help="Look again and again until interrupted.")
@click.option("--period", type=float, default=2.0, show_default=True, help="Seconds between looks of --watch.")
@click.option("--sysfs-root", type=click.Path(path_type=Path), default=Path("/sys"), hidden=True)
def command(as_json: bool, watch: bool, period: float, sysfs_root: Path) -> None:
    """Show the cards of this machine without starting them.

    Real cards are described from files of the kernel and are not touched. Emulated cards live in the process that opens
    them, so what is seen here is one that was just plugged in: cold. One that amdrv emulate serves keeps its state; it
    is shown when --device or $AMDRV_DEVICE names it.
    """
    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    if period < SMALLEST_PERIOD_S:
        raise click.UsageError(f"--period {period:g} is less than {SMALLEST_PERIOD_S:g} seconds")
    device = click.get_current_context().find_root().params.get("device")
    inventory.check_name(sysfs_root, device)
    if as_json:
        print_json(inventory.document(inventory.take(sysfs_root, device)))
        return
    from amdrv.cli.status_view import render

    out = console()
    if not watch:
        show(out, render(out, inventory.take(sysfs_root, device)))
        return
    from rich.live import Live

    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        while True:
            live.update(render(out, inventory.take(sysfs_root, device)), refresh=True)
            time.sleep(period)
