"""Recurrent networks: one step after the other along a sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from amdrv.errors import InvalidArgument, Unsupported
from amdrv.tensor.capture import jit
from amdrv.tensor.onnx.registry import Call, Host, Operator, Value, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)

Function = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], State]  # (projected input of one step, state); the output is the state's first
Join = Callable[..., Tensor]

# Activation functions by their names in small letters, with alpha and beta and what these are unless given.
ACTIVATIONS: Mapping[str, tuple[Callable[[Tensor, float, float], Tensor], float, float]] = {
    "relu": (lambda x, a, b: x.relu(), 0, 0),
    "tanh": (lambda x, a, b: x.tanh(), 0, 0),
    "sigmoid": (lambda x, a, b: x.sigmoid(), 0, 0),
    "affine": (lambda x, a, b: x * a + b, 1, 0),
    "leakyrelu": (lambda x, a, b: x.leaky_relu(a), 0.01, 0),
    "thresholdedrelu": (lambda x, a, b: (x > a).where(x, 0.0), 1, 0),
    "scaledtanh": (lambda x, a, b: (x * b).tanh() * a, 1, 1),
    "hardsigmoid": (lambda x, a, b: (x * a + b).clip(0.0, 1.0), 0.2, 0.5),
    "elu": (lambda x, a, b: x.elu(a), 1, 0),
    "softsign": (lambda x, a, b: x / (x.abs() + 1.0), 0, 0),
    "softplus": (lambda x, a, b: x.softplus(), 0, 0),
}

LSTM = ("Sigmoid", "Tanh", "Tanh")  # the functions of an LSTM unless others are given
BLOCK = 8  # steps of a recording. Longer sequences repeat it: one graph of all their steps is slow to plan
JOINED = 8  # outputs put together at once: one kernel reads as many buffers


@dataclass(frozen=True, slots=True)
class Cell:
    """One direction of a recurrent layer: how many gates it has and which functions they use."""

    weight: Tensor  # (gates * hidden, inputs)
    recurrent: Tensor  # (gates * hidden, hidden)
    bias: Tensor | None  # (2 * gates * hidden,): of the input, of the state
    functions: Sequence[Function]
    clip: float | None
    seen: Function | None = None  # what a product with the state gets of it, if that is not all

    @property
    def hidden(self) -> int:
        """Elements of the state."""
        return self.recurrent.shape[1]

    def biases(self) -> tuple[Tensor | None, Tensor | None]:
        """What is added to the input's product, and to the state's."""
        if self.bias is None:
            return None, None
        a, b = self.bias.split(self.bias.shape[0] // 2)
        return a, b

    def recalled(self, state: Tensor) -> Tensor:
        """The state's products with all gates."""
        return _plus((state if self.seen is None else self.seen(state)).linear(self.recurrent), self.biases()[1])

    def limited(self, x: Tensor) -> Tensor:
        """What an activation function gets."""
        return x if self.clip is None else x.clip(-self.clip, self.clip)

    def gates(self, x: Tensor) -> list[Tensor]:
        """Parts of the last axis, one for each gate."""
        return x.split(self.hidden, -1)


def functions(call: Call, names: Sequence[str], directions: int) -> list[list[Function]]:
    """The activation functions of each direction. Raises InvalidArgument for a wrong number, Unsupported for a name."""
    given = call.get("activations") or [*names] * directions
    if len(given) != len(names) * directions:
        raise InvalidArgument(f"{len(given)} activations for {directions} directions of {len(names)}")
    values = {part: list(call.get(f"activation_{part}") or ()) for part in ("alpha", "beta")}
    made: list[Function] = []
    for name in given:
        if name.lower() not in ACTIVATIONS:
            raise Unsupported(f"activation {name}; there are {', '.join(ACTIVATIONS)}")
        function, alpha, beta = ACTIVATIONS[name.lower()]
        # The lists hold values only for functions that have one, in order.
        a = float(values["alpha"].pop(0)) if alpha and values["alpha"] else alpha
        has_beta = name.lower() in ("affine", "scaledtanh", "hardsigmoid")
        b = float(values["beta"].pop(0)) if has_beta and values["beta"] else beta
        made.append(lambda x, function=function, a=a, b=b: function(x, a, b))  # type: ignore[misc]
    return [made[k * len(names) : (k + 1) * len(names)] for k in range(directions)]


