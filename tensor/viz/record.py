"""Watching a program: which plans ran, when each kernel did, and which line made each operation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from amdrv.tensor import engine
from amdrv.tensor.core import Core
from amdrv.tensor.ir import Node

PACKAGE = str(Path(__file__).parent.parent)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a program did with tensors."""

    runs: list[engine.Run]
    lines: MutableMapping[Node, str]  # where the program made a node: "train.py:12 softmax"


@contextmanager
def record() -> Iterator[Recorded]:
    """Watch the tensors that this thread computes. Every kernel is waited for, so that its time is known."""
    lines: MutableMapping[Node, str] = WeakKeyDictionary()
    plain = Core._apart

    def noting(self: Core, node: Node) -> Any:
        if node not in lines:
            lines[node] = _caller()
        return plain(self, node)

    # Every operation of a tensor makes its result with _apart. It is exchanged only while somebody watches.
    setattr(Core, "_apart", noting)  # noqa: B010
    try:
        with engine.recorded(watch=True) as log:
            yield Recorded(log.runs, lines)
    finally:
        setattr(Core, "_apart", plain)  # noqa: B010


def _caller() -> str:
    """The line outside the tensor package that is being executed, and the operation that it calls."""
    frame = sys._getframe(2)
    name = frame.f_code.co_name
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        name = frame.f_code.co_name
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {name}"
