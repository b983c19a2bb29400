"""Pictures: resizing, cropping, choosing boxes, decoding."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument, MalformedInput, Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.onnx import weights
from amdrv.tensor.onnx.registry import Call, Host, Operator, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)

Places = NDArray[np.float64]

# Where an element of the result lies in the input, by the names of ONNX: of element numbers, the input's length, the
# result's length as a real number and as an integer, the scale, and the region.
COORDINATES: dict[str, Callable[[Places, int, float, int, float, tuple[float, float]], Places]] = {
    "half_pixel": lambda x, n, m, whole, scale, roi: (x + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda x, n, m, whole, scale, roi: (x + 0.5) / scale - 0.5 if m != 1 else x * 0 - 0.5,
    "half_pixel_symmetric": lambda x, n, m, whole, scale, roi: n / 2 * (1 - whole / m) + (x + 0.5) / scale - 0.5,
    "align_corners": lambda x, n, m, whole, scale, roi: x * (n - 1) / (m - 1) if m != 1 else x * 0,
    "asymmetric": lambda x, n, m, whole, scale, roi: x / scale,
    "tf_half_pixel_for_nn": lambda x, n, m, whole, scale, roi: (x + 0.5) / scale,
    "tf_crop_and_resize": lambda x, n, m, whole, scale, roi: (
        roi[0] * (n - 1) + x * (roi[1] - roi[0]) * (n - 1) / (m - 1) if m != 1 else x * 0 + sum(roi) * (n - 1) / 2
    ),
}
NEAREST: dict[str, Callable[[Places], Places]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _linear(x: Places) -> Places:
    found: Places = np.maximum(1 - np.abs(x), 0)
    return found


def _cubic(a: float) -> Callable[[Places], Places]:
    """Keys' kernel: two pieces, zero from a distance of 2."""

    def kernel(x: Places) -> Places:
        d = np.abs(x)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        found: Places = np.where(d <= 1, near, np.where(d < 2, far, 0))
        return found

    return kernel


def resized(call: Call, x: Tensor, axis: int, whole: int, scale: float, roi: tuple[float, float]) -> Tensor:
    """One axis resized: each element of the result is a weighted sum of a few of the input, known beforehand."""
    n, mode = x.shape[axis], call.get("mode", "nearest")
    way = call.get("coordinate_transformation_mode", "half_pixel" if call.opset > 10 else "asymmetric")
    if way not in COORDINATES:
        raise Unsupported(f"Resize with coordinate_transformation_mode {way}")
    if not n or not 0 <= whole <= weights.TABLE_ELEMENTS_MAX or scale <= 0:
        raise InvalidArgument(f"Resize: axis {axis} of {x.shape} to {whole}, {scale} times as long")
    place = COORDINATES[way](np.arange(whole, dtype=np.float64), n, scale * n, whole, scale, roi)
    if mode == "nearest":
        # Before version 11 there was one way to round.
        rule = call.get("nearest_mode", "round_prefer_floor" if call.opset > 10 else "floor")
        if rule not in NEAREST:
            raise Unsupported(f"Resize with nearest_mode {rule}")
        found = _taken(x, axis, np.clip(NEAREST[rule](place), 0, n - 1).astype(np.int64))
    else:
        found = _weighted(call, x, axis, place, scale)
    if way == "tf_crop_and_resize":
        outside = call.tensor((place < 0) | (place > n - 1)).reshape(-1, *(1,) * (x.ndim - axis - 1))
        found = outside.where(float(call.get("extrapolation_value", 0.0)), found)
    return found


