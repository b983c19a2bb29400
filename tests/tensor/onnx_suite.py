"""All tests that come with the package onnx: nodes, small graphs and light models. Run by ``tools/test onnx``."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")

from onnx.backend.test import BackendTest

from amdrv.tensor.onnx import conformance
from amdrv.tensor.onnx.backend import AmdrvBackend


def suite() -> dict[str, type[unittest.TestCase]]:
    conformance.cases()  # without the warnings that making them gives
    made = BackendTest(AmdrvBackend, __name__)
    for name in conformance.exclusions():
        made.exclude(f"^{name}_cpu$")
    found: dict[str, type[unittest.TestCase]] = made.test_cases
    for cases in found.values():
        for name in [name for name in vars(cases) if name.endswith("_cuda")]:
            delattr(cases, name)
    return found


globals().update(suite())


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package writes the inputs of the light models to a folder of its own."""
    monkeypatch.setenv("ONNX_MODELS", str(tmp_path))
    yield
