"""DS instructions that are not loads, stores or atomics: lane exchange through the LDS crossbar, append and consume.

Rules: RDNA3 ISA manual, pseudo code of DS_SWIZZLE_B32, DS_PERMUTE_B32, DS_BPERMUTE_B32, DS_APPEND and DS_CONSUME.
"""

from __future__ import annotations

import numpy as np

from amdrv.emulator.isa.atomics import ATOMICS
from amdrv.emulator.isa.instruction import Instruction
from amdrv.emulator.isa.operands import Op, Place, fetch, find, vector_keys
from amdrv.emulator.isa.spaces import LDS
from amdrv.emulator.isa.wave import M0_KEY, U32, Array, Group


def swizzle_sources(offset: int, lanes: int) -> list[int]:
    """The lane that each lane reads in ds_swizzle_b32 with this 16-bit offset."""
    sources = []
    for lane in range(lanes):
        low = lane & 31
        if offset >= 0xE000:  # decimation of a fast Fourier transform
            kept = offset & 31
            picked = int(f"{low:05b}"[::-1], 2) >> kept.bit_count() | low & kept
        elif offset >= 0xC000:  # rotate
            kept, turn = offset & 31, offset >> 5 & 31
            turn = -turn if offset >> 10 & 1 else turn
            picked = low & kept | (low + turn) & 31 & ~kept
        elif offset >= 0x8000:  # any permutation of four lanes
            picked = low & ~3 | offset >> 2 * (low & 3) & 3
        else:
            picked = ((low & offset) | offset >> 5) & 31 ^ offset >> 10 & 31
        sources.append(lane & 32 | picked)
    return sources


def prepare_crossbar(instruction: Instruction, place: Place) -> Op | None:
    """ds_swizzle_b32, ds_permute_b32 and ds_bpermute_b32; None for others.

    The crossbar of gfx11 joins 32 lanes: the halves of a wave64 pass through it one after the other.
    """
    fields = instruction.fields
    offset = fields["offset0"] | fields["offset1"] << 8
    addr, target = find(instruction.src, "addr"), find(instruction.dst, "vdst")
    if addr is None or target is None:
        return None
    target_key = vector_keys(target, place)[0]
    address = fetch(addr, U32, place)
    if instruction.mnemonic == "ds_swizzle_b32":
        picked = np.array(swizzle_sources(offset, place.lanes))

        def swizzle(group: Group) -> None:
            row = address(group)[:, picked]
            active = group.lane_mask()
            group.write_vector(target_key, row if active is None else np.where(active[:, picked], row, np.uint32(0)))

        return swizzle
    data = find(instruction.src, "data0")
    if data is None:
        return None
    source = fetch(data, U32, place)
    reach = min(place.lanes, place.generation.crossbar_lanes)
    own_part = (np.arange(place.lanes) & ~(reach - 1))[None, :]
    fetch_inactive = instruction.mnemonic == "ds_bpermute_fi_b32"

    def partner(group: Group) -> Array:
        return (address(group) + np.uint32(offset) >> np.uint32(2) & np.uint32(reach - 1)).astype(np.int64) | own_part

    def bpermute(group: Group) -> None:
        picked = partner(group)
        row = np.take_along_axis(source(group), picked, 1)
        active = group.lane_mask()
        if active is not None and not fetch_inactive:
            row = np.where(np.take_along_axis(active, picked, 1), row, np.uint32(0))
        group.write_vector(target_key, row)

    def permute(group: Group) -> None:
        row = np.zeros((group.count, place.lanes), np.uint32)
        wave = np.arange(group.count)[:, None] * place.lanes
        lanes = group.active_lanes()
        row.reshape(-1)[group.pick(partner(group) + wave, lanes)] = group.pick(source(group), lanes)
        group.write_vector(target_key, row)

    makers = {"ds_bpermute_b32": bpermute, "ds_bpermute_fi_b32": bpermute, "ds_permute_b32": permute}
    return makers.get(instruction.mnemonic)


def prepare_append(instruction: Instruction, place: Place) -> Op | None:
    """ds_append and ds_consume: a counter at M0 plus the offset moves by the number of active lanes."""
    if instruction.mnemonic not in ("ds_append", "ds_consume"):
        return None
    fields = instruction.fields
    offset = fields["offset0"] | fields["offset1"] << 8
    op = ATOMICS["add" if instruction.mnemonic == "ds_append" else "sub"]
    target = find(instruction.dst, "vdst")
    keys = vector_keys(target, place) if target is not None else []

    def append(group: Group) -> None:
        active = group.lane_mask()
        lanes_in = np.full(group.count, place.lanes) if active is None else active.sum(axis=1)
        waves = np.flatnonzero(lanes_in)
        if not len(waves):
            return
        address = (group.views[M0_KEY][:, 0] & np.uint32(0xFFFF)).astype(np.uint64)[waves] + np.uint64(offset)
        amount = lanes_in[waves].astype(np.uint32)
        old = LDS.atomic(group, waves * place.lanes, address, op, (amount, amount), True)
        row = np.zeros((group.count, 1), np.uint32)
        if old is not None:
            row[waves, 0] = old
        for key in keys:
            group.write_vector(key, row)

    return append
