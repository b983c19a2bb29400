"""Tensors on several devices: a graph of whole arrays becomes one of parts, each on its device.

A sharded array is in parts along one axis, or every device has all of it, or the parts are still to be combined: a
reduction over the divided axis gives a *pending* result, which becomes whole, or parts of a whole, where it is needed.
Operations are done on each device's part; where arrays are divided along different axes, the first axis wins and the
others are gathered. A parameter in memory is gathered anew for every operation that uses it, so that what was gathered
for the forward pass need not be kept for the backward pass.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from amdrv.errors import InvalidArgument
from amdrv.tensor import ir
from amdrv.tensor.ir import ELEMENTWISE, MOVEMENT, Node, Op, Shape, toposort
from amdrv.tensor.schedule import CHEAP, costs
from amdrv.tensor.storage import Backend, Group, Parts, Storage, buffer_node

Nodes = tuple[Node, ...]
COSTLY = {Op.REDUCE, Op.TAKE, Op.SCATTER, Op.CONTIGUOUS}  # of what is nowhere: computed once and copied


@dataclass(frozen=True, slots=True)
class Layout:
    """An array on the devices of a group."""

    group: Group
    parts: Nodes  # of each device
    axis: int | None  # that is divided; None: each has everything
    pending: Op | None = None  # the reduction that still combines the parts


def home(node: Node) -> Backend | None:
    """The device or group that a node is on; None when it reads nothing that is anywhere."""
    order = toposort([node], lambda part: _place(part) is not None)
    return _place(node) or next((place for part in order for source in part.src if (place := _place(source))), None)


def _place(node: Node) -> Backend | None:
    found = node if node.op in (Op.BUFFER, Op.COPY, Op.SHARD) else node.buffer
    place: Backend | None = None if found is None else found.arg[0].backend if found.op is Op.BUFFER else found.arg[0]
    return place


def moved(node: Node, to: Backend | None) -> Node:
    """A node on a device, or copies of it on those of a group."""
    if to is None:
        return node
    op, about = (Op.SHARD, None) if isinstance(to, Group) else (Op.COPY, 0)
    return node.unary(op, (to, about))


def like(node: Node, other: Node) -> Node:
    """A node laid out as an array in memory is; as it is where that is on one device."""
    if other.op is Op.BUFFER and isinstance(memory := other.arg[0].memory, Parts):
        return node.unary(Op.SHARD, (other.arg[0].backend, memory.axis))
    return node


def divide(roots: Sequence[Node], default: Backend) -> list[Layout | Node]:
    """What nodes become on single devices; without groups they stay. ``default`` is for what reads nothing anywhere."""
    order = list(toposort(roots, lambda node: node.buffer is not None))
    groups = (isinstance(_place(part), Group) for node in order for part in (node, *node.src))
    if not isinstance(default, Group) and not any(groups):
        return list(roots)
    divider = Divider()
    for node in order:
        divider.visit(node)
    return [divider.finished(root, default) for root in roots]


def single(layouts: Sequence[Layout | Node]) -> list[Node]:
    """The nodes on single devices."""
    return [part for found in layouts for part in (found.parts if isinstance(found, Layout) else (found,))]


def assembled(found: Layout | Node, shape: Shape, buffers: Iterator[Node]) -> Node:
    """The BUFFER of an array from the next ones of ``buffers``, which are those of the parts."""
    if not isinstance(found, Layout):
        return next(buffers)
    parts = [next(buffers) for _ in found.parts]
    memory = Parts(tuple(part.arg[0] for part in parts), found.axis, math.prod(shape[: found.axis or 0]))
    return buffer_node(Storage(found.group, memory, parts[0].arg[0].origin), parts[0].dtype, shape)


class Divider:
    """The layouts of the nodes of one graph."""

    def __init__(self) -> None:
        self._found: dict[Node, Layout | Node] = {}
        self._uses: Counter[Node] = Counter()  # how often each parameter was gathered

    def of(self, node: Node) -> Layout | Node:
        """The layout of a node that was visited, or is in memory."""
        node = node.buffer or node
        if node.op is Op.BUFFER and isinstance(parts := node.arg[0].memory, Parts):
            shape = _cut_shape(node.shape, parts.axis, len(parts.storages))
            buffers = tuple(buffer_node(storage, node.dtype, shape) for storage in parts.storages)
            return Layout(node.arg[0].backend, buffers, parts.axis)
        return self._found.get(node, node)

    def finished(self, node: Node, default: Backend) -> Layout | Node:
        """The layout of a result: nothing is left to be combined, and what is nowhere is where it is wanted."""
        found = self.of(node)
        if not isinstance(found, Layout):
            if not isinstance(default, Group) or home(found) is not None:
                return found
            found = Layout(default, (found,) * len(default.devices), None)
        elif found.pending is not None:
            found = Layout(found.group, self.whole(node), None)
        pairs = zip(found.parts, found.group.devices, strict=True)
        there = (part if home(part) is not None else moved(part, device) for part, device in pairs)
        return Layout(found.group, tuple(there), found.axis)

    def visit(self, node: Node) -> None:
        """Find the layout of a node whose sources were visited."""
        sources = [self.of(source) for source in node.src]
        layouts = [source for source in sources if isinstance(source, Layout)]
        if node.op is Op.SHARD:
            group, axis = node.arg
            self._found[node] = Layout(group, self.on(node.src[0], group, axis, anywhere=True), axis)
        elif not layouts:
            self._found[node] = node.replace(tuple(source for source in sources if isinstance(source, Node)))
        elif node.op is Op.COPY:
            device, devices = node.arg[0], layouts[0].group.devices
            there = self.whole(node.src[0])[devices.index(device) if device in devices else 0]
            self._found[node] = moved(there, device)
        elif len({layout.group for layout in layouts}) > 1:
            raise InvalidArgument(f"{node.op} of tensors on different groups of devices")
        else:
            self._found[node] = _RULES.get(node.op, _whole)(self, node, layouts[0].group)

    def on(self, node: Node, group: Group, axis: int | None, anywhere: bool = False) -> Nodes:
        """A node's part on each device of a group, divided along an axis, or the whole for None.

        Raises InvalidArgument for what is on a device outside the group, unless it may be ``anywhere``.
        """
        found, count = self.of(node), len(group.devices)
        if isinstance(found, Layout) and found.group != group:
            found = self.whole(node)[0]
        if not isinstance(found, Layout):
            if not anywhere and (place := home(found)) is not None and place not in group.devices:
                raise InvalidArgument(f"tensors on different devices: {place.name} beside {group.name}")
            return tuple(_there(_slice(found, axis, k, count), device) for k, device in enumerate(group.devices))
        if found.axis == axis and found.pending is None:
            return found.parts
        if axis is not None and found.pending is not None:
            return _scattered(found, axis)
        return tuple(_slice(part, axis, k, count) for k, part in enumerate(self.whole(node)))

    def each(self, node: Node, group: Group, axis: int | None) -> Layout:
        """A node on each device's part of its sources."""
        sources = [self.on(source, group, axis) for source in node.src]
        return Layout(group, tuple(map(node.replace, zip(*sources, strict=True))), axis)

    def whole(self, node: Node) -> Nodes:
        """All of a sharded node on each of its devices."""
        found = self.of(node)
        if not isinstance(found, Layout):
            raise InvalidArgument(f"{node} is on no group of devices")
        devices = found.group.devices
        if found.pending is not None:
            axis = next((axis for axis, n in enumerate(node.shape) if n and n % len(devices) == 0), None)
            if axis is None:
                return tuple(_combined(found.parts, found.pending, device) for device in devices)
            return _gathered(_scattered(found, axis), axis, devices, 0)
        if found.axis is None:
            return found.parts
        if node.op in MOVEMENT:  # the smaller array is gathered, and seen as the larger one afterwards
            return tuple(node.replace((part,)) for part in self.whole(node.src[0]))
        self._uses[node] += (node.buffer or node).op is Op.BUFFER
        return _gathered(found.parts, found.axis, devices, self._uses[node])


