"""Input and output modifiers of the VOP3 encodings, and the choice that the clamp bit makes."""

from __future__ import annotations

from collections.abc import Mapping

from amdrv.emulator.isa.algebra import FloatMode, Ops, Value
from amdrv.emulator.isa.semantics.bits import absolute, copy_sign, exponent, halves, is_nan, negate, pair, sign
from amdrv.emulator.isa.semantics.definition import Definition, Evaluate

HALVES = 3
OMOD_FACTORS = {1: 2.0, 2: 4.0, HALVES: 0.5}  # RDNA3 ISA manual, VOP3 encoding, OMOD field
# Two floats in a register pair: LLVM 22 gives the opcodes neither modifier.
_PAIRS = ("v_cvt_pk_f32_fp8", "v_cvt_pk_f32_bf8")
# Packed results ignore the output modifier, and so do these (manual 7.2.3.1).
NO_OMOD = frozenset(("v_dot2_f16_f16", "v_dot2_bf16_bf16", "v_cvt_pk_rtz_f16_f32", *_PAIRS))
NO_CLAMP = frozenset(("v_dot2_f16_f16", "v_dot2_bf16_bf16", "v_dot2_f32_f16", "v_dot2_f32_bf16", *_PAIRS))

# Sums of products round to nearest and keep f16's denormals whatever the mode says (RDNA3 ISA manual 7.2.4 of bf16; of
# all of them ROCm rocjitsu, shared/gfx11_dot2.h, measured on gfx1100). What else they flush they flush themselves.
_MODELESS = ("v_wmma", "v_swmmac", "v_dot2", "v_dot4_f32")


def own_mode(definition: Definition, mode: FloatMode) -> FloatMode:
    """The mode in which a definition is to be evaluated where MODE asks for ``mode``."""
    if not definition.mnemonic.startswith(_MODELESS):
        return mode
    return FloatMode(
        dx10_clamp=mode.dx10_clamp, ieee=mode.ieee, saturate16=mode.saturate16, scales_always=mode.scales_always
    )


def modify_input(a: Ops, x: Value, width: int, *, neg: bool, magnitude: bool) -> Value:
    """A source with its abs, then its neg modifier: changes of the sign bit, whatever type the bits have."""
    kind = f"f{width}"
    if magnitude:
        x = absolute(a, x, kind)
    return negate(a, x, kind) if neg else x


def clamp_float(a: Ops, x: Value, kind: str) -> Value:
    """A float result held in [0, 1]; with DX10_CLAMP a NaN becomes zero, else it stays."""
    zero, one = a.constant(kind, 0), a.constant(kind, 1)
    low = a.select(a.lt(zero, x), x, zero)
    clamped = a.select(a.lt(one, low), one, low)
    return clamped if a.mode.dx10_clamp else a.select(is_nan(a, x, kind), x, clamped)


def output_modifier(a: Ops, x: Value, kind: str, omod: int) -> Value:
    """The result times 2, 4 or 1/2; gfx11 ignores it in IEEE mode and when output denormals are kept (manual 7.2.3.1).

    A zero or a denormal becomes +0; a number that halving makes denormal becomes a zero of its sign, not rounded first
    (measured on gfx1100 and gfx1201, which scales in every mode: rocjitsu, shared/output_modifier.h and fp_mode.h).
    """
    flushes = a.mode.flush_outputs32 if kind == "f32" else a.mode.flush_outputs64
    if not omod or not (a.mode.scales_always or (flushes and not a.mode.ieee)):
        return x
    scale, zero = exponent(a, x, kind), a.constant(kind, 0)
    scaled = a.mul(x, a.constant(kind, OMOD_FACTORS[omod]))
    if omod == HALVES:
        scaled = a.select(a.eq(scale, 1), copy_sign(a, sign(a, x, kind), zero, kind), scaled)
    return a.select(a.eq(scale, 0), zero, scaled)


def clamp_packed(function: Evaluate) -> Evaluate:
    """An instruction with two f16 results in a register, with the clamp bit: both held in [0, 1]."""

    def evaluate(a: Ops, *values: Value) -> Value:
        result: Value = function(a, *values)  # type: ignore[assignment]
        return pair(a, *(clamp_float(a, half, "f16") for half in halves(a, result, "f16")))

    return evaluate


def bind(definition: Definition, fields: Mapping[str, int], result_kind: str) -> Evaluate:
    """A definition's function for one decoded instruction, with its clamp bit and output modifier.

    ``fields`` are the instruction's raw fields and ``result_kind`` the type of its first destination ("f32", "u16",
    ...). The function takes and returns what ``definition.evaluate`` does.
    """
    clamp, omod = fields.get("clamp", 0), fields.get("omod", 0)
    if clamp and definition.saturating:
        return definition.saturating
    if definition.mnemonic in NO_OMOD:
        omod = 0
    if definition.mnemonic in NO_CLAMP:
        clamp = 0
    if result_kind not in ("f16", "f32", "f64") or not (clamp or omod):
        return definition.evaluate
    evaluate = definition.evaluate

    def finish(a: Ops, result: Value) -> Value:
        result = output_modifier(a, result, result_kind, omod)
        return clamp_float(a, result, result_kind) if clamp else result

    if len(definition.writes) == 1:
        return lambda a, *values: finish(a, evaluate(a, *values))  # type: ignore[arg-type]

    def modified(a: Ops, *values: Value) -> tuple[Value, ...]:
        results: tuple[Value, ...] = evaluate(a, *values)  # type: ignore[assignment]
        return finish(a, results[0]), *results[1:]

    return modified
