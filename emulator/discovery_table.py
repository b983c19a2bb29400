"""The IP discovery binary: the boot ROM leaves it near the end of VRAM, and drivers learn from it which blocks exist.

Format: Linux 6.12 include/discovery.h; checksums, and what a driver verifies: amdgpu_discovery.c.
"""

from __future__ import annotations

from amdrv.emulator.chips.chip import Chip, IpInstance, ShaderArray
from amdrv.facts.discovery import (
    BINARY_SIGNATURE,
    CHECKSUM_START,
    DIE_INFO_OFFSET,
    GC_SIGNATURE,
    HARVEST_ENTRIES,
    HARVEST_SIGNATURE,
    IP_DISCOVERY_SIGNATURE,
    IP_ENTRY,
    TABLE_LIST_OFFSET,
    WIDE_BASES_BIT,
    WIDE_BASES_OFFSET,
    Table,
)
from amdrv.facts.discovery_tables import (
    BINARY_HEADER,
    DIE_HEADER,
    DIE_INFO,
    GC_INFO_V1_2,
    HARVEST_HEADER,
    HARVEST_INFO,
    IP_DISCOVERY_HEADER,
    TABLE_INFO,
)

IP_TABLE_VERSION = 4
BASE_BYTES, WIDE_BASE_BYTES = 4, 8
KIB = 1024


def byte_sum(data: bytes | bytearray) -> int:
    """The checksum of every table: the sum of its bytes, 16 bits."""
    return sum(data) & 0xFFFF


def build(chip: Chip) -> bytes:
    """The whole binary for a chip, checksummed."""
    tables = {
        Table.IP_DISCOVERY: _ip_table(chip.ip_instances, at=BINARY_HEADER.size_bytes),
        Table.GC: _gc_table(chip.shader_array),
        Table.HARVEST_INFO: _harvest_table([entry for entry in chip.ip_instances if entry.harvested]),
    }
    header = BINARY_HEADER.pack(binary_signature=BINARY_SIGNATURE, version_major=1, version_minor=0)
    body = bytearray()
    for index, table in tables.items():
        entry = TABLE_INFO.pack(offset=BINARY_HEADER.size_bytes + len(body), checksum=byte_sum(table), size=len(table))
        start = TABLE_LIST_OFFSET + index * TABLE_INFO.size_bytes
        header[start : start + len(entry)] = entry
        body += table
    binary = header + body
    BINARY_HEADER.put(binary, "binary_size", len(binary))
    BINARY_HEADER.put(binary, "binary_checksum", byte_sum(binary[CHECKSUM_START:]))
    return bytes(binary)


def _ip_table(entries: tuple[IpInstance, ...], at: int) -> bytes:
    """One die with every block; die offsets count from the start of the binary, where this table is ``at``.

    Bases are 64 bits wide when one of them needs it.
    """
    records = bytearray()
    wide = any(base >> 8 * BASE_BYTES for entry in entries for base in entry.bases)
    base_bytes = WIDE_BASE_BYTES if wide else BASE_BYTES
    for entry in entries:
        major, minor, revision = entry.version
        records += IP_ENTRY.pack(
            hw_id=entry.hw_id,
            instance_number=entry.instance,
            num_base_address=len(entry.bases),
            major=major,
            minor=minor,
            revision=revision,
        )
        records += b"".join(base.to_bytes(base_bytes, "little") for base in entry.bases)
    die = DIE_HEADER.pack(die_id=0, num_ips=len(entries)) + records
    size = IP_DISCOVERY_HEADER.size_bytes + len(die)
    header = IP_DISCOVERY_HEADER.pack(signature=IP_DISCOVERY_SIGNATURE, version=IP_TABLE_VERSION, size=size, num_dies=1)
    die_info = DIE_INFO.pack(die_id=0, die_offset=at + IP_DISCOVERY_HEADER.size_bytes)
    header[DIE_INFO_OFFSET : DIE_INFO_OFFSET + len(die_info)] = die_info
    header[WIDE_BASES_OFFSET] = WIDE_BASES_BIT if wide else 0
    return bytes(header + die)


def _gc_table(array: ShaderArray) -> bytes:
    arrays = array.shader_engines * array.arrays_per_engine
    return bytes(
        GC_INFO_V1_2.pack(
            table_id=GC_SIGNATURE,
            version_major=1,
            version_minor=2,
            size=GC_INFO_V1_2.size_bytes,
            gc_num_se=array.shader_engines,
            gc_num_wgp0_per_sa=array.wgps_per_array,
            gc_num_sa_per_se=array.arrays_per_engine,
            gc_num_rb_per_se=array.render_backends_per_engine,
            gc_num_gl2c=array.l2_channels,
            gc_num_gprs=array.vector_registers_per_simd,
            gc_wave_size=array.wave_size,
            gc_max_waves_per_simd=array.max_waves_per_simd,
            gc_max_scratch_slots_per_cu=array.scratch_slots_per_cu,
            gc_lds_size=array.lds_bytes // KIB,
            gc_num_sc_per_se=array.arrays_per_engine,
            gc_num_packer_per_sc=4,
            gc_num_tcp_per_sa=array.tcp_instances_per_array,
            gc_num_tcps=array.tcp_instances_per_array * arrays,
            gc_num_tcp_per_wpg=2,
            gc_tcp_l1_size=array.vector_cache_bytes // KIB,
            gc_num_sqc_per_wgp=1,
            gc_l1_instruction_cache_size_per_sqc=array.instruction_cache_bytes // KIB,
            gc_l1_data_cache_size_per_sqc=array.scalar_cache_bytes // KIB,
            gc_gl1c_per_sa=1,
            gc_gl1c_size_per_instance=array.l1_bytes_per_array // KIB,
            gc_gl2c_per_gpu=array.l2_bytes // KIB,
        )
    )


def _harvest_table(harvested: list[IpInstance]) -> bytes:
    table = HARVEST_HEADER.pack(signature=HARVEST_SIGNATURE)
    for entry in harvested:
        table += HARVEST_INFO.pack(hw_id=entry.hw_id, number_instance=entry.instance)
    return bytes(table.ljust(HARVEST_HEADER.size_bytes + HARVEST_ENTRIES * HARVEST_INFO.size_bytes, b"\0"))
