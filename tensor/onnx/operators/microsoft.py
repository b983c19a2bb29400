"""Operators of ONNX Runtime that its optimiser and exporters write (the domain com.microsoft)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from amdrv.errors import InvalidArgument, Unsupported
from amdrv.tensor import dtypes
from amdrv.tensor.onnx.operators.attention import join_heads, split_heads
from amdrv.tensor.onnx.operators.convolution import conv
from amdrv.tensor.onnx.operators.matrices import gemm
from amdrv.tensor.onnx.registry import Call, Operator, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)
DOMAIN = "com.microsoft"

ACTIVATIONS: Mapping[str, Callable[[Tensor, list[float]], Tensor]] = {
    "": lambda x, given: x,
    "Relu": lambda x, given: x.relu(),
    "Sigmoid": lambda x, given: x.sigmoid(),
    "Tanh": lambda x, given: x.tanh(),
    "LeakyRelu": lambda x, given: x.leaky_relu(given[0]),
    "Clip": lambda x, given: x.clip(given[0], given[1]),
    "HardSigmoid": lambda x, given: (x * given[0] + given[1]).clip(0.0, 1.0),
}


def _activated(call: Call, x: Tensor, parameters: list[float]) -> Tensor:
    name = call.get("activation", "")
    if name not in ACTIVATIONS:
        raise Unsupported(f"{call.op_type} with activation {name}")
    return ACTIVATIONS[name](x, parameters)


@operator(f"{DOMAIN}.FusedConv")
def fused_conv(
    call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None, added: Tensor | None = None
) -> Tensor:
    """A convolution, perhaps something added, and an activation function."""
    found = conv(call, x, weight, bias)
    return _activated(call, found if added is None else found + added, call.get("activation_params") or [])


@operator(f"{DOMAIN}.FusedGemm")
def fused_gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Gemm and an activation function."""
    return _activated(call, gemm(call, a, b, c), [call.get("activation_alpha", 0.01), call.get("activation_beta", 0.0)])


@operator(f"{DOMAIN}.FusedMatMul")
def fused_matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """A matrix product with transposed factors and a factor before it."""
    return _turned(call, a, "A").matmul(_turned(call, b, "B")) * float(call.get("alpha", 1.0))


def _turned(call: Call, x: Tensor, side: str) -> Tensor:
    """A factor with its last axes as a matrix product has them: the rows may stand before the batches."""
    if call.get(f"transBatch{side}") and x.ndim > 2:
        x = x.permute(*range(1, x.ndim - 1), 0, x.ndim - 1)
    return x.transpose() if call.get(f"trans{side}") and x.ndim > 1 else x


