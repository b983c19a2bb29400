"""Kernels of many kinds through the public surface: what compiled code does, against NumPy and the interpreter."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import amdrv
from amdrv import emulator
from amdrv.emulator.isa.native import flow, jit, units
from amdrv.emulator.isa.native.pipeline import Effort
from amdrv.errors import GpuFault, Timeout
from amdrv.runtime.device import Device

pytestmark = pytest.mark.skipif(bool(jit.unavailable()), reason=jit.unavailable() or "available")

NAME, ORACLE = "emu:gfx1100#177", "emu:gfx1100#178"  # cards of this file's own
RANDOM = np.random.default_rng(20261124)
ITEMS = 128
WAVE32, WAVE64 = (f'"target-features"="+wavefrontsize{lanes}"' for lanes in (32, 64))

Array = np.ndarray
Check = Callable[..., list[Array]]

HEAD = """
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare void @llvm.amdgcn.s.barrier()
"""
PLACE = f"""
  %item = call i32 @llvm.amdgcn.workitem.id.x()
  %group = call i32 @llvm.amdgcn.workgroup.id.x()
  %first = mul i32 %group, {ITEMS}
  %i = add i32 %first, %item
"""


@pytest.fixture(scope="module")
def devices() -> Iterator[tuple[Device, Device]]:
    """The card as it is, and one whose shaders are interpreted."""
    emulator.card(ORACLE, interpreted=True)
    with amdrv.open(NAME) as dev, amdrv.open(ORACLE) as oracle:
        yield dev, oracle


def run(dev: Device, code: bytes, grid: int, block: int, arrays: Sequence[Array]) -> tuple[list[Array], int]:
    """Launch kernel "k"; the arrays afterwards, and how many wave-instructions it took."""
    card = emulator.card(dev.gpu.function.name)
    before = card.wave_instructions
    buffers = [dev.array(array) for array in arrays]
    dev.load(code)["k"].launch(grid, block, buffers).wait(60)
    after = [buffer.numpy(array.dtype, array.shape) for buffer, array in zip(buffers, arrays, strict=True)]
    return after, card.wave_instructions - before


@pytest.fixture
def check(devices: tuple[Device, Device]) -> Check:
    """Run a kernel on both cards, which must agree to the bit; what the arrays are then."""

    def checked(ir: str, grid: int, *arrays: Array, block: int = ITEMS, counted: bool = True) -> list[Array]:
        code = amdrv.compile_llvm(HEAD + ir)
        (ours, our_count), (theirs, their_count) = (run(dev, code, grid, block, arrays) for dev in devices)
        for got, wanted in zip(ours, theirs, strict=True):
            assert np.array_equal(got, wanted, equal_nan=got.dtype.kind == "f")
        assert our_count == their_count or not counted
        return ours

    return checked


def elementwise(kind: str, operations: Sequence[str], declarations: str = "") -> str:
    """A kernel k(out, a, b) that writes ``operations``, expressions of %a and %b, one behind the other."""
    arguments = ", ".join(f"ptr addrspace(1) %{name}" for name in "oxy")
    lines = [declarations, f"define amdgpu_kernel void @k({arguments}) {{", PLACE]
    for name, source in (("a", "x"), ("b", "y")):
        lines.append(f"  %{name}.at = getelementptr {kind}, ptr addrspace(1) %{source}, i32 %i")
        lines.append(f"  %{name} = load {kind}, ptr addrspace(1) %{name}.at")
    for number, operation in enumerate(operations):
        lines.append(f"  %r{number} = {operation}")
        lines.append(f"  %n{number} = add i32 %i, {number * 4 * ITEMS}")
        lines.append(f"  %o{number} = getelementptr {kind}, ptr addrspace(1) %o, i32 %n{number}")
        lines.append(f"  store {kind} %r{number}, ptr addrspace(1) %o{number}")
    return "\n".join([*lines, "  ret void", "}"])


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_integers(check: Check, bits: int) -> None:
    kind, dtype = f"i{bits}", np.dtype(f"u{bits // 8}")
    a = RANDOM.integers(0, 1 << bits, 4 * ITEMS, dtype, endpoint=False)
    b = RANDOM.integers(1, 1 << bits, 4 * ITEMS, dtype, endpoint=False)
    a[:3], b[:3] = (0, 1, (1 << bits) - 1), (1, (1 << bits) - 1, 3)
    plain = [f"{name} {kind} %a, %b" for name in ("add", "sub", "mul", "udiv", "urem", "and", "xor")]
    calls = [f"call {kind} @llvm.{name}.{kind}({kind} %a)" for name in ("ctpop", "bitreverse")]
    saturated = f"call {kind} @llvm.uadd.sat.{kind}({kind} %a, {kind} %b)"
    declared = [f"declare {kind} @llvm.{name}.{kind}({kind})" for name in ("ctpop", "bitreverse")]
    declared.append(f"declare {kind} @llvm.uadd.sat.{kind}({kind}, {kind})")
    ir = elementwise(kind, [*plain, *calls, saturated], "\n".join(declared))
    result = check(ir, 4, np.zeros((10, 4 * ITEMS), dtype), a, b)[0]
    ones = [int(x).bit_count() for x in a]
    turned = [int(f"{int(x):0{bits}b}"[::-1], 2) for x in a]
    full = [min(int(x) + int(y), (1 << bits) - 1) for x, y in zip(a, b, strict=True)]
    wanted = [a + b, a - b, a * b, a // b, a % b, a & b, a ^ b, ones, turned, full]
    assert np.array_equal(result, np.array(wanted, dtype))


@pytest.mark.parametrize(("kind", "dtype"), [("half", np.float16), ("float", np.float32), ("double", np.float64)])
def test_floats(check: Check, kind: str, dtype: type) -> None:
    suffix = f"f{8 * np.dtype(dtype).itemsize}"
    info = np.finfo(dtype)
    special = [0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, info.max, info.tiny, info.smallest_subnormal, 2.5]
    a, b = RANDOM.standard_normal((2, 4 * ITEMS)).astype(dtype)
    a[:121], b[:121] = np.array(list(itertools.product(special, special)), dtype).T
    plain = [f"{name} {kind} %a, %b" for name in ("fadd", "fsub", "fmul", "fdiv")]
    unary = ("sqrt", "floor", "rint", "trunc")
    calls = [f"call {kind} @llvm.{name}.{suffix}({kind} %a)" for name in unary]
    declared = "\n".join(f"declare {kind} @llvm.{name}.{suffix}({kind})" for name in unary)
    with np.errstate(all="ignore"):
        wanted = np.array([a + b, a - b, a * b, a / b, np.sqrt(a), np.floor(a), np.rint(a), np.trunc(a)])
    result = check(elementwise(kind, [*plain, *calls], declared), 4, np.zeros_like(wanted), a, b)[0]
    assert np.array_equal(result, wanted, equal_nan=True)


FIBONACCI = """
define i32 @fib(i32 %n) noinline #0 {
  %few = icmp ult i32 %n, 2
  br i1 %few, label %end, label %more
