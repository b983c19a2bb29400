"""A virtual-memory hub: contexts, apertures, walker, translation cache, invalidation engines, fault latch.

GCHUB (in front of the shaders and CP) and MMHUB (in front of PSP, SMU, IH and SDMA) are one design under two register
prefixes; a subclass names the prefix and the interrupt client. Behaviour: Linux 6.12 gfxhub_v3_0.c, mmhub_v3_0.c,
gmc_v11_0.c; reset values: gc_11_0_0_default.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.arena import BusError
from amdrv.emulator.isa.dispatch import Access, MemoryViolation
from amdrv.emulator.model import Model
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.vm.tlb import Extent, Tlb
from amdrv.emulator.vm.walk import Context, FaultReason, WalkFault, walk
from amdrv.facts.pte import GFX11, EntryFormat, Mtype

if TYPE_CHECKING:
    from amdrv.emulator.register_space import Slot
    from amdrv.emulator.shell import Card
    from amdrv.registers import Register

VMIDS = 16
INVALIDATION_ENGINES = 18
INVALIDATION_S = 1.5e-6  # request to acknowledge; inferred from "tens of register reads at most" on Navi boards
PAGE_SHIFT = 12
WHOLE_RANGE = (0xFFFF_FFFF, 0x1F)  # what drivers write to an engine's address range; anything less matches no page here
UTCL2_FAULT = 0  # source id of a page fault, at both hubs (Linux 6.12 gmc_v11_0_sw_init)
# By FaultReason: (WALKER_ERROR, MAPPING_ERROR, is a permission fault). Walker error codes as umr prints them.
FAULT_CODES = {
    FaultReason.CONTEXT_OFF: (0, 1, False),
    FaultReason.RANGE: (1, 0, False),
    FaultReason.DIRECTORY: (2, 1, False),
    FaultReason.PAGE: (0, 1, False),
    FaultReason.WALKER: (3, 1, False),
    FaultReason.PERMISSION: (0, 0, True),
}
RESET_VALUES = {
    "VM_L2_CNTL": 0x0008_0602,
    "VM_L2_CNTL4": 0x0000_00C1,
    "VM_L2_CNTL5": 0x0000_3FE0,
    "VM_L2_PROTECTION_FAULT_CNTL2": 0x000A_0000,
    "MC_VM_MX_L1_TLB_CNTL": 0x0000_0501,
}
PLAIN = (
    "MC_VM_AGP_BASE",
    "MC_VM_AGP_BOT",
    "MC_VM_AGP_TOP",
    "MC_VM_FB_OFFSET",
    "MC_VM_SYSTEM_APERTURE_LOW_ADDR",
    "MC_VM_SYSTEM_APERTURE_HIGH_ADDR",
    "MC_VM_SYSTEM_APERTURE_DEFAULT_ADDR_LSB",
    "MC_VM_SYSTEM_APERTURE_DEFAULT_ADDR_MSB",
    "MC_VM_MX_L1_TLB_CNTL",
    "VM_L2_CNTL",
    "VM_L2_CNTL4",
    "VM_L2_CNTL5",
    "VM_L2_CONTEXT1_IDENTITY_APERTURE_LOW_ADDR_LO32",
    "VM_L2_CONTEXT1_IDENTITY_APERTURE_LOW_ADDR_HI32",
    "VM_L2_CONTEXT1_IDENTITY_APERTURE_HIGH_ADDR_LO32",
    "VM_L2_CONTEXT1_IDENTITY_APERTURE_HIGH_ADDR_HI32",
    "VM_L2_CONTEXT_IDENTITY_PHYSICAL_OFFSET_LO32",
    "VM_L2_CONTEXT_IDENTITY_PHYSICAL_OFFSET_HI32",
    "VM_L2_PROTECTION_FAULT_DEFAULT_ADDR_LO32",
    "VM_L2_PROTECTION_FAULT_DEFAULT_ADDR_HI32",
    "VM_L2_PROTECTION_FAULT_CNTL2",
    "VM_L2_BANK_SELECT_RESERVED_CID2",
)


class VmHub(Model):
    """One hub. ``view(vmid)`` is what a client of the hub sees."""

    prefix: str  # "GC" or "MM"
    interrupt_client: int
    l2_control3: int  # reset value of VM_L2_CNTL3, where the two hubs differ
    entries: EntryFormat = GFX11
    context_reset = 0x01FF_FE00  # of VM_CONTEXTn_CNTL
    has_long_status = False

    def __init__(self, card: Card, instance: int = 0) -> None:
        super().__init__(card, instance)
        self._slots: dict[str, Slot] = {}
        self._tlbs = [Tlb() for _ in range(VMIDS)]
        fb_top = card.chip.fb_base + card.vram_bytes - 1
        self._claim("MC_VM_FB_LOCATION_BASE", reset=card.chip.fb_base >> 24)
        self._claim("MC_VM_FB_LOCATION_TOP", reset=fb_top >> 24)
        for name in PLAIN:
            self._claim(name, reset=RESET_VALUES.get(name, 0))
        self._claim("VM_L2_CNTL3", reset=self.l2_control3)
        self._claim("VM_L2_CNTL2", on_write=self._l2_control2)
        self._claim("VM_L2_PROTECTION_FAULT_CNTL", reset=0x3FFF_FFFC, on_write=self._fault_control)
        self._status = self._claim("VM_L2_PROTECTION_FAULT_STATUS", writable=0)
        if self.has_long_status:
            self._claim("VM_L2_PROTECTION_FAULT_STATUS_HI32", writable=0)  # poisoned data, of which there is none
        self._address_lo = self._claim("VM_L2_PROTECTION_FAULT_ADDR_LO32", writable=0)
        self._address_hi = self._claim("VM_L2_PROTECTION_FAULT_ADDR_HI32", writable=0)
        for vmid in range(VMIDS):
            self._claim(f"VM_CONTEXT{vmid}_CNTL", reset=self.context_reset)
            for part in ("BASE", "START", "END"):
                self._claim(f"VM_CONTEXT{vmid}_PAGE_TABLE_{part}_ADDR_LO32")
                self._claim(f"VM_CONTEXT{vmid}_PAGE_TABLE_{part}_ADDR_HI32")
        self._acknowledged = [0] * INVALIDATION_ENGINES
        self._semaphores = [False] * INVALIDATION_ENGINES
        for engine in range(INVALIDATION_ENGINES):
            self._claim_engine(engine)

    def power_on(self) -> None:
        self._acknowledged = [0] * INVALIDATION_ENGINES
        self._semaphores = [False] * INVALIDATION_ENGINES
        self.invalidate(range(VMIDS))

    def view(self, vmid: int) -> HubView:
        """A client's view of memory under ``vmid``; implements ShaderMemory."""
        return HubView(self, vmid)

    def invalidate(self, vmids: range | list[int]) -> None:
        """Drop cached translations."""
        for vmid in vmids:
            self._tlbs[vmid].clear()

    # -- translation --------------------------------------------------------------------------------------------------

    def extent(self, vmid: int, va: int) -> Extent:
        """The cached or walked translation that covers ``va``. Raises WalkFault."""
        tlb = self._tlbs[vmid]
        found = tlb.find(va)
        if found is None or (found.bus_address is not None and found.generation != self.card.arena.generation):
            with self.card.lock:
                found = self._fill(vmid, va) if found is None else self._on_the_bus(found, va)
                tlb.add(found)
        return found

    def look(self, vmid: int, va: int) -> Extent:
        """As ``extent``, but nothing is cached by it: for whoever looks at the card from the inside."""
        found = self._tlbs[vmid].find(va)
        with self.card.lock:
            if found is None:
                return self._fill(vmid, va)
            return found if found.bus_address is None else self._on_the_bus(found, va)

    def reached_pages(self, first: int, end: int) -> set[int]:
        """Of a range of page numbers of the arena, those that any client has reached since the last invalidation."""
        return set().union(*(tlb.reaches(first, end) for tlb in self._tlbs))

    def context(self, vmid: int) -> Context:
        """The page-table registers of one VMID."""
        control = self._register(f"VM_CONTEXT{vmid}_CNTL").decode(self._peek(f"VM_CONTEXT{vmid}_CNTL"))
        table = f"VM_CONTEXT{vmid}_PAGE_TABLE"
        base = self._peek_pair(f"{table}_BASE_ADDR_LO32", f"{table}_BASE_ADDR_HI32")
        return Context(
            enabled=bool(control.ENABLE_CONTEXT),
            depth=control.PAGE_TABLE_DEPTH,
            block_bits=9 + control.PAGE_TABLE_BLOCK_SIZE,
            base=base & 0x0000_FFFF_FFFF_F000,
            base_in_system=bool(base & 2),
            start=self._peek_pair(f"{table}_START_ADDR_LO32", f"{table}_START_ADDR_HI32") << PAGE_SHIFT,
            end=(self._peek_pair(f"{table}_END_ADDR_LO32", f"{table}_END_ADDR_HI32") << PAGE_SHIFT) | 0xFFF,
        )

    def _fill(self, vmid: int, va: int) -> Extent:
        if vmid == 0 and (aperture := self._system_aperture(va)) is not None:
            return self._outside_trusted(aperture, va)
        page = walk(self.context(vmid), self.entries, self._read_entry, va)
        index = self._arena_index(page.in_system, page.address, page.size_bytes)
        if index is None:  # the run is not all there: translate the one 4 KiB page
            first = va & ~0xFFF
            index = self._arena_index(page.in_system, page.address + first - page.va, 4096)
            if index is None:
                raise WalkFault(FaultReason.WALKER)
            end, delta = first + 4096, index - first
        else:
            first, end, delta = page.va, page.va + page.size_bytes, index - page.va
        allowed = (page.readable, page.writeable, page.executable)
        if page.in_system:
            return self._on_the_bus(Extent(first, end, delta, allowed, False, page.address + first - page.va), va)
        return self._outside_trusted(Extent(first, end, delta, allowed, page.mtype != Mtype.UC), va)

    def _on_the_bus(self, extent: Extent, va: int) -> Extent:
        """A translation to a bus address as the bus answers there now. Raises WalkFault where it does not.

        The hub caches where pages are on the bus, not what answers there: that is looked up at every access on silicon,
        by the machine's IOMMU if it has one.
        """
        arena, address = self.card.arena, extent.bus_address or 0
        index = self._arena_index(True, address, extent.end - extent.first)
        if index is None and extent.end - extent.first > 4096:  # no longer in one piece
            first = va & ~0xFFF
            address += first - extent.first
            extent = replace(extent, first=first, end=first + 4096, bus_address=address)
            index = self._arena_index(True, address, 4096)
        readable, writable = arena.rights(address)
        if index is None or not (readable or writable):
            raise WalkFault(FaultReason.WALKER)
        read, write, execute = extent.walked or extent.allowed
        allowed = (read and readable, write and writable, execute and readable)
        return replace(
            extent,
            delta=index - extent.first,
            allowed=allowed,
            walked=(read, write, execute),
            generation=arena.generation,
        )

    def _outside_trusted(self, extent: Extent, va: int) -> Extent:
        """The translation, as far as it stays out of trusted memory. Raises WalkFault inside of it."""
        trusted = self.card.trusted_memory
        low, high = extent.first + extent.delta, extent.end + extent.delta
        if trusted is None or high <= trusted.start or trusted.stop <= low:
            return extent
        first = va & ~0xFFF
        if trusted.start <= first + extent.delta < trusted.stop:
            raise WalkFault(FaultReason.PERMISSION)
        return replace(extent, first=first, end=first + 4096)

    def _system_aperture(self, va: int) -> Extent | None:
        """VMID 0 reaches VRAM by its MC address without translation (SYSTEM_ACCESS_MODE 3)."""
        fb_base = (self._peek("MC_VM_FB_LOCATION_BASE") & 0xFF_FFFF) << 24
        offset = va - fb_base
        if not 0 <= offset < self.card.vram_bytes:
            return None
        # Until a driver narrows the aperture it covers everything: firmware reads VRAM before any driver set it up.
        low, high = self._peek("MC_VM_SYSTEM_APERTURE_LOW_ADDR"), self._peek("MC_VM_SYSTEM_APERTURE_HIGH_ADDR")
        if (low or high) and not low <= va >> 18 <= high:
            return None
        first = va & ~0xFFFF
        return Extent(first, first + 0x10000, -fb_base, (True, True, True))

    def _arena_index(self, in_system: bool, address: int, size_bytes: int) -> int | None:
        if not in_system:
            return address if address >= 0 and address + size_bytes <= self.card.vram_bytes else None
        if not self.card.bus_master:
            return None
        try:
            return self.card.arena.bus_index(address, size_bytes)
        except BusError:
            return None

    def _read_entry(self, in_system: bool, address: int) -> int:
        index = self._arena_index(in_system, address, 8)
        if index is None:
            raise WalkFault(FaultReason.WALKER)
        try:
            return int.from_bytes(self.card.arena.load(index, 8), "little")
        except BusError as error:
            raise WalkFault(FaultReason.WALKER) from error

    # -- faults -------------------------------------------------------------------------------------------------------

    def report_fault(self, vmid: int, va: int, access: Access, reason: FaultReason, client: int) -> None:
        """Latch the first fault, and send the interrupt that the context's enable bits ask for."""
        with self.card.lock:
            walker, mapping, permission = FAULT_CODES[reason]
            status = self._status.register.decode(self._status.value)
            if int(status) == 0:
                self._status.value = self._status.register.encode(
                    WALKER_ERROR=walker,
                    PERMISSION_FAULTS=(2 << access) if permission else 0,  # valid, read, write, execute
                    MAPPING_ERROR=mapping,
                    CID=client,
                    RW=int(access is Access.WRITE),
                    VMID=vmid,
                )
                self._address_lo.value = (va >> PAGE_SHIFT) & 0xFFFF_FFFF
                self._address_hi.value = va >> (PAGE_SHIFT + 32)
            else:
                self._status.value = int(status.replace(MORE_FAULTS=1))
            control = self._register(f"VM_CONTEXT{vmid}_CNTL").decode(self._peek(f"VM_CONTEXT{vmid}_CNTL"))
            if control.VALID_PROTECTION_FAULT_ENABLE_INTERRUPT or control.RANGE_PROTECTION_FAULT_ENABLE_INTERRUPT:
                page = va >> PAGE_SHIFT
                write_bit = 0x20 if access is Access.WRITE else 0
                self.card.model(IhModel).post(
                    client_id=self.interrupt_client,
                    source_id=UTCL2_FAULT,
                    ring_id=0,
                    vmid=vmid,
                    pasid=None,
                    context=(page & 0xFFFF_FFFF, (page >> 32) & 0xF | write_bit, 0, 0),
                    from_mmhub=self.prefix == "MM",
                )

    def _fault_control(self, value: int) -> None:
        if value & 1:  # CLEAR_PROTECTION_FAULT_STATUS_ADDR
            self._status.value = self._address_lo.value = self._address_hi.value = 0

    # -- registers ----------------------------------------------------------------------------------------------------

    def _claim_engine(self, engine: int) -> None:
        name = f"VM_INVALIDATE_ENG{engine}"
        self._claim(f"{name}_SEM", on_read=partial(self._take, engine), on_write=partial(self._give, engine))
        self._claim(f"{name}_REQ", on_write=partial(self._request, engine))
        self._claim(f"{name}_ACK", writable=0, on_read=lambda: self._acknowledged[engine])
        self._claim(f"{name}_ADDR_RANGE_LO32")
        self._claim(f"{name}_ADDR_RANGE_HI32")

    def _take(self, engine: int) -> int:
        free = not self._semaphores[engine]
        self._semaphores[engine] = True
        return int(free)

    def _give(self, engine: int, value: int) -> None:
        self._semaphores[engine] = bool(value & 1)

    def _request(self, engine: int, value: int) -> None:
        request = self._register(f"VM_INVALIDATE_ENG{engine}_REQ").decode(value)
        mask = request.PER_VMID_INVALIDATE_REQ
        self._acknowledged[engine] = 0
        name = f"VM_INVALIDATE_ENG{engine}_ADDR_RANGE"
        covers = (self._peek(f"{name}_LO32"), self._peek(f"{name}_HI32")) == WHOLE_RANGE
        reaches_ptes = request.INVALIDATE_L2_PTES and request.INVALIDATE_L1_PTES

        def finish() -> None:
            if covers and reaches_ptes:
                self.invalidate([vmid for vmid in range(VMIDS) if mask >> vmid & 1])
            self._acknowledged[engine] = mask
            self.card.changed.notify_all()

        if request.CLEAR_PROTECTION_FAULT_STATUS_ADDR:
            self._fault_control(1)
        self.card.clock.after(INVALIDATION_S, finish)

    def _l2_control2(self, value: int) -> None:
        control = self._register("VM_L2_CNTL2").decode(value)
        if control.INVALIDATE_ALL_L1_TLBS and control.INVALIDATE_L2_CACHE:
            self.invalidate(range(VMIDS))

    def _claim(
        self,
        name: str,
        *,
        reset: int = 0,
        writable: int = 0xFFFF_FFFF,
        on_read: Callable[[], int] | None = None,
        on_write: Callable[[int], None] | None = None,
    ) -> Slot:
        slot = self.claim(self.prefix + name, reset=reset, writable=writable, on_read=on_read, on_write=on_write)
        self._slots[name] = slot
        return slot

    def _register(self, name: str) -> Register:
        return self._slots[name].register

    def _peek(self, name: str) -> int:
        return self._slots[name].value

    def _peek_pair(self, low: str, high: str) -> int:
        return self._peek(high) << 32 | self._peek(low)


