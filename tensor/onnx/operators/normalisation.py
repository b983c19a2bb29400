"""Normalisation: by statistics of the batch, of each element's neighbours, or given ones."""

from __future__ import annotations

from amdrv.tensor import dtypes
from amdrv.tensor.onnx.registry import Call, Host, Operator, element_type, registrar
from amdrv.tensor.onnx.windows import Windows
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


@operator("BatchNormalization")
def batch_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor | tuple[Tensor, ...]:
    """Normalised along axis 1, by given statistics, or in training by the batch's own, which move the given ones."""
    eps = float(call.get("epsilon", 1e-5))
    training = call.get("training_mode", 0) if call.opset >= 14 else call.output_count > 1
    if not training:
        return x.batchnorm(scale, bias, mean, var, eps).cast(x.dtype)
    axes = (0, *range(2, x.ndim))
    own_mean, own_var = x.mean(axes), x.var(axes)
    keep = call.get("momentum", 0.9)
    moved = [(old * keep + new * (1 - keep)).cast(old.dtype) for old, new in ((mean, own_mean), (var, own_var))]
    found = x.batchnorm(scale, bias, own_mean, own_var, eps).cast(x.dtype)
    # Before version 14 there were also the batch's own statistics.
    return (found, *moved) if call.opset >= 14 else (found, *moved, own_mean, own_var)


@operator("InstanceNormalization")
def instance_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each channel of each sample by its own mean and variance."""
    found = x.layernorm(tuple(range(2, x.ndim)), float(call.get("epsilon", 1e-5)))
    return _scaled(found, scale, bias, x)


def _scaled(found: Tensor, scale: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    shape = (-1, *(1,) * (x.ndim - 2))
    return (found * scale.reshape(shape) + bias.reshape(shape)).cast(x.dtype)


@operator("GroupNormalization")
def group_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Groups of channels of each sample by their own mean and variance."""
    groups = call.get("num_groups")
    wide = x.cast(_stash(call, x))
    found = wide.reshape(x.shape[0], groups, -1).layernorm(-1, float(call.get("epsilon", 1e-5))).reshape(x.shape)
    if call.opset < 21:  # one scale and bias for each group
        each = x.shape[1] // groups
        scale, bias = (part.unsqueeze(-1).expand(groups, each).flatten() for part in (scale, bias))
    return _scaled(found.cast(x.dtype), scale, bias, x)


def _stash(call: Call, x: Tensor) -> dtypes.DType:
    """The type that statistics are computed in."""
    wanted = dtypes.of(element_type(call.get("stash_type", 1)))
    return x.dtype if x.dtype.bits > wanted.bits else wanted


@operator("LayerNormalization")
def layer_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean 0 and variance 1 over the last axes; also the mean and 1 / deviation."""
    wide = x.cast(_stash(call, x))
    axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
    mean = wide.mean(axes, keepdim=True)
    away = wide - mean
    inverse = ((away * away).mean(axes, keepdim=True) + float(call.get("epsilon", 1e-5))).rsqrt()
    found = (away * inverse).cast(x.dtype) * scale
    found = found if bias is None else found + bias
    return found.cast(x.dtype), mean, inverse


@operator("RMSNormalization")
def rms_normalization(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    """Mean square 1 over the last axes."""
    wide = x.cast(_stash(call, x))
    axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
    inverse = ((wide * wide).mean(axes, keepdim=True) + float(call.get("epsilon", 1e-5))).rsqrt()
    return ((wide * inverse).cast(x.dtype) * scale).cast(scale.dtype)


@operator("LpNormalization")
def lp_normalization(call: Call, x: Tensor) -> Tensor:
    """p-norm 1 along an axis; zeros stay."""
    size = x.abs()
    axis = call.get("axis", -1)
    if call.get("p", 2) == 1:
        norm = size.sum(axis, keepdim=True)
    else:
        norm = (size * size).sum(axis, keepdim=True).sqrt()
    return (norm == 0).where(0.0, x / norm)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(call: Call, x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over some axes."""
    axes = tuple(call.get("axes") or (0, 2, 3))
    away = x - x.mean(axes, keepdim=True)
    return away / ((away * away).mean(axes, keepdim=True).sqrt() + 1e-9)


@operator("LRN")
def lrn(call: Call, x: Tensor) -> Tensor:
    """Divided by a power of the sum of squares of neighbouring channels."""
    size = int(call.get("size"))
    before = (size - 1) // 2
    near = Windows((size,), (1,), (1,), (before,), (size - 1 - before,), (0,), (x.shape[1],))
    total = near.of((x * x).transpose(1, -1)).sum(-1).transpose(1, -1)
    alpha, beta, bias = (float(call.get(name, own)) for name, own in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    found: Tensor = x / (total * (alpha / size) + bias) ** beta
    return found


@operator("Dropout")
def dropout(call: Call, x: Tensor, ratio: Host | None = None, training: Host | None = None) -> tuple[Tensor, Tensor]:
    """Zeros with some chance in training, else the same; also where something is kept."""
    chance = float(ratio.item()) if ratio is not None else call.get("ratio", 0.5)
    chance = chance if training is not None and bool(training.item()) else 0.0
    if not chance:
        return x, Tensor.full(x.shape, True, device=x.backend)
    seed = call.get("seed")
    keep = Tensor.rand(*x.shape, seed=call.seed if seed is None else seed, device=x.backend) >= chance
    return keep.where(x * (1 / (1 - chance) if chance < 1 else 0.0), 0.0), keep
