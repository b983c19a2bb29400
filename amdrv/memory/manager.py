"""Memory that the GPU can reach: allocation, mapping, and access from the CPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Literal, Protocol

from amdrv.errors import DeviceLost, InvalidArgument, OutOfMemory
from amdrv.facts.pte import EntryFormat
from amdrv.ioctl.pci_function import DmaMemory, PciFunction
from amdrv.memory.allocator import GIANT_PAGE, PAGE, RangeAllocator, preferred_alignment
from amdrv.memory.layout import ROOT_TABLE, VramLayout
from amdrv.memory.page_table import PageFlags, PageTables, WalkStep
from amdrv.vram import Vram

log = logging.getLogger(__name__)

# Virtual addresses: the lower canonical half, far from the device memory aperture (which starts at 0x80_0000_0000 and
# bypasses page tables) and below the flat windows for LDS and scratch.
VA_START = 0x2000_0000_0000
VA_BYTES = 0x2000_0000_0000
VA_GUARD_BYTES = PAGE  # stays unmapped behind every allocation: running off the end faults

Kind = Literal["vram", "host"]


class CacheControl(Protocol):
    """What must happen between a change of memory or tables and the GPU's use of it."""

    def flush_hdp(self) -> None:
        """Push CPU writes through the host data path into device memory."""

    def invalidate_tlbs(self) -> None:
        """Forget every cached translation of the address space, in both hubs."""


class Allocation:
    """Bytes with a GPU address."""

    def __init__(
        self,
        manager: MemoryManager,
        va: int,
        size_bytes: int,
        kind: Kind,
        view: memoryview | None,
        vram_offset: int | None = None,
        dma: DmaMemory | None = None,
    ) -> None:
        self.va = va
        self.size_bytes = size_bytes
        self.kind: Kind = kind
        self.view = view  # the CPU's view; None for device memory that BAR0 does not show
        self.vram_offset = vram_offset
        self.closed = False
        self._manager = manager
        self._dma = dma

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Copy bytes out; raises InvalidArgument out of bounds or after free, DeviceLost after a reset."""
        return bytes(self.copy_out(offset, size_bytes))

    def copy_out(self, offset: int, size_bytes: int) -> bytearray:
        """As ``read``, without another copy."""
        self._check(offset, size_bytes)
        if self.view is None:
            return bytearray(self._manager.vram.read(self._vram_offset() + offset, size_bytes))
        data = bytearray(self.view[offset : offset + size_bytes])
        if self.kind == "vram":
            self._manager.check_present(data)
        return data

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Copy bytes in; raises as ``read`` does. The GPU sees them after ``MemoryManager.flush_hdp``."""
        data = memoryview(data).cast("B")
        self._check(offset, len(data))
        if self.view is not None:
            self.view[offset : offset + len(data)] = data
        else:
            self._manager.vram.write(self._vram_offset() + offset, data)

    def _vram_offset(self) -> int:
        if self.vram_offset is None:
            raise InvalidArgument("host memory has no offset in device memory")
        return self.vram_offset

    def _check(self, offset: int, size_bytes: int) -> None:
        self._manager.check_alive()
        if self.closed:
            raise InvalidArgument(f"the allocation at {self.va:#x} was freed")
        if offset < 0 or size_bytes < 0 or offset + size_bytes > self.size_bytes:
            raise InvalidArgument(
                f"{offset:#x}+{size_bytes:#x} is outside the {self.size_bytes:#x} bytes at {self.va:#x}"
            )

    def __repr__(self) -> str:
        return f"<Allocation {self.kind} {self.va:#x}+{self.size_bytes:#x}{' freed' if self.closed else ''}>"


class _VramTables:
    """Page tables in the visible part of device memory."""

    def __init__(self, vram: Vram, heap: RangeAllocator, physical_base: int) -> None:
        self._vram = vram
        self._heap = heap
        self._physical_base = physical_base

    def alloc_table(self) -> int:
        return self._physical_base + self._heap.alloc(PAGE, below=self._vram.visible_bytes)

    def free_table(self, address: int) -> None:
        self._heap.free(address - self._physical_base)

    def table_view(self, address: int) -> memoryview:
        view = self._vram.view(address - self._physical_base, PAGE)
        if view is None:
            raise InvalidArgument(f"page table at {address:#x} is not in visible device memory")
        return view


