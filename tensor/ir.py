"""The one node type of the compiler.

A node is an operation, a result type, sources and an argument. Equal nodes are the same object (hash-consing), so that
comparing is ``is``, and common subexpressions are shared without looking for them. Nodes never change.

Two stages use it. In the *tensor graph* every node stands for an array and has a shape. In a *kernel* every node stands
for one number at one position of the loops. Elementwise operations are the same in both.
"""

from __future__ import annotations

import struct
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.dtypes import DType, Scalar
from amdrv.tensor.tables.operations import BINARY, COMPARE, ELEMENTWISE, MOVEMENT, REDUCTIONS, UNARY, Axis, Op

# Whoever uses nodes takes the vocabulary from here.
__all__ = ["BINARY", "COMPARE", "ELEMENTWISE", "MOVEMENT", "REDUCTIONS", "UNARY", "Axis", "Node", "Op", "Shape"]
Shape = tuple[int, ...]


def _operator(op: Op, reverse: bool = False) -> Callable[[Node, Node | Scalar], Node]:
    if reverse:
        return lambda node, other: binary(op, other, node)
    return lambda node, other: binary(op, node, other)


class Node:
    """One operation. Made by ``Node(op, dtype, src, arg)`` and functions below; the same four give the same node."""

    __slots__ = (
        "__weakref__",
        "_affine",
        "_bounds",
        "_ranges",
        "_shape",
        "arg",
        "buffer",
        "dtype",
        "op",
        "serial",
        "src",
    )

    op: Op
    dtype: DType
    src: tuple[Node, ...]
    arg: Any
    serial: int

    def __new__(cls, op: Op, dtype: DType, src: tuple[Node, ...] = (), arg: Any = None) -> Node:
        # 0.0 and -0.0 are equal and so are 0 and False, but they are not the same constant.
        key = (op, dtype, src, struct.pack("d", arg) if type(arg) is float else arg)
        if (found := _interned.get(key)) is not None:
            return found
        made = object.__new__(cls)
        made.op, made.dtype, made.src, made.arg = op, dtype, src, arg
        made._shape = made._bounds = made._affine = made._ranges = made.buffer = None
        with _interning:
            made.serial = next(_serials)
            return _interned.setdefault(key, made)

    buffer: Node | None  # a BUFFER where the value is already; noted by the engine so that it is not computed again
    _shape: Shape | None
    _bounds: tuple[int, int] | None  # symbolic.bounds
    _affine: tuple[tuple[tuple[Node, int], ...], int] | None  # symbolic.affine
    _ranges: frozenset[Node] | None

    @property
    def shape(self) -> Shape:
        """Shape of the array; nodes of the tensor graph only."""
        if self._shape is None:
            from amdrv.tensor import shapes

            for node in toposort([self], lambda node: node._shape is not None):
                node._shape = shapes.infer(node)
        return self._shape  # type: ignore[return-value]

    @property
    def ranges(self) -> frozenset[Node]:
        """The ranges that a kernel node's value depends on."""
        if self._ranges is None:
            if any(source._ranges is None for source in self.src):
                for node in toposort([self], lambda node: node._ranges is not None):
                    node._ranges = node._own_ranges()
            else:
                self._ranges = self._own_ranges()
        return self._ranges  # type: ignore[return-value]

    def _own_ranges(self) -> frozenset[Node]:
        if self.op is Op.RANGE:
            return frozenset({self})
        parts = [found for source in self.src if (found := source._ranges)]
        found = parts[0] if len(parts) == 1 else frozenset[Node]().union(*parts)
        if self.op is Op.PART:
            return frozenset(part for part in found if part.arg[2] is not Axis.LANE)
        return found - frozenset(self.src[1:]) if self.op is Op.REDUCE else found

    def replace(self, src: tuple[Node, ...]) -> Node:
        """The same operation on other sources."""
        return self if src == self.src else Node(self.op, self.dtype, src, self.arg)

    def __repr__(self) -> str:
        shown = "" if self.arg is None else f" {self.arg!r}"
        return f"<{self.op} {self.dtype}{shown} #{self.serial}>"

    # Arithmetic on nodes of one type and shape, so that rules and decompositions read like formulas. That on positions
    # simplifies; see ``symbolic``.
    __add__, __radd__ = _operator(Op.ADD), _operator(Op.ADD, reverse=True)
    __sub__, __rsub__ = _operator(Op.SUB), _operator(Op.SUB, reverse=True)
    __mul__, __rmul__ = _operator(Op.MUL), _operator(Op.MUL, reverse=True)
    __floordiv__, __mod__ = _operator(Op.IDIV), _operator(Op.MOD)
    __truediv__, __rtruediv__ = _operator(Op.DIV), _operator(Op.DIV, reverse=True)
    __and__, __or__, __xor__ = _operator(Op.AND), _operator(Op.OR), _operator(Op.XOR)
    __lshift__, __rshift__ = _operator(Op.SHL), _operator(Op.SHR)
    __lt__, __gt__ = _operator(Op.LT), _operator(Op.LT, reverse=True)

    def __neg__(self) -> Node:
        return self.unary(Op.NEG)

    def eq(self, other: Node | Scalar) -> Node:
        """Where both are equal (``==`` compares identity)."""
        return binary(Op.EQ, self, other)

    def unary(self, op: Op, arg: object = None) -> Node:
        """An operation on this alone, of the same type."""
        return Node(op, self.dtype, (self,), arg)

    def cast(self, dtype: DType) -> Node:
        return self if dtype is self.dtype else Node(Op.CAST, dtype, (self,))

    def bitcast(self, dtype: DType) -> Node:
        return self if dtype is self.dtype else Node(Op.BITCAST, dtype, (self,))


