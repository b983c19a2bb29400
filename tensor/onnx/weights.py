"""Values that are stored in a model: its tensors, in the file or beside it, as NumPy arrays.

Sizes are compared with the bytes there are before anything is allocated, and files beside the model stay in its folder.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from amdrv.errors import MalformedInput
from amdrv.tensor.onnx.registry import Host, Value, element_type, tensor
from amdrv.tensor.storage import Backend

ELEMENTS_MAX = 1 << 40  # of any value: what no memory holds is a mistake in the file
SPARSE_ELEMENTS_MAX = 1 << 28  # sparse tensors are made dense
TABLE_ELEMENTS_MAX = 1 << 27  # of what an operator makes in host memory because its numbers say so
HOST_ELEMENTS_MAX = 1 << 12  # integers up to here may be shapes and indices, and stay where Python sees them


def load(proto: TensorProto, folder: Path | None) -> Host:
    """The values of a stored tensor. ``folder`` is the model's, for values in files of their own.

    Raises MalformedInput when they are not as many as the shape says, or when their file is outside the folder.
    """
    what = f"tensor {proto.name!r} {list(proto.dims)}"
    if any(n < 0 for n in proto.dims) or math.prod(proto.dims) > ELEMENTS_MAX:
        raise MalformedInput(f"{what}: no array has this shape")
    try:
        if proto.data_location == TensorProto.EXTERNAL:
            return _beside(proto, folder, what)
        found = np.asarray(numpy_helper.to_array(proto))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        raise MalformedInput(f"{what}: {error}") from None
    return found.astype(object) if found.dtype.kind in "OSU" else found


def _beside(proto: TensorProto, folder: Path | None, what: str) -> Host:
    """Values in a file beside the model, mapped and not read before they are needed."""
    entries = {entry.key: entry.value for entry in proto.external_data}
    if folder is None:
        raise MalformedInput(f"{what} is in the file {entries.get('location')!r}; load the model by its path")
    path = (folder / entries["location"]).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise MalformedInput(f"{what}: {entries['location']!r} is no file in the model's folder")
    dtype = element_type(proto.data_type)
    count, offset = math.prod(proto.dims), int(entries.get("offset", 0))
    packed = numpy_helper.to_array(onnx.helper.make_tensor("", proto.data_type, [0], b"", raw=True)).dtype != dtype
    size = math.ceil(count * _bits(proto.data_type, dtype) / 8)
    if packed or offset < 0 or offset + size > path.stat().st_size or int(entries.get("length", size)) != size:
        raise MalformedInput(f"{what}: {size} bytes at {offset} do not fit {path.name}, {path.stat().st_size} long")
    if _bits(proto.data_type, dtype) < 8:
        with path.open("rb") as file:
            file.seek(offset)
            raw = onnx.helper.make_tensor("", proto.data_type, proto.dims, file.read(size), raw=True)
        return np.asarray(numpy_helper.to_array(raw))
    if not count:
        return np.zeros(tuple(proto.dims), dtype)
    return np.memmap(path, dtype, "r", offset, tuple(proto.dims))


def _bits(number: int, dtype: np.dtype[Any]) -> int:
    """Bits of an element in a file: small integers are packed."""
    name = TensorProto.DataType.Name(number)
    return 4 if name.endswith(("INT4", "E2M1")) else 2 if name.endswith("INT2") else 8 * dtype.itemsize


def load_sparse(proto: onnx.SparseTensorProto, folder: Path | None) -> Host:
    """A sparse tensor with its zeros. Raises MalformedInput for one that is too large or has positions outside."""
    shape = tuple(proto.dims)
    if any(n < 0 for n in shape) or math.prod(shape) > SPARSE_ELEMENTS_MAX:
        raise MalformedInput(f"sparse tensor {proto.values.name!r}: shape {list(shape)}")
    values, at = load(proto.values, folder), load(proto.indices, folder)
    flat = at if at.ndim == 1 else np.ravel_multi_index(tuple(at.T), shape, mode="clip")
    if flat.size != values.size or (flat.size and not 0 <= flat.min() <= flat.max() < math.prod(shape)):
        raise MalformedInput(f"sparse tensor {proto.values.name!r}: positions are not all inside {list(shape)}")
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[flat] = values
    return dense.reshape(shape)


def constant(array: Host, device: Backend) -> Value:
    """A stored value as operators get it: few integers and single numbers stay host values; others go to the device."""
    small = array.size == 1 or (array.dtype.kind in "biu" and array.size <= HOST_ELEMENTS_MAX)
    if small or array.dtype.kind not in "biuf":
        return np.asarray(array)
    return tensor(array, device)
