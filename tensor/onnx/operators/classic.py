"""Classic machine learning: trees, encoders of labels and words (the domain ai.onnx.ml)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument, MalformedInput, Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.onnx import weights
from amdrv.tensor.onnx.registry import Call, Host, Operator, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


@operator("ai.onnx.ml.Binarizer")
def binarizer(call: Call, x: Tensor) -> Tensor:
    """1 above a threshold, else 0."""
    return (x > float(call.get("threshold", 0.0))).cast(x.dtype)


@operator("ai.onnx.ml.LabelEncoder")
def label_encoder(call: Call, x: Host) -> Host:
    """Each key replaced by its value; keys and values are numbers or strings."""
    keys, values = _listed(call, "keys"), _listed(call, "values")
    if keys is None or values is None:
        strings = call.get("classes_strings")
        if strings is None:
            raise InvalidArgument("LabelEncoder without keys and values")
        both = (strings, list(range(len(strings))))
        keys, values = both if x.dtype.kind in "OSU" else both[::-1]
    kind, default = _default(call, values)
    table = {_key(key): value for key, value in zip(keys, values, strict=True)}
    found = np.array([table.get(_key(item), default) for item in x.reshape(-1).tolist()], kind)
    return found.reshape(x.shape)


@operator("ai.onnx.ml.CategoryMapper")
def category_mapper(call: Call, x: Host) -> Host:
    """Strings replaced by numbers, or numbers by strings."""
    pairs = list(zip(call.get("cats_strings") or [], call.get("cats_int64s") or [], strict=True))
    if x.dtype.kind in "OSU":
        numbers, default = dict(pairs), call.get("default_int64", -1)
        return np.array([numbers.get(item, default) for item in x.reshape(-1)], np.int64).reshape(x.shape)
    strings, other = {number: string for string, number in pairs}, call.get("default_string", "_Unused")
    return np.array([strings.get(item, other) for item in x.reshape(-1).tolist()], object).reshape(x.shape)


def _key(value: Any) -> Any:
    """A key that equals itself, NaN too."""
    return "nan" if isinstance(value, float) and value != value else value


def _listed(call: Call, name: str) -> list[Any] | None:
    tensor = call.get(f"{name}_tensor")
    if tensor is not None:
        found: list[Any] = tensor.reshape(-1).tolist()
        return found
    return next((list(part) for kind in ("strings", "int64s", "floats") if (part := call.get(f"{name}_{kind}"))), None)


def _default(call: Call, values: Sequence[Any]) -> tuple[Any, Any]:
    """The type of values, and the value for keys that are not there."""
    given = call.get("default_tensor")
    tensor = call.get("values_tensor")
    if tensor is not None:
        return tensor.dtype, given.reshape(-1)[0] if given is not None else np.zeros(1, tensor.dtype)[0]
    if isinstance(values[0], str):
        return object, call.get("default_string", "_Unused")
    if isinstance(values[0], int):
        return np.int64, call.get("default_int64", -1)
    return np.float32, call.get("default_float", -0.0)


# -- trees -------------------------------------------------------------------------------------------------------------

MEMBER, MODES = 6, 7  # the comparisons are <=, <, >=, >, ==, !=, and being member of a set


@dataclass(frozen=True, slots=True)
class Trees:
    """Nodes of all trees in one numbering; leaves follow the inner nodes, and lead to themselves."""

    feature: NDArray[np.int64]
    mode: NDArray[np.int64]
    split: NDArray[Any]
    missing: NDArray[np.bool_]  # whether NaN goes the way of true
    true: NDArray[np.int64]
    false: NDArray[np.int64]
    roots: NDArray[np.int64]
    members: NDArray[Any]  # (node, member), filled up with NaN
    weight: NDArray[Any]  # of leaves; for several targets (leaf, target)
    target: NDArray[np.int64]

    @property
    def leaves(self) -> int:
        """How many there are."""
        return len(self.weight)

    def depth(self) -> int:
        """Steps from a root to the farthest leaf. Raises MalformedInput for trees that go round."""
        inner = len(self.feature)
        now, steps = np.unique(self.roots), 0
        while (now < inner).any():
            if steps > inner:
                raise MalformedInput("TreeEnsemble: a tree whose nodes lead back to themselves")
            inside = now[now < inner]
            now, steps = np.unique(np.concatenate([self.true[inside], self.false[inside]])), steps + 1
        return steps


def _trees(attributes: Mapping[str, Any]) -> Trees:
    try:
        feature = np.array(attributes["nodes_featureids"], np.int64)
        inner = len(feature)
        weight = np.asarray(attributes["leaf_weights"])
        target = np.array(attributes["leaf_targetids"], np.int64)
        ways = []
        for name in ("true", "false"):
            to = np.array(attributes[f"nodes_{name}nodeids"], np.int64)
            leaf = np.array(attributes[f"nodes_{name}leafs"], bool)
            if not len(to) == len(leaf) == inner or (to < 0).any() or (to >= np.where(leaf, len(weight), inner)).any():
                raise MalformedInput(f"TreeEnsemble: nodes_{name}nodeids name nodes that are not there")
            ways.append(np.where(leaf, to + inner, to))
        roots = np.array(attributes["tree_roots"], np.int64)
        mode = np.asarray(attributes["nodes_modes"]).astype(np.int64)
        split = np.asarray(attributes["nodes_splits"])
    except KeyError as missing:
        raise MalformedInput(f"TreeEnsemble without {missing}") from None
    if not len(mode) == len(split) == inner or len(target) != len(weight) or ((roots < 0) | (roots >= inner)).any():
        raise MalformedInput("TreeEnsemble: attributes of different lengths, or roots that are not there")
    missing_true = attributes.get("nodes_missing_value_tracks_true") or [0] * inner
    members = _members(mode, attributes.get("membership_values"), split.dtype)
    return Trees(feature, mode, split, np.array(missing_true, bool), ways[0], ways[1], roots, members, weight, target)


def _members(mode: NDArray[np.int64], values: Any, kind: Any) -> NDArray[Any]:
    """The sets of nodes that ask for membership: runs of values, each ended by NaN."""
    sets: list[list[float]] = [[]]
    for value in [] if values is None else np.asarray(values).reshape(-1).tolist():
        if value != value:
            sets.append([])
        else:
            sets[-1].append(value)
    asking = np.flatnonzero(mode == MEMBER)
    if len(asking) > len(sets) or ((mode < 0) | (mode >= MODES)).any():
        raise MalformedInput("TreeEnsemble: nodes with unknown modes, or without their sets of values")
    found = np.full((len(mode), max(map(len, sets))), np.nan, kind)
    for node, own in zip(asking, sets, strict=False):
        found[node, : len(own)] = own
    return found


@operator("ai.onnx.ml.TreeEnsemble")
def tree_ensemble(call: Call, x: Tensor) -> Tensor:
    """For each row, what the leaves say that its way through each tree leads to, put together by target."""
    trees = _trees(call.attributes)
    return _gathered(call, trees, walked(call, trees, x), x)


def walked(call: Call, trees: Trees, x: Tensor) -> Tensor:
    """The leaf that each row's way through each tree leads to: (row, tree)."""
    inner = len(trees.feature)
    leaf = inner + np.arange(trees.leaves)
    way = call.tensor(np.stack([np.concatenate([part, leaf]) for part in (trees.true, trees.false)]))
    now = call.tensor(np.tile(trees.roots, (x.shape[0], 1)))
    rows = x._position(x.shape[0]).reshape(-1, 1)
    steps = trees.depth()
    parts = (trees.feature, trees.split, trees.mode, trees.missing, trees.members)
    tables = [Tensor(part, device=x.backend) for part in parts] if steps else []
    for _ in range(steps):
        at = now.minimum(inner - 1)
        feature, split, mode, missing, members = (table[at] for table in tables)
        value = x[rows, feature]
        passed = value.isnan() & missing
        less, same = value < split, value == split
        answers = (less | same, less, (value > split) | same, value > split, same, ~same)
        for number, answer in enumerate(answers):
            passed = passed | ((mode == number) & answer)
        if trees.members.shape[1]:
            passed = passed | ((mode == MEMBER) & (members == value.unsqueeze(-1)).any(-1))
        now = passed.where(way[0][now], way[1][now])
    return now - inner


