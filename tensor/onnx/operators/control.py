"""Operators that run graphs, and the sequences and optionals that go with them."""

from __future__ import annotations

import itertools

import numpy as np

from amdrv.errors import AmdrvError, InvalidArgument
from amdrv.tensor.onnx.registry import Call, Host, Operator, Subgraph, Value, describe, host, registrar
from amdrv.tensor.onnx.replay import Replays
from amdrv.tensor.storage import Backend
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)

LIFTED_FROM = 3  # turns after which a loop is long enough to be recorded
TURNS_MAX = 1 << 24  # of a loop: a mistake in a file must not keep the process busy for ever


@operator("If")
def if_(call: Call, condition: Host) -> tuple[Value, ...]:
    branch: Subgraph = call.get("then_branch" if bool(condition.reshape(())) else "else_branch")
    return branch()


def lifted(value: Value, device: Backend) -> Value:
    """A host value in memory: what counts turns is then no part of a recording."""
    plain = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    return Tensor(value, device=device).realize() if plain else value


def _number(n: int, device: Backend) -> Tensor:
    """A turn's number, in memory: as a constant each turn would have kernels of its own."""
    return Tensor(np.array(n, np.int64), device=device)


@operator("Loop", computes=True)
def loop(call: Call, turns: Host | None = None, go_on: Host | None = None, *carried: Value) -> tuple[Value, ...]:
    body: Subgraph = call.get("body")
    state, rows, counters = list(carried), list[list[Value]](), list[int]()
    limit = TURNS_MAX + 1 if turns is None else int(turns.reshape(()))
    one = Replays(lambda values: body(values[0], np.array(True), *values[1:]), possible=True)
    going, turn = go_on is None or bool(go_on.reshape(())), 0
    while going and turn < limit:
        if turn == TURNS_MAX:
            raise InvalidArgument(f"more than {TURNS_MAX} turns")
        if turn == LIFTED_FROM:
            counters = [k for k, value in enumerate(state) if isinstance(value, np.ndarray)]
            state = [lifted(value, call.device) for value in state]
        again, *results = one([_number(turn, call.device), *state])
        going = bool(host(again).reshape(()))
        if counters and not one.possible:
            results = [host(value) if k in counters else value for k, value in enumerate(results)]
            counters = []
        state = results[: len(carried)]
        rows.append(results[len(carried) :])
        turn += 1
    if not turn:
        first, count = [_number(0, call.device), np.array(True), *state], body.output_count - 1 - len(state)
        return (*state, *_none(call, first, count, []))
    return (*state, *(stacked(call, list(column)) for column in zip(*rows, strict=True)))


def _none(call: Call, inputs: list[Value], count: int, axes: list[int]) -> list[Value]:
    """What no turns leave of the last results: nothing along axes (the first if none is said), else a turn's shape.

    That turn is only a formula. Where it is not possible nothing is known of the shape.
    """
    if not count:
        return []
    body: Subgraph = call.get("body")
    try:
        results = body(*inputs)[-count:]
    except AmdrvError:
        results = tuple(np.zeros((), np.float32) for _ in range(count))
    found: list[Value] = []
    for value, axis in zip(results, itertools.chain(axes, itertools.repeat(0)), strict=False):
        if not isinstance(value, (Tensor, np.ndarray)):
            raise InvalidArgument(f"a turn leaves {describe(value)}, which is no row of a tensor")
        at = axis % (value.ndim + 1)
        kind = value.dtype.numpy if isinstance(value, Tensor) else value.dtype
        found.append(np.zeros((*value.shape[:at], 0, *value.shape[at:]), kind))
    return found


def stacked(call: Call, column: list[Value], axis: int = 0) -> Value:
    """Values of all turns along a new axis."""
    if all(isinstance(value, np.ndarray) for value in column):
        return np.stack([host(value) for value in column], axis)
    first, *rest = (call.tensor(value) for value in column)
    return first.stack(*rest, axis=axis)


@operator("Scan", computes=True)
def scan(call: Call, *inputs: Value) -> tuple[Value, ...]:
    """A loop over parts of tensors. Version 8 has a batch axis in front, and lengths as first input."""
    if call.opset < 9:
        return _batched_scan(call, *inputs)
    count: int = call.get("num_scan_inputs")
    state, sequences = list(inputs[: len(inputs) - count]), [call.tensor(x) for x in inputs[len(inputs) - count :]]
    return _scan(call, state, sequences)


