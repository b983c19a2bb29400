"""The rewrite engine: applies rules bottom-up until none applies.

Each node is looked at once: its sources are rewritten first, then rules are tried on it until none applies, and what
came out is remembered for every other place where the node is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from amdrv.errors import InvalidArgument
from amdrv.tensor.ir import Node
from amdrv.tensor.patterns import Rule, RuleSet, var


@dataclass(frozen=True, slots=True)
class Step:
    """One application of a rule."""

    rule: str
    before: Node
    after: Node


def rewrite(root: Node, rules: RuleSet, trace: list[Step] | None = None) -> Node:
    """The node with the rules applied everywhere. ``trace`` collects what each application did.

    Raises InvalidArgument when rules undo each other.
    """
    return rewritten(root, rules, trace)[root]


def rewritten(root: Node, rules: RuleSet, trace: list[Step] | None = None) -> dict[Node, Node]:
    """What every node that the root needs becomes; see ``rewrite``."""
    done: dict[Node, Node] = {}
    became: dict[Node, Node] = {}  # what a rule made of a node and must be rewritten itself
    stack = [root]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
        elif node in became:
            done[node] = done[became[node]]
        elif missing := [source for source in node.src if source not in done]:
            stack.extend(missing)
        else:
            current = node.replace(tuple([done[source] for source in node.src]))
            after = _apply_first(current, rules, trace)
            if after is None:
                done[node] = done[current] = current
            elif after in became and after not in done:
                raise InvalidArgument(f"rules undo each other: {node} became {after}, which came from it")
            else:
                became[node] = after
                stack.append(after)
    return done


def again(steps: Iterable[Step]) -> RuleSet:
    """A rule that does what a trace says was done: all of it gives the end, the first steps a point on the way."""
    became = {step.before: step.after for step in steps}
    return RuleSet([Rule("again", var("x"), lambda x: became.get(x))])


def _apply_first(node: Node, rules: RuleSet, trace: list[Step] | None) -> Node | None:
    for rule in rules.about(node.op):
        after: Node | None = rule.apply(node)
        if after is not None and after is not node:
            if trace is not None:
                trace.append(Step(rule.name, node, after))
            return after
    return None
