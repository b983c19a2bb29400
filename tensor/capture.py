"""``jit``: a function of tensors whose work is recorded once and then repeated without building graphs again.

The first call runs as usual, so that state comes to be; the second is recorded: which plans ran, on which arrays, and
which tensors were assigned to. Later calls run the same plans on the new inputs and on the present state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from amdrv.errors import InvalidArgument
from amdrv.tensor import engine
from amdrv.tensor.core import Core
from amdrv.tensor.ir import Node
from amdrv.tensor.storage import Storage, buffer_node

Signature = tuple[object, ...]


@dataclass(slots=True)
class Recording:
    """What one call did."""

    inputs: tuple[Storage, ...]
    runs: Sequence[engine.Run]
    state: dict[Core, tuple[Storage, Node]] = field(default_factory=dict)  # tensor → (array before, buffer after)
    results: Any = None


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes tensors and returns a tensor, a tuple of them or None, made fast to call again.

    Everything that it computes must be realised in it or returned, and what it keeps must be assigned to tensors that
    were there before (``Tensor.assign``, as optimisers do). Numbers that it takes from Python are recorded as they are,
    random seeds among them. Each shape, type and device of the inputs has a recording of its own.

    Raises InvalidArgument when the function looks at values while it is recorded.
    """
    recordings: dict[Signature, Recording | None] = {}

    def call(*inputs: Core) -> Any:
        for tensor in inputs:
            tensor.realize()
        signature = tuple((tensor.shape, tensor.dtype, tensor.backend) for tensor in inputs)
        found = recordings.get(signature)
        if found is not None:
            return _repeat(found, inputs)
        if signature in recordings:
            recordings[signature] = recording = _record(function, inputs)
            return recording.results
        recordings[signature] = None
        return _finished(function(*inputs))

    return call


def _storage(tensor: Core) -> Storage:
    found = engine.in_memory(tensor.node)
    if found is None:
        raise InvalidArgument(f"{tensor} has no values in memory")
    storage: Storage = found.arg[0]
    return storage


def _finished(results: Any) -> Any:
    """The results with their values computed."""
    parts = results if isinstance(results, tuple) else () if results is None else (results,)
    if not all(isinstance(part, Core) for part in parts):
        raise InvalidArgument("a function for jit returns a tensor, a tuple of tensors or None")
    if parts:
        parts[0].realize(*parts[1:])
    return results


def _record(function: Callable[..., Any], inputs: Sequence[Core]) -> Recording:
    with engine.recorded() as log:
        before: dict[Core, Storage] = {}

        def note(tensor: Core) -> None:
            if engine.in_memory(tensor.node) is not None:  # else it was made by this call
                before.setdefault(tensor, _storage(tensor))

        log.before_assign = note
        results = _finished(function(*inputs))
    for tensor in before:
        tensor.realize()
    recording = Recording(tuple(_storage(tensor) for tensor in inputs), log.runs, results=results)
    for tensor, storage in before.items():
        recording.state[tensor] = (storage, buffer_node(_storage(tensor), tensor.dtype, tensor.shape))
    return recording


def _repeat(recording: Recording, inputs: Sequence[Core]) -> Any:
    now = dict(zip(recording.inputs, (_storage(tensor) for tensor in inputs), strict=True))
    now |= {before: _storage(tensor) for tensor, (before, _) in recording.state.items()}
    for made in recording.runs:
        results = engine.run(made.plan, [now.get(storage, storage) for storage in made.arguments])
        now |= {old: new.arg[0] for old, new in zip(made.results, results, strict=True)}

    def moved(node: Node) -> Node:
        storage, shape = node.arg
        return buffer_node(now.get(storage, storage), node.dtype, shape)

    for tensor, (_, after) in recording.state.items():
        tensor.node = moved(after)

    def again(tensor: Core) -> Core:
        made = tensor._new(moved(buffer_node(_storage(tensor), tensor.dtype, tensor.shape)))
        made._leaves = frozenset()
        return made

    if isinstance(recording.results, tuple):
        return tuple(again(part) for part in recording.results)
    return None if recording.results is None else again(recording.results)
