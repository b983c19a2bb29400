"""What the array API tells of element types and of devices: kinds, limits, defaults."""

from __future__ import annotations

from typing import Any, NamedTuple

from amdrv.errors import InvalidArgument
from amdrv.tensor import devices
from amdrv.tensor.core import BadType, Core
from amdrv.tensor.dtypes import ALL, DType, float8_e4m3fn, float32, float64, int64, of

KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",), "signed integer": ("int",), "unsigned integer": ("uint",), "integral": ("int", "uint"),
    "real floating": ("float",), "complex floating": (), "numeric": ("int", "uint", "float"),
}  # fmt: skip


def isdtype(dtype: DType, kind: Any) -> bool:
    """Whether a type is of a kind, or one of several."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, part) for part in kind)
    if isinstance(kind, DType):
        return dtype is kind
    if kind not in KINDS:
        raise InvalidArgument(f"isdtype: {kind!r} is no kind of type; they are {', '.join(KINDS)}")
    return dtype.kind in KINDS[kind]


def _of(about: Any) -> DType:
    return about.dtype if isinstance(about, Core) else of(about)


class Limits(NamedTuple):
    """What a type can hold: of floats with ``eps`` and ``smallest_normal``."""

    bits: int
    max: Any
    min: Any
    dtype: DType
    eps: float = 0.0
    smallest_normal: float = 0.0


def finfo(type: Any, /) -> Limits:
    """The limits of a float type."""
    dtype = _of(type)
    if not dtype.is_float:
        raise BadType(f"finfo of {dtype}, which is no float")
    bias = (1 << dtype.exponent_bits - 1) - 1
    # float8_e4m3fn has numbers where other types have infinities.
    most = 448.0 if dtype is float8_e4m3fn else (2 - 2.0**-dtype.mantissa_bits) * 2.0**bias
    return Limits(dtype.bits, most, -most, dtype, 2.0**-dtype.mantissa_bits, 2.0 ** (1 - bias))


def iinfo(type: Any, /) -> Limits:
    """The limits of an integer type."""
    dtype = _of(type)
    if not dtype.is_int:
        raise BadType(f"iinfo of {dtype}, which is no integer")
    return Limits(dtype.bits, dtype.limits[1], dtype.limits[0], dtype)


class __array_namespace_info__:
    """What the namespace can do."""

    def capabilities(self) -> dict[str, Any]:
        """Shapes may depend on values, which are then computed at once."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": None}

    def default_device(self) -> str:
        """The device of tensors that are made without one."""
        return devices.DEFAULT

    def devices(self) -> list[str]:
        """The names of devices."""
        return [devices.DEFAULT, "CPU"]

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """The types of tensors that are made without one."""
        return {"real floating": float32, "integral": int64, "indexing": int64}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """The standard's types that there are."""
        found = [dtype for dtype in ALL if not dtype.is_float or dtype in (float32, float64)]
        return {dtype.name: dtype for dtype in found if kind is None or isdtype(dtype, kind)}
