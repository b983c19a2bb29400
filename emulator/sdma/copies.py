"""COPY packets: linear, broadcast, windows, structures, pages.

Layouts: Linux 6.12 sdma_v6_0_0_pkt_open.h, and layouts.py for what SDMA 7 has elsewhere. Windows have coordinates,
pitches and extents in elements; pitches and extents hold one less. Of surfaces with a swizzle mode only mode 0 is known
here, in which rows follow each other; the others are those of display and texture units, which are not emulated, and
are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from amdrv.emulator.pm4.stream import BadPacket
from amdrv.facts import sdma_v6_0 as facts
from amdrv.facts.sdma_v6_0 import CopySub

if TYPE_CHECKING:
    from amdrv.emulator.pm4.queue_engine import QueueState
    from amdrv.emulator.sdma.ring import SdmaRing

Words = Sequence[int]
Fields = Mapping[str, int]
Address = Callable[[int, int], int]  # of the beginning of a row (y, z) of a window

CHUNK_BYTES = 1 << 22  # what moves in one piece: the kernel's own limit for one packet
SWIZZLE_LINEAR = 0


def linear(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """Bytes from one place to another, or with BROADCAST to two."""
    fields = facts.COPY_LINEAR.decode(list(words[:7]))
    targets = [fields["dst_addr"]]
    if fields["broadcast"]:
        targets.append(facts.COPY_BROADCAST_LINEAR.decode(list(words))["dst2_addr"])
    source, count = fields["src_addr"], fields["count"] + 1
    starts = range(0, count, CHUNK_BYTES)
    for start in reversed(starts) if fields["backwards"] else starts:
        size = min(CHUNK_BYTES, count - start)
        data = ring.view.read(source + start, size)
        for target in targets:
            ring.view.write(target + start, data)


def window(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """A box of elements from one linear surface into another. ROCr's rectangles are this."""
    fields = ring.sdma.copies.window.decode(list(words))
    size = 1 << fields["elementsize"]
    _move(ring, fields, size, _linear(fields, "src", size), _linear(fields, "dst", size))


def large_window(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """The same with wider fields, all in bytes."""
    fields = facts.COPY_LINEAR_SUBWIN_LARGE.decode(list(words))
    _move(ring, fields, 1, _linear(fields, "src", 1), _linear(fields, "dst", 1))


def tiled_window(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """A box between a linear surface and one with a swizzle mode."""
    fields = ring.sdma.copies.tiled_window.decode(list(words))
    size = 1 << fields["element_size"]
    tiled, plain = _tiled(ring, words, fields, "tiled", ""), _linear(fields, "linear", size)
    source, target = (tiled, plain) if fields["detile"] else (plain, tiled)
    _move(ring, fields, size, source, target)


def tiles(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """A box between two surfaces with swizzle modes."""
    fields = ring.sdma.copies.tiles.decode(list(words))
    size = 1 << fields["src_element_size"]
    if fields["dst_element_size"] != fields["src_element_size"]:
        raise BadPacket(words[0], "a copy between elements of different sizes")
    source, target = (_tiled(ring, words, fields, side, f"{side}_") for side in ("src", "dst"))
    _move(ring, fields, size, source, target)


def dirty_pages(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """Bytes of pages that were written to, or with ALL those of every page; COUNT as in a linear copy (inferred)."""
    fields = facts.COPY_DIRTY_PAGE.decode(list(words))
    if not fields["all"]:
        raise BadPacket(words[0], "a copy of dirty pages: page table entries have no dirty bit here")
    ring.view.write(fields["dst_addr"], ring.view.read(fields["src_addr"], fields["count"] + 1))


def physical(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """COPY_LINEAR_PHY with one pair of addresses, both translated as any other here."""
    fields = facts.COPY_PHYSICAL_LINEAR.decode(list(words))
    if fields["addr_pair_num"] > 1:
        raise BadPacket(words[0], "a physical copy of more than one pair of addresses is not emulated")
    ring.view.write(fields["dst_addr"], ring.view.read(fields["src_addr"], fields["count"] + 1))


def structures(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """Dwords between a packed array and one field of an array of structures (STRIDE in dwords)."""
    fields = facts.COPY_STRUCT.decode(list(words))
    for number in range(fields["count"]):
        record = fields["sb_addr"] + 4 * fields["stride"] * (fields["start_index"] + number)
        packed = fields["linear_addr"] + 4 * number
        source, target = (record, packed) if fields["detile"] else (packed, record)
        ring.view.write(target, ring.view.read(source, 4))


def _linear(fields: Fields, side: str, size: int) -> Address:
    pitch, slice_pitch = fields[f"{side}_pitch"] + 1, fields[f"{side}_slice_pitch"] + 1

    def address(y: int, z: int) -> int:
        element = (fields[f"{side}_z"] + z) * slice_pitch + (fields[f"{side}_y"] + y) * pitch + fields[f"{side}_x"]
        return fields[f"{side}_addr"] + element * size

    return address


def _tiled(ring: SdmaRing, words: Words, fields: Fields, side: str, extent: str) -> Address:
    mode, levels = fields[f"{extent}swizzle_mode"], fields[f"{extent}mip_max"]
    if mode != SWIZZLE_LINEAR or fields["dcc"] or levels:
        what = "compression" if fields["dcc"] else f"{levels + 1} mipmap levels" if levels else f"swizzle mode {mode}"
        raise BadPacket(words[0], f"a copy of a surface with {what} is not emulated")
    size = 1 << fields[f"{extent}element_size"]
    alignment = ring.sdma.copies.row_alignment_bytes
    row_bytes = -(-(fields[f"{extent}width"] + 1) * size // alignment) * alignment
    height = fields[f"{extent}height"] + 1

    def address(y: int, z: int) -> int:
        row = (fields[f"{side}_z"] + z) * height + fields[f"{side}_y"] + y
        return fields[f"{side}_addr"] + row * row_bytes + fields[f"{side}_x"] * size

    return address


def _move(ring: SdmaRing, fields: Fields, size: int, source: Address, target: Address) -> None:
    row_bytes = (fields["rect_x"] + 1) * size
    for z in range(fields["rect_z"] + 1):
        for y in range(fields["rect_y"] + 1):
            ring.view.write(target(y, z), ring.view.read(source(y, z), row_bytes))


# Of TILED and L2T_BROADCAST, and of what is for engines before SDMA 4 (…_BC), no client of these engines is known that
# would tell what COUNT counts; they are refused by name.
COPIES: dict[int, tuple[int, Callable[[SdmaRing, Words, QueueState], None]]] = {
    CopySub.LINEAR: (7, linear),
    CopySub.LINEAR_SUB_WIND: (13, window),
    CopySub.LINEAR_SUB_WIND_LARGE: (20, large_window),
    CopySub.TILED_SUB_WIND: (14, tiled_window),
    CopySub.T2T_SUB_WIND: (15, tiles),
    CopySub.DIRTY_PAGE: (7, dirty_pages),
    CopySub.LINEAR_PHY: (7, physical),
    CopySub.SOA: (8, structures),
}
