"""From lazy nodes to arrays in memory: plan once, run as often as wanted.

Graphs that differ only in which buffers they read share a plan. A plan is a list of steps and a place in one block of
memory for every temporary array; arrays that are never needed at the same time share bytes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes, simplify, spec
from amdrv.tensor.ir import Node, Op, toposort
from amdrv.tensor.lower import Kernel
from amdrv.tensor.memory_plan import Interval, place
from amdrv.tensor.schedule import kernels, size_bytes
from amdrv.tensor.storage import Backend, Memory, Program, Storage, buffer_node

PLANS_MAX = 1024
PROGRAMS_MAX = 4096  # of a device


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step finds a buffer: an argument, a result, or bytes of the temporary block of a device."""

    kind: str  # "argument", "result", "temporary"
    number: int  # which one, or the offset in bytes


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A program on buffers, or a copy between devices (``program`` is None, sources are result and source)."""

    backend: Backend
    program: Program | None
    kernel: Kernel | None
    places: tuple[Place, ...]
    backends: tuple[Backend, ...]
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How to compute results from arguments. ``graph`` is what was asked for, with numbered slots for buffers."""

    graph: Node
    steps: tuple[PlannedStep, ...]
    results: tuple[tuple[Backend, Node], ...]
    result_bytes: tuple[int, ...]
    temporary_bytes: Mapping[Backend, int]
    seconds: Mapping[str, float]  # what each stage took


@dataclass(slots=True)
class Timings:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, started: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Run:
    """A plan that ran, on which arrays."""

    plan: Plan
    arguments: tuple[Storage, ...]
    results: tuple[Storage, ...]


@dataclass(slots=True)
class Log:
    """What happened while it was recorded."""

    runs: list[Run] = field(default_factory=list)
    before_assign: Callable[[Any], object] = id


_log: ContextVar[Log | None] = ContextVar("log", default=None)


@contextmanager
def recorded() -> Iterator[Log]:
    """Record the plans that run in this thread."""
    token = _log.set(log := Log())
    try:
        yield log
    finally:
        _log.reset(token)


def assigning(tensor: object) -> None:
    """A tensor is about to take over other values."""
    if (log := _log.get()) is not None:
        log.before_assign(tensor)


def looking(what: str) -> None:
    """Values are about to be read. Raises InvalidArgument while work is recorded: they would be used for ever."""
    if _log.get() is not None:
        raise InvalidArgument(f"{what} inside a function that is recorded: return the tensor and look at it outside")


def realise(nodes: Sequence[Node], backend: Backend) -> list[Node]:
    """BUFFER nodes with the values of nodes of the tensor graph. ``backend`` is for what has no device of its own."""
    found = {node: in_memory(node) for node in dict.fromkeys(nodes)}
    wanted = [node for node, buffer in found.items() if buffer is None]
    if wanted:
        graph, arguments = canonical(wanted)
        found_plan = plan(graph, backend)
        made = run(found_plan, arguments)
        if (log := _log.get()) is not None:
            log.runs.append(Run(found_plan, arguments, tuple(buffer.arg[0] for buffer in made)))
        placed = _placed(wanted)
        found.update(zip(wanted, made, strict=True))
        for node, computed in zip(wanted, made, strict=True):
            if node in placed:
                node.buffer = computed
    return [buffer for node in nodes if (buffer := found[node]) is not None]


def _placed(roots: Sequence[Node]) -> set[Node]:
    """The nodes that are on a device because of what they read. Others are the same node on every device."""
    found: set[Node] = set()
    for node in toposort(roots, lambda node: node.buffer is not None):
        if node.op in (Op.BUFFER, Op.COPY) or any(part.buffer is not None or part in found for part in node.src):
            found.add(node)
    return found


def in_memory(node: Node) -> Node | None:
    """The buffer with a node's values, if there is one: reshaping is only another way to look at it."""
    base = node
    while base.op in (Op.RESHAPE, Op.DETACH) and base.buffer is None:
        base = base.src[0]
    found = base if base.op is Op.BUFFER else base.buffer
    return found if found is None or found.arg[1] == node.shape else buffer_node(found.arg[0], found.dtype, node.shape)


def canonical(roots: Sequence[Node]) -> tuple[Node, tuple[Storage, ...]]:
    """The graph with numbered slots in place of storages, and the storages."""
    slots: dict[Storage, int] = {}
    made: dict[Node, Node] = {}
    for node in toposort(roots, lambda node: node.buffer is not None):
        if node.op is Op.BUFFER:
            storage, shape = node.arg
            number = slots.setdefault(storage, len(slots))
            made[node] = Node(Op.BUFFER, node.dtype, (), ((number, storage.backend), shape))
            continue
        sources = []
        for source in node.src:
            if source not in made and source.buffer is not None:
                storage, shape = source.buffer.arg
                number = slots.setdefault(storage, len(slots))
                made[source] = Node(Op.BUFFER, source.dtype, (), ((number, storage.backend), shape))
            sources.append(made[source])
        made[node] = Node(node.op, node.dtype, tuple(sources), node.arg)
    return Node(Op.SINK, dtypes.bool_, tuple(made[root] for root in roots)), tuple(slots)


def devices_of(order: Sequence[Node], default: Backend) -> dict[Node, Backend]:
    """The device on which each node is computed. Raises InvalidArgument when sources are on different ones."""
    found: dict[Node, Backend | None] = {}
    for node in order:
        if node.op is Op.BUFFER:
            found[node] = node.arg[0][1]
            continue
        if node.op is Op.COPY:
            found[node] = node.arg
            continue
        there = {device for source in node.src if (device := found[source]) is not None}
        if len(there) > 1 and node.op is not Op.SINK:
            raise InvalidArgument(
                f"{node.op} of tensors on different devices: {', '.join(sorted(d.name for d in there))}"
            )
        found[node] = next(iter(there)) if len(there) == 1 else None
    return {node: device or default for node, device in found.items()}