# The only global table: what makes equal nodes the same object. It keeps nothing alive.
_interned: weakref.WeakValueDictionary[tuple[object, ...], Node] = weakref.WeakValueDictionary()
_interning = threading.Lock()
_serials = count()


def const(dtype: DType, value: Scalar) -> Node:
    """A constant. In the tensor graph it has shape () and goes with sources of any shape."""
    return Node(Op.CONST, dtype, (), dtype.convert(value))


def binary(op: Op, a: Node | Scalar, b: Node | Scalar) -> Node:
    """An elementwise operation on two values of one type; a Python scalar takes the other's type."""
    if not isinstance(a, Node):
        if not isinstance(b, Node):
            raise InvalidArgument(f"{op} of two Python scalars is no node")
        a = const(b.dtype, a)
    elif not isinstance(b, Node):
        b = const(a.dtype, b)
    if a.dtype is dtypes.index:
        from amdrv.tensor.symbolic import ARITHMETIC

        if op in ARITHMETIC:
            return ARITHMETIC[op](a, b)
    return Node(op, dtypes.bool_ if op in COMPARE else a.dtype, (a, b))


def where(condition: Node, a: Node, b: Node) -> Node:
    """``a`` where the condition holds, else ``b``."""
    return Node(Op.WHERE, a.dtype, (condition, a, b))


def identity(op: Op, dtype: DType) -> Scalar:
    """What changes nothing when combined by a reduction."""
    least, greatest = dtype.limits
    return dtype.convert({Op.ADD: 0, Op.MUL: 1, Op.MAX: least, Op.MIN: greatest}[op])


def reduced(op: Op, value: Node, *places: Node) -> Node:
    """A kernel's value combined over those of ``places`` that are ranges; others are known positions: nothing to do."""
    ranges = ranges_in(places)
    return Node(Op.REDUCE, value.dtype, (value, *ranges), op) if ranges else value


def ranges_in(places: Iterable[Node]) -> tuple[Node, ...]:
    """Those that are ranges; others are known positions."""
    return tuple(place for place in places if place.op is Op.RANGE)


def toposort(roots: Iterable[Node], stop: Callable[[Node], object] | None = None) -> Iterator[Node]:
    """Every node that the roots need, each once, after its sources. Nodes for which ``stop`` holds are left out."""
    done: set[Node] = set()
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done.add(node)
            yield node
        elif stop is None or not stop(node):
            stack.append((node, True))
            stack.extend((source, False) for source in reversed(node.src) if source not in done)


def text(roots: Iterable[Node]) -> str:
    """The nodes that the roots need, one a line, for people."""
    names: dict[Node, str] = {}
    lines = []
    for node in toposort(roots):
        names[node] = f"%{len(names)}"
        sources = ", ".join(names[source] for source in node.src)
        arg = node.arg if isinstance(node.arg, tuple) else (node.arg,)
        shown = "" if node.arg is None else f" [{', '.join(map(str, arg))}]"
        lines.append(f"{names[node]:>5} = {node.op}({sources}){shown}: {node.dtype}")
    return "\n".join(lines)
