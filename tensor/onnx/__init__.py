"""ONNX models as functions of lazy tensors (needs the extra ``amdrv[onnx]``)."""

from __future__ import annotations

from amdrv.errors import Unsupported

try:
    import onnx as _onnx  # noqa: F401
except ImportError as error:
    raise Unsupported("importing ONNX models needs the package onnx: pip install 'amdrv[onnx]'") from error

from amdrv.tensor.onnx.graph import UnsupportedOperators
from amdrv.tensor.onnx.model import Model, Port, load

__all__ = ["Model", "Port", "UnsupportedOperators", "load"]
