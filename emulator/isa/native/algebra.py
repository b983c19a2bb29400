"""The value algebra that writes LLVM IR.

Every operation appends instructions to a Builder and gives back the value that names their result. In the usual mode
(round to nearest even, denormals kept) float arithmetic is LLVM's own, without fast-math flags; in other modes it
calls functions that are written into the same module when they are first needed. Approximated functions and extrema
are library functions (``math_functions``, ``extrema``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amdrv.emulator.isa.algebra import Algebra, FloatMode, Rounding
from amdrv.emulator.isa.native.builder import FLOAT_TYPES, WIDTHS, Builder, Val, literal
from amdrv.emulator.isa.native.primitives import (
    arithmetic,
    call,
    cast,
    choose,
    compare,
    constant,
    convert,
    fused,
    negated,
    number,
    outlined,
)
from amdrv.emulator.isa.native.rounding import (
    clipped,
    direct,
    flush,
    fma64,
    is_finite,
    is_nan,
    narrow,
    nearest,
    power_of_two,
    scale64,
    signed_zero_sum,
    sum_to_odd,
    two_sum,
    widen,
    x_with_sign,
)
from amdrv.emulator.isa.native.stack import Stack

_INT_RANGES = {kind: (-(1 << WIDTHS[kind] - 1), (1 << WIDTHS[kind] - 1) - 1) for kind in ("i16", "i32")}
_INT_RANGES |= {kind: (0, (1 << WIDTHS[kind]) - 1) for kind in ("u8", "u16", "u32")}
_NEAREST = Rounding.NEAREST_EVEN


class LlvmAlgebra(Algebra[Val]):
    """The algebra for one function body and one floating-point mode.

    The values of one operation may be per lane or of the whole wave; a result is of the whole wave when all operands
    are. ``registers``, ``stack`` and ``lane_rows`` work with ``Stack``, which no other operation here takes
    (``StackAlgebra`` does).
    """

    def __init__(self, builder: Builder, mode: FloatMode) -> None:
        self.builder = builder
        self.mode = mode
        self._rounding = {"f16": mode.round64, "f32": mode.round32, "f64": mode.round64}
        self._flush_inputs = {"f16": mode.flush_inputs64, "f32": mode.flush_inputs32, "f64": mode.flush_inputs64}
        self._flush_outputs = {"f16": mode.flush_outputs64, "f32": mode.flush_outputs32, "f64": mode.flush_outputs64}
        self._plain = {
            kind: rounding is _NEAREST and not (self._flush_inputs[kind] or self._flush_outputs[kind])
            for kind, rounding in self._rounding.items()
        }
        self._plain["f16"] &= not mode.saturate16

    # Bits.

    def cast(self, x: Val, kind: str) -> Val:
        return cast(x, kind)

    def constant(self, kind: str, value: float) -> Val:
        return number(self.builder, kind, value)

    def select(self, condition: Val, x: Val | int, y: Val | int) -> Val:
        if isinstance(x, int):
            if isinstance(y, int):
                raise TypeError("a selection between two plain numbers has no kind")
            x = self.builder.constant(y.kind, x)
        elif isinstance(y, int):
            y = self.builder.constant(x.kind, y)
        return choose(condition, x, y)

    def table(self, kind: str, entries: Sequence[int], index: Val) -> Val:
        builder = self.builder
        name = f"table_{kind}_{hash(tuple(entries)) & (1 << 64) - 1:x}"
        full = f"{name}.w{builder.lanes}"
        if full not in builder.functions:
            builder.functions[full] = _table_function(builder, full, kind, entries)
        return call(name, kind, cast(index, "u32"))

    # Comparisons.

    def eq(self, x: Val, y: Val | int) -> Val:
        return self._compare("eq", x, y)

    def lt(self, x: Val, y: Val | int) -> Val:
        return self._compare("lt", x, y)

    def le(self, x: Val, y: Val | int) -> Val:
        return self._compare("le", x, y)

    def _compare(self, relation: str, x: Val, y: Val | int) -> Val:
        kind = x.kind
        if isinstance(y, int):
            y = self.builder.constant(kind, y)
        if kind in FLOAT_TYPES:
            if self._flush_inputs[kind]:
                x, y = flush(x), flush(y)
            return compare(f"fcmp o{relation}", x, y)
        if x.bits is not None and y.bits is not None:
            return self._compare_constants(relation, x, y)
        if relation == "eq":
            return compare("icmp eq", x, y)
        return compare(f"icmp {'s' if kind[0] == 'i' else 'u'}{relation}", x, y)

    def _compare_constants(self, relation: str, x: Val, y: Val) -> Val:
        left, right = _integer(x), _integer(y)
        holds = {"eq": left == right, "lt": left < right, "le": left <= right}[relation]
        result = self.builder.constant("bool", int(holds))
        return self.builder.spread(result) if x.vector or y.vector else result

    # Integers.

    def min(self, x: Val, y: Val | int) -> Val:
        return self._extreme("min", min, x, y)

    def max(self, x: Val, y: Val | int) -> Val:
        return self._extreme("max", max, x, y)

    def _extreme(self, name: str, pick: Callable[[int, int], int], x: Val, y: Val | int) -> Val:
        if isinstance(y, int):
            y = self.builder.constant(x.kind, y)
        if x.bits is not None and y.bits is not None:
            result = self.builder.constant(x.kind, pick(_integer(x), _integer(y)))
            return self.builder.spread(result) if x.vector or y.vector else result
        return self.builder.intrinsic(f"{'s' if x.kind[0] == 'i' else 'u'}{name}", x.kind, x, y)

    def popcount(self, x: Val) -> Val:
        return cast(self.builder.intrinsic("ctpop", "u" + x.kind[1:], x), "u32")

    def clz(self, x: Val) -> Val:
        return cast(self.builder.intrinsic("ctlz", "u" + x.kind[1:], x, extra=", i1 false"), "i32")

    def ctz(self, x: Val) -> Val:
        return cast(self.builder.intrinsic("cttz", "u" + x.kind[1:], x, extra=", i1 false"), "i32")

    def bitreverse(self, x: Val) -> Val:
        return self.builder.intrinsic("bitreverse", x.kind, x)

    # Float arithmetic.

    def add(self, x: Val, y: Val) -> Val:
        if self._plain[x.kind]:
            return arithmetic("fadd", x, y)
        x, y = self._inputs(x, y)
        if self._rounding[x.kind] is _NEAREST:
            return self._output(arithmetic("fadd", x, y), x, y)
        return self._output(self._directed("add", _directed_add, x, y), x, y)

    def sub(self, x: Val, y: Val) -> Val:
        if self._plain[x.kind]:
            return arithmetic("fsub", x, y)
        return self.add(x, self.select(self.eq(y, y), negated(y), y))

    def mul(self, x: Val, y: Val) -> Val:
        if self._plain[x.kind]:
            return arithmetic("fmul", x, y)
        x, y = self._inputs(x, y)
        if self._rounding[x.kind] is _NEAREST:
            return self._output(arithmetic("fmul", x, y), x, y)
        return self._output(self._directed("mul", _directed_mul, x, y), x, y)

    def fma(self, x: Val, y: Val, z: Val) -> Val:
        kind = x.kind
        if not self._plain[kind]:
            x, y, z = self._inputs(x, y, z)
            if self._rounding[kind] is not _NEAREST:
                return self._output(self._directed("fma", _directed_fma, x, y, z), x, y, z)
        return self._output(call("fma_f16", kind, x, y, z) if kind == "f16" else fused(x, y, z), x, y, z)

    def scaled_fma(self, x: Val, y: Val, z: Val, exponent: Val) -> Val:
        if self._rounding[x.kind] is _NEAREST:
            return self._output(call(f"scaled_fma_{x.kind}", x.kind, x, y, z, exponent), x, y, z)
        return self._output(self._directed("scaled_fma", scaled_sum, x, y, z, exponent), x, y, z)

    def _directed(self, name: str, body: Callable[..., Val], *values: Val) -> Val:
        """An operation in a rounding mode that the host's instructions do not have, as a function of the module."""
        kind = values[0].kind
        rounding = self._rounding[kind]
        return outlined(f"{name}_{rounding.name.lower()}_{kind}", kind, lambda *v: body(rounding, *v), *values)

    def min_num(self, x: Val, y: Val) -> Val:
        return self._extremum("min", x, y)

    def max_num(self, x: Val, y: Val) -> Val:
        return self._extremum("max", x, y)

    def _extremum(self, name: str, x: Val, y: Val) -> Val:
        x, y = self._inputs(x, y)
        return call(f"{name}_{'ieee' if self.mode.ieee else 'plain'}_{x.kind}", x.kind, x, y)

    def ldexp(self, x: Val, exponent: Val) -> Val:
        kind = x.kind
        (x,) = self._inputs(x)
        rounding = self._rounding[kind]
        if kind == "f64":
            if rounding is _NEAREST:
                return self._output(scale64(x, exponent))
            return self._output(self._directed("ldexp", _directed_ldexp, x, exponent))
        if kind == "f16" and rounding is _NEAREST:  # a float has room enough
            factor = cast(clipped(exponent, -60, 60) + 127 << 23, "f32")
            return self._output(nearest(arithmetic("fmul", widen(x, "f32"), factor), kind), x)
        scaled = arithmetic("fmul", widen(x, "f64"), power_of_two(clipped(exponent, -400, 400)))
        return self._output(narrow(scaled, kind, rounding), x)

    def trunc(self, x: Val) -> Val:
        return self._integral("trunc", x)

    def floor(self, x: Val) -> Val:
        return self._integral("floor", x)

    def ceil(self, x: Val) -> Val:
        return self._integral("ceil", x)

    def rndne(self, x: Val) -> Val:
        return self._integral("roundeven", x)

    def _integral(self, name: str, x: Val) -> Val:
        (x,) = self._inputs(x)
        if x.kind != "f16":
            return self.builder.intrinsic(name, x.kind, x)
        return nearest(self.builder.intrinsic(name, "f32", widen(x, "f32")), "f16")

    # Conversions.

    def to_float(self, x: Val, kind: str, rounding: Rounding | None = None) -> Val:
        source = x.kind
        if source == kind:
            return x
        if rounding is None:
            rounding = self._rounding[kind]
        if source in FLOAT_TYPES:
            (x,) = self._inputs(x)
            if WIDTHS[source] < WIDTHS[kind]:
                return widen(x, kind)
            return self._output(narrow(x, kind, rounding), x)
        return self._output(self._integer_to_float(x, kind, rounding), x)

    @staticmethod
    def _integer_to_float(x: Val, kind: str, rounding: Rounding) -> Val:
        """By double precision where it matters; a float holds every integer of which a half is not just infinite."""
        operation = "sitofp" if x.kind[0] == "i" else "uitofp"
        exact = "f64" if WIDTHS[x.kind] == 64 else "f32"
        if rounding is _NEAREST:
            return nearest(convert(operation, x, exact if kind == "f16" or exact == "f64" else kind), kind)
        wide = convert(operation, x, "f64")
        return wide if kind == "f64" else narrow(wide, kind, rounding)

    def to_int(self, x: Val, kind: str) -> Val:
        """Out of range, LLVM's conversions give anything at all: what goes in is held in range first."""
        if x.kind == "f16":
            x = widen(x, "f32")
        low, high = _INT_RANGES[kind]
        signed, least = kind[0] == "i", number(x.builder, x.kind, low)
        inside = choose(compare("fcmp ogt", x, least), x, least)  # a NaN becomes the least number too
        wide = ("i" if signed else "u") + "32"
        top = None
        if x.kind == "f32" and WIDTHS[kind] == 32:  # the greatest number is no float
            top = compare("fcmp oge", x, number(x.builder, x.kind, high + 1))
        else:
            greatest = number(x.builder, x.kind, high)
            inside = choose(compare("fcmp olt", inside, greatest), inside, greatest)
        result = convert(f"fpto{'s' if signed else 'u'}i", inside, wide)
        if top is not None:
            result = choose(top, constant(result, wide, high), result)
        if signed:
            result = choose(is_nan(x), constant(result, wide, 0), result)
        return cast(result, kind)

    # Approximated functions.

    def exp2(self, x: Val) -> Val:
        return self._approximate("exp2", x)

    def log2(self, x: Val) -> Val:
        return self._approximate("log2", x)

    def sin_turns(self, x: Val) -> Val:
        return self._approximate("sin", x)

    def cos_turns(self, x: Val) -> Val:
        return self._approximate("cos", x)

    def rcp(self, x: Val) -> Val:
        return self._approximate("rcp", x)

    def rsq(self, x: Val) -> Val:
        return self._approximate("rsq", x)

    def sqrt(self, x: Val) -> Val:
        return self._approximate("sqrt", x)

    def _approximate(self, name: str, x: Val) -> Val:
        """The library's f32 functions flush by themselves, whatever the mode, but for sine and cosine."""
        kind = x.kind
        if kind == "f32" and name not in ("sin", "cos"):
            return call(f"{name}_f32", kind, x)
        (x,) = self._inputs(x)
        return self._output(call(f"{name}_{kind}", kind, x), x)

    # Stacks.

    def registers(self, x: Val) -> Sequence[Val]:
        return x.values if isinstance(x, Stack) else [x]

    def stack(self, values: Sequence[Val]) -> Val:
        return Stack(values)

    def lane_rows(self, x: Val, rows: Sequence[Sequence[int]]) -> Val:
        x = self.builder.spread(x)
        shape = self.builder.type(x.kind, True)
        picked: list[Val] = []
        last: Sequence[int] | None = None
        for row in rows:
            if row == last:  # a column's lanes are the same for each of its rows
                picked.append(picked[-1])
                continue
            last = row
            lanes = ", ".join(f"i32 {lane}" for lane in row)
            text = self.builder.emit(f"shufflevector {x.typed}, {shape} poison, <{len(row)} x i32> <{lanes}>")
            picked.append(self.builder.value(x.kind, text, True))
        return Stack(picked)

    # The mode.

    def _inputs(self, *values: Val) -> tuple[Val, ...]:
        kind = values[0].kind
        if self._flush_inputs[kind]:
            return tuple(flush(value) if value.kind == kind else value for value in values)
        return values

    def _output(self, x: Val, *operands: Val) -> Val:
        """A result as the mode has it; ``operands`` are those of an operation that may overflow."""
        if self.mode.saturate16 and x.kind == "f16" and operands:
            overflown = compare("icmp eq", cast(x, "u16") & 0x7FFF, constant(x, "u16", 0x7C00))
            for operand in operands:
                if operand.kind in FLOAT_TYPES:
                    overflown = overflown & is_finite(operand)
            x = cast(choose(overflown, cast(x, "u16") - 1, cast(x, "u16")), "f16")
        return flush(x) if self._flush_outputs[x.kind] else x


