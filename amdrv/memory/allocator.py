"""Ranges of an address space: who has which bytes. Serves device memory and GPU virtual addresses alike."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from amdrv.errors import InvalidArgument, OutOfMemory

PAGE = 4096
HUGE_PAGE = 2 << 20
GIANT_PAGE = 1 << 30


def preferred_alignment(size_bytes: int, at_least: int = PAGE, at_most: int = HUGE_PAGE) -> int:
    """Alignment that lets page tables cover ``size_bytes`` with the largest pages and fragments.

    The largest power of two not above the size, but not above ``at_most``.
    """
    natural = 1 << (max(size_bytes, 1).bit_length() - 1)
    return max(at_least, min(natural, at_most))


class RangeAllocator:
    """Address-ordered first fit with coalescing.

    Lower addresses are preferred, because the CPU sees the start of device memory and not always the rest. Sizes are
    rounded up to ``granule`` bytes.
    """

    def __init__(self, name: str, start: int, size_bytes: int, granule: int = PAGE) -> None:
        if size_bytes <= 0 or start % granule or size_bytes % granule:
            raise InvalidArgument(f"{name}: {start:#x}+{size_bytes:#x} is not whole granules of {granule} bytes")
        self.name = name
        self.start = start
        self.end = start + size_bytes
        self.granule = granule
        self.free_bytes = size_bytes
        self._starts: list[int] = [start]  # of free ranges, ascending
        self._ends: list[int] = [start + size_bytes]
        self._taken: dict[int, int] = {}  # start → rounded size

    def alloc(self, size_bytes: int, align: int | None = None, below: int | None = None) -> int:
        """The start of ``size_bytes`` newly taken bytes, aligned, and wholly below ``below`` when given.

        Raises InvalidArgument for a size that is not positive or an alignment that is no power of two, OutOfMemory.
        """
        align = align or self.granule
        if size_bytes <= 0:
            raise InvalidArgument(f"{self.name}: cannot allocate {size_bytes} bytes")
        if align & (align - 1) or align <= 0:
            raise InvalidArgument(f"{self.name}: alignment {align} is not a power of two")
        align = max(align, self.granule)
        rounded = -(-size_bytes // self.granule) * self.granule
        limit = self.end if below is None else min(below, self.end)
        for index, free_start in enumerate(self._starts):
            at = -(-free_start // align) * align
            if at + rounded > limit:
                if free_start >= limit:
                    break
                continue
            if at + rounded <= self._ends[index]:
                self._carve(index, at, rounded)
                self._taken[at] = rounded
                return at
        raise OutOfMemory(
            f"{self.name}: {size_bytes:#x} bytes (aligned to {align:#x}) do not fit;"
            f" {self.free_bytes:#x} bytes are free, the largest run has {self.largest_free():#x}"
        )

    def reserve(self, start: int, size_bytes: int) -> None:
        """Take exactly these bytes; raises InvalidArgument when any of them is not free."""
        first = start // self.granule * self.granule
        last = -(-(start + size_bytes) // self.granule) * self.granule
        index = bisect_right(self._starts, first) - 1
        if size_bytes <= 0 or index < 0 or last > self._ends[index]:
            raise InvalidArgument(f"{self.name}: {start:#x}+{size_bytes:#x} is not free")
        self._carve(index, first, last - first)
        self._taken[first] = last - first

    def free(self, start: int) -> None:
        """Give back what ``alloc`` or ``reserve`` returned at ``start``; raises InvalidArgument for anything else."""
        size_bytes = self._taken.pop(start, None)
        if size_bytes is None:
            raise InvalidArgument(f"{self.name}: nothing is allocated at {start:#x}")
        end = start + size_bytes
        self.free_bytes += size_bytes
        index = bisect_left(self._starts, start)
        joins_left = index > 0 and self._ends[index - 1] == start
        joins_right = index < len(self._starts) and self._starts[index] == end
        if joins_left and joins_right:
            self._ends[index - 1] = self._ends[index]
            del self._starts[index], self._ends[index]
        elif joins_left:
            self._ends[index - 1] = end
        elif joins_right:
            self._starts[index] = start
        else:
            self._starts.insert(index, start)
            self._ends.insert(index, end)

    def largest_free(self) -> int:
        """Bytes of the longest free run."""
        return max((end - start for start, end in zip(self._starts, self._ends, strict=True)), default=0)

    def free_ranges(self) -> list[tuple[int, int]]:
        """(start, end) of every free run, ascending."""
        return list(zip(self._starts, self._ends, strict=True))

    def _carve(self, index: int, at: int, size_bytes: int) -> None:
        start, end = self._starts[index], self._ends[index]
        pieces = [(s, e) for s, e in ((start, at), (at + size_bytes, end)) if s < e]
        self._starts[index : index + 1] = [s for s, _ in pieces]
        self._ends[index : index + 1] = [e for _, e in pieces]
        self.free_bytes -= size_bytes
