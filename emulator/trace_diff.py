"""Where two traces differ: by what was accessed and with which value, whatever the time."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from amdrv.emulator.trace import HOST_SPACES, PACKET, Entry
from amdrv.emulator.trace_text import describe
from amdrv.registers import RegisterMap

COMPARED = (*HOST_SPACES, PACKET)


def steps(entries: Sequence[Entry], registers: RegisterMap) -> list[str]:
    """The accesses in words, without times; a row of equal reads is one step, so that waits of any length are alike."""
    result: list[str] = []
    for entry in entries:
        if entry.space in COMPARED:
            step = describe(entry, registers)
            if entry.is_write or not result or result[-1] != step:
                result.append(step)
    return result


def diff(
    first: tuple[str, Sequence[Entry]],
    second: tuple[str, Sequence[Entry]],
    registers: RegisterMap,
    *,
    context: int = 3,
) -> Iterator[str]:
    """Lines of a unified diff of two named traces; none when they are alike."""
    (first_name, first_entries), (second_name, second_entries) = first, second
    before, after = steps(first_entries, registers), steps(second_entries, registers)
    return difflib.unified_diff(before, after, first_name, second_name, n=context, lineterm="")
