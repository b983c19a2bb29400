"""What clang makes of C++, run through the public surface and compared with NumPy. Needs clang 22 and its linker."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import amdrv
from amdrv.runtime.device import Device
from amdrv.runtime.module import Module

TOOLS = ("clang-22", "ld.lld-22")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"LLVM 22 is not installed: no {', '.join(MISSING)}")

ITEMS = 256
SOURCE = r"""
#define KERNEL extern "C" __attribute__((amdgpu_kernel, amdgpu_flat_work_group_size(1, 1024)))
#define GLOBAL __attribute__((address_space(1)))
#define SHARED [[clang::loader_uninitialized]] static __attribute__((address_space(3)))
#define CONSTANT __attribute__((address_space(4)))
#define ITEM ((int)__builtin_amdgcn_workitem_id_x())
#define GROUP ((int)__builtin_amdgcn_workgroup_id_x())
#define HIDDEN(type, place) (((const CONSTANT type *)__builtin_amdgcn_implicitarg_ptr())[place])
#define I (GROUP * (int)HIDDEN(unsigned short, 6) + ITEM)
static inline void barrier() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

__attribute__((noinline)) int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
typedef int (*Operation)(int, int);
__attribute__((noinline)) int add(int a, int b) { return a + b; }
__attribute__((noinline)) int mul(int a, int b) { return a * b; }
static const volatile Operation operations[] = {add, mul};
KERNEL void calls(GLOBAL int *out, const GLOBAL int *in) {
  int n = in[I] % 20 + 1, room[n], sum = 0;  // a stack that grows by another amount in each lane
  for (int k = 0; k < n; k++) room[k] = k * k;
  for (int k = n - 1; k >= 0; k -= 2) sum += room[k];
  out[I] = operations[I & 1](sum, fibonacci(I % 8));
}

KERNEL void branches(GLOBAL unsigned *out, const GLOBAL int *in) {
  unsigned x = in[I], turns = 0;
  for (; x != 1 && turns < 200; turns++) {
    switch (x % 6) {
    case 0: x /= 6; continue;
    case 1: x = 5 * x + 1; break;
    case 3: x /= 3; break;
    case 5: x -= 3; break;
    default: x /= 2;
    }
    if (x == 77) goto out;
  }
out:
  out[I] = turns * 1000 + x % 1000;
}

SHARED int shared[1024];
KERNEL void reduce(GLOBAL int *out, const GLOBAL int *in) {
  shared[ITEM] = in[I];
  barrier();
  for (int half = HIDDEN(unsigned short, 6) / 2; half; half /= 2) {
    if (ITEM < half) shared[ITEM] += shared[ITEM + half];
    barrier();
  }
  if (!ITEM) out[GROUP] = shared[0];
}

KERNEL void divide(GLOBAL long *out, const GLOBAL long *a, const GLOBAL long *b) {
  out[3 * I] = a[I] / b[I];
  out[3 * I + 1] = (unsigned long)a[I] % (unsigned long)b[I];
  out[3 * I + 2] = (short)a[I] * (signed char)b[I];
}

KERNEL void pointers(GLOBAL int *out, GLOBAL int *in) {
  int own[4] = {ITEM, ITEM + 1, ITEM + 2, ITEM + 3};
  shared[ITEM] = 3 * ITEM;
  barrier();
  int *any = ITEM % 3 == 0 ? (int *)&shared[ITEM] : ITEM % 3 == 1 ? (int *)&in[ITEM] : &own[ITEM & 3];
  __scoped_atomic_fetch_add(any, 10, __ATOMIC_RELAXED, __MEMORY_SCOPE_DEVICE);
  out[ITEM] = *any;
}

const CONSTANT int table[] = {3, 1, 4, 1, 5};
GLOBAL int counter = 42, zeroes[8];
GLOBAL int *GLOBAL somewhere = &zeroes[5];
KERNEL void globals(GLOBAL int *out) {
  out[ITEM] = table[ITEM % 5];
  if (!ITEM) out[0] = counter++, *somewhere = 7, out[1] = zeroes[5], out[2] = somewhere - zeroes;
}

