"""What the packets at hand say about those behind them: is the L2 written back in time, is there any work left."""

from __future__ import annotations

from collections.abc import Iterable

from amdrv.emulator.isa.dispatch import MemoryViolation
from amdrv.emulator.pm4.stream import BadPacket, Ring, packet_at
from amdrv.facts.pm4 import ACQUIRE_MEM, RELEASE_MEM, Opcode

PACKETS_MAX = 256  # a stream that goes on longer without any is taken for one that has none

Stream = tuple[Ring, int, int]  # packets, position, end


def write_back_follows(streams: Iterable[Stream]) -> bool:
    """Whether the first packet that tells of progress, from the innermost stream outwards, comes with a write-back."""
    rest = PACKETS_MAX
    for ring, start, end in streams:
        position = start
        while position < end and rest:
            rest -= 1
            try:
                packet = packet_at(ring, position, end)
            except (BadPacket, MemoryViolation):
                return True  # the queue ends here: nobody is told anything
            position += 1 if packet is None else packet.dwords
            if packet is None:
                continue
            if packet.opcode == Opcode.RELEASE_MEM:
                return bool(RELEASE_MEM.decode(packet.body)["GL2_WB"])
            if packet.opcode == Opcode.ACQUIRE_MEM:
                fields = ACQUIRE_MEM.decode(packet.body)
                if fields["GL2_WB"] and not fields["GL2_RANGE"]:
                    return True
    return False


def nothing_follows(streams: Iterable[Stream], wptr: int) -> bool:
    """Whether only padding is left of every stream, innermost first, and the outermost reaches the write pointer."""
    end = 0
    for ring, position, end in streams:
        while position < end:
            try:
                packet = packet_at(ring, position, end)
            except (BadPacket, MemoryViolation):
                return False
            if packet is not None and packet.opcode != Opcode.NOP:
                return False
            position += 1 if packet is None else packet.dwords
    return end >= wptr
