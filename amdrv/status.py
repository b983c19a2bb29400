"""Looking at a card without becoming its owner and without writing a single register."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from amdrv import asic as asics
from amdrv import discovery
from amdrv.asic import product_name
from amdrv.boot.record import NONCE_REGISTER, RECORD_BYTES, STATE_REGISTER, BootRecord, state_word, unpack
from amdrv.discovery import DiscoveryTable
from amdrv.errors import AmdrvError, MalformedInput, Refused
from amdrv.facts.discovery import DISCOVERY_OFFSET_FROM_END_BYTES, DISCOVERY_SIZE_BYTES
from amdrv.facts.mailboxes import PSP_REGISTER, PspMailbox
from amdrv.ioctl.pci_function import PciFunction, PciIds
from amdrv.memory.layout import BOOT_RECORD
from amdrv.mmio import Mmio
from amdrv.vram import Vram, read_size_bytes

State = Literal["cold", "warm", "unclean", "foreign", "unknown", "unreachable"]

MEANING: dict[State, str] = {
    "cold": "no firmware runs; the first open boots it",
    "warm": "this driver's firmware runs and the card was closed; the next open is quick",
    "unclean": "this driver's firmware runs and the card was not closed: it is in use, or its owner crashed",
    "foreign": "firmware runs that this driver did not load; an open resets the card",
    "unknown": "its state cannot be read without writing to it, or it is of an unknown kind",
    "unreachable": "it does not answer",
}


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What can be seen of a card from outside."""

    name: str
    ids: PciIds
    state: State
    detail: str  # what the state means, or what stood in the way of more
    product: str | None = None
    arch: str | None = None
    vram_bytes: int | None = None
    visible_vram_bytes: int | None = None
    versions: dict[str, tuple[int, int, int]] | None = None
    compute_units: int | None = None  # of a card that this driver booted
    smu_version: int | None = None


def probe(function: PciFunction) -> ProbeReport:
    """Read ids, memory size, discovery table and boot state. Writes nothing, needs no ownership, never raises for a
    card that is gone, unknown or half dead: the report says so."""
    report = ProbeReport(function.name, function.ids, "unknown", "")
    try:
        vram = Vram(function, read_size_bytes(function))
    except Refused as error:
        return replace(report, detail=str(error))
    except AmdrvError as error:
        return replace(report, state="unreachable", detail=str(error))
    report = replace(report, vram_bytes=vram.size_bytes, visible_vram_bytes=vram.visible_bytes)
    start = vram.size_bytes - DISCOVERY_OFFSET_FROM_END_BYTES
    if start + DISCOVERY_SIZE_BYTES > vram.visible_bytes:
        return replace(report, detail="BAR0 does not show the discovery table, and the window to it needs writes")
    try:
        table = discovery.parse(discovery.read(vram))
        report = replace(report, versions=table.versions())
        asic = asics.identify(table)
    except Refused as error:
        return replace(report, detail=str(error))
    product = product_name(asic, function.ids) + function.marketing_suffix
    state, record = _state(function, table, vram)
    return replace(
        report,
        state=state,
        detail=MEANING[state],
        product=product,
        arch=asic.arch,
        compute_units=record.compute_units if record else None,
        smu_version=record.smu_version if record else None,
    )


def _state(function: PciFunction, table: DiscoveryTable, vram: Vram) -> tuple[State, BootRecord | None]:
    mmio = Mmio(function, asics.register_map(table))
    if not mmio.read(mmio.registers["MP0", PSP_REGISTER.format(int(PspMailbox.SOS_ALIVE))]):
        return "cold", None
    try:
        record = unpack(vram.read(BOOT_RECORD.offset, RECORD_BYTES))
    except MalformedInput:
        record = None
    if record is None or mmio.read(mmio.registers["GC", NONCE_REGISTER]) != record.nonce:
        return "foreign", None
    clean = mmio.read(mmio.registers["GC", STATE_REGISTER]) == state_word(record.nonce, clean=True)
    return ("warm" if clean else "unclean"), record
