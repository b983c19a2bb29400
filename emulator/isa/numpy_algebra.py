"""The value algebra over NumPy arrays: the oracle.

Vector values have shape (waves, lanes), scalar values (waves, 1), so that they broadcast against each other; the kind
of a value is its dtype, and truth values are bool arrays. Callers run semantics inside ``quiet()``: NumPy's warnings
about overflow and NaN are the normal course of an ISA's arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from amdrv.emulator.isa.algebra import Algebra, FloatMode, Rounding
from amdrv.emulator.isa.numpy_rounding import (
    direct,
    fma64,
    narrow,
    signed_zero_sum,
    sum_to_odd,
    two_sum,
)

Array: TypeAlias = NDArray[Any]
DType: TypeAlias = np.dtype[Any]

DTYPES: dict[str, DType] = {
    kind: np.dtype(name)
    for kind, name in {
        "u8": "u1",
        "u16": "u2",
        "i16": "i2",
        "f16": "f2",
        "u32": "u4",
        "i32": "i4",
        "f32": "f4",
        "u64": "u8",
        "i64": "i8",
        "f64": "f8",
    }.items()
}
_F16, _F32, _F64 = DTYPES["f16"], DTYPES["f32"], DTYPES["f64"]
_UNSIGNED: dict[int, DType] = {1: np.dtype("u1"), 2: np.dtype("u2"), 4: np.dtype("u4"), 8: np.dtype("u8")}
_SMALLEST_NORMAL: dict[DType, Any] = {dtype: np.finfo(dtype).smallest_normal for dtype in (_F16, _F32, _F64)}
_QUIET_BIT: dict[DType, Any] = {_F16: np.uint16(1 << 9), _F32: np.uint32(1 << 22), _F64: np.uint64(1 << 51)}
# For each kind narrower than double: the bits of a double that rounding drops, their value in a tie, and the pattern of
# twice the kind's smallest normal number.
_DOUBT: dict[DType, tuple[Any, Any, Any]] = {
    dtype: (np.uint64((1 << dropped) - 1), np.uint64(1 << dropped - 1), np.uint64(exponent + 1023 << 52))
    for dtype, dropped, exponent in ((_F16, 42, -13), (_F32, 29, -125))
}
_MAGNITUDE, _ONE = np.uint64((1 << 63) - 1), np.uint64(1)
_REVERSE_STEPS = (
    (1, 0x5555555555555555),
    (2, 0x3333333333333333),
    (4, 0x0F0F0F0F0F0F0F0F),
    (8, 0x00FF00FF00FF00FF),
    (16, 0x0000FFFF0000FFFF),
    (32, 0x00000000FFFFFFFF),
)


def quiet() -> np.errstate:
    """The context in which semantics are evaluated; entering it costs about a microsecond, so enter it once a run."""
    return np.errstate(all="ignore")


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one float kind behaves in a mode."""

    rounding: Rounding
    flush_inputs: bool
    flush_outputs: bool

    @property
    def plain(self) -> bool:
        """True when NumPy's own arithmetic is right."""
        return self.rounding is Rounding.NEAREST_EVEN and not (self.flush_inputs or self.flush_outputs)


def flush(x: Array) -> Array:
    """Denormals to zeros of the same sign."""
    denormal: Array = np.abs(x) < _SMALLEST_NORMAL[x.dtype]
    return np.where(denormal, np.copysign(x.dtype.type(0), x), x) if denormal.any() else x


def is_signalling(x: Array) -> Array:
    """True for signalling NaNs: the quiet bit of the mantissa is clear."""
    bits = x.view(_UNSIGNED[x.dtype.itemsize])
    signalling: Array = np.isnan(x) & ((bits & _QUIET_BIT[x.dtype]) == 0)
    return signalling


def quieted(x: Array) -> Array:
    """The quiet NaN with the payload of a NaN."""
    bits: Array = x.view(_UNSIGNED[x.dtype.itemsize]) | _QUIET_BIT[x.dtype]
    return bits.view(x.dtype)


