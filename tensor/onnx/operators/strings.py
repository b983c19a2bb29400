"""Operators on strings. Their arrays are host values: no device computes with strings."""

from __future__ import annotations

import re

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor.onnx.registry import Call, Host, Operator, Value, registrar

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


def _array(parts: list[str], shape: tuple[int, ...]) -> Host:
    made = np.empty(len(parts), object)
    made[:] = parts
    return made.reshape(shape)


@operator("StringConcat")
def string_concat(call: Call, a: Host, b: Host) -> Value:
    return np.asarray(np.add(a, b), object)


@operator("StringSplit")
def string_split(call: Call, x: Host) -> tuple[Value, ...]:
    """The parts along a new last axis, filled up with empty strings, and how many there are."""
    delimiter, most = call.get("delimiter") or None, call.get("maxsplit", -1)
    rows = [part.split(delimiter, most) for part in x.reshape(-1)]
    width = max((len(row) for row in rows), default=0)
    flat = [part for row in rows for part in (*row, *[""] * (width - len(row)))]
    return _array(flat, (*x.shape, width)), np.array([len(row) for row in rows], np.int64).reshape(x.shape)


@operator("RegexFullMatch")
def regex_full_match(call: Call, x: Host) -> Value:
    try:
        pattern = re.compile(call.get("pattern"))
    except re.error as error:
        raise InvalidArgument(f"pattern {call.get('pattern')!r}: {error}") from None
    return np.array([pattern.fullmatch(part) is not None for part in x.reshape(-1)], bool).reshape(x.shape)


@operator("StringNormalizer")
def string_normalizer(call: Call, x: Host) -> Value:
    """Without stop words, and in one case; one empty string if nothing is left."""
    sensitive, case = call.get("is_case_sensitive", 0), call.get("case_change_action", "NONE")

    def compared(part: str) -> str:
        return part if sensitive else part.lower()

    stop = {compared(part) for part in call.get("stopwords", [])}
    kept = [part for part in x.reshape(-1) if compared(part) not in stop] or [""]
    if case != "NONE":
        kept = [part.lower() if case == "LOWER" else part.upper() for part in kept]
    return _array(kept, (len(kept),) if x.ndim == 1 else (1, len(kept)))
