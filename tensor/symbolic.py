"""Integer arithmetic on positions: simplified as it is built, with the range of every value known.

Positions are nodes of type ``index``; ``group * 256 + item`` and the functions here return the simplest form that they
find: sums in one order with their terms collected, quotients and remainders split at the parts that divide evenly. So
the position in a reshaped, permuted and sliced view comes out as it would be written by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from amdrv.tensor import dtypes, ir
from amdrv.tensor.ir import Node, Op, toposort

Terms = tuple[tuple[Node, int], ...]
Bounds = tuple[int, int]
TRUE = ir.const(dtypes.bool_, True)
FALSE = ir.const(dtypes.bool_, False)


def number(value: int) -> Node:
    """A known position."""
    return Node(Op.CONST, dtypes.index, (), value)


ZERO = number(0)


def bounds(node: Node) -> Bounds:
    """The least and greatest value that a position can have."""
    if node._bounds is None:
        rule = _BOUNDS.get(node.op)
        node._bounds = rule(node) if rule else tuple(map(int, dtypes.int64.limits))  # type: ignore[assignment]
    return node._bounds  # type: ignore[return-value]


def _corners(apply: Callable[[int, int], int]) -> Callable[[Node], Bounds]:
    """Bounds of an operation that is monotonic in each source."""

    def rule(node: Node) -> Bounds:
        (a, b), (c, d) = bounds(node.src[0]), bounds(node.src[1])
        values = [apply(x, y) for x in (a, b) for y in (c, d)]
        return min(values), max(values)

    return rule


def _mod_bounds(node: Node) -> Bounds:
    low, high = bounds(node.src[0])
    divisor = node.src[1].arg
    return (low, high) if low >= 0 and high < divisor else (0, divisor - 1)


def _cast_bounds(node: Node) -> Bounds:
    if node.src[0].dtype.is_int:
        low, high = map(int, node.src[0].dtype.limits)
        limit = node.src[0]
        while limit.op in (Op.MAX, Op.MIN) and limit.src[1].op is Op.CONST:  # what was looked up is limited to its axis
            low, high = (max(low, limit.src[1].arg), high) if limit.op is Op.MAX else (low, min(high, limit.src[1].arg))
            limit = limit.src[0]
        return max(low, -(1 << 63)), min(high, (1 << 63) - 1)
    return bounds(node.src[0]) if node.src[0].dtype is dtypes.index else (-(1 << 63), (1 << 63) - 1)


_BOUNDS: Mapping[Op, Callable[[Node], Bounds]] = {
    Op.CONST: lambda node: (node.arg, node.arg),
    Op.RANGE: lambda node: (0, node.arg[1] - 1),
    Op.ADD: _corners(lambda x, y: x + y),
    Op.MUL: _corners(lambda x, y: x * y),
    Op.IDIV: _corners(lambda x, y: x // y),
    Op.MAX: _corners(max),
    Op.MIN: _corners(min),
    Op.MOD: _mod_bounds,
    Op.CAST: _cast_bounds,
}


def affine(node: Node) -> tuple[Terms, int]:
    """A position as a sum: ((term, factor), …) in one order, and the constant."""
    if node._affine is None:
        if node.op is Op.CONST:
            node._affine = ((), node.arg)
        elif node.op is Op.ADD:
            (a, x), (b, y) = affine(node.src[0]), affine(node.src[1])
            node._affine = (a + b, x + y)
        elif node.op is Op.MUL and node.src[1].op is Op.CONST:
            node._affine = (((node.src[0], node.src[1].arg),), 0)
        else:
            node._affine = (((node, 1),), 0)
    return node._affine


def _rank(term: tuple[Node, int]) -> tuple[int, int]:
    node = term[0]
    return (0, node.arg[0]) if node.op is Op.RANGE else (1, node.serial)


def linear(terms: Iterable[tuple[Node, int]], constant: int = 0) -> Node:
    """The sum of terms with factors and a constant."""
    factors: dict[Node, int] = {}
    for node, factor in terms:
        factors[node] = factors.get(node, 0) + factor
    if any(node.op is Op.MOD for node in factors):
        constant += _rejoin(factors)
    result: Node | None = None
    for node, factor in sorted(factors.items(), key=_rank):
        if factor:
            term = node if factor == 1 else Node(Op.MUL, dtypes.index, (node, number(factor)))
            result = term if result is None else Node(Op.ADD, dtypes.index, (result, term))
    if result is None:
        return number(constant)
    return Node(Op.ADD, dtypes.index, (result, number(constant))) if constant else result


def _rejoin(factors: dict[Node, int]) -> int:
    """x % c * k + x // c * (c * k) is x * k. Returns what comes to the constant."""
    more = 0
    for node in [node for node in factors if node.op is Op.MOD]:
        value, divisor = node.src
        factor = factors.get(node, 0)
        terms, constant = affine(divide(value, divisor.arg))
        if not factor or constant or len(terms) != 1:
            continue
        quotient, inner_factor = terms[0]
        if factors.get(quotient) != factor * divisor.arg * inner_factor:
            continue
        del factors[node], factors[quotient]
        inner, constant = affine(value)
        more += constant * factor
        for term, inner_factor in inner:
            factors[term] = factors.get(term, 0) + inner_factor * factor
    return more


