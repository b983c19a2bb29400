"""Whether the packets at hand write the L2 back before anybody can be told that a dispatch is done."""

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
            if packet.opcode == Opcode.ACQUIRE_MEM and ACQUIRE_MEM.decode(packet.body)["GL2_WB"]:
                return True
    return False
