"""The two kinds of extrema of gfx12: minimumNumber prefers numbers to NaNs, minimum hands NaNs on (IEEE 754-2019).

RDNA4 ISA manual, pseudo code of V_MIN_NUM_F32, V_MINIMUM_F32 and their neighbours; -0 is less than +0 in all of them.
Without an IEEE mode a signalling NaN counts as missing to the first kind.
"""

from __future__ import annotations

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import is_nan, quiet_nan
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Ternary, family
from amdrv.emulator.isa.semantics.modifiers import clamp_packed
from amdrv.emulator.isa.semantics.packed import packed


def _of_numbers(a: Ops, x: Value, y: Value, largest: bool) -> Value:
    return a.max_num(x, y) if largest else a.min_num(x, y)


def number(kind: str, largest: bool) -> Binary:
    """minimumNumber or maximumNumber."""

    def evaluate(a: Ops, x: Value, y: Value) -> Value:
        neither = is_nan(a, x, kind) & is_nan(a, y, kind)
        return a.select(neither, quiet_nan(a, x, kind), _of_numbers(a, x, y, largest))

    return evaluate


def propagating(kind: str, largest: bool) -> Binary:
    """minimum or maximum: of two NaNs the first is handed on.

    Measured on gfx1201 (rocjitsu, shared/minmax.h); the pseudo code would prefer a signalling one.
    """

    def evaluate(a: Ops, x: Value, y: Value) -> Value:
        first = is_nan(a, x, kind)
        unordered = first | is_nan(a, y, kind)
        return a.select(unordered, quiet_nan(a, a.select(first, x, y), kind), _of_numbers(a, x, y, largest))

    return evaluate


def _three(inner: Binary, outer: Binary) -> Ternary:
    return lambda a, x, y, z: outer(a, inner(a, x, y), z)


def median(kind: str) -> Ternary:
    """The middle of three, -0 below +0; with a NaN among them, their minimumNumber."""
    lower, upper = number(kind, False), number(kind, True)

    def evaluate(a: Ops, x: Value, y: Value, z: Value) -> Value:
        least = lower(a, x, y)
        middle = upper(a, least, lower(a, upper(a, x, y), z))
        unordered = is_nan(a, x, kind) | is_nan(a, y, kind) | is_nan(a, z, kind)
        return a.select(unordered, lower(a, least, z), middle)

    return evaluate


def _binary(kind: str, prefix: str) -> dict[str, Binary]:
    return {
        f"{prefix}_min_num_{kind}": number(kind, False),
        f"{prefix}_max_num_{kind}": number(kind, True),
        f"{prefix}_minimum_{kind}": propagating(kind, False),
        f"{prefix}_maximum_{kind}": propagating(kind, True),
    }


def _ternary(kind: str) -> dict[str, Ternary]:
    lower, upper = number(kind, False), number(kind, True)
    minimum, maximum = propagating(kind, False), propagating(kind, True)
    return {
        f"v_min3_num_{kind}": _three(lower, lower),
        f"v_max3_num_{kind}": _three(upper, upper),
        f"v_med3_num_{kind}": median(kind),
        f"v_minmax_num_{kind}": _three(lower, upper),
        f"v_maxmin_num_{kind}": _three(upper, lower),
        f"v_minimum3_{kind}": _three(minimum, minimum),
        f"v_maximum3_{kind}": _three(maximum, maximum),
        f"v_minimummaximum_{kind}": _three(minimum, maximum),
        f"v_maximumminimum_{kind}": _three(maximum, minimum),
    }


PACKED = {mnemonic: packed("f16", function) for mnemonic, function in _binary("f16", "v_pk").items()}

DEFINITIONS: list[Definition] = [
    *(definition for kind in ("f16", "f32", "f64") for definition in family(_binary(kind, "v"), kind, kind)),
    *(definition for kind in ("f16", "f32") for definition in family(_binary(kind, "s"), kind, kind)),
    *(definition for kind in ("f16", "f32") for definition in family(_ternary(kind), kind, kind, kind)),
    *family(PACKED, reads=("fields",), saturating={name: clamp_packed(function) for name, function in PACKED.items()}),
]
