"""Models of classic machine learning: linear ones, older ensembles of trees, and what prepares their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import InvalidArgument, MalformedInput, Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.onnx import weights
from amdrv.tensor.onnx.operators.classic import Trees, walked
from amdrv.tensor.onnx.registry import Call, Host, Operator, Value, host, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)
DOMAIN = "ai.onnx.ml"


def _real(x: Tensor) -> Tensor:
    return x if x.dtype is dtypes.float64 else x.cast(dtypes.float32)


def _vector(call: Call, name: str, like: Tensor) -> Tensor:
    """A list of numbers among the attributes as a tensor; zero if it is not there."""
    return Tensor(np.array(call.get(name) or [0.0]), device=like.backend, dtype=like.dtype)


@operator(f"{DOMAIN}.Scaler")
def scaler(call: Call, x: Tensor) -> Tensor:
    """(x - offset) * scale, each one or one a feature."""
    real = _real(x)
    return ((real - _vector(call, "offset", real)) * _vector(call, "scale", real)).cast(dtypes.float32)


@operator(f"{DOMAIN}.Normalizer")
def normalizer(call: Call, x: Tensor) -> Tensor:
    """Rows with a norm of 1; zeros stay."""
    real, kind = _real(x), call.get("norm", "MAX")
    if kind not in ("MAX", "L1", "L2"):
        raise Unsupported(f"Normalizer with norm {kind}")
    if kind == "L2":
        norm = real.square().sum(-1, keepdim=True).sqrt()
    else:
        norm = real.abs().sum(-1, keepdim=True) if kind == "L1" else real.max(-1, keepdim=True)
    return (real / (norm == 0).where(1.0, norm)).cast(dtypes.float32)


@operator(f"{DOMAIN}.Imputer")
def imputer(call: Call, x: Tensor) -> Tensor:
    """One value replaced, by one other or one a feature."""
    whole = x.dtype.is_int
    new = call.get("imputed_value_int64s" if whole else "imputed_value_floats")
    old = call.get("replaced_value_int64" if whole else "replaced_value_float", 0)
    if not new:
        raise InvalidArgument("Imputer without values for its inputs' type")
    hit = x.isnan() if old != old else x == old
    return hit.where(Tensor(np.array(new), device=x.backend, dtype=x.dtype), x)


@operator(f"{DOMAIN}.FeatureVectorizer")
def feature_vectorizer(call: Call, *parts: Tensor) -> Tensor:
    """Features of several inputs beside each other."""
    rows = [_real(part) if part.ndim > 1 else _real(part).reshape(-1, 1) for part in parts]
    return rows[0].cat(*rows[1:], axis=1).cast(dtypes.float32)


@operator(f"{DOMAIN}.OneHotEncoder")
def one_hot_encoder(call: Call, x: Value) -> Tensor:
    """1 in the place of the category that an element is, along a new last axis; zeros for one that is unknown."""
    given = host(x)
    known = call.get("cats_strings") or call.get("cats_int64s") or []
    names = np.array(known, object if given.dtype.kind in "OSU" else given.dtype)
    hit = given[..., None] == names
    if not call.get("zeros", 1) and not hit.any(-1).all():
        raise InvalidArgument("OneHotEncoder: an element is none of the categories")
    return call.tensor(np.asarray(hit).astype(np.float32))


@operator(f"{DOMAIN}.LinearRegressor")
def linear_regressor(call: Call, x: Tensor) -> Tensor:
    """Products with coefficients, plus intercepts."""
    found = _linear(call, _real(x), int(call.get("targets", 1)))
    return transformed(found, call.get("post_transform", "NONE")).cast(dtypes.float32)


def _linear(call: Call, x: Tensor, count: int) -> Tensor:
    coefficients = np.array(call.get("coefficients") or [], x.dtype.numpy)
    if coefficients.size != count * x.shape[-1]:
        raise InvalidArgument(f"{call.op_type}: {coefficients.size} coefficients for {count} results of {x.shape}")
    return x.linear(Tensor(coefficients.reshape(count, -1), device=x.backend), _vector(call, "intercepts", x))


def transformed(x: Tensor, name: str) -> Tensor:
    """Scores by a function of the model's."""
    if name == "SOFTMAX":
        return x.softmax(-1)
    if name == "LOGISTIC":
        return x.sigmoid()
    if name == "SOFTMAX_ZERO":
        zero = x.abs() < 1e-7
        shares = (x - x.max(-1, keepdim=True)).exp()
        # Elements that are zero stay, and are not part of the sum.
        return zero.where(0.0, shares) / zero.where(0.0, shares).sum(-1, keepdim=True)
    if name != "NONE":
        raise Unsupported(f"post_transform {name}")
    return x


@operator(f"{DOMAIN}.LinearClassifier")
def linear_classifier(call: Call, x: Tensor) -> tuple[Host, Tensor]:
    """The class with the greatest score for each row, and all scores."""
    real = _real(x)
    count = len(call.get("coefficients") or []) // max(1, real.shape[-1])
    found = _linear(call, real, count)
    if count == 1:
        found = (-found).cat(found, axis=1)
    scores = transformed(found, call.get("post_transform", "NONE"))
    return _labels(call, scores, ("classlabels_strings", "classlabels_ints")), scores.cast(dtypes.float32)


