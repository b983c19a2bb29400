"""Values between elements: grids, regions and kernels with positions that are no integers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from amdrv.errors import InvalidArgument, Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.onnx.registry import Call, Host, Operator, host, registrar
from amdrv.tensor.onnx.windows import windows
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)

Tap = tuple[Tensor, Tensor]  # a position along one axis as a float without fraction, and its weight
CUBIC = -0.75  # the free coefficient of the cubic kernel, as in PyTorch


def linear_taps(place: Tensor) -> list[Tap]:
    """The elements on both sides of positions along one axis."""
    low = place.floor()
    share = place - low
    return [(low, 1.0 - share), (low + 1.0, share)]


def cubic_taps(place: Tensor, a: float = CUBIC) -> list[Tap]:
    """The four elements around positions. Source: Keys, "Cubic convolution interpolation" (1981)."""
    low = place.floor()
    share = place - low
    far = [share + 1.0, 2.0 - share]
    near = [share, 1.0 - share]
    first, last = (((d * a - 5 * a) * d + 8 * a) * d - 4 * a for d in far)
    second, third = ((d * (a + 2) - (a + 3)) * d * d + 1.0 for d in near)
    return [(low - 1.0, first), (low, second), (low + 1.0, third), (low + 2.0, last)]


def reflected(place: Tensor, low: float, high: float) -> Tensor:
    """Positions beyond two borders thrown back between them, as often as it takes."""
    if high <= low:
        return place.full_like(low)
    away = (place - low) % (2 * (high - low))
    return (away > high - low).where(2 * (high - low) - away, away) + low


def sampled(x: Tensor, lead: Sequence[Tensor], taps: Sequence[Sequence[Tap]], outside: str, corners: bool) -> Tensor:
    """Weighted sums of elements.

    ``lead`` are indices of the first axes, ``taps`` for each further axis the elements it looks at. ``outside`` says
    what stands beyond the edges: "zeros", "border" or "reflection"; ``corners``: reflected at the centres of the first
    and last elements instead of their outer edges.
    """
    lengths = x.shape[len(lead) :]
    prepared = [
        [_inside(place, weight, n, outside, corners) for place, weight in own]
        for own, n in zip(taps, lengths, strict=True)
    ]
    total: Tensor | None = None
    for chosen in itertools.product(*prepared):
        part = x[(*lead, *(place for place, _ in chosen))]
        for _, weight in chosen:
            part = part * weight
        total = part if total is None else total + part
    if total is None:
        raise InvalidArgument(f"no axes to sample in {x.shape}")
    return total


def _inside(place: Tensor, weight: Tensor, n: int, outside: str, corners: bool) -> Tap:
    """A position that exists, and what counts for it."""
    if outside == "zeros":
        weight = ((place >= 0) & (place <= n - 1)).where(weight, 0.0)
    elif outside == "reflection":
        place = reflected(place, 0.0, n - 1.0) if corners else reflected(place, -0.5, n - 0.5)
    return place.clip(0.0, n - 1.0).cast(dtypes.int64), weight


@operator("GridSample")
def grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    """Elements of a picture at positions that a grid names, from -1 to 1 along each axis, the last axis first."""
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(call.get("mode", "linear"), call.get("mode", "linear"))
    outside, corners = call.get("padding_mode", "zeros"), bool(call.get("align_corners"))
    n = x.ndim - 2
    taps: list[list[Tap]] = []
    wide = grid if grid.dtype.bits >= 32 else grid.cast(dtypes.float32)
    for axis in range(n):
        length = x.shape[2 + axis]
        place = wide.slice(*[slice(None)] * (n + 1), slice(n - 1 - axis, n - axis)).squeeze(-1).unsqueeze(1)
        place = (place + 1.0) / 2.0 * (length - 1) if corners else ((place + 1.0) * length - 1.0) / 2.0
        place = place.round() if mode == "nearest" else place
        if outside == "border":
            place = place.clip(0.0, length - 1.0)
        elif outside == "reflection":
            place = reflected(place, 0.0, length - 1.0) if corners else reflected(place, -0.5, length - 0.5)
        if mode == "nearest":
            # A position thrown back may end between elements; it is cut like an integer.
            taps.append([(place.trunc() if outside == "reflection" else place, place.ones_like())])
        elif mode in ("linear", "cubic"):
            taps.append(linear_taps(place) if mode == "linear" else cubic_taps(place))
        else:
            raise Unsupported(f"GridSample with mode {mode}")
    ones = (1,) * n
    lead = [x._position(x.shape[0]).reshape(-1, 1, *ones), x._position(x.shape[1]).reshape(-1, *ones)]
    return sampled(x, lead, taps, outside, corners).cast(x.dtype)


@operator("AffineGrid")
def affine_grid(call: Call, theta: Tensor, size: Host) -> Tensor:
    """Grids for GridSample: the positions of a picture's elements, turned and moved by matrices."""
    spatial = [int(k) for k in size[2:]]
    axes = []
    for n in spatial:
        if call.get("align_corners"):
            axes.append(np.linspace(-1, 1, n) if n > 1 else np.array([-1.0]))
        else:
            axes.append((np.arange(n) * 2 + 1) / n - 1)
    places = np.meshgrid(*axes, indexing="ij")
    points = np.stack([*places[::-1], np.ones(spatial)], -1).reshape(-1, len(spatial) + 1)
    flat = call.tensor(points.astype(theta.dtype.numpy))
    return flat.matmul(theta.transpose()).reshape(theta.shape[0], *spatial, len(spatial))


