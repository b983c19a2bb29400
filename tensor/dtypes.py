"""Element types: what a tensor stores, what arithmetic on it computes in, and how two types meet."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from amdrv.errors import InvalidArgument, Unsupported

Scalar = bool | int | float


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type; there is one object of each, so types compare by identity.

    ``exponent_bits`` and ``mantissa_bits`` describe floats. ``index`` is the type of positions in a buffer: its width
    is decided when code is made for a kernel.
    """

    name: str
    kind: str  # "bool", "uint", "int", "float", "index"
    bits: int
    exponent_bits: int = 0
    mantissa_bits: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of one element in memory."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def compute(self) -> DType:
        """What arithmetic on values of this type is done in: floats narrower than 32 bits widen to float32."""
        return float32 if self.is_float and self.bits < 32 else self

    @property
    def limits(self) -> tuple[Scalar, Scalar]:
        """The least and the greatest value; infinities for floats."""
        if self.is_float:
            return float("-inf"), float("inf")
        if self.kind == "bool":
            return False, True
        if self.kind == "uint":
            return 0, (1 << self.bits) - 1
        return -(1 << self.bits - 1), (1 << self.bits - 1) - 1

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy type with the same bytes. Raises Unsupported where it needs ml_dtypes, which is absent."""
        if self.name not in _EXTENDED:
            return np.dtype(self.name)
        try:
            import ml_dtypes
        except ImportError:
            raise Unsupported(f"NumPy has no {self.name}; it needs the package ml_dtypes") from None
        found: np.dtype[np.generic] = np.dtype(getattr(ml_dtypes, self.name))
        return found

    def convert(self, value: Scalar) -> Scalar:
        """A Python scalar as this type holds it: integers wrap, anything not zero is true."""
        if self.is_float:
            return float(value)
        if self.kind == "bool":
            return bool(value)
        if isinstance(value, float) and value != value:
            return 0
        try:
            number = int(value)
        except OverflowError:
            return self.limits[value > 0]
        wrapped = number & ((1 << self.bits) - 1)
        return wrapped - (1 << self.bits) if self.kind != "uint" and wrapped >> self.bits - 1 else wrapped

    def __repr__(self) -> str:
        return self.name


bool_ = DType("bool", "bool", 8)
uint8, uint16, uint32, uint64 = (DType(f"uint{bits}", "uint", bits) for bits in (8, 16, 32, 64))
int8, int16, int32, int64 = (DType(f"int{bits}", "int", bits) for bits in (8, 16, 32, 64))
float8_e4m3fn = DType("float8_e4m3fn", "float", 8, 4, 3)
float8_e5m2 = DType("float8_e5m2", "float", 8, 5, 2)
float16 = DType("float16", "float", 16, 5, 10)
bfloat16 = DType("bfloat16", "float", 16, 8, 7)
float32 = DType("float32", "float", 32, 8, 23)
float64 = DType("float64", "float", 64, 11, 52)
index = DType("index", "index", 64)

ALL = (
    *(bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64),
    *(float8_e4m3fn, float8_e5m2, float16, bfloat16, float32, float64),
)
BY_NAME = {dtype.name: dtype for dtype in ALL}
_EXTENDED = {"float8_e4m3fn", "float8_e5m2", "bfloat16"}
_PYTHON_TYPES: dict[object, DType] = {bool: bool_, int: int64, float: float32}


def of(spec: object) -> DType:
    """The type that a DType, a name, a Python type or a NumPy type means. Raises InvalidArgument."""
    if isinstance(spec, DType):
        return spec
    if isinstance(spec, type) and spec in _PYTHON_TYPES:
        return _PYTHON_TYPES[spec]
    name = spec
    if not isinstance(spec, str):
        try:
            name = np.dtype(spec).name  # type: ignore[call-overload]
        except TypeError:
            name = None
    if not isinstance(name, str) or name not in BY_NAME:
        raise InvalidArgument(f"{spec!r} is no element type of tensors; they are {', '.join(BY_NAME)}")
    return BY_NAME[name]


def of_scalar(value: Scalar) -> DType:
    """The type of a tensor made from one Python or NumPy scalar."""
    return of(type(value))


@functools.cache
def promote(a: DType, b: DType) -> DType:
    """What an operation on two types results in: NumPy's rules; an integer does not widen a narrow float."""
    if a is b:
        return a
    if a.name not in _EXTENDED and b.name not in _EXTENDED:
        return BY_NAME[np.promote_types(a.name, b.name).name]
    if not a.is_float or not b.is_float:
        return a if a.is_float else b
    if a.bits == b.bits:  # neither holds the other's values
        return float32
    return a if a.bits > b.bits else b


def floating(dtype: DType) -> DType:
    """The type in which functions of floats take values of a type."""
    return dtype if dtype.is_float else float64 if dtype.is_int and dtype.bits > 32 else float32


def promote_scalar(dtype: DType, value: Scalar) -> DType:
    """The type of an operation between a tensor and a Python scalar: the scalar only decides the kind."""
    order = {"bool": 0, "uint": 1, "int": 1, "float": 2}
    wanted = 0 if isinstance(value, bool) else 1 if isinstance(value, int) else 2
    if order[dtype.kind] >= wanted:
        return dtype
    return int64 if wanted == 1 else float64 if dtype.bits > 32 else float32
