"""The translator as a shader engine: what the interpreter does, faster, and what it keeps from one run to the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Bench, PagedMemory

from amdrv import demo
from amdrv.emulator.isa.dispatch import ShaderFault
from amdrv.emulator.isa.native import jit

pytestmark = pytest.mark.skipif(bool(jit.unavailable()), reason=jit.unavailable() or "available")

KERNELS = Path(demo.__file__).with_name("kernels")
SETTLE_S = 60.0


def make_engine(folder: Path | None = None, *, threads: int = 2) -> Any:
    from amdrv.emulator.isa.native.cache import ObjectCache
    from amdrv.emulator.isa.native.engine import Translator

    return Translator(threads=threads, cache=ObjectCache(folder) if folder is not None else None)


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the tests of this file, so that library functions are compiled once."""
    return tmp_path_factory.mktemp("native") / "cache"


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def benches(shared_folder: Path) -> tuple[Bench, Bench]:
    """Two alike: one with the interpreter, one with the translator."""
    return Bench(), Bench(engine=make_engine(shared_folder))


def source(name: str) -> str:
    return (KERNELS / f"{name}.ll").read_text()


def run_saxpy(bench: Bench) -> None:
    n = 1000
    x, y = np.arange(n, dtype=np.float32), np.full(n, 0.5, np.float32)
    on_y, kernel = bench.array(y), bench.load(source("saxpy"), "saxpy")
    bench.launch(kernel, (4,), (256,), on_y, bench.array(x), np.float32(3), np.int32(n))
    np.testing.assert_array_equal(bench.read(on_y, "f4", n), 3 * x + y)


def run_matmul(bench: Bench) -> None:
    n = 64
    a, b = np.random.default_rng(2).standard_normal((2, n, n), np.float32)
    c, a, b = (bench.array(matrix) for matrix in (np.zeros_like(a), a, b))
    bench.launch(bench.load(source("matmul"), "matmul"), (2, 2), (32, 8), c, a, b, n)


def run_reduce(bench: Bench) -> None:
    x = np.random.default_rng(3).standard_normal(5000, np.float32)
    partial, x = bench.array(np.zeros(5, np.float32)), bench.array(x)
    bench.launch(bench.load(source("reduce"), "reduce"), (5,), (256,), partial, x, 5000)


def run_histogram(bench: Bench) -> None:
    data = np.random.default_rng(4).integers(0, 256, 16384, np.uint8)
    bins, data = bench.array(np.zeros(256, np.uint32)), bench.array(data)
    bench.launch(bench.load(source("histogram"), "histogram"), (4,), (256,), bins, data)


def run_mandelbrot(bench: Bench) -> None:
    steps = bench.array(np.zeros((30, 60), np.uint32))
    view = [np.float32(number) for number in (-2.0, -1.2, 0.05)]
    kernel = bench.load(source("mandelbrot"), "mandelbrot")
    bench.launch(kernel, (2, 4), (32, 8), steps, np.int32(60), np.int32(30), *view, np.int32(50))


PROGRAMS = [run_saxpy, run_matmul, run_reduce, run_histogram, run_mandelbrot]


@pytest.mark.parametrize("program", PROGRAMS)
def test_memory_and_counts_are_those_of_the_interpreter(
    benches: tuple[Bench, Bench], program: Callable[[Any], None]
) -> None:
    for bench in benches:
        program(bench)
    oracle, bench = benches
    assert bench.stats == oracle.stats
    assert bench.stats.waves > 0
    assert not bench.engine.interpreted
    np.testing.assert_array_equal(bench.memory.arena, oracle.memory.arena)


@pytest.mark.parametrize("program", PROGRAMS)
def test_better_code_gives_the_same_results(benches: tuple[Bench, Bench], program: Callable[[Any], None]) -> None:
    from amdrv.emulator.isa.native import units

    oracle, bench = benches
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "WORTH_S", 0.0)
        program(bench)
        bench.engine.settle(SETTLE_S)
    assert [record.tier for record in bench.engine.compile_log][-1] == 2
    for one in (oracle, bench):
        one.memory = PagedMemory()
        one.engine.invalidate_code()
        program(one)
    assert bench.stats == oracle.stats
    np.testing.assert_array_equal(bench.memory.arena, oracle.memory.arena)


