"""``jit``: a function of tensors whose work is recorded once and then repeated without building graphs again.

The first call runs as usual, so that state comes to be; the second is recorded: which plans ran, on which arrays, and
which tensors were assigned to. Later calls run the same programs on the new inputs and on the present state: one tape
for each device, told only the addresses of what changed.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from sys import getrefcount
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument
from amdrv.tensor import engine
from amdrv.tensor.core import Core
from amdrv.tensor.engine import PlannedStep, Run
from amdrv.tensor.ir import Node, Op
from amdrv.tensor.storage import Backend, Memory, Storage, buffer_node, parts_of, renewed

Signature = tuple[object, ...]
_node = attrgetter("node")


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes tensors and returns a tensor, a tuple of them or None, made fast to call again.

    Everything that it computes must be realised in it or returned, and what it keeps must be assigned to tensors that
    were there before (``Tensor.assign``, as optimisers do). Numbers that it takes from Python are recorded as they are,
    random seeds among them. Each shape, type and device of the inputs has a recording of its own.

    Raises InvalidArgument when the function looks at values while it is recorded.
    """
    recordings: dict[Signature, Recording | None] = {}

    def call(*inputs: Core) -> Any:
        if engine.recording():  # an outer recording needs to see what runs
            return _finished(function(*inputs))
        for tensor in inputs:
            if tensor.node.op is not Op.BUFFER:
                tensor.realize()
        signature = tuple([(tensor.shape, tensor.dtype, tensor.backend) for tensor in inputs])
        found = recordings.get(signature)
        if found is not None:
            return found.repeat(inputs)
        if signature in recordings:
            results, recordings[signature] = _record(function, inputs)
            return results
        recordings[signature] = None
        return _finished(function(*inputs))

    return call


def _buffer(tensor: Core) -> Node:
    found = tensor.node if tensor.node.op is Op.BUFFER else engine.in_memory(tensor.node)
    if found is None:
        raise InvalidArgument(f"{tensor} has no values in memory")
    return found


def _finished(results: Any) -> Any:
    """The results with their values computed."""
    parts = results if isinstance(results, tuple) else () if results is None else (results,)
    if not all(isinstance(part, Core) for part in parts):
        raise InvalidArgument("a function for jit returns a tensor, a tuple of tensors or None")
    if parts:
        parts[0].realize(*parts[1:])
    return results


def _record(function: Callable[..., Any], inputs: Sequence[Core]) -> tuple[Any, Recording | None]:
    """What one call gives, and the recording of it; None when it cannot be told apart which array is which."""
    with engine.recorded() as log:
        before: dict[Core, Node] = {}

        def note(tensor: Core) -> None:
            if engine.in_memory(tensor.node) is not None:  # else it was made by this call
                before.setdefault(tensor, _buffer(tensor))

        log.before_assign = note
        results = _finished(function(*inputs))
    for tensor in before:
        tensor.realize()
    given = [_buffer(tensor) for tensor in inputs]
    read = [storage for node in (*given, *before.values()) for storage in parts_of(node.arg[0])]
    return results, Recording(given, before, log.runs, results) if len(set(read)) == len(read) else None


