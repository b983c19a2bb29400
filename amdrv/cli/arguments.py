"""Kernel arguments as a person types them: ``i32:5``, ``buf:f32:1024=iota``, ``file:weights.npy``."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument

TYPES: Mapping[str, type[np.generic]] = {
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
    "f16": np.float16, "f32": np.float32, "f64": np.float64,
}  # fmt: skip
MAX_BUFFER_BYTES = 1 << 34

GRAMMAR = """\
TYPE:VALUE               a number: i8 i16 i32 i64 u8 u16 u32 u64 f16 f32 f64
buf:TYPE:SHAPE[=FILL]    a buffer, such as buf:f32:1024 or buf:f32:64x64=iota
out:TYPE:SHAPE[=FILL]    a buffer that is shown afterwards
file:PATH                a buffer with a file's bytes, or the array of a .npy file
ptr:ADDRESS              a device address as it is; ptr:null for none
bytes:HEX                bytes passed by value
FILL is zeros (the default), ones, iota, random or a number."""


@dataclass(frozen=True, slots=True)
class KernelArgument:
    """One argument: a value to pass as it is, or the first contents of a buffer."""

    text: str  # as it was typed
    value: np.generic | int | bytes | None = None
    contents: NDArray[Any] | None = None
    shown: bool = False  # print the buffer afterwards

    @property
    def is_buffer(self) -> bool:
        """Whether it lives in device memory."""
        return self.contents is not None


def parse(text: str, seed: int = 0) -> KernelArgument:
    """One argument from its text. Raises InvalidArgument that repeats the text and says what is wrong.

    ``seed`` starts the generator of ``random``; the same seed gives the same numbers.
    """
    kind, separator, rest = text.partition(":")
    if not separator or not rest:
        raise InvalidArgument(f"argument {text!r} is not of the form KIND:VALUE, such as i32:5 or buf:f32:1024")
    if kind in TYPES:
        return KernelArgument(text, value=_number(text, kind, rest))
    reader = _KINDS.get(kind)
    if reader is None:
        known = ", ".join((*TYPES, *_KINDS))
        raise InvalidArgument(f"argument {text!r}: there is no kind {kind!r}; kinds are {known}")
    return reader(text, rest, seed)


def parse_dims(text: str, what: str) -> tuple[int, ...]:
    """One to three positive integers: "64", "8x8", "8,8,4". Raises InvalidArgument."""
    words = re.split(r"[x,]", text)
    try:
        dims = tuple(int(word, 0) for word in words)
    except ValueError:
        dims = ()
    if not 1 <= len(dims) <= 3 or any(dim < 1 for dim in dims):
        raise InvalidArgument(f"{what} {text!r} is not 1 to 3 positive integers, such as 64 or 8x8")
    return dims


def parse_save(text: str, arguments: list[KernelArgument]) -> tuple[int, Path]:
    """(argument index, file) of ``--save INDEX=PATH``. Raises InvalidArgument unless the index is that of a buffer."""
    index_text, separator, path = text.partition("=")
    if not separator or not path or not index_text.isdecimal():
        raise InvalidArgument(f"--save {text!r} is not of the form INDEX=PATH")
    index = int(index_text)
    if index >= len(arguments) or not arguments[index].is_buffer:
        buffers = ", ".join(str(i) for i, argument in enumerate(arguments) if argument.is_buffer) or "none"
        raise InvalidArgument(f"--save {text!r}: argument {index} is not a buffer; buffers are {buffers}")
    return index, Path(path)


def save(path: Path, values: NDArray[Any]) -> None:
    """Write a buffer: as an array when the name ends in .npy, as raw bytes otherwise."""
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        path.write_bytes(values.tobytes())


def _number(text: str, kind: str, word: str) -> np.generic:
    dtype = np.dtype(TYPES[kind])
    if dtype.kind == "f":
        try:
            value = float(word)
        except ValueError:
            raise InvalidArgument(f"argument {text!r}: {word!r} is not a number") from None
        with np.errstate(over="ignore"):
            made = TYPES[kind](value)
        if math.isfinite(value) and not np.isfinite(made):
            raise InvalidArgument(f"argument {text!r}: {word} is too large for {kind}")
        return made
    try:
        integer = int(word, 0)
    except ValueError:
        raise InvalidArgument(f"argument {text!r}: {word!r} is not an integer") from None
    limits = np.iinfo(dtype)
    if not limits.min <= integer <= limits.max:
        reach = f"{kind} reaches from {limits.min} to {limits.max}"
        raise InvalidArgument(f"argument {text!r}: {word} does not fit; {reach}")
    return TYPES[kind](integer)


def _buffer(text: str, rest: str, seed: int) -> KernelArgument:
    kind, separator, tail = rest.partition(":")
    if not separator or kind not in TYPES:
        raise InvalidArgument(f"argument {text!r}: a buffer is buf:TYPE:SHAPE with a type of {', '.join(TYPES)}")
    shape_text, _, fill = tail.partition("=")
    try:
        shape = tuple(int(word, 0) for word in shape_text.split("x"))
    except ValueError:
        shape = ()
    if not shape or any(size < 1 for size in shape):
        raise InvalidArgument(f"argument {text!r}: {shape_text!r} is not a shape, such as 1024 or 64x64")
    dtype = np.dtype(TYPES[kind])
    if math.prod(shape) * dtype.itemsize > MAX_BUFFER_BYTES:
        raise InvalidArgument(f"argument {text!r} has more than {MAX_BUFFER_BYTES} bytes")
    return KernelArgument(text, contents=_filled(text, kind, shape, fill, seed), shown=text.startswith("out:"))


def _filled(text: str, kind: str, shape: tuple[int, ...], fill: str, seed: int) -> NDArray[Any]:
    dtype = np.dtype(TYPES[kind])
    if fill in ("", "zeros"):
        return np.zeros(shape, dtype)
    if fill == "ones":
        return np.ones(shape, dtype)
    if fill == "iota":
        return np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    if fill == "random":
        generator = np.random.default_rng(seed)
        if dtype.kind == "f":
            return generator.random(shape).astype(dtype)
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return np.full(shape, _number(text, kind, fill), dtype)


def _file(text: str, rest: str, seed: int) -> KernelArgument:
    path = Path(rest)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        raise InvalidArgument(f"argument {text!r}: {getattr(error, 'strerror', None) or error}") from None
    contents: NDArray[Any] = np.frombuffer(data, np.uint8)
    if path.suffix == ".npy":
        try:
            contents = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, MemoryError, OverflowError, SyntaxError) as error:
            raise InvalidArgument(f"argument {text!r} is not a usable .npy file: {error}") from None
    if not contents.nbytes:
        raise InvalidArgument(f"argument {text!r}: the file is empty")
    return KernelArgument(text, contents=contents)


def _address(text: str, rest: str, seed: int) -> KernelArgument:
    if rest == "null":
        return KernelArgument(text, value=0)
    try:
        address = int(rest, 0)
    except ValueError:
        raise InvalidArgument(f"argument {text!r}: {rest!r} is not an address") from None
    if not 0 <= address < 1 << 64:
        raise InvalidArgument(f"argument {text!r}: an address has 64 bits")
    return KernelArgument(text, value=address)


def _bytes(text: str, rest: str, seed: int) -> KernelArgument:
    try:
        return KernelArgument(text, value=bytes.fromhex(rest))
    except ValueError:
        raise InvalidArgument(f"argument {text!r}: {rest!r} is not hexadecimal") from None


_KINDS: Mapping[str, Callable[[str, str, int], KernelArgument]] = {
    "buf": _buffer,
    "out": _buffer,
    "file": _file,
    "ptr": _address,
    "bytes": _bytes,
}
