"""Packed and mixed-precision instructions (VOP3P): two halves of a register at once, dot products, fused mixes.

The engine hands over whole registers; op_sel and op_sel_hi pick the half that each source gives to the low and to the
high result, neg and neg_hi negate it (RDNA3 ISA manual, 7.5). The integer dot products use neg as "signed".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import field, halves, negate, pair
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Evaluate, Ternary, family
from amdrv.emulator.isa.semantics.modifiers import clamp_packed
from amdrv.emulator.isa.semantics.vector_integer import clamp_i32, clamp_u32
from amdrv.emulator.isa.semantics.vector_short import (
    SIGNED_2,
    SIGNED_2_SATURATING,
    SIGNED_3,
    SIGNED_3_SATURATING,
    UNSIGNED_2,
    UNSIGNED_2_SATURATING,
    UNSIGNED_3,
    UNSIGNED_3_SATURATING,
)

Fields: TypeAlias = Mapping[str, int]
Halves: TypeAlias = list[Value]

DOT_ACCURACY = "approximate: one rounding for each product that is added, in an order that is not documented"


def packed_sources(a: Ops, kind: str, fields: Fields, *sources: Value) -> tuple[Halves, Halves]:
    """What the low and the high half of the result compute with, as values of a 16-bit kind."""
    low_select, high_select = fields.get("opsel", 0), fields.get("opsel_hi", 0b111)
    low_negate, high_negate = (fields.get("neg", 0), fields.get("neg_hi", 0)) if kind == "f16" else (0, 0)
    lows, highs = [], []
    for index, source in enumerate(sources):
        both = halves(a, source, kind)
        low, high = both[low_select >> index & 1], both[high_select >> index & 1]
        lows.append(negate(a, low, kind) if low_negate >> index & 1 else low)
        highs.append(negate(a, high, kind) if high_negate >> index & 1 else high)
    return lows, highs


def packed(kind: str, function: Callable[..., Value]) -> Evaluate:
    """An instruction that applies ``function`` to both halves."""

    def evaluate(a: Ops, *values: Value | Fields) -> Value:
        *sources, fields = values
        lows, highs = packed_sources(a, kind, fields, *sources)  # type: ignore[arg-type]
        return pair(a, function(a, *lows), function(a, *highs))

    return evaluate


FLOAT_OPERATIONS: dict[str, Binary | Ternary] = {
    "v_pk_add_f16": lambda a, x, y: a.add(x, y),
    "v_pk_mul_f16": lambda a, x, y: a.mul(x, y),
    "v_pk_min_f16": lambda a, x, y: a.min_num(x, y),
    "v_pk_max_f16": lambda a, x, y: a.max_num(x, y),
    "v_pk_fma_f16": lambda a, x, y, z: a.fma(x, y, z),
}
SHIFTS: dict[str, dict[str, Binary]] = {
    "u16": {
        "v_pk_lshlrev_b16": lambda a, n, x: x << (n & 15),
        "v_pk_lshrrev_b16": lambda a, n, x: x >> (n & 15),
    },
    "i16": {"v_pk_ashrrev_i16": lambda a, n, x: x >> (n & 15)},
}
# Scalar operation names of vector_short that have a packed form.
INTEGER_OPERATIONS = {"u16": ("add", "sub", "mul_lo", "min", "max", "mad"), "i16": ("add", "sub", "min", "max", "mad")}
INTEGER_TABLES: dict[str, Mapping[str, Callable[..., Value]]] = {
    "u16": {**UNSIGNED_2, **UNSIGNED_3},
    "i16": {**SIGNED_2, **SIGNED_3},
}
INTEGER_SATURATING: dict[str, Mapping[str, Callable[..., Value]]] = {
    "u16": {**UNSIGNED_2_SATURATING, **UNSIGNED_3_SATURATING},
    "i16": {**SIGNED_2_SATURATING, **SIGNED_3_SATURATING},
}


def _packed_integers() -> list[Definition]:
    definitions = []
    for kind, names in INTEGER_OPERATIONS.items():
        for name in names:
            saturating = INTEGER_SATURATING[kind].get(name)
            definitions.append(
                Definition(
                    f"v_pk_{name}_{kind}",
                    packed(kind, INTEGER_TABLES[kind][name]),
                    reads=("fields",),
                    saturating=packed(kind, saturating) if saturating else None,
                )
            )
    for kind, table in SHIFTS.items():
        definitions += family({m: packed(kind, function) for m, function in table.items()}, reads=("fields",))
    return definitions


def _packed_floats() -> list[Definition]:
    table = {mnemonic: packed("f16", function) for mnemonic, function in FLOAT_OPERATIONS.items()}
    clamped = {mnemonic: clamp_packed(function) for mnemonic, function in table.items()}
    fmac = packed("f16", lambda a, x, y, old: a.fma(x, y, old))
    return [
        *family(table, reads=("fields",), saturating=clamped),
        Definition("v_pk_fmac_f16", fmac, reads=("old", "fields"), saturating=clamp_packed(fmac)),
    ]


# Dot products of floats are in ``dot``.


def accumulator(a: Ops, x: Value, fields: Fields) -> Value:
    """The f32 accumulator, for which neg_hi means abs and neg negates."""
    if fields.get("neg_hi", 0) & 4:
        x = a.f32(a.u32(x) & 0x7FFFFFFF)
    return negate(a, x, "f32") if fields.get("neg", 0) & 4 else x


# Dot products of integers.


def element(a: Ops, x: Value, position: int, bits: int, signed: bool) -> Value:
    """Element ``position`` of a register of small integers, as i32."""
    up = 32 - bits * (position + 1)
    if signed:
        return a.i32(a.u32(x) << up) >> 32 - bits
    return a.i32(field(a.u32(x), bits * position + bits - 1, bits * position))


_STRAIGHT: Fields = {}


def _arranged(a: Ops, x: Value, index: int, fields: Fields) -> Value:
    """A source register with the halves that op_sel and op_sel_hi pick (RDNA3 ISA manual, 7.5.1)."""
    low, high = fields.get("opsel", 0) >> index & 1, fields.get("opsel_hi", 0b111) >> index & 1
    if (low, high) == (0, 1):
        return x
    both = halves(a, x, "u16")
    return pair(a, both[low], both[high])


def _dot_mixed(bits: int, saturate: bool) -> Evaluate:
    """V_DOT4_I32_IU8 and V_DOT8_I32_IU4: neg[0] and neg[1] say which source is signed."""

    def evaluate(a: Ops, x: Value, y: Value, addend: Value, fields: Fields) -> Value:
        neg = fields.get("neg", 0)
        x, y = _arranged(a, x, 0, fields), _arranged(a, y, 1, fields)
        total = a.i64(a.i32(addend))
        for n in range(32 // bits):
            product = element(a, x, n, bits, bool(neg & 1)) * element(a, y, n, bits, bool(neg & 2))
            total = total + a.i64(product)
        return clamp_i32(a, total) if saturate else a.i32(total)

    return evaluate


def _dot_unsigned(bits: int, saturate: bool) -> Evaluate:
    def evaluate(a: Ops, x: Value, y: Value, addend: Value, fields: Fields = _STRAIGHT) -> Value:
        x, y = _arranged(a, x, 0, fields), _arranged(a, y, 1, fields)
        total = a.u64(a.u32(addend))
        for n in range(32 // bits):
            product = element(a, x, n, bits, False) * element(a, y, n, bits, False)
            total = total + a.u64(product)
        return clamp_u32(a, total) if saturate else a.u32(total)

    return evaluate


def _fma_mix(result: str) -> Ternary:
    """A multiply-add whose sources arrive as f32 or f16, as op_sel_hi says.

    A result of 16 bits is not rounded to f32 first (rocjitsu, shared/fp_mode.h: fma_f32_to_f16).
    """
    kind = "f64" if result == "f16" else "f32"

    def evaluate(a: Ops, x: Value, y: Value, z: Value) -> Value:
        return a.to_float(a.fma(a.to_float(x, kind), a.to_float(y, kind), a.to_float(z, kind)), result)

    return evaluate


MIXES: dict[str, Ternary] = {
    "v_fma_mix_f32": _fma_mix("f32"),
    "v_fma_mixlo_f16": _fma_mix("f16"),
    "v_fma_mixhi_f16": _fma_mix("f16"),
}
MIXED_DOTS = {"v_dot4_i32_iu8": 8, "v_dot8_i32_iu4": 4}
UNSIGNED_DOTS = {"v_dot4_u32_u8": 8, "v_dot8_u32_u4": 4}

DEFINITIONS: list[Definition] = [
    *_packed_integers(),
    *_packed_floats(),
    *family(MIXES),
    *family(
        {mnemonic: _dot_mixed(bits, False) for mnemonic, bits in MIXED_DOTS.items()},
        reads=("fields",),
        saturating={mnemonic: _dot_mixed(bits, True) for mnemonic, bits in MIXED_DOTS.items()},
    ),
    *family(
        {mnemonic: _dot_unsigned(bits, False) for mnemonic, bits in UNSIGNED_DOTS.items()},
        reads=("fields",),
        saturating={mnemonic: _dot_unsigned(bits, True) for mnemonic, bits in UNSIGNED_DOTS.items()},
    ),
]