@operator("DeformConv")
def deform_conv(
    call: Call, x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Convolution whose kernel's elements each look at a position of their own, found by linear interpolation."""
    n, size = x.ndim - 2, weight.shape[2:]
    place = windows(call, x.shape[2:], size)
    groups, offsets = call.get("group", 1), call.get("offset_group", 1)
    batch, channels, count = x.shape[0], x.shape[1], place.count
    if offset.shape[2:] != count or offset.shape[1] != offsets * math.prod(size) * n:
        raise InvalidArgument(f"DeformConv: offsets {offset.shape} for {x.shape} and a kernel {weight.shape}")
    moved = offset.reshape(batch, offsets, 1, *size, n, *count)
    taps = []
    for axis in range(n):
        own = moved.slice(*[slice(None)] * (3 + n), slice(axis, axis + 1)).squeeze(3 + n)
        inner = x._position(size[axis]).reshape(-1, *(1,) * (2 * n - axis - 1)) * place.dilation[axis]
        outer = x._position(count[axis]).reshape(-1, *(1,) * (n - axis - 1)) * place.stride[axis]
        taps.append(linear_taps(own + (inner + outer - place.before[axis]).cast(own.dtype)))
    ones = (1,) * (2 * n)
    each = channels // offsets
    lead = [
        x._position(batch).reshape(-1, 1, 1, *ones),
        x._position(channels).reshape(offsets, each, *ones),
    ]
    found = sampled(x, lead, taps, "zeros", True)  # (batch, offsets, each, *size, *count)
    if mask is not None:
        found = found * mask.reshape(batch, offsets, 1, *size, *count)
    outputs = weight.shape[0]
    points, k = math.prod(count), channels // groups * math.prod(size)
    left = weight.reshape(1, groups, outputs // groups, k)
    result = left.matmul(found.reshape(batch, groups, k, points)).reshape(batch, outputs, *count)
    result = result if bias is None else result + bias.reshape(-1, *(1,) * n)
    return result.cast(x.dtype)


@operator("RoiAlign")
def roi_align(call: Call, x: Tensor, rois: Tensor, batches: Tensor) -> Tensor:
    """Means (or greatest values) of points spread evenly over the cells of a grid in each region (x1, y1, x2, y2).

    Points are found by linear interpolation. Without a sampling ratio their number depends on the regions, which are
    computed for it.
    """
    half = call.get("coordinate_transformation_mode", "half_pixel" if call.opset >= 16 else "output_half_pixel")
    shift = 0.5 if half == "half_pixel" else 0.0
    cells = (call.get("output_height", 1), call.get("output_width", 1))
    boxes = rois * call.get("spatial_scale", 1.0) - shift
    taps: list[list[Tap]] = []
    shares: list[Tensor] = []  # which points count, by axis: (region, point)
    numbers: list[Tensor] = []
    for axis in range(2):
        length, start = x.shape[2 + axis], boxes.slice(slice(None), slice(1 - axis, 2 - axis))
        side = boxes.slice(slice(None), slice(3 - axis, 4 - axis)) - start
        side = side if shift else side.maximum(1.0)
        cell = side / cells[axis]  # (regions, 1)
        ratio = call.get("sampling_ratio", 0)
        number = cell.full_like(ratio) if ratio > 0 else cell.ceil()
        points = ratio if ratio > 0 else max(1, int(host(number).max(initial=1)))
        at = x._position(points).cast(cell.dtype)
        inner = ((at + 0.5) / number * cell).unsqueeze(1)  # (regions, 1, points)
        place = start.unsqueeze(-1) + (x._position(cells[axis]).cast(cell.dtype).reshape(-1, 1) * cell.unsqueeze(-1))
        place = place + inner  # (regions, cells, points)
        counted = (at < number).unsqueeze(1) & (place >= -1.0) & (place <= float(length))
        shares.append(counted)
        numbers.append(number)
        limited = place.clip(0.0, length - 1.0)
        shape = (rois.shape[0], 1, cells[0], 1, points, 1) if axis == 0 else (rois.shape[0], 1, 1, cells[1], 1, points)
        taps.append([(part.reshape(shape), weight.reshape(shape)) for part, weight in linear_taps(limited)])
    lead = [batches.reshape(-1, 1, 1, 1, 1, 1), x._position(x.shape[1]).reshape(-1, 1, 1, 1, 1)]
    down, across = shares
    there = down.reshape(-1, 1, cells[0], 1, down.shape[-1], 1) & across.reshape(
        -1, 1, 1, cells[1], 1, across.shape[-1]
    )
    if call.get("mode", "avg") == "max":
        return _greatest_tap(x, lead, taps, there)
    total = there.where(sampled(x, lead, taps, "border", True), 0.0).sum((-2, -1))
    count = (numbers[0] * numbers[1]).maximum(1.0).reshape(-1, 1, 1, 1)
    return (total / count).cast(x.dtype)


def _greatest_tap(x: Tensor, lead: Sequence[Tensor], taps: Sequence[Sequence[Tap]], there: Tensor) -> Tensor:
    """The greatest weighted element, which is what the operator's reference takes instead of interpolated values."""
    found: Tensor | None = None
    for chosen in itertools.product(*taps):
        part = sampled(x, lead, [[tap] for tap in chosen], "border", True)
        found = part if found is None else found.maximum(part)
    if found is None:
        raise InvalidArgument("RoiAlign without axes")
    # Points outside count as zeros, points that a smaller region does not have not at all; both are rare.
    return there.where(found, 0.0).max((-2, -1)).cast(x.dtype)
