"""Maps from labels to numbers, which classic models end with, and sometimes begin with (ai.onnx.ml)."""

from __future__ import annotations

from typing import Any

import numpy as np

from amdrv.errors import InvalidArgument, Unsupported
from amdrv.tensor.onnx import weights
from amdrv.tensor.onnx.registry import Call, Host, Operator, Value, describe, registrar

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)
DOMAIN = "ai.onnx.ml"

CASTS = {"TO_FLOAT": "float32", "TO_INT64": "int64", "TO_STRING": "object"}


@operator(f"{DOMAIN}.ZipMap")
def zip_map(call: Call, x: Host) -> Value:
    """For each row a map from the labels of the classes to its numbers."""
    labels = call.get("classlabels_strings") or call.get("classlabels_int64s") or []
    rows = x.reshape(1, -1) if x.ndim < 2 else x
    if rows.ndim != 2 or rows.shape[1] != len(labels):
        raise InvalidArgument(f"ZipMap: {len(labels)} labels for {describe(x)}")
    return [dict(zip(labels, row, strict=True)) for row in rows.tolist()]


def _map(value: Value) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"expected a map, not {describe(value)}")
    return value


@operator(f"{DOMAIN}.DictVectorizer")
def dict_vectorizer(call: Call, x: Value) -> Host:
    """The values of known keys in a row, zeros (or empty strings) for those that are not in the map."""
    given = _map(x)
    keys = call.get("string_vocabulary") or call.get("int64_vocabulary") or []
    kind = np.asarray(list(given.values()) or np.zeros(0, np.float32)).dtype
    kind = np.dtype(object) if kind.kind in "OSU" else kind
    return np.array([[given.get(key, "" if kind.kind == "O" else 0) for key in keys]], kind)


@operator(f"{DOMAIN}.CastMap")
def cast_map(call: Call, x: Value) -> Host:
    """The values in the order of their keys, which are numbers; in a sparse one each in the place that its key says."""
    given, name, form = _map(x), call.get("cast_to", "TO_FLOAT"), call.get("map_form", "DENSE")
    if name not in CASTS or form not in ("DENSE", "SPARSE"):
        raise Unsupported(f"CastMap {form} {name}")
    width = int(call.get("max_map", 1)) if form == "SPARSE" else len(given)
    if not 0 <= width <= weights.TABLE_ELEMENTS_MAX:
        raise InvalidArgument(f"CastMap: {width} columns")
    made = np.zeros((1, width), CASTS[name])
    if name == "TO_STRING":
        made[:] = ""
    for place, key in enumerate(sorted(given)):
        at = key if form == "SPARSE" else place
        if not 0 <= at < width:
            raise InvalidArgument(f"CastMap: key {key} of {width} columns")
        made[0, at] = _text(given[key]) if name == "TO_STRING" else float(given[key])
    return made


def _text(value: Any) -> str:
    """A number as C++'s streams print it; a string as it is."""
    return str(value) if isinstance(value, str) else f"{float(value):.9g}"
