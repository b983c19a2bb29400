"""The functions of the library, from all the files that have some."""

from __future__ import annotations

from amdrv.emulator.isa.native import (
    atomics,
    buffers,
    definition_functions,
    extrema,
    global_memory,
    lane_exchange,
    lds,
    math_functions,
    matrix_functions,
    scalar_memory,
    wide,
    workgroups,
)
from amdrv.emulator.isa.native.library import Function

_PROVIDERS = (
    workgroups,
    wide,
    global_memory,
    scalar_memory,
    lds,
    buffers,
    atomics,
    lane_exchange,
    extrema,
    math_functions,
    definition_functions,
    matrix_functions,
)


def library_functions(lanes: int) -> list[Function]:
    """Every function for one wave size."""
    return [function for provider in _PROVIDERS for function in provider.functions(lanes)]
