"""Kernels in Triton's language, one for each kind of work: ``triton_kernels.py FOLDER [ARCH]`` compiles them all.

For each a code object FOLDER/NAME.hsaco and what a launch needs to know, FOLDER/NAME.json. A process of its own,
because Triton brings another LLVM than the one that tests use.
"""

from __future__ import annotations

import json
import pathlib
import sys
from dataclasses import dataclass

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

LANES = 32


@triton.jit
def vector_add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(out + at, tl.load(x + at, inside) + tl.load(y + at, inside), inside)


@triton.jit
def softmax(x, out, n, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside = column < n
    values = tl.load(x + row * n + column, inside, other=-float("inf"))
    powers = tl.exp(values - tl.max(values, 0))
    tl.store(out + row * n + column, powers / tl.sum(powers, 0), inside)


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        left = tl.load(a + rows[:, None] * K + (k + depth)[None, :])
        right = tl.load(b + (k + depth)[:, None] * N + columns[None, :])
        total = tl.dot(left, right, total)
    tl.store(c + rows[:, None] * N + columns[None, :], total)


@triton.jit
def layernorm(x, weight, bias, out, n, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside = column < n
    values = tl.load(x + row * n + column, inside, other=0.0)
    centred = tl.where(inside, values - tl.sum(values, 0) / n, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / n + 1e-5)
    shaped = centred * scale * tl.load(weight + column, inside) + tl.load(bias + column, inside)
    tl.store(out + row * n + column, shaped, inside)


@triton.jit
def dropout(x, out, rate, seed, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    kept = tl.rand(seed, at) > rate
    tl.store(out + at, tl.where(kept, tl.load(x + at) / (1 - rate), 0.0))


@triton.jit
def histogram(x, bins, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(bins + tl.load(x + at), 1)


@triton.jit
def functions(x, out, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at)
    size = tl.abs(value)
    circular = tl.sin(value) + tl.cos(value) * tl.exp2(value)
    tl.store(out + at, circular + tl.log(size + 1) + tl.sqrt(size) + tl.erf(value) + tl.floor(value))


@triton.jit
def attention(q, k, v, out, n, scale, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    depth = tl.arange(0, D)
    query = tl.load(q + rows[:, None] * D + depth[None, :])
    largest = tl.full((BM,), -float("inf"), tl.float32)
    weight = tl.zeros((BM,), tl.float32)
    total = tl.zeros((BM, D), tl.float32)
    for start in range(0, n, BN):
        columns = start + tl.arange(0, BN)
        key = tl.load(k + columns[None, :] * D + depth[:, None])
        value = tl.load(v + columns[:, None] * D + depth[None, :])
        score = tl.dot(query, key) * scale
        now = tl.maximum(largest, tl.max(score, 1))
        share = tl.exp(score - now[:, None])
        faded = tl.exp(largest - now)
        weight = weight * faded + tl.sum(share, 1)
        total = tl.dot(share.to(tl.float16), value, total * faded[:, None])
        largest = now
    tl.store(out + rows[:, None] * D + depth[None, :], total / weight[:, None])


@triton.jit
def sort(x, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, tl.sort(tl.load(x + at)))


@triton.jit
def cumsum(x, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, tl.cumsum(tl.load(x + at), 0))


@dataclass(frozen=True)
class Case:
    """A kernel and what it is specialised for."""

    function: object
    signature: dict[str, str]
    constants: dict[str, int]


def _matmul(kind: str) -> Case:
    pointers = {"a": f"*{kind}", "b": f"*{kind}", "c": "*fp32"}
    return Case(matmul, {**pointers, "M": "i32", "N": "i32", "K": "i32"}, {"BM": 64, "BN": 64, "BK": 32})


_X = {"x": "*fp32", "out": "*fp32"}
CASES = {
    "vector_add": Case(vector_add, {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32"}, {"BLOCK": 1024}),
    "softmax": Case(softmax, {**_X, "n": "i32"}, {"BLOCK": 1024}),
    "matmul_fp16": _matmul("fp16"),
    "matmul_bf16": _matmul("bf16"),
    "matmul_fp32": _matmul("fp32"),
    "matmul_fp8": _matmul("fp8e5"),
    "layernorm": Case(
        layernorm, {"x": "*fp32", "weight": "*fp32", "bias": "*fp32", "out": "*fp32", "n": "i32"}, {"BLOCK": 512}
    ),
    "dropout": Case(dropout, {**_X, "rate": "fp32", "seed": "i32"}, {"BLOCK": 512}),
    "histogram": Case(histogram, {"x": "*i32", "bins": "*i32"}, {"BLOCK": 1024}),
    "functions": Case(functions, _X, {"BLOCK": 512}),
    "attention": Case(
        attention,
        {"q": "*fp16", "k": "*fp16", "v": "*fp16", "out": "*fp32", "n": "i32", "scale": "fp32"},
        {"BM": 64, "BN": 32, "D": 64},
    ),
    "sort": Case(sort, {"x": "*i32", "out": "*i32"}, {"BLOCK": 512}),
    "cumsum": Case(cumsum, _X, {"BLOCK": 1024}),
}


def compile_case(case: Case, arch: str = "gfx1100"):
    """What Triton makes of a case: ``.asm["hsaco"]`` and ``.metadata``."""
    names = list(case.signature)
    places = {(len(names) + index,): value for index, value in enumerate(case.constants.values())}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, kind in enumerate(case.signature.values())
        if kind.startswith("*") or kind == "i32"
    }
    source = ASTSource(case.function, {**case.signature, **dict.fromkeys(case.constants, "constexpr")}, places, aligned)
    return triton.compile(source, target=GPUTarget("hip", arch, LANES), options={"enable_fp_fusion": True})


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    for name, case in CASES.items():
        made = compile_case(case, *sys.argv[2:3])
        about = {"kernel": made.metadata.name, "items": made.metadata.num_warps * LANES, "lds": made.metadata.shared}
        (folder / f"{name}.hsaco").write_bytes(made.asm["hsaco"])
        (folder / f"{name}.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main()