def _scan(call: Call, state: list[Value], sequences: list[Tensor]) -> tuple[Value, ...]:
    body: Subgraph = call.get("body")
    count = len(sequences)
    axes = call.get("scan_input_axes", [0] * count)
    backwards = call.get("scan_input_directions", call.get("directions", [0] * count))
    moved = [
        (x.flip(axis) if back else x).permute(axis % x.ndim, *(a for a in range(x.ndim) if a != axis % x.ndim))
        for x, axis, back in zip(sequences, axes, backwards, strict=True)
    ]
    if len({x.shape[0] for x in moved}) > 1:
        raise InvalidArgument(f"scan inputs of lengths {[x.shape[0] for x in moved]}")
    rows: list[list[Value]] = []
    one = Replays(lambda values: body(*values[1:], *(x[call.tensor(values[0])] for x in moved)), possible=True)
    for turn in range(moved[0].shape[0]):
        results = one([_number(turn, call.device), *state])
        state = results[: len(state)]
        rows.append(results[len(state) :])
    axes = call.get("scan_output_axes", [])
    if not rows:
        parts = [Tensor.zeros(*x.shape[1:], dtype=x.dtype, device=x.backend) for x in moved]
        return (*state, *_none(call, [*state, *parts], body.output_count - len(state), axes))
    columns = [list(column) for column in zip(*rows, strict=True)]
    axes, backwards = axes or [0] * len(columns), call.get("scan_output_directions", [0] * len(columns))
    stacks = (
        stacked(call, column[::-1] if back else column, axis)
        for column, axis, back in zip(columns, axes, backwards, strict=True)
    )
    return (*state, *stacks)


def _batched_scan(call: Call, lengths: Value, *inputs: Value) -> tuple[Value, ...]:
    count: int = call.get("num_scan_inputs")
    tensors = [call.tensor(x) for x in inputs]
    found = []
    for batch in range(tensors[0].shape[0]):
        own = [x[batch] for x in tensors]
        stop = None if lengths is None else int(host(lengths)[batch])
        state: list[Value] = [*own[: len(own) - count]]
        found.append(_scan(call, state, [x.slice(slice(0, stop)) for x in own[len(own) - count :]]))
    return tuple(stacked(call, list(column)) for column in zip(*found, strict=True))


@operator("SequenceMap", computes=True)
def sequence_map(call: Call, first: Value, *others: Value) -> tuple[Value, ...]:
    body: Subgraph = call.get("body")
    parts = [other if isinstance(other, list) else [other] * len(_sequence(first)) for other in others]
    rows = [body(*row) for row in zip(_sequence(first), *parts, strict=True)]
    return tuple([row[k] for row in rows] for k in range(call.output_count))


# -- sequences ---------------------------------------------------------------------------------------------------------


def _sequence(value: Value) -> list[Value]:
    if not isinstance(value, list):
        raise InvalidArgument(f"expected a sequence, not {describe(value)}")
    return value


@operator("SequenceEmpty")
def sequence_empty(call: Call) -> Value:
    return []


@operator("SequenceConstruct")
def sequence_construct(call: Call, *parts: Value) -> Value:
    return list(parts)


@operator("SequenceLength")
def sequence_length(call: Call, sequence: Value) -> Value:
    return np.array(len(_sequence(sequence)), np.int64)


def _place(sequence: list[Value], at: Host | None, last: int) -> int:
    place = last if at is None else int(at.reshape(()))
    if not -len(sequence) <= place <= last:
        raise InvalidArgument(f"place {place} in a sequence of {len(sequence)}")
    return place


@operator("SequenceAt")
def sequence_at(call: Call, sequence: Value, at: Host) -> Value:
    parts = _sequence(sequence)
    return parts[_place(parts, at, len(parts) - 1)]


@operator("SequenceInsert")
def sequence_insert(call: Call, sequence: Value, new: Value, at: Host | None = None) -> Value:
    parts = list(_sequence(sequence))
    parts.insert(_place(parts, at, len(parts)), new)
    return parts


@operator("SequenceErase")
def sequence_erase(call: Call, sequence: Value, at: Host | None = None) -> Value:
    parts = list(_sequence(sequence))
    del parts[_place(parts, at, len(parts) - 1)]
    return parts


@operator("ConcatFromSequence")
def concat_from_sequence(call: Call, sequence: Value) -> Value:
    axis, parts = call.get("axis"), [call.tensor(part) for part in _sequence(sequence)]
    first, *rest = parts
    return first.stack(*rest, axis=axis) if call.get("new_axis", 0) else first.cat(*rest, axis=axis)


@operator("SplitToSequence")
def split_to_sequence(call: Call, x: Tensor, sizes: Host | None = None) -> Value:
    axis = call.get("axis", 0)
    if sizes is None:
        parts = x.split(1, axis)
        return [*parts] if call.get("keepdims", 1) else [part.squeeze(axis) for part in parts]
    return [*x.split(int(sizes) if not sizes.ndim else sizes.tolist(), axis)]


# -- optionals ---------------------------------------------------------------------------------------------------------


@operator("Optional")
def optional(call: Call, value: Value = None) -> Value:
    return value


@operator("OptionalHasElement")
def optional_has_element(call: Call, value: Value = None) -> Value:
    return np.array(value is not None)


@operator("OptionalGetElement")
def optional_get_element(call: Call, value: Value) -> Value:
    if value is None:
        raise InvalidArgument("the optional is empty")
    return value
