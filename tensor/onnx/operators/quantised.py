"""Integers (and narrow floats) that stand for real numbers by a scale and a zero point."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from amdrv.errors import InvalidArgument, Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.onnx.operators import recurrent
from amdrv.tensor.onnx.operators.convolution import conv, less_zero
from amdrv.tensor.onnx.operators.pooling import average_pool
from amdrv.tensor.onnx.registry import WIDER, Call, Host, Operator, Value, element_type, narrow, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


def along(part: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Scales or zero points in a shape that goes with ``x``: one for all, one an axis's element, or one a block."""
    if part.size == 1 and not block:
        return part.reshape(())
    axis %= x.ndim
    if not block:
        return part.reshape(-1, *(1,) * (x.ndim - axis - 1))
    wide = part.unsqueeze(axis + 1).expand(*part.shape[: axis + 1], block, *part.shape[axis + 1 :])
    whole = wide.reshape(*part.shape[:axis], part.shape[axis] * block, *part.shape[axis + 1 :])
    return whole.slice(*[slice(None)] * axis, slice(0, x.shape[axis]))


@operator("QuantizeLinear", "com.microsoft.QuantizeLinear")
def quantize_linear(call: Call, x: Tensor, scale: Tensor, zero: Value = None) -> Value:
    """x / scale, rounded, plus the zero point, limited to the type of the zero point."""
    given = call.get("output_dtype", 0)
    if isinstance(zero, Tensor):
        wanted: np.dtype[Any] = zero.dtype.numpy
    elif isinstance(zero, np.ndarray):
        wanted = zero.dtype
    else:
        wanted = element_type(given) if given else np.dtype(np.uint8)
    axis, block = call.get("axis", 1), call.get("block_size", 0)
    precision = call.get("precision", 0)
    kind = dtypes.of(element_type(precision)) if precision else dtypes.promote(x._float().dtype, scale.dtype)
    divided = x.cast(kind) / along(scale, x, axis, block).cast(kind)
    offset = None if zero is None else along(call.tensor(zero), x, axis, block)
    return rounded(divided, wanted, offset, bool(call.get("saturate", 1)))


def rounded(x: Tensor, wanted: np.dtype[Any], zero: Tensor | None, saturate: bool = True) -> Value:
    """Real numbers as a quantised type, at the nearest value that it has."""
    wide = x if x.dtype.bits >= 32 else x.cast(dtypes.float32)
    if _is_integer(wanted):
        low, high = (float(limit) for limit in _limits(wanted))
        found = wide.round() if zero is None else wide.round() + zero.cast(wide.dtype)
        return narrow(found.clip(low, high).cast(dtypes.of(WIDER.get(wanted, wanted))), wanted)
    if zero is not None and zero.dtype.bits >= 32:  # a float4; the zero points of float8 are zeros
        wide = wide + zero.cast(wide.dtype)
    most = float(ml_dtypes.finfo(wanted).max)  # type: ignore[no-untyped-call]
    return narrow(wide.clip(-most, most) if saturate else wide, wanted)


def _is_integer(kind: np.dtype[Any]) -> bool:
    return kind.kind in "iu" or "int" in kind.name


def _limits(kind: np.dtype[Any]) -> tuple[int, int]:
    info = ml_dtypes.iinfo(kind)  # type: ignore[no-untyped-call]
    return int(info.min), int(info.max)


