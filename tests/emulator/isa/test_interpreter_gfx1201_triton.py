"""What Triton compiles for gfx1201, run by the interpreter and compared with NumPy. Needs the package triton."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from amdrv.emulator.isa.disassembler import disassemble
from amdrv.runtime import code_object

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)
SOURCE = Path(__file__).with_name("triton_kernels.py")
RANDOM = np.random.default_rng(20260918)
NOTHING = 0  # two pointers to scratch memory follow a Triton kernel's own arguments; these kernels use none
FLOATS = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp32": np.float32, "fp8": ml_dtypes.float8_e5m2}

Launch = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what Triton compiles."""
    folder = tmp_path_factory.mktemp("triton")
    subprocess.run([sys.executable, SOURCE, folder, "gfx1201"], check=True, capture_output=True, timeout=100)
    return folder


@pytest.fixture
def launch(kernels: Path, gfx1201_bench: Any) -> Launch:
    """Launch a compiled case with arrays copied to memory, return the array that it wrote."""
    bench = gfx1201_bench

    def run(case: str, grid: tuple[int, ...], arguments: tuple[object, ...], out: int) -> np.ndarray[Any, Any]:
        about = json.loads((kernels / f"{case}.json").read_text())
        values = [bench.array(value) if isinstance(value, np.ndarray) else value for value in arguments]
        kernel = bench.load_object((kernels / f"{case}.hsaco").read_bytes(), about["kernel"])
        values = [np.int32(value) if isinstance(value, int) and value < 1 << 32 else value for value in values]
        bench.launch(kernel, grid, (about["items"],), *values, NOTHING, NOTHING, lds_bytes=about["lds"])
        wrote = arguments[out]
        assert isinstance(wrote, np.ndarray)
        result: np.ndarray[Any, Any] = bench.read(values[out], wrote.dtype.str, *wrote.shape)
        return result

    return run


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_vector_add(launch: Launch) -> None:
    x, y = floats(3000), floats(3000)
    np.testing.assert_array_equal(launch("vector_add", (3,), (x, y, np.zeros_like(x), 3000), 2), x + y)


def test_softmax(launch: Launch) -> None:
    x = floats(4, 784) * 3
    powers = np.exp(x.astype(float) - x.max(1, keepdims=True))
    result = launch("softmax", (4,), (x, np.zeros_like(x), 784), 1)
    np.testing.assert_allclose(result, powers / powers.sum(1, keepdims=True), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("kind", FLOATS)
def test_matmul(launch: Launch, kind: str) -> None:
    a, b = floats(64, 64).astype(FLOATS[kind]), floats(64, 64).astype(FLOATS[kind])
    as_bytes = [value.view(np.uint8) for value in (a, b)]
    result = launch(f"matmul_{kind}", (1, 1), (*as_bytes, np.zeros((64, 64), np.float32), 64, 64, 64), 2)
    exact = a.astype(float) @ b.astype(float)
    magnitudes = np.abs(a.astype(float)) @ np.abs(b.astype(float))
    assert (np.abs(result - exact) <= 2 * 64 * 2.0**-24 * magnitudes).all()


def test_layernorm(launch: Launch) -> None:
    x, weight, bias = floats(2, 400), floats(400), floats(400)
    exact = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * weight + bias
    result = launch("layernorm", (2,), (x, weight, bias, np.zeros_like(x), 400), 3)
    np.testing.assert_allclose(result, exact, rtol=1e-5, atol=2e-5)


def test_dropout(launch: Launch) -> None:
    x = floats(2048)
    result = launch("dropout", (4,), (x, np.ones_like(x), np.float32(0.3), 42), 1)
    kept = result != 0
    assert 0.65 < kept.mean() < 0.75
    np.testing.assert_allclose(result[kept], (x / np.float32(0.7))[kept], rtol=1e-6)


def test_histogram(launch: Launch) -> None:
    x = RANDOM.integers(0, 16, 2048).astype(np.int32)
    result = launch("histogram", (2,), (x, np.zeros(16, np.int32)), 1)
    np.testing.assert_array_equal(result, np.bincount(x, minlength=16))


def test_functions(launch: Launch) -> None:
    x = floats(512) * 2
    wide = x.astype(float)
    circular = np.sin(wide) + np.cos(wide) * np.exp2(wide)
    erf = np.array([math.erf(value) for value in wide])
    exact = circular + np.log(np.abs(wide) + 1) + np.sqrt(np.abs(wide)) + erf + np.floor(wide)
    np.testing.assert_allclose(launch("functions", (1,), (x, np.zeros_like(x)), 1), exact, rtol=1e-5, atol=2e-5)


def test_attention(launch: Launch) -> None:
    q, k, v = (floats(64, 64).astype(np.float16) for _ in range(3))
    score = q.astype(float) @ k.astype(float).T * 0.125
    share = np.exp(score - score.max(1, keepdims=True))
    exact = share / share.sum(1, keepdims=True) @ v.astype(float)
    result = launch("attention", (1,), (q, k, v, np.zeros((64, 64), np.float32), 64, np.float32(0.125)), 3)
    np.testing.assert_allclose(result, exact, rtol=0, atol=4e-3)  # shares are rounded to fp16


def test_sort(launch: Launch) -> None:
    x = RANDOM.integers(-1000, 1000, 512).astype(np.int32)
    np.testing.assert_array_equal(launch("sort", (1,), (x, np.zeros_like(x)), 1), np.sort(x))


def test_cumsum(launch: Launch) -> None:
    x = floats(1024)
    result = launch("cumsum", (1,), (x, np.zeros_like(x)), 1)
    np.testing.assert_allclose(result, np.cumsum(x.astype(float)), rtol=0, atol=1e-4)


@pytest.mark.skipif(shutil.which("llvm-objdump-22") is None, reason="LLVM 22 is not installed: no llvm-objdump-22")
def test_listings_are_those_of_llvm(kernels: Path) -> None:
    compared = 0
    for file in sorted(kernels.glob("*.hsaco")):
        command = ["llvm-objdump-22", "-d", "--mattr=+real-true16", file]  # Triton's LLVM uses halves of registers
        dump = subprocess.run(command, check=True, capture_output=True, text=True)
        lines = re.finditer(r"^\t(.*?)\s*// ([0-9A-F]+):", dump.stdout, re.MULTILINE)
        theirs = {int(line[2], 16): re.sub(r"\s+", " ", line[1]) for line in lines}
        image = code_object.parse(file.read_bytes()).image
        ours: dict[int, str] = {}
        for start, end in image.executable:
            listing = disassemble(image.contents[start:end], start, "gfx1201", halves=True)
            ours |= {at: text for at, _, text in listing}
        assert {at: (text, ours.get(at)) for at, text in theirs.items() if ours.get(at) != text} == {}
        compared += len(theirs)
    assert compared > 3000