def _labels(call: Call, scores: Tensor, names: tuple[str, str]) -> Host:
    """The labels of the greatest scores."""
    return chosen(call, scores.argmax(-1).numpy(), scores.shape[-1], names)


def chosen(call: Call, winners: Host, count: int, names: tuple[str, str]) -> Host:
    """The labels of classes: strings, or integers, by the names of the attributes that list them."""
    strings = call.get(names[0])
    labels = strings or call.get(names[1]) or list(range(count))
    if len(labels) < count:
        raise InvalidArgument(f"{call.op_type}: {len(labels)} labels for {count} classes")
    found: Host = np.array(labels, object if strings else np.int64)[winners]
    return found


# -- older ensembles of trees ------------------------------------------------------------------------------------------

BRANCHES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def _numbers(attributes: Mapping[str, Any], name: str, kind: Any) -> NDArray[Any]:
    """A list among the attributes, or its tensor of doubles."""
    tensor = attributes.get(f"{name}_as_tensor")
    return np.array(attributes.get(name) or [], kind) if tensor is None else np.asarray(tensor).reshape(-1)


def _trees(call: Call, votes: str, targets: int, empty: float) -> Trees:
    """The trees, whose leaves have a weight for each target; ``empty`` where they say nothing of one."""
    given = call.attributes
    names = list(zip(given.get("nodes_treeids") or [], given.get("nodes_nodeids") or [], strict=True))
    modes = given.get("nodes_modes") or []
    inner = [k for k, mode in enumerate(modes) if mode != "LEAF"]
    order = [*inner, *(k for k, mode in enumerate(modes) if mode == "LEAF")]
    number = {names[k]: place for place, k in enumerate(order)}
    leaves = len(order) - len(inner)
    if len(number) != len(modes) or leaves * targets > weights.TABLE_ELEMENTS_MAX:
        raise MalformedInput(f"{call.op_type}: nodes that share a number, or {leaves} leaves for {targets} targets")
    ways = []
    for side in ("true", "false"):
        to = given[f"nodes_{side}nodeids"]
        ways.append(np.array([number[names[k][0], to[k]] for k in inner], np.int64))
    table = np.full((leaves, targets), empty)
    where = zip(given[f"{votes}_treeids"], given[f"{votes}_nodeids"], given[f"{votes}_ids"], strict=True)
    for (tree, node, target), weight in zip(where, _numbers(given, f"{votes}_weights", float), strict=True):
        row = number[tree, node] - len(inner)
        table[row, target] = weight if table[row, target] == empty != 0 else table[row, target] + weight
    split = _numbers(given, "nodes_values", np.float32)[inner]
    missing = np.array(given.get("nodes_missing_value_tracks_true") or [0] * len(modes), bool)[inner]
    first = dict(reversed([(tree, number[tree, node]) for tree, node in names]))  # a tree begins with its root
    return Trees(
        np.array(given["nodes_featureids"], np.int64)[inner],
        np.array([BRANCHES.index(modes[k]) for k in inner], np.int64),
        split, missing, ways[0], ways[1], np.array(list(first.values()), np.int64),
        np.empty((len(inner), 0), split.dtype), table, np.empty(0, np.int64),
    )  # fmt: skip


def _votes(call: Call, x: Tensor, votes: str, targets: int, how: str) -> Tensor:
    """What all trees say of each target: (row, target)."""
    empty = {"MIN": np.inf, "MAX": -np.inf}.get(how, 0.0)
    real = _real(x)
    trees = _trees(call, votes, targets, empty)
    found = Tensor(trees.weight.astype(real.dtype.numpy), device=x.backend)[walked(call, trees, real)]
    if how in ("MIN", "MAX"):
        said = found.min(1) if how == "MIN" else found.max(1)
        found = (said == empty).where(0.0, said)
    else:
        found = found.sum(1) * (1 / len(trees.roots) if how == "AVERAGE" else 1.0)
    base = _numbers(call.attributes, "base_values", float)
    return found + Tensor(base.astype(real.dtype.numpy), device=x.backend) if base.size else found


@operator(f"{DOMAIN}.TreeEnsembleRegressor")
def tree_ensemble_regressor(call: Call, x: Tensor) -> Tensor:
    """The sum (mean, least, greatest) of what all trees say of each target."""
    found = _votes(call, x, "target", int(call.get("n_targets", 1)), call.get("aggregate_function", "SUM"))
    return transformed(found, call.get("post_transform", "NONE")).cast(dtypes.float32)


@operator(f"{DOMAIN}.TreeEnsembleClassifier")
def tree_ensemble_classifier(call: Call, x: Tensor) -> tuple[Host, Tensor]:
    """The class with the most votes for each row, and all scores."""
    after = call.get("post_transform", "NONE")
    count = len(call.get("classlabels_strings") or call.get("classlabels_int64s") or [])
    found = _votes(call, x, "class", count, "SUM")
    if count == 2 and len(set(call.get("class_ids") or [])) == 1:  # the trees speak of one of two classes only
        second = found.slice(slice(None), slice(call.get("class_ids")[0], call.get("class_ids")[0] + 1))
        found = (1.0 - second if after == "NONE" else -second).cat(second, axis=1)
    scores = transformed(found, after)
    return _labels(call, scores, ("classlabels_strings", "classlabels_int64s")), scores.cast(dtypes.float32)
