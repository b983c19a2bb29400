"""Operators that change shapes, cut, join and repeat."""

from __future__ import annotations

import math

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.elementwise import broadcast_shape
from amdrv.tensor.onnx.constants import cuts
from amdrv.tensor.onnx.registry import Call, Host, Operator, Value, describe, element_type, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


@operator("Identity")
def identity(call: Call, x: Value) -> Value:
    return x


@operator("Shape")
def shape(call: Call, x: Value) -> Value:
    return np.array(_shape(x)[call.get("start", 0) : call.get("end")], np.int64)


@operator("Size")
def size(call: Call, x: Value) -> Value:
    return np.array(math.prod(_shape(x)), np.int64)


def _shape(x: Value) -> tuple[int, ...]:
    if x is None or isinstance(x, (list, dict)):
        raise InvalidArgument(f"expected a tensor, not {describe(x)}")
    return tuple(x.shape)


@operator("Reshape")
def reshape(call: Call, x: Tensor, wanted: Host | None = None) -> Tensor:
    dims = call.axes(wanted, "shape") or ()
    if not call.get("allowzero", 0):
        dims = tuple(x.shape[at] if n == 0 else n for at, n in enumerate(dims))
    return x.reshape(dims)


@operator("Transpose")
def transpose(call: Call, x: Tensor) -> Tensor:
    return x.permute(call.get("perm", list(range(x.ndim))[::-1]))


@operator("Squeeze")
def squeeze(call: Call, x: Tensor, axes: Host | None = None) -> Tensor:
    return x.squeeze(call.axes(axes))


@operator("Unsqueeze")
def unsqueeze(call: Call, x: Tensor, axes: Host | None = None) -> Tensor:
    wanted = call.axes(axes) or ()
    count = x.ndim + len(wanted)
    new = {axis % count for axis in wanted if -count <= axis < count}
    if len(new) != len(wanted):
        raise InvalidArgument(f"axes {wanted}")
    own = iter(x.shape)
    return x.reshape([1 if axis in new else next(own) for axis in range(count)])


@operator("Flatten")
def flatten(call: Call, x: Tensor) -> Tensor:
    axis = call.integer("axis", 1)
    at = axis + x.ndim if axis < 0 else axis
    return x.reshape((math.prod(x.shape[:at]), math.prod(x.shape[at:])))


@operator("Expand")
def expand(call: Call, x: Tensor, wanted: Host) -> Tensor:
    return x.expand(broadcast_shape("expand", x.shape, tuple(wanted.tolist())))


@operator("Tile")
def tile(call: Call, x: Tensor, counts: Host) -> Tensor:
    return x.repeat(tuple(counts.tolist()))


@operator("Concat")
def concat(call: Call, first: Tensor, *others: Tensor) -> Tensor:
    return first.cat(*others, axis=call.integer("axis", 1))


