"""Which nodes of the tensor graph get a buffer, and which are computed inside the kernels that use them.

The graph is walked from its results to its sources. Every use of a node is known by then: the kernel that uses it and
the position there. A node gets a buffer when computing it inside its users would repeat costly work; else its uses
pass on to its sources. Nothing depends on these decisions but speed and memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amdrv.tensor import dtypes, shapes
from amdrv.tensor.ir import ELEMENTWISE, MOVEMENT, Axis, Node, Op, toposort
from amdrv.tensor.lower import Kernel, Lowering, loop_position
from amdrv.tensor.shapes import Position
from amdrv.tensor.tables.costs import COST

CHEAP = 4  # below this, computing a value again costs less than storing and loading it
PLACES_MAX = 3  # positions at which one kernel computes a costly value, as softmax does exp: for the sum and the result
TILE_MAX = 64  # results side by side that loops are arranged to compute together
CHAIN_MAX = 160  # cost of one formula; longer ones are cut
DEPTH_MAX = 170  # nodes one behind the other in a kernel, whatever they cost: lowering goes from each to the next
LEAVES = frozenset({Op.CONST, Op.BUFFER, Op.IOTA})


@dataclass(frozen=True, slots=True)
class Use:
    """Where a kernel uses a node: ``scope`` are the ranges around it, the kernel's own first.

    ``gated``: ranges that decide whether there is an element, where it is used behind padding.
    """

    root: Node
    at: Position
    scope: tuple[Node, ...]
    gated: frozenset[Node] = frozenset()

    @property
    def mentioned(self) -> frozenset[Node]:
        """The ranges that the element depends on."""
        return self.gated.union(*(part.ranges for part in self.at))

    def repeats(self, node: Node) -> bool:
        """Whether elements are computed several times: ranges that matter lie inside ones that do not."""
        mentioned = self.mentioned
        outer = list(self.scope)
        while outer and outer[-1] not in mentioned:
            outer.pop()
        trips: int = math.prod(found.arg[1] for found in outer)
        kept = [part for part in outer if part.arg[2] is Axis.LOOP]
        last = kept[-1] if kept else None
        if last is not None and last not in mentioned and mentioned.issuperset(kept[:-1]) and last.arg[1] <= TILE_MAX:
            trips //= max(1, last.arg[1])  # a tile is as wide as this loop: what does not depend on it is computed once
        return trips > math.prod(node.shape)


@dataclass(slots=True)
class Decisions:
    """The nodes that get buffers, and for each the reductions computed inside its kernel."""

    realised: dict[Node, None] = field(default_factory=dict)
    inner: dict[Node, list[frozenset[Node]]] = field(default_factory=dict)
    cut: set[Node] = field(default_factory=set)  # the ends of formulas that would be too long


def costs(order: Sequence[Node]) -> tuple[dict[Node, int], set[Node]]:
    """What computing an element of each node costs, and the nodes where formulas that grow too long are cut."""
    cost: dict[Node, int] = {}
    cut: set[Node] = set()
    for node in order:
        if node.op in ELEMENTWISE:
            cost[node] = COST.get(node.op, 1) + max(cost[source] for source in node.src)
            if cost[node] > CHAIN_MAX:
                end = _narrowest(node, cost)
                cut.add(end)
                cost[node] = 0 if end is node else COST.get(node.op, 1)
        elif node.op in MOVEMENT or node.op is Op.TAKE:
            cost[node] = max(cost[source] for source in node.src)
        else:
            cost[node] = 0
    return cost, cut


def _narrowest(node: Node, cost: Mapping[Node, int]) -> Node:
    """Where to cut a formula that is too long at a node: before elements are repeated, as factors of a product are."""
    made_of = []
    for source in node.src:
        while source.op in MOVEMENT:
            source = source.src[0]
        made_of.append(source)
    longest = max(made_of, key=lambda part: cost[part])
    spread = math.prod(node.shape) > max(math.prod(part.shape) for part in made_of)
    return longest if spread and longest.op in ELEMENTWISE else node


def decide(outputs: Sequence[Node]) -> Decisions:
    """Choose the nodes that get buffers; the outputs are among them."""
    order = list(toposort(outputs))
    cost, cut = costs(order)
    wanted = {node for node in outputs if node.op is not Op.BUFFER} | cut
    wanted |= {source for node in order if node.op is Op.COPY for source in node.src}
    wanted |= {node for node in order if node.op in (Op.COPY, Op.CONTIGUOUS, Op.SCATTER)}
    found = Decisions(cut=cut)
    uses: dict[Node, dict[Use, None]] = {}
    depth: Counter[Node] = Counter()  # how far from the end of their kernel nodes are
    for node in reversed(order):
        if node.op is Op.BUFFER or (node.op in LEAVES and node not in wanted):
            continue
        mine = list(uses.pop(node, ()))
        if depth[node] > DEPTH_MAX and node not in wanted and _narrowest(node, cost) is node:
            cut.add(node)
        if node in wanted or node in cut or _wants_buffer(node, mine, cost[node], found):
            found.realised[node] = None
            found.inner[node], depth[node] = [], 0
            at = loop_position(node.shape)
            mine = [Use(node, at, tuple(part for part in at if part.op is Op.RANGE))]
        elif node.op is Op.REDUCE:
            mine = mine[:1]
            found.inner[mine[0].root].append(mine[0].mentioned)
        for source in node.src:
            depth[source] = max(depth[source], depth[node] + 1)
        for use in mine:
            for source, passed in _passed_on(node, use):
                uses.setdefault(source, {})[passed] = None
    return found


def _wants_buffer(node: Node, uses: list[Use], cost: int, found: Decisions) -> bool:
    if node.op is Op.REDUCE:
        return len({(use.root, use.at, use.gated) for use in uses}) != 1 or not _fits_inside(node, uses[0], found)
    if node.op not in ELEMENTWISE or cost < CHEAP:
        return False
    if len({use.root for use in uses}) > 1 and cost >= 2 * CHEAP:
        return True
    return len({(use.root, use.at) for use in uses}) > PLACES_MAX or any(use.repeats(node) for use in uses)


def _fits_inside(node: Node, use: Use, found: Decisions) -> bool:
    """Whether a reduction can be computed inside the kernel that uses it without computing anything twice.

    Its loops are placed where the kernel's ranges that its position mentions are open. So those must enclose the
    ranges of the kernel's other inner reductions or be enclosed by them.
    """
    mentioned = use.mentioned
    looked_up = any(part.op is Op.CAST for part in toposort(use.at))
    if looked_up or any(part.arg[2] is Axis.REDUCE for part in mentioned):
        return False
    if math.prod(part.arg[1] for part in mentioned) > math.prod(node.shape):
        return False
    return all(mentioned <= other or other <= mentioned for other in found.inner[use.root])


def _passed_on(node: Node, use: Use) -> list[tuple[Node, Use]]:
    """The uses of a node's sources that come from one use of it."""
    if node.op in ELEMENTWISE or node.op is Op.CONTIGUOUS:
        return [(source, use) for source in node.src]
    if node.op in MOVEMENT:
        moved, inside = shapes.move(node, use.at)
        return [(node.src[0], Use(use.root, moved, use.scope, use.gated | inside.ranges))]
    if node.op is Op.REDUCE:
        # The reduction runs where the ranges that it depends on are open, outside the others.
        at, scope = list(use.at), [part for part in use.scope if part in use.mentioned]
        for axis in node.arg[1]:
            n = node.src[0].shape[axis]
            if n > 1:
                at[axis] = Node(Op.RANGE, dtypes.index, (), (node.serial * 16 + axis + 64, n, Axis.REDUCE))
                scope.append(at[axis])
        return [(node.src[0], Use(use.root, tuple(at), tuple(scope), use.gated))]
    if node.op is Op.SCATTER:
        base, values, *indices = node.src
        at = list(loop_position(values.shape, first=len(node.shape)))  # a kernel of its own
        there = Use(use.root, tuple(at), tuple(part for part in at if part.op is Op.RANGE))
        looked = Use(use.root, tuple(at[: len(indices[0].shape)]), there.scope)
        return [(base, use), (values, there), *((index, looked) for index in indices)]
    if node.op is Op.TAKE:
        source, *indices = node.src
        rank = len(indices[0].shape)
        # What is taken is not known here; it depends on where it is looked up.
        chosen = [Node(Op.CAST, dtypes.index, (index, *use.at[:rank])) for index in indices]
        inner = [(index, Use(use.root, use.at[:rank], use.scope, use.gated)) for index in indices]
        return [(source, Use(use.root, (*chosen, *use.at[rank:]), use.scope, use.gated)), *inner]
    return [(source, use) for source in node.src]


