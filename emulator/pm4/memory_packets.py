"""Packets that move data: WRITE_DATA, COPY_DATA, DMA_DATA, RELEASE_MEM.

Layouts are facts (amdrv.facts.pm4); behaviour: Linux 6.12 gfx_v11_0.c (emit_fence, emit_wreg, emit_reg_wait).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amdrv.emulator.pm4.stream import BadPacket, Packet
from amdrv.facts.pm4 import (
    COPY_DATA,
    DMA_DATA,
    RELEASE_MEM,
    WRITE_DATA,
    CopySource,
    DataSelect,
    EventIndex,
    InterruptSelect,
    MemoryTarget,
    Opcode,
)

if TYPE_CHECKING:
    from amdrv.emulator.models.vmhub import HubView
    from amdrv.emulator.shell import Card

MEMORY_TARGETS = (MemoryTarget.MEMORY_SYNC, MemoryTarget.GL2, MemoryTarget.MEMORY)
REGISTER_SOURCES = (CopySource.REGISTER, CopySource.PERFCOUNTER)
UNCONDITIONAL_INTERRUPTS = (InterruptSelect.ONLY, InterruptSelect.AFTER_WRITE_CONFIRM, InterruptSelect.CONTEXT_ID)
RELEASE_EVENTS = (EventIndex.END_OF_PIPE, EventIndex.SHADER_DONE)
MEMORY_SOURCES = (CopySource.MEMORY, CopySource.GL2)


class MemoryUnit:
    """A queue's way to memory and registers."""

    def __init__(
        self, card: Card, view: HubView, store_register: Callable[[int, int], None], load_register: Callable[[int], int]
    ) -> None:
        self.card = card
        self.view = view
        self.store_register = store_register
        self.load_register = load_register

    def write_data(self, packet: Packet) -> int | None:
        """Store the packet's dwords."""
        fields = WRITE_DATA.decode(packet.body)
        data = packet.body[WRITE_DATA.dwords :]
        step = 0 if fields["NO_ADDR_INCR"] else 1
        if fields["DST_SEL"] == MemoryTarget.REGISTER:
            for index, value in enumerate(data):
                self.store_register((fields["ADDRESS"] & 0xFFFF_FFFF) + step * index, value)
        elif fields["DST_SEL"] in MEMORY_TARGETS:
            address = fields["ADDRESS"] & ~3
            if step:
                self.view.write(address, b"".join(value.to_bytes(4, "little") for value in data))
            else:
                for value in data:
                    self.view.write(address, value.to_bytes(4, "little"))
        else:
            raise BadPacket(packet.header, f"WRITE_DATA to target {fields['DST_SEL']}")
        return None

    def copy_data(self, packet: Packet) -> int | None:
        """Move 32 or 64 bits between memory, registers, an immediate and the clock."""
        fields = COPY_DATA.decode(packet.body)
        size = 8 if fields["COUNT_SEL"] else 4
        value = self._copy_source(packet, fields, size) & ((1 << 8 * size) - 1)
        if fields["DST_SEL"] == MemoryTarget.REGISTER:
            register = fields["DST"] & 0xFFFF_FFFF
            for index in range(size // 4):
                self.store_register(register + index, value >> 32 * index & 0xFFFF_FFFF)
        elif fields["DST_SEL"] in MEMORY_TARGETS:
            self.view.write(fields["DST"] & ~(size - 1), value.to_bytes(size, "little"))
        else:
            raise BadPacket(packet.header, f"COPY_DATA to target {fields['DST_SEL']}")
        return None

    def dma_data(self, packet: Packet) -> int | None:
        """Copy or fill memory."""
        fields = DMA_DATA.decode(packet.body)
        if fields["SAS"] or fields["DAS"] or fields["SAIC"] or fields["DAIC"]:
            raise BadPacket(packet.header, "DMA_DATA to or from registers")
        count = fields["BYTE_COUNT"]
        if fields["SRC_SEL"] == 2:
            pattern = (fields["SRC"] & 0xFFFF_FFFF).to_bytes(4, "little")
            data = (pattern * (count // 4 + 1))[:count]
        else:
            data = self.view.read(fields["SRC"], count)
        self.view.write(fields["DST"], data)
        return None

    def release_mem(self, packet: Packet) -> int | None:
        """Everything before is done: write the fence; returns the interrupt's context id when one is asked for.

        Headers know two kinds of events here (Linux kfd_pm4_headers_ai.h): what firmware does with another is not
        known, and a client that forgets to say it is better told.
        """
        fields = RELEASE_MEM.decode(packet.body)
        if fields["EVENT_INDEX"] not in RELEASE_EVENTS:
            raise BadPacket(packet.header, f"RELEASE_MEM event index {fields['EVENT_INDEX']}")
        select, address = fields["DATA_SEL"], fields["ADDRESS"]
        if select == DataSelect.LOW_32:
            self.view.write(address & ~3, (fields["DATA"] & 0xFFFF_FFFF).to_bytes(4, "little"))
        elif select == DataSelect.ALL_64:
            self.view.write(address & ~7, fields["DATA"].to_bytes(8, "little"))
        elif select in (DataSelect.GPU_CLOCK, DataSelect.SYSTEM_CLOCK):  # one 100 MHz counter behind both
            self.view.write(address & ~7, self.card.realtime().to_bytes(8, "little"))
        elif select != DataSelect.NONE:
            raise BadPacket(packet.header, f"RELEASE_MEM data select {select}")
        return fields["INT_CTXID"] if self._interrupts(fields) else None

    def _interrupts(self, fields: dict[str, int]) -> bool:
        select, address, data = fields["INT_SEL"], fields["ADDRESS"], fields["DATA"]
        if select == InterruptSelect.CONTEXT_ID_IF_32:
            return self.view.read32(address & ~3) == data & 0xFFFF_FFFF
        if select == InterruptSelect.CONTEXT_ID_IF_64:
            return self.view.read64(address & ~7) == data
        return select in UNCONDITIONAL_INTERRUPTS

    def _copy_source(self, packet: Packet, fields: dict[str, int], size: int) -> int:
        select = fields["SRC_SEL"]
        if select == CopySource.IMMEDIATE:
            return fields["SRC"]
        if select in (CopySource.GPU_CLOCK, CopySource.SYSTEM_CLOCK):
            return self.card.realtime()
        if select in REGISTER_SOURCES:
            register = fields["SRC"] & 0xFFFF_FFFF
            low = self.load_register(register)
            return low | (self.load_register(register + 1) << 32 if size == 8 else 0)
        if select in MEMORY_SOURCES:
            return int.from_bytes(self.view.read(fields["SRC"] & ~(size - 1), size), "little")
        raise BadPacket(packet.header, f"COPY_DATA from source {select}")


MEMORY_PACKETS: dict[int, Callable[[MemoryUnit, Packet], int | None]] = {
    Opcode.WRITE_DATA: MemoryUnit.write_data,
    Opcode.COPY_DATA: MemoryUnit.copy_data,
    Opcode.DMA_DATA: MemoryUnit.dma_data,
    Opcode.RELEASE_MEM: MemoryUnit.release_mem,
}
