"""Kernels as LLVM compiles them, run by the interpreter and compared with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture
def bench(compiling_bench: Any) -> Any:
    """All engines run what LLVM compiles for them."""
    return compiling_bench


DECLARATIONS = """
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workitem.id.y()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare i32 @llvm.amdgcn.workgroup.id.y()
declare void @llvm.amdgcn.s.barrier()
declare float @llvm.fma.f32(float, float, float)
declare i32 @llvm.amdgcn.update.dpp.i32(i32, i32, i32 immarg, i32 immarg, i32 immarg, i1 immarg)
declare i32 @llvm.amdgcn.ds.bpermute(i32, i32)
declare i64 @llvm.amdgcn.s.memrealtime()
"""


def attributes(threads: int) -> str:
    return f'attributes #0 = {{ "amdgpu-flat-work-group-size"="{threads},{threads}" }}'


SAXPY = (
    DECLARATIONS
    + """
define amdgpu_kernel void @k(ptr addrspace(1) %x, ptr addrspace(1) %y, float %a, i32 %n) #0 {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  %b = mul i32 %g, 256
  %i = add i32 %b, %t
  %c = icmp ult i32 %i, %n
  br i1 %c, label %do, label %end
do:
  %px = getelementptr float, ptr addrspace(1) %x, i32 %i
  %py = getelementptr float, ptr addrspace(1) %y, i32 %i
  %vx = load float, ptr addrspace(1) %px
  %vy = load float, ptr addrspace(1) %py
  %m = fmul float %vx, %a
  %s = fadd float %m, %vy
  store float %s, ptr addrspace(1) %py
  br label %end
end:
  ret void
}
"""
    + attributes(256)
)

MATMUL = (
    DECLARATIONS
    + """
define amdgpu_kernel void @k(ptr addrspace(1) %a, ptr addrspace(1) %b, ptr addrspace(1) %c, i32 %n) #0 {
  %tx = call i32 @llvm.amdgcn.workitem.id.x()
  %ty = call i32 @llvm.amdgcn.workitem.id.y()
  %gx = call i32 @llvm.amdgcn.workgroup.id.x()
  %gy = call i32 @llvm.amdgcn.workgroup.id.y()
  %bx = mul i32 %gx, 32
  %by = mul i32 %gy, 8
  %col = add i32 %bx, %tx
  %row = add i32 %by, %ty
  %rown = mul i32 %row, %n
  br label %loop
loop:
  %k = phi i32 [0, %0], [%k1, %loop]
  %acc = phi float [0.0, %0], [%acc1, %loop]
  %ia = add i32 %rown, %k
  %kn = mul i32 %k, %n
  %ib = add i32 %kn, %col
  %pa = getelementptr float, ptr addrspace(1) %a, i32 %ia
  %pb = getelementptr float, ptr addrspace(1) %b, i32 %ib
  %va = load float, ptr addrspace(1) %pa
  %vb = load float, ptr addrspace(1) %pb
  %acc1 = call float @llvm.fma.f32(float %va, float %vb, float %acc)
  %k1 = add i32 %k, 1
  %d = icmp eq i32 %k1, %n
  br i1 %d, label %end, label %loop
end:
  %ic = add i32 %rown, %col
  %pc = getelementptr float, ptr addrspace(1) %c, i32 %ic
  store float %acc1, ptr addrspace(1) %pc
  ret void
}
"""
    + attributes(256)
)

TILED = (
    DECLARATIONS
    + """
@ta = internal addrspace(3) global [256 x float] poison
@tb = internal addrspace(3) global [256 x float] poison
define amdgpu_kernel void @k(ptr addrspace(1) %a, ptr addrspace(1) %b, ptr addrspace(1) %c, i32 %n) #0 {
  %tx = call i32 @llvm.amdgcn.workitem.id.x()
  %ty = call i32 @llvm.amdgcn.workitem.id.y()
  %gx = call i32 @llvm.amdgcn.workgroup.id.x()
  %gy = call i32 @llvm.amdgcn.workgroup.id.y()
  %bx = mul i32 %gx, 16
  %by = mul i32 %gy, 16
  %col = add i32 %bx, %tx
  %row = add i32 %by, %ty
  %rown = mul i32 %row, %n
  %ty16 = mul i32 %ty, 16
  %lid = add i32 %ty16, %tx
  %sa = getelementptr float, ptr addrspace(3) @ta, i32 %lid
  %sb = getelementptr float, ptr addrspace(3) @tb, i32 %lid
  br label %tile
