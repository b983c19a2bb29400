"""Values of several registers: operands of more than 64 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from amdrv.emulator.isa.native.builder import Val

V = TypeVar("V")


class Stack(Val):
    """One value for each register; combined with a single value it means one operation for each register."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[Val]) -> None:
        self.values = list(values)
        first = self.values[0]
        super().__init__(first.builder, first.kind, "", True, None)

    def _binary(self, operation: str, x: Val, y: Val) -> Val:
        return Stack([left._binary(operation, left, right) for left, right in aligned(x, y)])


def aligned(*values: V) -> list[tuple[V, ...]]:
    """The operands of each register's operation; what is not a stack takes part in all of them."""
    count = max(len(value.values) for value in values if isinstance(value, Stack))
    rows: list[Sequence[V]] = [
        cast(Sequence[V], value.values) if isinstance(value, Stack) else [value] * count for value in values
    ]
    return list(zip(*rows, strict=True))
