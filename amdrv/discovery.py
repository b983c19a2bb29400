"""The IP discovery table: which blocks a card has, in which version, and where their registers are.

``parse`` is a pure function from bytes; ``read`` fetches those bytes from device memory. Nothing is written to the
device except the index of the window onto memory that BAR0 does not show.

Source: Linux 6.12 include/discovery.h (layouts) and amdgpu_discovery.c (amdgpu_discovery_read_binary_from_mem,
amdgpu_discovery_init, amdgpu_discovery_reg_base_init, amdgpu_discovery_get_gfx_info).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from amdrv.errors import MalformedInput, Unsupported
from amdrv.facts.discovery import (
    BINARY_SIGNATURE,
    BLOCK_NAMES,
    CHECKSUM_START,
    DIE_INFO_OFFSET,
    DISCOVERY_OFFSET_FROM_END_BYTES,
    DISCOVERY_SIZE_BYTES,
    GC_INFO,
    GC_SIGNATURE,
    HARVEST_ENTRIES,
    HARVEST_SIGNATURE,
    IP_DISCOVERY_SIGNATURE,
    IP_ENTRY,
    MAX_DIES,
    TABLE_LIST_OFFSET,
    WIDE_BASES_BIT,
    WIDE_BASES_OFFSET,
    EarlyRegister,
    Table,
)
from amdrv.facts.discovery_tables import (
    BINARY_HEADER,
    DIE_HEADER,
    DIE_INFO,
    HARVEST_HEADER,
    HARVEST_INFO,
    IP_DISCOVERY_HEADER,
    TABLE_INFO,
)
from amdrv.facts.hw_ids import HwId
from amdrv.ioctl.pci_function import PciFunction
from amdrv.vram import Vram

Version = tuple[int, int, int]

NEWEST_IP_VERSION = 4
FIRST_VERSION_WITH_VARIANT = 3
# The twelve bytes that every version of the GC table begins with.
GC_HEADER_BYTES = 12
FIRMWARE_DONE = 1 << 31


@dataclass(frozen=True, slots=True)
class IpBlock:
    """One instance of one hardware block."""

    name: str  # as in the register map; "HW_123" for an id without a name
    hw_id: int
    instance: int
    version: Version
    bases: tuple[int, ...]  # in dwords
    die: int = 0
    variant: int = 0
    sub_revision: int = 0
    harvested: bool = False


@dataclass(frozen=True, slots=True)
class GcInfo:
    """Counts of the graphics core."""

    shader_engines: int
    arrays_per_engine: int
    cus_per_array: int  # as built; harvesting may have switched some off
    wave_size: int
    max_waves_per_simd: int
    scratch_slots_per_cu: int
    lds_kib: int
    version: tuple[int, int]
    raw: Mapping[str, int | tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class DiscoveryTable:
    """What the table says."""

    version: int
    blocks: tuple[IpBlock, ...]
    gc: GcInfo

    def versions(self) -> dict[str, Version]:
        """Block name → version of its first instance."""
        found: dict[str, Version] = {}
        for block in self.blocks:
            found.setdefault(block.name, block.version)
        return found

    def bases(self) -> dict[str, dict[int, tuple[int, ...]]]:
        """Block name → instance → base addresses in dwords, of every instance that is not harvested."""
        found: dict[str, dict[int, tuple[int, ...]]] = {}
        for block in self.blocks:
            if not block.harvested:
                found.setdefault(block.name, {})[block.instance] = block.bases
        return found


def read(vram: Vram) -> bytes:
    """The discovery binary, from the end of device memory; unchecked."""
    start = vram.size_bytes - DISCOVERY_OFFSET_FROM_END_BYTES
    if start + DISCOVERY_SIZE_BYTES <= vram.visible_bytes:
        return vram.read(start, DISCOVERY_SIZE_BYTES)
    # Every dword costs two register accesses here, so only as many as the header asks for.
    header = vram.read(start, BINARY_HEADER.size_bytes)
    size_bytes = BINARY_HEADER.get(header, "binary_size")
    if not BINARY_HEADER.size_bytes < size_bytes <= DISCOVERY_SIZE_BYTES:
        return header  # parse says what is wrong with it
    rest_start = BINARY_HEADER.size_bytes
    return header + vram.read(start + rest_start, size_bytes - rest_start)


# Linux 6.12 amdgpu_discovery.c: amdgpu_discovery_read_binary_from_mem
def wait_for_firmware(function: PciFunction) -> None:
    """Wait until the card's own start-up firmware has written the table; at most two seconds after power-on."""
    function.wait32(
        EarlyRegister.MP0_SMN_C2PMSG_33 * 4,
        mask=FIRMWARE_DONE,
        expected=FIRMWARE_DONE,
        timeout_s=2.0,
        what="the card's start-up firmware (MP0 C2PMSG_33)",
        hint="the card did not finish its power-on initialisation",
    )


