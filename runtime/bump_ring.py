"""Space in a ring that comes back in order: for packets and for what launches carry with them."""

from __future__ import annotations

from collections import deque

from amdrv.errors import InvalidArgument


class BumpRing:
    """Positions that only grow, over ``size`` units of memory; position modulo ``size`` is the place.

    ``reserve`` takes space, ``commit`` ties everything taken so far to a timeline value, ``retire`` gives it back once
    the timeline has reached that value.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.head = 0  # next position to hand out
        self._tail = 0  # first position still in use
        self._committed: deque[tuple[int, int]] = deque()  # (timeline value, head then)

    def reserve(self, count: int, align: int = 1, *, contiguous: bool = True) -> int | None:
        """The position of ``count`` units, None while there is no room for them.

        ``contiguous`` space does not run over the end of the memory. Raises InvalidArgument for more than the ring has.
        """
        if count > self.size:
            raise InvalidArgument(f"{self.name}: {count} units do not fit in {self.size}")
        start = -(-self.head // align) * align
        if contiguous and start % self.size + count > self.size:
            start += self.size - start % self.size
        if start + count - self._tail > self.size:
            # An empty ring has room for anything, wherever its head happens to be.
            if self._tail != self.head or not contiguous:
                return None
            start = self._tail = -(-self.head // self.size) * self.size
        self.head = start + count
        return start

    def commit(self, timeline_value: int) -> None:
        """What was reserved up to now is in use until the timeline reaches ``timeline_value``."""
        self._committed.append((timeline_value, self.head))

    def retire(self, reached: int) -> None:
        """Give back what no work at or before timeline value ``reached`` needs any more."""
        while self._committed and self._committed[0][0] <= reached:
            self._tail = self._committed.popleft()[1]

    @property
    def oldest(self) -> int | None:
        """The timeline value whose passing gives space back next; None when nothing is in use."""
        return self._committed[0][0] if self._committed else None
