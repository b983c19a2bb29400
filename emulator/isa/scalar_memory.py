"""SMEM: scalar loads, one address a wave."""

from __future__ import annotations

import numpy as np

from amdrv.emulator.isa.instruction import Instruction, Operand
from amdrv.emulator.isa.memory_path import AddressFault
from amdrv.emulator.isa.operands import Op, Place, Store, fetch, find, nothing
from amdrv.emulator.isa.spaces import LaneFault
from amdrv.emulator.isa.wave import EXEC_HI, NULL, U32, U64, Array, Group, view_key

SIZES = {"b32": 1, "b64": 2, "b96": 3, "b128": 4, "b256": 8, "b512": 16}
# Parts of a dword: (bytes, whether the sign is extended).
PARTS = {"u8": (1, False), "i8": (1, True), "u16": (2, False), "i16": (2, True)}
WITHOUT_DATA = (
    "s_gl1_inv", "s_dcache_inv", "s_atc_probe", "s_atc_probe_buffer",
    "s_prefetch_inst", "s_prefetch_inst_pc_rel", "s_prefetch_data", "s_prefetch_data_pc_rel", "s_buffer_prefetch_data",
)  # fmt: skip

LAST_DESCRIPTOR = EXEC_HI - 3  # first register of the last four


def prepare_smem(instruction: Instruction, place: Place) -> Op | None:
    """The operation of a scalar memory instruction; None when it is none.

    Addresses of whole dwords are rounded down to one. s_buffer_load takes the base from 48 bits of the descriptor and
    gives zero for dwords beyond num_records (ISA manual, "Scalar memory"). A descriptor is four scalar registers that
    there are.
    """
    if instruction.mnemonic in WITHOUT_DATA:
        return nothing  # vector and scalar caches are not modelled: memory is always coherent
    kind = instruction.mnemonic.rpartition("_")[2]
    part = PARTS.get(kind)
    count = 1 if part else SIZES.get(kind)
    base, soffset = find(instruction.src, "sbase"), find(instruction.src, "soffset")
    buffer = instruction.mnemonic.startswith("s_buffer")
    if count is None or base is None or (buffer and base.index > LAST_DESCRIPTOR):
        return None
    immediate = place.generation.offset(instruction)
    offset = fetch(soffset, U32, place) if soffset is not None and soffset.index != NULL else None
    base64 = fetch(base, U64, place)
    records_key, stride_key = view_key(False, base.index + 2, U32), view_key(False, base.index + 1, U32)
    write = _writer(instruction.dst[0], count)

    def load(group: Group) -> None:
        start = base64(group)[:, 0]
        at = np.full(group.count, immediate & 0xFFFF_FFFF_FFFF_FFFF, np.uint64)
        if offset is not None:
            at = at + offset(group)[:, 0]
        limit = None
        if buffer:
            start = start & np.uint64(0xFFFF_FFFF_FFFF)
            stride = group.views[stride_key][:, 0] >> np.uint32(16) & np.uint32(0x3FFF)
            records = group.views[records_key][:, 0].astype(np.uint64)
            limit = np.where(stride == 0, records, records * stride)
        if part:
            size_bytes, signed = part
            write(group, _read_part(group, start + at, at, size_bytes, signed, limit))
        else:
            write(group, _read(group, start & ~np.uint64(3), at & ~np.uint64(3), count, limit))

    return load


def _read(group: Group, start: Array, at: Array, count: int, limit: Array | None) -> Array:
    """uint32[waves, count] from the addresses ``start + at``; offsets from ``limit`` on give zero."""
    memory = group.machine.memory
    address = start + at
    waves = np.arange(group.count)
    try:
        if limit is None:
            if group.count > 1 and bool((address == address[0]).all()):  # usual: kernel arguments
                address = address[:1]
            return np.stack(memory.load(address, 4 * count), axis=1)
        result = np.zeros((group.count, count), np.uint32)
        for dword in range(count):
            waves = np.flatnonzero(at + np.uint64(4 * dword + 4) <= limit)
            if len(waves):
                result[waves, dword] = memory.load(address[waves] + np.uint64(4 * dword), 4)[0]
        return result
    except AddressFault as fault:
        lane = int(waves[fault.position]) * group.state.lanes
        raise LaneFault("memory violation", str(fault), lane, fault.va, fault.access) from fault


def _read_part(group: Group, address: Array, at: Array, size_bytes: int, signed: bool, limit: Array | None) -> Array:
    """uint32[waves, 1] of a byte or two, extended; beyond ``limit`` they are zero."""
    result = np.zeros((group.count, 1), np.uint32)
    waves = np.arange(group.count) if limit is None else np.flatnonzero(at + np.uint64(size_bytes) <= limit)
    if not len(waves):
        return result
    try:
        result[waves, 0] = group.machine.memory.load(address[waves] & ~np.uint64(size_bytes - 1), size_bytes)[0]
    except AddressFault as fault:
        lane = int(waves[fault.position]) * group.state.lanes
        raise LaneFault("memory violation", str(fault), lane, fault.va, fault.access) from fault
    if signed:
        shift = np.uint32(32 - 8 * size_bytes)
        result = ((result << shift).view(np.int32) >> shift.astype(np.int32)).view(np.uint32)
    return result


def _writer(target: Operand, count: int) -> Store:
    """Consecutive scalar registers from ``target`` on; those beyond the register file, and NULL, are left out."""
    first = target.index
    registers = [] if first == NULL else [first + dword for dword in range(count) if first + dword <= EXEC_HI]

    def write(group: Group, data: Array) -> None:
        for dword, register in enumerate(registers):
            if register != NULL:
                group.write_scalar(register, data[:, dword : dword + 1])

    return write
