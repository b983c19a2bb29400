"""Matrix instructions as functions ("v_wmma_f32_16x16x16_f16.w32", …) from the registers of A, B and C to those of D.

The library's functions compute what ``semantics.matrix`` says of the usual float mode, in the same order, sixteen
columns in a vector: row i of D gains the broadcast A[i][k] times row k of B, for each k. The modifiers change sign bits
only and are applied by the caller. In other float modes the definition itself is written as a function of the module.
"NAME.mem.w32(ptr a, ptr b, ptr c, ptr d)" is the usual case, without modifiers, of registers in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from amdrv.emulator.isa.algebra import FloatMode, Rounding
from amdrv.emulator.isa.instruction import Instruction, Kind, Operand
from amdrv.emulator.isa.native.algebra import LlvmAlgebra
from amdrv.emulator.isa.native.builder import Builder, Val
from amdrv.emulator.isa.native.frame import Frame
from amdrv.emulator.isa.native.library import Function
from amdrv.emulator.isa.native.operands import read_registers
from amdrv.emulator.isa.native.primitives import cast, constant, convert
from amdrv.emulator.isa.native.stack import Stack
from amdrv.emulator.isa.native.stack_algebra import StackAlgebra
from amdrv.emulator.isa.semantics import lookup
from amdrv.emulator.isa.semantics.convert import to_bf16
from amdrv.emulator.isa.semantics.matrix import INTEGER, SHORT, SINGLE, SIZE
from amdrv.emulator.isa.semantics.vector_integer import clamp_i32

CONVENTION = "x86_regcallcc"  # most of C and all of D travel in registers
# Writes the elements that each lane of a register holds, lowest first: (builder, register, lanes) -> texts.
Split: TypeAlias = Callable[[Builder, str, int], list[str]]
# A pointer to 32-bit elements, and which one is that of (k, row).
Elements: TypeAlias = tuple[str, Callable[[int, int], int]]


def functions(lanes: int) -> list[Function]:
    """The functions for one wave size."""
    result = [_float_function(mnemonic, lanes) for mnemonic in (*SINGLE, *SHORT)]
    result += [_in_memory(mnemonic, lanes) for mnemonic in SINGLE]
    return result + [_integer_function(mnemonic, lanes) for mnemonic in INTEGER]


# What is written at the instruction.


def call_matrix(frame: Frame, instruction: Instruction, algebra: LlvmAlgebra) -> None:
    """Write a matrix instruction; EXEC plays no part in it."""
    mnemonic, fields = instruction.mnemonic, instruction.fields
    rows = SIZE * SIZE // frame.lanes
    target, (x, y, z) = instruction.dst[0], instruction.src
    if target.index + rows > frame.vgprs:  # a destination that is not allocated: nothing happens
        return
    sizes = ((x, x.bits // 32), (y, y.bits // 32), (z, rows))
    plain = mnemonic in SINGLE and is_usual(algebra.mode) and not (fields.get("neg") or fields.get("neg_hi"))
    if plain and _call_in_memory(frame, mnemonic, target, sizes):
        return
    left, right, addend = ([frame.builder.spread(v) for v in read_registers(frame, *size)] for size in sizes)
    old = [frame.vgpr(target.index + row) for row in range(rows)] if mnemonic in SHORT else []
    results = matrix(algebra, mnemonic, fields, left, right, addend, old)
    for row, value in enumerate(results):
        frame.set_vgpr_all(target.index + row, value)


def _call_in_memory(frame: Frame, mnemonic: str, target: Operand, sizes: Sequence[tuple[Operand, int]]) -> bool:
    """The call with pointers to registers; False when some source is not in allocated vector registers."""
    rows = sizes[2][1]
    if any(operand.kind != Kind.VGPR or operand.index + count > frame.vgprs for operand, count in sizes):
        return False
    places = [frame.vgprs_in_memory(operand.index, count) for operand, count in sizes]
    places.append(frame.vgprs_in_memory(target.index, rows, reads=False))
    frame.builder.call(f"{mnemonic}.mem.w{frame.lanes}", "void", [f"ptr {place}" for place in places])
    frame.wrote_memory(target.index, rows)
    return True


def matrix(
    algebra: LlvmAlgebra,
    mnemonic: str,
    fields: dict[str, int],
    left: list[Val],
    right: list[Val],
    addend: list[Val],
    old: list[Val],
) -> list[Val]:
    """The registers of D from those of A, B and C (u32), and from D's old ones where half of each is kept."""
    if mnemonic in INTEGER:
        return _integer(algebra, mnemonic, fields, left, right, addend)
    if is_usual(algebra.mode) and not (mnemonic in SHORT and algebra.mode.saturate16):
        return _usual_float(algebra.builder, mnemonic, fields, left, right, addend, old)
    return _written_out(algebra, mnemonic, fields, [left, right, addend, *([old] if old else [])])


