"""The guest's first file system: a static BusyBox, the amdgpu module with what it needs, firmware, and an init script.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst ("newc").
"""

from __future__ import annotations

import io
import lzma
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import zstandard
from elftools.elf.elffile import ELFFile
from parts import Parts

MODULE = "amdgpu"
HERE = Path(__file__).resolve().parent
DIRECTORY, EXECUTABLE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
PLAIN, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
PROGRAMS = ("usr/bin/rocminfo", "usr/bin/python3*", "usr/share/libdrm/amdgpu.ids")
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.decompress,
    ".zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
# Of the programs' packages: what nothing here asks for.
LEFT_OUT = ("/gconv/", "/perl", "/test/", "__pycache__", "/idlelib/", "/dpkg/", "/apt/", "/pydoc_data/", "/ensurepip/")
# What each chip asks for: the names that `modinfo amdgpu` lists for its IP versions.
FIRMWARE = {
    "gfx1100": ("gc_11_0_0_*", "psp_13_0_0_*", "sdma_6_0_0*", "smu_13_0_0*"),
    "gfx1201": ("gc_12_0_1_*", "psp_14_0_3_*", "sdma_7_0_1*", "smu_14_0_3*"),
}


def pack(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An archive of ``files``: path → (mode, contents); folders are made as needed."""
    entries = {parent: (DIRECTORY, b"") for path in sorted(files) for parent in _parents(path)} | dict(files)
    out = bytearray()
    for inode, (path, (mode, data)) in enumerate(entries.items(), start=1):
        out += _entry(inode, path, mode, data)
    return bytes(out + _entry(0, "TRAILER!!!", 0, b""))


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _entry(inode: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


class Modules:
    """The modules of an unpacked kernel package by name; the package has no dependency list yet, so it is read here."""

    def __init__(self, folder: Path) -> None:
        self._paths = {path.name.split(".")[0].replace("-", "_"): path for path in folder.rglob("*.ko*")}

    def contents(self, name: str) -> bytes:
        """The module's ELF file."""
        path = self._paths[name]
        return DECOMPRESS.get(path.suffix, bytes)(path.read_bytes())

    def in_order(self, name: str) -> list[str]:
        """``name`` and everything that it needs, in an order in which they load."""
        order: list[str] = []
        self._visit(name, order)
        return order

    def _visit(self, name: str, order: list[str]) -> None:
        if name in order or name not in self._paths:  # not there: built into the kernel
            return
        for needed in self._needs(name):
            self._visit(needed, order)
        order.append(name)

    def _needs(self, name: str) -> Iterator[str]:
        section = ELFFile(io.BytesIO(self.contents(name))).get_section_by_name(".modinfo")
        for line in section.data().split(b"\0") if section is not None else ():
            key, _, value = line.decode(errors="replace").partition("=")
            if key == "depends":
                yield from (needed.replace("-", "_") for needed in value.split(",") if needed)


def build(parts: Parts, arch: str, extra: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The archive for a guest of these parts, with ``extra`` files."""
    modules = Modules(parts.kernel)
    order = modules.in_order(MODULE)
    files: dict[str, tuple[int, bytes]] = {place: (LINK, f"usr/{place}".encode()) for place in ("bin", "lib", "lib64")}
    files |= {
        "init": (EXECUTABLE, (HERE / "guest" / "init").read_bytes()),
        "usr/bin/busybox": (EXECUTABLE, (parts.busybox / "usr/bin/busybox").read_bytes()),
        "modules/order": (PLAIN, "".join(f"{name}\n" for name in order).encode()),
    }
    files |= {f"modules/{name}.ko": (PLAIN, modules.contents(name)) for name in order}
    images = (path for pattern in FIRMWARE[arch] for path in (parts.firmware / "amdgpu").glob(pattern))
    files |= {f"usr/lib/firmware/amdgpu/{path.name}": (PLAIN, path.read_bytes()) for path in images}
    return pack(files | dict(_programs(parts.guest)) | dict(extra))


def _programs(guest: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """What the guest's programs need of their packages."""
    for path in (
        *(path for program in PROGRAMS for path in guest.glob(program)),
        *(guest / "usr/lib").rglob("*"),
        *(guest / "usr/lib64").iterdir(),
    ):
        name = path.relative_to(guest).as_posix()
        if any(part in name for part in LEFT_OUT):
            continue
        if path.is_symlink():
            yield name, (LINK, os.readlink(path).encode())
        elif path.is_file():
            yield name, (EXECUTABLE if os.access(path, os.X_OK) else PLAIN, path.read_bytes())
