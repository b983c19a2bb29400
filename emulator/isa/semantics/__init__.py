"""Instruction semantics, written once over a value algebra; ``lookup`` finds a mnemonic's definition."""

from __future__ import annotations

from amdrv.emulator.isa.semantics import (
    compare,
    convert,
    cube,
    divide,
    matrix,
    packed,
    scalar,
    scalar_float,
    transcendental,
    vector_float,
    vector_integer,
    vector_short,
    video,
)
from amdrv.emulator.isa.semantics.definition import Definition
from amdrv.emulator.isa.semantics.modifiers import bind

__all__ = ["Definition", "bind", "definitions", "lookup"]

_FAMILIES = (
    scalar,
    scalar_float,
    compare,
    vector_integer,
    vector_short,
    vector_float,
    convert,
    transcendental,
    divide,
    video,
    cube,
    packed,
    matrix,
)
_BY_MNEMONIC = {definition.mnemonic: definition for module in _FAMILIES for definition in module.DEFINITIONS}


def lookup(mnemonic: str) -> Definition | None:
    """The definition of an ALU instruction, or None when an engine owns it (``ownership.ENGINE``) or nobody does.

    A half of a dual instruction is known by either name: "v_dual_add_f32" is "v_add_f32".
    """
    return _BY_MNEMONIC.get(mnemonic.replace("v_dual_", "v_", 1))


def definitions() -> tuple[Definition, ...]:
    """Every definition, in the order of the families."""
    return tuple(_BY_MNEMONIC.values())