Step = Kernel | Node  # a COPY node stands for itself


def arrays_of(step: Step) -> tuple[Node, ...]:
    """The arrays that a step touches, what it computes first."""
    return (step, *step.src) if isinstance(step, Node) else step.buffers


def kernels(outputs: Sequence[Node]) -> list[Step]:
    """The steps that compute the outputs, in an order in which every buffer is written before it is read."""
    decisions = decide(outputs)
    order = [node for node in toposort(outputs) if node in decisions.realised]
    groups = _merge(order, decisions)
    made: dict[Node, tuple[Step, ...]] = {}
    for group in groups:
        if 0 in group[0].shape:
            continue
        steps: tuple[Step, ...] = group if group[0].op is Op.COPY else (Lowering(group, decisions.realised).kernel(),)
        if group[0].op is Op.SCATTER and 0 not in group[0].src[1].shape:
            steps = (*steps, Lowering(group, decisions.realised).updates())
        made.update(dict.fromkeys(group, steps))
    return _ordered(made, order)


def _ordered(made: dict[Node, tuple[Step, ...]], order: list[Node]) -> list[Step]:
    done: dict[int, Step] = {}

    def visit(step: Step) -> None:
        if id(step) in done:
            return
        for source in arrays_of(step)[1 if isinstance(step, Node) else len(step.results) :]:
            for needed in made.get(source, ()):
                visit(needed)
        done[id(step)] = step

    for node in order:
        for step in made.get(node, ()):
            visit(step)
    return list(done.values())