more:
  %n1 = sub i32 %n, 1
  %a = call i32 @fib(i32 %n1)
  %n2 = sub i32 %n, 2
  %b = call i32 @fib(i32 %n2)
  %sum = add i32 %a, %b
  ret i32 %sum
end:
  ret i32 %n
}
"""


@pytest.mark.parametrize("attributes", [WAVE32, WAVE64])
def test_recursion_on_the_scratch_stack(check: Check, attributes: str) -> None:
    ir = f"""{FIBONACCI}
define amdgpu_kernel void @k(ptr addrspace(1) %o) #0 {{{PLACE}
  %n = urem i32 %i, 9
  %r = call i32 @fib(i32 %n)
  %at = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %r, ptr addrspace(1) %at
  ret void
}}
attributes #0 = {{ {attributes} }}"""
    result = check(ir, 2, np.zeros(2 * ITEMS, np.uint32))[0]
    assert np.array_equal(result, [(0, 1, 1, 2, 3, 5, 8, 13, 21)[i % 9] for i in range(2 * ITEMS)])


def test_lanes_call_different_functions_through_pointers(check: Check) -> None:
    functions = "".join(
        f"define i32 @f{n}(i32 %x) noinline {{\n  %r = mul i32 %x, {3 + n}\n  %s = add i32 %r, {n}\n  ret i32 %s\n}}\n"
        for n in range(4)
    )
    table = ", ".join(f"ptr @f{n}" for n in range(4))
    ir = f"""{functions}
@table = internal addrspace(4) constant [4 x ptr] [{table}]
define amdgpu_kernel void @k(ptr addrspace(1) %o) {{{PLACE}
  %which = and i32 %i, 3
  %entry = getelementptr [4 x ptr], ptr addrspace(4) @table, i32 0, i32 %which
  %f = load ptr, ptr addrspace(4) %entry
  %r = call i32 %f(i32 %i)
  %at = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %r, ptr addrspace(1) %at
  ret void
}}"""
    i = np.arange(ITEMS, dtype=np.uint32)
    assert np.array_equal(check(ir, 1, np.zeros_like(i))[0], i * (3 + i % 4) + i % 4)