@functools.lru_cache(PLANS_MAX)
def plan(graph: Node, backend: Backend) -> Plan:
    """Schedule and compile a graph with numbered slots."""
    timings = Timings()
    started = time.perf_counter()
    asked, graph = graph, simplify.simplify(graph)
    outputs = graph.src
    timings.add("simplify", started)
    started = time.perf_counter()
    steps = kernels(outputs)
    timings.add("schedule", started)
    order = list(toposort(outputs))
    where = devices_of(order, backend)
    places, sizes = _places(outputs, steps, where)
    started = time.perf_counter()
    programs: dict[tuple[Backend, Node], Program] = {}
    for device in dict.fromkeys(where.values()):
        mine = [step for step in steps if isinstance(step, Kernel) and where[step.results[0]] is device]
        programs.update(((device, body), program) for body, program in compiled(mine, device).items())
    timings.add("compile", started)
    planned = []
    for step in steps:
        nodes = (step, step.src[0]) if isinstance(step, Node) else step.buffers
        spots, backends = tuple(places[node] for node in nodes), tuple(where[node] for node in nodes)
        if isinstance(step, Node):
            planned.append(PlannedStep(where[step], None, None, spots, backends, size_bytes(step)))
        else:
            device = where[step.results[0]]
            planned.append(PlannedStep(device, programs[device, step.body], step, spots, backends))
    return Plan(
        asked,
        tuple(planned),
        tuple((where[node], node) for node in outputs),
        tuple(map(size_bytes, outputs)),
        sizes,
        timings.seconds,
    )


def compiled(wanted: Sequence[Kernel], backend: Backend) -> dict[Node, Program]:
    """The programs of kernels by their bodies: those that the device has seen, and the others compiled together."""
    known = backend.programs
    missing = {kernel.body: kernel for kernel in wanted if kernel.body not in known}
    for body in missing:
        spec.check_kernel(body)
    if missing:
        known.update(zip(missing, backend.compile(list(missing.values())), strict=True))
    found = {kernel.body: known[kernel.body] for kernel in wanted}
    while len(known) > PROGRAMS_MAX:
        known.pop(next(iter(known)))
    return found


def _places(
    outputs: Sequence[Node], steps: Sequence[Kernel | Node], where: Mapping[Node, Backend]
) -> tuple[dict[Node, Place], dict[Backend, int]]:
    """A place for every buffer, and how many temporary bytes each device needs."""
    places: dict[Node, Place] = {node: Place("result", number) for number, node in reversed(list(enumerate(outputs)))}
    first: dict[Node, int] = {}
    last: dict[Node, int] = {}
    for number, step in enumerate(steps):
        used = (step, *step.src) if isinstance(step, Node) else step.buffers
        for node in used:
            if node.op is Op.BUFFER:
                places[node] = Place("argument", node.arg[0][0])
            elif node not in places or node in first:
                first.setdefault(node, number)
                last[node] = number
                places[node] = Place("temporary", 0)
    sizes: dict[Backend, int] = {}
    for device in dict.fromkeys(where[node] for node in first):
        mine = [node for node in first if where[node] is device]
        intervals = [Interval(first[node], last[node], size_bytes(node)) for node in mine]
        offsets, sizes[device] = place(intervals)
        places.update((node, Place("temporary", offset)) for node, offset in zip(mine, offsets, strict=True))
    return places, sizes


def run(found: Plan, arguments: Sequence[Storage]) -> list[Node]:
    """Compute a plan's results from arrays in memory."""
    results: list[Storage] = []
    for (device, _), size in zip(found.results, found.result_bytes, strict=True):
        results.append(Storage(device, device.allocate(size) if size else None, found))
    blocks: dict[Backend, Memory] = {
        device: device.allocate(size) for device, size in found.temporary_bytes.items() if size
    }
    for step in found.steps:
        if step.program is None:
            _copy(step, arguments, results, blocks)
        else:
            step.program.run([_address(spot, step.backend, arguments, results, blocks) for spot in step.places])
    nodes = [node for _, node in found.results]
    return [buffer_node(storage, node.dtype, node.shape) for storage, node in zip(results, nodes, strict=True)]


def _address(
    spot: Place,
    device: Backend,
    arguments: Sequence[Storage],
    results: Sequence[Storage],
    blocks: Mapping[Backend, Memory],
) -> int:
    if spot.kind == "argument":
        return arguments[spot.number].address
    return results[spot.number].address if spot.kind == "result" else blocks[device].address + spot.number


def _copy(
    step: PlannedStep, arguments: Sequence[Storage], results: Sequence[Storage], blocks: Mapping[Backend, Memory]
) -> None:
    """Copy an array through this process."""
    to, source = step.places

    def memory(spot: Place, device: Backend) -> tuple[Memory, int]:
        if spot.kind == "temporary":
            return blocks[device], spot.number
        found = (arguments if spot.kind == "argument" else results)[spot.number].memory
        if found is None:
            raise InvalidArgument("an array without elements has nothing to copy")
        return found, 0

    (target, target_offset), (origin, origin_offset) = memory(to, step.backends[0]), memory(source, step.backends[1])
    target.write(origin.read(step.copied_bytes, origin_offset), target_offset)
