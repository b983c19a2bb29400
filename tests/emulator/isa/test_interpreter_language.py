"""Language features as LLVM lowers them: arithmetic of every width, calls, switches, locals, wave reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def bench(compiling_bench: Any) -> Any:
    """All engines run what LLVM compiles for them."""
    return compiling_bench


ITEMS = 64
WAVE64 = "-wavefrontsize32,+wavefrontsize64"
Function = Callable[[Any, Any], Any]


def kernel(body: str, arguments: str, declarations: str = "") -> str:
    """A kernel over 64 work-items; %i is the work-item, %out the result's address."""
    return f"""
declare i32 @llvm.amdgcn.workitem.id.x()
{declarations}
define amdgpu_kernel void @k({arguments}) #0 {{
  %i = call i32 @llvm.amdgcn.workitem.id.x()
{body}
  ret void
}}
attributes #0 = {{ "amdgpu-flat-work-group-size"="{ITEMS},{ITEMS}" }}
"""


def store(kind: str) -> str:
    return f"""
  %o = getelementptr {kind}, ptr addrspace(1) %out, i32 %i
  store {kind} %r, ptr addrspace(1) %o
"""


def binary(operation: str, kind: str) -> str:
    return kernel(
        f"""
  %pa = getelementptr {kind}, ptr addrspace(1) %a, i32 %i
  %pb = getelementptr {kind}, ptr addrspace(1) %b, i32 %i
  %va = load {kind}, ptr addrspace(1) %pa
  %vb = load {kind}, ptr addrspace(1) %pb
  %r = {operation} {kind} %va, %vb
{store(kind)}""",
        "ptr addrspace(1) %a, ptr addrspace(1) %b, ptr addrspace(1) %out",
    )


def run(bench: Any, source: str, dtype: str, *arrays: np.ndarray[Any, Any], features: str = "") -> np.ndarray[Any, Any]:
    out = bench.array(np.zeros(ITEMS, dtype))
    bench.launch(bench.load(source, features=features), (1,), (ITEMS,), *(bench.array(a) for a in arrays), out)
    result: np.ndarray[Any, Any] = bench.read(out, dtype, ITEMS)
    return result


