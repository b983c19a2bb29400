"""COPY packets: linear, broadcast, windows of linear surfaces, structures.

Layouts: Linux 6.12 sdma_v6_0_0_pkt_open.h. Tiled surfaces are those of the display and the texture units, which are not
emulated: their copies are refused by name, but for swizzle mode 0, which is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from amdrv.emulator.pm4.stream import BadPacket
from amdrv.facts import sdma_v6_0 as facts
from amdrv.facts.sdma_v6_0 import CopySub

if TYPE_CHECKING:
    from amdrv.emulator.pm4.queue_engine import QueueState
    from amdrv.emulator.sdma.ring import SdmaRing

Words = Sequence[int]
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
    """A box of elements from one linear surface into another."""
    large = words[0] >> 8 & 0xFF == CopySub.LINEAR_SUB_WIND_LARGE
    layout = facts.COPY_LINEAR_SUBWIN_LARGE if large else facts.COPY_LINEAR_SUBWIN
    fields = layout.decode(list(words))
    # Pitches and rectangles count elements and hold one less; the large form counts bytes.
    size = 1 if large else 1 << fields["elementsize"]
    rows, slices = fields["rect_y"] + 1, fields["rect_z"] + 1
    row_bytes = (fields["rect_x"] + 1) * size

    def address(side: str, y: int, z: int) -> int:
        pitch, slice_pitch = fields[f"{side}_pitch"] + 1, fields[f"{side}_slice_pitch"] + 1
        element = (fields[f"{side}_z"] + z) * slice_pitch + (fields[f"{side}_y"] + y) * pitch + fields[f"{side}_x"]
        return fields[f"{side}_addr"] + element * size

    for z in range(slices):
        for y in range(rows):
            ring.view.write(address("dst", y, z), ring.view.read(address("src", y, z), row_bytes))


def tiled_window(ring: SdmaRing, words: Words, _state: QueueState) -> None:
    """A box between a linear surface and one with a swizzle mode, of which only the linear one is known."""
    fields = facts.COPY_TILED_SUBWIN.decode(list(words))
    if fields["swizzle_mode"] != SWIZZLE_LINEAR or fields["dcc"]:
        raise BadPacket(words[0], f"a copy of swizzle mode {fields['swizzle_mode']} is not emulated")
    size = 1 << fields["element_size"]
    row_bytes = (fields["rect_x"] + 1) * size
    width, height = fields["width"] + 1, fields["height"] + 1
    for z in range(fields["rect_z"] + 1):
        for y in range(fields["rect_y"] + 1):
            tiled = ((fields["tiled_z"] + z) * height + fields["tiled_y"] + y) * width + fields["tiled_x"]
            line = (fields["linear_z"] + z) * (fields["linear_slice_pitch"] + 1)
            line += (fields["linear_y"] + y) * (fields["linear_pitch"] + 1) + fields["linear_x"]
            here, there = fields["tiled_addr"] + tiled * size, fields["linear_addr"] + line * size
            source, target = (here, there) if fields["detile"] else (there, here)
            ring.view.write(target, ring.view.read(source, row_bytes))


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


COPIES: dict[int, tuple[int, Callable[[SdmaRing, Words, QueueState], None]]] = {
    CopySub.LINEAR: (7, linear),
    CopySub.LINEAR_SUB_WIND: (13, window),
    CopySub.LINEAR_SUB_WIND_LARGE: (20, window),
    CopySub.TILED_SUB_WIND: (14, tiled_window),
    CopySub.LINEAR_PHY: (7, physical),
    CopySub.SOA: (8, structures),
}
