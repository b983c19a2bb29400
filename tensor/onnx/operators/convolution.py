"""Convolution and its transpose."""

from __future__ import annotations

from collections.abc import Sequence

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.ir import Op
from amdrv.tensor.onnx.registry import Call, Host, Operator, registrar
from amdrv.tensor.onnx.windows import windows
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


@operator("Conv")
def conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution along all axes after the second."""
    place = windows(call, x.shape[2:], weight.shape[2:])
    # A buffer of its own: what the input comes from, however cheap, would be repeated for every channel and tap.
    own = x.contiguous()
    return own.conv(weight, bias, place.stride, (*place.before, *place.after), place.dilation, call.get("group", 1))


@operator("ConvInteger")
def conv_integer(
    call: Call, x: Tensor, weight: Tensor, x_zero: Tensor | None = None, weight_zero: Tensor | None = None
) -> Tensor:
    """Convolution of integers less their zero points, in int32."""
    return conv(call, less_zero(x, x_zero), less_zero(weight, weight_zero, 0))


def less_zero(x: Tensor, zero: Tensor | None, axis: int | None = None) -> Tensor:
    """Quantised integers less their zero point as int32. A vector of zero points goes along ``axis``, else the last."""
    wide = x.cast(dtypes.int32)
    if zero is None:
        return wide
    if axis is not None and zero.ndim == 1 and zero.size > 1:
        zero = zero.reshape(-1, *(1,) * (x.ndim - axis - 1))
    return wide - zero.cast(dtypes.int32) if zero.size > 1 else wide - zero.cast(dtypes.int32).reshape(())


@operator("ConvTranspose")
def conv_transpose(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What convolution's gradient does: every element adds a multiple of the kernel to the result.

    As a convolution: of the elements moved apart by the stride, with the kernel turned round.
    """
    n = x.ndim - 2
    size, groups = weight.shape[2:], call.get("group", 1)
    strides = call.get("strides") or [1] * n
    dilations = call.get("dilations") or [1] * n
    extents = [apart * (k - 1) + 1 for k, apart in zip(size, dilations, strict=True)]
    more = call.get("output_padding") or [0] * n
    whole = [(length - 1) * s + e for length, s, e in zip(x.shape[2:], strides, extents, strict=True)]
    sides = _cut(call, x.shape[2:], strides, [a + b for a, b in zip(whole, more, strict=True)])
    if list(size) == list(strides) and max(dilations, default=1) == 1:
        found = _side_by_side(x, weight, groups)
        ends = [(-before, extra - after) for (before, after), extra in zip(sides, more, strict=True)]
        found = found.pad([(0, 0), (0, 0), *ends])
        return found if bias is None else found + bias.reshape(-1, *(1,) * n)
    apart = x._move(Op.PAD, ((0, 0, 0), (0, 0, 0), *((0, 0, s - 1) for s in strides)))
    widths = [
        (e - 1 - before, e - 1 - after + extra) for e, (before, after), extra in zip(extents, sides, more, strict=True)
    ]
    channels, outputs = weight.shape[:2]
    split = weight.reshape(groups, channels // groups, outputs, *size).transpose(1, 2)
    turned = split.reshape(groups * outputs, channels // groups, *size).flip(tuple(range(2, n + 2)))
    padded = apart.pad([(0, 0), (0, 0), *widths])
    return padded.conv(turned, bias, 1, 0, dilations, groups)


def _side_by_side(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The transpose of a convolution whose windows do not overlap: a matrix product, put in place."""
    batch, channels, *lengths = x.shape
    outputs, size, n = weight.shape[1], weight.shape[2:], len(lengths)
    kernels = weight.reshape(groups, channels // groups, -1).transpose()
    found = kernels.matmul(x.reshape(batch, groups, channels // groups, -1))
    found = found.reshape(batch, groups * outputs, *size, *lengths)
    pairs = [axis for k in range(n) for axis in (2 + n + k, 2 + k)]
    return found.permute(0, 1, *pairs).reshape(
        batch, groups * outputs, *(length * k for length, k in zip(lengths, size, strict=True))
    )


def _cut(call: Call, lengths: Sequence[int], strides: Sequence[int], whole: Sequence[int]) -> list[tuple[int, int]]:
    """How much of the whole result is cut off before and after each spatial axis."""
    n = len(lengths)
    auto, wanted = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    if auto in ("SAME_UPPER", "SAME_LOWER") and wanted is None:
        wanted = [length * s for length, s in zip(lengths, strides, strict=True)]
    if wanted is None:
        pads = call.get("pads") or [0] * 2 * n
        return [(0, 0)] * n if auto == "VALID" else list(zip(pads[:n], pads[n:], strict=True))
    total = [a - b for a, b in zip(whole, wanted[-n:], strict=True)]
    if min(total, default=0) < 0:
        return [(0, t) for t in total]  # more than there is: zeros at the end
    if auto == "SAME_LOWER":
        return [(t - t // 2, t // 2) for t in total]
    return [(t // 2, t - t // 2) for t in total]


@operator("CausalConvWithState")
def causal_conv_with_state(
    call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Each channel convolved with its own kernel, looking back only; the state is what the next call looks back at."""
    back = weight.shape[2] - 1
    seen = x.pad([(0, 0), (0, 0), (back, 0)]) if past is None else past.cat(x, axis=2)
    found = seen.conv(weight, bias, groups=x.shape[1])
    if call.get("activation", "none") in ("silu", "swish"):
        found = found.cast(dtypes.float32).silu() if x.dtype.bits < 32 else found.silu()
    return found.cast(x.dtype), seen.slice(slice(None), slice(None), slice(seen.shape[2] - back, None))


@operator("Col2Im")
def col2im(call: Call, x: Tensor, image: Host, block: Host) -> Tensor:
    """Blocks added up where they lie in the image; each element asks, for every offset, which block covers it."""
    shape, size = [int(n) for n in image], [int(k) for k in block]
    place = windows(call, shape, size)
    lead, n = x.shape[0], len(size)
    columns = x.reshape(lead, -1, *size, *place.count)
    # Along each axis in turn: an offset within the block is a shift in the image.
    for axis in range(n):
        at, count = columns.ndim - n + axis, place.count[axis]
        total: Tensor | None = None
        for k, part in enumerate(columns.split(1, 2)):
            start = k * place.dilation[axis]
            room = shape[axis] + place.before[axis] + place.after[axis]
            widths = [(0, 0, 0)] * part.ndim
            widths[at] = (start, 0, place.stride[axis] - 1)
            moved = part._move(Op.PAD, tuple(widths))
            wide = start + (count - 1) * place.stride[axis] + 1
            ends = [(0, 0)] * part.ndim
            ends[at] = (-place.before[axis], room - wide - place.after[axis])
            moved = moved.pad(ends)
            total = moved if total is None else total + moved
        if total is None:
            raise InvalidArgument(f"Col2Im: a block of {size}")
        columns = total.squeeze(2)
    return columns