def _merge(order: list[Node], decisions: Decisions) -> list[tuple[Node, ...]]:
    """Groups of nodes that one kernel computes: those that use each other element by element only."""
    needs = {node: _needs(node, decisions) for node in order}
    group_of = {node: [node] for node in order}
    for node in order:
        for source in needs[node]:
            if source not in group_of or group_of[source] is group_of[node] or not needs[node][source]:
                continue
            merged = group_of[source] + group_of[node]
            fits = all(_mergeable(a, b, needs, decisions) for a in group_of[node] for b in group_of[source])
            if fits and not _would_cycle(merged, group_of, needs):
                for member in merged:
                    group_of[member] = merged
    return list(dict.fromkeys(tuple(group) for group in group_of.values()))


def _mergeable(node: Node, source: Node, needs: dict[Node, dict[Node, bool]], decisions: Decisions) -> bool:
    kinds = (node.op, source.op)
    alone = source in decisions.cut or 0 in node.shape
    if alone or not {Op.COPY, Op.CONTIGUOUS, Op.TAKE, Op.SCATTER}.isdisjoint(kinds):
        return False
    nested = all(a <= b or b <= a for a in decisions.inner[node] for b in decisions.inner[source])
    used = needs[node].get(source, True) and needs[source].get(node, True)
    return nested and used and node.shape == source.shape


def _needs(node: Node, decisions: Decisions) -> dict[Node, bool]:
    """The buffers a node is computed from, and for each whether it is used at the node's own position only."""
    found: dict[Node, bool] = {}
    seen: set[tuple[Node, bool]] = set()
    stack = [(source, node.op in ELEMENTWISE) for source in node.src]
    while stack:
        source, same = stack.pop()
        if (source, same) in seen or source.op in LEAVES:
            continue
        seen.add((source, same))
        if source in decisions.realised:
            found[source] = found.get(source, True) and same
        else:
            stack.extend((inner, same and source.op in ELEMENTWISE) for inner in source.src)
    return found


def _would_cycle(merged: list[Node], group_of: dict[Node, list[Node]], needs: dict[Node, dict[Node, bool]]) -> bool:
    """Whether a group would need something that needs it."""
    members = set(merged)
    stack = [source for node in merged for source in needs[node] if source not in members]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in members:
            return True
        if node not in seen:
            seen.add(node)
            stack.extend(source for other in group_of.get(node, [node]) for source in needs.get(other, ()))
    return False


def size_bytes(node: Node) -> int:
    """Bytes of the buffer that holds a node."""
    return math.prod(node.shape) * node.dtype.size_bytes