tile:
  %t = phi i32 [0, %0], [%t1, %next]
  %acc = phi float [0.0, %0], [%accn, %next]
  %ac = add i32 %t, %tx
  %ia = add i32 %rown, %ac
  %br = add i32 %t, %ty
  %brn = mul i32 %br, %n
  %ib = add i32 %brn, %col
  %pa = getelementptr float, ptr addrspace(1) %a, i32 %ia
  %pb = getelementptr float, ptr addrspace(1) %b, i32 %ib
  %va = load float, ptr addrspace(1) %pa
  %vb = load float, ptr addrspace(1) %pb
  store float %va, ptr addrspace(3) %sa
  store float %vb, ptr addrspace(3) %sb
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  br label %inner
inner:
  %k = phi i32 [0, %tile], [%k1, %inner]
  %s = phi float [%acc, %tile], [%s1, %inner]
  %ja = add i32 %ty16, %k
  %k16 = mul i32 %k, 16
  %jb = add i32 %k16, %tx
  %qa = getelementptr float, ptr addrspace(3) @ta, i32 %ja
  %qb = getelementptr float, ptr addrspace(3) @tb, i32 %jb
  %xa = load float, ptr addrspace(3) %qa
  %xb = load float, ptr addrspace(3) %qb
  %s1 = call float @llvm.fma.f32(float %xa, float %xb, float %s)
  %k1 = add i32 %k, 1
  %kd = icmp eq i32 %k1, 16
  br i1 %kd, label %next, label %inner
next:
  %accn = phi float [%s1, %inner]
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %t1 = add i32 %t, 16
  %d = icmp eq i32 %t1, %n
  br i1 %d, label %end, label %tile
end:
  %ic = add i32 %rown, %col
  %pc = getelementptr float, ptr addrspace(1) %c, i32 %ic
  store float %accn, ptr addrspace(1) %pc
  ret void
}
"""
    + attributes(256)
)

MANDELBROT = (
    DECLARATIONS
    + """
define amdgpu_kernel void @k(ptr addrspace(1) %out, i32 %width, i32 %limit, float %scale) #0 {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  %b = mul i32 %g, 256
  %i = add i32 %b, %t
  %px = urem i32 %i, %width
  %py = udiv i32 %i, %width
  %fx = uitofp i32 %px to float
  %fy = uitofp i32 %py to float
  %sx = fmul float %fx, %scale
  %sy = fmul float %fy, %scale
  %cx = fadd float %sx, -2.0
  %cy = fadd float %sy, -1.25
  br label %loop
loop:
  %x = phi float [0.0, %0], [%x1, %body]
  %y = phi float [0.0, %0], [%y1, %body]
  %n = phi i32 [0, %0], [%n1, %body]
  %xx = fmul float %x, %x
  %yy = fmul float %y, %y
  %r = fadd float %xx, %yy
  %inside = fcmp olt float %r, 4.0
  %more = icmp ult i32 %n, %limit
  %go = and i1 %inside, %more
  br i1 %go, label %body, label %end
body:
  %d = fsub float %xx, %yy
  %x1 = fadd float %d, %cx
  %xy = fmul float %x, %y
  %xy2 = fmul float %xy, 2.0
  %y1 = fadd float %xy2, %cy
  %n1 = add i32 %n, 1
  br label %loop
end:
  %po = getelementptr i32, ptr addrspace(1) %out, i32 %i
  store i32 %n, ptr addrspace(1) %po
  ret void
}
"""
    + attributes(256)
)

REDUCTION = (
    DECLARATIONS
    + """
@part = internal addrspace(3) global [256 x i32] poison
define amdgpu_kernel void @k(ptr addrspace(1) %x, ptr addrspace(1) %total) #0 {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  %b = mul i32 %g, 256
  %i = add i32 %b, %t
  %px = getelementptr i32, ptr addrspace(1) %x, i32 %i
  %v = load i32, ptr addrspace(1) %px
  %slot = getelementptr i32, ptr addrspace(3) @part, i32 %t
  store i32 %v, ptr addrspace(3) %slot
  br label %loop
loop:
  %half = phi i32 [128, %0], [%next, %join]
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %active = icmp ult i32 %t, %half
  br i1 %active, label %add, label %join
add:
  %o = add i32 %t, %half
  %other = getelementptr i32, ptr addrspace(3) @part, i32 %o
  %ov = load i32, ptr addrspace(3) %other
  %mv = load i32, ptr addrspace(3) %slot
  %s = add i32 %ov, %mv
  store i32 %s, ptr addrspace(3) %slot
  br label %join
join:
  %next = lshr i32 %half, 1
  %done = icmp eq i32 %next, 0
  br i1 %done, label %end, label %loop
end:
  %first = icmp eq i32 %t, 0
  br i1 %first, label %write, label %out
write:
  %r = load i32, ptr addrspace(3) %slot
  %old = atomicrmw add ptr addrspace(1) %total, i32 %r syncscope("agent") monotonic
  br label %out