def _gathered(call: Call, trees: Trees, leaves: Tensor, x: Tensor) -> Tensor:
    """The leaves' weights put together by target."""
    count = call.get("n_targets", 1)
    weight, target = call.tensor(trees.weight)[leaves].unsqueeze(-1), call.tensor(trees.target)[leaves].unsqueeze(-1)
    mine = target == x._position(count).cast(dtypes.int64)  # (row, tree, target)
    how = call.get("aggregate_function", 1)
    limits = np.finfo(np.float64) if x.dtype.bits > 32 else np.finfo(np.float32)
    if how in (0, 1):
        found = mine.where(weight, 0.0).sum(1) * (1 / len(trees.roots) if how == 0 else 1.0)
    elif how == 2:
        found = mine.where(weight, float(limits.max)).min(1)
    else:
        found = mine.where(weight, float(limits.min)).max(1)
    after = call.get("post_transform", 0)
    if after == 1:
        return found.softmax(-1)
    if after == 2:
        return found.sigmoid()
    if after:
        raise Unsupported(f"TreeEnsemble with post_transform {after}")
    return found


# -- words -------------------------------------------------------------------------------------------------------------


@operator("TfIdfVectorizer")
def tf_idf_vectorizer(call: Call, x: Host) -> Host:
    """How often each known run of words (or numbers) occurs in each row, also with words left out between."""
    columns = call.get("ngram_indexes")
    known = {gram: columns[k] for k, gram in enumerate(_grams(call)) if k < len(columns)}
    shortest, longest, skips = (
        call.get(f"{name}") for name in ("min_gram_length", "max_gram_length", "max_skip_count")
    )
    rows = x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x.reshape(1, -1)
    width = max(columns, default=-1) + 1
    if not 0 <= width * len(rows) <= weights.TABLE_ELEMENTS_MAX or min(columns, default=0) < 0:
        raise InvalidArgument(f"TfIdfVectorizer: {width} columns")
    count = np.zeros((len(rows), width), np.float32)
    for number, row in enumerate(rows.tolist()):
        for apart in range(1, min(skips + 1, len(row)) + 1):
            # Single words are the same whatever is left out between them.
            for length in range(shortest if apart == 1 else max(shortest, 2), min(longest, len(row)) + 1):
                for start in range(len(row) - apart * (length - 1)):
                    column = known.get(tuple(row[start : start + apart * (length - 1) + 1 : apart]))
                    if column is not None:
                        count[number, column] += 1
    mode, given = call.get("mode"), call.get("weights")
    factor = np.ones(count.shape[1], np.float32)
    if given:
        factor[columns] = given
    found = {"TF": count, "IDF": (count > 0) * factor, "TFIDF": count * factor}.get(mode)
    if found is None:
        raise Unsupported(f"TfIdfVectorizer with mode {mode}")
    return found.astype(np.float32).reshape(*x.shape[:-1], -1)


def _grams(call: Call) -> list[tuple[Any, ...]]:
    """The known runs in order: a pool of single ones, then of pairs, and so on."""
    pool = call.get("pool_strings") or call.get("pool_int64s") or []
    starts = [*call.get("ngram_counts"), len(pool)]
    found = []
    for length, (start, end) in enumerate(itertools.pairwise(starts), 1):
        found += [tuple(pool[k : k + length]) for k in range(start, end - length + 1, length)]
    return found
