"""From plans that ran to plain data for the page. Nothing here knows how it is shown.

Nodes are numbered in one table for each graph; a rewritten graph is told as what each step adds and removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amdrv.tensor import engine, ir, simplify
from amdrv.tensor.decompose import decompose
from amdrv.tensor.ir import Node, toposort
from amdrv.tensor.lower import Kernel
from amdrv.tensor.rewrite import Step, again, rewritten
from amdrv.tensor.schedule import size_bytes
from amdrv.tensor.storage import Backend, Program
from amdrv.tensor.viz.explain import computed, origins, sources
from amdrv.tensor.viz.machine_code import listing
from amdrv.tensor.viz.record import Recorded

Json = Any
VISITS_MAX = 300_000  # of nodes, by all steps of a trace
TEXT_MAX = 200_000  # of one kernel's IR or machine code


def collect(recorded: Recorded) -> Json:
    """Every plan that ran, once, with how often and how long, and every kernel, once."""
    kernels: dict[tuple[Backend, Node], int] = {}
    listed: list[Json] = []
    plans: dict[Node, list[engine.Run]] = {}
    for run in recorded.runs:
        plans.setdefault(run.plan.graph, []).append(run)

    def kernel_number(backend: Backend, kernel: Kernel, program: Program) -> int:
        found = kernels.setdefault((backend, kernel.body), len(kernels))
        if found == len(listed):
            listed.append(_kernel(backend, kernel, program))
        return found

    begin = min((run.spans[0][0] for run in recorded.runs if run.spans), default=0.0)
    shown = [_plan(runs, recorded.lines, kernel_number, begin) for runs in plans.values()]
    return {"plans": shown, "kernels": listed}


class Graph:
    """A graph that is rewritten. Its nodes have numbers, and keep them when only what they are made of changes."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.numbers: dict[Node, int] = {node: number for number, node in enumerate(toposort([root]))}
        self.rows: dict[int, Json] = {number: self._row(node) for node, number in self.numbers.items()}
        self._next = len(self.numbers)

    def _row(self, node: Node) -> Json:
        sources = [self.numbers[source] for source in node.src]
        return [str(node.op), node.dtype.name, _shape(node), shown(node.arg), sources]

    def apply(self, fired: Sequence[Step]) -> Json:
        """Do some steps of a trace. Returns their rules, the nodes that they replaced and that changed or came."""
        became = rewritten(self.root, again(fired))
        replaced = {step.before for step in fired}
        before, self.root = self.numbers, became[self.root]
        kept = {
            after: before[node]
            for node in reversed(before)
            if (after := became[node]).op is node.op and after.arg == node.arg and node not in replaced
        }
        self.numbers = {}
        changed = {}
        for node in toposort([self.root]):
            number = before.get(node, kept.get(node))
            if number is None or number in changed:
                number, self._next = self._next, self._next + 1
            self.numbers[node] = number
            row = self._row(node)
            if self.rows.get(number) != row:
                self.rows[number] = changed[number] = row
        return {
            "rules": [step.rule for step in fired],
            "from": [before[step.before] for step in fired if step.before in before],
            "to": [self.numbers[step.after] for step in fired if step.after in self.numbers],
            "changed": changed,
            "removed": sorted(set(before.values()) - set(self.numbers.values())),
        }


def _shape(node: Node) -> Json:
    """The shape of an array; None for a number in a kernel."""
    try:
        return list(node.shape)
    except (KeyError, IndexError, AttributeError, TypeError):
        return None


def shown(argument: object) -> str:
    """An argument of a node, for people."""
    if isinstance(argument, (tuple, list)):
        return f"({', '.join(map(shown, argument))})"
    if argument is None:
        return ""
    return str(getattr(argument, "value", getattr(argument, "name", argument)))


def history(graph: Graph, trace: Sequence[Step]) -> Json:
    """The nodes of a graph and what each step of a rewrite does to them; long traces are told in larger steps."""
    nodes = dict(graph.rows)
    size = max(1, -(-len(trace) * len(nodes) // VISITS_MAX))
    return {"nodes": nodes, "steps": [graph.apply(trace[at : at + size]) for at in range(0, len(trace), size)]}


def _plan(runs: Sequence[engine.Run], lines: Mapping[Node, str], kernel_number: Any, begin: float) -> Json:
    plan = runs[0].plan
    trace: list[Step] = []
    simplify.simplify(plan.graph, trace)
    done = rewritten(plan.graph, again(trace))
    became = {node: done[node] for node in toposort(plan.graph.src)}
    graph = Graph(plan.graph)
    asked = graph.numbers
    told = history(graph, trace)
    made = {asked[node]: line for node in became if (line := _line(node, runs, lines))}
    steps = []
    for step in plan.steps:
        places = ((spot, spot.node) for spot in step.places)
        shown_step: dict[str, Json] = {
            "device": step.backend.name,
            "buffers": [
                [spot.kind, spot.number, spot.backend.name, node.dtype.name, list(node.shape), size_bytes(node)]
                for spot, node in places
            ],
        }
        if step.kernel is None or step.program is None:
            shown_step |= {"what": "copy", "results": 1, "computed": [], "from": []}
        else:
            shown_step |= {
                "what": origins(step.kernel),
                "kernel": kernel_number(step.backend, step.kernel, step.program),
                "results": len(step.kernel.results),
                "computed": [graph.numbers[node] for node in computed(step.kernel) if node in graph.numbers],
                "from": [asked[node] for node in sources(step.kernel, became)],
            }
        steps.append(shown_step)
    return {
        "name": ", ".join(f"{node.dtype.name}{list(node.shape)}" for _, node in plan.results[:3])
        + (f" and {len(plan.results) - 3} more" if len(plan.results) > 3 else ""),
        "made": list(made.values())[-1] if made else "",
        "graph": told,
        "lines": made,
        "steps": steps,
        "memory": _memory(plan),
        "results": [[device.name, size_bytes(node)] for device, node in plan.results],
        "seconds": dict(plan.seconds),
        "runs": [[[round(a - begin, 7), round(b - a, 7)] for a, b in run.spans] for run in runs if run.spans],
        "count": len(runs),
    }


def _line(node: Node, runs: Sequence[engine.Run], lines: Mapping[Node, str]) -> str:
    asked = runs[0].made_of.get(node)
    return lines.get(asked, "") if asked is not None else ""


def _memory(plan: engine.Plan) -> Json:
    """For each device the size of its block of temporary arrays, and each: offset, bytes, first step, last step."""
    found: dict[str, dict[Node, list[int]]] = {device.name: {} for device in plan.temporary_bytes}
    for number, step in enumerate(plan.steps):
        for spot in step.places:
            if spot.kind == "temporary":
                about = [spot.number, size_bytes(spot.node), number, number]
                found[spot.backend.name].setdefault(spot.node, about)[-1] = number
    sizes = {device.name: size for device, size in plan.temporary_bytes.items()}
    return {name: {"bytes": sizes[name], "arrays": list(arrays.values())} for name, arrays in found.items()}


def _kernel(backend: Backend, kernel: Kernel, program: Program) -> Json:
    trace: list[Step] = []
    decompose(kernel.body, trace)
    arranged: Iterable[Node] = getattr(program, "arranged", ())
    return {
        "device": backend.name,
        "what": origins(kernel),
        "results": [[node.dtype.name, list(node.shape)] for node in kernel.results],
        "graph": history(Graph(kernel.body), trace),
        "arranged": _cut(ir.text(arranged)),
        "ir": _cut(program.ir),
        "code": _cut(listing(backend, program.ir)),
    }


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}\n… {len(text) - TEXT_MAX} characters more"
