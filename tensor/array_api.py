"""The array API's functions on tensors, under the standard's names: what ``tensor.__array_namespace__()`` returns.

Most are methods under other names or with other arguments: the table ``FUNCTIONS`` says which. There are no complex
numbers, and so no ``fft``.
"""

from __future__ import annotations

import builtins
import math
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor import devices, dtypes
from amdrv.tensor import elementwise as _elementwise
from amdrv.tensor import linalg as linalg
from amdrv.tensor.core import BadType, Core, check_axes
from amdrv.tensor.dtypes import DType
from amdrv.tensor.linalg import tensordot as tensordot
from amdrv.tensor.linalg import vecdot as vecdot
from amdrv.tensor.tables.array_methods import METHODS
from amdrv.tensor.tables.array_types import __array_namespace_info__ as __array_namespace_info__
from amdrv.tensor.tables.array_types import finfo as finfo
from amdrv.tensor.tables.array_types import iinfo as iinfo
from amdrv.tensor.tables.array_types import isdtype as isdtype
from amdrv.tensor.tensor import Tensor

__array_api_version__ = "2024.12"
VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")
e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None
bool = dtypes.bool_
int8, int16, int32, int64 = dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64
uint8, uint16, uint32, uint64 = dtypes.uint8, dtypes.uint16, dtypes.uint32, dtypes.uint64
float16, bfloat16, float32, float64 = dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64


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
    if not arrays:
        raise InvalidArgument("concat of no arrays")
    first, *rest = [part.flatten() for part in arrays] if axis is None else arrays
    return first.cat(*rest, axis=axis or 0)


def moveaxis(x: Tensor, source: Any, destination: Any, /) -> Tensor:
    """Axes at other places."""
    sources, places = (check_axes(axes, x.ndim, "moveaxis") for axes in (source, destination))
    order = [axis for axis in range(x.ndim) if axis not in sources]
    if len(sources) != len(places):
        raise InvalidArgument(f"moveaxis of {x.shape}: from {source} to {destination}")
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return x.permute(order)


def repeat(x: Tensor, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element several times. Different counts are looked at, because the shape depends on them."""
    line, (at,) = (x.flatten(), (0,)) if axis is None else (x, check_axes((axis,), x.ndim, "repeat"))
    least, shape = (repeats, ()) if isinstance(repeats, int) else (0, repeats.shape)
    if least < 0 or (shape not in ((), (1,), (line.shape[at],))):
        raise InvalidArgument(f"repeat of {x.shape} along {axis}: {repeats}")
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
    shifts = [shift] * len(axes) if isinstance(shift, int) else shift
    if len(shifts) != len(axes):
        raise InvalidArgument(f"roll of {x.shape}: by {shift} along {axis}")
    for by, at in zip(shifts, axes, strict=True):
        x = x.roll(by, at)
    return x


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


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **METHODS,
    "can_cast": lambda from_, to, /: result_type(from_, to) is to,
    "take": lambda x, indices, /, *, axis=None: x.take(indices, _one_axis("take", x, axis)),
    "count_nonzero": lambda x, /, *, axis=None, keepdims=False: x.cast(bool).sum(axis, keepdims),
    "cumulative_sum": lambda x, /, *, axis=None, dtype=None, include_initial=False: _so_far(
        "cumsum", 0, x, axis, dtype, include_initial
    ),
    "cumulative_prod": lambda x, /, *, axis=None, dtype=None, include_initial=False: _so_far(
        "cumprod", 1, x, axis, dtype, include_initial
    ),
    "unique_counts": lambda x, /: UniqueCounts(unique_all(x).values, unique_all(x).counts),
    "unique_inverse": lambda x, /: UniqueInverse(unique_all(x).values, unique_all(x).inverse_indices),
    "unique_values": lambda x, /: unique_all(x).values,
}
for _name, _function in FUNCTIONS.items():
    _function.__name__, _function.__doc__ = _name, f"``{_name}`` of the array API."
globals().update(FUNCTIONS)
