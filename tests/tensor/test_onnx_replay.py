"""Runs of a model that repeat an earlier one give what running it anew gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="importing ONNX models needs the package onnx")

from onnx import parser

from amdrv.errors import InvalidArgument
from amdrv.tensor import engine, onnx
from amdrv.tensor.onnx.graph import Program
from amdrv.tensor.onnx.replay import KEPT_MAX

Array = NDArray[Any]


def model(body: str, device: str = "CPU") -> onnx.Model:
    return onnx.load(parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> main ' + body), device)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the graph of a model is built."""
    found: list[int] = []
    run: Callable[..., Any] = Program.run

    def counted(self: Program, *given: Any) -> Any:
        found.append(1)
        return run(self, *given)

    monkeypatch.setattr(Program, "run", counted)
    return found


MIXED = """(float[n, 3] x) => (float[n, 3] y, int64[2] s, seq(float[n, 3]) q, float[n, 3] same, float[2] c) {
  y = Exp (x)
  s = Shape (x)
  q = SequenceConstruct (x, y)
  same = Identity (x)
  c = Constant <value_floats = [1.0, 2.0]> ()
}"""


@pytest.mark.parametrize("device", ["CPU", "AMD"])
def test_later_runs_give_their_own_results(device: str, built: list[int]) -> None:
    mixed = model(MIXED, device)
    kept = []
    for k in range(6):
        x = np.full((4, 3), k / 4, np.float32)
        kept.append((x, mixed.run([x])))
    for x, (y, shape, sequence, same, constant) in kept:
        np.testing.assert_allclose(y, np.exp(x), rtol=1e-6)
        np.testing.assert_allclose(sequence, [x, np.exp(x)], rtol=1e-6)
        np.testing.assert_array_equal(same, x)
        assert (shape.tolist(), constant.tolist()) == ([4, 3], [1, 2])
    assert len(built) == 2


def test_inputs_of_other_shapes_run_anew(built: list[int]) -> None:
    mixed = model(MIXED)
    for n in (1, 2, 3, 1, 2, 3, 1, 2, 3):
        y, shape, *_ = mixed.run([np.full((n, 3), n, np.float32)])
        np.testing.assert_allclose(y, np.full((n, 3), np.exp(n)), rtol=1e-6)
        assert shape.tolist() == [n, 3]
    assert len(built) == 6


def test_few_recordings_are_kept(built: list[int]) -> None:
    mixed = model(MIXED)
    for n in range(1, KEPT_MAX + 2):
        for _ in range(3):
            mixed.run([np.zeros((n, 3), np.float32)])
    before = len(built)
    mixed.run([np.zeros((1, 3), np.float32)])  # the first one has gone
    assert len(built) == before + 1


def test_a_model_that_looks_at_values_sees_those_of_each_run() -> None:
    looking = model("(float[n] x) => (int64[1, m] at) { at = NonZero (x) }")
    for k in range(5):
        x = np.array([0, 1, 2, 0], np.float32)
        x[k % 4] = k % 2
        (found,) = looking.run([x])
        np.testing.assert_array_equal(found, np.argwhere(x).T)


def test_a_scalar_that_decides_a_shape_is_read_in_each_run() -> None:
    tiled = model("(float[2] x, int64[1] n) => (float[m] y) { y = Tile (x, n) }")
    for k in (1, 2, 3, 2, 1):
        (found,) = tiled.run([np.arange(2, dtype=np.float32), np.array([k])])
        np.testing.assert_array_equal(found, np.tile(np.arange(2), k))


def test_random_numbers_differ_between_runs() -> None:
    noisy = model("(float[64] x) => (float[64] y) { noise = RandomNormalLike (x) y = Add (x, noise) }")
    found = [noisy.run([np.zeros(64, np.float32)])[0] for _ in range(4)]
    assert all(np.abs(a - b).max() > 0.1 for a, b in itertools.pairwise(found))


def test_a_run_that_is_watched_is_not_repeated() -> None:
    mixed, x = model(MIXED), np.ones((2, 3), np.float32)
    for _ in range(3):
        mixed.run([x])
    with engine.recorded(watch=True) as log:
        mixed.run([x])
    assert log.runs


def test_wrong_inputs_are_refused_in_each_run() -> None:
    mixed = model(MIXED)
    for _ in range(4):
        mixed.run([np.zeros((2, 3), np.float32)])
        with pytest.raises(InvalidArgument, match="was given"):
            mixed.run([np.zeros((2, 4), np.float32)])
