"""Attention and its relatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.dtypes import DType
from amdrv.tensor.onnx.registry import Call, Operator, Subgraph, element_type, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


def split_heads(x: Tensor, heads: int | None) -> Tensor:
    """(batch, length, heads * width) as (batch, heads, length, width)."""
    if not heads or x.shape[-1] % heads:
        raise InvalidArgument(f"{heads} heads of {x.shape}")
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """The opposite of ``split_heads``."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """Heads of keys or values, each used by several heads of the query."""
    own = x.shape[1]
    if heads == own:
        return x
    if not own or heads % own:
        raise InvalidArgument(f"{heads} heads of the query share {own} heads of keys")
    return x.unsqueeze(2).expand(x.shape[0], own, heads // own, *x.shape[2:]).reshape(-1, heads, *x.shape[2:])


@operator("Attention")
def attention(
    call: Call,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scaled dot-product attention; also keys and values with the past ones before them, and the scores."""
    flat = q.ndim == 3
    if flat:
        q = split_heads(q, call.get("q_num_heads"))
        k, v = (split_heads(part, call.get("kv_num_heads")) for part in (k, v))
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = past_key.cat(k, axis=2), past_value.cat(v, axis=2)
    half = math.sqrt(call.get("scale") or 1 / math.sqrt(q.shape[-1]))
    scores = (q * half).matmul((repeat_heads(k, q.shape[1]) * half).transpose())
    shown = scores
    mode, cap = call.get("qk_matmul_output_mode", 0), call.get("softcap", 0.0)
    if cap:
        scores = (scores / cap).tanh() * cap
        shown = scores if mode else shown
    hidden = -math.inf
    allowed = _allowed(call, q.shape[2], k.shape[2], past, valid, q)
    if mask is not None:
        rest = k.shape[2] - mask.shape[-1]
        widths = [*[(0, 0)] * (mask.ndim - 1), (0, max(0, rest))]
        if mask.dtype is dtypes.bool_:
            mask = mask.pad(widths)
            allowed = mask if allowed is None else allowed & mask
        else:
            mask = mask.pad(widths, hidden)
            scores = scores + mask.cast(scores.dtype)
            seen = mask != hidden
            allowed = seen if allowed is None else allowed & seen
    if allowed is not None:
        scores = allowed.where(scores, hidden)
    shown = scores if mode == 2 else shown
    share = _softmax(scores, allowed, call.get("softmax_precision"))
    share = share.cast(q.dtype)
    found = share.matmul(repeat_heads(v, q.shape[1])).cast(v.dtype)
    shown = share if mode == 3 else shown.cast(q.dtype)
    return join_heads(found) if flat else found, k, v, shown


def _softmax(scores: Tensor, allowed: Tensor | None, precision: int | None) -> Tensor:
    """Softmax along the last axis, zeros in rows that may see nothing."""
    wide = scores if precision is None else scores.cast(dtypes.of(element_type(precision)))
    found = wide.softmax(-1)
    return found if allowed is None else allowed.any(-1, keepdim=True).where(found, 0.0)


def _allowed(call: Call, length: int, keys: int, past: int, valid: Tensor | None, q: Tensor) -> Tensor | None:
    """Which keys each query may see by causality, windows and the number of valid keys; None for all."""
    at, place = q._position(length).reshape(length, 1), q._position(keys)
    offset: Tensor | int = past
    rules: list[Tensor] = []
    if valid is not None:
        count = valid.cast(dtypes.int32).reshape(-1, 1, 1, 1)
        rules.append(place < count)
        offset = past if past else count - length
    here = at + offset
    left, right = call.get("left_window_size", -1), call.get("right_window_size", -1)
    if call.get("is_causal"):
        rules.append(place <= here)
    if left >= 0:
        rules.append(place >= here - left)
    if right >= 0:
        rules.append(place <= here + right)
    found = None
    for rule in rules:
        found = rule if found is None else found & rule
    return found


