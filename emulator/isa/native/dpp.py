"""Fixed exchanges of lanes: DPP, and the constant shuffle it is made of.

The translator's side of ``emulator.isa.dpp``, with the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence

from amdrv.emulator.isa.dpp import exchange_of
from amdrv.emulator.isa.instruction import Dpp
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.frame import Frame
from amdrv.emulator.isa.native.ir_text import constants, vector


def dpp_exchange(frame: Frame, dpp: Dpp, value: Val) -> tuple[Val, Val]:
    """(source 0 as every lane sees it, lanes that write); raises ValueError for a reserved control."""
    exchange = exchange_of(dpp, frame.lanes)
    exists: list[bool] = exchange.exists[0].tolist()
    sources = [lane if there else None for lane, there in zip(exchange.source.tolist(), exists, strict=True)]
    result = moved(value, sources)
    writes = frame.exec_bits() & _mask_of(exchange.enabled[0].tolist())
    fetched = None if frame.full or exchange.fetch_inactive else moved(frame.exec_lanes(), sources)
    if exchange.zero_when_absent:
        if fetched is not None:
            result = frame.select(fetched, result, frame.builder.constant(value.kind, 0))
        return result, frame.lanes_of(writes)
    lanes = frame.lanes_of(writes & _mask_of(exists))
    return result, lanes if fetched is None else lanes & fetched


def _mask_of(lanes: list[bool]) -> int:
    return sum(1 << lane for lane, included in enumerate(lanes) if included)


def moved(value: Val, sources: Sequence[int | None]) -> Val:
    """Lane i of the result is lane ``sources[i]`` of the value, or zero."""
    builder = value.builder
    value = builder.spread(value)
    kind = builder.type(value.kind, True)
    order = constants([builder.lanes if source is None else source for source in sources])
    return builder.value(
        value.kind,
        builder.emit(f"shufflevector {kind} {value.text}, {kind} zeroinitializer, {vector(builder.lanes)} {order}"),
        True,
    )
