"""ONNX models as functions: load a file, call it with tensors, get tensors that are computed when wanted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from amdrv.errors import AmdrvError, InvalidArgument, MalformedInput
from amdrv.tensor import devices
from amdrv.tensor.onnx.graph import Program, import_model
from amdrv.tensor.onnx.registry import WIDER, Host, Value, describe, element_type, host
from amdrv.tensor.onnx.replay import Replays
from amdrv.tensor.storage import Backend
from amdrv.tensor.tensor import Tensor

Dimension = int | str | None  # a length, the name of one, or any


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output. ``dtype`` and ``shape`` are None where the model leaves them open, or for no tensor.

    The ``dtype`` of a map is that of its values.
    """

    name: str
    kind: str  # "tensor", "sequence", "optional", "map"
    dtype: np.dtype[Any] | None
    shape: tuple[Dimension, ...] | None

    def __str__(self) -> str:
        dims = "" if self.shape is None else f"[{', '.join('?' if n is None else str(n) for n in self.shape)}]"
        return f"{self.name}: {self.dtype or self.kind}{dims}"


@dataclass(frozen=True, slots=True)
class Model:
    """A model on a device. Call it with its inputs by name; ``run`` takes and gives NumPy arrays."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    device: Backend
    program: Program
    _runs: Iterator[int]  # each run draws other random numbers
    _replays: Replays

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        """The outputs by name: lazy tensors, lists for sequences, dictionaries for maps, NumPy arrays of strings, None
        for empty optionals.

        Inputs are tensors or what NumPy makes arrays of. Raises InvalidArgument naming every input that is missing,
        unknown, or of another type or shape than the model says.
        """
        values = self._values(inputs)
        results = self.program.run(values, None, next(self._runs))
        return {port.name: value for port, value in zip(self.outputs, results, strict=True)}

    def _values(self, inputs: Mapping[str, Any]) -> list[Value]:
        """The inputs as operators get them."""
        known = {port.name for port in self.inputs}
        wrong = [f"there is no input {name!r}" for name in inputs if name not in known]
        values: list[Value] = []
        for port in self.inputs:
            if port.name not in inputs and port.kind != "optional":
                wrong.append(f"{port} is missing")
                continue
            value = _value(inputs.get(port.name), port, self.device)
            values.append(value)
            if (problem := _mismatch(value, port)) is not None:
                wrong.append(problem)
        if wrong:
            raise InvalidArgument(f"inputs of the model: {'; '.join(wrong)}")
        return values

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs in order as NumPy arrays, for inputs in order; computed together. Raises as calling does.

        The third run on inputs of the same shapes repeats what the second did, if the model allows it: see ``replay``.
        """
        if len(inputs) > len(self.inputs):
            raise InvalidArgument(f"{len(inputs)} inputs for {', '.join(map(str, self.inputs))}")
        named = {port.name: value for port, value in zip(self.inputs, inputs, strict=False)}
        return [_numpy(value) for value in self._replays(self._values(named))]


def load(source: str | Path | bytes | onnx.ModelProto, device: object = None) -> Model:
    """A model from a file, its bytes, or a parsed one, on "AMD" (also for None), "CPU" or an open Device.

    Raises MalformedInput for what is no model, UnsupportedOperators for operators that are not known, all at once.
    """
    proto, folder = _parsed(source)
    if not proto.HasField("graph"):
        raise MalformedInput("the file is no ONNX model: it has no graph")
    backend = devices.backend(device)
    try:
        program = import_model(proto, folder, backend)
        ports = {value.name: _port(value) for value in proto.graph.input}
        outputs = tuple(_port(value) for value in proto.graph.output)
    except AmdrvError:
        raise
    except Exception as error:  # names that are no UTF-8, attributes of other types: a file can be wrong in many ways
        raise MalformedInput(f"the model is malformed: {type(error).__name__}: {error}") from error
    runs = itertools.count()
    replays = Replays(lambda values: program.run(values, None, next(runs)), possible=not program.draws)
    return Model(tuple(ports[name] for name in program.inputs), outputs, backend, program, runs, replays)


def _parsed(source: str | Path | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, Path | None]:
    if isinstance(source, onnx.ModelProto):
        return source, None
    folder = None
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise InvalidArgument(f"there is no file {path}")
        source, folder = path.read_bytes(), path.parent
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(source)
    except (DecodeError, ValueError, TypeError) as error:
        raise MalformedInput(f"the file is no ONNX model: {error}") from None
    return proto, folder


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.WhichOneof("value") or "tensor_type"
    if kind == "map_type":
        return Port(value.name, "map", element_type(value.type.map_type.value_type.tensor_type.elem_type), None)
    if kind != "tensor_type":
        return Port(value.name, kind.removesuffix("_type").removeprefix("sparse_"), None, None)
    own = value.type.tensor_type
    dtype = element_type(own.elem_type) if own.elem_type else None
    shape = None
    if own.HasField("shape"):
        dims = own.shape.dim
        shape = tuple(n.dim_value if n.dim_value > 0 else n.dim_param or None for n in dims)
    return Port(value.name, "tensor", dtype, shape)


def _value(given: Any, port: Port, device: Backend) -> Value:
    """An input as operators get it."""
    if given is None or (port.kind == "optional" and not isinstance(given, list)):
        return None if given is None else _value(given, Port(port.name, "tensor", None, None), device)
    if isinstance(given, list) and port.kind != "tensor":
        return [_value(part, Port(port.name, "tensor", None, None), device) for part in given]
    if isinstance(given, dict):
        if port.dtype is None or port.dtype.kind == "O":
            return given
        return dict(zip(given, np.array(list(given.values()), port.dtype), strict=True))
    if isinstance(given, Tensor):
        return given.to(device)
    array: Host = np.asarray(given)
    if not hasattr(given, "dtype") and port.dtype is not None:
        array = array.astype(port.dtype)
    if array.dtype.kind in "OSU":
        return array.astype(object)
    return array if array.dtype in WIDER else Tensor(array, device=device)


def _mismatch(value: Value, port: Port) -> str | None:
    """How a value differs from what the model says of an input."""
    if port.kind != "tensor" or not isinstance(value, (Tensor, np.ndarray)):
        right = port.kind != "tensor" and (port.kind == "map") == isinstance(value, dict)
        return None if right else f"{port} was given {describe(value)}"
    dtype = np.dtype(value.dtype.numpy) if isinstance(value, Tensor) else value.dtype
    fits = port.shape is None or (
        len(port.shape) == value.ndim
        and all(a == b for a, b in zip(port.shape, value.shape, strict=True) if isinstance(a, int))
    )
    return None if fits and port.dtype in (None, dtype) else f"{port} was given {describe(value)}"


def _numpy(value: Value) -> Any:
    if isinstance(value, list):
        return [_numpy(part) for part in value]
    return value if value is None or isinstance(value, dict) else host(value)
