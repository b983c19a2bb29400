"""Packets of every kind of queue in words: PM4, copy engine, scheduler, AQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from amdrv.emulator.sdma.layouts import SDMA_6_0, SDMA_7_0, CopyLayouts
from amdrv.facts import aql, mes_v11, mes_v12, sdma_v6_0
from amdrv.facts.pm4 import HEADER, PACKETS, SET_REG, SET_WINDOWS, Opcode
from amdrv.registers import RegisterMap
from amdrv.registers.fields import BitLayout

PM4_TYPE_3 = 3
DWORDS_SHOWN = 8
OPCODES = {int(opcode): opcode for opcode in Opcode}
Sdma = sdma_v6_0.Opcode
# (opcode, sub-opcode) → layout of a copy engine's packet.
SDMA_LAYOUTS: Mapping[tuple[int, int], BitLayout] = {
    (Sdma.COPY, sdma_v6_0.CopySub.LINEAR): sdma_v6_0.COPY_LINEAR,
    (Sdma.WRITE, sdma_v6_0.WriteSub.LINEAR): sdma_v6_0.WRITE_UNTILED,
    (Sdma.INDIRECT, 0): sdma_v6_0.INDIRECT,
    (Sdma.FENCE, 0): sdma_v6_0.FENCE,
    (Sdma.TRAP, 0): sdma_v6_0.TRAP,
    (Sdma.POLL_REGMEM, 0): sdma_v6_0.POLL_REGMEM,
    (Sdma.COND_EXE, 0): sdma_v6_0.COND_EXE,
    (Sdma.ATOMIC, 0): sdma_v6_0.ATOMIC,
    (Sdma.CONST_FILL, 0): sdma_v6_0.CONSTANT_FILL,
    (Sdma.PTEPDE, sdma_v6_0.PtepdeSub.GEN): sdma_v6_0.WRITE_INCR,
    (Sdma.PTEPDE, sdma_v6_0.PtepdeSub.COPY): sdma_v6_0.PTEPDE_COPY,
    (Sdma.SRBM_WRITE, 0): sdma_v6_0.SRBM_WRITE,
    (Sdma.GCR_REQ, 0): sdma_v6_0.GCR_REQ,
    (Sdma.GPUVM_INV, 0): sdma_v6_0.GPUVM_INV,
}
# By generation of the graphics core; operations have the same numbers on both.
MES_LAYOUTS: Mapping[int, Mapping[int, BitLayout]] = {
    generation: {
        mes_v11.SchedulerOpcode.SET_HW_RSRC: frames.SET_HW_RESOURCES,
        mes_v11.SchedulerOpcode.ADD_QUEUE: frames.ADD_QUEUE,
        mes_v11.SchedulerOpcode.REMOVE_QUEUE: frames.REMOVE_QUEUE,
        mes_v11.SchedulerOpcode.QUERY_SCHEDULER_STATUS: frames.QUERY_MES_STATUS,
        mes_v11.SchedulerOpcode.SUSPEND: frames.SUSPEND,
        mes_v11.SchedulerOpcode.RESUME: frames.RESUME,
        mes_v11.SchedulerOpcode.RESET: frames.RESET,
        mes_v11.SchedulerOpcode.MISC: frames.MISC,
    }
    for generation, frames in ((11, mes_v11), (12, mes_v12))
}


def describe_packet(language: str, data: bytes, registers: RegisterMap, *, fields: bool) -> str:
    """A packet's name and what it says; ``language`` is one of LANGUAGES."""
    dwords = tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data) - 3, 4))
    describe = LANGUAGES.get(language)
    text = describe(dwords, data, registers, fields) if describe is not None and dwords else None
    if text is not None:
        return text
    shown = " ".join(f"{dword:08x}" for dword in dwords[:DWORDS_SHOWN])
    return shown + (" …" if len(dwords) > DWORDS_SHOWN else "")


def _pm4(dwords: tuple[int, ...], _data: bytes, registers: RegisterMap, fields: bool) -> str | None:
    header = HEADER.decode(dwords[:1])
    opcode = OPCODES.get(header["OPCODE"])
    if header["TYPE"] != PM4_TYPE_3 or opcode is None:
        return None
    body = dwords[1:]
    if not fields:
        return opcode.name
    if opcode in SET_WINDOWS and body:
        first = SET_WINDOWS[opcode].start + SET_REG.decode(body)["REG_OFFSET"]
        settings = []
        for number, value in enumerate(body[1:]):
            register = registers.at(4 * (first + number))
            settings.append(f"{register.name if register is not None else hex(4 * (first + number))}={value:#x}")
        return f"{opcode.name} {' '.join(settings)}"
    return opcode.name + _fields(PACKETS.get(opcode), body)


def _sdma(
    copies: CopyLayouts, dwords: tuple[int, ...], _data: bytes, _registers: RegisterMap, fields: bool
) -> str | None:
    operation, sub = dwords[0] & 0xFF, dwords[0] >> 8 & 0xFF
    try:
        name = Sdma(operation).name
    except ValueError:
        return None
    windows: Mapping[int, BitLayout] = {
        sdma_v6_0.CopySub.LINEAR_SUB_WIND: copies.window,
        sdma_v6_0.CopySub.TILED_SUB_WIND: copies.tiled_window,
        sdma_v6_0.CopySub.T2T_SUB_WIND: copies.tiles,
    }
    layout = (windows.get(sub) if operation == Sdma.COPY else None) or SDMA_LAYOUTS.get((operation, sub))
    return (layout.name if layout is not None else name) + (_fields(layout, dwords) if fields else "")


def _mes(
    generation: int, dwords: tuple[int, ...], _data: bytes, _registers: RegisterMap, fields: bool
) -> str | None:
    operation = mes_v11.HEADER.decode(dwords[:1])["opcode"]
    try:
        name = mes_v11.SchedulerOpcode(operation).name
    except ValueError:
        return None
    return name + (_fields(MES_LAYOUTS[generation].get(operation), dwords, tail=False) if fields else "")


def _aql(_dwords: tuple[int, ...], data: bytes, _registers: RegisterMap, fields: bool) -> str | None:
    try:
        kind = aql.PacketType(data[0])
    except ValueError:
        return None
    if kind is not aql.PacketType.KERNEL_DISPATCH or not fields or len(data) < aql.PACKET_BYTES:
        return kind.name
    values = aql.KERNEL_DISPATCH.unpack(data)
    shown = [f"{name}={value:#x}" if isinstance(value, int) else f"{name}={value}" for name, value in values.items()]
    return f"{kind.name} {{{' '.join(shown)}}}"


def _fields(layout: BitLayout | None, dwords: tuple[int, ...], *, tail: bool = True) -> str:
    if layout is None or len(dwords) < layout.dwords:
        return ""
    shown = [f"{name}={value:#x}" for name, value in layout.decode(dwords).items() if value]
    if tail:
        shown += [f"{dword:#x}" for dword in dwords[layout.dwords :][:DWORDS_SHOWN]]
    return f" {{{' '.join(shown)}}}"


LANGUAGES: Mapping[str, Callable[[tuple[int, ...], bytes, RegisterMap, bool], str | None]] = {
    "pm4": _pm4,
    "sdma": partial(_sdma, SDMA_6_0),
    "sdma7": partial(_sdma, SDMA_7_0),
    "mes": partial(_mes, 11),
    "mes12": partial(_mes, 12),
    "aql": _aql,
}
