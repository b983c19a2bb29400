"""What Triton compiles, run through the public surface and compared with NumPy. Needs the package triton."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import amdrv
from amdrv.runtime.device import Device

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)
NAME = "emu:gfx1100#176"  # a card of this file's own
SOURCE = Path(__file__).parents[1] / "emulator" / "isa" / "triton_kernels.py"
RANDOM = np.random.default_rng(20260917)

Launch = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what Triton compiles."""
    folder = tmp_path_factory.mktemp("triton")
    subprocess.run([sys.executable, SOURCE, folder], check=True, capture_output=True, timeout=100)
    return folder


@pytest.fixture(scope="module")
def dev() -> Iterator[Device]:
    with amdrv.open(NAME) as device:
        yield device


@pytest.fixture
def launch(kernels: Path, dev: Device) -> Launch:
    """Launch a compiled case with arrays copied to the device, return the array that it wrote."""

    def run(case: str, grid: int | Sequence[int], arguments: Sequence[object], out: int) -> np.ndarray:
        about = json.loads((kernels / f"{case}.json").read_text())
        values = [dev.array(value) if isinstance(value, np.ndarray) else value for value in arguments]
        kernel = dev.load((kernels / f"{case}.hsaco").read_bytes())[about["kernel"]]
        # Two pointers to scratch memory, which these kernels have no use for, follow a Triton kernel's own arguments.
        kernel.launch(grid, about["items"], (*values, None, None), shared_bytes=about["lds"])
        wrote = arguments[out]
        assert isinstance(wrote, np.ndarray)
        return values[out].numpy(wrote.dtype, wrote.shape)

    return run


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_vector_add(launch: Launch) -> None:
    x, y = floats(3000), floats(3000)
    assert np.array_equal(launch("vector_add", 3, (x, y, np.zeros_like(x), 3000), 2), x + y)


def test_softmax(launch: Launch) -> None:
    x = floats(8, 784) * 3
    powers = np.exp(x.astype(float) - x.max(1, keepdims=True))
    result = launch("softmax", 8, (x, np.zeros_like(x), 784), 1)
    np.testing.assert_allclose(result, powers / powers.sum(1, keepdims=True), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["fp16", "bf16", "fp32", "fp8"])
def test_matmul(launch: Launch, kind: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    types = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp32": np.float32, "fp8": ml_dtypes.float8_e5m2}
    a, b = floats(128, 64).astype(types[kind]), floats(64, 128).astype(types[kind])
    as_bytes = [value.view(np.uint8) for value in (a, b)]
    result = launch(f"matmul_{kind}", (2, 2), (*as_bytes, np.zeros((128, 128), np.float32), 128, 128, 64), 2)
    exact = a.astype(float) @ b.astype(float)
    magnitudes = np.abs(a.astype(float)) @ np.abs(b.astype(float))
    assert (np.abs(result - exact) <= 2 * 64 * 2.0**-24 * magnitudes).all()


def test_layernorm(launch: Launch) -> None:
    x, weight, bias = floats(4, 400), floats(400), floats(400)
    exact = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * weight + bias
    result = launch("layernorm", 4, (x, weight, bias, np.zeros_like(x), 400), 3)
    np.testing.assert_allclose(result, exact, rtol=1e-5, atol=2e-5)


def test_dropout(launch: Launch) -> None:
    x = floats(2048)
    result = launch("dropout", 4, (x, np.ones_like(x), np.float32(0.3), 42), 1)
    kept = result != 0
    assert 0.65 < kept.mean() < 0.75
    np.testing.assert_allclose(result[kept], (x / np.float32(0.7))[kept], rtol=1e-6)


def test_histogram(launch: Launch) -> None:
    x = RANDOM.integers(0, 16, 4096).astype(np.int32)
    assert np.array_equal(launch("histogram", 4, (x, np.zeros(16, np.int32)), 1), np.bincount(x, minlength=16))


def test_functions(launch: Launch) -> None:
    x = floats(1024) * 2
    wide = x.astype(float)
    circular = np.sin(wide) + np.cos(wide) * np.exp2(wide)
    erf = np.array([math.erf(value) for value in wide])
    exact = circular + np.log(np.abs(wide) + 1) + np.sqrt(np.abs(wide)) + erf + np.floor(wide)
    np.testing.assert_allclose(launch("functions", 2, (x, np.zeros_like(x)), 1), exact, rtol=1e-5, atol=2e-5)


def test_attention(launch: Launch) -> None:
    q, k, v = (floats(128, 64).astype(np.float16) for _ in range(3))
    score = q.astype(float) @ k.astype(float).T * 0.125
    share = np.exp(score - score.max(1, keepdims=True))
    exact = share / share.sum(1, keepdims=True) @ v.astype(float)
    result = launch("attention", 2, (q, k, v, np.zeros((128, 64), np.float32), 128, np.float32(0.125)), 3)
    np.testing.assert_allclose(result, exact, rtol=0, atol=4e-3)  # shares are rounded to fp16


def test_sort(launch: Launch) -> None:
    x = RANDOM.integers(-1000, 1000, 512).astype(np.int32)
    assert np.array_equal(launch("sort", 1, (x, np.zeros_like(x)), 1), np.sort(x))


def test_cumsum(launch: Launch) -> None:
    x = floats(1024)
    result = launch("cumsum", 1, (x, np.zeros_like(x)), 1)
    np.testing.assert_allclose(result, np.cumsum(x.astype(float)), rtol=0, atol=1e-4)
