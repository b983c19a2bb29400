"""GMC 11 and 12: address translation. Two hubs of one design: GC for the graphics core, MM for everything else.

The design is written down once, as tables of register names without their prefix; a hub adds its prefix and what is
peculiar to it. Every address that blocks outside the graphics core use here (interrupt ring, secure processor, SMU
table) is in the device memory aperture, which needs no page tables; kernels use virtual addresses in VMID 0.

Source: Linux 6.12 gfxhub_v3_0.c and mmhub_v3_0.c (gart_enable, set_fault_enable_default), gmc_v11_0.c; gfxhub_v12_0.c,
mmhub_v4_1_0.c and gmc_v12_0.c do the same, where fields have other places.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from amdrv.errors import Timeout, Unsupported
from amdrv.facts.pte import ADDRESS_BITS, PAGE_SHIFT
from amdrv.facts.vm import (
    AGP_SHIFT,
    FB_LOCATION_SHIFT,
    GC_L2_CNTL3_START,
    HOST_INVALIDATE_ENGINE,
    HUB_CLIENTS,
    L2_CNTL4_START,
    L2_CNTL5_START,
    MM_L2_CNTL3_START,
    SYSTEM_APERTURE_SHIFT,
    HubClients,
)
from amdrv.mmio import Mmio
from amdrv.registers import Register

log = logging.getLogger(__name__)

KERNEL_VMID = 0
MTYPE_UNCACHED = 3
PAGE_TABLE_DEPTH = 3  # levels below the root
LAST_PAGE = (1 << (ADDRESS_BITS - PAGE_SHIFT)) - 1
FB_BASE_MASK = 0xFFFFFF
INVALIDATION_TIMEOUT_S = 0.1  # adev->usec_timeout
# How much an invalidation engine's address range covers when it covers everything: 37 bits of pages.
EVERY_PAGE = 0x1F_FFFF_FFFF

CONTEXT0 = f"VM_CONTEXT{KERNEL_VMID}_CNTL"
FAULT_KINDS = ("RANGE", "DUMMY_PAGE", "PDE0", "VALID", "READ", "WRITE", "EXECUTE")
# Faults raise an interrupt, and the access goes on in the default page, so that the engine survives.
CONTEXT_FAULTS = {
    f"{kind}_PROTECTION_FAULT_ENABLE_{action}": 1 for kind in FAULT_KINDS for action in ("INTERRUPT", "DEFAULT")
}
HUB_FAULT_KINDS = ("RANGE", "PDE0", "PDE1", "PDE2", "TRANSLATE_FURTHER", "NACK", "DUMMY_PAGE", "VALID", "READ", "WRITE")
HUB_FAULTS = {f"{kind}_PROTECTION_FAULT_ENABLE_DEFAULT": 1 for kind in (*HUB_FAULT_KINDS, "EXECUTE")}


@dataclass(frozen=True, slots=True)
class HubDesign:
    """What tells hubs apart."""

    ip: str
    prefix: str
    label: str
    l2_cntl3_start: int
    clients: HubClients
    # Whether AMD's headers give the values after reset. Then registers of which only some fields are set need not be
    # read first.
    resets_known: bool = False
    # The MM hub can lose an acknowledge when it is power gated in between: a semaphore holds it awake, and a private
    # cache needs an invalidation of its own (gmc_v11_0_flush_gpu_tlb).
    gated: bool = False


GC_HUB = HubDesign(
    ip="GC",
    prefix="GC",
    label="graphics hub",
    l2_cntl3_start=GC_L2_CNTL3_START,
    clients=HUB_CLIENTS["GC", (11, 0, 0)],
    resets_known=True,  # gc_11_0_0_default.h
)
MM_HUB = HubDesign(
    ip="MMHUB",
    prefix="MM",
    label="memory hub",
    l2_cntl3_start=MM_L2_CNTL3_START,
    clients=HUB_CLIENTS["MMHUB", (3, 0, 0)],
    gated=True,
)
# By block and version. gfx12 has no gc_12_0_0_default.h.
DESIGNS: dict[tuple[str, tuple[int, int, int]], HubDesign] = {
    ("GC", (11, 0, 0)): GC_HUB,
    ("MMHUB", (3, 0, 0)): MM_HUB,
    ("GC", (12, 0, 1)): replace(GC_HUB, clients=HUB_CLIENTS["GC", (12, 0, 1)], resets_known=False),
    ("MMHUB", (4, 1, 0)): replace(MM_HUB, clients=HUB_CLIENTS["MMHUB", (4, 1, 0)]),
}


@dataclass(frozen=True, slots=True)
class AddressMap:
    """Where things are, for the hubs."""

    fb_start: int  # device memory aperture, in the GPU's physical address space
    fb_end: int  # last byte
    physical_base: int  # what page table entries add to an offset in device memory
    default_page: int  # device memory offset + physical_base: lands what the aperture cannot place
    fault_page: int  # host bus address: lands what has no translation
    root_table: int  # address of the page directory, as entries have it

    def device_address(self, vram_offset: int) -> int:
        """The address at which blocks reach a byte of device memory without page tables."""
        return self.fb_start + vram_offset


@dataclass(frozen=True, slots=True)
class Write:
    """One register write of a hub: a value, and fields to set in it.

    ``value`` None means that other fields keep what they have.
    """

    name: str  # without the hub's prefix
    value: int | None = 0
    fields: Mapping[str, int] = field(default_factory=dict)


def _pair(name: str, value: int, low: str = "LO32", high: str = "HI32") -> tuple[Write, Write]:
    return Write(f"{name}_{low}", value & 0xFFFFFFFF), Write(f"{name}_{high}", value >> 32)


# gfxhub_v3_0_init_gart_aperture_regs, _init_system_aperture_regs, _init_tlb_regs, _init_cache_regs,
# _enable_system_domain, _disable_identity_aperture, _program_invalidation, _set_fault_enable_default
def hub_program(design: HubDesign, addresses: AddressMap) -> list[Write]:
    """The writes that make a hub translate VMID 0 through four-level tables.

    Two things of the kernel's sequence are left out. Contexts 1 to 15 stay off, as after reset: nothing runs in them.
    Only the invalidation engine that the host uses gets an address range: the others belong to rings that do not exist.
    """
    l1_tlb = {
        "ENABLE_L1_TLB": 1,
        "SYSTEM_ACCESS_MODE": 3,  # inside the aperture straight to memory, outside through page tables
        "ENABLE_ADVANCED_DRIVER_MODEL": 1,
        "SYSTEM_APERTURE_UNMAPPED_ACCESS": 0,
        "ECO_BITS": 0,
        "MTYPE": MTYPE_UNCACHED,
    }
    l2 = {
        "ENABLE_L2_CACHE": 1,
        "ENABLE_L2_FRAGMENT_PROCESSING": 0,
        "ENABLE_DEFAULT_PAGE_OUT_TO_SYSTEM_MEMORY": 1,  # the fault page is host memory
        "L2_PDE0_CACHE_TAG_GENERATION_MODE": 0,
        "PDE_FAULT_CLASSIFICATION": 0,
        "CONTEXT1_IDENTITY_ACCESS_MODE": 1,
        "IDENTITY_MODE_FRAGMENT_SIZE": 0,
    }
    context = {"ENABLE_CONTEXT": 1, "PAGE_TABLE_DEPTH": PAGE_TABLE_DEPTH, "PAGE_TABLE_BLOCK_SIZE": 0}
    range_name = f"VM_INVALIDATE_ENG{HOST_INVALIDATE_ENGINE}_ADDR_RANGE"
    return [
        *_pair(f"VM_CONTEXT{KERNEL_VMID}_PAGE_TABLE_BASE_ADDR", addresses.root_table | 1),
        *_pair(f"VM_CONTEXT{KERNEL_VMID}_PAGE_TABLE_START_ADDR", 0),
        *_pair(f"VM_CONTEXT{KERNEL_VMID}_PAGE_TABLE_END_ADDR", LAST_PAGE),
        # No AGP aperture: an empty one, its bottom above its top.
        Write("MC_VM_AGP_BASE", 0),
        Write("MC_VM_AGP_BOT", ((1 << ADDRESS_BITS) - 1) >> AGP_SHIFT),
        Write("MC_VM_AGP_TOP", 0),
        Write("MC_VM_SYSTEM_APERTURE_LOW_ADDR", addresses.fb_start >> SYSTEM_APERTURE_SHIFT),
        Write("MC_VM_SYSTEM_APERTURE_HIGH_ADDR", addresses.fb_end >> SYSTEM_APERTURE_SHIFT),
        *_pair("MC_VM_SYSTEM_APERTURE_DEFAULT_ADDR", addresses.default_page >> PAGE_SHIFT, "LSB", "MSB"),
        *fault_page_program(addresses),
        Write("VM_L2_PROTECTION_FAULT_CNTL2", None, {"ACTIVE_PAGE_MIGRATION_PTE_READ_RETRY": 1}),
        Write("MC_VM_MX_L1_TLB_CNTL", None, l1_tlb),
        Write("VM_L2_CNTL", None, l2),
        Write("VM_L2_CNTL2", None, {"INVALIDATE_ALL_L1_TLBS": 1, "INVALIDATE_L2_CACHE": 1}),
        Write("VM_L2_CNTL3", design.l2_cntl3_start, {"BANK_SELECT": 9, "L2_CACHE_BIGK_FRAGMENT_SIZE": 6}),
        Write("VM_L2_CNTL4", L2_CNTL4_START, {"VMC_TAP_PDE_REQUEST_PHYSICAL": 0, "VMC_TAP_PTE_REQUEST_PHYSICAL": 0}),
        Write("VM_L2_CNTL5", L2_CNTL5_START, {"L2_CACHE_SMALLK_FRAGMENT_SIZE": 0}),
        Write(CONTEXT0, None, {**context, **CONTEXT_FAULTS, "RETRY_PERMISSION_OR_INVALID_PAGE_FAULT": 0}),
        # No identity aperture: an empty one.
        *_pair("VM_L2_CONTEXT1_IDENTITY_APERTURE_LOW_ADDR", LAST_PAGE),
        *_pair("VM_L2_CONTEXT1_IDENTITY_APERTURE_HIGH_ADDR", 0),
        *_pair("VM_L2_CONTEXT_IDENTITY_PHYSICAL_OFFSET", 0),
        *_pair(range_name, EVERY_PAGE),
        Write("VM_L2_PROTECTION_FAULT_CNTL", None, HUB_FAULTS),
    ]


def fault_page_program(addresses: AddressMap) -> tuple[Write, Write]:
    """The writes that say where accesses without a translation land."""
    return _pair("VM_L2_PROTECTION_FAULT_DEFAULT_ADDR", addresses.fault_page >> PAGE_SHIFT)


@dataclass(frozen=True, slots=True)
class HubFault:
    """The first fault that a hub met since its status was cleared."""

    hub: str
    address: int  # of the page
    vmid: int
    client: str
    write: bool
    status: int
    walker_error: int  # the level at which the walk ended early, 0 for none
    permission_faults: int  # bits: valid, read, write, execute
    mapping_error: bool


class Hub:
    """One address translation hub."""

    def __init__(self, mmio: Mmio, design: HubDesign) -> None:
        self.design = design
        self._mmio = mmio
        self._block = mmio.registers.block(design.ip)

    def program(self, addresses: AddressMap) -> None:
        """Make the hub translate; see ``hub_program``."""
        self._apply(hub_program(self.design, addresses))

    def set_fault_page(self, addresses: AddressMap) -> None:
        """Change only where accesses without a translation land."""
        self._apply(fault_page_program(addresses))

    def translates(self, addresses: AddressMap) -> bool:
        """Whether the hub reads back as translating through our tables; three reads.

        Context, root table and mode decide what an access can reach: while one of them is foreign, the card must not
        master the bus.
        """
        context = self._mmio.read(self._reg(CONTEXT0))
        if not context.ENABLE_CONTEXT or context.PAGE_TABLE_DEPTH != PAGE_TABLE_DEPTH:
            return False
        root = self._mmio.read(self._reg(f"VM_CONTEXT{KERNEL_VMID}_PAGE_TABLE_BASE_ADDR_LO32"))
        if root != (addresses.root_table | 1) & 0xFFFFFFFF:
            return False
        mode = self._mmio.read(self._reg("MC_VM_MX_L1_TLB_CNTL"))
        return bool(mode.ENABLE_L1_TLB) and mode.SYSTEM_ACCESS_MODE == 3

    # gmc_v11_0_flush_gpu_tlb, gfxhub_v3_0_get_invalidate_req
    def invalidate(self) -> None:
        """Forget every cached translation of VMID 0. Raises Timeout when the hub does not acknowledge."""
        engine = f"VM_INVALIDATE_ENG{HOST_INVALIDATE_ENGINE}"
        vmid_bit = 1 << KERNEL_VMID
        if self.design.gated:
            self._take_semaphore(f"{engine}_SEM")
        self._mmio.write(
            self._reg(f"{engine}_REQ"),
            PER_VMID_INVALIDATE_REQ=vmid_bit,
            FLUSH_TYPE=0,
            INVALIDATE_L2_PTES=1,
            INVALIDATE_L2_PDE0=1,
            INVALIDATE_L2_PDE1=1,
            INVALIDATE_L2_PDE2=1,
            INVALIDATE_L1_PTES=1,
        )
        self._mmio.wait(
            self._reg(f"{engine}_ACK"),
            vmid_bit,
            vmid_bit,
            INVALIDATION_TIMEOUT_S,
            f"the {self.design.label} to acknowledge an invalidation",
        )
        if self.design.gated:
            self._mmio.write(self._reg(f"{engine}_SEM"), 0)
            private = self._reg("VM_L2_BANK_SELECT_RESERVED_CID2")
            self._mmio.update(private, RESERVED_CACHE_PRIVATE_INVALIDATION=1)
            self._mmio.read(private)  # the invalidation is done when this returns

    def _take_semaphore(self, name: str) -> None:
        """Hold the hub awake. The engine is the host's own, so that whoever left it taken has died with it."""
        register = self._reg(name)
        what = f"the {self.design.label}'s invalidation semaphore"
        try:
            self._mmio.wait_fields(register, INVALIDATION_TIMEOUT_S, what, SEMAPHORE=1)
        except Timeout as error:
            log.warning("%s; releasing it for an owner that has died", error)
            self._mmio.write(register, 0)
            self._mmio.wait_fields(register, INVALIDATION_TIMEOUT_S, what, SEMAPHORE=1)

    # gmc_v11_0_process_interrupt
    def take_fault(self) -> HubFault | None:
        """The pending fault, cleared; None when there is none."""
        status_register = self._reg("VM_L2_PROTECTION_FAULT_STATUS")
        status = self._mmio.read(status_register)
        if self.design.ip == "GC":
            # The first read may still give the value from before the interrupt: it triggers the update.
            status = self._mmio.read(status_register)
        if not status:
            return None
        low = self._mmio.read(self._reg("VM_L2_PROTECTION_FAULT_ADDR_LO32"))
        high = self._mmio.read(self._reg("VM_L2_PROTECTION_FAULT_ADDR_HI32"))
        self.clear_fault()
        write = bool(status.RW)
        return HubFault(
            hub=self.design.label,
            address=(high << 32 | low) << PAGE_SHIFT,
            vmid=status.VMID,
            client=self.design.clients.name(status.CID, write=write),
            write=write,
            status=int(status),
            walker_error=status.WALKER_ERROR,
            permission_faults=status.PERMISSION_FAULTS,
            mapping_error=bool(status.MAPPING_ERROR),
        )

    def fault_pending(self) -> bool:
        """Whether the hub holds a fault that nobody has taken; one read."""
        return self._mmio.read(self._reg("VM_L2_PROTECTION_FAULT_STATUS")) != 0

    def clear_fault(self) -> None:
        """Make room for the next fault's status."""
        self._mmio.update(self._reg("VM_L2_PROTECTION_FAULT_CNTL"), CLEAR_PROTECTION_FAULT_STATUS_ADDR=1)

    def _apply(self, writes: list[Write] | tuple[Write, ...]) -> None:
        for write in writes:
            register = self._reg(write.name)
            base = write.value
            if base is None and self.design.resets_known:
                base = register.reset_value
            if base is None:
                self._mmio.update(register, **write.fields)
            else:
                self._mmio.write(register, int(register.decode(base).replace(**write.fields)))

    def _reg(self, name: str) -> Register:
        return self._block[self.design.prefix + name]