struct __attribute__((packed)) Mixed { unsigned char a; unsigned b; double c; short d[3]; };
KERNEL void arguments(GLOBAL double *out, Mixed mixed, char small, Mixed again) {
  out[0] = mixed.a, out[1] = mixed.b, out[2] = mixed.c, out[3] = again.d[2], out[4] = small;
  out[5] = HIDDEN(unsigned, 0), out[6] = HIDDEN(unsigned, 1), out[7] = HIDDEN(unsigned short, 8);
}
"""


@pytest.fixture(scope="module", params=["gfx1100 -O0 -mwavefrontsize64", "gfx1201 -O2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Device, Module]]:
    arch, *options = request.param.split()
    folder: Path = tmp_path_factory.mktemp("clang")
    (folder / "kernels.cc").write_text(SOURCE)
    target = ("-x", "c++", "-std=c++20", "-target", "amdgcn-amd-amdhsa", f"-mcpu={arch}", "-nogpulib", "-w")
    command = ("clang-22", *target, *options, "-ffreestanding", "-fwrapv", "kernels.cc", "-o", "kernels.co")
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    with amdrv.open(f"emu:{arch}#173") as device:
        yield device, device.load((folder / "kernels.co").read_bytes())
    amdrv.emulator.unplug(f"emu:{arch}#173")


def run(loaded: tuple[Device, Module], kernel: str, out: np.ndarray, *args: object, block: int = 64) -> np.ndarray:
    """What the kernel wrote to ``out``, of whose elements each work-item has its share."""
    device, module = loaded
    buffer = device.array(out)
    given = [device.array(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
    module[kernel].launch(ITEMS // block, block, (buffer, *given)).wait(60)
    return buffer.numpy(out.dtype, out.shape)


def numbers(low: int, high: int, dtype: type = np.int32) -> np.ndarray:
    return np.random.default_rng(20261124).integers(low, high, ITEMS).astype(dtype)


def test_recursion_function_pointers_and_a_stack_of_varying_size(loaded: tuple[Device, Module]) -> None:
    source = numbers(0, 1000)
    got = run(loaded, "calls", np.zeros(ITEMS, np.int32), source)
    sums = [sum(k * k for k in range(n, -1, -2)) for n in source % 20]
    fibonacci = [(0, 1, 1, 2, 3, 5, 8, 13)[i % 8] for i in range(ITEMS)]
    assert got.tolist() == [s * f if i & 1 else s + f for i, (s, f) in enumerate(zip(sums, fibonacci, strict=True))]


def branches(x: int) -> int:
    turns = 0
    while x != 1 and turns < 200:
        rest = x % 6
        x = (x // 6, 5 * x + 1, x // 2, x // 3, x // 2, x - 3)[rest] & 0xFFFF_FFFF
        if x == 77 and rest:
            break
        turns += 1
    return turns * 1000 + x % 1000


def test_lanes_that_go_separate_ways(loaded: tuple[Device, Module]) -> None:
    source = numbers(1, 1 << 31)
    assert run(loaded, "branches", np.zeros(ITEMS, np.uint32), source).tolist() == [branches(int(x)) for x in source]


@pytest.mark.parametrize("block", [32, 256])
def test_barriers_in_a_loop(loaded: tuple[Device, Module], block: int) -> None:
    source = numbers(-1000, 1000)
    got = run(loaded, "reduce", np.zeros(ITEMS // block, np.int32), source, block=block)
    assert got.tolist() == source.reshape(-1, block).sum(1).tolist()


def test_integers_of_64_16_and_8_bits(loaded: tuple[Device, Module]) -> None:
    a, b = numbers(-(1 << 63), 1 << 63, np.int64), numbers(-(1 << 40), 1 << 40, np.int64) | 1
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    quotients = [abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) for x, y in pairs]
    wanted: Sequence[np.ndarray] = (
        np.array(quotients),
        (a.view(np.uint64) % b.view(np.uint64)).view(np.int64),
        a.astype(np.int16).astype(np.int64) * b.astype(np.int8),
    )
    assert np.array_equal(run(loaded, "divide", np.zeros((ITEMS, 3), np.int64), a, b), np.stack(wanted, 1))


def test_one_pointer_into_three_memories(loaded: tuple[Device, Module]) -> None:
    i = np.arange(ITEMS, dtype=np.int32)
    got = run(loaded, "pointers", np.zeros(ITEMS, np.int32), 5 * i, block=ITEMS)
    assert np.array_equal(got, np.choose(i % 3, (3 * i, 5 * i, i + (i & 3))) + 10)


def test_global_variables_start_as_written_and_keep_what_they_get(loaded: tuple[Device, Module]) -> None:
    first = run(loaded, "globals", np.zeros(ITEMS, np.int32), block=ITEMS)
    again = run(loaded, "globals", np.zeros(ITEMS, np.int32), block=ITEMS)
    assert first[3:].tolist() == [(3, 1, 4, 1, 5)[i % 5] for i in range(3, ITEMS)]
    assert (first[:3].tolist(), again[:3].tolist()) == ([42, 7, 5], [43, 7, 5])


def test_structures_by_value_and_hidden_arguments(loaded: tuple[Device, Module]) -> None:
    mixed, again = struct.pack("<BId3h", 250, 4_000_000_000, -2.5, 1, 2, 3), struct.pack("<BId3h", 0, 0, 0, 1, 2, -3)
    got = run(loaded, "arguments", np.zeros(8), mixed, -5, again)
    assert got.tolist() == [250, 4e9, -2.5, -3, -5, ITEMS // 64, 1, 1]
