"""LLVM IR as text: the writer of one function body, and the values that semantic functions compute with.

A ``Val`` is one typed SSA value or constant: a vector with one element for each lane, or a scalar of the whole wave.
Scalars meet vectors by being spread over the lanes; constants are folded here, so that little dead text is written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

WIDTHS = {
    "bool": 1,
    "u8": 8,
    "u16": 16,
    "i16": 16,
    "f16": 16,
    "u32": 32,
    "i32": 32,
    "f32": 32,
    "u64": 64,
    "i64": 64,
    "f64": 64,
}
FLOAT_TYPES = {"f16": "half", "f32": "float", "f64": "double"}
_SCALAR_TYPES = {kind: FLOAT_TYPES.get(kind, f"i{width}") for kind, width in WIDTHS.items()}


class Builder:
    """Collects the lines of a function body; every name it gives is unique in the function.

    ``lanes`` is 32 or 64. Splats are remembered within a basic block, so ``label`` must open every block.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.lines: list[str] = []
        self.uses: set[str] = set()  # names of functions called
        self.functions: dict[str, str] = {}  # further functions of the same module, by name
        self.block = "%entry"  # the basic block being written
        self._number = 0
        self._splats: dict[tuple[str, str], str] = {}
        self._types = {kind: f"<{lanes} x {text}>" for kind, text in _SCALAR_TYPES.items()}

    # Text.

    def name(self, hint: str = "") -> str:
        """A fresh SSA or label name, with its percent sign."""
        self._number += 1
        return f"%{hint}.{self._number}" if hint else f"%t{self._number}"

    def do(self, line: str) -> None:
        """Write a line that has no result."""
        self.lines.append(line)

    def emit(self, expression: str) -> str:
        """Write ``expression`` and return the name of its result."""
        self._number += 1
        name = f"%t{self._number}"
        self.lines.append(f"{name} = {expression}")
        return name

    def label(self, name: str) -> None:
        """Open a basic block; ``name`` has its percent sign."""
        self.lines.append(f"{name[1:]}:")
        self.block = name
        self._splats.clear()

    def call(self, function: str, result: str, arguments: Sequence[str]) -> str:
        """Call ``@function`` with typed arguments ("i32 7"); returns the result's name, or "" for void."""
        self.uses.add(function)
        text = f"call {result} @{function}({', '.join(arguments)})"
        if result == "void":
            self.do(text)
            return ""
        return self.emit(text)

    # Values.

    def type(self, kind: str, vector: bool) -> str:
        """LLVM type of a kind."""
        return self._types[kind] if vector else _SCALAR_TYPES[kind]

    def value(self, kind: str, text: str, vector: bool) -> Val:
        """An existing SSA value as a Val."""
        return Val(self, kind, text, vector, None)

    def constant(self, kind: str, bits: int) -> Val:
        """A scalar constant from its bit pattern."""
        bits &= (1 << WIDTHS[kind]) - 1
        return Val(self, kind, literal(kind, bits), False, bits)

    def spread(self, x: Val) -> Val:
        """A scalar in every lane; a vector as it is."""
        if x.vector:
            return x
        if x.bits is not None:
            text = f"splat ({_SCALAR_TYPES[x.kind]} {x.text})"
            return Val(self, x.kind, text, True, x.bits)
        key = (x.kind, x.text)
        found = self._splats.get(key)
        if found is None:
            vector, scalar = self._types[x.kind], _SCALAR_TYPES[x.kind]
            single = self.emit(f"insertelement {vector} poison, {scalar} {x.text}, i64 0")
            found = self.emit(f"shufflevector {vector} {single}, {vector} poison, <{self.lanes} x i32> zeroinitializer")
            self._splats[key] = found
        return Val(self, x.kind, found, True, None)

    def join(self, low: Val, high: Val) -> Val:
        """Two u32 as one u64, which is only computed if it is used as a whole."""
        low, high = self.level(low, high)
        if low.bits is not None and high.bits is not None:
            whole = self.constant("u64", high.bits << 32 | low.bits)
            return self.spread(whole) if low.vector else whole
        return Val(self, "u64", None, low.vector, None, (low, high))

    def widen(self, value: Val) -> Val:
        """A u32 as a u64."""
        if value.bits is not None:
            constant = self.constant("u64", value.bits)
            return self.spread(constant) if value.vector else constant
        text = self.emit(f"zext {value.typed} to {self.type('u64', value.vector)}")
        return Val(self, "u64", text, value.vector, None)

    def level(self, *values: Val) -> tuple[Val, ...]:
        """The values all scalar, or all spread over the lanes."""
        if any(value.vector for value in values):
            return tuple(self.spread(value) for value in values)
        return values

    def intrinsic(self, name: str, kind: str, *values: Val, extra: str = "") -> Val:
        """``llvm.<name>`` of values of one kind and shape; ``extra`` follows the arguments (", i1 false")."""
        values = self.level(*values)
        vector = values[0].vector
        text = self.type(values[0].kind, vector)
        suffix = f"v{self.lanes}" if vector else ""
        letter = "f" if values[0].kind in FLOAT_TYPES else "i"
        arguments = ", ".join(f"{text} {value.text}" for value in values)
        full = f"llvm.{name}.{suffix}{letter}{WIDTHS[values[0].kind]}"
        return Val(self, kind, self.emit(f"call {self.type(kind, vector)} @{full}({arguments}{extra})"), vector, None)


