"""The software translation cache: only an invalidation clears it, and a forgotten one gives the old answer."""

from __future__ import annotations

from dataclasses import dataclass

from amdrv.emulator.isa.dispatch import Access


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of virtual addresses with one translation: arena index = address + ``delta``."""

    first: int
    end: int  # exclusive
    delta: int
    allowed: tuple[bool, bool, bool]  # by Access: read, write, execute
    cached: bool = True  # whether stores may stay in the L2
    # Of system memory: where it is on the bus, what the page alone allows, and when the bus was asked what is there.
    bus_address: int | None = None
    walked: tuple[bool, bool, bool] | None = None
    generation: int = 0

    def allows(self, access: Access) -> bool:
        """Whether the page's permission bits admit the access."""
        return self.allowed[access]


class Tlb:
    """Extents of one VMID by size and aligned address."""

    def __init__(self) -> None:
        self._by_size: dict[int, dict[int, Extent]] = {}

    def find(self, va: int) -> Extent | None:
        """The cached translation that covers ``va``."""
        for shift, extents in tuple(self._by_size.items()):  # another thread may add a size meanwhile
            extent = extents.get(va >> shift)
            if extent is not None:
                return extent
        return None

    def add(self, extent: Extent) -> None:
        """Cache a translation; its size is a power of two."""
        shift = (extent.end - extent.first).bit_length() - 1
        self._by_size.setdefault(shift, {})[extent.first >> shift] = extent

    def reaches(self, first: int, end: int) -> set[int]:
        """Of a range of page numbers of the arena (4 KiB pages), those that a cached translation leads to."""
        found: set[int] = set()
        for extents in tuple(self._by_size.values()):
            for extent in list(extents.values()):
                low, high = extent.first + extent.delta >> 12, extent.end + extent.delta >> 12
                found.update(range(max(first, low), min(end, high)))
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._by_size = {}