@operator("DequantizeLinear", "com.microsoft.DequantizeLinear")
def dequantize_linear(call: Call, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x - zero point) * scale."""
    axis, block = call.get("axis", 1), call.get("block_size", 0)
    given = call.get("output_dtype", 0)
    wanted = dtypes.of(element_type(given)) if given else scale.dtype
    wide = dtypes.int32 if x.dtype.is_int else dtypes.float32
    found = x.cast(wide)
    if zero is not None and not (x.dtype.is_float and x.dtype.bits < 32):
        found = found - along(zero, x, axis, block).cast(wide)
    return (found.cast(dtypes.promote(dtypes.float32, scale.dtype)) * along(scale, x, axis, block)).cast(wanted)


def dynamic_parameters(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point with which all of x fits into uint8; the zero point is a whole float."""
    low, high = x.min().minimum(0.0), x.max().maximum(0.0)
    scale = (high == low).where(1.0, high - low) / 255.0
    return scale, (0.0 - low / scale).clip(0.0, 255.0).round()


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(call: Call, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x as uint8, with the scale and the zero point that fit it."""
    scale, zero = dynamic_parameters(x)
    found = ((x / scale).round() + zero).clip(0.0, 255.0)
    return found.cast(dtypes.uint8), scale, zero.cast(dtypes.uint8)


@operator("MatMulInteger")
def matmul_integer(
    call: Call, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """The matrix product of integers less their zero points, in int32."""
    return less_zero(a, a_zero, a.ndim - 2).matmul(less_zero(b, b_zero))


def _rows(part: Tensor, rows: bool) -> Tensor:
    """A scale for a matrix product: one, or one for each row or column."""
    if part.size == 1:
        return part.reshape(())
    return part.unsqueeze(-1) if rows and part.ndim == 1 else part


def _requantised(exact: Tensor, scale: Tensor, y_scale: Tensor, y_zero: Tensor | None, kind: dtypes.DType) -> Tensor:
    """Integers with a scale as quantised numbers with another."""
    real = exact.cast(dtypes.float32) * (scale.cast(dtypes.float32) / y_scale.cast(dtypes.float32))
    found = rounded(real, kind.numpy if y_zero is None else y_zero.dtype.numpy, y_zero)
    if not isinstance(found, Tensor):
        raise InvalidArgument(f"quantised results of {kind}")
    return found


@operator("QLinearMatMul")
def qlinear_matmul(
    call: Call,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None,
) -> Tensor:
    """A matrix product of quantised numbers, quantised."""
    exact = matmul_integer(call, a, b, a_zero, b_zero)
    return _requantised(exact, _rows(a_scale, True) * _rows(b_scale, False), _rows(y_scale, True), y_zero, a.dtype)


@operator("QLinearConv")
def qlinear_conv(
    call: Call,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None,
    bias: Tensor | None = None,
) -> Tensor:
    """A convolution of quantised numbers, quantised; the bias has the scale of the product."""
    exact = conv(call, less_zero(x, x_zero), less_zero(w, w_zero, 0), bias)
    scale = w_scale.reshape(()) if w_scale.size == 1 else w_scale.reshape(-1, *(1,) * (x.ndim - 2))
    return _requantised(exact, x_scale.reshape(()) * scale, y_scale.reshape(()), y_zero, x.dtype)


# -- operators of ONNX Runtime's quantisation --------------------------------------------------------------------------


@operator("com.microsoft.DynamicQuantizeLSTM")
def dynamic_quantize_lstm(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None,
    lengths: Host | None,
    first: Tensor | None,
    first_cell: Tensor | None,
    peephole: Tensor | None,
    *scales: Value,
) -> tuple[Tensor, ...]:
    """An LSTM with weights of 8 bits (transposed), whose inputs and states are rounded to 8 bits for each product.

    ``scales``: scale and zero point of w, and of r.
    """

    def real(part: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        own, offset = (p.reshape(part.shape[0], 1, -1) for p in (scale, zero))
        whole = (part.cast(dtypes.int32) - offset.cast(dtypes.int32)).cast(dtypes.float32) * own
        return whole.transpose().contiguous()

    def both() -> tuple[Tensor, Tensor]:
        w_scale, w_zero, r_scale, r_zero = map(call.tensor, scales)
        made = real(w, w_scale, w_zero), real(r, r_scale, r_zero)
        made[0].realize(made[1])
        return made

    whole_w, whole_r = call.once("weights", (w, r, *scales), both)
    layer = recurrent.layer_of(call, recurrent.LSTM, as_eight_bits(x), whole_w, whole_r, bias, lengths)
    layer = replace(layer, cells=[replace(cell, seen=as_eight_bits) for cell in layer.cells])
    return recurrent.run_lstm(call, layer, (whole_w, whole_r, bias, peephole), first, first_cell, peephole)


def as_eight_bits(x: Tensor) -> Tensor:
    """The values that are left of x after DynamicQuantizeLinear."""
    scale, zero = dynamic_parameters(x)
    return (((x / scale).round() + zero).clip(0.0, 255.0) - zero) * scale


@operator("com.microsoft.MatMulIntegerToFloat")
def matmul_integer_to_float(
    call: Call,
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """A matrix product of quantised numbers, real."""
    found = matmul_integer(call, a, b, a_zero, b_zero).cast(dtypes.float32) * (
        _rows(a_scale, True) * _rows(b_scale, False)
    )
    return found if bias is None else found + bias


@operator("com.microsoft.DynamicQuantizeMatMul")
def dynamic_quantize_matmul(
    call: Call, a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """A matrix product whose first factor is rounded to 8 bits."""
    quantised, scale, zero = dynamic_quantize_linear(call, a)
    return matmul_integer_to_float(call, quantised, b, scale, b_scale, zero, b_zero, bias)


def _real(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    return less_zero(x, zero).cast(dtypes.float32) * scale.reshape(())


def _requantise(x: Tensor, scale: Tensor, zero: Tensor | None, kind: dtypes.DType) -> Tensor:
    return _requantised(x, Tensor(1.0, device=x.backend), scale.reshape(()), zero, kind)


@operator("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")
def qlinear_binary(
    call: Call,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None = None,
) -> Tensor:
    """A sum or product of quantised numbers, quantised."""
    x, y = _real(a, a_scale, a_zero), _real(b, b_scale, b_zero)
    return _requantise(x + y if call.op_type == "QLinearAdd" else x * y, y_scale, y_zero, a.dtype)


@operator("com.microsoft.QLinearSigmoid", "com.microsoft.QLinearLeakyRelu", "com.microsoft.QLinearGlobalAveragePool")
def qlinear_unary(
    call: Call, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None
) -> Tensor:
    """A function of quantised numbers, quantised."""
    real = _real(x, x_scale, x_zero)
    if call.op_type == "QLinearSigmoid":
        found = real.sigmoid()
    elif call.op_type == "QLinearLeakyRelu":
        found = real.leaky_relu(call.get("alpha", 0.01))
    elif call.get("channels_last"):
        found = real.mean(tuple(range(1, x.ndim - 1)), keepdim=True)
    else:
        found = real.mean(tuple(range(2, x.ndim)), keepdim=True)
    return _requantise(found, y_scale, y_zero, x.dtype)


@operator("com.microsoft.QLinearSoftmax")
def qlinear_softmax(
    call: Call, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None
) -> Tensor:
    """Softmax of quantised numbers, quantised; over all axes from ``axis`` on for models older than version 13."""
    real, axis = _real(x, x_scale, x_zero), call.integer("axis", -1)
    if call.integer("opset", 13) < 13:
        found = real.reshape(math.prod(x.shape[: axis % x.ndim]), -1).softmax(-1).reshape(x.shape)
    else:
        found = real.softmax(axis)
    return _requantise(found, y_scale, y_zero, x.dtype)


@operator("com.microsoft.QLinearConcat")
def qlinear_concat(call: Call, y_scale: Tensor, y_zero: Tensor, *parts: Tensor) -> Tensor:
    """Quantised tensors one after the other, each with its scale and zero point, quantised."""
    if not parts or len(parts) % 3:
        raise InvalidArgument(f"QLinearConcat of {len(parts)} tensors, which should be data, scales and zero points")
    real = [_real(*parts[k : k + 3]) for k in range(0, len(parts), 3)]
    return _requantise(real[0].cat(*real[1:], axis=call.get("axis")), y_scale, y_zero, y_zero.dtype)


@operator("com.microsoft.QLinearAveragePool")
def qlinear_average_pool(
    call: Call, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None
) -> Tensor:
    """AveragePool of quantised numbers, quantised."""
    if call.get("channels_last"):
        raise Unsupported("QLinearAveragePool with channels_last")
    return _requantise(average_pool(call, _real(x, x_scale, x_zero)), y_scale, y_zero, x.dtype)


@operator("com.microsoft.QGemm")
def qgemm(
    call: Call,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
) -> Tensor:
    """Gemm of quantised numbers; quantised if there is a scale for the result, else real."""
    left, right = less_zero(a, a_zero), b
    right = right.transpose() if call.get("transB") else right
    exact = (left.transpose() if call.get("transA") else left).matmul(less_zero(right, b_zero))
    exact = exact if c is None else exact + c
    scale = a_scale.reshape(()) * _rows(b_scale, False) * float(call.get("alpha", 1.0))
    if y_scale is None:
        return exact.cast(dtypes.float32) * scale
    return _requantised(exact, scale, y_scale.reshape(()), y_zero, a.dtype)
