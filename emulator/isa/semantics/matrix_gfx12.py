"""Matrix instructions of gfx12: every element is in one lane only, and the depth is divided among groups of 16 lanes.

Lane l holds a part of row (A) or column (B) l % 16. Which part of the depth each group has makes no difference: it is
the same in A and B. With m elements of C or D in a lane, element e of lane l is row m * g + e, column l % 16, where g
is the lane's group (l // 16) in wave32; of the four groups of a wave64 the second has the third quarter of the rows and
the third the second. 16-bit elements lie in pairs. EXEC plays no part. Sources: AMD GPUOpen, "Using the Matrix Cores of
AMD RDNA 4 architecture GPUs"; Mesa, radv_nir_lower_cooperative_matrix.c.

In a sparse instruction A holds two of every four elements along the depth; the index register of its lane says, in two
bits an element, which of the four each is. ``index_key`` (op_sel) picks the part of that register.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import halves, negate, pair
from amdrv.emulator.isa.semantics.convert import from_bf16, to_bf16
from amdrv.emulator.isa.semantics.definition import Definition, Evaluate, family
from amdrv.emulator.isa.semantics.float8 import LAYOUTS, to_f32
from amdrv.emulator.isa.semantics.packed import DOT_ACCURACY, accumulator, element
from amdrv.emulator.isa.semantics.vector_integer import clamp_i32

Fields: TypeAlias = Mapping[str, int]
Elements: TypeAlias = Sequence[Value]  # what a lane holds, one value each
Multiply: TypeAlias = Callable[[Value, Value, Value], Value]  # (left, right, total) -> total

SIZE = 16  # rows, columns, and lanes of a group


# By the number of groups: which part of the rows of C each group holds.
PARTS = {2: (0, 1), 4: (0, 2, 1, 3)}


def _lanes_of_rows(per_lane: int, group: int) -> list[list[int]]:
    """For each element of C, the lane of ``group`` that holds the row of A that each lane needs."""
    parts = PARTS[SIZE // per_lane]
    first_rows = [per_lane * part for part in parts for _ in range(SIZE)]
    return [[first + row + SIZE * group for first in first_rows] for row in range(per_lane)]


def _lanes_of_columns(per_lane: int, group: int) -> list[list[int]]:
    lanes = SIZE * (SIZE // per_lane)
    return [[lane % SIZE + SIZE * group for lane in range(lanes)]] * per_lane


def _dense(a: Ops, left: Elements, right: Elements, total: Value, multiply: Multiply) -> Value:
    """A * B added to a stack of C's elements."""
    per_lane = len(a.registers(total))
    for group in range(SIZE // per_lane):
        rows, columns = _lanes_of_rows(per_lane, group), _lanes_of_columns(per_lane, group)
        for x, y in zip(left, right, strict=True):
            total = multiply(a.lane_rows(x, rows), a.lane_rows(y, columns), total)
    return total


def _sparse(a: Ops, left: Elements, right: Elements, index: Value, total: Value, multiply: Multiply) -> Value:
    """As ``_dense``, where elements 2 * n and 2 * n + 1 of A stand for two of the elements 4 * n to 4 * n + 3."""
    per_lane = len(a.registers(total))
    for group in range(SIZE // per_lane):
        rows, columns = _lanes_of_rows(per_lane, group), _lanes_of_columns(per_lane, group)
        for number, x in enumerate(left):
            place = a.lane_rows(index >> 2 * number & 3, rows)
            first, *others = (a.lane_rows(y, columns) for y in right[number // 2 * 4 : number // 2 * 4 + 4])
            for position, y in enumerate(others, start=1):
                first = a.select(a.eq(place, position), y, first)
            total = multiply(a.lane_rows(x, rows), first, total)
    return total


def _index(a: Ops, x: Value, elements: int, fields: Fields) -> Value:
    """The part of the index register that ``index_key`` names: two bits for each element of A."""
    (register,) = a.registers(x)
    bits = 2 * elements
    return a.u32(register) >> bits * (fields.get("opsel", 0) & 32 // bits - 1)


def _floats(a: Ops, x: Value, kind: str, source: int, fields: Fields) -> Elements:
    """What a lane holds of A or B, as f32; of 16-bit ones neg negates the even, neg_hi the odd ones."""
    if kind in LAYOUTS:
        return [to_f32(a, register >> shift, kind) for register in a.registers(x) for shift in (0, 8, 16, 24)]
    flags = (fields.get("neg", 0) >> source & 1, fields.get("neg_hi", 0) >> source & 1)
    values = []
    for register in a.registers(x):
        for half, flag in zip(halves(a, register, "u16"), flags, strict=True):
            value = from_bf16(a, half) if kind == "bf16" else a.to_float(a.f16(half), "f32")
            values.append(negate(a, value, "f32") if flag else value)
    return values


def _integers(a: Ops, x: Value, bits: int, per_lane: int, signed: bool) -> Elements:
    return [element(a, register, n, bits, signed) for register in a.registers(x) for n in range(32 // bits)][:per_lane]


def _unpacked(a: Ops, x: Value, kind: str) -> Value:
    """16-bit elements of C in pairs, as a stack of f32, one element each."""
    values = [half for register in a.registers(x) for half in halves(a, register, "u16")]
    return a.stack([from_bf16(a, v) if kind == "bf16" else a.to_float(a.f16(v), "f32") for v in values])


def _packed(a: Ops, x: Value, kind: str) -> Value:
    values = [to_bf16(a, v) if kind == "bf16" else a.u16(a.to_float(v, "f16")) for v in a.registers(x)]
    return a.stack([pair(a, low, high) for low, high in zip(values[::2], values[1::2], strict=True)])


def _float_product(result: str, kinds: tuple[str, str]) -> Evaluate:
    """V_WMMA with float results."""

    def evaluate(a: Ops, x: Value, y: Value, z: Value, fields: Fields) -> Value:
        total = accumulator(a, a.f32(z) if result == "f32" else _unpacked(a, z, result), fields)
        left, right = (_floats(a, v, kinds[source], source, fields) for source, v in enumerate((x, y)))
        total = _dense(a, left, right, total, a.fma)
        return a.u32(total) if result == "f32" else _packed(a, total, result)

    return evaluate


def _sparse_float_product(result: str, kinds: tuple[str, str]) -> Evaluate:
    """V_SWMMAC with float results; D is C."""

    def evaluate(a: Ops, x: Value, y: Value, index: Value, old: Value, fields: Fields) -> Value:
        total = a.f32(old) if result == "f32" else _unpacked(a, old, result)
        left, right = (_floats(a, v, kinds[source], source, fields) for source, v in enumerate((x, y)))
        total = _sparse(a, left, right, _index(a, index, len(left), fields), total, a.fma)
        return a.u32(total) if result == "f32" else _packed(a, total, result)

    return evaluate


def _multiply_integers(left: Value, right: Value, total: Value) -> Value:
    return left * right + total


def _finished(a: Ops, products: Value, addend: Value, saturate: bool) -> Value:
    if saturate:
        return a.u32(clamp_i32(a, a.i64(products) + a.i64(a.i32(addend))))
    return a.u32(products + a.i32(addend))


def _integer_product(bits: int, depth: int, saturate: bool) -> Evaluate:
    """V_WMMA_I32: neg[0] and neg[1] say which of A and B is signed."""

    def evaluate(a: Ops, x: Value, y: Value, z: Value, fields: Fields) -> Value:
        neg = fields.get("neg", 0)
        per_lane = depth * len(a.registers(z)) // SIZE
        left, right = (_integers(a, v, bits, per_lane, bool(neg >> n & 1)) for n, v in enumerate((x, y)))
        zero = a.i32(z) * 0
        return _finished(a, _dense(a, left, right, zero, _multiply_integers), z, saturate)

    return evaluate


def _sparse_integer_product(bits: int, depth: int, saturate: bool) -> Evaluate:
    """V_SWMMAC_I32; ``depth`` is that of B, of which A holds half."""

    def evaluate(a: Ops, x: Value, y: Value, index: Value, old: Value, fields: Fields) -> Value:
        neg = fields.get("neg", 0)
        per_lane = depth * len(a.registers(old)) // SIZE
        left = _integers(a, x, bits, per_lane // 2, bool(neg & 1))
        right = _integers(a, y, bits, per_lane, bool(neg & 2))
        zero = a.i32(old) * 0
        part = _index(a, index, len(left), fields)
        return _finished(a, _sparse(a, left, right, part, zero, _multiply_integers), old, saturate)

    return evaluate


_FLOATS = [("f32", ("f16", "f16")), ("f32", ("bf16", "bf16")), ("f16", ("f16", "f16")), ("bf16", ("bf16", "bf16"))]
_FLOATS += [("f32", (left, right)) for left in LAYOUTS for right in LAYOUTS]
_INTEGERS = ((8, 16), (4, 16), (4, 32))  # element width, depth; of a sparse one twice as deep


def _name(form: str, kinds: tuple[str, str]) -> str:
    return f"{form}_{'_'.join(kinds) if kinds[0] in LAYOUTS else kinds[0]}"


DENSE = {_name(f"v_wmma_{result}_16x16x16", kinds): _float_product(result, kinds) for result, kinds in _FLOATS}
SPARSE = {
    _name(f"v_swmmac_{result}_16x16x32", kinds): _sparse_float_product(result, kinds) for result, kinds in _FLOATS
}

Make: TypeAlias = Callable[[int, int, bool], Evaluate]


def _integer_table(form: str, factor: int, make: Make, saturate: bool) -> dict[str, Evaluate]:
    return {form.format(factor * depth, bits): make(bits, factor * depth, saturate) for bits, depth in _INTEGERS}


_DENSE_FORM, _SPARSE_FORM = "v_wmma_i32_16x16x{}_iu{}", "v_swmmac_i32_16x16x{}_iu{}"

# Float matrix instructions have no clamp; the bit changes nothing.
DEFINITIONS: list[Definition] = [
    *family(DENSE, reads=("fields",), accuracy=DOT_ACCURACY, saturating=DENSE),
    *family(SPARSE, reads=("old", "fields"), accuracy=DOT_ACCURACY, saturating=SPARSE),
    *family(
        _integer_table(_DENSE_FORM, 1, _integer_product, False),
        reads=("fields",),
        saturating=_integer_table(_DENSE_FORM, 1, _integer_product, True),
    ),
    *family(
        _integer_table(_SPARSE_FORM, 2, _sparse_integer_product, False),
        reads=("old", "fields"),
        saturating=_integer_table(_SPARSE_FORM, 2, _sparse_integer_product, True),
    ),
]
