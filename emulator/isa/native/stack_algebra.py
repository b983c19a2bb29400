"""The algebra over stacks: what the matrix definitions need, one operation for each register."""

from __future__ import annotations

from collections.abc import Callable

from amdrv.emulator.isa.algebra import Rounding
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Val
from amdrv.emulator.isa.native.stack import Stack, aligned


def _each(function: Callable[..., Val], *operands: Val | int) -> Val:
    if not any(isinstance(operand, Stack) for operand in operands):
        return function(*operands)
    return Stack([function(*row) for row in aligned(*operands)])


class StackAlgebra(LlvmAlgebra):
    """An algebra some of whose operands are stacks; the operations that no matrix instruction uses take none."""

    def cast(self, x: Val, kind: str) -> Val:
        usual = super().cast
        return _each(lambda value: usual(value, kind), x)

    def select(self, condition: Val, x: Val | int, y: Val | int) -> Val:
        return _each(super().select, condition, x, y)

    def eq(self, x: Val, y: Val | int) -> Val:
        return _each(super().eq, x, y)

    def lt(self, x: Val, y: Val | int) -> Val:
        return _each(super().lt, x, y)

    def min(self, x: Val, y: Val | int) -> Val:
        return _each(super().min, x, y)

    def max(self, x: Val, y: Val | int) -> Val:
        return _each(super().max, x, y)

    def fma(self, x: Val, y: Val, z: Val) -> Val:
        return _each(super().fma, x, y, z)

    def to_float(self, x: Val, kind: str, rounding: Rounding | None = None) -> Val:
        usual = super().to_float
        return _each(lambda value: usual(value, kind, rounding), x)