@pytest.mark.parametrize("attributes", [WAVE32, WAVE64])
def test_private_array_with_an_index_of_the_lane(check: Check, attributes: str) -> None:
    ir = f"""
define amdgpu_kernel void @k(ptr addrspace(1) %o) #0 {{{PLACE}
  %array = alloca [64 x i16], addrspace(5)
  br label %fill
fill:
  %j = phi i32 [0, %0], [%j.next, %fill]
  %step = mul i32 %j, 7
  %turned = add i32 %step, %i
  %slot = and i32 %turned, 63
  %slot.at = getelementptr [64 x i16], ptr addrspace(5) %array, i32 0, i32 %slot
  %value = trunc i32 %j to i16
  store i16 %value, ptr addrspace(5) %slot.at
  %j.next = add i32 %j, 1
  %more = icmp ult i32 %j.next, 64
  br i1 %more, label %fill, label %read
read:
  %mine = and i32 %item, 63
  %mine.at = getelementptr [64 x i16], ptr addrspace(5) %array, i32 0, i32 %mine
  %found = load i16, ptr addrspace(5) %mine.at
  %wide = zext i16 %found to i32
  %tagged = or i32 %wide, 256
  %at = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %tagged, ptr addrspace(1) %at
  ret void
}}
attributes #0 = {{ {attributes} }}"""
    # The slot of a lane's own number is where j * 7 is a multiple of 64.
    assert np.array_equal(check(ir, 2, np.zeros(2 * ITEMS, np.uint32))[0], np.full(2 * ITEMS, 256))


def scan(attributes: str) -> str:
    """Sums up to each element of a workgroup's part, in LDS."""
    lines = [f"@shared = internal addrspace(3) global [{ITEMS} x i32] undef"]
    lines += [f"define amdgpu_kernel void @k(ptr addrspace(1) %x) #0 {{{PLACE}"]
    lines += ["  %x.at = getelementptr i32, ptr addrspace(1) %x, i32 %i", "  %v0 = load i32, ptr addrspace(1) %x.at"]
    lines += ["  %mine = getelementptr i32, ptr addrspace(3) @shared, i32 %item"]
    for step in range(int(math.log2(ITEMS))):
        lines.append(f"""  store i32 %v{step}, ptr addrspace(3) %mine
  fence syncscope("workgroup") seq_cst
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") seq_cst
  %has{step} = icmp uge i32 %item, {1 << step}
  %left{step} = sub i32 %item, {1 << step}
  %clamped{step} = select i1 %has{step}, i32 %left{step}, i32 0
  %at{step} = getelementptr i32, ptr addrspace(3) @shared, i32 %clamped{step}
  %found{step} = load i32, ptr addrspace(3) %at{step}
  %added{step} = select i1 %has{step}, i32 %found{step}, i32 0
  %v{step + 1} = add i32 %v{step}, %added{step}
  fence syncscope("workgroup") seq_cst
  call void @llvm.amdgcn.s.barrier()""")
    lines += [f"  store i32 %v{int(math.log2(ITEMS))}, ptr addrspace(1) %x.at", "  ret void", "}"]
    return "\n".join([*lines, f"attributes #0 = {{ {attributes} }}"])


@pytest.mark.parametrize("attributes", [WAVE32, WAVE64])
def test_lds_with_barriers(check: Check, attributes: str) -> None:
    x = RANDOM.integers(0, 100, (3, ITEMS), np.uint32)
    assert np.array_equal(check(scan(attributes), 3, x)[0], x.cumsum(1))


