"""``amdrv reset``: bring a card back to a state from which it can be started."""

from __future__ import annotations

import time

import click

from amdrv import discovery
from amdrv.cli.devices import chosen, device_option, look
from amdrv.cli.output import print_json
from amdrv.gpu import RESET_LEVELS, Gpu
from amdrv.ioctl import ResetKind, connect
from amdrv.runtime.selection import command_line

AFTERWARDS = {
    "queue": "queued work was dropped; memory is intact",
    "engine": "the compute engine was restarted; memory is intact",
    "mode1": "memory and firmware are gone; the next open is cold",
    "function": "memory and firmware are gone; the next open is cold",
}


@click.command()
@click.argument("name", metavar="[DEVICE]", required=False)
@device_option
@click.option("--level", type=click.Choice(RESET_LEVELS), default="mode1", show_default=True, help="How much to reset.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(name: str | None, device: str | None, level: str, as_json: bool) -> None:
    """Reset a card.

    \b
    queue     end what runs on the hardware queues
    engine    restart the compute engine as well
    mode1     reset the whole chip through its power management firmware
    function  reset the function through the PCI bus

    The first three need a running card, so that one which is not warm is booted first. A card that somebody uses is
    refused.
    """
    if name and device and name != device:
        raise click.UsageError(f"two devices are named: {name} and {device}")
    target = chosen(name or device, harmful=True)
    before = look(target).state
    started = time.perf_counter()
    booted = _reset(target, level)
    seconds = time.perf_counter() - started
    after = look(target).state
    if as_json:
        print_json({
            "device": target, "level": level, "state_before": before, "state_after": after, "boot": booted,
            "seconds": seconds,
        })  # fmt: skip
        return
    first = f"it was {before}, so a {booted} boot came first; " if booted else ""
    click.echo(f"{target}: {level} reset done in {seconds:.2f} s; {first}{AFTERWARDS[level]} (state: {after})")


def _reset(target: str, level: str) -> str | None:
    """Do it; the kind of boot that had to come first, if any did."""
    function = connect(target)
    if level == "function":
        function.acquire(command_line())
        try:
            function.reset(ResetKind.FUNCTION)
            discovery.wait_for_firmware(function)
        finally:
            function.release()
        return None
    with Gpu.open(function, command=command_line()) as gpu:
        gpu.reset(level)
        return gpu.boot.kind
