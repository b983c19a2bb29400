"""The demo's programs as code objects for gfx1201: compiled and linked, listed as LLVM lists them, and run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amdrv
from amdrv.demo.programs import LEFT, TOP, WIDTH, escape_times
from amdrv.emulator.isa.disassembler import disassemble
from amdrv.runtime import code_object

KERNELS = Path(amdrv.demo.__file__).parent / "kernels"  # type: ignore[attr-defined]
PROGRAMS = ("saxpy", "matmul", "reduce", "histogram", "mandelbrot")


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    return {name: amdrv.compile_llvm((KERNELS / f"{name}.ll").read_text(), arch="gfx1201") for name in PROGRAMS}


def test_saxpy(gfx1201_bench: Any, objects: dict[str, bytes]) -> None:
    x, y = (np.random.default_rng(seed).random(5000, np.float32) for seed in (1, 2))
    on_y = gfx1201_bench.array(y)
    kernel = gfx1201_bench.load_object(objects["saxpy"], "saxpy")
    gfx1201_bench.launch(kernel, (20,), (256,), on_y, gfx1201_bench.array(x), np.float32(2.5), np.int32(5000))
    np.testing.assert_array_equal(gfx1201_bench.read(on_y, "f4", 5000), x * np.float32(2.5) + y)


def test_matrix_product_through_lds_tiles(gfx1201_bench: Any, objects: dict[str, bytes]) -> None:
    a, b = (np.random.default_rng(seed).integers(-8, 8, (64, 64)).astype("f4") for seed in (3, 4))
    out = gfx1201_bench.array(np.zeros((64, 64), "f4"))
    kernel = gfx1201_bench.load_object(objects["matmul"], "matmul")
    operands = gfx1201_bench.array(a), gfx1201_bench.array(b)
    gfx1201_bench.launch(kernel, (2, 2), (32, 8), out, *operands, np.int32(64))
    np.testing.assert_array_equal(gfx1201_bench.read(out, "f4", 64, 64), a @ b)


def test_sum_as_a_tree_with_barriers(gfx1201_bench: Any, objects: dict[str, bytes]) -> None:
    x = np.random.default_rng(5).integers(-50, 50, 4096).astype("f4")
    out = gfx1201_bench.array(np.zeros(4, "f4"))
    kernel = gfx1201_bench.load_object(objects["reduce"], "reduce")
    gfx1201_bench.launch(kernel, (4,), (256,), out, gfx1201_bench.array(x), np.int32(4096))
    np.testing.assert_array_equal(gfx1201_bench.read(out, "f4", 4), x.reshape(4, 1024).sum(axis=1))


def test_histogram_by_atomics(gfx1201_bench: Any, objects: dict[str, bytes]) -> None:
    data = np.random.default_rng(6).normal(128, 40, 8192).clip(0, 255).astype(np.uint8)
    out = gfx1201_bench.array(np.zeros(256, "u4"))
    kernel = gfx1201_bench.load_object(objects["histogram"], "histogram")
    gfx1201_bench.launch(kernel, (2,), (256,), out, gfx1201_bench.array(data))
    np.testing.assert_array_equal(gfx1201_bench.read(out, "u4", 256), np.bincount(data, minlength=256))


def test_mandelbrot_set(gfx1201_bench: Any, objects: dict[str, bytes]) -> None:
    width, height, limit = 64, 32, 40
    out = gfx1201_bench.array(np.zeros((height, width), "u4"))
    kernel = gfx1201_bench.load_object(objects["mandelbrot"], "mandelbrot")
    left, top, pixel = np.float32(LEFT), np.float32(TOP), np.float32(WIDTH / width)
    sizes = np.int32(width), np.int32(height)
    gfx1201_bench.launch(kernel, (2, 4), (32, 8), out, *sizes, left, top, pixel, np.int32(limit))
    expected = escape_times(width, height, left, top, pixel, limit)
    np.testing.assert_array_equal(gfx1201_bench.read(out, "u4", height, width), expected)


@pytest.mark.skipif(shutil.which("llvm-objdump-22") is None, reason="LLVM 22 is not installed: no llvm-objdump-22")
@pytest.mark.parametrize("name", PROGRAMS)
def test_listing_is_that_of_llvm(objects: dict[str, bytes], name: str, tmp_path: Path) -> None:
    file = tmp_path / "code.o"
    file.write_bytes(objects[name])
    listing = subprocess.run(["llvm-objdump-22", "-d", file], check=True, capture_output=True, text=True).stdout
    theirs = [re.sub(r"\s+", " ", text) for text in re.findall(r"^\t(.*?)\s*// [0-9A-F]+:", listing, re.MULTILINE)]
    code = code_object.parse(objects[name])
    ((start, end),) = code.image.executable
    ours = [text for _, _, text in disassemble(code.image.contents[start:end], start, "gfx1201")]
    assert len(theirs) > 100
    assert ours[: len(theirs)] == theirs
