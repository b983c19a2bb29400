"""Comparisons that packets ask for, by their number."""

from __future__ import annotations

from collections.abc import Callable

from amdrv.facts.pm4 import CompareFunction

COMPARE: dict[int, Callable[[int, int], bool]] = {
    CompareFunction.ALWAYS: lambda value, reference: True,
    CompareFunction.LESS: lambda value, reference: value < reference,
    CompareFunction.LESS_EQUAL: lambda value, reference: value <= reference,
    CompareFunction.EQUAL: lambda value, reference: value == reference,
    CompareFunction.NOT_EQUAL: lambda value, reference: value != reference,
    CompareFunction.GREATER_EQUAL: lambda value, reference: value >= reference,
    CompareFunction.GREATER: lambda value, reference: value > reference,
}
