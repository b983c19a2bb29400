"""Everything that units call is there, and LLVM accepts it."""

from __future__ import annotations

import pytest
from llvmlite import binding

from amdrv.emulator.isa.native.functions import library_functions
from amdrv.emulator.isa.native.library import METADATA, Library


@pytest.mark.parametrize("lanes", [32, 64])
def test_every_function_has_a_name_of_its_own_and_callees_that_exist(lanes: int) -> None:
    functions = library_functions(lanes)
    names = [function.name for function in functions]
    assert len(names) == len(set(names))
    called = {callee for function in functions for callee in function.calls if not callee.startswith("llvm.")}
    assert called <= set(names)


@pytest.mark.parametrize("lanes", [32, 64])
def test_every_function_is_well_formed(lanes: int) -> None:
    functions = library_functions(lanes)
    library = Library(functions)
    for function in functions:
        callees = library.prelude(function.calls, inline=False)
        context = binding.create_context()
        with binding.parse_assembly(f"{callees}\n{function.definition()}\n{METADATA}", context) as module:
            module.verify()
        context.close()
