"""How ``amdrv status`` looks."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from amdrv.cli.inventory import Entry, FirmwareState, Inventory
from amdrv.cli.output import bytes_text

STATE_STYLE = {
    "cold": "cyan",
    "warm": "green",
    "unclean": "yellow",
    "foreign": "yellow",
    "unknown": "yellow",
    "unreachable": "red",
}


def render(out: Console, inventory: Inventory) -> RenderableType:
    """A block for every device, and hints below."""
    parts: list[RenderableType] = []
    for entry in inventory.entries:
        mark = "  (default)" if entry.found.name == inventory.default else ""
        parts.append(Text.assemble((entry.found.name, "bold"), "  ", entry.product, (mark, "dim")))
        parts.append(Padding(_facts(entry), (0, 0, 1, 2)))
    parts.extend(Text(f"hint: {hint}", style="yellow" if out.is_terminal else "") for hint in inventory.hints)
    return Group(*parts)


def _facts(entry: Entry) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    for name, value in (*_both(entry), *_real(entry), *_readable(entry)):
        grid.add_row(name, value)
    return grid


def _both(entry: Entry) -> Iterator[tuple[str, RenderableType]]:
    ids = entry.found.ids
    if ids.vendor:
        yield (
            "ids",
            (
                f"{ids.vendor:04x}:{ids.device:04x} rev {ids.revision:02x}, class {ids.class_code:06x}, "
                f"subsystem {ids.subsystem_vendor:04x}:{ids.subsystem_device:04x}"
            ),
        )
    else:  # a socket without a server
        yield "state", "not there"
    if entry.holder is not None and entry.report is None:
        yield "in use by", entry.holder
    if entry.bars:
        yield "BARs", ", ".join(f"BAR{bar} {bytes_text(size)}" for bar, size in sorted(entry.bars.items()))


def _real(entry: Entry) -> Iterator[tuple[str, RenderableType]]:
    card = entry.card
    if card is None:
        return
    yield "kernel driver", card.driver or "none"
    yield "power", card.power
    if card.link is not None:
        best = f" (at best {card.link.max_speed} x{card.link.max_width})"
        now = f"{card.link.speed} x{card.link.width}"
        yield "link", now + (best if best != f" (at best {now})" else "")
    if card.vram_bytes is not None:
        yield "memory", bytes_text(card.vram_bytes)
    if card.sensors:
        yield "sensors", ", ".join(f"{s.name} {s.value:g} {s.unit}" for s in card.sensors)
    if card.displays:
        yield "screens", ", ".join(card.displays)


def _readable(entry: Entry) -> Iterator[tuple[str, RenderableType]]:
    report = entry.report
    if report is None:
        return
    state = Text(report.state, style=STATE_STYLE[report.state])
    yield "state", Text.assemble(state, f": {report.detail}" if report.detail else "")
    if entry.holder is not None:
        yield "in use by", entry.holder
    if report.arch is not None:
        yield "architecture", report.arch
    if report.vram_bytes is not None:
        visible = report.visible_vram_bytes or 0
        shown = "all" if visible >= report.vram_bytes else bytes_text(visible)
        yield "memory", f"{bytes_text(report.vram_bytes)}, {shown} of it visible through BAR0"
    if report.versions is not None:
        yield (
            "blocks",
            ", ".join(f"{block} {'.'.join(map(str, version))}" for block, version in report.versions.items()),
        )
    if entry.firmware is not None:
        yield "firmware", _firmware(entry.firmware)


def _firmware(state: FirmwareState) -> str:
    if state.problem:
        return state.problem
    parts = [f"{state.images} images, {' and '.join(map(_place, state.sources))}"] if state.images else []
    if state.missing:
        parts.append(f"missing: {', '.join(state.missing)}")
    if state.damaged:
        parts.append(f"damaged: {', '.join(state.damaged)}")
    return "; ".join(parts)


def _place(source: str) -> str:
    return f"from {source}" if source.startswith("/") else source
