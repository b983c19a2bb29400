"""Matrix instructions of gfx12 as LLVM emits them, and transposing loads: run by the interpreter, compared with NumPy.

Layouts: AMD GPUOpen, "Using the Matrix Cores of AMD RDNA 4 architecture GPUs"; of wave64 Mesa,
radv_nir_lower_cooperative_matrix.c.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

WAVE64 = "-wavefrontsize32,+wavefrontsize64"
ORDER = {2: [0, 1], 4: [0, 2, 1, 3]}  # which part of the rows of C each group of 16 lanes has; its own inverse


def kernel(declaration: str, body: str, threads: int = 32) -> str:
    """A kernel of one wave; %i is the lane, %a, %b, %c and %d are buffers."""
    return f"""
declare i32 @llvm.amdgcn.workitem.id.x()
{declaration}
define amdgpu_kernel void @k(ptr addrspace(1) %a, ptr addrspace(1) %b, ptr addrspace(1) %c, ptr addrspace(1) %d) #0 {{
  %i = call i32 @llvm.amdgcn.workitem.id.x()
{body}
  ret void
}}
attributes #0 = {{ "amdgpu-flat-work-group-size"="{threads},{threads}" }}
"""


def load(name: str, kind: str) -> str:
    return f"""
  %p{name} = getelementptr {kind}, ptr addrspace(1) %{name}, i32 %i
  %v{name} = load {kind}, ptr addrspace(1) %p{name}"""


def store(kind: str) -> str:
    return f"""
  %pd = getelementptr {kind}, ptr addrspace(1) %d, i32 %i
  store {kind} %r, ptr addrspace(1) %pd"""


def overload(kind: str) -> str:
    """An LLVM vector type as it stands in an intrinsic's name: "<8 x half>" is "v8f16"."""
    count, element = kind.strip("<>").split(" x ")
    return f"v{count}{ {'half': 'f16', 'float': 'f32'}.get(element, element) }"


def dense(name: str, ab_kind: str, c_kind: str, arguments: str, threads: int = 32) -> str:
    """A kernel around @llvm.amdgcn.wmma.<name>; in ``arguments`` A, B and C stand for the operands."""
    operands = {"A": f"{ab_kind} %va", "B": f"{ab_kind} %vb", "C": f"{c_kind} %vc"}
    values = [operands.get(part.strip(), part.strip()) for part in arguments.split(",")]
    function = f"@llvm.amdgcn.wmma.{name}.{overload(c_kind)}.{overload(ab_kind)}"
    types = ", ".join(value.rpartition(" ")[0] for value in values)
    body = load("a", ab_kind) + load("b", ab_kind) + load("c", c_kind)
    body += f"\n  %r = call {c_kind} {function}({', '.join(values)})" + store(c_kind)
    return kernel(f"declare {c_kind} {function}({types})", body, threads)


def by_rows(matrix: np.ndarray[Any, Any], groups: int = 2) -> np.ndarray[Any, Any]:
    """A: lane l holds row l % 16, its group's part of the depth."""
    depth = matrix.shape[1] // groups
    return np.concatenate([matrix[:, depth * group : depth * (group + 1)] for group in range(groups)])


def accumulator(matrix: np.ndarray[Any, Any], groups: int = 2) -> np.ndarray[Any, Any]:
    """C and D: lane l holds column l % 16, its group's rows."""
    parts = by_rows(np.ascontiguousarray(matrix.T), groups).reshape(groups, 16, -1)
    return parts[ORDER[groups]].reshape(16 * groups, -1)