def checksum(data: bytes | memoryview) -> int:
    """16-bit sum of bytes."""
    return sum(data) & 0xFFFF


def parse(data: bytes) -> DiscoveryTable:
    """Check and decode a discovery binary.

    Raises MalformedInput for anything that does not hold together (signatures, checksums, bounds, counts),
    Unsupported for table versions of the future.
    """
    if len(data) < BINARY_HEADER.size_bytes:
        raise MalformedInput(f"discovery table: {len(data)} bytes are shorter than its header")
    _expect("binary signature", BINARY_HEADER.get(data, "binary_signature"), BINARY_SIGNATURE)
    size_bytes = BINARY_HEADER.get(data, "binary_size")
    if not BINARY_HEADER.size_bytes <= size_bytes <= min(len(data), DISCOVERY_SIZE_BYTES):
        raise MalformedInput(f"discovery table: its header gives {size_bytes} bytes, of {len(data)} that were read")
    data = data[:size_bytes]
    _expect(
        "binary checksum", checksum(data[CHECKSUM_START:]), BINARY_HEADER.get(data, "binary_checksum")
    )
    version, blocks = _parse_blocks(data)
    harvested = _parse_harvest(data)
    return DiscoveryTable(
        version=version,
        blocks=tuple(_marked(block, harvested) for block in blocks),
        gc=_parse_gc(data),
    )


def _expect(what: str, seen: int, wanted: int) -> None:
    if seen != wanted:
        raise MalformedInput(f"discovery table: {what} is {seen:#x}, expected {wanted:#x}")


def _slice(data: bytes, offset: int, size_bytes: int, what: str) -> bytes:
    if offset < BINARY_HEADER.size_bytes or offset + size_bytes > len(data):
        raise MalformedInput(f"discovery table: {what} at {offset:#x}+{size_bytes:#x} is outside its {len(data)} bytes")
    return data[offset : offset + size_bytes]


def _table_info(data: bytes, table: Table) -> tuple[int, int]:
    """(offset, checksum) of a table; offset 0 means that there is none."""
    at = TABLE_LIST_OFFSET + table * TABLE_INFO.size_bytes
    return TABLE_INFO.get(data, "offset", at), TABLE_INFO.get(data, "checksum", at)


def _parse_blocks(data: bytes) -> tuple[int, list[IpBlock]]:
    offset, wanted = _table_info(data, Table.IP_DISCOVERY)
    header = _slice(data, offset, IP_DISCOVERY_HEADER.size_bytes, "IP table header")
    _expect("IP table signature", IP_DISCOVERY_HEADER.get(header, "signature"), IP_DISCOVERY_SIGNATURE)
    size_bytes = IP_DISCOVERY_HEADER.get(header, "size")
    _expect("IP table checksum", checksum(_slice(data, offset, size_bytes, "IP table")), wanted)
    version = IP_DISCOVERY_HEADER.get(header, "version")
    if not 1 <= version <= NEWEST_IP_VERSION:
        raise Unsupported(f"discovery table: IP table version {version}; 1 to {NEWEST_IP_VERSION} are known")
    dies = IP_DISCOVERY_HEADER.get(header, "num_dies")
    if not 1 <= dies <= MAX_DIES:
        raise MalformedInput(f"discovery table: {dies} dies; 1 to {MAX_DIES} are possible")
    wide = version >= NEWEST_IP_VERSION and bool(header[WIDE_BASES_OFFSET] & WIDE_BASES_BIT)
    blocks: list[IpBlock] = []
    for die in range(dies):
        info = DIE_INFO_OFFSET + die * DIE_INFO.size_bytes
        blocks += _parse_die(data, die, DIE_INFO.get(header, "die_offset", info), version, wide)
    return version, blocks


def _block_name(hw_id: int) -> str:
    try:
        known = HwId(hw_id)
    except ValueError:
        return f"HW_{hw_id}"
    return BLOCK_NAMES.get(known, known.name)


