"""Matrix instructions of gfx12: what ``semantics.matrix_gfx12`` says, as functions of the module that uses them.

Usually a function gets pointers to registers in memory (ptr a, ptr b, ptr c or index, [ptr old,] ptr d); where an
operand is no allocated vector register, it gets and gives all of them by value. EXEC plays no part.

The usual products of 16-bit floats have a body of their own: sixteen columns in a vector, row i of D gains the
broadcast A[i][k] times row k of B, for each k in the definition's order. All else is the definition, evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from amdrv.emulator.isa.alu import in_wave_shape
from amdrv.emulator.isa.instruction import Instruction, Kind
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.native.frame import Frame
from amdrv.emulator.isa.native.matrix_functions import (
    Split,
    called,
    cut,
    function_text,
    fused,
    is_usual,
    joined,
    split_bf16,
    split_f16,
    stored,
)
from amdrv.emulator.isa.native.operands import in_range, read_registers
from amdrv.emulator.isa.native.primitives import cast
from amdrv.emulator.isa.native.stack import Stack
from amdrv.emulator.isa.native.stack_algebra import StackAlgebra
from amdrv.emulator.isa.semantics import lookup
from amdrv.emulator.isa.semantics.definition import Definition
from amdrv.emulator.isa.semantics.matrix_gfx12 import PARTS, SIZE
from amdrv.emulator.isa.semantics.modifiers import bind

_Make: TypeAlias = Callable[[Builder, str], str]  # (inside of a function, its name) -> its text

# How elements are taken from a register, of products with a body of their own.
SPLITS: dict[str, Split] = {"v_wmma_f32_16x16x16_f16": split_f16, "v_wmma_f32_16x16x16_bf16": split_bf16}


def call_matrix(frame: Frame, instruction: Instruction, algebra: LlvmAlgebra) -> None:
    """Write a dense or sparse matrix instruction; one whose destination is not allocated does nothing."""
    instruction = in_wave_shape(instruction, frame.lanes, frame.generation)
    definition = lookup(instruction.mnemonic, frame.generation.name)
    if definition is None or not in_range(instruction, frame.vgprs):
        return
    target = instruction.dst[0]
    operands = [*instruction.src, *([target] if "old" in definition.reads else [])]
    sizes = [(operand, operand.bits // 32) for operand in operands]
    product = _Product(definition, instruction.fields, algebra, [count for _, count in sizes])
    rows = target.bits // 32
    if all(operand.kind == Kind.VGPR and operand.index + count <= frame.vgprs for operand, count in sizes):
        places = [frame.vgprs_in_memory(operand.index, count) for operand, count in sizes]
        places.append(frame.vgprs_in_memory(target.index, rows, reads="old" in definition.reads))
        frame.builder.call(product.in_memory(), "void", [f"ptr {place}" for place in places])
        frame.wrote_memory(target.index, rows)
        return
    values = [frame.builder.spread(value) for size in sizes for value in read_registers(frame, *size)]
    for row, value in enumerate(called(frame.builder, product.by_value(), values, rows)):
        frame.set_vgpr_all(target.index + row, value)


class _Product:
    """One instruction's function, for its modifiers and float mode; ``counts`` are the operands' registers."""

    def __init__(
        self, definition: Definition, fields: Mapping[str, int], algebra: LlvmAlgebra, counts: Sequence[int]
    ) -> None:
        self._definition, self._fields, self._algebra, self._counts = definition, dict(fields), algebra, counts
        modifiers = "_".join(str(fields.get(name, 0)) for name in ("neg", "neg_hi", "opsel", "clamp"))
        self._name = f"{definition.mnemonic}_{modifiers}_{hash(algebra.mode) & (1 << 64) - 1:x}"

    def in_memory(self) -> str:
        """The name of the function that works on registers in memory, which may overlap."""
        name = f"{self._name}.mem.w{self._algebra.builder.lanes}"
        if name not in self._algebra.builder.functions:
            self._write(name, self._in_memory)
        return name

    def by_value(self) -> str:
        """The name, without the wave's size, of the function that takes and gives registers."""
        name = f"{self._name}.w{self._algebra.builder.lanes}"
        if name not in self._algebra.builder.functions:
            self._write(name, self._by_value)
        return self._name

    def _write(self, name: str, make: _Make) -> None:
        outer = self._algebra.builder
        inner = Builder(outer.lanes)
        text = make(inner, name)
        outer.functions |= inner.functions
        outer.uses |= inner.uses
        outer.functions[name] = text

    def _in_memory(self, inner: Builder, name: str) -> str:
        kind = f"<{inner.lanes} x i32>"
        arguments = [
            inner.value("u32", inner.emit(f"load {kind}, ptr {_at(inner, f'%x{operand}', number)}, align 64"), True)
            for operand, count in enumerate(self._counts)
            for number in range(count)
        ]
        for number, value in enumerate(self._evaluate(inner, arguments)):
            inner.do(f"store {cast(value, 'u32').typed}, ptr {_at(inner, '%d', number)}, align 64")
        pointers = ", ".join([*(f"ptr %x{number}" for number in range(len(self._counts))), "ptr %d"])
        lines = "\n".join(inner.lines)
        return f"define internal void @{name}({pointers}) nounwind {{\nentry:\n{lines}\nret void\n}}"

    def _by_value(self, inner: Builder, name: str) -> str:
        arguments = [inner.value("u32", f"%x{number}", True) for number in range(sum(self._counts))]
        return function_text(inner, f"internal {{}} @{name}", arguments, self._evaluate(inner, arguments))

    def _evaluate(self, inner: Builder, arguments: Sequence[Val]) -> Sequence[Val]:
        split = SPLITS.get(self._definition.mnemonic)
        if split and is_usual(self._algebra.mode) and not (self._fields.get("neg") or self._fields.get("neg_hi")):
            return _usual_product(inner, arguments, split)
        rest = iter(arguments)
        stacks = [Stack([next(rest) for _ in range(count)]) for count in self._counts]
        evaluate = bind(self._definition, self._fields, "")
        result = evaluate(StackAlgebra(inner, self._algebra.mode), *stacks, self._fields)
        if not isinstance(result, Stack):
            raise TypeError(f"{self._definition.mnemonic} gives no registers")
        return result.values