def product(bench: Any, source: str, a: Any, b: Any, c: Any, features: str = "", lanes: int = 32) -> Any:
    """A * B + C by one instruction; operands as matrices of the element types."""
    groups = lanes // 16
    out = bench.array(np.zeros((lanes, 16 // groups), c.dtype))
    laid_out = by_rows(a, groups), by_rows(np.ascontiguousarray(b.T), groups), accumulator(c, groups)
    operands = [bench.array(np.ascontiguousarray(matrix)) for matrix in laid_out]
    bench.launch(bench.load(source, features=features), (1,), (lanes,), *operands, out)
    parts = bench.read(out, c.dtype.str, groups, 16, 16 // groups)
    return np.concatenate(list(parts[ORDER[groups]]), axis=1).T


@pytest.mark.parametrize(("lanes", "features"), [(32, ""), (64, WAVE64)])
def test_f16_product_into_f32(gfx1201_bench: Any, lanes: int, features: str) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-8, 9, (16, 16)).astype("f2") for _ in range(2))
    c = rng.integers(-99, 99, (16, 16)).astype("f4")
    source = dense("f32.16x16x16.f16", f"<{256 // lanes} x half>", f"<{256 // lanes} x float>", "A, B, C", lanes)
    d = product(gfx1201_bench, source, a, b, c, features, lanes)
    np.testing.assert_array_equal(d, a.astype("f4") @ b.astype("f4") + c)


@pytest.mark.parametrize(("lanes", "features"), [(32, ""), (64, WAVE64)])
def test_f16_results_lie_in_pairs(gfx1201_bench: Any, lanes: int, features: str) -> None:
    rng = np.random.default_rng(2)
    a, b, c = (rng.integers(-8, 9, (16, 16)).astype("f2") for _ in range(3))
    kind = f"<{256 // lanes} x half>"
    source = dense("f16.16x16x16.f16", kind, kind, "A, B, C, i1 0", lanes)
    d = product(gfx1201_bench, source, a, b, c, features, lanes)
    np.testing.assert_array_equal(d, (a.astype("f4") @ b.astype("f4") + c).astype("f2"))


@pytest.mark.parametrize("signed", [(0, 0), (1, 0), (1, 1)])
def test_bytes_are_signed_as_the_instruction_says(gfx1201_bench: Any, signed: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-128 if flag else 0, 128 if flag else 256, (16, 16)) for flag in signed)
    c = rng.integers(-1000, 1000, (16, 16)).astype("i4")
    source = dense("i32.16x16x16.iu8", "<2 x i32>", "<8 x i32>", f"i1 {signed[0]}, A, i1 {signed[1]}, B, C, i1 0")
    d = product(gfx1201_bench, source, a.astype(np.uint8), b.astype(np.uint8), c)
    np.testing.assert_array_equal(d, a @ b + c)


def test_nibbles_of_a_deep_product_saturate_when_asked(gfx1201_bench: Any) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(-8, 8, (16, 32)), rng.integers(-8, 8, (32, 16))
    c = np.full((16, 16), 2**31 - 1, "i4")
    c[::2] = -(2**31)
    pack = lambda m: (m[:, ::2] & 15 | (m[:, 1::2] & 15) << 4).astype(np.uint8)  # noqa: E731
    source = dense("i32.16x16x32.iu4", "<2 x i32>", "<8 x i32>", "i1 1, A, i1 1, B, C, i1 1")
    d = product(gfx1201_bench, source, pack(a), np.ascontiguousarray(pack(np.ascontiguousarray(b.T)).T), c)
    np.testing.assert_array_equal(d, np.clip(a @ b + c.astype("i8"), -(2**31), 2**31 - 1))


@pytest.mark.parametrize(("left", "right"), [("fp8", "fp8"), ("fp8", "bf8"), ("bf8", "fp8"), ("bf8", "bf8")])
def test_eight_bit_floats(gfx1201_bench: Any, left: str, right: str) -> None:
    kinds = {"fp8": ml_dtypes.float8_e4m3fn, "bf8": ml_dtypes.float8_e5m2}
    rng = np.random.default_rng(5)
    a = rng.integers(-6, 7, (16, 16)).astype("f4").astype(kinds[left])
    b = rng.integers(-6, 7, (16, 16)).astype("f4").astype(kinds[right])
    c = rng.integers(-99, 99, (16, 16)).astype("f4")
    source = dense(f"f32.16x16x16.{left}.{right}", "<2 x i32>", "<8 x float>", "A, B, C")
    d = product(gfx1201_bench, source, a.view("u1"), b.view("u1"), c)
    np.testing.assert_array_equal(d, a.astype("f4") @ b.astype("f4") + c)


def test_sparse_product_takes_two_of_every_four_along_the_depth(gfx1201_bench: Any) -> None:
    rng = np.random.default_rng(6)
    a, b = rng.integers(-8, 9, (16, 16)).astype("f2"), rng.integers(-8, 9, (32, 16)).astype("f2")
    c = rng.integers(-99, 99, (16, 16)).astype("f4")
    places = np.sort(
        np.stack([[rng.permutation(4)[:2] for _ in range(8)] for _ in range(16)]), axis=2
    )  # row, pair, two
    full = np.zeros((16, 32), "f4")
    for pair in range(8):
        for element in range(2):
            full[np.arange(16), 4 * pair + places[:, pair, element]] = a[:, 2 * pair + element]
    indices = np.zeros(32, "u4")
    for lane in range(32):
        own = places[lane % 16, 4 * (lane // 16) : 4 * (lane // 16) + 4].reshape(-1)
        indices[lane] = sum(int(place) << 2 * number for number, place in enumerate(own)) << 16 | 0x1234
    function = "@llvm.amdgcn.swmmac.f32.16x16x32.f16.v8f32.v8f16.v16f16.v8f32.i16"
    body = load("a", "<8 x half>") + load("b", "<16 x half>") + load("c", "<8 x float>") + load("e", "i32")
    body += f"""
  %h = lshr i32 %ve, 16
  %x = trunc i32 %h to i16
  %r = call <8 x float> {function}(<8 x half> %va, <16 x half> %vb, <8 x float> %vc, i16 %x)
{store("<8 x float>")}"""
    declaration = f"declare <8 x float> {function}(<8 x half>, <16 x half>, <8 x float>, i16)"
    source = kernel(declaration, body).replace("ptr addrspace(1) %d)", "ptr addrspace(1) %d, ptr addrspace(1) %e)")
    bench = gfx1201_bench
    out = bench.array(np.zeros((32, 8), "f4"))
    operands = [bench.array(np.ascontiguousarray(x)) for x in (by_rows(a), by_rows(b.T.copy()), accumulator(c))]
    bench.launch(bench.load(source), (1,), (32,), *operands, out, bench.array(indices))
    d = np.concatenate(list(bench.read(out, "f4", 2, 16, 8)), axis=1).T
    np.testing.assert_array_equal(d, full @ b.astype("f4") + c)


def test_transposing_load_turns_tiles_of_eight_by_eight(gfx1201_bench: Any) -> None:
    function = "@llvm.amdgcn.global.load.tr.b128.v8i16.p1"
    body = f"""
  %pa = getelementptr <8 x i16>, ptr addrspace(1) %a, i32 %i
  %r = call <8 x i16> {function}(ptr addrspace(1) %pa)
{store("<8 x i16>")}"""
    source = kernel(f"declare <8 x i16> {function}(ptr addrspace(1))", body)
    bench = gfx1201_bench
    data = np.arange(256, dtype="u2").reshape(32, 8)
    out = bench.array(np.zeros((32, 8), "u2"))
    bench.launch(bench.load(source), (1,), (32,), bench.array(data), 0, 0, out)
    expected = data.reshape(4, 8, 8).swapaxes(1, 2).reshape(32, 8)
    np.testing.assert_array_equal(bench.read(out, "u2", 32, 8), expected)