def is_usual(mode: FloatMode) -> bool:
    """Whether every float kind rounds to nearest even and keeps its denormals."""
    flushes = (mode.flush_inputs32, mode.flush_outputs32, mode.flush_inputs64, mode.flush_outputs64)
    return mode.round32 is mode.round64 is Rounding.NEAREST_EVEN and not any(flushes)


def _usual_float(
    builder: Builder,
    mnemonic: str,
    fields: dict[str, int],
    left: list[Val],
    right: list[Val],
    addend: list[Val],
    old: list[Val],
) -> list[Val]:
    """neg negates the even elements, neg_hi the odd ones; of C, neg_hi means abs."""
    neg, neg_hi = fields.get("neg", 0), fields.get("neg_hi", 0)
    signs = [(neg >> source & 1) << 15 | (neg_hi >> source & 1) << 31 for source in range(2)]
    left, right = ([register ^ sign for register in v] for v, sign in zip((left, right), signs, strict=True))
    shift = 16 if old and fields.get("opsel", 0) & 4 else 0
    sign = 1 << (15 if old else 31)
    addend = [register >> shift for register in addend]
    if neg_hi & 4:
        addend = [register & sign - 1 for register in addend]
    if neg & 4:
        addend = [register ^ sign for register in addend]
    results = called(builder, mnemonic, [*left, *right, *addend], len(addend))
    if not old:
        return results
    kept = 0xFFFF0000 >> shift
    return [before & kept | result << shift for before, result in zip(old, results, strict=True)]


def _integer(
    algebra: LlvmAlgebra,
    mnemonic: str,
    fields: dict[str, int],
    left: list[Val],
    right: list[Val],
    addend: list[Val],
) -> list[Val]:
    """neg[0] and neg[1] say which of A and B is signed: the function wants the sign bit of an element, or zero."""
    builder, neg = algebra.builder, fields.get("neg", 0)
    sign = 1 << INTEGER[mnemonic] - 1
    signs = [builder.constant("u32", sign * (neg >> source & 1)) for source in range(2)]
    products = called(builder, mnemonic, [*left, *right, *signs], len(addend))
    if not fields.get("clamp", 0):
        return [product + value for product, value in zip(products, addend, strict=True)]
    sums = [cast(cast(p, "i32"), "i64") + cast(cast(v, "i32"), "i64") for p, v in zip(products, addend, strict=True)]
    return [cast(clamp_i32(algebra, total), "u32") for total in sums]  # type: ignore[arg-type]


def called(builder: Builder, name: str, values: Sequence[Val], count: int) -> list[Val]:
    """What a function (without the wave's size in its name) makes of registers: an array of ``count`` of them."""
    shape = f"[{count} x {builder.type('u32', True)}]"
    text = builder.call(f"{name}.w{builder.lanes}", f"{CONVENTION} {shape}", [value.typed for value in values])
    return [builder.value("u32", builder.emit(f"extractvalue {shape} {text}, {n}"), True) for n in range(count)]


