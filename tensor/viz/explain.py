"""``tensor.explain()``: every stage between a tensor and its machine code, as text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from amdrv.tensor import engine, ir, sharding, simplify
from amdrv.tensor.ir import Node, Op, toposort
from amdrv.tensor.lower import Kernel
from amdrv.tensor.rewrite import Step, again, rewritten
from amdrv.tensor.schedule import size_bytes
from amdrv.tensor.storage import Backend


def explain(node: Node, backend: Backend, code: bool) -> str:
    """Graph, rules that fired, kernels with their code, memory, seconds; of values in memory, how they were made."""
    base = engine.in_memory(node)
    origin = base.arg[0].origin if base is not None else None
    lines = []
    if isinstance(origin, engine.Plan):
        plan = origin
    else:
        graph, arguments = engine.canonical(sharding.single(sharding.divide([node], backend)))
        started = time.perf_counter()
        plan = engine.plan(graph, backend)
        planned = time.perf_counter()
        engine.run(plan, arguments)
        backend.synchronize()
        lines += [f"planned in {(planned - started) * 1e3:.3f} ms (a plan seen before is not made again)"]
        lines += [f"ran in {(time.perf_counter() - planned) * 1e3:.3f} ms"]
    trace: list[Step] = []
    simplified = simplify.simplify(plan.graph, trace)
    return "\n".join(_stages(plan, simplified, trace, code) + lines)


def _stages(plan: engine.Plan, simplified: Node, trace: Sequence[Step], code: bool) -> list[str]:
    names = {node: f"%{number} {node.op}" for number, node in enumerate(toposort(plan.graph.src))}
    lines = [_title("tensor graph"), ir.text(plan.graph.src), _title(f"rules ({len(trace)})")]
    lines += [f"{step.rule}: {step.before} → {step.after}" for step in trace]
    lines += [_title("simplified graph"), ir.text(simplified.src)]
    done = rewritten(plan.graph, again(trace))
    became = {node: done[node] for node in names}
    for number, step in enumerate(plan.steps):
        if step.kernel is None or step.program is None:
            lines += [_title(f"step {number}: copy to {step.backend.name}, {size_bytes(step.places[0].node)} bytes")]
            continue
        lines += [_title(f"step {number}: kernel on {step.backend.name}, computes {origins(step.kernel)}")]
        lines += ["from the tensor graph: " + ", ".join(names[node] for node in sources(step.kernel, became))]
        lines += [f"slot {slot}: {place.kind} {place.number}" for slot, place in enumerate(step.places)]
        lines += [ir.text([step.kernel.body])]
        lines += [_title(f"step {number}: LLVM IR"), step.program.ir] if code else []
    lines += [_title("memory and time")]
    lines += [f"temporary memory on {device.name}: {size} bytes" for device, size in plan.temporary_bytes.items()]
    lines += [f"{stage}: {seconds * 1e3:.3f} ms" for stage, seconds in plan.seconds.items()]
    return lines


def origins(kernel: Kernel) -> str:
    """The operations of the simplified graph that a kernel computes."""
    counts = Counter(node.op for node in computed(kernel))
    return ", ".join(f"{count} {op}" if count > 1 else str(op) for op, count in counts.items())


def computed(kernel: Kernel) -> list[Node]:
    """The nodes of the simplified graph that a kernel computes."""
    others = set(kernel.buffers) - set(kernel.results)
    inside = toposort(kernel.results, lambda node: node in others)
    return [node for node in inside if node.op not in (Op.CONST, Op.BUFFER)]


def sources(kernel: Kernel, became: Mapping[Node, Node]) -> list[Node]:
    """The nodes of the tensor graph that a kernel comes from. ``became``: what simplifying made of every node."""
    inside = set(computed(kernel))
    return [node for node, after in became.items() if after in inside]


def _title(text: str) -> str:
    return f"\n== {text} =="