def truncated(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Division that rounds toward zero."""
    quotients = [abs(int(x)) // abs(int(y)) * (1 if (x < 0) == (y < 0) else -1) for x, y in zip(a, b, strict=True)]
    return np.array(quotients).astype(a.dtype)


@pytest.mark.parametrize(("kind", "dtype"), [("half", "f2"), ("float", "f4"), ("double", "f8")])
@pytest.mark.parametrize(
    ("operation", "function"),
    [("fadd", np.add), ("fsub", np.subtract), ("fmul", np.multiply), ("fdiv", np.divide)],
)
def test_float_arithmetic_is_correctly_rounded(
    bench: Any, kind: str, dtype: str, operation: str, function: Function
) -> None:
    a, b = np.random.default_rng(1).standard_normal((2, ITEMS)).astype(dtype) * 50
    a[:8] = [0, -0.0, np.inf, -np.inf, 1, -1, np.finfo(dtype).max, np.finfo(dtype).tiny]
    with np.errstate(all="ignore"):
        expected = function(a, b)
    np.testing.assert_array_equal(run(bench, binary(operation, kind), dtype, a, b), expected)


@pytest.mark.parametrize(("kind", "signed"), [("i8", "i1"), ("i16", "i2"), ("i32", "i4"), ("i64", "i8")])
@pytest.mark.parametrize(
    ("operation", "function", "is_signed"),
    [
        ("add", np.add, True),
        ("mul", np.multiply, True),
        ("sdiv", truncated, True),
        ("srem", lambda a, b: (a - truncated(a, b) * b).astype(a.dtype), True),
        ("udiv", np.floor_divide, False),
        ("urem", np.remainder, False),
        ("ashr", np.right_shift, True),
        ("lshr", np.right_shift, False),
        ("shl", np.left_shift, False),
    ],
)
def test_integer_arithmetic_of_every_width(
    bench: Any, kind: str, signed: str, operation: str, function: Function, is_signed: bool
) -> None:
    dtype = signed if is_signed else signed.replace("i", "u", 1)
    limits = np.iinfo(dtype)
    a, b = np.random.default_rng(2).integers(limits.min, limits.max, (2, ITEMS), dtype=dtype, endpoint=True)
    b[b == 0] = 3
    b[b == -1] = 5
    if "sh" in operation:
        b %= limits.bits
    with np.errstate(all="ignore"):
        expected = function(a, b)
    np.testing.assert_array_equal(run(bench, binary(operation, kind), dtype, a, b), expected)


@pytest.mark.parametrize("features", ["", WAVE64])
def test_every_case_of_a_switch_reaches_its_lanes(bench: Any, features: str) -> None:
    body = f"""
  %z = and i32 %i, 7
  switch i32 %z, label %d [ i32 0, label %c0  i32 1, label %c1 i32 3, label %c3 i32 5, label %c5 ]
c0:
  br label %e
c1:
  %v1 = mul i32 %i, %i
  br label %e
c3:
  %v3 = udiv i32 %i, 3
  br label %e
c5:
  %v5 = srem i32 %i, 9
  br label %e
d:
  %vd = ashr i32 %i, 1
  br label %e
e:
  %r = phi i32 [77,%c0],[%v1,%c1],[%v3,%c3],[%v5,%c5],[%vd,%d]
{store("i32")}"""
    i = np.arange(ITEMS)
    case = i & 7
    expected = np.select([case == 0, case == 1, case == 3, case == 5], [77, i * i, i // 3, i % 9], i >> 1)
    result = run(bench, kernel(body, "ptr addrspace(1) %out"), "i4", features=features)
    np.testing.assert_array_equal(result, expected)


def test_functions_that_are_not_inlined_return_values(bench: Any) -> None:
    function = """
define internal i32 @f(i32 %a, i32 %b) noinline {
  %c = icmp ugt i32 %a, 30
  br i1 %c, label %x, label %y
x:
  %m = mul i32 %a, %b
  ret i32 %m
y:
  %s = sub i32 %a, %b
  ret i32 %s
}
"""
    source = kernel(f"  %r = call i32 @f(i32 %i, i32 7)\n{store('i32')}", "ptr addrspace(1) %out", function)
    i = np.arange(ITEMS)
    np.testing.assert_array_equal(run(bench, source, "i4"), np.where(i > 30, i * 7, i - 7))


def test_calls_through_pointers_go_where_each_lane_says(bench: Any) -> None:
    functions = """
define internal i32 @double(i32 %a) noinline {
  %r = shl i32 %a, 1
  ret i32 %r
}
define internal i32 @square(i32 %a) noinline {
  %r = mul i32 %a, %a
  ret i32 %r
}
"""
    body = f"""
  %odd = and i32 %i, 1
  %c = icmp eq i32 %odd, 0
  %f = select i1 %c, ptr @double, ptr @square
  %r = call i32 %f(i32 %i)
{store("i32")}"""
    i = np.arange(ITEMS)
    result = run(bench, kernel(body, "ptr addrspace(1) %out", functions), "i4")
    np.testing.assert_array_equal(result, np.where(i % 2 == 0, i * 2, i * i))


def test_locals_are_indexed_by_lane(bench: Any) -> None:
    source = """
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @k(ptr addrspace(1) %out) {
  %a = alloca [64 x i32], addrspace(5)
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  br label %l
l:
  %j = phi i32 [0,%0],[%j1,%l]
  %p = getelementptr i32, ptr addrspace(5) %a, i32 %j
  %v = mul i32 %j, %i
  store i32 %v, ptr addrspace(5) %p
  %j1 = add i32 %j, 1
  %d = icmp eq i32 %j1, 64
  br i1 %d, label %m, label %l
m:
  %x = xor i32 %i, 21
  %q = getelementptr i32, ptr addrspace(5) %a, i32 %x
  %r = load i32, ptr addrspace(5) %q
  %o = getelementptr i32, ptr addrspace(1) %out, i32 %i
  store i32 %r, ptr addrspace(1) %o
  ret void
}
"""
    i = np.arange(ITEMS)
    np.testing.assert_array_equal(run(bench, source, "i4"), (i ^ 21) * i)


@pytest.mark.parametrize("features", ["", WAVE64])
@pytest.mark.parametrize(("name", "function"), [("add", np.sum), ("umax", np.max)])
def test_a_wave_reduces_its_lanes(bench: Any, features: str, name: str, function: Any) -> None:
    reduce = f"@llvm.amdgcn.wave.reduce.{name}.i32"
    body = f"""
  %pa = getelementptr i32, ptr addrspace(1) %a, i32 %i
  %va = load i32, ptr addrspace(1) %pa
  %r = call i32 {reduce}(i32 %va, i32 1)
{store("i32")}"""
    source = kernel(body, "ptr addrspace(1) %a, ptr addrspace(1) %out", f"declare i32 {reduce}(i32, i32 immarg)")
    values = np.random.default_rng(7).integers(0, 1000, ITEMS).astype("u4")
    lanes = 64 if features else 32
    expected = np.repeat([function(wave) for wave in values.reshape(-1, lanes)], lanes)
    np.testing.assert_array_equal(run(bench, source, "u4", values, features=features), expected)


def test_float_atomics_add_in_memory_and_lds(bench: Any) -> None:
    source = """
@sum = internal addrspace(3) global float poison
declare i32 @llvm.amdgcn.workitem.id.x()
declare void @llvm.amdgcn.s.barrier()
define amdgpu_kernel void @k(ptr addrspace(1) %a, ptr addrspace(1) %out) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  store float 0.0, ptr addrspace(3) @sum
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %pa = getelementptr float, ptr addrspace(1) %a, i32 %i
  %va = load float, ptr addrspace(1) %pa
  %x = atomicrmw fadd ptr addrspace(3) @sum, float %va syncscope("workgroup") monotonic
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %t = load float, ptr addrspace(3) @sum
  %y = atomicrmw fadd ptr addrspace(1) %out, float %t syncscope("agent") monotonic, !amdgpu.no.fine.grained.memory !0
  ret void
}
!0 = !{}
"""
    values = np.random.default_rng(8).integers(0, 100, ITEMS).astype("f4")
    result = run(bench, source, "f4", values)
    assert result[0] == values.sum() * ITEMS