def _gathered(parts: Nodes, axis: int, devices: Sequence[Backend], number: int) -> Nodes:
    """Parts along an axis, put together on each device."""
    order = (axis, *(a for a in range(len(parts[0].shape)) if a != axis))
    back = tuple(order.index(a) for a in range(len(order)))
    turned = parts if axis == 0 else tuple(part.unary(Op.PERMUTE, order) for part in parts)
    found = (Node(Op.COPY, parts[0].dtype, turned, (device, number)) for device in devices)
    return tuple(found if axis == 0 else (part.unary(Op.PERMUTE, back) for part in found))


def _scattered(found: Layout, axis: int) -> Nodes:
    """Every device combines its slice of what is pending."""
    devices, op = found.group.devices, found.pending or Op.ADD
    slices = (tuple(_slice(part, axis, k, len(devices)) for part in found.parts) for k in range(len(devices)))
    return tuple(_combined(parts, op, device) for parts, device in zip(slices, devices, strict=True))


def _cut_shape(shape: Shape, axis: int | None, count: int) -> Shape:
    return tuple(n // count if a == axis else n for a, n in enumerate(shape))


def _slice(node: Node, axis: int | None, k: int, count: int) -> Node:
    """Part k of a node along an axis."""
    if axis is None or node.op is Op.CONST:
        return node
    parts = enumerate(_cut_shape(node.shape, axis, count))
    return node.unary(Op.SLICE, tuple((k * n if a == axis else 0, 1, n) for a, n in parts))


def _combined(parts: Nodes, op: Op, device: Backend) -> Node:
    """Arrays of one shape, combined on a device."""
    shape = parts[0].shape
    stack = tuple(part.unary(Op.RESHAPE, (1, *shape)) for part in parts)
    total = Node(Op.REDUCE, parts[0].dtype, (Node(Op.COPY, parts[0].dtype, stack, (device, 0)),), (op, (0,)))
    return total.unary(Op.RESHAPE, shape)


def _there(node: Node, device: Backend) -> Node:
    """A node that is on one device, or nowhere, on another."""
    place = home(node)
    if place is device:
        return node
    if place is None:
        order = list(toposort([node]))
        if costs(order)[0][node] < CHEAP and not COSTLY.intersection(part.op for part in order):
            return node  # each device computes it
    return moved(node, device)


Rule = Callable[[Divider, Node, Group], Layout]


def _elementwise(divider: Divider, node: Node, group: Group) -> Layout:
    found = [divider.of(source) for source in node.src]
    layouts = [source for source in found if isinstance(source, Layout)]
    if node.op is Op.ADD and all(isinstance(source, Layout) and source.pending is Op.ADD for source in found):
        sums = (a + b for a, b in zip(*(layout.parts for layout in layouts), strict=True))
        return Layout(group, tuple(sums), None, Op.ADD)
    return divider.each(node, group, min((layout.axis for layout in layouts if layout.axis is not None), default=None))


def _whole(divider: Divider, node: Node, group: Group) -> Layout:
    return divider.each(node, group, None)


def _move(divider: Divider, node: Node, group: Group) -> Layout:
    found = divider.of(node.src[0])
    if not isinstance(found, Layout) or (found.pending not in (None, Op.ADD) and node.op is Op.PAD):
        return _whole(divider, node, group)
    axis, argument = found.axis, node.arg
    if axis is not None:
        there = _new_axis(node, axis, len(found.parts))
        if there is None:
            return _whole(divider, node, group)
        axis, argument = there
    parts = tuple(Node(node.op, node.dtype, (part,), argument) for part in found.parts)
    return Layout(group, parts, axis, found.pending)


def _new_axis(node: Node, axis: int, count: int) -> tuple[int, object] | None:
    """Which axis is divided after a movement, and the argument that it has for a part; None when parts must meet."""
    before, arg = node.src[0].shape, node.arg
    if node.op is Op.PERMUTE:
        return arg.index(axis), arg
    if node.op is Op.WINDOW:
        return None if axis == arg[0] else (axis, arg)
    if node.op is Op.EXPAND:
        return axis, _cut_shape(arg, axis, count)
    if node.op is Op.PAD:
        return (axis, arg) if arg[axis] == (0, 0, 0) else None
    if node.op is Op.SLICE:
        whole = arg[axis] == (0, 1, before[axis])
        return (axis, (*arg[:axis], (0, 1, before[axis] // count), *arg[axis + 1 :])) if whole else None
    outer = math.prod(before[:axis])
    for place, n in enumerate(arg):
        if math.prod(arg[:place]) == outer and n > 1 and n % count == 0:
            return place, _cut_shape(arg, place, count)
    return None


def _reduce(divider: Divider, node: Node, group: Group) -> Layout:
    found = divider.of(node.src[0])
    if not isinstance(found, Layout) or found.pending is not None or found.axis is None:
        return _whole(divider, node, group)
    op, axes = node.arg
    parts = tuple(node.replace((part,)) for part in found.parts)
    return Layout(group, parts, None, op) if found.axis in axes else Layout(group, parts, found.axis)


def _indexed(divider: Divider, node: Node, group: Group) -> Layout:
    """Looking up and scattering, when what is divided is where to."""
    first = 1 if node.op is Op.TAKE else 2
    axes = [found.axis for source in node.src[first:] if isinstance(found := divider.of(source), Layout)]
    axis = next((axis for axis in axes if axis is not None), None)
    if axis is None:
        return _whole(divider, node, group)
    base = divider.on(node.src[0], group, None)
    divided = [divider.on(source, group, axis) for source in node.src[1:]]
    if node.op is Op.TAKE:
        return Layout(group, tuple(map(node.replace, zip(base, *divided, strict=True))), axis)
    nothing = ir.const(node.dtype, ir.identity(node.arg, node.dtype))
    empty = nothing.unary(Op.EXPAND, node.shape)
    bases = (base[0], *(empty for _ in base[1:]))  # the base counts once
    return Layout(group, tuple(map(node.replace, zip(bases, *divided, strict=True))), None, node.arg)


_RULES: Mapping[Op, Rule] = {
    **dict.fromkeys((*ELEMENTWISE, Op.CONTIGUOUS, Op.DETACH), _elementwise),
    **dict.fromkeys(MOVEMENT, _move),
    Op.REDUCE: _reduce,
    Op.TAKE: _indexed,
    Op.SCATTER: _indexed,
}
