"""The value algebra: the few operations in which every instruction's meaning is written.

A semantic function is written once over an ``Algebra`` and never looks at a value: no Python branch depends on one, so
that the same function interprets (NumPy) and translates (LLVM IR). Integers and truth values use Python's operators
(wrapping ``+ - *``, ``& | ^ ~``, ``<<``, and ``>>`` that is arithmetic for signed types); whatever depends on the
floating-point mode, or has no operator, is a method here. The mode is fixed for the life of an algebra and may be
branched on (``a.mode.ieee``).

Kinds are named as in the ISA manual: u8, u16, i16, f16, u32, i32, f32, u64, i64, f64. bf16 travels as u16 bits.
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar


class Value(Protocol):
    """An integer or truth value as seen by a semantic function; shift counts must be below the width."""

    def __add__(self, other: Value | int, /) -> Value: ...
    def __radd__(self, other: int, /) -> Value: ...
    def __sub__(self, other: Value | int, /) -> Value: ...
    def __rsub__(self, other: int, /) -> Value: ...
    def __mul__(self, other: Value | int, /) -> Value: ...
    def __and__(self, other: Value | int, /) -> Value: ...
    def __or__(self, other: Value | int, /) -> Value: ...
    def __xor__(self, other: Value | int, /) -> Value: ...
    def __invert__(self) -> Value: ...
    def __lshift__(self, other: Value | int, /) -> Value: ...
    def __rlshift__(self, other: int, /) -> Value: ...
    def __rshift__(self, other: Value | int, /) -> Value: ...
    def __rrshift__(self, other: int, /) -> Value: ...


class Rounding(enum.IntEnum):
    """FP_ROUND field values (RDNA3 ISA manual, MODE register)."""

    NEAREST_EVEN = 0
    UP = 1
    DOWN = 2
    ZERO = 3


@dataclass(frozen=True, slots=True)
class FloatMode:
    """The floating-point half of the MODE register; f16 shares the double-precision fields.

    The defaults are what a compute kernel descriptor asks for: round to nearest even, all denormals kept,
    DX10_CLAMP and IEEE set. ``saturate16`` (FP16_OVFL): an f16 result of finite operands that overflows is the greatest
    number instead, in every rounding mode, and so is a reciprocal of zero; infinities of operands stay.
    ``scales_always``: output modifiers work in every mode (gfx12), not only without IEEE and output denormals.
    """

    round32: Rounding = Rounding.NEAREST_EVEN
    round64: Rounding = Rounding.NEAREST_EVEN
    flush_inputs32: bool = False
    flush_outputs32: bool = False
    flush_inputs64: bool = False
    flush_outputs64: bool = False
    dx10_clamp: bool = True
    ieee: bool = True
    saturate16: bool = False
    scales_always: bool = False

    @classmethod
    def from_bits(cls, mode: int) -> FloatMode:
        """The mode that MODE register bits ask for: FP_ROUND 3:0, FP_DENORM 7:4, DX10_CLAMP 8, IEEE 9, FP16_OVFL 23.

        Bit 22, which no generation's register has, says ``scales_always``.
        """
        return cls(
            round32=Rounding(mode & 3),
            round64=Rounding(mode >> 2 & 3),
            flush_inputs32=not mode & 0x10,
            flush_outputs32=not mode & 0x20,
            flush_inputs64=not mode & 0x40,
            flush_outputs64=not mode & 0x80,
            dx10_clamp=bool(mode & 0x100),
            ieee=bool(mode & 0x200),
            saturate16=bool(mode & 1 << 23),
            scales_always=bool(mode & 1 << 22),
        )


V = TypeVar("V")


class Algebra(Protocol[V]):
    """What an implementation of the algebra provides; ``V`` is its own value type.

    Float operations take operands of one float kind and return that kind, rounded, flushed and quieted as ``mode``
    says. A Python int stands for a constant of the other operand's kind wherever ``V | int`` is allowed.
    """

    mode: FloatMode

    # Bits: what the manual writes as S0.u32 or 64'I(S0.i32).

    @abstractmethod
    def cast(self, x: V, kind: str) -> V:
        """``x`` read as ``kind``: same width reinterprets the bits, narrower takes the low bits, wider extends by the
        signedness of x's own kind (floats and unsigned with zeros). A truth value becomes 0 or 1."""

    @abstractmethod
    def constant(self, kind: str, value: float) -> V:
        """A constant; for a float kind an exactly representable number."""

    @abstractmethod
    def select(self, condition: V, x: V | int, y: V | int) -> V:
        """``condition ? x : y``, without evaluating anything again."""

    @abstractmethod
    def table(self, kind: str, entries: Sequence[int], index: V) -> V:
        """``entries[index]`` for an index that is in range."""

    # Comparisons (integers by their signedness; floats ordered, with denormals as the mode says).

    @abstractmethod
    def eq(self, x: V, y: V | int) -> V: ...

    @abstractmethod
    def lt(self, x: V, y: V | int) -> V: ...

    @abstractmethod
    def le(self, x: V, y: V | int) -> V: ...

    # Integers.

    @abstractmethod
    def min(self, x: V, y: V | int) -> V: ...

    @abstractmethod
    def max(self, x: V, y: V | int) -> V: ...

    @abstractmethod
    def popcount(self, x: V) -> V:
        """Number of one bits, as u32."""

    @abstractmethod
    def clz(self, x: V) -> V:
        """Number of zero bits above the highest one, as i32; the width when there is no one bit."""

    @abstractmethod
    def ctz(self, x: V) -> V:
        """Number of zero bits below the lowest one, as i32; the width when there is no one bit."""

    @abstractmethod
    def bitreverse(self, x: V) -> V: ...

    # Float arithmetic.

    @abstractmethod
    def add(self, x: V, y: V) -> V: ...

    @abstractmethod
    def sub(self, x: V, y: V) -> V: ...

    @abstractmethod
    def mul(self, x: V, y: V) -> V: ...

    @abstractmethod
    def fma(self, x: V, y: V, z: V) -> V:
        """``x * y + z`` with one rounding."""

    @abstractmethod
    def scaled_fma(self, x: V, y: V, z: V, exponent: V) -> V:
        """``(x * y + z) * 2**exponent`` (i32) with one rounding; denormal operands are kept in every mode."""

    @abstractmethod
    def min_num(self, x: V, y: V) -> V:
        """The smaller operand: -0 is below +0, a NaN loses to a number; in IEEE mode a signalling NaN wins, quieted.

        Operands are flushed as the mode says, the result is not (rocjitsu, shared/minmax.h).
        """

    @abstractmethod
    def max_num(self, x: V, y: V) -> V:
        """The greater operand, with the rules of ``min_num``."""

    @abstractmethod
    def ldexp(self, x: V, exponent: V) -> V:
        """``x * 2**exponent`` (i32) with one rounding."""

    @abstractmethod
    def trunc(self, x: V) -> V: ...

    @abstractmethod
    def floor(self, x: V) -> V: ...

    @abstractmethod
    def ceil(self, x: V) -> V: ...

    @abstractmethod
    def rndne(self, x: V) -> V:
        """The nearest integral value, ties to even, whatever the rounding mode."""

    # Conversions of numbers (not bits).

    @abstractmethod
    def to_float(self, x: V, kind: str, rounding: Rounding | None = None) -> V:
        """An integer or float as a float of ``kind``, rounded by the target's mode or by ``rounding``; a float that
        already is of ``kind`` stays as it is."""

    @abstractmethod
    def to_int(self, x: V, kind: str) -> V:
        """A float truncated toward zero and saturated to ``kind``; NaN gives 0."""

    # Approximated functions, rounded to nearest in every mode. In f32, exp2, log2, rcp, rsq and sqrt flush denormals in
    # and out, in every mode; the rest keeps to the mode. (Measured on gfx1201: rocjitsu, transcendental_pipeline.h.)

    @abstractmethod
    def exp2(self, x: V) -> V: ...

    @abstractmethod
    def log2(self, x: V) -> V: ...

    @abstractmethod
    def sin_turns(self, x: V) -> V:
        """Sine of an angle counted in full turns."""

    @abstractmethod
    def cos_turns(self, x: V) -> V: ...

    @abstractmethod
    def rcp(self, x: V) -> V: ...

    @abstractmethod
    def rsq(self, x: V) -> V: ...

    @abstractmethod
    def sqrt(self, x: V) -> V: ...

    # Operands of more than 64 bits, and what the matrix instructions need of other lanes. A stack takes part in
    # operations like any value; combined with a single value it means one operation for each of its registers.

    @abstractmethod
    def registers(self, x: V) -> Sequence[V]:
        """The registers of a stack, as values."""

    @abstractmethod
    def stack(self, values: Sequence[V]) -> V: ...

    @abstractmethod
    def lane_rows(self, x: V, rows: Sequence[Sequence[int]]) -> V:
        """A stack of values, one for each row; lane i of a row's value is lane ``row[i]`` of x."""

    # Derived.

    def u16(self, x: V) -> V:
        return self.cast(x, "u16")

    def i16(self, x: V) -> V:
        return self.cast(x, "i16")

    def f16(self, x: V) -> V:
        return self.cast(x, "f16")

    def u32(self, x: V) -> V:
        return self.cast(x, "u32")

    def i32(self, x: V) -> V:
        return self.cast(x, "i32")

    def f32(self, x: V) -> V:
        return self.cast(x, "f32")

    def u64(self, x: V) -> V:
        return self.cast(x, "u64")

    def i64(self, x: V) -> V:
        return self.cast(x, "i64")

    def f64(self, x: V) -> V:
        return self.cast(x, "f64")


Ops: TypeAlias = Algebra[Value]  # what a semantic function takes as its first argument
