"""What the virtual machine is put together from: the archive of its first files, and the kernel that it runs."""

from __future__ import annotations

import importlib
import io
import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

import amdrv

VM = Path(__file__).parents[2] / "tools" / "vm"


def tool(name: str) -> ModuleType:
    """A module of tools/vm, which is no package."""
    sys.path.insert(0, str(VM))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(VM))


initramfs, link, packages, parts = (tool(name) for name in ("initramfs", "link", "packages", "parts"))


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """path → (mode, contents), as the kernel reads it (init/initramfs.c)."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701" and at % 4 == 0
        numbers = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        at = at + 110 + name_size + 3 & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, archive[at : at + size])
        at = at + size + 3 & ~3


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9}){0,3}\.x", fullmatch=True), st.binary(max_size=40)))
def test_archive_holds_every_file_and_its_folders_before_it(files: dict[str, bytes]) -> None:
    packed = initramfs.pack({name: (initramfs.PLAIN, data) for name, data in files.items()})
    found = entries(packed)
    assert {name: data for name, (mode, data) in found.items() if stat.S_ISREG(mode)} == files
    seen: set[str] = set()
    for name, (mode, _) in found.items():
        assert name.rpartition("/")[0] in {"", *seen}
        if stat.S_ISDIR(mode):
            seen.add(name)


@pytest.fixture(scope="module")
def relocatable() -> bytes:
    return amdrv.compile_llvm((VM / "guest" / "kernels" / "scale.ll").read_text())


def test_linked_kernel_has_its_descriptor_point_to_its_code(relocatable: bytes) -> None:
    elf = ELFFile(io.BytesIO(link.link(relocatable)))
    symbols = {symbol.name: symbol for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
    descriptor, code = symbols["kernel.kd"], symbols["kernel"]
    assert elf.header["e_type"] == "ET_DYN"
    rodata, text = elf.get_section_by_name(".rodata"), elf.get_section_by_name(".text")
    place = descriptor["st_value"] - rodata["sh_addr"] + 16  # kernel_code_entry_byte_offset
    distance = int.from_bytes(rodata.data()[place : place + 8], "little", signed=True)
    assert descriptor["st_value"] + distance == code["st_value"] == text["sh_addr"]
    assert text.data() == ELFFile(io.BytesIO(relocatable)).get_section_by_name(".text").data()


def test_segments_of_a_linked_kernel_cover_what_is_loaded(relocatable: bytes) -> None:
    linked = link.link(relocatable)
    elf = ELFFile(io.BytesIO(linked))
    loaded: dict[int, int] = {}
    for segment in elf.iter_segments("PT_LOAD"):
        for n in range(segment["p_filesz"]):
            loaded[segment["p_vaddr"] + n] = linked[segment["p_offset"] + n]
        assert segment["p_vaddr"] % 0x1000 == segment["p_offset"] % 0x1000
    for section in elf.iter_sections():
        if section["sh_flags"] & 2:
            data = bytes(loaded[section["sh_addr"] + n] for n in range(section["sh_size"]))
            assert data == section.data()


@pytest.mark.parametrize("source", ["declare void @elsewhere()", "@elsewhere = external addrspace(1) global i32"])
def test_kernel_that_needs_something_else_is_refused(source: str) -> None:
    use = "call void @elsewhere()" if "void" in source else "store i32 1, ptr addrspace(1) @elsewhere"
    code = amdrv.compile_llvm(f"{source}\ndefine amdgpu_kernel void @k() {{\n {use}\n ret void\n}}\n")
    with pytest.raises(ValueError, match="elsewhere"):
        link.link(code)


@pytest.mark.parametrize(
    ("text", "archive"),
    [
        ("deb http://mirror.example/debian trixie main\n", "http://mirror.example/debian"),
        ("deb [arch=amd64] https://mirror.example/debian/ trixie main\n", "https://mirror.example/debian"),
        ("Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\n", "http://mirror.example/debian"),
        (
            "deb http://mirror.example/debian-security s main\ndeb http://b.example/debian t main\n",
            "http://b.example/debian",
        ),
    ],
)
def test_archive_is_the_one_of_the_machines_sources(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, archive: str
) -> None:
    (tmp_path / "sources.list").write_text(text)
    monkeypatch.setattr(packages, "SOURCES", (tmp_path / "sources.list",))
    assert packages.archive_uri() == archive


def test_machine_without_an_archive_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "SOURCES", (tmp_path / "none",))
    with pytest.raises(packages.Unavailable, match="no Debian archive"):
        packages.archive_uri()


def test_parts_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "firmware" / "amdgpu").mkdir(parents=True)
    with pytest.raises(packages.Unavailable, match=r"qemu is not there|the guest's packages are for x86_64"):
        parts.gather(tmp_path / "vm", "gfx1100", fetch=False)


def test_kernel_of_several_packages_is_found_whole() -> None:
    depends = {
        "linux-image-amd64": ["linux-base-amd64", "linux-image-7.3.4-amd64", "linux-modules-amd64"],
        "linux-image-7.3.4-amd64": ["dracut", "linux-binary-7.3.4-amd64", "linux-modules-7.3.4-amd64"],
    }

    class Archive:
        def dependencies(self, package: str, suite: str) -> list[str]:
            return depends.get(package, [])

    archive: Any = Archive()
    assert set(parts._kernel_packages(archive, "suite")) == {
        "linux-image-7.3.4-amd64",
        "linux-binary-7.3.4-amd64",
        "linux-modules-7.3.4-amd64",
    }