class NumpyAlgebra(Algebra[Array]):
    """The algebra for one floating-point mode. Instances hold no state and may be shared between threads."""

    def __init__(self, mode: FloatMode | None = None) -> None:
        self.mode = mode = mode or FloatMode()
        rule64 = _Rule(mode.round64, mode.flush_inputs64, mode.flush_outputs64)
        self._rules = {
            _F16: rule64,
            _F32: _Rule(mode.round32, mode.flush_inputs32, mode.flush_outputs32),
            _F64: rule64,
        }
        self._plain = {dtype: rule.plain for dtype, rule in self._rules.items()}
        self._plain[_F16] &= not mode.saturate16

    # Bits.

    def cast(self, x: Array, kind: str) -> Array:
        dtype, source = DTYPES[kind], x.dtype
        if source == dtype:
            return x
        if source.kind == "b":
            return x.astype(_UNSIGNED[dtype.itemsize]).view(dtype)
        if source.itemsize == dtype.itemsize:
            return x.view(dtype)
        if source.kind == "f":
            x = x.view(_UNSIGNED[source.itemsize])
        if dtype.kind == "f":
            return x.astype(_UNSIGNED[dtype.itemsize]).view(dtype)
        return x.astype(dtype)

    def constant(self, kind: str, value: float) -> Array:
        return np.array([[value]], DTYPES[kind])

    def select(self, condition: Array, x: Array | int, y: Array | int) -> Array:
        if isinstance(x, int):
            x = np.asarray(x, np.asarray(y).dtype)
        elif isinstance(y, int):
            y = np.asarray(y, x.dtype)
        return np.where(condition, x, y)

    def table(self, kind: str, entries: Sequence[int], index: Array) -> Array:
        return np.array(entries, DTYPES[kind])[index]

    # Comparisons.

    def eq(self, x: Array, y: Array | int) -> Array:
        return np.equal(*self._compared(x, y))

    def lt(self, x: Array, y: Array | int) -> Array:
        return np.less(*self._compared(x, y))

    def le(self, x: Array, y: Array | int) -> Array:
        return np.less_equal(*self._compared(x, y))

    def _compared(self, x: Array, y: Array | int) -> tuple[Array, Array | int]:
        if x.dtype.kind == "f" and self._rules[x.dtype].flush_inputs:
            return flush(x), y if isinstance(y, int) else flush(y)
        return x, y

    # Integers.

    def min(self, x: Array, y: Array | int) -> Array:
        return np.minimum(x, y)

    def max(self, x: Array, y: Array | int) -> Array:
        return np.maximum(x, y)

    def popcount(self, x: Array) -> Array:
        x = x.astype(np.uint64)
        x = x - (x >> np.uint64(1) & np.uint64(0x5555555555555555))
        x = (x & np.uint64(0x3333333333333333)) + (x >> np.uint64(2) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        return (x * np.uint64(0x0101010101010101) >> np.uint64(56)).astype(np.uint32)

    def _bit_length(self, x: Array) -> Array:
        x = x.view(_UNSIGNED[x.dtype.itemsize])
        if x.dtype.itemsize < 8:
            return np.frexp(x.astype(np.float64))[1]
        high, low = x >> np.uint64(32), x & np.uint64(0xFFFFFFFF)
        upper = high != 0
        return np.frexp(np.where(upper, high, low).astype(np.float64))[1] + np.where(upper, np.int32(32), np.int32(0))

    def clz(self, x: Array) -> Array:
        return np.subtract(8 * x.dtype.itemsize, self._bit_length(x), dtype=np.int32)

    def ctz(self, x: Array) -> Array:
        lowest = x & (~x + x.dtype.type(1))
        return np.where(x == 0, np.int32(8 * x.dtype.itemsize), self._bit_length(lowest) - np.int32(1))

    def bitreverse(self, x: Array) -> Array:
        kind, width = x.dtype.type, 8 * x.dtype.itemsize
        for shift, mask in _REVERSE_STEPS:
            if shift < width:
                kept, step = kind(mask & ((1 << width) - 1)), kind(shift)
                x = (x >> step & kept) | (x & kept) << step
        return x

    # Float arithmetic.

    def add(self, x: Array, y: Array) -> Array:
        if self._plain[x.dtype] and x.dtype != _F16:
            return x + y
        x, y = self._inputs(x, y)
        rounding = self._rules[x.dtype].rounding
        if rounding is Rounding.NEAREST_EVEN:
            wide = _F32 if x.dtype == _F16 else x.dtype
            return self._output((x.astype(wide) + y.astype(wide)).astype(x.dtype), x, y)
        if x.dtype == _F64:
            total, error = two_sum(x, y)
            overflown = np.isinf(total) & np.isfinite(x) & np.isfinite(y)
            result = direct(total, np.where(overflown, -total, error), rounding)
        else:
            total = sum_to_odd(x.astype(_F64), y.astype(_F64))
            result = narrow(total, x.dtype, rounding)
        return self._output(signed_zero_sum(result, total, x, y, rounding), x, y)

    def sub(self, x: Array, y: Array) -> Array:
        if self._plain[x.dtype] and x.dtype != _F16:
            return x - y
        return self.add(x, np.where(np.isnan(y), y, np.negative(y)))

    def mul(self, x: Array, y: Array) -> Array:
        if self._plain[x.dtype] and x.dtype != _F16:
            return x * y
        x, y = self._inputs(x, y)
        rounding = self._rules[x.dtype].rounding
        if rounding is Rounding.NEAREST_EVEN:
            wide = _F32 if x.dtype == _F16 else x.dtype
            return self._output((x.astype(wide) * y.astype(wide)).astype(x.dtype), x, y)
        if x.dtype == _F64:
            return self._output(fma64(x, y, np.copysign(0.0, x * y), rounding))
        return self._output(narrow(x.astype(_F64) * y.astype(_F64), x.dtype, rounding), x, y)

    def fma(self, x: Array, y: Array, z: Array) -> Array:
        rule, plain = self._rules[x.dtype], self._plain[x.dtype]
        if not plain:
            x, y, z = self._inputs(x, y, z)
        if x.dtype == _F64:
            return self._output(fma64(x, y, z, rule.rounding))
        product, addend = x.astype(_F64) * y.astype(_F64), z.astype(_F64)
        total = product + addend
        if rule.rounding is Rounding.NEAREST_EVEN:
            # Rounding twice goes wrong only where the double is an exact tie of the target, or the target a denormal.
            nearest = total.astype(x.dtype)
            dropped, tie, limit = _DOUBT[x.dtype]
            bits = total.view(np.uint64)
            small = ((bits & _MAGNITUDE) - _ONE) < limit  # zero wraps round and is not
            if not (((bits & dropped) == tie) | small).any():
                return nearest if plain else self._output(nearest, x, y, z)
        result = narrow(sum_to_odd(product, addend), x.dtype, rule.rounding)
        return self._output(signed_zero_sum(result, total, product, addend, rule.rounding), x, y, z)

    def scaled_fma(self, x: Array, y: Array, z: Array, exponent: Array) -> Array:
        rounding = self._rules[x.dtype].rounding
        if x.dtype == _F64:
            return self._output(fma64(x, y, z, rounding, exponent))
        product, addend = x.astype(_F64) * y.astype(_F64), z.astype(_F64)
        total = sum_to_odd(product, addend)
        result = narrow(np.ldexp(total, exponent), x.dtype, rounding)
        return self._output(signed_zero_sum(result, total, product, addend, rounding), x, y, z)

    def min_num(self, x: Array, y: Array) -> Array:
        return self._extremum(np.fmin, np.bitwise_or, x, y)

    def max_num(self, x: Array, y: Array) -> Array:
        return self._extremum(np.fmax, np.bitwise_and, x, y)

    def _extremum(self, pick: Callable[..., Array], sign_rule: Callable[..., Array], x: Array, y: Array) -> Array:
        x, y = self._inputs(x, y)
        result = pick(x, y)
        zeros = result == 0
        if zeros.any():
            unsigned = _UNSIGNED[x.dtype.itemsize]
            zeros &= (x == 0) & (y == 0)
            result = np.where(zeros, sign_rule(x.view(unsigned), y.view(unsigned)).view(x.dtype), result)
        if np.isnan(x + y).any():
            nan_x, nan_y = np.isnan(x), np.isnan(y)
            result = np.where(nan_y, x, np.where(nan_x, y, result))
            if self.mode.ieee:
                result = np.where(is_signalling(y), quieted(y), result)
                result = np.where(is_signalling(x), quieted(x), result)
        return result

    def ldexp(self, x: Array, exponent: Array) -> Array:
        (x,) = self._inputs(x)
        rounding = self._rules[x.dtype].rounding
        if x.dtype == _F64:
            exponent = np.clip(exponent, -2200, 2200)
            result = np.ldexp(x, exponent)
            return self._output(direct(result, x - np.ldexp(result, -exponent), rounding))
        scaled = np.ldexp(x.astype(_F64), np.clip(exponent, -400, 400))
        return self._output(narrow(scaled, x.dtype, rounding), x)

    def trunc(self, x: Array) -> Array:
        return self._integral(np.trunc, x)

    def floor(self, x: Array) -> Array:
        return self._integral(np.floor, x)

    def ceil(self, x: Array) -> Array:
        return self._integral(np.ceil, x)

    def rndne(self, x: Array) -> Array:
        return self._integral(np.rint, x)

    def _integral(self, function: Callable[..., Array], x: Array) -> Array:
        (x,) = self._inputs(x)
        return function(x.astype(_F32)).astype(_F16) if x.dtype == _F16 else function(x)

    # Conversions.

    def to_float(self, x: Array, kind: str, rounding: Rounding | None = None) -> Array:
        dtype = DTYPES[kind]
        if x.dtype == dtype:
            return x
        rule = self._rules[dtype]
        if x.dtype.kind == "f":
            (x,) = self._inputs(x)
            if x.dtype.itemsize < dtype.itemsize:
                wide = x.astype(dtype)
                signalling = is_signalling(wide)  # NumPy may widen f16 by integer operations
                return np.where(signalling, quieted(wide), wide) if signalling.any() else wide
        result = narrow(x.astype(_F64), dtype, rule.rounding if rounding is None else rounding)
        return self._output(result, x)

    def to_int(self, x: Array, kind: str) -> Array:
        limits = np.iinfo(DTYPES[kind])
        whole = np.clip(np.trunc(x.astype(_F64)), limits.min, limits.max)
        return np.where(np.isnan(whole), 0.0, whole).astype(np.int64).astype(limits.dtype)

    # Approximated functions: computed in double precision and rounded once, which is within the 1 ulp of the hardware.

    def exp2(self, x: Array) -> Array:
        return self._approximate(np.exp2, x)

    def log2(self, x: Array) -> Array:
        return self._approximate(np.log2, x)

    def sin_turns(self, x: Array) -> Array:
        return self._approximate(lambda turns: _circular(turns, 0), x, keep_denormals=True)

    def cos_turns(self, x: Array) -> Array:
        return self._approximate(lambda turns: _circular(turns, 1), x, keep_denormals=True)

    def rcp(self, x: Array) -> Array:
        return self._approximate(np.reciprocal, x)

    def rsq(self, x: Array) -> Array:
        return self._approximate(lambda v: 1.0 / np.sqrt(v), x)

    def sqrt(self, x: Array) -> Array:
        return self._approximate(np.sqrt, x)

    def _approximate(self, function: Callable[[Array], Array], x: Array, keep_denormals: bool = False) -> Array:
        flushing = x.dtype == _F32 and not keep_denormals
        x = flush(x) if flushing else self._inputs(x)[0]
        result = function(x.astype(_F64)).astype(x.dtype)
        if np.isnan(result).any():
            result = np.where(np.isnan(result), _default_nan(x.dtype), result)
            result = np.where(np.isnan(x), quieted(x), result)  # not what NumPy's function makes of it
        return flush(result) if flushing else self._output(result, x)

    # Stacks: the registers are the first axis.

    def registers(self, x: Array) -> Sequence[Array]:
        return list(x)

    def stack(self, values: Sequence[Array]) -> Array:
        return np.stack(np.broadcast_arrays(*values))

    def lane_rows(self, x: Array, rows: Sequence[Sequence[int]]) -> Array:
        return x[:, np.asarray(rows)].swapaxes(0, 1)

    # The mode.

    def _inputs(self, *values: Array) -> tuple[Array, ...]:
        if self._rules[values[0].dtype].flush_inputs:
            return tuple(flush(value) for value in values)
        return values

    def _output(self, x: Array, *operands: Array) -> Array:
        """A result as the mode has it; ``operands`` are those of an operation that may overflow."""
        if self.mode.saturate16 and x.dtype == _F16 and operands:
            finite = np.isfinite(operands[0])
            for operand in operands[1:]:
                finite = finite & np.isfinite(operand)
            x = np.where(np.isinf(x) & finite, np.copysign(np.finfo(_F16).max, x), x)
        return flush(x) if self._rules[x.dtype].flush_outputs else x


def _default_nan(dtype: DType) -> Any:
    """What an invalid operation gives: the quiet NaN with the sign set (CDNA3 ISA manual, examples of V_LOG_F32)."""
    return np.copysign(dtype.type(np.nan), dtype.type(-1))


def _circular(turns: Array, quadrants: int) -> Array:
    """sin(2 pi (turns + quadrants / 4)), reduced to an eighth of a turn before pi is multiplied in.

    Whole and half turns give +0, except that sin(-0) is -0 (CDNA3 ISA manual, examples of V_SIN_F32).
    """
    quarter = np.rint(turns * 4)
    angle = (turns - quarter / 4) * (2 * np.pi)
    phase = (np.mod(quarter, 4) + quadrants) % 4
    folded = np.where(phase % 2 == 0, np.sin(angle), np.cos(angle))
    result = np.where(phase < 2, folded, -folded) + 0.0
    return np.where((turns == 0) & (quadrants == 0), turns, result)
