"""A file with code in it: a code object as it is, LLVM IR compiled."""

from __future__ import annotations

from pathlib import Path

from amdrv.errors import InvalidArgument
from amdrv.runtime.compile import compile_llvm

MAX_CODE_BYTES = 1 << 30


def load_code(path: Path, arch: str) -> bytes:
    """The code object in ``path`` for ``arch``; text in a .ll file is compiled. Raises InvalidArgument and what the
    compiler raises; whether other bytes are a code object is for the loader to say."""
    if path.stat().st_size > MAX_CODE_BYTES:
        raise InvalidArgument(f"{path}: {path.stat().st_size} bytes are too many for code")
    data = path.read_bytes()
    if path.suffix != ".ll":
        return data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path}: not text, though its name ends in .ll") from None
    return compile_llvm(text, arch)
