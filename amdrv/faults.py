"""What went wrong on the GPU, in words: interrupt entries and hub status, decoded. Pure functions.

Source: Linux 6.12 gmc_v11_0.c (gmc_v11_0_process_interrupt), gfx_v11_0.c (irq functions), amdkfd/kfd_int_process_v11.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from amdrv.blocks.gmc import HubFault
from amdrv.blocks.ih import Interrupt
from amdrv.facts.ih import (
    PAGE_FAULT_DATA,
    SQ_ERROR_DATA,
    Client,
    GfxSource,
    SqEncoding,
    SqError,
    VmcSource,
)
from amdrv.facts.pte import PAGE_SHIFT
from amdrv.registers import decode_fields

PAGE_FAULT = "page fault"
MEMORY_VIOLATION = "memory violation"
PAGE_ADDRESS = (1 << 48) - (1 << PAGE_SHIFT)  # what an interrupt tells of an address

# Sources of the command processor that stop a queue.
CP_FAULTS = {
    GfxSource.CP_BAD_OPCODE_ERROR: "bad packet",
    GfxSource.CP_PM4_PKT_RSVD_BIT_ERROR: "bad packet",
    GfxSource.CP_PRIV_REG_FAULT: "privileged register",
    GfxSource.CP_PRIV_INSTR_FAULT: "privileged instruction",
    GfxSource.CP_ME_WAIT_REG_MEM_POLL_TIMEOUT: "wait for memory timed out",
    GfxSource.CP_GPF: "protection fault",
    GfxSource.CP_ECC_ERROR: "memory error",
    GfxSource.CP_FUE_ERROR: "memory error",
    GfxSource.GRBM_RD_TIMEOUT_ERROR: "register read timed out",
    GfxSource.RLC_GC_FED_INTERRUPT: "memory error",
}
SQ_FAULTS = {
    SqError.EDC_FUE: "memory error",
    SqError.ILLEGAL_INSTRUCTION: "illegal instruction",
    SqError.MEMORY_VIOLATION: MEMORY_VIOLATION,
    SqError.EDC_FED: "memory error",
}
INSTRUCTION_CLIENTS = frozenset({"SQC (inst)"})  # who reads only to execute
PERMISSIONS = ("no valid entry", "read not allowed", "write not allowed", "execute not allowed")
WALK_LEVELS = {1: "the page directory's range", 2: "PDE0", 3: "PDE1", 4: "PDE2", 5: "a translate-further entry"}


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """One thing that went wrong."""

    kind: str  # "page fault", "illegal instruction", "bad packet", ...
    address: int | None = None  # of the page, for a page fault
    vmid: int | None = None
    access: str = ""  # "read", "write" or "execute"
    client: str = ""  # who made the access, for example "TCP"
    detail: str = ""
    raw: bytes = b""  # the interrupt entry

    def __str__(self) -> str:
        where = "" if self.address is None else f" at {self.address:#x}"
        who = f" by {self.client}" if self.client else ""
        how = f" ({self.access})" if self.access else ""
        why = f": {self.detail}" if self.detail else ""
        return f"{self.kind}{where}{who}{how}{why}"


def from_interrupt(entry: Interrupt) -> FaultRecord | None:
    """The fault that an interrupt reports; None for one that reports none (end of pipe, and so on)."""
    if entry.client == Client.VMC and entry.source == VmcSource.VM_FAULT:
        return _page_fault(entry, "memory hub")
    if entry.client not in (Client.GFX, Client.GRBM_CP):
        return None
    if entry.client == Client.GFX and entry.source == GfxSource.UTCL2_FAULT:
        return _page_fault(entry, "graphics hub")
    if entry.source == GfxSource.SQ_INTERRUPT_ID:
        return _wave_fault(entry)
    kind = next((kind for source, kind in CP_FAULTS.items() if source == entry.source), None)
    if kind is None:
        return None
    pipe, engine, queue = entry.ring & 3, entry.ring >> 2 & 3, entry.ring >> 4 & 7
    detail = f"micro engine {engine}, pipe {pipe}, queue {queue}"
    return FaultRecord(kind, vmid=entry.vmid, client="command processor", detail=detail, raw=entry.raw)


def from_hub(fault: HubFault) -> FaultRecord:
    """The fault that a hub's status registers hold."""
    causes = [text for bit, text in enumerate(PERMISSIONS) if fault.permission_faults >> bit & 1]
    if fault.walker_error:
        causes.append(f"the walk ended at {WALK_LEVELS.get(fault.walker_error, f'level {fault.walker_error}')}")
    if fault.mapping_error:
        causes.append("mapping error")
    return FaultRecord(
        PAGE_FAULT,
        address=fault.address,
        vmid=fault.vmid,
        access="execute" if fault.client in INSTRUCTION_CLIENTS else "write" if fault.write else "read",
        client=fault.client,
        detail=", ".join((*causes, fault.hub)),
    )


def merge(entries: Iterable[Interrupt], hub_faults: Iterable[HubFault]) -> list[FaultRecord]:
    """Faults in the order in which they arrived, told with what the hubs know about them.

    A hub remembers its first fault only, so that later ones are known from their interrupt alone.
    """
    known = [from_hub(fault) for fault in hub_faults]
    records: list[FaultRecord] = []
    for entry in entries:
        record = from_interrupt(entry)
        if record is None:
            continue
        told = next((k for k in known if record.kind == PAGE_FAULT and _same_page(k.address, record.address)), None)
        if told is not None:
            known.remove(told)
            record = replace(told, raw=record.raw)
        records.append(record)
    return records + known


def _same_page(one: int | None, other: int | None) -> bool:
    """Whether two reports may mean the same page: an interrupt has 48 bits of the address."""
    return one is not None and other is not None and (one ^ other) & PAGE_ADDRESS == 0


def _page_fault(entry: Interrupt, hub: str) -> FaultRecord:
    fields = decode_fields(PAGE_FAULT_DATA, entry.data[1] << 32 | entry.data[0])
    return FaultRecord(
        PAGE_FAULT,
        address=fields["PAGE"] << PAGE_SHIFT,
        vmid=entry.vmid,
        access="write" if fields["WRITE"] else "read",
        detail=hub,
        raw=entry.raw,
    )


def _wave_fault(entry: Interrupt) -> FaultRecord | None:
    fields = decode_fields(SQ_ERROR_DATA, entry.data[1] << 32 | entry.data[0])
    place = f"wave {fields['WAVE_ID']}, SIMD {fields['SIMD_ID']}, WGP {fields['WGP_ID']}"
    if fields["ENCODING"] == SqEncoding.WAVE and fields["PRIV"]:  # else a program's own s_sendmsg, and it went on
        return FaultRecord("trap", vmid=entry.vmid, client="SQ", detail=place, raw=entry.raw)
    if fields["ENCODING"] != SqEncoding.ERROR:
        return None
    kind = next((kind for error, kind in SQ_FAULTS.items() if error == fields["TYPE"]), "shader error")
    return FaultRecord(
        kind, vmid=entry.vmid, client="SQ", detail=f"{place}, detail {fields['DETAIL']:#x}", raw=entry.raw
    )
