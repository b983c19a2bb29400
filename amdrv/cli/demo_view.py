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
# Millions of wave-instructions, and of them a second, stand in the last two.
PROGRAM_COLUMNS = (("program", 10), ("what", 26), ("size", 21), (">wall", 8), (">Minstr", 7), (">M/s", 5))


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
        text = f"{'everything as NumPy says' if passed else 'something was wrong'}, after {seconds:.1f} s"
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
            show(self._out, Padding(_steps(self._out, (boot,)), (0, 0, 0, 2)))
        else:
            self._heading("Closed and opened again")
            self._line(f"plan: {boot.plan.value}, because {boot.reason}")
            show(self._out, Padding(_steps(self._out, (self._first, boot)), (0, 0, 0, 2)))
            self._line(_difference(self._first, boot))

    def _ran(self, result: Result) -> None:
        measured = result.measurement
        rate = instructions = "-"
        if measured.wave_instructions:
            instructions = f"{measured.wave_instructions / 1e6:.2f}"
            rate = f"{measured.wave_instructions / measured.seconds / 1e6:.1f}"
        row = _columns([result.name, result.what, result.size, duration_text(measured.seconds), instructions, rate])
        self._out.print(Text.assemble(f"  {row}  ", (_verdict(result), GOOD if result.ok else BAD)), soft_wrap=True)
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
        took = f"noticed, explained and recovered in {duration_text(event.seconds)}"
        self._line(f"{took}; {kept}", GOOD if event.ok else BAD)

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


def _verdict(result: Result) -> str:
    if result.ok and result.deviation == 0:
        return f"ok, the same bits as NumPy ({result.tolerance_reason})"
    word = "ok" if result.ok else "WRONG"
    return f"{word}, off by {result.deviation:.2g} of {result.tolerance:.2g} allowed ({result.tolerance_reason})"


def _steps(out: Console, boots: Sequence[BootReport]) -> Table:
    """A row for every step of any of the boots, with their costs side by side."""
    headers = (f">{name}" for boot in boots for name in (f"{boot.kind}: wall", "card's", "reads", "writes"))
    made = table(out, ("step", *headers))
    by_name = [{step.name: step for step in boot.steps} for boot in boots]
    for name in dict.fromkeys(name for steps in by_name for name in steps):
        made.add_row(name, *(cell for steps in by_name for cell in _cells(steps.get(name))))
    made.add_row("total", *(cell for boot in boots for cell in _cells(_total(boot))), style="bold")
    return made


def _total(boot: BootReport) -> Step:
    return Step("total", boot.seconds, boot.virtual_s, boot.reads, boot.writes)


def _difference(first: BootReport, again: BootReport) -> str:
    parts = [
        f"{again.reads} register reads after {first.reads}",
        f"{again.writes} writes after {first.writes}",
        f"{duration_text(again.seconds)} after {duration_text(first.seconds)} on the wall",
    ]
    if again.virtual_s is not None and first.virtual_s is not None:
        parts.append(f"{duration_text(again.virtual_s)} after {duration_text(first.virtual_s)} on the card's clock")
    return ", ".join(parts)


def _cells(step: Step | None) -> tuple[str, str, str, str]:
    if step is None:
        return "", "", "", ""
    return duration_text(step.seconds), duration_text(step.virtual_s), str(step.reads), str(step.writes)
