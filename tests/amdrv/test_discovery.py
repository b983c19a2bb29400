"""Contract of the discovery table's parser: one defect at a time, resealed, and never anything but a named error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdrv import asic, discovery
from amdrv.discovery import parse
from amdrv.errors import DeviceLost, MalformedInput, Timeout, Unsupported
from amdrv.facts.discovery import (
    BINARY_SIGNATURE,
    CHECKSUM_START,
    GC_INFO,
    GC_SIGNATURE,
    HARVEST_SIGNATURE,
    IP_DISCOVERY_SIGNATURE,
    IP_ENTRY,
    TABLE_LIST_OFFSET,
    Table,
)
from amdrv.facts.discovery_tables import (
    BINARY_HEADER,
    DIE_HEADER,
    HARVEST_HEADER,
    HARVEST_INFO,
    IP_DISCOVERY_HEADER,
    TABLE_INFO,
)
from amdrv.facts.hw_ids import HwId
from amdrv.vram import Vram, read_size_bytes

MIB = 1 << 20
NAVI31 = (
    (HwId.GC, (11, 0, 0), (0x1260, 0xA000, 0x1C000, 0x2402C00)),
    (HwId.SDMA0, (6, 0, 0), (0x1260, 0xA000)),
    (HwId.MMHUB, (3, 0, 0), (0x1A000, 0x2408800)),
    (HwId.NBIF, (4, 3, 0), (0x0, 0x14, 0xD20, 0x10400, 0x241B000, 0x4040000)),
    (HwId.HDP, (6, 0, 0), (0xF20,)),
    (HwId.OSSSYS, (6, 0, 0), (0x10A0,)),
    (HwId.MP0, (13, 0, 0), (0x16000,)),
    (HwId.MP1, (13, 0, 0), (0x16000,)),
    (HwId.UMC, (8, 10, 0), (0x14000,)),
)
GC_COUNTS = {
    "gc_num_se": 6,
    "gc_num_wgp0_per_sa": 4,
    "gc_num_wgp1_per_sa": 0,
    "gc_num_sa_per_se": 2,
    "gc_wave_size": 32,
    "gc_max_waves_per_simd": 16,
    "gc_max_scratch_slots_per_cu": 32,
    "gc_lds_size": 64,
}


def total(data: bytes | bytearray) -> int:
    return sum(data) & 0xFFFF


@dataclass
class Builder:
    """A discovery binary; ``tables`` are placed one after the other."""

    version: int = 2
    wide: bool = False
    blocks: tuple[tuple[int, tuple[int, int, int], tuple[int, ...]], ...] = NAVI31
    instances: dict[int, int] = field(default_factory=dict)  # position in blocks → instance number
    gc_version: tuple[int, int] = (1, 2)
    gc_counts: dict[str, int] = field(default_factory=lambda: dict(GC_COUNTS))
    harvest: tuple[tuple[int, int], ...] | None = ()
    flags: int = 0
    edit: Callable[[bytearray, dict[Table, int]], None] | None = None  # before checksums are computed
    damage: Callable[[bytearray, dict[Table, int]], None] | None = None  # after

    def ip_table(self, start: int) -> bytearray:
        entries = bytearray()
        for at, (hw_id, (major, minor, revision), bases) in enumerate(self.blocks):
            entries += IP_ENTRY.pack(
                hw_id=hw_id,
                instance_number=self.instances.get(at, 0),
                num_base_address=len(bases),
                major=major,
                minor=minor,
                revision=revision,
                sub_revision_variant=self.flags,
            )
            entries += b"".join(base.to_bytes(8 if self.wide else 4, "little") for base in bases)
        die = DIE_HEADER.pack(die_id=0, num_ips=len(self.blocks)) + entries
        header = IP_DISCOVERY_HEADER.pack(
            signature=IP_DISCOVERY_SIGNATURE,
            version=self.version,
            size=IP_DISCOVERY_HEADER.size_bytes + len(die),
            num_dies=1,
        )
        header[16:18] = (start + len(header)).to_bytes(2, "little")
        header[78] = self.wide
        return header + die

    def gc_table(self) -> bytearray:
        layout = GC_INFO[self.gc_version if self.gc_version in GC_INFO else (1, 0)]
        return layout.pack(
            table_id=GC_SIGNATURE,
            version_major=self.gc_version[0],
            version_minor=self.gc_version[1],
            size=layout.size_bytes,
            **{name: value for name, value in self.gc_counts.items() if name in layout.members},
        )

    def harvest_table(self) -> bytearray:
        table = HARVEST_HEADER.pack(signature=HARVEST_SIGNATURE, version=0)
        for hw_id, instance in self.harvest or ():
            table += HARVEST_INFO.pack(hw_id=hw_id, number_instance=instance)
        return table.ljust(136, b"\0")

    def build(self) -> bytes:
        data = bytearray(TABLE_LIST_OFFSET + 6 * TABLE_INFO.size_bytes)
        places: dict[Table, int] = {}
        sizes: dict[Table, int] = {}
        for table in (Table.IP_DISCOVERY, Table.GC, Table.HARVEST_INFO):
            if table is Table.HARVEST_INFO and self.harvest is None:
                continue
            places[table] = len(data)
            if table is Table.IP_DISCOVERY:
                content = self.ip_table(len(data))
            else:
                content = self.gc_table() if table is Table.GC else self.harvest_table()
            sizes[table] = len(content)
            data += content
        BINARY_HEADER.put(data, "binary_signature", BINARY_SIGNATURE)
        BINARY_HEADER.put(data, "version_major", 1)
        BINARY_HEADER.put(data, "binary_size", len(data))
        if self.edit:
            self.edit(data, places)
        for table, at in places.items():
            info = TABLE_LIST_OFFSET + table * TABLE_INFO.size_bytes
            if not TABLE_INFO.get(data, "offset", info):
                TABLE_INFO.put(data, "offset", at, info)
            TABLE_INFO.put(data, "checksum", total(data[at : at + sizes[table]]), info)
        BINARY_HEADER.put(data, "binary_checksum", total(data[CHECKSUM_START:]))
        if self.damage:
            self.damage(data, places)
        return bytes(data)


def put16(data: bytearray, at: int, value: int) -> None:
    data[at : at + 2] = value.to_bytes(2, "little")


def test_navi31_table_gives_blocks_versions_bases_and_counts() -> None:
    table = parse(Builder().build())
    assert table.versions()["NBIO"] == (4, 3, 0)
    assert table.bases()["GC"] == {0: (0x1260, 0xA000, 0x1C000, 0x2402C00)}
    assert (table.gc.shader_engines, table.gc.arrays_per_engine, table.gc.cus_per_array) == (6, 2, 8)
    assert (table.gc.lds_kib, table.gc.version) == (64, (1, 2))
    assert asic.identify(table).arch == "gfx1100"
    # Linux 6.12 amdgpu: GRBM_GFX_CNTL at 0xa000 + 0x900; the interrupt ring's control at 0x10a0 + 0x80
    registers = asic.register_map(table)
    assert registers["GC", "GRBM_GFX_CNTL"].dword == 0xA900
    assert registers["OSSSYS", "IH_RB_CNTL"].dword == 0x1120


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_every_known_table_version_is_read(version: int) -> None:
    assert parse(Builder(version=version).build()).versions()["GC"] == (11, 0, 0)


def test_wide_bases_of_version_4_are_read_whole() -> None:
    blocks = ((HwId.GC, (9, 4, 3), (0x2000, 0x4_0000_2000)), (HwId.HDP, (4, 4, 2), (0xF20,)))
    table = parse(Builder(version=4, wide=True, blocks=blocks).build())
    assert table.bases() == {"GC": {0: (0x2000, 0x4_0000_2000)}, "HDP": {0: (0xF20,)}}


@pytest.mark.parametrize("gc_version", sorted(GC_INFO))
def test_every_known_graphics_table_version_is_read(gc_version: tuple[int, int]) -> None:
    counts = {**GC_COUNTS, "gc_num_cu_per_sh": 10, "gc_num_sh_per_se": 1}
    gc = parse(Builder(gc_version=gc_version, gc_counts=counts).build()).gc
    assert gc.shader_engines == 6
    assert (gc.arrays_per_engine, gc.cus_per_array) == ((2, 8) if gc_version[0] == 1 else (1, 10))


def test_harvested_instance_has_no_registers() -> None:
    blocks = (*NAVI31, (HwId.SDMA0, (6, 0, 0), (0x1260, 0xA000)))
    builder = Builder(blocks=blocks, instances={len(NAVI31): 1}, harvest=((HwId.SDMA0, 1),))
    table = parse(builder.build())
    assert list(table.bases()["SDMA0"]) == [0]
    assert [b.harvested for b in table.blocks if b.name == "SDMA0"] == [False, True]


@pytest.mark.parametrize(("version", "harvested"), [(2, True), (3, False)])
def test_low_flag_bits_mean_harvest_only_in_old_tables(version: int, harvested: bool) -> None:
    table = parse(Builder(version=version, flags=1).build())
    assert all(block.harvested is harvested for block in table.blocks)
    assert all(block.sub_revision == (0 if harvested else 1) for block in table.blocks)


def test_table_without_a_harvest_table_has_everything() -> None:
    assert not any(block.harvested for block in parse(Builder(harvest=None).build()).blocks)


def test_block_without_a_name_is_kept_by_number() -> None:
    table = parse(Builder(blocks=(*NAVI31, (0x333, (1, 2, 3), (1,)))).build())
    assert table.versions()["HW_819"] == (1, 2, 3)


MALFORMED: dict[str, tuple[Builder, str]] = {
    "binary signature": (Builder(damage=lambda d, p: d.__setitem__(0, 0)), "binary signature"),
    "binary size too large": (Builder(edit=lambda d, p: put16(d, 10, 0x2801)), "its header gives"),
    "binary size beyond the data": (Builder(edit=lambda d, p: put16(d, 10, len(d) + 1)), "its header gives"),
    "binary checksum": (Builder(damage=lambda d, p: d.__setitem__(-1, 1)), "binary checksum"),
    "IP table signature": (Builder(edit=lambda d, p: d.__setitem__(p[Table.IP_DISCOVERY], 0)), "IP table signature"),
    "IP table offset": (Builder(edit=lambda d, p: put16(d, TABLE_LIST_OFFSET, 0xFFF0)), "outside"),
    "IP table inside the header": (Builder(edit=lambda d, p: put16(d, TABLE_LIST_OFFSET, 8)), "outside"),
    "no dies": (Builder(edit=lambda d, p: put16(d, p[Table.IP_DISCOVERY] + 12, 0)), "0 dies"),
    "too many dies": (Builder(edit=lambda d, p: put16(d, p[Table.IP_DISCOVERY] + 12, 17)), "17 dies"),
    "die offset": (Builder(edit=lambda d, p: put16(d, p[Table.IP_DISCOVERY] + 16, 0x2700)), "die 0"),
    "die id": (Builder(edit=lambda d, p: put16(d, p[Table.IP_DISCOVERY] + 80, 3)), "id of die 0"),
    "number of blocks": (Builder(edit=lambda d, p: put16(d, p[Table.IP_DISCOVERY] + 82, 0xFFFF)), "block"),
    "number of bases": (
        Builder(edit=lambda d, p: d.__setitem__(p[Table.IP_DISCOVERY] + 84 + 3, 255), blocks=NAVI31[:1]),
        "bases of block 0",
    ),
    "GC table id": (Builder(edit=lambda d, p: d.__setitem__(p[Table.GC], 0)), "GC table id"),
    "GC table size": (Builder(edit=lambda d, p: put16(d, p[Table.GC] + 8, 0xFFF0)), "GC table"),
    "GC table shorter than its version": (Builder(edit=lambda d, p: put16(d, p[Table.GC] + 8, 16)), "checksum"),
    "no shader engines": (Builder(gc_counts={**GC_COUNTS, "gc_num_se": 0}), "0 shader engines"),
    "absurd shader arrays": (Builder(gc_counts={**GC_COUNTS, "gc_num_sa_per_se": 1 << 30}), "arrays per engine"),
    "no compute units": (Builder(gc_counts={**GC_COUNTS, "gc_num_wgp0_per_sa": 0}), "compute units"),
    "harvest signature": (Builder(edit=lambda d, p: d.__setitem__(p[Table.HARVEST_INFO], 0)), "harvest table sig"),
}


@pytest.mark.parametrize("defect", MALFORMED)
def test_one_defect_is_malformed_and_named(defect: str) -> None:
    builder, expected = MALFORMED[defect]
    with pytest.raises(MalformedInput, match=expected):
        parse(builder.build())


@pytest.mark.parametrize("table", [Table.IP_DISCOVERY, Table.GC, Table.HARVEST_INFO])
def test_each_table_has_its_own_checksum(table: Table) -> None:
    def damage(data: bytearray, places: dict[Table, int]) -> None:
        at = places[table] + 20
        data[at] ^= 0x10
        BINARY_HEADER.put(data, "binary_checksum", total(data[CHECKSUM_START:]))

    with pytest.raises(MalformedInput, match="checksum"):
        parse(Builder(damage=damage).build())


@pytest.mark.parametrize("builder", [Builder(version=5), Builder(gc_version=(3, 0)), Builder(gc_version=(1, 9))])
def test_table_version_of_the_future_is_not_supported(builder: Builder) -> None:
    with pytest.raises(Unsupported):
        parse(builder.build())


@given(st.binary(max_size=400))
def test_random_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse(data)


GOOD = Builder().build()


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=200)
def test_damage_that_is_resealed_never_escapes_the_error_family(at: int, bits: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= bits
    BINARY_HEADER.put(data, "binary_checksum", total(data[CHECKSUM_START:]))
    try:
        parse(bytes(data))
    except (MalformedInput, Unsupported):
        return


@given(st.integers(0, len(GOOD) - 1))
def test_truncated_table_is_malformed(size: int) -> None:
    with pytest.raises(MalformedInput):
        parse(GOOD[:size])


@pytest.mark.parametrize("position", range(8))
def test_unknown_version_of_a_needed_block_is_refused_by_name(position: int) -> None:
    hw_id, (major, minor, revision), bases = NAVI31[position]
    blocks = list(NAVI31)
    blocks[position] = (hw_id, (major, minor, revision + 1), bases)
    name = discovery.BLOCK_NAMES.get(hw_id, hw_id.name)
    with pytest.raises(Unsupported, match=f"{name} {major}.{minor}.{revision + 1}"):
        asic.identify(parse(Builder(blocks=tuple(blocks)).build()))


def test_visible_table_costs_no_register_access(function) -> None:
    start = function.vram_bytes - 65536
    function.vram[start : start + len(GOOD)] = GOOD
    assert parse(discovery.read(Vram(function, function.vram_bytes))).versions()["GC"] == (11, 0, 0)
    assert (function.traffic.reads, function.traffic.writes) == (0, 0)


def test_hidden_table_is_read_through_the_window_and_no_further_than_it_goes(make_function) -> None:
    function = make_function(vram_bytes=512 * MIB, bar0_bytes=256 * MIB)
    start = function.vram_bytes - 65536

    def load() -> int:
        at = (function.registers.get(0x18, 0) << 31 | function.registers[0] & 0x7FFFFFFF) - start
        return int.from_bytes(GOOD[at : at + 4].ljust(4, b"\0"), "little")

    function.on_read[4] = load
    assert parse(discovery.read(Vram(function, function.vram_bytes))) == parse(GOOD)
    assert function.traffic.reads == -(-len(GOOD) // 4)


def test_card_that_is_gone_or_has_no_memory_says_so(function) -> None:
    with pytest.raises(Unsupported, match="no memory"):
        read_size_bytes(function)
    function.registers[0xDE3 * 4] = 0xFFFFFFFF
    with pytest.raises(DeviceLost):
        read_size_bytes(function)
    function.registers[0xDE3 * 4] = 24560
    assert read_size_bytes(function) == 24560 * MIB


def test_card_whose_firmware_never_finishes_is_a_named_timeout(function) -> None:
    with pytest.raises(Timeout, match="C2PMSG_33"):
        discovery.wait_for_firmware(function)
