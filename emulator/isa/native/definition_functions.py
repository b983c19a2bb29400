"""Library functions for definitions that are long in IR: "v_div_scale_f32.w32", …

The first tier calls them, which keeps its compile time in bounds; the second gets them inlined. They hold for the usual
float mode; in others the definition is written where the instruction stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from amdrv.emulator.isa.algebra import FloatMode
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.primitives import cast
from amdrv.emulator.isa.semantics import lookup
from amdrv.emulator.isa.semantics.definition import Definition

Kinds: TypeAlias = tuple[str, ...]

_FLOATS = ("f16", "f32", "f64")
# Mnemonics with the kinds of their values and of their results.
SIGNATURES: dict[str, tuple[Kinds, Kinds]] = {
    **{f"v_div_scale_{kind}": ((kind,) * 3, (kind, "bool")) for kind in ("f32", "f64")},
    **{f"v_div_fixup_{kind}": ((kind,) * 3, (kind,)) for kind in _FLOATS},
    **{f"v_{name}_class_{kind}": ((kind, "u32"), ("bool",)) for name in ("cmp", "cmpx") for kind in _FLOATS},
    **{f"v_frexp_mant_{kind}": ((kind,), (kind,)) for kind in _FLOATS},
    "v_qsad_pk_u16_u8": (("u64", "u32", "u64"), ("u64",)),
    "v_mqsad_pk_u16_u8": (("u64", "u32", "u64"), ("u64",)),
}


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    return [_function(mnemonic, lanes) for mnemonic in SIGNATURES]


def call_definition(algebra: LlvmAlgebra, definition: Definition, values: Sequence[Val]) -> tuple[Val, ...] | None:
    """The results of a definition, without clamp and output modifier, by a call; None when it is to be written out."""
    signature = SIGNATURES.get(definition.mnemonic)
    if signature is None or algebra.mode != FloatMode() or lookup(definition.mnemonic) is not definition:
        return None
    if not any(value.vector for value in values):
        return None
    builder, (kinds, results) = algebra.builder, signature
    arguments = [builder.spread(cast(value, kind)).typed for value, kind in zip(values, kinds, strict=True)]
    shape = _shape(builder, results)
    text = builder.call(f"{definition.mnemonic}.w{builder.lanes}", shape, arguments)
    values = [builder.value(kind, text, True) for kind in results]
    if len(results) > 1:
        values = [
            builder.value(kind, builder.emit(f"extractvalue {shape} {text}, {number}"), True)
            for number, kind in enumerate(results)
        ]
    return tuple(_unpacked(value) for value in values)


def _function(mnemonic: str, lanes: int) -> Function:
    """Truth values travel as a mask of the lanes."""
    definition = lookup(mnemonic)
    if definition is None:
        raise ValueError(f"{mnemonic} has no definition")
    builder, (kinds, kinds_out) = Builder(lanes), SIGNATURES[mnemonic]
    arguments = [builder.value(kind, f"%x{number}", True) for number, kind in enumerate(kinds)]
    found = definition.evaluate(LlvmAlgebra(builder, FloatMode()), *arguments)
    results = [_packed(value) for value in (found if isinstance(found, tuple) else (found,))]
    shape, whole = _shape(builder, kinds_out), results[0]
    if len(results) > 1:
        whole = f"{shape} poison"
        for number, result in enumerate(results):
            whole = f"{shape} {builder.emit(f'insertvalue {whole}, {result}, {number}')}"
    lines = "\n".join(builder.lines)
    head = f"define {shape} @{mnemonic}.w{lanes}({', '.join(argument.typed for argument in arguments)})"
    return Function(f"{head} {{\nentry:\n{lines}\nret {whole}\n}}", inline=True)


def _shape(builder: Builder, kinds: Kinds) -> str:
    types = [f"i{builder.lanes}" if kind == "bool" else builder.type(kind, True) for kind in kinds]
    return types[0] if len(types) == 1 else f"{{ {', '.join(types)} }}"


def _packed(value: Val) -> str:
    """A result with its type, as the function gives it."""
    builder = value.builder
    value = builder.spread(value)
    if value.kind != "bool":
        return value.typed
    return f"i{builder.lanes} {builder.emit(f'bitcast {value.typed} to i{builder.lanes}')}"


def _unpacked(value: Val) -> Val:
    builder = value.builder
    if value.kind != "bool":
        return value
    return builder.value("bool", builder.emit(f"bitcast i{builder.lanes} {value.text} to <{builder.lanes} x i1>"), True)
