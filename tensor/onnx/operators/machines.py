"""Support vector machines (ai.onnx.ml)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import MalformedInput, Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.onnx import weights
from amdrv.tensor.onnx.operators.estimators import chosen, transformed
from amdrv.tensor.onnx.registry import Call, Host, Operator, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)
DOMAIN = "ai.onnx.ml"

LEAST = np.float32(1e-7)  # no class is less probable than this beside one other
Reals = NDArray[np.float32]


def _kernel(call: Call, x: Tensor, vectors: Tensor) -> Tensor:
    """What the kernel makes of each row with each vector: (row, vector)."""
    gamma, offset, degree = map(float, (*(call.get("kernel_params") or ()), 0.0, 0.0, 3.0)[:3])
    kind = call.get("kernel_type", "LINEAR")
    if kind == "RBF":
        return ((x.unsqueeze(1) - vectors).square().sum(-1) * -gamma).exp()
    products = x.linear(vectors)
    if kind == "POLY":
        return (products * gamma + offset) ** degree
    if kind == "SIGMOID":
        return (products * gamma + offset).tanh()
    if kind != "LINEAR":
        raise Unsupported(f"{call.op_type} with kernel {kind}")
    return products


def _table(call: Call, name: str, rows: int) -> Reals:
    """Numbers among the attributes as so many rows. Raises MalformedInput when they are no whole rows."""
    found = np.array(call.get(name) or [], np.float32)
    if rows <= 0 or not found.size or found.size % rows:
        raise MalformedInput(f"{call.op_type}: {found.size} {name} in {rows} rows")
    return found.reshape(rows, -1)


def _features(x: Tensor) -> Tensor:
    return (x if x.ndim > 1 else x.reshape(1, -1)).cast(dtypes.float32)


@operator(f"{DOMAIN}.SVMRegressor")
def svm_regressor(call: Call, x: Tensor) -> Tensor:
    """The weighted sum of what the kernel makes of a row with each support vector; for one class only its sign."""
    rows, count = _features(x), int(call.get("n_supports", 0))
    factors, offset = call.tensor(_table(call, "coefficients", 1)), float((call.get("rho") or [0.0])[0])
    if count:
        rows = _kernel(call, rows, call.tensor(_table(call, "support_vectors", count)))
    found = rows.linear(factors) + offset
    if call.get("one_class"):
        return (found > 0).where(Tensor(1.0, device=x.backend), -1.0)
    return transformed(found, call.get("post_transform", "NONE"))


@operator(f"{DOMAIN}.SVMClassifier")
def svm_classifier(call: Call, x: Tensor) -> tuple[Host, Tensor]:
    """The class that wins most of the duels between two classes; also the results of the duels, or probabilities."""
    names = ("classlabels_strings", "classlabels_ints")
    count = len(call.get(names[0]) or call.get(names[1]) or [])
    after, rho = call.get("post_transform", "NONE"), np.array(call.get("rho") or [0.0], np.float32)
    owned = call.get("vectors_per_class") or []
    rows = _features(x)
    if not sum(owned):
        scores = rows.linear(call.tensor(_table(call, "coefficients", count))) + float(rho[0])
        return chosen(call, scores.argmax(-1).numpy(), count, names), transformed(scores, after)
    pairs = list(itertools.combinations(range(count), 2)) if rho.size == count * (count - 1) // 2 else []
    vectors = call.tensor(_table(call, "support_vectors", sum(owned)))
    factors = call.tensor(_duels(call, pairs, owned, count))
    scores = _kernel(call, rows, vectors).linear(factors, call.tensor(rho))
    results: Host = scores.numpy()
    votes = np.zeros((len(results), count), np.int64)
    for column, (first, second) in zip(results.T, pairs, strict=True):
        votes[:, first] += column > 0
        votes[:, second] += column <= 0
    if call.get("prob_a"):
        scores = call.tensor(_probabilities(call, results, pairs, count))
    elif count == 2:
        scores = (-scores if after == "NONE" else 1.0 - scores).cat(scores, axis=1)
        after = "NONE"
    return chosen(call, votes.argmax(-1), count, names), transformed(scores, after)


def _duels(call: Call, pairs: Sequence[tuple[int, int]], owned: Sequence[int], count: int) -> Reals:
    """The factors of all vectors in each duel. A vector has one for each class but its own."""
    total = sum(owned)
    if len(owned) != count or min(owned) < 0 or not pairs or len(pairs) * total > weights.TABLE_ELEMENTS_MAX:
        raise MalformedInput(f"SVMClassifier: {len(owned)} numbers of vectors, {count} classes, {len(pairs)} duels")
    given = _table(call, "coefficients", count - 1)
    if given.shape[1] != total:
        raise MalformedInput(f"SVMClassifier: {given.size} coefficients for {total} vectors and {count} classes")
    owner = np.repeat(np.arange(count), owned)
    found = np.zeros((len(pairs), total), np.float32)
    for row, (first, second) in zip(found, pairs, strict=True):
        row[owner == first] = given[second - 1, owner == first]
        row[owner == second] = given[first, owner == second]
    return found


def _probabilities(call: Call, results: Host, pairs: Sequence[tuple[int, int]], count: int) -> Reals:
    """Probabilities of classes that fit those of the duels (Wu, Lin and Weng 2004, the second method; as LIBSVM)."""
    a, b = (np.array(call.get(name) or [], np.float32) for name in ("prob_a", "prob_b"))
    if not a.size == b.size == len(pairs):
        raise MalformedInput(f"SVMClassifier: {a.size} and {b.size} parameters of {len(pairs)} duels")
    with np.errstate(over="ignore"):
        won = np.clip(1 / (1 + np.exp(results * a + b)), LEAST, 1 - LEAST)
    beside = np.zeros((len(results), count, count), np.float32)
    for k, (first, second) in enumerate(pairs):
        beside[:, first, second], beside[:, second, first] = won[:, k], 1 - won[:, k]
    q = -beside * beside.transpose(0, 2, 1)
    q[:, range(count), range(count)] = (beside**2).sum(1)
    found = np.full((len(results), count), 1 / count, np.float32)
    left = np.arange(len(results))  # rows that are not yet near enough
    for _ in range(max(100, count)):
        p, own = found[left], q[left]
        qp = np.einsum("nij,nj->ni", own, p)
        pqp = (p * qp).sum(1)
        far = abs(qp - pqp[:, None]).max(1) >= 0.005 / count
        left, p, own, qp, pqp = left[far], p[far], own[far], qp[far], pqp[far]
        if not left.size:
            break
        for t in range(count):
            step = (pqp - qp[:, t]) / own[:, t, t]
            p[:, t] += step
            pqp = (pqp + step * (step * own[:, t, t] + 2 * qp[:, t])) / (1 + step) ** 2
            qp = (qp + step[:, None] * own[:, t]) / (1 + step[:, None])
            p /= 1 + step[:, None]
        found[left] = p
    return found
