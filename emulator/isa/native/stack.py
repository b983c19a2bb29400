"""Values of several registers: operands of more than 64 bits, and an algebra that works on all registers at once."""

from __future__ import annotations

from collections.abc import Sequence

from amdrv.emulator.isa.native.builder import Val


class Stack(Val):
    """One value for each register; with a single value an operator means one operation for each register."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[Val]) -> None:
        self.values = list(values)
        first = self.values[0]
        super().__init__(first.builder, first.kind, "", True, None)

    def _binary(self, operation: str, x: Val, y: Val) -> Val:
        return Stack([left._binary(operation, left, right) for left, right in aligned(x, y)])


def aligned(*values: Val) -> list[tuple[Val, ...]]:
    """The operands of each register's operation."""
    count = max(len(value.values) for value in values if isinstance(value, Stack))
    rows = [value.values if isinstance(value, Stack) else [value] * count for value in values]
    return list(zip(*rows, strict=True))
