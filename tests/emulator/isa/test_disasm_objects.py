"""Code objects that others made, read as LLVM reads them: what Triton compiles, and what two packages carry."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from amdrv.emulator.isa.disassembler import disassemble
from amdrv.runtime import code_object, offload_bundle

OBJDUMP = "llvm-objdump-22"
HAS_TRITON = importlib.util.find_spec("triton") is not None
TRITON_CASES = (
    "vector_add", "softmax", "matmul_fp16", "matmul_bf16", "matmul_fp32", "matmul_fp8", "layernorm", "dropout",
    "histogram", "functions", "attention", "sort", "cumsum",
)  # fmt: skip
# package → library with gfx1100 code in it
LIBRARIES = {"bitsandbytes": "libbitsandbytes_rocm72.so", "gafime-rocm": "libgafime_rocm.so"}
pytestmark = pytest.mark.skipif(shutil.which(OBJDUMP) is None, reason=f"{OBJDUMP} is not installed")


def listed(code: bytes, folder: Path) -> dict[int, str]:
    """LLVM's listing of a linked code object: address → text."""
    path = folder / "code.hsaco"
    path.write_bytes(code)
    done = subprocess.run([OBJDUMP, "-d", path], check=True, capture_output=True, text=True, timeout=60)
    lines = re.finditer(r"^\t(.*?)\s*// ([0-9A-F]+):", done.stdout, re.MULTILINE)
    return {int(line[2], 16): re.sub(r"\s+", " ", line[1]) for line in lines}


def compare(code: bytes, folder: Path) -> int:
    """How many instructions were compared; asserts that every one reads the same."""
    parsed = code_object.parse(code, "gfx1100")
    memory = parsed.image.relocate(0)
    theirs = listed(code, folder)
    ours: dict[int, str] = {}
    for start, end in parsed.image.executable:
        ours |= {at: text for at, _, text in disassemble(memory[start:end], start)}
    wrong = {at: (text, ours.get(at)) for at, text in theirs.items() if ours.get(at) != text}
    assert wrong == {}
    return len(theirs)


@pytest.fixture(scope="module")
def triton_objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what Triton compiles."""
    folder = tmp_path_factory.mktemp("triton")
    script = Path(__file__).with_name("triton_kernels.py")
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True, timeout=100)
    return folder


@pytest.mark.skipif(not HAS_TRITON, reason="the package triton is not installed")
@pytest.mark.parametrize("name", TRITON_CASES)
def test_what_triton_compiles_reads_as_llvm_reads_it(name: str, triton_objects: Path, tmp_path: Path) -> None:
    assert {path.stem for path in triton_objects.glob("*.hsaco")} == set(TRITON_CASES)
    assert compare((triton_objects / f"{name}.hsaco").read_bytes(), tmp_path) > 50


def library(package: str) -> bytes:
    try:
        files = importlib.metadata.files(package) or ()
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the package {package} is not installed")
    found = [Path(str(file.locate())) for file in files if file.name == LIBRARIES[package]]
    if not found:
        pytest.skip(f"this version of {package} has no {LIBRARIES[package]}")
    return found[0].read_bytes()


@pytest.mark.parametrize("package", LIBRARIES)
def test_what_a_package_carries_reads_as_llvm_reads_it(package: str, tmp_path: Path) -> None:
    bundles = offload_bundle.in_library(library(package))
    assert bundles
    assert sum(compare(offload_bundle.select(bundle, "gfx1100"), tmp_path) for bundle in bundles) > 10_000
