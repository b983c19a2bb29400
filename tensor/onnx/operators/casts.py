"""Conversions between element types, those that tensors lack and strings among them."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.onnx.registry import WIDER, Call, Host, Operator, Value, element_type, host, narrow, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)

FLOAT8 = {
    "float8_e4m3fn": 448.0,
    "float8_e4m3fnuz": 240.0,
    "float8_e5m2": 57344.0,
    "float8_e5m2fnuz": 57344.0,
}  # greatest
SCALE = np.dtype(ml_dtypes.float8_e8m0fnu)  # powers of two


@operator("Cast")
def cast(call: Call, x: Value) -> Value:
    return _cast(call, x, element_type(call.get("to")))


@operator("CastLike")
def cast_like(call: Call, x: Value, like: Value) -> Value:
    return _cast(call, x, _type(like))


@operator("BitCast")
def bit_cast(call: Call, x: Value) -> Value:
    wanted = element_type(call.get("to"))
    if isinstance(x, Tensor) and wanted.name in dtypes.BY_NAME:
        numbers = x.cast(dtypes.uint8) if x.dtype is dtypes.bool_ else x
        return numbers.bitcast("uint8").cast(dtypes.bool_) if wanted == np.bool_ else numbers.bitcast(wanted)
    given = host(x)
    if given.dtype.itemsize != wanted.itemsize:
        raise InvalidArgument(f"{given.dtype} and {wanted} have different sizes")
    return given.view(wanted)


def _type(value: Value) -> np.dtype[np.generic]:
    return value.dtype.numpy if isinstance(value, Tensor) else host(value).dtype


def _cast(call: Call, x: Value, wanted: np.dtype[np.generic]) -> Value:
    if _type(x) == wanted:
        return x
    if wanted.kind == "O":
        return np.array([str(part) for part in host(x).reshape(-1)], object).reshape(host(x).shape)
    if not isinstance(x, Tensor) and host(x).dtype.kind == "O":
        return narrow(call.tensor(host(x).astype(np.float64)), wanted)
    if wanted == SCALE:
        return _power_of_two(host(x), call.get("round_mode", "up"), bool(call.get("saturate", 1)))
    if wanted.name in FLOAT8 and call.get("saturate", 1):
        most = FLOAT8[wanted.name]
        return narrow(call.tensor(x).clip(-most, most), wanted)
    if not isinstance(x, Tensor) and (x is None or wanted in WIDER):
        return narrow(x, wanted)
    return narrow(call.tensor(x), wanted)


def _power_of_two(x: Host, mode: str, saturate: bool) -> Host:
    """The exponents of numbers, rounded up, down or to the nearest power; NaN for what is not finite.

    ONNX's reference rounds exact halves up unless the number is below the least normal one.
    """
    if mode not in ("up", "down", "nearest"):
        raise InvalidArgument(f"round_mode {mode!r}")
    bits = x.astype(np.float32).view(np.uint32)
    exponent, fraction = (bits >> 23 & 0xFF).astype(np.int64), bits & 0x7FFFFF
    half = np.where(exponent > 0, 0x400000, 0x400001)
    more = (fraction > 0) if mode == "up" else (fraction >= half) & (mode == "nearest")
    found = exponent + more
    most = 0xFE if saturate else 0xFF
    found = np.where(exponent == 0xFF, 0xFF, np.minimum(found, most)).astype(np.uint8)
    return found.view(SCALE)
