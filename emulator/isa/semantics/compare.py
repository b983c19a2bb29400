"""Comparisons: v_cmp, v_cmpx, s_cmp, s_cmpk, class tests and bit tests; most are made from two short tables."""

from __future__ import annotations

from amdrv.emulator.isa.algebra import Ops, Value
from amdrv.emulator.isa.semantics.bits import FLOAT_LAYOUT, exponent, is_nan, is_signalling, is_zero, not_zero, sign
from amdrv.emulator.isa.semantics.definition import Binary, Definition, Evaluate, family, typed


def _never(a: Ops, x: Value, y: Value) -> Value:
    return a.eq(x, y) & ~a.eq(x, y)


INTEGER_RELATIONS: dict[str, Binary] = {
    "f": _never,
    "lt": lambda a, x, y: a.lt(x, y),
    "eq": lambda a, x, y: a.eq(x, y),
    "le": lambda a, x, y: a.le(x, y),
    "gt": lambda a, x, y: a.lt(y, x),
    "ne": lambda a, x, y: ~a.eq(x, y),
    "lg": lambda a, x, y: ~a.eq(x, y),  # the scalar name of "ne"
    "ge": lambda a, x, y: a.le(y, x),
    "t": lambda a, x, y: ~_never(a, x, y),
}

FLOAT_RELATIONS: dict[str, Binary] = {
    "f": _never,
    "lt": lambda a, x, y: a.lt(x, y),
    "eq": lambda a, x, y: a.eq(x, y),
    "le": lambda a, x, y: a.le(x, y),
    "gt": lambda a, x, y: a.lt(y, x),
    "lg": lambda a, x, y: a.lt(x, y) | a.lt(y, x),
    "ge": lambda a, x, y: a.le(y, x),
    "o": lambda a, x, y: a.eq(x, x) & a.eq(y, y),
    "u": lambda a, x, y: ~(a.eq(x, x) & a.eq(y, y)),
    "nge": lambda a, x, y: ~a.le(y, x),
    "nlg": lambda a, x, y: ~(a.lt(x, y) | a.lt(y, x)),
    "ngt": lambda a, x, y: ~a.lt(y, x),
    "nle": lambda a, x, y: ~a.le(x, y),
    "neq": lambda a, x, y: ~a.eq(x, y),
    "nlt": lambda a, x, y: ~a.lt(x, y),
    "t": lambda a, x, y: ~_never(a, x, y),
}


def _relations(kind: str) -> dict[str, Binary]:
    """The relations that a kind has in the vector instructions; the 16-bit integers have no constant ones."""
    if kind.startswith("f"):
        return FLOAT_RELATIONS
    scalar_or_missing = {"lg"} | ({"f", "t"} if kind.endswith("16") else set())
    return {name: relation for name, relation in INTEGER_RELATIONS.items() if name not in scalar_or_missing}


def class_test(kind: str) -> Evaluate:
    """V_CMP_CLASS: bit n of the second source asks for class n (manual, V_CMP_CLASS_F32)."""
    infinite, _, _ = FLOAT_LAYOUT[kind]

    def evaluate(a: Ops, x: Value, mask: Value) -> Value:
        wanted = a.u32(mask)
        scale = exponent(a, x, kind)
        negative = sign(a, x, kind)

        def bit(number_negative: int, number_positive: int) -> Value:
            return a.select(negative, wanted >> number_negative & 1, wanted >> number_positive & 1)

        finite = a.select(is_zero(a, x, kind), bit(5, 6), a.select(a.eq(scale, 0), bit(4, 7), bit(3, 8)))
        not_a_number = a.select(is_signalling(a, x, kind), wanted & 1, wanted >> 1 & 1)
        special = a.select(is_nan(a, x, kind), not_a_number, bit(2, 9))
        return not_zero(a, a.select(a.eq(scale, infinite), special, finite))

    return typed(evaluate, kind)


def _vector() -> list[Definition]:
    definitions = []
    for kind in ("f16", "f32", "f64", "i16", "u16", "i32", "u32", "i64", "u64"):
        for name, relation in _relations(kind).items():
            evaluate = typed(relation, kind, kind)
            definitions.append(Definition(f"v_cmp_{name}_{kind}", evaluate))
            definitions.append(Definition(f"v_cmpx_{name}_{kind}", evaluate, writes=("exec",)))
    for kind in FLOAT_LAYOUT:
        definitions.append(Definition(f"v_cmp_class_{kind}", class_test(kind)))
        definitions.append(Definition(f"v_cmpx_class_{kind}", class_test(kind), writes=("exec",)))
    return definitions


def _scalar() -> list[Definition]:
    definitions = []
    six = ("eq", "lg", "gt", "ge", "lt", "le")
    ordered = dict.fromkeys(("i32", "u32"), six) | {"u64": ("eq", "lg")}
    for kind, names in ordered.items():
        table: dict[str, Evaluate] = {f"s_cmp_{name}_{kind}": INTEGER_RELATIONS[name] for name in names}
        definitions += family(table, kind, kind, writes=("scc",))
    for kind in ("f32", "f16"):
        table = {f"s_cmp_{name}_{kind}": FLOAT_RELATIONS[name] for name in FLOAT_RELATIONS if name not in "ft"}
        definitions += family(table, kind, kind, writes=("scc",))
    for kind, narrow in (("i32", "i16"), ("u32", "u16")):
        for name in six:
            relation = typed(INTEGER_RELATIONS[name], kind, kind)
            definitions.append(
                Definition(f"s_cmpk_{name}_{kind}", _with_short_constant(relation, narrow), writes=("scc",))
            )
    return definitions


def _with_short_constant(relation: Evaluate, narrow: str) -> Evaluate:
    """A relation whose second source is the 16-bit immediate, extended by its own signedness."""
    return lambda a, x, constant: relation(a, x, a.cast(constant, narrow))


BIT_TESTS_32: dict[str, Binary] = {
    "s_bitcmp0_b32": lambda a, x, n: a.eq(x >> (n & 31) & 1, 0),
    "s_bitcmp1_b32": lambda a, x, n: a.eq(x >> (n & 31) & 1, 1),
}
BIT_TESTS_64: dict[str, Binary] = {
    "s_bitcmp0_b64": lambda a, x, n: a.eq(x >> (n & 63) & 1, 0),
    "s_bitcmp1_b64": lambda a, x, n: a.eq(x >> (n & 63) & 1, 1),
}

DEFINITIONS = [
    *_vector(),
    *_scalar(),
    *family(BIT_TESTS_32, "u32", "u32", writes=("scc",)),
    *family(BIT_TESTS_64, "u64", "u64", writes=("scc",)),
]
