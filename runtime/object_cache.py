"""Machine code on disk, by the hash of its IR and of what compiled it: a kernel is compiled once on a machine."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

DIGEST_BYTES = 32


class ObjectCache:
    """A folder of objects. One that is damaged, missing or of another module costs time, never a result."""

    def __init__(self, about: object, folder: Path | None = None) -> None:
        """``about`` names compiler and processor; objects made by others are not used."""
        self._folder = folder or user_cache_path("amdrv") / "tensor"
        self._about = repr(about).encode()

    def compiled(self, ir: str, compile_ir: Callable[[str], bytes]) -> bytes:
        """The object of a module, compiled now or before."""
        name = hashlib.sha256(self._about + ir.encode())
        path = self._folder / f"{name.hexdigest()}.o"
        try:
            data = path.read_bytes()
            if _digest(name.digest(), data[DIGEST_BYTES:]) == data[:DIGEST_BYTES]:
                return data[DIGEST_BYTES:]
        except OSError:
            pass  # not there, or not readable
        code = compile_ir(ir)
        temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        with suppress(OSError):  # a full or read-only disk
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(_digest(name.digest(), code) + code)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return code


def _digest(name: bytes, code: bytes) -> bytes:
    """What stands before an object: it is whole, and of the module with this name."""
    return hashlib.sha256(name + code).digest()