@operator(f"{DOMAIN}.Gelu", f"{DOMAIN}.BiasGelu")
def gelu(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gelu, perhaps of a sum."""
    return (x if bias is None else x + bias).gelu()


@operator(f"{DOMAIN}.FastGelu")
def fast_gelu(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gelu by tanh, perhaps of a sum."""
    return (x if bias is None else x + bias).gelu("tanh")


@operator(f"{DOMAIN}.QuickGelu")
def quick_gelu(call: Call, x: Tensor) -> Tensor:
    """x * sigmoid(alpha * x)."""
    return x * (x * float(call.get("alpha", 1.702))).sigmoid()


@operator(f"{DOMAIN}.SkipLayerNormalization")
def skip_layer_normalization(
    call: Call, x: Tensor, skip: Tensor, scale: Tensor, shift: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor | None, ...]:
    """The layer normalisation of a sum; also the mean, 1 / deviation and the sum."""
    total = x + skip if bias is None else x + skip + bias
    return (*normalised(total, scale, shift, call.number("epsilon", 1e-5)), total)


def normalised(x: Tensor, scale: Tensor | None, shift: Tensor | None, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows with mean 0 and deviation 1, scaled and shifted; the mean and 1 / deviation that they had."""
    mean = x.mean(-1, keepdim=True)
    away = x - mean
    inverse = ((away * away).mean(-1, keepdim=True) + epsilon).rsqrt()
    found = away * inverse if scale is None else away * inverse * scale
    return found if shift is None else found + shift, mean, inverse


@operator("SimplifiedLayerNormalization", f"{DOMAIN}.SimplifiedLayerNormalization")
def simplified_layer_normalization(call: Call, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean square 1 over the last axes; also 1 / root mean square."""
    axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
    wide = x if x.dtype.bits >= 32 else x.cast(dtypes.float32)
    inverse = ((wide * wide).mean(axes, keepdim=True) + float(call.get("epsilon", 1e-5))).rsqrt()
    return (wide * inverse).cast(x.dtype) * scale, inverse


@operator(f"{DOMAIN}.SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(
    call: Call, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor | None, ...]:
    """The same of a sum, which is the last result."""
    total = x + skip if bias is None else x + skip + bias
    found, inverse = simplified_layer_normalization(call, total, scale)
    return found, None, inverse, total


@operator(f"{DOMAIN}.MultiHeadAttention")
def multi_head_attention(
    call: Call,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    padding: Tensor | None = None,
    added: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of (batch, length, heads * width); also keys and values with the past ones before them."""
    heads = call.get("num_heads")
    if not q.ndim == k.ndim == v.ndim == 3 or (padding is not None and padding.ndim != 2):
        raise Unsupported("MultiHeadAttention with packed inputs, or a mask that is not (batch, keys)")
    if bias is not None:
        a, b, c = bias.split([q.shape[-1], k.shape[-1], v.shape[-1]])
        q, k, v = q + a, k + b, v + c
    q, k, v = (split_heads(part, heads) for part in (q, k, v))
    if past_key is not None and past_value is not None:
        k, v = past_key.cat(k, axis=2), past_value.cat(v, axis=2)
    seen = None if padding is None else padding.cast(dtypes.bool_).reshape(padding.shape[0], 1, 1, -1)
    return attended(call, q, k, v, seen, added), k, v


def attended(
    call: Call, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, added: Tensor | None = None
) -> Tensor:
    """Attention of (batch, heads, length, width), joined. Keys that are not ``seen`` are only made improbable."""
    scores = q.matmul(k.transpose()) * float(call.get("scale") or q.shape[-1] ** -0.5)
    if seen is not None:
        scores = seen.where(scores, scores + float(call.get("mask_filter_value", -10000.0)))
    scores = scores if added is None else scores + added
    if call.get("unidirectional"):
        length, keys = scores.shape[-2:]
        ahead = q._position(keys) > q._position(length).reshape(length, 1) + (keys - length)
        scores = ahead.where(float("-inf"), scores)
    return join_heads(scores.softmax(-1).matmul(v))


@operator(f"{DOMAIN}.MatMulNBits")
def matmul_n_bits(
    call: Call,
    a: Tensor,
    b: Tensor,
    scales: Tensor,
    zeros: Tensor | None = None,
    groups: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """A matrix product with weights of 4 or 8 bits, (outputs, blocks, bytes), each block with a scale of its own."""
    bits, block, n, k = (call.get(name) for name in ("bits", "block_size", "N", "K"))
    if groups is not None or bits not in (4, 8) or not block:
        raise Unsupported("MatMulNBits with g_idx, or of other than 4 or 8 bits")
    blocks = -(-k // block)
    weight = _unpacked(b.reshape(n, -1), bits).reshape(n, blocks, block)
    if zeros is None:
        offset: Tensor | float = float(1 << (bits - 1))
    elif zeros.dtype.is_float:
        offset = zeros.reshape(n, blocks, 1)
    else:
        offset = _unpacked(zeros.reshape(n, -1), bits).slice(slice(None), slice(0, blocks)).unsqueeze(-1)
    real = (weight - offset) * scales.reshape(n, blocks, 1).cast(dtypes.float32)
    found = a.matmul(real.reshape(n, blocks * block).slice(slice(None), slice(0, k)).cast(a.dtype).transpose())
    return found if bias is None else found + bias


def _unpacked(x: Tensor, bits: int) -> Tensor:
    """Numbers packed into bytes along the last axis, the first in the low bits, as floats."""
    if x.dtype is not dtypes.uint8:
        raise InvalidArgument(f"packed weights of {x.dtype}")
    if bits == 8:
        return x.cast(dtypes.float32)
    both = (x & 15).stack(x >> 4, axis=-1)
    return both.reshape(*x.shape[:-1], 2 * x.shape[-1]).cast(dtypes.float32)
