"""From lazy nodes to arrays in memory: plan once, run as often as wanted.

Graphs that differ only in which buffers they read share a plan. A plan is a list of steps and a place in one block of
memory for every temporary array; arrays that are never needed at the same time share bytes.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes, simplify, spec
from amdrv.tensor import search as searching
from amdrv.tensor.ir import Node, Op, toposort
from amdrv.tensor.lower import Kernel
from amdrv.tensor.memory_plan import Interval, place
from amdrv.tensor.schedule import arrays_of, kernels, size_bytes
from amdrv.tensor.sharding import assembled, divide, single
from amdrv.tensor.storage import Backend, Group, Memory, Parts, Program, Storage, buffer_node

PLANS_MAX = 1024
PROGRAMS_MAX = 4096  # of a device


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step finds an array: among arguments or results, or in the block of temporary arrays of its device."""

    node: Node
    backend: Backend
    kind: str  # "argument", "result", "temporary"
    number: int  # which one, or the offset in bytes


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A program on arrays, or a copy between devices: no program; the places are the result and what it is made of."""

    backend: Backend
    program: Program | None
    kernel: Kernel | None
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to compute results from arguments. ``graph`` is what was asked for, with numbered slots for buffers."""

    graph: Node
    steps: tuple[PlannedStep, ...]
    results: tuple[tuple[Backend, Node], ...]
    temporary_bytes: Mapping[Backend, int]
    seconds: Mapping[str, float]  # what each stage took


@dataclass(frozen=True, slots=True)
class Run:
    """A plan that ran, on which arrays."""

    plan: Plan
    arguments: tuple[Storage, ...]
    results: tuple[Storage, ...]
    made_of: Mapping[Node, Node]  # nodes of the plan's graph → the nodes that were asked for
    spans: tuple[tuple[float, float], ...] = ()  # when each step began and ended, in seconds, when that was watched


@dataclass(slots=True)
class Log:
    """What happened while it was recorded. Watching waits for each step to end, so that its time is known."""

    runs: list[Run] = field(default_factory=list)
    before_assign: Callable[[Any], object] = id
    watch: bool = False


_log: ContextVar[Log | None] = ContextVar("log", default=None)


@contextmanager
def recorded(watch: bool = False) -> Iterator[Log]:
    """Record the plans that run in this thread; or watch them, which changes nothing of what a program may do."""
    outer = _log.get()
    token = _log.set(log := Log(watch=watch))
    try:
        yield log
    finally:
        _log.reset(token)
        if outer is not None:
            outer.runs += log.runs


def recording() -> bool:
    """Whether the work of this thread is recorded now, not only watched."""
    return (log := _log.get()) is not None and not log.watch


def observed() -> bool:
    """Whether the work of this thread is recorded or watched now."""
    return _log.get() is not None


def assigning(tensor: object) -> None:
    """A tensor is about to take over other values."""
    if (log := _log.get()) is not None:
        log.before_assign(tensor)


def looking(what: str) -> None:
    """Values are about to be read. Raises InvalidArgument while work is recorded: they would be used for ever."""
    if (log := _log.get()) is not None and not log.watch:
        raise InvalidArgument(f"{what} inside a function that is recorded: return the tensor and look at it outside")


def realise(nodes: Sequence[Node], backend: Backend, search: bool = False) -> list[Node]:
    """BUFFER nodes with the values of nodes of the tensor graph. ``backend`` is for what has no device of its own.

    ``search``: kernels are arranged as is fastest of the ways that were tried, not as a model has it.
    """
    found = {node: in_memory(node) for node in dict.fromkeys(nodes)}
    wanted = [node for node, buffer in found.items() if buffer is None]
    if wanted:
        layouts = divide(wanted, backend)
        if layouts == wanted:
            made = _computed(wanted, backend, search)
        else:
            first = backend.devices[0] if isinstance(backend, Group) else backend
            buffers = iter(realise(single(layouts), first, search))
            made = [assembled(layout, node.shape, buffers) for node, layout in zip(wanted, layouts, strict=True)]
        placed = _placed(wanted)
        found.update(zip(wanted, made, strict=True))
        for node, computed in zip(wanted, made, strict=True):
            if node in placed:
                node.buffer = computed
    return [buffer for node in nodes if (buffer := found[node]) is not None]


