"""A trace in words: names of registers and fields, packets taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from amdrv.emulator.trace import DEVICE_MEMORY, MAP, PACKET, RESET, SYSTEM_MEMORY, UNMAP, Entry
from amdrv.emulator.trace_packets import describe_packet
from amdrv.facts.pci import Config
from amdrv.registers import RegisterMap

CONFIG_NAMES = {int(place): place.name for place in Config}
PM4_TYPE_3 = 3
# Where drivers move the flush registers to (Linux 6.12 nbio_v4_3_remap_hdp_registers, soc21.c MMIO_REG_HOLE_OFFSET).
MOVED = {
    0x7F000: "NBIO.BIF_BX_PF0_HDP_MEM_COHERENCY_FLUSH_CNTL",
    0x7F004: "NBIO.BIF_BX_PF0_HDP_REG_COHERENCY_FLUSH_CNTL",
}
NOT_PM4 = ("Sdma", "Mes")  # queues whose packets are of another kind begin like this
OTHERS = {
    DEVICE_MEMORY: "device memory stored by the host",
    SYSTEM_MEMORY: "system memory stored by the host",
    MAP: "system memory mapped for the card",
    UNMAP: "system memory taken back",
    RESET: "bus reset",
}


def lines(entries: Iterable[Entry], registers: RegisterMap, *, fields: bool = True) -> Iterator[str]:
    """One line an entry."""
    for entry in entries:
        yield f"{entry.time_ns / 1000:12.3f} us  {describe(entry, registers, fields=fields)}"


def describe(entry: Entry, registers: RegisterMap, *, fields: bool = True) -> str:
    """An entry without its time."""
    if entry.space == PACKET:
        language, _, queue = entry.source.partition(" ")
        return f"{queue:36} :: {describe_packet(language, entry.data, registers, fields=fields)}"
    if entry.space in OTHERS:
        return f"{OTHERS[entry.space]}: {entry.offset:#x}, {entry.width} bytes"
    arrow = "<-" if entry.is_write else "->"
    text = f"{place(entry, registers):48} {arrow} {entry.value:#x}"
    if fields and entry.space == "register" and (register := registers.at(entry.offset)) is not None:
        _, brace, decoded = str(register.decode(entry.value)).partition(" {")
        text += f"  {{{decoded}" if brace else ""
    return text


def place(entry: Entry, registers: RegisterMap) -> str:
    """Where an access went: a register's name, or the space and the offset in it."""
    if entry.space == "register":
        register = registers.at(entry.offset)
        return register.full_name if register is not None else MOVED.get(entry.offset, f"{entry.offset:#x}")
    name = CONFIG_NAMES.get(entry.offset, "") if entry.space == "config" else ""
    return f"{entry.space}+{entry.offset:#x}" + (f" {name}" if name else "")