def literal(kind: str, bits: int) -> str:
    """LLVM's spelling of a scalar constant."""
    if kind == "bool":
        return "true" if bits else "false"
    if kind == "f16":
        return f"0xH{bits:04X}"
    if kind == "f32":
        exponent, mantissa = bits >> 23 & 0xFF, bits & 0x7FFFFF
        if exponent == 0xFF:  # widened by hand: a conversion would quieten a signalling NaN
            wide = (bits >> 31) << 63 | 0x7FF << 52 | mantissa << 29
        else:
            (number,) = struct.unpack("<f", struct.pack("<I", bits))
            (wide,) = struct.unpack("<Q", struct.pack("<d", number))
        return f"0x{wide:016X}"
    if kind == "f64":
        return f"0x{bits:016X}"
    return str(bits)


def _signed(bits: int, width: int) -> int:
    return bits - (1 << width) if bits >> (width - 1) & 1 else bits


_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "xor": lambda x, y: x ^ y,
    "shl": lambda x, y: x << y,
    "lshr": lambda x, y: x >> y,
    "ashr": lambda x, y: x >> y,
}


class Val:
    """One value: its kind, LLVM text, whether it is one per lane, and its bit pattern where that is known.

    Integers and truth values have Python's operators; ``>>`` is arithmetic for signed kinds.
    """

    __slots__ = ("_text", "bits", "builder", "halves", "kind", "vector")

    def __init__(
        self,
        builder: Builder,
        kind: str,
        text: str | None,
        vector: bool,
        bits: int | None,
        halves: tuple[Val, Val] | None = None,
    ) -> None:
        """``halves`` are the two u32 of a u64 that has no ``text`` yet: they are cheaper to compute with."""
        self.builder, self.kind, self._text, self.vector, self.bits = builder, kind, text, vector, bits
        self.halves = halves

    @property
    def text(self) -> str:
        """The SSA name or the constant."""
        if self._text is None and self.halves is not None:
            low, high = map(self.builder.widen, self.halves)
            self._text = (low | high << 32).text
        return self._text or ""

    @property
    def typed(self) -> str:
        """ "i32 %t7", as an argument list wants it."""
        return f"{self.builder.type(self.kind, self.vector)} {self.text}"

    def _with(self, other: Val | int) -> Val:
        return self.builder.constant(self.kind, other) if isinstance(other, int) else other

    def _binary(self, operation: str, x: Val, y: Val) -> Val:
        builder, kind = self.builder, self.kind
        if x.bits is not None and y.bits is not None:
            width = WIDTHS[kind]
            left = _signed(x.bits, width) if operation == "ashr" else x.bits
            folded = builder.constant(kind, _FOLD[operation](left, y.bits))
            return builder.spread(folded) if x.vector or y.vector else folded
        same = _identity(operation, x, y)
        if same is not None:
            return builder.spread(same) if x.vector or y.vector else same
        if x.halves is not None and x.vector and y.bits is not None and operation == "shl" and y.bits < 64:
            return Val(builder, kind, None, True, None, _shift_left(*x.halves, y.bits))
        x, y = builder.level(x, y)
        text = builder.emit(f"{operation} {builder.type(kind, x.vector)} {x.text}, {y.text}")
        return Val(builder, kind, text, x.vector, None)

    def __add__(self, other: Val | int) -> Val:
        return self._binary("add", self, self._with(other))

    __radd__ = __add__

    def __sub__(self, other: Val | int) -> Val:
        return self._binary("sub", self, self._with(other))

    def __rsub__(self, other: int) -> Val:
        return self._binary("sub", self._with(other), self)

    def __mul__(self, other: Val | int) -> Val:
        return self._binary("mul", self, self._with(other))

    __rmul__ = __mul__

    def __and__(self, other: Val | int) -> Val:
        return self._binary("and", self, self._with(other))

    __rand__ = __and__

    def __or__(self, other: Val | int) -> Val:
        return self._binary("or", self, self._with(other))

    __ror__ = __or__

    def __xor__(self, other: Val | int) -> Val:
        return self._binary("xor", self, self._with(other))

    __rxor__ = __xor__

    def __invert__(self) -> Val:
        return self._binary("xor", self, self.builder.constant(self.kind, -1))

    def __lshift__(self, other: Val | int) -> Val:
        return self._binary("shl", self, self._with(other))

    def __rlshift__(self, other: int) -> Val:
        return self._binary("shl", self._with(other), self)

    def __rshift__(self, other: Val | int) -> Val:
        return self._binary(self._right, self, self._with(other))

    def __rrshift__(self, other: int) -> Val:
        return self._binary(self._right, self._with(other), self)

    @property
    def _right(self) -> str:
        return "ashr" if self.kind[0] == "i" else "lshr"


def _shift_left(low: Val, high: Val, count: int) -> tuple[Val, Val]:
    """The halves of a 64-bit value in every lane after a shift by 1 to 63."""
    builder = low.builder
    if count >= 32:
        return builder.spread(builder.constant("u32", 0)), low << count - 32
    amount = builder.spread(builder.constant("u32", count))
    return low << count, builder.intrinsic("fshl", "u32", high, low, amount)


def _identity(operation: str, x: Val, y: Val) -> Val | None:
    """The result of an operation with a neutral or absorbing constant; None when something is to be computed."""
    if y.bits is None and operation in ("add", "mul", "and", "or", "xor"):
        x, y = y, x
    if y.bits is None:
        return None
    ones = (1 << WIDTHS[x.kind]) - 1
    if y.bits == 0:
        return y if operation in ("mul", "and") else x
    if y.bits == ones and operation in ("and", "or"):
        return x if operation == "and" else y
    if y.bits == 1 and operation == "mul":
        return x
    return None