@pytest.mark.parametrize("bits", [32, 64])
def test_atomics_of_many_workgroups_at_one_place(devices: tuple[Device, Device], bits: int) -> None:
    kind, dtype = f"i{bits}", np.dtype(f"u{bits // 8}")
    operations = ("add", "sub", "xor", "or", "umax", "umin")
    updates = "\n".join(
        f"  %p{n} = getelementptr {kind}, ptr addrspace(1) %t, i32 {n}\n"
        f'  %q{n} = atomicrmw {name} ptr addrspace(1) %p{n}, {kind} %v syncscope("agent") monotonic'
        for n, name in enumerate(operations)
    )
    ir = f"""{HEAD}
define amdgpu_kernel void @k(ptr addrspace(1) %t, ptr addrspace(1) %x) {{{PLACE}
  %x.at = getelementptr {kind}, ptr addrspace(1) %x, i32 %i
  %v = load {kind}, ptr addrspace(1) %x.at
{updates}
  ret void
}}"""
    x = RANDOM.integers(0, 1 << bits, 40 * ITEMS, dtype, endpoint=False)
    start = np.array([0, 0, 0, 0, 0, (1 << bits) - 1], dtype)
    (total, _), _ = run(devices[0], amdrv.compile_llvm(ir), 40, ITEMS, [start, x])
    xor, union = np.bitwise_xor.reduce(x), np.bitwise_or.reduce(x)
    assert np.array_equal(
        total, np.array([*x.sum(keepdims=True), *-x.sum(keepdims=True), xor, union, x.max(), x.min()], dtype)
    )