def _integer(x: Val) -> int:
    """A known integer as its kind reads it."""
    bits, width = x.bits or 0, WIDTHS[x.kind]
    return bits - (1 << width) if x.kind[0] == "i" and bits >> (width - 1) else bits


def _directed_add(rounding: Rounding, x: Val, y: Val) -> Val:
    if x.kind == "f64":
        total, error = two_sum(x, y)
        overflown = ~is_finite(total) & is_finite(x) & is_finite(y)
        result = direct(total, choose(overflown, negated(total), error), rounding)
        return signed_zero_sum(result, total, x, y, rounding)
    left, right = widen(x, "f64"), widen(y, "f64")
    total = sum_to_odd(left, right)
    return signed_zero_sum(narrow(total, x.kind, rounding), total, left, right, rounding)


def _directed_mul(rounding: Rounding, x: Val, y: Val) -> Val:
    if x.kind == "f64":
        zero = x_with_sign(constant(x, "f64", 0), arithmetic("fmul", x, y))
        return fma64(x, y, zero, x.builder.constant("i32", 0), rounding)
    return narrow(arithmetic("fmul", widen(x, "f64"), widen(y, "f64")), x.kind, rounding)


def _directed_fma(rounding: Rounding, x: Val, y: Val, z: Val) -> Val:
    return scaled_sum(rounding, x, y, z, None)