def _computed(wanted: Sequence[Node], backend: Backend, search: bool) -> list[Node]:
    made_of: dict[Node, Node] = {}
    graph, arguments = canonical(wanted, made_of)
    found = plan(graph, backend, search)
    log = _log.get()
    spans: list[tuple[float, float]] | None = [] if log is not None and log.watch else None
    made = run(found, arguments, spans)
    if log is not None:
        results = tuple(buffer.arg[0] for buffer in made)
        log.runs.append(Run(found, arguments, results, made_of, tuple(spans or ())))
    return made


def _placed(roots: Sequence[Node]) -> set[Node]:
    """The nodes that are on a device because of what they read. Others are the same node on every device."""
    found: set[Node] = set()
    for node in toposort(roots, lambda node: node.buffer is not None):
        if node.op in (Op.BUFFER, Op.COPY, Op.SHARD) or any(
            part.buffer is not None or part in found for part in node.src
        ):
            found.add(node)
    return found


def in_memory(node: Node) -> Node | None:
    """The buffer with a node's values, if there is one: reshaping is only another way to look at it."""
    base = node
    while base.op in (Op.RESHAPE, Op.DETACH) and base.buffer is None:
        base = base.src[0]
    found = base if base.op is Op.BUFFER else base.buffer
    if found is None or found.arg[1] == node.shape:
        return found
    divided = isinstance(parts := found.arg[0].memory, Parts) and parts.axis is not None
    return None if divided else buffer_node(found.arg[0], found.dtype, node.shape)


def canonical(roots: Sequence[Node], made_of: dict[Node, Node] | None = None) -> tuple[Node, tuple[Storage, ...]]:
    """The graph with numbered slots in place of storages, and the storages. ``made_of``: its nodes → those given."""
    slots: dict[Storage, int] = {}
    made: dict[Node, Node] = {}

    def slot(buffer: Node) -> Node:
        storage, shape = buffer.arg
        number = slots.setdefault(storage, len(slots))
        return Node(Op.BUFFER, buffer.dtype, (), ((number, storage.backend), shape))

    for node in toposort(roots, lambda node: node.buffer is not None):
        for source in node.src:
            if source not in made and source.buffer is not None:
                made[source] = slot(source.buffer)
        made[node] = slot(node) if node.op is Op.BUFFER else node.replace(tuple([made[source] for source in node.src]))
    if made_of is not None:
        made_of.update((new, old) for old, new in made.items())
    return Node(Op.SINK, dtypes.bool_, tuple(made[root] for root in roots)), tuple(slots)


def devices_of(order: Sequence[Node], default: Backend) -> dict[Node, Backend]:
    """The device on which each node is computed. Raises InvalidArgument when sources are on different ones."""
    found: dict[Node, Backend | None] = {}
    for node in order:
        if node.op in (Op.BUFFER, Op.COPY):
            found[node] = node.arg[0][1] if node.op is Op.BUFFER else node.arg[0]
            continue
        there = {device for source in node.src if (device := found[source]) is not None}
        if len(there) > 1 and node.op is not Op.SINK:
            names = " and ".join(sorted(map(repr, there)))
            raise InvalidArgument(f"{node.op} of tensors on different devices: {names}")
        found[node] = next(iter(there)) if len(there) == 1 else None
    return {node: device or default for node, device in found.items()}