class MemoryManager:
    """One GPU's memory and its one address space. Safe to call from several threads."""

    def __init__(
        self,
        function: PciFunction,
        vram: Vram,
        layout: VramLayout,
        caches: CacheControl,
        entry_format: EntryFormat,
        physical_base: int = 0,
    ) -> None:
        """Start with an empty address space.

        ``physical_base`` is what page table entries add to an offset in device memory (the hub's FB_OFFSET).
        """
        self.vram = vram
        self._function = function
        self._caches = caches
        self._physical_base = physical_base
        self._lock = threading.RLock()
        self._lost = False
        first, last = layout.heap[0], layout.heap[-1]
        self._heap = RangeAllocator("device memory", first.offset, last.end - first.offset)
        for before, after in zip(layout.heap, layout.heap[1:], strict=False):
            self._heap.reserve(before.end, after.offset - before.end)
        self.vram_total = self._heap.free_bytes
        self._addresses = RangeAllocator("GPU address space", VA_START, VA_BYTES)
        self._tables = PageTables(
            entry_format, _VramTables(vram, self._heap, physical_base), physical_base + ROOT_TABLE.offset
        )
        self._live: dict[int, Allocation] = {}
        self._unpublished = True  # tables changed since the last flush

    @property
    def vram_free(self) -> int:
        """Bytes of device memory that nobody has, in however many pieces."""
        return self._heap.free_bytes

    @property
    def root_table_address(self) -> int:
        """What the hubs' page table base holds, without the valid bit."""
        return self._tables.root_address

    def alloc_vram(
        self,
        size_bytes: int,
        *,
        align: int = PAGE,
        uncached: bool = False,
        writeable: bool = True,
        executable: bool = True,
        visible: bool = False,
    ) -> Allocation:
        """Contiguous device memory, mapped. Its contents are whatever was there.

        ``visible`` demands the part that BAR0 shows (it is preferred anyway). Raises OutOfMemory, InvalidArgument.
        """
        with self._lock:
            self.check_alive()
            limit = self.vram.visible_bytes if visible else None
            offset = self._alloc_offset(size_bytes, align, limit)
            flags = PageFlags(uncached=uncached, writeable=writeable, executable=executable)
            try:
                va = self._map(size_bytes, align, [(self._physical_base + offset, _round_up(size_bytes))], flags)
            except Exception:
                self._heap.free(offset)
                raise
            view = self.vram.view(offset, size_bytes)
            return self._register(Allocation(self, va, size_bytes, "vram", view, vram_offset=offset))

    def alloc_host(
        self,
        size_bytes: int,
        *,
        align: int = PAGE,
        uncached: bool = True,
        writeable: bool = True,
        executable: bool = False,
    ) -> Allocation:
        """Zeroed host memory, mapped for snooped access.

        ``uncached`` keeps it out of the GPU's caches, so that both sides see each other's writes at once. Raises
        OutOfMemory, InvalidArgument.
        """
        with self._lock:
            self.check_alive()
            dma = self._function.alloc_dma(size_bytes)
            flags = PageFlags(system=True, snooped=True, uncached=uncached, writeable=writeable, executable=executable)
            try:
                va = self._map(size_bytes, align, _first_bytes(dma.segments, _round_up(size_bytes)), flags)
            except Exception:
                dma.close()
                raise
            return self._register(Allocation(self, va, size_bytes, "host", dma.view[:size_bytes], dma=dma))

    def free(self, allocation: Allocation) -> None:
        """Unmap and give back. Freeing twice is harmless; the GPU must be done with the memory."""
        with self._lock:
            if allocation.closed:
                return
            allocation.closed = True
            self._live.pop(allocation.va, None)
            if not self._lost:
                emptied = self._tables.unmap(allocation.va, _round_up(allocation.size_bytes))
                # Order matters: entries reach memory, cached translations go, and only then may the bytes be reused.
                self.flush_hdp()
                self._caches.invalidate_tlbs()
                for table in emptied:
                    self._heap.free(table - self._physical_base)
                self._addresses.free(allocation.va)
            if allocation.vram_offset is not None:
                self._heap.free(allocation.vram_offset)
            self._release(allocation)

    def flush_hdp(self) -> None:
        """Make everything that the CPU wrote to device memory visible to the GPU."""
        with self._lock:
            self.check_alive()
            self._caches.flush_hdp()
            self._unpublished = False

    def publish(self) -> None:
        """Flush if page tables changed since the last flush; what a doorbell needs before it."""
        if self._unpublished:
            self.flush_hdp()

    def walk(self, va: int) -> list[WalkStep]:
        """The translation of an address as the GPU would find it, one step a level."""
        with self._lock:
            self.check_alive()
            return self._tables.walk(va)

    def find(self, va: int) -> Allocation | None:
        """The live allocation that contains an address, for diagnosis."""
        with self._lock:
            return next((a for a in self._live.values() if a.va <= va < a.va + a.size_bytes), None)

    def check_present(self, data: bytearray) -> None:
        """Raise DeviceLost when bytes that BAR0 gave are those of a card that is not there any more."""
        self._function.check_present(data)

    def check_alive(self) -> None:
        """Raises DeviceLost when a reset has taken the memory away."""
        if self._lost:
            raise DeviceLost(f"{self._function.name}: a reset took the device's memory; open the device again")

    def lose(self) -> None:
        """The device lost its memory: every allocation is void from now on."""
        with self._lock:
            self._lost = True

    def close(self) -> None:
        """Give back every allocation. The GPU must not be running, and must not be able to reach host memory."""
        with self._lock:
            self._lost = True
            for allocation in list(self._live.values()):
                allocation.closed = True
                self._release(allocation)
            self._live.clear()

    def _alloc_offset(self, size_bytes: int, align: int, limit: int | None) -> int:
        rounded = _round_up(size_bytes)
        wanted = max(align, preferred_alignment(rounded, at_most=GIANT_PAGE))
        for attempt in sorted({wanted, max(align, preferred_alignment(rounded)), align}, reverse=True):
            try:
                return self._heap.alloc(rounded, attempt, below=limit)
            except OutOfMemory:
                if attempt == align:
                    raise
        raise OutOfMemory(f"device memory: {size_bytes:#x} bytes do not fit")

    def _map(self, size_bytes: int, align: int, pieces: Iterable[tuple[int, int]], flags: PageFlags) -> int:
        """Take addresses and map ``pieces`` there.

        No invalidation: the range was unmapped, an invalidation followed its last use, and absent translations are
        not cached (Linux 6.12 amdgpu_vm_bo_update invalidates only when something mapped goes away or moves).
        """
        rounded = _round_up(size_bytes)
        wanted = max(align, preferred_alignment(rounded, at_most=GIANT_PAGE))
        va = self._addresses.alloc(rounded + VA_GUARD_BYTES, wanted)
        try:
            self._tables.map(va, pieces, flags)
        except Exception:
            self._addresses.free(va)
            raise
        self._unpublished = True
        return va

    def _register(self, allocation: Allocation) -> Allocation:
        self._live[allocation.va] = allocation
        log.debug("%r", allocation)
        return allocation

    @staticmethod
    def _release(allocation: Allocation) -> None:
        allocation.view = None
        if allocation._dma is not None:
            allocation._dma.close()
            allocation._dma = None


def _round_up(size_bytes: int) -> int:
    return -(-size_bytes // PAGE) * PAGE


def _first_bytes(segments: Iterable[tuple[int, int]], size_bytes: int) -> list[tuple[int, int]]:
    """The beginning of a scatter list."""
    pieces: list[tuple[int, int]] = []
    for address, segment_bytes in segments:
        if size_bytes <= 0:
            break
        pieces.append((address, min(segment_bytes, size_bytes)))
        size_bytes -= segment_bytes
    return pieces