JUMP = """
    f4040100 f8000000           s_load_b64 s[4:5], s[0:1], null
    be864700                    s_getpc_b64 s[6:7]
    bf89fc07                    s_waitcnt lgkmcnt(0)
    f4000202 f8000000           s_load_b32 s8, s[4:5], null
    bf89fc07                    s_waitcnt lgkmcnt(0)
    80060806                    s_add_u32 s6, s6, s8
    82078007                    s_addc_u32 s7, s7, 0
    be804806                    s_setpc_b64 s[6:7]
    bf9f0000                    s_code_end
    be880087                    s_mov_b32 s8, 7
    7e020208                    v_mov_b32_e32 v1, s8
    7e040280                    v_mov_b32_e32 v2, 0
    dc6a0004 00040102           global_store_b32 v2, v1, s[4:5] offset:4
    bfb00000                    s_endpgm
"""

# Every workgroup adds one to a counter and then waits until all have.
MEETING = """
declare i32 @llvm.amdgcn.workitem.id.x()
declare void @llvm.amdgcn.s.sleep(i32)
define amdgpu_kernel void @k(ptr addrspace(1) %count, i32 %all) {
  %t = call i32 @llvm.amdgcn.workitem.id.x()
  %first = icmp eq i32 %t, 0
  br i1 %first, label %arrive, label %out
arrive:
  %before = atomicrmw add ptr addrspace(1) %count, i32 1 syncscope("agent") acq_rel
  br label %wait
wait:
  call void @llvm.amdgcn.s.sleep(i32 1)
  %seen = load atomic i32, ptr addrspace(1) %count syncscope("agent") acquire, align 4
  %less = icmp ult i32 %seen, %all
  br i1 %less, label %wait, label %out
out:
  ret void
}
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_all_workgroups_can_wait_for_each_other(bench: Bench, shared_folder: Path, threads: int) -> None:
    bench.engine = make_engine(shared_folder, threads=threads)
    count = bench.array(np.zeros(1, np.uint32))
    bench.launch(bench.load(MEETING), (100,), (64,), count, np.int32(100))
    assert bench.read(count, "u4", 1)[0] == 100


COUNT_TO_TEN = """
    be860080  s_mov_b32 s6, 0
    80068106  s_add_u32 s6, s6, 1
    bf0a8a06  s_cmp_lt_u32 s6, 10
    bfa2fffd  s_cbranch_scc1 65533
    bfb00000  s_endpgm
