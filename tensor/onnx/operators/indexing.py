"""Operators that look elements up or put them somewhere."""

from __future__ import annotations

import numpy as np

from amdrv.errors import InvalidArgument
from amdrv.tensor.onnx.registry import Call, Host, Operator, Value, host, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


@operator("Gather")
def gather(call: Call, x: Tensor, indices: Value) -> Tensor:
    axis = call.integer("axis", 0)
    if isinstance(indices, np.ndarray) and indices.size:
        count, least, most = x.shape[axis], int(indices.min()), int(indices.max())
        if not -count <= least <= most < count:
            raise InvalidArgument(f"indices from {least} to {most} of {count} elements")
    if isinstance(indices, np.ndarray) and indices.size == 1:  # known: a view
        at = int(indices.item()) % x.shape[axis] if x.shape[axis] else 0
        part = x.slice(*[slice(None)] * (axis % x.ndim), slice(at, at + 1))
        return part.reshape((*x.shape[: axis % x.ndim], *indices.shape, *x.shape[axis % x.ndim + 1 :]))
    return x.take(call.tensor(indices), axis)


@operator("GatherElements")
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    return x.gather(call.integer("axis", 0), indices)


@operator("GatherND")
def gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    batch, depth = call.integer("batch_dims", 0), indices.shape[-1]
    if not 1 <= depth <= x.ndim - batch:
        raise InvalidArgument(f"positions of {depth} axes with {batch} batch axes")
    own = [
        Tensor.arange(n, device=call.device).reshape((n, *(1,) * (indices.ndim - 2 - axis)))
        for axis, n in enumerate(x.shape[:batch])
    ]
    return x[(*own, *_columns(indices))]


def _columns(indices: Tensor) -> list[Tensor]:
    """The index of each axis from positions along the last axis."""
    return [part.squeeze(-1) for part in indices.split(1, -1)]


def _reduction(call: Call) -> str:
    wanted: str = call.get("reduction", "none")
    return "set" if wanted == "none" else wanted


@operator("ScatterElements", "Scatter")
def scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    return x.scatter(call.integer("axis", 0), indices, updates, _reduction(call))


@operator("ScatterND")
def scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    return x._put(_columns(indices), updates, _reduction(call))


@operator("TensorScatter")
def tensor_scatter(call: Call, cache: Tensor, update: Tensor, starts: Tensor | None = None) -> Tensor:
    """New rows of a key-value cache, for each batch from its own position on; ``circular`` begins again in front."""
    axis = call.integer("axis", -2) % cache.ndim
    n, length = cache.shape[axis], update.shape[axis]
    places = Tensor.arange(n, device=call.device).reshape((n, *(1,) * (cache.ndim - axis - 1)))
    first = 0 if starts is None else starts.reshape((-1, *(1,) * (cache.ndim - 1)))
    back = places - first
    if call.get("mode", "linear") == "circular":
        back = back % n
    new = ((back >= 0) & (back < length)).expand((cache.shape[0], *back.shape[1:]))
    picked = update.gather(axis, back.clip(0, length - 1).expand(cache.shape))
    return new.where(picked, cache)


# -- results whose shape depends on values: computed at once -----------------------------------------------------------


@operator("NonZero")
def non_zero(call: Call, x: Host) -> Value:
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)


@operator("Compress")
def compress(call: Call, x: Tensor, condition: Host) -> Tensor:
    axis = call.get("axis")
    flat = x.reshape(-1) if axis is None else x
    return flat.take(call.tensor(np.nonzero(condition)[0]), axis or 0)


@operator("Unique", computes=True)
def unique(call: Call, x: Value) -> tuple[Value, ...]:
    axis, given = call.get("axis"), host(x)
    values, first, back, counts = np.unique(given, True, True, True, axis)
    back = back.reshape(-1)
    if not call.get("sorted", 1):
        order = np.argsort(first)
        values, first, counts = np.take(values, order, axis or 0), first[order], counts[order]
        back = np.argsort(order)[back]
    return values, first.astype(np.int64), back.astype(np.int64), counts.astype(np.int64)


@operator("ai.onnx.ml.ArrayFeatureExtractor")
def array_feature_extractor(call: Call, x: Value, indices: Value) -> Value:
    """The columns with some numbers, of strings too."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "OSU":
        found: Host | Tensor = x.take(host(indices).reshape(-1), -1)
    else:
        x = call.tensor(x)
        found = x.take(call.tensor(indices).reshape(-1), -1)
    return found if x.ndim > 1 else found.reshape(1, -1)
