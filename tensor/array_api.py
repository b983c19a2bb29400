"""The array API's functions on tensors, under the standard's names: what ``tensor.__array_namespace__()`` returns.

Most are methods under other names or with other arguments: the table ``FUNCTIONS`` says which. There are no complex
numbers, and so no ``fft``; of linear algebra there is what the standard wants outside ``linalg``.
"""

from __future__ import annotations

import builtins
import math
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor import devices, dtypes
from amdrv.tensor import elementwise as _elementwise
from amdrv.tensor.core import BadType, Core, check_axes
from amdrv.tensor.dtypes import DType
from amdrv.tensor.tables.array_names import BINARY, KINDS, REDUCTIONS, UNARY
from amdrv.tensor.tensor import Tensor

__array_api_version__ = "2024.12"
VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")
e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None
bool = dtypes.bool_
int8, int16, int32, int64 = dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64
uint8, uint16, uint32, uint64 = dtypes.uint8, dtypes.uint16, dtypes.uint32, dtypes.uint64
float16, bfloat16, float32, float64 = dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64


# -- what takes more than a line ---------------------------------------------------------------------------------------


def asarray(obj: Any, /, *, dtype: DType | None = None, device: Any = None, copy: Any = None) -> Tensor:
    """A tensor with the values of anything that has some. Raises InvalidArgument when that needs a forbidden copy."""
    if isinstance(obj, Tensor) and dtype in (None, obj.dtype) and devices.same(device, obj.backend) and not copy:
        return obj
    if copy is False:
        raise InvalidArgument(f"asarray: values of {type(obj).__name__} have to be copied")
    return Tensor(obj, device=device, dtype=dtype)


def from_dlpack(x: Any, /, *, device: Any = None, copy: Any = None) -> Tensor:
    """A tensor with the values of another library's array. Raises BufferError when they must not be copied."""
    if isinstance(x, Tensor) and devices.same(device, x.backend):
        return x._new(x.node)
    if copy is False:
        raise BufferError("from_dlpack: values have to be copied")
    return x.to(device) if isinstance(x, Tensor) else Tensor(np.from_dlpack(x), device=device)


def astype(x: Tensor, dtype: DType, /, *, copy: builtins.bool = True, device: Any = None) -> Tensor:
    """The values in another type, on another device if one is given."""
    same = dtype is x.dtype and devices.same(device, x.backend) and not copy
    return x if same else x._new(x.node).to(device or x.backend).cast(dtype)


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """Arrays that together give the coordinates of a grid."""
    own = list(range(len(arrays)))  # the axis along which each varies
    if indexing == "xy" and len(arrays) > 1:
        own[:2] = 1, 0
    shape = [arrays[own.index(axis)].size for axis in range(len(arrays))]
    thin = ([-1 if axis == mine else 1 for axis in range(len(arrays))] for mine in own)
    return [part.reshape(form).expand(shape) for part, form in zip(arrays, thin, strict=True)]


def isdtype(dtype: DType, kind: Any) -> builtins.bool:
    """Whether a type is of a kind, or one of several."""
    if isinstance(kind, tuple):
        return builtins.any(isdtype(dtype, part) for part in kind)
    if isinstance(kind, DType):
        return dtype is kind
    if kind not in KINDS:
        raise InvalidArgument(f"isdtype: {kind!r} is no kind of type; they are {', '.join(KINDS)}")
    return dtype.kind in KINDS[kind]


