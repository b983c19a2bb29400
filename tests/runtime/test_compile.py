"""compile_llvm: whatever LLVM does to its own process, the caller's goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from amdrv.errors import InvalidArgument, Timeout, Unsupported
from amdrv.runtime import code_object
from amdrv.runtime.compile import Compiler, compile_llvm

EMPTY = "define amdgpu_kernel void @k() {\n ret void\n}\n"
FATAL = """
declare float @llvm.tan.f32(float)
define amdgpu_kernel void @k(ptr addrspace(1) %p) {
  %v = load float, ptr addrspace(1) %p
  %t = call float @llvm.tan.f32(float %v)
  store float %t, ptr addrspace(1) %p
  ret void
}
"""
ABORT = 'define amdgpu_kernel void @k() {\n call void asm sideeffect "s_nop 0", ""()\n ret void\n}\n'


def test_an_object_for_the_architecture_comes_back() -> None:
    assert str(code_object.parse(compile_llvm(EMPTY)).target) == "gfx1100"
    assert str(code_object.parse(compile_llvm(EMPTY, "gfx942")).target).startswith("gfx942")


def test_the_same_text_gives_the_same_bytes() -> None:
    first = compile_llvm(EMPTY)
    compile_llvm(EMPTY.replace("@k", "@other"))
    assert compile_llvm(EMPTY) == first == Compiler().compile(EMPTY, "gfx1100", 3, 60)


def test_text_that_does_not_parse_is_the_callers_error_with_llvms_words() -> None:
    with pytest.raises(InvalidArgument, match=r"LLVM IR: <string>:1:32: error: expected type"):
        compile_llvm("define amdgpu_kernel void @k( {")


def test_text_that_does_not_verify_is_the_callers_error() -> None:
    with pytest.raises(InvalidArgument, match="dominate"):
        compile_llvm(
            "define amdgpu_kernel void @k(ptr addrspace(1) %p) {\n store i32 %x, ptr addrspace(1) %p\n"
            " %x = add i32 1, 2\n ret void\n}"
        )


def test_another_target_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="x86_64"):
        compile_llvm('target triple = "x86_64-linux-gnu"\n' + EMPTY)


@pytest.mark.parametrize(("text", "words"), [(FATAL, "ftan"), (ABORT, "asm parser")])
def test_an_error_that_ends_llvm_is_told_and_the_next_request_works(text: str, words: str) -> None:
    with pytest.raises(Unsupported, match=f"gfx1100.*{words}"):
        compile_llvm(text)
    assert compile_llvm(EMPTY)


def test_too_much_lds_is_told_in_llvms_words() -> None:
    text = (
        "@l = internal addrspace(3) global [70000 x i8] undef\n"
        "define amdgpu_kernel void @k(i32 %i) {\n %g = getelementptr i8, ptr addrspace(3) @l, i32 %i\n"
        " store volatile i8 1, ptr addrspace(3) %g\n ret void\n}"
    )
    with pytest.raises(Unsupported, match=r"local memory \(70000\) exceeds limit"):
        compile_llvm(text)


def test_a_compile_that_takes_too_long_is_ended() -> None:
    compiler = Compiler()
    compiler.compile(EMPTY, "gfx1100", 3, 60)
    child = compiler._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(Timeout, match="LLVM to compile for gfx1100"):
        compiler.compile(EMPTY, "gfx1100", 3, 0.2)
    assert time.monotonic() - started < 10
    assert child.poll() is not None
    assert compiler.compile(EMPTY, "gfx1100", 3, 60)
    compiler.close()


def test_a_child_that_was_killed_is_replaced() -> None:
    compiler = Compiler()
    compiler.compile(EMPTY, "gfx1100", 3, 60)
    assert compiler._child is not None
    compiler._child.kill()
    compiler._child.wait()
    assert compiler.compile(EMPTY, "gfx1100", 3, 60)
    compiler.close()


def test_texts_larger_than_a_pipe_go_through_both_ways() -> None:
    pad = "; " + "x" * 200
    text = "\n".join(f"define amdgpu_kernel void @kernel_{i}() {{ {pad}\n ret void\n}}" for i in range(400))
    code = compile_llvm(text, opt=1)
    assert len(text) > 65536 < len(code)
    assert len(code_object.parse(code).kernels) == 400


def test_threads_take_turns() -> None:
    results: dict[int, list[str]] = {}

    def work(number: int) -> None:
        results[number] = list(code_object.parse(compile_llvm(EMPTY.replace("@k", f"@k{number}"))).kernels)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [f"k{i}"] for i in range(6)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: compile_llvm(EMPTY, "gfx9999"), "gfx9999"),
        (lambda: compile_llvm(EMPTY, opt=9), "level 9"),
        (lambda: compile_llvm(b"bytes"), "not bytes"),  # type: ignore[arg-type]
        (lambda: compile_llvm("\ud800"), "LLVM IR"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call: object, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        call()  # type: ignore[operator]


def test_a_script_next_to_a_file_named_like_a_standard_module_still_compiles(tmp_path: Path) -> None:
    (tmp_path / "enum.py").write_text("raise SystemExit('the wrong enum')")
    script = tmp_path / "user.py"
    # Its author imported what the script needs before the folder came into play.
    script.write_text(
        "import sys\nfolder = sys.path.pop(0)\nimport amdrv\n"
        "sys.path.insert(0, folder)\n"
        "code = amdrv.compile_llvm('define amdgpu_kernel void @k() { ret void }')\n"
        "print(code[:4])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert "ELF" in done.stdout, done.stderr


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), float("inf"), "soon", None, True])
def test_a_time_that_is_none_is_refused(timeout_s: object) -> None:
    with pytest.raises(InvalidArgument, match="a timeout is a finite number"):
        compile_llvm(EMPTY, timeout_s=timeout_s)  # type: ignore[arg-type]