def _taken(x: Tensor, axis: int, index: NDArray[np.int64]) -> Tensor:
    """Elements along an axis; a view where each is repeated equally often."""
    n, times = x.shape[axis], max(1, len(index) // x.shape[axis])
    if np.array_equal(index, np.arange(len(index)) // times) and len(index) == n * times:
        wide = x.unsqueeze(axis + 1)
        shape = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
        return wide.expand(shape).reshape(*x.shape[:axis], n * times, *x.shape[axis + 1 :])
    return x.take(Tensor(index, device=x.backend), axis)


def _weighted(call: Call, x: Tensor, axis: int, place: Places, scale: float) -> Tensor:
    n = x.shape[axis]
    mode = call.get("mode")
    if mode not in ("linear", "cubic"):
        raise Unsupported(f"Resize with mode {mode}")
    kernel, reach = (_linear, 1) if mode == "linear" else (_cubic(call.get("cubic_coeff_a", -0.75)), 2)
    shrink = min(scale, 1.0) if call.get("antialias") else 1.0
    far = math.ceil(reach / shrink)
    at = np.floor(place)[:, None] + np.arange(1 - far, far + 1)
    weights = kernel((at - place[:, None]) * shrink)
    if call.get("exclude_outside"):
        weights = np.where((at >= 0) & (at < n), weights, 0)
    if call.get("exclude_outside") or shrink < 1:
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    used = (weights != 0).any(0)
    index = np.clip(at[:, used], 0, n - 1).astype(np.int64)
    shape = (*index.shape, *(1,) * (x.ndim - axis - 1))
    factors = call.tensor(weights[:, used].astype(x.dtype.compute.numpy)).reshape(shape)
    taken = x.take(Tensor(index, device=x.backend), axis)
    return (taken * factors).sum(axis + 1)


def _target(
    call: Call, x: Tensor, axes: Sequence[int], scales: Host | None, sizes: Host | None
) -> list[tuple[int, float]]:
    """The length and the scale of each axis in ``axes``."""
    lengths = [x.shape[axis] for axis in axes]
    if sizes is None or not sizes.size:
        if scales is None or len(scales) != len(axes):
            raise InvalidArgument(f"Resize of {x.shape} along {list(axes)} by {scales}")
        # In float32, as ONNX infers shapes: 10 elements times 0.7 are 7.
        counts = np.floor(np.array(lengths, np.float32) * scales.astype(np.float32))
        return list(zip(map(int, counts), map(float, scales), strict=True))
    wanted = [int(m) for m in sizes.reshape(-1)]
    if len(wanted) != len(axes):
        raise InvalidArgument(f"Resize of {x.shape} along {list(axes)} to {wanted}")
    ratios = [m / max(n, 1) for m, n in zip(wanted, lengths, strict=True)]
    policy = call.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return list(zip(wanted, ratios, strict=True))
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [(math.floor(ratio * n + 0.5), ratio) for n in lengths]


@operator("Resize")
def resize(
    call: Call, x: Tensor, roi: Host | None = None, scales: Host | None = None, sizes: Host | None = None
) -> Tensor:
    """A tensor with other lengths, between whose elements is interpolated."""
    if call.opset < 11:  # the second input were the scales
        roi, scales = None, roi
    axes = [axis % x.ndim for axis in call.get("axes") or range(x.ndim)]
    region = roi if roi is not None and roi.size == 2 * len(axes) else np.array([0.0, 1.0]).repeat(len(axes))
    whole = x.dtype
    found = x if x.dtype.is_float else x.cast(dtypes.float32)
    for k, (axis, (length, scale)) in enumerate(zip(axes, _target(call, x, axes, scales, sizes), strict=True)):
        own = (float(region[k]), float(region[k + len(axes)]))
        crop = call.get("coordinate_transformation_mode") == "tf_crop_and_resize" and own != (0.0, 1.0)
        if length != x.shape[axis] or abs(scale - 1) > 1e-9 or crop:
            found = resized(call, found, axis, length, scale, own)
    if whole.is_float:
        return found.cast(whole)
    low, high = whole.limits
    exact = call.get("mode", "nearest") == "nearest"
    return (found if exact else found.clip(float(low), float(high)).trunc()).cast(whole)


@operator("Upsample")
def upsample(call: Call, x: Tensor, scales: Host | None = None) -> Tensor:
    """Resize as it was before it had options."""
    given = np.array(call.get("scales")) if scales is None else scales
    found = x
    for axis, scale in enumerate(map(float, given)):
        length = int(np.floor(np.float32(x.shape[axis]) * np.float32(scale)))
        if length != x.shape[axis]:
            found = resized(call, found, axis, length, scale, (0.0, 1.0))
    return found.cast(x.dtype)


@operator("CenterCropPad")
def center_crop_pad(call: Call, x: Tensor, shape: Host) -> Tensor:
    """The middle of a tensor, or the tensor in the middle of zeros."""
    axes = [axis % x.ndim for axis in call.get("axes") or range(x.ndim)]
    widths = [(0, 0)] * x.ndim
    for axis, wanted in zip(axes, shape, strict=True):
        more = int(wanted) - x.shape[axis]
        before = more // 2 if more >= 0 else -(-more // 2)
        widths[axis] = (before, more - before)
    return x.pad(widths)


@operator("NonMaxSuppression")
def non_max_suppression(
    call: Call,
    boxes: Host,
    scores: Host,
    most: Host | None = None,
    overlap: Host | None = None,
    least: Host | None = None,
) -> Host:
    """(batch, class, box) of the best boxes that overlap no better one of their class; computed at once."""
    limit = int(most.item()) if most is not None else 0
    threshold = float(overlap.item()) if overlap is not None else 0.0
    floor = float(least.item()) if least is not None else -math.inf
    if call.get("center_point_box"):
        middle, size = boxes[..., :2], boxes[..., 2:]
        boxes = np.concatenate([middle - size / 2, middle + size / 2], -1)
    low, high = np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])
    chosen: list[tuple[int, int, int]] = []
    for batch, classes in enumerate(scores):
        for number, own in enumerate(classes):
            kept = _best(low[batch], high[batch], own, limit, threshold, floor)
            chosen += [(batch, number, box) for box in kept]
    return np.array(chosen, np.int64).reshape(-1, 3)


def _best(low: Host, high: Host, scores: Host, limit: int, threshold: float, floor: float) -> list[int]:
    """Boxes in order of their scores, without those that overlap a better one too much."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > floor]
    area = np.prod(high - low, -1)
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        common = np.prod(np.maximum(np.minimum(high[order], high[best]) - np.maximum(low[order], low[best]), 0), -1)
        union = area[order] + area[best] - common
        order = order[~((common > 0) & (common > threshold * union))]
    return kept


@operator("ImageDecoder")
def image_decoder(call: Call, data: Host) -> Host:
    """The pixels of an encoded picture: (height, width, channels) of uint8."""
    import PIL.Image

    form = call.get("pixel_format", "RGB")
    mode = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}.get(form)
    if mode is None:
        raise Unsupported(f"ImageDecoder with pixel_format {form}")
    try:
        picture = PIL.Image.open(io.BytesIO(data.astype(np.uint8).tobytes())).convert(mode)
        found = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise MalformedInput(f"ImageDecoder: {error}") from None
    found = found[..., None] if mode == "L" else found
    return np.ascontiguousarray(found[..., ::-1] if form == "BGR" else found)
