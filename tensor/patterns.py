"""Patterns that read like algebra, and the rules made of them.

    x, c, d = var("x"), const("c"), const("d")
    Rule("add zero", x + 0, x)
    Rule("fold", c + d, lambda c, d: fold(Op.ADD, c, d))

A pattern is compared with a node; the variables in it are bound to the nodes at their places, ``found`` to the node.
The right side is a pattern, which is filled with what was bound, or a function of some of these nodes that may answer
None: no change.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from amdrv.tensor import dtypes, ir
from amdrv.tensor.dtypes import DType, Scalar
from amdrv.tensor.ir import Node, Op

COMMUTATIVE = frozenset({Op.ADD, Op.MUL, Op.MAX, Op.MIN, Op.AND, Op.OR, Op.XOR, Op.EQ})
Bound = dict[str, Node]
NOTHING: Mapping[str, Node] = {}


def _operator(op: Op) -> Callable[[Pattern, Pattern | Scalar], Pattern]:
    return lambda pattern, other: node(op, pattern, other)


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """What a node must look like. Made with ``var``, ``const``, ``node`` and arithmetic on patterns."""

    op: Op | None = None  # any when None
    src: tuple[Pattern, ...] | None = None  # any sources when None
    name: str = ""
    value: Scalar | None = None  # of a constant
    when: Callable[[Node], bool] | None = field(default=None, repr=False)

    def named(self, name: str) -> Pattern:
        """The same pattern, whose node is bound to a name."""
        return replace(self, name=name)

    __add__, __sub__, __mul__, __truediv__ = map(_operator, (Op.ADD, Op.SUB, Op.MUL, Op.DIV))
    __floordiv__, __mod__, __pow__ = map(_operator, (Op.IDIV, Op.MOD, Op.POW))
    __and__, __or__ = map(_operator, (Op.AND, Op.OR))

    def __neg__(self) -> Pattern:
        return node(Op.NEG, self)

    def variants(self) -> Iterator[Pattern]:
        """The pattern in every order that its commutative operations allow."""
        if self.src is None:
            yield self
            return
        for src in itertools.product(*(list(source.variants()) for source in self.src)):
            yield replace(self, src=src)
            if self.op in COMMUTATIVE and src[0] is not src[1]:
                yield replace(self, src=src[::-1])

    def match(self, found: Node, bound: Bound) -> bool:
        """Whether a node looks like this; fills ``bound``."""
        if self.op is not None and found.op is not self.op:
            return False
        if self.value is not None and (found.arg != self.value or found.arg is True):
            return False
        if self.when is not None and not self.when(found):
            return False
        if self.name and bound.setdefault(self.name, found) is not found:
            return False
        if self.src is None:
            return True
        if len(self.src) != len(found.src):
            return False
        return all(pattern.match(source, bound) for pattern, source in zip(self.src, found.src, strict=True))

    def fill(self, bound: Bound, dtype: DType) -> Node:
        """The node that this pattern describes; what is not bound gets ``dtype``."""
        if self.name:
            return bound[self.name]
        if self.value is not None:
            return ir.const(dtype, self.value)
        src = tuple(source.fill(bound, dtype) for source in self.src or ())
        return Node(self.op or Op.CONST, dtypes.bool_ if self.op in ir.COMPARE else src[-1].dtype, src)


def var(name: str, when: Callable[[Node], bool] | None = None) -> Pattern:
    """Any node; the same name twice is the same node twice."""
    return Pattern(name=name, when=when)


def const(name: str) -> Pattern:
    """Any constant."""
    return Pattern(Op.CONST, name=name)


def node(op: Op, *src: Pattern | Scalar) -> Pattern:
    """An operation on patterns; numbers stand for constants with their value. Without sources: on anything."""
    given = tuple(s if isinstance(s, Pattern) else Pattern(Op.CONST, value=s) for s in src)
    return Pattern(op, given or None)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is replaced by what, under a name that traces show."""

    name: str
    left: Pattern
    right: Pattern | Callable[..., Any]
    variants: tuple[Pattern, ...] = ()
    wanted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", tuple(self.left.variants()))
        if not isinstance(self.right, Pattern):
            object.__setattr__(self, "wanted", tuple(inspect.signature(self.right).parameters))

    def apply(self, found: Node, context: Mapping[str, Node] = NOTHING) -> Any:
        """What the node becomes; None when the rule does not apply. ``context`` adds to what was bound."""
        for pattern in self.variants:
            bound: Bound = {}
            if pattern.match(found, bound):
                if isinstance(self.right, Pattern):
                    return self.right.fill(bound, found.dtype)
                values = {"found": found, **context, **bound}
                return self.right(*[values[name] for name in self.wanted])
        return None


class RuleSet:
    """Rules in order of preference, found by the operation they are about."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_op: dict[Op, tuple[Rule, ...]] = {
            op: tuple(rule for rule in self.rules if rule.left.op in (op, None)) for op in Op
        }

    def about(self, op: Op) -> tuple[Rule, ...]:
        """The rules that may apply to an operation."""
        return self._by_op[op]
