"""Single operations of LLVM on values: what the algebra and the library's arithmetic are made of."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from amdrv.emulator.isa.native.builder import FLOAT_TYPES, WIDTHS, Builder, Val
from amdrv.emulator.isa.native.library import Function

UNSIGNED = {1: "bool", 8: "u8", 16: "u16", 32: "u32", 64: "u64"}
SIGNED = {16: "i16", 32: "i32", 64: "i64"}
# kind: bits of the mantissa that are stored, biased exponent of infinity.
FORMATS = {"f16": (10, 0x1F), "f32": (23, 0xFF), "f64": (52, 0x7FF)}
_PACK = {"f16": ("<e", "<H"), "f32": ("<f", "<I"), "f64": ("<d", "<Q")}


def constant(x: Val, kind: str, bits: int) -> Val:
    """A constant as x is: of the wave, or of every lane."""
    value = x.builder.constant(kind, bits)
    return x.builder.spread(value) if x.vector else value


def number(builder: Builder, kind: str, value: float) -> Val:
    """A scalar constant from a number that the kind can represent."""
    if kind in FLOAT_TYPES:
        write, read = _PACK[kind]
        (bits,) = struct.unpack(read, struct.pack(write, value))
        return builder.constant(kind, bits)
    return builder.constant(kind, int(value))


def float_bits(kind: str) -> tuple[int, int, int]:
    """Sign bit, exponent field and quiet bit of a kind, as masks."""
    mantissa, infinite = FORMATS[kind]
    return 1 << WIDTHS[kind] - 1, infinite << mantissa, 1 << mantissa - 1


def cast(x: Val, kind: str) -> Val:
    """``Algebra.cast``: bits are reinterpreted, cut, or extended by the signedness of x's kind."""
    source = x.kind
    if source == kind:
        return x
    builder = x.builder
    width, wanted = WIDTHS[source], WIDTHS[kind]
    if x.bits is not None:
        bits = x.bits
        if source[0] == "i" and bits >> (width - 1):
            bits -= 1 << width
        value = builder.constant(kind, bits)
        return builder.spread(value) if x.vector else value
    text, vector = x.text, x.vector
    if source in FLOAT_TYPES:
        source = UNSIGNED[width]
        text = builder.emit(f"bitcast {x.typed} to {builder.type(source, vector)}")
    if width != wanted:
        verb = "trunc" if wanted < width else "sext" if source[0] == "i" else "zext"
        target = UNSIGNED[wanted]
        text = builder.emit(f"{verb} {builder.type(source, vector)} {text} to {builder.type(target, vector)}")
        source = target
    if kind in FLOAT_TYPES:
        text = builder.emit(f"bitcast {builder.type(source, vector)} {text} to {builder.type(kind, vector)}")
    return Val(builder, kind, text, vector, None)


def arithmetic(operation: str, x: Val, y: Val) -> Val:
    """ "fadd", "fsub", "fmul" or "fdiv"."""
    builder = x.builder
    if x.vector is not y.vector:
        x, y = builder.level(x, y)
    text = builder.emit(f"{operation} {builder.type(x.kind, x.vector)} {x.text}, {y.text}")
    return Val(builder, x.kind, text, x.vector, None)


def fused(x: Val, y: Val, z: Val) -> Val:
    """``x * y + z`` with one rounding, of f32 or f64."""
    return x.builder.intrinsic("fma", x.kind, x, y, z)


def negated(x: Val) -> Val:
    """A float with its sign bit flipped."""
    if x.bits is not None:
        return constant(x, x.kind, x.bits ^ 1 << WIDTHS[x.kind] - 1)
    return x.builder.value(x.kind, x.builder.emit(f"fneg {x.typed}"), x.vector)


def magnitude(x: Val) -> Val:
    """A float without its sign."""
    return x.builder.intrinsic("fabs", x.kind, x)


def compare(relation: str, x: Val, y: Val) -> Val:
    """A relation of two integers ("icmp ult") or floats ("fcmp olt")."""
    builder = x.builder
    if x.vector is not y.vector:
        x, y = builder.level(x, y)
    text = builder.emit(f"{relation} {builder.type(x.kind, x.vector)} {x.text}, {y.text}")
    return Val(builder, "bool", text, x.vector, None)


def choose(condition: Val, x: Val, y: Val) -> Val:
    """``condition ? x : y`` of two values of one kind."""
    builder = condition.builder
    if condition.bits is not None:
        return x if condition.bits else y
    if condition.vector or x.vector is not y.vector:
        x, y = builder.spread(x), builder.spread(y)
    kind, vector = x.kind, x.vector
    shape = builder.type(kind, vector)
    mask = builder.type("bool", condition.vector)
    text = builder.emit(f"select {mask} {condition.text}, {shape} {x.text}, {shape} {y.text}")
    return Val(builder, kind, text, vector, None)


def convert(operation: str, x: Val, kind: str) -> Val:
    """One conversion instruction: "fpext", "fptrunc", "sitofp", "fptoui", …"""
    builder = x.builder
    text = builder.emit(f"{operation} {x.typed} to {builder.type(kind, x.vector)}")
    return Val(builder, kind, text, x.vector, None)


def library_function(
    name: str, lanes: int, kinds: Sequence[str], body: Callable[..., Val], *, inline: bool = False
) -> Function:
    """The function ``NAME.wLANES`` of one value in every lane of each of ``kinds``, written by ``body(*values)``."""
    builder = Builder(lanes)
    values = [builder.value(kind, f"%x{number}", True) for number, kind in enumerate(kinds)]
    result = builder.spread(body(*values))
    arguments = ", ".join(value.typed for value in values)
    lines = "\n".join(builder.lines)
    shape = builder.type(result.kind, True)
    head = f"define {shape} @{name}.w{lanes}({arguments})"
    return Function(f"{head} {{\nentry:\n{lines}\nret {shape} {result.text}\n}}", inline)


def call(name: str, kind: str, *values: Val) -> Val:
    """A function of the library, or of the module, over the lanes; scalars go through lane 0."""
    builder = values[0].builder
    vectors = [builder.spread(value) for value in values]
    shape = builder.type(kind, True)
    text = builder.call(f"{name}.w{builder.lanes}", shape, [value.typed for value in vectors])
    if any(value.vector for value in values):
        return Val(builder, kind, text, True, None)
    return Val(builder, kind, builder.emit(f"extractelement {shape} {text}, i64 0"), False, None)


def outlined(name: str, kind: str, body: Callable[..., Val], *values: Val) -> Val:
    """``body(*values)`` as a call of a function of the same module, which is written once."""
    builder = values[0].builder
    full = f"{name}.w{builder.lanes}"
    if full not in builder.functions:
        inner = Builder(builder.lanes)
        arguments = [inner.value(value.kind, f"%x{number}", True) for number, value in enumerate(values)]
        result = inner.spread(body(*arguments))
        builder.functions |= inner.functions
        builder.uses |= inner.uses
        head = f"define internal {inner.type(kind, True)} @{full}({', '.join(a.typed for a in arguments)})"
        lines = "\n".join(inner.lines)
        builder.functions[full] = f"{head} nounwind {{\nentry:\n{lines}\nret {result.typed}\n}}"
    return call(name, kind, *values)
