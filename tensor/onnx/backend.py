"""The interface of ``onnx.backend``: what ONNX's own tests run models through.

Device "CPU" is the host; "CUDA" means a GPU there and is AMD's here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import ModelProto
from onnx.backend.base import Backend, BackendRep

from amdrv.tensor.onnx.model import Model, load

DEVICES = {"CPU": "CPU", "CUDA": "AMD"}


class Prepared(BackendRep):
    """A loaded model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(self, inputs: Any, **options: Any) -> tuple[Any, ...]:
        """The outputs for a sequence of inputs, or for a mapping by name."""
        given: Sequence[Any] = (
            [inputs.get(port.name) for port in self.model.inputs] if isinstance(inputs, dict) else inputs
        )
        return tuple(self.model.run(given))


class AmdrvBackend(Backend):
    """Runs ONNX models with lazy tensors."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **options: Any) -> Prepared:
        """Load a model. Raises what ``load`` raises."""
        return Prepared(load(model, DEVICES.get(device.partition(":")[0], device)))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **options: Any) -> tuple[Any, ...]:
        """Load a model and run it once."""
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether tensors can live there."""
        return device.partition(":")[0] in DEVICES
