"""What ONNX Runtime's optimisers make of transformers: attention layers, embeddings (the domain com.microsoft)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from amdrv.errors import InvalidArgument, Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.onnx.operators.attention import join_heads, repeat_heads, rotary_embedding, split_heads
from amdrv.tensor.onnx.operators.microsoft import attended, normalised
from amdrv.tensor.onnx.operators.quantised import matmul_integer_to_float
from amdrv.tensor.onnx.registry import Call, Host, Operator, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)
DOMAIN = "com.microsoft"


@operator(f"{DOMAIN}.Attention")
def attention(
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    added: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Query, key and value by one product, and their attention; also keys and values with the past ones before them."""
    made = x.matmul(weight)
    return _attention(call, made if bias is None else made + bias, mask, past, added)


@operator(f"{DOMAIN}.QAttention")
def q_attention(
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    mask: Tensor | None = None,
    x_zero: Tensor | None = None,
    weight_zero: Tensor | None = None,
    past: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The same of quantised numbers."""
    made = matmul_integer_to_float(call, x, weight, x_scale, weight_scale, x_zero, weight_zero, bias)
    return _attention(call, made, mask, past, None)


def _attention(
    call: Call, made: Tensor, mask: Tensor | None, past: Tensor | None, added: Tensor | None
) -> tuple[Tensor, ...]:
    if call.get("do_rotary") or call.get("past_present_share_buffer"):
        raise Unsupported(f"{call.op_type} with do_rotary or past_present_share_buffer")
    sizes = call.get("qkv_hidden_sizes") or [made.shape[-1] // 3] * 3
    q, k, v = (split_heads(part, call.get("num_heads")) for part in made.split(list(sizes), -1))
    if past is not None:
        k, v = past[0].cat(k, axis=2), past[1].cat(v, axis=2)
    seen = None if mask is None else _seen(call, mask, q.shape[0], k.shape[2])
    found = attended(call, q, k, v, seen, added)
    return (found, k.stack(v)) if call.output_count > 1 else (found,)


def _seen(call: Call, mask: Tensor, batch: int, keys: int) -> Tensor:
    """Which keys count: given as their number, as their end and their start, or one by one."""
    if mask.shape in ((batch, keys), (batch, mask.shape[-2] if mask.ndim > 1 else 0, keys)):
        return mask.cast(dtypes.bool_).reshape(batch, 1, -1, keys)
    if mask.shape not in ((batch,), (2 * batch,)):
        raise Unsupported(f"{call.op_type} with a mask of {mask.shape}")
    place, limits = mask._position(keys).cast(mask.dtype), mask.reshape(-1, batch, 1, 1, 1)
    seen = place < limits[0]
    return seen & (place >= limits[1]) if mask.size > batch else seen


@operator(f"{DOMAIN}.EmbedLayerNormalization")
def embed_layer_normalization(
    call: Call,
    words: Tensor,
    segments: Tensor | None,
    word_table: Tensor,
    place_table: Tensor,
    segment_table: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    mask: Tensor | None = None,
    places: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """What tables have for words, places and segments, summed, normalised; also how many words count, and the sum."""
    batch, length = words.shape
    near = place_table.slice(slice(0, length)) if places is None else place_table.take(places, 0)
    total = word_table.take(words, 0) + near
    if segments is not None and segment_table is not None:
        total = total + segment_table.take(segments, 0)
    found, _, _ = normalised(total, scale, shift, call.number("epsilon", 1e-12))
    counted = Tensor.zeros(batch, dtype=dtypes.int32, device=words.backend)
    return found, counted if mask is None else mask.sum(-1).cast(dtypes.int32), total


@operator(f"{DOMAIN}.RotaryEmbedding")
def rotary(call: Call, x: Tensor, places: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Pairs of elements turned by angles that grow with the position; one position is that of the first."""
    if call.get("is_packed_batching") or call.get("scale", 1.0) != 1.0:
        raise Unsupported("RotaryEmbedding with is_packed_batching or scale")
    length = x.shape[-2]
    if places.size == 1:
        places = (places.reshape(1, 1) + places._position(length).cast(places.dtype)).expand(x.shape[0], length)
    if x.ndim == 3 and not call.get("num_heads"):
        x = x.reshape(*x.shape[:2], -1, 2 * cosine.shape[-1]).transpose(1, 2)
        return join_heads(rotary_embedding(call, x, cosine, sine, places))
    return rotary_embedding(call, x, cosine, sine, places)


@operator(f"{DOMAIN}.GroupQueryAttention")
def group_query_attention(
    call: Call,
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    last: Tensor,
    total: Host,
    cosine: Tensor | None = None,
    sine: Tensor | None = None,
    places: Tensor | None = None,
    added: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Causal attention whose heads share keys; the past may differ in length. Also the keys and values from now on.

    ``last``: the place of the last valid key of each sequence. ``total``: how many keys the longest one has.
    """
    heads, own = int(call.get("num_heads")), int(call.get("kv_num_heads"))
    if k is None or v is None:
        width = q.shape[-1] // (heads + 2 * own)
        q, k, v = q.split([heads * width, own * width, own * width], -1)
    q, k, v = split_heads(q, heads), split_heads(k, own), split_heads(v, own)
    batch, _, length, width = q.shape
    count = max(int(total.reshape(())), 0 if past_key is None else past_key.shape[2])
    before = (last.reshape(batch, 1).cast(dtypes.int64) + (1 - length)).maximum(0)  # keys there were: (batch, 1)
    at = before + q._position(length).cast(dtypes.int64)
    if call.get("do_rotary"):
        if cosine is None or sine is None:
            raise InvalidArgument("GroupQueryAttention with do_rotary, but without its tables")
        turned = {"interleaved": call.get("rotary_interleaved", 0), "rotary_embedding_dim": 2 * cosine.shape[-1]}
        turn = replace(call, attributes=turned)
        q, k = (rotary_embedding(turn, part, cosine, sine, at if places is None else places) for part in (q, k))
    k, v = _appended(past_key, k, before, count), _appended(past_value, v, before, count)
    key = q._position(count).cast(dtypes.int64)
    place = at.reshape(batch, 1, length, 1)
    seen, window = key <= place, call.integer("local_window_size", -1)
    seen = seen & (key > place - window) if window > 0 else seen
    scale = call.number("scale", 0.0) or 1 / math.sqrt(width)
    scores = q.matmul(repeat_heads(k, heads).transpose()) * scale
    if cap := call.number("softcap", 0.0):
        scores = (scores / cap).tanh() * cap
    scores = seen.where(scores if added is None else scores + added, -np.inf)
    if call.get("smooth_softmax"):
        raise Unsupported("GroupQueryAttention with smooth_softmax")
    return join_heads(scores.softmax(-1).matmul(repeat_heads(v, heads))), k, v


def _appended(past: Tensor | None, new: Tensor, before: Tensor, count: int) -> Tensor:
    """The first ``before`` of the past, then the new ones, in ``count`` places: (batch, heads, place, width)."""
    batch, heads, length, width = new.shape
    place = new._position(count).cast(dtypes.int64).reshape(1, 1, count, 1)
    first = before.reshape(batch, 1, 1, 1)
    at = (place - first).clip(0, length - 1).expand(batch, heads, count, width)
    fresh = (place < first + length).where(new.gather(2, at), 0.0)
    if past is None or not past.shape[2]:
        return fresh
    old = past.pad(((0, 0), (0, 0), (0, count - past.shape[2]), (0, 0)))
    return (place < first).where(old, fresh)


@operator(f"{DOMAIN}.CDist")
def cdist(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Distances between the rows of a and those of b."""
    metric = call.get("metric", "sqeuclidean")
    squares = (a.unsqueeze(1) - b).square().sum(-1)
    if metric not in ("euclidean", "sqeuclidean"):
        raise Unsupported(f"CDist with metric {metric}")
    return squares.sqrt() if metric == "euclidean" else squares
