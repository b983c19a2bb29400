"""Machine code on disk, by the hash of its IR and of what compiled it: a kernel is compiled once on a machine."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

DIGEST_BYTES = 32


class ObjectCache:
    """A folder of objects. A damaged or missing one costs time, never a result."""

    def __init__(self, about: object, folder: Path | None = None) -> None:
        """``about`` names compiler and processor; objects made by others are not used."""
        self._folder = folder or user_cache_path("amdrv") / "tensor"
        self._about = repr(about).encode()

    def compiled(self, ir: str, compile_ir: Callable[[str], bytes]) -> bytes:
        """The object of a module, compiled now or before."""
        path = self._folder / f"{hashlib.sha256(self._about + ir.encode()).hexdigest()}.o"
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[DIGEST_BYTES:]).digest() == data[:DIGEST_BYTES]:
                return data[DIGEST_BYTES:]
        except OSError:
            pass  # not there, or not readable
        code = compile_ir(ir)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
            temporary.write_bytes(hashlib.sha256(code).digest() + code)
            temporary.replace(path)
        except OSError:
            pass  # a full or read-only disk
        return code
