"""Where windows lie that slide along the spatial axes: padding, counts of results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from amdrv.errors import InvalidArgument
from amdrv.tensor.dtypes import Scalar
from amdrv.tensor.onnx import weights
from amdrv.tensor.onnx.registry import Call
from amdrv.tensor.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of ``size`` elements along each spatial axis, and how many there are of them."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]  # elements of padding at the beginning
    after: tuple[int, ...]  # and at the end, as the model says it
    beyond: tuple[int, ...]  # more elements that the last window reaches over when counts are rounded up
    count: tuple[int, ...]

    def of(self, x: Tensor, value: Scalar = 0) -> Tensor:
        """The windows over the last axes of a tensor with padding of a value: (…, *count, *size)."""
        ends = (a + b for a, b in zip(self.after, self.beyond, strict=True))
        spatial = list(zip(self.before, ends, strict=True))
        padded = x.pad([*[(0, 0)] * (x.ndim - len(spatial)), *spatial], value)
        found = padded._windows(self.size, self.stride, self.dilation)
        lead = x.ndim - len(spatial)
        return found.slice(*[slice(None)] * lead, *(slice(0, n) for n in self.count))


def windows(call: Call, shape: Sequence[int], size: Sequence[int]) -> Windows:
    """The windows that a node's attributes mean on spatial axes of a shape. Raises InvalidArgument if none fits."""
    n = len(shape)
    stride = tuple(call.get("strides") or [1] * n)
    dilation = tuple(call.get("dilations") or [1] * n)
    pads = call.get("pads") or [0] * 2 * n
    before, after, beyond, count = [], [], [], []
    fits = n == len(size) == len(stride) == len(dilation) == len(pads) // 2
    if not fits or min((*stride, *dilation, *size), default=0) < 1:
        raise InvalidArgument(
            f"windows of {list(size)}, strides {stride}, dilations {dilation}, pads {pads} on {shape}"
        )
    for axis, (length, k, step, apart) in enumerate(zip(shape, size, stride, dilation, strict=True)):
        extent = apart * (k - 1) + 1
        first, last = _padding(call, length, extent, step, (pads[axis], pads[axis + n]))
        room = length + first + last - extent
        found = (-(-room // step) if call.get("ceil_mode") else room // step) + 1
        if call.get("ceil_mode") and (found - 1) * step >= length + first:
            found -= 1  # the last window would begin in the padding
        if found < 1 or found * k > weights.TABLE_ELEMENTS_MAX:
            raise InvalidArgument(f"windows of {list(size)} do not fit into {list(shape)} with padding {pads}")
        before.append(first)
        after.append(last)
        beyond.append(max(0, (found - 1) * step - room))
        count.append(found)
    return Windows(tuple(size), stride, dilation, tuple(before), tuple(after), tuple(beyond), tuple(count))


def _padding(call: Call, length: int, extent: int, step: int, explicit: tuple[int, int]) -> tuple[int, int]:
    """Elements before and after one axis."""
    auto = call.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return 0, 0
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        return explicit
    need = max(0, (math.ceil(length / step) - 1) * step + extent - length)
    return (need // 2, need - need // 2) if auto == "SAME_UPPER" else (need - need // 2, need // 2)
