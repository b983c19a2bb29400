"""What the scheduler knows of processes: their address spaces and the VMIDs it has given them.

Sources: Linux 6.12 mes_v11_0.c (mes_v11_0_add_hw_queue), amdkfd kfd_device_queue_manager.c (add_queue_mes),
gfxhub_v3_0.c (gfxhub_v3_0_setup_vmid_config: what a context's registers hold).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amdrv.emulator.pm4.queue_engine import Mapping, QueueEngine, QueueId

if TYPE_CHECKING:
    from amdrv.emulator.models.vmhub import VmHub
    from amdrv.emulator.shell import Card

VALID = 1  # of a page table base: the top table's own entry


@dataclass(slots=True)
class ScheduledQueue:
    """A queue that the driver has added."""

    engine: QueueEngine
    slot: QueueId | None  # None: waiting for one
    mapping: Mapping
    gang: int  # gang context address
    kind: int  # QueueType


@dataclass(slots=True)
class Process:
    """An address space with queues."""

    context_address: int
    pasid: int
    page_table: int
    first_page: int
    last_page: int
    control: int  # VM_CONTEXT_CNTL
    vmid: int | None = None
    queues: dict[int, ScheduledQueue] = field(default_factory=dict)  # by doorbell


class Processes:
    """All processes, and which VMIDs are taken. The card's lock covers it."""

    def __init__(self, card: Card, hub: VmHub) -> None:
        self._card = card
        self._hub = hub
        self.vmid_mask = 0
        self.by_context: dict[int, Process] = {}

    def clear(self) -> None:
        """Forget everything: a reset."""
        self.vmid_mask = 0
        self.by_context.clear()

    def find_queue(self, doorbell: int) -> tuple[Process, ScheduledQueue] | None:
        """The process and queue behind a doorbell."""
        for process in self.by_context.values():
            if doorbell in process.queues:
                return process, process.queues[doorbell]
        return None

    def give_vmid(self, process: Process) -> bool:
        """Make sure that a process has a VMID whose context is its address space. False when none is free."""
        if process.vmid is None:
            taken = {other.vmid for other in self.by_context.values()}
            free = [vmid for vmid in range(16) if self.vmid_mask >> vmid & 1 and vmid not in taken]
            if not free:
                return False
            process.vmid = free[0]
            self._load_context(process)
        return True

    def move(self, process: Process, page_table: int) -> None:
        """The process has another root page table."""
        process.page_table = page_table
        if process.vmid is not None:
            self._load_context(process)

    def drop_if_empty(self, process: Process) -> None:
        """A process without queues gives its VMID back."""
        if not process.queues:
            self.by_context.pop(process.context_address, None)
            if process.vmid is not None:
                self._hub.invalidate([process.vmid])
                self._write("OSSSYS", f"IH_VMID_{process.vmid}_LUT", 0)

    def _load_context(self, process: Process) -> None:
        vmid = process.vmid
        table = f"GCVM_CONTEXT{vmid}_PAGE_TABLE"
        values = {"BASE": process.page_table | VALID, "START": process.first_page, "END": process.last_page}
        for part, value in values.items():
            self._write("GC", f"{table}_{part}_ADDR_LO32", value & 0xFFFF_FFFF)
            self._write("GC", f"{table}_{part}_ADDR_HI32", value >> 32)
        if process.control:
            self._write("GC", f"GCVM_CONTEXT{vmid}_CNTL", process.control)
        self._write("OSSSYS", f"IH_VMID_{vmid}_LUT", process.pasid & 0xFFFF)
        self._hub.invalidate([vmid] if vmid is not None else [])

    def _write(self, block: str, name: str, value: int) -> None:
        self._card.space.write(self._card.registers.block(block)[name].address, value)
