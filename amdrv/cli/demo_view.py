"""How the demo looks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from amdrv.boot.report import BootReport, Step
from amdrv.cli.output import bytes_text, duration_text, show, table
from amdrv.demo.programs import Result
from amdrv.demo.tour import Compiled, Event, Faulted, Opened, Painted, Ran

GOOD, BAD = "green", "bold red"
PROGRAM_COLUMNS = (("program", 12), ("what", 28), ("size", 22), (">wall", 9), (">instr.", 9), (">rate", 9), (">deviation", 11))


class View:
    """Prints events as they come."""

    def __init__(self, out: Console, device: str) -> None:
        self._out = out
        self._device = device
        self._first: BootReport | None = None
        self._fault: Faulted | None = None

    def show(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, Opened):
            self._opened(event)
        elif isinstance(event, Compiled):
            self._heading(f"Programs, compiled from LLVM IR in {duration_text(event.seconds)}")
            self._line(_columns([name for name, _ in PROGRAM_COLUMNS]), style="dim")
        elif isinstance(event, Ran):
            self._ran(event.result)
        elif isinstance(event, Painted):
            self._line(f"picture: {event.path}")
        else:
            self._faulted(event)

    def end(self, seconds: float, passed: bool) -> None:
        """Print the verdict."""
        text = f"everything as NumPy says, in {seconds:.1f} s" if passed else f"something was wrong, after {seconds:.1f} s"
        self._out.print()
        self._out.print(Text(text, style=GOOD if passed else BAD))

    def _opened(self, event: Opened) -> None:
        boot, properties = event.boot, event.properties
        if self._first is None:
            self._first = boot
            self._out.print(Text(f"{event.name} ({self._device})", style="bold"))
            self._line(
                f"{event.arch}, {properties.compute_units} compute units, {bytes_text(properties.vram_bytes)} of memory"
            )
            already = "" if boot.kind == "cold" else " (the card was left warm by an earlier program)"
            self._heading(f"{boot.kind.capitalize()} boot{already}")
            self._line(f"plan: {boot.plan.value}, because {boot.reason}")
            show(self._out, Padding(_steps(self._out, [(boot.kind, boot)]), (0, 0, 0, 2)))
        else:
            self._heading("Closed and opened again")
            self._line(f"plan: {boot.plan.value}, because {boot.reason}")
            columns = [(f"first ({self._first.kind})", self._first), (f"again ({boot.kind})", boot)]
            show(self._out, Padding(_steps(self._out, columns), (0, 0, 0, 2)))

    def _ran(self, result: Result) -> None:
        measured = result.measurement
        rate = instructions = "-"
        if measured.wave_instructions:
            instructions = f"{measured.wave_instructions / 1e6:.2f} M"
            rate = f"{measured.wave_instructions / measured.seconds / 1e6:.1f} M/s"
        wall = duration_text(measured.seconds)
        row = _columns([result.name, result.what, result.size, wall, instructions, rate, f"{result.deviation:.2g}"])
        verdict = ("ok" if result.ok else "WRONG") + f", allowed {result.tolerance:.2g} ({result.tolerance_reason})"
        self._out.print(Text.assemble(f"  {row}  ", (verdict, GOOD if result.ok else BAD)), soft_wrap=True)
        if self._fault is not None:
            self._line("the device computes again" if result.ok else "the device does not compute any more")

    def _faulted(self, event: Faulted) -> None:
        self._fault = event
        self._heading("A fault on purpose")
        self._line(f"{event.provoked}:")
        if event.error is None:
            self._line("nothing was noticed", style=BAD)
            return
        for part in str(event.error).split("; "):
            self._line(f"  {part}", style="yellow")
        kept = "earlier buffers keep their contents" if event.survived else "AN EARLIER BUFFER LOST ITS CONTENTS"
        self._line(f"noticed, explained and recovered in {duration_text(event.seconds)}; {kept}", GOOD if event.ok else BAD)

    def _heading(self, text: str) -> None:
        self._out.print()
        self._out.print(Text(text, style="bold"))

    def _line(self, text: str, style: str = "") -> None:
        self._out.print(Text(f"  {text}", style=style), soft_wrap=True)


def _columns(cells: Sequence[str]) -> str:
    parts = [
        f"{cell.removeprefix('>'):>{width}}" if name.startswith(">") else f"{cell:<{width}}"
        for cell, (name, width) in zip(cells, PROGRAM_COLUMNS, strict=True)
    ]
    return " ".join(parts)


def _steps(out: Console, boots: Sequence[tuple[str, BootReport]]) -> Table:
    """A row for every step of any of the boots, with their costs side by side."""
    made = table(out, ("step", *(f">{column}" for title, _ in boots for column in _headers(title, len(boots) > 1))))
    names = dict.fromkeys(step.name for _, boot in boots for step in boot.steps)
    by_name = [{step.name: step for step in boot.steps} for _, boot in boots]
    for name in names:
        made.add_row(name, *(cell for steps in by_name for cell in _cells(steps.get(name))))
    totals = (Step("total", b.seconds, b.virtual_s, b.reads, b.writes) for _, b in boots)
    made.add_row("total", *(cell for total in totals for cell in _cells(total)), style="bold")
    return made


def _headers(title: str, several: bool) -> tuple[str, ...]:
    return (f"{title} wall" if several else "wall", "card's time", "reads", "writes")


def _cells(step: Step | None) -> tuple[str, str, str, str]:
    if step is None:
        return "", "", "", ""
    return duration_text(step.seconds), duration_text(step.virtual_s), str(step.reads), str(step.writes)
