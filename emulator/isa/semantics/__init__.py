"""Instruction semantics, written once over a value algebra; ``lookup`` finds a mnemonic's definition."""

from __future__ import annotations

from amdrv.emulator.isa.semantics import (
    compare,
    convert,
    cube,
    divide,
    dot_gfx11,
    dot_gfx12,
    extrema,
    float8,
    gfx12,
    matrix,
    matrix_gfx12,
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
)
# What a generation adds to the families, or has under the same name with another meaning (its matrices).
_OF_GENERATION = {"gfx11": (matrix, dot_gfx11), "gfx12": (matrix_gfx12, dot_gfx12, extrema, float8, gfx12)}
_BY_MNEMONIC = {
    generation: {item.mnemonic: item for module in (*_FAMILIES, *further) for item in module.DEFINITIONS}
    for generation, further in _OF_GENERATION.items()
}


def lookup(mnemonic: str, generation: str = "gfx11") -> Definition | None:
    """The definition of an ALU instruction, or None when an engine owns it (``ownership.ENGINE``) or nobody does.

    A half of a dual instruction is known by either name: "v_dual_add_f32" is "v_add_f32". What only other generations
    have may be found too: the decoder never asks for it.
    """
    return _BY_MNEMONIC[generation].get(mnemonic.replace("v_dual_", "v_", 1))


def definitions(generation: str = "gfx11") -> tuple[Definition, ...]:
    """Every definition that ``lookup`` finds, in the order of the families."""
    return tuple(_BY_MNEMONIC[generation].values())