def result_type(*arrays_and_dtypes: Any) -> DType:
    """What the types of several arrays are promoted to; Python scalars only decide the kind."""
    found: DType | None = None
    for value in sorted(arrays_and_dtypes, key=lambda value: isinstance(value, (builtins.bool, int, float))):
        if isinstance(value, (builtins.bool, int, float)) and found is not None:
            found = dtypes.promote_scalar(found, value)
        else:
            own = value.dtype if isinstance(value, Core) else dtypes.of(value)
            found = own if found is None else dtypes.promote(found, own)
    if found is None:
        raise InvalidArgument("result_type without an array or a type")
    return found


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
    dtype = result_type(type)
    if not dtype.is_float:
        raise BadType(f"finfo of {dtype}, which is no float")
    bias = (1 << dtype.exponent_bits - 1) - 1
    # float8_e4m3fn has numbers where other types have infinities.
    most = 448.0 if dtype is dtypes.float8_e4m3fn else (2 - 2.0**-dtype.mantissa_bits) * 2.0**bias
    return Limits(dtype.bits, most, -most, dtype, 2.0**-dtype.mantissa_bits, 2.0 ** (1 - bias))


def iinfo(type: Any, /) -> Limits:
    """The limits of an integer type."""
    dtype = result_type(type)
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
        found = [dtype for dtype in dtypes.ALL if not dtype.is_float or dtype in (float32, float64)]
        return {dtype.name: dtype for dtype in found if kind is None or isdtype(dtype, kind)}


def imag(x: Tensor, /) -> Tensor:
    """There are only real numbers. Raises BadType."""
    raise BadType(f"imag of {x.dtype}, which is no complex type")


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """For each index the element there along an axis; the other axes go together."""
    (at,) = check_axes((axis,), x.ndim, "take_along_axis")
    thin = [tuple(1 if k == at else n for k, n in enumerate(part.shape)) for part in (x, indices)]
    common = _elementwise.broadcast_shape("take_along_axis", *thin)
    a, b = ((*common[:at], part.shape[at], *common[at + 1 :]) for part in (x, indices))
    return x.expand(a).gather(at, indices.expand(b))


