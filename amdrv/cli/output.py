"""Printing: tables for people, one document for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

PIPED_WIDTH = 200  # nobody reflows a file: lines may be as long as they need to be
SCHEMA_VERSION = 1  # of every JSON document; changes when a field changes its meaning or goes away

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def version() -> str:
    """This package's version."""
    return metadata.version("amdrv")


def print_json(document: Mapping[str, Json]) -> None:
    """One JSON document on standard output, in which every number is a finite one."""
    print(json.dumps({"schema": SCHEMA_VERSION, **document}, indent=2, allow_nan=False))


def finite(value: float) -> float | str:
    """A number that JSON can express, or its name."""
    return value if math.isfinite(value) else str(value)


def console(*, stderr: bool = False) -> Console:
    """A console that does not colour words on its own initiative."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(file=stream, highlight=False, soft_wrap=False, emoji=False, markup=False, width=width)


def show(out: Console, *parts: RenderableType) -> None:
    """Print, without the blanks that pad a table to its width when nobody looks at a terminal."""
    if out.is_terminal:
        for part in parts:
            out.print(part)
        return
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    out.file.flush()


def table(out: Console, columns: Iterable[str], title: str = "") -> Table:
    """An empty table. A column whose name starts with ">" is right-aligned."""
    from rich import box
    from rich.table import Table

    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if out.is_terminal else None,
        header_style="bold",
        pad_edge=False,
        show_edge=False,
    )
    for name in columns:
        made.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left")
    return made


def bytes_text(size: int) -> str:
    """A size in the largest binary unit that divides it, such as 24560 MiB."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size and not size & ((1 << shift) - 1):
            return f"{size >> shift} {unit}"
    return f"{size} B"


def duration_text(seconds: float | None) -> str:
    """A duration with three digits in a fitting unit; "-" for none."""
    if seconds is None:
        return "-"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (math.inf, 1.0, "s")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 100 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds} s"
