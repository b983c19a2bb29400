"""How trouble in a queue shows on the outside: hub fault registers, halted waves, interrupt ring entries.

Sources: Linux 6.12 gmc_v11_0.c (gmc_v11_0_process_interrupt), gfx_v11_0.c (gfx_v11_0_eop_irq, bad-opcode and privileged
interrupts), amdkfd kfd_int_process_v11.c (SQ interrupt words), gfxhub_v3_0.c (client numbers).
"""

from __future__ import annotations

from amdrv.emulator.isa.decoder import Decoder
from amdrv.emulator.isa.dispatch import Access, MemoryViolation, ShaderFault, WaveRegisters
from amdrv.emulator.isa.fault_registers import reconstruct
from amdrv.emulator.isa.generation import generation_for
from amdrv.emulator.isa.instruction import UnknownInstruction
from amdrv.emulator.models.ih_6_0 import IhModel
from amdrv.emulator.pm4.queue_engine import QueueEngine, QueueId, QueueState
from amdrv.emulator.pm4.stream import BadPacket, PrivilegedRegister
from amdrv.emulator.vm.walk import FaultReason
from amdrv.facts.ih_ids import Client, GfxSource

CLIENT_TCP, CLIENT_SQC_INSTRUCTION, CLIENT_SQC_DATA = 8, 9, 10  # gfxhub_client_ids
SQ_INTERRUPT_MSG = 239  # amdkfd soc15_int.h: SOC15_INTSRC_SQ_INTERRUPT_MSG
SQ_ENCODING_WAVE, SQ_ENCODING_ERROR = 1, 2
SQ_PRIVILEGED = 1 << 26  # sent from within a trap handler
LONGEST_INSTRUCTION_BYTES = 12
SQ_ERROR_ILLEGAL_INSTRUCTION, SQ_ERROR_MEMORY_VIOLATION = 1, 2


def ring_id(queue: QueueId) -> int:
    """How an interrupt entry names a queue: me << 2 | pipe | queue << 4 (gfx_v11_0_eop_irq)."""
    me, pipe, number = queue
    return me << 2 | pipe | number << 4


def send_end_of_pipe(engine: QueueEngine, queue: QueueId, vmid: int, context_id: int) -> None:
    """The interrupt of a RELEASE_MEM, when its pipe has them on."""
    with engine.card.lock:
        if engine.interrupts(queue, "TIME_STAMP_INT_ENABLE"):
            post(engine, queue, vmid, Client.GRBM_CP, GfxSource.CP_EOP_INTERRUPT, (context_id, 0, 0, 0))


def report_memory_violation(engine: QueueEngine, state: QueueState, vmid: int, violation: MemoryViolation) -> None:
    """The packet processor itself touched memory that is not there."""
    with engine.card.lock:
        state.hung = True
        reason = FaultReason(violation.reason)
        engine.hub.report_fault(vmid, violation.va, violation.access, reason, engine.fault_client)


def report_bad_packet(engine: QueueEngine, queue: QueueId, state: QueueState, vmid: int, bad: BadPacket) -> None:
    """The stream holds garbage, or asks for a register that its queue must not touch."""
    privileged = isinstance(bad, PrivilegedRegister)
    source = GfxSource.CP_PRIV_REG_FAULT if privileged else GfxSource.CP_BAD_OPCODE_ERROR
    with engine.card.lock:
        state.hung = True
        if engine.interrupts(queue, "PRIV_REG_INT_ENABLE" if privileged else "OPCODE_ERROR_INT_ENABLE"):
            post(engine, queue, vmid, Client.GRBM_CP, source, (bad.word, 0, 0, 0))


def report_shader_fault(
    engine: QueueEngine, queue: QueueId, state: QueueState, vmid: int, fault: ShaderFault
) -> None:
    """A wave stopped: it stays halted for SQ_IND, and the queue behind it never gets further."""
    with engine.card.lock:
        if state.cancelled:
            return  # the queue is gone, and its waves with it: later work must not be blamed
        state.hung = True
        if fault.registers is None:
            fault.registers = _registers(engine, vmid, fault)
        engine.grbm.show_halted(fault)
        if fault.kind == "memory violation" and fault.va is not None:
            access = fault.access or Access.READ
            engine.hub.report_fault(vmid, fault.va, access, _reason(fault), _shader_client(fault, access))
        post(engine, queue, vmid, Client.GFX, SQ_INTERRUPT_MSG, (*_sq_interrupt(fault), 0, 0))


def _registers(engine: QueueEngine, vmid: int, fault: ShaderFault) -> WaveRegisters | None:
    """What the wave must have held, where the shader engine does not say; None when that cannot be told."""
    try:
        code = engine.hub.view(vmid).read(fault.pc, LONGEST_INSTRUCTION_BYTES)
        arch = engine.card.chip.arch
        return reconstruct(Decoder(arch).decode(code), fault.lane, fault.va, generation_for(arch))
    except (MemoryViolation, UnknownInstruction):
        return None


def send_wave_message(engine: QueueEngine, queue: QueueId, vmid: int, data: int) -> None:
    """The interrupt of s_sendmsg: 24 bits of M0."""
    context = (data & 0xFF_FFFF, SQ_ENCODING_WAVE << 6, 0, 0)
    post(engine, queue, vmid, Client.GFX, SQ_INTERRUPT_MSG, context)


def post(
    engine: QueueEngine, queue: QueueId, vmid: int, client: int, source: int, context: tuple[int, int, int, int]
) -> None:
    """An interrupt entry that names a queue of the command processor."""
    with engine.card.lock:
        engine.card.model(IhModel).post(
            client_id=client, source_id=source, ring_id=ring_id(queue), vmid=vmid, pasid=None, context=context
        )


def _sq_interrupt(fault: ShaderFault) -> tuple[int, int]:
    """The two words of the shader's interrupt: an error, or of a trap the message that a trap handler would send."""
    if fault.kind == "trap":
        return SQ_PRIVILEGED, SQ_ENCODING_WAVE << 6
    memory = fault.kind in ("memory violation", "misaligned access")
    error = SQ_ERROR_MEMORY_VIOLATION if memory else SQ_ERROR_ILLEGAL_INSTRUCTION
    return error << 21, SQ_ENCODING_ERROR << 6


def _reason(fault: ShaderFault) -> FaultReason:
    return next((reason for reason in FaultReason if reason.value in fault.detail), FaultReason.PAGE)


def _shader_client(fault: ShaderFault, access: Access) -> int:
    if access is Access.EXECUTE:
        return CLIENT_SQC_INSTRUCTION
    return CLIENT_SQC_DATA if fault.mnemonic.startswith("s_") else CLIENT_TCP
