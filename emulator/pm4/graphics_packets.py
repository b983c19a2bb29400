"""Packets of the graphics ring, as far as a driver's ring and buffer tests and its state set-up go.

What would draw is refused by name. Source: Linux 6.12 gfx_v11_0.c (gfx_v11_0_cp_gfx_start, gfx_v11_0_ring_emit_*).
"""

from __future__ import annotations

from amdrv.emulator.pm4.packets import COMPUTE_PACKETS, ordering, set_registers
from amdrv.emulator.pm4.processor import Handler, QueueProcessor
from amdrv.emulator.pm4.queue_engine import QueueState
from amdrv.emulator.pm4.stream import BadPacket, Packet
from amdrv.facts.pm4 import SET_REG, SET_WINDOWS, Opcode


def set_context(processor: QueueProcessor, packet: Packet, _state: QueueState) -> None:
    """Context registers live in one of the pipe's state contexts: no register read of the host reaches them."""
    window = SET_WINDOWS[Opcode.SET_CONTEXT_REG]
    first = window.start + SET_REG.decode(packet.body)["REG_OFFSET"]
    if first + len(packet.body) - 1 > window.end:
        raise BadPacket(packet.header, "it writes past the end of its register window")


def set_shader(processor: QueueProcessor, packet: Packet, state: QueueState) -> None:
    """Compute state is kept for dispatches; state of the graphics stages has nobody to use it."""
    dword = SET_WINDOWS[Opcode.SET_SH_REG].start + SET_REG.decode(packet.body)["REG_OFFSET"]
    if dword >= processor.mec.register("COMPUTE_DISPATCH_INITIATOR").dword:
        set_registers(processor, packet, state)


# State of what would draw.
DRAWING_STATE = (
    Opcode.PREAMBLE_CNTL,
    Opcode.SWITCH_BUFFER,
    Opcode.SET_PREDICATION,
    Opcode.INDEX_TYPE,
    Opcode.INDEX_BASE,
    Opcode.INDEX_BUFFER_SIZE,
    Opcode.NUM_INSTANCES,
    Opcode.SET_BASE,
)
GRAPHICS_PACKETS: dict[int, Handler] = {
    **COMPUTE_PACKETS,
    Opcode.SET_CONTEXT_REG: set_context,
    Opcode.SET_CONTEXT_REG_INDEX: set_context,
    Opcode.SET_SH_REG: set_shader,
    Opcode.SET_SH_REG_INDEX: set_shader,
    **dict.fromkeys(DRAWING_STATE, ordering),
}