def _written_out(algebra: LlvmAlgebra, mnemonic: str, fields: dict[str, int], operands: list[list[Val]]) -> list[Val]:
    """The definition in any float mode and with its modifiers, as a function of the module."""
    builder = algebra.builder
    relevant = "_".join(str(fields.get(name, 0)) for name in ("neg", "neg_hi", "opsel"))
    mode = hash(algebra.mode) & (1 << 64) - 1
    name = f"{mnemonic}_{relevant}_{mode:x}"
    values = [value for registers in operands for value in registers]
    full = f"{name}.w{builder.lanes}"
    if full not in builder.functions:
        inner = Builder(builder.lanes)
        arguments = [inner.value("u32", f"%x{number}", True) for number in range(len(values))]
        rest = list(arguments)
        stacks = [Stack([rest.pop(0) for _ in registers]) for registers in operands]
        definition = lookup(mnemonic)
        if definition is None:
            raise ValueError(f"{mnemonic} has no definition")
        result = definition.evaluate(StackAlgebra(inner, algebra.mode), *stacks, fields)
        if not isinstance(result, Stack):
            raise TypeError(f"{mnemonic} gives no registers")
        builder.functions |= inner.functions
        builder.uses |= inner.uses
        builder.functions[full] = function_text(inner, f"internal {{}} @{full}", arguments, result.values)
    return called(builder, name, values, len(operands[2]))


def function_text(builder: Builder, head: str, arguments: Sequence[Val], results: Sequence[Val]) -> str:
    """A function from its arguments and results; ``head`` has a place for the type of what it gives."""
    shape = f"[{len(results)} x {builder.type('u32', True)}]"
    whole = "poison"
    for number, value in enumerate(results):
        whole = builder.emit(f"insertvalue {shape} {whole}, {cast(value, 'u32').typed}, {number}")
    lines = "\n".join(builder.lines)
    listed = ", ".join(argument.typed for argument in arguments)
    return f"define {head.format(f'{CONVENTION} {shape}')}({listed}) {{\nentry:\n{lines}\nret {shape} {whole}\n}}"


# The library's functions.


def _float_function(mnemonic: str, lanes: int) -> Function:
    """A, B and C in eight, eight and as many registers as D has; a 16-bit C and D in the lower halves."""
    builder = Builder(lanes)
    count = SIZE * SIZE // lanes
    arguments = [builder.value("u32", f"%x{number}", True) for number in range(16 + count)]
    results = _float_body(builder, mnemonic, arguments)
    return Function(function_text(builder, f"{{}} @{mnemonic}.w{lanes}", arguments, results))


def _in_memory(mnemonic: str, lanes: int) -> Function:
    """The same from registers in memory to registers in memory, which may overlap."""
    builder, kind = Builder(lanes), f"<{lanes} x i32>"
    rows = SIZE * SIZE // lanes

    def at(name: str, number: int) -> str:
        return builder.emit(f"getelementptr {kind}, ptr %{name}, i64 {number}")

    places = [at(name, number) for name, count in (("a", 8), ("b", 8), ("c", rows)) for number in range(count)]
    arguments = [builder.value("u32", builder.emit(f"load {kind}, ptr {place}, align 64"), True) for place in places]
    for number, value in enumerate(_float_body(builder, mnemonic, arguments)):
        builder.do(f"store {value.typed}, ptr {at('d', number)}, align 64")
    lines = "\n".join(builder.lines)
    head = f"define void @{mnemonic}.mem.w{lanes}(ptr %a, ptr %b, ptr %c, ptr %d) {{"
    return Function(f"{head}\nentry:\n{lines}\nret void\n}}")


def _float_body(builder: Builder, mnemonic: str, arguments: list[Val]) -> list[Val]:
    """The registers of D from those of A, B and C."""
    short, brain = mnemonic in SHORT, mnemonic.endswith("_bf16")
    addends = arguments[16:]
    if short and brain:
        addends = [register << 16 for register in addends]
    elif short:
        addends = [convert("fpext", cast(cast(register, "u16"), "f16"), "f32") for register in addends]
    left, right = arguments[:8], arguments[8:16]
    if brain:
        elements, rows = _store_elements(builder, left, "float", split_bf16), _rows(builder, right, split_bf16)
    else:
        elements, rows = _store_f16(builder, left), _rows(builder, right, split_f16)
    sums = _multiply(builder, elements, rows, [cast(v, "f32") for v in addends], "f32", fused)
    if short and brain:
        usual = LlvmAlgebra(builder, FloatMode())
        sums = [to_bf16(usual, value) for value in sums]  # type: ignore[arg-type, misc]
    elif short:
        sums = [cast(convert("fptrunc", value, "f16"), "u32") for value in sums]
    return [cast(value, "u32") for value in sums]