def _of_their_own(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Results with memory of their own: what turns out to be an argument, or the same as another result, is copied."""
    found: dict[Node, None] = {}
    for node in nodes:
        while node.op is Op.BUFFER or node in found:
            node = node.unary(Op.CONTIGUOUS)
        found[node] = None
    return tuple(found)


@functools.lru_cache(PLANS_MAX)
def plan(graph: Node, backend: Backend, search: bool = False) -> Plan:
    """Schedule and compile a graph with numbered slots; ``search`` as for ``realise``."""
    clock = [time.perf_counter()]
    asked, graph = graph, simplify.simplify(graph)
    spec.check_graph(graph)
    outputs = _of_their_own(graph.src)
    clock.append(time.perf_counter())
    steps = kernels(outputs)
    order = list(toposort(outputs))
    where = devices_of(order, backend)
    places, sizes = _places(outputs, steps, where)
    clock.append(time.perf_counter())
    programs: dict[tuple[Backend, Node], Program] = {}
    for device in dict.fromkeys(where.values()):
        mine = [step for step in steps if isinstance(step, Kernel) and where[step.results[0]] is device]
        made = searching.fastest(mine, device) if search else compiled(mine, device)
        programs.update(((device, body), program) for body, program in made.items())
    clock.append(time.perf_counter())
    seconds = (after - before for before, after in itertools.pairwise(clock))
    planned = []
    for step in steps:
        kernel, spots = step if isinstance(step, Kernel) else None, tuple(places[node] for node in arrays_of(step))
        device = spots[0].backend
        planned.append(PlannedStep(device, programs[device, kernel.body] if kernel else None, kernel, spots))
    return Plan(
        asked,
        tuple(planned),
        tuple((where[node], node) for node in outputs),
        sizes,
        dict(zip(("simplify", "schedule", "compile"), seconds, strict=True)),
    )


def compiled(wanted: Sequence[Kernel], backend: Backend) -> dict[Node, Program]:
    """The programs of kernels by their bodies: those that the device has seen, and the others compiled together."""
    known = backend.programs
    missing = {kernel.body: kernel for kernel in wanted if kernel.body not in known}
    for body in missing:
        with spec.stage("lower", body.src):
            spec.check_kernel(body.src)
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
    places = {node: Place(node, where[node], "result", number) for number, node in enumerate(outputs)}
    first: dict[Node, int] = {}
    last: dict[Node, int] = {}
    for number, step in enumerate(steps):
        for node in arrays_of(step):
            if node.op is Op.BUFFER:
                places[node] = Place(node, where[node], "argument", node.arg[0][0])
            elif node not in places:
                first.setdefault(node, number)
                last[node] = number
    sizes: dict[Backend, int] = {}
    for device in dict.fromkeys(where[node] for node in first):
        mine = [node for node in first if where[node] is device]
        intervals = [Interval(first[node], last[node], size_bytes(node)) for node in mine]
        offsets, sizes[device] = place(intervals)
        for node, offset in zip(mine, offsets, strict=True):
            places[node] = Place(node, device, "temporary", offset)
    return places, sizes


def run(found: Plan, arguments: Sequence[Storage], spans: list[tuple[float, float]] | None = None) -> list[Node]:
    """Compute a plan's results from arrays in memory. ``spans`` gets when each step began and ended."""
    results: list[Storage] = []
    for device, node in found.results:
        results.append(Storage(device, device.allocate(size) if (size := size_bytes(node)) else None, found))
    blocks: dict[Backend, Memory] = {
        device: device.allocate(size) for device, size in found.temporary_bytes.items() if size
    }
    for step in found.steps:
        places = [
            (blocks[spot.backend], spot.number)
            if spot.kind == "temporary"
            else ((arguments if spot.kind == "argument" else results)[spot.number].memory, 0)
            for spot in step.places
        ]
        started = time.perf_counter()
        if step.program is None:
            copy(step, places)
        else:
            step.program.run([memory.address + offset if memory is not None else 0 for memory, offset in places])
        if spans is not None:
            step.backend.synchronize()
            spans.append((started, time.perf_counter()))
    nodes = [node for _, node in found.results]
    return [buffer_node(storage, node.dtype, node.shape) for storage, node in zip(results, nodes, strict=True)]


def copy(step: PlannedStep, places: Sequence[tuple[Memory | None, int]]) -> None:
    """Copy arrays through this process: one after the other to the first place."""
    (target, at), *sources = places
    for (source, offset), spot in zip(sources, step.places[1:], strict=True):
        if target is not None and source is not None:
            target.write(source.read(size_bytes(spot.node), offset), at)
        at += size_bytes(spot.node)