class HubView:
    """Memory as one VMID sees it through a hub: the ShaderMemory of that VMID."""

    def __init__(self, hub: VmHub, vmid: int) -> None:
        self.hub = hub
        self.vmid = vmid
        self.arena = hub.card.arena.bytes

    def translate(self, va: NDArray[np.uint64], access: Access) -> NDArray[np.int64]:
        """Arena index of each virtual address; raises MemoryViolation for the lowest that fails first."""
        if va.size == 0:
            return np.empty(va.shape, np.int64)
        low = int(va.min())
        extent = self._extent(low, access)
        signed = va.view(np.int64)
        if int(va.max()) < extent.end:
            return self._brought(signed + extent.delta, va, access)
        result = np.empty(va.shape, np.int64)
        pending = np.ones(va.shape, np.bool_)
        while True:
            inside = pending & (va >= np.uint64(extent.first)) & (va < np.uint64(extent.end))
            result[inside] = signed[inside] + extent.delta
            pending &= ~inside
            if not pending.any():
                return self._brought(result, va, access)
            extent = self._extent(int(va[pending].min()), access)

    def extent(self, va: int, access: Access) -> tuple[int, int, int]:
        """(first, end, delta) of the translation that covers ``va``; raises MemoryViolation."""
        extent = self._extent(va, access)
        if va + extent.delta >= self.hub.card.arena.remote.lowest:  # page by page: each has to be brought
            self._brought(np.array([va + extent.delta], np.int64), np.array([va], np.uint64), access)
            first = max(extent.first, va & ~0xFFF)
            return first, min(extent.end, first + 4096), extent.delta
        return extent.first, extent.end, extent.delta

    def read(self, va: int, size_bytes: int, access: Access = Access.READ) -> bytes:
        """Bytes at ``va``, across pages. Raises MemoryViolation."""
        load = self.hub.card.arena.load
        try:
            if size_bytes > 0:
                extent = self._extent(va, access)
                if va + size_bytes <= extent.end:
                    return load(va + extent.delta, size_bytes)
            return b"".join(load(index, step) for index, step in self._pieces(va, size_bytes, access))
        except BusError as error:
            raise MemoryViolation(va, access, str(error)) from error

    def write(self, va: int, data: bytes) -> None:
        """Store bytes at ``va``, across pages. Raises MemoryViolation."""
        card = self.hub.card
        done = 0
        for index, step in self._pieces(va, len(data), Access.WRITE):
            try:
                card.arena.store(index, data[done : done + step])
            except BusError as error:
                raise MemoryViolation(va + done, Access.WRITE, str(error)) from error
            if index < card.vram_bytes:
                with card.lock:
                    card.host_path.engine_wrote(index, step)
            done += step

    def look(self, va: int) -> Extent:
        """The translation of ``va``, without a trace in the translation cache. Raises WalkFault."""
        return self.hub.look(self.vmid, va)

    def read32(self, va: int) -> int:
        """One dword."""
        return int.from_bytes(self.read(va, 4), "little")

    def read64(self, va: int) -> int:
        """Two dwords."""
        return int.from_bytes(self.read(va, 8), "little")

    def _brought(self, index: NDArray[np.int64], va: NDArray[np.uint64], access: Access) -> NDArray[np.int64]:
        """Arena indices that a dispatch is about to use, with what only messages reach made present."""
        remote = self.hub.card.arena.remote
        if remote.lowest != remote.NOTHING and int(index.max()) >= remote.lowest:
            try:
                remote.translated(index)
            except BusError as error:
                raise MemoryViolation(int(va.min()), access, str(error)) from error
        return index

    def _pieces(self, va: int, size_bytes: int, access: Access) -> Iterator[tuple[int, int]]:
        """(arena index, bytes) of each run of a range that lies together."""
        while size_bytes > 0:
            extent = self._extent(va, access)
            step = min(size_bytes, extent.end - va)
            yield va + extent.delta, step
            va, size_bytes = va + step, size_bytes - step

    def _extent(self, va: int, access: Access) -> Extent:
        try:
            extent = self.hub.extent(self.vmid, va)
        except WalkFault as fault:
            raise MemoryViolation(va, access, fault.reason.value) from fault
        if not extent.allows(access):
            raise MemoryViolation(va, access, FaultReason.PERMISSION.value)
        return extent
