"""Random operators. With a seed a model gives the same numbers in every run; without, others in each."""

from __future__ import annotations

import struct

from amdrv.errors import InvalidArgument
from amdrv.tensor import dtypes
from amdrv.tensor.dtypes import DType
from amdrv.tensor.onnx.registry import Call, Operator, Value, describe, element_type, registrar
from amdrv.tensor.tensor import Tensor

OPERATORS: dict[str, Operator] = {}
operator = registrar(OPERATORS)


def seed(call: Call) -> int:
    """The seed of a call: ONNX's is a float, whose bits are as good as any."""
    given = call.get("seed")
    return call.seed if given is None else int.from_bytes(struct.pack("d", given), "little")


def _like(call: Call, like: Value) -> tuple[list[int], DType]:
    if like is None or isinstance(like, (list, dict)):
        raise InvalidArgument(f"expected a tensor, not {describe(like)}")
    own = like.dtype if "dtype" not in call.attributes else element_type(call.get("dtype"))
    return list(like.shape), dtypes.of(own)


def _plain(call: Call) -> tuple[list[int], DType]:
    return call.get("shape"), dtypes.of(element_type(call.get("dtype", 1)))


def _normal(call: Call, shape: list[int], dtype: DType) -> Tensor:
    found = Tensor.randn(*shape, seed=seed(call), device=call.device)
    return (found * call.number("scale", 1.0) + call.number("mean", 0.0)).cast(dtype)


def _uniform(call: Call, shape: list[int], dtype: DType) -> Tensor:
    low, high = call.number("low", 0.0), call.number("high", 1.0)
    return Tensor.uniform(*shape, low=low, high=high, seed=seed(call), device=call.device).cast(dtype)


@operator("RandomNormal")
def random_normal(call: Call) -> Tensor:
    return _normal(call, *_plain(call))


@operator("RandomUniform")
def random_uniform(call: Call) -> Tensor:
    return _uniform(call, *_plain(call))


@operator("RandomNormalLike")
def random_normal_like(call: Call, like: Value) -> Tensor:
    return _normal(call, *_like(call, like))


@operator("RandomUniformLike")
def random_uniform_like(call: Call, like: Value) -> Tensor:
    return _uniform(call, *_like(call, like))


@operator("Bernoulli")
def bernoulli(call: Call, chance: Tensor) -> Tensor:
    shape, dtype = _like(call, chance)
    return (Tensor.rand(*shape, seed=seed(call), device=call.device) < chance).cast(dtype)


@operator("Multinomial")
def multinomial(call: Call, logs: Tensor) -> Tensor:
    """Classes drawn by the logarithms of their chances: the greatest with Gumbel noise on it."""
    batch, classes = logs.shape
    draws = call.integer("sample_size", 1)
    noise = -(-Tensor.rand(batch, draws, classes, seed=seed(call), device=call.device).maximum(1e-30).log()).log()
    found = (logs.unsqueeze(1) + noise).argmax(-1)
    return found.cast(dtypes.of(element_type(call.get("dtype", 6))))