@operator("ai.onnx.preview.FlexAttention")
def flex_attention(call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention whose scores and shares go through graphs of the model."""
    wide = _softmax_type(call, q.dtype)
    half = math.sqrt(call.get("scale") or 1 / math.sqrt(q.shape[-1]))
    scores = (q * half).matmul((repeat_heads(k, q.shape[1]) * half).transpose()).cast(wide)
    share = _modified(call, "score_mod", scores).softmax(-1)
    share = _modified(call, "prob_mod", share)
    return share.matmul(repeat_heads(v, q.shape[1]).cast(wide)).cast(v.dtype)


def _softmax_type(call: Call, own: DType) -> DType:
    wanted = call.get("softmax_precision")
    if wanted:
        return dtypes.of(element_type(wanted))
    return own if own.bits >= 32 else dtypes.float32


def _modified(call: Call, name: str, x: Tensor) -> Tensor:
    graph: Subgraph | None = call.get(name)
    if graph is None:
        return x
    (found,) = graph(x)
    return call.tensor(found).cast(x.dtype)


@operator("RotaryEmbedding")
def rotary_embedding(call: Call, x: Tensor, cosine: Tensor, sine: Tensor, positions: Tensor | None = None) -> Tensor:
    """Pairs of elements turned by angles that grow with the position."""
    flat = x.ndim == 3
    heads = split_heads(x, call.get("num_heads")) if flat else x
    width = call.get("rotary_embedding_dim") or heads.shape[-1]
    c, s = (
        (table if positions is None else table.take(positions, 0)).unsqueeze(1).cast(x.dtype)
        for table in (cosine, sine)
    )
    turned, rest = heads.split([width, heads.shape[-1] - width], -1)
    pairs = call.get("interleaved", 0)
    a, b = _halves(turned, pairs)
    parts = [a * c - b * s, a * s + b * c]
    axis = -1
    found = parts[0].stack(parts[1], axis=axis).reshape(turned.shape) if pairs else parts[0].cat(parts[1], axis=axis)
    found = found if not rest.size else found.cat(rest, axis=axis)
    return join_heads(found) if flat else found


def _halves(x: Tensor, pairs: int) -> Sequence[Tensor]:
    """The first and the second element of each pair, which stand beside each other or half the width apart."""
    if not pairs:
        return x.chunk(2, -1)
    keep = [slice(None)] * (x.ndim - 1)
    return x.slice(*keep, slice(0, None, 2)), x.slice(*keep, slice(1, None, 2))


@operator("LinearAttention")
def linear_attention(
    call: Call,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    past: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A matrix for each head that keys and values are added to, and queries read, one place after the other."""
    heads, own = call.get("q_num_heads"), call.get("kv_num_heads")
    wide = dtypes.float32
    length, kind = q.shape[1], q.dtype
    queries, keys, values = (split_heads(part, n).cast(wide) for part, n in ((q, heads), (k, own), (v, own)))
    scale = call.get("scale") or 1 / math.sqrt(queries.shape[-1])
    state = (
        past.cast(wide)
        if past is not None
        else Tensor.zeros(q.shape[0], own, keys.shape[-1], values.shape[-1], device=q.backend)
    )
    fade = None if decay is None else split_heads(decay, own).cast(wide).exp()
    rate = None if beta is None else beta.cast(wide).transpose(1, 2).unsqueeze(-1)
    rows = []
    for t in range(length):
        query, key, value = (_at(part, t) for part in (queries, keys, values))  # (batch, heads, 1, width)
        if fade is not None:
            state = state * _at(fade, t).transpose()
        if rate is not None:
            value = (value - key.matmul(state)) * _at(rate, t)
        state = state + key.transpose() * value
        rows.append(query.matmul(repeat_heads(state, heads)) * scale)
        if length > EAGER_FROM:
            rows[-1].realize(state)
    found = rows[0].cat(*rows[1:], axis=2)
    return join_heads(found).cast(kind), state.cast(past.dtype if past is not None else kind)


EAGER_FROM = 8  # longer chains of steps are computed step by step: one graph of them all is slow to plan


def _at(x: Tensor, t: int) -> Tensor:
    return x.slice(slice(None), slice(None), slice(t, t + 1))