@operator("Split")
def split(call: Call, x: Tensor, sizes: Host | None = None) -> Value | tuple[Value, ...]:
    axis, given = call.integer("axis", 0), call.axes(sizes, "split")
    if given is None:
        n = x.shape[axis]
        part = -(-n // call.integer("num_outputs", call.output_count))
        given = tuple(min(part, n - start) for start in range(0, n, part))
    return tuple(x.split(given, axis))


@operator("Slice")
def slice_(call: Call, x: Tensor, *limits: Host) -> Tensor:
    return x.slice(*cuts(call, x.shape, limits))


@operator("Pad")
def pad(call: Call, x: Tensor, pads: Host | None = None, value: Host | None = None, axes: Host | None = None) -> Tensor:
    given = call.axes(pads, "pads") or call.get("paddings") or ()
    chosen = range(x.ndim) if axes is None else axes.tolist()
    widths = [(0, 0)] * x.ndim
    for axis, before, after in zip(chosen, given[: len(given) // 2], given[len(given) // 2 :], strict=True):
        widths[axis] = (before, after)
    mode = call.get("mode", "constant")
    if mode == "constant":
        return x.pad(widths, call.get("value", 0.0) if value is None else value.reshape(()).item())
    for axis, (before, after) in enumerate(widths):
        if before or after:
            kept = np.arange(max(0, -before), x.shape[axis] - max(0, -after))
            places = np.pad(kept, (max(0, before), max(0, after)), mode)
            x = x.take(call.tensor(places), axis)
    return x


@operator("DepthToSpace")
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    n = call.integer("blocksize", 1)
    if call.get("mode", "DCR") == "DCR":
        moved = x.reshape(batch, n, n, channels // n**2, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        moved = x.reshape(batch, channels // n**2, n, n, height, width).permute(0, 1, 4, 2, 5, 3)
    return moved.reshape(batch, channels // n**2, height * n, width * n)


@operator("SpaceToDepth")
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    n = call.integer("blocksize", 1)
    inner, order = (height // n, n, width // n, n), (0, 3, 5, 1, 2, 4)
    if call.get("mode", "DCR") == "CRD":
        order = (0, 1, 3, 5, 2, 4)
    return x.reshape(batch, channels, *inner).permute(order).reshape(batch, channels * n * n, height // n, width // n)


@operator("Trilu")
def triangle(call: Call, x: Tensor, k: Host | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k.item())
    return x.triu(diagonal) if call.get("upper", 1) else x.tril(diagonal)


@operator("EyeLike")
def eye_like(call: Call, x: Value) -> Tensor:
    rows, columns = _shape(x)
    numbers = call.tensor(x) if "dtype" not in call.attributes else None
    wanted = dtypes.of(element_type(call.get("dtype"))) if numbers is None else numbers.dtype
    places = Tensor.arange(columns, device=call.device) - Tensor.arange(rows, device=call.device).reshape(rows, 1)
    return places.equal(call.integer("k", 0)).cast(wanted)


@operator("ConstantOfShape")
def constant_of_shape(call: Call, wanted: Host) -> Tensor:
    value = call.get("value", np.zeros(1, np.float32))
    if (wanted < 0).any():
        raise InvalidArgument(f"shape {wanted.tolist()}")
    return call.tensor(value).reshape(()).expand(tuple(wanted.tolist()))


@operator("Range")
def range_(call: Call, start: Host, limit: Host, step: Host) -> Tensor:
    first, by = start.item(), step.item()
    count = max(0, math.ceil((limit.item() - first) / by))
    places = Tensor.arange(count, device=call.device)
    wanted = dtypes.of(start.dtype)
    return (places if wanted.is_int else places.cast(dtypes.float64)).__mul__(by).__add__(first).cast(wanted)


@operator("OneHot")
def one_hot(call: Call, indices: Tensor, depth: Host, values: Tensor) -> Tensor:
    axis, n = call.integer("axis", -1), int(depth.reshape(-1)[0])
    axis += indices.ndim + 1 if axis < 0 else 0
    wanted = indices.cast(dtypes.int64)
    wanted = (wanted < 0).where(wanted + n, wanted).unsqueeze(axis)  # what is still outside is nowhere
    places = Tensor.arange(n, device=call.device).reshape((n, *(1,) * (indices.ndim - axis)))
    return wanted.equal(places).where(values[1], values[0])


@operator("ReverseSequence")
def reverse_sequence(call: Call, x: Tensor, lengths: Host) -> Tensor:
    batch, time = call.integer("batch_axis", 1), call.integer("time_axis", 0)
    moved = x.transpose(0, time).transpose(1, batch) if time != 1 or batch != 0 else x.transpose(0, 1)
    at = np.arange(moved.shape[0])[:, None]
    places = np.where(at < lengths, lengths - 1 - at, at)
    found = moved[call.tensor(places), Tensor.arange(moved.shape[1], device=call.device)]
    return found.transpose(1, batch).transpose(0, time) if time != 1 or batch != 0 else found.transpose(0, 1)