out:
  ret void
}
"""
    + attributes(256)
)

HISTOGRAM = (
    DECLARATIONS
    + """
define amdgpu_kernel void @k(ptr addrspace(1) %x, ptr addrspace(1) %bins, ptr addrspace(1) %rank) #0 {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %g = call i32 @llvm.amdgcn.workgroup.id.x()
  %b = mul i32 %g, 256
  %i = add i32 %b, %t
  %px = getelementptr i8, ptr addrspace(1) %x, i32 %i
  %v8 = load i8, ptr addrspace(1) %px
  %v = zext i8 %v8 to i32
  %bin = getelementptr i32, ptr addrspace(1) %bins, i32 %v
  %old = atomicrmw add ptr addrspace(1) %bin, i32 1 syncscope("agent") monotonic
  %pr = getelementptr i32, ptr addrspace(1) %rank, i32 %i
  store i32 %old, ptr addrspace(1) %pr
  ret void
}
"""
    + attributes(256)
)


def mandelbrot_reference(width: int, height: int, limit: int, scale: float) -> np.ndarray[Any, Any]:
    i = np.arange(width * height)
    cx = (i % width).astype("f4") * np.float32(scale) + np.float32(-2)
    cy = (i // width).astype("f4") * np.float32(scale) + np.float32(-1.25)
    x = np.zeros(len(i), "f4")
    y = np.zeros(len(i), "f4")
    count = np.zeros(len(i), "u4")
    live = np.ones(len(i), bool)
    for _ in range(limit):
        xx, yy = x * x, y * y
        live &= xx + yy < 4
        x, y = np.where(live, xx - yy + cx, x), np.where(live, x * y * 2 + cy, y)
        count += live
    return count


def test_saxpy_leaves_elements_beyond_the_end_alone(bench: Any) -> None:
    n = 3000
    x, y = (np.random.default_rng(seed).random(4096, np.float32) for seed in (1, 2))
    xs, ys = bench.array(x), bench.array(y)
    bench.launch(bench.load(SAXPY), (16,), (256,), xs, ys, np.float32(2.5), np.int32(n))
    expected = y.copy()
    expected[:n] += np.float32(2.5) * x[:n]
    np.testing.assert_array_equal(bench.read(ys, "f4", 4096), expected)


@pytest.mark.parametrize(("source", "block"), [(MATMUL, (32, 8)), (TILED, (16, 16))])
def test_matrix_product_is_that_of_numpy(bench: Any, source: str, block: tuple[int, int]) -> None:
    n = 64
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-8, 8, (n, n)).astype("f4") for _ in range(2))
    out = bench.array(np.zeros((n, n), "f4"))
    grid = (n // block[0], n // block[1])
    bench.launch(bench.load(source), grid, block, bench.array(a), bench.array(b), out, np.int32(n))
    np.testing.assert_array_equal(bench.read(out, "f4", n, n), a @ b)


@pytest.mark.parametrize("features", ["", "-wavefrontsize32,+wavefrontsize64"])
def test_divergent_loop_counts_each_pixel_apart(bench: Any, features: str) -> None:
    width, height, limit = 64, 32, 50
    out = bench.array(np.zeros(width * height, "u4"))
    kernel = bench.load(MANDELBROT, features=features)
    bench.launch(kernel, (width * height // 256,), (256,), out, np.int32(width), np.int32(limit), np.float32(0.05))
    expected = mandelbrot_reference(width, height, limit, 0.05)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(bench.read(out, "u4", width * height), expected)


@pytest.mark.parametrize("features", ["", "-wavefrontsize32,+wavefrontsize64"])
def test_tree_reduction_waits_at_its_barriers(bench: Any, features: str) -> None:
    x = np.random.default_rng(5).integers(0, 1000, 2048).astype("u4")
    total = bench.array(np.zeros(1, "u4"))
    bench.launch(bench.load(REDUCTION, features=features), (8,), (256,), bench.array(x), total)
    assert bench.read(total, "u4", 1)[0] == x.sum()


def test_atomics_that_return_number_the_elements_of_a_bin(bench: Any) -> None:
    x = np.random.default_rng(6).integers(0, 7, 2048).astype("u1")
    bins, rank = bench.array(np.zeros(256, "u4")), bench.array(np.zeros(2048, "u4"))
    bench.launch(bench.load(HISTOGRAM), (8,), (256,), bench.array(x), bins, rank)
    np.testing.assert_array_equal(bench.read(bins, "u4", 256), np.bincount(x, minlength=256))
    ranks = bench.read(rank, "u4", 2048)
    for value in range(7):
        assert sorted(ranks[x == value]) == list(range(int((x == value).sum())))
