"""Matrix instructions: a wave multiplies two 16 x 16 matrices and adds a third (RDNA3 ISA manual, 7.9).

Row i of A lies in lanes i and i + 16 (and on, in wave64), column j of B in lanes j and j + 16, sixteen elements along k
packed into the registers. Register r of C and D holds row r * n + lane // 16, column lane % 16, n being the number of
16-lane groups in a wave. The wave's EXEC mask plays no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import halves, negate
from amdrv.emulator.isa.semantics.convert import from_bf16, to_bf16
from amdrv.emulator.isa.semantics.definition import Definition, Evaluate, family
from amdrv.emulator.isa.semantics.packed import DOT_ACCURACY, accumulator, element
from amdrv.emulator.isa.semantics.vector_integer import clamp_i32

Fields: TypeAlias = Mapping[str, int]

SIZE = 16  # rows, columns and depth


def _rows(registers: int) -> list[list[int]]:
    """For each register of C, the row of A (the lane that holds it) that each lane needs."""
    groups = SIZE // registers
    return [[register * groups + lane // SIZE for lane in range(SIZE * groups)] for register in range(registers)]


def _to_f32(a: Ops, x: Value, kind: str) -> Value:
    return from_bf16(a, x) if kind == "bf16" else a.to_float(a.f16(x), "f32")


def _float_elements(a: Ops, x: Value, kind: str, source: int, fields: Fields) -> list[Value]:
    """The sixteen elements that a lane holds of A or B, in f32; neg negates the even ones, neg_hi the odd ones."""
    flags = (fields.get("neg", 0) >> source & 1, fields.get("neg_hi", 0) >> source & 1)
    elements = []
    for register in a.registers(x):
        for half, flag in zip(halves(a, register, "u16"), flags, strict=True):
            value = _to_f32(a, half, kind)
            elements.append(negate(a, value, "f32") if flag else value)
    return elements


def _multiply_add(a: Ops, x: Value, y: Value, total: Value, kind: str, fields: Fields) -> Value:
    """A * B added to a stack of f32, one k after the other."""
    rows = _rows(len(a.registers(total)))
    left, right = (_float_elements(a, v, kind, source, fields) for source, v in enumerate((x, y)))
    for row_element, column_element in zip(left, right, strict=True):
        total = a.fma(a.lane_rows(row_element, rows), column_element, total)
    return total


def _to_single(kind: str) -> Evaluate:
    def evaluate(a: Ops, x: Value, y: Value, z: Value, fields: Fields) -> Value:
        return a.u32(_multiply_add(a, x, y, accumulator(a, a.f32(z), fields), kind, fields))

    return evaluate


def _to_short(kind: str) -> Evaluate:
    """16-bit C and D lie in the half of their registers that op_sel[2] names; D's other half keeps its value."""

    def evaluate(a: Ops, x: Value, y: Value, z: Value, old: Value, fields: Fields) -> Value:
        shift = 16 if fields.get("opsel", 0) & 4 else 0
        total = accumulator(a, _to_f32(a, a.u16(a.u32(z) >> shift), kind), fields)
        total = _multiply_add(a, x, y, total, kind, fields)
        result = to_bf16(a, total) if kind == "bf16" else a.u16(a.to_float(total, "f16"))
        return a.u32(old) & (0xFFFF0000 >> shift) | a.u32(result) << shift

    return evaluate


def _integer_elements(a: Ops, x: Value, bits: int, signed: bool) -> list[Value]:
    """The sixteen elements that a lane holds of A or B, as i32."""
    return [element(a, register, n, bits, signed) for register in a.registers(x) for n in range(32 // bits)]


def _to_integer(bits: int, saturate: bool) -> Evaluate:
    """neg[0] and neg[1] say which of A and B is signed."""

    def evaluate(a: Ops, x: Value, y: Value, z: Value, fields: Fields) -> Value:
        neg = fields.get("neg", 0)
        rows = _rows(len(a.registers(z)))
        left = _integer_elements(a, x, bits, bool(neg & 1))
        right = _integer_elements(a, y, bits, bool(neg & 2))
        products = a.lane_rows(left[0], rows) * right[0]
        for row_element, column_element in zip(left[1:], right[1:], strict=True):
            products = products + a.lane_rows(row_element, rows) * column_element
        if saturate:
            return a.u32(clamp_i32(a, a.i64(products) + a.i64(a.i32(z))))
        return a.u32(products + a.i32(z))

    return evaluate


INTEGER = {"v_wmma_i32_16x16x16_iu8": 8, "v_wmma_i32_16x16x16_iu4": 4}

# Float matrix instructions have no clamp; the bit changes nothing.
SINGLE: dict[str, Evaluate] = {f"v_wmma_f32_16x16x16_{kind}": _to_single(kind) for kind in ("f16", "bf16")}
SHORT: dict[str, Evaluate] = {f"v_wmma_{kind}_16x16x16_{kind}": _to_short(kind) for kind in ("f16", "bf16")}

DEFINITIONS: list[Definition] = [
    *family(SINGLE, reads=("fields",), accuracy=DOT_ACCURACY, saturating=SINGLE),
    *family(SHORT, reads=("old", "fields"), accuracy=DOT_ACCURACY, saturating=SHORT),
    *family(
        {mnemonic: _to_integer(bits, False) for mnemonic, bits in INTEGER.items()},
        reads=("fields",),
        saturating={mnemonic: _to_integer(bits, True) for mnemonic, bits in INTEGER.items()},
    ),
]
