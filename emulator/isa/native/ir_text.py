"""Pieces of LLVM IR text that the library's memory functions share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache


@cache
def vector(lanes: int, element: str = "i32") -> str:
    """A vector type."""
    return f"<{lanes} x {element}>"


def constants(values: Sequence[int], element: str = "i32") -> str:
    """A vector constant."""
    return f"<{', '.join(f'{element} {value}' for value in values)}>"


def splat(target: str, value: str, lanes: int, element: str = "i32") -> str:
    """IR that spreads a scalar into the vector %<target>."""
    kind = vector(lanes, element)
    return f"""
  %{target}.one = insertelement {kind} poison, {element} {value}, i64 0
  %{target} = shufflevector {kind} %{target}.one, {kind} poison, <{lanes} x i32> zeroinitializer"""


def shuffle(target: str, element: str, lanes: int, sources: tuple[str, str], order: Sequence[int]) -> str:
    """IR for a shuffle of one or two vectors of ``lanes`` elements; -1 in ``order`` is an element of no interest."""
    kind = vector(lanes, element)
    mask = f"{vector(len(order))} {constants(order)}".replace("i32 -1", "i32 poison")
    return f"\n  %{target} = shufflevector {kind} {sources[0]}, {kind} {sources[1]}, {mask}"


@cache
def result_type(lanes: int, dwords: int) -> str:
    """{<lanes x i32> × dwords, i1 fault}."""
    return f"{{{', '.join([vector(lanes)] * dwords)}, i1}}"


@cache
def cold_type(lanes: int, dwords: int) -> str:
    """{i1 fault, <lanes x i32> × dwords}: what slow paths return.

    Were it the inline path's type, LLVM would merge the two as aggregates and test the fault on both.
    """
    return f"{{i1, {', '.join([vector(lanes)] * dwords)}}}"


def result(lanes: int, values: Sequence[str], fault: str) -> str:
    """IR that returns vectors and a fault as a ``result_type``."""
    members = [*(f"{vector(lanes)} {value}" for value in values), f"i1 {fault}"]
    return _returned(result_type(lanes, len(values)), members)


def cold_result(lanes: int, values: Sequence[str], fault: str, prefix: str = "") -> str:
    """IR that returns vectors and a fault as a ``cold_type``; ``prefix`` tells several in a function apart."""
    members = [f"i1 {fault}", *(f"{vector(lanes)} {value}" for value in values)]
    return _returned(cold_type(lanes, len(values)), members, prefix)


def _returned(kind: str, members: Sequence[str], prefix: str = "") -> str:
    lines, previous = [], "poison"
    for number, member in enumerate(members):
        lines.append(f"\n  %{prefix}result.{number} = insertvalue {kind} {previous}, {member}, {number}")
        previous = f"%{prefix}result.{number}"
    return f"{''.join(lines)}\n  ret {kind} {previous}"


def deinterleave(prefix: str, source: str, lanes: int, dwords: int) -> str:
    """IR that takes elements of 1, 2 or 4 dwords, one behind the other, apart into %<prefix>0, %<prefix>1, …

    ``source`` is a vector of lanes × dwords i32. Two steps of shuffles that need two registers each.
    """
    if dwords == 1:
        return f"\n  %{prefix}0 = bitcast {vector(lanes)} {source} to {vector(lanes)}"
    if dwords == 3:
        return "".join(
            shuffle(f"{prefix}{dword}", "i32", 3 * lanes, (source, "poison"), range(dword, 3 * lanes, 3))
            for dword in range(3)
        )
    if dwords == 2:
        return _halves(prefix, source, lanes, ("0", "1"))
    lines = [f"\n  %{prefix}wide = bitcast {vector(4 * lanes)} {source} to {vector(2 * lanes, 'i64')}"]
    for half in (0, 1):
        pair = f"{prefix}pair{half}"
        lines.append(shuffle(pair, "i64", 2 * lanes, (f"%{prefix}wide", "poison"), range(half, 2 * lanes, 2)))
        lines.append(f"\n  %{pair}.dwords = bitcast {vector(lanes, 'i64')} %{pair} to {vector(2 * lanes)}")
        lines.append(_halves(prefix, f"%{pair}.dwords", lanes, (str(2 * half), str(2 * half + 1))))
    return "".join(lines)


def _halves(prefix: str, source: str, lanes: int, names: tuple[str, str]) -> str:
    return "".join(
        shuffle(f"{prefix}{name}", "i32", 2 * lanes, (source, "poison"), range(odd, 2 * lanes, 2))
        for odd, name in enumerate(names)
    )


def interleave(target: str, sources: Sequence[str], lanes: int) -> str:
    """IR that puts 1, 2, 3 or 4 vectors of i32 together into %<target>, a vector of lanes × dwords i32."""
    if len(sources) == 1:
        return f"\n  %{target} = bitcast {vector(lanes)} {sources[0]} to {vector(lanes)}"
    if len(sources) == 2:
        return _zip(target, "i32", (sources[0], sources[1]), lanes)
    if len(sources) == 3:
        return _interleave_three(target, sources, lanes)
    lines = []
    for half in (0, 1):
        pair = f"{target}.pair{half}"
        lines.append(_zip(pair, "i32", (sources[2 * half], sources[2 * half + 1]), lanes))
        lines.append(f"\n  %{pair}.wide = bitcast {vector(2 * lanes)} %{pair} to {vector(lanes, 'i64')}")
    lines.append(_zip(f"{target}.wide", "i64", (f"%{target}.pair0.wide", f"%{target}.pair1.wide"), lanes))
    lines.append(f"\n  %{target} = bitcast {vector(2 * lanes, 'i64')} %{target}.wide to {vector(4 * lanes)}")
    return "".join(lines)


def _zip(target: str, element: str, sources: tuple[str, str], lanes: int) -> str:
    order = [lane + lanes * odd for lane in range(lanes) for odd in (0, 1)]
    return shuffle(target, element, lanes, sources, order)


def _interleave_three(target: str, sources: Sequence[str], lanes: int) -> str:
    pair = shuffle(f"{target}.pair", "i32", lanes, (sources[0], sources[1]), range(2 * lanes))
    single = shuffle(f"{target}.last", "i32", lanes, (sources[2], "poison"), [*range(lanes), *[-1] * lanes])
    order = [lane + lanes * part for lane in range(lanes) for part in range(3)]
    return pair + single + shuffle(target, "i32", 2 * lanes, (f"%{target}.pair", f"%{target}.last"), order)
