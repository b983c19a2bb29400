"""The safetensors format: a JSON header with names, types, shapes and byte ranges, then the bytes.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from amdrv.errors import MalformedInput
from amdrv.tensor import devices, dtypes
from amdrv.tensor.dtypes import DType
from amdrv.tensor.storage import from_numpy
from amdrv.tensor.tensor import Tensor

HEADER_BYTES_MAX = 100_000_000
NAMES: Mapping[str, DType] = {
    "BOOL": dtypes.bool_, "F8_E4M3": dtypes.float8_e4m3fn, "F8_E5M2": dtypes.float8_e5m2, "BF16": dtypes.bfloat16,
    **{f"I{bits}": dtypes.BY_NAME[f"int{bits}"] for bits in (8, 16, 32, 64)},
    **{f"U{bits}": dtypes.BY_NAME[f"uint{bits}"] for bits in (8, 16, 32, 64)},
    **{f"F{bits}": dtypes.BY_NAME[f"float{bits}"] for bits in (16, 32, 64)},
}  # fmt: skip
_NAME_OF = {dtype: name for name, dtype in NAMES.items()}


def save(
    tensors: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a file."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    parts = []
    at = 0
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor.numpy()).tobytes()
        header[name] = {
            "dtype": _NAME_OF[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(data)],
        }
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = Path(path).with_name(f"{Path(path).name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(parts)
    temporary.replace(path)


def load(path: str | os.PathLike[str], device: object = None) -> dict[str, Tensor]:
    """The tensors of a file, on a device. Raises MalformedInput saying what is wrong with it."""
    size = os.path.getsize(path)
    data = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
    header, start = _header(data, size)
    backend = devices.backend(device)
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            dtype, shape, begin, end = _entry(name, entry, size - start)
            raw = np.array(data[start + begin : start + end])
            found[name] = Tensor._of(from_numpy(backend, raw.view(dtype.numpy).reshape(shape), dtype), backend)
    return found


def _header(data: np.ndarray[tuple[int], np.dtype[np.uint8]], size: int) -> tuple[dict[str, object], int]:
    length = int.from_bytes(data[:8].tobytes(), "little")
    if size < 8 or length > min(size - 8, HEADER_BYTES_MAX):
        raise MalformedInput(f"safetensors: a header of {length} bytes in a file of {size}")
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
    except (ValueError, RecursionError) as error:
        raise MalformedInput(f"safetensors: the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise MalformedInput("safetensors: the header is no JSON object")
    return header, 8 + length


def _entry(name: str, entry: object, available: int) -> tuple[DType, tuple[int, ...], int, int]:
    """Type, shape and byte range of a tensor, checked against the file."""
    try:
        dtype = NAMES[entry["dtype"]]  # type: ignore[index]
        shape = tuple(entry["shape"])  # type: ignore[index]
        begin, end = entry["data_offsets"]  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        raise MalformedInput(f"safetensors: tensor {name!r} has no known dtype, shape and data_offsets") from None
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise MalformedInput(f"safetensors: tensor {name!r} has numbers that are none: {shape}, {begin}, {end}")
    if end > available or end - begin != math.prod(shape) * dtype.size_bytes:
        raise MalformedInput(f"safetensors: tensor {name!r}: bytes {begin} to {end} of {available} for {dtype}{shape}")
    return dtype, shape, begin, end
