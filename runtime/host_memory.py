"""Memory of this process for arrays: aligned for vectors, and kept for later when it is given back."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amdrv.errors import OutOfMemory

ALIGN_BYTES = 128
PHYSICAL_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
POOL_BYTES_MAX = 1 << 29


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of this process, aligned for vectors."""

    view: NDArray[np.uint8]
    address: int


class Pool:
    """Blocks of memory that were given back, by size. Fresh pages of the system cost more than most kernels."""

    def __init__(self) -> None:
        self._free: dict[int, list[Block]] = {}
        self._kept_bytes = 0
        self._most_bytes = POOL_BYTES_MAX  # kept here: at exit, modules are emptied before the last blocks come back

    # Lists and numbers are changed in steps that the interpreter does not divide; a block is never in two hands, and
    # the count of bytes only decides how many are kept.

    def take(self, size_bytes: int) -> Block:
        """A block with undefined contents."""
        try:
            found = self._free[size_bytes].pop()
        except (KeyError, IndexError):
            try:
                if size_bytes > PHYSICAL_BYTES:  # the system may promise it, and end the process when it is touched
                    raise MemoryError
                raw = np.empty(size_bytes + ALIGN_BYTES, np.uint8)
            except (MemoryError, ValueError):
                raise OutOfMemory(f"{size_bytes} bytes for a tensor; this machine has {PHYSICAL_BYTES}") from None
            start = -raw.ctypes.data % ALIGN_BYTES
            return Block(raw[start : start + size_bytes], raw.ctypes.data + start)
        self._kept_bytes -= size_bytes
        return found

    def give(self, block: Block) -> None:
        """Keep a block for later, or leave it to the system when there are many."""
        size_bytes = block.view.size
        if self._kept_bytes + size_bytes <= self._most_bytes:
            self._kept_bytes += size_bytes
            self._free.setdefault(size_bytes, []).append(block)


class HostMemory:
    """A block, given back to the pool when forgotten."""

    __slots__ = ("__weakref__", "_block", "_pool", "address", "size_bytes", "view")

    def __init__(self, pool: Pool, size_bytes: int) -> None:
        self._pool = pool
        self._block = pool.take(size_bytes)
        self.view = self._block.view
        self.address = self._block.address
        self.size_bytes = size_bytes

    def __del__(self) -> None:
        if hasattr(self, "_block"):  # else there was no memory
            self._pool.give(self._block)

    def write(self, data: NDArray[np.uint8], offset: int = 0) -> None:
        self.view[offset : offset + data.size] = data

    def read(self, size_bytes: int, offset: int = 0) -> NDArray[np.uint8]:
        return self.view[offset : offset + size_bytes].copy()
