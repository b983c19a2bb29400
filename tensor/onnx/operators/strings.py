"""Operators on strings. Their arrays are host values: no device computes with strings."""

from __future__ import annotations

import re

import numpy as np

from amdrv.errors import InvalidArgument, Unsupported
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
    return _filled(rows, x.shape, ""), np.array([len(row) for row in rows], np.int64).reshape(x.shape)


@operator("RegexFullMatch")
def regex_full_match(call: Call, x: Host) -> Value:
    try:
        pattern = re.compile(call.get("pattern"))
    except re.error as error:
        raise InvalidArgument(f"pattern {call.get('pattern')!r}: {error}") from None
    return np.array([pattern.fullmatch(part) is not None for part in x.reshape(-1)], bool).reshape(x.shape)


BEGIN, END = "\x02", "\x03"  # around the words of a text, if wanted


@operator("com.microsoft.Tokenizer")
def tokenizer(call: Call, x: Host) -> Value:
    """The words of each text along a new last axis, filled up: what an expression finds, or is between separators."""
    separators, expression = call.get("separators") or [], call.get("tokenexp")
    least, mark = call.integer("mincharnum", 1), call.integer("mark", 0)
    if bool(separators) == bool(expression):
        raise Unsupported("Tokenizer with neither or both of tokenexp and separators")

    def words(text: str) -> list[str]:
        if expression:
            return [found.group() for found in re.finditer(expression, text)]
        return list(text) if separators == [""] else re.split("|".join(separators), text)

    try:
        rows = [[word for word in words(text) if word and len(word) >= least] for text in x.reshape(-1)]
    except re.error as error:
        raise InvalidArgument(f"Tokenizer: {error}") from None
    if mark and any(x.reshape(-1)):
        rows = [[BEGIN, *row, END] for row in rows]
    return _filled(rows, x.shape, call.get("pad_value", ""))


def _filled(rows: list[list[str]], shape: tuple[int, ...], filler: str) -> Host:
    """Rows of strings in an array with one more axis."""
    width = max((len(row) for row in rows), default=0)
    return _array([part for row in rows for part in (*row, *[filler] * (width - len(row)))], (*shape, width))


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