@dataclass(frozen=True, slots=True)
class Layer:
    """The inputs that all recurrent operators have, in the order (step, batch, …) and (direction, batch, …)."""

    x: Tensor
    cells: Sequence[Cell]
    backward: Sequence[bool]
    lengths: Host | None  # of each sequence, where they differ
    batch_first: bool

    def initial(self, given: Tensor | None, direction: int) -> Tensor:
        """The first state of a direction; zeros unless given."""
        hidden = self.cells[direction].hidden
        if given is None:
            return Tensor.zeros(self.x.shape[1], hidden, dtype=self.x.dtype, device=self.x.backend)
        return (given.transpose(0, 1) if self.batch_first else given)[direction]

    def turned(self, x: Tensor) -> Tensor:
        """Every sequence backwards, within its own length."""
        if self.lengths is None:
            return x.flip(0)
        place = np.arange(x.shape[0])[:, None]
        order = np.where(place < self.lengths, self.lengths - 1 - place, place)
        return x[Tensor(order, device=x.backend), x._position(x.shape[1])]

    def run(
        self, call: Call, sources: Sequence[Value], steps: Sequence[Step], states: Sequence[State]
    ) -> tuple[Tensor, ...]:
        """All outputs, and the last state. ``sources``: what the steps are made of, besides attributes."""
        outputs, last = [], []
        recordings, join = call.once("steps", sources, lambda: ([*map(recorded, steps)], jit(_cat)))
        directions = zip(self.cells, steps, recordings, states, self.backward, strict=True)
        for cell, step, recording, state, back in directions:
            x = self.turned(self.x) if back else self.x
            if x.shape[0] > BLOCK:
                found, final = self._in_blocks(cell, recording, join, state, x)
            else:
                found, final = self._at_once(cell, step, state, x)
            outputs.append(self.turned(found) if back else found)
            last.append(final)
        y = outputs[0].stack(*outputs[1:], axis=1)
        ends = [parts[0].stack(*parts[1:]) for parts in zip(*last, strict=True)]
        if self.batch_first:
            y, ends = y.permute(2, 0, 1, 3), [part.transpose(0, 1) for part in ends]
        return (y, *ends)

    def _at_once(self, cell: Cell, step: Step, state: State, x: Tensor) -> tuple[Tensor, State]:
        """All steps in one graph."""
        projected = x.linear(cell.weight, cell.biases()[0])
        outputs = []
        for t in range(x.shape[0]):
            following = step(projected[t], state)
            output = following[0]
            if self.lengths is not None:
                running = Tensor(self.lengths[:, None] > t, device=x.backend)
                following = tuple(running.where(new, old) for new, old in zip(following, state, strict=True))
                output = running.where(output, 0.0)
            outputs.append(output.unsqueeze(0))
            state = following
        return _cat(*outputs), state

    def _in_blocks(
        self, cell: Cell, recording: Callable[..., State], join: Join, state: State, x: Tensor
    ) -> tuple[Tensor, State]:
        """A recording of some steps, repeated."""
        count, batch, _ = x.shape
        # Sequences of many lengths share recordings, which are made for the shapes that they see.
        whole = 1 << (count - 1).bit_length()
        x = x.pad(((0, whole - count), (0, 0), (0, 0))).contiguous()
        projected = x.linear(cell.weight, cell.biases()[0])
        ends = np.full((batch, 1), count) if self.lengths is None else self.lengths.reshape(batch, 1)
        lengths = Tensor(ends.astype(np.int64), device=x.backend)
        # A position is a value in memory, so that all steps are one graph with other buffers.
        places = [Tensor(np.array([t]), device=x.backend) for t in range(-(-count // BLOCK) * BLOCK)]
        state = tuple(part.contiguous() for part in state)
        projected.realize(lengths, *places, *state)
        outputs = []
        for start in range(0, count, BLOCK):
            output, *state_ = recording(projected, lengths, *places[start : start + BLOCK], *state)
            outputs.append(output)
            state = tuple(state_)
        return joined(outputs, join).slice(slice(0, count)), state


def recorded(step: Step) -> Callable[..., State]:
    """Some steps as one function of projected inputs, lengths, the steps' places and a state: outputs and the state."""

    def block(projected: Tensor, lengths: Tensor, *rest: Tensor) -> State:
        places, state = rest[:BLOCK], rest[BLOCK:]
        outputs = []
        for at in places:
            running = lengths > at
            following = step(projected[at].squeeze(0), state)
            state = tuple(running.where(new, old) for new, old in zip(following, state, strict=True))
            outputs.append(running.where(following[0], 0.0).unsqueeze(0))
            outputs[-1].realize(*state)
        return (_cat(*outputs), *state)

    found: Callable[..., State] = jit(block)
    return found


def _cat(first: Tensor, *rest: Tensor) -> Tensor:
    return first.cat(*rest)


def joined(parts: list[Tensor], join: Join = _cat) -> Tensor:
    """Tensors one after the other along the first axis, a few at a time."""
    while len(parts) > JOINED:
        groups = [parts[k : k + JOINED] for k in range(0, len(parts), JOINED)]
        parts = [join(*group).realize() for group in groups]
    return _cat(*parts)


def layer_of(
    call: Call, names: Sequence[str], x: Tensor, w: Tensor, r: Tensor, bias: Tensor | None, lengths: Host | None
) -> Layer:
    """A recurrent operator's inputs. Raises InvalidArgument when directions and weights do not fit."""
    direction = call.get("direction", "forward")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction)
    if backward is None or not w.shape[0] == r.shape[0] == len(backward):
        raise InvalidArgument(f"direction {direction} with weights {w.shape} and {r.shape}")
    cells = [
        Cell(w[k], r[k], None if bias is None else bias[k], own, call.get("clip"))
        for k, own in enumerate(functions(call, names, len(backward)))
    ]
    first = bool(call.get("layout"))
    x = x.transpose(0, 1) if first else x
    if x.shape[0] > BLOCK:
        w.realize(r)  # once, not in every step
    if lengths is not None and bool((lengths == x.shape[0]).all()):
        lengths = None
    return Layer(x, cells, backward, lengths, first)


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


@operator("RNN", computes=True)
def rnn(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Host | None = None,
    first: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The state is a function of the sum of products with input and state."""
    layer = layer_of(call, ["Tanh"], x, w, r, bias, lengths)

    def step(cell: Cell) -> Step:
        def one(projected: Tensor, state: State) -> State:
            return (cell.functions[0](cell.limited(projected + cell.recalled(state[0]))),)

        return one

    states = [(layer.initial(first, k),) for k in range(len(layer.cells))]
    return layer.run(call, (w, r, bias), [step(cell) for cell in layer.cells], states)


@operator("GRU", computes=True)
def gru(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Host | None = None,
    first: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Gated recurrent units: one gate mixes old and new, one decides what of the old makes the new."""
    layer = layer_of(call, ["Sigmoid", "Tanh"], x, w, r, bias, lengths)
    after = bool(call.get("linear_before_reset"))

    def step(cell: Cell) -> Step:
        f, g = cell.functions
        bias = cell.biases()[1]
        weights = cell.recurrent.split(cell.hidden)
        biases = [None] * 3 if bias is None else bias.split(cell.hidden)

        def one(projected: Tensor, state: State) -> State:
            (old,) = state
            update, reset, new = cell.gates(projected)
            z, n = (
                f(cell.limited(part + _plus(old.linear(weights[k]), biases[k])))
                for k, part in enumerate((update, reset))
            )
            if after:
                own = n * _plus(old.linear(weights[2]), biases[2])
            else:
                own = _plus((n * old).linear(weights[2]), biases[2])
            made = g(cell.limited(new + own))
            return ((1.0 - z) * made + z * old,)

        return one

    states = [(layer.initial(first, k),) for k in range(len(layer.cells))]
    return layer.run(call, (w, r, bias), [step(cell) for cell in layer.cells], states)


@operator("LSTM", computes=True)
def lstm(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Host | None = None,
    first: Tensor | None = None,
    first_cell: Tensor | None = None,
    peephole: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Long short-term memory: gates decide what comes into the cell, what stays, and what is shown of it."""
    layer = layer_of(call, LSTM, x, w, r, bias, lengths)
    return run_lstm(call, layer, (w, r, bias, peephole), first, first_cell, peephole)


def run_lstm(
    call: Call,
    layer: Layer,
    sources: Sequence[Value],
    first: Tensor | None,
    first_cell: Tensor | None,
    peephole: Tensor | None,
) -> tuple[Tensor, ...]:
    """All outputs, the last output and the last cell. ``sources``: what the layer's steps are made of."""
    peeps = [None if peephole is None else peephole[k] for k in range(len(layer.cells))]
    coupled = bool(call.get("input_forget"))
    steps = [lstm_step(cell, peep, coupled) for cell, peep in zip(layer.cells, peeps, strict=True)]
    states = [(layer.initial(first, k), layer.initial(first_cell, k)) for k in range(len(layer.cells))]
    return layer.run(call, sources, steps, states)


def lstm_step(cell: Cell, peephole: Tensor | None, coupled: bool) -> Step:
    """One step of an LSTM, whose gates are input, output, forget and cell, in this order."""
    f, g, h = cell.functions
    peeps = [None] * 3 if peephole is None else peephole.split(cell.hidden)

    def gate(x: Tensor, memory: Tensor, peep: Tensor | None) -> Tensor:
        return f(cell.limited(x if peep is None else x + peep * memory))

    def one(projected: Tensor, state: State) -> State:
        output, memory = state
        i, o, forget, new = cell.gates(projected + cell.recalled(output))
        enter = gate(i, memory, peeps[0])
        stay = 1.0 - enter if coupled else gate(forget, memory, peeps[2])
        memory = stay * memory + enter * g(cell.limited(new))
        return gate(o, memory, peeps[1]) * h(memory), memory

    return one
