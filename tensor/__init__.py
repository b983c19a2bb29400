"""The tensor compiler: lazy arrays, one IR, rules, kernels for the GPU and for the host. See ``docs/tensor.md``."""

from __future__ import annotations

from amdrv.tensor.capture import jit
from amdrv.tensor.dtypes import DType
from amdrv.tensor.tensor import Tensor

__all__ = ["DType", "Tensor", "jit"]