@pytest.mark.parametrize("lanes", [32, 64])
def test_lanes_exchange_values(check: Check, lanes: int) -> None:
    """A ballot and a lane read inside a divergent branch, a rotation of rows, a permutation through LDS hardware."""
    ir = f"""
declare i{lanes} @llvm.amdgcn.ballot.i{lanes}(i1)
declare i32 @llvm.amdgcn.readfirstlane.i32(i32)
declare i32 @llvm.amdgcn.update.dpp.i32(i32, i32, i32, i32, i32, i1)
declare i32 @llvm.amdgcn.ds.bpermute(i32, i32)
define amdgpu_kernel void @k(ptr addrspace(1) %o, ptr addrspace(1) %x) #0 {{{PLACE}
  %x.at = getelementptr i32, ptr addrspace(1) %x, i32 %i
  %v = load i32, ptr addrspace(1) %x.at
  %rotated = call i32 @llvm.amdgcn.update.dpp.i32(i32 0, i32 %v, i32 293, i32 15, i32 15, i1 false)
  %source = xor i32 %item, 31
  %byte = shl i32 %source, 2
  %swapped = call i32 @llvm.amdgcn.ds.bpermute(i32 %byte, i32 %v)
  %both = sub i32 %rotated, %swapped
  %at = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %both, ptr addrspace(1) %at
  %bit = and i32 %v, 1
  %odd = icmp ne i32 %bit, 0
  br i1 %odd, label %some, label %end
some:
  %big = icmp sgt i32 %v, 0
  %votes = call i{lanes} @llvm.amdgcn.ballot.i{lanes}(i1 %big)
  %low = {"trunc i64 %votes to i32" if lanes == 64 else "add i32 %votes, 0"}
  %leader = call i32 @llvm.amdgcn.readfirstlane.i32(i32 %v)
  %mixed = xor i32 %low, %leader
  store i32 %mixed, ptr addrspace(1) %at
  br label %end
end:
  ret void
}}
attributes #0 = {{ {WAVE64 if lanes == 64 else WAVE32} }}"""
    x = RANDOM.integers(-(2**31), 2**31, ITEMS).astype(np.int32)
    place = np.arange(ITEMS)
    even = x[place // 16 * 16 + (place - 5) % 16] - x[place ^ 31]
    wanted = even.copy()
    for first in range(0, ITEMS, lanes):
        wave = x[first : first + lanes]
        odd = wave & 1 != 0
        votes = sum(1 << lane for lane in range(32) if odd[lane] and wave[lane] > 0)
        wanted[first : first + lanes][odd] = np.array(votes, np.uint32).view(np.int32) ^ wave[odd][0]
    assert np.array_equal(check(ir, 1, np.zeros(ITEMS, np.int32), x)[0], wanted)


def test_workgroups_wait_for_later_ones(devices: tuple[Device, Device]) -> None:
    """Each waits for the one behind it: all of them must be under way at once."""
    groups = 40
    ir = f"""{HEAD}
define amdgpu_kernel void @k(ptr addrspace(1) %turn, ptr addrspace(1) %o) {{{PLACE}
  %leader = icmp eq i32 %item, 0
  br i1 %leader, label %wait, label %end
wait:
  %now = load atomic i32, ptr addrspace(1) %turn syncscope("agent") acquire, align 4
  %mine = sub i32 {groups - 1}, %group
  %ready = icmp eq i32 %now, %mine
  br i1 %ready, label %go, label %wait
go:
  %at = getelementptr i32, ptr addrspace(1) %o, i32 %group
  store i32 %now, ptr addrspace(1) %at
  %next = add i32 %now, 1
  store atomic i32 %next, ptr addrspace(1) %turn syncscope("agent") release, align 4
  br label %end
end:
  ret void
}}"""
    (_, order), _ = run(
        devices[0], amdrv.compile_llvm(ir), groups, ITEMS, [np.zeros(1, np.uint32), np.zeros(groups, np.uint32)]
    )
    assert np.array_equal(order, np.arange(groups)[::-1])


def test_code_that_is_too_much_for_one_unit(
    check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Waves go from one unit of compiled code to the next, and back in loops and calls."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(flow, "MAX_INSTRUCTIONS", 24)
    ir = f"""{FIBONACCI}
define amdgpu_kernel void @k(ptr addrspace(1) %o) #0 {{{PLACE}
  %n = urem i32 %i, 6
  br label %again
again:
  %turn = phi i32 [0, %0], [%turn.next, %again]
  %sum = phi i32 [0, %0], [%sum.next, %again]
  %r = call i32 @fib(i32 %n)
  %sum.next = add i32 %sum, %r
  %turn.next = add i32 %turn, 1
  %more = icmp ule i32 %turn.next, %n
  br i1 %more, label %again, label %end
end:
  %at = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %sum.next, ptr addrspace(1) %at
  ret void
}}
attributes #0 = {{ {WAVE32} }}"""
    result = check(ir, 2, np.zeros(2 * ITEMS, np.uint32))[0]
    assert np.array_equal(result, [(0, 1, 1, 2, 3, 5)[i % 6] * (i % 6 + 1) for i in range(2 * ITEMS)])


def test_compiling_a_kernel_does_not_count_as_its_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compile_module = units.compile_module

    def slowly(ir: str, effort: Effort) -> bytes:
        time.sleep(0.7)
        return compile_module(ir, effort)

    monkeypatch.setattr(units, "compile_module", slowly)
    ir = f"""{HEAD}
define amdgpu_kernel void @k(ptr addrspace(1) %o) {{{PLACE}
  %at = getelementptr i32, ptr addrspace(1) %o, i32 %i
  store i32 %i, ptr addrspace(1) %at
  ret void
}}"""
    with amdrv.open("emu:gfx1100#179") as dev:
        room = dev.alloc(4 * ITEMS)
        launch = dev.load(amdrv.compile_llvm(ir))["k"].launch(1, ITEMS, (room,), timed=True)
        dev.synchronize(timeout_s=0.3)
        assert launch.seconds is not None and launch.seconds < 0.3
        assert room.numpy(np.int32).tolist() == list(range(ITEMS))
    emulator.unplug("emu:gfx1100#179")


def test_endless_barriers_end_with_the_patience_of_the_host(devices: tuple[Device, Device]) -> None:
    """Waves that go from barrier to barrier use up no budget of their own. The card is as good as new afterwards."""
    dev = devices[0]
    endless = f"""{HEAD}
define amdgpu_kernel void @k() {{
  br label %again
again:
  call void @llvm.amdgcn.s.barrier()
  br label %again
}}"""
    with pytest.raises(Timeout):
        dev.load(amdrv.compile_llvm(endless))["k"].launch(2, ITEMS).wait(0.3)
    x = np.ones((2, ITEMS), np.uint32)
    assert np.array_equal(run(dev, amdrv.compile_llvm(HEAD + scan(WAVE32)), 2, ITEMS, [x])[0][0], x.cumsum(1))


def test_a_refused_instruction_faults_whatever_register_it_names(devices: tuple[Device, Device]) -> None:
    """An instruction whose destination is not allocated does nothing, but one that does not exist is still illegal."""
    ir = """
declare void @llvm.amdgcn.s.sleep(i32)
define amdgpu_kernel void @k() {
  call void @llvm.amdgcn.s.sleep(i32 77)
  call void @llvm.amdgcn.s.sleep(i32 78)
  ret void
}"""
    sleeps = np.array([0xBF83_004D, 0xBF83_004E], "<u4").tobytes()
    code = amdrv.compile_llvm(ir)
    assert code.count(sleeps) == 1
    # v_interp_p2_f32 v144, v203, -v73, -v167 clamp
    code = code.replace(sleeps, np.array([0xCD01_E290, 0xC69C_92CB], "<u4").tobytes())
    for dev in devices:
        with pytest.raises(GpuFault) as caught:
            dev.load(code)["k"].launch(1, 32).wait(20)
        assert (caught.value.kind, caught.value.mnemonic) == ("illegal instruction", "v_interp_p2_f32")
