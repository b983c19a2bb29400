"""``amdrv demo``: the tour of ``amdrv.demo``, shown as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from amdrv.cli.demo_report import document
from amdrv.cli.devices import chosen, device_option, in_process
from amdrv.cli.output import console, print_json
from amdrv.demo.programs import SIZES
from amdrv.demo.tour import Event, Faulted, Ran, tour


@click.command()
@device_option
@click.option("--size", type=click.Choice(tuple(SIZES)), default="normal", show_default=True,
              help="How much to compute.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("mandelbrot.png"),
              show_default=True, help="Where the picture goes.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.pass_context
def command(ctx: click.Context, device: str | None, size: str, output: Path, as_json: bool) -> None:
    """Boot a card, compute on it, close it, find it warm, make it fault and recover.

    Every result is compared with NumPy's. The status is 1 when one is wrong.
    """
    if not output.parent.is_dir():
        raise click.UsageError(f"--output {output}: there is no folder {output.parent}")
    name = chosen(device)
    started = time.perf_counter()
    events: list[Event] = []
    stream = tour(name, SIZES[size], output, _instruction_counter(name))
    if as_json:
        events.extend(stream)
        seconds = time.perf_counter() - started
        print_json(document(name, size, events, seconds, passed(events)))
    else:
        from amdrv.cli.demo_view import View

        view = View(console(), name)
        for event in stream:
            events.append(event)
            view.show(event)
        view.end(time.perf_counter() - started, passed(events))
    if not passed(events):
        ctx.exit(1)


def passed(events: list[Event]) -> bool:
    """Whether everything that was checked is right."""
    return all(event.result.ok for event in events if isinstance(event, Ran)) and all(
        event.ok for event in events if isinstance(event, Faulted)
    )


def _instruction_counter(name: str) -> Callable[[], int] | None:
    """A counter of wave-instructions; only an emulated card in this process has one."""
    if not in_process(name):
        return None
    from amdrv import emulator

    card = emulator.card(name)
    return lambda: card.wave_instructions