def scaled_sum(rounding: Rounding, x: Val, y: Val, z: Val, exponent: Val | None) -> Val:
    """``(x * y + z) * 2**exponent`` with one rounding."""
    if x.kind == "f64":
        return fma64(x, y, z, x.builder.constant("i32", 0) if exponent is None else exponent, rounding)
    product, addend = arithmetic("fmul", widen(x, "f64"), widen(y, "f64")), widen(z, "f64")
    total = sum_to_odd(product, addend)
    scaled = total if exponent is None else scale64(total, exponent)
    return signed_zero_sum(narrow(scaled, x.kind, rounding), total, product, addend, rounding)


def _directed_ldexp(rounding: Rounding, x: Val, exponent: Val) -> Val:
    exponent = clipped(exponent, -2200, 2200)
    result = scale64(x, exponent)
    error = arithmetic("fsub", x, scale64(result, 0 - exponent))
    return direct(result, error, rounding)


def _table_function(builder: Builder, name: str, kind: str, entries: Sequence[int]) -> str:
    """A function that looks every lane's index up in a constant array."""
    element, indices, result = builder.type(kind, False), builder.type("u32", True), builder.type(kind, True)
    data = ", ".join(f"{element} {literal(kind, entry & (1 << WIDTHS[kind]) - 1)}" for entry in entries)
    return f"""@{name}.data = private constant [{len(entries)} x {element}] [{data}]
define internal {result} @{name}({indices} %index) nounwind {{
entry:
  br label %lane
lane:
  %n = phi i32 [ 0, %entry ], [ %next, %lane ]
  %done = phi {result} [ poison, %entry ], [ %more, %lane ]
  %i = extractelement {indices} %index, i32 %n
  %place = getelementptr {element}, ptr @{name}.data, i32 %i
  %value = load {element}, ptr %place
  %more = insertelement {result} %done, {element} %value, i32 %n
  %next = add i32 %n, 1
  %again = icmp ult i32 %next, {builder.lanes}
  br i1 %again, label %lane, label %end
end:
  ret {result} %more
}}"""
