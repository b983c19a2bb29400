"""What an ONNX operator is here: a Python function that makes lazy tensors.

A family file has a table and a decorator that fills it::

    OPERATORS: dict[str, Operator] = {}
    operator = registrar(OPERATORS)

    @operator("Conv")
    def conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        strides = call.get("strides", [1] * (x.ndim - 2))
        ...

The inputs come as arguments in the order of the ONNX operator; an absent optional one is None, absent ones at the end
take Python's defaults, and variadic ones are ``*parts``. *How* an input comes is said by its annotation:

- ``Tensor``: a tensor on the device of the call (a host value is copied there, a single number becomes a constant);
- ``Host``: a NumPy array. For what decides shapes: axes, sizes, pads, scales. A tensor is computed for it;
- ``Value``: as it is: for what passes anything through, sequences, optionals and strings.

A key of the table is the operator's name, with its domain before it unless that is ONNX's own:
"com.microsoft.QLinearAdd". ``call.opset`` is the version of that domain in the model, for operators that changed.

Results are tensors or host values: one, or a tuple when the operator has several outputs (more than the node names is
fine). Integers that are known without computing (``Shape``, constants and what is made of them) should stay host
values, because shapes are made from them; see ``constants``.

Element types that tensors lack (4-bit integers, float8 without infinities, strings) exist as host values only:
``tensor`` widens them, ``narrow`` makes them.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_not
from typing import Any, Protocol, TypeVar

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes, engine
from amdrv.tensor.dtypes import Scalar
from amdrv.tensor.ir import Op
from amdrv.tensor.storage import Backend
from amdrv.tensor.tensor import Tensor

Host = NDArray[Any]
# A list is an ONNX sequence of values, a dictionary a map of numbers or strings, None absent or an empty optional.
Value = Tensor | Host | list[Any] | dict[Any, Any] | None
Result = Value | tuple[Value, ...]
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

# Types of ONNX that tensors do not have, and one they have that holds all their values.
WIDER: Mapping[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(getattr(ml_dtypes, name)): np.dtype(wide)
    for name, wide in {
        "int2": "int8", "int4": "int8", "uint2": "uint8", "uint4": "uint8", "float4_e2m1fn": "float32",
        "float8_e4m3fnuz": "float32", "float8_e5m2fnuz": "float32", "float8_e8m0fnu": "float32",
    }.items()
    if hasattr(ml_dtypes, name)
}  # fmt: skip


class Subgraph(Protocol):
    """An attribute that is a graph: a function of its inputs, which sees the values around its node."""

    input_names: Sequence[str]
    output_count: int

    def __call__(self, *inputs: Value) -> tuple[Value, ...]:
        """Its outputs."""


@dataclass(frozen=True, slots=True)
class Call:
    """One node of a model, without its inputs.

    ``attributes`` are Python values: int, float, str, lists of these, NumPy arrays (tensors), Subgraph, and onnx types
    for the rare rest. ``dtype`` attributes are the numbers of onnx.TensorProto: see ``element_type``.
    """

    name: str
    op_type: str
    domain: str  # "" is ONNX's own
    opset: int  # the version of the domain that the model asks for
    attributes: Mapping[str, Any]
    output_count: int  # trailing absent outputs are not counted
    device: Backend
    seed: int  # of this node in this run, for random operators without a seed
    kept: dict[str, tuple[Sequence[object], Any]] = field(default_factory=dict)  # see ``once``

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default of the operator."""
        return self.attributes.get(name, default)

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        """An attribute that is a float."""
        return float(self.attributes.get(name, default))

    def axes(self, given: Host | None, name: str = "axes") -> tuple[int, ...] | None:
        """Axes (or other integers), which newer versions of an operator take as an input, older ones as attribute."""
        found = self.attributes.get(name) if given is None else given.reshape(-1).tolist()
        return None if found is None else tuple(int(axis) for axis in found)

    def tensor(self, value: Value) -> Tensor:
        """A value as a tensor on the device of the call."""
        return tensor(value, self.device)

    def once(self, name: str, sources: Sequence[object], make: Callable[[], T]) -> T:
        """What ``make`` gives, kept for all runs that bring the very same objects, as a model's constants are."""
        known = self.kept.get(name)
        if known is None or len(known[0]) != len(sources) or any(map(is_not, known[0], sources)):
            known = self.kept[name] = (tuple(sources), make())
        found: T = known[1]
        return found