"""


def run_counting(bench: Bench) -> None:
    bench.launch(bench.assemble(COUNT_TO_TEN), (3,), (64,))
    assert (bench.stats.waves, bench.stats.wave_instructions) == (6, 6 * 32)


def test_a_unit_on_disk_is_used_and_gives_the_same(tmp_path: Path) -> None:
    benches = [Bench(engine=make_engine(tmp_path / "c")) for _ in range(2)]
    for bench in benches:
        run_counting(bench)
    assert [bench.engine.compile_log[0].cached for bench in benches] == [False, True]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "foreign"])
def test_damaged_files_are_compiled_again(bench: Bench, tmp_path: Path, damage: str) -> None:
    bench.engine = make_engine(tmp_path / "c")
    run_counting(bench)
    for path in (path for path in (tmp_path / "c").rglob("*") if path.is_file()):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes({"flipped": data, "truncated": data[: len(data) // 2], "foreign": b"something else"}[damage])
    other = Bench(engine=make_engine(tmp_path / "c"))
    run_counting(other)
    assert not other.engine.compile_log[0].cached


def test_code_that_an_invalidation_finds_unchanged_is_not_compiled_again(bench: Bench, shared_folder: Path) -> None:
    bench.engine = make_engine(shared_folder)
    kernel = bench.assemble([0xBF800000, 0xBFB00000])
    bench.launch(kernel, (1,), (32,))
    done = len(bench.engine.compile_log)
    bench.engine.invalidate_code()
    bench.launch(kernel, (1,), (32,))
    assert len(bench.engine.compile_log) == done


def test_the_same_code_at_another_address_is_not_compiled_again(bench: Bench, shared_folder: Path) -> None:
    bench.engine = make_engine(shared_folder)
    for _ in range(3):
        bench.launch(bench.assemble([0xBF800000, 0xBFB00000]), (1,), (32,))
    assert len(bench.engine.compile_log) == 1


def test_a_computed_jump_becomes_an_entry_after_the_first_time(bench: Bench, shared_folder: Path) -> None:
    # Where the code goes on is loaded from memory, as bytes from behind s_getpc.
    bench.engine = make_engine(shared_folder)
    kernel = bench.assemble(JUMP)
    for turn in range(3):
        arguments = bench.array(np.array([32, 0], np.uint32))
        bench.launch(kernel, (3,), (32,), arguments)
        assert bench.read(arguments, "u4", 2).tolist() == [32, 7]
        if turn == 0:
            done = len(bench.engine.compile_log)
    assert len(bench.engine.compile_log) == done


def test_a_loop_of_computed_jumps_ends_when_cancelled(bench: Bench, shared_folder: Path) -> None:
    bench.engine = make_engine(shared_folder)
    arguments = bench.array(np.array([0, 0], np.uint32))
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    bench.launch(bench.assemble(JUMP), (3,), (32,), arguments, cancelled=cancelled.is_set)
    assert bench.read(arguments, "u4", 2).tolist() == [0, 0]


FAULTS = {
    "unmapped load": "dc520000 02060000  global_load_b32 v2, v0, s[6:7]",
    "trap": "bf900002  s_trap 2",
    "halt": "bf8d0001  s_sethalt 1",
    "unknown bits": "bf7fffff  no instruction",
    "graphics": "f0000f04 00000004  image_load v[0:3], v[4:5], s[0:7] dmask:0xf dim:SQ_RSRC_IMG_2D",
    "end of code": "bf9f0000  s_code_end",
    "far jump": "be804804  s_setpc_b64 s[4:5]",
    "scalar load": "f4000204 f8000000  s_load_b32 s8, s[8:9], null",
    "half a descriptor": "f4287fbf e20bd11e  s_buffer_load_b128 of s[126:129]",
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_in_the_interpreters_words(benches: tuple[Bench, Bench], name: str) -> None:
    listing = f"""
    be8400ff 00001000  s_mov_b32 s4, 0x1000
    be8500ff 00001234  s_mov_b32 s5, 0x1234
    {FAULTS[name]}
    bfb00000  s_endpgm
    """
    told = []
    for bench in benches:
        with pytest.raises(ShaderFault) as caught:
            bench.launch(bench.assemble(listing), (1,), (32,))
        fault = caught.value
        told.append(
            (fault.kind, fault.detail, fault.pc, fault.mnemonic, fault.lane, fault.va, fault.access, fault.workgroup)
        )
    assert told[0] == told[1]


def test_a_fault_in_the_midst_of_a_workgroup_that_one_call_runs(benches: tuple[Bench, Bench]) -> None:
    """Compiled well, saxpy's eight waves run behind one another: the third one's addresses end with a page."""
    from amdrv.emulator.isa.native import units

    told = []
    for bench in benches:
        kernel = bench.load(source("saxpy"), "saxpy")
        x, y = bench.array(np.ones(1024, np.float32)), bench.array(np.ones(1024, np.float32))
        arguments = (x, np.float32(3), np.int32(256))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(units, "WORTH_S", 0.0)
            bench.launch(kernel, (1,), (256,), y, *arguments)
        if bench is benches[1]:
            bench.engine.settle(SETTLE_S)
            assert [record.tier for record in bench.engine.compile_log][-1] == 2
        with pytest.raises(ShaderFault) as caught:
            bench.launch(kernel, (1,), (256,), y + 4096 - 2 * 128 - 64, *arguments)
        fault = caught.value
        told.append((fault.kind, fault.pc, fault.mnemonic, fault.lane, fault.va, fault.workgroup))
        assert bench.launch(kernel, (2,), (256,), y, x, np.float32(1), np.int32(512)).waves == 16
        assert bench.read(y, "f4", 512).tolist() == [5.0] * 256 + [2.0] * 256
        if bench is benches[1]:  # waves before the one that faulted had come to their ends
            assert bench.read(y + 4096 - 2 * 128 - 64, "f4", 64).tolist() == [4.0] * 64
    assert told[0] == told[1]
    assert told[0][3] == 16


def test_waves_that_signal_a_barrier_and_do_not_wait(bench: Bench) -> None:
    """Compiled well, they run behind one another, and the barrier is theirs all the same."""
    from amdrv.emulator.isa.native import units
    from amdrv.emulator.isa.native.engine import Translator

    bench.engine = Translator("gfx1201")
    kernel = bench.assemble("be804ec1  s_barrier_signal -1\nbfb00000  s_endpgm\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "WORTH_S", 0.0)
        bench.launch(kernel, (1,), (128,))
    bench.engine.settle(SETTLE_S)
    assert [record.tier for record in bench.engine.compile_log][-1] == 2
    assert bench.launch(kernel, (3,), (128,)).waves == 12


def test_an_engine_goes_on_after_a_fault(bench: Bench, shared_folder: Path) -> None:
    bench.engine = make_engine(shared_folder)
    with pytest.raises(ShaderFault):
        bench.launch(bench.assemble([0xBF900002]), (100,), (32,))
    assert bench.launch(bench.assemble([0xBFB00000]), (100,), (32,)).waves == 100


def test_a_dispatch_ends_soon_after_it_is_cancelled(bench: Bench, shared_folder: Path) -> None:
    bench.engine = make_engine(shared_folder)
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    started = time.perf_counter()
    stats = bench.launch(bench.assemble([0xBFA0FFFF]), (50,), (64,), cancelled=cancelled.is_set)
    assert time.perf_counter() - started < 2
    assert stats.wave_instructions > 0


def test_an_exception_of_cancelled_comes_out(bench: Bench, shared_folder: Path) -> None:
    bench.engine = make_engine(shared_folder)

    def cancelled() -> bool:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        bench.launch(bench.assemble([0xBFA0FFFF]), (50,), (64,), cancelled=cancelled)


def test_code_that_llvm_refuses_is_interpreted(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from amdrv.emulator.isa.native import units
    from amdrv.emulator.isa.native.pipeline import BadModule

    def refuse(*_: object) -> bytes:
        raise BadModule("not today")

    monkeypatch.setattr(units, "compile_module", refuse)
    bench.engine = make_engine()
    run_saxpy(bench)
    assert (bench.stats.waves, bench.engine.interpreted) == (32, 1)
    assert "not today" in caplog.text


ENDLESS = """
    import sys, threading, time
    sys.path.insert(0, sys.argv[1])
    from conftest import Bench
    from amdrv.emulator.isa.native.engine import Translator
    bench = Bench(engine=Translator(threads=2))
    kernel = bench.assemble([0xBFA0FFFF])
    threading.Thread(target=bench.launch, args=(kernel, (50,), (64,)), daemon=True).start()
    time.sleep(0.5)
    print("leaving")
"""


def test_the_interpreter_exits_while_waves_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ENDLESS), str(Path(__file__).parent)],
        capture_output=True,
        timeout=60,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_a_forked_process_runs_dispatches_of_its_own(bench: Bench, shared_folder: Path) -> None:
    bench.engine = make_engine(shared_folder)
    kernel = bench.assemble([0xBF800000, 0xBFB00000])
    bench.launch(kernel, (2000,), (64,))
    process_id = os.fork()
    if not process_id:
        signal.alarm(20)
        os._exit(0 if bench.launch(kernel, (2000,), (64,)).waves == 4000 else 1)
    assert os.waitpid(process_id, 0)[1] == 0
    assert bench.launch(kernel, (2000,), (64,)).waves == 4000