def _integer_function(mnemonic: str, lanes: int) -> Function:
    """A and B, and the sign bit of an element of A and of B, or zero when it is unsigned."""
    builder, bits = Builder(lanes), INTEGER[mnemonic]
    count = SIZE * bits // 32
    vectors = [builder.value("u32", f"%x{number}", True) for number in range(2 * count)]
    signs = [builder.value("u32", f"%sign{number}", False) for number in range(2)]
    left, right = (_split_integers(bits, builder.spread(sign)) for sign in signs)
    elements = _store_elements(builder, vectors[:count], "i32", left)
    zeros = [constant(vectors[0], "u32", 0)] * (SIZE * SIZE // lanes)
    sums = _multiply(builder, elements, _rows(builder, vectors[count:], right), zeros, "u32", _multiplied)
    return Function(function_text(builder, f"{{}} @{mnemonic}.w{lanes}", [*vectors, *signs], sums))


def split_f16(builder: Builder, register: str, lanes: int) -> list[str]:
    """The even and the odd elements of a register, as f32.

    A permutation of all halves at once is cheaper than cutting every lane's word.
    """
    shape = f"<{2 * lanes} x i16>"
    words = builder.emit(f"bitcast <{lanes} x i32> {register} to {shape}")
    elements = []
    for position in range(2):
        order = ", ".join(f"i32 {2 * lane + position}" for lane in range(lanes))
        halves = builder.emit(f"shufflevector {shape} {words}, {shape} poison, <{lanes} x i32> <{order}>")
        halves = builder.emit(f"bitcast <{lanes} x i16> {halves} to <{lanes} x half>")
        elements.append(builder.emit(f"fpext <{lanes} x half> {halves} to <{lanes} x float>"))
    return elements


def split_bf16(builder: Builder, register: str, lanes: int) -> list[str]:
    """The even and the odd elements of a register, as f32."""
    shape = f"<{lanes} x i32>"
    words = (
        builder.emit(f"shl {shape} {register}, splat (i32 16)"),
        builder.emit(f"and {shape} {register}, splat (i32 {0xFFFF0000})"),
    )
    return [builder.emit(f"bitcast {shape} {word} to <{lanes} x float>") for word in words]


def _split_integers(bits: int, sign: Val) -> Split:
    def split(builder: Builder, register: str, lanes: int) -> list[str]:
        shape, bit = f"<{lanes} x i32>", cut(builder, sign, 0, lanes)
        elements = []
        for position in range(0, 32, bits):
            moved = builder.emit(f"lshr {shape} {register}, splat (i32 {position})")
            field = builder.emit(f"and {shape} {moved}, splat (i32 {(1 << bits) - 1})")
            flipped = builder.emit(f"xor {shape} {field}, {bit}")
            elements.append(builder.emit(f"sub {shape} {flipped}, {bit}"))
        return elements

    return split


def _store_elements(builder: Builder, registers: Sequence[Val], element: str, split: Split) -> Elements:
    """The elements of A that sixteen lanes hold, in memory: all lanes of an element, then those of the next one.

    The stores are volatile, so that LLVM leaves them in memory: from there a broadcast to all columns costs nothing.
    """
    texts = [text for register in registers for text in split(builder, cut(builder, register, 0, SIZE), SIZE)]
    return stored(builder, texts, f"<{SIZE} x {element}>"), lambda k, row: SIZE * k + row


def _store_f16(builder: Builder, registers: Sequence[Val]) -> Elements:
    """Elements of A that are f16, in memory as f32: both of a register's lane, then those of the next lane."""
    texts = []
    for register in registers:
        pairs = builder.emit(f"bitcast <{SIZE} x i32> {cut(builder, register, 0, SIZE)} to <{2 * SIZE} x half>")
        texts.append(builder.emit(f"fpext <{2 * SIZE} x half> {pairs} to <{2 * SIZE} x float>"))
    place = stored(builder, texts, f"<{2 * SIZE} x float>")
    return place, lambda k, row: 2 * SIZE * (k // 2) + 2 * row + k % 2


def stored(builder: Builder, texts: Sequence[str], shape: str) -> str:
    """A pointer to values of a type that lie one behind the other."""
    place = builder.emit(f"alloca [{len(texts)} x {shape}], align 64")
    for number, text in enumerate(texts):
        at = builder.emit(f"getelementptr {shape}, ptr {place}, i64 {number}")
        builder.do(f"store volatile {shape} {text}, ptr {at}, align 64")
    return place


def cut(builder: Builder, value: Val, first: int, count: int) -> str:
    """Some lanes of a value as a shorter vector."""
    if count == builder.lanes:
        return value.text
    lanes = ", ".join(f"i32 {lane}" for lane in range(first, first + count))
    return builder.emit(f"shufflevector {value.typed}, {value.typed}, <{count} x i32> <{lanes}>")


def _rows(builder: Builder, registers: Sequence[Val], split: Split) -> list[list[str]]:
    """The rows of B, in the order of k: one vector for each group of sixteen lanes."""
    rows = []
    for register in registers:
        parts = [cut(builder, register, first, SIZE) for first in range(0, builder.lanes, SIZE)]
        rows += [list(row) for row in zip(*(split(builder, part, SIZE) for part in parts), strict=True)]
    return rows


def _multiply(
    builder: Builder,
    elements: Elements,
    columns: Sequence[list[str]],
    addends: Sequence[Val],
    kind: str,
    multiply_add: Callable[[Builder, str, str, str, str], str],
) -> list[Val]:
    """The registers of D: each of its rows is a vector that gains A[row][k] * B[k] for one k after the other.

    ``elements`` are those of A, ``columns`` the rows of B, in as many vectors as a register has groups of sixteen
    lanes. ``multiply_add(builder, shape, x, y, total)`` writes x * y + total of vectors of a type.
    """
    (place, index), groups, scalar = elements, builder.lanes // SIZE, builder.type(kind, False)
    shape = f"<{SIZE} x {scalar}>"
    totals = [cut(builder, addends[row // groups], row % groups * SIZE, SIZE) for row in range(SIZE)]
    for k, row_of_b in enumerate(columns):
        for row in range(SIZE):
            element = builder.emit(f"getelementptr {scalar}, ptr {place}, i64 {index(k, row)}")
            element = builder.emit(f"load {scalar}, ptr {element}, align 4")
            single = builder.emit(f"insertelement {shape} poison, {scalar} {element}, i64 0")
            spread = builder.emit(f"shufflevector {shape} {single}, {shape} poison, <{SIZE} x i32> zeroinitializer")
            totals[row] = multiply_add(builder, shape, spread, row_of_b[row % groups], totals[row])
    return [joined(builder, kind, totals[n : n + groups]) for n in range(0, SIZE, groups)]


def fused(builder: Builder, shape: str, x: str, y: str, total: str) -> str:
    """x * y + total of vectors of sixteen f32."""
    return builder.emit(f"call {shape} @llvm.fma.v{SIZE}f32({shape} {x}, {shape} {y}, {shape} {total})")


def _multiplied(builder: Builder, shape: str, x: str, y: str, total: str) -> str:
    return builder.emit(f"add {shape} {builder.emit(f'mul {shape} {x}, {y}')}, {total}")


def joined(builder: Builder, kind: str, parts: list[str]) -> Val:
    """The rows of one register of D as one value."""
    scalar, width = builder.type(kind, False), SIZE
    while len(parts) > 1:
        lanes = ", ".join(f"i32 {lane}" for lane in range(2 * width))
        shape = f"<{width} x {scalar}>"
        parts = [
            builder.emit(f"shufflevector {shape} {low}, {shape} {high}, <{2 * width} x i32> <{lanes}>")
            for low, high in zip(parts[::2], parts[1::2], strict=True)
        ]
        width *= 2
    return builder.value(kind, parts[0], True)
