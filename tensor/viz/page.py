"""The page: its template with the data in it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from amdrv.tensor import engine
from amdrv.tensor.core import Core
from amdrv.tensor.viz.collect import collect
from amdrv.tensor.viz.record import Recorded, record

TEMPLATE = "page.html"
DATA_MARK = "/*DATA*/"
TITLE_MARK = "<!--TITLE-->"


def write(tensor: Core, path: str | Path, title: str = "") -> Path:
    """Compute a tensor and write the page about it; of values in memory, how they were made. Returns the path."""
    with record() as found:
        node = engine.in_memory(tensor.node)
        origin = node.arg[0].origin if node is not None else None
        tensor.realize()
    if isinstance(origin, engine.Plan):
        found.runs.append(engine.Run(origin, (), (), {}))
    return write_page(found, path, title or repr(tensor))


def write_page(found: Recorded, path: str | Path, title: str) -> Path:
    """Write the page about what was recorded: one file that needs nothing else."""
    data = collect(found) | {"title": title}
    # In a script element only "</" would end the data early.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    template = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    safe = title.replace("&", "&amp;").replace("<", "&lt;")
    target = Path(path)
    target.write_text(template.replace(TITLE_MARK, safe).replace(DATA_MARK, text), encoding="utf-8")
    return target