def add(a: Node, b: Node) -> Node:
    """a + b."""
    if a is ZERO or b is ZERO:
        return b if a is ZERO else a
    (terms_a, x), (terms_b, y) = affine(a), affine(b)
    return linear(terms_a + terms_b, x + y)


def scale(a: Node, factor: int) -> Node:
    """a * factor."""
    if factor == 1:
        return a
    terms, constant = affine(a)
    return linear(((node, value * factor) for node, value in terms), constant * factor)


def offset(a: Node, by: int) -> Node:
    """a + by."""
    return add(a, number(by)) if by else a


def _split(a: Node, divisor: int) -> tuple[list[tuple[Node, int]], int, Node]:
    """a = divisor * (terms + constant) + rest, where the rest has what does not divide evenly."""
    terms, constant = affine(a)
    whole = [(node, factor // divisor) for node, factor in terms if factor % divisor == 0]
    rest = linear([(node, factor) for node, factor in terms if factor % divisor], constant % divisor)
    low = bounds(rest)[0]
    shift = low // divisor if low < 0 else 0
    return whole, constant // divisor + shift, offset(rest, -shift * divisor)


def _reduced(a: Node, divisor: int) -> tuple[int, Node, int]:
    """(shared, inner, extra): a = shared * inner + extra; ``shared`` divides the divisor and all factors of the sum."""
    terms, constant = affine(a)
    shared = math.gcd(divisor, *(factor for _, factor in terms))
    return shared, linear([(node, factor // shared) for node, factor in terms], constant // shared), constant % shared


def divide(a: Node, divisor: int) -> Node:
    """a // divisor, rounded down; the divisor is positive."""
    if divisor == 1:
        return a
    low, high = bounds(a)
    if low // divisor == high // divisor:
        return number(low // divisor)
    whole, constant, rest = _split(a, divisor)
    low, high = bounds(rest)
    if low // divisor == high // divisor:
        return linear(whole, constant + low // divisor)
    shared, inner, _ = _reduced(rest, divisor)
    if shared > 1:
        return add(linear(whole, constant), divide(inner, divisor // shared))
    if rest.op is Op.IDIV:
        return add(linear(whole, constant), divide(rest.src[0], rest.src[1].arg * divisor))
    return linear([*whole, (Node(Op.IDIV, dtypes.index, (rest, number(divisor))), 1)], constant)


def modulo(a: Node, divisor: int) -> Node:
    """a % divisor, not negative; the divisor is positive."""
    if divisor == 1:
        return ZERO
    _, _, rest = _split(a, divisor)
    low, high = bounds(rest)
    if low // divisor == high // divisor:
        return offset(rest, -(low // divisor) * divisor)
    shared, inner, extra = _reduced(rest, divisor)
    if shared > 1:
        return offset(scale(modulo(inner, divisor // shared), shared), extra)
    if rest.op is Op.MOD and rest.src[1].arg % divisor == 0:
        return modulo(rest.src[0], divisor)
    return Node(Op.MOD, dtypes.index, (rest, number(divisor)))


def less(a: Node, b: int) -> Node:
    """a < b."""
    low, high = bounds(a)
    if high < b:
        return TRUE
    if low >= b:
        return FALSE
    terms, constant = affine(a)
    shared = math.gcd(*(factor for _, factor in terms))
    limit = b - constant
    if shared > 1:  # g * x < b is x < ceil(b / g)
        terms, limit = tuple((node, factor // shared) for node, factor in terms), -(-limit // shared)
    return Node(Op.LT, dtypes.bool_, (linear(terms), number(limit)))


def at_least(a: Node, b: int) -> Node:
    """a >= b."""
    return less(scale(a, -1), 1 - b)


def equal(a: Node, b: int) -> Node:
    """a == b."""
    low, high = bounds(a)
    if low == high == b:
        return TRUE
    return FALSE if b < low or b > high else Node(Op.EQ, dtypes.bool_, (a, number(b)))


def both(a: Node, b: Node) -> Node:
    """Whether two conditions hold."""
    if a is FALSE or b is FALSE:
        return FALSE
    if a is TRUE or a is b:
        return b
    return a if b is TRUE else Node(Op.AND, dtypes.bool_, (a, b))


def clamp(a: Node, low: int, high: int) -> Node:
    """The value between ``low`` and ``high`` that is nearest to a."""
    least, greatest = bounds(a)
    if least < low:
        a = Node(Op.MAX, dtypes.index, (a, number(low)))
    return a if greatest <= high else Node(Op.MIN, dtypes.index, (a, number(high)))


# Of nodes that are positions: what ``+``, ``*``, ``//`` and ``%`` give.
ARITHMETIC: Mapping[Op, Callable[[Node, Node], Node]] = {
    Op.ADD: add,
    Op.MUL: lambda a, b: scale(a, b.arg) if b.op is Op.CONST else Node(Op.MUL, dtypes.index, (a, b)),
    Op.IDIV: lambda a, b: divide(a, b.arg),
    Op.MOD: lambda a, b: modulo(a, b.arg),
}


def rebuild(node: Node, src: tuple[Node, ...]) -> Node:
    """A node with other sources, simplified when it is a position or a condition on one."""
    if src == node.src:
        return node
    if node.dtype is dtypes.index:
        if node.op in ARITHMETIC:
            return ARITHMETIC[node.op](*src)
    elif node.dtype is dtypes.bool_ and node.op in (Op.LT, Op.EQ) and src[1].dtype is dtypes.index:
        return (less if node.op is Op.LT else equal)(src[0], src[1].arg)
    elif node.op is Op.AND and node.dtype is dtypes.bool_:
        return both(*src)
    elif node.op is Op.WHERE and src[0].op is Op.CONST:
        return src[1] if src[0].arg else src[2]
    return Node(node.op, node.dtype, src, node.arg)


def substitute(root: Node, replacements: Mapping[Node, Node]) -> Node:
    """The node with ranges replaced by other positions."""
    return substituted((root,), replacements)[0]


def substituted(roots: Sequence[Node], replacements: Mapping[Node, Node]) -> tuple[Node, ...]:
    """Nodes with ranges replaced by other positions."""
    done, wanted, stack = dict(replacements), replacements.keys(), list(roots)
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
        elif wanted.isdisjoint(node.ranges) and node.op is not Op.REDUCE:
            done[node] = node
        elif missing := [source for source in node.src if source not in done]:
            stack.extend(missing)
        else:
            done[node] = rebuild(node, tuple([done[source] for source in node.src]))
    return tuple([done[root] for root in roots])


def changed(roots: Iterable[Node], change: Callable[[Node], Node]) -> tuple[Node, ...]:
    """Nodes in which every node was changed by a function, after its sources."""
    done: dict[Node, Node] = {}
    for node in toposort(roots := tuple(roots)):
        done[node] = change(rebuild(node, tuple([done[source] for source in node.src])))
    return tuple([done[root] for root in roots])


def factor_of(position: Node, variable: Node) -> int | None:
    """How far one step of a range moves a position; None when it is not the same everywhere."""
    total = 0
    for node, factor in affine(position)[0]:
        if node is variable:
            total += factor
        elif variable in node.ranges:
            return None
    return total
