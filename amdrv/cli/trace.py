"""``amdrv trace``: what a boot does to the card, access by access; recordings of it, and what can be done with them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amdrv.cli.devices import chosen, device_option, in_process
from amdrv.errors import Unsupported
from amdrv.gpu import Gpu
from amdrv.ioctl import connect
from amdrv.runtime.selection import command_line

if TYPE_CHECKING:
    from amdrv.emulator.shell import Card

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MISMATCHES_SHOWN = 20
SPARE_SLOTS = itertools.count(9000)  # of cards that a replay plugs in


@click.group(invoke_without_command=True)
@device_option
@click.option("--warm", is_flag=True, help="Trace the second boot, which finds the firmware of the first.")
@click.pass_context
def command(context: click.Context, device: str | None, warm: bool) -> None:
    """Show every access of a boot: virtual time, register name, value, fields.

    The subcommands keep such a trace in a file, show it, compare two, or play one to a card. Only an emulated card sees
    what is done to it; for a real one set AMDRV_LOG=trace.
    """
    if context.invoked_subcommand is not None:
        return
    name = _emulated(device)
    card = _card(name)
    gpu = _traced_boot(name, card, warm=warm, memory=False)
    with gpu:
        card.trace.stop()
        click.echo(card.trace.text())
        click.echo(f"{gpu.boot}\n{gpu.boot.reads} register reads, {gpu.boot.writes} writes", err=True)


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@device_option
@click.option("--warm", is_flag=True, help="Record the second boot; it does not replay, because the first is missing.")
@click.option("--close", "closing", is_flag=True, help="Record the closing of the device too.")
def record(file: Path, device: str | None, warm: bool, closing: bool) -> None:
    """Record a boot, with the memory that its client stores, to FILE."""
    name = _emulated(device)
    card = _card(name)
    gpu = _traced_boot(name, card, warm=warm, memory=True)
    if not closing:
        card.trace.stop()
    gpu.close()
    entries = card.trace.stop()
    card.trace.save(file)
    click.echo(f"{file}: {len(entries)} entries, {file.stat().st_size} bytes; {gpu.boot}", err=True)


@command.command()
@click.argument("file", type=FILE)
@click.option("--no-fields", is_flag=True, help="Leave the fields of registers and packets out.")
@click.option("--only", multiple=True, metavar="SPACE", help="config, register, doorbell, packet, vram or system.")
def show(file: Path, no_fields: bool, only: tuple[str, ...]) -> None:
    """Print the entries of FILE, a line each."""
    from amdrv.emulator.trace_file import load
    from amdrv.emulator.trace_text import lines

    recording = load(file)
    entries = [entry for entry in recording.entries if not only or entry.space in only]
    for line in lines(entries, recording.registers, fields=not no_fields):
        click.echo(line)


@command.command()
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
def diff(first: Path, second: Path) -> None:
    """Compare two recordings access by access, whatever the time; exit status 1 when they differ."""
    from amdrv.emulator.trace_diff import diff as compare
    from amdrv.emulator.trace_file import load

    before, after = load(first), load(second)
    lines = list(compare((str(first), before.entries), (str(second), after.entries), before.registers))
    for line in lines:
        click.echo(line)
    if lines:
        click.get_current_context().exit(1)


@command.command()
@click.argument("file", type=FILE)
@device_option
def replay(file: Path, device: str | None) -> None:
    """Play FILE to a card and compare what it reads; exit status 1 when a read differs.

    Without a device it is a card that is plugged in for it, of the chip and size of the recording.
    """
    from amdrv import emulator
    from amdrv.emulator.trace_file import load
    from amdrv.emulator.trace_replay import replay as play
    from amdrv.emulator.trace_text import place

    recording = load(file)
    name = _emulated(device) if device else f"emu:{recording.arch}#{next(SPARE_SLOTS)}"
    card = emulator.card(name) if device else emulator.card(name, vram_bytes=recording.vram_bytes)
    mismatches = play(recording.entries, card)
    for mismatch in mismatches[:MISMATCHES_SHOWN]:
        where = place(mismatch.entry, recording.registers)
        click.echo(f"entry {mismatch.number}: {where} was {mismatch.entry.value:#x}, is {mismatch.value:#x}")
    click.echo(f"{len(recording.entries)} entries replayed to {name}, {len(mismatches)} reads differ", err=True)
    if mismatches:
        click.get_current_context().exit(1)


def _emulated(device: str | None) -> str:
    name = chosen(device)
    if not in_process(name):
        raise Unsupported(
            f"{name}: only an emulated card in this process records accesses; AMDRV_LOG=trace shows the driver's side"
        )
    return name


def _card(name: str) -> Card:
    from amdrv import emulator

    return emulator.card(name)


def _traced_boot(name: str, card: Card, *, warm: bool, memory: bool) -> Gpu:
    """Open the device with the trace on, which stays on."""
    if warm:
        Gpu.open(connect(name), command=command_line()).close()
    card.trace.start(memory=memory)
    return Gpu.open(connect(name), command=command_line())
