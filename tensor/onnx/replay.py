"""Runs of a model, and turns of a loop, that repeat what an earlier one did, where only numbers in tensors differ.

Building a model's graph takes longer than computing it, where tensors are small. So the second run on inputs of some
shapes is recorded, as ``jit`` does, and later ones repeat it. What looks at values while it runs, as loops with
conditions do, or draws random numbers, cannot be recorded and runs as it always did.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from amdrv.errors import AmdrvError
from amdrv.tensor import engine
from amdrv.tensor.capture import jit
from amdrv.tensor.onnx.registry import Value, tensors
from amdrv.tensor.tensor import Tensor

KEPT_MAX = 4  # recordings of a function: each holds memory for what it computes on the way
Function = Callable[[Sequence[Value]], Sequence[Value]]


class Replays:
    """A function of values that computes its results; recorded and repeated where that is possible."""

    def __init__(self, function: Function, possible: bool) -> None:
        self._function, self.possible = function, possible
        self._lock = threading.Lock()
        self._known: OrderedDict[Any, _Recorded] = OrderedDict()

    def __call__(self, values: Sequence[Value]) -> list[Value]:
        """The results, computed."""
        given = [value for value in values if isinstance(value, Tensor)]
        if not self.possible or len(given) < len(values) or not given or engine.observed():
            return _computed(self._function(values))
        signature = tuple((part.shape, part.dtype) for part in given)
        with self._lock:
            found = self._known.setdefault(signature, _Recorded(self._function))
            self._known.move_to_end(signature)
            if len(self._known) > KEPT_MAX:
                self._known.popitem(last=False)
        try:
            return found(given)
        except AmdrvError:
            if not found.runs:
                raise
            self.possible = False  # it looked at a value
            return _computed(self._function(values))


class _Recorded:
    """The function for inputs of some shapes."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._results: list[Value] = []  # of the last run that built the graph: which of them are tensors
        self._again = jit(self._tensors)
        self.runs = 0

    def _tensors(self, *values: Tensor) -> tuple[Tensor, ...]:
        self._results = list(self._function(values))
        return tuple(tensors(self._results))

    def __call__(self, values: Sequence[Tensor]) -> list[Value]:
        found = iter(self._again(*values))
        self.runs += 1
        return [_filled(value, found) for value in self._results]


def _filled(value: Value, computed: Iterator[Tensor]) -> Value:
    """A result with the tensors of another run."""
    if isinstance(value, list):
        return [_filled(part, computed) for part in value]
    return next(computed) if isinstance(value, Tensor) else value


def _computed(results: Sequence[Value]) -> list[Value]:
    lazy = list(tensors(results))
    if lazy:
        lazy[0].realize(*lazy[1:])
    return list(results)
