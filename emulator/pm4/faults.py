"""How trouble in a queue shows on the outside: hub fault registers, halted waves, interrupt ring entries.

Sources: Linux 6.12 gmc_v11_0.c (gmc_v11_0_process_interrupt), gfx_v11_0.c (gfx_v11_0_eop_irq, bad-opcode and privileged
interrupts), amdkfd kfd_int_process_v11.c (SQ interrupt words), gfxhub_v3_0.c (client numbers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdrv.emulator.isa.dispatch import Access, MemoryViolation, ShaderFault
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.pm4.stream import BadPacket
from amdrv.emulator.vm.walk import FaultReason
from amdrv.facts.ih_ids import Client, GfxSource

if TYPE_CHECKING:
    from amdrv.emulator.models.mec_11_0 import Mec, QueueState

QueueId = tuple[int, int, int]

CLIENT_CPC, CLIENT_TCP, CLIENT_SQC_INSTRUCTION, CLIENT_SQC_DATA = 5, 8, 9, 10  # gfxhub_client_ids
SQ_INTERRUPT_MSG = 239  # amdkfd soc15_int.h: SOC15_INTSRC_SQ_INTERRUPT_MSG
SQ_ENCODING_ERROR = 2
SQ_ERROR_ILLEGAL_INSTRUCTION, SQ_ERROR_MEMORY_VIOLATION = 1, 2


def ring_id(queue: QueueId) -> int:
    """How an interrupt entry names a queue: me << 2 | pipe | queue << 4 (gfx_v11_0_eop_irq)."""
    me, pipe, number = queue
    return me << 2 | pipe | number << 4


def send_end_of_pipe(mec: Mec, queue: QueueId, vmid: int, context_id: int) -> None:
    """The interrupt of a RELEASE_MEM."""
    _post(mec, queue, vmid, Client.GRBM_CP, GfxSource.CP_EOP_INTERRUPT, (context_id, 0, 0, 0))


def report_memory_violation(mec: Mec, state: QueueState, vmid: int, violation: MemoryViolation) -> None:
    """The packet processor itself touched memory that is not there."""
    with mec.card.lock:
        state.hung = True
        mec.hub.report_fault(vmid, violation.va, violation.access, FaultReason(violation.reason), CLIENT_CPC)


def report_bad_packet(mec: Mec, queue: QueueId, state: QueueState, vmid: int, bad: BadPacket) -> None:
    """The stream holds garbage."""
    with mec.card.lock:
        state.hung = True
        _post(mec, queue, vmid, Client.GRBM_CP, GfxSource.CP_BAD_OPCODE_ERROR, (bad.word, 0, 0, 0))


def report_shader_fault(mec: Mec, queue: QueueId, state: QueueState, vmid: int, fault: ShaderFault) -> None:
    """A wave stopped: it stays halted for SQ_IND, and the queue behind it never gets further."""
    with mec.card.lock:
        state.hung = True
        mec.grbm.show_halted(fault)
        if fault.kind == "memory violation" and fault.va is not None:
            access = fault.access or Access.READ
            mec.hub.report_fault(vmid, fault.va, access, _reason(fault), _shader_client(fault, access))
            error = SQ_ERROR_MEMORY_VIOLATION
        else:
            error = SQ_ERROR_ILLEGAL_INSTRUCTION
        _post(mec, queue, vmid, Client.GFX, SQ_INTERRUPT_MSG, (error << 21, SQ_ENCODING_ERROR << 6, 0, 0))


def _reason(fault: ShaderFault) -> FaultReason:
    return next((reason for reason in FaultReason if reason.value in fault.detail), FaultReason.PAGE)


def _shader_client(fault: ShaderFault, access: Access) -> int:
    if access is Access.EXECUTE:
        return CLIENT_SQC_INSTRUCTION
    return CLIENT_SQC_DATA if fault.mnemonic.startswith("s_") else CLIENT_TCP


def _post(mec: Mec, queue: QueueId, vmid: int, client: int, source: int, context: tuple[int, int, int, int]) -> None:
    with mec.card.lock:
        mec.card.model(IhModel).post(
            client_id=client, source_id=source, ring_id=ring_id(queue), vmid=vmid, pasid=None, context=context
        )
