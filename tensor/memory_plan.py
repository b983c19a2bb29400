"""Temporary arrays in one block of memory: those that are never needed together share bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGN_BYTES = 256


@dataclass(frozen=True, slots=True)
class Interval:
    """An array that is written by step ``first`` and last read by step ``last``."""

    first: int
    last: int
    size_bytes: int


def place(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """An offset for each array, and the size of the block: large arrays first, each at the lowest free spot."""
    offsets = [0] * len(intervals)
    placed: list[int] = []
    for index in sorted(range(len(intervals)), key=lambda k: (-intervals[k].size_bytes, intervals[k].first)):
        wanted = intervals[index]
        taken = sorted(
            (offsets[other], offsets[other] + _aligned(intervals[other].size_bytes))
            for other in placed
            if intervals[other].first <= wanted.last and wanted.first <= intervals[other].last
        )
        at = 0
        for begin, end in taken:
            if at + _aligned(wanted.size_bytes) <= begin:
                break
            at = max(at, end)
        offsets[index] = at
        placed.append(index)
    total = max((offsets[index] + _aligned(intervals[index].size_bytes) for index in placed), default=0)
    return offsets, total


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGN_BYTES) * ALIGN_BYTES