def _parse_die(data: bytes, die: int, offset: int, version: int, wide: bool) -> list[IpBlock]:
    header = _slice(data, offset, DIE_HEADER.size_bytes, f"die {die}")
    _expect(f"id of die {die}", DIE_HEADER.get(header, "die_id"), die)
    at = offset + DIE_HEADER.size_bytes
    blocks: list[IpBlock] = []
    for number in range(DIE_HEADER.get(header, "num_ips")):
        what = f"block {number} of die {die}"
        entry = IP_ENTRY.unpack(_slice(data, at, IP_ENTRY.size_bytes, what))
        hw_id, count, flags = _int(entry["hw_id"]), _int(entry["num_base_address"]), _int(entry["sub_revision_variant"])
        base_bytes = 8 if wide else 4
        raw = _slice(data, at + IP_ENTRY.size_bytes, count * base_bytes, f"bases of {what}")
        named = version >= FIRST_VERSION_WITH_VARIANT
        blocks.append(
            IpBlock(
                name=_block_name(hw_id),
                hw_id=hw_id,
                instance=_int(entry["instance_number"]),
                version=(_int(entry["major"]), _int(entry["minor"]), _int(entry["revision"])),
                bases=tuple(
                    int.from_bytes(raw[i : i + base_bytes], "little") for i in range(0, len(raw), base_bytes)
                ),
                die=die,
                variant=flags >> 4 if named else 0,
                sub_revision=flags & 0xF if named else 0,
                harvested=not named and bool(flags & 0xF),
            )
        )
        at += IP_ENTRY.size_bytes + len(raw)
    return blocks


def _parse_harvest(data: bytes) -> set[tuple[int, int]]:
    """(hardware id, instance) of every block that the table says is switched off."""
    offset, wanted = _table_info(data, Table.HARVEST_INFO)
    if not offset:
        return set()
    size_bytes = HARVEST_HEADER.size_bytes + HARVEST_ENTRIES * HARVEST_INFO.size_bytes
    table = _slice(data, offset, size_bytes, "harvest table")
    _expect("harvest table signature", HARVEST_HEADER.get(table, "signature"), HARVEST_SIGNATURE)
    _expect("harvest table checksum", checksum(table), wanted)
    harvested: set[tuple[int, int]] = set()
    for at in range(HARVEST_HEADER.size_bytes, size_bytes, HARVEST_INFO.size_bytes):
        hw_id = HARVEST_INFO.get(table, "hw_id", at)
        if hw_id == 0:
            break
        harvested.add((hw_id, HARVEST_INFO.get(table, "number_instance", at)))
    return harvested


def _marked(block: IpBlock, harvested: set[tuple[int, int]]) -> IpBlock:
    return replace(block, harvested=True) if (block.hw_id, block.instance) in harvested else block


def _parse_gc(data: bytes) -> GcInfo:
    offset, wanted = _table_info(data, Table.GC)
    common = GC_INFO[1, 0]
    header = _slice(data, offset, GC_HEADER_BYTES, "GC table header")
    _expect("GC table id", common.get(header, "table_id"), GC_SIGNATURE)
    size_bytes = common.get(header, "size")
    table = _slice(data, offset, size_bytes, "GC table")
    _expect("GC table checksum", checksum(table), wanted)
    major, minor = common.get(header, "version_major"), common.get(header, "version_minor")
    layout = GC_INFO.get((major, minor))
    if layout is None:
        known = ", ".join(f"{a}.{b}" for a, b in GC_INFO)
        raise Unsupported(f"discovery table: GC table version {major}.{minor}; known are {known}")
    return _gc_info(layout.unpack(table), (major, minor))


def _gc_info(raw: Mapping[str, int | tuple[int, ...]], version: tuple[int, int]) -> GcInfo:
    if version[0] == 1:
        cus = 2 * (_int(raw["gc_num_wgp0_per_sa"]) + _int(raw["gc_num_wgp1_per_sa"]))
        arrays = _int(raw["gc_num_sa_per_se"])
    else:
        cus, arrays = _int(raw["gc_num_cu_per_sh"]), _int(raw["gc_num_sh_per_se"])
    info = GcInfo(
        shader_engines=_int(raw["gc_num_se"]),
        arrays_per_engine=arrays,
        cus_per_array=cus,
        wave_size=_int(raw["gc_wave_size"]),
        max_waves_per_simd=_int(raw["gc_max_waves_per_simd"]),
        scratch_slots_per_cu=_int(raw["gc_max_scratch_slots_per_cu"]),
        lds_kib=_int(raw["gc_lds_size"]),
        version=version,
        raw=raw,
    )
    # Broad limits: enough to keep nonsense from becoming loop counts.
    for what, value, limit in (
        ("shader engines", info.shader_engines, 32),
        ("shader arrays per engine", info.arrays_per_engine, 8),
        ("compute units per array", info.cus_per_array, 32),
    ):
        if not 1 <= value <= limit:
            raise MalformedInput(f"discovery table: {value} {what}; 1 to {limit} are possible")
    return info


def _int(value: int | tuple[int, ...]) -> int:
    if isinstance(value, tuple):
        raise MalformedInput("discovery table: a scalar field is an array")
    return value