def _usual_product(builder: Builder, arguments: Sequence[Val], split: Split) -> Sequence[Val]:
    """D's registers from those of A, B and C; both halves of a register of A or B are elements along the depth."""
    lanes, per_lane = builder.lanes, SIZE * SIZE // builder.lanes
    count = (len(arguments) - per_lane) // 2
    left, right = arguments[:count], arguments[count : 2 * count]
    shape = f"<{SIZE} x float>"
    texts = [text for register in left for text in split(builder, register.text, lanes)]
    place = stored(builder, texts, f"<{lanes} x float>")
    columns = [text for register in right for text in split(builder, register.text, lanes)]
    parts = PARTS[lanes // SIZE]
    totals: dict[int, str] = {}  # by row
    for number, register in enumerate(arguments[2 * count :]):
        for group, part in enumerate(parts):
            totals[per_lane * part + number] = cut(builder, cast(register, "f32"), SIZE * group, SIZE)
    for group in range(len(parts)):
        for k, column in enumerate(columns):
            whole = builder.value("f32", column, True)
            row_of_b = cut(builder, whole, SIZE * group, SIZE)
            for row in range(SIZE):
                at = builder.emit(f"getelementptr float, ptr {place}, i64 {lanes * k + SIZE * group + row}")
                element = builder.emit(f"load float, ptr {at}, align 4")
                single = builder.emit(f"insertelement {shape} poison, float {element}, i64 0")
                spread = builder.emit(f"shufflevector {shape} {single}, {shape} poison, <{SIZE} x i32> zeroinitializer")
                totals[row] = fused(builder, shape, spread, row_of_b, totals[row])
    return [joined(builder, "f32", [totals[per_lane * part + n] for part in parts]) for n in range(per_lane)]


def _at(builder: Builder, base: str, number: int) -> str:
    return builder.emit(f"getelementptr <{builder.lanes} x i32>, ptr {base}, i64 {number}")