def tensor(value: Value, device: Backend) -> Tensor:
    """A value as a tensor on a device. Raises InvalidArgument for sequences, maps, absent values and strings."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OSU":
        raise InvalidArgument(f"expected a tensor of numbers, not {describe(value)}")
    array = value.astype(WIDER[value.dtype]) if value.dtype in WIDER else value
    if array.size == 1 and array.dtype.kind in "biuf":
        made = Tensor(array.reshape(()).item(), device=device, dtype=array.dtype)
        return made.reshape(array.shape) if array.ndim else made
    return Tensor(array, device=device)


def host(value: Value) -> Host:
    """A value as a NumPy array, computed if it must be. InvalidArgument for sequences, maps and absent ones."""
    if isinstance(value, Tensor):
        number = _constant(value)
        return value.numpy() if number is None else np.full(value.shape, number, value.dtype.numpy)
    if not isinstance(value, np.ndarray):
        raise InvalidArgument(f"expected a tensor, not {describe(value)}")
    return value


def _constant(value: Tensor) -> Scalar | None:
    """The number that is everywhere in a tensor, if that is known."""
    node = value.node
    while node.op in (Op.RESHAPE, Op.EXPAND):
        node = node.src[0]
    number: Scalar | None = node.arg if node.op is Op.CONST else None
    return number


def element_type(number: int) -> np.dtype[Any]:
    """The NumPy type of a number of onnx.TensorProto.DataType; ``object`` for strings. Raises InvalidArgument."""
    from onnx import helper

    try:
        found = np.dtype(helper.tensor_dtype_to_np_dtype(number))
    except (KeyError, TypeError):
        raise InvalidArgument(f"{number} is no element type of ONNX") from None
    return np.dtype(object) if found.kind in "OSU" else found


def narrow(value: Value, wanted: np.dtype[Any]) -> Value:
    """A value in an element type by a plain conversion: a tensor if tensors have the type, else a host value."""
    if isinstance(value, Tensor) and wanted not in WIDER:
        return value.cast(dtypes.of(wanted))
    with np.errstate(all="ignore"):
        return host(value).astype(wanted)


def describe(value: Value) -> str:
    """A value's kind, element type and shape, for messages."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"a sequence of {len(value)}"
    if isinstance(value, dict):
        return f"a map of {len(value)}"
    return f"{value.dtype}{list(value.shape)}"


@dataclass(frozen=True, slots=True)
class Operator:
    """A function that makes tensors, which gets each input as its annotation wants it: "Tensor", "Host" or "Value"."""

    function: Callable[..., Result]
    kinds: tuple[str, ...]
    variadic: str | None  # of the inputs after those
    computes: bool  # values, not only formulas for them
    needed: tuple[bool, ...] = ()  # whether each input must be there

    def __call__(self, call: Call, *values: Value) -> Result:
        there = itertools.chain((value is not None for value in values), itertools.repeat(False))
        if missing := [str(k) for k, (need, has) in enumerate(zip(self.needed, there, strict=False)) if need > has]:
            raise InvalidArgument(f"input {' and '.join(missing)} is missing, counted from 0")
        given: list[Value] = []
        for value, kind in zip(values, self._kinds(len(values)), strict=True):
            if value is not None and kind != "Value":
                value = tensor(value, call.device) if kind == "Tensor" else host(value)
            given.append(value)
        return self.function(call, *given)

    def looks(self, values: Sequence[Value]) -> bool:
        """Whether a call computes values at once: then all that are wanted later should be computed together."""
        kinds = zip(values, self._kinds(len(values)), strict=True)
        return self.computes or any(kind == "Host" and is_lazy(value) for value, kind in kinds)

    def _kinds(self, count: int) -> tuple[str, ...]:
        more = count - len(self.kinds)
        if more > 0 and self.variadic is None:
            raise InvalidArgument(f"{count} inputs, of which it takes {len(self.kinds)}")
        return self.kinds[:count] + (self.variadic or "",) * more


def is_lazy(value: Value) -> bool:
    """Whether computing a value takes kernels."""
    if not isinstance(value, Tensor) or engine.in_memory(value.node) is not None:
        return False
    return _constant(value) is None


def tensors(values: Iterable[Value]) -> Iterator[Tensor]:
    """The tensors among values, those in sequences too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list):
            yield from tensors(value)


def registrar(table: dict[str, Operator]) -> Callable[..., Callable[[F], F]]:
    """The decorator that puts functions into a table under the names given to it.

    ``computes``: the operator runs kernels itself, as loops do.
    """

    def operator(*names: str, computes: bool = False) -> Callable[[F], F]:
        def put(function: F) -> F:
            _, *parameters = inspect.signature(function).parameters.values()
            variadic = next((_kind(p) for p in parameters if p.kind is p.VAR_POSITIONAL), None)
            plain = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
            kinds = tuple(map(_kind, plain))
            needed = tuple(p.default is p.empty and p.annotation in ("Tensor", "Host") for p in plain)
            table.update(dict.fromkeys(names, Operator(function, kinds, variadic, computes, needed)))
            return function

        return put

    return operator


def _kind(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return next((kind for kind in ("Tensor", "Host") if text.startswith(kind)), "Value")