class Gmc:
    """Both hubs of one card."""

    def __init__(self, mmio: Mmio, gc: HubDesign = GC_HUB, mm: HubDesign = MM_HUB) -> None:
        self._mmio = mmio
        self.mm = Hub(mmio, mm)
        self.gc = Hub(mmio, gc)

    # gmc_v11_0_vram_gtt_location: mmhub_v3_0_get_fb_location, mmhub_v3_0_get_mc_fb_offset
    def read_device_memory(self) -> tuple[int, int]:
        """(where device memory starts in the GPU's address space, what page table entries add to an offset in it).

        Raises Unsupported when the card's start-up firmware has not placed its memory.
        """
        regs = self._mmio.registers.block("MMHUB")
        base = (self._mmio.read(regs.MMMC_VM_FB_LOCATION_BASE) & FB_BASE_MASK) << FB_LOCATION_SHIFT
        if base == 0:
            raise Unsupported(
                f"{self._mmio.function.name}: device memory has no place in the GPU's address space;"
                " the card's start-up firmware did not run"
            )
        return base, (self._mmio.read(regs.MMMC_VM_FB_OFFSET) & FB_BASE_MASK) << FB_LOCATION_SHIFT

    def invalidate(self) -> None:
        """Forget every cached translation in both hubs."""
        self.gc.invalidate()
        self.mm.invalidate()

    def take_faults(self) -> list[HubFault]:
        """Pending faults of both hubs, cleared."""
        return [fault for hub in (self.gc, self.mm) if (fault := hub.take_fault()) is not None]