class Recording:
    """What one call did, ready to be done again.

    Every array is a slot of a table of addresses. What a call leaves behind, new state and results, is written to
    *spare* arrays, which then change places with the *current* ones. A spare that somebody else holds is left to them.
    """

    def __init__(self, inputs: Sequence[Node], before: dict[Core, Node], runs: Sequence[Run], results: Any) -> None:
        self._lock = threading.Lock()
        self._tuple = isinstance(results, tuple)
        self._results: tuple[Core, ...] = results if self._tuple else () if results is None else (results,)
        returned, after = list(map(_buffer, self._results)), {tensor: _buffer(tensor) for tensor in before}
        made = {storage for run in runs for storage in run.results}
        taken = [node.arg[0] for node in after.values()]
        own = {t for t, node in after.items() if made.issuperset(_flat([node])) and taken.count(node.arg[0]) == 1}
        self._state = [tensor for tensor in after if tensor in own]
        self._others = [tensor for tensor in after if tensor not in own]  # took over an array that was there already
        written = {after[tensor].arg[0]: after[tensor] for tensor in self._state}
        written |= {n.arg[0]: n for n in returned if made.issuperset(_flat([n])) and n.arg[0] not in written}
        self._current = _Arrays(list(written.values()))
        # What differs from call to call, in this order: arrays that are read, state before the call, what is written.
        changing = [*inputs, *(before[t] for t in (*self._others, *self._state)), *self._current.nodes]
        where = {node.arg[0]: k for k, node in reversed(list(enumerate(changing)))}
        self._left = [_found_in(where, node) for node in (*returned, *(after[t] for t in self._others))]
        slots = _Slots(runs)
        self._changing = np.array([slots.of(part) for part in _flat(changing)], np.intp)
        self._held = slots.held
        self._table = np.array([memory.address + offset if memory else 0 for memory, offset in self._held], np.uint64)
        self._parts = [*self._segments(slots.steps)]
        self._copies = any(step.program is None for step, _ in slots.steps)
        for slot in self._changing:
            self._held[slot] = None, 0  # arrays of the recorded call may go
        self._nodes: list[Node] = []  # what the state's tensors had after the last call
        self._at = _addresses([])
        self._spare = _Arrays(list(map(_renewed, self._current.nodes)))
        self._alone = self._spare.holders()

    def _segments(self, steps: Sequence[tuple[PlannedStep, Sequence[int]]]) -> Iterator[Callable[[], None]]:
        """A tape for each stretch of programs on one device, and the copies between them."""
        for device, group in itertools.groupby(steps, lambda item: item[0].backend if item[0].program else None):
            if device is None:
                yield from (partial(self._copy, step, slots) for step, slots in group)
            else:
                tape = device.tape([(step.program, slots) for step, slots in group if step.program])
                yield partial(tape.run, self._table)

    def _copy(self, step: PlannedStep, slots: Sequence[int]) -> None:
        engine.copy(step, [self._held[slot] for slot in slots])

    def repeat(self, inputs: Sequence[Core]) -> Any:
        """Do it again on other inputs and on the present state."""
        with self._lock:
            nodes = list(map(_node, self._state))
            if nodes != self._nodes:  # somebody else assigned to them
                nodes = [_buffer(tensor.realize()) for tensor in self._state]
                self._at = _addresses(nodes)
            if self._spare.holders() != self._alone:
                self._spare.leave(self._alone)
            read = [*map(_buffer, inputs), *(_buffer(tensor.realize()) for tensor in self._others)]
            self._table[self._changing] = np.concatenate((_addresses(read), self._at, self._spare.addresses))
            changing = [*read, *nodes, *self._spare.nodes]
            if self._copies:
                for slot, storage in zip(self._changing, _flat(changing), strict=True):
                    self._held[slot] = storage.memory, 0
            for part in self._parts:
                part()
            left = [found(changing) for found in self._left]
            self._current, self._spare = self._spare, self._current
            self._nodes = self._current.nodes[: len(self._state)]
            self._at = self._current.addresses[: len(self._at)]
            for tensor, node in zip(self._state, self._nodes, strict=True):
                tensor.node = node
            for tensor, node in zip(self._others, left[len(self._results) :], strict=True):
                tensor.node = node
        results = tuple(tensor._apart(node) for tensor, node in zip(self._results, left, strict=False))
        return results if self._tuple else results[0] if results else None


class _Arrays:
    """Arrays that change places with others."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.storages: list[Storage] = [node.arg[0] for node in nodes]
        self.addresses = _addresses(nodes)

    def holders(self) -> list[int]:
        """How many references there are to each array, those in here among them."""
        return [*map(getrefcount, self.nodes), *map(getrefcount, self.storages)]

    def leave(self, alone: Sequence[int]) -> None:
        """Take new arrays for those that are held by others as well."""
        held = [found > allowed for found, allowed in zip(self.holders(), alone, strict=True)]
        for k, (node, storage) in enumerate(zip(held, held[len(self.nodes) :], strict=False)):
            if node or storage:
                self.nodes[k] = _renewed(self.nodes[k])
                self.storages[k] = self.nodes[k].arg[0]
        self.addresses = _addresses(self.nodes)


class _Slots:
    """Numbers for the arrays of recorded runs, and the runs' steps with these numbers.

    Temporary arrays of all runs share one block on each device: runs come one after the other.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._numbers: dict[tuple[object, int], int] = {}
        self.held: list[tuple[Memory | None, int]] = []  # the memory of each, and where in it
        sizes: dict[Backend, int] = {}
        for run in runs:
            for device, size in run.plan.temporary_bytes.items():
                sizes[device] = max(size, sizes.get(device, 0))
        self._blocks = {device: device.allocate(size) for device, size in sizes.items() if size}
        self.steps = [(step, [*self._numbered(step, run)]) for run in runs for step in run.plan.steps]

    def of(self, storage: Storage) -> int:
        """The slot of an array that runs read or wrote, or a new one."""
        return self._slot((storage, 0), storage.memory)

    def _slot(self, key: tuple[object, int], memory: Memory | None) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.held)
            self.held.append((memory, key[1]))
        return self._numbers[key]

    def _numbered(self, step: PlannedStep, run: Run) -> Iterator[int]:
        for spot in step.places:
            if spot.kind == "temporary":
                yield self._slot((spot.backend, spot.number), self._blocks[spot.backend])
            else:
                yield self.of((run.arguments if spot.kind == "argument" else run.results)[spot.number])


def _found_in(where: Mapping[Storage, int], node: Node) -> Callable[[Sequence[Node]], Node]:
    """What gives the node that stands for a recorded one, out of those that differ from call to call."""
    place, dtype, shape = where.get(node.arg[0]), node.dtype, node.shape
    if place is None:
        return lambda changing: node
    return lambda changing: buffer_node(changing[place].arg[0], dtype, shape)


def _flat(nodes: Iterable[Node]) -> list[Storage]:
    """The arrays of BUFFER nodes, one for each device that has a part."""
    return [part for node in nodes for part in parts_of(node.arg[0])]


def _addresses(nodes: Iterable[Node]) -> NDArray[np.uint64]:
    return np.array([part.address for part in _flat(nodes)], np.uint64)


def _renewed(node: Node) -> Node:
    return buffer_node(renewed(node.arg[0]), node.dtype, node.shape)