def diff(x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Tensor:
    """Differences of neighbours along an axis, n times."""
    (at,) = check_axes((axis,), x.ndim, "diff")
    keep = (slice(None),) * at
    found, *rest = (part for part in (prepend, x, append) if part is not None)
    found = found.cat(*rest, axis=at)
    for _ in range(n):
        found = found.slice(*keep, slice(1, None)) - found.slice(*keep, slice(0, -1))
    return found


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """All in the shape that they have together."""
    shape = _elementwise.broadcast_shape("broadcast_arrays", *(part.shape for part in arrays))
    return [part.expand(shape) for part in arrays]


def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """Arrays one after the other, flat if there is no axis."""
    first, *rest = [part.flatten() for part in arrays] if axis is None else arrays
    return first.cat(*rest, axis=axis or 0)


def moveaxis(x: Tensor, source: Any, destination: Any, /) -> Tensor:
    """Axes at other places."""
    sources, places = (check_axes(axes, x.ndim, "moveaxis") for axes in (source, destination))
    order = [axis for axis in range(x.ndim) if axis not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return x.permute(order)


def repeat(x: Tensor, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element several times. Different counts are looked at, because the shape depends on them."""
    line, (at,) = (x.flatten(), (0,)) if axis is None else (x, check_axes((axis,), x.ndim, "repeat"))
    if isinstance(repeats, int):
        wide = line.unsqueeze(at + 1)
        return wide.expand((*line.shape[: at + 1], repeats, *line.shape[at + 1 :])).flatten(at, at + 1)
    places = np.repeat(np.arange(line.shape[at]), np.broadcast_to(repeats.numpy(), (line.shape[at],)))
    return line.take(Tensor(places, device=x.backend), at)


def roll(x: Tensor, /, shift: Any, *, axis: Any = None) -> Tensor:
    """Elements moved along axes; along the flat array without one."""
    if axis is None:
        return x.flatten().roll(shift, 0).reshape(x.shape)
    axes = (axis,) if isinstance(axis, int) else axis
    for by, at in zip([shift] * len(axes) if isinstance(shift, int) else shift, axes, strict=True):
        x = x.roll(by, at)
    return x


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The sum of products along an axis, which both have."""
    if x1.shape[axis : axis + 1 or None] != x2.shape[axis : axis + 1 or None]:
        raise InvalidArgument(f"vecdot along axis {axis}: shapes {x1.shape} and {x2.shape} do not fit")
    product = x1 * x2
    return product.sum(axis, dtype=product.dtype)


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: Any = 2) -> Tensor:
    """Products summed over pairs of axes: the last and first few, or given ones."""
    pairs = (range(x1.ndim - axes, x1.ndim), range(axes)) if isinstance(axes, int) else axes
    left, right = (check_axes(tuple(own), part.ndim, "tensordot") for own, part in zip(pairs, (x1, x2), strict=True))
    if [x1.shape[axis] for axis in left] != [x2.shape[axis] for axis in right]:
        raise InvalidArgument(f"tensordot over axes {axes}: shapes {x1.shape} and {x2.shape} do not fit")
    a = x1.permute([*(axis for axis in range(x1.ndim) if axis not in left), *left])
    b = x2.permute([*right, *(axis for axis in range(x2.ndim) if axis not in right)])
    rows, columns = a.shape[: x1.ndim - len(left)], b.shape[len(right) :]
    count = math.prod(b.shape[: len(right)])
    return a.reshape(math.prod(rows), count).matmul(b.reshape(count, math.prod(columns))).reshape(*rows, *columns)


def _one_axis(what: str, x: Tensor, axis: int | None) -> int:
    """The axis, which may be left out where there is only one."""
    if axis is None and x.ndim != 1:
        raise InvalidArgument(f"{what} of {x.shape} wants an axis")
    return check_axes((axis or 0,), x.ndim, what)[0]


def _so_far(op: str, initial: int, x: Tensor, axis: int | None, dtype: Any, with_initial: builtins.bool) -> Tensor:
    at = _one_axis(op, x, axis)
    found: Tensor = getattr(x, op)(at, dtype)
    return found._padded_along(at, 1, 0, initial) if with_initial else found


Unique = namedtuple("Unique", ("values", "indices", "inverse_indices", "counts"))
UniqueCounts = namedtuple("UniqueCounts", ("values", "counts"))
UniqueInverse = namedtuple("UniqueInverse", ("values", "inverse_indices"))


def unique_all(x: Tensor, /) -> Any:
    """The different elements, where each was first, which of them each element is, and how often each was.

    Computed at once, because their number is a shape. Each NaN is different.
    """
    values, first, which, counts = np.unique(x.flatten().numpy(), True, True, True, equal_nan=False)
    places = (Tensor(part.astype(np.int64), device=x.backend) for part in (first, which.reshape(x.shape), counts))
    return Unique(Tensor(values, device=x.backend), *places)


# -- what is a method --------------------------------------------------------------------------------------------------


def _unary(name: str) -> Callable[..., Any]:
    return lambda x, /: getattr(x, name)()


def _binary(name: str) -> Callable[..., Any]:
    return lambda x1, x2, /: getattr(x1 if isinstance(x1, Core) else x2._operand(x1), name)(x2)


def _reduction(name: str) -> Callable[..., Any]:
    return lambda x, /, *, axis=None, keepdims=False: getattr(x, name)(axis, keepdim=keepdims)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{name: _unary(method or name) for name, method in UNARY.items()},
    **{name: _binary(method or name) for name, method in BINARY.items()},
    **{name: _reduction(name) for name in REDUCTIONS},
    "arange": lambda start, /, stop=None, step=1, *, dtype=None, device=None: Tensor.arange(
        start, stop, step, dtype, device
    ),
    "linspace": lambda start, stop, /, num, *, dtype=None, device=None, endpoint=True: Tensor.linspace(
        start, stop, num, dtype or float32, device, endpoint
    ),
    "eye": lambda n_rows, n_cols=None, /, *, k=0, dtype=None, device=None: Tensor.eye(
        n_rows, n_cols, dtype or float32, device, k
    ),
    "full": lambda shape, fill_value, *, dtype=None, device=None: Tensor.full(shape, fill_value, dtype, device),
    "zeros": lambda shape, *, dtype=None, device=None: Tensor.full(shape, 0, dtype or float32, device),
    "empty": lambda shape, *, dtype=None, device=None: Tensor.full(shape, 0, dtype or float32, device),
    "ones": lambda shape, *, dtype=None, device=None: Tensor.full(shape, 1, dtype or float32, device),
    "full_like": lambda x, /, fill_value, *, dtype=None, device=None: x.full_like(fill_value, dtype, device),
    "zeros_like": lambda x, /, *, dtype=None, device=None: x.full_like(0, dtype, device),
    "empty_like": lambda x, /, *, dtype=None, device=None: x.full_like(0, dtype, device),
    "ones_like": lambda x, /, *, dtype=None, device=None: x.full_like(1, dtype, device),
    "tril": lambda x, /, *, k=0: x.tril(k),
    "triu": lambda x, /, *, k=0: x.triu(k),
    "can_cast": lambda from_, to, /: result_type(from_, to) is to,
    "clip": lambda x, /, min=None, max=None: x.clip(min, max).cast(x.dtype),
    "where": lambda condition, x1, x2, /: condition.where(x1, x2),
    "take": lambda x, indices, /, *, axis=None: x.take(indices, _one_axis("take", x, axis)),
    "broadcast_to": lambda x, /, shape: x.expand(tuple(shape)),
    "stack": lambda arrays, /, *, axis=0: arrays[0].stack(*arrays[1:], axis=axis),
    "unstack": lambda x, /, *, axis=0: tuple(part.squeeze(axis) for part in x.split(1, axis)),
    "expand_dims": lambda x, /, axis: x.unsqueeze(axis),
    "flip": lambda x, /, *, axis=None: x.flip(axis),
    "permute_dims": lambda x, /, axes: x.permute(tuple(axes)),
    "reshape": lambda x, /, shape, *, copy=None: x.reshape(tuple(shape)),
    "squeeze": lambda x, /, axis: x.squeeze(axis),
    "tile": lambda x, repetitions, /: x.repeat(tuple(repetitions)),
    "matrix_transpose": lambda x, /: x.mT,
    "argsort": lambda x, /, *, axis=-1, descending=False, stable=True: x.argsort(axis, descending),
    "sort": lambda x, /, *, axis=-1, descending=False, stable=True: x.sort(axis, descending),
    "searchsorted": lambda x1, x2, /, *, side="left", sorter=None: x1.searchsorted(x2, side, sorter),
    "count_nonzero": lambda x, /, *, axis=None, keepdims=False: x.cast(bool).sum(axis, keepdims),
    "sum": lambda x, /, *, axis=None, dtype=None, keepdims=False: x.sum(axis, keepdims, dtype),
    "prod": lambda x, /, *, axis=None, dtype=None, keepdims=False: x.prod(axis, keepdims, dtype),
    "var": lambda x, /, *, axis=None, correction=0.0, keepdims=False: x.var(axis, keepdims, correction),
    "std": lambda x, /, *, axis=None, correction=0.0, keepdims=False: x.std(axis, keepdims, correction),
    "cumulative_sum": lambda x, /, *, axis=None, dtype=None, include_initial=False: _so_far(
        "cumsum", 0, x, axis, dtype, include_initial
    ),
    "cumulative_prod": lambda x, /, *, axis=None, dtype=None, include_initial=False: _so_far(
        "cumprod", 1, x, axis, dtype, include_initial
    ),
    "real": lambda x, /: +x,
    "conj": lambda x, /: +x,
    "unique_counts": lambda x, /: UniqueCounts(unique_all(x).values, unique_all(x).counts),
    "unique_inverse": lambda x, /: UniqueInverse(unique_all(x).values, unique_all(x).inverse_indices),
    "unique_values": lambda x, /: unique_all(x).values,
}
for _name, _function in FUNCTIONS.items():
    _function.__name__, _function.__doc__ = _name, f"``{_name}`` of the array API."
globals().update(FUNCTIONS)
