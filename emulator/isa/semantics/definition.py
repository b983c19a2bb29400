"""The form in which an instruction's meaning is written once: a function over a value algebra.

A definition says what an ALU instruction computes, never how registers are read, masked or written: the engine
(interpreter or translator) fetches the typed sources, calls ``evaluate`` and stores what comes back. Memory, LDS,
control flow and instructions that name lanes or registers by number are not ALU definitions; the engines implement
them beside their memory (``ownership.ENGINE`` lists them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from amdrv.emulator.isa.algebra import Ops, Value

Evaluate: TypeAlias = Callable[..., object]
Unary: TypeAlias = Callable[[Ops, Value], Value]
Binary: TypeAlias = Callable[[Ops, Value, Value], Value]
Ternary: TypeAlias = Callable[[Ops, Value, Value, Value], Value]


@dataclass(frozen=True, slots=True)
class Definition:
    """One instruction's meaning.

    ``evaluate(algebra, *values)`` receives the explicit sources in the order of the operand table, then the inputs
    named in ``reads``. It returns one value, or a tuple in the order of ``writes``.

    Sources are typed as the operand says (a 'b' type as unsigned, bf16 as u16), with modifiers and halves applied; a
    mask operand is a truth value per lane. A packed operand (several elements of a smaller type) of 32 or 64 bits comes
    as an unmodified u32 or u64; every operand of a matrix instruction, and any of more than 64 bits, as the stack of
    its registers, u32 of shape (registers, waves, lanes), in the number that the wave size asks for. Modifiers of both
    are in "fields" and are applied here. Results of that size come back the same way.

    Names usable in ``reads``: "scc" (truth value per wave), "vcc" (truth value per lane), "exec" (of a scalar
    instruction: the register as u32 or u64, whichever its first destination is), "old" (the first destination's
    previous value, typed as the destination), "lane" (lane number, u32), "fields" (the Instruction's raw fields, a
    dict: the only non-value input).
    Names usable in ``writes``: "dst" (the first destination), "dst1" (the second: carry-out, or the other register of a
    swap), "scc" (a truth value), "exec" (a truth value per lane; from a scalar instruction the register's bits).
    A truth value written to a lane mask is packed by the engine into SGPR bits, with zeroes for inactive lanes. The
    width of a result is the width of the store: a 16-bit result leaves the other half of a VGPR alone.

    ``saturating`` replaces ``evaluate`` when the clamp bit of an integer instruction is set. Clamp and output modifier
    of float instructions are applied by ``modifiers.bind``, which also makes this choice.
    """

    mnemonic: str
    evaluate: Evaluate
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ("dst",)
    accuracy: str = "exact"  # or "approximate: <bound>"
    saturating: Evaluate | None = None


def typed(function: Evaluate, *kinds: str) -> Evaluate:
    """``function`` with its first ``len(kinds)`` values read as those kinds; the rest pass as they are."""
    count = len(kinds)
    # The usual numbers of values are spelled out: this stands in the way of every instruction that is interpreted.
    if count == 1:
        (only,) = kinds
        return lambda a, x, *rest: function(a, a.cast(x, only), *rest)
    if count == 2:
        first, second = kinds
        return lambda a, x, y, *rest: function(a, a.cast(x, first), a.cast(y, second), *rest)

    def evaluate(a: Ops, *values: Value) -> object:
        return function(a, *(a.cast(value, kind) for value, kind in zip(values, kinds, strict=False)), *values[count:])

    return evaluate


def family(
    table: Mapping[str, Evaluate],
    *kinds: str,
    reads: tuple[str, ...] = (),
    writes: tuple[str, ...] = ("dst",),
    accuracy: str = "exact",
    saturating: Mapping[str, Evaluate] | None = None,
) -> list[Definition]:
    """Definitions of a table's mnemonics, which read their values as ``kinds`` (one for each value)."""
    saturating = saturating or {}
    return [
        Definition(
            mnemonic,
            typed(function, *kinds),
            reads,
            writes,
            accuracy,
            typed(saturating[mnemonic], *kinds) if mnemonic in saturating else None,
        )
        for mnemonic, function in table.items()
    ]
