"""Pooling: one value for each window, for each channel, for each region."""

from __future__ import annotations

import math

import numpy as np

from amdrv.tensor import dtypes
from amdrv.tensor.onnx.registry import Call, Host, Operator, registrar
from amdrv.tensor.onnx.windows import Windows, windows
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


def _last(x: Tensor, count: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - count, x.ndim))


@operator("MaxPool")
def max_pool(call: Call, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The greatest of each window, and where it stands in the whole tensor, as if that were flat."""
    shape = x.shape[2:]
    place = windows(call, shape, call.get("kernel_shape"))
    found = place.of(x, x.dtype.limits[0])
    greatest = found.max(_last(found, len(shape)))
    if call.output_count < 2:
        return greatest
    which = found.reshape(*greatest.shape, -1).argmax(-1)
    positions = []
    for axis, k in enumerate(place.size):
        offset = which // math.prod(place.size[axis + 1 :]) % k * place.dilation[axis]
        start = x._position(place.count[axis]) * place.stride[axis] - place.before[axis]
        positions.append(offset + start.reshape(-1, *(1,) * (len(shape) - axis - 1)))
    flat = x._position(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(shape)).cast(dtypes.int64)
    flat = flat * math.prod(shape)
    for axis in range(len(shape)):
        inner = shape[axis + 1 :] if not call.get("storage_order") else shape[:axis]
        flat = flat + positions[axis] * math.prod(inner)
    return greatest, flat


@operator("AveragePool")
def average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of each window, without padding unless the model counts it."""
    place = windows(call, x.shape[2:], call.get("kernel_shape"))
    found = place.of(x)
    total = found.sum(_last(found, len(place.size)), dtype=x.dtype)
    padded = bool(call.get("count_include_pad"))
    for axis, length in enumerate(x.shape[2:]):
        share = (1 / _counted(place, axis, length, padded)).astype(x.dtype.numpy)
        total = total * call.tensor(share.reshape(-1, *(1,) * (len(place.size) - axis - 1)))
    return total


def _counted(place: Windows, axis: int, length: int, padded: bool) -> Host:
    """How many elements of each window along an axis are there."""
    starts = np.arange(place.count[axis])[:, None] * place.stride[axis] - place.before[axis]
    at = starts + np.arange(place.size[axis]) * place.dilation[axis]
    low, high = (-place.before[axis], length + place.after[axis]) if padded else (0, length)
    found: Host = np.maximum(((at >= low) & (at < high)).sum(1), 1)
    return found


@operator("LpPool")
def lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of each window."""
    place = windows(call, x.shape[2:], call.get("kernel_shape"))
    p = float(call.get("p", 2))
    found = place.of(x.abs() ** p)
    return found.sum(_last(found, len(place.size)), dtype=x.dtype) ** (1.0 / p)


@operator("GlobalMaxPool")
def global_max_pool(call: Call, x: Tensor) -> Tensor:
    """The greatest of each channel."""
    return x.max(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalAveragePool")
def global_average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of each channel."""
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(call: Call, x: Tensor) -> Tensor:
    """The p-norm of each channel."""
    p = float(call.get("p", 2))
    return (x.abs() ** p).sum(tuple(range(2, x.ndim)), keepdim=True) ** (1.0 / p)


@operator("MaxUnpool")
def max_unpool(call: Call, x: Tensor, indices: Tensor, output_shape: Host | None = None) -> Tensor:
    """The elements where MaxPool found them, zeros elsewhere."""
    size = call.get("kernel_shape")
    n = len(size)
    strides, pads = call.get("strides") or [1] * n, call.get("pads") or [0] * 2 * n
    inferred = [
        (length - 1) * s - pads[k] - pads[k + n] + size[k]
        for k, (length, s) in enumerate(zip(x.shape[2:], strides, strict=True))
    ]
    total = x.shape[0] * x.shape[1] * math.prod(inferred)
    flat = Tensor.zeros(total, dtype=x.dtype, device=x.backend).scatter_add(0, indices.flatten(), x.flatten())
    found = flat.reshape(*x.shape[:2], *inferred)
    if output_shape is None:
        return found
    return found.pad([(0, int(wanted) - own) for wanted, own in zip(output_shape, found.shape, strict=True)])


@operator("MaxRoiPool")
def max_roi_pool(call: Call, x: Tensor, rois: Host) -> Tensor:
    """The greatest element of each cell of a grid over each region (batch, x1, y1, x2, y2)."""
    grid, scale = call.get("pooled_shape"), call.get("spatial_scale", 1.0)
    boxes = np.floor(rois[:, 1:].astype(np.float64) * scale + 0.5).astype(np.int64)  # half away from zero
    found = x.take(call.tensor(rois[:, 0].astype(np.int64)), 0)
    for axis, cells in enumerate(grid):
        length = x.shape[2 + axis]
        start, end = boxes[:, 1 - axis], boxes[:, 3 - axis]
        side = np.maximum(end - start + 1, 1)[:, None] / cells
        low = np.clip(np.floor(np.arange(cells) * side) + start[:, None], 0, length)
        high = np.clip(np.ceil(np.arange(1, cells + 1) * side) + start[:, None], 0, length)
        place = np.arange(length)
        inside = (place >= low[..., None]) & (place < high[..., None])  # (region, cell, element)
        # The axis of this step comes last, where its cells take its place; the other one is third for the next step.
        turned = found.transpose(2, -1).unsqueeze(-2)
        mask = call.tensor(inside).reshape(len(rois), 1, 1, cells, length)
        found = mask.where(turned, -math.inf).max(-1)
    return (found == -math.inf).where(0.0, found)
