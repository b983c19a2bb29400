"""Compiled code in this process: the host's LLVM, library functions that are compiled when first called, units."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import platform
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amdrv.emulator.isa.native.cache import ObjectCache
from amdrv.emulator.isa.native.library import METADATA, Library
from amdrv.emulator.isa.native.pipeline import Effort, compile_module, target, target_machine

# What LLVM calls for large copies and fills.
C_FUNCTIONS = ("memset", "memcpy", "memmove")
_DECLARED = re.compile(r"^declare [^@]*@([\w.]+)\(", re.MULTILINE)
_ISA_FOLDER = Path(__file__).parent.parent


def unavailable() -> str:
    """Why code cannot be compiled on this machine; "" when it can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the translator writes code for x86-64 only, not {platform.machine()}"
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is not installed"
    _, features = target()
    if "+avx2" not in features.split(","):
        return "the host's processor has no AVX2"
    return ""


@functools.cache
def identity() -> bytes:
    """A digest of everything that decides what code comes out: our sources, LLVM, the host's processor."""
    import llvmlite
    from llvmlite import binding

    digest = hashlib.sha256()
    for path in sorted(_ISA_FOLDER.rglob("*")):
        if path.suffix in (".py", ".txt", ".json") and path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(_ISA_FOLDER)} {len(content)}\n".encode())
            digest.update(content)
    digest.update(repr((llvmlite.__version__, binding.llvm_version_info, *target())).encode())
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Loaded:
    """An object in memory. The code stays for as long as ``tracker`` is referenced."""

    addresses: Mapping[str, int]
    tracker: Any


class Linker:
    """Loads objects into this process; safe to use from several threads."""

    def __init__(self) -> None:
        from llvmlite.binding import orcjit

        self._orcjit = orcjit
        self._lljit = orcjit.create_lljit_compiler(target_machine(0), suppress_errors=True)
        libc = ctypes.CDLL(None)
        self._imports = {name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0 for name in C_FUNCTIONS}
        self._lock = threading.Lock()
        self._number = 0

    def load(self, objects: Iterable[bytes], exports: Iterable[str], libraries: Iterable[str]) -> tuple[str, Loaded]:
        """Link objects with each other and with libraries loaded before.

        Returns the name by which later ones can refer to it, and the addresses of ``exports``. Raises RuntimeError for
        an object that is damaged, or refers to what is nowhere.
        """
        builder = self._orcjit.JITLibraryBuilder()
        for item in objects:
            builder.add_object_img(item)
        for library in libraries:
            builder.add_jit_library(library)
        for symbol, address in self._imports.items():
            builder.import_symbol(symbol, address)
        names = list(exports)
        for symbol in names:
            builder.export_symbol(symbol)
        with self._lock:
            self._number += 1
            name = f"code.{self._number}"
            tracker = builder.link(self._lljit, name)
        return name, Loaded({symbol: tracker[symbol] for symbol in names}, tracker)


class LoadedLibrary:
    """The functions of one wave size; each is compiled, or taken from the disk, when a unit first calls it."""

    def __init__(self, linker: Linker, library: Library, cache: ObjectCache | None) -> None:
        self._linker, self._library, self._cache = linker, library, cache
        self._lock = threading.Lock()
        self._homes: dict[str, str] = {}  # library name of each loaded function
        self._loaded: list[Loaded] = []  # these stay

    def require(self, names: Iterable[str]) -> list[str]:
        """Load functions and all that they call; returns the libraries to link with. Unknown names are left out."""
        known = set(self._library.names)
        with self._lock:
            wanted = [name for name in names if name in known]
            missing = self._closure(wanted, known)
            if missing:
                self._load(missing)
            return sorted({self._homes[name] for name in wanted})

    def address(self, name: str) -> int:
        """Host address of a function. Raises KeyError."""
        self.require([name])
        with self._lock:
            return next(loaded.addresses[name] for loaded in self._loaded if name in loaded.addresses)

    def _closure(self, wanted: list[str], known: set[str]) -> list[str]:
        missing: list[str] = []
        waiting = list(wanted)
        while waiting:
            name = waiting.pop()
            if name in known and name not in self._homes and name not in missing:
                missing.append(name)
                waiting += self._library.function(name).calls
        return missing

    def _load(self, names: list[str]) -> None:
        objects = [self._object(name) for name in names]
        homes = sorted({self._homes[name] for name in self._referred(names) if name in self._homes})
        home, loaded = self._linker.load(objects, names, homes)
        self._loaded.append(loaded)
        for name in names:
            self._homes[name] = home

    def _referred(self, names: list[str]) -> set[str]:
        """What functions call, and what is called by the callees that are compiled into them."""
        known, called, waiting = set(self._library.names), set[str](), list(names)
        while waiting:
            for callee in self._library.function(waiting.pop()).calls & known - called:
                called.add(callee)
                if self._library.function(callee).inline:
                    waiting.append(callee)
        return called

    def _object(self, name: str) -> bytes:
        """A function's object. Small fast paths that it calls are compiled into it."""
        function = self._library.function(name)
        definition = function.definition()
        # What is compiled into it comes out of the same sources, whose digest is the identity.
        key = hashlib.sha256(identity() + definition.encode()).hexdigest()
        found = self._cache.load_function(key) if self._cache is not None else None
        if found is None:
            inlined = self._library.prelude(function.calls, inline=True)
            found = compile_module("\n".join([inlined, definition, METADATA]), Effort.LIBRARY)
            if self._cache is not None:
                self._cache.store_function(key, found)
        return found


def declared(ir: str) -> list[str]:
    """Names of the functions that a module declares: what it needs from elsewhere."""
    last = max(ir.rfind("\ndeclare "), 0)  # most of the text comes behind
    return [name for name in _DECLARED.findall(ir[: ir.find("(", last) + 1]) if not name.startswith("llvm.")]
